// test_wait_group.cpp - waiting for a count of zero, and the three misuses that are reported: below zero, overflow,
// too early again.
#include "support/companion.hpp"

#include <atomic>
#include <chrono>
#include <limits>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

using concur::wait_group;
using namespace std::chrono_literals;

namespace {

using steady = std::chrono::steady_clock;

}  // namespace

TEST_CASE("zero waits for nothing") {
  const nothing_left_over guard;
  everywhere([](kind) {
    wait_group group;
    CHECK(group.try_wait());
    group.wait();
    CHECK(group.wait_for(0ms));
    CHECK(group.wait_until(steady::now() - 1h));
    group.add(2);
    group.done();
    CHECK_FALSE(group.try_wait());
    group.add(-1);
    CHECK(group.try_wait());
    group.wait();
    group.add(0);
    CHECK(group.try_wait());
  });
}

TEST_CASE("all waiters go when the last one is done, and not before") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    wait_group group;
    group.add(3);
    std::atomic<int> gone{0};
    int plain = 0;
    std::vector<companion> waiters;
    for (int i = 0; i < 4; ++i) {
      waiters.emplace_back(which, [&, i] {
        if (i % 2 == 0)
          group.wait();
        else
          CHECK(group.wait_for(20s));
        CHECK(plain == 3);
        ++gone;
      });
      REQUIRE(waiters.back().wait_until_parked());
    }
    for (int i = 0; i < 3; ++i) {
      CHECK(gone == 0);
      ++plain;  // happens before the return of the waits
      group.done();
    }
    for (companion& one : waiters) one.join();
    CHECK(gone == 4);
  });
}

TEST_CASE("a limited wait ends in time, not before, and leaves the queue") {
  const nothing_left_over guard;
  everywhere([](kind) {
    wait_group group;
    group.add();
    const auto begin = steady::now();
    CHECK_FALSE(group.wait_for(3ms));
    CHECK(steady::now() - begin >= 3ms);
    CHECK_FALSE(group.wait_for(-1h));
    CHECK_FALSE(group.wait_until(begin));
    group.done();
    CHECK(group.wait_for(0ms));
    group.add();
    group.done();
  });
}

TEST_CASE("misuse: below zero, and overflow") {
  const nothing_left_over guard;
  everywhere([](kind) {
    wait_group group;
    CHECK_THROWS_AS(group.done(), std::logic_error);
    CHECK(group.try_wait());
    group.add(2);
    CHECK_THROWS_AS(group.add(-3), std::logic_error);
    CHECK_THROWS_AS(group.add((std::numeric_limits<std::ptrdiff_t>::max)()), std::logic_error);
    CHECK_THROWS_AS(group.add((std::numeric_limits<std::ptrdiff_t>::min)()), std::logic_error);
    group.add(-2);
    CHECK(group.try_wait());
  });
}

TEST_CASE("misuse: used again before the waits of the last round have returned") {
  const nothing_left_over guard;
  concur::run(with_workers(1), [] {
    wait_group group;
    group.add();
    companion waiter(kind::fiber, [&] { group.wait(); });
    REQUIRE(waiter.wait_until_parked());
    group.done();  // the waiter is let go, and has not run yet
    CHECK_THROWS_AS(group.add(), std::logic_error);
    CHECK(group.try_wait());
    waiter.join();
    group.add();
    group.done();
    group.wait();
  });
}

TEST_CASE("a group may go as soon as its one wait has returned") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::run(with_workers(workers), [] {
      for (int i = 0; i < 500; ++i) {
        auto group = std::make_unique<wait_group>();
        group->add(3);
        for (int k = 0; k < 3; ++k) concur::go([raw = group.get()] { raw->done(); });
        group->wait();
      }
    });
  }
  for (int i = 0; i < 100; ++i) {
    auto group = std::make_unique<wait_group>();
    group->add();
    std::thread other([raw = group.get()] { raw->done(); });
    group->wait();
    group.reset();
    other.join();
  }
}

