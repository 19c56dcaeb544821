// bench/peers/boost_fiber/ping_pong.cpp - two fibers, two unbuffered channels; ns for there and back.
#include "../../measure.hpp"
#include "workers.hpp"

namespace {

using unbuffered = boost::fibers::unbuffered_channel<long>;

void round_trips(long count) {
  unbuffered there, back;
  boost::fibers::fiber other([&] {
    long value = 0;
    while (there.pop(value) == boost::fibers::channel_op_status::success) back.push(value + 1);
  });
  boost::fibers::fiber self([&] {
    long value = 0;
    for (long i = 0; i < count; ++i) {
      there.push(i);
      back.pop(value);
    }
    there.close();
  });
  self.join();
  other.join();
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count"});
  const long count = arguments.number("--count", 1000000);
  bench::with_workers(static_cast<unsigned>(arguments.number("--workers", 1)), [&] {
    round_trips(count / 10 + 1);
    bench::report("ping_pong", bench::elapsed_ns([&] { round_trips(count); }) / static_cast<double>(count), "ns");
  });
}
