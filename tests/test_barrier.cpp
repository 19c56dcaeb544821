// test_barrier.cpp - phases: who is let go when, the completion in between, arrivals that count whatever becomes of the wait.
#include "support/cancel.hpp"
#include "support/companion.hpp"
#include "support/tally.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

using concur::barrier;
using namespace std::chrono_literals;

namespace {

using steady = std::chrono::steady_clock;

}  // namespace

TEST_CASE("one party never waits, and every arrival is a phase with its completion") {
  const nothing_left_over guard;
  everywhere([](kind) {
    int phases = 0;
    barrier alone(1, [&phases]() noexcept { ++phases; });
    alone.arrive_and_wait();
    CHECK(phases == 1);
    const auto token = alone.arrive();
    CHECK(phases == 2);
    CHECK(alone.try_wait(token));
    alone.wait(token);
    alone.wait(token);  // as often as one likes
    CHECK(alone.wait_for(token, 0ms));
    CHECK(alone.wait_until(token, steady::now() - 1h));
    barrier<> plain(2);
    plain.wait(plain.arrive(2));
    CHECK((barrier<>::max)() > 0);
    alone.arrive_and_drop();
    CHECK(phases == 3);
  });
}

TEST_CASE("nobody passes before the last has arrived and the completion has run; then everybody") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    std::atomic<int> passed{0};
    int arrived = 0;
    int completed = 0;
    std::atomic<int> arrivals{0};
    barrier meet(4, [&]() noexcept {
      CONCUR_EXPECT(held, passed == 0);
      CONCUR_EXPECT(held, arrivals == 4);
      ++completed;  // happens before the return of every wait
    });
    std::vector<companion> parties;
    for (int i = 0; i < 3; ++i) {
      parties.emplace_back(i == 2 ? kind::thread : which, [&] {
        ++arrivals;
        meet.arrive_and_wait();
        CONCUR_EXPECT(held, completed == 1);
        CONCUR_EXPECT(held, arrived == 1);
        ++passed;
      });
      REQUIRE(parties.back().wait_until_parked());
    }
    CHECK(passed == 0);
    CHECK(completed == 0);
    arrived = 1;
    ++arrivals;
    const auto token = meet.arrive();
    CHECK(completed == 1);
    meet.wait(token);
    for (companion& one : parties) one.join();
    CHECK(passed == 3);
    CHECK(held.report() == "");
  });
}

TEST_CASE("a hundred phases in step: no party is ever a phase ahead") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    constexpr int parties = 5;
    constexpr int phases = 100;
    std::vector<int> at(parties, 0);  // each written by its party, read by the completion and by everybody after it
    int rounds = 0;
    barrier meet(parties, [&]() noexcept {
      for (const int one : at) CONCUR_EXPECT(held, one == rounds);
      ++rounds;
    });
    const auto work = [&](int me) {
      for (int phase = 0; phase < phases; ++phase) {
        at[static_cast<std::size_t>(me)] = phase;
        meet.arrive_and_wait();
      }
    };
    std::vector<companion> others;
    for (int i = 1; i < parties; ++i) others.emplace_back(i == 1 ? kind::thread : which, [&, i] { work(i); });
    work(0);
    for (companion& one : others) one.join();
    CHECK(rounds == phases);
    CHECK(held.report() == "");
  });
}

TEST_CASE("an arrival without a wait, and a wait that comes long after its phase") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    barrier<> meet(2);
    const auto early = meet.arrive();
    CHECK_FALSE(meet.try_wait(early));
    companion other(which, [&] { meet.arrive_and_wait(); });
    other.join();
    CHECK(meet.try_wait(early));
    meet.wait(meet.arrive(2));
    meet.wait(meet.arrive(2));
    meet.wait(early);  // three phases ago
    auto now = meet.arrive();
    companion waiter(which, [&meet, token = std::move(now)] { meet.wait(token); });
    REQUIRE(waiter.wait_until_parked());
    static_cast<void>(meet.arrive());
    waiter.join();
  });
}

TEST_CASE("a wait that timed out can be taken up again; the arrival counted") {
  const nothing_left_over guard;
  everywhere([](kind) {
    barrier<> meet(2);
    const auto token = meet.arrive();
    const auto begin = steady::now();
    CHECK_FALSE(meet.wait_for(token, 3ms));
    CHECK(steady::now() - begin >= 3ms);
    CHECK_FALSE(meet.wait_until(token, begin));
    static_cast<void>(meet.arrive());
    CHECK(meet.wait_for(token, 0ms));
    CHECK(meet.wait_until(token, begin));
  });
}

