// test_combine.cpp - all, any and race: what comes back, who is cancelled, and what happens to results that come too late.
#include "support/nursery.hpp"
#include "support/tally.hpp"
#include "support/test.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <tuple>
#include <variant>

namespace {

using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::milliseconds;

// Sleeps until it is cancelled, and counts that.
struct sleeper {
  std::atomic<int>& cancelled;
  template <class T>
  T operator()(T value) const {
    try {
      concur::this_fiber::sleep_for(hours(1));
    } catch (const concur::cancelled&) {
      cancelled.fetch_add(1);
      throw;
    }
    return value;
  }
};

}  // namespace

TEST_CASE("all returns every result in the order of the functions, whatever their types") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    int target = 5;
    auto results = concur::all([] { return 1; }, [] { concur::this_fiber::sleep_for(microseconds(20)); },
                               [] { return std::make_unique<int>(3); }, [&]() -> int& { return target; });
    static_assert(std::is_same<decltype(results), std::tuple<int, std::monostate, std::unique_ptr<int>, int&>>::value);
    CONCUR_EXPECT(held, std::get<0>(results) == 1 && *std::get<2>(results) == 3 && &std::get<3>(results) == &target);
    static_assert(std::is_same<decltype(concur::all()), std::tuple<>>::value);
    concur::all();
    int calls = 0;
    auto counts = [&] { return ++calls; };
    concur::all(counts);  // an lvalue is called, not copied
    CONCUR_EXPECT(held, calls == 1);
  });
}

TEST_CASE("all: the first failure cancels the others and is rethrown as its type") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    std::atomic<int> cancelled{0};
    const sleeper sleeps{cancelled};
    CONCUR_EXPECT(held, text_of<std::out_of_range>([&] {
                          concur::all([&] { return sleeps(1); }, []() -> int { throw std::out_of_range("first"); },
                                      [&] { return sleeps(2); });
                        }) == "first");
    CONCUR_EXPECT(held, cancelled == 2);
    const auto refused = std::make_error_code(std::errc::connection_refused);
    bool has_failed = false;
    try {
      concur::all([&] { return refused; }, [&] { return sleeps(1); });
    } catch (const std::system_error& error) {
      has_failed = error.code() == refused;
    }
    CONCUR_EXPECT(held, has_failed && cancelled == 3);
  });
}

TEST_CASE("any: the first success cancels the rest, and failures before it do not count") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    std::atomic<int> cancelled{0};
    const sleeper sleeps{cancelled};
    CONCUR_EXPECT(held, concur::any([]() -> int { throw std::runtime_error("no"); }, [&] { return sleeps(1); },
                                    [] {
                                      concur::this_fiber::sleep_for(microseconds(100));
                                      return 2;
                                    },
                                    [&] { return sleeps(3); }) == 2);
    CONCUR_EXPECT(held, cancelled == 2);
    const auto mixed = concur::any([] { return 1; }, []() -> double { throw std::runtime_error("no"); });
    static_assert(std::is_same<decltype(mixed), const double>::value);
    CONCUR_EXPECT(held, mixed > 0.5 && mixed < 1.5);
    int target = 0;
    int& same = concur::any([&]() -> int& { return target; }, [&]() -> int& { throw std::runtime_error("no"); });
    CONCUR_EXPECT(held, &same == &target && &concur::race([&]() -> int& { return target; }) == &target);
    concur::any([] {}, [] { throw std::runtime_error("no"); });
  });
}

TEST_CASE("any: when none succeeds, all failures arrive together, in the order of the functions") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    bool is_right = false;
    try {
      concur::any(
          []() -> int {
            concur::this_fiber::sleep_for(microseconds(50));
            throw std::runtime_error("the slow one");
          },
          []() -> int { throw std::out_of_range("the quick one"); }, []() -> int { throw 3; });
    } catch (const concur::failures& all) {
      is_right =
          all.errors().size() == 3 &&
          std::string(all.what()) ==
              "concur::any: none of the functions succeeded; the slow one; the quick one; an exception of another kind";
      is_right =
          is_right && text_of<std::out_of_range>([&] { std::rethrow_exception(all.errors()[1]); }) == "the quick one";
    }
    CONCUR_EXPECT(held, is_right);
  });
}

TEST_CASE("race: the first to end decides, by a value or by an exception") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    std::atomic<int> cancelled{0};
    const sleeper sleeps{cancelled};
    CONCUR_EXPECT(held, concur::race([&] { return sleeps(1); }, [] { return 2; }) == 2);
    CONCUR_EXPECT(held, text_of<std::runtime_error>([&] {
                          concur::race([&] { return sleeps(1); }, []() -> int { throw std::runtime_error("lost"); });
                        }) == "lost");
    CONCUR_EXPECT(held, cancelled == 2);
  });
}

TEST_CASE("a cancellation from outside ends all three as `cancelled`, with every function ended") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    std::atomic<int> cancelled{0};
    const sleeper sleeps{cancelled};
    const auto one = [&] { return sleeps(1); };
    CONCUR_EXPECT(held, !concur::move_on_after(milliseconds(1), [&] { concur::all(one, one); }));
    CONCUR_EXPECT(held, !concur::move_on_after(milliseconds(1), [&] { concur::any(one, one); }));
    CONCUR_EXPECT(held, !concur::move_on_after(milliseconds(1), [&] { concur::race(one, one); }));
    CONCUR_EXPECT(held, cancelled == 6);
  });
}

namespace {

struct owned {
  explicit owned(std::atomic<int>& alive_in) : alive(&alive_in) { alive->fetch_add(1); }
  owned(owned&& other) noexcept : alive(other.alive) { alive->fetch_add(1); }
  owned& operator=(owned&&) = default;
  ~owned() { alive->fetch_sub(1); }
  std::atomic<int>* alive;
};

}  // namespace

TEST_CASE("any and race keep one result, and destroy those that come in the same moment") {
  const nothing_left_over guard;
  for (const unsigned workers : {2U, 4U}) {
    std::atomic<int> alive{0};
    tally held;
    concur::run(with_workers(workers), [&] {
      const auto make = [&] { return owned(alive); };
      for (int i = 0; i < (CONCUR_TSAN || CONCUR_ASAN ? 200 : 3000); ++i) {
        const owned first = concur::any(make, make, make);
        const owned second = concur::race(make, make, make);
        CONCUR_EXPECT(held, alive == 2);
      }
    });
    CHECK(held.report() == "");
    CHECK(alive == 0);
  }
}
