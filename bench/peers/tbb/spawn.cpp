// bench/peers/tbb/spawn.cpp - empty tasks in a task_group: one after another, and all at once; ns for each run and waited for.
#include <tbb/task_group.h>

#include "../../measure.hpp"
#include "arena.hpp"

namespace {

void in_turn(long count) {
  tbb::task_group group;
  for (long i = 0; i < count; ++i) {
    group.run([] {});
    group.wait();
  }
}

void all_at_once(long count) {
  tbb::task_group group;
  for (long i = 0; i < count; ++i) group.run([] {});
  group.wait();
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--many"});
  const long count = arguments.number("--count", 1000000);
  const double each = static_cast<double>(count);
  bench::with_workers(arguments.number("--workers", 1), [&] {
    if (!arguments.has("--many")) {
      in_turn(count / 10 + 1);
      bench::report("spawn_join", bench::elapsed_ns([&] { in_turn(count); }) / each, "ns");
      return;
    }
    bench::report("spawn_many_cold", bench::elapsed_ns([&] { all_at_once(count); }) / each, "ns");
    bench::report("spawn_many", bench::elapsed_ns([&] { all_at_once(count); }) / each, "ns");
  });
}
