// model_nursery.cpp - room in a nursery, and its end (structure/nursery_core.hpp), in every interleaving with a wait for room
// that is cancelled: there are never more children than the limit, a place that becomes free is not lost (Y4), and the host
// goes on when the last child has left the nursery for good, and not before (Y1, Y2).
//
// Two children run, as many as the limit allows. One of them and the host want to start one more each; the former may be
// cancelled while it waits. Then the host waits for all.
#include <doctest/doctest.h>

#include "support/model_wait.hpp"

using model::checker;
using model::program;
using model::site;
using model::value;
using model::world;

namespace {

enum word { gate, running, queue, wait_word = 5, result = 8, host_waits = 11, is_gone, alive, is_started };
constexpr int limit = 2;
constexpr int host = 2;

struct variant {
  bool claims = true;
  bool leaver_unlinks = true;
  bool passes_on = true;      // a place that becomes free goes to who waits for one
  bool place_is_kept = true;  // and stays taken meanwhile
  bool looks_and_queues_at_once = true;
  bool wakes_host = true;
  bool host_looks_locked = true;  // the host ends the nursery under the gate's lock
};

site the_site(const variant& v) {
  site s{gate, queue, 3, wait_word, result};
  s.claims = v.claims;
  s.leaver_unlinks = v.leaver_unlinks;
  return s;
}

void touch(program& p) {
  p.note("the nursery is there", [](world& w, int) {
    if (w.memory[is_gone] != 0) w.fault = 1;
  });
}

// Register 0: how it went, granted or struck.
void add_go(program& p, const variant& v) {
  p.lock(gate).atomically("takes a place", [](world& w, int me) {
    w.reg(me, 1) = w.memory[running] < limit ? 1 : 0;
    if (w.reg(me, 1) != 0) ++w.memory[running];
    w.reg(me, 0) = model::granted;
  });
  p.jump_if([](world& w, int me) { return w.reg(me, 1) == 0; }, "waits for room").unlock(gate).jump("has room");
  p.label("waits for room");
  if (!v.looks_and_queues_at_once) p.unlock(gate).lock(gate);
  model::add_wait(p, the_site(v), "has waited");
  p.label("has room").atomically("starts", [](world& w, int me) {
    if (w.reg(me, 0) == model::granted && ++w.memory[alive] > limit) w.fault = 1;
  });
}

// A child's last step.
void add_dismiss(program& p, const variant& v) {
  const site s = the_site(v);
  p.atomically("ends", [](world& w, int) { --w.memory[alive]; });
  touch(p);
  p.lock(gate);
  touch(p);
  p.atomically("leaves", [s, v](world& w, int me) {
    w.reg(me, 1) = v.passes_on ? model::pop_claimed(w, s) : value{0};
    if (w.reg(me, 1) == 0 || !v.place_is_kept) --w.memory[running];
    if (w.reg(me, 1) != 0 || w.memory[running] != 0 || w.memory[host_waits] == 0 || !v.wakes_host) return;
    w.memory[host_waits] = 0;
    w.memory[wait_word + host] = model::ended;
    w.reg(me, 1) = host + 1;
  });
  p.unlock(gate).atomically("resumes", [s](world& w, int me) {
    if (w.reg(me, 1) != 0) model::resume(w, s, w.reg(me, 1) - 1, model::granted);
  });
}

// Deaf: nobody strikes the host here.
void add_join(program& p, const variant& v) {
  p.label("looks");
  if (v.host_looks_locked) p.lock(gate);
  p.load(1, running).jump_if([](world& w, int me) { return w.reg(me, 1) == 0; }, "none left");
  if (!v.host_looks_locked) p.lock(gate);
  p.atomically("waits", [](world& w, int) {
    w.memory[host_waits] = 1;
    w.memory[wait_word + host] = model::waiting;
    w.memory[result + host] = model::no_result;
  });
  p.unlock(gate);
  p.wait("to be resumed", [](world& w, int) { return w.memory[result + host] != model::no_result; }).jump("looks");
  p.label("none left");
  if (v.host_looks_locked) p.unlock(gate);
  p.atomically("the nursery goes", [](world& w, int) {
    if (w.memory[alive] != 0) w.fault = 1;
    w.memory[is_gone] = 1;
  });
}

model::answer outcome_of(const variant& v) {
  program one;
  program other;
  program the_host;
  program striker;
  // The first child ends, and runs the host's child when there is one.
  add_dismiss(one, v);
  one.wait("for the host's child", [](world& w, int) { return w.memory[is_started] != 0; });
  add_dismiss(one, v);
  // The second starts a child, and ends; so does its child, here.
  add_go(other, v);
  other.jump_if([](world& w, int me) { return w.reg(me, 0) != model::granted; }, "has none");
  add_dismiss(other, v);
  other.label("has none");
  add_dismiss(other, v);
  add_go(the_host, v);
  the_host.atomically("has started one", [](world& w, int) { w.memory[is_started] = 1; });
  add_join(the_host, v);
  model::add_strike(striker, the_site(v), 1);
  checker all({&one, &other, &the_host, &striker});
  // A store that is still on its way is a touch as well.
  all.always = [](const world& w) {
    if (w.memory[is_gone] == 0) return true;
    for (const model::thread_state& each : w.threads) {
      for (int i = 0; i < each.buffered; ++i) {
        if (each.buffer[i].where == gate) return false;
      }
    }
    return true;
  };
  all.at_end = [&all](const world& w) {
    return all.are_all_finished(w) && w.memory[running] == 0 && w.memory[alive] == 0 && w.memory[queue] == 0;
  };
  world begin;
  begin.memory[running] = begin.memory[alive] = limit;
  return all.explore(begin);
}

}  // namespace

TEST_CASE("no place is lost or given twice, and the host goes last") {
  const model::answer all = outcome_of(variant());
  INFO(all.bad_path);
  CHECK(all.is_sound);
  CHECK(all.ends > 1);
  MESSAGE(all.states, " states");
}

TEST_CASE("each step is needed") {
  const auto without = [](bool variant::*step) {
    variant v;
    v.*step = false;
    return outcome_of(v).is_sound;
  };
  CHECK_FALSE(without(&variant::claims));
  CHECK_FALSE(without(&variant::leaver_unlinks));
  CHECK_FALSE(without(&variant::passes_on));
  CHECK_FALSE(without(&variant::place_is_kept));
  CHECK_FALSE(without(&variant::looks_and_queues_at_once));
  CHECK_FALSE(without(&variant::wakes_host));
  CHECK_FALSE(without(&variant::host_looks_locked));
}
