// test_cas.cpp - cas_update, fetch_max and fetch_min: what they return, when they write, and with which order.
//
// They take anything that has an atomic's load and compare_exchange_weak, so most of it is asked of an atomic that keeps a
// record, and can do by itself what other threads would.
#include "support/tally.hpp"
#include "support/test.hpp"
#include "support/threads.hpp"

#include <atomic>
#include <cstdint>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

using concur::cas_update;
using concur::fetch_max;
using concur::fetch_min;

namespace {

// One thread's atomic. The first `intruders` exchanges find that another thread has come between, and added 100.
class recording {
 public:
  explicit recording(int value) : value_(value) {}
  int load(std::memory_order order) const {
    reads.push_back(order);
    return value_;
  }
  bool compare_exchange_weak(int& expected, int wanted, std::memory_order success, std::memory_order failure) {
    changes.push_back(success);
    reads.push_back(failure);
    if (intruders > 0) {
      --intruders;
      value_ += 100;
    }
    if (spurious > 0) {
      --spurious;
      expected = value_;
      return false;
    }
    if (value_ != expected) {
      expected = value_;
      return false;
    }
    value_ = wanted;
    ++writes;
    return true;
  }
  int value() const { return value_; }

  int intruders = 0;
  int spurious = 0;
  int writes = 0;
  mutable std::vector<std::memory_order> reads;  // the orders in which something was read
  std::vector<std::memory_order> changes;        // and in which something was, or should have been, written

 private:
  int value_;
};

struct order_case {
  std::memory_order whole, part;
};
constexpr order_case order_cases[] = {
    {std::memory_order_relaxed, std::memory_order_relaxed}, {std::memory_order_release, std::memory_order_relaxed},
    {std::memory_order_acquire, std::memory_order_acquire}, {std::memory_order_acq_rel, std::memory_order_acquire},
    {std::memory_order_seq_cst, std::memory_order_seq_cst},
};

bool are_all(const std::vector<std::memory_order>& orders, std::memory_order wanted) {
  for (const std::memory_order order : orders) {
    if (order != wanted) return false;
  }
  return true;
}

// Compiled only: whether such an atomic links without help is up to the compiler.
using maybe = std::optional<char>;
struct emptied {
  maybe operator()(maybe) const { return maybe(); }
};
static_assert(std::is_same<decltype(cas_update(std::declval<std::atomic<maybe>&>(), emptied())), maybe>::value,
              "an optional is a value where the atomic holds one");

constexpr int rounds = (CONCUR_TSAN || CONCUR_ASAN ? 2'000 : 100'000) * CONCUR_TEST_SCALE;

}  // namespace

TEST_CASE("cas_update writes what the function makes of the value, and returns what it was") {
  const nothing_left_over guard;
  std::atomic<int> number{21};
  CHECK(cas_update(number, [](int v) { return v * 2; }) == 21);
  CHECK(number.load() == 42);
  concur::detail::atomic<long> ours{5};
  CHECK(cas_update(ours, [](long v) { return v - 6; }, std::memory_order_relaxed) == 5);
  CHECK(ours.load() == -1);
  int target = 0;
  std::atomic<int*> pointer{nullptr};
  CHECK(cas_update(pointer, [&](int*) { return &target; }) == nullptr);
  CHECK(pointer.load() == &target);
}

TEST_CASE("the result narrows as += does") {
  const nothing_left_over guard;
  std::atomic<std::uint8_t> byte{255};
  CHECK(cas_update(byte, [](std::uint8_t v) { return v + 1; }) == 255);
  CHECK(byte.load() == 0);
  std::atomic<short> small{7};
  CHECK(cas_update(small, [](short v) { return v > 0 ? std::optional<int>(v - 1) : std::nullopt; }) == short{7});
  CHECK(small.load() == 6);
}

TEST_CASE("a function may refuse, and then nothing is written") {
  const nothing_left_over guard;
  const auto take = [](int n) { return n > 0 ? std::optional<int>(n - 1) : std::nullopt; };
  recording permits(1);
  CHECK(cas_update(permits, take) == 1);
  CHECK(permits.value() == 0);
  const std::optional<int> refused = cas_update(permits, take);
  CHECK(!refused.has_value());
  CHECK(permits.writes == 1);
  // Refused only when somebody came between.
  recording limited(50);
  limited.intruders = 1;
  int seen_last = 0;
  const auto below_100 = [&](int v) {
    seen_last = v;
    return v < 100 ? std::optional<int>(v + 1) : std::nullopt;
  };
  CHECK(!cas_update(limited, below_100).has_value());
  CHECK(seen_last == 150);
  CHECK(limited.writes == 0);
}

TEST_CASE("the function is asked again with what another thread left, and for no reason") {
  const nothing_left_over guard;
  recording number(1);
  number.intruders = 2;
  number.spurious = 3;
  int calls = 0;
  const auto twice = [&](int v) {
    ++calls;
    return v * 2;
  };
  CHECK(cas_update(number, twice) == 201);
  CHECK(number.value() == 402);
  CHECK(calls == 4);
  CHECK(number.writes == 1);
}

