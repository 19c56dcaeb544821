// tests/explore_engine.cpp - the explorer itself, with threads interrupted at each atomic operation and with weak memory:
// the same seed gives the same trace, a replay is the schedule again, and what a weak memory may do is done.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "support/scenario.hpp"

using namespace concur_test;
using namespace std::chrono_literals;
using concur::explore_expect;
using concur::explored_thread;

namespace {

// A bit of everything: channels, a select, a lock, timers, a cancellation.
void a_bit_of_everything() {
  concur::channel<int> a(2);
  concur::channel<int> b;
  concur::mutex lock;
  int sum = 0;
  concur::with_nursery([&](concur::nursery& n) {
    n.go([&] {
      for (int i = 0; i < 3; ++i) a.send(i);
      a.close();
    });
    n.go([&] {
      for (int i = 0; i < 3; ++i) {
        concur::this_fiber::sleep_for(std::chrono::milliseconds(i));
        b.send(i);
      }
      b.close();
    });
    n.go([&] {
      bool is_open[2] = {true, true};
      const auto add = [&](int which, std::optional<int> value) {
        lock.lock();
        if (value) sum += *value;
        lock.unlock();
        is_open[which] = value.has_value();
      };
      while (is_open[0] || is_open[1]) {
        if (!is_open[0]) {
          add(1, b.recv());
        } else if (!is_open[1]) {
          add(0, a.recv());
        } else {
          concur::select(concur::recv(a, [&](std::optional<int> value) { add(0, value); }),
                         concur::recv(b, [&](std::optional<int> value) { add(1, value); }), concur::after(1ms, [] {}));
        }
      }
    });
    concur::move_on_after(2ms, [] { concur::this_fiber::sleep_for(1h); });
  });
  explore_expect(sum == 6, "a value is missing");
}

// Fails now and then.
void fail_now_and_then() {
  int balance = 0;
  concur::with_nursery([&](concur::nursery& n) {
    for (int i = 0; i < 2; ++i) {
      n.go([&] {
        const int seen = balance;
        concur::this_fiber::yield();
        balance = seen + 1;
      });
    }
  });
  explore_expect(balance == 2, "an update was lost");
}

concur::explore_options one_schedule(std::uint64_t seed) {
  concur::explore_options given;
  given.schedules = 1;
  given.seed = seed;
  given.shrink = 0;
  given.strategy = seed % 3 == 0 ? concur::pct(1 + static_cast<unsigned>(seed % 5)) : concur::random;
  given.weak_memory = seed % 2 == 0;
  given.workers = 1 + static_cast<unsigned>(seed % 4);
  return given;
}

concur::explore_report search(void (*program)(), bool is_weak, unsigned bound = 3) {
  concur::explore_options given;
  given.schedules = 2'000'000;
  given.strategy = concur::exhaustive(bound);
  given.workers = 0;
  given.weak_memory = is_weak;
  return concur::try_explore(program, given);
}

}  // namespace

TEST_CASE("the same seed gives the same trace, ten thousand times") {
  const nothing_left_over guard;
  constexpr std::uint64_t seeds = CONCUR_ASAN != 0 || CONCUR_TSAN != 0 ? 300 : 10'000;
  std::vector<std::uint64_t> traces;
  for (std::uint64_t seed = 0; seed < seeds; ++seed)
    traces.push_back(concur::try_explore(a_bit_of_everything, one_schedule(seed)).trace_hash);
  std::vector<void*> litter;  // what the heap looks like is no part of a schedule
  std::uint64_t differing = 0;
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    litter.push_back(std::malloc(16 + seed * 7 % 4000));
    const concur::explore_report again = concur::try_explore(a_bit_of_everything, one_schedule(seed));
    if (again.trace_hash != traces[seed] || !again.ok) ++differing;
  }
  for (void* one : litter) std::free(one);
  CHECK(differing == 0);
  CHECK(std::set<std::uint64_t>(traces.begin(), traces.end()).size() > seeds / 2);
}

TEST_CASE("a thousand failures, each seen again from its seed and from its decisions") {
  const nothing_left_over guard;
  constexpr std::uint64_t wanted = CONCUR_ASAN != 0 || CONCUR_TSAN != 0 ? 30 : 1000;
  std::uint64_t found = 0;
  std::uint64_t seen_again = 0;
  for (std::uint64_t seed = 0; found < wanted && seed < 100 * wanted; ++seed) {
    const concur::explore_report failed = concur::try_explore(fail_now_and_then, one_schedule(seed));
    if (failed.ok) continue;
    ++found;
    const concur::explore_report again = concur::try_replay(failed.seed, fail_now_and_then);
    if (!again.ok && again.what == failed.what && again.trace_hash == failed.trace_hash) ++seen_again;
  }
  CHECK(found == wanted);
  CHECK(seen_again == wanted);
}

