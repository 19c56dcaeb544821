// runtime/wait_queue.hpp - a lock, and the parties that wait for what it guards.
//
// Most primitives are the same thing with different arithmetic: a few words under a small lock, and a queue of those
// whom the words do not let pass yet. The lock, the queue and the act of waiting are here; the words and the rule who
// may pass are the primitive's own.
//
//   Q1  The queue changes under the lock only. A party that is in the queue waits, has just been claimed elsewhere, or is
//       about to take itself off.
//   Q2  wait() returns with the caller off the queue and the lock free, whatever ended the wait.
//   Q3  Whoever lets parties pass claims them under the lock (pop_claimed, ended_waits::take_all) and resumes them after
//       it has dropped the lock.
//   Q4  Who retires the lock (retirable_lock.hpp, K3) has taken everybody off the queue before, and nobody gets onto it while
//       the lock is retired. A waiter that finds it so has nothing to take off.
#ifndef CONCUR_RUNTIME_WAIT_QUEUE_HPP
#define CONCUR_RUNTIME_WAIT_QUEUE_HPP

#include "atomic/retirable_lock.hpp"
#include "base/config.hpp"
#include "base/intrusive.hpp"
#include "runtime/caller.hpp"
#include "runtime/forms.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct wait_queue {
  retirable_lock lock;
  intrusive_list<waiter> parties;

  // Under the lock, which it drops (Q2). A deadline that has passed ends the wait before it began. `value` is for who
  // claims the note. Returns what ended the wait; unless that is granted or closed, nothing was given.
  outcome wait(caller& me, void* value, nanoseconds_t deadline_ns, wait_reason reason) noexcept;
  // For what is over once the lock is retired: waits for that, from the caller's checkpoint on. granted, timed_out or
  // cancelled.
  outcome wait_until_retired(worker* w, nanoseconds_t deadline_ns, wait_reason reason) noexcept;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE outcome wait_queue::wait(caller& me, void* value, nanoseconds_t deadline_ns,
                                       wait_reason reason) noexcept {
  if (deadline_ns != never && deadline_ns <= now_ns()) {
    lock.unlock();
    return outcome::timed_out;
  }
  waiter note(me.who(), value);
  parties.push_back(&note);
  const outcome result = me.park(&lock, deadline_ns, reason);
  if (result == outcome::timed_out || result == outcome::cancelled) {
    if (CONCUR_MUTANT_IS(135)) lock.lock();
    if (CONCUR_MUTANT_IS(135) || lock.lock_unless_retired() == 0) {  // Q4
      if (intrusive_list<waiter>::is_linked(&note)) parties.erase(&note);
      lock.unlock();
    }
  }
  return result;
}

CONCUR_INLINE outcome wait_queue::wait_until_retired(worker* w, nanoseconds_t deadline_ns,
                                                     wait_reason reason) noexcept {
  if (lock.peek() > 1) return outcome::granted;
  caller me(w);
  if (lock.lock_unless_retired() != 0) return outcome::granted;
  return wait(me, nullptr, deadline_ns, reason);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
