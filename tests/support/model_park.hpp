// tests/support/model_park.hpp - how a fiber of a model parks in a scope, and how a cancellation ends that.
//
// runtime/suspend.hpp (S5) and runtime/cancel.hpp (N1) as words of a world: the fiber's wait word is 2n + 1 during its n-th
// wait and 2n + 2 behind it, `ends` counts the waits that were ended, and `flag` says whether the fiber is cancelled.
#ifndef CONCUR_TESTS_SUPPORT_MODEL_PARK_HPP
#define CONCUR_TESTS_SUPPORT_MODEL_PARK_HPP

#include <string>

#include "support/model.hpp"

namespace model {

struct parking {
  int word;
  int flag;
  int ends;

  // What can be taken out of the protocol.
  bool looks = true;              // who parks looks at the flag
  bool looks_behind_word = true;  // and does so when the wait word can be seen, which the light fence is for
  bool claims = true;             // a wait is ended in one step
};

// Register `into`: whether the present wait, if there is one, was ended here.
inline void add_claim(program& p, const parking& f, int into) {
  p.load(into, f.word);
  p.atomically("claims", [=](world& w, int me) {
    const bool is_mine = (w.reg(me, into) & 1) != 0 && (w.memory[f.word] == w.reg(me, into) || !f.claims);
    if (is_mine) w.memory[f.word] = static_cast<value>(w.reg(me, into) + 1);
    w.reg(me, into) = is_mine ? 1 : 0;
  });
}

inline void add_resume(program& p, const parking& f, int when) {
  p.atomically("resumes", [=](world& w, int me) {
    if (w.reg(me, when) != 0) ++w.memory[f.ends];
  });
}

// The fiber has left, and the context behind it publishes that; uses register 0.
inline void add_publish(program& p, const parking& f, int n, const std::string& name) {
  if (!f.looks_behind_word) p.load(0, f.flag);
  p.release(f.word, 2 * n + 1);
  if (f.looks_behind_word) p.load(0, f.flag);
  if (f.looks) {
    p.jump_if([](world& w, int me) { return w.reg(me, 0) == 0; }, name);
    p.atomically("cancels itself", [=](world& w, int me) {
      w.reg(me, 0) = w.memory[f.word] == 2 * n + 1 ? 1 : 0;
      if (w.reg(me, 0) != 0) w.memory[f.word] = static_cast<value>(2 * n + 2);
    });
    add_resume(p, f, 0);
  }
  p.label(name);
}

inline void add_park(program& p, const parking& f, int n, const std::string& name) {
  add_publish(p, f, n, name);
  p.wait("to be resumed", [=](world& w, int) { return w.memory[f.ends] > n; });
}

// A walker that has come to the fiber, with its lock held; uses registers 0 and 2. The latter says whom to resume.
inline void add_wake(program& p, const parking& f, const std::string& name) {
  p.load(0, f.flag).note("nobody yet", [](world& w, int me) { w.reg(me, 2) = 0; });
  p.jump_if([](world& w, int me) { return w.reg(me, 0) == 0; }, name);
  add_claim(p, f, 2);
  p.label(name);
}

// Something else that the fiber waits for.
inline void add_completer(program& p, const parking& f, int n) {
  p.atomically("completes", [=](world& w, int me) {
    w.reg(me, 0) = w.memory[f.word] == 2 * n + 1 ? 1 : 0;
    if (w.reg(me, 0) != 0) w.memory[f.word] = static_cast<value>(2 * n + 2);
  });
  add_resume(p, f, 0);
}

// Whether a store of the thread to that word is on its way still.
inline bool is_on_its_way(const world& w, int thread, int where) {
  for (int i = 0; i < w.threads[thread].buffered; ++i) {
    if (w.threads[thread].buffer[i].where == where) return true;
  }
  return false;
}

}  // namespace model

#endif
