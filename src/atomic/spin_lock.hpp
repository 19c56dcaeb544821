// atomic/spin_lock.hpp - a lock for a few instructions, in one word.
//
// It guards what is over sooner than a thread could be put to sleep: linking a waiter, moving one value. No parking
// operation, no system call and no allocation may happen under it. Blocking: a holder that the kernel takes off its
// core holds the others up, so after a while they leave their core to it instead of burning it.
//
//   K1  The word is 0 when free and 1 when held. Only the holder writes it then.
//   K2  Unlocking is one plain release store. That is what lets a fiber hand its unlock to whoever runs after it has
//       left.
//   K3  A holder may retire the lock: it leaves a number above 1 instead of 0, and nobody gets the lock any more.
//       That store is the last touch, so who reads the number may free the memory: the state of a future ends that way.
//   K4  A retired lock may be brought back by one compare-exchange from its number: an event is set and reset that way.
#ifndef CONCUR_ATOMIC_SPIN_LOCK_HPP
#define CONCUR_ATOMIC_SPIN_LOCK_HPP

#include "atomic/word.hpp"
#include "base/config.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Tells the core that this is a loop that waits, for the sake of its sibling and of its power.
inline void cpu_relax() noexcept {
#if defined(CONCUR_ARCH_X86_64) || defined(CONCUR_ARCH_I386)
  __builtin_ia32_pause();
#elif defined(CONCUR_ARCH_AARCH64)
  asm volatile("isb" ::: "memory");
#else
  asm volatile("" ::: "memory");
#endif
}

// One step of waiting for another thread's few instructions: spins first, then gives the core away. `round` counts
// the steps.
CONCUR_INLINE void spin_wait(unsigned& round) noexcept;

class spin_lock {
 public:
  constexpr spin_lock() noexcept = default;
  explicit constexpr spin_lock(std::uint32_t retired_with) noexcept : word_(retired_with) {}  // 0: free
  spin_lock(const spin_lock&) = delete;
  spin_lock& operator=(const spin_lock&) = delete;

  CONCUR_FORCE_INLINE void lock() noexcept {
    std::uint32_t expected = 0;
    // acquire: pairs with unlock, so that what the last holder did is seen. relaxed on failure: nothing is read yet.
    if (CONCUR_LIKELY(word_.compare_exchange_strong(expected, 1, std::memory_order_acquire, std::memory_order_relaxed)))
      return;
    lock_slow();
  }

  bool try_lock() noexcept {
    std::uint32_t expected = 0;
    // acquire: as in lock.
    return word_.compare_exchange_strong(expected, 1, std::memory_order_acquire, std::memory_order_relaxed);
  }

  // Locks, and returns 0; or returns the number with which the lock was retired (K3).
  std::uint32_t lock_unless_retired() noexcept {
    for (unsigned round = 0;;) {
      std::uint32_t seen = 0;
      // acquire: pairs with unlock and with retire, on failure as well.
      if (CONCUR_LIKELY(word_.compare_exchange_strong(seen, 1, std::memory_order_acquire, std::memory_order_acquire)))
        return 0;
      if (seen > 1) return seen;
      spin_wait(round);
    }
  }
  void retire(std::uint32_t number) noexcept {
    constexpr auto order = CONCUR_MUTANT_IS(172) ? std::memory_order_relaxed : std::memory_order_release;
    word_.store(number, order);  // release: publishes what was done under the lock to who reads the number
  }
  // Lets a lock that is retired with `from` say `to` instead, 0 to be free again; false if it is not retired with that (K4).
  bool replace_retired(std::uint32_t from, std::uint32_t to) noexcept {
    // acq_rel: sees what the retirement published, and publishes what its caller did. relaxed on failure: nothing is read.
    return word_.compare_exchange_strong(from, to, std::memory_order_acq_rel, std::memory_order_relaxed);
  }
  std::uint32_t peek() const noexcept {
    return word_.load(std::memory_order_acquire);  // acquire: pairs with retire
  }

  CONCUR_FORCE_INLINE void unlock() noexcept {
    constexpr auto order = CONCUR_MUTANT_IS(171) ? std::memory_order_relaxed : std::memory_order_release;
    word_.store(0, order);  // release: publishes what was done under the lock to the next holder
  }

 private:
  void lock_slow() noexcept;

  atomic<std::uint32_t> word_{0};
};

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

#  include <sched.h>
#  include <time.h>

CONCUR_NAMESPACE_BEGIN
namespace detail {

// The steps were chosen so that a holder that runs is waited for without a system call (about 2 us of spinning), and
// one that was pre-empted gets the core. The last step sleeps: with real-time priorities a yield alone can starve the
// holder for ever.
CONCUR_INLINE void spin_wait(unsigned& round) noexcept {
  if (driver* d = driver_or_null()) return d->spin();
  constexpr unsigned spinning_rounds = 8;
  constexpr unsigned yielding_rounds = 64;
  if (round < spinning_rounds) {
    for (unsigned i = 0; i < (1u << round); ++i) cpu_relax();
  } else if (round < yielding_rounds) {
    sched_yield();
  } else {
    timespec pause{0, 50'000};
    nanosleep(&pause, nullptr);
  }
  if (round < yielding_rounds) ++round;
}

CONCUR_INLINE void spin_lock::lock_slow() noexcept {
  unsigned round = 0;
  for (;;) {
    // relaxed: only a look; the exchange in try_lock is what orders.
    if (word_.load(std::memory_order_relaxed) == 0 && try_lock()) return;
    spin_wait(round);
  }
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES
#endif
