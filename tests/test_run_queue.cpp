// test_run_queue.cpp - one worker's ready fibers: order, turns, the wrap of the indices, and owner against thieves.
//
// The fibers here are blocks that never run: the queue only links them.
#include "support/test.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <set>
#include <thread>
#include <vector>

using concur::detail::fiber;
using concur::detail::run_queue;

namespace {

constexpr std::uint32_t near_wrap = 0xFFFFFFFFu - run_queue::capacity / 2;

class blocks {
 public:
  explicit blocks(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      all_.push_back(std::make_unique<fiber>());
      all_.back()->id = i;
    }
  }
  fiber* operator[](std::size_t i) { return all_[i].get(); }

 private:
  std::vector<std::unique_ptr<fiber>> all_;
};

}  // namespace

TEST_CASE("first in, first out, over every position of the ring and the wrap of its indices") {
  for (const std::uint32_t first_index : {0u, 1u, 255u, near_wrap, 0xFFFFFFFFu}) {
    auto queue = std::make_unique<run_queue>(first_index);
    blocks all(run_queue::capacity);
    std::uint64_t pushed = 0;
    std::uint64_t popped = 0;
    std::mt19937 random(7);
    CHECK(queue->pop() == nullptr);
    for (int round = 0; round < 200; ++round) {
      for (std::uint32_t n = random() % run_queue::capacity; n > 0 && pushed - popped < run_queue::capacity; --n)
        REQUIRE(queue->push(all[pushed++ % run_queue::capacity]));
      CHECK(queue->stealable_count() == pushed - popped);
      CHECK(queue->has_any() == (pushed != popped));
      for (std::uint32_t n = random() % run_queue::capacity; n > 0 && pushed != popped; --n)
        REQUIRE(queue->pop() == all[popped++ % run_queue::capacity]);
    }
    CHECK(pushed > 2000);
  }
}

TEST_CASE("a full ring refuses, keeps everything, and gives its oldest for the shared queue") {
  for (const std::uint32_t first_index : {0u, near_wrap, 0xFFFFFFF0u}) {
    auto queue = std::make_unique<run_queue>(first_index);
    blocks all(run_queue::capacity + 2);
    for (std::size_t i = 0; i < run_queue::capacity; ++i) REQUIRE(queue->push(all[i]));
    CHECK_FALSE(queue->push(all[run_queue::capacity]));
    fiber* displaced = nullptr;
    CHECK(queue->push_recent(all[run_queue::capacity], displaced));
    CHECK(displaced == nullptr);
    CHECK_FALSE(queue->push_recent(all[run_queue::capacity + 1], displaced));
    CHECK(displaced == all[run_queue::capacity]);
    fiber* taken = nullptr;
    fiber behind;
    REQUIRE(queue->pop_batch(taken, &behind) == run_queue::batch);
    for (std::size_t i = 0; i < run_queue::batch; ++i, taken = taken->next) REQUIRE(taken == all[i]);
    CHECK(taken == &behind);
    CHECK(queue->pop() == all[run_queue::capacity + 1]);
    for (std::size_t i = run_queue::batch; i < run_queue::capacity; ++i) CHECK(queue->pop() == all[i]);
    CHECK_FALSE(queue->has_any());
  }
}

TEST_CASE("many go behind the others in one visit, in their order, also over the ring's end") {
  for (const std::uint32_t first_index : {0u, near_wrap, 0xFFFFFFF0u}) {
    auto queue = std::make_unique<run_queue>(first_index);
    blocks all(run_queue::batch + 1);
    fiber* list[run_queue::batch];
    for (std::size_t i = 0; i < run_queue::batch; ++i) list[i] = all[i + 1];
    REQUIRE(queue->push(all[0]));
    queue->push_many(list, 0);
    CHECK(queue->stealable_count() == 1);
    queue->push_many(list, run_queue::batch);
    for (std::size_t i = 0; i <= run_queue::batch; ++i) CHECK(queue->pop() == all[i]);
    CHECK_FALSE(queue->has_any());
  }
}

TEST_CASE("a ring that a thief has emptied gives only what goes behind it") {
  auto queue = std::make_unique<run_queue>();
  fiber behind;
  fiber* taken = nullptr;
  CHECK(queue->pop_batch(taken, &behind) == 0);
  CHECK(taken == &behind);
}

TEST_CASE("the one just woken runs next, three in a row at most") {
  auto queue = std::make_unique<run_queue>();
  blocks all(4);
  fiber* displaced = nullptr;
  REQUIRE(queue->push(all[0]));
  // Two fibers that wake each other for ever: the third must get its turn.
  int waited = 0;
  fiber* f = nullptr;
  for (; waited < 100; ++waited) {
    REQUIRE(queue->push_recent(all[1 + static_cast<std::size_t>(waited) % 2], displaced));
    f = queue->pop();
    if (f == all[0]) break;
    CHECK(f == all[1 + static_cast<std::size_t>(waited) % 2]);
  }
  CHECK(f == all[0]);
  CHECK(waited == 3);
  CHECK(queue->has_recent());
  CHECK(queue->pop() != nullptr);

  // With nothing else to do the limit holds nobody up.
  for (int i = 0; i < 10; ++i) {
    REQUIRE(queue->push_recent(all[3], displaced));
    CHECK(queue->pop() == all[3]);
  }
  // The one that is displaced goes behind the ring, not away.
  REQUIRE(queue->push(all[0]));
  REQUIRE(queue->push_recent(all[1], displaced));
  REQUIRE(queue->push_recent(all[2], displaced));
  CHECK(displaced == all[1]);
  std::set<fiber*> rest{queue->pop(), queue->pop(), queue->pop()};
  CHECK(rest == std::set<fiber*>{all[0], all[1], all[2]});
}

