// stress_cancel.cpp - every parking operation in a storm in which waits end by completion, by limits of their own, by closes,
// and by real cancellations of scopes and nurseries, at the same time, from fibers and a plain thread, on 1, 2 and 4 workers.
//
// Each storm counts what must come out even: values, permits, leases, phases. That it ends at all says that no wake-up went to
// somebody who was not there. Sockets are in stress_cancel_io.cpp.
#include "support/cancel_storm.hpp"

#include <deque>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <vector>

using namespace std::chrono_literals;

namespace {

constexpr unsigned fibers = 12;
// Steps of each fiber, in each storm on each number of workers: four million operations in all.
constexpr long share = static_cast<long>(scaled(8000)) * CONCUR_TEST_SCALE;

template <class Storm>
void on_all_worker_counts(Storm storm) {
  for (const unsigned workers : {1U, 2U, 4U}) {
    CAPTURE(workers);
    tally held;
    storm_figures figures;
    storm(workers, held, figures);
    CHECK(held.report() == "");
    CHECK(figures.operations >= share / 4);
    CHECK(figures.cut_short > 0);
    CHECK(figures.strikes > 0);
    MESSAGE(workers, " workers: ", figures.operations.load(), " operations, ", figures.cut_short.load(),
            " of them cut short; ", figures.strikes.load(), " strikes");
  }
}

// So that others come to wait.
void dawdle(party& me) {
  if (!me.one_in(4)) return;
  for (unsigned i = me.draw(512); i > 0; --i) concur::detail::cpu_relax();
  if (me.one_in(2)) concur::this_fiber::yield();
}

// How many values there were, what they add up to, and their squares.
struct account {
  std::atomic<std::uint64_t> count{0};
  std::atomic<std::uint64_t> sum{0};
  std::atomic<std::uint64_t> squares{0};
  void add(std::uint64_t value) {
    count.fetch_add(1, std::memory_order_relaxed);
    sum.fetch_add(value, std::memory_order_relaxed);
    squares.fetch_add(value * value, std::memory_order_relaxed);
  }
};
bool operator==(const account& a, const account& b) {
  return a.count == b.count && a.sum == b.sum && a.squares == b.squares;
}

// Says zero when it has been moved from.
struct item {
  explicit item(std::uint64_t value_in = 0) : value(value_in) {}
  item(item&& other) noexcept : value(std::exchange(other.value, 0)) {}
  item& operator=(item&& other) noexcept {
    value = std::exchange(other.value, 0);
    return *this;
  }
  std::uint64_t value;
};

// Half of the parties send, the others receive. Now and then a channel is closed, and all go over to the next.
class channel_storm {
 public:
  channel_storm(std::size_t capacity, tally& held) : held_(held) {
    for (std::size_t i = 0; i < most; ++i) channels_.emplace_back(capacity);
  }
  void live(party& me) {
    if (me.number % 2 == 0)
      send_all(me);
    else
      receive_all(me);
  }
  bool is_even() const { return sent_ == received_; }

 private:
  static constexpr std::size_t most = 1000;

  void send_all(party& me) {
    for (long n = 0; n < share; ++n) {
      std::size_t here = current_;
      dawdle(me);
      send_one(me, channels_[here]);
      if (me.one_in(500) && here + 1 < most && current_.compare_exchange_strong(here, here + 1))
        channels_[here].close();
    }
    if (--senders_ != 0) return;
    last_ = current_.load();
    channels_[last_].close();
  }
  void send_one(party& me, concur::channel<item>& to) {
    const std::uint64_t value = ++values_;
    item one(value);
    bool is_sent = false;
    try {
      me.attempt([&] {
        const auto limit = me.one_in(8) ? me.some_limit() : std::chrono::nanoseconds(1h);
        is_sent = to.send_for(one, limit) == concur::status::ok;
        if (is_sent) sent_.add(value);
      });
    } catch (const concur::channel_closed&) {
    }
    CONCUR_EXPECT(held_, one.value == (is_sent ? 0 : value));
  }
  void receive_all(party& me) {
    for (std::size_t here = 0;;) {
      bool is_closed = false;
      me.attempt([&] {
        if (me.one_in(8)) {
          item got;
          const concur::status result = channels_[here].recv_for(got, me.some_limit());
          if (result == concur::status::ok) received_.add(got.value);
          is_closed = result == concur::status::closed;
        } else {
          const std::optional<item> got = channels_[here].recv();
          if (got) received_.add(got->value);
          is_closed = !got;
        }
      });
      if (!is_closed) continue;
      if (here == last_) return;
      ++here;
    }
  }

