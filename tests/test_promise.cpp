// test_promise.cpp - a result that somebody sets: once, by anybody, with or without a runtime, or never.
#include "support/companion.hpp"
#include "support/results.hpp"

#include <array>
#include <atomic>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/tally.hpp"

using concur::future;
using concur::promise;
using namespace std::chrono_literals;

namespace {

// Cannot be copied while `is_bad`.
struct moody {
  bool is_bad;
  explicit moody(bool is_bad_in) : is_bad(is_bad_in) {}
  moody(const moody& other) : is_bad(other.is_bad) {
    if (is_bad) throw special_error(7);
  }
};

// The code of the std::future_error that `act` throws; -1 when it throws none.
template <class F>
int code_of(F act) {
  try {
    act();
  } catch (const std::future_error& error) {
    return error.code().value();
  }
  return -1;
}
constexpr int satisfied = static_cast<int>(std::future_errc::promise_already_satisfied);
constexpr int retrieved = static_cast<int>(std::future_errc::future_already_retrieved);
constexpr int broken = static_cast<int>(std::future_errc::broken_promise);
constexpr int no_state = static_cast<int>(std::future_errc::no_state);

std::exception_ptr special(int number) { return std::make_exception_ptr(special_error(number)); }

}  // namespace

static_assert(!std::is_copy_constructible<promise<int>>::value && !std::is_copy_assignable<promise<int>>::value, "");
static_assert(std::is_nothrow_move_constructible<promise<int>>::value, "");
static_assert(std::is_nothrow_move_assignable<promise<int&>>::value, "");
static_assert(std::is_same<decltype(std::declval<promise<int&>&>().get_future()), future<int&>>::value, "");

TEST_CASE("a value that was set, before and after somebody waits for it") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    for (const bool comes_late : {false, true}) {
      promise<int> p;
      future<int> f = p.get_future();
      CHECK(f.valid());
      CHECK_FALSE(f.ready());
      CHECK_FALSE(f.wait_for(0ms));
      int got = 0;
      if (comes_late) {
        p.set_value(5);
        CHECK(f.ready());
        CHECK(f.wait_for(-1h));
        got = f.get();
      } else {
        companion getter(which, [&] { got = f.get(); });
        REQUIRE(getter.wait_until_parked());
        p.set_value(5);
        getter.join();
      }
      CHECK(got == 5);
      CHECK_FALSE(f.valid());
      CHECK(code_of([&] { f.get(); }) == no_state);
      CHECK(code_of([&] { p.get_future(); }) == retrieved);
    }
  });
}

TEST_CASE("a limited wait on a promise ends in time, and takes nothing") {
  const nothing_left_over guard;
  everywhere([](kind) {
    promise<int> p;
    future<int> f = p.get_future();
    const auto begin = std::chrono::steady_clock::now();
    CHECK_FALSE(f.wait_for(2ms));
    CHECK(std::chrono::steady_clock::now() - begin >= 2ms);
    CHECK_FALSE(f.wait_until(std::chrono::system_clock::now() - 1h));
    CHECK_FALSE(f.wait_for(std::chrono::nanoseconds::min()));
    p.set_value(1);
    CHECK(f.wait_for(much_too_long));
    CHECK(f.wait_until(std::chrono::steady_clock::time_point::min()));
    CHECK(f.get() == 1);
  });
}

TEST_CASE("results of every kind: void, reference, move-only, large, counted, without a default constructor") {
  const nothing_left_over guard;
  {
    promise<void> nothing;
    nothing.set_value();
    nothing.get_future().get();

    int target = 1;
    promise<int&> reference;
    reference.set_value(target);
    int& got = reference.get_future().get();
    CHECK(&got == &target);
    promise<const int&> constant;
    constant.set_value(target);
    CHECK(&constant.get_future().get() == &target);

    promise<std::unique_ptr<int>> unique;
    unique.set_value(std::make_unique<int>(4));
    CHECK(*unique.get_future().get() == 4);

    promise<std::array<int, 500>> large;
    large.set_value(std::array<int, 500>{{7}});
    CHECK(large.get_future().get()[0] == 7);

    promise<counted> number;
    counted original(3);
    number.set_value(original);
    CHECK(original.number == 3);
    CHECK(number.get_future().get().number == 3);
    promise<counted> moved;
    moved.set_value(std::move(original));
    CHECK(original.number == -1);
    CHECK(moved.get_future().get().number == 3);

    promise<std::string> converted;
    converted.set_value("text");
    CHECK(converted.get_future().get() == "text");
    promise<std::vector<int>> braces;
    braces.set_value({1, 2});
    CHECK(braces.get_future().get().size() == 2);
  }
  CHECK(counted::live == 0);
}

