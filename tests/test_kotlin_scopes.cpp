// test_kotlin_scopes.cpp - what the tests of kotlinx.coroutines check of coroutineScope, supervisorScope, async and
// awaitAll, written anew for nurseries. Those with limits and shields are in test_kotlin_limits.cpp.
//
// Which test of theirs is which of ours, and which is left out, is in conformance.md.
#include "support/companion.hpp"
#include "support/nursery.hpp"

#include <array>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

using concur::cancel_scope;
using concur::cancelled;
using concur::fail_after;
using concur::move_on_after;
using concur::nursery;
using concur::on_failure;
using concur::with_nursery;

TEST_CASE("a scope gives its body's value once all that was started in it has ended") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    std::atomic<int> ended{0};
    const int result = with_nursery([&](nursery& n) {
      n.go([&] { ++ended; });
      n.go([&] {
        n.go([&] { ++ended; });
        ++ended;
      });
      return 42;
    });
    CONCUR_EXPECT(held, result == 42 && ended == 3);
    CONCUR_EXPECT(held, !concur::this_fiber::cancelled());
    concur::this_fiber::checkpoint();
  });
}

TEST_CASE("a scope is not left while one of its children waits") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    concur::event gate;
    sight host;
    std::atomic<int> ended{0};
    std::atomic<bool> is_out{false};
    companion opener(kind::fiber, [&] {
      host.wait_until_parked();
      CONCUR_EXPECT(held, !is_out && ended == 0);
      gate.set();
    });
    with_nursery([&](nursery& n) {
      for (int i = 0; i < 5; ++i) {
        n.go([&] {
          gate.wait();
          ++ended;
        });
      }
      host.enter();
    });
    is_out = true;
    opener.join();
    CONCUR_EXPECT(held, ended == 5);
  });
}

TEST_CASE("a failing child cancels its sibling, and its exception comes out alone") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    steps order;
    sight sibling;
    const auto block = [&](nursery& n) {
      n.go([&] {
        const finally last([&] { CONCUR_EXPECT(held, order.reach(2)); });
        sibling.park();
        CONCUR_EXPECT(held, false && "a cancelled fiber goes on");
      });
      n.go([&] {
        sibling.wait_until_parked();
        CONCUR_EXPECT(held, order.reach(1));
        throw special_error(7);
      });
    };
    CONCUR_EXPECT(held, number_from([&] { with_nursery(block); }) == 7);
    CONCUR_EXPECT(held, order.reach(3));
    CONCUR_EXPECT(held, !concur::this_fiber::cancelled());
  });
}

TEST_CASE("a body that throws cancels its children, waits for them, and throws on, in both policies") {
  const nothing_left_over guard;
  for (const on_failure policy : {on_failure::cancel_siblings, on_failure::keep_going}) {
    with_each_count([policy](tally& held) {
      std::array<sight, 5> children;
      std::atomic<int> ended{0};
      const auto block = [&](nursery& n) {
        for (sight& one : children) {
          n.go([&] {
            const finally last([&] { ++ended; });
            one.park();
          });
        }
        for (sight& one : children) one.wait_until_parked();
        throw special_error(1);
      };
      CONCUR_EXPECT(held, number_from([&] { with_nursery(policy, block); }) == 1);
      CONCUR_EXPECT(held, ended == 5 && !concur::this_fiber::cancelled());
      CONCUR_EXPECT(held, number_from([&] { with_nursery(policy, [](nursery&) { throw special_error(2); }); }) == 2);
    });
  }
}

TEST_CASE("a body's exception is first, whatever its children throw when they are cancelled for it") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    sight child;
    std::atomic<bool> has_thrown{false};
    const auto block = [&](nursery& n) {
      n.go([&] {
        if (!is_thrown<cancelled>([&] { child.park(); })) return;
        has_thrown = true;
        throw special_error(2);
      });
      child.wait_until_parked();
      throw special_error(1);
    };
    CONCUR_EXPECT(held, number_from([&] { with_nursery(on_failure::keep_going, block); }) == 1);
    CONCUR_EXPECT(held, has_thrown);
  });
}

TEST_CASE("cancelling an outer scope ends the inner one from its leaves inward") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    steps order;
    sight leaf;
    sight middle;
    with_nursery([&](nursery& outer) {
      outer.go([&] {
        const finally last([&] { CONCUR_EXPECT(held, order.reach(2)); });
        with_nursery([&](nursery& inner) {
          inner.go([&] {
            const finally first([&] { CONCUR_EXPECT(held, order.reach(1)); });
            leaf.park();
          });
          middle.park();
        });
        CONCUR_EXPECT(held, false && "what is cancelled from outside does not return");
      });
      leaf.wait_until_parked();
      middle.wait_until_parked();
      outer.cancel();
    });
    CONCUR_EXPECT(held, order.reach(3));
  });
}

