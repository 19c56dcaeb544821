// test_trio_cancel_scope.cpp - what Trio's tests check about cancel scopes: which operations a cancellation reaches, which
// scope catches it, shields, entering and leaving; and what a cancelled wait leaves behind in locks and channels. Written
// anew for fibers.
//
// Trio's tests have a clock that jumps; here a moment is passed by looking at the clock until it lies behind. Which test of
// theirs is which of ours, and which is left out, is in conformance.md.
#include "support/nursery.hpp"

#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>

using concur::cancel_scope;
using concur::nursery;
using concur::with_nursery;
using namespace std::chrono_literals;

namespace {

using steady = std::chrono::steady_clock;

}  // namespace

TEST_CASE("a cancelled scope: checkpoints and waits throw, what is shielded and what never waits does not") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    concur::channel<int> ch(1);
    cancel_scope scope;
    CONCUR_EXPECT(held, !scope.run([&] {
      CONCUR_EXPECT(held, !is_cancelled_here());
      CONCUR_EXPECT(held, !concur::this_fiber::cancelled());
      scope.cancel();
      CONCUR_EXPECT(held, concur::this_fiber::cancelled());
      CONCUR_EXPECT(held, is_cancelled_here());
      CONCUR_EXPECT(held, is_thrown<concur::cancelled>([] { sleep_long(); }));
      CONCUR_EXPECT(held, is_thrown<concur::cancelled>([&] { ch.send(1); }));
      int one = 1;
      CONCUR_EXPECT(held, ch.try_send(one));
      CONCUR_EXPECT(held, ch.try_recv() == 1);
      concur::this_fiber::yield();
      concur::shield([&] {
        CONCUR_EXPECT(held, !is_cancelled_here());
        concur::this_fiber::sleep_for(1ms);
        ch.send(2);
      });
      CONCUR_EXPECT(held, is_thrown<concur::cancelled>([&] { ch.recv(); }));
      CONCUR_EXPECT(held, ch.size() == 1);
      sleep_long();
      CONCUR_EXPECT(held, false);
    }));
    CONCUR_EXPECT(held, !is_cancelled_here());
    CONCUR_EXPECT(held, scope.cancelled());
    CONCUR_EXPECT(held, scope.cancelled_caught());
  });
}

TEST_CASE("cancelled twice is cancelled once, and what was swallowed comes again") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    cancel_scope twice;
    CONCUR_EXPECT(held, !twice.run([&] {
      twice.cancel();
      twice.cancel();
      concur::this_fiber::checkpoint();
    }));
    CONCUR_EXPECT(held, twice.cancelled_caught());
    cancel_scope swallowed;
    const std::optional<int> result = swallowed.run([&] {
      swallowed.cancel();
      int count = 0;
      for (int i = 0; i < 100; ++i) count += is_cancelled_here() ? 1 : 0;
      return count;
    });
    CONCUR_EXPECT(held, result == 100);
    CONCUR_EXPECT(held, swallowed.cancelled());
    CONCUR_EXPECT(held, !swallowed.cancelled_caught());
  });
}

TEST_CASE("a scope that is left before anybody noticed its cancellation has caught nothing") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    cancel_scope scope;
    CONCUR_EXPECT(held, scope.run([&] {
      scope.cancel();
      concur::shield([] { concur::this_fiber::checkpoint(); });
    }));
    CONCUR_EXPECT(held, !is_cancelled_here());
    CONCUR_EXPECT(held, scope.cancelled());
    CONCUR_EXPECT(held, !scope.cancelled_caught());
  });
}

TEST_CASE("of scopes that are cancelled together the outermost catches") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    journal record;
    cancel_scope outer;
    const bool is_through = outer.run([&] {
      cancel_scope middle;
      const bool middle_result = middle.run([&] {
        cancel_scope inner;
        inner.run([&] {
          inner.cancel();
          middle.cancel();
          sleep_long();
        });
        record.add("inner");
      });
      CONCUR_EXPECT(held, !middle_result && middle.cancelled_caught());
      record.add("middle");
    });
    CONCUR_EXPECT(held, is_through);
    CONCUR_EXPECT(held, !outer.cancelled() && !outer.cancelled_caught());
    CONCUR_EXPECT(held, record.text() == "middle");
  });
}

