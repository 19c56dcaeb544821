// sync/wait_group.hpp - waits until a number of things are done.
//
// Add what you start, call done() where it ends, and wait() for zero. For fibers whose lives nest, a nursery says the
// same with less to forget; a wait_group is for counts that do not.
//
//   Z1  The count is changed under the lock; reaching zero takes all waiters off in the same step.
//   Z2  wait() returns only for a zero that came after the waiter did, or that it found.
#ifndef CONCUR_SYNC_WAIT_GROUP_HPP
#define CONCUR_SYNC_WAIT_GROUP_HPP

#include "atomic/spin_lock.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "runtime/wait_queue.hpp"

CONCUR_NAMESPACE_BEGIN

// Every done() happens before the return of the wait() it lets go.
class wait_group {
 public:
  constexpr wait_group() noexcept = default;
  wait_group(const wait_group&) = delete;
  wait_group& operator=(const wait_group&) = delete;

  // Raises the count by n, or lowers it if n is negative. Throws std::logic_error, and changes nothing, when the
  // count would fall below zero, would overflow, or would leave zero again while waiters of the former round have not
  // all gone.
  void add(std::ptrdiff_t n = 1);
  void done() { add(-1); }

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
  // Whether the count is zero now.
  bool try_wait() noexcept;

 private:
  template <class... Code>
  bool wait_deadline(detail::nanoseconds_t deadline_ns, Code&... code) {
    return detail::perform([&](detail::worker* w) { return wait_from(w, deadline_ns); }, code...) ==
           detail::outcome::granted;
  }
  detail::outcome wait_from(detail::worker* w, detail::nanoseconds_t deadline_ns) noexcept;

  std::ptrdiff_t count_ = 0;
  std::ptrdiff_t leaving_ = 0;  // waiters that were let go and have not returned yet
  detail::wait_queue waiting_;
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE void wait_group::add(std::ptrdiff_t n) {
  detail::ended_waits woken;
  const char* misuse = nullptr;
  {
    detail::lock_scope<spin_lock> held(waiting_.lock);
    std::ptrdiff_t sum = 0;
    if (__builtin_add_overflow(count_, n, &sum))
      misuse = "concur::wait_group::add: the count would overflow";
    else if (sum < 0)
      misuse = "concur::wait_group: the count would fall below zero; there are more done() than add()";
    else if (count_ == 0 && n > 0 && leaving_ != 0 && !CONCUR_MUTANT_IS(66))
      misuse = "concur::wait_group::add: the group is used again before every wait() of the last round has returned";
    if (misuse == nullptr) {
      count_ = sum;
      if (count_ == 0) leaving_ += woken.take_all(waiting_.parties, detail::outcome::granted);
    }
  }
  if (misuse != nullptr) detail::fail_logic(misuse);
  woken.resume_all();
}

CONCUR_INLINE bool wait_group::try_wait() noexcept {
  detail::lock_scope<spin_lock> held(waiting_.lock);
  return count_ == 0;
}

CONCUR_INLINE detail::outcome wait_group::wait_from(detail::worker* w, detail::nanoseconds_t deadline_ns) noexcept {
  detail::caller me(w);
  waiting_.lock.lock();
  if (count_ == 0) {
    waiting_.lock.unlock();
    return detail::outcome::granted;
  }
  const detail::outcome result = waiting_.wait(me, nullptr, deadline_ns, detail::wait_reason::wait_group_wait);
  if (result == detail::outcome::granted) {
    detail::lock_scope<spin_lock> held(waiting_.lock);
    --leaving_;
  }
  return result;
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
