// test_crossbeam_time.cpp - what crossbeam-channel's after.rs, tick.rs and never.rs and Go's time package check of
// channels of time, written anew for fibers and plain threads.
//
// Nothing here asks that a moment comes within some time after it is due, only that it never comes before, and in the
// right order. Which test of theirs is which of ours, and which is left out, is in conformance.md.
#include "support/crew.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <optional>
#include <stdexcept>
#include <vector>

using concur::after;
using concur::channel;
using concur::otherwise;
using concur::receiver;
using concur::recv;
using concur::select;
using concur::selector;
using concur::status;
using concur::tick;
using concur::time_point;
using namespace std::chrono_literals;

namespace {

time_point now() { return std::chrono::steady_clock::now(); }

// Nothing may come before `due`; a value that is there must be later.
void expect_not_before(tally& held, time_point due, const std::optional<time_point>& got) {
  if (got) CONCUR_EXPECT(held, now() >= due && *got >= due);
}

}  // namespace

TEST_CASE("after.rs fire, recv, try_recv, capacity, len_empty_full, time/sleep_test.go TestAfter") {
  const nothing_left_over guard;
  everywhere([](kind) {
    tally held;
    const time_point begin = now();
    channel<time_point> once = after(5ms);
    CONCUR_EXPECT(held, once.capacity() == 1);
    const std::size_t early = once.size();
    CONCUR_EXPECT(held, early == 0 || now() >= begin + 5ms);
    const std::optional<time_point> fired = once.recv();
    CONCUR_EXPECT(held, fired.has_value());
    expect_not_before(held, begin + 5ms, fired);
    CONCUR_EXPECT(held, *fired <= now());
    CONCUR_EXPECT(held, !once.try_recv() && once.size() == 0);
    CONCUR_EXPECT(held, select(recv(once, [] {}), otherwise([] {})) == 1);
    CONCUR_EXPECT(held, select(recv(once, [] {}), recv(after(2ms), [] {})) == 1);
    // One that is due lies there until it is taken.
    channel<time_point> due = after(0ms);
    CONCUR_EXPECT(held, due.size() == 1 && due.try_recv() && due.size() == 0);
    CHECK(held.report() == "");
  });
}

TEST_CASE("after.rs and never.rs recv_timeout") {
  const nothing_left_over guard;
  everywhere([](kind) {
    tally held;
    const time_point begin = now();
    channel<time_point> once = after(6ms);
    time_point got;
    status how = once.recv_for(got, 2ms);
    CONCUR_EXPECT(held, now() >= begin + 2ms);
    if (how == status::timeout) how = once.recv_until(got, begin + 20s);
    CONCUR_EXPECT(held, how == status::ok && got >= begin + 6ms && now() >= begin + 6ms);
    const time_point again = now();
    CONCUR_EXPECT(held, once.recv_for(got, 2ms) == status::timeout);
    receiver<time_point> never_comes = concur::nil;
    CONCUR_EXPECT(held, never_comes.recv_for(got, 2ms) == status::timeout);
    CONCUR_EXPECT(held, now() >= again + 4ms && never_comes.size() == 0 && never_comes.capacity() == 0);
    CHECK(held.report() == "");
  });
}

TEST_CASE("after.rs and tick.rs recv_two, recv_race, select: each moment is taken once") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    const channel<time_point> a = after(2ms);
    const channel<time_point> b = after(2ms);
    crew others(which);
    for (int i = 0; i < 2; ++i) others.go([&] { select(recv(a, [] {}), recv(b, [] {})); });
    others.join();
    CONCUR_EXPECT(held, a.size() + b.size() == 0);
    const concur::ticker c = tick(1ms);
    const concur::ticker d = tick(1ms);
    for (int i = 0; i < 2; ++i) {
      others.go([&] {
        for (int k = 0; k < 5; ++k) select(recv(c, [] {}), recv(d, [] {}));
      });
    }
    others.join();
    CONCUR_EXPECT(held, select(recv(after(1ms), [] {}), recv(after(1h), [] {})) == 0);
    CONCUR_EXPECT(held, select(recv(tick(1h), [] {}), recv(tick(1ms), [] {})) == 1);

    std::vector<channel<time_point>> many;
    for (int i = 0; i < 60; ++i) many.push_back(after(std::chrono::microseconds(50 * i)));
    std::atomic<std::size_t> hits{0};
    for (int i = 0; i < 3; ++i) {
      others.go([&] {
        selector all;
        for (const channel<time_point>& one : many) all.add(recv(one, [&] { ++hits; }));
        while (hits < many.size()) all.wait_for(1ms);
      });
    }
    others.join();
    CONCUR_EXPECT(held, hits == many.size());
    CHECK(held.report() == "");
  });
}

