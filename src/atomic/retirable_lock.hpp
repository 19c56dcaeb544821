// atomic/retirable_lock.hpp - a spin lock that can end: its last holder leaves a number in it instead of unlocking.
//
// A future is pending until it is set, a latch shut until it opens. Who waits needs the lock of the waiting queue while it
// is not so yet, and nothing at all afterwards. So the lock's word says which: 0 and 1 as in spin_lock.hpp (K1, K2), and a
// number above 1 when the state that the lock guarded is over.
//
//   K3  A holder may retire the lock: it leaves a number above 1 instead of 0, and nobody gets the lock any more.
//       That store is the last touch, so who reads the number may free the memory: the state of a future ends that way.
//   K4  A retired lock may be brought back by one compare-exchange from its number: an event is set and reset that way.
//
// Progress: blocking, as spin_lock; peek and replace_retired are wait-free. Happens-before: retire before each call that
// returns its number; replace_retired before a lock that it made possible. Cost: that of spin_lock. lock() must not be used
// once the lock may be retired: it would wait for ever.
#ifndef CONCUR_ATOMIC_RETIRABLE_LOCK_HPP
#define CONCUR_ATOMIC_RETIRABLE_LOCK_HPP

#include "atomic/backoff.hpp"
#include "atomic/spin_lock.hpp"
#include "base/config.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

class retirable_lock : public spin_lock {
 public:
  constexpr retirable_lock() noexcept = default;
  explicit constexpr retirable_lock(std::uint32_t retired_with) noexcept : spin_lock(retired_with) {}  // 0: free

  // Locks, and returns 0; or returns the number with which the lock was retired (K3).
  std::uint32_t lock_unless_retired() noexcept {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(362) ? std::memory_order_relaxed : std::memory_order_acquire;
    CONCUR_PLANTED auto order_of_end = CONCUR_MUTANT_IS(368) ? std::memory_order_relaxed : std::memory_order_acquire;
    for (unsigned round = 0;;) {
      std::uint32_t seen = 0;
      // acquire: pairs with unlock, and with replace_retired. On failure: pairs with retire.
      if (CONCUR_LIKELY(word_.compare_exchange_strong(seen, 1, order, order_of_end))) return 0;
      if (seen > 1) return seen;
      spin_wait(round);
    }
  }
  void retire(std::uint32_t number) noexcept {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(172) ? std::memory_order_relaxed : std::memory_order_release;
    word_.store(number, order);  // release: publishes what was done under the lock to who reads the number
  }
  // Lets a lock that is retired with `from` say `to` instead, 0 to be free again; false if it is not retired with that (K4).
  bool replace_retired(std::uint32_t from, std::uint32_t to) noexcept {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(398)   ? std::memory_order_release
                           : CONCUR_MUTANT_IS(399) ? std::memory_order_acquire
                                                   : std::memory_order_acq_rel;
    // acq_rel: sees what the retirement published, and publishes what its caller did. relaxed on failure: nothing is read.
    return word_.compare_exchange_strong(from, to, order, std::memory_order_relaxed);
  }
  std::uint32_t peek() const noexcept {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(369) ? std::memory_order_relaxed : std::memory_order_acquire;
    return word_.load(order);  // acquire: pairs with retire
  }
};

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
