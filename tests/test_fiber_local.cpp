// test_fiber_local.cpp - a value for each fiber, and for each plain thread: when it is made, when it goes, in which order.
#include "support/companion.hpp"
#include "support/tally.hpp"

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

using concur::fiber_local;
using namespace std::chrono_literals;

namespace {

fiber_local<int> global_number(7);

// Counts itself, and says when it goes.
struct witness {
  explicit witness(std::vector<int>* log_in = nullptr, int number_in = 0) : log(log_in), number(number_in) { ++alive; }
  witness(const witness&) = delete;
  witness& operator=(const witness&) = delete;
  ~witness() {
    if (log != nullptr) log->push_back(number);
    --alive;
  }
  std::vector<int>* log;
  int number;
  static inline std::atomic<int> alive{0};
};

// A chain of destructors, each of which uses the variable again.
struct again;
std::unique_ptr<fiber_local<again>> again_local;
struct again {
  int left = 0;
  ~again() {
    if (left > 0) again_local->get().left = left - 1;
    ++destroyed;
  }
  static inline std::atomic<int> destroyed{0};
};

void run_on(kind which, const std::function<void()>& body) {
  companion one(which, body);
  one.join();
}

}  // namespace

TEST_CASE("each fiber and each thread has its own, made at its first use") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    fiber_local<std::string> text;
    fiber_local<int> zero;
    fiber_local<int> three(3);
    std::atomic<int> calls{0};
    fiber_local<std::unique_ptr<int>> made([&calls] { return std::make_unique<int>(++calls); });
    CHECK(zero.get() == 0);
    CHECK_FALSE(text.has_value());
    *text = "mine";
    CHECK(text.has_value());
    *three = 30;
    CHECK(calls == 0);
    CHECK(**made == 1);
    CHECK(**made == 1);
    for (const kind other : {which, kind::thread}) {
      run_on(other, [&] {
        CONCUR_EXPECT(held, !text.has_value());
        CONCUR_EXPECT(held, text->empty());
        *text = "other";
        CONCUR_EXPECT(held, *three == 3);
        CONCUR_EXPECT(held, **made > 1);
        *three = 31;
        concur::this_fiber::yield();
        CONCUR_EXPECT(held, *three == 31);
        CONCUR_EXPECT(held, *text == "other");
      });
    }
    CHECK(*text == "mine");
    CHECK(*three == 30);
    CHECK(**made == 1);
    CHECK(calls == 3);
    CHECK(held.report() == "");
  });
}

TEST_CASE("a value goes with its fiber from thread to thread") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    tally held;
    fiber_local<int> number;
    concur::run(with_workers(workers), [&] {
      std::vector<concur::future<void>> all;
      for (int i = 0; i < 50; ++i) {
        all.push_back(concur::go([&, i] {
          *number = i;
          int* const where = &number.get();
          for (int k = 0; k < 50; ++k) {
            concur::this_fiber::yield();
            CONCUR_EXPECT(held, *number == i);
            CONCUR_EXPECT(held, &number.get() == where);
          }
        }));
      }
      for (auto& one : all) one.get();
    });
    CHECK(held.report() == "");
  }
}

TEST_CASE("a value is destroyed before its fiber's result is seen, however the fiber ends") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    fiber_local<witness> local;
    concur::run(with_workers(workers), [&] {
      concur::go([&] { local.get(); }).get();
      CHECK(witness::alive == 0);
      auto failing = concur::go([&] {
        local.get();
        throw std::runtime_error("out");
      });
      CHECK_THROWS_AS(failing.get(), std::runtime_error);
      CHECK(witness::alive == 0);
      local.get();
      CHECK(witness::alive == 1);
    });
    CHECK(witness::alive == 0);  // the root fiber's
    {
      concur::runtime rt(with_workers(workers));
      concur::latch begun(3);
      for (int i = 0; i < 3; ++i) {
        rt.go([&] {
          local.get();
          begun.count_down();
          concur::event().wait();
        });
      }
      begun.wait();
      CHECK(witness::alive == 3);
    }
    CHECK(witness::alive == 0);
    std::thread([&] { local.get(); }).join();
    CHECK(witness::alive == 0);
  }
}

TEST_CASE("the youngest value goes first, and the older ones can still be used then") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    std::vector<int> order;
    fiber_local<witness> a([&] { return witness(&order, 1); });
    fiber_local<witness> b([&] { return witness(&order, 2); });
    fiber_local<witness> c([&] { return witness(&order, 3); });
    run_on(which, [&] {
      b.get();
      c.get();
      a.get();
      b.get();
    });
    CHECK(order == std::vector<int>{1, 3, 2});
    struct uses_older {
      fiber_local<witness>* older = nullptr;
      int* seen = nullptr;
      ~uses_older() {
        if (older != nullptr) *seen = older->get().number;
      }
    };
    int seen = 0;
    fiber_local<uses_older> user;
    run_on(which, [&] {
      a.get().number = 77;
      user->older = &a;
      user->seen = &seen;
    });
    CHECK(seen == 77);
    CHECK(order == std::vector<int>{1, 3, 2, 77});
  });
}

