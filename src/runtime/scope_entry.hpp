// runtime/scope_entry.hpp - how the tree of scopes grows and shrinks: scopes are entered and left, children join and leave.
//
// Each of these acts is its own fiber's, or is done for a fiber that does not run yet or any more; and each is done under the
// lock of scope.hpp that walkers hold while they look there. So a cancellation that comes down the tree at the same moment
// finds the tree before or after, and in both cases what is new ends up with the right flag:
//
//     the walker came first     who enters computes its flag from what the walker wrote above
//     the walker comes later    it meets what has been entered
#ifndef CONCUR_RUNTIME_SCOPE_ENTRY_HPP
#define CONCUR_RUNTIME_SCOPE_ENTRY_HPP

#include "atomic/spin_lock.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"
#include "runtime/scope.hpp"
#include "runtime/wait_queue.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// The fibers that live below a nursery's scope.
struct nursery_part {
  nursery_part() noexcept = default;
  nursery_part(const nursery_part&) = delete;
  nursery_part& operator=(const nursery_part&) = delete;

  scope* top = nullptr;
  wait_queue gate;  // its lock guards `members`; who waits there is the nursery's affair (nursery_core.hpp)
  intrusive_list<member> members;
};

// Below everything that the running fiber f is in (H1). A scope that others may have cancelled before is `shared`.
CONCUR_INLINE void enter_scope(scope& s, fiber& f, bool is_shared) noexcept;
// False, and nothing happened: the caller is not its owner, or has entered others since.
CONCUR_INLINE bool leave_scope(scope& s) noexcept;
// Both under the nursery's lock. Before the child is ready for the first time; and when it has left its own scopes: then
// nobody finds a way from it to there any more.
CONCUR_INLINE void join_nursery(member& child, nursery_part& n) noexcept;
CONCUR_INLINE void leave_nursery(member& child) noexcept;

// Under f's lock.
inline void note_flag(fiber& f) noexcept {
  f.is_cancelled.store(f.innermost()->is_effective(), std::memory_order_relaxed);  // relaxed: see scope.hpp
}

// The equation of scope.hpp.
inline bool computed_flag(const scope& s) noexcept {
  return s.was_called.load(std::memory_order_relaxed) || s.surroundings_cancelled();  // relaxed: see scope.hpp
}

// For a cancelled scope that no walk comes to: nobody has entered it, or all was cancelled already where it is entered. Its token
// may have been asked for before.
CONCUR_INLINE void tell_alone(scope& s) noexcept;  // cancel.hpp

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <exception>

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void enter_scope(scope& s, fiber& f, bool is_shared) noexcept {
  s.parent.store(f.innermost(), std::memory_order_relaxed);  // relaxed: published by the lock below
  s.outer_unwind_base = f.unwind_base;
#  if CONCUR_EXCEPTIONS
  const int uncaught = std::uncaught_exceptions();
  if (CONCUR_UNLIKELY(uncaught > f.unwind_base)) {         // in a destructor that runs for unwinding
    s.is_shielded.store(true, std::memory_order_relaxed);  // relaxed: published by the lock below
    if (!CONCUR_MUTANT_IS(299)) f.unwind_base = static_cast<unsigned char>(uncaught < 255 ? uncaught : 255);
  }
#  endif
  bool is_cancelled = false;
  {
    lock_scope<spin_lock> held(f.scope_lock);
    // seq_cst: with cancel_scope_tree, which writes was_called and then looks for the owner: one of the two sees the other.
    s.owner.store(&f, is_shared ? std::memory_order_seq_cst : std::memory_order_relaxed);  // relaxed: under the lock
    if (is_shared) thread_fence(std::memory_order_seq_cst);                    // seq_cst: as above
    is_cancelled = computed_flag(s) && !CONCUR_MUTANT_IS(202);
    s.is_cancelled.store(is_cancelled, std::memory_order_relaxed);  // relaxed: under the lock
    f.current_scope.store(&s, std::memory_order_release);           // release: a walker follows it (cancel_all)
    note_flag(f);
  }
  if (CONCUR_LIKELY(!is_shared || !is_cancelled) || CONCUR_MUTANT_IS(246)) return;
  tell_alone(s);
}

CONCUR_INLINE bool leave_scope(scope& s) noexcept {
  worker* const w = this_worker();
  fiber* const f = w != nullptr ? w->current : nullptr;
  if (CONCUR_UNLIKELY(f == nullptr || f->innermost() != &s)) return false;
  f->unwind_base = s.outer_unwind_base;
  lock_scope<spin_lock> held(f->scope_lock);
  f->current_scope.store(s.outer(), std::memory_order_relaxed);  // relaxed: under the lock
  note_flag(*f);
  s.owner.store(nullptr, std::memory_order_relaxed);  // relaxed: under the lock
  return true;
}

CONCUR_INLINE void join_nursery(member& child, nursery_part& n) noexcept {
  fiber& f = *child.who;
  child.home = &n;
  {
    lock_scope<spin_lock> held(f.scope_lock);
    f.current_scope.store(n.top, std::memory_order_release);  // release: a walker follows it (cancel_all)
    if (CONCUR_MUTANT_IS(203))
      f.is_cancelled.store(false, std::memory_order_relaxed);  // relaxed: mutant
    else
      note_flag(f);
  }
  n.members.push_back(&child);
}

CONCUR_INLINE void leave_nursery(member& child) noexcept {
  {
    lock_scope<spin_lock> held(child.who->scope_lock);
    // relaxed: under the lock.
    if (!CONCUR_MUTANT_IS(206))
      child.who->current_scope.store(&child.who->owner->root_scope, std::memory_order_relaxed);
    note_flag(*child.who);
  }
  child.home->members.erase(&child);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
