// ping_pong.cpp - two fibers throw a ball to and fro, a million times.
//
//     g++ -std=c++17 -O2 -pthread -I. examples/ping_pong.cpp -o ping_pong
//
// Each throw is a send that finds the other fiber waiting: the value goes straight from one frame to the other, and the
// one that caught it runs next. No thread is woken and no system call is made, which is why it takes nanoseconds.
//
// Output:
//     1000000 round trips, the ball was hit 2000000 times
//     one round trip took ... ns
#include "concur.hpp"

#include <chrono>
#include <cstdio>

int main() {
  using clock = std::chrono::steady_clock;
  constexpr int rounds = 1'000'000;

  concur::run([] {
    concur::channel<int> ping;
    concur::channel<int> pong;

    concur::go([ping, pong]() mutable {
      for (int ball : ping) pong.send(ball + 1);
      pong.close();
    });

    const auto start = clock::now();
    int ball = 0;
    for (int i = 0; i < rounds; ++i) {
      ping.send(ball + 1);
      ball = *pong.recv();
    }
    const std::chrono::duration<double, std::nano> taken = clock::now() - start;
    ping.close();

    std::printf("%d round trips, the ball was hit %d times\n", rounds, ball);
    std::printf("one round trip took %.0f ns\n", taken.count() / rounds);
  });
}
