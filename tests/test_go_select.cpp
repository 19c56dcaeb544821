// test_go_select.cpp - what Go's own tests check of select: test/chan/doubleselect.go and select*.go, and
// runtime/chan_test.go, written anew for fibers and plain threads.
//
// Which test of theirs is which of ours, and which is left out, is in conformance.md.
#include "support/cancel.hpp"
#include "support/crew.hpp"

#include <array>
#include <atomic>
#include <cmath>
#include <optional>
#include <vector>

using concur::channel;
using concur::channel_closed;
using concur::otherwise;
using concur::recv;
using concur::select;
using concur::selector;
using concur::send;
using namespace std::chrono_literals;

namespace {

// True: `body` parked, and what ended its wait was a cancellation. On a fiber only.
template <class F>
bool waits(F body) {
  cancel_target target;
  bool is_cancelled = false;
  companion one(kind::fiber, [&] {
    target.enter();
    try {
      body();
    } catch (const concur::cancelled&) {
      is_cancelled = true;
    }
    target.leave();
  });
  while (!one.has_ended() && !target.strike()) concur::this_fiber::yield();
  one.join();
  return is_cancelled;
}

// Goes through all answers that a piece of code can get to its yes-or-no questions.
class all_choices {
 public:
  // False: there was no other round.
  bool next() {
    if (!has_begun_) return has_begun_ = true;
    while (!answers_.empty() && answers_.back()) answers_.pop_back();
    if (answers_.empty()) return false;
    answers_.back() = true;
    at_ = 0;
    return true;
  }
  bool maybe() {
    if (at_ == answers_.size()) answers_.push_back(false);
    return answers_[at_++];
  }

 private:
  std::vector<bool> answers_;
  std::size_t at_ = 0;
  bool has_begun_ = false;
};

// Notes in which order it was asked.
struct in_order {
  int last = 0;
  bool is_kept = true;

  template <class T>
  T& operator()(int place, T& thing) {
    is_kept = is_kept && place > last;
    last = place;
    return thing;
  }
};

// Whether one of two equal chances came `hits` times of `count`, within five sigma.
bool is_even(int hits, int count) { return std::abs(hits - count / 2.0) <= 5 * std::sqrt(count) / 2; }

}  // namespace

TEST_CASE("test/chan/doubleselect.go: never do two cases of a select happen") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    const int count = scaled(2000);
    std::array<channel<int>, 4> out;
    channel<int> merged;
    concur::wait_group merging;
    crew all(which);
    for (channel<int>& ch : out) {
      merging.add();
      all.go([&] {
        for (const int value : ch) merged.send(value);
        merging.done();
      });
    }
    all.go([&] {
      for (int i = 0; i < count; ++i)
        select(send(out[0], i, [] {}), send(out[1], i, [] {}), send(out[2], i, [] {}), send(out[3], i, [] {}));
      for (channel<int>& ch : out) ch.close();
      merging.wait();
      merged.close();
    });
    std::vector<int> seen(static_cast<std::size_t>(count));
    for (const int value : merged) ++seen[static_cast<std::size_t>(value)];
    all.join();
    for (const int times : seen) CONCUR_EXPECT(held, times == 1);
    CHECK(held.report() == "");
  });
}

TEST_CASE("test/chan/select.go: the function of a case takes its channel out, and each value is computed once") {
  const nothing_left_over guard;
  everywhere([](kind) {
    tally held;
    int computed = 0;
    int shift = 0;
    const auto value = [&] {
      ++computed;
      return 1 << shift;
    };
    const auto send_all = [&](channel<int> a, channel<int> b) {
      int sent = 0;
      for (bool is_over = false; !is_over; ++shift) {
        const auto done = [&](channel<int>& ch) {
          return [&] {
            ++sent;
            ch = concur::nil;
          };
        };
        select(send(a, value(), done(a)), send(b, value(), done(b)), otherwise([&] { is_over = true; }));
      }
      --shift;  // the round that sent nothing
      return sent;
    };
    channel<int> a(1);
    channel<int> b(1);
    CONCUR_EXPECT(held, send_all(a, b) == 2);
    CONCUR_EXPECT(held, (*a.recv() | *b.recv()) == 3);
    CONCUR_EXPECT(held, send_all(a, concur::nil) == 1);
    CONCUR_EXPECT(held, computed == 10);
    // The last handle may go in the function of its own case.
    channel<int> only(1);
    select(send(only, 1, [&] { only = concur::nil; }));
    CONCUR_EXPECT(held, only.capacity() == 0);
    CHECK(held.report() == "");
  });
}

