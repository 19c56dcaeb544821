// test_go_context_trees.cpp - what Go's tests of package context check of trees of contexts, and of cancellations that meet,
// written anew for cancel scopes, sources and nurseries.
//
// Which test of theirs is which of ours, and which is left out, is in conformance.md.
#include "support/crew.hpp"
#include "support/nursery.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <vector>

using concur::cancel_scope;
using concur::cancel_source;
using concur::cancel_token;
using concur::cancelled;
using concur::move_on_after;
using concur::nursery;
using concur::with_nursery;
using namespace std::chrono_literals;

namespace {

constexpr auto soon = 1ms;
constexpr std::chrono::nanoseconds a_thousand_hours = std::chrono::hours(1000);

// Scopes of every kind around one function. One of them, `broken`, is cancelled or passes its deadline.
class layers {
 public:
  layers(std::uint32_t seed, int count, int broken, bool is_deadline)
      : draw_(seed), count_(count), broken_(broken), is_deadline_(is_deadline) {}

  // Whether the cancellation was caught by the broken layer, and by no other.
  bool stops_at_the_broken_one(const std::function<void()>& innermost) {
    descend(0, innermost);
    return caught_ == std::vector<int>{broken_};
  }
  // From any thread, while the innermost function runs.
  void cancel() { cancel_(); }

 private:
  void descend(int depth, const std::function<void()>& innermost) {
    if (depth == count_)
      innermost();
    else if (!is_left_whole(depth, [&] { descend(depth + 1, innermost); }))
      caught_.push_back(depth);
  }

  bool is_left_whole(int depth, const std::function<void()>& function) {
    const bool is_broken = depth == broken_;
    const auto kind = is_broken && is_deadline_ ? 0 : draw_() % (is_broken ? 3 : 4);
    if (kind == 1) {
      cancel_source source;
      if (is_broken) cancel_ = [source]() mutable { source.cancel(); };
      cancel_scope scope(source.token());
      return scope.run(function);
    }
    if (kind == 2) {
      bool is_whole = false;
      with_nursery([&](nursery& n) {
        if (is_broken) cancel_ = [&n] { n.cancel(); };
        function();
        is_whole = true;
      });
      return is_whole;
    }
    if (kind == 3) return move_on_after(a_thousand_hours, function);
    cancel_scope scope(concur::deferred);
    if (is_broken && is_deadline_)
      scope.deadline(std::chrono::steady_clock::now() + soon);
    else if (is_broken)
      cancel_ = [&scope] { scope.cancel(); };
    return scope.run(function);
  }

  std::minstd_rand draw_;
  int count_;
  int broken_;
  bool is_deadline_;
  std::vector<int> caught_;
  std::function<void()> cancel_;
};

// A fiber for each of 85 places of a tree, four below each; the fiber's scope is that of the token of its place, below the
// scope of the place above.
class tree {
 public:
  static constexpr std::size_t places = 85;

  void grow(nursery& above, std::size_t place) {
    above.go([this, place] {
      const finally last([this] { ++ended; });
      cancel_scope scope(sources[place].token());
      scope.run([this, place] {
        with_nursery([this, place](nursery& below) {
          for (std::size_t next = 4 * place + 1; next <= 4 * place + 4 && next < places; ++next) grow(below, next);
          ++waiting;
          sleep_long();
        });
      });
    });
  }

  std::array<cancel_source, places> sources;
  std::atomic<std::size_t> waiting{0};
  std::atomic<std::size_t> ended{0};
};

}  // namespace

TEST_CASE("all scopes of a tree are cancelled at once, in any order, by several threads: every fiber ends") {
  const nothing_left_over guard;
  for (const kind which : {kind::fiber, kind::thread}) {
    with_each_count([which](tally& held) {
      tree all;
      std::vector<std::size_t> order(tree::places);
      for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
      std::shuffle(order.begin(), order.end(), std::minstd_rand(7001));
      with_nursery([&](nursery& n) {
        all.grow(n, 0);
        while (all.waiting != tree::places) concur::this_fiber::yield();
        crew cancellers(which);
        for (std::size_t part = 0; part < 4; ++part) {
          cancellers.go([&, part] {
            for (std::size_t i = part; i < order.size(); i += 4) all.sources[order[i]].cancel();
          });
        }
        cancellers.join();
      });
      CONCUR_EXPECT(held, all.ended == tree::places && !concur::this_fiber::cancelled());
    });
  }
}

