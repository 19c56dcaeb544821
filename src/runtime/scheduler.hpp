// runtime/scheduler.hpp - the workers of one runtime, and the few ways a fiber comes to be ready.
//
// A fiber becomes ready by being spawned, by its wait being ended, or by yielding, and on three kinds of thread: on a
// worker of its own runtime, on a worker of another, or on a thread that is none. All of that comes together here,
// and each ready fiber ends on exactly one queue:
//
//     who makes it ready           not pinned                              pinned to worker h
//     a worker of its runtime      that worker's own queue                 h's pinned list if it is h, else h's inbox
//     any other thread             the shared queue                        h's inbox
//
//   R1  Work that only others can run (shared queue, an inbox, a full ring's surplus) is announced by the sleep
//       protocol in idle.hpp: never lost. Work on a worker's own queue needs no announcement: its owner is awake and
//       looks there before it sleeps; waking another worker for it is only a matter of speed.
//   R2  The shared queue gets a look every upkeep_interval picks, so that a busy local queue cannot starve it. The surplus
//       of full rings comes back newest first, and grows old lest it starve (shared_queue.hpp).
//   R3  No shared counter is touched by spawn or exit: fibers alive are the sum of `spawned` less the sum of
//       `finished`, exact when all workers are idle, which is when it is asked.
//   R4  A thread from outside that makes a fiber ready may still be announcing it when that fiber has ended, and its
//       runtime with it. It counts itself into `visitors` before anybody can run the fiber, and the end of the runtime
//       waits until nobody is left in there.
#ifndef CONCUR_RUNTIME_SCHEDULER_HPP
#define CONCUR_RUNTIME_SCHEDULER_HPP

#include <atomic>
#include <exception>

#include "atomic/cas.hpp"
#include "atomic/spin_lock.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "machine/poller.hpp"
#include "machine/stack.hpp"
#include "runtime/fetch_ahead.hpp"
#include "runtime/idle.hpp"
#include "runtime/monitor.hpp"
#include "runtime/options.hpp"
#include "runtime/shared_queue.hpp"
#include "runtime/worker.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// What ended runtimes left behind; touched when one begins or ends, never in between. std::atomic: figures.
struct ledger {
  std::atomic<std::size_t> runtimes{0}, fibers{0}, timers{0}, descriptors{0}, stacks{0};
};
inline ledger process_ledger;

// The block goes home, which may have outlived its runtime; the payload is gone already.
CONCUR_INLINE void free_fiber(fiber* f) noexcept;

class scheduler {
 public:
  // Starts the threads. Throws std::invalid_argument for bad options, std::system_error when the system refuses; then
  // nothing is left behind.
  explicit scheduler(const options& wanted);
  // Every fiber must have finished (see quiesce, cancel_all).
  ~scheduler();
  scheduler(const scheduler&) = delete;
  scheduler& operator=(const scheduler&) = delete;

  // --- fibers in and out ---

  // A block with an id, ready to be given a payload and an entry; null when memory is exhausted. w: the calling
  // thread's worker if that is one of ours, else null.
  fiber* new_fiber(worker* w) noexcept;
  // Makes a new fiber ready for the first time.
  void launch(worker* w, fiber* f) noexcept;

  // The claimed fiber goes on. From any thread.
  void make_ready(fiber* f) noexcept;
  CONCUR_FORCE_INLINE void make_ready_here(worker* w, fiber* f) noexcept;
  CONCUR_FORCE_INLINE fiber* pop_and_stay(worker* w) noexcept;  // inside of the queue
  void queue_behind(worker* w, fiber* f) noexcept;
  // Another worker may be worth its waking when more waits here than this one soon comes to (pace.hpp; idle.hpp, I1).
  CONCUR_FORCE_INLINE void suggest_help(worker* w) noexcept {
    if (w->queue.stealable_count() >= w->pace.help_from()) idle.suggest(*this, *w);
  }
  // Whether the thief may stop the victim for it at once.
  bool is_worth_robbing(const worker& thief, const worker& victim) const noexcept;
  CONCUR_FORCE_INLINE void suggest_thief(worker* w) noexcept;  // the running fiber has offered a job (theft.hpp)

