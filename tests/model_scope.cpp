// model_scope.cpp - one fiber, its scopes, and an alarm or another thread that cancels them (runtime/cancel.hpp), in every
// interleaving: it parks nowhere in a cancelled scope, each wait ends once, and nobody touches a scope that was left.
#include <doctest/doctest.h>

#include "support/model_park.hpp"

using model::checker;
using model::parking;
using model::program;
using model::value;
using model::world;

namespace {

bool is_zero(world& w, int me) { return w.reg(me, 0) == 0; }
value register_1(world& w, int me) { return w.reg(me, 1); }

void touch(program& p, int gone, const char* what) {
  p.note(what, [gone](world& w, int) {
    if (w.memory[gone] != 0) w.fault = 1;
  });
}

// --- a scope within a scope, and the alarm of the outer one ---

enum word { lock_word, flag_s, flag_n, has_n, fiber_flag, wait_word, ends, s_gone, n_gone, is_ringing };

struct variant {
  bool has_heavy_fence = true;  // between the walks
  bool looks_when_parked = true;
  bool looks_behind_word = true;
  bool walks_twice = true;        // mark, fence, wake; else mark and wake, and a fence behind
  bool enters_under_lock = true;  // H3
  bool leaves_under_lock = true;  // H1
  bool waits_for_alarm = true;    // a scope is not left while its alarm rings
  bool claims = true;
};

parking fiber_of(const variant& v) {
  return {wait_word, fiber_flag, ends, v.looks_when_parked, v.looks_behind_word, v.claims};
}

void add_fiber(program& p, const variant& v) {
  if (v.enters_under_lock) p.lock(lock_word);
  p.load(1, flag_s).store(flag_n, register_1).store(has_n, 1).store(fiber_flag, register_1);
  if (v.enters_under_lock) p.unlock(lock_word);
  model::add_park(p, fiber_of(v), 0, "parked in the inner scope");
  if (v.leaves_under_lock) p.lock(lock_word);
  p.store(has_n, 0).load(1, flag_s).store(fiber_flag, register_1);
  if (v.leaves_under_lock) p.unlock(lock_word);
  p.atomically("the inner scope goes", [](world& w, int) { w.memory[n_gone] = 1; });
  model::add_park(p, fiber_of(v), 1, "parked in the outer scope");
  if (v.waits_for_alarm) p.wait("for the alarm", [](world& w, int) { return w.memory[is_ringing] == 0; });
  p.lock(lock_word).unlock(lock_word);
  p.atomically("the outer scope goes", [](world& w, int) { w.memory[s_gone] = 1; });
}

void add_alarm(program& p, const variant& v) {
  touch(p, s_gone, "the outer scope is there");
  p.lock(lock_word).store(flag_s, 1).load(0, has_n);
  p.jump_if(is_zero, "no inner scope");
  touch(p, n_gone, "the inner scope is there");
  p.store(flag_n, 1);
  p.label("no inner scope").store(fiber_flag, 1);
  if (!v.walks_twice) model::add_wake(p, fiber_of(v), "not flagged");
  p.unlock(lock_word);
  p.heavy_fence(v.has_heavy_fence);
  touch(p, s_gone, "the outer scope is still there");
  if (v.walks_twice) {
    p.lock(lock_word);
    model::add_wake(p, fiber_of(v), "not flagged");
    p.unlock(lock_word);
  }
  model::add_resume(p, fiber_of(v), 2);
  touch(p, s_gone, "the alarm is still there");
  p.release(is_ringing, 0);
}

model::answer outcome_of_alarm(const variant& v) {
  program fiber;
  program alarm;
  add_fiber(fiber, v);
  add_alarm(alarm, v);
  checker all({&fiber, &alarm});
  all.at_end = [&all](const world& w) { return all.are_all_finished(w) && w.memory[ends] == 2; };
  all.always = [](const world& w) { return w.memory[n_gone] == 0 || !model::is_on_its_way(w, 1, flag_n); };
  world begin;
  begin.memory[is_ringing] = 1;
  return all.explore(begin);
}

// --- who publishes a wait looks at the flag when the fiber may be elsewhere already ---

model::answer outcome_of_publishing(bool has_flag_of_its_own) {
  const parking fiber{wait_word, has_flag_of_its_own ? fiber_flag : flag_n, ends};
  program publisher;
  program way_out;
  program canceller;
  program completer;
  publisher.release(wait_word, 1);
  if (!has_flag_of_its_own) touch(publisher, n_gone, "the scope is there");
  publisher.load(0, fiber.flag).jump_if(is_zero, "parked");
  model::add_completer(publisher, fiber, 0);
  publisher.label("parked");
  way_out.wait("to be resumed", [](world& w, int) { return w.memory[ends] != 0; });
  way_out.lock(lock_word).store(has_n, 0).store(fiber_flag, 0).unlock(lock_word);
  way_out.atomically("the scope goes", [](world& w, int) { w.memory[n_gone] = 1; });
  canceller.lock(lock_word).load(0, has_n).jump_if(is_zero, "left");
  canceller.store(flag_n, 1).store(fiber_flag, 1);
  canceller.label("left").unlock(lock_word).heavy_fence().lock(lock_word);
  model::add_wake(canceller, fiber, "not flagged");
  canceller.unlock(lock_word);
  model::add_resume(canceller, fiber, 2);
  model::add_completer(completer, fiber, 0);
  checker all({&publisher, &way_out, &canceller, &completer});
  all.at_end = [&all](const world& w) { return all.are_all_finished(w) && w.memory[ends] == 1; };
  world begin;
  begin.memory[has_n] = 1;
  return all.explore(begin);
}

// --- a scope that is cancelled while it is entered ---

// What was_called is in the model above is flag_s here, and the scope's owner is has_n.
model::answer outcome_of_entering(bool enterer_fences, bool canceller_fences) {
  const parking fiber{wait_word, fiber_flag, ends};
  program enterer;
  program canceller;
  enterer.lock(lock_word).store(has_n, 1).fence(enterer_fences);
  enterer.load(1, flag_s).store(fiber_flag, register_1).unlock(lock_word);
  model::add_park(enterer, fiber, 0, "parked");
  canceller.store(flag_s, 1).fence(canceller_fences).load(0, has_n);
  canceller.jump_if(is_zero, "nobody in it");
  canceller.lock(lock_word).store(fiber_flag, 1).unlock(lock_word).heavy_fence().lock(lock_word);
  model::add_wake(canceller, fiber, "not flagged");
  canceller.unlock(lock_word);
  model::add_resume(canceller, fiber, 2);
  canceller.label("nobody in it");
  checker all({&enterer, &canceller});
  all.at_end = [&all](const world& w) { return all.are_all_finished(w) && w.memory[ends] == 1; };
  return all.explore(world());
}

}  // namespace

