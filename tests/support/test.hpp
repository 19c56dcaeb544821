// tests/support/test.hpp - what every test program includes: doctest, and a guard that nothing is left over.
//
// Each test case begins with `const nothing_left_over guard;`. At its end the guard asks, with doctest's CHECK, that
// the process has as many descriptors and threads as at the beginning, and that no runtime left a fiber, timer,
// registration or stack. A thread that was joined is gone for its joiner a moment before it is gone from /proc, so
// the guard looks again until the count fits or five seconds have passed.
#ifndef CONCUR_TESTS_SUPPORT_TEST_HPP
#define CONCUR_TESTS_SUPPORT_TEST_HPP

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <ostream>  // doctest prints what it compares
#include <string>
#include <thread>

#if defined(__linux__)
#  include <dirent.h>
#endif

#include "concur.hpp"

// How much longer than usual the long tests run.
#if !defined(CONCUR_TEST_SCALE)
#  define CONCUR_TEST_SCALE 1
#endif

namespace concur_test {

#if defined(CONCUR_MUTANT_CHOSEN)
// Plants the bug before the first test runs.
inline const bool is_mutant_chosen = [] {
  if (const char* number = std::getenv("CONCUR_CHOSEN_MUTANT")) concur_chosen_mutant = std::atoi(number);
  return concur_chosen_mutant != 0;
}();
#endif

// Entries of a folder in /proc/self; 0 where there is none.
inline std::size_t count_entries([[maybe_unused]] const char* path) {
  std::size_t count = 0;
#if defined(__linux__)
  if (DIR* folder = opendir(path)) {
    while (readdir(folder) != nullptr) ++count;
    closedir(folder);
  }
#endif
  return count;
}

inline std::size_t open_descriptors() { return count_entries("/proc/self/fd"); }
inline std::size_t live_threads() { return count_entries("/proc/self/task"); }

// ThreadSanitizer starts a thread of its own with the first of ours. The one that made it do so must be gone before the
// threads are counted: two are left, the main one and the tool's.
inline void start_sanitizer_threads() {
#if CONCUR_TSAN
  static const bool is_done = [] {
    const std::size_t before = live_threads();
    std::thread([] {}).join();
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (live_threads() > before + 1 && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
    return true;
  }();
  static_cast<void>(is_done);
#endif
}

class nothing_left_over {
 public:
  nothing_left_over() {
    start_sanitizer_threads();
    descriptors_ = open_descriptors();
    threads_ = live_threads();
  }
  nothing_left_over(const nothing_left_over&) = delete;
  nothing_left_over& operator=(const nothing_left_over&) = delete;

  ~nothing_left_over() {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (live_threads() != threads_ && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
    CHECK(live_threads() == threads_);
    CHECK(open_descriptors() == descriptors_);
    const concur::leftovers left = concur::process_leftovers();
    CHECK(left.runtimes == 0);
    CHECK(left.fibers == 0);
    CHECK(left.timers == 0);
    CHECK(left.descriptors == 0);
    CHECK(left.stacks == 0);
  }

 private:
  std::size_t descriptors_ = 0;
  std::size_t threads_ = 0;
};

// The text of the Error that `deed` throws; "nothing was thrown" when it throws nothing. Another type passes, and fails
// the test.
template <class Error, class Deed>
std::string text_of(Deed deed) {
  try {
    deed();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

inline concur::options with_workers(unsigned count) {
  concur::options wanted;
  wanted.workers = count;
  return wanted;
}

}  // namespace concur_test

using concur_test::nothing_left_over;
using concur_test::text_of;
using concur_test::with_workers;

#endif
