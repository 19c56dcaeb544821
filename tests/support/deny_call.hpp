// tests/support/deny_call.hpp - an older kernel, or a liar, for one thread: a system call that answers without doing
// anything.
//
// A seccomp filter lets the kernel answer a call itself. So the ways out that concur takes on old kernels, in sandboxes
// and under emulators can be tried on a new one. The filter holds for the calling thread and what it starts, and cannot
// be taken off; so it belongs in a thread of its own.
#ifndef CONCUR_TESTS_SUPPORT_DENY_CALL_HPP
#define CONCUR_TESTS_SUPPORT_DENY_CALL_HPP

#if defined(__linux__)

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cstdint>

// Whether an emulator of user programs stands between us and the kernel, which has limits and memory of its own to keep
// track of. It is known by not letting programs ask for seccomp.
inline bool is_emulated() { return ::prctl(PR_GET_SECCOMP, 0, 0, 0, 0) < 0; }

// From now on this call gives `error` at once, or 0 when that is 0 as if it had succeeded. With third_argument >= 0
// only those calls are concerned whose third argument is that. False: seccomp is not to be had here (emulators),
// nothing has changed.
inline bool deny_call(long number, int error, std::int64_t third_argument = -1) {
  constexpr std::uint16_t load = BPF_LD | BPF_W | BPF_ABS;
  constexpr std::uint16_t skip_unless_equal = BPF_JMP | BPF_JEQ | BPF_K;
  constexpr std::uint16_t answer = BPF_RET | BPF_K;
  constexpr std::uint32_t number_at = offsetof(seccomp_data, nr);
  // The low half, on a little-endian machine.
  constexpr std::uint32_t argument_at = offsetof(seccomp_data, args) + 2 * sizeof(std::uint64_t);
  const std::uint8_t ignore_argument = third_argument < 0 ? 1 : 0;
  sock_filter program[] = {
      {load, 0, 0, number_at},
      {skip_unless_equal, 0, 4, static_cast<std::uint32_t>(number)},
      {load, 0, 0, argument_at},
      {skip_unless_equal, 1, 0, static_cast<std::uint32_t>(third_argument)},
      {BPF_JMP | BPF_JA, 0, 0, ignore_argument != 0 ? 0U : 1U},
      {answer, 0, 0, SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(error)},
      {answer, 0, 0, SECCOMP_RET_ALLOW},
  };
  sock_fprog filter{};
  filter.len = sizeof program / sizeof program[0];
  filter.filter = program;
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

#else

inline bool is_emulated() { return false; }

#endif

#endif
