// base/config.hpp - what compiler, what machine, which of three build modes, and the name everything lives under.
//
// One header serves three ways of building, and nothing but these macros tells them apart:
//
//     mode                      user defines                                       bodies      functions are
//     header-only (default)     nothing                                            everywhere  inline
//     separate, every unit      CONCUR_SEPARATE_COMPILATION                        nowhere     declared
//     separate, one unit        the same and CONCUR_IMPLEMENTATION                 there       ordinary
//
// A part therefore has two regions. The first holds declarations and templates and includes no header of the operating
// system. The second stands under `#if CONCUR_BODIES` and holds the definitions, each marked CONCUR_INLINE.
//
// Everything is in `namespace concur`, within an inline namespace whose name says what changes the layout of our
// types. Two objects built with different answers then fail to link, instead of corrupting each other at run time.
#ifndef CONCUR_BASE_CONFIG_HPP
#define CONCUR_BASE_CONFIG_HPP

#include <cstddef>
#include <cstdint>

// major * 10000 + minor * 100 + patch
#define CONCUR_VERSION 100
#define CONCUR_VERSION_STRING "0.1.0"

#if defined(_MSVC_LANG)
#  error "concur: Windows is not supported; it runs on Linux, macOS and the BSDs"
#endif
#if __cplusplus < 201703L
#  error "concur needs C++17: compile with -std=c++17 or later"
#endif
#if !defined(__GNUC__)
#  error "concur needs g++ 9 or clang 10, or a compiler that understands their inline assembly"
#endif

// --- build mode ---

#if defined(CONCUR_SEPARATE_COMPILATION) && !defined(CONCUR_IMPLEMENTATION)
#  define CONCUR_BODIES 0
#else
#  define CONCUR_BODIES 1
#endif
#if defined(CONCUR_SEPARATE_COMPILATION)
#  define CONCUR_INLINE
#else
#  define CONCUR_INLINE inline
#endif

// --- processor ---

#if defined(__x86_64__) && defined(__LP64__)
#  define CONCUR_ARCH_X86_64 1
#elif defined(__i386__)
#  define CONCUR_ARCH_I386 1
#elif defined(__aarch64__)
#  define CONCUR_ARCH_AARCH64 1
#elif defined(__arm__)
#  define CONCUR_ARCH_ARM 1
#elif defined(__riscv) && __riscv_xlen == 64
#  define CONCUR_ARCH_RISCV64 1
#else
#  error "concur has no context switch for this processor: x86-64, i386, aarch64, arm and riscv64 are written"
#endif

// --- compiler ---

#if defined(__cpp_exceptions) || defined(__EXCEPTIONS)
#  define CONCUR_EXCEPTIONS 1
#else
#  define CONCUR_EXCEPTIONS 0
#endif

#if defined(__SANITIZE_ADDRESS__)
#  define CONCUR_ASAN 1
#elif defined(__has_feature)
#  if __has_feature(address_sanitizer)
#    define CONCUR_ASAN 1
#  endif
#endif
#if !defined(CONCUR_ASAN)
#  define CONCUR_ASAN 0
#endif

#if defined(__SANITIZE_THREAD__)
#  define CONCUR_TSAN 1
#elif defined(__has_feature)
#  if __has_feature(thread_sanitizer)
#    define CONCUR_TSAN 1
#  endif
#endif
#if !defined(CONCUR_TSAN)
#  define CONCUR_TSAN 0
#endif

#define CONCUR_MSAN 0
#if defined(__has_feature)
#  if __has_feature(memory_sanitizer)
#    undef CONCUR_MSAN
#    define CONCUR_MSAN 1
#  endif
#endif

#define CONCUR_NOINLINE __attribute__((noinline))
#define CONCUR_ALWAYS_INLINED __attribute__((always_inline))  // for a lambda, before its body
#if defined(__OPTIMIZE_SIZE__)
#  define CONCUR_FORCE_INLINE inline  // saves a seventh of the text, for some nanoseconds at each wait
#else
#  define CONCUR_FORCE_INLINE inline CONCUR_ALWAYS_INLINED
#endif
#define CONCUR_LIKELY(condition) (__builtin_expect((condition) ? 1 : 0, 1))
#define CONCUR_UNLIKELY(condition) (__builtin_expect((condition) ? 1 : 0, 0))

