// sync/condition_variable.hpp - waits until somebody says that something has changed, and lets go of a lock meanwhile.
//
// The lock may be of any kind that has lock() and unlock(): std::unique_lock over one of ours, one of ours itself,
// a std::shared_lock. So its unlock() runs code that is not ours, which may take its time and even park: it cannot run
// under the queue's lock, and the waiter cannot yet be in its wait when others may already notify. Hence a note in
// the queue has three states, and a notification that comes early is kept in the note.
//
//     state      meaning                                        next, by
//     entering   in the queue; its owner lets go of the lock    waiting, by its owner · notified, by a notifier
//     waiting    in the queue, its owner parks                  notified, by the notifier that claims the wait
//     notified   off the queue: the notification is its own     -
//
//   V1  A note enters the queue before the lock is let go: who changes something under the lock, and notifies after,
//       finds everybody who saw the old state.
//   V2  A notification is given to one note, under the queue's lock: to one that enters, or to one whose wait the notifier
//       claims. A waiter that timed out or was cancelled cannot be claimed, and the notifier goes on to the next.
//   V3  Whoever was notified returns normally, also if its deadline passed or it was cancelled right after. Who cannot
//       return normally, because the lock's unlock() threw, passes the notification on.
//   V4  The lock is held again when a wait returns or throws. Taking it again is shielded from cancellation.
#ifndef CONCUR_SYNC_CONDITION_VARIABLE_HPP
#define CONCUR_SYNC_CONDITION_VARIABLE_HPP

#include "atomic/spin_lock.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/intrusive.hpp"
#include "base/time.hpp"
#include "runtime/caller.hpp"
#include "runtime/forms.hpp"

CONCUR_NAMESPACE_BEGIN

enum class cv_status { no_timeout, timeout };

// A notification happens before the return of the wait it ends. As everywhere, a wait may be followed by others who take
// the lock first: look at the condition again, or hand it to wait().
class condition_variable {
 public:
  constexpr condition_variable() noexcept = default;
  ~condition_variable();  // waits until the last notifier is outside; a waiter in the queue is misuse
  condition_variable(const condition_variable&) = delete;
  condition_variable& operator=(const condition_variable&) = delete;

  // Ends one wait, the oldest, or all of them. With nobody there, nothing happens, and nothing is kept. The lock need
  // not be held.
  void notify_one() noexcept;
  void notify_all() noexcept;

  // Lets go of the lock, parks until notified, and takes the lock again. Throws `cancelled`, with the lock held, and
  // what lock.unlock() throws. What lock.lock() throws ends the program: there is no way on without the lock.
  template <class Lock>
  void wait(Lock& lock) {
    wait_deadline(lock, detail::never);
  }
  // Parks until the condition holds, which is called with the lock held. Throws `cancelled` also if it would hold.
  template <class Lock, class Predicate>
  void wait(Lock& lock, Predicate condition) {
    wait_condition(lock, detail::never, condition);
  }

  // The same with a limit. `timeout` when that passed before a notification.
  template <class Lock, class Rep, class Period>
  cv_status wait_for(Lock& lock, std::chrono::duration<Rep, Period> d) {
    return to_status(wait_deadline(lock, detail::deadline_after(d)));
  }
  template <class Lock, class Clock, class Duration>
  cv_status wait_until(Lock& lock, const std::chrono::time_point<Clock, Duration>& tp) {
    return to_status(wait_deadline(lock, detail::deadline_at(tp)));
  }
  // Whether the condition held in time.
  template <class Lock, class Rep, class Period, class Predicate>
  bool wait_for(Lock& lock, std::chrono::duration<Rep, Period> d, Predicate condition) {
    return wait_condition(lock, detail::deadline_after(d), condition);
  }
  template <class Lock, class Clock, class Duration, class Predicate>
  bool wait_until(Lock& lock, const std::chrono::time_point<Clock, Duration>& tp, Predicate condition) {
    return wait_condition(lock, detail::deadline_at(tp), condition);
  }

  // The same, but a cancellation is said in the code, and the lock is held then as always. Without a condition: whether
  // there was a notification, or `timeout` for none in time, also because it was cancelled. With one: whether it was seen
  // to hold; false when cancelled.
  template <class Lock>
  bool wait(Lock& lock, std::error_code& error) {
    return wait_deadline(lock, detail::never, error) == detail::outcome::granted;
  }
  template <class Lock, class Predicate>
  bool wait(Lock& lock, Predicate condition, std::error_code& error) {
    return wait_condition(lock, detail::never, condition, error);
  }
  template <class Lock, class Rep, class Period>
  cv_status wait_for(Lock& lock, std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return to_status(wait_deadline(lock, detail::deadline_after(d), error));
  }
  template <class Lock, class Clock, class Duration>
  cv_status wait_until(Lock& lock, const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return to_status(wait_deadline(lock, detail::deadline_at(tp), error));
  }
  template <class Lock, class Rep, class Period, class Predicate>
  bool wait_for(Lock& lock, std::chrono::duration<Rep, Period> d, Predicate condition, std::error_code& error) {
    return wait_condition(lock, detail::deadline_after(d), condition, error);
  }
  template <class Lock, class Clock, class Duration, class Predicate>
  bool wait_until(Lock& lock, const std::chrono::time_point<Clock, Duration>& tp, Predicate condition,
                  std::error_code& error) {
    return wait_condition(lock, detail::deadline_at(tp), condition, error);
  }

 private:
  // One waiter, from before it lets go of the lock until its wait has ended. On its stack.
  struct entry {
    enum class state : unsigned char { entering, waiting, notified };

