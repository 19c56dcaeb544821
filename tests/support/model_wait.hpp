// tests/support/model_wait.hpp - a site at which the threads of a model wait: its lock, its queue, and the words that say how
// each wait ended.
//
// runtime/waiter.hpp and runtime/wait_queue.hpp as words of a world. Thread t waits while its wait word is `waiting`. Whoever
// wants to end that, the site that gives something, a timer, a cancellation, takes the word to `ended` in one step (W1); then
// it leaves a result, which resumes t. A timer and a cancellation do the same here: they strike.
//
// What happens under the site's lock is one step each: nobody else sees the queue.
#ifndef CONCUR_TESTS_SUPPORT_MODEL_WAIT_HPP
#define CONCUR_TESTS_SUPPORT_MODEL_WAIT_HPP

#include <string>

#include "support/model.hpp"

namespace model {

enum wait_state { no_wait, waiting, ended, has_left };
enum end_of_wait { no_result, granted, retry, struck, closed };

struct site {
  int lock;
  int queue;   // as many words as `places`: the number of a thread plus one, and 0 behind the last
  int places;  // how many threads may wait at once
  int words;   // the wait word of thread 0; those of the others follow
  int results;
  int retired = 0;  // what the lock holds when nobody is to get it any more (retirable_lock.hpp, K3); 0: it never does

  // What can be taken out of the protocol.
  bool claims = true;                 // W1: a wait that was struck is not given anything as well
  bool leaver_unlinks = true;         // Q1: who was struck takes its note off the queue
  bool leaves_unless_retired = true;  // Q4
};

inline void queue_up(world& w, const site& s, int who) {
  for (int at = s.queue; at < s.queue + s.places; ++at) {
    if (w.memory[at] != 0) continue;
    w.memory[at] = static_cast<value>(who + 1);
    break;
  }
  w.memory[s.words + who] = waiting;
  w.memory[s.results + who] = no_result;
}

// Before the others.
inline void queue_up_first(world& w, const site& s, int who) {
  for (int at = s.queue + s.places - 1; at > s.queue; --at) w.memory[at] = w.memory[at - 1];
  w.memory[s.queue] = 0;
  queue_up(w, s, who);
}

inline void unlink(world& w, const site& s, int who) {
  for (int at = s.queue; at < s.queue + s.places; ++at) {
    if (w.memory[at] != who + 1) continue;
    for (int k = at; k + 1 < s.queue + s.places; ++k) w.memory[k] = w.memory[k + 1];
    w.memory[s.queue + s.places - 1] = 0;
  }
}

// Takes notes off the queue until one can be claimed. The thread that is to be resumed then, plus one; 0: nobody.
inline value pop_claimed(world& w, const site& s) {
  while (w.memory[s.queue] != 0) {
    const int who = w.memory[s.queue] - 1;
    unlink(w, s, who);
    if (w.memory[s.words + who] == has_left) w.fault = 1;  // its frame is gone, and the note with it
    if (w.memory[s.words + who] != waiting && s.claims) continue;
    w.memory[s.words + who] = ended;
    return static_cast<value>(who + 1);
  }
  return 0;
}

// The same for all: a bit each.
inline value pop_all(world& w, const site& s) {
  int taken = 0;
  while (const int who = pop_claimed(w, s)) taken |= 1 << (who - 1);
  return static_cast<value>(taken);
}

inline void resume(world& w, const site& s, int who, end_of_wait how) {
  value& result = w.memory[s.results + who];
  if (result != no_result) w.fault = 1;  // one wait, two ends
  result = static_cast<value>(how);
}
inline void resume_all(world& w, const site& s, int bits, end_of_wait how) {
  for (int t = 0; t < thread_count; ++t) {
    if (((bits >> t) & 1) != 0) resume(w, s, t, how);
  }
}

// A timer or a cancellation.
inline void add_strike(program& p, const site& s, int who) {
  p.atomically("strikes thread " + std::to_string(who), [s, who](world& w, int) {
    if (w.memory[s.words + who] != waiting) return;
    w.memory[s.words + who] = ended;
    resume(w, s, who, struck);
  });
}

// With the site's lock held: waits, and leaves in register 0 what ended it. Then the lock is free, the note off the queue.
inline void add_wait(program& p, const site& s, const std::string& name,
                     void (*queues)(world&, const site&, int) = queue_up) {
  p.atomically("queues", [s, queues](world& w, int me) { queues(w, s, me); });
  p.unlock(s.lock);
  p.wait(
      "to be resumed", [s](world& w, int me) { return w.memory[s.results + me] != no_result; },
      [s](world& w, int me) { w.reg(me, 0) = w.memory[s.results + me]; });
  p.jump_if([](world& w, int me) { return w.reg(me, 0) != struck; }, name);
  if (s.retired == 0 || !s.leaves_unless_retired) {
    p.lock(s.lock);
  } else {
    p.wait(
        "for the lock, or its end", [s](world& w, int) { return w.memory[s.lock] != 1; },
        [s](world& w, int me) {
          w.reg(me, 1) = w.memory[s.lock] == s.retired ? 1 : 0;
          if (w.reg(me, 1) == 0) w.memory[s.lock] = 1;
        });
    p.jump_if([](world& w, int me) { return w.reg(me, 1) != 0; }, name + ", retired");
  }
  p.atomically("takes itself off", [s](world& w, int me) {
    if (s.leaver_unlinks) unlink(w, s, me);
  });
  p.unlock(s.lock);
  p.label(name + ", retired").note("its frame goes", [s](world& w, int me) { w.memory[s.words + me] = has_left; });
  p.label(name);
}

}  // namespace model

#endif
