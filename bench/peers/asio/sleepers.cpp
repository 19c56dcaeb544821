// bench/peers/asio/sleepers.cpp - many coroutines that sleep once, for 1 to 1000 ms: their CPU, and how late they wake.
#include <chrono>

#include "support.hpp"

namespace {

using bench_clock = std::chrono::steady_clock;

asio::awaitable<void> sleep_once(asio::io_context& context, std::chrono::milliseconds pause, double& late) {
  const auto due = bench_clock::now() + pause;
  bench::steady_timer timer(context, pause);
  co_await timer.async_wait();
  late = std::chrono::duration<double, std::nano>(bench_clock::now() - due).count();
}

double mean_lateness_ns(bench::single_loop& loop, long count) {
  std::vector<double> late_ns(static_cast<std::size_t>(count));
  for (long i = 0; i < count; ++i) {
    const std::chrono::milliseconds pause(1 + i * 999 / count);
    loop.go(sleep_once(loop.context(), pause, late_ns[static_cast<std::size_t>(i)]));
  }
  loop.run();
  return bench::mean(late_ns);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count"});
  bench::refuse_more_workers(arguments, 1);
  const long count = arguments.number("--count", 100000);
  bench::single_loop loop;
  const double before = bench::cpu_ns();
  mean_lateness_ns(loop, count);
  const double between = bench::cpu_ns();
  bench::report("cpu_cold", (between - before) / 1e6, "ms");
  const double late_ns = mean_lateness_ns(loop, count);
  bench::report("cpu", (bench::cpu_ns() - between) / 1e6, "ms");
  bench::report("late", late_ns / 1e6, "ms");
}
