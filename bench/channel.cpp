// bench/channel.cpp - n producers, n consumers, one channel; ns an item.
//
// --capacity 0 makes every item a meeting. With --never-wait one fiber sends and receives in turn: the price of the two
// operations when nobody ever waits.
#include <vector>

#include "workers.hpp"

namespace {

void pass_on(long capacity, long pairs, long each) {
  concur::channel<long> items(static_cast<std::size_t>(capacity));
  std::vector<concur::future<void>> producers, consumers;
  for (long i = 0; i < pairs; ++i) {
    consumers.push_back(concur::go([&] {
      while (items.recv()) {
      }
    }));
    producers.push_back(concur::go([&, each] {
      for (long k = 0; k < each; ++k) items.send(k);
    }));
  }
  for (auto& one : producers) one.get();
  items.close();
  for (auto& one : consumers) one.get();
}

void never_wait(long count) {
  concur::channel<long> items(128);
  concur::go([&] {
    for (long i = 0; i < count; ++i) {
      items.send(i);
      items.recv();
    }
  }).get();
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--pairs", "--capacity", "--never-wait"});
  const long count = arguments.number("--count", 4000000);
  const long pairs = arguments.number("--pairs", 1);
  const long capacity = arguments.number("--capacity", 128);
  const long each = count / pairs;
  bench::with_workers(arguments.number("--workers", 1), [&] {
    if (arguments.has("--never-wait")) {
      never_wait(count / 10 + 1);
      bench::report("never_wait", bench::elapsed_ns([&] { never_wait(count); }) / static_cast<double>(count), "ns");
      return;
    }
    pass_on(capacity, pairs, each / 10 + 1);
    const double ns = bench::elapsed_ns([&] { pass_on(capacity, pairs, each); });
    bench::report("item", ns / static_cast<double>(each * pairs), "ns");
  });
}
