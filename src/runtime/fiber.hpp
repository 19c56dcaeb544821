// runtime/fiber.hpp - a fiber's control block, and the states it goes through.
//
// A fiber is three things of different life: the block here (from `go` until its future is dropped), a stack (from
// its first run until its function returns), and a closure (from `go` until it was called). The block and a small
// closure are one allocation; the stack is borrowed late and given back early, so that a million short fibers share a
// handful of hot stacks.
//
//     state      on which queue           next                by
//     idle       the pool                 ready               go
//     ready      exactly one run queue    running             the worker that picks it
//     running    none; worker.current     ready               yield (queued by whoever runs next, F1)
//                                         parked              park  (published by whoever runs next, F1)
//                                         finished            its function returned
//     parked     the site's, by waiters   ready               the one claimer (waiter.hpp, W1)
//     finished   none                     idle                the last of fiber and future to let go
//
//   F1  Nobody can find a fiber that still uses its registers: it is queued or published only after the switch away
//       from it.
//   F2  A fiber's block is never unmapped while its pool lives, and its wait word never goes back: a stale claim fails.
//   F3  `home` is set while the fiber must run on one worker only; it is then never on a queue that thieves reach.
#ifndef CONCUR_RUNTIME_FIBER_HPP
#define CONCUR_RUNTIME_FIBER_HPP

#include "atomic/spin_lock.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"
#include "machine/context.hpp"
#include "machine/exception_state.hpp"
#include "machine/sanitizer.hpp"
#include "machine/stack.hpp"
#include "runtime/scope.hpp"
#include "runtime/waiter.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct worker;
class scheduler;
struct fiber_pool;
struct local_table;

enum class fiber_state : unsigned char { idle, ready, running, parked, finished };

inline constexpr std::size_t fiber_name_bytes = 24;

// Room for a small closure with its result.
inline constexpr std::size_t fiber_room_bytes = 96;

// A block, in whole cache lines, by how often each is needed: the first by every switch, the second by who begins or ends, the
// third by a closure of up to 64 bytes. A fiber that runs to its end without ado touches these three, which is what a million
// of them cost.
struct alignas(cache_line_bytes) fiber : party {
  fiber() noexcept : party(party_kind::fiber) {}

  std::atomic<fiber_state> state{fiber_state::idle};   // std::atomic: for dumps, and no protocol's
  std::atomic<wait_reason> reason{wait_reason::none};  // std::atomic: as above
  // The present wait is not to be cancelled; written before the wait word, read behind it.
  atomic<bool> is_deaf{false};
  // The flag of its innermost scope. Here, so that who publishes a wait may look at it although the fiber may be elsewhere by
  // then, and its scopes gone. Written by itself as it enters and leaves, and by who cancels; under scope_lock.
  atomic<bool> is_cancelled{false};
  bool is_started = false;         // it owns a stack, and ctx says where to go on
  unsigned char shield_depth = 0;  // above 0: cancellation is not raised
  std::uint16_t pin_depth = 0;     // how many pinned scopes it is in
  unsigned char unwind_base = 0;   // exceptions that were on their way when the current scope was entered
  bool has_belongings = false;     // a name or locals: to be freed with it
  context ctx{};
  exception_state exceptions{};  // what the C++ runtime keeps per thread about exceptions, while it is not running

  worker* home = nullptr;                 // F3
  fiber* next = nullptr;                  // the run queue's or the pool's link
  scheduler* owner = nullptr;             // whose queues it goes to; gone with its runtime
  atomic<scope*> current_scope{nullptr};  // written by the fiber itself, or before it is ready
  stack* memory = nullptr;
  // Calls the closure and keeps what came of it; with an errno instead of 0, only notes that there was no stack for it.
  // Returns the calling thread's worker.
  worker* (*entry)(fiber*, int refusal) noexcept = nullptr;
  void* payload = nullptr;  // closure and result: in `room` when small, on the heap when not
  std::uint64_t id = 0;

  alignas(16) unsigned char room[fiber_room_bytes];

  char* name = nullptr;              // null, or fiber_name_bytes of its own
  local_table* locals = nullptr;     // the values of fiber_locals that it has used; null: none
  spin_lock scope_lock;              // scope.hpp
  std::uint32_t cancelled_wait = 0;  // the last one that a cancellation ended; under scope_lock (serve.hpp, V1)
#if CONCUR_ASAN || CONCUR_TSAN
  stack_notice* notice = nullptr;  // at the top of its stack, and gone with it
#endif

  // relaxed: the state is for dumps and checks; queues and the wait word order everything.
  void set_state(fiber_state s) noexcept {
#if defined(CONCUR_EXPLORE)
    if (driver* d = driver_or_null())
      d->expect(may_follow(state.load(std::memory_order_relaxed), s),
                "a fiber was made ready, or run, twice");  // relaxed
#endif
    state.store(s, std::memory_order_relaxed);  // relaxed: as above
  }
#if defined(CONCUR_EXPLORE)
  // The table at the top.
  static bool may_follow(fiber_state before, fiber_state after) noexcept {
    switch (after) {
      case fiber_state::idle:
        return before != fiber_state::parked;
      case fiber_state::ready:
        return before != fiber_state::ready && before != fiber_state::finished;
      case fiber_state::running:
        return before == fiber_state::ready;
      default:
        return before == fiber_state::running;
    }
  }
#endif
  void set_reason(wait_reason r) noexcept { reason.store(r, std::memory_order_relaxed); }  // relaxed: as above
  // For the fiber itself, for who has claimed its wait, and under scope_lock.
  scope* innermost() const noexcept {
    return current_scope.load(std::memory_order_relaxed);  // relaxed: see above
  }
  bool should_cancel() const noexcept {
    // relaxed: a cancellation that this look misses claims the wait word instead (suspend.hpp, S5).
    // Whose it is, know_cancelled_scopes lets it see.
    return CONCUR_UNLIKELY(is_cancelled.load(std::memory_order_relaxed)) && shield_depth == 0;
  }
};

// Whether an exception is on its way up the stopped fiber's stack, to beyond its current scope: destructors that run for
// it may park, and are not cancelled. One that opens a scope is cancelled by that scope's own deadline, say.
inline bool is_unwinding([[maybe_unused]] const fiber& f) noexcept {
#if CONCUR_EXCEPTIONS
  return f.exceptions.uncaught > f.unwind_base;
#else
  return false;
#endif
}

// For who walks along a list of blocks, and has just come from `here` to `next`. When these two are neighbours, so most likely
// is the one that comes in four steps, and lines of it are asked for; the list itself would tell where it is only after a wait
// for memory at each step. Elsewhere a guess would be wrong, and costs what it drives out of the cache.
CONCUR_FORCE_INLINE void fetch_along(const fiber* here, const fiber* next, int first, int last) noexcept {
  const std::uintptr_t step = reinterpret_cast<std::uintptr_t>(next) - reinterpret_cast<std::uintptr_t>(here);
  if (((step + sizeof(fiber)) & ~(2 * sizeof(fiber))) != 0) return;
  const char* const guess = reinterpret_cast<const char*>(reinterpret_cast<std::uintptr_t>(next) + 3 * step);
  for (int k = first; k <= last; ++k) __builtin_prefetch(guess + 64 * k, 1);
}

#if CONCUR_ASAN || CONCUR_TSAN
inline stack_notice& notice_of(fiber* f) noexcept { return *f->notice; }
#else
inline stack_notice no_notice{};  // an empty class: never written
inline stack_notice& notice_of(fiber*) noexcept { return no_notice; }
#endif

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
