// test_cancel_scope.cpp - cancel_scope, time limits and shield: what is raised where, who catches it, and what a deadline does
// that is changed, passes under a shield, or meets its scope's end.
#include "support/companion.hpp"
#include "support/nursery.hpp"
#include "support/tally.hpp"
#include "support/test.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using clock_type = std::chrono::steady_clock;

template <class Deed>
bool is_cancelled_by(Deed deed) {
  try {
    deed();
  } catch (const concur::cancelled&) {
    return true;
  }
  return false;
}

}  // namespace

TEST_CASE("a cancelled scope raises at each checkpoint until it is left, whoever swallows it") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    {
      concur::cancel_scope scope;
      CONCUR_EXPECT(held, !scope.cancelled() && !concur::this_fiber::cancelled());
      concur::this_fiber::checkpoint();
      scope.cancel();
      CONCUR_EXPECT(held, scope.cancelled() && concur::this_fiber::cancelled());
      CONCUR_EXPECT(held, !scope.cancelled_caught());
      for (int i = 0; i < 3; ++i) {
        CONCUR_EXPECT(held, is_cancelled_by([] { concur::this_fiber::checkpoint(); }));
        CONCUR_EXPECT(held, is_cancelled_by(sleep_long));
        bool was_told = false;
        try {
          concur::channel<int>().recv();
        } catch (...) {
          was_told = true;
        }
        CONCUR_EXPECT(held, was_told);
      }
      CONCUR_EXPECT(held, scope.cancelled_caught());
      scope.cancel();
    }
    CONCUR_EXPECT(held, !concur::this_fiber::cancelled());
    concur::this_fiber::checkpoint();
    concur::this_fiber::sleep_for(microseconds(1));
  });
}

TEST_CASE("a scope catches its own cancellation, and passes on that of what surrounds it") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    concur::cancel_scope outer(concur::deferred);
    concur::cancel_scope inner(concur::deferred);
    bool is_behind_inner = false;
    const bool has_returned = outer.run([&] {
      const bool inner_returned = inner.run([&] {
        inner.cancel();
        sleep_long();
      });
      CONCUR_EXPECT(held, !inner_returned && inner.cancelled_caught());
      concur::cancel_scope second(concur::deferred);
      second.run([&] {
        second.cancel();
        outer.cancel();
        sleep_long();
      });
      is_behind_inner = true;
    });
    CONCUR_EXPECT(held, !has_returned && outer.cancelled_caught());
    CONCUR_EXPECT(held, !is_behind_inner);
  });
}

TEST_CASE("run returns what the function returns, of any type, and passes other exceptions") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    int target = 1;
    const auto scope = [] { return concur::cancel_scope(concur::deferred); };
    CONCUR_EXPECT(held, scope().run([] { return std::string("text"); }).value() == "text");
    CONCUR_EXPECT(held, scope().run([&]() -> int& { return target; }) == &target);
    CONCUR_EXPECT(held, scope().run([] { return std::make_unique<int>(3); }).value() != nullptr);
    CONCUR_EXPECT(held, scope().run([] {}));
    bool is_passed = false;
    try {
      scope().run([]() -> int { throw std::runtime_error("passes"); });
    } catch (const std::runtime_error&) {
      is_passed = true;
    }
    CONCUR_EXPECT(held, is_passed);
    CONCUR_EXPECT(held, concur::move_on_after(hours(1), [&]() -> int& { return target; }) == &target);
    CONCUR_EXPECT(held, &concur::fail_after(hours(1), [&]() -> int& { return target; }) == &target);
    CONCUR_EXPECT(held, &concur::shield([&]() -> int& { return target; }) == &target);
  });
}

TEST_CASE("a scope that was cancelled, or whose deadline passed, before it is entered raises at the first checkpoint") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    for (const bool by_deadline : {false, true}) {
      concur::cancel_scope scope(concur::deferred);
      if (by_deadline)
        scope.deadline(clock_type::now() - milliseconds(1));
      else
        scope.cancel();
      concur::this_fiber::checkpoint();
      bool is_begun = false;
      bool is_behind = false;
      CONCUR_EXPECT(held, !scope.run([&] {
        is_begun = true;
        concur::this_fiber::checkpoint();
        is_behind = true;
      }));
      CONCUR_EXPECT(held, is_begun && !is_behind);
    }
  });
}

