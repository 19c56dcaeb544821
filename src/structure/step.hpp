// structure/step.hpp - a function and the result it goes on with, as one thing that can be called later.
//
// A step is what then() and or_else() make: it holds the function and the source, a future, and is asked three things:
// whether the function is for what the source holds, what the function says to it, and else, what passes on.
//
//     step       the function is for   and gets          what passes on
//     then       a value               the value         the error
//     or_else    an error              exception_ptr     the value
//
// Here is also the step that a fiber was prepared for: the fiber's block holds the function, the source and the result.
//
//   N1  A prepared fiber does not count as alive, and does not keep its runtime going. Its block keeps the pool, so that
//       it can be told whether the runtime is still there (fiber_pool.hpp, B2). If it is not, the promise is broken.
//   N2  What the function is not for passes on at once, on the completing thread, without a fiber.
#ifndef CONCUR_STRUCTURE_STEP_HPP
#define CONCUR_STRUCTURE_STEP_HPP

#include <exception>
#include <memory>
#include <type_traits>
#include <utility>

#include "base/config.hpp"
#include "structure/future.hpp"
#include "structure/spawn.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// The calling fiber's new block for a continuation, null on a plain thread. Throws when there is none to be had.
CONCUR_INLINE fiber* block_for_continuation();
// Launches a prepared fiber, from any thread. False: its runtime ends or has ended (N1).
CONCUR_INLINE bool launch_prepared(fiber* f) noexcept;

// What a step does with its source: a future, or a shared one (shared_future.hpp).
template <class Source>
struct step_source;
template <class R>
struct step_source<future<R>> {
  static future_state& state(const future<R>& source) noexcept { return *future_access::state(source); }
  static R take(future<R>& source) { return future_access::take(source); }
  // The error for who passes it on; `settle` says later whether it has a taker there, or comes back.
  static std::exception_ptr lend_error(future<R>& source) noexcept { return std::move(state(source).error); }
  static void settle(future<R>& source, std::exception_ptr* back) noexcept {
    if (back != nullptr && source.valid()) state(source).error = std::move(*back);
  }
};

template <class Source, class T>
void pass_error(Source& from, result_state<T>& out) noexcept {
  out.is_reported = step_source<Source>::state(from).is_reported;
  out.set_error(step_source<Source>::lend_error(from));
}

// f(value).
template <class Source, class R, class F>
struct then_step {
  using source_type = Source;
  using result = then_result<F, R>;

  F function;  // first: what its copying throws leaves the source alone
  Source source;

  static bool is_for(const future_state& state) noexcept { return !state.has_failed(); }
  decltype(auto) call() {
    if constexpr (std::is_void<R>::value) {
      return std::move(function)();
    } else {
      return std::move(function)(step_source<Source>::take(source));
    }
  }
  static void pass(Source& from, result_state<result>& out) noexcept {
    pass_error(from, out);
  }
};

// f(future), whatever came of it.
template <class R, class F>
struct settled_step {
  using source_type = future<R>;
  using result = then_result<F, R>;

  F function;
  future<R> source;

  static bool is_for(const future_state&) noexcept { return true; }
  decltype(auto) call() { return std::move(function)(std::move(source)); }
  static void pass(future<R>& from, result_state<result>& out) noexcept { pass_error(from, out); }
};

// f(error).
template <class R, class F>
struct or_else_step {
  using source_type = future<R>;
  using result = R;

  F function;
  future<R> source;

  static bool is_for(const future_state& state) noexcept { return state.has_failed(); }
  decltype(auto) call() { return std::move(function)(std::exchange(future_access::state(source)->error, nullptr)); }
  static void pass(future<R>& from, result_state<R>& out) noexcept {
    keep_outcome(out, [&]() -> R { return future_access::take(from); });
  }
};

// Whether the step's function returns a future of the step's result rather than the result.
template <class Step>
inline constexpr bool returns_future = std::is_same<std::decay_t<decltype(std::declval<Step&>().call())>,
                                                    future<typename Step::result>>::value;

// The closure of a prepared fiber.
template <class Step>
struct fiber_step : continuation {
  using payload = spawned<fiber_step>;
  using source = step_source<typename Step::source_type>;

  explicit fiber_step(Step&& step_in) : continuation(&come_due), step(std::move(step_in)) {}

  typename Step::result operator()() && {
    if constexpr (returns_future<Step>) {
      return step.call().get();
    } else {
      return step.call();
    }
  }

  static void come_due(continuation* due, due_list& more) noexcept {
    fiber_step* self = static_cast<fiber_step*>(due);
    payload* whole = static_cast<payload*>(self->host->payload);
    if (!Step::is_for(source::state(self->step.source))) {
      Step::pass(self->step.source, *whole);
      if (whole->has_failed()) source::settle(self->step.source, nullptr);
    } else if (launch_prepared(self->host)) {
      return;
    } else {
      whole->set_error(broken_promise_error());
    }
    payload::end_unlaunched(whole, more);
  }

  Step step;
  fiber* host = nullptr;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE fiber* block_for_continuation() {
  worker* w = this_worker();
  if (w == nullptr || w->current == nullptr) return nullptr;
  fiber* f = w->sched->new_fiber(w);
  if (CONCUR_UNLIKELY(f == nullptr)) fail_no_fiber();
  return f;
}

CONCUR_INLINE bool launch_prepared(fiber* f) noexcept {
  worker* w = this_worker();
  if (w != nullptr && w->sched->blocks == pool_of(f)) {
    w->sched->launch(w, f);
    return true;
  }
  return pool_of(f)->with_open_owner(
      [](scheduler* s, void* prepared) { s->launch(nullptr, static_cast<fiber*>(prepared)); }, f);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
