// test_crossbeam_select.cpp - what crossbeam-channel's tests check of select! and of Select (select_macro.rs,
// select.rs, mpsc.rs select_tests), written anew for fibers and plain threads.
//
// Their macro is our select, their Select our selector; what both have to do runs here in both forms. Which test of
// theirs is which of ours, and which is left out, is in conformance.md.
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
using concur::selector;
using concur::send;
using namespace std::chrono_literals;

namespace {

enum class form { known_beforehand, known_at_run_time };

template <class... Cases>
int choose(form which, Cases... cases) {
  if (which == form::known_beforehand) return select(cases...);
  return selector{std::move(cases)...}.wait();
}

template <class F>
void in_both_forms(F body) {
  everywhere([&](kind which) {
    for (const form how : {form::known_beforehand, form::known_at_run_time}) {
      tally held;
      body(which, how, held);
      CHECK(held.report() == "");
    }
  });
}

// A function of a case that is not to go.
auto unreachable(tally& held) {
  return [&held] { CONCUR_EXPECT(held, false && "this case cannot go"); };
}
auto takes(tally& held, int expected) {
  return [&held, expected](std::optional<int> value) { CONCUR_EXPECT(held, value == expected); };
}
auto takes_nothing(tally& held) {
  return [&held](std::optional<int> value) { CONCUR_EXPECT(held, !value); };
}

}  // namespace

TEST_CASE("select.rs and select_macro.rs smoke1, smoke2, preflight1 to 3, mpsc.rs select_tests smoke, closed, sync1") {
  const nothing_left_over guard;
  in_both_forms([](kind, form how, tally& held) {
    std::vector<channel<int>> ch(5, channel<int>(concur::nil));
    for (channel<int>& one : ch) one = channel<int>(2);
    const auto not_this = unreachable(held);
    for (std::size_t ready = 0; ready < 5; ++ready) {
      const int number = static_cast<int>(ready);
      ch[ready].send(number);
      const auto get = [&](std::size_t i) {
        return recv(ch[i], [&, i](std::optional<int> value) {
          CONCUR_EXPECT(held, i == ready && value == number);
        });
      };
      CONCUR_EXPECT(held, choose(how, get(0), get(1), get(2), get(3), get(4)) == number);
    }
    ch[0].send(7);
    ch[0].close();
    CONCUR_EXPECT(held, choose(how, recv(ch[0], takes(held, 7)), recv(ch[1], not_this)) == 0);
    CONCUR_EXPECT(held, choose(how, recv(ch[1], not_this), recv(ch[0], takes_nothing(held))) == 1);
    CONCUR_EXPECT(held, choose(how, recv(ch[0], takes_nothing(held))) == 0);
  });
}

TEST_CASE("select.rs and select_macro.rs disconnected, default, default_when_disconnected, disconnect_wakes_sender") {
  const nothing_left_over guard;
  in_both_forms([](kind which, form how, tally& held) {
    channel<int> a;
    channel<int> b(1);
    const auto not_this = unreachable(held);
    CONCUR_EXPECT(held, choose(how, recv(a, not_this), recv(b, not_this), otherwise([] {})) == 2);
    CONCUR_EXPECT(held, choose(how, otherwise([] {})) == 0);
    crew others(which);
    CONCUR_EXPECT(held, others
                            .go([&] {
                              CONCUR_EXPECT(held, choose(how, recv(a, takes_nothing(held)), recv(b, not_this)) == 0);
                            })
                            .wait_until_parked());
    a.close();
    others.join();
    CONCUR_EXPECT(held, choose(how, recv(a, takes_nothing(held)), recv(b, not_this), otherwise(not_this)) == 0);
    b.send(2);
    CONCUR_EXPECT(held, choose(how, recv(b, takes(held, 2)), otherwise(not_this)) == 0);
    b.send(2);
    for (const bool has_limit : {false, true}) {
      int refused = 0;
      companion& other = others.go([&] {
        channel<int>& ch = has_limit ? a : b;
        try {
          if (has_limit)
            choose(how, send(ch, 0 + 1, not_this), concur::after(20s, not_this));
          else
            choose(how, send(ch, 0 + 1, not_this));
        } catch (const channel_closed&) {
          ++refused;
        }
      });
      if (!has_limit) {
        CONCUR_EXPECT(held, other.wait_until_parked());
        b.close();
      }
      others.join();
      CONCUR_EXPECT(held, refused == 1);
    }
  });
}