TEST_CASE("of nested limits the earliest ends what is inside, and its own block says so") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    bool inner_said = false;
    bool outer_said = false;
    try {
      concur::fail_after(milliseconds(1), [&] {
        try {
          concur::fail_after(hours(1), sleep_long);
        } catch (const concur::timed_out&) {
          inner_said = true;
        }
      });
    } catch (const concur::timed_out&) {
      outer_said = true;
    }
    CONCUR_EXPECT(held, outer_said && !inner_said);
    outer_said = !concur::move_on_after(hours(1), [&] {
      inner_said = !concur::move_on_after(milliseconds(1), sleep_long);
      concur::this_fiber::checkpoint();
    });
    CONCUR_EXPECT(held, inner_said && !outer_said);
    // timed_out out of an inner block is an error like any other for the outer one.
    CONCUR_EXPECT(held, text_of<concur::timed_out>([&] {
                          concur::move_on_after(hours(1), [] { concur::fail_after(milliseconds(1), sleep_long); });
                        }).find("concur::fail_after") == 0);
  });
}

TEST_CASE("limits of zero, below zero and beyond all time") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    CONCUR_EXPECT(held, !concur::move_on_after(milliseconds(0), [] { concur::this_fiber::checkpoint(); }));
    CONCUR_EXPECT(held, !concur::move_on_after(hours(-1), [] { concur::this_fiber::checkpoint(); }));
    CONCUR_EXPECT(held, !concur::move_on_at((clock_type::time_point::min)(), [] { concur::this_fiber::checkpoint(); }));
    CONCUR_EXPECT(held, concur::move_on_after(milliseconds(0), [] {}));  // no checkpoint, no cancellation
    CONCUR_EXPECT(held, concur::move_on_after((hours::max)(), [] { concur::this_fiber::checkpoint(); }));
    CONCUR_EXPECT(held, concur::move_on_at((clock_type::time_point::max)(), [] { concur::this_fiber::checkpoint(); }));
    CONCUR_EXPECT(held,
                  concur::move_on_after(std::chrono::duration<double>(1e300), [] { concur::this_fiber::yield(); }));
    CONCUR_EXPECT(held, concur::fail_at(std::chrono::system_clock::now() + hours(1), [] { return 3; }) == 3);
  });
}

TEST_CASE("a deadline may be changed, also by others while somebody is parked below it") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    concur::cancel_scope scope(concur::deferred);
    CONCUR_EXPECT(held, scope.deadline() == (clock_type::time_point::max)());
    concur::event is_in;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        const bool has_returned = scope.run([&] {
          is_in.set();
          sleep_long();
        });
        CONCUR_EXPECT(held, !has_returned);
      });
      is_in.wait();
      const auto far = clock_type::now() + hours(2);
      scope.deadline(far);
      CONCUR_EXPECT(held, scope.deadline() == far && !scope.cancelled());
      scope.deadline((clock_type::time_point::max)());
      scope.deadline(clock_type::now() + milliseconds(1));
    });
    CONCUR_EXPECT(held, scope.cancelled_caught());
    // Taken back in time: nothing happens.
    concur::cancel_scope spared(concur::deferred);
    spared.deadline(clock_type::now() + hours(1));
    CONCUR_EXPECT(held, spared.run([&] {
      spared.deadline((clock_type::time_point::max)());
      concur::this_fiber::sleep_for(milliseconds(2));
    }));
    // And one that is brought forward past the present.
    CONCUR_EXPECT(held, !concur::cancel_scope(concur::deferred).run([&] {
      concur::cancel_scope inner;
      inner.deadline(clock_type::now() - hours(1));
      CONCUR_EXPECT(held, is_cancelled_by([] { concur::this_fiber::checkpoint(); }));
    }) == false);
  });
}

TEST_CASE("a plain thread sets the deadline of a scope in which all workers sleep") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U}) {
    concur::cancel_scope scope(concur::deferred);
    concur::event is_in;
    std::thread sets([&] {
      is_in.wait();
      scope.deadline(clock_type::now() + milliseconds(1));
    });
    bool has_returned = true;
    concur::run(with_workers(workers), [&] {
      has_returned = scope.run([&] {
        is_in.set();
        sleep_long();
      });
    });
    sets.join();
    CHECK(!has_returned);
  }
}

