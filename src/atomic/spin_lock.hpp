// atomic/spin_lock.hpp - a lock for a few instructions, in one word.
//
// It guards what is over sooner than a thread could be put to sleep: linking a node, moving one value. Works with
// std::lock_guard and its kin. It is the lock inside the runtime, too; the part that its waiting places add is in
// retirable_lock.hpp.
//
//   K1  The word is 0 when free and 1 when held. Only the holder writes it then.
//   K2  Unlocking is one plain release store. That is what lets a fiber hand its unlock to whoever runs after it has
//       left.
//
// Progress: blocking. A holder that the kernel takes off its core holds the others up until it is back, so after about
// 2 us of spinning they leave their cores to it (backoff.hpp) instead of burning them. Hence nothing slow may happen under
// it: no system call, no allocation, and above all no parking. A fiber that parks under it keeps the lock while it does
// not run, and the workers that want the lock spin instead of running the fiber that would unlock: with one worker, for
// ever. Use concur::mutex there. It is not recursive, and not fair: who comes late may be first (ticket_lock.hpp).
//
// Happens-before: an unlock before each later lock and successful try_lock. Cost, uncontended: one exchange and one store;
// while it is held, waiters only read, so the holder keeps its line.
//
// Source: L. Rudolph, Z. Segall, "Dynamic decentralized cache schemes for MIMD parallel processors", ISCA 1984 (test, then
// test-and-set); the waiting is Anderson's (backoff.hpp).
#ifndef CONCUR_ATOMIC_SPIN_LOCK_HPP
#define CONCUR_ATOMIC_SPIN_LOCK_HPP

#include "atomic/backoff.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"

CONCUR_NAMESPACE_BEGIN

class spin_lock {
 public:
  constexpr spin_lock() noexcept = default;
  spin_lock(const spin_lock&) = delete;
  spin_lock& operator=(const spin_lock&) = delete;

  CONCUR_FORCE_INLINE void lock() noexcept {
    if (CONCUR_UNLIKELY(!try_lock())) lock_slow();
  }

  // Does not wait; false when somebody holds it.
  CONCUR_FORCE_INLINE bool try_lock() noexcept {
    std::uint32_t expected = 0;
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(361) ? std::memory_order_relaxed : std::memory_order_acquire;
    // acquire: pairs with unlock, so that what the last holder did is seen. relaxed on failure: nothing is read yet.
    return CONCUR_LIKELY(word_.compare_exchange_strong(expected, 1, order, std::memory_order_relaxed));
  }

  CONCUR_FORCE_INLINE void unlock() noexcept {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(171) ? std::memory_order_relaxed : std::memory_order_release;
    word_.store(0, order);  // release: publishes what was done under the lock to the next holder
  }

 protected:
  explicit constexpr spin_lock(std::uint32_t word) noexcept : word_(word) {}

  detail::atomic<std::uint32_t> word_{0};

 private:
  void lock_slow() noexcept;
};

namespace detail {

// Holds a lock for a scope. std::lock_guard would bring <mutex>, and with it a good part of a second of compile time.
template <class Lock>
class lock_scope {
 public:
  explicit lock_scope(Lock& lock) noexcept : lock_(lock) { lock_.lock(); }
  ~lock_scope() { lock_.unlock(); }
  lock_scope(const lock_scope&) = delete;
  lock_scope& operator=(const lock_scope&) = delete;

 private:
  Lock& lock_;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

CONCUR_NOINLINE CONCUR_INLINE void spin_lock::lock_slow() noexcept {
  backoff wait;
  for (;;) {
    // relaxed: only a look; the exchange in try_lock is what orders.
    if (word_.load(std::memory_order_relaxed) == 0 && try_lock()) return;
    wait.pause();
  }
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
