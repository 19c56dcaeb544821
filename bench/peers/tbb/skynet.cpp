// bench/peers/tbb/skynet.cpp - a tree of tasks, ten to a node, that adds up the numbers of its leaves; ms for the whole.
//
// With --join alone: a task cannot wait in a channel.
#include <tbb/task_group.h>

#include <array>
#include <numeric>

#include "../../measure.hpp"
#include "arena.hpp"

namespace {

constexpr long children = 10;

long joined(long first, long leaves) {
  if (leaves == 1) return first;
  std::array<long, children> results{};
  const long each = leaves / children;
  tbb::task_group below;
  for (long i = 0; i < children; ++i) {
    below.run([&result = results[static_cast<std::size_t>(i)], number = first + i * each, each] {
      result = joined(number, each);
    });
  }
  below.wait();
  return std::accumulate(results.begin(), results.end(), 0L);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--join"});
  const long leaves = arguments.number("--count", 1000000);
  if (!arguments.has("--join")) return 2;
  bench::with_workers(arguments.number("--workers", 1), [&] {
    for (const char* name : {"skynet_cold", "skynet"}) {
      long sum = 0;
      const double ns = bench::elapsed_ns([&] { sum = joined(0, leaves); });
      bench::expect_sum("skynet", sum, leaves * (leaves - 1) / 2);
      bench::report(name, ns / 1e6, "ms");
    }
  });
}
