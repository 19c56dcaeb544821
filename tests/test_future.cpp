// test_future.cpp - one result, taken once, whoever comes first; and where an exception goes that nobody takes.
#include "support/companion.hpp"
#include "support/results.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

using concur::future;
using namespace std::chrono_literals;

namespace {

using steady = std::chrono::steady_clock;

int twice(int n) { return 2 * n; }

}  // namespace

static_assert(!std::is_copy_constructible<future<int>>::value, "there is one result, and one who takes it");
static_assert(std::is_nothrow_move_constructible<future<int>>::value &&
                  std::is_nothrow_move_assignable<future<int>>::value,
              "");
static_assert(std::is_same<decltype(std::declval<future<int&>&>().get()), int&>::value, "a reference stays one");

TEST_CASE("get, before and after the result is there") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    concur::runtime rt(with_workers(2));
    for (const bool comes_late : {false, true}) {
      concur::channel<int> gate;
      future<int> result = rt.go([&] { return *gate.recv() + 1; });
      CHECK(result.valid());
      CHECK_FALSE(result.ready());
      CHECK_FALSE(result.wait_for(0ms));
      int got = 0;
      if (comes_late) {
        gate.send(4);
        result.wait();
        CHECK(result.ready());
        CHECK(result.wait_for(-1ms));
        CHECK(result.wait_until(steady::now() - 1h));
        got = result.get();
      } else {
        companion getter(which, [&] { got = result.get(); });
        REQUIRE(getter.wait_until_parked());
        gate.send(4);
        getter.join();
      }
      CHECK(got == 5);
      CHECK_FALSE(result.valid());
      CHECK_FALSE(result.ready());
      CHECK_THROWS_AS(result.get(), std::future_error);
      CHECK_THROWS_AS(result.wait(), std::future_error);
      CHECK_THROWS_AS(result.wait_for(1ms), std::future_error);
    }
  });
}

TEST_CASE("an empty future says so") {
  const nothing_left_over guard;
  future<void> none;
  CHECK_FALSE(none.valid());
  CHECK_FALSE(none.ready());
  try {
    none.get();
    CHECK(false);
  } catch (const std::future_error& error) {
    const bool has_no_state = error.code() == std::make_error_code(std::future_errc::no_state);
    CHECK(has_no_state);
  }
}

TEST_CASE("a limited wait ends in time and not before, and takes nothing") {
  const nothing_left_over guard;
  everywhere([](kind) {
    concur::runtime rt(with_workers(1));
    concur::channel<void> gate;
    future<int> result = rt.go([&] {
      gate.recv();
      return 3;
    });
    for (const auto limit : {-1h, 0h}) CHECK_FALSE(result.wait_for(limit));
    CHECK_FALSE(result.wait_for(std::chrono::nanoseconds::min()));
    CHECK_FALSE(result.wait_until(steady::time_point::min()));
    const auto begin = steady::now();
    CHECK_FALSE(result.wait_for(3ms));
    CHECK(steady::now() - begin >= 3ms);
    gate.send();
    CHECK(result.wait_for(much_too_long));
    CHECK(result.get() == 3);
  });
}

TEST_CASE("a deadline that has passed only looks, and does not park") {
  const nothing_left_over guard;
  concur::runtime rt(with_workers(1));
  rt.block_on([&] {
    concur::channel<void> gate;
    future<void> result = concur::go([&] { gate.recv(); });
    concur::this_fiber::yield();
    const std::size_t before = rt.snapshot().switches;
    for (int i = 0; i < 50; ++i) {
      if (result.wait_for(-1ns) || result.wait_for(0s) || result.wait_until(steady::now() - 1h)) throw 1;
    }
    // Now and then a fiber that never waits lets others run.
    const std::size_t parked = rt.snapshot().switches - before;
    gate.send();
    if (parked > 20) throw special_error(static_cast<int>(parked));
  });
}

TEST_CASE("results of every kind: void, reference, move-only, large, no default constructor") {
  const nothing_left_over guard;
  concur::run(with_workers(2), [] {
    int target = 1;
    future<int&> reference = concur::go([&]() -> int& { return target; });
    reference.get() = 9;
    CHECK(target == 9);
    CHECK(*concur::go([] { return std::make_unique<int>(4); }).get() == 4);
    concur::go([] {}).get();
    const auto large = concur::go([] {
                         std::array<int, 500> all{};
                         all[499] = 7;
                         return all;
                       }).get();
    CHECK(large[499] == 7);
    CHECK(concur::go([] { return counted(5); }).get().number == 5);
    const int constant = 6;
    CHECK(concur::go([&]() -> const int& { return constant; }).get() == 6);
    CHECK(concur::go(twice, 21).get() == 42);
  });
  CHECK(counted::live == 0);
}

TEST_CASE("an exception arrives as the type it was thrown with") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::run(with_workers(workers), [] {
      try {
        concur::go([]() -> int { throw special_error(12); }).get();
        CHECK(false);
      } catch (const special_error& error) {
        CHECK(error.number == 12);
      }
      CHECK_THROWS_AS(concur::go([] { throw 5; }).get(), int);
      // Taken: run has nothing to rethrow.
    });
  }
}