TEST_CASE("one of two awaited children fails: the other is cancelled, whichever is awaited first") {
  const nothing_left_over guard;
  for (const bool is_first : {true, false}) {
    with_each_count([is_first](tally& held) {
      sight waiting;
      sight host;
      std::atomic<bool> is_cancelled{false};
      const auto sum = [&](nursery& n) {
        const auto fails = [&]() -> int {
          waiting.wait_until_parked();
          host.wait_until_parked();
          throw special_error(1);
        };
        const auto works = [&] {
          is_cancelled = is_thrown<cancelled>([&] { waiting.park(); });
          return 42;
        };
        concur::future<int> one = is_first ? n.async(fails) : n.async(works);
        concur::future<int> two = is_first ? n.async(works) : n.async(fails);
        host.enter();
        return one.get() + two.get();
      };
      CONCUR_EXPECT(held, number_from([&] { with_nursery(sum); }) == 1);
      CONCUR_EXPECT(held, is_cancelled);
    });
  }
}

TEST_CASE("an exception is stronger than a cancellation that came before it") {
  const nothing_left_over guard;
  for (const on_failure policy : {on_failure::cancel_siblings, on_failure::keep_going}) {
    with_each_count([policy](tally& held) {
      int caught = 0;
      cancel_scope job(concur::deferred);
      const bool is_whole = job.run([&] {
        caught = number_from([&] {
          with_nursery(policy, [&](nursery&) {
            job.cancel();
            throw special_error(1);
          });
        });
      });
      // What follows does not park: nothing was cut off.
      CONCUR_EXPECT(held, caught == 1 && is_whole && job.cancelled() && !job.cancelled_caught());
    });
  }
}

TEST_CASE("a scope that has ended well is not cancelled, and takes nobody in") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    std::atomic<int> ran{0};
    nursery n;
    n.go([&] { ++ran; });
    n.join();
    CONCUR_EXPECT(held, n.size() == 0 && !n.cancelled() && n.failures().empty() && ran == 1);
    CONCUR_EXPECT(held, is_thrown<std::logic_error>([&] { n.go([&] { ++ran; }); }));
    CONCUR_EXPECT(held, is_thrown<std::logic_error>([&] { n.async([&] { return ++ran; }); }));
    const auto helper = [&](concur::started<int>& up) { up(++ran); };
    CONCUR_EXPECT(held, is_thrown<std::logic_error>([&] { n.start(helper); }));
    CONCUR_EXPECT(held, ran == 1);
  });
}

TEST_CASE("where children fail each for itself the others go on, and the first failure comes out at the end") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    sight survivor;
    cancel_scope own(concur::deferred);
    std::atomic<bool> is_cancelled{false};
    nursery n(on_failure::keep_going);
    n.go([&] { is_cancelled = !own.run([&] { survivor.park(); }); });
    survivor.wait_until_parked();
    for (int number = 1; number <= 2; ++number) {
      n.go([number] { throw special_error(number); });
      while (n.size() != 1) concur::this_fiber::yield();
    }
    CONCUR_EXPECT(held, survivor.is_parked() && !n.cancelled() && !concur::this_fiber::cancelled());
    own.cancel();
    CONCUR_EXPECT(held, number_from([&] { n.join(); }) == 1);
    CONCUR_EXPECT(held, is_cancelled && numbers_of(n.failures()) == std::vector<int>{1, 2});
  });
}

TEST_CASE("cancelling a scope is no failure, and nothing to the scope around it") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    with_nursery([&](nursery& outer) {
      for (const on_failure policy : {on_failure::cancel_siblings, on_failure::keep_going}) {
        sight child;
        with_nursery(policy, [&](nursery& inner) {
          inner.go([&] { child.park(); });
          child.wait_until_parked();
          inner.cancel();
          CONCUR_EXPECT(held, inner.cancelled());
        });
      }
      CONCUR_EXPECT(held, !outer.cancelled() && !concur::this_fiber::cancelled());
      // A child that was cancelled by a scope of its own has not failed.
      outer.go([] {
        cancel_scope mine;
        mine.cancel();
        sleep_long();
      });
    });
  });
}

TEST_CASE("who fails where: a child fails its scope, and what fails in the body passes only if it is not caught") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    const std::vector<std::function<void(nursery&)>> children = {
        [](nursery& n) { n.go([] { throw special_error(1); }); },
        [](nursery& n) { n.async([]() -> int { throw special_error(1); }); },
        [](nursery& n) {
          n.start([](concur::started<void>& up) {
            up();
            throw special_error(1);
          });
        },
        [](nursery& n) { n.go([&n] { n.go([] { throw special_error(1); }); }); },
    };
    for (const auto& child : children) {
      bool is_cut = false;
      const auto block = [&](nursery& n) {
        is_cut = is_thrown<cancelled>([&] {
          child(n);
          sleep_long();
        });
      };
      CONCUR_EXPECT(held, number_from([&] { with_nursery(block); }) == 1);
      CONCUR_EXPECT(held, is_cut);
    }
    const auto fails = [](nursery& n) { n.go([] { throw special_error(1); }); };
    const std::vector<std::function<void()>> inside = {
        [&] { with_nursery(fails); },
        [&] { with_nursery(on_failure::keep_going, fails); },
        [&] { fail_after(much_too_long, [&] { with_nursery(fails); }); },
        [&] { concur::shield([&] { with_nursery(fails); }); },
        [&] { concur::all([] { throw special_error(1); }, [] {}); },
    };
    for (const auto& one : inside) {
      with_nursery([&](nursery& n) {
        CONCUR_EXPECT(held, number_from(one) == 1);
        CONCUR_EXPECT(held, !n.cancelled());
        concur::this_fiber::checkpoint();
      });
      CONCUR_EXPECT(held, number_from([&] { with_nursery([&](nursery&) { one(); }); }) == 1);
    }
  });
}

