// explore_parallel.cpp - parallel_invoke under every kind of schedule (support/scenario.hpp), and the deque of offered jobs
// under every schedule of its worker and a thief, on every memory that C++ permits.
//
// What must hold: each function is called once, has ended before its fork returns and is seen to have; functions that wait
// for each other come to an end; failures and cancellations arrive.
#include <array>
#include <memory>

#include "support/scenario.hpp"

using namespace concur_test;
using concur::explore_expect;
using concur::detail::job;
using concur::detail::job_deque;
using concur::detail::note_read;
using concur::detail::note_write;
using namespace std::chrono_literals;

namespace {

struct oops {
  int number;
};

struct numbered : job {
  numbered() noexcept : job(nullptr) {}
  int offered = 0;  // written before it is pushed
  int taken = 0;    // by whoever takes it
};

void take(numbered& one) {
  note_read(&one.offered, "what was written before a job was offered");
  explore_expect(one.offered == 1, "a job was taken that is not offered");
  note_write(&one.taken, "a job is taken");
  ++one.taken;
}

void offer(job_deque& jobs, numbered& one, std::uint32_t& index) {
  one.offered = 1;
  note_write(&one.offered, "before a job is offered");
  explore_expect(jobs.push(one, index), "there was no room");
}

// Whoever pushed it: true, it is back, else a thief has it.
void take_back(job_deque& jobs, numbered& one, std::uint32_t index, bool is_here = true) {
  if (jobs.take_back(index) || jobs.take_back_locked(index, is_here)) take(one);
}

void steal_one(job_deque& jobs) {
  jobs.steal([](job& found) { take(static_cast<numbered&>(found)); });
}

}  // namespace

TEST_CASE("worker and thief: each job is taken once, and as it was offered") {
  const nothing_left_over guard;
  hold([] {
    job_deque jobs(0xFFFFFFFFu);
    std::array<numbered, 3> all;
    concur::explored_thread worker([&] {
      std::uint32_t first = 0;
      std::uint32_t second = 0;
      offer(jobs, all[0], first);
      offer(jobs, all[1], second);
      take_back(jobs, all[1], second);
      offer(jobs, all[2], second);
      take_back(jobs, all[2], second);
      take_back(jobs, all[0], first);
    });
    concur::explored_thread thief([&] {
      steal_one(jobs);
      steal_one(jobs);
    });
    worker.join();
    thief.join();
    for (const numbered& one : all) explore_expect(one.taken == 1, "a job was lost, or taken twice");
    explore_expect(jobs.count() == 0, "the deque is not empty");
  });
}

TEST_CASE("worker and thief: the last job is the worker's or the thief's") {
  const nothing_left_over guard;
  hold([] {
    job_deque jobs;
    std::array<numbered, 2> all;
    concur::explored_thread worker([&] {
      std::uint32_t index = 0;
      for (numbered& one : all) {
        offer(jobs, one, index);
        take_back(jobs, one, index);
      }
    });
    concur::explored_thread thief([&] { steal_one(jobs); });
    concur::explored_thread other([&] { steal_one(jobs); });
    worker.join();
    thief.join();
    other.join();
    for (const numbered& one : all) explore_expect(one.taken == 1, "a job was lost, or taken twice");
  });
}

TEST_CASE("worker and thief: a slot is used anew when the thief has read it") {
  const nothing_left_over guard;
  hold([] {
    job_deque jobs;
    std::array<numbered, 6> all;
    std::array<std::uint32_t, 6> indices{};
    for (std::size_t i = 0; i < 3; ++i) offer(jobs, all[i], indices[i]);
    concur::explored_thread thief([&] { steal_one(jobs); });
    std::size_t count = 3;
    for (; count < all.size(); ++count) {
      all[count].offered = 1;
      note_write(&all[count].offered, "before a job is offered");
      if (!jobs.push(all[count], indices[count])) break;
    }
    for (std::size_t i = count; i-- > 0;) take_back(jobs, all[i], indices[i]);
    thief.join();
    for (std::size_t i = 0; i < count; ++i) explore_expect(all[i].taken == 1, "a job was lost, or taken twice");
  });
}

