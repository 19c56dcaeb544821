// runtime/loop.hpp - how a worker finds the next fiber, and what its thread does when there is none.
//
// A worker that switches from fiber to fiber seldom comes here: the fiber that leaves picks the next one itself
// (suspend.hpp). The thread's own stack, the loop, runs only while there is nothing local to run, and looks in this
// order:
//
//     1  the inbox           pinned fibers that only this worker may run
//     2  its own queue
//     3  timers, also those of workers that sleep
//     4  the shared queue    with a share for the own queue (shared_queue.hpp)
//     5  its own jobs        which fibers that wait have offered (job_deque.hpp, J5)
//     6  other workers       half of another's ring, or a job, if few enough are searching (search.hpp)
//     7  sleep               in the poller or on the parker (idle.hpp), and from the start
//
// A busy worker comes here every upkeep_interval picks, or 200 us if there are others, looks at the shared queue, and when 50 us
// have passed since the last time, also at the timers, at another worker, and, without blocking, at the poller. Here and not
// in the fiber that leaves: events and timers end waits and take the locks of sites, of which that fiber may hold one
// (suspend.hpp).
#ifndef CONCUR_RUNTIME_LOOP_HPP
#define CONCUR_RUNTIME_LOOP_HPP

#include "base/config.hpp"
#include "machine/fault.hpp"
#include "runtime/overflow.hpp"
#include "runtime/scheduler.hpp"
#include "runtime/suspend.hpp"
#include "runtime/theft.hpp"

#if CONCUR_BODIES

#  include <cerrno>
#  include <csignal>
#  include <new>
#  include <pthread.h>
#  include <string>
#  include <utility>

#  include "runtime/birth.hpp"
#  include "runtime/entry.hpp"
#  include "runtime/fetch_ahead.hpp"
#  include "runtime/idle_sleep.hpp"
#  include "runtime/search.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void dispatch_event(const poll_event& event) noexcept;  // the reactor's (reactor.hpp)
CONCUR_INLINE void forget_scheduler(scheduler& s) noexcept;           // as well

// --- timers and events ---

CONCUR_INLINE nanoseconds_t scheduler::next_timer_ns() const noexcept {
  nanoseconds_t next = never;
  for (unsigned i = 0; i < worker_count; ++i) {
    const nanoseconds_t own = workers[i].timers.next_ns();
    if (own < next) next = own;
  }
  return next;
}

CONCUR_INLINE std::size_t scheduler::fire_timers() noexcept {
  if (next_timer_ns() == never) return 0;
  const nanoseconds_t now = now_ns();
  std::size_t count = 0;
  for (unsigned i = 0; i < worker_count; ++i) count += workers[i].timers.fire(now);
  return count;
}

CONCUR_INLINE int scheduler::wait_events(poll_event* events, nanoseconds_t timeout_ns) noexcept {
  if (driver* d = driver_or_null()) return wait_events_driven(*d, events, timeout_ns);
  const int count = watcher.wait(events, events_at_once, timeout_ns);
  return count > 0 ? count : 0;
}

CONCUR_INLINE void scheduler::dispatch_events(const poll_event* events, int count) noexcept {
  for (int i = 0; i < count; ++i) dispatch_event(events[i]);
}

// --- looking for work ---

CONCUR_INLINE bool scheduler::has_work_for(const worker* w, bool with_others) const noexcept {
  // relaxed, all: hints, or behind the fence of the sleep protocol.
  if (is_stopping.load(std::memory_order_relaxed) || shared_.count() != 0) return true;
  if (w->inbox.load(std::memory_order_relaxed) != nullptr || w->queue.has_any()) return true;  // relaxed: as above
  if (!with_others) return false;
  for (unsigned i = 0; i < worker_count; ++i) {
    if (is_worth_robbing(*w, workers[i]) || workers[i].jobs.count() > 1 || workers[i].offers_recent()) return true;
  }
  return false;
}

