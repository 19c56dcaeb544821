// test_java_joiners.cpp - what OpenJDK's tests check of the joiners of StructuredTaskScope, and of its older subclasses
// ShutdownOnFailure and ShutdownOnSuccess, written anew for all, any, and the futures of children.
//
// Which test of theirs is which of ours, and which is left out, is in conformance.md.
#include "support/companion.hpp"
#include "support/nursery.hpp"

#include <memory>
#include <set>
#include <string>
#include <tuple>

using concur::cancel_scope;
using concur::cancelled;
using concur::fail_after;
using concur::nursery;
using concur::on_failure;
using concur::timed_out;
using concur::with_nursery;
using namespace std::chrono_literals;

namespace {

constexpr auto soon = 5ms;

}  // namespace

TEST_CASE("what a child's future tells: nothing before it ended, then a value or an exception, to whoever asks") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    concur::event gate;
    sight child;
    cancel_scope own(concur::deferred);
    nursery n(on_failure::keep_going);
    concur::future<int> value = n.async([&] {
      gate.wait();
      return 5;
    });
    concur::future<int> error = n.async([&]() -> int {
      gate.wait();
      throw special_error(6);
    });
    concur::future<void> none = n.async([&] {
      own.run([&] { child.park(); });
      CONCUR_EXPECT(held, own.cancelled_caught());
    });
    child.wait_until_parked();
    CONCUR_EXPECT(held, !value.ready() && !error.ready() && !none.ready());
    gate.set();
    own.cancel();
    CONCUR_EXPECT(held, number_from([&] { n.join(); }) == 6);
    CONCUR_EXPECT(held, value.ready() && error.ready() && none.ready());
    CONCUR_EXPECT(held, value.get() == 5 && number_from([&] { error.get(); }) == 6);
    none.get();
    int elsewhere = 0;
    concur::future<int> late;
    with_nursery([&](nursery& m) { late = m.async([] { return 7; }); });
    companion(kind::thread, [&] { elsewhere = late.get(); }).join();
    CONCUR_EXPECT(held, elsewhere == 7);
  });
}

TEST_CASE("all succeed or the first failure: no function, values, a failure, a limit around") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    CONCUR_EXPECT(held, concur::all() == std::tuple<>());
    const auto words = concur::all([] { return std::string("one"); }, [] { return std::string("two"); });
    CONCUR_EXPECT(held, words == std::make_tuple(std::string("one"), std::string("two")));
    const auto fails = []() -> int { throw special_error(2); };
    CONCUR_EXPECT(held, number_from([&] { concur::all([] { return 1; }, fails); }) == 2);
    std::atomic<int> cut{0};
    const auto slow = [&] { cut += is_thrown<cancelled>(sleep_long) ? 1 : 0; };
    const auto both = [&] { concur::all([] { return 1; }, slow, sleep_long); };
    CONCUR_EXPECT(held, is_thrown<timed_out>([&] { fail_after(soon, both); }));
    CONCUR_EXPECT(held, cut == 1);
    // As the children of a nursery.
    nursery n;
    concur::future<int> one = n.async([] { return 1; });
    concur::future<std::unique_ptr<int>> two = n.async([] { return std::make_unique<int>(2); });
    n.join();
    CONCUR_EXPECT(held, one.get() == 1 && *two.get() == 2);
  });
}

TEST_CASE("any success: one function, a null value, all fail, a success after a failure, a limit around") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    CONCUR_EXPECT(held, concur::any([] { return 1; }) == 1);
    CONCUR_EXPECT(held, concur::any([] { return static_cast<int*>(nullptr); }) == nullptr);
    const auto fails = [](int number) { return [number]() -> int { throw special_error(number); }; };
    try {
      concur::any(fails(1), fails(2), fails(3));
      CONCUR_EXPECT(held, false && "nobody succeeded");
    } catch (const concur::failures& all) {
      std::multiset<int> numbers;
      for (const std::exception_ptr& one : all.errors())
        numbers.insert(number_from([&] { std::rethrow_exception(one); }));
      CONCUR_EXPECT(held, numbers == std::multiset<int>{1, 2, 3});
    }
    // The success comes when the failure is over, and ends the one that would never come.
    std::atomic<bool> has_failed{false};
    std::atomic<bool> is_cut{false};
    const int first = concur::any(
        [&]() -> int {
          has_failed = true;
          throw special_error(1);
        },
        [&] {
          while (!has_failed) concur::this_fiber::yield();
          return 2;
        },
        [&] {
          is_cut = is_thrown<cancelled>(sleep_long);
          return 3;
        });
    CONCUR_EXPECT(held, first == 2 && is_cut);
    const auto never = []() -> int {
      sleep_long();
      return 1;
    };
    CONCUR_EXPECT(held, is_thrown<timed_out>([&] { fail_after(soon, [&] { return concur::any(fails(1), never); }); }));
  });
}

TEST_CASE("children until two have failed: each is waited for, and the failures are told in order") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    std::atomic<int> failed{0};
    int started = 0;
    std::atomic<int> ended{0};
    nursery n(on_failure::keep_going);
    while (!n.cancelled()) {
      n.go([&] { ++ended; });
      n.go([&] {
        ++ended;
        const int number = ++failed;
        if (number >= 2) n.cancel();
        throw special_error(number);
      });
      started += 2;
      concur::this_fiber::yield();
    }
    const int number = number_from([&] { n.join(); });
    CONCUR_EXPECT(held, number >= 1 && ended == started);
    CONCUR_EXPECT(held, failed >= 2 && n.failures().size() == static_cast<std::size_t>(failed));
  });
}
