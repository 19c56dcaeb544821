// bench/parked.cpp - many fibers wait on one channel: what each costs to make, to keep, and to wake.
//
// Every fiber has run and parked before anything is read, so its stack is bound and touched. Memory is what the kernel counts
// (VmRSS, and VmPTE beside it) over what the process had with one fiber parked, divided by their number. --rounds: then as
// many come and go again so many times, on stacks that are there already.
#include <atomic>

#include "workers.hpp"

namespace {

struct crowd {
  concur::channel<long> gate;
  std::atomic<long> arrived{0};
  std::atomic<long> gone{0};

  void park(long size) {
    const long before = arrived.load();
    for (long i = 0; i < size; ++i) {
      concur::go([this] {
        ++arrived;
        gate.recv();
        ++gone;
      });
    }
    while (arrived.load() != before + size) concur::this_fiber::yield();
  }
  void wake() {
    gate.close();
    while (gone.load() != arrived.load()) concur::this_fiber::yield();
  }
};

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--rounds"});
  const long count = arguments.number("--count", 1000000);
  const long rounds = arguments.number("--rounds", 0);
  const double each = static_cast<double>(count);
  bench::with_workers(arguments.number("--workers", 1), [&] {
    crowd first;
    first.park(1);
    const double resident = bench::status_bytes("VmRSS");
    const double tables = bench::status_bytes("VmPTE");
    bench::report("create", bench::elapsed_ns([&] { first.park(count); }) / each, "ns");
    bench::report("resident", (bench::status_bytes("VmRSS") - resident) / each, "bytes");
    bench::report("page_tables", (bench::status_bytes("VmPTE") - tables) / each, "bytes");
    bench::report("wake", bench::elapsed_ns([&] { first.wake(); }) / each, "ns");
    double create_ns = 0, wake_ns = 0;
    for (long i = 0; i < rounds; ++i) {
      crowd again;
      create_ns += bench::elapsed_ns([&] { again.park(count); });
      wake_ns += bench::elapsed_ns([&] { again.wake(); });
    }
    if (rounds > 0) bench::report("create_again", create_ns / each / static_cast<double>(rounds), "ns");
    if (rounds > 0) bench::report("wake_again", wake_ns / each / static_cast<double>(rounds), "ns");
  });
}
