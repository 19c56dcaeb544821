// stress_parallel.cpp - random trees of forks, whose functions compute, yield, sleep, talk to each other, fail, and are
// cancelled; and each function must have been called once and have ended before its fork returns.
//
// A tree is drawn from a seed: what each function does, and what it forks. Who runs it is up to the machine. Several fibers
// play such trees at the same time, so that forks of one worker overtake each other, and more fibers only yield, so that
// workers are seldom idle.
#include "support/results.hpp"
#include "support/tally.hpp"
#include "support/test.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <random>

namespace {

using std::chrono::microseconds;

#if CONCUR_TSAN || CONCUR_ASAN
constexpr int slowness = 20;
#else
constexpr int slowness = 1;
#endif

struct planned {
  unsigned number;
};

// One tree's books.
struct books {
  tally& held;
  std::atomic<int> begun{0};
  std::atomic<int> ended{0};
};

void play(unsigned seed, int depth, books& all, bool may_fail);

void act(std::mt19937& random) {
  switch (random() % 12) {
    case 0:
      concur::this_fiber::yield();
      break;
    case 1:
      concur::this_fiber::sleep_for(microseconds(random() % 40));
      break;
    case 2: {
      concur::channel<int> there;
      int got = 0;
      concur::parallel_invoke([&] { there.send(5); }, [&] { got = there.recv().value_or(0); });
      break;
    }
    case 3: {
      concur::move_on_after(microseconds(random() % 30), [] {
        concur::parallel_invoke([] { concur::this_fiber::sleep_for(microseconds(50)); },
                                [] { concur::this_fiber::sleep_for(microseconds(10)); });
      });
      break;
    }
    default: {
      volatile unsigned waste = 0;
      for (unsigned i = random() % 300; i > 0; --i) waste = waste + i;
    }
  }
}

// A function of a fork, which counts itself also when it is left by an exception.
struct presence {
  explicit presence(books& all_in) : all(all_in) { all.begun.fetch_add(1); }
  ~presence() { all.ended.fetch_add(1); }
  presence(const presence&) = delete;
  presence& operator=(const presence&) = delete;
  books& all;
};

void fork_some(std::mt19937& random, int depth, books& all, bool may_fail) {
  const unsigned seed = static_cast<unsigned>(random());
  std::array<std::atomic<int>, 3> calls{};
  const auto one = [&](unsigned i) {
    return [&, i] {
      const presence here(all);
      calls[i].fetch_add(1);
      play(seed + i, depth - 1, all, may_fail);
      calls[i].fetch_add(10);
    };
  };
  bool has_failed = false;
  const unsigned count = 2 + seed % 2;
  try {
    if (count == 2)
      concur::parallel_invoke(one(0), one(1));
    else
      concur::parallel_invoke(one(0), one(1), one(2));
  } catch (const planned&) {
    has_failed = true;
  }
  int sum = 0;
  for (const auto& each : calls) sum += each.load();
  const int wanted = 11 * static_cast<int>(count);
  CONCUR_EXPECT(all.held, has_failed ? sum < wanted && sum % 10 == static_cast<int>(count) : sum == wanted);
}

void play(unsigned seed, int depth, books& all, bool may_fail) {
  std::mt19937 random(seed);
  act(random);
  if (depth > 0) {
    for (unsigned n = random() % 3; n > 0; --n) fork_some(random, depth, all, may_fail);
  }
  if (may_fail && random() % 25 == 0) throw planned{seed};
}

void storm(unsigned workers, unsigned seed, int trees) {
  CAPTURE(workers);
  CAPTURE(seed);
  tally held;
  concur::run(with_workers(workers), [&] {
    std::atomic<bool> is_over{false};
    concur::with_nursery([&](concur::nursery& n) {
      for (int i = 0; i < 2; ++i) {
        n.go([&] {
          while (!is_over.load()) concur::this_fiber::yield();
        });
      }
      concur::with_nursery([&](concur::nursery& players) {
        for (unsigned i = 0; i < 6; ++i) {
          players.go([&, i] {
            for (int t = 0; t < trees; ++t) {
              books all{held};
              std::mt19937 random(seed + 1000 * i + static_cast<unsigned>(t));
              fork_some(random, 5, all, t % 2 == 0);
              CONCUR_EXPECT(held, all.begun.load() == all.ended.load());
            }
          });
        }
      });
      is_over.store(true);
    });
  });
  CHECK(held.report() == "");
}

}  // namespace

TEST_CASE("trees of forks among busy workers") {
  const nothing_left_over guard;
  for (const unsigned workers : {1u, 2u, 3u}) storm(workers, 7000 + workers, 200 / slowness * CONCUR_TEST_SCALE);
}

TEST_CASE("forks that are called off from all sides") {
  const nothing_left_over guard;
  for (const unsigned workers : {1u, 2u, 3u}) {
    CAPTURE(workers);
    tally held;
    concur::run(with_workers(workers), [&] {
      for (unsigned i = 0; i < static_cast<unsigned>(2000 / slowness * CONCUR_TEST_SCALE); ++i) {
        books all{held};
        std::mt19937 random(i);
        const auto part = [&](unsigned which) {
          return [&, which] {
            const presence here(all);
            std::mt19937 own(i + which);
            for (unsigned n = own() % 4; n > 0; --n) concur::this_fiber::sleep_for(microseconds(own() % 20));
            concur::parallel_invoke([&] { concur::this_fiber::sleep_for(microseconds(own() % 20)); },
                                    [] { concur::this_fiber::yield(); });
          };
        };
        concur::move_on_after(microseconds(random() % 60), [&] { concur::parallel_invoke(part(1), part(2), part(3)); });
        CONCUR_EXPECT(held, all.begun.load() == 3 && all.ended.load() == 3);
      }
    });
    CHECK(held.report() == "");
  }
}
