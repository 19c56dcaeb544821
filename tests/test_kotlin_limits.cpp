// test_kotlin_limits.cpp - what the tests of kotlinx.coroutines check of withTimeout, withTimeoutOrNull and NonCancellable,
// written anew for fail_after, move_on_after and shield.
//
// Which test of theirs is which of ours, and which is left out, is in conformance.md.
#include "support/nursery.hpp"

#include <memory>
#include <string>

using concur::cancel_scope;
using concur::cancelled;
using concur::fail_after;
using concur::move_on_after;
using concur::nursery;
using concur::timed_out;
using concur::with_nursery;
using namespace std::chrono_literals;

namespace {

constexpr auto soon = 5ms;
constexpr auto never_ends = std::chrono::nanoseconds::max();

}  // namespace

TEST_CASE("a function with a limit that ends in time: its value, moved, its children awaited, its exception") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    CONCUR_EXPECT(held, fail_after(much_too_long, [] { return std::string("whole"); }) == "whole");
    CONCUR_EXPECT(held, *fail_after(never_ends, [] {
      concur::this_fiber::sleep_for(1us);
      return std::make_unique<int>(4);
    }) == 4);
    CONCUR_EXPECT(held, **move_on_after(much_too_long, [] { return std::make_unique<int>(5); }) == 5);
    CONCUR_EXPECT(held, move_on_after(much_too_long, [] { concur::this_fiber::checkpoint(); }));
    std::atomic<int> ended{0};
    fail_after(much_too_long, [&] {
      with_nursery([&](nursery& n) {
        for (int i = 0; i < 3; ++i) n.go([&] { ++ended; });
      });
    });
    CONCUR_EXPECT(held, ended == 3);
    CONCUR_EXPECT(held, number_from([] { fail_after(much_too_long, [] { throw special_error(1); }); }) == 1);
    CONCUR_EXPECT(held, number_from([] { move_on_after(never_ends, [] { throw special_error(2); }); }) == 2);
  });
}

TEST_CASE("a function with a limit is called in place, before any other fiber runs") {
  const nothing_left_over guard;
  tally held;
  concur::run(with_workers(1), [&] {
    bool has_run = false;
    concur::go([&] { has_run = true; });
    CONCUR_EXPECT(held, !fail_after(much_too_long, [&] { return has_run; }));
    CONCUR_EXPECT(held, move_on_after(much_too_long, [&] { return has_run; }) == false);
  });
  CHECK(held.report() == "");
}

TEST_CASE("a limit that passes ends a sleep, a receive, and a loop that computes") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    concur::channel<int> silent;
    const auto compute = [] {
      for (;;) concur::this_fiber::checkpoint();
    };
    CONCUR_EXPECT(held, is_thrown<timed_out>([] { fail_after(soon, sleep_long); }));
    CONCUR_EXPECT(held, is_thrown<timed_out>([&] { fail_after(soon, [&] { return silent.recv(); }); }));
    CONCUR_EXPECT(held, is_thrown<timed_out>([&] { fail_after(soon, compute); }));
    CONCUR_EXPECT(held, !move_on_after(soon, sleep_long));
    CONCUR_EXPECT(held, !move_on_after(soon, [&] { return silent.recv(); }));
    CONCUR_EXPECT(held, !move_on_after(soon, compute));
    CONCUR_EXPECT(held, text_of<timed_out>([] { fail_after(soon, sleep_long); }) != "");
    // Children are part of what the limit is for.
    std::atomic<bool> is_cut{false};
    const auto children = [&] {
      with_nursery([&](nursery& n) { n.go([&] { is_cut = is_thrown<cancelled>(sleep_long); }); });
    };
    CONCUR_EXPECT(held, is_thrown<timed_out>([&] { fail_after(soon, children); }));
    CONCUR_EXPECT(held, is_cut);
    CONCUR_EXPECT(held, !concur::this_fiber::cancelled());
  });
}

TEST_CASE("a limit of nothing or less: the function begins, and comes as far as its first wait") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    for (const auto limit : {0ns, -1ns, (std::chrono::nanoseconds::min)()}) {
      int begun = 0;
      const auto function = [&] {
        ++begun;
        concur::this_fiber::checkpoint();
        ++begun;
      };
      CONCUR_EXPECT(held, is_thrown<timed_out>([&] { fail_after(limit, function); }));
      CONCUR_EXPECT(held, !move_on_after(limit, function));
      CONCUR_EXPECT(held, begun == 2);
      CONCUR_EXPECT(held, fail_after(limit, [] { return 5; }) == 5);
    }
  });
}

TEST_CASE("a function that swallows the limit and returns has returned; another exception of its passes") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    const auto swallow = [&] {
      CONCUR_EXPECT(held, is_thrown<cancelled>(sleep_long));
      return 1;
    };
    const auto replace = [&] {
      CONCUR_EXPECT(held, is_thrown<cancelled>(sleep_long));
      throw special_error(2);
    };
    CONCUR_EXPECT(held, fail_after(soon, swallow) == 1);
    CONCUR_EXPECT(held, move_on_after(soon, swallow) == 1);
    CONCUR_EXPECT(held, number_from([&] { fail_after(soon, replace); }) == 2);
    CONCUR_EXPECT(held, number_from([&] { move_on_after(soon, replace); }) == 2);
    // Swallowing does not disarm it.
    CONCUR_EXPECT(held, !move_on_after(soon, [&] {
      swallow();
      sleep_long();
    }));
  });
}