TEST_CASE("a destructor may use its variable again, four deep") {
  const nothing_left_over guard;
  again_local = std::make_unique<fiber_local<again>>();
  everywhere([](kind which) {
    again::destroyed = 0;
    run_on(which, [] { again_local->get().left = 4; });
    CHECK(again::destroyed == 5);
  });
  again_local.reset();
}

TEST_CASE("destructors that never stop making new values are reported") {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    concur::set_on_fatal([](const char*) { _exit(42); });
    again_local = std::make_unique<fiber_local<again>>();
    std::thread([] { again_local->get().left = 1000; }).join();
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 42);
}

TEST_CASE("destructors may park, and are not cancelled") {
  const nothing_left_over guard;
  struct parks {
    concur::channel<int> out;
    bool is_used = false;
    ~parks() {
      if (!is_used) return;
      concur::this_fiber::sleep_for(1ms);
      out.send(1);
    }
  };
  for (const unsigned workers : {1U, 2U, 4U}) {
    fiber_local<parks> local;
    concur::channel<int> out;
    concur::run(with_workers(workers), [&] {
      auto one = concur::go([&] {
        local->out = out;
        local->is_used = true;
      });
      CHECK(out.recv() == 1);
      one.get();
    });
    concur::channel<int> buffered(1);
    {
      concur::runtime rt(with_workers(workers));
      concur::latch begun(1);
      rt.go([&] {
        local->out = buffered;
        local->is_used = true;
        begun.count_down();
        concur::event().wait();  // cancelled here
      });
      begun.wait();
    }
    CHECK(buffered.try_recv() == 1);
    // Also where a value goes because another variable, which is used first in a cancelled scope, has its place.
    concur::run(with_workers(workers), [&] {
      auto former = std::make_unique<fiber_local<parks>>();
      concur::event is_gone;
      concur::event is_used;
      auto one = concur::go([&] {
        (*former)->out = buffered;
        (*former)->is_used = true;
        is_used.set();
        is_gone.wait();
        concur::cancel_scope scope;
        scope.cancel();
        fiber_local<int> next;
        *next = 1;
      });
      is_used.wait();
      former.reset();
      is_gone.set();
      one.get();
      CHECK(buffered.try_recv() == 1);
    });
  }
}

TEST_CASE("a variable may go before the fibers that used it; the next one is not taken for it") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    CHECK(witness::alive == 0);
    std::optional<fiber_local<witness>> first;
    first.emplace();
    concur::event may_look;
    std::optional<fiber_local<std::string>> second;
    concur::event may_end;
    std::atomic<bool> has_looked{false};
    companion user(which, [&] {
      first->get().number = 5;
      may_look.wait();
      CONCUR_EXPECT(held, !second->has_value());
      CONCUR_EXPECT(held, witness::alive == 1);
      CONCUR_EXPECT(held, second->get().empty());
      CONCUR_EXPECT(held, witness::alive == 0);  // its place was wanted
      has_looked = true;
      may_end.wait();
    });
    REQUIRE(user.wait_until_parked());
    first->get();
    CHECK(witness::alive == 2);
    first.reset();
    CHECK(witness::alive == 1);  // ours went at once
    second.emplace();            // in the same place
    **second = "ours";
    may_look.set();
    while (!has_looked) concur::this_fiber::yield();
    may_end.set();
    user.join();
    CHECK(held.report() == "");
    {
      std::optional<fiber_local<witness>> gone;
      gone.emplace();
      companion other(which, [&] {
        gone->get();
        may_end.wait();
      });
      other.join();
      CHECK(witness::alive == 0);
    }
  });
}

TEST_CASE("many variables, made and gone in any order") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    for (int round = 0; round < 3; ++round) {
      std::vector<std::unique_ptr<fiber_local<int>>> all;
      for (int i = 0; i < 100; ++i) all.push_back(std::make_unique<fiber_local<int>>(i));
      run_on(which, [&] {
        for (std::size_t i = 100; i-- > 0;) {
          CONCUR_EXPECT(held, **all[i] == static_cast<int>(i));
          **all[i] += 1000;
        }
        for (std::size_t i = 0; i < 100; ++i) CONCUR_EXPECT(held, **all[i] == static_cast<int>(i) + 1000);
      });
      for (std::size_t i = 0; i < 100; i += 2) all[i].reset();
      for (std::size_t i = 1; i < 100; i += 2) CHECK(**all[i] == static_cast<int>(i));
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("what making a value throws passes through, and the next use tries again") {
  const nothing_left_over guard;
  everywhere([](kind) {
    int calls = 0;
    fiber_local<int> local([&]() -> int {
      if (++calls == 1) throw std::runtime_error("not yet");
      concur::this_fiber::yield();
      return calls;
    });
    CHECK_THROWS_AS(local.get(), std::runtime_error);
    CHECK_FALSE(local.has_value());
    CHECK(*local == 2);
    CHECK(*local == 2);
  });
}

TEST_CASE("a variable of static life") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    run_on(which, [&] {
      CONCUR_EXPECT(held, *global_number == 7);
      *global_number = 8;
      CONCUR_EXPECT(held, *global_number == 8);
    });
    CHECK(held.report() == "");
  });
}
