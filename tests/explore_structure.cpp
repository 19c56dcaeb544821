// tests/explore_structure.cpp - nurseries and what is made of them under every kind of schedule (support/scenario.hpp).
//
// What must hold: no child outlives its nursery, a failure comes out and cancels those it should, a place is passed on,
// and who is cancelled waits for its children all the same.
#include <array>
#include <optional>
#include <stdexcept>
#include <vector>

#include "support/scenario.hpp"

using namespace concur_test;
using concur::explore_expect;
using concur::detail::note_read;
using concur::detail::note_write;
using namespace std::chrono_literals;

namespace {

struct oops {
  int number;
};

// Counts those that are inside, as an atomic word would, but in one step for the exploration.
struct crowd {
  int inside = 0;
  int most = 0;
  int total = 0;
  void enter() {
    ++total;
    if (++inside > most) most = inside;
  }
  void leave() { --inside; }
};

}  // namespace

TEST_CASE("the end of a nursery sees what every child has written") {
  const nothing_left_over guard;
  hold([] {
    std::array<int, 3> data{};
    concur::event begun;
    for (int& one : data) note_write(&one, "what a child writes");
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { note_write(&data[0], "the first child's"); });
      n.go([&] {
        begun.wait();
        note_write(&data[1], "the second child's");
      });
      n.go([&] {
        begun.set();
        note_write(&data[2], "the third child's");
      });
    });
    for (int& one : data) note_read(&one, "what a child wrote");
  });
}

TEST_CASE("a child that fails cancels its siblings and the body, and its failure comes out") {
  const nothing_left_over guard;
  hold([] {
    int cancelled = 0;
    int number = 0;
    try {
      concur::with_nursery([&](concur::nursery& n) {
        n.go([&] { cancelled += sleeps_until_cancelled() ? 1 : 0; });
        n.go([] {
          concur::this_fiber::yield();
          throw oops{7};
        });
        cancelled += sleeps_until_cancelled() ? 1 : 0;
      });
    } catch (const oops& error) {
      number = error.number;
    }
    explore_expect(number == 7, "the failure did not come out");
    explore_expect(cancelled == 2, "a sibling or the body was left alone");
  });
}

TEST_CASE("two children that fail at once are both written down, and one of them comes out") {
  const nothing_left_over guard;
  hold([] {
    concur::nursery n(concur::on_failure::keep_going);
    bool has_slept = false;
    for (int i = 1; i <= 2; ++i) n.go([i] { throw oops{i}; });
    n.go([&] {
      concur::this_fiber::sleep_for(1ms);
      has_slept = true;
    });
    int number = 0;
    try {
      n.join();
    } catch (const oops& error) {
      number = error.number;
    }
    int sum = 0;
    int first = 0;
    for (const std::exception_ptr& one : n.failures()) {
      try {
        std::rethrow_exception(one);
      } catch (const oops& error) {
        sum += error.number;
        if (first == 0) first = error.number;
      }
    }
    explore_expect(number != 0 && number == first, "not the first failure came out");
    explore_expect(sum == 3, "a failure is lost");
    explore_expect(has_slept, "a sibling was cancelled that was to go on");
  });
}

TEST_CASE("no more children than the limit run at once, each gets its turn, and sees what the one before it did") {
  const nothing_left_over guard;
  hold([] {
    crowd all;
    int data = 0;
    concur::with_nursery([&](concur::nursery& outer) {
      concur::nursery n;
      n.limit(1);
      const auto child = [&] {
        note_write(&data, "what children under a limit of one share");
        all.enter();
        concur::this_fiber::yield();
        all.leave();
        note_write(&data, "what children under a limit of one share");
      };
      concur::latch both(2);
      for (int i = 0; i < 2; ++i) {
        outer.go([&] {
          n.go(child);
          both.count_down();
        });
      }
      n.go(child);
      both.wait();
      n.join();
    });
    explore_expect(all.total == 3, "a child is missing");
    explore_expect(all.most == 1, "more children run than the limit permits");
  });
}

