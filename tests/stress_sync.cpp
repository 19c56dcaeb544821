// stress_sync.cpp - storms on locks, conditions and semaphores: fibers and threads, with limits that pass and waits that are
// cancelled, on 1, 2 and 4 workers.
//
// Each storm counts what must come out even: who was inside, what was taken, what was notified. That it ends at all says
// that everybody got through. Randomness comes from seeds; timing decides the rest.
#include "support/cancel.hpp"
#include "support/test.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <random>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

namespace {

#if CONCUR_TSAN || CONCUR_ASAN
constexpr long operations = 10000000L * CONCUR_TEST_SCALE / 40;
#else
constexpr long operations = 10000000L * CONCUR_TEST_SCALE;
#endif
constexpr unsigned fibers = 12;
constexpr unsigned threads = 2;
constexpr long share_of_thread = 50;  // a thread does one of so many operations: its waits cost a hundred times as much

using random_source = std::minstd_rand;

std::chrono::nanoseconds some_limit(random_source& random) { return std::chrono::nanoseconds(random() % 30000); }
bool one_in(random_source& random, unsigned count) { return (random() >> 8) % count == 0; }

struct result {
  std::atomic<long> done{0};
  std::atomic<long> cancelled{0};
};

// Runs step(random) `operations` / 3 times in all, from fibers and threads; a further thread cancels the fibers' waits.
template <class F>
void storm(unsigned workers, result& sum, F step) {
  std::array<cancel_target, fibers> targets;
  std::atomic<bool> is_over{false};
  std::thread striker([&] {
    random_source random(workers);
    while (!is_over) {
      targets[random() % fibers].strike();
      std::this_thread::yield();
      if (one_in(random, 8)) std::this_thread::sleep_for(20us);
    }
  });
  const auto work = [&](unsigned seed, long count) {
    random_source random(seed * 7919 + workers);
    for (long i = 0; i < count; ++i) {
      try {
        step(random);
        sum.done.fetch_add(1, std::memory_order_relaxed);
      } catch (const concur::cancelled&) {
        sum.cancelled.fetch_add(1, std::memory_order_relaxed);
      }
    }
  };
  {
    constexpr long each = operations / 3 / fibers;
    concur::runtime rt(with_workers(workers));
    for (unsigned i = 0; i < fibers; ++i) {
      rt.go([&, i] {
        targets[i].enter();
        work(i + 1, each);
        targets[i].leave();
      });
    }
    std::vector<std::thread> outside;
    for (unsigned i = 0; i < threads; ++i) outside.emplace_back([&, i] { work(100 + i, each / share_of_thread); });
    for (std::thread& one : outside) one.join();
    rt.wait_for_all();
    is_over = true;
    striker.join();
  }
}

template <class F>
void on_all_worker_counts(F body) {
  for (const unsigned workers : {1U, 2U, 4U}) {
    CAPTURE(workers);
    result sum;
    body(workers, sum);
    CHECK(sum.done + sum.cancelled >= operations / 3 / fibers * fibers);
    MESSAGE(workers, " workers: ", sum.done.load(), " done, ", sum.cancelled.load(), " cancelled");
  }
}

}  // namespace

TEST_CASE("mutex: one at a time, and everybody gets through") {
  const nothing_left_over guard;
  on_all_worker_counts([](unsigned workers, result& sum) {
    concur::mutex m;
    long plain = 0;
    std::atomic<long> taken{0};
    storm(workers, sum, [&](random_source& random) {
      if (one_in(random, 16)) {
        if (!m.try_lock()) return;
      } else {
        m.lock();
      }
      ++plain;
      taken.fetch_add(1, std::memory_order_relaxed);
      if (one_in(random, 64)) concur::this_fiber::yield();
      m.unlock();
    });
    CHECK(plain == taken);
    CHECK(m.try_lock());
    m.unlock();
  });
}

// In a crowd the next unlock makes good for a missed one. Here nobody comes after.
TEST_CASE("mutex: who announces itself in the moment of the unlock is not left waiting") {
  const nothing_left_over guard;
  constexpr int rounds = static_cast<int>(operations / 100);
  concur::mutex m;
  std::atomic<int> begun{0};
  std::atomic<int> through{0};
  std::thread other([&] {
    for (int round = 1; round <= rounds; ++round) {
      while (begun.load() != round) std::this_thread::yield();
      m.lock();
      m.unlock();
      through.store(round);
    }
  });
  random_source random(1);
  for (int round = 1; round <= rounds; ++round) {
    m.lock();
    begun.store(round);
    for (unsigned i = static_cast<unsigned>(random() % 256); i > 0; --i) concur::detail::cpu_relax();
    m.unlock();
    while (through.load() != round) std::this_thread::yield();
  }
  other.join();
  CHECK(m.try_lock());
  m.unlock();
}

