// bench/peers/boost_fiber/parked.cpp - many fibers wait on one channel: what each costs to make, to keep, and to wake.
//
// Stacks are Boost's default (fixed size, without a guard page): with guards the kernel's limit of mappings ends it at
// about 32,000 fibers.
#include "../../measure.hpp"
#include "workers.hpp"

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count"});
  const long count = arguments.number("--count", 1000000);
  const double each = static_cast<double>(count);
  bench::with_workers(static_cast<unsigned>(arguments.number("--workers", 1)), [&] {
    boost::fibers::unbuffered_channel<long> gate;
    std::atomic<long> arrived{0};
    std::atomic<long> gone{0};
    const auto crowd = [&](long size) {
      const long before = arrived.load();
      for (long i = 0; i < size; ++i) {
        boost::fibers::fiber(boost::fibers::launch::dispatch, [&] {
          ++arrived;
          long value = 0;
          gate.pop(value);
          ++gone;
        }).detach();
      }
      while (arrived.load() != before + size) boost::this_fiber::yield();
    };
    crowd(1);
    const double resident = bench::status_bytes("VmRSS");
    const double tables = bench::status_bytes("VmPTE");
    bench::report("create", bench::elapsed_ns([&] { crowd(count); }) / each, "ns");
    bench::report("resident", (bench::status_bytes("VmRSS") - resident) / each, "bytes");
    bench::report("page_tables", (bench::status_bytes("VmPTE") - tables) / each, "bytes");
    const double woken = bench::elapsed_ns([&] {
      gate.close();
      while (gone.load() != count + 1) boost::this_fiber::yield();
    });
    bench::report("wake", woken / each, "ns");
  });
}
