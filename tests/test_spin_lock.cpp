// test_spin_lock.cpp - spin_lock: one at a time, whatever the kernel does with the holder, and what they leave to each other.
#include "support/companion.hpp"
#include "support/tally.hpp"
#include "support/test.hpp"
#include "support/threads.hpp"

#include <atomic>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

using concur::spin_lock;

namespace {

constexpr int rounds = (CONCUR_TSAN || CONCUR_ASAN ? 2'000 : 300'000) * CONCUR_TEST_SCALE;

}  // namespace

TEST_CASE("locked once, it is not to be had until it is unlocked") {
  const nothing_left_over guard;
  static_assert(sizeof(spin_lock) == 4, "one word");
  static_assert(!std::is_copy_constructible<spin_lock>::value, "a lock is where it is");
  static spin_lock lock;  // usable before main begins: it is a constant then
  CHECK(lock.try_lock());
  CHECK(!lock.try_lock());
  bool elsewhere = true;
  std::thread([&] { elsewhere = lock.try_lock(); }).join();
  CHECK(!elsewhere);
  lock.unlock();
  lock.lock();
  CHECK(!lock.try_lock());
  lock.unlock();
}

TEST_CASE("the guards of the standard library hold it") {
  const nothing_left_over guard;
  spin_lock lock, other;
  {
    const std::lock_guard<spin_lock> held(lock);
    CHECK(!lock.try_lock());
  }
  {
    const std::scoped_lock held(lock, other);
    CHECK(!lock.try_lock());
    CHECK(!other.try_lock());
  }
  std::unique_lock<spin_lock> held(lock, std::try_to_lock);
  CHECK(held.owns_lock());
  held.unlock();
  CHECK(lock.try_lock());
  lock.unlock();
}

// More threads than cores, so that holders are taken off theirs. ThreadSanitizer looks at the plain counts.
TEST_CASE("no two hold it, and each sees what the one before did") {
  const nothing_left_over guard;
  spin_lock lock;
  long locked = 0, tried = 0;
  in_threads(4, [&](int) {
    for (int i = 0; i < rounds; ++i) {
      {
        const std::lock_guard<spin_lock> held(lock);
        ++locked;
      }
      while (!lock.try_lock()) std::this_thread::yield();
      ++tried;
      lock.unlock();
    }
  });
  CHECK(locked == 4L * rounds);
  CHECK(tried == 4L * rounds);
}

TEST_CASE("try_lock sees what the last holder did") {
  const nothing_left_over guard;
  for (int round = 0; round < 50; ++round) {
    spin_lock lock;
    int plain = 0;
    lock.lock();
    std::thread other([&] {
      while (!lock.try_lock()) std::this_thread::yield();
      ++plain;
      lock.unlock();
    });
    ++plain;
    lock.unlock();
    other.join();
    CHECK(plain == 2);
  }
}

TEST_CASE("who waits for long gives its core away, and sleeps in the end") {
  const nothing_left_over guard;
  spin_lock lock;
  lock.lock();
  companion waiting(kind::thread, [&] {
    lock.lock();
    lock.unlock();
  });
  CHECK(waiting.wait_until_parked());
  lock.unlock();
  waiting.join();
  CHECK(lock.try_lock());
  lock.unlock();
}

TEST_CASE("the runtime's own lock is this one, and can end") {
  const nothing_left_over guard;
  concur::detail::retirable_lock lock;
  spin_lock& same = lock;
  CHECK(lock.lock_unless_retired() == 0);
  CHECK(!same.try_lock());
  same.unlock();
  CHECK(lock.lock_unless_retired() == 0);
  lock.retire(7);
  CHECK(lock.peek() == 7);
  CHECK(lock.lock_unless_retired() == 7);
  CHECK(!same.try_lock());
  CHECK(!lock.replace_retired(8, 0));
  CHECK(lock.replace_retired(7, 0));
  CHECK(same.try_lock());
  same.unlock();
  CHECK(concur::detail::retirable_lock(9).lock_unless_retired() == 9);
}
