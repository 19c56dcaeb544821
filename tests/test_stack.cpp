// test_stack.cpp - that stacks are as big as asked for, guarded, cheap, each with one owner, and never lost.
//
// The machine decides which guards there are; a kind that is not to be had here is left out where it is asked for by
// name. A guard is tested by asking the kernel to read it, which needs no process to die (test_fault.cpp lets them
// die).
#include "concur.hpp"

#include "support/deny_call.hpp"

#include <doctest/doctest.h>

#include <errno.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

using concur::detail::guard_kind;
using concur::detail::stack;
using concur::detail::stack_pool;

namespace {

std::size_t page_bytes() { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

bool kernel_can_read(const char* address) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const bool can = ::write(ends[1], address, 1) == 1;
  ::close(ends[0]);
  ::close(ends[1]);
  return can;
}

// The pool's stacks in use, given back at the end.
struct held {
  explicit held(stack_pool& from) : pool(from) {}
  ~held() { give_back(); }
  stack* take() {
    int error = 0;
    stack* const one = pool.acquire(error);
    REQUIRE(one != nullptr);
    REQUIRE(error == 0);
    all.push_back(one);
    return one;
  }
  void give_back() {
    for (stack* one : all) pool.release(one);
    all.clear();
  }
  stack_pool& pool;
  std::vector<stack*> all;
};

// Memory that the kernel has given for this stack, in pages. Only for stacks that nobody has read without writing.
[[maybe_unused]] std::size_t resident_pages(const stack& one) {
  const std::size_t pages = (one.size + page_bytes() - 1) / page_bytes();
  std::vector<unsigned char> is_resident(pages);
#if defined(__linux__)
  REQUIRE(::mincore(one.low, pages * page_bytes(), is_resident.data()) == 0);
#endif
  const auto count = std::count_if(is_resident.begin(), is_resident.end(), [](int bits) { return (bits & 1) != 0; });
  return static_cast<std::size_t>(count);
}

[[maybe_unused]] std::size_t resident_bytes_of_process() {
  std::ifstream statm("/proc/self/statm");
  std::size_t whole = 0;
  std::size_t resident = 0;
  statm >> whole >> resident;
  return resident * page_bytes();
}

[[maybe_unused]] std::size_t mapping_count() {
  std::ifstream maps("/proc/self/maps");
  std::size_t count = 0;
  for (std::string line; std::getline(maps, line);) ++count;
  return count;
}

bool madvise_guards_work() { return concur::detail::probe_guard_kind(page_bytes()) == guard_kind::madvise; }

char* top_byte(const stack& one) { return one.low + one.size - 1; }

}  // namespace

TEST_CASE("a stack has the bytes that were asked for, in pages of its own") {
  for (const std::size_t wanted : {std::size_t{1}, std::size_t{16384}, std::size_t{65536}, std::size_t{100000}}) {
    stack_pool pool(wanted);
    held some(pool);
    std::vector<std::pair<char*, char*>> ranges;
    for (int i = 0; i < 50; ++i) {
      stack* const one = some.take();
      CHECK(one->size >= wanted);
      CHECK(one->size >= pool.usable_bytes());
      CHECK((reinterpret_cast<std::uintptr_t>(one->low) + one->size) % 64 == 0);
      CHECK(reinterpret_cast<std::uintptr_t>(one->low) % page_bytes() == 0);
      std::memset(one->low, i + 1, one->size);
      ranges.emplace_back(one->low, one->low + one->size);
    }
    for (int i = 0; i < 50; ++i) {
      const stack& one = *some.all[static_cast<std::size_t>(i)];
      CHECK(*one.low == i + 1);
      CHECK(*top_byte(one) == i + 1);
    }
    std::sort(ranges.begin(), ranges.end());
    for (std::size_t i = 1; i < ranges.size(); ++i) CHECK(ranges[i].first >= ranges[i - 1].second + 4096);
  }
}

