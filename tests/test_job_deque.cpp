// test_job_deque.cpp - the jobs that a worker's fibers have offered: who gets which, empty slots, the wrap of the indices, and
// the worker against thieves.
//
// The jobs here are never run: the deque only links them.
#include "support/test.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <random>
#include <thread>
#include <vector>

using concur::detail::job;
using concur::detail::job_deque;

namespace {

constexpr std::uint32_t near_wrap = 0xFFFFFFFFu - job_deque::capacity / 2;

struct numbered : job {
  numbered() noexcept : job(nullptr) {}
  std::atomic<int> times_taken{0};
};

job* steal(job_deque& jobs) {
  return jobs.steal([](job&) {});
}
job* take_here(job_deque& jobs) {
  return jobs.take_here([](job&) {});
}

// Fills the deque; returns how many went in.
std::size_t fill(job_deque& jobs, std::vector<numbered>& all, std::vector<std::uint32_t>& indices) {
  std::size_t count = 0;
  while (count < all.size() && jobs.push(all[count], indices[count])) ++count;
  return count;
}

}  // namespace

TEST_CASE("what is pushed comes back last first, over the wrap of the indices; a full deque refuses") {
  for (const std::uint32_t first_index : {0u, 1u, near_wrap, 0xFFFFFFFFu}) {
    const auto jobs = std::make_unique<job_deque>(first_index);
    std::vector<numbered> all(job_deque::capacity + 1);
    std::vector<std::uint32_t> indices(all.size());
    for (int round = 0; round < 3; ++round) {
      const std::size_t count = fill(*jobs, all, indices);
      CHECK(count == job_deque::capacity - 1);
      CHECK(jobs->count() == static_cast<std::int32_t>(count));
      for (std::size_t i = count; i-- > 0;) {
        if (i + 2 < count) CHECK_FALSE(jobs->take_back(indices[i + 2]));  // it is out already
        REQUIRE(jobs->take_back(indices[i]));
      }
      CHECK(jobs->count() == 0);
      CHECK(steal(*jobs) == nullptr);
    }
  }
}

TEST_CASE("thieves take the oldest, and who pushed it finds that out") {
  for (const std::uint32_t first_index : {0u, near_wrap, 0xFFFFFFFFu}) {
    const auto jobs = std::make_unique<job_deque>(first_index);
    std::vector<numbered> all(4);
    std::array<std::uint32_t, 4> indices{};
    for (std::size_t i = 0; i < 4; ++i) REQUIRE(jobs->push(all[i], indices[i]));
    const std::uint32_t mark = jobs->mark();
    CHECK(steal(*jobs) == &all[0]);
    CHECK(jobs->mark() != mark);
    CHECK(take_here(*jobs) == &all[1]);
    CHECK_FALSE(jobs->take_back(indices[0]));
    CHECK(jobs->take_back(indices[3]));
    CHECK(steal(*jobs) == &all[2]);
    CHECK(steal(*jobs) == nullptr);
    // The last one is gone: the quick way sees it, leaves everything as it was, and so does the slow one.
    for (int i = 0; i < 2; ++i) {
      CHECK_FALSE(jobs->take_back(indices[2]));
      CHECK_FALSE(jobs->take_back_locked(indices[2], true));
      CHECK(jobs->count() == 0);
    }
    REQUIRE(jobs->push(all[0], indices[0]));
    CHECK(jobs->take_back(indices[0]));
  }
}

