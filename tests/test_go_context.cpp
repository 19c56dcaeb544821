// test_go_context.cpp - what Go's tests of package context check, written anew for cancel scopes, sources and tokens.
// Those with many scopes are in test_go_context_trees.cpp.
//
// Which test of theirs is which of ours, and which is left out, is in conformance.md.
#include "support/crew.hpp"
#include "support/nursery.hpp"

#include <array>
#include <exception>
#include <stdexcept>
#include <type_traits>
#include <vector>

using concur::cancel_scope;
using concur::cancel_source;
using concur::cancel_token;
using concur::cancelled;
using concur::fail_after;
using concur::move_on_after;
using concur::nursery;
using concur::timed_out;
using concur::with_nursery;
using namespace std::chrono_literals;

static_assert(std::is_base_of<std::runtime_error, concur::timed_out>::value, "a limit that passed is an error");
static_assert(!std::is_base_of<std::exception, concur::cancelled>::value, "a cancellation is none");

namespace {

constexpr auto soon = 1ms;
constexpr std::chrono::nanoseconds a_thousand_hours = std::chrono::hours(1000);

}  // namespace

TEST_CASE("a source, its copies and its tokens are one: cancelled at once, for good, from any thread") {
  const nothing_left_over guard;
  for (const kind which : {kind::fiber, kind::thread}) {
    with_each_count([which](tally& held) {
      cancel_source source;
      cancel_source copy = source;
      const cancel_token token = source.token();
      const cancel_token later = copy.token();
      cancel_scope scope(token);
      CONCUR_EXPECT(held, !source.cancelled() && !copy.cancelled() && !token.cancelled() && !later.cancelled());
      CONCUR_EXPECT(held, !scope.cancelled() && !concur::this_fiber::cancelled());
      token.checkpoint();
      companion(which, [&] { copy.cancel(); }).join();
      CONCUR_EXPECT(held, source.cancelled() && copy.cancelled() && token.cancelled() && later.cancelled());
      CONCUR_EXPECT(held, scope.cancelled() && concur::this_fiber::cancelled());
      source.cancel();
      CONCUR_EXPECT(held, source.cancelled() && is_thrown<cancelled>([&] { token.checkpoint(); }));
      CONCUR_EXPECT(held, !scope.run(sleep_long) && scope.cancelled_caught());
      CONCUR_EXPECT(held, !concur::this_fiber::cancelled());
    });
  }
}

TEST_CASE("outside of all scopes nothing is cancelled") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    CONCUR_EXPECT(held, !concur::this_fiber::token().cancelled() && !concur::this_fiber::cancelled());
    concur::this_fiber::token().checkpoint();
    companion(kind::fiber, [&] { CONCUR_EXPECT(held, !concur::this_fiber::token().cancelled()); }).join();
  });
}

TEST_CASE("a scope that ends ends those inside it at once, and those that are opened in it later") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    cancel_scope parent(concur::deferred);
    const bool is_whole = parent.run([&] {
      cancel_scope child;
      cancel_scope timed;
      timed.deadline(std::chrono::steady_clock::now() + std::chrono::hours(1000));
      sight fiber;
      cancel_token of_fiber;
      nursery n;
      n.go([&] {
        of_fiber = concur::this_fiber::token();
        fiber.park();
      });
      fiber.wait_until_parked();
      const std::vector<cancel_token> tokens = {child.token(), timed.token(), n.scope().token(), of_fiber};
      for (const cancel_token& token : tokens) CONCUR_EXPECT(held, !token.cancelled());
      parent.cancel();
      for (const cancel_token& token : tokens) CONCUR_EXPECT(held, token.cancelled());
      cancel_scope late;
      CONCUR_EXPECT(held, late.token().cancelled() && concur::this_fiber::cancelled());
      concur::this_fiber::checkpoint();
    });
    CONCUR_EXPECT(held, !is_whole && parent.cancelled_caught());
  });
}

