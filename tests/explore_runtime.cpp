// tests/explore_runtime.cpp - the runtime itself under every kind of schedule (support/scenario.hpp).
//
// What must hold: each fiber that became ready runs, once, wherever it was queued; no worker sleeps beside work or beyond a
// deadline; a fiber takes with it what is its own when it changes threads; and a runtime ends when its last fiber has, and
// not under a thread that is still announcing one. That the workers do not all sleep beside a ready fiber is looked at
// whenever no thread can run, without being asked for.
#include "support/scenario.hpp"

#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

using namespace concur_test;
using namespace std::chrono_literals;
using concur::explore_expect;
namespace detail = concur::detail;

namespace {

concur::options with(unsigned workers) {
  concur::options wanted;
  wanted.workers = workers;
  return wanted;
}

// One step of waiting for another thread, without letting go of the worker.
void compute() {
  unsigned round = 0;
  detail::spin_wait(round);
}

}  // namespace

// --- each fiber runs, once ---

TEST_CASE("a storm of fibers over a ring of sixteen: each runs once") {
  const nothing_left_over guard;
  scenario_options wanted;
  wanted.schedules /= 2;
  hold(
      [] {
        constexpr int count = 40;
        int ran[count] = {};
        for (int i = 0; i < count; ++i) concur::go([&ran, i] { ++ran[i]; });
        concur::with_nursery([&](concur::nursery& n) {
          for (int i = 0; i < 4; ++i) n.go([] { concur::this_fiber::yield(); });
        });
        for (bool are_all = false; !are_all;) {
          are_all = true;
          for (const int times : ran) are_all = are_all && times != 0;
          if (!are_all) concur::this_fiber::yield();
        }
        for (const int times : ran) explore_expect(times == 1, "a fiber ran twice");
      },
      wanted);
}

TEST_CASE("fibers that spawn fibers on three workers") {
  const nothing_left_over guard;
  scenario_options wanted;
  wanted.workers = 3;
  wanted.schedules /= 2;
  hold(
      [] {
        int ran = 0;
        concur::with_nursery([&](concur::nursery& n) {
          for (int i = 0; i < 3; ++i) {
            n.go([&] {
              for (int k = 0; k < 7; ++k) n.go([&] { ++ran; });
              concur::this_fiber::yield();
            });
          }
        });
        explore_expect(ran == 21, "a fiber did not run, or ran twice");
      },
      wanted);
}

TEST_CASE("a fiber that only lets others run, beside one that must") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U}) {
    scenario_options wanted;
    wanted.workers = workers;
    wanted.schedules /= 2;
    hold(
        [] {
          bool is_done = false;
          concur::future<void> waits = concur::go([&] {
            while (!is_done) concur::this_fiber::yield();
          });
          concur::future<void> acts = concur::go([&] { is_done = true; });
          acts.get();
          waits.get();
        },
        wanted);
  }
}

TEST_CASE("two that wake each other do not keep out a third") {
  const nothing_left_over guard;
  scenario_options wanted;
  wanted.workers = 1;
  hold(
      [] {
        concur::channel<void> ping;
        concur::channel<void> pong;
        bool is_done = false;
        concur::with_nursery([&](concur::nursery& n) {
          n.go([&] {
            while (!is_done) {
              ping.send();
              static_cast<void>(pong.recv());
            }
            ping.close();
          });
          n.go([&] {
            while (ping.recv()) pong.send();
          });
          n.go([&] { is_done = true; });
        });
      },
      wanted);
}

TEST_CASE("fibers that take turns are taken by a thief between two of them") {
  const nothing_left_over guard;
  hold([] {
    int turns[4] = {};
    concur::with_nursery([&](concur::nursery& n) {
      for (int i = 0; i < 4; ++i) {
        n.go([&turns, i] {
          for (int k = 0; k < 3; ++k) {
            ++turns[i];
            concur::this_fiber::yield();
          }
        });
      }
    });
    for (const int count : turns) explore_expect(count == 3, "a turn was lost, or taken twice");
  });
}