TEST_CASE("the guard below a stack cannot be read, whatever kind it is") {
  for (const guard_kind kind : {guard_kind::none_yet, guard_kind::madvise, guard_kind::mprotect}) {
    if (kind == guard_kind::madvise && !madvise_guards_work()) continue;
    stack_pool pool(32768, kind);
    CHECK(pool.guard() == guard_kind::none_yet);
    held some(pool);
    for (int i = 0; i < 40; ++i) {
      const stack& one = *some.take();
      CHECK_FALSE(kernel_can_read(one.low - 1));
      CHECK_FALSE(kernel_can_read(one.low - 4096));
      if (sizeof(void*) >= 8) CHECK_FALSE(kernel_can_read(one.low - 65536));
      CHECK(kernel_can_read(one.low));
      CHECK(pool.canary_is_intact(one));
    }
    if (kind != guard_kind::none_yet) CHECK(pool.guard() == kind);
    if (kind == guard_kind::none_yet && madvise_guards_work()) CHECK(pool.guard() == guard_kind::madvise);
    for (const stack* one : some.all) CHECK(one->guarded_by == pool.guard());
  }
}

TEST_CASE("a canary tells that something was written below the stack") {
  stack_pool pool(32768, guard_kind::canary);
  held some(pool);
  for (const std::ptrdiff_t below : {1, 8, 100, 4095}) {
    stack& one = *some.take();
    CHECK(pool.guard() == guard_kind::canary);
    *one.low = 1;  // its own lowest byte
    CHECK(pool.canary_is_intact(one));
    one.low[-below] = 1;
    CHECK_FALSE(pool.canary_is_intact(one));
  }
  const std::vector<stack*> overrun = some.all;
  some.give_back();
  for (const stack* one : overrun) CHECK(pool.canary_is_intact(*one));
}

#if defined(__linux__)
// Mutant 22: believing the return value of madvise.
TEST_CASE("a kernel that only says it installed a guard is not believed") {
  std::thread under_emulator([] {
    if (!deny_call(SYS_madvise, 0, 102)) return;
    stack_pool pool(32768);
    held some(pool);
    const stack& one = *some.take();
    CHECK(pool.guard() == guard_kind::mprotect);
    CHECK_FALSE(kernel_can_read(one.low - 1));
  });
  under_emulator.join();
}

TEST_CASE("guards that fail later are replaced by weaker ones, and the pool says so") {
  if (!madvise_guards_work()) return;
  stack_pool pool(32768);
  held some(pool);
  some.take();
  CHECK(pool.guard() == guard_kind::madvise);
  std::thread on_old_kernel([&] {
    if (!deny_call(SYS_madvise, EINVAL, 102)) return;
    const stack& one = *some.take();
    CHECK(one.guarded_by == guard_kind::mprotect);
    CHECK(pool.guard() == guard_kind::mprotect);
    CHECK_FALSE(kernel_can_read(one.low - 1));
    if (!deny_call(SYS_mprotect, ENOMEM)) return;
    const stack& other = *some.take();
    CHECK(other.guarded_by == guard_kind::canary);
    CHECK(pool.guard() == guard_kind::canary);
    CHECK(kernel_can_read(other.low - 1));
  });
  on_old_kernel.join();
}

TEST_CASE("without descriptors the guard is not found out, and mprotect does meanwhile") {
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  stack_pool pool(32768);
  held some(pool);
  rlimit none = before;
  none.rlim_cur = 0;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
  int error = 0;
  stack* const one = pool.acquire(error);
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
  REQUIRE(one != nullptr);
  some.all.push_back(one);
  CHECK_FALSE(kernel_can_read(one->low - 1));
  if (madvise_guards_work()) CHECK(some.take()->guarded_by == guard_kind::madvise);
}
#endif