TEST_CASE("test/chan/select3.go: what always waits") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::run(with_workers(workers), [] {
      tally held;
      channel<int> none(concur::nil);
      channel<int> ch;
      channel<int> full(1);
      full.send(0);
      const auto unreachable = [&] { CONCUR_EXPECT(held, false && "this case cannot go"); };
      CONCUR_EXPECT(held, waits([&] { none.send(7); }));
      CONCUR_EXPECT(held, waits([&] { none.recv(); }));
      CONCUR_EXPECT(held, waits([&] { ch.recv(); }));
      CONCUR_EXPECT(held, waits([&] { ch.send(7); }));
      CONCUR_EXPECT(held, waits([&] { full.send(7); }));
      CONCUR_EXPECT(held, waits([&] { select(); }));
      CONCUR_EXPECT(held, waits([&] { select(recv(none, unreachable)); }));
      CONCUR_EXPECT(held, waits([&] { select(send(none, 7, unreachable)); }));
      CONCUR_EXPECT(held, waits([&] { select(recv(none, unreachable), send(none, 7, unreachable)); }));
      CONCUR_EXPECT(held, waits([&] { select(recv(ch, unreachable)); }));
      CONCUR_EXPECT(held, waits([&] { select(send(ch, 7, unreachable)); }));
      CONCUR_EXPECT(held, waits([&] { select(send(full, 7, unreachable), recv(none, unreachable)); }));
      // A select that sees itself.
      CONCUR_EXPECT(held, waits([&] { select(send(ch, 1, unreachable), recv(ch, unreachable)); }));
      selector self{send(ch, 1, unreachable), recv(ch, unreachable)};
      CONCUR_EXPECT(held, waits([&] { self.wait(); }));
      CONCUR_EXPECT(held, full.size() == 1 && !ch.try_recv());
      CHECK(held.report() == "");
    });
  }
}

TEST_CASE("test/chan/select3.go: what never waits, and what throws") {
  const nothing_left_over guard;
  everywhere([](kind) {
    tally held;
    channel<int> none(concur::nil);
    channel<int> closed;
    closed.close();
    const auto unreachable = [&] { CONCUR_EXPECT(held, false && "this case cannot go"); };
    select(send(none, 7, unreachable), otherwise([] {}));
    select(recv(none, unreachable), otherwise([] {}));
    select(otherwise([] {}));
    channel<int>(1).send(7);
    for (int i = 0; i < 10; ++i) CONCUR_EXPECT(held, !closed.recv());
    channel<int> roomy(1);
    select(send(roomy, 7, [] {}), otherwise(unreachable));
    select(recv(roomy, [&](std::optional<int> v) { CONCUR_EXPECT(held, v == 7); }), otherwise(unreachable));
    select(recv(closed, [] {}));
    select(recv(closed, [&](std::optional<int> v) { CONCUR_EXPECT(held, !v); }));
    int refused = 0;
    for (int way = 0; way < 2; ++way) {
      try {
        if (way == 0) closed.send(7);
        if (way == 1) select(send(closed, 7, unreachable));
      } catch (const channel_closed&) {
        ++refused;
      }
    }
    CONCUR_EXPECT(held, refused == 2);
    // What waits for ever may have a limit, on a plain thread too.
    select(recv(none, unreachable), send(none, 7, unreachable), concur::after(1ms, [] {}));
    CONCUR_EXPECT(held, selector().wait_for(1ms) == -1);
    CHECK(held.report() == "");
  });
}

TEST_CASE("test/chan/select4.go: only the case that went touches what its function writes to") {
  const nothing_left_over guard;
  everywhere([](kind) {
    tally held;
    channel<int> filled(1);
    channel<int> empty;
    filled.send(42);
    int* nowhere = nullptr;
    int got = 0;
    select(recv(empty, [&](std::optional<int> v) { *nowhere = *v; }),
           recv(filled, [&](std::optional<int> v) { got = *v; }));
    CONCUR_EXPECT(held, got == 42);
    CHECK(held.report() == "");
  });
}

