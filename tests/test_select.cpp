// test_select.cpp - select: one moment over all cases, one of them, and nothing left behind.
//
// From fibers with 1, 2 and 4 workers and from plain threads, with companions of both kinds on the other side.
#include "support/cancel.hpp"
#include "support/companion.hpp"
#include "support/tally.hpp"
#include "support/test.hpp"

#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

using concur::channel;
using concur::otherwise;
using concur::recv;
using concur::select;
using concur::select_ordered;
using concur::send;
using namespace std::chrono_literals;

namespace {
std::atomic<std::size_t> allocations{0};
constexpr int rounds_scale = CONCUR_TSAN || CONCUR_ASAN ? 20 : 1;
}  // namespace

#if !CONCUR_ASAN && !CONCUR_TSAN
// Not inlined, so that the compiler does not take malloc and delete for a pair that was mixed up.
[[gnu::noinline]] void* operator new(std::size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* memory = std::malloc(size != 0 ? size : 1)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
#endif

namespace {

// Moves only so often, then throws.
struct fragile {
  explicit fragile(int v, int moves = 1000) : value(v), moves_left(moves) {}
  fragile(fragile&& other) : value(other.value), moves_left(other.moves_left - 1) {
    if (moves_left < 0) throw std::runtime_error("no more moves");
    other.value = -1;
  }
  fragile& operator=(fragile&&) = default;
  int value;
  int moves_left;
};

int never_runs(tally& held) {
  CONCUR_EXPECT(held, false && "a case ran that cannot");
  return 0;
}

}  // namespace

TEST_CASE("the cells of the table: receiving in a select") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    channel<int> none(concur::nil);
    CONCUR_EXPECT(held, select(recv(none, [&] { never_runs(held); }), otherwise([] {})) == 1);
    channel<int> empty;
    CONCUR_EXPECT(held, select(recv(empty, [&] { never_runs(held); }), otherwise([] {})) == 1);
    channel<int> filled(2);
    filled.send(1);
    filled.send(2);
    int got = 0;
    CONCUR_EXPECT(held, select(recv(filled, [&](std::optional<int> v) { got = v.value_or(-1); })) == 0 && got == 1);
    filled.close();
    select(recv(filled, [&](std::optional<int> v) { got = v.value_or(-1); }));
    CONCUR_EXPECT(held, got == 2);
    select(recv(filled, [&](std::optional<int> v) { got = v.value_or(-1); }));
    CONCUR_EXPECT(held, got == -1);
    {  // a sender waits
      companion other(which, [empty]() mutable { empty.send(7); });
      other.wait_until_parked();
      select(recv(empty, [&](std::optional<int> v) { got = v.value_or(-1); }), otherwise([&] { never_runs(held); }));
      CONCUR_EXPECT(held, got == 7);
    }
    {  // the select waits, and is served
      companion other(which, [&] {
        select(recv(empty, [&](std::optional<int> v) { got = v.value_or(-1); }), recv(none, [&] { never_runs(held); }));
      });
      other.wait_until_parked();
      empty.send(8);
      other.join();
      CONCUR_EXPECT(held, got == 8);
    }
    {  // the select waits, and the channel is closed
      companion other(which,
                      [&] { select(recv(empty, [&](std::optional<int> v) { got = v.value_or(-1); })); });
      other.wait_until_parked();
      empty.close();
      other.join();
      CONCUR_EXPECT(held, got == -1);
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("the cells of the table: sending in a select") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    channel<int> none(concur::nil);
    CONCUR_EXPECT(held, select(send(none, 1, [&] { never_runs(held); }), otherwise([] {})) == 1);
    channel<int> meeting;
    CONCUR_EXPECT(held, select(send(meeting, 1, [&] { never_runs(held); }), otherwise([] {})) == 1);
    channel<int> roomy(1);
    bool ran = false;
    CONCUR_EXPECT(held, select(send(roomy, 5, [&] { ran = true; })) == 0 && ran);
    CONCUR_EXPECT(held, select(send(roomy, 6, [&] { never_runs(held); }), otherwise([] {})) == 1);
    CONCUR_EXPECT(held, roomy.recv() == 5);
    {  // a receiver waits
      int got = 0;
      companion other(which, [&] { got = meeting.recv().value_or(-1); });
      other.wait_until_parked();
      select(send(meeting, 7, [] {}), otherwise([&] { never_runs(held); }));
      other.join();
      CONCUR_EXPECT(held, got == 7);
    }
    {  // the select waits, and is served
      companion other(which, [&] { select(send(meeting, 8, [] {}), recv(none, [&] { never_runs(held); })); });
      other.wait_until_parked();
      CONCUR_EXPECT(held, meeting.recv() == 8);
    }
    {  // the select waits, and the channel is closed
      std::string what;
      auto value = std::make_unique<int>(9);
      channel<std::unique_ptr<int>> closing;
      companion other(which, [&] {
        try {
          select(send(closing, std::move(value), [&] { never_runs(held); }));
        } catch (const concur::channel_closed& error) {
          what = error.what();
        }
      });
      other.wait_until_parked();
      closing.close();
      other.join();
      CONCUR_EXPECT(held, !what.empty());
      CONCUR_EXPECT(held, value != nullptr && *value == 9);  // not lost
      bool has_thrown = false;
      try {
        select(send(closing, std::move(value), [&] { never_runs(held); }), otherwise([&] { never_runs(held); }));
      } catch (const concur::channel_closed&) {
        has_thrown = true;
      }
      CONCUR_EXPECT(held, has_thrown && value != nullptr);
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("a value is moved out of its case only if the case wins") {
  const nothing_left_over guard;
  everywhere([](kind) {
    tally held;
    channel<std::unique_ptr<int>> full(1);
    channel<std::unique_ptr<int>> other(1);
    full.send(std::make_unique<int>(0));
    auto a = std::make_unique<int>(1);
    auto b = std::make_unique<int>(2);
    const int won = select(send(full, std::move(a), [] {}), send(other, std::move(b), [] {}));
    CONCUR_EXPECT(held, won == 1 && a != nullptr && b == nullptr);
    const std::string text = "kept";
    std::string changing = "copied";
    channel<std::string> texts(4);
    select(send(texts, text, [] {}));
    select(send(texts, changing, [] {}));
    select(send(texts, "converted", [] {}));
    select(send(texts, std::string("temporary"), [] {}));
    CONCUR_EXPECT(held, text == "kept" && changing == "copied");
    CONCUR_EXPECT(held, texts.recv() == "kept");
    CONCUR_EXPECT(held, texts.recv() == "copied");
    CONCUR_EXPECT(held, texts.recv() == "converted");
    CONCUR_EXPECT(held, texts.recv() == "temporary");
    // A case with a plain number may be made elsewhere: it has the number.
    channel<int> numbers(2);
    const auto put = [&numbers](int base) { return send(numbers, base + 1, [] {}); };
    select(put(1));
    select(put(2));
    CONCUR_EXPECT(held, numbers.recv() == 2);
    CONCUR_EXPECT(held, numbers.recv() == 3);
    CHECK(held.report() == "");
  });
}

TEST_CASE("two channels, one always ready: otherwise never runs") {
  const nothing_left_over guard;
  for (const unsigned workers : {1u, 2u, 4u}) {
    const int rounds = 350'000 / rounds_scale;
    std::atomic<int> misses{0};
    concur::run(with_workers(workers), [&] {
      channel<int> first(1);
      channel<int> second(1);
      channel<void> begin;
      channel<void> end;
      auto looker = concur::go([&] {
        for (int i = 0; i < rounds; ++i) {
          begin.recv();
          select(recv(first, [] {}), recv(second, [] {}), otherwise([&] { misses.fetch_add(1); }));
          end.send();
        }
      });
      for (int i = 0; i < rounds; ++i) {
        first.send(1);
        begin.send();
        second.send(1);  // from here on both are ready, and then only the second
        select(recv(first, [] {}), otherwise([] {}));
        end.recv();
        first.try_recv();
        second.try_recv();
      }
      looker.get();
    });
    CHECK(misses.load() == 0);
  }
}

TEST_CASE("a ready select takes each case as often as any other, within three sigma") {
  const nothing_left_over guard;
  const auto count_wins = [] {
    constexpr int n = 4;
    constexpr int rounds = 40'000;
    std::vector<int> wins(n);
    channel<int> channels[n] = {channel<int>(1), channel<int>(1), channel<int>(1), channel<int>(1)};
    for (channel<int>& ch : channels) ch.send(0);
    for (int i = 0; i < rounds; ++i) {
      const int won = select(recv(channels[0], [] {}), recv(channels[1], [] {}), recv(channels[2], [] {}),
                             recv(channels[3], [] {}));
      ++wins[static_cast<std::size_t>(won)];
      channels[won].send(0);
    }
    const double sigma = std::sqrt(rounds * (1.0 / n) * (1 - 1.0 / n));
    double worst = 0;
    for (const int won : wins) worst = std::max(worst, std::abs(won - rounds / double{n}) / sigma);
    return worst;
  };
  // Three sigma are left by chance once in a hundred times; three times in a row they are not.
  const auto stays_within = [&](auto run_it) {
    double worst = 0;
    for (int attempt = 0; attempt < 3; ++attempt) {
      worst = run_it();
      if (worst < 3) return true;
    }
    MESSAGE("deviates by ", worst, " sigma");
    return false;
  };
  CHECK(stays_within([&] { return concur::run(with_workers(1), count_wins); }));
  CHECK(stays_within(count_wins));
}

TEST_CASE("select_ordered takes the first case that can go") {
  const nothing_left_over guard;
  everywhere([](kind) {
    tally held;
    channel<int> a(64);
    channel<int> b(64);
    channel<int> c;
    for (int i = 0; i < 50; ++i) {
      a.send(i);
      b.send(i);
    }
    for (int i = 0; i < 50; ++i)
      CONCUR_EXPECT(held, select_ordered(recv(c, [] {}), recv(a, [] {}), recv(b, [] {}), otherwise([] {})) == 1);
    for (int i = 0; i < 50; ++i)
      CONCUR_EXPECT(held, select_ordered(recv(c, [] {}), recv(a, [] {}), recv(b, [] {}), otherwise([] {})) == 2);
    CONCUR_EXPECT(held, select_ordered(recv(c, [] {}), recv(a, [] {}), recv(b, [] {}), otherwise([] {})) == 3);
    CHECK(held.report() == "");
  });
}

TEST_CASE("a select that sends and receives on one channel does not meet itself, but meets another") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    channel<int> ch;
    CONCUR_EXPECT(held, select(send(ch, 1, [&] { never_runs(held); }), recv(ch, [&] { never_runs(held); }),
                               send(ch, 2, [&] { never_runs(held); }), otherwise([] {})) == 3);
    constexpr int rounds = 2000;
    const auto both_sides = [&](int own) {
      for (int i = 0; i < rounds; ++i) {
        select(send(ch, own, [] {}),
               recv(ch, [&](std::optional<int> v) { CONCUR_EXPECT(held, v.has_value() && *v != own); }),
               send(ch, own, [] {}), recv(ch, [&](std::optional<int> v) { CONCUR_EXPECT(held, v && *v != own); }));
      }
    };
    companion other(which, [&] { both_sides(1); });
    both_sides(2);
    other.join();
    CHECK(held.report() == "");
  });
}

