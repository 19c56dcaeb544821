// tests/support/scenario.hpp - a small concurrent program, and what must hold under every schedule of it.
//
// Each scenario is a test case that calls hold(f): f runs under many schedules, with random choices and with priorities,
// with the memory of one thread and with a weak one. What must hold, it says with concur::explore_expect; a deadlock, an
// exception, a fiber run twice or something left over fails it without being asked for.
//
// A scenario is small: two to four fibers, two or three operations each. It is the schedules that are many.
//
// CONCUR_CHOSEN_MUTANT in the environment plants a bug, and with CONCUR_HUNT=n hold() does not test: it looks n times, each
// time with another seed, how many schedules it takes to find a failure, and prints the median for each strategy. That is
// what tests/explore/run.py does with each planted bug.
#ifndef CONCUR_TESTS_SUPPORT_SCENARIO_HPP
#define CONCUR_TESTS_SUPPORT_SCENARIO_HPP

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "support/test.hpp"

#if !defined(CONCUR_EXPLORE)
#  error "a scenario is compiled with -DCONCUR_EXPLORE"
#endif

namespace concur_test {

// Of each scenario, in each of the four ways; CONCUR_SCHEDULES in the environment asks for another number.
inline std::size_t scenario_schedules() {
  if (const char* wanted = std::getenv("CONCUR_SCHEDULES")) return std::strtoul(wanted, nullptr, 10);
  return (CONCUR_ASAN != 0 || CONCUR_TSAN != 0 ? 60 : 1500) * static_cast<std::size_t>(CONCUR_TEST_SCALE);
}

struct scenario_options {
  unsigned workers = 2;
  bool inject_faults = false;
  bool has_weak_memory = true;  // explored with it as well
  std::size_t schedules = scenario_schedules();
  std::uint64_t steps = 200'000;
};

// What all scenarios of this program came to; printed at its end.
struct scenario_totals {
  std::size_t scenarios = 0;
  std::size_t schedules = 0;
  std::uint64_t steps = 0;
  ~scenario_totals() {
    if (schedules == 0) return;
    std::printf("explored: %zu scenarios, %zu schedules, %llu steps\n", scenarios, schedules,
                static_cast<unsigned long long>(steps));
  }
};
inline scenario_totals explored_so_far;

inline concur::explore_options options_of(const scenario_options& wanted, concur::strategy how, bool is_weak) {
  concur::explore_options given;
  given.schedules = wanted.schedules;
  given.strategy = how;
  given.workers = wanted.workers;
  given.weak_memory = is_weak;
  given.inject_faults = wanted.inject_faults;
  given.steps = wanted.steps;
  return given;
}

// How many schedules it takes to find a failure: the median of `hunts` tries; 0: most found none.
template <class F>
std::size_t median_to_find(F& f, concur::explore_options given, unsigned hunts, std::size_t most) {
  std::vector<std::size_t> needed;
  given.schedules = most;
  given.shrink = 0;
  for (unsigned i = 0; i < hunts; ++i) {
    given.seed = 1000 + i;
    const concur::explore_report report = concur::try_explore(f, given);
    needed.push_back(report.ok ? most + 1 : report.schedules);
  }
  std::sort(needed.begin(), needed.end());
  const std::size_t median = needed[needed.size() / 2];
  return median > most ? 0 : median;
}

template <class F>
void hunt(F& f, const scenario_options& wanted, unsigned hunts) {
  constexpr std::size_t most = 20'000;
  const bool is_weak = wanted.has_weak_memory;
  const std::size_t by_lot = median_to_find(f, options_of(wanted, concur::random, is_weak), hunts, most);
  const std::size_t by_priority = median_to_find(f, options_of(wanted, concur::pct(3), is_weak), hunts, most);
  std::printf("hunt: random %zu pct %zu\n", by_lot, by_priority);
}

// Explores f in all four ways. The schedules of a failure are in doctest's message.
template <class F>
void hold(F f, const scenario_options& wanted = {}) {
  if (const char* hunts = std::getenv("CONCUR_HUNT")) {
    hunt(f, wanted, static_cast<unsigned>(std::strtoul(hunts, nullptr, 10)));
    return;
  }
  ++explored_so_far.scenarios;
  for (const bool is_weak : {false, true}) {
    if (is_weak && !wanted.has_weak_memory) continue;
    for (const concur::strategy how : {concur::random, concur::pct(3)}) {
      const concur::explore_report report = concur::try_explore(f, options_of(wanted, how, is_weak));
      explored_so_far.schedules += report.schedules;
      explored_so_far.steps += report.steps;
      CAPTURE(is_weak);
      CAPTURE(report.what);
      CAPTURE(report.seed);
      CAPTURE(report.schedule);
      CHECK(report.ok);
      if (!report.ok) return;
    }
  }
}

// Sleeps for long; true when a cancellation ended that, which is how it ends in a scenario.
inline bool sleeps_until_cancelled() {
  try {
    concur::this_fiber::sleep_for(std::chrono::hours(1));
  } catch (const concur::cancelled&) {
    return true;
  }
  return false;
}

}  // namespace concur_test

#endif
