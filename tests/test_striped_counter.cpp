// test_striped_counter.cpp - striped_counter: nothing is lost, and a sum contains what happened before it.
#include "support/tally.hpp"
#include "support/test.hpp"
#include "support/threads.hpp"

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <limits>
#include <set>
#include <thread>
#include <vector>

using concur::striped_counter;

namespace {

constexpr int rounds = (CONCUR_TSAN || CONCUR_ASAN ? 1'000 : 100'000) * CONCUR_TEST_SCALE;

std::uint32_t stripe_of_this_thread() {
  return concur::detail::stripe_of(reinterpret_cast<std::uintptr_t>(&errno), 4);
}

struct pair_of_threads {
  int first = -1, second = -1;
};
pair_of_threads first_that_share(const std::uint32_t* stripe, int threads) {
  for (int i = 0; i < threads; ++i) {
    for (int j = 0; j < i; ++j) {
      if (stripe[i] == stripe[j]) return {j, i};
    }
  }
  return {};
}

}  // namespace

TEST_CASE("it adds and subtracts, below zero and over the ends") {
  const nothing_left_over guard;
  using limits = std::numeric_limits<std::ptrdiff_t>;
  striped_counter count;
  CHECK(count.sum() == 0);
  count.add();
  count.add(5);
  count.sub(2);
  count.sub();
  CHECK(count.sum() == 3);
  count.sub(10);
  CHECK(count.sum() == -7);
  count.add(-3);
  count.sub(-20);
  CHECK(count.sum() == 10);
  count.add((limits::max)() - 10);
  CHECK(count.sum() == (limits::max)());
  count.add();  // modulo the width
  CHECK(count.sum() == (limits::min)());
  count.sub((limits::min)());
  CHECK(count.sum() == 0);
}

TEST_CASE("many threads: when they are done the sum is exact") {
  const nothing_left_over guard;
  striped_counter up, balance;
  in_threads(24, [&](int me) {
    for (int i = 0; i < rounds; ++i) {
      up.add();
      me % 2 == 0 ? balance.add(2) : balance.sub(3);
    }
  });
  CHECK(up.sum() == std::ptrdiff_t{24} * rounds);
  CHECK(balance.sum() == std::ptrdiff_t{12} * rounds * (2 - 3));
}

// Of 17 threads two at least fall on one of 16 stripes; these two add.
TEST_CASE("two threads that share a stripe lose nothing") {
  const nothing_left_over guard;
  constexpr int threads = 17;
  std::uint32_t stripe[threads];
  std::atomic<int> arrived{0};
  std::atomic<int> adders{0};
  striped_counter count;
  in_threads(threads, [&](int me) {
    stripe[me] = stripe_of_this_thread();
    arrived.fetch_add(1);
    while (arrived.load() < threads) std::this_thread::yield();
    const pair_of_threads both = first_that_share(stripe, threads);
    if (me != both.first && me != both.second) return;
    adders.fetch_add(1);
    while (adders.load() < 2) std::this_thread::yield();
    for (int i = 0; i < 10 * rounds; ++i) count.add();
  });
  CHECK(adders.load() == 2);
  CHECK(count.sum() == std::ptrdiff_t{20} * rounds);
}

TEST_CASE("what one thread adds may be taken by another") {
  const nothing_left_over guard;
  striped_counter live;
  in_threads(8, [&](int) { live.add(1000); });
  CHECK(live.sum() == 8000);
  in_threads(8, [&](int) { live.sub(1000); });
  CHECK(live.sum() == 0);
}

TEST_CASE("a sum beside adds contains what happened before, and nothing that nobody added") {
  const nothing_left_over guard;
  striped_counter count;
  std::atomic<int> said{0};
  tally held;
  std::thread adder([&] {
    for (int i = 1; i <= rounds; ++i) {
      count.add();
      said.store(i, std::memory_order_release);
    }
  });
  std::ptrdiff_t last = 0;
  while (last < rounds) {
    const int before = said.load(std::memory_order_acquire);
    const std::ptrdiff_t now = count.sum();
    CONCUR_EXPECT(held, now >= before);
    CONCUR_EXPECT(held, now <= rounds);
    CONCUR_EXPECT(held, now >= last);
    last = now;
  }
  adder.join();
  CHECK(held.report() == "");
}

TEST_CASE("threads spread over the stripes") {
  const nothing_left_over guard;
  constexpr int threads = 32;
  std::uint32_t stripe[threads];
  std::atomic<int> arrived{0};
  in_threads(threads, [&](int me) {
    stripe[me] = stripe_of_this_thread();
    arrived.fetch_add(1);
    while (arrived.load() < threads) std::this_thread::yield();  // all there at once: no address is used twice
  });
  CHECK(std::set<std::uint32_t>(stripe, stripe + threads).size() >= 6);
  // Addresses at equal distances, whatever the distance.
  for (std::uint64_t apart = 64; apart < (1u << 30); apart = apart * 2 + 4096) {
    std::set<std::uint32_t> seen;
    for (std::uint64_t i = 0; i < 64; ++i) seen.insert(concur::detail::stripe_of(0x7f0012345000 + i * apart, 4));
    CHECK(seen.size() >= 4);
  }
}
