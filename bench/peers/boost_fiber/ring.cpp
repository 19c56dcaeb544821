// bench/peers/boost_fiber/ring.cpp - fibers in a ring, an unbuffered channel between neighbours, one token; ns a hop.
#include <memory>

#include "../../measure.hpp"
#include "workers.hpp"

namespace {

using unbuffered = boost::fibers::unbuffered_channel<long>;

void go_round(long fibers, long rounds) {
  std::vector<std::unique_ptr<unbuffered>> links;
  for (long i = 0; i < fibers; ++i) links.push_back(std::make_unique<unbuffered>());
  long token = 0;
  std::vector<boost::fibers::fiber> ring;
  ring.emplace_back([&] {
    for (long k = 0; k < rounds; ++k) {
      links[1]->push(token + 1);
      links[0]->pop(token);
    }
  });
  for (std::size_t i = 1; i < links.size(); ++i) {
    ring.emplace_back([&, i] {
      unbuffered& next = *links[(i + 1) % links.size()];
      long value = 0;
      for (long k = 0; k < rounds; ++k) {
        links[i]->pop(value);
        next.push(value + 1);
      }
    });
  }
  for (auto& one : ring) one.join();
  bench::expect_sum("ring", token, fibers * rounds);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--fibers"});
  const long fibers = arguments.number("--fibers", 1000);
  const long rounds = arguments.number("--count", 2000000) / fibers;
  bench::with_workers(static_cast<unsigned>(arguments.number("--workers", 1)), [&] {
    go_round(fibers, rounds / 10 + 1);
    const double ns = bench::elapsed_ns([&] { go_round(fibers, rounds); });
    bench::report("hop", ns / static_cast<double>(fibers * rounds), "ns");
  });
}
