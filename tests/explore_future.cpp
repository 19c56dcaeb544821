// tests/explore_future.cpp - promises, futures and what goes on with them under every kind of schedule (support/scenario.hpp).
//
// What must hold: a result is made once and had once, by whoever waits, be that a fiber, a thread or a continuation, whoever
// comes first; what was done before it was made is seen by who has it; and a result that never comes is told of.
#include <array>
#include <future>
#include <memory>
#include <optional>
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

scenario_options with_count(unsigned workers) {
  scenario_options wanted;
  wanted.workers = workers;
  return wanted;
}

// Whether the future throws that its promise is broken; a value passes.
template <class Future>
bool is_broken(Future& wanted) {
  try {
    static_cast<void>(wanted.get());
  } catch (const std::future_error& error) {
    explore_expect(error.code() == std::future_errc::broken_promise, "another error than a broken promise");
    return true;
  }
  return false;
}

}  // namespace

TEST_CASE("a result is had by who waits for it, with all that was done before") {
  const nothing_left_over guard;
  hold([] {
    concur::promise<int> made;
    concur::future<int> wanted = made.get_future();
    int data = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        note_write(&data, "what was done before the result");
        made.set_value(3);
      });
      n.go([&] {
        explore_expect(wanted.get() == 3, "another result than was set");
        note_write(&data, "what was done before the result");
      });
    });
  });
}

TEST_CASE("a result goes from a thread to a fiber, and back") {
  const nothing_left_over guard;
  hold([] {
    concur::promise<int> there;
    concur::promise<int> back;
    concur::future<int> from_there = there.get_future();
    concur::future<int> from_here = back.get_future();
    int data = 0;
    concur::explored_thread other([&] {
      const int value = from_there.get();
      note_write(&data, "what goes with a result");
      back.set_value(value + 1);
    });
    note_write(&data, "what goes with a result");
    there.set_value(1);
    explore_expect(from_here.get() == 2, "another result than was set");
    note_write(&data, "what goes with a result");
    other.join();
  });
}

TEST_CASE("two threads without a runtime share a result") {
  const nothing_left_over guard;
  hold(
      [] {
        auto made = std::make_unique<concur::promise<std::unique_ptr<int>>>();
        auto wanted = made->get_future();
        int data = 0;
        int seen = 0;
        concur::explored_thread maker([&] {
          note_write(&data, "what was done before the result");
          made->set_value(std::make_unique<int>(4));
          made.reset();
        });
        concur::explored_thread taker([&] {
          while (!wanted.wait_for(1ms)) {
          }
          explore_expect(wanted.ready(), "a wait has ended, and there is no result");
          seen = *wanted.get();
          note_read(&data, "what was done before the result");
        });
        maker.join();
        taker.join();
        explore_expect(seen == 4, "the result is lost");
      },
      with_count(0));
}

TEST_CASE("of several that set a result at once one wins, and its value is the result") {
  const nothing_left_over guard;
  hold([] {
    concur::promise<int> made;
    concur::future<int> wanted = made.get_future();
    std::array<bool, 3> has_won{};
    int data = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { has_won[0] = made.try_set_value(0); });
      n.go([&] { has_won[1] = made.try_set_value(1); });
      n.go([&] {
        has_won[2] = made.try_set_exception(std::make_exception_ptr(oops{2}));
        if (has_won[2]) note_write(&data, "what the winner did before");
      });
      int number = 0;
      try {
        number = wanted.get();
      } catch (const oops& error) {
        number = error.number;
      }
      concur::this_fiber::yield();
      data = number;
    });
    explore_expect(has_won[0] + has_won[1] + has_won[2] == 1, "not one has won");
    explore_expect(has_won[static_cast<std::size_t>(data)], "the result is not the winner's");
  });
}

TEST_CASE("who waits for a promise that is dropped is told so") {
  const nothing_left_over guard;
  hold([] {
    std::optional<concur::promise<int>> made;
    made.emplace();
    concur::future<int> wanted = made->get_future();
    bool was_told = false;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { was_told = is_broken(wanted); });
      n.go([&] { made.reset(); });
    });
    explore_expect(was_told, "a promise without a result told nobody");
  });
}

