// model_barrier.cpp - two parties that meet twice (sync/barrier.hpp), in every interleaving with waits that are cancelled or
// run out of time: an arrival counts whatever becomes of its wait (Y2), nobody is let go before its phase is over or misses
// it (Y1), and the completion runs once a phase, between the two.
#include <doctest/doctest.h>

#include "support/model_wait.hpp"

using model::checker;
using model::program;
using model::site;
using model::value;
using model::world;

namespace {

enum word { lock_word, phase, pending, completions, queue, wait_word = 6, result = 8 };
constexpr int parties = 2;
constexpr int phases = 2;

struct variant {
  bool looks_at_phase = true;    // Y1: who comes late to its wait sees that the phase is over
  bool arrival_stays = true;     // Y2
  bool completes_first = true;   // the phase ends when the completion has run
  bool advances_at_once = true;  // Y3: in the same hold as everybody is taken off
  bool claims = true;
  bool leaver_unlinks = true;
};

site the_site(const variant& v) {
  site s{lock_word, queue, parties, wait_word, result};
  s.claims = v.claims;
  s.leaver_unlinks = v.leaver_unlinks;
  return s;
}

// Registers: 0 what ended a wait, 1 whether the last has arrived, 2 whom it lets go, 3 the token.
void add_next_phase(program& p, const variant& v) {
  const site s = the_site(v);
  const auto take_all = [s](world& w, int me) { w.reg(me, 2) = model::pop_all(w, s); };
  p.lock(lock_word).atomically("next phase", [v, take_all](world& w, int me) {
    ++w.memory[phase];
    w.memory[pending] = parties;
    if (v.advances_at_once) take_all(w, me);
  });
  p.unlock(lock_word);
  if (!v.advances_at_once) p.lock(lock_word).atomically("takes all off", take_all).unlock(lock_word);
  p.atomically("resumes", [s](world& w, int me) { model::resume_all(w, s, w.reg(me, 2), model::granted); });
}

void add_completion(program& p) {
  p.atomically("completes", [](world& w, int) { ++w.memory[completions]; });
}

void add_phase(program& p, const variant& v, const std::string& name) {
  const site s = the_site(v);
  p.lock(lock_word).atomically("arrives", [](world& w, int me) {
    if (w.memory[pending] == 0) w.fault = 1;  // more than are expected
    w.reg(me, 3) = w.memory[phase];
    w.reg(me, 1) = --w.memory[pending] == 0 ? 1 : 0;
  });
  p.unlock(lock_word).jump_if([](world& w, int me) { return w.reg(me, 1) == 0; }, name + " waits");
  if (v.completes_first) add_completion(p);
  add_next_phase(p, v);
  if (!v.completes_first) add_completion(p);

  // A wait that was struck is followed by another one with the same token.
  p.label(name + " waits").lock(lock_word);
  p.jump_if([v](world& w, int me) { return w.memory[phase] != w.reg(me, 3) && v.looks_at_phase; }, name + " is over");
  model::add_wait(p, s, name + " has waited");
  p.jump_if([](world& w, int me) { return w.reg(me, 0) == model::granted; }, name + " goes");
  if (!v.arrival_stays) {
    p.lock(lock_word).atomically("takes its arrival back", [](world& w, int me) {
      if (w.memory[phase] == w.reg(me, 3)) ++w.memory[pending];
    });
    p.unlock(lock_word);
  }
  p.jump(name + " waits");
  p.label(name + " is over").unlock(lock_word);
  p.label(name + " goes").note("its phase is over", [](world& w, int me) {
    if (w.memory[phase] == w.reg(me, 3) || w.memory[completions] <= w.reg(me, 3)) w.fault = 1;
  });
}

model::answer outcome_of(const variant& v) {
  program one;
  program other;
  program timer;
  program canceller;
  for (int i = 0; i < phases; ++i) {
    add_phase(one, v, "phase " + std::to_string(i));
    add_phase(other, v, "phase " + std::to_string(i));
  }
  model::add_strike(timer, the_site(v), 0);
  model::add_strike(canceller, the_site(v), 0);
  model::add_strike(canceller, the_site(v), 1);
  checker all({&one, &other, &timer, &canceller});
  all.always = [](const world& w) { return w.memory[completions] <= phases; };
  all.at_end = [&all](const world& w) {
    return all.are_all_finished(w) && w.memory[phase] == phases && w.memory[completions] == phases &&
           w.memory[pending] == parties && w.memory[queue] == 0;
  };
  world begin;
  begin.memory[pending] = parties;
  return all.explore(begin);
}

}  // namespace

TEST_CASE("everybody gets through both phases, whoever's wait is cancelled or runs out of time") {
  const model::answer all = outcome_of(variant());
  INFO(all.bad_path);
  CHECK(all.is_sound);
  CHECK(all.ends > 1);
  MESSAGE(all.states, " states");
}

TEST_CASE("each step is needed") {
  variant waits_for_what_is_over;
  waits_for_what_is_over.looks_at_phase = false;
  CHECK_FALSE(outcome_of(waits_for_what_is_over).is_sound);
  variant takes_it_back;
  takes_it_back.arrival_stays = false;
  CHECK_FALSE(outcome_of(takes_it_back).is_sound);
  variant lets_go_early;
  lets_go_early.completes_first = false;
  CHECK_FALSE(outcome_of(lets_go_early).is_sound);
  variant in_two_holds;
  in_two_holds.advances_at_once = false;
  CHECK_FALSE(outcome_of(in_two_holds).is_sound);
  variant gives_to_the_struck;
  gives_to_the_struck.claims = false;
  CHECK_FALSE(outcome_of(gives_to_the_struck).is_sound);
  variant stays_linked;
  stays_linked.leaver_unlinks = false;
  CHECK_FALSE(outcome_of(stays_linked).is_sound);
}
