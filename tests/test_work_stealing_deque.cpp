// test_work_stealing_deque.cpp - both ends, bounds, the wrap of the indices, and owner against thieves.
#include "support/crew.hpp"
#include "support/tally.hpp"
#include "support/test.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

namespace {

using concur::steal_status;

constexpr std::size_t last_index = ~std::size_t{0};
constexpr std::size_t sign_changes = last_index / 2;

template <class F>
void with_first_index(F body) {
  for (const std::size_t first : {std::size_t{0}, last_index, last_index - 3, sign_changes, sign_changes - 2}) {
    CAPTURE(first);
    body(first);
  }
}

}  // namespace

TEST_CASE("the owner gets the newest, a thief the oldest; full and empty are said") {
  const nothing_left_over guard;
  with_first_index([](std::size_t first) {
    concur::work_stealing_deque<std::size_t> deque(8, first);
    CHECK(deque.capacity() == 8);
    for (int round = 0; round < 5; ++round) {
      CHECK(deque.empty());
      CHECK_FALSE(deque.try_pop().has_value());
      CHECK(deque.try_steal().status == steal_status::empty);
      CHECK_FALSE(deque.try_steal());
      for (std::size_t i = 0; i < 8; ++i) {
        CHECK(deque.size() == i);
        REQUIRE(deque.try_push(i));
      }
      CHECK_FALSE(deque.try_push(8));
      CHECK(deque.size() == 8);
      CHECK(deque.try_pop() == 7U);
      const auto stolen = deque.try_steal();
      REQUIRE(stolen.status == steal_status::stolen);
      CHECK(stolen);
      CHECK(stolen.value == 0);
      CHECK(deque.try_push(9));
      CHECK(deque.try_push(10));
      CHECK_FALSE(deque.try_push(11));
      for (std::size_t i = 1; i < 7; ++i) CHECK(deque.try_steal().value == i);
      CHECK(deque.try_pop() == 10U);
      CHECK(deque.try_pop() == 9U);
    }
  });
}

TEST_CASE("capacities are rounded up to powers of two, and refused when they cannot be") {
  const nothing_left_over guard;
  CHECK(concur::work_stealing_deque<int>(1).capacity() == 1);
  CHECK(concur::work_stealing_deque<int>(2).capacity() == 2);
  CHECK(concur::work_stealing_deque<int>(3).capacity() == 4);
  CHECK(concur::work_stealing_deque<int>(1000).capacity() == 1024);
  const auto text = text_of<std::invalid_argument>([] { concur::work_stealing_deque<int> deque(0); });
  CHECK(text.find("capacity is 0") != std::string::npos);
  CHECK_THROWS_AS(concur::work_stealing_deque<int>{last_index}, std::invalid_argument);
  CHECK_THROWS_AS(concur::work_stealing_deque<int>{last_index / 2 + 2}, std::invalid_argument);
}

TEST_CASE("one place is enough, and any word will do") {
  const nothing_left_over guard;
  with_first_index([](std::size_t first) {
    concur::work_stealing_deque<int*> one_place(1, first);
    int a = 1;
    int b = 2;
    for (int i = 0; i < 5; ++i) {
      CHECK(one_place.try_push(&a));
      CHECK_FALSE(one_place.try_push(&b));
      CHECK(one_place.try_pop() == &a);
      CHECK(one_place.try_push(&b));
      CHECK(one_place.try_steal().value == &b);
    }
  });
  enum class colour : unsigned char { red, green };
  concur::work_stealing_deque<colour> colours(2);
  CHECK(colours.try_push(colour::green));
  CHECK(colours.try_pop() == colour::green);
  struct pair {
    std::uint16_t a;
    std::uint16_t b;
  };
  concur::work_stealing_deque<pair> pairs(2);
  CHECK(pairs.try_push(pair{1, 2}));
  CHECK(pairs.try_steal().value.b == 2);
}

// What an element points to is plain memory, written before the push and looked at by who gets it: a thief that comes too
// early is a data race. Each element is given out once, and a thief gets ever younger ones.
TEST_CASE("owner against thieves: each element comes out exactly once, and with what was written before it went in") {
  const nothing_left_over guard;
  struct job {
    std::uint64_t number = 0;
    std::uint64_t times_taken = 0;
  };
  constexpr int thieves = 3;
  const auto rounds = static_cast<std::size_t>(scaled(1000000));
  // Small ones are full and empty all the time: owner and thieves meet at the last element.
  for (const std::size_t capacity : {1U, 2U, 16U, 1024U}) {
    CAPTURE(capacity);
    with_first_index([&](std::size_t first) {
      concur::work_stealing_deque<job*> deque(capacity, first);
      std::vector<job> jobs(rounds);
      std::atomic<bool> is_over{false};
      std::atomic<std::uint64_t> stolen{0};
      std::atomic<std::uint64_t> lost{0};
      tally held;
      std::vector<std::thread> team;
      for (int t = 0; t < thieves; ++t) {
        team.emplace_back([&] {
          std::uint64_t newest = 0;
          for (;;) {
            const bool was_over = is_over.load();
            const auto got = deque.try_steal();
            if (got.status == steal_status::lost) lost.fetch_add(1, std::memory_order_relaxed);
            if (got) {
              ++got.value->times_taken;
              CONCUR_EXPECT(held, got.value->number > newest);
              newest = got.value->number;
              stolen.fetch_add(1, std::memory_order_relaxed);
            } else if (got.status == steal_status::empty) {
              if (was_over) return;
              std::this_thread::yield();
            }
          }
        });
      }
      std::minstd_rand random(static_cast<unsigned>(capacity));
      std::size_t next = 0;
      std::uint64_t popped = 0;
      while (next < rounds) {
        for (std::size_t n = 1 + random() % capacity; n > 0 && next < rounds; --n) {
          jobs[next].number = next + 1;
          if (!deque.try_push(&jobs[next])) break;
          ++next;
        }
        for (std::size_t n = random() % (capacity + 1); n > 0; --n) {
          const auto got = deque.try_pop();
          if (!got) break;
          ++(*got)->times_taken;
          ++popped;
        }
      }
      is_over = true;
      while (const auto got = deque.try_pop()) {
        ++(*got)->times_taken;
        ++popped;
      }
      for (std::thread& one : team) one.join();
      CHECK(held.report() == "");
      std::size_t wrong = 0;
      for (const job& one : jobs) wrong += one.times_taken == 1 ? 0 : 1;
      CHECK(wrong == 0);
      CHECK(stolen + popped == rounds);
      CHECK(deque.empty());
    });
  }
}

TEST_CASE("the owner may be another fiber each time, on another thread each time") {
  const nothing_left_over guard;
  concur::run(with_workers(2), [] {
    concur::work_stealing_deque<std::size_t> deque(64);
    concur::mutex owner;
    std::atomic<std::size_t> sum{0};
    concur::with_nursery([&](concur::nursery& n) {
      for (std::size_t i = 1; i <= 200; ++i) {
        n.go([&, i] {
          owner.lock();
          while (!deque.try_push(i)) sum += *deque.try_pop();
          owner.unlock();
          concur::this_fiber::yield();
          for (;;) {
            const auto got = deque.try_steal();
            if (got) sum += got.value;
            if (got.status != steal_status::lost) break;
          }
        });
      }
    });
    while (const auto got = deque.try_pop()) sum += *got;
    CHECK(sum == 200 * 201 / 2);
  });
}
