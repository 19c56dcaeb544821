// test_once.cpp - one runs, the others wait; a call that throws or is cancelled leaves it to the next.
#include "support/cancel.hpp"
#include "support/companion.hpp"
#include "support/tally.hpp"

#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using concur::call_once;
using concur::once_flag;

namespace {

once_flag constant_flag;  // constant-initialised

struct counter {
  int value = 0;
  void add(int n) { value += n; }
};

}  // namespace

TEST_CASE("of many calls one runs its function, and all see what it did") {
  const nothing_left_over guard;
  int calls_of_constant = 0;
  call_once(constant_flag, [&] { ++calls_of_constant; });
  call_once(constant_flag, [&] { ++calls_of_constant; });
  CHECK(calls_of_constant == 1);
  everywhere([](kind which) {
    tally held;
    once_flag flag;
    int plain = 0;
    std::vector<companion> callers;
    for (int i = 0; i < 10; ++i) {
      callers.emplace_back(i % 3 == 0 ? kind::thread : which, [&] {
        call_once(flag, [&] {
          concur::this_fiber::yield();
          ++plain;
        });
        CONCUR_EXPECT(held, plain == 1);
      });
    }
    call_once(flag, [&] { ++plain; });
    CHECK(plain == 1);
    for (companion& one : callers) one.join();
    CHECK(held.report() == "");
  });
}

TEST_CASE("arguments, members, move-only functions, and results that nobody wants") {
  const nothing_left_over guard;
  everywhere([](kind) {
    once_flag a, b, c, d;
    int sum = 0;
    call_once(
        a, [](int& into, int n) { into += n; }, sum, 5);
    CHECK(sum == 5);
    counter some;
    call_once(b, &counter::add, some, 3);
    call_once(b, &counter::add, some, 3);
    CHECK(some.value == 3);
    call_once(c, [p = std::make_unique<int>(4), &sum] { return sum += *p; });
    CHECK(sum == 9);
    auto taken = std::make_unique<int>(1);
    call_once(
        d, [](std::unique_ptr<int> p) { CHECK(*p == 1); }, std::move(taken));
    CHECK(taken == nullptr);
    taken = std::make_unique<int>(2);
    call_once(
        d, [](std::unique_ptr<int>) {}, std::move(taken));
    CHECK(taken != nullptr);  // not called, nothing moved
  });
}

TEST_CASE("others wait while it runs") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    once_flag flag;
    concur::event may_end;
    std::atomic<int> gone{0};
    companion runner(which, [&] { call_once(flag, [&] { may_end.wait(); }); });
    REQUIRE(runner.wait_until_parked());
    std::vector<companion> waiters;
    for (int i = 0; i < 3; ++i) {
      waiters.emplace_back(which, [&] {
        call_once(flag, [&] { gone = 100; });
        ++gone;
      });
      REQUIRE(waiters.back().wait_until_parked());
    }
    CHECK(gone == 0);
    may_end.set();
    runner.join();
    for (companion& one : waiters) one.join();
    CHECK(gone == 3);
  });
}

TEST_CASE("a call that throws leaves it unset, and the next in line runs its own") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    once_flag flag;
    CHECK_THROWS_AS(call_once(flag, [] { throw std::runtime_error("first"); }), std::runtime_error);
    concur::event may_end;
    std::vector<int> order;
    companion runner(which, [&] {
      call_once(flag, [&] {
        may_end.wait();
        order.push_back(0);
        throw std::runtime_error("second");
      });
    });
    REQUIRE(runner.wait_until_parked());
    std::vector<companion> waiters;
    for (int i = 1; i < 5; ++i) {
      waiters.emplace_back(which, [&, i] {
        call_once(flag, [&] {
          order.push_back(i);
          if (i < 3) throw std::runtime_error("again");
        });
      });
      REQUIRE(waiters.back().wait_until_parked());
    }
    may_end.set();
    CHECK_THROWS_AS(runner.join(), std::runtime_error);
    CHECK_THROWS_AS(waiters[0].join(), std::runtime_error);
    CHECK_THROWS_AS(waiters[1].join(), std::runtime_error);
    waiters[2].join();
    waiters[3].join();
    CHECK(order == std::vector<int>{0, 1, 2, 3});
    call_once(flag, [&] { order.clear(); });
    CHECK(order.size() == 4);
  });
}

