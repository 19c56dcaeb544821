// test_teardown.cpp - however a runtime ends, it ends, and leaves nothing behind.
//
// The ways to end are many: the root fails, a child fails, somebody drops what others wait for, the runtime object goes
// while fibers are parked in every kind of operation, while they are spawning more, while they unwind. Each is tried many
// times with one, two and four workers; `nothing_left_over` counts at the end. A hang is found by the runner's limit.
#include "support/tally.hpp"
#include "support/test.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

constexpr int repetitions = (CONCUR_TSAN != 0 || CONCUR_ASAN != 0 ? 5 : 40) * CONCUR_TEST_SCALE;

template <class Body>
void with_one_two_and_four(Body body) {
  for (const unsigned workers : {1u, 2u, 4u}) {
    for (int round = 0; round < repetitions; ++round) body(workers);
  }
}

struct failed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace

// --- failures ---

TEST_CASE("a root that fails ends the others and run() rethrows") {
  const nothing_left_over guard;
  with_one_two_and_four([](unsigned workers) {
    std::atomic<int> cancelled_count{0};
    CHECK(text_of<failed>([&] {
            concur::run(with_workers(workers), [&] {
              for (int i = 0; i < 10; ++i) {
                concur::go([&] {
                  try {
                    concur::this_fiber::sleep_for(std::chrono::hours(1));
                  } catch (const concur::cancelled&) {
                    cancelled_count.fetch_add(1);
                    throw;
                  }
                });
              }
              concur::this_fiber::yield();
              throw failed("the root");
            });
          }) == "the root");
    CHECK(cancelled_count.load() == 10);
  });
}

TEST_CASE("run() rethrows what a child threw and nobody took, and waits for the others") {
  const nothing_left_over guard;
  with_one_two_and_four([](unsigned workers) {
    std::atomic<int> ended{0};
    CHECK(text_of<failed>([&] {
            concur::run(with_workers(workers), [&] {
              for (int i = 0; i < 10; ++i) {
                concur::go([&ended, i] {
                  concur::this_fiber::yield();
                  ended.fetch_add(1);
                  if (i == 3) throw failed("child three");
                });
              }
            });
          }) == "child three");
    CHECK(ended.load() == 10);
  });
}

TEST_CASE("an exception that was taken is not thrown again by run()") {
  const nothing_left_over guard;
  with_one_two_and_four([](unsigned workers) {
    const int answer = concur::run(with_workers(workers), [] {
      concur::future<void> child = concur::go([] { throw failed("taken"); });
      return text_of<failed>([&] { child.get(); }) == "taken" ? 42 : 0;
    });
    CHECK(answer == 42);
  });
}

TEST_CASE("futures may be dropped before, while and after the fiber runs") {
  const nothing_left_over guard;
  with_one_two_and_four([](unsigned workers) {
    auto counted = std::make_shared<int>(0);
    concur::run(with_workers(workers), [&] {
      for (int i = 0; i < 30; ++i) {
        concur::future<std::shared_ptr<int>> child = concur::go([counted, i] {
          if (i % 3 == 1) concur::this_fiber::yield();
          return counted;
        });
        if (i % 3 == 2) concur::this_fiber::yield();
      }
    });
    CHECK(counted.use_count() == 1);
  });
}

// --- futures and runtimes ---

TEST_CASE("a future outlives its runtime") {
  const nothing_left_over guard;
  with_one_two_and_four([](unsigned workers) {
    concur::future<std::string> value;
    concur::future<void> error;
    concur::future<void> stopped;
    concur::future<int> dropped_later;
    {
      concur::runtime rt(with_workers(workers));
      value = rt.go([] { return std::string("a text that is too long for the small buffer"); });
      error = rt.go([] { throw failed("late"); });
      stopped = rt.go([] { concur::this_fiber::sleep_for(std::chrono::hours(1)); });
      dropped_later = rt.go([] { return 1; });
    }
    // The runtime cancels what has not begun, too.
    const std::string text =
        text_of<concur::cancelled>([&] { CHECK(value.get() == "a text that is too long for the small buffer"); });
    CHECK((text == "nothing was thrown" || text == concur::cancelled().what()));
    CHECK(text_of<failed>([&] { error.get(); }) == "late");
    CHECK(text_of<concur::cancelled>([&] { stopped.get(); }) == concur::cancelled().what());
    CHECK(dropped_later.valid());
  });
}

