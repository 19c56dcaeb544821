// model_once.cpp - three callers of one function (sync/once.hpp), in every interleaving in which the first run fails and
// waits are cancelled or run out of time: it is done once, by one at a time; there is never somebody who queues while nobody
// runs (N1); and who was struck gets home also when it has been done meanwhile (runtime/wait_queue.hpp, Q4).
#include <doctest/doctest.h>

#include "support/model_wait.hpp"

using model::checker;
using model::program;
using model::site;
using model::value;
using model::world;

namespace {

enum word { lock_word, runner, queue, wait_word = 4, result = 7, inside = 10, times_done, failures_left, data, raised };
constexpr int callers = 3;
constexpr int is_done = 2;

struct variant {
  bool has_heir = true;        // N1: who fails hands on to the first that waits
  bool heir_is_runner = true;  // N1: in the same hold
  bool takes_before_retiring = true;
  bool publishes = true;  // retiring is a release
  bool claims = true;
  bool leaver_unlinks = true;
  bool leaves_unless_retired = true;
};

site the_site(const variant& v) {
  site s{lock_word, queue, callers - 1, wait_word, result, is_done};
  s.claims = v.claims;
  s.leaver_unlinks = v.leaver_unlinks;
  s.leaves_unless_retired = v.leaves_unless_retired;
  return s;
}

void add_pass_on(program& p, const variant& v) {
  const site s = the_site(v);
  p.lock(lock_word).atomically("hands on", [s, v](world& w, int me) {
    w.reg(me, 1) = v.has_heir ? model::pop_claimed(w, s) : value{0};
    w.memory[runner] = v.heir_is_runner ? w.reg(me, 1) : value{0};
  });
  p.unlock(lock_word).atomically("resumes", [s](world& w, int me) {
    if (w.reg(me, 1) != 0) model::resume(w, s, w.reg(me, 1) - 1, model::retry);
  });
}

void add_finish(program& p, const variant& v) {
  const site s = the_site(v);
  const auto take_all = [s](world& w, int me) { w.reg(me, 1) = model::pop_all(w, s); };
  p.lock(lock_word);
  if (v.takes_before_retiring) p.atomically("takes all off", take_all);
  p.store(data, 1);  // by the function, before the lock: taking that only acquires, and lets a store pass to behind it
  p.store(lock_word, is_done, v.publishes);
  if (!v.takes_before_retiring) p.atomically("takes all off", take_all);
  p.atomically("resumes", [s](world& w, int me) { model::resume_all(w, s, w.reg(me, 1), model::granted); });
}

// Registers: 0 what ended the wait, 1 whom to resume, and answers.
void add_call(program& p, const variant& v) {
  const site s = the_site(v);
  const auto is_yes = [](world& w, int me) { return w.reg(me, 1) != 0; };
  p.load(1, lock_word).jump_if([](world& w, int me) { return w.reg(me, 1) == is_done; }, "returns");
  p.wait(
      "for the lock, or done", [](world& w, int) { return w.memory[lock_word] != 1; },
      [](world& w, int me) {
        w.reg(me, 1) = w.memory[lock_word] == is_done ? 1 : 0;
        if (w.reg(me, 1) == 0) w.memory[lock_word] = 1;
      });
  p.jump_if(is_yes, "returns");
  p.atomically("looks who runs", [](world& w, int me) {
    w.reg(me, 1) = w.memory[runner] != 0 ? 1 : 0;
    if (w.reg(me, 1) == 0) w.memory[runner] = static_cast<value>(me + 1);
  });
  p.jump_if(is_yes, "waits").unlock(lock_word).jump("runs");

  p.label("waits");
  model::add_wait(p, s, "has waited");
  p.jump_if([](world& w, int me) { return w.reg(me, 0) == model::granted; }, "returns");
  p.jump_if([](world& w, int me) { return w.reg(me, 0) == model::struck; }, "raises");

  p.label("runs").atomically("begins", [](world& w, int) {
    if (++w.memory[inside] != 1) w.fault = 1;
  });
  p.atomically("ends", [](world& w, int me) {
    --w.memory[inside];
    w.reg(me, 1) = w.memory[failures_left];
    if (w.reg(me, 1) != 0)
      --w.memory[failures_left];
    else
      ++w.memory[times_done];
  });
  p.jump_if(is_yes, "fails");
  add_finish(p, v);
  p.jump("returns");
  p.label("fails");
  add_pass_on(p, v);
  p.label("raises").atomically("raises", [](world& w, int) { ++w.memory[raised]; });
  p.jump("end");
  p.label("returns").load(1, data);
  p.note("sees what was done", [](world& w, int me) {
    if (w.reg(me, 1) == 0) w.fault = 1;
  });
  p.label("end");
}

model::answer outcome_of(const variant& v, value failures) {
  program all_callers[callers];
  program striker;
  for (program& one : all_callers) add_call(one, v);
  model::add_strike(striker, the_site(v), 0);
  model::add_strike(striker, the_site(v), 1);
  checker all({&all_callers[0], &all_callers[1], &all_callers[2], &striker});
  all.always = [](const world& w) { return w.memory[times_done] <= 1; };
  all.at_end = [&all](const world& w) {
    if (!all.are_all_finished(w) || w.memory[queue] != 0) return false;
    if (w.memory[times_done] == 1) return w.memory[lock_word] == is_done;
    return w.memory[raised] == callers && w.memory[lock_word] == 0 && w.memory[runner] == 0;
  };
  world begin;
  begin.memory[failures_left] = failures;
  return all.explore(begin);
}

bool is_sound(const variant& v) { return outcome_of(v, 0).is_sound && outcome_of(v, 1).is_sound; }

}  // namespace

TEST_CASE("it is done once, whoever fails, is cancelled or runs out of time") {
  for (const value failures : {value{0}, value{1}}) {
    const model::answer all = outcome_of(variant(), failures);
    INFO(all.bad_path);
    CHECK(all.is_sound);
    CHECK(all.ends > 1);
    MESSAGE(all.states, " states");
  }
}

TEST_CASE("each step is needed") {
  variant leaves_them_waiting;
  leaves_them_waiting.has_heir = false;
  CHECK_FALSE(is_sound(leaves_them_waiting));
  variant heir_comes_late;
  heir_comes_late.heir_is_runner = false;
  CHECK_FALSE(is_sound(heir_comes_late));
  variant retires_first;
  retires_first.takes_before_retiring = false;
  CHECK_FALSE(is_sound(retires_first));
  variant publishes_nothing;
  publishes_nothing.publishes = false;
  CHECK_FALSE(is_sound(publishes_nothing));
  variant chooses_the_struck;
  chooses_the_struck.claims = false;
  CHECK_FALSE(is_sound(chooses_the_struck));
  variant stays_linked;
  stays_linked.leaver_unlinks = false;
  CHECK_FALSE(is_sound(stays_linked));
  variant waits_for_lock;
  waits_for_lock.leaves_unless_retired = false;
  CHECK_FALSE(is_sound(waits_for_lock));
}