TEST_CASE("an exception that was set arrives as the type it has") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    promise<int> p;
    future<int> f = p.get_future();
    companion setter(which, [&] { p.set_exception(special(12)); });
    int number = 0;
    try {
      f.get();
    } catch (const special_error& error) {
      number = error.number;
    }
    CHECK(number == 12);
    CHECK_FALSE(f.valid());
    setter.join();
  });
  promise<void> nothing;
  nothing.set_exception(special(1));
  CHECK_THROWS_AS(nothing.get_future().get(), special_error);
  promise<int&> reference;
  reference.set_exception(special(1));
  CHECK_THROWS_AS(reference.get_future().get(), special_error);
  promise<int> refuses;
  CHECK_THROWS_AS(refuses.set_exception(nullptr), std::invalid_argument);
  refuses.set_value(1);  // the null pointer has changed nothing
}

TEST_CASE("the second result is refused, whatever both are, before and after the future was given out or got") {
  const nothing_left_over guard;
  for (const bool first_is_value : {true, false}) {
    for (const bool is_retrieved : {true, false}) {
      for (const bool is_got : {false, true}) {
        promise<counted> p;
        future<counted> f;
        if (is_retrieved) f = p.get_future();
        if (first_is_value)
          p.set_value(counted(1));
        else
          p.set_exception(special(1));
        if (!is_retrieved) f = p.get_future();
        if (is_got) {
          if (first_is_value)
            CHECK(f.get().number == 1);
          else
            CHECK_THROWS_AS(f.get(), special_error);
        }
        counted kept(2);
        CHECK(code_of([&] { p.set_value(kept); }) == satisfied);
        CHECK(code_of([&] { p.set_value(std::move(kept)); }) == satisfied);
        CHECK(code_of([&] { p.set_exception(special(2)); }) == satisfied);
        CHECK_FALSE(p.try_set_value(std::move(kept)));
        CHECK_FALSE(p.try_set_exception(special(3)));
        CHECK(kept.number == 2);  // untouched
        CHECK(code_of([&] { p.get_future(); }) == retrieved);
        if (is_got) continue;
        if (first_is_value)
          CHECK(f.get().number == 1);
        else
          CHECK_THROWS_AS(f.get(), special_error);
      }
    }
  }
  CHECK(counted::live == 0);
  promise<void> nothing;
  CHECK(nothing.try_set_value());
  CHECK_FALSE(nothing.try_set_value());
  CHECK(code_of([&] { nothing.set_value(); }) == satisfied);
  promise<int&> reference;
  int target = 0;
  CHECK(reference.try_set_value(target));
  CHECK(code_of([&] { reference.set_value(target); }) == satisfied);
}

TEST_CASE("an empty promise says so") {
  const nothing_left_over guard;
  promise<int> p;
  promise<int> other = std::move(p);
  CHECK(code_of([&] { p.get_future(); }) == no_state);
  CHECK(code_of([&] { p.set_value(1); }) == no_state);
  CHECK(code_of([&] { p.try_set_value(1); }) == no_state);
  CHECK(code_of([&] { p.set_exception(special(1)); }) == no_state);
  CHECK(code_of([&] { p.try_set_exception(special(1)); }) == no_state);
  other.set_value(2);
  CHECK(other.get_future().get() == 2);
}

TEST_CASE("a promise that goes without a result is broken") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    for (const bool comes_late : {false, true}) {
      auto p = std::make_unique<promise<int>>();
      future<int> f = p->get_future();
      int code = -1;
      companion getter(which, [&] {
        while (comes_late && !f.ready()) concur::this_fiber::yield();
        code = code_of([&] { f.get(); });
      });
      if (!comes_late) REQUIRE(getter.wait_until_parked());
      p = nullptr;
      getter.join();
      CHECK(code == broken);
    }
  });
  // Assigning to it breaks it as well.
  promise<void> p;
  future<void> f = p.get_future();
  p = promise<void>();
  CHECK(f.ready());
  CHECK(code_of([&] { f.get(); }) == broken);
  CHECK_FALSE(p.get_future().ready());
}

TEST_CASE("moving and swapping take the future and the result along") {
  const nothing_left_over guard;
  promise<int> a;
  promise<int> b;
  future<int> of_a = a.get_future();
  b.set_value(2);
  swap(a, b);
  CHECK(code_of([&] { a.set_value(9); }) == satisfied);
  CHECK(code_of([&] { b.get_future(); }) == retrieved);
  CHECK(a.get_future().get() == 2);
  b.swap(a);
  CHECK(code_of([&] { b.get_future(); }) == retrieved);
  a.set_value(1);
  CHECK(of_a.get() == 1);
  promise<int> c(std::move(a));
  CHECK(code_of([&] { c.get_future(); }) == retrieved);
  CHECK(code_of([&] { c.set_value(3); }) == satisfied);
  promise<int>& self = c;
  c = std::move(self);
  CHECK(code_of([&] { c.set_value(3); }) == satisfied);
  // With the future out, the result finds it after the move.
  promise<int> d;
  future<int> of_d = d.get_future();
  promise<int> e = std::move(d);
  e.set_value(4);
  CHECK(of_d.get() == 4);
}

