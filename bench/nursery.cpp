// bench/nursery.cpp - structured concurrency: what a child costs beyond a bare spawn, what a time limit costs that does not
// pass, and how long it takes until all of a crowd that is parked below one scope has been cancelled and has ended.
//
// Children are joined a hundred at a time, each nursery with a failure that could be heard and a scope that could be
// cancelled. The limit is an hour, around one yield. The cancelled crowd waits in receives; the time is that from the cancel
// to the end of the last of them.
#include <atomic>
#include <vector>

#include "workers.hpp"

namespace {

constexpr long together = 100;

void children(long count) {
  std::atomic<long> sum{0};
  for (long done = 0; done < count; done += together) {
    concur::with_nursery([&](concur::nursery& n) {
      for (long i = 0; i < together; ++i) n.go([&sum] { sum.fetch_add(1, std::memory_order_relaxed); });
    });
  }
  bench::expect_sum("children", sum.load(), (count + together - 1) / together * together);
}

void limits(long count) {
  for (long i = 0; i < count; ++i) concur::fail_after(std::chrono::hours(1), [] { concur::this_fiber::yield(); });
}

double cancel_crowd_ns(long count) {
  concur::channel<long> quiet;
  std::atomic<long> arrived{0};
  double taken = 0;
  concur::with_nursery([&](concur::nursery& n) {
    for (long i = 0; i < count; ++i) {
      n.go([&] {
        ++arrived;
        quiet.recv();
      });
    }
    while (arrived.load() != count) concur::this_fiber::yield();
    concur::this_fiber::yield();
    taken = bench::elapsed_ns([&] {
      n.cancel();
      while (n.size() != 0) concur::this_fiber::yield();
    });
  });
  return taken;
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--crowd"});
  const long count = arguments.number("--count", 1000000);
  const long crowd = arguments.number("--crowd", 100000);
  bench::with_workers(arguments.number("--workers", 1), [&] {
    children(count / 10 + 1);
    bench::report("child", bench::elapsed_ns([&] { children(count); }) / static_cast<double>(count), "ns");
    limits(count / 10 + 1);
    bench::report("limit", bench::elapsed_ns([&] { limits(count); }) / static_cast<double>(count), "ns");
    cancel_crowd_ns(crowd);
    bench::report("cancelled", cancel_crowd_ns(crowd) / static_cast<double>(crowd), "ns");
  });
}
