// test_libdill_tokio.cpp - what libdill's tests/chan.c and choose.c and tokio's tests/sync_mpsc.rs check of channels
// with a bound, written anew for fibers and plain threads.
//
// libdill's tests have no names; they are called by what they say of themselves. Which test of theirs is which of ours,
// and which is left out, is in conformance.md.
#include "support/cancel.hpp"
#include "support/crew.hpp"

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

using concur::channel;
using concur::channel_closed;
using concur::otherwise;
using concur::recv;
using concur::select;
using concur::select_ordered;
using concur::send;
using concur::status;
using namespace std::chrono_literals;

namespace {

struct two_numbers {
  int first = 0;
  int second = 0;
};

struct large {
  std::array<char, 1024> bytes{};
};

// Sends and says whether it was refused, with the value still there.
template <class T>
bool is_refused(channel<T> ch, T value) {
  try {
    ch.send(std::move(value));
  } catch (const channel_closed&) {
    return true;
  }
  return false;
}

}  // namespace

TEST_CASE("libdill chan.c: receiver waits for sender, sender waits for receiver, also with zero-byte messages") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    channel<int> ch;
    channel<void> signals;
    crew others(which);
    CONCUR_EXPECT(held, others.go([&] { CONCUR_EXPECT(held, ch.recv() == 333); }).wait_until_parked());
    ch.send(333);
    others.join();
    CONCUR_EXPECT(held, others.go([&] { ch.send(444); }).wait_until_parked());
    CONCUR_EXPECT(held, ch.recv() == 444);
    others.join();
    CONCUR_EXPECT(held, others.go([&] { CONCUR_EXPECT(held, signals.recv()); }).wait_until_parked());
    signals.send();
    others.join();
    CONCUR_EXPECT(held, others.go([&] { signals.send(); }).wait_until_parked());
    CONCUR_EXPECT(held, signals.recv());
    others.join();
    CHECK(held.report() == "");
  });
}

TEST_CASE("libdill chan.c: two simultaneous senders, two simultaneous receivers, values of several types") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    channel<int> ch;
    crew others(which);
    for (const int value : {888, 999}) {
      CONCUR_EXPECT(held, others.go([&, value] { ch.send(value); }).wait_until_parked());
    }
    CONCUR_EXPECT(held, ch.recv() == 888);
    concur::this_fiber::yield();
    CONCUR_EXPECT(held, ch.recv() == 999);
    others.join();
    for (const int value : {333, 444}) {
      companion& waiting = others.go([&, value] { CONCUR_EXPECT(held, ch.recv() == value); });
      CONCUR_EXPECT(held, waiting.wait_until_parked());
    }
    ch.send(333);
    ch.send(444);
    others.join();
    channel<char> letters;
    channel<two_numbers> pairs;
    others.go([&] {
      letters.send('a');
      pairs.send({555, 222});
    });
    CONCUR_EXPECT(held, letters.recv() == 'a');
    const two_numbers got = *pairs.recv();
    CONCUR_EXPECT(held, got.first == 555 && got.second == 222);
    others.join();
    CHECK(held.report() == "");
  });
}

TEST_CASE("libdill chan.c: cancelation, and a limit that passes") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    int cancelled = 0;
    channel<int> ch;
    {
      concur::runtime rt(with_workers(workers));
      std::atomic<bool> has_begun{false};
      rt.go([&] {
        has_begun = true;
        for (int i = 0; i < 2; ++i) {
          try {
            ch.recv();
          } catch (const concur::cancelled&) {
            ++cancelled;
          }
        }
      });
      while (!has_begun) std::this_thread::yield();
    }
    CHECK(cancelled == 2);
    int slot = 3;
    CHECK(ch.recv_for(slot, 1ms) == status::timeout);
    CHECK(ch.send_for(slot, 1ms) == status::timeout);
    CHECK(slot == 3);
  }
}

