// test_parallel_invoke.cpp - parallel_invoke: every function is called once and has ended, whoever ran it; failures,
// cancellation, functions that wait for each other, and forks that are left open while their fiber waits.
#include "support/nursery.hpp"
#include "support/results.hpp"
#include "support/tally.hpp"
#include "support/test.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

long fib(int n) {
  if (n < 2) return n;
  long a = 0;
  long b = 0;
  concur::parallel_invoke([&] { a = fib(n - 1); }, [&] { b = fib(n - 2); });
  return a + b;
}

// Computes until the other function has begun: only another worker can begin it meanwhile.
bool spin_until(const std::atomic<bool>& holds) {
  const auto limit = std::chrono::steady_clock::now() + much_too_long;
  while (!holds.load()) {
    if (std::chrono::steady_clock::now() > limit) return false;
    std::this_thread::yield();
  }
  return true;
}

// Forks open one inside the other.
void descend(int depth, std::atomic<int>& calls) {
  if (depth == 0) return;
  concur::parallel_invoke([&] { descend(depth - 1, calls); }, [&] { calls.fetch_add(1); });
}

}  // namespace

TEST_CASE("every function is called once, as what it was given as") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    static_assert(std::is_void<decltype(concur::parallel_invoke())>::value);
    concur::parallel_invoke();
    int calls = 0;
    auto counts = [&calls, mine = std::make_unique<int>(1)]() mutable { calls += *mine; };
    concur::parallel_invoke(counts);  // an lvalue is called, not copied
    concur::parallel_invoke(counts, [&, other = std::make_unique<int>(1)] { CONCUR_EXPECT(held, *other == 1); });
    CONCUR_EXPECT(held, calls == 2);
    std::array<int, 7> each{};
    const auto sets = [&](std::size_t i) { return [&each, i] { return each[i] = static_cast<int>(i) + 1; }; };
    concur::parallel_invoke(sets(0), sets(1), sets(2), sets(3), sets(4), sets(5), sets(6));
    for (std::size_t i = 0; i < 7; ++i) CONCUR_EXPECT(held, each[i] == static_cast<int>(i) + 1);
    struct one_way {
      int& out;
      void operator()() && { out = 5; }
      void operator()() & { out = 6; }
    };
    int first = 0;
    int second = 0;
    int third = 0;
    one_way kept{second};
    concur::parallel_invoke(one_way{first}, kept, one_way{third});
    CONCUR_EXPECT(held, first == 5 && second == 6 && third == 5);
  });
}

TEST_CASE("a recursion without a cut-off adds up") {
  const nothing_left_over guard;
  with_each_count([](tally& held) { CONCUR_EXPECT(held, fib(22) == 17711); });
}

TEST_CASE("with one worker, and on a plain thread, they run in their order") {
  const nothing_left_over guard;
  const auto look = [] {
    std::string order;
    concur::parallel_invoke([&] { order += 'a'; }, [&] { order += 'b'; }, [&] { order += 'c'; }, [&] { order += 'd'; },
                            [&] { order += 'e'; });
    return order;
  };
  CHECK(look() == "abcde");
  std::string order;
  concur::run(with_workers(1), [&] { order = look(); });
  CHECK(order == "abcde");
}

TEST_CASE("a function that an idle worker takes runs there, while the caller computes") {
  const nothing_left_over guard;
  tally held;
  concur::run(with_workers(2), [&] {
    for (int i = 0; i < 50; ++i) {
      std::atomic<bool> has_begun{false};
      std::thread::id here;
      std::thread::id there;
      int written = 0;
      concur::parallel_invoke(
          [&] {
            here = std::this_thread::get_id();
            CONCUR_EXPECT(held, spin_until(has_begun));
          },
          [&] {
            there = std::this_thread::get_id();
            has_begun.store(true);
            written = 7;
          });
      CONCUR_EXPECT(held, here != there && written == 7);
    }
  });
  CHECK(held.report() == "");
}

TEST_CASE("a function elsewhere is a fiber of its own, with values of its own") {
  const nothing_left_over guard;
  tally held;
  static concur::fiber_local<int> number([] { return 0; });
  concur::run(with_workers(2), [&] {
    *number = 3;
    std::atomic<bool> has_begun{false};
    const auto id = concur::this_fiber::get_id();
    concur::parallel_invoke([&] { CONCUR_EXPECT(held, spin_until(has_begun)); },
                            [&] {
                              CONCUR_EXPECT(held, concur::this_fiber::get_id() != id && *number == 0);
                              *number = 4;
                              has_begun.store(true);
                              concur::this_fiber::sleep_for(microseconds(50));
                              CONCUR_EXPECT(held, *number == 4);
                            });
    CONCUR_EXPECT(held, *number == 3 && concur::this_fiber::get_id() == id);
  });
  CHECK(held.report() == "");
}

