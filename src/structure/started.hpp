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
#ifndef CONCUR_STRUCTURE_STARTED_HPP
#define CONCUR_STRUCTURE_STARTED_HPP

#include <exception>
#include <memory>
#include <optional>
#include <system_error>
#include <type_traits>
#include <utility>

#include "atomic/word.hpp"
#include "base/config.hpp"
#include "structure/cancel_scope.hpp"
#include "structure/child.hpp"
#include "structure/time_limit.hpp"
#include "sync/event.hpp"

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

#  include <stdexcept>

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
#endif
