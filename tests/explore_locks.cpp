// explore_locks.cpp - the parts of src/atomic that lock and exchange, in every order that two or three threads can take, on a
// memory as weak as the language permits.
//
// The library's own code runs here, not a copy of it. Plain memory is announced, and two threads that touch it without an
// order between them fail the schedule; so each memory order that is weakened (tests/mutants.txt) is found.
#if !defined(CONCUR_EXPLORE)
#  define CONCUR_EXPLORE
#endif
#include "support/test.hpp"

#include <cstdint>
#include <optional>

using concur::cas_update;
using concur::explore_expect;
using concur::explored_thread;
using concur::fetch_max;

namespace {

// Every schedule with at most so many pre-emptions, on weak memory.
template <class Body>
void in_every_order(unsigned preemptions, Body body) {
  concur::explore_options options;
  options.workers = 0;
  options.schedules = 2'000'000;
  options.strategy = concur::exhaustive(preemptions);
  options.weak_memory = true;
  const concur::explore_report report = concur::try_explore(body, options);
  CAPTURE(report.what);
  CAPTURE(report.schedules);
  CHECK(report.ok);
  CHECK(report.is_complete);
}

// Memory that is not atomic.
class plain_number {
 public:
  plain_number() { concur::detail::note_birth(this); }
  int read() const {
    concur::detail::note_read(this, "the plain number");
    return value_;
  }
  void write(int value) {
    concur::detail::note_write(this, "the plain number");
    value_ = value;
  }
  void add(int more) { write(read() + more); }

 private:
  int value_ = 0;
};

template <class F, class G>
void two(F f, G g) {
  explored_thread other(g);
  f();
  other.join();
}

template <class F, class G, class H>
void three(F f, G g, H h) {
  explored_thread second(g);
  explored_thread third(h);
  f();
  second.join();
  third.join();
}

template <class Lock>
void add_one(Lock& lock, plain_number& count) {
  lock.lock();
  count.add(1);
  lock.unlock();
}

template <class Lock>
void try_to_add_one(Lock& lock, plain_number& count, plain_number& added) {
  if (!lock.try_lock()) return;
  count.add(1);
  added.write(1);
  lock.unlock();
}

// Two words, so that a torn copy can be seen.
struct twins {
  std::uintptr_t first, second;
};

void expect_whole(const twins& seen) { explore_expect(seen.first == seen.second, "the copy is torn"); }

}  // namespace

TEST_CASE("backoff: a step lets the others run, and is counted all the same") {
  const nothing_left_over guard;
  const auto body = [] {
    concur::detail::atomic<int> stage{0};
    const auto answer = [&] {
      for (unsigned round = 0; stage.load(std::memory_order_acquire) != 1;) concur::detail::spin_wait(round);
      stage.store(2, std::memory_order_release);
    };
    const auto ask = [&] {
      for (unsigned round = 0; round < 12;) concur::detail::spin_wait(round);  // ends by its count alone
      concur::backoff wait;
      while (!wait.is_spent()) wait.pause();
      stage.store(1, std::memory_order_release);
      for (wait.reset(); stage.load(std::memory_order_acquire) != 2;) wait.pause();
    };
    two(ask, answer);
  };
  in_every_order(1, body);
}

TEST_CASE("spin_lock: one holder at a time, who sees what the last one did") {
  const nothing_left_over guard;
  const auto with_two = [] {
    concur::spin_lock lock;
    plain_number count, added;
    two([&] { add_one(lock, count), add_one(lock, count); }, [&] { try_to_add_one(lock, count, added); });
    explore_expect(count.read() == 2 + added.read(), "an addition is lost");
  };
  in_every_order(3, with_two);
  const auto with_three = [] {
    concur::spin_lock lock;
    plain_number count;
    const auto add = [&] { add_one(lock, count); };
    three(add, add, add);
    explore_expect(count.read() == 3, "an addition is lost");
  };
  in_every_order(2, with_three);
}

