// machine/context.hpp - leaving one stack and going on at another.
//
// A context that is stopped is three words: where its stack ends, its frame pointer, and where to go on (and a fourth
// for a quirk of clang). The switch is written once for each processor, in machine/context/; this file adds what all
// have in common: the notices to the sanitizers and, on demand, the floating-point control words.
//
//   C1  A context is resumed by one switch for each time it was stopped. Who may do so is the runtime's affair; here
//       two threads on one stack are simply undefined.
//   C2  `from` is complete when the code at `to` begins to run, and not before. Whoever makes `from` known to other
//       threads does so after the switch.
//   C3  Nothing that depends on the thread (an address of a thread_local, errno, the exception globals) may be kept
//       over a switch: the context can go on elsewhere.
//   C4  The entry function never returns, and nothing is thrown out of it: the frame chain ends in the thunk below it,
//       so an exception that no one catches ends in std::terminate.
//   C5  The switch is no function to the compiler. It may be inlined wherever a fiber parks, and is worth most there.
//
// Rejected: ucontext (a system call for the signal mask, no musl), setjmp/longjmp (mangled, and checked by
// _FORTIFY_SOURCE), naked functions (g++ ignores the attribute on aarch64).
#ifndef CONCUR_MACHINE_CONTEXT_HPP
#define CONCUR_MACHINE_CONTEXT_HPP

#include "base/config.hpp"
#include "machine/sanitizer.hpp"

#include "machine/context/common.hpp"

#include "machine/context/aarch64.hpp"
#include "machine/context/arm.hpp"
#include "machine/context/i386.hpp"
#include "machine/context/riscv64.hpp"
#include "machine/context/x86_64.hpp"

#include <cstddef>

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Inlined also where the compiler is to save bytes: of a function of this unit it knows which of the unit's variables it
// touches, and a switch touches them all.
#if CONCUR_ASAN || CONCUR_TSAN
#  define CONCUR_SWITCH_INLINE CONCUR_NOINLINE inline
#else
#  define CONCUR_SWITCH_INLINE inline CONCUR_ALWAYS_INLINED
#endif

// What travels through a switch under a sanitizer: the payload, and the notice of the stack that was left (N2). It
// lies on the stack that was left, which lives at least until the arriving context has read it.
struct sanitizer_parcel {
  void* payload;
  stack_notice* left;
};

#if CONCUR_ASAN || CONCUR_TSAN
CONCUR_UNINSTRUMENTED inline CONCUR_ALWAYS_INLINED void* unpack_arrival(void* raw,
                                                                        [[maybe_unused]] stack_notice& own) noexcept {
  const sanitizer_parcel parcel = *static_cast<sanitizer_parcel*>(raw);
#  if CONCUR_ASAN
  const void* bottom = nullptr;
  std::size_t size = 0;
  sanitizer::finish_switch(own.fake_stack, &bottom, &size);
  if (parcel.left->bottom == nullptr) {
    parcel.left->bottom = bottom;
    parcel.left->size = size;
  }
#  endif
  return parcel.payload;
}

CONCUR_UNINSTRUMENTED inline CONCUR_ALWAYS_INLINED void announce_switch([[maybe_unused]] stack_notice& from,
                                                                        const stack_notice& to,
                                                                        [[maybe_unused]] bool is_last) noexcept {
#  if CONCUR_ASAN
  sanitizer::start_switch(is_last ? nullptr : &from.fake_stack, to.bottom, to.size);
#  endif
#  if CONCUR_TSAN
  sanitizer::tsan_switch(to.tsan_fiber);
#  endif
}
#endif

// The runtime's switch: switch_context with notices. Exactly switch_context in plain builds; under a sanitizer it is
// a function of its own that is not instrumented.
CONCUR_UNINSTRUMENTED CONCUR_SWITCH_INLINE void* switch_fiber_context(
    context& from, const context& to, void* payload, [[maybe_unused]] stack_notice& from_notice,
    [[maybe_unused]] stack_notice& to_notice) noexcept {
#if defined(CONCUR_SAVE_FPU)
  const fpu_control control = fpu_control::current();
#endif
#if CONCUR_ASAN || CONCUR_TSAN
  sanitizer_parcel parcel{payload, &from_notice};
  announce_switch(from_notice, to_notice, false);
  payload = unpack_arrival(switch_context(from, to, &parcel), from_notice);
#else
  payload = switch_context(from, to, payload);
#endif
#if defined(CONCUR_SAVE_FPU)
  control.apply();
#endif
  return payload;
}

// The same for a context that will never run again. Its stack, and `from`, may be freed once `to` runs.
[[noreturn]] CONCUR_UNINSTRUMENTED CONCUR_SWITCH_INLINE void leave_fiber_context(
    context& from, const context& to, void* payload, [[maybe_unused]] stack_notice& from_notice,
    [[maybe_unused]] stack_notice& to_notice) noexcept {
#if CONCUR_ASAN || CONCUR_TSAN
  sanitizer_parcel parcel{payload, &from_notice};
  announce_switch(from_notice, to_notice, true);
  switch_context(from, to, &parcel);
#else
  switch_context(from, to, payload);
#endif
  __builtin_trap();
}

// The first thing an entry function does with what it was given: returns the payload. `own` is the notice of its stack.
CONCUR_UNINSTRUMENTED CONCUR_SWITCH_INLINE void* enter_fiber_context(void* raw,
                                                                     [[maybe_unused]] stack_notice& own) noexcept {
#if defined(CONCUR_SAVE_FPU)
  fpu_control{}.apply();
#endif
#if CONCUR_ASAN || CONCUR_TSAN
  return unpack_arrival(raw, own);
#else
  return raw;
#endif
}

// The same for an entry function that learns only from the payload which stack it is on: a first arrival has no fake
// stack to give back yet, so any empty notice serves.
CONCUR_UNINSTRUMENTED CONCUR_SWITCH_INLINE void* enter_fiber_context(void* raw) noexcept {
  stack_notice none;
  return enter_fiber_context(raw, none);
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
