// tests/test_explore.cpp - explore and replay, as a user's ordinary build has them: fibers are interrupted at parking
// operations, threads where they block or spin. tests/explore_engine.cpp has what needs CONCUR_EXPLORE.
#include <sys/socket.h>
#include <unistd.h>

#include <set>
#include <stdexcept>
#include <string>

#include "support/test.hpp"

using namespace concur_test;
using namespace std::chrono_literals;

namespace {

// Reads, lets others run, writes: the update in between is lost.
void lose_an_update() {
  int balance = 0;
  concur::with_nursery([&](concur::nursery& n) {
    for (int i = 0; i < 2; ++i) {
      n.go([&] {
        const int seen = balance;
        concur::this_fiber::yield();
        balance = seen + 1;
      });
    }
  });
  concur::explore_expect(balance == 2, "an update was lost");
}

// Two locks, taken in two orders.
void lock_in_two_orders() {
  concur::mutex a;
  concur::mutex b;
  concur::with_nursery([&](concur::nursery& n) {
    n.go([&] {
      a.lock();
      b.lock();
      b.unlock();
      a.unlock();
    });
    n.go([&] {
      b.lock();
      a.lock();
      a.unlock();
      b.unlock();
    });
  });
}

concur::explore_options with(concur::strategy how, std::size_t schedules) {
  concur::explore_options given;
  given.strategy = how;
  given.schedules = schedules;
  return given;
}

}  // namespace

TEST_CASE("a lost update is found by every strategy, and replayed from its seed and from the shortest schedule") {
  const nothing_left_over guard;
  for (const concur::strategy how : {concur::random, concur::pct(3), concur::exhaustive(2)}) {
    const concur::explore_report found = concur::try_explore(lose_an_update, with(how, 2000));
    REQUIRE(!found.ok);
    CHECK(found.what.find("an update was lost") == 0);
    const concur::explore_report again = concur::try_replay(found.seed, lose_an_update);
    CHECK(!again.ok);
    CHECK(again.what == found.what);
    const concur::explore_report shorter = concur::replay_schedule(found.schedule, lose_an_update);
    CHECK(!shorter.ok);
    CHECK(shorter.what.find("an update was lost") == 0);
    CHECK(shorter.decisions <= found.decisions);
  }
}

TEST_CASE("a deadlock is found, and says what each fiber waits for") {
  const nothing_left_over guard;
  for (const concur::strategy how : {concur::random, concur::pct(3), concur::exhaustive(1)}) {
    concur::explore_options given = with(how, 20'000);
    given.workers = 1;
    const concur::explore_report found = concur::try_explore(lock_in_two_orders, given);
    REQUIRE(!found.ok);
    CHECK(found.what.find("deadlock") == 0);
    CHECK(found.what.find("waits: mutex lock") != std::string::npos);
    CHECK(found.what.find("waits: end of a nursery") != std::string::npos);
    CHECK(!concur::try_replay(found.seed, lock_in_two_orders).ok);
  }
}

TEST_CASE("the same seed gives the same trace, another seed another one") {
  const nothing_left_over guard;
  const auto program = [] {
    concur::channel<int> ch(1);
    int sum = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        for (int i = 0; i < 3; ++i) ch.send(i);
        ch.close();
      });
      n.go([&] {
        while (const std::optional<int> value = ch.recv()) sum += *value;
      });
      n.go([] { concur::this_fiber::sleep_for(1ms); });
    });
    concur::explore_expect(sum == 3, "a value is missing");
  };
  std::set<std::uint64_t> traces;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    concur::explore_options given = with(seed % 2 == 0 ? concur::random : concur::pct(4), 1);
    given.seed = seed;
    const concur::explore_report first = concur::try_explore(program, given);
    const concur::explore_report second = concur::try_explore(program, given);
    CHECK(first.ok);
    CHECK(first.trace_hash == second.trace_hash);
    traces.insert(first.trace_hash);
  }
  CHECK(traces.size() > 150);
}

TEST_CASE("sleeping costs nothing, and time passes in order") {
  const nothing_left_over guard;
  const auto program = [] {
    const auto begin = concur::detail::now_ns();
    int woken = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        concur::this_fiber::sleep_for(10h);
        concur::explore_expect(++woken == 2, "the longer sleep ended first");
      });
      n.go([&] {
        concur::this_fiber::sleep_for(1h);
        concur::explore_expect(++woken == 1, "the shorter sleep ended last");
      });
    });
    concur::explore_expect(concur::detail::now_ns() - begin >= 36'000'000'000'000, "it was no ten hours");
  };
  const auto begin = std::chrono::steady_clock::now();
  CHECK(concur::try_explore(program, with(concur::random, 200)).ok);
  CHECK(std::chrono::steady_clock::now() - begin < 60s);
}

