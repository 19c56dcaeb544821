// test_when.cpp - one future for several: packs and ranges, in every order of completion, and what the losers keep.
#include "support/companion.hpp"

#include <atomic>
#include <chrono>
#include <future>
#include <list>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

using concur::future;
using concur::promise;
using concur::shared_future;
using concur::when_all;
using concur::when_any;
using concur::when_any_result;
using namespace std::chrono_literals;

namespace {

struct special_error : std::runtime_error {
  explicit special_error(int number_in) : std::runtime_error("special"), number(number_in) {}
  int number;
};
std::exception_ptr special(int number) { return std::make_exception_ptr(special_error(number)); }

std::vector<future<int>> futures_of(std::vector<promise<int>>& makers) {
  std::vector<future<int>> all;
  for (promise<int>& one : makers) all.push_back(one.get_future());
  return all;
}

}  // namespace

static_assert(std::is_same<decltype(when_all(std::declval<future<int>>(), std::declval<shared_future<void>&>())),
                           future<std::tuple<future<int>, shared_future<void>>>>::value,
              "");
static_assert(std::is_same<decltype(when_any(std::declval<std::vector<future<int>>>())),
                           future<when_any_result<std::vector<future<int>>>>>::value,
              "");

TEST_CASE("when_all of a pack is ready behind the last, and gives each back") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    for (int last = 0; last < 3; ++last) {
      promise<int> a;
      promise<std::unique_ptr<int>> b;
      promise<void> c;
      future<int> of_a = a.get_future();
      shared_future<void> of_c = c.get_future();
      auto all = when_all(std::move(of_a), b.get_future(), of_c);
      CHECK_FALSE(of_a.valid());
      CHECK(of_c.valid());
      const auto make = [&](int i) {
        if (i == 0) a.set_value(1);
        if (i == 1) b.set_value(std::make_unique<int>(2));
        if (i == 2) c.set_exception(special(3));
      };
      for (int i = 0; i < 3; ++i) {
        if (i != last) make(i);
        CHECK_FALSE(all.ready());
      }
      companion(which, [&] { make(last); }).join();
      auto parts = all.get();
      CHECK(std::get<0>(parts).get() == 1);
      CHECK(*std::get<1>(parts).get() == 2);
      CHECK_THROWS_AS(std::get<2>(parts).get(), special_error);
    }
  });
}

TEST_CASE("when_all of a range keeps the order, whatever the order of completion") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    for (const std::size_t stride : {1U, 3U, 7U}) {
      std::vector<promise<int>> makers(10);
      std::vector<future<int>> takers = futures_of(makers);
      makers[4].set_value(4);
      auto all = stride == 3 ? when_all(takers.begin(), takers.end()) : when_all(std::move(takers));
      std::vector<future<int>> parts;
      companion getter(which, [&] { parts = all.get(); });
      REQUIRE(getter.wait_until_parked());
      for (std::size_t i = 0; i < 10; ++i) {
        const std::size_t k = i * stride % 10;
        if (k != 4) makers[k].set_value(static_cast<int>(k));
      }
      getter.join();
      REQUIRE(parts.size() == 10);
      for (std::size_t i = 0; i < 10; ++i) CHECK(parts[i].get() == static_cast<int>(i));
    }
  });
}

TEST_CASE("of none: when_all is ready, when_any too and names nobody") {
  const nothing_left_over guard;
  CHECK(when_all().ready());
  CHECK(when_all(std::vector<future<int>>()).get().empty());
  std::list<future<int>> none;
  CHECK(when_all(none.begin(), none.end()).get().empty());
  CHECK(when_any().get().index == static_cast<std::size_t>(-1));
  auto result = when_any(std::vector<future<int>>()).get();
  CHECK(result.index == static_cast<std::size_t>(-1));
  CHECK(result.futures.empty());
  CHECK(when_any(none.begin(), none.end()).get().index == static_cast<std::size_t>(-1));
}

