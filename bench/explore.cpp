// bench/explore.cpp - how many schedules a second an exploration runs: a whole runtime begins, works and ends in each.
//
// Built as it is, fibers are interrupted at parking operations; with -DCONCUR_EXPLORE threads at each atomic operation as
// well, and the third figure has a weak memory. Per second of one core's time, so that it means something on a busy machine.
#include <ctime>

#include "workers.hpp"

namespace {

// Two senders, a receiver, a channel with one place: eight operations.
void channel_program() {
  concur::channel<int> ch(1);
  int sum = 0;
  concur::with_nursery([&](concur::nursery& n) {
    for (int who = 0; who < 2; ++who) {
      n.go([&] {
        ch.send(1);
        ch.send(2);
      });
    }
    n.go([&] {
      for (int i = 0; i < 4; ++i) sum += ch.recv().value();
    });
  });
  concur::explore_expect(sum == 6, "a value is missing");
}

double core_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

void measure(const char* name, concur::strategy how, bool is_weak, long schedules) {
  concur::explore_options given;
  given.schedules = static_cast<std::size_t>(schedules);
  given.strategy = how;
  given.weak_memory = is_weak;
  const double begin = core_seconds();
  const concur::explore_report report = concur::explore(channel_program, given);
  const double seconds = core_seconds() - begin;
  bench::report(name, static_cast<double>(report.schedules) / seconds, "schedules/s");
  bench::report((std::string(name) + "_steps").c_str(), static_cast<double>(report.steps) / seconds / 1e6,
                "million steps/s");
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--count"});
  const long count = arguments.number("--count", 50000);
  measure("random", concur::random, false, count);
  measure("pct", concur::pct(3), false, count);
#if defined(CONCUR_EXPLORE)
  measure("weak_memory", concur::random, true, count);
#endif
}
