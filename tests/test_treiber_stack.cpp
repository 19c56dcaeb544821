// test_treiber_stack.cpp - order, bounds, lifetimes, exceptions, the wrap of the tag, and every value out exactly once.
#include "support/tally.hpp"
#include "support/test.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/crew.hpp"

namespace {

constexpr std::uintptr_t last_tag = ~std::uintptr_t{0};

// Counts what lives, and throws when it is told to.
struct counted {
  explicit counted(int value_in, bool throws = false) : value(value_in) {
    if (throws) throw std::runtime_error("constructor");
    ++alive;
  }
  counted(counted&& other) : value(other.value) {
    if (moves_left == 0) throw std::runtime_error("move");
    --moves_left;
    ++alive;
  }
  counted(const counted&) = delete;
  counted& operator=(const counted&) = delete;
  ~counted() { --alive; }

  int value;
  static int alive;
  static int moves_left;
};
int counted::alive = 0;
int counted::moves_left = -1;

struct immovable {
  explicit immovable(int value_in) : value(value_in) {}
  immovable(const immovable&) = delete;
  immovable& operator=(const immovable&) = delete;
  int value;
};

struct alignas(256) wide {
  int value;
};

template <class F>
void with_tags(F body) {
  for (const std::uintptr_t first_tag : {std::uintptr_t{0}, last_tag, last_tag - 1, last_tag / 2}) {
    CAPTURE(first_tag);
    body(first_tag);
  }
}

}  // namespace

TEST_CASE("last in, first out; full and empty are said, for each capacity") {
  const nothing_left_over guard;
  for (const std::size_t capacity : {1U, 2U, 3U, 4U, 7U, 8U, 255U, 256U, 257U, 65535U}) {
    CAPTURE(capacity);
    with_tags([&](std::uintptr_t first_tag) {
      concur::treiber_stack<std::size_t> stack(capacity, first_tag);
      CHECK(stack.capacity() == capacity);
      for (int round = 0; round < 3; ++round) {
        CHECK(stack.empty());
        CHECK_FALSE(stack.try_pop().has_value());
        for (std::size_t i = 0; i < capacity; ++i) REQUIRE(stack.try_push(i));
        CHECK_FALSE(stack.empty());
        CHECK_FALSE(stack.try_push(capacity));
        for (std::size_t i = capacity; i-- > 0;) REQUIRE(stack.try_pop() == i);
      }
    });
  }
}

TEST_CASE("a value that finds no room is untouched") {
  const nothing_left_over guard;
  concur::treiber_stack<std::unique_ptr<int>> stack(1);
  CHECK(stack.try_push(std::make_unique<int>(1)));
  auto second = std::make_unique<int>(2);
  CHECK_FALSE(stack.try_push(std::move(second)));
  REQUIRE(second != nullptr);
  CHECK(**stack.try_pop() == 1);
  CHECK(stack.try_push(std::move(second)));
  CHECK(second == nullptr);
  CHECK(**stack.try_pop() == 2);
}

TEST_CASE("what can be copied, what can only be moved, what cannot, and what wants its alignment") {
  const nothing_left_over guard;
  concur::treiber_stack<std::string> strings(2);
  const std::string kept = "a string that is too long to be kept inside of the object";
  CHECK(strings.try_push(kept));
  CHECK(strings.try_emplace(3U, 'x'));
  CHECK(strings.try_pop() == "xxx");
  CHECK(strings.try_pop() == kept);

  concur::treiber_stack<immovable> in_place(2);
  CHECK(in_place.try_emplace(1));
  CHECK(in_place.try_emplace(2));
  int sum = 0;
  CHECK(in_place.take_all([&](immovable&& one) { sum = sum * 10 + one.value; }) == 2);
  CHECK(sum == 21);

  concur::treiber_stack<wide> aligned(3);
  for (int i = 0; i < 3; ++i) CHECK(aligned.try_push(wide{i}));
  aligned.take_all([](wide&& one) { CHECK(reinterpret_cast<std::uintptr_t>(&one) % alignof(wide) == 0); });
}

TEST_CASE("each value that was made is destroyed once, also what is left on the stack") {
  const nothing_left_over guard;
  counted::alive = 0;
  {
    concur::treiber_stack<counted> stack(8);
    for (int i = 0; i < 8; ++i) REQUIRE(stack.try_emplace(i));
    CHECK(counted::alive == 8);
    CHECK(stack.try_pop()->value == 7);
    CHECK(counted::alive == 7);
    CHECK(stack.take_all([](counted&& one) { CHECK(one.value < 7); }) == 7);
    CHECK(counted::alive == 0);
    CHECK(stack.try_emplace(1));
    CHECK(stack.try_emplace(2));
  }
  CHECK(counted::alive == 0);
}

TEST_CASE("a constructor that throws leaves the stack and its room as they were") {
  const nothing_left_over guard;
  counted::alive = 0;
  concur::treiber_stack<counted> stack(2);
  for (int i = 0; i < 10; ++i) CHECK_THROWS_AS(stack.try_emplace(1, true), std::runtime_error);
  CHECK(stack.empty());
  CHECK(stack.try_emplace(1));
  CHECK(stack.try_emplace(2));
  CHECK_FALSE(stack.try_emplace(3));
  CHECK(counted::alive == 2);
}

