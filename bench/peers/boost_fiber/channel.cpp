// bench/peers/boost_fiber/channel.cpp - n producers, n consumers, one channel; ns an item.
//
// Boost's buffered channel of capacity 128 holds 127: one slot of its ring stays free. With --never-wait one fiber sends and
// receives in turn, so that nobody ever waits.
#include "../../measure.hpp"
#include "workers.hpp"

namespace {

template <class Channel>
void pass_on(Channel& items, long pairs, long each) {
  std::vector<boost::fibers::fiber> producers, consumers;
  for (long i = 0; i < pairs; ++i) {
    consumers.emplace_back([&] {
      long value = 0;
      while (items.pop(value) == boost::fibers::channel_op_status::success) {
      }
    });
    producers.emplace_back([&, each] {
      for (long k = 0; k < each; ++k) items.push(k);
    });
  }
  for (auto& one : producers) one.join();
  items.close();
  for (auto& one : consumers) one.join();
}

void pass_on(long capacity, long pairs, long each) {
  if (capacity == 0) {
    boost::fibers::unbuffered_channel<long> items;
    pass_on(items, pairs, each);
  } else {
    boost::fibers::buffered_channel<long> items(static_cast<std::size_t>(capacity));
    pass_on(items, pairs, each);
  }
}

void never_wait(long count) {
  boost::fibers::buffered_channel<long> items(128);
  boost::fibers::fiber([&] {
    long value = 0;
    for (long i = 0; i < count; ++i) {
      items.push(i);
      items.pop(value);
    }
  }).join();
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--pairs", "--capacity", "--never-wait"});
  const long count = arguments.number("--count", 4000000);
  const long pairs = arguments.number("--pairs", 1);
  const long capacity = arguments.number("--capacity", 128);
  const long each = count / pairs;
  bench::with_workers(static_cast<unsigned>(arguments.number("--workers", 1)), [&] {
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
