// runtime/fetch_ahead.hpp - the next fibers' memory is asked for before they run.
//
// When many parked fibers are woken at once, each was last touched long ago: its block and the end of its stack are out of
// the cache, and the address of the stack's page is out of the processor's table of pages. Run one after another, each fiber
// waits for ten lines in turn. Asked for together, a few fibers ahead, they come while others end: of a million parked
// fibers each is woken, run and ended in a quarter of the time, and one that is cancelled, whose unwinding writes to another
// 2 KiB of its stack, in two thirds. The stack comes two fibers before its turn, since it waits for two lines, the first of them
// that of its page's entry in the table of pages; the block, which says where the stack ends, four fibers before that.
//
// Only who ends asks for them: it is how crowds go away, and a switch between fibers that go on is too short to do more in.
#ifndef CONCUR_RUNTIME_FETCH_AHEAD_HPP
#define CONCUR_RUNTIME_FETCH_AHEAD_HPP

#include "base/config.hpp"
#include "runtime/fiber.hpp"
#include "runtime/run_queue.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Of what a stack that stopped at `end` needs, lines of it upwards and downwards.
CONCUR_FORCE_INLINE void fetch_stack(const void* end, int up, int down) noexcept {
  constexpr int line = 64;
  const char* const at = static_cast<const char*>(end);
  for (int k = 0; k < up; ++k) __builtin_prefetch(at + k * line);
  for (int k = 1; k <= down; ++k) __builtin_prefetch(at - k * line, 1);
}

// Those in `queue` follow the one that is switched to in a moment. Another worker may have taken them meanwhile: what
// is read of them here may be wrong, goes nowhere, and a prefetch of a wrong address does nothing. Tools that look for such
// reads do without.
CONCUR_FORCE_INLINE void fetch_ahead([[maybe_unused]] const run_queue& queue) noexcept {
#if !CONCUR_TSAN && !defined(CONCUR_EXPLORE)
  constexpr int frames = 8;  // a receive from a channel, its caller, and what stands below that
  constexpr int unwinding = 28;
  const fiber* const later = queue.peek(6);
  if (CONCUR_LIKELY(later == nullptr)) return;  // no crowd
  for (int k = 0; k < 3; ++k) __builtin_prefetch(reinterpret_cast<const char*>(later) + 64 * k, 1);
  const fiber* const follower = queue.peek(2);  // its block was asked for four fibers ago
  if (follower == nullptr || !follower->is_started) return;
  fetch_stack(follower->ctx.sp, frames, 0);
  if (follower->result == outcome::cancelled) fetch_stack(follower->ctx.sp, 0, unwinding);
#endif
}

// For who has come by many ready fibers that waited long: the misses of all overlap, where each would wait for its own when it is
// switched to. Fewer lines of each, for all of them are to fit into the cache. The first tells whether they have stacks: if some
// are of the other kind, an address is asked for in vain.
CONCUR_FORCE_INLINE void fetch_stacks([[maybe_unused]] fiber* const* list, [[maybe_unused]] std::uint32_t n) noexcept {
#if !defined(CONCUR_EXPLORE)
  constexpr int frames = 3;
  if (!list[0]->is_started) return;
  for (fiber* const* one = list; one != list + n; ++one) fetch_stack((*one)->ctx.sp, frames, 0);
#endif
}

// For who hands out a stack that others have used and left long ago: what the fiber that begins there writes to first.
CONCUR_FORCE_INLINE void fetch_top([[maybe_unused]] const stack& one) noexcept {
#if !defined(CONCUR_EXPLORE)
  constexpr int frames = 8;
  fetch_stack(one.low + one.size, 0, frames);
#endif
}

// For who runs new fibers one after another on its own stack. The middle line of the block came with its link.
CONCUR_FORCE_INLINE void fetch_later([[maybe_unused]] const run_queue& queue) noexcept {
#if !CONCUR_TSAN && !defined(CONCUR_EXPLORE)
  const char* const later = reinterpret_cast<const char*>(queue.peek(4));
  if (CONCUR_LIKELY(later == nullptr)) return;
  __builtin_prefetch(later, 1);
  __builtin_prefetch(later + 128, 1);
#endif
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
