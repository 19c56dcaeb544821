// runtime/theft.hpp - an offered job becomes a fiber, and the fiber that offered it waits for its end.
//
// A job (job_deque.hpp) is a call on its fiber's stack. Who takes it, an idle worker or the fiber's own that has nothing
// else to run, makes a fiber of it, which may park like any other. What the two fibers have to say to each other is in
// the taker's block, beside its control block, and the job says where that is:
//
//     theft          next         by
//     taken          ended        the taker, as its last step: is_ended, under the lock
//     ended          -            the fiber that offered the job, which gives the block back
//
//   J7  Unlocking after is_ended is the taker's last touch of its block (it may be another fiber's then), and of the job.
//   J8  The job runs in a scope of its own. A cancellation that reaches the fiber that offered it, while that waits
//       here, is passed on into this scope; the wait goes on until the job has ended, deaf to more. So a cancellation is
//       felt by the job when it is felt by its fiber, and not before.
//   J9  A taker for which there is no stack runs nothing: it ends refused, and the fiber calls the job's function itself.
#ifndef CONCUR_RUNTIME_THEFT_HPP
#define CONCUR_RUNTIME_THEFT_HPP

#include <exception>
#include <new>

#include "atomic/spin_lock.hpp"
#include "base/config.hpp"
#include "runtime/cancel.hpp"
#include "runtime/job_deque.hpp"
#include "runtime/scheduler.hpp"
#include "runtime/suspend.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct theft {
  explicit theft(fiber* taker) noexcept : who(taker) {}

  fiber* who;
  scope bounds;              // J8
  std::exception_ptr error;  // what the job threw
  waiter* joiner = nullptr;  // null, or its fiber waits; under the lock
  spin_lock lock;
  bool is_ended = false;    // under the lock
  bool is_refused = false;  // J9
};
static_assert(sizeof(theft) <= fiber_room_bytes, "it lies beside the fiber");

enum class job_end : unsigned char {
  still_mine,  // nobody has it: the caller is to run it
  ran,         // it was run elsewhere, and has ended
};

// Somebody idle may be worth waking for it.
CONCUR_FORCE_INLINE void scheduler::suggest_thief(worker* w) noexcept {
  if (CONCUR_UNLIKELY(idle.count() != 0)) suggest_thief_slow(w);
}

// For the fiber that pushed `offered` on w's deque, when the quick way failed. With `ran`, error is what the job threw.
job_end regain_job(worker* w, std::uint32_t index, job& offered, std::exception_ptr& error) noexcept;
// The taker's last step (J7).
CONCUR_INLINE void end_theft(theft& t) noexcept;

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <utility>

CONCUR_NAMESPACE_BEGIN
namespace detail {

// --- taking ---

inline void appoint(job& found, fiber* f) noexcept {
  found.taker = ::new (static_cast<void*>(f->room)) theft(f);
  f->payload = &found;
  f->entry = found.entry;
}

// The fiber counts as spawned by w, and is on no queue yet.
inline void begin_theft(worker* w, fiber* f) noexcept {
  w->spawned.add();
  f->set_state(fiber_state::ready);
}

CONCUR_INLINE bool scheduler::steal_job(worker* w, worker& victim) noexcept {
  fiber* const f = new_fiber(w);
  if (f == nullptr) return false;
  if (victim.jobs.steal([f](job& found) { appoint(found, f); }) == nullptr) {
    free_fiber(f);
    return false;
  }
  w->steals.add();
  w->stolen_fibers.add();
  begin_theft(w, f);
  queue_behind(w, f);
  return true;
}

// A fork that is about to end takes its job back; taking it away costs both workers more than it gains. So where there is
// one job only, it must have been there for `patience` rounds of looking. Where there are more, the oldest has waited
// while its fiber went on forking.
CONCUR_INLINE bool scheduler::look_for_jobs(worker* w, worker& victim, lone_job& watched, int round,
                                            int patience) noexcept {
  const std::int32_t count = victim.jobs.count();
  if (CONCUR_LIKELY(count <= 0)) {
    if (watched.victim == &victim) watched.victim = nullptr;
    return false;
  }
  if (count > 1) return steal_job(w, victim);
  const std::uint32_t mark = victim.jobs.mark();
  if (watched.victim == nullptr || (watched.victim == &victim && watched.mark != mark)) {
    watched = lone_job{&victim, mark, round};
    return false;
  }
  return watched.victim == &victim && round - watched.since >= patience && steal_job(w, victim);
}

// J5. In w's loop: every fiber that has jobs on w's deque is parked, ready, or elsewhere.
CONCUR_INLINE fiber* scheduler::own_job(worker* w) noexcept {
  if (CONCUR_LIKELY(w->jobs.count() <= 0) || CONCUR_MUTANT_IS(405)) return nullptr;
  fiber* const f = new_fiber(w);
  if (f == nullptr) return nullptr;
  if (w->jobs.take_here([f](job& found) { appoint(found, f); }) == nullptr) {
    free_fiber(f);
    return nullptr;
  }
  begin_theft(w, f);
  return f;
}

CONCUR_NOINLINE CONCUR_INLINE void scheduler::suggest_thief_slow(worker* w) noexcept {
  if (w->jobs.is_worth_a_wake()) idle.suggest_thief(*this);
}

// --- the end ---

CONCUR_INLINE void end_theft(theft& t) noexcept {
  party* next = nullptr;
  {
    lock_scope<spin_lock> held(t.lock);
    t.is_ended = true;
    if (t.joiner != nullptr && t.joiner->claim()) {
      next = t.joiner->who;
      next->result = outcome::granted;
    }
  }
  if (next != nullptr) resume(next);
}

// J8. Returns when the taker has ended.
inline void wait_for_taker(theft& t) noexcept {
  worker* w = this_worker();
  fiber* const self = w->current;
  waiter note;
  bool is_deaf = false;
  for (;;) {
    t.lock.lock();
    t.joiner = nullptr;
    if (t.is_ended) break;
    note.begin(self);
    t.joiner = &note;
    if (park_fiber(w, &t.lock, never, wait_reason::parallel_join) != outcome::cancelled) continue;
    is_deaf = true;
    ++self->shield_depth;
    if (!CONCUR_MUTANT_IS(406)) cancel_scope_tree(t.bounds);
  }
  t.lock.unlock();
  if (is_deaf) --self->shield_depth;
}

CONCUR_NOINLINE CONCUR_INLINE job_end regain_job(worker* w, std::uint32_t index, job& offered,
                                                 std::exception_ptr& error) noexcept {
  if (w->jobs.take_back_locked(index, this_worker() == w || CONCUR_MUTANT_IS(409))) return job_end::still_mine;
  theft* const t = offered.taker;
  wait_for_taker(*t);
  const bool is_refused = t->is_refused;
  error = std::move(t->error);
  fiber* const taker = t->who;
  t->~theft();
  free_fiber(taker);
  return is_refused ? job_end::still_mine : job_end::ran;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
