// test_trio_nursery.cpp - what Trio's tests check about nurseries: failures, cancellation of children, and when a nursery
// is open. Written anew for fibers; start has test_trio_start.cpp to itself.
//
// Where Trio throws a group of exceptions, the first failure is rethrown here, and failures() has them all. Which test of
// theirs is which of ours, and which is left out, is in conformance.md.
#include "support/nursery.hpp"

#include <stdexcept>
#include <thread>

using concur::nursery;
using concur::started;
using concur::with_nursery;

namespace {

// Sleeps until cancelled, and fails then.
void fail_when_cancelled(int number) {
  try {
    sleep_long();
  } catch (const concur::cancelled&) {
    throw special_error(number);
  }
}

[[noreturn]] void fail(int number) { throw special_error(number); }

}  // namespace

TEST_CASE("what the body of a nursery throws comes out as it was thrown") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    CONCUR_EXPECT(held, number_from([] { with_nursery([](nursery&) { fail(7); }); }) == 7);
    CONCUR_EXPECT(held, is_thrown<const char*>([] { with_nursery([](nursery&) { throw "no exception class"; }); }));
  });
}

TEST_CASE("a child that fails ends its siblings, wakes the body, and comes out of the nursery") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    journal record;
    const auto deed = [&] {
      with_nursery([&](nursery& n) {
        n.go([&] {
          try {
            for (;;) {
              concur::this_fiber::checkpoint();
              concur::this_fiber::yield();
            }
          } catch (const concur::cancelled&) {
            record.add("looper");
            throw;
          }
        });
        sight sleeper;
        n.go([&] {
          try {
            sleeper.enter();
            sleep_long();
          } catch (const concur::cancelled&) {
            record.add("sleeper");
            throw;
          }
        });
        CONCUR_EXPECT(held, sleeper.wait_until_parked());
        n.go([] { fail(3); });
        try {
          sleep_long();
        } catch (const concur::cancelled&) {
          record.add("body");
          throw;
        }
      });
    };
    CONCUR_EXPECT(held, number_from(deed) == 3);
    CONCUR_EXPECT(held, record.sorted_text() == "body looper sleeper");
  });
}

TEST_CASE("a child's failure that nobody catches comes out of run") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    CAPTURE(workers);
    const auto program = [] { with_nursery([](nursery& n) { n.go([] { fail(5); }); }); };
    CHECK(number_from([&] { concur::run(with_workers(workers), program); }) == 5);
  }
}

TEST_CASE("an exception of any type comes out of the nursery, beside others") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    nursery n;
    n.go([] { throw 42; });
    n.go([] { fail_when_cancelled(2); });
    CONCUR_EXPECT(held, is_thrown<int>([&] { n.join(); }));
    CONCUR_EXPECT(held, numbers_of(n.failures()) == std::vector<int>{-1, 2});
  });
}

TEST_CASE("two children that fail: the first is thrown, both are kept") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    nursery n;
    n.go([] { fail_when_cancelled(2); });
    n.go([] { fail(1); });
    CONCUR_EXPECT(held, number_from([&] { n.join(); }) == 1);
    CONCUR_EXPECT(held, numbers_of(n.failures()) == std::vector<int>{1, 2});
  });
}

TEST_CASE("body and child that fail: whoever is first is thrown, both are kept") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    std::vector<int> seen;
    const auto body_first = [&] {
      with_nursery([&](nursery& n) {
        n.go([] { fail_when_cancelled(2); });
        n.go([&] {  // looks, without a checkpoint, until both are there
          CONCUR_EXPECT(held, wait_until([&] { return n.failures().size() == 2; }));
          seen = numbers_of(n.failures());
        });
        fail(1);
      });
    };
    CONCUR_EXPECT(held, number_from(body_first) == 1);
    CONCUR_EXPECT(held, seen == std::vector<int>{1, 2});
    const auto child_first = [&] {
      with_nursery([&](nursery& n) {
        n.go([] { fail(2); });
        try {
          sleep_long();
        } catch (const concur::cancelled&) {
          CONCUR_EXPECT(held, numbers_of(n.failures()) == std::vector<int>{2});
          fail(1);
        }
      });
    };
    CONCUR_EXPECT(held, number_from(child_first) == 2);
  });
}