TEST_CASE("several runtimes live at once, wait for each other, and nest") {
  const nothing_left_over guard;
  with_one_two_and_four([](unsigned workers) {
    concur::runtime first(with_workers(workers));
    concur::runtime second(with_workers(1));
    concur::channel<int> ch;
    concur::future<int> sum = second.go([ch]() mutable {
      int total = 0;
      for (int value : ch) total += value;
      return total;
    });
    // A fiber of the first waits for one of the second, which waits for a fiber of the first.
    const int answer =
        first.block_on([&] { return second.go([&] { return first.go([] { return 7; }).get() + 1; }).get() + 1; });
    CHECK(answer == 9);
    first.block_on([&] {
      for (int i = 1; i <= 10; ++i) ch.send(i);
      ch.close();
    });
    CHECK(sum.get() == 55);
    const int nested = concur::run(with_workers(workers), [workers] {
      return concur::run(with_workers(workers), [] { return concur::go([] { return 5; }).get(); }) + 1;
    });
    CHECK(nested == 6);
  });
}

TEST_CASE("runtimes begin and end on several threads at once") {
  const nothing_left_over guard;
  tally held;
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 4; ++i) {
    threads.emplace_back([&held, i] {
      for (int round = 0; round < repetitions; ++round) {
        const int got =
            concur::run(with_workers(i % 3 + 1), [round] { return concur::go([round] { return round; }).get(); });
        CONCUR_EXPECT(held, got == round);
      }
    });
  }
  for (std::thread& one : threads) one.join();
  CHECK(held.report() == "");
}

// --- parked in each kind of operation ---

namespace {

// Everything a fiber can be parked in, and what must outlive the runtime. Each fiber counts how it comes home.
struct everywhere {
  concur::channel<int> empty;
  concur::channel<int> full{1};
  concur::mutex locked;
  concur::wait_group waiting;
  concur::tcp_listener listener = concur::tcp_listener::bind("127.0.0.1:0");
  int pair[2] = {-1, -1};
  std::atomic<int> started{0};
  std::atomic<int> cancelled_count{0};
  std::atomic<int> others{0};

  everywhere() {
    full.send(1);
    waiting.add(1);
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
  }
  ~everywhere() {
    concur::io::close(pair[0]);
    concur::io::close(pair[1]);
  }
  everywhere(const everywhere&) = delete;
  everywhere& operator=(const everywhere&) = delete;

  template <class Operation>
  void park(concur::runtime& rt, Operation operation) {
    static_cast<void>(rt.go([this, operation]() mutable {
      started.fetch_add(1);
      try {
        operation();
        others.fetch_add(1);
      } catch (const concur::cancelled&) {
        // Level-triggered: the next one is thrown as well.
        try {
          concur::this_fiber::sleep_for(std::chrono::hours(1));
          others.fetch_add(1);
        } catch (const concur::cancelled&) {
          cancelled_count.fetch_add(1);
          throw;
        }
      }
    }));
  }

  // One fiber of each kind. Returns how many.
  int park_all(concur::runtime& rt) {
    park(rt, [this] { empty.recv(); });
    park(rt, [this] { full.send(2); });
    park(rt, [this] {
      int value = 3;
      full.send_for(value, std::chrono::hours(1));
    });
    park(rt, [this] {
      int value = 0;
      empty.recv_for(value, std::chrono::hours(1));
    });
    park(rt, [] { concur::channel<int>(concur::nil).recv(); });
    park(rt, [this] { std::lock_guard<concur::mutex> hold(locked); });
    park(rt, [this] { waiting.wait(); });
    park(rt, [] { concur::this_fiber::sleep_for(std::chrono::hours(1)); });
    park(rt, [] { concur::this_fiber::sleep_for((std::chrono::nanoseconds::max)()); });
    park(rt, [&rt] { rt.go([] { concur::this_fiber::sleep_for(std::chrono::hours(1)); }).get(); });
    park(rt, [this] { listener.accept(); });
    park(rt, [this] { concur::io::accept(listener.fd(), nullptr, nullptr); });
    park(rt, [this] {
      char byte = 0;
      concur::io::read(pair[0], &byte, 1);
    });
    park(rt, [this] {
      std::vector<char> much(1 << 22);
      for (;;) concur::io::write(pair[0], much.data(), much.size());
    });
    park(rt, [] { concur::io::sleep(3600); });
    park(rt, [] {
      for (;;) concur::this_fiber::checkpoint();
    });
    return 16;
  }
};

}  // namespace

