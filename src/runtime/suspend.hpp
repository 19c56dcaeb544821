// runtime/suspend.hpp - the one way a fiber stops running.
//
// Locking, receiving, sleeping and reading are the same act: leave a note where the waker will look, leave the
// processor, and come back exactly once. This file is that act. Everything above it decides only who may wake whom.
//
// The race it exists for: the note is visible before we have left. A waker on another worker may find it at once and
// resume us there, while our registers are still in use here: two threads on one stack. Hence a site keeps its lock
// over the switch, and whoever runs next on this worker, on its own stack, publishes the one that left
// (publish_departed) and only then drops that lock.
//
//   S1  A wait ends by one claim (waiter.hpp, W1), and only the claimer makes the fiber ready.
//   S2  After the switch, the context that runs next sets the timer, makes the wait word odd and drops the site's
//       lock, in this order. Once the word is odd the fiber may run again: nothing of its frame is touched after
//       that. (A timer that fires before finds the word even, and comes again a tick later.)
//   S3  Publishing may not park, throw, or take a lock that is held around make_ready, except the timers'.
//   S4  The switch brings the worker that the fiber goes on at. No other way of knowing it is valid over the switch.
//   S5  Publishing looks at the scope's cancellation after it wrote the wait word, and who cancels looks at wait words
//       after it wrote the cancellation, with a light and a heavy fence between: one of them sees the other.
//   S6  The locks of several sites are dropped along their chain, which lies in the frame of the fiber that left. The fiber
//       may run again before they all are; it must not let its frame go until it has held, or knows of somebody who has
//       held, each of them since.
//
// Rejected: dropping the lock first and letting wakers spin on a `switching` flag. Correct, but each remote wake then
// waits for the slowest switch, and a pre-empted worker stalls its wakers.
#ifndef CONCUR_RUNTIME_SUSPEND_HPP
#define CONCUR_RUNTIME_SUSPEND_HPP

#include <atomic>
#include <new>
#include <utility>

#include "base/config.hpp"
#include "base/error.hpp"
#include "base/time.hpp"
#include "machine/context.hpp"
#include "machine/fence.hpp"
#include "runtime/scheduler.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// The rarer halves of leaving: the next one has not started (needs a stack), or there is none (the loop looks for one).
worker* leave_for_new(worker* w, fiber* self, fiber* next) noexcept;
CONCUR_INLINE void publish_timer(worker* w) noexcept;
CONCUR_INLINE void publish_finished(worker* w) noexcept;
CONCUR_INLINE void publish_selected(worker* w) noexcept;
CONCUR_INLINE void cancel_departed(fiber* f, std::uint32_t ticket) noexcept;
CONCUR_INLINE void note_raised(scope& innermost) noexcept;                    // cancel.hpp
CONCUR_INLINE void tell_departure(const worker& w, const fiber& f) noexcept;  // driven.hpp

CONCUR_FORCE_INLINE void publish_wait(worker* w, fiber* f) noexcept {
  w->how = departure::none;
  const std::uint32_t ticket = w->leaving_ticket;
  const bool is_deaf = f->shield_depth != 0 || is_unwinding(*f);
  f->is_deaf.store(is_deaf, std::memory_order_relaxed);  // relaxed: published with the wait word
  f->set_state(fiber_state::parked);
  if (CONCUR_UNLIKELY(w->leaving_timer != nullptr)) publish_timer(w);
  f->word.store(ticket, std::memory_order_release);  // release: publishes the stopped context to whoever claims
  light_fence();
  // relaxed: behind the fence of S5.
  if (CONCUR_UNLIKELY(f->is_cancelled.load(std::memory_order_relaxed)) && !is_deaf && !CONCUR_MUTANT_IS(55))
    cancel_departed(f, ticket);
}

