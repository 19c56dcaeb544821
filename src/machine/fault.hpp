// machine/fault.hpp - a stack overflow that says whose it was.
//
// A fiber that runs out of stack touches its guard and the process dies of SIGSEGV, as it should; but "Segmentation
// fault" names nobody. Asked to, the library says which fiber it was and how much stack it had, and then lets things
// take their course: the handler that was there before decides, and where there was none, the process dies of the same
// signal, at the same instruction, with the core dump it would have had.
//
// The handler needs a stack, and the one in use is the one that is full. So each worker gets a signal stack of its own.
//
//   F1  Nothing is installed unless the user asks: report_stack_overflows() is the only place that touches a signal.
//   F2  Between the fault and the message only async-signal-safe things happen: reading, formatting into an array,
//       write(2).
//   F3  Faults that are no overflow of ours pass through without a word.
//   F4  The previous handler is called as the kernel would have called it: with its own mask, in its own form.
//   F5  SIGSEGV and SIGBUS must not be blocked in workers, even where every other signal is. A fault whose signal is
//       blocked kills the process before any handler runs.
//
// Who the fiber is, only the runtime knows; it registers a function that finds a guard by address and writes the text.
#ifndef CONCUR_MACHINE_FAULT_HPP
#define CONCUR_MACHINE_FAULT_HPP

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/config.hpp"

CONCUR_NAMESPACE_BEGIN

// "My program dies of SIGSEGV, and I think a fiber's stack was too small." Call this once, before the runtimes start.
// From then on an overflow is reported on standard error, with the fiber's number, name and stack size, before the
// process dies or the signal handler that was installed earlier is called. Calling it again does nothing. Costs a
// signal stack per worker.
//
// Returns false when the handler cannot be installed. Programs that install their own handler later should chain to
// this one. Overflows that step over the guard (a frame of more than 64 KiB) are not seen, nor are those of a stack
// guarded by a canary.
CONCUR_INLINE bool report_stack_overflows() noexcept;

namespace detail {

// Writes what is known about the fiber in whose guard this address lies, as in
//     stack overflow in fiber 17 "parser": its 262144 bytes are used up; set options.stack_size higher or recurse less
// into text, zero-terminated. False: no guard holds it. Runs in a signal handler.
using fault_lookup = bool (*)(const void* address, char* text, std::size_t bytes);

CONCUR_INLINE void set_fault_lookup(fault_lookup lookup) noexcept;
CONCUR_INLINE bool is_reporting_overflows() noexcept;

// Text in an array, for signal handlers: what does not fit is cut off, and the end is always a zero.
class signal_safe_text {
 public:
  signal_safe_text(char* text, std::size_t bytes) noexcept : next_(text), left_(bytes) {
    if (left_ != 0) *next_ = '\0';
  }

  signal_safe_text& add(const char* words) noexcept {
    for (; *words != '\0' && left_ > 1; ++words, --left_) *next_++ = *words;
    if (left_ != 0) *next_ = '\0';
    return *this;
  }

  signal_safe_text& add_number(std::uint64_t number) noexcept {
    char digits[21];
    char* first = digits + sizeof digits;
    *--first = '\0';
    do {
      *--first = static_cast<char>('0' + number % 10);
      number /= 10;
    } while (number != 0);
    return add(first);
  }

 private:
  char* next_;
  std::size_t left_;
};

// The signal stack of the calling thread, while the report is on: made by each worker for as long as it runs. Does
// nothing when the report is off, or when the thread has a signal stack already (sanitizers make one).
class thread_signal_stack {
 public:
  thread_signal_stack() noexcept;
  ~thread_signal_stack();
  thread_signal_stack(const thread_signal_stack&) = delete;
  thread_signal_stack& operator=(const thread_signal_stack&) = delete;

