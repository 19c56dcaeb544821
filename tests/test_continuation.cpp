// test_continuation.cpp - then, or_else and on_ready: what goes on with a result, where it runs, and what becomes of it
// when the other side, or the runtime, is gone.
#include "support/companion.hpp"
#include "support/results.hpp"

#include <array>
#include <atomic>
#include <chrono>
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

std::exception_ptr special(int number) { return std::make_exception_ptr(special_error(number)); }

int number_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const special_error& e) {
    return e.number;
  } catch (...) {
    return -1;
  }
}

template <class R>
bool is_broken(future<R> f) {
  try {
    f.get();
  } catch (const std::future_error& error) {
    return error.code() == std::make_error_code(std::future_errc::broken_promise);
  }
  return false;
}

// A promise and its future.
template <class R>
struct pair_of {
  promise<R> maker;
  future<R> taker = maker.get_future();
};

}  // namespace

// What then() returns for a function of this type.
template <class R, class F>
using after = decltype(std::declval<future<R>>().then(std::declval<F>()));
static_assert(std::is_same<after<int, double (*)(int)>, future<double>>::value, "");
static_assert(std::is_same<after<void, future<int> (*)()>, future<int>>::value, "a future of a future is one future");
static_assert(std::is_same<after<int&, int& (*)(int&)>, future<int&>>::value, "");

TEST_CASE("then with a function that takes the future is called for a value and for an error") {
  const nothing_left_over guard;
  everywhere([](kind) {
    tally held;
    promise<int> made;
    future<std::string> told = made.get_future().then([&](future<int> settled) {
      CONCUR_EXPECT(held, settled.ready());
      return std::to_string(settled.get() + 1);
    });
    made.set_value(4);
    CONCUR_EXPECT(held, told.get() == "5");
    promise<void> failing;
    future<int> caught = failing.get_future().then([](future<void> settled) {
      try {
        settled.get();
      } catch (const special_error& error) {
        return error.number;
      }
      return 0;
    });
    failing.set_exception(std::make_exception_ptr(special_error(7)));
    CONCUR_EXPECT(held, caught.get() == 7);
    future<int> again = concur::promise<int>().get_future().then([](future<int> settled) { return settled.get(); });
    bool is_broken = false;
    try {
      again.get();
    } catch (const std::future_error&) {
      is_broken = true;
    }
    CONCUR_EXPECT(held, is_broken);
    CHECK(held.report() == "");
  });
}

TEST_CASE("then gets the value, and its result is had from the returned future") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    for (const bool comes_late : {false, true}) {
      pair_of<int> p;
      if (comes_late) p.maker.set_value(4);
      future<std::string> text = p.taker.then([](int n) { return std::to_string(n); });
      CHECK_FALSE(p.taker.valid());
      CHECK(text.valid());
      future<std::size_t> length = text.then([](const std::string& all) { return all.size(); });
      companion setter(which, [&] {
        if (!comes_late) p.maker.set_value(4);
      });
      CHECK(length.get() == 1);
      setter.join();
      CHECK_THROWS_AS(p.taker.then([](int) {}), std::future_error);
      CHECK_THROWS_AS(p.taker.or_else([](const std::exception_ptr&) { return 1; }), std::future_error);
      CHECK_THROWS_AS(p.taker.on_ready([] {}), std::future_error);
    }
  });
}

TEST_CASE("then with every kind of result: void, references, move-only, large closures") {
  const nothing_left_over guard;
  everywhere([](kind) {
    concur::runtime rt(with_workers(1));
    int target = 3;
    int steps = 0;
    rt.go([] {}).then([&] { ++steps; }).get();
    rt.go([] {}).then([&]() -> int& { return target; }).then([](int& i) { ++i; }).get();
    CHECK(steps == 1);
    CHECK(target == 4);
    auto unique = rt.go([] { return std::make_unique<int>(5); }).then([](std::unique_ptr<int> p) {
      ++*p;
      return p;
    });
    CHECK(*unique.get() == 6);
    std::array<int, 200> load{{8}};
    auto add = [load, held = std::make_unique<int>(2)](int n) { return n + load[0] + *held; };
    future<int> sum = rt.go([] { return 1; }).then(std::move(add));
    CHECK(sum.get() == 11);
    CHECK(rt.go([] { return counted(7); }).then([](counted c) { return c; }).get().number == 7);
  });
  CHECK(counted::live == 0);
}

