// model_condition.cpp - waiting on a condition (sync/condition_variable.hpp), in every interleaving: no notification is
// lost between letting go of the lock and the wait, nor by a waiter that was cancelled or could not wait.
#include <doctest/doctest.h>

#include "support/model.hpp"

using model::checker;
using model::program;
using model::value;
using model::world;

namespace {

enum word { the_lock, queue_lock, first, second, note_state, wait_word = 6, result = 8, tokens = 10 };
enum state { outside, entering, parked, notified, gone };
enum end_of_wait { none, granted, cancelled };

struct variant {
  bool enters_first = true;         // the note is in the queue before the lock is let go (V1)
  bool keeps_early_ones = true;     // a notification of one that still enters is kept in its note (V2)
  bool goes_on_to_next = true;      // one that was cancelled cannot be notified: the next one is (V2)
  bool leaver_unlinks = true;
  bool looks_before_parking = true;  // whether it has been notified meanwhile
  bool passes_on = true;             // one that was notified and cannot wait notifies the next (V3)
  bool claims = true;                // a notification and a cancellation cannot both end one wait
};

enum class trouble { none, cancellation, unlock_throws };

void erase(world& w, int who) {
  if (w.memory[first] == who + 1) {
    w.memory[first] = w.memory[second];
    w.memory[second] = 0;
  } else if (w.memory[second] == who + 1) {
    w.memory[second] = 0;
  }
}

void notify(world& w, const variant& v) {
  while (w.memory[first] != 0) {
    const int who = w.memory[first] - 1;
    erase(w, who);
    if (w.memory[note_state + who] == gone) w.fault = 1;  // the note of somebody who has left
    if (w.memory[note_state + who] == entering) {
      if (v.keeps_early_ones) w.memory[note_state + who] = notified;
      return;
    }
    if (w.memory[wait_word + who] == 1 || (!v.claims && w.memory[wait_word + who] == 2)) {
      w.memory[wait_word + who] = 2;
      w.memory[note_state + who] = notified;
      w.memory[result + who] = granted;
      return;
    }
    if (!v.goes_on_to_next) return;
  }
}

void add_notify(program& p, const variant& v, const std::string& end) {
  p.lock(queue_lock).atomically("notifies one", [v](world& w, int) { notify(w, v); });
  p.unlock(queue_lock).label(end);
}

void add_enter(program& p) {
  p.lock(queue_lock).atomically("enters the queue", [](world& w, int me) {
    w.memory[w.memory[first] == 0 ? first : second] = static_cast<value>(me + 1);
    w.memory[note_state + me] = entering;
    w.memory[wait_word + me] = 0;
    w.memory[result + me] = none;
  });
  p.unlock(queue_lock);
}

void add_leave(program& p, const variant& v) {
  p.lock(queue_lock).atomically("leaves the queue", [v](world& w, int me) {
    w.reg(me, 1) = w.memory[note_state + me] == notified ? 1 : 0;
    if (v.leaver_unlinks) erase(w, me);
    w.memory[note_state + me] = gone;
  });
  p.unlock(queue_lock);
}

// Takes a token, or waits until there is one.
void add_waiter(program& p, const variant& v, bool unlock_throws) {
  p.lock(the_lock).label("looks").load(0, tokens);
  p.jump_if([](world& w, int me) { return w.reg(me, 0) != 0; }, "has one");
  if (v.enters_first) add_enter(p);
  p.unlock(the_lock);
  if (!v.enters_first) add_enter(p);
  if (unlock_throws) {
    add_leave(p, v);
    p.jump_if([](world& w, int me) { return w.reg(me, 1) == 0; }, "thrown");
    if (v.passes_on) add_notify(p, v, "passed on");
    p.label("thrown").jump("end");
  }
  p.lock(queue_lock).atomically("parks, unless notified", [v](world& w, int me) {
    w.reg(me, 0) = w.memory[note_state + me] == notified && v.looks_before_parking ? 1 : 0;
    if (w.reg(me, 0) != 0) return;
    w.memory[note_state + me] = parked;
    w.memory[wait_word + me] = 1;
  });
  p.unlock(queue_lock);
  p.jump_if([](world& w, int me) { return w.reg(me, 0) != 0; }, "goes on");
  p.wait(
      "to be resumed", [](world& w, int me) { return w.memory[result + me] != none; },
      [](world& w, int me) { w.reg(me, 0) = w.memory[result + me]; });
  p.jump_if([](world& w, int me) { return w.reg(me, 0) == granted; }, "goes on");
  add_leave(p, v);
  p.jump("end");
  p.label("goes on").lock(the_lock).jump("looks");
  p.label("has one").atomically("takes it", [](world& w, int) { --w.memory[tokens]; });
  p.unlock(the_lock).label("end");
}

// As many tokens as waiters that stay, each with its notification. Who is cancelled or cannot wait may have taken one
// before: then the last of the others waits for ever by right, unless a token lies there.
model::answer outcome_of(const variant& v, trouble what) {
  program troubled;
  program other;
  program giver;
  program canceller;
  add_waiter(troubled, v, what == trouble::unlock_throws);
  add_waiter(other, v, false);
  const int given = what == trouble::none ? 2 : 1;
  for (int i = 0; i < given; ++i) {
    giver.lock(the_lock).atomically("gives a token", [](world& w, int) { ++w.memory[tokens]; });
    giver.unlock(the_lock);
    add_notify(giver, v, "given " + std::to_string(i));
  }
  if (what == trouble::cancellation) {
    canceller.atomically("cancels the first", [](world& w, int) {
      if (w.memory[wait_word] != 1) return;
      w.memory[wait_word] = 2;
      w.memory[result] = cancelled;
    });
  }
  checker all({&troubled, &other, &giver, &canceller});
  all.at_end = [&all](const world& w) {
    return all.are_all_finished(w) || (all.is_finished(w, 2) && w.memory[tokens] == 0);
  };
  all.always = [](const world& w) { return w.memory[tokens] >= 0; };
  return all.explore(world());
}

bool is_sound(const variant& v) {
  for (const trouble what : {trouble::none, trouble::cancellation, trouble::unlock_throws}) {
    if (!outcome_of(v, what).is_sound) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("nobody waits while a token lies there, whoever is cancelled or cannot wait") {
  for (const trouble what : {trouble::none, trouble::cancellation, trouble::unlock_throws}) {
    const model::answer all = outcome_of(variant(), what);
    INFO(all.bad_path);
    CHECK(all.is_sound);
    CHECK(all.ends > 0);
    MESSAGE(all.states, " states");
  }
}

TEST_CASE("each step is needed") {
  variant enters_late;
  enters_late.enters_first = false;
  CHECK_FALSE(is_sound(enters_late));
  variant forgets_early_ones;
  forgets_early_ones.keeps_early_ones = false;
  CHECK_FALSE(is_sound(forgets_early_ones));
  variant stops_at_the_cancelled;
  stops_at_the_cancelled.goes_on_to_next = false;
  CHECK_FALSE(is_sound(stops_at_the_cancelled));
  variant stays_linked;
  stays_linked.leaver_unlinks = false;
  CHECK_FALSE(is_sound(stays_linked));
  variant parks_blindly;
  parks_blindly.looks_before_parking = false;
  CHECK_FALSE(is_sound(parks_blindly));
  variant keeps_it;
  keeps_it.passes_on = false;
  CHECK_FALSE(is_sound(keeps_it));
  variant gives_to_the_cancelled;
  gives_to_the_cancelled.claims = false;
  CHECK_FALSE(is_sound(gives_to_the_cancelled));
}
