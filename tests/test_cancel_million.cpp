// test_cancel_million.cpp - a crowd of fibers that park in one kind of operation, all cancelled at once through one nursery.
//
// Twenty thousand in each kind; -DCONCUR_TEST_SCALE=50 makes it a million. For each kind it prints how long parking and
// cancelling took, and what a parked fiber costs in memory. Whatever they parked at must be as it was before.
#include "support/crew.hpp"

#include <sys/socket.h>

#include <cstdio>
#include <cstring>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <vector>

using namespace std::chrono_literals;
using steady_clock = std::chrono::steady_clock;

namespace {

std::size_t kilobytes_in(const char* path, const char* name) {
  std::size_t found = 0;
  std::FILE* file = std::fopen(path, "re");
  if (file == nullptr) return 0;
  char line[256];
  while (std::fgets(line, sizeof line, file) != nullptr) {
    if (std::strncmp(line, name, std::strlen(name)) == 0) std::sscanf(line + std::strlen(name), ": %zu", &found);
  }
  std::fclose(file);
  return found;
}

// As many as wanted, or as there is memory for.
std::size_t how_many() {
  const std::size_t wanted = static_cast<std::size_t>(scaled(20000)) * CONCUR_TEST_SCALE;
  const std::size_t available = kilobytes_in("/proc/meminfo", "MemAvailable");
  const std::size_t fitting = available / 10;
  return available == 0 || wanted <= fitting ? wanted : fitting;
}

double seconds_since(steady_clock::time_point begin) {
  return std::chrono::duration<double>(steady_clock::now() - begin).count();
}

// Where nothing comes and nobody lets go.
struct dead_ends {
  static constexpr std::size_t pairs = 32;

  dead_ends() {
    full.send(1);
    g.add();
    m.lock();
    shared.lock();
    for (int(&ends)[2] : sockets) {
      REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
      const char bytes[4096] = {};
      while (::send(ends[1], bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL) > 0) {
      }
    }
  }
  ~dead_ends() {
    for (int(&ends)[2] : sockets) {
      for (const int fd : ends) concur::io::close(fd);
    }
    shared.unlock();
    m.unlock();
  }
  dead_ends(const dead_ends&) = delete;
  dead_ends& operator=(const dead_ends&) = delete;

