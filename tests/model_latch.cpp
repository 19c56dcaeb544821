// model_latch.cpp - that a latch opens for everybody, and may be destroyed by who has passed it (sync/latch.hpp, G1), and
// that a wait whose time is up, or that is cancelled, gets home from a latch that has opened meanwhile (runtime/wait_queue.hpp,
// Q4).
#include <doctest/doctest.h>

#include "support/model.hpp"

using model::checker;
using model::program;
using model::world;

namespace {

constexpr int open = 2;

struct variant {
  bool takes_before_opening = true;   // G1
  bool resumes_after_opening = true;  // G1
  bool is_seen_in_lock = true;        // a look at the latch sees the lock word, not the count
  bool counts_under_lock = true;      // G2
  bool publishes = true;              // opening is a release
  bool has_deadline = false;          // a timer or a cancellation claims the wait, perhaps
  bool takes_off_unless_open = true;  // Q4: else it waits for a lock that nobody will ever free
  bool claims_in_one_step = true;     // W1
};

enum word { lock_word, count, queued, wait_word, resumed, gone, data, timed_out };

void touch(program& p) {
  p.note("the latch is there", [](world& w, int) {
    if (w.memory[gone] != 0) w.fault = 1;
  });
}

// reg(0): it is open; else the lock is held.
void add_lock(program& p) {
  p.wait(
      "for the lock, or open", [](world& w, int) { return w.memory[lock_word] != 1; },
      [](world& w, int me) {
        w.reg(me, 0) = w.memory[lock_word] == open ? 1 : 0;
        if (w.reg(me, 0) == 0) w.memory[lock_word] = 1;
      });
  touch(p);
}

void add_claim(program& p, int into, bool in_one_step) {
  if (in_one_step) {
    p.atomically("claims", [into](world& w, int me) {
      w.reg(me, into) = w.memory[wait_word] == 1 ? 1 : 0;
      if (w.reg(me, into) != 0) w.memory[wait_word] = 2;
    });
    return;
  }
  p.load(into, wait_word);
  p.atomically("claims", [into](world& w, int me) {
    if (w.reg(me, into) == 1)
      w.memory[wait_word] = 2;
    else
      w.reg(me, into) = 0;
  });
}

// Looks, queues, waits; when it has passed, destroys the latch.
void add_waiter(program& p, const variant& v) {
  if (v.is_seen_in_lock) {
    p.load(0, lock_word);
    p.jump_if([](world& w, int me) { return w.reg(me, 0) == open; }, "passes");
  } else {
    p.load(0, count);
    p.jump_if([](world& w, int me) { return w.reg(me, 0) == 0; }, "passes");
  }
  add_lock(p);
  p.jump_if([](world& w, int me) { return w.reg(me, 0) != 0; }, "passes");
  p.store(queued, 1);
  p.store(wait_word, 1, true);
  p.release(lock_word, 0);
  p.wait("to be resumed", [](world& w, int) { return w.memory[resumed] != 0; });
  p.load(0, timed_out);
  p.jump_if([](world& w, int me) { return w.reg(me, 0) == 0; }, "passes");
  if (v.takes_off_unless_open) {
    add_lock(p);
    p.jump_if([](world& w, int me) { return w.reg(me, 0) != 0; }, "goes");
  } else {
    p.lock(lock_word);
  }
  touch(p);
  p.store(queued, 0);
  p.release(lock_word, 0);
  p.jump("goes");
  p.label("passes").load(1, data);
  p.note("sees what came before", [](world& w, int me) {
    if (w.reg(me, 1) == 0) w.fault = 1;
  });
  p.atomically("destroys it", [](world& w, int) { w.memory[gone] = 1; });
  p.label("goes");
}

void add_arrival(program& p, const variant& v, bool writes) {
  if (writes) p.store(data, 1);
  if (!v.counts_under_lock) {
    p.load(2, count);
    p.store(count, [](world& w, int me) { return static_cast<model::value>(w.reg(me, 2) - 1); });
  }
  add_lock(p);
  p.note("not open before all have arrived", [](world& w, int me) {
    if (w.reg(me, 0) != 0) w.fault = 1;
  });
  p.load(2, count);
  if (v.counts_under_lock) {
    p.store(count, [](world& w, int me) { return static_cast<model::value>(w.reg(me, 2) - 1); });
    p.load(2, count);
  }
  p.jump_if([](world& w, int me) { return w.reg(me, 2) == 0; }, "last");
  touch(p);
  p.release(lock_word, 0);
  p.jump("end");
  p.label("last");
  const auto resume = [&p] {
    p.atomically("resumes", [](world& w, int me) {
      if (w.reg(me, 3) != 0) w.memory[resumed] = 1;
    });
  };
  if (!v.takes_before_opening) p.store(lock_word, open, v.publishes);
  p.load(1, queued);
  touch(p);
  p.store(queued, 0);
  p.note("nobody claimed yet", [](world& w, int me) { w.reg(me, 3) = 0; });
  p.jump_if([](world& w, int me) { return w.reg(me, 1) == 0; }, "nobody waits");
  add_claim(p, 3, v.claims_in_one_step);
  p.label("nobody waits");
  if (!v.resumes_after_opening) resume();
  touch(p);
  if (v.takes_before_opening) p.store(lock_word, open, v.publishes);
  if (v.resumes_after_opening) resume();
  p.label("end");
}

void add_timer(program& p, const variant& v) {
  add_claim(p, 3, v.claims_in_one_step);
  p.jump_if([](world& w, int me) { return w.reg(me, 3) == 0; }, "lost");
  p.store(timed_out, 1);
  p.atomically("resumes", [](world& w, int) { ++w.memory[resumed]; });
  p.label("lost");
}

model::answer explore(const variant& v) {
  program waiter;
  program one;
  program other;
  program timer;
  add_waiter(waiter, v);
  add_arrival(one, v, true);
  add_arrival(other, v, false);
  add_timer(timer, v);
  std::vector<const program*> programs{&waiter, &one, &other};
  if (v.has_deadline) programs.push_back(&timer);
  checker all(programs);
  all.always = [](const world& w) {
    if (w.memory[resumed] > 1) return false;
    if (w.memory[gone] == 0) return true;
    // A store that is still on its way is a touch as well.
    for (const model::thread_state& thread : w.threads) {
      for (int i = 0; i < thread.buffered; ++i) {
        const model::value where = thread.buffer[i].where;
        if (where == lock_word || where == count || where == queued) return false;
      }
    }
    return true;
  };
  all.at_end = [&all](const world& w) { return all.are_all_finished(w); };
  world begin;
  begin.memory[count] = 2;
  return all.explore(begin);
}

void must_be_sound(const variant& v) {
  const model::answer all = explore(v);
  INFO(all.bad_path);
  CHECK(all.is_sound);
  CHECK(all.ends > 0);
}

}  // namespace

