// tests/support/tally.hpp - expectations inside fibers, counted, and reported by the thread that runs the test.
//
// doctest's macros keep state per thread, and a fiber changes threads in the middle of one. So fibers count here, with
// atomics alone, and the test case says `CHECK(held.report() == "");` when they are done.
#ifndef CONCUR_TESTS_SUPPORT_TALLY_HPP
#define CONCUR_TESTS_SUPPORT_TALLY_HPP

#include <atomic>
#include <cstddef>
#include <string>

namespace concur_test {

class tally {
 public:
  void expect(bool holds, const char* text, int line) noexcept {
    if (holds) return;
    failures_.fetch_add(1);
    const char* nothing = nullptr;
    if (first_text_.compare_exchange_strong(nothing, text)) first_line_.store(line);
  }

  // Empty when everything held; else how often it did not, and where first.
  std::string report() const {
    if (failures_.load() == 0) return std::string();
    return std::to_string(failures_.load()) + " times not, first in line " + std::to_string(first_line_.load()) + ": " +
           first_text_.load();
  }

 private:
  std::atomic<std::size_t> failures_{0};
  std::atomic<const char*> first_text_{nullptr};
  std::atomic<int> first_line_{0};
};

}  // namespace concur_test

using concur_test::tally;

// Counts a failure in `held`, a tally, unless the condition holds.
#define CONCUR_EXPECT(held, ...) (held).expect(static_cast<bool>(__VA_ARGS__), #__VA_ARGS__, __LINE__)

// What -DCONCUR_TEST_SCALE=n makes larger.
#if !defined(CONCUR_TEST_SCALE)
#  define CONCUR_TEST_SCALE 1
#endif

#endif
