// bench/least.cpp - the least program that uses the library: one fiber, one channel. Measured for its size, not its speed.
#include "concur.hpp"

int main() {
  int got = 0;
  concur::run([&] {
    concur::channel<int> ch;
    concur::go([ch]() mutable { ch.send(42); });
    got = ch.recv().value_or(0);
  });
  return got == 42 ? 0 : 1;
}