TEST_CASE("what waits for a result hears of it once, though the future is dropped") {
  const nothing_left_over guard;
  hold([] {
    concur::promise<int> made;
    concur::future<int> wanted = made.get_future();
    std::array<int, 2> told{};
    int data = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        wanted.on_ready([&] {
          ++told[0];
          note_write(&data, "what was done before the result");
        });
        wanted.on_ready([&] { ++told[1]; });
        wanted = concur::future<int>();
      });
      n.go([&] {
        note_write(&data, "what was done before the result");
        made.set_value(1);
      });
    });
    explore_expect(told[0] == 1 && told[1] == 1, "what was attached to a result was not told once");
  });
}

TEST_CASE("a chain of continuations brings the value to its end, whoever comes first") {
  const nothing_left_over guard;
  hold([] {
    concur::promise<int> made;
    concur::future<int> wanted = made.get_future();
    int data = 0;
    int result = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        concur::future<int> end = wanted
                                      .then([&](int value) {
                                        note_write(&data, "what goes along a chain");
                                        return value + 1;
                                      })
                                      .then([&](int value) {
                                        note_write(&data, "what goes along a chain");
                                        return 10 * value;
                                      });
        result = end.get();
        note_write(&data, "what goes along a chain");
      });
      n.go([&] {
        note_write(&data, "what goes along a chain");
        made.set_value(1);
      });
    });
    explore_expect(result == 20, "a chain lost its value, or a link of it ran twice");
  });
}

TEST_CASE("an error passes what is not for it, and is dealt with once") {
  const nothing_left_over guard;
  hold([] {
    concur::promise<int> made;
    concur::future<int> wanted = made.get_future();
    int called = 0;
    int dealt_with = 0;
    int result = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        result = wanted
                     .then([&](int value) {
                       ++called;
                       return value;
                     })
                     .or_else([&](std::exception_ptr error) {
                       try {
                         std::rethrow_exception(error);
                       } catch (const oops& known) {
                         dealt_with += known.number;
                       }
                       return 6;
                     })
                     .get();
      });
      n.go([&] { made.set_exception(std::make_exception_ptr(oops{5})); });
    });
    explore_expect(called == 0 && dealt_with == 5 && result == 6, "an error went another way");
  });
}

TEST_CASE("a continuation that returns a future is waited for to its end") {
  const nothing_left_over guard;
  hold([] {
    concur::promise<int> made;
    concur::promise<int> inner;
    concur::future<int> end;
    concur::with_nursery([&](concur::nursery& n) {
      end = made.get_future().then([&](int value) {
        return inner.get_future().then([value](int more) { return value + more; });
      });
      n.go([&] { made.set_value(1); });
      n.go([&] { inner.set_value(2); });
      n.go([&] { explore_expect(end.get() == 3, "a future within a future lost its value"); });
    });
  });
}

TEST_CASE("when_all has every result, and when_any the first, whatever the order") {
  const nothing_left_over guard;
  hold([] {
    std::array<concur::promise<int>, 2> made;
    int data[2] = {0, 0};
    bool has_all = false;
    concur::with_nursery([&](concur::nursery& n) {
      concur::future<int> first = made[0].get_future();
      concur::future<int> second = made[1].get_future();
      for (int i = 0; i < 2; ++i) {
        n.go([&, i] {
          note_write(&data[i], "what was done before a result");
          made[static_cast<std::size_t>(i)].set_value(i);
        });
      }
      auto any = concur::when_any(std::move(first), std::move(second)).get();
      note_read(&data[any.index], "what was done before the first result");
      explore_expect(any.index == 0 ? std::get<0>(any.futures).ready() : std::get<1>(any.futures).ready(),
                     "when_any named one that has no result");
      auto all = concur::when_all(std::move(std::get<0>(any.futures)), std::move(std::get<1>(any.futures))).get();
      note_read(&data[0], "what was done before all results");
      note_read(&data[1], "what was done before all results");
      has_all = std::get<0>(all).get() == 0 && std::get<1>(all).get() == 1;
    });
    explore_expect(has_all, "a result is missing");
  });
}

