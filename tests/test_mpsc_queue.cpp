// test_mpsc_queue.cpp - the bounded queue from many threads to one: edges, exceptions, lifetimes, crowds, and that the consumer
// gets past a pusher that does not come to its end.
#include "support/queues.hpp"

using namespace concur_test;

namespace {

template <class T>
using queue_at = starting_at<concur::mpsc_queue<T>>;

// Made on the spot in its cell, and calls back from there: whoever pushes it is then between its index and its mark.
struct slow {
  slow() noexcept = default;
  explicit slow(int value_in) noexcept : value(value_in) {}
  template <class F>
  slow(int value_in, F* during) noexcept : value(value_in) {
    (*during)();
  }
  int value = 0;
};

}  // namespace

TEST_CASE("full and empty, at every capacity and over the wrap of the indices") {
  const nothing_left_over guard;
  check_full_and_empty<concur::mpsc_queue>();
  check_against_a_model<concur::mpsc_queue>();
}

TEST_CASE("what is in it lives as long as it is, wherever it lies") {
  const nothing_left_over guard;
  check_lifetimes<concur::mpsc_queue>();
}

TEST_CASE("a capacity that cannot be is refused by name") {
  const nothing_left_over guard;
  check_capacities<concur::mpsc_queue>("mpsc_queue");
}

TEST_CASE("a push that throws leaves no trace") {
  const nothing_left_over guard;
  check_a_push_that_throws<concur::mpsc_queue, false>();
  check_a_push_that_throws<concur::mpsc_queue, true>();
}

TEST_CASE("a value whose move out throws stays the oldest") {
  const nothing_left_over guard;
  using value = moody<true>;
  {
    concur::mpsc_queue<value> queue(2);
    CHECK(queue.try_emplace(1));
    CHECK(queue.try_emplace(2));
    value out(0);
    value::throws = true;
    CHECK_THROWS_AS(queue.try_pop(), std::runtime_error);
    CHECK_THROWS_AS(queue.try_pop(out), std::runtime_error);
    value::throws = false;
    CHECK(queue.try_pop()->value == 1);
    CHECK((queue.try_pop(out) && out.value == 2));
  }
  CHECK(value::live == 0);
}

TEST_CASE("pushers that stop half-way hold up neither the consumer nor the others, until all room is theirs") {
  const nothing_left_over guard;
  for (const std::size_t first : first_indices) {
    CAPTURE(first);
    queue_at<slow> queue(4, first);
    for (int round = 0; round < 5; ++round) {
      // Within the push of 1, and within that of 3 inside of it, nothing of these is there.
      const auto within_third = [&] {
        CHECK(queue.try_pop()->value == 2);
        CHECK_FALSE(queue.try_pop().has_value());
        CHECK(queue.try_emplace(4));
        CHECK_FALSE(queue.try_emplace(5));  // a capacity ahead of 1, which is not done
        CHECK(queue.try_pop()->value == 4);
        CHECK_FALSE(queue.try_pop().has_value());
        CHECK_FALSE(queue.try_emplace(5));
      };
      const auto within_first = [&] {
        CHECK(queue.try_emplace(2));
        CHECK(queue.try_emplace(3, &within_third));
        slow out(0);
        CHECK((queue.try_pop(out) && out.value == 3));
        CHECK_FALSE(queue.try_pop(out));
        CHECK_FALSE(queue.try_emplace(5));
      };
      CHECK(queue.try_emplace(1, &within_first));
      CHECK(queue.try_pop()->value == 1);
      CHECK_FALSE(queue.try_pop().has_value());
      CHECK(queue.size_approx() == 0);
      // The cells that were emptied before their turn are in order again.
      for (int i = 0; i < 4; ++i) CHECK(queue.try_emplace(i));
      CHECK_FALSE(queue.try_emplace(9));
      for (int i = 0; i < 4; ++i) CHECK(queue.try_pop()->value == i);
    }
  }
}

TEST_CASE("values behind a pusher that stopped are destroyed with the queue") {
  const nothing_left_over guard;
  using value = moody<true>;
  {
    concur::mpsc_queue<value> queue(4);
    CHECK(queue.try_emplace(1));
    value::throws = true;
    CHECK_THROWS_AS(queue.try_emplace(2), std::runtime_error);
    value::throws = false;
    CHECK(queue.try_emplace(3));
    CHECK(queue.size_approx() == 3);
  }
  CHECK(value::live == 0);
}

TEST_CASE("many push, one pops: all arrive once, and each pusher's in order") {
  const nothing_left_over guard;
  for (const unsigned pushers : {1u, 2u, 4u}) {
    for (const std::size_t capacity : {std::size_t{1}, std::size_t{2}, std::size_t{7}, std::size_t{1024}}) {
      for (const std::size_t first : {std::size_t{0}, SIZE_MAX - 3, SIZE_MAX - 1000}) {
        CAPTURE(pushers);
        CAPTURE(capacity);
        queue_at<ticket> queue(capacity, first);
        run_crowd(queue, pushers, 1, crowd_each / 2 / (capacity == 1 ? 8 : 1));
      }
    }
  }
}