TEST_CASE("a fiber that is cancelled cancels a scope inside the one that is just being cancelled") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    for (int round = 0; round < 100; ++round) {
      cancel_source inner;
      sight canceller;
      sight waiting;
      bool is_cut = false;
      with_nursery([&](nursery& n) {
        n.go([&] {
          const finally last([&] { inner.cancel(); });
          canceller.park();
        });
        n.go([&] {
          cancel_scope scope(inner.token());
          is_cut = is_thrown<cancelled>([&] { waiting.park(); });
        });
        canceller.wait_until_parked();
        waiting.wait_until_parked();
        n.cancel();
      });
      CONCUR_EXPECT(held, is_cut && inner.cancelled());
    }
  });
}

TEST_CASE("thirty layers of scopes: a cancellation or a deadline of any stops the innermost, and is caught there") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    for (int broken = 0; broken < 30; ++broken) {
      for (const bool is_deadline : {false, true}) {
        const auto seed = static_cast<std::uint32_t>(9000 + broken);
        layers all(seed, 30, broken, is_deadline);
        sight innermost;
        companion striker(kind::fiber, [&] {
          if (is_deadline) return;
          innermost.wait_until_parked();
          all.cancel();
        });
        CONCUR_EXPECT(held, all.stops_at_the_broken_one([&] { innermost.park(); }));
        striker.join();
      }
    }
  });
}

TEST_CASE("scopes that come and go under one token leave nothing with it") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    cancel_source source;
    for (int i = 0; i < scaled(10000); ++i) {
      cancel_scope scope(source.token());
      cancel_scope timed(concur::deferred);
      timed.deadline(std::chrono::steady_clock::now() + std::chrono::hours(1));
      CONCUR_EXPECT(held, timed.run([] { concur::this_fiber::checkpoint(); }));
    }
    cancel_token kept;
    {
      nursery n;
      n.go([&] {
        const cancel_scope scope(source.token());
        kept = concur::this_fiber::token();
      });
      n.join();
    }
    // Both are gone: this reaches nobody. A token may stay longer than its scope.
    source.cancel();
    const cancel_token copy = kept;
    static_cast<void>(copy.cancelled());
    CONCUR_EXPECT(held, source.cancelled() && !concur::this_fiber::cancelled());
  });
}

TEST_CASE("shields come and go while scopes around and inside them are cancelled: every token hears of it once") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    for (int round = 0; round < scaled(300); ++round) {
      cancel_scope top(concur::deferred);
      top.run([&] {
        std::array<std::optional<cancel_scope>, 5> inner;
        std::array<cancel_token, 5> tokens;
        for (std::size_t i = 0; i < inner.size(); ++i) tokens[i] = inner[i].emplace().token();
        std::atomic<int> present{0};
        crew all(kind::thread);
        const auto together = [&](auto deed) {
          all.go([&, deed] {
            ++present;
            while (present != 4) std::this_thread::yield();
            deed();
          });
        };
        const auto flicker = [&](std::size_t which) {
          for (int i = 0; i < 20; ++i) inner[which]->shield(i % 2 == 0);
        };
        together([&] { top.cancel(); });
        together([&] { flicker(1); });
        together([&] { flicker(3); });
        together([&] {
          inner[2]->cancel();
          inner[0]->cancel();
        });
        all.join();
        for (std::size_t i = inner.size(); i-- > 0;) {
          CONCUR_EXPECT(held, inner[i]->cancelled() && tokens[i].cancelled());
          inner[i].reset();
        }
      });
    }
  });
}

TEST_CASE("a scope of another scope's token is cancelled with it, over any number of fibers") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    cancel_source source;
    cancel_token above = source.token();
    std::array<sight, 5> fibers;
    std::atomic<int> caught{0};
    concur::wait_group ended;
    for (sight& one : fibers) {
      concur::channel<cancel_token> own(1);
      ended.add();
      concur::go([&, above, own]() mutable {
        cancel_scope scope(above);
        own.send(concur::this_fiber::token());
        if (!scope.run([&] { one.park(); })) ++caught;
        ended.done();
      });
      above = *own.recv();
    }
    for (const sight& one : fibers) one.wait_until_parked();
    CONCUR_EXPECT(held, !above.cancelled() && caught == 0);
    source.cancel();
    ended.wait();
    CONCUR_EXPECT(held, above.cancelled() && caught == 5);
  });
}