TEST_CASE("another process comes to the same traces") {
  const nothing_left_over guard;
  const auto trace_of_many = [] {
    std::uint64_t all = 0;
    for (std::uint64_t seed = 0; seed < 200; ++seed)
      all = all * 31 + concur::try_explore(a_bit_of_everything, one_schedule(seed)).trace_hash;
    return all;
  };
  const char* const asked = std::getenv("CONCUR_TRACE_OF_MANY");
  if (asked != nullptr) {
    std::printf("trace %llu\n", static_cast<unsigned long long>(trace_of_many()));
    return;
  }
#if defined(__linux__)
  char self[4096] = {};
  REQUIRE(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
  const std::string command = "CONCUR_TRACE_OF_MANY=1 '" + std::string(self) + "' -tc='another process*'";
  std::FILE* other = popen(command.c_str(), "r");
  REQUIRE(other != nullptr);
  unsigned long long there = 0;
  char line[200];
  while (std::fgets(line, sizeof line, other) != nullptr) std::sscanf(line, "trace %llu", &there);
  pclose(other);
  CHECK(there == trace_of_many());
#else
  MESSAGE("skipped: needs /proc/self/exe");
#endif
}

TEST_CASE("store buffering: two threads that write and then read may both miss, unless all is seq_cst") {
  const nothing_left_over guard;
  const auto relaxed = [] {
    concur::explored_atomic<int> x{0};
    concur::explored_atomic<int> y{0};
    int a = 0;
    int b = 0;
    explored_thread first([&] {
      x.store(1, std::memory_order_relaxed);
      a = y.load(std::memory_order_relaxed);
    });
    explored_thread second([&] {
      y.store(1, std::memory_order_relaxed);
      b = x.load(std::memory_order_relaxed);
    });
    first.join();
    second.join();
    explore_expect(a + b != 0, "both missed");
  };
  const auto fenced = [] {
    concur::explored_atomic<int> x{0};
    concur::explored_atomic<int> y{0};
    int a = 0;
    int b = 0;
    explored_thread first([&] {
      x.store(1, std::memory_order_relaxed);
      concur::explored_fence(std::memory_order_seq_cst);
      a = y.load(std::memory_order_relaxed);
    });
    explored_thread second([&] {
      y.store(1, std::memory_order_relaxed);
      concur::explored_fence(std::memory_order_seq_cst);
      b = x.load(std::memory_order_relaxed);
    });
    first.join();
    second.join();
    explore_expect(a + b != 0, "both missed");
  };
  const concur::explore_report strong = search(relaxed, false);
  CHECK(strong.ok);
  CHECK(strong.is_complete);
  CHECK(!search(relaxed, true).ok);
  const concur::explore_report cured = search(fenced, true);
  CHECK(cured.ok);
  CHECK(cured.is_complete);
}

TEST_CASE("message passing: what is published without release is a data race") {
  const nothing_left_over guard;
  const auto passing = [](std::memory_order order) {
    static std::memory_order publishing;
    publishing = order;
    return search(
        [] {
          concur::explored_atomic<int> is_there{0};
          int message = 0;
          explored_thread writer([&] {
            concur::explore_write(&message, "the message");
            message = 1;
            is_there.store(1, publishing);
          });
          explored_thread reader([&] {
            if (is_there.load(std::memory_order_acquire) == 0) return;
            concur::explore_read(&message, "the message");
            explore_expect(message == 1, "an old message");
          });
          writer.join();
          reader.join();
        },
        true);
  };
  const concur::explore_report raced = passing(std::memory_order_relaxed);
  CHECK(!raced.ok);
  CHECK(raced.what.find("data race") == 0);
  CHECK(raced.what.find("the message") != std::string::npos);
  const concur::explore_report clean = passing(std::memory_order_release);
  CHECK(clean.ok);
  CHECK(clean.is_complete);
}

TEST_CASE("an exhaustive search runs every interleaving once") {
  const nothing_left_over guard;
  static std::set<std::string> seen;
  static int runs;
  seen.clear();
  runs = 0;
  // Two threads of two steps each: 4! / (2! * 2!) orders.
  const concur::explore_report report = search(
      [] {
        concur::explored_atomic<int> word{0};
        std::string order;
        const auto steps = [&](char name) {
          for (int i = 0; i < 2; ++i) {
            word.fetch_add(1, std::memory_order_relaxed);
            order += name;
          }
        };
        explored_thread first([&] { steps('a'); });
        explored_thread second([&] { steps('b'); });
        first.join();
        second.join();
        seen.insert(order);
        ++runs;
      },
      false, 4);
  CHECK(report.is_complete);
  CHECK(seen.size() == 6);
  CHECK(static_cast<std::size_t>(runs) == report.schedules);
}

TEST_CASE("shrinking leaves only the decisions that matter") {
  const nothing_left_over guard;
  concur::explore_options given;
  given.schedules = 5000;
  given.weak_memory = true;
  given.shrink = 1000;
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    given.seed = seed;
    given.shrink = 0;
    const concur::explore_report whole = concur::try_explore(fail_now_and_then, given);
    given.shrink = 1000;
    const concur::explore_report shorter = concur::try_explore(fail_now_and_then, given);
    REQUIRE(!whole.ok);
    CHECK(shorter.seed == whole.seed);
    CHECK(shorter.decisions <= whole.decisions);
    CHECK(shorter.decisions <= 6);
  }
}
