// bench/peers/boost_fiber/parked.cpp - many fibers wait on one channel: what each costs to make, to keep, and to wake.
//
// Stacks are Boost's default (fixed size, without a guard page): with guards the kernel's limit of mappings ends it at
// about 32,000 fibers.
#include "../../measure.hpp"
#include "workers.hpp"

namespace {

struct crowd {
  boost::fibers::unbuffered_channel<long> gate;
  std::atomic<long> arrived{0};
  std::atomic<long> gone{0};

  void park(long size) {
    const long before = arrived.load();
    for (long i = 0; i < size; ++i) {
      boost::fibers::fiber(boost::fibers::launch::dispatch, [this] {
        ++arrived;
        long value = 0;
        gate.pop(value);
        ++gone;
      }).detach();
    }
    while (arrived.load() != before + size) boost::this_fiber::yield();
  }
  void wake() {
    gate.close();
    while (gone.load() != arrived.load()) boost::this_fiber::yield();
  }
};

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--rounds"});
  const long count = arguments.number("--count", 1000000);
  const long rounds = arguments.number("--rounds", 0);
  const double each = static_cast<double>(count);
  bench::with_workers(static_cast<unsigned>(arguments.number("--workers", 1)), [&] {
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
