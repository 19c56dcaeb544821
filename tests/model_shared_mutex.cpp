// model_shared_mutex.cpp - the word and the two queues of a shared_mutex (sync/shared_mutex.hpp), in every interleaving: no
// writer beside anybody, and nobody is left outside, also when a waiter is cancelled.
#include <doctest/doctest.h>

#include "support/model.hpp"

using model::checker;
using model::program;
using model::value;
using model::world;

namespace {

// The queues are sets of threads, a bit each: the protocol does not hang on the order within a kind.
enum word { the_word, queue_lock, writers, readers, wait_word, result = 7, readers_inside = 10, writers_inside };
constexpr int writer = 1;
constexpr int waiting = 2;
constexpr int reader = 4;
enum end_of_wait { none, granted, cancelled };
enum class role { reads, writes };

struct variant {
  bool leaver_serves = true;         // who was cancelled lets in whom it held up (R4)
  bool announces_at_once = true;     // looking whether it is open and setting `waiting` are one step
  bool last_reader_looks = true;     // the last reader to leave lets in the first writer
  bool respects_the_writer = true;   // serving looks whether a writer holds
  bool respects_the_readers = true;  // serving looks whether readers hold
  bool keeps_others_out = true;      // nobody takes it in passing while `waiting` is set (R3)
  bool claims = true;
};

int bit(int thread) { return 1 << thread; }

// The threads of a queue whose waits could be ended: their bits. `only_one` for writers.
int claim_from(world& w, int queue, bool only_one, const variant& v) {
  int taken = 0;
  for (int t = 0; t < 3; ++t) {
    if ((w.memory[queue] & bit(t)) == 0 || (only_one && taken != 0)) continue;
    w.memory[queue] = static_cast<value>(w.memory[queue] & ~bit(t));
    if (w.memory[wait_word + t] != 1 && v.claims) continue;
    w.memory[wait_word + t] = 2;
    w.memory[result + t] = granted;
    taken |= bit(t);
  }
  return taken;
}

bool has_claimable(const world& w, int queue) {
  for (int t = 0; t < 3; ++t) {
    if ((w.memory[queue] & bit(t)) != 0 && w.memory[wait_word + t] == 1) return true;
  }
  return false;
}

// Under the queue's lock. Register 1 is the word as it was read before: readers may have left since.
void let_in(world& w, int me, bool readers_first, const variant& v) {
  if ((w.reg(me, 1) & writer) != 0 && v.respects_the_writer) return;
  if (w.reg(me, 1) < reader || !v.respects_the_readers) {
    if (has_claimable(w, writers) && !(readers_first && has_claimable(w, readers))) {
      if (claim_from(w, writers, true, v) != 0) {
        w.memory[the_word] = static_cast<value>(w.memory[the_word] | writer);
        return;
      }
    }
  }
  if (!readers_first && has_claimable(w, writers)) return;
  const int taken = claim_from(w, readers, false, v);
  for (int t = 0; t < 3; ++t) {
    if ((taken & bit(t)) != 0) w.memory[the_word] = static_cast<value>(w.memory[the_word] + reader);
  }
}

void add_serve(program& p, bool readers_first, const variant& v) {
  p.load(1, the_word);
  p.atomically("lets in", [readers_first, v](world& w, int me) { let_in(w, me, readers_first, v); });
  p.atomically("sets `waiting` right", [](world& w, int) {
    if (w.memory[writers] == 0 && w.memory[readers] == 0)
      w.memory[the_word] = static_cast<value>(w.memory[the_word] & ~waiting);
  });
}

void add_party(program& p, role what, const variant& v) {
  const bool reads = what == role::reads;
  const int queue = reads ? readers : writers;
  const auto try_it = [reads, v](world& w, int me) {
    const int shut = reads ? writer | (v.keeps_others_out ? waiting : 0) : ~(v.keeps_others_out ? 0 : waiting);
    w.reg(me, 0) = (w.memory[the_word] & shut) == 0 ? 1 : 0;
    if (w.reg(me, 0) != 0) w.memory[the_word] = static_cast<value>(w.memory[the_word] + (reads ? reader : writer));
  };
  const auto has_it = [](world& w, int me) { return w.reg(me, 0) != 0; };
  p.atomically("tries", try_it);
  p.jump_if(has_it, "inside");
  p.lock(queue_lock);
  if (v.announces_at_once) {
    p.atomically("tries, or announces itself", [try_it](world& w, int me) {
      try_it(w, me);
      if (w.reg(me, 0) == 0) w.memory[the_word] = static_cast<value>(w.memory[the_word] | waiting);
    });
    p.jump_if(has_it, "unlocks");
  } else {
    p.atomically("tries", try_it);
    p.jump_if(has_it, "unlocks");
    p.atomically("announces itself",
                 [](world& w, int) { w.memory[the_word] = static_cast<value>(w.memory[the_word] | waiting); });
  }
  p.atomically("queues", [queue](world& w, int me) {
    w.memory[queue] = static_cast<value>(w.memory[queue] | bit(me));
    w.memory[wait_word + me] = 1;
  });
  p.unlock(queue_lock);
  p.wait(
      "to be resumed", [](world& w, int me) { return w.memory[result + me] != none; },
      [](world& w, int me) { w.reg(me, 0) = w.memory[result + me] == granted ? 1 : 0; });
  p.jump_if(has_it, "inside");
  p.lock(queue_lock).atomically("leaves", [queue](world& w, int me) {
    w.memory[queue] = static_cast<value>(w.memory[queue] & ~bit(me));
  });
  if (v.leaver_serves) add_serve(p, false, v);
  p.unlock(queue_lock).jump("end");
  p.label("unlocks").unlock(queue_lock);

  p.label("inside").atomically("comes in", [reads](world& w, int) {
    if (w.memory[writers_inside] != 0 || (!reads && w.memory[readers_inside] != 0)) w.fault = 1;
    ++w.memory[reads ? readers_inside : writers_inside];
  });
  p.atomically("goes", [reads](world& w, int) { --w.memory[reads ? readers_inside : writers_inside]; });
  p.atomically("lets go", [reads, v](world& w, int me) {
    w.reg(me, 0) = reads ? w.memory[the_word] >= 2 * reader || (w.memory[the_word] & waiting) == 0 ||
                               !v.last_reader_looks
                         : w.memory[the_word] == writer;
    if (w.reg(me, 0) != 0) w.memory[the_word] = static_cast<value>(w.memory[the_word] - (reads ? reader : writer));
  });
  p.jump_if(has_it, "end");
  p.lock(queue_lock).atomically("lets go, and looks", [reads](world& w, int me) {
    w.memory[the_word] = static_cast<value>(w.memory[the_word] - (reads ? reader : writer));
    w.reg(me, 0) = w.memory[the_word] >= reader || (w.memory[the_word] & waiting) == 0 ? 1 : 0;
  });
  p.jump_if(has_it, "all served");
  add_serve(p, !reads, v);
  p.label("all served").unlock(queue_lock);
  p.label("end");
}

struct cast {
  role parties[3];
};
constexpr cast casts[] = {{{role::writes, role::reads, role::reads}},
                          {{role::writes, role::writes, role::reads}},
                          {{role::reads, role::writes, role::reads}},
                          {{role::writes, role::writes, role::writes}}};

// The first party may be cancelled.
model::answer outcome_of(const variant& v, const cast& who) {
  program parties[3];
  program canceller;
  for (int t = 0; t < 3; ++t) add_party(parties[t], who.parties[t], v);
  canceller.atomically("cancels the first", [](world& w, int) {
    if (w.memory[wait_word] != 1) return;
    w.memory[wait_word] = 2;
    w.memory[result] = cancelled;
  });
  checker all({&parties[0], &parties[1], &parties[2], &canceller});
  all.at_end = [&all](const world& w) { return all.are_all_finished(w) && w.memory[the_word] == 0; };
  return all.explore(world());
}

bool is_sound(const variant& v) {
  for (const cast& who : casts) {
    if (!outcome_of(v, who).is_sound) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("no writer beside anybody, and everybody gets in, whoever is cancelled") {
  for (const cast& who : casts) {
    const model::answer all = outcome_of(variant(), who);
    INFO(all.bad_path);
    CHECK(all.is_sound);
    CHECK(all.ends > 0);
    MESSAGE(all.states, " states");
  }
}

TEST_CASE("each step is needed") {
  variant leaves_silently;
  leaves_silently.leaver_serves = false;
  CHECK_FALSE(is_sound(leaves_silently));
  variant announces_late;
  announces_late.announces_at_once = false;
  CHECK_FALSE(is_sound(announces_late));
  variant leaves_last;
  leaves_last.last_reader_looks = false;
  CHECK_FALSE(is_sound(leaves_last));
  variant ignores_the_writer;
  ignores_the_writer.respects_the_writer = false;
  CHECK_FALSE(is_sound(ignores_the_writer));
  variant ignores_the_readers;
  ignores_the_readers.respects_the_readers = false;
  CHECK_FALSE(is_sound(ignores_the_readers));
  variant lets_others_pass;
  lets_others_pass.keeps_others_out = false;
  CHECK_FALSE(is_sound(lets_others_pass));
  variant wakes_the_cancelled;
  wakes_the_cancelled.claims = false;
  CHECK_FALSE(is_sound(wakes_the_cancelled));
}
