// model_select.cpp - the protocol of a select over two sites (channel/select.hpp), in every interleaving.
//
// First the wait: one claim for both notes, all locks dropped after the switch, the losing notes taken away under theirs, also
// when it was cancelled or ran out of time and both have lost (E3, E5, suspend.hpp S6). Then the moment: all locks are held
// while a select looks, and are taken in one order (E1, E2). Each is red when a step of it is left out.
#include <doctest/doctest.h>

#include "support/model.hpp"

using model::checker;
using model::program;
using model::world;

namespace {

// --- one wait at two sites ---

// Words 0 and 1 are the locks of the sites, 2 and 3 the notes in their queues; site a has the lower address.
enum word {
  lock_a,
  lock_b,
  note_a,
  note_b,
  wait_word,
  wait_word_b,
  is_resumed,
  given,
  frame_gone,
  resumes,
  winner,
  was_struck
};

struct variant {
  bool one_claim = true;           // the notes share a wait word
  bool claim_in_one_step = true;   // looking at it and taking it are one
  bool leaves_notes = true;        // the select takes its notes away before its frame goes
  bool leaves_under_lock = true;   // so it waits until the publisher has dropped that lock
  bool word_before_unlock = true;  // the wait is published before its notes can be found
};

void must_be_there(program& p, const char* what) {
  p.note(what, [](world& w, int) {
    if (w.memory[frame_gone] != 0) w.fault = 1;
  });
}

// Who runs next on the worker publishes the select that left; the chain of locks lies in that one's frame.
void add_publisher(program& p, const variant& v) {
  p.lock(lock_a).lock(lock_b);
  p.store(note_a, 1).store(note_b, 1);
  const auto publish = [&] {
    p.release(wait_word, 1);
    if (!v.one_claim) p.release(wait_word_b, 1);
  };
  if (v.word_before_unlock) publish();
  must_be_there(p, "reads the chain");
  p.unlock(lock_b);
  must_be_there(p, "reads the rest of the chain");
  p.unlock(lock_a);
  if (!v.word_before_unlock) publish();
}

// A peer that comes to one site with a value until it finds the note; it keeps the value if the claim fails.
void add_peer(program& p, const variant& v, bool is_b) {
  const int lock = is_b ? lock_b : lock_a;
  const int note = is_b ? note_b : note_a;
  const int claimed = is_b && !v.one_claim ? wait_word_b : wait_word;
  p.lock(lock).load(0, note);
  p.jump_if([](world& w, int me) { return w.reg(me, 0) == 0; }, "keeps it");
  must_be_there(p, "reads the note");
  p.store(note, 0);
  if (v.claim_in_one_step) {
    p.atomically("claims", [claimed](world& w, int me) {
      w.reg(me, 1) = w.memory[claimed] == 1 ? 1 : 0;
      if (w.reg(me, 1) != 0) w.memory[claimed] = 2;
    });
    p.jump_if([](world& w, int me) { return w.reg(me, 1) == 0; }, "keeps it");
  } else {
    p.load(1, claimed);
    p.jump_if([](world& w, int me) { return w.reg(me, 1) != 1; }, "keeps it");
    p.release(claimed, 2);
  }
  must_be_there(p, "moves the value");
  p.atomically("gives", [is_b](world& w, int) {
    ++w.memory[given];
    w.memory[winner] = is_b ? 2 : 1;
  });
  p.unlock(lock);
  p.atomically("resumes", [](world& w, int) {
    w.memory[is_resumed] = 1;
    ++w.memory[resumes];
  });
  p.jump("end");
  p.label("keeps it").unlock(lock);
  p.label("end");
}

// A timer or a cancellation, which has no site of its own.
void add_striker(program& p) {
  p.atomically("strikes", [](world& w, int) {
    if (w.memory[wait_word] != 1) return;
    w.memory[wait_word] = 2;
    w.memory[is_resumed] = 1;
    ++w.memory[resumes];
    w.memory[was_struck] = 1;
  });
}

// The select, once it goes on.
void add_rest(program& p, const variant& v) {
  p.wait("to be resumed", [](world& w, int) { return w.memory[is_resumed] != 0; });
  for (const int site : {0, 1}) {
    const std::string past = site == 0 ? "past a" : "past b";
    // The site that ended the wait has taken the note off, after its lock was dropped.
    p.jump_if([site](world& w, int) { return w.memory[winner] == site + 1; }, past);
    if (v.leaves_notes) {
      if (v.leaves_under_lock) p.lock(lock_a + site);
      p.store(note_a + site, 0);
      if (v.leaves_under_lock) p.unlock(lock_a + site);
    }
    p.label(past);
  }
  p.atomically("returns", [](world& w, int) { w.memory[frame_gone] = 1; });
}

// With two peers, or with one and a striker. All may have come before the select did, and then it waits for ever, rightly.
model::answer outcome_of(const variant& v, bool is_struck) {
  program publisher;
  program rest;
  program a;
  program b;
  add_publisher(publisher, v);
  add_rest(rest, v);
  add_peer(a, v, false);
  if (is_struck)
    add_striker(b);
  else
    add_peer(b, v, true);
  checker all({&publisher, &rest, &a, &b});
  all.always = [](const world& w) { return w.memory[given] + w.memory[was_struck] <= 1 && w.memory[resumes] <= 1; };
  all.at_end = [&all](const world& w) {
    if (w.memory[resumes] == 1) return all.are_all_finished(w) && w.memory[note_a] == 0 && w.memory[note_b] == 0;
    // Nobody gave: then the notes are where the next to come finds them, and the wait can be claimed.
    return w.memory[note_a] == 1 && w.memory[note_b] == 1 && w.memory[wait_word] == 1;
  };
  return all.explore(world());
}

// --- one moment over two sites ---

enum moment_word { first_lock, second_lock, first_token, second_token, ran_otherwise };

// A token goes from the first channel to the second, the new place first: in every moment one of them has it.
model::answer outcome_of_look(bool holds_all_locks) {
  program mover;
  program looker;
  mover.lock(second_lock).store(second_token, 1).unlock(second_lock);
  mover.lock(first_lock).store(first_token, 0).unlock(first_lock);
  if (holds_all_locks) {
    looker.lock(first_lock).lock(second_lock).load(0, first_token).load(1, second_token);
    looker.unlock(second_lock).unlock(first_lock);
  } else {
    looker.lock(second_lock).load(1, second_token).unlock(second_lock);
    looker.lock(first_lock).load(0, first_token).unlock(first_lock);
  }
  looker.note("judges", [](world& w, int me) {
    if (w.reg(me, 0) == 0 && w.reg(me, 1) == 0) w.fault = 1;
  });
  checker all({&mover, &looker});
  all.at_end = [&all](const world& w) { return all.are_all_finished(w); };
  world begin;
  begin.memory[first_token] = 1;
  return all.explore(begin);
}

// Two selects over the same sites, which name them in different order.
model::answer outcome_of_locking(bool by_address) {
  program one;
  program other;
  one.lock(first_lock).lock(second_lock).unlock(second_lock).unlock(first_lock);
  if (by_address)
    other.lock(first_lock).lock(second_lock).unlock(second_lock).unlock(first_lock);
  else
    other.lock(second_lock).lock(first_lock).unlock(first_lock).unlock(second_lock);
  checker all({&one, &other});
  all.at_end = [&all](const world& w) { return all.are_all_finished(w); };
  return all.explore(world());
}

}  // namespace

