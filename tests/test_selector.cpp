// test_selector.cpp - selects whose cases are added at run time, timed channels, and descriptors in a select.
#include "support/cancel.hpp"
#include "support/companion.hpp"
#include "support/tally.hpp"
#include "support/test.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

using concur::channel;
using concur::otherwise;
using concur::recv;
using concur::select;
using concur::selector;
using concur::send;
using namespace std::chrono_literals;

namespace {

// A pipe whose ends are closed through the library.
struct test_pipe {
  test_pipe() {
    if (::pipe2(ends, O_CLOEXEC) != 0) throw std::system_error(errno, std::system_category(), "pipe2");
  }
  ~test_pipe() {
    for (const int end : ends) {
      if (end >= 0) concur::io::close(end);
    }
  }
  test_pipe(const test_pipe&) = delete;
  test_pipe& operator=(const test_pipe&) = delete;
  void put(char c) const { static_cast<void>(!::write(ends[1], &c, 1)); }
  char take() const {
    char c = 0;
    static_cast<void>(!concur::io::read(ends[0], &c, 1));
    return c;
  }
  int ends[2] = {-1, -1};
};

}  // namespace

TEST_CASE("a selector serves as many channels as it was given, again and again") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    constexpr std::size_t n = 50;
    constexpr int each = 20;
    std::vector<channel<int>> channels(n);
    std::vector<int> got(n);
    std::size_t open = n;
    selector all;
    for (std::size_t i = 0; i < n; ++i) {
      const int index = all.add(recv(channels[i], [&, i](std::optional<int> v) {
        if (v)
          got[i] += *v;
        else
          --open;
      }));
      CONCUR_EXPECT(held, index == static_cast<int>(i));
    }
    companion other(which, [&] {
      for (int k = 0; k < each; ++k) {
        for (channel<int>& ch : channels) ch.send(1);
      }
      for (channel<int>& ch : channels) ch.close();
    });
    while (open != 0) {
      const std::size_t before = open;
      const int index = all.wait();
      if (open != before) all.remove(index);
    }
    other.join();
    for (const int sum : got) CONCUR_EXPECT(held, sum == each);
    CONCUR_EXPECT(held, all.size() == 0 && all.try_wait() == -1);
    CHECK(held.report() == "");
  });
}

TEST_CASE("a selector owns its channels and values, and what can happen once happens once") {
  const nothing_left_over guard;
  everywhere([](kind) {
    tally held;
    channel<std::unique_ptr<int>> ch(4);
    std::vector<std::string> ran;
    selector all{recv(channel<int>(1), [] {}), send(ch, std::make_unique<int>(5), [&] { ran.push_back("send"); }),
                 concur::after(-1ms, [&] { ran.push_back("after"); })};
    auto mine = std::make_unique<int>(6);
    CONCUR_EXPECT(held, all.add(send(ch, std::move(mine), [&] { ran.push_back("send too"); })) == 3);
    CONCUR_EXPECT(held, mine == nullptr && all.size() == 4);
    CONCUR_EXPECT(held, all.wait_ordered() == 1);
    CONCUR_EXPECT(held, all.wait_ordered() == 2);
    CONCUR_EXPECT(held, all.wait_ordered() == 3);
    CONCUR_EXPECT(held, (ran == std::vector<std::string>{"send", "after", "send too"}));
    CONCUR_EXPECT(held, all.size() == 1 && all.try_wait() == -1 && all.wait_for(1ms) == -1);
    CONCUR_EXPECT(held, all.wait_until(std::chrono::steady_clock::now() - 1s) == -1);
    CONCUR_EXPECT(held, **ch.recv() == 5 && **ch.recv() == 6);
    CONCUR_EXPECT(held, all.add(otherwise([&] { ran.push_back("otherwise"); })) == 4 && all.wait() == 4);
    const std::string bad = text_of<std::invalid_argument>([&] { all.remove(9); });
    CONCUR_EXPECT(held, bad.find("index is 9") != std::string::npos);
    selector moved(std::move(all));
    CONCUR_EXPECT(held, moved.size() == 2);
    moved.clear();
    CONCUR_EXPECT(held, moved.size() == 0);
    CHECK(held.report() == "");
  });
}

