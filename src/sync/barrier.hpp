// sync/barrier.hpp - a place where a fixed number of parties meet, again and again.
//
// Work that goes in steps, each of which needs the whole step before: every party arrives, the last one runs the
// completion, and all go on together into the next phase. Everything is under one lock, except the completion, which is
// the user's and may take its time; while it runs nobody is expected, so `pending` is zero and an arrival is an error.
//
//     pending    phase    meaning                                             next
//     1..        p        so many are still to arrive                         p, less · 0 by the last one
//     0          p        the completion runs                                 expected, p + 1
//
//   Y1  A phase is its number. A token carries the number its arrival belongs to, and the wait for it ends when the
//       barrier's is another: a party that comes late, or is resumed late, cannot miss a phase.
//   Y2  An arrival counts, whatever becomes of the wait after it: a wait that timed out or was cancelled takes nothing back.
//   Y3  The phase advances under the lock, in the same hold in which everybody is taken off the queue; they are resumed
//       without it. That unlocking is the last touch of the last to arrive.
#ifndef CONCUR_SYNC_BARRIER_HPP
#define CONCUR_SYNC_BARRIER_HPP

#include <limits>
#include <utility>

#include "atomic/spin_lock.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/time.hpp"
#include "runtime/wait_queue.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// The part that does not depend on the completion.
class barrier_core {
 public:
  explicit barrier_core(std::ptrdiff_t expected);

  // n arrive. True: they were the last, and the caller runs the completion, then calls next_phase.
  bool arrive(std::ptrdiff_t n, bool are_dropped, std::uint64_t& phase);
  void next_phase() noexcept;
  bool is_over(std::uint64_t phase) noexcept;
  // granted; or timed_out or cancelled while the phase was still `phase`. From the caller's checkpoint on.
  outcome wait_from(worker* w, std::uint64_t phase, nanoseconds_t deadline_ns) noexcept;

 private:
  wait_queue waiting_;
  std::ptrdiff_t expected_;
  std::ptrdiff_t pending_;
  std::uint64_t phase_ = 0;
};

// While it lives, the calling fiber's parking operations are not cancelled.
class deaf_scope {
 public:
  deaf_scope() noexcept {
    worker* w = this_worker();
    self_ = w != nullptr ? w->current : nullptr;
    if (CONCUR_MUTANT_IS(137)) self_ = nullptr;
    if (self_ != nullptr) ++self_->shield_depth;
  }
  ~deaf_scope() {
    if (self_ != nullptr) --self_->shield_depth;
  }
  deaf_scope(const deaf_scope&) = delete;
  deaf_scope& operator=(const deaf_scope&) = delete;

 private:
  fiber* self_;
};

struct no_completion {
  void operator()() const noexcept {}
};

[[noreturn]] CONCUR_INLINE void fail_token();

}  // namespace detail

// `completion` is called once a phase, by the last to arrive, after every arrival and before anybody is let go. It may
// park, and is not cancelled; an exception that leaves it ends the program. Each arrival happens before the completion,
// and that before the return of each wait. The barrier may be destroyed as soon as every wait has returned, whatever
// arrive() is still doing.
template <class Completion = detail::no_completion>
class barrier {
 public:
  // Which phase an arrival belongs to. May be copied, and waited for any number of times.
  class arrival_token {
   private:
    friend class barrier;
    arrival_token(const barrier* whose, std::uint64_t phase) noexcept : whose_(whose), phase_(phase) {}
    const barrier* whose_;
    std::uint64_t phase_;
  };

  static constexpr std::ptrdiff_t(max)() noexcept { return (std::numeric_limits<std::ptrdiff_t>::max)(); }

  // Throws std::invalid_argument if `expected` is negative.
  explicit barrier(std::ptrdiff_t expected, Completion completion = Completion())
      : core_(expected), completion_(std::move(completion)) {}
  barrier(const barrier&) = delete;
  barrier& operator=(const barrier&) = delete;

  // n parties arrive; does not wait, except that the last to arrive runs the completion. Throws std::invalid_argument
  // unless n is above zero, and std::logic_error when more arrive than this phase still expects; then nobody has arrived.
  [[nodiscard]] arrival_token arrive(std::ptrdiff_t n = 1) { return enter(n, false); }

