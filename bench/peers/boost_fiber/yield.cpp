// bench/peers/boost_fiber/yield.cpp - fibers that do nothing but yield; ns a yield.
#include "../../measure.hpp"
#include "workers.hpp"

namespace {

void yields(long fibers, long each) {
  std::vector<boost::fibers::fiber> running;
  for (long i = 0; i < fibers; ++i) {
    running.emplace_back([each] {
      for (long k = 0; k < each; ++k) boost::this_fiber::yield();
    });
  }
  for (auto& one : running) one.join();
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--fibers"});
  const long fibers = arguments.number("--fibers", 2);
  const long each = arguments.number("--count", 10000000) / fibers;
  bench::with_workers(static_cast<unsigned>(arguments.number("--workers", 1)), [&] {
    yields(fibers, each / 10 + 1);
    bench::report("yield", bench::elapsed_ns([&] { yields(fibers, each); }) / static_cast<double>(fibers * each), "ns");
  });
}
