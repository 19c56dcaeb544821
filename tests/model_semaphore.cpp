// model_semaphore.cpp - the word and the queue of a semaphore (sync/semaphore.hpp), in every interleaving: permits are
// conserved, and nobody waits while there are enough for it.
#include <doctest/doctest.h>

#include "support/model.hpp"

using model::checker;
using model::program;
using model::value;
using model::world;

namespace {

enum word { the_word, queue_lock, first, second, wait_word, result = 6, taken = 8 };
enum end_of_wait { none, granted, cancelled };

struct variant {
  bool leaver_serves = true;       // who was cancelled lets those behind it have what is there (P3)
  bool claims_first = true;        // permits are taken for a waiter whose wait was claimed, not for any (P4)
  bool announces_at_once = true;   // looking for permits and turning the word negative are one step
  bool stays_negative = true;      // the word says that somebody waits, as long as somebody does (P1)
  bool serves_while_fits = true;   // one release serves all it suffices for
};

void erase(world& w, int who) {
  if (w.memory[first] == who + 1) w.memory[first] = w.memory[second];
  if (w.memory[first] == w.memory[second] || w.memory[second] == who + 1) w.memory[second] = 0;
}

// Under the queue's lock; `given` permits on top of what a negative word holds.
void serve(world& w, int given, const variant& v) {
  int permits = ~w.memory[the_word] + given;
  while (w.memory[first] != 0) {
    const int who = w.memory[first] - 1;
    const int wanted = 2 - who;
    if (wanted > permits) break;
    erase(w, who);
    const bool is_claimed = w.memory[wait_word + who] == 1;
    if (is_claimed || !v.claims_first) permits -= wanted;
    if (!is_claimed) continue;
    w.memory[wait_word + who] = 2;
    w.memory[result + who] = granted;
    if (!v.serves_while_fits) break;
  }
  w.memory[the_word] = static_cast<value>(w.memory[first] == 0 || !v.stays_negative ? permits : ~permits);
}

// Thread 0 wants two permits, thread 1 one.
void add_acquire(program& p, const variant& v) {
  const auto take = [](world& w, int me) {
    const int wanted = 2 - me;
    w.reg(me, 0) = w.memory[the_word] >= wanted ? 1 : 0;
    if (w.reg(me, 0) != 0) w.memory[the_word] = static_cast<value>(w.memory[the_word] - wanted);
  };
  p.atomically("takes", take);
  p.jump_if([](world& w, int me) { return w.reg(me, 0) != 0; }, "has it");
  p.lock(queue_lock);
  if (v.announces_at_once) {
    p.atomically("takes, or announces itself", [take](world& w, int me) {
      take(w, me);
      if (w.reg(me, 0) == 0 && w.memory[the_word] >= 0) w.memory[the_word] = static_cast<value>(~w.memory[the_word]);
    });
  } else {
    p.atomically("takes", take);
    p.load(1, the_word);
    p.jump_if([](world& w, int me) { return w.reg(me, 0) != 0 || w.reg(me, 1) < 0; }, "announced");
    p.store(the_word, [](world& w, int me) { return static_cast<value>(~w.reg(me, 1)); });
    p.label("announced");
  }
  p.jump_if([](world& w, int me) { return w.reg(me, 0) == 0; }, "waits");
  p.unlock(queue_lock).jump("has it");

  p.label("waits").atomically("queues", [](world& w, int me) {
    w.memory[w.memory[first] == 0 ? first : second] = static_cast<value>(me + 1);
    w.memory[wait_word + me] = 1;
  });
  p.unlock(queue_lock);
  p.wait("to be resumed", [](world& w, int me) { return w.memory[result + me] != none; });
  p.load(0, result);  // thread 0 alone may be cancelled
  p.jump_if([](world& w, int me) { return me != 0 || w.reg(me, 0) == granted; }, "has it");
  p.lock(queue_lock).atomically("leaves", [v](world& w, int me) {
    if (w.memory[first] == me + 1 || w.memory[second] == me + 1) erase(w, me);
    if (v.leaver_serves && w.memory[the_word] < 0) serve(w, 0, v);
  });
  p.unlock(queue_lock).jump("end");
  p.label("has it").atomically("counts", [](world& w, int me) {
    w.memory[taken] = static_cast<value>(w.memory[taken] + 2 - me);
  });
  p.label("end");
}

void add_release(program& p, int n, const variant& v, const std::string& name) {
  const auto give = [n](world& w, int me) {
    w.reg(me, 0) = w.memory[the_word] >= 0 ? 1 : 0;
    if (w.reg(me, 0) != 0) w.memory[the_word] = static_cast<value>(w.memory[the_word] + n);
  };
  p.atomically("gives", give);
  p.jump_if([](world& w, int me) { return w.reg(me, 0) != 0; }, name);
  p.lock(queue_lock).atomically("gives, or serves", [give, n, v](world& w, int me) {
    give(w, me);
    if (w.reg(me, 0) == 0) serve(w, n, v);
  });
  p.unlock(queue_lock);
  p.label(name);
}

enum class gift { three, one_and_two, one };

// An end is good when no permit is missing, and somebody waits only if it is the large one, and there is not enough for it.
model::answer outcome_of(const variant& v, bool has_canceller, gift given) {
  program large;
  program small;
  program giver;
  program canceller;
  add_acquire(large, v);
  add_acquire(small, v);
  if (given == gift::three) add_release(giver, 3, v, "three");
  if (given != gift::three) add_release(giver, 1, v, "one");
  if (given == gift::one_and_two) add_release(giver, 2, v, "two");
  const int total = given == gift::one ? 1 : 3;
  if (has_canceller) {
    canceller.atomically("cancels the large one", [](world& w, int) {
      if (w.memory[wait_word] != 1) return;
      w.memory[wait_word] = 2;
      w.memory[result] = cancelled;
    });
  }
  checker all({&large, &small, &giver, &canceller});
  all.at_end = [&all, total](const world& w) {
    const bool has_waiters = w.memory[the_word] < 0;
    const int permits = has_waiters ? ~w.memory[the_word] : w.memory[the_word];
    if (permits + w.memory[taken] != total || !all.is_finished(w, 2)) return false;
    return has_waiters ? w.memory[wait_word] == 1 && permits < 2 : all.are_all_finished(w);
  };
  return all.explore(world());
}

bool is_sound(const variant& v) {
  for (const bool has_canceller : {false, true}) {
    for (const gift given : {gift::three, gift::one_and_two, gift::one}) {
      if (!outcome_of(v, has_canceller, given).is_sound) return false;
    }
  }
  return true;
}

}  // namespace

TEST_CASE("permits are conserved, and nobody waits for what is there") {
  for (const bool has_canceller : {false, true}) {
    for (const gift given : {gift::three, gift::one_and_two, gift::one}) {
      const model::answer all = outcome_of(variant(), has_canceller, given);
      INFO(all.bad_path);
      CHECK(all.is_sound);
      CHECK(all.ends > 0);
    }
  }
}

TEST_CASE("each step is needed") {
  variant leaves_silently;
  leaves_silently.leaver_serves = false;
  CHECK_FALSE(is_sound(leaves_silently));
  variant takes_for_anybody;
  takes_for_anybody.claims_first = false;
  CHECK_FALSE(is_sound(takes_for_anybody));
  variant announces_late;
  announces_late.announces_at_once = false;
  CHECK_FALSE(is_sound(announces_late));
  variant looks_free;
  looks_free.stays_negative = false;
  CHECK_FALSE(is_sound(looks_free));
  variant serves_one;
  serves_one.serves_while_fits = false;
  CHECK_FALSE(is_sound(serves_one));
}