TEST_CASE("what passes under a shield is felt when the shield goes") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    bool is_through = false;
    bool is_behind = false;
    CONCUR_EXPECT(held, !concur::move_on_after(milliseconds(1), [&] {
                    is_through = concur::shield([] {
                      concur::this_fiber::sleep_for(milliseconds(5));
                      return !concur::this_fiber::cancelled();
                    });
                    concur::this_fiber::checkpoint();
                    is_behind = true;
                  }));
    CONCUR_EXPECT(held, is_through && !is_behind);
    // Its own limit works inside a shield.
    CONCUR_EXPECT(held, !concur::move_on_after(milliseconds(0), [&] {
                    is_through = !concur::shield([] { return concur::move_on_after(milliseconds(1), sleep_long); });
                    concur::this_fiber::checkpoint();
                  }));
    CONCUR_EXPECT(held, is_through);
  });
}

TEST_CASE(
    "a shield that is taken away wakes who is parked behind it, and one that is put up keeps the cancellation off") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    concur::cancel_scope outer(concur::deferred);
    concur::cancel_scope inner(concur::deferred);
    concur::with_nursery([&](concur::nursery& n) {
      concur::event is_parked;
      n.go([&] {
        const bool has_returned = outer.run([&] {
          inner.run([&] {
            inner.shield();
            is_parked.set();
            sleep_long();
          });
        });
        CONCUR_EXPECT(held, !has_returned && outer.cancelled_caught() && !inner.cancelled_caught());
      });
      is_parked.wait();
      outer.cancel();
      CONCUR_EXPECT(held, outer.cancelled() && !inner.cancelled() && inner.shielded());
      inner.shield(false);
    });
    concur::cancel_scope again(concur::deferred);
    CONCUR_EXPECT(held, !again.run([&] {
      concur::cancel_scope cover;
      again.cancel();
      CONCUR_EXPECT(held, concur::this_fiber::cancelled());
      cover.shield();
      CONCUR_EXPECT(held, !concur::this_fiber::cancelled());
      concur::this_fiber::sleep_for(microseconds(1));
      cover.shield(false);
      concur::this_fiber::checkpoint();
    }));
  });
}

namespace {

// Parks in its destructor, and tells whether that went through.
struct parks_at_end {
  bool& has_parked;
  ~parks_at_end() {
    concur::this_fiber::sleep_for(microseconds(10));
    concur::channel<int> values(1);
    values.send(1);
    has_parked = values.recv().has_value();
  }
};

// Opens a scope with a limit in its destructor.
struct limits_at_end {
  bool& has_passed;
  ~limits_at_end() { has_passed = !concur::move_on_after(milliseconds(1), sleep_long); }
};

// Asks in its destructor.
struct asks_at_end {
  bool& is_told;
  ~asks_at_end() { is_told = concur::this_fiber::cancelled(); }
};

struct nursery_at_end {
  int& ended;
  ~nursery_at_end() {
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        concur::this_fiber::sleep_for(microseconds(10));
        ++ended;
      });
    });
  }
};

}  // namespace

TEST_CASE("destructors that run for unwinding park, and are not cancelled but by limits of their own") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    for (const bool by_error : {false, true}) {
      bool has_parked = false;
      bool has_passed = false;
      int ended = 0;
      bool is_uncaught_right = false;
      bool is_told = true;
      try {
        concur::move_on_after(milliseconds(0), [&] {
          const limits_at_end second{has_passed};
          const parks_at_end first{has_parked};
          const nursery_at_end before{ended};
          const asks_at_end outermost{is_told};
          if (by_error) throw std::runtime_error("an error in a cancelled scope");
          concur::this_fiber::checkpoint();
        });
        is_uncaught_right = !by_error;
      } catch (const std::runtime_error&) {
        is_uncaught_right = by_error && std::uncaught_exceptions() == 0;
      }
      CONCUR_EXPECT(held, has_parked && has_passed && ended == 1 && is_uncaught_right && !is_told);
    }
    // In a nursery's child as well, whose host is unwinding itself.
    bool has_parked = false;
    try {
      const struct host_end {
        bool& has_parked;
        ~host_end() {
          concur::nursery n;
          n.go([this] {
            const parks_at_end end{has_parked};
            sleep_long();
          });
          n.cancel();
        }
      } end{has_parked};
      throw std::runtime_error("unwinds");
    } catch (const std::runtime_error&) {
    }
    CONCUR_EXPECT(held, has_parked);
  });
}

