// explore_gates.cpp - semaphore, latch, barrier, event, wait_group, call_once and resource_pool under every kind of schedule
// (support/scenario.hpp).
//
// What must hold: nobody goes on before what it waits for has happened, and then sees all that was done for it; who
// gives up takes nothing with it; what is given is given once; a gate may go as soon as its waits have returned. A waiter
// that is forgotten ends in a deadlock, which needs no oracle.
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>

#include "support/guarded.hpp"

using namespace concur_test;
using namespace std::chrono_literals;
using concur::explore_expect;

namespace {

using permits = concur::counting_semaphore<>;

void expect_permits(permits& some, std::ptrdiff_t count) {
  explore_expect(count == 0 || some.try_acquire(count), "a permit is lost");
  explore_expect(!some.try_acquire(), "there are more permits than were given");
}

// Counts the things of a pool.
struct thing {
  explicit thing(int& count_in) noexcept : count(&count_in) { ++*count; }
  thing(thing&& other) noexcept : count(other.count) { ++*count; }
  thing(const thing&) = delete;
  thing& operator=(const thing&) = delete;
  ~thing() { --*count; }
  int* count;
};

}  // namespace

// --- semaphore ---

TEST_CASE("as many are inside as there are permits, who see what was done before") {
  const nothing_left_over guard;
  hold([] {
    concur::binary_semaphore one(1);
    guarded value("what the permit guards");
    int taken = 0;
    const auto use = [&] {
      one.acquire();
      value.add(1);
      ++taken;
      one.release();
      if (!one.try_acquire()) return;
      value.add(1);
      ++taken;
      one.release();
    };
    concur::explored_thread outside(use);
    concur::with_nursery([&](concur::nursery& n) {
      n.go(use);
      n.go(use);
    });
    outside.join();
    explore_expect(value.read() == taken && taken >= 3, "two were inside at once");
    explore_expect(one.try_acquire(), "a permit is lost");
  });
}

TEST_CASE("every release is seen by the acquire that needed it") {
  const nothing_left_over guard;
  hold([] {
    permits some(0);
    guarded left("what is done before one release");
    guarded right("what is done before the other release");
    concur::explored_thread outside([&] {
      left.write(1);
      some.release();
    });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        right.write(1);
        some.release(1);
      });
      n.go([&] {
        some.acquire(2);
        explore_expect(left.read() == 1 && right.read() == 1, "who has two permits does not see what came before both");
      });
    });
    outside.join();
    expect_permits(some, 0);
  });
}

TEST_CASE("the rest of a release is for who comes next, and tells it as much") {
  const nothing_left_over guard;
  hold([] {
    permits some(0);
    parked_sign first;
    guarded value("what is done before the release");
    const auto read = [&] {
      explore_expect(value.read() == 1, "an acquire does not see what came before the release");
    };
    concur::explored_thread outside([&] {
      if (!some.try_acquire()) return;
      read();
      some.release();
    });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        first.begins();
        some.acquire();
        read();
      });
      n.go([&] {
        first.await();
        value.write(1);
        some.release(2);
      });
    });
    outside.join();
    expect_permits(some, 1);
  });
}

TEST_CASE("small requests do not pass a large one") {
  const nothing_left_over guard;
  hold([] {
    permits some(0);
    parked_sign large;
    parked_sign small;
    int turn = 0;
    int turn_of_large = 0;
    int turn_of_small = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        large.begins();
        some.acquire(2);
        turn_of_large = ++turn;
      });
      large.await();
      n.go([&] {
        small.begins();
        some.acquire();
        turn_of_small = ++turn;
      });
      small.await();
      some.release();
      explore_expect(!some.try_acquire(), "a small request passes a large one that waits");
      some.release();
      while (turn_of_large == 0) concur::this_fiber::yield();
      explore_expect(turn_of_small == 0, "more were let in than there are permits");
      some.release();
    });
    explore_expect(turn_of_large == 1 && turn_of_small == 2, "a small request passes a large one that waits");
    expect_permits(some, 0);
  });
}

