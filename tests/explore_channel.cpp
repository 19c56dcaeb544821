// tests/explore_channel.cpp - channels under every kind of schedule (support/scenario.hpp).
//
// What must hold: each value that was sent is received once or left over, values of one sender come in its order, who
// gives up loses nothing, and a close is heard by everybody.
#include "support/scenario.hpp"

using namespace concur_test;
using concur::explore_expect;

TEST_CASE("values of two senders come each in order, and none is lost") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> ch;
    int last[2] = {0, 0};
    concur::with_nursery([&](concur::nursery& n) {
      for (int who = 0; who < 2; ++who) {
        n.go([&ch, who] {
          for (int i = 1; i <= 2; ++i) ch.send(10 * who + i);
        });
      }
      n.go([&] {
        for (int k = 0; k < 4; ++k) {
          const int value = ch.recv().value();
          const int who = value / 10;
          explore_expect(value % 10 == last[who] + 1, "a sender's values change places, or one is lost");
          last[who] = value % 10;
        }
      });
    });
    explore_expect(last[0] == 2 && last[1] == 2, "a value is missing");
  });
}

TEST_CASE("a receiver whose time is up has lost nothing") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> ch;
    int received = 0;
    bool was_sent = false;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        int value = 1;
        was_sent = ch.send_for(value, std::chrono::milliseconds(2)) == concur::status::ok;
      });
      n.go([&] {
        int value = 0;
        if (ch.recv_for(value, std::chrono::milliseconds(2)) == concur::status::ok) received += value;
      });
    });
    explore_expect(received == (was_sent ? 1 : 0), "sent and received do not agree");
  });
}

TEST_CASE("a close ends every receiver, and what was buffered is still received") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> ch(1);
    int received = 0;
    int ended = 0;
    concur::with_nursery([&](concur::nursery& n) {
      for (int i = 0; i < 2; ++i) {
        n.go([&] {
          while (ch.recv()) ++received;
          ++ended;
        });
      }
      n.go([&] {
        ch.send(1);
        ch.send(2);
        ch.close();
      });
    });
    explore_expect(received == 2, "a value that was sent before the close is lost");
    explore_expect(ended == 2, "a receiver did not hear of the close");
  });
}