TEST_CASE("mprotect stops at its budget, which all pools share, and canaries take over") {
  using concur::detail::mprotect_places;
  using concur::detail::mprotect_places_taken;
  const std::size_t taken_before = mprotect_places_taken.load();
  const std::size_t places_before = mprotect_places.load();
  mprotect_places.store(taken_before + 5);
  {
    stack_pool pool(32768, guard_kind::mprotect);
    stack_pool second_pool(32768, guard_kind::mprotect);
    held some(pool);
    held others(second_pool);
    for (int i = 0; i < 3; ++i) CHECK(some.take()->guarded_by == guard_kind::mprotect);
    for (int i = 0; i < 2; ++i) CHECK(others.take()->guarded_by == guard_kind::mprotect);
    CHECK(others.take()->guarded_by == guard_kind::canary);
    CHECK(some.take()->guarded_by == guard_kind::canary);
    CHECK(pool.guard() == guard_kind::canary);
    CHECK(mprotect_places_taken.load() == taken_before + 5);
  }
  CHECK(mprotect_places_taken.load() == taken_before);
  mprotect_places.store(places_before);
}

TEST_CASE("the stack given back last is handed out first") {
  stack_pool pool(16384);
  held some(pool);
  for (int i = 0; i < 10; ++i) some.take();
  const std::vector<stack*> order = some.all;
  some.give_back();
  for (std::size_t i = order.size(); i-- > 0;) CHECK(some.take() == order[i]);
  CHECK(pool.mapped_count() == 10);
}

TEST_CASE("counts say what is carved, in use and reserved") {
  stack_pool pool(16384);
  CHECK(pool.mapped_count() == 0);
  CHECK(pool.reserved_bytes() == 0);
  held some(pool);
  for (int i = 0; i < 100; ++i) some.take();
  CHECK(pool.mapped_count() == 100);
  CHECK(pool.live_count() == 100);
  CHECK(pool.reserved_bytes() >= 100 * 16384);
  some.give_back();
  CHECK(pool.mapped_count() == 100);
  CHECK(pool.live_count() == 0);
}

TEST_CASE("many at once: used ones first, new ones only when there is none") {
  stack_pool pool(16384);
  stack* out[8] = {};
  int error = 99;
  CHECK(pool.acquire_many(out, 8, error) == 8);
  CHECK(error == 0);
  CHECK(std::set<stack*>(out, out + 8).size() == 8);
  pool.release(out[0]);
  pool.release(out[1]);
  out[2]->next = out[3];
  out[3]->next = nullptr;
  pool.release_many(out[2]);
  CHECK(pool.live_count() == 4);
  stack* again[8] = {};
  CHECK(pool.acquire_many(again, 8, error) == 4);
  CHECK(pool.mapped_count() == 8);
  CHECK(pool.acquire_many(again + 4, 0, error) == 0);
  for (int i = 0; i < 4; ++i) pool.release(again[i]);
  for (int i = 4; i < 8; ++i) pool.release(out[i]);
  pool.release_many(nullptr);
  CHECK(pool.live_count() == 0);
}

TEST_CASE("which guard holds an address") {
  stack_pool pool(32768);
  held some(pool);
  const stack* which = nullptr;
  int local = 0;
  CHECK_FALSE(pool.guard_holds(&local, &which));
  for (int i = 0; i < 100; ++i) some.take();
  CHECK_FALSE(pool.guard_holds(&local, &which));
  CHECK_FALSE(pool.guard_holds(nullptr, &which));
  for (const stack* one : some.all) {
    which = nullptr;
    CHECK(pool.guard_holds(one->low - 1, &which));
    CHECK(which == one);
    which = nullptr;
    CHECK(pool.guard_holds(one->low - 4096, &which));
    CHECK(which == one);
    CHECK(pool.guard_holds(one->low - 1, nullptr));
    CHECK_FALSE(pool.guard_holds(one->low, &which));
    CHECK_FALSE(pool.guard_holds(top_byte(*one), &which));
  }
}