CONCUR_FORCE_INLINE void publish_swapped(worker* w, fiber* f) noexcept {
  f->set_state(fiber_state::ready);
  if (CONCUR_LIKELY(f->home == nullptr)) {
    if (CONCUR_UNLIKELY(!w->queue.push_and_leave(f)))
      w->sched->queue_behind(w, f);  // the one taken was none of the ring
  } else {
    w->queue.leave();
    w->sched->queue_behind(w, f);
  }
}

// First thing after every switch, on the stack of whoever goes on (S2).
CONCUR_FORCE_INLINE void publish_departed(worker* w) noexcept {
  fiber* f = w->leaving;
  if (CONCUR_LIKELY(w->how == departure::parked)) {
    spin_lock* lock = w->leaving_lock;
    publish_wait(w, f);
    if (lock != nullptr) lock->unlock();
    return;
  }
  if (CONCUR_LIKELY(w->how == departure::swapped)) {
    w->how = departure::none;
    publish_swapped(w, f);
  } else if (w->how == departure::yielded) {
    w->how = departure::none;
    f->set_state(fiber_state::ready);
    w->sched->queue_behind(w, f);
  } else if (w->how == departure::finished) {
    w->how = departure::none;
    publish_finished(w);
  } else if (w->how == departure::selected) {
    publish_selected(w);
  }
}

// Null: nothing local is ready, or upkeep is due; either is for the loop. Upkeep ends waits and takes the locks of
// sites, one of which the fiber that leaves may hold.
CONCUR_FORCE_INLINE bool is_upkeep_due(worker* w) noexcept {
  w->budget = worker::operations_per_slice;
  w->switches.add();
#if defined(CONCUR_EXPLORE)
  if (driver* d = driver_or_null()) return w->sched->is_due_driven(*d, w);
#endif
  return CONCUR_UNLIKELY(--w->picks_to_upkeep == 0);
}
CONCUR_FORCE_INLINE fiber* pick_next(worker* w) noexcept {
  if (is_upkeep_due(w)) return CONCUR_MUTANT_IS(52) ? w->sched->upkeep(w) : nullptr;
#if defined(CONCUR_EXPLORE)
  if (driver_or_null() != nullptr) return w->sched->pop_own(w);
#endif
  return w->queue.pop();
}

// Switches to `next`, and returns, perhaps on another worker, when the fiber is resumed. Publishing is then the caller's next
// act.
CONCUR_FORCE_INLINE worker* switch_to_started(worker* w, fiber* self, fiber* next) noexcept {
  exception_globals* const globals = w->exceptions;
  self->exceptions.save_from(globals);
  w->leaving = self;
  next->exceptions.load_into(globals);
  next->set_state(fiber_state::running);
  w->current = next;
  return static_cast<worker*>(switch_fiber_context(self->ctx, next->ctx, w, notice_of(self), notice_of(next)));
}

// The same with the publishing, where `next` may be new, or none.
CONCUR_FORCE_INLINE worker* leave_for(worker* w, fiber* self, fiber* next) noexcept {
  if (CONCUR_LIKELY(next != nullptr && next->is_started)) {
    w = switch_to_started(w, self, next);
  } else {
    self->exceptions.save_from(w->exceptions);
    w->leaving = self;
    w = leave_for_new(w, self, next);
  }
  publish_departed(w);
  return w;
}
CONCUR_FORCE_INLINE worker* leave(worker* w, fiber* self) noexcept { return leave_for(w, self, pick_next(w)); }

// Behind every other ready fiber of this worker.
CONCUR_FORCE_INLINE worker* yield_fiber(worker* w) noexcept {
  fiber* self = w->current;
  fiber* next = nullptr;
  if (CONCUR_LIKELY(!is_upkeep_due(w))) {
    next = w->sched->pop_and_stay(w);
    if (CONCUR_LIKELY(next != nullptr && next->is_started)) {
      w->how = departure::swapped;
      if (CONCUR_MUTANT_IS(461)) {  // found, and taken, while it is still here
        publish_swapped(w, self);
        for (unsigned round = 0; round < 12;) spin_wait(round);
        w->how = departure::none;
      }
      w = switch_to_started(w, self, next);
      publish_departed(w);
      return w;
    }
    w->queue.leave();
    if (next == nullptr) return w;
  }
  w->how = departure::yielded;
  return leave_for(w, self, next);
}

