// bench/peers/floor/crowd_spawn.cpp - what memory charges for a crowd that is spawned, run to its end, and joined; ns a fiber.
//
// A fiber that has not begun is a note of what to run, which stays where whoever joins finds what came of it: one line of memory
// each, side by side. The notes are written, then each is run as a context of its own on one stack that stays warm, then
// each is asked whether it has ended: three walks over the notes from one end to the other, with nothing in between. No runtime
// can do with less whose fibers are all spawned before the first of them is joined. Workers are threads that share nothing.
#include <cstdlib>
#include <thread>
#include <vector>

#include "../../measure.hpp"
#include "bare_switch.hpp"
#include "stacks.hpp"

namespace {

struct alignas(64) note {
  void (*run)(note&) = nullptr;
  bool has_ended = false;
};

thread_local bench::bare_context home, there;
thread_local note* running = nullptr;

__attribute__((noinline)) void nothing(note& self) { self.has_ended = true; }

[[noreturn]] void body() {
  running->run(*running);
  bench::bare_switch(there, home);
  std::abort();
}

long all_at_once(std::vector<note>& notes, std::vector<note*>& futures, const bench::stacks& room) {
  futures.clear();
  for (note& one : notes) {
    one.has_ended = false;
    one.run = &nothing;
    futures.push_back(&one);
  }
  for (note& one : notes) {
    running = &one;
    bench::prepare(there, room.low(0), bench::stacks::size(0), &body);
    bench::bare_switch(home, there);
  }
  long ended = 0;
  for (const note* one : futures) ended += one->has_ended;
  return ended;
}

double mean_ns(long count, long rounds) {
  std::vector<note> notes(static_cast<std::size_t>(count));
  std::vector<note*> futures;
  futures.reserve(notes.size());
  const bench::stacks room(1);
  all_at_once(notes, futures, room);
  long ended = 0;
  const double ns = bench::elapsed_ns([&] {
    for (long i = 0; i < rounds; ++i) ended += all_at_once(notes, futures, room);
  });
  bench::expect_sum("ended", ended, rounds * count);
  return ns / static_cast<double>(rounds * count);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--many", "--rounds"});
  const long workers = arguments.number("--workers", 1);
  const long count = arguments.number("--count", 1000000) / workers;
  const long rounds = arguments.number("--rounds", 1);
  std::vector<double> means(static_cast<std::size_t>(workers));
  std::vector<std::thread> threads;
  for (double& mean : means) threads.emplace_back([&mean, count, rounds] { mean = mean_ns(count, rounds); });
  for (std::thread& one : threads) one.join();
  bench::report("spawn_many", bench::mean(means) / static_cast<double>(workers), "ns");
}
