// test_wake.cpp - a plain thread that gives a sleeping runtime work always gets through.
//
// A worker that goes to sleep and a thread that brings work may miss each other: one looks at the queues before the work
// is there, the other looks for sleepers before there is one. The window is some nanoseconds wide. So the thread sends
// again and again, each time a little later after the last answer, and the answers' times sweep the worker's whole way
// from its last fiber to its bed. A wake-up that is lost shows as an answer that does not come in ten seconds.
//
// A million tries over one, two and four workers, in each way in which work comes from outside.
#include "support/tally.hpp"
#include "support/test.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

namespace {

// Each of six times. A tenth of it with a sanitizer, which makes the window another one anyway.
#if CONCUR_TSAN || CONCUR_ASAN
constexpr unsigned tries = 100000 / 6 + 1;
#else
constexpr unsigned tries = 1000000 / 6 + 1;
#endif

// A few nanoseconds for each round; the compiler must not see through it.
void spin(unsigned rounds) {
  for (volatile unsigned i = 0; i < rounds; i = i + 1) {
  }
}

// Waits until the word has the value. False: ten seconds were not enough.
bool comes_to(const std::atomic<unsigned>& word, unsigned value) {
  for (unsigned round = 0; round < 20000; ++round) {
    if (word.load() == value) return true;
    if (round % 64 == 63) std::this_thread::yield();
  }
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (word.load() != value) {
    if (std::chrono::steady_clock::now() > limit) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
  return true;
}

// A different pause each time, most of them short, some long enough for all workers to lie down.
class pauses {
 public:
  void next() {
    seed_ = seed_ * 6364136223846793005u + 1442695040888963407u;
    const unsigned draw = static_cast<unsigned>(seed_ >> 33);
    if (draw % 64 == 0)
      spin(draw / 64 % 20000);
    else
      spin(draw / 64 % 1500);
  }

 private:
  std::uint64_t seed_ = 42;
};

template <class Send>
void try_again_and_again(concur::runtime& rt, std::atomic<unsigned>& answered, unsigned how_often, Send send) {
  const std::size_t sleeps_before = rt.snapshot().sleeps;
  pauses pause;
  unsigned done = 0;
  while (done < how_often) {
    send(++done);
    if (!comes_to(answered, done)) break;
    pause.next();
    if (done % 32 == 0) std::this_thread::sleep_for(std::chrono::microseconds(50));  // now they do sleep
  }
  const std::size_t sleeps = rt.snapshot().sleeps - sleeps_before;
  MESSAGE(rt.snapshot().workers, " workers slept ", sleeps, " times in ", done, " tries");
  CHECK(answered.load() == how_often);
  CHECK(sleeps > how_often / 100);  // mostly all of them; on a busy machine fewer
}

}  // namespace

TEST_CASE("a value sent by a plain thread wakes the fiber that waits for it") {
  const nothing_left_over guard;
  for (const unsigned workers : {1u, 2u, 4u}) {
    concur::runtime rt(with_workers(workers));
    concur::channel<unsigned> ch(1);
    std::atomic<unsigned> answered{0};
    concur::future<void> fiber = rt.go([&, ch]() mutable {
      for (unsigned number : ch) answered.store(number);
    });
    try_again_and_again(rt, answered, tries * CONCUR_TEST_SCALE, [&](unsigned number) { ch.send(number); });
    ch.close();
    fiber.get();
  }
}

TEST_CASE("a fiber started by a plain thread runs") {
  const nothing_left_over guard;
  for (const unsigned workers : {1u, 2u, 4u}) {
    concur::runtime rt(with_workers(workers));
    std::atomic<unsigned> answered{0};
    try_again_and_again(rt, answered, tries * CONCUR_TEST_SCALE, [&](unsigned number) {
      static_cast<void>(rt.go([&answered, number] { answered.store(number); }));
    });
  }
}

// The pinned one goes to its worker's inbox, and only that worker may take it.
TEST_CASE("a fiber that must run on one worker is woken there") {
  const nothing_left_over guard;
  for (const unsigned workers : {2u, 4u}) {
    concur::options wanted = with_workers(workers);
    wanted.migration = concur::migration::at_start;
    concur::runtime rt(wanted);
    concur::channel<unsigned> ch(1);
    std::atomic<unsigned> answered{0};
    concur::future<void> fiber = rt.go([&, ch]() mutable {
      for (unsigned number : ch) answered.store(number);
    });
    try_again_and_again(rt, answered, tries / 4 * CONCUR_TEST_SCALE, [&](unsigned number) { ch.send(number); });
    ch.close();
    fiber.get();
  }
}

// One worker computes, with a fiber behind it; the other has one fiber that only yields, and so never runs out of work.
TEST_CASE("a worker whose fiber only yields takes what waits behind one that computes") {
  const nothing_left_over guard;
  concur::runtime rt(with_workers(2));
  std::atomic<bool> is_over{false};
  std::atomic<bool> has_run{false};
  concur::future<void> yields = rt.go([&] {
    while (!is_over.load()) concur::this_fiber::yield();
  });
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20 * CONCUR_TEST_SCALE);
  rt.go([&] {
      concur::future<void> behind = concur::go([&] { has_run.store(true); });
      while (!has_run.load() && std::chrono::steady_clock::now() < limit) {
      }
    }).get();
  CHECK(has_run.load());
  is_over.store(true);
  yields.get();
}