TEST_CASE("with results that are there already") {
  const nothing_left_over guard;
  std::vector<promise<int>> makers(3);
  for (int i = 0; i < 3; ++i) makers[static_cast<std::size_t>(i)].set_value(i);
  auto all = when_all(futures_of(makers));
  CHECK(all.ready());
  auto any = when_any(all.get());
  CHECK(any.ready());
  auto result = any.get();
  CHECK(result.index == 0);
  CHECK(result.futures.size() == 3);
  for (int i = 0; i < 3; ++i) CHECK(result.futures[static_cast<std::size_t>(i)].get() == i);
}

TEST_CASE("when_any says who was first, and gives the others back unharmed") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    for (std::size_t first = 0; first < 3; ++first) {
      for (const bool is_error : {false, true}) {
        std::vector<promise<int>> makers(3);
        auto any = when_any(futures_of(makers));
        CHECK_FALSE(any.ready());
        when_any_result<std::vector<future<int>>> result{0, {}};
        companion getter(which, [&] { result = any.get(); });
        REQUIRE(getter.wait_until_parked());
        if (is_error)
          makers[first].set_exception(special(1));
        else
          makers[first].set_value(7);
        getter.join();
        CHECK(result.index == first);
        for (std::size_t i = 0; i < 3; ++i) CHECK(result.futures[i].ready() == (i == first));
        if (is_error)
          CHECK_THROWS_AS(result.futures[first].get(), special_error);
        else
          CHECK(result.futures[first].get() == 7);
        for (std::size_t i = 0; i < 3; ++i) {
          if (i == first) continue;
          companion(which, [&] { makers[i].set_value(8); }).join();
          CHECK(result.futures[i].get() == 8);
        }
      }
    }
    // A pack.
    promise<int> a;
    promise<void> b;
    auto any = when_any(a.get_future(), b.get_future());
    b.set_value();
    auto result = any.get();
    CHECK(result.index == 1);
    std::get<1>(result.futures).get();
    CHECK_FALSE(std::get<0>(result.futures).ready());
    a.set_value(3);
    CHECK(std::get<0>(result.futures).get() == 3);
  });
}

TEST_CASE("an empty future among them is refused, and nothing is taken") {
  const nothing_left_over guard;
  promise<int> p;
  std::vector<future<int>> all;
  all.push_back(p.get_future());
  all.emplace_back();
  CHECK_THROWS_AS(when_all(std::move(all)), std::future_error);
  CHECK_THROWS_AS(when_any(all.begin(), all.end()), std::future_error);
  REQUIRE(all.size() == 2);
  CHECK_THROWS_AS(when_any(std::move(all[0]), std::move(all[1])), std::future_error);
  CHECK(all[0].valid());
}

TEST_CASE("a future that loses many times gathers nothing") {
  const nothing_left_over guard;
  promise<int> slow;
  future<int> of_slow = slow.get_future();
  std::atomic<int> held{0};
  struct note_of {
    std::atomic<int>* held;
    explicit note_of(std::atomic<int>* count) : held(count) { ++*held; }
    note_of(const note_of& other) : held(other.held) { ++*held; }
    note_of& operator=(const note_of&) = delete;
    ~note_of() { --*held; }
  };
  for (int i = 0; i < 1000; ++i) {
    promise<note_of> quick;
    auto any = when_any(std::move(of_slow), quick.get_future());
    quick.set_value(note_of(&held));
    auto result = any.get();
    CHECK(result.index == 1);
    of_slow = std::move(std::get<0>(result.futures));
  }
  CHECK(held == 0);
  // What is attached now is all there is.
  int count = 0;
  concur::detail::future_state* state = concur::detail::future_access::state(of_slow);
  concur::detail::due_list due;
  CHECK_FALSE(state->is_ready());
  of_slow.on_ready([&] { ++count; });
  of_slow = future<int>();
  // The future is gone: completing gives out what waits for it.
  CHECK_FALSE(state->complete(due));
  int notes = 0;
  for (concur::detail::continuation* one = due.front(); one != nullptr; one = due.front()) {
    due.pop();
    one->run(one, due);
    ++notes;
  }
  CHECK(notes == 1);
  CHECK(count == 1);
  slow.set_value(1);
}

