// runtime/search.hpp - how a worker finds out that another could do with help, and helps itself to half of its ring.
//
// Robbing stops the victim for the length of a heavy fence, some 10 us (run_queue.hpp), in which it could have run hundreds
// of short fibers. So a thief looks before it takes: at what the victim has to do, in time and not in numbers (pace.hpp),
// and at whether it comes to it.
//
//     seen at the victim                                  robbed
//     more than 50 us of work                             at once
//     more than 2 us of work, all the while               after `patience` rounds of looking
//     a ring that stands still, one fiber in it or more   after `patience` rounds of looking
//     a `recent` fiber that the monitor gave free         at once
//     jobs that its fibers have offered                   see theft.hpp
//     anything else                                       not at all: the victim comes to it sooner than a thief
//
// A thief whose last loot was over in no time leaves all but the fourth line alone for a while (pace.hpp).
//
// Two kinds of worker look: one with nothing to do, before it sleeps, and one with little, at its upkeep.
#ifndef CONCUR_RUNTIME_SEARCH_HPP
#define CONCUR_RUNTIME_SEARCH_HPP

#include "base/config.hpp"
#include "runtime/scheduler.hpp"
#include "runtime/theft.hpp"

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

// With a driver, whose clock says nothing of what fibers take: whatever is more than one.
CONCUR_INLINE bool scheduler::is_worth_robbing(const worker& thief, const worker& victim) const noexcept {
  const std::uint32_t count = victim.queue.stealable_count();
  if (count < 2) return false;
  return (victim.pace.time_of(count) >= work_pace::at_once_ns && thief.pace.may_use_force()) ||
         driver_or_null() != nullptr;
}

// Takes from `victim` what a thief may have.
CONCUR_INLINE bool scheduler::rob(worker* w, worker& victim) noexcept {
  fiber* loot[run_queue::batch];
  // relaxed: a permission, not a message.
  const bool takes_recent = victim.may_take_recent.load(std::memory_order_relaxed);
  const std::uint32_t count = victim.queue.steal(loot, takes_recent);
  if (count == 0) return false;
  if (takes_recent) victim.may_take_recent.store(false, std::memory_order_relaxed);  // relaxed: as above
  if (driver_or_null() == nullptr) w->pace.note_loot(now_ns());
  w->steals.add();
  w->stolen_fibers.add(count);
  for (std::uint32_t k = 0; k < count; ++k) queue_behind(w, loot[k]);
  return true;
}

// One worker is watched at a time, until it moves and has little: two that take turns in being watched would both wait for
// ever.
CONCUR_INLINE bool scheduler::search(worker* w) noexcept {
  const bool is_driven = driver_or_null() != nullptr;  // then there is nothing to spin for
  const int rounds = is_driven ? 3 : 24;
  const int patience = is_driven ? 1 : 12;
  constexpr int pauses = 16;
  const bool may_use_force = is_driven || w->pace.may_use_force();
  worker* watched = nullptr;  // since when, and at which mark
  std::uint32_t watched_mark = 0;
  int watched_since = 0;
  lone_job job;
  for (int round = 0; round < rounds; ++round) {
    const std::uint32_t first = seam_choose(w->random, choice::victim, worker_count);
    for (unsigned i = 0; i < worker_count; ++i) {
      worker& victim = workers[(first + i) % worker_count];
      if (&victim == w) continue;
      if ((is_worth_robbing(*w, victim) || victim.offers_recent()) && rob(w, victim)) return true;
      const std::uint32_t count = victim.queue.stealable_count();
      const std::uint32_t mark = victim.queue.progress_mark();
      const bool is_little = victim.pace.time_of(count) < work_pace::lasting_ns || is_driven;
      if (!may_use_force && count > 1 && !is_little) w->pace.leave_for_later();
      if (watched == &victim && (count == 0 || (mark != watched_mark && is_little))) {
        watched = nullptr;  // and the next one gets its turn
      } else if (count != 0 && (watched == nullptr || CONCUR_MUTANT_IS(252)) && watched != &victim) {
        watched = &victim;
        watched_mark = mark;
        watched_since = round;
      } else if (watched == &victim && round - watched_since >= patience && may_use_force && rob(w, victim)) {
        return true;
      }
      if (look_for_jobs(w, victim, job, round, patience / 3)) return true;
    }
    if (has_work_for(w, false)) return true;
    spin_briefly(pauses);
  }
  return false;
}

// A worker whose fibers only yield never runs out of work, and so would never search, while another is stuck in a fiber
// that computes, with more behind it. Upkeep therefore looks at one other each time, and helps if it has little itself.
CONCUR_INLINE void scheduler::look_at_neighbour(worker* w) noexcept {
  worker& victim = workers[w->neighbour];
  if (&victim != w && w->pace.time_of(w->queue.stealable_count()) < work_pace::lasting_ns && !CONCUR_MUTANT_IS(460)) {
    const bool has_moved = victim.queue.progress_mark() != w->neighbour_mark;
    if (victim.offers_recent() || is_worth_robbing(*w, victim) || (!has_moved && victim.queue.stealable_count() != 0))
      rob(w, victim);
  }
  w->neighbour = (w->neighbour + 1) % worker_count;
  if (w->neighbour == w->index) w->neighbour = (w->neighbour + 1) % worker_count;
  w->neighbour_mark = workers[w->neighbour].queue.progress_mark();
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