TEST_CASE("a value that a selector did not send goes with it") {
  const nothing_left_over guard;
  auto counted = std::make_shared<int>(1);
  {
    channel<std::shared_ptr<int>> full;
    selector all;
    all.add(send(full, counted, [] {}));
    CHECK(all.wait_for(1ms) == -1);
    CHECK(counted.use_count() == 2);
  }
  CHECK(counted.use_count() == 1);
}

TEST_CASE("after(d) is a channel on which one moment arrives") {
  const nothing_left_over guard;
  everywhere([](kind) {
    tally held;
    const auto begin = std::chrono::steady_clock::now();
    channel<concur::time_point> one = concur::after(3ms);
    CONCUR_EXPECT(held, !one.try_recv() && one.size() == 0);
    const auto moment = one.recv();
    CONCUR_EXPECT(held, moment && *moment >= begin + 3ms && std::chrono::steady_clock::now() >= *moment);
    concur::time_point again;
    CONCUR_EXPECT(held, one.recv_for(again, 5ms) == concur::status::timeout);
    channel<int> empty;
    CONCUR_EXPECT(held, select(recv(empty, [] {}), recv(concur::after(2ms), [] {})) == 1);
    one.close();
    CONCUR_EXPECT(held, !one.recv());
    concur::after(24h);  // costs nothing, and holds nothing up
    CHECK(held.report() == "");
  });
}

TEST_CASE("several who wait for one moment: one gets it, the others go on waiting") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    channel<concur::time_point> one = concur::after(5ms);
    std::atomic<int> got{0};
    std::atomic<int> ended{0};
    const auto wait_for_it = [&] {
      if (one.recv()) got.fetch_add(1);
      ended.fetch_add(1);
    };
    companion a(which, wait_for_it);
    companion b(which, wait_for_it);
    while (got.load() == 0) concur::this_fiber::yield();
    while (ended.load() == 0) concur::this_fiber::yield();
    CONCUR_EXPECT(held, ended.load() == 1);
    one.close();
    a.join();
    b.join();
    CONCUR_EXPECT(held, got.load() == 1);
    CHECK(held.report() == "");
  });
}

TEST_CASE("a ticker keeps to its moments, and a slow reader loses ticks") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    const auto begin = std::chrono::steady_clock::now();
    concur::ticker ticks = concur::tick(2ms);
    concur::time_point last = begin;
    for (int i = 0; i < 5; ++i) {
      const auto tick = ticks.recv();
      CONCUR_EXPECT(held, tick && *tick > last && std::chrono::steady_clock::now() >= *tick);
      CONCUR_EXPECT(held, tick && *tick >= begin + (i + 1) * 2ms);
      last = *tick;
    }
    concur::this_fiber::sleep_until(last + 21ms);
    const auto woke = std::chrono::steady_clock::now();
    const auto late = ticks.try_recv();
    CONCUR_EXPECT(held, late && *late > woke - 4ms && *late >= last + 20ms);  // the latest, not the oldest
    CONCUR_EXPECT(held, ticks.size() <= 1);
    ticks.reset(1h);
    ticks.try_recv();  // one that lay there
    concur::time_point none;
    CONCUR_EXPECT(held, ticks.recv_for(none, 5ms) == concur::status::timeout);
    {  // who waits hears of a reset, and of a stop
      int count = 0;
      companion other(which, [&] {
        for (concur::time_point tick : ticks) {
          static_cast<void>(tick);
          if (++count == 3) ticks.stop();
        }
      });
      other.wait_until_parked();
      ticks.reset(1ms);
      other.join();
      CONCUR_EXPECT(held, count == 3);
    }
    ticks.stop();
    for (const auto bad : {0ms, -1ms}) {
      const std::string text = text_of<std::invalid_argument>([&] { concur::tick(bad); });
      CONCUR_EXPECT(held, text.find("period is") != std::string::npos);
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("a future in a select: there before, made meanwhile, an error, and not in time") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    channel<int> empty;
    concur::promise<int> early;
    concur::future<int> there = early.get_future();
    early.set_value(5);
    CONCUR_EXPECT(held, select(recv(empty, [] {}), concur::ready(there, [&] { CONCUR_EXPECT(held, there.get() == 5); }),
                               concur::after(30s, [] {})) == 1);
    for (int round = 0; round < 50; ++round) {
      concur::promise<int> maker;
      concur::future<int> wanted = maker.get_future();
      concur::promise<void> broken;
      concur::shared_future<void> failing = broken.get_future().share();
      CONCUR_EXPECT(held, select(concur::ready(wanted, [] {}), concur::ready(failing, [] {}), otherwise([] {})) == 2);
      CONCUR_EXPECT(held, select(concur::ready(wanted, [] {}), concur::after(0ms, [] {})) == 1);
      int won = -1;
      companion other(which, [&] {
        won = select(concur::ready(wanted, [] {}), concur::ready(failing, [] {}), concur::ready(wanted, [] {}),
                     recv(empty, [] {}));
      });
      other.wait_until_parked();
      if (round % 2 == 0)
        maker.set_value(round);
      else
        broken.set_exception(std::make_exception_ptr(std::runtime_error("broken")));
      other.join();
      CONCUR_EXPECT(held, round % 2 == 0 ? won == 0 || won == 2 : won == 1);
    }
    const std::string none = text_of<std::logic_error>([] { select(concur::ready(concur::future<int>(), [] {})); });
    CONCUR_EXPECT(held, none != "nothing was thrown");
    CHECK(held.report() == "");
  });
}

