// test_java_scopes.cpp - what OpenJDK's tests check of StructuredTaskScope: fork, join, close, interruption and deadlines,
// written anew for nurseries. What they check of results is in test_java_joiners.cpp.
//
// Which test of theirs is which of ours, and which is left out, is in conformance.md.
#include "support/crew.hpp"
#include "support/nursery.hpp"

#include <algorithm>
#include <mutex>
#include <set>
#include <string>

using concur::cancel_scope;
using concur::cancelled;
using concur::move_on_after;
using concur::nursery;
using concur::on_failure;
using concur::with_nursery;
using namespace std::chrono_literals;

namespace {

constexpr auto soon = 5ms;

// Whether every way to start a child is refused, without a call of it.
bool takes_nobody(nursery& n) {
  bool has_run = false;
  const auto child = [&] { has_run = true; };
  const auto helper = [&](concur::started<void>& up) {
    has_run = true;
    up();
  };
  return is_thrown<std::logic_error>([&] { n.go(child); }) && is_thrown<std::logic_error>([&] { n.async(child); }) &&
         is_thrown<std::logic_error>([&] { n.start(helper); }) && !has_run;
}

}  // namespace

TEST_CASE("a hundred children are a hundred fibers") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    concur::mutex m;
    std::set<concur::fiber_id> seen;
    with_nursery([&](nursery& n) {
      for (int i = 0; i < 100; ++i) {
        const auto child = [&] {
          const std::lock_guard<concur::mutex> lock(m);
          seen.insert(concur::this_fiber::get_id());
        };
        if (i % 2 == 0)
          n.go(child);
        else
          n.async(child);
      }
    });
    CONCUR_EXPECT(held, seen.size() == 100 && seen.count(concur::this_fiber::get_id()) == 0);
  });
}

TEST_CASE("children are started by the host, a child, a child of another scope, and a plain thread") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    std::atomic<int> ran{0};
    const auto child = [&] { ++ran; };
    with_nursery([&](nursery& outer) {
      with_nursery([&](nursery& inner) {
        inner.go(child);
        inner.go([&] { inner.go(child); });
        inner.go([&] { outer.go(child); });
        companion other(kind::thread, [&] {
          inner.go(child);
          outer.go(child);
        });
        other.join();
      });
      CONCUR_EXPECT(held, ran >= 3);
    });
    CONCUR_EXPECT(held, ran == 5);
  });
}

TEST_CASE("after its join a nursery takes nobody, however it ended") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    {
      nursery n;
      n.join();
      CONCUR_EXPECT(held, takes_nobody(n));
    }
    {
      nursery n;
      concur::future<int> one = n.async([] { return 1; });
      n.join();
      CONCUR_EXPECT(held, takes_nobody(n) && one.get() == 1);
    }
    {
      nursery n;
      n.go([] { throw special_error(1); });
      CONCUR_EXPECT(held, number_from([&] { n.join(); }) == 1);
      CONCUR_EXPECT(held, takes_nobody(n));
    }
    cancel_scope around(concur::deferred);
    around.run([&] {
      nursery n;
      n.go(sleep_long);
      around.cancel();
      CONCUR_EXPECT(held, is_thrown<cancelled>([&] { n.join(); }));
      CONCUR_EXPECT(held, takes_nobody(n));
    });
    move_on_after(soon, [&] {
      nursery n;
      n.go(sleep_long);
      CONCUR_EXPECT(held, is_thrown<cancelled>([&] { n.join(); }));
      CONCUR_EXPECT(held, takes_nobody(n));
    });
  });
}

TEST_CASE("children that are started beside the join: each runs before it returns, or is refused") {
  const nothing_left_over guard;
  for (const kind which : {kind::fiber, kind::thread}) {
    with_each_count([which](tally& held) {
      for (int round = 0; round < (CONCUR_TSAN ? 10 : 30) * CONCUR_TEST_SCALE; ++round) {
        std::atomic<int> ran{0};
        std::atomic<int> accepted{0};
        std::atomic<bool> is_over{false};
        nursery n;
        crew others(which);
        others.go([&] {
          while (!is_thrown<std::logic_error>([&] { n.go([&] { ++ran; }); })) {
            ++accepted;
            while (ran != accepted) concur::this_fiber::yield();
          }
        });
        // Who asks makes the parties of the end wait for each other. Beside the two there is at most one child a worker,
        // which has run and not left.
        for (int i = 0; i < 2; ++i) {
          others.go([&] {
            for (std::size_t most = 0; !is_over; concur::this_fiber::yield()) {
              for (int k = 0; k < 50; ++k) most = std::max(most, n.size());
              CONCUR_EXPECT(held, most <= 6);
            }
          });
        }
        n.go([&] {
          while (accepted == 0) concur::this_fiber::yield();
        });
        n.join();
        is_over = true;
        const int at_join = ran;
        others.join();
        CONCUR_EXPECT(held, ran == accepted && at_join == ran);
      }
    });
  }
}