  tally& held_;
  std::deque<concur::channel<item>> channels_;
  std::atomic<std::size_t> current_{0};
  std::atomic<std::size_t> last_{most};
  std::atomic<std::uint64_t> values_{0};
  std::atomic<unsigned> senders_{fibers / 2};
  account sent_;
  account received_;
};

void run_channels(std::size_t capacity) {
  on_all_worker_counts([capacity](unsigned workers, tally& held, storm_figures& figures) {
    channel_storm all(capacity, held);
    cancel_storm<fibers>(workers, figures, [&](party& me) { all.live(me); });
    CONCUR_EXPECT(held, all.is_even());
  });
}

// Runs step(party&) `share` times in each party.
template <class Step>
void in_steps(unsigned workers, storm_figures& figures, Step step) {
  cancel_storm<fibers>(workers, figures, [&](party& me) {
    for (long n = 0; n < share; ++n) step(me);
  });
}
// The same with the number of the step, for what is used once: `parties` of it per step.
template <class Step>
void in_rounds(unsigned workers, storm_figures& figures, Step step) {
  cancel_storm<fibers>(workers, figures, [&](party& me) {
    for (long n = 0; n < share; ++n) step(me, static_cast<std::size_t>(n));
  });
}

}  // namespace

TEST_CASE("channels without room: each value is received once, or still its sender's") {
  const nothing_left_over guard;
  run_channels(0);
}

TEST_CASE("channels with room: the same") {
  const nothing_left_over guard;
  run_channels(3);
}

// Tokens lie in two channels, and each party takes one out of either and puts it into either.
TEST_CASE("select: no token is lost or doubled, whatever ends the wait") {
  const nothing_left_over guard;
  on_all_worker_counts([](unsigned workers, tally& held, storm_figures& figures) {
    constexpr std::uint64_t tokens = 5;
    concur::channel<item> a(tokens);
    concur::channel<item> b(tokens);
    for (std::uint64_t i = 1; i <= tokens; ++i) a.send(item(i));
    in_steps(workers, figures, [&](party& me) {
      std::uint64_t mine = 0;
      const auto keep = [&](std::optional<item> got) { mine = got->value; };
      me.attempt([&] {
        if (me.one_in(4))
          concur::select(concur::recv(a, keep), concur::recv(b, keep), concur::after(me.some_limit(), [] {}));
        else
          concur::select(concur::recv(a, keep), concur::recv(b, keep));
      });
      if (mine == 0) return;
      dawdle(me);
      bool is_given = false;
      const auto give = [&] { is_given = true; };
      while (!is_given) {
        me.attempt([&] { concur::select(concur::send(a, item(mine), give), concur::send(b, item(mine), give)); });
      }
    });
    std::uint64_t left = 0;
    for (concur::channel<item>* const one : {&a, &b}) {
      while (const std::optional<item> got = one->try_recv()) left += got->value;
    }
    CONCUR_EXPECT(held, left == tokens * (tokens + 1) / 2);
  });
}

TEST_CASE("mutex and timed_mutex: one at a time, and free in the end") {
  const nothing_left_over guard;
  on_all_worker_counts([](unsigned workers, tally& held, storm_figures& figures) {
    concur::mutex m;
    concur::timed_mutex t;
    long plain[2] = {0, 0};
    std::atomic<long> taken{0};
    in_steps(workers, figures, [&](party& me) {
      me.attempt([&] {
        if (me.one_in(2)) {
          const std::lock_guard<concur::mutex> in(m);
          ++plain[0];
          ++taken;
          dawdle(me);
        } else {
          std::unique_lock<concur::timed_mutex> in(t, std::defer_lock);
          if (!me.one_in(4))
            in.lock();
          else if (!in.try_lock_for(me.some_limit()))
            return;
          ++plain[1];
          ++taken;
          dawdle(me);
        }
      });
    });
    CONCUR_EXPECT(held, plain[0] + plain[1] == taken);
    CONCUR_EXPECT(held, m.try_lock() && t.try_lock());
    m.unlock();
    t.unlock();
  });
}