TEST_CASE("results are made while selects look at them: each is seen, and nobody touches a state that is gone") {
  const nothing_left_over guard;
  constexpr int rounds = CONCUR_TSAN || CONCUR_ASAN ? 3'000 : 60'000;
  for (const unsigned workers : {1u, 2u, 4u}) {
    const int seen = concur::run(with_workers(workers), [] {
      channel<int> other;
      int count = 0;
      for (int i = 0; i < rounds; ++i) {
        concur::future<int> a = concur::go([i] { return i; });
        concur::future<int> b = concur::go([i] { return i + 1; });
        for (int left = 2; left != 0; --left) {
          const auto take = [&](concur::future<int>& one) { count += one.get() >= 0 ? 1 : 0; };
          if (a.valid() && b.valid())
            select(concur::ready(a, [&] { take(a); }), recv(other, [] {}), concur::ready(b, [&] { take(b); }));
          else
            select(recv(other, [] {}), concur::ready(a.valid() ? a : b, [&] { take(a.valid() ? a : b); }));
        }
      }
      return count;
    });
    CHECK(seen == 2 * rounds);
  }
}

TEST_CASE("a descriptor in a select: ready before, ready later, and not ready in time") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    test_pipe pipe;
    channel<int> ch;
    const auto either = [&] {
      return select(concur::readable(pipe.ends[0], [&] { CONCUR_EXPECT(held, pipe.take() == 'x'); }),
                    recv(ch, [&](std::optional<int> v) { CONCUR_EXPECT(held, v == 3); }), concur::after(30s, [] {}));
    };
    pipe.put('x');
    CONCUR_EXPECT(held, either() == 0);
    for (int round = 0; round < 20; ++round) {
      companion other(which, [&] { CONCUR_EXPECT(held, either() == 0); });
      other.wait_until_parked();
      pipe.put('x');
      other.join();
      companion third(which, [&] { CONCUR_EXPECT(held, either() == 1); });
      third.wait_until_parked();
      ch.send(3);
      third.join();
    }
    CONCUR_EXPECT(held, select(concur::readable(pipe.ends[0], [] {}), otherwise([] {})) == 1);
    CONCUR_EXPECT(held, select(concur::readable(pipe.ends[0], [] {}), concur::after(2ms, [] {})) == 1);
    CONCUR_EXPECT(held, select(concur::writable(pipe.ends[1], [] {}), otherwise([] {})) == 0);
    CHECK(held.report() == "");
  });
}

