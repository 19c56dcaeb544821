// model_future.cpp - that a result's state is freed once, and by the last side (structure/future_state.hpp, U1), that what
// is attached to it is run exactly once (U4), and that a when_any completes once, when nobody is at its futures any more
// (structure/when.hpp, G1 and G2).
#include <doctest/doctest.h>

#include "support/model.hpp"

using model::checker;
using model::program;
using model::value;
using model::world;

namespace {

// --- completing, attaching, dropping ---

enum state_word { lock_word, value_word, chain_word, freed, runs };
enum stage { open_lock = 0, held = 1, ready = 2, dropped = 3 };

struct state_variant {
  bool chain_before_ready = true;  // completing takes the chain before the state is ready
  bool retires_with_release = true;
  bool dropped_chain_runs = true;  // who completes for nobody still tells
  bool ready_is_told = true;       // who attaches to a result that is there runs it himself
  bool locks_in_one_step = true;
};

void must_be_there(program& p) {
  p.note("the state is there", [](world& w, int) {
    if (w.memory[freed] != 0) w.fault = 1;
  });
}

// lock_unless_retired, with its answer in register 0.
void add_lock(program& p, const state_variant& v) {
  must_be_there(p);
  const auto is_not_held = [](world& w, int) { return w.memory[lock_word] != held; };
  if (v.locks_in_one_step) {
    p.wait("not held", is_not_held, [](world& w, int me) {
      w.reg(me, 0) = w.memory[lock_word];
      if (w.reg(me, 0) == open_lock) w.memory[lock_word] = held;
    });
    return;
  }
  p.wait("not held", is_not_held, [](world& w, int me) { w.reg(me, 0) = w.memory[lock_word]; });
  p.note("takes it", [](world& w, int me) {
    if (w.reg(me, 0) == open_lock) w.memory[lock_word] = held;
  });
}

void add_run(program& p) {
  p.atomically("runs", [](world& w, int) { ++w.memory[runs]; });
}
void add_free(program& p) {
  p.atomically("frees", [](world& w, int) { ++w.memory[freed]; });
}

void add_maker(program& p, const state_variant& v) {
  add_lock(p, v);
  p.store(value_word, 1);  // before the lock, but taking that only acquires, and lets a store pass to behind it
  p.jump_if([](world& w, int me) { return w.reg(me, 0) == dropped; }, "dropped");
  if (!v.chain_before_ready) p.release(lock_word, ready);
  must_be_there(p);
  p.load(1, chain_word);
  if (v.chain_before_ready) p.store(lock_word, ready, v.retires_with_release);
  p.jump_if([](world& w, int me) { return w.reg(me, 1) == 0; }, "end");
  add_run(p);
  p.jump("end");
  p.label("dropped");
  if (v.dropped_chain_runs) {
    must_be_there(p);
    p.load(1, chain_word);
    p.jump_if([](world& w, int me) { return w.reg(me, 1) == 0; }, "frees");
    add_run(p);
  }
  p.label("frees");
  add_free(p);
  p.label("end");
}

void add_taker(program& p, const state_variant& v) {
  const auto is_ready = [](world& w, int me) { return w.reg(me, 0) == ready; };
  add_lock(p, v);
  p.jump_if(is_ready, "ready already");
  p.store(chain_word, 1);
  p.unlock(lock_word);
  p.jump("drops");
  p.label("ready already");
  if (v.ready_is_told) add_run(p);
  p.label("drops");
  add_lock(p, v);
  p.jump_if(is_ready, "frees");
  p.release(lock_word, dropped);
  p.jump("end");
  p.label("frees");
  p.load(1, value_word);
  p.note("destroys the value", [](world& w, int me) {
    if (w.reg(me, 1) == 0) w.fault = 1;
  });
  add_free(p);
  p.label("end");
}

model::answer outcome_of_state(const state_variant& v) {
  program maker;
  program taker;
  add_maker(maker, v);
  add_taker(taker, v);
  checker all({&maker, &taker});
  all.at_end = [&all](const world& w) {
    return all.are_all_finished(w) && w.memory[runs] == 1 && w.memory[freed] == 1;
  };
  return all.explore(world());
}

// --- when_any over two futures ---

enum any_word { future_a, future_b, winner, missing, holders, finished, freed_whole };
enum future_stage { pending, attached, has_result, detached };

struct any_variant {
  value missing_at_start = 2;   // the first result, and the start
  bool detaches = true;         // finishing takes the notes of losers off
  bool holds_for_notes = true;  // each note that may still run holds the memory
  bool claims_in_one_step = true;
};

void must_be_whole(program& p) {
  p.note("the whole is there", [](world& w, int) {
    if (w.memory[freed_whole] != 0) w.fault = 1;
  });
}

void add_let_go(program& p) {
  must_be_whole(p);
  p.atomically("lets go", [](world& w, int) {
    if (--w.memory[holders] == 0) ++w.memory[freed_whole];
  });
}

// count_down, and what the last one does. Labels are the caller's to keep apart.
void add_count_down(program& p, const any_variant& v, const std::string& after) {
  must_be_whole(p);
  p.atomically("counts down", [](world& w, int me) { w.reg(me, 1) = --w.memory[missing]; });
  p.jump_if([](world& w, int me) { return w.reg(me, 1) != 0; }, after);
  for (const int which : {future_a, future_b}) {
    if (!v.detaches) continue;
    p.atomically("detaches", [which](world& w, int) {
      if (w.memory[which] != attached) return;
      w.memory[which] = detached;
      --w.memory[holders];
    });
  }
  p.atomically("finishes", [v](world& w, int) {
    ++w.memory[finished];
    if (!v.holds_for_notes) w.memory[freed_whole] = 1;
  });
}

// The note of one future comes due.
void add_come_due(program& p, const any_variant& v, int which, const std::string& name) {
  must_be_whole(p);
  if (v.claims_in_one_step) {
    p.atomically("is first?", [which](world& w, int me) {
      w.reg(me, 1) = w.memory[winner] == 0 ? 1 : 0;
      if (w.reg(me, 1) != 0) w.memory[winner] = static_cast<value>(which + 1);
    });
    p.jump_if([](world& w, int me) { return w.reg(me, 1) == 0; }, name);
  } else {
    p.load(1, winner);
    p.jump_if([](world& w, int me) { return w.reg(me, 1) != 0; }, name);
    p.release(winner, which + 1);
  }
  add_count_down(p, v, name);
  p.label(name);
  add_let_go(p);
}

void add_completer(program& p, const any_variant& v, int which) {
  p.atomically("completes", [which](world& w, int me) {
    w.reg(me, 0) = w.memory[which];
    w.memory[which] = has_result;
  });
  p.jump_if([](world& w, int me) { return w.reg(me, 0) != attached; }, "end");
  add_come_due(p, v, which, "lost");
  p.label("end");
}

void add_starter(program& p, const any_variant& v) {
  for (const int which : {future_a, future_b}) {
    const std::string next = "next " + std::to_string(which);
    p.atomically("attaches", [which](world& w, int me) {
      if (w.memory[finished] != 0) w.fault = 1;  // the futures have moved
      w.reg(me, 0) = w.memory[which];
      if (w.reg(me, 0) == pending) w.memory[which] = attached;
    });
    p.jump_if([](world& w, int me) { return w.reg(me, 0) != has_result; }, next);
    add_come_due(p, v, which, "lost " + std::to_string(which));
    p.label(next);
  }
  if (v.missing_at_start == 2) add_count_down(p, v, "started");
  p.label("started");
  add_let_go(p);  // the result, taken and dropped
}

model::answer outcome_of_any(const any_variant& v) {
  program starter;
  program a;
  program b;
  add_starter(starter, v);
  add_completer(a, v, future_a);
  add_completer(b, v, future_b);
  checker all({&starter, &a, &b});
  all.always = [](const world& w) { return w.memory[finished] <= 1 && w.memory[missing] >= 0; };
  all.at_end = [&all](const world& w) {
    return all.are_all_finished(w) && w.memory[finished] == 1 && w.memory[freed_whole] == 1;
  };
  world begin;
  begin.memory[missing] = v.missing_at_start;
  begin.memory[holders] = 3;
  return all.explore(begin);
}

}  // namespace

