// test_timers.cpp - the wheel against a plain sorted list, and the timed waits of fibers on top of it.
//
// The wheel is driven by hand, with parties of its own and a clock that is only a number. So years cost nothing, and
// each deadline can be held against what a std::multimap says.
#include "support/companion.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <random>
#include <thread>
#include <vector>

using concur::detail::nanoseconds_t;
using concur::detail::never;
using concur::detail::outcome;
using concur::detail::thread_party;
using concur::detail::timer_entry;
using concur::detail::timer_wheel;
using namespace std::chrono_literals;

namespace {

constexpr nanoseconds_t tick_ns = 1 << 16;
constexpr nanoseconds_t second_ns = 1000000000;
constexpr nanoseconds_t year_ns = 365 * 86400 * second_ns;
using steady = std::chrono::steady_clock;

// A wait that only time or the test ends.
struct wait_of_thread {
  thread_party who;
  timer_entry entry;

  void begin(timer_wheel& wheel, nanoseconds_t deadline_ns) {
    entry.deadline_ns = deadline_ns;
    entry.who = &who;
    entry.ticket = who.next_ticket();
    wheel.set(entry);
    who.word.store(entry.ticket);
  }
  bool is_over() const { return (who.word.load() & 1) == 0; }
  bool has_fired() const { return is_over() && who.result == outcome::timed_out; }
  bool end(timer_wheel& wheel) {
    const bool won = concur::detail::claim(who, entry.ticket);
    if (won) who.result = outcome::granted;
    wheel.call_off(entry);
    return won;
  }
};

// What is due is fired at the first look from which a tick has passed since.
bool must_have_fired(nanoseconds_t deadline_ns, nanoseconds_t now) {
  return deadline_ns <= never - tick_ns && deadline_ns + tick_ns <= now;
}

}  // namespace

TEST_CASE("a single deadline anywhere from a nanosecond to centuries: never early, and at most a tick late") {
  const nothing_left_over guard;
  for (const nanoseconds_t start : {nanoseconds_t{0}, nanoseconds_t{12345678901234}, 50 * year_ns}) {
    for (const nanoseconds_t delay :
         {nanoseconds_t{1}, tick_ns - 1, tick_ns, tick_ns + 1, 63 * tick_ns, 64 * tick_ns, 65 * tick_ns,
          4096 * tick_ns - 1, 4096 * tick_ns, second_ns, 3600 * second_ns, 51 * 86400 * second_ns,
          60 * 86400 * second_ns, year_ns, 8 * year_ns, 9 * year_ns, 10 * year_ns, 100 * year_ns}) {
      CAPTURE(start);
      CAPTURE(delay);
      timer_wheel wheel;
      wheel.start(start);
      CHECK(wheel.next_ns() == never);
      wait_of_thread wait;
      wait.begin(wheel, start + delay);
      CHECK(wheel.size() == 1);
      // Following next_ns, as the sleeper in the poller does, must get there in few steps and not beyond.
      int steps = 0;
      nanoseconds_t now = start;
      while (!wait.is_over() && steps < 100) {
        const nanoseconds_t next = wheel.next_ns();
        REQUIRE(next != never);
        REQUIRE(next <= start + delay + tick_ns);
        now = next > now ? next : now + 1;
        const std::size_t fired = wheel.fire(now);
        CHECK(fired == (wait.is_over() ? 1U : 0U));
        if (fired != 0) CHECK(now >= start + delay);
        ++steps;
      }
      CHECK(wait.has_fired());
      CHECK(wheel.size() == 0);
      CHECK(wheel.next_ns() == never);
    }
  }
}

