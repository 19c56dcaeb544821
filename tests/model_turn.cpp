// model_turn.cpp - two that accept on one descriptor (runtime/reactor.hpp, io/descriptor.hpp), in every interleaving with
// connections that arrive and waits that are cancelled or run out of time: each connection is accepted or still in the
// kernel's queue, and nobody waits while one is there (G3, J3).
#include <doctest/doctest.h>

#include "support/model_wait.hpp"

using model::checker;
using model::program;
using model::site;
using model::value;
using model::world;

namespace {

bool is_yes(world& w, int me) { return w.reg(me, 1) != 0; }

enum word { lock_word, news, has_turn, queue, wait_word = 5, result = 7, arrived = 9, accepted, is_watched, is_owed };

struct variant {
  bool claims = true;
  bool leaver_unlinks = true;
  bool passes_on = true;         // J3: whoever has the turn passes it on, whatever its end is
  bool remembers_news = true;    // news that comes while somebody has the turn
  bool looks_again = true;       // "not now" is tried again if there was news since
  bool counts_news = true;       // else it is a flag, which the first to see it takes back
  bool error_keeps_turn = true;  // so that it is passed on
  // What may happen besides.
  bool watching_fails = false;       // the first party with the turn cannot be registered again
  bool raises_when_granted = false;  // a cancellation is raised on the way back from a wait that was granted
  bool comes_by_turn = false;        // the second party saw that the side is busy
};

site the_site(const variant& v) {
  site s{lock_word, queue, 2, wait_word, result};
  s.claims = v.claims;
  s.leaver_unlinks = v.leaver_unlinks;
  return s;
}

// Under the lock. Register 1: whom to resume.
void pass_turn(world& w, int me, const variant& v) {
  w.reg(me, 1) = model::pop_claimed(w, the_site(v));
  w.memory[has_turn] = w.reg(me, 1) != 0 ? 1 : 0;
}
void add_resume(program& p, const variant& v) {
  p.atomically("resumes", [s = the_site(v)](world& w, int me) {
    if (w.reg(me, 1) != 0) model::resume(w, s, w.reg(me, 1) - 1, model::granted);
  });
}

// Registers: 2 the news there was before the call, 3 it has the turn.
void add_acceptor(program& p, const variant& v, bool is_first) {
  const auto has_none = [](world& w, int me) { return w.reg(me, 3) == 0; };
  const auto add_wait = [&](const std::string& name, bool in_front) {
    model::add_wait(p, the_site(v), name, in_front ? model::queue_up_first : model::queue_up);
    p.jump_if([](world& w, int me) { return w.reg(me, 0) == model::struck; }, "end");
    p.note("has the turn", [](world& w, int me) { w.reg(me, 3) = 1; });
    if (v.raises_when_granted && is_first) p.jump("leaves");
  };
  if (v.comes_by_turn && !is_first) {
    p.lock(lock_word).jump_if([](world& w, int) { return w.memory[has_turn] == 0 && w.memory[queue] == 0; }, "is free");
    add_wait("has waited for its turn", false);
    p.jump("tries").label("is free").unlock(lock_word);
  }
  p.label("tries").load(2, news).atomically("accepts", [](world& w, int me) {
    w.reg(me, 1) = w.memory[arrived] != 0 ? 1 : 0;
    if (w.reg(me, 1) == 0) return;
    --w.memory[arrived];
    ++w.memory[accepted];
  });
  p.jump_if(is_yes, "leaves");

  p.lock(lock_word).atomically("was there news?", [v](world& w, int me) {
    const bool is_next = w.reg(me, 3) != 0 || (w.memory[has_turn] == 0 && w.memory[queue] == 0);
    const bool has_news = v.counts_news ? w.memory[news] != w.reg(me, 2) && is_next : w.memory[news] != 0;
    w.reg(me, 1) = has_news && v.looks_again ? 1 : 0;
    if (!v.counts_news) w.memory[news] = 0;
  });
  p.jump_if([](world& w, int me) { return w.reg(me, 1) == 0; }, "waits").unlock(lock_word).jump("tries");
  p.label("waits");
  if (v.watching_fails && is_first) {
    p.jump_if([](world& w, int) { return w.memory[is_watched] != 0; }, "is watched");
    if (!v.error_keeps_turn) p.note("forgets the turn", [](world& w, int me) { w.reg(me, 3) = 0; });
    p.unlock(lock_word).jump("leaves").label("is watched");
  }
  p.atomically("watches", [](world& w, int me) {
    if (w.memory[is_watched] == 0 && w.memory[arrived] != 0) w.memory[is_owed] = 1;  // what is there already is news
    w.memory[is_watched] = 1;
    if (w.reg(me, 3) != 0) w.memory[has_turn] = 0;
  });
  p.jump_if(has_none, "behind the others");
  p.note("no turn now", [](world& w, int me) { w.reg(me, 3) = 0; });
  add_wait("has waited in front", true);
  p.jump("tries");
  p.label("behind the others");
  add_wait("has waited", false);
  p.jump("tries");

  p.label("leaves").jump_if(has_none, "end");
  if (v.passes_on) {
    p.lock(lock_word).atomically("passes the turn on", [v](world& w, int me) { pass_turn(w, me, v); });
    p.unlock(lock_word);
    add_resume(p, v);
  }
  p.label("end");
}

void add_news(program& p, const variant& v) {
  p.lock(lock_word).atomically("news", [v](world& w, int me) {
    w.reg(me, 1) = 0;
    if (w.memory[is_watched] == 0) return;
    if (w.memory[has_turn] == 0) pass_turn(w, me, v);
    if (!v.counts_news)
      w.memory[news] = w.reg(me, 1) != 0 ? 0 : 1;
    else if (w.memory[has_turn] == 0 || w.reg(me, 1) != 0 || v.remembers_news)
      ++w.memory[news];
  });
  p.unlock(lock_word);
  add_resume(p, v);
}

void add_poller(program& p, const variant& v, int arrivals) {
  for (int i = 0; i < arrivals; ++i) {
    p.atomically("a connection arrives", [](world& w, int) { ++w.memory[arrived]; });
    add_news(p, v);
  }
  p.label("looks").wait(
      "for news it owes", [](world& w, int) { return w.memory[is_owed] != 0; },
      [](world& w, int) { w.memory[is_owed] = 0; });
  add_news(p, v);
  p.jump("looks");
}

// The runtime that watched the descriptor goes.
void add_forget(program& p, const variant& v) {
  p.lock(lock_word).atomically("watches no more", [v](world& w, int me) {
    w.memory[is_watched] = 0;
    pass_turn(w, me, v);
  });
  p.unlock(lock_word);
  add_resume(p, v);
}

model::answer outcome_of_turns(const variant& v, int arrivals) {
  program one;
  program other;
  program poller;
  program striker;
  add_acceptor(one, v, true);
  add_acceptor(other, v, false);
  if (v.watching_fails) add_forget(poller, v);
  add_poller(poller, v, arrivals);
  // A connection may also go to somebody who came by, or away.
  striker.atomically("somebody else accepts", [](world& w, int) {
    if (w.memory[arrived] == 0) return;
    --w.memory[arrived];
    ++w.memory[accepted];
  });
  model::add_strike(striker, the_site(v), 0);
  checker all({&one, &other, &poller, &striker});
  all.at_end = [&all, arrivals](const world& w) {
    if (w.memory[arrived] + w.memory[accepted] != arrivals || !all.is_finished(w, 3)) return false;
    if (all.is_finished(w, 0) && all.is_finished(w, 1)) return w.memory[queue] == 0 && w.memory[has_turn] == 0;
    // Somebody waits, and rightly.
    return w.memory[arrived] == 0 && w.memory[has_turn] == 0 && w.memory[is_watched] != 0;
  };
  world begin;
  begin.memory[is_watched] = 1;
  return all.explore(begin);
}

bool is_sound_without(bool variant::*step, bool variant::*besides = nullptr) {
  for (const int arrivals : {1, 2}) {
    for (const bool comes_by_turn : {false, true}) {
      variant v;
      v.comes_by_turn = comes_by_turn;
      v.*step = false;
      if (besides != nullptr) v.*besides = true;
      if (!outcome_of_turns(v, arrivals).is_sound) return false;
    }
  }
  return true;
}

}  // namespace