TEST_CASE("then is not called for an exception, which passes on as it is") {
  const nothing_left_over guard;
  everywhere([](kind) {
    concur::runtime rt(with_workers(1));
    std::atomic<int> calls{0};
    for (const bool is_promise : {false, true}) {
      pair_of<int> p;
      if (is_promise) p.maker.set_exception(special(3));
      future<int> source = is_promise ? std::move(p.taker) : rt.go([]() -> int { throw special_error(3); });
      future<double> result = source.then([&](int) {
                                      ++calls;
                                      return 1;
                                    })
                                  .then([&](int) {
                                    ++calls;
                                    return 1.5;
                                  });
      int number = 0;
      try {
        result.get();
      } catch (const special_error& error) {
        number = error.number;
      }
      CHECK(number == 3);
    }
    CHECK(calls == 0);
  });
}

TEST_CASE("what then's function throws is the returned future's exception") {
  const nothing_left_over guard;
  everywhere([](kind) {
    for (const bool comes_late : {false, true}) {
      pair_of<int> p;
      if (!comes_late) p.maker.set_value(1);
      future<int> result = p.taker.then([](int n) -> int { throw special_error(n); });
      if (comes_late) p.maker.set_value(1);
      CHECK_THROWS_AS(result.get(), special_error);
    }
  });
}

TEST_CASE("or_else gets the exception, and a value passes through") {
  const nothing_left_over guard;
  everywhere([](kind) {
    concur::runtime rt(with_workers(1));
    std::atomic<int> calls{0};
    const auto cure = [&](const std::exception_ptr& error) {
      ++calls;
      return number_of(error) + 100;
    };
    CHECK(rt.go([] { return 5; }).or_else(cure).get() == 5);
    CHECK(calls == 0);
    CHECK(rt.go([]() -> int { throw special_error(1); }).or_else(cure).get() == 101);
    CHECK(calls == 1);
    pair_of<int> p;
    future<int> cured = p.taker.then([](int n) -> int { throw special_error(n); }).or_else(cure);
    p.maker.set_value(2);
    CHECK(cured.get() == 102);
    // It may throw in its turn, or not know what to do.
    CHECK_THROWS_AS(rt.go([]() -> int { throw special_error(1); })
                        .or_else([](const std::exception_ptr&) -> int { throw 5; })
                        .get(),
                    int);
    CHECK_THROWS_AS(rt.go([]() -> int { throw special_error(1); })
                        .or_else([](const std::exception_ptr& error) -> int { std::rethrow_exception(error); })
                        .get(),
                    special_error);
    // void and references.
    rt.go([] { throw special_error(1); }).or_else([](const std::exception_ptr&) {}).get();
    rt.go([] {}).or_else([](const std::exception_ptr&) {}).get();
    int one = 1;
    int other = 2;
    const auto give_other = [&](const std::exception_ptr&) -> int& { return other; };
    CHECK(&rt.go([&]() -> int& { return one; }).or_else(give_other).get() == &one);
    CHECK(&rt.go([&]() -> int& { throw special_error(1); }).or_else(give_other).get() == &other);
    // A broken promise is an exception like others.
    future<int> from_broken = pair_of<int>().taker.or_else([](const std::exception_ptr&) { return 7; });
    CHECK(from_broken.get() == 7);
  });
}

TEST_CASE("a function that returns a future gives the result of that") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    for (int variant = 0; variant < 4; ++variant) {
      pair_of<int> outer;
      pair_of<std::string> inner;
      pair_of<int> spare;
      future<std::string> result = outer.taker.then([&](int) { return std::move(inner.taker); });
      future<int> cured = result.then([](const std::string& text) { return static_cast<int>(text.size()); })
                              .or_else([&](const std::exception_ptr&) { return std::move(spare.taker); });
      companion setter(which, [&] {
        if (variant % 2 == 0) outer.maker.set_value(1);
        if (variant < 2)
          inner.maker.set_value("four");
        else
          inner.maker.set_exception(special(1));
        if (variant % 2 != 0) outer.maker.set_value(1);
        spare.maker.set_value(9);
      });
      CHECK(cured.get() == (variant < 2 ? 4 : 9));
      setter.join();
    }
    // An empty one is no result.
    pair_of<int> p;
    future<int> none = p.taker.then([](int) { return future<int>(); });
    p.maker.set_value(1);
    CHECK_THROWS_AS(none.get(), std::future_error);
    // One that was unwrapped once stays what it is.
    pair_of<future<int>> nested;
    pair_of<int> last;
    future<int> flat = nested.taker.then([](future<int> f) { return f; });
    nested.maker.set_value(std::move(last.taker));
    last.maker.set_value(6);
    CHECK(flat.get() == 6);
  });
}

