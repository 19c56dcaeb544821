// machine/direct_call.hpp - system calls that need not say that the thread may be cancelled in them.
//
// glibc's recv, send and epoll_wait are points where pthread_cancel may end the thread, and in a process with threads each
// tells so before the call and takes it back after: two atomics and some 30 instructions. No thread is to be cancelled in
// these: two never block, and the third is for workers, which nobody else holds. So they are made here, by one instruction. The
// kernel answers with minus errno then, which nobody has to fetch from the thread's own memory, so that the call can be
// inlined: what runs in the kernel makes the processor forget where to return to, and each return saved is 20 cycles.
//
// The C library's own functions are called where the arguments of the system call are another matter (other processors and
// C libraries), under sanitizers, which learn from these functions what was written and which thread comes after which,
// and with CONCUR_CALLS_BY_LIBC, for programs in which something preloaded stands before them.
#ifndef CONCUR_MACHINE_DIRECT_CALL_HPP
#define CONCUR_MACHINE_DIRECT_CALL_HPP

#include <cstddef>

#include "base/config.hpp"

#if CONCUR_BODIES

#include <cerrno>
#include <sys/socket.h>

#if defined(__linux__)
#  include <sys/epoll.h>
#  include <sys/syscall.h>
#  include <unistd.h>
#endif

#if defined(__linux__) && defined(__GLIBC__) && (defined(CONCUR_ARCH_X86_64) || defined(CONCUR_ARCH_AARCH64)) && \
    defined(__LP64__) && !CONCUR_ASAN && !CONCUR_TSAN && !CONCUR_MSAN && !defined(CONCUR_CALLS_BY_LIBC)
#  define CONCUR_DIRECT_CALLS 1
#else
#  define CONCUR_DIRECT_CALLS 0
#endif

// Where errno is read, a function stays a function: the address of errno must not be kept over a switch of fibers.
#if CONCUR_DIRECT_CALLS
#  define CONCUR_DIRECT_INLINE
#else
#  define CONCUR_DIRECT_INLINE CONCUR_NOINLINE
#endif

CONCUR_NAMESPACE_BEGIN
namespace detail {

#if CONCUR_DIRECT_CALLS
inline long word_of(std::size_t word) noexcept { return static_cast<long>(word); }
inline long word_of(const void* word) noexcept { return reinterpret_cast<long>(word); }

// The answer of the kernel: minus errno for a failure.
inline long direct_call(long number, long a, long b, long c, long d, long e, long f) noexcept {
#  if defined(CONCUR_ARCH_X86_64)
  register long fourth __asm__("r10") = d;
  register long fifth __asm__("r8") = e;
  register long sixth __asm__("r9") = f;
  long answer;
  __asm__ volatile("syscall"
                   : "=a"(answer)
                   : "0"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth), "r"(sixth)
                   : "rcx", "r11", "cc", "memory");
  return answer;
#  else
  register long which __asm__("x8") = number;
  register long first __asm__("x0") = a;
  register long second __asm__("x1") = b;
  register long third __asm__("x2") = c;
  register long fourth __asm__("x3") = d;
  register long fifth __asm__("x4") = e;
  register long sixth __asm__("x5") = f;
  __asm__ volatile("svc #0"
                   : "+r"(first)
                   : "r"(which), "r"(second), "r"(third), "r"(fourth), "r"(fifth), "r"(sixth)
                   : "cc", "memory");
  return first;
#  endif
}
#endif

// As recv and send, with MSG_DONTWAIT in the flags; minus errno for a failure.
CONCUR_DIRECT_INLINE inline long direct_recv(int fd, void* data, std::size_t size, int flags) noexcept {
#if CONCUR_DIRECT_CALLS
  return direct_call(SYS_recvfrom, fd, word_of(data), word_of(size), flags, 0, 0);
#else
  const long result = ::recv(fd, data, size, flags);
  return result >= 0 ? result : -errno;
#endif
}
CONCUR_DIRECT_INLINE inline long direct_send(int fd, const void* data, std::size_t size, int flags) noexcept {
#if CONCUR_DIRECT_CALLS
  return direct_call(SYS_sendto, fd, word_of(data), word_of(size), flags, 0, 0);
#else
  const long result = ::send(fd, data, size, flags);
  return result >= 0 ? result : -errno;
#endif
}

#if defined(__linux__)
CONCUR_DIRECT_INLINE inline int direct_epoll_wait(int queue_fd, epoll_event* events, int capacity,
                                                  int timeout_ms) noexcept {
#  if CONCUR_DIRECT_CALLS && defined(SYS_epoll_wait)
  return static_cast<int>(direct_call(SYS_epoll_wait, queue_fd, word_of(events), capacity, timeout_ms, 0, 0));
#  elif CONCUR_DIRECT_CALLS
  constexpr long mask_bytes = 8;  // of the kernel's signal masks
  return static_cast<int>(direct_call(SYS_epoll_pwait, queue_fd, word_of(events), capacity, timeout_ms, 0, mask_bytes));
#  else
  const int count = ::epoll_wait(queue_fd, events, capacity, timeout_ms);
  return count >= 0 ? count : -errno;
#  endif
}
#endif

}  // namespace detail
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES
#endif
