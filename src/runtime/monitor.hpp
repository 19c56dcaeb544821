// runtime/monitor.hpp - a thread that looks after work nobody comes to.
//
// Workers look at their queues whenever a fiber lets go. One that does not let go, for want of a reason to, keeps
// what is queued behind it: fibers that an idle worker could run, sockets that nobody polls. The monitor looks every
// few milliseconds while any worker is busy, and wakes an idle one when the same worker is seen twice at the same
// switch with work behind it. It also lets thieves take the fiber in that worker's `recent` slot, which is otherwise
// the owner's. And when every worker computes while a timer is overdue, it ends those waits itself: a limit on what a fiber
// computes would pass unseen.
//
// Every second of such looking it also lets the stack pool give back pages that nobody has used for seconds: on this
// thread it costs no fiber's time.
//
//   M1  While all workers are idle the monitor sleeps without limit: it goes to sleep after one whole period of
//       idleness, and the first worker to leave idleness wakes it (nudge). So a program that waits makes no wake-ups
//       at all.
//   M2  The monitor runs no fiber and holds no lock for longer than a wake-up takes.
//
// With one worker there is nobody to wake, and no monitor is started.
#ifndef CONCUR_RUNTIME_MONITOR_HPP
#define CONCUR_RUNTIME_MONITOR_HPP

#include "atomic/word.hpp"
#include "base/config.hpp"
#include "machine/parker.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

class scheduler;

class monitor {
 public:
  // A worker has just left idleness. A fence, and mostly one load.
  void nudge(scheduler& s) noexcept;
  // The body of the monitor's thread; returns after stop().
  void run(scheduler& s) noexcept;
  void stop() noexcept;

 private:
  static constexpr std::int64_t period_ns = 10'000'000;
  static constexpr unsigned periods_to_trim = 100;

  bool is_all_idle(const scheduler& s) const noexcept;
  void look(scheduler& s, std::size_t* last_switches) noexcept;

  parker thread_;
  atomic<bool> is_asleep_{
      false};  // written by the monitor before it sleeps without limit, taken back by who wakes it
  atomic<bool> is_stopping_{false};
};

}  // namespace detail
CONCUR_NAMESPACE_END
#endif
