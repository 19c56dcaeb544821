// bench/ping_pong.cpp - two fibers, two unbuffered channels; ns for there and back.
#include "workers.hpp"

namespace {

void round_trips(long count) {
  concur::channel<long> there, back;
  auto other = concur::go([&] {
    while (auto value = there.recv()) back.send(*value + 1);
  });
  auto self = concur::go([&] {
    for (long i = 0; i < count; ++i) {
      there.send(i);
      back.recv();
    }
    there.close();
  });
  self.get();
  other.get();
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count"});
  const long count = arguments.number("--count", 1000000);
  bench::with_workers(arguments.number("--workers", 1), [&] {
    round_trips(count / 10 + 1);
    bench::report("ping_pong", bench::elapsed_ns([&] { round_trips(count); }) / static_cast<double>(count), "ns");
  });
}