TEST_CASE("a job that does not lie at the tail comes back too, and its empty slot is passed over") {
  for (const std::uint32_t first_index : {0u, near_wrap, 0xFFFFFFFFu}) {
    const auto jobs = std::make_unique<job_deque>(first_index);
    std::vector<numbered> all(5);
    std::array<std::uint32_t, 5> indices{};
    for (std::size_t i = 0; i < 5; ++i) REQUIRE(jobs->push(all[i], indices[i]));
    for (const std::size_t i : {0u, 1u, 3u}) {
      CHECK_FALSE(jobs->take_back(indices[i]));
      CHECK(jobs->take_back_locked(indices[i], i == 3));
    }
    CHECK(steal(*jobs) == &all[2]);
    CHECK(jobs->take_back(indices[4]));
    CHECK(take_here(*jobs) == nullptr);
    CHECK(jobs->count() == 0);
    // Dropped at the tail by who comes last.
    for (std::size_t i = 0; i < 3; ++i) REQUIRE(jobs->push(all[i], indices[i]));
    CHECK(jobs->take_back_locked(indices[1], false));
    CHECK(jobs->take_back_locked(indices[2], true));
    CHECK(jobs->count() == 1);
    CHECK(jobs->take_back(indices[0]));
  }
}

TEST_CASE("a wake-up is suggested ever more seldom while nobody comes, and at once again when somebody came") {
  const auto jobs = std::make_unique<job_deque>();
  numbered one;
  std::uint32_t index = 0;
  int wakes = 0;
  for (int i = 0; i < 100'000; ++i) wakes += jobs->is_worth_a_wake() ? 1 : 0;
  CHECK(wakes > 90);
  CHECK(wakes < 120);
  REQUIRE(jobs->push(one, index));
  REQUIRE(steal(*jobs) == &one);
  while (!jobs->is_worth_a_wake()) {
  }
  wakes = 0;
  for (int i = 0; i < 3; ++i) wakes += jobs->is_worth_a_wake() ? 1 : 0;
  CHECK(wakes >= 1);
}

TEST_CASE("the worker and two thieves: each job is taken once") {
  concur::detail::register_asymmetric_fence();
#if CONCUR_TSAN
  constexpr int rounds = 20'000;
#else
  constexpr int rounds = 300'000;
#endif
  // With other programs on the processors, a thief that is interrupted within its lock costs the worker a slice of time, each
  // time: then fewer rounds are enough.
  constexpr int least_rounds = 5'000;
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(4);
  const auto jobs = std::make_unique<job_deque>(near_wrap);
  std::vector<numbered> all(8);
  std::atomic<bool> is_over{false};
  std::atomic<int> stolen{0};
  const auto thief = [&] {
    while (!is_over.load()) {
      if (job* const found = steal(*jobs)) {
        static_cast<numbered*>(found)->times_taken.fetch_add(1);
        stolen.fetch_add(1);
      }
    }
  };
  std::thread thieves[] = {std::thread(thief), std::thread(thief)};
  int wrong = 0;
  std::mt19937 random(11);
  for (int round = 0; round < rounds && (round < least_rounds || std::chrono::steady_clock::now() < limit); ++round) {
    const std::size_t count = 1 + random() % all.size();
    std::array<std::uint32_t, 8> indices{};
    for (std::size_t i = 0; i < count; ++i) {
      all[i].times_taken.store(0);
      while (!jobs->push(all[i], indices[i])) std::this_thread::yield();
    }
    // Now and then out of order, as by fibers that have parked.
    const std::size_t first_back = random() % 4 == 0 ? random() % count : count - 1;
    if (jobs->take_back(indices[first_back]) || jobs->take_back_locked(indices[first_back], random() % 2 == 0))
      all[first_back].times_taken.fetch_add(1);
    for (std::size_t i = count; i-- > 0;) {
      if (i == first_back) continue;
      if (jobs->take_back(indices[i]) || jobs->take_back_locked(indices[i], true)) all[i].times_taken.fetch_add(1);
    }
    for (std::size_t i = 0; i < count; ++i) {
      // Whoever steals counts after it has taken. On a busy machine it may have no processor just now.
      while (all[i].times_taken.load() == 0) std::this_thread::yield();
      if (all[i].times_taken.load() != 1) ++wrong;
    }
  }
  is_over.store(true);
  for (std::thread& one : thieves) one.join();
  CHECK(wrong == 0);
  CHECK(stolen.load() > 0);
}