TEST_CASE("the cases that lose leave every queue before the select returns") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    channel<int> a;
    channel<int> b;
    channel<int> c;
    channel<void> go_on;
    companion other(which, [&] {
      select(recv(a, [] {}), recv(b, [] {}), send(c, 1, [] {}));
      go_on.recv();
    });
    other.wait_until_parked();
    a.send(1);
    while (!go_on.try_send()) concur::this_fiber::yield();
    int value = 2;
    CONCUR_EXPECT(held, !b.try_send(value));
    CONCUR_EXPECT(held, !c.try_recv());
    CHECK(held.report() == "");
  });
}

TEST_CASE("a hundred thousand selects leave memory where it was") {
  const nothing_left_over guard;
  const auto many = [] {
    channel<int> a;
    channel<int> b(1);
    channel<int> c;
    const auto once = [&] {
      select(recv(a, [] {}), send(b, 1, [] {}), recv(c, [] {}));
      select(recv(a, [] {}), recv(b, [] {}), concur::after(1h, [] {}));
      select(recv(a, [] {}), recv(c, [] {}), otherwise([] {}));
    };
    once();
    const std::size_t before = allocations.load();
    for (int i = 0; i < 100'000 / rounds_scale; ++i) once();
    return allocations.load() - before;
  };
#if CONCUR_ASAN || CONCUR_TSAN
  MESSAGE("left out: the count of allocations; the sanitizer has its own operator new");
#else
  CHECK(concur::run(with_workers(1), [] { return *std::make_unique<int>(static_cast<int>(allocations.load())); }) != 0);
#endif
  CHECK(concur::run(with_workers(1), many) == 0);
  CHECK(many() == 0);
}

TEST_CASE("a select without a case that can ever go waits until it is cancelled") {
  const nothing_left_over guard;
  for (const unsigned workers : {1u, 2u, 4u}) {
    concur::run(with_workers(workers), [&] {
      cancel_target target;
      int caught = 0;
      auto waiting = concur::go([&] {
        target.enter();
        channel<int> none(concur::nil);
        channel<int> empty;
        try {
          select();
        } catch (const concur::cancelled&) {
          ++caught;
        }
        try {
          select(recv(none, [] {}), send(none, 1, [] {}));
        } catch (const concur::cancelled&) {
          ++caught;
        }
        try {
          select(recv(empty, [] {}), send(empty, 1, [] {}));
        } catch (const concur::cancelled&) {
          ++caught;
        }
        target.leave();
      });
      for (int struck = 0; struck < 3;) {
        if (target.strike()) ++struck;
        concur::this_fiber::yield();
      }
      waiting.get();
      const bool all_three = caught == 3;
      if (!all_three) throw std::logic_error("a select was not cancelled");
    });
  }
}

TEST_CASE("deadlines in a select: the earliest goes, never early, and one that has passed is ready") {
  const nothing_left_over guard;
  everywhere([](kind) {
    tally held;
    channel<int> empty;
    const auto begin = std::chrono::steady_clock::now();
    CONCUR_EXPECT(held, select(concur::after(1h, [] {}), recv(empty, [] {}), concur::after(3ms, [] {}),
                               concur::at(std::chrono::system_clock::now() + 1h, [] {})) == 2);
    CONCUR_EXPECT(held, std::chrono::steady_clock::now() - begin >= 3ms);
    CONCUR_EXPECT(held, select(concur::after(-1s, [] {}), otherwise([&] { never_runs(held); })) == 0);
    CONCUR_EXPECT(held, select(concur::at(begin, [] {}), otherwise([&] { never_runs(held); })) == 0);
    CONCUR_EXPECT(held, select(concur::after(std::chrono::hours::max(), [] {}), otherwise([] {})) == 1);
    CHECK(held.report() == "");
  });
}

TEST_CASE("what the function of a case throws comes out of the select, and the case has happened") {
  const nothing_left_over guard;
  everywhere([](kind) {
    tally held;
    channel<int> ch(1);
    bool is_caught = false;
    try {
      select(send(ch, 3, [] { throw std::runtime_error("mine"); }));
    } catch (const std::runtime_error& error) {
      is_caught = std::string(error.what()) == "mine";
    }
    CONCUR_EXPECT(held, is_caught && ch.size() == 1);
    CHECK(held.report() == "");
  });
}

TEST_CASE("a value whose move throws stays with its sender, and the locks of the select are dropped") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    channel<fragile> room(2);
    channel<fragile> empty;
    fragile worn(4, 0);
    bool is_caught = false;
    try {
      select(recv(empty, [] {}), send(room, std::move(worn), [] {}));
    } catch (const std::runtime_error&) {
      is_caught = true;
    }
    CONCUR_EXPECT(held, is_caught && worn.value == 4 && room.size() == 0);
    {  // to a receiver that waits: it goes on waiting
      int got = 0;
      companion other(which, [&] { got = empty.recv()->value; });
      other.wait_until_parked();
      fragile worn_too(5, 0);
      is_caught = false;
      try {
        select(send(empty, std::move(worn_too), [] {}), recv(room, [] {}));
      } catch (const std::runtime_error&) {
        is_caught = true;
      }
      CONCUR_EXPECT(held, is_caught && !other.has_ended());
      select(send(empty, fragile(6), [] {}));
      other.join();
      CONCUR_EXPECT(held, got == 6);
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("signals, and the ends of a channel, stand in a select") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    channel<void> signal;
    concur::sender<void> to = signal;
    concur::receiver<void> from = signal;
    companion other(which, [&] { select(send(to, [] {})); });
    bool value = false;
    select(recv(from, [&](bool v) { value = v; }));
    CONCUR_EXPECT(held, value);
    other.join();
    signal.close();
    select(recv(from, [&](bool v) { value = v; }));
    CONCUR_EXPECT(held, !value);
    channel<std::string> texts(1);
    concur::sender<std::string> in = texts;
    concur::receiver<std::string> out = texts;
    select(send(in, "x", [] {}));
    select(recv(out, [&](std::optional<std::string> s) { CONCUR_EXPECT(held, s == "x"); }));
    CHECK(held.report() == "");
  });
}

