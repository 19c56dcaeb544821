// observe/look.hpp - what an exploration sees of a runtime: what is wrong with it, and what its fibers do.
//
// All of it is asked while no thread can run, so nothing is locked and nothing moves.
#ifndef CONCUR_OBSERVE_LOOK_HPP
#define CONCUR_OBSERVE_LOOK_HPP

#include <string>

#include "base/config.hpp"
#include "runtime/scheduler.hpp"

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

// No thread can run. Null: nothing is wrong.
CONCUR_INLINE const char* what_is_wrong(const scheduler& s) noexcept {
  // relaxed: nobody else runs.
  if (s.idle.count() != s.worker_count || s.is_stopping.load(std::memory_order_relaxed)) return nullptr;
  for (unsigned i = 0; i < s.worker_count; ++i) {
    if (s.has_work_for(&s.workers[i], false)) return "every worker sleeps, and a fiber is ready";
  }
  return nullptr;
}

CONCUR_INLINE std::string name_of(const fiber& f) {
  std::string text = "fiber " + std::to_string(f.id);
  if (f.name != nullptr) text += " \"" + std::string(f.name) + "\"";
  return text;
}

// What driver::tell says. waits_for: null when it lets others run, empty when it begins to run.
CONCUR_INLINE std::string told_of(const worker& w, const fiber& f, const char* waits_for) {
  std::string text = "worker " + std::to_string(w.index) + ": " + name_of(f);
  if (waits_for == nullptr) return text + " lets others run";
  return *waits_for == '\0' ? text + " runs" : text + " waits: " + waits_for;
}

// A line for each worker's timers, and for each fiber that has not ended.
CONCUR_INLINE void describe(const scheduler& s, std::int64_t now, std::string& text) {
  for (unsigned i = 0; i < s.worker_count; ++i) {
    const timer_wheel& timers = s.workers[i].timers;
    if (timers.size() == 0) continue;
    text += "\n  worker " + std::to_string(i) + " has " + std::to_string(timers.size()) + " timers, the next " +
            std::to_string((timers.next_ns() - now) / 1000) + " us from now";
  }
  s.blocks->walk_stopped(
      [](fiber* f, void* sink) {
        const fiber_state state = f->state.load(std::memory_order_relaxed);  // relaxed: nobody else runs
        if (state == fiber_state::idle || state == fiber_state::finished) return;
        std::string line = "\n  " + name_of(*f);
        if (state == fiber_state::parked)
          line += std::string(" waits: ") + to_string(f->reason.load(std::memory_order_relaxed));  // relaxed: as above
        else
          line += state == fiber_state::ready ? " is ready" : " runs";
        *static_cast<std::string*>(sink) += line;
      },
      &text);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