TEST_CASE("a deadline before an unreachable one is not hidden by it") {
  const nothing_left_over guard;
  // The far one lies beyond the wheel, in the slot in which the present lies.
  for (const nanoseconds_t start : {nanoseconds_t{5 * tick_ns}, 3 * year_ns}) {
    for (const nanoseconds_t sooner : {second_ns, 60 * 86400 * second_ns, year_ns}) {
      CAPTURE(start);
      CAPTURE(sooner);
      timer_wheel wheel;
      wheel.start(start);
      wait_of_thread far_one;
      wait_of_thread near_one;
      far_one.begin(wheel, start + 100 * year_ns);
      near_one.begin(wheel, start + sooner);
      CHECK(wheel.next_ns() <= start + sooner);
      wheel.fire(start + sooner / 2);
      CHECK_FALSE(near_one.is_over());
      CHECK(wheel.next_ns() <= start + sooner + tick_ns);
      wheel.fire(start + sooner + tick_ns);
      CHECK(near_one.has_fired());
      CHECK_FALSE(far_one.is_over());
      wheel.fire(start + 100 * year_ns + tick_ns);
      CHECK(far_one.has_fired());
    }
  }
}

TEST_CASE("deadlines that have passed, and the ends of the range") {
  const nothing_left_over guard;
  timer_wheel wheel;
  wheel.start(1000 * second_ns);
  wait_of_thread waits[5];
  const nanoseconds_t deadlines[] = {concur::detail::long_ago, -1, 0, 1000 * second_ns, never - 1};
  for (int i = 0; i < 5; ++i) waits[i].begin(wheel, deadlines[i]);
  CHECK(wheel.next_ns() == concur::detail::long_ago);
  CHECK(wheel.fire(1000 * second_ns + tick_ns) == 4);
  for (int i = 0; i < 4; ++i) CHECK(waits[i].has_fired());
  CHECK_FALSE(waits[4].is_over());
  CHECK(waits[4].end(wheel));
  CHECK(wheel.size() == 0);
}

TEST_CASE("a wait that is not yet published is left for the next tick") {
  const nothing_left_over guard;
  timer_wheel wheel;
  wheel.start(0);
  wait_of_thread wait;
  wait.begin(wheel, tick_ns);
  wait.who.word.store(wait.entry.ticket - 1);  // still leaving
  CHECK(wheel.fire(3 * tick_ns) == 0);
  CHECK(wheel.size() == 1);
  CHECK(wheel.next_ns() <= 4 * tick_ns);
  wait.who.word.store(wait.entry.ticket);
  CHECK(wheel.fire(4 * tick_ns) == 1);
  CHECK(wait.has_fired());
}

TEST_CASE("a look that comes years late finds a wait that is not yet published once, not in every tick") {
  const nothing_left_over guard;
  timer_wheel wheel;
  wheel.start(0);
  wait_of_thread wait;
  wait.begin(wheel, tick_ns);
  wait.who.word.store(wait.entry.ticket - 1);  // still leaving
  CHECK(wheel.fire(100 * year_ns) == 0);  // a tick at a time this takes days
  CHECK(wheel.size() == 1);
  CHECK(wheel.next_ns() > 100 * year_ns);
  CHECK(wheel.next_ns() <= 100 * year_ns + tick_ns);
  wait.who.word.store(wait.entry.ticket);
  CHECK(wheel.fire(100 * year_ns + tick_ns) == 1);
  CHECK(wait.has_fired());
}

TEST_CASE("a wait that somebody else has ended is dropped and not touched") {
  const nothing_left_over guard;
  timer_wheel wheel;
  wheel.start(0);
  wait_of_thread wait;
  wait.begin(wheel, 10 * tick_ns);
  REQUIRE(concur::detail::claim(wait.who, wait.entry.ticket));
  wait.who.result = outcome::closed;
  CHECK(wheel.fire(20 * tick_ns) == 0);
  CHECK(wait.who.result == outcome::closed);
  CHECK(wheel.size() == 0);
  wheel.call_off(wait.entry);
  CHECK(wheel.size() == 0);
}