TEST_CASE("functions may wait for each other, whichever begins first") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    concur::channel<int> there;
    concur::channel<int> back;
    int got = 0;
    concur::parallel_invoke(
        [&] {
          there.send(1);
          got = *back.recv();
        },
        [&] { back.send(*there.recv() + 1); });
    CONCUR_EXPECT(held, got == 2);
    // The first waits for the last of many.
    concur::event done;
    concur::parallel_invoke([&] { done.wait(); }, [&] { done.wait(); }, [&] { done.wait(); }, [&] { done.set(); });
  });
}

TEST_CASE("the next function begins although the worker never runs out of other fibers") {
  const nothing_left_over guard;
  tally held;
  concur::run(with_workers(1), [&] {
    std::atomic<bool> is_over{false};
    const auto busy = [&] {
      while (!is_over.load()) concur::this_fiber::yield();
    };
    auto one = concur::go(busy);
    auto two = concur::go(busy);
    concur::event done;
    concur::parallel_invoke([&] { CONCUR_EXPECT(held, done.wait_for(much_too_long)); }, [&] { done.set(); });
    is_over.store(true);
    one.get();
    two.get();
  });
  CHECK(held.report() == "");
}

TEST_CASE("more open forks than the deque has room for") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    std::atomic<int> calls{0};
    constexpr int depth = 3 * static_cast<int>(concur::detail::job_deque::capacity);
    concur::go([&] { descend(depth / 6, calls); }).get();
    CONCUR_EXPECT(held, calls.load() == depth / 6);
  });
  tally held;
  concur::options roomy = with_workers(2);
  roomy.stack_size = 1 << 20;
  concur::run(roomy, [&] {
    std::atomic<int> calls{0};
    constexpr int depth = 3 * static_cast<int>(concur::detail::job_deque::capacity);
    descend(depth, calls);
    CONCUR_EXPECT(held, calls.load() == depth);
  });
  CHECK(held.report() == "");
}

TEST_CASE("forks that are open while their fibers wait, overtake each other, and go on elsewhere") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    std::atomic<int> firsts{0};
    std::atomic<int> seconds{0};
    constexpr int fibers = 20;
    constexpr int rounds = 200;
    concur::with_nursery([&](concur::nursery& n) {
      for (int i = 0; i < fibers; ++i) {
        n.go([&, i] {
          for (int round = 0; round < rounds; ++round) {
            int mine = 0;
            concur::parallel_invoke(
                [&] {
                  if ((i + round) % 3 == 0) concur::this_fiber::yield();
                  if ((i + round) % 17 == 0) concur::this_fiber::sleep_for(microseconds(30));
                  firsts.fetch_add(1);
                },
                [&] {
                  if (round % 5 == 0) concur::this_fiber::yield();
                  ++mine;
                  seconds.fetch_add(1);
                },
                [&] { concur::this_fiber::yield(); });
            CONCUR_EXPECT(held, mine == 1);
          }
        });
      }
    });
    CONCUR_EXPECT(held, firsts.load() == fibers * rounds && seconds.load() == fibers * rounds);
  });
}

TEST_CASE("every function runs to its end although others throw, and the first of the failures comes out") {
  const nothing_left_over guard;
  const auto look = [](tally& held) {
    std::atomic<int> ended{0};
    const auto ends = [&] { ended.fetch_add(1); };
    const auto throws = [&](int number) {
      return [&ended, number] {
        ended.fetch_add(1);
        throw special_error(number);
      };
    };
    CONCUR_EXPECT(held, number_from([&] { concur::parallel_invoke(throws(1), ends); }) == 1);
    CONCUR_EXPECT(held, number_from([&] { concur::parallel_invoke(ends, throws(2)); }) == 2);
    CONCUR_EXPECT(held, number_from([&] { concur::parallel_invoke(throws(3), throws(4)); }) == 3);
    CONCUR_EXPECT(held, number_from([&] { concur::parallel_invoke(ends, throws(5), throws(6), ends); }) == 5);
    CONCUR_EXPECT(held, number_from([&] { concur::parallel_invoke(ends, ends, ends, ends, throws(7)); }) == 7);
    CONCUR_EXPECT(held, ended.load() == 15);
  };
  with_each_count(look);
  tally held;
  look(held);
  CHECK(held.report() == "");
}

