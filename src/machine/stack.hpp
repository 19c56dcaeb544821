// machine/stack.hpp - where fibers' stacks come from, and where they wait to be used again.
//
// The pool reserves slabs of many stacks with one mapping each, every slab bigger than the last, and hands the stacks
// out one by one. It puts a guard below a stack when that is handed out for the first time. Fibers that run to their
// end give their stack back within microseconds; so what matters is that the next one gets the same, with its pages
// still in the cache.
//
//   T1  A stack is in one place: handed out, or in one of the four lists, or not yet carved from its slab.
//   T2  The lists are last in, first out. Whoever acquires next gets the pages that are still in the cache.
//   T3  Stacks and their table entries are never unmapped while the pool lives. A stack may be given back late, and a
//       fault handler may look one up at any time.
//   T4  Only one thread grows the pool at a time, and not under the lock: no system call is made while the lock is
//       held.
//   T5  Failing to get a stack changes nothing. A smaller slab is tried first, down to a single stack.
//
// What has long been unused is given back to the kernel in steps. Each call of trim() moves the lists one on:
//
//     hot    released after the last trim            all pages kept
//     warm   not needed for one trim                 all pages kept
//     cool   not needed for two trims                the topmost page kept
//     cold   not needed for three trims              nothing kept but address space
#ifndef CONCUR_MACHINE_STACK_HPP
#define CONCUR_MACHINE_STACK_HPP

#include <cstddef>

#include "atomic/spin_lock.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"
#include "machine/stack_guard.hpp"
#include "machine/stack_slab.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

class stack_pool {
 public:
  // Makes nothing yet. Sizes are rounded up to pages. A choice of guard other than none_yet takes that kind and no
  // stronger one; it is for tests.
  explicit stack_pool(std::size_t usable_bytes, guard_kind guard_choice = guard_kind::none_yet) noexcept;

  // Unmaps everything. No stack may be in use.
  ~stack_pool();

  stack_pool(const stack_pool&) = delete;
  stack_pool& operator=(const stack_pool&) = delete;

  // A stack, or nullptr with an errno in `error` (ENOMEM).
  stack* acquire(int& error) noexcept;

  // Up to n of them, at least one unless there is an error. Used ones come first, and new ones are made only when there
  // is not one used stack; so that a cache which asks for many does not grow the pool while others give back.
  std::size_t acquire_many(stack** out, std::size_t n, int& error) noexcept;

  // Gives back a stack that nobody runs on any more, with its pages as they are.
  void release(stack* freed) noexcept;
  void release_many(stack* first_of_list) noexcept;

  // Gives back pages of stacks long unused, see above. Meant to be called now and then, every second or so.
  void trim() noexcept;

  // The weakest guard that any stack of this pool has: what statistics should show.
  guard_kind guard() const noexcept;
  std::size_t mapped_count() const noexcept;    // stacks carved so far, in use or not
  std::size_t live_count() const noexcept;      // of these, handed out now
  std::size_t reserved_bytes() const noexcept;  // address space, not memory
  std::size_t usable_bytes() const noexcept { return layout_.usable_bytes; }

  // False when a stack guarded by a canary has been overrun. The canary is made good by release().
  bool canary_is_intact(const stack& one) const noexcept;

  // Which stack's guard holds this address? For signal handlers: takes no lock, and reads only what never changes.
  bool guard_holds(const void* address, const stack** which) const noexcept;

 private:
  enum temperature { hot, warm, cool, cold, temperatures };

  stack* pop_locked() noexcept;
  void push_locked(stack* one, temperature where) noexcept;
  stack* carve(int& error) noexcept;
  int grow() noexcept;
  void put_guard(stack& one) noexcept;
  void restore_canary(stack& one) noexcept;
  void cool_down(temperature from, temperature to, std::size_t bytes_kept) noexcept;

  const stack_layout layout_;
  atomic<stack_slab*> slabs_{nullptr};