TEST_CASE("joining without children, and joining one that is not through yet") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    nursery none;
    none.join();
    CONCUR_EXPECT(held, none.size() == 0 && none.failures().empty());
    concur::event gate;
    sight host;
    nursery n;
    companion opener(kind::fiber, [&] {
      host.wait_until_parked();
      gate.set();
    });
    concur::future<std::string> one = n.async([&] {
      gate.wait();
      return std::string("one");
    });
    host.enter();
    n.join();
    CONCUR_EXPECT(held, one.ready() && one.get() == "one");
    opener.join();
  });
}

TEST_CASE("join is once, and for the host alone") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    std::atomic<int> refused{0};
    nursery n;
    const auto join = [&] { refused += is_thrown<std::logic_error>([&] { n.join(); }) ? 1 : 0; };
    companion thread(kind::thread, join);
    thread.join();
    companion fiber(kind::fiber, join);
    fiber.join();
    n.go(join);
    n.join();
    CONCUR_EXPECT(held, refused == 3);
    join();
    CONCUR_EXPECT(held, refused == 4);
    nursery failed;
    failed.go([] { throw special_error(1); });
    CONCUR_EXPECT(held, number_from([&] { failed.join(); }) == 1);
    CONCUR_EXPECT(held, is_thrown<std::logic_error>([&] { failed.join(); }) && failed.failures().size() == 1);
  });
}

TEST_CASE("a host that is cancelled before or while it joins waits for its children, which are cancelled") {
  const nothing_left_over guard;
  for (const bool is_before : {true, false}) {
    with_each_count([is_before](tally& held) {
      sight host;
      sight child;
      cancel_scope around(concur::deferred);
      std::atomic<bool> is_through{false};
      companion canceller(kind::fiber, [&] {
        if (is_before) return;
        child.wait_until_parked();
        host.wait_until_parked();
        around.cancel();
      });
      const bool is_whole = around.run([&] {
        nursery n;
        concur::future<void> one = n.async([&] {
          const finally last([&] {
            concur::this_fiber::sleep_for(1ms);
            is_through = true;
          });
          child.park();
        });
        if (is_before) around.cancel();
        host.enter();
        CONCUR_EXPECT(held, is_thrown<cancelled>([&] { n.join(); }));
        CONCUR_EXPECT(held, is_through && n.size() == 0 && one.ready() && n.failures().empty());
        concur::this_fiber::checkpoint();
      });
      CONCUR_EXPECT(held, !is_whole && around.cancelled_caught());
      canceller.join();
    });
  }
}

TEST_CASE("a deadline of the nursery: not reached, reached, and in the past") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    const auto now = std::chrono::steady_clock::now();
    nursery enough;
    enough.scope().deadline(now + std::chrono::hours(24));
    concur::future<int> one = enough.async([] {
      concur::this_fiber::sleep_for(1us);
      return 1;
    });
    enough.join();
    CONCUR_EXPECT(held, !enough.cancelled() && one.get() == 1);
    for (const auto limit : {std::chrono::nanoseconds(soon), std::chrono::nanoseconds(-1s)}) {
      const auto begin = std::chrono::steady_clock::now();
      nursery n;
      n.scope().deadline(begin + limit);
      concur::future<void> none = n.async([&] {
        CONCUR_EXPECT(held, is_thrown<cancelled>(sleep_long));
        concur::this_fiber::checkpoint();
      });
      n.join();
      CONCUR_EXPECT(held, std::chrono::steady_clock::now() >= begin + limit);
      CONCUR_EXPECT(held, n.cancelled() && none.ready() && is_thrown<cancelled>([&] { none.get(); }));
    }
    CONCUR_EXPECT(held, !concur::this_fiber::cancelled());
  });
}

