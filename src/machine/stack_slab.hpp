// machine/stack_slab.hpp - one mapping with room for many stacks, and where each of them lies in it.
//
// A stack is address space first and memory second: the kernel gives a page when it is touched. So nothing here touches
// one. What is known about a stack lies in a table at the head of the slab, 32 bytes for each.
//
//     slab   | header, table | guard | stack 0      | guard | stack 1      | guard | ...
//                                    ^ low     top ^
//
// A fiber that is parked has usually touched one page, the topmost. If all stacks began at the same offset in a page,
// they would all lie in the same few sets of the first-level cache, and a thousand parked fibers would evict each
// other. So the tops are coloured: stack i begins (i mod 16) * 128 bytes below the end of its last page. A little room
// is added to each, so that nobody gets less than was asked for.
//
// Rejected: MAP_GROWSDOWN (33 us and a mapping for each stack); malloc (touches pages, no guard); a header on the stack
// itself (an overflow of the neighbour destroys it, and giving back the pages of a stack loses it).
#ifndef CONCUR_MACHINE_STACK_SLAB_HPP
#define CONCUR_MACHINE_STACK_SLAB_HPP

#include <cstddef>

#include "base/config.hpp"
#include "machine/stack_guard.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// The smallest stack that a fiber of this library can be trusted with: throwing and catching takes 4 to 6 KiB in the
// unwinder, printf of a floating-point number as much, and a signal that arrives meanwhile pushes the registers (2.7
// KiB with AVX-512) and runs its handler on top. On 32-bit, pointers and registers are half of that.
inline constexpr std::size_t minimum_stack_bytes = sizeof(void*) >= 8 ? 16384 : 8192;

// One stack: the bytes from low up to low + size. Written by the pool; the holder may use `next` for lists of its own.
struct stack {
  stack* next;
  char* low;
  std::size_t size;
  guard_kind guarded_by;
};

// How stacks of one size are laid out. All zero but page_bytes when no address space could hold such a stack.
struct stack_layout {
  std::size_t page_bytes;
  std::size_t usable_bytes;  // as asked for, rounded up to pages
  std::size_t guard_bytes;
  std::size_t stack_bytes;   // usable bytes and room for the colour
  std::size_t stride_bytes;  // from one stack to the next
};

// The head of a slab. Everything in it is written before the slab is published, but for the table's entries, each of
// which is written when its stack is carved.
struct stack_slab {
  stack_slab* next;
  char* first_guard;
  stack* table;
  std::size_t stacks;
  std::size_t bytes;
};

CONCUR_INLINE stack_layout layout_of_stacks(std::size_t usable_bytes) noexcept;

// The largest slab worth asking for: address space is plenty on 64-bit, and dear on 32-bit.
inline constexpr std::size_t slab_bytes_most = std::size_t{1} << (sizeof(void*) >= 8 ? 35 : 24);
inline constexpr std::size_t slab_stacks_most = 65536;

// A new slab, or nullptr when there is no address space for it.
CONCUR_INLINE stack_slab* map_slab(const stack_layout& layout, std::size_t stacks) noexcept;
CONCUR_INLINE void unmap_slab(stack_slab* slab) noexcept;

// Writes the table's entry for a stack that has none yet. `serial` decides its colour.
CONCUR_INLINE stack* carve_stack(const stack_layout& layout, stack_slab& slab, std::size_t index,
                                 std::size_t serial) noexcept;

// Gives the pages of an unused stack back to the kernel, but for so many bytes at the top.
CONCUR_INLINE void give_back_pages(const stack_layout& layout, const stack& one, std::size_t bytes_kept) noexcept;

enum class slab_place { outside, stack, guard };

// What lies at this address, and which stack it belongs to. Reads only what never changes.
inline slab_place place_in_slab(const stack_layout& layout, const stack_slab& slab, const void* address,
                                const stack** which) noexcept {
  const auto wanted = reinterpret_cast<std::uintptr_t>(address);
  const auto first = reinterpret_cast<std::uintptr_t>(slab.first_guard);
  if (wanted < first || wanted - first >= slab.stacks * layout.stride_bytes) return slab_place::outside;
  *which = slab.table + (wanted - first) / layout.stride_bytes;
  return (wanted - first) % layout.stride_bytes < layout.guard_bytes ? slab_place::guard : slab_place::stack;
}

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <sys/mman.h>
#  include <unistd.h>