  // --- what a worker runs next (loop.hpp) ---

  bool is_due_driven(driver& d, worker* w) noexcept;
  fiber* pop_own(worker* w) noexcept;  // driven.hpp
  fiber* upkeep(worker* w) noexcept;  // every upkeep_interval picks: timers, poller, shared queue; may return a fiber
  fiber* find_work(worker* w) noexcept;              // blocks; null: the runtime stops
  void run_worker(worker* w) noexcept;               // the body of a worker's thread
  bool give_stack_to(worker* w, fiber* f) noexcept;  // false: there is none
  bool give_fresh_stack_to(worker* w, fiber* f) noexcept;
  void refuse_stackless(worker* w, fiber* f) noexcept;
  void recycle_stack(worker* w, stack* s) noexcept;

  // --- the end ---

  void quiesce() noexcept;     // returns when every fiber has finished; from a plain thread
  void cancel_all() noexcept;  // every parked fiber is woken with `cancelled`, every later wait ends at once
  void keep_exception(std::exception_ptr error) noexcept;  // nobody took it; the first one is kept
  std::exception_ptr take_exception() noexcept;

  std::size_t live_fiber_count() const noexcept;
  // Anything that w could do, seen without a lock. with_others: also what it would have to rob.
  bool has_work_for(const worker* w, bool with_others) const noexcept;
  nanoseconds_t next_timer_ns() const noexcept;  // of all workers
  std::size_t fire_timers() noexcept;            // of all workers
  static constexpr int events_at_once = 128;
  int wait_events(poll_event* events, nanoseconds_t timeout_ns) noexcept;
  void wake_poller() noexcept;
  // Whether the calling worker may wait for events: one at a time does. A sole worker takes nothing from anybody, which
  // saves an atomic for each of its sleeps.
  bool take_poller() noexcept {
    if (worker_count == 1) return true;
    std::uint32_t nobody = 0;
    // acquire: pairs with leave_poller of the last one. relaxed on failure: another one polls, and we need nothing of it.
    return poll_owner.compare_exchange_strong(nobody, 1, std::memory_order_acquire, std::memory_order_relaxed);
  }
  void leave_poller() noexcept {
    poll_owner.store(0, std::memory_order_release);  // release: pairs with the next poller's acquire
  }
  int open_watcher() noexcept;  // before its first use; 0, or an errno
  void dispatch_events(const poll_event* events, int count) noexcept;

  options settings;
  unsigned worker_count = 0;
  worker* workers = nullptr;
  fiber_pool* blocks = nullptr;
  stack_pool stacks;
  poller watcher;
  scope root_scope;
  idle_set idle;
  monitor watch;
  atomic<bool> is_stopping{false};
  atomic<std::uint32_t> poll_owner{0};  // 1 while some thread of several is in, or about to be in, watcher.wait
  atomic<std::uint32_t> foreign_spawned{0};
  atomic<std::uint32_t> visitors{0};       // threads from outside that are making a fiber ready (R4)
  atomic<std::uint32_t> watched_count{0};  // descriptors registered with watcher

