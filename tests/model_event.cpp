// model_event.cpp - that nobody sleeps through a set (sync/event.hpp, V1), that whoever is let go may destroy the event
// (V2), that what came before set() is seen, and that neither a reset nor a wait that is cancelled breaks anything.
#include <doctest/doctest.h>

#include "support/model.hpp"

using model::checker;
using model::program;
using model::world;

namespace {

constexpr int is_set = 2;

// What holds of the lock word as src has it, and what a weaker protocol would leave out.
struct variant {
  bool locks_in_one_step = true;         // looking whether it is set, and taking the lock
  bool takes_before_retiring = true;     // V2
  bool resumes_after_retiring = true;    // V2
  bool publishes = true;                 // retiring is a release
  bool believes_who_let_it_go = true;    // a waiter that was let go does not look again
  bool resets_in_one_step = true;        // K4
  bool has_reset = false;                // the setter resets at once
  bool is_destroyed_after_wait = false;  // by the waiter
  bool begins_set = false;
  int resetters = 0;                 // more threads that only reset
  bool has_striker = false;          // a timer or a cancellation claims the wait, perhaps
  bool claims = true;                // W1
  bool leaver_unlinks = true;        // Q1
  bool takes_off_unless_set = true;  // Q4: else it waits for a lock that nobody frees
};

enum word { lock_word, queued, granted, gone, data, must_pass, holders, wait_word, was_struck, frame_gone };

void touch(program& p) {
  p.note("the event is there", [](world& w, int) {
    if (w.memory[gone] != 0) w.fault = 1;
  });
}

// Leaves reg(0) at 1 if the event is set, else holds the lock.
void add_lock(program& p, const variant& v) {
  if (v.locks_in_one_step) {
    p.wait(
        "for the lock, or set", [](world& w, int) { return w.memory[lock_word] != 1; },
        [](world& w, int me) {
          w.reg(me, 0) = w.memory[lock_word] == is_set ? 1 : 0;
          if (w.reg(me, 0) == 0) w.memory[lock_word] = 1;
        });
  } else {
    p.wait("for the lock, or set", [](world& w, int) { return w.memory[lock_word] != 1; });
    p.load(0, lock_word);
    p.note("is it set", [](world& w, int me) { w.reg(me, 0) = w.reg(me, 0) == is_set ? 1 : 0; });
    p.atomically("takes the lock", [](world& w, int me) {
      if (w.reg(me, 0) == 0) w.memory[lock_word] = 1;
    });
  }
  touch(p);
  p.note("one holder", [](world& w, int me) {
    if (w.reg(me, 0) != 0) return;
    if (++w.memory[holders] > 1) w.fault = 1;
  });
}

void let_go(program& p) {
  p.note("holds no more", [](world& w, int) { --w.memory[holders]; });
}

void add_waiter(program& p, const variant& v) {
  p.label("looks").load(0, lock_word);
  touch(p);
  p.jump_if([](world& w, int me) { return w.reg(me, 0) == is_set; }, "passes");
  add_lock(p, v);
  p.jump_if([](world& w, int me) { return w.reg(me, 0) != 0; }, "passes");
  p.store(queued, 1).release(wait_word, 1);
  let_go(p);
  p.release(lock_word, 0);
  p.wait("to be let go", [](world& w, int) { return w.memory[granted] != 0 || w.memory[was_struck] != 0; });
  if (v.has_striker) {
    p.jump_if([](world& w, int) { return w.memory[was_struck] == 0; }, "let go");
    if (v.takes_off_unless_set) {
      add_lock(p, v);
      p.jump_if([](world& w, int me) { return w.reg(me, 0) != 0; }, "leaves");
    } else {
      p.lock(lock_word).note("holds it", [](world& w, int) { ++w.memory[holders]; });
    }
    if (v.leaver_unlinks) p.store(queued, 0);
    let_go(p);
    p.release(lock_word, 0);
    p.label("leaves").atomically("its frame goes", [](world& w, int) { w.memory[frame_gone] = 1; }).jump("end");
    p.label("let go");
  }
  if (!v.believes_who_let_it_go) {
    p.store(granted, 0);
    p.load(0, lock_word);
    p.jump_if([](world& w, int me) { return w.reg(me, 0) != is_set; }, "looks");
  }
  p.label("passes").load(1, data);
  p.note("sees what came before", [](world& w, int me) {
    if (w.reg(me, 1) == 0) w.fault = 1;
  });
  if (v.is_destroyed_after_wait) p.atomically("destroys it", [](world& w, int) { w.memory[gone] = 1; });
  p.label("end");
}

void add_striker(program& p) {
  p.atomically("strikes", [](world& w, int) {
    if (w.memory[wait_word] != 1) return;
    w.memory[wait_word] = 2;
    w.memory[was_struck] = 1;
  });
}

void add_reset(program& p, const variant& v) {
  if (v.resets_in_one_step) {
    p.atomically("resets", [](world& w, int) {
      if (w.memory[lock_word] == is_set) w.memory[lock_word] = 0;
    });
    return;
  }
  p.load(2, lock_word);
  p.jump_if([](world& w, int me) { return w.reg(me, 2) != is_set; }, "is not set");
  p.release(lock_word, 0);
  p.label("is not set");
}

void add_setter(program& p, const variant& v) {
  p.store(data, 1);
  add_lock(p, v);
  p.jump_if([](world& w, int me) { return w.reg(me, 0) != 0; }, "was set");
  p.note("who is queued must pass", [](world& w, int) { w.memory[must_pass] = w.memory[queued]; });
  const auto resume = [&p] {
    p.atomically("resumes", [](world& w, int me) {
      if (w.reg(me, 1) == 0) return;
      if (w.memory[was_struck] != 0) w.fault = 1;  // one wait, two ends
      w.memory[granted] = 1;
    });
  };
  const auto retire = [&] {
    let_go(p);
    p.store(lock_word, is_set, v.publishes);
  };
  if (!v.takes_before_retiring) retire();
  p.load(1, queued);
  touch(p);
  p.store(queued, 0);
  p.jump_if([](world& w, int me) { return w.reg(me, 1) == 0; }, "nobody waits");
  p.atomically("claims", [v](world& w, int me) {
    if (w.memory[frame_gone] != 0) w.fault = 1;
    w.reg(me, 1) = w.memory[wait_word] == 1 || !v.claims ? 1 : 0;
    w.memory[wait_word] = 2;
  });
  p.label("nobody waits");
  if (!v.resumes_after_retiring) resume();
  touch(p);
  if (v.takes_before_retiring) retire();
  if (v.resumes_after_retiring) resume();
  p.label("was set");
  if (v.has_reset) add_reset(p, v);
}

model::answer explore(const variant& v) {
  program waiter;
  program setter;
  program one_resetter;
  program other_resetter;
  program striker;
  add_waiter(waiter, v);
  add_setter(setter, v);
  std::vector<const program*> all_programs{&waiter, &setter};
  add_reset(one_resetter, v);
  add_reset(other_resetter, v);
  if (v.resetters > 0) all_programs.push_back(&one_resetter);
  if (v.resetters > 1) all_programs.push_back(&other_resetter);
  add_striker(striker);
  if (v.has_striker) all_programs.push_back(&striker);
  checker all(all_programs);
  all.at_end = [&](const world& w) {
    for (int t = 1; t < static_cast<int>(all_programs.size()); ++t) {
      if (!all.is_finished(w, t)) return false;
    }
    const bool must_have_passed = w.memory[must_pass] != 0 || w.memory[lock_word] == is_set;
    return all.is_finished(w, 0) || (!must_have_passed && (v.has_reset || v.resetters > 0));
  };
  // A store that is still on its way is a touch as well.
  all.always = [](const world& w) {
    if (w.memory[gone] == 0) return true;
    for (const model::thread_state& one : w.threads) {
      for (int i = 0; i < one.buffered; ++i) {
        if (one.buffer[i].where == lock_word || one.buffer[i].where == queued) return false;
      }
    }
    return true;
  };
  world begin;
  begin.memory[lock_word] = v.begins_set ? is_set : 0;
  begin.memory[data] = v.begins_set ? 1 : 0;
  return all.explore(begin);
}

void must_be_sound(const variant& v) {
  const model::answer all = explore(v);
  INFO(all.bad_path);
  CHECK(all.is_sound);
  CHECK(all.ends > 0);
}

}  // namespace

