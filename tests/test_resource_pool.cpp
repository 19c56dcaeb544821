// test_resource_pool.cpp - leases: who gets what in which order, what failing factories, broken things, closing and
// giving up leave behind.
#include "support/cancel.hpp"
#include "support/companion.hpp"
#include "support/tally.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using concur::resource_pool;
using namespace std::chrono_literals;

namespace {

using steady = std::chrono::steady_clock;

// Move-only, counted while it lives.
class connection {
 public:
  explicit connection(int number_in) : number(number_in) { ++alive; }
  connection(connection&& other) noexcept : number(std::exchange(other.number, -1)), uses(other.uses) { ++alive; }
  connection& operator=(connection&&) = delete;
  ~connection() { --alive; }

  int number;
  int uses = 0;
  static inline std::atomic<int> alive{0};
};

// Neither copied nor moved: made in place.
struct fixed {
  explicit fixed(int n) : number(n) {}
  fixed(const fixed&) = delete;
  fixed& operator=(const fixed&) = delete;
  int number;
};

std::vector<connection> connections(int count) {
  std::vector<connection> all;
  for (int i = 0; i < count; ++i) all.emplace_back(i);
  return all;
}

}  // namespace

TEST_CASE("things brought by hand: leased, given back, used again") {
  const nothing_left_over guard;
  everywhere([](kind) {
    resource_pool<connection> pool(2);
    CHECK(pool.capacity() == 2);
    CHECK(pool.size() == 0);
    CHECK_FALSE(pool.try_acquire());
    CHECK_FALSE(pool.acquire_for(0ms));
    pool.add(connection(1));
    pool.add(connection(2));
    connection refused(3);
    CHECK_THROWS_AS(pool.add(std::move(refused)), std::logic_error);
    CHECK(refused.number == 3);  // still the caller's
    CHECK(pool.size() == 2);
    CHECK(pool.idle() == 2);
    {
      resource_pool<connection>::lease a = pool.acquire();
      CHECK(a->number == 2);  // the last to come back goes out first
      CHECK((*a).number == 2);
      CHECK(a.get() == std::addressof(*a));
      resource_pool<connection>::lease b = pool.acquire_for(1s);
      CHECK(b->number == 1);
      CHECK(pool.idle() == 0);
      CHECK_FALSE(pool.try_acquire());
      CHECK_FALSE(pool.acquire_until(steady::now() - 1h));
      b->uses = 5;
      b.give_back();
      CHECK_FALSE(b);
      CHECK(b.get() == nullptr);
      b.give_back();
      b.discard();
      CHECK(pool.idle() == 1);
      b = pool.try_acquire();
      CHECK(b->uses == 5);
      a = std::move(b);  // what a held goes back
      CHECK(a->number == 1);
      CHECK(pool.idle() == 1);
      resource_pool<connection>::lease c(std::move(a));
      CHECK_FALSE(a);
      CHECK(c);
    }
    CHECK(pool.idle() == 2);
    CHECK(pool.size() == 2);
    {
      auto broken = pool.acquire();
      broken.discard();
      CHECK_FALSE(broken);
    }
    CHECK(pool.size() == 1);
    pool.add(connection(4));
    CHECK(pool.acquire()->number == 4);
  });
  CHECK(connection::alive == 0);
}

TEST_CASE("a container's elements, and things that cannot be moved") {
  const nothing_left_over guard;
  everywhere([](kind) {
    resource_pool<connection> pool(connections(3));
    CHECK(pool.capacity() == 3);
    CHECK(pool.idle() == 3);
    resource_pool<std::string> texts(2);
    const std::string text = "copied";
    texts.add(text);
    CHECK(*texts.acquire() == text);
    resource_pool<fixed> made(1, [] { return fixed(9); });
    CHECK(made.acquire()->number == 9);
    CHECK_THROWS_AS(resource_pool<int>(0), std::invalid_argument);
    CHECK_THROWS_AS(resource_pool<int>(0, [] { return 1; }), std::invalid_argument);
  });
  CHECK(connection::alive == 0);
}

