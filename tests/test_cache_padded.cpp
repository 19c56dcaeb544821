// test_cache_padded.cpp - cache_padded<T>: a T, alone on its lines.
#include "support/test.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

using concur::cache_padded;

namespace {

constexpr std::size_t line = concur::detail::cache_line_bytes;

struct alignas(4 * line) wide {
  char bytes[5 * line];
};

// Neither copied nor moved.
struct rooted {
  rooted(int a_in, std::unique_ptr<int> b_in) : a(a_in), b(std::move(b_in)) {}
  rooted(const rooted&) = delete;
  rooted& operator=(const rooted&) = delete;
  int a;
  std::unique_ptr<int> b;
};

static_assert(sizeof(cache_padded<char>) == line && alignof(cache_padded<char>) == line, "one line");
static_assert(sizeof(cache_padded<wide>) == 8 * line && alignof(cache_padded<wide>) == 4 * line, "T wants more");
static_assert(std::is_trivially_copyable<cache_padded<long>>::value, "copies as a long does");
static_assert(!std::is_copy_constructible<cache_padded<std::atomic<int>>>::value, "copies as T does, or not");
static_assert(std::is_nothrow_move_constructible<cache_padded<std::string>>::value, "moves as T does");
static_assert(std::is_same<decltype(cache_padded(1.5)), cache_padded<double>>::value, "T is deduced");
static_assert(std::is_same<decltype(cache_padded(cache_padded(1))), cache_padded<int>>::value, "and a copy is a copy");
static_assert(!std::is_convertible<int, cache_padded<int>>::value, "made on purpose only");

constexpr int of_constants() {
  cache_padded<int> number(40);
  *number += 2;
  return *number;
}
static_assert(of_constants() == 42, "usable in constants");

std::uintptr_t number_of_line(const void* address) { return reinterpret_cast<std::uintptr_t>(address) / line; }

}  // namespace

TEST_CASE("made from nothing it is zero, else what T is made from") {
  const nothing_left_over guard;
  const cache_padded<std::atomic<int>> zero;
  CHECK(zero->load() == 0);
  cache_padded<std::atomic<long>> count{7};
  count->fetch_add(1);
  CHECK(*count == 8);
  const cache_padded<std::string> text(3, 'x');
  CHECK(*text == "xxx");
  const cache_padded<rooted> there(4, std::make_unique<int>(5));
  CHECK(there->a + *there->b == 9);
}

TEST_CASE("it copies and moves as its value does") {
  const nothing_left_over guard;
  cache_padded<std::string> first(std::string("a text that is too long to lie in the string itself"));
  cache_padded<std::string> second = first;
  CHECK(*second == *first);
  const cache_padded<std::string> third = std::move(first);
  CHECK(*third == *second);
  second = cache_padded<std::string>("b");
  CHECK(*second == "b");
}

TEST_CASE("neighbours are on different lines: in an array, a vector, a struct, on the heap") {
  const nothing_left_over guard;
  const cache_padded<char> array[3];
  const std::vector<cache_padded<std::atomic<int>>> vector(3);
  const struct {
    cache_padded<int> first;
    char between = 0;
    cache_padded<int> second;
    char behind = 0;
  } both;
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(number_of_line(&*array[i]) != number_of_line(&*array[i + 1]));
    CHECK(number_of_line(&*vector[i]) != number_of_line(&*vector[i + 1]));
  }
  CHECK(number_of_line(&both.between) != number_of_line(&*both.first));
  CHECK(number_of_line(&both.between) != number_of_line(&*both.second));
  CHECK(number_of_line(&both.behind) != number_of_line(&*both.second));
  const auto alone = std::make_unique<cache_padded<char>>('x');
  CHECK(reinterpret_cast<std::uintptr_t>(alone.get()) % line == 0);
}
