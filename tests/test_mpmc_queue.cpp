// test_mpmc_queue.cpp - the bounded queue from many threads to many: edges, exceptions, lifetimes, and crowds.
#include "support/queues.hpp"

using namespace concur_test;

namespace {

template <class T>
using queue_at = starting_at<concur::mpmc_queue<T>>;

}  // namespace

TEST_CASE("full and empty, at every capacity and over the wrap of the laps") {
  const nothing_left_over guard;
  check_full_and_empty<concur::mpmc_queue>();
  check_against_a_model<concur::mpmc_queue>();
}

TEST_CASE("what is in it lives as long as it is, wherever it lies") {
  const nothing_left_over guard;
  check_lifetimes<concur::mpmc_queue>();
}

TEST_CASE("a capacity that cannot be is refused by name") {
  const nothing_left_over guard;
  check_capacities<concur::mpmc_queue>("mpmc_queue");
}

TEST_CASE("a push that throws leaves no trace") {
  const nothing_left_over guard;
  check_a_push_that_throws<concur::mpmc_queue, false>();
  check_a_push_that_throws<concur::mpmc_queue, true>();
}

TEST_CASE("a value whose move out throws is destroyed, and those behind it are not") {
  const nothing_left_over guard;
  using value = moody<true>;
  for (const std::size_t first : first_indices) {
    {
      queue_at<value> queue(3, first);
      for (int round = 0; round < 5; ++round) {
        for (int i = 1; i <= 3; ++i) REQUIRE(queue.try_emplace(i));
        value out(0);
        value::throws = true;
        CHECK_THROWS_AS(queue.try_pop(), std::runtime_error);
        CHECK_THROWS_AS(queue.try_pop(out), std::runtime_error);
        value::throws = false;
        CHECK(value::live == 2);
        CHECK(queue.size_approx() == 1);
        CHECK(queue.try_emplace(4));
        CHECK(queue.try_pop()->value == 3);
        CHECK((queue.try_pop(out) && out.value == 4));
        CHECK_FALSE(queue.try_pop(out));
      }
    }
    CHECK(value::live == 0);
  }
}

TEST_CASE("what a throwing move leaves behind is room that comes back, in the last place too") {
  const nothing_left_over guard;
  using value = moody<true>;
  for (const std::size_t first : first_indices) {
    {
      queue_at<value> queue(2, first);
      for (int round = 0; round < 5; ++round) {
        value::throws = true;
        CHECK_THROWS_AS(queue.try_emplace(1), std::runtime_error);
        CHECK_THROWS_AS(queue.try_emplace(2), std::runtime_error);
        CHECK_FALSE(queue.try_emplace(3));
        value::throws = false;
        CHECK_FALSE(queue.try_pop().has_value());
        CHECK(queue.size_approx() == 0);
      }
      value::throws = true;
      CHECK_THROWS_AS(queue.try_emplace(1), std::runtime_error);
      value::throws = false;
      CHECK(queue.try_emplace(2));
    }
    CHECK(value::live == 0);
  }
}

TEST_CASE("many push, many pop: all arrive once, and each pusher's in order") {
  const nothing_left_over guard;
  for (const auto& crowd : {std::pair{1u, 1u}, {2u, 2u}, {4u, 4u}, {1u, 3u}, {3u, 1u}}) {
    const unsigned pushers = crowd.first;
    const unsigned poppers = crowd.second;
    for (const std::size_t capacity : {std::size_t{1}, std::size_t{2}, std::size_t{7}, std::size_t{1024}}) {
      for (const std::size_t first : {std::size_t{0}, SIZE_MAX - 3, SIZE_MAX - 1000}) {
        CAPTURE(pushers);
        CAPTURE(poppers);
        CAPTURE(capacity);
        queue_at<ticket> queue(capacity, first);
        run_crowd(queue, pushers, poppers, crowd_each / 4 / (capacity == 1 ? 8 : 1));
      }
    }
  }
}