TEST_CASE("one wait at two sites is ended once, and nobody touches a frame that is gone") {
  for (const bool is_struck : {false, true}) {
    const model::answer found = outcome_of(variant(), is_struck);
    INFO(found.bad_path);
    CHECK(found.is_sound);
    CHECK(found.ends > 0);
    MESSAGE(found.states, " states");
  }
}

TEST_CASE("the model of a select's wait is red when a step is left out") {
  const auto without = [](bool variant::*step, bool is_struck) {
    variant v;
    v.*step = false;
    return outcome_of(v, is_struck).is_sound;
  };
  CHECK_FALSE(without(&variant::one_claim, false));
  for (const bool is_struck : {false, true}) {
    CAPTURE(is_struck);
    CHECK_FALSE(without(&variant::claim_in_one_step, is_struck));
    CHECK_FALSE(without(&variant::leaves_notes, is_struck));
    CHECK_FALSE(without(&variant::leaves_under_lock, is_struck));
    CHECK_FALSE(without(&variant::word_before_unlock, is_struck));
  }
}

TEST_CASE("readiness is one moment: with all locks held the token is always seen, in turn it may be missed") {
  const model::answer found = outcome_of_look(true);
  INFO(found.bad_path);
  CHECK(found.is_sound);
  CHECK_FALSE(outcome_of_look(false).is_sound);
}

TEST_CASE("selects that lock in the order of addresses never wait for each other in a ring") {
  CHECK(outcome_of_locking(true).is_sound);
  CHECK_FALSE(outcome_of_locking(false).is_sound);
}
