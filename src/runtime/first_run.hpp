// runtime/first_run.hpp - how a fiber comes by a stack, what runs at the bottom of it, and how it ends.
//
// A stack is bound when its fiber is first switched to. At its bottom is a loop: when the function of the fiber has returned,
// the next in line is looked at. If that has not started either, it is called right here, on the same stack; so a million
// short fibers that wait in a row cost a call each, and no switch (suspend.hpp, S7).
#ifndef CONCUR_RUNTIME_FIRST_RUN_HPP
#define CONCUR_RUNTIME_FIRST_RUN_HPP

#include "base/config.hpp"
#include "runtime/fetch_ahead.hpp"
#include "runtime/suspend.hpp"

#if CONCUR_BODIES

#  include <new>
#  include <utility>

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Runs fibers on one stack until the next in line has one of its own (S7). Inlined: a call that never returns has the returns of
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
      fetch_ahead(*next, w->queue);
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

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