TEST_CASE("a function with an auto parameter gets the optional, and for a signal the bool") {
  const nothing_left_over guard;
  everywhere([](kind) {
    tally held;
    channel<std::string> texts(1);
    texts.send("x");
    std::string text;
    select(recv(texts, [&](auto s) { text = *s; }));
    CONCUR_EXPECT(held, text == "x");
    channel<void> signal(1);
    signal.send();
    signal.close();
    const auto hear = [&](auto is_open) {
      CONCUR_EXPECT(held, (std::is_same<decltype(is_open), bool>::value));
      text = is_open ? "signal" : "closed";
    };
    select(recv(signal, hear));
    CONCUR_EXPECT(held, text == "signal");
    select(recv(signal, hear));
    CONCUR_EXPECT(held, text == "closed");
    CHECK(held.report() == "");
  });
}

TEST_CASE("a select is cancelled or served, never both: what was sent is received or still at its sender") {
  const nothing_left_over guard;
  for (const unsigned workers : {1u, 2u, 4u}) {
    const int rounds = 20'000 / rounds_scale;
    concur::run(with_workers(workers), [&] {
      channel<std::unique_ptr<int>> a;
      channel<std::unique_ptr<int>> b;
      channel<void> done(1);
      cancel_target target;
      std::atomic<int> received{0};
      std::atomic<bool> is_over{false};
      auto receiver = concur::go([&] {
        target.enter();
        while (!is_over.load()) {
          try {
            select(recv(a, [&](std::optional<std::unique_ptr<int>> v) { received += v && *v ? 1 : 0; }),
                   recv(b, [&](std::optional<std::unique_ptr<int>> v) { received += v && *v ? 1 : 0; }),
                   recv(done, [] {}));
          } catch (const concur::cancelled&) {
          }
        }
        target.leave();
      });
      auto striker = concur::go([&] {
        while (!is_over.load()) {
          target.strike();
          concur::this_fiber::yield();
        }
      });
      int sent = 0;
      for (int i = 0; i < rounds; ++i) {
        auto value = std::make_unique<int>(i);
        select(send(a, std::move(value), [] {}), send(b, std::make_unique<int>(i), [] {}), otherwise([] {}));
        if (value == nullptr) ++sent;
        if (value != nullptr) {
          a.send(std::move(value));
          ++sent;
        }
      }
      is_over = true;
      done.close();
      receiver.get();
      striker.get();
      if (received.load() < sent) throw std::logic_error("a value was lost");
    });
  }
}