TEST_CASE("a large request that gives up lets in those behind it") {
  const nothing_left_over guard;
  hold([] {
    permits some(1);
    concur::cancel_scope scope(concur::deferred);
    concur::explored_thread outside([&] {
      some.acquire();
      some.release();
    });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { explore_expect(!some.try_acquire_for(1ms, 2), "there are more permits than were given"); });
      n.go([&] { scope.run([&] { some.acquire(3); }); });
      n.go([&] {
        some.acquire();
        some.release();
      });
      n.go([&] { scope.cancel(); });
    });
    outside.join();
    expect_permits(some, 1);
  });
}

TEST_CASE("permits neither vanish nor multiply when waits end in every way") {
  const nothing_left_over guard;
  hold([] {
    permits some(0);
    concur::cancel_scope scope(concur::deferred);
    int left = 2;
    concur::explored_thread outside([&] {
      if (some.try_acquire_for(1ms)) --left;
    });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        scope.run([&] {
          some.acquire();
          --left;
        });
      });
      n.go([&] {
        if (some.try_acquire_for(1ms, 2)) left -= 2;
      });
      n.go([&] {
        some.release();
        scope.cancel();
        some.release();
      });
    });
    outside.join();
    expect_permits(some, left);
  });
}

// --- latch ---

TEST_CASE("a latch opens after every arrival, which all who wait then see") {
  const nothing_left_over guard;
  hold([] {
    concur::latch door(2);
    guarded left("what is done before one arrival");
    guarded right("what is done before the other arrival");
    const auto look = [&] {
      explore_expect(left.read() == 1 && right.read() == 1, "who went through the door does not see what came before");
    };
    concur::explored_thread outside([&] {
      left.write(1);
      door.count_down();
      door.wait();
      look();
    });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        right.write(1);
        door.arrive_and_wait();
        look();
      });
      n.go([&] {
        door.wait();
        look();
      });
      n.go([&] {
        if (door.try_wait() || door.wait_for(1ms)) look();
      });
    });
    outside.join();
    explore_expect(door.try_wait(), "the latch did not open");
  });
}

TEST_CASE("a latch may go when its waits have returned, and the next one in its place is another") {
  const nothing_left_over guard;
  hold([] {
    constexpr int rounds = 3;
    std::optional<concur::latch> place;
    permits began(0);
    concur::detail::atomic<int> arrived{0};
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        for (int round = 1; round <= rounds; ++round) {
          place.emplace(1);
          began.release();
          place->wait();
          explore_expect(arrived.load() == round, "a count_down opens the latch that came after its own");
          place.reset();
        }
      });
      for (int round = 1; round <= rounds; ++round) {
        n.go([&] {
          began.acquire();
          arrived.fetch_add(1);
          place->count_down();
        });
      }
    });
  });
}

TEST_CASE("a limit that passes as a latch opens ends the wait") {
  const nothing_left_over guard;
  hold([] {
    concur::latch door(1);
    concur::cancel_scope scope(concur::deferred);
    bool is_open = false;
    const auto limited = [&] {
      if (door.wait_for(1ms)) explore_expect(is_open, "a wait ended before the latch opened");
    };
    concur::explored_thread outside(limited);
    concur::with_nursery([&](concur::nursery& n) {
      n.go(limited);
      n.go([&] { scope.run([&] { door.wait(); }); });
      n.go([&] {
        concur::this_fiber::sleep_for(1ms);
        scope.cancel();
        is_open = true;
        door.count_down();
      });
    });
    outside.join();
  });
}

// --- barrier ---

