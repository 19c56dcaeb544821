// stress_nursery.cpp - random trees of nurseries, scopes, limits and shields, in which fibers fail, are cancelled and run out of
// time at any point; and each tree must end with nothing running, nothing unreported, and every exception where it belongs.
//
// A tree is drawn from a seed: what each fiber does, and what its children do. When things meet is up to the machine. A
// nursery's own books say what must come of it:
//
//     children that began   =  children that ended, before the nursery does
//     failures()            =  children and bodies that were left by a failure, each once
//     what comes out        =  the first of them; else `cancelled`, if something outside is cancelled; else nothing
//
// Six levels of nurseries, up to a thousand children a tree, a hundred thousand trees in the plain build.
#include "support/tally.hpp"
#include "support/test.hpp"

#include <atomic>
#include <chrono>
#include <exception>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

namespace {

using std::chrono::microseconds;

#if CONCUR_TSAN || CONCUR_ASAN
constexpr int slowness = 40;
#else
constexpr int slowness = 1;
#endif

constexpr int depth_limit = 6;

struct planned : std::runtime_error {
  explicit planned(unsigned number_in) : std::runtime_error("planned"), number(number_in) {}
  unsigned number;
};

// What all fibers of one tree share.
struct tree {
  tally& held;
  std::atomic<int> budget;  // children that may still be started
  std::atomic<int> alive{0};
  std::atomic<unsigned> failures{0};
  concur::channel<int> quiet{};  // on which nothing ever comes
};

bool is_failure(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const planned&) {
    return true;
  } catch (const concur::timed_out&) {
    return true;
  } catch (...) {
    return false;
  }
}

struct alive_mark {
  explicit alive_mark(tree& of_in) : of(of_in) { of.alive.fetch_add(1); }
  ~alive_mark() { of.alive.fetch_sub(1); }
  alive_mark(const alive_mark&) = delete;
  alive_mark& operator=(const alive_mark&) = delete;
  tree& of;
};

// A destructor that parks: for unwinding it is never cancelled.
struct careful {
  explicit careful(tree& of_in) : of(of_in) {}
  ~careful() {
    if (std::uncaught_exceptions() == 0) return;
    bool is_whole = true;
    try {
      concur::this_fiber::checkpoint();
      concur::this_fiber::sleep_for(microseconds(1));
      // A scope of its own works there all the same.
      if (!concur::move_on_after(microseconds(0), [] { concur::this_fiber::checkpoint(); })) is_whole = true;
    } catch (...) {
      is_whole = false;
    }
    CONCUR_EXPECT(of.held, is_whole);
  }
  careful(const careful&) = delete;
  careful& operator=(const careful&) = delete;
  tree& of;
};

class grower {
 public:
  grower(tree& of, std::uint32_t seed, int depth, concur::nursery* around)
      : of_(of), random_(seed), depth_(depth), around_(around) {}

  void live() {
    const alive_mark mark(of_);
    const careful end(of_);
    CONCUR_EXPECT(of_.held, std::uncaught_exceptions() == 0);
    const unsigned steps = 1 + draw(3);
    for (unsigned i = 0; i < steps; ++i) step();
  }

 private:
  unsigned draw(unsigned below) { return static_cast<unsigned>(random_() % below); }

  void step() {
    switch (draw(14)) {
      case 0:
        concur::this_fiber::yield();
        return;
      case 1:
        concur::this_fiber::checkpoint();
        return;
      case 2:
        concur::this_fiber::sleep_for(microseconds(draw(200)));
        return;
      case 3:
        if (draw(4) == 0) throw planned(of_.failures.fetch_add(1));
        return;
      case 4:
        if (around_ != nullptr && draw(4) == 0) around_->cancel();
        return;
      case 5:  // waits for what never comes, for a while
        concur::move_on_after(microseconds(draw(150)), [this] { of_.quiet.recv(); });
        return;
      case 6:
        limited();
        return;
      case 7:
        concur::shield([this] { inside(); });
        return;
      case 8:
        by_hand();
        return;
      case 9:
        swallowing();
        return;
      default:
        grow();
    }
  }

  void inside() {
    concur::this_fiber::yield();
    if (depth_ < depth_limit && draw(2) == 0) grow();
  }

  // A limit that is an error; the error is somebody's failure, or is taken here.
  void limited() {
    const bool takes_it = draw(2) == 0;
    try {
      concur::fail_after(microseconds(draw(300)), [this] { inside(); });
    } catch (const concur::timed_out&) {
      if (!takes_it) throw;
    }
  }

