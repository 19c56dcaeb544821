// model_future_wait.cpp - two that wait for one result (structure/future_state.hpp, structure/shared_future.hpp), in every
// interleaving in which waits are cancelled or run out of time: each wait ends once, who is let go sees the result, and the
// state is released once, by the last to let go, with nobody on his way to it (U1, U2).
#include <doctest/doctest.h>

#include "support/model_wait.hpp"

using model::checker;
using model::program;
using model::site;
using model::value;
using model::world;

namespace {

enum word { lock_word, queue, wait_word = 3, result = 5, data = 7, holders, released };
constexpr int waiters = 2;
constexpr int ready = 2;
constexpr int dropped = 3;

struct variant {
  bool takes_before_retiring = true;
  bool resumes_after_retiring = true;  // who is resumed may release it
  bool publishes = true;               // retiring is a release
  bool last_one_drops = true;          // H1 of shared_future: a copy that goes is not the end
  bool claims = true;
  bool leaver_unlinks = true;
  bool leaves_unless_retired = true;
};

site the_site(const variant& v) {
  site s{lock_word, queue, waiters, wait_word, result, ready};
  s.claims = v.claims;
  s.leaver_unlinks = v.leaver_unlinks;
  s.leaves_unless_retired = v.leaves_unless_retired;
  return s;
}

void touch(program& p) {
  p.note("the state is there", [](world& w, int) {
    if (w.memory[released] != 0) w.fault = 1;
  });
}

void add_release(program& p) {
  p.atomically("releases", [](world& w, int) { ++w.memory[released]; });
}

// Locks, or leaves in register 1 with what the lock was retired.
void add_lock(program& p) {
  touch(p);
  p.wait(
      "for the lock, or its end", [](world& w, int) { return w.memory[lock_word] != 1; },
      [](world& w, int me) {
        w.reg(me, 1) = w.memory[lock_word];
        if (w.reg(me, 1) == 0) w.memory[lock_word] = 1;
      });
}

// Registers: 0 what ended the wait, 1 an answer, 2 whom to resume.
void add_waiter(program& p, const variant& v) {
  add_lock(p);
  p.jump_if([](world& w, int me) { return w.reg(me, 1) == ready; }, "has it");
  model::add_wait(p, the_site(v), "has waited");
  p.jump_if([](world& w, int me) { return w.reg(me, 0) != model::granted; }, "lets go");
  p.label("has it").load(1, data);
  p.note("sees the result", [](world& w, int me) {
    if (w.reg(me, 1) == 0) w.fault = 1;
  });

  p.label("lets go").atomically("is the last?", [](world& w, int me) { w.reg(me, 1) = --w.memory[holders]; });
  p.jump_if([v](world& w, int me) { return w.reg(me, 1) != 0 && v.last_one_drops; }, "end");
  add_lock(p);
  p.jump_if([](world& w, int me) { return w.reg(me, 1) == ready; }, "releases");
  p.release(lock_word, dropped).jump("end");
  p.label("releases");
  add_release(p);
  p.label("end");
}

void add_maker(program& p, const variant& v) {
  const site s = the_site(v);
  const auto take_all = [&] {
    p.atomically("takes all off", [s](world& w, int me) { w.reg(me, 2) = model::pop_all(w, s); });
  };
  const auto resume = [&] {
    p.atomically("resumes", [s](world& w, int me) { model::resume_all(w, s, w.reg(me, 2), model::granted); });
  };
  add_lock(p);
  p.jump_if([](world& w, int me) { return w.reg(me, 1) == dropped; }, "nobody asks");
  if (v.takes_before_retiring) take_all();
  if (!v.resumes_after_retiring) resume();
  touch(p);
  p.store(data, 1);  // before the lock, but taking that only acquires, and lets a store pass to behind it
  p.store(lock_word, ready, v.publishes);
  if (!v.takes_before_retiring) touch(p);
  if (!v.takes_before_retiring) take_all();
  if (v.resumes_after_retiring) resume();
  p.jump("end");
  p.label("nobody asks");
  add_release(p);
  p.label("end");
}

model::answer outcome_of(const variant& v) {
  program all_waiters[waiters];
  program maker;
  program striker;
  for (program& one : all_waiters) add_waiter(one, v);
  add_maker(maker, v);
  model::add_strike(striker, the_site(v), 0);
  model::add_strike(striker, the_site(v), 1);
  checker all({&all_waiters[0], &all_waiters[1], &maker, &striker});
  // A store that is still on its way is a touch as well.
  all.always = [](const world& w) {
    if (w.memory[released] == 0) return true;
    if (w.memory[released] > 1) return false;
    for (const model::thread_state& one : w.threads) {
      for (int i = 0; i < one.buffered; ++i) {
        if (one.buffer[i].where == lock_word || one.buffer[i].where == data) return false;
      }
    }
    return true;
  };
  all.at_end = [&all](const world& w) { return all.are_all_finished(w) && w.memory[released] == 1; };
  world begin;
  begin.memory[holders] = waiters;
  return all.explore(begin);
}

}  // namespace

TEST_CASE("a cancelled wait for a result takes nothing with it, and the last to let go releases the state") {
  const model::answer all = outcome_of(variant());
  INFO(all.bad_path);
  CHECK(all.is_sound);
  CHECK(all.ends > 1);
  MESSAGE(all.states, " states");
}

TEST_CASE("each step is needed") {
  const auto without = [](bool variant::*step) {
    variant v;
    v.*step = false;
    return outcome_of(v).is_sound;
  };
  CHECK_FALSE(without(&variant::takes_before_retiring));
  CHECK_FALSE(without(&variant::resumes_after_retiring));
  CHECK_FALSE(without(&variant::publishes));
  CHECK_FALSE(without(&variant::last_one_drops));
  CHECK_FALSE(without(&variant::claims));
  CHECK_FALSE(without(&variant::leaver_unlinks));
  CHECK_FALSE(without(&variant::leaves_unless_retired));
}