TEST_CASE("select.rs and select_macro.rs timeout, default_only, unblocks, recv_timeout, send_timeout") {
  const nothing_left_over guard;
  in_both_forms([](kind which, form how, tally& held) {
    channel<int> a;
    channel<int> b;
    const auto not_this = unreachable(held);
    const auto begin = std::chrono::steady_clock::now();
    CONCUR_EXPECT(held, choose(how, recv(a, not_this), recv(b, not_this), concur::after(2ms, [] {})) == 2);
    CONCUR_EXPECT(held, choose(how, concur::after(2ms, [] {})) == 0);
    const int one = 1;
    CONCUR_EXPECT(held, choose(how, send(a, one, not_this), send(b, one, not_this), concur::after(2ms, [] {})) == 2);
    CONCUR_EXPECT(held, std::chrono::steady_clock::now() - begin >= 6ms);
    selector none;
    CONCUR_EXPECT(held, none.try_wait() == -1 && none.wait_for(1ms) == -1);
    crew others(which);
    CONCUR_EXPECT(held, others
                            .go([&] {
                              const auto limit = concur::after(20s, not_this);
                              CONCUR_EXPECT(held, choose(how, recv(a, not_this), recv(b, takes(held, 2)), limit) == 1);
                              CONCUR_EXPECT(held, choose(how, send(a, one, [] {}), send(b, one, not_this), limit) == 0);
                            })
                            .wait_until_parked());
    b.send(2);
    CONCUR_EXPECT(held, a.recv() == 1);
    others.join();
  });
}

TEST_CASE("select.rs and select_macro.rs both_ready, loop_try, mpsc.rs select_tests both_ready, sync2, sync3") {
  const nothing_left_over guard;
  in_both_forms([](kind which, form how, tally& held) {
    channel<int> a;
    channel<int> b;
    crew others(which);
    others.go([&] {
      a.send(1);
      CONCUR_EXPECT(held, b.recv() == 2);
    });
    const int two = 2;
    int sum = 0;
    for (int i = 0; i < 2; ++i) sum += 1 + choose(how, recv(a, takes(held, 1)), send(b, two, [] {}));
    CONCUR_EXPECT(held, sum == 3);
    others.join();

    // One of two that only try meets one that waits; the other is told that it is over.
    for (int i = 0; i < 5; ++i) {
      channel<void> over;
      std::atomic<int> met{0};
      others.go([&] {
        for (bool is_done = false; !is_done; concur::this_fiber::yield()) {
          const auto hit = [&] { is_done = ++met > 0; };
          choose(how, send(a, two, hit), otherwise([] {}));
          if (!is_done) choose(how, recv(over, [&] { is_done = true; }), otherwise([] {}));
        }
      });
      others.go([&] {
        while (!b.try_recv()) {
          if (!over.try_recv() && over.closed()) return;
          concur::this_fiber::yield();
        }
        ++met;
      });
      choose(how, recv(a, takes(held, 2)), send(b, two, [] {}), concur::after(20s, unreachable(held)));
      over.close();
      others.join();
      CONCUR_EXPECT(held, met == 1);
    }
  });
}

TEST_CASE("select.rs and select_macro.rs cloning1, cloning2, mpsc.rs select_tests cloning") {
  const nothing_left_over guard;
  in_both_forms([](kind which, form how, tally& held) {
    channel<int> a;
    channel<int> b;
    crew others(which);
    companion& waiting =
        others.go([&] { CONCUR_EXPECT(held, choose(how, recv(a, unreachable(held)), recv(b, takes(held, 5))) == 1); });
    CONCUR_EXPECT(held, waiting.wait_until_parked());
    {
      channel<int> copy = a;
      const concur::sender<int> end = copy;
      copy = concur::nil;
    }
    CONCUR_EXPECT(held, !waiting.has_ended());
    b.send(5);
    others.join();
  });
}

