// test_mutex.cpp - one at a time, nobody for ever, and misuse reported.
#include "support/companion.hpp"

#include <atomic>
#include <chrono>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

namespace {

using steady = std::chrono::steady_clock;

}  // namespace

TEST_CASE("exclusion: fibers of two runtimes and plain threads on one mutex") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::mutex m;
    long plain = 0;
    std::atomic<int> inside{0};
    std::atomic<int> violations{0};
    constexpr int rounds = 400;
    const auto work = [&] {
      for (int i = 0; i < rounds; ++i) {
        std::lock_guard<concur::mutex> held(m);
        violations += ++inside != 1 ? 1 : 0;
        plain = plain + 1;
        if (i % 16 == 0) concur::this_fiber::yield();  // others run while the mutex is held
        if (i % 100 == 0) concur::this_fiber::sleep_for(50us);
        --inside;
      }
    };
    {
      concur::runtime a(with_workers(workers));
      concur::runtime b(with_workers(1));
      std::vector<concur::future<void>> all;
      for (int i = 0; i < 6; ++i) all.push_back(a.go(work));
      for (int i = 0; i < 2; ++i) all.push_back(b.go(work));
      std::thread x(work);
      std::thread y(work);
      x.join();
      y.join();
      for (auto& one : all) one.get();
    }
    CHECK(violations == 0);
    CHECK(plain == 10L * rounds);
  }
}

TEST_CASE("std's lock types work with it") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    concur::mutex a;
    concur::mutex b;
    {
      std::unique_lock<concur::mutex> lock(a, std::try_to_lock);
      CHECK(lock.owns_lock());
      companion other(which, [&] { CHECK_FALSE(a.try_lock()); });
      other.join();
      lock.unlock();
      lock.lock();
    }
    companion other(which, [&] {
      for (int i = 0; i < 100; ++i) {
        std::scoped_lock<concur::mutex, concur::mutex> both(b, a);
        concur::this_fiber::yield();
      }
    });
    for (int i = 0; i < 100; ++i) std::scoped_lock<concur::mutex, concur::mutex> both(a, b);
    other.join();
    CHECK(a.try_lock());
    CHECK_FALSE(a.try_lock());
    a.unlock();
  });
}

TEST_CASE("a waiter gets the mutex when it is let go, waiters in their order") {
  const nothing_left_over guard;
  for (const kind which : {kind::fiber, kind::thread}) {
    concur::run(with_workers(1), [which] {
      concur::mutex m;
      std::vector<int> order;
      m.lock();
      std::vector<companion> waiters;
      for (int i = 0; i < 4; ++i) {
        waiters.emplace_back(which, [&m, &order, i] {
          m.lock();
          order.push_back(i);
          m.unlock();
        });
        REQUIRE(waiters.back().wait_until_parked());
      }
      m.unlock();
      for (companion& one : waiters) one.join();
      CHECK(order == std::vector<int>{0, 1, 2, 3});
    });
  }
}

TEST_CASE("a free mutex may be taken before the woken waiter gets there") {
  const nothing_left_over guard;
  concur::run(with_workers(1), [] {
    concur::mutex m;
    std::vector<int> order;
    m.lock();
    companion waiter(kind::fiber, [&] {
      m.lock();
      order.push_back(2);
      m.unlock();
    });
    REQUIRE(waiter.wait_until_parked());
    m.unlock();  // the waiter is ready, and does not run yet
    CHECK(m.try_lock());
    order.push_back(1);
    m.unlock();
    waiter.join();
    CHECK(order == std::vector<int>{1, 2});
  });
}

TEST_CASE("a waiter that was passed over for a millisecond is handed the mutex") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::run(with_workers(workers), [] {
      concur::mutex m;
      std::atomic<bool> has_got_it{false};
      m.lock();
      companion waiter(kind::fiber, [&] {
        m.lock();
        has_got_it = true;
        m.unlock();
      });
      REQUIRE(waiter.wait_until_parked());
      // Somebody who never lets go for longer than it takes to come again. It lets others run only while it holds.
      const auto limit = steady::now() + 10s;
      long rounds = 0;
      while (!has_got_it && steady::now() < limit) {
        m.unlock();
        m.lock();
        ++rounds;
        concur::this_fiber::yield();
      }
      CHECK(has_got_it);
      CHECK(rounds > 0);
      m.unlock();
    });
  }
}

TEST_CASE("misuse is reported and changes nothing") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    concur::mutex m;
    CHECK_THROWS_AS(m.unlock(), std::logic_error);
    m.lock();
    CHECK_THROWS_AS(m.lock(), std::logic_error);
    CHECK_FALSE(m.try_lock());
    for (const kind stranger : {which, kind::thread}) {
      companion other(stranger, [&] {
        CHECK_THROWS_AS(m.unlock(), std::logic_error);
        CHECK_FALSE(m.try_lock());
      });
      other.join();
    }
    m.unlock();
    CHECK_THROWS_AS(m.unlock(), std::logic_error);
    m.lock();
    m.unlock();
  });
}

TEST_CASE("misuse is reported also while others wait") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    concur::mutex m;
    m.lock();
    companion waiter(which, [&] { std::lock_guard<concur::mutex> held(m); });
    REQUIRE(waiter.wait_until_parked());
    CHECK_THROWS_AS(m.lock(), std::logic_error);
    companion other(which, [&] { CHECK_THROWS_AS(m.unlock(), std::logic_error); });
    other.join();
    m.unlock();
    waiter.join();
    m.lock();
    m.unlock();
  });
}

TEST_CASE("a cancelled waiter does not take the mutex, and passes on what it was given") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    for (int round = 0; round < 30; ++round) {
      concur::mutex m;
      std::atomic<int> ended{0};
      std::atomic<int> taken{0};
      std::atomic<bool> is_over{false};
      std::thread outside([&] {
        while (!is_over) {
          std::lock_guard<concur::mutex> held(m);
          std::this_thread::yield();
        }
      });
      {
        concur::runtime rt(with_workers(workers));
        for (int i = 0; i < 20; ++i) {
          rt.go([&] {
            try {
              for (;;) {
                std::lock_guard<concur::mutex> held(m);
                ++taken;
                concur::this_fiber::yield();
              }
            } catch (const concur::cancelled&) {
              ++ended;
            }
          });
        }
        while (taken < 5) std::this_thread::yield();
      }
      is_over = true;
      outside.join();
      REQUIRE(ended == 20);
      // Free, and whole: with nobody left, it can be taken at once.
      REQUIRE(m.try_lock());
      m.unlock();
    }
  }
}