  // A scope with a deadline that is changed, and a shield that comes and goes.
  void by_hand() {
    concur::cancel_scope scope(concur::deferred);
    if (draw(4) == 0) scope.cancel();
    const auto begin = std::chrono::steady_clock::now();
    scope.deadline(begin + microseconds(draw(100)));
    const bool has_returned = scope.run([&] {
      scope.deadline(begin + microseconds(draw(300)));
      if (draw(2) == 0) scope.shield(true);
      inside();
      scope.shield(false);
      if (draw(2) == 0) concur::this_fiber::sleep_for(microseconds(50));
    });
    CONCUR_EXPECT(of_.held, has_returned != scope.cancelled_caught());
  }

  // Taking `cancelled` for something else does not make it go away.
  void swallowing() {
    const bool was_cancelled = concur::this_fiber::cancelled();
    bool was_told = false;
    for (int i = 0; i < 2 && was_cancelled; ++i) {
      was_told = false;
      try {
        concur::this_fiber::sleep_for(std::chrono::hours(1));
      } catch (...) {
        was_told = true;
      }
      CONCUR_EXPECT(of_.held, was_told);
    }
  }

  // One nursery with children, and its books.
  void grow() {
    if (depth_ >= depth_limit) return;
    concur::nursery n(draw(3) == 0 ? concur::on_failure::keep_going : concur::on_failure::cancel_siblings);
    std::atomic<unsigned> began{0};
    std::atomic<unsigned> ended{0};
    std::atomic<unsigned> failed{0};
    if (draw(4) == 0) n.limit(1 + draw(4));
    if (draw(8) == 0) n.scope().deadline(std::chrono::steady_clock::now() + microseconds(draw(400)));
    const auto member = [&](grower who) {
      began.fetch_add(1);
      try {
        who.live();
      } catch (const concur::cancelled&) {
        ended.fetch_add(1);
        throw;
      } catch (...) {
        failed.fetch_add(1);
        ended.fetch_add(1);
        throw;
      }
      ended.fetch_add(1);
    };
    const unsigned wanted = draw(8) == 0 ? draw(64) : draw(5);
    unsigned launched = 0;
    std::exception_ptr out;
    bool was_cancelled = false;
    try {
      n.run([&](concur::nursery&) {
        try {
          for (unsigned i = 0; i < wanted && of_.budget.fetch_sub(1) > 0; ++i) {
            n.go(member, grower(of_, static_cast<std::uint32_t>(random_()), depth_ + 1, &n));
            ++launched;
            if (draw(8) == 0) step();
          }
        } catch (const concur::cancelled&) {
          throw;
        } catch (...) {
          failed.fetch_add(1);
          throw;
        }
      });
    } catch (const concur::cancelled&) {
      was_cancelled = true;
    } catch (...) {
      out = std::current_exception();
    }
    // A child that found no stack did not begin; here is always one.
    CONCUR_EXPECT(of_.held, began == launched);
    CONCUR_EXPECT(of_.held, ended == launched);
    CONCUR_EXPECT(of_.held, n.size() == 0);
    const std::vector<std::exception_ptr> failures = n.failures();
    CONCUR_EXPECT(of_.held, failures.size() == failed);
    for (const std::exception_ptr& one : failures) CONCUR_EXPECT(of_.held, is_failure(one));
    CONCUR_EXPECT(of_.held, (out != nullptr) == !failures.empty());
    if (out != nullptr && !failures.empty()) CONCUR_EXPECT(of_.held, out == failures.front());
    // `cancelled` goes on outwards only where something outside is cancelled; and level-triggered it stays so.
    if (was_cancelled) CONCUR_EXPECT(of_.held, concur::this_fiber::cancelled());
    if (was_cancelled) concur::this_fiber::checkpoint();
    if (out != nullptr && draw(2) == 0) std::rethrow_exception(out);
  }

  tree& of_;
  std::minstd_rand random_;
  int depth_;
  concur::nursery* around_;
};

void grow_tree(tally& held, std::uint32_t seed, int children) {
  tree whole{held, {children}};
  try {
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { grower(whole, seed, 0, &n).live(); });
      grower(whole, seed + 1, 0, &n).live();
    });
  } catch (const planned&) {
  } catch (const concur::timed_out&) {
  }
  CONCUR_EXPECT(held, whole.alive == 0);
  CONCUR_EXPECT(held, !concur::this_fiber::cancelled());
}