#  include <new>

CONCUR_NAMESPACE_BEGIN
namespace detail {

// On 64-bit the guard may as well be wide enough for a frame with a few arrays in it; address space costs nothing
// there.
inline constexpr std::size_t wanted_guard_bytes = sizeof(void*) >= 8 ? 65536 : 4096;

inline constexpr std::size_t bytes_left_to_others = 4 * 1024 * 1024;
inline constexpr std::size_t stack_colours = 16;
inline constexpr std::size_t stack_colour_bytes = 128;

inline std::size_t round_up_bytes(std::size_t bytes, std::size_t unit) noexcept {
  return (bytes + unit - 1) / unit * unit;
}

CONCUR_INLINE stack_layout layout_of_stacks(std::size_t usable_bytes) noexcept {
  const long answer = ::sysconf(_SC_PAGESIZE);
  stack_layout layout{};
  layout.page_bytes = answer > 0 ? static_cast<std::size_t>(answer) : 4096;
  if (usable_bytes > ~std::size_t{0} / 4) return layout;  // the sums below would wrap
  layout.usable_bytes = round_up_bytes(usable_bytes, layout.page_bytes);
  layout.guard_bytes = round_up_bytes(wanted_guard_bytes, layout.page_bytes);
  layout.stack_bytes =
      round_up_bytes(layout.usable_bytes + (stack_colours - 1) * stack_colour_bytes, layout.page_bytes);
  layout.stride_bytes = layout.guard_bytes + layout.stack_bytes;
  return layout;
}

CONCUR_INLINE stack_slab* map_slab(const stack_layout& layout, std::size_t stacks) noexcept {
  const std::size_t table_offset = round_up_bytes(sizeof(stack_slab), alignof(stack));
  const std::size_t head_bytes = round_up_bytes(table_offset + stacks * sizeof(stack), layout.page_bytes);
  if (stacks > (~std::size_t{0} / 2 - head_bytes) / layout.stride_bytes) return nullptr;
  const std::size_t bytes = head_bytes + stacks * layout.stride_bytes;

  int flags = MAP_PRIVATE | MAP_ANON;
#  if defined(MAP_NORESERVE)
  flags |= MAP_NORESERVE;
#  endif
#  if defined(__linux__) || defined(__OpenBSD__)
  flags |= MAP_STACK;  // OpenBSD runs on nothing else; FreeBSD means a mapping that grows by it
#  endif
  // Stacks must not take the last of the address space: whoever is told that there are no more needs memory to say so.
  void* const base = ::mmap(nullptr, bytes + bytes_left_to_others, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (base == MAP_FAILED) return nullptr;
  ::munmap(static_cast<char*>(base) + bytes, bytes_left_to_others);
#  if defined(MADV_NOHUGEPAGE)
  ::madvise(base, bytes, MADV_NOHUGEPAGE);  // or the kernel may back the first touch of a stack with 2 MiB
#  endif
  char* const bytes_of_slab = static_cast<char*>(base);
  void* const table = bytes_of_slab + table_offset;
  return new (base) stack_slab{nullptr, bytes_of_slab + head_bytes, static_cast<stack*>(table), stacks, bytes};
}

CONCUR_INLINE void unmap_slab(stack_slab* slab) noexcept { ::munmap(static_cast<void*>(slab), slab->bytes); }

CONCUR_INLINE stack* carve_stack(const stack_layout& layout, stack_slab& slab, std::size_t index,
                                 std::size_t serial) noexcept {
  char* const low = slab.first_guard + index * layout.stride_bytes + layout.guard_bytes;
  const std::size_t colour = serial % stack_colours * stack_colour_bytes;
  void* const entry = slab.table + index;
  return new (entry) stack{nullptr, low, layout.stack_bytes - colour, guard_kind::none_yet};
}

CONCUR_INLINE void give_back_pages(const stack_layout& layout, const stack& one, std::size_t bytes_kept) noexcept {
  ::madvise(static_cast<void*>(one.low), layout.stack_bytes - bytes_kept, MADV_DONTNEED);
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES

#endif
