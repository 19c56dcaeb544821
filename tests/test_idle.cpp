// test_idle.cpp - a program that waits does nothing: no wake-up, no processor time.
//
// Ten thousand fibers are parked, on a channel, a mutex, a wait group, a future and on timers that are far away, and one
// waits for a socket that stays silent. Then every thread of the process is looked at twice, some seconds apart: how
// often it gave up the processor, and how much of it it used. Both must not have changed, to the last digit.
#include "support/tally.hpp"
#include "support/test.hpp"

#include <dirent.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr std::chrono::seconds silence{CONCUR_TEST_SCALE > 1 ? 10 : 3};

struct activity {
  unsigned long long switches = 0;  // voluntary: a wake-up is always followed by one
  unsigned long long ticks = 0;     // user and system time
};

// Of one thread; zeros when it is gone.
activity activity_of(const std::string& task) {
  activity found;
  if (std::FILE* file = std::fopen((task + "/status").c_str(), "re")) {
    char line[256];
    while (std::fgets(line, sizeof line, file) != nullptr) {
      static_cast<void>(std::sscanf(line, "voluntary_ctxt_switches: %llu", &found.switches));
    }
    std::fclose(file);
  }
  if (std::FILE* file = std::fopen((task + "/stat").c_str(), "re")) {
    char text[1024] = "";
    static_cast<void>(!std::fread(text, 1, sizeof text - 1, file));
    std::fclose(file);
    // Behind the name, which may hold anything but a closing bracket followed by more brackets.
    const char* rest = std::strrchr(text, ')');
    unsigned long long user = 0;
    unsigned long long system = 0;
    if (rest != nullptr)
      static_cast<void>(
          std::sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system));
    found.ticks = user + system;
  }
  return found;
}

// Of all threads but the one that asks.
activity activity_of_others() {
  activity sum;
  const std::string own = std::to_string(::gettid());
  DIR* folder = ::opendir("/proc/self/task");
  if (folder == nullptr) return sum;
  while (const dirent* entry = ::readdir(folder)) {
    if (entry->d_name[0] == '.' || own == entry->d_name) continue;
    const activity one = activity_of(std::string("/proc/self/task/") + entry->d_name);
    sum.switches += one.switches;
    sum.ticks += one.ticks;
  }
  ::closedir(folder);
  return sum;
}

// Several looks in a row: one may fall between a wake-up and the woken worker's first step.
bool all_idle(const concur::runtime& rt) {
  for (int look = 0; look < 4; ++look) {
    const concur::stats now = rt.snapshot();
    if (now.idle_workers != now.workers) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

// Looks at a runtime in which everything waits: all workers idle, and no thread stirs.
void must_be_silent(concur::runtime& rt) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!all_idle(rt) && std::chrono::steady_clock::now() < limit)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  REQUIRE(all_idle(rt));
#if CONCUR_TSAN || CONCUR_ASAN
  MESSAGE("left out: whether no thread stirs; the sanitizer has threads of its own that do");
  return;
#endif
  // The monitor lies down one period after the last worker did.
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const std::size_t sleeps_before = rt.snapshot().sleeps;
  const activity before = activity_of_others();
  std::this_thread::sleep_for(silence);
  const activity after = activity_of_others();
  CHECK(before.switches != 0);  // it was read
  CHECK(after.switches == before.switches);
  CHECK(after.ticks == before.ticks);
  CHECK(rt.snapshot().sleeps == sleeps_before);
}

void park_ten_thousand(unsigned workers) {
  constexpr int each = 2500;
  concur::channel<int> never_sent;
  concur::channel<int> full(1);
  full.send(0);
  concur::mutex held;
  concur::wait_group waiting;
  waiting.add(1);
  concur::tcp_listener listener = concur::tcp_listener::bind("127.0.0.1:0");
  concur::runtime rt(with_workers(workers));  // ends first: its fibers refer to all of the above
  concur::channel<void> is_held;
  concur::future<void> holder = rt.go([&held, is_held]() mutable {
    held.lock();
    is_held.send();
    concur::this_fiber::sleep_for(std::chrono::hours(1));
  });
  is_held.recv();  // nobody else may get the mutex first: that fiber would end
  for (int i = 0; i < each; ++i) {
    static_cast<void>(rt.go([never_sent]() mutable { never_sent.recv(); }));
    static_cast<void>(rt.go([&] { waiting.wait(); }));
    static_cast<void>(rt.go([] { concur::this_fiber::sleep_for(std::chrono::hours(24)); }));
    static_cast<void>(rt.go([i, full, &held]() mutable {
      if (i % 2 == 0)
        full.send(1);
      else
        std::lock_guard<concur::mutex> wait(held);
    }));
  }
  static_cast<void>(rt.go([&] { listener.accept(); }));
  static_cast<void>(rt.go([&] { holder.wait(); }));
  must_be_silent(rt);
  CHECK(rt.snapshot().fibers_live == 4 * each + 3);
  CHECK(rt.snapshot().descriptors == 1);
}

}  // namespace

TEST_CASE("ten thousand parked fibers and an open socket make no wake-up and take no time") {
  const nothing_left_over guard;
  for (const unsigned workers : {1u, 2u, 4u}) park_ten_thousand(workers);
}

TEST_CASE("a runtime without a fiber is silent") {
  const nothing_left_over guard;
  concur::runtime rt(with_workers(4));
  rt.block_on([] {
    for (int i = 0; i < 1000; ++i) concur::go([] { concur::this_fiber::yield(); });
  });
  must_be_silent(rt);
}

TEST_CASE("deadlines that were called off wake nobody") {
  const nothing_left_over guard;
  concur::runtime rt(with_workers(2));
  concur::channel<int> ch;
  concur::channel<int> last;
  std::vector<concur::future<void>> all;
  for (int i = 0; i < 200; ++i) {
    all.push_back(rt.go([ch, last]() mutable {
      int value = 0;
      while (ch.recv_for(value, std::chrono::seconds(1)) == concur::status::ok && value != 0) {
      }
      last.recv();  // without a limit
    }));
  }
  rt.block_on([&] {
    for (int i = 0; i < 20000; ++i) ch.send(1);
    for (int i = 0; i < 200; ++i) ch.send(0);
  });
  must_be_silent(rt);
  CHECK(rt.snapshot().timers == 0);  // a fiber calls its timer off when it goes on, so not before all have
  last.close();
  for (concur::future<void>& one : all) one.get();
}
