// channel/ticker.hpp - moments of time that arrive on a channel: once, or again and again.
//
// They are channels like all others, to be received from, selected over and closed; how they come by their values is in
// tick_source.hpp. Nothing runs behind them: one that nobody reads need not be stopped, and holds up no run().
#ifndef CONCUR_CHANNEL_TICKER_HPP
#define CONCUR_CHANNEL_TICKER_HPP

#include "base/config.hpp"
#include "channel/channel_ends.hpp"

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
#endif