TEST_CASE("all meet at a barrier, and its completion runs once, behind all who came and before anybody leaves") {
  const nothing_left_over guard;
  hold([] {
    guarded parts[3] = {guarded("a party's part"), guarded("a party's part"), guarded("a party's part")};
    guarded sum("what the completion leaves");
    int completions = 0;
    const auto completion = [&]() noexcept {
      ++completions;
      int now = 0;
      for (guarded& part : parts) now += part.read();
      explore_expect(now == 3 * completions, "the completion runs before all have arrived");
      pause_here();
      sum.write(now);
    };
    concur::barrier<decltype(completion)> all(3, completion);
    const auto take_part = [&](guarded& mine) {
      mine.add(1);
      all.arrive_and_wait();
      explore_expect(sum.read() == 3, "somebody leaves before the completion has run");
      mine.add(1);
      all.arrive_and_wait();
      explore_expect(sum.read() == 6, "somebody leaves before the completion has run");
    };
    concur::explored_thread outside([&] { take_part(parts[0]); });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { take_part(parts[1]); });
      n.go([&] { take_part(parts[2]); });
    });
    outside.join();
    explore_expect(completions == 2, "the completion did not run once a phase");
  });
}

TEST_CASE("who dropped out of a barrier is not waited for, and a wait for a phase that is over ends") {
  const nothing_left_over guard;
  hold([] {
    concur::barrier<> all(3);
    guarded value("what is done before the drop");
    concur::explored_thread outside([&] {
      value.write(1);
      all.arrive_and_drop();
    });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        const auto token = all.arrive();
        if (!all.wait_for(token, 1ms)) all.wait(token);
        explore_expect(value.read() == 1, "the drop did not come before the phase's end");
        static_cast<void>(all.arrive());
        all.wait(token);
        explore_expect(all.try_wait(token), "a phase that is over is not");
      });
      n.go([&] {
        all.arrive_and_wait();
        explore_expect(value.read() == 1, "the drop did not come before the phase's end");
        all.arrive_and_wait();
      });
    });
    outside.join();
  });
}

TEST_CASE("who finds a phase over sees what all did before they arrived") {
  const nothing_left_over guard;
  hold([] {
    concur::barrier<> all(2);
    guarded left("what is done before one arrival");
    guarded right("what is done before the other arrival");
    concur::explored_thread outside([&] {
      left.write(1);
      const auto token = all.arrive();
      for (int i = 0; i < 3 && !all.try_wait(token); ++i) concur::this_fiber::yield();
      if (all.try_wait(token)) explore_expect(right.read() == 1, "a phase is over before all have arrived");
    });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        right.write(1);
        const auto token = all.arrive();
        if (all.wait_for(token, 1ms)) explore_expect(left.read() == 1, "a phase is over before all have arrived");
      });
    });
    outside.join();
  });
}

TEST_CASE("who is cancelled at a barrier has arrived, and its completion is not cancelled with it") {
  const nothing_left_over guard;
  hold([] {
    concur::cancel_scope scope(concur::deferred);
    concur::event door;
    bool was_cut_short = false;
    const auto completion = [&]() noexcept {
      std::error_code error;
      was_cut_short = !door.wait(error);
    };
    concur::barrier<decltype(completion)> all(2, completion);
    concur::explored_thread outside([&] {
      scope.cancel();
      door.set();
    });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { scope.run([&] { static_cast<void>(all.arrive()); }); });
      n.go([&] { all.arrive_and_wait(); });
    });
    outside.join();
    explore_expect(!was_cut_short, "the completion was cancelled");
  });
}

TEST_CASE("a barrier may go when its waits have returned, and the next one in its place is another") {
  const nothing_left_over guard;
  hold([] {
    constexpr int rounds = 3;
    std::optional<concur::barrier<>> place;
    permits began(0);
    concur::detail::atomic<int> arrived{0};
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        for (int round = 1; round <= rounds; ++round) {
          place.emplace(2);
          began.release();
          place->arrive_and_wait();
          explore_expect(arrived.load() == round, "an arrival counts for the barrier that came after its own");
          place.reset();
        }
      });
      for (int round = 1; round <= rounds; ++round) {
        n.go([&] {
          began.acquire();
          arrived.fetch_add(1);
          static_cast<void>(place->arrive());
        });
      }
    });
  });
}

