// tests/support/results.hpp - what tests of results send about: an error with a number, and a value that is counted.
#ifndef CONCUR_TESTS_SUPPORT_RESULTS_HPP
#define CONCUR_TESTS_SUPPORT_RESULTS_HPP

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <utility>

namespace concur_test {

constexpr auto much_too_long = std::chrono::seconds(20);

struct special_error : std::runtime_error {
  explicit special_error(int number_in) : std::runtime_error("special"), number(number_in) {}
  int number;
};

// Something that counts how many of it live.
struct counted {
  static inline std::atomic<int> live{0};
  int number;
  explicit counted(int n) : number(n) { ++live; }
  counted(const counted& other) : number(other.number) { ++live; }
  counted(counted&& other) noexcept : number(std::exchange(other.number, -1)) { ++live; }
  counted& operator=(const counted&) = default;
  ~counted() { --live; }
};

}  // namespace concur_test

using concur_test::counted;
using concur_test::much_too_long;
using concur_test::special_error;

#endif
