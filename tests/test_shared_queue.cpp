// test_shared_queue.cpp - what full rings could not hold comes back newest first, and nobody is left behind.
//
// In the first cases fibers are blocks that never run: the queue only links them.
#include "support/test.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <vector>

using concur::go;
using concur::detail::fiber;
using concur::detail::shared_queue;
using look = concur::detail::shared_queue::look;

namespace {

class blocks {
 public:
  explicit blocks(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      all_.push_back(std::make_unique<fiber>());
      all_.back()->id = i;
    }
  }
  fiber* operator[](std::size_t i) { return all_[i].get(); }
  void push_surplus(shared_queue& to, std::size_t first, std::size_t count) {
    const std::size_t last = first + count - 1;
    for (std::size_t i = first; i < last; ++i) all_[i]->next = all_[i + 1].get();
    to.push_surplus(all_[first].get(), all_[last].get(), static_cast<std::uint32_t>(count));
  }

 private:
  std::vector<std::unique_ptr<fiber>> all_;
};

using numbers = std::vector<std::uint64_t>;

numbers taken(shared_queue& from, std::uint32_t most, look who) {
  fiber* out[64];
  const std::uint32_t n = from.take(out, most, who);
  numbers ids;
  for (std::uint32_t i = 0; i < n; ++i) ids.push_back(out[i]->id);
  return ids;
}

constexpr concur::detail::nanoseconds_t patience = shared_queue::patience_ns;

// Longer than any victim needs, by far.
constexpr std::chrono::seconds storm_limit{CONCUR_TSAN || CONCUR_ASAN ? 20 : 2};

// Fibers that spawn without end. Each has one successor, so that the ring stays full, and two while there are few.
class storm {
 public:
  void begin(int count) {
    for (int i = 0; i < count; ++i) go([this] { run(); });
  }
  void stop() { is_over_.store(true); }
  // The victim did not run before the storm had to be ended.
  bool was_endless() const { return was_endless_.load(); }

 private:
  void run() {
    if (is_over_.load()) return;
    if (std::chrono::steady_clock::now() - begin_ > storm_limit) {
      was_endless_.store(true);
      stop();
      return;
    }
    go([this] { run(); });
    if (more_.load(std::memory_order_relaxed) > 0 && more_.fetch_sub(1) > 0) go([this] { run(); });
  }

  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  std::atomic<int> more_{3000};
  std::atomic<bool> is_over_{false};
  std::atomic<bool> was_endless_{false};
};

}  // namespace

TEST_CASE("the newest batch first, each in its own order, and foreign ones behind") {
  shared_queue queue;
  blocks all(10);
  CHECK(queue.count() == 0);
  CHECK(taken(queue, 5, look::idle).empty());
  CHECK(taken(queue, 5, look::busy).empty());
  queue.push_foreign(all[8]);
  all.push_surplus(queue, 0, 3);
  all.push_surplus(queue, 3, 4);
  queue.push_foreign(all[9]);
  CHECK(queue.count() == 9);
  CHECK(taken(queue, 2, look::idle) == numbers{3, 4});
  all.push_surplus(queue, 7, 1);
  CHECK(taken(queue, 5, look::idle) == numbers{7, 5, 6, 0, 1});
  CHECK(queue.count() == 3);
  CHECK(taken(queue, 64, look::idle) == numbers{2, 8, 9});
  CHECK(queue.count() == 0);
  all.push_surplus(queue, 0, 1);  // emptied, and used again
  queue.push_foreign(all[1]);
  CHECK(taken(queue, 64, look::idle) == numbers{0, 1});
}

TEST_CASE("surplus grows old once in a while, all of it, and the older stays in front") {
  shared_queue queue;
  blocks all(10);
  all.push_surplus(queue, 0, 2);
  queue.age(patience);
  all.push_surplus(queue, 2, 2);
  queue.age(2 * patience - 1);  // not yet
  CHECK(taken(queue, 64, look::busy) == numbers{0});
  CHECK(queue.count() == 3);
  queue.age(2 * patience);
  all.push_surplus(queue, 4, 2);
  CHECK(taken(queue, 64, look::busy) == numbers{1});
  CHECK(taken(queue, 64, look::busy) == numbers{2});
  CHECK(taken(queue, 64, look::idle) == numbers{4, 5, 3});
  CHECK(queue.count() == 0);
}

TEST_CASE("upkeep takes one aged fiber and a share of the foreign ones; of the newer, only when it runs low") {
  shared_queue queue;
  blocks all(20);
  all.push_surplus(queue, 0, 3);
  queue.age(patience);
  all.push_surplus(queue, 3, 3);
  for (std::size_t i = 10; i < 14; ++i) queue.push_foreign(all[i]);
  CHECK(taken(queue, 1, look::busy) == numbers{0});
  CHECK(taken(queue, 3, look::busy) == numbers{1, 10, 11});
  CHECK(taken(queue, 64, look::low) == numbers{2, 12, 13, 3, 4, 5});
  all.push_surplus(queue, 3, 3);
  CHECK(taken(queue, 64, look::busy).empty());  // what is surplus and new is not upkeep's
  CHECK(queue.count() == 3);
  CHECK(taken(queue, 64, look::idle) == numbers{3, 4, 5});
}

TEST_CASE("a fiber that a full ring gave away runs soon, though others spawn without end") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U}) {
    for (const int before : {0, 5000}) {
      CAPTURE(workers);
      CAPTURE(before);
      storm others;
      concur::run(with_workers(workers), [&] {
        others.begin(before);
        go([&others] { others.stop(); });
        others.begin(3000);  // more than a ring holds: the victim is given away
      });
      CHECK_FALSE(others.was_endless());
    }
  }
}

TEST_CASE("a fiber sent from outside runs soon, though others spawn without end") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U}) {
    CAPTURE(workers);
    storm others;
    {
      concur::runtime rt(with_workers(workers));
      rt.block_on([&others] { others.begin(5000); });
      rt.go([&others] { others.stop(); });
    }
    CHECK_FALSE(others.was_endless());
  }
}

TEST_CASE("fibers that yield for ever do not hold up the surplus") {
  const nothing_left_over guard;
  constexpr int count = 20000;
  long yields = 0;
  int left = count;
  concur::run(with_workers(1), [&] {
    for (int i = 0; i < count; ++i) go([&left] { --left; });
    // Spawned last, these are in the ring when the others have been given away.
    for (int i = 0; i < 4; ++i) {
      go([&] {
        while (left != 0) {
          ++yields;
          concur::this_fiber::yield();
        }
      });
    }
  });
  CHECK(left == 0);
  CHECK(yields < 10 * count);  // one by one it would be some sixty yields for each
}
