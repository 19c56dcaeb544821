// test_event.cpp - set, reset, and who is let go by which; what a wait costs and sees.
#include "support/cancel.hpp"
#include "support/companion.hpp"
#include "support/tally.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

using concur::event;
using namespace std::chrono_literals;

namespace {

using steady = std::chrono::steady_clock;

event constant_event;  // constant-initialised

}  // namespace

TEST_CASE("an event stays set until it is reset") {
  const nothing_left_over guard;
  CHECK_FALSE(constant_event.is_set());
  everywhere([](kind) {
    event e;
    CHECK_FALSE(e.is_set());
    CHECK_FALSE(e.try_wait());
    e.reset();
    CHECK_FALSE(e.is_set());
    e.set();
    e.set();
    CHECK(e.is_set());
    CHECK(e.try_wait());
    e.wait();
    e.wait();
    CHECK(e.wait_for(0ms));
    CHECK(e.wait_for(-1h));
    CHECK(e.wait_until(steady::now() - 1h));
    e.reset();
    e.reset();
    CHECK_FALSE(e.is_set());
    CHECK_FALSE(e.wait_for(0ms));
    e.set();
    e.wait();
    event from_the_start(true);
    from_the_start.wait();
    from_the_start.reset();
    CHECK_FALSE(from_the_start.is_set());
  });
}

TEST_CASE("set lets everybody go that waits, and what came before it is seen") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    event e;
    int plain = 0;
    std::vector<companion> waiters;
    for (int i = 0; i < 5; ++i) {
      waiters.emplace_back(i == 4 ? kind::thread : which, [&, i] {
        if (i % 2 == 0)
          e.wait();
        else
          CONCUR_EXPECT(held, e.wait_for(20s));
        CONCUR_EXPECT(held, plain == 1);
      });
      REQUIRE(waiters.back().wait_until_parked());
    }
    plain = 1;
    e.set();
    for (companion& one : waiters) one.join();
    CHECK(held.report() == "");
  });
}

TEST_CASE("who waited at set is let go, though the event is reset at once") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    event e;
    for (int round = 0; round < 20; ++round) {
      std::vector<companion> waiters;
      for (int i = 0; i < 3; ++i) {
        waiters.emplace_back(which, [&] { e.wait(); });
        REQUIRE(waiters.back().wait_until_parked());
      }
      e.set();
      e.reset();
      for (companion& one : waiters) one.join();
      CHECK_FALSE(e.is_set());
    }
  });
}

TEST_CASE("who comes after a reset waits for the next set") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    event e;
    e.set();
    e.reset();
    companion late(which, [&] { e.wait(); });
    REQUIRE(late.wait_until_parked());
    CHECK_FALSE(late.has_ended());
    e.set();
    late.join();
  });
}

TEST_CASE("a second set is seen by whoever finds the event set") {
  // For the thread sanitizer: the second setter's write happens before the wait that learns of it by a relaxed flag.
  const nothing_left_over guard;
  for (int round = 0; round < 200; ++round) {
    event e;
    e.set();
    int plain = 0;
    std::atomic<bool> is_written{false};
    std::thread setter([&] {
      plain = 1;
      e.set();
      is_written.store(true, std::memory_order_relaxed);
    });
    while (!is_written.load(std::memory_order_relaxed)) std::this_thread::yield();
    e.wait();
    CHECK(plain == 1);
    setter.join();
  }
}

TEST_CASE("a limited wait ends in time and not before, and leaves the queue") {
  const nothing_left_over guard;
  everywhere([](kind) {
    event e;
    const auto begin = steady::now();
    CHECK_FALSE(e.wait_for(3ms));
    CHECK(steady::now() - begin >= 3ms);
    CHECK_FALSE(e.wait_until(begin));
    e.set();
    CHECK(e.wait_for(0ms));
  });
}

TEST_CASE("a cancelled waiter leaves, the others stay") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::run(with_workers(workers), [] {
      tally held;
      event e;
      concur_test::cancel_target target;
      companion stays(kind::fiber, [&] { e.wait(); });
      REQUIRE(stays.wait_until_parked());
      companion leaves(kind::fiber, [&] {
        target.enter();
        bool was_cancelled = false;
        try {
          e.wait();
        } catch (const concur::cancelled&) {
          was_cancelled = true;
        }
        target.leave();
        CONCUR_EXPECT(held, was_cancelled);
      });
      REQUIRE(leaves.wait_until_parked());
      while (!target.strike()) concur::this_fiber::yield();
      leaves.join();
      CHECK_FALSE(stays.has_ended());
      e.set();
      stays.join();
      CHECK(held.report() == "");
    });
  }
}

TEST_CASE("a wait that was cancelled comes home whatever happens to the event before it runs again") {
  const nothing_left_over guard;
  for (const bool is_reset : {false, true}) {
    concur::run(with_workers(1), [is_reset] {
      tally held;
      event e;
      concur_test::cancel_target target;
      companion waiter(kind::fiber, [&] {
        target.enter();
        bool was_cancelled = false;
        try {
          e.wait();
        } catch (const concur::cancelled&) {
          was_cancelled = true;
        }
        target.leave();
        CONCUR_EXPECT(held, was_cancelled);
        CONCUR_EXPECT(held, e.is_set() != is_reset);
      });
      REQUIRE(waiter.wait_until_parked());
      REQUIRE(target.strike());  // it is ready, and still in the queue
      e.set();
      if (is_reset) e.reset();
      waiter.join();
      CHECK(held.report() == "");
    });
  }
}

TEST_CASE("an event may go as soon as its wait has returned") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::run(with_workers(workers), [] {
      for (int i = 0; i < 1000; ++i) {
        auto e = std::make_unique<event>();
        concur::go([raw = e.get()] { raw->set(); });
        if (i % 2 == 0)
          e->wait();
        else
          while (!e->is_set()) concur::this_fiber::yield();
      }
    });
  }
  std::atomic<event*> offered{nullptr};
  std::atomic<bool> is_over{false};
  std::thread other([&] {
    while (!is_over) {
      if (event* raw = offered.exchange(nullptr)) raw->set();
    }
  });
  for (int i = 0; i < 3000; ++i) {
    auto e = std::make_unique<event>();
    offered = e.get();
    if (i % 2 == 0) {
      while (!e->is_set()) {
      }
    } else {
      e->wait();
    }
  }
  is_over = true;
  other.join();
}

TEST_CASE("sets, resets, timeouts: everybody is let go in the end") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    event e;
    std::atomic<bool> is_over{false};
    std::atomic<long> passed{0}, timed_out{0};
    constexpr int waiters = 6;
    constexpr int rounds = 500;
    {
      concur::runtime rt(with_workers(workers));
      std::vector<concur::future<void>> all;
      for (int i = 0; i < waiters; ++i) {
        all.push_back(rt.go([&, i] {
          for (int k = 0; k < rounds; ++k) {
            if (i % 2 == 0) {
              e.wait();
              ++passed;
            } else {
              ++(e.wait_for(std::chrono::microseconds(k % 50)) ? passed : timed_out);
            }
          }
        }));
      }
      std::thread setter([&] {
        while (!is_over) {
          e.set();
          e.reset();
        }
        e.set();
      });
      std::thread waiter([&] {
        for (int k = 0; k < rounds; ++k) e.wait();
      });
      waiter.join();
      for (auto& one : all) one.get();
      is_over = true;
      setter.join();
    }
    CHECK(passed + timed_out == waiters * rounds);
    CHECK(e.is_set());
  }
}
