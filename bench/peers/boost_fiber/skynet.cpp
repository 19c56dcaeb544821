// bench/peers/boost_fiber/skynet.cpp - a tree of fibers that adds up the numbers of its leaves; ms for the whole.
//
// A channel is shared by pointer with a count, as the handles of ours are: a child may still be inside push() when its parent
// has everything and returns.
#include <array>
#include <memory>

#include "../../measure.hpp"
#include "workers.hpp"

namespace {

constexpr long children = 10;

using unbuffered = boost::fibers::unbuffered_channel<long>;

void node(const std::shared_ptr<unbuffered>& parent, long first, long leaves) {
  const std::shared_ptr<unbuffered> up = parent;
  if (leaves == 1) {
    up->push(first);
    return;
  }
  const auto own = std::make_shared<unbuffered>();
  const long each = leaves / children;
  for (long i = 0; i < children; ++i) {
    boost::fibers::fiber([own, number = first + i * each, each] { node(own, number, each); }).detach();
  }
  long sum = 0;
  for (long i = 0; i < children; ++i) sum += own->value_pop();
  up->push(sum);
}

long through_channels(long leaves) {
  const auto root = std::make_shared<unbuffered>();
  boost::fibers::fiber([root, leaves] { node(root, 0, leaves); }).detach();
  return root->value_pop();
}

long joined(long first, long leaves) {
  if (leaves == 1) return first;
  std::array<boost::fibers::fiber, children> below;
  std::array<long, children> results{};
  const long each = leaves / children;
  for (long i = 0; i < children; ++i) {
    const auto at = static_cast<std::size_t>(i);
    below[at] = boost::fibers::fiber(
        [&result = results[at], number = first + i * each, each] { result = joined(number, each); });
  }
  long sum = 0;
  for (std::size_t i = 0; i < below.size(); ++i) {
    below[i].join();
    sum += results[i];
  }
  return sum;
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--join"});
  const long leaves = arguments.number("--count", 1000000);
  const bool join = arguments.has("--join");
  bench::with_workers(static_cast<unsigned>(arguments.number("--workers", 1)), [&] {
    for (const char* name : {"skynet_cold", "skynet"}) {
      long sum = 0;
      const double ns = bench::elapsed_ns([&] { sum = join ? joined(0, leaves) : through_channels(leaves); });
      bench::expect_sum("skynet", sum, leaves * (leaves - 1) / 2);
      bench::report(name, ns / 1e6, "ms");
    }
  });
}
