// bench/peers/boost_fiber/least.cpp - the least program of bench/least.cpp, with Boost.Fiber.
#include <boost/fiber/all.hpp>

int main() {
  boost::fibers::unbuffered_channel<int> channel;
  boost::fibers::fiber sender([&] { channel.push(42); });
  const int got = channel.value_pop();
  sender.join();
  return got == 42 ? 0 : 1;
}
