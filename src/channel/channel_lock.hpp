// channel/channel_lock.hpp - a lock that costs a worker nothing as long as it is the only one that takes it.
//
// Most channels are used from one worker for long: who wakes whom runs next on the same worker. A compare-exchange for
// each operation is then the dearest part of it, and protects from nobody. So a lock that one worker took many times in a
// row takes that worker for its favourite, who from then on only marks itself inside, with a plain store, and looks
// whether it is the favourite still. Anybody else takes the word, ends that, makes every thread pass a fence (fence.hpp),
// and waits until the favourite is outside:
//
//     favourite                         anybody else
//     inside_ = 1                       word_: 0 -> 1 by compare-exchange
//     light_fence                       favourite_ = nobody
//     favourite_ still me ?             heavy_fence
//       no: inside_ = 0, as anybody     wait until inside_ is 0
//
//   K1  Who holds the word while there is no favourite, or is the favourite and inside, has the lock.
//   K2  Unlocking is one plain release store into whichever of the two was taken. So a fiber may leave it to who runs
//       after it (suspend.hpp), which is on the same worker.
//   K3  A worker becomes the favourite as it holds the word, and loses that only to a holder of the word.
//   K4  Inside lasts as long as with any spin lock: nothing parks there, and nobody on the favourite's worker takes the
//       lock twice.
//   K5  A worker has then paid about as much for its exchanges as the heavy fence costs that may follow; each such end
//       doubles how many it takes. So nothing is lost that was not saved before, or at most that once more.
//   K6  An address of a worker that is gone may be a worker's again: then that one is the favourite, and alone so.
//
// Without membarrier there are no favourites, for their fence would cost as much as the exchange. Saves, on a worker that
// has the channel for itself, every read-modify-write: 18 cycles an operation.
//
// Sources: K. Kawachiya, A. Koseki, T. Onodera, "Lock reservation", OOPSLA 2002; the fence is that of Dice, Huang and Yang,
// "Asymmetric Dekker Synchronization" (2001).
#ifndef CONCUR_CHANNEL_CHANNEL_LOCK_HPP
#define CONCUR_CHANNEL_CHANNEL_LOCK_HPP

#include "atomic/backoff.hpp"
#include "atomic/spin_lock.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"
#include "machine/fence.hpp"
#include "runtime/worker.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

class channel_lock {
 public:
  channel_lock() noexcept = default;
  channel_lock(const channel_lock&) = delete;
  channel_lock& operator=(const channel_lock&) = delete;

  // w: the calling thread's worker, if it has one. Returns what is to be unlocked (K2).
  CONCUR_FORCE_INLINE spin_lock& lock(worker* w) noexcept {
    // relaxed: only w itself makes w the favourite.
    if (CONCUR_LIKELY(w != nullptr && favourite_.load(std::memory_order_relaxed) == w)) {
      inside_.mark();
      // seq_cst: holds the compiler; the heavy fence holds the core. Without membarrier there is no favourite.
      std::atomic_signal_fence(std::memory_order_seq_cst);
      // relaxed: behind the fence.
      if (CONCUR_LIKELY(favourite_.load(std::memory_order_relaxed) == w) || CONCUR_MUTANT_IS(420)) return inside_;
      inside_.unlock();
    }
    return lock_word(w);
  }

 private:
  class mark_of_favourite : public spin_lock {
   public:
    CONCUR_FORCE_INLINE void mark() noexcept { word_.store(1, std::memory_order_relaxed); }  // relaxed: see lock()
    bool is_set() const noexcept {
      return word_.load(std::memory_order_acquire) != 0;  // acquire: pairs with the favourite's unlock
    }
  };

#if defined(CONCUR_EXPLORE)
  static constexpr std::uint32_t first_limit = 2;  // so that it happens
#else
  static constexpr std::uint32_t first_limit = 2048;
#endif
  static constexpr std::uint32_t last_limit = 1U << 30;

  spin_lock& lock_word(worker* w) noexcept;
  void end_favourite(worker* w) noexcept;

  mark_of_favourite inside_;
  spin_lock word_;
  atomic<worker*> favourite_{nullptr};
  // Under the word: who took it last, how often in a row, and how often it takes.
  worker* last_ = nullptr;
  std::uint32_t in_a_row_ = 0;
  std::uint32_t limit_ = first_limit;
};

// Holds it for a scope.
class channel_lock_scope {
 public:
  channel_lock_scope(channel_lock& lock, worker* w) noexcept : held_(lock.lock(w)) {}
  ~channel_lock_scope() { held_.unlock(); }
  channel_lock_scope(const channel_lock_scope&) = delete;
  channel_lock_scope& operator=(const channel_lock_scope&) = delete;

 private:
  spin_lock& held_;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_NOINLINE CONCUR_INLINE spin_lock& channel_lock::lock_word(worker* w) noexcept {
  word_.lock();
  // relaxed: under the word (K3).
  if (CONCUR_UNLIKELY(favourite_.load(std::memory_order_relaxed) != nullptr)) {
    end_favourite(w);
  } else if (last_ != w) {
    last_ = w;
    in_a_row_ = 0;
  } else if (CONCUR_UNLIKELY(++in_a_row_ == limit_) && w != nullptr) {
    // relaxed: the process's mode was settled before the worker began.
    if (driver_or_null() != nullptr || process_fence_mode.load(std::memory_order_relaxed) == fence_mode::asymmetric)
      favourite_.store(w, std::memory_order_relaxed);  // relaxed: published by the unlock of the word
  }
  return word_;
}

CONCUR_NOINLINE CONCUR_INLINE void channel_lock::end_favourite(worker* w) noexcept {
  favourite_.store(nullptr, std::memory_order_relaxed);  // relaxed: the fence orders it
  if (!CONCUR_MUTANT_IS(421)) heavy_fence();
  for (unsigned round = 0; inside_.is_set() && !CONCUR_MUTANT_IS(422);) spin_wait(round);
  last_ = w;
  in_a_row_ = 0;
  if (limit_ < last_limit) limit_ *= 2;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