TEST_CASE("a shield keeps out what comes from outside, not what is cancelled inside; it may go and come back") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    cancel_scope outer;
    CONCUR_EXPECT(held, !outer.run([&] {
      cancel_scope inner;
      CONCUR_EXPECT(held, !inner.run([&] {
        CONCUR_EXPECT(held, !is_cancelled_here());
        outer.cancel();
        CONCUR_EXPECT(held, is_cancelled_here());
        CONCUR_EXPECT(held, !inner.shielded());
        inner.shield(true);
        CONCUR_EXPECT(held, inner.shielded());
        CONCUR_EXPECT(held, !is_cancelled_here());
        cancel_scope innermost;
        CONCUR_EXPECT(held, !innermost.run([&] {
          innermost.cancel();
          concur::this_fiber::checkpoint();
        }));
        CONCUR_EXPECT(held, innermost.cancelled_caught());
        CONCUR_EXPECT(held, !is_cancelled_here());
        inner.shield(false);
        CONCUR_EXPECT(held, is_cancelled_here());
        inner.shield(true);
        CONCUR_EXPECT(held, !is_cancelled_here());
        inner.cancel();
        concur::this_fiber::checkpoint();  // its own: it is behind no shield, and stays inside
      }));
      CONCUR_EXPECT(held, inner.cancelled_caught());
      CONCUR_EXPECT(held, is_cancelled_here());
      concur::this_fiber::checkpoint();
    }));
    CONCUR_EXPECT(held, outer.cancelled_caught());
  });
}

TEST_CASE("a shield taken away wakes who sleeps behind it") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    journal record;
    cancel_scope outer;
    CONCUR_EXPECT(held, !outer.run([&] {
      with_nursery([&](nursery& n) {
        outer.cancel();
        n.scope().shield(true);
        sight sleeper;
        std::atomic<bool> has_ended{false};
        n.go([&] {
          record.add("sleeping");
          sleeper.enter();
          try {
            sleep_long();
          } catch (const concur::cancelled&) {
            record.add("cancelled");
          }
          has_ended = true;
        });
        CONCUR_EXPECT(held, sleeper.wait_until_parked());
        CONCUR_EXPECT(held, record.text() == "sleeping");
        n.scope().shield(false);
        CONCUR_EXPECT(held, wait_until([&] { return has_ended.load(); }));  // not by the end of the nursery
        CONCUR_EXPECT(held, record.text() == "sleeping cancelled");
      });
    }));
  });
}

TEST_CASE("a shield put up while a cancellation passes through does not stop it") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    cancel_scope outer;
    cancel_scope inner(concur::deferred);
    CONCUR_EXPECT(held, !outer.run([&] {
      inner.run([&] {
        struct shielder {
          cancel_scope& scope;
          ~shielder() { scope.shield(true); }
        };
        const shielder late{inner};
        outer.cancel();
        concur::this_fiber::checkpoint();
      });
      CONCUR_EXPECT(held, false);
    }));
    CONCUR_EXPECT(held, outer.cancelled_caught());
    CONCUR_EXPECT(held, !inner.cancelled_caught());
  });
}

TEST_CASE("a scope may be cancelled and shielded before it is entered, and cancelled by another fiber after that") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    cancel_scope before(concur::deferred);
    before.cancel();
    CONCUR_EXPECT(held, !is_cancelled_here());
    with_nursery([&](nursery& n) { n.go([&] { CONCUR_EXPECT(held, !before.run([] { sleep_long(); })); }); });
    CONCUR_EXPECT(held, before.cancelled_caught());
    cancel_scope after(concur::deferred);
    with_nursery([&](nursery& n) {
      sight sleeper;
      n.go([&] {
        sleeper.enter();
        CONCUR_EXPECT(held, !after.run([] { sleep_long(); }));
      });
      CONCUR_EXPECT(held, sleeper.wait_until_parked());
      after.cancel();
    });
    CONCUR_EXPECT(held, after.cancelled_caught());
    cancel_scope shielded(concur::deferred);
    shielded.shield(true);
    cancel_scope outer;
    CONCUR_EXPECT(held, !outer.run([&] {
      shielded.run([&] {
        outer.cancel();
        CONCUR_EXPECT(held, !is_cancelled_here());
        shielded.shield(false);
        concur::this_fiber::checkpoint();
      });
    }));
  });
}

