// model_mutex.cpp - the word and the queue of a mutex (sync/mutex_core.hpp), in every interleaving: one at a time, nobody
// waits for ever, and an unlock does not touch a mutex that the next holder has destroyed (M5), also one that frees it by a
// plain store (M8).
#include <doctest/doctest.h>

#include "support/model.hpp"

using model::checker;
using model::program;
using model::value;
using model::world;

namespace {

enum word { the_word, queue_lock, first, second, third, wait_word, result = 8, inside = 11, users, is_gone, owner };
constexpr int held = 1;
constexpr int waiting = 2;
constexpr int woken = 4;
constexpr int careful = 8;  // one unlock
enum end_of_wait { none, retry, granted, cancelled };

struct variant {
  bool looks_before_parking = true;  // the locker announces itself and sees whether the mutex is still held, in one step
  bool looks_again = true;           // an unlock that found nobody frees the word only if nobody has come since
  bool leaver_unlinks = true;
  bool late_one_looks = true;  // a woken waiter whose deadline has passed takes the mutex if it is free
  bool late_one_retires = true;  // one that leaves is no longer the one that competes
  bool heavy_fence = true;
  bool waits_for_unlock = true;  // who queues first waits until no unlock is under way
  bool looks_after_wait = true;  // and looks whether that one forgot it
  bool frees_last = true;      // freeing the word is the last touch
  bool destroys = false;       // the last user destroys the mutex; who was cancelled comes again
};

bool is_queue_empty(const world& w) { return w.memory[first] == 0; }
void push(world& w, int me) {
  for (int at = first; at <= third; ++at) {
    if (w.memory[at] != 0) continue;
    w.memory[at] = static_cast<value>(me + 1);
    return;
  }
}
void erase(world& w, int who) {
  for (int at = first; at <= third; ++at) {
    if (w.memory[at] != who + 1) continue;
    for (int k = at; k < third; ++k) w.memory[k] = w.memory[k + 1];
    w.memory[third] = 0;
  }
}

// Registers: 0 an answer, 1 whom an unlock woke (number + 1), 2 whether it is a hand-over, 3 how often it was woken.
void touch(program& p, const variant& v) {
  if (!v.destroys) return;
  p.note("the mutex is there", [](world& w, int) {
    if (w.memory[is_gone] != 0) w.fault = 1;
  });
}

void add_unlock(program& p, const variant& v) {
  touch(p, v);
  p.store(owner, 0);
  // light_fence: the compiler is held, the core is not. No step.
  p.load(0, the_word);
  p.jump_if([](world& w, int me) { return w.reg(me, 0) != held; }, "is careful");
  p.release(the_word, 0);
  if (!v.frees_last) touch(p, v);
  p.jump("unlocked");
  p.label("is careful");
  touch(p, v);
  p.store(owner, 2);
  p.label("looks");
  p.load(0, the_word);
  p.jump_if([](world& w, int me) { return (w.reg(me, 0) & (waiting | woken)) == waiting; }, "slow");
  p.label("frees").atomically("frees the word if it is what was seen", [](world& w, int me) {
    const int seen = w.reg(me, 0);
    w.reg(me, 0) = w.memory[the_word] == seen ? 1 : 0;
    if (w.reg(me, 0) == 0) return;
    w.memory[the_word] = static_cast<value>(seen - held - (seen >= careful ? careful : 0));
  });
  p.jump_if([](world& w, int me) { return w.reg(me, 0) != 0; }, "unlocked");
  p.jump("looks");
  p.label("slow");
  touch(p, v);
  p.lock(queue_lock);
  p.atomically("takes the first waiter off", [](world& w, int me) {
    w.reg(me, 1) = 0;
    while (!is_queue_empty(w) && w.reg(me, 1) == 0) {
      const int who = w.memory[first] - 1;
      erase(w, who);
      if (w.memory[wait_word + who] == 1) {
        w.memory[wait_word + who] = 2;
        w.reg(me, 1) = static_cast<value>(who + 1);
        w.reg(me, 2) = w.reg(who, 3) >= 1 ? 1 : 0;
      } else if (w.memory[wait_word + who] == 3) {
        w.fault = 1;  // the note of somebody who has left
      }
    }
    if (is_queue_empty(w)) w.memory[the_word] = static_cast<value>(w.memory[the_word] & ~waiting);
  });
  if (!v.frees_last) {
    p.atomically("frees the word under the lock", [](world& w, int me) {
      if (w.reg(me, 1) == 0 || w.reg(me, 2) == 0) w.memory[the_word] =
          static_cast<value>((w.memory[the_word] & ~held) | (w.reg(me, 1) != 0 ? woken : 0));
    });
  }
  touch(p, v);
  p.unlock(queue_lock);
  p.jump_if([](world& w, int me) { return w.reg(me, 1) == 0; }, "nobody");
  if (v.frees_last) {
    p.jump_if([](world& w, int me) { return w.reg(me, 2) != 0; }, "hands over");
    touch(p, v);
    p.atomically("frees the word, and one is woken", [](world& w, int) {
      w.memory[the_word] = static_cast<value>((w.memory[the_word] & ~held) | woken);
    });
  }
  p.label("hands over").atomically("resumes", [](world& w, int me) {
    w.memory[result + w.reg(me, 1) - 1] = w.reg(me, 2) != 0 ? granted : retry;
  });
  p.jump("unlocked");
  p.label("nobody");
  if (v.frees_last && v.looks_again) {
    p.jump("looks");
  } else if (v.frees_last) {
    p.atomically("frees the word",
                 [](world& w, int) { w.memory[the_word] = static_cast<value>(w.memory[the_word] & ~held); });
  }
  p.label("unlocked");
}

// Takes the lock of the queue, and holds it at "parks"; goes back to "again" if the mutex is free.
void add_announcement(program& p, const variant& v) {
  p.lock(queue_lock);
  p.label("announces").atomically("announces", [v](world& w, int me) {
    const int word = w.memory[the_word];
    w.reg(me, 0) = (word & held) != 0 || !v.looks_before_parking ? 1 : 0;
    w.reg(me, 1) = word >= careful ? 1 : 0;
    if (w.reg(me, 0) == 0) return;
    const int over = w.reg(me, 3) != 0 ? woken : 0;
    w.memory[the_word] = static_cast<value>((word & (held | waiting | woken) & ~over) | waiting | careful);
  });
  p.jump_if([](world& w, int me) { return w.reg(me, 0) == 0; }, "is free");
  p.jump_if([](world& w, int me) { return w.reg(me, 1) != 0; }, "parks");
  p.heavy_fence(v.heavy_fence);
  if (v.waits_for_unlock)
    p.wait("until no unlock is under way",
           [](world& w, int) { return w.memory[owner] != 0 || (w.memory[the_word] & waiting) == 0; });
  if (v.looks_after_wait) {
    p.load(0, the_word);
    p.jump_if([](world& w, int me) { return (w.reg(me, 0) & waiting) == 0; }, "announces");
  }
  p.jump("parks");
  p.label("is free").unlock(queue_lock).jump("again");
}

void add_locker(program& p, const variant& v, bool is_impatient) {
  p.label("again");
  p.atomically("tries", [](world& w, int me) {
    w.reg(me, 0) = (w.memory[the_word] & held) == 0 ? 1 : 0;
    if (w.reg(me, 0) == 0) return;
    w.memory[the_word] = static_cast<value>((w.memory[the_word] | held) & (w.reg(me, 3) != 0 ? ~woken : ~0));
  });
  p.jump_if([](world& w, int me) { return w.reg(me, 0) != 0; }, "taken");
  if (is_impatient) {
    p.jump_if([](world& w, int me) { return w.reg(me, 3) == 0; }, "waits");
    p.atomically("leaves while it is held", [v](world& w, int me) {
      w.reg(me, 0) = (w.memory[the_word] & held) != 0 ? 1 : 0;
      if (w.reg(me, 0) != 0 && v.late_one_retires)
        w.memory[the_word] = static_cast<value>(w.memory[the_word] & ~woken);
    });
    p.jump_if([](world& w, int me) { return w.reg(me, 0) == 0; }, "again");
    p.jump("end");
    p.label("waits");
  }
  add_announcement(p, v);
  p.label("parks").atomically("queues", [](world& w, int me) {
    push(w, me);
    w.memory[wait_word + me] = 1;
  });
  p.unlock(queue_lock);
  p.wait(
      "to be resumed", [](world& w, int me) { return w.memory[result + me] != none; },
      [](world& w, int me) {
        w.reg(me, 0) = w.memory[result + me];
        w.memory[result + me] = none;
        if (w.reg(me, 3) == 0) ++w.reg(me, 3);
      });
  p.jump_if([](world& w, int me) { return w.reg(me, 0) == granted; }, "taken");
  if (is_impatient && !v.late_one_looks) p.jump("end");
  p.jump_if([](world& w, int me) { return w.reg(me, 0) == retry; }, "again");
  p.lock(queue_lock).atomically("leaves the queue", [v](world& w, int me) {
    if (v.leaver_unlinks) erase(w, me);
    if (is_queue_empty(w)) w.memory[the_word] = static_cast<value>(w.memory[the_word] & ~waiting);
    w.memory[wait_word + me] = v.destroys ? 0 : 3;
  });
  p.unlock(queue_lock).jump(v.destroys ? "again" : "end");

  p.label("taken");
  p.store(owner, 1, true);
  p.atomically("is inside", [](world& w, int me) {
    if (++w.memory[inside] != 1) w.fault = 1;
    w.reg(me, 3) = --w.memory[users] == 0 ? 1 : 0;
  });
  p.atomically("goes", [](world& w, int) { --w.memory[inside]; });
  add_unlock(p, v);
  if (v.destroys) {
    p.jump_if([](world& w, int me) { return w.reg(me, 3) == 0; }, "end");
    p.atomically("destroys the mutex", [](world& w, int) { w.memory[is_gone] = 1; });
  }
  p.label("end");
}

model::answer outcome_of(const variant& v) {
  program patient;
  program other;
  program impatient;
  program canceller;
  add_locker(patient, v, false);
  add_locker(other, v, false);
  add_locker(impatient, v, !v.destroys);
  canceller.atomically("cancels the second", [](world& w, int) {
    if (w.memory[wait_word + 1] != 1) return;
    w.memory[wait_word + 1] = 2;
    w.memory[result + 1] = cancelled;
  });
  checker all({&patient, &other, &impatient, &canceller});
  all.at_end = [&all](const world& w) { return all.are_all_finished(w) && w.memory[the_word] == 0; };
  world begin;
  begin.memory[users] = 3;
  return all.explore(begin);
}

}  // namespace

