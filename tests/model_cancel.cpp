// model_cancel.cpp - a cancellation walks down a tree that changes under it (runtime/cancel.hpp, runtime/scope.hpp), in every
// interleaving: no child stays parked in a cancelled nursery (N1, N2), whenever it comes, goes, or enters a scope of its own;
// a wait that something else wants to end as well, a second cancellation too, ends once; and the walkers touch no scope,
// nursery or fiber that is gone (H1, H2).
//
// The tree is as small as it can be: a host, a nursery of its own that is cancelled, and one child, with a scope of its own
// or without. What concerns one fiber alone is in model_scope.cpp.
#include <doctest/doctest.h>

#include "support/model_park.hpp"

using model::checker;
using model::parking;
using model::program;
using model::value;
using model::world;

namespace {

enum word {
  lock_host,
  gate,
  lock_child,
  nursery_flag,
  has_nursery,  // it is on the host's list of scopes
  child_flag,
  scope_flag,
  has_scope,  // the child's own is on its list
  is_member,  // the child is on the nursery's
  running,
  child_word,
  child_ends,
  nursery_gone,
  scope_gone,
  child_gone
};

enum class rival { none, completer, canceller };

struct variant {
  bool has_heavy_fence = true;  // between the walks
  bool looks_when_parked = true;
  bool looks_behind_word = true;
  bool walks_twice = true;        // mark, fence, wake; else mark and wake, and a fence behind
  bool enters_under_lock = true;  // H3
  bool leaves_under_lock = true;  // H1
  bool joins_under_lock = true;   // the child's first flag is read under the gate's lock
  bool quits_under_lock = true;   // H2: and it leaves the nursery so
  bool host_takes_gate = true;    // before the nursery goes
  bool walks_locked = true;       // N2: the locks above are held while below
  bool claims = true;
  bool child_has_scope = true;
};

parking child_of(const variant& v) {
  return {child_word, child_flag, child_ends, v.looks_when_parked, v.looks_behind_word, v.claims};
}

bool is_zero(world& w, int me) { return w.reg(me, 0) == 0; }
value register_0(world& w, int me) { return w.reg(me, 0); }

void touch(program& p, int gone, const char* what) {
  p.note(what, [gone](world& w, int) {
    if (w.memory[gone] != 0) w.fault = 1;
  });
}

// Takes a child into the nursery, and waits for its end, deaf.
void add_host(program& p, const variant& v) {
  if (!v.joins_under_lock) p.load(0, nursery_flag);
  p.lock(gate);
  if (v.joins_under_lock) p.load(0, nursery_flag);
  p.store(child_flag, register_0).store(is_member, 1).store(running, 1).unlock(gate);
  p.wait("for the child", [](world& w, int) { return w.memory[running] == 2; });
  if (v.host_takes_gate) p.lock(gate).unlock(gate);
  if (v.leaves_under_lock) p.lock(lock_host);
  p.store(has_nursery, 0);
  if (v.leaves_under_lock) p.unlock(lock_host);
  p.atomically("the nursery goes", [](world& w, int) { w.memory[nursery_gone] = 1; });
}

void add_child(program& p, const variant& v) {
  p.wait("to be launched", [](world& w, int) { return w.memory[running] == 1 && w.memory[gate] == 0; });
  if (v.child_has_scope) {
    if (v.enters_under_lock) p.lock(lock_child);
    p.load(0, nursery_flag).store(scope_flag, register_0).store(has_scope, 1).store(child_flag, register_0);
    if (v.enters_under_lock) p.unlock(lock_child);
  }
  model::add_park(p, child_of(v), 0, "parked");
  if (v.child_has_scope) {
    if (v.leaves_under_lock) p.lock(lock_child);
    p.store(has_scope, 0).load(0, nursery_flag).store(child_flag, register_0);
    if (v.leaves_under_lock) p.unlock(lock_child);
    p.atomically("its scope goes", [](world& w, int) { w.memory[scope_gone] = 1; });
  }
  if (v.quits_under_lock) p.lock(gate).lock(lock_child).unlock(lock_child);
  touch(p, nursery_gone, "the nursery is there");
  p.store(is_member, 0).store(running, 2);
  if (v.quits_under_lock) {
    touch(p, nursery_gone, "the nursery is still there");
    p.unlock(gate);
  }
  p.atomically("the fiber goes", [](world& w, int) { w.memory[child_gone] = 1; });
}

// One walk, from the host down to the child.
void add_walk(program& p, const variant& v, bool marks, bool wakes, const std::string& name) {
  p.lock(lock_host).load(0, has_nursery);
  p.jump_if(is_zero, name + ": nothing below");
  touch(p, nursery_gone, "the nursery's scope is there");
  if (marks) p.store(nursery_flag, 1);
  if (!v.walks_locked) p.unlock(lock_host);
  touch(p, nursery_gone, "the nursery is there");
  p.lock(gate).load(0, is_member);
  p.jump_if(is_zero, name + ": no child");
  touch(p, child_gone, "the child is there");
  if (!v.walks_locked) p.unlock(gate);
  p.lock(lock_child);
  touch(p, child_gone, "the child is still there");
  p.load(0, has_scope).jump_if(is_zero, name + ": no scope");
  touch(p, scope_gone, "its scope is there");
  if (marks) p.store(scope_flag, 1);
  p.label(name + ": no scope");
  if (marks) p.store(child_flag, 1);
  if (wakes) model::add_wake(p, child_of(v), "not flagged");
  p.unlock(lock_child);
  if (!v.walks_locked) p.jump(name + " is over");
  p.label(name + ": no child").unlock(gate);
  if (!v.walks_locked) p.jump(name + " is over");
  p.label(name + ": nothing below").unlock(lock_host);
  p.label(name + " is over");
}

void add_canceller(program& p, const variant& v) {
  add_walk(p, v, true, !v.walks_twice, "mark");
  p.heavy_fence(v.has_heavy_fence);
  if (v.walks_twice) add_walk(p, v, false, true, "wake");
  model::add_resume(p, child_of(v), 2);
}

model::answer outcome_of(const variant& v, rival other) {
  program host;
  program child;
  program canceller;
  program beside;
  add_host(host, v);
  add_child(child, v);
  add_canceller(canceller, v);
  if (other == rival::completer) model::add_completer(beside, child_of(v), 0);
  if (other == rival::canceller) add_canceller(beside, v);
  checker all({&host, &child, &canceller, &beside});
  all.at_end = [&all](const world& w) { return all.are_all_finished(w) && w.memory[child_ends] == 1; };
  // What a walker has yet to write comes to memory that is there.
  all.always = [](const world& w) {
    if (w.memory[child_ends] > 1) return false;
    for (const int walker : {2, 3}) {
      const auto is_late = [&](int where) { return model::is_on_its_way(w, walker, where); };
      if (w.memory[nursery_gone] != 0 && (is_late(nursery_flag) || is_late(gate))) return false;
      if (w.memory[scope_gone] != 0 && is_late(scope_flag)) return false;
      if (w.memory[child_gone] != 0 && (is_late(lock_child) || is_late(child_flag))) return false;
    }
    return true;
  };
  world begin;
  begin.memory[has_nursery] = 1;
  return all.explore(begin);
}

bool is_sound_without(bool variant::*step, rival other = rival::none) {
  for (const bool has_scope : {false, true}) {
    variant v;
    v.child_has_scope = has_scope;
    v.*step = false;
    if (!outcome_of(v, other).is_sound) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("no child stays parked in a cancelled nursery, and its wait ends once") {
  for (const rival other : {rival::none, rival::completer, rival::canceller}) {
    for (const bool has_scope : {false, true}) {
      variant v;
      v.child_has_scope = has_scope;
      const model::answer all = outcome_of(v, other);
      INFO(all.bad_path);
      CHECK(all.is_sound);
      CHECK(all.ends > 1);
      MESSAGE(all.states, " states");
    }
  }
}

TEST_CASE("each step is needed") {
  CHECK_FALSE(is_sound_without(&variant::has_heavy_fence));
  CHECK_FALSE(is_sound_without(&variant::looks_when_parked));
  CHECK_FALSE(is_sound_without(&variant::looks_behind_word));
  CHECK_FALSE(is_sound_without(&variant::walks_twice));
  CHECK_FALSE(is_sound_without(&variant::enters_under_lock));
  CHECK_FALSE(is_sound_without(&variant::leaves_under_lock));
  CHECK_FALSE(is_sound_without(&variant::joins_under_lock));
  CHECK_FALSE(is_sound_without(&variant::quits_under_lock));
  CHECK_FALSE(is_sound_without(&variant::host_takes_gate));
  CHECK_FALSE(is_sound_without(&variant::walks_locked));
  CHECK_FALSE(is_sound_without(&variant::claims, rival::completer));
  CHECK_FALSE(is_sound_without(&variant::claims, rival::canceller));
}