TEST_CASE("a future that lost in when_any is asked again, and the results of both are dropped or had") {
  const nothing_left_over guard;
  hold([] {
    concur::promise<int> slow;
    concur::promise<int> quick;
    concur::promise<int> quicker;
    int sum = 0;
    concur::with_nursery([&](concur::nursery& n) {
      concur::shared_future<int> loser = slow.get_future().share();
      n.go([&] { quick.set_value(1); });
      n.go([&] { quicker.set_value(2); });
      n.go([&] { slow.set_value(4); });
      auto first = concur::when_any(loser, quick.get_future().share());
      auto second = concur::when_any(loser, quicker.get_future().share());
      sum += static_cast<int>(first.get().index);
      second = decltype(second)();
      explore_expect(loser.get() == 4, "a future that lost has another result");
    });
    explore_expect(sum == 0 || sum == 1, "when_any named one that is not there");
  });
}

TEST_CASE("a shared result is seen by all, and goes with the last that holds it") {
  const nothing_left_over guard;
  hold([] {
    struct counted {
      explicit counted(int& alive_in) : alive(&alive_in) { ++*alive; }
      counted(counted&& other) noexcept : alive(std::exchange(other.alive, nullptr)) {}
      ~counted() {
        if (alive != nullptr) --*alive;
      }
      int* alive;
    };
    int alive = 0;
    int seen = 0;
    int data = 0;
    {
      concur::promise<counted> made;
      std::array<concur::shared_future<counted>, 3> copies;
      copies[0] = made.get_future().share();
      copies[1] = copies[2] = copies[0];
      concur::with_nursery([&](concur::nursery& n) {
        for (concur::shared_future<counted>& mine : copies) {
          n.go([&] {
            const bool is_alive = *mine.get().alive == 1;
            note_read(&data, "what was done before a shared result");
            mine = concur::shared_future<counted>();
            seen += is_alive ? 1 : 0;
          });
        }
        note_write(&data, "what was done before a shared result");
        made.set_value(counted(alive));
      });
    }
    explore_expect(seen == 3, "a shared result was gone before its last holder");
    explore_expect(alive == 0, "a shared result outlives its last holder, or was destroyed twice");
  });
}

TEST_CASE("a wait that is given up as the result comes loses nothing, and leaves nothing behind") {
  const nothing_left_over guard;
  hold([] {
    concur::promise<int> made;
    std::optional<concur::future<int>> wanted(made.get_future());
    int result = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        const bool is_there = wanted->wait_for(1ms);
        explore_expect(!is_there || wanted->ready(), "a wait has ended, and there is no result");
        const bool returned = concur::move_on_after(1ms, [&] { result = wanted->get(); });
        explore_expect(returned == (result == 7), "a get was cut short and took the result");
        if (!returned) explore_expect(wanted->valid(), "a get was cut short, and the future is empty");
        wanted.reset();  // the memory may go at once
      });
      n.go([&] {
        concur::this_fiber::sleep_for(1ms);
        made.set_value(7);
      });
    });
  });
}

TEST_CASE("a select hears of a result, or the result waits") {
  const nothing_left_over guard;
  hold([] {
    concur::promise<int> made;
    concur::future<int> wanted = made.get_future();
    concur::channel<int> ch(1);
    int rounds = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { made.set_value(1); });
      n.go([&] { ch.send(2); });
      bool has_result = false;
      bool has_value = false;
      while (!has_result || !has_value) {
        ++rounds;
        auto result = concur::ready(wanted, [&] { has_result = true; });
        auto value = concur::recv(ch, [&] { has_value = true; });
        if (has_result)
          concur::select(std::move(value));
        else if (has_value)
          concur::select(std::move(result));
        else
          concur::select(std::move(result), std::move(value));
      }
      explore_expect(wanted.ready() && wanted.get() == 1, "a case went without its result");
    });
    explore_expect(rounds == 2, "a select ran none of its cases, or two");
  });
}

