// test_condition_variable.cpp - no notification is lost, none counts twice, and the lock is held again whatever happens.
#include "support/cancel.hpp"
#include "support/companion.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <stdexcept>
#include <thread>
#include <vector>

using concur::condition_variable;
using concur::cv_status;
using concur::mutex;
using namespace std::chrono_literals;

namespace {

using steady = std::chrono::steady_clock;
using held_lock = std::unique_lock<mutex>;

// A lock whose unlock does something first, once.
template <class F>
struct slow_lock {
  mutex& inner;
  F before_unlock;
  bool is_done = false;
  void lock() { inner.lock(); }
  void unlock() {
    if (!std::exchange(is_done, true)) before_unlock();
    inner.unlock();
  }
};
template <class F>
slow_lock(mutex&, F) -> slow_lock<F>;

}  // namespace

TEST_CASE("TestCondSignal: each notify_one ends one wait, the oldest") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    mutex m;
    condition_variable changed;
    constexpr int n = 4;
    int woken = 0;
    std::vector<int> order;
    condition_variable has_run;
    std::vector<companion> waiters;
    for (int i = 0; i < n; ++i) {
      waiters.emplace_back(which, [&, i] {
        held_lock lock(m);
        changed.wait(lock);
        ++woken;
        order.push_back(i);
        has_run.notify_one();
      });
      REQUIRE(waiters.back().wait_until_parked());
    }
    for (int i = 0; i < n; ++i) {
      held_lock lock(m);
      CHECK(woken == i);
      changed.notify_one();
      has_run.wait(lock, [&] { return woken > i; });
      CHECK(woken == i + 1);
    }
    for (companion& one : waiters) one.join();
    changed.notify_one();
    CHECK(order == std::vector<int>{0, 1, 2, 3});
  });
}

TEST_CASE("TestCondBroadcast: notify_all ends the waits of all who wait, and of nobody later") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    mutex m;
    condition_variable changed;
    std::atomic<int> gone{0};
    std::vector<companion> waiters;
    for (int i = 0; i < 5; ++i) {
      waiters.emplace_back(which, [&] {
        held_lock lock(m);
        changed.wait(lock);
        ++gone;
      });
      REQUIRE(waiters.back().wait_until_parked());
    }
    changed.notify_all();
    for (companion& one : waiters) one.join();
    CHECK(gone == 5);
    held_lock lock(m);
    CHECK(changed.wait_for(lock, 1ms) == cv_status::timeout);
    CHECK(lock.owns_lock());
  });
}

TEST_CASE("TestCondSignalGenerations: who came later does not take the notification of who came first") {
  const nothing_left_over guard;
  concur::run(with_workers(2), [] {
    mutex m;
    condition_variable changed;
    constexpr int n = 50;
    concur::channel<bool> running(n);
    concur::channel<int> awake(n);
    std::vector<companion> waiters;
    for (int i = 0; i < n; ++i) {
      waiters.emplace_back(i % 2 == 0 ? kind::fiber : kind::thread, [&, i] {
        held_lock lock(m);
        running.send(true);
        changed.wait(lock);
        awake.send(i);
      });
      if (i > 0) CHECK(awake.recv() == i - 1);
      running.recv();
      held_lock lock(m);
      changed.notify_one();
    }
    for (companion& one : waiters) one.join();
  });
}

TEST_CASE("TestRace: a condition that three parties pass on") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    mutex m;
    condition_variable changed;
    int x = 0;
    std::atomic<int> failures{0};
    companion first(which, [&] {
      held_lock lock(m);
      x = 1;
      changed.wait(lock, [&] { return x == 2; });
      x = 3;
      changed.notify_all();
    });
    companion second(which, [&] {
      held_lock lock(m);
      changed.wait_for(lock, 20s, [&] {
        if (x == 1) {
          x = 2;
          changed.notify_all();
        }
        return x >= 2;
      });
      failures += x < 2 ? 1 : 0;
      changed.notify_all();
    });
    for (bool is_over = false; !is_over;) {
      held_lock lock(m);
      is_over = changed.wait_for(lock, 100us, [&] { return x == 3; });
      changed.notify_all();
    }
    first.join();
    second.join();
    CHECK(failures == 0);
  });
}

