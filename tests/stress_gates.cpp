// stress_gates.cpp - storms over latch, barrier, event, call_once, resource_pool and wait_group: fibers and plain threads
// use one of them in every way there is, while waits time out and are cancelled at any moment. What goes in must come out:
// each case counts, and ends only if nobody was lost.
//
// About ten million operations each in the plain build. Each storm runs from a seed; timing decides the rest.
#include "support/cancel.hpp"
#include "support/tally.hpp"
#include "support/test.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

namespace {

using std::chrono::nanoseconds;

#if CONCUR_TSAN || CONCUR_ASAN
constexpr int slowness = 20;
#else
constexpr int slowness = 1;
#endif

constexpr std::size_t fibers = 6;

// Where no party waits for the others, a storm on a machine that is busy with something else ends after so long.
constexpr std::chrono::milliseconds storm_limit(1800);

// Who takes part besides the fibers. Where everybody waits for everybody, each round with a thread in it costs system
// calls: those storms are shorter.
struct cast {
  unsigned workers;
  std::size_t threads;
  int rounds(int usual) const { return usual / (threads == 0 ? 1 : 25) * CONCUR_TEST_SCALE / slowness + 1; }
  std::size_t parties() const { return fibers + threads; }
};
constexpr cast casts[] = {{1, 0}, {2, 0}, {4, 0}, {1, 2}, {2, 2}, {4, 2}};
constexpr cast mixed_casts[] = {{1, 2}, {2, 2}, {4, 2}};

// One party of a storm.
struct party {
  std::size_t number;
  std::mt19937 random;
  long operations = 0;
  std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();

  bool is_late(int round) const {
    return round % 64 == 63 && std::chrono::steady_clock::now() - begin > storm_limit;
  }
  bool one_in(unsigned n) { return random() % n == 0; }
  nanoseconds limit() { return nanoseconds(one_in(3) ? 0 : random() % 30000); }
};

// Runs body(party&) on the fibers and threads of a cast. A wait of a fiber may end with `cancelled` at any moment; a
// body that is left by it is the end of that party, so bodies catch it. Returns how many operations there were.
template <class Body>
long storm(const cast& who, unsigned seed, Body body) {
  CAPTURE(who.workers);
  CAPTURE(who.threads);
  CAPTURE(seed);
  std::atomic<long> operations{0};
  std::atomic<bool> is_over{false};
  std::vector<concur_test::cancel_target> targets(fibers);
  tally held;
  {
    concur::runtime rt(with_workers(who.workers));
    std::vector<concur::future<void>> running;
    const auto run = [&](std::size_t number) {
      party self{number, std::mt19937(seed + static_cast<unsigned>(number))};
      bool is_whole = true;
      try {
        body(self);
      } catch (...) {
        is_whole = false;
      }
      CONCUR_EXPECT(held, is_whole);
      operations += self.operations;
    };
    for (std::size_t i = 0; i < fibers; ++i) {
      running.push_back(rt.go([&run, &targets, i] {
        targets[i].enter();
        run(i);
        targets[i].leave();
      }));
    }
    std::vector<std::thread> outside;
    for (std::size_t i = 0; i < who.threads; ++i) outside.emplace_back(run, fibers + i);
    std::thread striker([&] {
      std::mt19937 random(seed);
      while (!is_over) {
        targets[random() % fibers].strike();
        if (random() % 4 == 0) std::this_thread::yield();
      }
    });
    for (auto& one : running) one.get();
    for (std::thread& one : outside) one.join();
    is_over = true;
    striker.join();
  }
  CHECK(held.report() == "");
  return operations;
}

// Waits in one of the ways there are. True: it was let go.
template <class Gate>
bool wait_somehow(party& self, Gate& gate) {
  ++self.operations;
  try {
    switch (self.random() % 4) {
      case 0:
        gate.wait();
        return true;
      case 1:
        return gate.try_wait();
      case 2:
        return gate.wait_for(self.limit());
      default:
        return gate.wait_until(std::chrono::steady_clock::now() + self.limit());
    }
  } catch (const concur::cancelled&) {
    return false;
  }
}

}  // namespace

TEST_CASE("latches: all open, nobody passes too soon") {
  const nothing_left_over guard;
  unsigned seed = 1;
  long operations = 0;
  for (const cast& who : casts) {
    const std::size_t count = static_cast<std::size_t>(who.rounds(360000));
    std::vector<std::unique_ptr<concur::latch>> doors;
    std::vector<std::atomic<int>> arrived(count);
    for (std::size_t i = 0; i < count; ++i)
      doors.push_back(std::make_unique<concur::latch>(static_cast<std::ptrdiff_t>(who.parties())));
    std::atomic<long> too_soon{0};
    operations += storm(who, seed += 100, [&](party& self) {
      for (std::size_t i = 0; i < count; ++i) {
        concur::latch& door = *doors[i];
        ++arrived[i];
        ++self.operations;
        bool has_passed = false;
        if (self.one_in(2)) {
          door.count_down();
        } else {
          try {
            door.arrive_and_wait();
            has_passed = true;
          } catch (const concur::cancelled&) {
          }
        }
        if (!has_passed) has_passed = wait_somehow(self, door);
        if (has_passed && arrived[i] != static_cast<int>(who.parties())) ++too_soon;
      }
    });
    CHECK(too_soon == 0);
    std::size_t open = 0;
    for (const auto& door : doors) open += door->try_wait() ? 1U : 0U;
    CHECK(open == count);
  }
  MESSAGE("latch: " << operations << " operations");
}

