// test_timed_mutex.cpp - locks whose waiters give up, and locks that their holder may take again.
#define CONCUR_TEST_DEPTH 1000
#include "support/cancel.hpp"
#include "support/companion.hpp"

#include <atomic>
#include <chrono>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

using concur::recursive_mutex;
using concur::timed_mutex;
using namespace std::chrono_literals;

namespace {

using steady = std::chrono::steady_clock;

}  // namespace

TEST_CASE_TEMPLATE("a free mutex is taken whatever the limit", Mutex, timed_mutex, recursive_mutex) {
  const nothing_left_over guard;
  everywhere([](kind) {
    Mutex m;
    CHECK(m.try_lock_for(1h));
    m.unlock();
    CHECK(m.try_lock_for(0ms));
    m.unlock();
    CHECK(m.try_lock_for(-1h));
    m.unlock();
    CHECK(m.try_lock_until(steady::now() - 1h));
    m.unlock();
    CHECK(m.try_lock_until((steady::time_point::max)()));
    m.unlock();
    CHECK(m.try_lock_until(std::chrono::system_clock::now() + 1h));
    m.unlock();
    CHECK(m.try_lock());
    m.unlock();
  });
}

TEST_CASE_TEMPLATE("a limited wait ends in time, not before", Mutex, timed_mutex, recursive_mutex) {
  const nothing_left_over guard;
  everywhere([](kind which) {
    Mutex m;
    m.lock();
    companion other(which, [&m] {
      const auto begin = steady::now();
      CHECK_FALSE(m.try_lock_for(3ms));
      CHECK(steady::now() - begin >= 3ms);
      CHECK_FALSE(m.try_lock_until(steady::now() + 2ms));
      CHECK_FALSE(m.try_lock_for(0ms));
      CHECK_FALSE(m.try_lock_for(-1h));
      CHECK_FALSE(m.try_lock_until(begin));
      CHECK_FALSE(m.try_lock());
    });
    other.join();
    m.unlock();
    m.lock();
    m.unlock();
  });
}

TEST_CASE_TEMPLATE("a waiter gets what is let go before its limit", Mutex, timed_mutex, recursive_mutex) {
  const nothing_left_over guard;
  everywhere([](kind which) {
    Mutex m;
    int plain = 0;
    m.lock();
    companion first(which, [&] {
      CHECK(m.try_lock_for(20s));
      CHECK(++plain == 2);
      m.unlock();
    });
    REQUIRE(first.wait_until_parked());
    ++plain;
    m.unlock();
    first.join();
    std::unique_lock<Mutex> lock(m, 1h);
    CHECK(lock.owns_lock());
    CHECK(plain == 2);
  });
}

TEST_CASE("who gave up has left the queue: those behind are served") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    timed_mutex m;
    m.lock();
    std::vector<companion> waiters;
    std::atomic<int> got{0};
    std::atomic<int> gave_up{0};
    for (int i = 0; i < 6; ++i) {
      waiters.emplace_back(which, [&, i] {
        if (i % 2 == 0) {
          if (m.try_lock_for(std::chrono::microseconds(300 * i))) {
            ++got;
            m.unlock();
          } else {
            ++gave_up;
          }
        } else {
          m.lock();
          ++got;
          m.unlock();
        }
      });
    }
    while (gave_up != 3) concur::this_fiber::yield();
    for (const std::size_t i : {1U, 3U, 5U}) REQUIRE(waiters[i].wait_until_parked());
    m.unlock();
    for (companion& one : waiters) one.join();
    CHECK(got == 3);
    CHECK(m.try_lock());
    m.unlock();
  });
}

TEST_CASE("a deadline that meets an unlock: the mutex goes to exactly one, or is free") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::run(with_workers(workers), [] {
      timed_mutex m;
      long plain = 0;
      long gave_up = 0;
      for (int round = 0; round < 300; ++round) {
        m.lock();
        companion waiter(round % 2 == 0 ? kind::fiber : kind::thread, [&] {
          if (m.try_lock_for(std::chrono::microseconds(20 + round % 60))) {
            ++plain;
            m.unlock();
          } else {
            std::lock_guard<timed_mutex> held(m);
            ++gave_up;
          }
        });
        const auto until = steady::now() + std::chrono::microseconds(round % 80);
        while (steady::now() < until) concur::this_fiber::yield();
        m.unlock();
        waiter.join();
        REQUIRE(m.try_lock());
        m.unlock();
      }
      CHECK(plain + gave_up == 300);
    });
  }
}

TEST_CASE("a cancelled waiter with a limit throws, and takes nothing") {
  const nothing_left_over guard;
  concur::run(with_workers(1), [] {
    timed_mutex m;
    m.lock();
    cancel_target target;
    companion waiter(kind::fiber, [&] {
      target.enter();
      CHECK_THROWS_AS(static_cast<void>(m.try_lock_for(1h)), concur::cancelled);
      CHECK_THROWS_AS(m.unlock(), std::logic_error);
    });
    REQUIRE(waiter.wait_until_parked());
    CHECK(target.strike());
    waiter.join();
    m.unlock();
    CHECK(m.try_lock());
    m.unlock();
  });
}

