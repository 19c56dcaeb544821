// test_parker.cpp - that a token is never lost, never doubled, and carries with it what was written before.
//
// A lost token shows as a wait that runs into its deadline of ten seconds, never as a hang.
#include "concur.hpp"

#include <doctest/doctest.h>

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <random>
#include <thread>
#include <vector>

using concur::detail::now_ns;
using concur::detail::parker;

namespace {

constexpr std::int64_t ms = 1000000;
constexpr std::int64_t much_too_long = 10000 * ms;

bool takes_token_in_time(parker& one) { return one.park_until(now_ns() + much_too_long); }
bool has_token(parker& one) { return one.park_until(0); }

// Burns a little time, which the compiler must not see through.
void spin(unsigned rounds) {
  for (volatile unsigned i = 0; i < rounds; i = i + 1) {
  }
}

}  // namespace

TEST_CASE("a token left before is taken without blocking") {
  parker one;
  one.unpark();
  one.park();
  CHECK_FALSE(has_token(one));
}

TEST_CASE("many tokens are one") {
  parker one;
  for (int i = 0; i < 10; ++i) one.unpark();
  CHECK(has_token(one));
  CHECK_FALSE(has_token(one));
}

TEST_CASE("a time that has passed takes a token and does not block") {
  parker one;
  for (const std::int64_t past : {INT64_MIN, std::int64_t{-1}, std::int64_t{0}, std::int64_t{1}, now_ns()}) {
    CHECK_FALSE(one.park_until(past));
    one.unpark();
    CHECK(one.park_until(past));
  }
}

TEST_CASE("a deadline is kept and never early") {
  parker one;
  for (const std::int64_t length : {std::int64_t{1}, std::int64_t{999}, std::int64_t{150000}, 3 * ms, 20 * ms}) {
    const std::int64_t deadline = now_ns() + length;
    CHECK_FALSE(one.park_until(deadline));
    CHECK(now_ns() >= deadline);
  }
}

TEST_CASE("a parked thread is woken, and sees what was written before") {
  parker one;
  int plain = 0;
  std::thread owner([&] {
    one.park();
    CHECK(plain == 7);
  });
  plain = 7;
  one.unpark();
  owner.join();
}

TEST_CASE("two threads hand a plain number to and fro") {
  constexpr int rounds = 20000;
  parker here;
  parker there;
  int ball = 0;
  bool is_complete = true;
  std::thread other([&] {
    for (int i = 0; i < rounds; ++i) {
      if (!takes_token_in_time(there)) is_complete = false;
      ++ball;
      here.unpark();
    }
  });
  for (int i = 0; i < rounds; ++i) {
    ++ball;
    there.unpark();
    if (!takes_token_in_time(here)) is_complete = false;
  }
  other.join();
  CHECK(is_complete);
  CHECK(ball == 2 * rounds);
}

// Mutant 20: looking for the token and announcing oneself as parked in two steps overwrites a token that comes between.
TEST_CASE("a token that arrives while the owner is about to park is not lost") {
  constexpr int rounds = 200000;
  parker one;
  std::atomic<int> announced{0};
  std::thread waker([&] {
    std::minstd_rand random(1);
    for (int i = 1; i <= rounds; ++i) {
      while (announced.load(std::memory_order_acquire) < i) {
      }
      spin(static_cast<unsigned>(random() % 8));
      one.unpark();
    }
  });
  int lost = 0;
  for (int i = 1; i <= rounds; ++i) {
    announced.store(i, std::memory_order_release);
    if (lost == 0 && !one.park_until(now_ns() + 1000 * ms)) ++lost;
    if (lost != 0) break;
  }
  if (lost != 0) announced.store(rounds, std::memory_order_release);
  waker.join();
  CHECK(lost == 0);
}

// Mutant 21: giving up with a plain store destroys a token that came between the timeout and the store.
TEST_CASE("a token that arrives together with the deadline is not lost") {
  constexpr int rounds = 12000;
  parker one;
  std::atomic<int> announced{0};
  std::atomic<bool> is_over{false};
  std::thread waker([&] {
    std::minstd_rand random(2);
    for (int i = 1; i <= rounds; ++i) {
      while (announced.load(std::memory_order_acquire) < i && !is_over.load(std::memory_order_acquire)) {
      }
      // The kernel is some 50 us late with the deadlines below; this falls on both sides of it.
      const std::int64_t until = now_ns() + static_cast<std::int64_t>(random() % 100000);
      while (now_ns() < until) {
      }
      one.unpark();
    }
  });
  int lost = 0;
  for (int i = 1; i <= rounds && lost == 0; ++i) {
    announced.store(i, std::memory_order_release);
    if (one.park_until(now_ns() + 10000)) continue;
    if (!one.park_until(now_ns() + 1000 * ms)) ++lost;  // one unpark a round, so it is still to come
  }
  is_over.store(true, std::memory_order_release);
  waker.join();
  CHECK(lost == 0);
}

TEST_CASE("an owner that looks, finds nothing and parks misses nothing of what many announce") {
  constexpr int threads = 4;
  constexpr int each = 5000;
  parker one;
  std::atomic<int> announced{0};
  std::vector<std::thread> wakers;
  for (int t = 0; t < threads; ++t) {
    wakers.emplace_back([&] {
      for (int i = 0; i < each; ++i) {
        announced.fetch_add(1, std::memory_order_relaxed);
        one.unpark();
      }
    });
  }
  bool is_in_time = true;
  while (is_in_time && announced.load(std::memory_order_relaxed) < threads * each) {
    is_in_time = takes_token_in_time(one);
  }
  CHECK(is_in_time);
  for (std::thread& waker : wakers) waker.join();
}

TEST_CASE("a signal does not end a park") {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  struct sigaction before {};
  REQUIRE(::sigaction(SIGUSR1, &action, &before) == 0);

  parker one;
  std::atomic<bool> is_over{false};
  const pthread_t self = ::pthread_self();
  std::thread sender([&] {
    while (!is_over.load(std::memory_order_acquire)) {
      ::pthread_kill(self, SIGUSR1);
      std::this_thread::yield();
    }
  });
  const std::int64_t deadline = now_ns() + 30 * ms;
  CHECK_FALSE(one.park_until(deadline));
  CHECK(now_ns() >= deadline);
  is_over.store(true, std::memory_order_release);
  sender.join();
  ::sigaction(SIGUSR1, &before, nullptr);
}