TEST_CASE("shared_mutex: no writer beside anybody, and free in the end") {
  const nothing_left_over guard;
  on_all_worker_counts([](unsigned workers, tally& held, storm_figures& figures) {
    concur::shared_mutex m;
    std::atomic<long> inside{0};  // a writer counts a million
    in_steps(workers, figures, [&](party& me) {
      me.attempt([&] {
        if (me.one_in(4)) {
          const std::unique_lock<concur::shared_mutex> in(m);
          CONCUR_EXPECT(held, inside.fetch_add(1000000) == 0);
          inside.fetch_sub(1000000);
        } else {
          std::shared_lock<concur::shared_mutex> in(m, std::defer_lock);
          if (!me.one_in(4))
            in.lock();
          else if (!in.try_lock_for(me.some_limit()))
            return;
          CONCUR_EXPECT(held, inside.fetch_add(1) < 1000000);
          inside.fetch_sub(1);
          dawdle(me);
        }
      });
    });
    CONCUR_EXPECT(held, inside == 0 && m.try_lock());
    m.unlock();
  });
}

// Who takes a token gives it back and notifies one. A notification that goes to somebody who left leaves all others waiting.
TEST_CASE("condition_variable: no notification is lost") {
  const nothing_left_over guard;
  on_all_worker_counts([](unsigned workers, tally& held, storm_figures& figures) {
    concur::mutex m;
    concur::condition_variable is_there;
    int tokens = 2;
    in_steps(workers, figures, [&](party& me) {
      me.attempt([&] {
        std::unique_lock<concur::mutex> in(m);
        while (tokens == 0) {
          if (!me.one_in(8))
            is_there.wait(in);
          else if (is_there.wait_for(in, me.some_limit()) == concur::cv_status::timeout)
            return;
        }
        --tokens;
        in.unlock();
        const auto give_back = [&] {
          in.lock();
          ++tokens;
          is_there.notify_one();
        };
        try {
          dawdle(me);
        } catch (...) {
          concur::shield(give_back);
          throw;
        }
        concur::shield(give_back);
      });
    });
    CONCUR_EXPECT(held, tokens == 2);
  });
}

TEST_CASE("counting_semaphore: permits are conserved, large requests get through") {
  const nothing_left_over guard;
  on_all_worker_counts([](unsigned workers, tally& held, storm_figures& figures) {
    constexpr std::ptrdiff_t permits = 4;
    concur::counting_semaphore<permits> s(permits);
    std::atomic<std::ptrdiff_t> inside{0};
    in_steps(workers, figures, [&](party& me) {
      const std::ptrdiff_t n = me.one_in(8) ? permits : 1 + me.draw(2);
      bool has_them = false;
      me.attempt([&] {
        if (me.one_in(8))
          has_them = s.try_acquire_for(me.some_limit(), n);
        else
          s.acquire(n), has_them = true;
      });
      if (!has_them) return;
      CONCUR_EXPECT(held, inside.fetch_add(n) + n <= permits);
      dawdle(me);
      inside.fetch_sub(n);
      s.release(n);
    });
    CONCUR_EXPECT(held, inside == 0 && s.try_acquire(permits) && !s.try_acquire());
  });
}

TEST_CASE("latch and wait_group: they open for everybody who stays, and once") {
  const nothing_left_over guard;
  on_all_worker_counts([](unsigned workers, tally& held, storm_figures& figures) {
    std::deque<concur::latch> latches;
    std::deque<concur::wait_group> groups(static_cast<std::size_t>(share));
    for (concur::wait_group& one : groups) {
      latches.emplace_back(fibers);
      one.add(fibers);
    }
    in_rounds(workers, figures, [&](party& me, std::size_t round) {
      concur::latch& l = latches[round];
      concur::wait_group& g = groups[round];
      dawdle(me);
      if (round % 2 == 0)
        l.count_down();
      else
        g.done();
      const auto wait = [&] {
        const bool has_limit = me.one_in(8);
        if (round % 2 == 0) {
          const bool is_open = has_limit ? l.wait_for(me.some_limit()) : (l.wait(), true);
          CONCUR_EXPECT(held, !is_open || l.try_wait());
        } else {
          const bool is_zero = has_limit ? g.wait_for(me.some_limit()) : (g.wait(), true);
          CONCUR_EXPECT(held, !is_zero || g.try_wait());
        }
      };
      if (!me.attempt(wait) && me.one_in(2)) wait();
    });
  });
}

