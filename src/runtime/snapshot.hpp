// runtime/snapshot.hpp - figures about a running runtime, and a list of its fibers.
//
// Both are read without stopping anybody: counters have one writer each and are added up here, states are looked at
// as they pass. Figures of one snapshot may therefore be some nanoseconds apart; with all workers idle they are exact.
#ifndef CONCUR_RUNTIME_SNAPSHOT_HPP
#define CONCUR_RUNTIME_SNAPSHOT_HPP

#include <cstdio>

#include "base/config.hpp"
#include "runtime/scheduler.hpp"

CONCUR_NAMESPACE_BEGIN

enum class stack_guard : unsigned char {
  none_yet,  // no stack has been made
  madvise,   // guard pages without a mapping of their own (Linux 6.13 and later)
  mprotect,  // guard pages that cost a mapping each
  canary,    // no guard page: the lowest words are checked when a stack comes back
};

struct stats {
  unsigned workers = 0;
  unsigned idle_workers = 0;
  std::size_t fibers_live = 0;  // spawned and not finished
  std::size_t fibers_spawned = 0;
  std::size_t fibers_finished = 0;
  std::size_t switches = 0;  // times a worker chose what to run next
  std::size_t steals = 0;    // times one worker took fibers from another, and how many it took
  std::size_t fibers_stolen = 0;
  std::size_t sleeps = 0;       // times a worker found nothing to do
  std::size_t timers = 0;       // deadlines of parked fibers that are set
  std::size_t descriptors = 0;  // watched by the poller
  std::size_t stacks_live = 0;  // in use, or kept by a worker for the next fiber
  std::size_t stacks_made = 0;
  std::size_t stack_bytes_reserved = 0;  // address space, not memory
  stack_guard guard = stack_guard::none_yet;
};

// What ended runtimes of this process left behind, and how many are alive. A test asks that all of it is 0.
struct leftovers {
  std::size_t runtimes = 0;
  std::size_t fibers = 0;
  std::size_t timers = 0;
  std::size_t descriptors = 0;
  std::size_t stacks = 0;
};
CONCUR_INLINE leftovers process_leftovers() noexcept;

namespace detail {
CONCUR_INLINE stats take_snapshot(const scheduler& s) noexcept;
CONCUR_INLINE void dump_fibers(scheduler& s, std::FILE* out) noexcept;
}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE stats take_snapshot(const scheduler& s) noexcept {
  stats all;
  all.workers = s.worker_count;
  all.idle_workers = s.idle.count();
  for (unsigned i = 0; i < s.worker_count; ++i) all.fibers_finished += s.workers[i].finished.get();
  all.fibers_spawned = s.foreign_spawned.load(std::memory_order_relaxed);  // relaxed: a figure
  for (unsigned i = 0; i < s.worker_count; ++i) {
    const worker& w = s.workers[i];
    all.fibers_spawned += w.spawned.get();
    all.switches += w.switches.get();
    all.steals += w.steals.get();
    all.fibers_stolen += w.stolen_fibers.get();
    all.sleeps += w.parks.get();
    all.timers += w.timers.size();
  }
  all.fibers_live = all.fibers_spawned - all.fibers_finished;
  all.descriptors = s.watched_count.load(std::memory_order_relaxed);  // relaxed: a figure
  all.stacks_live = s.stacks.live_count();
  all.stacks_made = s.stacks.mapped_count();
  all.stack_bytes_reserved = s.stacks.reserved_bytes();
  all.guard = static_cast<stack_guard>(s.stacks.guard());
  return all;
}

inline const char* to_string(fiber_state state) noexcept {
  switch (state) {
    case fiber_state::idle:
      return "idle";
    case fiber_state::ready:
      return "ready";
    case fiber_state::running:
      return "running";
    case fiber_state::parked:
      return "parked";
    case fiber_state::finished:
      return "finished";
  }
  return "unknown";
}

CONCUR_INLINE void dump_fibers(scheduler& s, std::FILE* out) noexcept {
  const stats all = take_snapshot(s);
  std::fprintf(out, "concur: %zu fibers on %u workers (%u idle)\n", all.fibers_live, all.workers, all.idle_workers);
  s.blocks->walk(
      [](fiber* f, void* file) {
        // relaxed, both: a look in passing; the fiber may be elsewhere when the line is read.
        const fiber_state state = f->state.load(std::memory_order_relaxed);
        const wait_reason reason = f->reason.load(std::memory_order_relaxed);  // relaxed: as above
        if (state == fiber_state::idle || state == fiber_state::finished) return;
        std::fprintf(static_cast<std::FILE*>(file), "  fiber %llu %s%s\n", static_cast<unsigned long long>(f->id),
                     to_string(state),
                     state == fiber_state::parked ? (std::string(" in ") + to_string(reason)).c_str() : "");
      },
      out);
}

}  // namespace detail

CONCUR_INLINE leftovers process_leftovers() noexcept {
  // relaxed, all: figures, asked when nothing is under way.
  leftovers all;
  all.runtimes = detail::process_ledger.runtimes.load(std::memory_order_relaxed);
  all.fibers = detail::process_ledger.fibers.load(std::memory_order_relaxed);            // relaxed: as above
  all.timers = detail::process_ledger.timers.load(std::memory_order_relaxed);            // relaxed: as above
  all.descriptors = detail::process_ledger.descriptors.load(std::memory_order_relaxed);  // relaxed: as above
  all.stacks = detail::process_ledger.stacks.load(std::memory_order_relaxed);            // relaxed: as above
  return all;
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