    explicit entry(condition_variable& in) noexcept;
    ~entry();
    entry(const entry&) = delete;
    entry& operator=(const entry&) = delete;
    detail::outcome park(detail::nanoseconds_t deadline_ns) noexcept;

    condition_variable& site;
    detail::waiter note;  // of nobody while its owner enters
    state now = state::entering;
    bool has_returned = false;  // park() came to its end, and whatever was given is the caller's
  };

  // Raises the shield of the calling fiber for a scope.
  class shielded {
   public:
    shielded() noexcept;
    ~shielded();
    shielded(const shielded&) = delete;
    shielded& operator=(const shielded&) = delete;

   private:
    detail::fiber* self_;
  };

  template <class Lock>
  static void lock_again(Lock& lock) noexcept {
    const shielded from_cancellation;
    lock.lock();
  }

  // After the checkpoint. granted, timed_out or cancelled.
  template <class Lock>
  detail::outcome wait_once(Lock& lock, detail::nanoseconds_t deadline_ns) {
    detail::outcome result = detail::outcome::granted;
    {
      entry here(*this);  // V1
      lock.unlock();
      result = here.park(deadline_ns);
    }
    lock_again(lock);
    return result;
  }
  template <class Lock, class... Code>
  detail::outcome wait_deadline(Lock& lock, detail::nanoseconds_t deadline_ns, Code&... code) {
    return detail::perform([&](detail::worker*) { return wait_once(lock, deadline_ns); }, code...);
  }
  template <class Lock, class Predicate, class... Code>
  bool wait_condition(Lock& lock, detail::nanoseconds_t deadline_ns, Predicate& condition, Code&... code) {
    const auto wait_from = [&](detail::worker*) {
      while (!condition()) {
        const detail::outcome result = wait_once(lock, deadline_ns);
        if (result == detail::outcome::granted) continue;
        const bool holds = result == detail::outcome::timed_out && condition();
        return holds ? detail::outcome::granted : result;
      }
      return detail::outcome::granted;
    };
    return detail::perform(wait_from, code...) == detail::outcome::granted;
  }
  static cv_status to_status(detail::outcome result) noexcept {
    return result == detail::outcome::granted ? cv_status::no_timeout : cv_status::timeout;
  }
  bool notify_next(detail::ended_waits& woken) noexcept;

  spin_lock lock_;
  detail::intrusive_list<detail::waiter> waiting_;
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE condition_variable::~condition_variable() { lock_.lock(); }

CONCUR_INLINE condition_variable::shielded::shielded() noexcept : self_(nullptr) {
  if (detail::worker* w = detail::this_worker()) self_ = w->current;
  if (self_ != nullptr && !CONCUR_MUTANT_IS(103)) ++self_->shield_depth;
}
CONCUR_INLINE condition_variable::shielded::~shielded() {
  if (self_ != nullptr && !CONCUR_MUTANT_IS(103)) --self_->shield_depth;
}

CONCUR_INLINE condition_variable::entry::entry(condition_variable& in) noexcept : site(in) {
  note.value = this;
  detail::lock_scope<spin_lock> held(site.lock_);
  site.waiting_.push_back(&note);
}

// V3.
CONCUR_INLINE condition_variable::entry::~entry() {
  if (has_returned) return;
  site.lock_.lock();
  if (now != state::notified) site.waiting_.erase(&note);
  site.lock_.unlock();
  if (now == state::notified && !CONCUR_MUTANT_IS(283)) site.notify_one();
}

CONCUR_INLINE detail::outcome condition_variable::entry::park(detail::nanoseconds_t deadline_ns) noexcept {
  has_returned = true;
  detail::caller me(detail::this_worker());  // only now: the lock's unlock() may have changed the worker
  site.lock_.lock();
  if (now == state::notified) {
    site.lock_.unlock();
    return detail::outcome::granted;
  }
  if (deadline_ns != detail::never && deadline_ns <= detail::now_ns()) {
    site.waiting_.erase(&note);
    site.lock_.unlock();
    return detail::outcome::timed_out;
  }
  now = state::waiting;
  note.begin(me.who());
  const detail::outcome result = me.park(&site.lock_, deadline_ns, detail::wait_reason::condition_wait);
  if (result != detail::outcome::granted) {
    detail::lock_scope<spin_lock> held(site.lock_);
    if (detail::intrusive_list<detail::waiter>::is_linked(&note)) site.waiting_.erase(&note);
  }
  return result;
}

// V2. Under the lock; false when nobody is left who could be notified.
CONCUR_INLINE bool condition_variable::notify_next(detail::ended_waits& woken) noexcept {
  while (detail::waiter* note = waiting_.pop_front()) {
    entry& here = *static_cast<entry*>(note->value);
    if (here.now == entry::state::entering) {
      if (!CONCUR_MUTANT_IS(104)) here.now = entry::state::notified;
      return true;
    }
    if (!note->claim()) {
      if (CONCUR_MUTANT_IS(105)) return true;
      continue;
    }
    here.now = entry::state::notified;
    woken.add(note, detail::outcome::granted);
    return true;
  }
  return false;
}

CONCUR_INLINE void condition_variable::notify_one() noexcept {
  detail::ended_waits woken;
  {
    detail::lock_scope<spin_lock> held(lock_);
    notify_next(woken);
  }
  woken.resume_all();
}

CONCUR_INLINE void condition_variable::notify_all() noexcept {
  detail::ended_waits woken;
  {
    detail::lock_scope<spin_lock> held(lock_);
    while (notify_next(woken)) {
    }
  }
  woken.resume_all();
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