CONCUR_FORCE_INLINE outcome park_fiber_now(worker*& w, spin_lock* lock, wait_reason reason, departure how) noexcept {
  fiber* self = w->current;
  if (CONCUR_MUTANT_IS(63) && lock != nullptr) {
    lock->unlock();
    for (unsigned round = 0; round < 12;) spin_wait(round);
    lock = nullptr;
  }
  w->leaving_ticket = self->next_ticket();
  w->leaving_lock = lock;
  w->how = how;
  self->set_reason(reason);
  w = leave(w, self);
  self->set_reason(wait_reason::none);
  return self->result;
}

// Apart, so that a wait without a deadline has no timer in its frame. Gives the worker back by value, so that it stays in a
// register.
struct parked {
  worker* w;
  outcome result;
};
CONCUR_NOINLINE inline parked park_fiber_until(worker* w, spin_lock* lock, nanoseconds_t deadline_ns,
                                               wait_reason reason, departure how) noexcept {
  timer_entry timer;
  timer.deadline_ns = deadline_ns;
  timer.who = w->current;
  timer.ticket = w->current->next_ticket();
  w->leaving_timer = &timer;  // null again when it is set
  const outcome result = park_fiber_now(w, lock, reason, how);
  if (timer.wheel != nullptr && result != outcome::timed_out && !CONCUR_MUTANT_IS(291)) timer.wheel->call_off(timer);
  return {w, result};
}

// Parks the running fiber, until its note is claimed or the deadline passes. `lock`, the site's, is held by the
// caller and dropped once the fiber may be found; null when only time or cancellation can end the wait. The result
// says what ended it. A note in a queue, unless granted or closed, is still there: the site unlinks it.
CONCUR_FORCE_INLINE outcome park_fiber(worker*& w, spin_lock* lock, nanoseconds_t deadline_ns, wait_reason reason,
                                       departure how = departure::parked) noexcept {
  if (CONCUR_UNLIKELY(deadline_ns != never)) {
    const parked end = park_fiber_until(w, lock, deadline_ns, reason, how);
    w = end.w;
    return end.result;
  }
  return park_fiber_now(w, lock, reason, how);
}

// Drops the locks in order (S6).
inline void unlock_chain(lock_chain* locks) noexcept {
  while (locks != nullptr) {
    lock_chain* const next = locks->next;
    locks->lock->unlock();
    locks = next;
  }
}

// Parks the running fiber, whose notes are at several sites; `locks` are theirs (S6). Inlined into its one caller: a frame
// less between the switch and the select saves some 20 instructions and a return that is not predicted.
CONCUR_FORCE_INLINE outcome park_selected(worker*& w, lock_chain* locks, nanoseconds_t deadline_ns) noexcept {
  w->leaving_locks = locks;
  return park_fiber(w, nullptr, deadline_ns, wait_reason::select, departure::selected);
}

// Every parking operation begins with this: it raises a cancellation, and makes a fiber that never has to wait yield
// now and then. Throws `cancelled`. Not while the stack unwinds: destructors finish their work.
// Returns the worker that the caller goes on at; null on a plain thread.
worker* checkpoint_slow(worker* w);
CONCUR_FORCE_INLINE worker* checkpoint() {
  worker* w = this_worker();
  if (CONCUR_UNLIKELY(w == nullptr || w->current == nullptr)) return nullptr;
  const bool is_spent = --w->budget == 0 && !CONCUR_MUTANT_IS(77);
  if (CONCUR_UNLIKELY(is_spent) || CONCUR_UNLIKELY(w->current->should_cancel())) return checkpoint_slow(w);
  return w;
}

