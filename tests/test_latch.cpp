// test_latch.cpp - a door that opens once: who passes when, what is misuse, and that it may go as soon as it was passed.
#include "support/cancel.hpp"
#include "support/companion.hpp"
#include "support/tally.hpp"

#include <atomic>
#include <chrono>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using concur::latch;
using namespace std::chrono_literals;

namespace {

using steady = std::chrono::steady_clock;

latch constant_latch(1);  // constant-initialised: usable before any constructor has run

}  // namespace

TEST_CASE("a latch of zero is open, any other opens with the last arrival") {
  const nothing_left_over guard;
  CHECK_FALSE(constant_latch.try_wait());
  CHECK((latch::max)() == (std::numeric_limits<std::ptrdiff_t>::max)());
  everywhere([](kind) {
    latch open(0);
    CHECK(open.try_wait());
    open.wait();
    open.count_down(0);
    open.arrive_and_wait(0);
    latch three(3);
    CHECK_FALSE(three.try_wait());
    three.count_down();
    three.count_down(0);
    CHECK_FALSE(three.try_wait());
    three.count_down(2);
    CHECK(three.try_wait());
    three.wait();
    three.wait();
    CHECK(three.wait_for(0ms));
    CHECK(three.wait_for(-1h));
    CHECK(three.wait_until(steady::now() - 1h));
    latch most((latch::max)());
    most.count_down((latch::max)());
    most.wait();
    latch two(2);
    two.count_down();
    two.arrive_and_wait();
    latch both(2);
    both.arrive_and_wait(2);
  });
}

TEST_CASE("all waiters go with the last arrival and not before, and see what came before it") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    latch door(3);
    std::atomic<int> gone{0};
    int plain = 0;
    std::vector<companion> waiters;
    for (int i = 0; i < 4; ++i) {
      waiters.emplace_back(which, [&, i] {
        if (i % 2 == 0)
          door.wait();
        else
          CONCUR_EXPECT(held, door.wait_for(20s));
        CONCUR_EXPECT(held, plain == 3);
        CONCUR_EXPECT(held, door.try_wait());
        ++gone;
      });
      REQUIRE(waiters.back().wait_until_parked());
    }
    for (int i = 0; i < 3; ++i) {
      CHECK(gone == 0);
      ++plain;
      door.count_down();
    }
    for (companion& one : waiters) one.join();
    CHECK(gone == 4);
    CHECK(held.report() == "");
  });
}

TEST_CASE("arrive_and_wait: parties of both kinds meet") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    latch door(4);
    std::atomic<int> arrived{0};
    std::vector<companion> parties;
    for (int i = 0; i < 3; ++i) {
      parties.emplace_back(i == 0 ? kind::thread : which, [&] {
        ++arrived;
        door.arrive_and_wait();
        CONCUR_EXPECT(held, arrived == 4);
      });
      REQUIRE(parties.back().wait_until_parked());
    }
    ++arrived;
    door.arrive_and_wait();
    for (companion& one : parties) one.join();
    CHECK(held.report() == "");
  });
}

TEST_CASE("a limited wait ends in time and not before; the latch opens all the same") {
  const nothing_left_over guard;
  everywhere([](kind) {
    latch door(1);
    const auto begin = steady::now();
    CHECK_FALSE(door.wait_for(3ms));
    CHECK(steady::now() - begin >= 3ms);
    CHECK_FALSE(door.wait_for(-1h));
    CHECK_FALSE(door.wait_until(begin));
    door.count_down();
    CHECK(door.wait_for(0ms));
  });
}

TEST_CASE("misuse: below zero, and negative numbers; the count stays") {
  const nothing_left_over guard;
  everywhere([](kind) {
    CHECK_THROWS_AS(latch(-1), std::invalid_argument);
    latch door(2);
    CHECK_THROWS_AS(door.count_down(-1), std::invalid_argument);
    CHECK_THROWS_AS(door.arrive_and_wait(-1), std::invalid_argument);
    CHECK_THROWS_AS(door.count_down(3), std::logic_error);
    CHECK_THROWS_AS(door.arrive_and_wait((latch::max)()), std::logic_error);
    CHECK_FALSE(door.try_wait());
    door.count_down(2);
    CHECK(door.try_wait());
    CHECK_THROWS_AS(door.count_down(), std::logic_error);
    CHECK(door.try_wait());
    try {
      latch(-7).wait();
    } catch (const std::invalid_argument& error) {
      CHECK(std::string(error.what()).find("expected is -7") != std::string::npos);
    }
  });
}

