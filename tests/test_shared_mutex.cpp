// test_shared_mutex.cpp - many readers or one writer, taking turns; who gives up holds nobody up.
#include "support/cancel.hpp"
#include "support/companion.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <stdexcept>
#include <thread>
#include <vector>

using concur::shared_mutex;
using namespace std::chrono_literals;

namespace {

using steady = std::chrono::steady_clock;

// Whether somebody else could read, and whether somebody else could write, now.
bool can_read(shared_mutex& m, kind which) {
  bool is_taken = false;
  companion other(which, [&] {
    is_taken = m.try_lock_shared();
    if (is_taken) m.unlock_shared();
  });
  other.join();
  return is_taken;
}
bool can_write(shared_mutex& m, kind which) {
  bool is_taken = false;
  companion other(which, [&] {
    is_taken = m.try_lock();
    if (is_taken) m.unlock();
  });
  other.join();
  return is_taken;
}

}  // namespace

TEST_CASE("try_read_try_write: who may come in beside whom") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    shared_mutex m;
    m.lock_shared();
    CHECK(can_read(m, which));
    CHECK_FALSE(can_write(m, which));
    CHECK(m.try_lock_shared());
    m.unlock_shared();
    CHECK_FALSE(m.try_lock());
    m.unlock_shared();
    CHECK(can_write(m, which));
    m.lock();
    CHECK_FALSE(can_read(m, which));
    CHECK_FALSE(can_write(m, which));
    CHECK_FALSE(m.try_lock());
    CHECK_FALSE(m.try_lock_shared());
    m.unlock();
    CHECK(can_read(m, which));
    CHECK(can_write(m, which));
  });
}

TEST_CASE("std's lock types work with it") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    shared_mutex m;
    {
      std::shared_lock<shared_mutex> first(m);
      std::shared_lock<shared_mutex> second(m, 1h);
      CHECK(second.owns_lock());
      std::unique_lock<shared_mutex> third(m, std::try_to_lock);
      CHECK_FALSE(third.owns_lock());
      CHECK(can_read(m, which));
    }
    {
      std::scoped_lock<shared_mutex> held(m);
      CHECK_FALSE(can_read(m, which));
    }
    std::unique_lock<shared_mutex> held(m, 1ms);
    CHECK(held.owns_lock());
    CHECK_FALSE(can_read(m, which));
  });
}

TEST_CASE("TestParallelReaders: readers are inside together") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    shared_mutex m;
    concur::wait_group inside;
    inside.add(4);
    std::vector<companion> readers;
    for (int i = 0; i < 4; ++i) {
      readers.emplace_back(which, [&] {
        m.lock_shared();
        inside.done();
        CHECK(inside.wait_for(20s));  // all of them, before one leaves
        m.unlock_shared();
      });
    }
    for (companion& one : readers) one.join();
    CHECK(m.try_lock());
    m.unlock();
  });
}

TEST_CASE("write_shared_pending: a writer waits for the readers, and a reader for the writer") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    shared_mutex m;
    int plain = 0;
    m.lock_shared();
    m.lock_shared();
    companion writer(which, [&] {
      m.lock();
      ++plain;
      m.unlock();
    });
    REQUIRE(writer.wait_until_parked());
    m.unlock_shared();
    CHECK(plain == 0);
    CHECK_FALSE(m.try_lock());
    m.unlock_shared();
    writer.join();
    CHECK(plain == 1);
    m.lock();
    companion reader(which, [&] {
      m.lock_shared();
      CHECK(plain == 2);
      m.unlock_shared();
    });
    REQUIRE(reader.wait_until_parked());
    ++plain;
    m.unlock();
    reader.join();
  });
}

TEST_CASE("writers are not starved: a waiting writer keeps new readers out") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    shared_mutex m;
    bool is_written = false;
    m.lock_shared();
    companion writer(which, [&] {
      m.lock();
      is_written = true;
      m.unlock();
    });
    REQUIRE(writer.wait_until_parked());
    CHECK_FALSE(m.try_lock_shared());
    CHECK_FALSE(m.try_lock_shared_for(1ms));
    companion reader(which, [&] {
      m.lock_shared();
      CHECK(is_written);
      m.unlock_shared();
    });
    REQUIRE(reader.wait_until_parked());
    m.unlock_shared();
    writer.join();
    reader.join();
  });
}

