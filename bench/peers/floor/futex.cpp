// bench/peers/floor/futex.cpp - what the kernel charges for waking a thread: every wake-up of a worker contains it.
//
// `wake`: two threads that sleep in a futex and wake each other in turn, each on a processor of its own where there are two;
// there and back, for no sleeper can be cheaper. `wake_nobody`: the call when no one sleeps, which is what waking in vain costs.
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>
#include <thread>

#include "../../measure.hpp"

namespace {

using word = std::atomic<std::uint32_t>;

void sleep_while(word& at, std::uint32_t value) {
  while (at.load(std::memory_order_acquire) == value) {
    syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&at), FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
  }
}

void wake_one(word& at) {
  syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&at), FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

void set_and_wake(word& at, std::uint32_t value) {
  at.store(value, std::memory_order_release);
  wake_one(at);
}

// The n-th processor that this thread may use, or the last.
void use_processor(int n, const cpu_set_t& allowed) {
  cpu_set_t chosen;
  CPU_ZERO(&chosen);
  for (int cpu = 0, found = 0; cpu < CPU_SETSIZE && found <= n; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    ++found;
    CPU_ZERO(&chosen);
    CPU_SET(cpu, &chosen);
  }
  sched_setaffinity(0, sizeof chosen, &chosen);
}

// `there` counts the rounds begun, `back` those answered.
void round_trips(std::uint32_t count, int workers, const cpu_set_t& allowed) {
  word there{0}, back{0};
  std::thread other([&] {
    use_processor(workers - 1, allowed);
    for (std::uint32_t i = 0; i < count; ++i) {
      sleep_while(there, i);
      set_and_wake(back, i + 1);
    }
  });
  use_processor(0, allowed);
  for (std::uint32_t i = 0; i < count; ++i) {
    set_and_wake(there, i + 1);
    sleep_while(back, i);
  }
  other.join();
}

void wakes_nobody(long count) {
  word nobody{0};
  for (long i = 0; i < count; ++i) wake_one(nobody);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count"});
  const auto count = static_cast<std::uint32_t>(arguments.number("--count", 5000));
  const int workers = arguments.number("--workers", 2) > 1 ? 2 : 1;
  cpu_set_t allowed;
  sched_getaffinity(0, sizeof allowed, &allowed);
  round_trips(count / 10 + 1, workers, allowed);
  bench::report("wake", bench::elapsed_ns([&] { round_trips(count, workers, allowed); }) / count, "ns");
  const long vain = static_cast<long>(count) * 100;
  bench::report("wake_nobody", bench::elapsed_ns([&] { wakes_nobody(vain); }) / static_cast<double>(vain), "ns");
}