TEST_CASE("the wheel does what a sorted list does") {
  const nothing_left_over guard;
  for (unsigned seed = 1; seed <= 12; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    nanoseconds_t now =
        seed % 2 == 0 ? 0 : static_cast<nanoseconds_t>(random() % static_cast<std::uint64_t>(20 * year_ns));
    timer_wheel wheel;
    wheel.start(now);
    std::vector<std::unique_ptr<wait_of_thread>> waits;
    std::multimap<nanoseconds_t, wait_of_thread*> reference;
    std::size_t early = 0;
    std::size_t late = 0;
    std::size_t fired_in_all = 0;
    for (int step = 0; step < 4000; ++step) {
      // Delays and advances of every magnitude, so that every ring is used and crossed.
      const auto magnitude = [&](unsigned bits) {
        return static_cast<nanoseconds_t>(random() >> (64 - 1 - random() % bits));
      };
      const unsigned what = static_cast<unsigned>(random() % 8);
      if (what < 4) {
        waits.push_back(std::make_unique<wait_of_thread>());
        const nanoseconds_t deadline =
            concur::detail::saturating_add(now, magnitude(58) - static_cast<nanoseconds_t>(random() % 1000));
        waits.back()->begin(wheel, deadline);
        reference.emplace((std::max)(deadline, now), waits.back().get());  // one that has passed counts from now
      } else if (what < 6 && !reference.empty()) {
        auto victim = reference.lower_bound(now + magnitude(50));
        if (victim == reference.end()) victim = reference.begin();
        REQUIRE(victim->second->end(wheel));
        reference.erase(victim);
      } else {
        now = concur::detail::saturating_add(now, random() % 4 == 0 ? magnitude(52) : magnitude(30));
        if (now > 200 * year_ns) break;
        const std::size_t fired = wheel.fire(now);
        fired_in_all += fired;
        std::size_t seen = 0;
        for (auto it = reference.begin(); it != reference.end();) {
          const bool has_fired = it->second->has_fired();
          seen += has_fired ? 1 : 0;
          early += has_fired && it->first > now ? 1 : 0;
          late += !has_fired && must_have_fired(it->first, now) ? 1 : 0;
          if (!has_fired && it->first > now + tick_ns) break;
          it = has_fired ? reference.erase(it) : std::next(it);
        }
        CHECK(seen == fired);
      }
      REQUIRE(wheel.size() == reference.size());
      if (!reference.empty() && reference.begin()->first < never - tick_ns)
        REQUIRE(wheel.next_ns() <= (std::max)(reference.begin()->first, now) + tick_ns);
      REQUIRE(early == 0);
      REQUIRE(late == 0);
    }
    CHECK(fired_in_all > 100);
    for (auto& one : reference) CHECK(one.second->end(wheel));
    CHECK(wheel.next_ns() == never);
  }
}

TEST_CASE("calling off against firing: each wait ends once") {
  const nothing_left_over guard;
  timer_wheel wheel;
  wheel.start(0);
  constexpr int rounds = 20000;
  std::atomic<nanoseconds_t> clock{0};
  std::atomic<bool> is_over{false};
  std::atomic<long> fired{0};
  std::vector<std::thread> firing;
  for (int t = 0; t < 2; ++t) {
    firing.emplace_back([&] {
      while (!is_over) fired += static_cast<long>(wheel.fire(clock += tick_ns));
    });
  }
  long timed_out = 0;
  long won = 0;
  for (int i = 0; i < rounds; ++i) {
    wait_of_thread wait;  // its frame is reused at once: who touches it afterwards is found out
    wait.begin(wheel, clock + i % 5 * tick_ns);
    if (i % 3 == 0) {
      while (!wait.is_over()) std::this_thread::yield();
    }
    if (wait.end(wheel)) {
      ++won;
    } else {
      wait.who.thread.park();  // the resume is under way
      timed_out += wait.who.result == outcome::timed_out ? 1 : 0;
    }
  }
  is_over = true;
  for (std::thread& one : firing) one.join();
  CHECK(won + timed_out == rounds);
  CHECK(fired == timed_out);
  CHECK(wheel.size() == 0);
}

// --- through fibers and threads ---

