// machine/exception_state.hpp - the exceptions a fiber is handling travel with it.
//
// The C++ runtime library keeps, for each thread, the stack of exceptions that are inside a catch clause and the
// number that are being thrown. A fiber may park inside a catch clause and go on on another thread, or let another
// fiber throw meanwhile on this one. Left alone, the two would pop each other's exceptions, and end in std::terminate
// or in the wrong handler.
//
// The block is small, and libstdc++ and libc++abi lay it out the same way (Itanium C++ ABI, section 2.2.2):
//
//     caught exceptions          pointer
//     uncaught exceptions        unsigned
//     propagating exceptions     pointer, on ARM EHABI only
//
//   X1  Its address is a matter of the thread: fetched once by each worker, on that worker, and kept with it, never
//       with a fiber.
//   X2  A switch saves what the block holds into the fiber that stops and loads what the fiber that goes on had. A new
//       fiber starts with nothing.
//   X3  What is kept here is moved, not shared: between a save and the next load the block on that thread is not read.
//
// The library declares the function that finds the block as `const`, so that a compiler may merge two calls of it,
// one on each side of a switch; hence a declaration of our own, a call that is never inlined, and a barrier behind
// it.
#ifndef CONCUR_MACHINE_EXCEPTION_STATE_HPP
#define CONCUR_MACHINE_EXCEPTION_STATE_HPP

#include "base/config.hpp"

#include <cstddef>
#include <cstring>

CONCUR_NAMESPACE_BEGIN
namespace detail {

// The block of one thread, as the library sees it. Only ever pointed to.
class exception_globals {
 public:
  // The calling thread's block; null when compiled without exceptions. Lives as long as the thread.
  static exception_globals* of_this_thread() noexcept;

  exception_globals() = delete;
};

#if CONCUR_EXCEPTIONS

// What one fiber had in the block when it stopped.
struct exception_state {
  void* caught = nullptr;
  unsigned uncaught = 0;
#  if defined(__ARM_EABI_UNWINDER__) || (defined(__arm__) && !defined(__APPLE__) && !defined(__USING_SJLJ_EXCEPTIONS__))
  void* propagating = nullptr;
#  endif

  CONCUR_FORCE_INLINE void save_from([[maybe_unused]] const exception_globals* block) noexcept {
    if (!CONCUR_MUTANT_IS(1)) {
      std::memcpy(static_cast<void*>(this), block, sizeof *this);
    }
  }

  CONCUR_FORCE_INLINE void load_into([[maybe_unused]] exception_globals* block) const noexcept {
    if (!CONCUR_MUTANT_IS(1)) {
      std::memcpy(static_cast<void*>(block), this, sizeof *this);
    }
  }
};

#else

// Nothing is thrown, nothing is kept.
struct exception_state {
  CONCUR_FORCE_INLINE void save_from(const exception_globals*) noexcept {}
  CONCUR_FORCE_INLINE void load_into(exception_globals*) const noexcept {}
};

#endif

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  if CONCUR_EXCEPTIONS
#    define CONCUR_EXCEPTION_TEXT_(name) #    name
#    define CONCUR_EXCEPTION_TEXT(name) CONCUR_EXCEPTION_TEXT_(name)
// __cxa_get_globals under a name of our own, without the attribute.
extern "C" void* concur_exception_globals() noexcept
    __asm__(CONCUR_EXCEPTION_TEXT(__USER_LABEL_PREFIX__) "__cxa_get_globals");
#  endif

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_NOINLINE CONCUR_INLINE exception_globals* exception_globals::of_this_thread() noexcept {
#  if CONCUR_EXCEPTIONS
  void* block = concur_exception_globals();
  asm volatile("" : "+r"(block) : : "memory");
  return static_cast<exception_globals*>(block);
#  else
  return nullptr;
#  endif
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
#endif