TEST_CASE("select.rs and select_macro.rs duplicate_operations, nesting, parse_nesting, references, handles_on_heap") {
  const nothing_left_over guard;
  in_both_forms([](kind, form how, tally& held) {
    const auto ch = std::make_unique<channel<int>>(8);
    std::array<bool, 4> hit{};
    const int zero = 0;
    int rounds = 0;
    while (!(hit[0] && hit[1] && hit[2] && hit[3]) && ++rounds < 10'000) {
      const int won =
          choose(how, recv(*ch, [] {}), recv(*ch, [] {}), send(*ch, zero, [] {}), send(*ch, zero, [] {}));
      hit[static_cast<std::size_t>(won)] = true;
    }
    CONCUR_EXPECT(held, rounds < 10'000);
    while (ch->try_recv()) {
    }
    // A select in the function of a case of a select, on the same channel.
    int depth = 0;
    choose(how, send(*ch, zero, [&] {
             ++depth;
             choose(how, recv(*ch, [&](std::optional<int> value) {
                      CONCUR_EXPECT(held, value == 0);
                      ++depth;
                      const int one = 1;
                      choose(how, send(*ch, one, [&] { choose(how, recv(*ch, takes(held, 1))); }));
                    }));
           }));
    CONCUR_EXPECT(held, depth == 2 && ch->size() == 0);
  });
}

TEST_CASE("select_macro.rs panic_sender, panic_receiver, once_blocks, move_handles") {
  const nothing_left_over guard;
  everywhere([](kind) {
    tally held;
    const auto fails = []() -> channel<int> { throw std::string("no channel"); };
    channel<int> ch(1);
    int caught = 0;
    for (int way = 0; way < 2; ++way) {
      try {
        if (way == 0) select(send(fails(), 1, [] {}), send(ch, 1, [] {}));
        if (way == 1) select(recv(fails(), [] {}), send(ch, 1, [] {}));
      } catch (const std::string&) {
        ++caught;
      }
    }
    CONCUR_EXPECT(held, caught == 2 && ch.size() == 0);
    // A function that can be called once only because it owns, and handles that are moved in.
    auto once = std::make_unique<int>(3);
    int got = 0;
    select(send(channel<int>(ch), 2, [own = std::move(once), &got] { got = *own; }));
    CONCUR_EXPECT(held, got == 3 && ch.recv() == 2);
    CHECK(held.report() == "");
  });
}

TEST_CASE("select.rs and select_macro.rs stress_recv, stress_send, stress_mixed, reuse, mpsc.rs select_tests stress") {
  const nothing_left_over guard;
  in_both_forms([](kind which, form how, tally& held) {
    const int count = scaled(600);
    channel<int> a;
    channel<int> b(5);
    channel<int> c;
    channel<void> go_on(100);
    crew others(which);
    others.go([&] {
      for (int i = 0; i < count; ++i) {
        a.send(i);
        go_on.recv();
        b.send(i);
        go_on.recv();
        CONCUR_EXPECT(held, a.recv() == i);
        CONCUR_EXPECT(held, c.recv() == i);
        go_on.recv();
        a.send(i);
        CONCUR_EXPECT(held, c.recv() == i);
        go_on.recv();
      }
    });
    selector again;  // reuse: its receiving cases stay
    int i = 0;
    again.add(recv(a, [&](std::optional<int> value) { CONCUR_EXPECT(held, value == i); }));
    again.add(recv(b, [&](std::optional<int> value) { CONCUR_EXPECT(held, value == i); }));
    for (; i < count; ++i) {
      for (int k = 0; k < 2; ++k) {
        if (how == form::known_at_run_time)
          again.wait();
        else
          select(recv(a, takes(held, i)), recv(b, takes(held, i)));
        go_on.send();
      }
      for (int k = 0; k < 2; ++k) choose(how, send(a, i, [] {}), send(c, i, [] {}));
      go_on.send();
      for (int k = 0; k < 2; ++k) choose(how, recv(a, takes(held, i)), send(c, i, [] {}));
      go_on.send();
    }
    CONCUR_EXPECT(held, again.size() == 2);
    others.join();
  });
}

TEST_CASE("select.rs and select_macro.rs matching, matching_with_leftover, send_recv_same_channel") {
  const nothing_left_over guard;
  in_both_forms([](kind which, form how, tally& held) {
    channel<int> ch;
    const int own = -1;
    const auto not_this = unreachable(held);
    CONCUR_EXPECT(held, choose(how, send(ch, own, not_this), recv(ch, not_this), concur::after(1ms, [] {})) == 2);
    const int room = 1;
    channel<int> roomy(1);
    const auto limit = concur::after(20s, not_this);
    CONCUR_EXPECT(held, choose(how, send(roomy, room, [] {}), recv(roomy, not_this), limit) == 0);
    for (const bool is_one_left : {false, true}) {
      const int parties = is_one_left ? 21 : 20;
      crew all(which);
      for (int i = 0; i < parties; ++i) {
        all.go([&, i] {
          choose(how, recv(ch, [&, i](std::optional<int> value) { CONCUR_EXPECT(held, value && *value != i); }),
                 send(ch, i, [] {}));
        });
      }
      if (is_one_left) ch.send(-2);
      all.join();
      CONCUR_EXPECT(held, !ch.try_recv());
    }
  });
}

TEST_CASE("select.rs linearizable_timeout: of two, one is always ready, and a limit that has passed changes nothing") {
  const nothing_left_over guard;
  in_both_forms([](kind which, form how, tally& held) {
    channel<void> begin;
    channel<void> end;
    channel<int> a(1);
    channel<int> b(1);
    const int count = scaled(1000);
    crew others(which);
    others.go([&] {
      for (int i = 0; i < count; ++i) {
        begin.recv();
        b.send(1);
        a.try_recv();
        end.recv();
      }
    });
    for (int i = 0; i < count; ++i) {
      begin.send();
      a.send(1);
      if (how == form::known_at_run_time) {
        selector cases{recv(a, [] {}), recv(b, [] {})};
        CONCUR_EXPECT(held, cases.wait_for(0ms) >= 0);
      } else {
        CONCUR_EXPECT(held, select_ordered(recv(a, [] {}), recv(b, [] {}), concur::after(0ms, [] {})) < 2);
      }
      end.send();
      b.try_recv();
    }
    others.join();
  });
}

TEST_CASE("select.rs and select_macro.rs fairness1, fairness2, fairness_recv, fairness_send") {
  const nothing_left_over guard;
  in_both_forms([](kind which, form how, tally& held) {
    constexpr int count = 1000;
    const auto is_fair = [&](const auto& hits, int part) {
      for (const int one : hits) CONCUR_EXPECT(held, one >= count / part);
    };
    channel<void> a(count);
    channel<void> b(count);
    std::array<int, 2> sent{};
    std::array<int, 4> hits{};
    const auto won = [](auto& all, int index) { ++all[static_cast<std::size_t>(index)]; };
    for (int i = 0; i < count; ++i) won(sent, choose(how, send(a, [] {}), send(b, [] {})));
    is_fair(sent, 4);
    while (a.try_send()) {
    }
    while (b.try_send()) {
    }
    for (int i = 0; i < count; ++i) {
      const channel<concur::time_point> once = concur::after(0ms);
      won(hits, choose(how, recv(a, [] {}), recv(b, [] {}), recv(once, [] {}), concur::after(0ms, [] {})));
    }
    is_fair(hits, 8);
    channel<void> ring(1), wide(4), meeting;
    std::array<int, 3> met{};
    crew others(which);
    others.go([&] {
      for (int i = 0; i < count; ++i) {
        const channel<void> first = wide.size() == 0 ? wide : channel<void>(concur::nil);
        const channel<void> second = ring.size() == 0 ? ring : channel<void>(concur::nil);
        choose(how, send(first, [] {}), send(second, [] {}), send(meeting, [] {}));
      }
    });
    for (int i = 0; i < count; ++i)
      won(met, choose(how, recv(wide, [] {}), recv(ring, [] {}), recv(meeting, [] {})));
    others.join();
    CONCUR_EXPECT(held, met[0] + met[1] + met[2] == count && met[0] > 0 && met[1] > 0);
  });
}

TEST_CASE("select_macro.rs unfairness, unfairness_timeout, unfairness_try: select_ordered, also after a wait") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    constexpr int count = 200;
    channel<void> a(count), b(count), c(count);
    for (int i = 0; i < count; ++i) (a.send(), b.send());
    c.send();
    for (int i = 0; i < 2 * count; ++i) {
      const int expected = i < count ? 0 : 1;
      const auto get = [](channel<void>& ch) { return recv(ch, [] {}); };
      if (i % 3 == 0) CONCUR_EXPECT(held, select_ordered(get(a), get(b), get(c)) == expected);
      if (i % 3 == 1)
        CONCUR_EXPECT(held, select_ordered(get(a), get(b), get(c), concur::after(20s, [] {})) == expected);
      if (i % 3 == 2) CONCUR_EXPECT(held, select_ordered(get(a), get(b), get(c), otherwise([] {})) == expected);
    }
    channel<int> ch;
    crew others(which);
    for (int i = 0; i < 20; ++i) {
      int index = -1;
      companion& waiting = others.go([&] {
        index = select_ordered(recv(a, [] {}), recv(ch, [] {}), recv(ch, [] {}), recv(ch, [] {}));
      });
      CONCUR_EXPECT(held, waiting.wait_until_parked());
      ch.send(1);
      others.join();
      CONCUR_EXPECT(held, index == 1);
    }
    CHECK(held.report() == "");
  });
}
