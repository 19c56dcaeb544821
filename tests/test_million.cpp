// test_million.cpp - a million fibers, each parked on a guarded stack of its own, and woken.
//
// What a parked fiber costs in memory is the pages of its stack that it touched, and its block. Both are counted by the
// kernel: resident memory and page tables are read from /proc/self/status before and while they are parked.
#include "support/tally.hpp"
#include "support/test.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <thread>

namespace {

// Without optimisation the frames of a receive take more than a page.
#if defined(__OPTIMIZE__) && CONCUR_ASAN == 0 && CONCUR_TSAN == 0
constexpr bool is_optimised = true;
#else
constexpr bool is_optimised = false;
#endif

// Kilobytes behind a name in one of /proc's files; 0 where there is none.
std::size_t kilobytes_in(const char* path, const char* name) {
  std::size_t found = 0;
  std::FILE* file = std::fopen(path, "re");
  if (file == nullptr) return 0;
  char line[256];
  while (std::fgets(line, sizeof line, file) != nullptr) {
    if (std::strncmp(line, name, std::strlen(name)) == 0) std::sscanf(line + std::strlen(name), ": %zu", &found);
  }
  std::fclose(file);
  return found;
}

// A million, or as many as there is memory for: a page of stack, a block, and the page tables each.
std::size_t how_many() {
  constexpr std::size_t wanted = (CONCUR_ASAN != 0 || CONCUR_TSAN != 0) ? 4000 : sizeof(void*) == 8 ? 1000000 : 10000;
  constexpr std::size_t kilobytes_each = 7;
  const std::size_t available = kilobytes_in("/proc/meminfo", "MemAvailable");
  const std::size_t fitting = available / kilobytes_each;
  if (available == 0) return wanted < 10000 ? wanted : 10000;
  if (fitting >= wanted) return wanted;
  MESSAGE("scaled down: ", available / 1024, " MB are available");
  return fitting;
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Parks n fibers on one channel, lets `look` see them, and wakes them all.
template <class Look>
void park_and_wake(concur::runtime& rt, std::size_t n, Look look) {
  std::atomic<std::size_t> woken{0};
  std::atomic<std::size_t> sum{0};
  concur::channel<std::size_t> gate;
  rt.block_on([&] {
    const auto begin = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < n; ++i) {
      concur::go([&woken, &sum, gate, i]() mutable {
        const std::optional<std::size_t> value = gate.recv();
        sum.fetch_add(value ? *value : i, std::memory_order_relaxed);
        woken.fetch_add(1, std::memory_order_relaxed);
      });
      if (i % 1024 == 1023) concur::this_fiber::yield();
    }
    MESSAGE(n, " fibers were made in ", seconds_since(begin), " s");
  });
  // Parked they all are when nothing runs any more.
  while (rt.snapshot().idle_workers != rt.snapshot().workers) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  CHECK(woken.load() == 0);
  look();
  const auto begin = std::chrono::steady_clock::now();
  rt.block_on([&] {
    for (std::size_t i = 0; i < n; ++i) gate.send(std::size_t{1});
  });
  rt.wait_for_all();
  MESSAGE("and woken in ", seconds_since(begin), " s");
  CHECK(woken.load() == n);
  CHECK(sum.load() == n);
  CHECK(rt.snapshot().fibers_live == 0);
}

}  // namespace

TEST_CASE("a million parked fibers, all guarded, cost a page each and come back") {
  const nothing_left_over guard;
  const std::size_t n = how_many();
  concur::runtime rt(with_workers(2));
  rt.block_on([] {});
  const std::size_t resident_before = kilobytes_in("/proc/self/status", "VmRSS");
  const std::size_t tables_before = kilobytes_in("/proc/self/status", "VmPTE");
  park_and_wake(rt, n, [&] {
    const concur::stats now = rt.snapshot();
    CHECK(now.fibers_live == n);
    CHECK(now.stacks_live >= n);
    const std::size_t resident = kilobytes_in("/proc/self/status", "VmRSS") - resident_before;
    const std::size_t tables = kilobytes_in("/proc/self/status", "VmPTE") - tables_before;
    const std::size_t bytes_each = resident * 1024 / n;
    MESSAGE(n, " parked fibers: ", bytes_each, " bytes resident each, ", resident / 1024, " MB, and ", tables / 1024,
            " MB of page tables");
    if (now.guard == concur::stack_guard::madvise) {
      CHECK(now.guard == concur::stack_guard::madvise);  // the weakest of all stacks: so all of them are
    } else {
      MESSAGE("the kernel has no guards without mappings; the first stacks only are guarded: ",
              static_cast<int>(now.guard));
    }
    if (resident_before != 0 && is_optimised) CHECK(bytes_each <= 4500);
  });
}

// The stacks come from the pool now, and nothing grows.
TEST_CASE("parked again and again they take no more memory than the first time") {
  const nothing_left_over guard;
  const std::size_t n = how_many() / 50;
  concur::runtime rt(with_workers(2));
  std::size_t made = 0;
  for (int round = 0; round < 5; ++round) {
    park_and_wake(rt, n, [&] {
      const std::size_t now = rt.snapshot().stacks_made;
      // Each worker keeps some stacks in hand.
      if (round != 0)
        CHECK(now <= made + 256);
      else
        made = now;
    });
  }
}
