// test_crossbeam_channel.cpp - what crossbeam-channel's tests check of its bounded channels (array.rs, zero.rs,
// mpsc.rs, iter.rs, same_channel.rs, never.rs), written anew for fibers and plain threads.
//
// There a channel is closed when all handles of one side are gone; here it is closed by close(). Which test of theirs
// is which of ours, and which is left out, is in conformance.md.
#include "support/crew.hpp"

#include <any>
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <random>
#include <vector>

using concur::channel;
using concur::channel_closed;
using concur::otherwise;
using concur::receiver;
using concur::recv;
using concur::select;
using concur::send;
using concur::sender;
using concur::status;
using namespace std::chrono_literals;

namespace {

// Counts how many ended; one that was moved from does not count.
struct counted {
  explicit counted(std::atomic<int>& c) noexcept : count(&c) {}
  counted(counted&& other) noexcept : count(std::exchange(other.count, nullptr)) {}
  counted& operator=(counted&& other) noexcept {
    std::swap(count, other.count);
    return *this;
  }
  ~counted() {
    if (count != nullptr) ++*count;
  }
  std::atomic<int>* count;
};

// Each of `hits` has at least half of what it would have if all had the same.
bool are_fair(const std::vector<int>& hits, int count) {
  for (const int one : hits) {
    if (one < count / static_cast<int>(hits.size()) / 2) return false;
  }
  return true;
}

bool is_refused(channel<std::unique_ptr<int>>& ch, std::unique_ptr<int> value) {
  try {
    ch.send(std::move(value));
  } catch (const channel_closed&) {
    return value != nullptr;
  }
  return false;
}

}  // namespace