TEST_CASE("a cancelled runner leaves it to the next; a cancelled waiter only leaves") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::run(with_workers(workers), [] {
      tally held;
      once_flag flag;
      concur_test::cancel_target runner_target;
      concur_test::cancel_target waiter_target;
      std::atomic<int> ran{0};
      const auto cancellable = [&](concur_test::cancel_target& target, bool parks) {
        target.enter();
        bool was_cancelled = false;
        try {
          call_once(flag, [&] {
            if (parks) concur::event().wait();
            ++ran;
          });
        } catch (const concur::cancelled&) {
          was_cancelled = true;
        }
        target.leave();
        CONCUR_EXPECT(held, was_cancelled);
      };
      companion runner(kind::fiber, [&] { cancellable(runner_target, true); });
      REQUIRE(runner.wait_until_parked());
      companion leaver(kind::fiber, [&] { cancellable(waiter_target, false); });
      REQUIRE(leaver.wait_until_parked());
      companion heir(kind::fiber, [&] { call_once(flag, [&] { ran += 10; }); });
      REQUIRE(heir.wait_until_parked());
      while (!waiter_target.strike()) concur::this_fiber::yield();
      leaver.join();
      CHECK(ran == 0);
      while (!runner_target.strike()) concur::this_fiber::yield();
      runner.join();
      heir.join();
      CHECK(ran == 10);
      CHECK(held.report() == "");
    });
  }
}

TEST_CASE("a function that calls its own flag is told so, and not left waiting for itself") {
  const nothing_left_over guard;
  everywhere([](kind) {
    once_flag flag;
    once_flag other;
    int ran = 0;
    call_once(flag, [&] {
      CHECK_THROWS_AS(call_once(flag, [&] { ran += 100; }), std::logic_error);
      call_once(other, [&] { ++ran; });
    });
    CHECK(ran == 1);
    // Uncaught, it is the function's exception like any other.
    once_flag third;
    CHECK_THROWS_AS(call_once(third, [&] { call_once(third, [] {}); }), std::logic_error);
    call_once(third, [&] { ++ran; });
    CHECK(ran == 2);
  });
}

TEST_CASE("an heir is known as the runner") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    once_flag flag;
    concur::event may_end;
    companion runner(which, [&] {
      call_once(flag, [&] {
        may_end.wait();
        throw std::runtime_error("no");
      });
    });
    REQUIRE(runner.wait_until_parked());
    companion heir(which, [&] {
      call_once(flag, [&] {
        bool is_told = false;
        try {
          call_once(flag, [] {});
        } catch (const std::logic_error&) {
          is_told = true;
        }
        CONCUR_EXPECT(held, is_told);
      });
    });
    REQUIRE(heir.wait_until_parked());
    may_end.set();
    CHECK_THROWS_AS(runner.join(), std::runtime_error);
    heir.join();
    CHECK(held.report() == "");
  });
}

TEST_CASE("a flag may go when a call has returned and no other is under way") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::run(with_workers(workers), [] {
      for (int i = 0; i < 500; ++i) {
        auto flag = std::make_unique<once_flag>();
        std::atomic<int> ran{0};
        concur::latch both(2);
        concur::go([&, raw = flag.get()] {
          call_once(*raw, [&] { ++ran; });
          both.count_down();
        });
        call_once(*flag, [&] { ++ran; });
        both.arrive_and_wait();
        REQUIRE(ran == 1);
      }
    });
  }
}