TEST_CASE("a cancelled fiber parks nowhere below the scope, and the scope outlives its alarm") {
  const model::answer all = outcome_of_alarm(variant());
  INFO(all.bad_path);
  CHECK(all.is_sound);
  CHECK(all.ends > 1);
  MESSAGE(all.states, " states");
  const auto without = [](bool variant::*step) {
    variant v;
    v.*step = false;
    return outcome_of_alarm(v).is_sound;
  };
  CHECK_FALSE(without(&variant::has_heavy_fence));
  CHECK_FALSE(without(&variant::looks_when_parked));
  CHECK_FALSE(without(&variant::looks_behind_word));
  CHECK_FALSE(without(&variant::walks_twice));
  CHECK_FALSE(without(&variant::enters_under_lock));
  CHECK_FALSE(without(&variant::leaves_under_lock));
  CHECK_FALSE(without(&variant::waits_for_alarm));
  CHECK_FALSE(without(&variant::claims));
}

TEST_CASE("who publishes a wait asks the fiber whether it is cancelled, and not a scope that it may have left") {
  const model::answer all = outcome_of_publishing(true);
  INFO(all.bad_path);
  CHECK(all.is_sound);
  CHECK(all.ends > 1);
  CHECK_FALSE(outcome_of_publishing(false).is_sound);
}

TEST_CASE("a scope that is cancelled in the moment in which it is entered is cancelled") {
  const model::answer all = outcome_of_entering(true, true);
  INFO(all.bad_path);
  CHECK(all.is_sound);
  CHECK(all.ends > 1);
  CHECK_FALSE(outcome_of_entering(false, true).is_sound);
  CHECK_FALSE(outcome_of_entering(true, false).is_sound);
}