TEST_CASE("who is cancelled while it waits for room takes none") {
  const nothing_left_over guard;
  hold([] {
    int ran = 0;
    int started = 0;
    concur::cancel_scope waiting(concur::deferred);
    concur::event may_end;
    concur::latch done(3);
    concur::with_nursery([&](concur::nursery& outer) {
      concur::nursery n;
      n.limit(1);
      n.go([&] { may_end.wait(); });
      outer.go([&] {
        waiting.run([&] {
          n.go([&] { ++ran; });
          ++started;
        });
        done.count_down();
      });
      outer.go([&] {
        concur::this_fiber::yield();
        waiting.cancel();
        done.count_down();
      });
      outer.go([&] {
        may_end.set();
        n.go([&] { ++ran; });
        ++started;
        done.count_down();
      });
      done.wait();
      n.join();
    });
    explore_expect(started == 1 || started == 2, "a child that nobody called off was not started");
    explore_expect(ran == started, "a child was started and did not run, or the other way round");
  });
}

TEST_CASE("a child that begins while its nursery is cancelled is cancelled too") {
  const nothing_left_over guard;
  hold([] {
    int cancelled = 0;
    int begun = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { n.cancel(); });
      n.go([&] {
        n.go([&] {
          ++begun;
          cancelled += sleeps_until_cancelled() ? 1 : 0;
        });
        ++begun;
        cancelled += sleeps_until_cancelled() ? 1 : 0;
      });
    });
    explore_expect(begun == 2, "a child did not begin");
    explore_expect(cancelled == begun, "a child sleeps in a nursery that is cancelled");
  });
}

TEST_CASE("a child may begin and end while the host is on its way home") {
  const nothing_left_over guard;
  hold([] {
    int begun = 0;
    int ended = 0;
    concur::with_nursery([&](concur::nursery& outer) {
      concur::nursery n;
      concur::latch done(2);
      n.go([] {});
      for (int i = 0; i < 2; ++i) {
        outer.go([&] {
          try {
            n.go([&] { ++ended; });
            ++begun;
          } catch (const std::logic_error&) {
          }
          done.count_down();
        });
      }
      n.join();
      explore_expect(n.size() == 0, "a nursery has ended, and has children");
      const int at_the_end = ended;
      done.wait();
      explore_expect(ended == at_the_end, "a child runs in a nursery that has ended");
    });
    explore_expect(begun == ended, "a child was started and did not run");
  });
}

TEST_CASE("the children of one nursery are through with it before the next one is in its place") {
  const nothing_left_over guard;
  hold([] {
    int cancelled = 0;
    std::optional<concur::nursery> here;
    for (int i = 0; i < 3; ++i) {
      here.emplace();
      here->run([&](concur::nursery& n) {
        n.go([&] { cancelled += sleeps_until_cancelled() ? 1 : 0; });
        n.go([&] { n.cancel(); });
      });
      here.reset();
    }
    explore_expect(cancelled == 3, "a child is not in the list of its nursery");
  });
}

TEST_CASE("a plain thread starts children in a nursery and cancels it") {
  const nothing_left_over guard;
  hold([] {
    int ran = 0;
    int data = 0;
    note_write(&data, "what a thread gives to a child");
    concur::with_nursery([&](concur::nursery& n) {
      concur::event done;
      concur::explored_thread other([&] {
        note_write(&data, "what a thread gives to a child");
        n.go([&] {
          note_write(&data, "what a thread gives to a child");
          ++ran;
        });
        n.cancel();
        done.set();
      });
      concur::shield([&] { done.wait(); });
    });
    note_read(&data, "what a thread gives to a child");
    explore_expect(ran == 1, "a child did not run, though it is cancelled only where it waits");
  });
}

