// runtime/shared_queue.hpp - ready fibers that no worker has for its own: sent from outside, or too many for a ring.
//
// A program that spawns faster than it runs fills its worker's ring, and the surplus must go somewhere. In which order
// it comes back decides how much memory the program needs. First in, first out runs a tree of fibers level by level: a
// whole level is parked at once, each fiber with a stack, and every one of them has left the cache when its turn comes.
// Newest first runs the tree in depth: few are alive at a time, and what is taken was touched a moment ago. On a tree of
// a million that is a factor of three and more.
//
// But newest first alone starves: while somebody spawns without end, there is always something newer. So surplus grows
// old, and old fibers have a turn of their own that nothing newer can take.
//
//     queue      what                                      order                    an idle worker    upkeep
//     surplus    full rings' oldest, in batches            the newest batch first   1st               if it runs low
//     foreign    made ready by threads outside             first come               2nd               its share
//     aged       surplus that lay here for a while         as it aged               3rd               one, first of all
//
//   H1  Upkeep, which each worker does every so many picks whatever its ring holds, takes one aged fiber before all else,
//       and foreign ones by the share; so neither waits for an end of the newer ones. One, not a share: an aged fiber is
//       mostly the root of a subtree, and many at once would bring the run level by level back.
//   H2  Every patience_ns, upkeep makes all that is surplus aged: in one step, whatever its length. A fiber thus is aged
//       patience_ns after it came, at most, and has in front of it only what came before that moment.
//   H3  A worker whose ring runs low takes of everything: fibers that yield for ever keep a ring from being empty, and
//       the surplus must not come back one by one because of them.
//   H4  `count_` is the sum of all three queues, so that one look tells a worker that goes to sleep whether there is work
//       (idle.hpp, R2). It is written under the lock.
//
// Rejected: aged fibers behind the foreign ones, in one queue. Upkeep then takes its share of them, batch after batch, and
// everything runs level by level as before.
#ifndef CONCUR_RUNTIME_SHARED_QUEUE_HPP
#define CONCUR_RUNTIME_SHARED_QUEUE_HPP

#include "atomic/spin_lock.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/intrusive.hpp"
#include "base/time.hpp"
#include "runtime/fiber.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

class shared_queue {
 public:
  static constexpr nanoseconds_t patience_ns = 10'000'000;

  // Who looks, and so what it is given, in this order.
  enum class look : unsigned char {
    idle,  // nothing else to run: surplus, foreign, aged
    low,   // upkeep, with little left to run: one aged, foreign, surplus, aged
    busy,  // upkeep: one aged, foreign
  };

  // Fibers in all three queues (H4); a hint, unless the caller's fence orders it against the pushes.
  std::uint32_t count() const noexcept { return count_.load(std::memory_order_relaxed); }  // relaxed: see above

  // Behind the other foreign ones. The caller announces.
  void push_foreign(fiber* f) noexcept;
  // Before all other surplus: `size` that are linked, from `first` to `last`. The caller announces.
  void push_surplus(fiber* first, fiber* last, std::uint32_t size) noexcept;
  // At most `most`, which is not 0, into `out`; how many.
  std::uint32_t take(fiber** out, std::uint32_t most, look who) noexcept;
  // H2, if it is time.
  void age(nanoseconds_t now) noexcept;

 private:
  void add(std::uint32_t n) noexcept {
    // relaxed, both: the lock orders it for takers, the announcement's fence for sleepers.
    count_.store(count_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }

  spin_lock lock_;
  intrusive_queue<fiber> surplus_;
  intrusive_queue<fiber> foreign_;
  intrusive_queue<fiber> aged_;
  nanoseconds_t aged_ns_ = 0;  // when the surplus was last made aged
  atomic<std::uint32_t> count_{0};
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void shared_queue::push_foreign(fiber* f) noexcept {
  lock_scope<spin_lock> held(lock_);
  foreign_.push(f);
  add(1);
}

CONCUR_INLINE void shared_queue::push_surplus(fiber* first, fiber* last, std::uint32_t size) noexcept {
  lock_scope<spin_lock> held(lock_);
  surplus_.push_front(first, last);
  add(size);
}

CONCUR_INLINE std::uint32_t shared_queue::take(fiber** out, std::uint32_t most, look who) noexcept {
  if (count() == 0) return 0;
  std::uint32_t n = 0;
  const auto drain = [&](intrusive_queue<fiber>& from, std::uint32_t limit) {
    fiber* f = from.front();
    fiber** to = out + n;
    for (fiber** const end = out + limit; to < end && f != nullptr; ++to) {
      fiber* const next = f->next;
      fetch_along(f, next, 1, 1);
      *to = f;
      f = next;
    }
    n = static_cast<std::uint32_t>(to - out);
    from.drop_until(f);
  };
  lock_scope<spin_lock> held(lock_);
  if (who != look::idle) {
    if (!CONCUR_MUTANT_IS(183)) drain(aged_, 1);  // H1
    drain(foreign_, most);
  }
  if (who != look::busy) {  // H3
    drain(surplus_, most);
    drain(foreign_, most);
    drain(aged_, most);
  }
  // relaxed, both: under the lock (H4).
  count_.store(count_.load(std::memory_order_relaxed) - n, std::memory_order_relaxed);
  return n;
}

CONCUR_INLINE void shared_queue::age(nanoseconds_t now) noexcept {
  if (count() == 0 || CONCUR_MUTANT_IS(181)) return;
  lock_scope<spin_lock> held(lock_);
  if (now - aged_ns_ < patience_ns) return;
  aged_ns_ = now;
  aged_.append(surplus_);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
