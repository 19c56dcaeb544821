// runtime/idle.hpp - falling asleep without losing a wake-up, and waking no more workers than there is work for.
//
//     submitter (announce)                 worker going idle (sleep)
//     W1  push the fiber                   W2  link itself into the idle list, count_ + 1
//     F1  fence(seq_cst)                   F2  fence(seq_cst)
//     R1  count_ != 0 ? wake one           R2  any work anywhere ? leave the list, go on
//
// Each side writes its own word, then reads the other's. With acquire and release alone both reads may miss both
// writes: the fiber lies in a queue and every worker sleeps. The two fences forbid that one outcome: R1 sees W2, or
// R2 sees W1. Both may; then one wake-up is spurious and costs a system call.
//
// Waking a sleeping core costs a thousand times what a switch costs, so the second question is when not to:
//
//   I1  announce() is for work that only another worker can do; it must reach one. suggest() is for work that the
//       caller will come to itself; it is skipped while a searcher is under way, and needs no fence. Whether the work is
//       worth a wake-up, pace.hpp says.
//   I2  A woken worker is a searcher until it has found work or sleeps again, and holds a search token. At most half
//       of the workers hold one: more would only rob each other. A worker that gives up its token does so before it
//       looks a last time (R2), so that a submitter that saw the token need not wake anybody.
//   I3  The last searcher that finds work wakes another if there is more of it: work spreads by a chain, not by a
//       stampede. A worker whose last look (R2) finds work is a searcher again, for submitters saw its token until then.
//   I4  One idle worker sleeps in the poller, until the next timer of any worker; all others sleep on their parkers,
//       without limit. They are woken first, since a wake-up of the poller costs most.
//   I5  The sleeper in the poller says until when it sleeps, then looks at all timers once more, and sleeps no longer than
//       either says; a worker that goes to sleep with a timer of its own looks whether that is soon enough, and wakes the
//       poller if not. The same pattern, and the same two fences: who polls says so before F2, and looks behind it.
//   I6  A worker leaves the idle list by its own hand or by a waker's, under the lock; a waker that took it owes it a
//       wake-up.
//
// The monitor (monitor.hpp) covers what remains: work that waits behind a fiber that does not let go.
#ifndef CONCUR_RUNTIME_IDLE_HPP
#define CONCUR_RUNTIME_IDLE_HPP

#include "atomic/moment.hpp"
#include "atomic/spin_lock.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/intrusive.hpp"
#include "machine/poller.hpp"
#include "runtime/worker.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Waits for the moment when all workers are idle and no fiber lives. On the stack of a plain thread.
struct quiet_watch {
  quiet_watch* next = nullptr;
  parker thread;
};

class idle_set {
 public:
  // R1: wakes a worker unless one is searching already. The work was pushed before.
  void announce(scheduler& s) noexcept;
  // The same for work that only `home` can do.
  void announce_to(scheduler& s, worker& home) noexcept;
  // Speed only (I1): no fence, and mostly one load.
  CONCUR_FORCE_INLINE void suggest(scheduler& s, worker& caller) noexcept {
    // relaxed: missing a sleeper here costs speed, never liveness.
    if (CONCUR_UNLIKELY(count_.load(std::memory_order_relaxed) != 0)) suggest_slow(s, caller);
  }

  // The same for an offered job; when it is worth a wake-up, job_deque.hpp says.
  void suggest_thief(scheduler& s) noexcept;

  // W2 to the wake-up. Returns when there may be work; the worker may then hold a search token. has_searched: it gave
  // one up just now, so work on other workers' queues counts at R2 (I2).
  void sleep(scheduler& s, worker* w, bool has_searched) noexcept;

  bool begin_search(scheduler& s, worker* w) noexcept;
  void end_search(scheduler& s, worker* w, bool has_found) noexcept;

  void wake_all(scheduler& s) noexcept;
  // Some idle worker, as a searcher; nobody when none is idle.
  void wake_one(scheduler& s) noexcept;
  unsigned count() const noexcept { return count_.load(std::memory_order_relaxed); }  // relaxed: a figure

  // A timer was set from outside, or for a worker that may sleep: wakes the sleeper in the poller if it sleeps for too long
  // (I5).
  void hear_timer(scheduler& s, const timer_wheel& wheel) noexcept;

  // Waits on `watch` until all workers are idle and no fiber lives.
  void wait_quiet(scheduler& s, quiet_watch& watch) noexcept;

 private:
  void suggest_slow(scheduler& s, worker& caller) noexcept;
  void link(worker* w) noexcept;
  bool unlink(worker* w) noexcept;
  void report_quiet(scheduler& s) noexcept;
  int sleep_in_poller(scheduler& s, poll_event* events, nanoseconds_t said, nanoseconds_t latest_ns) noexcept;

  shared_moment poll_until_ns_{long_ago};  // written by the sleeper in the poller; long ago: nobody sleeps there (I5)
  spin_lock lock_;
  worker* first_ = nullptr;  // parker sleepers, last come first; then the poller's
  quiet_watch* watches_ = nullptr;
  atomic<std::uint32_t> count_{0};
  atomic<std::uint32_t> searchers_{0};
};

}  // namespace detail
CONCUR_NAMESPACE_END
#endif
