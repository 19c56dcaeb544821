// locks.cpp - the locks of the standard library, for fibers: a wait parks the fiber, and its worker goes on with others.
//
//     g++ -std=c++17 -O2 -pthread -I. examples/locks.cpp -o locks
//
// std::lock_guard, std::unique_lock and std::shared_lock work as they are. All of it works between fibers and plain
// threads as well. Where data can be sent over a channel instead of shared, do that first.
//
// Output:
//     counted to 4000
//     the buffer passed on 1 + ... + 100 = 5050
//     the cache was filled once, and every reader saw 42
//     3 steps of 4 parties, each seeing the whole step before
#include "concur.hpp"

#include <cstdio>
#include <deque>
#include <mutex>
#include <shared_mutex>

// A queue that holds at most ten; put() and take() wait for room and for values.
class bounded_buffer {
 public:
  void put(int value) {
    std::unique_lock<concur::mutex> hold(mutex_);
    has_room_.wait(hold, [this] { return values_.size() < 10; });
    values_.push_back(value);
    has_value_.notify_one();
  }
  int take() {
    std::unique_lock<concur::mutex> hold(mutex_);
    has_value_.wait(hold, [this] { return !values_.empty(); });
    const int value = values_.front();
    values_.pop_front();
    has_room_.notify_one();
    return value;
  }

 private:
  concur::mutex mutex_;
  concur::condition_variable has_room_, has_value_;
  std::deque<int> values_;
};

// Read by many at the same time, written by one; filled by whoever comes first.
class cache {
 public:
  int read() {
    concur::call_once(is_filled_, [this] {
      std::lock_guard<concur::shared_mutex> hold(mutex_);
      value_ = 42;
      ++fills_;
    });
    std::shared_lock<concur::shared_mutex> hold(mutex_);
    return value_;
  }
  int fills() const { return fills_; }

 private:
  concur::once_flag is_filled_;
  concur::shared_mutex mutex_;
  int value_ = 0;
  int fills_ = 0;
};

void count() {
  concur::mutex mutex;
  concur::latch all_done(4);
  int total = 0;
  for (int party = 0; party < 4; ++party) {
    concur::go([&] {
      for (int i = 0; i < 1000; ++i) {
        std::lock_guard<concur::mutex> hold(mutex);
        ++total;
      }
      all_done.count_down();
    });
  }
  all_done.wait();
  std::printf("counted to %d\n", total);
}

void pass_on() {
  bounded_buffer buffer;
  concur::future<void> producer = concur::go([&] {
    for (int i = 1; i <= 100; ++i) buffer.put(i);
  });
  int sum = 0;
  for (int i = 0; i < 100; ++i) sum += buffer.take();
  producer.get();
  std::printf("the buffer passed on 1 + ... + 100 = %d\n", sum);
}

void read_together() {
  cache shared;
  concur::wait_group readers;
  bool all_saw[8] = {};
  for (bool& saw : all_saw) {
    readers.add();
    concur::go([&] {
      saw = shared.read() == 42;
      readers.done();
    });
  }
  readers.wait();
  bool is_good = shared.fills() == 1;
  for (bool saw : all_saw) is_good = is_good && saw;
  if (is_good) std::puts("the cache was filled once, and every reader saw 42");
}

void step_together() {
  int arrived = 0, whole_steps = 0;
  concur::mutex mutex;
  // The completion runs once a step, by the last to arrive, while all the others wait.
  concur::barrier step(4, [&] {
    if (arrived % 4 == 0) ++whole_steps;
  });
  concur::latch all_done(4);
  for (int party = 0; party < 4; ++party) {
    concur::go([&] {
      for (int i = 0; i < 3; ++i) {
        {
          std::lock_guard<concur::mutex> hold(mutex);
          ++arrived;
        }
        step.arrive_and_wait();
      }
      all_done.count_down();
    });
  }
  all_done.wait();
  std::printf("%d steps of 4 parties, each seeing the whole step before\n", whole_steps);
}

int main() {
  concur::run([] {
    count();
    pass_on();
    read_together();
    step_together();
  });
}
