// bench/timers.cpp - what a timer costs while n others are armed: to arm and call off, and to fire; ns each.
//
// The n are fibers that sleep. While they do, one sets a limit of half a minute, as for a request, and is done before it: over
// and over for a tenth of a second. Then nothing else is to do, and all n wake within one millisecond: what is said is the
// processor time until each has gone on and is parked again, with the wake-ups of the processor that it takes. Few are done in
// many rounds.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <vector>

#include "workers.hpp"

namespace {

using bench_clock = std::chrono::steady_clock;
using concur::this_fiber::yield;
using namespace std::chrono_literals;

constexpr auto spread = 1ms;

// Rounds of sleeping: opening the gate of one lets all of the crowd arm. Who is too slow to arm before the first of them wakes
// tries again, with more time.
class crowd {
 public:
  crowd(long count, long rounds) : gates_(static_cast<std::size_t>(rounds) + retries), pause_(2ms + 1us * count) {
    for (long i = 0; i < count; ++i) {
      fibers_.push_back(concur::go([this, offset = spread * i / count] {
        for (concur::event& gate : gates_) {
          gate.wait();
          if (is_over_) return;
          ++asleep_;
          concur::this_fiber::sleep_until(first_ + offset);
          ++fired_;
        }
      }));
    }
  }
  ~crowd() {
    is_over_ = true;
    gates_[round_].set();
    for (auto& one : fibers_) one.get();
  }

  // Returns when all sleep, the first of them at least for `longer` from now.
  void lie_down(bench_clock::duration longer) {
    for (;; pause_ *= 2) {
      asleep_ = fired_ = 0;
      first_ = bench_clock::now() + pause_ + longer;
      gates_.at(round_++).set();
      while (asleep_.load() != size()) yield();
      yield();
      if (bench_clock::now() + longer < first_) return;
      wake();
    }
  }
  void wake() {
    concur::this_fiber::sleep_until(first_ + spread + 200us);
    while (fired_.load() != size()) yield();
  }

 private:
  static constexpr std::size_t retries = 20;
  long size() const { return static_cast<long>(fibers_.size()); }

  std::vector<concur::event> gates_;
  bench_clock::duration pause_;
  std::vector<concur::future<void>> fibers_;
  std::size_t round_ = 0;
  bool is_over_ = false;  // published by the opening of a gate
  std::atomic<long> asleep_{0}, fired_{0};
  bench_clock::time_point first_;
};

double limit_ns(bench_clock::time_point end) {
  long done = 0;
  const double ns = bench::elapsed_ns([&] {
    while (bench_clock::now() < end) {
      for (int i = 0; i < 1000; ++i, ++done) concur::fail_after(30s + 1us * done, [] {});
    }
  });
  return ns / static_cast<double>(done);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--timers"});
  const long timers = arguments.number("--timers", 1000);
  bench::with_workers(arguments.number("--workers", 1), [&] {
    const long rounds = std::clamp(100000 / timers, 1L, 100L);
    crowd sleepers(timers, rounds + 1);
    sleepers.lie_down(150ms);
    limit_ns(bench_clock::now() + 10ms);
    bench::report("arm_cancel", limit_ns(bench_clock::now() + 100ms), "ns");
    sleepers.wake();
    double fire_ns = 0;
    for (long i = 0; i < rounds; ++i) {
      sleepers.lie_down(0ms);
      const double before_ns = bench::cpu_ns();
      sleepers.wake();
      fire_ns += bench::cpu_ns() - before_ns;
    }
    bench::report("fire", fire_ns / static_cast<double>(timers * rounds), "ns");
  });
}
