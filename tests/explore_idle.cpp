// tests/explore_idle.cpp - workers that fall asleep, under every kind of schedule (support/scenario.hpp).
//
// What must hold: no worker sleeps over a timer. A schedule in which one does is a deadlock, in which a fiber sleeps.
#include "support/scenario.hpp"

using namespace concur_test;
using std::chrono::milliseconds;

TEST_CASE("a timer that follows one that has passed is not slept over") {
  const nothing_left_over guard;
  hold([] {
    for (int i = 0; i < 3; ++i) concur::this_fiber::sleep_for(milliseconds(1));
  });
}

TEST_CASE("a timer that follows one that was called off is not slept over") {
  const nothing_left_over guard;
  hold([] {
    concur::event early;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        early.wait_for(milliseconds(1));
        concur::this_fiber::sleep_for(milliseconds(3));
      });
      n.go([&] {
        concur::this_fiber::yield();
        early.set();
      });
    });
  });
}
