// test_trio_timeouts.cpp - what Trio's tests check about timeouts, and about waits that are cancelled in locks and channels.
// Written anew for fibers.
//
// A duration is only ever checked from below, or against a limit of 20 s that a machine under load keeps. Which test of
// theirs is which of ours, and which is left out, is in conformance.md.
#include "support/nursery.hpp"

#include <limits>
#include <mutex>
#include <optional>
#include <stdexcept>

using concur::cancel_scope;
using concur::fail_after;
using concur::fail_at;
using concur::move_on_after;
using concur::move_on_at;
using concur::nursery;
using concur::timed_out;
using concur::with_nursery;
using namespace std::chrono_literals;

namespace {

using steady = std::chrono::steady_clock;
using seconds_real = std::chrono::duration<double>;

// Runs the deed, and expects that it took this long, or longer, and did not sleep out a sleep_long().
template <class Deed>
void expect_takes(tally& held, steady::duration at_least, Deed deed) {
  const auto begin = steady::now();
  deed();
  const auto taken = steady::now() - begin;
  CONCUR_EXPECT(held, taken >= at_least);
  CONCUR_EXPECT(held, taken < much_too_long);
}

}  // namespace

TEST_CASE("a sleep takes its time or longer, and one of no length still is a checkpoint") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    expect_takes(held, 5ms, [] { concur::this_fiber::sleep_until(steady::now() + 5ms); });
    expect_takes(held, 5ms, [] { concur::this_fiber::sleep_for(5ms); });
    concur::this_fiber::sleep_for(0s);
    CONCUR_EXPECT(held, move_on_at(steady::now(), [&] {
                    CONCUR_EXPECT(held, is_thrown<concur::cancelled>([] { concur::this_fiber::sleep_for(0s); }));
                    CONCUR_EXPECT(held,
                                  is_thrown<concur::cancelled>([] { concur::this_fiber::sleep_until(steady::now()); }));
                  }));
  });
}

TEST_CASE("move_on ends what takes too long, with nothing in its hands, and gives the result of what does not") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    expect_takes(held, 5ms, [&] { CONCUR_EXPECT(held, !move_on_after(5ms, [] { sleep_long(); })); });
    expect_takes(held, 5ms, [&] { CONCUR_EXPECT(held, !move_on_at(steady::now() + 5ms, [] { sleep_long(); })); });
    const auto slow = [] {
      sleep_long();
      return 1;
    };
    CONCUR_EXPECT(held, move_on_after(1ms, slow) == std::nullopt);
    CONCUR_EXPECT(held, move_on_after(1h, [] { return 2; }) == 2);
    CONCUR_EXPECT(held, move_on_at(steady::now() + 1h, [] { return std::string("in time"); }) == "in time");
    CONCUR_EXPECT(held, move_on_after(1h, [] { concur::this_fiber::sleep_for(0s); }));
    CONCUR_EXPECT(held, !is_cancelled_here());
  });
}

TEST_CASE("fail_after and fail_at throw timed_out for what takes too long, and give the result of what does not") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    expect_takes(held, 5ms, [&] {
      CONCUR_EXPECT(held, is_thrown<timed_out>([] { fail_at(steady::now() + 5ms, [] { sleep_long(); }); }));
    });
    fail_at(steady::now() + 1h, [] { concur::this_fiber::sleep_for(0s); });
    expect_takes(held, 5ms,
                 [&] { CONCUR_EXPECT(held, is_thrown<timed_out>([] { fail_after(5ms, [] { sleep_long(); }); })); });
    CONCUR_EXPECT(held, fail_after(1h, [] {
                          concur::this_fiber::sleep_for(0s);
                          return 3;
                        }) == 3);
    CONCUR_EXPECT(held, number_from([] { fail_after(1h, [] { throw special_error(4); }); }) == 4);
    CONCUR_EXPECT(held, !is_cancelled_here());
  });
}

TEST_CASE("a time limit counts from where it is entered") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    const auto limited = [] { return move_on_after(5ms, [] { sleep_long(); }); };
    pass(steady::now() + 6ms);
    expect_takes(held, 5ms, [&] { CONCUR_EXPECT(held, !limited()); });
  });
}