TEST_CASE("where the function runs: a fiber's runtime, the maker's runtime, or the maker's thread") {
  const nothing_left_over guard;
  concur::runtime mine(with_workers(1));
  concur::runtime theirs(with_workers(1));
  const auto thread_of = [](concur::runtime& rt) { return rt.block_on([] { return std::this_thread::get_id(); }); };
  const std::thread::id my_worker = thread_of(mine);
  const std::thread::id their_worker = thread_of(theirs);
  const auto where = [] { return std::make_pair(std::this_thread::get_id(), concur_test::is_on_fiber()); };
  using place = std::pair<std::thread::id, bool>;

  for (const bool is_ready : {false, true}) {
    CAPTURE(is_ready);
    for (int maker = 0; maker < 3; ++maker) {
      CAPTURE(maker);
      const auto make = [&](promise<void>& p) {
        if (maker == 0) mine.block_on([&] { p.set_value(); });
        if (maker == 1) theirs.block_on([&] { p.set_value(); });
        if (maker == 2) std::thread([&] { p.set_value(); }).join();
      };
      // Asked by a fiber: always its own runtime.
      {
        pair_of<void> p;
        if (is_ready) make(p.maker);
        future<place> result = mine.block_on([&] { return p.taker.then(where); });
        if (!is_ready) make(p.maker);
        CHECK(result.get() == place(my_worker, true));
      }
      // Asked by a thread.
      {
        pair_of<void> p;
        if (is_ready) make(p.maker);
        future<place> result = p.taker.then(where);
        std::thread::id maker_thread;
        if (!is_ready && maker != 2) make(p.maker);
        if (!is_ready && maker == 2) {
          std::thread one([&] { p.maker.set_value(); });
          maker_thread = one.get_id();
          one.join();
          CHECK(result.ready());
        }
        const place got = result.get();
        if (is_ready)
          CHECK(got == place(std::this_thread::get_id(), false));
        else if (maker == 2)
          CHECK(got == place(maker_thread, false));
        else
          CHECK(got == place(maker == 0 ? my_worker : their_worker, true));
      }
    }
    // Made by the end of a fiber.
    concur::channel<void> gate;
    future<place> result = theirs.go([&] { gate.recv(); }).then(where);
    gate.send();
    CHECK(result.get() == place(their_worker, true));
  }
}

TEST_CASE("the function may park") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::run(with_workers(workers), [] {
      concur::channel<int> ch;
      future<int> sum = concur::go([] { return 1; }).then([&](int n) { return n + *ch.recv(); });
      ch.send(4);
      CHECK(sum.get() == 5);
    });
  }
}

TEST_CASE("an exception that passes on is reported once, by run, when nobody takes it") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    for (int variant = 0; variant < 4; ++variant) {
      CAPTURE(variant);
      int number = 0;
      try {
        concur::run(with_workers(workers), [&] {
          future<int> source = concur::go([]() -> int { throw special_error(5); });
          if (variant % 2 == 1) source.wait();
          future<int> next = source.then([](int n) { return n; });
          if (variant >= 2) next.wait();
        });
      } catch (const special_error& error) {
        number = error.number;
      }
      CHECK(number == 5);
    }
    // Taken: run has nothing to say.
    concur::run(with_workers(workers), [] {
      concur::go([]() -> int { throw special_error(5); }).or_else([](const std::exception_ptr&) { return 1; });
      future<int> last = concur::go([]() -> int { throw special_error(5); }).then([](int n) { return n; });
      CHECK_THROWS_AS(last.get(), special_error);
    });
    // A fiber that was cancelled is no failure, passed on neither.
    concur::run(with_workers(workers), [] {
      concur::go([]() -> int { throw concur::cancelled(); }).then([](int n) { return n; });
    });
  }
}

TEST_CASE("from a plain thread, an exception of a fiber stays its runtime's when nobody takes it") {
  const nothing_left_over guard;
  for (int variant = 0; variant < 3; ++variant) {
    CAPTURE(variant);
    concur::runtime rt(with_workers(2));
    concur::channel<void> gate;
    future<int> source = rt.go([&]() -> int {
      gate.recv();
      if (variant == 2) return 1;
      throw special_error(5);
    });
    if (variant == 0) source.then([](int n) { return n; });                    // passes on
    if (variant == 1) source.then([](int) { return future<int>(); });          // the same
    if (variant == 2) source.then([](int) -> int { throw special_error(5); });  // thrown there
    gate.send();
    CHECK_THROWS_AS(rt.wait_for_all(), special_error);
  }
}

