// runtime/cancel.hpp - the two walks down the tree of scopes by which a cancellation reaches all that is below.
//
// Cancelling must find every fiber below a scope, also those that park in this moment, and wake each exactly once; and
// while it does, fibers go on entering and leaving scopes, and begin and end. Two walks down the tree do it:
//
//     mark     brings is_cancelled up to date in each scope below, root to leaf; goes no further where nothing changed
//     fence
//     wake     looks at each fiber below that waits in a scope which is cancelled, claims its wait, and resumes it
//
//   N1  Whoever parks after the mark sees the flag (suspend.hpp, S5); whoever was parked before is seen by the wake. The
//       heavy fence between the walks is one side of that pair, the light fence behind the wait word the other;
//       tests/model_cancel.cpp ends badly without either.
//   N2  A walk holds the locks from the scope it began at down to where it is, and takes them in that order: two walks do not
//       overtake each other, and whoever begins, enters or leaves below is either met or sees what was written above.
//   N3  Nobody is resumed, and no listener called, under a lock. Claimed fibers stand still until they are resumed (W2), so
//       a chain through them is safe; their `next` is free, since they are on no queue.
//   N4  Walks need no memory and no recursion: the way back up is written in the tree.
//
// Rejected: one lock for the whole tree. Correct, and simpler; but each scope of each fiber would touch one shared word.
// Rejected: no marks, and asking every scope up to the root at each checkpoint. It makes deep trees slow where they are
// used, and saves work where cancellations are, which are rarer.
#ifndef CONCUR_RUNTIME_CANCEL_HPP
#define CONCUR_RUNTIME_CANCEL_HPP

#include "atomic/spin_lock.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"
#include "runtime/scope.hpp"
#include "runtime/scope_entry.hpp"
#include "runtime/serve.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Cancels all that is below. From any thread, while the scope exists. Does not wait.
CONCUR_INLINE void cancel_scope_tree(scope& s) noexcept;
// From any thread. Without a shield, a cancellation from outside is felt at once, also by who is parked.
CONCUR_INLINE void set_scope_shield(scope& s, bool is_shielded) noexcept;

// The scope's token, held once for the caller; null when memory is exhausted.
CONCUR_INLINE token_state* token_of(scope& s) noexcept;

// What one cancellation does, from its walks to the resuming.
class cancellation {
 public:
  cancellation() noexcept = default;
  cancellation(const cancellation&) = delete;
  cancellation& operator=(const cancellation&) = delete;

  // From `top`, which f has entered, inwards and down; null: from the outermost of f's own scopes that lie below `base`.
  // f's lock is held.
  void mark(fiber* f, scope* top, scope* base) noexcept {
    walk(f, top, base, &cancellation::mark_scope, &cancellation::mark_fiber);
  }
  void wake(fiber* f, scope* top, scope* base) noexcept {
    walk(f, top, base, &cancellation::may_descend, &cancellation::wake_fiber);
  }
  // What the mark found: whether anything changed, and whether other fibers than f are below. Else nobody is to be woken.
  bool has_changed() const noexcept { return has_changed_; }
  bool has_others() const noexcept { return has_others_; }
  // For a scope that is in no fiber's list.
  void tell_token(scope& s) noexcept;
  // N3.
  void finish() noexcept;

 private:
  // Whether to go on inwards and down from there.
  using scope_look = bool (cancellation::*)(scope&) noexcept;
  using fiber_look = void (cancellation::*)(fiber&) noexcept;

  void walk(fiber* f, scope* top, scope* base, scope_look at_scope, fiber_look at_fiber) noexcept;
  bool mark_scope(scope& s) noexcept;
  void mark_fiber(fiber& f) noexcept;
  bool may_descend(scope& s) noexcept;
  void wake_fiber(fiber& f) noexcept;

