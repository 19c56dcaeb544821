// bench/latency.cpp - how long after it could have gone on a fiber does so. Prints every sample, in ns.
//
// --kind woken: a plain thread sends to a fiber that waits, on a runtime that has been idle for a third of a millisecond.
// woken_busy: a fiber sends to another, among a hundred that do nothing but yield. timer: ten fibers sleep for a millisecond,
// again and again; the sample is how much longer it was. timer_busy: the same beside fibers, one a worker, that compute
// for a half of each 200 us.
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "workers.hpp"

namespace {

using bench_clock = std::chrono::steady_clock;

long now_ns() { return static_cast<long>(std::chrono::nanoseconds(bench_clock::now().time_since_epoch()).count()); }

std::vector<double> woken_by_a_thread(long count) {
  std::vector<double> samples;
  concur::channel<long> moments(1);
  std::thread sender([moments, count]() mutable {
    for (long i = 0; i < count; ++i) {
      std::this_thread::sleep_for(std::chrono::microseconds(300));
      moments.send(now_ns());
    }
    moments.close();
  });
  while (auto sent_ns = moments.recv()) samples.push_back(static_cast<double>(now_ns() - *sent_ns));
  sender.join();
  return samples;
}

std::vector<double> woken_among_yielding(long count) {
  std::vector<double> samples;
  std::atomic<bool> is_over{false};
  std::vector<concur::future<void>> others;
  for (int i = 0; i < 100; ++i) {
    others.push_back(concur::go([&is_over] {
      while (!is_over.load()) concur::this_fiber::yield();
    }));
  }
  concur::channel<long> moments(1);
  std::atomic<long> received{0};
  others.push_back(concur::go([&] {
    while (auto sent_ns = moments.recv()) {
      samples.push_back(static_cast<double>(now_ns() - *sent_ns));
      ++received;
    }
  }));
  for (long i = 0; i < count; ++i) {
    concur::this_fiber::yield();
    moments.send(now_ns());
    while (received.load() != i + 1) concur::this_fiber::yield();
  }
  moments.close();
  is_over = true;
  for (auto& one : others) one.get();
  return samples;
}

void load_by_half(const std::atomic<bool>& is_over) {
  auto next = bench_clock::now();
  while (!is_over.load()) {
    next = (std::max)(next + std::chrono::microseconds(200), bench_clock::now());
    concur::this_fiber::sleep_until(next);
    const auto end = bench_clock::now() + std::chrono::microseconds(100);
    while (bench_clock::now() < end) {
    }
  }
}

std::vector<double> lateness(long count, long loads) {
  constexpr long sleepers = 10;
  const long each = count / sleepers;
  std::vector<double> samples(static_cast<std::size_t>(each * sleepers));
  std::atomic<bool> is_over{false};
  std::vector<concur::future<void>> busy, running;
  for (long i = 0; i < loads; ++i) busy.push_back(concur::go([&is_over] { load_by_half(is_over); }));
  for (long i = 0; i < sleepers; ++i) {
    running.push_back(concur::go([own = &samples[static_cast<std::size_t>(i * each)], each] {
      for (long k = 0; k < each; ++k) {
        const long due_ns = now_ns() + 1000000;
        concur::this_fiber::sleep_for(std::chrono::milliseconds(1));
        own[k] = static_cast<double>(now_ns() - due_ns);
      }
    }));
  }
  for (auto& one : running) one.get();
  is_over = true;
  for (auto& one : busy) one.get();
  return samples;
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--kind"});
  const std::string kind = arguments.text("--kind", "woken");
  const long workers = arguments.number("--workers", 1);
  const long count = arguments.number("--count", 3000);
  bench::with_workers(workers, [&] {
    if (kind == "woken") bench::report_samples(woken_by_a_thread(count));
    if (kind == "woken_busy") bench::report_samples(woken_among_yielding(count));
    if (kind == "timer") bench::report_samples(lateness(count, 0));
    if (kind == "timer_busy") bench::report_samples(lateness(count, workers));
  });
}
