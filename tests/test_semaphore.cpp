// test_semaphore.cpp - permits: never more than there are, in the order of asking, and none lost.
#include "support/cancel.hpp"
#include "support/companion.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <limits>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

using concur::binary_semaphore;
using concur::counting_semaphore;
using namespace std::chrono_literals;

namespace {

using steady = std::chrono::steady_clock;

constexpr std::ptrdiff_t most = (std::numeric_limits<std::ptrdiff_t>::max)();

}  // namespace

TEST_CASE("TestWeightedTryAcquire: permits that are there are taken at once") {
  const nothing_left_over guard;
  everywhere([](kind) {
    counting_semaphore<> s(2);
    std::array<bool, 4> tries{};
    s.acquire(1);
    tries[0] = s.try_acquire(1);
    tries[1] = s.try_acquire(1);
    s.release(2);
    tries[2] = s.try_acquire(1);
    s.acquire(1);
    tries[3] = s.try_acquire(1);
    CHECK(tries == std::array<bool, 4>{true, false, true, false});
    s.release(2);
    CHECK_FALSE(s.try_acquire(3));
    CHECK(s.try_acquire(2));
    CHECK_FALSE(s.try_acquire());
    s.release();
    CHECK(s.try_acquire_for(0ms));
    CHECK_FALSE(s.try_acquire_for(-1h));
    s.acquire(0);
    CHECK(s.try_acquire(0));
    CHECK(s.try_acquire_for(0ms, 0));
    s.release(0);
    CHECK_FALSE(s.try_acquire());
  });
}

TEST_CASE("TestWeightedAcquire: a limited acquire ends in time, and takes nothing") {
  const nothing_left_over guard;
  everywhere([](kind) {
    counting_semaphore<> s(2);
    s.acquire(2);
    const auto begin = steady::now();
    CHECK_FALSE(s.try_acquire_for(3ms));
    CHECK(steady::now() - begin >= 3ms);
    CHECK_FALSE(s.try_acquire_until(begin));
    CHECK_FALSE(s.try_acquire_until(steady::now() + 1ms, 2));
    s.release(1);
    CHECK_FALSE(s.try_acquire_for(1ms, 2));
    CHECK(s.try_acquire_for(1h));
    s.release(2);
    CHECK(s.try_acquire_until((steady::time_point::max)(), 2));
  });
}

TEST_CASE("a waiter gets what is released; a release happens before the acquire") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    binary_semaphore s(0);
    binary_semaphore answer(0);
    int plain = 0;
    companion waiter(which, [&] {
      s.acquire();
      CHECK(plain == 1);
      answer.release();
      CHECK(s.try_acquire_for(20s));
      CHECK(plain == 2);
    });
    REQUIRE(waiter.wait_until_parked());
    ++plain;
    s.release();
    answer.acquire();
    ++plain;
    s.release();
    waiter.join();
    CHECK_FALSE(s.try_acquire());
  });
}

TEST_CASE("waiters are served in their order") {
  const nothing_left_over guard;
  for (const kind which : {kind::fiber, kind::thread}) {
    concur::run(with_workers(1), [which] {
      counting_semaphore<> s(0);
      std::vector<int> order;
      std::vector<companion> waiters;
      counting_semaphore<> turn(0);
      for (int i = 0; i < 5; ++i) {
        waiters.emplace_back(which, [&, i] {
          s.acquire(i % 2 + 1);
          order.push_back(i);
          turn.release();
        });
        REQUIRE(waiters.back().wait_until_parked());
      }
      for (int i = 0; i < 5; ++i) {
        s.release(i % 2 + 1);
        turn.acquire();
      }
      for (companion& one : waiters) one.join();
      CHECK(order == std::vector<int>{0, 1, 2, 3, 4});
    });
  }
}

TEST_CASE("one release serves as many as it suffices for") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    counting_semaphore<> s(0);
    std::atomic<int> served{0};
    std::vector<companion> waiters;
    for (int i = 0; i < 4; ++i) {
      waiters.emplace_back(which, [&] {
        s.acquire(2);
        ++served;
      });
      REQUIRE(waiters.back().wait_until_parked());
    }
    s.release(7);
    waiters[0].join();
    waiters[1].join();
    waiters[2].join();
    CHECK(served == 3);
    CHECK_FALSE(s.try_acquire());  // one is left, and kept for the fourth
    s.release();
    waiters[3].join();
    CHECK(served == 4);
    CHECK_FALSE(s.try_acquire());
  });
}

