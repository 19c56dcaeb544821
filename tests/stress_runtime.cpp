// stress_runtime.cpp - everything at once, by chance, and the books balance.
//
// Fibers and plain threads do what a seeded draw tells them: send and receive with and without limits of time, lock,
// sleep, yield, spawn, wait for what they spawned, write to and read from sockets, close and open them. Nothing is
// checked in between but what each operation promises; at the end all that was sent was received or is still there, every
// lock was exclusive, every fiber that was started has ended.
#include "support/tally.hpp"
#include "support/test.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

constexpr int steps = (CONCUR_TSAN != 0 || CONCUR_ASAN != 0 ? 60 : 400) * CONCUR_TEST_SCALE;

class draws {
 public:
  explicit draws(std::uint64_t seed) : state_(seed * 2654435761u + 88172645463325252u) {}
  unsigned below(unsigned limit) {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<unsigned>(state_ >> 33) % limit;
  }

 private:
  std::uint64_t state_;
};

struct world {
  concur::channel<int> channels[3] = {concur::channel<int>(0), concur::channel<int>(1), concur::channel<int>(16)};
  concur::mutex lock;
  concur::wait_group all;
  int inside = 0;             // under lock
  std::uint64_t entries = 0;  // under lock
  std::atomic<std::uint64_t> entered{0};
  std::atomic<long long> sent{0};
  std::atomic<long long> received{0};
  std::atomic<int> spawned{0};
  std::atomic<int> ended{0};
  tally held;
};

std::chrono::microseconds short_time(draws& by) { return std::chrono::microseconds(by.below(300)); }

void use_channel(world& w, draws& by) {
  concur::channel<int> ch = w.channels[by.below(3)];
  int value = static_cast<int>(by.below(1000)) + 1;
  const int copy = value;
  switch (by.below(4)) {
    case 0:
      if (ch.try_send(value)) w.sent.fetch_add(copy);
      break;
    case 1:
      if (ch.send_for(value, short_time(by)) == concur::status::ok)
        w.sent.fetch_add(copy);
      else
        CONCUR_EXPECT(w.held, value == copy);
      break;
    case 2:
      if (const std::optional<int> got = ch.try_recv()) w.received.fetch_add(*got);
      break;
    default: {
      int got = 0;
      if (ch.recv_for(got, short_time(by)) == concur::status::ok)
        w.received.fetch_add(got);
      else
        CONCUR_EXPECT(w.held, got == 0);
    }
  }
}

void use_lock(world& w, draws& by) {
  std::lock_guard<concur::mutex> hold(w.lock);
  CONCUR_EXPECT(w.held, w.inside++ == 0);
  ++w.entries;
  w.entered.fetch_add(1);
  if (by.below(8) == 0) concur::this_fiber::yield();
  if (by.below(64) == 0) concur::this_fiber::sleep_for(short_time(by));
  --w.inside;
}

// Bytes through a pair of sockets, one end of which another fiber serves; sometimes it is closed under its reader.
void use_sockets(world& w, draws& by) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) return;
  concur::tcp_stream mine(ends[0]);
  concur::future<std::size_t> other = concur::go([fd = ends[1]] {
    concur::tcp_stream stream(fd);
    char some[100];
    std::size_t total = 0;
    while (const std::size_t count = stream.read_some(some, sizeof some)) {
      stream.write_all(some, count);
      total += count;
    }
    return total;
  });
  std::string text(by.below(2000) + 1, 'x');
  if (by.below(2) == 0) {
    mine.write_all(text);
    std::string back(text.size(), ' ');
    mine.read_exactly(back);
    CONCUR_EXPECT(w.held, back == text);
    mine.shutdown_write();
    CONCUR_EXPECT(w.held, other.get() == text.size());
  } else {
    char byte = 0;
    std::error_code error;
    mine.read_deadline(std::chrono::steady_clock::now() + short_time(by));
    mine.read_some(&byte, 1, error);
    CONCUR_EXPECT(w.held, error == std::errc::timed_out);
    mine.close();
    CONCUR_EXPECT(w.held, other.get() == 0);
  }
}

void do_something(world& w, draws& by, int depth);

void begin_child(world& w, draws& by, int depth) {
  w.spawned.fetch_add(1);
  w.all.add(1);
  concur::future<unsigned> child = concur::go([&w, depth, seed = by.below(1u << 30)] {
    draws own(seed);
    for (int i = 0; i < 5; ++i) do_something(w, own, depth + 1);
    w.ended.fetch_add(1);
    w.all.done();
    return seed;
  });
  if (by.below(2) == 0) child.get();
}

void do_something(world& w, draws& by, int depth) {
  const bool is_fiber = static_cast<bool>(concur::this_fiber::get_id());
  switch (by.below(12)) {
    case 0:
      concur::this_fiber::sleep_for(short_time(by));
      break;
    case 1:
    case 2:
      concur::this_fiber::yield();
      break;
    case 3:
    case 4:
      use_lock(w, by);
      break;
    case 5:
      if (is_fiber && depth < 3) begin_child(w, by, depth);
      break;
    case 6:
      if (is_fiber && by.below(4) == 0) use_sockets(w, by);
      break;
    default:
      use_channel(w, by);
  }
}

void live(unsigned workers, std::uint64_t seed) {
  constexpr int fibers = 24;
  constexpr int plain_threads = 2;
  world w;
  {
    concur::runtime rt(with_workers(workers));
    std::vector<concur::future<void>> roots;
    for (int f = 0; f < fibers; ++f) {
      roots.push_back(rt.go([&w, seed, f] {
        draws by(seed * 1000 + static_cast<std::uint64_t>(f));
        for (int i = 0; i < steps; ++i) do_something(w, by, 0);
      }));
    }
    std::thread threads[plain_threads];
    for (int t = 0; t < plain_threads; ++t) {
      threads[t] = std::thread([&w, seed, t] {
        draws by(seed * 1000 + 500 + static_cast<std::uint64_t>(t));
        for (int i = 0; i < steps; ++i) do_something(w, by, 0);
      });
    }
    for (std::thread& one : threads) one.join();
    for (concur::future<void>& one : roots) one.get();
    w.all.wait();
    rt.wait_for_all();
  }
  for (concur::channel<int>& ch : w.channels) {
    while (const std::optional<int> rest = ch.try_recv()) w.received.fetch_add(*rest);
  }
  CAPTURE(workers);
  CAPTURE(seed);
  CHECK(w.held.report() == "");
  CHECK(w.sent.load() == w.received.load());
  CHECK(w.entries == w.entered.load());
  CHECK(w.spawned.load() == w.ended.load());
  CHECK(w.sent.load() > 0);
}

}  // namespace

TEST_CASE("a day in the life of one, two and four workers") {
  const nothing_left_over guard;
  for (const unsigned workers : {1u, 2u, 4u}) {
    for (std::uint64_t seed = 1; seed <= 6; ++seed) live(workers, seed);
  }
}

// The runtime goes while all of it is under way: nothing may be left, whatever was lost.
TEST_CASE("a day that is cut short") {
  const nothing_left_over guard;
  for (const unsigned workers : {1u, 2u, 4u}) {
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {
      world w;
      concur::runtime rt(with_workers(workers));
      for (int f = 0; f < 24; ++f) {
        static_cast<void>(rt.go([&w, seed, f] {
          draws by(seed * 1000 + static_cast<std::uint64_t>(f));
          for (;;) do_something(w, by, 0);
        }));
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(seed));
    }
  }
}
