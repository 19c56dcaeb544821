// test_shared_future.cpp - one result looked at by many: copies, waiters, and who has taken an exception.
#include "support/companion.hpp"
#include "support/results.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <stdexcept>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

using concur::future;
using concur::promise;
using concur::shared_future;
using namespace std::chrono_literals;

static_assert(std::is_copy_constructible<shared_future<int>>::value, "");
static_assert(std::is_copy_assignable<shared_future<int>>::value, "");
static_assert(std::is_nothrow_move_constructible<shared_future<int>>::value, "");
static_assert(std::is_same<decltype(std::declval<const shared_future<int>&>().get()), const int&>::value, "");
static_assert(std::is_same<decltype(std::declval<const shared_future<int&>&>().get()), int&>::value, "");
static_assert(std::is_same<decltype(std::declval<const shared_future<void>&>().get()), void>::value, "");
static_assert(std::is_convertible<future<int>, shared_future<int>>::value, "");
static_assert(!std::is_convertible<future<int>&, shared_future<int>>::value, "only what is given away");

TEST_CASE("every copy gives the same object, again and again") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    promise<counted> p;
    future<counted> single = p.get_future();
    shared_future<counted> a = single.share();
    CHECK_FALSE(single.valid());
    const shared_future<counted> b = a;
    shared_future<counted> c;
    CHECK_FALSE(c.valid());
    c = b;
    const std::array<const shared_future<counted>*, 3> copies = {&a, &b, &c};
    for (const shared_future<counted>* one : copies) {
      CHECK(one->valid());
      CHECK_FALSE(one->ready());
      CHECK_FALSE(one->wait_for(-1s));
      CHECK_FALSE(one->wait_until(std::chrono::steady_clock::now() - 1h));
    }
    companion(which, [&] { p.set_value(counted(4)); }).join();
    CHECK(&a.get() == &b.get());
    CHECK(&c.get() == &b.get());
    CHECK(a.get().number == 4);
    CHECK(a.valid());
    CHECK(a.ready());
    CHECK(b.wait_for(0s));
    const shared_future<counted> d = std::move(a);
    CHECK_FALSE(a.valid());
    CHECK(d.get().number == 4);
    c = shared_future<counted>();
    CHECK(counted::live == 1);
  });
  CHECK(counted::live == 0);
}

TEST_CASE("void, references, move-only values") {
  const nothing_left_over guard;
  concur::run(with_workers(2), [] {
    std::atomic<int> ran{0};
    const shared_future<void> nothing = concur::go([&] { ++ran; });
    nothing.get();
    nothing.get();
    CHECK(ran == 1);
    int target = 1;
    const shared_future<int&> reference = concur::go([&]() -> int& { return target; });
    ++reference.get();
    CHECK(&reference.get() == &target);
    CHECK(target == 2);
    const shared_future<std::unique_ptr<int>> unique = concur::go([] { return std::make_unique<int>(3); });
    CHECK(*unique.get() == 3);
    CHECK(unique.get() != nullptr);
  });
}

TEST_CASE("an empty one says so") {
  const nothing_left_over guard;
  const shared_future<int> none;
  CHECK_FALSE(none.valid());
  CHECK_FALSE(none.ready());
  CHECK_THROWS_AS(none.get(), std::future_error);
  CHECK_THROWS_AS(none.wait(), std::future_error);
  CHECK_THROWS_AS(none.wait_for(1ms), std::future_error);
  CHECK_THROWS_AS(none.on_ready([] {}), std::future_error);
  CHECK_THROWS_AS(none.then([](int) {}), std::future_error);
  CHECK_FALSE(shared_future<int>(future<int>()).valid());
  CHECK_FALSE(future<int>().share().valid());
}

TEST_CASE("many waiters, fibers and threads, and each wakes with the result") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    promise<int> p;
    const shared_future<int> shared = p.get_future();
    std::atomic<int> sum{0};
    {
      std::vector<companion> waiters;
      for (int i = 0; i < 6; ++i) {
        waiters.emplace_back(i % 2 == 0 ? which : kind::thread, [&sum, mine = shared, i] {
          if (i % 3 == 0 && !mine.wait_for(much_too_long)) return;
          sum += mine.get();
        });
      }
      for (companion& one : waiters) REQUIRE(one.wait_until_parked());
      p.set_value(7);
    }
    CHECK(sum == 42);
  });
}