TEST_CASE("retirable_lock: who finds that it has ended sees what was done before, and so does who locks it") {
  const nothing_left_over guard;
  const auto body = [] {
    concur::detail::retirable_lock lock;
    plain_number result;
    const auto set = [&] {
      lock.lock_unless_retired();
      result.write(1);
      lock.retire(2);
    };
    const auto look = [&] {
      if (lock.peek() == 2) explore_expect(result.read() == 1, "retired without its result");
      if (lock.lock_unless_retired() == 0) {
        explore_expect(result.read() == 0, "a result before the lock was retired");
        lock.unlock();
      } else {
        explore_expect(result.read() == 1, "retired without its result");
      }
    };
    two(set, look);
  };
  in_every_order(3, body);
}

TEST_CASE("retirable_lock: who brings it back sees what was done before, and is seen by who locks it then") {
  const nothing_left_over guard;
  const auto body = [] {
    concur::detail::retirable_lock lock;
    plain_number result;
    const auto set = [&] {
      if (lock.lock_unless_retired() != 0) return;
      result.add(1);
      lock.retire(2);
    };
    const auto reset = [&] {
      if (lock.replace_retired(2, 3)) {
        explore_expect(result.read() >= 1, "retired without its result");
        result.write(10);
        explore_expect(lock.replace_retired(3, 0), "somebody else changed it");
      }
      if (lock.lock_unless_retired() != 0) return;
      result.add(0);
      lock.unlock();
    };
    const auto add = [&] {
      if (lock.lock_unless_retired() != 0) return;
      result.add(1);
      lock.unlock();
    };
    three(set, reset, add);
  };
  in_every_order(2, body);
}

TEST_CASE("ticket_lock: one holder at a time, who sees what the last one did, over the wrap") {
  const nothing_left_over guard;
  for (const std::uint32_t first_ticket : {0u, 0xFFFFFFFEu, 0xFFFFFFFFu}) {
    CAPTURE(first_ticket);
    const auto with_two = [=] {
      concur::ticket_lock lock(first_ticket);
      plain_number count, added;
      two([&] { add_one(lock, count), add_one(lock, count); }, [&] { try_to_add_one(lock, count, added); });
      explore_expect(count.read() == 2 + added.read(), "an addition is lost");
    };
    in_every_order(3, with_two);
    const auto with_three = [=] {
      concur::ticket_lock lock(first_ticket);
      plain_number count;
      const auto add = [&] { add_one(lock, count); };
      three(add, add, add);
      explore_expect(count.read() == 3, "an addition is lost");
    };
    in_every_order(2, with_three);
  }
}

TEST_CASE("seqlock: no copy is torn, none is older than one before") {
  const nothing_left_over guard;
  const auto body = [] {
    concur::seqlock<twins> pair(twins{0, 0});
    const auto write = [&] { pair.write({1, 1}), pair.write({2, 2}); };
    const auto read = [&] {
      std::uintptr_t before = 0;
      for (int i = 0; i < 2; ++i) {
        const std::optional<twins> seen = pair.try_read();
        if (!seen) continue;
        expect_whole(*seen);
        explore_expect(seen->first >= before, "a read goes back");
        before = seen->first;
      }
    };
    two(write, read);
  };
  in_every_order(3, body);
}

TEST_CASE("seqlock: a write happens before the read of its value, and read waits for it") {
  const nothing_left_over guard;
  const auto body = [] {
    concur::seqlock<twins> pair(twins{0, 0});
    plain_number message;
    const auto write = [&] {
      message.write(7);
      pair.write({1, 1});
    };
    const auto read = [&] {
      const twins seen = pair.read();
      expect_whole(seen);
      if (seen.first == 1) explore_expect(message.read() == 7, "the value without what came before it");
    };
    two(write, read);
  };
  in_every_order(3, body);
}

