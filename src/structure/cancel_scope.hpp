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
#ifndef CONCUR_STRUCTURE_CANCEL_SCOPE_HPP
#define CONCUR_STRUCTURE_CANCEL_SCOPE_HPP

#include <chrono>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "atomic/spin_lock.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/time.hpp"
#include "runtime/cancel.hpp"
#include "structure/cancel_token.hpp"
#include "structure/spawn.hpp"

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

#  include <string>

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
#endif