TEST_CASE("a scope is entered once, by one fiber, and a cancellation that comes when it was left reaches nobody") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    cancel_scope left;
    CONCUR_EXPECT(held, left.run([] { concur::this_fiber::checkpoint(); }));
    left.cancel();
    CONCUR_EXPECT(held, !is_cancelled_here());
    CONCUR_EXPECT(held, left.cancelled());
    CONCUR_EXPECT(held, !left.cancelled_caught());
    CONCUR_EXPECT(held, is_thrown<std::logic_error>([&] { left.run([] {}); }));
    cancel_scope again(concur::deferred);
    again.run([&] { CONCUR_EXPECT(held, is_thrown<std::logic_error>([&] { again.run([] {}); })); });
    cancel_scope shared(concur::deferred);
    with_nursery([&](nursery& n) {
      sight first;
      n.go([&] {
        first.enter();
        shared.run([] { sleep_long(); });
      });
      CONCUR_EXPECT(held, first.wait_until_parked());
      CONCUR_EXPECT(held, is_thrown<std::logic_error>([&] { shared.run([] {}); }));
      CONCUR_EXPECT(held, first.is_parked());
      n.cancel();
    });
  });
}

TEST_CASE("a deadline that passes before its scope is entered may be taken back, and strikes when it is entered") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    cancel_scope moved(concur::deferred);
    CONCUR_EXPECT(held, moved.deadline() == (steady::time_point::max)());
    moved.deadline(steady::now() - 1s);
    moved.deadline(steady::now() + 1h);
    CONCUR_EXPECT(held, moved.run([] { concur::this_fiber::checkpoint(); }));
    cancel_scope passed(concur::deferred);
    const auto soon = steady::now() + 1ms;
    passed.deadline(soon);
    CONCUR_EXPECT(held, passed.deadline() == soon);
    pass(soon);
    CONCUR_EXPECT(held, !is_cancelled_here());
    CONCUR_EXPECT(held, !passed.run([&] {
      CONCUR_EXPECT(held, passed.cancelled());
      passed.deadline(steady::now() + 1h);
      CONCUR_EXPECT(held, passed.cancelled());  // never again not
      sleep_long();
    }));
    CONCUR_EXPECT(held, passed.cancelled_caught());
  });
}

TEST_CASE("a deadline cancels its scope while somebody is in it, and may be moved") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    const auto begin = steady::now();
    cancel_scope left_in_time;
    CONCUR_EXPECT(held, left_in_time.deadline() == (steady::time_point::max)());
    left_in_time.deadline(begin + 1h);
    CONCUR_EXPECT(held, left_in_time.deadline() == begin + 1h);
    CONCUR_EXPECT(held, left_in_time.run([] { concur::this_fiber::checkpoint(); }));
    cancel_scope moved;
    CONCUR_EXPECT(held, !moved.run([&] {
      concur::this_fiber::checkpoint();
      moved.deadline(begin + 1h);
      concur::this_fiber::checkpoint();
      const auto soon = steady::now() + 1ms;
      pass(soon);
      CONCUR_EXPECT(held, !is_cancelled_here());
      moved.deadline(soon);
      CONCUR_EXPECT(held, is_cancelled_here());
      CONCUR_EXPECT(held, is_cancelled_here());
      concur::this_fiber::checkpoint();
    }));
    CONCUR_EXPECT(held, moved.cancelled() && moved.cancelled_caught());
    cancel_scope asleep;
    CONCUR_EXPECT(held, !asleep.run([&] {
      asleep.deadline(steady::now() + 2ms);
      sleep_long();
    }));
    CONCUR_EXPECT(held, asleep.cancelled() && asleep.cancelled_caught());
    CONCUR_EXPECT(held, steady::now() - begin >= 3ms);
  });
}

TEST_CASE("a deadline that passes when its scope was left cancels nothing") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    // A loaded machine may be late: then the deadline passes inside, and the round says nothing.
    bool was_left_in_time = false;
    for (int round = 0; round < 1000 && !was_left_in_time; ++round) {
      const auto soon = steady::now() + 2ms;
      cancel_scope scope;
      scope.deadline(soon);
      scope.run([] {});
      was_left_in_time = steady::now() < soon;
      pass(soon);
      CONCUR_EXPECT(held, !is_cancelled_here());
      concur::this_fiber::sleep_for(1ms);
      CONCUR_EXPECT(held, !scope.cancelled() || !was_left_in_time);
      CONCUR_EXPECT(held, !scope.cancelled_caught());
    }
    CONCUR_EXPECT(held, was_left_in_time);
  });
}

TEST_CASE("a checkpoint sees a deadline that passed while nobody waited") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    cancel_scope scope;
    int rounds = 0;
    CONCUR_EXPECT(held, !scope.run([&] {
      scope.deadline(steady::now() + 1ms);
      while (rounds < 200) {  // the first will do, unless another thread has just begun to end the scope
        pass(steady::now() + 2ms);
        ++rounds;
        concur::this_fiber::checkpoint();
      }
    }));
    CONCUR_EXPECT(held, rounds < 100);
  });
}

