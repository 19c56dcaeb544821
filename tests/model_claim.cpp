// model_claim.cpp - that a wait ends exactly once (runtime/waiter.hpp), also when its deadline, its waker and a cancellation
// come together, and that the timer of a fiber that is still leaving, perhaps into a wait that is cancelled already, is
// neither lost nor touches a frame that is gone (runtime/suspend.hpp, S2 and S5).
#include <doctest/doctest.h>

#include "support/model.hpp"

using model::checker;
using model::program;
using model::world;

namespace {

// --- several claimers, one wait ---

enum claim_word { wait_word, resumed, result, results_written };

// As claim() does it, or in two steps.
void add_claimer(program& p, int outcome, bool in_one_step) {
  if (in_one_step) {
    p.atomically("claims", [](world& w, int me) {
      w.reg(me, 0) = w.memory[wait_word] == 1 ? 1 : 0;
      if (w.reg(me, 0) != 0) w.memory[wait_word] = 2;
    });
    p.jump_if([](world& w, int me) { return w.reg(me, 0) == 0; }, "lost");
  } else {
    p.load(0, wait_word);
    p.jump_if([](world& w, int me) { return w.reg(me, 0) != 1; }, "lost");
    p.release(wait_word, 2);
  }
  p.store(result, outcome);
  p.release(resumed, 1);
  p.note("counts", [](world& w, int) { ++w.memory[results_written]; });
  p.label("lost");
}

model::answer outcome_of_claims(bool in_one_step) {
  program deadline;
  program waker;
  program canceller;
  program party;
  add_claimer(deadline, 1, in_one_step);
  add_claimer(waker, 2, in_one_step);
  add_claimer(canceller, 3, in_one_step);
  party.wait("to be resumed", [](world& w, int) { return w.memory[resumed] != 0; });
  party.load(0, result);
  party.note("must have a result", [](world& w, int me) {
    if (w.reg(me, 0) == 0) w.fault = 1;
  });
  checker all({&deadline, &waker, &canceller, &party});
  all.always = [](const world& w) { return w.memory[results_written] <= 1; };
  all.at_end = [&all](const world& w) { return all.are_all_finished(w) && w.memory[results_written] == 1; };
  world begin;
  begin.memory[wait_word] = 1;
  return all.explore(begin);
}

// --- the timer and the leaving fiber ---

// How the two could be ordered, and what a timer does that fires too soon.
struct variant {
  bool timer_before_word = true;     // S2
  bool timer_waits_for_word = true;  // a timer that finds the word even comes again a tick later
  bool calls_off_timer = true;       // the fiber takes its timer out before its frame goes (D2)
  bool is_cancelled = false;         // its scope is: who publishes the wait ends it
};

enum word { word_of_wait, timer_set, wheel_lock, frame_gone, waker_sees_note, is_resumed, due };

// As the waker, a cancellation, or who publishes the wait of a fiber that is cancelled already.
void add_waker(program& p) {
  p.atomically("claims", [](world& w, int me) {
    w.reg(me, 0) = w.memory[word_of_wait] == 1 ? 1 : 0;
    if (w.reg(me, 0) != 0) w.memory[word_of_wait] = 2;
  });
  p.jump_if([](world& w, int me) { return w.reg(me, 0) == 0; }, "lost");
  p.atomically("resumes", [](world& w, int) { ++w.memory[is_resumed]; });
  p.label("lost");
}

// The worker that publishes the fiber that left, then the fiber's own way out once it is resumed.
void add_fiber(program& p, const variant& v) {
  const auto set_timer = [&] {
    p.lock(wheel_lock);
    p.note("the frame is there", [](world& w, int) {
      if (w.memory[frame_gone] != 0) w.fault = 1;
    });
    p.store(timer_set, 1);
    p.unlock(wheel_lock);
  };
  if (v.timer_before_word) set_timer();
  p.release(word_of_wait, 1);
  if (!v.timer_before_word) set_timer();
  if (v.is_cancelled) add_waker(p);
}

// What runs on the fiber's frame after it is resumed, on whatever worker.
void add_way_out(program& p, const variant& v) {
  p.wait("to be resumed", [](world& w, int) { return w.memory[is_resumed] != 0; });
  if (v.calls_off_timer) {
    p.load(0, timer_set);
    p.jump_if([](world& w, int me) { return w.reg(me, 0) == 0; }, "returns");
    p.lock(wheel_lock);
    p.store(timer_set, 0);
    p.unlock(wheel_lock);
  }
  p.label("returns").atomically("its frame goes", [](world& w, int) { w.memory[frame_gone] = 1; });
}

// The wheel: looks at a set timer under its lock, and claims.
void add_wheel(program& p, const variant& v) {
  p.label("tick");
  p.wait("for a set timer, or the end",
         [](world& w, int) { return w.memory[timer_set] != 0 || w.memory[is_resumed] != 0; });
  p.lock(wheel_lock);
  p.load(0, timer_set);
  p.jump_if([](world& w, int me) { return w.reg(me, 0) == 0; }, "nothing");
  p.note("the frame is there", [](world& w, int) {
    if (w.memory[frame_gone] != 0) w.fault = 1;
  });
  if (v.timer_waits_for_word) {
    p.load(1, word_of_wait);
    p.jump_if([](world& w, int me) { return w.reg(me, 1) == 0; }, "later");
  }
  p.atomically("claims", [](world& w, int me) {
    w.reg(me, 1) = w.memory[word_of_wait] == 1 ? 1 : 0;
    if (w.reg(me, 1) != 0) w.memory[word_of_wait] = 2;
  });
  p.store(timer_set, 0);
  p.unlock(wheel_lock);
  p.jump_if([](world& w, int me) { return w.reg(me, 1) == 0; }, "end");
  p.atomically("resumes", [](world& w, int) { ++w.memory[is_resumed]; });
  p.jump("end");
  p.label("later").unlock(wheel_lock).jump("tick");
  p.label("nothing").unlock(wheel_lock);
  p.label("end");
}

model::answer outcome_of_timer(const variant& v) {
  program fiber;
  program way_out;
  program wheel;
  program waker;
  add_fiber(fiber, v);
  add_way_out(way_out, v);
  add_wheel(wheel, v);
  add_waker(waker);
  checker all({&fiber, &way_out, &wheel, &waker});
  all.at_end = [&all](const world& w) { return all.are_all_finished(w) && w.memory[is_resumed] == 1; };
  return all.explore(world());
}

}  // namespace