TEST_CASE("a state is freed once, by the last side, and what is attached runs once") {
  const model::answer all = outcome_of_state(state_variant());
  INFO(all.bad_path);
  CHECK(all.is_sound);
  CHECK(all.ends > 1);
  state_variant chain_late;
  chain_late.chain_before_ready = false;
  CHECK_FALSE(outcome_of_state(chain_late).is_sound);
  state_variant no_release;
  no_release.retires_with_release = false;
  CHECK_FALSE(outcome_of_state(no_release).is_sound);
  state_variant forgets;
  forgets.dropped_chain_runs = false;
  CHECK_FALSE(outcome_of_state(forgets).is_sound);
  state_variant silent;
  silent.ready_is_told = false;
  CHECK_FALSE(outcome_of_state(silent).is_sound);
  state_variant two_steps;
  two_steps.locks_in_one_step = false;
  CHECK_FALSE(outcome_of_state(two_steps).is_sound);
}

TEST_CASE("a when_any finishes once, behind its start, and is freed by the last that holds it") {
  const model::answer all = outcome_of_any(any_variant());
  INFO(all.bad_path);
  CHECK(all.is_sound);
  CHECK(all.ends > 1);
  any_variant no_start_share;
  no_start_share.missing_at_start = 1;
  CHECK_FALSE(outcome_of_any(no_start_share).is_sound);
  any_variant no_holds;
  no_holds.holds_for_notes = false;
  CHECK_FALSE(outcome_of_any(no_holds).is_sound);
  any_variant two_winners;
  two_winners.claims_in_one_step = false;
  CHECK_FALSE(outcome_of_any(two_winners).is_sound);
  // Without it the memory is only held longer.
  any_variant keeps_notes;
  keeps_notes.detaches = false;
  CHECK(outcome_of_any(keeps_notes).is_sound);
}
