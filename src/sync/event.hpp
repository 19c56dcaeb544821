// sync/event.hpp - something that has happened, until it is said to be over.
//
// "The cache is warm", "shutdown has begun", "there is work": a state that one side sets and resets, and the other waits
// for. Setting it lets everybody go that waits, also when it is reset in the same moment; a wait that finds it set costs a
// load. The state is the queue's lock itself (retirable_lock.hpp, K3 and K4):
//
//     lock          meaning              next            by
//     0             not set              1               set, or a waiter that queues
//     1             not set, held        0, is_set_now   the holder
//     is_set_now    set; nobody waits    0               reset
//
//   V1  Who waits, queued while the event was not set; who sets it takes everybody off the queue in the same hold of the
//       lock. So a waiter is never in the queue of a set event, and a reset cannot come between the two.
//   V2  Retiring the lock is the last touch of set(): an event on the stack of the one that waits may go when wait()
//       returns.
#ifndef CONCUR_SYNC_EVENT_HPP
#define CONCUR_SYNC_EVENT_HPP

#include "atomic/retirable_lock.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/time.hpp"
#include "runtime/wait_queue.hpp"

CONCUR_NAMESPACE_BEGIN

// Manual reset: it stays set until reset() is called. A set() happens before the return of every wait() that it lets go, or
// that finds the event set by it; one that finds it set by an earlier set() need not see what came before a later one. It may
// be destroyed as soon as every wait() has returned, while the set() that let them go is still on its way out.
class event {
 public:
  constexpr event() noexcept = default;
  explicit constexpr event(bool begins_set) noexcept
      : waiting_{detail::retirable_lock(begins_set ? is_set_now : 0), {}} {}
  event(const event&) = delete;
  event& operator=(const event&) = delete;

  // Sets it, and lets everybody go that waits. Never parks.
  void set() noexcept;
  // Takes it back. Whoever was let go stays so.
  void reset() noexcept { waiting_.lock.replace_retired(is_set_now, 0); }
  // Whether it is set now. One load.
  bool is_set() const noexcept { return waiting_.lock.peek() == is_set_now; }
  bool try_wait() const noexcept { return is_set(); }

  // Parks until it is set. Throws `cancelled`; the form with a code says so there, and returns false.
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

 private:
  static constexpr std::uint32_t is_set_now = 2;

  template <class... Code>
  bool wait_deadline(detail::nanoseconds_t deadline_ns, Code&... code) {
    return detail::perform([&](detail::worker* w) { return wait_from(w, deadline_ns); }, code...) ==
           detail::outcome::granted;
  }
  detail::outcome wait_from(detail::worker* w, detail::nanoseconds_t deadline_ns) noexcept;

  detail::wait_queue waiting_;
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE void event::set() noexcept {
  while (waiting_.lock.lock_unless_retired() != 0) {
    // Set already. The exchange publishes what this caller did before, to whoever finds the event set from now on.
    if (CONCUR_MUTANT_IS(124) || waiting_.lock.replace_retired(is_set_now, is_set_now)) return;
  }
  detail::ended_waits woken;
  if (CONCUR_MUTANT_IS(123)) {
    if (detail::waiter* note = detail::pop_claimed(waiting_.parties)) {
      note->who->result = detail::outcome::granted;
      detail::party* who = note->who;
      waiting_.lock.retire(is_set_now);
      detail::resume(who);
      return;
    }
  }
  if (CONCUR_MUTANT_IS(284)) {
    waiting_.lock.retire(is_set_now);
    for (unsigned round = 0; round < 12;) detail::spin_wait(round);
  }
  woken.take_all(waiting_.parties, detail::outcome::granted);
  if (!CONCUR_MUTANT_IS(284)) waiting_.lock.retire(is_set_now);  // V2
  woken.resume_all();
}

CONCUR_INLINE detail::outcome event::wait_from(detail::worker* w, detail::nanoseconds_t deadline_ns) noexcept {
  const detail::outcome result = waiting_.wait_until_retired(w, deadline_ns, detail::wait_reason::event_wait);
  if (CONCUR_MUTANT_IS(122) && result == detail::outcome::granted && !is_set())
    return wait_from(detail::this_worker(), deadline_ns);
  return result;
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