TEST_CASE("start returns what the child said, and what the child did before") {
  const nothing_left_over guard;
  hold([] {
    int data = 0;
    bool has_gone_on = false;
    concur::with_nursery([&](concur::nursery& n) {
      note_write(&data, "what start publishes");
      const int said = n.start([&](concur::started<int>& up) {
        note_write(&data, "what start publishes");
        up.set_value(5);
        concur::this_fiber::yield();
        has_gone_on = true;
      });
      note_read(&data, "what start publishes");
      explore_expect(said == 5, "start returned something else than the child said");
    });
    explore_expect(has_gone_on, "the child did not go on");
  });
}

TEST_CASE("a child that cannot come up is the error of start, not of its nursery") {
  const nothing_left_over guard;
  hold([] {
    int number = 0;
    bool was_cancelled = true;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        concur::this_fiber::sleep_for(1ms);
        was_cancelled = false;
      });
      try {
        n.start([](concur::started<void>& up) {
          concur::this_fiber::yield();
          throw oops{3};
          up.set_value();
        });
      } catch (const oops& error) {
        number = error.number;
      }
    });
    explore_expect(number == 3, "start did not throw the child's error");
    explore_expect(!was_cancelled, "the nursery took the error for its own");
  });
}

TEST_CASE("whoever is cancelled in start has the child's word, or the child has ended") {
  const nothing_left_over guard;
  hold([] {
    bool is_up = false;
    bool has_ended = false;
    bool was_cancelled = false;
    concur::with_nursery([&](concur::nursery& n) {
      concur::cancel_scope s;
      concur::event done;
      n.go([&] {
        s.cancel();
        done.set();
      });
      const bool returned = s.run([&] {
        const int said = n.start([&](concur::started<int>& up) {
          concur::this_fiber::yield();
          up.set_value(1);
          was_cancelled = sleeps_until_cancelled();
          has_ended = true;
        });
        is_up = said == 1;
      });
      explore_expect(returned == is_up, "start gave a value and was cancelled, or neither");
      if (!returned) {
        explore_expect(has_ended == was_cancelled, "a child that was called off was not cancelled");
        explore_expect(n.size() <= 1, "start threw before its child had ended");
      }
      concur::shield([&] { done.wait(); });
      if (returned) n.cancel();
    });
  });
}

TEST_CASE("all has every result, or the first failure when the others have ended") {
  const nothing_left_over guard;
  hold([] {
    int number = 0;
    bool was_cancelled = false;
    int data = 0;
    try {
      concur::all(
          [&] {
            was_cancelled = sleeps_until_cancelled();
            note_write(&data, "what a loser of all wrote");
          },
          []() -> int { throw oops{4}; });
    } catch (const oops& error) {
      number = error.number;
    }
    note_read(&data, "what a loser of all wrote");
    explore_expect(number == 4 && was_cancelled, "the failure did not come out, or the others were left alone");
    const auto both = concur::all(
        [] {
          concur::this_fiber::yield();
          return 1;
        },
        [] { return 2; });
    explore_expect(std::get<0>(both) == 1 && std::get<1>(both) == 2, "a result is missing");
  });
}

TEST_CASE("any has one success and cancels the others") {
  const nothing_left_over guard;
  hold([] {
    bool was_cancelled = true;
    int data = 0;
    const int result = concur::any(
        []() -> int { throw oops{1}; },
        [&] {
          note_write(&data, "what the winner wrote");
          return 2;
        },
        [&] {
          was_cancelled = sleeps_until_cancelled();
          return was_cancelled ? throw concur::cancelled() : 3;
        });
    note_read(&data, "what the winner wrote");
    explore_expect(result == 2, "a failure, or nobody, won");
    explore_expect(was_cancelled, "one that lost was left alone");
  });
}