TEST_CASE("sleeping is never too short, for every clock and unit") {
  const nothing_left_over guard;
  everywhere([](kind) {
    for (const auto length : {0us, 1us, 70us, 900us, 3000us}) {
      auto begin = steady::now();
      concur::this_fiber::sleep_for(length);
      CHECK(steady::now() - begin >= length);
      begin = steady::now();
      concur::this_fiber::sleep_until(begin + length);
      CHECK(steady::now() - begin >= length);
      const auto begin_of_day = std::chrono::system_clock::now();
      concur::this_fiber::sleep_until(begin_of_day + length);
      CHECK(std::chrono::system_clock::now() - begin_of_day >= length);
      begin = steady::now();
      concur::this_fiber::sleep_for(std::chrono::duration<double>(length));
      CHECK(steady::now() - begin >= length);
    }
    concur::this_fiber::sleep_for(-1h);
    concur::this_fiber::sleep_for(std::chrono::hours::min());
    concur::this_fiber::sleep_for(std::chrono::nanoseconds::min());
    concur::this_fiber::sleep_until(steady::time_point::min());
    concur::this_fiber::sleep_until(std::chrono::system_clock::time_point::min());
  });
}

TEST_CASE("lengths beyond every clock sleep until cancelled") {
  const nothing_left_over guard;
  std::vector<concur::future<void>> sleepers;
  {
    concur::runtime rt(with_workers(2));
    sleepers.push_back(rt.go([] { concur::this_fiber::sleep_for(std::chrono::hours::max()); }));
    sleepers.push_back(rt.go([] { concur::this_fiber::sleep_for(std::chrono::nanoseconds::max()); }));
    sleepers.push_back(rt.go([] { concur::this_fiber::sleep_for(std::chrono::duration<double>::max()); }));
    sleepers.push_back(rt.go([] { concur::this_fiber::sleep_until(steady::time_point::max()); }));
    sleepers.push_back(rt.go([] { concur::this_fiber::sleep_until(std::chrono::system_clock::time_point::max()); }));
    sleepers.push_back(rt.go([] { concur::this_fiber::sleep_for(std::chrono::hours(24 * 365 * 200)); }));
    for (const auto& one : sleepers) CHECK_FALSE(one.wait_for(2ms));
  }
  for (auto& one : sleepers) CHECK_THROWS_AS(one.get(), concur::cancelled);
}

TEST_CASE("many sleepers at once: each wakes, and none before its time") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    std::atomic<int> awake{0};
    std::atomic<int> early{0};
    concur::run(with_workers(workers), [&] {
      const auto base = steady::now() + 5ms;
      for (int i = 0; i < 2000; ++i) {
        concur::go([&, until = base + i * 37 % 2000 * 10us] {
          concur::this_fiber::sleep_until(until);
          early += steady::now() < until ? 1 : 0;
          ++awake;
        });
      }
    });
    CHECK(awake == 2000);
    CHECK(early == 0);
  }
}

TEST_CASE("a sleeper wakes while every worker but its own computes, and while none does anything") {
  const nothing_left_over guard;
  for (const unsigned workers : {2U, 4U}) {
    concur::run(with_workers(workers), [workers] {
      std::atomic<bool> is_over{false};
      std::vector<concur::future<void>> computing;
      for (unsigned i = 1; i < workers; ++i) {
        computing.push_back(concur::go([&is_over] {
          while (!is_over) {  // lets nobody else run
          }
        }));
      }
      for (int i = 0; i < 20; ++i) concur::this_fiber::sleep_for(1ms);
      is_over = true;
      for (auto& one : computing) one.get();
    });
  }
  for (const unsigned workers : {1U, 2U, 4U}) {
    const auto begin = steady::now();
    concur::run(with_workers(workers), [] {
      for (int i = 0; i < 50; ++i) concur::this_fiber::sleep_for(500us);
    });
    CHECK(steady::now() - begin >= 25ms);
    CHECK(steady::now() - begin < 10s);
  }
}