TEST_CASE("a runtime that goes brings home fibers parked in every kind of operation") {
  const nothing_left_over guard;
  for (const bool waits_first : {true, false}) {
    with_one_two_and_four([waits_first](unsigned workers) {
      everywhere all;
      std::unique_lock<concur::mutex> hold(all.locked);
      int count = 0;
      {
        concur::runtime rt(with_workers(workers));
        count = all.park_all(rt);
        while (waits_first && all.started.load() != count) std::this_thread::yield();
      }
      // One that had not begun is not begun any more, or finds the cancellation where it would first park.
      CHECK(all.cancelled_count.load() == all.started.load());
      CHECK(all.others.load() == 0);
      if (waits_first) CHECK(all.started.load() == count);
    });
  }
}

TEST_CASE("a connection under way is given up") {
  const nothing_left_over guard;
  with_one_two_and_four([](unsigned workers) {
    // A listener whose queue is full: the kernel drops the next client's packets, and it stays in connect.
    concur::tcp_listener listener = concur::tcp_listener::bind("127.0.0.1:0", 1);
    concur::runtime rt(with_workers(workers));
    std::atomic<int> connected{0};
    for (int i = 0; i < 4; ++i) {
      static_cast<void>(rt.go([&] {
        concur::tcp_stream stream = concur::tcp_stream::connect(listener.local_endpoint());
        connected.fetch_add(1);
        char byte = 0;
        stream.read_some(&byte, 1);
      }));
    }
    while (connected.load() < 2) std::this_thread::yield();
  });
}

// --- destructors that park while the runtime goes ---

TEST_CASE("destructors that park while a cancellation unwinds finish their work") {
  const nothing_left_over guard;
  struct says_goodbye {
    concur::channel<int>& out;
    std::atomic<int>& done;
    ~says_goodbye() {
      concur::this_fiber::sleep_for(std::chrono::microseconds(100));
      out.send(1);
      concur::this_fiber::yield();
      done.fetch_add(1);
    }
  };
  with_one_two_and_four([](unsigned workers) {
    constexpr int count = 20;
    concur::channel<int> goodbyes(count);
    std::atomic<int> begun{0};
    std::atomic<int> done{0};
    {
      concur::runtime rt(with_workers(workers));
      for (int i = 0; i < count; ++i) {
        static_cast<void>(rt.go([&] {
          says_goodbye outer{goodbyes, done};
          begun.fetch_add(1);
          concur::this_fiber::sleep_for(std::chrono::hours(1));
        }));
      }
      while (begun.load() != count) std::this_thread::yield();
    }
    CHECK(done.load() == count);
    CHECK(goodbyes.size() == count);
  });
}

TEST_CASE("a fiber that swallows its cancellation is cancelled again, and the runtime ends") {
  const nothing_left_over guard;
  with_one_two_and_four([](unsigned workers) {
    std::atomic<int> swallowed{0};
    {
      concur::runtime rt(with_workers(workers));
      static_cast<void>(rt.go([&] {
        for (int i = 0; i < 5; ++i) {
          try {
            concur::this_fiber::sleep_for(std::chrono::hours(1));
          } catch (...) {
            swallowed.fetch_add(1);
          }
        }
      }));
    }
    CHECK((swallowed.load() == 5 || swallowed.load() == 0));
  });
}

// --- a cancellation that comes between the first look and the parking ---

