// runtime/overflow.hpp - whose stack was it that overflowed: the answer to the fault handler's question.
//
// The handler runs on the worker that faulted, on that thread's signal stack, while the fiber that ran too deep is still
// the worker's current one. So nothing is searched: the worker knows its fiber, and the fiber knows its stack.
//
//   O1  Only what the faulting thread itself writes is read, and slabs, which never go while their fibers live. No lock is taken.
//   O2  An address in the guard of another fiber's stack is a stray pointer, not an overflow; nothing is said about it.
#ifndef CONCUR_RUNTIME_OVERFLOW_HPP
#define CONCUR_RUNTIME_OVERFLOW_HPP

#include "base/config.hpp"
#include "machine/fault.hpp"
#include "runtime/scheduler.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// A fault_lookup (fault.hpp). Runs in a signal handler.
CONCUR_INLINE bool describe_overflow(const void* address, char* text, std::size_t bytes) noexcept;

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE bool describe_overflow(const void* address, char* text, std::size_t bytes) noexcept {
  const worker* w = this_worker();
  const fiber* f = w != nullptr ? w->current : nullptr;
  if (f == nullptr || f->memory == nullptr) return false;
  const stack* hit = nullptr;
  if (!w->sched->stacks.guard_holds(address, &hit) || hit != f->memory) return false;
  signal_safe_text out(text, bytes);
  out.add("stack overflow in fiber ").add_number(f->id);
  if (f->name != nullptr) out.add(" \"").add(f->name).add("\"");
  out.add(": its ").add_number(w->sched->settings.stack_size);
  out.add(" bytes are used up; set options.stack_size higher or recurse less");
  return true;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