TEST_CASE("one at a time, and nobody waits for ever, whoever is cancelled or late") {
  const model::answer all = outcome_of(variant());
  INFO(all.bad_path);
  CHECK(all.is_sound);
  CHECK(all.ends > 1);
  MESSAGE(all.states, " states");
}

TEST_CASE("each step is needed") {
  variant parks_blindly;
  parks_blindly.looks_before_parking = false;
  CHECK_FALSE(outcome_of(parks_blindly).is_sound);
  variant frees_blindly;
  frees_blindly.looks_again = false;
  CHECK_FALSE(outcome_of(frees_blindly).is_sound);
  variant stays_linked;
  stays_linked.leaver_unlinks = false;
  CHECK_FALSE(outcome_of(stays_linked).is_sound);
  variant leaves_when_woken;
  leaves_when_woken.late_one_looks = false;
  CHECK_FALSE(outcome_of(leaves_when_woken).is_sound);
  variant stays_woken;
  stays_woken.late_one_retires = false;
  CHECK_FALSE(outcome_of(stays_woken).is_sound);
  for (bool variant::*part : {&variant::heavy_fence, &variant::waits_for_unlock, &variant::looks_after_wait}) {
    variant v;
    v.*part = false;
    CHECK_FALSE(outcome_of(v).is_sound);
  }
}

TEST_CASE("the last user may destroy the mutex") {
  variant destroyed;
  destroyed.destroys = true;
  const model::answer all = outcome_of(destroyed);
  INFO(all.bad_path);
  CHECK(all.is_sound);
  destroyed.frees_last = false;
  CHECK_FALSE(outcome_of(destroyed).is_sound);
}