TEST_CASE("the runtime ends first: the function is destroyed without a call, and the promise is broken") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U}) {
    pair_of<int> p;
    pair_of<int> q;
    future<int> result;
    future<int> cured;
    std::atomic<int> calls{0};
    concur::run(with_workers(workers), [&] {
      result = p.taker.then([&calls, held = counted(1)](int n) {
        ++calls;
        return n + held.number;
      });
      cured = q.taker.or_else([&calls](const std::exception_ptr&) {
        ++calls;
        return 1;
      });
      q.taker = result.then([&calls](int n) {
        ++calls;
        return n;
      });
    });
    CHECK_FALSE(result.valid());
    CHECK_FALSE(cured.ready());
    CHECK(counted::live == 1);
    p.maker.set_value(1);
    CHECK(counted::live == 0);
    CHECK(is_broken(std::move(q.taker)));
    q.maker.set_exception(special(1));
    CHECK(is_broken(std::move(cured)));
    CHECK(calls == 0);
  }
  // A result that the function is not for passes all the same.
  pair_of<int> p;
  future<int> result;
  concur::run(with_workers(1), [&] { result = p.taker.then([](int n) { return n; }); });
  p.maker.set_exception(special(4));
  CHECK_THROWS_AS(result.get(), special_error);
  // The runtime ends, and nobody ever asked for the result.
  pair_of<int> q;
  concur::run(with_workers(1), [&] { q.taker.then([held = counted(1)](int n) { return n + held.number; }); });
  q.maker.set_value(1);
  CHECK(counted::live == 0);
}

TEST_CASE("the runtime ends while the result comes: it is called, or broken, and nothing is left") {
  const nothing_left_over guard;
  int called = 0;
  int broken = 0;
  for (int round = 0; round < 400; ++round) {
    pair_of<int> p;
    future<int> result;
    std::atomic<bool> may_go{false};
    std::thread setter([&] {
      while (!may_go) {
      }
      for (int i = 0; i < round * 10; ++i) static_cast<void>(may_go.load());
      p.maker.set_value(1);
    });
    {
      concur::runtime rt(with_workers(1 + static_cast<unsigned>(round) % 2));
      rt.block_on([&] { result = p.taker.then([](int n) { return n; }); });
      may_go = true;
    }
    setter.join();
    REQUIRE(result.wait_for(much_too_long));
    try {
      called += result.get();
    } catch (const std::future_error&) {
      ++broken;
    }
  }
  CHECK(called + broken == 400);
}

TEST_CASE("a cancelled runtime runs the function, whose first wait ends") {
  const nothing_left_over guard;
  std::atomic<int> begun{0};
  std::atomic<int> ended{0};
  pair_of<int> p;
  future<int> result;
  {
    concur::runtime rt(with_workers(1));
    rt.block_on([&] {
      result = p.taker.then([&](int n) {
        ++begun;
        concur::this_fiber::sleep_for(1h);
        ++ended;
        return n;
      });
    });
    p.maker.set_value(1);
    while (begun == 0) std::this_thread::yield();
  }
  CHECK_THROWS_AS(result.get(), concur::cancelled);
  CHECK(ended == 0);
}

TEST_CASE("on_ready is called once, before or after, also when the future is dropped") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    for (const bool is_error : {false, true}) {
      for (const bool comes_late : {false, true}) {
        for (const bool is_dropped : {false, true}) {
          std::atomic<int> calls{0};
          pair_of<int> p;
          const auto make = [&] {
            if (is_error)
              p.maker.set_exception(special(1));
            else
              p.maker.set_value(1);
          };
          if (comes_late) make();
          p.taker.on_ready([&, held = std::make_unique<int>(1)] { calls += *held; });
          CHECK(p.taker.valid());
          CHECK(calls == (comes_late ? 1 : 0));
          if (is_dropped) p.taker = future<int>();
          if (!comes_late) companion(which, make).join();
          CHECK(calls == 1);
          if (!is_dropped && !is_error) CHECK(p.taker.get() == 1);
          if (!is_dropped && is_error) CHECK_THROWS_AS(p.taker.get(), special_error);
          CHECK(calls == 1);
        }
      }
    }
    // A promise that breaks tells, too.
    std::atomic<int> calls{0};
    pair_of<int>().taker.on_ready([&] { ++calls; });
    CHECK(calls == 1);
  });
}

TEST_CASE("several callbacks are called in their order, and find the result there") {
  const nothing_left_over guard;
  pair_of<int> p;
  std::string order;
  bool was_ready = false;
  for (const char name : {'a', 'b', 'c'}) p.taker.on_ready([&order, name] { order += name; });
  p.taker.on_ready([&] { was_ready = p.taker.ready(); });
  p.maker.set_value(1);
  CHECK(order == "abc");
  CHECK(was_ready);
}