TEST_CASE("a barrier: as many completions as phases, and nobody a phase ahead") {
  const nothing_left_over guard;
  unsigned seed = 2;
  long operations = 0;
  for (const cast& who : casts) {
    const int phases = who.rounds(260000);
    int completed = 0;  // written by the completion only
    std::atomic<long> out_of_step{0};
    concur::barrier meet(static_cast<std::ptrdiff_t>(who.parties()), [&completed]() noexcept { ++completed; });
    operations += storm(who, seed += 100, [&](party& self) {
      for (int phase = 0; phase < phases; ++phase) {
        const auto token = meet.arrive();
        ++self.operations;
        for (;;) {
          ++self.operations;
          try {
            if (self.one_in(3)) {
              if (meet.wait_for(token, self.limit())) break;
            } else {
              meet.wait(token);
              break;
            }
          } catch (const concur::cancelled&) {
          }
        }
        if (completed != phase + 1) ++out_of_step;
      }
    });
    CHECK(completed == phases);
    CHECK(out_of_step == 0);
  }
  MESSAGE("barrier: " << operations << " operations");
}

TEST_CASE("an event set and reset all the time: every wait ends") {
  const nothing_left_over guard;
  unsigned seed = 3;
  long operations = 0;
  for (const cast& who : mixed_casts) {
    const int rounds = who.rounds(10000000);
    concur::event e;
    std::atomic<std::size_t> still_setting{who.threads};
    std::atomic<long> passed{0};
    std::atomic<long> sets{0};
    std::atomic<long> unset{0};
    operations += storm(who, seed += 100, [&](party& self) {
      long mine = 0;
      for (int i = 0; i < rounds && !self.is_late(i); ++i) {
        if (self.number >= fibers) {  // the threads set and reset; in the end one of them leaves it set
          ++sets;
          e.set();
          if (self.one_in(4)) e.set();
          if (!self.one_in(3)) e.reset();
          self.operations += 2;
          if (self.one_in(16)) std::this_thread::yield();
        } else if (wait_somehow(self, e)) {
          ++mine;
          if (sets == 0) ++unset;
        }
      }
      passed += mine;
      if (self.number >= fibers && --still_setting == 0) e.set();
    });
    CHECK(passed > 0);
    CHECK(unset == 0);
    CHECK(e.is_set());
  }
  MESSAGE("event: " << operations << " operations");
}

TEST_CASE("flags: each function is through exactly once, whoever throws or is cancelled before") {
  const nothing_left_over guard;
  unsigned seed = 4;
  long operations = 0;
  for (const cast& who : mixed_casts) {
    const std::size_t count = static_cast<std::size_t>(who.rounds(10000000));
    std::vector<concur::once_flag> flags(count);
    std::vector<int> ends(count);  // plain: only ever one function at a time, and a happens-before between two
    std::atomic<long> not_done{0};
    operations += storm(who, seed += 100, [&](party& self) {
      for (std::size_t i = 0; i < count; ++i) {
        for (bool is_through = false; !is_through;) {
          ++self.operations;
          try {
            concur::call_once(flags[i], [&] {
              if (self.one_in(8)) throw std::runtime_error("not this time");
              if (self.one_in(16)) concur::this_fiber::yield();
              if (self.one_in(64)) concur::this_fiber::sleep_for(nanoseconds(1000));
              ++ends[i];
            });
            is_through = true;
          } catch (const std::runtime_error&) {
          } catch (const concur::cancelled&) {
          }
        }
        if (ends[i] != 1) ++not_done;
      }
    });
    CHECK(not_done == 0);
    std::size_t once = 0;
    for (const int one : ends) once += one == 1 ? 1U : 0U;
    CHECK(once == count);
  }
  MESSAGE("call_once: " << operations << " operations");
}

namespace {

struct thing {
  explicit thing(std::atomic<int>& alive_in) : alive(&alive_in) { ++*alive; }
  thing(const thing&) = delete;
  thing& operator=(const thing&) = delete;
  ~thing() { --*alive; }
  std::atomic<int>* alive;
  long uses = 0;  // plain
};

}  // namespace