TEST_CASE("dropping the whole stops nothing, and drops the parts when all are there") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    auto held = std::make_shared<int>(1);
    {
      promise<std::shared_ptr<int>> a;
      promise<std::shared_ptr<int>> b;
      when_all(a.get_future(), b.get_future());
      a.set_value(held);
      CHECK(held.use_count() == 2);
      companion(which, [&] { b.set_value(held); }).join();
      CHECK(held.use_count() == 1);
    }
    {
      promise<std::shared_ptr<int>> a;
      promise<std::shared_ptr<int>> b;
      when_any(a.get_future(), b.get_future());
      a.set_value(held);
      CHECK(held.use_count() == 1);
      companion(which, [&] { b.set_value(held); }).join();
      CHECK(held.use_count() == 1);
    }
  });
  // An exception that nobody takes is still its runtime's.
  CHECK_THROWS_AS(concur::run(with_workers(2), [] { when_all(concur::go([] { throw special_error(1); })); }),
                  special_error);
}

TEST_CASE("a broken promise counts as a result") {
  const nothing_left_over guard;
  future<std::tuple<future<int>>> all;
  {
    promise<int> p;
    all = when_all(p.get_future());
    CHECK_FALSE(all.ready());
  }
  auto parts = all.get();
  CHECK_THROWS_AS(std::get<0>(parts).get(), std::future_error);
}

TEST_CASE("with then: a sum of many, and the first of many") {
  const nothing_left_over guard;
  everywhere([](kind) {
    concur::runtime rt(with_workers(2));
    std::vector<future<int>> parts;
    for (int i = 1; i <= 100; ++i) parts.push_back(rt.go([i] { return i; }));
    future<int> sum = when_all(std::move(parts)).then([](std::vector<future<int>> all) {
      int total = 0;
      for (future<int>& one : all) total += one.get();
      return total;
    });
    CHECK(sum.get() == 5050);
    promise<int> never_set;
    auto first = when_any(rt.go([] { return 1; }), never_set.get_future());
    future<std::size_t> index = first.then([](auto result) { return result.index; });
    CHECK(index.get() == 0);
    // Deeply nested, and done in a loop.
    promise<void> p;
    auto one = when_all(when_all(when_any(when_all(p.get_future()))));
    CHECK_FALSE(one.ready());
    p.set_value();
    CHECK(one.ready());
  });
}

TEST_CASE("all complete at once, from everywhere: each whole once, each result found") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    for (int round = 0; round < 30; ++round) {
      std::vector<promise<int>> makers(8);
      std::vector<future<int>> takers = futures_of(makers);
      std::vector<future<int>> four;
      for (std::size_t i = 4; i < 8; ++i) four.push_back(std::move(takers[i]));
      takers.resize(4);
      std::vector<int> plain(8);
      {
        std::vector<companion> setters;
        for (std::size_t k = 0; k < 2; ++k) {
          setters.emplace_back(which, [&makers, &plain, k] {
            for (std::size_t i = k; i < 8; i += 2) {
              plain[i] = static_cast<int>(i);
              makers[i].set_value(1);
            }
          });
        }
        auto any = when_any(std::move(takers));
        auto all = when_all(std::move(four));
        auto result = any.get();
        REQUIRE(result.index < 4);
        CHECK(result.futures[result.index].ready());
        CHECK(plain[result.index] == static_cast<int>(result.index));
        int sum = 0;
        for (future<int>& one : result.futures) sum += one.get();
        auto rest = all.get();
        for (std::size_t i = 0; i < 4; ++i) {
          CHECK(rest[i].ready());
          CHECK(plain[i + 4] == static_cast<int>(i + 4));
          sum += rest[i].get();
        }
        CHECK(sum == 8);
      }
    }
  });
}
