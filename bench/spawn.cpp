// bench/spawn.cpp - empty fibers: one after another, and all at once; ns for each spawned and joined.
//
// The second way is timed twice: on a heap that has never held so many, and again. The cold run pays the kernel 2 us for
// each page it touches first, the warm one shows what spawning itself costs. --rounds: few are done warm so many times.
#include <vector>

#include "workers.hpp"

namespace {

void in_turn(long count) {
  for (long i = 0; i < count; ++i) concur::go([] {}).get();
}

void all_at_once(std::vector<concur::future<void>>& room, long count) {
  room.clear();
  for (long i = 0; i < count; ++i) room.push_back(concur::go([] {}));
  for (auto& one : room) one.get();
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--many", "--rounds"});
  const long count = arguments.number("--count", 1000000);
  const double each = static_cast<double>(count);
  const long rounds = arguments.number("--rounds", 1);
  const bool many = arguments.has("--many");
  bench::with_workers(arguments.number("--workers", 1), [&] {
    if (!many) {
      in_turn(count / 10 + 1);
      bench::report("spawn_join", bench::elapsed_ns([&] { in_turn(count); }) / each, "ns");
      return;
    }
    std::vector<concur::future<void>> room;
    room.reserve(static_cast<std::size_t>(count));
    bench::report("spawn_many_cold", bench::elapsed_ns([&] { all_at_once(room, count); }) / each, "ns");
    const double ns = bench::elapsed_ns([&] {
      for (long i = 0; i < rounds; ++i) all_at_once(room, count);
    });
    bench::report("spawn_many", ns / each / static_cast<double>(rounds), "ns");
  });
}