// --- event ---

TEST_CASE("a set lets everybody go that waits, though it is taken back at once") {
  const nothing_left_over guard;
  hold([] {
    concur::event happened;
    parked_sign first;
    parked_sign second;
    guarded value("what is done before the event");
    const auto wait = [&](parked_sign& sign) {
      sign.begins();
      happened.wait();
      explore_expect(value.read() == 1, "a wait does not see what came before the set");
    };
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { wait(first); });
      n.go([&] { wait(second); });
      first.await();
      second.await();
      value.write(1);
      happened.set();
      happened.reset();
    });
    explore_expect(!happened.is_set(), "the event was not taken back");
  });
}

TEST_CASE("each set comes before the waits that find the event set, also when it was set before") {
  const nothing_left_over guard;
  hold([] {
    concur::event happened;
    guarded left("what is done before one set");
    guarded right("what is done before the other set");
    int sets = 0;  // not atomic: no edge of the memory comes with it
    const auto set = [&](guarded& mine) {
      mine.write(1);
      happened.set();
      concur::detail::thread_fence(std::memory_order_seq_cst);  // seq_cst: comes before the one below, or counts not
      ++sets;
    };
    concur::explored_thread outside([&] { set(left); });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { set(right); });
      n.go([&] {
        while (sets != 2) concur::this_fiber::yield();
        concur::detail::thread_fence(std::memory_order_seq_cst);  // seq_cst: what comes now sees both sets
        happened.wait();
        explore_expect(left.read() == 1 && right.read() == 1, "a wait does not see what came before a set");
      });
      n.go([&] {
        happened.wait();
        explore_expect(happened.is_set(), "an event that nobody took back is not set");
      });
    });
    outside.join();
  });
}

TEST_CASE("a limit that passes as an event is set leaves nothing behind") {
  const nothing_left_over guard;
  hold([] {
    concur::event happened;
    concur::cancel_scope scope(concur::deferred);
    bool was_set = false;
    const auto limited = [&] {
      for (int i = 0; i < 2; ++i) {
        if (happened.wait_for(1ms)) explore_expect(was_set, "a wait ended before the event");
      }
    };
    concur::explored_thread outside(limited);
    concur::with_nursery([&](concur::nursery& n) {
      n.go(limited);
      n.go([&] { scope.run([&] { happened.wait(); }); });
      n.go([&] {
        concur::this_fiber::sleep_for(1ms);
        was_set = true;
        happened.set();
        happened.reset();
        scope.cancel();
        happened.set();
      });
    });
    outside.join();
    explore_expect(happened.is_set(), "an event that nobody took back is not set");
  });
}

TEST_CASE("an event may go when its waits have returned, and the next one in its place is another") {
  const nothing_left_over guard;
  hold([] {
    constexpr int rounds = 3;
    std::optional<concur::event> place;
    permits began(0);
    concur::detail::atomic<int> sets{0};
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        for (int round = 1; round <= rounds; ++round) {
          place.emplace();
          began.release();
          place->wait();
          explore_expect(sets.load() == round, "a set is one of the event that came after its own");
          place.reset();
        }
      });
      for (int round = 1; round <= rounds; ++round) {
        n.go([&] {
          began.acquire();
          sets.fetch_add(1);
          place->set();
        });
      }
    });
  });
}

TEST_CASE("no wait is ended by the deadline of the one before") {
  const nothing_left_over guard;
  hold([] {
    concur::event first;
    concur::event second;
    concur::explored_thread outside([&] {
      concur::this_fiber::sleep_for(1ms);
      first.set();
      concur::this_fiber::sleep_for(1ms);
      second.set();
    });
    const auto wait = [&] {
      static_cast<void>(first.wait_for(1ms));
      explore_expect(second.wait_for(10h), "a wait ends hours before its limit");
    };
    concur::with_nursery([&](concur::nursery& n) {
      n.go(wait);
      n.go(wait);
    });
    outside.join();
  });
}