TEST_CASE("a deadline meets the end of its scope at any moment, and touches nothing behind it") {
  const nothing_left_over guard;
  tally held;
  const int rounds = CONCUR_TSAN || CONCUR_ASAN ? 2000 : 20000;
  concur::run(with_workers(4), [&] {
    concur::with_nursery([&](concur::nursery& n) {
      for (unsigned party = 0; party < 4; ++party) {
        n.go([&, party] {
          for (int i = 0; i < rounds; ++i) {
            // On the heap, so that a late touch is seen.
            const auto scope = std::make_unique<concur::cancel_scope>(concur::deferred);
            scope->deadline(clock_type::now() + microseconds(static_cast<int>(i % 130) + static_cast<int>(party)));
            const bool has_returned = scope->run([&] {
              if (i % 3 == 0) concur::this_fiber::sleep_for(microseconds(i % 130));
              if (i % 3 == 1) scope->deadline(clock_type::now() + microseconds(i % 70));
              concur::this_fiber::yield();
            });
            CONCUR_EXPECT(held, has_returned != scope->cancelled_caught());
          }
        });
      }
    });
  });
  CHECK(held.report() == "");
}

TEST_CASE("misuse of scopes is reported by what was done") {
  const nothing_left_over guard;
  CHECK(text_of<std::logic_error>([] {
          concur::cancel_scope scope;
        }).find("concur::cancel_scope: this thread runs no") == 0);
  const std::string rest = ": this thread runs no fibers; call it inside concur::run, or use runtime::go from outside";
  CHECK(text_of<std::logic_error>([] { concur::fail_after(hours(1), [] {}); }) == "concur::fail_after" + rest);
  CHECK(text_of<std::logic_error>([] { concur::shield([] {}); }) == "concur::shield" + rest);
  CHECK(text_of<std::logic_error>([] { concur::with_nursery([](concur::nursery&) {}); }) ==
        "concur::with_nursery" + rest);
  CHECK(text_of<std::logic_error>([] { concur::all([] {}); }) == "concur::all" + rest);
  concur::run([] {
    concur::cancel_scope once(concur::deferred);
    once.run([] {});
    CHECK(text_of<std::logic_error>([&] { once.run([] {}); }).find("a scope is run once") != std::string::npos);
    concur::cancel_scope outer;
    {
      const concur::cancel_scope inner;
      CHECK(text_of<std::logic_error>([&] { outer.run([] {}); }) != "nothing was thrown");
    }
    outer.run([] {});
  });
}

TEST_CASE("scopes that are left in another order than they were entered end the program, with a reason") {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    concur::set_on_fatal([](const char* message) {
      ::_exit(std::string(message).find("concur::cancel_scope: left by another fiber") == 0 ? 7 : 8);
    });
    concur::run(with_workers(1), [] {
      auto outer = std::make_unique<concur::cancel_scope>();
      const auto inner = std::make_unique<concur::cancel_scope>();
      outer.reset();
    });
    ::_exit(9);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 7);
}

TEST_CASE("a scope cancelled by a plain thread or another fiber wakes who is parked below, level upon level") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    tally held;
    concur::cancel_scope scope(concur::deferred);
    concur::latch parked(8);
    std::thread presses([&] {
      parked.wait();
      scope.cancel();
    });
    std::atomic<int> woken{0};
    concur::run(with_workers(workers), [&] {
      const auto level = [&](auto& self, int depth) -> void {
        if (depth == 0) {
          parked.count_down();
          if (is_cancelled_by(sleep_long)) woken.fetch_add(1);
          concur::this_fiber::checkpoint();
        }
        concur::with_nursery([&](concur::nursery& n) {
          n.go([&] { self(self, depth - 1); });
          concur::move_on_after(hours(1), [&] {
            concur::with_nursery([&](concur::nursery& m) { m.go([&] { self(self, depth - 1); }); });
          });
        });
      };
      CONCUR_EXPECT(held, !scope.run([&] { level(level, 3); }));
    });
    presses.join();
    CHECK(woken == 8);
    CHECK(held.report() == "");
  }
}