TEST_CASE("libdill choose.c: non-blocking and blocking receiver and sender case, two channels, choose vs. choose") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    channel<int> a;
    channel<int> b;
    crew others(which);
    int got = 0;
    const auto take = [&](std::optional<int> value) { got = value.value_or(-1); };
    CONCUR_EXPECT(held, others.go([&] { a.send(555); }).wait_until_parked());
    CONCUR_EXPECT(held, select(recv(a, take)) == 0 && got == 555);
    others.join();
    CONCUR_EXPECT(held, others.go([&] { CONCUR_EXPECT(held, a.recv() == 777); }).wait_until_parked());
    CONCUR_EXPECT(held, select(send(a, 777, [] {})) == 0);
    others.join();
    CONCUR_EXPECT(held, others.go([&] { select(recv(a, take), recv(b, take)); }).wait_until_parked());
    b.send(666);
    others.join();
    CONCUR_EXPECT(held, got == 666);
    CONCUR_EXPECT(held, others.go([&] { select(send(a, 888, [] {}), send(b, 999, [] {})); }).wait_until_parked());
    CONCUR_EXPECT(held, a.recv() == 888);
    others.join();
    CONCUR_EXPECT(held, others.go([&] { select(send(a, 111, [] {})); }).wait_until_parked());
    CONCUR_EXPECT(held, select(recv(b, take), recv(a, take)) == 1 && got == 111);
    others.join();
    CHECK(held.report() == "");
  });
}

TEST_CASE("libdill choose.c: two simultaneous senders and receivers vs. choose, a large object, priority") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    channel<int> a;
    channel<int> b;
    channel<large> objects;
    crew others(which);
    for (const int value : {888, 999}) {
      CONCUR_EXPECT(held, others.go([&, value] { a.send(value); }).wait_until_parked());
    }
    for (const int value : {888, 999})
      select(recv(a, [&](std::optional<int> got) { CONCUR_EXPECT(held, got == value); }));
    others.join();
    for (const int value : {333, 444}) {
      companion& waiting = others.go([&, value] { CONCUR_EXPECT(held, a.recv() == value); });
      CONCUR_EXPECT(held, waiting.wait_until_parked());
    }
    select(send(a, 333, [] {}));
    select(send(a, 444, [] {}));
    others.join();
    others.go([&] {
      large one;
      one.bytes.back() = 'x';
      objects.send(one);
    });
    select(recv(objects, [&](std::optional<large> got) { CONCUR_EXPECT(held, got->bytes.back() == 'x'); }));
    for (channel<int>* ch : {&a, &b}) CONCUR_EXPECT(held, others.go([ch] { ch->send(0); }).wait_until_parked());
    CONCUR_EXPECT(held, select_ordered(recv(b, [] {}), recv(a, [] {})) == 0);
    CONCUR_EXPECT(held, a.recv() == 0);
    others.join();
    // The same channel twice is of no use, and does no harm.
    CONCUR_EXPECT(held, select(recv(a, [] {}), recv(a, [] {}), concur::after(2ms, [] {})) == 2);
    CHECK(held.report() == "");
  });
}

TEST_CASE("tokio sync_mpsc.rs send_recv_with_buffer, async_send_recv_with_buffer, start_send_past_cap") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    channel<int> ch(16);
    crew others(which);
    others.go([&] {
      ch.send(1);
      CONCUR_EXPECT(held, ch.try_send(2));
      ch.close();
    });
    CONCUR_EXPECT(held, ch.recv() == 1);
    CONCUR_EXPECT(held, ch.recv() == 2);
    CONCUR_EXPECT(held, !ch.recv());
    others.join();
    // Of two that wait for room the first gives up; the room is the second's.
    channel<int> narrow(1);
    narrow.send(0);
    companion& gives_up = others.go([&] {
      int value = 1;
      CONCUR_EXPECT(held, narrow.send_for(value, 5ms) == status::timeout);
    });
    gives_up.wait_until_parked();
    companion& second = others.go([&] { narrow.send(2); });
    CONCUR_EXPECT(held, second.wait_until_parked());
    gives_up.join();
    CONCUR_EXPECT(held, !second.has_ended());
    CONCUR_EXPECT(held, narrow.recv() == 0);
    second.join();
    CONCUR_EXPECT(held, narrow.recv() == 2);
    CHECK(held.report() == "");
  });
}

TEST_CASE("tokio sync_mpsc.rs recv_close_gets_none_idle, tx_close_gets_none, permit_available_not_acquired_close") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    channel<int> idle(10);
    idle.close();
    CONCUR_EXPECT(held, !idle.recv() && is_refused(idle, 1));
    channel<int> full(1);
    full.send(123);
    crew others(which);
    companion& waiting = others.go([&] { CONCUR_EXPECT(held, is_refused(full, 124)); });
    CONCUR_EXPECT(held, waiting.wait_until_parked());
    full.close();
    others.join();
    CONCUR_EXPECT(held, full.recv() == 123);
    CONCUR_EXPECT(held, !full.recv());
    CHECK(held.report() == "");
  });
}