  fiber* first_ = nullptr;
  fiber** end_ = &first_;
  token_state* told_ = nullptr;
  bool has_changed_ = false;
  bool has_others_ = false;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <new>

CONCUR_NAMESPACE_BEGIN
namespace detail {

// --- walking ---

CONCUR_INLINE void note_raised(scope& innermost) noexcept {
  scope* origin = &innermost;
  while (origin->surroundings_cancelled()) origin = origin->outer();
  origin->was_raised.store(true, std::memory_order_relaxed);  // relaxed: read by fibers that are told by other means
}

// Under f's lock: writes the way inwards into f's scopes up to `outside`, and returns the outermost of them; null: none.
inline scope* link_inwards(fiber& f, const scope* outside) noexcept {
  scope* inner = nullptr;
  // acquire: pairs with enter_scope.
  for (scope* s = f.current_scope.load(std::memory_order_acquire); s != outside; s = s->outer()) {
    s->inner = inner;
    inner = s;
  }
  return inner;
}

// N2, N4. Each round is one scope s of the fiber f, or, with s null, the end of f.
CONCUR_INLINE void cancellation::walk(fiber* f, scope* top, scope* base, scope_look at_scope,
                                      fiber_look at_fiber) noexcept {
  fiber* const host = f;
  scope* s = link_inwards(*f, top != nullptr ? top->outer() : base);
  for (;;) {
    if (s != nullptr) {
      if (!(this->*at_scope)(*s)) {
        s = nullptr;
        continue;
      }
      nursery_part* const n = s->below;
      if (n != nullptr) {
        n->gate.lock.lock();
        if (member* const child = n->members.front()) {
          f = child->who;
          f->scope_lock.lock();
          has_others_ = true;
          s = link_inwards(*f, n->top);
          continue;
        }
        n->gate.lock.unlock();
      }
      s = s->inner;
      continue;
    }
    (this->*at_fiber)(*f);
    if (f == host) return;
    member* const child = static_cast<member*>(f->payload);
    nursery_part* const n = child->home;
    f->scope_lock.unlock();
    if (child->next != n->members.front()) {
      f = child->next->who;
      f->scope_lock.lock();
      s = link_inwards(*f, n->top);
      continue;
    }
    n->gate.lock.unlock();
    f = n->top->owner.load(std::memory_order_relaxed);  // relaxed: it has members, so nobody changes that (H2)
    s = n->top->inner;
  }
}

CONCUR_INLINE bool cancellation::mark_scope(scope& s) noexcept {
  const bool flag = computed_flag(s);
  if (flag == s.is_effective()) return false;
  s.is_cancelled.store(flag, std::memory_order_relaxed);  // relaxed: the fence between the walks (N1)
  has_changed_ = true;
  if (flag) tell_token(s);
  return true;
}

CONCUR_INLINE void cancellation::tell_token(scope& s) noexcept {
  // seq_cst: with token_of, which writes the token, then looks; and publishes the flag of s to who sees the fiber's
  // (know_cancelled_scopes).
  thread_fence(std::memory_order_seq_cst);
  token_state* const t = s.token.load(std::memory_order_acquire);  // acquire: pairs with token_of
  // relaxed: only who is first.
  if (t == nullptr || (t->is_told.exchange(true, std::memory_order_relaxed) && !CONCUR_MUTANT_IS(231))) return;
  t->hold();
  t->next_told = told_;
  told_ = t;
}

CONCUR_INLINE void cancellation::mark_fiber(fiber& f) noexcept { note_flag(f); }

CONCUR_INLINE bool cancellation::may_descend(scope& s) noexcept { return s.is_effective(); }

CONCUR_INLINE void cancellation::wake_fiber(fiber& f) noexcept {
  const std::uint32_t word = f.word.load(std::memory_order_acquire);  // acquire: pairs with the fiber's parking
  // relaxed: the claim proves that it belonged to this wait.
  if ((word & 1) == 0 || f.is_deaf.load(std::memory_order_relaxed) ||
      !f.is_cancelled.load(std::memory_order_relaxed))  // relaxed: under the lock
    return;
  if (!claim(f, word)) return;
  if (!CONCUR_MUTANT_IS(424)) f.cancelled_wait = word;  // serve.hpp, V1
  f.result = outcome::cancelled;
  note_raised(*f.innermost());
  f.next = nullptr;
  *end_ = &f;
  end_ = &f.next;
}

CONCUR_INLINE void cancellation::finish() noexcept {
  while (first_ != nullptr) {
    fiber* const f = first_;
    first_ = f->next;  // read before the resume (W2)
    resume(f);
  }
  end_ = &first_;
  while (told_ != nullptr) {
    token_state* const t = told_;
    told_ = t->next_told;
    t->cancel();
    t->release();
  }
}

// --- causes ---

CONCUR_INLINE void tell_alone(scope& s) noexcept {
  cancellation act;
  act.tell_token(s);
  act.finish();
}

// With the lock of the scope's owner held, which is dropped: after was_called or is_shielded was changed.
inline void spread(fiber& owner, scope& s) noexcept {
  cancellation act;
  act.mark(&owner, &s, nullptr);
  const bool is_cancelled = act.has_changed() && s.is_effective();
  owner.scope_lock.unlock();
  worker* const w = this_worker();
  const bool is_own = w != nullptr && w->current == &owner;
  if (is_cancelled && (act.has_others() || !is_own)) {
    // With one worker, and on it, nobody parks meanwhile.
    const bool is_alone = w != nullptr && w->sched == owner.owner && w->sched->worker_count == 1;
    if (!is_alone) heavy_fence();
    owner.scope_lock.lock();
    // relaxed: under the lock. If it was left meanwhile, so was all that was below.
    if (s.owner.load(std::memory_order_relaxed) == &owner || CONCUR_MUTANT_IS(292)) act.wake(&owner, &s, nullptr);
    owner.scope_lock.unlock();
  }
  act.finish();
}

// The scope's owner, locked; null: nobody has entered it.
inline fiber* lock_owner(scope& s) noexcept {
  for (;;) {
    fiber* const f = s.owner.load(std::memory_order_seq_cst);  // seq_cst: see enter_scope
    if (f == nullptr) return nullptr;
    f->scope_lock.lock();
    if (s.owner.load(std::memory_order_relaxed) == f) return f;  // relaxed: under the lock
    f->scope_lock.unlock();
  }
}

CONCUR_INLINE void cancel_scope_tree(scope& s) noexcept {
  if (s.was_called.exchange(true, std::memory_order_seq_cst)) return;  // seq_cst: see enter_scope
  if (fiber* const f = lock_owner(s))
    spread(*f, s);
  else
    tell_alone(s);
}

CONCUR_INLINE void set_scope_shield(scope& s, bool is_shielded) noexcept {
  s.is_shielded.store(is_shielded, std::memory_order_seq_cst);  // seq_cst: as was_called, see enter_scope
  fiber* const f = CONCUR_MUTANT_IS(216) ? nullptr : lock_owner(s);
  if (f != nullptr) spread(*f, s);
}

CONCUR_INLINE token_state* token_of(scope& s) noexcept {
  token_state* t = s.token.load(std::memory_order_acquire);  // acquire: pairs with the exchange below
  if (t == nullptr) {
    token_state* const fresh = new (std::nothrow) token_state();
    if (fresh == nullptr) return nullptr;
    // seq_cst: with tell_token. acquire on failure: somebody else made it.
    if (s.token.compare_exchange_strong(t, fresh, std::memory_order_seq_cst, std::memory_order_acquire))
      t = fresh;
    else
      fresh->release();
  }
  t->hold();
  thread_fence(std::memory_order_seq_cst);  // seq_cst: as above
  // relaxed: behind the fence.
  if (s.is_effective() || s.was_called.load(std::memory_order_relaxed)) t->cancel();
  return t;
}

// The root of a fiber's scopes: what its outermost own scope is entered below. Under its lock.
inline const scope* base_of(const fiber& f) noexcept {
  const scope* s = f.current_scope.load(std::memory_order_acquire);  // acquire: pairs with enter_scope
  // relaxed: under the lock of the one that it is compared with.
  while (s != nullptr && s->owner.load(std::memory_order_relaxed) == &f) s = s->outer();
  return s;
}

// Fibers whose base is the root are in no list: the pool's chunks are walked for them.
CONCUR_INLINE void scheduler::cancel_all() noexcept {
  struct round {
    scope* root;
    cancellation act;
    bool is_waking;
  };
  round all{&root_scope, {}, false};
  const auto look = [](fiber* f, void* raw) {
    round* const r = static_cast<round*>(raw);
    lock_scope<spin_lock> held(f->scope_lock);
    if (base_of(*f) != r->root) return;
    if (r->is_waking)
      r->act.wake(f, nullptr, r->root);
    else
      r->act.mark(f, nullptr, r->root);
  };
  root_scope.is_cancelled.store(true, std::memory_order_relaxed);  // relaxed: the blocks' locks (put_into_root)
  all.act.tell_token(root_scope);
  blocks->walk(look, &all);
  heavy_fence();
  all.is_waking = true;
  blocks->walk(look, &all);
  all.act.finish();
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