  mutable spin_lock lock_;  // guards what follows
  stack* free_[temperatures] = {};
  bool is_growing_ = false;
  guard_kind strongest_guard_;  // that is worth trying
  guard_kind weakest_guard_ = guard_kind::none_yet;
  std::size_t next_slab_stacks_ = 8;
  std::size_t slab_left_ = 0;  // stacks of the newest slab that are not carved
  std::size_t mapped_count_ = 0;
  std::size_t live_count_ = 0;
  std::size_t reserved_bytes_ = 0;
  std::size_t mprotect_count_ = 0;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#include <errno.h>

#include <cstring>

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE stack_pool::stack_pool(std::size_t usable_bytes, guard_kind guard_choice) noexcept
    : layout_(layout_of_stacks(usable_bytes)), strongest_guard_(guard_choice) {}

CONCUR_INLINE stack_pool::~stack_pool() {
  give_back_mprotect_places(mprotect_count_);
  // relaxed: nobody else uses a pool that is being destroyed
  stack_slab* slab = slabs_.load(std::memory_order_relaxed);
  while (slab != nullptr) {
    stack_slab* const next = slab->next;
    unmap_slab(slab);
    slab = next;
  }
}

CONCUR_INLINE stack* stack_pool::pop_locked() noexcept {
  for (stack*& first : free_) {
    if (first == nullptr) continue;
    stack* const taken = first;
    first = taken->next;
    taken->next = nullptr;
    ++live_count_;
    return taken;
  }
  return nullptr;
}

CONCUR_INLINE void stack_pool::push_locked(stack* one, temperature where) noexcept {
  one->next = free_[where];
  free_[where] = one;
}

CONCUR_INLINE stack* stack_pool::acquire(int& error) noexcept {
  error = 0;
  {
    lock_scope<spin_lock> hold(lock_);
    if (stack* const used = pop_locked()) return used;
  }
  return carve(error);
}

CONCUR_INLINE std::size_t stack_pool::acquire_many(stack** out, std::size_t n, int& error) noexcept {
  error = 0;
  std::size_t count = 0;
  {
    lock_scope<spin_lock> hold(lock_);
    while (count < n) {
      stack* const used = pop_locked();
      if (used == nullptr) break;
      out[count++] = used;
    }
  }
  if (count != 0) return count;
  while (count < n) {
    stack* const fresh = carve(error);
    if (fresh == nullptr) break;
    out[count++] = fresh;
  }
  if (count != 0) error = 0;
  return count;
}

// A stack that was never used, from the newest slab or from a new one.
CONCUR_INLINE stack* stack_pool::carve(int& error) noexcept {
  unsigned round = 0;
  for (;;) {
    lock_.lock();
    if (slab_left_ != 0) {
      // relaxed: slabs are pushed under the lock we hold
      stack_slab* const slab = slabs_.load(std::memory_order_relaxed);
      const std::size_t index = slab->stacks - slab_left_--;
      const std::size_t serial = mapped_count_++;
      ++live_count_;
      lock_.unlock();
      stack* const fresh = carve_stack(layout_, *slab, index, serial);
      put_guard(*fresh);
      return fresh;
    }
    if (stack* const used = pop_locked()) {  // given back while we were waiting
      lock_.unlock();
      return used;
    }
    const bool is_mine = !is_growing_;
    is_growing_ = true;
    lock_.unlock();
    if (is_mine) {
      error = grow();
      if (error != 0) return nullptr;
    } else {
      spin_wait(round);
    }
  }
}

// Adds a slab. The caller has set is_growing_, so that there is one at a time (T4).
CONCUR_INLINE int stack_pool::grow() noexcept {
  stack_slab* slab = nullptr;
  std::size_t stacks = next_slab_stacks_;
  if (layout_.stride_bytes != 0) {
    while (stacks > 1 && stacks > slab_bytes_most / layout_.stride_bytes) stacks /= 2;
    for (; slab == nullptr && stacks != 0; stacks /= 2) slab = map_slab(layout_, stacks);
  }

  lock_scope<spin_lock> hold(lock_);
#if CONCUR_MUTANT_IS(23)
  is_growing_ = slab == nullptr && layout_.stride_bytes != 0;  // planted bug: after a failure nobody may try again
#else
  is_growing_ = false;
#endif
  if (slab == nullptr) return ENOMEM;
  // relaxed: slabs are pushed under the lock we hold
  slab->next = slabs_.load(std::memory_order_relaxed);
  // release: publishes the slab's head to guard_holds, which takes no lock
  slabs_.store(slab, std::memory_order_release);
  slab_left_ = slab->stacks;
  reserved_bytes_ += slab->bytes;
  if (slab->stacks >= next_slab_stacks_ && slab->stacks < slab_stacks_most) next_slab_stacks_ = slab->stacks * 2;
  return 0;
}

// Tries the strongest guard first. It never fails: the last kind needs nothing.
CONCUR_INLINE void stack_pool::put_guard(stack& one) noexcept {
  lock_.lock();
  guard_kind kind = strongest_guard_;
  lock_.unlock();

  if (kind == guard_kind::none_yet) kind = probe_guard_kind(layout_.page_bytes);
  const guard_kind found = kind;
  if (kind == guard_kind::none_yet) kind = guard_kind::mprotect;

  char* const guard_low = one.low - layout_.guard_bytes;
  if (kind == guard_kind::madvise && !install_guard(kind, guard_low, layout_.guard_bytes)) kind = guard_kind::mprotect;
  bool has_place = false;
  if (kind == guard_kind::mprotect) {
    has_place = take_mprotect_place();
    if (!has_place || !install_guard(kind, guard_low, layout_.guard_bytes)) kind = guard_kind::canary;
    if (has_place && kind == guard_kind::canary) give_back_mprotect_places(1);
  }
  one.guarded_by = kind;

  lock_scope<spin_lock> hold(lock_);
  if (strongest_guard_ == guard_kind::none_yet) strongest_guard_ = found;
  if (kind > weakest_guard_) weakest_guard_ = kind;
  if (kind == guard_kind::mprotect) ++mprotect_count_;
}

CONCUR_INLINE bool stack_pool::canary_is_intact(const stack& one) const noexcept {
  return one.guarded_by != guard_kind::canary || canary_is_zero(one.low - layout_.page_bytes, layout_.page_bytes);
}

// The next fiber on this stack is not to be blamed for the last one. What it wrote further down is left as it is.
CONCUR_INLINE void stack_pool::restore_canary(stack& one) noexcept {
  if (!canary_is_intact(one)) std::memset(one.low - layout_.page_bytes, 0, layout_.page_bytes);
}

CONCUR_INLINE void stack_pool::release(stack* freed) noexcept {
  restore_canary(*freed);
#if !CONCUR_MUTANT_IS(27)  // planted bug: whoever takes or gives back at the same time may break the list
  lock_scope<spin_lock> hold(lock_);
#endif
  push_locked(freed, hot);
  --live_count_;
}

CONCUR_INLINE void stack_pool::release_many(stack* first_of_list) noexcept {
  for (stack* one = first_of_list; one != nullptr; one = one->next) restore_canary(*one);
  lock_scope<spin_lock> hold(lock_);
  while (first_of_list != nullptr) {
    stack* const next = first_of_list->next;
    push_locked(first_of_list, hot);
    --live_count_;
    first_of_list = next;
  }
}

CONCUR_INLINE void stack_pool::trim() noexcept {
  cool_down(cool, cold, 0);
  cool_down(warm, cool, layout_.page_bytes);
  lock_scope<spin_lock> hold(lock_);
  if (free_[warm] != nullptr) return;  // somebody else trims too, and was here first
  free_[warm] = free_[hot];
  free_[hot] = nullptr;
}

// Moves a list one step on, a few stacks at a time, so that the lock is held for a moment only; what is in our hands
// meanwhile cannot be acquired.
CONCUR_INLINE void stack_pool::cool_down(temperature from, temperature to, std::size_t bytes_kept) noexcept {
  constexpr int batch = 32;
  for (;;) {
    stack* taken = nullptr;
    lock_.lock();
    for (int i = 0; i < batch && free_[from] != nullptr; ++i) {
      stack* const one = free_[from];
      free_[from] = one->next;
      one->next = taken;
      taken = one;
    }
    lock_.unlock();
    if (taken == nullptr) return;
    for (stack* one = taken; one != nullptr; one = one->next) give_back_pages(layout_, *one, bytes_kept);
    lock_scope<spin_lock> hold(lock_);
    while (taken != nullptr) {
      stack* const next = taken->next;
      push_locked(taken, to);
      taken = next;
    }
  }
}

CONCUR_INLINE guard_kind stack_pool::guard() const noexcept {
  lock_scope<spin_lock> hold(lock_);
  return weakest_guard_;
}
CONCUR_INLINE std::size_t stack_pool::mapped_count() const noexcept {
  lock_scope<spin_lock> hold(lock_);
  return mapped_count_;
}
CONCUR_INLINE std::size_t stack_pool::live_count() const noexcept {
  lock_scope<spin_lock> hold(lock_);
  return live_count_;
}
CONCUR_INLINE std::size_t stack_pool::reserved_bytes() const noexcept {
  lock_scope<spin_lock> hold(lock_);
  return reserved_bytes_;
}

CONCUR_INLINE bool stack_pool::guard_holds(const void* address, const stack** which) const noexcept {
  const stack* found = nullptr;
  // acquire: pairs with the release in grow, so that the slab's head can be read
  for (const stack_slab* slab = slabs_.load(std::memory_order_acquire); slab != nullptr; slab = slab->next) {
    const slab_place place = place_in_slab(layout_, *slab, address, &found);
    if (place == slab_place::outside) continue;
    if (place == slab_place::guard && which != nullptr) *which = found;
    return place == slab_place::guard;
  }
  return false;
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES

#endif