TEST_CASE("selects that a close, or new times of a ticker, let go together leave whole queues") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    constexpr std::size_t count = 3;
    const auto with_waiters = [&](auto one_wait, auto let_go) {
      std::vector<companion> waiting;
      for (std::size_t i = 0; i < count; ++i) {
        waiting.emplace_back(which, one_wait);
        CONCUR_EXPECT(held, waiting.back().wait_until_parked());
      }
      let_go();
      for (companion& one : waiting) one.join();
    };
    channel<int> first;
    channel<int> second(1);
    with_waiters(
        [&] {
          select(recv(first, [&](std::optional<int> v) { CONCUR_EXPECT(held, !v); }), recv(second, [] {}),
                 recv(first, [&](std::optional<int> v) { CONCUR_EXPECT(held, !v); }));
        },
        [&] { first.close(); });
    CONCUR_EXPECT(held, second.try_send(1) && second.size() == 1);  // nobody waits there any more
    std::atomic<std::size_t> refused{0};
    with_waiters(
        [&] {
          try {
            select(send(second, 2, [] {}), send(second, 3, [] {}));
          } catch (const concur::channel_closed&) {
            ++refused;
          }
        },
        [&] { second.close(); });
    CONCUR_EXPECT(held, refused == count && second.size() == 1);
    concur::ticker ticks(1h);
    with_waiters([&] { select(recv(ticks, [] {}), recv(channel<int>(), [] {})); }, [&] { ticks.reset(1ms); });
    CHECK(held.report() == "");
  });
}
