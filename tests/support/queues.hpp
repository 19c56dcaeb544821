// tests/support/queues.hpp - what the tests of the stand-alone queues share: values that are counted, queues that begin where
// their indices are about to wrap, and the cases that every queue must pass.
//
// A case is a function over the queue's template, `check_full_and_empty<concur::spsc_queue>()`, since the three have the
// same operations. What only one of them promises stands in its own test.
#ifndef CONCUR_TESTS_SUPPORT_QUEUES_HPP
#define CONCUR_TESTS_SUPPORT_QUEUES_HPP

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/tally.hpp"
#include "support/test.hpp"

namespace concur_test {

constexpr std::size_t first_indices[] = {0, 1, SIZE_MAX / 2 - 2, SIZE_MAX - 3, SIZE_MAX};
constexpr std::size_t capacities[] = {1, 2, 3, 4, 5, 8, 13};

// The queue with its indices wherever a test wants them.
template <class Queue>
class starting_at : public Queue {
 public:
  starting_at(std::size_t capacity, std::size_t first_index) : Queue(capacity, first_index) {}
};

// Counts its own: how many live, and how many of them have not been moved from.
struct counted {
  explicit counted(int value_in) noexcept : value(value_in) { enter(); }
  counted(counted&& other) noexcept : value(std::exchange(other.value, -1)) { enter(); }
  counted& operator=(counted&& other) noexcept {
    value = std::exchange(other.value, -1);
    return *this;
  }
  ~counted() {
    --live;
    address_is_right = address_is_right && self == this;
  }
  void enter() noexcept { ++live; }

  int value;
  const counted* self = this;
  static inline std::atomic<int> live{0};
  static inline std::atomic<bool> address_is_right{true};
};

// Throws when it is told to: in its constructor, or in its moves too.
template <bool MovesThrow>
struct moody {
  explicit moody(int value_in) : value(value_in) {
    act();
    ++live;
  }
  moody(const moody& other) : value(other.value) {
    act();
    ++live;
  }
  moody(moody&& other) noexcept(!MovesThrow) : value(other.value) {
    if constexpr (MovesThrow) act();
    other.value = -1;
    ++live;
  }
  moody& operator=(const moody& other) = default;
  moody& operator=(moody&& other) noexcept(!MovesThrow) {
    if constexpr (MovesThrow) act();
    value = std::exchange(other.value, -1);
    return *this;
  }
  ~moody() { --live; }