TEST_CASE("cancel ends the waits of the children, of the one that called it too, and the host's join") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    sight sleeper;
    sight host;
    std::atomic<bool> is_sleeper_cut{false};
    std::atomic<bool> is_caller_cut{false};
    nursery n;
    n.go([&] { is_sleeper_cut = is_thrown<cancelled>([&] { sleeper.park(); }); });
    n.go([&] {
      sleeper.wait_until_parked();
      host.wait_until_parked();
      n.cancel();
      is_caller_cut = is_thrown<cancelled>(sleep_long);
    });
    host.enter();
    n.join();
    CONCUR_EXPECT(held, is_sleeper_cut && is_caller_cut && n.cancelled() && n.failures().empty());
    CONCUR_EXPECT(held, !concur::this_fiber::cancelled());
  });
}

TEST_CASE("a nursery that is not joined: its destructor cancels and waits, for stragglers too") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    { const nursery unused; }
    std::atomic<int> ended{0};
    sight sleeper;
    sight straggler;
    sight host;
    concur::event gate;
    cancel_scope around(concur::deferred);
    companion opener(kind::fiber, [&] {
      straggler.wait_until_parked();
      host.wait_until_parked();
      around.cancel();  // of the host, which waits for its children and hears nothing
      CONCUR_EXPECT(held, ended == 0 && straggler.is_parked());
      gate.set();
    });
    around.run([&] {
      nursery n;
      n.go([&] {
        const finally last([&] {
          gate.wait();
          ++ended;
        });
        sleeper.park();
      });
      n.go([&] {
        concur::shield([&] {
          straggler.enter();
          gate.wait();
          ++ended;
        });
      });
      sleeper.wait_until_parked();
      straggler.wait_until_parked();
      host.enter();
    });
    CONCUR_EXPECT(held, ended == 2 && !concur::this_fiber::cancelled());
    opener.join();
  });
}

TEST_CASE("a nursery whose join threw goes quietly, and one that goes while an exception flies lets it fly") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    {
      nursery n;
      n.go([] { throw special_error(1); });
      CONCUR_EXPECT(held, number_from([&] { n.join(); }) == 1);
    }
    std::atomic<bool> is_ended{false};
    const auto block = [&] {
      sight child;
      nursery n;
      n.go([&] {
        const finally last([&] { is_ended = true; });
        child.park();
      });
      child.wait_until_parked();
      throw special_error(2);
    };
    CONCUR_EXPECT(held, number_from(block) == 2);
    CONCUR_EXPECT(held, is_ended);
  });
}

TEST_CASE("nurseries in one block are joined from the inside out; the outer one's children go on meanwhile") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    steps order;
    concur::event gate;
    nursery outer;
    outer.go([&] {
      gate.wait();
      CONCUR_EXPECT(held, order.reach(2));
    });
    {
      nursery inner;
      CONCUR_EXPECT(held, is_thrown<std::logic_error>([&] { outer.join(); }));
      inner.go([&] { CONCUR_EXPECT(held, order.reach(1)); });
      inner.join();
      CONCUR_EXPECT(held, outer.size() == 1 && !outer.cancelled());
    }
    gate.set();
    outer.join();
    CONCUR_EXPECT(held, order.reach(3));
  });
}

TEST_CASE("cancelled() is false at first, true after cancel, and stays what it was over join") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    nursery kept;
    nursery cut;
    CONCUR_EXPECT(held, !kept.cancelled() && !cut.cancelled());
    cut.cancel();
    cut.cancel();
    CONCUR_EXPECT(held, !kept.cancelled() && cut.cancelled());
    cut.join();
    kept.join();
    CONCUR_EXPECT(held, !kept.cancelled() && cut.cancelled());
  });
}

TEST_CASE("a cancellation among children that run and children that start: none is left, and the join returns") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    std::atomic<int> running{0};
    const auto child = [&] {
      ++running;
      const finally last([&] { --running; });
      concur::this_fiber::sleep_for(std::chrono::hours(24));
    };
    for (int before = 0; before < 16; ++before) {
      for (int after = 0; after < 16; ++after) {
        nursery n;
        for (int i = 0; i < before; ++i) n.go(child);
        n.go([&] { n.cancel(); });
        for (int i = 0; i < after; ++i) n.go(child);
        n.join();
        CONCUR_EXPECT(held, running == 0 && n.size() == 0 && n.failures().empty());
      }
    }
  });
}