TEST_CASE("the last arrival opens the latch, and does not touch it once somebody can have passed") {
  const variant v;
  must_be_sound(v);
  variant opens_first = v;
  opens_first.takes_before_opening = false;
  CHECK_FALSE(explore(opens_first).is_sound);
  variant resumes_first = v;
  resumes_first.resumes_after_opening = false;
  CHECK_FALSE(explore(resumes_first).is_sound);
  variant looks_at_count = v;
  looks_at_count.is_seen_in_lock = false;
  CHECK_FALSE(explore(looks_at_count).is_sound);
  variant counts_outside = v;
  counts_outside.counts_under_lock = false;
  CHECK_FALSE(explore(counts_outside).is_sound);
  variant publishes_nothing = v;
  publishes_nothing.publishes = false;
  CHECK_FALSE(explore(publishes_nothing).is_sound);
}

TEST_CASE("a wait whose time is up, or that is cancelled, comes home, also from a latch that has opened meanwhile") {
  variant v;
  v.has_deadline = true;
  must_be_sound(v);
  variant waits_for_lock = v;
  waits_for_lock.takes_off_unless_open = false;
  CHECK_FALSE(explore(waits_for_lock).is_sound);
  variant claims_in_two_steps = v;
  claims_in_two_steps.claims_in_one_step = false;
  CHECK_FALSE(explore(claims_in_two_steps).is_sound);
}
