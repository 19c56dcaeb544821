// test_ticket_lock.cpp - ticket_lock: one at a time, in the order in which they came, over the wrap too.
#include "support/companion.hpp"
#include "support/test.hpp"

#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

using concur::ticket_lock;

namespace {

constexpr int rounds = (CONCUR_TSAN || CONCUR_ASAN ? 500 : 20'000) * CONCUR_TEST_SCALE;
constexpr std::uint32_t last_ticket = 0xFFFFFFFFu;

using numbers = std::vector<int>;

// Who comes while it is held, one after the other, and in which order they had it.
numbers order_of(ticket_lock& lock, int count) {
  numbers order;
  std::deque<companion> waiting;
  lock.lock();
  for (int i = 0; i < count; ++i) {
    waiting.emplace_back(kind::thread, [&, i] {
      const std::lock_guard<ticket_lock> held(lock);
      order.push_back(i);
    });
    if (!waiting.back().wait_until_parked()) break;  // in the line, or it got in
  }
  lock.unlock();
  for (companion& one : waiting) one.join();
  return order;
}

}  // namespace

TEST_CASE("locked once, it is not to be had until it is unlocked") {
  const nothing_left_over guard;
  static_assert(sizeof(ticket_lock) == 8, "two words of 32 bits");
  static_assert(!std::is_copy_constructible<ticket_lock>::value, "a lock is where it is");
  for (const std::uint32_t first : {0u, 7u, last_ticket - 1, last_ticket}) {
    ticket_lock lock(first);
    for (int i = 0; i < 4; ++i) {
      CHECK(lock.try_lock());
      CHECK(!lock.try_lock());
      lock.unlock();
      lock.lock();
      CHECK(!lock.try_lock());
      lock.unlock();
    }
    const std::scoped_lock held(lock);
    CHECK(!lock.try_lock());
  }
}

TEST_CASE("first come, first served") {
  const nothing_left_over guard;
  ticket_lock lock;
  CHECK(order_of(lock, 5) == numbers{0, 1, 2, 3, 4});
  CHECK(order_of(lock, 5) == numbers{0, 1, 2, 3, 4});
}

TEST_CASE("also where the tickets wrap") {
  const nothing_left_over guard;
  for (std::uint32_t before = 0; before < 4; ++before) {
    ticket_lock lock(last_ticket - before);
    CHECK(order_of(lock, 4) == numbers{0, 1, 2, 3});
  }
}

TEST_CASE("try_lock does not get before who waits, nor into the line") {
  const nothing_left_over guard;
  ticket_lock lock(last_ticket);
  lock.lock();
  companion waiting(kind::thread, [&] {
    lock.lock();
    lock.unlock();
  });
  CHECK(waiting.wait_until_parked());
  for (int i = 0; i < 10; ++i) CHECK(!lock.try_lock());
  lock.unlock();
  waiting.join();
  CHECK(lock.try_lock());
  lock.unlock();
}

// As many threads as a small machine has cores, or a few more. ThreadSanitizer looks at the plain count.
TEST_CASE("no two hold it, and each sees what the one before did, over the wrap") {
  const nothing_left_over guard;
  ticket_lock lock(last_ticket - static_cast<std::uint32_t>(rounds));
  long locked = 0;
  const auto work = [&] {
    for (int i = 0; i < rounds; ++i) {
      const std::lock_guard<ticket_lock> held(lock);
      ++locked;
    }
  };
  std::thread first(work), second(work), third(work);
  first.join(), second.join(), third.join();
  CHECK(locked == 3L * rounds);
}

TEST_CASE("try_lock sees what the last holder did") {
  const nothing_left_over guard;
  ticket_lock lock(last_ticket - static_cast<std::uint32_t>(rounds));
  long tried = 0;
  const auto work = [&] {
    for (int i = 0; i < rounds; ++i) {
      while (!lock.try_lock()) std::this_thread::yield();
      ++tried;
      lock.unlock();
    }
  };
  std::thread other(work);
  work();
  other.join();
  CHECK(tried == 2L * rounds);
}