TEST_CASE("a pool: no thing is lost, doubled or one too many") {
  const nothing_left_over guard;
  unsigned seed = 5;
  long operations = 0;
  for (const cast& who : mixed_casts) {
    const int rounds = who.rounds(12000000);
    constexpr int capacity = 3;
    std::atomic<int> alive{0};
    std::atomic<int> out{0};
    std::atomic<int> refusals{0};
    std::atomic<long> served{0};
    std::atomic<long> retired{0};
    std::atomic<long> too_many{0};
    {
      concur::resource_pool<thing> pool(capacity, [&] {
        if (++refusals % 7 == 0) throw std::runtime_error("refused");
        return thing(alive);
      });
      operations += storm(who, seed += 100, [&](party& self) {
        for (int i = 0; i < rounds && !self.is_late(i); ++i) {
          ++self.operations;
          try {
            concur::resource_pool<thing>::lease mine;
            switch (self.random() % 4) {
              case 0:
                mine = pool.try_acquire();
                break;
              case 1:
                mine = pool.acquire_for(self.limit());
                break;
              default:
                mine = pool.acquire();
                break;
            }
            if (!mine) continue;
            if (++out > capacity || alive > capacity) ++too_many;
            ++mine->uses;
            ++served;
            if (self.one_in(8)) concur::this_fiber::yield();
            const bool is_broken = self.one_in(32);
            if (is_broken) retired += mine->uses;
            --out;
            if (is_broken) mine.discard();
          } catch (const std::runtime_error&) {
          } catch (const concur::cancelled&) {
          }
        }
      });
      CHECK(pool.size() == pool.idle());
      CHECK(pool.size() == static_cast<std::size_t>(alive));
      while (pool.idle() != 0) {
        auto left = pool.try_acquire();
        retired += left->uses;
        left.discard();
      }
      CHECK(pool.size() == 0);
    }
    CHECK(too_many == 0);
    CHECK(alive == 0);
    CHECK(retired == served);
  }
  MESSAGE("resource_pool: " << operations << " operations");
}

TEST_CASE("wait groups: all reach zero, nobody passes too soon") {
  const nothing_left_over guard;
  unsigned seed = 6;
  long operations = 0;
  for (const cast& who : casts) {
    const std::size_t count = static_cast<std::size_t>(who.rounds(250000));
    std::vector<concur::wait_group> groups(count);
    std::vector<std::atomic<int>> arrived(count);
    for (concur::wait_group& one : groups) one.add(static_cast<std::ptrdiff_t>(who.parties()));
    std::atomic<long> too_soon{0};
    operations += storm(who, seed += 100, [&](party& self) {
      for (std::size_t i = 0; i < count; ++i) {
        concur::wait_group& group = groups[i];
        if (self.one_in(4)) {
          group.add(2);
          group.add(-2);
          self.operations += 2;
        }
        ++arrived[i];
        ++self.operations;
        group.done();
        if (wait_somehow(self, group) && arrived[i] != static_cast<int>(who.parties())) ++too_soon;
      }
    });
    CHECK(too_soon == 0);
    std::size_t zero = 0;
    for (concur::wait_group& one : groups) {
      zero += one.try_wait() ? 1U : 0U;
      one.add();  // all waiters have gone
      one.done();
    }
    CHECK(zero == count);
  }
  MESSAGE("wait_group: " << operations << " operations");
}

TEST_CASE("a runtime that ends while its fibers wait leaves every gate whole") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    const int rounds = 60 / (slowness > 1 ? 4 : 1);
    for (int round = 0; round < rounds; ++round) {
      constexpr std::size_t kinds = 6;
      concur::event e;
      concur::latch door(1);
      concur::barrier<> meet(2);
      concur::once_flag flag;
      concur::wait_group group;
      concur::resource_pool<int> pool(1);
      pool.add(7);
      auto lease = pool.acquire();
      group.add();
      const auto token = meet.arrive();
      std::atomic<bool> is_running{false};
      std::atomic<int> ran{0};
      concur::event may_end;
      std::thread runner([&] {
        concur::call_once(flag, [&] {
          is_running = true;
          may_end.wait();
          ++ran;
        });
      });
      while (!is_running) std::this_thread::yield();
      std::atomic<int> cancelled{0};
      {
        concur::runtime rt(with_workers(workers));
        concur::latch begun(static_cast<std::ptrdiff_t>(2 * kinds));
        for (std::size_t i = 0; i < 2 * kinds; ++i) {
          rt.go([&, which = i % kinds] {
            begun.count_down();
            try {
              if (which == 0) e.wait();
              if (which == 1) door.wait();
              if (which == 2) meet.wait(token);
              if (which == 3) concur::call_once(flag, [&] { ran += 100; });
              if (which == 4) group.wait();
              if (which == 5) static_cast<void>(pool.acquire());
            } catch (const concur::cancelled&) {
              ++cancelled;
            }
          });
        }
        begun.wait();
      }
      REQUIRE(cancelled == static_cast<int>(2 * kinds));
      may_end.set();
      runner.join();
      lease.give_back();
      REQUIRE(ran == 1);
      REQUIRE(pool.idle() == 1);
      REQUIRE(*pool.acquire() == 7);
      REQUIRE_FALSE(meet.try_wait(token));
      meet.arrive_and_wait();
      REQUIRE(meet.try_wait(token));
      e.set();
      e.wait();
      door.arrive_and_wait();
      group.done();
      group.wait();
      concur::call_once(flag, [&] { ran += 100; });
      REQUIRE(ran == 1);
    }
  }
}