// --- wait_group ---

TEST_CASE("every done() comes before the wait that it ends") {
  const nothing_left_over guard;
  hold([] {
    concur::wait_group all;
    guarded left("what is done before one done()");
    guarded right("what is done before the other done()");
    const auto look = [&] {
      explore_expect(left.read() == 1 && right.read() == 1, "a wait does not see what came before a done()");
    };
    all.add(2);
    concur::explored_thread outside([&] {
      left.write(1);
      all.done();
      all.wait();
      look();
    });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        right.write(1);
        all.done();
      });
      n.go([&] {
        all.wait();
        look();
      });
      n.go([&] {
        if (all.try_wait() || all.wait_for(1ms)) look();
      });
    });
    outside.join();
    explore_expect(all.try_wait(), "the count is not zero");
  });
}

TEST_CASE("a wait_group serves round after round, and is not used again while waiters of the last one leave") {
  const nothing_left_over guard;
  const auto rounds = [] {
    concur::wait_group all;
    parked_sign waiter;
    bool has_left = false;
    bool was_reported = false;
    all.add();
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        waiter.begins();
        all.wait();
        has_left = true;
        all.add();
        n.go([&] { all.done(); });
        all.wait();
      });
      waiter.await();
      // With one worker nobody runs between these two.
      const bool is_alone = concur::detail::this_worker()->sched->worker_count == 1;
      all.done();
      if (!is_alone) return;
      try {
        all.add();
      } catch (const std::logic_error&) {
        was_reported = true;
      }
      explore_expect(was_reported, "the group is used again before the wait has returned");
    });
    explore_expect(has_left && all.try_wait(), "the count is not zero");
  };
  hold(rounds);
  scenario_options alone;
  alone.workers = 1;
  hold(rounds, alone);
}

// --- call_once ---

TEST_CASE("a function is called once, and every call returns behind its end") {
  const nothing_left_over guard;
  hold([] {
    concur::once_flag flag;
    guarded value("what the function does");
    const auto call = [&] {
      concur::call_once(flag, [&] {
        value.add(1);
        concur::this_fiber::yield();
      });
      explore_expect(value.read() == 1, "the function was called twice, or is not through");
    };
    concur::explored_thread outside(call);
    concur::with_nursery([&](concur::nursery& n) {
      n.go(call);
      n.go(call);
    });
    outside.join();
  });
}

TEST_CASE("a function that throws leaves its turn to the next, who is alone and knows that it is") {
  const nothing_left_over guard;
  hold([] {
    concur::once_flag flag;
    guarded value("what the functions do");
    int calls = 0;
    int inside = 0;
    const auto call = [&] {
      try {
        concur::call_once(flag, [&] {
          explore_expect(++inside == 1, "two functions run at once");
          value.add(1);
          pause_here();
          bool was_reported = false;
          try {
            concur::call_once(flag, [] {});
          } catch (const std::logic_error&) {
            was_reported = true;
          }
          explore_expect(was_reported, "who calls its own flag is not told");
          --inside;
          if (++calls < 3) throw calls;
        });
      } catch (int) {
      }
    };
    concur::explored_thread outside(call);
    concur::with_nursery([&](concur::nursery& n) {
      n.go(call);
      n.go(call);
      n.go([&] {
        concur::call_once(flag, [&] { calls = 3; });
        explore_expect(calls == 3, "a call returns though nothing was done");
      });
    });
    outside.join();
  });
}

