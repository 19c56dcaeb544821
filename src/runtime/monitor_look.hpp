// runtime/monitor_look.hpp - the bodies of monitor.hpp, which need to know the scheduler they watch.
#ifndef CONCUR_RUNTIME_MONITOR_LOOK_HPP
#define CONCUR_RUNTIME_MONITOR_LOOK_HPP

#include "atomic/word.hpp"
#include "base/config.hpp"
#include "runtime/monitor.hpp"
#include "runtime/scheduler.hpp"

#if CONCUR_BODIES

#  include <new>

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE bool monitor::is_all_idle(const scheduler& s) const noexcept { return s.idle.count() == s.worker_count; }

CONCUR_INLINE void monitor::nudge(scheduler& s) noexcept {
  if (s.worker_count == 1) return;  // there is none; saves the fence
  CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(268) ? std::memory_order_acq_rel : std::memory_order_seq_cst;
  thread_fence(order);  // seq_cst: with the one in run, forbids that both looks miss
  if (!is_asleep_.load(std::memory_order_relaxed)) return;                      // relaxed: behind the fence
  if (is_asleep_.exchange(false, std::memory_order_relaxed)) thread_.unpark();  // relaxed: unpark orders
}

CONCUR_INLINE void monitor::stop() noexcept {
  is_stopping_.store(true, std::memory_order_relaxed);  // relaxed: unpark publishes it
  thread_.unpark();
}

// Work behind a fiber that has not let go for a whole period goes to an idle worker.
CONCUR_INLINE void monitor::look(scheduler& s, std::size_t* last_switches) noexcept {
  bool wants_worker = false;
  bool has_stuck = false;
  for (unsigned i = 0; i < s.worker_count; ++i) {
    worker& w = s.workers[i];
    const std::size_t switches = w.switches.get();
    const bool is_stuck = switches == last_switches[i] && w.queue.has_any();
    last_switches[i] = switches;
    if (w.queue.stealable_count() != 0 || w.jobs.count() > 0) wants_worker = true;
    if (!is_stuck) continue;
    has_stuck = true;
    if (driver_or_null() == nullptr) w.pace.hear(period_ns);
    if (w.queue.has_recent()) w.may_take_recent.store(true, std::memory_order_relaxed);  // relaxed: a permission
  }
  // relaxed: a look; a poll that starts now is as good.
  const bool is_unwatched = s.poll_owner.load(std::memory_order_relaxed) == 0;
  // Set on a worker that computes since then, while the sleeper in the poller knows only of later ones.
  const bool has_overdue = s.next_timer_ns() <= now_ns() && !CONCUR_MUTANT_IS(71);
  if (s.idle.count() != 0) {
    if (wants_worker || has_stuck || is_unwatched || has_overdue) s.idle.wake_one(s);
  } else if (has_overdue && !CONCUR_MUTANT_IS(251)) {
    s.fire_timers();  // everybody computes; a time limit on what they compute is to be felt all the same
  }
}

CONCUR_INLINE void monitor::run(scheduler& s) noexcept {
  std::size_t* last_switches = new (std::nothrow) std::size_t[s.worker_count]();
  bool was_idle = false;
  unsigned periods = 0;
  // relaxed: the parker orders it.
  while (last_switches != nullptr && !is_stopping_.load(std::memory_order_relaxed)) {
    const bool is_idle = is_all_idle(s);
    if (is_idle && was_idle && !CONCUR_MUTANT_IS(53)) {
      is_asleep_.store(true, std::memory_order_relaxed);    // relaxed: the fence orders it
      CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(269) ? std::memory_order_acq_rel : std::memory_order_seq_cst;
      thread_fence(order);  // seq_cst: see nudge
      if (is_all_idle(s)) thread_.park();
      is_asleep_.store(false, std::memory_order_relaxed);  // relaxed: only a hint to wakers
      was_idle = false;
      continue;
    }
    was_idle = is_idle;
    if (!is_idle) look(s, last_switches);
    if (++periods % periods_to_trim == 0) s.stacks.trim();
    thread_.park_until(saturating_add(now_ns(), period_ns));
  }
  delete[] last_switches;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
