// concur - fibers, channels and a reactor for C++17, in this one file.
//
// Generated from src/ by tools/amalgamate.py: change the parts there and run `make amalgamate`.
//
// MIT License
//
// Copyright (c) 2026 The concur authors
//
// Permission is hereby granted, free of charge, to any person obtaining a copy
// of this software and associated documentation files (the "Software"), to deal
// in the Software without restriction, including without limitation the rights
// to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
// copies of the Software, and to permit persons to whom the Software is
// furnished to do so, subject to the following conditions:
//
// The above copyright notice and this permission notice shall be included in all
// copies or substantial portions of the Software.
//
// THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
// IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
// FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
// AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
// LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
// OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
// SOFTWARE.
#ifndef CONCUR_HPP
#define CONCUR_HPP

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

#define CONCUR_NOINLINE __attribute__((noinline))
#define CONCUR_ALWAYS_INLINED __attribute__((always_inline))  // for a lambda, before its body
#define CONCUR_FORCE_INLINE inline CONCUR_ALWAYS_INLINED
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

// base/error.hpp - the only place that throws, and the words it throws with.
//
// Inside, errors are values: an errno, a status, a bool. Here they become exceptions, or, in a program built without
// exceptions, a call of `on_fatal`, which the program may replace. Every message says what was being done, to what,
// and what to try. Three kinds leave this file:
//
//     what went wrong                 type                     example
//     the caller's argument           std::invalid_argument    options.stack_size is 100: ...
//     the caller's order of calls     std::logic_error         unlock of a mutex that this fiber does not hold
//     the outside world               std::system_error        accept on 127.0.0.1:80: Too many open files
//
// `cancelled` is no error: it is how a fiber that is no longer wanted comes home through its destructors. It does not
// derive from std::exception, so that a handler for errors does not take it for one.

#include <exception>
#include <stdexcept>
#include <string>
#include <system_error>

CONCUR_NAMESPACE_BEGIN

// Thrown by every parking operation, and by this_fiber::checkpoint, inside a scope that was cancelled. It is thrown
// again and again until the scope is left: swallowing it gains nothing. Let it pass.
class cancelled {
 public:
  const char* what() const noexcept { return "the fiber was cancelled"; }
};

// A send on a closed channel, or a second close.
class channel_closed : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// A deadline of the caller's own passed.
class timed_out : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Every fiber is parked and nothing outside can wake one.
class deadlock : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// What is called, with a full sentence, where an error has no other way out: built without exceptions, or inside a
// function that may not throw. The default writes the sentence to stderr and aborts. A replacement may log first, and
// must not return.
using fatal_handler = void (*)(const char* message);

// Sets the handler, and returns the one that was set before. nullptr sets the default again. Safe from any thread.
CONCUR_INLINE fatal_handler set_on_fatal(fatal_handler handler) noexcept;
[[noreturn]] CONCUR_INLINE void on_fatal(const char* message) noexcept;

namespace detail {

[[noreturn]] CONCUR_INLINE void fail_logic(const std::string& what);
[[noreturn]] CONCUR_INLINE void fail_closed(const char* what);
// Inlined: of what a cancelled fiber costs, most is the unwinding, and that goes by frames, each twice.
[[noreturn]] CONCUR_FORCE_INLINE void fail_cancelled() {
#if CONCUR_EXCEPTIONS
  throw cancelled();
#else
  on_fatal("a cancelled fiber parked, and exceptions are off");
#endif
}
[[noreturn]] CONCUR_INLINE void fail_timed_out(const char* what);

// "what: argument is value: advice", for a value that cannot be meant.
[[noreturn]] CONCUR_INLINE void fail_argument(const char* what, const char* argument, const std::string& value,
                                              const char* advice);

// "what: the system's text for `error`".
[[noreturn]] CONCUR_INLINE void fail_system(int error, const std::string& what);
[[noreturn]] CONCUR_INLINE void fail_code(std::error_code code, const std::string& what);

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <atomic>
#  include <cstdio>
#  include <cstdlib>

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void default_on_fatal(const char* message) {
  std::fputs("concur: ", stderr);
  std::fputs(message, stderr);
  std::fputs("\n", stderr);
}

// std::atomic: set once by the program; also in a class so early that the driver is not known.
CONCUR_INLINE std::atomic<fatal_handler>& fatal_handler_cell() noexcept {
  static std::atomic<fatal_handler> cell{nullptr};  // std::atomic: as above; constant-initialised: no guard, no destructor
  return cell;
}

}  // namespace detail

CONCUR_INLINE fatal_handler set_on_fatal(fatal_handler handler) noexcept {
  // acq_rel: publishes what the handler needs, and sees what the one before it was set up with.
  return detail::fatal_handler_cell().exchange(handler, std::memory_order_acq_rel);
}

CONCUR_INLINE void on_fatal(const char* message) noexcept {
  // acquire: pairs with the exchange in set_on_fatal.
  const fatal_handler handler = detail::fatal_handler_cell().load(std::memory_order_acquire);
  if (handler != nullptr)
    handler(message);
  else
    detail::default_on_fatal(message);
  std::abort();
}

namespace detail {

#  if CONCUR_EXCEPTIONS
template <class Error>
[[noreturn]] void raise(const Error& error, const char*) {
  throw error;
}
#  else
template <class Error>
[[noreturn]] void raise(const Error&, const char* message) {
  on_fatal(message);
}
#  endif

CONCUR_INLINE void fail_logic(const std::string& what) { raise(std::logic_error(what), what.c_str()); }
CONCUR_INLINE void fail_closed(const char* what) { raise(channel_closed(what), what); }
CONCUR_INLINE void fail_timed_out(const char* what) { raise(timed_out(what), what); }

CONCUR_INLINE void fail_argument(const char* what, const char* argument, const std::string& value, const char* advice) {
  const std::string text = std::string(what) + ": " + argument + " is " + value + ": " + advice;
  raise(std::invalid_argument(text), text.c_str());
}

CONCUR_INLINE void fail_code(std::error_code code, const std::string& what) {
  const std::string text = what + ": " + code.message();
  raise(std::system_error(code, what), text.c_str());
}

CONCUR_INLINE void fail_system(int error, const std::string& what) {
  fail_code(std::error_code(error, std::system_category()), what);
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES

// base/driver.hpp - whoever makes the decisions that are left open, when it is not the machine.
//
// A concurrent program leaves much to chance: which thread runs next, what the clock says, which of several stores a
// load sees. In production the machine decides, as cheaply as it can. An exploration (observe/explore.hpp) wants to
// decide itself, all of it, from one seed, so that a failure seen once can be seen again. It then is the driver: one
// thread plays all threads, and this is what the rest of the library asks it.
//
//   D1  While there is a driver, one thread of the process uses this library: the driver's. So nothing in here needs to
//       be safe for several threads.
//   D2  Each question is asked where its answer matters, and nowhere else. Where asking is dear compared with the
//       decision (before each atomic operation, above all) it is asked only in builds with CONCUR_EXPLORE; where the
//       decision costs a system call anyway (the clock, blocking, starting a thread) in every build.
//   D3  Calls that may run other threads before they return are marked so. No lock of the driver's own is held then,
//       and what they return is decided before anything else runs.
//   D4  A driver throws nothing. A schedule that has failed is left by parking its threads for ever.

#include <atomic>

CONCUR_NAMESPACE_BEGIN
namespace detail {

// What is being decided. 0 is the answer of a plain run: go on, the oldest first, the newest store.
enum class choice : unsigned char {
  preemption,   // whether another thread runs now, between two steps of a protocol
  spin_to,      // which thread runs while the present one waits for a few steps of another
  next_thread,  // which thread runs when the present one cannot
  next_fiber,   // which ready fiber runs
  slice_end,    // whether a worker looks at timers, events and other queues before its own
  victim,       // whom an idle worker robs first
  select_case,  // which of several ready cases
  readiness,    // in which order events of one batch are given out
  io_size,      // how many of the wanted bytes a read or write is asked for
  io_error,     // whether a system call is interrupted
  clock,        // how much time has passed
  stale_read,   // which of the stores that a load may see it sees
  spurious,     // whether something that may fail for no reason does
};

// Where a driver's clock begins, in nanoseconds: further on than any real steady clock has come, so that moments of the two
// can be told apart.
inline constexpr std::int64_t driven_clock_begin_ns = 1'000'000'000'000'000'000;

// Threads that an exploration can play at once.
inline constexpr unsigned explored_threads_max = 16;

// Why a thread comes back from driver::block.
enum class block_end : unsigned char {
  woken,  // or the word was another from the beginning
  timed_out,
  look,       // nothing else can run: time to look outside of the process, without waiting
  look_long,  // the same, and nothing else ever will: waiting is worth it
};

class driver;

// What a driver consists of. Pointers of our own, not virtual functions: a compiler that knows of one class only that has
// them guesses that each call goes there, and puts an exploration into every program.
struct driver_calls {
  std::uint32_t (*choose)(driver&, choice, std::uint32_t) noexcept;
  std::uint32_t (*choose_fiber)(driver&, const std::uint64_t*, std::uint32_t) noexcept;
  bool (*interrupts_fiber)(driver&) noexcept;
  std::int64_t (*now)(driver&) noexcept;
  void* (*start_thread)(driver&, void (*)(void*), void*, const char*) noexcept;
  void (*join_thread)(driver&, void*) noexcept;
  const void* (*this_thread)(const driver&) noexcept;
  void (*step)(driver&) noexcept;
  void (*spin)(driver&) noexcept;
  block_end (*block)(driver&, const void*, std::uint32_t, std::int64_t, const void*) noexcept;
  void (*wake)(driver&, const void*) noexcept;
  void (*stir_outside)(driver&) noexcept;
  void (*before_access)(driver&, const void*) noexcept;
  std::uint64_t (*after_load)(driver&, const void*, std::uint64_t, std::memory_order) noexcept;
  void (*after_store)(driver&, const void*, std::uint64_t, std::uint64_t, std::memory_order) noexcept;
  void (*after_update)(driver&, const void*, std::uint64_t, std::uint64_t, std::memory_order) noexcept;
  void (*after_failed_exchange)(driver&, const void*, std::uint64_t, std::memory_order) noexcept;
  void (*fence)(driver&, std::memory_order) noexcept;
  void (*fence_all)(driver&) noexcept;
  void (*birth)(driver&, const void*) noexcept;
  std::uint64_t (*rank)(driver&, const void*) noexcept;
  void (*plain_access)(driver&, const void*, bool, const char*) noexcept;
  void (*expect)(driver&, bool, const char*) noexcept;
  void (*watch)(driver&, const void*) noexcept;
  void (*unwatch)(driver&, const void*) noexcept;
  bool (*is_telling)(const driver&) noexcept;
  void (*tell)(driver&, const void*, const void*, const char*) noexcept;
};

class driver {
 public:
  explicit constexpr driver(const driver_calls& calls) noexcept : calls_(calls) {}
  driver(const driver&) = delete;
  driver& operator=(const driver&) = delete;

  // A number below count, which is at least 1.
  std::uint32_t choose(choice what, std::uint32_t count) noexcept { return calls_.choose(*this, what, count); }
  // The same for next_fiber, with the ids of the fibers.
  std::uint32_t choose_fiber(const std::uint64_t* ids, std::uint32_t count) noexcept {
    return calls_.choose_fiber(*this, ids, count);
  }
  // Whether the running fiber, which could go on, lets others run.
  bool interrupts_fiber() noexcept { return calls_.interrupts_fiber(*this); }
  // The time, in nanoseconds.
  std::int64_t now() noexcept { return calls_.now(*this); }

  // --- threads ---

  // Starts a thread that runs body(argument); returns its handle, null when it cannot be had.
  void* start_thread(void (*body)(void*), void* argument, const char* name) noexcept {
    return calls_.start_thread(*this, body, argument, name);
  }
  // Returns when that thread's body has returned. Runs others. The handle is then spent.
  void join_thread(void* handle) noexcept { return calls_.join_thread(*this, handle); }
  // An address that is the calling thread's own while it runs.
  const void* this_thread() const noexcept { return calls_.this_thread(*this); }
  // A place where the calling thread could as well be interrupted. Runs others.
  void step() noexcept { return calls_.step(*this); }
  // The calling thread waits for a few steps of another one. Runs others.
  void spin() noexcept { return calls_.spin(*this); }
  // While the 32-bit word is `expected`: blocks the calling thread until wake(word), or until this time (INT64_MAX: never).
  // The comparison and the blocking are one step. outside: null, or a 32-bit word; while it is not 0, something outside of
  // the process may end the wait too, and the caller can look whether it did. Runs others.
  block_end block(const void* word, std::uint32_t expected, std::int64_t until_ns, const void* outside) noexcept {
    return calls_.block(*this, word, expected, until_ns, outside);
  }
  void wake(const void* word) noexcept { return calls_.wake(*this, word); }
  // Something has been done outside of the process that may end such waits.
  void stir_outside() noexcept { return calls_.stir_outside(*this); }

  // --- memory; only with CONCUR_EXPLORE ---

  // The calling thread is about to touch the word. Runs others.
  void before_access(const void* word) noexcept { return calls_.before_access(*this, word); }
  // A load: `latest` is what the word holds; returns that, or what some earlier store left there that may still be seen.
  std::uint64_t after_load(const void* word, std::uint64_t latest, std::memory_order order) noexcept {
    return calls_.after_load(*this, word, latest, order);
  }
  void after_store(const void* word, std::uint64_t before, std::uint64_t after, std::memory_order order) noexcept {
    return calls_.after_store(*this, word, before, after, order);
  }
  // A read-modify-write, which always reads what was there last; a compare-exchange that failed reads that too.
  void after_update(const void* word, std::uint64_t before, std::uint64_t after, std::memory_order order) noexcept {
    return calls_.after_update(*this, word, before, after, order);
  }
  void after_failed_exchange(const void* word, std::uint64_t latest, std::memory_order order) noexcept {
    return calls_.after_failed_exchange(*this, word, latest, order);
  }
  void fence(std::memory_order order) noexcept { return calls_.fence(*this, order); }
  // Each thread passes a full fence (membarrier).
  void fence_all() noexcept { return calls_.fence_all(*this); }
  // A new object begins at this address: what was known of the address is void.
  void birth(const void* address) noexcept { return calls_.birth(*this, address); }
  // Orders addresses in a way that is the same in each run of a schedule.
  std::uint64_t rank(const void* address) noexcept { return calls_.rank(*this, address); }
  // Memory that is not atomic is read or written; one thread at a time may do so, and the driver looks whether that is so.
  void plain_access(const void* address, bool is_write, const char* what) noexcept {
    return calls_.plain_access(*this, address, is_write, what);
  }

  // --- what must hold, and what is worth telling ---

  // False ends the schedule as failed, with this text.
  void expect(bool holds, const char* what) noexcept { return calls_.expect(*this, holds, what); }
  // A runtime begins: while it lives, what must hold there is looked at whenever no thread can run.
  void watch(const void* scheduler) noexcept { return calls_.watch(*this, scheduler); }
  void unwatch(const void* scheduler) noexcept { return calls_.unwatch(*this, scheduler); }
  // Whether tell() is of use.
  bool is_telling() const noexcept { return calls_.is_telling(*this); }
  // On this worker, this fiber does that; without them, a line of the program's own.
  void tell(const void* worker, const void* fiber, const char* what) noexcept {
    return calls_.tell(*this, worker, fiber, what);
  }

 protected:
  ~driver() = default;

 private:
  const driver_calls& calls_;
};

// Set while one thread plays all (D1); null otherwise. std::atomic: this is what drives the others.
inline std::atomic<driver*> current_driver{nullptr};

CONCUR_FORCE_INLINE driver* driver_or_null() noexcept {
  return current_driver.load(std::memory_order_relaxed);  // relaxed: D1
}

}  // namespace detail
CONCUR_NAMESPACE_END

// base/time.hpp - moments as nanoseconds on the steady clock, and arithmetic that stops at the ends instead of
// wrapping.
//
// A deadline inside the library is one signed 64-bit number: nanoseconds of std::chrono::steady_clock. Absolute, so
// that a wait cut in pieces (by a signal, a spurious wake, a retry) ends when it should; steady, so that setting the
// wall clock moves nothing. Users hand us any chrono duration, including duration::max() ("no limit") and negative
// ones ("already over"); a sum that leaves the range is held at its end, where the largest value means never.
//
//   T1  never is reached only by saturation or by asking for it; it is no moment, and no timer is armed for it.
//   T2  A wait never ends early: conversions to coarser or finer units round up.

#include <chrono>
#include <limits>

CONCUR_NAMESPACE_BEGIN
namespace detail {

using nanoseconds_t = std::int64_t;

inline constexpr nanoseconds_t never = (std::numeric_limits<nanoseconds_t>::max)();
inline constexpr nanoseconds_t long_ago = (std::numeric_limits<nanoseconds_t>::min)();

// The steady clock, or the driver's.
inline nanoseconds_t now_ns() noexcept {
  if (driver* d = driver_or_null()) return d->now();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

inline constexpr nanoseconds_t saturating_add(nanoseconds_t a, nanoseconds_t b) noexcept {
  nanoseconds_t sum = 0;
  if (!__builtin_add_overflow(a, b, &sum)) return sum;
  return b > 0 ? never : long_ago;
}

// Any duration in nanoseconds, rounded up, held at the ends of the range.
template <class Rep, class Period>
constexpr nanoseconds_t to_ns(std::chrono::duration<Rep, Period> d) noexcept {
  using wide = std::chrono::duration<long double, std::nano>;
  const long double exact = std::chrono::duration_cast<wide>(d).count();
  if (!(exact < static_cast<long double>(never))) return never;  // also what is not a number
  if (exact <= static_cast<long double>(long_ago)) return long_ago;
  const nanoseconds_t whole = std::chrono::duration_cast<std::chrono::nanoseconds>(d).count();
  return static_cast<long double>(whole) < exact && !CONCUR_MUTANT_IS(76) ? whole + 1 : whole;
}
constexpr nanoseconds_t to_ns(std::chrono::nanoseconds d) noexcept { return d.count(); }

// The moment `d` from now. Zero and negative durations give a moment that has passed.
template <class Rep, class Period>
nanoseconds_t deadline_after(std::chrono::duration<Rep, Period> d) noexcept {
  const nanoseconds_t ns = to_ns(d);
  return ns == never ? never : saturating_add(now_ns(), ns);
}

// From one moment of a real clock to another, for a driver: its own clock knows nothing of that one, and schedules do not
// depend on how fast the machine was. So in whole milliseconds.
CONCUR_NOINLINE inline nanoseconds_t driven_length(nanoseconds_t from, nanoseconds_t to) noexcept {
  constexpr nanoseconds_t millisecond_ns = 1'000'000;
  const nanoseconds_t length = saturating_add(to, from == long_ago ? never : -from);
  if (length == never || length == long_ago) return length;
  return (length >= 0 ? length + millisecond_ns / 2 : length - millisecond_ns / 2) / millisecond_ns * millisecond_ns;
}

// The moment at which some clock shows `tp`, as that clock stands now. A clock that can be set is read once, here.
template <class Clock, class Duration>
nanoseconds_t deadline_at(const std::chrono::time_point<Clock, Duration>& tp) noexcept {
  if (tp == (std::chrono::time_point<Clock, Duration>::max)()) return never;
  const nanoseconds_t there = to_ns(tp.time_since_epoch());
  constexpr nanoseconds_t a_year_ns = 31'536'000'000'000'000;
  const bool is_steady = std::is_same<Clock, std::chrono::steady_clock>::value;
  const bool is_driven = driver_or_null() != nullptr && !(is_steady && there >= driven_clock_begin_ns - a_year_ns);
  if (is_steady && !is_driven) return there;
  if (there == never) return never;
  const nanoseconds_t here = to_ns(Clock::now().time_since_epoch());
  if (is_driven) return saturating_add(now_ns(), driven_length(here, there));
  return saturating_add(now_ns(), saturating_add(there, here == long_ago ? never : -here));
}

}  // namespace detail
CONCUR_NAMESPACE_END

// base/intrusive.hpp - lists whose links the caller owns.
//
// What waits, waits on somebody's stack; what is ready, has its own block. Neither may need memory to be put in a
// queue, for a queue that can fail to take a fiber would lose it. So the links live in the things, and a list is two
// pointers.
//
//   L1  A thing is in one list at a time, and a list never owns what it links.
//   L2  No list locks: whoever owns the list owns the moment.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// First in, first out, through T::next. Push and pop take the same few instructions whatever the length.
template <class T>
class intrusive_queue {
 public:
  bool is_empty() const noexcept { return head_ == nullptr; }
  T* front() const noexcept { return head_; }

  void push(T* item) noexcept {
    item->next = nullptr;
    if (head_ == nullptr)
      head_ = item;
    else
      tail_->next = item;
    tail_ = item;
  }

  T* pop() noexcept {
    T* item = head_;
    if (item != nullptr) head_ = item->next;
    return item;
  }

  // The chain from `first` to `last`, linked already, before what is here.
  void push_front(T* first, T* last) noexcept {
    if (head_ == nullptr) tail_ = last;
    last->next = head_;
    head_ = first;
  }

  // Everything of `other`, behind what is here. `other` is empty afterwards.
  void append(intrusive_queue& other) noexcept {
    if (other.head_ == nullptr) return;
    if (head_ == nullptr)
      head_ = other.head_;
    else
      tail_->next = other.head_;
    tail_ = other.tail_;
    other.head_ = nullptr;
  }

 private:
  T* head_ = nullptr;
  T* tail_ = nullptr;  // means nothing while head_ is null
};

// A ring of links: leaving from the middle costs what leaving from the front does. T has `T* next`, `T* prev`, and is
// linked exactly while next is not null.
template <class T>
class intrusive_list {
 public:
  bool is_empty() const noexcept { return head_ == nullptr; }
  T* front() const noexcept { return head_; }
  static bool is_linked(const T* item) noexcept { return item->next != nullptr; }

  void push_back(T* item) noexcept {
    if (head_ == nullptr) {
      item->next = item->prev = item;
      head_ = item;
      return;
    }
    item->next = head_;
    item->prev = head_->prev;
    head_->prev->next = item;
    head_->prev = item;
  }

  void push_front(T* item) noexcept {
    push_back(item);
    head_ = item;
  }

  void erase(T* item) noexcept {
    if (item->next == item) {
      head_ = nullptr;
    } else {
      item->prev->next = item->next;
      item->next->prev = item->prev;
      if (head_ == item) head_ = item->next;
    }
    item->next = item->prev = nullptr;
  }

  T* pop_front() noexcept {
    T* item = head_;
    if (item != nullptr) erase(item);
    return item;
  }

 private:
  T* head_ = nullptr;  // the ring's first; its prev is the last
};

}  // namespace detail
CONCUR_NAMESPACE_END

// base/maker.hpp - a function that makes a T, with its own type forgotten.
//
// A pool that opens connections, and a variable with a first value, keep a function of the user's. std::function would do,
// but cannot hold one that is move-only, and its header costs every user compile time.

#include <memory>
#include <type_traits>
#include <utility>

CONCUR_NAMESPACE_BEGIN
namespace detail {

template <class T>
class maker {
 public:
  maker() noexcept = default;
  virtual ~maker() = default;
  maker(const maker&) = delete;
  maker& operator=(const maker&) = delete;
  virtual T make() = 0;
};

template <class T, class F>
class function_maker final : public maker<T> {
 public:
  template <class G>
  explicit function_maker(G&& function) : function_(std::forward<G>(function)) {}
  T make() override { return function_(); }

 private:
  F function_;
};

template <class T, class F>
std::unique_ptr<maker<T>> new_maker(F&& function) {
  return std::make_unique<function_maker<T, std::decay_t<F>>>(std::forward<F>(function));
}

}  // namespace detail
CONCUR_NAMESPACE_END

// atomic/word.hpp - the words that threads share, and the one place where an exploration gets between them.
//
// The library's protocols are written with detail::atomic and detail::thread_fence. In an ordinary build these are
// std::atomic and std::atomic_thread_fence, by name and in every other way. With CONCUR_EXPLORE each operation first
// lets the driver (base/driver.hpp) run other threads, and then lets it say what a load sees: not only the last store,
// but any that the memory order still permits. So a protocol is explored as it stands, not a copy of it written for a
// checker.
//
//   W1  The word itself always holds what was stored last. A load may be told something older; a read-modify-write
//       never is.
//   W2  Without a driver a CONCUR_EXPLORE build does what an ordinary one does, an untaken branch later.
//   W3  Memory that a protocol guards without being atomic (the slot of a queue) is announced with note_read and
//       note_write where the guard is to be checked, and with note_birth where its object begins; they are nothing in an
//       ordinary build.

#include <cstring>

CONCUR_NAMESPACE_BEGIN
namespace detail {

#if !defined(CONCUR_EXPLORE)

template <class T>
using atomic = std::atomic<T>;

CONCUR_FORCE_INLINE void thread_fence(std::memory_order order) noexcept { std::atomic_thread_fence(order); }
CONCUR_FORCE_INLINE void note_read(const void*, const char* = "") noexcept {}
CONCUR_FORCE_INLINE void note_write(const void*, const char* = "") noexcept {}
CONCUR_FORCE_INLINE void note_birth(const void*) noexcept {}

#else

inline void thread_fence(std::memory_order order) noexcept {
  if (driver* d = driver_or_null()) d->fence(order);
  std::atomic_thread_fence(order);
}
inline void note_read(const void* address, const char* what = "") noexcept {
  if (driver* d = driver_or_null()) d->plain_access(address, false, what);
}
inline void note_write(const void* address, const char* what = "") noexcept {
  if (driver* d = driver_or_null()) d->plain_access(address, true, what);
}
inline void note_birth(const void* address) noexcept {
  if (driver* d = driver_or_null()) d->birth(address);
}

template <class T>
class atomic {
  static_assert(std::is_trivially_copyable<T>::value && sizeof(T) <= sizeof(std::uint64_t), "one word");

 public:
  using difference = std::conditional_t<std::is_pointer<T>::value, std::ptrdiff_t, T>;
  static constexpr bool is_always_lock_free = std::atomic<T>::is_always_lock_free;

  constexpr atomic() noexcept : atomic(T()) {}
  constexpr atomic(T value) noexcept : word_(value) {
    if (!__builtin_is_constant_evaluated()) note_birth(this);
  }
  atomic(const atomic&) = delete;
  atomic& operator=(const atomic&) = delete;

  T load(std::memory_order order = std::memory_order_seq_cst) const noexcept {
    driver* const d = driver_or_null();
    if (CONCUR_LIKELY(d == nullptr)) return word_.load(order);
    d->before_access(this);
    return of_bits(d->after_load(this, to_bits(latest()), order));
  }

  void store(T value, std::memory_order order = std::memory_order_seq_cst) noexcept {
    driver* const d = driver_or_null();
    if (CONCUR_LIKELY(d == nullptr)) return word_.store(value, order);
    d->before_access(this);
    const T before = latest();
    set(value);
    d->after_store(this, to_bits(before), to_bits(value), order);
  }

  T exchange(T value, std::memory_order order = std::memory_order_seq_cst) noexcept {
    return update(
        order, [&](T) { return value; }, [&] { return word_.exchange(value, order); });
  }
  T fetch_add(difference more, std::memory_order order = std::memory_order_seq_cst) noexcept {
    return update(
        order, [&](T was) { return static_cast<T>(was + more); }, [&] { return word_.fetch_add(more, order); });
  }
  T fetch_sub(difference less, std::memory_order order = std::memory_order_seq_cst) noexcept {
    return update(
        order, [&](T was) { return static_cast<T>(was - less); }, [&] { return word_.fetch_sub(less, order); });
  }
  T fetch_or(T bits, std::memory_order order = std::memory_order_seq_cst) noexcept {
    return update(
        order, [&](T was) { return static_cast<T>(was | bits); }, [&] { return word_.fetch_or(bits, order); });
  }
  T fetch_and(T bits, std::memory_order order = std::memory_order_seq_cst) noexcept {
    return update(
        order, [&](T was) { return static_cast<T>(was & bits); }, [&] { return word_.fetch_and(bits, order); });
  }

  bool compare_exchange_strong(T& expected, T wanted, std::memory_order success, std::memory_order failure) noexcept {
    driver* const d = driver_or_null();
    if (CONCUR_LIKELY(d == nullptr)) return word_.compare_exchange_strong(expected, wanted, success, failure);
    d->before_access(this);
    return compare(*d, expected, wanted, success, failure);
  }
  bool compare_exchange_strong(T& expected, T wanted, std::memory_order order = std::memory_order_seq_cst) noexcept {
    return compare_exchange_strong(expected, wanted, order, without_release(order));
  }
  bool compare_exchange_weak(T& expected, T wanted, std::memory_order success, std::memory_order failure) noexcept {
    driver* const d = driver_or_null();
    if (CONCUR_LIKELY(d == nullptr)) return word_.compare_exchange_weak(expected, wanted, success, failure);
    d->before_access(this);
    // It may fail for nothing, as on machines with load-linked and store-conditional.
    if (to_bits(latest()) == to_bits(expected) && d->choose(choice::spurious, 8) == 7) {
      d->after_failed_exchange(this, to_bits(expected), failure);
      return false;
    }
    return compare(*d, expected, wanted, success, failure);
  }
  bool compare_exchange_weak(T& expected, T wanted, std::memory_order order = std::memory_order_seq_cst) noexcept {
    return compare_exchange_weak(expected, wanted, order, without_release(order));
  }

  T operator=(T value) noexcept {
    store(value);
    return value;
  }
  operator T() const noexcept { return load(); }

 private:
  static std::uint64_t to_bits(T value) noexcept {
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    return bits;
  }
  static T of_bits(std::uint64_t bits) noexcept {
    T value;
    std::memcpy(static_cast<void*>(&value), &bits, sizeof value);
    return value;
  }
  static constexpr std::memory_order without_release(std::memory_order order) noexcept {
    return order == std::memory_order_acq_rel
               ? std::memory_order_acquire
               : (order == std::memory_order_release ? std::memory_order_relaxed : order);
  }
  T latest() const noexcept { return word_.load(std::memory_order_relaxed); }    // relaxed: D1
  void set(T value) noexcept { word_.store(value, std::memory_order_relaxed); }  // relaxed: D1

  bool compare(driver& d, T& expected, T wanted, std::memory_order success, std::memory_order failure) noexcept {
    const T was = latest();
    if (to_bits(was) == to_bits(expected)) {
      set(wanted);
      d.after_update(this, to_bits(was), to_bits(wanted), success);
      return true;
    }
    // What fails is a load, of the last store (W1): an older one that equals `expected` would have to succeed.
    d.after_failed_exchange(this, to_bits(was), failure);
    expected = was;
    return false;
  }

  template <class F, class Plain>
  T update(std::memory_order order, F f, Plain plain) noexcept {
    driver* const d = driver_or_null();
    if (CONCUR_LIKELY(d == nullptr)) return plain();
    d->before_access(this);
    const T was = latest();
    const T now = f(was);
    set(now);
    d->after_update(this, to_bits(was), to_bits(now), order);
    return was;
  }

  std::atomic<T> word_;
};

#endif

}  // namespace detail
CONCUR_NAMESPACE_END

// atomic/cache_padded.hpp - a value with its cache lines to itself.
//
// Two counters that two cores write in turn, each its own, are as slow as one that both write, if they lie in one cache
// line: the line travels, not the word ("false sharing"). cache_padded<T> is a T that begins on a line and fills it, so
// that neighbours in an array, or members that stand one after the other, are on lines of their own:
//
//     concur::cache_padded<std::atomic<int>> counts[workers];
//     *counts[i] += 1;  counts[i]->load();
//
//   P1  Alignment and size are multiples of detail::cache_line_bytes (128 on x86-64 and aarch64, where lines are fetched
//       in pairs or are that long; 64 elsewhere), and of T's own alignment if that is larger.
//   P2  It is a T with an address. It copies, moves, compares to nothing and converts to nothing; * and -> reach the T.
//
// std::hardware_destructive_interference_size is not used: it follows -mtune, so two objects of one program may disagree on
// the layout of a type, and g++ warns of that.
//
// Progress: it does nothing of its own; what is wait-free in T is wait-free in it. Cost: memory, a line at least for each.

CONCUR_NAMESPACE_BEGIN

template <class T>
class alignas(T) alignas(detail::cache_line_bytes) cache_padded {
  static_assert(std::is_object<T>::value && !std::is_array<T>::value, "cache_padded<T>: T is an object type, no array");

 public:
  using value_type = T;

  // A T made from nothing: zero where T is a number or an atomic.
  constexpr cache_padded() noexcept(std::is_nothrow_default_constructible<T>::value) : value_() {}

  // A T made in place from these; T need be neither copyable nor movable.
  template <class First, class... Rest,
            class = std::enable_if_t<std::is_constructible<T, First, Rest...>::value &&
                                     !std::is_same<std::decay_t<First>, cache_padded>::value>>
  constexpr explicit cache_padded(First&& first, Rest&&... rest) noexcept(
      std::is_nothrow_constructible<T, First, Rest...>::value)
      : value_(std::forward<First>(first), std::forward<Rest>(rest)...) {}

  constexpr T& operator*() noexcept { return value_; }
  constexpr const T& operator*() const noexcept { return value_; }
  constexpr T* operator->() noexcept { return &value_; }
  constexpr const T* operator->() const noexcept { return &value_; }

 private:
  T value_;
};

// cache_padded sums(0L) is a cache_padded<long>.
template <class T>
cache_padded(T) -> cache_padded<T>;

CONCUR_NAMESPACE_END

// atomic/cas.hpp - changing an atomic by a function of its value: read it, compute, and write if nobody came between.
//
// fetch_add and its kin exist for a few operations; for every other there is the loop around compare_exchange_weak, with its
// failure order, its reload and its narrowing. It stands here once:
//
//     concur::cas_update(level, [](int l) { return l * 2; });          // returns what it was before
//     concur::fetch_max(peak, now);                                    // peak is now at least `now`
//     auto was = concur::cas_update(permits, [](int n) { return n > 0 ? std::optional<int>(n - 1) : std::nullopt; });
//
//   C1  The function is called again whenever another thread came between, so it must do nothing but compute: what it changes
//       elsewhere it changes several times. If it throws, the atomic is as it was.
//   C2  A function that returns std::optional may refuse. Refused: nothing is written, and cas_update returns an empty
//       optional; else what it was before, in an optional. (The value that was refused is the argument of the last call.)
//   C3  `order` is that of the change. What is only read, by the function or where nothing is written, is read with the part
//       of it that a load can have: acquire, seq_cst, or nothing for release and relaxed.
//   C4  fetch_max and fetch_min write only if that changes the value. So the usual case, a maximum that is none, is a load,
//       and the line stays in every core's cache. But a release that writes nothing publishes nothing: who reads the value
//       later has an edge from the thread that wrote it, none from one that found it large enough. If each call shall
//       publish, use cas_update, which writes the same value too.
//   C5  A value that went away and came back is taken for one that stayed. That is right where the value is all there is to
//       it; for a pointer to a node that was freed and made again it is not: see treiber_stack.
//
// The atomic may be a std::atomic<T>, or anything with its load and compare_exchange_weak.
//
// Progress: lock-free where the atomic is: an attempt fails because another's succeeded, or for no reason on machines with
// load-linked and store-conditional. No single thread is sure to get through. Cost: a load and an exchange; with many
// writers at once an exchange more for each that came between. There is no backoff in it: who came between has got through.
//
// Sources: M. Herlihy, "Wait-free synchronization", ACM TOPLAS 13 (1991), section 4: compare-and-swap can do every such
// update. What a maximum that writes nothing should order is discussed in WG21 P0493, "Atomic maximum/minimum".

#include <optional>

CONCUR_NAMESPACE_BEGIN
namespace detail {

template <class Atomic>
using value_in = std::decay_t<decltype(std::declval<const Atomic&>().load(std::memory_order()))>;  // plain: a type

// The part of an order that a load can have (C3).
constexpr std::memory_order load_part(std::memory_order order) noexcept {
  switch (order) {
    case std::memory_order_release:
    case std::memory_order_relaxed:
      return std::memory_order_relaxed;
    case std::memory_order_acq_rel:
      return std::memory_order_acquire;
    case std::memory_order_acquire:
    case std::memory_order_consume:
    case std::memory_order_seq_cst:
      break;
  }
  return order;
}

template <class T>
constexpr bool is_optional = false;
template <class T>
constexpr bool is_optional<std::optional<T>> = true;

// Narrows as the compound operators of the built-in types do: char + 1 is an int, and goes back into a char.
template <class T, class U>
constexpr T narrowed(U&& value) noexcept(std::is_nothrow_constructible<T, U>::value) {
  if constexpr (std::is_same<std::decay_t<U>, T>::value)
    return std::forward<U>(value);
  else
    return static_cast<T>(std::forward<U>(value));
}

// `wins(candidate, present)`: the candidate takes its place.
template <class Atomic, class T, class Wins>
T replace_if(Atomic& word, T candidate, std::memory_order order, Wins wins) noexcept {
  const auto change_order = CONCUR_MUTANT_IS(309) ? std::memory_order_relaxed : order;
  const auto read_order = CONCUR_MUTANT_IS(360) ? std::memory_order_relaxed : load_part(order);
  // acquire, seq_cst or relaxed: the load's part of the caller's order (C3).
  T present = word.load(read_order);
  while (wins(candidate, present) || CONCUR_MUTANT_IS(367)) {
    const T next = wins(candidate, present) ? candidate : present;
    // acquire, release or any: the caller's order; a failure is a load again (C3).
    if (word.compare_exchange_weak(present, next, change_order, read_order)) break;
  }
  return present;
}

}  // namespace detail

// Replaces the value v by f(v); returns v. If f returns std::optional, it may refuse (C2), and v comes in an optional.
template <class Atomic, class F>
auto cas_update(Atomic& word, F&& f, std::memory_order order = std::memory_order_seq_cst) {
  using value = detail::value_in<Atomic>;
  using answer = std::decay_t<decltype(f(std::declval<const value&>()))>;
  const auto change_order = CONCUR_MUTANT_IS(307) ? std::memory_order_relaxed : order;
  const auto read_order = CONCUR_MUTANT_IS(308) ? std::memory_order_relaxed : detail::load_part(order);
  // acquire, seq_cst or relaxed: f may follow the value, so it is read with the load's part of the caller's order (C3).
  value present = word.load(read_order);
  for (;;) {
    if constexpr (detail::is_optional<answer> && !std::is_same<answer, value>::value) {
      answer wanted = f(std::as_const(present));
      if (!wanted) return std::optional<value>();
      // acquire, release or any: the caller's order; a failure is a load again (C3).
      if (word.compare_exchange_weak(present, detail::narrowed<value>(*std::move(wanted)), change_order, read_order))
        return std::optional<value>(present);
    } else {
      const value wanted = detail::narrowed<value>(f(std::as_const(present)));
      // acquire, release or any: the caller's order; a failure is a load again (C3).
      if (word.compare_exchange_weak(present, wanted, change_order, read_order)) return present;
    }
  }
}

// Makes the value the larger of what it is and `candidate`; returns what it was. Compares with <. Writes only if it must (C4).
template <class Atomic>
detail::value_in<Atomic> fetch_max(Atomic& word, detail::value_in<Atomic> candidate,
                                   std::memory_order order = std::memory_order_seq_cst) noexcept {
  return detail::replace_if(word, candidate, order, [](const auto& a, const auto& b) { return b < a; });
}

// The same with the smaller.
template <class Atomic>
detail::value_in<Atomic> fetch_min(Atomic& word, detail::value_in<Atomic> candidate,
                                   std::memory_order order = std::memory_order_seq_cst) noexcept {
  return detail::replace_if(word, candidate, order, [](const auto& a, const auto& b) { return a < b; });
}

CONCUR_NAMESPACE_END

// atomic/backoff.hpp - waiting for another thread's few instructions: a little, then longer, then politely.
//
// Who finds a lock held, or loses an exchange, tries again. When many try again at once and at once again, the cache line
// goes round among those who wait, and the one they wait for cannot have it. So each waits, twice as long each time
// (exponential), and not exactly so long, lest two that met meet again (jittered):
//
//     for (concur::backoff wait; !flag.load(std::memory_order_acquire);) wait.pause();
//
//   B1  A step spins in the first 8 rounds, 1, 2, 4 ... 128 pauses of the processor at most and half of that at least:
//       about 2 us in all. A thread that runs is waited for without a system call.
//   B2  Then a step gives the core away. The one that is waited for may have been taken off its core, and without a core of
//       its own on this machine it comes back only when somebody leaves one. is_spent() says that this has begun: who can
//       park should do that now.
//   B3  From round 64 on a step sleeps for 50 us. With real-time priorities giving the core away may give it to nobody else.
//   B4  There is no clock in it: reading one costs more than the first rounds. The random numbers come from a state of 4
//       bytes in the object, begun from its address, which differs from thread to thread; they guard nothing.
//   B5  Where a driver (base/driver.hpp) plays all threads, a step lets another one run, and takes no time.
//
// Progress: a step ends after bounded time; the loop around it is blocking if it waits for somebody in particular. A step
// orders no memory: the loads of the loop do. Not for a fiber that waits for another fiber: it keeps its worker; park
// with a mutex, an event or a channel instead. Cost: 8 bytes, two stores to begin.
//
// Sources: T. Anderson, "The performance of spin lock alternatives for shared-memory multiprocessors", IEEE Transactions on
// Parallel and Distributed Systems 1 (1990), for waiting exponentially at a lock; G. Marsaglia, "Xorshift RNGs", Journal of
// Statistical Software 8 (2003), section 3, for the random numbers.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Tells the core that this is a loop that waits, for the sake of its sibling and of its power.
inline void cpu_relax() noexcept {
#if defined(CONCUR_ARCH_X86_64) || defined(CONCUR_ARCH_I386)
  __builtin_ia32_pause();
#elif defined(CONCUR_ARCH_AARCH64)
  asm volatile("isb" ::: "memory");
#else
  asm volatile("" ::: "memory");
#endif
}

// Spins for that many pauses. Every wait of the library that does not park comes through here, or lies in a step below.
inline void spin_briefly(std::uint32_t pauses) noexcept {
  if (driver* d = driver_or_null()) {  // B5
    d->spin();
    return;
  }
  for (std::uint32_t i = 0; i < pauses; ++i) cpu_relax();
}

constexpr unsigned spinning_rounds = 8;
constexpr unsigned yielding_rounds = 64;

// One step of waiting, the `round`-th, which it counts: `pauses` of spinning, or what comes after spinning.
CONCUR_INLINE void wait_step(unsigned& round, std::uint32_t pauses) noexcept;

// A step without jitter, for the one thread that waits for one other.
CONCUR_INLINE void spin_wait(unsigned& round) noexcept;

// The pauses of a step with jitter: between half of 1 << round and all of it.
inline std::uint32_t jittered_pauses(unsigned round, std::uint32_t random) noexcept {
  const std::uint32_t most = std::uint32_t{1} << (round < spinning_rounds ? round : spinning_rounds);
  return CONCUR_MUTANT_IS(366) ? most : most - random % (most / 2 + 1);
}

}  // namespace detail

class backoff {
 public:
  backoff() noexcept : backoff(seed_at(this)) {}
  explicit constexpr backoff(std::uint32_t seed) noexcept : random_(seed != 0 ? seed : 1) {}

  // Waits for one step.
  void pause() noexcept {
    random_ ^= random_ << 13;
    random_ ^= random_ >> 17;
    random_ ^= random_ << 5;
    detail::wait_step(round_, detail::jittered_pauses(round_, random_));
  }

  // Whether the steps no longer spin (B2).
  constexpr bool is_spent() const noexcept { return round_ >= detail::spinning_rounds; }

  // Begins anew: what was waited for has moved.
  constexpr void reset() noexcept { round_ = 0; }

 private:
  // A stack's addresses differ little in their low bits from those of another, so all bits go into the upper ones.
  static std::uint32_t seed_at(const void* address) noexcept {
    const std::uint64_t bits = reinterpret_cast<std::uintptr_t>(address);
    return static_cast<std::uint32_t>((bits * 0x9E3779B97F4A7C15u) >> 32);
  }

  unsigned round_ = 0;
  std::uint32_t random_;  // never 0
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <sched.h>
#  include <time.h>

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void wait_step(unsigned& round, std::uint32_t pauses) noexcept {
  const unsigned now = round;
  if (now < yielding_rounds) round = now + 1;
  if (now < spinning_rounds || driver_or_null() != nullptr) {
    spin_briefly(pauses);
  } else if (now < yielding_rounds) {
    sched_yield();
  } else {
    timespec pause{0, 50'000};
    nanosleep(&pause, nullptr);
  }
}

CONCUR_INLINE void spin_wait(unsigned& round) noexcept {
  wait_step(round, std::uint32_t{1} << (round < spinning_rounds ? round : spinning_rounds));
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES

// atomic/spin_lock.hpp - a lock for a few instructions, in one word.
//
// It guards what is over sooner than a thread could be put to sleep: linking a node, moving one value. Works with
// std::lock_guard and its kin. It is the lock inside the runtime, too; the part that its waiting places add is in
// retirable_lock.hpp.
//
//   K1  The word is 0 when free and 1 when held. Only the holder writes it then.
//   K2  Unlocking is one plain release store. That is what lets a fiber hand its unlock to whoever runs after it has
//       left.
//
// Progress: blocking. A holder that the kernel takes off its core holds the others up until it is back, so after about
// 2 us of spinning they leave their cores to it (backoff.hpp) instead of burning them. Hence nothing slow may happen under
// it: no system call, no allocation, and above all no parking. A fiber that parks under it keeps the lock while it does
// not run, and the workers that want the lock spin instead of running the fiber that would unlock: with one worker, for
// ever. Use concur::mutex there. It is not recursive, and not fair: who comes late may be first (ticket_lock.hpp).
//
// Happens-before: an unlock before each later lock and successful try_lock. Cost, uncontended: one exchange and one store;
// while it is held, waiters only read, so the holder keeps its line.
//
// Source: L. Rudolph, Z. Segall, "Dynamic decentralized cache schemes for MIMD parallel processors", ISCA 1984 (test, then
// test-and-set); the waiting is Anderson's (backoff.hpp).

CONCUR_NAMESPACE_BEGIN

class spin_lock {
 public:
  constexpr spin_lock() noexcept = default;
  spin_lock(const spin_lock&) = delete;
  spin_lock& operator=(const spin_lock&) = delete;

  CONCUR_FORCE_INLINE void lock() noexcept {
    if (CONCUR_UNLIKELY(!try_lock())) lock_slow();
  }

  // Does not wait; false when somebody holds it.
  CONCUR_FORCE_INLINE bool try_lock() noexcept {
    std::uint32_t expected = 0;
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(361) ? std::memory_order_relaxed : std::memory_order_acquire;
    // acquire: pairs with unlock, so that what the last holder did is seen. relaxed on failure: nothing is read yet.
    return CONCUR_LIKELY(word_.compare_exchange_strong(expected, 1, order, std::memory_order_relaxed));
  }

  CONCUR_FORCE_INLINE void unlock() noexcept {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(171) ? std::memory_order_relaxed : std::memory_order_release;
    word_.store(0, order);  // release: publishes what was done under the lock to the next holder
  }

 protected:
  explicit constexpr spin_lock(std::uint32_t word) noexcept : word_(word) {}

  detail::atomic<std::uint32_t> word_{0};

 private:
  void lock_slow() noexcept;
};

namespace detail {

// Holds a lock for a scope. std::lock_guard would bring <mutex>, and with it a good part of a second of compile time.
template <class Lock>
class lock_scope {
 public:
  explicit lock_scope(Lock& lock) noexcept : lock_(lock) { lock_.lock(); }
  ~lock_scope() { lock_.unlock(); }
  lock_scope(const lock_scope&) = delete;
  lock_scope& operator=(const lock_scope&) = delete;

 private:
  Lock& lock_;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

CONCUR_NOINLINE CONCUR_INLINE void spin_lock::lock_slow() noexcept {
  backoff wait;
  for (;;) {
    // relaxed: only a look; the exchange in try_lock is what orders.
    if (word_.load(std::memory_order_relaxed) == 0 && try_lock()) return;
    wait.pause();
  }
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// atomic/retirable_lock.hpp - a spin lock that can end: its last holder leaves a number in it instead of unlocking.
//
// A future is pending until it is set, a latch shut until it opens. Who waits needs the lock of the waiting queue while it
// is not so yet, and nothing at all afterwards. So the lock's word says which: 0 and 1 as in spin_lock.hpp (K1, K2), and a
// number above 1 when the state that the lock guarded is over.
//
//   K3  A holder may retire the lock: it leaves a number above 1 instead of 0, and nobody gets the lock any more.
//       That store is the last touch, so who reads the number may free the memory: the state of a future ends that way.
//   K4  A retired lock may be brought back by one compare-exchange from its number: an event is set and reset that way.
//
// Progress: blocking, as spin_lock; peek and replace_retired are wait-free. Happens-before: retire before each call that
// returns its number; replace_retired before a lock that it made possible. Cost: that of spin_lock. lock() must not be used
// once the lock may be retired: it would wait for ever.

CONCUR_NAMESPACE_BEGIN
namespace detail {

class retirable_lock : public spin_lock {
 public:
  constexpr retirable_lock() noexcept = default;
  explicit constexpr retirable_lock(std::uint32_t retired_with) noexcept : spin_lock(retired_with) {}  // 0: free

  // Locks, and returns 0; or returns the number with which the lock was retired (K3).
  std::uint32_t lock_unless_retired() noexcept {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(362) ? std::memory_order_relaxed : std::memory_order_acquire;
    CONCUR_PLANTED auto order_of_end = CONCUR_MUTANT_IS(368) ? std::memory_order_relaxed : std::memory_order_acquire;
    for (unsigned round = 0;;) {
      std::uint32_t seen = 0;
      // acquire: pairs with unlock, and with replace_retired. On failure: pairs with retire.
      if (CONCUR_LIKELY(word_.compare_exchange_strong(seen, 1, order, order_of_end))) return 0;
      if (seen > 1) return seen;
      spin_wait(round);
    }
  }
  void retire(std::uint32_t number) noexcept {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(172) ? std::memory_order_relaxed : std::memory_order_release;
    word_.store(number, order);  // release: publishes what was done under the lock to who reads the number
  }
  // Lets a lock that is retired with `from` say `to` instead, 0 to be free again; false if it is not retired with that (K4).
  bool replace_retired(std::uint32_t from, std::uint32_t to) noexcept {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(398)   ? std::memory_order_release
                           : CONCUR_MUTANT_IS(399) ? std::memory_order_acquire
                                                   : std::memory_order_acq_rel;
    // acq_rel: sees what the retirement published, and publishes what its caller did. relaxed on failure: nothing is read.
    return word_.compare_exchange_strong(from, to, order, std::memory_order_relaxed);
  }
  std::uint32_t peek() const noexcept {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(369) ? std::memory_order_relaxed : std::memory_order_acquire;
    return word_.load(order);  // acquire: pairs with retire
  }
};

}  // namespace detail
CONCUR_NAMESPACE_END

// atomic/ticket_lock.hpp - a spin lock that is first come, first served.
//
// Under a spin_lock that is never free for long, whoever unlocked has the line in its cache and wins again, and some thread
// may get nothing for a long time. Here each draws a number, and numbers are served in order. Works with std::lock_guard
// and its kin.
//
//   L1  next_ is the ticket that the next comer draws; whoever comes writes it. serving_ is the ticket of who may hold the
//       lock; only the holder writes it, adding 1. The lock is free when the two are equal.
//   L2  Tickets are compared for equality, never by size, so they may wrap. 32 bits suffice while fewer than 2^32 threads
//       wait.
//   L3  A waiter knows how many are before it, and waits in proportion: it need not look sooner than they can be done.
//   L4  try_lock draws only the ticket that is being served. That is one exchange on next_: between reading serving_ and the
//       exchange serving_ can only have grown, and never beyond next_; so if next_ still equals what was read, both were
//       equal. (It would take 2^32 acquisitions in between to be fooled.)
//
// Progress: blocking, and more so than spin_lock: when the kernel takes the holder off its core, or the waiter whose turn it
// is, everybody behind stands still until it is back, even though the lock is free. After a few us waiters leave their cores
// (backoff.hpp), but nobody overtakes. So: short sections, and not more threads than cores; else spin_lock, or concur::mutex,
// which parks. A fiber must not park under it, as with spin_lock, and for the same reason. It is not recursive.
//
// Happens-before: an unlock before each later lock and successful try_lock. Cost, uncontended: one fetch_add, one load, one
// store; an unlock makes every waiter read the line again, which a short line of waiters bears.
//
// Source: J. Mellor-Crummey, M. Scott, "Algorithms for scalable synchronization on shared-memory multiprocessors", ACM TOCS
// 9 (1991), section 2.2: the ticket lock with proportional backoff.

CONCUR_NAMESPACE_BEGIN

class ticket_lock {
 public:
  constexpr ticket_lock() noexcept = default;
  // Free, and begins with this ticket: to try what happens at the wrap.
  explicit constexpr ticket_lock(std::uint32_t first_ticket) noexcept : next_(first_ticket), serving_(first_ticket) {}
  ticket_lock(const ticket_lock&) = delete;
  ticket_lock& operator=(const ticket_lock&) = delete;

  void lock() noexcept {
    // relaxed: only the number matters; what the last holder did comes with serving_.
    const std::uint32_t mine = next_.fetch_add(1, std::memory_order_relaxed);
    if (CONCUR_UNLIKELY(places_before(mine) != 0)) lock_slow(mine);
  }

  // Does not wait; false when somebody holds it or has drawn a ticket.
  bool try_lock() noexcept {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(302) ? std::memory_order_relaxed : std::memory_order_acquire;
    std::uint32_t expected = serving_.load(order);  // acquire: pairs with unlock
    // relaxed: as in lock; on failure nothing is read.
    return next_.compare_exchange_strong(expected, expected + 1, std::memory_order_relaxed, std::memory_order_relaxed);
  }

  void unlock() noexcept {
    const std::uint32_t mine = serving_.load(std::memory_order_relaxed);  // relaxed: the holder's own (L1)
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(300) ? std::memory_order_relaxed : std::memory_order_release;
    serving_.store(mine + 1, order);  // release: publishes what was done under the lock to the next in line
  }

 private:
  std::uint32_t places_before(std::uint32_t ticket) const noexcept {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(301) ? std::memory_order_relaxed : std::memory_order_acquire;
    const std::uint32_t serving = serving_.load(order);  // acquire: pairs with unlock
    if (CONCUR_MUTANT_IS(363)) return ticket > serving ? ticket - serving : 0;
    return ticket - serving;  // L2
  }
  void lock_slow(std::uint32_t mine) noexcept;

  detail::atomic<std::uint32_t> next_{0};
  detail::atomic<std::uint32_t> serving_{0};
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

// A place is worth 32 pauses, about as long as a section of a few instructions and the line's way to the next core take. More
// than 64 places are not waited for in one piece: the line may move faster than that.
CONCUR_NOINLINE CONCUR_INLINE void ticket_lock::lock_slow(std::uint32_t mine) noexcept {
  constexpr std::uint32_t pauses_per_place = 32;
  constexpr std::uint32_t places_max = 64;
  unsigned round = 0;
  while (const std::uint32_t places = places_before(mine))
    detail::wait_step(round, (places < places_max ? places : places_max) * pauses_per_place);
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// atomic/seqlock.hpp - a value that is read far more often than it is written, by readers that write nothing.
//
// A lock makes every reader write the lock's word, and so readers wait for each other's cache line. Here a reader copies the
// value, and a number before and after tells it whether a writer was at work meanwhile; then it copies again. For small
// things that change now and then: a position, a configuration, the last known time.
//
//   Q1  sequence_ is even while the value rests and odd while it is being written. Only the holder of writers_ writes it, and it
//       grows by 2 with each write.
//   Q2  The value lies in words_, each of them atomic: a reader may read what a writer writes, and with plain memory that
//       would be a race, whatever the reader does with it afterwards. A torn copy is thrown away before anybody sees it.
//   Q3  A reader reads sequence_, the words, and sequence_ again. If it was even and is the same, the copy is whole.
//   Q4  update() computes under writers_, but before sequence_ becomes odd: readers are held up by the copying only, never by
//       the function.
//
// Why Q3 holds:
//
//     writer                                    reader
//     W1  sequence_ = odd                       R1  first = sequence_ (acquire)
//     WF  fence(release)                        R2  copy words_
//     W2  words_                                RF  fence(acquire)
//     W3  sequence_ = even (release)            R3  sequence_ == first ?
//
// R1 that reads W3 sees all of W2, and nothing older. A word of R2 that comes from W2 of a later write makes WF happen before RF,
// so R3 reads that write's W1 or something later, which is not `first`. Without WF or RF that does not follow: R2 may see the
// new word, and R3 still the old number.
//
// Progress: try_read is wait-free; it fails while a write is under way. read repeats it until it succeeds: blocking, since a
// writer that the kernel takes off its core in the middle of a copy holds the readers up. Writers exclude each other with a
// spin_lock: blocking. As under any spin lock a fiber must not park in the function given to update.
//
// Happens-before: a write or update before each read that returns its value. Cost: a reader, the copy and two loads of
// sequence_, and no store; a writer, a spin_lock and the copy. On a 32-bit machine sequence_ has 32 bits, and a reader
// that stands still for exactly 2^31 writes would take a torn copy for whole; elsewhere it has 64.
//
// Source: H.-J. Boehm, "Can seqlocks get along with programming language memory models?", MSPC 2012: the data as relaxed
// atomics between fences. The lock itself is C. Lameter's, "Effective synchronization on Linux/NUMA systems" (2005).

#include <new>

CONCUR_NAMESPACE_BEGIN

template <class T>
class seqlock {
  static_assert(std::is_trivially_copyable<T>::value, "seqlock<T> copies T as bytes: it must be trivially copyable");

 public:
  using value_type = T;

  seqlock() noexcept(std::is_nothrow_default_constructible<T>::value) : seqlock(T()) {}
  explicit seqlock(const T& value) noexcept { copy_in(value); }
  seqlock(const seqlock&) = delete;
  seqlock& operator=(const seqlock&) = delete;

  // A copy of the value as some write left it. Waits while one is under way.
  T read() const noexcept {
    if (const std::optional<T> value = try_read(); CONCUR_LIKELY(value.has_value())) return *value;
    return read_slow();
  }

  // The same, but does not wait: empty if a write was under way.
  std::optional<T> try_read() const noexcept {
    CONCUR_PLANTED auto first_order = CONCUR_MUTANT_IS(303) ? std::memory_order_relaxed : std::memory_order_acquire;
    CONCUR_PLANTED auto fence_order = CONCUR_MUTANT_IS(304) ? std::memory_order_relaxed : std::memory_order_acquire;
    const word first = sequence_.load(first_order);  // acquire: pairs with W3
    if ((first & 1) != 0 && !CONCUR_MUTANT_IS(364)) return std::nullopt;
    image copy;
    copy_out(copy);
    detail::thread_fence(fence_order);  // acquire: RF, pairs with WF
    // relaxed: the fence before it orders it.
    if (sequence_.load(std::memory_order_relaxed) != first) return std::nullopt;
    return copy.value();
  }

  // Waits for other writers.
  void write(const T& value) noexcept {
    const detail::lock_scope<spin_lock> held(writers_);
    publish(value);
  }

  // Changes the value by f, and lets no other write between; returns what it was. f takes a T& and changes it, or takes a T and
  // returns the new one. If it throws, nothing has changed.
  template <class F>
  T update(F&& f) {
    const detail::lock_scope<spin_lock> held(writers_);
    image copy;
    copy_out(copy);  // nobody else writes, and what the last writer wrote came with the lock
    T next = copy.value();
    if constexpr (std::is_void<decltype(f(next))>::value) {
      f(next);
      publish(next);
    } else {
      publish(f(next));
    }
    return copy.value();
  }

 private:
  using word = std::uintptr_t;
  static constexpr std::size_t word_count = (sizeof(T) + sizeof(word) - 1) / sizeof(word);

  // The bytes of a T, in words.
  struct image {
    alignas(T) alignas(word) unsigned char bytes[word_count * sizeof(word)];
    const T& value() const noexcept { return *std::launder(reinterpret_cast<const T*>(bytes)); }
  };

  void copy_out(image& to) const noexcept {
    for (std::size_t i = 0; i < word_count; ++i) {
      const word piece = words_[i].load(std::memory_order_relaxed);  // relaxed: R1 and RF, or the lock, order it
      std::memcpy(to.bytes + i * sizeof(word), &piece, sizeof piece);
    }
  }
  void copy_in(const T& value) noexcept {
    const unsigned char* const from = reinterpret_cast<const unsigned char*>(&value);
    for (std::size_t i = 0; i < word_count; ++i) {
      const std::size_t begin = i * sizeof(word);
      word piece = 0;
      std::memcpy(&piece, from + begin, sizeof(T) - begin < sizeof(word) ? sizeof(T) - begin : sizeof(word));
      words_[i].store(piece, std::memory_order_relaxed);  // relaxed: WF and W3 order it
    }
  }
  // Under the lock.
  void publish(const T& value) noexcept {
    CONCUR_PLANTED auto fence_order = CONCUR_MUTANT_IS(305) ? std::memory_order_relaxed : std::memory_order_release;
    CONCUR_PLANTED auto last_order = CONCUR_MUTANT_IS(306) ? std::memory_order_relaxed : std::memory_order_release;
    const word before = sequence_.load(std::memory_order_relaxed);  // relaxed: under the lock (Q1)
    sequence_.store(before + 1, std::memory_order_relaxed);         // relaxed: W1, WF orders it
    detail::thread_fence(fence_order);                              // release: WF, pairs with RF
    copy_in(value);
    sequence_.store(before + 2, last_order);  // release: W3, publishes the words to R1
  }
  CONCUR_NOINLINE T read_slow() const noexcept {
    for (backoff wait;; wait.pause()) {
      if (const std::optional<T> value = try_read()) return *value;
    }
  }

  detail::atomic<word> sequence_{0};
  spin_lock writers_;
  detail::atomic<word> words_[word_count];
};

// seqlock place(point{1, 2}) is a seqlock<point>.
template <class T>
seqlock(T) -> seqlock<T>;

CONCUR_NAMESPACE_END

// atomic/striped_counter.hpp - a count that many threads add to and few read.
//
// One atomic that every core adds to costs each of them the way of its cache line from the core that had it before. Here the
// count is the sum of 16 stripes on lines of their own, and a thread adds to the one that its number falls on.
//
//   T1  A stripe is a plain number modulo 2^N, where N is the width of a pointer; the count is the sum of all, modulo 2^N.
//       A stripe alone means nothing: what one thread adds another may subtract elsewhere.
//   T2  sum() contains each add that happened before it, and each of those that run beside it or not: it is no picture of one
//       moment. Of two adds of another thread it may contain the second and not the first. Once nobody adds any more, and
//       that is known (a join, a wait_group), it is exact.
//   T3  Which stripe is a question of speed, never of right: any stripe will do, and two threads may share one.
//
// The stripe is picked by the address of errno, of which each thread has its own. This is no thread_local of ours, and may go
// stale in a register over a change of threads, as T3 allows. Not by the address of something on the stack: each fiber has a
// stack of its own, so two workers that run many fibers would meet in the stripes all the time. Not by the worker's index: this
// must work on threads that are no workers, and without a runtime.
//
// On a 32-bit machine N is 32: no 64-bit atomics are needed, and the count lies between -2^31 and 2^31 - 1.
//
// Progress: wait-free where fetch_add is (x86, ARMv8.1), else lock-free. No order: nothing is published by adding. Cost:
// an add is one relaxed fetch_add of a line that mostly stays; sum reads 16 lines; 2 KiB of memory (1 KiB where a line counts
// as 64 bytes).
//
// Source: D. Lea's LongAdder (java.util.concurrent.atomic, Java 8), without its growing; the hash is D. Knuth's
// multiplicative one, The Art of Computer Programming 3, section 6.4.

#include <cerrno>

CONCUR_NAMESPACE_BEGIN
namespace detail {

// A number below 2^bits for this address; addresses at equal distances, as threads' are, spread evenly.
constexpr std::uint32_t stripe_of(std::uint64_t address, unsigned bits) noexcept {
  return static_cast<std::uint32_t>((address * 0x9E3779B97F4A7C15u) >> (64 - bits));
}

}  // namespace detail

class striped_counter {
 public:
  striped_counter() noexcept = default;
  striped_counter(const striped_counter&) = delete;
  striped_counter& operator=(const striped_counter&) = delete;

  void add(std::ptrdiff_t n = 1) noexcept { change(static_cast<std::size_t>(n)); }
  void sub(std::ptrdiff_t n = 1) noexcept { change(std::size_t{0} - static_cast<std::size_t>(n)); }

  std::ptrdiff_t sum() const noexcept {
    std::size_t all = 0;
    for (const stripe& one : stripes_) all += one->load(std::memory_order_relaxed);  // relaxed: T2
    return static_cast<std::ptrdiff_t>(all);
  }

 private:
  using stripe = cache_padded<detail::atomic<std::size_t>>;
  static constexpr unsigned stripe_bits = 4;

  void change(std::size_t n) noexcept {
    stripe& mine = stripes_[detail::stripe_of(reinterpret_cast<std::uintptr_t>(&errno), stripe_bits)];
    if (CONCUR_MUTANT_IS(365)) {
      mine->store(mine->load(std::memory_order_relaxed) + n, std::memory_order_relaxed);  // relaxed: the planted bug
      return;
    }
    mine->fetch_add(n, std::memory_order_relaxed);  // relaxed: a count guards no other memory
  }

  stripe stripes_[std::size_t{1} << stripe_bits];
};

CONCUR_NAMESPACE_END

// atomic/moment.hpp - a moment that one thread writes and others read, on machines with and without 64-bit atomics.
//
// Where a pointer has 32 bits, a 64-bit atomic needs a library that small systems do not carry; there a lock of a few
// instructions stands around a plain number. Progress: wait-free on 64-bit machines, blocking on others. Neither
// orders anything else: whoever needs that puts a fence beside it.

CONCUR_NAMESPACE_BEGIN
namespace detail {

class shared_moment {
 public:
  explicit shared_moment(nanoseconds_t ns) noexcept : ns_(ns) {}

#if defined(__LP64__)
  nanoseconds_t read() const noexcept { return ns_.load(std::memory_order_relaxed); }  // relaxed: see above
  void write(nanoseconds_t ns) noexcept { ns_.store(ns, std::memory_order_relaxed); }  // relaxed: see above

 private:
  atomic<nanoseconds_t> ns_;
#else
  nanoseconds_t read() const noexcept {
    lock_scope<spin_lock> held(lock_);
    return ns_;
  }
  void write(nanoseconds_t ns) noexcept {
    lock_scope<spin_lock> held(lock_);
    ns_ = ns;
  }

 private:
  mutable spin_lock lock_;
  nanoseconds_t ns_;
#endif
};

}  // namespace detail
CONCUR_NAMESPACE_END

// atomic/queue_room.hpp - the memory of a bounded queue: so many cells, each of which holds a value or nothing.
//
// What a queue asks for is had once, in its constructor; from then on it neither allocates nor frees. Cells are not
// padded to a line each: values that follow one another are mostly pushed by one thread and popped by another, and a line
// that carries several of them is fetched once for all. The first and the last cell share no line with what is
// not the queue's.
//
//   N1  A cell does not know whether it holds a value. Whoever owns it at the moment knows, by the rules of the queue.
//   N2  Each touch of a value is announced (word.hpp, W3): an exploration sees when two threads own a cell at once.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Room for one value.
template <class T>
class value_cell {
 public:
  value_cell() noexcept { note_birth(this); }
  value_cell(const value_cell&) = delete;
  value_cell& operator=(const value_cell&) = delete;

  template <class... Args>
  CONCUR_FORCE_INLINE void fill(Args&&... args) {
    note_write(this, "the cell of a queue");
    ::new (static_cast<void*>(room_)) T(std::forward<Args>(args)...);
  }
  // To be moved from; drop() follows.
  CONCUR_FORCE_INLINE T& value() noexcept {
    note_write(this, "the cell of a queue");
    return *std::launder(reinterpret_cast<T*>(room_));
  }
  CONCUR_FORCE_INLINE void drop() noexcept { value().~T(); }

 private:
  alignas(T) unsigned char room_[sizeof(T)];
};

// A number of cells that is fixed.
template <class Cell>
class cell_array {
 public:
  explicit cell_array(std::size_t count)
      : cells_(static_cast<Cell*>(::operator new(bytes_for(count), std::align_val_t(alignment)))), count_(count) {
    for (std::size_t i = 0; i < count; ++i) ::new (static_cast<void*>(&cells_[i])) Cell();
  }
  cell_array(const cell_array&) = delete;
  cell_array& operator=(const cell_array&) = delete;
  ~cell_array() {
    for (std::size_t i = 0; i < count_; ++i) cells_[i].~Cell();
    ::operator delete(static_cast<void*>(cells_), std::align_val_t(alignment));
  }

  CONCUR_FORCE_INLINE Cell& operator[](std::size_t index) noexcept { return cells_[index]; }

 private:
  static constexpr std::size_t alignment = alignof(Cell) > cache_line_bytes ? alignof(Cell) : cache_line_bytes;
  static constexpr std::size_t bytes_for(std::size_t count) noexcept {
    return (count * sizeof(Cell) + alignment - 1) / alignment * alignment;
  }

  Cell* const cells_;
  const std::size_t count_;
};

// The smallest power of two that is not less than `count`, which checked_capacity has let pass.
constexpr std::size_t power_of_two_for(std::size_t count) noexcept {
  std::size_t power = 1;
  while (power < count) power *= 2;
  return power;
}

// `capacity`, if a queue of that name can have it; throws std::invalid_argument otherwise.
CONCUR_INLINE std::size_t checked_capacity(const char* queue, std::size_t capacity, std::size_t cell_bytes);

// Between two counts that a third thread has read at different moments: no less than nothing and no more than all.
constexpr std::size_t plausible_size(std::size_t head, std::size_t tail, std::size_t capacity) noexcept {
  const std::size_t size = tail - head;
  return size <= capacity ? size : (size > SIZE_MAX / 2 ? 0 : capacity);
}

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

// The limit leaves the rounding up to a power of two, and the difference of two indices, without overflow.
CONCUR_INLINE std::size_t checked_capacity(const char* queue, std::size_t capacity, std::size_t cell_bytes) {
  const std::size_t most = SIZE_MAX / 8 / cell_bytes;
  if (capacity == 0) fail_argument(queue, "capacity", "0", "a queue needs room for one value at least");
  if (capacity > most) {
    const std::string advice = "it can be " + std::to_string(most) + " at most";
    fail_argument(queue, "capacity", std::to_string(capacity), advice.c_str());
  }
  return capacity;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// atomic/spsc_queue.hpp - a bounded queue from one thread to one other.
//
// The cheapest way there is to hand values from a thread to another: no read-modify-write, no lock, no allocation after
// the constructor. One thread pushes, one pops; which ones may change, if the change itself is ordered (by a join,
// a lock, or another queue). Both only try: what to do with a full or an empty queue is the caller's.
//
// Where the cost lies: a word that one core writes and another reads travels between them, for some fifty times the price of
// an instruction. A ring with two indices makes each travel for each value. So each side keeps a copy of the other's
// index and looks at the original only when the copy says full, or empty; while there are values and room, what
// travels is the values.
//
//     word          who writes it     what it says
//     tail_         the producer      how many were pushed, ever
//     head_         the consumer      how many were popped, ever
//     known_head_   the producer      some earlier head_; only it reads it
//     known_tail_   the consumer      some earlier tail_; only it reads it
//
//   S1  Cells head_ up to tail_ hold values and are the consumer's; the others hold nothing and are the producer's. A cell
//       changes hands by the release store of the index that passes it, and only after the work on it is done.
//   S2  A copy is never ahead of its original, so what it grants is granted; what it denies is asked of the original.
//   S3  Indices run freely and wrap; only differences count. The number of cells is a power of two, so that it divides
//       the wrap. The capacity is what was asked for nevertheless: capacity 5 has 8 cells and holds 5 values.
//   S4  A constructor or move that throws leaves the queue as it was: the index moves afterwards. A value whose move out
//       of the queue threw is still the oldest, in the state in which its move left it.
//
// Progress: wait-free, a handful of steps. Happens-before: what comes before a push happens before what follows the
// pop of its value; and a pop happens before what follows the push that uses its room. Only in ordinary code, not
// in signal handlers that interrupt the same side.
//
// Sources: Lamport, "Proving the Correctness of Multiprocess Programs" (1977), for the ring; Lee, Bu and Chandranmenon,
// "A Lock-Free, Cache-Efficient Shared Ring Buffer for Multi-Core Architectures" (MCRingBuffer, 2009), for the copies.

CONCUR_NAMESPACE_BEGIN

template <class T>
class spsc_queue {
 public:
  using value_type = T;

  // Throws std::invalid_argument when capacity is 0 or beyond all memory, std::bad_alloc when there is not so much.
  explicit spsc_queue(std::size_t capacity) : spsc_queue(capacity, 0) {}
  // Destroys what is left. Both threads must be through.
  ~spsc_queue() {
    const std::size_t tail = tail_.load(std::memory_order_relaxed);  // relaxed: nobody else is there
    for (std::size_t i = head_.load(std::memory_order_relaxed); i != tail; ++i)
      cells_[i & mask_].drop();  // relaxed: as above
  }
  spsc_queue(const spsc_queue&) = delete;
  spsc_queue& operator=(const spsc_queue&) = delete;

  // --- the producer ---

  // False: it is full, and the value is untouched.
  bool try_push(const T& value) { return try_emplace(value); }
  bool try_push(T&& value) { return try_emplace(std::move(value)); }

  // False: it is full, and nothing was made of the arguments.
  template <class... Args>
  bool try_emplace(Args&&... args) {
    const std::size_t tail = tail_.load(std::memory_order_relaxed);  // relaxed: our own
    if (CONCUR_UNLIKELY(room_behind(tail, 1) == 0)) return false;
    cells_[tail & mask_].fill(std::forward<Args>(args)...);
    tail_.store(tail + 1, publish_order());  // release: gives the consumer the cell and the value in it (S1)
    return true;
  }

  // Moves in what `first` and its successors point to, as far as there is room, `count` values at most, and returns how
  // many. The consumer sees them all at once. If one throws, those before it are in.
  template <class Iterator>
  std::size_t try_push_some(Iterator first, std::size_t count) {
    const std::size_t tail = tail_.load(std::memory_order_relaxed);  // relaxed: our own
    const std::size_t room = room_behind(tail, count);
    stored_at_last pushed{tail_, tail, publish_order()};
    for (const std::size_t end = tail + (count < room ? count : room); pushed.index != end; ++pushed.index, ++first)
      cells_[pushed.index & mask_].fill(std::move(*first));
    return pushed.index - tail;
  }

  // --- the consumer ---

  // The oldest value, or nothing when it is empty.
  std::optional<T> try_pop() {
    std::optional<T> taken;
    const std::size_t head = head_.load(std::memory_order_relaxed);  // relaxed: our own
    if (CONCUR_UNLIKELY(values_from(head, 1) == 0)) return taken;
    detail::value_cell<T>& oldest = cells_[head & mask_];
    taken.emplace(std::move(oldest.value()));
    oldest.drop();
    head_.store(head + 1, vacate_order());  // release: gives the producer the cell, of which nobody reads any more (S1)
    return taken;
  }
  // False: it is empty, and `value` is untouched.
  bool try_pop(T& value) {
    const std::size_t head = head_.load(std::memory_order_relaxed);  // relaxed: our own
    if (CONCUR_UNLIKELY(values_from(head, 1) == 0)) return false;
    detail::value_cell<T>& oldest = cells_[head & mask_];
    value = std::move(oldest.value());
    oldest.drop();
    head_.store(head + 1, vacate_order());  // release: as above
    return true;
  }

  // Assigns the oldest values to what `to` and its successors point to, `count` at most, and returns how many there were.
  // The producer sees their room all at once. If one throws, those before it are out.
  template <class Iterator>
  std::size_t try_pop_some(Iterator to, std::size_t count) {
    const std::size_t head = head_.load(std::memory_order_relaxed);  // relaxed: our own
    const std::size_t there = values_from(head, count);
    stored_at_last popped{head_, head, vacate_order()};
    for (const std::size_t end = head + (count < there ? count : there); popped.index != end; ++popped.index, ++to) {
      detail::value_cell<T>& oldest = cells_[popped.index & mask_];
      *to = std::move(oldest.value());
      oldest.drop();
    }
    return popped.index - head;
  }

  // --- anybody ---

  std::size_t capacity() const noexcept { return capacity_; }
  // How many values it held a moment ago; exact when neither side is at work.
  std::size_t size_approx() const noexcept {
    const std::size_t head = head_.load(std::memory_order_relaxed);  // relaxed: a number to look at, not to act on
    return detail::plausible_size(head, tail_.load(std::memory_order_relaxed), capacity_);  // relaxed: as above
  }

 protected:
  // Tests begin near the wrap (S3).
  spsc_queue(std::size_t capacity, std::size_t first_index)
      : capacity_(detail::checked_capacity("spsc_queue", capacity, sizeof(detail::value_cell<T>))),
        mask_(detail::power_of_two_for(capacity) - 1),
        cells_(mask_ + 1),
        tail_(first_index),
        known_head_(first_index),
        head_(first_index),
        known_tail_(first_index) {}

 private:
  static std::memory_order publish_order() noexcept {
    return CONCUR_MUTANT_IS(311) ? std::memory_order_relaxed : std::memory_order_release;
  }
  static std::memory_order vacate_order() noexcept {
    return CONCUR_MUTANT_IS(313) ? std::memory_order_relaxed : std::memory_order_release;
  }

  // Of a batch, what was done is said once, also when an exception ends it.
  struct stored_at_last {
    detail::atomic<std::size_t>& word;
    std::size_t index;
    const std::memory_order order;
    ~stored_at_last() { word.store(index, order); }  // release: as in try_emplace and try_pop
  };

  // How many more values fit, as far as it is known; asks the consumer's index only if it is known for less than `wanted`.
  CONCUR_FORCE_INLINE std::size_t room_behind(std::size_t tail, std::size_t wanted) noexcept {
    if (CONCUR_UNLIKELY(capacity_ - (tail - known_head_) < wanted)) {
      CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(310) ? std::memory_order_relaxed : std::memory_order_acquire;
      known_head_ =
          head_.load(order);  // acquire: pairs with the store in try_pop; the cells are ours when they are empty
    }
    return capacity_ - (tail - known_head_);
  }
  CONCUR_FORCE_INLINE std::size_t values_from(std::size_t head, std::size_t wanted) noexcept {
    if (CONCUR_UNLIKELY(known_tail_ - head < wanted)) {
      CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(312) ? std::memory_order_relaxed : std::memory_order_acquire;
      known_tail_ = tail_.load(order);  // acquire: pairs with the store in try_emplace; the values are there to be read
    }
    return known_tail_ - head;
  }

  // Read by both sides, written by none.
  alignas(detail::cache_line_bytes) const std::size_t capacity_;
  const std::size_t mask_;
  detail::cell_array<detail::value_cell<T>> cells_;
  // The producer's, and the consumer's.
  alignas(detail::cache_line_bytes) detail::atomic<std::size_t> tail_;
  std::size_t known_head_;
  alignas(detail::cache_line_bytes) detail::atomic<std::size_t> head_;
  std::size_t known_tail_;
};

CONCUR_NAMESPACE_END

// atomic/mpsc_queue.hpp - a bounded queue from many threads to one, which none of the many can hold up.
//
// The usual ones share a weakness. Where pushers link nodes (Vyukov's queue of nodes), or fill cells in turn (mpmc_queue),
// a pusher that the kernel stops half-way leaves a gap, and all that others have pushed behind it is out of reach until it
// runs again: milliseconds, on a loaded machine. Here the consumer looks past such gaps.
//
//     word          who writes it              what it says
//     tail_         pushers, by exchange       the index that the next push takes
//     mark of p     the pusher of index p      p + 1: the cell holds the value of index p
//                   it, or the consumer        p: nothing is to be had here any more; anything else: not yet
//     head_         the consumer               no index before it is of interest
//     known_head_   pushers                    some earlier head_
//
//   P1  Who moves tail_ from p owns the cell of p until it writes the mark. It may do so only if p is less than head_ +
//       capacity: the value that was in the cell before is then gone.
//   P2  The consumer takes the value at head_ if it is there. If not, it reads tail_, and takes the first value that is
//       there from head_ up to that tail, head_ once more included. Nothing from behind that tail: while the consumer
//       searches, a push that it has passed over may end, and another one may begin after that and end too.
//   P3  So a value overtakes another only where their pushes overlapped, and nobody can tell, within one thread or
//       between several. "Empty" is said only if all that had been pushed when tail_ was read has been popped.
//   P4  A value taken before its turn leaves its index as mark. head_ passes such cells when it comes to them; until then
//       their room is not free, so after an overtaking "full" may be said a few values early. How many there are next to
//       head_ is counted: with one pusher stopped, each search is a step or two, not one over all that was taken.
//   P5  A push whose value throws leaves the same mark; it takes up room until head_ has passed. What may throw is done
//       before the index is taken, unless moves throw too. A value whose move out of the queue throws stays the oldest.
//   P6  Indices run freely and wrap; only differences count. The number of cells is a power of two, at least 2, so that it
//       divides the wrap and P4's mark is none of the cell's others; the capacity is what was asked for.
//   P7  known_head_ may be behind head_ and may go back; what it grants is granted (P1), what it denies is asked of head_.
//
// Progress: try_pop is wait-free, in as many steps as there are indices between head_ and tail_; try_push is lock-free, one
// compare-exchange when no other gets in between. A pusher that is stopped for good costs its place at once, and all
// room in the end: "full" is said when the index that comes next is a capacity ahead of the oldest that is not done.
//
// Cost: one compare-exchange a push, none a pop. A pop that finds nothing searches, and reads tail_ for it, which the pushers
// are writing. Between two threads on a busy machine, with a consumer that asks again and again, an item took about twice the
// time that it takes without the search: the price of an "empty" that can be relied on (P3).
//
// Happens-before: what comes before a push happens before what follows the pop of its value; a pop happens before what
// follows the push that uses its room. A push that happened before a pop is not missed by it.
//
// Sources: the queue of Herlihy and Wing, "Linearizability" (1990), section 4.1, whose dequeue searches from the front up
// to a bound read first; Adas and Friedman, "Jiffy" (2020), has one consumer search past pushers likewise. known_head_ is
// MCRingBuffer's (spsc_queue.hpp), shared here.
//
// Rejected: nodes. They are unbounded or need a list of free ones, which is a second exchange for each push. The runtime
// does link nodes where it sends fibers home to their worker (scheduler.hpp): a fiber brings its node with it, must never be
// refused, and its worker takes all that there is at once; that stack is as unstoppable as this and dearer only to reverse.

CONCUR_NAMESPACE_BEGIN

template <class T>
class mpsc_queue {
 public:
  using value_type = T;

  // Throws std::invalid_argument when capacity is 0 or beyond all memory, std::bad_alloc when there is not so much.
  explicit mpsc_queue(std::size_t capacity) : mpsc_queue(capacity, 0) {}
  // Destroys what is left. All threads must be through.
  ~mpsc_queue() {
    const std::size_t tail = tail_.load(std::memory_order_relaxed);                     // relaxed: nobody else is there
    for (std::size_t i = head_.load(std::memory_order_relaxed); i != tail; ++i) {       // relaxed: as above
      if (cell_at(i).mark.load(std::memory_order_relaxed) == i + 1) cell_at(i).drop();  // relaxed: as above
    }
  }
  mpsc_queue(const mpsc_queue&) = delete;
  mpsc_queue& operator=(const mpsc_queue&) = delete;

  // --- any thread ---

  // False: it is full, and the value is untouched.
  bool try_push(const T& value) { return try_emplace(value); }
  bool try_push(T&& value) { return try_emplace(std::move(value)); }

  // False: it is full. What the value's constructor throws passes, and nothing was pushed.
  template <class... Args>
  bool try_emplace(Args&&... args) {
    if constexpr (!std::is_nothrow_constructible_v<T, Args...> && std::is_nothrow_move_constructible_v<T>) {
      return may_have_room() && try_emplace(T(std::forward<Args>(args)...));  // P5
    } else {
      std::size_t index;
      if (CONCUR_UNLIKELY(!claim(index))) return false;
      cell& owned = cell_at(index);
      if constexpr (std::is_nothrow_constructible_v<T, Args...>) {
        owned.fill(std::forward<Args>(args)...);
        owned.mark.store(index + 1, publish_order());  // release: gives the value to the consumer
      } else {
        marked_at_last filled{owned, index};
        owned.fill(std::forward<Args>(args)...);
        filled.mark = index + 1;
      }
      return true;
    }
  }

  // --- the consumer ---

  // The oldest value, or nothing when it is empty.
  std::optional<T> try_pop() {
    std::optional<T> taken;
    std::size_t index;
    if (cell* const oldest = find(index)) {
      taken.emplace(std::move(oldest->value()));
      leave(*oldest, index);
    }
    return taken;
  }
  // False: it is empty, and `value` is untouched.
  bool try_pop(T& value) {
    std::size_t index;
    cell* const oldest = find(index);
    if (CONCUR_UNLIKELY(oldest == nullptr)) return false;
    value = std::move(oldest->value());
    leave(*oldest, index);
    return true;
  }

  // --- anybody ---

  std::size_t capacity() const noexcept { return capacity_; }
  // How many places were in use a moment ago: values, and what still takes up room before them (P4, P5). Exact when nobody
  // is at work.
  std::size_t size_approx() const noexcept {
    const std::size_t head = head_.load(std::memory_order_relaxed);  // relaxed: a number to look at, not to act on
    return detail::plausible_size(head, tail_.load(std::memory_order_relaxed), capacity_);  // relaxed: as above
  }

 protected:
  // Tests begin near the wrap (P6).
  mpsc_queue(std::size_t capacity, std::size_t first_index)
      : capacity_(detail::checked_capacity("mpsc_queue", capacity, sizeof(cell))),
        mask_(detail::power_of_two_for(capacity > 1 ? capacity : 2) - 1),
        cells_(mask_ + 1),
        tail_(first_index),
        known_head_(first_index),
        head_(first_index) {
    for (std::size_t i = 0; i <= mask_; ++i) {
      // As if it had been filled a lap before. relaxed: whoever hands out the queue publishes it.
      cell_at(first_index + i).mark.store(first_index + i - mask_, std::memory_order_relaxed);
    }
  }

 private:
  static std::memory_order publish_order() noexcept {
    return CONCUR_MUTANT_IS(314) ? std::memory_order_relaxed : std::memory_order_release;
  }
  static std::memory_order value_order() noexcept {
    return CONCUR_MUTANT_IS(315) ? std::memory_order_relaxed : std::memory_order_acquire;
  }
  static std::memory_order vacate_order() noexcept {
    return CONCUR_MUTANT_IS(318) ? std::memory_order_relaxed : std::memory_order_release;
  }

  struct cell : detail::value_cell<T> {
    detail::atomic<std::size_t> mark{0};
  };
  // Writes the mark when it goes, also if an exception is why (P5).
  struct marked_at_last {
    cell& owned;
    std::size_t mark;
    ~marked_at_last() { owned.mark.store(mark, publish_order()); }  // release: gives the value to the consumer
  };

  CONCUR_FORCE_INLINE cell& cell_at(std::size_t index) noexcept { return cells_[index & mask_]; }

  // An index and its cell are now ours (P1). False: full.
  CONCUR_FORCE_INLINE bool claim(std::size_t& index) noexcept {
    CONCUR_PLANTED auto tail_order = CONCUR_MUTANT_IS(316) ? std::memory_order_relaxed : std::memory_order_release;
    CONCUR_PLANTED auto room_order = CONCUR_MUTANT_IS(321) ? std::memory_order_relaxed : std::memory_order_acquire;
    index = tail_.load(std::memory_order_relaxed);  // relaxed: an old index fails at the exchange
    for (;;) {
      // acquire: pairs with the store in has_room; so the consumer's work on the cell is over for us too.
      if (CONCUR_UNLIKELY(index - known_head_.load(room_order) >= capacity_) && !has_room(index)) return false;
      // release: who reads this tail, or a later one, sees all pushes that had ended before ours began (P2). relaxed on
      // failure: the index is looked at again.
      if (CONCUR_LIKELY(tail_.compare_exchange_weak(index, index + 1, tail_order, std::memory_order_relaxed)))
        return true;
    }
  }
  // Asks head_ whether the index can be had, and passes the answer on to other pushers. Brings the index up to date.
  bool has_room(std::size_t& index) noexcept {
    CONCUR_PLANTED auto room_order = CONCUR_MUTANT_IS(319) ? std::memory_order_relaxed : std::memory_order_acquire;
    CONCUR_PLANTED auto head_order = CONCUR_MUTANT_IS(320) ? std::memory_order_relaxed : std::memory_order_release;
    for (;;) {
      const std::size_t head = head_.load(room_order);  // acquire: pairs with move_head; the cells before it are empty
      if (index - head < capacity_) {
        known_head_.store(head, head_order);  // release: what we acquired from the consumer, others acquire from us
        return true;
      }
      if (CONCUR_MUTANT_IS(328) ? index >= head : index - head <= SIZE_MAX / 2) return false;
      index = tail_.load(std::memory_order_relaxed);  // relaxed: ours was so old that it is behind head_
    }
  }

  // A look before a value is made for nothing.
  bool may_have_room() const noexcept {
    const std::size_t tail = tail_.load(std::memory_order_relaxed);          // relaxed: only a look
    const std::size_t ahead = tail - head_.load(std::memory_order_relaxed);  // relaxed: as above
    return ahead < capacity_ || ahead > SIZE_MAX / 2;
  }

  // The cell of the value to be taken next, and its index; null: empty (P2).
  CONCUR_FORCE_INLINE cell* find(std::size_t& index) noexcept {
    index = head_.load(std::memory_order_relaxed);  // relaxed: our own
    cell& first = cell_at(index);
    if (CONCUR_LIKELY(first.mark.load(value_order()) == index + 1))
      return &first;  // acquire: pairs with the pusher's mark
    return search(index);
  }
  CONCUR_NOINLINE cell* search(std::size_t& index) noexcept {
    CONCUR_PLANTED auto tail_order = CONCUR_MUTANT_IS(317) ? std::memory_order_relaxed : std::memory_order_acquire;
    // acquire: pairs with claim, so that what ended before any push up to here began is seen below.
    const std::size_t tail = tail_.load(tail_order);
    for (;; move_head(++index)) {
      if (index == tail) return nullptr;
      cell& first = cell_at(index);
      const std::size_t mark = first.mark.load(value_order());  // acquire: as in find
      if (mark == index + 1 && !CONCUR_MUTANT_IS(326)) return &first;
      if (mark != index) break;
    }
    for (index += 1 + early_count_; index != tail; ++index) {
      cell& next = cell_at(index);
      if (next.mark.load(value_order()) == index + 1) return &next;  // acquire: as in find
    }
    return nullptr;
  }
  // The value was moved out.
  CONCUR_FORCE_INLINE void leave(cell& taken, std::size_t index) noexcept {
    taken.drop();
    const std::size_t head = head_.load(std::memory_order_relaxed);  // relaxed: our own
    if (CONCUR_LIKELY(index == head)) return move_head(index + 1);
    taken.mark.store(index, std::memory_order_relaxed);  // relaxed: for us alone, until a pusher owns the cell
    if (index == head + 1 + early_count_) ++early_count_;
  }
  CONCUR_FORCE_INLINE void move_head(std::size_t head) noexcept {
    head_.store(head, vacate_order());  // release: gives the cells before it, in which nobody reads any more, to pushers
    early_count_ = 0;
  }

  // Read by all, written by none.
  alignas(detail::cache_line_bytes) const std::size_t capacity_;
  const std::size_t mask_;
  detail::cell_array<cell> cells_;
  // The pushers', and the consumer's.
  alignas(detail::cache_line_bytes) detail::atomic<std::size_t> tail_;
  detail::atomic<std::size_t> known_head_;
  alignas(detail::cache_line_bytes) detail::atomic<std::size_t> head_;
  std::size_t early_count_ = 0;  // so many cells behind head_, at least, were taken before their turn (P4)
};

CONCUR_NAMESPACE_END

// atomic/mpmc_queue.hpp - a bounded queue from many threads to many.
//
// Pushers compete for places at the tail, poppers for values at the head, and the two crowds should not meet: a pusher that
// had to read the head would fetch a line that the poppers fight for. So whether a cell is free, or filled, is said by
// the cell itself. Each has a stamp, and who comes with an index knows from the stamp alone whose turn it is:
//
//     stamp of cell i           says                                         next written by
//     lap n, i                  free for the push that takes index (n, i)    that pusher, when its value is in
//     lap n, i, plus 1          holds the value of index (n, i)              the popper that takes (n, i), when it is out
//     lap n + 1, i              free for the push one lap later              ...
//
// An index is a lap and a place: the place in the low bits, the lap above. After the last place comes the first of the
// next lap. So there are as many cells as values wanted, not a power of two of them, and the laps, which wrap, lose
// nothing when they do.
//
//   M1  tail_ and head_ are only moved by compare-exchange, from one index to the next. Who moves tail_ from x owns the
//       cell of x until it writes the stamp x + 1; who moves head_ from x owns it until it writes x + one lap.
//   M2  tail_ is moved from x only after the stamp x was seen in x's cell, head_ only after x + 1. Before the word comes
//       to x again, laps later, the stamp is another; so a move that succeeds was right. (A thread that sleeps
//       between the two while the others use up all laps could be wrong: 2^64 operations, 2^32 on 32-bit machines.)
//   M3  A stamp older than the one wanted is an answer: full, or empty. A newer one says only that our index is old.
//   M4  Who owns a cell must write its stamp, come what may. So what may throw is done before: the value is made first, and
//       moved in. If moves may throw too, a push that does leaves a hole (half a lap above the stamp of a value), which
//       takes up room until a popper comes to it and steps over. A value whose move out throws is destroyed.
//
// Progress: neither operation waits, and none can keep others from competing; but it is not lock-free. A pusher that the
// kernel stops between its move of tail_ and its stamp has its value unread, and those behind it: poppers are told
// "empty" when they come to that cell, pushers "full" a lap later. A popper that is stopped likewise makes it full. So
// false means: full (or empty), or the thread whose turn it is at that cell is not through. And like any answer about
// others, it may be out of date when it is given, unless what they did happened before.
//
// Order: first in, first out, by the moves of tail_ and head_. Happens-before: what comes before a push happens before
// what follows the pop of its value; a pop happens before what follows the push that uses its cell.
//
// Cost: one compare-exchange an operation. Source: Vyukov, "Bounded MPMC queue" (1024cores.net); the lap beside the place
// is as in crossbeam's ArrayQueue.
//
// Rejected: SCQ (Nikolaev, 2019), which is lock-free: two queues of indices beside the values make an operation twice as
// dear where nobody is stopped. Tickets by fetch_add are quicker in a crowd, but who has one cannot be told "full".

CONCUR_NAMESPACE_BEGIN

template <class T>
class mpmc_queue {
 public:
  using value_type = T;

  // Throws std::invalid_argument when capacity is 0 or beyond all memory, std::bad_alloc when there is not so much.
  explicit mpmc_queue(std::size_t capacity) : mpmc_queue(capacity, 0) {}
  // Destroys what is left. All threads must be through.
  ~mpmc_queue() {
    const std::size_t tail = tail_.load(std::memory_order_relaxed);  // relaxed: nobody else is there
    for (std::size_t i = head_.load(std::memory_order_relaxed); i != tail; i = after(i)) {  // relaxed: as above
      if (cell_at(i).stamp.load(std::memory_order_relaxed) == i + 1) cell_at(i).drop();     // relaxed: as above
    }
  }
  mpmc_queue(const mpmc_queue&) = delete;
  mpmc_queue& operator=(const mpmc_queue&) = delete;

  // False: it is full, and the value is untouched.
  bool try_push(const T& value) { return try_emplace(value); }
  bool try_push(T&& value) { return try_emplace(std::move(value)); }

  // False: it is full. What the value's constructor throws passes, and nothing was pushed.
  template <class... Args>
  bool try_emplace(Args&&... args) {
    if constexpr (!std::is_nothrow_constructible_v<T, Args...> && std::is_nothrow_move_constructible_v<T>) {
      return has_room() && try_emplace(T(std::forward<Args>(args)...));  // M4
    } else {
      std::size_t index;
      cell* const free = claim_free(index);
      if (CONCUR_UNLIKELY(free == nullptr)) return false;
      if constexpr (std::is_nothrow_constructible_v<T, Args...>) {
        free->fill(std::forward<Args>(args)...);
        free->stamp.store(index + 1, publish_order());  // release: gives the value to the popper that takes this index
      } else {
        stamped_at_last filled{*free, index + 1 + hole_};
        free->fill(std::forward<Args>(args)...);
        filled.stamp = index + 1;
      }
      return true;
    }
  }

  // The oldest value, or nothing when it is empty.
  std::optional<T> try_pop() {
    std::optional<T> taken;
    std::size_t index;
    if (cell* const oldest = claim_filled(index)) {
      const dropped_at_last end{*oldest, index + lap_};
      taken.emplace(std::move(oldest->value()));
    }
    return taken;
  }
  // False: it is empty, and `value` is untouched.
  bool try_pop(T& value) {
    std::size_t index;
    cell* const oldest = claim_filled(index);
    if (CONCUR_UNLIKELY(oldest == nullptr)) return false;
    const dropped_at_last end{*oldest, index + lap_};
    value = std::move(oldest->value());
    return true;
  }

  std::size_t capacity() const noexcept { return capacity_; }
  // How many values it held a moment ago, those on their way in and out included; exact when nobody is at work.
  std::size_t size_approx() const noexcept {
    const std::size_t head = head_.load(std::memory_order_relaxed);  // relaxed: a number to look at, not to act on
    const std::size_t tail = tail_.load(std::memory_order_relaxed);  // relaxed: as above
    const std::size_t laps = (tail - place_of(tail) - (head - place_of(head))) / lap_;
    return detail::plausible_size(place_of(head), laps * capacity_ + place_of(tail), capacity_);
  }

 protected:
  // Tests begin near the wrap, with the lap that this index is in.
  mpmc_queue(std::size_t capacity, std::size_t first_index)
      : capacity_(detail::checked_capacity("mpmc_queue", capacity, sizeof(cell))),
        hole_(detail::power_of_two_for(capacity + 1)),
        lap_(2 * hole_),
        cells_(capacity),
        tail_(first_index - first_index % lap_),
        head_(first_index - first_index % lap_) {
    std::size_t index = tail_.load(std::memory_order_relaxed);  // relaxed: whoever hands out the queue publishes it
    for (std::size_t i = 0; i < capacity; ++i)
      cells_[i].stamp.store(index++, std::memory_order_relaxed);  // relaxed: as above
  }

 private:
  static std::memory_order publish_order() noexcept {
    return CONCUR_MUTANT_IS(323) ? std::memory_order_relaxed : std::memory_order_release;
  }
  static std::memory_order vacate_order() noexcept {
    return CONCUR_MUTANT_IS(325) ? std::memory_order_relaxed : std::memory_order_release;
  }

  struct cell : detail::value_cell<T> {
    detail::atomic<std::size_t> stamp{0};
  };
  // Writes the stamp when it goes, also if an exception is why (M4).
  struct stamped_at_last {
    cell& owned;
    std::size_t stamp;
    // release: gives the value, or the hole, to the popper that takes this index
    ~stamped_at_last() { owned.stamp.store(stamp, publish_order()); }
  };
  struct dropped_at_last {
    cell& owned;
    std::size_t stamp;
    ~dropped_at_last() {
      owned.drop();
      owned.stamp.store(stamp, vacate_order());  // release: gives the cell, in which nobody reads any more, to a pusher
    }
  };

  // --- indices and stamps: the place in the bits below hole_, the lap from lap_ on ---

  CONCUR_FORCE_INLINE std::size_t place_of(std::size_t index) const noexcept { return index & (hole_ - 1); }
  CONCUR_FORCE_INLINE cell& cell_at(std::size_t index) noexcept { return cells_[place_of(index)]; }
  CONCUR_FORCE_INLINE std::size_t after(std::size_t index) const noexcept {
    const std::size_t place = place_of(index);
    return CONCUR_LIKELY(place + 1 < capacity_) ? index + 1 : index - place + lap_;
  }
  // Also where a lap number has wrapped in between.
  static bool is_older(std::size_t stamp, std::size_t than) noexcept {
    return CONCUR_MUTANT_IS(327) ? stamp < than : stamp - than > SIZE_MAX / 2;
  }

  // --- turns ---

  // A cell that is now ours to fill, and its index; null: full (M3).
  CONCUR_FORCE_INLINE cell* claim_free(std::size_t& index) noexcept {
    CONCUR_PLANTED auto room_order = CONCUR_MUTANT_IS(322) ? std::memory_order_relaxed : std::memory_order_acquire;
    index = tail_.load(std::memory_order_relaxed);  // relaxed: an old index fails at its cell or at the exchange (M3)
    for (;;) {
      cell& turn = cell_at(index);
      const std::size_t stamp = turn.stamp.load(room_order);  // acquire: pairs with the popper's; the cell is empty
      if (CONCUR_LIKELY(stamp == index)) {
        // relaxed, both: who owns which cell is all it says (M1); values are passed on by the stamps.
        if (CONCUR_LIKELY(tail_.compare_exchange_weak(index, after(index), std::memory_order_relaxed))) return &turn;
      } else if (is_older(stamp, index)) {
        return nullptr;
      } else {
        index = tail_.load(std::memory_order_relaxed);  // relaxed: as above
      }
    }
  }

  // A cell whose value is now ours to take, and its index; null: empty (M3).
  CONCUR_FORCE_INLINE cell* claim_filled(std::size_t& index) noexcept {
    CONCUR_PLANTED auto value_order = CONCUR_MUTANT_IS(324) ? std::memory_order_relaxed : std::memory_order_acquire;
    index = head_.load(std::memory_order_relaxed);  // relaxed: an old index fails at its cell or at the exchange (M3)
    for (;;) {
      cell& turn = cell_at(index);
      const std::size_t stamp = turn.stamp.load(value_order);  // acquire: pairs with the pusher's; the value is there
      const bool is_hole = has_holes && stamp == index + 1 + hole_;
      if (CONCUR_LIKELY(stamp == index + 1) || is_hole) {
        // relaxed, both: as in claim_free.
        if (CONCUR_UNLIKELY(!head_.compare_exchange_weak(index, after(index), std::memory_order_relaxed))) continue;
        if (!is_hole) return &turn;
        turn.stamp.store(index + lap_, vacate_order());  // release: as for a value
      } else if (is_older(stamp, index + 1)) {
        return nullptr;
      }
      index = head_.load(std::memory_order_relaxed);  // relaxed: as above
    }
  }

  bool has_room() noexcept {
    const std::size_t index = tail_.load(std::memory_order_relaxed);                // relaxed: a first look, no more
    return !is_older(cell_at(index).stamp.load(std::memory_order_relaxed), index);  // relaxed: as above
  }

  static constexpr bool has_holes = !std::is_nothrow_move_constructible_v<T>;

  // Read by all, written by none.
  alignas(detail::cache_line_bytes) const std::size_t capacity_;
  const std::size_t hole_;  // what a stamp has more when a hole stands for the value; above all places, a power of two
  const std::size_t lap_;   // from an index to the same place a lap later
  detail::cell_array<cell> cells_;
  // The pushers', and the poppers'.
  alignas(detail::cache_line_bytes) detail::atomic<std::size_t> tail_;
  alignas(detail::cache_line_bytes) detail::atomic<std::size_t> head_;
};

CONCUR_NAMESPACE_END

// atomic/hazard_domain.hpp - when may memory be freed that other threads may still be reading?
//
// Who unlinks a node from a lock-free structure cannot free it: another thread may have read the pointer a moment ago.
// So a reader announces the pointer in a slot that all can see, looks whether the structure still says the same, and
// only then follows it. What was unlinked is retired, and freed when no slot names it.
//
//     reader                              whoever removes
//     slot = p                            unlink p
//     fence                               push p on the retired list; sometimes take that list, and then
//     source still p ? use it : again     fence
//                                         some slot == p ? keep it : free it
//
//   Z1  The two fences: the reader sees that p was unlinked, or the remover sees the slot. Both may; never neither.
//   Z2  An object is retired once, after the last pointer to it that a reader could find is gone.
//   Z3  A slot belongs to a hazard_pointer, not to a thread: a fiber may hold one over a switch and go on elsewhere.
//       Slots are kept until the domain goes; `next` of a slot never changes once others can see it.
//   Z4  The retired list is only pushed on, and taken whole: neither can mistake a pointer for an earlier one. Who took
//       it owns the objects in it.
//   Z5  Garbage is bounded. With H slots, a scan begins when R = 2H + 32 objects wait, and R later for each scan that is
//       under way, so that a deleter that retires does not scan inside a scan again and again. One that retires alone
//       therefore leaves R objects at most, and P at the same time 2(P + 1)^2 R, wherever any of them is stopped: a
//       scan keeps H at most, and has as many in its hands as the list can hold. H is the number of hazard_pointers
//       there were at once.
//
// Rejected: epochs. They cost a reader less, but a reader that is stopped, or a fiber that parks, inside an epoch holds
// up everything that is retired after it, without bound; and they want to know the threads, which here come and go.
// Rejected: a fence on the reader's side that costs nothing because the remover's is a system call. It would double the
// speed of protect on x86, but needs an operating system, and this file runs wherever there are atomics.
//
// Progress: try_protect, reset and giving a slot back are wait-free. protect repeats only when another thread has
// changed the source, retire only when another has pushed: lock-free. A scan takes steps in the number of objects and
// slots. Making a hazard_pointer walks the slots, and allocates when all are taken; nothing else does.
//
// Cost: protect is a store, a full fence and two loads (12 ns on x86-64); retire one compare-exchange, one fetch_add, and
// its share of a scan, which looks at each slot once and each object twice (50 ns in all).
//
// Source: Michael, "Hazard Pointers: Safe Memory Reclamation for Lock-Free Objects", IEEE TPDS 15(6), 2004, section 3.
// There the retired list is a thread's; here it is shared, since nothing is a thread's. The names are near those of
// <hazard_pointer> in C++26.

CONCUR_NAMESPACE_BEGIN

// The base of what can be retired: room for the list, and for what is to be done in the end. Three words; a copy of an
// object is another object and copies none of it.
class hazard_object {
 public:
  hazard_object() noexcept {
    detail::note_birth(this);
    detail::note_birth(&reclaim_);
  }
  hazard_object(const hazard_object&) noexcept : hazard_object() {}
  hazard_object& operator=(const hazard_object&) noexcept { return *this; }

 protected:
  ~hazard_object() = default;

 private:
  friend class hazard_domain;
  // For what is written while readers may still be in the object, but no two that retire; its beginning stands for the
  // rest of it.
  void note_list() noexcept { detail::note_write(&reclaim_, "the list of retired objects"); }

  hazard_object* next_retired_ = nullptr;
  void (*reclaim_)(hazard_object*) = nullptr;
  alignas(void*) unsigned char deleter_[sizeof(void*)] = {};
};

// What is read, and retired, through one domain. A structure may have its own, or several may share one.
class hazard_domain {
 public:
  hazard_domain() noexcept = default;
  hazard_domain(const hazard_domain&) = delete;
  hazard_domain& operator=(const hazard_domain&) = delete;
  // Frees what is retired. No hazard_pointer of this domain is left, and nobody retires.
  ~hazard_domain();

  // Frees the object, now or later, on this thread or on another that retires, once nobody has it protected. What the
  // caller did to the object before happens before it is freed, and so does what each reader did until it let go of it.
  // T derives from hazard_object, not virtually. Allocates nothing.
  template <class T>
  void retire(T* object) noexcept {
    retire(object, [](T* what) { delete what; });
  }
  // The same, with deleter(object) instead of delete. A deleter is trivially copyable and no larger than a pointer: a
  // lambda that captures one. It may not throw, and may retire other objects of this domain, which are not freed inside it.
  template <class T, class Deleter>
  void retire(T* object, Deleter deleter) noexcept {
    static_assert(std::is_base_of<hazard_object, T>::value, "what is retired derives from concur::hazard_object");
    static_assert(std::is_trivially_copyable<Deleter>::value && sizeof(Deleter) <= sizeof(void*) &&
                      alignof(Deleter) <= alignof(void*),
                  "a deleter is kept in one word of the object: let it capture one pointer at most");
    hazard_object* const retired = object;
    retired->note_list();
    ::new (static_cast<void*>(retired->deleter_)) Deleter(deleter);
    retired->reclaim_ = [](hazard_object* what) {
      Deleter kept(*std::launder(reinterpret_cast<Deleter*>(what->deleter_)));
      kept(static_cast<T*>(what));
    };
    add(retired);
  }

  // Frees at once what nobody has protected. There is no need to call it, but before a measurement, or in a quiet time.
  void reclaim() noexcept;

  // H of Z5, and how many objects wait in the list; both are of the past when they are read.
  std::size_t slot_count() const noexcept {
    return slot_count_.load(std::memory_order_relaxed);  // relaxed: a hint
  }
  std::size_t retired_count() const noexcept {
    return retired_count_.load(std::memory_order_relaxed);  // relaxed: a hint
  }

 private:
  friend class hazard_pointer;

  struct alignas(detail::cache_line_bytes) slot {
    detail::atomic<const hazard_object*> named{nullptr};  // what may not be freed; written by who has the slot
    detail::atomic<std::uint32_t> is_taken{1};            // 0, 1; 0 -> 1 by who takes it
    slot* next = nullptr;
  };
  class buckets;

  slot* first_slot() const noexcept {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(339) ? std::memory_order_relaxed : std::memory_order_acquire;
    return slots_.load(order);  // acquire: pairs with the push in take_slot
  }
  static slot* next_slot(const slot* one) noexcept {
    detail::note_read(&one->next, "a hazard slot");
    return one->next;
  }
  slot* take_slot();
  void add(hazard_object* object) noexcept;
  void push(hazard_object* first, hazard_object* last) noexcept;
  bool is_scan_due() const noexcept;

  alignas(detail::cache_line_bytes) detail::atomic<slot*> slots_{nullptr};  // all, the newest first
  detail::atomic<std::size_t> slot_count_{0};
  alignas(detail::cache_line_bytes) detail::atomic<hazard_object*> retired_{nullptr};  // the list of Z4
  detail::atomic<std::size_t> retired_count_{0};  // no less than the list is long: added to before, taken from after
  detail::atomic<std::size_t> scans_{0};          // under way
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

// Retired objects by address, so that those that a slot names are found without looking at all.
class hazard_domain::buckets {
 public:
  void add(hazard_object* object) noexcept {
    hazard_object*& first = lists_[place(object)];
    object->next_retired_ = first;
    first = object;
  }
  // The object, if it was here; now it is not.
  hazard_object* remove(const hazard_object* wanted) noexcept {
    for (hazard_object** at = &lists_[place(wanted)]; *at != nullptr; at = &(*at)->next_retired_) {
      if (*at == wanted) return std::exchange(*at, (*at)->next_retired_);
    }
    return nullptr;
  }
  void reclaim_all() noexcept {
    for (hazard_object*& list : lists_) {
      while (list != nullptr) {
        hazard_object* const object = std::exchange(list, list->next_retired_);
        detail::note_write(object, "an object that is freed");
        object->reclaim_(object);
      }
    }
  }

 private:
  static constexpr std::size_t count = 64;
  static std::size_t place(const hazard_object* object) noexcept {
    const std::uintptr_t bits = reinterpret_cast<std::uintptr_t>(object) / alignof(std::max_align_t);
    return (bits ^ (bits / count)) % count;
  }

  hazard_object* lists_[count] = {};
};

CONCUR_INLINE hazard_domain::~hazard_domain() {
  // Deleters may retire more.
  while (retired_.load(std::memory_order_relaxed) != nullptr) reclaim();  // relaxed: nobody else is here
  slot* next = slots_.load(std::memory_order_relaxed);                    // relaxed: as above
  while (next != nullptr) delete std::exchange(next, next->next);
}

CONCUR_INLINE hazard_domain::slot* hazard_domain::take_slot() {
  for (slot* one = first_slot(); one != nullptr; one = next_slot(one)) {
    // relaxed: only a look. acquire: pairs with giving it back, and see there.
    if (one->is_taken.load(std::memory_order_relaxed) == 0 && one->is_taken.exchange(1, std::memory_order_acquire) == 0)
      return one;
  }
  slot* const made = new slot;
  detail::note_birth(&made->next);
  slot_count_.fetch_add(1, std::memory_order_relaxed);  // relaxed: only how many objects may wait depends on it
  slot* head = slots_.load(std::memory_order_relaxed);  // relaxed: not followed
  CONCUR_PLANTED auto push_order = CONCUR_MUTANT_IS(338) ? std::memory_order_relaxed : std::memory_order_release;
  do {
    made->next = head;
    detail::note_write(&made->next, "a hazard slot");
    // release: publishes the slot. relaxed on failure: the head is not followed.
  } while (!slots_.compare_exchange_strong(head, made, push_order, std::memory_order_relaxed));
  return made;
}

CONCUR_INLINE bool hazard_domain::is_scan_due() const noexcept {
  const std::size_t batch = 2 * slot_count() + 32;
  // relaxed: one scan too many or too late is harmless; who adds sees its own addition.
  return retired_count() >= batch * (1 + scans_.load(std::memory_order_relaxed));
}

CONCUR_INLINE void hazard_domain::add(hazard_object* object) noexcept {
  retired_count_.fetch_add(1, std::memory_order_relaxed);  // relaxed: orders nothing
  push(object, object);
  if (is_scan_due()) reclaim();
}

CONCUR_INLINE void hazard_domain::push(hazard_object* first, hazard_object* last) noexcept {
  hazard_object* head = retired_.load(std::memory_order_relaxed);  // relaxed: not followed
  CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(334) ? std::memory_order_relaxed : std::memory_order_release;
  do {
    last->next_retired_ = head;
    // release: publishes the links, and all that was done to the objects. relaxed on failure: the head is not followed.
  } while (!retired_.compare_exchange_strong(head, first, order, std::memory_order_relaxed));
}

CONCUR_INLINE void hazard_domain::reclaim() noexcept {
  scans_.fetch_add(1, std::memory_order_relaxed);  // relaxed: orders nothing
  // acquire: pairs with push. The fence below would do, but ThreadSanitizer does not see fences.
  CONCUR_PLANTED auto take_order = CONCUR_MUTANT_IS(335) ? std::memory_order_relaxed : std::memory_order_acquire;
  hazard_object* list = retired_.exchange(nullptr, take_order);
  CONCUR_PLANTED auto fence_order = CONCUR_MUTANT_IS(336) ? std::memory_order_acq_rel : std::memory_order_seq_cst;
  // seq_cst: Z1, the remover's side. What is in the list was unlinked before it was pushed, by whatever thread.
  detail::thread_fence(fence_order);
  buckets taken;
  std::size_t count = 0;
  for (; list != nullptr; ++count) {
    list->note_list();
    taken.add(std::exchange(list, list->next_retired_));
  }
  hazard_object* kept = nullptr;
  hazard_object* last_kept = nullptr;
  // A slot that is not in the list yet has its fence behind ours (Z1).
  for (slot* one = first_slot(); one != nullptr; one = next_slot(one)) {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(337) ? std::memory_order_relaxed : std::memory_order_acquire;
    const hazard_object* const wanted = one->named.load(order);  // acquire: pairs with announce and reset
    hazard_object* const found = wanted == nullptr ? nullptr : taken.remove(wanted);
    if (found == nullptr) continue;
    found->next_retired_ = kept;
    kept = found;
    if (last_kept == nullptr) last_kept = found;
    --count;
  }
  retired_count_.fetch_sub(count, std::memory_order_relaxed);  // relaxed: orders nothing
  if (kept != nullptr) push(kept, last_kept);
  taken.reclaim_all();
  scans_.fetch_sub(1, std::memory_order_relaxed);  // relaxed: orders nothing
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// atomic/hazard_pointer.hpp - the reader's side of hazard_domain: one pointer that is safe to follow.
//
//     concur::hazard_pointer mine(domain);
//     if (node* first = mine.protect(head)) use(first->value);   // nobody frees it before mine lets go
//
// Rules and source are those of hazard_domain.hpp (Z1 to Z5).

CONCUR_NAMESPACE_BEGIN

// One slot of a domain: keeps one object at a time from being freed. Movable. Used by one thread at a time.
class hazard_pointer {
 public:
  // std::bad_alloc when all slots are taken and there is no memory for another. Making one costs more than protecting
  // with it: keep it for a loop.
  explicit hazard_pointer(hazard_domain& domain) : slot_(domain.take_slot()) {}
  hazard_pointer(hazard_pointer&& other) noexcept : slot_(std::exchange(other.slot_, nullptr)) {}
  hazard_pointer& operator=(hazard_pointer&& other) noexcept {
    std::swap(slot_, other.slot_);
    return *this;
  }
  ~hazard_pointer() {
    if (slot_ == nullptr) return;
    reset();
    // release: the next owner's first store comes after our last one. No model finds it: a word's stores take place in
    // the order in which they are made, there. The language promises that only along happens-before.
    slot_->is_taken.store(0, std::memory_order_release);
  }

  // Returns what `source`, a std::atomic<T*>, points to, null or an object that is not freed before this protects
  // something else, is reset or is gone. The stores before the one that put the pointer into `source`, if that was a
  // release store, happen before the return.
  template <template <class...> class Atomic, class T>
  T* protect(const Atomic<T*>& source) noexcept {
    T* seen = source.load(std::memory_order_relaxed);  // relaxed: a guess, which try_protect looks at again
    while (!try_protect(seen, source)) {
    }
    return seen;
  }
  // One attempt to protect `seen`. False: `source` points to something else, which is in `seen` now, and nothing is
  // protected that could be used.
  template <template <class...> class Atomic, class T>
  bool try_protect(T*& seen, const Atomic<T*>& source) noexcept {
    T* const announced = seen;
    announce(announced);
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(332) ? std::memory_order_relaxed : std::memory_order_acquire;
    // acquire: pairs with whoever published the object. Where `seen` was read before, the fence has done so already; but the
    // same address may have been freed, used again and published again since.
    seen = source.load(order);
    return seen == announced;
  }
  // Protects `object`, if it can still be found after this call where it was found before: the caller looks again, as
  // try_protect does. For pointers that are kept in words with something beside them.
  template <class T>
  void announce(const T* object) noexcept {
    // release: the use of what was protected before ends before a scan finds it gone.
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(330) ? std::memory_order_relaxed : std::memory_order_release;
    slot_->named.store(object, order);
    CONCUR_PLANTED auto fence_order = CONCUR_MUTANT_IS(331) ? std::memory_order_acq_rel : std::memory_order_seq_cst;
    // seq_cst: Z1, the reader's side. Anything weaker lets the look at the source pass the store.
    detail::thread_fence(fence_order);
  }
  void reset() noexcept {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(333) ? std::memory_order_relaxed : std::memory_order_release;
    slot_->named.store(nullptr, order);  // release: as in announce
  }

 private:
  hazard_domain::slot* slot_;  // null: moved from, and good for nothing but being assigned to
};

CONCUR_NAMESPACE_END

// atomic/treiber_stack.hpp - last in, first out, for any number of threads, without a lock.
//
// A linked list whose head is swung by compare-exchange. What is hard about it is the pop: between reading the head A
// and its successor B and swinging the head from A to B, others may pop A, pop B and push A again. The exchange then
// succeeds, for A is the head, and makes B, which is gone, the head: the ABA problem. The cure is a tag beside the
// pointer that says which time around this is. Two pointers' worth of compare-exchange is not to be had everywhere, so
// the nodes stand in an array that is allocated once, and a number of as few bits as the capacity needs takes the
// pointer's place; the tag has the rest of the word.
//
//   X1  The word of a list is tag * 2^b + index, with b bits for the index: 0 for none, i for node i - 1. Capacities have
//       half the word's bits at most.
//   X2  Taking adds one to the tag, putting leaves it: a head that has been taken never comes back with its old tag. It
//       does after 2^(w - b) times, w being the bits of the word: a pop is misled when it is held up for just so many
//       others, or a multiple. A thousand nodes: 2^54 on 64-bit machines, which is years; 2^22 on 32-bit ones, about a
//       tenth of a second. Whoever cannot rule out a thread that stands still so long, and for so exact a number, should
//       take another structure there.
//   X3  Each node is in one of two such lists, free or filled, or belongs to the one thread that took it. `next` is read
//       by those who are about to find out that they have lost the node, therefore it is atomic; the value is not.
//   X4  A list's word is changed by read-modify-writes alone. So every one who reads a head with acquire sees what was
//       done by all who put the nodes below it there, not only the last: they form one release sequence.
//   X5  Memory stays until the stack goes: a `next` that is read too late is a wrong number, never a freed page.
//
// Rejected: hazard pointers (hazard_domain.hpp). They would give an unbounded stack, for a full fence in each pop and an
// allocation in each push. Whoever wants that builds it in twenty lines; a test of theirs does.
//
// Bounded. Progress: lock-free, each operation; a compare-exchange that fails means that another has succeeded. A push
// may find the stack full while a pop that has its value is about to return its node.
// Happens-before: what comes before a push comes before the pop, or take_all, that returns its value.
// Cost: two compare-exchanges for each push and each pop (35 ns on x86-64, alone); all contend for two words.
//
// Sources: Treiber, "Systems Programming: Coping with Parallelism", IBM RJ 5118 (1986); the tag is that of the IBM
// System/370 Principles of Operation, appendix A, "Free-Pool Manipulation".

CONCUR_NAMESPACE_BEGIN

template <class T>
class treiber_stack {
 public:
  // Room for `capacity` values, allocated here and nowhere else. std::invalid_argument for 0, and for more than half the
  // bits of a pointer can count. Tests begin near the wrap of the tag (X2).
  explicit treiber_stack(std::size_t capacity, std::uintptr_t first_tag = 0)
      : capacity_(fit(capacity)), index_bits_(bits_for(capacity)), nodes_(new node[capacity]) {
    for (std::size_t i = 0; i + 1 < capacity; ++i) link(nodes_[i], static_cast<index>(i + 2));
    const std::uintptr_t tag = first_tag << index_bits_;
    filled_.store(tag, std::memory_order_relaxed);    // relaxed: whoever is given the stack sees it with that
    free_.store(tag | 1, std::memory_order_relaxed);  // relaxed: as above
  }
  treiber_stack(const treiber_stack&) = delete;
  treiber_stack& operator=(const treiber_stack&) = delete;
  // Destroys what is left. Nobody else is using the stack.
  ~treiber_stack() {
    take_all([](T&&) {});
    delete[] nodes_;
  }

  // False: the stack is full and the value untouched. What T's constructor throws passes, and nothing has happened.
  bool try_push(T&& value) { return try_emplace(std::move(value)); }
  bool try_push(const T& value) { return try_emplace(value); }
  template <class... A>
  bool try_emplace(A&&... arguments) {
    route mine(*this, take(free_, false), free_);
    if (mine.first == 0) return false;
    node& own = at(mine.first);
    detail::note_write(own.bytes, "a node of a treiber_stack");
    ::new (static_cast<void*>(own.bytes)) T(std::forward<A>(arguments)...);
    mine.to = &filled_;
    return true;
  }

  // The value that was pushed last; nothing when the stack is empty. When T's move constructor throws, that passes, and
  // the value, as the constructor left it, is on top again.
  std::optional<T> try_pop() {
    std::optional<T> result;
    route mine(*this, take(filled_, false), filled_);
    if (mine.first != 0) {
      node& own = at(mine.first);
      detail::note_write(own.bytes, "a node of a treiber_stack");
      result.emplace(std::move(*own.value()));
      own.value()->~T();
      mine.to = &free_;
    }
    return result;
  }

  // Empties the stack in one step, and calls use(T&&) for each value, the one pushed last first. Returns how many. Their
  // room is free when it returns. When `use` throws, its value is destroyed and those it has not seen are on the stack
  // again, in their order, above what has been pushed since.
  template <class F>
  std::size_t take_all(F&& use) {
    route rest(*this, take(filled_, true), filled_);
    route used(*this, 0, free_);
    std::size_t count = 0;
    rest.last = 0;
    for (; rest.first != 0; ++count) {
      const index own = rest.first;
      rest.first = next_of(at(own));
      link(at(own), used.first);
      used.first = own;
      if (used.last == 0) used.last = own;
      detail::note_write(at(own).bytes, "a node of a treiber_stack");
      const end_of_value at_last{*at(own).value()};
      use(std::move(at_last.value));
    }
    return count;
  }

  // Of the past when it is read.
  bool empty() const noexcept {
    return index_in(filled_.load(std::memory_order_relaxed)) == 0;  // relaxed: a hint
  }
  std::size_t capacity() const noexcept { return capacity_; }

 private:
  using index = std::uint32_t;
  using head = detail::atomic<std::uintptr_t>;

  struct node {
    detail::atomic<index> next{0};  // who has the node writes it; anybody may read it (X3)
    alignas(T) unsigned char bytes[sizeof(T)];

    T* value() noexcept { return std::launder(reinterpret_cast<T*>(bytes)); }
  };

  // Nodes of the calling thread's, which go to a list at the end of the block, also when an exception ends it.
  struct route {
    route(treiber_stack& whose, index one, head& where) noexcept : stack(whose), first(one), last(one), to(&where) {}
    route(const route&) = delete;
    route& operator=(const route&) = delete;
    ~route() {
      if (first != 0) stack.put(*to, first, last);
    }

    treiber_stack& stack;
    index first;  // 0: none
    index last;   // 0: to be found
    head* to;
  };
  struct end_of_value {
    T& value;
    ~end_of_value() { value.~T(); }
  };

  static constexpr unsigned word_bits = sizeof(std::uintptr_t) * 8;
  static unsigned bits_for(std::size_t capacity) noexcept {
    unsigned bits = 1;
    while (bits < word_bits && (capacity >> bits) != 0) ++bits;
    return bits;
  }
  static std::size_t fit(std::size_t capacity) {
    if (capacity == 0 || bits_for(capacity) > word_bits / 2) {
      detail::fail_argument("concur::treiber_stack", "capacity", std::to_string(capacity),
                            "at least 1, and no more than half the bits of a pointer can count");
    }
    return capacity;
  }

  node& at(index i) noexcept { return nodes_[i - 1]; }
  index index_in(std::uintptr_t word) const noexcept {
    return static_cast<index>(word & ((std::uintptr_t{1} << index_bits_) - 1));
  }
  // relaxed, both: published by put, and seen by who acquires the head in take; who has lost the node drops what it read.
  static index next_of(const node& one) noexcept { return one.next.load(std::memory_order_relaxed); }
  static void link(node& one, index to) noexcept { one.next.store(to, std::memory_order_relaxed); }

  // The first node, or all, linked; 0: there is none.
  index take(head& list, bool all) noexcept {
    CONCUR_PLANTED auto load_order = CONCUR_MUTANT_IS(341) ? std::memory_order_relaxed : std::memory_order_acquire;
    CONCUR_PLANTED auto failure_order = CONCUR_MUTANT_IS(342) ? std::memory_order_relaxed : std::memory_order_acquire;
    CONCUR_PLANTED std::uintptr_t step = CONCUR_MUTANT_IS(343) ? 0 : 1;
    std::uintptr_t word =
        list.load(load_order);  // acquire: pairs with put, for `next` of the node and for what it holds
    for (;;) {
      const index first = index_in(word);
      if (first == 0) return 0;
      const index rest = all ? 0 : next_of(at(first));
      const std::uintptr_t wanted = (((word >> index_bits_) + step) << index_bits_) | rest;
      // acquire on failure: as above, the new head is read next. On success the load has given all that is needed, for by
      // X2 it is the same put that is seen; acquire nevertheless, since libraries refuse a weaker one than that of failure.
      if (list.compare_exchange_strong(word, wanted, std::memory_order_acquire, failure_order)) return first;
    }
  }

  // Puts a chain of nodes before all others; last is 0 when the caller has not followed it, and then its end links to 0.
  void put(head& list, index first, index last) noexcept {
    for (index one = first; last == 0; one = next_of(at(one))) {
      if (next_of(at(one)) == 0) last = one;
    }
    std::uintptr_t word = list.load(std::memory_order_relaxed);  // relaxed: its node is not read
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(340) ? std::memory_order_relaxed : std::memory_order_release;
    for (;;) {
      link(at(last), index_in(word));
      const std::uintptr_t wanted = ((word >> index_bits_) << index_bits_) | first;
      // release: publishes the links, and the value or its end. relaxed on failure: as the load above.
      if (list.compare_exchange_strong(word, wanted, order, std::memory_order_relaxed)) return;
    }
  }

  const std::size_t capacity_;
  const unsigned index_bits_;
  node* const nodes_;
  alignas(detail::cache_line_bytes) head filled_{0};
  alignas(detail::cache_line_bytes) head free_{0};
};

CONCUR_NAMESPACE_END

// atomic/work_stealing_deque.hpp - one owner's work, newest first for the owner, the oldest free to be stolen.
//
// A ring and two indices. The owner pushes and pops at `bottom`, thieves take at `top`. Far apart, the two ends have
// nothing to do with each other, and the owner needs no read-modify-write. They meet at the last element: there both
// must win it by a compare-exchange on `top`.
//
//     owner's pop                             thief
//     bottom = b                              t = top
//     fence                                   fence
//     t = top                                 b = bottom
//     t < b: slot b is mine                   t < b: read slot t, then top: t -> t + 1, or somebody else was quicker
//     t = b: mine if top: t -> t + 1
//
//   V1  The two fences: the owner sees that the thief has taken t, or the thief sees that the owner has taken b. So an
//       element that the owner takes without a compare-exchange is out of every thief's reach.
//   V2  Indices have the size of a pointer, only their difference counts, and the ring's size divides what they can count.
//       The difference is a signed number: compared without a sign, as printed, a pop from a new deque, whose `bottom`
//       goes from 0 to the largest number, finds an element that is not there. On a 32-bit machine a thief that is held
//       up for exactly 2^32 elements is misled.
//   V3  The ring never grows. A thief can thus not be left with one that the owner has moved out of, which is the hard
//       part of the printed algorithm: as printed it publishes a larger ring without a release, so that a thief reads
//       slots of it that are not written yet (found by Norris and Demsky, "CDSChecker", OOPSLA 2013); and
//       crossbeam-deque let a thief that had read the old ring win an element that was in the new one (CVE-2021-32810).
//       A full deque says so, and its owner does the work at once, or puts it where all look.
//   V4  Slots are atomic: a thief may read one while the owner writes the next round into it, but then its
//       compare-exchange fails, and what it read is dropped. Hence elements are words: a pointer or what is no larger,
//       trivially copyable. Who has something larger pushes its address; the deque does not allocate.
//
// Progress: push and pop are wait-free. A steal is one attempt, wait-free too; it may be lost to another thief or to the
// owner, who then has the element: repeated until it is not lost, it is lock-free.
// Happens-before: what comes before a push comes before the pop or steal that returns the element. One thread at a time
// is the owner; it may hand that over, by whatever orders the two.
// Cost: push two loads and two stores (2 ns on x86-64), pop a full fence (12 ns), and for the last element and for each
// steal a compare-exchange more.
//
// Why the runtime's queue is another one (runtime/run_queue.hpp): fibers are to run in the order in which they became
// ready, so its owner takes at the other end, where thieves do; a thief takes half of it at once, which a single exchange
// on `top` cannot do while the owner pops without one; it has a slot for the fiber that was woken last; and its owner
// pays no full fence, since the thief makes all threads pass one, with a system call that this layer does not know.
//
// Sources: Chase and Lev, "Dynamic Circular Work-Stealing Deque", SPAA 2005; the memory orders are those of Le, Pop, Cohen
// and Zappa Nardelli, "Correct and Efficient Work-Stealing for Weak Memory Models", PPoPP 2013, figure 1, but that release
// fence and relaxed store are a release store, in pop as well.

CONCUR_NAMESPACE_BEGIN

enum class steal_status : unsigned char {
  stolen,
  empty,  // there was nothing
  lost,   // there was something, but another thief or the owner got it: try again, here or elsewhere
};

template <class T>
struct steal_result {
  steal_status status = steal_status::empty;
  T value{};  // T() unless stolen

  explicit operator bool() const noexcept { return status == steal_status::stolen; }
};

template <class T>
class work_stealing_deque {
  static_assert(std::is_trivially_copyable<T>::value && std::is_default_constructible<T>::value &&
                    sizeof(T) <= sizeof(std::uintptr_t),
                "an element is one word: let it be a pointer to what is larger");

 public:
  // Room for `capacity` elements at least: the next power of two. std::invalid_argument for 0, and for what cannot be
  // rounded. Tests begin near the wrap (V2).
  explicit work_stealing_deque(std::size_t capacity, std::size_t first_index = 0)
      : mask_(round_up(capacity) - 1), slots_(new word[mask_ + 1]), top_(first_index), bottom_(first_index) {}
  work_stealing_deque(const work_stealing_deque&) = delete;
  work_stealing_deque& operator=(const work_stealing_deque&) = delete;
  // What is left is forgotten: elements are words. Nobody else is using the deque.
  ~work_stealing_deque() { delete[] slots_; }

  // --- the owner ---

  // False: it is full, and `element` is not in it.
  bool try_push(T element) noexcept {
    const std::size_t bottom = bottom_.load(std::memory_order_relaxed);  // relaxed: our own
    // acquire: pairs with the exchange of the thief that freed the slot, so that its read of the slot is over before our
    // write. Without it the thief could read what we write now, and win with it: a load that sees a store of its own
    // future, which machines do and no exploration that runs operations in turn can show.
    const std::size_t top = top_.load(std::memory_order_acquire);
    if (bottom - top > mask_) return false;
    slot(bottom).store(to_bits(element), std::memory_order_relaxed);  // relaxed: published by the next store
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(344) ? std::memory_order_relaxed : std::memory_order_release;
    bottom_.store(bottom + 1, order);  // release: publishes the slot, and what the element stands for
    return true;
  }

  // The element that was pushed last; nothing when the deque is empty.
  std::optional<T> try_pop() noexcept {
    const std::size_t bottom = bottom_.load(std::memory_order_relaxed) - 1;  // relaxed: our own
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(345) ? std::memory_order_relaxed : std::memory_order_release;
    bottom_.store(bottom, order);  // release: who sees this store instead of a push's needs what the push published
    CONCUR_PLANTED auto fence_order = CONCUR_MUTANT_IS(346) ? std::memory_order_acq_rel : std::memory_order_seq_cst;
    detail::thread_fence(fence_order);                       // seq_cst: V1, the owner's side
    std::size_t top = top_.load(std::memory_order_relaxed);  // relaxed: behind the fence, and what we take we wrote
    const std::ptrdiff_t left = distance(top, bottom);
    std::optional<T> result;
    if (left >= 0)
      result = of_bits(slot(bottom).load(std::memory_order_relaxed));  // relaxed: our own, or dropped below
    if (left > 0) return result;
    // seq_cst: as in try_steal. relaxed on failure: nothing is read after it.
    if (left == 0 && !CONCUR_MUTANT_IS(349) &&
        !top_.compare_exchange_strong(top, top + 1, std::memory_order_seq_cst, std::memory_order_relaxed))
      result.reset();
    // relaxed: the deque is empty, and no thief takes anything because it sees this store.
    bottom_.store(bottom + 1, std::memory_order_relaxed);
    return result;
  }

  // --- anybody ---

  // One attempt at the oldest element.
  steal_result<T> try_steal() noexcept {
    // acquire: pairs with the exchange below, of others, and with the owner's. By C++20 the fence alone would do; up to
    // C++17 this is what keeps `bottom` from being older than the `top` that is seen.
    std::size_t top = top_.load(std::memory_order_acquire);
    CONCUR_PLANTED auto fence_order = CONCUR_MUTANT_IS(347) ? std::memory_order_acq_rel : std::memory_order_seq_cst;
    detail::thread_fence(fence_order);  // seq_cst: V1, the thief's side
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(348) ? std::memory_order_relaxed : std::memory_order_acquire;
    const std::size_t bottom = bottom_.load(order);  // acquire: pairs with the owner's stores, for slot and element
    if (distance(top, bottom) <= 0) return {};
    const std::uintptr_t bits =
        slot(top).load(std::memory_order_relaxed);  // relaxed: published by `bottom`, or dropped (V4)
    // seq_cst: in one order with the fences, for which C++17 has no other words; the release in it is what the acquire in
    // try_push needs. Who wins is decided by the exchange being one, whatever its order, so a weaker one shows nowhere but
    // on machines that let the load above pass it. relaxed on failure: what was read is dropped.
    if (!top_.compare_exchange_strong(top, top + 1, std::memory_order_seq_cst, std::memory_order_relaxed))
      return {steal_status::lost, T()};
    return {steal_status::stolen, of_bits(bits)};
  }

  // Of the past when they are read; exact for the owner while nobody steals.
  std::size_t size() const noexcept {
    // relaxed: hints. An owner that has just found the last element gone is below top for a moment.
    const std::ptrdiff_t count =
        distance(top_.load(std::memory_order_relaxed), bottom_.load(std::memory_order_relaxed));  // relaxed: as above
    return count > 0 ? static_cast<std::size_t>(count) : 0;
  }
  bool empty() const noexcept { return size() == 0; }
  std::size_t capacity() const noexcept { return mask_ + 1; }

 private:
  // Not atomic<T>: some compilers call a library for a word that consists of smaller ones.
  using word = detail::atomic<std::uintptr_t>;

  static std::uintptr_t to_bits(const T& element) noexcept {
    std::uintptr_t bits = 0;
    std::memcpy(&bits, &element, sizeof element);
    return bits;
  }
  static T of_bits(std::uintptr_t bits) noexcept {
    T element{};
    std::memcpy(static_cast<void*>(&element), &bits, sizeof element);
    return element;
  }
  static std::size_t round_up(std::size_t capacity) {
    constexpr std::size_t capacity_max = ~(~std::size_t{0} >> 1) >> 1;  // so that a difference of indices has a sign
    if (capacity == 0 || capacity > capacity_max) {
      detail::fail_argument("concur::work_stealing_deque", "capacity", std::to_string(capacity),
                            "at least 1, and no more than a quarter of what a pointer can count");
    }
    std::size_t rounded = 1;
    while (rounded < capacity) rounded *= 2;
    return rounded;
  }
  static std::ptrdiff_t distance(std::size_t from, std::size_t to) noexcept {
    return static_cast<std::ptrdiff_t>(to - from);
  }
  word& slot(std::size_t index) noexcept { return slots_[index & mask_]; }

  const std::size_t mask_;
  word* const slots_;
  // Where thieves take. It only grows.
  alignas(detail::cache_line_bytes) detail::atomic<std::size_t> top_;
  // Where the owner pushes; only the owner writes it.
  alignas(detail::cache_line_bytes) detail::atomic<std::size_t> bottom_;
};

CONCUR_NAMESPACE_END

// machine/fence.hpp - a full fence of which the rare side pays all.
//
// Two threads that each write a word and then read the other's need a full fence on both sides, or both may read the
// old value (the store-buffering pattern). Where one side runs a hundred million times a second and the other a
// thousand times, the kernel can make the rare one pay for both: membarrier(PRIVATE_EXPEDITED) makes every running
// thread of this process pass through a full fence. The frequent side then needs to keep only its compiler from
// reordering.
//
//     frequent side                         rare side
//     store mine; light_fence(); load theirs    store mine; heavy_fence(); load theirs
//
//   A1  At least one of the two loads sees the other side's store.
//
// A heavy fence costs 0.4 us with one running thread and about 10 us with two on the machines this was measured on; a
// light one costs nothing. Where membarrier is missing (kernels before 4.14, sandboxes, other systems) both are
// ordinary full fences. Under ThreadSanitizer too, which knows nothing of membarrier.

CONCUR_NAMESPACE_BEGIN
namespace detail {

enum class fence_mode : std::uint32_t { unknown = 0, symmetric = 1, asymmetric = 2 };

// unknown until register_asymmetric_fence has run once in this process; symmetric and asymmetric are final.
inline atomic<fence_mode> process_fence_mode{fence_mode::unknown};

// Asks the kernel. Called when the first runtime starts, before any fence is used; harmless when repeated.
CONCUR_INLINE void register_asymmetric_fence() noexcept;
CONCUR_INLINE void heavy_fence() noexcept;

CONCUR_FORCE_INLINE void light_fence() noexcept {
#if defined(CONCUR_EXPLORE)
  if (driver_or_null() != nullptr) return;  // the asymmetric form is explored: nothing here, all of it in heavy_fence
#endif
#if CONCUR_TSAN || !defined(__linux__)
  thread_fence(std::memory_order_seq_cst);  // seq_cst: this side of A1, where the other is no membarrier
#else
  // relaxed: written once, before the first worker starts.
  if (CONCUR_LIKELY(process_fence_mode.load(std::memory_order_relaxed) == fence_mode::asymmetric)) {
    std::atomic_signal_fence(
        std::memory_order_seq_cst);  // seq_cst: holds the compiler to A1; heavy_fence holds the core
  } else {
    thread_fence(std::memory_order_seq_cst);  // seq_cst: this side of A1
  }
#endif
}

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  if defined(__linux__)
#    include <sys/syscall.h>
#    include <unistd.h>
#  endif

CONCUR_NAMESPACE_BEGIN
namespace detail {

#  if defined(__linux__) && defined(SYS_membarrier) && !CONCUR_TSAN
// From the kernel's membarrier.h, which old cross toolchains do not carry.
inline constexpr int membarrier_private_expedited = 1 << 3;
inline constexpr int membarrier_register_private_expedited = 1 << 4;

CONCUR_INLINE void register_asymmetric_fence() noexcept {
#    if defined(CONCUR_EXPLORE)
  if (driver_or_null() != nullptr) return;  // what is done once in a process is no part of a schedule
#    endif
  // relaxed: the same answer for whoever asks; threads started later see it by their creation.
  if (process_fence_mode.load(std::memory_order_relaxed) != fence_mode::unknown) return;
  const bool registered = syscall(SYS_membarrier, membarrier_register_private_expedited, 0, 0) == 0 &&
                          syscall(SYS_membarrier, membarrier_private_expedited, 0, 0) == 0;
  // relaxed: see above.
  process_fence_mode.store(registered ? fence_mode::asymmetric : fence_mode::symmetric, std::memory_order_relaxed);
}

CONCUR_INLINE void heavy_fence() noexcept {
  if (CONCUR_MUTANT_IS(40)) return;
#    if defined(CONCUR_EXPLORE)
  if (driver* d = driver_or_null()) return d->fence_all();
#    endif
  // relaxed: see register_asymmetric_fence.
  if (process_fence_mode.load(std::memory_order_relaxed) == fence_mode::asymmetric &&
      syscall(SYS_membarrier, membarrier_private_expedited, 0, 0) == 0)
    return;
  thread_fence(std::memory_order_seq_cst);  // seq_cst: the rare side of A1, with light_fence a full one too
}
#  else
CONCUR_INLINE void register_asymmetric_fence() noexcept {
  // relaxed: the value never changes again and orders nothing.
  process_fence_mode.store(fence_mode::symmetric, std::memory_order_relaxed);
}
CONCUR_INLINE void heavy_fence() noexcept {
#    if defined(CONCUR_EXPLORE)
  if (driver* d = driver_or_null()) return d->fence_all();
#    endif
  thread_fence(std::memory_order_seq_cst);  // seq_cst: the rare side of A1
}
#  endif

}  // namespace detail
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES

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

// machine/context/common.hpp - what a stopped context is, and how assembly text is put into a header.
//
// Each processor's file gives four things: switch_context in its inline form, the same as one function in assembly
// (the portable form), the entry thunk on which each context begins, and fpu_control. The thunk and the portable form
// are top-level assembly in a header that many translation units include, so the text must be allowed to occur many
// times:
//
//     .ifndef NAME      the same assembler run may see it twice (g++ -flto joins units before it assembles)
//     comdat, .weak     several objects carry it; the linker keeps one
//     .hidden           a shared object uses its own copy, and the address needs no table
//     name with ABI     two versions of concur in one program never take each other's
//
// The portable form is taken with -DCONCUR_PORTABLE_SWITCH, by all units of a program or by some: contexts stopped by
// either form are resumed by both. CONCUR_BOTH_SWITCHES keeps the inline form and adds the function, to compare them.
//
// .pushsection and .popsection leave the compiler where it was. The stack stays non-executable, because the compiler
// writes the note that says so for the whole unit.

#define CONCUR_CONTEXT_NAME_(abi, role) concur_##abi##_context_##role
#define CONCUR_CONTEXT_NAME(abi, role) CONCUR_CONTEXT_NAME_(abi, role)
#define CONCUR_CONTEXT_ENTRY CONCUR_CONTEXT_NAME(CONCUR_ABI, entry)
#if defined(CONCUR_ARCH_ARM) && defined(__ARM_FP)
// It saves d8-d15: a unit compiled without them must not lend its own to this one.
#  define CONCUR_CONTEXT_SWITCH CONCUR_CONTEXT_NAME(CONCUR_ABI, switch_vfp)
#else
#  define CONCUR_CONTEXT_SWITCH CONCUR_CONTEXT_NAME(CONCUR_ABI, switch)
#endif

// In a function that has both over-aligned locals and alloca() or a variable-length array, clang reaches its locals
// through a "base" register, and does not see that assembly destroys it, whatever the clobber list says. So the inline
// form keeps that one register itself under clang: stored by the one that leaves, loaded on arrival. g++ copes.
#if defined(__clang__)
#  define CONCUR_SAVES_BASE 1
#else
#  define CONCUR_SAVES_BASE 0
#endif

#define CONCUR_ASM_TEXT_(...) #__VA_ARGS__
#define CONCUR_ASM_TEXT(...) CONCUR_ASM_TEXT_(__VA_ARGS__)
// C++ name -> assembler name: Mach-O puts an underscore in front.
#define CONCUR_ASM_NAME(name) CONCUR_ASM_TEXT(__USER_LABEL_PREFIX__) CONCUR_ASM_TEXT(name)

#if defined(__APPLE__)
#  define CONCUR_ASM_LOCAL "L"
#  define CONCUR_ASM_OPEN(name) \
    ".pushsection __TEXT,__text,regular,pure_instructions\n"              \
    ".private_extern " CONCUR_ASM_NAME(name) "\n"                         \
    ".globl " CONCUR_ASM_NAME(name) "\n"                                  \
    ".weak_definition " CONCUR_ASM_NAME(name) "\n"                        \
    ".p2align 4\n"                                                        \
    CONCUR_ASM_NAME(name) ":\n"
#  define CONCUR_ASM_CLOSE(name) ".popsection\n"
#else
// %progbits and %function, not @: on arm @ begins a comment, and % is understood everywhere.
#  define CONCUR_ASM_LOCAL ".L"
#  define CONCUR_ASM_OPEN(name) CONCUR_ASM_OPEN_IN_MODE(name, "")
// `mode` is what the assembler wants to hear directly before the label (ARM or Thumb).
#  define CONCUR_ASM_OPEN_IN_MODE(name, mode) \
    ".ifndef " CONCUR_ASM_NAME(name) "\n"                                                                           \
    ".pushsection .text." CONCUR_ASM_NAME(name) ",\"axG\",%progbits," CONCUR_ASM_NAME(name) ",comdat\n"             \
    ".weak " CONCUR_ASM_NAME(name) "\n"                                                                             \
    ".hidden " CONCUR_ASM_NAME(name) "\n"                                                                           \
    ".type " CONCUR_ASM_NAME(name) ", %function\n"                                                                  \
    ".p2align 4\n"                                                                                                  \
    mode CONCUR_ASM_NAME(name) ":\n"
#  define CONCUR_ASM_CLOSE(name) \
    ".size " CONCUR_ASM_NAME(name) ", . - " CONCUR_ASM_NAME(name) "\n"    \
    ".popsection\n"                                                       \
    ".endif\n"
#endif

CONCUR_NAMESPACE_BEGIN
namespace detail {

// A stopped context. Everything else that it needs lies on its stack. Assembly and the debugger's script know this
// layout.
struct context {
  void* sp;
  void* fp;
  void* pc;
  void* base;  // for units compiled by clang only; see CONCUR_SAVES_BASE
};

static_assert(offsetof(context, sp) == 0 && offsetof(context, fp) == sizeof(void*) &&
                  offsetof(context, pc) == 2 * sizeof(void*) && offsetof(context, base) == 3 * sizeof(void*),
              "the assembly in machine/context/ reads these offsets");

extern "C" {
// Where each context begins: passes the payload to the entry function. Ends every chain of frames and every
// unwinding.
void CONCUR_CONTEXT_ENTRY() __attribute__((visibility("hidden")));
// The portable form of switch_context.
void* CONCUR_CONTEXT_SWITCH(context* from, const context* to, void* payload) noexcept
    __attribute__((visibility("hidden")));
}

// The highest `words` words of a stack, the lowest of them aligned to 16 bytes, as every processor here demands at a
// call.
inline void** top_of_stack(void* low, std::size_t size, std::size_t words) noexcept {
  const std::uintptr_t end = reinterpret_cast<std::uintptr_t>(low) + size;
  const std::uintptr_t sp = (end - words * sizeof(void*)) & ~std::uintptr_t{15};
  return reinterpret_cast<void**>(sp);
}

}  // namespace detail
CONCUR_NAMESPACE_END

// machine/context/aarch64.hpp - the switch on 64-bit ARM (AAPCS64, Linux and Apple).
//
// The protocol of an arrival, shared by both forms and the thunk:
//
//     sp, x29      loaded from the context by the one that leaves
//     x0           the payload
//     x2           the address of the context that goes on
//     the rest     unspecified
//
// x29 is saved by hand, since it is the frame pointer. x18 belongs to the platform on Apple and Android and is an
// ordinary register elsewhere. Naming v0-v31 covers the scalable z registers that contain them; the predicates are
// named where SVE is on. A return address that was signed (PAC) stays valid: the signature depends on the stack
// pointer, and each context comes back to its own.
//
// With branch protection a page may demand that indirect jumps land on a mark. The jump goes through x16 and lands on
// `bti jc`, written as a hint, which is no operation to older processors and needs no newer assembler. FPCR is not
// saved (fpu_control).

#if defined(CONCUR_ARCH_AARCH64)

#  if defined(__ILP32__)
#    error "concur: aarch64 with 32-bit pointers is not written"
#  endif

#  if defined(__APPLE__) || defined(__ANDROID__)
#    define CONCUR_CLOBBER_X18
#  else
#    define CONCUR_CLOBBER_X18 , "x18"
#  endif
#  if defined(__ARM_FP)
#    define CONCUR_CLOBBER_VECTOR                                                                                    \
      , "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", \
          "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31"
#  else
#    define CONCUR_CLOBBER_VECTOR
#  endif
#  if defined(__clang__)
#    define CONCUR_CLOBBER_FFR  // clang does not know the name, and keeps nothing there
#  else
#    define CONCUR_CLOBBER_FFR , "ffr"
#  endif
#  if defined(__ARM_FEATURE_SVE)
#    define CONCUR_CLOBBER_SVE                                                                         \
      , "p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9", "p10", "p11", "p12", "p13", "p14", \
          "p15" CONCUR_CLOBBER_FFR
#  else
#    define CONCUR_CLOBBER_SVE
#  endif

#  if CONCUR_SAVES_BASE
#    define CONCUR_STORE_BASE "str x19, [x1, #24]\n\t"
#    define CONCUR_LOAD_BASE "ldr x19, [x2, #24]\n\t"
#    define CONCUR_CLOBBER_BASE
#  else
#    define CONCUR_STORE_BASE
#    define CONCUR_LOAD_BASE
#    define CONCUR_CLOBBER_BASE , "x19"
#  endif

#  define CONCUR_BTI_JC "hint #38\n"
#  if defined(__ARM_FEATURE_BTI_DEFAULT)
#    define CONCUR_LANDING CONCUR_BTI_JC
#  else
#    define CONCUR_LANDING
#  endif

// clang-format off
asm(CONCUR_ASM_OPEN(CONCUR_CONTEXT_ENTRY)
    ".cfi_startproc\n"
    ".cfi_undefined 30\n"  // the return address: unwinding, backtraces and debuggers end here
    CONCUR_BTI_JC
    "ldr x1, [sp]\n"
    "blr x1\n"
    "brk #0\n"
    ".cfi_endproc\n"
    CONCUR_ASM_CLOSE(CONCUR_CONTEXT_ENTRY));

#  if defined(CONCUR_PORTABLE_SWITCH) || defined(CONCUR_BOTH_SWITCHES)
asm(CONCUR_ASM_OPEN(CONCUR_CONTEXT_SWITCH)
    ".cfi_startproc\n"
    CONCUR_BTI_JC
    "sub sp, sp, #160\n"
    ".cfi_def_cfa_offset 160\n"
    "stp x29, x30, [sp]\n"       ".cfi_offset 29, -160\n" ".cfi_offset 30, -152\n"
    "stp x19, x20, [sp, #16]\n"  ".cfi_offset 19, -144\n" ".cfi_offset 20, -136\n"
    "stp x21, x22, [sp, #32]\n"  ".cfi_offset 21, -128\n" ".cfi_offset 22, -120\n"
    "stp x23, x24, [sp, #48]\n"  ".cfi_offset 23, -112\n" ".cfi_offset 24, -104\n"
    "stp x25, x26, [sp, #64]\n"  ".cfi_offset 25, -96\n"  ".cfi_offset 26, -88\n"
    "stp x27, x28, [sp, #80]\n"  ".cfi_offset 27, -80\n"  ".cfi_offset 28, -72\n"
#    if defined(__ARM_FP)
    "stp d8, d9, [sp, #96]\n"
    "stp d10, d11, [sp, #112]\n"
    "stp d12, d13, [sp, #128]\n"
    "stp d14, d15, [sp, #144]\n"
#    endif
    "adr x3, 1f\n"
    "mov x4, sp\n"
    "stp x4, x29, [x0]\n"
    "str x3, [x0, #16]\n"
    "mov x0, x2\n"
    "mov x2, x1\n"
    "ldp x4, x29, [x2]\n"
    "ldr x16, [x2, #16]\n"
    "mov sp, x4\n"
    "br x16\n"
    "1:\n"
    CONCUR_BTI_JC
#    if defined(__ARM_FP)
    "ldp d8, d9, [sp, #96]\n"
    "ldp d10, d11, [sp, #112]\n"
    "ldp d12, d13, [sp, #128]\n"
    "ldp d14, d15, [sp, #144]\n"
#    endif
    "ldp x27, x28, [sp, #80]\n"
    "ldp x25, x26, [sp, #64]\n"
    "ldp x23, x24, [sp, #48]\n"
    "ldp x21, x22, [sp, #32]\n"
    "ldp x19, x20, [sp, #16]\n"
    "ldp x29, x30, [sp]\n"
    "add sp, sp, #160\n"
    ".cfi_def_cfa_offset 0\n"
    ".cfi_restore 19\n.cfi_restore 20\n.cfi_restore 21\n.cfi_restore 22\n.cfi_restore 23\n.cfi_restore 24\n"
    ".cfi_restore 25\n.cfi_restore 26\n.cfi_restore 27\n.cfi_restore 28\n.cfi_restore 29\n.cfi_restore 30\n"
    "ret\n"
    ".cfi_endproc\n"
    CONCUR_ASM_CLOSE(CONCUR_CONTEXT_SWITCH));
#  endif
// clang-format on

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Stops here, stored in `from`, and goes on at `to`. Returns the payload of whoever later switches to `from`.
#  if defined(CONCUR_PORTABLE_SWITCH)
CONCUR_FORCE_INLINE CONCUR_UNINSTRUMENTED void* switch_context(context& from, const context& to,
                                                               void* payload) noexcept {
  return CONCUR_CONTEXT_SWITCH(&from, &to, payload);
}
#  else
CONCUR_FORCE_INLINE CONCUR_UNINSTRUMENTED void* switch_context(context& from, const context& to,
                                                               void* payload) noexcept {
  register void* value asm("x0") = payload;
  register context* leaving asm("x1") = &from;
  register const context* arriving asm("x2") = &to;
  // clang-format off
  asm volatile(
      "adr x3, " CONCUR_ASM_LOCAL "concur_resume_%=\n\t"
      "mov x4, sp\n\t"
      "stp x4, x29, [x1]\n\t"
      "str x3, [x1, #16]\n\t"
      CONCUR_STORE_BASE
      "ldp x4, x29, [x2]\n\t"
      "ldr x16, [x2, #16]\n\t"
      "mov sp, x4\n\t"
      "br x16\n"
      CONCUR_ASM_LOCAL "concur_resume_%=:\n\t"
      CONCUR_LANDING
      CONCUR_LOAD_BASE
      : "+r"(value), "+r"(leaving), "+r"(arriving)
      :
      : "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16", "x17", "x20",
        "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x30", "cc", "memory"
        CONCUR_CLOBBER_BASE CONCUR_CLOBBER_X18 CONCUR_CLOBBER_VECTOR CONCUR_CLOBBER_SVE);
  // clang-format on
  return value;
}
#  endif

// The first switch to `made` calls entry(payload) on the stack [low, low + size). entry never returns.
inline void prepare_context(context& made, void* low, std::size_t size, void (*entry)(void* payload)) noexcept {
  void** top = top_of_stack(low, size, 2);
  top[0] = reinterpret_cast<void*>(entry);
  top[1] = nullptr;
  made.sp = top;
  made.fp = nullptr;  // a debugger that follows frame pointers stops at zero
  made.base = nullptr;
  made.pc = reinterpret_cast<void*>(&CONCUR_CONTEXT_ENTRY);
}

// Rounding and trap masks: what C's fesetround() and friends set. The default is what a process starts with.
struct fpu_control {
  std::uint64_t fpcr = 0;

  static fpu_control current() noexcept {
    fpu_control now;
#  if defined(__ARM_FP)
    asm volatile("mrs %0, fpcr" : "=r"(now.fpcr));
#  endif
    return now;
  }

  // Compares first: a write waits for the pipeline to drain.
  void apply() const noexcept {
#  if defined(__ARM_FP)
    if (current().fpcr != fpcr) {
      asm volatile("msr fpcr, %0" : : "r"(fpcr));
    }
#  endif
  }

  friend bool operator==(const fpu_control& a, const fpu_control& b) noexcept { return a.fpcr == b.fpcr; }
};

// True when the processor checks returns of this thread against a second stack (guarded control stack), which
// switch_context does not switch: the first return after a switch would kill the process. chkfeat clears bit 0 of x16
// when it is on, and does nothing on processors that have none.
inline bool shadow_stack_is_live() noexcept {
  register std::uint64_t features asm("x16") = 1;
  asm volatile("hint #40" : "+r"(features));  // chkfeat x16
  return features == 0;
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif

// machine/context/arm.hpp - the switch on 32-bit ARM (AAPCS; ARM and Thumb-2 code, hard and soft float).
//
// The protocol of an arrival, shared by both forms and the thunk:
//
//     sp           loaded from the context by the one that leaves
//     r0           the payload
//     r1           the address of the context that goes on, from which it loads its own frame pointer
//     the rest     unspecified
//
// The frame pointer is r11 in ARM code and r7 in Thumb code, and a program may mix both. The one that leaves cannot
// know what the other was compiled as, so here the arriving side loads it. For the same reason the address to go on
// at has its lowest bit set when it is Thumb code, and the jump is bx.
//
// FPSCR is not saved (fpu_control). Thumb-1 (ARMv5 or ARMv6 with -mthumb) cannot name the high registers and is
// refused.

#if defined(CONCUR_ARCH_ARM)

#  if defined(__thumb__) && !defined(__thumb2__)
#    error "concur: Thumb-1 code is not supported; compile with -marm, or for ARMv7 or later"
#  endif
#  if defined(__FDPIC__)
#    error "concur: FDPIC is not supported"
#  endif

#  if defined(__thumb__)
#    define CONCUR_ARM_MODE ".syntax unified\n.thumb\n.thumb_func\n"
#    define CONCUR_ARM_FRAME "r7"
#    define CONCUR_ARM_NO_FRAME "r11"
// adr counts from the program counter rounded down to four, which is only known where the section is aligned to four;
// the compiler is content with two.
#    define CONCUR_ARM_ADDRESS(label) ".p2align 2\n\tadr.w r3, " label "\n\tadd r3, r3, #1\n\t"
#  else
#    define CONCUR_ARM_MODE ".syntax unified\n.arm\n"
#    define CONCUR_ARM_FRAME "r11"
#    define CONCUR_ARM_NO_FRAME "r7"
#    define CONCUR_ARM_ADDRESS(label) "adr r3, " label "\n\t"
#  endif

#  if CONCUR_SAVES_BASE
#    define CONCUR_STORE_BASE "str r6, [r1, #12]\n\t"
#    define CONCUR_LOAD_BASE "ldr r6, [r1, #12]\n\t"
#    define CONCUR_CLOBBER_BASE
#  else
#    define CONCUR_STORE_BASE
#    define CONCUR_LOAD_BASE
#    define CONCUR_CLOBBER_BASE , "r6"
#  endif

// No macro tells whether there are d16-d31, so they are named whenever there may be: naming too many costs nothing.
#  if defined(__ARM_FP)
#    define CONCUR_CLOBBER_VECTOR                                                                                    \
      , "d0", "d1", "d2", "d3", "d4", "d5", "d6", "d7", "d8", "d9", "d10", "d11", "d12", "d13", "d14", "d15", "d16", \
          "d17", "d18", "d19", "d20", "d21", "d22", "d23", "d24", "d25", "d26", "d27", "d28", "d29", "d30", "d31"
#  else
#    define CONCUR_CLOBBER_VECTOR
#  endif

// clang-format off
asm(CONCUR_ASM_OPEN_IN_MODE(CONCUR_CONTEXT_ENTRY, CONCUR_ARM_MODE)
    ".fnstart\n"
    ".cantunwind\n"  // unwinding ends here
    "mov r7, #0\n"   // and so does following frame pointers
    "mov r11, #0\n"
    "ldr r2, [sp]\n"
    "blx r2\n"
    "1: b 1b\n"
    ".fnend\n"
    CONCUR_ASM_CLOSE(CONCUR_CONTEXT_ENTRY));

#  if defined(CONCUR_PORTABLE_SWITCH) || defined(CONCUR_BOTH_SWITCHES)
asm(CONCUR_ASM_OPEN_IN_MODE(CONCUR_CONTEXT_SWITCH, CONCUR_ARM_MODE)
    ".fnstart\n"
    "push {r4-r11, lr}\n"
    ".save {r4-r11, lr}\n"
    "sub sp, sp, #4\n"
    ".pad #4\n"
#    if defined(__ARM_FP)
    "vpush {d8-d15}\n"
    ".vsave {d8-d15}\n"
#    endif
    CONCUR_ARM_ADDRESS("1f")
    "mov r12, sp\n"
    "str r12, [r0]\n"
    "str " CONCUR_ARM_FRAME ", [r0, #4]\n"
    "str r3, [r0, #8]\n"
    "mov r0, r2\n"
    "ldr r12, [r1]\n"
    "ldr r3, [r1, #8]\n"
    "mov sp, r12\n"
    "bx r3\n"
    "1:\n"
#    if defined(__ARM_FP)
    "vpop {d8-d15}\n"
#    endif
    "add sp, sp, #4\n"
    "pop {r4-r11, pc}\n"
    ".fnend\n"
    CONCUR_ASM_CLOSE(CONCUR_CONTEXT_SWITCH));
#  endif
// clang-format on

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Stops here, stored in `from`, and goes on at `to`. Returns the payload of whoever later switches to `from`.
#  if defined(CONCUR_PORTABLE_SWITCH)
CONCUR_FORCE_INLINE CONCUR_UNINSTRUMENTED void* switch_context(context& from, const context& to,
                                                               void* payload) noexcept {
  return CONCUR_CONTEXT_SWITCH(&from, &to, payload);
}
#  else
CONCUR_FORCE_INLINE CONCUR_UNINSTRUMENTED void* switch_context(context& from, const context& to,
                                                               void* payload) noexcept {
  register void* value asm("r0") = payload;
  register context* leaving asm("r1") = &from;
  register const context* arriving asm("r2") = &to;
  // clang-format off
#    if defined(__clang__)
#      pragma clang diagnostic push
#      pragma clang diagnostic ignored "-Winline-asm"  // d16-d31 on a processor without them
#    endif
  asm volatile(
      CONCUR_ARM_ADDRESS(".Lconcur_resume_%=")
      "mov r12, sp\n\t"
      "str r12, [r1]\n\t"
      "str " CONCUR_ARM_FRAME ", [r1, #4]\n\t"
      "str r3, [r1, #8]\n\t"
      CONCUR_STORE_BASE
      "mov r1, r2\n\t"
      "ldr r12, [r1]\n\t"
      "ldr r3, [r1, #8]\n\t"
      "mov sp, r12\n\t"
      "bx r3\n"
      ".Lconcur_resume_%=:\n\t"
      "ldr " CONCUR_ARM_FRAME ", [r1, #4]\n\t"
      CONCUR_LOAD_BASE
      : "+r"(value), "+r"(leaving), "+r"(arriving)
      :
      : "r3", "r4", "r5", CONCUR_ARM_NO_FRAME, "r8", "r9", "r10", "r12", "lr", "cc", "memory"
        CONCUR_CLOBBER_BASE CONCUR_CLOBBER_VECTOR);
#    if defined(__clang__)
#      pragma clang diagnostic pop
#    endif
  // clang-format on
  return value;
}
#  endif

// The first switch to `made` calls entry(payload) on the stack [low, low + size). entry never returns.
inline void prepare_context(context& made, void* low, std::size_t size, void (*entry)(void* payload)) noexcept {
  void** top = top_of_stack(low, size, 2);
  top[0] = reinterpret_cast<void*>(entry);
  top[1] = nullptr;
  made.sp = top;
  made.fp = nullptr;
  made.base = nullptr;
  made.pc = reinterpret_cast<void*>(&CONCUR_CONTEXT_ENTRY);
}

// Rounding, flush to zero and trap masks. The default is what a process starts with.
struct fpu_control {
  std::uint32_t fpscr = 0;

  // The other bits of FPSCR are condition flags and sticky flags.
  static constexpr std::uint32_t fpscr_mask = 0x07f79f00;

  static fpu_control current() noexcept {
    fpu_control now;
#  if defined(__ARM_FP)
    asm volatile("vmrs %0, fpscr" : "=r"(now.fpscr));
#  endif
    return now;
  }

  void apply() const noexcept {
#  if defined(__ARM_FP)
    const std::uint32_t now = current().fpscr;
    if (((now ^ fpscr) & fpscr_mask) != 0) {
      const std::uint32_t wanted = (fpscr & fpscr_mask) | (now & ~fpscr_mask);
      asm volatile("vmsr fpscr, %0" : : "r"(wanted));
    }
#  endif
  }

  friend bool operator==(const fpu_control& a, const fpu_control& b) noexcept {
    return ((a.fpscr ^ b.fpscr) & fpscr_mask) == 0;
  }
};

// No 32-bit ARM processor has a shadow stack.
inline bool shadow_stack_is_live() noexcept { return false; }

}  // namespace detail
CONCUR_NAMESPACE_END

#endif

// machine/context/i386.hpp - the switch on 32-bit x86 (System V).
//
// The protocol of an arrival, shared by both forms and the thunk:
//
//     esp, ebp     loaded from the context by the one that leaves
//     eax          the payload
//     ecx          the address of the context that goes on
//     the rest     unspecified
//
// It differs from x86-64 in one point. There is no address relative to the program counter, so the place to go on at
// is found by a call of three bytes that reads its own return address: a call with its return, which keeps the
// predictor of returns in step, where the usual call-and-pop would not. There is no red zone either, so the call may
// use the stack.
//
// Doubles live in the x87 registers here; they are clobbered as all others are. Assembly outside functions is spelled
// as bytes where the AT&T and Intel dialects differ (machine/context/x86_64.hpp says why).

#if defined(CONCUR_ARCH_I386)

#  if defined(__SSE__)
#    define CONCUR_CLOBBER_SSE , "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7"
#  else
#    define CONCUR_CLOBBER_SSE
#  endif
#  if defined(__AVX512F__)
#    define CONCUR_CLOBBER_AVX512 , "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"
#  else
#    define CONCUR_CLOBBER_AVX512
#  endif
// _SOFT_FLOAT: g++ was told to keep off the x87 (-mno-80387, -mgeneral-regs-only), and then refuses these names.
#  if defined(_SOFT_FLOAT)
#    define CONCUR_CLOBBER_X87
#  else
#    define CONCUR_CLOBBER_X87 , "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)"
#  endif
#  if defined(__MMX__)
#    define CONCUR_CLOBBER_MMX , "mm0", "mm1", "mm2", "mm3", "mm4", "mm5", "mm6", "mm7"
#  else
#    define CONCUR_CLOBBER_MMX
#  endif

#  if CONCUR_SAVES_BASE
#    define CONCUR_STORE_BASE "{movl %%esi, 12(%%edi)|mov DWORD PTR [edi + 12], esi}\n\t"
#    define CONCUR_LOAD_BASE "{movl 12(%%ecx), %%esi|mov esi, DWORD PTR [ecx + 12]}\n\t"
#    define CONCUR_CLOBBER_BASE
#  else
#    define CONCUR_STORE_BASE
#    define CONCUR_LOAD_BASE
#    define CONCUR_CLOBBER_BASE , "esi"
#  endif

// Where an indirect jump lands must be marked once the program promises so (-fcf-protection=branch).
#  if defined(__CET__) && (__CET__ & 1)
#    define CONCUR_LANDING "endbr32\n\t"
#  else
#    define CONCUR_LANDING
#  endif

#  define CONCUR_CONTEXT_HERE CONCUR_CONTEXT_NAME(CONCUR_ABI, here)

// clang-format off
asm(CONCUR_ASM_OPEN(CONCUR_CONTEXT_ENTRY)
    ".cfi_startproc\n"
    ".cfi_undefined 8\n"              // the return address: unwinding, backtraces and debuggers end here
    ".byte 0xf3, 0x0f, 0x1e, 0xfb\n"  // endbr32
    ".byte 0x89, 0x04, 0x24\n"        // mov %eax, (%esp)
    ".byte 0xff, 0x54, 0x24, 0x04\n"  // call *4(%esp)
    ".byte 0x0f, 0x0b\n"              // ud2
    ".cfi_endproc\n"
    CONCUR_ASM_CLOSE(CONCUR_CONTEXT_ENTRY));

// Returns its return address in edx.
asm(CONCUR_ASM_OPEN(CONCUR_CONTEXT_HERE)
    ".cfi_startproc\n"
    ".byte 0x8b, 0x14, 0x24\n"        // mov (%esp), %edx
    ".byte 0xc3\n"                    // ret
    ".cfi_endproc\n"
    CONCUR_ASM_CLOSE(CONCUR_CONTEXT_HERE));

#  if defined(CONCUR_PORTABLE_SWITCH) || defined(CONCUR_BOTH_SWITCHES)
asm(CONCUR_ASM_OPEN(CONCUR_CONTEXT_SWITCH)
    ".cfi_startproc\n"
    ".byte 0xf3, 0x0f, 0x1e, 0xfb\n"                     // endbr32
    "call " CONCUR_ASM_NAME(CONCUR_CONTEXT_HERE) "\n"
    "2: .byte 0x81, 0xc2\n .long 1f - 2b\n"              // add $(1f - 2b), %edx
    ".byte 0x8b, 0x44, 0x24, 0x04\n"                     // mov 4(%esp), %eax
    ".byte 0x8b, 0x4c, 0x24, 0x08\n"                     // mov 8(%esp), %ecx
    ".byte 0x53\n" ".cfi_def_cfa_offset 8\n"  ".cfi_offset 3, -8\n"   // push %ebx
    ".byte 0x56\n" ".cfi_def_cfa_offset 12\n" ".cfi_offset 6, -12\n"  // push %esi
    ".byte 0x57\n" ".cfi_def_cfa_offset 16\n" ".cfi_offset 7, -16\n"  // push %edi
    ".byte 0x89, 0x20\n"                                 // mov %esp, (%eax)
    ".byte 0x89, 0x68, 0x04\n"                           // mov %ebp, 4(%eax)
    ".byte 0x89, 0x50, 0x08\n"                           // mov %edx, 8(%eax)
    ".byte 0x8b, 0x44, 0x24, 0x18\n"                     // mov 24(%esp), %eax
    ".byte 0x8b, 0x21\n"                                 // mov (%ecx), %esp
    ".byte 0x8b, 0x69, 0x04\n"                           // mov 4(%ecx), %ebp
    ".byte 0xff, 0x61, 0x08\n"                           // jmp *8(%ecx)
    "1: .byte 0xf3, 0x0f, 0x1e, 0xfb\n"                  // endbr32
    ".byte 0x5f\n" ".cfi_def_cfa_offset 12\n" ".cfi_restore 7\n"      // pop %edi
    ".byte 0x5e\n" ".cfi_def_cfa_offset 8\n"  ".cfi_restore 6\n"      // pop %esi
    ".byte 0x5b\n" ".cfi_def_cfa_offset 4\n"  ".cfi_restore 3\n"      // pop %ebx
    ".byte 0xc3\n"                                       // ret
    ".cfi_endproc\n"
    CONCUR_ASM_CLOSE(CONCUR_CONTEXT_SWITCH));
#  endif
// clang-format on

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Stops here, stored in `from`, and goes on at `to`. Returns the payload of whoever later switches to `from`.
#  if defined(CONCUR_PORTABLE_SWITCH)
CONCUR_FORCE_INLINE CONCUR_UNINSTRUMENTED void* switch_context(context& from, const context& to,
                                                               void* payload) noexcept {
  return CONCUR_CONTEXT_SWITCH(&from, &to, payload);
}
#  else
CONCUR_FORCE_INLINE CONCUR_UNINSTRUMENTED void* switch_context(context& from, const context& to,
                                                               void* payload) noexcept {
  context* leaving = &from;
  const context* arriving = &to;
  // clang-format off
  asm volatile(
      "call " CONCUR_ASM_NAME(CONCUR_CONTEXT_HERE) "\n"
      ".Lconcur_here_%=:\n\t"
      ".byte 0x81, 0xc2\n\t.long .Lconcur_resume_%= - .Lconcur_here_%=\n\t"  // add $(resume - here), %edx
      "{movl %%esp, (%%edi)|mov DWORD PTR [edi], esp}\n\t"
      "{movl %%ebp, 4(%%edi)|mov DWORD PTR [edi + 4], ebp}\n\t"
      "{movl %%edx, 8(%%edi)|mov DWORD PTR [edi + 8], edx}\n\t"
      CONCUR_STORE_BASE
      "{movl (%%ecx), %%esp|mov esp, DWORD PTR [ecx]}\n\t"
      "{movl 4(%%ecx), %%ebp|mov ebp, DWORD PTR [ecx + 4]}\n\t"
      "{jmpl *8(%%ecx)|jmp DWORD PTR [ecx + 8]}\n"
      ".Lconcur_resume_%=:\n\t"
      CONCUR_LANDING
      CONCUR_LOAD_BASE
      : "+a"(payload), "+D"(leaving), "+c"(arriving)
      :
      : "ebx", "edx", "cc", "memory"
        CONCUR_CLOBBER_BASE CONCUR_CLOBBER_X87 CONCUR_CLOBBER_MMX CONCUR_CLOBBER_SSE CONCUR_CLOBBER_AVX512);
  // clang-format on
  return payload;
}
#  endif

// The first switch to `made` calls entry(payload) on the stack [low, low + size). entry never returns.
inline void prepare_context(context& made, void* low, std::size_t size, void (*entry)(void* payload)) noexcept {
  void** top = top_of_stack(low, size, 4);
  top[0] = nullptr;  // the argument goes here
  top[1] = reinterpret_cast<void*>(entry);
  top[2] = nullptr;
  top[3] = nullptr;
  made.sp = top;
  made.fp = nullptr;  // a debugger that follows frame pointers stops at zero
  made.base = nullptr;
  made.pc = reinterpret_cast<void*>(&CONCUR_CONTEXT_ENTRY);
}

// Rounding, exception masks and precision: what C's fesetround() and friends set. The default is what a process
// starts with.
struct fpu_control {
  std::uint32_t mxcsr = 0x1f80;
  std::uint16_t x87 = 0x037f;

  // The low six bits of MXCSR are sticky flags, which any inexact operation sets. They are no control.
  static constexpr std::uint32_t mxcsr_mask = ~std::uint32_t{0x3f};

  static fpu_control current() noexcept {
    fpu_control now;
#  if defined(__SSE__)
    asm volatile("stmxcsr %0" : "=m"(now.mxcsr));
#  endif
    asm volatile("fnstcw %0" : "=m"(now.x87));
    return now;
  }

  // Compares first: loading costs more than tenfold what reading does.
  void apply() const noexcept {
    const fpu_control now = current();
#  if defined(__SSE__)
    if (((now.mxcsr ^ mxcsr) & mxcsr_mask) != 0) {
      const std::uint32_t wanted = (mxcsr & mxcsr_mask) | (now.mxcsr & ~mxcsr_mask);
      asm volatile("ldmxcsr %0" : : "m"(wanted));
    }
#  endif
    if (now.x87 != x87) {
      asm volatile("fldcw %0" : : "m"(x87));
    }
  }

  friend bool operator==(const fpu_control& a, const fpu_control& b) noexcept {
    return ((a.mxcsr ^ b.mxcsr) & mxcsr_mask) == 0 && a.x87 == b.x87;
  }
};

// True when the processor checks returns of this thread against a second stack, which switch_context does not switch:
// the first return after a switch would kill the process. rdsspd does nothing on a thread that has none.
inline bool shadow_stack_is_live() noexcept {
  std::uintptr_t pointer = 0;
  asm volatile(".byte 0xf3, 0x0f, 0x1e, 0xc8" : "+a"(pointer));  // rdsspd %eax
  return pointer != 0;
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif

// machine/context/riscv64.hpp - the switch on 64-bit RISC-V (lp64 and lp64d).
//
// The protocol of an arrival, shared by both forms and the thunk:
//
//     sp, s0       loaded from the context by the one that leaves
//     a0           the payload
//     a2           the address of the context that goes on
//     the rest     unspecified
//
// The jump goes through t1: a jump through ra or t0 counts as a return for the branch predictor. gp and tp belong to
// the program and the thread and are left alone. fcsr is not saved (fpu_control).

#if defined(CONCUR_ARCH_RISCV64)

#  if defined(__riscv_zicfilp) || defined(__riscv_zicfiss)
#    error "concur: landing pads and shadow stacks of RISC-V are not written; compile without -fcf-protection"
#  endif

#  if defined(__riscv_flen)
#    define CONCUR_CLOBBER_FLOAT                                                                                     \
      , "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1", "fa0", "fa1", "fa2", "fa3", "fa4",     \
          "fa5", "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8", "ft9", \
          "ft10", "ft11"
#  else
#    define CONCUR_CLOBBER_FLOAT
#  endif
#  if defined(__clang__)
#    define CONCUR_CLOBBER_VECTOR_LENGTH  // clang sets both anew after any assembly
#  else
#    define CONCUR_CLOBBER_VECTOR_LENGTH , "vl", "vtype"
#  endif
#  if defined(__riscv_vector)
#    define CONCUR_CLOBBER_VECTOR                                                                                    \
      , "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", \
          "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30",          \
          "v31" CONCUR_CLOBBER_VECTOR_LENGTH
#  else
#    define CONCUR_CLOBBER_VECTOR
#  endif

#  if CONCUR_SAVES_BASE
#    define CONCUR_STORE_BASE "sd s1, 24(a1)\n\t"
#    define CONCUR_LOAD_BASE "ld s1, 24(a2)\n\t"
#    define CONCUR_CLOBBER_BASE
#  else
#    define CONCUR_STORE_BASE
#    define CONCUR_LOAD_BASE
#    define CONCUR_CLOBBER_BASE , "s1"
#  endif

// clang-format off
asm(CONCUR_ASM_OPEN(CONCUR_CONTEXT_ENTRY)
    ".cfi_startproc\n"
    ".cfi_undefined 1\n"  // ra: unwinding, backtraces and debuggers end here
    "ld t1, 0(sp)\n"
    "jalr t1\n"
    "ebreak\n"
    ".cfi_endproc\n"
    CONCUR_ASM_CLOSE(CONCUR_CONTEXT_ENTRY));

#  if defined(CONCUR_PORTABLE_SWITCH) || defined(CONCUR_BOTH_SWITCHES)
asm(CONCUR_ASM_OPEN(CONCUR_CONTEXT_SWITCH)
    ".cfi_startproc\n"
    "addi sp, sp, -208\n"
    ".cfi_def_cfa_offset 208\n"
    "sd ra, 200(sp)\n"  ".cfi_offset 1, -8\n"
    "sd s0, 192(sp)\n"  ".cfi_offset 8, -16\n"
    "sd s1, 184(sp)\n"  ".cfi_offset 9, -24\n"
    "sd s2, 176(sp)\n"  ".cfi_offset 18, -32\n"
    "sd s3, 168(sp)\n"  ".cfi_offset 19, -40\n"
    "sd s4, 160(sp)\n"  ".cfi_offset 20, -48\n"
    "sd s5, 152(sp)\n"  ".cfi_offset 21, -56\n"
    "sd s6, 144(sp)\n"  ".cfi_offset 22, -64\n"
    "sd s7, 136(sp)\n"  ".cfi_offset 23, -72\n"
    "sd s8, 128(sp)\n"  ".cfi_offset 24, -80\n"
    "sd s9, 120(sp)\n"  ".cfi_offset 25, -88\n"
    "sd s10, 112(sp)\n" ".cfi_offset 26, -96\n"
    "sd s11, 104(sp)\n" ".cfi_offset 27, -104\n"
#    if defined(__riscv_flen)
    "fsd fs0, 96(sp)\n fsd fs1, 88(sp)\n fsd fs2, 80(sp)\n fsd fs3, 72(sp)\n"
    "fsd fs4, 64(sp)\n fsd fs5, 56(sp)\n fsd fs6, 48(sp)\n fsd fs7, 40(sp)\n"
    "fsd fs8, 32(sp)\n fsd fs9, 24(sp)\n fsd fs10, 16(sp)\n fsd fs11, 8(sp)\n"
#    endif
    "lla t1, 1f\n"
    "sd sp, 0(a0)\n"
    "sd s0, 8(a0)\n"
    "sd t1, 16(a0)\n"
    "mv a0, a2\n"
    "mv a2, a1\n"
    "ld sp, 0(a2)\n"
    "ld s0, 8(a2)\n"
    "ld t1, 16(a2)\n"
    "jr t1\n"
    "1:\n"
#    if defined(__riscv_flen)
    "fld fs0, 96(sp)\n fld fs1, 88(sp)\n fld fs2, 80(sp)\n fld fs3, 72(sp)\n"
    "fld fs4, 64(sp)\n fld fs5, 56(sp)\n fld fs6, 48(sp)\n fld fs7, 40(sp)\n"
    "fld fs8, 32(sp)\n fld fs9, 24(sp)\n fld fs10, 16(sp)\n fld fs11, 8(sp)\n"
#    endif
    "ld ra, 200(sp)\n ld s0, 192(sp)\n ld s1, 184(sp)\n ld s2, 176(sp)\n ld s3, 168(sp)\n ld s4, 160(sp)\n"
    "ld s5, 152(sp)\n ld s6, 144(sp)\n ld s7, 136(sp)\n ld s8, 128(sp)\n ld s9, 120(sp)\n ld s10, 112(sp)\n"
    "ld s11, 104(sp)\n"
    "addi sp, sp, 208\n"
    ".cfi_def_cfa_offset 0\n"
    ".cfi_restore 1\n.cfi_restore 8\n.cfi_restore 9\n.cfi_restore 18\n.cfi_restore 19\n.cfi_restore 20\n"
    ".cfi_restore 21\n.cfi_restore 22\n.cfi_restore 23\n.cfi_restore 24\n.cfi_restore 25\n.cfi_restore 26\n"
    ".cfi_restore 27\n"
    "ret\n"
    ".cfi_endproc\n"
    CONCUR_ASM_CLOSE(CONCUR_CONTEXT_SWITCH));
#  endif
// clang-format on

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Stops here, stored in `from`, and goes on at `to`. Returns the payload of whoever later switches to `from`.
#  if defined(CONCUR_PORTABLE_SWITCH)
CONCUR_FORCE_INLINE CONCUR_UNINSTRUMENTED void* switch_context(context& from, const context& to,
                                                               void* payload) noexcept {
  return CONCUR_CONTEXT_SWITCH(&from, &to, payload);
}
#  else
CONCUR_FORCE_INLINE CONCUR_UNINSTRUMENTED void* switch_context(context& from, const context& to,
                                                               void* payload) noexcept {
  register void* value asm("a0") = payload;
  register context* leaving asm("a1") = &from;
  register const context* arriving asm("a2") = &to;
  // clang-format off
  asm volatile(
      "lla t1, .Lconcur_resume_%=\n\t"
      "sd sp, 0(a1)\n\t"
      "sd s0, 8(a1)\n\t"
      "sd t1, 16(a1)\n\t"
      CONCUR_STORE_BASE
      "ld sp, 0(a2)\n\t"
      "ld s0, 8(a2)\n\t"
      "ld t1, 16(a2)\n\t"
      "jr t1\n"
      ".Lconcur_resume_%=:\n\t"
      CONCUR_LOAD_BASE
      : "+r"(value), "+r"(leaving), "+r"(arriving)
      :
      : "ra", "t0", "t1", "t2", "t3", "t4", "t5", "t6", "a3", "a4", "a5", "a6", "a7", "s2", "s3", "s4", "s5", "s6",
        "s7", "s8", "s9", "s10", "s11", "memory"
        CONCUR_CLOBBER_BASE CONCUR_CLOBBER_FLOAT CONCUR_CLOBBER_VECTOR);
  // clang-format on
  return value;
}
#  endif

// The first switch to `made` calls entry(payload) on the stack [low, low + size). entry never returns.
inline void prepare_context(context& made, void* low, std::size_t size, void (*entry)(void* payload)) noexcept {
  void** top = top_of_stack(low, size, 2);
  top[0] = reinterpret_cast<void*>(entry);
  top[1] = nullptr;
  made.sp = top;
  made.fp = nullptr;  // a debugger that follows frame pointers stops at zero
  made.base = nullptr;
  made.pc = reinterpret_cast<void*>(&CONCUR_CONTEXT_ENTRY);
}

// The rounding mode: what C's fesetround() sets. The default is what a process starts with.
struct fpu_control {
  unsigned long rounding = 0;

  static fpu_control current() noexcept {
    fpu_control now;
#  if defined(__riscv_flen)
    asm volatile("frrm %0" : "=r"(now.rounding));
#  endif
    return now;
  }

  void apply() const noexcept {
#  if defined(__riscv_flen)
    if (current().rounding != rounding) {
      asm volatile("fsrm %0" : : "r"(rounding));
    }
#  endif
  }

  friend bool operator==(const fpu_control& a, const fpu_control& b) noexcept { return a.rounding == b.rounding; }
};

// Programs with a shadow stack are refused by the compiler check above.
inline bool shadow_stack_is_live() noexcept { return false; }

}  // namespace detail
CONCUR_NAMESPACE_END

#endif

// machine/context/x86_64.hpp - the switch on x86-64 (System V).
//
// The protocol of an arrival, shared by both forms and the thunk, so that objects built with either may meet:
//
//     rsp, rbp     loaded from the context by the one that leaves
//     rax          the payload
//     rsi          the address of the context that goes on
//     the rest     unspecified
//
// The inline form is one asm statement that lists every other register as clobbered. The compiler then saves just
// what is alive at this place, often nothing, where a function would save six registers always. It jumps instead of
// returning, because a return to another address than its call's is mispredicted, and so are those that follow.
// Inlined into each place that parks, each place has its own jump, and the branch predictor a history for each.
//
// rbp is saved by hand: it may not be named as clobbered while it is the frame pointer. Nothing is pushed, since a
// leaf function keeps locals in the 128 bytes below rsp. Not saved: MXCSR and the x87 control word (fpu_control), and
// fs, which belongs to the thread.
//
// Text inside a function is written in both dialects, {AT&T|Intel}, for -masm=intel. Outside functions the compilers
// do not choose between the two, so instructions there are spelled as bytes where the dialects differ, the
// instruction beside them.

#if defined(CONCUR_ARCH_X86_64)

#  if defined(__SSE__)
#    define CONCUR_CLOBBER_SSE                                                                                     \
      , "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", \
          "xmm13", "xmm14", "xmm15"
#  else
#    define CONCUR_CLOBBER_SSE
#  endif
#  if defined(__AVX512F__)
#    define CONCUR_CLOBBER_AVX512                                                                                   \
      , "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", \
          "xmm28", "xmm29", "xmm30", "xmm31", "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"
#  else
#    define CONCUR_CLOBBER_AVX512
#  endif
#  if defined(__APX_F__)
#    define CONCUR_CLOBBER_APX \
      , "r16", "r17", "r18", "r19", "r20", "r21", "r22", "r23", "r24", "r25", "r26", "r27", "r28", "r29", "r30", "r31"
#  else
#    define CONCUR_CLOBBER_APX
#  endif
// _SOFT_FLOAT: g++ was told to keep off the x87 (-mno-80387, -mgeneral-regs-only), and then refuses these names.
#  if defined(_SOFT_FLOAT)
#    define CONCUR_CLOBBER_X87
#  else
#    define CONCUR_CLOBBER_X87 , "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)"
#  endif
#  if defined(__MMX__)
#    define CONCUR_CLOBBER_MMX , "mm0", "mm1", "mm2", "mm3", "mm4", "mm5", "mm6", "mm7"
#  else
#    define CONCUR_CLOBBER_MMX
#  endif

#  if CONCUR_SAVES_BASE
#    define CONCUR_STORE_BASE "{movq %%rbx, 24(%%rdi)|mov QWORD PTR [rdi + 24], rbx}\n\t"
#    define CONCUR_LOAD_BASE "{movq 24(%%rsi), %%rbx|mov rbx, QWORD PTR [rsi + 24]}\n\t"
#    define CONCUR_CLOBBER_BASE
#  else
#    define CONCUR_STORE_BASE
#    define CONCUR_LOAD_BASE
#    define CONCUR_CLOBBER_BASE , "rbx"
#  endif

// Where an indirect jump lands must be marked once the program promises so (-fcf-protection=branch).
#  if defined(__CET__) && (__CET__ & 1)
#    define CONCUR_LANDING "endbr64\n\t"
#  else
#    define CONCUR_LANDING
#  endif

// The entry function is jumped to, with its return address written by hand, where a call would do: it never returns, and the
// processor's own stack of return addresses would keep what the call put there. All returns of the context that is switched
// to from there would then be predicted wrong.
// clang-format off
asm(CONCUR_ASM_OPEN(CONCUR_CONTEXT_ENTRY)
    ".cfi_startproc\n"
    ".cfi_undefined 16\n"            // the return address: unwinding, backtraces and debuggers end here
    ".byte 0xf3, 0x0f, 0x1e, 0xfa\n" // endbr64
    ".byte 0x48, 0x89, 0xc7\n"       // mov %rax, %rdi
    ".byte 0x58\n"                   // pop %rax
    ".byte 0x48, 0x8d, 0x15\n .long 1f - . - 4\n"  // lea 1f(%rip), %rdx
    ".byte 0x48, 0x89, 0x14, 0x24\n" // mov %rdx, (%rsp)
    ".byte 0xff, 0xe0\n"             // jmp *%rax
    "1: .byte 0x0f, 0x0b\n"          // ud2
    ".cfi_endproc\n"
    CONCUR_ASM_CLOSE(CONCUR_CONTEXT_ENTRY));

#  if defined(CONCUR_PORTABLE_SWITCH) || defined(CONCUR_BOTH_SWITCHES)
asm(CONCUR_ASM_OPEN(CONCUR_CONTEXT_SWITCH)
    ".cfi_startproc\n"
    ".byte 0xf3, 0x0f, 0x1e, 0xfa\n"                      // endbr64
    ".byte 0x53\n"       ".cfi_def_cfa_offset 16\n" ".cfi_offset 3, -16\n"   // push %rbx
    ".byte 0x41, 0x54\n" ".cfi_def_cfa_offset 24\n" ".cfi_offset 12, -24\n"  // push %r12
    ".byte 0x41, 0x55\n" ".cfi_def_cfa_offset 32\n" ".cfi_offset 13, -32\n"  // push %r13
    ".byte 0x41, 0x56\n" ".cfi_def_cfa_offset 40\n" ".cfi_offset 14, -40\n"  // push %r14
    ".byte 0x41, 0x57\n" ".cfi_def_cfa_offset 48\n" ".cfi_offset 15, -48\n"  // push %r15
    ".byte 0x48, 0x8d, 0x05\n .long 1f - . - 4\n"         // lea 1f(%rip), %rax
    ".byte 0x48, 0x89, 0x27\n"                            // mov %rsp, (%rdi)
    ".byte 0x48, 0x89, 0x6f, 0x08\n"                      // mov %rbp, 8(%rdi)
    ".byte 0x48, 0x89, 0x47, 0x10\n"                      // mov %rax, 16(%rdi)
    ".byte 0x48, 0x89, 0xd0\n"                            // mov %rdx, %rax
    ".byte 0x48, 0x8b, 0x26\n"                            // mov (%rsi), %rsp
    ".byte 0x48, 0x8b, 0x6e, 0x08\n"                      // mov 8(%rsi), %rbp
    ".byte 0xff, 0x66, 0x10\n"                            // jmp *16(%rsi)
    "1: .byte 0xf3, 0x0f, 0x1e, 0xfa\n"                   // endbr64
    ".byte 0x41, 0x5f\n" ".cfi_def_cfa_offset 40\n" ".cfi_restore 15\n"      // pop %r15
    ".byte 0x41, 0x5e\n" ".cfi_def_cfa_offset 32\n" ".cfi_restore 14\n"      // pop %r14
    ".byte 0x41, 0x5d\n" ".cfi_def_cfa_offset 24\n" ".cfi_restore 13\n"      // pop %r13
    ".byte 0x41, 0x5c\n" ".cfi_def_cfa_offset 16\n" ".cfi_restore 12\n"      // pop %r12
    ".byte 0x5b\n"       ".cfi_def_cfa_offset 8\n"  ".cfi_restore 3\n"       // pop %rbx
    ".byte 0xc3\n"                                        // ret
    ".cfi_endproc\n"
    CONCUR_ASM_CLOSE(CONCUR_CONTEXT_SWITCH));
#  endif
// clang-format on

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Stops here, stored in `from`, and goes on at `to`. Returns the payload of whoever later switches to `from`.
#  if defined(CONCUR_PORTABLE_SWITCH)
CONCUR_FORCE_INLINE CONCUR_UNINSTRUMENTED void* switch_context(context& from, const context& to,
                                                               void* payload) noexcept {
  return CONCUR_CONTEXT_SWITCH(&from, &to, payload);
}
#  else
CONCUR_FORCE_INLINE CONCUR_UNINSTRUMENTED void* switch_context(context& from, const context& to,
                                                               void* payload) noexcept {
  context* leaving = &from;
  const context* arriving = &to;
  // clang-format off
  asm volatile(
      "{leaq " CONCUR_ASM_LOCAL "concur_resume_%=(%%rip), %%rdx|lea rdx, " CONCUR_ASM_LOCAL "concur_resume_%=[rip]}\n\t"
      "{movq %%rsp, (%%rdi)|mov QWORD PTR [rdi], rsp}\n\t"
      "{movq %%rbp, 8(%%rdi)|mov QWORD PTR [rdi + 8], rbp}\n\t"
      "{movq %%rdx, 16(%%rdi)|mov QWORD PTR [rdi + 16], rdx}\n\t"
      CONCUR_STORE_BASE
      "{movq (%%rsi), %%rsp|mov rsp, QWORD PTR [rsi]}\n\t"
      "{movq 8(%%rsi), %%rbp|mov rbp, QWORD PTR [rsi + 8]}\n\t"
      "{jmpq *16(%%rsi)|jmp QWORD PTR [rsi + 16]}\n"
      CONCUR_ASM_LOCAL "concur_resume_%=:\n\t"
      CONCUR_LANDING
      CONCUR_LOAD_BASE
      : "+a"(payload), "+D"(leaving), "+S"(arriving)
      :
      : "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cc", "memory"
        CONCUR_CLOBBER_BASE CONCUR_CLOBBER_X87 CONCUR_CLOBBER_MMX CONCUR_CLOBBER_SSE CONCUR_CLOBBER_AVX512
        CONCUR_CLOBBER_APX);
  // clang-format on
  return payload;
}
#  endif

// The first switch to `made` calls entry(payload) on the stack [low, low + size). entry never returns.
inline void prepare_context(context& made, void* low, std::size_t size, void (*entry)(void* payload)) noexcept {
  void** top = top_of_stack(low, size, 2);
  top[0] = reinterpret_cast<void*>(entry);
  top[1] = nullptr;
  made.sp = top;
  made.fp = nullptr;  // a debugger that follows frame pointers stops at zero
  made.base = nullptr;
  made.pc = reinterpret_cast<void*>(&CONCUR_CONTEXT_ENTRY);
}

// Rounding, exception masks and precision: what C's fesetround() and friends set. The default is what a process
// starts with.
struct fpu_control {
  std::uint32_t mxcsr = 0x1f80;
  std::uint16_t x87 = 0x037f;

  // The low six bits of MXCSR are sticky flags, which any inexact operation sets. They are no control.
  static constexpr std::uint32_t mxcsr_mask = ~std::uint32_t{0x3f};

  static fpu_control current() noexcept {
    fpu_control now;
#  if defined(__SSE__)
    asm volatile("{stmxcsr %0|stmxcsr %0}" : "=m"(now.mxcsr));
#  endif
    asm volatile("{fnstcw %0|fnstcw %0}" : "=m"(now.x87));
    return now;
  }

  // Compares first: loading costs more than tenfold what reading does.
  void apply() const noexcept {
    const fpu_control now = current();
#  if defined(__SSE__)
    if (((now.mxcsr ^ mxcsr) & mxcsr_mask) != 0) {
      const std::uint32_t wanted = (mxcsr & mxcsr_mask) | (now.mxcsr & ~mxcsr_mask);
      asm volatile("{ldmxcsr %0|ldmxcsr %0}" : : "m"(wanted));
    }
#  endif
    if (now.x87 != x87) {
      asm volatile("{fldcw %0|fldcw %0}" : : "m"(x87));
    }
  }

  friend bool operator==(const fpu_control& a, const fpu_control& b) noexcept {
    return ((a.mxcsr ^ b.mxcsr) & mxcsr_mask) == 0 && a.x87 == b.x87;
  }
};

// True when the processor checks returns of this thread against a second stack, which switch_context does not switch:
// the first return after a switch would kill the process. rdsspq does nothing on a thread that has none.
inline bool shadow_stack_is_live() noexcept {
  std::uintptr_t pointer = 0;
  asm volatile(".byte 0xf3, 0x48, 0x0f, 0x1e, 0xc8" : "+a"(pointer));  // rdsspq %rax
  return pointer != 0;
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif

CONCUR_NAMESPACE_BEGIN
namespace detail {

#if CONCUR_ASAN || CONCUR_TSAN
#  define CONCUR_SWITCH_INLINE CONCUR_NOINLINE inline
#else
#  define CONCUR_SWITCH_INLINE CONCUR_FORCE_INLINE
#endif

// What travels through a switch under a sanitizer: the payload, and the notice of the stack that was left (N2). It
// lies on the stack that was left, which lives at least until the arriving context has read it.
struct sanitizer_parcel {
  void* payload;
  stack_notice* left;
};

#if CONCUR_ASAN || CONCUR_TSAN
CONCUR_UNINSTRUMENTED CONCUR_FORCE_INLINE void* unpack_arrival(void* raw, [[maybe_unused]] stack_notice& own) noexcept {
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

CONCUR_UNINSTRUMENTED CONCUR_FORCE_INLINE void announce_switch([[maybe_unused]] stack_notice& from,
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

// machine/block_memory.hpp - memory for many small blocks: in large pieces, and in large pages where there is much of it.
//
// A million blocks that are written, read and freed one after another are limited by what the processor does not have at
// hand: lines, and the addresses of pages. A page of 2 MiB is one such address instead of 512, is given by the kernel in one
// go instead of 512 faults of a microsecond and more, and lets the processor fetch ahead across what would be a border every
// sixteen blocks. Small programs do not pay for that: only pieces of a whole such page ask for it.

CONCUR_NAMESPACE_BEGIN
namespace detail {

inline constexpr std::size_t large_page_bytes = std::size_t{2} << 20;

// `bytes`, a power of two, aligned to that; null when there are none.
CONCUR_INLINE void* allocate_blocks(std::size_t bytes) noexcept;
CONCUR_INLINE void free_blocks(void* memory) noexcept;

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  if defined(__linux__)
#    include <sys/mman.h>
#  endif

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void* allocate_blocks(std::size_t bytes) noexcept {
  void* const memory = std::aligned_alloc(bytes, bytes);
#  if defined(MADV_HUGEPAGE)
  // A wish: without such pages everything works as well.
  if (memory != nullptr && bytes >= large_page_bytes) ::madvise(memory, bytes, MADV_HUGEPAGE);
#  endif
  return memory;
}

CONCUR_INLINE void free_blocks(void* memory) noexcept { std::free(memory); }

}  // namespace detail
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES

// machine/stack_guard.hpp - three ways to notice that a stack ended, and how to find out which of them this machine
// has.
//
// Below each stack lies a strip that nobody may touch. A fiber that recurses too deep walks into it and is stopped
// there, instead of writing over its neighbour. What keeps the strip untouched depends on the machine:
//
//     kind      cost of one                      limit                              noticed
//     madvise   a system call, no mapping        none                               at the first touch (SIGSEGV)
//     mprotect  a system call and two mappings   a quarter of vm.max_map_count      at the first touch (SIGSEGV,
//     SIGBUS) canary    nothing                          none                               when the stack is given
//     back, or asked for
//
// MADV_GUARD_INSTALL (Linux 6.13) marks page table entries and leaves the mapping whole; a million guarded stacks fit
// into a few dozen mappings, where mprotect splits one into three each time and the kernel refuses after 65,530.
//
// The call cannot be believed. An emulator that does not know it may answer "done" and do nothing: qemu-user hands
// unknown advice to nobody and returns 0. Hence the probe: after installing a guard on a page of our own, the kernel
// itself is asked to read it, by write() into a pipe, and has to answer EFAULT. A guard that does not is not counted as
// one.
//
// The canary is not a pattern but the absence of one. A fresh strip reads as zero, and costs no memory while nobody
// writes to it; a call writes at least its return address. So the page of the strip that borders on the stack must
// still be all zero. Rejected: writing a pattern first, which would cost each stack a page of memory for the sake of a
// check.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// none_yet: not found out, because no stack has been asked for.
enum class guard_kind : unsigned char { none_yet, madvise, mprotect, canary };

// The strongest kind that works here. Asked once per pool; none_yet when it could not be found out now (no descriptors
// left for the pipe), in which case mprotect does for the moment.
CONCUR_INLINE guard_kind probe_guard_kind(std::size_t page_bytes) noexcept;

// Puts a guard of this kind on whole pages; false when the kernel refuses, and then nothing has changed. A canary
// always succeeds: it is there already.
CONCUR_INLINE bool install_guard(guard_kind kind, char* low, std::size_t bytes) noexcept;

// A place in the budget of mappings that mprotect may use up, shared by all pools of the process. False: it is spent.
CONCUR_INLINE bool take_mprotect_place() noexcept;
CONCUR_INLINE void give_back_mprotect_places(std::size_t count) noexcept;

// True while nobody wrote to these bytes of a canary. Reading them costs no memory.
CONCUR_INLINE bool canary_is_zero(const char* low, std::size_t bytes) noexcept;

// The places taken by all pools together. std::atomic: a count of what the kernel gave, not of the protocol.
inline std::atomic<std::size_t> mprotect_places_taken{0};

// How many there are; 0: not read yet. std::atomic: as above.
inline std::atomic<std::size_t> mprotect_places{0};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

CONCUR_NAMESPACE_BEGIN
namespace detail {

#if defined(__linux__)

inline constexpr int advice_guard_install = 102;  // MADV_GUARD_INSTALL, newer than most C libraries' headers

// Whether the kernel itself cannot read this byte. -1: there is no pipe to be had, so nobody knows.
CONCUR_NOINLINE CONCUR_INLINE int kernel_cannot_read(const char* address) noexcept {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return -1;
  const bool is_fault = ::write(ends[1], address, 1) < 0 && errno == EFAULT;
  ::close(ends[0]);
  ::close(ends[1]);
  return is_fault ? 1 : 0;
}

CONCUR_INLINE guard_kind probe_guard_kind(std::size_t page_bytes) noexcept {
  void* const page = ::mmap(nullptr, page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return guard_kind::none_yet;
  guard_kind kind = guard_kind::mprotect;
  if (::madvise(page, page_bytes, advice_guard_install) == 0) {
#if CONCUR_MUTANT_IS(22)
    kind = guard_kind::madvise;  // planted bug: believes the return value
#else
    const int answer = kernel_cannot_read(static_cast<const char*>(page));
    kind = answer < 0 ? guard_kind::none_yet : answer == 1 ? guard_kind::madvise : guard_kind::mprotect;
#endif
  }
  ::munmap(page, page_bytes);
  return kind;
}

// Half of the mappings a process may have, at two for each guarded stack. The other half is for threads, files and
// malloc.
CONCUR_INLINE std::size_t read_mprotect_places() noexcept {
  std::size_t mappings = 65530;  // the kernel's default (DEFAULT_MAX_MAP_COUNT)
  const int fd = ::open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
  if (fd >= 0) {
    char digits[24];
    const auto length = ::read(fd, digits, sizeof digits);
    ::close(fd);
    std::size_t value = 0;
    for (int i = 0; i < length && digits[i] >= '0' && digits[i] <= '9'; ++i)
      value = value * 10 + static_cast<std::size_t>(digits[i] - '0');
    if (value != 0) mappings = value;
  }
  return mappings / 4 + 1;
}

CONCUR_INLINE bool install_by_madvise(char* low, std::size_t bytes) noexcept {
  return ::madvise(low, bytes, advice_guard_install) == 0;
}

#else

// Elsewhere mappings are not counted, and mprotect is all there is.
CONCUR_INLINE guard_kind probe_guard_kind(std::size_t) noexcept { return guard_kind::mprotect; }
CONCUR_INLINE std::size_t read_mprotect_places() noexcept { return ~std::size_t{0} / 2; }
CONCUR_INLINE bool install_by_madvise(char*, std::size_t) noexcept { return false; }

#endif

CONCUR_INLINE bool install_guard(guard_kind kind, char* low, std::size_t bytes) noexcept {
  if (kind == guard_kind::madvise) return install_by_madvise(low, bytes);
  if (kind == guard_kind::mprotect) return ::mprotect(low, bytes, PROT_NONE) == 0;
  return true;
}

CONCUR_INLINE bool take_mprotect_place() noexcept {
  // relaxed: a number that is the same whoever reads it first
  std::size_t places = mprotect_places.load(std::memory_order_relaxed);
  if (places == 0) {
    places = read_mprotect_places();
    mprotect_places.store(places, std::memory_order_relaxed);  // relaxed: as above
  }
  // relaxed: a count, it guards no other memory
  if (mprotect_places_taken.fetch_add(1, std::memory_order_relaxed) < places) return true;
  give_back_mprotect_places(1);
  return false;
}

CONCUR_INLINE void give_back_mprotect_places(std::size_t count) noexcept {
  mprotect_places_taken.fetch_sub(count, std::memory_order_relaxed);  // relaxed: a count, it guards no other memory
}

CONCUR_INLINE bool canary_is_zero(const char* low, std::size_t bytes) noexcept {
  // Each byte equals its successor and the first one is zero.
  return low[0] == 0 && std::memcmp(low, low + 1, bytes - 1) == 0;
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES

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

// machine/stack_slab.hpp - one mapping with room for many stacks, and where each of them lies in it.
//
// A stack is address space first and memory second: the kernel gives a page when it is touched. So nothing here touches
// one. What is known about a stack lies in a table at the head of the slab, 32 bytes for each.
//
//     slab   | header, table | guard | stack 0      | guard | stack 1      | guard | ...
//                                    ^ low     top ^
//
// A fiber that is parked has usually touched one page, the topmost. If all stacks began at the same offset in a page,
// they would all lie in the same few sets of the first-level cache, and a thousand parked fibers would evict each
// other. So the tops are coloured: stack i begins (i mod 16) * 128 bytes below the end of its last page. A little room
// is added to each, so that nobody gets less than was asked for.
//
// Rejected: MAP_GROWSDOWN (33 us and a mapping for each stack); malloc (touches pages, no guard); a header on the stack
// itself (an overflow of the neighbour destroys it, and giving back the pages of a stack loses it).

CONCUR_NAMESPACE_BEGIN
namespace detail {

// The smallest stack that a fiber of this library can be trusted with: throwing and catching takes 4 to 6 KiB in the
// unwinder, printf of a floating-point number as much, and a signal that arrives meanwhile pushes the registers (2.7
// KiB with AVX-512) and runs its handler on top. On 32-bit, pointers and registers are half of that.
inline constexpr std::size_t minimum_stack_bytes = sizeof(void*) >= 8 ? 16384 : 8192;

// One stack: the bytes from low up to low + size. Written by the pool; the holder may use `next` for lists of its own.
struct stack {
  stack* next;
  char* low;
  std::size_t size;
  guard_kind guarded_by;
};

// How stacks of one size are laid out. All zero but page_bytes when no address space could hold such a stack.
struct stack_layout {
  std::size_t page_bytes;
  std::size_t usable_bytes;  // as asked for, rounded up to pages
  std::size_t guard_bytes;
  std::size_t stack_bytes;   // usable bytes and room for the colour
  std::size_t stride_bytes;  // from one stack to the next
};

// The head of a slab. Everything in it is written before the slab is published, but for the table's entries, each of
// which is written when its stack is carved.
struct stack_slab {
  stack_slab* next;
  char* first_guard;
  stack* table;
  std::size_t stacks;
  std::size_t bytes;
};

CONCUR_INLINE stack_layout layout_of_stacks(std::size_t usable_bytes) noexcept;

// The largest slab worth asking for: address space is plenty on 64-bit, and dear on 32-bit.
inline constexpr std::size_t slab_bytes_most = std::size_t{1} << (sizeof(void*) >= 8 ? 35 : 24);
inline constexpr std::size_t slab_stacks_most = 65536;

// A new slab, or nullptr when there is no address space for it.
CONCUR_INLINE stack_slab* map_slab(const stack_layout& layout, std::size_t stacks) noexcept;
CONCUR_INLINE void unmap_slab(stack_slab* slab) noexcept;

// Writes the table's entry for a stack that has none yet. `serial` decides its colour.
CONCUR_INLINE stack* carve_stack(const stack_layout& layout, stack_slab& slab, std::size_t index,
                                 std::size_t serial) noexcept;

// Gives the pages of an unused stack back to the kernel, but for so many bytes at the top.
CONCUR_INLINE void give_back_pages(const stack_layout& layout, const stack& one, std::size_t bytes_kept) noexcept;

enum class slab_place { outside, stack, guard };

// What lies at this address, and which stack it belongs to. Reads only what never changes.
inline slab_place place_in_slab(const stack_layout& layout, const stack_slab& slab, const void* address,
                                const stack** which) noexcept {
  const auto wanted = reinterpret_cast<std::uintptr_t>(address);
  const auto first = reinterpret_cast<std::uintptr_t>(slab.first_guard);
  if (wanted < first || wanted - first >= slab.stacks * layout.stride_bytes) return slab_place::outside;
  *which = slab.table + (wanted - first) / layout.stride_bytes;
  return (wanted - first) % layout.stride_bytes < layout.guard_bytes ? slab_place::guard : slab_place::stack;
}

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

// On 64-bit the guard may as well be wide enough for a frame with a few arrays in it; address space costs nothing
// there.
inline constexpr std::size_t wanted_guard_bytes = sizeof(void*) >= 8 ? 65536 : 4096;

inline constexpr std::size_t bytes_left_to_others = 4 * 1024 * 1024;
inline constexpr std::size_t stack_colours = 16;
inline constexpr std::size_t stack_colour_bytes = 128;

inline std::size_t round_up_bytes(std::size_t bytes, std::size_t unit) noexcept {
  return (bytes + unit - 1) / unit * unit;
}

CONCUR_INLINE stack_layout layout_of_stacks(std::size_t usable_bytes) noexcept {
  const long answer = ::sysconf(_SC_PAGESIZE);
  stack_layout layout{};
  layout.page_bytes = answer > 0 ? static_cast<std::size_t>(answer) : 4096;
  if (usable_bytes > ~std::size_t{0} / 4) return layout;  // the sums below would wrap
  layout.usable_bytes = round_up_bytes(usable_bytes, layout.page_bytes);
  layout.guard_bytes = round_up_bytes(wanted_guard_bytes, layout.page_bytes);
  layout.stack_bytes =
      round_up_bytes(layout.usable_bytes + (stack_colours - 1) * stack_colour_bytes, layout.page_bytes);
  layout.stride_bytes = layout.guard_bytes + layout.stack_bytes;
  return layout;
}

CONCUR_INLINE stack_slab* map_slab(const stack_layout& layout, std::size_t stacks) noexcept {
  const std::size_t table_offset = round_up_bytes(sizeof(stack_slab), alignof(stack));
  const std::size_t head_bytes = round_up_bytes(table_offset + stacks * sizeof(stack), layout.page_bytes);
  if (stacks > (~std::size_t{0} / 2 - head_bytes) / layout.stride_bytes) return nullptr;
  const std::size_t bytes = head_bytes + stacks * layout.stride_bytes;

  int flags = MAP_PRIVATE | MAP_ANON;
#  if defined(MAP_NORESERVE)
  flags |= MAP_NORESERVE;
#  endif
#  if defined(__linux__) || defined(__OpenBSD__)
  flags |= MAP_STACK;  // OpenBSD runs on nothing else; FreeBSD means a mapping that grows by it
#  endif
  // Stacks must not take the last of the address space: whoever is told that there are no more needs memory to say so.
  void* const base = ::mmap(nullptr, bytes + bytes_left_to_others, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (base == MAP_FAILED) return nullptr;
  ::munmap(static_cast<char*>(base) + bytes, bytes_left_to_others);
#  if defined(MADV_NOHUGEPAGE)
  ::madvise(base, bytes, MADV_NOHUGEPAGE);  // or the kernel may back the first touch of a stack with 2 MiB
#  endif
  char* const bytes_of_slab = static_cast<char*>(base);
  void* const table = bytes_of_slab + table_offset;
  return new (base) stack_slab{nullptr, bytes_of_slab + head_bytes, static_cast<stack*>(table), stacks, bytes};
}

CONCUR_INLINE void unmap_slab(stack_slab* slab) noexcept { ::munmap(static_cast<void*>(slab), slab->bytes); }

CONCUR_INLINE stack* carve_stack(const stack_layout& layout, stack_slab& slab, std::size_t index,
                                 std::size_t serial) noexcept {
  char* const low = slab.first_guard + index * layout.stride_bytes + layout.guard_bytes;
  const std::size_t colour = serial % stack_colours * stack_colour_bytes;
  void* const entry = slab.table + index;
  return new (entry) stack{nullptr, low, layout.stack_bytes - colour, guard_kind::none_yet};
}

CONCUR_INLINE void give_back_pages(const stack_layout& layout, const stack& one, std::size_t bytes_kept) noexcept {
  ::madvise(static_cast<void*>(one.low), layout.stack_bytes - bytes_kept, MADV_DONTNEED);
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES

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

// machine/fault.hpp - a stack overflow that says whose it was.
//
// A fiber that runs out of stack touches its guard and the process dies of SIGSEGV, as it should; but "Segmentation
// fault" names nobody. Asked to, the library says which fiber it was and how much stack it had, and then lets things
// take their course: the handler that was there before decides, and where there was none, the process dies of the same
// signal, at the same instruction, with the core dump it would have had.
//
// The handler needs a stack, and the one in use is the one that is full. So each worker gets a signal stack of its own.
//
//   F1  Nothing is installed unless the user asks: report_stack_overflows() is the only place that touches a signal.
//   F2  Between the fault and the message only async-signal-safe things happen: reading, formatting into an array,
//       write(2).
//   F3  Faults that are no overflow of ours pass through without a word.
//   F4  The previous handler is called as the kernel would have called it: with its own mask, in its own form.
//   F5  SIGSEGV and SIGBUS must not be blocked in workers, even where every other signal is. A fault whose signal is
//       blocked kills the process before any handler runs.
//
// Who the fiber is, only the runtime knows; it registers a function that finds a guard by address and writes the text.

CONCUR_NAMESPACE_BEGIN

// "My program dies of SIGSEGV, and I think a fiber's stack was too small." Call this once, before the runtimes start.
// From then on an overflow is reported on standard error, with the fiber's number, name and stack size, before the
// process dies or the signal handler that was installed earlier is called. Calling it again does nothing. Costs a
// signal stack per worker.
//
// Returns false when the handler cannot be installed. Programs that install their own handler later should chain to
// this one. Overflows that step over the guard (a frame of more than 64 KiB) are not seen, nor are those of a stack
// guarded by a canary.
CONCUR_INLINE bool report_stack_overflows() noexcept;

namespace detail {

// Writes what is known about the fiber in whose guard this address lies, as in
//     stack overflow in fiber 17 "parser": its 262144 bytes are used up; set options.stack_size higher or recurse less
// into text, zero-terminated. False: no guard holds it. Runs in a signal handler.
using fault_lookup = bool (*)(const void* address, char* text, std::size_t bytes);

CONCUR_INLINE void set_fault_lookup(fault_lookup lookup) noexcept;
CONCUR_INLINE bool is_reporting_overflows() noexcept;

// Text in an array, for signal handlers: what does not fit is cut off, and the end is always a zero.
class signal_safe_text {
 public:
  signal_safe_text(char* text, std::size_t bytes) noexcept : next_(text), left_(bytes) {
    if (left_ != 0) *next_ = '\0';
  }

  signal_safe_text& add(const char* words) noexcept {
    for (; *words != '\0' && left_ > 1; ++words, --left_) *next_++ = *words;
    if (left_ != 0) *next_ = '\0';
    return *this;
  }

  signal_safe_text& add_number(std::uint64_t number) noexcept {
    char digits[21];
    char* first = digits + sizeof digits;
    *--first = '\0';
    do {
      *--first = static_cast<char>('0' + number % 10);
      number /= 10;
    } while (number != 0);
    return add(first);
  }

 private:
  char* next_;
  std::size_t left_;
};

// The signal stack of the calling thread, while the report is on: made by each worker for as long as it runs. Does
// nothing when the report is off, or when the thread has a signal stack already (sanitizers make one).
class thread_signal_stack {
 public:
  thread_signal_stack() noexcept;
  ~thread_signal_stack();
  thread_signal_stack(const thread_signal_stack&) = delete;
  thread_signal_stack& operator=(const thread_signal_stack&) = delete;

 private:
  void* mapping_ = nullptr;
  std::size_t bytes_ = 0;
};

// 0: off, 1: being installed, 2: on. Written by report_stack_overflows only.
// std::atomic: read in a signal handler, where no driver may be asked.
inline std::atomic<std::uint32_t> fault_report_state{0};
inline std::atomic<fault_lookup> fault_lookup_function{nullptr};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#include <signal.h>

CONCUR_NAMESPACE_BEGIN
namespace detail {

// What was there before us. Written before our handlers are installed, and read by them.
inline struct sigaction previous_on_segv {};
inline struct sigaction previous_on_bus {};

CONCUR_INLINE void set_fault_lookup(fault_lookup lookup) noexcept {
  // release: publishes what the function looks at to the handler
  fault_lookup_function.store(lookup, std::memory_order_release);
}

CONCUR_INLINE bool is_reporting_overflows() noexcept {
  // acquire: pairs with the release in report_stack_overflows
  return fault_report_state.load(std::memory_order_acquire) == 2;
}

// Does what would have happened without us. For a default action the handler is taken away and the instruction runs
// again, so that the process dies where the fault is; a signal that was sent by kill() does not come by itself a second
// time.
CONCUR_INLINE void chain_to_previous(int number, siginfo_t* info, void* machine_state) noexcept {
  const struct sigaction& previous = number == SIGSEGV ? previous_on_segv : previous_on_bus;
  const bool was_sent = info->si_code <= 0;
  const bool has_information = (previous.sa_flags & SA_SIGINFO) != 0;
  if (!has_information && (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN)) {
    if (was_sent && previous.sa_handler == SIG_IGN) return;
    struct sigaction plain {};
    plain.sa_handler = SIG_DFL;
    ::sigaction(number, &plain, nullptr);
    if (was_sent) ::raise(number);  // arrives when this handler returns and unblocks it
    return;
  }
  sigset_t mask_before;
  ::pthread_sigmask(SIG_BLOCK, &previous.sa_mask, &mask_before);
  if (has_information) {
    previous.sa_sigaction(number, info, machine_state);
  } else {
    previous.sa_handler(number);
  }
  ::pthread_sigmask(SIG_SETMASK, &mask_before, nullptr);
}

CONCUR_NOINLINE CONCUR_INLINE void on_fault(int number, siginfo_t* info, void* machine_state) noexcept {
  const int errno_before = errno;
  // acquire: pairs with set_fault_lookup
  const fault_lookup lookup = fault_lookup_function.load(std::memory_order_acquire);
  char about_fiber[256];
  if (info->si_code > 0 && lookup != nullptr && lookup(info->si_addr, about_fiber, sizeof about_fiber)) {
    char line[sizeof about_fiber + 16];
    signal_safe_text text(line, sizeof line);
    text.add("concur: ").add(about_fiber).add("\n");
    const auto written = ::write(STDERR_FILENO, line, std::strlen(line));
    static_cast<void>(written);  // whoever closed standard error does not want to know
  }
  errno = errno_before;
  chain_to_previous(number, info, machine_state);
}

// The kernel says how much a signal frame takes on this processor; the rest is for the handlers we chain to.
CONCUR_INLINE std::size_t signal_stack_bytes() noexcept {
  std::size_t frame = 16384;
#if defined(_SC_MINSIGSTKSZ)
  const long answer = ::sysconf(_SC_MINSIGSTKSZ);
  if (answer > 0 && static_cast<std::size_t>(answer) > frame) frame = static_cast<std::size_t>(answer);
#endif
  return (frame + 65536) / 65536 * 65536;
}

CONCUR_INLINE thread_signal_stack::thread_signal_stack() noexcept {
  if (!is_reporting_overflows()) return;
  stack_t current{};
  if (CONCUR_MUTANT_IS(28)) return;  // planted bug: the handler would need the stack that is full
  if (::sigaltstack(nullptr, &current) != 0 || (current.ss_flags & SS_DISABLE) == 0) return;
  const std::size_t bytes = signal_stack_bytes();
  void* const mapping = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
  if (mapping == MAP_FAILED) return;
  stack_t ours{};
  ours.ss_sp = static_cast<char*>(mapping);
  ours.ss_size = bytes;
  if (::sigaltstack(&ours, nullptr) != 0) {
    ::munmap(mapping, bytes);
    return;
  }
  mapping_ = mapping;
  bytes_ = bytes;
}

CONCUR_INLINE thread_signal_stack::~thread_signal_stack() {
  if (mapping_ == nullptr) return;
  stack_t current{};
  if (::sigaltstack(nullptr, &current) == 0 && current.ss_sp == mapping_) {
    stack_t off{};
    off.ss_flags = SS_DISABLE;
    off.ss_size = bytes_;  // some systems want a valid size even here
    ::sigaltstack(&off, nullptr);
  }
  ::munmap(mapping_, bytes_);
}

}  // namespace detail

CONCUR_INLINE bool report_stack_overflows() noexcept {
  std::uint32_t off = 0;
  // acquire: pairs with the release below, for whoever comes second
  if (!detail::fault_report_state.compare_exchange_strong(off, 1, std::memory_order_acquire, std::memory_order_acquire))
    return true;
  // First looked at and then replaced: a fault in between must find the previous handlers known.
  bool is_installed = ::sigaction(SIGSEGV, nullptr, &detail::previous_on_segv) == 0 &&
                      ::sigaction(SIGBUS, nullptr, &detail::previous_on_bus) == 0;
  struct sigaction ours {};
  ours.sa_sigaction = detail::on_fault;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
  static_cast<void>(sigemptyset(&ours.sa_mask));  // a macro on macOS
  is_installed = is_installed && ::sigaction(SIGSEGV, &ours, nullptr) == 0;
  is_installed = is_installed && ::sigaction(SIGBUS, &ours, nullptr) == 0;
  // release: publishes the previous handlers to is_reporting_overflows
  detail::fault_report_state.store(is_installed ? 2 : 0, std::memory_order_release);
  return is_installed;
}
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES

// machine/parker.hpp - one thread waits, others wake it, and a wake-up that comes too early is kept.
//
// A parker belongs to one thread. It holds a token, not a count: unpark() leaves the token, park() takes it, and blocks
// until there is one. Ten unparks before a park are one token. So a thread that looks for work, finds none and parks
// cannot miss the work that was announced between the look and the park: the token is already there.
//
// The token is one word:
//
//     value      meaning                            written by
//     empty 0    no token, nobody blocked           the owner, when it takes the token or gives up waiting
//     notified 1 a token                            anybody, in unpark
//     parked 2   no token, the owner is blocked     the owner, and only from empty
//
//   P1  Only the owner calls park and park_until; there is no second sleeper to choose from.
//   P2  The owner leaves park only by taking the token, park_until also by giving up; in both cases the word goes to
//       empty in one atomic step. Giving up with a plain store would destroy a token that arrived at the last moment.
//   P3  unpark makes a system call only when it finds `parked`. A thread that is awake is notified for one exchange.
//   P4  Whatever was written before unpark is visible after the park that took the token, also when several unparks
//       were merged into one: each is a read-modify-write, so all of them are in one release sequence.
//   P5  After its exchange, unpark uses the word's address and not its contents. The owner may return, and destroy the
//       parker, before the wake-up call is made: it then wakes nobody, or a stranger who must expect to be woken for
//       nothing.
//
// On Linux the word is a futex. Elsewhere a mutex and a condition variable stand behind it, and P5 needs more care: all
// that unpark does to a parked owner it does while it holds the mutex, without which the owner cannot leave. The price
// is that there the parker must outlive every unpark that might find `parked`; a waiter with a deadline has to collect
// the token of a waker that already won before it goes, which the claim of a wait demands anyway.

// CONCUR_PARKER_PTHREAD asks for the portable form on Linux too, so that its tests run where there is only Linux.
#if !defined(__linux__) && !defined(CONCUR_PARKER_PTHREAD)
#  define CONCUR_PARKER_PTHREAD 1
#endif

CONCUR_NAMESPACE_BEGIN
namespace detail {

class parker {
 public:
#if defined(CONCUR_PARKER_PTHREAD)
  parker() noexcept;
  ~parker();
#else
  parker() noexcept = default;
#endif
  parker(const parker&) = delete;
  parker& operator=(const parker&) = delete;

  // Blocks until there is a token and takes it. What was written before the unpark is visible afterwards.
  void park() noexcept;

  // The same, but not beyond this time of the steady clock, in nanoseconds; INT64_MAX waits for ever, and a time that
  // has passed takes a token that is there and does not block. False: the time came and there was no token.
  bool park_until(std::int64_t steady_ns) noexcept;

  // Leaves the token. From any thread, and from a signal handler too where the word is a futex.
  void unpark() noexcept;

 private:
  static constexpr std::uint32_t empty = 0;
  static constexpr std::uint32_t notified = 1;
  static constexpr std::uint32_t parked = 2;

  static constexpr std::int64_t for_ever = INT64_MAX;

  bool took_token() noexcept;
  bool wait_parked(std::int64_t steady_ns) noexcept;

  atomic<std::uint32_t> state_{empty};
  static_assert(atomic<std::uint32_t>::is_always_lock_free, "a futex is a plain word");

#if defined(CONCUR_PARKER_PTHREAD)
  // A pthread_mutex_t and a pthread_cond_t, whose header has no place here. Sizes are asserted where the header is
  // known.
  alignas(16) unsigned char mutex_[64];
  alignas(16) unsigned char condition_[64];
#endif
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#if defined(CONCUR_PARKER_PTHREAD)
#  include <pthread.h>

#else
#  include <linux/futex.h>
#  include <sys/syscall.h>
#endif

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Takes the token when there is one. Otherwise announces the owner as parked and says false.
CONCUR_INLINE bool parker::took_token() noexcept {
#if CONCUR_MUTANT_IS(20)
  if (state_.load(std::memory_order_relaxed) == empty) {  // relaxed: planted bug, the look and the store are two steps
    // relaxed: planted bug, overwrites a token that came in between
    state_.store(parked, std::memory_order_relaxed);
    return false;
  }
#else
  std::uint32_t seen = empty;
  // relaxed: announcing publishes nothing, and a failure is followed by the acquiring exchange below
  if (state_.compare_exchange_strong(seen, parked, std::memory_order_relaxed, std::memory_order_relaxed)) return false;
#endif
  // acquire: pairs with the release in unpark, whose token this is
  state_.exchange(empty, std::memory_order_acquire);
  return true;
}

CONCUR_INLINE void parker::park() noexcept {
  if (!took_token()) wait_parked(for_ever);
}

CONCUR_INLINE bool parker::park_until(std::int64_t steady_ns) noexcept {
  return took_token() || wait_parked(steady_ns);
}

#if !defined(CONCUR_PARKER_PTHREAD)

// The kernel's own timespec of this call: two longs, whatever size the C library has given time_t. Seconds of uptime
// fit.
struct futex_time {
  long seconds;
  long nanoseconds;
};

// Blocks while the word is `parked`; true when the time came. A bit set of all ones only serves to make the time
// absolute.
CONCUR_NOINLINE CONCUR_INLINE bool futex_wait_until(atomic<std::uint32_t>& word, std::uint32_t expected,
                                                    std::int64_t steady_ns) noexcept {
  futex_time until{};
  const futex_time* until_or_never = nullptr;
  if (steady_ns != INT64_MAX) {
    const std::int64_t positive_ns = steady_ns > 0 ? steady_ns : 0;
    const std::int64_t whole_seconds = positive_ns / 1000000000;
    constexpr long most = static_cast<long>(~0UL >> 1);
    const bool fits = sizeof(long) >= sizeof(std::int64_t) || whole_seconds < static_cast<std::int64_t>(most);
    until.seconds = fits ? static_cast<long>(whole_seconds) : most;
    until.nanoseconds = static_cast<int>(positive_ns % 1000000000);
    until_or_never = &until;
  }
  const long result =
      ::syscall(SYS_futex, &word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected, until_or_never, nullptr, ~0U);
  return result != 0 && errno == ETIMEDOUT;
}

CONCUR_NOINLINE CONCUR_INLINE bool parker::wait_parked(std::int64_t steady_ns) noexcept {
  for (;;) {
    driver* const d = driver_or_null();
    const bool timed_out = CONCUR_UNLIKELY(d != nullptr)
                               ? d->block(&state_, parked, steady_ns, nullptr) == block_end::timed_out
                               : futex_wait_until(state_, parked, steady_ns);
    if (timed_out) {
#if CONCUR_MUTANT_IS(21)
      const bool had_token = false;
      // relaxed: planted bug, destroys a token that came at the last moment
      state_.store(empty, std::memory_order_relaxed);
      return had_token;
#else
      // acquire: pairs with unpark when the token arrived together with the deadline
      return state_.exchange(empty, std::memory_order_acquire) == notified;
#endif
    }
    std::uint32_t seen = notified;
    // acquire: pairs with the release in unpark; relaxed: a failure was a wake-up for nothing, we go back to sleep
    if (state_.compare_exchange_strong(seen, empty, std::memory_order_acquire, std::memory_order_relaxed)) return true;
  }
}

CONCUR_NOINLINE CONCUR_INLINE void parker::unpark() noexcept {
  // release: publishes what came before to the park that takes the token
  if (state_.exchange(notified, std::memory_order_release) != parked) return;
  if (driver* d = driver_or_null()) return d->wake(&state_);
  ::syscall(SYS_futex, &state_, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, nullptr, nullptr, 0);
}

#else  // CONCUR_PARKER_PTHREAD

static_assert(sizeof(pthread_mutex_t) <= 64 && alignof(pthread_mutex_t) <= 16, "parker keeps too little room");
static_assert(sizeof(pthread_cond_t) <= 64 && alignof(pthread_cond_t) <= 16, "parker keeps too little room");

inline pthread_mutex_t* mutex_in(unsigned char* room) noexcept {
  return std::launder(reinterpret_cast<pthread_mutex_t*>(room));
}
inline pthread_cond_t* condition_in(unsigned char* room) noexcept {
  return std::launder(reinterpret_cast<pthread_cond_t*>(room));
}

CONCUR_INLINE parker::parker() noexcept {
  // The default attributes allocate nothing on any system, so these cannot fail.
  pthread_mutex_init(new (static_cast<void*>(mutex_)) pthread_mutex_t, nullptr);
  pthread_cond_t* const condition = new (static_cast<void*>(condition_)) pthread_cond_t;
#  if defined(__APPLE__)
  pthread_cond_init(condition, nullptr);
#  else
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(condition, &attributes);
  pthread_condattr_destroy(&attributes);
#  endif
}

CONCUR_INLINE parker::~parker() {
  pthread_cond_destroy(condition_in(condition_));
  pthread_mutex_destroy(mutex_in(mutex_));
}

// Waits once on the condition, its mutex held. Returns for no reason too; the caller looks at the word and at the
// clock.
inline void wait_on_condition(pthread_cond_t* condition, pthread_mutex_t* mutex, std::int64_t now_ns,
                              std::int64_t steady_ns) noexcept {
  timespec time{};
#  if defined(__APPLE__)
  const std::int64_t wait_ns = steady_ns - now_ns;
  const std::int64_t whole_seconds = wait_ns / 1000000000;
  time.tv_sec = static_cast<time_t>(whole_seconds);
  time.tv_nsec = static_cast<int>(wait_ns % 1000000000);
  pthread_cond_timedwait_relative_np(condition, mutex, &time);
#  else
  static_cast<void>(now_ns);
  const std::int64_t whole_seconds = steady_ns / 1000000000;
  time.tv_sec = static_cast<time_t>(whole_seconds);
  time.tv_nsec = static_cast<int>(steady_ns % 1000000000);
  pthread_cond_timedwait(condition, mutex, &time);
#  endif
}

inline std::int64_t parker_clock_ns() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const std::int64_t whole_seconds = now.tv_sec;
  return whole_seconds * 1000000000 + now.tv_nsec;
}

CONCUR_NOINLINE CONCUR_INLINE bool parker::wait_parked(std::int64_t steady_ns) noexcept {
  if (driver* d = driver_or_null()) {
    while (d->block(&state_, parked, steady_ns, nullptr) == block_end::woken) {
      // acquire: pairs with the release in unpark
      if (state_.load(std::memory_order_acquire) != parked) break;
    }
    // acquire: as below
    return state_.exchange(empty, std::memory_order_acquire) == notified;
  }
  pthread_mutex_t* const mutex = mutex_in(mutex_);
  pthread_mutex_lock(mutex);
  // acquire: pairs with the release in unpark; the mutex orders it too, except for a token left before we took it
  while (state_.load(std::memory_order_acquire) == parked) {
    if (steady_ns == for_ever) {
      pthread_cond_wait(condition_in(condition_), mutex);
      continue;
    }
    const std::int64_t now_ns = parker_clock_ns();
    if (now_ns >= steady_ns) break;
    // A thousand seconds at a time keeps every system's timespec in range.
    constexpr std::int64_t longest_ns = 1000 * std::int64_t{1000000000};
    wait_on_condition(condition_in(condition_), mutex, now_ns,
                      steady_ns - now_ns > longest_ns ? now_ns + longest_ns : steady_ns);
  }
  // acquire: pairs with unpark when the token arrived together with the deadline
  const bool had_token = state_.exchange(empty, std::memory_order_acquire) == notified;
  pthread_mutex_unlock(mutex);
  return had_token;
}

CONCUR_NOINLINE CONCUR_INLINE void parker::unpark() noexcept {
  const auto unless_parked = [](std::uint32_t seen) {
    return seen != parked ? std::optional<std::uint32_t>(notified) : std::nullopt;
  };
  // release: publishes what came before to the park that takes the token
  if (cas_update(state_, unless_parked, std::memory_order_release)) return;
  if (driver* d = driver_or_null()) {
    // release: as below
    state_.exchange(notified, std::memory_order_release);
    return d->wake(&state_);
  }
  pthread_mutex_lock(mutex_in(mutex_));
  // release: publishes what came before to the park that takes the token
  state_.exchange(notified, std::memory_order_release);
  pthread_cond_signal(condition_in(condition_));
  pthread_mutex_unlock(mutex_in(mutex_));
}

#endif

}  // namespace detail
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES

// machine/poller.hpp - which descriptors became ready: what the reactor asks of the operating system, and no more.
//
// epoll, kqueue and poll agree on little but this: somebody registers descriptors, somebody blocks until one of them is
// ready, and somebody else can cut the blocking short. This class is that agreement. Who is woken, what a readiness
// means, and which descriptors exist is the reactor's business, one layer up; here a registration is two numbers that
// come back with each event: the reactor's slot, and the generation of that slot.
//
//   E1  A registration is made once per descriptor, for both directions, and lasts until remove(). There is no system
//       call per operation: readiness is reported when it begins, and the reactor remembers it.
//   E2  An event is a hint. "It may now be ready" is all it says; the operation itself finds out. So an event too many
//       costs a failed call, and one too few costs a fiber its life: every backend errs on the side of too many.
//   E3  The numbers in an event are those given to add(). An event of a registration that was removed in the meantime,
//       and whose descriptor number another owner now has, still carries the old generation and is known by it.
//   E4  ERR and HUP are reported as failed, ended, readable and writable at once: whoever waits must run and see.
//   E5  One thread at a time is in wait(); everything else may be called from any thread, also during a wait().
//   E6  A wake() is never lost: it ends the wait() in progress or the next one. Wakes merge, and only the first one
//       before a wait() notices makes a system call.
//
// The poll backend cannot report beginnings, only states. There arm() says what is wanted, one event ends the want, and
// a reactor that calls arm() before it parks a fiber works with all three; for the other two arm() does nothing.
//
//     backend           chosen by               blocks in             wakes by                  descriptors of its own
//     poller/epoll.hpp  CONCUR_POLLER_EPOLL     epoll_pwait2, _wait   eventfd                   2
//     poller/kqueue.hpp CONCUR_POLLER_KQUEUE    kevent                EVFILT_USER, else a pipe  1, else 3
//     poller/poll.hpp   CONCUR_POLLER_POLL      ppoll, poll           a pipe                    2

CONCUR_NAMESPACE_BEGIN
namespace detail {

// ended: the peer will send nothing more, and a read tells so without a further report. Comes with readable.
enum class readiness : unsigned { readable = 1, writable = 2, failed = 4, ended = 8 };

inline constexpr unsigned bit(readiness which) noexcept { return static_cast<unsigned>(which); }

// What ERR and HUP turn into (E4).
inline CONCUR_PLANTED unsigned everything_ready =
    bit(readiness::readable) | bit(readiness::writable) | bit(readiness::failed) |
    (CONCUR_MUTANT_IS(56) ? 0 : bit(readiness::ended));

struct poll_event {
  std::uint32_t slot;
  std::uint32_t generation;
  unsigned ready;  // bits of readiness, at least one
};

class poller {
 public:
  // A slot number that no registration may have; it stands for the wake-up.
  static constexpr std::uint32_t reserved_slot = 0xffffffffU;

  poller() noexcept = default;
  poller(const poller&) = delete;
  poller& operator=(const poller&) = delete;
  ~poller() { close(); }

  // Makes the queue and the means of waking it, all close-on-exec. 0, or an errno with nothing left open (EMFILE,
  // ENOMEM).
  int open() noexcept;

  // Gives everything back. open() may follow: that is what a forked child does. No wait() may be in progress.
  void close() noexcept;

  // Registers both directions. 0, or an errno: EPERM for what cannot be waited for, such as regular files, which are
  // always ready; EEXIST where the backend can tell that the descriptor is registered already; ENOMEM, ENOSPC.
  int add(int fd, std::uint32_t slot, std::uint32_t generation) noexcept;

  // Says that the next readiness in these directions is wanted. Needed by the poll backend only, and free with the
  // others.
  void arm(int fd, std::uint32_t slot, bool for_read, bool for_write) noexcept;

  // Ends a registration; to be called before the descriptor is closed. A copy of the descriptor may live on in another
  // process, and would otherwise go on reporting (epoll), or the next owner's events would be lost (kqueue).
  void remove(int fd, std::uint32_t slot) noexcept;

  // Blocks until something is ready, wake() is called, or the time is over; a negative time has no end and 0 does not
  // block. Returns how many events it wrote, which may be 0 before the time is over (a signal, a wake-up), or -errno.
  int wait(poll_event* out, int capacity, std::int64_t timeout_ns) noexcept;

  // Ends the wait() in progress, or else the next one. What was written before is visible to whoever that wait()
  // returns to.
  void wake() noexcept;

  // Under a driver (base/driver.hpp) nobody blocks in wait(); these two are wake() and the blocking half of wait() then.
  void wake_driven(driver& d) noexcept {
    if (must_wake()) d.wake(&wake_pending_);
  }
  block_end block_driven(driver& d, std::int64_t until_ns, const void* outside) noexcept {
    const block_end end = d.block(&wake_pending_, 0, until_ns, outside);
    if (end == block_end::woken) wake_seen();
    return end;
  }

  // How many descriptors are its own: what a count of open descriptors should expect.
  int descriptor_count() const noexcept;

 private:
  // Whoever turns this from false to true owes the system call; wait() turns it back when it has seen the wake-up,
  // before it returns. Both are read-modify-writes of one word, hence ordered: either the waker comes first, and what
  // it published is visible to the returning thread, or it comes second, finds false and makes a new wake-up.
  bool must_wake() noexcept {
    // acq_rel: publishes what came before to the thread in wait, also through a chain of merged wake-ups
    return wake_pending_.exchange(1, std::memory_order_acq_rel) == 0;
  }
  void wake_seen() noexcept {
    // acquire: pairs with must_wake of every waker merged into this wake-up
    wake_pending_.exchange(0, std::memory_order_acquire);
  }

  // No backend uses all of them.
  [[maybe_unused]] int queue_fd_ = -1;             // epoll or kqueue
  [[maybe_unused]] int wake_read_fd_ = -1;         // the eventfd, or the read end of the pipe
  [[maybe_unused]] int wake_write_fd_ = -1;        // the write end of the pipe
  [[maybe_unused]] bool coarse_timeouts_ = false;  // only milliseconds are to be had; found out by the first wait
  [[maybe_unused]] void* table_ = nullptr;         // what the poll backend watches
  atomic<std::uint32_t> wake_pending_{0};
};

}  // namespace detail
CONCUR_NAMESPACE_END

// machine/poller/epoll.hpp - the poller of Linux: one edge-triggered registration for both directions.
//
// Edge-triggered means that the kernel reports a change once. It fits the reactor's habit of trying first: whoever
// parks has seen EAGAIN after the last report, so the next change will be reported. EPOLLRDHUP tells a half-closed peer
// from one that is silent without a read.
//
// The event carries 64 bits of ours, enough for slot and generation together. So no table has to be consulted, and none
// can be out of date (E3).
//
// Rejected: EPOLLONESHOT, which needs a system call per wait to arm again. One registration per direction with a
// duplicated descriptor, which doubles the descriptors. A timerfd for precise deadlines, which costs a system call for
// every change of the nearest one; epoll_pwait2 takes nanoseconds, and kernels before 5.11 get milliseconds, rounded
// up.

#if CONCUR_BODIES && defined(CONCUR_POLLER_EPOLL)

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

CONCUR_NAMESPACE_BEGIN
namespace detail {

inline constexpr std::uint64_t epoll_wake_mark = ~std::uint64_t{0};
inline constexpr std::uint32_t epoll_edge = 1U << 31;  // EPOLLET, which the header gives a sign

// Every function that reads errno stays a function: the address of errno must not be kept over a switch of fibers.
CONCUR_NOINLINE CONCUR_INLINE int epoll_control(int queue_fd, int operation, int fd, std::uint64_t mark) noexcept {
  epoll_event wanted{};
  wanted.events = static_cast<std::uint32_t>(EPOLLIN) | static_cast<std::uint32_t>(EPOLLOUT) |
                  static_cast<std::uint32_t>(EPOLLRDHUP) | epoll_edge;
  wanted.data.u64 = mark;
  return ::epoll_ctl(queue_fd, operation, fd, &wanted) == 0 ? 0 : errno;
}

CONCUR_NOINLINE CONCUR_INLINE int poller::open() noexcept {
  queue_fd_ = ::epoll_create1(EPOLL_CLOEXEC);
  int error = queue_fd_ < 0 ? errno : 0;
  if (error == 0) {
    wake_read_fd_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    error = wake_read_fd_ < 0 ? errno : 0;
  }
  if (error == 0) {
    epoll_event wanted{};
    wanted.events = static_cast<std::uint32_t>(EPOLLIN) | epoll_edge;
    wanted.data.u64 = epoll_wake_mark;
    if (::epoll_ctl(queue_fd_, EPOLL_CTL_ADD, wake_read_fd_, &wanted) != 0) error = errno;
  }
  if (error != 0) close();
  return error;
}

CONCUR_INLINE void poller::close() noexcept {
  if (wake_read_fd_ >= 0) ::close(wake_read_fd_);
  if (queue_fd_ >= 0) ::close(queue_fd_);
  wake_read_fd_ = queue_fd_ = -1;
  // relaxed: nobody else uses a closed poller
  wake_pending_.store(0, std::memory_order_relaxed);
}

CONCUR_INLINE int poller::add(int fd, std::uint32_t slot, std::uint32_t generation) noexcept {
  return epoll_control(queue_fd_, EPOLL_CTL_ADD, fd, (std::uint64_t{slot} << 32) | generation);
}

CONCUR_INLINE void poller::arm(int, std::uint32_t, bool, bool) noexcept {}

CONCUR_INLINE void poller::remove(int fd, std::uint32_t) noexcept {
#if CONCUR_MUTANT_IS(25)
  static_cast<void>(fd);  // planted bug: leaves it to close(), and a copy of the descriptor may still be open
#else
  epoll_control(queue_fd_, EPOLL_CTL_DEL, fd, 0);
#endif
}

inline unsigned ready_from_epoll(std::uint32_t events) noexcept {
  constexpr std::uint32_t failures = static_cast<std::uint32_t>(EPOLLERR) | static_cast<std::uint32_t>(EPOLLHUP);
  if ((events & failures) != 0) return everything_ready;
  unsigned ready = 0;
  if ((events & static_cast<std::uint32_t>(EPOLLIN)) != 0) ready |= bit(readiness::readable);
  if ((events & static_cast<std::uint32_t>(EPOLLRDHUP)) != 0) ready |= bit(readiness::readable) | bit(readiness::ended);
  if ((events & static_cast<std::uint32_t>(EPOLLOUT)) != 0) ready |= bit(readiness::writable);
  return ready;
}

// The kernel's timespec of epoll_pwait2: 64 bits each on every processor.
struct epoll_time {
  std::int64_t seconds;
  std::int64_t nanoseconds;
};

// The system call itself: count, or -errno. `is_coarse` becomes true when the precise call does not exist, or is
// forbidden by a sandbox that does not know it.
CONCUR_NOINLINE CONCUR_INLINE int epoll_block(int queue_fd, epoll_event* events, int capacity, std::int64_t timeout_ns,
                                              bool& is_coarse) noexcept {
#if !defined(SYS_epoll_pwait2)
  constexpr long precise_call = 441;
#else
  constexpr long precise_call = SYS_epoll_pwait2;
#endif
  if (timeout_ns > 0 && !is_coarse) {
    const epoll_time time{timeout_ns / 1000000000, timeout_ns % 1000000000};
    const long count = ::syscall(precise_call, queue_fd, events, capacity, &time, nullptr, std::size_t{0});
    if (count >= 0) return static_cast<int>(count);
    if (errno != ENOSYS && errno != EPERM) return -errno;
    is_coarse = true;
  }
  int timeout_ms = timeout_ns < 0 ? -1 : 0;
  if (timeout_ns > 0) {
    const std::int64_t rounded_up_ms = timeout_ns / 1000000 + (timeout_ns % 1000000 != 0 ? 1 : 0);
    timeout_ms = rounded_up_ms > 0x7fffffff ? 0x7fffffff : static_cast<int>(rounded_up_ms);
  }
  const int count = ::epoll_wait(queue_fd, events, capacity, timeout_ms);
  return count >= 0 ? count : -errno;
}

CONCUR_INLINE int poller::wait(poll_event* out, int capacity, std::int64_t timeout_ns) noexcept {
  constexpr int most_at_once = 128;
  epoll_event events[most_at_once];
  const int count =
      epoll_block(queue_fd_, events, capacity < most_at_once ? capacity : most_at_once, timeout_ns, coarse_timeouts_);
  if (count < 0) return count == -EINTR ? 0 : count;

  int written = 0;
  for (int i = 0; i < count; ++i) {
    const std::uint64_t mark = events[i].data.u64;
    if (mark == epoll_wake_mark) {
      // The eventfd is not read: each write is an edge, and 64 bits of count do not fill up.
      wake_seen();
      continue;
    }
    const unsigned ready = ready_from_epoll(events[i].events);
    out[written++] = poll_event{static_cast<std::uint32_t>(mark >> 32), static_cast<std::uint32_t>(mark), ready};
  }
  return written;
}

CONCUR_INLINE void poller::wake() noexcept {
  if (!must_wake()) return;
  const std::uint64_t one = 1;
  // It cannot fail: the counter is far from full, and the descriptor is ours.
  const auto written = ::write(wake_read_fd_, &one, sizeof one);
  static_cast<void>(written);
}

CONCUR_INLINE int poller::descriptor_count() const noexcept {
  return (queue_fd_ >= 0 ? 1 : 0) + (wake_read_fd_ >= 0 ? 1 : 0);
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif

// machine/poller/kqueue.hpp - the poller of macOS and the BSDs: two filters for each descriptor, cleared when reported.
//
// EV_CLEAR makes a filter report changes, like an edge in epoll. Both filters are added when the descriptor is, and
// never touched again, so that waiting costs no system call. They have to be deleted before the descriptor is closed:
// the kernel drops them at the last close of the file, and a copy of the descriptor in a child would keep them, under a
// number that is already somebody else's.
//
// udata is as wide as a pointer and carries slot and generation, which is why this backend wants 64 bits.
//
//     event                           means
//     EVFILT_READ                     readable; with EV_EOF the peer has shut down its side, a read will tell
//     EVFILT_WRITE                    writable; with EV_EOF nobody will ever read: failed
//     EV_EOF with an error in fflags  failed
//
// The amount of data in an event is not used: it may be 0 for a writable socket. Where EVFILT_USER is missing (old
// NetBSD and OpenBSD), a pipe wakes.

// machine/poller/portable.hpp - what epoll does for us and other systems leave to their user.
//
// Two things: refusing descriptors for which waiting has no meaning, and being woken, for which any system has a pipe.
// One byte in the pipe stands for one change of the poller's wake word from 0 to 1. The reader takes the byte out first
// and sets the word back afterwards: in the other order a waker in between would set the word, have its byte taken, and
// no later waker would write another.

#if CONCUR_BODIES && !defined(CONCUR_POLLER_EPOLL)

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

CONCUR_NAMESPACE_BEGIN
namespace detail {

// EPERM for files and directories, which are always ready, as epoll says; 0 for what can be waited for; EBADF.
CONCUR_NOINLINE CONCUR_INLINE int error_of_waiting_for(int fd) noexcept {
  struct stat about;
  if (::fstat(fd, &about) != 0) return errno;
  return S_ISREG(about.st_mode) || S_ISDIR(about.st_mode) ? EPERM : 0;
}

// Some systems have no pipe2. A child forked between the two calls keeps the pipe over its exec; there is no better
// way.
CONCUR_NOINLINE CONCUR_INLINE int open_wake_pipe(int& read_end, int& write_end) noexcept {
  int ends[2];
#  if defined(__APPLE__)
  if (::pipe(ends) != 0) return errno;
  for (const int end : ends) {
    ::fcntl(end, F_SETFD, FD_CLOEXEC);
    ::fcntl(end, F_SETFL, O_NONBLOCK);
  }
#  else
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return errno;
#  endif
  read_end = ends[0];
  write_end = ends[1];
  return 0;
}

CONCUR_INLINE void close_if_open(int& fd) noexcept {
  if (fd >= 0) ::close(fd);
  fd = -1;
}

inline void write_wake_byte(int write_end) noexcept {
  const char byte = 1;
  const auto written = ::write(write_end, &byte, 1);  // there is room: one byte at a time is in the pipe
  static_cast<void>(written);
}

inline void take_wake_bytes(int read_end) noexcept {
  char bytes[16];
  while (::read(read_end, bytes, sizeof bytes) == static_cast<ssize_t>(sizeof bytes)) {
  }
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif

#if CONCUR_BODIES && defined(CONCUR_POLLER_KQUEUE)

#include <errno.h>
#include <fcntl.h>
#include <sys/types.h>
#include <sys/event.h>
#include <time.h>
#include <unistd.h>

CONCUR_NAMESPACE_BEGIN
namespace detail {

static_assert(sizeof(void*) >= 8, "concur: kqueue needs 64 bits for its events; compile with -DCONCUR_POLLER_POLL");

inline constexpr std::uint64_t kqueue_wake_mark = ~std::uint64_t{0};

// udata is a pointer, or a number on older NetBSD.
inline void set_mark(void*& udata, std::uint64_t mark) noexcept {
  const std::uintptr_t bits = mark;
  udata = reinterpret_cast<void*>(bits);
}
inline void set_mark(std::intptr_t& udata, std::uint64_t mark) noexcept { udata = static_cast<std::intptr_t>(mark); }
inline std::uint64_t mark_of(void* udata) noexcept { return reinterpret_cast<std::uintptr_t>(udata); }
inline std::uint64_t mark_of(std::intptr_t udata) noexcept { return static_cast<std::uint64_t>(udata); }

// Makes one change to one filter; 0 or an errno. The address of errno does not leave this function.
CONCUR_NOINLINE CONCUR_INLINE int kqueue_change(int queue_fd, int ident, int filter, int flags, unsigned note,
                                                std::uint64_t mark) noexcept {
  struct kevent change {};
  change.ident = static_cast<decltype(change.ident)>(ident);
  change.filter = static_cast<decltype(change.filter)>(filter);
  change.flags = static_cast<decltype(change.flags)>(flags);
  change.fflags = note;
  set_mark(change.udata, mark);
  int result = 0;
  do {
    result = ::kevent(queue_fd, &change, 1, nullptr, 0, nullptr);
  } while (result != 0 && errno == EINTR);
  return result == 0 ? 0 : errno;
}

CONCUR_NOINLINE CONCUR_INLINE int open_kqueue(int& queue_fd) noexcept {
  queue_fd = ::kqueue();
  if (queue_fd < 0) return errno;
  ::fcntl(queue_fd, F_SETFD, FD_CLOEXEC);  // a fork does not inherit a kqueue anyway
  return 0;
}

CONCUR_INLINE int poller::open() noexcept {
  int error = open_kqueue(queue_fd_);
#if defined(EVFILT_USER)
  if (error == 0) error = kqueue_change(queue_fd_, 0, EVFILT_USER, EV_ADD | EV_CLEAR, 0, kqueue_wake_mark);
#else
  if (error == 0) error = open_wake_pipe(wake_read_fd_, wake_write_fd_);
  if (error == 0) error = kqueue_change(queue_fd_, wake_read_fd_, EVFILT_READ, EV_ADD | EV_CLEAR, 0, kqueue_wake_mark);
#endif
  if (error != 0) close();
  return error;
}

CONCUR_INLINE void poller::close() noexcept {
  close_if_open(wake_read_fd_);
  close_if_open(wake_write_fd_);
  close_if_open(queue_fd_);
  // relaxed: nobody else uses a closed poller
  wake_pending_.store(0, std::memory_order_relaxed);
}

// Some descriptors can do one direction only, and some systems say so: the end of a pipe has no other. One filter is
// enough.
CONCUR_INLINE int poller::add(int fd, std::uint32_t slot, std::uint32_t generation) noexcept {
  int error = error_of_waiting_for(fd);
  if (error != 0) return error;
  const std::uint64_t mark = (std::uint64_t{slot} << 32) | generation;
  error = kqueue_change(queue_fd_, fd, EVFILT_READ, EV_ADD | EV_CLEAR, 0, mark);
  const int other_error = kqueue_change(queue_fd_, fd, EVFILT_WRITE, EV_ADD | EV_CLEAR, 0, mark);
  return other_error == 0 ? 0 : error;
}

CONCUR_INLINE void poller::arm(int, std::uint32_t, bool, bool) noexcept {}

CONCUR_INLINE void poller::remove(int fd, std::uint32_t) noexcept {
  kqueue_change(queue_fd_, fd, EVFILT_READ, EV_DELETE, 0, 0);
  kqueue_change(queue_fd_, fd, EVFILT_WRITE, EV_DELETE, 0, 0);
}

inline unsigned ready_from_kqueue(const struct kevent& event) noexcept {
  const auto flags = static_cast<unsigned>(event.flags);
  const bool is_read = event.filter == EVFILT_READ;
  const bool is_over = (flags & static_cast<unsigned>(EV_EOF)) != 0;
  if ((flags & static_cast<unsigned>(EV_ERROR)) != 0) return everything_ready;
  if (is_over && (!is_read || event.fflags != 0)) return everything_ready;
  if (is_over) return bit(readiness::readable) | bit(readiness::ended);
  return bit(is_read ? readiness::readable : readiness::writable);
}

CONCUR_NOINLINE CONCUR_INLINE int kqueue_block(int queue_fd, struct kevent* events, int capacity,
                                               std::int64_t timeout_ns) noexcept {
  timespec time{};
  const std::int64_t whole_seconds = timeout_ns / 1000000000;
  constexpr std::int64_t most_seconds = 24 * 3600;  // some systems refuse what they think is too long
  time.tv_sec = static_cast<time_t>(whole_seconds < most_seconds ? whole_seconds : most_seconds);
  time.tv_nsec = static_cast<int>(timeout_ns % 1000000000);
  const int count = ::kevent(queue_fd, nullptr, 0, events, capacity, timeout_ns < 0 ? nullptr : &time);
  return count >= 0 ? count : -errno;
}

CONCUR_INLINE int poller::wait(poll_event* out, int capacity, std::int64_t timeout_ns) noexcept {
  constexpr int most_at_once = 64;  // the events are large, and the stack may be a fiber's
  struct kevent events[most_at_once];
  const int count = kqueue_block(queue_fd_, events, capacity < most_at_once ? capacity : most_at_once, timeout_ns);
  if (count < 0) return count == -EINTR ? 0 : count;

  int written = 0;
  for (int i = 0; i < count; ++i) {
    const std::uint64_t mark = mark_of(events[i].udata);
    if (mark == kqueue_wake_mark) {
#if !defined(EVFILT_USER)
      take_wake_bytes(wake_read_fd_);
#endif
      wake_seen();
      continue;
    }
    const unsigned ready = ready_from_kqueue(events[i]);
    out[written++] = poll_event{static_cast<std::uint32_t>(mark >> 32), static_cast<std::uint32_t>(mark), ready};
  }
  return written;
}

CONCUR_INLINE void poller::wake() noexcept {
  if (!must_wake()) return;
#if defined(EVFILT_USER)
  kqueue_change(queue_fd_, 0, EVFILT_USER, 0, NOTE_TRIGGER, kqueue_wake_mark);
#else
  write_wake_byte(wake_write_fd_);
#endif
}

CONCUR_INLINE int poller::descriptor_count() const noexcept {
  return (queue_fd_ >= 0 ? 1 : 0) + (wake_read_fd_ >= 0 ? 2 : 0);
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif

// machine/poller/poll.hpp - the poller for any POSIX system: poll() over everything that somebody waits for.
//
// poll() reports states and forgets its arguments. So the registrations are kept here, in a table indexed by slot, and
// each wait() copies out those which want something. A state reported once must not be reported for ever: an event ends
// the want it answers, and the reactor's arm() begins the next. All of it is linear in the number of registrations;
// this backend is for systems with nothing better, and for tests.
//
//   L1  The table is read and changed under its mutex, and poll() is called without it, on a copy.
//   L2  While is_blocking is set, a thread in wait() is between making its copy and coming back. Whoever changes what
//       the copy should have been wakes it: a new want would not be seen, and a descriptor that is removed would be
//       held open by poll(), its peer waiting for the end.
//   L3  A result counts only if its slot still has the generation that was copied. Otherwise the registration is gone,
//       and the descriptor polled may have been anybody's.
//   L4  The copy begins after the slot that was reported last when the caller's array was full, so that busy
//       descriptors with low numbers do not starve the rest.

#if CONCUR_BODIES && defined(CONCUR_POLLER_POLL)

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct poll_registration {
  int fd;  // -1: the slot is free
  std::uint32_t generation;
  short wanted;
};

// What wait() copied, beside the pollfd of the same index.
struct poll_copy {
  std::uint32_t slot;
  std::uint32_t generation;
};

struct poll_table {
  pthread_mutex_t mutex;
  poll_registration* entries = nullptr;
  std::uint32_t slot_count = 0;
  std::uint32_t first_slot = 0;  // where the next copy begins (L4)
  bool is_blocking = false;      // L2
  pollfd* polled = nullptr;      // these three belong to the thread in wait()
  poll_copy* copies = nullptr;
  std::uint32_t room = 0;
};

class poll_table_lock {
 public:
  explicit poll_table_lock(poll_table& table) noexcept : table_(table) { pthread_mutex_lock(&table_.mutex); }
  ~poll_table_lock() { pthread_mutex_unlock(&table_.mutex); }
  poll_table_lock(const poll_table_lock&) = delete;
  poll_table_lock& operator=(const poll_table_lock&) = delete;

 private:
  poll_table& table_;
};

inline poll_table& table_in(void* table) noexcept { return *static_cast<poll_table*>(table); }

CONCUR_INLINE int poller::open() noexcept {
  void* const room = std::malloc(sizeof(poll_table));
  if (room == nullptr) return ENOMEM;
  poll_table* const table = new (room) poll_table;
  table_ = table;
  pthread_mutex_init(&table->mutex, nullptr);  // default attributes: allocates nothing, cannot fail
  const int error = open_wake_pipe(wake_read_fd_, wake_write_fd_);
  if (error != 0) close();
  return error;
}

CONCUR_INLINE void poller::close() noexcept {
  close_if_open(wake_read_fd_);
  close_if_open(wake_write_fd_);
  if (table_ != nullptr) {
    poll_table& table = table_in(table_);
    std::free(table.entries);
    std::free(table.polled);
    std::free(table.copies);
    pthread_mutex_destroy(&table.mutex);
    std::free(table_);
    table_ = nullptr;
  }
  // relaxed: nobody else uses a closed poller
  wake_pending_.store(0, std::memory_order_relaxed);
}

// Makes an array of malloc's longer. False: there is no memory, and the array is as it was.
template <class T>
bool grow_array(T*& array, std::uint32_t count) noexcept {
  void* const longer = std::realloc(static_cast<void*>(array), count * sizeof(T));
  if (longer == nullptr) return false;
  array = static_cast<T*>(longer);
  return true;
}

inline constexpr short poll_readable = POLLIN | POLLPRI;

CONCUR_INLINE int poller::add(int fd, std::uint32_t slot, std::uint32_t generation) noexcept {
  const int error = error_of_waiting_for(fd);
  if (error != 0) return error;
  poll_table& table = table_in(table_);
  bool must_tell = false;
  {
    poll_table_lock hold(table);
    if (slot >= table.slot_count) {
      const std::uint32_t count = slot + slot / 2 + 16;
      if (count < slot || !grow_array(table.entries, count)) return ENOMEM;
      for (std::uint32_t i = table.slot_count; i < count; ++i) table.entries[i] = poll_registration{-1, 0, 0};
      table.slot_count = count;
    }
    if (table.entries[slot].fd >= 0) return EEXIST;
    table.entries[slot] = poll_registration{fd, generation, static_cast<short>(poll_readable | POLLOUT)};
    must_tell = table.is_blocking;
  }
  if (must_tell) wake();
  return 0;
}

CONCUR_INLINE void poller::arm(int fd, std::uint32_t slot, bool for_read, bool for_write) noexcept {
  poll_table& table = table_in(table_);
  bool must_tell = false;
  {
    poll_table_lock hold(table);
    if (slot >= table.slot_count || table.entries[slot].fd != fd) return;
    const int wanted = (for_read ? poll_readable : 0) | (for_write ? POLLOUT : 0);
    const bool is_new = (wanted & ~table.entries[slot].wanted) != 0;
    table.entries[slot].wanted = static_cast<short>(table.entries[slot].wanted | wanted);
    must_tell = is_new && table.is_blocking;
  }
#if CONCUR_MUTANT_IS(24)
  static_cast<void>(must_tell);  // planted bug: the poll() in progress goes on with its old copy
#else
  if (must_tell) wake();
#endif
}

CONCUR_INLINE void poller::remove(int fd, std::uint32_t slot) noexcept {
  poll_table& table = table_in(table_);
  bool must_tell = false;
  {
    poll_table_lock hold(table);
    if (slot >= table.slot_count || table.entries[slot].fd != fd) return;
    must_tell = table.is_blocking && table.entries[slot].wanted != 0;
    table.entries[slot].fd = -1;
  }
  if (must_tell) wake();
}

// Copies what wants something, behind the pipe's read end. Returns how many entries there are, or 0 for no memory.
CONCUR_INLINE std::uint32_t copy_wanted(poll_table& table, int wake_fd, bool is_blocking) noexcept {
  poll_table_lock hold(table);
  if (table.room < table.slot_count + 1) {
    if (!grow_array(table.polled, table.slot_count + 1) || !grow_array(table.copies, table.slot_count + 1)) return 0;
    table.room = table.slot_count + 1;
  }
  table.polled[0] = pollfd{wake_fd, POLLIN, 0};
  std::uint32_t count = 1;
  for (std::uint32_t i = 0; i < table.slot_count; ++i) {
    const std::uint32_t slot = (table.first_slot + i) % table.slot_count;
    const poll_registration& one = table.entries[slot];
    if (one.fd < 0 || one.wanted == 0) continue;
    table.polled[count] = pollfd{one.fd, one.wanted, 0};
    table.copies[count++] = poll_copy{slot, one.generation};
  }
  table.is_blocking = is_blocking;
  return count;
}

// Count of ready entries, or -errno. Milliseconds are rounded up where nothing finer is to be had.
CONCUR_NOINLINE CONCUR_INLINE int poll_block(pollfd* polled, std::uint32_t count, std::int64_t timeout_ns) noexcept {
#if defined(__linux__) || defined(__FreeBSD__) || defined(__OpenBSD__) || defined(__DragonFly__)
  timespec time{};
  const std::int64_t whole_seconds = timeout_ns / 1000000000;
  constexpr std::int64_t most_seconds = 24 * 3600;
  time.tv_sec = static_cast<time_t>(whole_seconds < most_seconds ? whole_seconds : most_seconds);
  time.tv_nsec = static_cast<int>(timeout_ns % 1000000000);
  const int ready = ::ppoll(polled, count, timeout_ns < 0 ? nullptr : &time, nullptr);
#else
  const std::int64_t rounded_up_ms = timeout_ns / 1000000 + (timeout_ns % 1000000 != 0 ? 1 : 0);
  const int timeout_ms = rounded_up_ms > 0x7fffffff ? 0x7fffffff : static_cast<int>(rounded_up_ms);
  const int ready = ::poll(polled, count, timeout_ns < 0 ? -1 : timeout_ms);
#endif
  return ready >= 0 ? ready : -errno;
}

inline unsigned ready_from_poll(int events) noexcept {
  if ((events & (POLLERR | POLLHUP | POLLNVAL)) != 0) return everything_ready;
  return ((events & poll_readable) != 0 ? bit(readiness::readable) : 0) |
         ((events & POLLOUT) != 0 ? bit(readiness::writable) : 0);
}

CONCUR_INLINE int poller::wait(poll_event* out, int capacity, std::int64_t timeout_ns) noexcept {
  poll_table& table = table_in(table_);
  const std::uint32_t count = copy_wanted(table, wake_read_fd_, timeout_ns != 0);
  if (count == 0) return -ENOMEM;
  int remaining = poll_block(table.polled, count, timeout_ns);

  poll_table_lock hold(table);
  table.is_blocking = false;
  if (remaining < 0) return remaining == -EINTR ? 0 : remaining;
  if (table.polled[0].revents != 0) {
#if CONCUR_MUTANT_IS(26)
    wake_seen();  // planted bug: a waker in between writes a byte that is taken below, and nobody writes another
    take_wake_bytes(wake_read_fd_);
#else
    take_wake_bytes(wake_read_fd_);
    wake_seen();
#endif
    --remaining;
  }
  int written = 0;
  for (std::uint32_t i = 1; i < count && remaining > 0; ++i) {
    const int events = table.polled[i].revents;
    if (events == 0) continue;
    --remaining;
    const poll_copy& copied = table.copies[i];
    poll_registration& one = table.entries[copied.slot];
    if (one.fd < 0 || one.generation != copied.generation) continue;  // L3
    if (written == capacity) {
      table.first_slot = copied.slot;  // L4
      break;
    }
    const unsigned ready = ready_from_poll(events);
    one.wanted = static_cast<short>(ready == everything_ready ? 0 : one.wanted & ~events);
    out[written++] = poll_event{copied.slot, copied.generation, ready};
  }
  return written;
}

CONCUR_INLINE void poller::wake() noexcept {
  if (must_wake()) write_wake_byte(wake_write_fd_);
}

CONCUR_INLINE int poller::descriptor_count() const noexcept { return wake_read_fd_ >= 0 ? 2 : 0; }

}  // namespace detail
CONCUR_NAMESPACE_END

#endif

// runtime/options.hpp - what a user may ask of a runtime, and what is refused.

CONCUR_NAMESPACE_BEGIN

// Whether a fiber may go on on another worker than the one it stopped on.
enum class migration : unsigned char {
  free,      // any ready fiber may be taken over by an idle worker
  at_start,  // only fibers that have not run yet; one that has stays with its worker
};

struct options {
  // Threads that run fibers. 0: as many as this process may use CPUs (affinity mask and cgroup quota).
  unsigned workers = 0;
  // Usable bytes of a fiber's stack, rounded up to pages. 0: 256 KiB on 64-bit machines, 64 KiB on 32-bit ones.
  std::size_t stack_size = 0;
  // Upper bound of the threads behind blocking(), and of the jobs that may wait for them.
  unsigned blocking_threads = 64;
  std::size_t blocking_queue = 1024;
  // Whether run() reports that every fiber waits for another.
  bool detect_deadlock = true;
  // A worker stuck in one fiber for longer is handed off.
  std::chrono::nanoseconds stall_after = std::chrono::milliseconds(10);
  concur::migration migration = concur::migration::free;
};

namespace detail {

inline constexpr unsigned workers_max = 1024;
inline constexpr std::size_t default_stack_bytes = sizeof(void*) == 8 ? 256 * 1024 : 64 * 1024;
inline constexpr std::size_t stack_bytes_max = std::size_t{1} << (sizeof(void*) == 8 ? 36 : 28);

// The options with every 0 replaced by what it stands for. Throws std::invalid_argument naming the field and its value.
CONCUR_INLINE options resolve_options(options wanted);

// CPUs this process may use: its affinity mask, cut by the quota of its control group where there is one. At least 1.
CONCUR_INLINE unsigned usable_cpu_count() noexcept;

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  if defined(__linux__)
#  endif

CONCUR_NAMESPACE_BEGIN
namespace detail {

#  if defined(__linux__)
// Control groups v2, then v1, as seen from inside the group; 0 when there is no quota.
inline unsigned cgroup_cpu_quota() noexcept {
  long quota_us = -1;
  long period_us = 0;
  if (std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "re")) {
    if (std::fscanf(file, "%ld %ld", &quota_us, &period_us) != 2) quota_us = -1;  // "max": no quota
    std::fclose(file);
  } else if (std::FILE* quota = std::fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "re")) {
    if (std::fscanf(quota, "%ld", &quota_us) != 1) quota_us = -1;
    std::fclose(quota);
    if (std::FILE* period = std::fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "re")) {
      if (std::fscanf(period, "%ld", &period_us) != 1) period_us = 0;
      std::fclose(period);
    }
  }
  if (quota_us <= 0 || period_us <= 0) return 0;
  return static_cast<unsigned>((quota_us + period_us - 1) / period_us);
}
#  endif

CONCUR_INLINE unsigned usable_cpu_count() noexcept {
  unsigned count = 0;
#  if defined(__linux__)
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) count = static_cast<unsigned>(CPU_COUNT(&mask));
  const unsigned quota = cgroup_cpu_quota();
  if (quota != 0 && (count == 0 || quota < count)) count = quota;
#  endif
  if (count == 0) {
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    count = online > 0 ? static_cast<unsigned>(online) : 1;
  }
  return count < workers_max ? count : workers_max;
}

CONCUR_INLINE options resolve_options(options wanted) {
  if (wanted.workers == 0) wanted.workers = usable_cpu_count();
  if (wanted.workers > workers_max)
    fail_argument("concur::runtime", "options.workers", std::to_string(wanted.workers),
                  "at most 1024 workers are supported");
  if (wanted.stack_size == 0) wanted.stack_size = default_stack_bytes;
  if (wanted.stack_size < minimum_stack_bytes) {
    const std::string advice =
        "a fiber's stack needs at least " + std::to_string(minimum_stack_bytes) + " bytes; 0 takes the default";
    fail_argument("concur::runtime", "options.stack_size", std::to_string(wanted.stack_size) + " bytes",
                  advice.c_str());
  }
  if (wanted.stack_size > stack_bytes_max) {
    const std::string advice = "at most " + std::to_string(stack_bytes_max) + " bytes can be reserved for one stack";
    fail_argument("concur::runtime", "options.stack_size", std::to_string(wanted.stack_size) + " bytes",
                  advice.c_str());
  }
  if (wanted.blocking_threads == 0)
    fail_argument("concur::runtime", "options.blocking_threads", "0", "blocking() needs at least one thread");
  if (wanted.blocking_queue == 0)
    fail_argument("concur::runtime", "options.blocking_queue", "0", "at least one job must be able to wait");
  if (wanted.stall_after.count() < 0) {
    fail_argument("concur::runtime", "options.stall_after", std::to_string(wanted.stall_after.count()) + " ns",
                  "it is a length of time; 0 or more");
  }
  return wanted;
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES

// runtime/seam.hpp - every choice the runtime leaves open, in one place.
//
// A scheduler is full of choices that no promise decides: whom to rob, which ready case of a select runs, how many bytes a
// read gives. In production they are made as cheaply as possible. An exploration wants to make them itself, all of them,
// from one seed: then a failure seen once can be seen again. So the runtime never decides by itself; it asks here.
//
//   C1  Whoever adds a choice whose outcome a user could observe adds it to `choice` (base/driver.hpp), and asks through
//       these functions.
//   C2  Without a driver a question costs what the bare decision costs, and one untaken branch.
//   C3  A driver answers on the thread that asks, does not park, and answers choose(n) with a number below n.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016, section 3):
// two dozen bits of good randomness in a few cycles. Not for secrets.
class random_source {
 public:
  explicit random_source(std::uint64_t seed) noexcept : state_(seed | 1) {}
  std::uint32_t next() noexcept {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return static_cast<std::uint32_t>((state_ * 0x2545F4914F6CDD1Du) >> 32);
  }

 private:
  std::uint64_t state_;
};

// A seed for a thread that has no source of its own: the time and an address of its stack, well mixed (splitmix64, Steele
// and others, "Fast splittable pseudorandom number generators", 2014, section 4).
inline std::uint64_t thread_seed(const void* stack_address) noexcept {
  std::uint64_t z = static_cast<std::uint64_t>(now_ns()) + reinterpret_cast<std::uintptr_t>(stack_address);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// A number below count, which is at least 1.
inline std::uint32_t seam_choose(random_source& random, choice what, std::uint32_t count) noexcept {
  if (driver* d = driver_or_null(); CONCUR_UNLIKELY(d != nullptr)) return d->choose(what, count);
  return static_cast<std::uint32_t>((std::uint64_t{random.next()} * count) >> 32);
}

}  // namespace detail
CONCUR_NAMESPACE_END

// runtime/waiter.hpp - who waits, and the one claim by which a wait ends.
//
// A channel, a lock, a timer, a socket and a cancellation may all want to end the same wait, at the same time, from
// different threads. Exactly one may. And who waits may be a fiber or a plain thread (or, later, a coroutine):
// whoever ends the wait must not care. Two small things answer both needs:
//
//     party    who waits: a fiber, or a thread inside a blocking call. Holds the wait word and what ended the wait.
//     waiter   one note "this party waits here", linked into one site's queue. A select leaves several with one party.
//
// The wait word counts waits: even values mean "not waiting", odd ones "in wait number word/2".
//
//     value    meaning                    next     written by
//     2n       runs, or is ready to       2n+1     the party, in its commit, as it stops     (park)
//     2n+1     waits                      2n+2     the one that ends the wait                (claim)
//
//   W1  A wait ends by exactly one successful claim: a compare-exchange from 2n+1 to 2n+2. Who fails has nothing to
//       do with this wait any more.
//   W2  The claimer writes `result`, reads what it needs from the note, then resumes the party, and touches neither
//       party nor note afterwards: both may be gone. A fiber's own block stays readable (its pool never unmaps while
//       in use); a thread's not.
//   W3  A site's queue is guarded by the site's lock. The claimer that found the note in a queue unlinks it under
//       that lock. A party ended by anybody else unlinks its own notes, under that lock, before it leaves the wait.
//   W4  Values move under the site's lock, by the claimer, after the claim: who timed out has lost nothing, because
//       nothing was given.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// What ended a wait. Written by the claimer before it resumes the party.
enum class outcome : unsigned char {
  granted,    // what was waited for happened; a value or a lock, if any, was handed over
  closed,     // the site was closed
  retry,      // what was offered went back; the party looks again
  timed_out,  // the deadline passed
  cancelled,  // the scope was cancelled
};

// Why a party waits; what dumps print.
enum class wait_reason : unsigned char {
  none,
  sleep,
  channel_send,
  channel_recv,
  select,
  mutex_lock,
  shared_lock,
  condition_wait,
  semaphore_acquire,
  latch_wait,
  barrier_wait,
  event_wait,
  once_wait,
  pool_acquire,
  wait_group_wait,
  future_get,
  nursery_join,
  nursery_room,
  readable,
  writable,
};
CONCUR_INLINE const char* to_string(wait_reason reason) noexcept;

enum class party_kind : unsigned char { fiber, thread };

struct party {
  explicit party(party_kind kind_in) noexcept : kind(kind_in) {}

  atomic<std::uint32_t> word{0};
  outcome result = outcome::granted;
  party_kind kind;

  // The value that the word has during the next wait. Only for the party itself, while it runs.
  std::uint32_t next_ticket() const noexcept {
    return word.load(std::memory_order_relaxed) + 1;  // relaxed: only this party changes it while it is even
  }
};

// W1. True for exactly one caller per wait.
inline bool claim(party& who, std::uint32_t ticket) noexcept {
  std::uint32_t expected = ticket;
  if (CONCUR_MUTANT_IS(2)) {  // two may win, because looking and taking are two steps
    if (who.word.load(std::memory_order_acquire) != ticket) return false;  // acquire: mutant
    who.word.store(ticket + 1, std::memory_order_release);                 // release: mutant
    return (expected & 1) != 0;
  }
  // acq_rel: sees what the party did before it waited, and publishes the claimer's writes to whoever loses and looks
  // again. relaxed on failure: the loser reads nothing of the party's.
  return who.word.compare_exchange_strong(expected, ticket + 1, std::memory_order_acq_rel, std::memory_order_relaxed);
}

struct waiter {
  waiter() noexcept = default;
  waiter(party* who_in, void* value_in) noexcept : who(who_in), value(value_in), ticket(who_in->next_ticket()) {}
  waiter(const waiter&) = delete;
  waiter& operator=(const waiter&) = delete;

  // For a note that is used for one wait after another.
  void begin(party* who_in) noexcept {
    who = who_in;
    ticket = who_in->next_ticket();
  }

  // W1, W5.
  bool claim() noexcept {
    if (!detail::claim(*who, ticket)) return false;
    ticket = chosen;
    return true;
  }
  // Whether a claim would succeed now. Somebody else may still win it before.
  bool is_claimable() const noexcept {
    return who->word.load(std::memory_order_relaxed) == ticket;  // relaxed: the claim decides
  }
  bool was_chosen() const noexcept { return ticket == chosen; }

  waiter* next = nullptr;  // the site's queue
  waiter* prev = nullptr;
  party* who = nullptr;
  void* value = nullptr;  // where a value comes from or goes to; its type is known to the site
  std::uint32_t ticket = 0;

 private:
  static constexpr std::uint32_t chosen = 0;  // even: never the ticket of a wait
};

// Makes a claimed party go on. Defined by the scheduler; W2 holds from here.
CONCUR_INLINE void resume(party* who) noexcept;
CONCUR_INLINE void resume_thread(party* who) noexcept;  // the half of it for plain threads (caller.hpp)

// Claims the party and ends its wait with `result`: both steps, for who has no value to hand over.
inline bool end_wait(party& who, std::uint32_t ticket, outcome result) noexcept {
  if (!claim(who, ticket)) return false;
  who.result = result;
  resume(&who);
  return true;
}

// The first waiter of a site's queue whose wait nobody else has ended: unlinked and claimed. Under the site's lock.
inline waiter* pop_claimed(intrusive_list<waiter>& queue) noexcept {
  while (waiter* note = queue.pop_front()) {
    if (CONCUR_LIKELY(note->claim())) return note;
  }
  return nullptr;
}

// Whether somebody in the queue can be claimed: who cannot, because its wait was ended elsewhere, is unlinked on the way.
// Under the site's lock.
inline bool has_claimable(intrusive_list<waiter>& queue) noexcept {
  while (waiter* note = queue.front()) {
    if (CONCUR_LIKELY(note->is_claimable())) return true;
    queue.erase(note);
  }
  return false;
}

// Parties whose waits a site ended all at once: claimed under its lock, resumed without it, in the order of their queue.
// The chain runs through the notes, which stay as long as their parties are not resumed (W2). So a note that was chosen may
// look linked.
class ended_waits {
 public:
  ended_waits() noexcept = default;
  ended_waits(const ended_waits&) = delete;
  ended_waits& operator=(const ended_waits&) = delete;

  // Ends the wait of a note that has just been taken off its queue and claimed. Under the site's lock.
  void add(waiter* note, outcome result) noexcept {
    note->who->result = result;
    *end_ = note;
    end_ = &note->next;
  }
  // Ends every wait in the queue, and returns how many there were. Under the site's lock.
  std::ptrdiff_t take_all(intrusive_list<waiter>& queue, outcome result) noexcept {
    std::ptrdiff_t count = 0;
    while (waiter* note = pop_claimed(queue)) {
      add(note, result);
      ++count;
    }
    return count;
  }
  void resume_all() noexcept {
    while (first_ != nullptr) {
      party* who = first_->who;
      waiter* const here = first_;
      first_ = first_->next;  // read before the resume (W2)
      resume(who);
      if (CONCUR_MUTANT_IS(285)) {
        for (unsigned round = 0; round < 3;) spin_wait(round);
        first_ = here->next;
      }
    }
  }

 private:
  waiter* first_ = nullptr;
  waiter** end_ = &first_;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE const char* to_string(wait_reason reason) noexcept {
  switch (reason) {
    case wait_reason::none:
      return "nothing";
    case wait_reason::sleep:
      return "sleep";
    case wait_reason::channel_send:
      return "channel send";
    case wait_reason::channel_recv:
      return "channel receive";
    case wait_reason::select:
      return "select";
    case wait_reason::mutex_lock:
      return "mutex lock";
    case wait_reason::shared_lock:
      return "shared_mutex lock_shared";
    case wait_reason::condition_wait:
      return "condition_variable wait";
    case wait_reason::semaphore_acquire:
      return "semaphore acquire";
    case wait_reason::latch_wait:
      return "latch wait";
    case wait_reason::barrier_wait:
      return "barrier wait";
    case wait_reason::event_wait:
      return "event wait";
    case wait_reason::once_wait:
      return "call_once";
    case wait_reason::pool_acquire:
      return "resource_pool acquire";
    case wait_reason::wait_group_wait:
      return "wait_group wait";
    case wait_reason::future_get:
      return "future";
    case wait_reason::nursery_join:
      return "end of a nursery";
    case wait_reason::nursery_room:
      return "room in a nursery";
    case wait_reason::readable:
      return "readable descriptor";
    case wait_reason::writable:
      return "writable descriptor";
  }
  return "unknown";
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// runtime/token_state.hpp - one word "it was cancelled", shared by handles, and those who want to hear of it.
//
// A scope ends with its block; a token handed to other code may be asked later, from any thread. So what a token asks lives
// by itself, as long as anybody holds it.
//
//   K1  It is cancelled once, and stays so. Who cancels it first calls the listeners, one by one, without the lock; they may
//       take locks of their own, but not wait.
//   K2  A listener is called at most once. When forget() returns, it is not being called, and will not be.

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct token_listener {
  explicit token_listener(void (*hear_in)(token_listener*) noexcept) noexcept : hear(hear_in) {}
  token_listener(const token_listener&) = delete;
  token_listener& operator=(const token_listener&) = delete;

  token_listener* next = nullptr;
  token_listener* prev = nullptr;
  void (*hear)(token_listener*) noexcept;
  atomic<bool> is_called{false};  // it was taken off the list, and the call is not over; written by who cancels
};

struct token_bridge {
  void (*free)(token_bridge*) noexcept;
};

class token_state {
 public:
  token_state() noexcept = default;
  token_state(const token_state&) = delete;
  token_state& operator=(const token_state&) = delete;

  void hold() noexcept { holders_.fetch_add(1, std::memory_order_relaxed); }  // relaxed: the caller holds it already
  void release() noexcept {
    // acq_rel: publishes what was done with it to who frees it, and sees what the others did.
    if (holders_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  bool is_cancelled() const noexcept {
    return is_cancelled_.load(std::memory_order_acquire);  // acquire: sees what was done before the cancellation
  }
  void cancel() noexcept;
  // False, and nothing is kept: it is cancelled already.
  bool listen(token_listener& who) noexcept;
  void forget(token_listener& who) noexcept;  // K2

  token_state* next_told = nullptr;   // of one cancellation's list (cancel.hpp)
  atomic<bool> is_told{false};  // it is, or was, in such a list
  // What ties it to a std::stop_token; made at most once (cancel_token.hpp).
  atomic<token_bridge*> bridge{nullptr};

 private:
  void call_listeners() noexcept;
  ~token_state() {
    // relaxed: the last holder is alone.
    if (token_bridge* const made = bridge.load(std::memory_order_relaxed)) made->free(made);
  }

  atomic<std::uint32_t> holders_{1};
  atomic<bool> is_cancelled_{false};
  spin_lock lock_;
  intrusive_list<token_listener> listeners_;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void token_state::cancel() noexcept {
  const auto one_more = [](std::uint32_t n) { return n != 0 ? std::optional<std::uint32_t>(n + 1) : std::nullopt; };
  // relaxed: who frees it pairs with the release below. Refused: it is being freed, and waits for us (cancel_token.hpp).
  if (!cas_update(holders_, one_more, std::memory_order_relaxed)) return;
  call_listeners();
  release();
}

CONCUR_INLINE void token_state::call_listeners() noexcept {
  for (;;) {
    token_listener* who = nullptr;
    {
      lock_scope<spin_lock> held(lock_);
      is_cancelled_.store(true, std::memory_order_release);  // release: pairs with is_cancelled
      who = listeners_.pop_front();
      if (who != nullptr) who->is_called.store(true, std::memory_order_relaxed);  // relaxed: under the lock
    }
    if (who == nullptr) return;
    if (CONCUR_MUTANT_IS(204)) {
      for (unsigned round = 0; round < 12;) spin_wait(round);
    }
    who->hear(who);
    who->is_called.store(false, std::memory_order_release);  // release: the last touch; pairs with forget
  }
}

CONCUR_INLINE bool token_state::listen(token_listener& who) noexcept {
  lock_scope<spin_lock> held(lock_);
  if (is_cancelled() && !CONCUR_MUTANT_IS(295)) return false;
  listeners_.push_back(&who);
  return true;
}

CONCUR_INLINE void token_state::forget(token_listener& who) noexcept {
  {
    lock_scope<spin_lock> held(lock_);
    if (intrusive_list<token_listener>::is_linked(&who)) listeners_.erase(&who);
  }
  // acquire: pairs with the end of the call.
  for (unsigned round = 0; who.is_called.load(std::memory_order_acquire) && !CONCUR_MUTANT_IS(204);) spin_wait(round);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// runtime/scope.hpp - what a cancellation reaches: scopes, the tree they form, and the few words that each of them is.
//
// A scope is a block of a fiber that can be cancelled as a whole. Scopes of one fiber nest; a nursery is a scope below
// which other fibers live, each with scopes of its own. So there is one tree, and cancelling a scope means all that hangs
// below it:
//
//     the runtime's root
//       fiber A        scope (a deadline)     nursery N
//                                               fiber B
//                                               fiber C     scope     nursery M
//                                                                       fiber D
//
// `is_cancelled` is kept up to date in every scope of the tree, and that of its innermost scope in every fiber, so that a
// parking operation asks one word, however deep the tree is:
//
//     is_cancelled  =  was_called  or  (not is_shielded  and  parent's is_cancelled)
//
// Locks, always taken from the root towards the leaves, and held while anything below is looked at (cancel.hpp):
//
//     fiber.scope_lock     the list of scopes that this fiber has entered: current_scope and up to where its parent begins
//     nursery_part.gate    the fibers that live below the nursery
//
//   H1  A scope is entered and left by its owner, under the owner's lock, last in first out. Its parent does not change
//       meanwhile, and outlives it; so walking up needs no lock.
//   H2  A fiber is a nursery's member from before it is ready for the first time until it has left all scopes of its own.
//       While a nursery has members, its owner does not leave it.
//   H3  The equation above holds for every scope below a flag that is not just being changed; who changes one has the lock
//       of its owner, and goes on below before letting go of it. Who enters a scope computes its flag under the lock.

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct fiber;
struct nursery_part;

struct scope {
  scope() noexcept = default;
  ~scope() {
    // relaxed: whoever made it has handed the scope back.
    if (token_state* const t = token.load(std::memory_order_relaxed)) t->release();
  }
  scope(const scope&) = delete;
  scope& operator=(const scope&) = delete;

  // relaxed, all: a cancellation that a look misses claims the wait word instead (suspend.hpp, S5).
  bool is_effective() const noexcept { return is_cancelled.load(std::memory_order_relaxed); }
  // What it was entered below; null: nothing yet, or it is a root.
  scope* outer() const noexcept { return parent.load(std::memory_order_relaxed); }  // relaxed: as above
  bool surroundings_cancelled() const noexcept {
    const scope* const around = outer();
    return around != nullptr && !is_shielded.load(std::memory_order_relaxed) &&  // relaxed: as above
           around->is_effective();
  }
  // Whether the cancellation that is felt here is this scope's own: then it ends here (Trio's rule).
  bool is_origin() const noexcept { return is_effective() && !surroundings_cancelled(); }

  atomic<bool> is_cancelled{false};
  atomic<bool> was_called{false};   // somebody cancelled this very scope, or its deadline passed
  atomic<bool> is_shielded{false};  // what surrounds it does not reach it
  atomic<bool> was_raised{false};   // an operation below was told of its cancellation
  unsigned char outer_unwind_base = 0;   // the owner's, to be put back
  atomic<fiber*> owner{nullptr};    // who has entered it; null: nobody yet, or it was left
  atomic<scope*> parent{nullptr};
  scope* inner = nullptr;                    // a walker's note; under the owner's lock
  nursery_part* below = nullptr;             // the fibers that live below it, if it is a nursery's
  atomic<token_state*> token{nullptr};  // made when first asked for
};

// A fiber as a child of a nursery. The first part of the fiber's payload.
struct member {
  member* next = nullptr;
  member* prev = nullptr;
  fiber* who = nullptr;
  nursery_part* home = nullptr;
};

}  // namespace detail
CONCUR_NAMESPACE_END

// runtime/fiber.hpp - a fiber's control block, and the states it goes through.
//
// A fiber is three things of different life: the block here (from `go` until its future is dropped), a stack (from
// its first run until its function returns), and a closure (from `go` until it was called). The block and a small
// closure are one allocation; the stack is borrowed late and given back early, so that a million short fibers share a
// handful of hot stacks.
//
//     state      on which queue           next                by
//     idle       the pool                 ready               go
//     ready      exactly one run queue    running             the worker that picks it
//     running    none; worker.current     ready               yield (queued by whoever runs next, F1)
//                                         parked              park  (published by whoever runs next, F1)
//                                         finished            its function returned
//     parked     the site's, by waiters   ready               the one claimer (waiter.hpp, W1)
//     finished   none                     idle                the last of fiber and future to let go
//
//   F1  Nobody can find a fiber that still uses its registers: it is queued or published only after the switch away
//       from it.
//   F2  A fiber's block is never unmapped while its pool lives, and its wait word never goes back: a stale claim fails.
//   F3  `home` is set while the fiber must run on one worker only; it is then never on a queue that thieves reach.

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct worker;
class scheduler;
struct fiber_pool;
struct local_table;

enum class fiber_state : unsigned char { idle, ready, running, parked, finished };

inline constexpr std::size_t fiber_name_bytes = 24;

// Room for a small closure with its result.
inline constexpr std::size_t fiber_room_bytes = 96;

// A block, in whole cache lines, by how often each is needed: the first by every switch, the second by who begins or ends, the
// third by a closure of up to 64 bytes. A fiber that runs to its end without ado touches these three, which is what a million
// of them cost.
struct alignas(cache_line_bytes) fiber : party {
  fiber() noexcept : party(party_kind::fiber) {}

  std::atomic<fiber_state> state{fiber_state::idle};   // std::atomic: for dumps, and no protocol's
  std::atomic<wait_reason> reason{wait_reason::none};  // std::atomic: as above
  // The present wait is not to be cancelled; written before the wait word, read behind it.
  atomic<bool> is_deaf{false};
  // The flag of its innermost scope. Here, so that who publishes a wait may look at it although the fiber may be elsewhere by
  // then, and its scopes gone. Written by itself as it enters and leaves, and by who cancels; under scope_lock.
  atomic<bool> is_cancelled{false};
  bool is_started = false;         // it owns a stack, and ctx says where to go on
  unsigned char shield_depth = 0;  // above 0: cancellation is not raised
  std::uint16_t pin_depth = 0;     // how many pinned scopes it is in
  unsigned char unwind_base = 0;   // exceptions that were on their way when the current scope was entered
  bool has_belongings = false;     // a name or locals: to be freed with it
  context ctx{};
  exception_state exceptions{};  // what the C++ runtime keeps per thread about exceptions, while it is not running

  worker* home = nullptr;                 // F3
  fiber* next = nullptr;                  // the run queue's or the pool's link
  scheduler* owner = nullptr;             // whose queues it goes to; gone with its runtime
  atomic<scope*> current_scope{nullptr};  // written by the fiber itself, or before it is ready
  stack* memory = nullptr;
  // Calls the closure and keeps what came of it; with an errno instead of 0, only notes that there was no stack for it.
  // Returns the calling thread's worker.
  worker* (*entry)(fiber*, int refusal) noexcept = nullptr;
  void* payload = nullptr;  // closure and result: in `room` when small, on the heap when not
  std::uint64_t id = 0;

  alignas(16) unsigned char room[fiber_room_bytes];

  char* name = nullptr;           // null, or fiber_name_bytes of its own
  local_table* locals = nullptr;  // the values of fiber_locals that it has used; null: none
  spin_lock scope_lock;           // scope.hpp
#if CONCUR_ASAN || CONCUR_TSAN
  stack_notice* notice = nullptr;  // at the top of its stack, and gone with it
#endif

  // relaxed: the state is for dumps and checks; queues and the wait word order everything.
  void set_state(fiber_state s) noexcept {
#if defined(CONCUR_EXPLORE)
    if (driver* d = driver_or_null())
      d->expect(may_follow(state.load(std::memory_order_relaxed), s), "a fiber was made ready, or run, twice");  // relaxed
#endif
    state.store(s, std::memory_order_relaxed);  // relaxed: as above
  }
#if defined(CONCUR_EXPLORE)
  // The table at the top.
  static bool may_follow(fiber_state before, fiber_state after) noexcept {
    switch (after) {
      case fiber_state::idle:
        return before != fiber_state::parked;
      case fiber_state::ready:
        return before != fiber_state::ready && before != fiber_state::finished;
      case fiber_state::running:
        return before == fiber_state::ready;
      default:
        return before == fiber_state::running;
    }
  }
#endif
  void set_reason(wait_reason r) noexcept { reason.store(r, std::memory_order_relaxed); }  // relaxed: as above
  // For the fiber itself, for who has claimed its wait, and under scope_lock.
  scope* innermost() const noexcept {
    return current_scope.load(std::memory_order_relaxed);  // relaxed: see above
  }
  bool should_cancel() const noexcept {
    // relaxed: a cancellation that this look misses claims the wait word instead (suspend.hpp, S5).
    // Whose it is, know_cancelled_scopes lets it see.
    return CONCUR_UNLIKELY(is_cancelled.load(std::memory_order_relaxed)) && shield_depth == 0;
  }
};

// Whether an exception is on its way up the stopped fiber's stack, to beyond its current scope: destructors that run for
// it may park, and are not cancelled. One that opens a scope is cancelled by that scope's own deadline, say.
inline bool is_unwinding([[maybe_unused]] const fiber& f) noexcept {
#if CONCUR_EXCEPTIONS
  return f.exceptions.uncaught > f.unwind_base;
#else
  return false;
#endif
}

// For who walks along a list of blocks, and has just come from `here` to `next`. When these two are neighbours, so most likely
// is the one that comes in four steps, and lines of it are asked for; the list itself would tell where it is only after a wait
// for memory at each step. Elsewhere a guess would be wrong, and costs what it drives out of the cache.
CONCUR_FORCE_INLINE void fetch_along(const fiber* here, const fiber* next, int first, int last) noexcept {
  const std::uintptr_t step = reinterpret_cast<std::uintptr_t>(next) - reinterpret_cast<std::uintptr_t>(here);
  if (((step + sizeof(fiber)) & ~(2 * sizeof(fiber))) != 0) return;
  const char* const guess = reinterpret_cast<const char*>(reinterpret_cast<std::uintptr_t>(next) + 3 * step);
  for (int k = first; k <= last; ++k) __builtin_prefetch(guess + 64 * k, 1);
}

#if CONCUR_ASAN || CONCUR_TSAN
inline stack_notice& notice_of(fiber* f) noexcept { return *f->notice; }
#else
inline stack_notice no_notice{};  // an empty class: never written
inline stack_notice& notice_of(fiber*) noexcept { return no_notice; }
#endif

}  // namespace detail
CONCUR_NAMESPACE_END

// runtime/fiber_pool.hpp - blocks for fibers: taken and given back without a lock, walked by whoever wants to see all
// fibers.
//
// Spawning must cost no system call and no shared counter, and a dump or a cancellation must be able to find every
// fiber there is. A list of all fibers would make each spawn touch a shared word. So the memory itself is the list:
// blocks live in chunks that stay mapped as long as the pool, and walking the chunks finds every fiber, wherever it is.
//
// Each worker keeps two short stacks of free blocks of its own; the pool is the reserve behind them, behind a lock. What
// moves between them are whole batches, so that the lock is held for a few instructions, and a block's memory is not touched
// for being moved.
//
//   B1  A block's `fiber` is constructed once, when its chunk is, and reset on each use: its wait word counts on for
//       ever (F2).
//   B2  A future may outlive its runtime. The pool therefore lives until the runtime has let go of it and every block
//       is home.
//   B3  A chunk is aligned to its size, so that a block's address tells its chunk, and that its pool.
//   B4  A batch is batch_blocks blocks, linked through `next`; the first one's `payload` is the next batch.

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct fiber_pool;

// The header takes the room of one block, so that all blocks lie on their own cache lines.
struct fiber_chunk {
#if defined(CONCUR_EXPLORE)
  static constexpr std::size_t bytes = 4 * 1024;
#else
  static constexpr std::size_t bytes = 64 * 1024;
#endif
  static constexpr std::size_t blocks = bytes / sizeof(fiber) - 1;

  fiber_chunk* next;
  fiber_pool* pool;
  bool begins_memory;  // what was allocated begins with it
  fiber* block(std::size_t i) noexcept {
    return reinterpret_cast<fiber*>(reinterpret_cast<char*>(this) + (i + 1) * sizeof(fiber));
  }
};
static_assert(sizeof(fiber_chunk) <= sizeof(fiber), "the header takes the room of one block");

// B3.
inline fiber_pool* pool_of(const fiber* f) noexcept {
  return reinterpret_cast<const fiber_chunk*>(reinterpret_cast<std::uintptr_t>(f) & ~(fiber_chunk::bytes - 1))->pool;
}

struct fiber_pool {
 public:
#if defined(CONCUR_EXPLORE)
  static constexpr std::size_t batch_blocks = 4;
#else
  static constexpr std::size_t batch_blocks = 64;
#endif

  explicit fiber_pool(scheduler* owner) noexcept : owner_(owner) {}
  fiber_pool(const fiber_pool&) = delete;
  fiber_pool& operator=(const fiber_pool&) = delete;

  // Up to `count` blocks, at most a batch, linked through `next`; fewer only when memory is exhausted. `count` says then how
  // many.
  fiber* take(std::size_t& count) noexcept;
  // A list linked through `next`. May delete the pool, when it was abandoned and these were the last (B2).
  void give_back(fiber* list) noexcept;
  // A whole batch, while the runtime is there.
  void give_back_batch(fiber* batch) noexcept;
  // The runtime is gone. Deletes the pool now, or leaves that to the last give_back.
  void abandon() noexcept;
  // Calls use(owner, argument) if the runtime is still there, and keeps it there meanwhile.
  void with_owner(void (*use)(scheduler*, void*), void* argument) noexcept;
  // The same for what gives the runtime more to do; false, and no call, once it is about to end.
  bool with_open_owner(void (*use)(scheduler*, void*), void* argument) noexcept;
  // The runtime is about to end: what it has, it finishes, and nobody gives it more from outside.
  void close() noexcept;

  // Calls look(f, argument) for each block, free ones included, while no chunk can come or go.
  void walk(void (*look)(fiber*, void*), void* argument) noexcept;
  // The same without the lock, while nobody can run.
  void walk_stopped(void (*look)(fiber*, void*), void* argument) const noexcept;

 private:
  ~fiber_pool();
  bool grow() noexcept;
  void* next_chunk_memory(bool& begins) noexcept;

  spin_lock lock_;
  fiber_chunk* chunks_ = nullptr;
  std::size_t chunk_count_ = 0;
  char* uncarved_ = nullptr;  // what is left of the last allocation, up to uncarved_end_
  char* uncarved_end_ = nullptr;
  fiber* batches_ = nullptr;  // B4
  fiber* free_ = nullptr;     // not in batches
  std::size_t taken_count_ = 0;
  scheduler* owner_;  // null: abandoned
  bool is_open_ = true;
};

// A worker's own free blocks, up to two batches: one that is taken from and given back to, and a full one or none, so that
// a program whose spawning goes up and down across a border does not go to the pool each time. Owned by one thread.
class fiber_cache {
 public:
  // Null: there are none here.
  fiber* front() const noexcept { return free_; }
  // If there is one.
  fiber* take_front() noexcept {
    fiber* const f = free_;
    free_ = f->next;
    --count_;
    fetch_along(f, free_, 0, 2);
    return f;
  }
  fiber* take(fiber_pool& pool) noexcept {
    if (CONCUR_UNLIKELY(free_ == nullptr)) refill(pool);
    return free_ != nullptr ? take_front() : nullptr;
  }

  void give_back(fiber_pool& pool, fiber* f) noexcept {
    if (CONCUR_UNLIKELY(count_ == fiber_pool::batch_blocks)) put_aside(pool);
    f->next = free_;
    free_ = f;
    ++count_;
  }

  void clear(fiber_pool& pool) noexcept;

 private:
  void refill(fiber_pool& pool) noexcept;
  void put_aside(fiber_pool& pool) noexcept;

  fiber* free_ = nullptr;
  std::size_t count_ = 0;  // in free_
  fiber* full_ = nullptr;  // a batch
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

// One chunk while there are few; then as many at once as make a large page.
CONCUR_INLINE void* fiber_pool::next_chunk_memory(bool& begins) noexcept {
  begins = uncarved_ == uncarved_end_;
  if (begins) {
    const bool are_many = chunk_count_ * fiber_chunk::bytes >= large_page_bytes;
    std::size_t bytes = are_many ? large_page_bytes : fiber_chunk::bytes;
    void* memory = allocate_blocks(bytes);
    if (memory == nullptr && are_many) {
      bytes = fiber_chunk::bytes;
      memory = allocate_blocks(bytes);
    }
    if (memory == nullptr) return nullptr;
    uncarved_ = static_cast<char*>(memory);
    uncarved_end_ = uncarved_ + bytes;
  }
  void* const taken = uncarved_;
  uncarved_ += fiber_chunk::bytes;
  return taken;
}

CONCUR_INLINE bool fiber_pool::grow() noexcept {
  bool begins = false;
  void* const memory = next_chunk_memory(begins);
  if (memory == nullptr) return false;
  fiber_chunk* chunk = ::new (memory) fiber_chunk{chunks_, this, begins};
  for (std::size_t i = fiber_chunk::blocks; i-- > 0;) {
    fiber* f = ::new (static_cast<void*>(chunk->block(i))) fiber();
    f->next = free_;
    free_ = f;
  }
  chunks_ = chunk;
  ++chunk_count_;
  return true;
}

CONCUR_INLINE fiber* fiber_pool::take(std::size_t& count) noexcept {
  lock_scope<spin_lock> held(lock_);
  if (count == batch_blocks && batches_ != nullptr) {
    fiber* const batch = batches_;
    batches_ = static_cast<fiber*>(batch->payload);
    taken_count_ += batch_blocks;
    return batch;
  }
  fiber* list = nullptr;
  std::size_t got = 0;
  for (; got < count; ++got) {
    if (free_ == nullptr && batches_ != nullptr) {
      free_ = batches_;
      batches_ = static_cast<fiber*>(free_->payload);
    }
    if (free_ == nullptr && !grow()) break;
    fiber* f = free_;
    free_ = f->next;
    f->next = list;
    list = f;
  }
  taken_count_ += got;
  count = got;
  return list;
}

CONCUR_INLINE void fiber_pool::give_back_batch(fiber* batch) noexcept {
  lock_scope<spin_lock> held(lock_);
  batch->payload = batches_;
  batches_ = batch;
  taken_count_ -= batch_blocks;
}

CONCUR_INLINE void fiber_pool::give_back(fiber* list) noexcept {
  bool is_last = false;
  {
    lock_scope<spin_lock> held(lock_);
    while (list != nullptr) {
      fiber* f = list;
      list = f->next;
      f->next = free_;
      free_ = f;
      --taken_count_;
    }
    is_last = owner_ == nullptr && taken_count_ == 0;
  }
  if (is_last) delete this;
}

CONCUR_INLINE void fiber_pool::abandon() noexcept {
  bool is_last = false;
  {
    lock_scope<spin_lock> held(lock_);
    owner_ = nullptr;
    is_last = taken_count_ == 0;
  }
  if (is_last) delete this;
}

CONCUR_INLINE void fiber_pool::with_owner(void (*use)(scheduler*, void*), void* argument) noexcept {
  lock_scope<spin_lock> held(lock_);
  if (owner_ != nullptr) use(owner_, argument);
}

CONCUR_INLINE bool fiber_pool::with_open_owner(void (*use)(scheduler*, void*), void* argument) noexcept {
  lock_scope<spin_lock> held(lock_);
  if (owner_ == nullptr || (!is_open_ && !CONCUR_MUTANT_IS(144))) return false;
  use(owner_, argument);
  return true;
}

CONCUR_INLINE void fiber_pool::close() noexcept {
  lock_scope<spin_lock> held(lock_);
  is_open_ = false;
}

CONCUR_INLINE void fiber_pool::walk(void (*look)(fiber*, void*), void* argument) noexcept {
  lock_scope<spin_lock> held(lock_);
  walk_stopped(look, argument);
}

CONCUR_INLINE void fiber_pool::walk_stopped(void (*look)(fiber*, void*), void* argument) const noexcept {
  for (fiber_chunk* chunk = chunks_; chunk != nullptr; chunk = chunk->next) {
    for (std::size_t i = 0; i < fiber_chunk::blocks; ++i) look(chunk->block(i), argument);
  }
}

CONCUR_INLINE fiber_pool::~fiber_pool() {
  while (chunks_ != nullptr) {
    fiber_chunk* chunk = chunks_;
    chunks_ = chunk->next;
    for (std::size_t i = 0; i < fiber_chunk::blocks; ++i) chunk->block(i)->~fiber();
    if (chunk->begins_memory) free_blocks(chunk);  // what was carved from it later came earlier in this list
  }
}

CONCUR_NOINLINE CONCUR_INLINE void fiber_cache::refill(fiber_pool& pool) noexcept {
  count_ = fiber_pool::batch_blocks;
  free_ = full_ != nullptr ? std::exchange(full_, nullptr) : pool.take(count_);
}

CONCUR_NOINLINE CONCUR_INLINE void fiber_cache::put_aside(fiber_pool& pool) noexcept {
  if (full_ != nullptr) pool.give_back_batch(full_);
  full_ = std::exchange(free_, nullptr);
  count_ = 0;
}

CONCUR_INLINE void fiber_cache::clear(fiber_pool& pool) noexcept {
  if (free_ != nullptr) pool.give_back(std::exchange(free_, nullptr));
  if (full_ != nullptr) pool.give_back(std::exchange(full_, nullptr));
  count_ = 0;
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES

// runtime/run_queue.hpp - one worker's ready fibers: its own in order, the last one woken first, half of it free to
// be stolen.
//
// The owner pushes and pops at every switch, a thief comes when it has nothing to do. A compare-exchange for each pop
// would cost the owner more than the switch itself, so the owner takes part in a lock that is free for it: it marks
// itself inside with a plain store and looks whether a thief is there; a thief marks itself, makes every thread pass
// a fence (fence.hpp), and looks whether the owner is inside. At least one sees the other, and whoever comes second
// steps back.
//
//     owner                             thief
//     owner_inside_ = 1                 thief_inside_: 0 -> 1 by compare-exchange (one thief at a time)
//     light_fence                       heavy_fence
//     thief_inside_ != 0 ? step back    owner_inside_ != 0 ? wait a little, then give up
//
//   Q1  The ring, its indices, `recent_` and the pinned list are touched only inside.
//   Q2  Inside lasts a few instructions and never runs foreign code: a thief that waits, waits for those, or gives up.
//   Q3  Indices are 32 bits wide and only their difference counts; the ring's size divides 2^32.
//   Q4  A fiber that was just woken goes to `recent_` and runs next: its data is in this core's cache. Three in a row
//       at most, then the ring gets a turn, or two fibers that wake each other would keep the rest out for ever.
//   Q5  Pinned fibers are in a list of their own that thieves do not look at, and take turns with the ring.
//
// Sources: the steal-half ring is the one of Go's scheduler (proc.go, runqgrab); the lock is Dekker's, made
// asymmetric as in Dice, Huang and Yang, "Asymmetric Dekker Synchronization" (2001).

CONCUR_NAMESPACE_BEGIN
namespace detail {

class run_queue {
 public:
  // Fibers; the rest goes to the shared queue. A ring that is too small for a program's ready fibers moves them all
  // through that queue's lock, again and again; this one costs 8 KiB a worker.
#if defined(CONCUR_EXPLORE)
  static constexpr std::uint32_t capacity = 16;  // small, so that what happens to a full ring happens
  static constexpr std::uint32_t batch = 4;
#else
  static constexpr std::uint32_t capacity = sizeof(void*) == 8 ? 1024 : 256;
  static constexpr std::uint32_t batch = 128;  // how many move at once, to a thief or to the shared queue
#endif

  // Tests begin near the wrap (Q3).
  explicit run_queue(std::uint32_t first_index = 0) noexcept : head_(first_index), tail_(first_index) {}

  // --- the owner ---

  // Behind all others. False: the ring is full, and `f` is not in it.
  CONCUR_FORCE_INLINE bool push(fiber* f) noexcept {
    enter();
    const bool done = push_inside(f);
    leave();
    return done;
  }

  // Before all others (Q4). The one that was there goes behind the ring; false: the ring is full and `displaced` is
  // left over.
  CONCUR_FORCE_INLINE bool push_recent(fiber* f, fiber*& displaced) noexcept {
    enter();
    displaced = recent_.load(std::memory_order_relaxed);  // relaxed: inside (Q1)
    recent_.store(f, std::memory_order_relaxed);          // relaxed: inside
    const bool done = displaced == nullptr || push_inside(displaced);
    leave();
    return done;
  }

  void push_pinned(fiber* f) noexcept {
    enter();
    pinned_.push(f);
    // relaxed: a hint for whoever decides whether to look.
    pinned_count_.store(pinned_count_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    leave();
  }

  CONCUR_FORCE_INLINE fiber* pop() noexcept {
    enter();
    fiber* f = pop_inside();
    leave();
    return f;
  }

  // The same, where a driver decides which one (driven.hpp).
  fiber* pop_driven(driver& d) noexcept;

  // Takes the oldest out of a full ring, to be given to the shared queue in one go.
  std::uint32_t pop_batch(fiber** out) noexcept {
    enter();
    const std::uint32_t n = take_from_ring(out, batch);
    leave();
    return n;
  }

  // For the owner: who is k places behind the next one in the ring, unless somebody takes it meanwhile; null: nobody.
  fiber* peek(std::uint32_t k) const noexcept {
    if (k >= stealable_count()) return nullptr;
    return ring_[(head_.load(std::memory_order_relaxed) + k) % capacity];  // relaxed: a hint
  }

  // --- anybody ---

  // How many fibers a thief may find; exact only for the owner.
  std::uint32_t stealable_count() const noexcept {
    // relaxed: a hint. The fences of the sleep protocol (idle.hpp) make it exact where that counts.
    return tail_.load(std::memory_order_relaxed) - head_.load(std::memory_order_relaxed);
  }
  // Changes whenever the owner takes from the ring: a thief's way to see whether what is there is only passing through.
  std::uint32_t progress_mark() const noexcept { return head_.load(std::memory_order_relaxed); }  // relaxed: a hint
  bool has_any() const noexcept {
    // relaxed: as above.
    return stealable_count() != 0 || recent_.load(std::memory_order_relaxed) != nullptr ||
           pinned_count_.load(std::memory_order_relaxed) != 0;  // relaxed: as above
  }
  bool has_recent() const noexcept { return recent_.load(std::memory_order_relaxed) != nullptr; }  // relaxed: a hint

  // Half of the ring, rounded up, but `batch` at most, into `out`; with an empty ring and take_recent, the
  // recent one. 0: there is nothing, or the owner is inside, or another thief is.
  std::uint32_t steal(fiber** out, bool take_recent) noexcept;

 private:
  CONCUR_FORCE_INLINE void enter() noexcept {
    for (;;) {
#if CONCUR_TSAN
      // seq_cst, both: the tool sees no fence; with these two accesses and the thief's the pattern holds without one.
      owner_inside_.store(1, std::memory_order_seq_cst);
      if (CONCUR_LIKELY(thief_inside_.load(std::memory_order_seq_cst) == 0)) return;  // seq_cst: as above
#else
      owner_inside_.store(1, std::memory_order_relaxed);  // relaxed: light_fence orders it
      light_fence();
      // acquire: pairs with the release with which the last thief left.
      if (CONCUR_LIKELY(thief_inside_.load(std::memory_order_acquire) == 0)) return;
#endif
      step_back();
    }
  }
  CONCUR_FORCE_INLINE void leave() noexcept {
    owner_inside_.store(0, std::memory_order_release);  // release: publishes the ring to the next thief
  }
  void step_back() noexcept;

  CONCUR_FORCE_INLINE bool push_inside(fiber* f) noexcept {
    const std::uint32_t tail = tail_.load(std::memory_order_relaxed);  // relaxed: inside (Q1)
    if (CONCUR_UNLIKELY(tail - head_.load(std::memory_order_relaxed) == capacity)) return false;  // relaxed: inside
    ring_[tail % capacity] = f;
    tail_.store(tail + 1, std::memory_order_relaxed);  // relaxed: inside; leave() publishes
    return true;
  }
  CONCUR_FORCE_INLINE fiber* pop_inside() noexcept {
    fiber* f = recent_.load(std::memory_order_relaxed);  // relaxed: inside (Q1)
    if (f != nullptr && recent_in_a_row_ < recent_in_a_row_limit()) {
      ++recent_in_a_row_;
      recent_.store(nullptr, std::memory_order_relaxed);  // relaxed: inside
      return f;
    }
    recent_in_a_row_ = 0;
    const std::uint32_t head = head_.load(std::memory_order_relaxed);          // relaxed: inside
    const bool is_ring_empty = head == tail_.load(std::memory_order_relaxed);  // relaxed: inside
    if (CONCUR_UNLIKELY(!pinned_.is_empty()) && (is_ring_empty || (turn_ ^= 1) != 0)) return pop_pinned();
    if (!is_ring_empty) {
      head_.store(head + 1, std::memory_order_relaxed);  // relaxed: inside
      return ring_[head % capacity];
    }
    recent_.store(nullptr, std::memory_order_relaxed);  // relaxed: inside
    return f;
  }
  fiber* pop_pinned() noexcept {
    // relaxed: a hint, see has_any.
    pinned_count_.store(pinned_count_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
    return pinned_.pop();
  }
  std::uint32_t take_from_ring(fiber** out, std::uint32_t wanted) noexcept {
    const std::uint32_t head = head_.load(std::memory_order_relaxed);          // relaxed: inside
    const std::uint32_t count = tail_.load(std::memory_order_relaxed) - head;  // relaxed: inside
    const std::uint32_t n = wanted < count ? wanted : count;
    for (std::uint32_t i = 0; i < n; ++i) out[i] = ring_[(head + i) % capacity];
    head_.store(head + n, std::memory_order_relaxed);  // relaxed: inside
    return n;
  }

  static unsigned recent_in_a_row_limit() noexcept { return CONCUR_MUTANT_IS(14) ? ~0u : 3; }
  atomic<std::uint32_t> owner_inside_{0};  // 0, 1; written by the owner
  atomic<std::uint32_t> thief_inside_{0};  // 0, 1; written by the thief that won it
  atomic<std::uint32_t> head_;
  atomic<std::uint32_t> tail_;
  atomic<fiber*> recent_{nullptr};
  atomic<std::uint32_t> pinned_count_{0};
  unsigned recent_in_a_row_ = 0;
  unsigned turn_ = 0;
  intrusive_queue<fiber> pinned_;
  fiber* ring_[capacity];
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_NOINLINE CONCUR_INLINE void run_queue::step_back() noexcept {
  owner_inside_.store(0, std::memory_order_release);  // release: lets the thief in, with the ring as it is
  unsigned round = 0;
  // acquire: pairs with the thief's leaving.
  while (thief_inside_.load(std::memory_order_acquire) != 0) spin_wait(round);
}

CONCUR_INLINE std::uint32_t run_queue::steal(fiber** out, bool take_recent) noexcept {
  if (stealable_count() == 0 && !(take_recent && has_recent())) return 0;
  std::uint32_t expected = 0;
  // seq_cst: the rare side of the pattern at the top. relaxed on failure: another thief is there, and we leave.
  if (!thief_inside_.compare_exchange_strong(expected, 1, std::memory_order_seq_cst, std::memory_order_relaxed))
    return 0;
  heavy_fence();
  // The owner is inside for some ten instructions; if it stays, it was pre-empted there, and somebody else may be
  // robbed.
  constexpr int patience = 200;
  // seq_cst: the load of the pattern; also acquires what the owner published as it left.
  bool is_free = CONCUR_MUTANT_IS(12) || owner_inside_.load(std::memory_order_seq_cst) == 0;
  for (int i = 0; !is_free && i < patience; ++i) {
    spin_briefly(1);
    is_free = owner_inside_.load(std::memory_order_seq_cst) == 0;  // seq_cst: as above
  }
  std::uint32_t n = 0;
  if (is_free) {
    const std::uint32_t half = (stealable_count() + 1) / 2;
    n = take_from_ring(out, half < batch ? half : batch);
    if (n == 0 && take_recent) {
      fiber* f = recent_.load(std::memory_order_relaxed);  // relaxed: inside (Q1)
      if (f != nullptr) {
        recent_.store(nullptr, std::memory_order_relaxed);  // relaxed: inside
        out[n++] = f;
      }
    }
  }
  thief_inside_.store(0, std::memory_order_release);  // release: publishes the ring to the owner
  return n;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// runtime/shared_queue.hpp - ready fibers that no worker has for its own: sent from outside, or too many for a ring.
//
// A program that spawns faster than it runs fills its worker's ring, and the surplus must go somewhere. In which order
// it comes back decides how much memory the program needs. First in, first out runs a tree of fibers level by level: a
// whole level is parked at once, each fiber with a stack, and every one of them has left the cache when its turn comes.
// Newest first runs the tree in depth: few are alive at a time, and what is taken was touched a moment ago. On a tree of
// a million that is a factor of three and more.
//
// But newest first alone starves: while somebody spawns without end, there is always something newer. So surplus grows
// old, and old fibers have a turn of their own that nothing newer can take.
//
//     queue      what                                      order                    an idle worker    upkeep
//     surplus    full rings' oldest, in batches            the newest batch first   1st               if it runs low
//     foreign    made ready by threads outside             first come               2nd               its share
//     aged       surplus that lay here for a while         as it aged               3rd               one, first of all
//
//   H1  Upkeep, which each worker does every so many picks whatever its ring holds, takes one aged fiber before all else,
//       and foreign ones by the share; so neither waits for an end of the newer ones. One, not a share: an aged fiber is
//       mostly the root of a subtree, and many at once would bring the run level by level back.
//   H2  Every patience_ns, upkeep makes all that is surplus aged: in one step, whatever its length. A fiber thus is aged
//       patience_ns after it came, at most, and has in front of it only what came before that moment.
//   H3  A worker whose ring runs low takes of everything: fibers that yield for ever keep a ring from being empty, and
//       the surplus must not come back one by one because of them.
//   H4  `count_` is the sum of all three queues, so that one look tells a worker that goes to sleep whether there is work
//       (idle.hpp, R2). It is written under the lock.
//
// Rejected: aged fibers behind the foreign ones, in one queue. Upkeep then takes its share of them, batch after batch, and
// everything runs level by level as before.

CONCUR_NAMESPACE_BEGIN
namespace detail {

class shared_queue {
 public:
  static constexpr nanoseconds_t patience_ns = 10'000'000;

  // Who looks, and so what it is given, in this order.
  enum class look : unsigned char {
    idle,  // nothing else to run: surplus, foreign, aged
    low,   // upkeep, with little left to run: one aged, foreign, surplus, aged
    busy,  // upkeep: one aged, foreign
  };

  // Fibers in all three queues (H4); a hint, unless the caller's fence orders it against the pushes.
  std::uint32_t count() const noexcept { return count_.load(std::memory_order_relaxed); }  // relaxed: see above

  // Behind the other foreign ones. The caller announces.
  void push_foreign(fiber* f) noexcept;
  // Before all other surplus, and in the order of the list, which is not empty. The caller announces.
  void push_surplus(fiber** list, std::uint32_t size) noexcept;
  // At most `most`, which is not 0, into `out`; how many.
  std::uint32_t take(fiber** out, std::uint32_t most, look who) noexcept;
  // H2, if it is time.
  void age(nanoseconds_t now) noexcept;

 private:
  void add(std::uint32_t n) noexcept {
    // relaxed, both: the lock orders it for takers, the announcement's fence for sleepers.
    count_.store(count_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }

  spin_lock lock_;
  intrusive_queue<fiber> surplus_;
  intrusive_queue<fiber> foreign_;
  intrusive_queue<fiber> aged_;
  nanoseconds_t aged_ns_ = 0;  // when the surplus was last made aged
  atomic<std::uint32_t> count_{0};
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void shared_queue::push_foreign(fiber* f) noexcept {
  lock_scope<spin_lock> held(lock_);
  foreign_.push(f);
  add(1);
}

CONCUR_INLINE void shared_queue::push_surplus(fiber** list, std::uint32_t size) noexcept {
  for (std::uint32_t i = 0; i + 1 < size; ++i) list[i]->next = list[i + 1];
  lock_scope<spin_lock> held(lock_);
  surplus_.push_front(list[0], list[size - 1]);
  add(size);
}

CONCUR_INLINE std::uint32_t shared_queue::take(fiber** out, std::uint32_t most, look who) noexcept {
  if (count() == 0) return 0;
  std::uint32_t n = 0;
  const auto drain = [&](intrusive_queue<fiber>& from, std::uint32_t limit) {
    while (n < limit && !from.is_empty()) {
      out[n] = from.pop();
      fetch_along(out[n++], from.front(), 1, 1);
    }
  };
  lock_scope<spin_lock> held(lock_);
  if (who != look::idle) {
    if (!CONCUR_MUTANT_IS(183)) drain(aged_, 1);  // H1
    drain(foreign_, most);
  }
  if (who != look::busy) {  // H3
    drain(surplus_, most);
    drain(foreign_, most);
    drain(aged_, most);
  }
  // relaxed, both: under the lock (H4).
  count_.store(count_.load(std::memory_order_relaxed) - n, std::memory_order_relaxed);
  return n;
}

CONCUR_INLINE void shared_queue::age(nanoseconds_t now) noexcept {
  if (count() == 0 || CONCUR_MUTANT_IS(181)) return;
  lock_scope<spin_lock> held(lock_);
  if (now - aged_ns_ < patience_ns) return;
  aged_ns_ = now;
  aged_.append(surplus_);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// runtime/timers.hpp - deadlines of parked fibers: cheap to set, cheaper to call off.
//
// Most deadlines never pass: a read with a time limit usually reads. So setting and calling off must cost next to
// nothing, and passing may cost a little more. A hierarchical wheel does that: seven rings of 64 slots, each slot of
// a ring as wide as the whole ring below. A timer goes into the ring where its tick first differs from the present
// one; as time reaches its slot it moves down a ring, and from the lowest it fires. Setting and calling off touch one
// slot.
//
//     ring    0          1          2         ...   6
//     slot    65.5 us    4.2 ms     268 ms          52 days
//
//   D1  A timer never fires early: its deadline is rounded up to a tick, and a slot is opened only when its tick has
//       passed.
//   D2  Firing claims the party under the wheel's lock; calling off takes the same lock. After either, the entry may
//       go.
//   D3  next_ns() is never later than the earliest deadline. It may be earlier: then a look finds nothing, and costs
//       no more.
//   D4  An alarm is an entry that calls a function instead of ending a wait. It is called without the wheel's lock, by the
//       thread that found it due, and is touched last when the call is over; calling it off waits for that.
//
// Source: Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (1987), scheme 7.

CONCUR_NAMESPACE_BEGIN
namespace detail {

class timer_wheel;

// Lives in the frame of the fiber that waits.
struct timer_entry {
  timer_entry* next = nullptr;
  timer_entry* prev = nullptr;
  nanoseconds_t deadline_ns = never;
  party* who = nullptr;
  std::uint32_t ticket = 0;
  unsigned char ring = 0;
  unsigned char slot = 0;
  timer_wheel* wheel = nullptr;  // where it was set; null: never set
};

// D4. `who` stays null.
struct alarm : timer_entry {
  explicit alarm(void (*call_in)(alarm*) noexcept) noexcept : call(call_in) {}
  void (*call)(alarm*) noexcept;        // may not wait
  atomic<bool> is_ringing{false};  // set under the wheel's lock
};

class timer_wheel {
 public:
  timer_wheel() noexcept : next_ns_(never) {}
  timer_wheel(const timer_wheel&) = delete;
  timer_wheel& operator=(const timer_wheel&) = delete;

  // Time zero of the wheel. Once, before the first set.
  void start(nanoseconds_t now) noexcept { elapsed_ = to_tick(now); }

  void set(timer_entry& entry) noexcept;
  // From any thread. Afterwards the entry is in no ring, and nobody looks at it any more.
  void call_off(timer_entry& entry) noexcept;
  // The same for an alarm (D4). Not from its own call.
  static void call_off_alarm(alarm& entry) noexcept;
  // Ends the wait of every party whose deadline has passed, and calls the alarms. Returns how many. From any thread.
  std::size_t fire(nanoseconds_t now) noexcept;

  // D3. never: no timer is set.
  nanoseconds_t next_ns() const noexcept { return next_ns_.read(); }
  std::size_t size() const noexcept { return count_.load(std::memory_order_relaxed); }  // relaxed: a figure to show

 private:
  using tick_t = std::uint64_t;
  static constexpr unsigned ring_count = 7;
  static constexpr unsigned slot_bits = 6;
  static constexpr unsigned slot_count = 1u << slot_bits;
  static constexpr unsigned tick_shift =
      16;  // a tick is 2^16 ns: a late wake-up of 33 us on average, invisible beside a switch of core
  static constexpr tick_t span = tick_t{1} << (slot_bits * ring_count);

  static tick_t to_tick(nanoseconds_t ns) noexcept { return ns <= 0 ? 0 : static_cast<tick_t>(ns) >> tick_shift; }
  static tick_t to_tick_up(nanoseconds_t ns) noexcept {
    return ns <= 0 ? 0 : (static_cast<tick_t>(ns) + ((tick_t{1} << tick_shift) - 1)) >> tick_shift;
  }
  static nanoseconds_t to_ns_of(tick_t tick) noexcept {
    return tick > (static_cast<tick_t>(never) >> tick_shift) ? never : static_cast<nanoseconds_t>(tick << tick_shift);
  }

  // Not to open before the tick `first`.
  void place(timer_entry& entry, tick_t first) noexcept;
  void unlink(timer_entry& entry) noexcept;
  // The earliest occupied slot: its ring, its number, the tick at which it opens. False: the wheel is empty.
  bool find_next(unsigned& ring, unsigned& slot, tick_t& opens) const noexcept;
  timer_entry* open_slot(unsigned ring, unsigned slot, nanoseconds_t now, timer_entry* fired) noexcept;
  static bool is_to_fire(timer_entry& entry) noexcept;

  spin_lock lock_;
  tick_t elapsed_ = 0;
  atomic<std::uint32_t> count_{0};
  shared_moment next_ns_;  // written under the lock
  std::uint64_t occupied_[ring_count] = {};
  intrusive_list<timer_entry> rings_[ring_count][slot_count];
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

// Puts the entry where its tick first differs from the present one, counted in groups of slot_bits from the top.
CONCUR_INLINE void timer_wheel::place(timer_entry& entry, tick_t first) noexcept {
  tick_t when = to_tick_up(entry.deadline_ns);
  if (when < first) when = first;
  if (when - elapsed_ >= span) when = elapsed_ + span - 1;  // beyond the wheel: looked at again when that slot opens
  const tick_t differs = (when ^ elapsed_) | (slot_count - 1);
  unsigned ring = static_cast<unsigned>(63 - __builtin_clzll(differs)) / slot_bits;
  if (ring >= ring_count && !CONCUR_MUTANT_IS(351)) ring = ring_count - 1;
  const unsigned slot = static_cast<unsigned>(when >> (ring * slot_bits)) % slot_count;
  entry.ring = static_cast<unsigned char>(ring);
  entry.slot = static_cast<unsigned char>(slot);
  rings_[ring][slot].push_back(&entry);
  occupied_[ring] |= std::uint64_t{1} << slot;
}

CONCUR_INLINE void timer_wheel::unlink(timer_entry& entry) noexcept {
  rings_[entry.ring][entry.slot].erase(&entry);
  if (rings_[entry.ring][entry.slot].is_empty()) occupied_[entry.ring] &= ~(std::uint64_t{1} << entry.slot);
}

CONCUR_INLINE void timer_wheel::set(timer_entry& entry) noexcept {
  lock_scope<spin_lock> held(lock_);
  entry.wheel = this;
  place(entry, elapsed_ + 1);
  // relaxed: a figure, and the lock is held.
  count_.store(count_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  if (entry.deadline_ns < next_ns_.read() && !CONCUR_MUTANT_IS(350)) next_ns_.write(entry.deadline_ns);
}

CONCUR_INLINE void timer_wheel::call_off(timer_entry& entry) noexcept {
  lock_scope<spin_lock> held(lock_);
  if (!intrusive_list<timer_entry>::is_linked(&entry)) return;
  unlink(entry);
  // relaxed: a figure, and the lock is held.
  const std::uint32_t left = count_.load(std::memory_order_relaxed) - 1;
  count_.store(left, std::memory_order_relaxed);  // relaxed: as above
  if (left == 0 && !CONCUR_MUTANT_IS(54)) next_ns_.write(never);
}

CONCUR_INLINE bool timer_wheel::find_next(unsigned& ring, unsigned& slot, tick_t& opens) const noexcept {
  for (ring = 0; ring < ring_count; ++ring) {
    if (occupied_[ring] == 0) continue;
    const unsigned shift = ring * slot_bits;
    const unsigned here = static_cast<unsigned>(elapsed_ >> shift) % slot_count;
    // From the slot behind the present one, all the way round: in the present slot of the top ring lies what is a whole
    // turn away.
    const unsigned first = (here + (CONCUR_MUTANT_IS(69) ? 0 : 1)) % slot_count;
    const std::uint64_t ahead =
        first == 0 ? occupied_[ring] : (occupied_[ring] >> first) | (occupied_[ring] << (slot_count - first));
    slot = (first + static_cast<unsigned>(__builtin_ctzll(ahead))) % slot_count;
    const tick_t ring_start = elapsed_ & ~((tick_t{1} << (shift + slot_bits)) - 1);
    opens = ring_start + (static_cast<tick_t>(slot) << shift);
    if (slot <= here) opens += tick_t{1} << (shift + slot_bits);  // only the top ring wraps
    return true;
  }
  return false;
}

// Empties one slot: what is due is claimed and chained before `fired`, the rest goes down the rings.
CONCUR_INLINE timer_entry* timer_wheel::open_slot(unsigned ring, unsigned slot, nanoseconds_t now,
                                                  timer_entry* fired) noexcept {
  intrusive_list<timer_entry> list = rings_[ring][slot];
  rings_[ring][slot] = intrusive_list<timer_entry>();
  occupied_[ring] &= ~(std::uint64_t{1} << slot);
  while (timer_entry* entry = list.pop_front()) {
    // acquire: pairs with the publishing of the wait. Even: the fiber is still leaving; the tick after this look finds it
    // gone (suspend.hpp, S2).
    const bool is_leaving =
        entry->who != nullptr && entry->who->word.load(std::memory_order_acquire) == entry->ticket - 1;
    const bool is_due = CONCUR_MUTANT_IS(352) ? to_tick(entry->deadline_ns) <= to_tick(now) : entry->deadline_ns <= now;
    if (!is_due || (is_leaving && !CONCUR_MUTANT_IS(70))) {
      // A look that comes late finds a leaving fiber once, not once for each tick that has passed.
      place(*entry, (is_leaving && !CONCUR_MUTANT_IS(353) ? to_tick(now) : elapsed_) + 1);
      continue;
    }
    // relaxed: a figure, and the lock is held.
    count_.store(count_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
    if (!is_to_fire(*entry)) continue;  // somebody else ended the wait; its party waits for our lock (D2)
    entry->prev = fired;                // claimed: the party cannot leave, so its frame carries the chain
    fired = entry;
  }
  return fired;
}

// Under the lock: ends the wait, or says that the alarm rings. Neither goes away before what follows without the lock.
CONCUR_INLINE bool timer_wheel::is_to_fire(timer_entry& entry) noexcept {
  if (entry.who == nullptr) {
    static_cast<alarm&>(entry).is_ringing.store(true, std::memory_order_relaxed);  // relaxed: under the lock
    return true;
  }
  if (CONCUR_MUTANT_IS(289)) return true;
  if (!claim(*entry.who, entry.ticket)) return false;
  entry.who->result = outcome::timed_out;
  return true;
}

CONCUR_INLINE void timer_wheel::call_off_alarm(alarm& entry) noexcept {
  if (entry.wheel == nullptr) return;
  entry.wheel->call_off(entry);
  // acquire: pairs with the end of the call.
  for (unsigned round = 0; entry.is_ringing.load(std::memory_order_acquire) && !CONCUR_MUTANT_IS(205);)
    spin_wait(round);
  entry.wheel = nullptr;
}

CONCUR_INLINE std::size_t timer_wheel::fire(nanoseconds_t now) noexcept {
  if (now < next_ns_.read()) return 0;
  timer_entry* fired = nullptr;
  {
    lock_scope<spin_lock> held(lock_);
    const tick_t now_tick = to_tick(now);
    unsigned ring = 0;
    unsigned slot = 0;
    tick_t opens = 0;
    nanoseconds_t next = never;
    while (find_next(ring, slot, opens)) {
      if (opens > now_tick) {
        next = to_ns_of(opens);
        break;
      }
      if (opens > elapsed_) elapsed_ = opens;
      fired = open_slot(ring, slot, now, fired);
    }
    if (now_tick > elapsed_ && next == never) elapsed_ = now_tick;
    next_ns_.write(next);
  }
  // Latest first in the chain: turned round, so that they become ready in the order in which their slots opened.
  timer_entry* in_order = nullptr;
  while (fired != nullptr) {
    timer_entry* before = fired->prev;
    fired->prev = in_order;
    in_order = fired;
    fired = before;
  }
  std::size_t count = 0;
  while (in_order != nullptr) {
    timer_entry* const entry = in_order;
    in_order = in_order->prev;  // read before the resume: the entry goes with its party (W2)
    ++count;
    if (CONCUR_MUTANT_IS(289) && entry->who != nullptr) {
      end_wait(*entry->who, entry->ticket, outcome::timed_out);
      continue;
    }
    if (CONCUR_LIKELY(entry->who != nullptr)) {
      resume(entry->who);
      continue;
    }
    alarm* const rings = static_cast<alarm*>(entry);
    rings->call(rings);
    rings->is_ringing.store(false, std::memory_order_release);  // release: the last touch (D4)
  }
  return count;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// runtime/worker.hpp - what one thread that runs fibers needs, and how code finds out on which worker it is.
//
// Everything a worker does often, it does with its own things: its queue, its free blocks and stacks, its timers, its
// counters. Others reach in at three places only: they rob the queue, they put pinned fibers into the inbox, they
// wake it.
//
//   T1  Which worker a thread is, is asked through this_worker() and nowhere else: it holds the library's only
//       thread_local. A compiler keeps the address of a thread_local over what it takes for a call, and after a
//       switch that address is another thread's. The function is never inlined, and its barrier keeps two calls of it
//       from being merged.
//   T2  A worker pointer found before a switch is wrong after it. The switch itself brings the right one back
//       (suspend.hpp).
//   T3  Counters have one writer, the worker; readers add them up and take what they see.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// How the fiber that just left is made known to others, by whoever runs next (F1).
enum class departure : unsigned char {
  none,      // nobody left: the worker's own loop did
  parked,    // it waits; then the site's lock, if any, is dropped
  selected,  // it waits at several sites; then all their locks are dropped
  yielded,   // it is ready, behind the others
  finished,  // its stack is free
};

// The locks of several sites, held by one party. The links lie on the stack of who holds them.
struct lock_chain {
  spin_lock* lock = nullptr;
  lock_chain* next = nullptr;
};

// A count that its worker adds to and others read.
class worker_counter {
 public:
  CONCUR_FORCE_INLINE void add(std::size_t n = 1) noexcept {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);  // relaxed: one writer (T3)
  }
  std::size_t get() const noexcept { return value_.load(std::memory_order_relaxed); }  // relaxed: a figure (T3)

 private:
  std::atomic<std::size_t> value_{0};  // std::atomic: a figure, and at every switch
};

struct alignas(cache_line_bytes) worker {
  explicit worker(std::uint64_t seed) noexcept : random(seed) {}

  // --- touched at every switch ---
  fiber* current = nullptr;  // null while the worker's own loop runs
  scheduler* sched = nullptr;
  departure how = departure::none;
  fiber* leaving = nullptr;
  std::uint32_t leaving_ticket = 0;
  spin_lock* leaving_lock = nullptr;
  lock_chain* leaving_locks = nullptr;  // of the fiber that selected
  timer_entry* leaving_timer = nullptr;
  stack* dead_stack = nullptr;                 // of the fiber that finished
  unsigned picks_to_upkeep = upkeep_interval;  // 0: due, in the loop
  fiber* stackless = nullptr;  // picked, but there was no stack for it; the loop tries again, or refuses it
  unsigned budget = operations_per_slice;
  exception_globals* exceptions = nullptr;  // this thread's (exception_state.hpp)
  worker_counter switches;

  run_queue queue;

  // --- its own stores ---
  fiber_cache blocks;
  stack* free_stacks = nullptr;
  unsigned free_stack_count = 0;
  std::uint64_t next_id = 0;  // fibers are numbered in runs, so that numbering touches nothing shared
  std::uint64_t last_id = 0;
  timer_wheel timers;
  random_source random;
  context loop{};  // where the thread's own stack stopped
  stack_notice loop_notice{};
  nanoseconds_t last_upkeep_ns = 0;

  worker_counter spawned, finished, steals, stolen_fibers, parks, polls;

  // --- where others reach in ---
  alignas(cache_line_bytes) atomic<fiber*> inbox{nullptr};  // pinned fibers that became ready elsewhere; a stack
  atomic<bool> may_take_recent{false};  // set by the monitor when `recent` lay for long, cleared by the robber
  parker idle_parker;
  worker* idle_next = nullptr;  // the idle list's links; under its lock
  worker* idle_prev = nullptr;
  bool is_idle = false;       // linked there; under its lock
  bool is_polling = false;    // it sleeps in the poller, not on its parker; written before it is linked
  bool is_searching = false;  // it holds one of the search tokens (idle.hpp)
  unsigned index = 0;

#if defined(CONCUR_EXPLORE)
  static constexpr unsigned driven_interval = 7;
#else
  static constexpr unsigned driven_interval = 1;  // while a driver decides (driven.hpp, V2)
#endif
  static constexpr unsigned upkeep_interval = 61;        // prime, so that it falls in step with no program
  static constexpr unsigned operations_per_slice = 256;  // then a fiber that never has to wait yields all the same
};

// Where the calling thread's worker is written (T1).
worker** this_worker_cell() noexcept;

// The calling thread's worker; null on a thread that is none.
inline worker* this_worker() noexcept { return *this_worker_cell(); }

// An address that is the calling thread's own. A driver's threads have the cell in common.
const void* thread_identity() noexcept;

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

// The address of the one thread_local, hidden from the optimiser (T1).
CONCUR_NOINLINE CONCUR_INLINE worker** this_worker_cell() noexcept {
  static thread_local worker* cell = nullptr;
  worker** address = &cell;
  asm volatile("" : "+r"(address) : : "memory");
  return address;
}

CONCUR_INLINE const void* thread_identity() noexcept {
  if (driver* d = driver_or_null()) return d->this_thread();
  return this_worker_cell();
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// runtime/idle.hpp - falling asleep without losing a wake-up, and waking no more workers than there is work for.
//
//     submitter (announce)                 worker going idle (sleep)
//     W1  push the fiber                   W2  link itself into the idle list, count_ + 1
//     F1  fence(seq_cst)                   F2  fence(seq_cst)
//     R1  count_ != 0 ? wake one           R2  any work anywhere ? leave the list, go on
//
// Each side writes its own word, then reads the other's. With acquire and release alone both reads may miss both
// writes: the fiber lies in a queue and every worker sleeps. The two fences forbid that one outcome: R1 sees W2, or
// R2 sees W1. Both may; then one wake-up is spurious and costs a system call.
//
// Waking a sleeping core costs a thousand times what a switch costs, so the second question is when not to:
//
//   I1  announce() is for work that only another worker can do; it must reach one. suggest() is for work that the
//       caller will come to itself; it is skipped while a searcher is under way, and needs no fence.
//   I2  A woken worker is a searcher until it has found work or sleeps again, and holds a search token. At most half
//       of the workers hold one: more would only rob each other. A worker that gives up its token does so before it
//       looks a last time (R2), so that a submitter that saw the token need not wake anybody.
//   I3  The last searcher that finds work wakes another if there is more of it: work spreads by a chain, not by a
//       stampede. A worker whose last look (R2) finds work is a searcher again, for submitters saw its token until then.
//   I4  One idle worker sleeps in the poller, until the next timer of any worker; all others sleep on their parkers,
//       without limit. They are woken first, since a wake-up of the poller costs most.
//   I5  The sleeper in the poller says until when it sleeps, then looks at all timers once more, and sleeps no longer than
//       either says; a worker that goes to sleep with a timer of its own looks whether that is soon enough, and wakes the
//       poller if not. The same two fences, the same pattern.
//   I6  A worker leaves the idle list by its own hand or by a waker's, under the lock; a waker that took it owes it a
//       wake-up.
//
// The monitor (monitor.hpp) covers what remains: work that waits behind a fiber that does not let go.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Waits for the moment when all workers are idle and no fiber lives. On the stack of a plain thread.
struct quiet_watch {
  quiet_watch* next = nullptr;
  parker thread;
};

class idle_set {
 public:
  // R1: wakes a worker unless one is searching already. The work was pushed before.
  void announce(scheduler& s) noexcept;
  // The same for work that only `home` can do.
  void announce_to(scheduler& s, worker& home) noexcept;
  // Speed only (I1): no fence, and mostly one load.
  CONCUR_FORCE_INLINE void suggest(scheduler& s) noexcept {
    // relaxed: missing a sleeper here costs speed, never liveness.
    if (CONCUR_UNLIKELY(count_.load(std::memory_order_relaxed) != 0)) suggest_slow(s);
  }

  // W2 to the wake-up. Returns when there may be work; the worker may then hold a search token. has_searched: it gave
  // one up just now, so work on other workers' queues counts at R2 (I2).
  void sleep(scheduler& s, worker* w, bool has_searched) noexcept;

  bool begin_search(scheduler& s, worker* w) noexcept;
  void end_search(scheduler& s, worker* w, bool has_found) noexcept;

  void wake_all(scheduler& s) noexcept;
  // Some idle worker, as a searcher; nobody when none is idle.
  void wake_one(scheduler& s) noexcept;
  unsigned count() const noexcept { return count_.load(std::memory_order_relaxed); }  // relaxed: a figure

  // A timer was set from outside, or for a worker that may sleep: wakes the sleeper in the poller if it sleeps for too long
  // (I5).
  void hear_timer(scheduler& s, const timer_wheel& wheel) noexcept;

  // Waits on `watch` until all workers are idle and no fiber lives.
  void wait_quiet(scheduler& s, quiet_watch& watch) noexcept;

 private:
  void suggest_slow(scheduler& s) noexcept;
  void link(worker* w) noexcept;
  bool unlink(worker* w) noexcept;
  void report_quiet(scheduler& s) noexcept;
  int sleep_in_poller(scheduler& s, poll_event* events) noexcept;

  shared_moment poll_until_ns_{long_ago};  // written by the sleeper in the poller; long ago: nobody sleeps there (I5)
  spin_lock lock_;
  worker* first_ = nullptr;  // parker sleepers, last come first; then the poller's
  quiet_watch* watches_ = nullptr;
  atomic<std::uint32_t> count_{0};
  atomic<std::uint32_t> searchers_{0};
};

}  // namespace detail
CONCUR_NAMESPACE_END

// runtime/monitor.hpp - a thread that looks after work nobody comes to.
//
// Workers look at their queues whenever a fiber lets go. One that does not let go, for want of a reason to, keeps
// what is queued behind it: fibers that an idle worker could run, sockets that nobody polls. The monitor looks every
// few milliseconds while any worker is busy, and wakes an idle one when the same worker is seen twice at the same
// switch with work behind it. It also lets thieves take the fiber in that worker's `recent` slot, which is otherwise
// the owner's. And when every worker computes while a timer is overdue, it ends those waits itself: a limit on what a fiber
// computes would pass unseen.
//
// Every second of such looking it also lets the stack pool give back pages that nobody has used for seconds: on this
// thread it costs no fiber's time.
//
//   M1  While all workers are idle the monitor sleeps without limit: it goes to sleep after one whole period of
//       idleness, and the first worker to leave idleness wakes it (nudge). So a program that waits makes no wake-ups
//       at all.
//   M2  The monitor runs no fiber and holds no lock for longer than a wake-up takes.
//
// With one worker there is nobody to wake, and no monitor is started.

CONCUR_NAMESPACE_BEGIN
namespace detail {

class scheduler;

class monitor {
 public:
  // A worker has just left idleness. A fence, and mostly one load.
  void nudge(scheduler& s) noexcept;
  // The body of the monitor's thread; returns after stop().
  void run(scheduler& s) noexcept;
  void stop() noexcept;

 private:
  static constexpr std::int64_t period_ns = 10'000'000;
  static constexpr unsigned periods_to_trim = 100;

  bool is_all_idle(const scheduler& s) const noexcept;
  void look(scheduler& s, std::size_t* last_switches) noexcept;

  parker thread_;
  atomic<bool> is_asleep_{
      false};  // written by the monitor before it sleeps without limit, taken back by who wakes it
  atomic<bool> is_stopping_{false};
};

}  // namespace detail
CONCUR_NAMESPACE_END

// runtime/scheduler.hpp - the workers of one runtime, and the few ways a fiber comes to be ready.
//
// A fiber becomes ready by being spawned, by its wait being ended, or by yielding, and on three kinds of thread: on a
// worker of its own runtime, on a worker of another, or on a thread that is none. All of that comes together here,
// and each ready fiber ends on exactly one queue:
//
//     who makes it ready           not pinned                              pinned to worker h
//     a worker of its runtime      that worker's own queue                 h's pinned list if it is h, else h's inbox
//     any other thread             the shared queue                        h's inbox
//
//   R1  Work that only others can run (shared queue, an inbox, a full ring's surplus) is announced by the sleep
//       protocol in idle.hpp: never lost. Work on a worker's own queue needs no announcement: its owner is awake and
//       looks there before it sleeps; waking another worker for it is only a matter of speed.
//   R2  The shared queue gets a look every upkeep_interval picks, so that a busy local queue cannot starve it. The surplus
//       of full rings comes back newest first, and grows old lest it starve (shared_queue.hpp).
//   R3  No shared counter is touched by spawn or exit: fibers alive are the sum of `spawned` less the sum of
//       `finished`, exact when all workers are idle, which is when it is asked.
//   R4  A thread from outside that makes a fiber ready may still be announcing it when that fiber has ended, and its
//       runtime with it. It counts itself into `visitors` before anybody can run the fiber, and the end of the runtime
//       waits until nobody is left in there.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// What ended runtimes left behind; touched when one begins or ends, never in between. std::atomic: figures.
struct ledger {
  std::atomic<std::size_t> runtimes{0}, fibers{0}, timers{0}, descriptors{0}, stacks{0};
};
inline ledger process_ledger;

// The block goes home, which may have outlived its runtime; the payload is gone already.
CONCUR_INLINE void free_fiber(fiber* f) noexcept;

class scheduler {
 public:
  // Starts the threads. Throws std::invalid_argument for bad options, std::system_error when the system refuses; then
  // nothing is left behind.
  explicit scheduler(const options& wanted);
  // Every fiber must have finished (see quiesce, cancel_all).
  ~scheduler();
  scheduler(const scheduler&) = delete;
  scheduler& operator=(const scheduler&) = delete;

  // --- fibers in and out ---

  // A block with an id, ready to be given a payload and an entry; null when memory is exhausted. w: the calling
  // thread's worker if that is one of ours, else null.
  fiber* new_fiber(worker* w) noexcept;
  // Makes a new fiber ready for the first time.
  void launch(worker* w, fiber* f) noexcept;

  // The claimed fiber goes on. From any thread.
  void make_ready(fiber* f) noexcept;
  CONCUR_FORCE_INLINE void make_ready_here(worker* w, fiber* f) noexcept;
  void queue_behind(worker* w, fiber* f) noexcept;
  CONCUR_FORCE_INLINE void queue_behind_here(worker* w, fiber* f) noexcept;  // the same, inside of a switch
  // Another worker may be worth its waking when more waits here than what this worker turns to next (idle.hpp, I1).
  CONCUR_FORCE_INLINE void suggest_help(worker* w) noexcept {
    if (w->queue.stealable_count() > 1) idle.suggest(*this);
  }

  // --- what a worker runs next (loop.hpp) ---

  fiber* pick_driven(driver& d, worker* w) noexcept;
  fiber* upkeep(worker* w) noexcept;  // every upkeep_interval picks: timers, poller, shared queue; may return a fiber
  fiber* find_work(worker* w) noexcept;              // blocks; null: the runtime stops
  void run_worker(worker* w) noexcept;               // the body of a worker's thread
  bool give_stack_to(worker* w, fiber* f) noexcept;  // false: there is none
  bool give_fresh_stack_to(worker* w, fiber* f) noexcept;
  void refuse_stackless(worker* w, fiber* f) noexcept;
  void recycle_stack(worker* w, stack* s) noexcept;

  // --- the end ---

  void quiesce() noexcept;     // returns when every fiber has finished; from a plain thread
  void cancel_all() noexcept;  // every parked fiber is woken with `cancelled`, every later wait ends at once
  void keep_exception(std::exception_ptr error) noexcept;  // nobody took it; the first one is kept
  std::exception_ptr take_exception() noexcept;

  std::size_t live_fiber_count() const noexcept;
  // Anything that w could do, seen without a lock. with_others: also what it would have to rob.
  bool has_work_for(const worker* w, bool with_others) const noexcept;
  nanoseconds_t next_timer_ns() const noexcept;  // of all workers
  std::size_t fire_timers() noexcept;            // of all workers
  static constexpr int events_at_once = 128;
  int wait_events(poll_event* events, nanoseconds_t timeout_ns) noexcept;
  void wake_poller() noexcept;
  int open_watcher() noexcept;  // before its first use; 0, or an errno
  void dispatch_events(const poll_event* events, int count) noexcept;

  options settings;
  unsigned worker_count = 0;
  worker* workers = nullptr;
  fiber_pool* blocks = nullptr;
  stack_pool stacks;
  poller watcher;
  scope root_scope;
  idle_set idle;
  monitor watch;
  atomic<bool> is_stopping{false};
  atomic<std::uint32_t> poll_owner{0};  // 1 while some thread is in, or about to be in, watcher.wait
  atomic<std::uint32_t> foreign_spawned{0};
  atomic<std::uint32_t> visitors{0};       // threads from outside that are making a fiber ready (R4)
  atomic<std::uint32_t> watched_count{0};  // descriptors registered with watcher

 private:
  friend class idle_set;
  void spill(worker* w, fiber* f) noexcept;
  fiber* pop_shared(worker* w, shared_queue::look who) noexcept;
  void send_home(fiber* f) noexcept;
  void empty_inbox(worker* w) noexcept;
  fiber* look_around(worker* w) noexcept;
  int wait_events_driven(driver& d, poll_event* events, nanoseconds_t timeout_ns) noexcept;
  bool rob(worker* w, worker& victim) noexcept;
  bool search(worker* w) noexcept;
  void free_memory() noexcept;
  void close_ledger() noexcept;
  fiber* pop_own(worker* w) noexcept;  // and the following: driven.hpp
  int give_out_driven(driver& d, poll_event* events, int count) noexcept;
  void start_driven_threads(driver& d);
  void join_driven_threads(driver& d) noexcept;
  void start_threads();
  void stop_threads() noexcept;
  fiber* new_fiber_slow(worker* w) noexcept;
  std::uint64_t new_id(worker* w) noexcept;
  void put_into_root(fiber* f) noexcept;

  alignas(cache_line_bytes) shared_queue shared_;
  spin_lock id_lock_;
  std::uint64_t next_id_ = 1;  // under id_lock_
  spin_lock exception_lock_;
  std::exception_ptr exception_;  // under exception_lock_
  void* threads_ = nullptr;       // pthread_t of each thread that was started; under a driver, its handles
  bool is_watcher_open_ = false;
  static constexpr int held_events_max = 8;
  int held_event_count_ = 0;
  poll_event held_events_[held_events_max];
  unsigned started_count_ = 0;
};

CONCUR_FORCE_INLINE void scheduler::queue_behind_here(worker* w, fiber* f) noexcept {
  if (CONCUR_UNLIKELY(f->home != nullptr)) {
    send_home(f);
    return;
  }
  if (CONCUR_UNLIKELY(!w->queue.push(f))) spill(w, f);
}

CONCUR_FORCE_INLINE void scheduler::make_ready_here(worker* w, fiber* f) noexcept {
  f->set_state(fiber_state::ready);
  if (CONCUR_UNLIKELY(f->home != nullptr)) {
    send_home(f);
    return;
  }
  fiber* displaced = nullptr;
  if (CONCUR_LIKELY(w->queue.push_recent(f, displaced))) {
    if (displaced != nullptr) suggest_help(w);
    return;
  }
  queue_behind(w, displaced);
}

// resume, for who has its worker at hand: null on a plain thread. Saves the way to find it out.
CONCUR_FORCE_INLINE void resume_near(worker* w, party* who) noexcept {
  if (CONCUR_LIKELY(w != nullptr && who->kind == party_kind::fiber)) {
    fiber* const f = static_cast<fiber*>(who);
    if (CONCUR_LIKELY(f->owner == w->sched)) {
      w->sched->make_ready_here(w, f);
      return;
    }
  }
  resume(who);
}

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

// --- ids and blocks ---

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

// --- becoming ready ---

CONCUR_INLINE void scheduler::launch(worker* w, fiber* f) noexcept {
  if (w == nullptr) {
    foreign_spawned.fetch_add(1, std::memory_order_relaxed);  // relaxed: the shared queue's lock publishes it
    make_ready(f);
    return;
  }
  w->spawned.add();
  f->set_state(fiber_state::ready);
  queue_behind(w, f);
  suggest_help(w);
}

CONCUR_INLINE void scheduler::make_ready(fiber* f) noexcept {
  worker* w = this_worker();
  if (w != nullptr && w->sched == this) {
    make_ready_here(w, f);
    return;
  }
  f->set_state(fiber_state::ready);
  visitors.fetch_add(1, std::memory_order_relaxed);  // relaxed: the lock or exchange that publishes the fiber orders it
  if (f->home != nullptr) {
    send_home(f);
  } else {
    shared_.push_foreign(f);
    idle.announce(*this);
  }
  visitors.fetch_sub(1, std::memory_order_release);  // release: the last touch; pairs with the end's acquire (R4)
}

// Behind everything on w's own queue; when that is full, its oldest move to the shared queue.
CONCUR_INLINE void scheduler::queue_behind(worker* w, fiber* f) noexcept { queue_behind_here(w, f); }

// A function of its own: its array must not stand in the frame of every fiber that parks.
CONCUR_NOINLINE CONCUR_INLINE void scheduler::spill(worker* w, fiber* f) noexcept {
  fiber* surplus[run_queue::batch + 1];
  std::uint32_t count = w->queue.pop_batch(surplus);
  surplus[count++] = f;
  shared_.push_surplus(surplus, count);
  idle.announce(*this);
}

// One to run, and a fair share of the rest for w's own queue.
CONCUR_INLINE fiber* scheduler::pop_shared(worker* w, shared_queue::look who) noexcept {
  const std::uint32_t count = shared_.count();
  if (count == 0) return nullptr;
  std::uint32_t most = count / worker_count + 1;
  const std::uint32_t room = run_queue::capacity - w->queue.stealable_count();
  if (most > room) most = room;
  if (most > run_queue::batch) most = run_queue::batch;
  fiber* taken[run_queue::batch];
  const std::uint32_t n = shared_.take(taken, most != 0 ? most : 1, who);
  for (std::uint32_t i = 1; i < n; ++i) queue_behind(w, taken[i]);
  return n != 0 ? taken[0] : nullptr;
}

// To the one worker that may run it.
CONCUR_INLINE void scheduler::send_home(fiber* f) noexcept {
  worker* home = f->home;
  if (home == this_worker()) {
    home->queue.push_pinned(f);
    return;
  }
  const auto onto = [f](fiber* newest) {
    f->next = newest;
    return f;
  };
  cas_update(home->inbox, onto, std::memory_order_release);  // release: publishes the fiber to its worker
  idle.announce_to(*this, *home);
}

// Oldest first into the pinned list.
CONCUR_INLINE void scheduler::empty_inbox(worker* w) noexcept {
  if (w->inbox.load(std::memory_order_relaxed) == nullptr) return;  // relaxed: a hint; the exchange acquires
  fiber* newest_first = w->inbox.exchange(nullptr, std::memory_order_acquire);  // acquire: pairs with send_home
  fiber* oldest_first = nullptr;
  while (newest_first != nullptr) {
    fiber* f = newest_first;
    newest_first = f->next;
    f->next = oldest_first;
    oldest_first = f;
  }
  while (oldest_first != nullptr) {
    fiber* f = oldest_first;
    oldest_first = f->next;
    w->queue.push_pinned(f);
  }
}

CONCUR_INLINE void resume(party* who) noexcept {
  if (who->kind == party_kind::fiber) {
    fiber* f = static_cast<fiber*>(who);
    f->owner->make_ready(f);
  } else {
    resume_thread(who);
  }
}

// --- the end ---

CONCUR_INLINE std::size_t scheduler::live_fiber_count() const noexcept {
  // The finished are counted first: a fiber spawned and finished meanwhile then counts as live, never as minus one.
  std::size_t finished = 0;
  for (unsigned i = 0; i < worker_count; ++i) finished += workers[i].finished.get();
  std::size_t spawned = foreign_spawned.load(std::memory_order_relaxed);  // relaxed: exact only when all are idle (R3)
  for (unsigned i = 0; i < worker_count; ++i) spawned += workers[i].spawned.get();
  return spawned - finished;
}

CONCUR_INLINE void scheduler::keep_exception(std::exception_ptr error) noexcept {
  lock_scope<spin_lock> held(exception_lock_);
  if (exception_ == nullptr) exception_ = error;
}

CONCUR_INLINE std::exception_ptr scheduler::take_exception() noexcept {
  lock_scope<spin_lock> held(exception_lock_);
  std::exception_ptr taken = exception_;
  exception_ = nullptr;
  return taken;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// runtime/suspend.hpp - the one way a fiber stops running.
//
// Locking, receiving, sleeping and reading are the same act: leave a note where the waker will look, leave the
// processor, and come back exactly once. This file is that act. Everything above it decides only who may wake whom.
//
// The race it exists for: the note is visible before we have left. A waker on another worker may find it at once and
// resume us there, while our registers are still in use here: two threads on one stack. Hence a site keeps its lock
// over the switch, and whoever runs next on this worker, on its own stack, publishes the one that left
// (publish_departed) and only then drops that lock.
//
//   S1  A wait ends by one claim (waiter.hpp, W1), and only the claimer makes the fiber ready.
//   S2  After the switch, the context that runs next sets the timer, makes the wait word odd and drops the site's
//       lock, in this order. Once the word is odd the fiber may run again: nothing of its frame is touched after
//       that. (A timer that fires before finds the word even, and comes again a tick later.)
//   S3  Publishing may not park, throw, or take a lock that is held around make_ready, except the timers'.
//   S4  The switch brings the worker that the fiber goes on at. No other way of knowing it is valid over the switch.
//   S5  Publishing looks at the scope's cancellation after it wrote the wait word, and who cancels looks at wait words
//       after it wrote the cancellation, with a light and a heavy fence between: one of them sees the other.
//   S6  The locks of several sites are dropped along their chain, which lies in the frame of the fiber that left. The fiber
//       may run again before they all are; it must not let its frame go until it has held, or knows of somebody who has
//       held, each of them since.
//   S7  A fiber whose function returned takes the next one in line, if that has not started, onto its own stack
//       without any switch: that is what makes short fibers cheap.
//
// Rejected: dropping the lock first and letting wakers spin on a `switching` flag. Correct, but each remote wake then
// waits for the slowest switch, and a pre-empted worker stalls its wakers.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// The rarer halves of leaving: the next one has not started (needs a stack), or there is none (the loop looks for one).
worker* leave_for_new(worker* w, fiber* self, fiber* next) noexcept;
CONCUR_INLINE void publish_timer(worker* w) noexcept;
CONCUR_INLINE void publish_finished(worker* w) noexcept;
CONCUR_INLINE void publish_selected(worker* w) noexcept;
CONCUR_INLINE void cancel_departed(fiber* f, std::uint32_t ticket) noexcept;
CONCUR_INLINE void note_raised(scope& innermost) noexcept;                    // cancel.hpp
CONCUR_INLINE void tell_departure(const worker& w, const fiber& f) noexcept;  // driven.hpp

CONCUR_FORCE_INLINE void publish_wait(worker* w, fiber* f) noexcept {
  w->how = departure::none;
  const std::uint32_t ticket = w->leaving_ticket;
  const bool is_deaf = f->shield_depth != 0 || is_unwinding(*f);
  f->is_deaf.store(is_deaf, std::memory_order_relaxed);  // relaxed: published with the wait word
  f->set_state(fiber_state::parked);
  if (CONCUR_UNLIKELY(w->leaving_timer != nullptr)) publish_timer(w);
  f->word.store(ticket, std::memory_order_release);  // release: publishes the stopped context to whoever claims
  light_fence();
  // relaxed: behind the fence of S5.
  if (CONCUR_UNLIKELY(f->is_cancelled.load(std::memory_order_relaxed)) && !is_deaf && !CONCUR_MUTANT_IS(55))
    cancel_departed(f, ticket);
}

// First thing after every switch, on the stack of whoever goes on (S2).
CONCUR_FORCE_INLINE void publish_departed(worker* w) noexcept {
  fiber* f = w->leaving;
  if (CONCUR_LIKELY(w->how == departure::parked)) {
    spin_lock* lock = w->leaving_lock;
    publish_wait(w, f);
    if (lock != nullptr) lock->unlock();
    return;
  }
  if (w->how == departure::yielded) {
    w->how = departure::none;
    f->set_state(fiber_state::ready);
    w->sched->queue_behind_here(w, f);
  } else if (w->how == departure::finished) {
    w->how = departure::none;
    publish_finished(w);
  } else if (w->how == departure::selected) {
    publish_selected(w);
  }
}

// Null: nothing local is ready, or upkeep is due; either is for the loop. Upkeep ends waits and takes the locks of
// sites, one of which the fiber that leaves may hold.
CONCUR_FORCE_INLINE fiber* pick_next(worker* w) noexcept {
  w->budget = worker::operations_per_slice;
  w->switches.add();
#if defined(CONCUR_EXPLORE)
  if (driver* d = driver_or_null()) return w->sched->pick_driven(*d, w);
#endif
  if (CONCUR_UNLIKELY(--w->picks_to_upkeep == 0)) return CONCUR_MUTANT_IS(52) ? w->sched->upkeep(w) : nullptr;
  return w->queue.pop();
}

// Switches to whatever is next, and returns, perhaps on another worker, when the fiber is resumed.
CONCUR_FORCE_INLINE worker* leave(worker* w, fiber* self) noexcept {
  fiber* next = pick_next(w);
  self->exceptions.save_from(w->exceptions);
  w->leaving = self;
  if (CONCUR_LIKELY(next != nullptr && next->is_started)) {
    next->exceptions.load_into(w->exceptions);
    next->set_state(fiber_state::running);
    w->current = next;
    w = static_cast<worker*>(switch_fiber_context(self->ctx, next->ctx, w, notice_of(self), notice_of(next)));
  } else {
    w = leave_for_new(w, self, next);
  }
  publish_departed(w);
  return w;
}

// Behind every other ready fiber of this worker.
CONCUR_FORCE_INLINE worker* yield_fiber(worker* w) noexcept {
  fiber* self = w->current;
  if (!w->queue.has_any() && w->picks_to_upkeep > 1) {
    --w->picks_to_upkeep;
    w->budget = worker::operations_per_slice;
    return w;
  }
  w->how = departure::yielded;
  return leave(w, self);
}

CONCUR_FORCE_INLINE outcome park_fiber_now(worker*& w, spin_lock* lock, wait_reason reason, departure how) noexcept {
  fiber* self = w->current;
  if (CONCUR_MUTANT_IS(63) && lock != nullptr) {
    lock->unlock();
    for (unsigned round = 0; round < 12;) spin_wait(round);
    lock = nullptr;
  }
  w->leaving_ticket = self->next_ticket();
  w->leaving_lock = lock;
  w->how = how;
  self->set_reason(reason);
  w = leave(w, self);
  self->set_reason(wait_reason::none);
  return self->result;
}

// Apart, so that a wait without a deadline has no timer in its frame. Gives the worker back by value, so that it stays in a
// register.
struct parked {
  worker* w;
  outcome result;
};
CONCUR_NOINLINE inline parked park_fiber_until(worker* w, spin_lock* lock, nanoseconds_t deadline_ns,
                                               wait_reason reason, departure how) noexcept {
  timer_entry timer;
  timer.deadline_ns = deadline_ns;
  timer.who = w->current;
  timer.ticket = w->current->next_ticket();
  w->leaving_timer = &timer;  // null again when it is set
  const outcome result = park_fiber_now(w, lock, reason, how);
  if (timer.wheel != nullptr && result != outcome::timed_out && !CONCUR_MUTANT_IS(291)) timer.wheel->call_off(timer);
  return {w, result};
}

// Parks the running fiber, until its note is claimed or the deadline passes. `lock`, the site's, is held by the
// caller and dropped once the fiber may be found; null when only time or cancellation can end the wait. The result
// says what ended it. A note in a queue, unless granted or closed, is still there: the site unlinks it.
CONCUR_FORCE_INLINE outcome park_fiber(worker*& w, spin_lock* lock, nanoseconds_t deadline_ns, wait_reason reason,
                                       departure how = departure::parked) noexcept {
  if (CONCUR_UNLIKELY(deadline_ns != never)) {
    const parked end = park_fiber_until(w, lock, deadline_ns, reason, how);
    w = end.w;
    return end.result;
  }
  return park_fiber_now(w, lock, reason, how);
}

// Drops the locks in order (S6).
inline void unlock_chain(lock_chain* locks) noexcept {
  while (locks != nullptr) {
    lock_chain* const next = locks->next;
    locks->lock->unlock();
    locks = next;
  }
}

// Parks the running fiber, whose notes are at several sites; `locks` are theirs (S6).
outcome park_selected(worker*& w, lock_chain* locks, nanoseconds_t deadline_ns) noexcept;

// Every parking operation begins with this: it raises a cancellation, and makes a fiber that never has to wait yield
// now and then. Throws `cancelled`. Not while the stack unwinds: destructors finish their work.
// Returns the worker that the caller goes on at; null on a plain thread.
worker* checkpoint_slow(worker* w);
CONCUR_FORCE_INLINE worker* checkpoint() {
  worker* w = this_worker();
  if (CONCUR_UNLIKELY(w == nullptr || w->current == nullptr)) return nullptr;
  const bool is_spent = --w->budget == 0 && !CONCUR_MUTANT_IS(77);
  if (CONCUR_UNLIKELY(is_spent) || CONCUR_UNLIKELY(w->current->should_cancel())) return checkpoint_slow(w);
  return w;
}

// The same without throwing. False: the caller is cancelled. Else w is what checkpoint() returns.
worker* checkpoint_slow_quietly(worker* w) noexcept;  // null: cancelled
CONCUR_FORCE_INLINE bool checkpoint_quietly(worker*& w) noexcept {
  w = this_worker();
  if (CONCUR_UNLIKELY(w == nullptr || w->current == nullptr)) {
    w = nullptr;
    return true;
  }
  const bool is_spent = --w->budget == 0 && !CONCUR_MUTANT_IS(77);
  if (CONCUR_UNLIKELY(is_spent) || CONCUR_UNLIKELY(w->current->should_cancel())) w = checkpoint_slow_quietly(w);
  return w != nullptr;
}

// How a site reports an end that is none of its own.
[[noreturn]] inline void fail_outcome(outcome result, const char* what) {
  if (result == outcome::cancelled) fail_cancelled();
  fail_timed_out(what);
}

// Switches from a worker's loop to a fiber, and returns when the loop is wanted again.
CONCUR_INLINE void enter_fiber(worker* w, fiber* f) noexcept;
CONCUR_INLINE void bind_stack(worker* w, fiber* f, stack* s) noexcept;  // first_run.hpp

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void publish_timer(worker* w) noexcept {
  timer_entry* timer = w->leaving_timer;
  w->leaving_timer = nullptr;
  w->timers.set(*timer);
}

// Behind a look that saw a fiber's flag, and before the fiber is told: which of its scopes are cancelled is to be known then,
// or what is thrown passes by the one that should catch it.
inline void know_cancelled_scopes() noexcept {
  // acquire: pairs with the fence in tell_token, which each scope's flag comes before, and the fiber's flag behind.
  if (!CONCUR_MUTANT_IS(290)) thread_fence(std::memory_order_acquire);
}

CONCUR_INLINE void cancel_departed(fiber* f, std::uint32_t ticket) noexcept {
  if (!claim(*f, ticket)) return;
  f->result = outcome::cancelled;
  know_cancelled_scopes();
  note_raised(*f->innermost());
  resume(f);
}

CONCUR_INLINE void publish_finished(worker* w) noexcept {
  stack* s = w->dead_stack;
#  if CONCUR_ASAN || CONCUR_TSAN
  std::launder(reinterpret_cast<stack_notice*>(s->low + s->size - sizeof(stack_notice)))->release();
#  endif
  w->sched->recycle_stack(w, s);
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

CONCUR_INLINE void publish_selected(worker* w) noexcept {
  lock_chain* const locks = w->leaving_locks;
  publish_wait(w, w->leaving);
  unlock_chain(locks);
}

CONCUR_NOINLINE CONCUR_INLINE outcome park_selected(worker*& w, lock_chain* locks, nanoseconds_t deadline_ns) noexcept {
  w->leaving_locks = locks;
  return park_fiber(w, nullptr, deadline_ns, wait_reason::select, departure::selected);
}

CONCUR_NOINLINE CONCUR_INLINE worker* checkpoint_slow_quietly(worker* w) noexcept {
  if (w->current->should_cancel()) {
    w->budget = worker::operations_per_slice;
    if (driver* d = driver_or_null()) d->step();  // who swallows it and tries again has to come to an end there
    know_cancelled_scopes();
#  if CONCUR_EXCEPTIONS
    if (std::uncaught_exceptions() > w->current->unwind_base && !CONCUR_MUTANT_IS(209)) return w;
#  endif
    note_raised(*w->current->innermost());
    return CONCUR_MUTANT_IS(190) ? w : nullptr;
  }
  if (driver* d = driver_or_null()) {
    w->budget = 1;
    if (!d->interrupts_fiber()) return w;
  }
  w->picks_to_upkeep = 1;  // a whole slice without a wait is long enough to have missed timers and events
  return yield_fiber(w);
}

CONCUR_NOINLINE CONCUR_INLINE worker* checkpoint_slow(worker* w) {
#  if !CONCUR_EXCEPTIONS
  if (w->current->should_cancel()) {  // only a wait has to fail
    w->budget = worker::operations_per_slice;
    return w;
  }
#  endif
  worker* const next = checkpoint_slow_quietly(w);
  if (next == nullptr) fail_cancelled();
  return next;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// runtime/fetch_ahead.hpp - the next fibers' memory is asked for before they run.
//
// When many parked fibers are woken at once, each was last touched long ago: its block and the end of its stack are out of
// the cache, and the address of the stack's page is out of the processor's table of pages. Run one after another, each fiber
// waits for five or six lines in turn. Asked for together, and a fiber ahead, they come while the one before ends: of a
// million parked fibers each is woken, run and ended in a third of the time, and one that is cancelled, whose unwinding
// writes to another 2 KiB of its stack, in two thirds.
//
// Only who ends asks for them: it is how crowds go away, and a switch between fibers that go on is too short to do more in.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Of what a stack that stopped at `end` needs, lines of it upwards and downwards.
CONCUR_FORCE_INLINE void fetch_stack(const void* end, int up, int down) noexcept {
  constexpr int line = 64;
  const char* const at = static_cast<const char*>(end);
  for (int k = 0; k < up; ++k) __builtin_prefetch(at + k * line);
  for (int k = 1; k <= down; ++k) __builtin_prefetch(at - k * line, 1);
}

// The fiber `next` is switched to in a moment, and those in `queue` follow. Another worker may have taken them meanwhile: what
// is read of them here may be wrong, goes nowhere, and a prefetch of a wrong address does nothing. Tools that look for such
// reads do without.
CONCUR_FORCE_INLINE void fetch_ahead([[maybe_unused]] const fiber& next,
                                     [[maybe_unused]] const run_queue& queue) noexcept {
#if !CONCUR_TSAN && !defined(CONCUR_EXPLORE)
  constexpr int frames = 6;
  constexpr int unwinding = 28;
  const fiber* const later = queue.peek(3);
  if (CONCUR_LIKELY(later == nullptr)) return;  // no crowd
  fetch_stack(next.ctx.sp, frames, 0);
  for (int k = 0; k < 3; ++k) __builtin_prefetch(reinterpret_cast<const char*>(later) + 64 * k, 1);
  const fiber* const follower = queue.peek(0);  // its block was asked for three fibers ago
  if (follower == nullptr || !follower->is_started) return;
  fetch_stack(follower->ctx.sp, frames, 0);
  if (follower->result == outcome::cancelled) fetch_stack(follower->ctx.sp, 0, unwinding);
#endif
}

// For who runs new fibers one after another on its own stack. The middle line of the block came with its link.
CONCUR_FORCE_INLINE void fetch_later([[maybe_unused]] const run_queue& queue) noexcept {
#if !CONCUR_TSAN && !defined(CONCUR_EXPLORE)
  const char* const later = reinterpret_cast<const char*>(queue.peek(4));
  if (CONCUR_LIKELY(later == nullptr)) return;
  __builtin_prefetch(later, 1);
  __builtin_prefetch(later + 128, 1);
#endif
}

}  // namespace detail
CONCUR_NAMESPACE_END

// runtime/first_run.hpp - how a fiber comes by a stack, what runs at the bottom of it, and how it ends.
//
// A stack is bound when its fiber is first switched to. At its bottom is a loop: when the function of the fiber has returned,
// the next in line is looked at. If that has not started either, it is called right here, on the same stack; so a million
// short fibers that wait in a row cost a call each, and no switch (suspend.hpp, S7).

#if CONCUR_BODIES

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

// runtime/caller.hpp - who makes a blocking call: a fiber, or a plain thread.
//
// Every primitive is for both, and none asks which. A caller is made at the beginning of the call, gives the party that
// the notes are about, and parks it: a fiber leaves its worker to others (suspend.hpp), a thread sleeps on its parker.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// A thread inside a blocking call. On that thread's stack.
struct thread_party : party {
  thread_party() noexcept : party(party_kind::thread) {}
  parker thread;
  int wake_end = -1;  // of a pipe, while the thread sleeps in poll() instead (select_poll.hpp)
};

CONCUR_INLINE outcome park_thread(thread_party& self, lock_chain* locks, nanoseconds_t deadline_ns) noexcept;

// Who makes a blocking call: the fiber of this worker, or this thread.
class caller {
 public:
  // w: the calling thread's worker, as this_worker() or checkpoint() gave it.
  explicit caller(worker* w) noexcept : worker_(w) {
    if (CONCUR_UNLIKELY(worker_ == nullptr || worker_->current == nullptr)) {
      worker_ = nullptr;
      ::new (static_cast<void*>(room_)) thread_party();
    }
  }
  ~caller() {
    if (CONCUR_UNLIKELY(worker_ == nullptr)) as_thread()->~thread_party();
  }
  caller(const caller&) = delete;
  caller& operator=(const caller&) = delete;

  party* who() noexcept { return worker_ != nullptr ? static_cast<party*>(worker_->current) : as_thread(); }

  thread_party& thread() noexcept { return *as_thread(); }

  CONCUR_FORCE_INLINE outcome park(spin_lock* lock, nanoseconds_t deadline_ns, wait_reason reason) noexcept {
    if (CONCUR_LIKELY(worker_ != nullptr)) return park_fiber(worker_, lock, deadline_ns, reason);
    lock_chain one{lock, nullptr};
    return park_thread(*as_thread(), lock != nullptr ? &one : nullptr, deadline_ns);
  }
  outcome park_at_all(lock_chain* locks, nanoseconds_t deadline_ns) noexcept {
    if (CONCUR_LIKELY(worker_ != nullptr)) return park_selected(worker_, locks, deadline_ns);
    return park_thread(*as_thread(), locks, deadline_ns);
  }

 private:
  thread_party* as_thread() noexcept { return std::launder(reinterpret_cast<thread_party*>(room_)); }

  worker* worker_;
  alignas(thread_party) unsigned char room_[sizeof(thread_party)];
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE outcome park_thread(thread_party& self, lock_chain* locks, nanoseconds_t deadline_ns) noexcept {
  const std::uint32_t ticket = self.next_ticket();
  self.word.store(ticket, std::memory_order_release);  // release: publishes the note's fields to whoever claims
  unlock_chain(locks);
  if (deadline_ns == never) {
    self.thread.park();
    return self.result;
  }
  if (self.thread.park_until(deadline_ns)) return self.result;
  if (claim(self, ticket)) return outcome::timed_out;
  self.thread.park();  // somebody claimed in the same moment, and its wake-up is on the way
  return self.result;
}

CONCUR_INLINE void resume_thread(party* who) noexcept {
  thread_party* const t = static_cast<thread_party*>(who);
  const int wake_end = t->wake_end;
  if (CONCUR_LIKELY(wake_end < 0)) {
    t->thread.unpark();
    return;
  }
  const char byte = 1;
  static_cast<void>(!::write(wake_end, &byte, 1));
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// runtime/forms.hpp - a blocking call in its two forms: one throws `cancelled`, the other says so in a std::error_code.
//
// What may park is written once, as a function of the worker that its checkpoint gave, and returns an outcome. perform()
// is all that the forms add: the checkpoint before, and what becomes of a cancellation after.
//
//     form                      cancelled before, or while it waits     else
//     op(args...)               throws `cancelled`                      -
//     op(args..., error)        errc::operation_canceled                the code is cleared
//
// Where a call ends in a pack of the caller's own, the code comes before it: select(error, cases...). Built without
// exceptions, the first form has no way out but on_fatal. So there a cancellation alone does not end it: only having to
// wait does.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// The end of the first form. `granted` is asked for first: what need not wait pays for one comparison, which is the
// caller's own.
CONCUR_FORCE_INLINE outcome or_throw(outcome result) {
  if (CONCUR_LIKELY(result == outcome::granted)) return outcome::granted;
  if (result == outcome::cancelled) fail_cancelled();
  return result;
}

// The end of the second.
inline outcome or_tell(outcome result, std::error_code& error) noexcept {
  if (result == outcome::cancelled && !CONCUR_MUTANT_IS(191))
    error = std::make_error_code(std::errc::operation_canceled);
  else if (!CONCUR_MUTANT_IS(192))
    error.clear();
  return result;
}

// operation(worker*), from the caller's checkpoint on; null on a plain thread. Misuse passes through as it is thrown.
template <class Operation>
CONCUR_FORCE_INLINE outcome perform(Operation&& operation) {
  return or_throw(operation(checkpoint()));
}
template <class Operation>
CONCUR_FORCE_INLINE outcome perform(Operation&& operation, std::error_code& error) {
  worker* w = nullptr;
  return or_tell(CONCUR_LIKELY(checkpoint_quietly(w)) ? operation(w) : outcome::cancelled, error);
}

}  // namespace detail
CONCUR_NAMESPACE_END

// runtime/wait_queue.hpp - a lock, and the parties that wait for what it guards.
//
// Most primitives are the same thing with different arithmetic: a few words under a small lock, and a queue of those
// whom the words do not let pass yet. The lock, the queue and the act of waiting are here; the words and the rule who
// may pass are the primitive's own.
//
//   Q1  The queue changes under the lock only. A party that is in the queue waits, has just been claimed elsewhere, or is
//       about to take itself off.
//   Q2  wait() returns with the caller off the queue and the lock free, whatever ended the wait.
//   Q3  Whoever lets parties pass claims them under the lock (pop_claimed, ended_waits::take_all) and resumes them after
//       it has dropped the lock.
//   Q4  Who retires the lock (retirable_lock.hpp, K3) has taken everybody off the queue before, and nobody gets onto it while
//       the lock is retired. A waiter that finds it so has nothing to take off.

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct wait_queue {
  retirable_lock lock;
  intrusive_list<waiter> parties;

  // Under the lock, which it drops (Q2). A deadline that has passed ends the wait before it began. `value` is for who
  // claims the note. Returns what ended the wait; unless that is granted or closed, nothing was given.
  outcome wait(caller& me, void* value, nanoseconds_t deadline_ns, wait_reason reason) noexcept;
  // For what is over once the lock is retired: waits for that, from the caller's checkpoint on. granted, timed_out or
  // cancelled.
  outcome wait_until_retired(worker* w, nanoseconds_t deadline_ns, wait_reason reason) noexcept;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE outcome wait_queue::wait(caller& me, void* value, nanoseconds_t deadline_ns,
                                       wait_reason reason) noexcept {
  if (deadline_ns != never && deadline_ns <= now_ns()) {
    lock.unlock();
    return outcome::timed_out;
  }
  waiter note(me.who(), value);
  parties.push_back(&note);
  const outcome result = me.park(&lock, deadline_ns, reason);
  if (result == outcome::timed_out || result == outcome::cancelled) {
    if (CONCUR_MUTANT_IS(135)) lock.lock();
    if (CONCUR_MUTANT_IS(135) || lock.lock_unless_retired() == 0) {  // Q4
      if (intrusive_list<waiter>::is_linked(&note)) parties.erase(&note);
      lock.unlock();
    }
  }
  return result;
}

CONCUR_INLINE outcome wait_queue::wait_until_retired(worker* w, nanoseconds_t deadline_ns,
                                                     wait_reason reason) noexcept {
  if (lock.peek() > 1) return outcome::granted;
  caller me(w);
  if (lock.lock_unless_retired() != 0) return outcome::granted;
  return wait(me, nullptr, deadline_ns, reason);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// runtime/scope_entry.hpp - how the tree of scopes grows and shrinks: scopes are entered and left, children join and leave.
//
// Each of these acts is its own fiber's, or is done for a fiber that does not run yet or any more; and each is done under the
// lock of scope.hpp that walkers hold while they look there. So a cancellation that comes down the tree at the same moment
// finds the tree before or after, and in both cases what is new ends up with the right flag:
//
//     the walker came first     who enters computes its flag from what the walker wrote above
//     the walker comes later    it meets what has been entered

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

// runtime/cancel.hpp - the two walks down the tree of scopes by which a cancellation reaches all that is below.
//
// Cancelling must find every fiber below a scope, also those that park in this moment, and wake each exactly once; and
// while it does, fibers go on entering and leaving scopes, and begin and end. Two walks down the tree do it:
//
//     mark     brings is_cancelled up to date in each scope below, root to leaf; goes no further where nothing changed
//     fence
//     wake     looks at each fiber below that waits in a scope which is cancelled, claims its wait, and resumes it
//
//   N1  Whoever parks after the mark sees the flag (suspend.hpp, S5); whoever was parked before is seen by the wake. The
//       heavy fence between the walks is one side of that pair, the light fence behind the wait word the other;
//       tests/model_cancel.cpp ends badly without either.
//   N2  A walk holds the locks from the scope it began at down to where it is, and takes them in that order: two walks do not
//       overtake each other, and whoever begins, enters or leaves below is either met or sees what was written above.
//   N3  Nobody is resumed, and no listener called, under a lock. Claimed fibers stand still until they are resumed (W2), so
//       a chain through them is safe; their `next` is free, since they are on no queue.
//   N4  Walks need no memory and no recursion: the way back up is written in the tree.
//
// Rejected: one lock for the whole tree. Correct, and simpler; but each scope of each fiber would touch one shared word.
// Rejected: no marks, and asking every scope up to the root at each checkpoint. It makes deep trees slow where they are
// used, and saves work where cancellations are, which are rarer.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Cancels all that is below. From any thread, while the scope exists. Does not wait.
CONCUR_INLINE void cancel_scope_tree(scope& s) noexcept;
// From any thread. Without a shield, a cancellation from outside is felt at once, also by who is parked.
CONCUR_INLINE void set_scope_shield(scope& s, bool is_shielded) noexcept;

// The scope's token, held once for the caller; null when memory is exhausted.
CONCUR_INLINE token_state* token_of(scope& s) noexcept;

// What one cancellation does, from its walks to the resuming.
class cancellation {
 public:
  cancellation() noexcept = default;
  cancellation(const cancellation&) = delete;
  cancellation& operator=(const cancellation&) = delete;

  // From `top`, which f has entered, inwards and down; null: from the outermost of f's own scopes that lie below `base`.
  // f's lock is held.
  void mark(fiber* f, scope* top, scope* base) noexcept {
    walk(f, top, base, &cancellation::mark_scope, &cancellation::mark_fiber);
  }
  void wake(fiber* f, scope* top, scope* base) noexcept {
    walk(f, top, base, &cancellation::may_descend, &cancellation::wake_fiber);
  }
  // What the mark found: whether anything changed, and whether other fibers than f are below. Else nobody is to be woken.
  bool has_changed() const noexcept { return has_changed_; }
  bool has_others() const noexcept { return has_others_; }
  // For a scope that is in no fiber's list.
  void tell_token(scope& s) noexcept;
  // N3.
  void finish() noexcept;

 private:
  // Whether to go on inwards and down from there.
  using scope_look = bool (cancellation::*)(scope&) noexcept;
  using fiber_look = void (cancellation::*)(fiber&) noexcept;

  void walk(fiber* f, scope* top, scope* base, scope_look at_scope, fiber_look at_fiber) noexcept;
  bool mark_scope(scope& s) noexcept;
  void mark_fiber(fiber& f) noexcept;
  bool may_descend(scope& s) noexcept;
  void wake_fiber(fiber& f) noexcept;

  fiber* first_ = nullptr;
  fiber** end_ = &first_;
  token_state* told_ = nullptr;
  bool has_changed_ = false;
  bool has_others_ = false;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

// --- walking ---

CONCUR_INLINE void note_raised(scope& innermost) noexcept {
  scope* origin = &innermost;
  while (origin->surroundings_cancelled()) origin = origin->outer();
  origin->was_raised.store(true, std::memory_order_relaxed);  // relaxed: read by fibers that are told by other means
}

// Under f's lock: writes the way inwards into f's scopes up to `outside`, and returns the outermost of them; null: none.
inline scope* link_inwards(fiber& f, const scope* outside) noexcept {
  scope* inner = nullptr;
  // acquire: pairs with enter_scope.
  for (scope* s = f.current_scope.load(std::memory_order_acquire); s != outside; s = s->outer()) {
    s->inner = inner;
    inner = s;
  }
  return inner;
}

// N2, N4. Each round is one scope s of the fiber f, or, with s null, the end of f.
CONCUR_INLINE void cancellation::walk(fiber* f, scope* top, scope* base, scope_look at_scope,
                                      fiber_look at_fiber) noexcept {
  fiber* const host = f;
  scope* s = link_inwards(*f, top != nullptr ? top->outer() : base);
  for (;;) {
    if (s != nullptr) {
      if (!(this->*at_scope)(*s)) {
        s = nullptr;
        continue;
      }
      nursery_part* const n = s->below;
      if (n != nullptr) {
        n->gate.lock.lock();
        if (member* const child = n->members.front()) {
          f = child->who;
          f->scope_lock.lock();
          has_others_ = true;
          s = link_inwards(*f, n->top);
          continue;
        }
        n->gate.lock.unlock();
      }
      s = s->inner;
      continue;
    }
    (this->*at_fiber)(*f);
    if (f == host) return;
    member* const child = static_cast<member*>(f->payload);
    nursery_part* const n = child->home;
    f->scope_lock.unlock();
    if (child->next != n->members.front()) {
      f = child->next->who;
      f->scope_lock.lock();
      s = link_inwards(*f, n->top);
      continue;
    }
    n->gate.lock.unlock();
    f = n->top->owner.load(std::memory_order_relaxed);  // relaxed: it has members, so nobody changes that (H2)
    s = n->top->inner;
  }
}

CONCUR_INLINE bool cancellation::mark_scope(scope& s) noexcept {
  const bool flag = computed_flag(s);
  if (flag == s.is_effective()) return false;
  s.is_cancelled.store(flag, std::memory_order_relaxed);  // relaxed: the fence between the walks (N1)
  has_changed_ = true;
  if (flag) tell_token(s);
  return true;
}

CONCUR_INLINE void cancellation::tell_token(scope& s) noexcept {
  // seq_cst: with token_of, which writes the token, then looks; and publishes the flag of s to who sees the fiber's
  // (know_cancelled_scopes).
  thread_fence(std::memory_order_seq_cst);
  token_state* const t = s.token.load(std::memory_order_acquire);  // acquire: pairs with token_of
  // relaxed: only who is first.
  if (t == nullptr || (t->is_told.exchange(true, std::memory_order_relaxed) && !CONCUR_MUTANT_IS(231))) return;
  t->hold();
  t->next_told = told_;
  told_ = t;
}

CONCUR_INLINE void cancellation::mark_fiber(fiber& f) noexcept { note_flag(f); }

CONCUR_INLINE bool cancellation::may_descend(scope& s) noexcept { return s.is_effective(); }

CONCUR_INLINE void cancellation::wake_fiber(fiber& f) noexcept {
  const std::uint32_t word = f.word.load(std::memory_order_acquire);  // acquire: pairs with the fiber's parking
  // relaxed: the claim proves that it belonged to this wait.
  if ((word & 1) == 0 || f.is_deaf.load(std::memory_order_relaxed) ||
      !f.is_cancelled.load(std::memory_order_relaxed))  // relaxed: under the lock
    return;
  if (!claim(f, word)) return;
  f.result = outcome::cancelled;
  note_raised(*f.innermost());
  f.next = nullptr;
  *end_ = &f;
  end_ = &f.next;
}

CONCUR_INLINE void cancellation::finish() noexcept {
  while (first_ != nullptr) {
    fiber* const f = first_;
    first_ = f->next;  // read before the resume (W2)
    resume(f);
  }
  end_ = &first_;
  while (told_ != nullptr) {
    token_state* const t = told_;
    told_ = t->next_told;
    t->cancel();
    t->release();
  }
}

// --- causes ---

CONCUR_INLINE void tell_alone(scope& s) noexcept {
  cancellation act;
  act.tell_token(s);
  act.finish();
}

// With the lock of the scope's owner held, which is dropped: after was_called or is_shielded was changed.
inline void spread(fiber& owner, scope& s) noexcept {
  cancellation act;
  act.mark(&owner, &s, nullptr);
  const bool is_cancelled = act.has_changed() && s.is_effective();
  owner.scope_lock.unlock();
  worker* const w = this_worker();
  const bool is_own = w != nullptr && w->current == &owner;
  if (is_cancelled && (act.has_others() || !is_own)) {
    // With one worker, and on it, nobody parks meanwhile.
    const bool is_alone = w != nullptr && w->sched == owner.owner && w->sched->worker_count == 1;
    if (!is_alone) heavy_fence();
    owner.scope_lock.lock();
    // relaxed: under the lock. If it was left meanwhile, so was all that was below.
    if (s.owner.load(std::memory_order_relaxed) == &owner || CONCUR_MUTANT_IS(292)) act.wake(&owner, &s, nullptr);
    owner.scope_lock.unlock();
  }
  act.finish();
}

// The scope's owner, locked; null: nobody has entered it.
inline fiber* lock_owner(scope& s) noexcept {
  for (;;) {
    fiber* const f = s.owner.load(std::memory_order_seq_cst);  // seq_cst: see enter_scope
    if (f == nullptr) return nullptr;
    f->scope_lock.lock();
    if (s.owner.load(std::memory_order_relaxed) == f) return f;  // relaxed: under the lock
    f->scope_lock.unlock();
  }
}

CONCUR_INLINE void cancel_scope_tree(scope& s) noexcept {
  if (s.was_called.exchange(true, std::memory_order_seq_cst)) return;  // seq_cst: see enter_scope
  if (fiber* const f = lock_owner(s))
    spread(*f, s);
  else
    tell_alone(s);
}

CONCUR_INLINE void set_scope_shield(scope& s, bool is_shielded) noexcept {
  s.is_shielded.store(is_shielded, std::memory_order_seq_cst);  // seq_cst: as was_called, see enter_scope
  fiber* const f = CONCUR_MUTANT_IS(216) ? nullptr : lock_owner(s);
  if (f != nullptr) spread(*f, s);
}

CONCUR_INLINE token_state* token_of(scope& s) noexcept {
  token_state* t = s.token.load(std::memory_order_acquire);  // acquire: pairs with the exchange below
  if (t == nullptr) {
    token_state* const fresh = new (std::nothrow) token_state();
    if (fresh == nullptr) return nullptr;
    // seq_cst: with tell_token. acquire on failure: somebody else made it.
    if (s.token.compare_exchange_strong(t, fresh, std::memory_order_seq_cst, std::memory_order_acquire))
      t = fresh;
    else
      fresh->release();
  }
  t->hold();
  thread_fence(std::memory_order_seq_cst);  // seq_cst: as above
  // relaxed: behind the fence.
  if (s.is_effective() || s.was_called.load(std::memory_order_relaxed)) t->cancel();
  return t;
}

// The root of a fiber's scopes: what its outermost own scope is entered below. Under its lock.
inline const scope* base_of(const fiber& f) noexcept {
  const scope* s = f.current_scope.load(std::memory_order_acquire);  // acquire: pairs with enter_scope
  // relaxed: under the lock of the one that it is compared with.
  while (s != nullptr && s->owner.load(std::memory_order_relaxed) == &f) s = s->outer();
  return s;
}

// Fibers whose base is the root are in no list: the pool's chunks are walked for them.
CONCUR_INLINE void scheduler::cancel_all() noexcept {
  struct round {
    scope* root;
    cancellation act;
    bool is_waking;
  };
  round all{&root_scope, {}, false};
  const auto look = [](fiber* f, void* raw) {
    round* const r = static_cast<round*>(raw);
    lock_scope<spin_lock> held(f->scope_lock);
    if (base_of(*f) != r->root) return;
    if (r->is_waking)
      r->act.wake(f, nullptr, r->root);
    else
      r->act.mark(f, nullptr, r->root);
  };
  root_scope.is_cancelled.store(true, std::memory_order_relaxed);  // relaxed: the blocks' locks (put_into_root)
  all.act.tell_token(root_scope);
  blocks->walk(look, &all);
  heavy_fence();
  all.is_waking = true;
  blocks->walk(look, &all);
  all.act.finish();
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// runtime/idle_sleep.hpp - the bodies of idle.hpp, which need to know the scheduler they serve.

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

// --- the list; under lock_ ---

CONCUR_INLINE void idle_set::link(worker* w) noexcept {
  worker* before = nullptr;
  worker* after = first_;
  if (w->is_polling) {
    for (; after != nullptr; after = after->idle_next) before = after;
  }
  w->idle_prev = before;
  w->idle_next = after;
  if (before != nullptr)
    before->idle_next = w;
  else
    first_ = w;
  if (after != nullptr) after->idle_prev = w;
  w->is_idle = true;
  // relaxed: the fence that follows in sleep() orders it (F2).
  count_.store(count_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

// False: a waker took it out before, and its wake-up is under way (I6).
CONCUR_INLINE bool idle_set::unlink(worker* w) noexcept {
  if (!w->is_idle) return false;
  if (w->idle_prev != nullptr)
    w->idle_prev->idle_next = w->idle_next;
  else
    first_ = w->idle_next;
  if (w->idle_next != nullptr) w->idle_next->idle_prev = w->idle_prev;
  w->is_idle = false;
  // relaxed: a submitter that still sees the old count takes the lock and finds the list shorter.
  count_.store(count_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
  return true;
}

// --- waking ---

// The worker left the list, and sleeps in the poller or on its parker, or notices by itself that it need not sleep. A
// wake-up that is then not needed ends some later sleep early. Outside the lock, since it may cost a system call.
inline void wake_unlinked(scheduler& s, worker* w, bool is_polling) noexcept {
  if (is_polling)
    s.wake_poller();
  else
    w->idle_parker.unpark();
}

CONCUR_INLINE void idle_set::wake_one(scheduler& s) noexcept {
  worker* w = nullptr;
  bool is_polling = false;
  {
    lock_scope<spin_lock> held(lock_);
    w = first_;
    if (w == nullptr) return;
    unlink(w);
    is_polling = w->is_polling;
    w->is_searching = true;
    searchers_.fetch_add(1,
                         std::memory_order_relaxed);  // relaxed: the token's order is made by its return (end_search)
  }
  wake_unlinked(s, w, is_polling);
}

CONCUR_INLINE void idle_set::wake_all(scheduler& s) noexcept {
  for (;;) {
    worker* w = nullptr;
    bool is_polling = false;
    {
      lock_scope<spin_lock> held(lock_);
      w = first_;
      if (w == nullptr) return;
      unlink(w);
      is_polling = w->is_polling;
    }
    wake_unlinked(s, w, is_polling);
  }
}

CONCUR_INLINE void idle_set::announce(scheduler& s) noexcept {
  if (!CONCUR_MUTANT_IS(3)) {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(263) ? std::memory_order_acq_rel : std::memory_order_seq_cst;
    thread_fence(order);  // seq_cst: F1; forbids that R1 and R2 both miss
  }
  // relaxed: behind F1.
  if (count_.load(std::memory_order_relaxed) != 0 && searchers_.load(std::memory_order_relaxed) == 0) wake_one(s);
}

CONCUR_INLINE void idle_set::announce_to(scheduler& s, worker& home) noexcept {
  CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(264) ? std::memory_order_acq_rel : std::memory_order_seq_cst;
  thread_fence(order);                                      // seq_cst: F1
  if (count_.load(std::memory_order_relaxed) == 0) return;  // relaxed: behind F1
  bool is_polling = false;
  {
    lock_scope<spin_lock> held(lock_);
    if (!unlink(&home)) return;
    is_polling = home.is_polling;
  }
  wake_unlinked(s, &home, is_polling);
}

CONCUR_NOINLINE CONCUR_INLINE void idle_set::suggest_slow(scheduler& s) noexcept {
  if (searchers_.load(std::memory_order_relaxed) == 0) wake_one(s);  // relaxed: speed only (I1)
}

// --- searching ---

CONCUR_INLINE bool idle_set::begin_search(scheduler& s, worker* w) noexcept {
  if (w->is_searching) return true;
  // relaxed: a limit that is passed by one now and then does no harm.
  if (2 * searchers_.load(std::memory_order_relaxed) >= s.worker_count) return false;
  searchers_.fetch_add(1, std::memory_order_relaxed);  // relaxed: see wake_one
  w->is_searching = true;
  return true;
}

CONCUR_INLINE void idle_set::end_search(scheduler& s, worker* w, bool has_found) noexcept {
  if (!w->is_searching) return;
  w->is_searching = false;
  // seq_cst: comes before the last look (R2) in the one order that F1 takes part in (I2).
  const bool was_last = searchers_.fetch_sub(1, std::memory_order_seq_cst) == 1;
  if (!has_found || !was_last) return;
  thread_fence(std::memory_order_seq_cst);  // seq_cst: as F2, for the look of I3
  if (s.has_work_for(w, true)) announce(s);
}

// --- sleeping ---

CONCUR_INLINE int idle_set::sleep_in_poller(scheduler& s, poll_event* events) noexcept {
  const nanoseconds_t said = s.next_timer_ns();
  poll_until_ns_.write(said);
  if (!CONCUR_MUTANT_IS(57)) {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(266) ? std::memory_order_acq_rel : std::memory_order_seq_cst;
    thread_fence(order);  // seq_cst: I5; either we see the timer, or its worker sees how long we sleep
  }
  // Never longer than it said: the timer that it spoke of may be gone, and one that is set now is compared with that.
  nanoseconds_t until = s.next_timer_ns();
  if (until > said && !CONCUR_MUTANT_IS(253)) until = said;
  const nanoseconds_t now = until == never ? 0 : now_ns();
  const int count = s.wait_events(events, until == never ? -1 : (until > now ? until - now : 0));
  poll_until_ns_.write(long_ago);
  return count;
}

CONCUR_INLINE void idle_set::hear_timer(scheduler& s, const timer_wheel& wheel) noexcept {
  CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(267) ? std::memory_order_acq_rel : std::memory_order_seq_cst;
  thread_fence(order);  // seq_cst: I5, the other side
  if (wheel.next_ns() < poll_until_ns_.read()) s.wake_poller();
}

CONCUR_INLINE void idle_set::sleep(scheduler& s, worker* w, bool has_searched) noexcept {
  std::uint32_t nobody = 0;
  // acquire: what the last poller left is seen. relaxed on failure: another one polls, and we need nothing of it.
  const bool polls =
      s.poll_owner.compare_exchange_strong(nobody, 1, std::memory_order_acquire, std::memory_order_relaxed);
  {
    lock_scope<spin_lock> held(lock_);
    w->is_polling = polls;
    link(w);
    if (count_.load(std::memory_order_relaxed) == s.worker_count) report_quiet(s);  // relaxed: under the lock
  }
  if (!CONCUR_MUTANT_IS(4)) {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(265) ? std::memory_order_acq_rel : std::memory_order_seq_cst;
    thread_fence(order);  // seq_cst: F2; forbids that R1 and R2 both miss
  }
  poll_event events[scheduler::events_at_once];
  int event_count = 0;
  const bool has_work = s.has_work_for(w, has_searched);
  if (!has_work) {
    w->parks.add();
    if (polls) {
      event_count = sleep_in_poller(s, events);
    } else {
      if (w->timers.next_ns() < poll_until_ns_.read()) s.wake_poller();  // I5
      w->idle_parker.park();
    }
  }
  {
    lock_scope<spin_lock> held(lock_);
    unlink(w);
  }
  if (has_work && s.worker_count > 1) begin_search(s, w);  // there may be more than one fiber's worth: I3
  s.watch.nudge(s);
  if (!polls) return;
  s.poll_owner.store(0, std::memory_order_release);  // release: pairs with the next poller's acquire
  s.dispatch_events(events, event_count);
  s.fire_timers();
}

// Under lock_, with all workers linked: none of them runs a fiber, and their counters stand still.
CONCUR_INLINE void idle_set::report_quiet(scheduler& s) noexcept {
  if (watches_ == nullptr || s.live_fiber_count() != 0) return;
  while (quiet_watch* watch = watches_) {
    watches_ = watch->next;
    watch->thread.unpark();
  }
}

CONCUR_INLINE void idle_set::wait_quiet(scheduler& s, quiet_watch& watch) noexcept {
  {
    lock_scope<spin_lock> held(lock_);
    watch.next = watches_;
    watches_ = &watch;
    if (count_.load(std::memory_order_relaxed) == s.worker_count) report_quiet(s);  // relaxed: under the lock
  }
  watch.thread.park();
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// runtime/monitor_look.hpp - the bodies of monitor.hpp, which need to know the scheduler they watch.

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE bool monitor::is_all_idle(const scheduler& s) const noexcept { return s.idle.count() == s.worker_count; }

CONCUR_INLINE void monitor::nudge(scheduler&) noexcept {
  CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(268) ? std::memory_order_acq_rel : std::memory_order_seq_cst;
  thread_fence(order);  // seq_cst: with the one in run, forbids that both looks miss
  if (!is_asleep_.load(std::memory_order_relaxed)) return;                      // relaxed: behind the fence
  if (is_asleep_.exchange(false, std::memory_order_relaxed)) thread_.unpark();  // relaxed: unpark orders
}

CONCUR_INLINE void monitor::stop() noexcept {
  is_stopping_.store(true, std::memory_order_relaxed);  // relaxed: unpark publishes it
  thread_.unpark();
}

// Work behind a fiber that has not let go for a whole period goes to an idle worker.
CONCUR_INLINE void monitor::look(scheduler& s, std::size_t* last_switches) noexcept {
  bool wants_worker = false;
  bool has_stuck = false;
  for (unsigned i = 0; i < s.worker_count; ++i) {
    worker& w = s.workers[i];
    const std::size_t switches = w.switches.get();
    const bool is_stuck = switches == last_switches[i] && w.queue.has_any();
    last_switches[i] = switches;
    if (w.queue.stealable_count() != 0) wants_worker = true;
    if (!is_stuck) continue;
    has_stuck = true;
    if (w.queue.has_recent()) w.may_take_recent.store(true, std::memory_order_relaxed);  // relaxed: a permission
  }
  // relaxed: a look; a poll that starts now is as good.
  const bool is_unwatched = s.poll_owner.load(std::memory_order_relaxed) == 0;
  // Set on a worker that computes since then, while the sleeper in the poller knows only of later ones.
  const bool has_overdue = s.next_timer_ns() <= now_ns() && !CONCUR_MUTANT_IS(71);
  if (s.idle.count() != 0) {
    if (wants_worker || has_stuck || is_unwatched || has_overdue) s.idle.wake_one(s);
  } else if (has_overdue && !CONCUR_MUTANT_IS(251)) {
    s.fire_timers();  // everybody computes; a time limit on what they compute is to be felt all the same
  }
}

CONCUR_INLINE void monitor::run(scheduler& s) noexcept {
  std::size_t* last_switches = new (std::nothrow) std::size_t[s.worker_count]();
  bool was_idle = false;
  unsigned periods = 0;
  // relaxed: the parker orders it.
  while (last_switches != nullptr && !is_stopping_.load(std::memory_order_relaxed)) {
    const bool is_idle = is_all_idle(s);
    if (is_idle && was_idle && !CONCUR_MUTANT_IS(53)) {
      is_asleep_.store(true, std::memory_order_relaxed);    // relaxed: the fence orders it
      CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(269) ? std::memory_order_acq_rel : std::memory_order_seq_cst;
      thread_fence(order);  // seq_cst: see nudge
      if (is_all_idle(s)) thread_.park();
      is_asleep_.store(false, std::memory_order_relaxed);  // relaxed: only a hint to wakers
      was_idle = false;
      continue;
    }
    was_idle = is_idle;
    if (!is_idle) look(s, last_switches);
    if (++periods % periods_to_trim == 0) s.stacks.trim();
    thread_.park_until(saturating_add(now_ns(), period_ns));
  }
  delete[] last_switches;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// runtime/overflow.hpp - whose stack was it that overflowed: the answer to the fault handler's question.
//
// The handler runs on the worker that faulted, on that thread's signal stack, while the fiber that ran too deep is still
// the worker's current one. So nothing is searched: the worker knows its fiber, and the fiber knows its stack.
//
//   O1  Only what the faulting thread itself writes is read, and slabs, which never go while their fibers live. No lock is taken.
//   O2  An address in the guard of another fiber's stack is a stray pointer, not an overflow; nothing is said about it.

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

// runtime/driven.hpp - what a runtime does otherwise while a driver decides (base/driver.hpp).
//
// Its workers are then threads of the driver's, which sleep and wake through it, and time is the driver's. All protocols
// stay what they are; only what they end in, a system call, is another. Two things are added, both to leave less to
// chance: which of the ready fibers a worker takes is asked, and every parking operation is a place where the fiber may be
// interrupted, as if its slice were over.
//
//   V1  Without a driver nothing of this file runs; each way into it is a branch beside something slow.
//   V2  In an ordinary build every fiber that stops goes through its worker's loop, where the driver is asked. With
//       CONCUR_EXPLORE it may also switch straight to the next one, as it would in production.
//   V3  A runtime's poller is opened when the first descriptor comes: most schedules have none, and a schedule takes less
//       time than opening it.

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

// The fiber is about to leave its worker.
CONCUR_INLINE void tell_departure(const worker& w, const fiber& f) noexcept {
  driver* const d = driver_or_null();
  if (d == nullptr || !d->is_telling()) return;
  const bool yields = w.how == departure::yielded;
  d->tell(&w, &f, yields ? nullptr : to_string(f.reason.load(std::memory_order_relaxed)));  // relaxed: its own
}

// --- which fiber is next ---

// Any of the first few; 0 is the one that pop() would give.
CONCUR_INLINE fiber* run_queue::pop_driven(driver& d) noexcept {
  constexpr std::uint32_t most = 8;
  std::uint64_t ids[most + 1];
  enter();
  const std::uint32_t head = head_.load(std::memory_order_relaxed);    // relaxed: inside (Q1)
  std::uint32_t count = tail_.load(std::memory_order_relaxed) - head;  // relaxed: inside
  fiber* const newest = recent_.load(std::memory_order_relaxed);       // relaxed: inside
  const bool is_plain = !pinned_.is_empty() || count + (newest != nullptr ? 1 : 0) < 2;
  if (count > most) count = most;
  fiber* f = nullptr;
  if (is_plain) {
    f = pop_inside();
    if (f != nullptr) d.choose_fiber(&f->id, 1);
  } else {
    const bool is_newest_first = newest != nullptr && recent_in_a_row_ < recent_in_a_row_limit();
    std::uint32_t n = 0;
    if (is_newest_first) ids[n++] = newest->id;
    for (std::uint32_t i = 0; i < count; ++i) ids[n++] = ring_[(head + i) % capacity]->id;
    if (newest != nullptr && !is_newest_first) ids[n++] = newest->id;
    std::uint32_t chosen = d.choose_fiber(ids, n);
    if (newest != nullptr && ids[chosen] == newest->id) {
      recent_in_a_row_ = is_newest_first ? recent_in_a_row_ + 1 : 0;
      recent_.store(nullptr, std::memory_order_relaxed);  // relaxed: inside
      f = newest;
    } else {
      if (is_newest_first) --chosen;
      recent_in_a_row_ = 0;
      f = ring_[(head + chosen) % capacity];
      for (std::uint32_t i = chosen; i > 0; --i) ring_[(head + i) % capacity] = ring_[(head + i - 1) % capacity];
      head_.store(head + 1, std::memory_order_relaxed);  // relaxed: inside
    }
  }
  leave();
  return f;
}

CONCUR_INLINE fiber* scheduler::pop_own(worker* w) noexcept {
  driver* const d = driver_or_null();
  if (CONCUR_LIKELY(d == nullptr)) return w->queue.pop();
  fiber* const f = w->queue.pop_driven(*d);
  if (f != nullptr && d->is_telling()) d->tell(w, f, "");
  return f;
}

// pick_next with a driver: null sends the worker to its loop.
CONCUR_NOINLINE CONCUR_INLINE fiber* scheduler::pick_driven(driver& d, worker* w) noexcept {
  w->budget = 1;
  if (w->picks_to_upkeep > 1) --w->picks_to_upkeep;
  if (w->picks_to_upkeep <= 1 || d.choose(choice::slice_end, 2) != 0) {
    w->picks_to_upkeep = 0;
    return nullptr;
  }
  return pop_own(w);
}

// --- the poller ---

CONCUR_INLINE int scheduler::open_watcher() noexcept {
  if (is_watcher_open_) return 0;
  const int error = watcher.open();
  is_watcher_open_ = error == 0;
  return error;
}

CONCUR_INLINE void scheduler::wake_poller() noexcept {
  if (driver* d = driver_or_null())
    watcher.wake_driven(*d);
  else
    watcher.wake();
}

// In any order, and perhaps not all at once: what is held back comes with the next look.
CONCUR_INLINE int scheduler::give_out_driven(driver& d, poll_event* events, int count) noexcept {
  for (int i = 0; i + 1 < count; ++i) {
    const int other = i + static_cast<int>(d.choose(choice::readiness, static_cast<std::uint32_t>(count - i)));
    const poll_event one = events[i];
    events[i] = events[other];
    events[other] = one;
  }
  const int held = static_cast<int>(d.choose(choice::readiness, static_cast<std::uint32_t>(count)));
  while (held_event_count_ < held && held_event_count_ < held_events_max)
    held_events_[held_event_count_++] = events[--count];
  return count;
}

CONCUR_INLINE int scheduler::wait_events_driven(driver& d, poll_event* events, nanoseconds_t timeout_ns) noexcept {
  constexpr nanoseconds_t long_look_ns = 20'000'000;
  const nanoseconds_t until = timeout_ns < 0 ? never : saturating_add(d.now(), timeout_ns);
  if (held_event_count_ != 0) {
    int count = 0;
    while (held_event_count_ != 0) events[count++] = held_events_[--held_event_count_];
    return give_out_driven(d, events, count);
  }
  for (nanoseconds_t look_ns = 0;;) {
    const int count = is_watcher_open_ ? watcher.wait(events, events_at_once, look_ns) : 0;
    if (count > 0) return give_out_driven(d, events, count);
    if (timeout_ns == 0) return 0;
    const block_end end = watcher.block_driven(d, until, &watched_count);
    if (end == block_end::woken || end == block_end::timed_out) return 0;
    look_ns = end == block_end::look_long ? long_look_ns : 0;
  }
}

// --- threads ---

CONCUR_INLINE void scheduler::start_driven_threads(driver& d) {
  const unsigned count = worker_count > 1 ? worker_count + 1 : 1;  // the last one is the monitor
  void** handles = new (std::nothrow) void*[count];
  if (handles == nullptr) fail_system(ENOMEM, "concur::runtime: no memory for its threads");
  threads_ = handles;
  for (unsigned i = 0; i < count; ++i) {
    const auto of_worker = [](void* raw) {
      worker* w = static_cast<worker*>(raw);
      w->sched->run_worker(w);
    };
    const auto of_monitor = [](void* raw) {
      scheduler* s = static_cast<scheduler*>(raw);
      s->watch.run(*s);
    };
    handles[i] = i < worker_count ? d.start_thread(of_worker, &workers[i], "worker")
                                  : d.start_thread(of_monitor, this, "monitor");
    if (handles[i] == nullptr) {
      stop_threads();
      fail_system(EAGAIN, "concur::runtime: an exploration has no room for so many workers");
    }
    ++started_count_;
  }
  d.watch(this);
}

CONCUR_INLINE void scheduler::join_driven_threads(driver& d) noexcept {
  void** handles = static_cast<void**>(threads_);
  for (unsigned i = 0; i < started_count_; ++i) d.join_thread(handles[i]);
  delete[] handles;
  threads_ = nullptr;
  d.unwatch(this);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// runtime/loop.hpp - how a worker finds the next fiber, and what its thread does when there is none.
//
// A worker that switches from fiber to fiber seldom comes here: the fiber that leaves picks the next one itself
// (suspend.hpp). The thread's own stack, the loop, runs only while there is nothing local to run, and looks in this
// order:
//
//     1  the inbox           pinned fibers that only this worker may run
//     2  its own queue
//     3  timers, also those of workers that sleep
//     4  the shared queue    with a share for the own queue (shared_queue.hpp)
//     5  other workers       half of a random one's ring, if few enough are searching
//     6  sleep               in the poller or on the parker (idle.hpp), and from the start
//
// A busy worker comes here every upkeep_interval picks, looks at the shared queue, and when 50 us have passed since the
// last time, also at the timers and, without blocking, at the poller. Here and not in the fiber that leaves: events
// and timers end waits and take the locks of sites, of which that fiber may hold one (suspend.hpp).

#if CONCUR_BODIES

#  include <csignal>
#  include <pthread.h>

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void dispatch_event(const poll_event& event) noexcept;  // the reactor's (reactor.hpp)
CONCUR_INLINE void forget_scheduler(scheduler& s) noexcept;           // as well

// --- timers and events ---

CONCUR_INLINE nanoseconds_t scheduler::next_timer_ns() const noexcept {
  nanoseconds_t next = never;
  for (unsigned i = 0; i < worker_count; ++i) {
    const nanoseconds_t own = workers[i].timers.next_ns();
    if (own < next) next = own;
  }
  return next;
}

CONCUR_INLINE std::size_t scheduler::fire_timers() noexcept {
  if (next_timer_ns() == never) return 0;
  const nanoseconds_t now = now_ns();
  std::size_t count = 0;
  for (unsigned i = 0; i < worker_count; ++i) count += workers[i].timers.fire(now);
  return count;
}

CONCUR_INLINE int scheduler::wait_events(poll_event* events, nanoseconds_t timeout_ns) noexcept {
  if (driver* d = driver_or_null()) return wait_events_driven(*d, events, timeout_ns);
  const int count = watcher.wait(events, events_at_once, timeout_ns);
  return count > 0 ? count : 0;
}

CONCUR_INLINE void scheduler::dispatch_events(const poll_event* events, int count) noexcept {
  for (int i = 0; i < count; ++i) dispatch_event(events[i]);
}

// --- looking for work ---

CONCUR_INLINE bool scheduler::has_work_for(const worker* w, bool with_others) const noexcept {
  // relaxed, all: hints, or behind the fence of the sleep protocol.
  if (is_stopping.load(std::memory_order_relaxed) || shared_.count() != 0) return true;
  if (w->inbox.load(std::memory_order_relaxed) != nullptr || w->queue.has_any()) return true;  // relaxed: as above
  if (!with_others) return false;
  for (unsigned i = 0; i < worker_count; ++i) {
    if (workers[i].queue.stealable_count() > 1) return true;
    // relaxed: as above.
    if (workers[i].may_take_recent.load(std::memory_order_relaxed) && workers[i].queue.has_recent()) return true;
  }
  return false;
}

// Takes from `victim` what a thief may have.
CONCUR_INLINE bool scheduler::rob(worker* w, worker& victim) noexcept {
  fiber* loot[run_queue::batch];
  // relaxed: a permission, not a message.
  const bool takes_recent = victim.may_take_recent.load(std::memory_order_relaxed);
  const std::uint32_t count = victim.queue.steal(loot, takes_recent);
  if (count == 0) return false;
  if (takes_recent) victim.may_take_recent.store(false, std::memory_order_relaxed);  // relaxed: as above
  w->steals.add();
  w->stolen_fibers.add(count);
  for (std::uint32_t k = 0; k < count; ++k) queue_behind(w, loot[k]);
  return true;
}

// A single fiber in a queue is mostly one that its worker is about to run; taking it away costs both workers more
// than it gains. It is taken only if it is still the same one, `patience` rounds of looking later. One is watched at a time,
// and until it moves: two that take turns in being watched would both wait for ever.
CONCUR_INLINE bool scheduler::search(worker* w) noexcept {
  const bool is_driven = driver_or_null() != nullptr;  // then there is nothing to spin for
  const int rounds = is_driven ? 3 : 24;
  const int patience = is_driven ? 1 : 12;
  constexpr int pauses = 16;
  worker* lone = nullptr;  // whose single fiber is being watched, since when, and at which mark
  std::uint32_t lone_mark = 0;
  int lone_since = 0;
  for (int round = 0; round < rounds; ++round) {
    const std::uint32_t first = seam_choose(w->random, choice::victim, worker_count);
    for (unsigned i = 0; i < worker_count; ++i) {
      worker& victim = workers[(first + i) % worker_count];
      if (&victim == w) continue;
      const std::uint32_t count = victim.queue.stealable_count();
      // relaxed: a permission.
      const bool is_stuck = victim.may_take_recent.load(std::memory_order_relaxed) && victim.queue.has_recent();
      if ((count > 1 || is_stuck) && rob(w, victim)) return true;
      const std::uint32_t mark = victim.queue.progress_mark();
      if (lone == &victim && (count != 1 || mark != lone_mark)) {
        lone = nullptr;  // and the next one gets its turn
      } else if (count == 1 && (lone == nullptr || CONCUR_MUTANT_IS(252)) && lone != &victim) {
        lone = &victim;
        lone_mark = mark;
        lone_since = round;
      } else if (lone == &victim && round - lone_since >= patience && rob(w, victim)) {
        return true;
      }
    }
    if (has_work_for(w, false)) return true;
    spin_briefly(pauses);
  }
  return false;
}

CONCUR_INLINE fiber* scheduler::look_around(worker* w) noexcept {
  empty_inbox(w);
  if (fiber* f = pop_own(w)) return f;
  if (fire_timers() != 0) {
    if (fiber* f = pop_own(w)) return f;
  }
  return pop_shared(w, shared_queue::look::idle);
}

CONCUR_INLINE fiber* scheduler::find_work(worker* w) noexcept {
  for (;;) {
    if (driver* d = driver_or_null()) d->step();
    fiber* f = std::exchange(w->stackless, nullptr);
    if (f == nullptr && w->picks_to_upkeep == 0) f = upkeep(w);
    if (f == nullptr) f = look_around(w);
    if (f != nullptr) {
      idle.end_search(*this, w, true);
      return f;
    }
    if (is_stopping.load(std::memory_order_acquire)) return nullptr;  // acquire: pairs with stop_threads
    const bool searches = worker_count > 1 && idle.begin_search(*this, w);
    if (searches && search(w)) continue;
    idle.end_search(*this, w, false);
    idle.sleep(*this, w, searches);
  }
}

CONCUR_INLINE fiber* scheduler::upkeep(worker* w) noexcept {
  constexpr nanoseconds_t interval_ns = 50'000;
  w->picks_to_upkeep = driver_or_null() != nullptr ? worker::driven_interval : worker::upkeep_interval;
  empty_inbox(w);
  const nanoseconds_t now = now_ns();
  if (now - w->last_upkeep_ns >= interval_ns) {
    w->last_upkeep_ns = now;
    shared_.age(now);
    fire_timers();
    std::uint32_t nobody = 0;
    // relaxed: a look only; the next upkeep sees what this one misses.
    if (watched_count.load(std::memory_order_relaxed) != 0 &&
        // acquire: pairs with the last poller's release. relaxed on failure: another one polls.
        poll_owner.compare_exchange_strong(nobody, 1, std::memory_order_acquire, std::memory_order_relaxed)) {
      poll_event events[events_at_once];
      const int count = wait_events(events, 0);
      poll_owner.store(0, std::memory_order_release);  // release: pairs with the next poller's acquire
      w->polls.add();
      dispatch_events(events, count);
    }
  }
  const bool runs_low = w->queue.stealable_count() < run_queue::batch / 4 && !CONCUR_MUTANT_IS(182);
  return pop_shared(w, runs_low ? shared_queue::look::low : shared_queue::look::busy);
}

// --- stacks ---

// The common case calls nothing.
CONCUR_NOINLINE CONCUR_INLINE bool scheduler::give_stack_to(worker* w, fiber* f) noexcept {
  stack* const s = w->free_stacks;
  if (CONCUR_UNLIKELY(s == nullptr)) return give_fresh_stack_to(w, f);
  w->free_stacks = s->next;
  --w->free_stack_count;
  bind_stack(w, f, s);
  return true;
}

CONCUR_NOINLINE CONCUR_INLINE bool scheduler::give_fresh_stack_to(worker* w, fiber* f) noexcept {
  constexpr std::size_t batch = 16;
  stack* fresh[batch];
  int error = 0;
  const std::size_t count = stacks.acquire_many(fresh, driver_or_null() != nullptr ? 1 : batch, error);
  if (count == 0) return false;
  for (std::size_t i = count; i-- > 0;) {
    fresh[i]->next = w->free_stacks;
    w->free_stacks = fresh[i];
  }
  w->free_stack_count += static_cast<unsigned>(count);
  return give_stack_to(w, f);
}

// Only from the loop: the closure is destroyed here, and whoever waits for the fiber is woken.
CONCUR_INLINE void scheduler::refuse_stackless(worker* w, fiber* f) noexcept {
  f->entry(f, ENOMEM);
  w->finished.add();
}

CONCUR_INLINE void scheduler::recycle_stack(worker* w, stack* s) noexcept {
  constexpr unsigned kept = 64;
  s->next = w->free_stacks;
  w->free_stacks = s;
  if (++w->free_stack_count <= kept) return;
  stack* keep = w->free_stacks;
  for (unsigned i = 1; i < kept / 2; ++i) keep = keep->next;
  stack* surplus = keep->next;
  keep->next = nullptr;
  w->free_stack_count = kept / 2;
  stacks.release_many(surplus);
}

// --- threads ---

CONCUR_INLINE void scheduler::run_worker(worker* w) noexcept {
  const thread_signal_stack for_overflows;
  if (driver_or_null() != nullptr) w->picks_to_upkeep = worker::driven_interval;
  *this_worker_cell() = w;
  w->exceptions = exception_globals::of_this_thread();
  w->loop_notice.bind_thread();
  while (fiber* f = find_work(w)) enter_fiber(w, f);
  w->blocks.clear(*blocks);
  *this_worker_cell() = nullptr;
}

// Signals are for the program's own threads. Those that a fault raises stay open: blocked, they would kill without a
// word.
inline void block_signals(sigset_t* before) noexcept {
  sigset_t all;
  sigfillset(&all);
  for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGPROF}) sigdelset(&all, fault);
  pthread_sigmask(SIG_SETMASK, &all, before);
}

CONCUR_INLINE void scheduler::start_threads() {
  if (driver* d = driver_or_null()) return start_driven_threads(*d);
  const unsigned count = worker_count > 1 ? worker_count + 1 : 1;  // the last one is the monitor
  pthread_t* handles = new (std::nothrow) pthread_t[count];
  if (handles == nullptr) fail_system(ENOMEM, "concur::runtime: no memory for its threads");
  threads_ = handles;
  sigset_t before;
  block_signals(&before);
  int error = 0;
  for (unsigned i = 0; i < count && error == 0; ++i) {
    using body = void* (*)(void*);
    const body of_worker = [](void* raw) -> void* {
      worker* w = static_cast<worker*>(raw);
      w->sched->run_worker(w);
      return nullptr;
    };
    const body of_monitor = [](void* raw) -> void* {
      scheduler* s = static_cast<scheduler*>(raw);
      s->watch.run(*s);
      return nullptr;
    };
    error = i < worker_count ? pthread_create(&handles[i], nullptr, of_worker, &workers[i])
                             : pthread_create(&handles[i], nullptr, of_monitor, this);
    if (error == 0) ++started_count_;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error == 0) return;
  const std::string which = std::to_string(started_count_ + 1) + " of " + std::to_string(count);
  stop_threads();
  fail_system(error,
              "concur::runtime: could not start thread " + which + "; ask for fewer workers or raise the thread limit");
}

CONCUR_INLINE void scheduler::stop_threads() noexcept {
  is_stopping.store(true, std::memory_order_seq_cst);  // seq_cst: ordered like F1 of idle.hpp against the last looks
  watch.stop();
  pthread_t* handles = static_cast<pthread_t*>(threads_);
  // A worker that was about to sleep may miss one waking, and then sees is_stopping in its last look.
  idle.wake_all(*this);
  if (driver* d = driver_or_null()) return join_driven_threads(*d);
  for (unsigned i = 0; i < started_count_; ++i) pthread_join(handles[i], nullptr);
  delete[] handles;
  threads_ = nullptr;
}

CONCUR_INLINE scheduler::scheduler(const options& wanted)
    : settings(resolve_options(wanted)),
      // A guard costs a system call, and a driven runtime lives for microseconds.
      stacks(settings.stack_size, driver_or_null() != nullptr ? guard_kind::canary : guard_kind::none_yet) {
  if (shadow_stack_is_live())
    fail_logic(
        "concur::runtime: this process runs with a hardware shadow stack, which fibers cannot use yet; start it with "
        "GLIBC_TUNABLES=glibc.cpu.x86_shstk=off or link with -z noshstk");
  register_asymmetric_fence();
  set_fault_lookup(&describe_overflow);
  if (driver_or_null() == nullptr) {  // else when it is first needed: explorations begin and end thousands a second
    if (const int error = open_watcher())
      fail_system(error, "concur::runtime: could not open the poller; are there descriptors left?");
  }
  worker_count = settings.workers;
  void* memory = ::operator new(sizeof(worker) * worker_count, std::align_val_t(alignof(worker)), std::nothrow);
  blocks = new (std::nothrow) fiber_pool(this);
  if (memory == nullptr || blocks == nullptr) {
    ::operator delete(memory, std::align_val_t(alignof(worker)));
    if (blocks != nullptr) blocks->abandon();
    fail_system(ENOMEM, "concur::runtime: no memory for " + std::to_string(worker_count) + " workers");
  }
  workers = static_cast<worker*>(memory);
  const nanoseconds_t now = now_ns();
  for (unsigned i = 0; i < worker_count; ++i) {
    worker* w = ::new (static_cast<void*>(&workers[i])) worker(0x9E3779B97F4A7C15u * (i + 1));
    w->sched = this;
    w->index = i;
    w->timers.start(now);
  }
#  if CONCUR_EXCEPTIONS
  try {
    start_threads();
  } catch (...) {
    free_memory();
    throw;
  }
#  else
  start_threads();
#  endif
  process_ledger.runtimes.fetch_add(1, std::memory_order_relaxed);  // relaxed: a figure
}

CONCUR_INLINE scheduler::~scheduler() {
  stop_threads();
  // acquire: pairs with the release of the last visitor.
  for (unsigned round = 0; visitors.load(std::memory_order_acquire) != 0 && !CONCUR_MUTANT_IS(5);) spin_wait(round);
  if (driver* d = driver_or_null())
    // relaxed: a look from within.
    d->expect(visitors.load(std::memory_order_relaxed) == 0, "a runtime ends under a thread that announces a fiber");
  forget_scheduler(*this);
  close_ledger();
  free_memory();
}

// With the threads gone: what should be 0 by now.
CONCUR_INLINE void scheduler::close_ledger() noexcept {
  std::size_t timers = 0;
  for (unsigned i = 0; i < worker_count; ++i) {
    timers += workers[i].timers.size();
    stacks.release_many(workers[i].free_stacks);
    workers[i].free_stacks = nullptr;
  }
  // relaxed, all: figures.
  process_ledger.timers.fetch_add(timers, std::memory_order_relaxed);
  process_ledger.fibers.fetch_add(live_fiber_count(), std::memory_order_relaxed);  // relaxed
  process_ledger.descriptors.fetch_add(watched_count.load(std::memory_order_relaxed),
                                       std::memory_order_relaxed);                  // relaxed
  process_ledger.stacks.fetch_add(stacks.live_count(), std::memory_order_relaxed);  // relaxed
  process_ledger.runtimes.fetch_sub(1, std::memory_order_relaxed);                  // relaxed
}

CONCUR_INLINE void scheduler::free_memory() noexcept {
  for (unsigned i = 0; i < worker_count; ++i) workers[i].~worker();
  ::operator delete(static_cast<void*>(workers), std::align_val_t(alignof(worker)));
  blocks->abandon();
}

CONCUR_INLINE void scheduler::quiesce() noexcept {
  quiet_watch watch_here;
  idle.wait_quiet(*this, watch_here);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// runtime/reactor.hpp - fibers that wait for descriptors, and the memory that keeps old news from new owners.
//
// Blocking calls try the system call first; when it says "not now", the fiber waits here. Each descriptor number has
// a slot, made on first use and kept for ever, with two sides, reading and writing. The poller reports when a side
// becomes ready, once; the slot counts the news, and a call remembers how much there was before it was made.
//
//     news, nobody waits           counted
//     news, somebody waits         counted; the first one is woken and has the turn
//     "not now", news since        the system call is made again: the news may have come after it
//     "not now", no news since     the caller waits: behind the others, or before them if it had the turn
//
// A flag that the next caller takes back would not do: two that were told "not now" before a burst of connections come here
// after it, and the first would take the flag, and one connection; the second would wait with the others there.
//
//   G1  One registration per descriptor and runtime, made when a fiber first has to wait, removed before the
//       descriptor is closed.
//   G2  `generation` names one use of a number. News carries the generation it was registered with; news of another
//       is dropped. A call carries the one it began with, and ends as closed when it finds another: before it waits, and
//       when it was woken, since the number may have changed hands before it runs. No call begins while the kernel
//       closes the number, which still works then: it would wait for news that never comes. And the kernel closes it only
//       when no call that was woken is on its way to it: it would come to the next owner. (A call's first try is the
//       affair of its program, as it is among threads.)
//   G3  Waiters of one side go one at a time, in order: the one that was woken has the turn until its call is
//       through, and then passes it on (leave_turn). Who comes meanwhile queues behind. So a burst of connections
//       wakes one acceptor after another, and nobody is overtaken.
//   G4  Closing wakes every waiter of both sides with `closed` before the number can be used again.
//   G5  What a wake-up announced is taken as read by the one it wakes. And a stream that gave less than was asked for
//       is empty until there is news, unless its end was announced, which is not announced twice. Both save a system
//       call that could only say "not now".
//
// The slots belong to the process, as descriptors do. A descriptor that fibers of two runtimes wait for is registered
// with the first; waiters know themselves where they resume.

CONCUR_NAMESPACE_BEGIN
namespace detail {

enum class direction : unsigned char { reading, writing };

// What a descriptor is, as far as the way of calling it goes.
enum class descriptor_kind : unsigned char {
  unknown,
  socket,  // asked not to block by a flag of each call
  stream,  // pipe, terminal and the like: O_NONBLOCK was set on it
  file,    // always ready; calls block
};

struct descriptor_side {
  intrusive_list<waiter> waiting;
  atomic<bool> is_busy{false};  // somebody waits or has the turn; written under the slot's lock
  bool has_turn = false;             // somebody was woken and is not through (G3)
  unsigned calls = 0;                // that are made now by who waited, or found news (G2); under the slot's lock
  // How often there was news, twice, plus one: never 0. Written under the lock.
  atomic<std::uint32_t> news{1};

  // acquire: pairs with note_news. What a call finds out comes after the look.
  std::uint32_t present_news() const noexcept { return news.load(std::memory_order_acquire); }
};

// One call's use of one side of a descriptor.
struct side_use {
  std::uint32_t generation;  // G2
  std::uint32_t news = 0;    // what the side had before the system call
  bool has_turn = false;     // G3
  bool is_calling = false;   // G2
};

struct descriptor_slot {
  retirable_lock lock;  // never retired: a select asks all its sites alike
  // G2. Even while the kernel closes the number. Written under the lock.
  atomic<std::uint32_t> generation{1};
  scheduler* watched_by = nullptr;  // whose poller it is registered with
  atomic<descriptor_kind> kind{descriptor_kind::unknown};
  // The reading side's news before a read of a stream which gave less than it was asked for. While there is no more, the next
  // read need not try (G5). Written by readers, who may be late: then it is old, and means nothing.
  atomic<std::uint32_t> drained_at{0};
  atomic<bool> has_ended{false};  // the end of the stream was announced; written under the lock
  descriptor_side sides[2];

  descriptor_side& side(direction d) noexcept { return sides[static_cast<unsigned>(d)]; }
  // acquire: what a call does with the number comes after the look.
  std::uint32_t present_generation() const noexcept { return generation.load(std::memory_order_acquire); }
  // The same for a call that begins. Waits while the number is being closed.
  std::uint32_t generation_of_use() const noexcept {
    std::uint32_t now = present_generation();
    for (unsigned round = 0; CONCUR_UNLIKELY((now & 1) == 0) && !CONCUR_MUTANT_IS(243); now = present_generation())
      spin_wait(round);
    return now;
  }
  bool is_outdated(const side_use& use) const noexcept { return present_generation() != use.generation; }
};

// The slot of a number; null when it is no open descriptor and never was one, or memory is exhausted. Two loads when it exists.
CONCUR_INLINE descriptor_slot* slot_of(int fd) noexcept;

// Waits until `fd` may be ready, after a system call said that it is not. `granted`: try again, and call leave_turn
// when through, if it says has_turn. error: errno when the descriptor cannot be waited for (EPERM: always ready, EBADF,
// ENOMEM), and then no wait took place. Only on a fiber.
CONCUR_INLINE outcome wait_ready(descriptor_slot& slot, int fd, direction d, nanoseconds_t deadline_ns, side_use& use,
                                 int& error) noexcept;
// Waits until those that came before are through; like wait_ready otherwise.
CONCUR_INLINE outcome wait_turn(descriptor_slot& slot, direction d, nanoseconds_t deadline_ns, side_use& use) noexcept;
CONCUR_INLINE void leave_turn(descriptor_slot& slot, direction d, side_use& use) noexcept;

// The number was just given out by the kernel: whatever the slot remembers is of a former owner.
CONCUR_INLINE void adopt_descriptor(int fd, descriptor_kind kind) noexcept;
// The number is about to be closed, or is no longer ours to watch (G4).
CONCUR_INLINE void forget_descriptor(int fd) noexcept;
// Around the system call that closes it. What the first returns goes to the second.
CONCUR_INLINE std::uint32_t begin_close(int fd) noexcept;
CONCUR_INLINE void end_close(int fd, std::uint32_t generation) noexcept;

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Block k holds the slots of 64 << k numbers: no number moves when the table grows, and none is out of reach.
inline constexpr unsigned slot_blocks = 25;
inline atomic<descriptor_slot*> slot_table[slot_blocks] = {};

CONCUR_NOINLINE inline descriptor_slot* grow_slots(unsigned block) noexcept {
  descriptor_slot* fresh = new (std::nothrow) descriptor_slot[std::size_t{64} << block];
  if (fresh == nullptr) return nullptr;
  descriptor_slot* present = nullptr;
  // acq_rel: publishes the fresh block, or acquires the one another thread made first.
  if (slot_table[block].compare_exchange_strong(present, fresh, std::memory_order_acq_rel, std::memory_order_acquire))
    return fresh;
  delete[] fresh;
  return present;
}

// A number that is no descriptor must not cost the memory of all the slots below it.
CONCUR_NOINLINE inline bool is_open(int fd) noexcept { return ::fcntl(fd, F_GETFD) >= 0; }

CONCUR_INLINE descriptor_slot* slot_of(int fd) noexcept {
  if (fd < 0) return nullptr;
  const std::uint32_t from_64 = static_cast<std::uint32_t>(fd) + 64;
  const unsigned block = 31 - static_cast<unsigned>(__builtin_clz(from_64)) - 6;
  descriptor_slot* first = slot_table[block].load(std::memory_order_acquire);  // acquire: pairs with grow_slots
  if (CONCUR_UNLIKELY(first == nullptr) && is_open(fd)) first = grow_slots(block);
  if (CONCUR_UNLIKELY(first == nullptr)) return nullptr;
  return &first[from_64 - (64u << block)];
}

inline void note_busy(descriptor_side& side) noexcept {
  // relaxed: who looks without the lock takes it afterwards, or does no more than try its system call a little early.
  side.is_busy.store(side.has_turn || !side.waiting.is_empty(), std::memory_order_relaxed);
}

// Under the slot's lock: gives the turn to the first waiter that is still to be had. Returns it, to be resumed
// without the lock.
inline party* pass_turn(descriptor_side& side) noexcept {
  waiter* const note = pop_claimed(side.waiting);
  party* const chosen = note != nullptr ? note->who : nullptr;
  if (chosen != nullptr) chosen->result = outcome::granted;
  side.has_turn = chosen != nullptr;
  note_busy(side);
  return chosen;
}

// Under the slot's lock.
inline void note_news(descriptor_side& side) noexcept {
  const std::uint32_t news = side.news.load(std::memory_order_relaxed);  // relaxed: the lock is held
  side.news.store(news + 2, std::memory_order_release);  // release: publishes has_ended to readers that see the news
}

inline void resume_if(party* who) noexcept {
  if (who != nullptr) resume(who);
}

CONCUR_INLINE void dispatch_event(const poll_event& event) noexcept {
  descriptor_slot* slot = slot_of(static_cast<int>(event.slot));
  if (slot == nullptr) return;
  party* chosen[2] = {nullptr, nullptr};
  {
    lock_scope<spin_lock> held(slot->lock);
    if (slot->present_generation() != event.generation && !CONCUR_MUTANT_IS(9)) return;  // G2
    const unsigned bits[2] = {bit(readiness::readable) | bit(readiness::failed),
                              bit(readiness::writable) | bit(readiness::failed)};
    // relaxed: published with the news.
    if ((event.ready & bit(readiness::ended)) != 0) slot->has_ended.store(true, std::memory_order_relaxed);
    for (unsigned i = 0; i < 2; ++i) {
      if ((event.ready & bits[i]) == 0) continue;
      descriptor_side& side = slot->sides[i];
      note_news(side);
      if (!side.has_turn) chosen[i] = pass_turn(side);
    }
  }
  resume_if(chosen[0]);
  resume_if(chosen[1]);
}

// Under the slot's lock. 0, or errno.
inline int watch_descriptor(descriptor_slot& slot, int fd, scheduler& s) noexcept {
  if (slot.watched_by != nullptr) return 0;
  if (const int error = s.open_watcher()) return error;
  const int error = s.watcher.add(fd, static_cast<std::uint32_t>(fd), slot.present_generation());
  if (error != 0) return error;
  slot.watched_by = &s;
  s.watched_count.fetch_add(1, std::memory_order_relaxed);  // relaxed: a hint for upkeep
  return 0;
}

// Under the slot's lock, with nobody waiting.
inline void unwatch_descriptor(descriptor_slot& slot, int fd, bool is_in_poller) noexcept {
  scheduler* s = slot.watched_by;
  if (s == nullptr) return;
  if (is_in_poller) s->watcher.remove(fd, static_cast<std::uint32_t>(fd));
  s->watched_count.fetch_sub(1, std::memory_order_relaxed);  // relaxed: a hint for upkeep
  slot.watched_by = nullptr;
}

// Under the lock: the number is looked at, and the system call comes, or has been made.
inline void begin_call(descriptor_side& side, side_use& use) noexcept {
  if (!std::exchange(use.is_calling, true)) ++side.calls;
}
inline void end_call(descriptor_side& side, side_use& use) noexcept {
  if (std::exchange(use.is_calling, false)) --side.calls;
}

// The common part of waiting: the lock is held, and park drops it. Afterwards the note is in no queue.
inline outcome wait_on_side(descriptor_slot& slot, direction d, nanoseconds_t deadline_ns, bool is_first,
                            side_use& use) noexcept {
  descriptor_side& side = slot.side(d);
  worker* w = this_worker();
  waiter note(w->current, nullptr);
  if (is_first)
    side.waiting.push_front(&note);
  else
    side.waiting.push_back(&note);
  note_busy(side);
  const outcome result =
      park_fiber(w, &slot.lock, deadline_ns, d == direction::reading ? wait_reason::readable : wait_reason::writable);
  if (result == outcome::closed) return result;
  lock_scope<spin_lock> held(slot.lock);
  if (CONCUR_LIKELY(result == outcome::granted)) {
    if (slot.is_outdated(use) && !CONCUR_MUTANT_IS(241)) return outcome::closed;
    use.has_turn = true;
    begin_call(side, use);
  } else {
    if (intrusive_list<waiter>::is_linked(&note)) side.waiting.erase(&note);
    note_busy(side);
  }
  return result;
}

CONCUR_INLINE outcome wait_ready(descriptor_slot& slot, int fd, direction d, nanoseconds_t deadline_ns, side_use& use,
                                 int& error) noexcept {
  error = 0;
  slot.lock.lock();
  descriptor_side& side = slot.side(d);
  if (slot.is_outdated(use) && !CONCUR_MUTANT_IS(242)) {
    slot.lock.unlock();
    return outcome::closed;
  }
  // Who has the turn passes it on, so that those behind try again then (G3).
  const bool is_next = use.has_turn || (!side.has_turn && side.waiting.is_empty());
  if (side.present_news() != use.news && is_next && !CONCUR_MUTANT_IS(245)) {
    begin_call(side, use);
    slot.lock.unlock();
    return outcome::granted;
  }
  scheduler* own = this_worker()->sched;
  error = watch_descriptor(slot, fd, *own);
  if (error != 0) {  // a turn stays, and is passed on
    if (CONCUR_MUTANT_IS(244)) use.has_turn = false;
    slot.lock.unlock();
    return outcome::granted;
  }
  const bool had_turn = std::exchange(use.has_turn, false);
  if (had_turn) side.has_turn = false;
  end_call(side, use);
  slot.watched_by->watcher.arm(fd, static_cast<std::uint32_t>(fd), d == direction::reading, d == direction::writing);
  return wait_on_side(slot, d, deadline_ns, had_turn, use);
}

CONCUR_INLINE outcome wait_turn(descriptor_slot& slot, direction d, nanoseconds_t deadline_ns, side_use& use) noexcept {
  slot.lock.lock();
  if (slot.is_outdated(use)) {
    slot.lock.unlock();
    return outcome::closed;
  }
  descriptor_side& side = slot.side(d);
  if (!side.has_turn && side.waiting.is_empty()) {
    slot.lock.unlock();
    return outcome::granted;
  }
  return wait_on_side(slot, d, deadline_ns, false, use);
}

CONCUR_INLINE void leave_turn(descriptor_slot& slot, direction d, side_use& use) noexcept {
  party* next = nullptr;
  {
    lock_scope<spin_lock> held(slot.lock);
    end_call(slot.side(d), use);
    if (!use.has_turn || slot.is_outdated(use)) return;  // the turns of another use of the number
    next = pass_turn(slot.side(d));
  }
  resume_if(next);
}

// Wakes everybody with `closed` and begins a new generation, which is returned.
inline std::uint32_t retire_slot(descriptor_slot& slot, int fd, descriptor_kind kind, bool is_in_poller,
                                 bool is_closing) noexcept {
  ended_waits woken;
  std::uint32_t next = 0;
  {
    lock_scope<spin_lock> held(slot.lock);
    unwatch_descriptor(slot, fd, is_in_poller);
    next = (slot.present_generation() | 1) + (is_closing ? 1 : 2);
    slot.generation.store(next, std::memory_order_release);  // release: comes after the last use of the number
    slot.has_ended.store(false, std::memory_order_relaxed);  // relaxed: the owner of the number orders its uses
    slot.kind.store(kind, std::memory_order_relaxed);        // relaxed: as above
    for (descriptor_side& side : slot.sides) {
      note_news(side);
      side.has_turn = false;
      woken.take_all(side.waiting, outcome::closed);
      note_busy(side);
    }
  }
  woken.resume_all();
  return next;
}

CONCUR_INLINE void adopt_descriptor(int fd, descriptor_kind kind) noexcept {
  descriptor_slot* slot = slot_of(fd);
  if (slot != nullptr) retire_slot(*slot, fd, kind, false, false);
}

CONCUR_INLINE void forget_descriptor(int fd) noexcept {
  descriptor_slot* slot = slot_of(fd);
  if (slot != nullptr) retire_slot(*slot, fd, descriptor_kind::unknown, true, false);
}

CONCUR_INLINE std::uint32_t begin_close(int fd) noexcept {
  descriptor_slot* slot = slot_of(fd);
  if (slot == nullptr) return 0;
  const std::uint32_t generation = retire_slot(*slot, fd, descriptor_kind::unknown, true, true);
  const auto is_called = [slot]() noexcept {
    lock_scope<spin_lock> held(slot->lock);
    return slot->sides[0].calls + slot->sides[1].calls != 0;
  };
  for (unsigned round = 0; is_called() && !CONCUR_MUTANT_IS(247);) spin_wait(round);
  return generation;
}

CONCUR_INLINE void end_close(int fd, std::uint32_t generation) noexcept {
  if (generation == 0) return;
  descriptor_slot& slot = *slot_of(fd);
  lock_scope<spin_lock> held(slot.lock);
  // Else the kernel has given the number out meanwhile, and its owner has begun a generation.
  if (slot.present_generation() == generation)
    slot.generation.store(generation + 1, std::memory_order_release);  // release: as in retire_slot
}

// Waiters of other runtimes are woken: they find "not now" again, and register with their own.
inline void forget_watch(descriptor_slot& slot, int fd, scheduler& s) noexcept {
  party* chosen[2] = {nullptr, nullptr};
  {
    lock_scope<spin_lock> held(slot.lock);
    if (slot.watched_by != &s) return;
    unwatch_descriptor(slot, fd, true);
    for (unsigned i = 0; i < 2; ++i) chosen[i] = pass_turn(slot.sides[i]);
  }
  resume_if(chosen[0]);
  resume_if(chosen[1]);
}

CONCUR_INLINE void forget_scheduler(scheduler& s) noexcept {
  for (unsigned block = 0; block < slot_blocks; ++block) {
    descriptor_slot* first = slot_table[block].load(std::memory_order_acquire);  // acquire: pairs with grow_slots
    if (first == nullptr) continue;
    for (std::uint32_t i = 0; i < (64u << block); ++i)
      forget_watch(first[i], static_cast<int>((64u << block) + i - 64), s);
  }
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// runtime/snapshot.hpp - figures about a running runtime, and a list of its fibers.
//
// Both are read without stopping anybody: counters have one writer each and are added up here, states are looked at
// as they pass. Figures of one snapshot may therefore be some nanoseconds apart; with all workers idle they are exact.

#include <cstdio>

CONCUR_NAMESPACE_BEGIN

enum class stack_guard : unsigned char {
  none_yet,  // no stack has been made
  madvise,   // guard pages without a mapping of their own (Linux 6.13 and later)
  mprotect,  // guard pages that cost a mapping each
  canary,    // no guard page: the lowest words are checked when a stack comes back
};

struct stats {
  unsigned workers = 0;
  unsigned idle_workers = 0;
  std::size_t fibers_live = 0;  // spawned and not finished
  std::size_t fibers_spawned = 0;
  std::size_t fibers_finished = 0;
  std::size_t switches = 0;  // times a worker chose what to run next
  std::size_t steals = 0;    // times one worker took fibers from another, and how many it took
  std::size_t fibers_stolen = 0;
  std::size_t sleeps = 0;       // times a worker found nothing to do
  std::size_t timers = 0;       // deadlines of parked fibers that are set
  std::size_t descriptors = 0;  // watched by the poller
  std::size_t stacks_live = 0;  // in use, or kept by a worker for the next fiber
  std::size_t stacks_made = 0;
  std::size_t stack_bytes_reserved = 0;  // address space, not memory
  stack_guard guard = stack_guard::none_yet;
};

// What ended runtimes of this process left behind, and how many are alive. A test asks that all of it is 0.
struct leftovers {
  std::size_t runtimes = 0;
  std::size_t fibers = 0;
  std::size_t timers = 0;
  std::size_t descriptors = 0;
  std::size_t stacks = 0;
};
CONCUR_INLINE leftovers process_leftovers() noexcept;

namespace detail {
CONCUR_INLINE stats take_snapshot(const scheduler& s) noexcept;
CONCUR_INLINE void dump_fibers(scheduler& s, std::FILE* out) noexcept;
}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE stats take_snapshot(const scheduler& s) noexcept {
  stats all;
  all.workers = s.worker_count;
  all.idle_workers = s.idle.count();
  for (unsigned i = 0; i < s.worker_count; ++i) all.fibers_finished += s.workers[i].finished.get();
  all.fibers_spawned = s.foreign_spawned.load(std::memory_order_relaxed);  // relaxed: a figure
  for (unsigned i = 0; i < s.worker_count; ++i) {
    const worker& w = s.workers[i];
    all.fibers_spawned += w.spawned.get();
    all.switches += w.switches.get();
    all.steals += w.steals.get();
    all.fibers_stolen += w.stolen_fibers.get();
    all.sleeps += w.parks.get();
    all.timers += w.timers.size();
  }
  all.fibers_live = all.fibers_spawned - all.fibers_finished;
  all.descriptors = s.watched_count.load(std::memory_order_relaxed);  // relaxed: a figure
  all.stacks_live = s.stacks.live_count();
  all.stacks_made = s.stacks.mapped_count();
  all.stack_bytes_reserved = s.stacks.reserved_bytes();
  all.guard = static_cast<stack_guard>(s.stacks.guard());
  return all;
}

inline const char* to_string(fiber_state state) noexcept {
  switch (state) {
    case fiber_state::idle:
      return "idle";
    case fiber_state::ready:
      return "ready";
    case fiber_state::running:
      return "running";
    case fiber_state::parked:
      return "parked";
    case fiber_state::finished:
      return "finished";
  }
  return "unknown";
}

CONCUR_INLINE void dump_fibers(scheduler& s, std::FILE* out) noexcept {
  const stats all = take_snapshot(s);
  std::fprintf(out, "concur: %zu fibers on %u workers (%u idle)\n", all.fibers_live, all.workers, all.idle_workers);
  s.blocks->walk(
      [](fiber* f, void* file) {
        // relaxed, both: a look in passing; the fiber may be elsewhere when the line is read.
        const fiber_state state = f->state.load(std::memory_order_relaxed);
        const wait_reason reason = f->reason.load(std::memory_order_relaxed);  // relaxed: as above
        if (state == fiber_state::idle || state == fiber_state::finished) return;
        std::fprintf(static_cast<std::FILE*>(file), "  fiber %llu %s%s\n", static_cast<unsigned long long>(f->id),
                     to_string(state),
                     state == fiber_state::parked ? (std::string(" in ") + to_string(reason)).c_str() : "");
      },
      out);
}

}  // namespace detail

CONCUR_INLINE leftovers process_leftovers() noexcept {
  // relaxed, all: figures, asked when nothing is under way.
  leftovers all;
  all.runtimes = detail::process_ledger.runtimes.load(std::memory_order_relaxed);
  all.fibers = detail::process_ledger.fibers.load(std::memory_order_relaxed);            // relaxed: as above
  all.timers = detail::process_ledger.timers.load(std::memory_order_relaxed);            // relaxed: as above
  all.descriptors = detail::process_ledger.descriptors.load(std::memory_order_relaxed);  // relaxed: as above
  all.stacks = detail::process_ledger.stacks.load(std::memory_order_relaxed);            // relaxed: as above
  return all;
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// sync/mutex_core.hpp - what mutex, timed_mutex and recursive_mutex have in common: one word, and a queue.
//
// One word says whether the mutex is held and whether somebody waits, so that an uncontended lock or unlock is one
// compare-exchange. The queue of waiters has a small lock of its own and is touched only when there is contention.
//
//     word    meaning                         next, by
//     0       free, nobody waits              1 lock
//     1       held, nobody waits              0 unlock · 3 a waiter queues
//     3       held, somebody waits            1 unlock took the last waiter off · 2 unlock, which woke the first
//                                             3, 1 unlock, which hands over (M3)
//     2       free, and one was just woken    3 lock, by the woken one or by who came first
//
//   M1  `waiting` is set and cleared under the queue's lock, and set whenever the queue is not empty.
//   M2  A woken waiter competes with whoever runs: the lock may be taken before it gets there (barging). That keeps
//       the mutex from being held by a fiber that is not running yet.
//   M3  A waiter that has been passed over for 1 ms is handed the mutex directly at the next unlock: nobody starves.
//       (The rule, and the millisecond, are those of Go's sync.Mutex.)
//   M4  `owner_` names the holder; only the holder writes it. Unlocking by anybody else is reported.
//   M5  The step that makes the word free is the last that an unlock does to the mutex: who takes it next may destroy
//       it. An unlock that wakes nobody therefore looks for waiters again when that step fails.
//   M6  A waiter that was woken, and whose deadline has passed, leaves only when somebody holds the mutex; that holder's
//       unlock wakes the next one.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Who makes the call: the fiber, or the thread, by the address of something that is its own.
inline const void* identity_of(worker* w) noexcept {
  if (CONCUR_LIKELY(w != nullptr && w->current != nullptr)) return w->current;
  return thread_identity();
}

// `name`, in what follows, is the public type's, for messages.
class mutex_core {
 public:
  constexpr mutex_core() noexcept = default;
  mutex_core(const mutex_core&) = delete;
  mutex_core& operator=(const mutex_core&) = delete;

  // Takes the mutex if it is free and nobody waits; with one compare-exchange.
  CONCUR_FORCE_INLINE bool take(const void* self) noexcept {
    std::uint32_t expected = 0;
    // acquire: pairs with unlock. relaxed on failure: the slow path looks again.
    if (CONCUR_UNLIKELY(
            !word_.compare_exchange_strong(expected, held, std::memory_order_acquire, std::memory_order_relaxed)))
      return false;
    set_owner(self);
    return true;
  }

  // Takes the mutex if it is free.
  bool try_take(const void* self) noexcept {
    const auto unless_held = [](std::uint32_t word) {
      return (word & held) == 0 ? std::optional<std::uint32_t>(word | held) : std::nullopt;
    };
    if (!cas_update(word_, unless_held, std::memory_order_acquire)) return false;  // acquire: pairs with unlock
    set_owner(self);
    return true;
  }

  bool is_held_by(const void* self) const noexcept {
    return owner_.load(std::memory_order_relaxed) == self;  // relaxed: a holder sees its own write (M4)
  }

  // Takes the mutex, or waits for it. False: the deadline passed, or the caller was cancelled. Throws as mutex::lock does.
  template <class... Code>
  CONCUR_FORCE_INLINE bool lock(nanoseconds_t deadline_ns, const char* name, Code&... code) {
    const auto lock_from = [&](worker* w) {
      return CONCUR_LIKELY(take(identity_of(w))) ? outcome::granted : lock_slow(deadline_ns, name);
    };
    return perform(lock_from, code...) == outcome::granted;
  }
  // The same, after the checkpoint. granted, timed_out or cancelled.
  outcome lock_slow(nanoseconds_t deadline_ns, const char* name);

  CONCUR_FORCE_INLINE void unlock(const char* name) {
    if (CONCUR_UNLIKELY(!is_held_by(identity_of(this_worker()))) && !CONCUR_MUTANT_IS(68)) fail_stranger(name);
    set_owner(nullptr);
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(112) ? std::memory_order_relaxed : std::memory_order_release;
    std::uint32_t expected = held;
    // release: publishes what was done under the mutex. relaxed on failure: somebody waits, and the slow path takes a
    // lock.
    if (CONCUR_LIKELY(word_.compare_exchange_strong(expected, 0, order, std::memory_order_relaxed))) return;
    unlock_slow();
  }

 private:
  static constexpr std::uint32_t held = 1;
  static constexpr std::uint32_t waiting = 2;

  void set_owner(const void* who) noexcept {
    owner_.store(who, std::memory_order_relaxed);  // relaxed: compared by the holder with itself only (M4)
  }
  bool announce_waiting() noexcept;
  void leave_queue(waiter& note) noexcept;
  void unlock_slow() noexcept;
  [[noreturn]] static void fail_stranger(const char* name);

  atomic<std::uint32_t> word_{0};
  spin_lock queue_lock_;
  atomic<const void*> owner_{nullptr};
  intrusive_list<waiter> queue_;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void mutex_core::fail_stranger(const char* name) {
  fail_logic(std::string("concur::") + name +
             "::unlock: the caller does not hold this mutex; unlock it where it was locked, on the same fiber");
}

// Under the queue's lock: from here on an unlock comes to the queue (M1). False: the mutex is free, look again.
CONCUR_INLINE bool mutex_core::announce_waiting() noexcept {
  // relaxed, here and below: the exchange in try_take, or the queue's lock, orders it.
  if ((word_.fetch_or(waiting, std::memory_order_relaxed) & held) != 0 || CONCUR_MUTANT_IS(101)) return true;
  if (queue_.is_empty()) word_.fetch_and(~waiting, std::memory_order_relaxed);  // relaxed: see above
  return false;
}

CONCUR_INLINE void mutex_core::leave_queue(waiter& note) noexcept {
  lock_scope<spin_lock> in(queue_lock_);
  if (intrusive_list<waiter>::is_linked(&note)) queue_.erase(&note);
  if (queue_.is_empty()) word_.fetch_and(~waiting, std::memory_order_relaxed);  // relaxed: under the queue's lock (M1)
}

CONCUR_INLINE outcome mutex_core::lock_slow(nanoseconds_t deadline_ns, const char* name) {
  constexpr nanoseconds_t patience_ns = 1'000'000;
  caller me(this_worker());
  const void* const self = identity_of(this_worker());
  if (is_held_by(self)) {
    fail_logic(std::string("concur::") + name +
               "::lock: the caller holds this mutex already, and would wait for itself; unlock it first");
  }
  nanoseconds_t since = 0;
  bool wants_handover = false;
  for (;;) {
    const bool gives_up = CONCUR_MUTANT_IS(282) && since != 0 && deadline_ns <= now_ns();
    if (!gives_up && try_take(self)) return outcome::granted;
    if (deadline_ns != never && deadline_ns <= now_ns()) return outcome::timed_out;  // M6
    queue_lock_.lock();
    if (!announce_waiting()) {
      queue_lock_.unlock();
      continue;
    }
    waiter note(me.who(), &wants_handover);
    if (since == 0)
      queue_.push_back(&note);
    else
      queue_.push_front(&note);
    const outcome result = me.park(&queue_lock_, deadline_ns, wait_reason::mutex_lock);
    if (result == outcome::granted) {  // handed over: it is ours already (M3)
      set_owner(self);
      return result;
    }
    if (result != outcome::retry) {
      leave_queue(note);
      return result;
    }
    const nanoseconds_t now = now_ns();
    if (since == 0)
      since = now;
    else if (now - since >= patience_ns)
      wants_handover = !CONCUR_MUTANT_IS(67);
  }
}

CONCUR_INLINE void mutex_core::unlock_slow() noexcept {
  for (;;) {
    party* next = nullptr;
    bool is_handover = false;
    {
      lock_scope<spin_lock> in(queue_lock_);
      if (waiter* note = pop_claimed(queue_)) {
        next = note->who;
        is_handover = *static_cast<bool*>(note->value);
        next->result = is_handover ? outcome::granted : outcome::retry;
      }
      if (queue_.is_empty()) word_.fetch_and(~waiting, std::memory_order_relaxed);  // relaxed: as in leave_queue
    }
    if (is_handover) return resume(next);  // the resume publishes what was done under the mutex
    if (next != nullptr) {
      word_.fetch_and(~held, std::memory_order_release);  // release: as in unlock; M5
      return resume(next);
    }
    if (CONCUR_MUTANT_IS(281)) {
      word_.fetch_and(~held, std::memory_order_release);  // release: mutant
      return;
    }
    std::uint32_t expected = held;
    // release: as in unlock. relaxed on failure: somebody has queued since (M5).
    if (word_.compare_exchange_strong(expected, 0, std::memory_order_release, std::memory_order_relaxed)) return;
  }
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// sync/mutex.hpp - mutual exclusion for fibers and threads alike; waiting parks the fiber and leaves the worker to
// others.
//
//     type               besides lock, try_lock, unlock       locked again by its holder
//     mutex              -                                     reported
//     timed_mutex        try_lock_for, try_lock_until          reported
//     recursive_mutex    try_lock_for, try_lock_until          counts; as many unlocks free it
//
// All three barge for speed, and hand over to who was passed over for a millisecond (mutex_core.hpp). An uncontended
// lock is one compare-exchange, and so is the unlock. An unlock happens before the next lock.
//
//   M7  `depth_` of a recursive_mutex is read and written by its holder only.

CONCUR_NAMESPACE_BEGIN

// Not recursive. Works with std::lock_guard, std::unique_lock and std::scoped_lock. An unlock happens before the next
// lock.
class mutex {
 public:
  constexpr mutex() noexcept = default;
  mutex(const mutex&) = delete;
  mutex& operator=(const mutex&) = delete;

  // Waits until the mutex is free, and takes it. Throws `cancelled` without taking it, std::logic_error when the
  // caller holds it. The form with a code says there that it was cancelled, and returns false: nothing is to be unlocked.
  void lock() { core_.lock(detail::never, "mutex"); }
  bool lock(std::error_code& error) { return core_.lock(detail::never, "mutex", error); }

  // Takes the mutex if that needs no waiting.
  bool try_lock() noexcept { return core_.try_take(detail::identity_of(detail::this_worker())); }

  // Throws std::logic_error when the caller does not hold the mutex, and changes nothing then.
  void unlock() { core_.unlock("mutex"); }

 private:
  detail::mutex_core core_;
};

// A mutex whose waiters may give up.
class timed_mutex {
 public:
  constexpr timed_mutex() noexcept = default;
  timed_mutex(const timed_mutex&) = delete;
  timed_mutex& operator=(const timed_mutex&) = delete;

  // As those of mutex.
  void lock() { core_.lock(detail::never, "timed_mutex"); }
  bool lock(std::error_code& error) { return core_.lock(detail::never, "timed_mutex", error); }
  bool try_lock() noexcept { return core_.try_take(detail::identity_of(detail::this_worker())); }
  void unlock() { core_.unlock("timed_mutex"); }

  // Waits at most that long; false when the mutex was not to be had. A free mutex is taken whatever the limit. Throws as
  // lock does.
  template <class Rep, class Period>
  bool try_lock_for(std::chrono::duration<Rep, Period> d) {
    return core_.lock(detail::deadline_after(d), "timed_mutex");
  }
  template <class Clock, class Duration>
  bool try_lock_until(const std::chrono::time_point<Clock, Duration>& tp) {
    return core_.lock(detail::deadline_at(tp), "timed_mutex");
  }
  template <class Rep, class Period>
  bool try_lock_for(std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return core_.lock(detail::deadline_after(d), "timed_mutex", error);
  }
  template <class Clock, class Duration>
  bool try_lock_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return core_.lock(detail::deadline_at(tp), "timed_mutex", error);
  }

 private:
  detail::mutex_core core_;
};

// A mutex that its holder may lock again. The holder is a fiber, wherever it runs, or a thread. Where it can be had,
// a mutex that is locked once is the better answer: what is locked twice is often in the midst of a change.
class recursive_mutex {
 public:
  constexpr recursive_mutex() noexcept = default;
  recursive_mutex(const recursive_mutex&) = delete;
  recursive_mutex& operator=(const recursive_mutex&) = delete;

  // Takes the mutex, or counts one more. Throws `cancelled` without doing so, std::logic_error when the count would
  // overflow. The form with a code as that of mutex.
  void lock() { lock_deadline(detail::never); }
  bool lock(std::error_code& error) { return lock_deadline(detail::never, error); }
  // The same if that needs no waiting. False also when the count would overflow.
  bool try_lock() noexcept;
  // Counts one less, and lets go at zero. Throws std::logic_error when the caller does not hold the mutex.
  void unlock();

  // As those of timed_mutex.
  template <class Rep, class Period>
  bool try_lock_for(std::chrono::duration<Rep, Period> d) {
    return lock_deadline(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  bool try_lock_until(const std::chrono::time_point<Clock, Duration>& tp) {
    return lock_deadline(detail::deadline_at(tp));
  }
  template <class Rep, class Period>
  bool try_lock_for(std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return lock_deadline(detail::deadline_after(d), error);
  }
  template <class Clock, class Duration>
  bool try_lock_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return lock_deadline(detail::deadline_at(tp), error);
  }

 private:
#if defined(CONCUR_TEST_DEPTH)
  static constexpr std::uint32_t deepest = CONCUR_TEST_DEPTH;  // so that a test reaches it
#else
  static constexpr std::uint32_t deepest = 0xFFFFFFFFU;
#endif

  template <class... Code>
  bool lock_deadline(detail::nanoseconds_t deadline_ns, Code&... code) {
    return detail::perform([&](detail::worker* w) { return lock_from(w, deadline_ns); }, code...) ==
           detail::outcome::granted;
  }
  detail::outcome lock_from(detail::worker* w, detail::nanoseconds_t deadline_ns);

  detail::mutex_core core_;
  std::uint32_t depth_ = 0;  // M7
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE detail::outcome recursive_mutex::lock_from(detail::worker* w, detail::nanoseconds_t deadline_ns) {
  const void* const self = detail::identity_of(w);
  if (core_.is_held_by(self)) {
    if (depth_ == deepest) {
      detail::fail_logic(
          "concur::recursive_mutex::lock: the holder has locked it too many times; look for a lock without its unlock");
    }
    ++depth_;
    return detail::outcome::granted;
  }
  const detail::outcome result =
      core_.take(self) ? detail::outcome::granted : core_.lock_slow(deadline_ns, "recursive_mutex");
  if (result == detail::outcome::granted) depth_ = 1;
  return result;
}

CONCUR_INLINE bool recursive_mutex::try_lock() noexcept {
  const void* const self = detail::identity_of(detail::this_worker());
  if (core_.is_held_by(self)) {
    if (depth_ == deepest) return false;
    ++depth_;
    return true;
  }
  if (!core_.try_take(self)) return false;
  depth_ = 1;
  return true;
}

CONCUR_INLINE void recursive_mutex::unlock() {
  const bool is_holder = core_.is_held_by(detail::identity_of(detail::this_worker()));
  if (is_holder && --depth_ != 0 && !CONCUR_MUTANT_IS(102)) return;
  core_.unlock("recursive_mutex");  // reports a stranger
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// sync/shared_mutex.hpp - many readers or one writer, and neither kind starves the other.
//
// For what is read often and for long, and written now and then. Where reading is short, a plain mutex is faster.
//
//     word           meaning
//     writer    1    a writer holds
//     waiting   2    somebody waits: whoever comes new goes to the queue's lock, and so does who lets go last
//     4 * n          n readers hold
//
//     step                        what it lets in
//     a writer unlocks            all readers that wait, together; if there are none, the first writer
//     the last reader unlocks     the first writer; if there is none, all readers that wait
//     a waiter gives up           who may come in now that it is gone: all readers, if it was the only writer (R4)
//
//   R1  `waiting` is set and cleared under the queue's lock, and set whenever one of the two queues is not empty.
//   R2  A waiting writer keeps new readers out, so the readers inside become fewer; and a writer lets in the readers
//       that came while it held. So the two kinds take turns as long as both wait.
//   R3  The lock is handed over: who is let in holds it before it runs. While `waiting` is set nobody takes it in
//       passing.
//   R4  A waiter that times out or is cancelled was given nothing, and before it goes it serves those it held up.
//   R5  `owner_` names the writer that holds; only that writer writes it.
//
// A reader that locks again while a writer waits, waits for itself: recursive reading is not supported, as in Go.

CONCUR_NAMESPACE_BEGIN

// Works with std::unique_lock, std::shared_lock and the others. An unlock happens before each later lock and
// lock_shared; an unlock_shared happens before each later lock. A lock that is free costs one compare-exchange.
class shared_mutex {
 public:
  constexpr shared_mutex() noexcept = default;
  ~shared_mutex() { queue_lock_.lock(); }  // until the last unlock is outside
  shared_mutex(const shared_mutex&) = delete;
  shared_mutex& operator=(const shared_mutex&) = delete;

  // Waits until nobody holds. Throws `cancelled` without taking it, std::logic_error when the caller holds it as writer.
  // The forms with a code, here and below, say there that the caller was cancelled, and return false.
  void lock() { lock_deadline(detail::never); }
  bool lock(std::error_code& error) { return lock_deadline(detail::never, error); }
  bool try_lock() noexcept { return take(detail::identity_of(detail::this_worker())); }
  template <class Rep, class Period>
  bool try_lock_for(std::chrono::duration<Rep, Period> d) {
    return lock_deadline(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  bool try_lock_until(const std::chrono::time_point<Clock, Duration>& tp) {
    return lock_deadline(detail::deadline_at(tp));
  }
  template <class Rep, class Period>
  bool try_lock_for(std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return lock_deadline(detail::deadline_after(d), error);
  }
  template <class Clock, class Duration>
  bool try_lock_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return lock_deadline(detail::deadline_at(tp), error);
  }
  // Throws std::logic_error when the caller does not hold it as writer.
  void unlock();

  // Waits until no writer holds or waits. Throws as lock.
  void lock_shared() { lock_shared_deadline(detail::never); }
  bool lock_shared(std::error_code& error) { return lock_shared_deadline(detail::never, error); }
  bool try_lock_shared() noexcept;
  template <class Rep, class Period>
  bool try_lock_shared_for(std::chrono::duration<Rep, Period> d) {
    return lock_shared_deadline(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  bool try_lock_shared_until(const std::chrono::time_point<Clock, Duration>& tp) {
    return lock_shared_deadline(detail::deadline_at(tp));
  }
  template <class Rep, class Period>
  bool try_lock_shared_for(std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return lock_shared_deadline(detail::deadline_after(d), error);
  }
  template <class Clock, class Duration>
  bool try_lock_shared_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return lock_shared_deadline(detail::deadline_at(tp), error);
  }
  // Throws std::logic_error when no reader holds it. Which readers do is not known.
  void unlock_shared();

 private:
  static constexpr std::uint32_t writer = 1;
  static constexpr std::uint32_t waiting = 2;
  static constexpr std::uint32_t reader = 4;

  // Takes it as writer if it is free and nobody waits.
  bool take(const void* self) noexcept {
    std::uint32_t expected = 0;
    // acquire: pairs with unlock and unlock_shared. relaxed on failure: the slow path looks again.
    if (!word_.compare_exchange_strong(expected, writer, std::memory_order_acquire, std::memory_order_relaxed))
      return false;
    set_owner(self);
    return true;
  }
  void set_owner(const void* who) noexcept {
    owner_.store(who, std::memory_order_relaxed);  // relaxed: compared by the holder with itself only (R5)
  }
  bool is_held_by(const void* self) const noexcept {
    return owner_.load(std::memory_order_relaxed) == self;  // relaxed: as above
  }
  template <class... Code>
  bool lock_deadline(detail::nanoseconds_t deadline_ns, Code&... code) {
    const auto lock_from = [&](detail::worker* w) {
      const void* const self = detail::identity_of(w);
      return CONCUR_LIKELY(take(self)) ? detail::outcome::granted : lock_slow(self, deadline_ns);
    };
    return detail::perform(lock_from, code...) == detail::outcome::granted;
  }
  template <class... Code>
  bool lock_shared_deadline(detail::nanoseconds_t deadline_ns, Code&... code) {
    const auto lock_from = [&](detail::worker*) {
      return CONCUR_LIKELY(try_lock_shared()) ? detail::outcome::granted : lock_shared_slow(deadline_ns);
    };
    return detail::perform(lock_from, code...) == detail::outcome::granted;
  }
  // granted, timed_out or cancelled.
  detail::outcome lock_slow(const void* self, detail::nanoseconds_t deadline_ns);
  detail::outcome lock_shared_slow(detail::nanoseconds_t deadline_ns);
  detail::outcome wait(detail::caller& me, detail::intrusive_list<detail::waiter>& queue,
                       detail::nanoseconds_t deadline_ns, detail::wait_reason reason) noexcept;
  void unlock_slow(std::uint32_t share) noexcept;
  void serve(bool readers_first, detail::ended_waits& woken) noexcept;
  static void refuse_relock(bool is_holder);

  detail::atomic<std::uint32_t> word_{0};
  spin_lock queue_lock_;
  detail::atomic<const void*> owner_{nullptr};
  detail::intrusive_list<detail::waiter> writers_;
  detail::intrusive_list<detail::waiter> readers_;
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE void shared_mutex::refuse_relock(bool is_holder) {
  if (is_holder) {
    detail::fail_logic(
        "concur::shared_mutex: the caller holds it as writer already, and would wait for itself; unlock it first");
  }
}

CONCUR_INLINE bool shared_mutex::try_lock_shared() noexcept {
  const auto one_more = [](std::uint32_t word) {
    const bool is_open = (word & (writer | (CONCUR_MUTANT_IS(109) ? 0 : waiting))) == 0;
    return is_open ? std::optional<std::uint32_t>(word + reader) : std::nullopt;
  };
  return cas_update(word_, one_more, std::memory_order_acquire).has_value();  // acquire: pairs with unlock
}

CONCUR_INLINE detail::outcome shared_mutex::lock_slow(const void* self, detail::nanoseconds_t deadline_ns) {
  refuse_relock(is_held_by(self));
  if (deadline_ns != detail::never && deadline_ns <= detail::now_ns()) return detail::outcome::timed_out;
  detail::caller me(detail::this_worker());
  queue_lock_.lock();
  const auto take_or_mark = [](std::uint32_t word) { return word == 0 ? writer : word | waiting; };
  // acquire: as in take.
  if (cas_update(word_, take_or_mark, std::memory_order_acquire) == 0) {
    queue_lock_.unlock();
    set_owner(self);
    return detail::outcome::granted;
  }
  const detail::outcome result = wait(me, writers_, deadline_ns, detail::wait_reason::mutex_lock);
  if (result == detail::outcome::granted) set_owner(self);
  return result;
}

CONCUR_INLINE detail::outcome shared_mutex::lock_shared_slow(detail::nanoseconds_t deadline_ns) {
  refuse_relock(is_held_by(detail::identity_of(detail::this_worker())));
  if (deadline_ns != detail::never && deadline_ns <= detail::now_ns()) return detail::outcome::timed_out;
  detail::caller me(detail::this_worker());
  queue_lock_.lock();
  const auto enter_or_mark = [](std::uint32_t word) {
    return (word & (writer | waiting)) == 0 ? word + reader : word | waiting;
  };
  // acquire: as in try_lock_shared.
  if ((cas_update(word_, enter_or_mark, std::memory_order_acquire) & (writer | waiting)) == 0) {
    queue_lock_.unlock();
    return detail::outcome::granted;
  }
  return wait(me, readers_, deadline_ns, detail::wait_reason::shared_lock);
}

// Under the queue's lock, which it drops, and with `waiting` set. granted: let in (R3).
CONCUR_INLINE detail::outcome shared_mutex::wait(detail::caller& me, detail::intrusive_list<detail::waiter>& queue,
                                                 detail::nanoseconds_t deadline_ns,
                                                 detail::wait_reason reason) noexcept {
  detail::waiter note(me.who(), nullptr);
  queue.push_back(&note);
  const detail::outcome result = me.park(&queue_lock_, deadline_ns, reason);
  if (result == detail::outcome::granted) return result;
  detail::ended_waits woken;
  {
    detail::lock_scope<spin_lock> held(queue_lock_);
    if (detail::intrusive_list<detail::waiter>::is_linked(&note)) queue.erase(&note);
    if (!CONCUR_MUTANT_IS(110)) serve(false, woken);  // R4
  }
  woken.resume_all();
  return result;
}

// Under the queue's lock: lets in whom the table says. `readers_first`: a writer has just let go.
CONCUR_INLINE void shared_mutex::serve(bool readers_first, detail::ended_waits& woken) noexcept {
  const bool has_writers = detail::has_claimable(writers_);
  const bool has_readers = detail::has_claimable(readers_);
  // acquire: pairs with unlock_shared, for who is let in. Readers may still leave, but not the last one of them.
  CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(286) ? std::memory_order_relaxed : std::memory_order_acquire;
  const std::uint32_t word = word_.load(order);  // acquire: see above
  if ((word & writer) == 0) {
    bool is_taken = false;
    if (word < reader && has_writers && !(readers_first && has_readers && !CONCUR_MUTANT_IS(111))) {
      if (detail::waiter* note = detail::pop_claimed(writers_)) {
        woken.add(note, detail::outcome::granted);
        // relaxed: the resume orders it; here and below nobody else changes these bits.
        word_.fetch_or(writer, std::memory_order_relaxed);
        is_taken = true;
      }
    }
    if (!is_taken && (readers_first || !detail::has_claimable(writers_))) {
      const auto count = static_cast<std::uint32_t>(woken.take_all(readers_, detail::outcome::granted));
      word_.fetch_add(count * reader, std::memory_order_relaxed);  // relaxed: as above
    }
  }
  if (writers_.is_empty() && readers_.is_empty())
    word_.fetch_and(~waiting, std::memory_order_release);  // release: publishes to who comes in without the queue's lock
}

CONCUR_INLINE void shared_mutex::unlock() {
  if (CONCUR_UNLIKELY(!is_held_by(detail::identity_of(detail::this_worker())))) {
    detail::fail_logic(
        "concur::shared_mutex::unlock: the caller does not hold it as writer; unlock it where it was locked, or use "
        "unlock_shared");
  }
  set_owner(nullptr);
  CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(173) ? std::memory_order_relaxed : std::memory_order_release;
  std::uint32_t expected = writer;
  // release: publishes what the writer did. relaxed on failure: somebody waits.
  if (CONCUR_LIKELY(word_.compare_exchange_strong(expected, 0, order, std::memory_order_relaxed))) return;
  unlock_slow(writer);
}

CONCUR_INLINE void shared_mutex::unlock_shared() {
  std::uint32_t word = word_.load(std::memory_order_relaxed);  // relaxed: the exchange decides
  for (;;) {
    if (CONCUR_UNLIKELY(word < reader)) {
      detail::fail_logic(
          "concur::shared_mutex::unlock_shared: no reader holds it; unlock as often as was locked, and a writer's lock "
          "with unlock");
    }
    if (word < 2 * reader && (word & waiting) != 0) return unlock_slow(reader);
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(114) ? std::memory_order_relaxed : std::memory_order_release;
    // release: the reads were before what a later writer does. relaxed on failure: the loop looks again.
    if (word_.compare_exchange_weak(word, word - reader, order, std::memory_order_relaxed)) return;
  }
}

// Gives back the writer's bit, or one reader's share, while somebody waits.
CONCUR_INLINE void shared_mutex::unlock_slow(std::uint32_t share) noexcept {
  detail::ended_waits woken;
  {
    detail::lock_scope<spin_lock> held(queue_lock_);
    // acq_rel: publishes what the holder did, and sees what the readers did that left before, for who is let in.
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(286) ? std::memory_order_release : std::memory_order_acq_rel;
    const std::uint32_t rest = word_.fetch_sub(share, order) - share;  // acq_rel: see above
    if (rest < reader && (rest & waiting) != 0) serve(share == writer, woken);
  }
  woken.resume_all();
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// sync/condition_variable.hpp - waits until somebody says that something has changed, and lets go of a lock meanwhile.
//
// The lock may be of any kind that has lock() and unlock(): std::unique_lock over one of ours, one of ours itself,
// a std::shared_lock. So its unlock() runs code that is not ours, which may take its time and even park: it cannot run
// under the queue's lock, and the waiter cannot yet be in its wait when others may already notify. Hence a note in
// the queue has three states, and a notification that comes early is kept in the note.
//
//     state      meaning                                        next, by
//     entering   in the queue; its owner lets go of the lock    waiting, by its owner · notified, by a notifier
//     waiting    in the queue, its owner parks                  notified, by the notifier that claims the wait
//     notified   off the queue: the notification is its own     -
//
//   V1  A note enters the queue before the lock is let go: who changes something under the lock, and notifies after,
//       finds everybody who saw the old state.
//   V2  A notification is given to one note, under the queue's lock: to one that enters, or to one whose wait the notifier
//       claims. A waiter that timed out or was cancelled cannot be claimed, and the notifier goes on to the next.
//   V3  Whoever was notified returns normally, also if its deadline passed or it was cancelled right after. Who cannot
//       return normally, because the lock's unlock() threw, passes the notification on.
//   V4  The lock is held again when a wait returns or throws. Taking it again is shielded from cancellation.

CONCUR_NAMESPACE_BEGIN

enum class cv_status { no_timeout, timeout };

// A notification happens before the return of the wait it ends. As everywhere, a wait may be followed by others who take
// the lock first: look at the condition again, or hand it to wait().
class condition_variable {
 public:
  constexpr condition_variable() noexcept = default;
  ~condition_variable();  // waits until the last notifier is outside; a waiter in the queue is misuse
  condition_variable(const condition_variable&) = delete;
  condition_variable& operator=(const condition_variable&) = delete;

  // Ends one wait, the oldest, or all of them. With nobody there, nothing happens, and nothing is kept. The lock need
  // not be held.
  void notify_one() noexcept;
  void notify_all() noexcept;

  // Lets go of the lock, parks until notified, and takes the lock again. Throws `cancelled`, with the lock held, and
  // what lock.unlock() throws. What lock.lock() throws ends the program: there is no way on without the lock.
  template <class Lock>
  void wait(Lock& lock) {
    wait_deadline(lock, detail::never);
  }
  // Parks until the condition holds, which is called with the lock held. Throws `cancelled` also if it would hold.
  template <class Lock, class Predicate>
  void wait(Lock& lock, Predicate condition) {
    wait_condition(lock, detail::never, condition);
  }

  // The same with a limit. `timeout` when that passed before a notification.
  template <class Lock, class Rep, class Period>
  cv_status wait_for(Lock& lock, std::chrono::duration<Rep, Period> d) {
    return to_status(wait_deadline(lock, detail::deadline_after(d)));
  }
  template <class Lock, class Clock, class Duration>
  cv_status wait_until(Lock& lock, const std::chrono::time_point<Clock, Duration>& tp) {
    return to_status(wait_deadline(lock, detail::deadline_at(tp)));
  }
  // Whether the condition held in time.
  template <class Lock, class Rep, class Period, class Predicate>
  bool wait_for(Lock& lock, std::chrono::duration<Rep, Period> d, Predicate condition) {
    return wait_condition(lock, detail::deadline_after(d), condition);
  }
  template <class Lock, class Clock, class Duration, class Predicate>
  bool wait_until(Lock& lock, const std::chrono::time_point<Clock, Duration>& tp, Predicate condition) {
    return wait_condition(lock, detail::deadline_at(tp), condition);
  }

  // The same, but a cancellation is said in the code, and the lock is held then as always. Without a condition: whether
  // there was a notification, or `timeout` for none in time, also because it was cancelled. With one: whether it was seen
  // to hold; false when cancelled.
  template <class Lock>
  bool wait(Lock& lock, std::error_code& error) {
    return wait_deadline(lock, detail::never, error) == detail::outcome::granted;
  }
  template <class Lock, class Predicate>
  bool wait(Lock& lock, Predicate condition, std::error_code& error) {
    return wait_condition(lock, detail::never, condition, error);
  }
  template <class Lock, class Rep, class Period>
  cv_status wait_for(Lock& lock, std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return to_status(wait_deadline(lock, detail::deadline_after(d), error));
  }
  template <class Lock, class Clock, class Duration>
  cv_status wait_until(Lock& lock, const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return to_status(wait_deadline(lock, detail::deadline_at(tp), error));
  }
  template <class Lock, class Rep, class Period, class Predicate>
  bool wait_for(Lock& lock, std::chrono::duration<Rep, Period> d, Predicate condition, std::error_code& error) {
    return wait_condition(lock, detail::deadline_after(d), condition, error);
  }
  template <class Lock, class Clock, class Duration, class Predicate>
  bool wait_until(Lock& lock, const std::chrono::time_point<Clock, Duration>& tp, Predicate condition,
                  std::error_code& error) {
    return wait_condition(lock, detail::deadline_at(tp), condition, error);
  }

 private:
  // One waiter, from before it lets go of the lock until its wait has ended. On its stack.
  struct entry {
    enum class state : unsigned char { entering, waiting, notified };

    explicit entry(condition_variable& in) noexcept;
    ~entry();
    entry(const entry&) = delete;
    entry& operator=(const entry&) = delete;
    detail::outcome park(detail::nanoseconds_t deadline_ns) noexcept;

    condition_variable& site;
    detail::waiter note;  // of nobody while its owner enters
    state now = state::entering;
    bool has_returned = false;  // park() came to its end, and whatever was given is the caller's
  };

  // Raises the shield of the calling fiber for a scope.
  class shielded {
   public:
    shielded() noexcept;
    ~shielded();
    shielded(const shielded&) = delete;
    shielded& operator=(const shielded&) = delete;

   private:
    detail::fiber* self_;
  };

  template <class Lock>
  static void lock_again(Lock& lock) noexcept {
    const shielded from_cancellation;
    lock.lock();
  }

  // After the checkpoint. granted, timed_out or cancelled.
  template <class Lock>
  detail::outcome wait_once(Lock& lock, detail::nanoseconds_t deadline_ns) {
    detail::outcome result = detail::outcome::granted;
    {
      entry here(*this);  // V1
      lock.unlock();
      result = here.park(deadline_ns);
    }
    lock_again(lock);
    return result;
  }
  template <class Lock, class... Code>
  detail::outcome wait_deadline(Lock& lock, detail::nanoseconds_t deadline_ns, Code&... code) {
    return detail::perform([&](detail::worker*) { return wait_once(lock, deadline_ns); }, code...);
  }
  template <class Lock, class Predicate, class... Code>
  bool wait_condition(Lock& lock, detail::nanoseconds_t deadline_ns, Predicate& condition, Code&... code) {
    const auto wait_from = [&](detail::worker*) {
      while (!condition()) {
        const detail::outcome result = wait_once(lock, deadline_ns);
        if (result == detail::outcome::granted) continue;
        const bool holds = result == detail::outcome::timed_out && condition();
        return holds ? detail::outcome::granted : result;
      }
      return detail::outcome::granted;
    };
    return detail::perform(wait_from, code...) == detail::outcome::granted;
  }
  static cv_status to_status(detail::outcome result) noexcept {
    return result == detail::outcome::granted ? cv_status::no_timeout : cv_status::timeout;
  }
  bool notify_next(detail::ended_waits& woken) noexcept;

  spin_lock lock_;
  detail::intrusive_list<detail::waiter> waiting_;
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE condition_variable::~condition_variable() { lock_.lock(); }

CONCUR_INLINE condition_variable::shielded::shielded() noexcept : self_(nullptr) {
  if (detail::worker* w = detail::this_worker()) self_ = w->current;
  if (self_ != nullptr && !CONCUR_MUTANT_IS(103)) ++self_->shield_depth;
}
CONCUR_INLINE condition_variable::shielded::~shielded() {
  if (self_ != nullptr && !CONCUR_MUTANT_IS(103)) --self_->shield_depth;
}

CONCUR_INLINE condition_variable::entry::entry(condition_variable& in) noexcept : site(in) {
  note.value = this;
  detail::lock_scope<spin_lock> held(site.lock_);
  site.waiting_.push_back(&note);
}

// V3.
CONCUR_INLINE condition_variable::entry::~entry() {
  if (has_returned) return;
  site.lock_.lock();
  if (now != state::notified) site.waiting_.erase(&note);
  site.lock_.unlock();
  if (now == state::notified && !CONCUR_MUTANT_IS(283)) site.notify_one();
}

CONCUR_INLINE detail::outcome condition_variable::entry::park(detail::nanoseconds_t deadline_ns) noexcept {
  has_returned = true;
  detail::caller me(detail::this_worker());  // only now: the lock's unlock() may have changed the worker
  site.lock_.lock();
  if (now == state::notified) {
    site.lock_.unlock();
    return detail::outcome::granted;
  }
  if (deadline_ns != detail::never && deadline_ns <= detail::now_ns()) {
    site.waiting_.erase(&note);
    site.lock_.unlock();
    return detail::outcome::timed_out;
  }
  now = state::waiting;
  note.begin(me.who());
  const detail::outcome result = me.park(&site.lock_, deadline_ns, detail::wait_reason::condition_wait);
  if (result != detail::outcome::granted) {
    detail::lock_scope<spin_lock> held(site.lock_);
    if (detail::intrusive_list<detail::waiter>::is_linked(&note)) site.waiting_.erase(&note);
  }
  return result;
}

// V2. Under the lock; false when nobody is left who could be notified.
CONCUR_INLINE bool condition_variable::notify_next(detail::ended_waits& woken) noexcept {
  while (detail::waiter* note = waiting_.pop_front()) {
    entry& here = *static_cast<entry*>(note->value);
    if (here.now == entry::state::entering) {
      if (!CONCUR_MUTANT_IS(104)) here.now = entry::state::notified;
      return true;
    }
    if (!note->claim()) {
      if (CONCUR_MUTANT_IS(105)) return true;
      continue;
    }
    here.now = entry::state::notified;
    woken.add(note, detail::outcome::granted);
    return true;
  }
  return false;
}

CONCUR_INLINE void condition_variable::notify_one() noexcept {
  detail::ended_waits woken;
  {
    detail::lock_scope<spin_lock> held(lock_);
    notify_next(woken);
  }
  woken.resume_all();
}

CONCUR_INLINE void condition_variable::notify_all() noexcept {
  detail::ended_waits woken;
  {
    detail::lock_scope<spin_lock> held(lock_);
    while (notify_next(woken)) {
    }
  }
  woken.resume_all();
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// sync/semaphore.hpp - a number of permits, taken some at a time, strictly in the order of asking.
//
// Bounds what runs at once: so many downloads, so many bytes in memory. Who asks for many waits at the head of the queue
// until there are so many, and nobody passes: a large request is not starved by small ones, try_acquire included.
//
// One word holds the permits and says whether somebody waits, so that without contention acquire and release are one
// compare-exchange each.
//
//     word     meaning                                    next, by
//     v >= 0   v permits, nobody waits                    v-n acquire · v+n release · ~v a waiter queues
//     v < 0    ~v permits (-1: none), somebody waits      changed under the queue's lock only
//
//   P1  The word is negative exactly while the queue holds somebody who still waits, or who has not left yet.
//   P2  While it is negative, only who serves takes permits: from the front of the queue, as long as they suffice.
//   P3  The queue is served whenever permits come, and whenever somebody leaves it for another reason: those behind may fit now.
//   P4  The permits of a waiter are taken for it after its wait was claimed: who timed out or was cancelled has taken none.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// The semaphore of any bound. Counts of permits are std::ptrdiff_t.
class semaphore_core {
 public:
  // Throws std::invalid_argument unless 0 <= permits <= limit.
  constexpr semaphore_core(std::ptrdiff_t permits, std::ptrdiff_t limit)
      : word_(permits >= 0 && permits <= limit ? permits : fail_permits(permits, limit)) {}
  ~semaphore_core() { waiting_.lock.lock(); }  // until the last release is outside
  semaphore_core(const semaphore_core&) = delete;
  semaphore_core& operator=(const semaphore_core&) = delete;

  template <class... Code>
  bool acquire(std::ptrdiff_t n, nanoseconds_t deadline_ns, std::ptrdiff_t limit, Code&... code) {
    const auto acquire_from = [&](worker*) {
      return CONCUR_LIKELY(take(n)) ? outcome::granted : acquire_slow(n, deadline_ns, limit);
    };
    return perform(acquire_from, code...) == outcome::granted;
  }
  bool try_acquire(std::ptrdiff_t n, std::ptrdiff_t limit) {
    if (CONCUR_LIKELY(take(n))) return true;
    check_request(n, limit);
    return n == 0;
  }
  void release(std::ptrdiff_t n, std::ptrdiff_t limit) {
    const auto with_these = [n, limit](std::ptrdiff_t permits) {
      const bool is_simple = CONCUR_LIKELY(permits >= 0 && n > 0 && n <= limit - permits);
      return is_simple ? std::optional<std::ptrdiff_t>(permits + n) : std::nullopt;
    };
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(113) ? std::memory_order_relaxed : std::memory_order_release;
    if (cas_update(word_, with_these, order)) return;  // release: publishes what the permits guarded
    release_slow(n, limit);
  }

 private:
  bool take(std::ptrdiff_t n) noexcept {
    // relaxed: a look; who gets nothing sees nothing of the others' (cas_update would acquire what it reads).
    if (word_.load(std::memory_order_relaxed) < n) return false;
    const auto without_these = [n](std::ptrdiff_t permits) {  // P2: never while somebody waits
      return n > 0 && permits >= n ? std::optional<std::ptrdiff_t>(permits - n) : std::nullopt;
    };
    return cas_update(word_, without_these, std::memory_order_acquire).has_value();  // acquire: pairs with release
  }
  [[noreturn]] static std::ptrdiff_t fail_permits(std::ptrdiff_t permits, std::ptrdiff_t limit);
  static void check_request(std::ptrdiff_t n, std::ptrdiff_t limit);
  // granted, timed_out or cancelled.
  outcome acquire_slow(std::ptrdiff_t n, nanoseconds_t deadline_ns, std::ptrdiff_t limit);
  void release_slow(std::ptrdiff_t n, std::ptrdiff_t limit);
  void serve(std::ptrdiff_t permits, ended_waits& woken) noexcept;

  atomic<std::ptrdiff_t> word_;
  wait_queue waiting_;
};

}  // namespace detail

// std's counting_semaphore, weighted and fair. A release happens before the return of the acquire that it lets go.
template <std::ptrdiff_t Max = (std::numeric_limits<std::ptrdiff_t>::max)()>
class counting_semaphore {
  static_assert(Max >= 0, "a semaphore cannot hold less than no permits");

 public:
  // Throws std::invalid_argument unless 0 <= permits <= Max.
  constexpr explicit counting_semaphore(std::ptrdiff_t permits) : core_(permits, Max) {}

  static constexpr std::ptrdiff_t(max)() noexcept { return Max; }

  // Parks until n permits can be taken, after everybody who asked before. Throws `cancelled` and has taken none then, or
  // std::invalid_argument when n is negative or above Max: that could never be. The forms with a code, here and below, say
  // there that the caller was cancelled, and return false: none were taken.
  void acquire(std::ptrdiff_t n = 1) { core_.acquire(n, detail::never, Max); }
  bool acquire(std::error_code& error) { return acquire(1, error); }
  bool acquire(std::ptrdiff_t n, std::error_code& error) { return core_.acquire(n, detail::never, Max, error); }
  // Takes n permits if they are there and nobody waits.
  bool try_acquire(std::ptrdiff_t n = 1) { return core_.try_acquire(n, Max); }
  // As acquire, with a limit; false, and none taken, when that passed first.
  template <class Rep, class Period>
  bool try_acquire_for(std::chrono::duration<Rep, Period> d, std::ptrdiff_t n = 1) {
    return core_.acquire(n, detail::deadline_after(d), Max);
  }
  template <class Clock, class Duration>
  bool try_acquire_until(const std::chrono::time_point<Clock, Duration>& tp, std::ptrdiff_t n = 1) {
    return core_.acquire(n, detail::deadline_at(tp), Max);
  }
  template <class Rep, class Period>
  bool try_acquire_for(std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return try_acquire_for(d, 1, error);
  }
  template <class Rep, class Period>
  bool try_acquire_for(std::chrono::duration<Rep, Period> d, std::ptrdiff_t n, std::error_code& error) {
    return core_.acquire(n, detail::deadline_after(d), Max, error);
  }
  template <class Clock, class Duration>
  bool try_acquire_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return try_acquire_until(tp, 1, error);
  }
  template <class Clock, class Duration>
  bool try_acquire_until(const std::chrono::time_point<Clock, Duration>& tp, std::ptrdiff_t n, std::error_code& error) {
    return core_.acquire(n, detail::deadline_at(tp), Max, error);
  }
  // Gives n permits, which need not have been taken, and lets go of those they suffice for, in their order. Throws
  // std::invalid_argument when n is negative, std::logic_error when there would be more than Max; gives none then.
  void release(std::ptrdiff_t n = 1) { core_.release(n, Max); }

 private:
  detail::semaphore_core core_;
};

using binary_semaphore = counting_semaphore<1>;

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE std::ptrdiff_t semaphore_core::fail_permits(std::ptrdiff_t permits, std::ptrdiff_t limit) {
  fail_argument("concur::counting_semaphore", "permits", std::to_string(permits),
                ("it must be between 0 and " + std::to_string(limit)).c_str());
}

CONCUR_INLINE void semaphore_core::check_request(std::ptrdiff_t n, std::ptrdiff_t limit) {
  if (n < 0 || n > limit) {
    fail_argument("concur::counting_semaphore::acquire", "n", std::to_string(n),
                  ("it must be between 0 and " + std::to_string(limit) + ", or it would wait for ever").c_str());
  }
}

CONCUR_INLINE outcome semaphore_core::acquire_slow(std::ptrdiff_t n, nanoseconds_t deadline_ns, std::ptrdiff_t limit) {
  check_request(n, limit);
  if (n == 0) return outcome::granted;
  caller me(this_worker());
  waiting_.lock.lock();
  std::ptrdiff_t word = word_.load(std::memory_order_relaxed);  // relaxed: the exchange decides
  while (word >= 0) {
    const bool is_enough = word >= n;
    if (!is_enough && deadline_ns != never && deadline_ns <= now_ns()) {
      waiting_.lock.unlock();
      return outcome::timed_out;
    }
    // acquire: as in take. relaxed on failure: the loop looks again.
    if (!word_.compare_exchange_weak(word, is_enough ? word - n : ~word, std::memory_order_acquire,
                                     std::memory_order_relaxed))
      continue;
    if (!is_enough) break;
    waiting_.lock.unlock();
    return outcome::granted;
  }
  const outcome result = waiting_.wait(me, &n, deadline_ns, wait_reason::semaphore_acquire);
  if (result == outcome::granted) return result;
  ended_waits woken;
  if (!CONCUR_MUTANT_IS(106)) {
    lock_scope<spin_lock> held(waiting_.lock);
    word = word_.load(std::memory_order_relaxed);  // relaxed: under the queue's lock, if it is negative
    if (word < 0) serve(~word, woken);             // P3
  }
  woken.resume_all();
  return result;
}

// Under the queue's lock, with a negative word: gives the permits out, and writes what is left.
CONCUR_INLINE void semaphore_core::serve(std::ptrdiff_t permits, ended_waits& woken) noexcept {
  while (waiter* const note = waiting_.parties.front()) {
    const std::ptrdiff_t wanted = *static_cast<std::ptrdiff_t*>(note->value);
    if (wanted > permits) break;  // also when its wait has been ended elsewhere: then it serves as it leaves (P3)
    waiting_.parties.erase(note);
    if (!note->claim()) {
      if (CONCUR_MUTANT_IS(108)) permits -= wanted;
      continue;
    }
    permits -= wanted;  // P4
    woken.add(note, outcome::granted);
  }
  CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(287) ? std::memory_order_relaxed : std::memory_order_release;
  // release: publishes what the permits guarded to who takes the rest.
  word_.store(waiting_.parties.is_empty() || CONCUR_MUTANT_IS(107) ? permits : ~permits, order);
}

CONCUR_INLINE void semaphore_core::release_slow(std::ptrdiff_t n, std::ptrdiff_t limit) {
  if (n < 0) {
    fail_argument("concur::counting_semaphore::release", "n", std::to_string(n),
                  "permits cannot be taken back; use acquire");
  }
  if (n == 0) return;
  ended_waits woken;
  bool is_given = false;
  {
    lock_scope<spin_lock> held(waiting_.lock);
    std::ptrdiff_t word = word_.load(std::memory_order_acquire);  // acquire: pairs with release, for who is served
    if (word < 0) {
      is_given = n <= limit - ~word;
      if (is_given) serve(~word + n, woken);
    } else {
      while (!is_given && n <= limit - word) {
        // release: as in the fast path. relaxed on failure: the loop looks again; it stays so while we hold the lock.
        is_given = word_.compare_exchange_weak(word, word + n, std::memory_order_release, std::memory_order_relaxed);
      }
    }
  }
  if (!is_given)
    fail_logic("concur::counting_semaphore::release: there would be more than " + std::to_string(limit) +
               " permits, which is Max; release what was acquired");
  woken.resume_all();
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// sync/wait_group.hpp - waits until a number of things are done.
//
// Add what you start, call done() where it ends, and wait() for zero. For fibers whose lives nest, a nursery says the
// same with less to forget; a wait_group is for counts that do not.
//
//   Z1  The count is changed under the lock; reaching zero takes all waiters off in the same step.
//   Z2  wait() returns only for a zero that came after the waiter did, or that it found.

CONCUR_NAMESPACE_BEGIN

// Every done() happens before the return of the wait() it lets go.
class wait_group {
 public:
  constexpr wait_group() noexcept = default;
  wait_group(const wait_group&) = delete;
  wait_group& operator=(const wait_group&) = delete;

  // Raises the count by n, or lowers it if n is negative. Throws std::logic_error, and changes nothing, when the
  // count would fall below zero, would overflow, or would leave zero again while waiters of the former round have not
  // all gone.
  void add(std::ptrdiff_t n = 1);
  void done() { add(-1); }

  // Parks until the count is zero. Throws `cancelled`; the form with a code says so there, and returns false.
  void wait() { wait_deadline(detail::never); }
  bool wait(std::error_code& error) { return wait_deadline(detail::never, error); }
  // The same with a limit; false also when that passed first.
  template <class Rep, class Period>
  bool wait_for(std::chrono::duration<Rep, Period> d) {
    return wait_deadline(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  bool wait_until(const std::chrono::time_point<Clock, Duration>& tp) {
    return wait_deadline(detail::deadline_at(tp));
  }
  template <class Rep, class Period>
  bool wait_for(std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return wait_deadline(detail::deadline_after(d), error);
  }
  template <class Clock, class Duration>
  bool wait_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return wait_deadline(detail::deadline_at(tp), error);
  }
  // Whether the count is zero now.
  bool try_wait() noexcept;

 private:
  template <class... Code>
  bool wait_deadline(detail::nanoseconds_t deadline_ns, Code&... code) {
    return detail::perform([&](detail::worker* w) { return wait_from(w, deadline_ns); }, code...) ==
           detail::outcome::granted;
  }
  detail::outcome wait_from(detail::worker* w, detail::nanoseconds_t deadline_ns) noexcept;

  std::ptrdiff_t count_ = 0;
  std::ptrdiff_t leaving_ = 0;  // waiters that were let go and have not returned yet
  detail::wait_queue waiting_;
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE void wait_group::add(std::ptrdiff_t n) {
  detail::ended_waits woken;
  const char* misuse = nullptr;
  {
    detail::lock_scope<spin_lock> held(waiting_.lock);
    std::ptrdiff_t sum = 0;
    if (__builtin_add_overflow(count_, n, &sum))
      misuse = "concur::wait_group::add: the count would overflow";
    else if (sum < 0)
      misuse = "concur::wait_group: the count would fall below zero; there are more done() than add()";
    else if (count_ == 0 && n > 0 && leaving_ != 0 && !CONCUR_MUTANT_IS(66))
      misuse = "concur::wait_group::add: the group is used again before every wait() of the last round has returned";
    if (misuse == nullptr) {
      count_ = sum;
      if (count_ == 0) leaving_ += woken.take_all(waiting_.parties, detail::outcome::granted);
    }
  }
  if (misuse != nullptr) detail::fail_logic(misuse);
  woken.resume_all();
}

CONCUR_INLINE bool wait_group::try_wait() noexcept {
  detail::lock_scope<spin_lock> held(waiting_.lock);
  return count_ == 0;
}

CONCUR_INLINE detail::outcome wait_group::wait_from(detail::worker* w, detail::nanoseconds_t deadline_ns) noexcept {
  detail::caller me(w);
  waiting_.lock.lock();
  if (count_ == 0) {
    waiting_.lock.unlock();
    return detail::outcome::granted;
  }
  const detail::outcome result = waiting_.wait(me, nullptr, deadline_ns, detail::wait_reason::wait_group_wait);
  if (result == detail::outcome::granted) {
    detail::lock_scope<spin_lock> held(waiting_.lock);
    --leaving_;
  }
  return result;
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// sync/latch.hpp - a door that opens once, when so many have arrived.
//
// A number of things must have happened before somebody goes on: each counts down, and who waits, waits for zero. A latch
// is used once, and very often lives on the stack of the one that waits, so it must be possible to let it go as soon as
// wait() has returned, while the last count_down() is still on its way out. So zero is not seen in the count, but in the
// lock: the last one retires it, with the number `open`.
//
//     lock      meaning                                     written by
//     0, 1      the count is above zero; free or held       whoever counts down, or begins to wait
//     open      the count is zero, for ever                 the last count_down, as its last touch
//
//   G1  Nobody sees zero before the last count_down() has touched the latch for the last time: waiters are claimed before
//       the lock is retired and resumed after it, from a chain that runs through their own notes.
//   G2  The count changes under the lock only.

CONCUR_NAMESPACE_BEGIN

// Every count_down() happens before the return of each wait() that it lets go, and of each try_wait() that says true. The
// latch may be destroyed as soon as every wait() has returned, whatever count_down() is still doing.
class latch {
 public:
  static constexpr std::ptrdiff_t(max)() noexcept { return (std::numeric_limits<std::ptrdiff_t>::max)(); }

  // Opens after `expected` arrivals; zero: it is open. Throws std::invalid_argument if that is negative.
  explicit constexpr latch(std::ptrdiff_t expected)
      : count_(expected), waiting_{detail::retirable_lock(expected == 0 ? open : 0), {}} {
    if (expected < 0) fail_negative("concur::latch", "expected", expected);
  }
  latch(const latch&) = delete;
  latch& operator=(const latch&) = delete;

  // Lowers the count by n, and lets everybody go when it is zero. Never parks. Throws std::invalid_argument for a negative
  // n, and std::logic_error when the count would fall below zero; the count is then what it was.
  void count_down(std::ptrdiff_t n = 1);

  // Whether the count is zero. One load.
  bool try_wait() const noexcept { return waiting_.lock.peek() == open; }

  // Parks until the count is zero. Throws `cancelled`; the form with a code says so there, and returns false.
  void wait() { wait_deadline(detail::never); }
  bool wait(std::error_code& error) { return wait_deadline(detail::never, error); }
  // The same with a limit; false also when that passed first.
  template <class Rep, class Period>
  bool wait_for(std::chrono::duration<Rep, Period> d) {
    return wait_deadline(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  bool wait_until(const std::chrono::time_point<Clock, Duration>& tp) {
    return wait_deadline(detail::deadline_at(tp));
  }
  template <class Rep, class Period>
  bool wait_for(std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return wait_deadline(detail::deadline_after(d), error);
  }
  template <class Clock, class Duration>
  bool wait_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return wait_deadline(detail::deadline_at(tp), error);
  }

  // count_down(n), then wait(). Throws as these do; when it is cancelled, the arrival has been counted.
  void arrive_and_wait(std::ptrdiff_t n = 1) {
    count_down(n);
    wait_deadline(detail::never);
  }
  bool arrive_and_wait(std::error_code& error) { return arrive_and_wait(1, error); }
  bool arrive_and_wait(std::ptrdiff_t n, std::error_code& error) {
    count_down(n);
    return wait_deadline(detail::never, error);
  }

 private:
  static constexpr std::uint32_t open = 2;

  template <class... Code>
  bool wait_deadline(detail::nanoseconds_t deadline_ns, Code&... code) {
    const auto wait_from = [&](detail::worker* w) {
      return waiting_.wait_until_retired(w, deadline_ns, detail::wait_reason::latch_wait);
    };
    return detail::perform(wait_from, code...) == detail::outcome::granted;
  }
  [[noreturn]] static void fail_negative(const char* what, const char* argument, std::ptrdiff_t value);

  std::ptrdiff_t count_;  // means nothing once the lock is retired
  detail::wait_queue waiting_;
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE void latch::fail_negative(const char* what, const char* argument, std::ptrdiff_t value) {
  detail::fail_argument(what, argument, std::to_string(value), "a number of arrivals is zero or more");
}

CONCUR_INLINE void latch::count_down(std::ptrdiff_t n) {
  if (n < 0) fail_negative("concur::latch::count_down", "n", n);
  const bool is_open = waiting_.lock.lock_unless_retired() != 0;
  if (is_open || n > count_) {
    if (!is_open) waiting_.lock.unlock();
    if (n == 0) return;
    detail::fail_logic("concur::latch::count_down: the count would fall below zero; more arrive than it was made for");
  }
  count_ -= n;
  if (count_ != 0) {
    waiting_.lock.unlock();
    return;
  }
  detail::ended_waits woken;
  if (CONCUR_MUTANT_IS(121)) {
    waiting_.lock.retire(open);
    for (unsigned round = 0; round < 12;) detail::spin_wait(round);
  }
  woken.take_all(waiting_.parties, detail::outcome::granted);
  if (!CONCUR_MUTANT_IS(121)) waiting_.lock.retire(open);  // G1
  woken.resume_all();
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// sync/barrier.hpp - a place where a fixed number of parties meet, again and again.
//
// Work that goes in steps, each of which needs the whole step before: every party arrives, the last one runs the
// completion, and all go on together into the next phase. Everything is under one lock, except the completion, which is
// the user's and may take its time; while it runs nobody is expected, so `pending` is zero and an arrival is an error.
//
//     pending    phase    meaning                                             next
//     1..        p        so many are still to arrive                         p, less · 0 by the last one
//     0          p        the completion runs                                 expected, p + 1
//
//   Y1  A phase is its number. A token carries the number its arrival belongs to, and the wait for it ends when the
//       barrier's is another: a party that comes late, or is resumed late, cannot miss a phase.
//   Y2  An arrival counts, whatever becomes of the wait after it: a wait that timed out or was cancelled takes nothing back.
//   Y3  The phase advances under the lock, in the same hold in which everybody is taken off the queue; they are resumed
//       without it. That unlocking is the last touch of the last to arrive.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// The part that does not depend on the completion.
class barrier_core {
 public:
  explicit barrier_core(std::ptrdiff_t expected);

  // n arrive. True: they were the last, and the caller runs the completion, then calls next_phase.
  bool arrive(std::ptrdiff_t n, bool are_dropped, std::uint64_t& phase);
  void next_phase() noexcept;
  bool is_over(std::uint64_t phase) noexcept;
  // granted; or timed_out or cancelled while the phase was still `phase`. From the caller's checkpoint on.
  outcome wait_from(worker* w, std::uint64_t phase, nanoseconds_t deadline_ns) noexcept;

 private:
  wait_queue waiting_;
  std::ptrdiff_t expected_;
  std::ptrdiff_t pending_;
  std::uint64_t phase_ = 0;
};

// While it lives, the calling fiber's parking operations are not cancelled.
class deaf_scope {
 public:
  deaf_scope() noexcept {
    worker* w = this_worker();
    self_ = w != nullptr ? w->current : nullptr;
    if (CONCUR_MUTANT_IS(137)) self_ = nullptr;
    if (self_ != nullptr) ++self_->shield_depth;
  }
  ~deaf_scope() {
    if (self_ != nullptr) --self_->shield_depth;
  }
  deaf_scope(const deaf_scope&) = delete;
  deaf_scope& operator=(const deaf_scope&) = delete;

 private:
  fiber* self_;
};

struct no_completion {
  void operator()() const noexcept {}
};

[[noreturn]] CONCUR_INLINE void fail_token();

}  // namespace detail

// `completion` is called once a phase, by the last to arrive, after every arrival and before anybody is let go. It may
// park, and is not cancelled; an exception that leaves it ends the program. Each arrival happens before the completion,
// and that before the return of each wait. The barrier may be destroyed as soon as every wait has returned, whatever
// arrive() is still doing.
template <class Completion = detail::no_completion>
class barrier {
 public:
  // Which phase an arrival belongs to. May be copied, and waited for any number of times.
  class arrival_token {
   private:
    friend class barrier;
    arrival_token(const barrier* whose, std::uint64_t phase) noexcept : whose_(whose), phase_(phase) {}
    const barrier* whose_;
    std::uint64_t phase_;
  };

  static constexpr std::ptrdiff_t(max)() noexcept { return (std::numeric_limits<std::ptrdiff_t>::max)(); }

  // Throws std::invalid_argument if `expected` is negative.
  explicit barrier(std::ptrdiff_t expected, Completion completion = Completion())
      : core_(expected), completion_(std::move(completion)) {}
  barrier(const barrier&) = delete;
  barrier& operator=(const barrier&) = delete;

  // n parties arrive; does not wait, except that the last to arrive runs the completion. Throws std::invalid_argument
  // unless n is above zero, and std::logic_error when more arrive than this phase still expects; then nobody has arrived.
  [[nodiscard]] arrival_token arrive(std::ptrdiff_t n = 1) { return enter(n, false); }

  // Parks until the phase of the token is over. Throws `cancelled`, and std::logic_error for another barrier's token. The
  // form with a code says there that it was cancelled, and returns false.
  void wait(const arrival_token& token) { wait_deadline(token, detail::never); }
  bool wait(const arrival_token& token, std::error_code& error) { return wait_deadline(token, detail::never, error); }
  // The same with a limit: false also when that passed first. The arrival still counts, and the token can be waited for
  // again.
  template <class Rep, class Period>
  bool wait_for(const arrival_token& token, std::chrono::duration<Rep, Period> d) {
    return wait_deadline(token, detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  bool wait_until(const arrival_token& token, const std::chrono::time_point<Clock, Duration>& tp) {
    return wait_deadline(token, detail::deadline_at(tp));
  }
  template <class Rep, class Period>
  bool wait_for(const arrival_token& token, std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return wait_deadline(token, detail::deadline_after(d), error);
  }
  template <class Clock, class Duration>
  bool wait_until(const arrival_token& token, const std::chrono::time_point<Clock, Duration>& tp,
                  std::error_code& error) {
    return wait_deadline(token, detail::deadline_at(tp), error);
  }
  // Whether the phase of the token is over. Never parks.
  bool try_wait(const arrival_token& token) {
    if (token.whose_ != this) detail::fail_token();
    return core_.is_over(token.phase_);
  }

  // wait(arrive()). When it is cancelled, the arrival counts all the same (Y2).
  void arrive_and_wait() { wait_deadline(enter(1, false), detail::never); }
  bool arrive_and_wait(std::error_code& error) { return wait_deadline(enter(1, false), detail::never, error); }
  // Arrives, and is not expected in later phases. Throws as arrive() does.
  void arrive_and_drop() { enter(1, true); }

 private:
  arrival_token enter(std::ptrdiff_t n, bool are_dropped) {
    std::uint64_t phase = 0;
    if (core_.arrive(n, are_dropped, phase)) complete();
    return arrival_token(this, phase);
  }
  void complete() noexcept {
    if (CONCUR_MUTANT_IS(136)) core_.next_phase();
    {
      const detail::deaf_scope uncancelled;
      completion_();
    }
    if (!CONCUR_MUTANT_IS(136)) core_.next_phase();
  }
  template <class... Code>
  bool wait_deadline(const arrival_token& token, detail::nanoseconds_t deadline_ns, Code&... code) {
    if (token.whose_ != this) detail::fail_token();
    const auto wait_from = [&](detail::worker* w) { return core_.wait_from(w, token.phase_, deadline_ns); };
    return detail::perform(wait_from, code...) == detail::outcome::granted;
  }

  detail::barrier_core core_;
  Completion completion_;
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void fail_token() {
  fail_logic("concur::barrier::wait: the token is another barrier's; wait where arrive() was called");
}

CONCUR_INLINE barrier_core::barrier_core(std::ptrdiff_t expected) : expected_(expected), pending_(expected) {
  if (expected < 0)
    fail_argument("concur::barrier", "expected", std::to_string(expected), "a number of parties is zero or more");
}

CONCUR_INLINE bool barrier_core::arrive(std::ptrdiff_t n, bool are_dropped, std::uint64_t& phase) {
  if (n <= 0) fail_argument("concur::barrier::arrive", "n", std::to_string(n), "at least one party arrives");
  bool is_last = false;
  bool are_too_many = false;
  {
    lock_scope<spin_lock> held(waiting_.lock);
    are_too_many = n > pending_;
    if (!are_too_many) {
      phase = phase_;
      pending_ -= n;
      if (are_dropped && !CONCUR_MUTANT_IS(125)) expected_ -= n;
      is_last = pending_ == 0;
    }
  }
  if (are_too_many)
    fail_logic("concur::barrier::arrive: more arrive than the phase expects; one party came twice, or was not counted");
  return is_last;
}

CONCUR_INLINE void barrier_core::next_phase() noexcept {
  ended_waits woken;
  {
    lock_scope<spin_lock> held(waiting_.lock);
    ++phase_;
    pending_ = expected_;
    woken.take_all(waiting_.parties, outcome::granted);
  }
  woken.resume_all();
}

CONCUR_INLINE bool barrier_core::is_over(std::uint64_t phase) noexcept {
  lock_scope<spin_lock> held(waiting_.lock);
  return phase_ != phase;
}

CONCUR_INLINE outcome barrier_core::wait_from(worker* w, std::uint64_t phase, nanoseconds_t deadline_ns) noexcept {
  caller me(w);
  waiting_.lock.lock();
  if (phase_ != phase && !CONCUR_MUTANT_IS(126)) {
    waiting_.lock.unlock();
    return outcome::granted;
  }
  return waiting_.wait(me, nullptr, deadline_ns, wait_reason::barrier_wait);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// sync/event.hpp - something that has happened, until it is said to be over.
//
// "The cache is warm", "shutdown has begun", "there is work": a state that one side sets and resets, and the other waits
// for. Setting it lets everybody go that waits, also when it is reset in the same moment; a wait that finds it set costs a
// load. The state is the queue's lock itself (retirable_lock.hpp, K3 and K4):
//
//     lock          meaning              next            by
//     0             not set              1               set, or a waiter that queues
//     1             not set, held        0, is_set_now   the holder
//     is_set_now    set; nobody waits    0               reset
//
//   V1  Who waits, queued while the event was not set; who sets it takes everybody off the queue in the same hold of the
//       lock. So a waiter is never in the queue of a set event, and a reset cannot come between the two.
//   V2  Retiring the lock is the last touch of set(): an event on the stack of the one that waits may go when wait()
//       returns.

CONCUR_NAMESPACE_BEGIN

// Manual reset: it stays set until reset() is called. A set() happens before the return of every wait() that it lets go, or
// that finds the event set by it; one that finds it set by an earlier set() need not see what came before a later one. It may
// be destroyed as soon as every wait() has returned, while the set() that let them go is still on its way out.
class event {
 public:
  constexpr event() noexcept = default;
  explicit constexpr event(bool begins_set) noexcept
      : waiting_{detail::retirable_lock(begins_set ? is_set_now : 0), {}} {}
  event(const event&) = delete;
  event& operator=(const event&) = delete;

  // Sets it, and lets everybody go that waits. Never parks.
  void set() noexcept;
  // Takes it back. Whoever was let go stays so.
  void reset() noexcept { waiting_.lock.replace_retired(is_set_now, 0); }
  // Whether it is set now. One load.
  bool is_set() const noexcept { return waiting_.lock.peek() == is_set_now; }
  bool try_wait() const noexcept { return is_set(); }

  // Parks until it is set. Throws `cancelled`; the form with a code says so there, and returns false.
  void wait() { wait_deadline(detail::never); }
  bool wait(std::error_code& error) { return wait_deadline(detail::never, error); }
  // The same with a limit; false also when that passed first.
  template <class Rep, class Period>
  bool wait_for(std::chrono::duration<Rep, Period> d) {
    return wait_deadline(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  bool wait_until(const std::chrono::time_point<Clock, Duration>& tp) {
    return wait_deadline(detail::deadline_at(tp));
  }
  template <class Rep, class Period>
  bool wait_for(std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return wait_deadline(detail::deadline_after(d), error);
  }
  template <class Clock, class Duration>
  bool wait_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return wait_deadline(detail::deadline_at(tp), error);
  }

 private:
  static constexpr std::uint32_t is_set_now = 2;

  template <class... Code>
  bool wait_deadline(detail::nanoseconds_t deadline_ns, Code&... code) {
    return detail::perform([&](detail::worker* w) { return wait_from(w, deadline_ns); }, code...) ==
           detail::outcome::granted;
  }
  detail::outcome wait_from(detail::worker* w, detail::nanoseconds_t deadline_ns) noexcept;

  detail::wait_queue waiting_;
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE void event::set() noexcept {
  while (waiting_.lock.lock_unless_retired() != 0) {
    // Set already. The exchange publishes what this caller did before, to whoever finds the event set from now on.
    if (CONCUR_MUTANT_IS(124) || waiting_.lock.replace_retired(is_set_now, is_set_now)) return;
  }
  detail::ended_waits woken;
  if (CONCUR_MUTANT_IS(123)) {
    if (detail::waiter* note = detail::pop_claimed(waiting_.parties)) {
      note->who->result = detail::outcome::granted;
      detail::party* who = note->who;
      waiting_.lock.retire(is_set_now);
      detail::resume(who);
      return;
    }
  }
  if (CONCUR_MUTANT_IS(284)) {
    waiting_.lock.retire(is_set_now);
    for (unsigned round = 0; round < 12;) detail::spin_wait(round);
  }
  woken.take_all(waiting_.parties, detail::outcome::granted);
  if (!CONCUR_MUTANT_IS(284)) waiting_.lock.retire(is_set_now);  // V2
  woken.resume_all();
}

CONCUR_INLINE detail::outcome event::wait_from(detail::worker* w, detail::nanoseconds_t deadline_ns) noexcept {
  const detail::outcome result = waiting_.wait_until_retired(w, deadline_ns, detail::wait_reason::event_wait);
  if (CONCUR_MUTANT_IS(122) && result == detail::outcome::granted && !is_set())
    return wait_from(detail::this_worker(), deadline_ns);
  return result;
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// sync/once.hpp - a function that is to run once, whoever comes first.
//
// The first caller runs its function, the others wait for it; afterwards a call is one load. If the function throws, or
// the fiber that runs it is cancelled, nothing has been done: the next in line runs its own. The state is the queue's lock
// and who runs (retirable_lock.hpp, K3):
//
//     lock       runner    meaning                             next
//     0, 1       null      nothing done, nobody runs           runs, by the first call
//     0, 1       set       it runs; others queue               done · the first in the queue runs · null, nobody queues
//     is_done    -         it was done, for ever
//
//   N1  The runner is handed on under the lock, to a waiter that was claimed: there is never a moment in which somebody
//       queues and nobody runs.
//   N2  Retiring the lock is the last touch of the call that ran the function: a flag may go when any call has returned
//       and no other is under way.

#include <tuple>

CONCUR_NAMESPACE_BEGIN

class once_flag {
 public:
  constexpr once_flag() noexcept = default;
  once_flag(const once_flag&) = delete;
  once_flag& operator=(const once_flag&) = delete;

 private:
  template <class F, class... Args>
  friend void call_once(once_flag& flag, F&& f, Args&&... args);
  template <class F, class... Args>
  friend bool call_once(once_flag& flag, std::error_code& error, F&& f, Args&&... args);

  static constexpr std::uint32_t is_done_now = 2;

  // A call in which the caller's function is to run: unless it was done, the next one's turn comes (N1).
  class turn {
   public:
    explicit turn(once_flag& flag) noexcept : flag_(flag) {}
    ~turn() {
      if (!is_done_) flag_.pass_on();
    }
    turn(const turn&) = delete;
    turn& operator=(const turn&) = delete;
    void end() noexcept {
      is_done_ = true;
      flag_.finish();
    }

   private:
    once_flag& flag_;
    bool is_done_ = false;
  };

  bool is_done() const noexcept { return waiting_.lock.peek() == is_done_now; }
  // granted: it was done. retry: the caller runs its function. Or cancelled. From the caller's checkpoint on.
  detail::outcome begin(detail::worker* w);
  template <class F, class... Args>
  void run(F&& f, Args&&... args) {
    turn mine(*this);
    std::apply(std::forward<F>(f), std::forward_as_tuple(std::forward<Args>(args)...));
    mine.end();
  }
  void finish() noexcept;
  void pass_on() noexcept;

  const void* runner_ = nullptr;  // the fiber's block, or something that is the thread's own; under the lock
  detail::wait_queue waiting_;
};

// Runs f(args...) unless a call with this flag has already returned from its function; waits for one that is under way.
// What the function throws passes through, and leaves the flag unset. Throws `cancelled`, if it is not done yet, and
// std::logic_error when the caller's own function, on this fiber or thread, is what it would wait for. The end of the
// function that was done happens before the return of every call. A call that finds it done is one load, and no checkpoint.
template <class F, class... Args>
void call_once(once_flag& flag, F&& f, Args&&... args) {
  if (CONCUR_LIKELY(flag.is_done())) return;
  const detail::outcome result = detail::perform([&](detail::worker* w) { return flag.begin(w); });
  if (result == detail::outcome::retry) flag.run(std::forward<F>(f), std::forward<Args>(args)...);
}
// The same, but a cancellation is said in the code. False then: nothing was called, and it is not known to be done. The
// code stands before the function, whose arguments come last, and is set before that is called.
template <class F, class... Args>
bool call_once(once_flag& flag, std::error_code& error, F&& f, Args&&... args) {
  error.clear();
  if (CONCUR_LIKELY(flag.is_done())) return true;
  const detail::outcome result = detail::perform([&](detail::worker* w) { return flag.begin(w); }, error);
  if (result == detail::outcome::retry) flag.run(std::forward<F>(f), std::forward<Args>(args)...);
  return result != detail::outcome::cancelled;
}

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE detail::outcome once_flag::begin(detail::worker* w) {
  detail::caller me(w);
  const void* self = w != nullptr ? static_cast<const void*>(w->current) : detail::thread_identity();
  if (waiting_.lock.lock_unless_retired() != 0) return detail::outcome::granted;
  if (runner_ == nullptr) {
    runner_ = self;
    waiting_.lock.unlock();
    return detail::outcome::retry;
  }
  if (runner_ == self && !CONCUR_MUTANT_IS(128)) {
    waiting_.lock.unlock();
    detail::fail_logic("concur::call_once: the function calls call_once with its own flag, and would wait for itself");
  }
  return waiting_.wait(me, const_cast<void*>(self), detail::never, detail::wait_reason::once_wait);
}

CONCUR_INLINE void once_flag::finish() noexcept {
  detail::ended_waits woken;
  waiting_.lock.lock();
  woken.take_all(waiting_.parties, detail::outcome::granted);
  waiting_.lock.retire(is_done_now);  // N2
  woken.resume_all();
}

CONCUR_INLINE void once_flag::pass_on() noexcept {
  detail::party* heir = nullptr;
  {
    detail::lock_scope<spin_lock> held(waiting_.lock);
    runner_ = nullptr;
    detail::waiter* note = CONCUR_MUTANT_IS(127) ? nullptr : detail::pop_claimed(waiting_.parties);
    if (note != nullptr) {
      heir = note->who;
      heir->result = detail::outcome::retry;
      runner_ = CONCUR_MUTANT_IS(138) ? nullptr : note->value;
    }
  }
  if (heir != nullptr) detail::resume(heir);
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// sync/resource_pool.hpp - a few things that many want in turn: connections, handles, large buffers.
//
// A database takes so many connections and no more; opening one takes long; a broken one must not come back. The pool
// hands out what it has, makes what it may, and lets the others wait in line. What a caller holds is a lease, which gives
// the thing back when it goes.
//
// `alive` counts places: things that are idle, on lease, or being made. What a waiter is given is a thing, or a place in
// which it makes one itself, without the lock.
//
//     given back                     goes to                     if nobody waits
//     a thing                        the first waiter            the idle ones, newest first out
//     a place (discarded, or the     the first waiter, which     alive is one less
//     factory threw)                 makes a fresh one
//     anything, to a closed pool     nobody: it is destroyed
//
//   C1  Whenever somebody waits, nothing is idle and no thing may be made: what comes free goes to the first in line, never
//       past it. So the order is strictly first in, first out.
//   C2  What is given goes to a waiter that was claimed, under the lock (W4): one that timed out or was cancelled has been
//       given nothing, and nothing is lost with it.
//   C3  Pool and leases share the state, and the last of them frees it: a lease may outlive its pool.
//   C4  The factory and the destructors of things run without the lock.

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct pool_item {
  pool_item* next = nullptr;  // of the idle ones
};

// The part that does not depend on the things' type.
class pool_core {
 public:
  pool_core(std::size_t capacity, bool can_make);

  // Parks until there is something. granted: an item, or null for a place. Else closed, timed_out or cancelled. From the
  // caller's checkpoint on.
  outcome take(worker* w, pool_item*& item, nanoseconds_t deadline_ns) noexcept;
  // The same without parking; false when there is nothing.
  bool try_take(pool_item*& item) noexcept;
  // False: the pool is closed, the place is gone, and the caller destroys the item.
  bool give(pool_item* item) noexcept;
  void give_place() noexcept;
  // A place for a thing that the caller brings. Throws std::logic_error when there is none, or the pool is closed.
  void take_place();
  // Lets everybody go, and returns the idle ones for the caller to destroy.
  pool_item* close() noexcept;

  std::size_t capacity() const noexcept { return capacity_; }
  std::size_t size() noexcept;
  std::size_t idle() noexcept;
  bool is_closed() noexcept;

 private:
  bool take_free(pool_item*& item) noexcept;
  bool hand_over(pool_item* item, party*& next) noexcept;

  wait_queue waiting_;
  pool_item* idle_ = nullptr;
  std::size_t idle_count_ = 0;
  std::size_t alive_ = 0;
  const std::size_t capacity_;
  const bool can_make_;
  bool is_closed_ = false;
};

[[noreturn]] CONCUR_INLINE void fail_pool_closed();

}  // namespace detail

// What is done to a thing before it is given back happens before its next lease. The pool may be destroyed while leases
// are out, and while others wait: it closes then.
template <class T>
class resource_pool {
  struct item : detail::pool_item {
    explicit item(T&& from) : value(std::move(from)) {}
    explicit item(detail::maker<T>& from) : value(from.make()) {}
    T value;
  };
  struct state {
    state(std::size_t capacity, std::unique_ptr<detail::maker<T>> factory_in)
        : core(capacity, factory_in != nullptr), factory(std::move(factory_in)) {}
    detail::pool_core core;
    std::unique_ptr<detail::maker<T>> factory;
  };

 public:
  // One thing of the pool, or none. Gives it back when destroyed; use it in one fiber or thread at a time.
  class lease {
   public:
    lease() noexcept = default;
    lease(lease&& other) noexcept : state_(std::move(other.state_)), item_(std::exchange(other.item_, nullptr)) {}
    lease& operator=(lease&& other) noexcept {
      lease taken(std::move(other));
      std::swap(state_, taken.state_);
      std::swap(item_, taken.item_);
      return *this;
    }
    ~lease() { give_back(); }

    explicit operator bool() const noexcept { return item_ != nullptr; }
    T& operator*() const noexcept { return item_->value; }
    T* operator->() const noexcept { return std::addressof(item_->value); }
    T* get() const noexcept { return item_ != nullptr ? std::addressof(item_->value) : nullptr; }

    // Ends the lease now. Nothing happens to an empty one.
    void give_back() noexcept {
      if (item_ == nullptr) return;
      item* mine = std::exchange(item_, nullptr);
      if (!state_->core.give(mine)) delete mine;
      state_.reset();
    }
    // Destroys the thing, which is broken: a pool with a factory makes a fresh one when one is wanted, another has one less
    // until add() brings one. Nothing happens to an empty one.
    void discard() noexcept {
      if (item_ == nullptr) return;
      delete std::exchange(item_, nullptr);
      state_->core.give_place();
      state_.reset();
    }

   private:
    friend class resource_pool;
    lease(std::shared_ptr<state> whose, item* what) noexcept : state_(std::move(whose)), item_(what) {}

    std::shared_ptr<state> state_;
    item* item_ = nullptr;
  };

  // At most `capacity` things, which add() brings. Throws std::invalid_argument if that is zero.
  explicit resource_pool(std::size_t capacity) : state_(std::make_shared<state>(capacity, nullptr)) {}
  // At most `capacity` things, made by factory() when one is wanted and none is idle; by the one that wants it, several at
  // once if several do. What the factory throws passes through acquire, and its place goes to the next in line.
  template <class F>
  resource_pool(std::size_t capacity, F&& factory)
      : state_(std::make_shared<state>(capacity, detail::new_maker<T>(std::forward<F>(factory)))) {}
  // The elements of a container, moved out of it; its size is the capacity.
  template <class Items, class = decltype(std::declval<Items&>().begin())>
  explicit resource_pool(Items items) : resource_pool(items.size()) {
    for (T& one : items) add(std::move(one));
  }
  resource_pool(const resource_pool&) = delete;
  resource_pool& operator=(const resource_pool&) = delete;
  ~resource_pool() { close(); }

  // Brings a thing: for the first in line, or to lie idle. Throws std::logic_error, and takes nothing, when the pool is
  // full or closed.
  void add(const T& thing) { add(T(thing)); }
  void add(T&& thing) {
    state_->core.take_place();
    place mine(*state_);
    item* fresh = new item(std::move(thing));
    mine.keep();
    if (!state_->core.give(fresh)) delete fresh;
  }

  // Parks until there is a thing, or a place to make one. Throws `cancelled`, std::logic_error when the pool is closed, and
  // what the factory throws. The forms with a code, here and below, give an empty lease when they are cancelled, which the
  // code says, and also when the pool is closed, with the code clear.
  [[nodiscard]] lease acquire() { return acquire_deadline(detail::never); }
  [[nodiscard]] lease acquire(std::error_code& error) { return acquire_deadline(detail::never, error); }
  // The same with a limit to the wait, not to the factory: an empty lease when that passed first.
  template <class Rep, class Period>
  [[nodiscard]] lease acquire_for(std::chrono::duration<Rep, Period> d) {
    return acquire_deadline(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  [[nodiscard]] lease acquire_until(const std::chrono::time_point<Clock, Duration>& tp) {
    return acquire_deadline(detail::deadline_at(tp));
  }
  template <class Rep, class Period>
  [[nodiscard]] lease acquire_for(std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return acquire_deadline(detail::deadline_after(d), error);
  }
  template <class Clock, class Duration>
  [[nodiscard]] lease acquire_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return acquire_deadline(detail::deadline_at(tp), error);
  }
  // An empty lease when there is nothing now, or the pool is closed. Does not wait, but may call the factory.
  [[nodiscard]] lease try_acquire() {
    detail::pool_item* got = nullptr;
    std::shared_ptr<state> s = state_;
    if (!s->core.try_take(got)) return lease();
    return lease_of(std::move(s), got);
  }

  // Destroys what is idle, and what comes back later; who waits, or comes later, is told so. Again: nothing.
  void close() noexcept {
    detail::pool_item* left = state_->core.close();
    while (left != nullptr) delete static_cast<item*>(std::exchange(left, left->next));
  }
  bool closed() const noexcept { return state_->core.is_closed(); }
  std::size_t capacity() const noexcept { return state_->core.capacity(); }
  // How many there are: idle, on lease, or being made.
  std::size_t size() const noexcept { return state_->core.size(); }
  std::size_t idle() const noexcept { return state_->core.idle(); }

 private:
  // Holds a place until there is a thing in it; gives it back when making one fails.
  class place {
   public:
    explicit place(state& whose) noexcept : whose_(&whose) {}
    ~place() {
      if (whose_ != nullptr) whose_->core.give_place();
    }
    place(const place&) = delete;
    place& operator=(const place&) = delete;
    void keep() noexcept { whose_ = nullptr; }

   private:
    state* whose_;
  };

  static lease lease_of(std::shared_ptr<state> s, detail::pool_item* got) {
    if (got != nullptr) return lease(std::move(s), static_cast<item*>(got));
    place mine(*s);
    item* fresh = new item(*s->factory);
    mine.keep();
    return lease(std::move(s), fresh);
  }

  template <class... Code>
  lease acquire_deadline(detail::nanoseconds_t deadline_ns, Code&... code) {
    std::shared_ptr<state> s = state_;  // the pool may go while we wait (C3)
    detail::pool_item* got = nullptr;
    const auto take_from = [&](detail::worker* w) { return s->core.take(w, got, deadline_ns); };
    const detail::outcome result = detail::perform(take_from, code...);
    if (sizeof...(code) == 0 && result == detail::outcome::closed) detail::fail_pool_closed();
    if (result != detail::outcome::granted) return lease();
    return lease_of(std::move(s), got);
  }

  std::shared_ptr<state> state_;
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void fail_pool_closed() {
  fail_logic("concur::resource_pool: the pool is closed; nothing is to be had from it any more");
}

CONCUR_INLINE pool_core::pool_core(std::size_t capacity, bool can_make) : capacity_(capacity), can_make_(can_make) {
  if (capacity == 0) fail_argument("concur::resource_pool", "capacity", "0", "a pool holds at least one thing");
}

CONCUR_INLINE bool pool_core::take_free(pool_item*& item) noexcept {
  if (idle_ != nullptr) {
    item = idle_;
    idle_ = idle_->next;
    --idle_count_;
    return true;
  }
  if (!can_make_ || alive_ == capacity_) return false;
  ++alive_;
  item = nullptr;
  return true;
}

CONCUR_INLINE outcome pool_core::take(worker* w, pool_item*& item, nanoseconds_t deadline_ns) noexcept {
  caller me(w);
  waiting_.lock.lock();
  if (is_closed_ || take_free(item)) {
    const outcome result = is_closed_ ? outcome::closed : outcome::granted;
    waiting_.lock.unlock();
    return result;
  }
  return waiting_.wait(me, &item, deadline_ns, wait_reason::pool_acquire);
}

CONCUR_INLINE bool pool_core::try_take(pool_item*& item) noexcept {
  lock_scope<spin_lock> held(waiting_.lock);
  return !is_closed_ && take_free(item);
}

// To the first in line, if there is one (C2). Under the lock; the caller resumes `next` after it.
CONCUR_INLINE bool pool_core::hand_over(pool_item* item, party*& next) noexcept {
  waiter* note = CONCUR_MUTANT_IS(129) ? waiting_.parties.pop_front() : pop_claimed(waiting_.parties);
  if (note == nullptr) return false;
  *static_cast<pool_item**>(note->value) = item;
  if (CONCUR_MUTANT_IS(129) && !note->claim()) return true;
  next = note->who;
  next->result = outcome::granted;
  return true;
}

CONCUR_INLINE bool pool_core::give(pool_item* item) noexcept {
  party* next = nullptr;
  {
    lock_scope<spin_lock> held(waiting_.lock);
    if (is_closed_ && !CONCUR_MUTANT_IS(131)) {
      --alive_;
      return false;
    }
    if (!hand_over(item, next)) {
      item->next = idle_;
      idle_ = item;
      ++idle_count_;
    }
  }
  if (next != nullptr) resume(next);
  return true;
}

CONCUR_INLINE void pool_core::give_place() noexcept {
  party* next = nullptr;
  {
    lock_scope<spin_lock> held(waiting_.lock);
    if (!can_make_ || CONCUR_MUTANT_IS(130) || !hand_over(nullptr, next)) --alive_;
  }
  if (next != nullptr) resume(next);
}

CONCUR_INLINE void pool_core::take_place() {
  bool is_full = false;
  {
    lock_scope<spin_lock> held(waiting_.lock);
    is_full = alive_ == capacity_;
    if (!is_closed_ && !is_full) {
      ++alive_;
      return;
    }
  }
  if (!is_full) fail_pool_closed();
  fail_logic("concur::resource_pool::add: the pool is full; construct it with a larger capacity");
}

CONCUR_INLINE pool_item* pool_core::close() noexcept {
  ended_waits woken;
  pool_item* left = nullptr;
  {
    lock_scope<spin_lock> held(waiting_.lock);
    is_closed_ = true;
    left = std::exchange(idle_, nullptr);
    alive_ -= std::exchange(idle_count_, 0);
    woken.take_all(waiting_.parties, outcome::closed);
  }
  woken.resume_all();
  return left;
}

CONCUR_INLINE std::size_t pool_core::size() noexcept {
  lock_scope<spin_lock> held(waiting_.lock);
  return alive_;
}

CONCUR_INLINE std::size_t pool_core::idle() noexcept {
  lock_scope<spin_lock> held(waiting_.lock);
  return idle_count_;
}

CONCUR_INLINE bool pool_core::is_closed() noexcept {
  lock_scope<spin_lock> held(waiting_.lock);
  return is_closed_;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// channel/tick_source.hpp - when a timed channel has its next value, without anything running until then.
//
// after(d) and tick(d) give channels on which a moment of time arrives by itself. No fiber, thread or timer stands
// behind them: the channel knows when its next tick is due, and whoever receives, or selects, looks at the clock. A
// receiver that has to wait waits until that moment at the latest. So a timed channel that nobody reads costs nothing,
// holds nothing up, and has nothing to be stopped; and a slow reader finds one tick, however many are past.

CONCUR_NAMESPACE_BEGIN

// What arrives on timed channels.
using time_point = std::chrono::steady_clock::time_point;

namespace detail {

// Only channels of time points can have ticks; for all others this is empty.
template <class T>
struct tick_source {
  static constexpr bool is_possible = false;
  static constexpr nanoseconds_t next_ns() noexcept { return never; }
};

template <>
struct tick_source<time_point> {
 public:
  static constexpr bool is_possible = true;

  // never: there are no ticks.
  nanoseconds_t next_ns() const noexcept { return next_ns_; }
  // period 0: one tick only.
  void set(nanoseconds_t first_ns, nanoseconds_t period_ns) noexcept {
    next_ns_ = first_ns;
    period_ns_ = period_ns;
  }
  // The last tick that is due at `now`, which is not before next_ns. Those before it are dropped.
  time_point take(nanoseconds_t now) noexcept {
    const nanoseconds_t missed = period_ns_ > 0 ? (now - next_ns_) / period_ns_ : 0;
    const nanoseconds_t tick = next_ns_ + missed * period_ns_;
    next_ns_ = period_ns_ > 0 ? saturating_add(tick, period_ns_) : never;
    return time_point(std::chrono::duration_cast<time_point::duration>(std::chrono::nanoseconds(tick)));
  }

 private:
  nanoseconds_t next_ns_ = never;
  nanoseconds_t period_ns_ = 0;
};

}  // namespace detail
CONCUR_NAMESPACE_END

// channel/channel_core.hpp - what the handles of one channel share: the ring, the two queues, and the operations on
// them.
//
// A channel is a lock, a ring of at most `capacity` values, and two queues: receivers that found it empty, and
// senders that found it full. Whoever comes when the other side waits serves it directly: the value goes from frame
// to frame and never through the ring, and the one served runs next on this worker.
//
//   H1  Receivers wait only while the ring is empty and no sender waits; senders only while the ring is full and no
//       receiver waits.
//   H2  A value is moved under the lock, after the claim of the waiter it goes to or comes from (waiter.hpp, W4). So
//       a receive that was cancelled or timed out has lost nothing, and a send that was has its value still.
//   H3  When a receiver makes room in a full ring, the longest waiting sender's value moves into it in the same step:
//       the order is that of the sends.
//   H4  Closing takes all waiters off at once: receivers find the ring empty (H1), senders keep their values.
//   H5  A move that throws in the middle of a hand-off gives the claimed waiter back with `retry`; it then tries by
//       itself, and the exception goes to whose value it was.
//   H6  The ticks of a timed channel (tick_source.hpp) come into being when somebody looks: a receiver that waits sets
//       its deadline to the next one, and looks again then.
//
// The shape (direct hand-off, one lock, two queues) is that of Go's chan.go, and goes back to Hoare's rendezvous.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// As a deadline: do not park.
inline constexpr nanoseconds_t without_parking = long_ago;

// What one step of an operation came to.
enum class attempt : unsigned char {
  done,
  closed,
  blocked,  // it would have to wait
  again,    // a value went back to its sender, and nothing was done
};

template <class T>
class channel_core {
 public:
  // Null when memory is exhausted.
  static channel_core* make(std::size_t capacity) noexcept {
    if (capacity > static_cast<std::size_t>(-1) / sizeof(T) / 2) return nullptr;
    T* ring = nullptr;
    if (capacity != 0) {
      ring = static_cast<T*>(::operator new(capacity * sizeof(T), std::align_val_t(alignof(T)), std::nothrow));
      if (ring == nullptr) return nullptr;
    }
    channel_core* made = new (std::nothrow) channel_core(ring, capacity);
    if (made == nullptr) ::operator delete(static_cast<void*>(ring), std::align_val_t(alignof(T)));
    return made;
  }

  void hold() noexcept {
    handles_.fetch_add(1, std::memory_order_relaxed);  // relaxed: the holder of a handle makes another
  }
  void release() noexcept {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(262) ? std::memory_order_relaxed : std::memory_order_acq_rel;
    if (handles_.fetch_sub(1, order) == 1) delete this;  // acq_rel: what any handle did happens before the end
  }

  // Moves from `value` exactly when it returns granted. closed, timed_out or cancelled otherwise; without a code, throws
  // when it is cancelled.
  template <class... Code>
  outcome send(T& value, nanoseconds_t deadline_ns, Code&... code) {
    return perform([&](worker* w) CONCUR_ALWAYS_INLINED { return send_from(w, value, deadline_ns); }, code...);
  }
  // Without parking.
  outcome try_send(T& value) { return send_from(this_worker(), value, without_parking); }

  // Fills the slot exactly when it returns granted. closed (and drained), timed_out or cancelled otherwise, as send.
  template <class... Code>
  outcome receive(std::optional<T>& slot, nanoseconds_t deadline_ns, Code&... code) {
    return perform([&](worker* w) CONCUR_ALWAYS_INLINED { return receive_from(w, slot, deadline_ns); }, code...);
  }
  outcome try_receive(std::optional<T>& slot) { return receive_from(this_worker(), slot, without_parking); }

  // False: it was closed before.
  bool close() noexcept {
    ended_waits woken;
    {
      lock_scope<spin_lock> held(lock_);
      if (is_closed_) return false;
      is_closed_ = true;
      for (intrusive_list<waiter>* queue : {&receivers_, &senders_}) {
        if (CONCUR_MUTANT_IS(60) && queue == &senders_) break;
        woken.take_all(*queue, outcome::closed);
      }
    }
    woken.resume_all();
    return true;
  }

  bool is_closed() noexcept {
    lock_scope<spin_lock> held(lock_);
    return is_closed_;
  }
  std::size_t size() noexcept {
    lock_scope<spin_lock> held(lock_);
    take_tick();
    return count_;
  }
  std::size_t capacity() const noexcept { return capacity_; }

  // Only for a channel of time points with room for one.
  void set_ticks(nanoseconds_t first_ns, nanoseconds_t period_ns) noexcept {
    {
      lock_scope<spin_lock> held(lock_);
      ticks_.set(first_ns, period_ns);
    }
    wake_receivers();
  }

  // --- the same step by step, for who holds the locks of several channels ---

  retirable_lock& lock() noexcept { return lock_; }
  intrusive_list<waiter>& receivers() noexcept { return receivers_; }
  intrusive_list<waiter>& senders() noexcept { return senders_; }
  nanoseconds_t next_tick_ns() const noexcept { return ticks_.next_ns(); }

  // Whether a step would come to something else than `blocked`.
  bool can_send() noexcept { return is_closed_ || count_ < capacity_ || has_claimable(receivers_); }
  bool can_receive() noexcept {
    take_tick();
    return count_ != 0 || is_closed_ || has_claimable(senders_);
  }

  // `served`, if it is set, is to be resumed when the lock is dropped, also when an exception comes out.
  CONCUR_FORCE_INLINE attempt send_step(T& value, party*& served) noexcept(moves_quietly) {
    if (CONCUR_UNLIKELY(is_closed_)) return attempt::closed;
    if (waiter* receiver = pop_claimed(receivers_)) {
      served = receiver->who;
      served->result = outcome::retry;  // if the move throws (H5)
      static_cast<std::optional<T>*>(receiver->value)->emplace(std::move(value));
      served->result = outcome::granted;
      return attempt::done;
    }
    if (count_ == capacity_) return attempt::blocked;
    ::new (static_cast<void*>(&ring_[after(first_, count_)])) T(std::move(value));
    ++count_;
    return attempt::done;
  }

  CONCUR_FORCE_INLINE attempt receive_step(std::optional<T>& slot, party*& served) noexcept(moves_quietly) {
    take_tick();
    if (count_ != 0) {
      take(slot, served);
      return attempt::done;
    }
    if (waiter* sender = pop_claimed(senders_)) {
      served = sender->who;
      const bool is_moved = emplace_quietly(slot, *static_cast<T*>(sender->value));
      served->result = is_moved ? outcome::granted : outcome::retry;  // (H5)
      return is_moved ? attempt::done : attempt::again;
    }
    return CONCUR_UNLIKELY(is_closed_) ? attempt::closed : attempt::blocked;
  }

 private:
  static constexpr bool moves_quietly = std::is_nothrow_move_constructible<T>::value;

  // From the caller's checkpoint on.
  CONCUR_FORCE_INLINE outcome send_from(worker* w, T& value, nanoseconds_t deadline_ns) {
    for (;; w = this_worker()) {
      {
        moment now(lock_, w);
        const attempt result = send_step(value, now.served);
        if (CONCUR_LIKELY(result == attempt::done)) return outcome::granted;
        if (result == attempt::closed) return outcome::closed;
        if (has_no_time(deadline_ns)) return outcome::timed_out;
        now.keep_lock();
      }
      const outcome result = wait<wait_reason::channel_send>(w, &value, deadline_ns);
      if (CONCUR_LIKELY(result != outcome::retry)) return result;
    }
  }

  CONCUR_FORCE_INLINE outcome receive_from(worker* w, std::optional<T>& slot, nanoseconds_t deadline_ns) {
    for (;; w = this_worker()) {
      {
        moment now(lock_, w);
        const attempt result = receive_step(slot, now.served);
        if (CONCUR_LIKELY(result == attempt::done)) return outcome::granted;
        if (result == attempt::again) continue;
        if (result == attempt::closed) return outcome::closed;
        if (has_no_time(deadline_ns)) return outcome::timed_out;
        now.keep_lock();
      }
      const nanoseconds_t soonest_ns = earlier(deadline_ns, ticks_.next_ns());
      const outcome result = wait<wait_reason::channel_recv>(w, &slot, soonest_ns);
      if (CONCUR_LIKELY(result == outcome::granted)) return result;
      if (result == outcome::retry || (tick_source<T>::is_possible && result == outcome::timed_out)) continue;
      return result;
    }
  }

  // The lock for one moment of an operation. Who was served goes on when it is dropped.
  struct moment {
    moment(spin_lock& l, worker* w_in) noexcept : lock(&l), w(w_in) { lock->lock(); }
    CONCUR_FORCE_INLINE ~moment() {
      if (CONCUR_UNLIKELY(lock == nullptr)) return;
      lock->unlock();
      if (served != nullptr) resume_near(w, served);
    }
    moment(const moment&) = delete;
    moment& operator=(const moment&) = delete;
    void keep_lock() noexcept { lock = nullptr; }

    spin_lock* lock;
    worker* w;
    party* served = nullptr;
  };

  // Under the lock: a tick that is due becomes a value, unless one lies there already.
  void take_tick() noexcept {
    if constexpr (tick_source<T>::is_possible) {
      if (CONCUR_LIKELY(ticks_.next_ns() == never) || is_closed_) return;
      const nanoseconds_t now = now_ns();
      if (ticks_.next_ns() > now) return;
      const T tick = ticks_.take(now);
      if (count_ == capacity_) return;
      ::new (static_cast<void*>(&ring_[after(first_, count_)])) T(tick);
      ++count_;
    }
  }
  // They look again, at the new times.
  void wake_receivers() noexcept {
    ended_waits woken;
    {
      lock_scope<spin_lock> held(lock_);
      woken.take_all(receivers_, outcome::retry);
    }
    woken.resume_all();
  }

  channel_core(T* ring, std::size_t capacity) noexcept : ring_(ring), capacity_(capacity) {}
  ~channel_core() {
    for (; count_ != 0; --count_) {
      ring_[first_].~T();
      first_ = after(first_, 1);
    }
    ::operator delete(static_cast<void*>(ring_), std::align_val_t(alignof(T)));
  }

  std::size_t after(std::size_t index, std::size_t n) const noexcept {
    const std::size_t sum = index + n;
    return sum < capacity_ ? sum : sum - capacity_;
  }

  static bool has_no_time(nanoseconds_t deadline_ns) noexcept {
    if (CONCUR_LIKELY(deadline_ns == never)) return false;
    return deadline_ns == without_parking || deadline_ns <= now_ns();
  }

  static constexpr nanoseconds_t earlier(nanoseconds_t a, nanoseconds_t b) noexcept { return a < b ? a : b; }

  // Waits in one of the queues, with the lock held, which it drops. Not inlined: who need not wait saves no registers for
  // a switch. Fibers and threads apart, so that nothing of a fiber's wait is in memory that need not be.
  template <wait_reason reason>
  CONCUR_NOINLINE outcome wait(worker* w, void* value, nanoseconds_t deadline_ns) noexcept {
    intrusive_list<waiter>& queue = reason == wait_reason::channel_send ? senders_ : receivers_;
    if (CONCUR_UNLIKELY(w == nullptr || w->current == nullptr)) return wait_on_thread(queue, value, deadline_ns);
    waiter note(w->current, value);
    queue.push_back(&note);
    return withdraw(queue, note, park_fiber(w, &lock_, deadline_ns, reason));
  }
  CONCUR_NOINLINE outcome wait_on_thread(intrusive_list<waiter>& queue, void* value,
                                         nanoseconds_t deadline_ns) noexcept {
    caller me(nullptr);
    waiter note(me.who(), value);
    queue.push_back(&note);
    return withdraw(queue, note, me.park(&lock_, deadline_ns, wait_reason::none));
  }
  CONCUR_FORCE_INLINE outcome withdraw(intrusive_list<waiter>& queue, waiter& note, outcome result) noexcept {
    if (CONCUR_LIKELY(result != outcome::timed_out && result != outcome::cancelled)) return result;
    lock_scope<spin_lock> held(lock_);
    if (intrusive_list<waiter>::is_linked(&note) && !CONCUR_MUTANT_IS(62)) queue.erase(&note);
    return result;
  }

  // The oldest out of the ring, and the longest waiting sender's value in (H3).
  void take(std::optional<T>& slot, party*& served) noexcept(moves_quietly) {
    slot.emplace(std::move(ring_[first_]));
    ring_[first_].~T();
    first_ = after(first_, 1);
    --count_;
    if (waiter* sender = pop_claimed(senders_)) {
      served = sender->who;
      served->result = outcome::retry;
      if (CONCUR_MUTANT_IS(61)) return;
      if (move_quietly(&ring_[after(first_, count_)], *static_cast<T*>(sender->value))) {
        served->result = outcome::granted;
        ++count_;
      }
    }
  }

  static bool move_quietly(T* to, T& from) noexcept {
#if CONCUR_EXCEPTIONS
    if constexpr (!moves_quietly) {
      try {
        ::new (static_cast<void*>(to)) T(std::move(from));
        return true;
      } catch (...) {
        return false;
      }
    }
#endif
    ::new (static_cast<void*>(to)) T(std::move(from));
    return true;
  }
  static bool emplace_quietly(std::optional<T>& to, T& from) noexcept {
#if CONCUR_EXCEPTIONS
    try {
      to.emplace(std::move(from));
      return true;
    } catch (...) {
      return false;
    }
#else
    to.emplace(std::move(from));
    return true;
#endif
  }

  retirable_lock lock_;  // never retired: a select asks all its sites alike
  bool is_closed_ = false;
  atomic<std::uint32_t> handles_{1};
  T* ring_;
  std::size_t capacity_;
  std::size_t first_ = 0;
  std::size_t count_ = 0;
  intrusive_list<waiter> receivers_;
  intrusive_list<waiter> senders_;
  tick_source<T> ticks_;
};

}  // namespace detail
CONCUR_NAMESPACE_END

// channel/channel.hpp - the handle: values handed from one fiber or thread to another, in order, with a bound.
//
// A channel is copied like a pointer, and copies are the same channel, as in Go. A bound of 0 makes it a rendezvous;
// any other is how far the sender may run ahead. There is no unbounded one: a queue without a bound only hides that
// somebody is too slow.
//
//     operation      nil            open, can go               open, cannot go    closed
//     send           parks          passes the value on        parks              channel_closed, the value stays with the caller
//     recv           parks          takes the oldest           parks              what is buffered, then nothing
//     close          logic_error    wakes all who wait                            channel_closed

#include <iterator>

CONCUR_NAMESPACE_BEGIN

// What a timed operation came to. `cancelled` is said only by the forms that have a std::error_code for it.
enum class status : unsigned char { ok, closed, timeout, cancelled };

template <class T>
class channel;
template <class T>
class sender;
template <class T>
class receiver;

struct nil_t {
  explicit constexpr nil_t() = default;
};
// The channel on which nothing ever happens: sends and receives park until they are cancelled.
inline constexpr nil_t nil{};

namespace detail {

// What channel<T> and channel<void> share. Item is what is carried.
template <class Item>
class channel_handle {
 public:
  // Closes for good: parked receivers get nothing more, parked senders channel_closed. Throws channel_closed when it
  // is closed already, std::logic_error for a nil channel.
  void close() {
    if (core_ == nullptr)
      fail_logic("concur::channel::close: the channel is nil, so there is nothing to close; give it a channel first");
    if (!core_->close())
      fail_closed("concur::channel::close: the channel is closed already; where several may close it, use try_close()");
  }
  // The same without throwing: false when it was closed already, or is nil.
  bool try_close() noexcept { return core_ != nullptr && core_->close(); }

  bool closed() const noexcept { return core_ != nullptr && core_->is_closed(); }
  std::size_t size() const noexcept { return core_ != nullptr ? core_->size() : 0; }
  std::size_t capacity() const noexcept { return core_ != nullptr ? core_->capacity() : 0; }
  // Whether two handles are the same channel.
  friend bool operator==(const channel_handle& a, const channel_handle& b) noexcept { return a.core_ == b.core_; }
  friend bool operator!=(const channel_handle& a, const channel_handle& b) noexcept { return a.core_ != b.core_; }

 protected:
  explicit channel_handle(std::size_t capacity) : core_(channel_core<Item>::make(capacity)) {
    if (core_ == nullptr)
      fail_argument("concur::channel", "capacity", std::to_string(capacity), "there is no memory for so many values");
  }
  explicit channel_handle(nil_t) noexcept {}
  channel_handle(const channel_handle& other) noexcept : core_(other.core_) {
    if (core_ != nullptr) core_->hold();
  }
  channel_handle(channel_handle&& other) noexcept : core_(std::exchange(other.core_, nullptr)) {}
  channel_handle& operator=(const channel_handle& other) noexcept {
    channel_core<Item>* before = core_;
    core_ = other.core_;
    if (core_ != nullptr) core_->hold();
    if (before != nullptr) before->release();
    return *this;
  }
  channel_handle& operator=(channel_handle&& other) noexcept {
    channel_handle taken(std::move(other));
    std::swap(core_, taken.core_);
    return *this;
  }
  ~channel_handle() {
    if (core_ != nullptr) core_->release();
  }

  template <class... Code>
  outcome send_item(Item& item, nanoseconds_t deadline_ns, Code&... code) const {
    if (CONCUR_UNLIKELY(core_ == nullptr)) return wait_on_nil(deadline_ns, code...);
    return core_->send(item, deadline_ns, code...);
  }
  template <class... Code>
  outcome receive_item(std::optional<Item>& slot, nanoseconds_t deadline_ns, Code&... code) const {
    if (CONCUR_UNLIKELY(core_ == nullptr)) return wait_on_nil(deadline_ns, code...);
    return core_->receive(slot, deadline_ns, code...);
  }
  void must_send(Item& item) const {
    if (CONCUR_LIKELY(send_item(item, never) == outcome::granted)) return;
    fail_closed("concur::channel::send: the channel is closed");
  }
  bool try_send_item(Item& item) const { return core_ != nullptr && core_->try_send(item) == outcome::granted; }
  bool try_receive_item(std::optional<Item>& slot) const {
    return core_ != nullptr && core_->try_receive(slot) == outcome::granted;
  }
  static status to_status(outcome result) noexcept {
    if (result == outcome::cancelled) return status::cancelled;
    if (result == outcome::closed) return status::closed;
    return result == outcome::granted ? status::ok : status::timeout;
  }

 private:
  friend struct channel_access;

  template <class... Code>
  static outcome wait_on_nil(nanoseconds_t deadline_ns, Code&... code) {
    return perform([=](worker* w) { return caller(w).park(nullptr, deadline_ns, wait_reason::channel_recv); }, code...);
  }

  channel_core<Item>* core_ = nullptr;
};

struct signal_item {};

// For the parts that see the core of a handle: select and tickers.
struct channel_access {
  template <class Item>
  static channel_core<Item>* core_of(const channel_handle<Item>& handle) noexcept {
    return handle.core_;
  }
  // What an end is an end of.
  template <class T>
  static const channel<T>& channel_of(const sender<T>& end) noexcept {
    return end;
  }
  template <class T>
  static const channel<T>& channel_of(const receiver<T>& end) noexcept {
    return end;
  }
};

}  // namespace detail

// All members may be called from any fiber and any thread at once (the handle itself, like any variable, is not to be
// assigned while another uses it). A send happens before the receive that gets its value; the k-th receive on a
// channel of capacity C happens before the (k+C)-th send completes; a close happens before the receive that sees it.
// T is moved under a lock: its move constructor must not park. The forms with a std::error_code say there that the caller
// was cancelled, and do not throw for it, nor for a closed channel.
template <class T>
class channel : public detail::channel_handle<T> {
  using base = detail::channel_handle<T>;

 public:
  using value_type = T;

  // capacity 0: a rendezvous, in which a send ends when a receive has taken the value.
  explicit channel(std::size_t capacity = 0) : base(capacity) {}
  channel(nil_t n) noexcept : base(n) {}

  // Parks while the channel is full. Throws channel_closed or `cancelled`, and then has not moved from the value.
  void send(T&& value) { this->must_send(value); }
  void send(const T& value) {
    T copy(value);
    this->must_send(copy);
  }
  // False: cancelled, which the code says, or closed. The value has not been moved from then.
  bool send(T&& value, std::error_code& error) {
    return this->send_item(value, detail::never, error) == detail::outcome::granted;
  }
  bool send(const T& value, std::error_code& error) {
    T copy(value);
    return send(std::move(copy), error);
  }
  // Never parks. False: full, closed or nil, and the value is untouched.
  bool try_send(T& value) { return this->try_send_item(value); }
  bool try_send(T&& value) { return try_send(value); }
  // Parks until the deadline at most; the value is untouched unless it says ok. Throws `cancelled`.
  template <class Rep, class Period>
  status send_for(T& value, std::chrono::duration<Rep, Period> d) {
    return base::to_status(this->send_item(value, detail::deadline_after(d)));
  }
  template <class Clock, class Duration>
  status send_until(T& value, const std::chrono::time_point<Clock, Duration>& tp) {
    return base::to_status(this->send_item(value, detail::deadline_at(tp)));
  }
  template <class Rep, class Period>
  status send_for(T& value, std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return base::to_status(this->send_item(value, detail::deadline_after(d), error));
  }
  template <class Clock, class Duration>
  status send_until(T& value, const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return base::to_status(this->send_item(value, detail::deadline_at(tp), error));
  }

  // Parks while the channel is empty. Nothing, once it is closed and drained. Throws `cancelled`, and then has taken
  // no value.
  std::optional<T> recv() {
    std::optional<T> slot;
    this->receive_item(slot, detail::never);
    return slot;
  }
  std::optional<T> recv(std::error_code& error) {
    std::optional<T> slot;
    this->receive_item(slot, detail::never, error);
    return slot;
  }
  // Never parks. Nothing: it is empty, closed or not.
  std::optional<T> try_recv() {
    std::optional<T> slot;
    this->try_receive_item(slot);
    return slot;
  }
  // Parks until the deadline at most, and assigns to `value` when it says ok. Throws `cancelled`.
  template <class Rep, class Period>
  status recv_for(T& value, std::chrono::duration<Rep, Period> d) {
    return recv_deadline(value, detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  status recv_until(T& value, const std::chrono::time_point<Clock, Duration>& tp) {
    return recv_deadline(value, detail::deadline_at(tp));
  }
  template <class Rep, class Period>
  status recv_for(T& value, std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return recv_deadline(value, detail::deadline_after(d), error);
  }
  template <class Clock, class Duration>
  status recv_until(T& value, const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return recv_deadline(value, detail::deadline_at(tp), error);
  }

  // For `for (T v : ch)`: receives until the channel is closed and drained. Dereferencing moves the value out.
  class iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = T;
    using difference_type = std::ptrdiff_t;
    using pointer = T*;
    using reference = T&&;

    iterator() noexcept = default;
    explicit iterator(channel* source) : source_(source) { ++*this; }
    T&& operator*() { return std::move(*slot_); }
    T* operator->() { return &*slot_; }
    iterator& operator++() {
      slot_.reset();
      if (source_->receive_item(slot_, detail::never) != detail::outcome::granted) source_ = nullptr;
      return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const iterator& a, const iterator& b) noexcept { return a.source_ == b.source_; }
    friend bool operator!=(const iterator& a, const iterator& b) noexcept { return a.source_ != b.source_; }

   private:
    channel* source_ = nullptr;
    std::optional<T> slot_;
  };
  iterator begin() { return iterator(this); }
  iterator end() noexcept { return iterator(); }

 private:
  template <class... Code>
  status recv_deadline(T& value, detail::nanoseconds_t deadline_ns, Code&... code) {
    std::optional<T> slot;
    const status result = base::to_status(this->receive_item(slot, deadline_ns, code...));
    if (slot) value = std::move(*slot);
    return result;
  }
};

// Signals: something happened, and nothing is carried.
template <>
class channel<void> : public detail::channel_handle<detail::signal_item> {
  using base = detail::channel_handle<detail::signal_item>;

 public:
  using value_type = void;

  explicit channel(std::size_t capacity = 0) : base(capacity) {}
  channel(nil_t n) noexcept : base(n) {}

  // As for values.
  void send() {
    detail::signal_item item;
    this->must_send(item);
  }
  bool send(std::error_code& error) { return send_deadline(detail::never, error) == status::ok; }
  bool try_send() {
    detail::signal_item item;
    return this->try_send_item(item);
  }
  template <class Rep, class Period>
  status send_for(std::chrono::duration<Rep, Period> d) {
    return send_deadline(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  status send_until(const std::chrono::time_point<Clock, Duration>& tp) {
    return send_deadline(detail::deadline_at(tp));
  }
  template <class Rep, class Period>
  status send_for(std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return send_deadline(detail::deadline_after(d), error);
  }
  template <class Clock, class Duration>
  status send_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return send_deadline(detail::deadline_at(tp), error);
  }
  // True: a signal came. False: closed and drained, or cancelled, which the code says.
  bool recv() { return recv_deadline(detail::never) == status::ok; }
  bool recv(std::error_code& error) { return recv_deadline(detail::never, error) == status::ok; }
  bool try_recv() {
    std::optional<detail::signal_item> slot;
    return this->try_receive_item(slot);
  }
  template <class Rep, class Period>
  status recv_for(std::chrono::duration<Rep, Period> d) {
    return recv_deadline(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  status recv_until(const std::chrono::time_point<Clock, Duration>& tp) {
    return recv_deadline(detail::deadline_at(tp));
  }
  template <class Rep, class Period>
  status recv_for(std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return recv_deadline(detail::deadline_after(d), error);
  }
  template <class Clock, class Duration>
  status recv_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return recv_deadline(detail::deadline_at(tp), error);
  }

 private:
  template <class... Code>
  status send_deadline(detail::nanoseconds_t deadline_ns, Code&... code) {
    detail::signal_item item;
    return base::to_status(this->send_item(item, deadline_ns, code...));
  }
  template <class... Code>
  status recv_deadline(detail::nanoseconds_t deadline_ns, Code&... code) {
    std::optional<detail::signal_item> slot;
    return base::to_status(this->receive_item(slot, deadline_ns, code...));
  }
};

CONCUR_NAMESPACE_END

// channel/channel_ends.hpp - the two ends of a channel, for who should have only one.
//
// A function that takes a sender<T> says that it only sends, and the compiler holds it to that. Ends are made from a
// channel by themselves, are copied as cheaply, and are the same channel. The sending end closes; the receiving one
// cannot.

CONCUR_NAMESPACE_BEGIN

// Members: see channel.
template <class T>
class sender : private channel<T> {
 public:
  using typename channel<T>::value_type;

  sender(const channel<T>& ch) noexcept : channel<T>(ch) {}
  sender(channel<T>&& ch) noexcept : channel<T>(std::move(ch)) {}
  sender(nil_t n) noexcept : channel<T>(n) {}

  using channel<T>::send;
  using channel<T>::try_send;
  using channel<T>::send_for;
  using channel<T>::send_until;
  using channel<T>::close;
  using channel<T>::try_close;
  using channel<T>::closed;
  using channel<T>::size;
  using channel<T>::capacity;

  friend bool operator==(const sender& a, const sender& b) noexcept { return a.as_channel() == b.as_channel(); }
  friend bool operator!=(const sender& a, const sender& b) noexcept { return a.as_channel() != b.as_channel(); }

 private:
  friend struct detail::channel_access;
  const channel<T>& as_channel() const noexcept { return *this; }
};

template <class T>
class receiver : private channel<T> {
 public:
  using typename channel<T>::value_type;

  receiver(const channel<T>& ch) noexcept : channel<T>(ch) {}
  receiver(channel<T>&& ch) noexcept : channel<T>(std::move(ch)) {}
  receiver(nil_t n) noexcept : channel<T>(n) {}

  using channel<T>::recv;
  using channel<T>::try_recv;
  using channel<T>::recv_for;
  using channel<T>::recv_until;
  using channel<T>::closed;
  using channel<T>::size;
  using channel<T>::capacity;
  // for (T v : end), except for signals.
  auto begin() { return as_channel().begin(); }
  auto end() noexcept { return as_channel().end(); }

  friend bool operator==(const receiver& a, const receiver& b) noexcept { return a.as_channel() == b.as_channel(); }
  friend bool operator!=(const receiver& a, const receiver& b) noexcept { return a.as_channel() != b.as_channel(); }

 private:
  friend struct detail::channel_access;
  channel<T>& as_channel() noexcept { return *this; }
  const channel<T>& as_channel() const noexcept { return *this; }
};

template <class T>
sender(channel<T>) -> sender<T>;
template <class T>
receiver(channel<T>) -> receiver<T>;

CONCUR_NAMESPACE_END

// channel/select_case.hpp - one case of a select, as the select sees it.
//
// A select waits at several sites at once: channels, futures, descriptors. Each has a lock and a queue of waiters; what
// else it is, the select does not know. A case answers four questions, all under its site's lock: could you go now, go
// (unless somebody else was faster), wait in your queue, leave it.
//
//   X1  A case moves a value, or takes one, in take(), or by the hand of whoever claimed its note; never otherwise. So
//       the operands of a case that loses are untouched.
//   X2  A case is for one select at a time, and lives on the stack of who selects, or in a selector.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// What there is to ask a case of its kind; most are asked nothing of it.
struct case_traits {
  bool is_otherwise = false;
  bool prepares = false;      // prepare() does something
  bool has_deadline = false;  // deadline_ns() is not always never
};

class select_case {
 public:
  explicit select_case(case_traits kind_in = {}) noexcept : kind(kind_in) {}
  select_case& operator=(const select_case&) = delete;
  virtual ~select_case() = default;

  // Before each round, without any lock. What it finds must be looked at again under the lock.
  virtual void prepare() {}
  // Whether it could go now. `now` is the time, if the case has a deadline.
  virtual bool is_ready(nanoseconds_t now) noexcept = 0;
  // Goes. done; or blocked: somebody was faster; or again. `served` is to be resumed when the locks are dropped.
  virtual attempt take(party*& served) = 0;
  // Puts the note, which has its party, into the queue.
  virtual void enter() noexcept {}
  // Takes the note out, if it is there still.
  virtual void leave() noexcept {}
  // Somebody claimed the note, with this outcome: granted or closed. Without any lock. False: it was for nothing, and the
  // select begins again.
  virtual bool end(outcome) { return true; }
  // The user's function, with what was received.
  virtual void run() = 0;
  // After it went: it is not to go again.
  virtual bool is_spent() const noexcept { return false; }
  // The case outlives the expression that made it: it takes what it refers to.
  virtual void own() {}

  // When it may become ready by itself.
  virtual nanoseconds_t deadline_ns() const noexcept { return never; }

  // The lock of its site; null for a case that waits at no site, or is never ready.
  void set_site_lock(retirable_lock* lock) noexcept { site.lock = lock; }
  retirable_lock& site_lock() const noexcept { return static_cast<retirable_lock&>(*site.lock); }

  lock_chain site;          // which holds what set_site_lock says
  waiter note;              // while the select waits
  bool is_retired = false;  // the lock can no longer be had: what it guarded has happened
  bool is_candidate = false;
  case_traits kind;
  int descriptor = -1;  // what a plain thread has to watch, for a case without a site
  bool is_for_writing = false;

 protected:
  // A copy is a case that waits nowhere.
  select_case(const select_case& other) noexcept
      : kind(other.kind), descriptor(other.descriptor), is_for_writing(other.is_for_writing) {
    site.lock = other.site.lock;
  }
};

// A case without a site, that is ready from some moment on.
template <class F>
class timed_case final : public select_case {
 public:
  timed_case(nanoseconds_t deadline, F&& handler)
      : select_case(case_traits{false, false, true}), deadline_ns_(deadline), handler_(std::move(handler)) {}

  bool is_ready(nanoseconds_t now) noexcept override { return deadline_ns_ <= now; }
  attempt take(party*&) override { return attempt::done; }
  void run() override { handler_(); }
  bool is_spent() const noexcept override { return true; }
  nanoseconds_t deadline_ns() const noexcept override { return deadline_ns_; }

 private:
  nanoseconds_t deadline_ns_;
  F handler_;
};

template <class F>
class otherwise_case final : public select_case {
 public:
  explicit otherwise_case(F&& handler) : select_case(case_traits{true, false, false}), handler_(std::move(handler)) {}

  bool is_ready(nanoseconds_t) noexcept override { return false; }
  attempt take(party*&) override { return attempt::done; }
  void run() override { handler_(); }

 private:
  F handler_;
};

}  // namespace detail
CONCUR_NAMESPACE_END

// channel/select_poll.hpp - a plain thread that selects over descriptors and channels at once.
//
// A fiber leaves the descriptors to the reactor. A plain thread has no reactor: it sleeps in poll(), with a pipe among the
// descriptors. Who ends its wait at a channel writes a byte into that pipe instead of unparking it (caller.hpp,
// resume_thread). Pipe and list are made before any lock is taken, for both can fail.

#if CONCUR_BODIES

#  include <poll.h>

#  include <vector>

CONCUR_NAMESPACE_BEGIN
namespace detail {

class poll_room {
 public:
  // Throws std::system_error when there is no descriptor left for the pipe.
  poll_room(select_case* const* cases, unsigned count);
  ~poll_room() {
    ::close(wake_end_);
    ::close(all_[0].fd);
  }
  poll_room(const poll_room&) = delete;
  poll_room& operator=(const poll_room&) = delete;

  // As park_thread; timed_out as soon as a descriptor may be ready: everybody looks again.
  outcome park(thread_party& self, lock_chain* locks, nanoseconds_t deadline_ns) noexcept;

 private:
  // False: the deadline passed and nothing happened.
  bool wait(nanoseconds_t deadline_ns, std::size_t count) noexcept;

  std::vector<pollfd> all_;  // the pipe first
  int wake_end_ = -1;
};

CONCUR_INLINE poll_room::poll_room(select_case* const* cases, unsigned count) : all_(1) {
  for (unsigned i = 0; i < count; ++i) {
    const select_case& c = *cases[i];
    if (c.descriptor < 0) continue;
    all_.push_back({c.descriptor, static_cast<short>(c.is_for_writing ? POLLOUT : POLLIN), 0});
  }
  int ends[2];
  if (::pipe(ends) != 0) fail_system(errno, "concur::select: a pipe to wake a thread that waits for descriptors");
  for (const int end : ends) ::fcntl(end, F_SETFD, FD_CLOEXEC);
  all_[0] = {ends[0], POLLIN, 0};
  wake_end_ = ends[1];
}

CONCUR_INLINE bool poll_room::wait(nanoseconds_t deadline_ns, std::size_t count) noexcept {
  for (;;) {
    int timeout_ms = -1;
    if (deadline_ns != never) {
      constexpr nanoseconds_t longest_ns = 1'000'000'000'000;
      const nanoseconds_t now = now_ns();
      const nanoseconds_t rest_ns = deadline_ns <= now ? 0 : deadline_ns - now;
      timeout_ms = static_cast<int>(((rest_ns < longest_ns ? rest_ns : longest_ns) + 999'999) / 1'000'000);
    }
    if (::poll(all_.data(), nfds_t{count}, timeout_ms) > 0) return true;
    if (timeout_ms == 0) return false;
  }
}

CONCUR_INLINE outcome poll_room::park(thread_party& self, lock_chain* locks, nanoseconds_t deadline_ns) noexcept {
  const std::uint32_t ticket = self.next_ticket();
  self.wake_end = wake_end_;
  self.word.store(ticket, std::memory_order_release);  // release: publishes the notes and the pipe to whoever claims
  unlock_chain(locks);
  const bool is_woken = wait(deadline_ns, all_.size()) && all_[0].revents != 0;
  if (!is_woken && claim(self, ticket)) {
    self.wake_end = -1;
    return outcome::timed_out;
  }
  if (!is_woken) wait(never, 1);  // somebody claimed in the same moment, and its byte is on the way
  char byte = 0;
  static_cast<void>(!::read(all_[0].fd, &byte, 1));
  self.wake_end = -1;
  return self.result;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// channel/select.hpp - waits for whichever of several things can happen first, and does exactly that one.
//
//     select(recv(requests, [&](std::optional<request> r) { ... }),
//            send(results, value, [&] { ... }),
//            after(1s, [&] { ... }));
//
// A select is one moment: with the locks of all its sites held it looks which cases could go, and takes one of them,
// each with the same chance. If none can it leaves a note at every site and parks once, under one claim, so that exactly
// one site can end the wait; then it takes the other notes away.
//
//   E1  Sites are locked in the order of their addresses, so that selects over the same channels cannot wait for each
//       other in a ring. Several cases of one site share its lock.
//   E2  While all locks are held nothing can become ready. What was ready may be gone by the time it is taken, because
//       somebody's wait was ended elsewhere; then the choice is made again among the rest. So `otherwise` runs only if
//       nothing was ready in that moment.
//   E3  All notes carry the same ticket. The claimer marks the one it claimed by (waiter.hpp, W5).
//   E4  Notes are put in only when no case can go: a select that sends to and receives from one channel cannot meet
//       itself.
//   E5  The notes are in the queues before the locks are dropped, and the locks are dropped after the switch, by way of a
//       chain in this frame (suspend.hpp, S6). The frame stays until they all are: the select takes each lock again to
//       remove its note, but that of the site that ended its wait, which can have been only after that lock was dropped.
//   E6  Who comes while the select waits takes the first of its notes in the queue. Where one channel stands in several
//       cases, that one is up to chance as well; select_ordered puts them in their order.
//
// After Go's selectgo, which goes back to Newsqueak and Hoare's guarded commands.

CONCUR_NAMESPACE_BEGIN
namespace detail {

enum class select_order : unsigned char { random, first };

// The cases, and room for as many pointers.
struct select_list {
  select_case** cases;
  select_case** by_address;
  unsigned count;
  select_order order;
  nanoseconds_t deadline_ns;  // of the whole; never
  bool may_park;              // false: as if there was an `otherwise`
  std::error_code* error;     // where a cancellation is told; null: it is thrown
};

// granted: `chosen` is the index of the case that went; its function has not run. timed_out: none could, and the deadline
// passed or it may not park. Or cancelled.
CONCUR_INLINE outcome run_select(const select_list& list, int& chosen);

// In either form: whether a case went. The checkpoint is run_select's own, which looks first whether it may park at all.
inline bool perform_select(const select_list& list, int& chosen) {
  const outcome result = run_select(list, chosen);
  return (list.error != nullptr ? or_tell(result, *list.error) : or_throw(result)) == outcome::granted;
}

template <class... Cases>
int select_now(select_order order, std::error_code* error, Cases&... cases) {
  static_assert((std::is_base_of<select_case, Cases>::value && ...), "select takes cases: recv(channel, f), send(...)");
  constexpr unsigned count = sizeof...(cases);
  select_case* list[count + 1] = {&cases..., nullptr};
  select_case* by_address[count + 1];
  int chosen = -1;
  if (!perform_select({list, by_address, count, order, never, true, error}, chosen)) return -1;
  list[chosen]->run();
  return chosen;
}

}  // namespace detail

// Parks until one of the cases can go, does it, runs its function, and returns its index; which one, if several could, is
// up to chance. Cases: recv(ch, f), send(ch, value, f), after(d, f), at(tp, f), ready(future, f), readable(fd, f),
// writable(fd, f), otherwise(f). With an `otherwise` it never parks. Without a case that can ever go it parks until it is
// cancelled. Throws `cancelled`, and then nothing was received or sent; channel_closed if the case that went is a send on
// a closed channel; what the function throws. The operands of a case are evaluated once; in which order is up to the
// compiler, as for all arguments (a selector with braces fixes it).
template <class... Cases>
int select(Cases&&... cases) {
  return detail::select_now(detail::select_order::random, nullptr, cases...);
}
// The same, but of several cases that can go it takes the first.
template <class... Cases>
int select_ordered(Cases&&... cases) {
  return detail::select_now(detail::select_order::first, nullptr, cases...);
}
// The same, but a cancellation is said in the code, and the index is -1 then. The code stands before the cases, and is set
// before the function of the one that went runs.
template <class... Cases>
int select(std::error_code& error, Cases&&... cases) {
  return detail::select_now(detail::select_order::random, &error, cases...);
}
template <class... Cases>
int select_ordered(std::error_code& error, Cases&&... cases) {
  return detail::select_now(detail::select_order::first, &error, cases...);
}

// Cases that belong to no channel. A duration counts from here.
template <class Rep, class Period, class F>
auto after(std::chrono::duration<Rep, Period> d, F&& f) {
  return detail::timed_case<std::decay_t<F>>(detail::deadline_after(d), std::decay_t<F>(std::forward<F>(f)));
}
template <class Clock, class Duration, class F>
auto at(const std::chrono::time_point<Clock, Duration>& tp, F&& f) {
  return detail::timed_case<std::decay_t<F>>(detail::deadline_at(tp), std::decay_t<F>(std::forward<F>(f)));
}
// Goes if no other case can now.
template <class F>
auto otherwise(F&& f) {
  return detail::otherwise_case<std::decay_t<F>>(std::decay_t<F>(std::forward<F>(f)));
}

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

inline bool is_below(const select_case* a, const select_case* b) noexcept {
#if defined(CONCUR_EXPLORE)
  if (driver* d = driver_or_null()) return d->rank(a->site.lock) < d->rank(b->site.lock);
#endif
  return reinterpret_cast<std::uintptr_t>(a->site.lock) < reinterpret_cast<std::uintptr_t>(b->site.lock);
}

// In place, for there is no memory to be asked for.
CONCUR_NOINLINE inline void heap_sort_sites(select_case** heap, unsigned count) noexcept {
  const auto sift = [&](unsigned root, unsigned end) {
    for (unsigned child = 2 * root + 1; child < end; child = 2 * root + 1) {
      if (child + 1 < end && is_below(heap[child], heap[child + 1])) ++child;
      if (!is_below(heap[root], heap[child])) return;
      std::swap(heap[root], heap[child]);
      root = child;
    }
  };
  for (unsigned root = count / 2; root-- > 0;) sift(root, count);
  for (unsigned end = count; end-- > 1;) {
    std::swap(heap[0], heap[end]);
    sift(0, end);
  }
}

// The cases that have a site, sorted by its address.
inline unsigned sort_sites(const select_list& list) noexcept {
  constexpr unsigned few = 8;
  select_case** const sorted = list.by_address;
  unsigned count = 0;
  for (unsigned i = 0; i < list.count; ++i) {
    select_case* const c = list.cases[i];
    if (c->site.lock == nullptr) continue;
    unsigned at = count++;
    for (; list.count <= few && at != 0 && is_below(c, sorted[at - 1]); --at) sorted[at] = sorted[at - 1];
    sorted[at] = c;
  }
  if (list.count > few) heap_sort_sites(sorted, count);
  return count;
}

// The locks of all sites, for one moment (E1).
class held_sites {
 public:
  held_sites(worker* w, select_case** by_address, unsigned count) noexcept : worker_(w) {
    const spin_lock* before = nullptr;
    for (unsigned i = 0; i < count; ++i) {
      select_case& c = *by_address[i];
      if (c.site.lock == before) {
        c.is_retired = by_address[i - 1]->is_retired;
        continue;
      }
      before = c.site.lock;
      c.is_retired = c.site_lock().lock_unless_retired() != 0;
      if (c.is_retired) continue;
      c.site.next = chain_;
      chain_ = &c.site;
    }
  }
  ~held_sites() {
    if (is_kept_) return;
    unlock_chain(chain_);
    if (served != nullptr) resume_near(worker_, served);
  }
  held_sites(const held_sites&) = delete;
  held_sites& operator=(const held_sites&) = delete;

  // The locks stay held, and are the caller's to hand on.
  lock_chain* keep() noexcept {
    is_kept_ = true;
    return chain_;
  }

  party* served = nullptr;

 private:
  worker* worker_;
  lock_chain* chain_ = nullptr;
  bool is_kept_ = false;
};

struct answer {
  select_case* taken = nullptr;
  bool must_look_again = false;
};

inline unsigned pick(worker* w, unsigned count) noexcept {
  if (count == 1) return 0;
  if (w != nullptr) return seam_choose(w->random, choice::select_case, count);
  random_source own(thread_seed(&count));
  return seam_choose(own, choice::select_case, count);
}

// Under all locks: takes one of the cases that can go (E2).
inline answer take_one(const select_list& list, worker* w, nanoseconds_t now, party*& served) {
  unsigned candidates = 0;
  for (unsigned i = 0; i < list.count; ++i) {
    select_case& c = *list.cases[i];
    c.is_candidate = c.is_ready(now);
    if (c.is_candidate) ++candidates;
    if (c.is_candidate && list.order == select_order::first) break;
  }
  while (candidates != 0) {
    unsigned skip = CONCUR_MUTANT_IS(162) ? 0 : pick(w, candidates);
    unsigned i = 0;
    while (!list.cases[i]->is_candidate || skip-- != 0) ++i;
    const attempt result = list.cases[i]->take(served);
    if (result == attempt::done) return {list.cases[i], false};
    if (result == attempt::again || list.order == select_order::first) return {nullptr, true};
    list.cases[i]->is_candidate = false;
    --candidates;
  }
  return {};
}

// Leaves a note at every site (E6).
inline void enter_sites(const select_list& list, unsigned sites, party* who, worker* w) noexcept {
  if (list.order == select_order::random) {
    unsigned begin = 0;
    for (unsigned i = 1; i < sites; ++i) {
      if (list.by_address[i]->site.lock != list.by_address[begin]->site.lock) begin = i;
      if (begin != i && !CONCUR_MUTANT_IS(165))
        std::swap(list.by_address[i], list.by_address[begin + pick(w, i - begin + 1)]);
    }
  }
  const bool is_by_address = list.order == select_order::random;
  for (unsigned i = 0; i < (is_by_address ? sites : list.count); ++i) {
    select_case& c = is_by_address ? *list.by_address[i] : *list.cases[i];
    if (c.site.lock == nullptr) continue;
    c.note.begin(who);
    c.enter();
  }
}

// The case by whose note the wait was ended. Marked before the resume; nobody else writes a mark of this wait.
inline select_case* chosen_of(select_case* const* sites, unsigned count) noexcept {
  for (unsigned i = 0; i < count; ++i) {
    if (sites[i]->note.was_chosen()) return sites[i];
  }
  return nullptr;
}

// Takes the notes of the others away. The links of the chosen one may be those of a list of the claimed (ended_waits).
inline void leave_sites(select_case* const* sites, unsigned count, const select_case* chosen) noexcept {
  unsigned end = 0;
  for (unsigned begin = 0; begin < count; begin = end) {
    retirable_lock& lock = sites[begin]->site_lock();
    for (end = begin + 1; end < count && sites[end]->site.lock == &lock;) ++end;
    if (end == begin + 1 && sites[begin] == chosen) continue;
    if (CONCUR_MUTANT_IS(163) || lock.lock_unless_retired() != 0) continue;
    for (unsigned i = begin; i < end; ++i) {
      if (sites[i] != chosen) sites[i]->leave();
    }
    lock.unlock();
  }
}

inline int index_of(const select_list& list, const select_case* c) noexcept {
  int i = 0;
  while (list.cases[i] != c) ++i;
  return i;
}

// What the kinds of all cases come to.
inline case_traits traits_of(const select_list& list, int& otherwise) noexcept {
  case_traits all;
  for (unsigned i = 0; i < list.count; ++i) {
    const case_traits kind = list.cases[i]->kind;
    if (kind.is_otherwise) otherwise = static_cast<int>(i);
    all.prepares = all.prepares || kind.prepares;
    all.has_deadline = all.has_deadline || kind.has_deadline;
  }
  return all;
}

// Under all locks: when a wait must end at the latest.
inline nanoseconds_t soonest_deadline(const select_list& list, const case_traits& all) noexcept {
  nanoseconds_t soonest_ns = list.deadline_ns;
  if (CONCUR_LIKELY(!all.has_deadline)) return soonest_ns;
  for (unsigned i = 0; i < list.count; ++i) {
    const nanoseconds_t own_ns = list.cases[i]->deadline_ns();
    if (own_ns < soonest_ns) soonest_ns = own_ns;
  }
  return soonest_ns;
}

CONCUR_INLINE outcome run_select(const select_list& list, int& chosen_index) {
  int otherwise = -1;
  const case_traits all = traits_of(list, otherwise);
  const bool may_park = list.may_park && otherwise < 0;
  worker* w = nullptr;
  if (!may_park)
    w = this_worker();
  else if (list.error == nullptr)
    w = checkpoint();
  else if (!checkpoint_quietly(w))
    return outcome::cancelled;
  for (;; w = this_worker()) {
    std::optional<poll_room> in_poll;
    if (CONCUR_UNLIKELY(all.prepares)) {
      for (unsigned i = 0; i < list.count; ++i) list.cases[i]->prepare();
      if (w == nullptr && may_park) in_poll.emplace(list.cases, list.count);
    }
    const unsigned sites = sort_sites(list);  // a case may have found its site only now
    caller me(w);
    nanoseconds_t deadline_ns = never;
    lock_chain* locks = nullptr;
    {
      held_sites held(w, list.by_address, sites);
      deadline_ns = soonest_deadline(list, all);
      const nanoseconds_t now = deadline_ns != never ? now_ns() : long_ago;
      const answer found = take_one(list, w, now, held.served);
      if (found.taken != nullptr) {
        chosen_index = index_of(list, found.taken);
        return outcome::granted;
      }
      if (found.must_look_again) continue;
      chosen_index = otherwise;
      if (!may_park) return otherwise < 0 ? outcome::timed_out : outcome::granted;
      if (list.deadline_ns <= now) return outcome::timed_out;
      enter_sites(list, sites, me.who(), w);
      locks = held.keep();
    }
    const outcome result =
        in_poll ? in_poll->park(me.thread(), locks, deadline_ns) : me.park_at_all(locks, deadline_ns);
    select_case* const chosen = chosen_of(list.by_address, sites);
    leave_sites(list.by_address, sites, chosen);
    if (result == outcome::cancelled) return result;
    if (chosen != nullptr && result != outcome::retry && chosen->end(result)) {
      chosen_index = index_of(list, chosen);
      return outcome::granted;
    }
  }
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// channel/channel_case.hpp - sending and receiving as cases of a select.
//
// A case does what channel<T>::send and recv do, in the two halves a select needs: a step under the lock, and a note that
// a peer may claim. What it sends stays with the caller until the case has won; what it received is handed to the user's
// function when all locks are gone.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// A case of one channel; its core is borrowed from the handle, until the case owns.
template <class Item>
class channel_case : public select_case {
 protected:
  explicit channel_case(channel_core<Item>* core) noexcept
      : select_case(case_traits{false, false, tick_source<Item>::is_possible}), core_(core) {
    if (core_ != nullptr) set_site_lock(&core_->lock());
  }
  channel_case(channel_case&& other) noexcept : select_case(other), core_(other.core_) {
    is_owner_ = std::exchange(other.is_owner_, false);
  }
  ~channel_case() override {
    if (is_owner_) core_->release();
  }

  void own() override {
    if (core_ == nullptr) return;
    core_->hold();
    is_owner_ = true;
  }

  // The note's place in the queue of one side.
  void enter_queue(intrusive_list<waiter>& queue, void* value) noexcept {
    note.value = value;
    queue.push_back(&note);
  }
  void leave_queue(intrusive_list<waiter>& queue) noexcept {
    if (intrusive_list<waiter>::is_linked(&note)) queue.erase(&note);
  }

  channel_core<Item>* core_;

 private:
  bool is_owner_ = false;
};

template <class Item, class F>
class recv_case final : public channel_case<Item> {
  // The one type that F is asked about: a function with an auto parameter is compiled for whatever is asked.
  using received = std::conditional_t<std::is_same<Item, signal_item>::value, bool, std::optional<Item>>;
  static_assert(std::disjunction<std::is_invocable<F&, received>, std::is_invocable<F&>>::value,
                "select: the function of recv takes a std::optional<T>, for channel<void> a bool, or nothing");

 public:
  recv_case(channel_core<Item>* core, F&& handler) : channel_case<Item>(core), handler_(std::move(handler)) {}
  recv_case(recv_case&&) = default;

  bool is_ready(nanoseconds_t) noexcept override { return this->core_ != nullptr && this->core_->can_receive(); }
  attempt take(party*& served) override {
    const attempt result = this->core_->receive_step(slot_, served);
    return result == attempt::closed ? attempt::done : result;
  }
  void enter() noexcept override { this->enter_queue(this->core_->receivers(), &slot_); }
  void leave() noexcept override { this->leave_queue(this->core_->receivers()); }
  nanoseconds_t deadline_ns() const noexcept override {
    return this->core_ != nullptr ? this->core_->next_tick_ns() : never;
  }

  void run() override {
    std::optional<Item> item(std::move(slot_));
    slot_.reset();
    if constexpr (!std::is_invocable<F&, received>::value)
      handler_();
    else if constexpr (std::is_same<received, bool>::value)
      handler_(item.has_value());
    else
      handler_(std::move(item));
  }

 private:
  std::optional<Item> slot_;
  F handler_;
};

// The value is lent by the caller, who moved it into the call, or kept here.
template <class Item, class F>
class send_case final : public channel_case<Item> {
  static_assert(std::is_invocable<F&>::value, "select: the function of send takes nothing");

 public:
  send_case(channel_core<Item>* core, Item* lent, F&& handler)
      : channel_case<Item>(core), value_(lent), handler_(std::move(handler)) {}
  template <class V>
  send_case(channel_core<Item>* core, std::in_place_t, V&& value, F&& handler)
      : channel_case<Item>(core), kept_(std::in_place, std::forward<V>(value)), handler_(std::move(handler)) {
    value_ = &*kept_;
  }
  send_case(send_case&& other)
      : channel_case<Item>(std::move(other)),
        kept_(std::move(other.kept_)),
        value_(kept_ ? &*kept_ : other.value_),
        handler_(std::move(other.handler_)) {}

  bool is_ready(nanoseconds_t) noexcept override { return this->core_ != nullptr && this->core_->can_send(); }
  attempt take(party*& served) override {
    const attempt result = this->core_->send_step(*value_, served);
    is_closed_ = result == attempt::closed;
    return is_closed_ ? attempt::done : result;
  }
  void enter() noexcept override { this->enter_queue(this->core_->senders(), value_); }
  void leave() noexcept override { this->leave_queue(this->core_->senders()); }
  bool end(outcome result) override {
    is_closed_ = result == outcome::closed;
    return true;
  }

  void run() override {
    if (CONCUR_UNLIKELY(is_closed_)) fail_closed("concur::select: the case that sends: the channel is closed");
    handler_();
  }
  bool is_spent() const noexcept override { return !is_closed_; }
  void own() override {
    channel_case<Item>::own();
    if (kept_) return;
    kept_.emplace(std::move(*value_));
    value_ = &*kept_;
  }

 private:
  std::optional<Item> kept_;
  Item* value_ = nullptr;
  F handler_;
  bool is_closed_ = false;
};

}  // namespace detail

// Receives. f(std::optional<T>), which is empty once the channel is closed and drained; or f(). For signals f(bool), false
// once it is closed.
template <class T, class F>
auto recv(const channel<T>& ch, F&& f) {
  using item = std::conditional_t<std::is_void<T>::value, detail::signal_item, T>;
  return detail::recv_case<item, std::decay_t<F>>(detail::channel_access::core_of(ch),
                                                  std::decay_t<F>(std::forward<F>(f)));
}
template <class T, class F>
auto recv(const receiver<T>& end, F&& f) {
  return recv(detail::channel_access::channel_of(end), std::forward<F>(f));
}

// Sends. What is moved into the call, and is a T, is moved from only if the case wins: it must be there until then, as must
// the channel. Anything else, and a few plain bytes, is first copied, or converted, to a T. f().
template <class T, class V, class F>
auto send(const channel<T>& ch, V&& value, F&& f) {
  static_assert(std::is_constructible<T, V&&>::value, "select: the value cannot be made what the channel carries");
  using made = detail::send_case<T, std::decay_t<F>>;
  constexpr bool is_cheap = std::is_trivially_copyable<T>::value && sizeof(T) <= 2 * sizeof(void*);
  if constexpr (std::is_same<V, T>::value && !is_cheap)
    return made(detail::channel_access::core_of(ch), std::addressof(value), std::decay_t<F>(std::forward<F>(f)));
  else
    return made(detail::channel_access::core_of(ch), std::in_place, std::forward<V>(value),
                std::decay_t<F>(std::forward<F>(f)));
}
template <class T, class V, class F>
auto send(const sender<T>& end, V&& value, F&& f) {
  return send(detail::channel_access::channel_of(end), std::forward<V>(value), std::forward<F>(f));
}
template <class F>
auto send(const channel<void>& ch, F&& f) {
  using made = detail::send_case<detail::signal_item, std::decay_t<F>>;
  return made(detail::channel_access::core_of(ch), std::in_place, detail::signal_item(),
              std::decay_t<F>(std::forward<F>(f)));
}
template <class F>
auto send(const sender<void>& end, F&& f) {
  return send(detail::channel_access::channel_of(end), std::forward<F>(f));
}

CONCUR_NAMESPACE_END

// channel/selector.hpp - a select whose cases are only known when the program runs.
//
// Serving as many channels as there are clients needs a list of cases. A selector is that list: it owns its cases, which
// hold on to their channels, and it may wait again and again. A case that can happen only once (send, after, at, ready)
// happens once, and is then out of the running; the others stay.

#include <vector>

CONCUR_NAMESPACE_BEGIN

// For one fiber or thread at a time. Each wait allocates nothing; it costs a little more for each case than select.
class selector {
 public:
  selector() noexcept = default;
  // The operands are evaluated from left to right: selector{recv(a, f), send(b, value(), g)}.
  template <class First, class... Cases,
            class = std::enable_if_t<std::is_base_of<detail::select_case, std::decay_t<First>>::value>>
  explicit selector(First&& first, Cases&&... cases) {
    add(std::forward<First>(first));
    (add(std::forward<Cases>(cases)), ...);
  }
  selector(selector&&) noexcept = default;
  selector& operator=(selector&&) noexcept = default;

  // Takes the case, with the value that a send has to send, and returns its index, which it keeps.
  template <class Case>
  int add(Case&& one) {
    static_assert(!std::is_lvalue_reference<Case>::value, "a selector owns its cases: pass them as they are made");
    return keep(std::make_unique<std::decay_t<Case>>(std::move(one)));
  }
  // Takes the case out; its own function may do so too. Throws std::invalid_argument if the index was never given.
  void remove(int index);
  void clear() noexcept { cases_.clear(); }
  // How many cases can still happen.
  std::size_t size() const noexcept;

  // As select: the index of the case that went, after its function. Without a case it parks until it is cancelled. The
  // forms with a code, here and below, say there that they were cancelled, and return -1; it is set before the function.
  int wait() { return wait_deadline(detail::never); }
  int wait(std::error_code& error) { return wait_deadline(detail::never, &error); }
  // Of several that can go the one with the lowest index.
  int wait_ordered() { return wait_in_order(detail::select_order::first, detail::never, true); }
  int wait_ordered(std::error_code& error) {
    return wait_in_order(detail::select_order::first, detail::never, true, &error);
  }
  // -1: the time passed first.
  template <class Rep, class Period>
  int wait_for(std::chrono::duration<Rep, Period> d) {
    return wait_deadline(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  int wait_until(const std::chrono::time_point<Clock, Duration>& tp) {
    return wait_deadline(detail::deadline_at(tp));
  }
  template <class Rep, class Period>
  int wait_for(std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return wait_deadline(detail::deadline_after(d), &error);
  }
  template <class Clock, class Duration>
  int wait_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return wait_deadline(detail::deadline_at(tp), &error);
  }
  // -1: none could go. Never parks.
  int try_wait() { return wait_in_order(detail::select_order::random, detail::never, false); }

 private:
  int keep(std::unique_ptr<detail::select_case> one);
  int wait_deadline(detail::nanoseconds_t deadline_ns, std::error_code* error = nullptr) {
    return wait_in_order(detail::select_order::random, deadline_ns, true, error);
  }
  int wait_in_order(detail::select_order order, detail::nanoseconds_t deadline_ns, bool may_park,
                    std::error_code* error = nullptr);

  std::vector<std::shared_ptr<detail::select_case>> cases_;  // null: removed, or spent; shared with a wait that runs it
  std::vector<detail::select_case*> room_;                   // for the lists of a wait
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE int selector::keep(std::unique_ptr<detail::select_case> one) {
  room_.resize(2 * (cases_.size() + 1));
  cases_.push_back(std::move(one));
  cases_.back()->own();
  return static_cast<int>(cases_.size()) - 1;
}

CONCUR_INLINE void selector::remove(int index) {
  if (index < 0 || static_cast<std::size_t>(index) >= cases_.size())
    detail::fail_argument("concur::selector::remove", "index", std::to_string(index),
                          "no case has it; add() returns the indices");
  cases_[static_cast<std::size_t>(index)].reset();
}

CONCUR_INLINE std::size_t selector::size() const noexcept {
  std::size_t count = 0;
  for (const auto& one : cases_) count += std::size_t{one != nullptr};
  return count;
}

CONCUR_INLINE int selector::wait_in_order(detail::select_order order, detail::nanoseconds_t deadline_ns, bool may_park,
                                          std::error_code* error) {
  unsigned count = 0;
  for (const auto& one : cases_) {
    if (one != nullptr) room_[count++] = one.get();
  }
  detail::select_case** const room = room_.data();
  int chosen = -1;
  if (!detail::perform_select({room, room + cases_.size(), count, order, deadline_ns, may_park, error}, chosen))
    return -1;
  std::size_t index = 0;
  while (cases_[index].get() != room[chosen]) ++index;
  const std::shared_ptr<detail::select_case> running = cases_[index];  // its function may remove it
  if (running->is_spent()) cases_[index].reset();
  running->run();
  return static_cast<int>(index);
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// channel/ticker.hpp - moments of time that arrive on a channel: once, or again and again.
//
// They are channels like all others, to be received from, selected over and closed; how they come by their values is in
// tick_source.hpp. Nothing runs behind them: one that nobody reads need not be stopped, and holds up no run().

CONCUR_NAMESPACE_BEGIN

namespace detail {
inline channel<time_point> make_timed_channel(nanoseconds_t first_ns, nanoseconds_t period_ns) {
  channel<time_point> made(1);
  channel_access::core_of(made)->set_ticks(first_ns, period_ns);
  return made;
}
}  // namespace detail

// A channel on which one moment arrives, d from now.
template <class Rep, class Period>
channel<time_point> after(std::chrono::duration<Rep, Period> d) {
  return detail::make_timed_channel(detail::deadline_after(d), 0);
}

// The receiving end of a channel on which a moment arrives every `period`, the first one period from now. Ticks keep to
// the moments of the beginning. Who reads too slowly finds the latest tick only: the others are dropped, never queued.
class ticker : public receiver<time_point> {
 public:
  // Throws std::invalid_argument unless the period is above zero.
  template <class Rep, class Period>
  explicit ticker(std::chrono::duration<Rep, Period> period)
      : ticker(detail::make_timed_channel(detail::deadline_after(period), must_be_period(detail::to_ns(period)))) {}

  // No more ticks: the channel is closed, and who waits gets nothing. Again does nothing.
  void stop() noexcept { source_.try_close(); }
  // From now on every `period`, the first one period from now; a tick that lies there stays. Nothing if it was stopped.
  template <class Rep, class Period>
  void reset(std::chrono::duration<Rep, Period> period) {
    const detail::nanoseconds_t period_ns = must_be_period(detail::to_ns(period));
    detail::channel_access::core_of(source_)->set_ticks(detail::deadline_after(period), period_ns);
  }

 private:
  explicit ticker(const concur::channel<time_point>& source) : receiver<time_point>(source), source_(source) {}
  static detail::nanoseconds_t must_be_period(detail::nanoseconds_t period_ns);

  concur::channel<time_point> source_;
};

// ticker t = tick(10ms); for (time_point now : t) ...
template <class Rep, class Period>
ticker tick(std::chrono::duration<Rep, Period> period) {
  return ticker(period);
}

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE detail::nanoseconds_t ticker::must_be_period(detail::nanoseconds_t period_ns) {
  if (period_ns <= 0)
    detail::fail_argument("concur::ticker", "period", std::to_string(period_ns) + " ns",
                          "ticks need a time between them; use a channel that is closed for one that is always ready");
  return period_ns;
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// structure/future_state.hpp - where one result is kept between the two that share it, and who hears of it.
//
// A result is made in one place and wanted in another, and either may come first or never. The state both share is in
// one of three stages, which are the ends of its lock (retirable_lock.hpp, K3):
//
//     stage       meaning                        next
//     pending     no result yet                  ready (complete) · dropped (the future went first)
//     ready       value or exception is there    gone with the future
//     dropped     nobody will ask                gone with the completion
//
//   U1  The last of the two sides to let go releases the memory: the future if the result is there, else the
//       completion.
//   U2  A waiter is a note in `waiting`; completing takes all of them off. What was written before completing happens
//       before get().
//   U3  An exception that no get() took is not lost: it goes to the runtime, and run() rethrows the first such.
//   U4  A continuation is told exactly once, whatever becomes of the future: by who completes, after the result can be
//       had, on that thread; or it is not attached, because the result is there already.
//   U5  Continuations that complete further states hand on what comes due there instead of calling it: a chain of any
//       length is worked off in a loop, not in a recursion.

CONCUR_NAMESPACE_BEGIN
namespace detail {

[[noreturn]] CONCUR_INLINE void fail_no_state();  // std::future_error, no_state
[[noreturn]] CONCUR_INLINE void rethrow(std::exception_ptr error);
CONCUR_INLINE std::exception_ptr broken_promise_error() noexcept;  // std::future_error, broken_promise

// What is to be done when a result is there. It owns itself: `run` frees it, or makes it part of something else.
struct continuation {
  using due_list = intrusive_queue<continuation>;
  using run_function = void (*)(continuation* self, due_list& more) noexcept;

  explicit continuation(run_function run_in) noexcept : run(run_in) {}

  continuation* next = nullptr;
  run_function run;  // what comes due by it goes to `more` (U5)
};
using due_list = continuation::due_list;

// Runs what is in there, and what comes due by that.
CONCUR_INLINE void run_due(due_list& due) noexcept;

// The part that does not depend on the result's type.
class future_state {
 public:
  future_state() noexcept = default;
  future_state(const future_state&) = delete;
  future_state& operator=(const future_state&) = delete;

  bool is_ready() const noexcept { return lock_.peek() == ready; }
  // Once ready: whether there is no value.
  bool has_failed() const noexcept {
#if CONCUR_EXCEPTIONS
    return error != nullptr;
#else
    return is_broken;
#endif
  }

  // Parks until there is a result or the deadline has passed: granted, timed_out or cancelled; without a code `cancelled` is
  // thrown. A deadline that has passed already only looks. The checkpoint is in here, so that get() is small enough to be
  // inlined: each frame between a switch and its caller costs a return that is predicted wrong. Waiting is apart, and jumped
  // to: who finds the result, as most do who spawn many, saves no registers and takes no lock.
  outcome wait(nanoseconds_t deadline_ns);
  outcome wait(nanoseconds_t deadline_ns, std::error_code& told);

  // The result, or error, is in place. What comes due by that is put behind what is in `due`. False: nobody will ask,
  // and the caller releases the memory (U1). w: the calling thread's worker, or null.
  bool complete(due_list& due, worker* w = nullptr) noexcept;
  // The future goes. False: the result is there, and the caller releases the memory (U1).
  bool drop() noexcept;

  // U4. False: the result is there already, and the caller runs it. By the future's side only.
  bool attach(continuation* wanted) noexcept;
  // Takes it off again. False: whoever completes has it, and runs it. By the future's side only.
  bool detach(continuation* unwanted) noexcept;

  // For a select, which keeps its own note (future_case.hpp).
  retirable_lock& lock_of_waiting() noexcept { return lock_; }
  intrusive_list<waiter>& waiting() noexcept { return waiting_; }

  // There will be no value.
  void set_error(std::exception_ptr error_in) noexcept {
    error = std::move(error_in);
    is_broken = true;
  }

  std::exception_ptr error;  // set before complete, instead of a value
  void (*release)(future_state*) noexcept =
      nullptr;  // destroys what is in place, hands an untaken error on, frees the memory

 private:
  static constexpr std::uint32_t ready = 2;
  static constexpr std::uint32_t dropped = 3;

  outcome wait_from(worker* w, nanoseconds_t deadline_ns) noexcept;
  outcome wait_pending(worker* w, nanoseconds_t deadline_ns);
  void complete_many(waiter* first, due_list& due) noexcept;
  void take_continuations(due_list& due) noexcept;

  intrusive_list<waiter> waiting_;
  continuation* newest_ = nullptr;  // under lock_, as waiting_
  retirable_lock lock_;                  // not retired: pending

 public:
  bool is_reported = true;  // whether an error that nobody takes is one (U3)
  bool is_broken = false;   // what set_error leaves behind where exceptions are off, and no error can be held
};

// With room for the result. A reference is kept as a pointer.
template <class R>
class result_state : public future_state {
 public:
  using stored = std::conditional_t<std::is_reference<R>::value, std::remove_reference_t<R>*, R>;

  template <class... Args>
  void set(Args&&... args) {
    ::new (static_cast<void*>(room_)) stored(std::forward<Args>(args)...);
    has_value_ = true;
  }
  stored& get() noexcept { return *std::launder(reinterpret_cast<stored*>(room_)); }
  void destroy() noexcept {
    if (has_value_) get().~stored();
    has_value_ = false;
  }

 private:
  bool has_value_ = false;  // first: it lies in the base's last word then
  alignas(stored) unsigned char room_[sizeof(stored)];
};
template <>
class result_state<void> : public future_state {
 public:
  void set() noexcept {}
  void destroy() noexcept {}
};

// Calls `make`, and keeps what it returns or throws.
template <class R, class F>
void keep_outcome(result_state<R>& out, F&& make) noexcept {
  const auto keep = [&] {
    if constexpr (std::is_void<R>::value) {
      make();
    } else if constexpr (std::is_reference<R>::value) {
      R&& result = make();
      out.set(std::addressof(result));
    } else {
      out.set(make());
    }
  };
#if CONCUR_EXCEPTIONS
  try {
    keep();
  } catch (const cancelled&) {
    out.set_error(std::current_exception());
    out.is_reported = false;
  } catch (...) {
    out.set_error(std::current_exception());
  }
#else
  keep();
#endif
}

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <future>

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void run_due(due_list& due) noexcept {
  while (continuation* one = due.pop()) one->run(one, due);
}

CONCUR_FORCE_INLINE outcome future_state::wait_from(worker* w, nanoseconds_t deadline_ns) noexcept {
  caller me(w);
  if (lock_.lock_unless_retired() == ready) return outcome::granted;
  if (deadline_ns != never && deadline_ns <= now_ns() && !CONCUR_MUTANT_IS(149)) {
    lock_.unlock();
    return outcome::timed_out;
  }
  waiter note(me.who(), nullptr);
  waiting_.push_back(&note);
  const outcome result = me.park(&lock_, deadline_ns, wait_reason::future_get);
  if (result != outcome::granted && !CONCUR_MUTANT_IS(296) && lock_.lock_unless_retired() == 0) {
    if (intrusive_list<waiter>::is_linked(&note)) waiting_.erase(&note);
    lock_.unlock();
  }
  return result;
}

CONCUR_NOINLINE CONCUR_INLINE outcome future_state::wait_pending(worker* w, nanoseconds_t deadline_ns) {
  return or_throw(wait_from(w, deadline_ns));
}
CONCUR_INLINE outcome future_state::wait(nanoseconds_t deadline_ns) {
  worker* const w = checkpoint();
  return is_ready() ? outcome::granted : wait_pending(w, deadline_ns);
}
CONCUR_INLINE outcome future_state::wait(nanoseconds_t deadline_ns, std::error_code& told) {
  return perform([&](worker* w) CONCUR_ALWAYS_INLINED { return wait_from(w, deadline_ns); }, told);
}

// Mostly one waits, or nobody.
CONCUR_INLINE bool future_state::complete(due_list& due, worker* w) noexcept {
  if (CONCUR_UNLIKELY(lock_.lock_unless_retired() == dropped)) {
    if (CONCUR_UNLIKELY(newest_ != nullptr) && !CONCUR_MUTANT_IS(141)) take_continuations(due);
    return false;
  }
  if (CONCUR_MUTANT_IS(65)) {
    lock_.retire(ready);
    for (unsigned round = 0; round < 12;) spin_wait(round);
  }
  waiter* const note = pop_claimed(waiting_);
  if (CONCUR_UNLIKELY(!waiting_.is_empty() || newest_ != nullptr)) {
    complete_many(note, due);
    return true;
  }
  party* const who = note != nullptr ? note->who : nullptr;
  if (who != nullptr) who->result = outcome::granted;
  if (!CONCUR_MUTANT_IS(65)) lock_.retire(ready);  // the last touch: who finds the result may release it now
  if (who != nullptr) resume_near(w, who);
  return true;
}

// Under the lock.
CONCUR_NOINLINE CONCUR_INLINE void future_state::complete_many(waiter* first, due_list& due) noexcept {
  ended_waits woken;
  if (first != nullptr) woken.add(first, outcome::granted);
  woken.take_all(waiting_, outcome::granted);
  if (newest_ != nullptr) take_continuations(due);
  if (!CONCUR_MUTANT_IS(65)) lock_.retire(ready);  // as above
  woken.resume_all();
}

// In the order in which they were attached. Under the lock, or when the future is gone.
CONCUR_NOINLINE CONCUR_INLINE void future_state::take_continuations(due_list& due) noexcept {
  continuation* oldest_first = nullptr;
  while (newest_ != nullptr) {
    continuation* one = std::exchange(newest_, newest_->next);
    one->next = std::exchange(oldest_first, one);
  }
  while (oldest_first != nullptr) {
    continuation* one = std::exchange(oldest_first, oldest_first->next);
    due.push(one);
  }
}

CONCUR_INLINE bool future_state::drop() noexcept {
  if (lock_.lock_unless_retired() == ready) return false;
  lock_.retire(dropped);
  return true;
}

CONCUR_INLINE bool future_state::attach(continuation* wanted) noexcept {
  if (lock_.lock_unless_retired() == ready) return CONCUR_MUTANT_IS(142);
  wanted->next = std::exchange(newest_, wanted);
  lock_.unlock();
  return true;
}

CONCUR_INLINE bool future_state::detach(continuation* unwanted) noexcept {
  if (lock_.lock_unless_retired() == ready) return false;
  continuation** link = &newest_;
  while (*link != nullptr && *link != unwanted) link = &(*link)->next;
  const bool is_found = *link != nullptr;
  if (is_found) *link = unwanted->next;
  lock_.unlock();
  return is_found;
}

[[noreturn]] CONCUR_INLINE void fail_no_state() {
  raise(std::future_error(std::future_errc::no_state),
        "concur::future: there is no result to wait for: it was taken, or never promised");
}

CONCUR_INLINE std::exception_ptr broken_promise_error() noexcept {
  return std::make_exception_ptr(std::future_error(std::future_errc::broken_promise));
}

[[noreturn]] CONCUR_INLINE void rethrow([[maybe_unused]] std::exception_ptr error) {
#  if CONCUR_EXCEPTIONS
  std::rethrow_exception(std::move(error));
#  else
  on_fatal("an exception was to be rethrown, or a promise was broken, and exceptions are off");
#  endif
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// structure/future.hpp - one result, made once, taken once.
//
// A future is the taker's end of a result that somebody else makes: a fiber (spawn.hpp), a promise (promise.hpp), or
// a continuation of another future (continuation.hpp). It works the same from fibers and from plain threads. What is
// done before the result is made happens before get() returns, and before whatever was attached to the result runs.
//
//     to ...                          say              who calls back, and where
//     wait and take it                get()
//     do something with the value     then(f)          a new fiber; plain threads alone: the completing thread
//     do something with the error     or_else(f)       as then
//     be told, and take it later      on_ready(f)      the completing thread, in passing
//     give it to many                 share()

CONCUR_NAMESPACE_BEGIN

template <class R>
class future;
template <class R>
class shared_future;

namespace detail {

struct future_access;

template <class T>
struct unwrapped {
  using type = T;
};
template <class T>
struct unwrapped<future<T>> {
  using type = T;
};

// Whether f takes the value, rather than the future that holds it.
template <class F, class R>
struct takes_value : std::is_invocable<F, R> {};
template <class F>
struct takes_value<F, void> : std::is_invocable<F> {};

// What f returns for a result of type R; a future counts as what it will hold.
template <class F, class R, bool value = takes_value<F, R>::value>
struct then_type {
  static_assert(std::is_invocable<F, future<R>>::value,
                "future::then: the function must take the value (nothing for void), or the future that is ready");
  using type = typename unwrapped<std::invoke_result_t<F, future<R>>>::type;
};
template <class F, class R>
struct then_type<F, R, true> {
  using type = typename unwrapped<std::invoke_result_t<F, R>>::type;
};
template <class F>
struct then_type<F, void, true> {
  using type = typename unwrapped<std::invoke_result_t<F>>::type;
};
template <class F, class R>
using then_result = typename then_type<std::decay_t<F>, R>::type;

}  // namespace detail

// Where the one result of something under way will be. Move-only. Dropping it is allowed: the work goes on, and an
// exception nobody took surfaces in run().
template <class R>
class future {
 public:
  future() noexcept = default;
  explicit future(detail::result_state<R>* state) noexcept : state_(state) {}
  future(future&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  future& operator=(future&& other) noexcept {
    future taken(std::move(other));
    std::swap(state_, taken.state_);
    return *this;
  }
  ~future() {
    if (state_ != nullptr && !state_->drop()) state_->release(state_);
  }

  // Whether get() may be called: false for an empty future, and after get().
  bool valid() const noexcept { return state_ != nullptr; }
  // Whether get() would return at once.
  bool ready() const noexcept { return state_ != nullptr && state_->is_ready(); }

  // Parks until the result is there, and takes it; rethrows what its maker threw, as the type it was thrown with.
  // Throws `cancelled`, and then the result can still be had; std::future_error (no_state) on an empty future.
  R get();

  // Makes `f` go on with the value: f(R), f() for void. Returns where f's own result will be; if f returns a future, the
  // result of that. This future is empty afterwards. When there is an exception instead, f is not called, and the exception
  // passes on; it counts as taken here, and is the returned future's to surface. A function that takes future<R> instead
  // is called in both cases, with this future, which is ready.
  //
  // f runs as a new fiber: of the caller's runtime if a fiber calls then(); else of the runtime on whose worker the result
  // is made. If both are plain threads, f runs on the one that makes the result, or right here if the result is there: f
  // then holds that thread up. The runtime that is to run f is not kept going by f: when it ends before the result is
  // there, f is destroyed without a call, and the returned future throws std::future_error (broken_promise). Dropping the
  // returned future stops nothing; an exception of f's that nobody takes surfaces in run() as for go(), but is lost if f ran
  // on a plain thread. Throws std::future_error (no_state) on an empty future, and std::system_error (not_enough_memory) or
  // std::bad_alloc. Costs what go() costs; from a plain thread one allocation more.
  template <class F>
  auto then(F&& f) -> future<detail::then_result<F, R>>;
  // The same for an exception: f(std::exception_ptr) returns an R, or a future<R>. A value passes through, without a fiber.
  template <class F>
  future<R> or_else(F&& f);
  // Calls f() once, when the result is there: on the thread that makes it, or right here if it is there already. The
  // future stays as it is; f is called also if it is dropped. f may not throw, nor wait: it holds up who makes the
  // result. One allocation.
  template <class F>
  void on_ready(F&& f) const;

  // The result for many takers. This future is empty afterwards.
  shared_future<R> share();

  // Parks until the result is there. Throws `cancelled`; the form with a code says so there, and returns false. After true,
  // get() does not wait.
  void wait() const { wait_deadline(detail::never); }
  bool wait(std::error_code& error) const { return wait_deadline(detail::never, error); }
  // The same with a limit: false also when that passed first.
  template <class Rep, class Period>
  bool wait_for(std::chrono::duration<Rep, Period> d) const {
    return wait_deadline(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  bool wait_until(const std::chrono::time_point<Clock, Duration>& tp) const {
    return wait_deadline(detail::deadline_at(tp));
  }
  template <class Rep, class Period>
  bool wait_for(std::chrono::duration<Rep, Period> d, std::error_code& error) const {
    return wait_deadline(detail::deadline_after(d), error);
  }
  template <class Clock, class Duration>
  bool wait_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) const {
    return wait_deadline(detail::deadline_at(tp), error);
  }

 private:
  friend struct detail::future_access;
  struct releaser {
    void operator()(detail::result_state<R>* state) const noexcept { state->release(state); }
  };

  template <class... Code>
  bool wait_deadline(detail::nanoseconds_t deadline_ns, Code&... code) const {
    if (state_ == nullptr) detail::fail_no_state();
    return state_->wait(deadline_ns, code...) == detail::outcome::granted;
  }

  // Without waiting; the result is there.
  R take();

  detail::result_state<R>* state_ = nullptr;
};

template <class R>
R future<R>::get() {
  wait();
  return take();
}

template <class R>
R future<R>::take() {
  std::unique_ptr<detail::result_state<R>, releaser> state(std::exchange(state_, nullptr));
  if (CONCUR_UNLIKELY(state->has_failed())) detail::rethrow(std::exchange(state->error, nullptr));
  if constexpr (std::is_reference<R>::value) {
    return static_cast<R>(*state->get());
  } else if constexpr (!std::is_void<R>::value) {
    return std::move(state->get());
  }
}

namespace detail {

// For the parts that build futures of other futures.
struct future_access {
  template <class R>
  static result_state<R>* state(const future<R>& of) noexcept {
    return of.state_;
  }
  template <class R>
  static result_state<R>* must_have_state(const future<R>& of) {
    if (of.state_ == nullptr) fail_no_state();
    return of.state_;
  }
  template <class R>
  static R take(future<R>& from) {
    return from.take();
  }
};

}  // namespace detail
CONCUR_NAMESPACE_END

// structure/fiber_local.hpp - a variable of which every fiber has its own.
//
// thread_local is wrong in a fiber: it goes on, on another thread, with another's value. A fiber_local is kept by the fiber:
// its first use makes the value, its end destroys it. Code that also runs on plain threads finds a value of the thread's
// own, made and destroyed in the same way.
//
// Each fiber_local has an index, which is used again after it, and an id, which is not. Each fiber that uses any has a
// table: by index for finding a value, and as a list in the order of first use for destroying them.
//
//     table.nodes[index]        meaning
//     null                      not used by this fiber
//     node with our id          our value
//     node with another id      a value of a fiber_local that is gone; destroyed when the slot is wanted, or at the end
//
//   X1  A table is touched by its own fiber or thread only. No lock, no atomic operation.
//   X2  Values are destroyed one by one, the youngest first, and those not destroyed yet can still be used meanwhile. At
//       the end of a fiber this comes after its function and its closure, before its result can be seen; destructors may
//       park, and are not cancelled.
//   X3  A destructor may use a fiber_local whose value is gone, and gets a new one, which is destroyed next. That may go on
//       four deep (as with POSIX's thread-specific data); then it is taken for endless, and reported by on_fatal.
//   X4  A node knows how to destroy itself: its fiber_local may be gone.

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct local_node {
  std::uint64_t id = 0;  // of its fiber_local
  local_node* older = nullptr;
  void (*destroy)(local_node*) noexcept = nullptr;
  std::uint32_t index = 0;
  std::uint32_t depth = 0;  // 0: made by the fiber itself; else by the destructor of one of depth - 1 (X3)
};

struct local_table {
  local_node** nodes = nullptr;
  std::uint32_t node_room = 0;
  std::uint32_t depth = 0;  // of nodes made now
  local_node* newest = nullptr;
};

struct local_key {
  std::uint64_t id;
  std::uint32_t index;
};

CONCUR_INLINE local_key new_local_key();
CONCUR_INLINE void free_local_key(local_key key) noexcept;

// Where the calling thread's table is, which is no fiber's.
CONCUR_INLINE local_table* thread_locals() noexcept;
// The caller's table, with a slot for that index. Throws std::bad_alloc.
CONCUR_INLINE local_table* make_room_for_local(std::uint32_t index);
// Puts the node into the caller's table, for which there is room.
CONCUR_INLINE void attach_local(local_node* node) noexcept;
// Destroys the caller's value, if it has one.
CONCUR_INLINE void drop_local(local_key key) noexcept;
// At the end of a fiber, while it may still park (X2).
CONCUR_INLINE void destroy_locals(fiber* f) noexcept;

inline local_table* current_locals() noexcept {
  worker* w = this_worker();
  if (CONCUR_LIKELY(w != nullptr && w->current != nullptr)) return w->current->locals;
  return thread_locals();
}

inline local_node* find_local(local_key key) noexcept {
  local_table* table = current_locals();
  if (CONCUR_UNLIKELY(table == nullptr || key.index >= table->node_room)) return nullptr;
  local_node* node = table->nodes[key.index];
  return CONCUR_LIKELY(node != nullptr && (node->id == key.id || CONCUR_MUTANT_IS(132))) ? node : nullptr;
}

}  // namespace detail

// On a plain thread the value is the thread's own, and destroyed at its end. (The main thread has no end in this sense,
// unless it is pthread_exit.) A fiber_local may be destroyed before the fibers that used it end: the value of the fiber or
// thread that destroys it goes at once, those of others at their ends, or before. A few nanoseconds a use, after the first.
template <class T>
class fiber_local {
 public:
  // Each value begins as T().
  fiber_local() : key_(detail::new_local_key()) {}
  // Each value begins as what first_value() returns, called by the fiber that uses it first. May park and throw.
  template <class F, class = std::enable_if_t<std::is_invocable_r<T, std::decay_t<F>&>::value>>
  explicit fiber_local(F&& first_value)
      : maker_(detail::new_maker<T>(std::forward<F>(first_value))), key_(detail::new_local_key()) {}
  // Each value begins as a copy of that.
  explicit fiber_local(T first_value) : fiber_local([copied = std::move(first_value)] { return T(copied); }) {}
  fiber_local(const fiber_local&) = delete;
  fiber_local& operator=(const fiber_local&) = delete;
  ~fiber_local() {
    detail::drop_local(key_);
    detail::free_local_key(key_);
  }

  // The calling fiber's value, made now if this is its first use. Valid until the fiber ends. Throws what making it throws;
  // then there is none.
  T& get() {
    detail::local_node* node = detail::find_local(key_);
    if (CONCUR_LIKELY(node != nullptr)) return static_cast<holder*>(node)->value;
    return make();
  }
  T& operator*() { return get(); }
  T* operator->() { return std::addressof(get()); }
  // Whether the calling fiber has a value already. Makes none.
  bool has_value() const noexcept { return detail::find_local(key_) != nullptr; }

 private:
  struct holder : detail::local_node {
    holder() : value() {}
    explicit holder(detail::maker<T>& from) : value(from.make()) {}
    T value;
  };

  CONCUR_NOINLINE T& make() {
    detail::make_room_for_local(key_.index);
    holder* fresh = new_holder();
    fresh->id = key_.id;
    fresh->index = key_.index;
    fresh->destroy = [](detail::local_node* node) noexcept { delete static_cast<holder*>(node); };
    detail::attach_local(fresh);
    return fresh->value;
  }
  holder* new_holder() {
    if constexpr (std::is_default_constructible<T>::value) {
      if (maker_ == nullptr) return new holder();
    }
    return new holder(*maker_);
  }

  std::unique_ptr<detail::maker<T>> maker_;
  detail::local_key key_;
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

// --- which index is whose ---

struct local_registry {
  spin_lock lock;
  std::uint64_t last_id = 0;
  std::uint32_t index_count = 0;
  std::vector<std::uint32_t> free_indexes;
};

CONCUR_INLINE local_registry& local_keys() {
  static local_registry* keys = new local_registry();  // never destroyed: variables of static life come here last of all
  return *keys;
}

CONCUR_INLINE local_key new_local_key() {
  local_registry& keys = local_keys();
  lock_scope<spin_lock> held(keys.lock);
  if (keys.free_indexes.empty()) {
    // What free_local_key pushes fits without an allocation.
    keys.free_indexes.reserve(keys.index_count + std::size_t{1});
    return {++keys.last_id, keys.index_count++};
  }
  const std::uint32_t index = keys.free_indexes.back();
  keys.free_indexes.pop_back();
  return {++keys.last_id, index};
}

CONCUR_INLINE void free_local_key(local_key key) noexcept {
  local_registry& keys = local_keys();
  lock_scope<spin_lock> held(keys.lock);
  keys.free_indexes.push_back(key.index);
}

// --- whose table ---

CONCUR_INLINE void destroy_table(local_table* table) noexcept {
  while (local_node* node = table->newest) {
    table->newest = node->older;
    table->nodes[node->index] = nullptr;
    table->depth = node->depth + 1;
    node->destroy(node);
  }
  delete[] table->nodes;
  delete table;
}

// One key of the system's for all fiber_locals: it tells us when a thread ends.
struct thread_table_key {
  thread_table_key() noexcept {
    if (pthread_key_create(&key, &end_of_thread) != 0)
      on_fatal("concur::fiber_local: the system has no key left for thread-specific data");
  }
  static void end_of_thread(void* raw) noexcept;
  pthread_key_t key{};
};

CONCUR_INLINE thread_table_key& thread_tables() noexcept {
  static thread_table_key tables;
  return tables;
}

// The system has cleared the thread's pointer; destructors that use a fiber_local are to find the table.
CONCUR_INLINE void thread_table_key::end_of_thread(void* raw) noexcept {
  pthread_setspecific(thread_tables().key, raw);
  destroy_table(static_cast<local_table*>(raw));
  pthread_setspecific(thread_tables().key, nullptr);
}

CONCUR_INLINE local_table* thread_locals() noexcept {
  return static_cast<local_table*>(pthread_getspecific(thread_tables().key));
}

CONCUR_INLINE local_table* new_current_table() {
  local_table* table = new local_table();
  worker* w = this_worker();
  if (w != nullptr && w->current != nullptr) {
    w->current->locals = table;
    w->current->has_belongings = true;
  } else if (const int error = pthread_setspecific(thread_tables().key, table)) {
    delete table;
    fail_system(error, "concur::fiber_local: no memory for this thread's values");
  }
  return table;
}

CONCUR_INLINE local_table* make_room_for_local(std::uint32_t index) {
  local_table* table = current_locals();
  if (table == nullptr) table = new_current_table();
  if (index >= table->node_room) {
    const std::uint32_t wanted = index + 1 > 2 * table->node_room ? index + 1 : 2 * table->node_room;
    local_node** nodes = new local_node*[wanted]();
    for (std::uint32_t i = 0; i < table->node_room; ++i) nodes[i] = table->nodes[i];
    delete[] table->nodes;
    table->nodes = nodes;
    table->node_room = wanted;
  }
  return table;
}

CONCUR_INLINE void detach_local(local_table* table, local_node* node) noexcept {
  local_node** link = &table->newest;
  while (*link != node) link = &(*link)->older;
  *link = node->older;
  table->nodes[node->index] = nullptr;
}

CONCUR_INLINE void attach_local(local_node* node) noexcept {
  constexpr std::uint32_t depth_max = 4;
  local_table* table = current_locals();
  local_node* stale = table->nodes[node->index];
  if (stale != nullptr) detach_local(table, stale);
  node->depth = table->depth;
  if (node->depth > depth_max)
    on_fatal("concur::fiber_local: destructors of values go on making new ones; at the end of a fiber that must stop");
  node->older = table->newest;
  table->newest = node;
  table->nodes[node->index] = node;
  if (stale == nullptr) return;
  // Not the business of the variable that is used now, nor of what cancels its fiber (X2).
  worker* const w = this_worker();
  fiber* const f = w != nullptr ? w->current : nullptr;
  if (f != nullptr && !CONCUR_MUTANT_IS(133)) ++f->shield_depth;
  stale->destroy(stale);
  if (f != nullptr && !CONCUR_MUTANT_IS(133)) --f->shield_depth;
}

CONCUR_INLINE void drop_local(local_key key) noexcept {
  local_node* node = find_local(key);
  if (node == nullptr) return;
  detach_local(current_locals(), node);
  node->destroy(node);
}

CONCUR_INLINE void destroy_locals(fiber* f) noexcept {
  if (f->locals == nullptr) return;
  if (!CONCUR_MUTANT_IS(133)) ++f->shield_depth;
  destroy_table(f->locals);
  f->locals = nullptr;
  if (!CONCUR_MUTANT_IS(133)) --f->shield_depth;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// structure/spawn.hpp - a function becomes a fiber.
//
// The fiber's block has room for a small closure and its result; a large one gets memory of its own. The closure is
// destroyed as soon as it has returned, and then the fiber's fiber_locals, before the result is published: who waits for
// the fiber may rely on what it held being gone.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// The error of a fiber for which there was no stack.
CONCUR_INLINE std::exception_ptr no_stack_error(const fiber* f, int error) noexcept;
// An exception that nobody took goes to the fiber's runtime, if that is still there.
CONCUR_INLINE void hand_on_exception(fiber* f, std::exception_ptr error) noexcept;
[[noreturn]] CONCUR_INLINE void fail_no_fiber();
// Runs what came due by the end of a fiber, whose block may be another's by now.
CONCUR_INLINE void run_due_after_end(due_list& due) noexcept;

template <class F>
using result_of = std::invoke_result_t<F>;

// A function until it has been called.
template <class F>
class closure_room {
 public:
  template <class G>
  explicit closure_room(G&& function) {
    ::new (static_cast<void*>(room_)) F(std::forward<G>(function));
  }
  closure_room(const closure_room&) = delete;
  closure_room& operator=(const closure_room&) = delete;

  F& function() noexcept { return *std::launder(reinterpret_cast<F*>(room_)); }
  void destroy() noexcept { function().~F(); }
  // The function is destroyed when it has returned, or thrown.
  decltype(auto) call() {
    const struct closure_end {
      closure_room& room;
      ~closure_end() { room.destroy(); }
    } end{*this};
    return std::move(function())();
  }

 private:
  alignas(F) unsigned char room_[sizeof(F)];
};

// Whether it fits into the fiber's block. Else it gets memory of its own.
template <class Payload>
inline constexpr bool is_in_block = sizeof(Payload) <= fiber_room_bytes && alignof(Payload) <= 16;

// The block, and what its payload needed besides, go home.
template <class Payload>
void free_payload(Payload* payload, fiber* host) noexcept {
  payload->~Payload();
  if constexpr (!is_in_block<Payload>)
    ::operator delete(static_cast<void*>(payload), std::align_val_t(alignof(Payload)));
  free_fiber(host);
}

inline void end_locals(fiber* f) noexcept {
  if (CONCUR_UNLIKELY(f->has_belongings) && !CONCUR_MUTANT_IS(134)) destroy_locals(f);
}

// The payload of a fiber: closure and result.
template <class F>
class spawned : public result_state<result_of<F>> {
 public:
  template <class G>
  spawned(fiber* host, G&& function) : host_(host), closure_(std::forward<G>(function)) {
    this->release = &release_spawned;
  }
  void* as_payload() noexcept { return this; }

  static worker* run(fiber* f, int refusal) noexcept {
    spawned* self = static_cast<spawned*>(f->payload);
    if (CONCUR_UNLIKELY(refusal != 0)) {
      self->closure_.destroy();
      self->set_error(no_stack_error(f, refusal));
    } else {
      keep_outcome(*self, [self]() -> decltype(auto) { return self->closure_.call(); });
      end_locals(f);
    }
    f->set_state(fiber_state::finished);
    worker* const w = this_worker();
    due_list due;
    const bool is_wanted = self->complete(due, w);
    if (CONCUR_LIKELY(is_wanted && due.is_empty())) return w;
    if (!is_wanted) release_spawned(self);
    if (!due.is_empty()) run_due_after_end(due);
    return CONCUR_MUTANT_IS(440) ? w : this_worker();  // what was destroyed may have waited, and moved us
  }

  F& function() noexcept { return closure_.function(); }

  // The end of a fiber that was prepared and will not be launched; its outcome is in place.
  static void end_unlaunched(spawned* self, due_list& due) noexcept {
    self->closure_.destroy();
    if (!self->complete(due)) release_spawned(self);
  }

 private:
  static void release_spawned(future_state* state) noexcept {
    spawned* self = static_cast<spawned*>(state);
    if (self->error != nullptr && self->is_reported) hand_on_exception(self->host_, self->error);
    self->destroy();
    free_payload(self, self->host_);
  }

  fiber* host_;
  closure_room<F> closure_;
};

// What the function's copy constructor throws must not cost the block.
template <class Payload, class F>
Payload* construct_payload(fiber* f, void* memory, F&& function) {
#if CONCUR_EXCEPTIONS
  try {
    return ::new (memory) Payload(f, std::forward<F>(function));
  } catch (...) {
    if constexpr (!is_in_block<Payload>) ::operator delete(memory, std::align_val_t(alignof(Payload)));
    free_fiber(f);
    throw;
  }
#else
  return ::new (memory) Payload(f, std::forward<F>(function));
#endif
}

// Puts `function` into a new block, which is not launched yet. The block is free again if that throws.
template <class Payload, class F>
Payload* prepare_payload(fiber* f, F&& function) {
  if (CONCUR_UNLIKELY(f == nullptr)) fail_no_fiber();
  void* memory = f->room;
  if constexpr (!is_in_block<Payload>) {
    memory = ::operator new(sizeof(Payload), std::align_val_t(alignof(Payload)), std::nothrow);
    if (CONCUR_UNLIKELY(memory == nullptr)) {
      free_fiber(f);
      fail_no_fiber();
    }
  }
  Payload* state = construct_payload<Payload>(f, memory, std::forward<F>(function));
  f->payload = state->as_payload();
  f->entry = &Payload::run;
  return state;
}
template <class F>
spawned<std::decay_t<F>>* prepare_fiber(fiber* f, F&& function) {
  return prepare_payload<spawned<std::decay_t<F>>>(f, std::forward<F>(function));
}

// Makes `function` a fiber of s, and returns where its result will be. w: the calling thread's worker if it is one of
// s's, else null.
template <class F>
future<result_of<std::decay_t<F>>> spawn(scheduler& s, worker* w, F&& function) {
  fiber* f = s.new_fiber(w);
  auto* state = prepare_fiber(f, std::forward<F>(function));
  s.launch(w, f);
  return future<result_of<std::decay_t<F>>>(state);
}

// A function with its arguments, kept as std::thread keeps them.
template <class F, class... Args>
auto bind_call(F&& function, Args&&... args) {
  if constexpr (sizeof...(Args) == 0) {
    return std::decay_t<F>(std::forward<F>(function));
  } else {
    return [call = std::decay_t<F>(std::forward<F>(function)),
            kept = std::tuple<std::decay_t<Args>...>(std::forward<Args>(args)...)]() mutable -> decltype(auto) {
      return std::apply(std::move(call), std::move(kept));
    };
  }
}

// The worker of the calling fiber. Throws std::logic_error on a thread that runs none.
CONCUR_INLINE worker* must_be_worker(const char* what);

}  // namespace detail

// Runs f(args...) as a fiber of the calling fiber's runtime, and returns where its result will be. The future may be
// dropped; run() waits for the fiber all the same, and rethrows an exception that nobody took. Arguments are copied
// or moved, as by std::thread. What comes before go() happens before f; f's end happens before get(). Throws
// std::logic_error outside a runtime, and std::system_error (not_enough_memory) when no block can be had; if no stack
// can be had later, get() throws that.
template <class F, class... Args>
auto go(F&& f, Args&&... args) -> future<std::invoke_result_t<std::decay_t<F>, std::decay_t<Args>...>> {
  detail::worker* w = detail::must_be_worker("concur::go");
  return detail::spawn(*w->sched, w, detail::bind_call(std::forward<F>(f), std::forward<Args>(args)...));
}

CONCUR_NAMESPACE_END

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE std::exception_ptr no_stack_error([[maybe_unused]] const fiber* f, [[maybe_unused]] int error) noexcept {
#  if CONCUR_EXCEPTIONS
  try {
    return std::make_exception_ptr(std::system_error(
        error, std::system_category(),
        "concur: no stack for fiber " + std::to_string(f->id) + " of " + std::to_string(f->owner->settings.stack_size) +
            " bytes; it did not run. Use fewer parked fibers, smaller stacks, or raise the memory limit"));
  } catch (...) {
    return std::current_exception();
  }
#  else
  on_fatal("there is no memory for the stack of another fiber");
#  endif
}

CONCUR_INLINE void hand_on_exception(fiber* f, std::exception_ptr error) noexcept {
  pool_of(f)->with_owner([](scheduler* s, void* taken) { s->keep_exception(*static_cast<std::exception_ptr*>(taken)); },
                      &error);
}

// The fiber is over: nothing that is called here may take its block for the caller's.
CONCUR_INLINE void run_due_after_end(due_list& due) noexcept {
  worker* w = this_worker();
  if (w != nullptr && !CONCUR_MUTANT_IS(143)) w->current = nullptr;
  run_due(due);
}

CONCUR_INLINE void fail_no_fiber() {
  fail_system(ENOMEM, "concur::go: no memory for another fiber; the runtime goes on, try again when some have ended");
}

CONCUR_INLINE worker* must_be_worker(const char* what) {
  worker* w = this_worker();
  if (CONCUR_UNLIKELY(w == nullptr || w->current == nullptr))
    fail_logic(std::string(what) +
               ": this thread runs no fibers; call it inside concur::run, or use runtime::go from outside");
  return w;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// structure/cancel_token.hpp - "was it cancelled?" as a handle, for code that knows nothing of scopes.
//
// Scopes reach fibers by themselves. A token is for the rest: a loop on a plain thread, a callback, a library that takes a
// std::stop_token. It can be copied and kept for as long as one likes.
//
//     cancel_source            somebody's button; its tokens are cancelled when it is pressed
//     this_fiber::token()      cancelled when the scope that the fiber is in is
//     std::stop_token          converts both ways where the compiler has it (C++20)
//
// And cancel_scope(token) makes a scope that is cancelled with the token: so other code's button reaches fibers.

#if __cplusplus >= 202002L && defined(__has_include)
#  if __has_include(<stop_token>)
#    include <stop_token>
#  endif
#endif
#if defined(__cpp_lib_jthread)
#  define CONCUR_HAS_STOP_TOKEN 1
#else
#  define CONCUR_HAS_STOP_TOKEN 0
#endif

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Holds a token_state, or nothing.
class token_handle {
 public:
  token_handle() noexcept = default;
  explicit token_handle(token_state* held) noexcept : state_(held) {}
  token_handle(const token_handle& other) noexcept : state_(other.state_) {
    if (state_ != nullptr) state_->hold();
  }
  token_handle(token_handle&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  token_handle& operator=(token_handle other) noexcept {
    std::swap(state_, other.state_);
    return *this;
  }
  ~token_handle() {
    if (state_ != nullptr) state_->release();
  }
  token_state* get() const noexcept { return state_; }

 private:
  token_state* state_ = nullptr;
};

// Throws std::bad_alloc for null.
CONCUR_INLINE token_state* must_have_token(token_state* made);
CONCUR_INLINE token_state* new_token_state();

}  // namespace detail

// Tells whether something was cancelled. A default-constructed one never is. All members may be called from any thread, and
// do not wait.
class cancel_token {
 public:
  cancel_token() noexcept = default;
  explicit cancel_token(detail::token_handle held) noexcept : handle_(std::move(held)) {}

  // What was done before the cancellation is seen by who sees it.
  bool cancelled() const noexcept { return handle_.get() != nullptr && handle_.get()->is_cancelled(); }
  // Throws concur::cancelled if it is. No parking operation, and none of its own fiber's business.
  void checkpoint() const {
    if (cancelled()) detail::fail_cancelled();
  }
  friend bool operator==(const cancel_token& a, const cancel_token& b) noexcept {
    return a.handle_.get() == b.handle_.get();
  }
  friend bool operator!=(const cancel_token& a, const cancel_token& b) noexcept { return !(a == b); }

#if CONCUR_HAS_STOP_TOKEN
  // Cancelled when a stop is requested. Throws std::bad_alloc.
  cancel_token(std::stop_token source);
  // A stop is requested when this is cancelled. Throws std::bad_alloc.
  operator std::stop_token() const;
#endif

  const detail::token_handle& handle() const noexcept { return handle_; }

 private:
  detail::token_handle handle_;
};

// Cancels its tokens. Copies are the same source.
class cancel_source {
 public:
  // Throws std::bad_alloc.
  cancel_source() : handle_(detail::new_token_state()) {}

  cancel_token token() const noexcept { return cancel_token(handle_); }
  // Once and for all; further calls do nothing. Scopes that were made of its tokens are cancelled before this returns, and
  // callbacks of stop_tokens have run, here. From any thread.
  void cancel() noexcept {
    if (handle_.get() != nullptr) handle_.get()->cancel();
  }
  bool cancelled() const noexcept { return handle_.get() != nullptr && handle_.get()->is_cancelled(); }

 private:
  detail::token_handle handle_;
};

namespace this_fiber {

// Cancelled when the scope is that the calling fiber is in now; it stays so when a later shield keeps the fiber from feeling
// it. On a plain thread one that is never cancelled. Throws std::bad_alloc.
CONCUR_INLINE cancel_token token();

}  // namespace this_fiber

#if CONCUR_HAS_STOP_TOKEN
namespace detail {

// Freed with its state. If a stop is being requested on another thread, freeing the callback waits for that.
struct bridge_from_stop {
  struct press {
    token_state* state;
    void operator()() const noexcept { state->cancel(); }
  };
  bridge_from_stop(const std::stop_token& source_in, token_state* state)
      : source(source_in), callback(source_in, press{state}) {}

  std::stop_token source;
  std::stop_callback<press> callback;
};

struct bridge_to_stop : token_listener {
  bridge_to_stop() : token_listener(&bridge_to_stop::request) {}
  static void request(token_listener* self) noexcept { static_cast<bridge_to_stop*>(self)->source.request_stop(); }

  std::stop_source source;
};

// What is behind a state's bridge pointer.
struct stop_bridge : token_bridge {
  stop_bridge() noexcept : token_bridge{&stop_bridge::free_this} {}
  bridge_to_stop* to = nullptr;
  bridge_from_stop* from = nullptr;
  ~stop_bridge() {
    delete from;
    delete to;
  }
  static void free_this(token_bridge* self) noexcept { delete static_cast<stop_bridge*>(self); }
};

inline std::stop_token stop_token_of(token_state& state) {
  stop_bridge* made = static_cast<stop_bridge*>(state.bridge.load(std::memory_order_acquire));  // acquire: as below
  if (made == nullptr) {
    stop_bridge* const fresh = new stop_bridge();
    fresh->to = new bridge_to_stop();
    token_bridge* before = nullptr;
    // acq_rel: publishes the fresh one, or acquires the one another thread made first.
    if (state.bridge.compare_exchange_strong(before, fresh, std::memory_order_acq_rel, std::memory_order_acquire)) {
      made = fresh;
      if (!state.listen(*made->to)) made->to->source.request_stop();
    } else {
      delete fresh;
      made = static_cast<stop_bridge*>(before);
    }
  }
  return made->to != nullptr ? made->to->source.get_token() : made->from->source;
}

}  // namespace detail

inline cancel_token::cancel_token(std::stop_token source) : handle_(detail::new_token_state()) {
  detail::token_state& state = *handle_.get();
  detail::stop_bridge* const bridge = new detail::stop_bridge();
  state.bridge.store(bridge, std::memory_order_relaxed);  // relaxed: nobody else has the state yet
  bridge->from = new detail::bridge_from_stop(source, &state);
}

inline cancel_token::operator std::stop_token() const {
  return handle_.get() != nullptr ? detail::stop_token_of(*handle_.get()) : std::stop_token();
}
#endif

CONCUR_NAMESPACE_END

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE token_state* must_have_token(token_state* made) {
  if (made == nullptr) raise(std::bad_alloc(), "concur::cancel_token: no memory for a token");
  return made;
}

CONCUR_INLINE token_state* new_token_state() { return must_have_token(new (std::nothrow) token_state()); }

}  // namespace detail

namespace this_fiber {

CONCUR_INLINE cancel_token token() {
  detail::worker* const w = detail::this_worker();
  if (w == nullptr || w->current == nullptr) return cancel_token();
  return cancel_token(detail::token_handle(detail::must_have_token(detail::token_of(*w->current->innermost()))));
}

}  // namespace this_fiber
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// structure/cancel_scope.hpp - a block that can be called off: by hand, by a deadline, or by a token.
//
// The mechanism under fail_after, move_on_after, shield and nurseries. Whatever parks inside the block, in this fiber or in
// one below it, is woken with `cancelled`, and whatever comes to park later gets it at once, again and again, until the
// block is left. The exception brings the fiber out of the block through its destructors, and ends where it was caused:
//
//     cancelled         what surrounds it     a `cancelled` that reaches the block's end
//     this scope        not cancelled         stops here: run() returns nothing
//     this scope        cancelled too         goes on outwards
//     not this scope    cancelled             goes on outwards
//
// Two ways to use one:
//
//     cancel_scope scope;                 the rest of the block is the scope. `cancelled` is the block's own to catch
//     scope.run([&] { ... });             the function is the scope, and run() catches. Also for a scope that another fiber,
//                                         or this one, made before: cancel_scope scope(concur::deferred);
//
// Where it lies in the tree, and how a cancellation finds who is below, is in runtime/scope.hpp and cancel.hpp.

CONCUR_NAMESPACE_BEGIN

struct deferred_t {
  explicit constexpr deferred_t() = default;
};
// Makes a cancel_scope that is entered by run().
inline constexpr deferred_t deferred{};

namespace detail {

// What run() and move_on_after return: nothing, when the scope was called off.
template <class R>
struct unless_cancelled {
  using type = std::optional<R>;
};
template <class R>
struct unless_cancelled<R&> {
  using type = R*;
};
template <>
struct unless_cancelled<void> {
  using type = bool;
};

class nursery_core;
struct time_limit;

}  // namespace detail

// Not copied, not moved; entered and left by one fiber, once, and scopes of a fiber are left in reverse order: use it as a
// variable of a block. cancel, deadline, shield and the questions may be called from any fiber and thread while it exists.
// Entering and leaving costs two uncontended locks; a deadline two more. No allocation, except for token().
class cancel_scope {
 public:
  // Entered here. Throws std::logic_error outside a fiber.
  cancel_scope() { enter("concur::cancel_scope", false); }
  // Not entered yet. What is done to it before counts: a scope that was cancelled raises at the first checkpoint.
  explicit cancel_scope(deferred_t) noexcept {}
  // Entered here; cancelled when the token is.
  explicit cancel_scope(const cancel_token& when) : when_(when) { enter("concur::cancel_scope", false); }
  // Leaves it, if run() has not.
  ~cancel_scope() { leave(); }
  cancel_scope(const cancel_scope&) = delete;
  cancel_scope& operator=(const cancel_scope&) = delete;

  // Calls f() inside the scope, and leaves the scope. Returns what f returned as an optional (a bool for void): empty (or
  // false) if a `cancelled` of this scope came out of f. Every other exception passes. A f that swallowed `cancelled` and
  // returned has returned. Throws std::logic_error if the scope was entered by another fiber, was left, or is not the
  // innermost of this fiber. Without exceptions: empty when an operation inside was told that this scope is cancelled.
  template <class F>
  auto run(F&& f) -> typename detail::unless_cancelled<std::invoke_result_t<F>>::type;

  // Wakes everybody below who parks, and lets nobody park any more. Once and for all. Does not wait for anybody.
  void cancel() noexcept { detail::cancel_scope_tree(core_); }
  // Whether what is inside is to end: this scope was cancelled, or what surrounds it, unless shielded.
  bool cancelled() const noexcept {
    return core_.is_effective() || core_.was_called.load(std::memory_order_relaxed);  // relaxed: a look in passing
  }

  // Cancels the scope at that time, if it is still entered then. Any clock; time_point::max() is no deadline, and takes one
  // back that has not passed. A moment that has passed cancels at once, or on entering. Not from a callback of its token.
  template <class Clock, class Duration>
  void deadline(const std::chrono::time_point<Clock, Duration>& tp) {
    set_deadline(detail::deadline_at(tp));
  }
  // time_point::max(): none.
  std::chrono::steady_clock::time_point deadline() const noexcept;

  // Whether cancellation from outside is kept off. Taking the shield away lets it in at once, also to who is parked.
  void shield(bool keeps_off = true) noexcept { detail::set_scope_shield(core_, keeps_off); }
  bool shielded() const noexcept {
    return core_.is_shielded.load(std::memory_order_relaxed);  // relaxed: a look in passing
  }

  // Whether a `cancelled` of this scope ended it: it came to run(); or, for a scope entered by its constructor, it was
  // thrown inside.
  bool cancelled_caught() const noexcept {
    return is_caught_ || (!has_run_ && core_.was_raised.load(std::memory_order_relaxed) &&  // relaxed: as above
                          !core_.surroundings_cancelled());
  }

  // A token that is cancelled with this scope. Throws std::bad_alloc.
  cancel_token token() { return cancel_token(detail::token_handle(detail::must_have_token(detail::token_of(core_)))); }

 private:
  friend class detail::nursery_core;
  template <class F>
  friend auto shield(F&& f) -> std::invoke_result_t<F>;
  friend struct detail::time_limit;

  enum class stage : unsigned char { before, entered, left };
  struct own_alarm : detail::alarm {
    explicit own_alarm(cancel_scope& of_in) noexcept
        : alarm([](alarm* self) noexcept { static_cast<own_alarm*>(self)->of.cancel(); }), of(of_in) {}
    cancel_scope& of;
  };
  struct own_listener : detail::token_listener {
    explicit own_listener(cancel_scope& of_in) noexcept
        : token_listener([](token_listener* self) noexcept { static_cast<own_listener*>(self)->of.cancel(); }),
          of(of_in) {}
    cancel_scope& of;
  };
  struct leave_at_end {
    explicit leave_at_end(cancel_scope& of_in) noexcept : of(of_in) {}
    ~leave_at_end() { of.leave(); }
    leave_at_end(const leave_at_end&) = delete;
    leave_at_end& operator=(const leave_at_end&) = delete;
    cancel_scope& of;
  };

  // A nursery's: walkers may come through it from the moment it is entered.
  cancel_scope(detail::nursery_part& below, const char* what) {
    below.top = &core_;
    core_.below = &below;
    enter(what, false);
  }

  // run(), by another name in reports.
  template <class F>
  auto run_as(const char* what, F&& f) -> typename detail::unless_cancelled<std::invoke_result_t<F>>::type;
  void enter(const char* what, bool is_shared);
  void leave() noexcept;
  void begin_run(const char* what);
  // For a `cancelled` that came to the end of f.
  bool catches() noexcept { return is_caught_ = core_.is_origin() || CONCUR_MUTANT_IS(208); }
  // Without exceptions: the same for who was told by other means.
  bool was_told() const noexcept {
    return core_.is_origin() && core_.was_raised.load(std::memory_order_relaxed);  // relaxed: as above
  }
  void set_deadline(detail::nanoseconds_t deadline_ns) noexcept;
  bool arm() noexcept;

  detail::scope core_;
  cancel_token when_;
  own_listener listener_{*this};
  own_alarm alarm_{*this};
  mutable spin_lock timer_lock_;  // guards stage_, deadline_ns_ and the alarm's setting
  stage stage_ = stage::before;
  bool has_run_ = false;
  bool is_caught_ = false;
  detail::nanoseconds_t deadline_ns_ = detail::never;
};

template <class F>
auto cancel_scope::run(F&& f) -> typename detail::unless_cancelled<std::invoke_result_t<F>>::type {
  return run_as("concur::cancel_scope::run", std::forward<F>(f));
}

template <class F>
auto cancel_scope::run_as(const char* what, F&& f) -> typename detail::unless_cancelled<std::invoke_result_t<F>>::type {
  using R = std::invoke_result_t<F>;
  using result = typename detail::unless_cancelled<R>::type;
  [[maybe_unused]] const auto keep = [](auto&& value) -> result {
    if constexpr (std::is_reference<R>::value)
      return std::addressof(value);
    else
      return result(std::forward<decltype(value)>(value));
  };
  begin_run(what);
  leave_at_end end(*this);
#if CONCUR_EXCEPTIONS
  try {
    if constexpr (std::is_void<R>::value) {
      std::forward<F>(f)();
      return true;
    } else {
      return keep(std::forward<F>(f)());
    }
  } catch (const concur::cancelled&) {
    if (!catches()) throw;
    return result();
  }
#else
  if constexpr (std::is_void<R>::value) {
    std::forward<F>(f)();
    return !was_told();
  } else {
    result value = keep(std::forward<F>(f)());
    if (was_told()) return result();
    return value;
  }
#endif
}

CONCUR_NAMESPACE_END

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE void cancel_scope::enter(const char* what, bool is_shared) {
  detail::worker* const w = detail::must_be_worker(what);
  detail::enter_scope(core_, *w->current, is_shared);
  bool has_passed = false;
  {
    detail::lock_scope<spin_lock> held(timer_lock_);
    stage_ = stage::entered;
    if (deadline_ns_ != detail::never) has_passed = !arm();
  }
  if (when_.handle().get() != nullptr && !when_.handle().get()->listen(listener_)) has_passed = true;
  if (has_passed) cancel();
}

CONCUR_INLINE void cancel_scope::leave() noexcept {
  if (stage_ != stage::entered) return;  // only its own fiber changes that
  if (detail::token_state* const state = when_.handle().get()) state->forget(listener_);
  {
    detail::lock_scope<spin_lock> held(timer_lock_);
    stage_ = stage::left;
    detail::timer_wheel::call_off_alarm(alarm_);
  }
  if (CONCUR_UNLIKELY(!detail::leave_scope(core_))) {
    on_fatal(
        "concur::cancel_scope: left by another fiber than entered it, or before a scope that was entered later; use "
        "scopes and nurseries as variables of nested blocks");
  }
}

CONCUR_INLINE void cancel_scope::begin_run(const char* what) {
  detail::worker* const w = detail::must_be_worker(what);
  if (stage_ == stage::before && !has_run_) {
    has_run_ = true;
    enter(what, true);
    return;
  }
  if (stage_ == stage::entered && !has_run_ && w->current->innermost() == &core_) {
    has_run_ = true;
    return;
  }
  detail::fail_logic(
      std::string(what) +
      ": the scope was run already, or is another fiber's, or another scope was entered since; a scope is "
      "run once");
}

// Under timer_lock_, while entered. False: the deadline has passed.
CONCUR_INLINE bool cancel_scope::arm() noexcept {
  if (deadline_ns_ == detail::never) return true;
  if (deadline_ns_ <= detail::now_ns()) return false;
  detail::scheduler* const home =
      core_.owner.load(std::memory_order_relaxed)->owner;  // relaxed: it cannot be left under timer_lock_
  detail::worker* const w = detail::this_worker();
  const bool is_here = w != nullptr && w->sched == home && w->current != nullptr;
  detail::timer_wheel& wheel = is_here ? w->timers : home->workers[0].timers;
  alarm_.deadline_ns = deadline_ns_;
  wheel.set(alarm_);
  if (!is_here) home->idle.hear_timer(*home, wheel);
  return true;
}

CONCUR_INLINE void cancel_scope::set_deadline(detail::nanoseconds_t deadline_ns) noexcept {
  bool has_passed = false;
  {
    detail::lock_scope<spin_lock> held(timer_lock_);
    deadline_ns_ = deadline_ns;
    if (stage_ != stage::entered) return;
    if (!CONCUR_MUTANT_IS(298)) detail::timer_wheel::call_off_alarm(alarm_);
    has_passed = !arm();
  }
  if (has_passed) cancel();
}

CONCUR_INLINE std::chrono::steady_clock::time_point cancel_scope::deadline() const noexcept {
  using clock = std::chrono::steady_clock;
  detail::lock_scope<spin_lock> held(timer_lock_);
  if (deadline_ns_ == detail::never) return (clock::time_point::max)();
  return clock::time_point(std::chrono::duration_cast<clock::duration>(std::chrono::nanoseconds(deadline_ns_)));
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// structure/time_limit.hpp - a limit on how long something may take, and a shield for what must not be cut short.
//
//     the limit passes                      say
//     and that is an error                  fail_after(d, f), fail_at(tp, f)             throws timed_out
//     and one does without the result       move_on_after(d, f), move_on_at(tp, f)       returns nothing
//
// The limit holds for all that f waits for, in whatever it calls, and in the nurseries that it opens; no operation inside has
// to know of it. Limits nest: the earliest that passes ends what is inside it, and its own block says so. A limit that passes
// while f computes is felt at f's next checkpoint.

CONCUR_NAMESPACE_BEGIN
namespace detail {

[[noreturn]] CONCUR_INLINE void fail_limit(const char* what);

struct time_limit {
  template <class F>
  static auto move_on(nanoseconds_t deadline_ns, const char* what, F&& f) {
    cancel_scope scope(deferred);
    scope.deadline_ns_ = deadline_ns;
    return scope.run_as(what, std::forward<F>(f));
  }
  template <class F>
  static std::invoke_result_t<F> fail(nanoseconds_t deadline_ns, const char* what, F&& f) {
    using R = std::invoke_result_t<F>;
    auto result = move_on(deadline_ns, what, std::forward<F>(f));
    if (!result) fail_limit(what);
    if constexpr (std::is_reference<R>::value) {
      return static_cast<R>(*result);
    } else if constexpr (!std::is_void<R>::value) {
      return std::move(*result);
    }
  }
};

}  // namespace detail

// Returns what f() returns, or throws timed_out if that takes longer than d. What f has open then is closed by its
// destructors; fibers that f started in nurseries have ended. A limit that is zero or less raises at f's first checkpoint.
// Throws std::logic_error outside a fiber. Costs about 0.1 us and no allocation.
template <class Rep, class Period, class F>
auto fail_after(std::chrono::duration<Rep, Period> d, F&& f) -> std::invoke_result_t<F> {
  return detail::time_limit::fail(detail::deadline_after(d), "concur::fail_after", std::forward<F>(f));
}
template <class Clock, class Duration, class F>
auto fail_at(const std::chrono::time_point<Clock, Duration>& tp, F&& f) -> std::invoke_result_t<F> {
  return detail::time_limit::fail(detail::deadline_at(tp), "concur::fail_at", std::forward<F>(f));
}

// Returns what f() returns as an optional, or for a void f whether it returned: empty, or false, if it would have taken longer
// than d. Otherwise as fail_after.
template <class Rep, class Period, class F>
auto move_on_after(std::chrono::duration<Rep, Period> d, F&& f) ->
    typename detail::unless_cancelled<std::invoke_result_t<F>>::type {
  return detail::time_limit::move_on(detail::deadline_after(d), "concur::move_on_after", std::forward<F>(f));
}
template <class Clock, class Duration, class F>
auto move_on_at(const std::chrono::time_point<Clock, Duration>& tp, F&& f) ->
    typename detail::unless_cancelled<std::invoke_result_t<F>>::type {
  return detail::time_limit::move_on(detail::deadline_at(tp), "concur::move_on_at", std::forward<F>(f));
}

// Returns what f() returns; cancellation from outside waits until f is through, and is felt at the first checkpoint behind.
// For what must be brought to its end: give it a limit of its own inside. Throws std::logic_error outside a fiber.
template <class F>
auto shield(F&& f) -> std::invoke_result_t<F> {
  cancel_scope scope(deferred);
  scope.shield();
  scope.begin_run("concur::shield");
  return std::forward<F>(f)();
}

CONCUR_NAMESPACE_END

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void fail_limit(const char* what) {
  const std::string text =
      std::string(what) + ": the time limit passed before the function returned; move_on_after returns nothing instead";
  fail_timed_out(text.c_str());
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// structure/nursery_core.hpp - the part of a nursery that does not depend on what its children do.
//
// A nursery is a scope (cancel_scope.hpp) below which fibers live, the number of them, and what went wrong. It begins with
// its block and ends with it, and never before its last child:
//
//     stage     children        next
//     open      come and go     ended, when the host found none left in wait_for_children
//     ended     none, ever      -
//
//   Y1  running_ counts the children that have not ended and the places that were promised to who waits for room; it and the
//       list of members change under the gate's lock. It is the ending child's last touch: whoever finds it 0 under the lock
//       may let the nursery go.
//   Y2  The host waits for its children deaf to cancellation: the cancellation reaches the children, and it is their end that
//       wakes the host.
//   Y3  A child's failure is written down, and the siblings are cancelled, before the child leaves.
//   Y4  With a limit, a place that becomes free goes to who has waited for one the longest. Who is cancelled while it waits
//       takes none: the place is promised by the claim.

CONCUR_NAMESPACE_BEGIN

// What becomes of its siblings when a child fails.
enum class on_failure : unsigned char {
  cancel_siblings,  // they are not wanted any more
  keep_going,       // they go on; the failure is told when all have ended
};

namespace detail {

// How a child ended that did not do what it was for: by an exception, or by the std::error_code that it returned.
struct failure {
  std::exception_ptr error;
  std::error_code code;

  explicit operator bool() const noexcept { return error != nullptr || code; }
  void set_code(std::error_code returned) noexcept;
};

// Calls make(), and says how that failed. What was only cancelled did not.
template <class F>
failure failure_of(F&& make) noexcept {
  failure result;
  const auto call = [&] {
    using R = std::decay_t<std::invoke_result_t<F>>;
    if constexpr (std::is_same<R, std::error_code>::value)
      result.set_code(make());
    else
      static_cast<void>(make());
  };
#if CONCUR_EXCEPTIONS
  try {
    call();
  } catch (const cancelled&) {
  } catch (...) {
    result.error = std::current_exception();
  }
#else
  call();
#endif
  return result;
}

class nursery_core : public nursery_part {
 public:
  // Entered by the calling fiber. Throws std::logic_error outside of one.
  nursery_core(on_failure policy, const char* what);
  // Cancels and waits, unless ended. Failures that nobody was told of go to the runtime.
  ~nursery_core();
  nursery_core(const nursery_core&) = delete;
  nursery_core& operator=(const nursery_core&) = delete;

  // --- children ---

  // A block for a child; null when memory is exhausted.
  fiber* new_child() noexcept { return home_->new_fiber(own_worker()); }
  // Makes the prepared fiber a member and launches it; parks while there are as many as the limit. False: the caller was
  // cancelled, before or while it waited. Throws std::logic_error when the nursery has ended.
  bool admit(member& child, fiber* f);
  // A child's last step: the nursery may be gone afterwards.
  void dismiss(member& child) noexcept;
  // Y3. From a child, or from the host for its body.
  void fail(failure&& what) noexcept;

  void limit(std::size_t n);
  std::size_t size() const noexcept;
  std::vector<std::exception_ptr> failures() const;

  // --- the end, by the host ---

  // Throws std::logic_error unless the caller is the host, in no scope that it has entered since, and the nursery is open.
  void must_be_host(const char* what) const;
  // Y2; then the host is out of the scope. Returns whether what surrounds the nursery is cancelled.
  bool finish() noexcept;
  bool has_failed() const noexcept { return last_ != nullptr; }
  // Throws the first failure, as it was thrown. Returns when there is none, or, with `only_code`, when it has a code, which
  // is put there.
  void tell(std::error_code* only_code);

  cancel_scope scope;

 private:
  struct failure_note {
    failure what;
    failure_note* next = nullptr;
  };
  static constexpr std::size_t no_limit = static_cast<std::size_t>(-1);

  spin_lock& gate_lock() const noexcept { return const_cast<nursery_core*>(this)->gate.lock; }
  worker* own_worker() const noexcept {
    worker* const w = this_worker();
    return w != nullptr && w->sched == home_ && w->current != nullptr ? w : nullptr;
  }
  void wait_for_children() noexcept;
  [[noreturn]] void fail_ended();

  scheduler* home_;
  fiber* host_;
  on_failure policy_;
  bool is_ended_ = false;  // from here on under the gate's lock
  bool is_told_ = false;   // somebody was told of the failures
  std::size_t running_ = 0;
  std::size_t limit_ = no_limit;
  waiter* host_note_ = nullptr;  // null, or it waits for the last child
  failure_note first_;           // so that the first failure needs no memory
  failure_note* last_ = nullptr;
  std::size_t failure_count_ = 0;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void failure::set_code(std::error_code returned) noexcept {
  if (!returned || returned == std::errc::operation_canceled) return;
  code = returned;
#  if CONCUR_EXCEPTIONS
  error = std::make_exception_ptr(std::system_error(returned, "concur::nursery: a child returned an error"));
#  endif
}

CONCUR_INLINE nursery_core::nursery_core(on_failure policy, const char* what)
    : scope(static_cast<nursery_part&>(*this), what),
      home_(this_worker()->sched),
      host_(this_worker()->current),
      policy_(policy) {}

CONCUR_INLINE nursery_core::~nursery_core() {
  if (!is_ended_) {
    scope.cancel();
    finish();
  }
  if (has_failed() && !is_told_ && first_.what.error != nullptr) home_->keep_exception(first_.what.error);
  while (failure_note* const note = first_.next) {
    first_.next = note->next;
    delete note;
  }
}

// --- children ---

CONCUR_INLINE void nursery_core::fail_ended() {
  fail_logic("concur::nursery::go: the nursery has ended; start children while its block runs, or from its children");
}

CONCUR_INLINE bool nursery_core::admit(member& child, fiber* f) {
  spin_lock& lock = gate.lock;
  lock.lock();
  if (limit_ != no_limit) {
    lock.unlock();
    worker* w = nullptr;
    if (!checkpoint_quietly(w)) return false;
    lock.lock();
  }
  if (CONCUR_UNLIKELY(is_ended_)) {
    lock.unlock();
    fail_ended();
  }
  if (CONCUR_UNLIKELY(running_ >= limit_)) {
    caller me(this_worker());
    if (gate.wait(me, nullptr, never, wait_reason::nursery_room) == outcome::cancelled) return false;  // Y4
    if (worker* w = nullptr; CONCUR_MUTANT_IS(294) && !checkpoint_quietly(w)) return false;
    lock.lock();
  } else {
    ++running_;
  }
  child.who = f;
  join_nursery(child, *this);
  lock.unlock();
  home_->launch(own_worker(), f);
  return true;
}

CONCUR_INLINE void nursery_core::dismiss(member& child) noexcept {
  party* next = nullptr;
  {
    lock_scope<spin_lock> held(gate.lock);
    if (!CONCUR_MUTANT_IS(293)) leave_nursery(child);
    waiter* note = running_ <= limit_ && !CONCUR_MUTANT_IS(212) ? pop_claimed(gate.parties) : nullptr;
    if (note == nullptr && --running_ == 0 && host_note_ != nullptr) {
      // Taken away as it is claimed: the host gives it up before it has the lock, and a child may begin and end meanwhile.
      waiter* const host = CONCUR_MUTANT_IS(232) ? host_note_ : std::exchange(host_note_, nullptr);
      if (host->claim()) note = host;
    }
    if (note != nullptr) {
      next = note->who;
      next->result = outcome::granted;
    }
  }
  if (next != nullptr) resume(next);
  if (CONCUR_MUTANT_IS(293)) {
    lock_scope<spin_lock> held(gate.lock);
    leave_nursery(child);
  }
}

CONCUR_INLINE void nursery_core::fail(failure&& what) noexcept {
  failure_note* fresh = new (std::nothrow) failure_note();
  {
    lock_scope<spin_lock> held(gate.lock);
    ++failure_count_;
    if (last_ == nullptr) {
      last_ = &first_;
      last_->what = std::move(what);
    } else if (fresh != nullptr) {
      fresh->what = std::move(what);
      last_->next = fresh;
      last_ = std::exchange(fresh, nullptr);
    }
  }
  delete fresh;
  if (policy_ == on_failure::cancel_siblings && !CONCUR_MUTANT_IS(210)) scope.cancel();
}

CONCUR_INLINE void nursery_core::limit(std::size_t n) {
  if (n == 0)
    fail_argument("concur::nursery::limit", "n", "0", "every go() would wait for ever; set no limit to have none");
  ended_waits woken;
  {
    lock_scope<spin_lock> held(gate.lock);
    limit_ = n;
    while (running_ < limit_) {
      waiter* const note = pop_claimed(gate.parties);
      if (note == nullptr) break;
      ++running_;
      woken.add(note, outcome::granted);
    }
  }
  woken.resume_all();
}

CONCUR_INLINE std::size_t nursery_core::size() const noexcept {
  lock_scope<spin_lock> held(gate_lock());
  return running_;
}

CONCUR_INLINE std::vector<std::exception_ptr> nursery_core::failures() const {
  std::size_t count = 0;
  {
    lock_scope<spin_lock> held(gate_lock());
    count = failure_count_;
  }
  std::vector<std::exception_ptr> all;
  all.reserve(count);
  lock_scope<spin_lock> held(gate_lock());
  if (last_ == nullptr) return all;
  for (const failure_note* note = &first_; note != nullptr && all.size() < count; note = note->next)
    all.push_back(note->what.error);
  return all;
}

// --- the end ---

CONCUR_INLINE void nursery_core::must_be_host(const char* what) const {
  worker* const w = this_worker();
  if (w == nullptr || w->current != host_)
    fail_logic(std::string(what) + ": only the fiber that made the nursery may end it");
  if (is_ended_) fail_logic(std::string(what) + ": the nursery has ended; it ends once");
  if (host_->innermost() != &scope.core_)
    fail_logic(std::string(what) + ": a scope or nursery that was entered later is still open; end that first");
}

CONCUR_INLINE void nursery_core::wait_for_children() noexcept {
  worker* w = this_worker();
  for (;;) {
    gate.lock.lock();
    if (running_ == 0 || (CONCUR_MUTANT_IS(211) && scope.cancelled())) break;
    waiter note(host_, nullptr);
    host_note_ = &note;
    park_fiber(w, &gate.lock, never, wait_reason::nursery_join);
  }
  host_note_ = nullptr;
  is_ended_ = true;
  gate.lock.unlock();
}

CONCUR_INLINE bool nursery_core::finish() noexcept {
  ++host_->shield_depth;
  wait_for_children();
  --host_->shield_depth;
  const bool is_outside_cancelled = scope.core_.surroundings_cancelled();
  scope.leave();
  return is_outside_cancelled;
}

CONCUR_INLINE void nursery_core::tell(std::error_code* only_code) {
  is_told_ = true;
  if (!has_failed()) return;
  if (only_code != nullptr && first_.what.code)
    *only_code = first_.what.code;
  else
    rethrow(first_.what.error);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// structure/child.hpp - a function becomes a fiber that belongs to a nursery.
//
// The payload of such a fiber is its place in the nursery's list, and its function. A child whose result is wanted has a
// result besides (future_state.hpp), which may be asked for when nursery and child are long gone.
//
//   Z1  A child's function, and its fiber_locals, are destroyed, its failure is noted, its result can be had, before it
//       leaves the nursery.
//   Z2  The memory of a child with a result is held by the child, until it has left, and by the result.

CONCUR_NAMESPACE_BEGIN
namespace detail {

inline nursery_core& nursery_of(const member& child) noexcept { return static_cast<nursery_core&>(*child.home); }

CONCUR_INLINE failure no_stack_failure(const fiber* f, int error) noexcept;
// Notes the failure, if it is one. The nursery is still there afterwards.
CONCUR_INLINE void report_child(member& child, failure&& what) noexcept;

template <class F>
class child : public member {
 public:
  template <class G>
  child(fiber* host, G&& function) : closure_(std::forward<G>(function)) {
    who = host;
  }
  void* as_payload() noexcept { return static_cast<member*>(this); }
  child* result() noexcept { return this; }

  static worker* run(fiber* f, int refusal) noexcept {
    child* self = static_cast<child*>(static_cast<member*>(f->payload));
    failure what;
    if (CONCUR_UNLIKELY(refusal != 0)) {
      self->closure_.destroy();
      what = no_stack_failure(f, refusal);
    } else {
      what = failure_of([self]() -> decltype(auto) { return self->closure_.call(); });
      end_locals(f);
    }
    f->set_state(fiber_state::finished);
    report_child(*self, std::move(what));
    nursery_of(*self).dismiss(*self);
    free_payload(self, f);
    return this_worker();
  }
  // It was prepared, and will not be launched.
  void discard() noexcept {
    closure_.destroy();
    free_payload(this, who);
  }

 private:
  closure_room<F> closure_;
};

template <class F>
class child_with_result : public member, public result_state<result_of<F>> {
  using R = result_of<F>;

 public:
  template <class G>
  child_with_result(fiber* host, G&& function) : closure_(std::forward<G>(function)) {
    who = host;
    this->release = [](future_state* state) noexcept { static_cast<child_with_result*>(state)->let_go(); };
  }
  void* as_payload() noexcept { return static_cast<member*>(this); }
  result_state<R>* result() noexcept { return this; }

  static worker* run(fiber* f, int refusal) noexcept {
    child_with_result* self = static_cast<child_with_result*>(static_cast<member*>(f->payload));
    failure what;
    if (CONCUR_UNLIKELY(refusal != 0)) {
      self->closure_.destroy();
      what = no_stack_failure(f, refusal);
      self->set_error(what.error);
    } else {
      keep_outcome(*self, [self]() -> decltype(auto) { return self->closure_.call(); });
      if (self->has_failed()) {
        if (self->is_reported) what.error = self->error;
      } else if constexpr (std::is_same<R, std::error_code>::value) {
        what.set_code(self->get());
      }
      end_locals(f);
    }
    self->is_reported = false;  // the nursery tells of it
    f->set_state(fiber_state::finished);
    report_child(*self, std::move(what));
    due_list due;
    if (!self->complete(due)) self->let_go();
    if (CONCUR_UNLIKELY(!due.is_empty())) run_due_after_end(due);
    nursery_of(*self).dismiss(*self);
    self->let_go();
    return this_worker();
  }
  void discard() noexcept {
    closure_.destroy();
    free_payload(this, who);
  }

 private:
  void let_go() noexcept {
    // acq_rel: publishes what was done with it to who frees it, and sees what the other did.
    if (holders_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    this->destroy();
    free_payload(this, who);
  }

  atomic<std::uint32_t> holders_{2};  // Z2
  closure_room<F> closure_;
};

// Makes `function` a child of n. Null: the caller was cancelled, and n has a limit.
template <template <class> class Payload, class F>
auto start_child(nursery_core& n, F&& function) {
  using payload = Payload<std::decay_t<F>>;
  struct discard_at_end {
    payload* unlaunched;
    ~discard_at_end() {
      if (unlaunched != nullptr) unlaunched->discard();
    }
  };
  discard_at_end owner{prepare_payload<payload>(n.new_child(), std::forward<F>(function))};
  auto* const result = owner.unlaunched->result();
  if (!n.admit(*owner.unlaunched, owner.unlaunched->who)) return static_cast<decltype(result)>(nullptr);
  owner.unlaunched = nullptr;
  return result;
}

// For who has no other way to say that there is no child. Without exceptions there simply is none.
inline void must_have_started([[maybe_unused]] const void* child) {
#if CONCUR_EXCEPTIONS
  if (CONCUR_UNLIKELY(child == nullptr)) fail_cancelled();
#endif
}

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE failure no_stack_failure(const fiber* f, int error) noexcept {
  failure what;
  what.error = no_stack_error(f, error);
  what.code = std::error_code(error, std::system_category());
  return what;
}

CONCUR_INLINE void report_child(member& child, failure&& what) noexcept {
  if (CONCUR_UNLIKELY(static_cast<bool>(what))) nursery_of(child).fail(std::move(what));
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// structure/started.hpp - a child that says when it is up, and who waits for that.
//
// A server is of use when it listens, not when its fiber exists. nursery::start returns when the child has said so, with
// what it said (a port, say); and if it cannot come up, that is the caller's error, not the nursery's.
//
//     stage        meaning                                             next, by
//     waiting      nobody knows yet                                    up, failed: the child · abandoned: the caller
//     up           the value is there; the child is like any other     -
//     failed       the error is there, or there never will be a word   -
//     abandoned    the caller was cancelled, and waits for the end     -
//
//   B1  One changes the stage from waiting, by compare-exchange, and writes before that what goes with it.

CONCUR_NAMESPACE_BEGIN

template <class T>
class started;

namespace detail {

[[noreturn]] CONCUR_INLINE void fail_started_twice();
CONCUR_INLINE std::exception_ptr never_started_error() noexcept;

enum class start_stage : std::uint32_t { waiting, up, failed, abandoned };

// Held by both sides.
class start_core {
 public:
  // By the child. False: the caller has given up.
  bool settle(start_stage to) noexcept {
    const bool is_first = change(to);
    told.set();
    return is_first;
  }
  // By the child's end, if it was not up. False: the error is the nursery's.
  bool fail(failure&& what_in) noexcept {
    if (stage() != start_stage::waiting || CONCUR_MUTANT_IS(214)) return false;
    what = std::move(what_in);
    return settle(start_stage::failed);
  }
  // By the caller, whom a cancellation has woken. False: there was a word in the same moment.
  bool abandon() noexcept { return change(start_stage::abandoned); }
  start_stage stage() const noexcept {
    return stage_.load(std::memory_order_acquire);  // acquire: pairs with change
  }

  failure what;
  event told;
  event has_ended;
  cancel_scope scope{deferred};  // the child's own

 private:
  bool change(start_stage to) noexcept {
    start_stage expected = start_stage::waiting;
    // acq_rel: publishes value or error. acquire on failure: the loser looks at what the winner wrote.
    return stage_.compare_exchange_strong(expected, to, std::memory_order_acq_rel, std::memory_order_acquire);
  }
  atomic<start_stage> stage_{start_stage::waiting};
};

template <class T>
struct start_state : start_core {
  std::optional<T> value;
};
template <>
struct start_state<void> : start_core {};

// Waits for the child's word. Throws its error, or `cancelled` when the child has ended for that; with a code, says there what
// can be said so, and returns false.
CONCUR_INLINE bool await_start(start_core& state, std::error_code* told);
// There was no room for the child before the caller was cancelled.
CONCUR_INLINE void fail_not_started(std::error_code* told);

struct deduced;
// The T of f(started<T>&).
template <class Call>
struct started_of_call;
template <class R, class T>
struct started_of_call<R (*)(started<T>&)> {
  using type = T;
};
template <class R, class T>
struct started_of_call<R (*)(started<T>&) noexcept> {
  using type = T;
};
template <class R, class C, class T>
struct started_of_call<R (C::*)(started<T>&)> {
  using type = T;
};
template <class R, class C, class T>
struct started_of_call<R (C::*)(started<T>&) const> {
  using type = T;
};
template <class R, class C, class T>
struct started_of_call<R (C::*)(started<T>&) noexcept> {
  using type = T;
};
template <class R, class C, class T>
struct started_of_call<R (C::*)(started<T>&) const noexcept> {
  using type = T;
};
template <class F>
struct call_of {
  using type = decltype(&F::operator());
};
template <class R, class A>
struct call_of<R (*)(A)> {
  using type = R (*)(A);
};
template <class R, class A>
struct call_of<R (*)(A) noexcept> {
  using type = R (*)(A) noexcept;
};

template <class T, class F>
struct started_type {
  using type = T;
};
template <class F>
struct started_type<deduced, F> {
  using type = typename started_of_call<typename call_of<F>::type>::type;
};

// What the child runs. Returns the code of a f that failed by one when it was up already.
template <class T, class F>
std::error_code run_started(start_state<T>& state, F& f);

template <class T, class F>
auto start_and_wait(nursery_core& n, F&& f, std::error_code* told) -> typename unless_cancelled<T>::type {
  const auto state = std::make_shared<start_state<T>>();
  auto* const launched = start_child<child>(n, [state, function = std::decay_t<F>(std::forward<F>(f))]() mutable {
    return run_started<T>(*state, function);
  });
  typename unless_cancelled<T>::type value{};
  if (launched == nullptr) {
    fail_not_started(told);
  } else if (await_start(*state, told)) {
    if constexpr (std::is_void<T>::value)
      value = true;
    else
      value = std::move(state->value);
  }
  return value;
}

}  // namespace detail

// The child's end of nursery::start. Lives as long as the child's function runs.
template <class T>
class started {
 public:
  explicit started(detail::start_state<T>& state) noexcept : state_(state) {}
  started(const started&) = delete;
  started& operator=(const started&) = delete;

  // The child is up, and start() returns this. Throws std::logic_error the second time. If the caller of start() is cancelled
  // already, nothing happens; the child is cancelled too.
  void set_value(T value) {
    if (std::exchange(has_said_, true)) detail::fail_started_twice();
    state_.value.emplace(std::move(value));
    state_.settle(detail::start_stage::up);
  }
  void operator()(T value) { set_value(std::move(value)); }

 private:
  detail::start_state<T>& state_;
  bool has_said_ = false;
};

template <>
class started<void> {
 public:
  explicit started(detail::start_state<void>& state) noexcept : state_(state) {}
  started(const started&) = delete;
  started& operator=(const started&) = delete;

  void set_value() {
    if (std::exchange(has_said_, true)) detail::fail_started_twice();
    state_.settle(detail::start_stage::up);
  }
  void operator()() { set_value(); }

 private:
  detail::start_state<void>& state_;
  bool has_said_ = false;
};

namespace detail {

template <class T, class F>
std::error_code run_started(start_state<T>& state, F& f) {
  started<T> up(state);
  std::error_code code;
  const struct end_notice {
    start_core& of;
    ~end_notice() {
      of.fail(failure{never_started_error(), {}});
      of.has_ended.set();
    }
  } end{state};
  const auto body = [&] {
    if constexpr (std::is_same<std::invoke_result_t<F&, started<T>&>, std::error_code>::value)
      code = f(up);
    else
      f(up);
  };
#if CONCUR_EXCEPTIONS
  try {
    state.scope.run(body);
  } catch (const cancelled&) {
    state.fail(failure{std::current_exception(), {}});
    throw;
  } catch (...) {
    if (!state.fail(failure{std::current_exception(), {}})) throw;
  }
#else
  state.scope.run(body);
#endif
  failure what;
  what.set_code(code);
  if (what && state.fail(std::move(what))) return std::error_code();
  return code;
}

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void fail_started_twice() {
  fail_logic("concur::started::set_value: the child said already that it is up; it says so once");
}

CONCUR_INLINE std::exception_ptr never_started_error() noexcept {
#  if CONCUR_EXCEPTIONS
  try {
    return std::make_exception_ptr(std::logic_error(
        "concur::nursery::start: the child ended without saying that it is up; let it call set_value of its argument"));
  } catch (...) {
    return std::current_exception();
  }
#  else
  return std::exception_ptr();
#  endif
}

CONCUR_INLINE void fail_not_started(std::error_code* told) {
  if (told == nullptr) fail_cancelled();
  *told = std::make_error_code(std::errc::operation_canceled);
}

CONCUR_INLINE bool await_start(start_core& state, std::error_code* told) {
  std::error_code gave_up;
  state.told.wait(gave_up);
  if (gave_up && state.abandon()) {
    state.scope.cancel();
    shield([&] { state.has_ended.wait(); });
    fail_not_started(told);
    return false;
  }
  const bool is_up = state.stage() != start_stage::failed;
  if (told != nullptr) *told = state.what.code;
  if (!is_up && (told == nullptr || !state.what.code)) rethrow(state.what.error);
  return is_up;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// structure/nursery.hpp - a block that does not end before the last fiber that was started in it.
//
// go() alone is fire and forget: nobody knows when the fiber ends, who hears of its failure, or who calls it off. A nursery
// answers all three by its place in the program:
//
//     concur::with_nursery([&](concur::nursery& n) {
//       n.go(fetch, "users");
//       n.go(fetch, "orders");
//     });                              // here both have ended; what one threw comes out here
//
//   - A child ends before the block, and may use whatever outlives the block.
//   - A child that fails cancels its siblings and the block's own waits; the failure comes out of the block, as the type it
//     was thrown with. on_failure::keep_going lets the others finish.
//   - Cancelling what surrounds the block cancels the children. The block waits for them all the same.
//
// For all failures and not only the first, make the nursery by hand: `nursery n; try { n.run(...); } ... n.failures()`.

CONCUR_NAMESPACE_BEGIN

namespace detail {
struct nursery_access;
}

// Made by a fiber, its host, as a variable of a block; nested like scopes. Everything but run, join and the destructor may be
// called from the host, from children, and from any thread while the nursery has not ended. Throws std::logic_error outside
// a fiber.
//
// A child that returns std::error_code fails by returning one that is not zero; it comes out as std::system_error.
class nursery {
 public:
  explicit nursery(on_failure policy = on_failure::cancel_siblings) : nursery(policy, "concur::nursery") {}
  // Not joined: cancels the children, waits for them, and hands a failure to run(), which rethrows it.
  ~nursery() = default;
  nursery(const nursery&) = delete;
  nursery& operator=(const nursery&) = delete;

  // Starts f(args...) as a child. Arguments are copied or moved, as by std::thread; what comes before go() happens before f;
  // f's end happens before the end of the nursery. In a nursery that is cancelled the child still begins, and is cancelled at
  // its first checkpoint. With a limit this is a parking operation, and throws `cancelled`; it has started nothing then, nor
  // where exceptions are off, and it returns. Throws std::logic_error when the nursery has ended, std::system_error
  // (not_enough_memory). Costs what concur::go costs, and two locks more.
  template <class F, class... Args>
  void go(F&& f, Args&&... args) {
    detail::must_have_started(
        detail::start_child<detail::child>(core_, detail::bind_call(std::forward<F>(f), std::forward<Args>(args)...)));
  }

  // The same with a result. What f throws fails the nursery as well as coming out of the future, which may be dropped.
  template <class F, class... Args>
  auto async(F&& f, Args&&... args) -> future<std::invoke_result_t<std::decay_t<F>, std::decay_t<Args>...>> {
    using R = std::invoke_result_t<std::decay_t<F>, std::decay_t<Args>...>;
    auto* const child = detail::start_child<detail::child_with_result>(
        core_, detail::bind_call(std::forward<F>(f), std::forward<Args>(args)...));
    detail::must_have_started(child);
    return future<R>(child);
  }

  // Starts f(up) as a child, where f takes a started<T>&, and waits until it says that it is up, by up.set_value(v) or up(v);
  // returns v. The child goes on. What f throws before comes out here, and does not fail the nursery; a f that returns
  // without a word: std::logic_error. If the caller is cancelled meanwhile, so is the child; this throws `cancelled` when the
  // child has ended. For a generic lambda name T: n.start<int>([](auto& up) { ... }).
  template <class T = detail::deduced, class F>
  auto start(F&& f) -> typename detail::started_type<T, std::decay_t<F>>::type {
    using V = typename detail::started_type<T, std::decay_t<F>>::type;
    if constexpr (std::is_void<V>::value)
      detail::start_and_wait<V>(core_, std::forward<F>(f), nullptr);
    else
      return std::move(*detail::start_and_wait<V>(core_, std::forward<F>(f), nullptr));
  }
  // The same with codes, as an optional (a bool for void): the one that f returned before it was up, or operation_canceled.
  template <class T = detail::deduced, class F>
  auto start(F&& f, std::error_code& ec) ->
      typename detail::unless_cancelled<typename detail::started_type<T, std::decay_t<F>>::type>::type {
    return detail::start_and_wait<typename detail::started_type<T, std::decay_t<F>>::type>(core_, std::forward<F>(f),
                                                                                           &ec);
  }

  // Cancels the children and the block. From any thread; does not wait.
  void cancel() noexcept { core_.scope.cancel(); }
  // Whether it is cancelled, by whomever: cancel(), a failure, a deadline, or from outside.
  bool cancelled() const noexcept { return core_.scope.cancelled(); }
  // Children that have not ended.
  std::size_t size() const noexcept { return core_.size(); }
  // From now on at most n children at once; go, async and start park until there is room, first come, first served. Children
  // that wait for room which only they could make wait for ever. Throws std::invalid_argument for 0.
  void limit(std::size_t n) { core_.limit(n); }
  // The scope that the children are in: for a deadline or a shield.
  cancel_scope& scope() noexcept { return core_.scope; }

  // Waits until every child has ended, and ends the nursery; rethrows the first failure, as the type it was thrown with. A
  // cancellation from outside reaches the children, and is thrown from here when they have ended, unless there is a failure.
  // Afterwards the host is out of the nursery's scope. Throws std::logic_error if it has ended, or the caller is not its host.
  void join();
  // The same with codes: the one that the first failing child returned, operation_canceled for a cancellation from outside,
  // else none. What a child has thrown is rethrown all the same.
  void join(std::error_code& ec);

  // f(*this), then join(): what with_nursery does. f counts as a child: its failure is one of the nursery's. If f leaves by an
  // exception, what is left is cancelled, whatever the policy. Returns what f returned. When only this nursery was cancelled
  // and f did not come to its end for that: returns, for a void f, else throws `cancelled`.
  template <class F>
  auto run(F&& f) -> std::invoke_result_t<F, nursery&>;
  // With codes, as join(ec). A f with a result gives it as an optional, which is empty when f was cut short; a void f says
  // whether it returned.
  template <class F>
  auto run(F&& f, std::error_code& ec) -> typename detail::unless_cancelled<std::invoke_result_t<F, nursery&>>::type;

  // Every failure so far, in the order in which they happened; what was cancelled did not fail. Also after the end.
  std::vector<std::exception_ptr> failures() const { return core_.failures(); }

 private:
  friend struct detail::nursery_access;
  nursery(on_failure policy, const char* what) : core_(policy, what) {}

  // What is left to do when the body has come to its end, or has not.
  void end_body(bool has_returned, detail::failure&& what);
  // Throws what run and join throw; with ec, puts there what can be said so.
  void end(const char* what, std::error_code* ec);
  template <class Result, class F>
  void run_into(Result& result, F&& f, bool& is_own_end);

  detail::nursery_core core_;
};

namespace detail {

// For the functions that have a nursery of their own: reports name them.
struct nursery_access {
  static nursery make(on_failure policy, const char* what) { return nursery(policy, what); }
};

}  // namespace detail

// Runs a nursery as a function: f(nursery&). Returns what f returned, when every child has ended. Errors as nursery::run. The
// children outlive the variables of f itself: let them use what is declared outside, or copies.
template <class F>
auto with_nursery(F&& f) -> std::invoke_result_t<F, nursery&> {
  nursery n = detail::nursery_access::make(on_failure::cancel_siblings, "concur::with_nursery");
  return n.run(std::forward<F>(f));
}
template <class F>
auto with_nursery(on_failure policy, F&& f) -> std::invoke_result_t<F, nursery&> {
  nursery n = detail::nursery_access::make(policy, "concur::with_nursery");
  return n.run(std::forward<F>(f));
}
template <class F>
auto with_nursery(F&& f, std::error_code& ec) ->
    typename detail::unless_cancelled<std::invoke_result_t<F, nursery&>>::type {
  nursery n = detail::nursery_access::make(on_failure::cancel_siblings, "concur::with_nursery");
  return n.run(std::forward<F>(f), ec);
}

// --- templates ---

template <class Result, class F>
void nursery::run_into(Result& result, F&& f, bool& is_own_end) {
  using R = std::invoke_result_t<F, nursery&>;
  core_.must_be_host("concur::nursery::run");
  detail::failure what;
  const auto body = [&] {
    if constexpr (std::is_void<R>::value) {
      std::forward<F>(f)(*this);
      result = true;
    } else if constexpr (std::is_reference<R>::value) {
      result = std::addressof(std::forward<F>(f)(*this));
    } else {
      result.emplace(std::forward<F>(f)(*this));
      if constexpr (std::is_same<R, std::error_code>::value) what.set_code(*result);
    }
  };
#if CONCUR_EXCEPTIONS
  try {
    body();
  } catch (const concur::cancelled&) {
    is_own_end = cancelled();
  } catch (...) {
    what.error = std::current_exception();
  }
#else
  body();
  is_own_end = true;
#endif
  end_body(static_cast<bool>(result), std::move(what));
}

template <class F>
auto nursery::run(F&& f) -> std::invoke_result_t<F, nursery&> {
  using R = std::invoke_result_t<F, nursery&>;
  typename detail::unless_cancelled<R>::type result{};
  bool is_own_end = false;
  run_into(result, std::forward<F>(f), is_own_end);
  end("concur::nursery::run", nullptr);
  if constexpr (std::is_void<R>::value) {
    if (!result && !is_own_end) detail::fail_cancelled();
  } else {
    if (!result) detail::fail_cancelled();
    if constexpr (std::is_reference<R>::value)
      return static_cast<R>(*result);
    else
      return std::move(*result);
  }
}

template <class F>
auto nursery::run(F&& f, std::error_code& ec) ->
    typename detail::unless_cancelled<std::invoke_result_t<F, nursery&>>::type {
  typename detail::unless_cancelled<std::invoke_result_t<F, nursery&>>::type result{};
  bool is_own_end = false;
  run_into(result, std::forward<F>(f), is_own_end);
  end("concur::nursery::run", &ec);
  if (!result && !is_own_end && !ec) ec = std::make_error_code(std::errc::operation_canceled);
  return result;
}

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE void nursery::end_body(bool has_returned, detail::failure&& what) {
  if (what) core_.fail(std::move(what));
  if (!has_returned) core_.scope.cancel();
}

CONCUR_INLINE void nursery::end(const char* what, std::error_code* ec) {
  core_.must_be_host(what);
  const bool is_outside_cancelled = core_.finish();
  if (ec != nullptr) ec->clear();
  core_.tell(ec);
  if (ec == nullptr) {
    detail::checkpoint();
  } else if (is_outside_cancelled && !*ec) {
    *ec = std::make_error_code(std::errc::operation_canceled);
  }
}

CONCUR_INLINE void nursery::join() { end("concur::nursery::join", nullptr); }
CONCUR_INLINE void nursery::join(std::error_code& ec) { end("concur::nursery::join", &ec); }

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// structure/combine.hpp - several functions at once: all of them, any that succeeds, or the first to end.
//
//     all     every result                       the first failure cancels the others, and is thrown
//     any     the first success                  cancels the others; if none succeeds, all failures are thrown together
//     race    the first end, good or bad         cancels the others
//
// Each function runs as a fiber in a nursery of the call's own, so when the call returns all of them have ended, and they may
// use what the caller has on its stack. A result that comes too late is destroyed; the failure of a loser of any and race is
// dropped, since one success, or the first end, is all that was asked for.

#include <variant>

CONCUR_NAMESPACE_BEGIN

// What any() throws when no function succeeds: how each of them failed, in the order of the arguments.
class failures : public std::runtime_error {
 public:
  failures(const std::string& what_in, std::vector<std::exception_ptr> errors)
      : std::runtime_error(what_in), errors_(std::move(errors)) {}
  const std::vector<std::exception_ptr>& errors() const noexcept { return errors_; }

 private:
  std::vector<std::exception_ptr> errors_;
};

namespace detail {

[[noreturn]] CONCUR_INLINE void fail_all_failed(std::vector<std::exception_ptr> errors);

// Where a function's result is kept: a reference as a pointer, nothing as std::monostate.
template <class R>
class result_room {
 public:
  template <class F>
  void take_from(F&& f) {
    if constexpr (std::is_void<R>::value) {
      std::forward<F>(f)();
      value_.emplace();
    } else if constexpr (std::is_reference<R>::value) {
      R&& result = std::forward<F>(f)();
      value_.emplace(std::addressof(result));
    } else {
      value_.emplace(std::forward<F>(f)());
    }
  }
  bool has_value() const noexcept { return value_.has_value(); }
  decltype(auto) give() {
    if constexpr (std::is_reference<R>::value)
      return static_cast<R>(**value_);
    else
      return std::move(*value_);
  }
  // The code of a function that returned one that is not zero.
  std::error_code code() const noexcept {
    if constexpr (std::is_same<R, std::error_code>::value)
      return value_.has_value() ? *value_ : std::error_code();
    else
      return std::error_code();
  }

 private:
  using stored = std::conditional_t<std::is_void<R>::value, std::monostate,
                                    std::conditional_t<std::is_reference<R>::value, std::remove_reference_t<R>*, R>>;
  std::optional<stored> value_;
};

template <class R>
using result_in_tuple = std::conditional_t<std::is_void<R>::value, std::monostate, R>;
// What any and race return: the type that all functions return, references included, else what those have in common.
template <class R, class... Rs>
struct common_result_of {
  using type = typename std::conditional_t<(std::is_same<R, Rs>::value && ...), std::enable_if<true, R>,
                                           std::common_type<R, Rs...>>::type;
};
template <class... Fs>
using common_result = typename common_result_of<std::invoke_result_t<Fs>...>::type;

// Which of several functions has decided the matter.
class decision {
 public:
  // True for the first, who then writes the result.
  bool take() noexcept {
    // relaxed: only who is first; the nursery's end publishes the rest.
    return !is_taken_.exchange(true, std::memory_order_relaxed);
  }
  bool is_taken() const noexcept { return is_taken_.load(std::memory_order_relaxed); }  // relaxed: behind the end

 private:
  atomic<bool> is_taken_{false};
};

// One of any's functions.
template <class R, class F>
void try_for(nursery& n, decision& winner, result_room<R>& result, failure& own, F& f) {
  result_room<R> mine;
  bool has_returned = false;
  own = failure_of([&] {
    mine.take_from(std::forward<F>(f));
    has_returned = true;
    return mine.code();
  });
  if (!has_returned || mine.code() || !winner.take()) return;
  if (!CONCUR_MUTANT_IS(215)) n.cancel();
  result = std::move(mine);
}

// One of race's.
template <class R, class F>
void race_for(nursery& n, decision& winner, result_room<R>& result, [[maybe_unused]] std::exception_ptr& error, F& f) {
  result_room<R> mine;
#if CONCUR_EXCEPTIONS
  try {
    mine.take_from(std::forward<F>(f));
  } catch (const cancelled&) {
    throw;
  } catch (...) {
    if (!winner.take()) return;
    n.cancel();
    error = std::current_exception();
    return;
  }
#else
  mine.take_from(std::forward<F>(f));
#endif
  if (!winner.take()) return;
  n.cancel();
  result = std::move(mine);
}

template <class... Fs, std::size_t... I>
auto run_all(std::index_sequence<I...>, Fs&&... fs) -> std::tuple<result_in_tuple<std::invoke_result_t<Fs>>...> {
  std::tuple<result_room<std::invoke_result_t<Fs>>...> results;
  nursery n = nursery_access::make(on_failure::cancel_siblings, "concur::all");
  (n.go([&room = std::get<I>(results), &f = fs] {
    room.take_from(std::forward<Fs>(f));
    return room.code();
  }),
   ...);
#if CONCUR_EXCEPTIONS
  n.join();
#else
  std::error_code told_by_results;
  n.join(told_by_results);
#endif
  return std::tuple<result_in_tuple<std::invoke_result_t<Fs>>...>(std::get<I>(results).give()...);
}

template <class... Fs, std::size_t... I>
auto run_any(std::index_sequence<I...>, Fs&&... fs) -> common_result<Fs...> {
  using R = common_result<Fs...>;
  result_room<R> result;
  decision winner;
  failure own[sizeof...(Fs)];
  {
    nursery n = nursery_access::make(on_failure::keep_going, "concur::any");
    (n.go([&, &f = fs] { try_for<R, Fs>(n, winner, result, own[I], f); }), ...);
    n.join();
  }
  if (!winner.is_taken()) {
    if constexpr (std::is_same<R, std::error_code>::value && !CONCUR_EXCEPTIONS) {
      for (const failure& one : own) {
        if (one) return one.code;
      }
      return std::make_error_code(std::errc::operation_canceled);
    } else {
      std::vector<std::exception_ptr> errors;
      for (failure& one : own) {
        if (one) errors.push_back(std::move(one.error));
      }
      fail_all_failed(std::move(errors));
    }
  }
  if constexpr (!std::is_void<R>::value) return result.give();
}

template <class... Fs>
auto run_race(Fs&&... fs) -> common_result<Fs...> {
  using R = common_result<Fs...>;
  result_room<R> result;
  decision winner;
  std::exception_ptr error;
  {
    nursery n = nursery_access::make(on_failure::keep_going, "concur::race");
    (n.go([&, &f = fs] { race_for<R, Fs>(n, winner, result, error, f); }), ...);
    n.join();
  }
  if (error != nullptr) rethrow(error);
  if (!result.has_value()) fail_cancelled();
  if constexpr (!std::is_void<R>::value) return result.give();
}

}  // namespace detail

// Runs all of them at once; returns their results as a tuple, in the order of the arguments, std::monostate for void. The
// first failure cancels the others and is rethrown, as its type, when they have ended. Throws `cancelled`, and what
// nursery::go throws.
template <class... Fs>
auto all(Fs&&... fs) -> std::tuple<detail::result_in_tuple<std::invoke_result_t<Fs>>...> {
  return detail::run_all(std::index_sequence_for<Fs...>(), std::forward<Fs>(fs)...);
}

// Runs all of them at once; returns the first result, as the type that all have in common, when the others, which it has
// cancelled, have ended. Throws `failures` when every one has failed, `cancelled`, and what nursery::go throws.
template <class... Fs>
auto any(Fs&&... fs) -> detail::common_result<Fs...> {
  static_assert(sizeof...(Fs) != 0, "concur::any: there must be a function to succeed");
  return detail::run_any(std::index_sequence_for<Fs...>(), std::forward<Fs>(fs)...);
}

// The same, but the first to end decides: its result is returned, or its exception thrown.
template <class... Fs>
auto race(Fs&&... fs) -> detail::common_result<Fs...> {
  static_assert(sizeof...(Fs) != 0, "concur::race: there must be a function to end");
  return detail::run_race(std::forward<Fs>(fs)...);
}

CONCUR_NAMESPACE_END

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void fail_all_failed(std::vector<std::exception_ptr> errors) {
  std::string text = "concur::any: none of the functions succeeded";
#  if CONCUR_EXCEPTIONS
  for (const std::exception_ptr& error : errors) {
    try {
      std::rethrow_exception(error);
    } catch (const std::exception& known) {
      text.append("; ").append(known.what());
    } catch (...) {
      text.append("; an exception of another kind");
    }
  }
#  endif
  raise(failures(text, std::move(errors)), text.c_str());
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// structure/promise.hpp - the maker's end of one result, for results that no single function returns.
//
// What go() does for a function, a promise does for everything else: a callback, a thread, a reply that comes in on
// another connection. It needs no runtime, and works between plain threads.
//
//     stage       meaning                                         next
//     open        nobody has set anything                         satisfied (set_value, set_exception, or the end)
//     satisfied   a result is in place, or about to be            -
//
//   P1  Who changes the stage from open to satisfied, in one step, sets the result and completes; everybody else is too
//       late, and touches neither the state nor the value he brought.
//   P2  Behind that the state belongs to the future's side. The promise keeps that side until get_future() gives it away,
//       and never looks into the state again.

CONCUR_NAMESPACE_BEGIN
namespace detail {

[[noreturn]] CONCUR_INLINE void fail_promise_empty();          // std::future_error, no_state
[[noreturn]] CONCUR_INLINE void fail_promise_satisfied();      // std::future_error, promise_already_satisfied
[[noreturn]] CONCUR_INLINE void fail_future_retrieved();       // std::future_error, future_already_retrieved
CONCUR_INLINE void must_be_exception(std::exception_ptr& error);  // std::invalid_argument for null

// A result that no fiber makes. An error that nobody takes is dropped: there is no runtime to hand it to.
template <class R>
class promised : public result_state<R> {
 public:
  promised() noexcept { this->release = &release_promised; }

 private:
  static void release_promised(future_state* state) noexcept {
    promised* self = static_cast<promised*>(state);
    self->destroy();
    delete self;
  }
};

// What promises of all types have in common.
template <class R>
class promise_base {
 public:
  promise_base() : state_(new promised<R>()), future_(state_) {}
  promise_base(promise_base&& other) noexcept
      : state_(std::exchange(other.state_, nullptr)),
        future_(std::move(other.future_)),
        has_given_future_(std::exchange(other.has_given_future_, false)),
        is_satisfied_(other.is_satisfied_.exchange(false, std::memory_order_relaxed)) {}  // relaxed: moving is for one
  promise_base& operator=(promise_base&& other) noexcept {
    promise_base taken(std::move(other));
    swap(taken);
    return *this;
  }
  // Breaks the promise if nothing was set: get() throws std::future_error (broken_promise).
  ~promise_base() {
    if (state_ != nullptr && claim() && !CONCUR_MUTANT_IS(145)) fail_with(broken_promise_error());
  }

  void swap(promise_base& other) noexcept {
    std::swap(state_, other.state_);
    std::swap(future_, other.future_);
    std::swap(has_given_future_, other.has_given_future_);
    // relaxed, both: swapping is for one thread.
    const bool theirs = other.is_satisfied_.load(std::memory_order_relaxed);
    other.is_satisfied_.store(is_satisfied_.load(std::memory_order_relaxed), std::memory_order_relaxed);
    is_satisfied_.store(theirs, std::memory_order_relaxed);  // relaxed: as above
  }

  // Where the result will be: once. Throws std::future_error: future_already_retrieved, or no_state if the promise was
  // moved from. May run beside set_value in another thread.
  future<R> get_future() {
    if (state_ == nullptr) fail_promise_empty();
    if (std::exchange(has_given_future_, true)) fail_future_retrieved();
    return std::move(future_);
  }

  // Makes get() throw `error`. If the future was dropped, so is the error. Throws std::invalid_argument for a null
  // pointer, else as set_value. Of no use in a program built without exceptions: get() calls on_fatal there.
  void set_exception(std::exception_ptr error) {
    must_be_exception(error);
    must_claim();
    fail_with(std::move(error));
  }
  // False, and nothing happens, when the promise has a result already.
  bool try_set_exception(std::exception_ptr error) {
    must_be_exception(error);
    if (!try_claim()) return false;
    fail_with(std::move(error));
    return true;
  }

 protected:
  // P1.
  bool claim() noexcept {
    if (CONCUR_MUTANT_IS(146)) {  // looking and taking are two steps
      if (is_satisfied_.load(std::memory_order_relaxed)) return false;  // relaxed: mutant
      is_satisfied_.store(true, std::memory_order_relaxed);             // relaxed: mutant
      return true;
    }
    // relaxed: only who wins; the result itself is published by completing.
    return !is_satisfied_.exchange(true, std::memory_order_relaxed);
  }
  bool try_claim() {
    if (state_ == nullptr) fail_promise_empty();
    return claim();
  }
  void must_claim() {
    if (!try_claim()) fail_promise_satisfied();
  }

  // Behind a claim. What the value's constructor throws leaves the promise open again.
  template <class... Args>
  void set_claimed(Args&&... args) {
#if CONCUR_EXCEPTIONS
    try {
      state_->set(std::forward<Args>(args)...);
    } catch (...) {
      is_satisfied_.store(false, std::memory_order_relaxed);  // relaxed: nothing was written
      throw;
    }
#else
    state_->set(std::forward<Args>(args)...);
#endif
    complete();
  }

 private:
  void fail_with(std::exception_ptr error) noexcept {
    state_->set_error(std::move(error));
    complete();
  }
  void complete() noexcept {
    due_list due;
    if (!state_->complete(due)) state_->release(state_);
    run_due(due);
  }

  promised<R>* state_;
  future<R> future_;  // until get_future() gives it away
  bool has_given_future_ = false;
  atomic<bool> is_satisfied_{false};
};

}  // namespace detail

// One result to be set, by any thread or fiber, with or without a runtime. Move-only. Constructing one allocates once.
// Several may call the set functions at once: one wins, the others get the error. Setting resumes who waits, and runs the
// callbacks of on_ready on the calling thread; it does not park.
//
// set_value throws std::future_error: promise_already_satisfied when there is a result, no_state when the promise was
// moved from; and what the value's own constructor throws, with the promise open as before. try_set_value returns false
// in the first case, and leaves the value it was offered alone. If the future was dropped, the value is destroyed.
template <class R>
class promise : public detail::promise_base<R> {
 public:
  void set_value(const R& value) {
    this->must_claim();
    this->set_claimed(value);
  }
  void set_value(R&& value) {
    this->must_claim();
    this->set_claimed(std::move(value));
  }
  bool try_set_value(const R& value) {
    if (!this->try_claim()) return false;
    this->set_claimed(value);
    return true;
  }
  bool try_set_value(R&& value) {
    if (!this->try_claim()) return false;
    this->set_claimed(std::move(value));
    return true;
  }
};

template <class R>
class promise<R&> : public detail::promise_base<R&> {
 public:
  void set_value(R& target) {
    this->must_claim();
    this->set_claimed(std::addressof(target));
  }
  bool try_set_value(R& target) {
    if (!this->try_claim()) return false;
    this->set_claimed(std::addressof(target));
    return true;
  }
};

template <>
class promise<void> : public detail::promise_base<void> {
 public:
  void set_value() {
    this->must_claim();
    this->set_claimed();
  }
  bool try_set_value() {
    if (!this->try_claim()) return false;
    this->set_claimed();
    return true;
  }
};

template <class R>
void swap(promise<R>& a, promise<R>& b) noexcept {
  a.swap(b);
}

CONCUR_NAMESPACE_END

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void fail_promise_empty() {
  raise(std::future_error(std::future_errc::no_state), "concur::promise: it was moved from; use the one it moved to");
}

CONCUR_INLINE void fail_promise_satisfied() {
  raise(std::future_error(std::future_errc::promise_already_satisfied),
        "concur::promise: there is a result already; try_set_value tells without failing");
}

CONCUR_INLINE void fail_future_retrieved() {
  raise(std::future_error(std::future_errc::future_already_retrieved),
        "concur::promise::get_future: there is one future, and it was given out; share() it for several takers");
}

CONCUR_INLINE void must_be_exception([[maybe_unused]] std::exception_ptr& error) {
#  if CONCUR_EXCEPTIONS
  if (error == nullptr)
    fail_argument("concur::promise::set_exception", "error", "null",
                  "pass std::make_exception_ptr(...), or std::current_exception() inside a handler");
#  endif
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// structure/step.hpp - a function and the result it goes on with, as one thing that can be called later.
//
// A step is what then() and or_else() make: it holds the function and the source, a future, and is asked three things:
// whether the function is for what the source holds, what the function says to it, and else, what passes on.
//
//     step       the function is for   and gets          what passes on
//     then       a value               the value         the error
//     or_else    an error              exception_ptr     the value
//
// Here is also the step that a fiber was prepared for: the fiber's block holds the function, the source and the result.
//
//   N1  A prepared fiber does not count as alive, and does not keep its runtime going. Its block keeps the pool, so that
//       it can be told whether the runtime is still there (fiber_pool.hpp, B2). If it is not, the promise is broken.
//   N2  What the function is not for passes on at once, on the completing thread, without a fiber.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// The calling fiber's new block for a continuation, null on a plain thread. Throws when there is none to be had.
CONCUR_INLINE fiber* block_for_continuation();
// Launches a prepared fiber, from any thread. False: its runtime ends or has ended (N1).
CONCUR_INLINE bool launch_prepared(fiber* f) noexcept;

// What a step does with its source: a future, or a shared one (shared_future.hpp).
template <class Source>
struct step_source;
template <class R>
struct step_source<future<R>> {
  static future_state& state(const future<R>& source) noexcept { return *future_access::state(source); }
  static R take(future<R>& source) { return future_access::take(source); }
  // The error for who passes it on; `settle` says later whether it has a taker there, or comes back.
  static std::exception_ptr lend_error(future<R>& source) noexcept { return std::move(state(source).error); }
  static void settle(future<R>& source, std::exception_ptr* back) noexcept {
    if (back != nullptr && source.valid()) state(source).error = std::move(*back);
  }
};

template <class Source, class T>
void pass_error(Source& from, result_state<T>& out) noexcept {
  out.is_reported = step_source<Source>::state(from).is_reported;
  out.set_error(step_source<Source>::lend_error(from));
}

// f(value).
template <class Source, class R, class F>
struct then_step {
  using source_type = Source;
  using result = then_result<F, R>;

  F function;  // first: what its copying throws leaves the source alone
  Source source;

  static bool is_for(const future_state& state) noexcept { return !state.has_failed(); }
  decltype(auto) call() {
    if constexpr (std::is_void<R>::value) {
      return std::move(function)();
    } else {
      return std::move(function)(step_source<Source>::take(source));
    }
  }
  static void pass(Source& from, result_state<result>& out) noexcept {
    pass_error(from, out);
  }
};

// f(future), whatever came of it.
template <class R, class F>
struct settled_step {
  using source_type = future<R>;
  using result = then_result<F, R>;

  F function;
  future<R> source;

  static bool is_for(const future_state&) noexcept { return true; }
  decltype(auto) call() { return std::move(function)(std::move(source)); }
  static void pass(future<R>& from, result_state<result>& out) noexcept { pass_error(from, out); }
};

// f(error).
template <class R, class F>
struct or_else_step {
  using source_type = future<R>;
  using result = R;

  F function;
  future<R> source;

  static bool is_for(const future_state& state) noexcept { return state.has_failed(); }
  decltype(auto) call() { return std::move(function)(std::exchange(future_access::state(source)->error, nullptr)); }
  static void pass(future<R>& from, result_state<R>& out) noexcept {
    keep_outcome(out, [&]() -> R { return future_access::take(from); });
  }
};

// Whether the step's function returns a future of the step's result rather than the result.
template <class Step>
inline constexpr bool returns_future = std::is_same<std::decay_t<decltype(std::declval<Step&>().call())>,
                                                    future<typename Step::result>>::value;

// The closure of a prepared fiber.
template <class Step>
struct fiber_step : continuation {
  using payload = spawned<fiber_step>;
  using source = step_source<typename Step::source_type>;

  explicit fiber_step(Step&& step_in) : continuation(&come_due), step(std::move(step_in)) {}

  typename Step::result operator()() && {
    if constexpr (returns_future<Step>) {
      return step.call().get();
    } else {
      return step.call();
    }
  }

  static void come_due(continuation* due, due_list& more) noexcept {
    fiber_step* self = static_cast<fiber_step*>(due);
    payload* whole = static_cast<payload*>(self->host->payload);
    if (!Step::is_for(source::state(self->step.source))) {
      Step::pass(self->step.source, *whole);
      if (whole->has_failed()) source::settle(self->step.source, nullptr);
    } else if (launch_prepared(self->host)) {
      return;
    } else {
      whole->set_error(broken_promise_error());
    }
    payload::end_unlaunched(whole, more);
  }

  Step step;
  fiber* host = nullptr;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE fiber* block_for_continuation() {
  worker* w = this_worker();
  if (w == nullptr || w->current == nullptr) return nullptr;
  fiber* f = w->sched->new_fiber(w);
  if (CONCUR_UNLIKELY(f == nullptr)) fail_no_fiber();
  return f;
}

CONCUR_INLINE bool launch_prepared(fiber* f) noexcept {
  worker* w = this_worker();
  if (w != nullptr && w->sched->blocks == pool_of(f)) {
    w->sched->launch(w, f);
    return true;
  }
  return pool_of(f)->with_open_owner(
      [](scheduler* s, void* prepared) { s->launch(nullptr, static_cast<fiber*>(prepared)); }, f);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// structure/continuation.hpp - what goes on when a result is there: then, or_else, on_ready.
//
// A function that may park needs a stack, so then() and or_else() run theirs as a fiber. Where that fiber comes from
// is decided by who asks:
//
//     who calls then()   who makes the result          the function runs
//     a fiber            anybody                       as a fiber of the caller's runtime
//     a plain thread     a fiber, or its worker        as a fiber of that one's runtime
//     a plain thread     a plain thread                on the one that makes the result; on the caller if it is there
//
// In the first case the fiber is prepared at once, in a block that holds the function, the future it waits for and its
// own result, and launched when the result comes (step.hpp).
//
//   N3  An error that passes on is taken from its source once somebody can still take it from the returned future, or
//       that one's runtime will report it.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// A step without a fiber of its own.
template <class Step>
class step_node : public result_state<typename Step::result>, public continuation {
  using R = typename Step::result;

 public:
  explicit step_node(Step&& step) : continuation(&come_due), step_(std::move(step)) { this->release = &release_node; }

  // Calls the function, and returns the exception, if any, that nobody will ask for. The node may be gone then.
  std::exception_ptr execute(due_list& more) noexcept {
    if constexpr (returns_future<Step>) {
      call_for_inner();
      step_.reset();
      if (inner_.valid()) {
        this->run = &inner_come_due;
        if (!future_access::state(inner_)->attach(this)) inner_come_due(this, more);
        return nullptr;
      }
    } else {
      keep_outcome(*this, [this]() -> R { return step_->call(); });
      step_.reset();
    }
    return finish(more);
  }

  // The function will not be called.
  void abandon(due_list& more) noexcept {
    step_.reset();
    this->set_error(broken_promise_error());
    finish(more);
  }

 private:
  struct no_inner {};

  // The inner future, or the error why there is none.
  void call_for_inner() noexcept {
    result_state<void> call;
    keep_outcome(call, [this] {
      inner_ = step_->call();
      future_access::must_have_state(inner_);
    });
    if (!call.has_failed()) return;
    this->is_reported = call.is_reported;
    this->set_error(std::move(call.error));
  }

  static void come_due(continuation* due, due_list& more) noexcept;
  static void inner_come_due(continuation* due, due_list& more) noexcept {
    step_node* self = static_cast<step_node*>(due);
    future<R> inner = std::move(self->inner_);
    self->template pass_from<pass_whole>(inner, more);
  }

  struct pass_whole {
    static void pass(future<R>& from, result_state<R>& out) noexcept {
      if (future_access::state(from)->has_failed())
        pass_error(from, out);
      else
        keep_outcome(out, [&]() -> R { return future_access::take(from); });
    }
  };

  // N3.
  template <class Pass, class Source>
  void pass_from(Source& from, due_list& more) noexcept {
    Pass::pass(from, *this);
    const bool is_error = this->has_failed();
    const bool is_wanted = this->complete(more);
    if (is_error) step_source<Source>::settle(from, is_wanted ? nullptr : &this->error);
    if (!is_wanted) release_node(this);
  }

  std::exception_ptr finish(due_list& more) noexcept {
    if (this->complete(more)) return nullptr;
    std::exception_ptr left = this->is_reported ? std::move(this->error) : nullptr;
    release_node(this);
    return left;
  }

  static void release_node(future_state* state) noexcept {
    step_node* self = static_cast<step_node*>(state);
    self->destroy();
    delete self;
  }

  std::optional<Step> step_;  // until the function was called
  std::conditional_t<returns_future<Step>, future<R>, no_inner> inner_;
};

// The closure of the fiber that calls a node's function; a fiber that never runs breaks the promise.
template <class Node>
class node_runner {
 public:
  explicit node_runner(Node* node) noexcept : node_(node) {}
  node_runner(node_runner&& other) noexcept : node_(std::exchange(other.node_, nullptr)) {}
  node_runner& operator=(node_runner&&) = delete;
  ~node_runner() {
    if (node_ == nullptr) return;
    due_list due;
    node_->abandon(due);
    run_due(due);
  }

  void operator()() && {
    due_list due;
    std::exception_ptr left = std::exchange(node_, nullptr)->execute(due);
    run_due(due);
    if (left != nullptr) rethrow(std::move(left));
  }

 private:
  Node* node_;
};

template <class Step>
void step_node<Step>::come_due(continuation* due, due_list& more) noexcept {
  step_node* self = static_cast<step_node*>(due);
  if (!Step::is_for(step_source<typename Step::source_type>::state(self->step_->source))) {
    auto from = std::move(self->step_->source);
    self->step_.reset();
    self->template pass_from<Step>(from, more);
    return;
  }
  worker* w = this_worker();
  if (w == nullptr) {
    self->execute(more);
    return;
  }
#if CONCUR_EXCEPTIONS
  try {
    spawn(*w->sched, w, node_runner<step_node>(self));
  } catch (...) {
    // No memory for a fiber: the runner that was not kept has broken the promise.
    return;
  }
#else
  spawn(*w->sched, w, node_runner<step_node>(self));
#endif
}

struct unused_block {
  fiber* block;
  ~unused_block() {
    if (block != nullptr) free_fiber(block);
  }
};

// Makes the step, and ties it to its source, which it then holds.
template <class MakeStep>
auto attach_step(future_state& source, MakeStep make_step) {
  using made = decltype(make_step());
  continuation* attached = nullptr;
  result_state<typename made::result>* out = nullptr;
  unused_block host{block_for_continuation()};
  if (host.block != nullptr) {
    fiber_step<made> closure(make_step());
    fiber* f = std::exchange(host.block, nullptr);
    auto* whole = prepare_fiber(f, std::move(closure));
    whole->function().host = f;
    attached = &whole->function();
    out = whole;
  } else {
    auto* node = new step_node<made>(make_step());
    attached = node;
    out = node;
  }
  future<typename made::result> result(out);
  if (!source.attach(attached)) {
    due_list due;
    due.push(attached);
    run_due(due);
  }
  return result;
}

template <class F>
struct callback : continuation {
  explicit callback(F&& function_in) : continuation(&call), function(std::move(function_in)) {}
  explicit callback(const F& function_in) : continuation(&call), function(function_in) {}
  static void call(continuation* due, due_list&) noexcept {
    std::unique_ptr<callback> self(static_cast<callback*>(due));
    std::move(self->function)();
  }
  F function;
};

template <class F>
void attach_callback(future_state& source, F&& f) {
  auto one = std::make_unique<callback<std::decay_t<F>>>(std::forward<F>(f));
  continuation* attached = one.release();
  due_list due;
  if (!source.attach(attached)) due.push(attached);
  run_due(due);
}

}  // namespace detail

template <class R>
template <class F>
auto future<R>::then(F&& f) -> future<detail::then_result<F, R>> {
  using function = std::decay_t<F>;
  using step = std::conditional_t<detail::takes_value<function, R>::value, detail::then_step<future<R>, R, function>,
                                  detail::settled_step<R, function>>;
  detail::future_state* source = detail::future_access::must_have_state(*this);
  return detail::attach_step(*source, [&] { return step{std::forward<F>(f), std::move(*this)}; });
}

template <class R>
template <class F>
future<R> future<R>::or_else(F&& f) {
  using step = detail::or_else_step<R, std::decay_t<F>>;
  detail::future_state* source = detail::future_access::must_have_state(*this);
  return detail::attach_step(*source, [&] { return step{std::forward<F>(f), std::move(*this)}; });
}

template <class R>
template <class F>
void future<R>::on_ready(F&& f) const {
  detail::attach_callback(*detail::future_access::must_have_state(*this), std::forward<F>(f));
}

CONCUR_NAMESPACE_END

// structure/shared_future.hpp - one result, looked at by many.
//
// Copies of a shared_future share one future behind a count. get() gives access to the result where it lies, and takes
// nothing: everybody may ask, again and again, from fibers and from plain threads.
//
//   H1  The last copy to go drops the future, and with it the result.
//   H2  An exception counts as taken when one get() has thrown it, or a then() has passed it on.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// What the copies share.
template <class R>
struct shared_end {
  explicit shared_end(future<R>&& end_in) noexcept : end(std::move(end_in)) {}
  shared_end(const shared_end&) = delete;
  shared_end& operator=(const shared_end&) = delete;
  ~shared_end() {
    // relaxed: the count of the copies orders it.
    if (is_taken.load(std::memory_order_relaxed)) future_access::state(end)->is_reported = false;
  }
  void note_taken() noexcept { is_taken.store(true, std::memory_order_relaxed); }  // relaxed: as above

  future<R> end;
  atomic<bool> is_taken{false};  // H2; an error that is there
};

}  // namespace detail

// Copyable; a copy is cheap. Different copies may be used at the same time, and one copy by several for everything that is
// const. What is done before the result is made happens before each get().
template <class R>
class shared_future {
  using viewed = std::conditional_t<std::is_void<R>::value || std::is_reference<R>::value, R,
                                    std::add_lvalue_reference_t<std::add_const_t<R>>>;

 public:
  shared_future() noexcept = default;
  // From a future, which is empty afterwards. Allocates once.
  shared_future(future<R>&& from)
      : shared_(from.valid() ? std::make_shared<detail::shared_end<R>>(std::move(from)) : nullptr) {}

  // False for an empty one. get() does not change it.
  bool valid() const noexcept { return shared_ != nullptr; }
  bool ready() const noexcept { return shared_ != nullptr && shared_->end.ready(); }

  // Parks until the result is there. A const R& that is good as long as some copy is kept; R& for references, nothing for
  // void; or rethrows. Throws `cancelled`, and std::future_error (no_state) on an empty one.
  viewed get() const {
    wait();
    return view();
  }
  // As those of future, and so are the forms with a code.
  void wait() const { must_be_valid().end.wait(); }
  bool wait(std::error_code& error) const { return must_be_valid().end.wait(error); }
  template <class Rep, class Period>
  bool wait_for(std::chrono::duration<Rep, Period> d) const {
    return must_be_valid().end.wait_for(d);
  }
  template <class Clock, class Duration>
  bool wait_until(const std::chrono::time_point<Clock, Duration>& tp) const {
    return must_be_valid().end.wait_until(tp);
  }
  template <class Rep, class Period>
  bool wait_for(std::chrono::duration<Rep, Period> d, std::error_code& error) const {
    return must_be_valid().end.wait_for(d, error);
  }
  template <class Clock, class Duration>
  bool wait_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) const {
    return must_be_valid().end.wait_until(tp, error);
  }

  // As future::then, with f(const R&), f(R&) or f(). This shared_future stays as it is, and so may many go on with one
  // result.
  template <class F>
  auto then(F&& f) const -> future<detail::then_result<F, viewed>> {
    using step = detail::then_step<shared_future, viewed, std::decay_t<F>>;
    detail::future_state& source = *detail::future_access::state(must_be_valid().end);
    return detail::attach_step(source, [&] { return step{std::forward<F>(f), *this}; });
  }
  // As future::on_ready.
  template <class F>
  void on_ready(F&& f) const {
    must_be_valid().end.on_ready(std::forward<F>(f));
  }

 private:
  friend struct detail::step_source<shared_future>;

  detail::shared_end<R>& must_be_valid() const {
    if (shared_ == nullptr) detail::fail_no_state();
    return *shared_;
  }

  // The result is there.
  viewed view() const {
    detail::result_state<R>* state = detail::future_access::state(shared_->end);
    if (CONCUR_UNLIKELY(state->has_failed())) {
      shared_->note_taken();
      detail::rethrow(state->error);
    }
    if constexpr (std::is_reference<R>::value) {
      return static_cast<R>(*state->get());
    } else if constexpr (!std::is_void<R>::value) {
      return state->get();
    }
  }

  std::shared_ptr<detail::shared_end<R>> shared_;
};

template <class R>
shared_future<R> future<R>::share() {
  return shared_future<R>(std::move(*this));
}

namespace detail {

template <class R>
struct step_source<shared_future<R>> {
  static future_state& state(const shared_future<R>& source) noexcept {
    return *future_access::state(source.shared_->end);
  }
  static decltype(auto) take(shared_future<R>& source) { return source.view(); }
  static std::exception_ptr lend_error(shared_future<R>& source) noexcept { return state(source).error; }
  static void settle(shared_future<R>& source, std::exception_ptr* back) noexcept {
    if (back == nullptr) source.shared_->note_taken();
  }
};

}  // namespace detail
CONCUR_NAMESPACE_END

// structure/future_case.hpp - a result that is there, as a case of a select.
//
// The lock of a future's state is retired when the result is made (future_state.hpp); a select that finds it retired
// knows that the case can go, and one that waits has its note taken off with all the others'.

CONCUR_NAMESPACE_BEGIN
namespace detail {

template <class F>
class future_case final : public select_case {
 public:
  future_case(future_state& state, F&& handler) : state_(state), handler_(std::move(handler)) {
    set_site_lock(&state_.lock_of_waiting());
  }

  bool is_ready(nanoseconds_t) noexcept override { return is_retired; }
  attempt take(party*&) override { return attempt::done; }
  void enter() noexcept override { state_.waiting().push_back(&note); }
  void leave() noexcept override {
    if (intrusive_list<waiter>::is_linked(&note)) state_.waiting().erase(&note);
  }
  void run() override { handler_(); }
  bool is_spent() const noexcept override { return true; }

 private:
  future_state& state_;
  F handler_;
};

}  // namespace detail

// Goes when the result, or an exception, is there: get() in f() then does not wait. The future must stay as long as the
// case. Throws std::future_error (no_state) for an empty one.
template <class R, class F>
auto ready(const future<R>& source, F&& f) {
  return detail::future_case<std::decay_t<F>>(*detail::future_access::must_have_state(source),
                                              std::decay_t<F>(std::forward<F>(f)));
}
template <class R, class F>
auto ready(const shared_future<R>& source, F&& f) {
  if (!source.valid()) detail::fail_no_state();
  return detail::future_case<std::decay_t<F>>(detail::step_source<shared_future<R>>::state(source),
                                              std::decay_t<F>(std::forward<F>(f)));
}

CONCUR_NAMESPACE_END

// structure/when.hpp - one future for several: when_all of them have a result, or when_any has.
//
// Both give the futures back, so that each result, or exception, is taken from its own. They need no fiber, and nobody
// waits meanwhile: each future gets a note (a continuation), and the notes count.
//
//     who counts down `missing`           when_all                    when_any
//     each note, as its result comes      1                           the first one: 1
//     the start, behind the last note     1                           1
//     so it begins at                     number of futures + 1       2
//
//   G1  Who brings `missing` to zero has the futures to himself, and completes. Notes are attached before that, so the
//       futures stay where they are until all are.
//   G2  The memory is held by the result and by each note that somebody may still run. When any has one, the notes of the
//       others are taken off: a future that is asked in one when_any after another gathers no notes.

CONCUR_NAMESPACE_BEGIN

// What when_any found: which one had a result first, and all of them. index is std::size_t(-1) if there were none.
template <class Sequence>
struct when_any_result {
  std::size_t index;
  Sequence futures;
};

namespace detail {

template <class T>
struct is_any_future : std::false_type {};
template <class R>
struct is_any_future<future<R>> : std::true_type {};
template <class R>
struct is_any_future<shared_future<R>> : std::true_type {};

inline constexpr std::size_t no_index = static_cast<std::size_t>(-1);

// The part that does not depend on types.
class gathering {
 public:
  gathering(std::size_t count, bool wants_all);
  gathering(const gathering&) = delete;
  gathering& operator=(const gathering&) = delete;

  // For each future in turn; then start(). False: enough is known already.
  bool add(future_state& source) noexcept;
  void start(due_list& due) noexcept;

 protected:
  ~gathering() = default;
  // The last to hold the memory lets go.
  void let_go(std::size_t holds) noexcept {
    // acq_rel: publishes what was done here to who frees it, and sees what the others did.
    if (holders_.fetch_sub(holds, std::memory_order_acq_rel) == holds) free_this_(this);
  }

  // Moves the futures into the result, and completes.
  void (*finish_)(gathering*, std::size_t winner, due_list&) noexcept = nullptr;
  void (*free_this_)(gathering*) noexcept = nullptr;

 private:
  struct note : continuation {
    note() noexcept : continuation(&gathering::come_due) {}
    gathering* whole = nullptr;
    future_state* source = nullptr;
  };

  static void come_due(continuation* due, due_list& more) noexcept;
  void count_down(due_list& more) noexcept;

  std::vector<note> notes_;
  std::size_t added_ = 0;
  atomic<std::size_t> winner_{no_index};
  bool wants_all_;
  atomic<std::size_t> missing_;
  atomic<std::size_t> holders_;
};

// Sequence: a tuple or vector of futures. Result: that, or a when_any_result of it.
template <class Sequence, class Result>
class gathered : public result_state<Result>, public gathering {
  static constexpr bool wants_all = std::is_same<Sequence, Result>::value;

 public:
  gathered(std::size_t count, Sequence&& futures) : gathering(count, wants_all), futures_(std::move(futures)) {
    this->release = [](future_state* state) noexcept { static_cast<gathered*>(state)->let_go(1); };
    finish_ = &finish;
    free_this_ = [](gathering* self) noexcept {
      static_cast<gathered*>(self)->destroy();
      delete static_cast<gathered*>(self);
    };
  }
  Sequence& futures() noexcept { return futures_; }

 private:
  static void finish(gathering* whole, [[maybe_unused]] std::size_t winner, due_list& due) noexcept {
    gathered* self = static_cast<gathered*>(whole);
    if constexpr (wants_all)
      self->set(std::move(self->futures_));
    else
      self->set(Result{winner, std::move(self->futures_)});
    if (!self->complete(due)) self->let_go(1);
  }

  Sequence futures_;
};

template <class Future>
future_state& state_to_gather(const Future& one) {
  if (!one.valid()) fail_no_state();
  return step_source<Future>::state(one);
}

template <class Result, class... Futures>
future<Result> gather(std::tuple<Futures...>&& futures) {
  std::apply([](const auto&... one) { (static_cast<void>(state_to_gather(one)), ...); }, futures);
  auto* whole = new gathered<std::tuple<Futures...>, Result>(sizeof...(Futures), std::move(futures));
  future<Result> result(whole);
  std::apply([whole](const auto&... one) { static_cast<void>((whole->add(state_to_gather(one)) && ...)); },
             whole->futures());
  due_list due;
  whole->start(due);
  run_due(due);
  return result;
}

template <class Result, class Future>
future<Result> gather(std::vector<Future>&& futures) {
  for (const Future& one : futures) state_to_gather(one);
  auto* whole = new gathered<std::vector<Future>, Result>(futures.size(), std::move(futures));
  future<Result> result(whole);
  for (const Future& one : whole->futures()) {
    if (!whole->add(state_to_gather(one))) break;
  }
  due_list due;
  whole->start(due);
  run_due(due);
  return result;
}

template <class... Futures>
using if_futures = std::enable_if_t<(is_any_future<std::decay_t<Futures>>::value && ...), int>;
template <class Iterator>
using moved_from = std::vector<typename std::iterator_traits<Iterator>::value_type>;
template <class Iterator>
using if_iterator = std::enable_if_t<is_any_future<typename std::iterator_traits<Iterator>::value_type>::value, int>;

template <class Iterator>
moved_from<Iterator> move_out(Iterator first, Iterator last) {
  for (Iterator one = first; one != last; ++one) state_to_gather(*one);
  moved_from<Iterator> all;
  for (; first != last; ++first) all.push_back(std::move(*first));
  return all;
}

}  // namespace detail

// A future that is ready when all of these are; it holds them, in their order, each with its own value or exception. The
// futures given are empty afterwards; shared ones may be copied in. Of none: ready at once. Never holds an exception of its
// own. Throws std::future_error (no_state), and takes nothing, if one is empty; std::bad_alloc. Two allocations.
template <class... Futures, detail::if_futures<Futures...> = 0>
auto when_all(Futures&&... futures) -> future<std::tuple<std::decay_t<Futures>...>> {
  using sequence = std::tuple<std::decay_t<Futures>...>;
  (static_cast<void>(detail::state_to_gather(futures)), ...);
  return detail::gather<sequence>(sequence(std::forward<Futures>(futures)...));
}
template <class Future>
auto when_all(std::vector<Future>&& futures) -> future<std::vector<Future>> {
  return detail::gather<std::vector<Future>>(std::move(futures));
}
template <class Iterator, detail::if_iterator<Iterator> = 0>
auto when_all(Iterator first, Iterator last) -> future<detail::moved_from<Iterator>> {
  return concur::when_all(detail::move_out(first, last));
}

// A future that is ready when one of these is; it holds all of them, and says which one it was. The others go on, and can be
// waited for, and given to another when_any. Of none: ready at once, with index std::size_t(-1). Else as when_all.
template <class... Futures, detail::if_futures<Futures...> = 0>
auto when_any(Futures&&... futures) -> future<when_any_result<std::tuple<std::decay_t<Futures>...>>> {
  using sequence = std::tuple<std::decay_t<Futures>...>;
  (static_cast<void>(detail::state_to_gather(futures)), ...);
  return detail::gather<when_any_result<sequence>>(sequence(std::forward<Futures>(futures)...));
}
template <class Future>
auto when_any(std::vector<Future>&& futures) -> future<when_any_result<std::vector<Future>>> {
  return detail::gather<when_any_result<std::vector<Future>>>(std::move(futures));
}
template <class Iterator, detail::if_iterator<Iterator> = 0>
auto when_any(Iterator first, Iterator last) -> future<when_any_result<detail::moved_from<Iterator>>> {
  return concur::when_any(detail::move_out(first, last));
}

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE gathering::gathering(std::size_t count, bool wants_all)
    : notes_(count),
      wants_all_(wants_all),
      missing_(wants_all ? count + 1 : count == 0 ? 1 : 2),
      holders_(count + 1) {
  for (note& one : notes_) one.whole = this;
}

CONCUR_INLINE bool gathering::add(future_state& source) noexcept {
  // relaxed: a look; whoever wins later takes off what was attached in vain.
  if (!wants_all_ && winner_.load(std::memory_order_relaxed) != no_index) return false;
  note& one = notes_[added_++];
  one.source = &source;
  if (!source.attach(&one)) {
    due_list due;
    due.push(&one);
    run_due(due);
  }
  return true;
}

// The caller holds the result, which holds the memory.
CONCUR_INLINE void gathering::start(due_list& due) noexcept {
  if (const std::size_t never_attached = notes_.size() - added_) let_go(never_attached);
  count_down(due);
}

CONCUR_INLINE void gathering::come_due(continuation* due, due_list& more) noexcept {
  note* one = static_cast<note*>(due);
  gathering* self = one->whole;
  std::size_t none = no_index;
  const std::size_t index = static_cast<std::size_t>(one - self->notes_.data());
  // relaxed, both: counting down publishes it.
  if (self->winner_.compare_exchange_strong(none, index, std::memory_order_relaxed, std::memory_order_relaxed) ||
      self->wants_all_)
    self->count_down(more);
  self->let_go(1);
}

CONCUR_INLINE void gathering::count_down(due_list& more) noexcept {
  // acq_rel: publishes this one's result to who finishes, who sees all of them.
  if (missing_.fetch_sub(1, std::memory_order_acq_rel) != 1 && !CONCUR_MUTANT_IS(147)) return;
  std::size_t taken_off = 0;
  if (!wants_all_ && !CONCUR_MUTANT_IS(148)) {
    for (std::size_t i = 0; i < added_; ++i) {
      if (notes_[i].source->detach(&notes_[i]) || CONCUR_MUTANT_IS(297)) ++taken_off;
    }
  }
  finish_(this, winner_.load(std::memory_order_relaxed), more);  // relaxed: counting down published it
  if (taken_off != 0) let_go(taken_off);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// structure/this_fiber.hpp - what a fiber may ask and do about itself. On a plain thread the same functions act on
// the thread.

#include <string_view>

CONCUR_NAMESPACE_BEGIN

// Names a fiber among all of its runtime, for as long as the runtime lives. The default names none.
class fiber_id {
 public:
  constexpr fiber_id() noexcept = default;
  explicit constexpr fiber_id(std::uint64_t value) noexcept : value_(value) {}
  // The number that dumps and reports show; 0 for no fiber.
  constexpr std::uint64_t value() const noexcept { return value_; }
  explicit constexpr operator bool() const noexcept { return value_ != 0; }
  friend constexpr bool operator==(fiber_id a, fiber_id b) noexcept { return a.value_ == b.value_; }
  friend constexpr bool operator!=(fiber_id a, fiber_id b) noexcept { return a.value_ != b.value_; }
  friend constexpr bool operator<(fiber_id a, fiber_id b) noexcept { return a.value_ < b.value_; }

 private:
  std::uint64_t value_ = 0;
};

namespace detail {
// After the checkpoint. timed_out or cancelled.
CONCUR_INLINE outcome sleep_from(worker* w, nanoseconds_t deadline_ns) noexcept;
template <class... Code>
bool sleep_until_ns(nanoseconds_t deadline_ns, Code&... code) {
  return perform([&](worker* w) { return sleep_from(w, deadline_ns); }, code...) != outcome::cancelled;
}
CONCUR_INLINE void yield_thread() noexcept;
CONCUR_INLINE void fire_own_timers(worker* w, nanoseconds_t now) noexcept;

// Timers set on this worker that came due. While its fiber computes, it may be the only one that could look: a limit on what
// it computes would pass unseen until its slice is used up. No timer set: no look at the clock.
inline void fire_overdue() noexcept {
  worker* const w = this_worker();
  if (w == nullptr || w->current == nullptr || CONCUR_MUTANT_IS(250)) return;
  const nanoseconds_t next = w->timers.next_ns();
  if (next == never) return;
  const nanoseconds_t now = now_ns();
  if (CONCUR_UNLIKELY(next <= now)) fire_own_timers(w, now);
}
}  // namespace detail

namespace this_fiber {

// Lets every other ready fiber of this worker run first. No checkpoint: it does not throw.
inline void(yield)() noexcept {
  detail::worker* w = detail::this_worker();
  if (CONCUR_LIKELY(w != nullptr && w->current != nullptr))
    detail::yield_fiber(w);
  else
    detail::yield_thread();
}

// Parks until the time has come, never less; a time that has passed only lets others run. duration::max() sleeps
// until cancelled. Throws `cancelled`; the form with a code says so there, and returns false.
template <class Rep, class Period>
void sleep_for(std::chrono::duration<Rep, Period> d) {
  detail::sleep_until_ns(detail::deadline_after(d));
}
template <class Clock, class Duration>
void sleep_until(const std::chrono::time_point<Clock, Duration>& tp) {
  detail::sleep_until_ns(detail::deadline_at(tp));
}
template <class Rep, class Period>
bool sleep_for(std::chrono::duration<Rep, Period> d, std::error_code& error) {
  return detail::sleep_until_ns(detail::deadline_after(d), error);
}
template <class Clock, class Duration>
bool sleep_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
  return detail::sleep_until_ns(detail::deadline_at(tp), error);
}

CONCUR_INLINE fiber_id get_id() noexcept;
// The name given, or an empty one. Valid until the fiber is renamed or ends.
CONCUR_INLINE std::string_view name() noexcept;
// Names the fiber for dumps and reports; the first 23 bytes are kept.
CONCUR_INLINE void name(std::string_view new_name);
// Whether the next parking operation will throw `cancelled`.
CONCUR_INLINE bool cancelled() noexcept;
// For loops that compute: throws `cancelled` if the fiber is, also if a limit has just passed, and lets others run when its
// slice is used up. While timers are set it looks at the clock, which costs some 20 ns. The form with a code says it there,
// and returns false.
inline void checkpoint() {
  detail::fire_overdue();
  detail::checkpoint();
}
inline bool checkpoint(std::error_code& error) {
  detail::fire_overdue();
  return detail::perform([](detail::worker*) { return detail::outcome::granted; }, error) == detail::outcome::granted;
}

}  // namespace this_fiber
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void yield_thread() noexcept {
  if (driver* d = driver_or_null())
    d->spin();
  else
    sched_yield();
}

CONCUR_INLINE void fire_own_timers(worker* w, nanoseconds_t now) noexcept { w->timers.fire(now); }

CONCUR_INLINE outcome sleep_from(worker* w, nanoseconds_t deadline_ns) noexcept {
  if (deadline_ns != never && deadline_ns <= now_ns()) {
    if (w != nullptr)
      yield_fiber(w);
    else
      yield_thread();
    return outcome::timed_out;
  }
  caller me(w);
  return me.park(nullptr, deadline_ns, wait_reason::sleep);
}

inline fiber* this_fiber_block() noexcept {
  worker* w = this_worker();
  return w != nullptr ? w->current : nullptr;
}

}  // namespace detail

namespace this_fiber {

CONCUR_INLINE fiber_id get_id() noexcept {
  const detail::fiber* f = detail::this_fiber_block();
  return f != nullptr ? fiber_id(f->id) : fiber_id();
}

CONCUR_INLINE std::string_view name() noexcept {
  const detail::fiber* f = detail::this_fiber_block();
  return f != nullptr && f->name != nullptr ? std::string_view(f->name) : std::string_view();
}

CONCUR_INLINE void name(std::string_view new_name) {
  detail::fiber* f = detail::this_fiber_block();
  if (f == nullptr) return;
  if (f->name == nullptr) f->name = new char[detail::fiber_name_bytes]();
  f->has_belongings = true;
  const std::size_t size =
      new_name.size() < detail::fiber_name_bytes - 1 ? new_name.size() : detail::fiber_name_bytes - 1;
  std::memcpy(f->name, new_name.data(), size);
  f->name[size] = '\0';
}

CONCUR_INLINE bool cancelled() noexcept {
  const detail::fiber* f = detail::this_fiber_block();
#  if CONCUR_EXCEPTIONS
  if (f != nullptr && std::uncaught_exceptions() > f->unwind_base) return false;  // in a destructor, for unwinding
#  endif
  return f != nullptr && f->should_cancel();
}

}  // namespace this_fiber
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// structure/runtime.hpp - starting workers, running a program on them, and ending with nothing left over.
//
// run() is for programs that are concurrent as a whole: it starts the workers, runs its argument as the first fiber,
// and comes back when every fiber has ended. A runtime object is for programs that have a life of their own and hand
// work in.
//
//   V1  Leaving run, or the end of a runtime object, leaves no fiber, thread, descriptor or stack behind.
//   V2  An error surfaces: the root's own from run and block_on, any other's through its future, or, when nobody took
//       it, from run.

CONCUR_NAMESPACE_BEGIN

// Workers and their fibers. Several may live at once. Constructing one throws std::invalid_argument for options that
// cannot be meant, and std::system_error when threads, descriptors or memory cannot be had; nothing is left behind
// then.
class runtime {
 public:
  explicit runtime(options wanted = {}) : scheduler_(new detail::scheduler(wanted)) {}
  runtime(const runtime&) = delete;
  runtime& operator=(const runtime&) = delete;

  // Cancels the fibers that are left, waits for them, joins every thread and frees every stack. Not from a fiber of
  // this runtime.
  ~runtime() {
    scheduler_->blocks->close();
    scheduler_->cancel_all();
    scheduler_->quiesce();
  }

  // Runs f as a fiber and waits for it; returns what it returned, rethrows what it threw. From any thread, or a fiber.
  template <class F>
  auto block_on(F&& f) -> std::invoke_result_t<std::decay_t<F>> {
    return go(std::forward<F>(f)).get();
  }

  // Runs f(args...) as a fiber, from any thread. Errors as for concur::go.
  template <class F, class... Args>
  auto go(F&& f, Args&&... args) -> future<std::invoke_result_t<std::decay_t<F>, std::decay_t<Args>...>> {
    detail::worker* w = detail::this_worker();
    if (w != nullptr && (w->sched != scheduler_.get() || w->current == nullptr)) w = nullptr;
    return detail::spawn(*scheduler_, w, detail::bind_call(std::forward<F>(f), std::forward<Args>(args)...));
  }

  // Figures, without stopping anybody.
  stats snapshot() const noexcept { return detail::take_snapshot(*scheduler_); }
  // Every fiber, a line each: id, state, what it waits for.
  void dump(std::FILE* out = stderr) const noexcept { detail::dump_fibers(*scheduler_, out); }

  // For run(): waits until every fiber has ended, then rethrows the first exception that nobody took.
  void wait_for_all() {
    scheduler_->quiesce();
    if (std::exception_ptr error = scheduler_->take_exception()) detail::rethrow(std::move(error));
  }
  // Ends every wait of every fiber with `cancelled`, present and future ones.
  void cancel_all() noexcept { scheduler_->cancel_all(); }

 private:
  std::unique_ptr<detail::scheduler> scheduler_;
};

// Starts workers, runs f as the first fiber, waits for every fiber, stops the workers, and returns what f returned.
// When f throws, the other fibers are cancelled and waited for, and run rethrows. When f succeeds, run rethrows the
// first exception of another fiber that nobody took.
template <class F>
auto run(options wanted, F&& f) -> std::invoke_result_t<std::decay_t<F>> {
  using R = std::invoke_result_t<std::decay_t<F>>;
  runtime rt(wanted);
  future<R> root = rt.go(std::forward<F>(f));
  if constexpr (std::is_void<R>::value) {
    root.get();
    rt.wait_for_all();
  } else {
    R result = root.get();
    rt.wait_for_all();
    return static_cast<R&&>(result);
  }
}
template <class F>
auto run(F&& f) -> std::invoke_result_t<std::decay_t<F>> {
  return concur::run(options{}, std::forward<F>(f));
}

CONCUR_NAMESPACE_END

// io/address.hpp - where a socket is, or is to be: an IP address and a port.
//
// Written as in a URL: "127.0.0.1:80", "[::1]:80", ":80" for every address of this machine. A name instead of an
// address is looked up by the system's resolver, which may block the worker for as long as that takes; resolve once
// and keep the endpoint.

CONCUR_NAMESPACE_BEGIN

class endpoint {
 public:
  endpoint() noexcept = default;
  // Throws std::invalid_argument, naming what is wrong with the text; std::system_error when a name cannot be resolved.
  endpoint(std::string_view text);
  endpoint(const char* text) : endpoint(std::string_view(text)) {}
  endpoint(const std::string& text) : endpoint(std::string_view(text)) {}
  endpoint(std::string_view address, unsigned port);
  // The same without throwing; an empty endpoint then.
  static endpoint parse(std::string_view text, std::error_code& error) noexcept;

  bool is_empty() const noexcept { return size_ == 0; }
  bool is_v6() const noexcept { return size_ == v6_bytes; }
  unsigned port() const noexcept;
  std::string address() const;    // without port and brackets
  std::string to_string() const;  // as it is parsed
  friend bool operator==(const endpoint& a, const endpoint& b) noexcept;
  friend bool operator!=(const endpoint& a, const endpoint& b) noexcept { return !(a == b); }

  // For system calls: a struct sockaddr and its size.
  const void* data() const noexcept { return bytes_; }
  unsigned size() const noexcept { return size_; }
  static endpoint from_sockaddr(const void* data, unsigned size) noexcept;

 private:
  static constexpr unsigned v4_bytes = 16;
  static constexpr unsigned v6_bytes = 28;

  // Why a text is no endpoint; null: it is one.
  const char* take(std::string_view text, std::string& part, int& resolver_error) noexcept;
  const char* take_host(std::string_view host, unsigned port, int& resolver_error) noexcept;

  alignas(8) unsigned char bytes_[v6_bytes] = {};
  unsigned size_ = 0;
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <arpa/inet.h>
#  include <netdb.h>
#  include <netinet/in.h>
#  include <sys/socket.h>

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Digits only, up to 65535.
inline bool parse_port(std::string_view text, unsigned& port) noexcept {
  if (text.empty() || text.size() > 5) return false;
  port = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return false;
    port = port * 10 + static_cast<unsigned>(c - '0');
  }
  return port <= 65535;
}

}  // namespace detail

CONCUR_INLINE const char* endpoint::take_host(std::string_view host, unsigned port, int& resolver_error) noexcept {
  static_assert(sizeof(sockaddr_in) == v4_bytes && sizeof(sockaddr_in6) == v6_bytes, "an endpoint has room for both");
  char name[256];
  if (host.size() >= sizeof name) return "the host is longer than 255 bytes";
  std::memcpy(name, host.data(), host.size());
  name[host.size()] = '\0';
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  v4.sin_family = AF_INET;
  v6.sin6_family = AF_INET6;
  v4.sin_port = htons(static_cast<std::uint16_t>(port));
  v6.sin6_port = v4.sin_port;
  if (host.empty() || inet_pton(AF_INET, name, &v4.sin_addr) == 1) {
    *this = from_sockaddr(&v4, sizeof v4);
    return nullptr;
  }
  if (inet_pton(AF_INET6, name, &v6.sin6_addr) == 1) {
    *this = from_sockaddr(&v6, sizeof v6);
    return nullptr;
  }
  // Four numbers with dots that are no address are a slip, not a name.
  if (host.find_first_not_of("0123456789.") == std::string_view::npos || host.find(':') != std::string_view::npos)
    return "the host is no valid IP address";
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  resolver_error = getaddrinfo(name, nullptr, &hints, &found);
  if (resolver_error != 0) return "the host name is not known";
  if (found->ai_family == AF_INET) {
    std::memcpy(&v4.sin_addr, reinterpret_cast<const char*>(found->ai_addr) + offsetof(sockaddr_in, sin_addr),
                sizeof v4.sin_addr);
    *this = from_sockaddr(&v4, sizeof v4);
  } else {
    std::memcpy(&v6.sin6_addr, reinterpret_cast<const char*>(found->ai_addr) + offsetof(sockaddr_in6, sin6_addr),
                sizeof v6.sin6_addr);
    *this = from_sockaddr(&v6, sizeof v6);
  }
  freeaddrinfo(found);
  return nullptr;
}

CONCUR_INLINE const char* endpoint::take(std::string_view text, std::string& part, int& resolver_error) noexcept {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return "a port is missing; write \"address:port\"";
  std::string_view host = text.substr(0, colon);
  const std::string_view port_text = text.substr(colon + 1);
  unsigned port = 0;
  if (!detail::parse_port(port_text, port)) {
    part = port_text;
    return "a port is a number from 0 to 65535";
  }
  if (!host.empty() && host.front() == '[') {
    if (host.back() != ']') return "the bracket of an IPv6 address is not closed";
    host = host.substr(1, host.size() - 2);
    if (host.find(':') == std::string_view::npos) return "only an IPv6 address stands in brackets";
  } else if (host.find(':') != std::string_view::npos) {
    return "an IPv6 address with a port is written in brackets, as \"[::1]:80\"";
  }
  return take_host(host, port, resolver_error);
}

CONCUR_INLINE endpoint::endpoint(std::string_view text) {
  std::string part;
  int resolver_error = 0;
  const char* why = take(text, part, resolver_error);
  if (why == nullptr) return;
  const std::string shown = "\"" + std::string(text) + "\"";
  if (resolver_error != 0)
    detail::fail_system(ENXIO, "concur::endpoint: " + shown + ": " + gai_strerror(resolver_error));
  if (!part.empty()) detail::fail_argument("concur::endpoint", "port", part + " in " + shown, why);
  detail::fail_argument("concur::endpoint", "address", shown, why);
}

CONCUR_INLINE endpoint::endpoint(std::string_view address, unsigned port) {
  if (port > 65535)
    detail::fail_argument("concur::endpoint", "port", std::to_string(port), "a port is a number from 0 to 65535");
  int resolver_error = 0;
  const char* why = take_host(address, port, resolver_error);
  if (why != nullptr) detail::fail_argument("concur::endpoint", "address", "\"" + std::string(address) + "\"", why);
}

CONCUR_INLINE endpoint endpoint::parse(std::string_view text, std::error_code& error) noexcept {
  endpoint result;
  std::string part;
  int resolver_error = 0;
  error.clear();
  if (result.take(text, part, resolver_error) != nullptr) {
    error =
        std::make_error_code(resolver_error != 0 ? std::errc::no_such_device_or_address : std::errc::invalid_argument);
    return endpoint();
  }
  return result;
}

CONCUR_INLINE endpoint endpoint::from_sockaddr(const void* data, unsigned size) noexcept {
  endpoint result;
  sockaddr head{};
  if (size < offsetof(sockaddr, sa_data)) return result;
  std::memcpy(&head, data, size < sizeof head ? size : sizeof head);
  const unsigned wanted = head.sa_family == AF_INET ? v4_bytes : head.sa_family == AF_INET6 ? v6_bytes : 0;
  if (wanted == 0 || size < wanted) return result;
  std::memcpy(result.bytes_, data, wanted);
  result.size_ = wanted;
  return result;
}

CONCUR_INLINE unsigned endpoint::port() const noexcept {
  std::uint16_t port = 0;
  if (size_ != 0)
    std::memcpy(&port, bytes_ + (is_v6() ? offsetof(sockaddr_in6, sin6_port) : offsetof(sockaddr_in, sin_port)),
                sizeof port);
  return ntohs(port);
}

CONCUR_INLINE std::string endpoint::address() const {
  char text[INET6_ADDRSTRLEN] = "";
  if (size_ != 0)
    inet_ntop(is_v6() ? AF_INET6 : AF_INET,
              bytes_ + (is_v6() ? offsetof(sockaddr_in6, sin6_addr) : offsetof(sockaddr_in, sin_addr)), text,
              sizeof text);
  return text;
}

CONCUR_INLINE std::string endpoint::to_string() const {
  if (size_ == 0) return "(no endpoint)";
  return (is_v6() ? "[" + address() + "]" : address()) + ":" + std::to_string(port());
}

CONCUR_INLINE bool operator==(const endpoint& a, const endpoint& b) noexcept {
  return a.size_ == b.size_ && a.port() == b.port() && a.address() == b.address();
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// io/descriptor.hpp - one system call on a descriptor, as a fiber makes it: try, wait until it may work, try again.
//
// Everything else in this layer is a few lines around run_io. The system calls return what the kernel returned, with
// a failure as minus its errno: a value, read where the call was made. `errno` itself is a thread's, and a fiber that
// parked may be on another one; only the POSIX-shaped layer writes it, last.
//
//   J1  The call is tried first: most reads and writes need no waiting. A deadline that has passed fails before the
//       call.
//   J2  EINTR is tried again with the same deadline, which is absolute: signals do not stretch a time limit.
//   J3  A fiber that had to wait has the turn until its call is through, and passes it on whatever the end is
//       (reactor.hpp, G3).
//   J4  On a plain thread the same function blocks that thread, in poll.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// What read and write return; the same type as ssize_t.
using io_result = std::make_signed_t<std::size_t>;
// What run_io returns to a caller that was cancelled: no errno, and so not taken for that of a descriptor that was closed.
inline constexpr int io_cancelled = -0x10000;

// The system calls, by name; minus errno for a failure. MSG_DONTWAIT or O_NONBLOCK is the caller's affair, SIGPIPE is
// not raised.
namespace sys {
io_result read(int fd, void* data, std::size_t size) noexcept;
io_result write(int fd, const void* data, std::size_t size) noexcept;
io_result recv(int fd, void* data, std::size_t size) noexcept;        // without blocking
io_result send(int fd, const void* data, std::size_t size) noexcept;  // without blocking, without SIGPIPE
int accept(int fd, void* address, unsigned* size) noexcept;           // close-on-exec, non-blocking
int connect(int fd, const void* address, unsigned size) noexcept;
int socket_error(int fd) noexcept;  // SO_ERROR, as minus errno
int close(int fd) noexcept;
int set_nonblocking(int fd) noexcept;
int poll_one(int fd, direction d, nanoseconds_t deadline_ns) noexcept;  // 0, or minus errno; ETIMEDOUT
descriptor_kind classify(int fd) noexcept;                              // sets O_NONBLOCK on streams
void set_errno(int error) noexcept;
}  // namespace sys

// What a plain thread does, and what a fiber does after "not now".
template <class Op>
io_result run_io_blocking(int fd, direction d, nanoseconds_t deadline_ns, Op& op) {
  for (;;) {
    const io_result result = op();
    if (result == -EINTR) continue;
    if (result != -EAGAIN) return result;
    const int waited = sys::poll_one(fd, d, deadline_ns);
    if (waited != 0) return waited;
  }
}

// Ends a turn however the scope is left (J3).
struct turn_scope {
  turn_scope(descriptor_slot& slot_in, direction side_in) noexcept
      : slot(slot_in), side(side_in), use{slot.generation_of_use()} {}
  ~turn_scope() {
    if (CONCUR_UNLIKELY(use.has_turn || use.is_calling)) leave_turn(slot, side, use);
  }
  turn_scope(const turn_scope&) = delete;
  turn_scope& operator=(const turn_scope&) = delete;

  descriptor_slot& slot;
  direction side;
  side_use use;
};

// What an ended wait means for the call: 0 to try again, else minus errno, or io_cancelled.
inline io_result after_wait(outcome result, int error) noexcept {
  if (error != 0) return -error;
  if (CONCUR_LIKELY(result == outcome::granted)) return 0;
  if (result == outcome::cancelled) return io_cancelled;
  return result == outcome::timed_out ? -ETIMEDOUT : -ECANCELED;
}

// Calls op() until it gives anything but "not now", waiting in between. op returns a count, or minus errno; so does
// run_io, with ETIMEDOUT for a deadline that passed and ECANCELED for a descriptor that was closed meanwhile. io_cancelled
// when the caller was cancelled, which the layers above throw, or tell.
// stream_bytes: for reads of a stream, how many bytes op asks for; see G5 of reactor.hpp. 0 for all else.
template <class Op>
io_result run_io(int fd, direction d, nanoseconds_t deadline_ns, Op op, std::size_t stream_bytes = 0) {
  worker* w = nullptr;
  if (CONCUR_UNLIKELY(!checkpoint_quietly(w))) return io_cancelled;
  if (CONCUR_UNLIKELY(deadline_ns != never) && deadline_ns <= now_ns()) return -ETIMEDOUT;
  if (CONCUR_UNLIKELY(w == nullptr)) return run_io_blocking(fd, d, deadline_ns, op);
  descriptor_slot* slot = slot_of(fd);
  if (CONCUR_UNLIKELY(slot == nullptr)) {  // most likely no descriptor at all: the call says so
    const io_result result = op();
    return result == -EAGAIN ? -ENOMEM : result;
  }
  turn_scope turn(*slot, d);
  // relaxed: who is missed here came at the same moment, and order between the two is nobody's promise.
  if (CONCUR_UNLIKELY(slot->side(d).is_busy.load(std::memory_order_relaxed))) {
    const io_result waited = after_wait(wait_turn(*slot, d, deadline_ns, turn.use), 0);
    if (waited != 0) return waited;
  }
  for (bool is_first = true;; is_first = false) {
    turn.use.news = slot->side(d).present_news();
    // relaxed: an old value is not this one; a value missed costs a system call.
    const bool is_drained = is_first && stream_bytes != 0 &&
                            slot->drained_at.load(std::memory_order_relaxed) == turn.use.news;  // relaxed: see above
    const io_result result = is_drained ? -EAGAIN : op();
    if (CONCUR_LIKELY(result >= 0)) {
      const bool is_short = result != 0 && static_cast<std::size_t>(result) < stream_bytes;
      // relaxed, both: the acquire above saw an end that came with the news; one that came later is news itself.
      if (is_short && !slot->has_ended.load(std::memory_order_relaxed))
        slot->drained_at.store(turn.use.news, std::memory_order_relaxed);  // relaxed: as above
      return result;
    }
    if (result == -EINTR) continue;
    // Closed between the news that woke this fiber and its next try: for the caller it was closed while it waited.
    if (result == -EBADF && !is_first) return -ECANCELED;
    if (result != -EAGAIN) return result;
    int error = 0;
    const outcome ended = wait_ready(*slot, fd, d, deadline_ns, turn.use, error);
    const io_result waited = after_wait(ended, error);
    if (waited != 0) return waited;
  }
}

// The kind of a descriptor, asked of the kernel once per use of the number.
inline descriptor_kind kind_of(int fd) noexcept {
  descriptor_slot* slot = slot_of(fd);
  if (slot == nullptr) return descriptor_kind::unknown;
  descriptor_kind kind = slot->kind.load(std::memory_order_relaxed);  // relaxed: a cache of what the kernel knows
  if (CONCUR_LIKELY(kind != descriptor_kind::unknown)) return kind;
  kind = sys::classify(fd);
  slot->kind.store(kind, std::memory_order_relaxed);  // relaxed: as above
  return kind;
}

// Wakes who waits for it, takes it out of the poller, closes it. 0, or minus errno.
inline int close_descriptor(int fd) noexcept {
  const std::uint32_t generation = begin_close(fd);
  const int result = sys::close(fd);
  end_close(fd, generation);
  return result;
}

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <algorithm>
#  include <sys/stat.h>

CONCUR_NAMESPACE_BEGIN
namespace detail {
namespace sys {

#  if defined(MSG_NOSIGNAL)
inline constexpr int send_flags = MSG_DONTWAIT | MSG_NOSIGNAL;
#  else
inline constexpr int send_flags = MSG_DONTWAIT;  // there SO_NOSIGPIPE was set on the socket
#  endif

// Each call is a function that is not inlined, so that `errno` is looked up on the thread that made the call.
inline io_result or_errno(io_result result) noexcept {
  if (result < 0) return -static_cast<io_result>(errno);
  if (driver* d = driver_or_null()) d->stir_outside();
  return result;
}

CONCUR_NOINLINE CONCUR_INLINE io_result read(int fd, void* data, std::size_t size) noexcept {
  return or_errno(::read(fd, data, size));
}
// A pipe has no flag against SIGPIPE. Workers block it; on other threads it is blocked for the call, and a new one
// taken away.
inline io_result write_without_signal(int fd, const void* data, std::size_t size) noexcept {
  sigset_t pipe_only, before, pending;
  sigemptyset(&pipe_only);
  sigaddset(&pipe_only, SIGPIPE);
  sigpending(&pending);
  const bool was_pending = sigismember(&pending, SIGPIPE) == 1;
  pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
  const io_result result = or_errno(::write(fd, data, size));
  sigpending(&pending);
  int taken = 0;
  if (result == -EPIPE && !was_pending && sigismember(&pending, SIGPIPE) == 1) sigwait(&pipe_only, &taken);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return result;
}
// A driver may have fewer bytes written than asked for, or the call interrupted. Reads are short by what was written: one
// that is short for no reason is nothing that a kernel does, and G5 of reactor.hpp rests on that.
inline bool is_interrupted() noexcept {
  driver* const d = driver_or_null();
  return CONCUR_UNLIKELY(d != nullptr) && d->choose(choice::io_error, 2) != 0;
}
inline std::size_t bytes_to_write(std::size_t size) noexcept {
  driver* const d = driver_or_null();
  if (CONCUR_LIKELY(d == nullptr) || size < 2) return size;
  const std::size_t sizes[] = {size, 1, (size + 1) / 2};
  return sizes[d->choose(choice::io_size, 3)];
}

CONCUR_NOINLINE CONCUR_INLINE io_result write(int fd, const void* data, std::size_t size) noexcept {
  if (is_interrupted()) return -EINTR;
  size = bytes_to_write(size);
  // A driver's workers are no threads of ours.
  if (this_worker() == nullptr || driver_or_null() != nullptr) return write_without_signal(fd, data, size);
  return or_errno(::write(fd, data, size));
}
CONCUR_NOINLINE CONCUR_INLINE io_result recv(int fd, void* data, std::size_t size) noexcept {
  if (is_interrupted()) return -EINTR;
  return or_errno(::recv(fd, data, size, MSG_DONTWAIT));
}
CONCUR_NOINLINE CONCUR_INLINE io_result send(int fd, const void* data, std::size_t size) noexcept {
  if (is_interrupted()) return -EINTR;
  size = bytes_to_write(size);
  return or_errno(::send(fd, data, size, send_flags));
}

// What every socket of ours is: close-on-exec, non-blocking, silent.
inline void prepare_socket([[maybe_unused]] int fd) noexcept {
#  if !defined(__linux__)
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
#  endif
#  if defined(SO_NOSIGPIPE)
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#  endif
}

CONCUR_NOINLINE CONCUR_INLINE int accept(int fd, void* address, unsigned* size) noexcept {
  socklen_t length = size != nullptr ? *size : 0;
#  if defined(__linux__)
  const int accepted =
      ::accept4(fd, static_cast<sockaddr*>(address), size != nullptr ? &length : nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
#  else
  const int accepted = ::accept(fd, static_cast<sockaddr*>(address), size != nullptr ? &length : nullptr);
#  endif
  if (accepted < 0) return -errno;
  prepare_socket(accepted);
  if (size != nullptr) *size = length;
  return accepted;
}

CONCUR_NOINLINE CONCUR_INLINE int connect(int fd, const void* address, unsigned size) noexcept {
  return static_cast<int>(or_errno(::connect(fd, static_cast<const sockaddr*>(address), size)));
}
CONCUR_NOINLINE CONCUR_INLINE int socket_error(int fd) noexcept {
  int error = 0;
  socklen_t size = sizeof error;
  return ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? -error : -errno;
}
CONCUR_NOINLINE CONCUR_INLINE int close(int fd) noexcept { return static_cast<int>(or_errno(::close(fd))); }

CONCUR_NOINLINE CONCUR_INLINE int set_nonblocking(int fd) noexcept {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0) return -errno;
  if ((flags & O_NONBLOCK) != 0) return 0;
  return ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 ? 0 : -errno;
}

// Asks at least once, also for a deadline that has passed.
CONCUR_NOINLINE CONCUR_INLINE int poll_one(int fd, direction d, nanoseconds_t deadline_ns) noexcept {
  for (;;) {
    const nanoseconds_t now = deadline_ns == never ? 0 : now_ns();
    int timeout_ms = -1;
    if (deadline_ns <= now)
      timeout_ms = 0;
    else if (deadline_ns != never)
      timeout_ms = static_cast<int>((std::min)(deadline_ns - now, nanoseconds_t{1'000'000'000}) / 1'000'000) + 1;
    pollfd one{fd, static_cast<short>(d == direction::reading ? POLLIN : POLLOUT), 0};
    const int count = ::poll(&one, 1, timeout_ms);
    if (count > 0) return 0;
    if (count < 0 && errno != EINTR) return -errno;
    if (timeout_ms == 0) return -ETIMEDOUT;
  }
}

CONCUR_NOINLINE CONCUR_INLINE descriptor_kind classify(int fd) noexcept {
  struct stat about;
  if (::fstat(fd, &about) != 0) return descriptor_kind::unknown;
  if (S_ISSOCK(about.st_mode)) return descriptor_kind::socket;
  if (S_ISREG(about.st_mode) || S_ISDIR(about.st_mode) || S_ISBLK(about.st_mode)) return descriptor_kind::file;
  set_nonblocking(fd);
  return descriptor_kind::stream;
}

CONCUR_NOINLINE CONCUR_INLINE void set_errno(int error) noexcept { errno = error; }

}  // namespace sys
}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// io/descriptor_case.hpp - a descriptor that becomes readable or writable, as a case of a select.
//
// Whether a descriptor is ready the kernel says, at once and for certain; that it has become ready the reactor says, once,
// and perhaps too late to be true still. So the case asks the kernel first. Only then, under the slot's lock, it believes
// the slot that there was no news since, and waits there like a read or a write; if there was news it asks again, under
// the lock. What it was woken for it looks at too, since another reader may have been faster.
//
// The case reads nothing. It has the turn (reactor.hpp, G3) no longer than it takes to look.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// All but the user's function.
class descriptor_case_base : public select_case {
 public:
  // Inline where they are declared: else every translation unit would get them, as the class's key functions.
  CONCUR_INLINE descriptor_case_base(int fd, direction d);
  CONCUR_INLINE void prepare() override;
  CONCUR_INLINE bool is_ready(nanoseconds_t) noexcept override;
  attempt take(party*&) override { return attempt::done; }
  CONCUR_INLINE void enter() noexcept override;
  CONCUR_INLINE void leave() noexcept override;
  CONCUR_INLINE bool end(outcome result) override;

 private:
  void watch();
  bool ask() noexcept { return sys::poll_one(fd_, direction_, long_ago) == 0; }

  int fd_;
  direction direction_;
  descriptor_slot* slot_ = nullptr;
  side_use use_{0};
  bool is_found_ready_ = false;
};

template <class F>
class descriptor_case final : public descriptor_case_base {
 public:
  descriptor_case(int fd, direction d, F&& handler) : descriptor_case_base(fd, d), handler_(std::move(handler)) {}
  void run() override { handler_(); }

 private:
  F handler_;
};

}  // namespace detail

// Goes when a read of the descriptor would not block: there are bytes, the end, or an error. f() makes the read. Throws
// std::invalid_argument for a negative number, std::system_error from the select for one that is not open, and with
// ECANCELED when the descriptor is closed while the select waits.
template <class F>
auto readable(int fd, F&& f) {
  return detail::descriptor_case<std::decay_t<F>>(fd, detail::direction::reading, std::decay_t<F>(std::forward<F>(f)));
}
// The same for a write.
template <class F>
auto writable(int fd, F&& f) {
  return detail::descriptor_case<std::decay_t<F>>(fd, detail::direction::writing, std::decay_t<F>(std::forward<F>(f)));
}

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE descriptor_case_base::descriptor_case_base(int fd, direction d)
    : select_case(case_traits{false, true, false}), fd_(fd), direction_(d) {
  if (fd < 0)
    fail_argument("concur::select", "fd", std::to_string(fd), "a descriptor is a number from 0 on; was it opened?");
}

CONCUR_INLINE void descriptor_case_base::prepare() {
  slot_ = slot_of(fd_);
  if (slot_ == nullptr) fail_system(EBADF, "concur::select: waiting for descriptor " + std::to_string(fd_));
  use_.generation = slot_->generation_of_use();
  use_.news = slot_->side(direction_).present_news();
  is_found_ready_ = ask();
  const worker* w = this_worker();
  const bool is_on_fiber = w != nullptr && w->current != nullptr;
  set_site_lock(is_on_fiber ? &slot_->lock : nullptr);
  descriptor = is_on_fiber ? -1 : fd_;
  is_for_writing = direction_ == direction::writing;
  if (is_on_fiber && !is_found_ready_) watch();
}

CONCUR_INLINE void descriptor_case_base::watch() {
  int error = 0;
  {
    lock_scope<spin_lock> held(slot_->lock);
    error = watch_descriptor(*slot_, fd_, *this_worker()->sched);
    if (error == 0)
      slot_->watched_by->watcher.arm(fd_, static_cast<std::uint32_t>(fd_), !is_for_writing, is_for_writing);
  }
  if (error == EPERM)
    is_found_ready_ = true;  // a file: always ready
  else if (error != 0)
    fail_system(error, "concur::select: waiting for descriptor " + std::to_string(fd_));
}

CONCUR_INLINE bool descriptor_case_base::is_ready(nanoseconds_t) noexcept {
  if (is_found_ready_ || site.lock == nullptr) return is_found_ready_;
  if (slot_->is_outdated(use_)) return is_found_ready_ = true;  // nothing would wake it: end() and the call say so
  const std::uint32_t news = slot_->side(direction_).present_news();
  if (news == use_.news) return false;
  use_.news = news;
  is_found_ready_ = ask();
  return is_found_ready_;
}

CONCUR_INLINE void descriptor_case_base::enter() noexcept {
  descriptor_side& side = slot_->side(direction_);
  side.waiting.push_back(&note);
  note_busy(side);
}

CONCUR_INLINE void descriptor_case_base::leave() noexcept {
  descriptor_side& side = slot_->side(direction_);
  if (intrusive_list<waiter>::is_linked(&note)) side.waiting.erase(&note);
  note_busy(side);
}

CONCUR_INLINE bool descriptor_case_base::end(outcome result) {
  if (result == outcome::closed || slot_->is_outdated(use_))
    fail_system(ECANCELED, "concur::select: descriptor " + std::to_string(fd_) + " was closed while it was waited for");
  const bool is_ready_now = ask();
  use_.has_turn = true;  // it was woken
  leave_turn(*slot_, direction_, use_);
  return is_ready_now;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// io/posix.hpp - the calls of POSIX, with the same arguments, results and errno, that park the fiber instead of
// blocking its thread.
//
// For code that exists: replace `read` by `io::read`. `errno` is a thread's; so these calls bring the fiber back to
// the thread it called from, and write errno there as the last thing. Read it at once, as always; a compiler may keep
// its address over several calls within one function of yours, which is harmless as long as the fiber stays on its
// thread, and it does, in these calls.
//
// Descriptors: sockets are used as they are. Pipes, terminals and listening or connecting sockets are set to
// O_NONBLOCK, since there is no flag per call for them; whoever shares them sees that. Regular files are read and
// written directly. Close with io::close: it wakes fibers that wait on the descriptor with ECANCELED, and tells the
// library that the number is free.

struct sockaddr;

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Keeps the calling fiber on its worker.
class pin_scope {
 public:
  pin_scope() noexcept {
    worker* w = this_worker();
    fiber_ = w != nullptr && !CONCUR_MUTANT_IS(50) ? w->current : nullptr;
    if (fiber_ == nullptr || fiber_->pin_depth++ != 0) return;
    was_home_ = fiber_->home != nullptr;
    fiber_->home = w;
  }
  ~pin_scope() {
    if (fiber_ == nullptr || --fiber_->pin_depth != 0) return;
    if (!was_home_) fiber_->home = nullptr;
  }
  pin_scope(const pin_scope&) = delete;
  pin_scope& operator=(const pin_scope&) = delete;

 private:
  fiber* fiber_;
  bool was_home_ = false;
};

}  // namespace detail

// Each throws `cancelled` besides what POSIX says. Built without exceptions they fail with ECANCELED instead.
namespace io {

using ssize_type = detail::io_result;  // ssize_t
using socklen_type = unsigned int;     // socklen_t

CONCUR_INLINE ssize_type read(int fd, void* data, std::size_t size);
CONCUR_INLINE ssize_type write(int fd, const void* data, std::size_t size);  // never raises SIGPIPE on a socket
CONCUR_INLINE int accept(int fd, ::sockaddr* address, socklen_type* size);   // the new descriptor is close-on-exec
CONCUR_INLINE int connect(int fd, const ::sockaddr* address, socklen_type size);
CONCUR_INLINE int close(int fd);
CONCUR_INLINE unsigned sleep(unsigned seconds);  // 0: it always sleeps to the end

}  // namespace io
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

// The result as POSIX gives it: minus one and errno. Throws `cancelled`; without exceptions that is ECANCELED.
template <class Result>
Result posix_result(Result result) {
  if (result >= 0) return result;
  if (CONCUR_UNLIKELY(result == io_cancelled)) {
#  if CONCUR_EXCEPTIONS
    fail_cancelled();
#  endif
    result = -ECANCELED;
  }
  sys::set_errno(static_cast<int>(-result));
  return -1;
}

// Waits until a connection under way is made or has failed. 0, or minus errno.
inline int finish_connect(int fd, nanoseconds_t deadline_ns) {
  bool has_waited = false;
  const io_result waited = run_io(fd, direction::writing, deadline_ns, [&]() noexcept -> io_result {
    if (has_waited) {
      // Readiness is a hint: the registration itself reports a socket that is not connected yet as hung up.
      const int ready = sys::poll_one(fd, direction::writing, long_ago);
      if (ready == 0) return 0;
    }
    has_waited = true;
    return -EAGAIN;
  });
  return waited < 0 ? static_cast<int>(waited) : sys::socket_error(fd);
}

inline int connect_descriptor(int fd, const void* address, unsigned size, nanoseconds_t deadline_ns) {
  int result = sys::connect(fd, address, size);
  if (result == -EINTR || result == -EINPROGRESS) result = finish_connect(fd, deadline_ns);
  return result;
}

}  // namespace detail

namespace io {

CONCUR_INLINE ssize_type read(int fd, void* data, std::size_t size) {
  detail::pin_scope pin;
  const detail::descriptor_kind kind = detail::kind_of(fd);
  return detail::posix_result(detail::run_io(fd, detail::direction::reading, detail::never, [=]() noexcept {
    return kind == detail::descriptor_kind::socket ? detail::sys::recv(fd, data, size)
                                                   : detail::sys::read(fd, data, size);
  }));
}

CONCUR_INLINE ssize_type write(int fd, const void* data, std::size_t size) {
  detail::pin_scope pin;
  const detail::descriptor_kind kind = detail::kind_of(fd);
  return detail::posix_result(detail::run_io(fd, detail::direction::writing, detail::never, [=]() noexcept {
    return kind == detail::descriptor_kind::socket ? detail::sys::send(fd, data, size)
                                                   : detail::sys::write(fd, data, size);
  }));
}

CONCUR_INLINE int accept(int fd, ::sockaddr* address, socklen_type* size) {
  detail::pin_scope pin;
  const int prepared = detail::sys::set_nonblocking(fd);
  if (prepared < 0) return detail::posix_result(prepared);
  const detail::io_result accepted =
      detail::run_io(fd, detail::direction::reading, detail::never,
                     [=]() noexcept -> detail::io_result { return detail::sys::accept(fd, address, size); });
  if (accepted >= 0) detail::adopt_descriptor(static_cast<int>(accepted), detail::descriptor_kind::socket);
  return static_cast<int>(detail::posix_result(accepted));
}

CONCUR_INLINE int connect(int fd, const ::sockaddr* address, socklen_type size) {
  detail::pin_scope pin;
  const int prepared = detail::sys::set_nonblocking(fd);
  if (prepared < 0) return detail::posix_result(prepared);
  return detail::posix_result(detail::connect_descriptor(fd, address, size, detail::never));
}

CONCUR_INLINE int close(int fd) { return detail::posix_result(detail::close_descriptor(fd)); }

CONCUR_INLINE unsigned sleep(unsigned seconds) {
  detail::pin_scope pin;
  this_fiber::sleep_for(std::chrono::seconds(seconds));
  return 0;
}

}  // namespace io
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// io/socket.hpp - what all kinds of sockets share: a number that closes itself, and the calls that make one.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Owns a descriptor number.
class unique_descriptor {
 public:
  unique_descriptor() noexcept = default;
  explicit unique_descriptor(int fd) noexcept : fd_(fd) {}
  unique_descriptor(unique_descriptor&& other) noexcept : fd_(other.release()) {}
  unique_descriptor& operator=(unique_descriptor&& other) noexcept {
    unique_descriptor taken(std::move(other));
    const int before = fd_.exchange(taken.release(), std::memory_order_relaxed);  // relaxed: see below
    taken.fd_.store(before, std::memory_order_relaxed);                           // relaxed: see below
    return *this;
  }
  ~unique_descriptor() { close(); }

  // Closing is what one fiber may do while another uses the object; hence the atomic. relaxed, all: the reactor orders the
  // close against calls that wait.
  int get() const noexcept { return fd_.load(std::memory_order_relaxed); }
  int release() noexcept { return fd_.exchange(-1, std::memory_order_relaxed); }  // relaxed: as above
  int close() noexcept {
    const int fd = release();
    return fd < 0 ? 0 : close_descriptor(fd);
  }

 private:
  atomic<int> fd_{-1};
};

// A contiguous container of bytes: has data() and size(), and its elements are one byte wide.
template <class C, class = void>
struct is_byte_container : std::false_type {};
template <class C>
struct is_byte_container<C, std::void_t<decltype(std::declval<C&>().data()), decltype(std::declval<C&>().size())>>
    : std::bool_constant<sizeof(*std::declval<C&>().data()) == 1> {};

CONCUR_INLINE endpoint local_endpoint_of(int fd) noexcept;
CONCUR_INLINE endpoint peer_endpoint_of(int fd) noexcept;

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <netinet/tcp.h>

CONCUR_NAMESPACE_BEGIN
namespace detail {

template <class Ask>
endpoint ask_endpoint(int fd, Ask ask) noexcept {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (fd < 0 || ask(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return endpoint();
  return endpoint::from_sockaddr(&storage, size);
}
CONCUR_INLINE endpoint local_endpoint_of(int fd) noexcept { return ask_endpoint(fd, &::getsockname); }
CONCUR_INLINE endpoint peer_endpoint_of(int fd) noexcept { return ask_endpoint(fd, &::getpeername); }

// A cancelled caller has the portable code, a descriptor that was closed under it the system's.
inline std::error_code to_code(io_result result) noexcept {
  if (CONCUR_UNLIKELY(result == io_cancelled)) return std::make_error_code(std::errc::operation_canceled);
  return result < 0 ? std::error_code(static_cast<int>(-result), std::system_category()) : std::error_code();
}
// For what needs no system call, and is a checkpoint all the same.
inline bool has_passed_checkpoint(std::error_code& error) noexcept {
  worker* w = nullptr;
  return or_tell(checkpoint_quietly(w) ? outcome::granted : outcome::cancelled, error) == outcome::granted;
}
// Throws what the form with a code has told.
[[noreturn]] inline void fail_io(std::error_code code, const std::string& what) {
  if (code == to_code(io_cancelled)) fail_cancelled();
  fail_code(code, what);
}

// A new TCP socket for the endpoint's family; minus errno on failure.
CONCUR_NOINLINE inline int open_socket(const endpoint& e) noexcept {
#  if defined(__linux__)
  const int fd = ::socket(e.is_v6() ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
#  else
  const int fd = ::socket(e.is_v6() ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
#  endif
  if (fd < 0) return -errno;
  sys::prepare_socket(fd);
  adopt_descriptor(fd, descriptor_kind::socket);
  return fd;
}

CONCUR_NOINLINE inline int start_listening(int fd, const endpoint& at, int backlog) noexcept {
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd, static_cast<const sockaddr*>(at.data()), at.size()) != 0) return -errno;
  return ::listen(fd, backlog) == 0 ? 0 : -errno;
}

CONCUR_NOINLINE inline int set_tcp_flag(int fd, int option, bool is_on) noexcept {
  const int value = is_on ? 1 : 0;
  return ::setsockopt(fd, IPPROTO_TCP, option, &value, sizeof value) == 0 ? 0 : -errno;
}
CONCUR_NOINLINE inline int shut_writing(int fd) noexcept { return ::shutdown(fd, SHUT_WR) == 0 ? 0 : -errno; }

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// io/tcp_stream.hpp - a TCP connection as an object: it owns its descriptor, parks the fiber that uses it, closes
// itself.
//
// Every function has two forms. One throws std::system_error, whose text says what was done and with whom; the other
// takes a std::error_code as its last argument and does not throw. The first throws `cancelled`, the second says
// std::errc::operation_canceled for that.
//
// One fiber may read while another writes. Deadlines are moments, not lengths of time: set once, they hold for every
// call until changed, and a call after the deadline fails with std::errc::timed_out before it does anything. A
// default-constructed moment means that there is none. Closing a stream that another fiber waits on wakes that fiber
// with std::errc::operation_canceled, too; this_fiber::cancelled() tells the two apart.

CONCUR_NAMESPACE_BEGIN

class tcp_stream {
 public:
  tcp_stream() noexcept = default;
  // Takes over a connected socket.
  explicit tcp_stream(int fd) noexcept : descriptor_(fd) {}
  tcp_stream(tcp_stream&&) noexcept = default;
  tcp_stream& operator=(tcp_stream&&) noexcept = default;

  // Parks until connected. A string is parsed as by endpoint.
  static tcp_stream connect(const endpoint& to);
  static tcp_stream connect(const endpoint& to, std::error_code& error);

  // Parks until at least one byte is there, and returns how many were read; 0 at the end of the stream.
  std::size_t read_some(void* data, std::size_t size);
  std::size_t read_some(void* data, std::size_t size, std::error_code& error);
  // Reads `size` bytes. When the stream ends before, the first form throws std::system_error (connection_aborted);
  // the second returns how many there were, and no error.
  std::size_t read_exactly(void* data, std::size_t size);
  std::size_t read_exactly(void* data, std::size_t size, std::error_code& error);
  // Reads up to and including `delimiter`. Throws std::system_error (message_size) when that does not come within
  // `limit` bytes, which then stay unread. What is behind the delimiter stays for the next read. Less than asked for,
  // without the delimiter: the end came.
  std::string read_until(std::string_view delimiter, std::size_t limit);
  std::string read_until(std::string_view delimiter, std::size_t limit, std::error_code& error);

  // Writes everything; returns the size. The second form returns how much was written before an error.
  std::size_t write_all(const void* data, std::size_t size);
  std::size_t write_all(const void* data, std::size_t size, std::error_code& error);

  template <class C, class = std::enable_if_t<detail::is_byte_container<C>::value>>
  std::size_t read_some(C&& into) {
    return read_some(static_cast<void*>(into.data()), into.size());
  }
  template <class C, class = std::enable_if_t<detail::is_byte_container<C>::value>>
  std::size_t read_some(C&& into, std::error_code& error) {
    return read_some(static_cast<void*>(into.data()), into.size(), error);
  }
  template <class C, class = std::enable_if_t<detail::is_byte_container<C>::value>>
  std::size_t read_exactly(C&& into) {
    return read_exactly(static_cast<void*>(into.data()), into.size());
  }
  template <class C, class = std::enable_if_t<detail::is_byte_container<C>::value>>
  std::size_t read_exactly(C&& into, std::error_code& error) {
    return read_exactly(static_cast<void*>(into.data()), into.size(), error);
  }
  std::size_t write_all(std::string_view text) { return write_all(text.data(), text.size()); }
  std::size_t write_all(std::string_view text, std::error_code& error) {
    return write_all(text.data(), text.size(), error);
  }
  template <class C, class = std::enable_if_t<detail::is_byte_container<const C>::value &&
                                              !std::is_convertible<const C&, std::string_view>::value>>
  std::size_t write_all(const C& bytes) {
    return write_all(static_cast<const void*>(bytes.data()), bytes.size());
  }
  template <class C, class = std::enable_if_t<detail::is_byte_container<const C>::value &&
                                              !std::is_convertible<const C&, std::string_view>::value>>
  std::size_t write_all(const C& bytes, std::error_code& error) {
    return write_all(static_cast<const void*>(bytes.data()), bytes.size(), error);
  }

  // Tells the peer that nothing more comes; reading goes on.
  void shutdown_write();
  void shutdown_write(std::error_code& error);

  void read_deadline(std::chrono::steady_clock::time_point tp) noexcept { read_deadline_ns_ = to_deadline(tp); }
  void write_deadline(std::chrono::steady_clock::time_point tp) noexcept { write_deadline_ns_ = to_deadline(tp); }
  void no_delay(bool is_on);
  void no_delay(bool is_on, std::error_code& error);

  endpoint local_endpoint() const noexcept { return detail::local_endpoint_of(fd()); }
  endpoint peer_endpoint() const noexcept { return detail::peer_endpoint_of(fd()); }

  bool is_open() const noexcept { return fd() >= 0; }
  int fd() const noexcept { return descriptor_.get(); }
  // Gives the descriptor away, unclosed.
  int release() noexcept { return descriptor_.release(); }
  void close() noexcept;

 private:
  class rest_scope;
  static detail::nanoseconds_t to_deadline(std::chrono::steady_clock::time_point tp) noexcept {
    return tp == std::chrono::steady_clock::time_point() ? detail::never : detail::deadline_at(tp);
  }
  detail::io_result receive(void* data, std::size_t size);
  std::size_t take_rest(void* data, std::size_t size) noexcept;
  [[noreturn]] void fail(const char* what, std::error_code error) const;

  detail::unique_descriptor descriptor_;
  detail::nanoseconds_t read_deadline_ns_ = detail::never;
  detail::nanoseconds_t write_deadline_ns_ = detail::never;
  std::unique_ptr<std::string> rest_;  // read but not asked for yet; only read_until leaves any
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE void tcp_stream::fail(const char* what, std::error_code error) const {
  const endpoint peer = peer_endpoint();
  detail::fail_io(error, std::string("concur::tcp_stream::") + what +
                             (peer.is_empty() ? std::string() : " with " + peer.to_string()));
}

CONCUR_INLINE tcp_stream tcp_stream::connect(const endpoint& to, std::error_code& error) {
  error.clear();
  if (to.is_empty()) {
    error = std::make_error_code(std::errc::invalid_argument);
    return tcp_stream();
  }
  if (!detail::has_passed_checkpoint(error)) return tcp_stream();
  const int fd = detail::open_socket(to);
  tcp_stream stream(fd < 0 ? -1 : fd);
  const int result = fd < 0 ? fd : detail::connect_descriptor(fd, to.data(), to.size(), detail::never);
  if (result >= 0) return stream;
  error = detail::to_code(result);
  return tcp_stream();
}

CONCUR_INLINE tcp_stream tcp_stream::connect(const endpoint& to) {
  std::error_code error;
  tcp_stream stream = connect(to, error);
  if (error) detail::fail_io(error, "concur::tcp_stream::connect to " + to.to_string());
  return stream;
}

// While read_until works on the rest: whatever its end is, a cancellation too, what lies there then is what came and was not
// given out. And nothing is no rest, which would be taken for the end of the stream.
class tcp_stream::rest_scope {
 public:
  explicit rest_scope(std::unique_ptr<std::string>& rest) : rest_(rest) {
    if (rest_ == nullptr) rest_ = std::make_unique<std::string>();
    size_ = rest_->size();
  }
  ~rest_scope() {
    if (CONCUR_MUTANT_IS(240)) return;
    rest_->resize(size_);
    if (size_ == 0) rest_.reset();
  }
  rest_scope(const rest_scope&) = delete;
  rest_scope& operator=(const rest_scope&) = delete;

  char* grow(std::size_t count) {
    rest_->resize(size_ + count);
    return &(*rest_)[size_];
  }
  void keep(detail::io_result count) {
    if (count > 0) size_ += static_cast<std::size_t>(count);
    rest_->resize(size_);
  }
  std::string take(std::size_t count) {
    std::string taken = rest_->substr(0, count);
    rest_->erase(0, count);
    size_ -= count;
    return taken;
  }

 private:
  std::unique_ptr<std::string>& rest_;
  std::size_t size_ = 0;
};

CONCUR_INLINE std::size_t tcp_stream::take_rest(void* data, std::size_t size) noexcept {
  const std::size_t count = rest_->copy(static_cast<char*>(data), size);
  rest_->erase(0, count);
  if (rest_->empty()) rest_.reset();
  return count;
}

CONCUR_INLINE detail::io_result tcp_stream::receive(void* data, std::size_t size) {
  const int fd = descriptor_.get();
  return detail::run_io(
      fd, detail::direction::reading, read_deadline_ns_, [=]() noexcept { return detail::sys::recv(fd, data, size); },
      size);
}

CONCUR_INLINE std::size_t tcp_stream::read_some(void* data, std::size_t size, std::error_code& error) {
  if (CONCUR_UNLIKELY(size == 0 || rest_ != nullptr)) {
    if (!detail::has_passed_checkpoint(error)) return 0;
    return rest_ != nullptr ? take_rest(data, size) : 0;
  }
  error.clear();
  const detail::io_result count = receive(data, size);
  if (CONCUR_LIKELY(count >= 0)) return static_cast<std::size_t>(count);
  error = detail::to_code(count);
  return 0;
}
CONCUR_INLINE std::size_t tcp_stream::read_some(void* data, std::size_t size) {
  std::error_code error;
  const std::size_t count = read_some(data, size, error);
  if (CONCUR_UNLIKELY(static_cast<bool>(error))) fail("read_some", error);
  return count;
}

CONCUR_INLINE std::size_t tcp_stream::read_exactly(void* data, std::size_t size, std::error_code& error) {
  std::size_t done = 0;
  error.clear();
  while (done < size) {
    const std::size_t count = read_some(static_cast<char*>(data) + done, size - done, error);
    if (count == 0) break;
    done += count;
  }
  return done;
}
CONCUR_INLINE std::size_t tcp_stream::read_exactly(void* data, std::size_t size) {
  std::error_code error;
  const std::size_t count = read_exactly(data, size, error);
  if (!error && count < size) error = std::make_error_code(std::errc::connection_aborted);
  if (error) {
    const std::string what = "read_exactly (" + std::to_string(count) + " of " + std::to_string(size) + " bytes came)";
    fail(what.c_str(), error);
  }
  return count;
}

CONCUR_INLINE std::string tcp_stream::read_until(std::string_view delimiter, std::size_t limit,
                                                 std::error_code& error) {
  constexpr std::size_t chunk = 4096;
  if (!detail::has_passed_checkpoint(error) || delimiter.empty()) return std::string();
  rest_scope rest(rest_);
  std::size_t searched = 0;
  for (;;) {
    const std::size_t at = rest_->find(delimiter, searched);
    const std::size_t end = at == std::string::npos ? rest_->size() : at + delimiter.size();
    if (end > limit || (at == std::string::npos && end == limit)) {
      error = std::make_error_code(std::errc::message_size);
      return std::string();
    }
    std::size_t take = end;
    if (at == std::string::npos) {
      searched = rest_->size() < delimiter.size() ? 0 : rest_->size() - delimiter.size() + 1;
      const detail::io_result count = receive(rest.grow(chunk), chunk);
      rest.keep(count);
      if (count > 0) continue;
      error = detail::to_code(count);
      take = count == 0 ? rest_->size() : 0;
    }
    return rest.take(take);
  }
}
CONCUR_INLINE std::string tcp_stream::read_until(std::string_view delimiter, std::size_t limit) {
  std::error_code error;
  std::string result = read_until(delimiter, limit, error);
  if (error) fail("read_until", error);
  return result;
}

CONCUR_INLINE std::size_t tcp_stream::write_all(const void* data, std::size_t size, std::error_code& error) {
  const int fd = descriptor_.get();
  const char* bytes = static_cast<const char*>(data);
  std::size_t done = 0;
  error.clear();
  while (done < size) {
    const detail::io_result count = detail::run_io(fd, detail::direction::writing, write_deadline_ns_, [=]() noexcept {
      return detail::sys::send(fd, bytes + done, size - done);
    });
    if (CONCUR_UNLIKELY(count < 0)) {
      error = detail::to_code(count);
      break;
    }
    done += static_cast<std::size_t>(count);
  }
  return done;
}
CONCUR_INLINE std::size_t tcp_stream::write_all(const void* data, std::size_t size) {
  std::error_code error;
  const std::size_t count = write_all(data, size, error);
  if (CONCUR_UNLIKELY(static_cast<bool>(error))) {
    const std::string what = "write_all (" + std::to_string(count) + " of " + std::to_string(size) + " bytes written)";
    fail(what.c_str(), error);
  }
  return count;
}

CONCUR_INLINE void tcp_stream::shutdown_write(std::error_code& error) {
  error = detail::to_code(detail::shut_writing(fd()));
}
CONCUR_INLINE void tcp_stream::shutdown_write() {
  std::error_code error;
  shutdown_write(error);
  if (error) fail("shutdown_write", error);
}

CONCUR_INLINE void tcp_stream::no_delay(bool is_on, std::error_code& error) {
  error = detail::to_code(detail::set_tcp_flag(fd(), TCP_NODELAY, is_on));
}
CONCUR_INLINE void tcp_stream::no_delay(bool is_on) {
  std::error_code error;
  no_delay(is_on, error);
  if (error) fail("no_delay", error);
}

CONCUR_INLINE void tcp_stream::close() noexcept {
  descriptor_.close();
  rest_.reset();
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// io/tcp_listener.hpp - waiting for TCP clients: bind, accept, close.
//
// Functions come in two forms, as those of tcp_stream. Several fibers may accept on one listener; clients go to them in
// the order in which they came to wait.

CONCUR_NAMESPACE_BEGIN

class tcp_listener {
 public:
  tcp_listener() noexcept = default;
  explicit tcp_listener(int fd) noexcept : descriptor_(fd) {}
  tcp_listener(tcp_listener&&) noexcept = default;
  tcp_listener& operator=(tcp_listener&&) noexcept = default;

  // Listens. Port 0 takes a free one (see local_endpoint). The address may be one of a listener that has just ended.
  // `backlog`: how many connections the kernel completes ahead of accept.
  static tcp_listener bind(const endpoint& at, int backlog = 4096);
  static tcp_listener bind(const endpoint& at, std::error_code& error);
  static tcp_listener bind(const endpoint& at, int backlog, std::error_code& error);

  // Parks until a client has come. With too many open files (EMFILE, ENFILE) the client stays in the queue: accept
  // again when some have been closed.
  tcp_stream accept();
  tcp_stream accept(std::error_code& error);

  endpoint local_endpoint() const noexcept { return detail::local_endpoint_of(fd()); }
  bool is_open() const noexcept { return fd() >= 0; }
  int fd() const noexcept { return descriptor_.get(); }
  int release() noexcept { return descriptor_.release(); }
  void close() noexcept { descriptor_.close(); }

 private:
  detail::unique_descriptor descriptor_;
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE tcp_listener tcp_listener::bind(const endpoint& at, int backlog, std::error_code& error) {
  error.clear();
  if (at.is_empty() || backlog < 1) {
    error = std::make_error_code(std::errc::invalid_argument);
    return tcp_listener();
  }
  const int fd = detail::open_socket(at);
  tcp_listener listener(fd < 0 ? -1 : fd);
  const int result = fd < 0 ? fd : detail::start_listening(fd, at, backlog);
  if (result >= 0) return listener;
  error = detail::to_code(result);
  return tcp_listener();
}
CONCUR_INLINE tcp_listener tcp_listener::bind(const endpoint& at, std::error_code& error) {
  return bind(at, 4096, error);
}
CONCUR_INLINE tcp_listener tcp_listener::bind(const endpoint& at, int backlog) {
  if (backlog < 1)
    detail::fail_argument("concur::tcp_listener::bind", "backlog", std::to_string(backlog),
                          "at least one connection must be able to wait");
  std::error_code error;
  tcp_listener listener = bind(at, backlog, error);
  if (error) detail::fail_code(error, "concur::tcp_listener::bind to " + at.to_string());
  return listener;
}

CONCUR_INLINE tcp_stream tcp_listener::accept(std::error_code& error) {
  const int fd = descriptor_.get();
  const detail::io_result accepted =
      detail::run_io(fd, detail::direction::reading, detail::never, [=]() noexcept -> detail::io_result {
        const int result = detail::sys::accept(fd, nullptr, nullptr);
        return result == -ECONNABORTED ? -EINTR : result;  // that client has gone; the next one may be there
      });
  error = detail::to_code(accepted);
  if (accepted < 0) return tcp_stream();
  detail::adopt_descriptor(static_cast<int>(accepted), detail::descriptor_kind::socket);
  return tcp_stream(static_cast<int>(accepted));
}
CONCUR_INLINE tcp_stream tcp_listener::accept() {
  std::error_code error;
  tcp_stream stream = accept(error);
  if (error) {
    const endpoint at = local_endpoint();
    detail::fail_io(error, "concur::tcp_listener::accept" + (at.is_empty() ? std::string() : " on " + at.to_string()));
  }
  return stream;
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// observe/vector_clock.hpp - how much of each thread's past somebody knows.
//
// Each thread of an exploration numbers what it does: 1, 2, 3. A clock holds one such number for each thread, and
// stands for everything up to there. What happened before an event is a clock; so is what a store hands to whoever
// acquires it. One event happened before another if the other's clock holds at least its number.

#if defined(CONCUR_EXPLORE)

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct vector_clock {
  std::uint32_t at[explored_threads_max] = {};
  // The last seq_cst fence that is in this past; they are numbered from 1 in the order in which they were passed.
  std::uint32_t fence = 0;

  // threads: how many there are; the rest is zero on both sides.
  void join(const vector_clock& other, unsigned threads) noexcept {
    for (unsigned i = 0; i < threads; ++i) {
      if (at[i] < other.at[i]) at[i] = other.at[i];
    }
    if (fence < other.fence && !CONCUR_MUTANT_IS(377)) fence = other.fence;
  }
  bool knows(unsigned thread, std::uint32_t time) const noexcept { return at[thread] >= time; }
};

}  // namespace detail
CONCUR_NAMESPACE_END

#endif

// observe/address_table.hpp - a record for each address, forgotten all at once.
//
// An exploration runs a program a million times, and each run touches a few hundred addresses. So forgetting must cost
// nothing: a slot belongs to the present run only if it carries the run's number. Records lie densely, in the order
// in which their addresses came up, so each run uses the same few pages again.
//
//   H1  Open addressing, at most half full, so a search ends soon. Nothing is taken out singly.
//   H2  Memory grows to what the largest run needed and stays; then nothing is allocated any more.
//   H3  A reference to a record is good until the next call of get.

#if defined(CONCUR_EXPLORE)

CONCUR_NAMESPACE_BEGIN
namespace detail {

// A Record has clear(), which makes it new.
template <class Record>
class address_table {
 public:
  void forget() noexcept {
    used_ = 0;
    if (++run_ != 0) return;
    for (slot& one : slots_) one.run = 0;
    run_ = 1;
  }

  // Null when this run has not seen the address.
  Record* find(const void* address) noexcept {
    if (used_ == 0) return nullptr;
    const slot& there = slots_[place_of(address)];
    return there.run == run_ ? &records_[there.record] : nullptr;
  }

  // The address's record; a new one for an address that this run has not seen.
  Record& get(const void* address) {
    if (2 * (used_ + 1) > slots_.size()) grow();
    slot& there = slots_[place_of(address)];
    if (CONCUR_LIKELY(there.run == run_)) return records_[there.record];
    there.address = address;
    there.run = run_;
    there.record = static_cast<std::uint32_t>(used_);
    if (used_ == records_.size()) records_.emplace_back();
    Record& fresh = records_[used_++];
    fresh.clear();
    return fresh;
  }

  std::size_t size() const noexcept { return used_; }

 private:
  static constexpr std::uintptr_t golden = UINTPTR_MAX / 1000 * 618 | 1;

  struct slot {
    const void* address = nullptr;
    std::uint32_t run = 0;  // of another run: empty
    std::uint32_t record = 0;
  };

  // Where the address is, or where it would be put.
  std::size_t place_of(const void* address) const noexcept {
    // Multiplication by the golden ratio's part of a word (Knuth, The Art of Computer Programming 6.4); the upper bits of
    // the product depend on all bits of the address.
    std::size_t place = (reinterpret_cast<std::uintptr_t>(address) * golden) >> shift_;
    while (slots_[place].run == run_ && slots_[place].address != address) place = (place + 1) & (slots_.size() - 1);
    return place;
  }

  void grow() {
    std::vector<slot> old(slots_.empty() ? 256 : 2 * slots_.size());
    old.swap(slots_);
    shift_ = 8 * sizeof(std::uintptr_t);
    for (std::size_t size = slots_.size(); size > 1; size /= 2) --shift_;
    for (const slot& one : old) {
      if (one.run == run_) slots_[place_of(one.address)] = one;
    }
  }

  std::vector<slot> slots_;  // a power of two, or none
  std::vector<Record> records_;
  std::size_t used_ = 0;
  std::uint32_t run_ = 1;
  unsigned shift_ = 0;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#endif

// observe/plain_memory.hpp - data races on memory that is not atomic.
//
// Two accesses to the same address, of which one writes, must be ordered by happens-before; if they are not, the program
// has no meaning. Kept are the last write and, for each thread, its last read since (Flanagan and Freund, "FastTrack",
// PLDI 2009): if none of these races with an access, then no earlier one does, unless that was reported before.

#if defined(CONCUR_EXPLORE)

CONCUR_NAMESPACE_BEGIN
namespace detail {

class plain_memory {
 public:
  void forget() noexcept { places_.forget(); }
  CONCUR_INLINE void birth(const void* address) noexcept;
  std::size_t size() const noexcept { return places_.size(); }

  // past: what happened before this access of the thread, and the access itself. False: a race.
  CONCUR_INLINE bool read(unsigned thread, const vector_clock& past, const void* address);
  CONCUR_INLINE bool write(unsigned thread, const vector_clock& past, const void* address);

 private:
  struct place {
    std::uint32_t write_time;  // 0: not written
    std::uint16_t writer;
    std::uint16_t readers;  // since the last write, one bit for each thread
    std::uint32_t read_at[explored_threads_max];

    void clear() noexcept {
      write_time = 0;
      writer = readers = 0;
    }
  };

  address_table<place> places_;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#  if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void plain_memory::birth(const void* address) noexcept {
  if (place* const p = places_.find(address)) p->clear();
}

CONCUR_INLINE bool plain_memory::read(unsigned thread, const vector_clock& past, const void* address) {
  place& p = places_.get(address);
  p.readers = static_cast<std::uint16_t>(p.readers | 1U << thread);
  p.read_at[thread] = past.at[thread];
  return past.knows(p.writer, p.write_time);
}

CONCUR_INLINE bool plain_memory::write(unsigned thread, const vector_clock& past, const void* address) {
  place& p = places_.get(address);
  bool is_ordered = past.knows(p.writer, p.write_time);
  for (unsigned rest = CONCUR_MUTANT_IS(378) ? 0 : p.readers; rest != 0; rest &= rest - 1) {
    const unsigned reader = static_cast<unsigned>(__builtin_ctz(rest));
    is_ordered = is_ordered && past.knows(reader, p.read_at[reader]);
  }
  p.write_time = past.at[thread];
  p.writer = static_cast<std::uint16_t>(thread);
  p.readers = 0;
  return is_ordered;
}

}  // namespace detail
CONCUR_NAMESPACE_END

#  endif  // CONCUR_BODIES

#endif

// observe/weak_memory.hpp - which stores a load may see, by the rules of C++20.
//
// On one thread that plays all threads a load sees the last store. On a real machine it may see an older one, as far as
// the memory orders permit, and that is where protocols break. So the simulation keeps the last few stores of each
// word, and clocks (observe/vector_clock.hpp) that say what happened before what; a load asks which of them it still
// may see, and lets its caller pick.
//
//   K1  Coherence: a thread sees nothing older than what happened before it, be that a store, or a read of a store.
//   K2  A store hands its message to whoever acquires it: the past of the thread, if it releases; the past as of the
//       last release fence, if it does not. A read-modify-write passes on the message of the store that it read as
//       well; a plain store passes on nothing, also not in the thread that released (C++20's release sequences).
//   K3  Who reads without acquiring keeps the message for its next acquire fence.
//   K4  The order S of the seq_cst operations and fences is the order in which they are carried out. [atomics.order]
//       then demands: let A see something older than B. If A and B are both seq_cst, B must not come first. A
//       seq_cst fence that happens before A stands for A, one that B happens before stands for B. Here B is `shown` to S,
//       by its own order, by a seq_cst read of it, or by a fence that it is in the past of; A may see nothing older than
//       what was shown when its own place in S came.
//   K5  A read-modify-write sees the last store, always.
//
// What this permits the standard permits too. The reverse does not hold. Never shown are:
//
//   - what needs a store to be overtaken by a later one in the modification order, which is the order of execution here:
//     2+2W, and S; and what needs a load to see a store that has not been executed: LB. (R, SB, MP, IRIW, WRC, ISA2, RWC
//     are.)
//   - an S that disagrees with the order of execution, which is possible where seq_cst and weaker operations on one
//     word are mixed (the example Z6.U of "Repairing Sequential Consistency in C/C++11", PLDI 2017);
//   - stores older than the newest history_max of a word, and more than stale_reads_max stale reads of one word by one
//     thread in a row: then it sees the newest, so a loop that waits for a store ends;
//   - a failing compare-exchange that sees an old value;
//   - threads that pass the fences of fence_all one after another: they all do in one moment.
//
// A number that is given to a second thread counts as the first one going on.

#if defined(CONCUR_EXPLORE)

CONCUR_NAMESPACE_BEGIN
namespace detail {

class weak_memory {
 public:
  static constexpr unsigned threads_max = explored_threads_max;
  static constexpr unsigned history_max = 8;
  static constexpr unsigned stale_reads_max = 4;

  explicit weak_memory(unsigned first_thread = 0) { reset(first_thread); }

  // Forgets everything. first_thread is the one that there is without start_thread.
  CONCUR_INLINE void reset(unsigned first_thread = 0) noexcept;

  // What the parent did happens before the child.
  CONCUR_INLINE void start_thread(unsigned parent, unsigned child) noexcept;
  // What the child did happens before what the parent does next.
  CONCUR_INLINE void join_thread(unsigned parent, unsigned child) noexcept;
  // A new object begins at this address: what was known of the address is void.
  CONCUR_INLINE void birth(unsigned thread, const void* address) noexcept;

  // In all of these `latest` and `before` are what the word really holds. A word that was not seen before has held it from
  // the beginning, for all threads; so has one that holds something else than was last stored here.

  // What the thread's load sees. pick(count) says which, when there is a choice: 0 is the newest, count - 1 the oldest.
  // It may not touch this memory.
  template <class Pick>
  std::uint64_t load(unsigned thread, const void* address, std::uint64_t latest, std::memory_order order, Pick&& pick) {
    word& w = word_at(address, latest);
    const unsigned count = visible(thread, w, order);
    const unsigned back = count == 1 ? 0 : static_cast<unsigned>(pick(count));
    return read(thread, w, back, order);
  }
  // A failed compare-exchange, with its order for failure.
  CONCUR_INLINE void load_newest(unsigned thread, const void* address, std::uint64_t latest, std::memory_order order);
  CONCUR_INLINE void store(unsigned thread, const void* address, std::uint64_t before, std::uint64_t after,
                           std::memory_order order);
  // A read-modify-write, also one that leaves the value as it was.
  CONCUR_INLINE void update(unsigned thread, const void* address, std::uint64_t before, std::uint64_t after,
                            std::memory_order order);

  CONCUR_INLINE void fence(unsigned thread, std::memory_order order);
  // Each thread passes a seq_cst fence (membarrier).
  CONCUR_INLINE void fence_all(unsigned thread);

  // False: this access races with an earlier one.
  bool plain_read(unsigned thread, const void* address) {
    tick(thread);
    return plain_.read(thread, players_[thread].past, address);
  }
  bool plain_write(unsigned thread, const void* address) {
    tick(thread);
    return plain_.write(thread, players_[thread].past, address);
  }

  // How many words and plain addresses are known.
  std::size_t size() const noexcept { return words_.size() + plain_.size(); }

 private:
  struct stored {
    std::uint64_t value;
    std::uint32_t time;   // of the thread that stored it; 0: it was there from the beginning
    std::uint32_t shown;  // the first fence after a seq_cst operation stored it or saw it; 0: none did (K4)
    std::uint16_t thread;
    std::uint16_t readers;  // one bit for each thread
    bool has_message;
    std::uint32_t read_at[threads_max];  // when each reader first did
    vector_clock message;
  };

  // A ring of indices into stores_. Those of a word stay with it for the run.
  struct word {
    std::uint32_t ring[history_max];
    std::uint8_t owned;
    std::uint8_t first;
    std::uint8_t count;               // 0: not known
    std::uint8_t stale[threads_max];  // how many reads in a row were not of the newest

    void clear() noexcept { owned = first = count = 0; }
  };

  struct player {
    vector_clock past;
    vector_clock released;  // the past as of the last release fence
    vector_clock pending;   // messages of what was read without acquiring
    bool has_released = false;
    bool has_pending = false;
  };

  static bool acquires(std::memory_order order) noexcept {
    return order != std::memory_order_relaxed && order != std::memory_order_release;
  }
  static bool releases(std::memory_order order) noexcept {
    return order == std::memory_order_release || order == std::memory_order_acq_rel ||
           order == std::memory_order_seq_cst;
  }
  static std::uint16_t bit_of(unsigned thread) noexcept { return static_cast<std::uint16_t>(1U << thread); }

  // Each event has a time of its own, so what comes after a release is not in it.
  std::uint32_t tick(unsigned thread) noexcept { return ++players_[thread].past.at[thread]; }

  CONCUR_INLINE word& word_at(const void* address, std::uint64_t latest);
  // back: 0 is the newest.
  stored& store_at(const word& w, unsigned back) noexcept {
    return stores_[w.ring[(w.first + w.count - 1U - back) % history_max]];
  }
  // Makes room for a newest store. Other references to stores are void then.
  CONCUR_INLINE stored& append(word& w);
  CONCUR_INLINE void begin(word& w, std::uint64_t value);
  CONCUR_INLINE unsigned visible(unsigned thread, const word& w, std::memory_order order) noexcept;
  CONCUR_INLINE std::uint64_t read(unsigned thread, word& w, unsigned back, std::memory_order order) noexcept;
  CONCUR_INLINE void write(unsigned thread, word& w, std::uint64_t value, std::memory_order order);
  CONCUR_INLINE void pass_on(const word& w) noexcept;
  CONCUR_INLINE static bool is_in(const vector_clock& past, const stored& s) noexcept;
  CONCUR_INLINE void acquire_pending(player& self) noexcept;
  CONCUR_INLINE void pass_fences(unsigned first, unsigned last);

  player players_[threads_max];
  unsigned threads_ = 1;  // all numbers below this may be in use
  address_table<word> words_;
  plain_memory plain_;
  std::vector<stored> stores_;
  std::size_t stores_used_ = 0;
  // What the seq_cst fence n, and those before it, have in their past: entry n - 1.
  std::vector<vector_clock> fences_;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#  if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void weak_memory::reset(unsigned first_thread) noexcept {
  for (unsigned i = 0; i < threads_; ++i) players_[i] = player();
  threads_ = first_thread + 1;
  words_.forget();
  plain_.forget();
  stores_used_ = 0;
  fences_.clear();
}

CONCUR_INLINE void weak_memory::start_thread(unsigned parent, unsigned child) noexcept {
  if (child >= threads_) threads_ = child + 1;
  player& self = players_[child];
  self.past.join(players_[parent].past, threads_);
  self.has_released = self.has_pending = false;
}

CONCUR_INLINE void weak_memory::join_thread(unsigned parent, unsigned child) noexcept {
  players_[parent].past.join(players_[child].past, threads_);
}

CONCUR_INLINE void weak_memory::birth(unsigned, const void* address) noexcept {
  if (word* const w = words_.find(address)) w->first = w->count = 0;
  plain_.birth(address);
}

CONCUR_INLINE weak_memory::word& weak_memory::word_at(const void* address, std::uint64_t latest) {
  word& w = words_.get(address);
  if (CONCUR_UNLIKELY(w.count == 0 || store_at(w, 0).value != latest)) begin(w, latest);
  return w;
}

CONCUR_INLINE void weak_memory::begin(word& w, std::uint64_t value) {
  w.first = w.count = 0;
  std::memset(w.stale, 0, sizeof w.stale);
  stored& s = append(w);
  s.value = value;
  s.time = s.shown = 0;
  s.thread = s.readers = 0;
  s.has_message = false;
}

CONCUR_INLINE weak_memory::stored& weak_memory::append(word& w) {
  if (w.count == history_max) {
    w.first = static_cast<std::uint8_t>((w.first + 1U) % history_max);
  } else {
    ++w.count;
  }
  const unsigned at = (w.first + w.count - 1U) % history_max;
  if (at == w.owned) {
    if (stores_used_ == stores_.size()) stores_.emplace_back();
    w.ring[at] = static_cast<std::uint32_t>(stores_used_++);
    ++w.owned;
  }
  return stores_[w.ring[at]];
}

// Whether the store, or a read of it, is in this past (K1).
CONCUR_INLINE bool weak_memory::is_in(const vector_clock& past, const stored& s) noexcept {
  if (past.knows(s.thread, s.time)) return true;
  for (unsigned rest = CONCUR_MUTANT_IS(373) ? 0 : s.readers; rest != 0; rest &= rest - 1) {
    const unsigned reader = static_cast<unsigned>(__builtin_ctz(rest));
    if (past.knows(reader, s.read_at[reader])) return true;
  }
  return false;
}

// How many of the newest stores the load may see: up to the first that it may not overlook.
CONCUR_INLINE unsigned weak_memory::visible(unsigned thread, const word& w, std::memory_order order) noexcept {
  if (w.count == 1 || (w.stale[thread] >= stale_reads_max && !CONCUR_MUTANT_IS(379))) return 1;
  const vector_clock& past = players_[thread].past;
  // The load's place in S: now, or its last fence (K4).
  const bool is_in_order = order == std::memory_order_seq_cst;
  const std::uint32_t passed = is_in_order ? static_cast<std::uint32_t>(fences_.size()) : past.fence;
  const std::uint32_t shown = is_in_order ? passed + 1 : passed;
  for (unsigned back = 0; back < w.count; ++back) {
    const stored& s = store_at(w, back);
    const bool is_shown = s.shown != 0 && s.shown <= shown;
    if (is_shown || is_in(past, s) || (passed != 0 && is_in(fences_[passed - 1], s))) return back + 1;
  }
  return w.count;
}

CONCUR_INLINE std::uint64_t weak_memory::read(unsigned thread, word& w, unsigned back,
                                              std::memory_order order) noexcept {
  player& self = players_[thread];
  stored& s = store_at(w, back);
  const std::uint32_t now = tick(thread);
  if ((s.readers & bit_of(thread)) == 0) {
    s.readers = static_cast<std::uint16_t>(s.readers | bit_of(thread));
    s.read_at[thread] = now;
  }
  if (order == std::memory_order_seq_cst && s.shown == 0 && !CONCUR_MUTANT_IS(375))
    s.shown = static_cast<std::uint32_t>(fences_.size()) + 1;
  w.stale[thread] = back == 0 ? std::uint8_t{0} : static_cast<std::uint8_t>(w.stale[thread] + 1);
  if (s.has_message && acquires(order) && !CONCUR_MUTANT_IS(370)) {
    self.past.join(s.message, threads_);
  } else if (s.has_message) {
    if (!self.has_pending) self.pending = vector_clock();
    self.pending.join(s.message, threads_);
    self.has_pending = true;
  }
  return s.value;
}

CONCUR_INLINE void weak_memory::write(unsigned thread, word& w, std::uint64_t value, std::memory_order order) {
  const player& self = players_[thread];
  stored& s = append(w);
  s.value = value;
  s.time = tick(thread);
  s.shown = order == std::memory_order_seq_cst ? static_cast<std::uint32_t>(fences_.size()) + 1 : 0;
  s.thread = static_cast<std::uint16_t>(thread);
  s.readers = 0;
  s.has_message = releases(order) || self.has_released;
  if (s.has_message) s.message = releases(order) ? self.past : self.released;
}

CONCUR_INLINE void weak_memory::load_newest(unsigned thread, const void* address, std::uint64_t latest,
                                            std::memory_order order) {
  read(thread, word_at(address, latest), 0, order);
}

CONCUR_INLINE void weak_memory::store(unsigned thread, const void* address, std::uint64_t before, std::uint64_t after,
                                      std::memory_order order) {
  word& w = word_at(address, before);
  write(thread, w, after, order);
  if (CONCUR_MUTANT_IS(372) && store_at(w, 1).thread == thread) pass_on(w);
}

CONCUR_INLINE void weak_memory::update(unsigned thread, const void* address, std::uint64_t before, std::uint64_t after,
                                       std::memory_order order) {
  word& w = word_at(address, before);
  read(thread, w, 0, order);
  write(thread, w, after, order);
  if (!CONCUR_MUTANT_IS(371)) pass_on(w);
}

// The newest store has the message of the one before it as well (K2).
CONCUR_INLINE void weak_memory::pass_on(const word& w) noexcept {
  stored& s = store_at(w, 0);
  const stored& old = store_at(w, 1);
  if (!old.has_message) return;
  if (s.has_message) {
    s.message.join(old.message, threads_);
  } else {
    s.message = old.message;
    s.has_message = true;
  }
}

CONCUR_INLINE void weak_memory::acquire_pending(player& self) noexcept {
  if (self.has_pending) self.past.join(self.pending, threads_);
  self.has_pending = false;
}

CONCUR_INLINE void weak_memory::fence(unsigned thread, std::memory_order order) {
  player& self = players_[thread];
  if (order == std::memory_order_seq_cst) return pass_fences(thread, thread);
  tick(thread);
  if (acquires(order)) acquire_pending(self);
  if (!releases(order)) return;
  self.released = self.past;
  self.has_released = !CONCUR_MUTANT_IS(376);
}

CONCUR_INLINE void weak_memory::fence_all(unsigned) { pass_fences(0, threads_ - 1); }

// The threads from first to last pass a seq_cst fence together.
CONCUR_INLINE void weak_memory::pass_fences(unsigned first, unsigned last) {
  fences_.push_back(CONCUR_MUTANT_IS(374) || fences_.empty() ? vector_clock() : fences_.back());
  for (unsigned i = first; i <= last; ++i) {
    tick(i);
    acquire_pending(players_[i]);
    fences_.back().join(players_[i].past, threads_);
  }
  for (unsigned i = first; i <= last; ++i) {
    player& self = players_[i];
    self.past.fence = static_cast<std::uint32_t>(fences_.size());
    self.released = self.past;
    self.has_released = true;
  }
}

}  // namespace detail
CONCUR_NAMESPACE_END

#  endif  // CONCUR_BODIES

#endif

// observe/strategy.hpp - how an exploration picks its way through the schedules of a program.
//
// A program of a few threads has more schedules than there are atoms; bugs hide in few of them, and mostly in simple
// ones. Three ways to look for them:
//
//     random              each choice by lot. How often threads are interrupted differs from schedule to schedule, from every
//                         other step to hardly ever: some bugs need much of it, some little.
//     pct(depth)          threads and fibers have priorities, drawn by lot, and the highest that can run does; at depth - 1
//                         places, drawn as well, the one that runs falls behind all others. A bug that needs `depth`
//                         things in a certain order is found with probability 1 / (n * k^(depth-1)) a schedule at least,
//                         for n threads and k steps (Burckhardt, Kothari, Musuvathi, Nagarakatte, "A randomized scheduler
//                         with probabilistic guarantees of finding bugs", ASPLOS 2010, section 2).
//     exhaustive(bound)   every schedule with at most `bound` interruptions of a thread that could go on, one after another.
//                         Most bugs need one or two (Musuvathi, Qadeer, "Iterative context bounding for systematic
//                         testing of multithreaded programs", PLDI 2007). For small programs of threads; a whole runtime has
//                         too many.

CONCUR_NAMESPACE_BEGIN

class strategy {
 public:
  enum class kind : unsigned char { random, pct, exhaustive };

  constexpr strategy() noexcept = default;

  static const strategy random;
  // depth: 1 to 63; 0 is taken for 1.
  static constexpr strategy pct(unsigned depth) noexcept { return strategy(kind::pct, depth != 0 ? depth : 1); }
  // bound: 0 to 63.
  static constexpr strategy exhaustive(unsigned bound) noexcept { return strategy(kind::exhaustive, bound); }

  constexpr kind what() const noexcept { return what_; }
  constexpr unsigned parameter() const noexcept { return parameter_; }

 private:
  constexpr strategy(kind what, unsigned parameter) noexcept
      : what_(what), parameter_(static_cast<unsigned char>(parameter < 63 ? parameter : 63)) {}

  kind what_ = kind::random;
  unsigned char parameter_ = 0;
};

inline constexpr strategy strategy::random{};

// The same by shorter names.
inline constexpr strategy random{};
constexpr strategy pct(unsigned depth) noexcept { return strategy::pct(depth); }
constexpr strategy exhaustive(unsigned bound) noexcept { return strategy::exhaustive(bound); }

CONCUR_NAMESPACE_END

// observe/decisions.hpp - the answers of one schedule: where they come from, and what is kept of them.
//
// A schedule is a sequence of questions with a number of possible answers each. Given the answers, it is determined; so
// answers are all that must be kept to see it again. Nearly all of them are 0, the answer of a plain run; what is kept
// is the others, each with the number of its question.
//
//   D1  Questions are numbered from 1, in the order in which they are asked. One with a single answer is not counted.
//   D2  Given the same source, each question gets the same answer: the source sees nothing but the questions.
//   D3  A list of deviations that was shortened is still a schedule: questions that it does not name are answered by 0.
//   D4  Kinds that `costs` names are answered by 0 in an exhaustive search once `bound` of them were not; all others are
//       searched to the end.
//   D5  Priorities alone are unfair: who waits by looking again and again keeps those out for which it waits. So one
//       that was preferred very often falls behind, and so does who says that it spins.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// One answer that was not 0.
struct deviation {
  std::uint64_t question;
  std::uint32_t answer;
};

using deviation_list = std::vector<deviation>;

class decisions {
 public:
  // The next schedule, by lot or by priorities. places: how many change_places() schedules of this program have, about.
  void begin_seeded(strategy how, std::uint64_t seed, std::uint64_t places);
  // By lot, and close to the plain run: few answers are not 0.
  void begin_calm(std::uint64_t seed);
  // The next one of a search; at first the plain run.
  void begin_search(unsigned bound);
  // Turns to the next one; false: all have been.
  bool advance_search();
  // The one that was recorded so.
  void begin_replay(const deviation* list, std::size_t count);

  std::uint32_t answer(choice what, std::uint32_t count);
  // The quick way past a question of kind preemption whose answer is 0; false: it is to be asked.
  bool passes(std::uint32_t count) {
    if (source_ == source::priorities) return false;
    if (source_ == source::lot) {
      if (gap_ <= 1) return false;
      --gap_;
    } else if (source_ == source::record) {
      if (record_ != record_end_ && record_->question == question_ + 1) return false;
    } else if (spent_ < bound_) {
      return false;
    }
    ++question_;
    mix(count);
    return true;
  }
  // The same where one of several threads is to run; ids[0] is the answer of a plain run.
  std::uint32_t answer_thread(choice what, const unsigned char* ids, std::uint32_t count);
  std::uint32_t answer_fiber(const std::uint64_t* ids, std::uint32_t count);
  // Whether a fiber that could go on lets others run.
  bool answer_interruption();
  // The thread gives way, and is not to be preferred to those it gives way to.
  void demote(unsigned thread) { thread_priorities_[thread] = --lowest_; }

  const std::vector<deviation>& deviations() const { return deviations_; }
  // How many places there were where a change of priorities could have been (pct).
  std::uint64_t change_places() const { return change_places_; }
  std::uint64_t hash() const { return hash_; }
  void mix(std::uint64_t what) { hash_ = (hash_ ^ what) * 0x100000001B3U; }

 private:
  enum class source : unsigned char { lot, priorities, search, record };
  struct branch {
    std::uint32_t count;
    std::uint32_t answer;
    bool has_cost;
  };

  static bool costs(choice what) {
    return what == choice::preemption || what == choice::spin_to || what == choice::victim ||
           what == choice::slice_end || what == choice::clock || what == choice::spurious;
  }
  std::uint32_t record(choice what, std::uint32_t count, std::uint32_t given);
  std::uint32_t by_lot(choice what, std::uint32_t count);
  std::uint32_t by_search(choice what, std::uint32_t count);
  std::uint32_t by_record();
  std::uint32_t below(std::uint32_t count) {
    return static_cast<std::uint32_t>((std::uint64_t{random_.next()} * count) >> 32);
  }
  bool is_change_point();

  source source_ = source::lot;
  random_source random_{1};
  std::uint64_t question_ = 0;
  std::uint64_t hash_ = 0;
  std::vector<deviation> deviations_;
  // lot: questions of kind preemption until one is answered otherwise than by 0.
  bool is_calm_ = false;
  std::uint32_t gap_mean_ = 8;
  std::uint32_t gap_ = 1;
  // priorities
  std::int64_t thread_priorities_[explored_threads_max] = {};
  std::uint64_t fiber_salt_ = 0;
  std::int64_t lowest_ = 0;
  std::uint64_t change_places_ = 0;
  std::vector<std::uint64_t> change_points_;  // the next one last
  std::vector<std::uint64_t> demoted_fibers_;
  std::uint64_t running_fiber_ = 0;
  // How often each was preferred to others (D5).
  unsigned thread_turns_[explored_threads_max] = {};
  struct turns {
    std::uint64_t fiber;
    unsigned count;
  };
  std::vector<turns> fiber_turns_;
  static constexpr unsigned thread_turns_max = 3000;
  static constexpr unsigned fiber_turns_max = 100;
  unsigned& turns_of(std::uint64_t fiber) {
    for (turns& one : fiber_turns_) {
      if (one.fiber == fiber) return one.count;
    }
    fiber_turns_.push_back({fiber, 0});
    return fiber_turns_.back().count;
  }
  // search
  std::vector<branch> path_;
  std::size_t depth_ = 0;
  unsigned bound_ = 0;
  unsigned spent_ = 0;
  // record
  const deviation* record_ = nullptr;
  const deviation* record_end_ = nullptr;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void decisions::begin_seeded(strategy how, std::uint64_t seed, std::uint64_t places) {
  source_ = how.what() == strategy::kind::pct ? source::priorities : source::lot;
  random_ = random_source((seed + 1) * 0x9E3779B97F4A7C15U);
  is_calm_ = false;
  question_ = 0;
  hash_ = 0xCBF29CE484222325U;
  deviations_.clear();
#  if defined(CONCUR_EXPLORE)
  constexpr std::uint32_t means[] = {2, 6, 20, 60, 200};
#  else
  constexpr std::uint32_t means[] = {2, 4, 8, 16, 32};  // of places between parking operations
#  endif
  gap_mean_ = means[below(5)];
  gap_ = 1 + below(2 * gap_mean_);
  if (source_ != source::priorities) return;
  lowest_ = 0;
  for (std::int64_t& priority : thread_priorities_) priority = 1 + static_cast<std::int64_t>(random_.next());
  fiber_salt_ = (std::uint64_t{random_.next()} << 32) | random_.next();
  change_places_ = 0;
  demoted_fibers_.clear();
  running_fiber_ = 0;
  for (unsigned& count : thread_turns_) count = 0;
  fiber_turns_.clear();
  change_points_.clear();
  const std::uint32_t among = places < 0xFFFFFFFFU ? static_cast<std::uint32_t>(places) : 0xFFFFFFFFU;
  for (unsigned i = 1; i < how.parameter(); ++i) change_points_.push_back(1 + below(among != 0 ? among : 1));
  std::sort(change_points_.rbegin(), change_points_.rend());
}

CONCUR_INLINE void decisions::begin_calm(std::uint64_t seed) {
  begin_seeded(strategy::random, seed, 0);
  is_calm_ = true;
  constexpr std::uint32_t means[] = {10, 40, 160, 640};
  gap_mean_ = means[below(4)];
  gap_ = 1 + below(2 * gap_mean_);
}

CONCUR_INLINE void decisions::begin_search(unsigned bound) {
  source_ = source::search;
  bound_ = bound;
  spent_ = 0;
  depth_ = 0;
  question_ = 0;
  hash_ = 0xCBF29CE484222325U;
  deviations_.clear();
}

CONCUR_INLINE bool decisions::advance_search() {
  while (!path_.empty()) {
    branch& last = path_.back();
    if (last.answer + 1 < last.count) {
      ++last.answer;
      return true;
    }
    path_.pop_back();
  }
  return false;
}

CONCUR_INLINE void decisions::begin_replay(const deviation* list, std::size_t count) {
  source_ = source::record;
  record_ = list;
  record_end_ = list + count;
  question_ = 0;
  hash_ = 0xCBF29CE484222325U;
  deviations_.clear();
}

CONCUR_INLINE std::uint32_t decisions::record(choice what, std::uint32_t count, std::uint32_t given) {
  if (what == choice::preemption && given == 0)
    mix(count);  // as passes() does
  else
    mix((std::uint64_t{count} << 36) | (static_cast<std::uint64_t>(what) << 32) | given);
  if (given != 0) deviations_.push_back({question_, given});
  return given;
}

// How likely each kind departs from the plain run.
CONCUR_INLINE std::uint32_t decisions::by_lot(choice what, std::uint32_t count) {
  switch (what) {
    case choice::preemption:
      if (--gap_ != 0) return 0;
      gap_ = 1 + below(2 * gap_mean_);
      return count > 1 ? 1 + below(count - 1) : 0;
    case choice::slice_end:
    case choice::spurious:
    case choice::io_error:
      return below(8) == 0 ? below(count) : 0;
    case choice::clock:
      return below(16) == 0 ? below(count) : 0;
    case choice::stale_read:
      return below(4) == 0 ? below(count) : 0;
    default:
      return !is_calm_ || below(8) == 0 ? below(count) : 0;
  }
}

CONCUR_INLINE std::uint32_t decisions::by_search(choice what, std::uint32_t count) {
  const bool has_cost = costs(what);
  if (has_cost && spent_ >= bound_) return 0;
  if (depth_ == path_.size()) path_.push_back({count, 0, has_cost});
  const std::uint32_t given = path_[depth_++].answer;
  if (has_cost && given != 0) ++spent_;
  return given < count ? given : 0;
}

CONCUR_INLINE std::uint32_t decisions::by_record() {
  if (record_ == record_end_ || record_->question != question_) return 0;
  return record_++->answer;
}

CONCUR_INLINE std::uint32_t decisions::answer(choice what, std::uint32_t count) {
  if (count <= 1) return 0;
  ++question_;
  std::uint32_t given = 0;
  if (source_ == source::search) {
    given = by_search(what, count);
  } else if (source_ == source::record) {
    given = by_record();
    if (given >= count) given = 0;
  } else {
    given = by_lot(what, count);
  }
  return record(what, count, given);
}

CONCUR_INLINE bool decisions::is_change_point() {
  ++change_places_;
  if (change_points_.empty() || change_places_ < change_points_.back()) return false;
  change_points_.pop_back();
  return true;
}

CONCUR_INLINE std::uint32_t decisions::answer_thread(choice what, const unsigned char* ids, std::uint32_t count) {
  if (source_ != source::priorities) return answer(what, count);
  if (what == choice::preemption && is_change_point()) {
    demote(ids[0]);
    if (running_fiber_ != 0) demoted_fibers_.push_back(running_fiber_);
  }
  if (count <= 1) return 0;
  ++question_;
  std::uint32_t best = 0;
  for (std::uint32_t i = 1; i < count; ++i) {
    if (thread_priorities_[ids[i]] > thread_priorities_[ids[best]]) best = i;
  }
  if (++thread_turns_[ids[best]] % thread_turns_max == 0) demote(ids[best]);
  return record(what, count, best);
}

// With priorities it always does: and is the next one again, if its priority says so.
CONCUR_INLINE bool decisions::answer_interruption() {
  if (source_ != source::priorities) return answer(choice::preemption, 2) != 0;
  if (is_change_point()) demoted_fibers_.push_back(running_fiber_);
  return true;
}

CONCUR_INLINE std::uint32_t decisions::answer_fiber(const std::uint64_t* ids, std::uint32_t count) {
  std::uint32_t best = 0;
  if (source_ == source::priorities) {
    // Those that fell behind come last, the latest of them at the very end.
    const auto priority_of = [&](std::uint64_t id) {
      for (std::size_t i = demoted_fibers_.size(); i-- > 0;) {
        if (demoted_fibers_[i] == id) return -static_cast<std::int64_t>(i) - 1;
      }
      return static_cast<std::int64_t>(((id + fiber_salt_) * 0x9E3779B97F4A7C15U) >> 2);
    };
    for (std::uint32_t i = 1; i < count; ++i) {
      if (priority_of(ids[i]) > priority_of(ids[best])) best = i;
    }
    if (count > 1) {
      ++question_;
      record(choice::next_fiber, count, best);
      if (++turns_of(ids[best]) % fiber_turns_max == 0) demoted_fibers_.push_back(ids[best]);
    }
  } else {
    best = answer(choice::next_fiber, count);
  }
  running_fiber_ = ids[best];
  return best;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// observe/virtual_threads.hpp - threads that one thread plays, one at a time.
//
// Each has a stack of its own and stops where it is when another goes on: in the middle of a protocol, on a worker's loop
// or on a fiber's stack. The conductor is the thread that plays them: it starts a schedule, and gets control back when all
// threads have ended or the schedule has failed.
//
//   V1  What belongs to a thread travels with it: which worker it is, the exceptions it is handling, errno.
//   V2  A schedule that failed leaves its threads where they are. Their stacks are used again; what lay on them is lost, and
//       is not destroyed. Tools that look for leaks are told so, and say nothing of what a schedule allocates.

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct virtual_thread {
  enum class state : unsigned char { unused, ready, blocked, joining, ended };

  state now = state::unused;
  block_end end = block_end::woken;  // why it came back from blocking
  const void* outside = nullptr;
  const void* word = nullptr;  // on which it is blocked
  std::int64_t until_ns = 0;
  unsigned joins = 0;  // whose end it waits for
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
  const char* name = "";
  // V1, while it does not run.
  context ctx{};
  exception_state exceptions{};
  worker* self = nullptr;
  int error = 0;
  stack_notice* notice = nullptr;  // of the stack that it stopped on
  stack_notice own_notice{};
  stack* memory = nullptr;
};

class virtual_threads {
 public:
  static constexpr unsigned conductor = explored_threads_max;

  virtual_threads() : stacks_(stack_bytes) {}
  virtual_threads(const virtual_threads&) = delete;
  virtual_threads& operator=(const virtual_threads&) = delete;
  ~virtual_threads();

  // Forgets all threads; the caller is the conductor.
  void reset();
  // The new thread's number, or -1: there are too many, or there is no memory.
  int start(void (*body)(void*), void* argument, const char* name);
  // Leaves the calling thread where it is and goes on with that one.
  void go_to(unsigned next);
  // Ends the calling thread.
  [[noreturn]] void end_and_go_to(unsigned next);

  unsigned current() const { return current_; }
  const void* address_of_current() const { return &threads_[current_]; }
  unsigned count() const { return count_; }
  virtual_thread& operator[](unsigned i) { return threads_[i]; }

 private:
  static constexpr std::size_t stack_bytes = sizeof(void*) == 8 ? 256 * 1024 : 96 * 1024;

  void leave(virtual_thread& from);
  void enter(unsigned next);
  [[noreturn]] static void entry(void* raw) noexcept;
  [[noreturn]] void main();

  stack_pool stacks_;
  virtual_thread threads_[explored_threads_max + 1];
  unsigned current_ = conductor;
  unsigned count_ = 0;
  worker** cell_ = nullptr;
  exception_globals* exceptions_ = nullptr;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

// What is called when a thread's body has returned: the exploration's, which knows who is next.
[[noreturn]] CONCUR_INLINE void virtual_thread_ended(virtual_threads& threads) noexcept;

CONCUR_INLINE virtual_threads::~virtual_threads() {
  for (virtual_thread& thread : threads_) {
    if (thread.memory == nullptr) continue;
    thread.own_notice.release();
    stacks_.release(thread.memory);
  }
}

CONCUR_INLINE void virtual_threads::reset() {
  for (unsigned i = 0; i < count_; ++i) {
    virtual_thread& thread = threads_[i];
    if (thread.now != virtual_thread::state::unused) thread.own_notice.release();
    thread.now = virtual_thread::state::unused;
  }
  count_ = 0;
  current_ = conductor;
  cell_ = this_worker_cell();
  exceptions_ = exception_globals::of_this_thread();
}

CONCUR_INLINE int virtual_threads::start(void (*body)(void*), void* argument, const char* name) {
  unsigned i = count_;  // a number of its own, while there are any: the memory's account is kept by number
  if (i == explored_threads_max) i = 0;
  while (i < count_ && threads_[i].now != virtual_thread::state::unused) ++i;
  if (i == explored_threads_max) return -1;
  virtual_thread& thread = threads_[i];
  int error = 0;
  if (thread.memory == nullptr) thread.memory = stacks_.acquire(error);
  if (thread.memory == nullptr) return -1;
  if (i == count_) ++count_;
  thread.now = virtual_thread::state::ready;
  thread.body = body;
  thread.argument = argument;
  thread.name = name;
  thread.exceptions = exception_state{};
  thread.self = nullptr;
  thread.error = 0;
  thread.own_notice.bind_stack(thread.memory->low, thread.memory->size);
  thread.notice = &thread.own_notice;
  prepare_context(thread.ctx, thread.memory->low, thread.memory->size, &entry);
  return static_cast<int>(i);
}

CONCUR_INLINE void virtual_threads::leave(virtual_thread& from) {
  from.self = *cell_;
  from.exceptions.save_from(exceptions_);
  from.error = errno;
}

CONCUR_INLINE void virtual_threads::enter(unsigned next) {
  current_ = next;
  *cell_ = threads_[next].self;
  threads_[next].exceptions.load_into(exceptions_);
}

// Not inlined: what is kept over the switch is only what is named here.
CONCUR_NOINLINE CONCUR_INLINE void virtual_threads::go_to(unsigned next) {
  if (next == current_) return;
  virtual_thread& from = threads_[current_];
  leave(from);
  stack_notice here;
  here.bind_thread();
  from.notice = &here;
  enter(next);
  switch_fiber_context(from.ctx, threads_[next].ctx, this, here, *threads_[next].notice);
  errno = threads_[current_].error;
}

CONCUR_INLINE void virtual_threads::end_and_go_to(unsigned next) {
  virtual_thread& from = threads_[current_];
  enter(next);
  leave_fiber_context(from.ctx, threads_[next].ctx, this, from.own_notice, *threads_[next].notice);
}

[[noreturn]] CONCUR_UNINSTRUMENTED CONCUR_INLINE void virtual_threads::entry(void* raw) noexcept {
  static_cast<virtual_threads*>(enter_fiber_context(raw))->main();
}

CONCUR_INLINE void virtual_threads::main() {
  virtual_thread& self = threads_[current_];
  self.body(self.argument);
  virtual_thread_ended(*this);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// observe/look.hpp - what an exploration sees of a runtime: what is wrong with it, and what its fibers do.
//
// All of it is asked while no thread can run, so nothing is locked and nothing moves.

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

// No thread can run. Null: nothing is wrong.
CONCUR_INLINE const char* what_is_wrong(const scheduler& s) noexcept {
  // relaxed: nobody else runs.
  if (s.idle.count() != s.worker_count || s.is_stopping.load(std::memory_order_relaxed)) return nullptr;
  for (unsigned i = 0; i < s.worker_count; ++i) {
    if (s.has_work_for(&s.workers[i], false)) return "every worker sleeps, and a fiber is ready";
  }
  return nullptr;
}

CONCUR_INLINE std::string name_of(const fiber& f) {
  std::string text = "fiber " + std::to_string(f.id);
  if (f.name != nullptr) text += " \"" + std::string(f.name) + "\"";
  return text;
}

// What driver::tell says. waits_for: null when it lets others run, empty when it begins to run.
CONCUR_INLINE std::string told_of(const worker& w, const fiber& f, const char* waits_for) {
  std::string text = "worker " + std::to_string(w.index) + ": " + name_of(f);
  if (waits_for == nullptr) return text + " lets others run";
  return *waits_for == '\0' ? text + " runs" : text + " waits: " + waits_for;
}

// A line for each worker's timers, and for each fiber that has not ended.
CONCUR_INLINE void describe(const scheduler& s, std::int64_t now, std::string& text) {
  for (unsigned i = 0; i < s.worker_count; ++i) {
    const timer_wheel& timers = s.workers[i].timers;
    if (timers.size() == 0) continue;
    text += "\n  worker " + std::to_string(i) + " has " + std::to_string(timers.size()) + " timers, the next " +
            std::to_string((timers.next_ns() - now) / 1000) + " us from now";
  }
  s.blocks->walk_stopped(
      [](fiber* f, void* sink) {
        const fiber_state state = f->state.load(std::memory_order_relaxed);  // relaxed: nobody else runs
        if (state == fiber_state::idle || state == fiber_state::finished) return;
        std::string line = "\n  " + name_of(*f);
        if (state == fiber_state::parked)
          line += std::string(" waits: ") + to_string(f->reason.load(std::memory_order_relaxed));  // relaxed: as above
        else
          line += state == fiber_state::ready ? " is ready" : " runs";
        *static_cast<std::string*>(sink) += line;
      },
      &text);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// observe/exploration.hpp - the driver that runs one schedule of a program: its threads, its clock, its memory.
//
// The library asks its driver (base/driver.hpp) at every place where something could go one way or another; this one
// answers from a list of decisions, and so a program runs the same way each time it gets the same list.
//
//   X1  One thread runs at a time, and another goes on only within a call of the driver.
//   X2  Time stands still but for a little with each look at the clock and each spin, and now and then a leap. When no
//       thread can run, it moves to the next moment that one waits for; so waiting takes no time.
//   X3  When no thread can run and none waits for a moment, the schedule has failed: a deadlock. First whoever has
//       descriptors looks whether the kernel has news.
//   X4  A failure is final: the thread that found it goes to the conductor and never comes back.
//   X5  While the exploration looks at the program itself (to see what is wrong, to tell) it answers nothing and counts
//       nothing.

#if defined(CONCUR_EXPLORE)
#endif

CONCUR_NAMESPACE_BEGIN
namespace detail {

// What a schedule is run with.
struct schedule_settings {
  bool has_weak_memory = false;
  bool has_faults = false;
  bool is_telling = false;
  std::uint64_t steps_max = 0;
};

class exploration final : public driver {
 public:
  exploration() noexcept : driver(calls()) {}

  // Runs one schedule of a program that begins with body(argument) on a thread. `given` has begun it.
  void run(const schedule_settings& settings, void (*body)(void*), void* argument);

  decisions given;

  // --- how it ended ---
  bool has_failed() const { return has_failed_; }
  bool was_abandoned() const { return was_abandoned_; }  // V2
  const std::string& what() const { return what_; }
  std::uint64_t steps() const { return steps_; }
  std::vector<std::string>& told() { return told_; }
  // For the program itself: it has failed, and ends by itself.
  void note_failure(const std::string& what);

  // --- driver ---
  std::uint32_t choose(choice what, std::uint32_t count) noexcept;
  std::uint32_t choose_fiber(const std::uint64_t* ids, std::uint32_t count) noexcept;
  bool interrupts_fiber() noexcept;
  std::int64_t now() noexcept;
  void* start_thread(void (*body)(void*), void* argument, const char* name) noexcept;
  void join_thread(void* handle) noexcept;
  const void* this_thread() const noexcept { return threads_.address_of_current(); }
  void step() noexcept { before_access(nullptr); }
  void spin() noexcept;
  block_end block(const void* word, std::uint32_t expected, std::int64_t until_ns, const void* outside) noexcept;
  void wake(const void* word) noexcept;
  void stir_outside() noexcept;
  void before_access(const void* word) noexcept;
  std::uint64_t after_load(const void* word, std::uint64_t latest, std::memory_order order) noexcept;
  void after_store(const void* word, std::uint64_t before, std::uint64_t after, std::memory_order order) noexcept;
  void after_update(const void* word, std::uint64_t before, std::uint64_t after, std::memory_order order) noexcept;
  void after_failed_exchange(const void* word, std::uint64_t latest, std::memory_order order) noexcept;
  void fence(std::memory_order order) noexcept;
  void fence_all() noexcept;
  void birth(const void* address) noexcept;
  std::uint64_t rank(const void* address) noexcept;
  void plain_access(const void* address, bool is_write, const char* what) noexcept;
  void expect(bool holds, const char* what) noexcept;
  void watch(const void* s) noexcept { watched_.push_back(static_cast<const scheduler*>(s)); }
  void unwatch(const void* s) noexcept;
  bool is_telling() const noexcept { return settings_.is_telling; }
  void tell(const void* w, const void* f, const char* what) noexcept;

  // Ends the calling thread; it has returned from its body.
  [[noreturn]] void thread_ended() noexcept;

 private:
  static const driver_calls& calls() noexcept;

  using thread_state = virtual_thread::state;
  static constexpr std::int64_t begin_ns = driven_clock_begin_ns;

  bool is_asked() const { return !is_looking_ && threads_.current() != virtual_threads::conductor; }
  void count_step();
  void set_ready(virtual_thread& thread, block_end end);
  // The threads that can run, the calling one's successors first; it itself not. Returns how many.
  unsigned list_others(unsigned char* ids) const;
  void expire();
  bool advance();
  bool look_outside(block_end how);
  unsigned pick_other(choice what);
  void switch_to(unsigned next, const char* why);
  void fail(const std::string& what);
  void note(const std::string& text);

  virtual_threads threads_;
#if defined(CONCUR_EXPLORE)
  weak_memory memory_;
#endif
  schedule_settings settings_;
  std::int64_t now_ns_ = begin_ns;
  std::uint64_t steps_ = 0;
  unsigned ready_count_ = 0;
  unsigned outside_looks_ = 0;  // since something else happened than a look outside
  unsigned lonely_spins_ = 0;   // since a thread could run while another spun
  bool is_looking_ = false;     // X5
  bool has_failed_ = false;
  bool was_abandoned_ = false;
  std::string what_;
  std::vector<const scheduler*> watched_;
  std::vector<std::string> told_;
  std::vector<const void*> ranks_;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void virtual_thread_ended(virtual_threads&) noexcept {
  static_cast<exploration*>(driver_or_null())->thread_ended();
}

// The function of driver_calls that calls Method.
template <auto Method>
struct through;
template <class R, class... A, R (exploration::*Method)(A...) noexcept>
struct through<Method> {
  static R call(driver& d, A... arguments) noexcept { return (static_cast<exploration&>(d).*Method)(arguments...); }
};
template <class R, class... A, R (exploration::*Method)(A...) const noexcept>
struct through<Method> {
  static R call(const driver& d, A... arguments) noexcept {
    return (static_cast<const exploration&>(d).*Method)(arguments...);
  }
};

CONCUR_INLINE const driver_calls& exploration::calls() noexcept {
  static constexpr driver_calls all = {&through<&exploration::choose>::call,
                                       &through<&exploration::choose_fiber>::call,
                                       &through<&exploration::interrupts_fiber>::call,
                                       &through<&exploration::now>::call,
                                       &through<&exploration::start_thread>::call,
                                       &through<&exploration::join_thread>::call,
                                       &through<&exploration::this_thread>::call,
                                       &through<&exploration::step>::call,
                                       &through<&exploration::spin>::call,
                                       &through<&exploration::block>::call,
                                       &through<&exploration::wake>::call,
                                       &through<&exploration::stir_outside>::call,
                                       &through<&exploration::before_access>::call,
                                       &through<&exploration::after_load>::call,
                                       &through<&exploration::after_store>::call,
                                       &through<&exploration::after_update>::call,
                                       &through<&exploration::after_failed_exchange>::call,
                                       &through<&exploration::fence>::call,
                                       &through<&exploration::fence_all>::call,
                                       &through<&exploration::birth>::call,
                                       &through<&exploration::rank>::call,
                                       &through<&exploration::plain_access>::call,
                                       &through<&exploration::expect>::call,
                                       &through<&exploration::watch>::call,
                                       &through<&exploration::unwatch>::call,
                                       &through<&exploration::is_telling>::call,
                                       &through<&exploration::tell>::call};
  return all;
}

CONCUR_INLINE void exploration::run(const schedule_settings& settings, void (*body)(void*), void* argument) {
  settings_ = settings;
  threads_.reset();
  now_ns_ = begin_ns;
  steps_ = 0;
  ready_count_ = 0;
  outside_looks_ = 0;
  lonely_spins_ = 0;
  is_looking_ = false;
  has_failed_ = false;
  was_abandoned_ = false;
  what_.clear();
  watched_.clear();
  told_.clear();
  ranks_.clear();
#  if defined(CONCUR_EXPLORE)
  if (settings_.has_weak_memory) memory_.reset();
#  endif
  sanitizer::lose_memory(true);
  current_driver.store(this, std::memory_order_relaxed);  // relaxed: D1
  const int first = threads_.start(body, argument, "main");
  if (first < 0) {
    fail("no memory for a thread");
  } else {
    ready_count_ = 1;
    threads_.go_to(static_cast<unsigned>(first));
  }
  current_driver.store(nullptr, std::memory_order_relaxed);  // relaxed: D1
  sanitizer::lose_memory(false);
  given.mix(steps_);
}

// --- threads ---

CONCUR_INLINE void exploration::count_step() {
  if (++steps_ <= settings_.steps_max) return;
  fail("no end after " + std::to_string(settings_.steps_max) + " steps: a livelock, or a limit that is too low");
}

CONCUR_INLINE void exploration::set_ready(virtual_thread& thread, block_end end) {
  thread.now = thread_state::ready;
  thread.end = end;
  ++ready_count_;
  if (end != block_end::look && end != block_end::look_long) outside_looks_ = 0;
}

CONCUR_INLINE unsigned exploration::list_others(unsigned char* ids) const {
  const unsigned count = threads_.count();
  unsigned found = 0;
  auto& all = const_cast<virtual_threads&>(threads_);
  for (unsigned k = 1; k <= count; ++k) {
    const unsigned i = (threads_.current() + k) % count;
    if (i != threads_.current() && all[i].now == thread_state::ready) ids[found++] = static_cast<unsigned char>(i);
  }
  return found;
}

CONCUR_INLINE void exploration::switch_to(unsigned next, const char* why) {
  given.mix(next + 1);
  if (settings_.is_telling) {
    std::string text = threads_[next].name;
    if (text == "worker" || text == "thread") text += " " + std::to_string(next);
    note(text + " goes on (" + why + ")");
  }
  threads_.go_to(next);
}

CONCUR_INLINE void exploration::before_access(const void*) noexcept {
  if (!is_asked()) return;
  count_step();
  if (ready_count_ <= 1 || given.passes(ready_count_)) return;
  unsigned char ids[explored_threads_max + 1];
  ids[0] = static_cast<unsigned char>(threads_.current());
  const unsigned count = list_others(ids + 1) + 1;
  const unsigned next = given.answer_thread(choice::preemption, ids, count);
  if (next != 0) switch_to(ids[next], "interrupts");
}

CONCUR_INLINE unsigned exploration::pick_other(choice what) {
  unsigned char ids[explored_threads_max];
  unsigned count = list_others(ids);
  while (count == 0) {
    if (!advance()) fail("deadlock: all wait, and nothing is left that could wake them");
    if (threads_[threads_.current()].now == thread_state::ready) return threads_.current();
    count = list_others(ids);
  }
  return ids[given.answer_thread(what, ids, count)];
}

CONCUR_INLINE void exploration::spin() noexcept {
  if (!is_asked()) return;
  count_step();
  given.demote(threads_.current());
  constexpr std::int64_t spin_ns = 5'000;  // who computes until something is over must come to that moment
  now_ns_ += spin_ns;
  expire();
  if (ready_count_ > 1) {
    lonely_spins_ = 0;
    switch_to(pick_other(choice::spin_to), "spin");
    return;
  }
  // Nobody else can run. It may be that what the thread waits for has happened, or that it waits for a moment.
  constexpr unsigned spins_to_advance = 8;
  constexpr unsigned spins_max = 2000;
  if (++lonely_spins_ % spins_to_advance != 0 || advance()) return;
  if (lonely_spins_ > spins_max) fail("a thread spins for ever, and nobody else can run");
}

CONCUR_INLINE block_end exploration::block(const void* word, std::uint32_t expected, std::int64_t until_ns,
                                           const void* outside) noexcept {
  if (!is_asked()) return block_end::timed_out;
  count_step();
  std::uint32_t seen = 0;
  std::memcpy(&seen, word, sizeof seen);
  if (seen != expected) return block_end::woken;
  if (until_ns <= now_ns_) return block_end::timed_out;
  virtual_thread& self = threads_[threads_.current()];
  self.now = thread_state::blocked;
  self.word = word;
  self.until_ns = until_ns;
  self.outside = outside;
  --ready_count_;
  switch_to(pick_other(choice::next_thread), "blocked");
  return self.end;
}

CONCUR_INLINE void exploration::wake(const void* word) noexcept {
  if (!is_asked()) return;
  for (unsigned i = 0; i < threads_.count(); ++i) {
    if (threads_[i].now == thread_state::blocked && threads_[i].word == word) set_ready(threads_[i], block_end::woken);
  }
}

CONCUR_INLINE void* exploration::start_thread(void (*body)(void*), void* argument, const char* name) noexcept {
  is_looking_ = true;  // a stack's first use takes locks; they are no part of the schedule, or it would go only once so
  const int child = threads_.start(body, argument, name);
  is_looking_ = false;
  if (child < 0) return nullptr;
  ++ready_count_;
#  if defined(CONCUR_EXPLORE)
  if (settings_.has_weak_memory) memory_.start_thread(threads_.current(), static_cast<unsigned>(child));
#  endif
  return &threads_[static_cast<unsigned>(child)];
}

CONCUR_INLINE void exploration::join_thread(void* handle) noexcept {
  virtual_thread& child = *static_cast<virtual_thread*>(handle);
  const unsigned number = static_cast<unsigned>(&child - &threads_[0]);
  count_step();
  virtual_thread& self = threads_[threads_.current()];
  if (child.now != thread_state::ended) {
    self.now = thread_state::joining;
    self.joins = number;
    --ready_count_;
    switch_to(pick_other(choice::next_thread), "waits for a thread's end");
  }
  child.own_notice.release();
  child.now = thread_state::unused;
#  if defined(CONCUR_EXPLORE)
  if (settings_.has_weak_memory) memory_.join_thread(threads_.current(), number);
#  endif
}

CONCUR_INLINE void exploration::thread_ended() noexcept {
  const unsigned self = threads_.current();
  threads_[self].now = thread_state::ended;
  --ready_count_;
  bool are_all_ended = true;
  for (unsigned i = 0; i < threads_.count(); ++i) {
    virtual_thread& thread = threads_[i];
    if (thread.now == thread_state::joining && thread.joins == self) set_ready(thread, block_end::woken);
    if (thread.now != thread_state::ended && thread.now != thread_state::unused) are_all_ended = false;
  }
  if (are_all_ended) threads_.end_and_go_to(virtual_threads::conductor);
  const unsigned next = pick_other(choice::next_thread);
  given.mix(next + 1);
  threads_.end_and_go_to(next);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// observe/exploration_memory.hpp - the other half of exploration.hpp: time, what is decided, what is found wrong, and what
// loads see.

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

// --- time ---

CONCUR_INLINE std::int64_t exploration::now() noexcept {
  if (!is_asked()) return now_ns_;
  count_step();
  constexpr std::int64_t leaps_ns[] = {100, 2'000, 60'000, 1'100'000, 11'000'000, 200'000'000};
  const std::int64_t leap_ns = leaps_ns[given.answer(choice::clock, 6)];
  now_ns_ += leap_ns;
  if (settings_.is_telling && leap_ns >= 1'000'000)
    note("the clock leaps by " + std::to_string(leap_ns / 1'000'000) + " ms");
  expire();
  return now_ns_;
}

CONCUR_INLINE void exploration::expire() {
  for (unsigned i = 0; i < threads_.count(); ++i) {
    if (threads_[i].now == thread_state::blocked && threads_[i].until_ns <= now_ns_)
      set_ready(threads_[i], block_end::timed_out);
  }
}

// Whoever has descriptors looks at them; false: nobody has.
CONCUR_INLINE bool exploration::look_outside(block_end how) {
  bool has_any = false;
  for (unsigned i = 0; i < threads_.count(); ++i) {
    if (threads_[i].now != thread_state::blocked || threads_[i].outside == nullptr) continue;
    std::uint32_t count = 0;
    std::memcpy(&count, threads_[i].outside, sizeof count);
    if (count == 0) continue;
    set_ready(threads_[i], how);
    has_any = true;
  }
  return has_any;
}
// The looks come while others run on: that is when news and calls meet.
CONCUR_INLINE void exploration::stir_outside() noexcept {
  if (!is_asked()) return;
  outside_looks_ = 0;
  look_outside(block_end::look);
}

// No thread can run: lets one (X2, X3). False: there is none.
CONCUR_INLINE bool exploration::advance() {
  is_looking_ = true;
  for (const scheduler* one : watched_) {
    if (const char* wrong = what_is_wrong(*one)) {
      is_looking_ = false;
      fail(wrong);
    }
  }
  is_looking_ = false;
  if (outside_looks_ == 0 && look_outside(block_end::look)) {
    outside_looks_ = 1;
    return true;
  }
  std::int64_t next_ns = INT64_MAX;
  for (unsigned i = 0; i < threads_.count(); ++i) {
    if (threads_[i].now == thread_state::blocked && threads_[i].until_ns < next_ns) next_ns = threads_[i].until_ns;
  }
  if (next_ns != INT64_MAX) {
    now_ns_ = next_ns;
    expire();
    return true;
  }
  if (outside_looks_ == 1 && look_outside(block_end::look_long)) {
    outside_looks_ = 2;
    return true;
  }
  return false;
}

// --- what is decided, and what is found ---

CONCUR_INLINE std::uint32_t exploration::choose(choice what, std::uint32_t count) noexcept {
  if (!is_asked()) return 0;
  if ((what == choice::io_size || what == choice::io_error) && !settings_.has_faults) return 0;
  return given.answer(what, count);
}

CONCUR_INLINE std::uint32_t exploration::choose_fiber(const std::uint64_t* ids, std::uint32_t count) noexcept {
  return is_asked() ? given.answer_fiber(ids, count) : 0;
}

CONCUR_INLINE bool exploration::interrupts_fiber() noexcept {
  before_access(nullptr);
  return given.answer_interruption();
}

CONCUR_INLINE void exploration::unwatch(const void* gone) noexcept {
  for (std::size_t i = watched_.size(); i-- > 0;) {
    if (watched_[i] == gone) watched_.erase(watched_.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

CONCUR_INLINE void exploration::note(const std::string& text) {
  constexpr std::size_t lines_max = 5000;
  if (told_.size() < lines_max) told_.push_back("step " + std::to_string(steps_) + ": " + text);
}

CONCUR_INLINE void exploration::tell(const void* w, const void* f, const char* what) noexcept {
  if (!settings_.is_telling) return;
  note(w == nullptr ? what : told_of(*static_cast<const worker*>(w), *static_cast<const fiber*>(f), what));
}

CONCUR_INLINE void exploration::note_failure(const std::string& what) {
  if (has_failed_) return;
  has_failed_ = true;
  what_ = what;
}

CONCUR_INLINE void exploration::fail(const std::string& what) {
  note_failure(what);
  was_abandoned_ = true;
  is_looking_ = true;
  for (const scheduler* one : watched_) describe(*one, now_ns_, what_);
  is_looking_ = false;
  if (settings_.is_telling) note(what_);
  if (threads_.current() == virtual_threads::conductor) return;
  threads_.go_to(virtual_threads::conductor);  // and never back (X4)
}

CONCUR_INLINE void exploration::expect(bool holds, const char* what) noexcept {
  if (!holds && is_asked()) fail(what);
}

// --- memory ---

#  if defined(CONCUR_EXPLORE)

CONCUR_INLINE std::uint64_t exploration::after_load(const void* word, std::uint64_t latest,
                                                    std::memory_order order) noexcept {
  if (!settings_.has_weak_memory || !is_asked()) return latest;
  // plain: the simulation answers, with the order that the program gave.
  return memory_.load(threads_.current(), word, latest, order,
                      [this](unsigned count) { return given.answer(choice::stale_read, count); });
}
CONCUR_INLINE void exploration::after_store(const void* word, std::uint64_t before, std::uint64_t after,
                                            std::memory_order order) noexcept {
  // plain: as above.
  if (settings_.has_weak_memory && is_asked()) memory_.store(threads_.current(), word, before, after, order);
}
CONCUR_INLINE void exploration::after_update(const void* word, std::uint64_t before, std::uint64_t after,
                                             std::memory_order order) noexcept {
  if (settings_.has_weak_memory && is_asked()) memory_.update(threads_.current(), word, before, after, order);
}
CONCUR_INLINE void exploration::after_failed_exchange(const void* word, std::uint64_t latest,
                                                      std::memory_order order) noexcept {
  if (settings_.has_weak_memory && is_asked()) memory_.load_newest(threads_.current(), word, latest, order);
}
CONCUR_INLINE void exploration::fence(std::memory_order order) noexcept {
  if (!is_asked()) return;
  before_access(nullptr);
  if (settings_.has_weak_memory) memory_.fence(threads_.current(), order);
}
CONCUR_INLINE void exploration::fence_all() noexcept {
  if (!is_asked()) return;
  before_access(nullptr);
  if (settings_.has_weak_memory) memory_.fence_all(threads_.current());
}
CONCUR_INLINE void exploration::birth(const void* address) noexcept {
  if (!is_asked()) return;
  for (const void*& ranked : ranks_) {
    if (ranked == address) ranked = nullptr;  // its place stays taken
  }
  if (settings_.has_weak_memory) memory_.birth(threads_.current(), address);
}
CONCUR_INLINE void exploration::plain_access(const void* address, bool is_write, const char* what) noexcept {
  if (!settings_.has_weak_memory || !is_asked()) return;
  const unsigned self = threads_.current();
  if (is_write ? memory_.plain_write(self, address) : memory_.plain_read(self, address)) return;
  fail(std::string("data race: two threads touch ") + (*what != '\0' ? what : "memory") +
       ", one of them writes, and nothing orders them");
}

#  else

CONCUR_INLINE std::uint64_t exploration::after_load(const void*, std::uint64_t latest, std::memory_order) noexcept {
  return latest;
}
CONCUR_INLINE void exploration::after_store(const void*, std::uint64_t, std::uint64_t, std::memory_order) noexcept {}
CONCUR_INLINE void exploration::after_update(const void*, std::uint64_t, std::uint64_t, std::memory_order) noexcept {}
CONCUR_INLINE void exploration::after_failed_exchange(const void*, std::uint64_t, std::memory_order) noexcept {}
CONCUR_INLINE void exploration::fence(std::memory_order) noexcept {}
CONCUR_INLINE void exploration::fence_all() noexcept {}
CONCUR_INLINE void exploration::birth(const void*) noexcept {}
CONCUR_INLINE void exploration::plain_access(const void*, bool, const char*) noexcept {}

#  endif

// In the order in which they are first asked for: few are.
CONCUR_INLINE std::uint64_t exploration::rank(const void* address) noexcept {
  std::size_t i = 0;
  while (i < ranks_.size() && ranks_[i] != address) ++i;
  if (i == ranks_.size()) ranks_.push_back(address);
  return i;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// observe/explored_thread.hpp - a plain thread that an exploration can play.
//
// Much of what a concurrent program does wrong it does between plain threads: a lock-free queue, a callback from a
// library's own thread. std::thread starts a real one, which no exploration sees. This one is an ordinary thread in an
// ordinary run, and one that the exploration plays within explore(). So code that is written with it is tested by the one
// and shipped with the other.

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Starts a thread: the driver's or the system's. Throws when there is none to be had.
CONCUR_INLINE void* start_plain_thread(void (*body)(void*), void* argument);
CONCUR_INLINE void join_plain_thread(void* handle) noexcept;
// Calls f(argument). Within explore() an exception fails the schedule; otherwise it passes.
CONCUR_INLINE void call_reported(void (*f)(void*), void* argument);

}  // namespace detail

class explored_thread {
 public:
  explored_thread() noexcept = default;
  // Runs f() on a new thread. An exception that leaves f ends the program, as with std::thread; within explore() it fails
  // the schedule. Throws std::system_error when there is no thread to be had.
  template <class F, class = std::enable_if_t<!std::is_same<std::decay_t<F>, explored_thread>::value>>
  explicit explored_thread(F&& f) {
    using closure = std::decay_t<F>;
    auto owned = std::make_unique<closure>(std::forward<F>(f));
    handle_ = detail::start_plain_thread(
        [](void* raw) {
          const std::unique_ptr<closure> mine(static_cast<closure*>(raw));
          detail::call_reported([](void* f_raw) { (*static_cast<closure*>(f_raw))(); }, raw);
        },
        owned.get());
    static_cast<void>(owned.release());
  }
  explored_thread(explored_thread&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  explored_thread& operator=(explored_thread&& other) noexcept {
    join();
    handle_ = std::exchange(other.handle_, nullptr);
    return *this;
  }
  ~explored_thread() { join(); }

  // Returns when f has; what f did happens before that. Does nothing the second time.
  void join() noexcept {
    if (handle_ != nullptr) detail::join_plain_thread(std::exchange(handle_, nullptr));
  }

 private:
  void* handle_ = nullptr;
};

// Fails the schedule that is being explored, with this text, unless it holds; outside of explore() ends the program
// (set_on_fatal). From any fiber or thread.
CONCUR_INLINE void explore_expect(bool holds, const char* what);

CONCUR_NAMESPACE_END

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct plain_thread {
  void* driven = nullptr;
  pthread_t real{};
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
};

CONCUR_INLINE void* start_plain_thread(void (*body)(void*), void* argument) {
  auto thread = std::make_unique<plain_thread>();
  int error = 0;
  if (driver* d = driver_or_null()) {
    thread->driven = d->start_thread(body, argument, "thread");
    if (thread->driven == nullptr) error = EAGAIN;
  } else {
    thread->body = body;
    thread->argument = argument;
    using entry = void* (*)(void*);
    const entry run = [](void* raw) -> void* {
      const plain_thread* self = static_cast<plain_thread*>(raw);
      self->body(self->argument);
      return nullptr;
    };
    error = pthread_create(&thread->real, nullptr, run, thread.get());
  }
  if (error != 0) fail_system(error, "concur::explored_thread: could not start a thread");
  return thread.release();
}

CONCUR_INLINE void join_plain_thread(void* handle) noexcept {
  const std::unique_ptr<plain_thread> thread(static_cast<plain_thread*>(handle));
  if (thread->driven != nullptr) {
    if (driver* d = driver_or_null()) d->join_thread(thread->driven);
  } else {
    pthread_join(thread->real, nullptr);
  }
}

CONCUR_INLINE void call_reported(void (*f)(void*), void* argument) {
#  if CONCUR_EXCEPTIONS
  driver* const d = driver_or_null();
  if (d == nullptr) return f(argument);
  try {
    f(argument);
  } catch (const std::exception& error) {
    d->expect(false, error.what());
  } catch (...) {
    d->expect(false, "a thread ended by an exception that is no std::exception");
  }
#  else
  f(argument);
#  endif
}

}  // namespace detail

CONCUR_INLINE void explore_expect(bool holds, const char* what) {
  if (holds) return;
  if (detail::driver* d = detail::driver_or_null())
    d->expect(false, what);
  else
    on_fatal(what);
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

// observe/explored_memory.hpp - shared words and plain memory of a program's own, for its explorations.
//
// The library's own atomics are explored as they stand. A program's std::atomic is not: nobody can get between two operations
// of it. A lock-free structure that is to be tested declares its words as explored_atomic, and says where it touches plain
// memory that they guard. In an ordinary build that is std::atomic and nothing at all; with CONCUR_EXPLORE threads are
// interrupted at each operation, loads see what the memory orders permit (weak_memory), and two accesses that nothing orders
// fail the schedule as a data race.
//
//     concur::explored_atomic<bool> is_there{false};
//     int message = 0;
//     concur::explored_thread writer([&] {
//       concur::explore_write(&message, "the message");
//       message = 1;
//       is_there.store(true, std::memory_order_relaxed);  // should release
//     });
//     if (is_there.load(std::memory_order_acquire)) concur::explore_read(&message, "the message");

CONCUR_NAMESPACE_BEGIN

// std::atomic<T> by another name in an ordinary build; T fits into 64 bits.
template <class T>
using explored_atomic = detail::atomic<T>;

// std::atomic_thread_fence, which an exploration hears of.
CONCUR_FORCE_INLINE void explored_fence(std::memory_order order) noexcept {
  detail::thread_fence(order);  // plain: the caller's order
}

// Plain memory at this address is about to be read, or written; `name` stands in the report of a race.
CONCUR_FORCE_INLINE void explore_read(const void* address, const char* name) noexcept {
  detail::note_read(address, name);
}
CONCUR_FORCE_INLINE void explore_write(const void* address, const char* name) noexcept {
  detail::note_write(address, name);
}

// A line of one's own in a replay, among its steps. Nothing otherwise; make the text only where that costs nothing.
inline void explore_note(const char* text) noexcept {
  if (detail::driver* d = detail::driver_or_null()) d->tell(nullptr, nullptr, text);
}

CONCUR_NAMESPACE_END

// observe/explore.hpp - running a concurrent program under many schedules, and seeing a failure again.
//
// A test of concurrent code that passes has seen one schedule: the one the machine happened to take. explore() runs the
// code under thousands, each determined by a seed, on one thread and in virtual time: sleeping costs nothing. It fails when
// a schedule throws, comes to a deadlock, finds no end, breaks a rule of the runtime, or leaves something behind. The
// failing schedule's seed is printed, and replay(seed, f) shows that schedule again, step by step.
//
//     concur::explore([] {
//       int balance = 0;
//       concur::with_nursery([&](concur::nursery& n) {
//         for (int i = 0; i < 2; ++i)
//           n.go([&] { const int seen = balance; concur::this_fiber::yield(); balance = seen + 1; });
//       });
//       concur::explore_expect(balance == 2, "an update was lost");
//     }, {10'000});
//
// What is explored. f runs as the first fiber of a runtime with `workers` workers. In an ordinary build fibers can be
// interrupted at parking operations (send, lock, sleep, yield, ...): that is where code without data races can go one
// way or another. Compiled with -DCONCUR_EXPLORE, all of it, threads are interrupted at each atomic operation of this
// library as well, and with weak_memory loads see old values as far as the C++ memory model permits.
//
//   E1  f is called once for each schedule, and must do the same each time: no clock, random number or address but
//       what this library gives it. Real threads are not explored (explored_thread.hpp), nor is what lies outside of the
//       process, though it may be used: sockets between fibers work.
//   E2  While it runs nothing else in the process may use this library. No runtime may be running before.
//   E3  A schedule ends at its first failure. If that is an exception, all is unwound as usual; after a deadlock or a broken
//       rule the fibers are left where they are and what they hold is lost, so an exploration stops at its first failure.

CONCUR_NAMESPACE_BEGIN

struct explore_options {
  std::size_t schedules = 1000;  // exhaustive: at most so many
  std::uint64_t seed = 1;
  concur::strategy strategy = concur::strategy::random;
  unsigned workers = 2;           // 1 to 12; 0: no runtime, f is the body of a plain thread
  bool weak_memory = false;       // loads may see older stores; needs CONCUR_EXPLORE
  bool inject_faults = false;     // writes fall short, system calls are interrupted
  std::uint64_t steps = 200'000;  // a schedule that takes more has no end
  unsigned shrink = 300;          // at most so many runs to find a shorter schedule that fails
};

struct explore_report {
  bool ok = true;
  bool is_complete = false;      // exhaustive: every schedule within the bound was run
  std::size_t schedules = 0;     // that were run
  std::uint64_t steps = 0;       // of all of them
  std::uint64_t trace_hash = 0;  // of all decisions; equal for equal runs
  // Of the schedule that failed:
  std::uint64_t seed = 0;     // for replay
  std::string what;           // what went wrong; further lines say what each fiber was doing
  std::string schedule;       // the shortest one found that fails: its decisions, for replay_schedule
  std::size_t decisions = 0;  // how many it has that differ from a plain run
};

// What explore() throws; what() has the failure and the seed.
class explore_failure : public std::runtime_error {
 public:
  explicit explore_failure(const explore_report& report);
  const explore_report& report() const noexcept { return report_; }

 private:
  explore_report report_;
};

namespace detail {

struct explored_program {
  void (*call)(void*);
  void* f;
};
// call: a closure around what is explored, which may be a function.
template <class Call>
explored_program program_of(Call& call) noexcept {
  return {[](void* raw) { (*static_cast<Call*>(raw))(); }, &call};
}
CONCUR_INLINE explore_report explore_program(const explored_program& program, const explore_options& wanted);
CONCUR_INLINE explore_report replay_seed(std::uint64_t seed, const explored_program& program, bool prints);
CONCUR_INLINE explore_report replay_decisions(const std::string& schedule, const explored_program& program);
[[noreturn]] CONCUR_INLINE void report_failure(const explore_report& report);

}  // namespace detail

// Runs f under many schedules and says what came of it. Prints nothing; throws std::invalid_argument for options that
// cannot be meant, and std::logic_error when a runtime is running or an exploration is.
template <class F>
explore_report try_explore(F&& f, explore_options wanted = {}) {
  auto call = [&f] { static_cast<void>(f()); };
  return detail::explore_program(detail::program_of(call), wanted);
}

// The same; when a schedule fails, prints what happened and its seed to stderr, and throws explore_failure (without
// exceptions: on_fatal).
template <class F>
explore_report explore(F&& f, explore_options wanted = {}) {
  explore_report report = concur::try_explore(f, wanted);
  if (!report.ok) detail::report_failure(report);
  return report;
}

// Runs f under the schedule with this seed and prints it to stderr, step by step. The seed holds the options as well.
template <class F>
explore_report replay(std::uint64_t seed, F&& f) {
  auto call = [&f] { static_cast<void>(f()); };
  return detail::replay_seed(seed, detail::program_of(call), true);
}
// The same without printing.
template <class F>
explore_report try_replay(std::uint64_t seed, F&& f) {
  auto call = [&f] { static_cast<void>(f()); };
  return detail::replay_seed(seed, detail::program_of(call), false);
}
// The same for the shorter schedule in explore_report::schedule.
template <class F>
explore_report replay_schedule(const std::string& schedule, F&& f) {
  auto call = [&f] { static_cast<void>(f()); };
  return detail::replay_decisions(schedule, detail::program_of(call));
}

CONCUR_NAMESPACE_END

// observe/explore_run.hpp - the loop behind explore(): one schedule after another, and what is done with one that fails.
//
// A seed has room for all that determines a schedule, so that it alone is enough to see it again:
//
//     bits     63-62     61-56      55-52    51           50      49-45               44-0
//     hold     strategy  depth,     workers  weak memory  faults  places, as a power  the lot; exhaustive: which one
//                        or bound                                 of two (pct)
//
// A failing schedule is mostly long, and most of its decisions have nothing to do with the failure. Shrinking looks for
// shorter ones close to the plain run, then leaves out one part after another, and keeps what still fails in the same way
// (Zeller, Hildebrandt, "Simplifying and isolating failure-inducing input", IEEE TSE 2002, the algorithm ddmin). What
// remains is often a handful of decisions.

#if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE explore_failure::explore_failure(const explore_report& report)
    : std::runtime_error(report.what + " (seed " + std::to_string(report.seed) + ")"), report_(report) {}

namespace detail {

// --- seeds ---

struct schedule_seed {
  concur::strategy how;
  unsigned workers = 0;
  bool has_weak_memory = false;
  bool has_faults = false;
  unsigned places_log = 0;
  std::uint64_t lot = 0;

  static constexpr std::uint64_t lot_mask = (std::uint64_t{1} << 45) - 1;

  std::uint64_t pack() const noexcept {
    return static_cast<std::uint64_t>(how.what()) << 62 | std::uint64_t{how.parameter()} << 56 |
           std::uint64_t{workers} << 52 | std::uint64_t{has_weak_memory} << 51 | std::uint64_t{has_faults} << 50 |
           std::uint64_t{places_log} << 45 | (lot & lot_mask);
  }
  static schedule_seed unpack(std::uint64_t seed) noexcept {
    schedule_seed s;
    const unsigned parameter = static_cast<unsigned>(seed >> 56) & 63;
    const auto kind = static_cast<concur::strategy::kind>(seed >> 62);
    if (kind == concur::strategy::kind::pct) s.how = concur::strategy::pct(parameter);
    if (kind == concur::strategy::kind::exhaustive) s.how = concur::strategy::exhaustive(parameter);
    s.workers = static_cast<unsigned>(seed >> 52) & 15;
    s.has_weak_memory = ((seed >> 51) & 1) != 0;
    s.has_faults = ((seed >> 50) & 1) != 0;
    s.places_log = static_cast<unsigned>(seed >> 45) & 31;
    s.lot = seed & lot_mask;
    return s;
  }
};

inline std::uint64_t mix_seed(std::uint64_t seed, std::uint64_t index) noexcept {
  std::uint64_t z = seed * 0xD1342543DE82EF95U + index * 0x9E3779B97F4A7C15U;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  return z ^ (z >> 31);
}

// --- one schedule ---

class explorer {
 public:
  explorer(const explored_program& program, const schedule_seed& seed, std::uint64_t steps_max)
      : program_(program), workers_(seed.workers) {
    settings_.has_weak_memory = seed.has_weak_memory;
    settings_.has_faults = seed.has_faults;
    settings_.steps_max = steps_max;
  }
  void set_telling(bool is_telling) { settings_.is_telling = is_telling; }

  // Runs the schedule that `given` has begun.
  void run_once();
  // A shorter schedule that fails the same way, as far as it is found in so many runs.
  deviation_list shrink(deviation_list list, const std::string& what, unsigned runs);

  exploration world;
  decisions& given = world.given;

 private:
  static void body(void* raw);
  bool still_fails();
  bool fails_with(const deviation_list& list);
  void look_for_calm_ones(deviation_list& list);
  void cut_end(deviation_list& list);
  void leave_out_parts(deviation_list& list);

  const explored_program& program_;
  unsigned workers_;
  schedule_settings settings_;
  std::string shrink_kind_;
  unsigned shrink_runs_ = 0;        // left
  std::uint64_t shrink_steps_ = 0;  // taken
};

CONCUR_INLINE void explorer::body(void* raw) {
  explorer& self = *static_cast<explorer*>(raw);
  const auto run = [&self] {
    if (self.workers_ == 0) return self.program_.call(self.program_.f);
    options wanted;
    wanted.workers = self.workers_;
    concur::run(wanted, [&self] { self.program_.call(self.program_.f); });
  };
#  if CONCUR_EXCEPTIONS
  try {
    run();
  } catch (const std::exception& error) {
    self.world.note_failure(std::string("exception: ") + error.what());
  } catch (...) {
    self.world.note_failure("exception: of a type that is no std::exception");
  }
#  else
  run();
#  endif
}

CONCUR_INLINE void explorer::run_once() {
  const leftovers before = process_leftovers();
  world.run(settings_, &body, this);
  const leftovers after = process_leftovers();
  const auto added = [](std::size_t was, std::size_t is) { return std::to_string(is - was); };
  if (world.was_abandoned()) {
    // What an abandoned schedule leaves is no news. relaxed, all: nobody else is there.
    process_ledger.runtimes.store(before.runtimes, std::memory_order_relaxed);
    process_ledger.fibers.store(before.fibers, std::memory_order_relaxed);            // relaxed: as above
    process_ledger.timers.store(before.timers, std::memory_order_relaxed);            // relaxed: as above
    process_ledger.descriptors.store(before.descriptors, std::memory_order_relaxed);  // relaxed: as above
    process_ledger.stacks.store(before.stacks, std::memory_order_relaxed);            // relaxed: as above
  } else if (after.runtimes != before.runtimes || after.fibers != before.fibers || after.timers != before.timers ||
             after.descriptors != before.descriptors || after.stacks != before.stacks) {
    world.note_failure("left over: " + added(before.fibers, after.fibers) + " fibers, " +
                       added(before.timers, after.timers) + " timers, " + added(before.descriptors, after.descriptors) +
                       " descriptors, " + added(before.stacks, after.stacks) + " stacks, " +
                       added(before.runtimes, after.runtimes) + " runtimes");
  }
}

// --- shrinking ---

inline std::string kind_of_failure(const std::string& what) { return what.substr(0, what.find_first_of(":\n")); }

CONCUR_INLINE bool explorer::still_fails() {
  constexpr std::uint64_t steps_max = 1'000'000;  // a livelock is long each time, and seldom has a shorter one
  run_once();
  shrink_steps_ += world.steps();
  shrink_runs_ = shrink_steps_ < steps_max ? shrink_runs_ - 1 : 0;
  return world.has_failed() && kind_of_failure(world.what()) == shrink_kind_;
}

CONCUR_INLINE bool explorer::fails_with(const deviation_list& list) {
  given.begin_replay(list.data(), list.size());
  return still_fails();
}

// Other schedules that fail in this way may be much shorter than the one that did first.
CONCUR_INLINE void explorer::look_for_calm_ones(deviation_list& list) {
  const unsigned until = shrink_runs_ / 2;
  for (std::uint64_t seed = 1; shrink_runs_ > until && list.size() > 2; ++seed) {
    given.begin_calm(seed);
    if (still_fails() && given.deviations().size() < list.size()) list = given.deviations();
  }
}

// What comes after the failure is settled need not be named: the rest of the run is a plain one.
CONCUR_INLINE void explorer::cut_end(deviation_list& list) {
  std::size_t keeps = list.size();
  for (std::size_t step = (keeps + 1) / 2; step != 0 && shrink_runs_ != 0; step /= 2) {
    while (keeps >= step && shrink_runs_ != 0 &&
           fails_with(deviation_list(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(keeps - step))))
      keeps -= step;
  }
  list.resize(keeps);
}

CONCUR_INLINE void explorer::leave_out_parts(deviation_list& list) {
  std::size_t parts = 2;
  while (!list.empty() && shrink_runs_ != 0) {
    const std::size_t size = (list.size() + parts - 1) / parts;
    bool is_shorter = false;
    // From the end: what is left out there changes less of the rest.
    for (std::size_t end = list.size(); end != 0 && shrink_runs_ != 0 && !is_shorter;) {
      const std::size_t begin = end > size ? end - size : 0;
      deviation_list rest(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(begin));
      rest.insert(rest.end(), list.begin() + static_cast<std::ptrdiff_t>(end), list.end());
      is_shorter = fails_with(rest) && given.deviations().size() < list.size();
      if (is_shorter) list = given.deviations();
      end = begin;
    }
    if (is_shorter) {
      parts = parts > 3 ? parts - 1 : 2;
    } else if (size == 1) {
      break;
    } else {
      parts = parts * 2 < list.size() ? parts * 2 : list.size();
    }
  }
}

CONCUR_INLINE deviation_list explorer::shrink(deviation_list list, const std::string& what, unsigned runs) {
  shrink_kind_ = kind_of_failure(what);
  shrink_runs_ = runs;
  shrink_steps_ = 0;
  look_for_calm_ones(list);
  cut_end(list);
  leave_out_parts(list);
  return list;
}

// --- schedules as text: "workers weak faults: question=answer ..." ---

inline std::string schedule_text(const schedule_seed& seed, const deviation_list& list) {
  std::string text =
      "w" + std::to_string(seed.workers) + (seed.has_weak_memory ? "m" : "") + (seed.has_faults ? "f" : "");
  for (const deviation& one : list) text += " " + std::to_string(one.question) + "=" + std::to_string(one.answer);
  return text;
}

inline bool parse_schedule(const std::string& text, schedule_seed& seed, deviation_list& list) {
  const char* at = text.c_str();
  char* end = nullptr;
  if (*at++ != 'w') return false;
  seed.workers = static_cast<unsigned>(std::strtoul(at, &end, 10));
  for (; *end != '\0' && *end != ' '; ++end) {
    if (*end == 'm') seed.has_weak_memory = true;
    if (*end == 'f') seed.has_faults = true;
  }
  while (*end == ' ') {
    const std::uint64_t question = std::strtoull(end + 1, &end, 10);
    if (*end != '=') return false;
    list.push_back({question, static_cast<std::uint32_t>(std::strtoul(end + 1, &end, 10))});
  }
  return *end == '\0';
}

// --- what explore() and replay() are made of ---

inline void refuse_options(const explore_options& wanted) {
  constexpr unsigned most = 12;
  if (wanted.workers > most)
    fail_argument("concur::explore", "options.workers", std::to_string(wanted.workers),
                  "at most 12 workers are explored; 0 runs f on a plain thread");
  if (wanted.schedules == 0)
    fail_argument("concur::explore", "options.schedules", "0", "at least one schedule must be run");
#  if !defined(CONCUR_EXPLORE)
  if (wanted.weak_memory)
    fail_argument("concur::explore", "options.weak_memory", "true",
                  "loads can be told old values only in a program compiled with -DCONCUR_EXPLORE");
#  endif
}

inline void refuse_company() {
  if (driver_or_null() != nullptr) fail_logic("concur::explore: called within an exploration");
  if (process_leftovers().runtimes != 0)
    fail_logic("concur::explore: a runtime is running in this process; end it first, for it would be explored as well");
}

inline void note_result(explore_report& report, explorer& it, const schedule_seed& seed) {
  ++report.schedules;
  report.steps += it.world.steps();
  report.trace_hash = (report.trace_hash ^ it.given.hash()) * 0x100000001B3U;
  if (!it.world.has_failed()) return;
  report.ok = false;
  report.seed = seed.pack();
  report.what = it.world.what();
  report.decisions = it.given.deviations().size();
  report.schedule = schedule_text(seed, it.given.deviations());
}

CONCUR_INLINE explore_report explore_program(const explored_program& program, const explore_options& wanted) {
  refuse_options(wanted);
  refuse_company();
  schedule_seed seed;
  seed.how = wanted.strategy;
  seed.workers = wanted.workers;
  seed.has_weak_memory = wanted.weak_memory;
  seed.has_faults = wanted.inject_faults;
  seed.places_log = 4;
  const bool is_search = wanted.strategy.what() == concur::strategy::kind::exhaustive;
  const auto it = std::make_unique<explorer>(program, seed, wanted.steps);
  explore_report report;
  for (std::size_t i = 0; i < wanted.schedules && report.ok; ++i) {
    seed.lot = is_search ? i : mix_seed(wanted.seed, i) & schedule_seed::lot_mask;
    if (is_search)
      it->given.begin_search(wanted.strategy.parameter());
    else
      it->given.begin_seeded(seed.how, seed.lot, std::uint64_t{1} << seed.places_log);
    it->run_once();
    note_result(report, *it, seed);
    while ((std::uint64_t{1} << seed.places_log) < it->given.change_places() && seed.places_log < 31) ++seed.places_log;
    if (is_search && report.ok && !it->given.advance_search()) {
      report.is_complete = true;
      break;
    }
  }
  if (report.ok || wanted.shrink == 0) return report;
  const deviation_list shorter = it->shrink(it->given.deviations(), report.what, wanted.shrink);
  report.decisions = shorter.size();
  report.schedule = schedule_text(seed, shorter);
  return report;
}

inline void print_steps(explorer& it, const char* title) {
  std::fprintf(stderr, "concur: %s\n", title);
  for (const std::string& line : it.world.told()) std::fprintf(stderr, "  %s\n", line.c_str());
  if (it.world.was_abandoned()) return;  // the last step has said why
  std::fprintf(stderr, "concur: %s\n", it.world.has_failed() ? it.world.what().c_str() : "the schedule did not fail");
}

inline constexpr std::uint64_t replay_steps_max = 10'000'000;

CONCUR_INLINE explore_report replay_seed(std::uint64_t packed, const explored_program& program, bool prints) {
  refuse_company();
  const schedule_seed seed = schedule_seed::unpack(packed);
  const auto it = std::make_unique<explorer>(program, seed, replay_steps_max);
  if (seed.how.what() == concur::strategy::kind::exhaustive) {
    // The search knows the way to a schedule only by the schedules before it.
    for (std::uint64_t i = 0; i < seed.lot; ++i) {
      it->given.begin_search(seed.how.parameter());
      it->run_once();
      if (!it->given.advance_search()) break;
    }
    it->given.begin_search(seed.how.parameter());
  } else {
    it->given.begin_seeded(seed.how, seed.lot, std::uint64_t{1} << seed.places_log);
  }
  it->set_telling(prints);
  it->run_once();
  explore_report report;
  note_result(report, *it, seed);
  if (prints) print_steps(*it, ("replay of seed " + std::to_string(packed)).c_str());
  return report;
}

CONCUR_INLINE explore_report replay_decisions(const std::string& schedule, const explored_program& program) {
  refuse_company();
  schedule_seed seed;
  deviation_list list;
  if (!parse_schedule(schedule, seed, list))
    fail_argument("concur::replay_schedule", "schedule", schedule, "it is what explore_report::schedule holds");
  const auto it = std::make_unique<explorer>(program, seed, replay_steps_max);
  it->given.begin_replay(list.data(), list.size());
  it->set_telling(true);
  it->run_once();
  explore_report report;
  note_result(report, *it, seed);
  print_steps(*it, "replay of a schedule");
  return report;
}

CONCUR_INLINE void report_failure(const explore_report& report) {
  std::fprintf(stderr,
               "concur: schedule %zu failed: %s\n"
               "  replay(%lluU, f) shows it step by step.\n"
               "  The shortest one found has %zu decision%s from a plain run;\n"
               "  replay_schedule(\"%s\", f) shows that.\n",
               report.schedules, report.what.c_str(), static_cast<unsigned long long>(report.seed), report.decisions,
               report.decisions == 1 ? " that differs" : "s that differ",
               report.decisions <= 200 ? report.schedule.c_str() : "...");
  raise(explore_failure(report), report.what.c_str());
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES

#endif