TEST_CASE("a deadline that is moved thousands of times leaves one timer, and none when the scope is left") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    const auto begin = steady::now();
    cancel_scope scope;
    CONCUR_EXPECT(held, scope.run([&] {
      for (int i = 0; i < 4000; ++i) {
        scope.deadline(begin + 9998s);
        scope.deadline(begin + 9999s);
      }
      concur::this_fiber::sleep_for(1ms);
    }));
  });
}

TEST_CASE("thousands of scopes inside each other: the outermost cancels, and each may be left") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    cancel_scope outermost;
    CONCUR_EXPECT(held, !outermost.run([&] {
      std::vector<std::unique_ptr<cancel_scope>> scopes;
      for (int i = 0; i < 5000; ++i) scopes.push_back(std::make_unique<cancel_scope>());
      CONCUR_EXPECT(held, !is_cancelled_here());
      outermost.cancel();
      CONCUR_EXPECT(held, is_cancelled_here());
      while (scopes.size() > 1) scopes.pop_back();  // from the inside
      CONCUR_EXPECT(held, is_cancelled_here());
      CONCUR_EXPECT(held, !scopes.front()->cancelled_caught());
      concur::this_fiber::checkpoint();
    }));
  });
}

TEST_CASE("a wait behind a shield goes on when it is cancelled, and the next one does not") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    journal record;
    concur::event wake;
    sight stubborn;
    cancel_scope outer;
    cancel_scope inner(concur::deferred);
    CONCUR_EXPECT(held, !outer.run([&] {
      inner.run([&] {
        with_nursery([&](nursery& n) {
          n.go([&] {
            concur::shield([&] {
              record.add("sleep");
              stubborn.enter();
              wake.wait();
              record.add("woke");
            });
            if (is_cancelled_here()) record.add("cancelled");
          });
          CONCUR_EXPECT(held, stubborn.wait_until_parked());
          inner.cancel();
          outer.cancel();
          for (int i = 0; i < 20; ++i) concur::this_fiber::yield();
          CONCUR_EXPECT(held, stubborn.is_parked());
          CONCUR_EXPECT(held, record.text() == "sleep");
          wake.set();
        });
      });
    }));
    CONCUR_EXPECT(held, record.text() == "sleep woke cancelled");
    CONCUR_EXPECT(held, outer.cancelled_caught() && !inner.cancelled_caught());
  });
}

TEST_CASE("a cleanup that waits while a cancellation unwinds is let through, and may set itself a limit") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    struct cleaner {
      tally& held;
      journal& record;
      ~cleaner() {
        concur::this_fiber::sleep_for(1ms);
        record.add("slept");
        cancel_scope limit;
        CONCUR_EXPECT(held, !limit.run([&] {
          concur::this_fiber::checkpoint();
          limit.deadline(steady::now() + 1ms);
          sleep_long();
          record.add("late");
        }));
        CONCUR_EXPECT(held, limit.cancelled_caught());
        record.add("limited");
      }
    };
    journal record;
    cancel_scope scope;
    CONCUR_EXPECT(held, !scope.run([&] {
      const cleaner at_the_end{held, record};
      scope.cancel();
      sleep_long();
    }));
    CONCUR_EXPECT(held, record.text() == "slept limited");
  });
}

TEST_CASE("an exception that is no cancellation passes a cancelled scope, which has caught nothing") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    cancel_scope scope;
    CONCUR_EXPECT(held, number_from([&] {
                          scope.run([&] {
                            scope.cancel();
                            CONCUR_EXPECT(held, is_cancelled_here());
                            throw special_error(9);
                          });
                        }) == 9);
    CONCUR_EXPECT(held, scope.cancelled());
    CONCUR_EXPECT(held, !scope.cancelled_caught());
    CONCUR_EXPECT(held, !is_cancelled_here());
  });
}

TEST_CASE("outside of a fiber no scope can be entered; one that is may be cancelled from there") {
  const nothing_left_over guard;
  CHECK(is_thrown<std::logic_error>([] { const cancel_scope scope; }));
  with_each_count([](tally& held) {
    cancel_scope scope;
    CONCUR_EXPECT(held, !scope.run([&] {
      std::thread([&] { scope.cancel(); }).join();
      sleep_long();
    }));
  });
}