CONCUR_INLINE fiber* scheduler::look_around(worker* w) noexcept {
  empty_inbox(w);
  if (fiber* f = pop_own(w)) return f;
  if (fire_timers() != 0) {
    if (fiber* f = pop_own(w)) return f;
  }
  fiber* const f = pop_shared(w, shared_queue::look::idle);
  return f != nullptr ? f : own_job(w);
}

CONCUR_INLINE fiber* scheduler::find_work(worker* w) noexcept {
  const bool measures = worker_count > 1 && driver_or_null() == nullptr;
  for (bool is_out_of_work = false;;) {
    if (driver* d = driver_or_null()) d->step();
    fiber* f = std::exchange(w->stackless, nullptr);
    if (f == nullptr && w->picks_to_upkeep == 0) f = upkeep(w);
    if (f == nullptr) f = look_around(w);
    if (f != nullptr) {
      if (is_out_of_work) w->pace.begin(now_ns(), w->switches.get());
      idle.end_search(*this, w, true);
      return f;
    }
    if (measures && !is_out_of_work) {
      is_out_of_work = true;
      const nanoseconds_t now = now_ns();
      w->pace.judge_loot(now);
      w->pace.measure(now, w->switches.get());
    }
    if (is_stopping.load(std::memory_order_acquire)) return nullptr;  // acquire: pairs with stop_threads
    const bool searches = worker_count > 1 && idle.begin_search(*this, w);
    if (searches && search(w)) continue;
    idle.end_search(*this, w, false);
    idle.sleep(*this, w, searches);
  }
}

CONCUR_INLINE fiber* scheduler::upkeep(worker* w) noexcept {
  constexpr nanoseconds_t interval_ns = 50'000;
  empty_inbox(w);
  const nanoseconds_t now = now_ns();
  w->picks_to_upkeep = driver_or_null() != nullptr ? worker::driven_interval : worker::upkeep_interval;
  if (worker_count > 1 && driver_or_null() == nullptr) {
    w->pace.measure(now, w->switches.get());
    w->picks_to_upkeep = w->pace.picks_in(4 * interval_ns, worker::upkeep_interval);
  }
  if (now - w->last_upkeep_ns >= interval_ns) {
    w->last_upkeep_ns = now;
    if (worker_count > 1) {
      suggest_help(w);
      look_at_neighbour(w);
    }
    shared_.age(now);
    fire_timers();
    // relaxed: a look only; the next upkeep sees what this one misses.
    if (watched_count.load(std::memory_order_relaxed) != 0 && take_poller()) {
      poll_event events[events_at_once];
      const int count = wait_events(events, 0);
      leave_poller();
      w->polls.add();
      dispatch_events(events, count);
    }
  }
  if (fiber* const f = CONCUR_MUTANT_IS(410) ? nullptr : own_job(w)) queue_behind(w, f);
  const bool runs_low = w->queue.stealable_count() < run_queue::batch / 4 && !CONCUR_MUTANT_IS(182);
  return pop_shared(w, runs_low ? shared_queue::look::low : shared_queue::look::busy);
}

// --- stacks ---

// The common case calls nothing.
CONCUR_NOINLINE CONCUR_INLINE bool scheduler::give_stack_to(worker* w, fiber* f) noexcept {
  stack* const s = w->free_stacks;
  if (CONCUR_UNLIKELY(s == nullptr)) return give_fresh_stack_to(w, f);
  w->free_stacks = s->next;
  --w->free_stack_count;
  bind_stack(w, f, s);
  return true;
}

CONCUR_NOINLINE CONCUR_INLINE bool scheduler::give_fresh_stack_to(worker* w, fiber* f) noexcept {
  constexpr std::size_t batch = 16;
  stack* fresh[batch];
  int error = 0;
  const std::size_t count = stacks.acquire_many(fresh, driver_or_null() != nullptr ? 1 : batch, error);
  if (count == 0) return false;
  for (std::size_t i = count; i-- > 0;) {
    fresh[i]->next = w->free_stacks;
    w->free_stacks = fresh[i];
    fetch_top(*fresh[i]);
  }
  w->free_stack_count += static_cast<unsigned>(count);
  return give_stack_to(w, f);
}

