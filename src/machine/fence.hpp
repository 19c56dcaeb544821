// machine/fence.hpp - a full fence of which the rare side pays all.
//
// Two threads that each write a word and then read the other's need a full fence on both sides, or both may read the
// old value (the store-buffering pattern). Where one side runs a hundred million times a second and the other a
// thousand times, the kernel can make the rare one pay for both: membarrier(PRIVATE_EXPEDITED) makes every running
// thread of this process pass through a full fence. The frequent side then needs to keep only its compiler from
// reordering.
//
//     frequent side                         rare side
//     store mine; light_fence(); load theirs    store mine; heavy_fence(); load theirs
//
//   A1  At least one of the two loads sees the other side's store.
//
// A heavy fence costs 0.4 us with one running thread and about 10 us with two on the machines this was measured on; a
// light one costs nothing. Where membarrier is missing (kernels before 4.14, sandboxes, other systems) both are
// ordinary full fences. Under ThreadSanitizer too, which knows nothing of membarrier.
#ifndef CONCUR_MACHINE_FENCE_HPP
#define CONCUR_MACHINE_FENCE_HPP

#include "atomic/word.hpp"
#include "base/config.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

enum class fence_mode : std::uint32_t { unknown = 0, symmetric = 1, asymmetric = 2 };

// unknown until register_asymmetric_fence has run once in this process; symmetric and asymmetric are final.
inline atomic<fence_mode> process_fence_mode{fence_mode::unknown};

// Asks the kernel. Called when the first runtime starts, before any fence is used; harmless when repeated.
CONCUR_INLINE void register_asymmetric_fence() noexcept;
CONCUR_INLINE void heavy_fence() noexcept;

CONCUR_FORCE_INLINE void light_fence() noexcept {
#if defined(CONCUR_EXPLORE)
  if (driver_or_null() != nullptr) return;  // the asymmetric form is explored: nothing here, all of it in heavy_fence
#endif
#if CONCUR_TSAN || !defined(__linux__)
  thread_fence(std::memory_order_seq_cst);  // seq_cst: this side of A1, where the other is no membarrier
#else
  // relaxed: written once, before the first worker starts.
  if (CONCUR_LIKELY(process_fence_mode.load(std::memory_order_relaxed) == fence_mode::asymmetric)) {
    std::atomic_signal_fence(
        std::memory_order_seq_cst);  // seq_cst: holds the compiler to A1; heavy_fence holds the core
  } else {
    thread_fence(std::memory_order_seq_cst);  // seq_cst: this side of A1
  }
#endif
}

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  if defined(__linux__)
#    include <sys/syscall.h>
#    include <unistd.h>
#  endif

CONCUR_NAMESPACE_BEGIN
namespace detail {

#  if defined(__linux__) && defined(SYS_membarrier) && !CONCUR_TSAN
// From the kernel's membarrier.h, which old cross toolchains do not carry.
inline constexpr int membarrier_private_expedited = 1 << 3;
inline constexpr int membarrier_register_private_expedited = 1 << 4;

CONCUR_INLINE void register_asymmetric_fence() noexcept {
#    if defined(CONCUR_EXPLORE)
  if (driver_or_null() != nullptr) return;  // what is done once in a process is no part of a schedule
#    endif
  // relaxed: the same answer for whoever asks; threads started later see it by their creation.
  if (process_fence_mode.load(std::memory_order_relaxed) != fence_mode::unknown) return;
  const bool registered = syscall(SYS_membarrier, membarrier_register_private_expedited, 0, 0) == 0 &&
                          syscall(SYS_membarrier, membarrier_private_expedited, 0, 0) == 0;
  // relaxed: see above.
  process_fence_mode.store(registered ? fence_mode::asymmetric : fence_mode::symmetric, std::memory_order_relaxed);
}

CONCUR_INLINE void heavy_fence() noexcept {
  if (CONCUR_MUTANT_IS(40)) return;
#    if defined(CONCUR_EXPLORE)
  if (driver* d = driver_or_null()) return d->fence_all();
#    endif
  // relaxed: see register_asymmetric_fence.
  if (process_fence_mode.load(std::memory_order_relaxed) == fence_mode::asymmetric &&
      syscall(SYS_membarrier, membarrier_private_expedited, 0, 0) == 0)
    return;
  thread_fence(std::memory_order_seq_cst);  // seq_cst: the rare side of A1, with light_fence a full one too
}
#  else
CONCUR_INLINE void register_asymmetric_fence() noexcept {
  // relaxed: the value never changes again and orders nothing.
  process_fence_mode.store(fence_mode::symmetric, std::memory_order_relaxed);
}
CONCUR_INLINE void heavy_fence() noexcept {
#    if defined(CONCUR_EXPLORE)
  if (driver* d = driver_or_null()) return d->fence_all();
#    endif
  thread_fence(std::memory_order_seq_cst);  // seq_cst: the rare side of A1
}
#  endif

}  // namespace detail
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES
#endif