TEST_CASE("barrier: every arrival counts, and every phase ends") {
  const nothing_left_over guard;
  on_all_worker_counts([](unsigned workers, tally& held, storm_figures& figures) {
    std::atomic<long> phases{0};
    const auto count = [&] { ++phases; };
    concur::barrier<decltype(count)> b(fibers, count);
    in_rounds(workers, figures, [&](party& me, std::size_t round) {
      dawdle(me);
      const auto token = b.arrive();
      bool is_over = false;
      while (!is_over) {
        me.attempt([&] {
          if (me.one_in(8))
            is_over = b.wait_for(token, me.some_limit());
          else
            b.wait(token), is_over = true;
        });
      }
      CONCUR_EXPECT(held, phases > static_cast<long>(round));
    });
    CONCUR_EXPECT(held, phases == share);
  });
}

// The last party sets and resets, until the others are through; who waits plainly is let go by the last set.
TEST_CASE("event: who waits is let go") {
  const nothing_left_over guard;
  on_all_worker_counts([](unsigned workers, tally& held, storm_figures& figures) {
    concur::event e;
    std::atomic<unsigned> left{fibers - 1};
    cancel_storm<fibers>(workers, figures, [&](party& me) {
      if (me.number == fibers - 1) {
        while (left != 0) {
          e.set();
          e.reset();
          dawdle(me);
          concur::this_fiber::yield();
        }
        return;
      }
      for (long n = 0; n < share; ++n) {
        me.attempt([&] {
          if (me.one_in(8))
            e.wait_for(me.some_limit());
          else
            e.wait();
        });
      }
      --left;
    });
    CONCUR_EXPECT(held, left == 0);
  });
}

// The function parks, and so is cancelled itself now and then; the next in line does it then.
TEST_CASE("call_once: it is done once, by whoever gets through") {
  const nothing_left_over guard;
  on_all_worker_counts([](unsigned workers, tally& held, storm_figures& figures) {
    std::deque<concur::once_flag> flags(static_cast<std::size_t>(share));
    std::vector<std::atomic<int>> done(static_cast<std::size_t>(share));
    const auto call = [&](std::size_t i) {
      concur::call_once(flags[i], [&] {
        concur::this_fiber::yield();
        if (i % 8 == 0) concur::this_fiber::sleep_for(1us);
        ++done[i];
      });
      CONCUR_EXPECT(held, done[i] == 1);
    };
    in_rounds(workers, figures, [&](party& me, std::size_t round) {
      const auto op = [&] { call(round); };
      if (!me.attempt(op) && me.one_in(2)) op();
    });
  });
}

TEST_CASE("resource_pool: each thing is had by one, and comes back") {
  const nothing_left_over guard;
  on_all_worker_counts([](unsigned workers, tally& held, storm_figures& figures) {
    constexpr std::size_t capacity = 3;
    std::atomic<long> made{0};
    std::atomic<long> discarded{0};
    concur::resource_pool<std::atomic<int>*> pool(capacity, [&] {
      ++made;
      return new std::atomic<int>(0);
    });
    in_steps(workers, figures, [&](party& me) {
      concur::resource_pool<std::atomic<int>*>::lease mine;
      me.attempt([&] { mine = me.one_in(8) ? pool.acquire_for(me.some_limit()) : pool.acquire(); });
      if (!mine) return;
      CONCUR_EXPECT(held, (*mine)->fetch_add(1) == 0);
      dawdle(me);
      (*mine)->fetch_sub(1);
      if (!me.one_in(64)) return;
      delete *mine;
      mine.discard();
      ++discarded;
    });
    CONCUR_EXPECT(held, pool.size() == pool.idle() && made - discarded == static_cast<long>(pool.size()));
    while (pool.idle() != 0) {
      auto one = pool.try_acquire();
      delete *one;
      *one = nullptr;
      one.discard();
    }
  });
}

TEST_CASE("future and shared_future: a wait that was cancelled takes nothing with it") {
  const nothing_left_over guard;
  on_all_worker_counts([](unsigned workers, tally& held, storm_figures& figures) {
    in_rounds(workers, figures, [&](party& me, std::size_t round) {
      concur::promise<item> maker;
      concur::future<item> result = maker.get_future();
      const bool is_late = me.one_in(4);
      static_cast<void>(concur::go([maker = std::move(maker), is_late, round]() mutable {
        if (is_late) concur::this_fiber::sleep_for(30us);
        maker.set_value(item(round + 1));
      }));
      if (me.one_in(2)) {
        const concur::shared_future<item> shared(std::move(result));
        const auto look = [&] { CONCUR_EXPECT(held, shared.get().value == round + 1); };
        if (!me.attempt(look)) look();
        return;
      }
      bool is_there = false;
      me.attempt([&] {
        if (me.one_in(8))
          is_there = result.wait_for(me.some_limit());
        else
          result.wait(), is_there = true;
      });
      if (is_there || me.one_in(2)) CONCUR_EXPECT(held, result.get().value == round + 1);
    });
  });
}