// Only from the loop: the closure is destroyed here, and whoever waits for the fiber is woken.
CONCUR_INLINE void scheduler::refuse_stackless(worker* w, fiber* f) noexcept {
  f->entry(f, ENOMEM);
  w->finished.add();
}

CONCUR_INLINE void scheduler::recycle_stack(worker* w, stack* s) noexcept {
  constexpr unsigned kept = 64;
  s->next = w->free_stacks;
  w->free_stacks = s;
  if (++w->free_stack_count <= kept) return;
  stack* keep = w->free_stacks;
  for (unsigned i = 1; i < kept / 2; ++i) keep = keep->next;
  stack* surplus = keep->next;
  keep->next = nullptr;
  w->free_stack_count = kept / 2;
  stacks.release_many(surplus);
}

// --- threads ---

CONCUR_INLINE void scheduler::run_worker(worker* w) noexcept {
  const thread_signal_stack for_overflows;
  if (driver_or_null() != nullptr) w->picks_to_upkeep = worker::driven_interval;
  *this_worker_cell() = w;
  w->exceptions = exception_globals::of_this_thread();
  w->loop_notice.bind_thread();
  while (fiber* f = find_work(w)) enter_fiber(w, f);
  w->blocks.clear(*blocks);
  *this_worker_cell() = nullptr;
}

// Signals are for the program's own threads. Those that a fault raises stay open: blocked, they would kill without a
// word.
inline void block_signals(sigset_t* before) noexcept {
  sigset_t all;
  sigfillset(&all);
  for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGPROF}) sigdelset(&all, fault);
  pthread_sigmask(SIG_SETMASK, &all, before);
}

CONCUR_INLINE void scheduler::start_threads() {
  if (driver* d = driver_or_null()) return start_driven_threads(*d);
  const unsigned count = worker_count > 1 ? worker_count + 1 : 1;  // the last one is the monitor
  pthread_t* handles = new (std::nothrow) pthread_t[count];
  if (handles == nullptr) fail_system(ENOMEM, "concur::runtime: no memory for its threads");
  threads_ = handles;
  sigset_t before;
  block_signals(&before);
  int error = 0;
  for (unsigned i = 0; i < count && error == 0; ++i) {
    using body = void* (*)(void*);
    const body of_worker = [](void* raw) -> void* {
      worker* w = static_cast<worker*>(raw);
      w->sched->run_worker(w);
      return nullptr;
    };
    const body of_monitor = [](void* raw) -> void* {
      scheduler* s = static_cast<scheduler*>(raw);
      s->watch.run(*s);
      return nullptr;
    };
    error = i < worker_count ? pthread_create(&handles[i], nullptr, of_worker, &workers[i])
                             : pthread_create(&handles[i], nullptr, of_monitor, this);
    if (error == 0) ++started_count_;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error == 0) return;
  const std::string which = std::to_string(started_count_ + 1) + " of " + std::to_string(count);
  stop_threads();
  fail_system(error,
              "concur::runtime: could not start thread " + which + "; ask for fewer workers or raise the thread limit");
}

CONCUR_INLINE void scheduler::stop_threads() noexcept {
  is_stopping.store(true, std::memory_order_seq_cst);  // seq_cst: ordered like F1 of idle.hpp against the last looks
  watch.stop();
  pthread_t* handles = static_cast<pthread_t*>(threads_);
  // A worker that was about to sleep may miss one waking, and then sees is_stopping in its last look.
  idle.wake_all(*this);
  if (driver* d = driver_or_null()) return join_driven_threads(*d);
  for (unsigned i = 0; i < started_count_; ++i) pthread_join(handles[i], nullptr);
  delete[] handles;
  threads_ = nullptr;
}