TEST_CASE("nobody waits for a connection that is there, whoever had the turn") {
  for (const int arrivals : {1, 2}) {
    for (const bool comes_by_turn : {false, true}) {
      for (const bool watching_fails : {false, true}) {
        for (const bool raises_when_granted : {false, true}) {
          variant v;
          v.comes_by_turn = comes_by_turn;
          v.watching_fails = watching_fails;
          v.raises_when_granted = raises_when_granted;
          const model::answer all = outcome_of_turns(v, arrivals);
          INFO(all.bad_path);
          CHECK(all.is_sound);
          CHECK(all.ends > 1);
          MESSAGE(all.states, " states");
        }
      }
    }
  }
}

TEST_CASE("each step is needed") {
  CHECK_FALSE(is_sound_without(&variant::claims));
  CHECK_FALSE(is_sound_without(&variant::leaver_unlinks));
  CHECK_FALSE(is_sound_without(&variant::passes_on));
  CHECK_FALSE(is_sound_without(&variant::passes_on, &variant::raises_when_granted));
  CHECK_FALSE(is_sound_without(&variant::remembers_news));
  CHECK_FALSE(is_sound_without(&variant::looks_again));
  CHECK_FALSE(is_sound_without(&variant::counts_news));
  CHECK_FALSE(is_sound_without(&variant::error_keeps_turn, &variant::watching_fails));
}
