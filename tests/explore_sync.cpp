// explore_sync.cpp - locks and condition variables under every kind of schedule (support/scenario.hpp).
//
// What must hold: one at a time inside, each sees what the last one did, who gives up leaves nothing behind and keeps
// nothing, nobody is passed over for ever, and no notification is lost. A waiter that is forgotten ends in a deadlock,
// which needs no oracle.
#include <mutex>
#include <shared_mutex>

#include "support/guarded.hpp"

using namespace concur_test;
using namespace std::chrono_literals;
using concur::explore_expect;

namespace {

template <class Mutex>
void add_under(Mutex& m, guarded& value) {
  m.lock();
  value.add(1);
  m.unlock();
}

// Whether the mutex was had in time; then one is added.
template <class Mutex>
bool add_in_time(Mutex& m, guarded& value) {
  if (!m.try_lock_for(1ms)) return false;
  value.add(1);
  m.unlock();
  return true;
}

}  // namespace

// --- mutexes ---

TEST_CASE("a mutex lets one in at a time, who sees what the last one did") {
  const nothing_left_over guard;
  hold([] {
    concur::mutex m;
    guarded value("what the mutex guards");
    const auto twice = [&] {
      add_under(m, value);
      add_under(m, value);
    };
    concur::explored_thread outside(twice);
    concur::with_nursery([&](concur::nursery& n) {
      n.go(twice);
      n.go(twice);
    });
    outside.join();
    explore_expect(value.read() == 6, "two were inside at once");
    explore_expect(m.try_lock(), "somebody left without letting go");
    m.unlock();
  });
}

TEST_CASE("try_lock takes a mutex that is free, and orders as lock does") {
  const nothing_left_over guard;
  hold([] {
    concur::mutex m;
    guarded value("what the mutex guards");
    int taken = 0;
    const auto try_twice = [&](bool is_outside) {
      for (int i = 0; i < 2; ++i) {
        if (!m.try_lock()) continue;
        value.add(1);
        ++taken;
        m.unlock();
        if (!is_outside) concur::this_fiber::yield();
      }
    };
    concur::explored_thread outside([&] { try_twice(true); });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { try_twice(false); });
      n.go([&] {
        add_under(m, value);
        ++taken;
      });
    });
    outside.join();
    explore_expect(value.read() == taken, "two were inside at once");
    explore_expect(taken >= 1, "who waited was not let in");
  });
}

TEST_CASE("who is passed over for a millisecond is handed the mutex") {
  const nothing_left_over guard;
  hold([] {
    constexpr int rounds_max = 40;
    concur::mutex m;
    guarded value("what the mutex guards");
    int rounds = 0;
    concur::detail::atomic<int> missing{2};
    const auto once = [&] {
      add_under(m, value);
      missing.fetch_sub(1, std::memory_order_relaxed);
    };
    concur::explored_thread outside(once);
    concur::with_nursery([&](concur::nursery& n) {
      n.go(once);
      for (; missing.load(std::memory_order_relaxed) != 0; ++rounds) {
        explore_expect(rounds < rounds_max, "a waiter is passed over for ever");
        m.lock();
        value.add(1);
        concur::this_fiber::sleep_for(1ms);
        m.unlock();
      }
    });
    outside.join();
    explore_expect(value.read() == rounds + 2, "two were inside at once");
  });
}

TEST_CASE("a locker whose time is up leaves nothing behind, and its wake-up goes on to the next") {
  const nothing_left_over guard;
  hold([] {
    concur::timed_mutex m;
    guarded value("what the mutex guards");
    int taken = 0;
    m.lock();
    concur::explored_thread outside([&] { taken += add_in_time(m, value) ? 1 : 0; });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { taken += add_in_time(m, value) ? 1 : 0; });
      n.go([&] { add_under(m, value); });
      concur::this_fiber::sleep_for(1ms);
      value.add(1);
      m.unlock();
    });
    outside.join();
    explore_expect(value.read() == taken + 2, "who was told that it has the mutex had it not, or not alone");
    explore_expect(m.try_lock(), "somebody left without letting go");
    m.unlock();
  });
}