TEST_CASE("TestLargeAcquireDoesntStarve: small requests do not pass a large one, also those that would not wait") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    counting_semaphore<> s(4);
    s.acquire(3);
    std::atomic<bool> has_small{false};
    companion large(which, [&] {
      s.acquire(4);
      CHECK_FALSE(has_small);
      s.release(4);
    });
    REQUIRE(large.wait_until_parked());
    CHECK_FALSE(s.try_acquire());  // one is there, for the one at the head
    CHECK_FALSE(s.try_acquire_for(1ms));
    companion small(which, [&] {
      s.acquire();
      has_small = true;
      s.release();
    });
    REQUIRE(small.wait_until_parked());
    s.release(2);
    CHECK_FALSE(s.try_acquire());
    CHECK_FALSE(has_small);
    s.release();
    large.join();
    small.join();
    CHECK(s.try_acquire(4));
    CHECK_FALSE(s.try_acquire());
  });
}

TEST_CASE("TestLargeAcquireDoesntStarve: among many who come and go") {
  const nothing_left_over guard;
  concur::run(with_workers(2), [] {
    constexpr std::ptrdiff_t n = 8;
    counting_semaphore<n> s(n);
    std::atomic<bool> is_over{false};
    std::vector<companion> users;
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      s.acquire();
      users.emplace_back(i % 2 == 0 ? kind::fiber : kind::thread, [&] {
        while (!is_over) {
          concur::this_fiber::yield();
          s.release();
          s.acquire();
        }
        s.release();
      });
    }
    s.acquire(n);
    is_over = true;
    s.release(n);
    for (companion& one : users) one.join();
    CHECK(s.try_acquire(n));
  });
}

TEST_CASE("TestAllocCancelDoesntStarve: when the head gives up, those behind that fit are served at once") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    counting_semaphore<> s(10);
    s.acquire(1);
    companion large(which, [&] { CHECK_FALSE(s.try_acquire_for(80ms, 10)); });
    REQUIRE(large.wait_until_parked());
    companion small(which, [&] { s.acquire(5); });
    companion other(which, [&] { s.acquire(4); });
    small.join();
    other.join();
    large.join();
    CHECK_FALSE(s.try_acquire());
    s.release(10);
    CHECK(s.try_acquire(10));
  });
}

TEST_CASE("TestAllocCancelDoesntStarve: cancelled") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::run(with_workers(workers), [] {
      counting_semaphore<> s(10);
      s.acquire(1);
      cancel_target target;
      companion large(kind::fiber, [&] {
        target.enter();
        CHECK_THROWS_AS(s.acquire(10), concur::cancelled);
        target.leave();
      });
      REQUIRE(large.wait_until_parked());
      companion small(kind::thread, [&] { s.acquire(1); });
      REQUIRE(small.wait_until_parked());
      CHECK(target.strike());
      small.join();
      large.join();
      CHECK(s.try_acquire(8));
      CHECK_FALSE(s.try_acquire());
    });
  }
}

TEST_CASE("a permit that meets a waiter just cancelled is not lost") {
  const nothing_left_over guard;
  concur::run(with_workers(1), [] {
    counting_semaphore<> s(0);
    for (std::ptrdiff_t i = 1; i < 20; ++i) {
      cancel_target target;
      companion waiter(kind::fiber, [&] {
        target.enter();
        CHECK_THROWS_AS(s.acquire(), concur::cancelled);
        target.leave();
      });
      REQUIRE(waiter.wait_until_parked());
      REQUIRE(target.strike());
      s.release(i);  // the waiter has not left the queue yet: with one worker it has not run
      CHECK(s.try_acquire(i));
      CHECK_FALSE(s.try_acquire());
      waiter.join();
    }
  });
}

TEST_CASE("TestWeightedAcquireCanceled: a cancelled fiber takes nothing, also what is there") {
  const nothing_left_over guard;
  counting_semaphore<> s(2);
  std::atomic<bool> has_thrown{false};
  std::atomic<bool> is_up{false};
  {
    concur::runtime rt(with_workers(1));
    rt.go([&] {
      try {
        is_up = true;
        for (;;) concur::this_fiber::sleep_for(1h);
      } catch (const concur::cancelled&) {
      }
      try {
        s.acquire();
      } catch (const concur::cancelled&) {
        has_thrown = true;
      }
    });
    while (!is_up) std::this_thread::yield();
  }
  CHECK(has_thrown);
  CHECK(s.try_acquire(2));
}