TEST_CASE("test/chan/select5.go: one case can go, among all mixtures of those that cannot") {
  const nothing_left_over guard;
  everywhere([](kind) {
    tally held;
    channel<int> ch(1);
    channel<int> dummy;
    channel<int> none(concur::nil);
    int x = 0;
    int n = 1;
    int rounds = 0;
    const auto unreachable = [&] { CONCUR_EXPECT(held, false && "this case cannot go"); };
    all_choices choices;
    while (choices.next()) {
      const bool is_send = choices.maybe();
      const bool is_known_beforehand = choices.maybe();  // a select, and not a selector
      const bool may_wait = choices.maybe();
      if (!is_send) ch.send(n);
      in_order asked;
      const auto take = [&](std::optional<int> v) { x = v.value_or(-1); };
      const auto sent = [] {};
      if (is_known_beforehand) {
        // Cases are taken out by nil channels, and the one that can go stands first or last.
        const channel<int> to = choices.maybe() ? dummy : none;
        const channel<int> from = choices.maybe() ? dummy : none;
        const channel<int> sending = is_send ? ch : none;
        const channel<int> receiving = is_send ? none : ch;
        if (may_wait)
          select(send(to, 1, unreachable), send(sending, n, sent), recv(from, unreachable), recv(receiving, take));
        else
          select(recv(receiving, take), otherwise(unreachable), send(sending, n, sent), recv(from, unreachable),
                 send(to, 1, unreachable));
      } else {
        // With braces the cases are made from left to right.
        int values = 0;
        const auto one = [&] { return ++values; };
        selector cases{recv(asked(1, none), unreachable), send(asked(2, none), one(), unreachable),
                       recv(asked(3, dummy), unreachable)};
        if (choices.maybe()) cases.add(send(asked(4, dummy), one(), unreachable));
        if (choices.maybe()) cases.add(otherwise(unreachable));
        if (is_send)
          cases.add(send(asked(5, ch), n, sent));
        else
          cases.add(recv(asked(5, ch), take));
        if (choices.maybe()) cases.add(recv(asked(6, dummy), unreachable));
        CONCUR_EXPECT(held, values <= 2);
        CONCUR_EXPECT(held, (may_wait ? cases.wait() : cases.try_wait()) >= 3);
      }
      if (is_send) x = ch.try_recv().value_or(-1);
      CONCUR_EXPECT(held, x == n && asked.is_kept && ch.size() == 0);
      ++n;
      ++rounds;
    }
    CONCUR_EXPECT(held, rounds == 4 * 4 + 4 * 8);
    CHECK(held.report() == "");
  });
}

TEST_CASE("test/chan/select6.go: cases that lost leave the queue in which others wait") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    channel<bool> c1, c2, c3;
    crew all(which);
    CONCUR_EXPECT(held, all.go([&] { c1.recv(); }).wait_until_parked());
    all.go([&] {
      select(recv(c1, [&] { CONCUR_EXPECT(held, false && "nobody sent there"); }), recv(c2, [&] { c3.send(true); }));
      c1.recv();
    });
    all.go([&] { c2.send(true); });
    c3.recv();
    c1.send(true);
    c1.send(true);
    all.join();
    CHECK(held.report() == "");
  });
}

TEST_CASE("test/chan/select7.go: a received value that nobody wants") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    for (int receiving = 0; receiving < 3; ++receiving) {
      for (int sending = 0; sending < 3; ++sending) {
        channel<int> ch;
        channel<int> other;
        crew all(which);
        all.go([&] {
          if (receiving == 0) ch.recv();
          if (receiving == 1) select(recv(ch, [] {}));
          if (receiving == 2) select(recv(ch, [] {}), recv(other, [] {}));
        });
        if (sending == 0) ch.send(1);
        if (sending == 1) select(send(ch, 1, [] {}));
        if (sending == 2 && receiving == 2)  // the channel that the other selects over, too
          CONCUR_EXPECT(held, select(send(ch, 1, [] {}), send(other, 1, [] {})) < 2);
        else if (sending == 2)
          CONCUR_EXPECT(held, select(send(ch, 1, [] {}), send(other, 1, [] {})) == 0);
        all.join();
      }
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("runtime/chan_test.go TestNonblockSelectRace2: one of two is always ready, the second by being closed") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    struct two {
      channel<int> first{1};
      channel<int> second;
    };
    tally held;
    channel<two> next;
    channel<void> done(1);
    crew others(which);
    others.go([&] {
      for (two pair : next) {
        select(recv(pair.first, [] {}), recv(pair.second, [] {}),
               otherwise([&] { CONCUR_EXPECT(held, false && "one of the two was ready"); }));
        done.send();
      }
    });
    for (int i = 0; i < scaled(3000); ++i) {
      two pair;
      pair.first.send(1);
      next.send(pair);
      pair.second.close();
      select(recv(pair.first, [] {}), otherwise([] {}));
      done.recv();
    }
    next.close();
    others.join();
    CHECK(held.report() == "");
  });
}