TEST_CASE("of two that end at once one decides a race, and whole") {
  const nothing_left_over guard;
  hold([] {
    int number = 0;
    try {
      number = concur::race(
          [] {
            concur::this_fiber::yield();
            return 1;
          },
          []() -> int {
            concur::this_fiber::yield();
            throw oops{2};
          });
    } catch (const oops& error) {
      number = 10 + error.number;
    }
    explore_expect(number == 1 || number == 12, "neither decided the race");
  });
}

TEST_CASE("a nursery within a nursery waits for its children though it is cancelled from outside") {
  const nothing_left_over guard;
  hold([] {
    int ended = 0;
    int at_the_end = 0;
    concur::with_nursery([&](concur::nursery& outer) {
      outer.go([&] {
        try {
          concur::with_nursery([&](concur::nursery& n) {
            for (int i = 0; i < 2; ++i) {
              n.go([&] {
                sleeps_until_cancelled();
                concur::shield([] { concur::this_fiber::sleep_for(1ms); });
                ++ended;
              });
            }
          });
        } catch (const concur::cancelled&) {
          at_the_end = ended;
          throw;
        }
      });
      concur::this_fiber::yield();
      outer.cancel();
    });
    explore_expect(at_the_end == 2, "a nursery ended before its children");
  });
}

TEST_CASE("a nursery that is left by an exception cancels its children and waits for them") {
  const nothing_left_over guard;
  hold([] {
    int cancelled = 0;
    int data = 0;
    bool was_thrown = false;
    try {
      concur::nursery n;
      n.go([&] {
        cancelled += sleeps_until_cancelled() ? 1 : 0;
        note_write(&data, "what a child wrote that was called off");
      });
      concur::this_fiber::yield();
      throw oops{1};
    } catch (const oops&) {
      was_thrown = true;
    }
    note_read(&data, "what a child wrote that was called off");
    explore_expect(was_thrown && cancelled == 1, "the child was not called off");
  });
}

TEST_CASE("the result of a child can be had inside and outside of its nursery, or be dropped") {
  const nothing_left_over guard;
  hold([] {
    concur::future<int> late;
    int data = 0;
    concur::with_nursery([&](concur::nursery& n) {
      late = n.async([&] {
        note_write(&data, "what async publishes");
        return 1;
      });
      concur::future<int> dropped = n.async([] {
        concur::this_fiber::yield();
        return 2;
      });
      concur::future<int> soon = n.async([] { return 3; });
      dropped = concur::future<int>();
      explore_expect(soon.get() == 3, "a child has another result");
    });
    note_read(&data, "what async publishes");
    explore_expect(late.ready() && late.get() == 1, "a result went with its nursery");
  });
}

TEST_CASE("a fiber waits for the result of another's child that fails") {
  const nothing_left_over guard;
  hold([] {
    int seen = 0;
    int number = 0;
    concur::channel<concur::future<int>> out(1);
    concur::with_nursery([&](concur::nursery& outer) {
      outer.go([&] {
        std::optional<concur::future<int>> result = out.recv();
        try {
          result->get();
        } catch (const oops& error) {
          seen = error.number;
        }
      });
      try {
        concur::with_nursery([&](concur::nursery& n) {
          concur::future<int> result = n.async([]() -> int { throw oops{8}; });
          concur::shield([&] { out.send(std::move(result)); });
        });
      } catch (const oops& error) {
        number = error.number;
      }
    });
    explore_expect(number == 8 && seen == 8, "a failure reached its future, or its nursery, alone");
  });
}

TEST_CASE("a limit that is raised lets in who waits") {
  const nothing_left_over guard;
  hold([] {
    crowd all;
    concur::event both;
    concur::with_nursery([&](concur::nursery& n) {
      n.limit(1);
      n.go([&] {
        all.enter();
        n.limit(2);
        both.wait();
        all.leave();
      });
      n.go([&] {
        all.enter();
        both.set();
        all.leave();
      });
    });
    explore_expect(all.total == 2 && all.most == 2, "the limit was raised, and nobody came in");
  });
}