TEST_CASE("a move that throws in a pop leaves the value on top") {
  const nothing_left_over guard;
  counted::alive = 0;
  concur::treiber_stack<counted> stack(2);
  CHECK(stack.try_emplace(1));
  CHECK(stack.try_emplace(2));
  counted::moves_left = 0;
  for (int i = 0; i < 10; ++i) CHECK_THROWS_AS(stack.try_pop(), std::runtime_error);
  counted::moves_left = -1;
  CHECK(counted::alive == 2);
  CHECK(stack.try_pop()->value == 2);
  CHECK(stack.try_pop()->value == 1);
  CHECK(counted::alive == 0);
}

TEST_CASE("take_all: the newest first; its room is back in the end; what an exception leaves keeps its order") {
  const nothing_left_over guard;
  counted::alive = 0;
  with_tags([&](std::uintptr_t first_tag) {
    concur::treiber_stack<counted> stack(6, first_tag);
    for (int i = 1; i <= 5; ++i) REQUIRE(stack.try_emplace(i));
    int seen = 0;
    // In the middle somebody pushes: that goes below what is put back.
    CHECK_THROWS_AS(stack.take_all([&](counted&& one) {
      seen = seen * 10 + one.value;
      if (one.value == 5) CHECK(stack.try_emplace(9));
      if (one.value == 4) throw std::runtime_error("use");
    }),
                    std::runtime_error);
    CHECK(seen == 54);
    CHECK(counted::alive == 4);
    seen = 0;
    CHECK(stack.take_all([&](counted&& one) { seen = seen * 10 + one.value; }) == 4);
    CHECK(seen == 3219);
    CHECK(counted::alive == 0);
    CHECK(stack.take_all([](counted&&) {}) == 0);
    for (int i = 0; i < 6; ++i) REQUIRE(stack.try_emplace(i));
    CHECK_FALSE(stack.try_emplace(7));
  });
  CHECK(counted::alive == 0);
}

TEST_CASE("a capacity that cannot be is refused with its value") {
  const nothing_left_over guard;
  const auto text = text_of<std::invalid_argument>([] { concur::treiber_stack<int> stack(0); });
  CHECK(text.find("capacity is 0") != std::string::npos);
  const std::size_t too_many = std::size_t{1} << (sizeof(void*) * 4);
  CHECK_THROWS_AS(concur::treiber_stack<int>{too_many}, std::invalid_argument);
  CHECK_THROWS_AS(concur::treiber_stack<int>{~std::size_t{0}}, std::invalid_argument);
}

// Each value is on one thread's hands or on the stack, never twice. With few nodes the same ones come back at once, which
// is what ABA needs, and what is in a value is plain memory, which is what a missing order needs.
TEST_CASE("several threads: no value comes out twice, none is lost") {
  const nothing_left_over guard;
  constexpr int threads = 4;
  constexpr int rounds = 400000;
  for (const std::size_t capacity : {2U, 3U, 64U}) {
    CAPTURE(capacity);
    with_tags([&](std::uintptr_t first_tag) {
      struct item {
        std::size_t id;
        std::uint64_t uses;
      };
      concur::treiber_stack<std::unique_ptr<item>> stack(capacity, first_tag);
      std::vector<std::atomic<int>> is_held(capacity);
      for (std::size_t i = 0; i < capacity; ++i) {
        REQUIRE(stack.try_push(std::make_unique<item>(item{i, 0})));
      }
      tally held;
      std::atomic<std::uint64_t> uses{0};
      std::vector<std::thread> team;
      for (int t = 0; t < threads; ++t) {
        team.emplace_back([&, t] {
          const auto use = [&](std::unique_ptr<item>& one) {
            CONCUR_EXPECT(held, one != nullptr);
            if (one == nullptr) return;
            CONCUR_EXPECT(held, is_held[one->id].exchange(1) == 0);
            ++one->uses;
            uses.fetch_add(1, std::memory_order_relaxed);
            is_held[one->id].store(0);
          };
          for (int i = 0; i < scaled(rounds); ++i) {
            std::vector<std::unique_ptr<item>> mine;
            if ((i + t) % 16 == 0) {
              stack.take_all([&](std::unique_ptr<item>&& one) { mine.push_back(std::move(one)); });
            } else {
              for (int n = 1 + (i + t) % 2; n > 0; --n) {
                if (auto one = stack.try_pop()) mine.push_back(std::move(*one));
              }
            }
            for (auto& one : mine) use(one);
            for (auto& one : mine) {
              // Full is possible for a moment only: a pop may not have returned its node yet.
              while (!stack.try_push(std::move(one))) std::this_thread::yield();
            }
          }
        });
      }
      for (std::thread& one : team) one.join();
      CHECK(held.report() == "");
      std::vector<std::size_t> left;
      std::uint64_t counted_uses = 0;
      while (auto one = stack.try_pop()) {
        left.push_back((*one)->id);
        counted_uses += (*one)->uses;
      }
      std::sort(left.begin(), left.end());
      CHECK(left.size() == capacity);
      CHECK(std::unique(left.begin(), left.end()) == left.end());
      CHECK(counted_uses == uses);
      CHECK(uses > 0);
    });
  }
}