TEST_CASE("moments of real clocks are taken as lengths from now, and are the same in each run") {
  const nothing_left_over guard;
  const auto program = [] {
    const auto begin = concur::detail::now_ns();
    concur::this_fiber::sleep_until(std::chrono::steady_clock::now() + 50ms);
    const auto middle = concur::detail::now_ns();
    concur::explore_expect(middle - begin >= 49'000'000, "the first sleep was too short");
    concur::this_fiber::sleep_until(std::chrono::system_clock::now() + 50ms);
    concur::explore_expect(concur::detail::now_ns() - middle >= 49'000'000, "the second sleep was too short");
    // What is said in the exploration's own time stays that.
    concur::cancel_scope limit(concur::deferred);
    limit.deadline(std::chrono::steady_clock::now() + 20ms);
    const auto until = limit.deadline() + 5ms;
    limit.deadline(until);
    concur::explore_expect(limit.deadline() == until, "a moment of the exploration was taken for another clock's");
  };
  const concur::explore_report first = concur::try_explore(program, with(concur::random, 200));
  CAPTURE(first.what);
  CHECK(first.ok);
  CHECK(concur::try_explore(program, with(concur::random, 200)).trace_hash == first.trace_hash);
}

TEST_CASE("choices that no promise decides come out both ways") {
  const nothing_left_over guard;
  int timed_out = 0;
  int received = 0;
  int first_case = 0;
  const auto program = [&] {
    concur::channel<int> ch(1);
    concur::channel<int> other(1);
    ch.send(1);
    other.send(2);
    concur::select(concur::recv(ch, [&](std::optional<int>) { ++first_case; }),
                   concur::recv(other, [](std::optional<int>) {}));
    concur::channel<int> slow;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        concur::this_fiber::sleep_for(1ms);
        int value = 1;
        slow.send_for(value, 0ms);
      });
      int value = 0;
      ++(slow.recv_for(value, 2ms) == concur::status::ok ? received : timed_out);
    });
  };
  CHECK(concur::try_explore(program, with(concur::random, 500)).ok);
  CHECK(timed_out != 0);
  CHECK(received != 0);
  CHECK(timed_out + received == 500);
  CHECK(first_case > 100);
  CHECK(first_case < 400);
}

TEST_CASE("explore throws what failed, with the seed in its text") {
  const nothing_left_over guard;
  bool was_thrown = false;
  try {
    concur::explore([] { throw std::runtime_error("the reason"); }, with(concur::random, 10));
  } catch (const concur::explore_failure& error) {
    was_thrown = true;
    CHECK(std::string(error.what()).find("the reason") != std::string::npos);
    CHECK(std::string(error.what()).find(std::to_string(error.report().seed)) != std::string::npos);
    CHECK(error.report().schedules == 1);
  }
  CHECK(was_thrown);
  CHECK(concur::explore([] {}, with(concur::random, 10)).schedules == 10);
}

TEST_CASE("an exhaustive search of a small program comes to its end") {
  const nothing_left_over guard;
  concur::explore_options given = with(concur::exhaustive(1), 1'000'000);
  given.workers = 1;
  std::set<int> orders;
  const auto program = [&] {
    int order = 0;
    concur::with_nursery([&](concur::nursery& n) {
      for (int i = 1; i <= 3; ++i) n.go([&order, i] { order = 10 * order + i; });
    });
    orders.insert(order);
  };
  const concur::explore_report report = concur::try_explore(program, given);
  CHECK(report.ok);
  CHECK(report.is_complete);
  CHECK(orders.size() == 6);
}

TEST_CASE("a program without end is a livelock, not a hang") {
  const nothing_left_over guard;
  concur::explore_options given = with(concur::random, 3);
  given.steps = 5000;
  given.shrink = 3;
  const concur::explore_report report = concur::try_explore(
      [] {
        for (;;) concur::this_fiber::yield();
      },
      given);
  CHECK(!report.ok);
  CHECK(report.what.find("no end after 5000 steps") == 0);
}

TEST_CASE("a loop that swallows its cancellation and tries again is a livelock too") {
  const nothing_left_over guard;
  concur::explore_options given = with(concur::random, 3);
  given.steps = 5000;
  const auto told_by_exception = [] {
    concur::move_on_after(1ms, [] {
      for (;;) {
        try {
          concur::this_fiber::sleep_for(1h);
        } catch (...) {
        }
      }
    });
  };
  const auto told_by_code = [] {
    concur::move_on_after(1ms, [] {
      std::error_code told;
      for (;;) concur::this_fiber::sleep_for(1h, told);
    });
  };
  CHECK(concur::try_explore(told_by_exception, given).what.find("no end after 5000 steps") == 0);
  CHECK(concur::try_explore(told_by_code, given).what.find("no end after 5000 steps") == 0);
}

