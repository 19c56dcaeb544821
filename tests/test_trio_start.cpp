// test_trio_start.cpp - what Trio's tests check about Nursery.start: a child that says when it is up, and what happens when
// it does not, or when somebody is cancelled meanwhile. Written anew for fibers.
//
// In Trio the child runs below its caller until it is up, and then moves; here it is a child of the nursery from the
// beginning. Which test of theirs is which of ours is in conformance.md.
#include "support/nursery.hpp"

#include <stdexcept>

using concur::nursery;
using concur::started;
using concur::with_nursery;

namespace {

[[noreturn]] void fail(int number) { throw special_error(number); }

}  // namespace

TEST_CASE("start gives what the child says when it is up; the child stays in the nursery") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    journal record;
    with_nursery([&](nursery& n) {
      CONCUR_EXPECT(held, n.size() == 0);
      concur::event may_go_up;
      concur::event may_end;
      n.go([&] { may_go_up.set(); });
      const int value = n.start([&](started<int>& up) {
        may_go_up.wait();
        record.add("up");
        up.set_value(12);
        may_end.wait();
        record.add("ended");
      });
      CONCUR_EXPECT(held, value == 12);
      record.add("started");
      CONCUR_EXPECT(held, wait_until([&] { return n.size() == 1; }));
      may_end.set();
    });
    record.add("joined");
    CONCUR_EXPECT(held, record.text() == "up started ended joined");
  });
}

TEST_CASE("start: an error before the child is up is the caller's, one after it the nursery's, as it was thrown") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    nursery before;
    CONCUR_EXPECT(held, number_from([&] { before.start([](started<void>&) { fail(1); }); }) == 1);
    CONCUR_EXPECT(held, !before.cancelled());
    CONCUR_EXPECT(held, !is_cancelled_here());
    before.join();
    CONCUR_EXPECT(held, before.failures().empty());
    nursery after;
    const auto fails_late = [](started<int>& up) {
      up.set_value(1);
      fail(2);
    };
    CONCUR_EXPECT(held, number_from([&] { after.start(fails_late); }) == 0);
    CONCUR_EXPECT(held, number_from([&] { after.join(); }) == 2);
  });
}

TEST_CASE("start: a child that ends without a word, or says twice that it is up") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    with_nursery([&](nursery& n) {
      CONCUR_EXPECT(held, is_thrown<std::logic_error>([&] { n.start([](started<int>&) {}); }));
      CONCUR_EXPECT(held, !is_cancelled_here());
      n.start([&](started<void>& up) {
        up.set_value();
        CONCUR_EXPECT(held, is_thrown<std::logic_error>([&] { up.set_value(); }));
        CONCUR_EXPECT(held, is_thrown<std::logic_error>([&] { up(); }));
      });
    });
  });
}

TEST_CASE("start: a caller that is cancelled while it waits takes the child with it, not the nursery") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    for (const bool is_late : {false, true}) {
      journal record;
      sight child;
      nursery n;
      nursery others;
      concur::cancel_scope around;
      if (!is_late) around.cancel();
      others.go([&] {
        if (!is_late) return;
        CONCUR_EXPECT(held, child.wait_until_parked());
        around.cancel();
      });
      CONCUR_EXPECT(held, !around.run([&] {
        n.start([&](started<void>& up) {
          child.enter();
          try {
            sleep_long();
          } catch (const concur::cancelled&) {
            record.add("child");
            throw;
          }
          up.set_value();
        });
        record.add("started");
      }));
      record.add("caller");
      CONCUR_EXPECT(held, record.text() == "child caller" || (!is_late && record.text() == "caller"));
      others.join();
      CONCUR_EXPECT(held, wait_until([&] { return n.size() == 0; }));
      CONCUR_EXPECT(held, !n.cancelled());
      n.join();
      CONCUR_EXPECT(held, n.failures().empty());
    }
  });
}

TEST_CASE("start in a nursery elsewhere that is cancelled just before, or just after, the child is up") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    for (const bool is_before : {true, false}) {
      std::atomic<int> cancelled_children{0};
      const auto sleeper = [&](sight& self) {
        self.enter();
        try {
          sleep_long();
        } catch (const concur::cancelled&) {
          ++cancelled_children;
          throw;
        }
      };
      with_nursery([&](nursery& n) {
        nursery* target = n.start([](started<nursery*>& up) {
          with_nursery([&](nursery& inner) {
            up.set_value(&inner);
            sleep_long();
          });
        });
        target->start([&](started<void>& up) {
          std::array<sight, 2> selves;
          with_nursery([&](nursery& below) {
            for (sight& one : selves) below.go([&] { sleeper(one); });
            for (const sight& one : selves) CONCUR_EXPECT(held, one.wait_until_parked());
            if (is_before) target->cancel();
            up.set_value();
          });
        });
        if (!is_before) target->cancel();
      });
      CONCUR_EXPECT(held, cancelled_children == 2);
    }
  });
}

TEST_CASE("a start under way keeps the nursery open, also one that comes to nothing") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    for (const bool comes_up : {true, false}) {
      journal record;
      concur::event may_go_up;
      sight child;
      sight host;
      host.enter();
      nursery callers;
      nursery opened;
      callers.go([&] {
        const int error = number_from([&] {
          opened.start([&](started<void>& up) {
            child.enter();
            may_go_up.wait();
            record.add("ready");
            if (!comes_up) fail(6);
            up.set_value();
            record.add("ended");
          });
        });
        CONCUR_EXPECT(held, error == (comes_up ? 0 : 6));
      });
      CONCUR_EXPECT(held, child.wait_until_parked());
      callers.go([&] {
        CONCUR_EXPECT(held, host.wait_until_parked());  // in its join
        may_go_up.set();
      });
      opened.join();
      record.add("joined");
      callers.join();
      CONCUR_EXPECT(held, record.text() == (comes_up ? "ready ended joined" : "ready joined"));
    }
  });
}