TEST_CASE("after.rs stress_default, fairness, fairness_duplicates, stress_clone") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    for (int i = 0; i < 10; ++i) {
      CONCUR_EXPECT(held, select(recv(after(0ms), [] {}), otherwise([] {})) == 0);
      CONCUR_EXPECT(held, select(recv(after(1h), [] {}), otherwise([] {})) == 1);
    }
    constexpr int count = 1000;
    std::array<int, 2> of_two{};
    std::array<int, 5> of_five{};
    for (int i = 0; i < count; ++i) {
      ++of_two[static_cast<std::size_t>(select(recv(after(0ms), [] {}), recv(after(0ms), [] {})))];
      const channel<time_point> r = after(0ms);
      ++of_five[static_cast<std::size_t>(
          select(recv(r, [] {}), recv(r, [] {}), recv(r, [] {}), recv(r, [] {}), recv(r, [] {})))];
    }
    for (const int hits : of_two) CONCUR_EXPECT(held, hits >= count / 4);
    for (const int hits : of_five) CONCUR_EXPECT(held, hits >= count / 10);
    for (int i = 0; i < scaled(40); ++i) {
      const channel<time_point> shared = after(std::chrono::microseconds(20 * i));
      std::atomic<int> taken{0};
      crew others(which);
      for (int p = 0; p < 4; ++p) {
        others.go([&] {
          for (int k = 0; k < 20; ++k) {
            channel<time_point> copy = shared;
            taken += copy.try_recv() ? 1 : 0;
          }
        });
      }
      others.join();
      CONCUR_EXPECT(held, taken <= 1);
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("tick.rs fire, intervals, capacity, len_empty_full: ticks keep to their moments, and who is late finds one") {
  const nothing_left_over guard;
  everywhere([](kind) {
    tally held;
    constexpr auto period = 2ms;
    const time_point before = now();
    concur::ticker ticks = tick(period);
    const time_point behind = now();
    CONCUR_EXPECT(held, ticks.capacity() == 1);
    const time_point first = ticks.recv().value();
    // A moment of the ticker's: the first, unless this party itself came late.
    CONCUR_EXPECT(held, first >= before + period && (first - before) % period <= behind - before && first <= now());
    concur::this_fiber::sleep_for(5 * period);
    const time_point slept = now();
    CONCUR_EXPECT(held, ticks.size() == 1);
    // The ticks that nobody took have become one, the last that was due when somebody looked.
    const time_point late = ticks.recv().value();
    CONCUR_EXPECT(held, late > slept - period && (late - first) % period == 0ns);
    const time_point next = ticks.recv().value();
    CONCUR_EXPECT(held, next > late && (next - first) % period == 0ns && next <= now());
    CHECK(held.report() == "");
  });
}

TEST_CASE("tick.rs recv_timeout, try_recv, fairness, fairness_duplicates") {
  const nothing_left_over guard;
  everywhere([](kind) {
    tally held;
    const time_point begin = now();
    concur::ticker ticks = tick(1h);
    time_point got;
    CONCUR_EXPECT(held, ticks.recv_for(got, 2ms) == status::timeout && now() >= begin + 2ms);
    CONCUR_EXPECT(held, !ticks.try_recv());
    concur::ticker quick = tick(1ms);
    for (int i = 0; i < 3; ++i) CONCUR_EXPECT(held, quick.recv_for(got, 20s) == status::ok);
    CONCUR_EXPECT(held, now() >= begin + 3ms);
    // Both of two are always due, each of five stands for the same one.
    std::array<int, 2> of_two{};
    std::array<int, 5> of_five{};
    concur::ticker a = tick(1ns);
    concur::ticker b = tick(1ns);
    constexpr int count = 1000;
    for (int i = 0; i < count; ++i) {
      ++of_two[static_cast<std::size_t>(select(recv(a, [] {}), recv(b, [] {})))];
      ++of_five[static_cast<std::size_t>(
          select(recv(a, [] {}), recv(a, [] {}), recv(a, [] {}), recv(a, [] {}), recv(a, [] {})))];
    }
    for (const int hits : of_two) CONCUR_EXPECT(held, hits >= count / 4);
    for (const int hits : of_five) CONCUR_EXPECT(held, hits >= count / 10);
    CHECK(held.report() == "");
  });
}

TEST_CASE("time/sleep_test.go TestAfterQueuing, TestAfterTick: moments come in the order in which they are due") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    constexpr std::array<int, 10> order = {5, 3, 6, 6, 6, 1, 1, 2, 7, 9};
    channel<time_point> results(order.size());
    const time_point begin = now();
    crew others(which);
    for (const int slot : order) {
      others.go([&, slot] {
        const time_point fired = after(std::chrono::milliseconds(slot)).recv().value();
        CONCUR_EXPECT(held, fired >= begin + std::chrono::milliseconds(slot));
        results.send(fired);
      });
    }
    others.join();
    CONCUR_EXPECT(held, results.size() == order.size());
    const auto ticks_begin = now();
    for (int i = 0; i < 5; ++i) after(1ms).recv();
    CONCUR_EXPECT(held, now() >= ticks_begin + 5ms);
    // Of two in one select the earlier goes first, whichever stands first.
    const channel<time_point> early = after(1ms);
    const channel<time_point> late = after(1h);
    CONCUR_EXPECT(held, select(recv(late, [] {}), recv(early, [] {})) == 1);
    CHECK(held.report() == "");
  });
}