namespace {

// A value whose move takes as long as the test wants; channels move under their lock.
struct slow_to_move {
  slow_to_move() = default;
  slow_to_move(slow_to_move&& other) noexcept : gate(other.gate) {
    if (gate == nullptr) return;
    gate->store(1);
    while (gate->load() == 1) std::this_thread::yield();
  }
  slow_to_move& operator=(slow_to_move&&) = delete;
  std::atomic<int>* gate = nullptr;  // 1: in the move, 2: it may end
};

}  // namespace

// The fiber has looked for a cancellation, found none, and waits for the channel's lock. Then everything is cancelled: the
// flag is set, and all parked fibers are woken, of which it is none yet. It must find the flag as it parks.
TEST_CASE("a fiber that is about to park when everything is cancelled does not stay") {
  const nothing_left_over guard;
  for (int round = 0; round < 5; ++round) {
    concur::runtime rt(with_workers(2));
    concur::channel<slow_to_move> ch(1);
    std::atomic<int> gate{0};
    std::atomic<bool> is_sending{false};
    concur::future<void> holder = rt.go([&] {
      slow_to_move first;
      first.gate = &gate;
      ch.send(std::move(first));
    });
    while (gate.load() != 1) std::this_thread::yield();
    concur::future<void> second = rt.go([&] {
      slow_to_move value;
      is_sending.store(true);
      ch.send(std::move(value));  // the channel is full
    });
    while (!is_sending.load()) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(10));  // too short: the fiber finds the flag at once, no harm
    rt.cancel_all();
    gate.store(2);
    REQUIRE(second.wait_for(std::chrono::seconds(10)));
    CHECK(text_of<concur::cancelled>([&] { second.get(); }) == concur::cancelled().what());
    holder.get();
  }
}

// --- storms ---

namespace {

void spawn_more(std::atomic<long>& alive, int depth) {
  struct count_out {
    std::atomic<long>& count;
    ~count_out() { count.fetch_sub(1); }
  };
  alive.fetch_add(1);
  const count_out out{alive};
  while (!concur::this_fiber::cancelled()) {
    if (depth < 4 && alive.load() < 2000) concur::go([&alive, depth] { spawn_more(alive, depth + 1); });
    concur::this_fiber::checkpoint();
    concur::this_fiber::yield();
  }
  // And a few more after the end was announced.
  if (depth < 6) concur::go([&alive, depth] { spawn_more(alive, depth + 1); });
}

}  // namespace

TEST_CASE("a runtime that goes in the middle of a storm of spawns ends") {
  const nothing_left_over guard;
  with_one_two_and_four([](unsigned workers) {
    std::atomic<long> alive{0};
    {
      concur::runtime rt(with_workers(workers));
      for (int i = 0; i < 4; ++i) static_cast<void>(rt.go([&] { spawn_more(alive, 0); }));
      while (alive.load() < 100) std::this_thread::yield();
    }
    CHECK(alive.load() == 0);
  });
}

TEST_CASE("plain threads spawn until the last moment") {
  const nothing_left_over guard;
  with_one_two_and_four([](unsigned workers) {
    std::atomic<int> ran{0};
    int started = 0;
    {
      concur::runtime rt(with_workers(workers));
      std::thread other([&] {
        for (int i = 0; i < 100; ++i) static_cast<void>(rt.go([&] { ran.fetch_add(1); }));
      });
      for (int i = 0; i < 100; ++i) static_cast<void>(rt.go([&] { ran.fetch_add(1); }));
      other.join();
      started = 200;
    }
    CHECK(ran.load() == started);
  });
}

TEST_CASE("run() waits for fibers that spawn fibers") {
  const nothing_left_over guard;
  with_one_two_and_four([](unsigned workers) {
    std::atomic<int> leaves{0};
    struct tree {
      static void grow(std::atomic<int>& count, int depth) {
        if (depth == 0) {
          count.fetch_add(1);
          return;
        }
        for (int i = 0; i < 2; ++i) concur::go([&count, depth] { grow(count, depth - 1); });
      }
    };
    concur::run(with_workers(workers), [&] { tree::grow(leaves, 8); });
    CHECK(leaves.load() == 256);
  });
}

TEST_CASE("an empty runtime comes and goes") {
  const nothing_left_over guard;
  with_one_two_and_four([](unsigned workers) { concur::runtime rt(with_workers(workers)); });
}