TEST_CASE("a cancelled waiter leaves; its arrival was counted") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::run(with_workers(workers), [] {
      tally held;
      latch door(2);
      concur_test::cancel_target target;
      companion waiter(kind::fiber, [&] {
        target.enter();
        bool was_cancelled = false;
        try {
          door.arrive_and_wait();
        } catch (const concur::cancelled&) {
          was_cancelled = true;
        }
        CONCUR_EXPECT(held, was_cancelled);
        target.leave();
      });
      REQUIRE(waiter.wait_until_parked());
      while (!target.strike()) concur::this_fiber::yield();
      waiter.join();
      CHECK_FALSE(door.try_wait());
      door.count_down();
      CHECK(door.try_wait());
      CHECK(held.report() == "");
    });
  }
}

TEST_CASE("a wait that was cancelled comes home also when the latch opens before it runs again") {
  const nothing_left_over guard;
  concur::run(with_workers(1), [] {
    tally held;
    latch door(1);
    concur_test::cancel_target target;
    companion waiter(kind::fiber, [&] {
      target.enter();
      bool was_cancelled = false;
      try {
        door.wait();
      } catch (const concur::cancelled&) {
        was_cancelled = true;
      }
      target.leave();
      CONCUR_EXPECT(held, was_cancelled);
    });
    REQUIRE(waiter.wait_until_parked());
    REQUIRE(target.strike());  // it is ready, and still in the queue
    door.count_down();
    waiter.join();
    CHECK(held.report() == "");
  });
}

TEST_CASE("every wait in a cancelled fiber throws, also one that need not park") {
  const nothing_left_over guard;
  tally held;
  {
    concur::runtime rt(with_workers(2));
    latch begun(1);
    rt.go([&] {
      latch open(0);
      latch shut(1);
      begun.count_down();
      try {
        concur::this_fiber::sleep_for(1h);
      } catch (const concur::cancelled&) {
      }
      int thrown = 0;
      for (latch* one : {&open, &shut}) {
        try {
          one->wait();
        } catch (const concur::cancelled&) {
          ++thrown;
        }
      }
      CONCUR_EXPECT(held, thrown == 2);
      CONCUR_EXPECT(held, open.try_wait());
      shut.count_down();
      CONCUR_EXPECT(held, shut.try_wait());
    });
    begun.wait();
  }
  CHECK(held.report() == "");
}

// Under the address sanitizer this is what proves G1.
TEST_CASE("a latch may go as soon as its wait has returned") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::run(with_workers(workers), [] {
      for (int i = 0; i < 1000; ++i) {
        auto door = std::make_unique<latch>(3);
        for (int k = 0; k < 3; ++k) concur::go([raw = door.get()] { raw->count_down(); });
        if (i % 2 == 0)
          door->wait();
        else
          while (!door->try_wait()) concur::this_fiber::yield();
      }
    });
  }
  latch* shared = nullptr;
  std::atomic<latch*> offered{nullptr};
  std::atomic<bool> is_over{false};
  std::thread other([&] {
    while (!is_over) {
      if (latch* raw = offered.exchange(nullptr)) raw->count_down();
    }
  });
  for (int i = 0; i < 3000; ++i) {
    auto door = std::make_unique<latch>(1);
    shared = door.get();
    offered = shared;
    if (i % 2 == 0) {
      while (!door->try_wait()) {
      }
    } else {
      door->wait();
    }
  }
  is_over = true;
  other.join();
}

TEST_CASE("arrivals, timeouts and cancellation at once: nobody is lost") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    constexpr int parties = 30;
    latch door(parties);
    std::atomic<int> in_time{0}, timed_out{0}, cancelled{0};
    {
      concur::runtime rt(with_workers(workers));
      latch begun(parties);
      for (int i = 0; i < parties; ++i) {
        rt.go([&, i] {
          begun.count_down();
          try {
            if (door.wait_for(i % 3 == 0 ? std::chrono::microseconds(i * 20) : std::chrono::microseconds(20000000)))
              ++in_time;
            else
              ++timed_out;
          } catch (const concur::cancelled&) {
            ++cancelled;
          }
        });
      }
      begun.wait();
      std::thread arrivals([&] {
        for (int i = 0; i < parties; ++i) door.count_down();
      });
      if (workers == 2) rt.cancel_all();
      arrivals.join();
      rt.wait_for_all();
    }
    CHECK(in_time + timed_out + cancelled == parties);
    CHECK(door.try_wait());
  }
}
