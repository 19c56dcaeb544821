// runtime/driven.hpp - what a runtime does otherwise while a driver decides (base/driver.hpp).
//
// Its workers are then threads of the driver's, which sleep and wake through it, and time is the driver's. All protocols
// stay what they are; only what they end in, a system call, is another. Two things are added, both to leave less to
// chance: which of the ready fibers a worker takes is asked, and every parking operation is a place where the fiber may be
// interrupted, as if its slice were over.
//
//   V1  Without a driver nothing of this file runs; each way into it is a branch beside something slow.
//   V2  In an ordinary build every fiber that stops goes through its worker's loop, where the driver is asked. With
//       CONCUR_EXPLORE it may also switch straight to the next one, as it would in production.
//   V3  A runtime's poller is opened when the first descriptor comes: most schedules have none, and a schedule takes less
//       time than opening it.
#ifndef CONCUR_RUNTIME_DRIVEN_HPP
#define CONCUR_RUNTIME_DRIVEN_HPP

#include "base/config.hpp"
#include "base/driver.hpp"
#include "runtime/scheduler.hpp"

#if CONCUR_BODIES

#  include <cerrno>
#  include <new>

CONCUR_NAMESPACE_BEGIN
namespace detail {

// The fiber is about to leave its worker.
CONCUR_INLINE void tell_departure(const worker& w, const fiber& f) noexcept {
  driver* const d = driver_or_null();
  if (d == nullptr || !d->is_telling()) return;
  const bool yields = w.how == departure::yielded || w.how == departure::swapped;
  d->tell(&w, &f, yields ? nullptr : to_string(f.reason.load(std::memory_order_relaxed)));  // relaxed: its own
}

// --- which fiber is next ---

// Any of the first few; 0 is the one that pop() would give.
CONCUR_INLINE fiber* run_queue::pop_and_stay_driven(driver& d) noexcept {
  constexpr std::uint32_t most = 8;
  std::uint64_t ids[most + 1];
  enter();
  const std::uint32_t head = head_.load(std::memory_order_relaxed);    // relaxed: inside (Q1)
  std::uint32_t count = tail_.load(std::memory_order_relaxed) - head;  // relaxed: inside
  fiber* const newest = recent_.load(std::memory_order_relaxed);       // relaxed: inside
  const bool is_plain = !pinned_.is_empty() || count + (newest != nullptr ? 1 : 0) < 2;
  if (count > most) count = most;
  fiber* f = nullptr;
  if (is_plain) {
    f = pop_inside();
    if (f != nullptr) d.choose_fiber(&f->id, 1);
  } else {
    const bool is_newest_first = newest != nullptr && recent_in_a_row_ < recent_in_a_row_limit();
    std::uint32_t n = 0;
    if (is_newest_first) ids[n++] = newest->id;
    for (std::uint32_t i = 0; i < count; ++i) ids[n++] = ring_[(head + i) % capacity]->id;
    if (newest != nullptr && !is_newest_first) ids[n++] = newest->id;
    std::uint32_t chosen = d.choose_fiber(ids, n);
    if (newest != nullptr && ids[chosen] == newest->id) {
      recent_in_a_row_ = is_newest_first ? recent_in_a_row_ + 1 : 0;
      recent_.store(nullptr, std::memory_order_relaxed);  // relaxed: inside
      f = newest;
    } else {
      if (is_newest_first) --chosen;
      recent_in_a_row_ = 0;
      f = ring_[(head + chosen) % capacity];
      for (std::uint32_t i = chosen; i > 0; --i) ring_[(head + i) % capacity] = ring_[(head + i - 1) % capacity];
      head_.store(head + 1, std::memory_order_relaxed);  // relaxed: inside
    }
  }
  return f;
}

CONCUR_INLINE fiber* run_queue::pop_driven(driver& d) noexcept {
  fiber* const f = pop_and_stay_driven(d);
  leave();
  return f;
}

CONCUR_INLINE fiber* scheduler::pop_own(worker* w) noexcept {
  driver* const d = driver_or_null();
  if (CONCUR_LIKELY(d == nullptr)) return w->queue.pop();
  fiber* const f = w->queue.pop_driven(*d);
  if (f != nullptr) tell_pick(*d, w, f);
  return f;
}

CONCUR_NOINLINE CONCUR_INLINE void scheduler::tell_pick(driver& d, worker* w, fiber* f) noexcept {
  if (d.is_telling()) d.tell(w, f, "");
}

// What pick_next asks first, with a driver. True: the worker is sent to its loop.
CONCUR_NOINLINE CONCUR_INLINE bool scheduler::is_due_driven(driver& d, worker* w) noexcept {
  w->budget = 1;
  if (w->picks_to_upkeep > 1) --w->picks_to_upkeep;
  if (w->picks_to_upkeep > 1 && d.choose(choice::slice_end, 2) == 0) return false;
  w->picks_to_upkeep = 0;
  return true;
}

// --- the poller ---

CONCUR_INLINE int scheduler::open_watcher() noexcept {
  if (is_watcher_open_) return 0;
  const int error = watcher.open();
  is_watcher_open_ = error == 0;
  return error;
}

CONCUR_INLINE void scheduler::wake_poller() noexcept {
  if (driver* d = driver_or_null())
    watcher.wake_driven(*d);
  else
    watcher.wake();
}

// In any order, and perhaps not all at once: what is held back comes with the next look.
CONCUR_INLINE int scheduler::give_out_driven(driver& d, poll_event* events, int count) noexcept {
  for (int i = 0; i + 1 < count; ++i) {
    const int other = i + static_cast<int>(d.choose(choice::readiness, static_cast<std::uint32_t>(count - i)));
    const poll_event one = events[i];
    events[i] = events[other];
    events[other] = one;
  }
  const int held = static_cast<int>(d.choose(choice::readiness, static_cast<std::uint32_t>(count)));
  while (held_event_count_ < held && held_event_count_ < held_events_max)
    held_events_[held_event_count_++] = events[--count];
  return count;
}

CONCUR_INLINE int scheduler::wait_events_driven(driver& d, poll_event* events, nanoseconds_t timeout_ns) noexcept {
  constexpr nanoseconds_t long_look_ns = 20'000'000;
  const nanoseconds_t until = timeout_ns < 0 ? never : saturating_add(d.now(), timeout_ns);
  if (held_event_count_ != 0) {
    int count = 0;
    while (held_event_count_ != 0) events[count++] = held_events_[--held_event_count_];
    return give_out_driven(d, events, count);
  }
  for (nanoseconds_t look_ns = 0;;) {
    const int count = is_watcher_open_ ? watcher.wait(events, events_at_once, look_ns) : 0;
    if (count > 0) return give_out_driven(d, events, count);
    if (timeout_ns == 0) return 0;
    const block_end end = watcher.block_driven(d, until, &watched_count);
    if (end == block_end::woken || end == block_end::timed_out) return 0;
    look_ns = end == block_end::look_long ? long_look_ns : 0;
  }
}

// --- threads ---

CONCUR_INLINE void scheduler::start_driven_threads(driver& d) {
  const unsigned count = worker_count > 1 ? worker_count + 1 : 1;  // the last one is the monitor
  void** handles = new (std::nothrow) void*[count];
  if (handles == nullptr) fail_system(ENOMEM, "concur::runtime: no memory for its threads");
  threads_ = handles;
  for (unsigned i = 0; i < count; ++i) {
    const auto of_worker = [](void* raw) {
      worker* w = static_cast<worker*>(raw);
      w->sched->run_worker(w);
    };
    const auto of_monitor = [](void* raw) {
      scheduler* s = static_cast<scheduler*>(raw);
      s->watch.run(*s);
    };
    handles[i] = i < worker_count ? d.start_thread(of_worker, &workers[i], "worker")
                                  : d.start_thread(of_monitor, this, "monitor");
    if (handles[i] == nullptr) {
      stop_threads();
      fail_system(EAGAIN, "concur::runtime: an exploration has no room for so many workers");
    }
    ++started_count_;
  }
  d.watch(this);
}

CONCUR_INLINE void scheduler::join_driven_threads(driver& d) noexcept {
  void** handles = static_cast<void**>(threads_);
  for (unsigned i = 0; i < started_count_; ++i) d.join_thread(handles[i]);
  delete[] handles;
  threads_ = nullptr;
  d.unwatch(this);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