TEST_CASE("the tops of neighbours lie in different cache sets") {
  stack_pool pool(32768);
  held some(pool);
  std::set<std::uintptr_t> offsets;
  for (int i = 0; i < 16; ++i) offsets.insert(reinterpret_cast<std::uintptr_t>(top_byte(*some.take())) % 4096 / 128);
  CHECK(offsets.size() == 16);
}

#if defined(__linux__) && !CONCUR_ASAN && !CONCUR_TSAN
TEST_CASE("a stack of which one page was touched costs one page, and 100 bytes elsewhere") {
  if (page_bytes() != 4096 || is_emulated()) return;
  constexpr std::size_t count = 4000;
  stack_pool pool(sizeof(void*) >= 8 ? 262144 : 16384);
  held some(pool);
  some.all.reserve(count + 1);
  some.take();
  const std::size_t before = resident_bytes_of_process();
  for (std::size_t i = 0; i < count; ++i) *top_byte(*some.take()) = 1;
  CHECK(resident_bytes_of_process() - before <= count * 4196 + 65536);
  for (const stack* one : some.all) REQUIRE(resident_pages(*one) <= 1);
}

TEST_CASE("guards by madvise need no mappings of their own, and nothing stays when the pool goes") {
  if (!madvise_guards_work()) return;
  const std::size_t before = mapping_count();
  {
    stack_pool pool(65536);
    held some(pool);
    for (int i = 0; i < 3000; ++i) some.take();
    CHECK(mapping_count() <= before + 12);
  }
  CHECK(mapping_count() <= before + 2);
}

TEST_CASE("trimming gives back the pages of unused stacks step by step, and of no other") {
  for (const guard_kind kind : {guard_kind::none_yet, guard_kind::mprotect}) {
    stack_pool pool(65536, kind);
    held in_use(pool);
    held some(pool);
    for (int i = 0; i < 100; ++i) {
      stack& used = *in_use.take();
      stack& unused = *some.take();
      std::memset(used.low, 5, used.size);
      std::memset(unused.low, 5, unused.size);
    }
    const std::size_t full = resident_pages(*in_use.all[0]);
    const std::vector<stack*> unused = some.all;
    some.give_back();
    const std::size_t expected[] = {full, full, 1, 0, 0};  // before the first trim, and after each
    for (const std::size_t pages : expected) {
      for (const stack* one : unused) REQUIRE(resident_pages(*one) == pages);
      for (const stack* one : in_use.all) REQUIRE(resident_pages(*one) == full);
      pool.trim();
    }
    for (const stack* one : in_use.all) REQUIRE((*one->low == 5 && *top_byte(*one) == 5));
    for (int i = 0; i < 100; ++i) {
      const stack& one = *some.take();
      CHECK(*one.low == 0);
      CHECK_FALSE(kernel_can_read(one.low - 1));
    }
    CHECK(pool.mapped_count() == 200);
  }
}

TEST_CASE("what is used between two trims stays warm") {
  stack_pool pool(65536);
  held some(pool);
  for (int i = 0; i < 10; ++i) some.take();
  for (const stack* one : some.all) std::memset(one->low, 5, one->size);
  stack* const favourite = some.all.back();
  some.give_back();
  for (int i = 0; i < 6; ++i) {
    pool.trim();
    CHECK(some.take() == favourite);
    some.give_back();
  }
  CHECK(*favourite->low == 5);
}
#endif