TEST_CASE("limits below zero, without end, and that are no number") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    const auto look = [] { return is_cancelled_here(); };
    const auto past = {steady::now() - 1h, (steady::time_point::min)(), steady::time_point()};
    for (const auto moment : past) {
      CONCUR_EXPECT(held, move_on_at(moment, look) == true);
      CONCUR_EXPECT(held, is_thrown<timed_out>([&] { fail_at(moment, [] { concur::this_fiber::checkpoint(); }); }));
    }
    for (const auto limit : {steady::duration(-1h), steady::duration(0), (steady::duration::min)()}) {
      CONCUR_EXPECT(held, move_on_after(limit, look) == true);
      CONCUR_EXPECT(held, fail_after(limit, look));
      CONCUR_EXPECT(held, is_thrown<timed_out>([&] { fail_after(limit, [] { concur::this_fiber::checkpoint(); }); }));
    }
    using reals = std::numeric_limits<double>;
    for (const double limit : {-1.0, -1e300, -reals::infinity()}) {
      CONCUR_EXPECT(held, fail_after(seconds_real(limit), look));
    }
    // What is no number is no limit, as it is for every other wait.
    for (const double limit : {1e300, reals::infinity(), reals::quiet_NaN()}) {
      CONCUR_EXPECT(held, fail_after(seconds_real(limit), look) == false);
      CONCUR_EXPECT(held, move_on_after(seconds_real(limit), look) == false);
    }
    CONCUR_EXPECT(held, fail_after((steady::duration::max)(), look) == false);
    CONCUR_EXPECT(held, fail_at((steady::time_point::max)(), look) == false);
    CONCUR_EXPECT(held, fail_after(std::chrono::hours::max(), look) == false);
    CONCUR_EXPECT(held, fail_at(std::chrono::system_clock::now() + 1h, look) == false);
    CONCUR_EXPECT(held, fail_at(std::chrono::system_clock::now() - 1h, look) == true);
  });
}

TEST_CASE("a limited block may be shielded from outside, until it gives that up") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    cancel_scope outer;
    CONCUR_EXPECT(held, !outer.run([&] {
      cancel_scope inner;
      inner.shield(true);
      inner.deadline(steady::now() + 1h);
      inner.run([&] {
        outer.cancel();
        CONCUR_EXPECT(held, !is_cancelled_here());
        concur::this_fiber::sleep_for(1ms);
        inner.shield(false);
        concur::this_fiber::checkpoint();
      });
    }));
    CONCUR_EXPECT(held, outer.cancelled_caught());
  });
}

TEST_CASE("a limit inside a shield holds, whatever is cancelled outside") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    journal record;
    cancel_scope moves_on;
    CONCUR_EXPECT(held, !moves_on.run([&] {
      moves_on.cancel();
      expect_takes(held, 5ms, [&] {
        const bool is_through = concur::shield([] { return move_on_after(5ms, [] { sleep_long(); }); });
        record.add(is_through ? "through" : "moved on");
      });
      concur::this_fiber::checkpoint();
    }));
    cancel_scope fails;
    CONCUR_EXPECT(held, is_thrown<timed_out>([&] {
                    fails.run([&] {
                      fails.cancel();
                      expect_takes(held, 5ms, [&] {
                        try {
                          concur::shield([] { fail_after(5ms, [] { sleep_long(); }); });
                        } catch (const timed_out&) {
                          record.add("timed out");
                          throw;
                        }
                      });
                    });
                  }));
    CONCUR_EXPECT(held, !fails.cancelled_caught());
    CONCUR_EXPECT(held, record.text() == "moved on timed out");
  });
}

TEST_CASE("a limit that passed while a shield was inside it strikes when the shield ends, not before") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    journal record;
    CONCUR_EXPECT(held, is_thrown<timed_out>([&] {
                    fail_after(2ms, [&] {
                      concur::shield([&] {
                        concur::this_fiber::sleep_for(6ms);
                        concur::this_fiber::checkpoint();
                        record.add("shielded");
                      });
                      concur::this_fiber::checkpoint();
                      record.add("missed");
                    });
                  }));
    CONCUR_EXPECT(held, record.text() == "shielded");
  });
}

TEST_CASE("of limits inside each other the earliest wins, wherever it stands; of two equal ones the outer") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    bool was_reached = false;
    CONCUR_EXPECT(held, fail_after(1h, [&] { return !move_on_after(2ms, [] { sleep_long(); }); }));
    CONCUR_EXPECT(held, !move_on_after(2ms, [&] {
                    fail_after(1h, [] { sleep_long(); });
                    was_reached = true;
                  }));
    const auto both = steady::now() + 2ms;
    CONCUR_EXPECT(held, !move_on_at(both, [&] {
                    fail_at(both, [&] {
                      pass(both);
                      sleep_long();
                    });
                    was_reached = true;
                  }));
    CONCUR_EXPECT(held, !was_reached);
  });
}

TEST_CASE("a limit is felt while every worker computes, at an operation that does not have to wait") {
  const nothing_left_over guard;
  for (const unsigned workers : {2U, 4U}) {
    CAPTURE(workers);
    tally held;
    concur::run(with_workers(workers), [&] {
      std::atomic<unsigned> computing{0};
      std::atomic<bool> is_over{false};
      with_nursery([&](nursery& n) {
        for (unsigned i = 1; i < workers; ++i) {
          n.go([&] {
            ++computing;
            while (!is_over) {
            }
          });
        }
        CONCUR_EXPECT(held, wait_until([&] { return computing == workers - 1; }));
        concur::mutex m;
        int rounds = 0;
        CONCUR_EXPECT(held, !move_on_after(1ms, [&] {
                        while (rounds < 200) {
                          pass(steady::now() + 4ms);
                          ++rounds;
                          const std::lock_guard<concur::mutex> hold(m);
                        }
                      }));
        CONCUR_EXPECT(held, rounds < 100);
        is_over = true;
      });
    });
    CHECK(held.report() == "");
  }
}