TEST_CASE("TestCondSignalStealing: a notification reaches a waiter that came before it, whoever comes beside it") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::run(with_workers(workers), [] {
      for (int round = 0; round < 200; ++round) {
        mutex m;
        condition_variable changed;
        concur::channel<void> ready;
        companion first(kind::fiber, [&] {
          held_lock lock(m);
          ready.send();
          changed.wait(lock);
        });
        ready.recv();
        { held_lock until_it_waits(m); }
        bool is_done = false;
        companion rival(round % 4 == 0 ? kind::thread : kind::fiber, [&] {
          held_lock lock(m);
          changed.wait(lock, [&] { return is_done; });
        });
        changed.notify_one();
        first.join();
        {
          held_lock lock(m);
          is_done = true;
        }
        changed.notify_all();
        rival.join();
      }
    });
  }
}

TEST_CASE("a limited wait ends in time, not before, with the lock held") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    mutex m;
    condition_variable changed;
    held_lock lock(m);
    const auto begin = steady::now();
    CHECK(changed.wait_for(lock, 3ms) == cv_status::timeout);
    CHECK(steady::now() - begin >= 3ms);
    CHECK(changed.wait_for(lock, 0ms) == cv_status::timeout);
    CHECK(changed.wait_for(lock, -1h) == cv_status::timeout);
    CHECK(changed.wait_until(lock, begin) == cv_status::timeout);
    CHECK(changed.wait_until(lock, std::chrono::system_clock::now() - 1h) == cv_status::timeout);
    CHECK_FALSE(changed.wait_for(lock, 2ms, [] { return false; }));
    CHECK_FALSE(changed.wait_until(lock, begin, [] { return false; }));
    CHECK(changed.wait_for(lock, 0ms, [] { return true; }));
    CHECK(changed.wait_until(lock, begin, [] { return true; }));
    CHECK_FALSE(m.try_lock());
    bool is_set = false;
    companion other(which, [&] {
      held_lock inner(m);
      is_set = true;
      changed.notify_one();
    });
    CHECK(changed.wait_until(lock, steady::now() + 20s, [&] { return is_set; }));
    lock.unlock();
    other.join();
    lock.lock();
    companion third(which, [&] {
      held_lock inner(m);
      changed.notify_one();
    });
    CHECK(changed.wait_for(lock, (steady::duration::max)()) == cv_status::no_timeout);
    lock.unlock();
    third.join();
  });
}

TEST_CASE("a notification between the unlock and the wait is not lost") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    mutex m;
    condition_variable changed;
    for (const bool to_all : {false, true}) {
      slow_lock lock{m, [&] {
                       companion other(which, [&] {
                         if (to_all)
                           changed.notify_all();
                         else
                           changed.notify_one();
                       });
                       other.join();
                     }};
      lock.lock();
      CHECK(changed.wait_for(lock, 20s) == cv_status::no_timeout);
      CHECK_THROWS_AS(m.lock(), std::logic_error);  // held again
      lock.unlock();
    }
  });
}

TEST_CASE("a deadline that passes while the lock is let go does not undo a notification") {
  const nothing_left_over guard;
  everywhere([](kind) {
    mutex m;
    condition_variable changed;
    slow_lock lock{m, [&] {
                     changed.notify_one();
                     concur::this_fiber::sleep_for(2ms);
                   }};
    lock.lock();
    CHECK(changed.wait_for(lock, 1ms) == cv_status::no_timeout);
    lock.unlock();
  });
}