TEST_CASE("a locker that is cancelled has not taken the mutex, and those behind it get it") {
  const nothing_left_over guard;
  hold([] {
    concur::mutex m;
    guarded value("what the mutex guards");
    concur::cancel_scope scope(concur::deferred);
    bool was_taken = false;
    m.lock();
    concur::explored_thread outside([&] { scope.cancel(); });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        scope.run([&] {
          m.lock();
          was_taken = true;
          value.add(1);
          m.unlock();
        });
      });
      n.go([&] { add_under(m, value); });
      value.add(1);
      m.unlock();
    });
    outside.join();
    explore_expect(value.read() == (was_taken ? 3 : 2), "who was cancelled has the mutex, or who has it was cancelled");
    explore_expect(m.try_lock(), "somebody left without letting go");
    m.unlock();
  });
}

TEST_CASE("a recursive mutex is free when its holder has unlocked as often as locked") {
  const nothing_left_over guard;
  hold([] {
    concur::recursive_mutex m;
    guarded value("what the mutex guards");
    int taken = 0;
    const auto nested = [&] {
      m.lock();
      value.add(1);
      explore_expect(m.try_lock(), "the holder cannot lock again");
      m.lock();
      value.add(1);
      m.unlock();
      m.unlock();
      value.add(1);
      m.unlock();
    };
    concur::explored_thread outside(nested);
    concur::with_nursery([&](concur::nursery& n) {
      n.go(nested);
      n.go([&] { taken += add_in_time(m, value) ? 1 : 0; });
    });
    outside.join();
    explore_expect(value.read() == 6 + taken, "two were inside at once");
  });
}

TEST_CASE("who takes a mutex last may destroy it, though the unlock before is still on its way out") {
  const nothing_left_over guard;
  hold([] {
    struct shared_by_three {
      concur::mutex m;
      int users = 3;
    };
    std::optional<shared_by_three> place;
    place.emplace();
    concur::mutex* fresh = nullptr;
    const auto use = [&] {
      place->m.lock();
      const bool is_last = --place->users == 0;
      place->m.unlock();
      if (!is_last) return;
      place.reset();
      place.emplace();
      fresh = &place->m;
      fresh->lock();
      pause_here();
      explore_expect(!fresh->try_lock(), "an unlock touches the mutex that came after its own");
      fresh->unlock();
    };
    concur::explored_thread outside(use);
    concur::with_nursery([&](concur::nursery& n) {
      n.go(use);
      n.go(use);
    });
    outside.join();
    explore_expect(fresh != nullptr, "nobody was the last");
  });
}

TEST_CASE("an unlock that finds none but who has given up looks for those that came since") {
  const nothing_left_over guard;
  hold([] {
    concur::mutex m;
    concur::cancel_scope scope(concur::deferred);
    parked_sign waiter;
    guarded value("what the mutex guards");
    bool was_taken = false;
    m.lock();
    concur::explored_thread outside([&] {
      waiter.await();
      scope.cancel();
      add_under(m, value);
    });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        waiter.begins();
        scope.run([&] {
          m.lock();
          was_taken = true;
          m.unlock();
        });
      });
      waiter.await();
      value.add(1);
      m.unlock();
    });
    outside.join();
    explore_expect(value.read() == 2, "two were inside at once");
    explore_expect(was_taken == !scope.cancelled_caught(), "who was cancelled has the mutex, or has it not");
  });
}

// --- shared_mutex ---

TEST_CASE("a writer is alone, and what it writes the readers see whole") {
  const nothing_left_over guard;
  hold([] {
    concur::shared_mutex m;
    guarded first("what the writers write");
    guarded second("what the writers write");
    const auto write = [&] {
      m.lock();
      first.add(1);
      second.add(1);
      m.unlock();
    };
    const auto read = [&] {
      m.lock_shared();
      const int seen = first.read();
      pause_here();
      explore_expect(second.read() == seen, "a reader is inside with a writer");
      m.unlock_shared();
    };
    concur::explored_thread outside([&] {
      write();
      read();
    });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        write();
        read();
      });
      n.go([&] {
        read();
        if (m.try_lock_shared()) {
          explore_expect(first.read() == second.read(), "a reader is inside with a writer");
          m.unlock_shared();
        }
        read();
      });
    });
    outside.join();
    explore_expect(first.read() == 2 && second.read() == 2, "two writers were inside at once");
    explore_expect(m.try_lock(), "somebody left without letting go");
    m.unlock();
  });
}