TEST_CASE("a scope that ends says nothing to the one around it") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    cancel_scope parent;
    cancel_scope child(concur::deferred);
    CONCUR_EXPECT(held, !child.run([&] {
      child.cancel();
      CONCUR_EXPECT(held, child.cancelled() && !parent.cancelled() && !parent.token().cancelled());
      sleep_long();
    }));
    CONCUR_EXPECT(held, child.cancelled_caught() && !parent.cancelled() && !concur::this_fiber::cancelled());
    CONCUR_EXPECT(held, parent.run([] { concur::this_fiber::checkpoint(); }) && !parent.cancelled_caught());
  });
}

TEST_CASE("deadlines: soon, now, in the past, on any clock; the earliest of two, whichever is inside") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    const auto now = [] { return std::chrono::steady_clock::now(); };
    const auto ends = [](std::chrono::steady_clock::time_point when) {
      cancel_scope scope(concur::deferred);
      scope.deadline(when);
      return !scope.run(sleep_long) && scope.cancelled_caught() && std::chrono::steady_clock::now() >= when;
    };
    for (const std::chrono::nanoseconds offset : {std::chrono::nanoseconds(soon), 0ns, -1000000ns}) {
      CONCUR_EXPECT(held, ends(now() + offset));
      CONCUR_EXPECT(held, is_thrown<timed_out>([&] { concur::fail_at(now() + offset, sleep_long); }));
      CONCUR_EXPECT(held, !concur::move_on_at(std::chrono::system_clock::now() + offset, sleep_long));
    }
    CONCUR_EXPECT(held, !move_on_after(soon, [&] { ends(now() + a_thousand_hours); }));
    bool is_inner_first = false;
    CONCUR_EXPECT(held, move_on_after(a_thousand_hours, [&] { is_inner_first = ends(now() + soon); }));
    CONCUR_EXPECT(held, is_inner_first);
    cancel_scope unlimited;
    CONCUR_EXPECT(held, unlimited.deadline() == std::chrono::steady_clock::time_point::max());
    const auto set = now() + a_thousand_hours;
    unlimited.deadline(set);
    CONCUR_EXPECT(held, unlimited.deadline() == set);
    // It may be brought forward while somebody waits in it.
    unlimited.deadline(now() + soon);
    CONCUR_EXPECT(held, !unlimited.run(sleep_long));
  });
}

TEST_CASE("a limit whose scope is cancelled first is cancelled, not timed out") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    for (const std::chrono::nanoseconds limit : {a_thousand_hours, 0ns}) {
      // Of a deadline that has passed as well the outer scope has the last word.
      cancel_scope outer(concur::deferred);
      bool is_cut = false;
      outer.run([&] {
        is_cut = is_thrown<cancelled>([&] {
          fail_after(limit, [&] {
            outer.cancel();
            sleep_long();
          });
        });
      });
      CONCUR_EXPECT(held, is_cut && outer.cancelled());
      cancel_scope own(concur::deferred);
      own.deadline(std::chrono::steady_clock::now() + limit);
      own.cancel();
      CONCUR_EXPECT(held, own.cancelled() && !own.run(sleep_long));
    }
  });
}

TEST_CASE("a scope of a token that is cancelled already, or just now") {
  const nothing_left_over guard;
  for (const kind which : {kind::fiber, kind::thread}) {
    with_each_count([which](tally& held) {
      cancel_source done;
      done.cancel();
      cancel_scope late(done.token());
      CONCUR_EXPECT(held, late.cancelled() && concur::this_fiber::cancelled() && !late.run(sleep_long));
      for (int round = 0; round < scaled(100); ++round) {
        cancel_source source;
        companion canceller(which, [source]() mutable { source.cancel(); });
        cancel_scope scope(source.token());
        CONCUR_EXPECT(held, !scope.run(sleep_long) && scope.cancelled());
        canceller.join();
      }
    });
  }
}

