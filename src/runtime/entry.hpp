// runtime/entry.hpp - how a fiber begins and ends, and how a worker's own loop enters one.
//
// A stack is bound to a fiber when it first runs, and outlives it: a fiber whose function has returned takes the next one in
// line, if that has not started either, onto its own stack without any switch. Short fibers thus run like the calls of a
// loop, on a stack that is warm. Only when the next one has a stack of its own does the old one go back, and then whoever
// runs next gives it back (suspend.hpp, S2): nobody can free the ground that he stands on.
#ifndef CONCUR_RUNTIME_ENTRY_HPP
#define CONCUR_RUNTIME_ENTRY_HPP

#include "base/config.hpp"
#include "runtime/fetch_ahead.hpp"
#include "runtime/suspend.hpp"

#if CONCUR_BODIES

#  include <new>
#  include <utility>

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void publish_finished(worker* w) noexcept {
  stack* s = w->dead_stack;
#  if CONCUR_ASAN || CONCUR_TSAN
  std::launder(reinterpret_cast<stack_notice*>(s->low + s->size - sizeof(stack_notice)))->release();
#  endif
  w->sched->recycle_stack(w, s);
}

// Runs fibers on one stack until the next in line has one of its own. Inlined: a call that never returns has the returns of
// the fiber that is switched to at the end predicted wrong, 3 ns and more for each.
[[noreturn]] CONCUR_SWITCH_INLINE void fiber_main(worker* w) noexcept {
  stack* const own = w->current->memory;
  stack_notice& own_notice = notice_of(w->current);  // at the top of this stack: it outlives the fiber's block
  publish_departed(w);
  for (;;) {
    fiber* self = w->current;
    w = self->entry(self, 0);  // the block may be free, and another fiber's, when this returns
    w->finished.add();
    fiber* next = pick_next(w);
    if (next != nullptr && !next->is_started) {
#  if CONCUR_TSAN
      // A fiber of its own for the tool, or it would take two fibers on one stack for one after the other by right.
      if (!w->sched->give_stack_to(w, next)) w->stackless = std::exchange(next, nullptr);
#  else
      next->memory = own;
      next->is_started = true;
      fetch_later(w->queue);
#    if defined(CONCUR_SAVE_FPU)
      fpu_control{}.apply();
#    endif
#    if CONCUR_ASAN
      next->notice = &own_notice;
#    endif
      if (w->sched->settings.migration == migration::at_start) next->home = w;
      next->set_state(fiber_state::running);
      w->current = next;
      continue;
#  endif
    }
    w->how = departure::finished;
    w->dead_stack = own;
    context end;
    if (next != nullptr) {
      next->exceptions.load_into(w->exceptions);
      next->set_state(fiber_state::running);
      w->current = next;
      fetch_ahead(w->queue);
      leave_fiber_context(end, next->ctx, w, own_notice, notice_of(next));
    }
    w->current = nullptr;
    leave_fiber_context(end, w->loop, w, own_notice, w->loop_notice);
  }
}

// The first function on a stack. Not instrumented: a sanitizer must hear of the new stack before it sees a frame there.
[[noreturn]] CONCUR_UNINSTRUMENTED inline void fiber_entry(void* raw) noexcept {
  fiber_main(static_cast<worker*>(enter_fiber_context(raw, notice_of(this_worker()->current))));
}

CONCUR_INLINE void bind_stack([[maybe_unused]] worker* w, fiber* f, stack* s) noexcept {
  f->memory = s;
  f->is_started = true;
  if (w->sched->settings.migration == migration::at_start) f->home = w;
  std::size_t size = s->size;
#  if CONCUR_ASAN || CONCUR_TSAN
  sanitizer::unpoison(s->low, s->size);
  size -= sizeof(stack_notice);
  f->notice = ::new (static_cast<void*>(s->low + size)) stack_notice();
  size &= ~std::size_t{15};
  f->notice->bind_stack(s->low, size);
#  endif
  prepare_context(f->ctx, s->low, size, &fiber_entry);
}

CONCUR_NOINLINE CONCUR_INLINE worker* leave_for_new(worker* w, fiber* self, fiber* next) noexcept {
  if (next != nullptr && !next->is_started && !w->sched->give_stack_to(w, next))
    w->stackless = std::exchange(next, nullptr);
  tell_departure(*w, *self);
  void* back = nullptr;
  if (next != nullptr) {
    next->exceptions.load_into(w->exceptions);
    next->set_state(fiber_state::running);
    w->current = next;
    back = switch_fiber_context(self->ctx, next->ctx, w, notice_of(self), notice_of(next));
  } else {
    exception_state{}.load_into(w->exceptions);
    w->current = nullptr;
    back = switch_fiber_context(self->ctx, w->loop, w, notice_of(self), w->loop_notice);
  }
  return static_cast<worker*>(back);
}

CONCUR_INLINE void enter_fiber(worker* w, fiber* f) noexcept {
  if (!f->is_started && !w->sched->give_stack_to(w, f)) {
    w->sched->refuse_stackless(w, f);
    return;
  }
  f->exceptions.load_into(w->exceptions);
  f->set_state(fiber_state::running);
  w->current = f;
  if (driver_or_null() != nullptr) w->budget = 1;  // every parking operation may be interrupted
  switch_fiber_context(w->loop, f->ctx, w, w->loop_notice, notice_of(f));
  publish_departed(w);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
