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
#ifndef CONCUR_MACHINE_PARKER_HPP
#define CONCUR_MACHINE_PARKER_HPP

#include <cstdint>

#include "atomic/cas.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"

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
#  include <time.h>

#  include <new>
#else
#  include <errno.h>
#  include <linux/futex.h>
#  include <sys/syscall.h>
#  include <time.h>
#  include <unistd.h>
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

#endif