TEST_CASE("runtime/chan_test.go TestSelfSelect: two that send to and receive from one channel") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    for (const std::size_t capacity : {0U, 10U}) {
      channel<int> ch(capacity);
      crew all(which);
      for (int p = 0; p < 2; ++p) {
        all.go([&, p] {
          const auto take = [&](std::optional<int> v) {
            CONCUR_EXPECT(held, capacity != 0 || v == 1 - p);
          };
          for (int i = 0; i < scaled(1000); ++i) {
            if (p == 0 || i % 2 == 0)
              select(send(ch, p, [] {}), recv(ch, take));
            else
              select(recv(ch, take), send(ch, p, [] {}));
          }
        });
      }
      all.join();
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("runtime/chan_test.go TestSelectStress") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    const int each = scaled(600);
    std::array<channel<int>, 4> all = {channel<int>(0), channel<int>(0), channel<int>(2), channel<int>(3)};
    std::array<std::atomic<int>, 4> received{};
    crew parties(which);
    for (std::size_t k = 0; k < 4; ++k) {
      parties.go([&, k] {
        for (int i = 0; i < each; ++i) all[k].send(1);
      });
      parties.go([&, k] {
        for (int i = 0; i < each; ++i) received[k] += all[k].recv().value();
      });
    }
    for (const bool is_sender : {true, false}) {
      parties.go([&, is_sender] {
        std::array<channel<int>, 4> mine = all;
        std::array<int, 4> count{};
        const auto had = [&](std::size_t k) {
          if (++count[k] == each) mine[k] = concur::nil;
        };
        const int one = 1;
        const auto put = [&](std::size_t k) { return send(mine[k], one, [&had, k] { had(k); }); };
        const auto got = [&](std::size_t k) {
          return recv(mine[k], [&had, &received, k](std::optional<int> v) {
            received[k] += v.value();
            had(k);
          });
        };
        for (int i = 0; i < 4 * each; ++i) {
          if (is_sender)
            select(put(3), put(2), put(0), put(1));
          else
            select(got(0), got(1), got(2), got(3));
        }
      });
    }
    parties.join();
    for (const std::atomic<int>& sum : received) CONCUR_EXPECT(held, sum == 2 * each);
    CHECK(held.report() == "");
  });
}

TEST_CASE("runtime/chan_test.go TestSelectFairness") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    const int trials = which == kind::fiber ? scaled(10'000) : scaled(2000);
    channel<int> one(static_cast<std::size_t>(trials) + 1);
    channel<int> two(static_cast<std::size_t>(trials) + 1);
    for (int i = 0; i <= trials; ++i) {
      one.send(1);
      two.send(2);
    }
    channel<int> never_ready, never_ready_either, out;
    channel<void> done;
    crew others(which);
    others.go([&] {
      for (bool is_over = false; !is_over;) {
        int value = 0;
        const auto take = [&](std::optional<int> v) { value = v.value_or(0); };
        select(recv(never_ready, take), recv(never_ready_either, take), recv(one, take), recv(two, take));
        select(send(out, value, [] {}), recv(done, [&] { is_over = true; }));
      }
    });
    int ones = 0;
    int twos = 0;
    for (int i = 0; i < trials; ++i) ++(out.recv() == 1 ? ones : twos);
    done.close();
    others.join();
    CONCUR_EXPECT(held, is_even(ones, trials) && ones + twos == trials);
    CHECK(held.report() == "");
  });
}

TEST_CASE("runtime/chan_test.go TestPseudoRandomSend") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    constexpr int count = 100;
    for (const std::size_t capacity : {0U, 1U, 100U}) {
      channel<int> ch(capacity);
      int ones = 0;
      crew others(which);
      others.go([&] {
        for (int i = 0; i < count; ++i) {
          concur::this_fiber::yield();
          ones += ch.recv().value();
        }
      });
      for (int i = 0; i < count; ++i) select(send(ch, 1, [] {}), send(ch, 0, [] {}));
      others.join();
      CONCUR_EXPECT(held, ones > count / 10 && ones < count - count / 10);
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("runtime/chan_test.go TestSelectDuplicateChannel: several notes of one select in one queue") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    channel<int> c, d, e;
    crew all(which);
    const auto parked = [&](companion& one) { CONCUR_EXPECT(held, one.wait_until_parked()); };
    parked(all.go([&] {
      select(recv(c, [] {}), recv(c, [] {}), recv(d, [] {}));
      e.send(9);
    }));
    parked(all.go([&] { CONCUR_EXPECT(held, c.recv() == 8); }));
    d.send(7);
    CONCUR_EXPECT(held, e.recv() == 9);
    c.send(8);
    all.join();
    CHECK(held.report() == "");
  });
}
