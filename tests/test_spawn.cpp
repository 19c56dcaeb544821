// test_spawn.cpp - a function becomes a fiber: its arguments, its closure, its place among the others, and run's
// promises.
#include "support/companion.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using concur::go;

namespace {

struct counted {
  static std::atomic<int> live;
  static std::atomic<int> copies;
  counted() { ++live; }
  counted(const counted&) {
    ++live;
    ++copies;
  }
  counted(counted&&) noexcept { ++live; }
  ~counted() { --live; }
};
std::atomic<int> counted::live{0};
std::atomic<int> counted::copies{0};

struct alignas(64) aligned {
  std::uintptr_t here() const { return reinterpret_cast<std::uintptr_t>(this); }
  char bytes[64] = {};
};

struct throws_on_copy {
  throws_on_copy() = default;
  throws_on_copy(const throws_on_copy&) { throw std::runtime_error("no copy"); }
  void operator()() const {}
};

struct machine {
  int number = 5;
  int add(int n) { return number += n; }
};

}  // namespace

TEST_CASE("arguments are kept as std::thread keeps them") {
  const nothing_left_over guard;
  concur::run(with_workers(2), [] {
    CHECK(go([](int a, int b) { return a - b; }, 7, 2).get() == 5);
    std::string text = "kept by value";
    concur::future<std::size_t> length = go([](const std::string& s) { return s.size(); }, text);
    text.clear();
    CHECK(length.get() == 13);
    CHECK(go([](std::unique_ptr<int> p) { return *p; }, std::make_unique<int>(3)).get() == 3);
    int target = 0;
    go([](int& n) { n = 4; }, std::ref(target)).get();
    CHECK(target == 4);
    machine m;
    CHECK(go(&machine::add, &m, 2).get() == 7);
    CHECK(m.number == 7);
    CHECK(go(&machine::number, &m).get() == 7);
    int calls = 0;
    auto mutable_closure = [&calls, n = 0]() mutable { calls = ++n; };
    go(std::move(mutable_closure)).get();
    CHECK(calls == 1);
    go([p = std::make_unique<int>(1)] { CHECK(*p == 1); }).get();
  });
}

TEST_CASE("closures of every size are destroyed once, and not copied when moved") {
  const nothing_left_over guard;
  counted::copies = 0;
  concur::run(with_workers(2), [] {
    counted small_one;
    go([held = std::move(small_one)] {}).get();
    std::array<char, 4000> load{};
    load[3999] = 'z';
    CHECK(go([load, held = counted()] { return load[3999]; }).get() == 'z');
    aligned wide;
    const std::uintptr_t address = go([wide] { return wide.here(); }).get();
    CHECK(address % alignof(aligned) == 0);
  });
  CHECK(counted::live == 0);
  CHECK(counted::copies == 0);
}

TEST_CASE("a closure that cannot be copied costs nothing") {
  const nothing_left_over guard;
  concur::run(with_workers(1), [] {
    const throws_on_copy function;
    for (int i = 0; i < 100; ++i) CHECK_THROWS_AS(go(function), std::runtime_error);
  });
}

TEST_CASE("outside of a runtime go says what to do instead") {
  const nothing_left_over guard;
  bool names_remedy = false;
  try {
    go([] {});
  } catch (const std::logic_error& error) {
    names_remedy = std::string(error.what()).find("concur::run") != std::string::npos;
  }
  CHECK(names_remedy);
}

TEST_CASE("run waits for every fiber, and returns what the root returned") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    std::atomic<int> ended{0};
    const std::unique_ptr<int> result = concur::run(with_workers(workers), [&] {
      for (int i = 0; i < 10; ++i) {
        go([&] {
          go([&] {
            concur::this_fiber::sleep_for(std::chrono::milliseconds(2));
            ++ended;
          });
          ++ended;
        });
      }
      return std::make_unique<int>(6);
    });
    CHECK(*result == 6);
    CHECK(ended == 20);
  }
  int value = 0;
  int& reference = concur::run([&]() -> int& { return value; });
  CHECK(&reference == &value);
}

TEST_CASE("run inside of run, and several runtimes at once") {
  const nothing_left_over guard;
  const int inner = concur::run(with_workers(1), [] { return concur::run(with_workers(1), [] { return 5; }) + 1; });
  CHECK(inner == 6);
  concur::runtime a(with_workers(1));
  concur::runtime b(with_workers(2));
  const int both = a.block_on([&] { return b.block_on([] { return 2; }) + b.go([] { return 1; }).get(); });
  CHECK(both == 3);
}