// What checkpoint() gave, after a wait.
inline worker* worker_of_fiber() noexcept {
  worker* const w = this_worker();
  return w != nullptr && w->current != nullptr ? w : nullptr;
}

// The same without throwing. False: the caller is cancelled. Else w is what checkpoint() returns.
worker* checkpoint_slow_quietly(worker* w) noexcept;  // null: cancelled
CONCUR_FORCE_INLINE bool checkpoint_quietly(worker*& w) noexcept {
  w = this_worker();
  if (CONCUR_UNLIKELY(w == nullptr || w->current == nullptr)) {
    w = nullptr;
    return true;
  }
  const bool is_spent = --w->budget == 0 && !CONCUR_MUTANT_IS(77);
  if (CONCUR_UNLIKELY(is_spent) || CONCUR_UNLIKELY(w->current->should_cancel())) w = checkpoint_slow_quietly(w);
  return w != nullptr;
}

// How a site reports an end that is none of its own.
[[noreturn]] inline void fail_outcome(outcome result, const char* what) {
  if (result == outcome::cancelled) fail_cancelled();
  fail_timed_out(what);
}

// Switches from a worker's loop to a fiber, and returns when the loop is wanted again.
CONCUR_INLINE void enter_fiber(worker* w, fiber* f) noexcept;
CONCUR_INLINE void bind_stack(worker* w, fiber* f, stack* s) noexcept;  // entry.hpp

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void publish_timer(worker* w) noexcept {
  timer_entry* timer = w->leaving_timer;
  w->leaving_timer = nullptr;
  w->timers.set(*timer);
}

// Behind a look that saw a fiber's flag, and before the fiber is told: which of its scopes are cancelled is to be known then,
// or what is thrown passes by the one that should catch it.
inline void know_cancelled_scopes() noexcept {
  // acquire: pairs with the fence in tell_token, which each scope's flag comes before, and the fiber's flag behind.
  if (!CONCUR_MUTANT_IS(290)) thread_fence(std::memory_order_acquire);
}

CONCUR_INLINE void cancel_departed(fiber* f, std::uint32_t ticket) noexcept {
  if (!claim(*f, ticket)) return;
  f->result = outcome::cancelled;
  know_cancelled_scopes();
  note_raised(*f->innermost());
  resume(f);
}

CONCUR_INLINE void publish_selected(worker* w) noexcept {
  lock_chain* const locks = w->leaving_locks;
  publish_wait(w, w->leaving);
  unlock_chain(locks);
}

CONCUR_NOINLINE CONCUR_INLINE worker* checkpoint_slow_quietly(worker* w) noexcept {
  if (w->current->should_cancel()) {
    w->budget = worker::operations_per_slice;
    if (driver* d = driver_or_null()) d->step();  // who swallows it and tries again has to come to an end there
    know_cancelled_scopes();
#  if CONCUR_EXCEPTIONS
    if (std::uncaught_exceptions() > w->current->unwind_base && !CONCUR_MUTANT_IS(209)) return w;
#  endif
    note_raised(*w->current->innermost());
    return CONCUR_MUTANT_IS(190) ? w : nullptr;
  }
  if (driver* d = driver_or_null()) {
    w->budget = 1;
    if (!d->interrupts_fiber()) return w;
  }
  w->picks_to_upkeep = 1;  // a whole slice without a wait is long enough to have missed timers and events
  return yield_fiber(w);
}

CONCUR_NOINLINE CONCUR_INLINE worker* checkpoint_slow(worker* w) {
#  if !CONCUR_EXCEPTIONS
  if (w->current->should_cancel()) {  // only a wait has to fail
    w->budget = worker::operations_per_slice;
    return w;
  }
#  endif
  worker* const next = checkpoint_slow_quietly(w);
  if (next == nullptr) fail_cancelled();
  return next;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