TEST_CASE("a failure elsewhere comes out here; a failure here waits for who is elsewhere") {
  const nothing_left_over guard;
  tally held;
  concur::run(with_workers(2), [&] {
    std::atomic<bool> has_begun{false};
    CONCUR_EXPECT(held, number_from([&] {
                          concur::parallel_invoke([&] { CONCUR_EXPECT(held, spin_until(has_begun)); },
                                                  [&] {
                                                    has_begun.store(true);
                                                    concur::this_fiber::sleep_for(microseconds(50));
                                                    throw special_error(8);
                                                  });
                        }) == 8);
    has_begun.store(false);
    bool has_ended = false;
    CONCUR_EXPECT(held, number_from([&] {
                          concur::parallel_invoke(
                              [&] {
                                CONCUR_EXPECT(held, spin_until(has_begun));
                                throw special_error(9);
                              },
                              [&] {
                                has_begun.store(true);
                                concur::this_fiber::sleep_for(microseconds(50));
                                has_ended = true;
                              });
                        }) == 9);
    CONCUR_EXPECT(held, has_ended);
  });
  CHECK(held.report() == "");
}

TEST_CASE("`cancelled` gives way to a failure") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    CONCUR_EXPECT(held, number_from([&] {
                          concur::move_on_after(milliseconds(0), [&] {
                            concur::parallel_invoke([] { sleep_long(); }, [] { throw special_error(1); });
                          });
                        }) == 1);
    CONCUR_EXPECT(held, number_from([&] {
                          concur::move_on_after(milliseconds(0), [&] {
                            concur::parallel_invoke([] { throw special_error(2); }, [] { sleep_long(); });
                          });
                        }) == 2);
  });
}

TEST_CASE("a cancellation reaches every function, here and elsewhere, and ends where it belongs") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    for (int i = 0; i < 20; ++i) {
      std::atomic<int> cut{0};
      const auto sleeps = [&] {
        try {
          sleep_long();
        } catch (const concur::cancelled&) {
          cut.fetch_add(1);
          throw;
        }
      };
      const bool has_returned =
          concur::move_on_after(microseconds(200), [&] { concur::parallel_invoke(sleeps, sleeps, sleeps); });
      CONCUR_EXPECT(held, !has_returned && cut.load() == 3);
    }
  });
  // The caller waits for a function elsewhere when it is cancelled.
  tally held;
  concur::run(with_workers(2), [&] {
    std::atomic<bool> has_begun{false};
    bool was_cut = false;
    const bool has_returned = concur::move_on_after(milliseconds(1), [&] {
      concur::parallel_invoke([&] { CONCUR_EXPECT(held, spin_until(has_begun)); },
                              [&] {
                                has_begun.store(true);
                                try {
                                  sleep_long();
                                } catch (const concur::cancelled&) {
                                  was_cut = true;
                                  throw;
                                }
                              });
    });
    CONCUR_EXPECT(held, !has_returned && was_cut);
  });
  CHECK(held.report() == "");
}

TEST_CASE("a shield around the call keeps a cancellation off all of it") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    int ended = 0;
    const bool has_returned = concur::move_on_after(milliseconds(0), [&] {
      concur::shield([&] {
        std::atomic<int> count{0};
        const auto sleeps = [&] {
          concur::this_fiber::sleep_for(microseconds(100));
          count.fetch_add(1);
        };
        concur::parallel_invoke(sleeps, sleeps, sleeps);
        ended = count.load();
      });
    });
    CONCUR_EXPECT(held, ended == 3 && has_returned);
  });
}

TEST_CASE("the end of a runtime cuts short what is under way") {
  const nothing_left_over guard;
  for (const unsigned workers : {1u, 2u}) {
    std::atomic<int> cut{0};
    concur::event begun;
    {
      concur::runtime all(with_workers(workers));
      all.go([&] {
        const auto sleeps = [&] {
          begun.set();
          try {
            sleep_long();
          } catch (const concur::cancelled&) {
            cut.fetch_add(1);
            throw;
          }
        };
        concur::parallel_invoke(sleeps, sleeps);
      });
      begun.wait();
    }
    CHECK(cut.load() == 2);
  }
}