TEST_CASE("on_ready and then on one future") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    std::atomic<int> calls{0};
    pair_of<int> p;
    p.taker.on_ready([&] { ++calls; });
    future<int> next = p.taker.then([](int n) { return n + 1; });
    next.on_ready([&] { calls += 10; });
    companion(which, [&] { p.maker.set_value(1); }).join();
    CHECK(next.get() == 2);
    while (calls != 11) concur::this_fiber::yield();
  });
}

TEST_CASE("a callback at the end of a fiber is nobody's fiber, and may start one") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U}) {
    concur::runtime rt(with_workers(workers));
    std::atomic<bool> was_on_fiber{false};
    std::atomic<int> calls{0};
    concur::channel<void> gate;
    promise<void> told;
    future<void> all = told.get_future();
    future<int> source = rt.go([&] {
      gate.recv();
      return 1;
    });
    source.on_ready([&] {
      was_on_fiber = concur_test::is_on_fiber();
      ++calls;
      rt.go([&] { told.set_value(); });
    });
    source = future<int>();  // the block is free before the callback is called
    gate.send();
    all.get();
    CHECK(calls == 1);
    CHECK_FALSE(was_on_fiber);
  }
}

TEST_CASE("a chain of any length is worked off without depth") {
  const nothing_left_over guard;
  constexpr int length = CONCUR_TSAN || CONCUR_ASAN ? 5000 : 100000;
  {
    // Values, on plain threads.
    pair_of<int> p;
    future<int> last = std::move(p.taker);
    for (int i = 0; i < length; ++i) last = last.then([](int n) { return n + 1; });
    p.maker.set_value(0);
    CHECK(last.get() == length);
  }
  {
    // An exception, past functions that wait for a fiber of a runtime that is over.
    pair_of<int> p;
    future<int> last = std::move(p.taker);
    concur::run(with_workers(1), [&] {
      for (int i = 0; i < length; ++i) last = last.then([](int n) { return n + 1; });
    });
    p.maker.set_exception(special(1));
    CHECK_THROWS_AS(last.get(), special_error);
  }
  {
    // Values, as fibers.
    concur::run(with_workers(2), [&] {
      pair_of<int> p;
      future<int> last = std::move(p.taker);
      for (int i = 0; i < length; ++i) last = last.then([](int n) { return n + 1; });
      p.maker.set_value(0);
      CHECK(last.get() == length);
    });
  }
}

TEST_CASE("the function, and what it was given, is gone before the result is there") {
  const nothing_left_over guard;
  everywhere([](kind) {
    for (int i = 0; i < 50; ++i) {
      pair_of<int> p;
      future<int> result = p.taker.then([held = counted(7)](int n) { return held.number + n; });
      CHECK(counted::live == 1);
      p.maker.set_value(i);
      result.wait();
      CHECK(counted::live == 0);
      CHECK(result.get() == 7 + i);
    }
  });
}

TEST_CASE("dropping the returned future stops nothing") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    pair_of<int> p;
    std::atomic<int> calls{0};
    p.taker.then([&](int n) { calls += n; }).then([&] { calls += 10; });
    companion(which, [&] { p.maker.set_value(1); }).join();
    while (calls != 11) concur::this_fiber::yield();
  });
}

TEST_CASE("what was written before the result is seen by then, or_else and on_ready") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    for (int i = 0; i < 40; ++i) {
      pair_of<void> p;
      pair_of<void> q;
      int plain = 0;
      std::atomic<int> seen_by_callback{-1};
      p.taker.on_ready([&] { seen_by_callback = plain; });
      future<int> seen = p.taker.then([&] { return plain; });
      future<void> cured = q.taker.or_else([&](const std::exception_ptr&) {
        if (plain != i) throw special_error(i);
      });
      companion setter(which, [&] {
        plain = i;
        p.maker.set_value();
        q.maker.set_exception(special(1));
      });
      CHECK(seen.get() == i);
      setter.join();
      cured.get();
      CHECK(seen_by_callback == i);
    }
  });
}

TEST_CASE("attaching and completing at the same moment: called once, whoever is first") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    constexpr int rounds = 200;
    std::atomic<int> calls{0};
    std::vector<promise<int>> makers(rounds);
    std::vector<future<int>> takers;
    for (promise<int>& one : makers) takers.push_back(one.get_future());
    companion setter(which, [&] {
      for (promise<int>& one : makers) one.set_value(1);
    });
    int sum = 0;
    for (future<int>& one : takers) {
      one.on_ready([&] { ++calls; });
      sum += one.then([](int n) { return n; }).get();
    }
    setter.join();
    CHECK(calls == rounds);
    CHECK(sum == rounds);
  });
}
