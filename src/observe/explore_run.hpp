// observe/explore_run.hpp - the loop behind explore(): one schedule after another, and what is done with one that fails.
//
// A seed has room for all that determines a schedule, so that it alone is enough to see it again:
//
//     bits     63-62     61-56      55-52    51           50      49-45               44-0
//     hold     strategy  depth,     workers  weak memory  faults  places, as a power  the lot; exhaustive: which one
//                        or bound                                 of two (pct)
//
// A failing schedule is mostly long, and most of its decisions have nothing to do with the failure. Shrinking looks for
// shorter ones close to the plain run, then leaves out one part after another, and keeps what still fails in the same way
// (Zeller, Hildebrandt, "Simplifying and isolating failure-inducing input", IEEE TSE 2002, the algorithm ddmin). What
// remains is often a handful of decisions.
#ifndef CONCUR_OBSERVE_EXPLORE_RUN_HPP
#define CONCUR_OBSERVE_EXPLORE_RUN_HPP

#include "base/config.hpp"
#include "observe/exploration.hpp"
#include "observe/explore.hpp"
#include "structure/runtime.hpp"

#if CONCUR_BODIES

#  include <cstdio>
#  include <cstdlib>
#  include <memory>

CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE explore_failure::explore_failure(const explore_report& report)
    : std::runtime_error(report.what + " (seed " + std::to_string(report.seed) + ")"), report_(report) {}

namespace detail {

// --- seeds ---

struct schedule_seed {
  concur::strategy how;
  unsigned workers = 0;
  bool has_weak_memory = false;
  bool has_faults = false;
  unsigned places_log = 0;
  std::uint64_t lot = 0;

  static constexpr std::uint64_t lot_mask = (std::uint64_t{1} << 45) - 1;

  std::uint64_t pack() const noexcept {
    return static_cast<std::uint64_t>(how.what()) << 62 | std::uint64_t{how.parameter()} << 56 |
           std::uint64_t{workers} << 52 | std::uint64_t{has_weak_memory} << 51 | std::uint64_t{has_faults} << 50 |
           std::uint64_t{places_log} << 45 | (lot & lot_mask);
  }
  static schedule_seed unpack(std::uint64_t seed) noexcept {
    schedule_seed s;
    const unsigned parameter = static_cast<unsigned>(seed >> 56) & 63;
    const auto kind = static_cast<concur::strategy::kind>(seed >> 62);
    if (kind == concur::strategy::kind::pct) s.how = concur::strategy::pct(parameter);
    if (kind == concur::strategy::kind::exhaustive) s.how = concur::strategy::exhaustive(parameter);
    s.workers = static_cast<unsigned>(seed >> 52) & 15;
    s.has_weak_memory = ((seed >> 51) & 1) != 0;
    s.has_faults = ((seed >> 50) & 1) != 0;
    s.places_log = static_cast<unsigned>(seed >> 45) & 31;
    s.lot = seed & lot_mask;
    return s;
  }
};

inline std::uint64_t mix_seed(std::uint64_t seed, std::uint64_t index) noexcept {
  std::uint64_t z = seed * 0xD1342543DE82EF95U + index * 0x9E3779B97F4A7C15U;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  return z ^ (z >> 31);
}

// --- one schedule ---

class explorer {
 public:
  explorer(const explored_program& program, const schedule_seed& seed, std::uint64_t steps_max)
      : program_(program), workers_(seed.workers) {
    settings_.has_weak_memory = seed.has_weak_memory;
    settings_.has_faults = seed.has_faults;
    settings_.steps_max = steps_max;
  }
  void set_telling(bool is_telling) { settings_.is_telling = is_telling; }

  // Runs the schedule that `given` has begun.
  void run_once();
  // A shorter schedule that fails the same way, as far as it is found in so many runs.
  deviation_list shrink(deviation_list list, const std::string& what, unsigned runs);

  exploration world;
  decisions& given = world.given;

 private:
  static void body(void* raw);
  bool still_fails();
  bool fails_with(const deviation_list& list);
  void look_for_calm_ones(deviation_list& list);
  void cut_end(deviation_list& list);
  void leave_out_parts(deviation_list& list);