TEST_CASE("plain threads are explored without a runtime, and are ordinary threads outside") {
  const nothing_left_over guard;
  const auto program = [] {
    concur::channel<int> ch;
    int sum = 0;
    concur::explored_thread sender([&] {
      ch.send(1);
      ch.send(2);
    });
    concur::explored_thread receiver([&] { sum = ch.recv().value() + ch.recv().value(); });
    sender.join();
    receiver.join();
    concur::explore_expect(sum == 3, "a value is missing");
  };
  concur::explore_options given = with(concur::random, 500);
  given.workers = 0;
  CHECK(concur::try_explore(program, given).ok);
  program();
  const concur::explore_report failed = concur::try_explore(
      [] {
        concur::channel<int> ch;
        concur::explored_thread receiver([&] { ch.recv(); });
      },
      given);
  CHECK(!failed.ok);
  CHECK(failed.what.find("deadlock") == 0);
}

TEST_CASE("a plain thread that yields lets other threads run") {
  const nothing_left_over guard;
  const auto program = [] {
    bool is_ready = false;
    concur::explored_thread other([&] { is_ready = true; });
    while (!is_ready) concur::this_fiber::yield();
  };
  concur::explore_options given = with(concur::random, 100);
  given.workers = 0;
  CHECK(concur::try_explore(program, given).ok);
}

TEST_CASE("threads outside of the runtime take part") {
  const nothing_left_over guard;
  const auto program = [] {
    concur::channel<int> ch;
    concur::explored_thread outside([&] {
      for (int i = 0; i < 3; ++i) ch.send(i);
      ch.close();
    });
    int sum = 0;
    while (const std::optional<int> value = ch.recv()) sum += *value;
    concur::explore_expect(sum == 3, "a value is missing");
  };
  CHECK(concur::try_explore(program, with(concur::random, 500)).ok);
  CHECK(concur::try_explore(program, with(concur::pct(3), 500)).ok);
}

TEST_CASE("fibers that talk through a socket are explored, short writes and interrupted calls included") {
  const nothing_left_over guard;
  const auto program = [] {
    int ends[2] = {-1, -1};
    concur::explore_expect(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0,
                           "no socket pair");
    std::string received;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        const std::string text = "a few bytes in pieces";
        for (std::size_t sent = 0; sent < text.size();)
          sent += static_cast<std::size_t>(concur::io::write(ends[0], text.data() + sent, text.size() - sent));
        concur::io::close(ends[0]);
      });
      n.go([&] {
        char room[7];
        for (;;) {
          const auto count = concur::io::read(ends[1], room, sizeof room);
          if (count <= 0) break;
          received.append(room, static_cast<std::size_t>(count));
        }
        concur::io::close(ends[1]);
      });
    });
    concur::explore_expect(received == "a few bytes in pieces", "bytes were lost, or changed places");
  };
  concur::explore_options given = with(concur::random, 300);
  given.inject_faults = true;
  const concur::explore_report report = concur::try_explore(program, given);
  CAPTURE(report.what);
  CHECK(report.ok);
}

TEST_CASE("what cannot be meant is refused, with the argument and its value") {
  const nothing_left_over guard;
  const auto nothing = [] {};
  concur::explore_options given;
  given.workers = 13;
  CHECK_THROWS_WITH_AS(
      concur::try_explore(nothing, given),
      "concur::explore: options.workers is 13: at most 12 workers are explored; 0 runs f on a plain thread",
      std::invalid_argument);
  given = {};
  given.schedules = 0;
  CHECK_THROWS_AS(concur::try_explore(nothing, given), std::invalid_argument);
  given = {};
  given.weak_memory = true;
  CHECK_THROWS_AS(concur::try_explore(nothing, given), std::invalid_argument);
  CHECK_THROWS_AS(concur::replay_schedule("w2 17", nothing), std::invalid_argument);
  CHECK_THROWS_AS(concur::replay_schedule("", nothing), std::invalid_argument);
  {
    const concur::runtime busy;
    CHECK_THROWS_AS(concur::try_explore(nothing, {}), std::logic_error);
  }
  const concur::explore_report nested = concur::try_explore([&] { concur::try_explore(nothing, {}); }, {});
  CHECK(!nested.ok);
  CHECK(nested.what.find("called within an exploration") != std::string::npos);
}

TEST_CASE("after a schedule that was abandoned the process goes on as before") {
  const nothing_left_over guard;
  for (int i = 0; i < 3; ++i) {
    CHECK(!concur::try_explore([] { concur::channel<int>().recv(); }, with(concur::random, 1)).ok);
    CHECK(concur::run([] { return 7; }) == 7);
  }
}

#if __cplusplus >= 202002L
TEST_CASE("options are given by name") {
  const nothing_left_over guard;
  const auto program = [] { concur::this_fiber::yield(); };
  CHECK(concur::explore(program, {.schedules = 20, .seed = 3, .strategy = concur::random}).schedules == 20);
  CHECK(concur::explore(program, {.schedules = 20, .seed = 3, .strategy = concur::pct(3)}).schedules == 20);
  CHECK(
      concur::explore(program, {.schedules = 1'000'000, .strategy = concur::exhaustive(1), .workers = 1}).is_complete);
}
#endif