TEST_CASE("TestMutexFairness: a waiter with a limit is handed the mutex after a millisecond too") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::run(with_workers(workers), [] {
      timed_mutex m;
      std::atomic<int> gone{0};
      m.lock();
      companion waiter(kind::fiber, [&] {
        for (int i = 0; i < 5; ++i) {
          CHECK(m.try_lock_for(20s));
          m.unlock();
          ++gone;
        }
      });
      REQUIRE(waiter.wait_until_parked());
      const auto limit = steady::now() + 10s;
      while (gone != 5 && steady::now() < limit) {
        m.unlock();
        m.lock();
        concur::this_fiber::yield();
      }
      CHECK(gone == 5);
      m.unlock();
    });
  }
}

TEST_CASE("misuse of a timed_mutex is reported and changes nothing") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    timed_mutex m;
    CHECK_THROWS_AS(m.unlock(), std::logic_error);
    m.lock();
    CHECK_THROWS_AS(m.lock(), std::logic_error);
    CHECK_THROWS_AS(static_cast<void>(m.try_lock_for(1ms)), std::logic_error);
    CHECK_FALSE(m.try_lock());
    companion other(which, [&] { CHECK_THROWS_AS(m.unlock(), std::logic_error); });
    other.join();
    m.unlock();
    CHECK_THROWS_WITH_AS(m.unlock(), doctest::Contains("concur::timed_mutex::unlock"), std::logic_error);
  });
}

TEST_CASE("TestMutex: a storm of lock, try_lock and limited locks stays exclusive") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    timed_mutex m;
    long plain = 0;
    std::atomic<long> taken{0};
    const auto work = [&] {
      for (int i = 0; i < 500; ++i) {
        bool is_taken = true;
        if (i % 3 == 0)
          m.lock();
        else if (i % 3 == 1)
          is_taken = m.try_lock();
        else
          is_taken = m.try_lock_for(std::chrono::microseconds(i % 50));
        if (!is_taken) continue;
        ++plain;
        ++taken;
        if (i % 16 == 0) concur::this_fiber::yield();
        m.unlock();
      }
    };
    {
      concur::runtime rt(with_workers(workers));
      std::vector<concur::future<void>> all;
      for (int i = 0; i < 8; ++i) all.push_back(rt.go(work));
      std::thread x(work);
      std::thread y(work);
      x.join();
      y.join();
      for (auto& one : all) one.get();
    }
    CHECK(plain == taken);
  }
}

TEST_CASE("a recursive mutex counts, and is free after as many unlocks") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    recursive_mutex m;
    const auto is_free_for_others = [&] {
      bool is_free = false;
      companion other(which, [&] {
        is_free = m.try_lock();
        if (is_free) m.unlock();
      });
      other.join();
      return is_free;
    };
    m.lock();
    CHECK(m.try_lock());
    CHECK(m.try_lock_for(0ms));
    {
      std::lock_guard<recursive_mutex> held(m);
      std::unique_lock<recursive_mutex> again(m, std::try_to_lock);
      CHECK(again.owns_lock());
      CHECK_FALSE(is_free_for_others());
    }
    m.unlock();
    m.unlock();
    CHECK_FALSE(is_free_for_others());
    m.unlock();
    CHECK(is_free_for_others());
    CHECK_THROWS_AS(m.unlock(), std::logic_error);
  });
}

TEST_CASE("a recursive mutex belongs to the fiber, not to its worker") {
  const nothing_left_over guard;
  concur::run(with_workers(1), [] {
    recursive_mutex m;
    int plain = 0;
    m.lock();
    companion other(kind::fiber, [&] {
      CHECK_FALSE(m.try_lock());
      CHECK_THROWS_AS(m.unlock(), std::logic_error);
      m.lock();
      m.lock();
      ++plain;
      m.unlock();
      m.unlock();
    });
    REQUIRE(other.wait_until_parked());
    m.lock();
    concur::this_fiber::yield();
    CHECK(plain == 0);
    m.unlock();
    m.unlock();
    other.join();
    CHECK(plain == 1);
  });
}

TEST_CASE("a recursive mutex that is locked too often says so, and stays as it was") {
  const nothing_left_over guard;
  recursive_mutex m;
  for (int i = 0; i < CONCUR_TEST_DEPTH; ++i) m.lock();
  CHECK_THROWS_AS(m.lock(), std::logic_error);
  CHECK_FALSE(m.try_lock());
  for (int i = 0; i < CONCUR_TEST_DEPTH; ++i) m.unlock();
  CHECK_THROWS_AS(m.unlock(), std::logic_error);
}

// Nothing but the lock orders these: a tool that looks for data races would find them.
TEST_CASE("an unlock happens before the next lock") {
  const nothing_left_over guard;
  timed_mutex m;
  long plain = 0;
  const auto work = [&] {
    for (int i = 0; i < 2000; ++i) {
      m.lock();
      ++plain;
      m.unlock();
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

TEST_CASE("a mutex may go as soon as its last holder knows that nobody else comes") {
  const nothing_left_over guard;
  for (const unsigned workers : {2U, 4U}) {
    concur::run(with_workers(workers), [] {
      for (int i = 0; i < 500; ++i) {
        struct counted {
          timed_mutex m;
          int users = 3;
        };
        counted* const shared = new counted;
        std::vector<companion> users;
        for (int k = 0; k < 3; ++k) {
          users.emplace_back(kind::fiber, [shared] {
            shared->m.lock();
            concur::this_fiber::yield();
            const bool is_last = --shared->users == 0;
            shared->m.unlock();
            if (is_last) delete shared;
          });
        }
        for (companion& one : users) one.join();
      }
    });
  }
}
