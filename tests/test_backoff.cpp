// test_backoff.cpp - backoff: how long its steps are, when they stop spinning.
#include "support/test.hpp"

#include <atomic>
#include <cstdint>
#include <limits>
#include <set>
#include <thread>

using concur::backoff;
using concur::detail::jittered_pauses;

TEST_CASE("a step is between half of its limit and all of it, and the limit doubles") {
  const nothing_left_over guard;
  for (unsigned round = 0; round < concur::detail::spinning_rounds; ++round) {
    const std::uint32_t most = 1u << round;
    std::set<std::uint32_t> seen;
    for (std::uint32_t random = 1; random < 100'000; random += 7) seen.insert(jittered_pauses(round, random));
    CHECK(*seen.begin() == most - most / 2);
    CHECK(*seen.rbegin() == most);
    CHECK(seen.size() == most / 2 + 1);  // every length in between
  }
  CHECK(jittered_pauses(1'000, 1) <= 256);
  CHECK(jittered_pauses((std::numeric_limits<unsigned>::max)(), 0) == 256);
}

TEST_CASE("it is spent when it no longer spins, and reset begins anew") {
  const nothing_left_over guard;
  for (backoff wait : {backoff(), backoff(0), backoff(12345)}) {
    for (int again = 0; again < 2; ++again) {
      int steps = 0;
      for (; !wait.is_spent(); ++steps) wait.pause();
      CHECK(steps == 8);
      for (int i = 0; i < 100; ++i) wait.pause();  // yields, then sleeps: it comes back each time
      CHECK(wait.is_spent());
      wait.reset();
      CHECK(!wait.is_spent());
    }
  }
}

TEST_CASE("two threads wait for each other, more often than there are cores to spin on") {
  const nothing_left_over guard;
  const int rounds = CONCUR_TSAN || CONCUR_ASAN ? 500 : 5'000;
  std::atomic<int> turn{0};
  const auto play = [&](int me) {
    for (int i = 0; i < rounds; ++i) {
      for (backoff wait; turn.load(std::memory_order_acquire) % 4 != me;) wait.pause();
      turn.fetch_add(1, std::memory_order_release);
    }
  };
  std::thread others[] = {std::thread(play, 0), std::thread(play, 1), std::thread(play, 2)};
  play(3);
  for (std::thread& one : others) one.join();
  CHECK(turn.load() == 4 * rounds);
}