TEST_CASE("a factory is called when one is wanted and none is idle, up to the capacity") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    int made = 0;
    resource_pool<connection> pool(2, [&made, own = std::make_unique<int>(10)] { return connection(*own + made++); });
    CHECK(made == 0);
    {
      auto a = pool.acquire();
      CHECK(a->number == 10);
    }
    auto b = pool.try_acquire();
    CHECK(made == 1);
    auto c = pool.try_acquire();
    CHECK(made == 2);
    CHECK_FALSE(pool.try_acquire());
    CHECK(pool.size() == 2);
    tally held;
    companion waiter(which, [&] { CONCUR_EXPECT(held, pool.acquire()->number == 12); });
    REQUIRE(waiter.wait_until_parked());
    c.discard();  // the place goes to the waiter, which makes a fresh one
    waiter.join();
    CHECK(held.report() == "");
    CHECK(made == 3);
    CHECK(pool.size() == 2);
    CHECK(pool.idle() == 1);
  });
  CHECK(connection::alive == 0);
}

TEST_CASE("a factory that throws gives its place to the next in line") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    std::atomic<int> calls{0};
    concur::event may_fail;
    resource_pool<connection> pool(1, [&]() -> connection {
      if (++calls == 1) {
        may_fail.wait();
        throw std::runtime_error("refused");
      }
      if (calls == 2) throw std::runtime_error("refused again");
      return connection(calls);
    });
    companion first(which, [&] { static_cast<void>(pool.acquire()); });
    REQUIRE(first.wait_until_parked());
    CHECK_FALSE(pool.try_acquire());  // the place is taken
    companion second(which, [&] { static_cast<void>(pool.acquire()); });
    REQUIRE(second.wait_until_parked());
    tally held;
    companion third(which, [&] { CONCUR_EXPECT(held, pool.acquire_for(20s)->number == 3); });
    REQUIRE(third.wait_until_parked());
    may_fail.set();
    CHECK_THROWS_AS(first.join(), std::runtime_error);
    CHECK_THROWS_AS(second.join(), std::runtime_error);
    third.join();
    CHECK(held.report() == "");
    CHECK(calls == 3);
    CHECK(pool.size() == 1);
    calls = 0;
    auto busy = pool.acquire();
    busy.discard();
    CHECK(pool.size() == 0);
    calls = 1;
    CHECK_THROWS_AS(static_cast<void>(pool.try_acquire()), std::runtime_error);
    CHECK(pool.size() == 0);
    CHECK(pool.acquire()->number == 3);
  });
  CHECK(connection::alive == 0);
}

TEST_CASE("first come, first served; nobody passes the line") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    resource_pool<connection> pool(connections(1));
    auto held = pool.acquire();
    std::vector<int> order;
    std::vector<companion> waiters;
    for (int i = 0; i < 5; ++i) {
      waiters.emplace_back(which, [&, i] {
        auto mine = pool.acquire();
        order.push_back(i);
        concur::this_fiber::yield();
      });
      REQUIRE(waiters.back().wait_until_parked());
    }
    held.give_back();
    for (companion& one : waiters) one.join();
    CHECK(order == std::vector<int>{0, 1, 2, 3, 4});
    CHECK(pool.idle() == 1);
  });
}

TEST_CASE("what was handed on is nobody else's, though its new holder has not run yet") {
  const nothing_left_over guard;
  concur::run(with_workers(1), [] {
    resource_pool<connection> pool(connections(1));
    auto held = pool.acquire();
    companion waiter(kind::fiber, [&] { static_cast<void>(pool.acquire()); });
    REQUIRE(waiter.wait_until_parked());
    held.give_back();
    CHECK_FALSE(pool.try_acquire());
    CHECK(pool.idle() == 0);
    waiter.join();
    CHECK(pool.idle() == 1);
  });
}

TEST_CASE("add gives to the first in line") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    resource_pool<connection> pool(1);
    tally held;
    companion waiter(which, [&] { CONCUR_EXPECT(held, pool.acquire()->number == 8); });
    REQUIRE(waiter.wait_until_parked());
    pool.add(connection(8));
    waiter.join();
    CHECK(held.report() == "");
    CHECK(pool.idle() == 1);
  });
}

