// structure/this_fiber.hpp - what a fiber may ask and do about itself. On a plain thread the same functions act on
// the thread.
#ifndef CONCUR_STRUCTURE_THIS_FIBER_HPP
#define CONCUR_STRUCTURE_THIS_FIBER_HPP

#include <chrono>
#include <string_view>
#include <system_error>

#include "base/config.hpp"
#include "base/time.hpp"
#include "runtime/caller.hpp"
#include "runtime/forms.hpp"

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

#  include <cstring>
#  include <exception>
#  include <sched.h>

#  include "base/driver.hpp"

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
#endif