TEST_CASE("a timeout is no cancellation, and a cancellation no timeout") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    CONCUR_EXPECT(held, is_thrown<timed_out>([] { move_on_after(1h, [] { fail_after(1ms, [] { sleep_long(); }); }); }));
    cancel_scope outer;
    CONCUR_EXPECT(held, !outer.run([&] {
      outer.cancel();
      fail_after(1h, [] { sleep_long(); });
    }));
    CONCUR_EXPECT(held, outer.cancelled_caught());
    const auto nested = [] { with_nursery([](nursery& n) { n.go([] { fail_after(1ms, [] { sleep_long(); }); }); }); };
    CONCUR_EXPECT(held, is_thrown<timed_out>(nested));
    CONCUR_EXPECT(held, is_thrown<timed_out>([] {
                    fail_after(1ms, [] {
                      with_nursery([](nursery& n) {
                        n.go([] { sleep_long(); });
                        n.go([] { sleep_long(); });
                      });
                    });
                  }));
  });
}

TEST_CASE("a receive that was given up takes no value from a later send") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    concur::channel<int> ch(1);
    CONCUR_EXPECT(held, move_on_after(2ms, [&] { return ch.recv(); }) == std::nullopt);
    ch.send(5);
    CONCUR_EXPECT(held, ch.try_recv() == 5);
  });
}

TEST_CASE("senders and receivers that were cancelled with their nursery have left the channel") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    concur::channel<int> ch(2);
    ch.send(1);
    ch.send(2);
    std::array<sight, 2> waiting;
    with_nursery([&](nursery& n) {
      for (sight& one : waiting) {
        n.go([&] {
          one.enter();
          ch.send(9);
        });
      }
      for (const sight& one : waiting) CONCUR_EXPECT(held, one.wait_until_parked());
      n.cancel();
    });
    CONCUR_EXPECT(held, ch.try_recv() == 1);
    CONCUR_EXPECT(held, ch.try_recv() == 2);
    CONCUR_EXPECT(held, ch.try_recv() == std::nullopt);
    with_nursery([&](nursery& n) {
      sight receiver;
      n.go([&] {
        receiver.enter();
        ch.recv();
      });
      CONCUR_EXPECT(held, receiver.wait_until_parked());
      n.cancel();
    });
    int value = 3;
    CONCUR_EXPECT(held, ch.try_send(value));
    CONCUR_EXPECT(held, ch.size() == 1);
  });
}

TEST_CASE("a lock whose holder and waiter were cancelled with their nursery is free") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    concur::mutex m;
    concur::counting_semaphore<> one_permit(1);
    std::array<sight, 2> both;
    with_nursery([&](nursery& n) {
      for (sight& one : both) {
        n.go([&] {
          one.enter();
          const std::lock_guard<concur::mutex> hold(m);
          sleep_long();
        });
      }
      for (const sight& one : both) CONCUR_EXPECT(held, one.wait_until_parked());
      CONCUR_EXPECT(held, !m.try_lock());
      n.cancel();
    });
    CONCUR_EXPECT(held, m.try_lock());
    m.unlock();
    one_permit.acquire();
    with_nursery([&](nursery& n) {
      sight waiter;
      n.go([&] {
        waiter.enter();
        one_permit.acquire();
      });
      CONCUR_EXPECT(held, waiter.wait_until_parked());
      n.cancel();
    });
    one_permit.release();
    CONCUR_EXPECT(held, one_permit.try_acquire());
  });
}

TEST_CASE("a wait on a condition that is cancelled comes home with the lock") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    concur::mutex m;
    concur::condition_variable changed;
    cancel_scope scope;
    CONCUR_EXPECT(held, !scope.run([&] {
      std::unique_lock<concur::mutex> hold(m);
      scope.cancel();
      struct looker {
        tally& held;
        std::unique_lock<concur::mutex>& lock;
        ~looker() { CONCUR_EXPECT(held, lock.owns_lock()); }
      };
      const looker at_the_end{held, hold};
      changed.wait(hold);
    }));
    CONCUR_EXPECT(held, m.try_lock());  // given back once
    m.unlock();
  });
}

TEST_CASE("of three that wait the one in the middle is cancelled by its own scope, the others are served in order") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    journal record;
    concur::counting_semaphore<> permits(0);
    cancel_scope middle(concur::deferred);
    std::array<sight, 3> waiting;
    with_nursery([&](nursery& n) {
      for (std::size_t i = 0; i < 3; ++i) {
        n.go([&, i] {
          waiting[i].enter();
          const auto wait = [&, i] {
            permits.acquire();
            record.add("served" + std::to_string(i));
          };
          if (i != 1)
            wait();
          else if (!middle.run(wait))
            record.add("cancelled1");
        });
        CONCUR_EXPECT(held, waiting[i].wait_until_parked());
      }
      middle.cancel();
      CONCUR_EXPECT(held, wait_until([&] { return n.size() == 2; }));
      permits.release();
      CONCUR_EXPECT(held, wait_until([&] { return n.size() == 1; }));
      permits.release();
    });
    CONCUR_EXPECT(held, record.text() == "cancelled1 served0 served2");
  });
}