TEST_CASE("tokio sync_mpsc.rs try_send_fail, try_send_fail_with_try_recv, try_recv_bounded, recv_timeout") {
  const nothing_left_over guard;
  everywhere([](kind) {
    tally held;
    constexpr int bound = 5;
    channel<std::string> ch(bound);
    const auto fill = [&](int count) {
      for (int i = 0; i < count; ++i) CONCUR_EXPECT(held, ch.try_send("hello"));
    };
    const auto drain = [&](int count) {
      for (int i = 0; i < count; ++i) CONCUR_EXPECT(held, ch.try_recv() == "hello");
    };
    std::string kept = "fail";
    fill(bound);
    CONCUR_EXPECT(held, !ch.try_send(kept) && ch.send_for(kept, 1ms) == status::timeout && kept == "fail");
    drain(bound);
    CONCUR_EXPECT(held, !ch.try_recv());
    fill(bound - 1);
    drain(1);
    fill(2);
    CONCUR_EXPECT(held, !ch.try_send(kept) && kept == "fail");
    drain(bound);
    fill(3);
    ch.close();
    CONCUR_EXPECT(held, !ch.try_send(kept) && ch.send_for(kept, 1ms) == status::closed && kept == "fail");
    drain(3);
    CONCUR_EXPECT(held, !ch.try_recv() && ch.closed());
    CHECK(held.report() == "");
  });
}

TEST_CASE("tokio sync_mpsc.rs dropping_rx_closes_channel, unconsumed_messages_are_dropped: with the last handle") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    const auto message = std::make_shared<int>(1);
    {
      channel<std::shared_ptr<int>> ch(100);
      ch.send(message);
      CONCUR_EXPECT(held, message.use_count() == 2);
      channel<std::shared_ptr<int>> copy = ch;
      ch = concur::nil;
      CONCUR_EXPECT(held, message.use_count() == 2);
      copy.close();
      CONCUR_EXPECT(held, is_refused(copy, message));
      CONCUR_EXPECT(held, message.use_count() == 2);  // what was sent before stays to be received
    }
    CONCUR_EXPECT(held, message.use_count() == 1);
    {
      channel<std::shared_ptr<int>> ch;
      crew others(which);
      companion& waiting = others.go([&] { CONCUR_EXPECT(held, is_refused(ch, message)); });
      CONCUR_EXPECT(held, waiting.wait_until_parked());
      ch.close();
      others.join();
    }
    CONCUR_EXPECT(held, message.use_count() == 1);
    CHECK(held.report() == "");
  });
}

TEST_CASE("tokio sync_mpsc.rs blocking_recv, blocking_send: a plain thread on one side, a fiber on the other") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    for (const std::size_t capacity : {0U, 1U}) {
      channel<int> ch(capacity);
      std::optional<int> got;
      std::thread receiving([&] { got = ch.recv(); });
      concur::run(with_workers(workers), [&] { ch.send(10); });
      receiving.join();
      CHECK(got == 10);
      std::thread sending([&] { ch.send(11); });
      got = concur::run(with_workers(workers), [&] { return ch.recv(); });
      sending.join();
      CHECK(got == 11);
    }
  }
}

TEST_CASE("tokio sync_mpsc.rs, cancel safety: a receive that is cancelled has taken nothing") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::run(with_workers(workers), [&] {
      tally held;
      const int count = scaled(3000);
      channel<std::unique_ptr<int>> ch(2);
      cancel_target target;
      std::atomic<bool> is_over{false};
      crew others(kind::fiber);
      others.go([&] {
        target.enter();
        for (int next = 0; next < count;) {
          try {
            const auto got = ch.recv();
            CONCUR_EXPECT(held, got && **got == next);
            ++next;
          } catch (const concur::cancelled&) {
          }
        }
        target.leave();
        is_over = true;
      });
      others.go([&] {
        while (!is_over) {
          target.strike();
          concur::this_fiber::yield();
        }
      });
      for (int i = 0; i < count; ++i) {
        ch.send(std::make_unique<int>(i));
        if (i % 3 == 0) concur::this_fiber::yield();
      }
      others.join();
      CHECK(held.report() == "");
    });
  }
}