TEST_CASE("a child that turns its cancellation into an error fails the nursery") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    const auto deed = [] {
      with_nursery([](nursery& n) {
        n.go([] { fail_when_cancelled(4); });
        n.go([] { sleep_long(); });
        n.cancel();
      });
    };
    CONCUR_EXPECT(held, number_from(deed) == 4);
  });
}

TEST_CASE("a child that goes into a cancelled nursery begins, and is stopped where it first waits") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    journal record;
    with_nursery([&](nursery& n) {
      n.cancel();
      CONCUR_EXPECT(held, n.cancelled());
      n.go([&] {
        record.add("begun");
        sleep_long();
        record.add("slept");
      });
    });
    CONCUR_EXPECT(held, record.text() == "begun");
  });
}

TEST_CASE("a cancellation reaches every fiber below, through the nurseries of children") {
  const nothing_left_over guard;
  for (const bool are_parked : {false, true}) {
    CAPTURE(are_parked);
    with_each_count([are_parked](tally& held) {
      journal record;
      std::array<sight, 4> leaves;
      with_nursery([&](nursery& n) {
        for (std::size_t branch = 0; branch < 2; ++branch) {
          n.go([&, branch] {
            with_nursery([&](nursery& below) {
              for (std::size_t i = 2 * branch; i < 2 * branch + 2; ++i) {
                below.go([&, i] {
                  leaves[i].enter();
                  try {
                    sleep_long();
                  } catch (const concur::cancelled&) {
                    record.add(std::to_string(i));
                    throw;
                  }
                });
              }
            });
            record.add("branch");  // it was cancelled from above, and does not come here
          });
        }
        for (const sight& one : leaves) CONCUR_EXPECT(held, !are_parked || one.wait_until_parked());
        n.cancel();
      });
      CONCUR_EXPECT(held, record.sorted_text() == "0 1 2 3");
    });
  }
}

TEST_CASE("a nursery inside a nursery: what fails inside and is caught leaves the outer one alone") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    int sum = 0;
    with_nursery([&](nursery& outer) {
      CONCUR_EXPECT(held, number_from([] { with_nursery([](nursery& inner) { inner.go([] { fail(1); }); }); }) == 1);
      CONCUR_EXPECT(held, !outer.cancelled());
      CONCUR_EXPECT(held, !is_cancelled_here());
      outer.go([&] { sum = 5; });
    });
    CONCUR_EXPECT(held, sum == 5);
  });
}

TEST_CASE("nurseries inside each other that both fail: the outer one throws what it had first") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    const auto inner_first = [] {
      with_nursery([](nursery& outer) {
        outer.go([] { fail_when_cancelled(2); });
        with_nursery([](nursery& inner) {
          inner.go([] { sleep_long(); });
          inner.go([] { fail(1); });
        });
      });
    };
    CONCUR_EXPECT(held, number_from(inner_first) == 1);
    int came_out = 0;
    const auto outer_first = [&] {
      with_nursery([&](nursery& outer) {
        sight sleeper;
        try {
          with_nursery([&](nursery& inner) {
            inner.go([&] {
              sleeper.enter();
              fail_when_cancelled(1);
            });
            CONCUR_EXPECT(held, sleeper.wait_until_parked());
            outer.go([] { fail(2); });
          });
        } catch (const special_error& error) {
          came_out = error.number;
          throw;
        }
      });
    };
    CONCUR_EXPECT(held, number_from(outer_first) == 2);
    CONCUR_EXPECT(held, came_out == 1);
  });
}