TEST_CASE("readers are inside together, and a writer comes when the last of them has gone") {
  const nothing_left_over guard;
  hold([] {
    concur::shared_mutex m;
    guarded value("what the readers read");
    concur::latch inside(2);
    const auto read = [&] {
      m.lock_shared();
      inside.arrive_and_wait();
      const int seen = value.read();
      pause_here();
      explore_expect(value.read() == seen, "the writer is inside with a reader");
      m.unlock_shared();
    };
    concur::explored_thread outside(read);
    concur::with_nursery([&](concur::nursery& n) {
      n.go(read);
      n.go([&] {
        inside.wait();
        m.lock();
        value.add(1);
        m.unlock();
      });
    });
    outside.join();
    explore_expect(value.read() == 1, "the writer was not inside");
  });
}

TEST_CASE("a writer that waits keeps new readers out, and goes before them") {
  const nothing_left_over guard;
  hold([] {
    concur::shared_mutex m;
    parked_sign writer;
    parked_sign reader;
    int turn = 0;
    int turn_of_writer = 0;
    int turn_of_reader = 0;
    m.lock_shared();
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        writer.begins();
        m.lock();
        turn_of_writer = ++turn;
        m.unlock();
      });
      writer.await();
      explore_expect(!m.try_lock_shared(), "a reader passes a writer that waits");
      n.go([&] {
        reader.begins();
        m.lock_shared();
        turn_of_reader = ++turn;
        m.unlock_shared();
      });
      reader.await();
      m.unlock_shared();
    });
    explore_expect(turn_of_writer == 1 && turn_of_reader == 2, "a reader passes a writer that waits");
  });
}

TEST_CASE("after a writer come the readers that wait, then the next writer") {
  const nothing_left_over guard;
  hold([] {
    concur::shared_mutex m;
    parked_sign writer;
    parked_sign reader;
    int turn = 0;
    int turn_of_writer = 0;
    int turn_of_reader = 0;
    m.lock();
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        writer.begins();
        m.lock();
        turn_of_writer = ++turn;
        m.unlock();
      });
      writer.await();
      n.go([&] {
        reader.begins();
        m.lock_shared();
        turn_of_reader = ++turn;
        m.unlock_shared();
      });
      reader.await();
      m.unlock();
    });
    explore_expect(turn_of_reader == 1 && turn_of_writer == 2, "a writer passes the readers that wait");
  });
}

TEST_CASE("a writer that gives up lets in the readers that it held up") {
  const nothing_left_over guard;
  hold([] {
    concur::shared_mutex m;
    concur::cancel_scope scope(concur::deferred);
    concur::latch is_reading(1);
    m.lock_shared();
    concur::explored_thread outside([&] {
      m.lock_shared();
      m.unlock_shared();
    });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        if (m.try_lock_for(1ms)) m.unlock();
      });
      n.go([&] {
        scope.run([&] {
          m.lock();
          m.unlock();
        });
      });
      n.go([&] {
        m.lock_shared();
        is_reading.count_down();
        m.unlock_shared();
      });
      n.go([&] { scope.cancel(); });
      is_reading.wait();
      m.unlock_shared();
    });
    outside.join();
    explore_expect(m.try_lock(), "somebody left without letting go");
    m.unlock();
  });
}