// Force stops its victim for longer than a hundred such fibers take. A fiber that spawns looks as if they took long.
TEST_CASE("fibers that are over in no time are taken by force a few times in a millisecond, at most") {
  const nothing_left_over guard;
  concur::runtime rt(with_workers(2));
  const auto begin = std::chrono::steady_clock::now();
  rt.go([] {
      std::vector<concur::future<void>> room;
      for (int round = 0; round < 4; ++round) {
        for (int i = 0; i < 100'000; ++i) room.push_back(concur::go([] {}));
        for (concur::future<void>& one : room) one.get();
        room.clear();
      }
    }).get();
  const std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - begin;
  const std::size_t steals = rt.snapshot().steals;
  MESSAGE(steals, " times in ", taken.count(), " ms");
  CHECK(static_cast<double>(steals) <= 20 + 10 * taken.count());
}

// A worker sets a timer and goes to sleep beside the one that sleeps in the poller, which must not sleep past it.
TEST_CASE("a timer set by one worker is kept though another sleeps in the poller") {
  const nothing_left_over guard;
  for (const unsigned workers : {1u, 2u, 4u}) {
    concur::runtime rt(with_workers(workers));
    std::atomic<unsigned> answered{0};
    concur::channel<unsigned> ch(1);
    concur::future<void> fiber = rt.go([&, ch]() mutable {
      for (unsigned number : ch) {
        concur::this_fiber::sleep_for(std::chrono::microseconds(number % 150));
        answered.store(number);
      }
    });
    try_again_and_again(rt, answered, 1500 * CONCUR_TEST_SCALE, [&](unsigned number) { ch.send(number); });
    ch.close();
    fiber.get();
  }
}

// Many threads, many fibers: every value comes back to the one that sent it.
TEST_CASE("many plain threads and many fibers wake each other") {
  const nothing_left_over guard;
  constexpr unsigned pairs = 8;
  constexpr unsigned turns = 4000 * CONCUR_TEST_SCALE;
  for (const unsigned workers : {1u, 2u, 4u}) {
    concur::runtime rt(with_workers(workers));
    tally held;
    std::thread threads[pairs];
    for (std::thread& one : threads) {
      one = std::thread([&] {
        concur::channel<unsigned> there(1);
        concur::channel<unsigned> back(1);
        concur::future<void> fiber = rt.go([there, back]() mutable {
          for (unsigned number : there) back.send(number + 1);
        });
        for (unsigned i = 0; i < turns; ++i) {
          there.send(i);
          unsigned answer = 0;
          CONCUR_EXPECT(held, back.recv_for(answer, std::chrono::seconds(10)) == concur::status::ok);
          CONCUR_EXPECT(held, answer == i + 1);
          if (answer != i + 1) break;
        }
        there.close();
        fiber.get();
      });
    }
    for (std::thread& one : threads) one.join();
    CHECK(held.report() == "");
  }
}