  static void act() {
    if (throws) throw std::runtime_error("moody");
  }
  int value;
  static inline bool throws = false;
  static inline int live = 0;
};

struct alignas(256) wide {
  explicit wide(int value_in) noexcept : value(value_in) {
    is_aligned = is_aligned && reinterpret_cast<std::uintptr_t>(this) % 256 == 0;
  }
  wide(wide&& other) noexcept : wide(other.value) {}
  wide& operator=(wide&&) = default;
  int value;
  static inline bool is_aligned = true;
};

template <template <class> class Queue>
void check_full_and_empty() {
  for (const std::size_t capacity : capacities) {
    for (const std::size_t first : first_indices) {
      CAPTURE(capacity);
      CAPTURE(first);
      starting_at<Queue<std::size_t>> queue(capacity, first);
      std::size_t pushed = 0;
      std::size_t popped = 0;
      CHECK(queue.capacity() == capacity);
      // More laps than one, at each fill level that there is.
      for (std::size_t round = 0; round < 4 * capacity + 4; ++round) {
        std::size_t out = 77;
        REQUIRE(queue.size_approx() == 0);
        REQUIRE_FALSE(queue.try_pop().has_value());
        REQUIRE_FALSE(queue.try_pop(out));
        REQUIRE(out == 77);
        const std::size_t level = round % capacity + 1;
        for (std::size_t i = 0; i < level; ++i) {
          REQUIRE(queue.try_push(pushed++));
          REQUIRE(queue.size_approx() == i + 1);
        }
        REQUIRE(queue.try_push(pushed) == (level < capacity));
        if (level < capacity) ++pushed;
        while (popped < pushed) {
          if (popped % 2 == 0)
            REQUIRE(queue.try_pop() == popped);
          else
            REQUIRE((queue.try_pop(out) && out == popped));
          ++popped;
        }
      }
    }
  }
}

// Against a std::deque.
template <template <class> class Queue>
void check_against_a_model() {
  for (const std::size_t capacity : capacities) {
    for (const std::size_t first : first_indices) {
      CAPTURE(capacity);
      CAPTURE(first);
      starting_at<Queue<int>> queue(capacity, first);
      std::deque<int> model;
      std::mt19937 random(static_cast<unsigned>(capacity + first));
      for (int i = 0; i < 2000; ++i) {
        if (random() % 2 == 0) {
          const bool has_room = model.size() < capacity;
          REQUIRE(queue.try_emplace(i) == has_room);
          if (has_room) model.push_back(i);
        } else {
          const std::optional<int> oldest = queue.try_pop();
          REQUIRE(oldest.has_value() == !model.empty());
          if (oldest) {
            REQUIRE(*oldest == model.front());
            model.pop_front();
          }
        }
        REQUIRE(queue.size_approx() == model.size());
      }
    }
  }
}

template <template <class> class Queue>
void check_lifetimes() {
  for (const std::size_t first : first_indices) {
    for (const std::size_t left : {std::size_t{0}, std::size_t{1}, std::size_t{5}}) {
      {
        starting_at<Queue<counted>> queue(5, first);
        for (int round = 0; round < 3; ++round) {
          for (int i = 0; i < 5; ++i) REQUIRE(queue.try_emplace(i));
          counted refused(9);
          CHECK_FALSE(queue.try_push(std::move(refused)));
          CHECK(refused.value == 9);
          CHECK(counted::live == 6);
          for (int i = 0; i < 5; ++i) {
            CHECK(queue.try_pop()->value == i);
            CHECK(counted::live == 6 - i - 1);
          }
        }
        CHECK(counted::live == 0);
        for (std::size_t i = 0; i < left; ++i) REQUIRE(queue.try_emplace(1));
      }
      CHECK(counted::live == 0);
    }
  }
  CHECK(counted::address_is_right);

  Queue<std::unique_ptr<std::string>> pointers(2);
  CHECK(pointers.try_push(std::make_unique<std::string>("one")));
  CHECK(pointers.try_push(std::make_unique<std::string>("two")));
  auto third = std::make_unique<std::string>("three");
  CHECK_FALSE(pointers.try_push(std::move(third)));
  CHECK(*third == "three");
  CHECK(**pointers.try_pop() == "one");
  CHECK(pointers.try_push(std::move(third)));
  CHECK(third == nullptr);

  Queue<std::string> texts(2);
  const std::string longer(100, 'x');
  CHECK(texts.try_push(longer));
  CHECK(texts.try_emplace(std::size_t{50}, 'y'));
  CHECK_FALSE(texts.try_push(longer));
  std::string out;
  CHECK(texts.try_pop(out));
  CHECK(out == longer);
  CHECK(texts.try_pop() == std::string(50, 'y'));

  Queue<wide> broad(3);
  for (int i = 0; i < 3; ++i) CHECK(broad.try_emplace(i));
  CHECK(broad.try_pop()->value == 0);
  CHECK(wide::is_aligned);
}

template <template <class> class Queue>
void check_capacities(const std::string& name) {
  const auto make = [](std::size_t capacity) { return [capacity] { Queue<int> queue(capacity); }; };
  CHECK(text_of<std::invalid_argument>(make(0)) == name + ": capacity is 0: a queue needs room for one value at least");
  for (const std::size_t capacity : {SIZE_MAX, SIZE_MAX / 2 + 2, SIZE_MAX / 16}) {
    const std::string text = text_of<std::invalid_argument>(make(capacity));
    CHECK(text.find(name + ": capacity is " + std::to_string(capacity) + ": it can be ") == 0);
  }
}

// A push that throws leaves no trace, and all the room.
template <template <class> class Queue, bool MovesThrow>
void check_a_push_that_throws() {
  using value = moody<MovesThrow>;
  for (const std::size_t first : first_indices) {
    {
      starting_at<Queue<value>> queue(3, first);
      for (int round = 0; round < 9; ++round) {
        REQUIRE(queue.try_emplace(1));
        value::throws = true;
        CHECK_THROWS_AS(queue.try_emplace(2), std::runtime_error);
        value::throws = false;
        const value third(3);
        value::throws = true;
        CHECK_THROWS_AS(queue.try_push(third), std::runtime_error);
        value::throws = false;
        CHECK(value::live == 2);
        if constexpr (!MovesThrow) {
          CHECK(queue.size_approx() == 1);
          CHECK(queue.try_push(third));
          CHECK(queue.try_push(third));
          // Full: it says so, and makes no value that could throw.
          value::throws = true;
          CHECK_FALSE(queue.try_push(third));
          CHECK_FALSE(queue.try_emplace(4));
          value::throws = false;
        }
        CHECK(queue.try_pop()->value == 1);
        if constexpr (!MovesThrow) {
          CHECK(queue.try_pop()->value == 3);
          CHECK(queue.try_pop()->value == 3);
        }
        CHECK_FALSE(queue.try_pop().has_value());
        CHECK(queue.size_approx() == 0);
      }
      CHECK(queue.try_emplace(5));
    }
    CHECK(value::live == 0);
  }
}

// What one thread pushes: who it is, and a number that only grows.
struct ticket {
  std::uint32_t producer = 0;
  std::uint32_t number = 0;
};

// Some threads push, some pop, and each popper sees each pusher's numbers grow; in the end all have arrived once. The
// payload is not atomic: a queue that hands it over badly shows so under ThreadSanitizer.
template <class Queue>
void run_crowd(Queue& queue, unsigned pushers, unsigned poppers, std::uint32_t each) {
  tally held;
  std::atomic<std::uint64_t> arrived{0};
  std::atomic<std::uint64_t> sum{0};
  const std::uint64_t total = std::uint64_t{pushers} * each;
  std::vector<std::thread> threads;
  for (unsigned p = 0; p < pushers; ++p) {
    threads.emplace_back([&, p] {
      unsigned round = 0;
      for (std::uint32_t i = 0; i < each;) {
        if (queue.try_push(ticket{p, i})) {
          ++i;
          round = 0;
        } else {
          concur::detail::spin_wait(round);
        }
      }
    });
  }
  for (unsigned c = 0; c < poppers; ++c) {
    threads.emplace_back([&, c] {
      std::vector<std::uint32_t> next(pushers, 0);
      std::uint64_t mine = 0;
      unsigned round = 0;
      for (bool by_reference = c % 2 == 0; arrived.load() < total; by_reference = !by_reference) {
        ticket got;
        bool is_there;
        if (by_reference) {
          is_there = queue.try_pop(got);
        } else {
          const std::optional<ticket> oldest = queue.try_pop();
          is_there = oldest.has_value();
          if (is_there) got = *oldest;
        }
        if (!is_there) {
          concur::detail::spin_wait(round);
          continue;
        }
        round = 0;
        CONCUR_EXPECT(held, got.producer < pushers);
        CONCUR_EXPECT(held, got.number >= next[got.producer]);
        if (poppers == 1) CONCUR_EXPECT(held, got.number == next[got.producer]);
        next[got.producer] = got.number + 1;
        mine += got.number;
        arrived.fetch_add(1);
      }
      sum.fetch_add(mine);
    });
  }
  for (std::thread& one : threads) one.join();
  CHECK(held.report() == "");
  CHECK(arrived == total);
  CHECK(sum == std::uint64_t{pushers} * each * (each - 1) / 2);
  CHECK_FALSE(queue.try_pop().has_value());
  CHECK(queue.size_approx() == 0);
}

constexpr std::uint32_t crowd_each = (CONCUR_TSAN || CONCUR_ASAN ? 6000u : 60'000u) * CONCUR_TEST_SCALE;

}  // namespace concur_test

#endif
