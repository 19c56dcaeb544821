// bench/peers/boost_fiber/spawn.cpp - empty fibers: one after another, and all at once; ns for each spawned and joined.
#include "../../measure.hpp"
#include "workers.hpp"

namespace {

void in_turn(long count) {
  for (long i = 0; i < count; ++i) boost::fibers::fiber([] {}).join();
}

void all_at_once(std::vector<boost::fibers::fiber>& room, long count) {
  room.clear();
  for (long i = 0; i < count; ++i) room.emplace_back([] {});
  for (auto& one : room) one.join();
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--many", "--rounds"});
  const long count = arguments.number("--count", 1000000);
  const double each = static_cast<double>(count);
  const long rounds = arguments.number("--rounds", 1);
  const bool many = arguments.has("--many");
  bench::with_workers(static_cast<unsigned>(arguments.number("--workers", 1)), [&] {
    if (!many) {
      in_turn(count / 10 + 1);
      bench::report("spawn_join", bench::elapsed_ns([&] { in_turn(count); }) / each, "ns");
      return;
    }
    std::vector<boost::fibers::fiber> room;
    room.reserve(static_cast<std::size_t>(count));
    bench::report("spawn_many_cold", bench::elapsed_ns([&] { all_at_once(room, count); }) / each, "ns");
    const double ns = bench::elapsed_ns([&] {
      for (long i = 0; i < rounds; ++i) all_at_once(room, count);
    });
    bench::report("spawn_many", ns / each / static_cast<double>(rounds), "ns");
  });
}