TEST_CASE("a limit that passes while its function computes is felt when it comes to checkpoints, if it does") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    const auto compute = [](std::chrono::steady_clock::time_point until) {
      while (std::chrono::steady_clock::now() < until) concur::this_fiber::yield();
    };
    const auto late = [&] {
      compute(std::chrono::steady_clock::now() + 2 * soon);
      return 42;
    };
    CONCUR_EXPECT(held, fail_after(soon, late) == 42);
    CONCUR_EXPECT(held, move_on_after(soon, late) == 42);
    const auto with_checkpoints = [] {
      for (;;) concur::this_fiber::checkpoint();
    };
    CONCUR_EXPECT(held, !move_on_after(soon, [&] {
      late();
      with_checkpoints();
    }));
    // Within a limit that is still good the outer one is felt.
    CONCUR_EXPECT(held, !move_on_after(soon, [&] {
      late();
      move_on_after(much_too_long, with_checkpoints);
      CONCUR_EXPECT(held, false && "the outer limit has passed");
    }));
    // A `cancelled` that comes from elsewhere is none of the limit's.
    concur::cancel_source other;
    other.cancel();
    const auto asks = [&] { other.token().checkpoint(); };
    CONCUR_EXPECT(held, is_thrown<cancelled>([&] { move_on_after(much_too_long, asks); }));
  });
}

TEST_CASE("limits in limits: an inner one fails through an outer one, and an outer one ends all inner ones") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    for (const std::chrono::nanoseconds outer : {std::chrono::nanoseconds(much_too_long), never_ends}) {
      const auto both = [&] { move_on_after(outer, [] { fail_after(soon, sleep_long); }); };
      CONCUR_EXPECT(held, is_thrown<timed_out>(both));
      CONCUR_EXPECT(held, move_on_after(outer, [&] { CONCUR_EXPECT(held, !move_on_after(soon, sleep_long)); }));
    }
    const auto patient = [] { move_on_after(much_too_long, sleep_long); };
    CONCUR_EXPECT(held, is_thrown<timed_out>([&] { fail_after(soon, patient); }));
    const bool is_whole = move_on_after(10 * soon, [&] {
      for (;;) CONCUR_EXPECT(held, !move_on_after(soon, sleep_long));
    });
    CONCUR_EXPECT(held, !is_whole);
  });
}

TEST_CASE("a shield holds a cancellation off until it is left, once and again, also while an exception flies") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    steps order;
    concur::event gate;
    sight child;
    const auto protect = [&](int number) {
      concur::shield([&] {
        child.enter();
        gate.wait();
        gate.reset();
        CONCUR_EXPECT(held, order.reach(number) && !concur::this_fiber::cancelled());
        concur::this_fiber::checkpoint();
      });
    };
    with_nursery([&](nursery& n) {
      n.go([&] {
        const finally last([&] { protect(3); });
        protect(1);
        protect(2);
        CONCUR_EXPECT(held, concur::this_fiber::cancelled());
        sleep_long();
        CONCUR_EXPECT(held, false && "outside of a shield it is cancelled");
      });
      child.wait_until_parked();
      n.cancel();
      while (n.size() != 0) {
        if (child.is_parked()) gate.set();
        concur::this_fiber::yield();
      }
    });
    CONCUR_EXPECT(held, order.reach(4));
  });
}

TEST_CASE("in a shield scopes of its own work as ever: a failing child, a limit, a cancellation") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    cancel_scope around(concur::deferred);
    int begun = 0;
    CONCUR_EXPECT(held, !around.run([&] {
      around.cancel();
      concur::shield([&] {
        const auto fails = [](nursery& n) {
          n.go([] { throw special_error(1); });
          sleep_long();
        };
        CONCUR_EXPECT(held, number_from([&] { with_nursery(fails); }) == 1);
        CONCUR_EXPECT(held, is_thrown<timed_out>([] { fail_after(soon, sleep_long); }));
        with_nursery([](nursery& n) {
          n.cancel();
          sleep_long();
        });
        ++begun;
      });
      concur::this_fiber::checkpoint();
      ++begun;
    }));
    CONCUR_EXPECT(held, begun == 1);
  });
}

TEST_CASE("a destructor that runs for an exception may wait, though its fiber is cancelled") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    steps order;
    concur::event gate;
    sight child;
    sight cleaning;
    with_nursery([&](nursery& n) {
      n.go([&] {
        const finally last([&] {
          cleaning.enter();
          gate.wait();
          CONCUR_EXPECT(held, order.reach(2));
        });
        child.park();
      });
      child.wait_until_parked();
      n.cancel();
      cleaning.wait_until_parked();
      CONCUR_EXPECT(held, order.reach(1));
      gate.set();
    });
    CONCUR_EXPECT(held, order.reach(3));
    CONCUR_EXPECT(held, number_from([&] {
      const finally last([&] { concur::this_fiber::sleep_for(1us); });
      throw special_error(1);
    }) == 1);
  });
}

TEST_CASE("to ask whether it is cancelled: the fiber, its checkpoint, and the token of its scope agree") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    const auto is_cancelled = [&] {
      const concur::cancel_token token = concur::this_fiber::token();
      const bool answer = concur::this_fiber::cancelled();
      CONCUR_EXPECT(held, token.cancelled() == answer);
      CONCUR_EXPECT(held, is_thrown<cancelled>([&] { token.checkpoint(); }) == answer);
      CONCUR_EXPECT(held, is_thrown<cancelled>([] { concur::this_fiber::checkpoint(); }) == answer);
      return answer;
    };
    CONCUR_EXPECT(held, !is_cancelled());
    with_nursery([&](nursery& n) {
      CONCUR_EXPECT(held, !is_cancelled());
      n.cancel();
      CONCUR_EXPECT(held, is_cancelled() && is_cancelled());
      n.go([&] { CONCUR_EXPECT(held, is_cancelled()); });
    });
    CONCUR_EXPECT(held, !is_cancelled());
  });
}