TEST_CASE("a limit that passes as a shared_mutex is let go leaves it as it is") {
  const nothing_left_over guard;
  hold([] {
    concur::shared_mutex m;
    guarded value("what the writers write");
    int taken = 0;
    m.lock();
    concur::explored_thread outside([&] {
      if (!m.try_lock_shared_for(1ms)) return;
      static_cast<void>(value.read());
      m.unlock_shared();
    });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { taken += add_in_time(m, value) ? 1 : 0; });
      n.go([&] {
        m.lock_shared();
        static_cast<void>(value.read());
        m.unlock_shared();
      });
      concur::this_fiber::sleep_for(1ms);
      value.add(1);
      m.unlock();
    });
    outside.join();
    explore_expect(value.read() == taken + 1, "who was told that it has the lock had it not");
    explore_expect(m.try_lock(), "somebody left without letting go");
    m.unlock();
  });
}

// --- condition_variable ---

TEST_CASE("no notification is lost between producer and consumers") {
  const nothing_left_over guard;
  hold([] {
    concur::mutex m;
    concur::condition_variable changed;
    guarded items("what the condition is about");
    int taken = 0;
    const auto take = [&] {
      std::unique_lock<concur::mutex> held(m);
      changed.wait(held, [&] { return items.read() != 0; });
      items.add(-1);
      ++taken;
    };
    concur::explored_thread outside(take);
    concur::with_nursery([&](concur::nursery& n) {
      n.go(take);
      n.go(take);
      for (int i = 0; i < 3; ++i) {
        m.lock();
        items.add(1);
        if (i == 0) changed.notify_one();
        m.unlock();
        if (i != 0) changed.notify_one();
      }
    });
    outside.join();
    explore_expect(items.read() == 0 && taken == 3, "an item was taken twice, or not at all");
  });
}

TEST_CASE("a notification goes on to the next when the waiter was cancelled") {
  const nothing_left_over guard;
  hold([] {
    concur::mutex m;
    concur::condition_variable changed;
    concur::cancel_scope scope(concur::deferred);
    guarded tokens("what the condition is about");
    bool was_taken = false;
    const auto take = [&] {
      std::unique_lock<concur::mutex> held(m);
      changed.wait(held, [&] { return tokens.read() != 0; });
      tokens.add(-1);
    };
    concur::explored_thread outside([&] { scope.cancel(); });
    const auto give = [&] {
      m.lock();
      tokens.add(1);
      m.unlock();
      changed.notify_one();
    };
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        scope.run([&] {
          take();
          was_taken = true;
        });
        if (was_taken) give();
      });
      n.go(take);
      n.go(give);
    });
    outside.join();
    explore_expect(tokens.read() == 0, "a token was taken twice, or not at all");
  });
}

TEST_CASE("a notification goes on to the next when the waiter's time was up") {
  const nothing_left_over guard;
  hold([] {
    concur::mutex m;
    concur::condition_variable changed;
    int waiting = 0;
    const auto notify = [&] { changed.notify_one(); };
    const auto limited = [&] {
      m.lock();
      ++waiting;
      const bool was_notified = changed.wait_for(m, 1ms) == concur::cv_status::no_timeout;
      m.unlock();
      if (was_notified) notify();  // it was for the other one
    };
    concur::explored_thread outside(limited);
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        m.lock();
        ++waiting;
        changed.wait(m);
        m.unlock();
      });
      n.go([&] {
        for (bool are_there = false; !are_there;) {
          concur::this_fiber::sleep_for(500us);
          m.lock();
          are_there = waiting == 2;
          m.unlock();
        }
        notify();
      });
    });
    outside.join();
  });
}

TEST_CASE("notify_all ends every wait that began before it") {
  const nothing_left_over guard;
  hold([] {
    concur::mutex m;
    concur::condition_variable changed;
    guarded value("what the condition is about");
    const auto wait = [&] {
      std::unique_lock<concur::mutex> held(m);
      changed.wait(held, [&] { return value.read() != 0; });
    };
    concur::explored_thread outside(wait);
    concur::with_nursery([&](concur::nursery& n) {
      n.go(wait);
      n.go([&] {
        std::unique_lock<concur::mutex> held(m);
        const bool was_in_time = changed.wait_for(held, 10h, [&] { return value.read() != 0; });
        explore_expect(was_in_time, "a limit passed before its time");
      });
      m.lock();
      value.write(1);
      m.unlock();
      changed.notify_all();
    });
    outside.join();
  });
}

