// bench/ring.cpp - fibers in a ring, an unbuffered channel between neighbours, one token that goes round; ns a hop.
#include <vector>

#include "workers.hpp"

namespace {

void go_round(long fibers, long rounds) {
  std::vector<concur::channel<long>> links;
  for (long i = 0; i < fibers; ++i) links.emplace_back();
  long token = 0;
  std::vector<concur::future<void>> ring;
  ring.push_back(concur::go([&] {
    for (long k = 0; k < rounds; ++k) {
      links[1].send(token + 1);
      token = *links[0].recv();
    }
  }));
  for (std::size_t i = 1; i < links.size(); ++i) {
    ring.push_back(concur::go([&, i] {
      concur::channel<long>& next = links[(i + 1) % links.size()];
      for (long k = 0; k < rounds; ++k) next.send(*links[i].recv() + 1);
    }));
  }
  for (auto& one : ring) one.get();
  bench::expect_sum("ring", token, fibers * rounds);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--fibers"});
  const long fibers = arguments.number("--fibers", 1000);
  const long rounds = arguments.number("--count", 2000000) / fibers;
  bench::with_workers(arguments.number("--workers", 1), [&] {
    go_round(fibers, rounds / 10 + 1);
    const double ns = bench::elapsed_ns([&] { go_round(fibers, rounds); });
    bench::report("hop", ns / static_cast<double>(fibers * rounds), "ns");
  });
}
