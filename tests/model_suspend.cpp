// model_suspend.cpp - leaving the processor (runtime/suspend.hpp), in every interleaving: nobody runs a fiber whose
// registers are not saved yet (S2), and a cancellation finds each fiber that parks (S5). Then a future's last step:
// who may free its memory.
#include <doctest/doctest.h>

#include "support/model.hpp"

using model::checker;
using model::program;
using model::world;

namespace {

// --- S2: the site's lock stays held over the switch ---

enum word { site_lock, note_linked, wait_word, context_saved, value_given, is_resumed };

enum class publishing { after_switch, before_switch, word_after_lock };

model::answer outcome_of(publishing how) {
  program leaver;
  program waker;
  program resumed;
  leaver.lock(site_lock);
  leaver.store(note_linked, 1);
  if (how == publishing::before_switch) leaver.release(wait_word, 1).unlock(site_lock);
  leaver.store(context_saved, 1);  // the switch: from here on the next fiber's stack is in use
  if (how == publishing::after_switch) leaver.release(wait_word, 1).unlock(site_lock);
  if (how == publishing::word_after_lock) leaver.unlock(site_lock).release(wait_word, 1);

  // Comes until it finds the note; who finds it owes the wake-up.
  waker.label("again").lock(site_lock);
  waker.load(0, note_linked);
  waker.jump_if([](world& w, int me) { return w.reg(me, 0) != 0; }, "found");
  waker.unlock(site_lock).jump("again");
  waker.label("found").store(note_linked, 0);
  waker.atomically("claims", [](world& w, int me) {
    w.reg(me, 1) = w.memory[wait_word] == 1 ? 1 : 0;
    if (w.reg(me, 1) != 0) w.memory[wait_word] = 2;
  });
  waker.jump_if([](world& w, int me) { return w.reg(me, 1) == 0; }, "lost");
  waker.store(value_given, 1);
  waker.unlock(site_lock);
  waker.release(is_resumed, 1);
  waker.jump("end");
  waker.label("lost").unlock(site_lock);
  waker.label("end");

  resumed.wait("to be resumed", [](world& w, int) { return w.memory[is_resumed] != 0; });
  resumed.load(0, context_saved).load(1, value_given);
  resumed.note("runs on what was saved", [](world& w, int me) {
    if (w.reg(me, 0) == 0 || w.reg(me, 1) == 0) w.fault = 1;
  });

  checker all({&leaver, &waker, &resumed});
  all.at_end = [&all](const world& w) { return all.are_all_finished(w); };
  return all.explore(world());
}

// --- S5: cancelling all against parking ---

enum cancel_word { word_of_wait, is_cancelled, times_ended };

void add_claim(program& p) {
  p.atomically("claims", [](world& w, int) {
    if (w.memory[word_of_wait] != 1) return;
    w.memory[word_of_wait] = 2;
    ++w.memory[times_ended];
  });
}

model::answer outcome_of_cancel(bool heavy_fence, bool parker_looks, bool looks_after) {
  program parker;
  program canceller;
  if (!looks_after) parker.load(0, is_cancelled);
  parker.release(word_of_wait, 1);
  // light_fence: no step.
  if (looks_after) parker.load(0, is_cancelled);
  if (parker_looks) {
    parker.jump_if([](world& w, int me) { return w.reg(me, 0) == 0; }, "parked");
    add_claim(parker);
  }
  parker.label("parked");

  canceller.store(is_cancelled, 1);
  canceller.heavy_fence(heavy_fence);
  canceller.load(0, word_of_wait);
  canceller.jump_if([](world& w, int me) { return w.reg(me, 0) != 1; }, "done");
  add_claim(canceller);
  canceller.label("done");

  checker all({&parker, &canceller});
  all.at_end = [](const world& w) { return w.memory[times_ended] == 1; };
  return all.explore(world());
}

// --- the end of a future: the lock is retired, and that is the last touch ---

enum future_word { lock_word, result_word, waiting_note, is_freed, is_told };

model::answer outcome_of_future(bool retires_last) {
  program maker;
  program taker;
  const auto touch = [](program& p) {
    p.note("the state is there", [](world& w, int) {
      if (w.memory[is_freed] != 0) w.fault = 1;
    });
  };
  maker.store(result_word, 1);
  maker.lock(lock_word);
  if (!retires_last) maker.release(lock_word, 2);
  touch(maker);
  maker.load(0, waiting_note);
  if (retires_last) maker.release(lock_word, 2);
  maker.label("after");

  taker.label("again");
  taker.load(0, lock_word);
  taker.jump_if([](world& w, int me) { return w.reg(me, 0) != 2; }, "again");
  taker.load(1, result_word);
  taker.note("must have the result", [](world& w, int me) {
    if (w.reg(me, 1) == 0) w.fault = 1;
  });
  taker.atomically("frees the state", [](world& w, int) { w.memory[is_freed] = 1; });

  checker all({&maker, &taker});
  all.at_end = [&all](const world& w) { return all.are_all_finished(w); };
  return all.explore(world());
}

}  // namespace

TEST_CASE("a waker finds no fiber that has not left") {
  const model::answer all = outcome_of(publishing::after_switch);
  INFO(all.bad_path);
  CHECK(all.is_sound);
  CHECK(all.ends > 0);
  CHECK_FALSE(outcome_of(publishing::before_switch).is_sound);
  CHECK_FALSE(outcome_of(publishing::word_after_lock).is_sound);
}

TEST_CASE("a cancellation ends each wait once, whoever comes first") {
  const model::answer all = outcome_of_cancel(true, true, true);
  INFO(all.bad_path);
  CHECK(all.is_sound);
  CHECK_FALSE(outcome_of_cancel(false, true, true).is_sound);
  CHECK_FALSE(outcome_of_cancel(true, false, true).is_sound);
  CHECK_FALSE(outcome_of_cancel(true, true, false).is_sound);
}

TEST_CASE("the state of a future is freed after its last touch, with its result seen") {
  const model::answer all = outcome_of_future(true);
  INFO(all.bad_path);
  CHECK(all.is_sound);
  CHECK_FALSE(outcome_of_future(false).is_sound);
}