TEST_CASE("a failure is not hidden by a cancellation from outside, which then has nothing to catch") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    for (const bool has_sleepers : {false, true}) {
      concur::cancel_scope outer;
      const auto deed = [&] {
        outer.run([&] {
          with_nursery([&](nursery& n) {
            if (has_sleepers) {
              n.go([] { sleep_long(); });
              n.cancel();
              n.go([] { sleep_long(); });
            }
            outer.cancel();
            n.go([] { fail(8); });
          });
        });
      };
      CONCUR_EXPECT(held, number_from(deed) == 8);
      CONCUR_EXPECT(held, outer.cancelled());
      CONCUR_EXPECT(held, !outer.cancelled_caught());
    }
  });
}

TEST_CASE("the end of a nursery is a checkpoint for what is cancelled outside, not for its own cancellation") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    for (const bool has_child : {false, true}) {
      bool has_run = !has_child;
      concur::cancel_scope outer;
      CONCUR_EXPECT(held, !outer.run([&] {
        with_nursery([&](nursery& n) {
          outer.cancel();
          if (has_child) n.go([&] { has_run = true; });
        });
      }));
      CONCUR_EXPECT(held, outer.cancelled_caught());
      CONCUR_EXPECT(held, has_run);
    }
    bool has_passed = false;
    with_nursery([](nursery& n) { n.cancel(); });
    has_passed = true;
    CONCUR_EXPECT(held, has_passed);
  });
}

TEST_CASE("children may bring in others while one of them runs, nobody may when all have ended") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    std::atomic<int> runs{0};
    nursery n;
    n.go([&] {
      n.go([&] {
        n.go([&] { ++runs; });
        ++runs;
      });
      ++runs;
    });
    n.join();
    CONCUR_EXPECT(held, runs == 3);
    CONCUR_EXPECT(held, n.size() == 0);
    CONCUR_EXPECT(held, is_thrown<std::logic_error>([&] { n.go([&] { ++runs; }); }));
    CONCUR_EXPECT(held, is_thrown<std::logic_error>([&] { n.async([&] { ++runs; }); }));
    CONCUR_EXPECT(held, is_thrown<std::logic_error>([&] { n.start([&](started<void>&) { ++runs; }); }));
    CONCUR_EXPECT(held, runs == 3);
  });
}

TEST_CASE("what children hold is gone when the nursery has ended, however it does") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    const auto hold_something = [](nursery& n) {
      n.go([kept = counted(1)] {
        const counted local(2);
        sleep_long();
      });
    };
    for (int round = 0; round < 200; ++round) {
      with_nursery([&](nursery& n) {
        hold_something(n);
        n.cancel();
      });
      CONCUR_EXPECT(held, counted::live == 0);
      const auto fails = [&] {
        with_nursery([&](nursery& n) {
          hold_something(n);
          n.go([kept = counted(3)] { fail(kept.number); });
        });
      };
      CONCUR_EXPECT(held, number_from(fails) == 3);
      CONCUR_EXPECT(held, counted::live == 0);
    }
  });
}

TEST_CASE("children of one worker take turns where they let others run") {
  const nothing_left_over guard;
  concur::run(with_workers(1), [] {
    journal record;
    with_nursery([&](nursery& n) {
      for (const char* name : {"a", "b"}) {
        n.go([&record, name] {
          for (int i = 0; i < 3; ++i) {
            record.add(name + std::to_string(i));
            concur::this_fiber::yield();
          }
        });
      }
    });
    CHECK(record.text() == "a0 b0 a1 b1 a2 b2");
  });
}

TEST_CASE("a nursery is opened by a fiber; one that is there may be cancelled and filled from a plain thread") {
  const nothing_left_over guard;
  CHECK(is_thrown<std::logic_error>([] { const nursery n; }));
  with_each_count([](tally& held) {
    std::atomic<bool> has_run{false};
    with_nursery([&](nursery& n) {
      sight child;
      std::thread outside([&] {
        n.go([&] {
          has_run = true;
          child.enter();
          sleep_long();
        });
      });
      CONCUR_EXPECT(held, child.wait_until_parked());
      outside.join();
      std::thread([&] { n.cancel(); }).join();
      CONCUR_EXPECT(held, is_cancelled_here());
    });
    CONCUR_EXPECT(held, has_run);
  });
}
