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
#ifndef CONCUR_BASE_TIME_HPP
#define CONCUR_BASE_TIME_HPP

#include <chrono>
#include <limits>

#include "base/config.hpp"
#include "base/driver.hpp"

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

#endif
