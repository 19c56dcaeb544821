// model_wait_group.cpp - a count that reaches zero twice (sync/wait_group.hpp), in every interleaving with a wait that is
// cancelled or runs out of time: who waits is let go by a zero that came after it (Z2), and who was struck is not counted
// among those that still have to leave, or the group could never be used again.
#include <doctest/doctest.h>

#include "support/model_wait.hpp"

using model::checker;
using model::program;
using model::site;
using model::value;
using model::world;

namespace {

enum word { lock_word, count, leaving, zeros, queue, wait_word = 6, result = 9 };

struct variant {
  bool takes_off_at_once = true;   // Z1: in the same hold in which the count becomes zero
  bool counts_the_claimed = true;  // those let go, not all that queued
  bool takes_off_on_zero_only = true;
  bool claims = true;
  bool leaver_unlinks = true;
};

site the_site(const variant& v) {
  site s{lock_word, queue, 2, wait_word, result};
  s.claims = v.claims;
  s.leaver_unlinks = v.leaver_unlinks;
  return s;
}

int bits_in(int mask) { return (mask & 1) + ((mask >> 1) & 1) + ((mask >> 2) & 1); }

// Registers: 0 what ended a wait, 1 an answer, 2 whom to resume, 3 the zeros that a waiter knew of.
void add_change(program& p, const variant& v, int n, const std::string& name) {
  const site s = the_site(v);
  const auto take_all = [s, v](world& w, int me) {
    const int queued = (w.memory[queue] != 0 ? 1 : 0) + (w.memory[queue + 1] != 0 ? 1 : 0);
    w.reg(me, 2) = model::pop_all(w, s);
    w.memory[leaving] = static_cast<value>(w.memory[leaving] + (v.counts_the_claimed ? bits_in(w.reg(me, 2)) : queued));
  };
  p.lock(lock_word).atomically("changes the count", [=](world& w, int me) {
    w.reg(me, 1) = w.memory[count] == 0 && n > 0 && w.memory[leaving] != 0 ? 1 : 0;
    w.reg(me, 2) = 0;
    if (w.reg(me, 1) != 0) return;
    w.memory[count] = static_cast<value>(w.memory[count] + n);
    if (w.memory[count] < 0) w.fault = 1;
    if (w.memory[count] != 0 && v.takes_off_on_zero_only) return;
    if (w.memory[count] == 0) ++w.memory[zeros];
    if (v.takes_off_at_once) take_all(w, me);
  });
  p.unlock(lock_word);
  if (!v.takes_off_at_once) {
    p.lock(lock_word).atomically("takes all off", take_all).unlock(lock_word);
  }
  p.atomically("resumes", [s](world& w, int me) { model::resume_all(w, s, w.reg(me, 2), model::granted); });
  p.label(name);
}

// Waits for a count of zero; a wait that was struck is not followed by another.
void add_wait(program& p, const variant& v, const std::string& name) {
  p.lock(lock_word).note("remembers the zeros", [](world& w, int me) { w.reg(me, 3) = w.memory[zeros]; });
  p.jump_if([](world& w, int) { return w.memory[count] == 0; }, name + " finds zero");
  model::add_wait(p, the_site(v), name + " has waited");
  p.jump_if([](world& w, int me) { return w.reg(me, 0) != model::granted; }, name + " goes");
  p.note("there was a zero since", [](world& w, int me) {
    if (w.memory[zeros] == w.reg(me, 3)) w.fault = 1;
  });
  p.lock(lock_word).atomically("has left", [](world& w, int) { --w.memory[leaving]; }).unlock(lock_word);
  p.jump(name + " goes");
  p.label(name + " finds zero").unlock(lock_word);
  p.label(name + " goes");
}

// The count is two. Both are done; somebody uses the group again when it is zero, and waits for the second round, which the
// worker ends as well.
model::answer outcome_of(const variant& v) {
  program waiter;
  program worker;
  program next_user;
  program striker;
  add_wait(waiter, v, "first round");
  add_change(worker, v, -1, "one done");
  add_change(worker, v, -1, "both done");
  worker.wait("for the second round", [](world& w, int) { return w.memory[count] != 0; });
  add_change(worker, v, -1, "second round done");
  next_user.label("again").wait("for zero", [](world& w, int) { return w.memory[zeros] == 1; });
  add_change(next_user, v, 1, "added");
  next_user.jump_if([](world& w, int me) { return w.reg(me, 1) == 0; }, "second round");
  // Refused: rightly, as long as somebody who was let go is still to leave.
  next_user.wait("until all have left", [](world& w, int) { return w.memory[leaving] == 0; }).jump("again");
  next_user.label("second round");
  add_wait(next_user, v, "second round waits");
  model::add_strike(striker, the_site(v), 0);
  checker all({&waiter, &worker, &next_user, &striker});
  all.at_end = [&all](const world& w) {
    return all.are_all_finished(w) && w.memory[count] == 0 && w.memory[leaving] == 0 && w.memory[queue] == 0;
  };
  all.always = [](const world& w) { return w.memory[leaving] >= 0; };
  world begin;
  begin.memory[count] = 2;
  return all.explore(begin);
}

}  // namespace

TEST_CASE("a wait ends with a zero of its own, and a cancelled one leaves the group as it was") {
  const model::answer all = outcome_of(variant());
  INFO(all.bad_path);
  CHECK(all.is_sound);
  CHECK(all.ends > 1);
  MESSAGE(all.states, " states");
}

TEST_CASE("each step is needed") {
  variant in_two_holds;
  in_two_holds.takes_off_at_once = false;
  CHECK_FALSE(outcome_of(in_two_holds).is_sound);
  variant counts_the_struck;
  counts_the_struck.counts_the_claimed = false;
  CHECK_FALSE(outcome_of(counts_the_struck).is_sound);
  variant lets_go_too_soon;
  lets_go_too_soon.takes_off_on_zero_only = false;
  CHECK_FALSE(outcome_of(lets_go_too_soon).is_sound);
  variant gives_to_the_struck;
  gives_to_the_struck.claims = false;
  CHECK_FALSE(outcome_of(gives_to_the_struck).is_sound);
  variant stays_linked;
  stays_linked.leaver_unlinks = false;
  CHECK_FALSE(outcome_of(stays_linked).is_sound);
}