 private:
  friend class idle_set;
  void spill(worker* w, fiber* f) noexcept;
  fiber* pop_shared(worker* w, shared_queue::look who) noexcept;
  void send_home(fiber* f) noexcept;
  void empty_inbox(worker* w) noexcept;
  fiber* look_around(worker* w) noexcept;
  void tell_pick(driver& d, worker* w, fiber* f) noexcept;
  int wait_events_driven(driver& d, poll_event* events, nanoseconds_t timeout_ns) noexcept;
  bool rob(worker* w, worker& victim) noexcept;
  bool search(worker* w) noexcept;
  void look_at_neighbour(worker* w) noexcept;
  void suggest_thief_slow(worker* w) noexcept;  // and the following: theft.hpp
  bool steal_job(worker* w, worker& victim) noexcept;
  bool look_for_jobs(worker* w, worker& victim, lone_job& watched, int round, int patience) noexcept;
  fiber* own_job(worker* w) noexcept;
  void free_memory() noexcept;
  void close_ledger() noexcept;
  // driven.hpp
  int give_out_driven(driver& d, poll_event* events, int count) noexcept;
  void start_driven_threads(driver& d);
  void join_driven_threads(driver& d) noexcept;
  void start_threads();
  void stop_threads() noexcept;
  fiber* new_fiber_slow(worker* w) noexcept;
  std::uint64_t new_id(worker* w) noexcept;
  void put_into_root(fiber* f) noexcept;

  alignas(cache_line_bytes) shared_queue shared_;
  spin_lock id_lock_;
  std::uint64_t next_id_ = 1;  // under id_lock_
  spin_lock exception_lock_;
  std::exception_ptr exception_;  // under exception_lock_
  void* threads_ = nullptr;       // pthread_t of each thread that was started; under a driver, its handles
  bool is_watcher_open_ = false;
  static constexpr int held_events_max = 8;
  int held_event_count_ = 0;
  poll_event held_events_[held_events_max];
  unsigned started_count_ = 0;
};

CONCUR_FORCE_INLINE fiber* scheduler::pop_and_stay(worker* w) noexcept {
#if defined(CONCUR_EXPLORE)
  if (driver* d = driver_or_null()) {
    fiber* const f = w->queue.pop_and_stay_driven(*d);
    if (f != nullptr) tell_pick(*d, w, f);
    return f;
  }
#endif
  return w->queue.pop_and_stay();
}

CONCUR_FORCE_INLINE void scheduler::make_ready_here(worker* w, fiber* f) noexcept {
  f->set_state(fiber_state::ready);
  if (CONCUR_UNLIKELY(f->home != nullptr)) {
    send_home(f);
    return;
  }
  fiber* displaced = nullptr;
  if (CONCUR_LIKELY(w->queue.push_recent(f, displaced))) {
    if (displaced != nullptr) suggest_help(w);
    return;
  }
  queue_behind(w, displaced);
}

// resume, for who has its worker at hand: null on a plain thread. Saves the way to find it out.
CONCUR_FORCE_INLINE void resume_near(worker* w, party* who) noexcept {
  if (CONCUR_LIKELY(w != nullptr && who->kind == party_kind::fiber)) {
    fiber* const f = static_cast<fiber*>(who);
    if (CONCUR_LIKELY(f->owner == w->sched)) {
      w->sched->make_ready_here(w, f);
      return;
    }
  }
  resume(who);
}

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <new>
#  include <utility>

