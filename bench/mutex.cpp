// bench/mutex.cpp - fibers that take a mutex, add one, and let go; ns for each time. One fiber: it is never contended.
#include <vector>

#include "workers.hpp"

namespace {

void contend(long fibers, long each) {
  concur::mutex lock;
  long total = 0;
  std::vector<concur::future<void>> running;
  for (long i = 0; i < fibers; ++i) {
    running.push_back(concur::go([&] {
      for (long k = 0; k < each; ++k) {
        lock.lock();
        ++total;
        lock.unlock();
      }
    }));
  }
  for (auto& one : running) one.get();
  bench::expect_sum("mutex", total, fibers * each);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--fibers"});
  const long fibers = arguments.number("--fibers", 8);
  const long each = arguments.number("--count", 10000000) / fibers;
  bench::with_workers(arguments.number("--workers", 1), [&] {
    contend(fibers, each / 10 + 1);
    bench::report("lock", bench::elapsed_ns([&] { contend(fibers, each); }) / static_cast<double>(fibers * each), "ns");
  });
}