TEST_CASE("dones, timeouts and cancellation at once: nobody is lost, the count is right") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    wait_group group;
    constexpr int parties = 30;
    group.add(parties);
    std::atomic<int> in_time{0}, timed_out{0}, cancelled{0};
    {
      concur::runtime rt(with_workers(workers));
      wait_group begun;
      begun.add(parties);
      for (int i = 0; i < parties; ++i) {
        rt.go([&, i] {
          begun.done();
          try {
            if (group.wait_for(i % 3 == 0 ? std::chrono::microseconds(i * 20) : std::chrono::microseconds(20000000)))
              ++in_time;
            else
              ++timed_out;
          } catch (const concur::cancelled&) {
            ++cancelled;
          }
        });
      }
      begun.wait();
      std::thread dones([&] {
        for (int i = 0; i < parties; ++i) group.done();
      });
      if (workers == 2) rt.cancel_all();
      dones.join();
      rt.wait_for_all();
    }
    CHECK(in_time + timed_out + cancelled == parties);
    CHECK(group.try_wait());
    group.add();
    group.done();
  }
}

TEST_CASE("two groups hold both sides: all are in before any is out") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    constexpr int parties = 16;
    wait_group in;
    wait_group out;
    std::atomic<int> has_gone{0};
    in.add(parties);
    out.add(parties);
    std::vector<companion> all;
    for (int i = 0; i < parties; ++i) {
      all.emplace_back(i % 4 == 0 ? kind::thread : which, [&] {
        in.done();
        in.wait();
        ++has_gone;
        out.done();
      });
    }
    out.wait();
    CHECK(has_gone == parties);
    CHECK(in.try_wait());
    for (companion& one : all) one.join();
  });
}

TEST_CASE("the count goes to the ends of its range and not beyond") {
  const nothing_left_over guard;
  constexpr std::ptrdiff_t most = (std::numeric_limits<std::ptrdiff_t>::max)();
  everywhere([](kind) {
    wait_group group;
    CHECK_THROWS_AS(group.add((std::numeric_limits<std::ptrdiff_t>::min)()), std::logic_error);
    group.add(most);
    CHECK_THROWS_AS(group.add(1), std::logic_error);
    CHECK_THROWS_AS(group.add(most), std::logic_error);
    CHECK_FALSE(group.try_wait());
    group.add(-most);
    CHECK(group.try_wait());
    CHECK_THROWS_AS(group.done(), std::logic_error);
    group.wait();
  });
}

TEST_CASE("every done happens before the return of wait") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::run(with_workers(workers), [] {
      for (int round = 0; round < 300; ++round) {
        wait_group group;
        int first = 0;  // plain
        int second = 0;
        group.add();
        concur::go([&] {
          first = 1;
          group.done();
        });
        group.add();
        concur::go([&] {
          second = 1;
          group.done();
        });
        group.wait();
        REQUIRE(first + second == 2);
      }
    });
  }
}

TEST_CASE("adding beside waits at zero: every wait ends, and an add that comes too early is told so") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    wait_group group;
    constexpr int rounds = 3000;
    std::atomic<int> added{0}, refused{0};
    {
      concur::runtime rt(with_workers(workers));
      const auto wait_often = [&group] {
        for (int i = 0; i < rounds; ++i) {
          if (i % 8 == 0)
            group.wait_for(std::chrono::microseconds(i % 30));
          else
            group.wait();
          if (i % 16 == 0) concur::this_fiber::yield();
        }
      };
      std::vector<concur::future<void>> all;
      for (int i = 0; i < 3; ++i) all.push_back(rt.go(wait_often));
      all.push_back(rt.go([&] {
        for (int i = 0; i < rounds; ++i) {
          try {
            group.add();
            concur::this_fiber::yield();
            group.done();
            ++added;
          } catch (const std::logic_error&) {
            ++refused;
            concur::this_fiber::yield();
          }
        }
      }));
      std::thread outside(wait_often);
      for (auto& one : all) one.get();
      outside.join();
    }
    CHECK(added + refused == rounds);
    CHECK(added > 0);
    CHECK(group.try_wait());
  }
}
