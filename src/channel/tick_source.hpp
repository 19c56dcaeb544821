// channel/tick_source.hpp - when a timed channel has its next value, without anything running until then.
//
// after(d) and tick(d) give channels on which a moment of time arrives by itself. No fiber, thread or timer stands
// behind them: the channel knows when its next tick is due, and whoever receives, or selects, looks at the clock. A
// receiver that has to wait waits until that moment at the latest. So a timed channel that nobody reads costs nothing,
// holds nothing up, and has nothing to be stopped; and a slow reader finds one tick, however many are past.
#ifndef CONCUR_CHANNEL_TICK_SOURCE_HPP
#define CONCUR_CHANNEL_TICK_SOURCE_HPP

#include <chrono>

#include "base/config.hpp"
#include "base/time.hpp"

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

#endif