// A planted bug for the tests to find: CONCUR_MUTANT_IS(n) is true only in a build made with -DCONCUR_MUTANT=n. A
// test that stays green with its bug planted proves nothing; tests/mutants.txt says which test finds which.
// With CONCUR_MUTANT_CHOSEN a test program chooses it as it starts, so that one build serves for all. CONCUR_PLANTED stands
// for constexpr where a bug is planted in a constant.
#if defined(CONCUR_MUTANT)
#  define CONCUR_MUTANT_IS(number) (CONCUR_MUTANT == (number))
#  define CONCUR_PLANTED constexpr
#elif defined(CONCUR_MUTANT_CHOSEN)
inline int concur_chosen_mutant = 0;
#  define CONCUR_MUTANT_IS(number) (concur_chosen_mutant == (number))
#  define CONCUR_PLANTED const
#else
#  define CONCUR_MUTANT_IS(number) false
#  define CONCUR_PLANTED constexpr
#endif

// --- poller: which of the three watches the descriptors ---

#if defined(CONCUR_POLLER_POLL) || defined(CONCUR_POLLER_KQUEUE) || defined(CONCUR_POLLER_EPOLL)
// The user chose.
#elif defined(__linux__)
#  define CONCUR_POLLER_EPOLL 1
#elif defined(__APPLE__) || defined(__FreeBSD__) || defined(__NetBSD__) || defined(__OpenBSD__) || \
    defined(__DragonFly__)
#  define CONCUR_POLLER_KQUEUE 1
#else
#  define CONCUR_POLLER_POLL 1
#endif

// --- namespace ---

#if defined(CONCUR_POLLER_POLL)
#  define CONCUR_ABI_POLLER _poll
#elif defined(CONCUR_POLLER_KQUEUE)
#  define CONCUR_ABI_POLLER _kqueue
#else
#  define CONCUR_ABI_POLLER
#endif
#if CONCUR_EXCEPTIONS
#  define CONCUR_ABI_EXCEPTIONS
#else
#  define CONCUR_ABI_EXCEPTIONS _nx
#endif
#if defined(CONCUR_CHECKED)
#  define CONCUR_ABI_CHECKED _chk
#else
#  define CONCUR_ABI_CHECKED
#endif
#if CONCUR_TSAN
#  define CONCUR_ABI_SANITIZER _tsan
#elif CONCUR_ASAN
#  define CONCUR_ABI_SANITIZER _asan
#else
#  define CONCUR_ABI_SANITIZER
#endif
#if defined(CONCUR_EXPLORE)
#  define CONCUR_ABI_EXPLORE _ex
#else
#  define CONCUR_ABI_EXPLORE
#endif
#define CONCUR_ABI_JOIN_(a, b, c, d, e, f) a##b##c##d##e##f
#define CONCUR_ABI_JOIN(a, b, c, d, e, f) CONCUR_ABI_JOIN_(a, b, c, d, e, f)
#define CONCUR_ABI                                                                                          \
  CONCUR_ABI_JOIN(v1, CONCUR_ABI_EXCEPTIONS, CONCUR_ABI_CHECKED, CONCUR_ABI_POLLER, CONCUR_ABI_SANITIZER, \
                  CONCUR_ABI_EXPLORE)

// Default visibility also under -fvisibility=hidden: a program and its shared objects must agree on which worker a
// thread is.
#define CONCUR_NAMESPACE_BEGIN                              \
  namespace concur __attribute__((visibility("default"))) { \
    inline namespace CONCUR_ABI {
#define CONCUR_NAMESPACE_END \
  }                          \
  }

CONCUR_NAMESPACE_BEGIN
namespace detail {

// What two words that different cores write are kept apart by, in bytes. Pairs of lines are fetched together on
// x86-64, and Apple's cores have lines of 128.
#if defined(CONCUR_ARCH_X86_64) || defined(CONCUR_ARCH_AARCH64)
inline constexpr std::size_t cache_line_bytes = 128;
#else
inline constexpr std::size_t cache_line_bytes = 64;
#endif

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
