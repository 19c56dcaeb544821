// machine/sanitizer.hpp - telling the sanitizers that the stack under them changes.
//
// AddressSanitizer keeps the bounds of the running stack, and, when it looks for use after return, a second "fake"
// stack with the locals. ThreadSanitizer keeps a vector clock and a shadow call stack. Both belong to the thread as
// far as the sanitizers know; we make them belong to the fiber. Each stack has a stack_notice, which is empty in
// plain builds, and the one function that switches (machine/context.hpp) reads it.
//
//   N1  The notice of a fiber knows its bounds before the first switch to it. The notice of a thread's own stack does
//       not: AddressSanitizer reports those bounds to whoever arrives from there, and that context writes them down
//       (N2).
//   N2  Only the context that has just arrived writes into the notice of the one that was left: until it runs on,
//       nobody else may switch to the one that was left.
//   N3  A stack that is left for good gives its fake stack back at that switch, never later: nobody could afterwards.
//   N4  A ThreadSanitizer fiber is destroyed by another context than its own, and only when no switch to it can come.
//
// Valgrind is told nothing. It takes a jump of the stack pointer for a switch when it is wider than --max-stackframe, so
// give that option less than the size of a stack.
#ifndef CONCUR_MACHINE_SANITIZER_HPP
#define CONCUR_MACHINE_SANITIZER_HPP

#include "base/config.hpp"

#include <cstddef>

#if CONCUR_ASAN
#  include <sanitizer/asan_interface.h>
#  include <sanitizer/common_interface_defs.h>
#  include <sanitizer/lsan_interface.h>
#endif
#if CONCUR_TSAN
#  include <sanitizer/tsan_interface.h>
#endif

// On a function: not instrumented. The function that switches must be, since its prologue runs on one stack and its
// epilogue on what the sanitizer would take for another.
#if (CONCUR_ASAN || CONCUR_TSAN) && defined(__clang__)
#  define CONCUR_UNINSTRUMENTED __attribute__((no_sanitize("address", "thread", "undefined")))
#elif CONCUR_ASAN || CONCUR_TSAN
#  define CONCUR_UNINSTRUMENTED __attribute__((no_sanitize("address,thread,undefined")))
#else
#  define CONCUR_UNINSTRUMENTED
#endif

#if defined(__has_feature)
#  if __has_feature(safe_stack)
#    error "concur does not move the second stack of -fsanitize=safe-stack: build without it"
#  endif
#  if __has_feature(shadow_call_stack)
#    error "concur does not move the second stack of -fsanitize=shadow-call-stack: build without it"
#  endif
#endif

CONCUR_NAMESPACE_BEGIN
namespace detail {
namespace sanitizer {

// Announces a switch to the stack [bottom, bottom + size). The fake stack of the context that stops goes to
// *fake_stack; a null fake_stack says that it stops for good (N3).
CONCUR_FORCE_INLINE CONCUR_UNINSTRUMENTED void start_switch([[maybe_unused]] void** fake_stack,
                                                            [[maybe_unused]] const void* bottom,
                                                            [[maybe_unused]] std::size_t size) noexcept {
#if CONCUR_ASAN
  __sanitizer_start_switch_fiber(fake_stack, bottom, size);
#endif
}

// The first thing after a switch: gives the context its fake stack back (null on its first run) and says where the
// stack lies that was left.
CONCUR_FORCE_INLINE CONCUR_UNINSTRUMENTED void finish_switch([[maybe_unused]] void* fake_stack,
                                                             [[maybe_unused]] const void** old_bottom,
                                                             [[maybe_unused]] std::size_t* old_size) noexcept {
#if CONCUR_ASAN
  __sanitizer_finish_switch_fiber(fake_stack, old_bottom, old_size);
#endif
}

// Stack memory that is used again still carries the red zones of frames that never returned.
CONCUR_FORCE_INLINE void unpoison([[maybe_unused]] const void* low, [[maybe_unused]] std::size_t size) noexcept {
#if CONCUR_ASAN
  __asan_unpoison_memory_region(low, size);
#endif
}

// What this thread allocates in between may be lost on purpose.
inline void lose_memory([[maybe_unused]] bool begins) noexcept {
#if CONCUR_ASAN
  if (begins)
    __lsan_disable();
  else
    __lsan_enable();
#endif
}

CONCUR_FORCE_INLINE CONCUR_UNINSTRUMENTED void* tsan_current() noexcept {
#if CONCUR_TSAN
  return __tsan_get_current_fiber();
#else
  return nullptr;
#endif
}

CONCUR_FORCE_INLINE CONCUR_UNINSTRUMENTED void* tsan_create() noexcept {
#if CONCUR_TSAN
  return __tsan_create_fiber(0);
#else
  return nullptr;
#endif
}

CONCUR_FORCE_INLINE CONCUR_UNINSTRUMENTED void tsan_destroy([[maybe_unused]] void* fiber) noexcept {
#if CONCUR_TSAN
  __tsan_destroy_fiber(fiber);
#endif
}

// Stands directly before the switch. Flags 0: the one that stops happens before the one that goes on, which is so.
CONCUR_FORCE_INLINE CONCUR_UNINSTRUMENTED void tsan_switch([[maybe_unused]] void* fiber) noexcept {
#if CONCUR_TSAN
  __tsan_switch_to_fiber(fiber, 0);
#endif
}

}  // namespace sanitizer

// What the sanitizers must be told about one stack. Empty in plain builds; make it a base class, or the last member.
struct stack_notice {
#if CONCUR_ASAN
  const void* bottom = nullptr;
  std::size_t size = 0;
  void* fake_stack = nullptr;
#endif
#if CONCUR_TSAN
  void* tsan_fiber = nullptr;
#endif

  // A fiber is about to run for the first time on the stack [low, low + bytes).
  void bind_stack([[maybe_unused]] void* low, [[maybe_unused]] std::size_t bytes) noexcept {
#if CONCUR_ASAN
    bottom = low;
    size = bytes;
    fake_stack = nullptr;
    sanitizer::unpoison(low, bytes);
#endif
#if CONCUR_TSAN
    tsan_fiber = sanitizer::tsan_create();
#endif
  }

  // This is the stack that the calling thread was born with (a worker's, say).
  void bind_thread() noexcept {
#if CONCUR_TSAN
    tsan_fiber = sanitizer::tsan_current();
#endif
  }

  // The fiber has left for good; called by a context that runs later (N4). Not for the notice of a thread.
  void release() noexcept {
#if CONCUR_TSAN
    if (tsan_fiber != nullptr) sanitizer::tsan_destroy(tsan_fiber);
    tsan_fiber = nullptr;
#endif
  }
};

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