TEST_CASE("a new fiber goes behind, and on one worker the order of spawning is the order of running") {
  const nothing_left_over guard;
  std::vector<int> order;
  concur::run(with_workers(1), [&] {
    for (int i = 0; i < 600; ++i) go([&order, i] { order.push_back(i); });
    order.push_back(-1);
  });
  REQUIRE(order.size() == 601);
  CHECK(order[0] == -1);
  std::set<int> all(order.begin(), order.end());
  CHECK(all.size() == 601);
  for (int i = 0; i < 100; ++i) {
    const auto at = [&](int n) { return std::find(order.begin(), order.end(), n) - order.begin(); };
    CHECK(at(i) < at(i + 1));
  }
}

TEST_CASE("a spawn storm from everywhere: each function runs exactly once") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    constexpr std::size_t parties = 4;
    constexpr std::size_t each = 2000;
    std::vector<std::atomic<unsigned char>> runs(2 * parties * each);
    {
      concur::runtime rt(with_workers(workers));
      const auto storm = [&](std::size_t party) {
        for (std::size_t i = 0; i < each; ++i) rt.go([&runs, n = party * each + i] { ++runs[n]; });
      };
      for (std::size_t party = 0; party < parties; ++party) rt.go([&storm, party] { storm(party); });
      std::vector<std::thread> threads;
      for (std::size_t party = parties; party < 2 * parties; ++party)
        threads.emplace_back([&storm, party] { storm(party); });
      for (std::thread& one : threads) one.join();
      rt.wait_for_all();
    }
    std::size_t wrong = 0;
    for (const std::atomic<unsigned char>& one : runs) wrong += one.load() != 1 ? 1 : 0;
    CHECK(wrong == 0);
  }
}

TEST_CASE("as many fibers as workers run side by side, though none of them lets go") {
  // Each worker that finds more than one takes half: so two workers may be left with a single fiber behind the one that
  // computes, and both are to be found.
  const nothing_left_over guard;
  constexpr int parties = 4;
  bool has_met = true;
  for (int round = 0; round < 10 && has_met; ++round) {
    has_met = concur::run(with_workers(parties), [] {
      std::atomic<int> present{0};
      const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      const auto meet = [&present, limit] {
        ++present;
        while (present != parties) {
          if (std::chrono::steady_clock::now() > limit) return false;
        }
        return true;
      };
      std::vector<concur::future<bool>> others;
      for (int i = 1; i < parties; ++i) others.push_back(go(meet));
      bool have_all_met = meet();
      for (concur::future<bool>& one : others) have_all_met = one.get() && have_all_met;
      return have_all_met;
    });
  }
  CHECK(has_met);
}

TEST_CASE("a result that nobody wants may wait while it is destroyed, and go on at another worker") {
  const nothing_left_over guard;
  struct sides {
    concur::channel<int> gate;
    std::atomic<bool> is_dropped{false};
    std::atomic<bool> is_held{false};
    std::atomic<bool> has_gone_on{false};
  };
  struct reluctant {
    explicit reluctant(sides& at_in) : at(&at_in) {}
    reluctant(reluctant&& other) noexcept : at(std::exchange(other.at, nullptr)) {}
    reluctant& operator=(reluctant&&) = delete;
    ~reluctant() {
      if (at == nullptr) return;
      sides& here = *at;
      // Takes this worker as soon as we wait, so that we go on at the other one.
      go([&here] {
        here.is_held = true;
        while (!here.has_gone_on) std::this_thread::yield();
      });
      here.gate.recv();
      here.has_gone_on = true;
    }
    sides* at;
  };
  for (int round = 0; round < 10; ++round) {
    concur::runtime rt(with_workers(2));
    sides at;
    static_cast<void>(rt.go([&at] {
      while (!at.is_dropped) concur::this_fiber::yield();
      return reluctant(at);
    }));
    at.is_dropped = true;
    while (!at.is_held) std::this_thread::yield();
    at.gate.send(1);
    rt.wait_for_all();
    CHECK(at.has_gone_on);
    CHECK(rt.block_on([] { return 7; }) == 7);
  }
}

TEST_CASE("ids differ, and figures come out even") {
  const nothing_left_over guard;
  concur::runtime rt(with_workers(2));
  std::set<std::uint64_t> ids;
  for (int i = 0; i < 100; ++i) ids.insert(rt.block_on([] { return concur::this_fiber::get_id().value(); }));
  CHECK(ids.size() == 100);
  CHECK(ids.count(0) == 0);
  rt.wait_for_all();
  const concur::stats all = rt.snapshot();
  CHECK(all.fibers_spawned == 100);
  CHECK(all.fibers_finished == 100);
  CHECK(all.fibers_live == 0);
  CHECK(all.timers == 0);
}
