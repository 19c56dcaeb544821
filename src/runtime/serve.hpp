// runtime/serve.hpp - the claim of a wait that only a cancellation could end as well.
//
// A wait ends by one claim (waiter.hpp, W1), because several may want to end it. But a fiber that waits at one site, without
// a deadline, has one rival to that site: who cancels it. That is rare, and passes a heavy fence anyway (cancel.hpp, N1).
// So the site needs no exchange:
//
//     site, under its lock              who cancels, under the fiber's scope_lock
//     word = ticket + 1                 is_cancelled = true
//     light_fence                       heavy_fence
//     is_cancelled ?                    word: ticket -> ticket + 1 by compare-exchange, or it is no longer waiting
//                                       if it was: cancelled_wait = ticket
//
//   V1  At least one sees the other. A site that sees no cancellation has won, and who cancels later finds the word even. A
//       site that sees one cannot know whether its store came before the exchange or over it, which wrote the same. It
//       takes the scope_lock to find out. (An exchange of a third word, by whoever comes first, would not do: who cancels may
//       be stopped before it, and come when a later wait has been decided by that word.)
//   V2  The site's store cannot hit a later wait: who was cancelled takes the site's lock before it goes on (waiter.hpp, W3).
//   V3  Only on a worker of the fiber's own runtime: a cancellation that runs on the only worker there is passes no fence
//       (cancel.hpp).
#ifndef CONCUR_RUNTIME_SERVE_HPP
#define CONCUR_RUNTIME_SERVE_HPP

#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/intrusive.hpp"
#include "machine/fence.hpp"
#include "runtime/scheduler.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Whether a site that sees a cancellation has won all the same (V1).
CONCUR_NOINLINE inline bool was_not_cancelled(fiber& f, std::uint32_t ticket) noexcept {
  lock_scope<spin_lock> held(f.scope_lock);
  return f.cancelled_wait != ticket;
}

// The claim of a sole note, under its site's lock, by a worker of the fiber's own runtime: a cancellation that knows
// that this is its only worker passes no fence. Saves a compare-exchange for each wait (18 cycles of some 160 a round trip).
CONCUR_FORCE_INLINE bool claim_sole(fiber& f, std::uint32_t ticket) noexcept {
  if (CONCUR_UNLIKELY(f.word.load(std::memory_order_relaxed) != ticket)) return false;  // relaxed: under the lock
  f.word.store(ticket + 1, std::memory_order_release);                                  // release: as a claim publishes
  light_fence();
  // relaxed: behind the fence.
  if (CONCUR_LIKELY(!f.is_cancelled.load(std::memory_order_relaxed)) || CONCUR_MUTANT_IS(423)) return true;
  return was_not_cancelled(f, ticket);
}

// Whom an operation served: to be resumed when it has dropped its locks.
struct served_party {
  explicit served_party(worker* w_in) noexcept : w(w_in) {}
  CONCUR_FORCE_INLINE void resume_it() const noexcept {
    if (who == nullptr) return;
    if (is_near)
      w->sched->make_ready_here(w, static_cast<fiber*>(who));
    else
      resume_near(w, who);
  }

  worker* const w;  // where the operation runs; null: on a plain thread
  party* who = nullptr;
  bool is_near = false;  // it is a fiber of w's runtime: known already, which saves six instructions
};

// The first of the queue that can be claimed, which is `served`; null: there is none. Under the site's lock.
CONCUR_FORCE_INLINE waiter* serve_first(intrusive_list<waiter>& queue, served_party& served) noexcept {
  worker* const w = served.w;
  while (waiter* note = queue.pop_front()) {
    party* const who = note->who;
    const bool is_near = note->is_sole && w != nullptr && static_cast<fiber*>(who)->owner == w->sched;
    if (CONCUR_LIKELY(is_near)) {
      if (CONCUR_UNLIKELY(!claim_sole(*static_cast<fiber*>(who), note->ticket))) continue;
      served.is_near = true;
    } else {
      if (CONCUR_UNLIKELY(!note->claim())) continue;
      served.is_near = false;
    }
    served.who = who;
    return note;
  }
  return nullptr;
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