// --- the owner of a queue against thieves; the fibers are blocks that never run ---

TEST_CASE("a ring and two thieves: each fiber goes to one of them") {
  const nothing_left_over guard;
  scenario_options wanted;
  wanted.workers = 0;
  hold(
      [] {
        constexpr std::uint32_t count = 6;
        detail::run_queue queue(0xFFFFFFFEU);
        std::unique_ptr<detail::fiber> blocks[count];
        for (auto& one : blocks) one = std::make_unique<detail::fiber>();
        int taken[count] = {};
        const auto note = [&](detail::fiber* f) {
          for (std::uint32_t i = 0; i < count; ++i) {
            if (blocks[i].get() == f) {
              detail::note_read(f, "a fiber's block");
              ++taken[i];
            }
          }
        };
        {
          const auto rob = [&] {
            for (int k = 0; k < 2; ++k) {
              detail::fiber* loot[detail::run_queue::batch];
              const std::uint32_t n = queue.steal(loot, k == 1);
              for (std::uint32_t i = 0; i < n; ++i) note(loot[i]);
            }
          };
          concur::explored_thread first(rob);
          concur::explored_thread second(rob);
          for (std::uint32_t i = 0; i < count; ++i) {
            detail::note_write(blocks[i].get(), "a fiber's block");
            detail::fiber* displaced = nullptr;
            if (i % 3 == 2)
              queue.push_recent(blocks[i].get(), displaced);
            else
              queue.push(blocks[i].get());
            if (i % 2 == 1) {
              if (detail::fiber* f = queue.pop()) note(f);
            }
          }
        }
        while (detail::fiber* f = queue.pop()) note(f);
        for (const int times : taken) explore_expect(times == 1, "a fiber was lost, or taken twice");
      },
      wanted);
}

// --- falling asleep and being woken ---

TEST_CASE("work from threads outside reaches workers that fall asleep") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U}) {
    scenario_options wanted;
    wanted.workers = 0;
    hold(
        [workers] {
          concur::runtime rt(with(workers));
          int done = 0;
          concur::explored_thread other([&] { rt.go([&] { ++done; }).get(); });
          rt.go([&] { ++done; }).get();
          other.join();
          explore_expect(rt.block_on([&] { return done; }) == 2, "a fiber did not run");
        },
        wanted);
  }
}

TEST_CASE("a thread outside wakes fibers one after the other") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> there;
    concur::channel<int> back;
    concur::explored_thread outside([&] {
      for (int i = 0; i < 2; ++i) {
        there.send(i);
        explore_expect(back.recv() == i, "another answer");
      }
    });
    for (int i = 0; i < 2; ++i) back.send(there.recv().value());
  });
}

TEST_CASE("a fiber that is bound to its worker is woken from another and from outside") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<void> first;
    concur::channel<void> second;
    concur::explored_thread outside([&] { second.send(); });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        const detail::pin_scope pin;
        const detail::worker* const here = detail::this_worker();
        static_cast<void>(first.recv());
        explore_expect(detail::this_worker() == here, "a bound fiber changed its worker");
        static_cast<void>(second.recv());
        explore_expect(detail::this_worker() == here, "a bound fiber changed its worker");
      });
      n.go([&] { first.send(); });
    });
  });
}

TEST_CASE("deadlines pass, whoever sleeps in the poller") {
  const nothing_left_over guard;
  hold([] {
    concur::with_nursery([](concur::nursery& n) {
      for (const auto d : {1ms, 2ms, 1ms}) {
        n.go([d] {
          concur::this_fiber::sleep_for(d);
          concur::this_fiber::sleep_for(1ms);
        });
      }
    });
  });
}

TEST_CASE("a deadline that is set from outside for a fiber that sleeps for long") {
  const nothing_left_over guard;
  hold([] {
    concur::cancel_scope limited(concur::deferred);
    concur::channel<void> is_inside(1);
    concur::explored_thread outside([&] {
      static_cast<void>(is_inside.recv());
      limited.deadline(std::chrono::steady_clock::now() + 1ms);
    });
    const auto began = detail::now_ns();
    limited.run([&] {
      is_inside.send();
      concur::this_fiber::sleep_for(24h);
    });
    explore_expect(detail::now_ns() - began < 3'600'000'000'000, "the deadline was not heard");
  });
}