TEST_CASE("array.rs and zero.rs len: the size is within the capacity at every moment") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    for (const std::size_t capacity : {0U, 1U, 100U}) {
      channel<int> ch(capacity);
      const int count = scaled(1500);
      crew others(which);
      others.go([&] {
        for (int i = 0; i < count; ++i) {
          CONCUR_EXPECT(held, ch.recv() == i);
          CONCUR_EXPECT(held, ch.size() <= capacity);
        }
      });
      for (int i = 0; i < count; ++i) {
        ch.send(i);
        CONCUR_EXPECT(held, ch.size() <= capacity);
      }
      others.join();
      CONCUR_EXPECT(held, ch.size() == 0);
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("array.rs and zero.rs spsc") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    for (const std::size_t capacity : {0U, 3U}) {
      channel<int> ch(capacity);
      const int count = scaled(5000);
      crew others(which);
      others.go([&] {
        for (int i = 0; i < count; ++i) CONCUR_EXPECT(held, ch.recv() == i);
        CONCUR_EXPECT(held, !ch.recv());
      });
      for (int i = 0; i < count; ++i) ch.send(i);
      ch.close();
      others.join();
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("array.rs and zero.rs mpmc") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    for (const std::size_t capacity : {0U, 3U}) {
      constexpr int parties = 4;
      const std::size_t count = static_cast<std::size_t>(scaled(1000));
      channel<std::size_t> ch(capacity);
      std::vector<std::atomic<int>> seen(count);
      crew all(which);
      for (int p = 0; p < parties; ++p) {
        all.go([&] {
          for (std::size_t i = 0; i < count; ++i) ++seen[ch.recv().value()];
        });
        all.go([&] {
          for (std::size_t i = 0; i < count; ++i) ch.send(i);
        });
      }
      all.join();
      for (const std::atomic<int>& times : seen) CONCUR_EXPECT(held, times == parties);
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("array.rs, zero.rs and mpsc.rs stress_oneshot, oneshot_multi_thread_send_recv_stress, issue_15761") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    for (const std::size_t capacity : {0U, 1U, 3U}) {
      for (int i = 0; i < scaled(60); ++i) {
        channel<std::unique_ptr<int>> there(capacity);
        channel<void> back(3);
        crew all(which);
        all.go([&] {
          CONCUR_EXPECT(held, **there.recv() == 10);
          CONCUR_EXPECT(held, back.try_send());
        });
        all.go([&] { there.send(std::make_unique<int>(10)); });
        CONCUR_EXPECT(held, back.recv());
        all.join();
      }
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("array.rs, zero.rs and iter.rs stress_iter, recv_try_iter: what is there is taken without waiting") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    for (const std::size_t capacity : {0U, 1U}) {
      channel<void> requests(capacity);
      channel<int> responses(capacity);
      const int count = scaled(1000);
      crew others(which);
      others.go([&] {
        for (int sum = 0; sum < count;) {
          while (const std::optional<int> got = responses.try_recv()) sum += *got;
          // A request that nobody takes now is made again; nothing may be waited for on both sides.
          if (sum < count && !requests.try_send()) concur::this_fiber::yield();
        }
        requests.close();
        responses.close();
      });
      int answered = 0;
      try {
        while (requests.recv()) {
          responses.send(1);
          ++answered;
        }
      } catch (const channel_closed&) {
      }
      others.join();
      CONCUR_EXPECT(held, answered >= count);
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("array.rs, zero.rs and mpsc.rs stress_timeout_two_threads, stress_recv_timeout_two_threads") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    for (const std::size_t capacity : {0U, 2U}) {
      channel<int> ch(capacity);
      constexpr int count = 60;
      std::atomic<int> timeouts{0};
      crew others(which);
      others.go([&] {
        for (int i = 0; i < count; ++i) {
          if (i % 8 == 0) concur::this_fiber::sleep_for(2ms);
          int value = i;
          while (ch.send_for(value, 500us) != status::ok) ++timeouts;
        }
        ch.close();
      });
      int next = 0;
      for (status how = status::ok; how != status::closed;) {
        if (next % 8 == 4) concur::this_fiber::sleep_for(2ms);
        int got = -1;
        how = ch.recv_for(got, 500us);
        if (how == status::ok) CONCUR_EXPECT(held, got == next++);
        if (how == status::timeout) ++timeouts;
      }
      others.join();
      CONCUR_EXPECT(held, next == count && timeouts > 0);
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("mpsc.rs stress_shared, stress_recv_timeout_shared, shared_chan_stress: many senders, one receiver") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    constexpr int parties = 8;
    const int each = scaled(200);
    for (const bool is_timed : {false, true}) {
      channel<int> ch;
      concur::wait_group sending;
      sending.add(parties);
      crew all(which);
      for (int p = 0; p < parties; ++p) {
        all.go([&] {
          for (int i = 0; i < each; ++i) ch.send(1);
          sending.done();
        });
      }
      all.go([&] {
        sending.wait();
        ch.close();
      });
      int sum = 0;
      for (status how = status::ok; how != status::closed;) {
        int got = 0;
        if (is_timed)
          how = ch.recv_for(got, 10ms);
        else
          how = ch.recv() ? (got = 1, status::ok) : status::closed;
        sum += got;
      }
      all.join();
      CONCUR_EXPECT(held, sum == parties * each && !ch.try_recv());
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("array.rs and zero.rs drops: every value ends once") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    std::mt19937 random(7);
    for (const int capacity : {0, 50}) {
      for (int run = 0; run < 10; ++run) {
        const int steps = static_cast<int>(random() % 200);
        const int additional = capacity != 0 ? static_cast<int>(random() % 50) : 0;
        std::atomic<int> ended{0};
        {
          channel<counted> ch(static_cast<std::size_t>(capacity));
          crew others(which);
          others.go([&] {
            for (int i = 0; i < steps; ++i) ch.recv();
          });
          for (int i = 0; i < steps; ++i) ch.send(counted(ended));
          others.join();
          for (int i = 0; i < additional; ++i) ch.send(counted(ended));
          CONCUR_EXPECT(held, ended == steps);
        }
        CONCUR_EXPECT(held, ended == steps + additional);
      }
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("array.rs linearizable: who has sent finds something to receive") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    constexpr std::size_t parties = 4;
    channel<int> ch(parties);
    crew all(which);
    for (std::size_t p = 0; p < parties; ++p) {
      all.go([&] {
        for (int i = 0; i < scaled(2000); ++i) {
          ch.send(0);
          CONCUR_EXPECT(held, ch.try_recv().has_value());
          if (i % 64 == 0) concur::this_fiber::yield();
        }
      });
    }
    all.join();
    CHECK(held.report() == "");
  });
}

TEST_CASE("array.rs and zero.rs fairness") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    constexpr int count = 2000;  // also under a sanitizer: chance needs room
    for (const std::size_t capacity : {std::size_t{0}, std::size_t{count}}) {
      channel<void> a(capacity);
      channel<void> b(capacity);
      std::vector<int> sent(2);
      std::vector<int> received(2);
      const auto send_all = [&] {
        for (int i = 0; i < count; ++i) ++sent[static_cast<std::size_t>(select(send(a, [] {}), send(b, [] {})))];
      };
      crew others(which);
      if (capacity == 0)
        others.go(send_all);
      else
        for (int i = 0; i < count; ++i) (a.send(), b.send());
      for (int i = 0; i < count; ++i) ++received[static_cast<std::size_t>(select(recv(a, [] {}), recv(b, [] {})))];
      others.join();
      CONCUR_EXPECT(held, are_fair(received, count));
      if (capacity == 0) CONCUR_EXPECT(held, are_fair(sent, count));
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("array.rs and zero.rs fairness_duplicates: also between several cases of one channel") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    constexpr int count = 4000;
    for (const std::size_t capacity : {std::size_t{0}, std::size_t{count}}) {
      channel<void> ch(capacity);
      std::vector<int> sent(5);
      std::vector<int> received(5);
      const auto put = [&] { return send(ch, [] {}); };
      const auto get = [&] { return recv(ch, [] {}); };
      const auto send_all = [&] {
        for (int i = 0; i < count; ++i) ++sent[static_cast<std::size_t>(select(put(), put(), put(), put(), put()))];
      };
      crew others(which);
      if (capacity == 0)
        others.go(send_all);
      else
        send_all();
      for (int i = 0; i < count; ++i) ++received[static_cast<std::size_t>(select(get(), get(), get(), get(), get()))];
      others.join();
      CONCUR_EXPECT(held, are_fair(received, count) && are_fair(sent, count));
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("array.rs and zero.rs recv_in_send: the value of a send is computed before anything is looked at") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    channel<int> full(1);
    full.send(1);
    // Computing the value makes the room that the send then finds.
    select(send(full, *full.recv() + 1, [] {}), otherwise([&] { CONCUR_EXPECT(held, false && "there was room"); }));
    CONCUR_EXPECT(held, full.recv() == 2);
    channel<int> ch;
    crew others(which);
    CONCUR_EXPECT(held, others.go([&] { ch.send(5); }).wait_until_parked());
    // A sender waits on the channel when the value is computed, and only a receiver afterwards.
    const auto take_and_start_receiver = [&] {
      const int got = ch.recv().value();
      others.go([&] { CONCUR_EXPECT(held, ch.recv() == 6); });
      return got + 1;
    };
    select(send(ch, take_and_start_receiver(), [] {}));
    others.join();
    CHECK(held.report() == "");
  });
}

TEST_CASE("array.rs, zero.rs, select.rs and select_macro.rs channel_through_channel") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    constexpr int count = scaled(500);
    for (const bool is_selecting : {false, true}) {
      for (const std::size_t capacity : {0U, 1U, 2U}) {
        channel<std::any> first(capacity);
        crew others(which);
        others.go([ch = first, capacity, is_selecting]() mutable {
          for (int i = 0; i < count; ++i) {
            channel<std::any> next(capacity);
            if (is_selecting)
              select(send(ch, std::any(next), [] {}));
            else
              ch.send(std::any(next));
            ch = next;
          }
        });
        channel<std::any> ch = first;
        for (int i = 0; i < count; ++i) {
          std::any got;
          if (is_selecting)
            select(recv(ch, [&](std::optional<std::any> value) { got = value.value_or(std::any()); }));
          else
            got = *ch.recv();
          ch = std::any_cast<channel<std::any>>(got);
        }
        CONCUR_EXPECT(held, ch.capacity() == capacity);
        others.join();
      }
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("mpsc.rs oneshot_multi_thread_close_stress, _send_close_stress, _recv_close_stress, send1 to send4") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    for (int i = 0; i < scaled(100); ++i) {
      channel<std::unique_ptr<int>> ch(static_cast<std::size_t>(i % 2));
      std::atomic<int> refused{0};
      std::atomic<int> empty{0};
      std::atomic<int> closes{0};
      crew all(which);
      for (int p = 0; p < 2; ++p) {
        all.go([&] { closes += ch.try_close() ? 1 : 0; });
        all.go([&] { refused += is_refused(ch, std::make_unique<int>(1)) ? 1 : 0; });
        all.go([&] { empty += ch.recv() ? 0 : 1; });
      }
      all.join();
      const int left = static_cast<int>(ch.size());
      CONCUR_EXPECT(held, closes == 1);
      // What was not refused has been received, or lies in the ring.
      CONCUR_EXPECT(held, 2 - refused == 2 - empty + left);
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("mpsc.rs stream_send_recv_stress: each value sent and received by another party") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    channel<std::unique_ptr<int>> ch;
    crew all(which);
    for (int i = 0; i < 10; ++i) {
      if (i % 2 == 0) {
        CONCUR_EXPECT(held, all.go([&, i] { ch.send(std::make_unique<int>(i)); }).wait_until_parked());
        all.go([&, i] { CONCUR_EXPECT(held, **ch.recv() == i); });
      } else {
        CONCUR_EXPECT(held, all.go([&, i] { CONCUR_EXPECT(held, **ch.recv() == i); }).wait_until_parked());
        all.go([&, i] { ch.send(std::make_unique<int>(i)); });
      }
      all.join();
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("mpsc.rs try_recv_states, recv_a_lot, destroy_upgraded_shared_port_when_sender_still_active") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    channel<int> values(1);
    channel<void> go_on(1);
    channel<void> is_done(1);
    crew others(which);
    others.go([&] {
      go_on.recv();
      values.send(1);
      is_done.send();
      go_on.recv();
      values.close();
      is_done.send();
    });
    CONCUR_EXPECT(held, !values.try_recv() && !values.closed());
    go_on.send();
    is_done.recv();
    CONCUR_EXPECT(held, values.try_recv() == 1);
    CONCUR_EXPECT(held, !values.try_recv() && !values.closed());
    go_on.send();
    is_done.recv();
    CONCUR_EXPECT(held, !values.try_recv() && values.closed());
    others.join();

    channel<int> large(10'000);
    for (int i = 0; i < 10'000; ++i) large.send(i);
    for (int i = 0; i < 10'000; ++i) CONCUR_EXPECT(held, large.recv() == i);

    // The last handle goes while its sender still returns.
    for (int i = 0; i < scaled(200); ++i) {
      channel<int> ch;
      others.go([own = ch]() mutable {
        own.recv();
        own = concur::nil;
      });
      channel<int> other = ch;
      ch = concur::nil;
      other.send(1);
      other = concur::nil;
      if (i % 16 == 0) others.join();
    }
    others.join();
    CHECK(held.report() == "");
  });
}

TEST_CASE("iter.rs nested_recv_iter, recv_iter_break, recv_into_iter_owned, recv_into_iter_borrowed") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    channel<int> ch;
    channel<int> total;
    crew others(which);
    others.go([&] {
      int sum = 0;
      for (const int x : receiver<int>(ch)) sum += x;
      total.send(sum);
    });
    for (const int x : {3, 1, 2}) ch.send(x);
    ch.close();
    CONCUR_EXPECT(held, total.recv() == 6);
    others.join();

    // Leaving the loop leaves the rest in the channel; going on finds it, but for the one that was already taken.
    channel<int> more(5);
    for (int i = 1; i <= 5; ++i) more.send(i);
    more.close();
    for (const int x : more) {
      if (x == 2) break;
    }
    CONCUR_EXPECT(held, more.size() == 3);
    auto owned = [] {
      channel<int> ones(2);
      ones.send(1);
      ones.send(2);
      ones.close();
      return receiver<int>(ones);
    }();
    auto at = owned.begin();
    CONCUR_EXPECT(held, at != owned.end() && *at == 1);
    CONCUR_EXPECT(held, *++at == 2 && ++at == owned.end());
    CHECK(held.report() == "");
  });
}

TEST_CASE("same_channel.rs: array, zero, after, tick, never, different_flavours") {
  const nothing_left_over guard;
  for (const std::size_t capacity : {0U, 1U}) {
    const channel<int> ch(capacity);
    const channel<int> other(capacity);
    const sender<int> s = ch;
    const receiver<int> r = ch;
    const channel<int> same = ch;
    CHECK(same == ch);
    CHECK(sender<int>(same) == s);
    CHECK(receiver<int>(same) == r);
    CHECK(other != ch);
    CHECK(sender<int>(other) != s);
    CHECK(receiver<int>(other) != r);
  }
  CHECK(channel<int>(0) != channel<int>(1));
  const channel<concur::time_point> once = concur::after(50ms);
  const channel<concur::time_point> same_once = once;
  CHECK(same_once == once);
  CHECK(concur::after(50ms) != once);
  const concur::ticker ticks = concur::tick(50ms);
  const concur::ticker same_ticks = ticks;
  CHECK(same_ticks == ticks);
  CHECK(concur::tick(50ms) != ticks);
  CHECK(channel<int>(concur::nil) == channel<int>(concur::nil));
  CHECK(receiver<int>(concur::nil) == receiver<int>(concur::nil));
  CHECK(channel<int>(concur::nil) != channel<int>());
}

TEST_CASE("never.rs optional and tick_n: a channel is taken out of a select by nil") {
  const nothing_left_over guard;
  everywhere([](kind) {
    tally held;
    channel<int> ch(2);
    ch.send(1);
    ch.send(2);
    receiver<int> r = ch;
    CONCUR_EXPECT(held, select(recv(r, [] {}), otherwise([] {})) == 0);
    r = concur::nil;
    CONCUR_EXPECT(held, select(recv(r, [] {}), otherwise([] {})) == 1);
    CONCUR_EXPECT(held, ch.size() == 1);
    receiver<concur::time_point> ticks = concur::tick(1ms);
    int steps = 0;
    while (concur::select_ordered(recv(ticks, [&] { ++steps; }), concur::after(20ms, [] {})) == 0) {
      if (steps == 10) ticks = concur::nil;
    }
    CONCUR_EXPECT(held, steps == 10);
    CHECK(held.report() == "");
  });
}