TEST_CASE("TestWeightedPanic: bad counts are reported and change nothing") {
  const nothing_left_over guard;
  CHECK_THROWS_AS(counting_semaphore<>(-1), std::invalid_argument);
  CHECK_THROWS_AS(counting_semaphore<4>(5), std::invalid_argument);
  CHECK_THROWS_AS(binary_semaphore(2), std::invalid_argument);
  everywhere([](kind which) {
    counting_semaphore<4> s(3);
    CHECK(counting_semaphore<4>::max() == 4);
    CHECK_THROWS_AS(s.acquire(5), std::invalid_argument);
    CHECK_THROWS_AS(s.acquire(-1), std::invalid_argument);
    CHECK_THROWS_AS(static_cast<void>(s.try_acquire(5)), std::invalid_argument);
    CHECK_THROWS_AS(static_cast<void>(s.try_acquire_for(1ms, -2)), std::invalid_argument);
    CHECK_THROWS_AS(s.release(-1), std::invalid_argument);
    CHECK_THROWS_AS(s.release(2), std::logic_error);
    CHECK_THROWS_AS(s.release(most), std::logic_error);
    companion waiter(which, [&] { s.acquire(4); });
    REQUIRE(waiter.wait_until_parked());
    CHECK_THROWS_AS(s.release(2), std::logic_error);  // also while somebody waits
    CHECK_THROWS_AS(s.acquire(5), std::invalid_argument);
    s.release(1);
    waiter.join();
    s.release(4);
    CHECK_THROWS_AS(s.release(), std::logic_error);
    CHECK(s.try_acquire(4));
  });
}

TEST_CASE("add_max_amount_permits: as many permits as there can be") {
  const nothing_left_over guard;
  counting_semaphore<> s(0);
  s.release(most);
  CHECK_THROWS_AS(s.release(), std::logic_error);
  CHECK(s.try_acquire(most));
  CHECK_FALSE(s.try_acquire());
  counting_semaphore<> full(most);
  CHECK(full.try_acquire());
  full.release();
  CHECK_THROWS_AS(full.release(), std::logic_error);
}

TEST_CASE("TestWeighted: never more inside than there are permits") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    constexpr std::ptrdiff_t n = 5;
    counting_semaphore<n> s(n);
    std::atomic<std::ptrdiff_t> inside{0};
    std::atomic<int> violations{0};
    const auto work = [&](int seed) {
      for (int i = 0; i < 300; ++i) {
        const std::ptrdiff_t wanted = (seed + i) % n + 1;
        if (i % 3 == 0)
          s.acquire(wanted);
        else if (i % 3 == 1 && !s.try_acquire(wanted))
          continue;
        else if (i % 3 == 2 && !s.try_acquire_for(std::chrono::microseconds(i % 40), wanted))
          continue;
        if ((inside += wanted) > n) ++violations;
        if (i % 16 == 0) concur::this_fiber::yield();
        inside -= wanted;
        s.release(wanted);
      }
    };
    {
      concur::runtime rt(with_workers(workers));
      for (int i = 0; i < 8; ++i) rt.go([&, i] { work(i); });
      std::thread x([&] { work(8); });
      std::thread y([&] { work(9); });
      x.join();
      y.join();
      rt.wait_for_all();
    }
    CHECK(violations == 0);
    CHECK(inside == 0);
    CHECK(s.try_acquire(n));
    CHECK_FALSE(s.try_acquire());
  }
}

// Nothing but the permit orders these: a tool that looks for data races would find them.
TEST_CASE("a release happens before the acquire that takes its permit") {
  const nothing_left_over guard;
  binary_semaphore s(1);
  long plain = 0;
  const auto work = [&] {
    for (int i = 0; i < 2000; ++i) {
      s.acquire();
      ++plain;
      s.release();
    }
  };
  std::thread x(work);
  std::thread y(work);
  concur::run(with_workers(2), [&] {
    for (int i = 0; i < 4; ++i) concur::go(work);
  });
  x.join();
  y.join();
  CHECK(plain == 6 * 2000);
}

TEST_CASE("a semaphore may go as soon as its acquire has returned") {
  const nothing_left_over guard;
  concur::run(with_workers(4), [] {
    for (int i = 0; i < 500; ++i) {
      auto s = std::make_unique<counting_semaphore<>>(0);
      companion giver(i % 8 == 0 ? kind::thread : kind::fiber, [raw = s.get()] { raw->release(2); });
      if (i % 2 == 0) concur::this_fiber::yield();
      s->acquire(2);
      s.reset();
      giver.join();
    }
  });
}
