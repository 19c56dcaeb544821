// tests/test_exception_state.cpp - exceptions travel with the context that handles them.
//
// Built with -DCONCUR_MUTANT=1 (nothing is moved) the tests of parked handlers fail, mostly by terminating.
#include "concur.hpp"
#include "support/bare_context.hpp"

#include <doctest/doctest.h>

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

namespace detail = concur::detail;

struct number_error : std::exception {
  explicit number_error(int n) : number(n) {}
  const char* what() const noexcept override { return "number_error"; }
  int number;
};

void* const go_on = reinterpret_cast<void*>(std::uintptr_t{1});

// What one context saw; read after it has ended.
struct record {
  int id = 0;
  int right = 0;
  int wrong = 0;
  void expect(bool condition) { condition ? ++right : ++wrong; }
};

// Parks while the stack is being unwound.
struct parks_in_destructor {
  bare_context& self;
  record& seen;
  ~parks_in_destructor() {
    seen.expect(std::uncaught_exceptions() == 1);
    self.pause(go_on);
    seen.expect(std::uncaught_exceptions() == 1);
  }
};

int number_of_current() {
  try {
    throw;
  } catch (const number_error& e) {
    return e.number;
  }
}

void handle_nested(bare_context& self, record& seen, int depth) {
  const int number = seen.id * 100 + depth;
  try {
    throw number_error(number);
  } catch (const number_error& e) {
    self.pause(go_on);
    seen.expect(e.number == number);
    seen.expect(std::uncaught_exceptions() == 0);
    seen.expect(number_of_current() == number);
    if (depth < 3) handle_nested(self, seen, depth + 1);
    self.pause(go_on);
    seen.expect(number_of_current() == number);
    try {
      throw;
    } catch (const number_error& again) {
      self.pause(go_on);
      seen.expect(again.number == number);
    }
    seen.expect(number_of_current() == number);
  }
}

// Parks inside nested handlers, inside destructors while unwinding, and outside of both.
void handle_exceptions(bare_context& self, void*) {
  record& seen = *static_cast<record*>(self.user);
  for (int round = 0; round < 4; ++round) {
    seen.expect(std::current_exception() == nullptr);
    handle_nested(self, seen, 0);
    seen.expect(std::current_exception() == nullptr);
    seen.expect(std::uncaught_exceptions() == 0);
    try {
      parks_in_destructor parks{self, seen};
      throw number_error(seen.id);
    } catch (const number_error& e) {
      seen.expect(std::uncaught_exceptions() == 0);
      seen.expect(e.number == seen.id);
    }
    self.pause(go_on);
  }
}

struct crowd {
  std::vector<std::unique_ptr<record>> records;
  std::vector<std::unique_ptr<bare_context>> contexts;

  explicit crowd(int size) {
    for (int i = 0; i < size; ++i) {
      records.push_back(std::make_unique<record>());
      records.back()->id = i + 1;
      contexts.push_back(std::make_unique<bare_context>(&handle_exceptions, records.back().get()));
    }
  }

  // One step of each context that has not ended. The stride has no divisor in common with their number; with another
  // one each time, handlers are left in another order than entered.
  bool step(std::size_t stride) {
    bool is_alive = false;
    for (std::size_t i = 0; i < contexts.size(); ++i) {
      bare_context& context = *contexts[i * stride % contexts.size()];
      if (context.is_done()) continue;
      context.resume(go_on);
      is_alive = true;
    }
    return is_alive;
  }

  void expect_all_right() const {
    for (const auto& seen : records) {
      CHECK(seen->wrong == 0);
      CHECK(seen->right == 4 * (1 + 4 * 6 + 2 + 4));  // rounds * (before, four handlers of six, after, unwinding)
    }
  }
};

// A token that goes round among threads: whoever has it may touch the contexts.
class turns {
 public:
  explicit turns(int threads) : threads_(threads) {}

  // False when it is over.
  bool take(int me) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return is_over_ || turn_ == me; });
    return !is_over_;
  }

  void pass(bool goes_on) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      turn_ = (turn_ + 1) % threads_;
      is_over_ = !goes_on;
    }
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int threads_;
  int turn_ = 0;
  bool is_over_ = false;
};

TEST_CASE("the block of exception globals is the thread's: same again, another one elsewhere") {
  detail::exception_globals* here = detail::exception_globals::of_this_thread();
  REQUIRE(here != nullptr);
  CHECK(here == detail::exception_globals::of_this_thread());
  detail::exception_globals* elsewhere = here;
  std::thread([&] { elsewhere = detail::exception_globals::of_this_thread(); }).join();
  CHECK(elsewhere != here);
}

TEST_CASE("the state is as large as the block of the C++ runtime library") {
#if defined(__arm__)
  CHECK(sizeof(detail::exception_state) == 12);
#else
  CHECK(sizeof(detail::exception_state) == 2 * sizeof(void*));
#endif
}

#if !defined(CONCUR_MUTANT)
TEST_CASE("saving and loading puts away an exception that is being handled") {
  detail::exception_globals* globals = detail::exception_globals::of_this_thread();
  try {
    throw number_error(7);
  } catch (const number_error&) {
    detail::exception_state handled;
    handled.save_from(globals);
    CHECK(handled.caught != nullptr);
    CHECK(handled.uncaught == 0);
    detail::exception_state{}.load_into(globals);
    const bool is_away = std::current_exception() == nullptr;
    handled.load_into(globals);
    CHECK(is_away);
    CHECK(number_of_current() == 7);
  }
}
#endif

TEST_CASE("contexts on one thread handle exceptions, each its own") {
  crowd all(8);
  std::size_t stride = 1;
  while (all.step(stride)) stride = (stride + 2) % 8;
  CHECK(std::current_exception() == nullptr);
  CHECK(std::uncaught_exceptions() == 0);
  all.expect_all_right();
}

TEST_CASE("the one that resumes keeps its own exceptions") {
  crowd all(2);
  for (int i = 0; i < 200; ++i) {
    try {
      throw number_error(1000 + i);
    } catch (const number_error& e) {
      all.step(1);
      CHECK(number_of_current() == 1000 + i);
      CHECK(e.number == 1000 + i);
    }
  }
  while (all.step(1)) {
  }
  all.expect_all_right();
}

// Each step of each context runs on another thread than the one before.
void migrate(int contexts, int threads) {
  crowd all(contexts);
  turns order(threads);
  std::vector<std::thread> crew;
  for (int me = 0; me < threads; ++me) {
    crew.emplace_back([&, me] {
      while (order.take(me)) {
        const bool goes_on = all.step(5);
        if (std::current_exception() != nullptr || std::uncaught_exceptions() != 0) std::terminate();
        order.pass(goes_on);
      }
    });
  }
  for (std::thread& t : crew) t.join();
  all.expect_all_right();
}

TEST_CASE("contexts parked in handlers go on on another thread: two threads") { migrate(8, 2); }

TEST_CASE("contexts parked in handlers go on on another thread: 64 contexts, four threads") { migrate(64, 4); }

}  // namespace