TEST_CASE("the promise may be gone before its result is taken, and the future before it is set") {
  const nothing_left_over guard;
  future<counted> kept;
  {
    promise<counted> p;
    kept = p.get_future();
    p.set_value(counted(6));
  }
  CHECK(kept.get().number == 6);
  {
    promise<counted> p;
    p.get_future();
    p.set_value(counted(1));  // nobody will ask: destroyed
    CHECK(counted::live == 0);
    CHECK(code_of([&] { p.set_value(counted(1)); }) == satisfied);
  }
  {
    promise<counted> p;
    p.get_future();
    p.set_exception(special(1));  // dropped with it
  }
  {
    promise<counted> p;  // neither a result nor anybody who asks
    p.get_future();
  }
  {
    promise<counted> p;
    p.set_value(counted(1));  // never retrieved
  }
  CHECK(counted::live == 0);
}

TEST_CASE("a value whose constructor throws leaves the promise open") {
  const nothing_left_over guard;
  promise<moody> p;
  future<moody> f = p.get_future();
  const moody bad(true);
  CHECK_THROWS_AS(p.set_value(bad), special_error);
  CHECK_THROWS_AS(p.try_set_value(bad), special_error);
  CHECK_FALSE(f.ready());
  p.set_value(moody(false));
  CHECK_FALSE(f.get().is_bad);
}

TEST_CASE("an exception of a promise is no runtime's: nobody hears of it when the future is dropped") {
  const nothing_left_over guard;
  bool has_ended = false;
  concur::run(with_workers(2), [&] {
    promise<int> p;
    future<int> f = p.get_future();
    p.set_exception(special(1));
    f.wait();
    f = future<int>();
    has_ended = true;
  });
  CHECK(has_ended);
}

TEST_CASE("of many who set a result at once one wins, and his is what is got") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    for (int round = 0; round < 20; ++round) {
      promise<int> p;
      future<int> f = p.get_future();
      std::atomic<int> won{0};
      std::atomic<int> refused{0};
      std::atomic<int> winner{-1};
      {
        std::vector<companion> setters;
        for (int i = 0; i < 4; ++i) {
          setters.emplace_back(which, [&, i] {
            try {
              p.set_value(i);
              ++won;
              winner = i;
            } catch (const std::future_error&) {
              ++refused;
            }
          });
        }
      }
      CHECK(won == 1);
      CHECK(refused == 3);
      CHECK(f.get() == winner);
    }
  });
}

TEST_CASE("giving the future out and setting the value may meet") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    for (int round = 0; round < 30; ++round) {
      promise<int> p;
      companion setter(which, [&] { p.set_value(round); });
      CHECK(p.get_future().get() == round);
      setter.join();
    }
  });
}

TEST_CASE("several wait for one promise, and each wakes") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    promise<int> p;
    const future<int> f = p.get_future();
    std::atomic<int> woken{0};
    {
      std::vector<companion> waiters;
      for (int i = 0; i < 3; ++i) {
        waiters.emplace_back(which, [&] {
          f.wait();
          ++woken;
        });
      }
      waiters.emplace_back(which, [&] {
        if (f.wait_for(much_too_long)) ++woken;
      });
      for (companion& one : waiters) REQUIRE(one.wait_until_parked());
      p.set_value(1);
    }
    CHECK(woken == 4);
  });
}

TEST_CASE("a wait on a promise that is cancelled takes nothing") {
  const nothing_left_over guard;
  promise<int> p;
  future<int> f = p.get_future();
  {
    concur::runtime rt(with_workers(1));
    future<int> waiting = rt.go([&] { return f.get(); });
    while (rt.snapshot().switches == 0) std::this_thread::yield();
    rt.cancel_all();
    CHECK_THROWS_AS(waiting.get(), concur::cancelled);
  }
  CHECK(f.valid());
  p.set_value(3);
  CHECK(f.get() == 3);
}

TEST_CASE("what was written before a value or an exception was set is seen after get") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    for (int i = 0; i < 50; ++i) {
      promise<void> p;
      future<void> f = p.get_future();
      int plain = 0;
      companion setter(which, [&] {
        plain = i;
        if (i % 2 == 0)
          p.set_value();
        else
          p.set_exception(special(i));
      });
      try {
        f.get();
      } catch (const special_error& error) {
        CHECK(error.number == i);
      }
      CHECK(plain == i);
      setter.join();
    }
  });
}