TEST_CASE("a limited wait ends in time, the others stay") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    promise<int> p;
    const shared_future<int> shared = p.get_future();
    int got = 0;
    companion waiter(which, [&] { got = shared.get(); });
    REQUIRE(waiter.wait_until_parked());
    const auto begin = std::chrono::steady_clock::now();
    CHECK_FALSE(shared.wait_for(2ms));
    CHECK(std::chrono::steady_clock::now() - begin >= 2ms);
    p.set_value(3);
    waiter.join();
    CHECK(got == 3);
  });
}

TEST_CASE("an exception is rethrown to each, and has been taken then") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::run(with_workers(workers), [] {
      const shared_future<int> a = concur::go([]() -> int { throw special_error(3); });
      const shared_future<int> b = a;
      int sum = 0;
      for (const shared_future<int>& one : {a, b, a}) {
        try {
          one.get();
        } catch (const special_error& error) {
          sum += error.number;
        }
      }
      CHECK(sum == 9);
    });
    // Nobody took it: waiting is not taking.
    CHECK_THROWS_AS(concur::run(with_workers(workers),
                                [] {
                                  const shared_future<int> a = concur::go([]() -> int { throw special_error(3); });
                                  const shared_future<int> b = a;
                                  b.wait();
                                }),
                    special_error);
    // Passed on, and taken there, or not.
    concur::run(with_workers(workers), [] {
      const shared_future<int> a = concur::go([]() -> int { throw special_error(3); });
      CHECK_THROWS_AS(a.then([](int) {}).get(), special_error);
    });
    CHECK_THROWS_AS(concur::run(with_workers(workers),
                                [] {
                                  const shared_future<int> a = concur::go([]() -> int { throw special_error(3); });
                                  a.then([](int) {});
                                }),
                    special_error);
  }
}

TEST_CASE("a promise that breaks tells every copy") {
  const nothing_left_over guard;
  shared_future<int> a;
  {
    promise<int> p;
    a = p.get_future();
  }
  const shared_future<int> b = a;
  CHECK_THROWS_AS(a.get(), std::future_error);
  CHECK_THROWS_AS(b.get(), std::future_error);
}

TEST_CASE("many go on with one result, which stays") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    promise<int> p;
    const shared_future<int> shared = p.get_future();
    std::atomic<int> told{0};
    std::vector<future<int>> next;
    for (int i = 0; i < 4; ++i) {
      next.push_back(shared.then([i](const int& n) { return n * i; }));
      shared.on_ready([&] { ++told; });
    }
    const int* address = nullptr;
    future<void> looks = shared.then([&](const int& n) { address = &n; });
    future<int> unwrapped = shared.then([&](int n) { return shared.then([n](int m) { return n + m; }); });
    companion(which, [&] { p.set_value(10); }).join();
    int sum = 0;
    for (future<int>& one : next) sum += one.get();
    CHECK(sum == 60);
    CHECK(told == 4);
    looks.get();
    CHECK(address == &shared.get());
    CHECK(unwrapped.get() == 20);
  });
}

TEST_CASE("the last copy takes the result along, a pending then counts as one") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    promise<counted> p;
    shared_future<counted> a = p.get_future();
    future<int> next = a.then([](const counted& c) { return c.number; });
    a = shared_future<counted>();
    companion(which, [&] { p.set_value(counted(5)); }).join();
    CHECK(next.get() == 5);
    CHECK(counted::live == 0);
    // All are gone before the result is there.
    promise<counted> q;
    shared_future<counted> b = q.get_future();
    shared_future<counted> c = b;
    b = c = shared_future<counted>();
    q.set_value(counted(1));
    CHECK(counted::live == 0);
  });
}

TEST_CASE("copies that come and go while the result comes") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    for (int round = 0; round < 30; ++round) {
      promise<counted> p;
      shared_future<counted> shared = p.get_future();
      std::atomic<int> sum{0};
      {
        std::vector<companion> takers;
        for (int i = 0; i < 3; ++i) {
          takers.emplace_back(which, [&sum, mine = shared]() mutable {
            const shared_future<counted> other = mine;
            mine = shared_future<counted>();
            sum += other.get().number;
          });
        }
        shared = shared_future<counted>();
        p.set_value(counted(1));
      }
      CHECK(sum == 3);
      CHECK(counted::live == 0);
    }
  });
}

TEST_CASE("what was written before the result is seen by every copy") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    for (int i = 0; i < 40; ++i) {
      promise<void> p;
      const shared_future<void> shared = p.get_future();
      int plain = 0;
      std::atomic<int> seen{0};
      {
        std::vector<companion> waiters;
        for (int k = 0; k < 2; ++k) {
          waiters.emplace_back(which, [&] {
            shared.get();
            if (plain == i) ++seen;
          });
        }
        plain = i;
        p.set_value();
      }
      CHECK(seen == 2);
    }
  });
}