TEST_CASE("seqlock: writers and updates come one after the other") {
  const nothing_left_over guard;
  const auto body = [] {
    concur::seqlock<twins> pair(twins{0, 0});
    const auto update = [&] {
      const twins before = pair.update([](twins& both) { ++both.first, ++both.second; });
      expect_whole(before);
    };
    two(update, update);
    const twins last = pair.read();
    explore_expect(last.first == 2 && last.second == 2, "an update is lost");
  };
  in_every_order(3, body);
}

// A stack without removal: the function follows the value that it is given.
TEST_CASE("cas_update: no change is lost, and the function may follow what it is shown") {
  const nothing_left_over guard;
  struct node {
    plain_number depth;
    node* next = nullptr;
  };
  const auto body = [] {
    concur::detail::atomic<node*> top{nullptr};
    node nodes[3];
    const auto push = [&](node& one) {
      const auto on_top_of = [&](node* below) {
        one.next = below;
        one.depth.write(below != nullptr ? below->depth.read() + 1 : 1);
        return &one;
      };
      cas_update(top, on_top_of, std::memory_order_acq_rel);
    };
    three([&] { push(nodes[0]); }, [&] { push(nodes[1]); }, [&] { push(nodes[2]); });
    int count = 0;
    for (const node* one = top.load(std::memory_order_acquire); one != nullptr; one = one->next) {
      explore_expect(one->depth.read() == 3 - count, "a node is not where it should be");
      ++count;
    }
    explore_expect(count == 3, "a node is lost");
  };
  in_every_order(2, body);
}

TEST_CASE("cas_update: a permit is taken once, and a refusal has seen that there is none") {
  const nothing_left_over guard;
  const auto body = [] {
    concur::detail::atomic<int> permits{1};
    plain_number taken[3];
    const auto take_into = [&](plain_number& mine) {
      return [&] {
        const auto one_less = [](int n) { return n > 0 ? std::optional<int>(n - 1) : std::nullopt; };
        mine.write(cas_update(permits, one_less, std::memory_order_acquire).has_value() ? 1 : 0);
      };
    };
    three(take_into(taken[0]), take_into(taken[1]), take_into(taken[2]));
    explore_expect(taken[0].read() + taken[1].read() + taken[2].read() == 1, "not taken exactly once");
    explore_expect(permits.load(std::memory_order_relaxed) == 0, "the permit is there still");
  };
  in_every_order(2, body);
}

TEST_CASE("fetch_max: the largest stays, and a value that is seen brings what came before it") {
  const nothing_left_over guard;
  const auto body = [] {
    concur::detail::atomic<int> peak{0};
    plain_number message[3];
    const auto raise_to = [&](int mine) {
      return [&, mine] {
        message[mine].write(mine);
        // What was there came from the other's release; nothing is written if that was more.
        const int seen = fetch_max(peak, mine, std::memory_order_acq_rel);
        explore_expect(message[seen].read() == seen, "a value without what came before it");
      };
    };
    two(raise_to(1), raise_to(2));
    explore_expect(peak.load(std::memory_order_relaxed) == 2, "the peak is lost");
  };
  in_every_order(3, body);
}

TEST_CASE("fetch_min: the smallest of three stays") {
  const nothing_left_over guard;
  const auto body = [] {
    concur::detail::atomic<int> least{9};
    const auto lower_to = [&](int mine) {
      return [&, mine] { concur::fetch_min(least, mine, std::memory_order_relaxed); };
    };
    three(lower_to(2), lower_to(1), lower_to(3));
    explore_expect(least.load(std::memory_order_relaxed) == 1, "the least is lost");
  };
  in_every_order(2, body);
}

// All explored threads are one thread of the system, and so fall on one stripe.
TEST_CASE("striped_counter: two that share a stripe lose nothing") {
  const nothing_left_over guard;
  const auto body = [] {
    concur::striped_counter count;
    two([&] { count.add(3), count.sub(); }, [&] { count.add(5); });
    explore_expect(count.sum() == 7, "an addition is lost");
  };
  in_every_order(3, body);
}
