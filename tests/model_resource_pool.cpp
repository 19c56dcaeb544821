// model_resource_pool.cpp - one thing and those who want it (sync/resource_pool.hpp), in every interleaving in which it is given
// back or broken, waits are cancelled or run out of time, and the pool is closed: the thing is on lease, idle or destroyed,
// once; and nobody waits while it lies there (C1, C2).
#include <doctest/doctest.h>

#include "support/model_wait.hpp"

using model::checker;
using model::program;
using model::site;
using model::value;
using model::world;

namespace {

enum word { lock_word, idle, places, is_closed, destroyed, queue, wait_word = 7, result = 10, hands = 13 };

struct variant {
  bool claims = true;  // C2: what is given goes to a waiter that was claimed
  bool leaver_unlinks = true;
  bool hands_place_over = true;  // a broken thing leaves a place in which the next in line makes one
  bool goes_to_first = true;     // C1: what comes free goes to who waits, not to lie idle
  bool close_is_final = true;    // what comes back to a closed pool is destroyed
  bool close_ends_waits = true;
  bool looks_and_queues_at_once = true;
  bool breaks = false;  // the first lease is discarded, and a factory makes new things
  bool closes = false;
};

site the_site(const variant& v) {
  site s{lock_word, queue, 2, wait_word, result};
  s.claims = v.claims;
  s.leaver_unlinks = v.leaver_unlinks;
  return s;
}

// Under the lock. Register 1: whom to resume.
void give(world& w, int me, const variant& v, bool is_broken) {
  --w.memory[hands + me];
  w.reg(me, 1) = 0;
  if (is_broken) --w.memory[places];
  if (w.memory[is_closed] != 0 && v.close_is_final) {
    if (!is_broken) --w.memory[places];
    ++w.memory[destroyed];
    return;
  }
  if (is_broken) ++w.memory[destroyed];
  if (v.goes_to_first && (!is_broken || v.hands_place_over)) w.reg(me, 1) = model::pop_claimed(w, the_site(v));
  if (w.reg(me, 1) != 0) {
    if (is_broken) ++w.memory[places];
    ++w.memory[hands + w.reg(me, 1) - 1];
  } else if (!is_broken) {
    ++w.memory[idle];
  }
}

void add_give(program& p, const variant& v, bool is_broken) {
  p.lock(lock_word).atomically("gives back", [=](world& w, int me) { give(w, me, v, is_broken); }).unlock(lock_word);
  p.atomically("resumes", [s = the_site(v)](world& w, int me) {
    if (w.reg(me, 1) != 0) model::resume(w, s, w.reg(me, 1) - 1, model::granted);
  });
}

// Takes the thing, or makes one where there is a place, or waits; and gives it back.
void add_user(program& p, const variant& v) {
  p.lock(lock_word).atomically("takes what is free", [v](world& w, int me) {
    w.reg(me, 1) = w.memory[is_closed] != 0 ? 2 : 0;
    if (w.reg(me, 1) != 0) return;
    if (w.memory[idle] != 0) {
      --w.memory[idle];
    } else if (v.breaks && w.memory[places] == 0) {
      ++w.memory[places];
    } else {
      return;
    }
    ++w.memory[hands + me];
    w.reg(me, 1) = 1;
  });
  p.jump_if([](world& w, int me) { return w.reg(me, 1) == 0; }, "waits").unlock(lock_word);
  p.jump_if([](world& w, int me) { return w.reg(me, 1) == 2; }, "end").jump("has it");
  p.label("waits");
  if (!v.looks_and_queues_at_once) p.unlock(lock_word).lock(lock_word);
  model::add_wait(p, the_site(v), "has waited");
  p.jump_if([](world& w, int me) { return w.reg(me, 0) != model::granted; }, "end");
  p.label("has it").note("one at a time", [](world& w, int me) {
    if (w.memory[hands + me] != 1) w.fault = 1;
  });
  add_give(p, v, false);
  p.label("end");
}

void add_closer(program& p, const variant& v) {
  const site s = the_site(v);
  p.lock(lock_word).atomically("closes", [s, v](world& w, int me) {
    w.memory[is_closed] = 1;
    w.memory[destroyed] = static_cast<value>(w.memory[destroyed] + w.memory[idle]);
    w.memory[places] = static_cast<value>(w.memory[places] - w.memory[idle]);
    w.memory[idle] = 0;
    w.reg(me, 1) = v.close_ends_waits ? model::pop_all(w, s) : value{0};
  });
  p.unlock(lock_word).atomically("resumes",
                                 [s](world& w, int me) { model::resume_all(w, s, w.reg(me, 1), model::closed); });
}

// Thread 0 has the thing at first. Thread 1 may be struck.
model::answer outcome_of(const variant& v) {
  program holder;
  program one;
  program other;
  program striker;
  add_give(holder, v, v.breaks);
  add_user(one, v);
  if (v.closes)
    add_closer(other, v);
  else
    add_user(other, v);
  model::add_strike(striker, the_site(v), 1);
  checker all({&holder, &one, &other, &striker});
  all.always = [](const world& w) {
    return w.memory[hands] + w.memory[hands + 1] + w.memory[hands + 2] + w.memory[idle] <= 1;
  };
  all.at_end = [&all, v](const world& w) {
    if (!all.are_all_finished(w) || w.memory[queue] != 0) return false;
    if (w.memory[hands] + w.memory[hands + 1] + w.memory[hands + 2] != 0) return false;
    if (v.closes) return w.memory[idle] == 0 && w.memory[places] == 0 && w.memory[destroyed] >= 1;
    return w.memory[idle] == w.memory[places] && w.memory[destroyed] == (v.breaks ? 1 : 0);
  };
  world begin;
  begin.memory[places] = 1;
  begin.memory[hands] = 1;
  return all.explore(begin);
}

bool is_sound(variant v) {
  for (const bool breaks : {false, true}) {
    for (const bool closes : {false, true}) {
      v.breaks = breaks;
      v.closes = closes;
      if (!outcome_of(v).is_sound) return false;
    }
  }
  return true;
}

}  // namespace

TEST_CASE("the thing is had by one, or idle, or destroyed, whoever is cancelled or closes") {
  for (const bool breaks : {false, true}) {
    for (const bool closes : {false, true}) {
      variant v;
      v.breaks = breaks;
      v.closes = closes;
      const model::answer all = outcome_of(v);
      INFO(all.bad_path);
      CHECK(all.is_sound);
      CHECK(all.ends > 1);
      MESSAGE(all.states, " states");
    }
  }
}

TEST_CASE("each step is needed") {
  const auto without = [](bool variant::*step) {
    variant v;
    v.*step = false;
    return is_sound(v);
  };
  CHECK_FALSE(without(&variant::claims));
  CHECK_FALSE(without(&variant::leaver_unlinks));
  CHECK_FALSE(without(&variant::hands_place_over));
  CHECK_FALSE(without(&variant::goes_to_first));
  CHECK_FALSE(without(&variant::close_is_final));
  CHECK_FALSE(without(&variant::close_ends_waits));
  CHECK_FALSE(without(&variant::looks_and_queues_at_once));
}
