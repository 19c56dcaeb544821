// bench/queue_crowd.hpp - the work that every queue is measured with: some threads push, some pop; or one thread does both.
//
// The same for each contender, waiting included: who is told "full" or "empty" tries again, after a few pauses with a yield
// of the processor in between, since there may be more threads than processors. What arrives is summed up, so that it is
// read, and a value lost or doubled ends the program.
//
// A contender is a class with a constructor from the capacity, `bool try_push(long)` and `bool try_pop(long&)`.
#ifndef CONCUR_BENCH_QUEUE_CROWD_HPP
#define CONCUR_BENCH_QUEUE_CROWD_HPP

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

#include <sched.h>

#include "measure.hpp"

namespace bench {

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

class patience {
 public:
  void wait() {
    if (++tries_ % 64 == 0)
      sched_yield();
    else
      relax();
  }

 private:
  unsigned tries_ = 0;
};

// From the moment in which all threads are there, as none waits for another's start then.
template <class Queue>
double crowd_ns(std::size_t capacity, long pushers, long poppers, long count) {
  Queue queue(capacity);
  const long each = (count / pushers / poppers + 1) * poppers;
  std::atomic<long> ready{0};
  std::atomic<long> sum{0};
  const auto start = [&] {
    ready.fetch_add(1);
    while (ready.load() <= pushers + poppers) sched_yield();
  };
  std::vector<std::thread> threads;
  for (long i = 0; i < pushers; ++i) {
    threads.emplace_back([&] {
      start();
      for (long k = 1; k <= each; ++k) {
        for (patience waiting; !queue.try_push(k);) waiting.wait();
      }
    });
  }
  for (long i = 0; i < poppers; ++i) {
    threads.emplace_back([&] {
      start();
      long mine = 0;
      for (long k = 0; k < each * pushers / poppers; ++k) {
        long got = 0;
        for (patience waiting; !queue.try_pop(got);) waiting.wait();
        mine += got;
      }
      sum.fetch_add(mine);
    });
  }
  while (ready.load() < pushers + poppers) sched_yield();
  const double ns = elapsed_ns([&] {
    ready.fetch_add(1);
    for (std::thread& one : threads) one.join();
  });
  expect_sum("what arrived", sum.load(), pushers * (each * (each + 1) / 2));
  return ns / static_cast<double>(each * pushers);
}

template <class Queue>
double alone_ns(std::size_t capacity, long count) {
  Queue queue(capacity);
  long sum = 0;
  const double ns = elapsed_ns([&queue, &sum, count] {
    long mine = 0;
    for (long k = 1; k <= count; ++k) {
      long got = 0;
      if (queue.try_push(k) && queue.try_pop(got)) mine += got;
    }
    sum = mine;
  });
  expect_sum("what arrived", sum, count * (count + 1) / 2);
  return ns / static_cast<double>(count);
}

// --pushers 0: one thread that pushes and pops in turn.
inline arguments queue_arguments(int argc, char** argv) {
  return arguments(argc, argv, {"--kind", "--pushers", "--poppers", "--capacity", "--count"});
}

// One thread's count is done in many short passes, of which the median is said: a pass lasts some milliseconds, and so mostly
// is not broken off by the kernel in favour of somebody else. A crowd is broken off in any case, and is given time to even
// that out.
template <class Queue>
double median_alone_ns(std::size_t capacity, long count) {
  constexpr int passes = 25;
  std::vector<double> all;
  for (int i = 0; i < passes; ++i) all.push_back(alone_ns<Queue>(capacity, count / passes + 1));
  std::nth_element(all.begin(), all.begin() + passes / 2, all.end());
  return all[passes / 2];
}

template <class Queue>
void measure_queue(const arguments& given) {
  const long count = given.number("--count", 4000000);
  const auto capacity = static_cast<std::size_t>(given.number("--capacity", 1024));
  const long pushers = given.number("--pushers", 1);
  const long poppers = given.number("--poppers", 1);
  if (pushers == 0) {
    report("alone", median_alone_ns<Queue>(capacity, count), "ns");
    return;
  }
  crowd_ns<Queue>(capacity, pushers, poppers, count / 10);
  report("item", crowd_ns<Queue>(capacity, pushers, poppers, count), "ns");
}

}  // namespace bench

#endif