CONCUR_NAMESPACE_BEGIN
namespace detail {

// --- becoming ready ---

CONCUR_INLINE void scheduler::launch(worker* w, fiber* f) noexcept {
  if (w == nullptr) {
    foreign_spawned.fetch_add(1, std::memory_order_relaxed);  // relaxed: the shared queue's lock publishes it
    make_ready(f);
    return;
  }
  w->spawned.add();
  f->set_state(fiber_state::ready);
  queue_behind(w, f);
  suggest_help(w);
}

CONCUR_INLINE void scheduler::make_ready(fiber* f) noexcept {
  worker* w = this_worker();
  if (w != nullptr && w->sched == this) {
    make_ready_here(w, f);
    return;
  }
  f->set_state(fiber_state::ready);
  visitors.fetch_add(1, std::memory_order_relaxed);  // relaxed: the lock or exchange that publishes the fiber orders it
  if (f->home != nullptr) {
    send_home(f);
  } else {
    shared_.push_foreign(f);
    idle.announce(*this);
  }
  visitors.fetch_sub(1, std::memory_order_release);  // release: the last touch; pairs with the end's acquire (R4)
}

// Behind everything on w's own queue; when that is full, its oldest move to the shared queue.
CONCUR_INLINE void scheduler::queue_behind(worker* w, fiber* f) noexcept {
  if (CONCUR_UNLIKELY(f->home != nullptr)) {
    send_home(f);
    return;
  }
  if (CONCUR_UNLIKELY(!w->queue.push(f))) spill(w, f);
}

CONCUR_NOINLINE CONCUR_INLINE void scheduler::spill(worker* w, fiber* f) noexcept {
  fiber* first = nullptr;
  const std::uint32_t count = w->queue.pop_batch(first, f);
  shared_.push_surplus(first, f, count + 1);
  idle.announce(*this);
}

// One to run, and a fair share of the rest for w's own queue.
CONCUR_INLINE fiber* scheduler::pop_shared(worker* w, shared_queue::look who) noexcept {
  const std::uint32_t count = shared_.count();
  if (count == 0) return nullptr;
  std::uint32_t most = count / worker_count + 1;
  const std::uint32_t room = run_queue::capacity - w->queue.stealable_count();
  if (most > room) most = room;
  if (most > run_queue::batch) most = run_queue::batch;
  fiber* taken[run_queue::batch];
  const std::uint32_t n = shared_.take(taken, most != 0 ? most : 1, who);
  if (n == 0) return nullptr;
  fetch_stacks(taken, n);
  w->queue.push_many(taken + 1, n - 1);
  return taken[0];
}

// To the one worker that may run it.
CONCUR_INLINE void scheduler::send_home(fiber* f) noexcept {
  worker* home = f->home;
  if (home == this_worker()) {
    home->queue.push_pinned(f);
    return;
  }
  const auto onto = [f](fiber* newest) {
    f->next = newest;
    return f;
  };
  cas_update(home->inbox, onto, std::memory_order_release);  // release: publishes the fiber to its worker
  idle.announce_to(*this, *home);
}

// Oldest first into the pinned list.
CONCUR_INLINE void scheduler::empty_inbox(worker* w) noexcept {
  if (w->inbox.load(std::memory_order_relaxed) == nullptr) return;  // relaxed: a hint; the exchange acquires
  fiber* newest_first = w->inbox.exchange(nullptr, std::memory_order_acquire);  // acquire: pairs with send_home
  fiber* oldest_first = nullptr;
  while (newest_first != nullptr) {
    fiber* f = newest_first;
    newest_first = f->next;
    f->next = oldest_first;
    oldest_first = f;
  }
  while (oldest_first != nullptr) {
    fiber* f = oldest_first;
    oldest_first = f->next;
    w->queue.push_pinned(f);
  }
}

CONCUR_INLINE void resume(party* who) noexcept {
  if (who->kind == party_kind::fiber) {
    fiber* f = static_cast<fiber*>(who);
    f->owner->make_ready(f);
  } else {
    resume_thread(who);
  }
}

// --- the end ---

CONCUR_INLINE std::size_t scheduler::live_fiber_count() const noexcept {
  // The finished are counted first: a fiber spawned and finished meanwhile then counts as live, never as minus one.
  std::size_t finished = 0;
  for (unsigned i = 0; i < worker_count; ++i) finished += workers[i].finished.get();
  std::size_t spawned = foreign_spawned.load(std::memory_order_relaxed);  // relaxed: exact only when all are idle (R3)
  for (unsigned i = 0; i < worker_count; ++i) spawned += workers[i].spawned.get();
  return spawned - finished;
}

CONCUR_INLINE void scheduler::keep_exception(std::exception_ptr error) noexcept {
  lock_scope<spin_lock> held(exception_lock_);
  if (exception_ == nullptr) exception_ = error;
}

CONCUR_INLINE std::exception_ptr scheduler::take_exception() noexcept {
  lock_scope<spin_lock> held(exception_lock_);
  std::exception_ptr taken = exception_;
  exception_ = nullptr;
  return taken;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
