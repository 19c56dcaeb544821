// tests/stress_outside.cpp - threads from outside that let a runtime's last fiber go, and the runtime that ends at once.
//
// The thread that sends the last value makes the last fiber ready, and is still inside the scheduler, announcing it, when
// that fiber has ended and the runtime is destroyed. Built with AddressSanitizer or ThreadSanitizer this is where a waker
// that touches a dead runtime shows.
#include "support/test.hpp"

#include <atomic>
#include <thread>

namespace {

constexpr int rounds = (CONCUR_TSAN != 0 ? 100 : 600) * CONCUR_TEST_SCALE;

// A thread that does its part once for each round, so that a round costs no thread.
class partner {
 public:
  template <class F>
  explicit partner(F part)
      : thread_([this, part]() mutable {
          for (int done = 0; done < rounds; ++done) {
            while (turn_.load(std::memory_order_acquire) <= done) std::this_thread::yield();
            part();
          }
        }) {}
  ~partner() { thread_.join(); }
  void begin_round() { turn_.fetch_add(1, std::memory_order_release); }

 private:
  std::atomic<int> turn_{0};
  std::thread thread_;
};

}  // namespace

TEST_CASE("a thread lets the last fiber go, and the runtime ends under it") {
  const nothing_left_over guard;
  for (const unsigned workers : {1u, 2u}) {
    concur::channel<int> values;
    partner sender([values]() mutable { values.send(7); });
    for (int round = 0; round < rounds; ++round) {
      sender.begin_round();
      CHECK(concur::run(with_workers(workers), [values]() mutable { return *values.recv(); }) == 7);
    }
  }
}

TEST_CASE("a fiber of one runtime lets the last fiber of another go") {
  const nothing_left_over guard;
  concur::runtime lasting(with_workers(1));
  concur::channel<int> values;
  for (int round = 0; round < rounds; ++round) {
    auto sent = lasting.go([values]() mutable { values.send(7); });
    CHECK(concur::run(with_workers(1), [values]() mutable { return *values.recv(); }) == 7);
    sent.get();
  }
}

TEST_CASE("a thread unlocks for the last fiber, which waits for the mutex") {
  const nothing_left_over guard;
  for (int round = 0; round < rounds; ++round) {
    concur::mutex m;
    m.lock();
    concur::channel<void> is_up(1);
    {
      concur::runtime rt(with_workers(1));
      auto waiting = rt.go([&, is_up]() mutable {
        is_up.send();
        m.lock();
        m.unlock();
      });
      is_up.recv();
      m.unlock();
      waiting.get();
    }
  }
}
