// bench/parked.cpp - many fibers wait on one channel: what each costs to make, to keep, and to wake.
//
// Every fiber has run and parked before anything is read, so its stack is bound and touched. Memory is what the kernel counts
// (VmRSS, and VmPTE beside it) over what the process had with one fiber parked, divided by their number.
#include <atomic>

#include "workers.hpp"

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count"});
  const long count = arguments.number("--count", 1000000);
  const double each = static_cast<double>(count);
  bench::with_workers(arguments.number("--workers", 1), [&] {
    concur::channel<long> gate;
    std::atomic<long> arrived{0};
    std::atomic<long> gone{0};
    const auto crowd = [&](long size) {
      const long before = arrived.load();
      for (long i = 0; i < size; ++i) {
        concur::go([&] {
          ++arrived;
          gate.recv();
          ++gone;
        });
      }
      while (arrived.load() != before + size) concur::this_fiber::yield();
    };
    crowd(1);
    const double resident = bench::status_bytes("VmRSS");
    const double tables = bench::status_bytes("VmPTE");
    bench::report("create", bench::elapsed_ns([&] { crowd(count); }) / each, "ns");
    bench::report("resident", (bench::status_bytes("VmRSS") - resident) / each, "bytes");
    bench::report("page_tables", (bench::status_bytes("VmPTE") - tables) / each, "bytes");
    const double woken = bench::elapsed_ns([&] {
      gate.close();
      while (gone.load() != count + 1) concur::this_fiber::yield();
    });
    bench::report("wake", woken / each, "ns");
  });
}