TEST_CASE("without a fiber: no scope is entered, and no nursery made; sources and tokens work") {
  const nothing_left_over guard;
  cancel_source source;
  const cancel_token token = source.token();
  CHECK(is_thrown<std::logic_error>([] { cancel_scope scope; }));
  CHECK(is_thrown<std::logic_error>([&] { cancel_scope scope(token); }));
  CHECK(is_thrown<std::logic_error>([] { nursery n; }));
  CHECK(is_thrown<std::logic_error>([] { with_nursery([](nursery&) {}); }));
  cancel_scope later(concur::deferred);
  later.cancel();
  CHECK(later.cancelled());
  tally held;
  concur::run(with_workers(1), [&] { CONCUR_EXPECT(held, !later.run(sleep_long) && later.cancelled_caught()); });
  CHECK(held.report() == "");
  CHECK_FALSE(token.cancelled());
  source.cancel();
  CHECK(is_thrown<cancelled>([&] { token.checkpoint(); }));
}

TEST_CASE("what was done before a cancellation is seen by who asks a token in a loop") {
  const nothing_left_over guard;
  for (const kind which : {kind::fiber, kind::thread}) {
    with_each_count([which](tally& held) {
      cancel_source source;
      int reason = 0;
      companion canceller(which, [&, source]() mutable {
        reason = 5;
        source.cancel();
      });
      const cancel_token token = source.token();
      while (!token.cancelled()) concur::this_fiber::yield();
      CONCUR_EXPECT(held, reason == 5);
      canceller.join();
    });
  }
}

TEST_CASE("in a shield neither the cancellation nor the deadline of what is outside is seen") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    const auto is_free = [&] {
      CONCUR_EXPECT(held, !concur::this_fiber::cancelled() && !concur::this_fiber::token().cancelled());
      concur::this_fiber::sleep_for(2 * soon);
      concur::this_fiber::checkpoint();
      return 1;
    };
    CONCUR_EXPECT(held, concur::shield(is_free) == 1);
    cancel_scope outer(concur::deferred);
    CONCUR_EXPECT(held, !outer.run([&] {
      outer.cancel();
      CONCUR_EXPECT(held, concur::shield(is_free) == 1);
      CONCUR_EXPECT(held, concur::this_fiber::cancelled() && concur::this_fiber::token().cancelled());
      concur::this_fiber::checkpoint();
    }));
    int reached = 0;
    CONCUR_EXPECT(held, !move_on_after(soon, [&] {
      reached = concur::shield(is_free);
      concur::this_fiber::checkpoint();
      reached = 2;
    }));
    CONCUR_EXPECT(held, reached == 1);
  });
}

TEST_CASE("a token tells what its scope is: also one that was asked for before the scope was entered, or unshielded") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    cancel_scope outer(concur::deferred);
    cancel_scope inner(concur::deferred);
    cancel_scope shielded(concur::deferred);
    shielded.shield(true);
    const cancel_token of_inner = inner.token();
    const cancel_token of_shielded = shielded.token();
    outer.run([&] {
      outer.cancel();
      inner.run([&] { CONCUR_EXPECT(held, inner.cancelled() && of_inner.cancelled()); });
      shielded.run([&] {
        CONCUR_EXPECT(held, !shielded.cancelled() && !of_shielded.cancelled());
        shielded.shield(false);
        CONCUR_EXPECT(held, shielded.cancelled() && of_shielded.cancelled());
      });
    });
  });
}

TEST_CASE("what is to be done after a cancellation: a fiber that waits for it, which cancel does not wait for") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    const auto afterwards = [&](const cancel_token& token, sight& fiber, concur::channel<int>& done) {
      cancel_scope scope(token);
      scope.run([&] { fiber.park(); });
      done.send(1);
    };
    cancel_source source;
    concur::channel<int> done;
    sight follower;
    companion early(kind::fiber, [&] { afterwards(source.token(), follower, done); });
    follower.wait_until_parked();
    CONCUR_EXPECT(held, !done.try_recv());
    source.cancel();  // returns, though nobody receives yet
    CONCUR_EXPECT(held, done.recv() == 1);
    early.join();
    companion late(kind::fiber, [&] { afterwards(source.token(), follower, done); });
    CONCUR_EXPECT(held, done.recv() == 1);
    late.join();
    // The same at a deadline.
    companion timed(kind::fiber, [&] {
      CONCUR_EXPECT(held, !move_on_after(soon, sleep_long));
      done.send(2);
    });
    CONCUR_EXPECT(held, done.recv() == 2);
    timed.join();
  });
}