  const explored_program& program_;
  unsigned workers_;
  schedule_settings settings_;
  std::string shrink_kind_;
  unsigned shrink_runs_ = 0;        // left
  std::uint64_t shrink_steps_ = 0;  // taken
};

CONCUR_INLINE void explorer::body(void* raw) {
  explorer& self = *static_cast<explorer*>(raw);
  const auto run = [&self] {
    if (self.workers_ == 0) return self.program_.call(self.program_.f);
    options wanted;
    wanted.workers = self.workers_;
    concur::run(wanted, [&self] { self.program_.call(self.program_.f); });
  };
#  if CONCUR_EXCEPTIONS
  try {
    run();
  } catch (const std::exception& error) {
    self.world.note_failure(std::string("exception: ") + error.what());
  } catch (...) {
    self.world.note_failure("exception: of a type that is no std::exception");
  }
#  else
  run();
#  endif
}

CONCUR_INLINE void explorer::run_once() {
  const leftovers before = process_leftovers();
  world.run(settings_, &body, this);
  const leftovers after = process_leftovers();
  const auto added = [](std::size_t was, std::size_t is) { return std::to_string(is - was); };
  if (world.was_abandoned()) {
    // What an abandoned schedule leaves is no news. relaxed, all: nobody else is there.
    process_ledger.runtimes.store(before.runtimes, std::memory_order_relaxed);
    process_ledger.fibers.store(before.fibers, std::memory_order_relaxed);            // relaxed: as above
    process_ledger.timers.store(before.timers, std::memory_order_relaxed);            // relaxed: as above
    process_ledger.descriptors.store(before.descriptors, std::memory_order_relaxed);  // relaxed: as above
    process_ledger.stacks.store(before.stacks, std::memory_order_relaxed);            // relaxed: as above
  } else if (after.runtimes != before.runtimes || after.fibers != before.fibers || after.timers != before.timers ||
             after.descriptors != before.descriptors || after.stacks != before.stacks) {
    world.note_failure("left over: " + added(before.fibers, after.fibers) + " fibers, " +
                       added(before.timers, after.timers) + " timers, " + added(before.descriptors, after.descriptors) +
                       " descriptors, " + added(before.stacks, after.stacks) + " stacks, " +
                       added(before.runtimes, after.runtimes) + " runtimes");
  }
}

// --- shrinking ---

inline std::string kind_of_failure(const std::string& what) { return what.substr(0, what.find_first_of(":\n")); }

CONCUR_INLINE bool explorer::still_fails() {
  constexpr std::uint64_t steps_max = 1'000'000;  // a livelock is long each time, and seldom has a shorter one
  run_once();
  shrink_steps_ += world.steps();
  shrink_runs_ = shrink_steps_ < steps_max ? shrink_runs_ - 1 : 0;
  return world.has_failed() && kind_of_failure(world.what()) == shrink_kind_;
}

CONCUR_INLINE bool explorer::fails_with(const deviation_list& list) {
  given.begin_replay(list.data(), list.size());
  return still_fails();
}

// Other schedules that fail in this way may be much shorter than the one that did first.
CONCUR_INLINE void explorer::look_for_calm_ones(deviation_list& list) {
  const unsigned until = shrink_runs_ / 2;
  for (std::uint64_t seed = 1; shrink_runs_ > until && list.size() > 2; ++seed) {
    given.begin_calm(seed);
    if (still_fails() && given.deviations().size() < list.size()) list = given.deviations();
  }
}

// What comes after the failure is settled need not be named: the rest of the run is a plain one.
CONCUR_INLINE void explorer::cut_end(deviation_list& list) {
  std::size_t keeps = list.size();
  for (std::size_t step = (keeps + 1) / 2; step != 0 && shrink_runs_ != 0; step /= 2) {
    while (keeps >= step && shrink_runs_ != 0 &&
           fails_with(deviation_list(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(keeps - step))))
      keeps -= step;
  }
  list.resize(keeps);
}

CONCUR_INLINE void explorer::leave_out_parts(deviation_list& list) {
  std::size_t parts = 2;
  while (!list.empty() && shrink_runs_ != 0) {
    const std::size_t size = (list.size() + parts - 1) / parts;
    bool is_shorter = false;
    // From the end: what is left out there changes less of the rest.
    for (std::size_t end = list.size(); end != 0 && shrink_runs_ != 0 && !is_shorter;) {
      const std::size_t begin = end > size ? end - size : 0;
      deviation_list rest(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(begin));
      rest.insert(rest.end(), list.begin() + static_cast<std::ptrdiff_t>(end), list.end());
      is_shorter = fails_with(rest) && given.deviations().size() < list.size();
      if (is_shorter) list = given.deviations();
      end = begin;
    }
    if (is_shorter) {
      parts = parts > 3 ? parts - 1 : 2;
    } else if (size == 1) {
      break;
    } else {
      parts = parts * 2 < list.size() ? parts * 2 : list.size();
    }
  }
}

CONCUR_INLINE deviation_list explorer::shrink(deviation_list list, const std::string& what, unsigned runs) {
  shrink_kind_ = kind_of_failure(what);
  shrink_runs_ = runs;
  shrink_steps_ = 0;
  look_for_calm_ones(list);
  cut_end(list);
  leave_out_parts(list);
  return list;
}

// --- schedules as text: "workers weak faults: question=answer ..." ---

inline std::string schedule_text(const schedule_seed& seed, const deviation_list& list) {
  std::string text =
      "w" + std::to_string(seed.workers) + (seed.has_weak_memory ? "m" : "") + (seed.has_faults ? "f" : "");
  for (const deviation& one : list) text += " " + std::to_string(one.question) + "=" + std::to_string(one.answer);
  return text;
}

inline bool parse_schedule(const std::string& text, schedule_seed& seed, deviation_list& list) {
  const char* at = text.c_str();
  char* end = nullptr;
  if (*at++ != 'w') return false;
  seed.workers = static_cast<unsigned>(std::strtoul(at, &end, 10));
  for (; *end != '\0' && *end != ' '; ++end) {
    if (*end == 'm') seed.has_weak_memory = true;
    if (*end == 'f') seed.has_faults = true;
  }
  while (*end == ' ') {
    const std::uint64_t question = std::strtoull(end + 1, &end, 10);
    if (*end != '=') return false;
    list.push_back({question, static_cast<std::uint32_t>(std::strtoul(end + 1, &end, 10))});
  }
  return *end == '\0';
}

// --- what explore() and replay() are made of ---

inline void refuse_options(const explore_options& wanted) {
  constexpr unsigned most = 12;
  if (wanted.workers > most)
    fail_argument("concur::explore", "options.workers", std::to_string(wanted.workers),
                  "at most 12 workers are explored; 0 runs f on a plain thread");
  if (wanted.schedules == 0)
    fail_argument("concur::explore", "options.schedules", "0", "at least one schedule must be run");
#  if !defined(CONCUR_EXPLORE)
  if (wanted.weak_memory)
    fail_argument("concur::explore", "options.weak_memory", "true",
                  "loads can be told old values only in a program compiled with -DCONCUR_EXPLORE");
#  endif
}

inline void refuse_company() {
  if (driver_or_null() != nullptr) fail_logic("concur::explore: called within an exploration");
  if (process_leftovers().runtimes != 0)
    fail_logic("concur::explore: a runtime is running in this process; end it first, for it would be explored as well");
}

inline void note_result(explore_report& report, explorer& it, const schedule_seed& seed) {
  ++report.schedules;
  report.steps += it.world.steps();
  report.trace_hash = (report.trace_hash ^ it.given.hash()) * 0x100000001B3U;
  if (!it.world.has_failed()) return;
  report.ok = false;
  report.seed = seed.pack();
  report.what = it.world.what();
  report.decisions = it.given.deviations().size();
  report.schedule = schedule_text(seed, it.given.deviations());
}

CONCUR_INLINE explore_report explore_program(const explored_program& program, const explore_options& wanted) {
  refuse_options(wanted);
  refuse_company();
  schedule_seed seed;
  seed.how = wanted.strategy;
  seed.workers = wanted.workers;
  seed.has_weak_memory = wanted.weak_memory;
  seed.has_faults = wanted.inject_faults;
  seed.places_log = 4;
  const bool is_search = wanted.strategy.what() == concur::strategy::kind::exhaustive;
  const auto it = std::make_unique<explorer>(program, seed, wanted.steps);
  explore_report report;
  for (std::size_t i = 0; i < wanted.schedules && report.ok; ++i) {
    seed.lot = is_search ? i : mix_seed(wanted.seed, i) & schedule_seed::lot_mask;
    if (is_search)
      it->given.begin_search(wanted.strategy.parameter());
    else
      it->given.begin_seeded(seed.how, seed.lot, std::uint64_t{1} << seed.places_log);
    it->run_once();
    note_result(report, *it, seed);
    while ((std::uint64_t{1} << seed.places_log) < it->given.change_places() && seed.places_log < 31) ++seed.places_log;
    if (is_search && report.ok && !it->given.advance_search()) {
      report.is_complete = true;
      break;
    }
  }
  if (report.ok || wanted.shrink == 0) return report;
  const deviation_list shorter = it->shrink(it->given.deviations(), report.what, wanted.shrink);
  report.decisions = shorter.size();
  report.schedule = schedule_text(seed, shorter);
  return report;
}

inline void print_steps(explorer& it, const char* title) {
  std::fprintf(stderr, "concur: %s\n", title);
  for (const std::string& line : it.world.told()) std::fprintf(stderr, "  %s\n", line.c_str());
  if (it.world.was_abandoned()) return;  // the last step has said why
  std::fprintf(stderr, "concur: %s\n", it.world.has_failed() ? it.world.what().c_str() : "the schedule did not fail");
}

inline constexpr std::uint64_t replay_steps_max = 10'000'000;

CONCUR_INLINE explore_report replay_seed(std::uint64_t packed, const explored_program& program, bool prints) {
  refuse_company();
  const schedule_seed seed = schedule_seed::unpack(packed);
  const auto it = std::make_unique<explorer>(program, seed, replay_steps_max);
  if (seed.how.what() == concur::strategy::kind::exhaustive) {
    // The search knows the way to a schedule only by the schedules before it.
    for (std::uint64_t i = 0; i < seed.lot; ++i) {
      it->given.begin_search(seed.how.parameter());
      it->run_once();
      if (!it->given.advance_search()) break;
    }
    it->given.begin_search(seed.how.parameter());
  } else {
    it->given.begin_seeded(seed.how, seed.lot, std::uint64_t{1} << seed.places_log);
  }
  it->set_telling(prints);
  it->run_once();
  explore_report report;
  note_result(report, *it, seed);
  if (prints) print_steps(*it, ("replay of seed " + std::to_string(packed)).c_str());
  return report;
}

CONCUR_INLINE explore_report replay_decisions(const std::string& schedule, const explored_program& program) {
  refuse_company();
  schedule_seed seed;
  deviation_list list;
  if (!parse_schedule(schedule, seed, list))
    fail_argument("concur::replay_schedule", "schedule", schedule, "it is what explore_report::schedule holds");
  const auto it = std::make_unique<explorer>(program, seed, replay_steps_max);
  it->given.begin_replay(list.data(), list.size());
  it->set_telling(true);
  it->run_once();
  explore_report report;
  note_result(report, *it, seed);
  print_steps(*it, "replay of a schedule");
  return report;
}

CONCUR_INLINE void report_failure(const explore_report& report) {
  std::fprintf(stderr,
               "concur: schedule %zu failed: %s\n"
               "  replay(%lluU, f) shows it step by step.\n"
               "  The shortest one found has %zu decision%s from a plain run;\n"
               "  replay_schedule(\"%s\", f) shows that.\n",
               report.schedules, report.what.c_str(), static_cast<unsigned long long>(report.seed), report.decisions,
               report.decisions == 1 ? " that differs" : "s that differ",
               report.decisions <= 200 ? report.schedule.c_str() : "...");
  raise(explore_failure(report), report.what.c_str());
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