TEST_CASE("the end of a stream is readable, a file always is, a bad descriptor is told") {
  const nothing_left_over guard;
  everywhere([](kind) {
    tally held;
    test_pipe pipe;
    concur::io::close(std::exchange(pipe.ends[1], -1));
    CONCUR_EXPECT(held, select(concur::readable(pipe.ends[0], [] {}), concur::after(30s, [] {})) == 0);
    const int file = ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    CONCUR_EXPECT(held, select(concur::readable(file, [] {}), concur::after(30s, [] {})) == 0);
    concur::io::close(file);
    const std::string negative = text_of<std::invalid_argument>([] { select(concur::readable(-7, [] {})); });
    CONCUR_EXPECT(held, negative.find("fd is -7") != std::string::npos);
    const std::string closed = text_of<std::system_error>([] { select(concur::writable(100'000, [] {})); });
    CONCUR_EXPECT(held, closed.find("100000") != std::string::npos);
    CHECK(held.report() == "");
  });
}

TEST_CASE("a descriptor that is closed while a select waits for it ends the select") {
  const nothing_left_over guard;
  for (const unsigned workers : {1u, 2u, 4u}) {
    CHECK(concur::run(with_workers(workers), [] {
            test_pipe pipe;
            channel<int> ch;
            int error = 0;
            // By value: that the other is seen parked does not order what it read before what is written after that.
            companion other(kind::fiber, [&, end = pipe.ends[0]] {
              try {
                select(recv(ch, [] {}), concur::readable(end, [] {}));
              } catch (const std::system_error& failure) {
                error = failure.code().value();
              }
            });
            other.wait_until_parked();
            concur::io::close(std::exchange(pipe.ends[0], -1));
            other.join();
            return error;
          }) == ECANCELED);
  }
}

TEST_CASE("a select and readers of one descriptor, with cancellations: every byte is read, nobody stays behind") {
  const nothing_left_over guard;
  constexpr int bytes = CONCUR_TSAN || CONCUR_ASAN ? 500 : 5'000;
  for (const unsigned workers : {1u, 2u, 4u}) {
    std::atomic<int> read{0};
    concur::run(with_workers(workers), [&] {
      test_pipe pipe;
      ::fcntl(pipe.ends[0], F_SETFL, O_NONBLOCK);
      channel<void> over;
      cancel_target target;
      const auto count_one = [&] {
        char c = 0;
        if (::read(pipe.ends[0], &c, 1) == 1) read.fetch_add(1);
      };
      std::vector<concur::future<void>> all;
      for (int i = 0; i < 2; ++i) {
        all.push_back(concur::go([&, i] {
          if (i == 0) target.enter();
          for (bool goes_on = true; goes_on;) {
            try {
              select(concur::readable(pipe.ends[0], count_one), recv(over, [&](bool) { goes_on = false; }));
            } catch (const concur::cancelled&) {
            }
          }
          if (i == 0) target.leave();
        }));
      }
      for (int i = 0; i < bytes; ++i) {
        pipe.put('x');
        if (i % 3 == 0) target.strike();
        if (i % 50 == 0) {
          while (read.load() <= i) concur::this_fiber::yield();
        }
      }
      while (read.load() != bytes) concur::this_fiber::yield();
      over.close();
      for (auto& one : all) one.get();
    });
    CHECK(read.load() == bytes);
  }
}

TEST_CASE("a case may be removed by its own function, which goes on") {
  const nothing_left_over guard;
  for (const bool removes_all : {false, true}) {
    concur::channel<int> ch;
    ch.close();
    concur::selector cases;
    const std::string kept(100, 'k');  // captured: on the heap, and gone with the case
    std::string seen;
    int index = -1;
    index = cases.add(concur::recv(ch, [&cases, &index, &seen, kept, removes_all](std::optional<int>) {
      if (removes_all)
        cases.clear();
      else
        cases.remove(index);
      seen = kept;
    }));
    CHECK(cases.wait() == 0);
    CHECK(seen == kept);
    CHECK(cases.size() == 0);
    CHECK(cases.try_wait() == -1);
  }
}
