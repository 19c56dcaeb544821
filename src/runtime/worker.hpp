// runtime/worker.hpp - what one thread that runs fibers needs, and how code finds out on which worker it is.
//
// Everything a worker does often, it does with its own things: its queue, its free blocks and stacks, its timers, its
// counters. Others reach in at three places only: they rob the queue, they put pinned fibers into the inbox, they
// wake it.
//
//   T1  Which worker a thread is, is asked through this_worker() and nowhere else: it holds the library's only
//       thread_local. A compiler keeps the address of a thread_local over what it takes for a call, and after a
//       switch that address is another thread's. The function is never inlined, and its barrier keeps two calls of it
//       from being merged.
//   T2  A worker pointer found before a switch is wrong after it. The switch itself brings the right one back
//       (suspend.hpp).
//   T3  Counters have one writer, the worker; readers add them up and take what they see.
#ifndef CONCUR_RUNTIME_WORKER_HPP
#define CONCUR_RUNTIME_WORKER_HPP

#include <atomic>

#include "atomic/spin_lock.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/driver.hpp"
#include "machine/parker.hpp"
#include "runtime/fiber.hpp"
#include "runtime/fiber_pool.hpp"
#include "runtime/job_deque.hpp"
#include "runtime/pace.hpp"
#include "runtime/run_queue.hpp"
#include "runtime/seam.hpp"
#include "runtime/timers.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// How the fiber that just left is made known to others, by whoever runs next (F1).
enum class departure : unsigned char {
  none,      // nobody left: the worker's own loop did
  parked,    // it waits; then the site's lock, if any, is dropped
  selected,  // it waits at several sites; then all their locks are dropped
  yielded,   // it is ready, behind the others
  swapped,   // the same, and its worker's queue was not left since the next one was taken
  finished,  // its stack is free
};

// The locks of several sites, held by one party. The links lie on the stack of who holds them.
struct lock_chain {
  spin_lock* lock = nullptr;
  lock_chain* next = nullptr;
};

// The fiber that a worker runs; its worker's own, but that a fiber which forked there asks a former worker of its whether it
// runs there still (parallel_invoke.hpp). Written and asked from elsewhere as an atomic, without order: who asks was on that
// worker before, and sees that or something later. The worker reads it as plain memory, which a compiler need not read twice.
class running_fiber {
 public:
  running_fiber(std::nullptr_t = nullptr) noexcept {}
  running_fiber& operator=(fiber* f) noexcept {
    __atomic_store_n(&value_, f, __ATOMIC_RELAXED);
    return *this;
  }
  fiber* get() const noexcept { return value_; }
  operator fiber*() const noexcept { return value_; }
  fiber* operator->() const noexcept { return value_; }

  fiber* seen_from_elsewhere() const noexcept { return __atomic_load_n(&value_, __ATOMIC_RELAXED); }

 private:
  fiber* value_ = nullptr;
};

// A count that its worker adds to and others read.
class worker_counter {
 public:
  CONCUR_FORCE_INLINE void add(std::size_t n = 1) noexcept {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);  // relaxed: one writer (T3)
  }
  std::size_t get() const noexcept { return value_.load(std::memory_order_relaxed); }  // relaxed: a figure (T3)

 private:
  std::atomic<std::size_t> value_{0};  // std::atomic: a figure, and at every switch
};

struct alignas(cache_line_bytes) worker {
  explicit worker(std::uint64_t seed) noexcept : random(seed) {}

  // --- touched at every switch ---
  running_fiber current;  // null while the worker's own loop runs
  scheduler* sched = nullptr;
  departure how = departure::none;
  fiber* leaving = nullptr;
  std::uint32_t leaving_ticket = 0;
  spin_lock* leaving_lock = nullptr;
  lock_chain* leaving_locks = nullptr;  // of the fiber that selected
  timer_entry* leaving_timer = nullptr;
  stack* dead_stack = nullptr;                 // of the fiber that finished
  unsigned picks_to_upkeep = upkeep_interval;  // 0: due, in the loop
  fiber* stackless = nullptr;  // picked, but there was no stack for it; the loop tries again, or refuses it
  unsigned budget = operations_per_slice;
  exception_globals* exceptions = nullptr;  // this thread's (exception_state.hpp)
  worker_counter switches;

  run_queue queue;
  work_pace pace;
  job_deque jobs;

  // --- its own stores ---
  fiber_cache blocks;
  stack* free_stacks = nullptr;
  unsigned free_stack_count = 0;
  std::uint64_t next_id = 0;  // fibers are numbered in runs, so that numbering touches nothing shared
  std::uint64_t last_id = 0;
  timer_wheel timers;
  random_source random;
  context loop{};  // where the thread's own stack stopped
  stack_notice loop_notice{};
  nanoseconds_t last_upkeep_ns = 0;
  unsigned neighbour = 0;  // whom upkeep looks at next, and the mark at which it stood then
  std::uint32_t neighbour_mark = 0;

  worker_counter spawned, finished, steals, stolen_fibers, parks, polls;

  // --- where others reach in ---
  alignas(cache_line_bytes) atomic<fiber*> inbox{nullptr};  // pinned fibers that became ready elsewhere; a stack
  atomic<bool> may_take_recent{false};  // set by the monitor when `recent` lay for long, cleared by the robber
  parker idle_parker;
  worker* idle_next = nullptr;  // the idle list's links; under its lock
  worker* idle_prev = nullptr;
  bool is_idle = false;       // linked there; under its lock
  bool is_polling = false;    // it sleeps in the poller, not on its parker; written before it is linked
  bool is_searching = false;  // it holds one of the search tokens (idle.hpp)
  unsigned index = 0;

  // Whether a thief may have the fiber woken last, and there is one.
  bool offers_recent() const noexcept {
    return may_take_recent.load(std::memory_order_relaxed) && queue.has_recent();  // relaxed: a permission
  }

#if defined(CONCUR_EXPLORE)
  static constexpr unsigned driven_interval = 7;
#else
  static constexpr unsigned driven_interval = 1;  // while a driver decides (driven.hpp, V2)
#endif
  static constexpr unsigned upkeep_interval = 61;        // prime, so that it falls in step with no program
  static constexpr unsigned operations_per_slice = 256;  // then a fiber that never has to wait yields all the same
};

// Where the calling thread's worker is written (T1).
worker** this_worker_cell() noexcept;

// The calling thread's worker; null on a thread that is none.
inline worker* this_worker() noexcept { return *this_worker_cell(); }

// An address that is the calling thread's own. A driver's threads have the cell in common.
const void* thread_identity() noexcept;

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

// The address of the one thread_local, hidden from the optimiser (T1).
CONCUR_NOINLINE CONCUR_INLINE worker** this_worker_cell() noexcept {
  static thread_local worker* cell = nullptr;
  worker** address = &cell;
  asm volatile("" : "+r"(address) : : "memory");
  return address;
}

CONCUR_INLINE const void* thread_identity() noexcept {
  if (driver* d = driver_or_null()) return d->this_thread();
  return this_worker_cell();
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
