// model_run_queue.cpp - the lock that is free for its owner (runtime/run_queue.hpp), in every interleaving.
//
// An owner that goes in twice and two thieves that go in once each. Inside, each adds one to a plain number: so it is
// seen both that nobody is inside together and that each sees what the one before did.
#include <doctest/doctest.h>

#include "support/model.hpp"

using model::checker;
using model::program;
using model::world;

namespace {

struct variant {
  bool heavy_fence = true;
  bool thief_announces_first = true;  // thief_inside_ before the look at owner_inside_
  bool owner_steps_back = true;
  bool owner_leaves_by_release = true;
  bool thief_leaves_by_release = true;
  bool one_thief_at_a_time = true;
  int thieves = 2;
};

enum word { owner_inside, thief_inside, plain, entries };

void add_inside(program& p, const std::string& from, const std::string& to) {
  p.label(from);
  p.load(1, plain);
  p.store(plain, [](world& w, int me) { return static_cast<model::value>(w.reg(me, 1) + 1); });
  p.note("counts", [](world& w, int) { ++w.memory[entries]; });
  p.label(to);
}

void add_owner(program& p, const variant& v) {
  for (int round = 0; round < 2; ++round) {
    const std::string n = std::to_string(round);
    p.label("enter" + n);
    p.store(owner_inside, 1);
    // light_fence: the compiler is held, the core is not. No step.
    p.load(0, thief_inside);
    if (v.owner_steps_back) {
      p.jump_if([](world& w, int me) { return w.reg(me, 0) == 0; }, "inside" + n);
      p.release(owner_inside, 0);
      p.wait("until the thief has gone", [](world& w, int) { return w.memory[thief_inside] == 0; });
      p.jump("enter" + n);
    }
    add_inside(p, "inside" + n, "outside" + n);
    p.store(owner_inside, 0, v.owner_leaves_by_release);
  }
}

void add_thief(program& p, const variant& v) {
  const auto announce = [&] {
    p.atomically("announces itself", [one = v.one_thief_at_a_time](world& w, int me) {
      w.reg(me, 2) = w.memory[thief_inside] == 0 || !one ? 1 : 0;
      if (w.reg(me, 2) != 0) w.memory[thief_inside] = 1;
    });
    p.jump_if([](world& w, int me) { return w.reg(me, 2) == 0; }, "end");
  };
  if (v.thief_announces_first) announce();
  p.heavy_fence(v.heavy_fence);
  p.load(0, owner_inside);
  if (!v.thief_announces_first) announce();
  p.jump_if([](world& w, int me) { return w.reg(me, 0) != 0; }, "outside");
  add_inside(p, "inside", "outside");
  p.store(thief_inside, 0, v.thief_leaves_by_release);
  p.label("end");
}

model::answer outcome_of(const variant& v) {
  program owner;
  program thief;
  add_owner(owner, v);
  add_thief(thief, v);
  std::vector<const program*> programs{&owner, &thief};
  if (v.thieves == 2) programs.push_back(&thief);
  checker all(programs);
  all.always = [&](const world& w) {
    int inside = owner.is_between(w, 0, "inside0", "outside0") || owner.is_between(w, 0, "inside1", "outside1") ? 1 : 0;
    for (int t = 1; t <= v.thieves; ++t) inside += thief.is_between(w, t, "inside", "outside") ? 1 : 0;
    return inside <= 1;
  };
  all.at_end = [&all](const world& w) { return all.are_all_finished(w) && w.memory[plain] == w.memory[entries]; };
  return all.explore(world());
}

}  // namespace

TEST_CASE("owner and thieves are never inside together, and each sees what was done before") {
  for (int thieves = 1; thieves <= 2; ++thieves) {
    variant v;
    v.thieves = thieves;
    const model::answer all = outcome_of(v);
    INFO(all.bad_path);
    CHECK(all.is_sound);
    CHECK(all.ends > 1);
    MESSAGE(thieves << " thieves: " << all.states << " states, " << all.ends << " ends");
  }
}

TEST_CASE("each part of the lock is needed") {
  const auto is_faulty = [](bool variant::*part) {
    variant v;
    v.*part = false;
    return !outcome_of(v).is_sound;
  };
  CHECK(is_faulty(&variant::heavy_fence));
  CHECK(is_faulty(&variant::thief_announces_first));
  CHECK(is_faulty(&variant::owner_steps_back));
  CHECK(is_faulty(&variant::owner_leaves_by_release));
  CHECK(is_faulty(&variant::thief_leaves_by_release));
  CHECK(is_faulty(&variant::one_thief_at_a_time));
}