TEST_CASE("worker and thief, and a fiber that takes back from elsewhere") {
  const nothing_left_over guard;
  hold([] {
    job_deque jobs(0xFFFFFFFEu);
    std::array<numbered, 3> all;
    std::array<std::uint32_t, 3> indices{};
    for (std::size_t i = 0; i < 3; ++i) offer(jobs, all[i], indices[i]);
    concur::explored_thread thief([&] {
      steal_one(jobs);
      steal_one(jobs);
    });
    concur::explored_thread elsewhere([&] {
      if (jobs.take_back_locked(indices[1], false)) take(all[1]);
    });
    take_back(jobs, all[2], indices[2]);
    take_back(jobs, all[0], indices[0]);
    thief.join();
    elsewhere.join();
    for (const numbered& one : all) explore_expect(one.taken == 1, "a job was lost, or taken twice");
  });
}

TEST_CASE("the end of a fork sees what each function has written") {
  const nothing_left_over guard;
  hold([] {
    std::array<int, 3> data{};
    for (int& one : data) note_write(&one, "what a function writes");
    const auto writes = [&](std::size_t i) {
      return [&data, i] {
        note_write(&data[i], "a function's");
        ++data[i];
        concur::this_fiber::yield();
      };
    };
    concur::parallel_invoke(writes(0), writes(1), writes(2));
    for (int& one : data) {
      note_read(&one, "what a function wrote");
      explore_expect(one == 1, "a function was not called once");
    }
  });
}

TEST_CASE("forks of several fibers overtake each other on their workers") {
  const nothing_left_over guard;
  hold([] {
    int calls = 0;
    concur::with_nursery([&](concur::nursery& n) {
      for (int i = 0; i < 3; ++i) {
        n.go([&] {
          int mine = 0;
          concur::parallel_invoke([&] { concur::this_fiber::yield(); },
                                  [&] {
                                    concur::this_fiber::yield();
                                    ++mine;
                                  });
          explore_expect(mine == 1, "a function was not called once");
          ++calls;
        });
      }
    });
    explore_expect(calls == 3, "a fiber got lost");
  });
}

TEST_CASE("a fiber that goes on elsewhere inside a fork gets its job back, while another forks on its former worker") {
  const nothing_left_over guard;
  hold(
      [] {
        concur::with_nursery([&](concur::nursery& n) {
          for (int i = 0; i < 2; ++i) {
            n.go([] {
              std::array<int, 3> calls{};
              concur::parallel_invoke(
                  [&] {
                    concur::this_fiber::yield();
                    concur::parallel_invoke([&] { concur::this_fiber::yield(); }, [&] { ++calls[0]; });
                    concur::this_fiber::yield();
                    ++calls[1];
                  },
                  [&] { ++calls[2]; });
              explore_expect(calls[0] == 1 && calls[1] == 1 && calls[2] == 1, "a function was not called once");
            });
          }
        });
      },
      {3});
}

TEST_CASE("functions that wait for each other come to an end") {
  const nothing_left_over guard;
  for (const unsigned workers : {1u, 2u}) {
    hold(
        [] {
          concur::channel<int> there;
          concur::channel<int> back;
          int got = 0;
          concur::parallel_invoke(
              [&] {
                there.send(1);
                got = *back.recv();
              },
              [&] { back.send(*there.recv() + 1); });
          explore_expect(got == 2, "the answer is wrong");
        },
        {workers});
  }
}

TEST_CASE("a cancellation reaches the functions, and their fork ends when they have") {
  const nothing_left_over guard;
  hold([] {
    int begun = 0;
    int cut = 0;
    const auto sleeps = [&] {
      ++begun;
      cut += sleeps_until_cancelled() ? 1 : 0;
    };
    concur::cancel_scope scope(concur::deferred);
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        scope.run([&] { concur::parallel_invoke(sleeps, sleeps); });
        explore_expect(begun == 2 && cut == 2, "a function was not cancelled, or is not over");
      });
      scope.cancel();
    });
  });
}

TEST_CASE("a failure comes out when every function has ended") {
  const nothing_left_over guard;
  hold([] {
    int ended = 0;
    int number = 0;
    try {
      concur::parallel_invoke(
          [&] {
            concur::this_fiber::yield();
            ++ended;
            throw oops{1};
          },
          [&] {
            concur::this_fiber::yield();
            ++ended;
            throw oops{2};
          },
          [&] { ++ended; });
    } catch (const oops& error) {
      number = error.number;
    }
    explore_expect(number == 1 && ended == 3, "the first failure did not come out of the end");
  });
}