TEST_CASE("readers are not starved: after a writer those that waited go in together, before the next writer") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    shared_mutex m;
    concur::wait_group inside;
    inside.add(3);
    bool is_written = false;
    m.lock();
    companion second_writer(which, [&] {
      m.lock();
      is_written = true;
      m.unlock();
    });
    REQUIRE(second_writer.wait_until_parked());
    std::vector<companion> readers;
    for (int i = 0; i < 3; ++i) {
      readers.emplace_back(which, [&] {
        m.lock_shared();
        inside.done();
        CHECK(inside.wait_for(10s));
        CHECK_FALSE(is_written);
        m.unlock_shared();
      });
      REQUIRE(readers.back().wait_until_parked());
    }
    m.unlock();
    for (companion& one : readers) one.join();
    second_writer.join();
    CHECK(is_written);
  });
}

TEST_CASE("a writer that gives up lets in the readers it held back") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    shared_mutex m;
    m.lock_shared();
    companion writer(which, [&] { CHECK_FALSE(m.try_lock_for(80ms)); });
    REQUIRE(writer.wait_until_parked());
    companion reader(which, [&] {
      m.lock_shared();
      m.unlock_shared();
    });
    reader.join();  // while we still hold
    writer.join();
    CHECK(can_read(m, which));
    m.unlock_shared();
    CHECK(can_write(m, which));
  });
}

TEST_CASE("a writer that is cancelled lets in the readers it held back, and a cancelled reader takes nothing") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::run(with_workers(workers), [] {
      shared_mutex m;
      m.lock_shared();
      cancel_target target;
      companion writer(kind::fiber, [&] {
        target.enter();
        CHECK_THROWS_AS(m.lock(), concur::cancelled);
        target.leave();
      });
      REQUIRE(writer.wait_until_parked());
      companion reader(kind::thread, [&] {
        m.lock_shared();
        m.unlock_shared();
      });
      REQUIRE(reader.wait_until_parked());
      CHECK(target.strike());
      reader.join();
      writer.join();
      m.unlock_shared();
      m.lock();
      cancel_target other;
      companion late(kind::fiber, [&] {
        other.enter();
        CHECK_THROWS_AS(m.lock_shared(), concur::cancelled);
        other.leave();
      });
      REQUIRE(late.wait_until_parked());
      CHECK(other.strike());
      late.join();
      m.unlock();
      CHECK(m.try_lock());
      m.unlock();
    });
  }
}

TEST_CASE("of two waiting writers one gives up: the other still keeps readers out") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    shared_mutex m;
    m.lock_shared();
    std::atomic<int> written{0};
    companion first(which, [&] { CHECK_FALSE(m.try_lock_for(2ms)); });
    companion second(which, [&] {
      m.lock();
      ++written;
      m.unlock();
    });
    first.join();
    REQUIRE(second.wait_until_parked());
    CHECK_FALSE(m.try_lock_shared());
    m.unlock_shared();
    second.join();
    CHECK(written == 1);
  });
}

TEST_CASE("limited waits end in time, not before; what is free is taken whatever the limit") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    shared_mutex m;
    CHECK(m.try_lock_for(-1h));
    companion other(which, [&] {
      const auto begin = steady::now();
      CHECK_FALSE(m.try_lock_for(2ms));
      CHECK_FALSE(m.try_lock_shared_for(2ms));
      CHECK(steady::now() - begin >= 4ms);
      CHECK_FALSE(m.try_lock_until(begin));
      CHECK_FALSE(m.try_lock_shared_until(begin));
      CHECK_FALSE(m.try_lock_shared_for(-1h));
    });
    other.join();
    m.unlock();
    CHECK(m.try_lock_shared_for(0ms));
    CHECK(m.try_lock_shared_until(steady::now() - 1h));
    m.unlock_shared();
    m.unlock_shared();
    CHECK(m.try_lock_until((steady::time_point::max)()));
    m.unlock();
  });
}