TEST_CASE("of several claimers one wins, and its result is the one that is seen") {
  const model::answer all = outcome_of_claims(true);
  INFO(all.bad_path);
  CHECK(all.is_sound);
  CHECK_FALSE(outcome_of_claims(false).is_sound);
}

TEST_CASE("the timer of a leaving fiber is neither lost nor left behind") {
  const model::answer all = outcome_of_timer(variant());
  INFO(all.bad_path);
  CHECK(all.is_sound);
  CHECK(all.ends > 1);
  variant set_late;
  set_late.timer_before_word = false;
  CHECK_FALSE(outcome_of_timer(set_late).is_sound);
  variant drops_early_timer;
  drops_early_timer.timer_waits_for_word = false;
  CHECK_FALSE(outcome_of_timer(drops_early_timer).is_sound);
  variant forgets_timer;
  forgets_timer.calls_off_timer = false;
  CHECK_FALSE(outcome_of_timer(forgets_timer).is_sound);
}

TEST_CASE("nor is it when the wait is cancelled as soon as it begins") {
  variant cancelled;
  cancelled.is_cancelled = true;
  const model::answer all = outcome_of_timer(cancelled);
  INFO(all.bad_path);
  CHECK(all.is_sound);
  CHECK(all.ends > 1);
  variant set_late = cancelled;
  set_late.timer_before_word = false;
  CHECK_FALSE(outcome_of_timer(set_late).is_sound);
  variant forgets_timer = cancelled;
  forgets_timer.calls_off_timer = false;
  CHECK_FALSE(outcome_of_timer(forgets_timer).is_sound);
}
