// bench/yield.cpp - fibers that do nothing but yield; ns a yield, from the moment when all of them are there.
#include <atomic>
#include <vector>

#include "workers.hpp"

namespace {

double yields_ns(long fibers, long each) {
  std::atomic<long> arrived{0};
  std::atomic<bool> is_begun{false};
  std::vector<concur::future<void>> running;
  for (long i = 0; i < fibers; ++i) {
    running.push_back(concur::go([&arrived, &is_begun, each] {
      ++arrived;
      while (!is_begun.load()) concur::this_fiber::yield();
      for (long k = 0; k < each; ++k) concur::this_fiber::yield();
    }));
  }
  while (arrived.load() != fibers) concur::this_fiber::yield();
  return bench::elapsed_ns([&] {
    is_begun = true;
    for (auto& one : running) one.get();
  });
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--fibers"});
  const long fibers = arguments.number("--fibers", 2);
  const long each = arguments.number("--count", 10000000) / fibers;
  bench::with_workers(arguments.number("--workers", 1), [&] {
    yields_ns(fibers, each / 10 + 1);
    bench::report("yield", yields_ns(fibers, each) / static_cast<double>(fibers * each), "ns");
  });
}
