// runtime/birth.hpp - how a fiber comes by its block and its number, and how the block goes back.
//
// Spawning is a path of its own importance: a program may do nothing else. So the common case takes a block from the worker's
// own list and a number from its own run of them, writes only what a block does not keep from one use to the next, and calls
// nothing; all that happens once in a thousand times stands apart.
#ifndef CONCUR_RUNTIME_BIRTH_HPP
#define CONCUR_RUNTIME_BIRTH_HPP

#include "base/config.hpp"
#include "runtime/scheduler.hpp"

#if CONCUR_BODIES

#  include <utility>

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_NOINLINE CONCUR_INLINE std::uint64_t scheduler::new_id(worker* w) noexcept {
  constexpr std::uint64_t run = 1024;
  if (w != nullptr && w->next_id != w->last_id) return w->next_id++;
  lock_scope<spin_lock> held(id_lock_);
  if (w == nullptr) return next_id_++;
  w->next_id = next_id_;
  next_id_ += run;
  w->last_id = next_id_;
  return w->next_id++;
}

// A block's first use, or one whose fiber left a scope entered for ever. cancel_all, which sets the root's flag and then
// takes each block's lock, comes before us, and the flag is seen, or behind, and marks the block.
CONCUR_NOINLINE CONCUR_INLINE void scheduler::put_into_root(fiber* f) noexcept {
  lock_scope<spin_lock> held(f->scope_lock);
  f->current_scope.store(&root_scope, std::memory_order_relaxed);               // relaxed: under the lock
  f->is_cancelled.store(root_scope.is_effective(), std::memory_order_relaxed);  // relaxed: under the lock
}

// What a block keeps from one use to the next is not written here: its owner, its wait word, and that it is in the root.
CONCUR_FORCE_INLINE void reset_fiber(fiber* f, std::uint64_t id) noexcept {
  f->set_reason(wait_reason::none);
  f->is_started = false;
  f->shield_depth = 0;
  f->pin_depth = 0;
  f->unwind_base = 0;
  f->exceptions = exception_state{};
  f->home = nullptr;
  f->memory = nullptr;
  f->id = id;
}

// A block that comes back is in the root's scope already, and cancel_all has marked it with the others. The common case calls
// nothing, so that no register has to be saved for it: a third of what it did.
CONCUR_NOINLINE CONCUR_INLINE fiber* scheduler::new_fiber(worker* w) noexcept {
  if (CONCUR_LIKELY(w != nullptr && w->next_id != w->last_id)) {
    fiber* const f = w->blocks.front();
    if (CONCUR_LIKELY(f != nullptr && f->innermost() == &root_scope)) {
      w->blocks.take_front();
      reset_fiber(f, w->next_id++);
      return f;
    }
  }
  return new_fiber_slow(w);
}

CONCUR_NOINLINE CONCUR_INLINE fiber* scheduler::new_fiber_slow(worker* w) noexcept {
  std::size_t one = 1;
  fiber* f = w != nullptr ? w->blocks.take(*blocks) : blocks->take(one);
  if (f == nullptr) return nullptr;
  f->owner = this;
  if (f->innermost() != &root_scope) put_into_root(f);
  reset_fiber(f, new_id(w));
  return f;
}

CONCUR_INLINE void free_fiber(fiber* f) noexcept {
  if (CONCUR_UNLIKELY(std::exchange(f->has_belongings, false))) delete[] std::exchange(f->name, nullptr);
  f->set_state(fiber_state::idle);
  fiber_pool* const pool = pool_of(f);
  worker* w = this_worker();
  if (CONCUR_LIKELY(w != nullptr && w->sched->blocks == pool)) {
    w->blocks.give_back(*pool, f);
  } else {
    f->next = nullptr;
    pool->give_back(f);
  }
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