TEST_CASE("who drops out is not expected again") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    int phases = 0;
    barrier meet(3, [&phases]() noexcept { ++phases; });
    companion stays(which, [&] {
      meet.arrive_and_wait();
      meet.arrive_and_wait();
    });
    REQUIRE(stays.wait_until_parked());
    meet.arrive_and_drop();
    CHECK(phases == 0);
    const auto token = meet.arrive();
    CHECK(phases == 1);
    meet.wait(token);
    meet.arrive_and_wait();  // two are left
    CHECK(phases == 2);
    stays.join();
    meet.arrive_and_drop();
    meet.arrive_and_drop();
    CHECK(phases == 3);
    CHECK_THROWS_AS(meet.arrive_and_wait(), std::logic_error);  // nobody is expected any more
    CHECK_THROWS_AS(meet.arrive_and_drop(), std::logic_error);
  });
}

TEST_CASE("misuse: too many, none, negative, another barrier's token") {
  const nothing_left_over guard;
  everywhere([](kind) {
    CHECK_THROWS_AS(barrier<>(-1), std::invalid_argument);
    barrier<> nobody(0);
    CHECK_THROWS_AS(nobody.arrive_and_wait(), std::logic_error);
    barrier<> meet(2);
    barrier<> other(1);
    CHECK_THROWS_AS(static_cast<void>(meet.arrive(0)), std::invalid_argument);
    CHECK_THROWS_AS(static_cast<void>(meet.arrive(-1)), std::invalid_argument);
    CHECK_THROWS_AS(static_cast<void>(meet.arrive(3)), std::logic_error);
    const auto token = other.arrive();
    CHECK_THROWS_AS(meet.wait(token), std::logic_error);
    CHECK_THROWS_AS(meet.try_wait(token), std::logic_error);
    const auto mine = meet.arrive();
    CHECK_THROWS_AS(static_cast<void>(meet.arrive(2)), std::logic_error);
    CHECK_FALSE(meet.try_wait(mine));
    static_cast<void>(meet.arrive());
    meet.wait(mine);
  });
}

TEST_CASE("an arrival while the completion runs is one too many; the completion may park, and is not cancelled") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    tally held;
    concur::event may_end;
    {
      concur::runtime rt(with_workers(workers));
      std::atomic<bool> is_completing{false};
      bool is_completed = false;
      barrier meet(2, [&]() noexcept {
        is_completing = true;
        may_end.wait();
        is_completed = true;
      });
      auto first = rt.go([&] {
        bool was_cancelled = false;
        try {
          meet.arrive_and_wait();
        } catch (const concur::cancelled&) {
          was_cancelled = true;
        }
        CONCUR_EXPECT(held, was_cancelled || is_completed);
      });
      auto second = rt.go([&] {
        try {
          meet.arrive_and_wait();
        } catch (const concur::cancelled&) {
        }
      });
      while (!is_completing) std::this_thread::yield();
      CHECK_THROWS_AS(static_cast<void>(meet.arrive()), std::logic_error);
      rt.cancel_all();
      may_end.set();
      rt.wait_for_all();
      CHECK(is_completed);
      meet.wait(meet.arrive(2));
    }
    CHECK(held.report() == "");
  }
}

TEST_CASE("a cancelled waiter has arrived all the same") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::run(with_workers(workers), [] {
      tally held;
      int phases = 0;
      barrier meet(2, [&phases]() noexcept { ++phases; });
      concur_test::cancel_target target;
      companion waiter(kind::fiber, [&] {
        target.enter();
        bool was_cancelled = false;
        try {
          meet.arrive_and_wait();
        } catch (const concur::cancelled&) {
          was_cancelled = true;
        }
        target.leave();
        CONCUR_EXPECT(held, was_cancelled);
      });
      REQUIRE(waiter.wait_until_parked());
      while (!target.strike()) concur::this_fiber::yield();
      waiter.join();
      CHECK(phases == 0);
      meet.arrive_and_wait();
      CHECK(phases == 1);
      meet.wait(meet.arrive(2));
      CHECK(held.report() == "");
    });
  }
}

TEST_CASE("a barrier may go when the last wait has returned") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::run(with_workers(workers), [] {
      for (int i = 0; i < 500; ++i) {
        auto meet = std::make_unique<barrier<>>(2);
        concur::go([raw = meet.get()] { static_cast<void>(raw->arrive()); });
        meet->arrive_and_wait();
      }
    });
  }
}

TEST_CASE("move-only completions, and completions with state of their own") {
  const nothing_left_over guard;
  auto count = std::make_unique<int>(0);
  int* raw = count.get();
  barrier meet(1, [count = std::move(count)]() noexcept { ++*count; });
  meet.arrive_and_wait();
  meet.arrive_and_wait();
  CHECK(*raw == 2);
}
