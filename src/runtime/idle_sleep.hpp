// runtime/idle_sleep.hpp - the bodies of idle.hpp, which need to know the scheduler they serve.
#ifndef CONCUR_RUNTIME_IDLE_SLEEP_HPP
#define CONCUR_RUNTIME_IDLE_SLEEP_HPP

#include "atomic/word.hpp"
#include "base/config.hpp"
#include "runtime/idle.hpp"
#include "runtime/scheduler.hpp"

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

// --- the list; under lock_ ---

CONCUR_INLINE void idle_set::link(worker* w) noexcept {
  worker* before = nullptr;
  worker* after = first_;
  if (w->is_polling) {
    for (; after != nullptr; after = after->idle_next) before = after;
  }
  w->idle_prev = before;
  w->idle_next = after;
  if (before != nullptr)
    before->idle_next = w;
  else
    first_ = w;
  if (after != nullptr) after->idle_prev = w;
  w->is_idle = true;
  // relaxed: the fence that follows in sleep() orders it (F2).
  count_.store(count_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

// False: a waker took it out before, and its wake-up is under way (I6).
CONCUR_INLINE bool idle_set::unlink(worker* w) noexcept {
  if (!w->is_idle) return false;
  if (w->idle_prev != nullptr)
    w->idle_prev->idle_next = w->idle_next;
  else
    first_ = w->idle_next;
  if (w->idle_next != nullptr) w->idle_next->idle_prev = w->idle_prev;
  w->is_idle = false;
  // relaxed: a submitter that still sees the old count takes the lock and finds the list shorter.
  count_.store(count_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
  return true;
}

// --- waking ---

// The worker left the list, and sleeps in the poller or on its parker, or notices by itself that it need not sleep. A
// wake-up that is then not needed ends some later sleep early. Outside the lock, since it may cost a system call.
inline void wake_unlinked(scheduler& s, worker* w, bool is_polling) noexcept {
  if (is_polling)
    s.wake_poller();
  else
    w->idle_parker.unpark();
}

CONCUR_INLINE void idle_set::wake_one(scheduler& s) noexcept {
  worker* w = nullptr;
  bool is_polling = false;
  {
    lock_scope<spin_lock> held(lock_);
    w = first_;
    if (w == nullptr) return;
    unlink(w);
    is_polling = w->is_polling;
    w->is_searching = true;
    searchers_.fetch_add(1,
                         std::memory_order_relaxed);  // relaxed: the token's order is made by its return (end_search)
  }
  wake_unlinked(s, w, is_polling);
}

CONCUR_INLINE void idle_set::wake_all(scheduler& s) noexcept {
  for (;;) {
    worker* w = nullptr;
    bool is_polling = false;
    {
      lock_scope<spin_lock> held(lock_);
      w = first_;
      if (w == nullptr) return;
      unlink(w);
      is_polling = w->is_polling;
    }
    wake_unlinked(s, w, is_polling);
  }
}

CONCUR_INLINE void idle_set::announce(scheduler& s) noexcept {
  if (!CONCUR_MUTANT_IS(3)) {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(263) ? std::memory_order_acq_rel : std::memory_order_seq_cst;
    thread_fence(order);  // seq_cst: F1; forbids that R1 and R2 both miss
  }
  // relaxed: behind F1.
  if (count_.load(std::memory_order_relaxed) != 0 && searchers_.load(std::memory_order_relaxed) == 0) wake_one(s);
}

CONCUR_INLINE void idle_set::announce_to(scheduler& s, worker& home) noexcept {
  CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(264) ? std::memory_order_acq_rel : std::memory_order_seq_cst;
  thread_fence(order);                                      // seq_cst: F1
  if (count_.load(std::memory_order_relaxed) == 0) return;  // relaxed: behind F1
  bool is_polling = false;
  {
    lock_scope<spin_lock> held(lock_);
    if (!unlink(&home)) return;
    is_polling = home.is_polling;
  }
  wake_unlinked(s, &home, is_polling);
}

CONCUR_NOINLINE CONCUR_INLINE void idle_set::suggest_slow(scheduler& s, worker& caller) noexcept {
  if (searchers_.load(std::memory_order_relaxed) != 0) return;  // relaxed: speed only (I1)
  if (driver_or_null() == nullptr) caller.pace.note_call();
  wake_one(s);
}

CONCUR_INLINE void idle_set::suggest_thief(scheduler& s) noexcept {
  if (searchers_.load(std::memory_order_relaxed) == 0) wake_one(s);  // relaxed: speed only (I1)
}

// --- searching ---

CONCUR_INLINE bool idle_set::begin_search(scheduler& s, worker* w) noexcept {
  if (w->is_searching) return true;
  // relaxed: a limit that is passed by one now and then does no harm.
  if (2 * searchers_.load(std::memory_order_relaxed) >= s.worker_count) return false;
  searchers_.fetch_add(1, std::memory_order_relaxed);  // relaxed: see wake_one
  w->is_searching = true;
  return true;
}

CONCUR_INLINE void idle_set::end_search(scheduler& s, worker* w, bool has_found) noexcept {
  if (!w->is_searching) return;
  w->is_searching = false;
  // seq_cst: comes before the last look (R2) in the one order that F1 takes part in (I2).
  const bool was_last = searchers_.fetch_sub(1, std::memory_order_seq_cst) == 1;
  if (!has_found || !was_last) return;
  thread_fence(std::memory_order_seq_cst);  // seq_cst: as F2, for the look of I3
  if (s.has_work_for(w, true)) announce(s);
}

// --- sleeping ---

// said: the moment that it told the others before the fence.
CONCUR_INLINE int idle_set::sleep_in_poller(scheduler& s, poll_event* events, nanoseconds_t said,
                                            nanoseconds_t latest_ns) noexcept {
  // Never longer than it said: the timer that it spoke of may be gone, and one that is set now is compared with that.
  nanoseconds_t until = s.next_timer_ns();
  if (until > said && !CONCUR_MUTANT_IS(253)) until = said;
  if (until > latest_ns) until = latest_ns;
  const nanoseconds_t now = until == never ? 0 : now_ns();
  return s.wait_events(events, until == never ? -1 : (until > now ? until - now : 0));
}

CONCUR_INLINE void idle_set::hear_timer(scheduler& s, const timer_wheel& wheel) noexcept {
  CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(267) ? std::memory_order_acq_rel : std::memory_order_seq_cst;
  thread_fence(order);  // seq_cst: I5, the other side
  if (wheel.next_ns() < poll_until_ns_.read()) s.wake_poller();
}

CONCUR_INLINE void idle_set::sleep(scheduler& s, worker* w, bool has_searched) noexcept {
  CONCUR_PLANTED bool says_late = CONCUR_MUTANT_IS(57) || CONCUR_MUTANT_IS(266);
  const bool polls = s.take_poller();
  const nanoseconds_t said = polls ? s.next_timer_ns() : never;
  if (polls && !says_late) poll_until_ns_.write(said);
  {
    lock_scope<spin_lock> held(lock_);
    w->is_polling = polls;
    link(w);
    if (count_.load(std::memory_order_relaxed) == s.worker_count) report_quiet(s);  // relaxed: under the lock
  }
  if (!CONCUR_MUTANT_IS(4)) {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(265) ? std::memory_order_acq_rel : std::memory_order_seq_cst;
    // seq_cst: F2; forbids that R1 and R2 both miss. And I5: either we see a timer, or its worker sees how long we sleep.
    thread_fence(order);
  }
  if (polls && says_late) poll_until_ns_.write(said);
  poll_event events[scheduler::events_at_once];
  int event_count = 0;
  const bool has_work = s.has_work_for(w, has_searched);
  const nanoseconds_t latest_ns = w->pace.take_look_again();
  if (!has_work) {
    w->parks.add();
    if (polls) {
      event_count = sleep_in_poller(s, events, said, latest_ns);
    } else {
      if (w->timers.next_ns() < poll_until_ns_.read()) s.wake_poller();  // I5
      if (latest_ns == never)
        w->idle_parker.park();
      else
        w->idle_parker.park_until(latest_ns);
    }
  }
  {
    lock_scope<spin_lock> held(lock_);
    unlink(w);
  }
  if (has_work && s.worker_count > 1) begin_search(s, w);  // there may be more than one fiber's worth: I3
  s.watch.nudge(s);
  if (!polls) return;
  poll_until_ns_.write(long_ago);
  s.leave_poller();
  s.dispatch_events(events, event_count);
  s.fire_timers();
}

// Under lock_, with all workers linked: none of them runs a fiber, and their counters stand still.
CONCUR_INLINE void idle_set::report_quiet(scheduler& s) noexcept {
  if (watches_ == nullptr || s.live_fiber_count() != 0) return;
  while (quiet_watch* watch = watches_) {
    watches_ = watch->next;
    watch->thread.unpark();
  }
}

CONCUR_INLINE void idle_set::wait_quiet(scheduler& s, quiet_watch& watch) noexcept {
  {
    lock_scope<spin_lock> held(lock_);
    watch.next = watches_;
    watches_ = &watch;
    if (count_.load(std::memory_order_relaxed) == s.worker_count) report_quiet(s);  // relaxed: under the lock
  }
  watch.thread.park();
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