TEST_CASE("misuse is reported and changes nothing") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    shared_mutex m;
    CHECK_THROWS_AS(m.unlock(), std::logic_error);
    CHECK_THROWS_AS(m.unlock_shared(), std::logic_error);
    m.lock();
    CHECK_THROWS_AS(m.lock(), std::logic_error);
    CHECK_THROWS_AS(m.lock_shared(), std::logic_error);
    CHECK_THROWS_AS(static_cast<void>(m.try_lock_for(1ms)), std::logic_error);
    CHECK_THROWS_AS(m.unlock_shared(), std::logic_error);
    companion other(which, [&] {
      CHECK_THROWS_AS(m.unlock(), std::logic_error);
      CHECK_THROWS_AS(m.unlock_shared(), std::logic_error);
    });
    other.join();
    m.unlock();
    m.lock_shared();
    CHECK_THROWS_AS(m.unlock(), std::logic_error);
    m.unlock_shared();
    CHECK_THROWS_AS(m.unlock_shared(), std::logic_error);
    CHECK(m.try_lock());
    m.unlock();
  });
}

TEST_CASE("TestRWMutex: never a writer beside anybody") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    shared_mutex m;
    std::atomic<int> activity{0};  // a writer counts ten thousand
    std::atomic<int> violations{0};
    long plain = 0;
    std::atomic<long> written{0};
    const auto write = [&] {
      for (int i = 0; i < 200; ++i) {
        if (i % 3 == 2) {
          if (!m.try_lock_for(std::chrono::microseconds(i % 30))) continue;
        } else {
          m.lock();
        }
        violations += (activity += 10000) != 10000 ? 1 : 0;
        ++plain;
        ++written;
        if (i % 16 == 0) concur::this_fiber::yield();
        activity -= 10000;
        m.unlock();
      }
    };
    const auto read = [&] {
      for (int i = 0; i < 500; ++i) {
        if (i % 3 == 2) {
          if (!m.try_lock_shared_for(std::chrono::microseconds(i % 30))) continue;
        } else {
          m.lock_shared();
        }
        const int now = ++activity;
        violations += now < 1 || now >= 10000 ? 1 : 0;
        if (plain < 0) ++violations;  // a race, if a writer is inside
        if (i % 16 == 0) concur::this_fiber::yield();
        --activity;
        m.unlock_shared();
      }
    };
    {
      concur::runtime rt(with_workers(workers));
      for (int i = 0; i < 2; ++i) rt.go(write);
      for (int i = 0; i < 8; ++i) rt.go(read);
      std::thread x(write);
      std::thread y(read);
      x.join();
      y.join();
      rt.wait_for_all();
    }
    CHECK(violations == 0);
    CHECK(plain == written);
    CHECK(m.try_lock());
    m.unlock();
  }
}

// Nothing but the lock orders these: a tool that looks for data races would find them.
TEST_CASE("an unlock happens before the next lock_shared, an unlock_shared before the next lock") {
  const nothing_left_over guard;
  shared_mutex m;
  long plain = 0;
  std::atomic<long> negative{0};
  const auto write = [&] {
    for (int i = 0; i < 1000; ++i) {
      m.lock();
      ++plain;
      m.unlock();
    }
  };
  const auto read = [&] {
    long count = 0;
    for (int i = 0; i < 1000; ++i) {
      m.lock_shared();
      count += plain < 0 ? 1 : 0;
      m.unlock_shared();
    }
    negative += count;
  };
  std::thread x(write);
  std::thread y(read);
  concur::run(with_workers(2), [&] {
    for (int i = 0; i < 2; ++i) {
      concur::go(write);
      concur::go(read);
    }
  });
  x.join();
  y.join();
  CHECK(plain == 3000);
  CHECK(negative == 0);
}

TEST_CASE("a shared mutex may go as soon as its last user has left") {
  const nothing_left_over guard;
  concur::run(with_workers(4), [] {
    for (int i = 0; i < 300; ++i) {
      auto m = std::make_unique<shared_mutex>();
      m->lock();
      std::vector<companion> readers;
      for (int k = 0; k < 3; ++k) {
        readers.emplace_back(kind::fiber, [raw = m.get()] {
          raw->lock_shared();
          raw->unlock_shared();
        });
      }
      if (i % 2 == 0) concur::this_fiber::yield();
      m->unlock();
      for (companion& one : readers) one.join();
      m.reset();
    }
  });
}
