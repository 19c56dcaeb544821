// tests/support/nursery.hpp - what tests of nurseries and scopes share: a look at a child from outside, a record of what
// came in which order, and a body that is run with 1, 2 and 4 workers.
//
// A child of a nursery is no companion: it is started by what is tested. So it shows itself: it calls enter() of a
// `sight`, and whoever needs it asleep says wait_until_parked(), which returns when it is.
#ifndef CONCUR_TESTS_SUPPORT_NURSERY_HPP
#define CONCUR_TESTS_SUPPORT_NURSERY_HPP

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "support/results.hpp"
#include "support/tally.hpp"
#include "support/test.hpp"

namespace concur_test {

// Waits until holds() says so, without a checkpoint; false: it did not in 20 s.
template <class Condition>
bool wait_until(Condition holds) {
  const auto limit = std::chrono::steady_clock::now() + much_too_long;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > limit) return false;
    concur::this_fiber::yield();
  }
  return true;
}

// As long as a sleep must be that only a cancellation ends. It returns if none comes, so that a test fails instead of
// standing still.
inline void sleep_long() { concur::this_fiber::sleep_for(much_too_long); }

// One fiber, seen by others. Until it ends.
class sight {
 public:
  // By the fiber itself.
  void enter() { block_.store(concur::detail::this_worker()->current); }
  // Enters, and parks until cancelled.
  void park() {
    enter();
    sleep_long();
  }
  bool is_parked() const {
    const concur::detail::fiber* f = block_.load();
    return f != nullptr && f->state.load() == concur::detail::fiber_state::parked;
  }
  bool wait_until_parked() const {
    return wait_until([this] { return is_parked(); });
  }

 private:
  std::atomic<concur::detail::fiber*> block_{nullptr};
};

// Events of several fibers, of which each is caused by the one before: reach(n) is true if n is the next number.
class steps {
 public:
  bool reach(int number) noexcept {
    int before = number - 1;
    return at_.compare_exchange_strong(before, number);
  }

 private:
  std::atomic<int> at_{0};
};

// Calls the function when it goes, by an exception too.
template <class F>
class finally {
 public:
  explicit finally(F function) : function_(std::move(function)) {}
  finally(const finally&) = delete;
  finally& operator=(const finally&) = delete;
  ~finally() { function_(); }

 private:
  F function_;
};

// What happened, in the order in which it did.
class journal {
 public:
  void add(std::string what) {
    const std::lock_guard<std::mutex> hold(lock_);
    entries_.push_back(std::move(what));
  }
  // The entries, with spaces between them.
  std::string text() const {
    const std::lock_guard<std::mutex> hold(lock_);
    std::string all;
    for (const std::string& one : entries_) all += (all.empty() ? "" : " ") + one;
    return all;
  }
  // The same for entries whose order is open.
  std::string sorted_text() const {
    journal copy;
    {
      const std::lock_guard<std::mutex> hold(lock_);
      copy.entries_ = entries_;
    }
    std::sort(copy.entries_.begin(), copy.entries_.end());
    return copy.text();
  }

 private:
  mutable std::mutex lock_;
  std::vector<std::string> entries_;
};

// Whether a checkpoint throws `cancelled` here.
inline bool is_cancelled_here() {
  try {
    concur::this_fiber::checkpoint();
  } catch (const concur::cancelled&) {
    return true;
  }
  return false;
}

// Returns when the moment lies behind, without giving anything else a turn.
inline void pass(std::chrono::steady_clock::time_point moment) {
  while (std::chrono::steady_clock::now() <= moment) {
  }
}

// The numbers of special_errors; -1 for another exception.
inline std::vector<int> numbers_of(const std::vector<std::exception_ptr>& errors) {
  std::vector<int> numbers;
  for (const std::exception_ptr& one : errors) {
    try {
      std::rethrow_exception(one);
    } catch (const special_error& error) {
      numbers.push_back(error.number);
    } catch (...) {
      numbers.push_back(-1);
    }
  }
  return numbers;
}

// The number of the special_error that `deed` throws; 0 when it throws nothing.
template <class Deed>
int number_from(Deed deed) {
  try {
    deed();
  } catch (const special_error& error) {
    return error.number;
  }
  return 0;
}

// Whether `deed` throws an Error. Another type passes.
template <class Error, class Deed>
bool is_thrown(Deed deed) {
  try {
    deed();
  } catch (const Error&) {
    return true;
  }
  return false;
}

// Runs the body as root fiber with 1, 2 and 4 workers.
inline void with_each_count(const std::function<void(tally&)>& body) {
  for (const unsigned workers : {1U, 2U, 4U}) {
    CAPTURE(workers);
    tally held;
    concur::run(with_workers(workers), [&] { body(held); });
    CHECK(held.report() == "");
  }
}

}  // namespace concur_test

using concur_test::finally;
using concur_test::is_cancelled_here;
using concur_test::is_thrown;
using concur_test::journal;
using concur_test::number_from;
using concur_test::numbers_of;
using concur_test::pass;
using concur_test::sight;
using concur_test::sleep_long;
using concur_test::steps;
using concur_test::wait_until;
using concur_test::with_each_count;

#endif
