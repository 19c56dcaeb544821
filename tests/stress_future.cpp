// stress_future.cpp - conservation: every result that is set is taken once or destroyed, whoever waits, gives up, is
// cancelled or drops his end.
//
// Each storm runs from a seed that is printed when it fails; timing decides the rest. The plain build sets ten million
// results altogether.
#include "support/cancel.hpp"
#include "support/test.hpp"

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

using concur::future;
using concur::promise;
using concur::shared_future;

namespace {

#if CONCUR_TSAN || CONCUR_ASAN
constexpr int scale = CONCUR_TEST_SCALE;
#else
constexpr int scale = 20 * CONCUR_TEST_SCALE;
#endif

// What a storm counts; a result is a number that counts itself.
struct account {
  std::atomic<long> live{0};
  std::atomic<long> set{0};
  std::atomic<long> taken{0};
  std::atomic<long> failed{0};  // exceptions set
  std::atomic<long> caught{0};
  std::atomic<long> wrong{0};
};

class result {
 public:
  result(account& book, int number) : book_(&book), number_(number) { ++book_->live; }
  result(result&& other) noexcept : book_(other.book_), number_(std::exchange(other.number_, -1)) { ++book_->live; }
  result(const result&) = delete;
  result& operator=(const result&) = delete;
  ~result() { --book_->live; }
  int number() const { return number_; }

 private:
  account* book_;
  int number_;
};

struct special_error : std::runtime_error {
  special_error() : std::runtime_error("special") {}
};

// The maker's end, in every way there is.
void make(promise<result> p, account& book, int number, unsigned dice) {
  switch (dice % 8) {
    case 0:
      return;  // broken
    case 1:
      p.set_exception(std::make_exception_ptr(special_error()));
      ++book.failed;
      return;
    case 2:
      if (dice % 3 == 0) concur::this_fiber::yield();
      if (p.try_set_value(result(book, number))) ++book.set;
      if (p.try_set_value(result(book, -2))) ++book.wrong;
      return;
    default:
      p.set_value(result(book, number));
      ++book.set;
      return;
  }
}

// The taker's end, in every way there is; true when it got the number.
bool take(future<result> f, account& book, int number, unsigned dice) {
  try {
    switch (dice % 8) {
      case 0:
        return false;  // dropped
      case 1:
        if (!f.wait_for(std::chrono::nanoseconds(dice % 3000))) return false;
        break;
      case 2:
        while (!f.wait_for(std::chrono::nanoseconds(dice % 3000))) {
        }
        break;
      case 3: {
        auto next = f.then([](result r) { return r; });
        if (dice % 3 == 0) return false;
        f = std::move(next);
        break;
      }
      case 4: {
        const shared_future<result> shared = f.share();
        const shared_future<result> copy = shared;
        if (copy.get().number() != number) ++book.wrong;
        ++book.taken;
        return true;
      }
      case 5:
        f = f.or_else([&book, number](const std::exception_ptr&) { return result(book, number); });
        break;
      default:
        break;
    }
    if (f.get().number() != number) ++book.wrong;
    ++book.taken;
    return true;
  } catch (const special_error&) {
    ++book.caught;
  } catch (const std::future_error&) {
    ++book.caught;
  } catch (const concur::cancelled&) {
    ++book.caught;
  }
  return false;
}

struct handed {
  future<result> taker;
  int number = 0;
};

// One pair of fibers (or threads): a channel hands futures from the maker to the taker.
void makes(concur::channel<handed> to_taker, account& book, unsigned seed, int count) {
  std::mt19937 random(seed);
  for (int i = 0; i < count; ++i) {
    promise<result> p;
    handed one{p.get_future(), i};
    if (random() % 2 == 0) {
      to_taker.send(std::move(one));
      make(std::move(p), book, i, static_cast<unsigned>(random()));
    } else {
      make(std::move(p), book, i, static_cast<unsigned>(random()));
      to_taker.send(std::move(one));
    }
  }
  to_taker.close();
}

void takes(concur::channel<handed> from_maker, account& book, unsigned seed, cancel_target* target) {
  std::mt19937 random(seed);
  for (;;) {
    std::optional<handed> one;
    try {
      one = from_maker.recv();
    } catch (const concur::cancelled&) {
      continue;  // struck late; nothing was received
    }
    if (!one) return;
    if (target != nullptr) target->enter();
    take(std::move(one->taker), book, one->number, static_cast<unsigned>(random()));
    if (target != nullptr) target->leave();
  }
}

void storm(unsigned workers, unsigned seed, int count) {
  CAPTURE(workers);
  CAPTURE(seed);
  account book;
  constexpr unsigned pairs = 4;
  {
    concur::runtime rt(with_workers(workers));
    concur::runtime other(with_workers(1));
    std::vector<cancel_target> targets(pairs);
    std::vector<future<void>> ends;
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < pairs; ++i) {
      concur::channel<handed> ch(i);
      // Fibers with each other, over two runtimes, and with threads on either side.
      if (i == 1)
        threads.emplace_back(makes, ch, std::ref(book), seed + i, count);
      else
        ends.push_back((i == 2 ? other : rt).go(makes, ch, std::ref(book), seed + i, count));
      if (i == 3)
        threads.emplace_back(takes, ch, std::ref(book), seed + 50 + i, nullptr);
      else
        ends.push_back(rt.go(takes, ch, std::ref(book), seed + 50 + i, &targets[i]));
    }
    std::atomic<bool> is_over{false};
    std::thread striker([&] {
      while (!is_over) {
        for (cancel_target& one : targets) one.strike();
        std::this_thread::yield();
      }
    });
    for (future<void>& one : ends) one.get();
    for (std::thread& one : threads) one.join();
    is_over = true;
    striker.join();
    for (concur::runtime* one : {&rt, &other}) {
      try {
        one->wait_for_all();
      } catch (const special_error&) {  // of a then() whose future was dropped
      } catch (const std::future_error&) {
      }
    }
  }
  CHECK(book.live == 0);
  CHECK(book.wrong == 0);
  CHECK(book.taken > 0);
  CHECK(book.caught > 0);
  // A cure is a result that nobody set.
  CHECK(book.taken <= 4L * count);
  CHECK(book.set > 0);
}

}  // namespace