TEST_CASE("a deadline against the wake-up that it waits for, again and again") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> ch;
    int sent = 0;
    int received = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        for (int k = 0; k < 3; ++k) {
          int value = 0;
          received += ch.recv_for(value, 70us) == concur::status::ok ? 1 : 0;
        }
      });
      n.go([&] {
        for (int k = 0; k < 3; ++k) {
          int value = 1;
          sent += ch.send_for(value, 70us) == concur::status::ok ? 1 : 0;
        }
      });
    });
    explore_expect(sent == received, "a wait ended twice");
  });
}

TEST_CASE("no sleep ends before its time") {
  const nothing_left_over guard;
  hold([] {
    concur::with_nursery([](concur::nursery& n) {
      for (const auto d : {std::chrono::nanoseconds(100us), std::chrono::nanoseconds(5ms)}) {
        n.go([d] {
          const auto began = detail::now_ns();
          concur::this_fiber::sleep_for(d);
          explore_expect(detail::now_ns() - began >= d.count(), "a sleep ended early");
        });
      }
    });
  });
}

// --- the monitor ---

TEST_CASE("what waits behind a fiber that does not let go is run by another worker") {
  const nothing_left_over guard;
  hold([] {
    detail::atomic<bool> is_done{false};
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { is_done.store(true); });
      while (!is_done.load()) compute();
    });
  });
}

TEST_CASE("a fiber that was just woken is taken from a worker that does not let go") {
  const nothing_left_over guard;
  hold([] {
    detail::atomic<bool> is_done{false};
    concur::channel<void> ch(1);
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        static_cast<void>(ch.recv());
        is_done.store(true);
      });
      concur::this_fiber::yield();
      ch.send();
      while (!is_done.load()) compute();
    });
  });
}

TEST_CASE("the monitor, which slept while everybody did, is up with the first worker") {
  const nothing_left_over guard;
  hold([] {
    detail::atomic<bool> is_done{false};
    concur::this_fiber::sleep_for(22ms);
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { is_done.store(true); });
      while (!is_done.load()) compute();
    });
  });
}

TEST_CASE("of two queues with one fiber each behind such fibers both are served") {
  const nothing_left_over guard;
  scenario_options wanted;
  wanted.workers = 3;
  wanted.schedules /= 2;
  hold(
      [] {
        detail::atomic<int> done{0};
        detail::atomic<int> begun{0};
        concur::with_nursery([&](concur::nursery& n) {
          for (int i = 0; i < 2; ++i) {
            n.go([&] {
              begun.fetch_add(1);
              while (begun.load() != 2) compute();
              n.go([&] { done.fetch_add(1); });
              while (done.load() != 2) compute();
            });
          }
        });
      },
      wanted);
}

TEST_CASE("a deadline passes though every worker computes") {
  const nothing_left_over guard;
  for (const unsigned workers : {2U, 3U}) {
    scenario_options wanted;
    wanted.workers = workers;
    wanted.schedules /= 2;
    hold(
        [workers] {
          detail::atomic<bool> is_over{false};
          concur::with_nursery([&](concur::nursery& n) {
            for (unsigned i = 1; i < workers; ++i) {
              n.go([&] {
                while (!is_over.load()) compute();
              });
            }
            concur::move_on_after(1ms, [&] {
              while (!concur::this_fiber::cancelled()) compute();
            });
            is_over.store(true);
          });
        },
        wanted);
  }
}

// --- what is a fiber's own ---

TEST_CASE("an exception that is being handled goes with its fiber") {
  const nothing_left_over guard;
  hold([] {
    concur::with_nursery([](concur::nursery& n) {
      for (int i = 1; i <= 3; ++i) {
        n.go([i] {
          try {
            throw i;
          } catch (int) {
            concur::this_fiber::sleep_for(1ms);
            try {
              throw;
            } catch (int mine) {
              explore_expect(mine == i, "another fiber's exception");
            }
          }
        });
      }
    });
  });
}

