// bench/skynet.cpp - a tree of fibers, ten to a node, that adds up the numbers of its leaves; ms for the whole.
//
// Leaves and sums go up through channels, one unbuffered channel to a node. With --join they are the results of the children,
// and their parent joins them. Timed twice, as in spawn.cpp: on a heap that has never held so many fibers, and again.
//
// The workload is github.com/atemerev/skynet.
#include <array>

#include "workers.hpp"

namespace {

constexpr long children = 10;

void node(const concur::channel<long>& parent, long first, long leaves) {
  concur::channel<long> up = parent;
  if (leaves == 1) return up.send(first);
  concur::channel<long> own;
  const long each = leaves / children;
  for (long i = 0; i < children; ++i) {
    concur::go([own, number = first + i * each, each] { node(own, number, each); });
  }
  long sum = 0;
  for (long i = 0; i < children; ++i) sum += *own.recv();
  up.send(sum);
}

long through_channels(long leaves) {
  concur::channel<long> root;
  concur::go([root, leaves] { node(root, 0, leaves); });
  return *root.recv();
}

long joined(long first, long leaves) {
  if (leaves == 1) return first;
  std::array<concur::future<long>, children> below;
  const long each = leaves / children;
  for (long i = 0; i < children; ++i) {
    below[static_cast<std::size_t>(i)] = concur::go([number = first + i * each, each] { return joined(number, each); });
  }
  long sum = 0;
  for (auto& one : below) sum += one.get();
  return sum;
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--join"});
  const long leaves = arguments.number("--count", 1000000);
  const bool join = arguments.has("--join");
  bench::with_workers(arguments.number("--workers", 1), [&] {
    for (const char* name : {"skynet_cold", "skynet"}) {
      long sum = 0;
      const double ns = bench::elapsed_ns([&] { sum = join ? joined(0, leaves) : through_channels(leaves); });
      bench::expect_sum("skynet", sum, leaves * (leaves - 1) / 2);
      bench::report(name, ns / 1e6, "ms");
    }
  });
}