TEST_CASE("an exception goes up through three generations and cancels each") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    std::array<sight, 3> waiting;
    std::atomic<int> cut{0};
    const auto wait = [&](sight& one) {
      if (is_thrown<cancelled>([&] { one.park(); })) ++cut;
    };
    const int number = number_from([&] {
      with_nursery([&](nursery& first) {
        first.go([&] {
          with_nursery([&](nursery& second) {
            second.go([&] {
              for (const sight& one : waiting) one.wait_until_parked();
              throw special_error(3);
            });
            second.go([&] { wait(waiting[0]); });
            wait(waiting[1]);
          });
        });
        wait(waiting[2]);
      });
    });
    CONCUR_EXPECT(held, number == 3 && cut == 3);
  });
}

TEST_CASE("what an awaited child threw is caught where it is awaited, and fails the scope all the same") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    int caught = 0;
    const auto block = [&](nursery& n) {
      concur::future<int> one = n.async([]() -> int { throw special_error(1); });
      while (!one.ready()) concur::this_fiber::yield();
      caught = number_from([&] { concur::shield([&] { one.get(); }); });
      return 42;
    };
    CONCUR_EXPECT(held, number_from([&] { with_nursery(block); }) == 1);
    CONCUR_EXPECT(held, caught == 1);
    // Of one that was cancelled there is no result.
    sight child;
    nursery n;
    concur::future<void> none = n.async([&] { child.park(); });
    child.wait_until_parked();
    CONCUR_EXPECT(held, !none.ready());
    n.cancel();
    n.join();
    CONCUR_EXPECT(held, none.ready() && is_thrown<cancelled>([&] { none.get(); }));
  });
}

TEST_CASE("all: values in the order of the functions, whoever ends first; one failure cancels the rest") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    concur::event second_is_through;
    auto [one, two, three] = concur::all(
        [&] {
          second_is_through.wait();
          return std::string("one");
        },
        [&] {
          second_is_through.set();
          return 2L;
        },
        [] {});
    CONCUR_EXPECT(held, one == "one" && two == 2L && three == std::monostate());
    sight waits;
    bool is_cut = false;
    const int number = number_from([&] {
      concur::all([] { return 1; }, [&] { is_cut = is_thrown<cancelled>([&] { waits.park(); }); },
                  [&] {
                    waits.wait_until_parked();
                    throw special_error(3);
                  });
    });
    CONCUR_EXPECT(held, number == 3 && is_cut);
    // The caller is cancelled: so are the functions.
    sight inner;
    cancel_scope outer(concur::deferred);
    companion canceller(kind::fiber, [&] {
      inner.wait_until_parked();
      outer.cancel();
    });
    is_cut = false;
    const auto waits_inside = [&] { is_cut = is_thrown<cancelled>([&] { inner.park(); }); };
    CONCUR_EXPECT(held, !outer.run([&] { concur::all(waits_inside); }));
    CONCUR_EXPECT(held, is_cut);
    canceller.join();
  });
}

TEST_CASE("a scope that is entered when all is cancelled begins, and ends with the cancellation") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    int begun = 0;
    const auto in_cancelled = [&](auto&& inside) {
      cancel_scope around(concur::deferred);
      around.cancel();
      return !around.run([&] { inside(); }) && around.cancelled_caught();
    };
    CONCUR_EXPECT(held, in_cancelled([&] { with_nursery([&](nursery&) { ++begun; }); }));
    CONCUR_EXPECT(held, in_cancelled([&] { with_nursery(on_failure::keep_going, [&](nursery&) { ++begun; }); }));
    CONCUR_EXPECT(held, in_cancelled([&] { return with_nursery([&](nursery&) { return ++begun; }); }));
    CONCUR_EXPECT(held, in_cancelled([&] {
      fail_after(much_too_long, [&] {
        ++begun;
        concur::this_fiber::checkpoint();
      });
    }));
    CONCUR_EXPECT(held, in_cancelled([&] {
      move_on_after(much_too_long, [&] {
        ++begun;
        sleep_long();
      });
    }));
    CONCUR_EXPECT(held, begun == 5);
    // A child that is started there begins too, and comes as far as its first wait.
    std::atomic<int> child_begun{0};
    std::atomic<int> child_ended{0};
    CONCUR_EXPECT(held, in_cancelled([&] {
      with_nursery([&](nursery& n) {
        n.go([&] {
          ++child_begun;
          concur::this_fiber::checkpoint();
          ++child_ended;
        });
      });
    }));
    CONCUR_EXPECT(held, child_begun == 1 && child_ended == 0);
  });
}
