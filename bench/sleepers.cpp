// bench/sleepers.cpp - many fibers that sleep once, for 1 to 1000 ms: what that costs the processor, and how late they wake.
//
// Fiber i of n sleeps 1 + 999 i / n ms, whole ones: the same for everybody, and spread evenly. It measures its own lateness. CPU
// is that of the whole process from the first spawn to the last join, in ms. The crowd sleeps twice: cold, which pays the
// kernel for the pages of the stacks, and again, which shows what sleeping costs.
#include <chrono>
#include <vector>

#include "workers.hpp"

namespace {

using bench_clock = std::chrono::steady_clock;

double mean_lateness_ns(long count) {
  std::vector<double> late_ns(static_cast<std::size_t>(count));
  std::vector<concur::future<void>> crowd;
  crowd.reserve(static_cast<std::size_t>(count));
  for (long i = 0; i < count; ++i) {
    crowd.push_back(concur::go([&late = late_ns[static_cast<std::size_t>(i)], pause_ms = 1 + i * 999 / count] {
      const std::chrono::milliseconds pause(pause_ms);
      const auto due = bench_clock::now() + pause;
      concur::this_fiber::sleep_for(pause);
      late = std::chrono::duration<double, std::nano>(bench_clock::now() - due).count();
    }));
  }
  for (auto& one : crowd) one.get();
  return bench::mean(late_ns);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count"});
  const long count = arguments.number("--count", 100000);
  bench::with_workers(arguments.number("--workers", 1), [&] {
    const double before = bench::cpu_ns();
    mean_lateness_ns(count);
    const double between = bench::cpu_ns();
    bench::report("cpu_cold", (between - before) / 1e6, "ms");
    const double late_ns = mean_lateness_ns(count);
    bench::report("cpu", (bench::cpu_ns() - between) / 1e6, "ms");
    bench::report("late", late_ns / 1e6, "ms");
  });
}