// Several trees beside each other, each for itself.
void grow_forest(unsigned workers, int trees, int children, std::uint32_t seed) {
  CAPTURE(workers);
  CAPTURE(seed);
  tally held;
  std::atomic<int> left{trees};
  concur::run(with_workers(workers), [&] {
    concur::with_nursery([&](concur::nursery& n) {
      for (unsigned grove = 0; grove < 4; ++grove) {
        n.go([&, grove] {
          for (int number; (number = left.fetch_sub(1)) > 0;)
            grow_tree(held, seed + static_cast<std::uint32_t>(number) * 16 + grove, children);
        });
      }
    });
  });
  CHECK(held.report() == "");
}

// The race that a lost wake-up hangs on, again and again: one parks in the moment in which the other cancels.
void park_and_cancel(unsigned workers, int rounds) {
  CAPTURE(workers);
  struct round {
    concur::cancel_scope scope{concur::deferred};
  };
  std::vector<round> all(static_cast<std::size_t>(rounds));
  std::atomic<int> entered{0};
  std::atomic<bool> is_over{false};
  tally held;
  std::thread presses([&] {
    for (int i = 0; i < rounds; ++i) {
      while (entered.load(std::memory_order_relaxed) <= i) concur::detail::cpu_relax();
      for (int pauses = i % 23; pauses > 0; --pauses) concur::detail::cpu_relax();
      all[static_cast<std::size_t>(i)].scope.cancel();
    }
  });
  concur::run(with_workers(workers), [&] {
    concur::go([&] {  // keeps the worker awake, so that a round is short
      while (!is_over) concur::this_fiber::yield();
    });
    concur::channel<int> quiet;
    for (int i = 0; i < rounds; ++i) {
      const bool has_returned = all[static_cast<std::size_t>(i)].scope.run([&] {
        entered.store(i + 1, std::memory_order_relaxed);
        quiet.recv();
      });
      CONCUR_EXPECT(held, !has_returned);
    }
    is_over = true;
  });
  presses.join();
  CHECK(held.report() == "");
}

constexpr int scaled_trees(int usual) { return usual * CONCUR_TEST_SCALE / slowness + 1; }

}  // namespace

TEST_CASE("random trees of nurseries leave nothing running and nothing unreported") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    grow_forest(workers, scaled_trees(30000), 40, 1000U * workers);
    grow_forest(workers, scaled_trees(3400), 1000, 77000U * workers);
  }
}

TEST_CASE("random trees that are cancelled from another thread at any moment leave nothing running") {
  const nothing_left_over guard;
  tally held;
  std::minstd_rand random(5);
  for (int round = 0; round < scaled_trees(400); ++round) {
    concur::cancel_source stop;
    std::thread presses([&, pauses = random() % 2000] {
      for (unsigned i = 0; i < pauses; ++i) concur::detail::cpu_relax();
      stop.cancel();
    });
    concur::run(with_workers(2), [&] {
      concur::cancel_scope scope(stop.token());
      const bool has_returned = scope.run([&] {
        for (std::uint32_t i = 0; i < 1000; ++i) {
          tree whole{held, {60}};
          try {
            concur::with_nursery(
                [&](concur::nursery& n) { grower(whole, static_cast<std::uint32_t>(round) * 4096 + i, 0, &n).live(); });
          } catch (const planned&) {
          } catch (const concur::timed_out&) {
          }
          CONCUR_EXPECT(held, whole.alive == 0);
          concur::this_fiber::checkpoint();
        }
      });
      CONCUR_EXPECT(held, has_returned == !scope.cancelled_caught());
    });
    presses.join();
  }
  CHECK(held.report() == "");
}

TEST_CASE("random trees that are cancelled with their runtime leave nothing running") {
  const nothing_left_over guard;
  tally held;
  for (int round = 0; round < scaled_trees(400); ++round) {
    tree whole{held, {200}};
    {
      concur::runtime rt(with_workers(2));
      for (std::uint32_t i = 0; i < 4; ++i) {
        rt.go([&whole, seed = static_cast<std::uint32_t>(round) * 8 + i] {
          try {
            for (;;) {
              grower(whole, seed, 0, nullptr).live();
              concur::this_fiber::checkpoint();
            }
          } catch (const planned&) {
          } catch (const concur::timed_out&) {
          }
        });
      }
    }
    CONCUR_EXPECT(held, whole.alive == 0);
  }
  CHECK(held.report() == "");
}

TEST_CASE("who parks in the moment of a cancellation is woken") {
  const nothing_left_over guard;
  park_and_cancel(1, scaled_trees(8000));
  park_and_cancel(2, scaled_trees(4000));
}