CONCUR_INLINE scheduler::scheduler(const options& wanted)
    : settings(resolve_options(wanted)),
      // A guard costs a system call, and a driven runtime lives for microseconds.
      stacks(settings.stack_size, driver_or_null() != nullptr ? guard_kind::canary : guard_kind::none_yet) {
  if (shadow_stack_is_live())
    fail_logic(
        "concur::runtime: this process runs with a hardware shadow stack, which fibers cannot use yet; start it with "
        "GLIBC_TUNABLES=glibc.cpu.x86_shstk=off or link with -z noshstk");
  register_asymmetric_fence();
  set_fault_lookup(&describe_overflow);
  if (driver_or_null() == nullptr) {  // else when it is first needed: explorations begin and end thousands a second
    if (const int error = open_watcher())
      fail_system(error, "concur::runtime: could not open the poller; are there descriptors left?");
  }
  worker_count = settings.workers;
  void* memory = ::operator new(sizeof(worker) * worker_count, std::align_val_t(alignof(worker)), std::nothrow);
  blocks = new (std::nothrow) fiber_pool(this);
  if (memory == nullptr || blocks == nullptr) {
    ::operator delete(memory, std::align_val_t(alignof(worker)));
    if (blocks != nullptr) blocks->abandon();
    fail_system(ENOMEM, "concur::runtime: no memory for " + std::to_string(worker_count) + " workers");
  }
  workers = static_cast<worker*>(memory);
  const nanoseconds_t now = now_ns();
  for (unsigned i = 0; i < worker_count; ++i) {
    worker* w = ::new (static_cast<void*>(&workers[i])) worker(0x9E3779B97F4A7C15u * (i + 1));
    w->sched = this;
    w->index = i;
    w->timers.start(now);
  }
#  if CONCUR_EXCEPTIONS
  try {
    start_threads();
  } catch (...) {
    free_memory();
    throw;
  }
#  else
  start_threads();
#  endif
  process_ledger.runtimes.fetch_add(1, std::memory_order_relaxed);  // relaxed: a figure
}

CONCUR_INLINE scheduler::~scheduler() {
  stop_threads();
  // acquire: pairs with the release of the last visitor.
  for (unsigned round = 0; visitors.load(std::memory_order_acquire) != 0 && !CONCUR_MUTANT_IS(5);) spin_wait(round);
  if (driver* d = driver_or_null())
    // relaxed: a look from within.
    d->expect(visitors.load(std::memory_order_relaxed) == 0, "a runtime ends under a thread that announces a fiber");
  forget_scheduler(*this);
  close_ledger();
  free_memory();
}

// With the threads gone: what should be 0 by now.
CONCUR_INLINE void scheduler::close_ledger() noexcept {
  std::size_t timers = 0;
  for (unsigned i = 0; i < worker_count; ++i) {
    timers += workers[i].timers.size();
    stacks.release_many(workers[i].free_stacks);
    workers[i].free_stacks = nullptr;
  }
  // relaxed, all: figures.
  process_ledger.timers.fetch_add(timers, std::memory_order_relaxed);
  process_ledger.fibers.fetch_add(live_fiber_count(), std::memory_order_relaxed);  // relaxed
  process_ledger.descriptors.fetch_add(watched_count.load(std::memory_order_relaxed),
                                       std::memory_order_relaxed);                  // relaxed
  process_ledger.stacks.fetch_add(stacks.live_count(), std::memory_order_relaxed);  // relaxed
  process_ledger.runtimes.fetch_sub(1, std::memory_order_relaxed);                  // relaxed
}

CONCUR_INLINE void scheduler::free_memory() noexcept {
  for (unsigned i = 0; i < worker_count; ++i) workers[i].~worker();
  ::operator delete(static_cast<void*>(workers), std::align_val_t(alignof(worker)));
  blocks->abandon();
}

CONCUR_INLINE void scheduler::quiesce() noexcept {
  quiet_watch watch_here;
  idle.wait_quiet(*this, watch_here);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