TEST_CASE("who waits is let go by a set, sees what came before it, and may destroy the event") {
  variant v;
  v.is_destroyed_after_wait = true;
  must_be_sound(v);
  variant retires_first = v;
  retires_first.takes_before_retiring = false;
  CHECK_FALSE(explore(retires_first).is_sound);
  variant resumes_first = v;
  resumes_first.resumes_after_retiring = false;
  CHECK_FALSE(explore(resumes_first).is_sound);
  variant publishes_nothing = v;
  publishes_nothing.publishes = false;
  CHECK_FALSE(explore(publishes_nothing).is_sound);
  variant two_steps = v;
  two_steps.locks_in_one_step = false;
  CHECK_FALSE(explore(two_steps).is_sound);
}

TEST_CASE("who waited at set passes, though it is reset at once") {
  variant v;
  v.has_reset = true;
  must_be_sound(v);
  variant looks_again = v;
  looks_again.believes_who_let_it_go = false;
  CHECK_FALSE(explore(looks_again).is_sound);
}

TEST_CASE("a wait that is cancelled or runs out of time ends once, and leaves nothing behind") {
  for (const bool has_reset : {false, true}) {
    variant v;
    v.has_striker = true;
    v.has_reset = has_reset;
    v.resetters = has_reset ? 1 : 0;
    must_be_sound(v);
    variant takes_what_was_struck = v;
    takes_what_was_struck.claims = false;
    CHECK_FALSE(explore(takes_what_was_struck).is_sound);
    variant stays_linked = v;
    stays_linked.leaver_unlinks = false;
    CHECK_FALSE(explore(stays_linked).is_sound);
  }
  variant waits_for_lock;
  waits_for_lock.has_striker = true;
  waits_for_lock.takes_off_unless_set = false;
  CHECK_FALSE(explore(waits_for_lock).is_sound);
}

TEST_CASE("resets from several sides break neither the lock nor a wait") {
  variant v;
  v.begins_set = true;
  v.resetters = 2;
  must_be_sound(v);
  variant two_steps = v;
  two_steps.resets_in_one_step = false;
  CHECK_FALSE(explore(two_steps).is_sound);
}