TEST_CASE("who is cancelled as it runs a function or waits for one hands its turn on") {
  const nothing_left_over guard;
  hold([] {
    concur::once_flag flag;
    concur::cancel_scope scopes[2] = {concur::cancel_scope(concur::deferred), concur::cancel_scope(concur::deferred)};
    int done = 0;
    const auto cancelled_call = [&](concur::cancel_scope& scope) {
      scope.run([&] {
        concur::call_once(flag, [&] {
          concur::this_fiber::sleep_for(1ms);
          ++done;
        });
      });
    };
    concur::explored_thread outside([&] {
      for (concur::cancel_scope& scope : scopes) scope.cancel();
    });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { cancelled_call(scopes[0]); });
      n.go([&] { cancelled_call(scopes[1]); });
      n.go([&] {
        concur::call_once(flag, [&] { ++done; });
        explore_expect(done == 1, "the function was called twice, or not at all");
      });
    });
    outside.join();
  });
}

// --- resource_pool ---

TEST_CASE("one at a time has a thing of a pool, who sees what the last one did to it") {
  const nothing_left_over guard;
  hold([] {
    concur::resource_pool<int> pool(1, [] { return 0; });
    guarded value("a pool's thing");
    int taken = 0;
    const auto use = [&] {
      {
        const auto mine = pool.acquire();
        value.add(1);
        ++taken;
      }
      auto again = pool.try_acquire();
      if (!again) return;
      value.add(1);
      ++taken;
      again.give_back();
    };
    concur::explored_thread outside(use);
    concur::with_nursery([&](concur::nursery& n) {
      n.go(use);
      n.go(use);
    });
    outside.join();
    explore_expect(value.read() == taken && taken >= 3, "two have one thing");
    explore_expect(pool.idle() == 1 && pool.size() == 1, "the thing is lost");
  });
}

TEST_CASE("what comes back to a pool is not given to who has given up") {
  const nothing_left_over guard;
  hold([] {
    concur::resource_pool<int> pool(1);
    concur::cancel_scope scope(concur::deferred);
    pool.add(1);
    auto first = pool.acquire();
    concur::explored_thread outside([&] {
      const auto mine = pool.acquire_for(1ms);
      pause_here();
    });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { static_cast<void>(pool.acquire_for(1ms)); });
      n.go([&] { scope.run([&] { static_cast<void>(pool.acquire()); }); });
      n.go([&] { scope.cancel(); });
      n.go([&] { static_cast<void>(pool.acquire()); });
      concur::this_fiber::sleep_for(1ms);
      first.give_back();
    });
    outside.join();
    explore_expect(pool.idle() == 1 && pool.size() == 1, "the thing is lost");
  });
}

TEST_CASE("a thing that is added goes to who waits, who sees what was done before") {
  const nothing_left_over guard;
  hold([] {
    concur::resource_pool<int> pool(2);
    guarded value("what is done before the thing is added");
    const auto use = [&] {
      const auto mine = pool.acquire();
      explore_expect(value.read() == *mine, "who has a thing does not see what came before it");
    };
    concur::explored_thread outside(use);
    concur::with_nursery([&](concur::nursery& n) {
      n.go(use);
      n.go([&] {
        value.write(7);
        pool.add(7);
        pool.add(7);
      });
    });
    outside.join();
    explore_expect(pool.idle() == 2, "a thing is lost");
  });
}

TEST_CASE("a factory that throws and a thing that breaks leave their place to the next in line") {
  const nothing_left_over guard;
  hold([] {
    int made = 0;
    int count = 0;
    concur::resource_pool<thing> pool(1, [&] {
      concur::this_fiber::yield();
      if (++made == 1) throw made;
      return thing(count);
    });
    const auto use = [&] {
      try {
        auto mine = pool.acquire();
        explore_expect(count == 1, "there are more things than places");
        mine.discard();
      } catch (int) {
      }
    };
    concur::explored_thread outside(use);
    concur::with_nursery([&](concur::nursery& n) {
      n.go(use);
      n.go(use);
    });
    outside.join();
    explore_expect(made == 3, "somebody got nothing");
    explore_expect(pool.size() == 0 && count == 0, "a place is lost, or a thing");
  });
}

