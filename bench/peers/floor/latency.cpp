// bench/peers/floor/latency.cpp - what the machine charges: a thread that a futex wakes, a thread that sleeps for a millisecond.
//
// The same kinds as bench/latency.cpp, those of an idle machine.
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <string>
#include <thread>

#include "../../measure.hpp"

namespace {

using bench_clock = std::chrono::steady_clock;

long now_ns() { return static_cast<long>(std::chrono::nanoseconds(bench_clock::now().time_since_epoch()).count()); }

long futex(std::atomic<int>& word, int operation, int value) {
  return syscall(SYS_futex, reinterpret_cast<int*>(&word), operation | FUTEX_PRIVATE_FLAG, value, nullptr, nullptr, 0);
}

std::vector<double> woken(long count) {
  std::vector<double> samples;
  std::atomic<int> turn{0};
  std::atomic<long> sent_ns{0};
  std::thread sleeper([&] {
    for (int i = 0; i < count; ++i) {
      while (turn.load() == i) futex(turn, FUTEX_WAIT, i);
      samples.push_back(static_cast<double>(now_ns() - sent_ns.load()));
    }
  });
  for (long i = 0; i < count; ++i) {
    std::this_thread::sleep_for(std::chrono::microseconds(300));
    sent_ns = now_ns();
    ++turn;
    futex(turn, FUTEX_WAKE, 1);
  }
  sleeper.join();
  return samples;
}

std::vector<double> lateness(long count) {
  std::vector<double> samples;
  for (long i = 0; i < count; ++i) {
    const long due_ns = now_ns() + 1000000;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    samples.push_back(static_cast<double>(now_ns() - due_ns));
  }
  return samples;
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--kind"});
  const long count = arguments.number("--count", 3000);
  const bool is_timer = std::strcmp(arguments.text("--kind", "woken"), "timer") == 0;
  bench::report_samples(is_timer ? lateness(count / 10) : woken(count));
}
