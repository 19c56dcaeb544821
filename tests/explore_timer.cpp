// tests/explore_timer.cpp - sleeps and deadlines under every kind of schedule (support/scenario.hpp).
//
// What must hold: who sleeps is woken, not too early; a wait with a deadline ends in one way; timers that are called off do
// nothing. That nobody is woken at all shows up as a deadlock.
#include "support/scenario.hpp"

using namespace concur_test;
using namespace std::chrono_literals;
using concur::explore_expect;

TEST_CASE("sleepers on several workers are all woken, and none before its time") {
  const nothing_left_over guard;
  scenario_options wanted;
  wanted.workers = 3;
  hold(
      [] {
        int woken = 0;
        concur::with_nursery([&](concur::nursery& n) {
          for (int i = 1; i <= 3; ++i) {
            n.go([&woken, i] {
              for (int k = 0; k < 2; ++k) {
                const auto begin = concur::detail::now_ns();
                concur::this_fiber::sleep_for(std::chrono::milliseconds(i));
                explore_expect(concur::detail::now_ns() - begin >= i * 1'000'000, "woken too early");
              }
              ++woken;
            });
          }
        });
        explore_expect(woken == 3, "somebody did not wake");
      },
      wanted);
}

TEST_CASE("a timer that is called off does not hide the next one from who watches the time") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> ch;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        for (int i = 0; i < 2; ++i) {
          int value = 0;
          ch.recv_for(value, 1ms);
          concur::this_fiber::sleep_for(2ms);
        }
      });
      n.go([&] {
        int value = 1;
        ch.send_for(value, 1ms);
        concur::this_fiber::sleep_for(3ms);
      });
    });
  });
}