TEST_CASE("an exception that nobody takes is rethrown by run, the first of several") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    int number = 0;
    try {
      concur::run(with_workers(workers), [] {
        concur::go([] { throw special_error(1); });  // dropped before it ends
        future<void> kept = concur::go([] { throw special_error(2); });
        kept.wait();  // seen, and not taken
      });
    } catch (const special_error& error) {
      number = error.number;
    }
    CHECK((number == 1 || number == 2));

    // A later one does not replace the first.
    number = 0;
    try {
      concur::run(with_workers(workers), [] {
        for (int i = 1; i <= 3; ++i) {
          future<void> one = concur::go([i] { throw special_error(i); });
          one.wait();
        }
      });
    } catch (const special_error& error) {
      number = error.number;
    }
    CHECK(number == 1);
  }
}

TEST_CASE("a fiber that was cancelled is no failure") {
  const nothing_left_over guard;
  int result = 0;
  concur::run(with_workers(1), [&] {
    concur::go([] { throw concur::cancelled(); });
    result = 1;
  });
  CHECK(result == 1);
}

TEST_CASE("the root's own exception goes before all others") {
  const nothing_left_over guard;
  bool was_cancelled = false;
  CHECK_THROWS_AS(concur::run(with_workers(2),
                              [&] {
                                concur::go([&] {
                                  try {
                                    concur::this_fiber::sleep_for(1h);
                                  } catch (const concur::cancelled&) {
                                    was_cancelled = true;
                                    throw;
                                  }
                                });
                                throw special_error(1);
                              }),
                  special_error);
  (void)was_cancelled;  // whether it began at all before the end is open
}

TEST_CASE("a wait that is cancelled leaves the result to be had") {
  const nothing_left_over guard;
  concur::runtime other(with_workers(1));
  concur::channel<void> gate;
  future<int> result = other.go([&] {
    gate.recv();
    return 8;
  });
  {
    concur::runtime rt(with_workers(1));
    std::atomic<bool> has_begun{false};
    future<int> waiting = rt.go([&] {
      has_begun = true;
      return result.get();
    });
    while (!has_begun) std::this_thread::yield();
    rt.cancel_all();
    CHECK_THROWS_AS(waiting.get(), concur::cancelled);
  }
  CHECK(result.valid());
  gate.send();
  CHECK(result.get() == 8);
}

TEST_CASE("a future outlives its runtime") {
  const nothing_left_over guard;
  future<counted> value;
  future<void> error;
  future<void> dropped;
  {
    concur::runtime rt(with_workers(2));
    value = rt.go([] { return counted(3); });
    error = rt.go([] { throw special_error(4); });
    dropped = rt.go([] { throw special_error(5); });
    value.wait();
  }
  CHECK(value.ready());
  CHECK(value.get().number == 3);
  CHECK_THROWS_AS(error.get(), special_error);
  dropped = future<void>();  // its error has nowhere to go any more, and takes nobody with it
  CHECK(counted::live == 0);
}

TEST_CASE("moving and assigning futures") {
  const nothing_left_over guard;
  concur::run(with_workers(1), [] {
    future<int> a = concur::go([] { return 1; });
    future<int> b = std::move(a);
    CHECK_FALSE(a.valid());
    b = concur::go([] { return 2; });  // the first is dropped before it ran
    a = std::move(b);
    CHECK(a.get() == 2);
    future<int>& self = a;
    a = concur::go([] { return 3; });
    a = std::move(self);
    CHECK(a.get() == 3);
  });
}

TEST_CASE("the closure is gone before the result is there") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U}) {
    concur::run(with_workers(workers), [] {
      for (int i = 0; i < 200; ++i) {
        future<int> result = concur::go([held = counted(7)] { return held.number; });
        result.wait();
        REQUIRE(counted::live == 0);
        CHECK(result.get() == 7);
      }
    });
  }
}

TEST_CASE("what was written before the end is seen after get, from fibers and threads") {
  const nothing_left_over guard;
  everywhere([](kind) {
    concur::runtime rt(with_workers(2));
    for (int i = 0; i < 50; ++i) {
      int plain = 0;
      rt.go([&plain, i] { plain = i; }).get();
      CHECK(plain == i);
    }
  });
}

TEST_CASE("completing against dropping: the state is released once, and by the last") {
  const nothing_left_over guard;
  // Each state holds memory of its own, so that AddressSanitizer sees a second release or a lost one. The results are
  // counted.
  constexpr int rounds = 3000;
  std::atomic<int> ran{0};
  for (const unsigned workers : {1U, 2U, 4U}) {
    ran = 0;
    {
      concur::runtime rt(with_workers(workers));
      for (int i = 0; i < rounds; ++i) {
        std::array<char, 150> load{};  // does not fit in the fiber's block
        future<counted> result = rt.go([&ran, load, i] {
          ++ran;
          return counted(i + load[0]);
        });
        if (i % 4 == 1) std::this_thread::yield();
        if (i % 4 == 2) CHECK(result.get().number == i);
        if (i % 4 == 3) result.wait_for(std::chrono::nanoseconds(i % 64));
      }
      rt.wait_for_all();
    }
    CHECK(ran == rounds);
    CHECK(counted::live == 0);
  }
}

TEST_CASE("completing against timing out against cancelling: every wait ends once") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    std::atomic<int> ended{0};
    constexpr int pairs = 300;
    {
      concur::runtime rt(with_workers(workers));
      for (int i = 0; i < pairs; ++i) {
        rt.go([&, i] {
          future<int> inner = concur::go([i] {
            concur::this_fiber::sleep_for(std::chrono::microseconds(i % 7 * 40));
            return i;
          });
          while (!inner.wait_for(std::chrono::microseconds(i % 5 * 60))) {
          }
          if (inner.get() == i) ++ended;
        });
      }
      rt.wait_for_all();
    }
    CHECK(ended == pairs);
  }
}
