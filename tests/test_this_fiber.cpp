// test_this_fiber.cpp - what a fiber may ask and do about itself, and the same on a plain thread.
#include "support/companion.hpp"

#include <atomic>
#include <string>
#include <thread>
#include <vector>

using namespace concur::this_fiber;
using namespace std::chrono_literals;

TEST_CASE("a plain thread has no id and no name, and may still yield, sleep and pass checkpoints") {
  const nothing_left_over guard;
  CHECK_FALSE(get_id());
  CHECK(get_id() == concur::fiber_id());
  CHECK(get_id().value() == 0);
  name("not kept");
  CHECK(name().empty());
  CHECK_FALSE(concur::this_fiber::cancelled());
  checkpoint();
  concur::this_fiber::yield();
  const auto begin = std::chrono::steady_clock::now();
  sleep_for(2ms);
  CHECK(std::chrono::steady_clock::now() - begin >= 2ms);
}

TEST_CASE("ids are a fiber's own, and stay") {
  const nothing_left_over guard;
  concur::run(with_workers(2), [] {
    const concur::fiber_id mine = get_id();
    CHECK(mine);
    const concur::fiber_id other = concur::go([] {
                                     const concur::fiber_id before = get_id();
                                     concur::this_fiber::yield();
                                     sleep_for(1ms);
                                     CHECK(before == get_id());
                                     return before;
                                   }).get();
    CHECK(other != mine);
    CHECK((other < mine) != (mine < other));
    CHECK(get_id() == mine);
  });
}

TEST_CASE("names: kept to 23 bytes, replaced, not inherited") {
  const nothing_left_over guard;
  concur::run(with_workers(1), [] {
    CHECK(name().empty());
    name("root");
    CHECK(name() == "root");
    name("a name that is longer than what is kept");
    CHECK(name() == "a name that is longer t");
    CHECK(name().size() == 23);
    name("");
    CHECK(name().empty());
    name("root");
    concur::go([] { CHECK(name().empty()); }).get();
    // The block of a named fiber, used again, has no name.
    concur::go([] { name("first"); }).get();
    for (int i = 0; i < 200; ++i) concur::go([] { CHECK(name().empty()); }).get();
    CHECK(name() == "root");
  });
}

TEST_CASE("yield lets every other ready fiber of the worker run first") {
  const nothing_left_over guard;
  concur::run(with_workers(1), [] {
    std::vector<int> order;
    for (int i = 0; i < 3; ++i) {
      concur::go([&order, i] {
        for (int round = 0; round < 3; ++round) {
          order.push_back(10 * round + i);
          concur::this_fiber::yield();
        }
      });
    }
    concur::this_fiber::yield();
    CHECK(order == std::vector<int>{0, 1, 2});
    concur::this_fiber::yield();
    CHECK(order == std::vector<int>{0, 1, 2, 10, 11, 12});
    concur::this_fiber::yield();
    CHECK(order == std::vector<int>{0, 1, 2, 10, 11, 12, 20, 21, 22});
  });
}

TEST_CASE("checkpoint lets others run when the slice is used up, and a fiber that never has to wait does so too") {
  const nothing_left_over guard;
  concur::run(with_workers(1), [] {
    std::atomic<bool> has_run{false};
    concur::go([&] { has_run = true; });
    int rounds = 0;
    while (!has_run && rounds < 10000) {
      checkpoint();
      ++rounds;
    }
    CHECK(has_run);
    has_run = false;
    concur::go([&] { has_run = true; });
    concur::channel<int> ch(1);  // always ready: no operation of this loop ever parks
    for (rounds = 0; !has_run && rounds < 10000; ++rounds) {
      ch.send(1);
      ch.recv();
    }
    CHECK(has_run);
  });
}

TEST_CASE("cancelled is told, and thrown at every checkpoint until the fiber ends") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U}) {
    int thrown = 0;
    bool was_told = false;
    bool could_clean_up = false;
    {
      concur::runtime rt(with_workers(workers));
      std::atomic<bool> has_begun{false};
      struct cleaner {
        bool& done;
        ~cleaner() {  // runs for unwinding: here a wait is let through
          concur::this_fiber::sleep_for(std::chrono::milliseconds(1));
          done = true;
        }
      };
      rt.go([&] {
        CHECK_FALSE(concur::this_fiber::cancelled());
        has_begun = true;
        for (int i = 0; i < 3; ++i) {
          try {
            if (i == 0)
              sleep_for(1h);
            else
              checkpoint();
          } catch (const concur::cancelled&) {
            ++thrown;
          }
        }
        was_told = concur::this_fiber::cancelled();
        const cleaner late{could_clean_up};
        sleep_for(1h);
      });
      while (!has_begun) std::this_thread::yield();
    }
    CHECK(thrown == 3);
    CHECK(was_told);
    CHECK(could_clean_up);
  }
}
