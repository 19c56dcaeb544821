// bench/select.cpp - ping-pong in which both sides receive by a select over two unbuffered channels; ns for there and back.
//
// Every message may come on either of two channels, and takes them in turn. So a round trip is two sends and two selects.
#include "workers.hpp"

namespace {

void round_trips(long count) {
  concur::channel<long> there[2], back[2];
  auto other = concur::go([&] {
    for (long i = 0; i < count; ++i) {
      concur::select(concur::recv(there[0], [&](std::optional<long> value) { back[0].send(*value + 1); }),
                     concur::recv(there[1], [&](std::optional<long> value) { back[1].send(*value + 1); }));
    }
  });
  long sum = 0;
  auto self = concur::go([&] {
    for (long i = 0; i < count; ++i) {
      there[i % 2].send(i);
      concur::select(concur::recv(back[0], [&](std::optional<long> value) { sum += *value; }),
                     concur::recv(back[1], [&](std::optional<long> value) { sum += *value; }));
    }
  });
  self.get();
  other.get();
  bench::expect_sum("select", sum, count * (count + 1) / 2);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count"});
  const long count = arguments.number("--count", 1000000);
  bench::with_workers(arguments.number("--workers", 1), [&] {
    round_trips(count / 10 + 1);
    bench::report("select", bench::elapsed_ns([&] { round_trips(count); }) / static_cast<double>(count), "ns");
  });
}