  // Parks until the phase of the token is over. Throws `cancelled`, and std::logic_error for another barrier's token. The
  // form with a code says there that it was cancelled, and returns false.
  void wait(const arrival_token& token) { wait_deadline(token, detail::never); }
  bool wait(const arrival_token& token, std::error_code& error) { return wait_deadline(token, detail::never, error); }
  // The same with a limit: false also when that passed first. The arrival still counts, and the token can be waited for
  // again.
  template <class Rep, class Period>
  bool wait_for(const arrival_token& token, std::chrono::duration<Rep, Period> d) {
    return wait_deadline(token, detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  bool wait_until(const arrival_token& token, const std::chrono::time_point<Clock, Duration>& tp) {
    return wait_deadline(token, detail::deadline_at(tp));
  }
  template <class Rep, class Period>
  bool wait_for(const arrival_token& token, std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return wait_deadline(token, detail::deadline_after(d), error);
  }
  template <class Clock, class Duration>
  bool wait_until(const arrival_token& token, const std::chrono::time_point<Clock, Duration>& tp,
                  std::error_code& error) {
    return wait_deadline(token, detail::deadline_at(tp), error);
  }
  // Whether the phase of the token is over. Never parks.
  bool try_wait(const arrival_token& token) {
    if (token.whose_ != this) detail::fail_token();
    return core_.is_over(token.phase_);
  }

  // wait(arrive()). When it is cancelled, the arrival counts all the same (Y2).
  void arrive_and_wait() { wait_deadline(enter(1, false), detail::never); }
  bool arrive_and_wait(std::error_code& error) { return wait_deadline(enter(1, false), detail::never, error); }
  // Arrives, and is not expected in later phases. Throws as arrive() does.
  void arrive_and_drop() { enter(1, true); }

 private:
  arrival_token enter(std::ptrdiff_t n, bool are_dropped) {
    std::uint64_t phase = 0;
    if (core_.arrive(n, are_dropped, phase)) complete();
    return arrival_token(this, phase);
  }
  void complete() noexcept {
    if (CONCUR_MUTANT_IS(136)) core_.next_phase();
    {
      const detail::deaf_scope uncancelled;
      completion_();
    }
    if (!CONCUR_MUTANT_IS(136)) core_.next_phase();
  }
  template <class... Code>
  bool wait_deadline(const arrival_token& token, detail::nanoseconds_t deadline_ns, Code&... code) {
    if (token.whose_ != this) detail::fail_token();
    const auto wait_from = [&](detail::worker* w) { return core_.wait_from(w, token.phase_, deadline_ns); };
    return detail::perform(wait_from, code...) == detail::outcome::granted;
  }

  detail::barrier_core core_;
  Completion completion_;
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void fail_token() {
  fail_logic("concur::barrier::wait: the token is another barrier's; wait where arrive() was called");
}

CONCUR_INLINE barrier_core::barrier_core(std::ptrdiff_t expected) : expected_(expected), pending_(expected) {
  if (expected < 0)
    fail_argument("concur::barrier", "expected", std::to_string(expected), "a number of parties is zero or more");
}

CONCUR_INLINE bool barrier_core::arrive(std::ptrdiff_t n, bool are_dropped, std::uint64_t& phase) {
  if (n <= 0) fail_argument("concur::barrier::arrive", "n", std::to_string(n), "at least one party arrives");
  bool is_last = false;
  bool are_too_many = false;
  {
    lock_scope<spin_lock> held(waiting_.lock);
    are_too_many = n > pending_;
    if (!are_too_many) {
      phase = phase_;
      pending_ -= n;
      if (are_dropped && !CONCUR_MUTANT_IS(125)) expected_ -= n;
      is_last = pending_ == 0;
    }
  }
  if (are_too_many)
    fail_logic("concur::barrier::arrive: more arrive than the phase expects; one party came twice, or was not counted");
  return is_last;
}

CONCUR_INLINE void barrier_core::next_phase() noexcept {
  ended_waits woken;
  {
    lock_scope<spin_lock> held(waiting_.lock);
    ++phase_;
    pending_ = expected_;
    woken.take_all(waiting_.parties, outcome::granted);
  }
  woken.resume_all();
}

CONCUR_INLINE bool barrier_core::is_over(std::uint64_t phase) noexcept {
  lock_scope<spin_lock> held(waiting_.lock);
  return phase_ != phase;
}

CONCUR_INLINE outcome barrier_core::wait_from(worker* w, std::uint64_t phase, nanoseconds_t deadline_ns) noexcept {
  caller me(w);
  waiting_.lock.lock();
  if (phase_ != phase && !CONCUR_MUTANT_IS(126)) {
    waiting_.lock.unlock();
    return outcome::granted;
  }
  return waiting_.wait(me, nullptr, deadline_ns, wait_reason::barrier_wait);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