TEST_CASE("a function that throws has changed nothing") {
  const nothing_left_over guard;
  std::atomic<int> number{1};
  const auto fail = [](int v) -> int { throw std::runtime_error(std::to_string(v)); };
  CHECK(text_of<std::runtime_error>([&] { cas_update(number, fail); }) == "1");
  CHECK(number.load() == 1);
}

TEST_CASE("what is read has the load's part of the order, what is written all of it") {
  const nothing_left_over guard;
  for (const order_case& each : order_cases) {
    recording plain(1), refusable(1), high(1), low(1), unchanged(1);
    plain.intruders = refusable.intruders = high.intruders = low.intruders = 1;
    cas_update(plain, [](int v) { return v + 1; }, each.whole);
    cas_update(refusable, [](int v) { return std::optional<int>(v + 1); }, each.whole);
    fetch_max(high, 1000, each.whole);
    fetch_min(low, -1, each.whole);
    fetch_max(unchanged, 1, each.whole);
    for (const recording* one : {&plain, &refusable, &high, &low}) {
      CHECK(one->changes.size() == 2);
      CHECK(are_all(one->changes, each.whole));
      CHECK(are_all(one->reads, each.part));
    }
    CHECK(unchanged.reads == std::vector<std::memory_order>{each.part});
  }
}

TEST_CASE("fetch_max and fetch_min keep the extreme, and return what was there") {
  const nothing_left_over guard;
  std::atomic<int> peak{3};
  CHECK(fetch_max(peak, 5) == 3);
  CHECK(fetch_max(peak, 4) == 5);
  CHECK(peak.load() == 5);
  CHECK(fetch_min(peak, 5) == 5);
  CHECK(fetch_min(peak, -5) == 5);
  CHECK(peak.load() == -5);
  concur::detail::atomic<std::size_t> wide{0};
  CHECK(fetch_max(wide, (std::numeric_limits<std::size_t>::max)()) == 0);
  CHECK(fetch_max(wide, 1) == (std::numeric_limits<std::size_t>::max)());
  std::atomic<float> real{0.5f};
  CHECK(fetch_max(real, std::numeric_limits<float>::quiet_NaN()) == 0.5f);  // which is not larger than anything
  CHECK(fetch_max(real, 1) == 0.5f);
  CHECK(real.load() == 1.0f);
}

TEST_CASE("they write only what changes the value") {
  const nothing_left_over guard;
  recording number(10);
  CHECK(fetch_max(number, 10) == 10);
  CHECK(fetch_max(number, 9) == 10);
  CHECK(fetch_min(number, 10) == 10);
  CHECK(fetch_min(number, 11) == 10);
  CHECK(number.writes == 0);
  CHECK(number.changes.empty());
  // Another thread made it larger meanwhile: nothing is left to do.
  number.intruders = 1;
  CHECK(fetch_max(number, 50) == 110);
  CHECK(number.writes == 0);
}

TEST_CASE("many threads: no update is lost, no permit is taken twice, the peak is the peak") {
  const nothing_left_over guard;
  std::atomic<int> sum{0};
  std::atomic<int> permits{rounds};
  std::atomic<int> taken{0};
  std::atomic<int> peak{-1};
  std::atomic<int> least{1};
  in_threads(4, [&](int me) {
    for (int i = 0; i < rounds; ++i) {
      cas_update(sum, [](int v) { return v + 1; }, std::memory_order_relaxed);
      const auto take = [](int n) { return n > 0 ? std::optional<int>(n - 1) : std::nullopt; };
      if (cas_update(permits, take, std::memory_order_relaxed)) taken.fetch_add(1);
      fetch_max(peak, i * 4 + me, std::memory_order_relaxed);
      fetch_min(least, -(i * 4 + me), std::memory_order_relaxed);
    }
  });
  CHECK(sum.load() == 4 * rounds);
  CHECK(permits.load() == 0);
  CHECK(taken.load() == rounds);
  CHECK(peak.load() == 4 * (rounds - 1) + 3);
  CHECK(least.load() == -(4 * (rounds - 1) + 3));
}

// ThreadSanitizer looks whether the plain memory is ordered.
TEST_CASE("a change that releases publishes to one that acquires") {
  const nothing_left_over guard;
  for (int round = 0; round < 20; ++round) {
    int first = 0, second = 0;
    std::atomic<int> stage{0};
    std::thread other([&] {
      first = 1;
      cas_update(stage, [](int v) { return v + 1; }, std::memory_order_release);
      while (fetch_max(stage, 0, std::memory_order_acquire) < 10) std::this_thread::yield();
      first = second;
    });
    while (!cas_update(stage, [](int v) { return v == 1 ? std::optional<int>(2) : std::nullopt; },
                       std::memory_order_acquire)) {
      std::this_thread::yield();
    }
    second = first + 1;
    fetch_max(stage, 10, std::memory_order_release);
    other.join();
    CHECK(first == 2);
  }
}