TEST_CASE("pinned fibers take turns with the ring, and thieves do not see them") {
  auto queue = std::make_unique<run_queue>();
  blocks all(20);
  for (std::size_t i = 0; i < 10; ++i) REQUIRE(queue->push(all[i]));
  for (std::size_t i = 10; i < 20; ++i) queue->push_pinned(all[i]);
  int pinned = 0;
  for (int i = 0; i < 10; ++i) pinned += queue->pop()->id >= 10 ? 1 : 0;
  CHECK(pinned == 5);
  for (int i = 0; i < 5; ++i) queue->pop();
  fiber* out[run_queue::batch];
  while (queue->steal(out, true) != 0) CHECK(out[0]->id < 10);
  std::uint64_t expected = 20;
  while (fiber* f = queue->pop()) {
    CHECK(f->id >= 10);
    --expected;
  }
  CHECK(expected < 20);
  CHECK_FALSE(queue->has_any());
}

TEST_CASE("a thief takes the older half, and the recent one only when it may") {
  for (const std::uint32_t first_index : {0u, near_wrap, 0xFFFFFFFEu}) {
    auto queue = std::make_unique<run_queue>(first_index);
    blocks all(run_queue::capacity + 1);
    fiber* out[run_queue::batch];
    fiber* displaced = nullptr;
    CHECK(queue->steal(out, true) == 0);
    for (std::size_t i = 0; i < run_queue::capacity; ++i) REQUIRE(queue->push(all[i]));
    REQUIRE(queue->push_recent(all[run_queue::capacity], displaced));
    std::size_t next = 0;
    for (std::uint32_t expected = run_queue::capacity; expected > 0;) {
      const std::uint32_t n = queue->steal(out, true);
      REQUIRE(n == (std::min)((expected + 1) / 2, run_queue::batch));
      for (std::uint32_t i = 0; i < n; ++i) CHECK(out[i] == all[next++]);
      expected -= n;
    }
    CHECK(queue->steal(out, false) == 0);
    REQUIRE(queue->steal(out, true) == 1);
    CHECK(out[0] == all[run_queue::capacity]);
    CHECK_FALSE(queue->has_any());
  }
}

TEST_CASE("owner against thieves: each fiber comes out exactly once") {
  concur::detail::register_asymmetric_fence();
  const concur::detail::fence_mode own_mode = concur::detail::process_fence_mode.load();
  // Also as on a system without membarrier: there a thief's fence is quick, and finds the owner inside far more often.
  for (int run = 0; run < 3; ++run) {
    const std::uint32_t first_index = run == 0 ? near_wrap : 0;
    if (run == 2) concur::detail::process_fence_mode = concur::detail::fence_mode::symmetric;
    constexpr std::size_t fiber_count = 64;
    constexpr int thief_count = 2;
    constexpr std::uint64_t turns = 20000000;
    auto queue = std::make_unique<run_queue>(first_index);
    blocks all(fiber_count);
    // One way out at a time: whoever holds a fiber has set its mark, and finds it unset.
    std::vector<std::atomic<int>> is_out(fiber_count);
    std::atomic<bool> is_over{false};
    std::atomic<std::uint64_t> doubled{0};
    std::atomic<std::uint64_t> stolen{0};
    const auto take = [&](fiber* f) {
      if (is_out[f->id].exchange(1) != 0) ++doubled;
    };
    concur::spin_lock back_lock;
    std::vector<fiber*> back;  // what thieves took, on its way to the owner
    std::vector<std::thread> thieves;
    for (int t = 0; t < thief_count; ++t) {
      thieves.emplace_back([&] {
        fiber* out[run_queue::batch];
        unsigned tries = 0;
        while (!is_over) {
          const std::uint32_t n = queue->steal(out, (++tries & 1) != 0);
          for (std::uint32_t i = 0; i < n; ++i) take(out[i]);
          stolen += n;
          if (n != 0) {
            concur::detail::lock_scope<concur::spin_lock> held(back_lock);
            back.insert(back.end(), out, out + n);
          }
        }
      });
    }
    std::vector<fiber*> mine;
    for (std::size_t i = 0; i < fiber_count; ++i) {
      is_out[i] = 1;
      mine.push_back(all[i]);
    }
    std::mt19937 random(first_index);
    const auto limit = std::chrono::steady_clock::now() + std::chrono::milliseconds(2500);
    std::uint64_t turn = 0;
    for (; turn < turns && doubled == 0 && (turn % 1024 != 0 || std::chrono::steady_clock::now() < limit); ++turn) {
      if (turn % 64 == 0) {
        concur::detail::lock_scope<concur::spin_lock> held(back_lock);
        mine.insert(mine.end(), back.begin(), back.end());
        back.clear();
      }
      if (!mine.empty() && (random() & 1) != 0) {
        fiber* f = mine.back();
        mine.pop_back();
        is_out[f->id] = 0;
        fiber* displaced = nullptr;
        if ((random() & 3) == 0)
          REQUIRE(queue->push_recent(f, displaced));
        else
          REQUIRE(queue->push(f));
      } else if (fiber* f = queue->pop()) {
        take(f);
        mine.push_back(f);
      }
    }
    is_over = true;
    for (std::thread& one : thieves) one.join();
    CHECK(doubled == 0);
    std::set<fiber*> found(mine.begin(), mine.end());
    found.insert(back.begin(), back.end());
    while (fiber* f = queue->pop()) found.insert(f);
    CHECK(found.size() == fiber_count);
    CHECK(stolen > 0);
  }
  concur::detail::process_fence_mode = own_mode;
}
