// model_descriptor.cpp - the end of a descriptor whose number is used again at once (runtime/reactor.hpp, io/descriptor.hpp),
// in every interleaving with news and with a reader whose wait is cancelled or runs out of time: the reader's call ends, once,
// and nothing of the new owner's is taken by it or lost for it (G2, G4).
#include <doctest/doctest.h>

#include "support/model_wait.hpp"

using model::checker;
using model::program;
using model::site;
using model::value;
using model::world;

namespace {

enum word {
  slot_lock,
  generation,  // even while the kernel closes the number
  news,        // how often there was some
  is_watched,  // the generation under which the descriptor is in the poller; 0: it is not
  queue,
  wait_word,
  result,
  number,    // whose it is
  old_byte,  // in the old descriptor
  new_byte,
  new_news,  // there was when the new owner began
  calls,     // that are made by who waited
};
enum owner { old_one, nobody, new_one };

struct variant {
  bool claims = true;
  bool leaver_unlinks = true;
  bool wakes_first = true;       // G4: before the number is free
  bool drops_old_news = true;    // G2
  bool looks_when_woken = true;  // G2: whether the number has changed hands
  bool looks_under_lock = true;  // G2: before it waits
  bool awaits_calls = true;      // the kernel closes it when no call that waited is on its way
  bool awaits_close = true;      // nobody begins to wait while the kernel closes it
  bool has_new_byte = true;
  bool new_one_tells = true;  // the new owner begins a generation of its own
};

site the_site(const variant& v) {
  site s{slot_lock, queue, 1, wait_word, result};
  s.claims = v.claims;
  s.leaver_unlinks = v.leaver_unlinks;
  return s;
}

// Registers: 0 what ended the wait, 1 an answer: 1 it ends, 2 "not now"; 2 the news before that; 3 the generation in which
// the call began.
//
// Of its first try, the look at the generation and the call are one step: a close between the two is the race of any two
// threads over a number, which nobody but their program can order.
void read(world& w, int me) {
  w.reg(me, 1) = 1;
  w.reg(me, 2) = w.memory[news];
  if (w.memory[number] == new_one) w.fault = 1;
  if (w.memory[number] != old_one) return;  // EBADF
  if (w.memory[old_byte] != 0)
    --w.memory[old_byte];
  else
    w.reg(me, 1) = 2;
}

void add_reader(program& p, const variant& v) {
  const auto is_over = [](world& w, int me) { return w.reg(me, 1) == 1; };
  p.wait(
      "until it is not being closed", [v](world& w, int) { return (w.memory[generation] & 1) != 0 || !v.awaits_close; },
      [](world& w, int me) {
        w.reg(me, 3) = w.memory[generation];
        w.reg(me, 1) = 1;
        if (w.memory[number] == old_one) read(w, me);
      });
  p.label("has tried").jump_if(is_over, "end");
  p.lock(slot_lock).jump_if(
      [v](world& w, int me) { return w.memory[generation] != w.reg(me, 3) && v.looks_under_lock; }, "unlocks");
  p.jump_if([](world& w, int me) { return w.memory[news] == w.reg(me, 2); }, "waits");
  p.jump("tries again");

  p.label("waits").atomically("watches", [](world& w, int) {
    if (w.memory[is_watched] == 0) w.memory[is_watched] = w.memory[generation];
  });
  model::add_wait(p, the_site(v), "has waited");
  p.jump_if([](world& w, int me) { return w.reg(me, 0) != model::granted; }, "end");
  p.lock(slot_lock).jump_if(
      [v](world& w, int me) { return w.memory[generation] != w.reg(me, 3) && v.looks_when_woken; }, "unlocks");
  p.label("tries again").store(calls, 1).unlock(slot_lock);
  p.atomically("reads", read);
  p.lock(slot_lock).store(calls, 0).unlock(slot_lock).jump("has tried");
  p.label("unlocks").unlock(slot_lock).label("end");
}

// The poller brings news of a generation, in register 2.
void add_news(program& p, const variant& v) {
  const site s = the_site(v);
  p.lock(slot_lock).atomically("news", [s, v](world& w, int me) {
    w.reg(me, 1) = 0;
    if (w.reg(me, 2) != w.memory[generation] && v.drops_old_news) return;
    w.reg(me, 1) = model::pop_claimed(w, s);
    ++w.memory[news];
  });
  p.unlock(slot_lock).atomically("resumes", [s](world& w, int me) {
    if (w.reg(me, 1) != 0) model::resume(w, s, w.reg(me, 1) - 1, model::granted);
  });
}

// The old descriptor's byte, if it comes before the close, then the new one's.
void add_poller(program& p, const variant& v) {
  p.atomically("a byte comes", [](world& w, int me) {
    w.reg(me, 2) = w.memory[number] == old_one ? w.memory[is_watched] : value{0};
    if (w.memory[number] == old_one) w.memory[old_byte] = 1;
  });
  p.jump_if([](world& w, int me) { return w.reg(me, 2) == 0; }, "nobody watches");
  add_news(p, v);
  p.label("nobody watches");
  if (!v.has_new_byte) return;
  p.wait("for the new owner", [](world& w, int) { return w.memory[new_byte] != 0; });
  p.note("it is watched", [](world& w, int me) { w.reg(me, 2) = w.memory[is_watched]; });
  p.note("nothing was told before", [](world& w, int) {
    if (w.memory[news] != w.memory[new_news]) w.fault = 1;
  });
  add_news(p, v);
}

void add_closer(program& p, const variant& v) {
  const site s = the_site(v);
  const auto retire = [&](const char* name, bool closes) {
    p.lock(slot_lock).atomically(name, [s, closes](world& w, int me) {
      w.memory[generation] = static_cast<value>((w.memory[generation] | 1) + (closes ? 1 : 2));
      w.memory[is_watched] = 0;
      w.reg(me, 1) = model::pop_all(w, s);
    });
    p.unlock(slot_lock).atomically("resumes",
                                   [s](world& w, int me) { model::resume_all(w, s, w.reg(me, 1), model::closed); });
  };
  if (v.wakes_first) retire("forgets it", true);
  if (v.awaits_calls) {
    p.label("calls").lock(slot_lock).load(1, calls).unlock(slot_lock);
    p.jump_if([](world& w, int me) { return w.reg(me, 1) != 0; }, "calls");
  }
  p.atomically("the kernel closes it", [](world& w, int) { w.memory[number] = nobody; });
  // The new owner may be there before the closer says that it is through.
  const auto says_so = [&] {
    if (!v.wakes_first) return;
    p.lock(slot_lock).atomically("it is closed", [](world& w, int) {
      if ((w.memory[generation] & 1) == 0) ++w.memory[generation];
    });
    p.unlock(slot_lock);
  };
  if (!v.new_one_tells) says_so();
  p.atomically("the kernel gives it out again", [](world& w, int) { w.memory[number] = new_one; });
  if (v.new_one_tells) retire("adopts it", false);
  if (v.new_one_tells) says_so();
  p.lock(slot_lock).atomically("watches it, and a byte comes", [](world& w, int) {
    if (w.memory[is_watched] == 0) w.memory[is_watched] = w.memory[generation];
    w.memory[new_byte] = 1;
    w.memory[new_news] = w.memory[news];
  });
  p.unlock(slot_lock);
  if (!v.wakes_first) retire("forgets it", false);
}

model::answer outcome_of(const variant& v) {
  program reader;
  program poller;
  program closer;
  program striker;
  add_reader(reader, v);
  add_poller(poller, v);
  add_closer(closer, v);
  model::add_strike(striker, the_site(v), 0);
  checker all({&reader, &poller, &closer, &striker});
  all.at_end = [&all, v](const world& w) {
    return all.are_all_finished(w) && w.memory[queue] == 0 && w.memory[old_byte] >= 0 &&
           w.memory[news] == w.memory[new_news] + (v.has_new_byte ? 1 : 0);
  };
  world begin;
  begin.memory[generation] = 1;
  return all.explore(begin);
}

}  // namespace

TEST_CASE("a call ends when its descriptor does, and takes nothing of the number's next owner") {
  for (const bool new_one_tells : {true, false}) {
    for (const bool has_new_byte : {true, false}) {
      variant v;
      v.new_one_tells = new_one_tells;
      v.has_new_byte = has_new_byte;
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
    variant silent = v;
    silent.has_new_byte = false;
    return outcome_of(v).is_sound && outcome_of(silent).is_sound;
  };
  CHECK_FALSE(without(&variant::claims));
  CHECK_FALSE(without(&variant::leaver_unlinks));
  CHECK_FALSE(without(&variant::wakes_first));
  CHECK_FALSE(without(&variant::drops_old_news));
  CHECK_FALSE(without(&variant::looks_when_woken));
  CHECK_FALSE(without(&variant::looks_under_lock));
  CHECK_FALSE(without(&variant::awaits_calls));
  CHECK_FALSE(without(&variant::awaits_close));
}