  void expect_untouched() {
    CHECK(empty.size() == 0);
    CHECK_FALSE(empty.closed());
    CHECK(full.size() == 1);
    CHECK_FALSE(m.try_lock());
    CHECK_FALSE(shared.try_lock_shared());
    CHECK(cv_lock.try_lock());
    cv_lock.unlock();
    CHECK_FALSE(s.try_acquire());
    CHECK_FALSE(l.try_wait());
    CHECK_FALSE(b.try_wait(token));
    CHECK_FALSE(e.is_set());
    CHECK_FALSE(g.try_wait());
    CHECK(pool.size() == 0);
    CHECK_FALSE(result.ready());
    for (const int(&ends)[2] : sockets) {
      char byte = 0;
      CHECK(::recv(ends[1], &byte, 1, MSG_DONTWAIT) < 0);
      CHECK(::recv(ends[0], &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 1);
    }
  }

  concur::channel<int> empty;
  concur::channel<int> full{1};
  concur::mutex m;
  concur::shared_mutex shared;
  concur::mutex cv_lock;
  concur::condition_variable never_notified;
  concur::counting_semaphore<8> s{0};
  concur::latch l{1};
  concur::barrier<> b{2};
  const concur::barrier<>::arrival_token token = b.arrive();
  concur::event e;
  concur::wait_group g;
  concur::resource_pool<int> pool{1};
  concur::promise<void> maker;
  const concur::shared_future<void> result{maker.get_future()};
  concur::once_flag once;
  int sockets[pairs][2];
  concur::tcp_listener listener = concur::tcp_listener::bind("127.0.0.1:0");
};

struct operation {
  const char* name;
  void (*park)(dead_ends& at, std::size_t number);
  std::size_t fibers_each = 1;
};

const operation operations[] = {
    {"channel, receive", [](dead_ends& at, std::size_t) { at.empty.recv(); }},
    {"channel, receive with a limit",
     [](dead_ends& at, std::size_t) {
       int got = 0;
       at.empty.recv_for(got, 1h);
     }},
    {"channel, send to a full one", [](dead_ends& at, std::size_t) { at.full.send(2); }},
    {"select of two",
     [](dead_ends& at, std::size_t) {
       concur::select(concur::recv(at.empty, [](std::optional<int>) {}), concur::send(at.full, 3, [] {}));
     }},
    {"mutex", [](dead_ends& at, std::size_t) { at.m.lock(); }},
    {"shared_mutex, half of them shared",
     [](dead_ends& at, std::size_t number) { number % 2 == 0 ? at.shared.lock() : at.shared.lock_shared(); }},
    {"condition_variable",
     [](dead_ends& at, std::size_t) {
       std::unique_lock<concur::mutex> in(at.cv_lock);
       at.never_notified.wait(in);
     }},
    {"semaphore", [](dead_ends& at, std::size_t number) { at.s.acquire(1 + static_cast<std::ptrdiff_t>(number % 8)); }},
    {"latch", [](dead_ends& at, std::size_t) { at.l.wait(); }},
    {"barrier", [](dead_ends& at, std::size_t) { at.b.wait(at.token); }},
    {"event", [](dead_ends& at, std::size_t) { at.e.wait(); }},
    {"call_once",
     [](dead_ends& at, std::size_t) { concur::call_once(at.once, [] { concur::this_fiber::sleep_for(1h); }); }},
    {"wait_group", [](dead_ends& at, std::size_t) { at.g.wait(); }},
    {"resource_pool", [](dead_ends& at, std::size_t) { static_cast<void>(at.pool.acquire()); }},
    {"shared_future", [](dead_ends& at, std::size_t) { at.result.wait(); }},
    {"sleep", [](dead_ends&, std::size_t) { concur::this_fiber::sleep_for(1h); }},
    {"sleep, in a scope with a deadline",
     [](dead_ends&, std::size_t) { concur::fail_after(2h, [] { concur::this_fiber::sleep_for(1h); }); }},
    {"join of a nursery with one child",
     [](dead_ends&, std::size_t) {
       concur::with_nursery([](concur::nursery& n) { n.go([] { concur::this_fiber::sleep_for(1h); }); });
     },
     2},
    {"socket, read",
     [](dead_ends& at, std::size_t number) {
       char byte = 0;
       concur::io::read(at.sockets[number % dead_ends::pairs][1], &byte, 1);
     }},
    {"socket, write",
     [](dead_ends& at, std::size_t number) {
       const char byte = 0;
       concur::io::write(at.sockets[number % dead_ends::pairs][1], &byte, 1);
     }},
    {"accept", [](dead_ends& at, std::size_t) { at.listener.accept(); }},
};

// Parks n fibers, and cancels them all.
void cancel_crowd(const operation& how, std::size_t n) {
  dead_ends at;
  concur::runtime rt(with_workers(2));
  rt.block_on([] {});
  std::atomic<std::size_t> ended{0};
  std::atomic<std::size_t> returned{0};
  std::atomic<bool> is_filled{false};
  concur::event start;
  double walk_seconds = 0;
  double cancel_seconds = 0;
  const std::size_t resident_before = kilobytes_in("/proc/self/status", "VmRSS");
  const auto begin = steady_clock::now();
  concur::future<void> host = rt.go([&] {
    concur::nursery crowd;
    for (std::size_t i = 0; i < n / how.fibers_each; ++i) {
      crowd.go([&, i] {
        struct end_mark {
          std::atomic<std::size_t>& count;
          ~end_mark() { ++count; }
        } const at_end{ended};
        how.park(at, i);
        ++returned;
      });
      if (i % 1024 == 1023) concur::this_fiber::yield();
    }
    is_filled = true;
    start.wait();
    const auto cancel_begin = steady_clock::now();
    crowd.cancel();
    walk_seconds = seconds_since(cancel_begin);
    crowd.join();
    cancel_seconds = seconds_since(cancel_begin);
  });
  // Parked they all are when nothing runs any more.
  while (!is_filled || rt.snapshot().idle_workers != rt.snapshot().workers) std::this_thread::yield();
  const double park_seconds = seconds_since(begin);
  CHECK(ended == 0);
  CHECK(rt.snapshot().fibers_live >= n);
  const std::size_t resident = kilobytes_in("/proc/self/status", "VmRSS") - resident_before;
  start.set();
  host.get();
  rt.wait_for_all();
  CHECK(ended == n / how.fibers_each);
  CHECK(returned == 0);
  CHECK(rt.snapshot().timers == 0);
  char line[160];
  std::snprintf(line, sizeof line,
                "%-36s %8zu parked in %6.3f s, %5zu bytes each; cancelled in %6.3f s (walks %6.3f s)", how.name, n,
                park_seconds, resident * 1024 / n, cancel_seconds, walk_seconds);
  MESSAGE(line);
  at.expect_untouched();
}

}  // namespace

TEST_CASE("a crowd in each kind of operation is cancelled at once, and leaves everything as it was") {
  for (const operation& how : operations) {
    const nothing_left_over guard;
    CAPTURE(std::string(how.name));
    cancel_crowd(how, how_many());
  }
}
