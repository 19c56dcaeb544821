// bench/peers/boost_fiber/sleepers.cpp - many fibers that sleep once, for 1 to 1000 ms: CPU, and how late they wake.
#include <chrono>

#include "../../measure.hpp"
#include "workers.hpp"

namespace {

using bench_clock = std::chrono::steady_clock;

double mean_lateness_ns(long count) {
  std::vector<double> late_ns(static_cast<std::size_t>(count));
  std::vector<boost::fibers::fiber> crowd;
  crowd.reserve(static_cast<std::size_t>(count));
  for (long i = 0; i < count; ++i) {
    crowd.emplace_back([&late = late_ns[static_cast<std::size_t>(i)], pause_ms = 1 + i * 999 / count] {
      const std::chrono::milliseconds pause(pause_ms);
      const auto due = bench_clock::now() + pause;
      boost::this_fiber::sleep_for(pause);
      late = std::chrono::duration<double, std::nano>(bench_clock::now() - due).count();
    });
  }
  for (auto& one : crowd) one.join();
  return bench::mean(late_ns);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count"});
  const long count = arguments.number("--count", 100000);
  bench::with_workers(static_cast<unsigned>(arguments.number("--workers", 1)), [&] {
    const double before = bench::cpu_ns();
    mean_lateness_ns(count);
    const double between = bench::cpu_ns();
    bench::report("cpu_cold", (between - before) / 1e6, "ms");
    const double late_ns = mean_lateness_ns(count);
    bench::report("cpu", (bench::cpu_ns() - between) / 1e6, "ms");
    bench::report("late", late_ns / 1e6, "ms");
  });
}