TEST_CASE("an unlock that throws: the waiter leaves the queue, and passes on what it was given") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    mutex m;
    mutex of_the_next;
    condition_variable changed;
    CHECK_THROWS_AS(changed.wait(m), std::logic_error);  // not held
    std::vector<companion> next;
    slow_lock lock{m, [&] {
                     next.emplace_back(which, [&] {
                       held_lock other(of_the_next);
                       CHECK(changed.wait_for(other, 20s) == cv_status::no_timeout);
                     });
                     REQUIRE(next[0].wait_until_parked());
                     changed.notify_one();  // the oldest is the one that lets go of its lock
                     throw 7;
                   }};
    lock.lock();
    CHECK_THROWS_AS(changed.wait(lock), int);
    CHECK_FALSE(m.try_lock());
    lock.unlock();
    next[0].join();
  });
}

TEST_CASE("any lock will do") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    condition_variable changed;
    std::atomic<int> phase{0};
    const auto meet = [&](auto& own, auto& theirs) {
      phase = 0;
      companion other(which, [&] {
        theirs.lock();
        changed.wait(theirs, [&] { return phase == 1; });
        phase = 2;
        theirs.unlock();
        changed.notify_all();
      });
      REQUIRE(other.wait_until_parked());
      own.lock();
      phase = 1;
      changed.notify_all();
      CHECK(changed.wait_for(own, 20s, [&] { return phase == 2; }));
      own.unlock();
      other.join();
    };
    mutex m;
    meet(m, m);
    concur::timed_mutex timed;
    meet(timed, timed);
    concur::recursive_mutex recursive;
    meet(recursive, recursive);
    concur::shared_mutex shared;
    meet(shared, shared);
    std::shared_lock<concur::shared_mutex> reader(shared, std::defer_lock);
    std::shared_lock<concur::shared_mutex> other_reader(shared, std::defer_lock);
    meet(reader, other_reader);
    concur::binary_semaphore permit(1);
    struct semaphore_lock {
      concur::binary_semaphore& inner;
      void lock() { inner.acquire(); }
      void unlock() { inner.release(); }
    } by_permit{permit};
    meet(by_permit, by_permit);
  });
}

TEST_CASE("cancelled: the lock is held again, also when it has to be waited for") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    mutex m;
    condition_variable changed;
    int inside = 0;
    std::atomic<int> violations{0}, ended{0}, waiting{0};
    {
      concur::runtime rt(with_workers(workers));
      for (int i = 0; i < 10; ++i) {
        rt.go([&] {
          m.lock();
          ++waiting;
          try {
            for (;;) changed.wait(m);
          } catch (const concur::cancelled&) {
            violations += ++inside != 1 ? 1 : 0;
            for (int k = 0; k < 50; ++k) concur::detail::cpu_relax();
            --inside;
            ++ended;
            m.unlock();
          } catch (const std::logic_error&) {
            ++violations;
          }
        });
      }
      while (waiting != 10) std::this_thread::yield();
    }
    CHECK(ended == 10);
    CHECK(violations == 0);
    CHECK(m.try_lock());
    m.unlock();
  }
}

TEST_CASE("cancelled before it waits: it does not matter that the condition holds") {
  const nothing_left_over guard;
  mutex m;
  condition_variable changed;
  m.lock();
  int asked = 0;
  const auto condition = [&] { return ++asked > 0; };
  changed.wait(m, condition);
  CHECK(asked == 1);
  concur::runtime rt(with_workers(1));
  rt.cancel_all();
  CHECK_THROWS_AS(rt.block_on([&] { changed.wait(m, condition); }), concur::cancelled);
  CHECK_THROWS_AS(rt.block_on([&] { changed.wait_for(m, 1h, condition); }), concur::cancelled);
  CHECK(asked == 1);
  m.unlock();
}

TEST_CASE("cancelled before it waits: the lock was never let go") {
  const nothing_left_over guard;
  mutex m;
  condition_variable changed;
  std::atomic<bool> is_up{false}, has_thrown{false}, had_unlocked{false};
  {
    concur::runtime rt(with_workers(1));
    rt.go([&] {
      slow_lock lock{m, [&] { had_unlocked = true; }};
      lock.lock();
      try {
        is_up = true;
        for (;;) concur::this_fiber::sleep_for(1h);
      } catch (const concur::cancelled&) {
      }
      try {
        changed.wait(lock);
      } catch (const concur::cancelled&) {
        has_thrown = true;
      }
      m.unlock();
    });
    while (!is_up) std::this_thread::yield();
  }
  CHECK(has_thrown);
  CHECK_FALSE(had_unlocked);
}