TEST_CASE("a pool that closes tells who waits, and destroys what comes back") {
  const nothing_left_over guard;
  hold([] {
    int count = 0;
    int got = 0;
    int told = 0;
    {
      std::optional<concur::resource_pool<thing>> pool;
      pool.emplace(std::size_t{1}, [&] { return thing(count); });
      concur::latch have_begun(2);
      const auto use = [&] {
        try {
          auto& here = *pool;
          have_begun.count_down();
          const auto mine = here.acquire();
          explore_expect(count == 1, "there are more things than places");
          ++got;
          pause_here();
        } catch (const std::logic_error&) {
          ++told;
        }
      };
      concur::explored_thread outside(use);
      concur::with_nursery([&](concur::nursery& n) {
        n.go(use);
        have_begun.wait();
        pool->close();
      });
      outside.join();
      explore_expect(pool->size() == 0, "a closed pool keeps a thing");
    }
    explore_expect(got + told == 2, "somebody was told nothing");
    explore_expect(count == 0, "a thing is lost");
  });
}

// --- threads alone ---

TEST_CASE("all who wait are let go, whatever those before them do next") {
  const nothing_left_over guard;
  scenario_options alone;
  alone.workers = 0;
  hold(
      [] {
        concur::latch first(1);
        concur::latch second(1);
        const auto wait_twice = [&] {
          for (concur::latch* door : {&first, &second}) door->wait();
        };
        concur::explored_thread one(wait_twice);
        concur::explored_thread other(wait_twice);
        first.count_down();
        second.count_down();
      },
      alone);
}

TEST_CASE("who finds the count at zero sees what was done before each done()") {
  const nothing_left_over guard;
  scenario_options alone;
  alone.workers = 0;
  hold(
      [] {
        concur::wait_group all;
        guarded left("what is done before one done()");
        guarded right("what is done before the other done()");
        all.add(2);
        const auto take_part = [&](guarded& mine) {
          mine.write(1);
          all.done();
          if (all.try_wait())
            explore_expect(left.read() == 1 && right.read() == 1, "the count is zero before all was done");
        };
        concur::explored_thread one([&] { take_part(left); });
        concur::explored_thread other([&] { take_part(right); });
        for (int i = 0; i < 2 && !all.try_wait(); ++i) concur::this_fiber::yield();
        if (all.try_wait())
          explore_expect(left.read() == 1 && right.read() == 1, "the count is zero before all was done");
      },
      alone);
}

// --- two threads, every schedule ---

TEST_CASE("gates hold under every schedule of two threads that are interrupted twice") {
  const nothing_left_over guard;
  exhaust([] {
    permits some(0);
    guarded value("what is done before the release");
    concur::explored_thread other([&] {
      value.write(1);
      some.release();
    });
    some.acquire();
    explore_expect(value.read() == 1, "an acquire does not see what came before the release");
    other.join();
    expect_permits(some, 0);
  });
  exhaust([] {
    concur::latch door(2);
    guarded value("what is done before the arrival");
    concur::explored_thread other([&] {
      value.write(1);
      door.count_down();
    });
    door.arrive_and_wait();
    explore_expect(value.read() == 1, "who went through the door does not see what came before");
    other.join();
  });
  exhaust([] {
    concur::event happened;
    guarded value("what is done before the event");
    concur::explored_thread other([&] {
      value.write(1);
      happened.set();
    });
    if (happened.wait_for(1ms)) explore_expect(value.read() == 1, "a wait does not see what came before the set");
    other.join();
    explore_expect(happened.is_set(), "an event that nobody took back is not set");
  });
  exhaust([] {
    concur::once_flag flag;
    guarded value("what the function does");
    const auto call = [&] {
      concur::call_once(flag, [&] { value.add(1); });
      explore_expect(value.read() == 1, "the function was called twice, or is not through");
    };
    concur::explored_thread other(call);
    call();
    other.join();
  });
}