TEST_CASE("values, exceptions, drops, timeouts and cancellations: each result is taken once or destroyed") {
  const nothing_left_over guard;
  unsigned seed = 1;
  for (const unsigned workers : {1U, 2U, 4U}) {
    for (int round = 0; round < 2; ++round) storm(workers, seed += 1000, 1000 * scale);
  }
}

TEST_CASE("millions of results between fibers, each taken") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    constexpr int count = 75000 * scale;
    std::atomic<long> sum{0};
    concur::run(with_workers(workers), [&] {
      std::vector<future<long>> ends;
      for (int k = 0; k < 2; ++k) {
        ends.push_back(concur::go([] {
          long total = 0;
          for (int i = 0; i < count; ++i) {
            promise<int> p;
            future<int> f = p.get_future();
            p.set_value(i);
            total += f.get();
          }
          return total;
        }));
      }
      for (future<long>& one : ends) sum += one.get();
    });
    CHECK(sum == 2L * count * (count - 1) / 2);
  }
}

TEST_CASE("millions of results between fibers that wait for each other") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U}) {
    constexpr int count = 10000 * scale;
    long sum = 0;
    concur::run(with_workers(workers), [&] {
      concur::channel<promise<int>> to_maker(16);
      future<void> maker = concur::go([&] {
        int i = 0;
        while (std::optional<promise<int>> p = to_maker.recv()) p->set_value(i++);
      });
      for (int i = 0; i < count; ++i) {
        promise<int> p;
        future<int> f = p.get_future();
        to_maker.send(std::move(p));
        sum += f.get();
      }
      to_maker.close();
      maker.get();
    });
    CHECK(sum == static_cast<long>(count) * (count - 1) / 2);
  }
}

// Two threads meet here, again and again.
class meeting {
 public:
  void wait_for_other(long round) {
    arrived_.fetch_add(1);
    for (int spins = 0; arrived_.load() < 2 * (round + 1); ++spins) {
      if (spins > 2000) std::this_thread::yield();
    }
  }

 private:
  std::atomic<long> arrived_{0};
};

TEST_CASE("two who set a result in the same moment: one wins, and the other's stays his") {
  const nothing_left_over guard;
  constexpr long rounds = 5000 * scale;
  account book;
  auto shared = std::make_unique<promise<result>>();
  meeting before;
  meeting after;
  std::atomic<long> won{0};
  const auto set_all = [&](bool renews) {
    for (long round = 0; round < rounds; ++round) {
      result mine(book, static_cast<int>(round));
      before.wait_for_other(round);
      if (shared->try_set_value(std::move(mine)))
        ++won;
      else if (mine.number() != round)
        ++book.wrong;
      after.wait_for_other(round);
      if (!renews) continue;
      if (shared->get_future().get().number() != round) ++book.wrong;
      shared = std::make_unique<promise<result>>();
    }
  };
  std::thread other(set_all, false);
  set_all(true);
  other.join();
  CHECK(won == rounds);
  CHECK(book.wrong == 0);
  CHECK(book.live == 0);
}

TEST_CASE("storms of when_any and when_all, over futures of fibers that sleep, fail and end") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    constexpr int rounds = 100 * scale;
    std::atomic<int> wrong{0};
    concur::run(with_workers(workers), [&] {
      std::mt19937 random(workers);
      for (int round = 0; round < rounds; ++round) {
        std::vector<future<int>> parts;
        for (int i = 0; i < 5; ++i) {
          const unsigned dice = static_cast<unsigned>(random());
          parts.push_back(concur::go([dice, i]() -> int {
            if (dice % 5 == 0) concur::this_fiber::yield();
            if (dice % 7 == 0) throw special_error();
            return i;
          }));
        }
        int ended = 0;
        // One after another, each loser in the next when_any.
        while (!parts.empty()) {
          auto any = concur::when_any(std::move(parts)).get();
          future<int> first = std::move(any.futures[any.index]);
          if (!first.ready()) ++wrong;
          try {
            first.get();
          } catch (const special_error&) {
          }
          ++ended;
          parts.clear();
          for (std::size_t i = 0; i < any.futures.size(); ++i) {
            if (i != any.index) parts.push_back(std::move(any.futures[i]));
          }
        }
        if (ended != 5) ++wrong;
      }
    });
    CHECK(wrong == 0);
  }
}
