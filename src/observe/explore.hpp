// observe/explore.hpp - running a concurrent program under many schedules, and seeing a failure again.
//
// A test of concurrent code that passes has seen one schedule: the one the machine happened to take. explore() runs the
// code under thousands, each determined by a seed, on one thread and in virtual time: sleeping costs nothing. It fails when
// a schedule throws, comes to a deadlock, finds no end, breaks a rule of the runtime, or leaves something behind. The
// failing schedule's seed is printed, and replay(seed, f) shows that schedule again, step by step.
//
//     concur::explore([] {
//       int balance = 0;
//       concur::with_nursery([&](concur::nursery& n) {
//         for (int i = 0; i < 2; ++i)
//           n.go([&] { const int seen = balance; concur::this_fiber::yield(); balance = seen + 1; });
//       });
//       concur::explore_expect(balance == 2, "an update was lost");
//     }, {10'000});
//
// What is explored. f runs as the first fiber of a runtime with `workers` workers. In an ordinary build fibers can be
// interrupted at parking operations (send, lock, sleep, yield, ...): that is where code without data races can go one
// way or another. Compiled with -DCONCUR_EXPLORE, all of it, threads are interrupted at each atomic operation of this
// library as well, and with weak_memory loads see old values as far as the C++ memory model permits.
//
//   E1  f is called once for each schedule, and must do the same each time: no clock, random number or address but
//       what this library gives it. Real threads are not explored (explored_thread.hpp), nor is what lies outside of the
//       process, though it may be used: sockets between fibers work.
//   E2  While it runs nothing else in the process may use this library. No runtime may be running before.
//   E3  A schedule ends at its first failure. If that is an exception, all is unwound as usual; after a deadlock or a broken
//       rule the fibers are left where they are and what they hold is lost, so an exploration stops at its first failure.
#ifndef CONCUR_OBSERVE_EXPLORE_HPP
#define CONCUR_OBSERVE_EXPLORE_HPP

#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "base/config.hpp"
#include "base/error.hpp"
#include "observe/explored_thread.hpp"
#include "observe/strategy.hpp"

CONCUR_NAMESPACE_BEGIN

struct explore_options {
  std::size_t schedules = 1000;  // exhaustive: at most so many
  std::uint64_t seed = 1;
  concur::strategy strategy = concur::strategy::random;
  unsigned workers = 2;           // 1 to 12; 0: no runtime, f is the body of a plain thread
  bool weak_memory = false;       // loads may see older stores; needs CONCUR_EXPLORE
  bool inject_faults = false;     // writes fall short, system calls are interrupted
  std::uint64_t steps = 200'000;  // a schedule that takes more has no end
  unsigned shrink = 300;          // at most so many runs to find a shorter schedule that fails
};

struct explore_report {
  bool ok = true;
  bool is_complete = false;      // exhaustive: every schedule within the bound was run
  std::size_t schedules = 0;     // that were run
  std::uint64_t steps = 0;       // of all of them
  std::uint64_t trace_hash = 0;  // of all decisions; equal for equal runs
  // Of the schedule that failed:
  std::uint64_t seed = 0;     // for replay
  std::string what;           // what went wrong; further lines say what each fiber was doing
  std::string schedule;       // the shortest one found that fails: its decisions, for replay_schedule
  std::size_t decisions = 0;  // how many it has that differ from a plain run
};

// What explore() throws; what() has the failure and the seed.
class explore_failure : public std::runtime_error {
 public:
  explicit explore_failure(const explore_report& report);
  const explore_report& report() const noexcept { return report_; }

 private:
  explore_report report_;
};

namespace detail {

struct explored_program {
  void (*call)(void*);
  void* f;
};
// call: a closure around what is explored, which may be a function.
template <class Call>
explored_program program_of(Call& call) noexcept {
  return {[](void* raw) { (*static_cast<Call*>(raw))(); }, &call};
}
CONCUR_INLINE explore_report explore_program(const explored_program& program, const explore_options& wanted);
CONCUR_INLINE explore_report replay_seed(std::uint64_t seed, const explored_program& program, bool prints);
CONCUR_INLINE explore_report replay_decisions(const std::string& schedule, const explored_program& program);
[[noreturn]] CONCUR_INLINE void report_failure(const explore_report& report);

}  // namespace detail

// Runs f under many schedules and says what came of it. Prints nothing; throws std::invalid_argument for options that
// cannot be meant, and std::logic_error when a runtime is running or an exploration is.
template <class F>
explore_report try_explore(F&& f, explore_options wanted = {}) {
  auto call = [&f] { static_cast<void>(f()); };
  return detail::explore_program(detail::program_of(call), wanted);
}

// The same; when a schedule fails, prints what happened and its seed to stderr, and throws explore_failure (without
// exceptions: on_fatal).
template <class F>
explore_report explore(F&& f, explore_options wanted = {}) {
  explore_report report = concur::try_explore(f, wanted);
  if (!report.ok) detail::report_failure(report);
  return report;
}

// Runs f under the schedule with this seed and prints it to stderr, step by step. The seed holds the options as well.
template <class F>
explore_report replay(std::uint64_t seed, F&& f) {
  auto call = [&f] { static_cast<void>(f()); };
  return detail::replay_seed(seed, detail::program_of(call), true);
}
// The same without printing.
template <class F>
explore_report try_replay(std::uint64_t seed, F&& f) {
  auto call = [&f] { static_cast<void>(f()); };
  return detail::replay_seed(seed, detail::program_of(call), false);
}
// The same for the shorter schedule in explore_report::schedule.
template <class F>
explore_report replay_schedule(const std::string& schedule, F&& f) {
  auto call = [&f] { static_cast<void>(f()); };
  return detail::replay_decisions(schedule, detail::program_of(call));
}

CONCUR_NAMESPACE_END

#endif