TEST_CASE("a future outlives its runtime, and says so when the result will not come") {
  const nothing_left_over guard;
  hold(
      [] {
        concur::promise<int> made;
        concur::future<int> attached;
        concur::future<int> own;
        concur::future<int> late;
        int calls = 0;
        concur::explored_thread other;
        {
          concur::options one;
          one.workers = 1;
          concur::runtime rt(one);
          own = rt.go([] {
            concur::this_fiber::yield();
            return 5;
          });
          attached = rt.block_on([&] {
            return made.get_future().then([&](int value) {
              ++calls;
              return value;
            });
          });
          late = rt.go([]() -> int {
            concur::this_fiber::sleep_for(1h);
            return 1;
          });
          other = concur::explored_thread([&] { made.set_value(4); });
        }
        other.join();
        const bool was_broken = is_broken(attached);
        explore_expect(was_broken == (calls == 0), "a continuation ran and broke its promise, or neither");
        bool was_cancelled = false;
        try {
          explore_expect(own.get() == 5, "a result went with its runtime");
          late.get();
        } catch (const concur::cancelled&) {
          was_cancelled = true;
        }
        explore_expect(was_cancelled, "a fiber was not cancelled at the end of its runtime");
      },
      with_count(0));
}

TEST_CASE("what runs behind the end of a fiber runs on nobody's behalf") {
  const nothing_left_over guard;
  hold([] {
    std::array<int, 2> told{};
    concur::event all_told;
    const concur::fiber_id self = concur::this_fiber::get_id();
    const auto tell = [&](std::size_t i) {
      ++told[i];
      const concur::fiber_id here = concur::this_fiber::get_id();  // ours, if the result was there already
      explore_expect(!here || here == self, "a callback runs as a fiber that has ended");
      if (told[0] + told[1] == 2) all_told.set();
    };
    concur::future<int> one = concur::go([] {
      concur::this_fiber::sleep_for(1ms);
      return 1;
    });
    concur::future<int> two = concur::go([] {
      concur::this_fiber::sleep_for(1ms);
      return 2;
    });
    one.on_ready([&] { tell(0); });
    two.on_ready([&] { tell(1); });
    all_told.wait();
    explore_expect(one.get() == 1 && two.get() == 2, "a result is another's");
    explore_expect(told[0] == 1 && told[1] == 1, "a callback was called twice");
  });
}

TEST_CASE("the values that a fiber has to itself are its own, and are gone when its result is there") {
  const nothing_left_over guard;
  hold([] {
    struct counted {
      int value = 0;
      int* gone = nullptr;
      ~counted() {
        if (gone == nullptr) return;
        concur::this_fiber::sleep_for(1ms);  // destructors of values may wait, and are not cancelled
        ++*gone;
      }
    };
    int gone = 0;
    concur::fiber_local<int> number;
    concur::fiber_local<counted> mine;
    std::optional<concur::fiber_local<int>> former;
    former.emplace();
    concur::latch is_former_used(2);
    concur::event is_former_gone;
    concur::nursery n;
    std::array<concur::future<int>, 2> ends;
    for (int i = 0; i < 2; ++i) {
      ends[static_cast<std::size_t>(i)] = n.async([&, i] {
        *number = i;
        mine->gone = &gone;
        concur::this_fiber::yield();
        {
          concur::fiber_local<int> brief;
          *brief += i + 10;
          concur::this_fiber::yield();
          if (*brief != i + 10) return -1;
        }
        **former = i + 20;
        is_former_used.count_down();
        concur::shield([&] { is_former_gone.wait(); });
        concur::fiber_local<int> next;
        if (*next != 0) return -2;
        concur::this_fiber::yield();
        return *number == i ? i : -1;
      });
    }
    n.go([&] {
      concur::this_fiber::yield();
      n.cancel();
    });
    concur::shield([&] { is_former_used.wait(); });
    former.reset();
    is_former_gone.set();
    concur::shield([&] { explore_expect(ends[0].get() == 0 && ends[1].get() == 1, "a fiber found another's value"); });
    explore_expect(gone == 2, "a value outlives its fiber");
    n.join();
  });
}