TEST_CASE("a waiter that was given up on is not notified: the next one is") {
  const nothing_left_over guard;
  concur::run(with_workers(1), [] {
    mutex m;
    condition_variable changed;
    for (int round = 0; round < 20; ++round) {
      cancel_target target;
      companion first(kind::fiber, [&] {
        target.enter();
        held_lock lock(m);
        CHECK_THROWS_AS(changed.wait(lock), concur::cancelled);
        target.leave();
      });
      REQUIRE(first.wait_until_parked());
      companion second(kind::fiber, [&] {
        held_lock lock(m);
        CHECK(changed.wait_for(lock, 20s) == cv_status::no_timeout);
      });
      REQUIRE(second.wait_until_parked());
      REQUIRE(target.strike());
      changed.notify_one();  // the first has not left the queue yet: with one worker it has not run
      second.join();
      first.join();
    }
  });
}

TEST_CASE("notified, and then cancelled or late: the notification counts") {
  const nothing_left_over guard;
  concur::run(with_workers(1), [] {
    mutex m;
    condition_variable changed;
    cancel_target target;
    companion first(kind::fiber, [&] {
      target.enter();
      held_lock lock(m);
      CHECK(changed.wait_for(lock, 1ms) == cv_status::no_timeout);
      CHECK(lock.owns_lock());
      target.leave();
    });
    REQUIRE(first.wait_until_parked());
    changed.notify_one();
    CHECK_FALSE(target.strike());
    const auto until = steady::now() + 3ms;
    while (steady::now() < until) {
    }
    first.join();
  });
}

TEST_CASE("a bounded queue: what is put in comes out once, in order") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    mutex m;
    condition_variable not_empty, not_full;
    std::vector<int> queue;
    constexpr int each = 500;
    std::atomic<long> sum{0};
    std::atomic<int> taken{0};
    const auto put = [&](int first) {
      for (int i = 0; i < each; ++i) {
        held_lock lock(m);
        not_full.wait(lock, [&] { return queue.size() < 4; });
        queue.push_back(first + i);
        not_empty.notify_one();
      }
    };
    const auto take = [&] {
      for (int i = 0; i < each; ++i) {
        held_lock lock(m);
        not_empty.wait(lock, [&] { return !queue.empty(); });
        sum += queue.front();
        queue.erase(queue.begin());
        ++taken;
        not_full.notify_one();
      }
    };
    {
      concur::runtime rt(with_workers(workers));
      for (int i = 0; i < 3; ++i) rt.go([&, i] { put(i * each); });
      for (int i = 0; i < 3; ++i) rt.go(take);
      std::thread x([&] { put(3 * each); });
      std::thread y(take);
      x.join();
      y.join();
      rt.wait_for_all();
    }
    CHECK(taken == 4 * each);
    CHECK(sum == 4L * each * (4L * each - 1) / 2);
  }
}

TEST_CASE("a condition variable may go as soon as the last wait was notified and has returned") {
  const nothing_left_over guard;
  concur::run(with_workers(4), [] {
    for (int i = 0; i < 300; ++i) {
      auto m = std::make_unique<mutex>();
      auto changed = std::make_unique<condition_variable>();
      bool is_set = false;
      companion other(i % 8 == 0 ? kind::thread : kind::fiber, [raw = m.get(), cv = changed.get(), &is_set] {
        raw->lock();
        is_set = true;
        cv->notify_all();
        raw->unlock();
      });
      {
        held_lock lock(*m);
        changed->wait(lock, [&] { return is_set; });
      }
      changed.reset();
      m.reset();
      other.join();
    }
  });
}