TEST_CASE("an error of a child comes to its nursery, whoever ran what") {
  const nothing_left_over guard;
  hold([] {
    std::string what;
    int ended = 0;
    try {
      concur::with_nursery([&](concur::nursery& n) {
        n.go([] {
          concur::this_fiber::yield();
          throw std::runtime_error("the first");
        });
        n.go([&] {
          struct at_end {
            int& count;
            ~at_end() { ++count; }
          } const counts{ended};
          concur::this_fiber::sleep_for(24h);
        });
      });
    } catch (const std::runtime_error& error) {
      what = error.what();
    }
    explore_expect(what == "the first" && ended == 1, "the error was lost, or a sibling was not cancelled");
  });
}

TEST_CASE("a fiber_local goes with its fiber, and ends with it") {
  const nothing_left_over guard;
  hold([] {
    int ended = 0;
    struct counted {
      int value = 0;
      int* ended = nullptr;
      ~counted() {
        if (ended != nullptr) ++*ended;
      }
    };
    {
      concur::fiber_local<counted> mine;
      concur::with_nursery([&](concur::nursery& n) {
        for (int i = 1; i <= 3; ++i) {
          n.go([&, i] {
            mine->value = i;
            mine->ended = &ended;
            concur::this_fiber::yield();
            explore_expect(mine->value == i, "another fiber's value");
          });
        }
      });
    }
    explore_expect(ended == 3, "a value was not destroyed, or twice");
  });
}

TEST_CASE("a cancellation that a fiber sees in passing ends at the scope that was cancelled") {
  const nothing_left_over guard;
  hold([] {
    concur::cancel_scope inner(concur::deferred);
    bool is_caught = false;
    concur::explored_thread outside([&] { inner.cancel(); });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        inner.run([] {
          for (;;) concur::this_fiber::checkpoint();
        });
        is_caught = inner.cancelled_caught();
      });
    });
    explore_expect(is_caught, "the cancellation went beyond its scope");
  });
}

// --- beginning and ending ---

TEST_CASE("a runtime ends while threads outside still wake its fibers") {
  const nothing_left_over guard;
  scenario_options wanted;
  wanted.workers = 0;
  hold(
      [] {
        concur::channel<int> ch;
        int received = 0;
        concur::explored_thread outside([&] {
          ch.send(1);
          ch.send(2);
        });
        concur::run(with(1), [&] {
          concur::go([&] { received += ch.recv().value(); });
          received += ch.recv().value();
        });
        outside.join();
        explore_expect(received == 3, "a value is lost");
      },
      wanted);
}

TEST_CASE("a runtime ends, and cancels fibers that are about to wait") {
  const nothing_left_over guard;
  scenario_options wanted;
  wanted.workers = 0;
  hold(
      [] {
        int ended = 0;
        concur::channel<void> never_sent;
        struct at_end {
          int& count;
          ~at_end() { ++count; }
        };
        {
          concur::runtime rt(with(2));
          for (int i = 0; i < 2; ++i) {
            rt.go([&] {
              const at_end counts{ended};
              static_cast<void>(never_sent.recv());
            });
          }
        }
        explore_expect(ended == 2, "a fiber was left where it waited");
      },
      wanted);
}

TEST_CASE("two runtimes that talk to each other, and end in any order") {
  const nothing_left_over guard;
  scenario_options wanted;
  wanted.workers = 0;
  hold(
      [] {
        concur::channel<int> there;
        concur::channel<int> back;
        concur::runtime first(with(1));
        concur::future<int> answer;
        {
          concur::runtime second(with(1));
          answer = first.go([&] {
            there.send(20);
            return back.recv().value();
          });
          second.block_on([&] { back.send(there.recv().value() + 1); });
        }
        explore_expect(answer.get() == 21, "another answer");
      },
      wanted);
}
