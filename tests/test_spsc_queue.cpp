// test_spsc_queue.cpp - the bounded queue from one thread to one other: edges, batches, exceptions, lifetimes, two threads.
#include "support/queues.hpp"

#include <array>
#include <iterator>

using namespace concur_test;

namespace {

template <class T>
using queue_at = starting_at<concur::spsc_queue<T>>;

}  // namespace

TEST_CASE("full and empty, at every capacity and over the wrap of the indices") {
  const nothing_left_over guard;
  check_full_and_empty<concur::spsc_queue>();
  check_against_a_model<concur::spsc_queue>();
}

TEST_CASE("what is in it lives as long as it is, wherever it lies") {
  const nothing_left_over guard;
  check_lifetimes<concur::spsc_queue>();
}

TEST_CASE("a capacity that cannot be is refused by name") {
  const nothing_left_over guard;
  check_capacities<concur::spsc_queue>("spsc_queue");
}

TEST_CASE("a push that throws leaves the queue as it was") {
  const nothing_left_over guard;
  check_a_push_that_throws<concur::spsc_queue, false>();
  check_a_push_that_throws<concur::spsc_queue, true>();
}

TEST_CASE("a value whose move out throws stays the oldest") {
  const nothing_left_over guard;
  using value = moody<true>;
  {
    concur::spsc_queue<value> queue(2);
    CHECK(queue.try_emplace(1));
    CHECK(queue.try_emplace(2));
    value out(0);
    value::throws = true;
    CHECK_THROWS_AS(queue.try_pop(), std::runtime_error);
    CHECK_THROWS_AS(queue.try_pop(out), std::runtime_error);
    value::throws = false;
    CHECK(out.value == 0);
    CHECK(queue.size_approx() == 2);
    CHECK(queue.try_pop()->value == 1);
    CHECK((queue.try_pop(out) && out.value == 2));
  }
  CHECK(value::live == 0);
}

TEST_CASE("a batch goes in as far as there is room, and comes out as far as there is something") {
  const nothing_left_over guard;
  for (const std::size_t first : first_indices) {
    queue_at<std::unique_ptr<int>> queue(5, first);
    int pushed = 0;
    int popped = 0;
    for (int round = 0; round < 12; ++round) {
      std::array<std::unique_ptr<int>, 7> in;
      for (auto& one : in) one = std::make_unique<int>(pushed++);
      CHECK(queue.try_push_some(in.begin(), 3) == 3);
      CHECK(queue.try_push_some(in.begin() + 3, 4) == 2);
      CHECK(queue.try_push_some(in.begin() + 5, 2) == 0);
      CHECK(queue.try_push_some(in.begin() + 5, 0) == 0);
      CHECK(in[4] == nullptr);
      REQUIRE(in[5] != nullptr);
      pushed -= 2;
      std::vector<std::unique_ptr<int>> out;
      CHECK(queue.try_pop_some(std::back_inserter(out), 2) == 2);
      CHECK(queue.try_pop_some(std::back_inserter(out), 9) == 3);
      CHECK(queue.try_pop_some(std::back_inserter(out), 9) == 0);
      for (auto& one : out) CHECK(*one == popped++);
    }
    CHECK(popped == 60);
  }
}

TEST_CASE("of a batch that throws what came before is through") {
  const nothing_left_over guard;
  using value = moody<true>;
  struct source {
    value& operator*() const {
      value::throws = *at == 2;
      return *one;
    }
    source& operator++() {
      ++*at;
      return *this;
    }
    int* at;
    value* one;
  };
  {
    concur::spsc_queue<value> queue(5);
    int at = 0;
    value one(7);
    CHECK_THROWS_AS(queue.try_push_some(source{&at, &one}, 4), std::runtime_error);
    value::throws = false;
    CHECK(at == 2);
    CHECK(queue.size_approx() == 2);
    CHECK(value::live == 3);
    CHECK(queue.try_emplace(8));
    at = 0;
    CHECK_THROWS_AS(queue.try_pop_some(source{&at, &one}, 4), std::runtime_error);
    value::throws = false;
    CHECK(queue.size_approx() == 1);
    CHECK(queue.try_pop()->value == 8);
  }
  CHECK(value::live == 0);
}

TEST_CASE("one pushes, another pops: all arrive once, and in order") {
  const nothing_left_over guard;
  for (const std::size_t capacity : {std::size_t{1}, std::size_t{2}, std::size_t{7}, std::size_t{1024}}) {
    for (const std::size_t first : {std::size_t{0}, SIZE_MAX - 3, SIZE_MAX - 1000}) {
      CAPTURE(capacity);
      queue_at<ticket> queue(capacity, first);
      run_crowd(queue, 1, 1, crowd_each / (capacity == 1 ? 4 : 1));
    }
  }
}

TEST_CASE("batches between two threads") {
  const nothing_left_over guard;
  queue_at<std::uint32_t> queue(64, SIZE_MAX - 40);
  constexpr std::uint32_t count = crowd_each;
  std::thread producer([&] {
    std::array<std::uint32_t, 20> batch;
    unsigned round = 0;
    for (std::uint32_t next = 0; next < count;) {
      const std::size_t wanted = (std::min)(std::size_t{1 + next % 20}, std::size_t{count - next});
      for (std::size_t i = 0; i < wanted; ++i) batch[i] = next + static_cast<std::uint32_t>(i);
      const std::size_t done = queue.try_push_some(batch.begin(), wanted);
      next += static_cast<std::uint32_t>(done);
      if (done == 0)
        concur::detail::spin_wait(round);
      else
        round = 0;
    }
  });
  std::array<std::uint32_t, 32> batch;
  std::size_t wrong = 0;
  unsigned round = 0;
  for (std::uint32_t next = 0; next < count;) {
    const std::size_t done = queue.try_pop_some(batch.begin(), 1 + next % 32);
    for (std::size_t i = 0; i < done; ++i) wrong += batch[i] == next++ ? 0 : 1;
    if (done == 0)
      concur::detail::spin_wait(round);
    else
      round = 0;
  }
  producer.join();
  CHECK(wrong == 0);
  CHECK(queue.size_approx() == 0);
}
