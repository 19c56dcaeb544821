// machine/block_memory.hpp - memory for many small blocks: in large pieces, and in large pages where there is much of it.
//
// A million blocks that are written, read and freed one after another are limited by what the processor does not have at
// hand: lines, and the addresses of pages. A page of 2 MiB is one such address instead of 512, is given by the kernel in one
// go instead of 512 faults of a microsecond and more, and lets the processor fetch ahead across what would be a border every
// sixteen blocks. Small programs do not pay for that: only pieces of a whole such page ask for it.
#ifndef CONCUR_MACHINE_BLOCK_MEMORY_HPP
#define CONCUR_MACHINE_BLOCK_MEMORY_HPP

#include <cstddef>

#include "base/config.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

inline constexpr std::size_t large_page_bytes = std::size_t{2} << 20;

// `bytes`, a power of two, aligned to that; null when there are none.
CONCUR_INLINE void* allocate_blocks(std::size_t bytes) noexcept;
CONCUR_INLINE void free_blocks(void* memory) noexcept;

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <cstdlib>

#  if defined(__linux__)
#    include <sys/mman.h>
#  endif

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void* allocate_blocks(std::size_t bytes) noexcept {
  void* const memory = std::aligned_alloc(bytes, bytes);
#  if defined(MADV_HUGEPAGE)
  // A wish: without such pages everything works as well.
  if (memory != nullptr && bytes >= large_page_bytes) ::madvise(memory, bytes, MADV_HUGEPAGE);
#  endif
  return memory;
}

CONCUR_INLINE void free_blocks(void* memory) noexcept { std::free(memory); }

}  // namespace detail
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES
#endif
