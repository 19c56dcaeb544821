// structure/time_limit.hpp - a limit on how long something may take, and a shield for what must not be cut short.
//
//     the limit passes                      say
//     and that is an error                  fail_after(d, f), fail_at(tp, f)             throws timed_out
//     and one does without the result       move_on_after(d, f), move_on_at(tp, f)       returns nothing
//
// The limit holds for all that f waits for, in whatever it calls, and in the nurseries that it opens; no operation inside has
// to know of it. Limits nest: the earliest that passes ends what is inside it, and its own block says so. A limit that passes
// while f computes is felt at f's next checkpoint.
#ifndef CONCUR_STRUCTURE_TIME_LIMIT_HPP
#define CONCUR_STRUCTURE_TIME_LIMIT_HPP

#include <chrono>
#include <type_traits>
#include <utility>

#include "base/config.hpp"
#include "base/error.hpp"
#include "base/time.hpp"
#include "structure/cancel_scope.hpp"

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

#  include <string>

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
#endif
