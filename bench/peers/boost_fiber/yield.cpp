// bench/peers/boost_fiber/yield.cpp - fibers that do nothing but yield; ns a yield.
#include "../../measure.hpp"
#include "workers.hpp"

namespace {

double yields_ns(long fibers, long each) {
  std::atomic<long> arrived{0};
  std::atomic<bool> is_begun{false};
  std::vector<boost::fibers::fiber> running;
  for (long i = 0; i < fibers; ++i) {
    running.emplace_back([&arrived, &is_begun, each] {
      ++arrived;
      while (!is_begun.load()) boost::this_fiber::yield();
      for (long k = 0; k < each; ++k) boost::this_fiber::yield();
    });
  }
  while (arrived.load() != fibers) boost::this_fiber::yield();
  return bench::elapsed_ns([&] {
    is_begun = true;
    for (auto& one : running) one.join();
  });
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--fibers"});
  const long fibers = arguments.number("--fibers", 2);
  const long each = arguments.number("--count", 10000000) / fibers;
  bench::with_workers(static_cast<unsigned>(arguments.number("--workers", 1)), [&] {
    yields_ns(fibers, each / 10 + 1);
    bench::report("yield", yields_ns(fibers, each) / static_cast<double>(fibers * each), "ns");
  });
}