TEST_CASE("time/tick_test.go TestTicker, TestTeardown: ticks until it is stopped, and others when it is reset") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    const time_point begin = now();
    concur::ticker ticks = tick(1ms);
    for (int i = 0; i < 3; ++i) CONCUR_EXPECT(held, ticks.recv().has_value());
    const time_point middle = now();
    ticks.reset(4ms);
    while (ticks.try_recv()) {  // one that lay there stays
    }
    for (int i = 0; i < 2; ++i) CONCUR_EXPECT(held, ticks.recv().has_value());
    CONCUR_EXPECT(held, middle >= begin + 3ms && now() >= middle + 8ms);
    crew others(which);
    concur::ticker long_one = tick(1h);
    CONCUR_EXPECT(held, others.go([&] { CONCUR_EXPECT(held, !long_one.recv()); }).wait_until_parked());
    long_one.stop();
    others.join();
    ticks.stop();
    ticks.stop();
    while (ticks.try_recv()) {
    }
    CONCUR_EXPECT(held, !ticks.recv() && ticks.closed());
    ticks.reset(1ms);  // stopped for good
    CONCUR_EXPECT(held, !ticks.recv());
    for (int i = 0; i < 3; ++i) {
      concur::ticker one = tick(1ms);
      one.recv();
      one.stop();
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("time/tick_test.go TestNewTickerLtZeroDuration, TestTickerResetLtZeroDuration, TestTick") {
  const nothing_left_over guard;
  CHECK_THROWS_AS(tick(-1ms), std::invalid_argument);
  CHECK_THROWS_AS(tick(0ms), std::invalid_argument);
  concur::ticker ticks = tick(1h);
  CHECK_THROWS_AS(ticks.reset(0s), std::invalid_argument);
  CHECK_THROWS_AS(ticks.reset(-1s), std::invalid_argument);
  CHECK_FALSE(ticks.try_recv());
  CHECK(after(-1ms).try_recv());
}