TEST_CASE("a cancelled wait for a condition ends with the lock held") {
  const nothing_left_over guard;
  hold([] {
    // Says whether it was taken, where a mutex throws.
    struct telling_mutex {
      concur::mutex m;
      bool is_held = false;
      void lock() {
        std::error_code error;
        const bool was_taken = m.lock(error);
        explore_expect(was_taken, "taking the lock again was cancelled");
        is_held = true;
      }
      void unlock() {
        is_held = false;
        m.unlock();
      }
    };
    telling_mutex m;
    concur::condition_variable changed;
    concur::cancel_scope scope(concur::deferred);
    guarded value("what the lock guards");
    concur::explored_thread outside([&] {
      m.lock();
      value.add(1);
      m.unlock();
      scope.cancel();
    });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        m.m.lock();
        m.is_held = true;
        std::error_code error;
        scope.run([&] { changed.wait(m, error); });
        explore_expect(m.is_held, "a wait ended without the lock");
        value.add(1);
        m.unlock();
      });
      n.go([&] {
        m.lock();
        value.add(1);
        m.unlock();
        changed.notify_one();
      });
    });
    outside.join();
    explore_expect(value.read() == 3, "two were inside at once");
  });
}

TEST_CASE("who could not let go of its lock passes the notification on") {
  const nothing_left_over guard;
  hold([] {
    struct stuck_lock {
      void lock() {}
      void unlock() {
        pause_here();
        throw 1;
      }
    };
    concur::mutex m;
    concur::condition_variable changed;
    parked_sign waiter;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        stuck_lock stuck;
        try {
          changed.wait(stuck);
          explore_expect(false, "what unlock() throws does not come out");
        } catch (int) {
        }
      });
      n.go([&] {
        m.lock();
        waiter.begins();
        changed.wait(m);
        m.unlock();
      });
      waiter.await();
      changed.notify_one();
    });
  });
}

TEST_CASE("a notification comes before the return of the wait that it ends, whatever the lock does") {
  const nothing_left_over guard;
  hold([] {
    struct no_lock {
      void lock() {}
      void unlock() { pause_here(); }
    };
    concur::condition_variable changed;
    guarded value("what is done before the notification");
    bool has_ended[2] = {false, false};
    const auto wait = [&](bool& has_returned) {
      no_lock none;
      changed.wait(none);
      explore_expect(value.read() == 1, "a wait does not see what came before its notification");
      has_returned = true;
    };
    concur::explored_thread outside([&] { wait(has_ended[0]); });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { wait(has_ended[1]); });
      n.go([&] {
        value.write(1);
        while (!has_ended[0] || !has_ended[1]) {
          changed.notify_one();
          concur::this_fiber::sleep_for(100us);
        }
      });
    });
    outside.join();
  });
}

// --- two threads, every schedule ---

TEST_CASE("locks hold under every schedule of two threads that are interrupted twice") {
  const nothing_left_over guard;
  exhaust([] {
    concur::mutex m;
    guarded value("what the mutex guards");
    concur::explored_thread other([&] { add_under(m, value); });
    add_under(m, value);
    other.join();
    explore_expect(value.read() == 2, "two were inside at once");
  });
  exhaust([] {
    concur::shared_mutex m;
    guarded value("what the writer writes");
    concur::explored_thread other([&] { add_under(m, value); });
    m.lock_shared();
    const int seen = value.read();
    explore_expect(value.read() == seen, "the writer is inside with a reader");
    m.unlock_shared();
    other.join();
    explore_expect(value.read() == 1, "the writer was not inside");
  });
  exhaust([] {
    concur::mutex m;
    concur::condition_variable changed;
    guarded value("what the condition is about");
    concur::explored_thread other([&] {
      add_under(m, value);
      changed.notify_one();
    });
    m.lock();
    changed.wait(m, [&] { return value.read() == 1; });
    m.unlock();
    other.join();
  });
}