TEST_CASE("timed_mutex and recursive_mutex: the same with limits") {
  const nothing_left_over guard;
  on_all_worker_counts([](unsigned workers, result& sum) {
    concur::timed_mutex m;
    concur::recursive_mutex r;
    long plain = 0;
    long plain_inside = 0;
    std::atomic<long> taken{0};
    std::atomic<long> taken_inside{0};
    storm(workers, sum, [&](random_source& random) {
      if (one_in(random, 2)) {
        if (one_in(random, 8)) {
          if (!m.try_lock_for(some_limit(random))) return;
        } else {
          m.lock();
        }
        ++plain;
        taken.fetch_add(1, std::memory_order_relaxed);
        if (one_in(random, 64)) concur::this_fiber::yield();
        m.unlock();
      } else {
        if (one_in(random, 8)) {
          if (!r.try_lock_for(some_limit(random))) return;
        } else {
          r.lock();
        }
        const bool is_again = r.try_lock();
        ++plain_inside;
        taken_inside.fetch_add(is_again ? 1 : 2, std::memory_order_relaxed);
        if (one_in(random, 64)) concur::this_fiber::yield();
        r.unlock();
        if (is_again) r.unlock();
      }
    });
    CHECK(plain == taken);
    CHECK(plain_inside == taken_inside);
    CHECK(m.try_lock());
    m.unlock();
    CHECK(r.try_lock());
    r.unlock();
    CHECK_THROWS_AS(r.unlock(), std::logic_error);
  });
}

TEST_CASE("shared_mutex: never a writer beside anybody, and neither kind starves") {
  const nothing_left_over guard;
  on_all_worker_counts([](unsigned workers, result& sum) {
    concur::shared_mutex m;
    std::atomic<long> inside{0};  // a writer counts a million
    std::atomic<long> violations{0};
    long plain = 0;
    std::atomic<long> written{0};
    storm(workers, sum, [&](random_source& random) {
      const bool is_limited = one_in(random, 16);
      if (one_in(random, 16)) {
        if (is_limited) {
          if (!m.try_lock_for(some_limit(random))) return;
        } else {
          m.lock();
        }
        if (inside.fetch_add(1000000) != 0) ++violations;
        ++plain;
        written.fetch_add(1, std::memory_order_relaxed);
        if (one_in(random, 16)) concur::this_fiber::yield();
        inside.fetch_sub(1000000);
        m.unlock();
      } else {
        if (is_limited) {
          if (!m.try_lock_shared_for(some_limit(random))) return;
        } else {
          m.lock_shared();
        }
        if (inside.fetch_add(1) >= 1000000) ++violations;
        if (plain < 0) ++violations;
        if (one_in(random, 64)) concur::this_fiber::yield();
        inside.fetch_sub(1);
        m.unlock_shared();
      }
    });
    CHECK(violations == 0);
    CHECK(inside == 0);
    CHECK(plain == written);
    CHECK(m.try_lock());
    m.unlock();
  });
}

TEST_CASE("counting_semaphore: permits are conserved, large requests get through") {
  const nothing_left_over guard;
  on_all_worker_counts([](unsigned workers, result& sum) {
    constexpr std::ptrdiff_t permits = 4;
    concur::counting_semaphore<permits> s(permits);
    std::atomic<std::ptrdiff_t> inside{0};
    std::atomic<long> violations{0};
    storm(workers, sum, [&](random_source& random) {
      const std::ptrdiff_t n = one_in(random, 8) ? permits : 1 + (random() >> 4) % 2;
      if (one_in(random, 16)) {
        if (!s.try_acquire_for(some_limit(random), n)) return;
      } else if (one_in(random, 16)) {
        if (!s.try_acquire(n)) return;
      } else {
        s.acquire(n);
      }
      if (inside.fetch_add(n) + n > permits) ++violations;
      if (one_in(random, 64)) concur::this_fiber::yield();
      inside.fetch_sub(n);
      s.release(n);
    });
    CHECK(violations == 0);
    CHECK(inside == 0);
    CHECK(s.try_acquire(permits));
    CHECK_FALSE(s.try_acquire());
  });
}

// Tokens go round: who takes one gives one back and notifies one. A lost notification leaves a token lying while all wait.
TEST_CASE("condition_variable: no notification is lost, and none counts twice") {
  const nothing_left_over guard;
  on_all_worker_counts([](unsigned workers, result& sum) {
    concur::mutex m;
    concur::condition_variable is_there;
    int tokens = 1;
    long notified = 0;
    long returned = 0;
    long wrong = 0;
    storm(workers, sum, [&](random_source& random) {
      m.lock();
      struct unlock_at_end {
        concur::mutex& held;
        ~unlock_at_end() { held.unlock(); }
      } at_end{m};
      while (tokens == 0) {
        if (one_in(random, 16)) {
          // Not notified, it leaves without having taken anything.
          if (is_there.wait_for(m, some_limit(random)) == concur::cv_status::timeout) return;
        } else {
          is_there.wait(m);
        }
        ++returned;
      }
      if (--tokens != 0) ++wrong;
      if (one_in(random, 2)) {
        m.unlock();
        if (one_in(random, 4)) concur::this_fiber::yield();
        // Again, even if that is cancelled: the token must come back.
        for (;;) {
          try {
            m.lock();
            break;
          } catch (const concur::cancelled&) {
          }
        }
      }
      ++tokens;
      ++notified;
      is_there.notify_one();
    });
    CHECK(wrong == 0);
    CHECK(tokens == 1);
    CHECK(returned <= notified);
    CHECK(returned > 0);
  });
}
