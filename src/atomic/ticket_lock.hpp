// atomic/ticket_lock.hpp - a spin lock that is first come, first served.
//
// Under a spin_lock that is never free for long, whoever unlocked has the line in its cache and wins again, and some thread
// may get nothing for a long time. Here each draws a number, and numbers are served in order. Works with std::lock_guard
// and its kin.
//
//   L1  next_ is the ticket that the next comer draws; whoever comes writes it. serving_ is the ticket of who may hold the
//       lock; only the holder writes it, adding 1. The lock is free when the two are equal.
//   L2  Tickets are compared for equality, never by size, so they may wrap. 32 bits suffice while fewer than 2^32 threads
//       wait.
//   L3  A waiter knows how many are before it, and waits in proportion: it need not look sooner than they can be done.
//   L4  try_lock draws only the ticket that is being served. That is one exchange on next_: between reading serving_ and the
//       exchange serving_ can only have grown, and never beyond next_; so if next_ still equals what was read, both were
//       equal. (It would take 2^32 acquisitions in between to be fooled.)
//
// Progress: blocking, and more so than spin_lock: when the kernel takes the holder off its core, or the waiter whose turn it
// is, everybody behind stands still until it is back, even though the lock is free. After a few us waiters leave their cores
// (backoff.hpp), but nobody overtakes. So: short sections, and not more threads than cores; else spin_lock, or concur::mutex,
// which parks. A fiber must not park under it, as with spin_lock, and for the same reason. It is not recursive.
//
// Happens-before: an unlock before each later lock and successful try_lock. Cost, uncontended: one fetch_add, one load, one
// store; an unlock makes every waiter read the line again, which a short line of waiters bears.
//
// Source: J. Mellor-Crummey, M. Scott, "Algorithms for scalable synchronization on shared-memory multiprocessors", ACM TOCS
// 9 (1991), section 2.2: the ticket lock with proportional backoff.
#ifndef CONCUR_ATOMIC_TICKET_LOCK_HPP
#define CONCUR_ATOMIC_TICKET_LOCK_HPP

#include "atomic/backoff.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"

CONCUR_NAMESPACE_BEGIN

class ticket_lock {
 public:
  constexpr ticket_lock() noexcept = default;
  // Free, and begins with this ticket: to try what happens at the wrap.
  explicit constexpr ticket_lock(std::uint32_t first_ticket) noexcept : next_(first_ticket), serving_(first_ticket) {}
  ticket_lock(const ticket_lock&) = delete;
  ticket_lock& operator=(const ticket_lock&) = delete;

  void lock() noexcept {
    // relaxed: only the number matters; what the last holder did comes with serving_.
    const std::uint32_t mine = next_.fetch_add(1, std::memory_order_relaxed);
    if (CONCUR_UNLIKELY(places_before(mine) != 0)) lock_slow(mine);
  }

  // Does not wait; false when somebody holds it or has drawn a ticket.
  bool try_lock() noexcept {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(302) ? std::memory_order_relaxed : std::memory_order_acquire;
    std::uint32_t expected = serving_.load(order);  // acquire: pairs with unlock
    // relaxed: as in lock; on failure nothing is read.
    return next_.compare_exchange_strong(expected, expected + 1, std::memory_order_relaxed, std::memory_order_relaxed);
  }

  void unlock() noexcept {
    const std::uint32_t mine = serving_.load(std::memory_order_relaxed);  // relaxed: the holder's own (L1)
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(300) ? std::memory_order_relaxed : std::memory_order_release;
    serving_.store(mine + 1, order);  // release: publishes what was done under the lock to the next in line
  }

 private:
  std::uint32_t places_before(std::uint32_t ticket) const noexcept {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(301) ? std::memory_order_relaxed : std::memory_order_acquire;
    const std::uint32_t serving = serving_.load(order);  // acquire: pairs with unlock
    if (CONCUR_MUTANT_IS(363)) return ticket > serving ? ticket - serving : 0;
    return ticket - serving;  // L2
  }
  void lock_slow(std::uint32_t mine) noexcept;

  detail::atomic<std::uint32_t> next_{0};
  detail::atomic<std::uint32_t> serving_{0};
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

// A place is worth 32 pauses, about as long as a section of a few instructions and the line's way to the next core take. More
// than 64 places are not waited for in one piece: the line may move faster than that.
CONCUR_NOINLINE CONCUR_INLINE void ticket_lock::lock_slow(std::uint32_t mine) noexcept {
  constexpr std::uint32_t pauses_per_place = 32;
  constexpr std::uint32_t places_max = 64;
  unsigned round = 0;
  while (const std::uint32_t places = places_before(mine))
    detail::wait_step(round, (places < places_max ? places : places_max) * pauses_per_place);
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