TEST_CASE("sleeping: not shorter than asked for, unless it was cancelled") {
  const nothing_left_over guard;
  on_all_worker_counts([](unsigned workers, tally& held, storm_figures& figures) {
    cancel_storm<fibers>(workers, figures, [&](party& me) {
      for (long n = 0; n < share / 4; ++n) {
        const auto limit = me.some_limit();
        const auto begin = std::chrono::steady_clock::now();
        const bool is_through = me.attempt([&] { concur::this_fiber::sleep_for(limit); });
        CONCUR_EXPECT(held, !is_through || std::chrono::steady_clock::now() - begin >= limit);
      }
    });
  });
}

// More children than may run at once: who waits for room is cancelled, too, and what began has ended.
TEST_CASE("nursery with a limit: a place is never lost") {
  const nothing_left_over guard;
  on_all_worker_counts([](unsigned workers, tally& held, storm_figures& figures) {
    in_steps(workers, figures, [&](party& me) {
      std::atomic<int> running{0};
      std::atomic<int> begun{0};
      int wanted = 0;
      me.attempt([&] {
        concur::nursery below;
        below.limit(2);
        for (int i = 0; i < 4; ++i) {
          below.go([&] {
            CONCUR_EXPECT(held, ++running <= 2);
            ++begun;
            struct leaves {
              std::atomic<int>& count;
              ~leaves() { --count; }
            } at_end{running};
            concur::this_fiber::yield();
          });
          ++wanted;
        }
        below.join();
      });
      CONCUR_EXPECT(held, running == 0 && begun == wanted);
    });
  });
}

// Nothing comes, nobody lets go. A cancellation that misses a wait leaves it there for ever.
TEST_CASE("what nothing else ends a cancellation ends, in whatever moment it comes") {
  const nothing_left_over guard;
  on_all_worker_counts([](unsigned workers, tally& held, storm_figures& figures) {
    concur::channel<int> empty;
    concur::channel<int> full(1);
    concur::mutex m;
    concur::shared_mutex shared;
    concur::mutex cv_lock;
    concur::condition_variable never_notified;
    concur::counting_semaphore<1> s(0);
    concur::latch l(1);
    concur::barrier<> b(2);
    concur::event e;
    concur::wait_group g;
    concur::resource_pool<int> pool(1);
    concur::promise<void> maker;
    const concur::shared_future<void> result(maker.get_future());
    full.send(1);
    g.add();
    const auto token = b.arrive();
    const auto wait = [&](party& me, unsigned kind) {
      switch (kind) {
        case 0:
          return static_cast<void>(empty.recv());
        case 1:
          return full.send(2);
        case 2:
          return static_cast<void>(
              concur::select(concur::recv(empty, [](std::optional<int>) {}), concur::send(full, 3, [] {})));
        case 3:
          return m.lock();
        case 4:
          return me.one_in(2) ? shared.lock() : shared.lock_shared();
        case 5: {
          std::unique_lock<concur::mutex> in(cv_lock);
          return never_notified.wait(in);
        }
        case 6:
          return s.acquire();
        case 7:
          return l.wait();
        case 8:
          return b.wait(token);
        case 9:
          return e.wait();
        case 10:
          return g.wait();
        case 11:
          return static_cast<void>(pool.acquire());
        case 12:
          return result.wait();
        default:
          return concur::this_fiber::sleep_for(1h);
      }
    };
    m.lock();
    shared.lock();
    cancel_storm<fibers>(workers, figures, [&](party& me) {
      for (long n = 0; n < share / 2; ++n) {
        const unsigned kind = me.draw(14);
        CONCUR_EXPECT(held, !me.attempt_in_vain([&] { wait(me, kind); }));
      }
    });
    shared.unlock();
    m.unlock();
    CONCUR_EXPECT(held, !s.try_acquire() && full.size() == 1 && empty.size() == 0 && pool.size() == 0);
  });
}
