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
#ifndef CONCUR_SYNC_SEMAPHORE_HPP
#define CONCUR_SYNC_SEMAPHORE_HPP

#include "atomic/cas.hpp"
#include "atomic/spin_lock.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/time.hpp"
#include "runtime/caller.hpp"
#include "runtime/wait_queue.hpp"

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
#endif