TEST_CASE("who times out or is cancelled has been given nothing, and the next gets it") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    resource_pool<connection> pool(connections(1));
    auto held = pool.acquire();
    const auto begin = steady::now();
    CHECK_FALSE(pool.acquire_for(3ms));
    CHECK(steady::now() - begin >= 3ms);
    tally seen;
    companion gives_up(which, [&] { CONCUR_EXPECT(seen, !pool.acquire_for(2ms)); });
    gives_up.join();
    companion patient(which, [&] { CONCUR_EXPECT(seen, static_cast<bool>(pool.acquire())); });
    REQUIRE(patient.wait_until_parked());
    held.give_back();
    patient.join();
    CHECK(seen.report() == "");
    CHECK(pool.idle() == 1);
  });
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::run(with_workers(workers), [] {
      tally held;
      resource_pool<connection> pool(connections(1));
      auto busy = pool.acquire();
      concur_test::cancel_target target;
      companion leaver(kind::fiber, [&] {
        target.enter();
        bool was_cancelled = false;
        try {
          static_cast<void>(pool.acquire());
        } catch (const concur::cancelled&) {
          was_cancelled = true;
        }
        target.leave();
        CONCUR_EXPECT(held, was_cancelled);
      });
      REQUIRE(leaver.wait_until_parked());
      companion heir(kind::fiber, [&] { CONCUR_EXPECT(held, static_cast<bool>(pool.acquire())); });
      REQUIRE(heir.wait_until_parked());
      while (!target.strike()) concur::this_fiber::yield();
      busy.give_back();  // before the leaver has taken its note off, perhaps
      leaver.join();
      heir.join();
      CHECK(pool.idle() == 1);
      CHECK(held.report() == "");
    });
  }
}

TEST_CASE("closing: waiters are told, what is idle goes at once and what is out when it comes back") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    CHECK(connection::alive == 0);
    resource_pool<connection> pool(connections(2));
    auto a = pool.acquire();
    auto b = pool.acquire();
    companion waiter(which, [&] { static_cast<void>(pool.acquire_for(20s)); });
    REQUIRE(waiter.wait_until_parked());
    companion other(which, [&] { static_cast<void>(pool.acquire()); });
    REQUIRE(other.wait_until_parked());
    CHECK_FALSE(pool.closed());
    pool.close();
    pool.close();
    CHECK(pool.closed());
    CHECK_THROWS_AS(waiter.join(), std::logic_error);
    CHECK_THROWS_AS(other.join(), std::logic_error);
    CHECK_THROWS_AS(static_cast<void>(pool.acquire()), std::logic_error);
    CHECK_THROWS_AS(static_cast<void>(pool.acquire_for(1s)), std::logic_error);
    CHECK_THROWS_AS(pool.add(connection(1)), std::logic_error);
    CHECK_FALSE(pool.try_acquire());
    CHECK(pool.size() == 2);
    a.give_back();
    CHECK(connection::alive == 1);
    CHECK(pool.size() == 1);
    b.discard();
    CHECK(connection::alive == 0);
    CHECK(pool.size() == 0);
    resource_pool<connection> idle_ones(connections(3));
    CHECK(connection::alive == 3);
    idle_ones.close();
    CHECK(connection::alive == 0);
  });
}

TEST_CASE("leases may outlive their pool, and so may waits") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    std::optional<resource_pool<connection>> pool;
    pool.emplace(1, [] { return connection(1); });
    auto lease = pool->acquire();
    companion waiter(which, [&] { static_cast<void>(pool->acquire()); });
    REQUIRE(waiter.wait_until_parked());
    pool.reset();
    CHECK_THROWS_AS(waiter.join(), std::logic_error);
    CHECK(lease->number == 1);
    CHECK(connection::alive == 1);
    lease.give_back();
    CHECK(connection::alive == 0);
  });
}

TEST_CASE("what one holder did is seen by the next, and no thing has two holders") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    constexpr int fibers = 8;
    constexpr int rounds = 400;
    std::atomic<int> made{0};
    std::atomic<int> served{0}, discarded{0};
    resource_pool<connection> pool(3, [&] { return connection(++made); });
    {
      concur::runtime rt(with_workers(workers));
      const auto work = [&](int me) {
        for (int i = 0; i < rounds; ++i) {
          auto mine = i % 3 == 0 ? pool.acquire_for(std::chrono::microseconds(i % 40)) : pool.acquire();
          if (!mine) continue;
          ++mine->uses;  // a plain int: the thread sanitizer sees two holders
          ++served;
          if (i % 5 == 0) concur::this_fiber::yield();
          if (me == 1 && i % 10 == 0) {
            discarded += mine->uses;
            mine.discard();
          }
        }
      };
      std::vector<concur::future<void>> all;
      for (int i = 0; i < fibers; ++i) all.push_back(rt.go(work, i));
      std::thread outside(work, 100);
      outside.join();
      for (auto& one : all) one.get();
    }
    CHECK(pool.size() == pool.idle());
    CHECK(pool.size() <= 3);
    int uses = 0;
    while (auto one = pool.try_acquire()) {
      if (one->uses == 0) {
        one.discard();
        break;
      }
      uses += one->uses;
      one.discard();
    }
    CHECK(uses + discarded == served);
  }
  CHECK(connection::alive == 0);
}
