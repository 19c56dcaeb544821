// bench/idle.cpp - parked fibers, one of them at a socket nobody connects to. It says "ready" and then should cost nothing.
//
// run.py counts this process's context switches and its time on a processor from outside, over some seconds, and ends it by a
// signal: any measuring from within would itself be a wake-up.
#include <atomic>

#include "workers.hpp"

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count"});
  const long count = arguments.number("--count", 10000);
  bench::with_workers(arguments.number("--workers", 2), [&] {
    concur::channel<long> gate;
    std::atomic<long> arrived{0};
    auto listener = concur::tcp_listener::bind("127.0.0.1:0");
    concur::go([&] {
      ++arrived;
      listener.accept();
    });
    for (long i = 0; i < count; ++i) {
      concur::go([&] {
        ++arrived;
        gate.recv();
      });
    }
    while (arrived.load() != count + 1) concur::this_fiber::yield();
    std::puts("ready");
    std::fflush(stdout);
    gate.recv();
  });
}
