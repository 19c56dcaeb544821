// sync/mutex.hpp - mutual exclusion for fibers and threads alike; waiting parks the fiber and leaves the worker to
// others.
//
//     type               besides lock, try_lock, unlock       locked again by its holder
//     mutex              -                                     reported
//     timed_mutex        try_lock_for, try_lock_until          reported
//     recursive_mutex    try_lock_for, try_lock_until          counts; as many unlocks free it
//
// All three barge for speed, and hand over to who was passed over for a millisecond (mutex_core.hpp). An uncontended
// lock is one compare-exchange, and an unlock, on a worker, a plain store. An unlock happens before the next lock.
//
//   M7  `depth_` of a recursive_mutex is read and written by its holder only.
#ifndef CONCUR_SYNC_MUTEX_HPP
#define CONCUR_SYNC_MUTEX_HPP

#include "base/config.hpp"
#include "base/error.hpp"
#include "base/time.hpp"
#include "runtime/caller.hpp"
#include "sync/mutex_core.hpp"

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
#endif