 private:
  void* mapping_ = nullptr;
  std::size_t bytes_ = 0;
};

// 0: off, 1: being installed, 2: on. Written by report_stack_overflows only.
// std::atomic: read in a signal handler, where no driver may be asked.
inline std::atomic<std::uint32_t> fault_report_state{0};
inline std::atomic<fault_lookup> fault_lookup_function{nullptr};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

CONCUR_NAMESPACE_BEGIN
namespace detail {

// What was there before us. Written before our handlers are installed, and read by them.
inline struct sigaction previous_on_segv {};
inline struct sigaction previous_on_bus {};

CONCUR_INLINE void set_fault_lookup(fault_lookup lookup) noexcept {
  // release: publishes what the function looks at to the handler
  fault_lookup_function.store(lookup, std::memory_order_release);
}

CONCUR_INLINE bool is_reporting_overflows() noexcept {
  // acquire: pairs with the release in report_stack_overflows
  return fault_report_state.load(std::memory_order_acquire) == 2;
}

// Does what would have happened without us. For a default action the handler is taken away and the instruction runs
// again, so that the process dies where the fault is; a signal that was sent by kill() does not come by itself a second
// time.
CONCUR_INLINE void chain_to_previous(int number, siginfo_t* info, void* machine_state) noexcept {
  const struct sigaction& previous = number == SIGSEGV ? previous_on_segv : previous_on_bus;
  const bool was_sent = info->si_code <= 0;
  const bool has_information = (previous.sa_flags & SA_SIGINFO) != 0;
  if (!has_information && (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN)) {
    if (was_sent && previous.sa_handler == SIG_IGN) return;
    struct sigaction plain {};
    plain.sa_handler = SIG_DFL;
    ::sigaction(number, &plain, nullptr);
    if (was_sent) ::raise(number);  // arrives when this handler returns and unblocks it
    return;
  }
  sigset_t mask_before;
  ::pthread_sigmask(SIG_BLOCK, &previous.sa_mask, &mask_before);
  if (has_information) {
    previous.sa_sigaction(number, info, machine_state);
  } else {
    previous.sa_handler(number);
  }
  ::pthread_sigmask(SIG_SETMASK, &mask_before, nullptr);
}

CONCUR_NOINLINE CONCUR_INLINE void on_fault(int number, siginfo_t* info, void* machine_state) noexcept {
  const int errno_before = errno;
  // acquire: pairs with set_fault_lookup
  const fault_lookup lookup = fault_lookup_function.load(std::memory_order_acquire);
  char about_fiber[256];
  if (info->si_code > 0 && lookup != nullptr && lookup(info->si_addr, about_fiber, sizeof about_fiber)) {
    char line[sizeof about_fiber + 16];
    signal_safe_text text(line, sizeof line);
    text.add("concur: ").add(about_fiber).add("\n");
    const auto written = ::write(STDERR_FILENO, line, std::strlen(line));
    static_cast<void>(written);  // whoever closed standard error does not want to know
  }
  errno = errno_before;
  chain_to_previous(number, info, machine_state);
}

// The kernel says how much a signal frame takes on this processor; the rest is for the handlers we chain to.
CONCUR_INLINE std::size_t signal_stack_bytes() noexcept {
  std::size_t frame = 16384;
#if defined(_SC_MINSIGSTKSZ)
  const long answer = ::sysconf(_SC_MINSIGSTKSZ);
  if (answer > 0 && static_cast<std::size_t>(answer) > frame) frame = static_cast<std::size_t>(answer);
#endif
  return (frame + 65536) / 65536 * 65536;
}

CONCUR_INLINE thread_signal_stack::thread_signal_stack() noexcept {
  if (!is_reporting_overflows()) return;
  stack_t current{};
  if (CONCUR_MUTANT_IS(28)) return;  // planted bug: the handler would need the stack that is full
  if (::sigaltstack(nullptr, &current) != 0 || (current.ss_flags & SS_DISABLE) == 0) return;
  const std::size_t bytes = signal_stack_bytes();
  void* const mapping = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
  if (mapping == MAP_FAILED) return;
  stack_t ours{};
  ours.ss_sp = static_cast<char*>(mapping);
  ours.ss_size = bytes;
  if (::sigaltstack(&ours, nullptr) != 0) {
    ::munmap(mapping, bytes);
    return;
  }
  mapping_ = mapping;
  bytes_ = bytes;
}

CONCUR_INLINE thread_signal_stack::~thread_signal_stack() {
  if (mapping_ == nullptr) return;
  stack_t current{};
  if (::sigaltstack(nullptr, &current) == 0 && current.ss_sp == mapping_) {
    stack_t off{};
    off.ss_flags = SS_DISABLE;
    off.ss_size = bytes_;  // some systems want a valid size even here
    ::sigaltstack(&off, nullptr);
  }
  ::munmap(mapping_, bytes_);
}

}  // namespace detail

CONCUR_INLINE bool report_stack_overflows() noexcept {
  std::uint32_t off = 0;
  // acquire: pairs with the release below, for whoever comes second
  if (!detail::fault_report_state.compare_exchange_strong(off, 1, std::memory_order_acquire, std::memory_order_acquire))
    return true;
  // First looked at and then replaced: a fault in between must find the previous handlers known.
  bool is_installed = ::sigaction(SIGSEGV, nullptr, &detail::previous_on_segv) == 0 &&
                      ::sigaction(SIGBUS, nullptr, &detail::previous_on_bus) == 0;
  struct sigaction ours {};
  ours.sa_sigaction = detail::on_fault;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
  static_cast<void>(sigemptyset(&ours.sa_mask));  // a macro on macOS
  is_installed = is_installed && ::sigaction(SIGSEGV, &ours, nullptr) == 0;
  is_installed = is_installed && ::sigaction(SIGBUS, &ours, nullptr) == 0;
  // release: publishes the previous handlers to is_reporting_overflows
  detail::fault_report_state.store(is_installed ? 2 : 0, std::memory_order_release);
  return is_installed;
}
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES

#endif