namespace {

// Runs in a child: the limit cannot be tightened for the tests that follow. Returns the number of the step that failed.
[[maybe_unused]] int exhaust_address_space() {
  constexpr std::size_t room = std::size_t{8} << 20;
  std::size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  rlimit before{};
  if (::getrlimit(RLIMIT_AS, &before) != 0) return 1;
  rlimit tight = before;
  tight.rlim_cur = pages * page_bytes() + room;
  stack_pool pool(65536);
  if (::setrlimit(RLIMIT_AS, &tight) != 0) return 2;

  static stack* taken[1000];
  int error = 0;
  std::size_t count = 0;
  while (count < 1000 && (taken[count] = pool.acquire(error)) != nullptr) ++count;
  if (error != ENOMEM || count == 1000) return 3;
  const std::size_t for_stacks = room - concur::detail::bytes_left_to_others;
  if (count < for_stacks / (65536 + 65536 + 8192) - 4) return 4;  // smaller slabs were tried when big ones did not fit
  if (pool.live_count() != count || pool.mapped_count() != count) return 5;
  if (pool.acquire(error) != nullptr || error != ENOMEM) return 6;
  stack* out[4];
  if (pool.acquire_many(out, 4, error) != 0 || error != ENOMEM) return 7;

  pool.release(taken[--count]);
  stack* const again = pool.acquire(error);
  if (again != taken[count] || error != 0) return 8;
  ++count;
  for (std::size_t i = 0; i < count; ++i) *top_byte(*taken[i]) = 1;

  if (::setrlimit(RLIMIT_AS, &before) != 0) return 9;
  if ((taken[count] = pool.acquire(error)) == nullptr || error != 0) return 10;
  ++count;
  for (std::size_t i = 0; i < count; ++i) pool.release(taken[i]);
  return pool.live_count() == 0 ? 0 : 11;
}

}  // namespace

#if defined(__linux__)
// Mutant 23: a failed attempt to grow leaves the pool waiting for an attempt that nobody makes.
TEST_CASE("no address space is an error, loses nothing, and passes") {
  if (is_emulated()) return;  // the limit would be the emulator's
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::alarm(20);  // for a pool that waits for ever
    ::_exit(exhaust_address_space());
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}
#endif

TEST_CASE("sizes that no address space holds are an error") {
  for (const std::size_t size : {~std::size_t{0}, ~std::size_t{0} / 2}) {
    stack_pool pool(size);
    int error = 0;
    CHECK(pool.acquire(error) == nullptr);
    CHECK(error == ENOMEM);
    CHECK(pool.acquire(error) == nullptr);
    CHECK(pool.live_count() == 0);
  }
}

// Mutant 27: giving a stack back without the lock.
TEST_CASE("threads that take, give back and trim never share a stack") {
  constexpr int threads = 4;
  constexpr int rounds = 400000;
  stack_pool pool(16384);
  std::atomic<int> shared{0};
  std::atomic<int> started{0};
  std::vector<std::thread> workers;
  for (int id = 1; id <= threads; ++id) {
    workers.emplace_back([&, id] {
      std::minstd_rand random(static_cast<unsigned>(id));
      std::vector<stack*> mine;
      started.fetch_add(1);
      while (started.load() < threads) std::this_thread::yield();
      for (int i = 0; i < rounds; ++i) {
        int error = 0;
        if (mine.size() < 20 && random() % 2 == 0) {
          stack* out[4];
          const std::size_t got = pool.acquire_many(out, 1 + random() % 4, error);
          for (std::size_t k = 0; k < got; ++k) {
            *top_byte(*out[k]) = static_cast<char>(id);
            mine.push_back(out[k]);
          }
        } else if (!mine.empty()) {
          std::swap(mine[random() % mine.size()], mine.back());
          if (*top_byte(*mine.back()) != static_cast<char>(id)) shared.fetch_add(1);
          pool.release(mine.back());
          mine.pop_back();
        }
        if (i % 4000 == 0) pool.trim();
      }
      for (stack* one : mine) {
        if (*top_byte(*one) != static_cast<char>(id)) shared.fetch_add(1);
        pool.release(one);
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  CHECK(shared.load() == 0);
  CHECK(pool.live_count() == 0);
  CHECK(pool.mapped_count() <= threads * (24 + 32));  // each has so many in use and in its hands while trimming
}
