// sync/latch.hpp - a door that opens once, when so many have arrived.
//
// A number of things must have happened before somebody goes on: each counts down, and who waits, waits for zero. A latch
// is used once, and very often lives on the stack of the one that waits, so it must be possible to let it go as soon as
// wait() has returned, while the last count_down() is still on its way out. So zero is not seen in the count, but in the
// lock: the last one retires it, with the number `open`.
//
//     lock      meaning                                     written by
//     0, 1      the count is above zero; free or held       whoever counts down, or begins to wait
//     open      the count is zero, for ever                 the last count_down, as its last touch
//
//   G1  Nobody sees zero before the last count_down() has touched the latch for the last time: waiters are claimed before
//       the lock is retired and resumed after it, from a chain that runs through their own notes.
//   G2  The count changes under the lock only.
#ifndef CONCUR_SYNC_LATCH_HPP
#define CONCUR_SYNC_LATCH_HPP

#include <limits>

#include "atomic/retirable_lock.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/time.hpp"
#include "runtime/wait_queue.hpp"

CONCUR_NAMESPACE_BEGIN

// Every count_down() happens before the return of each wait() that it lets go, and of each try_wait() that says true. The
// latch may be destroyed as soon as every wait() has returned, whatever count_down() is still doing.
class latch {
 public:
  static constexpr std::ptrdiff_t(max)() noexcept { return (std::numeric_limits<std::ptrdiff_t>::max)(); }

  // Opens after `expected` arrivals; zero: it is open. Throws std::invalid_argument if that is negative.
  explicit constexpr latch(std::ptrdiff_t expected)
      : count_(expected), waiting_{detail::retirable_lock(expected == 0 ? open : 0), {}} {
    if (expected < 0) fail_negative("concur::latch", "expected", expected);
  }
  latch(const latch&) = delete;
  latch& operator=(const latch&) = delete;

  // Lowers the count by n, and lets everybody go when it is zero. Never parks. Throws std::invalid_argument for a negative
  // n, and std::logic_error when the count would fall below zero; the count is then what it was.
  void count_down(std::ptrdiff_t n = 1);

  // Whether the count is zero. One load.
  bool try_wait() const noexcept { return waiting_.lock.peek() == open; }

  // Parks until the count is zero. Throws `cancelled`; the form with a code says so there, and returns false.
  void wait() { wait_deadline(detail::never); }
  bool wait(std::error_code& error) { return wait_deadline(detail::never, error); }
  // The same with a limit; false also when that passed first.
  template <class Rep, class Period>
  bool wait_for(std::chrono::duration<Rep, Period> d) {
    return wait_deadline(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  bool wait_until(const std::chrono::time_point<Clock, Duration>& tp) {
    return wait_deadline(detail::deadline_at(tp));
  }
  template <class Rep, class Period>
  bool wait_for(std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return wait_deadline(detail::deadline_after(d), error);
  }
  template <class Clock, class Duration>
  bool wait_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return wait_deadline(detail::deadline_at(tp), error);
  }

  // count_down(n), then wait(). Throws as these do; when it is cancelled, the arrival has been counted.
  void arrive_and_wait(std::ptrdiff_t n = 1) {
    count_down(n);
    wait_deadline(detail::never);
  }
  bool arrive_and_wait(std::error_code& error) { return arrive_and_wait(1, error); }
  bool arrive_and_wait(std::ptrdiff_t n, std::error_code& error) {
    count_down(n);
    return wait_deadline(detail::never, error);
  }

 private:
  static constexpr std::uint32_t open = 2;

  template <class... Code>
  bool wait_deadline(detail::nanoseconds_t deadline_ns, Code&... code) {
    const auto wait_from = [&](detail::worker* w) {
      return waiting_.wait_until_retired(w, deadline_ns, detail::wait_reason::latch_wait);
    };
    return detail::perform(wait_from, code...) == detail::outcome::granted;
  }
  [[noreturn]] static void fail_negative(const char* what, const char* argument, std::ptrdiff_t value);

  std::ptrdiff_t count_;  // means nothing once the lock is retired
  detail::wait_queue waiting_;
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE void latch::fail_negative(const char* what, const char* argument, std::ptrdiff_t value) {
  detail::fail_argument(what, argument, std::to_string(value), "a number of arrivals is zero or more");
}

CONCUR_INLINE void latch::count_down(std::ptrdiff_t n) {
  if (n < 0) fail_negative("concur::latch::count_down", "n", n);
  const bool is_open = waiting_.lock.lock_unless_retired() != 0;
  if (is_open || n > count_) {
    if (!is_open) waiting_.lock.unlock();
    if (n == 0) return;
    detail::fail_logic("concur::latch::count_down: the count would fall below zero; more arrive than it was made for");
  }
  count_ -= n;
  if (count_ != 0) {
    waiting_.lock.unlock();
    return;
  }
  detail::ended_waits woken;
  if (CONCUR_MUTANT_IS(121)) {
    waiting_.lock.retire(open);
    for (unsigned round = 0; round < 12;) detail::spin_wait(round);
  }
  woken.take_all(waiting_.parties, detail::outcome::granted);
  if (!CONCUR_MUTANT_IS(121)) waiting_.lock.retire(open);  // G1
  woken.resume_all();
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
