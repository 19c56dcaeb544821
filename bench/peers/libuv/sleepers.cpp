// bench/peers/libuv/sleepers.cpp - many timers of 1 to 1000 ms that fire once: their CPU, and how late they do.
//
// A timer counts from the time its loop last looked at, so the loop looks before each. It counts in whole milliseconds of the
// clock, and may fire up to one early.
#include <chrono>

#include "support.hpp"

namespace {

using bench_clock = std::chrono::steady_clock;

struct sleeper {
  uv_timer_t timer{};
  bench_clock::time_point due;
  double late_ns = 0;
};

void wake(uv_timer_t* of) {
  auto* one = static_cast<sleeper*>(of->data);
  one->late_ns = std::chrono::duration<double, std::nano>(bench_clock::now() - one->due).count();
  uv_close(reinterpret_cast<uv_handle_t*>(of), nullptr);
}

double mean_lateness_ns(uv_loop_t* loop, long count) {
  std::vector<std::unique_ptr<sleeper>> crowd;
  crowd.reserve(static_cast<std::size_t>(count));
  for (long i = 0; i < count; ++i) {
    crowd.push_back(std::make_unique<sleeper>());
    sleeper& one = *crowd.back();
    const long pause_ms = 1 + i * 999 / count;
    uv_update_time(loop);
    one.timer.data = &one;
    uv_timer_init(loop, &one.timer);
    one.due = bench_clock::now() + std::chrono::milliseconds(pause_ms);
    uv_timer_start(&one.timer, wake, static_cast<std::uint64_t>(pause_ms), 0);
  }
  uv_run(loop, UV_RUN_DEFAULT);
  std::vector<double> late_ns;
  for (const auto& one : crowd) late_ns.push_back(one->late_ns);
  return bench::mean(late_ns);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count"});
  const long count = arguments.number("--count", 100000);
  uv_loop_t* loop = uv_default_loop();
  const double before = bench::cpu_ns();
  mean_lateness_ns(loop, count);
  const double between = bench::cpu_ns();
  bench::report("cpu_cold", (between - before) / 1e6, "ms");
  const double late_ns = mean_lateness_ns(loop, count);
  bench::report("cpu", (bench::cpu_ns() - between) / 1e6, "ms");
  bench::report("late", late_ns / 1e6, "ms");
}
