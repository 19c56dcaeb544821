// structure/future.hpp - one result, made once, taken once.
//
// A future is the taker's end of a result that somebody else makes: a fiber (spawn.hpp), a promise (promise.hpp), or
// a continuation of another future (continuation.hpp). It works the same from fibers and from plain threads. What is
// done before the result is made happens before get() returns, and before whatever was attached to the result runs.
//
//     to ...                          say              who calls back, and where
//     wait and take it                get()
//     do something with the value     then(f)          a new fiber; plain threads alone: the completing thread
//     do something with the error     or_else(f)       as then
//     be told, and take it later      on_ready(f)      the completing thread, in passing
//     give it to many                 share()
#ifndef CONCUR_STRUCTURE_FUTURE_HPP
#define CONCUR_STRUCTURE_FUTURE_HPP

#include <exception>
#include <memory>
#include <type_traits>
#include <utility>

#include "base/config.hpp"
#include "base/time.hpp"
#include "structure/future_state.hpp"

CONCUR_NAMESPACE_BEGIN

template <class R>
class future;
template <class R>
class shared_future;

namespace detail {

struct future_access;

template <class T>
struct unwrapped {
  using type = T;
};
template <class T>
struct unwrapped<future<T>> {
  using type = T;
};

// Whether f takes the value, rather than the future that holds it.
template <class F, class R>
struct takes_value : std::is_invocable<F, R> {};
template <class F>
struct takes_value<F, void> : std::is_invocable<F> {};

// What f returns for a result of type R; a future counts as what it will hold.
template <class F, class R, bool value = takes_value<F, R>::value>
struct then_type {
  static_assert(std::is_invocable<F, future<R>>::value,
                "future::then: the function must take the value (nothing for void), or the future that is ready");
  using type = typename unwrapped<std::invoke_result_t<F, future<R>>>::type;
};
template <class F, class R>
struct then_type<F, R, true> {
  using type = typename unwrapped<std::invoke_result_t<F, R>>::type;
};
template <class F>
struct then_type<F, void, true> {
  using type = typename unwrapped<std::invoke_result_t<F>>::type;
};
template <class F, class R>
using then_result = typename then_type<std::decay_t<F>, R>::type;

}  // namespace detail

// Where the one result of something under way will be. Move-only. Dropping it is allowed: the work goes on, and an
// exception nobody took surfaces in run().
template <class R>
class future {
 public:
  future() noexcept = default;
  explicit future(detail::result_state<R>* state) noexcept : state_(state) {}
  future(future&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  future& operator=(future&& other) noexcept {
    future taken(std::move(other));
    std::swap(state_, taken.state_);
    return *this;
  }
  ~future() {
    if (state_ != nullptr && !state_->drop()) state_->release(state_);
  }

  // Whether get() may be called: false for an empty future, and after get().
  bool valid() const noexcept { return state_ != nullptr; }
  // Whether get() would return at once.
  bool ready() const noexcept { return state_ != nullptr && state_->is_ready(); }

  // Parks until the result is there, and takes it; rethrows what its maker threw, as the type it was thrown with.
  // Throws `cancelled`, and then the result can still be had; std::future_error (no_state) on an empty future.
  R get();

  // Makes `f` go on with the value: f(R), f() for void. Returns where f's own result will be; if f returns a future, the
  // result of that. This future is empty afterwards. When there is an exception instead, f is not called, and the exception
  // passes on; it counts as taken here, and is the returned future's to surface. A function that takes future<R> instead
  // is called in both cases, with this future, which is ready.
  //
  // f runs as a new fiber: of the caller's runtime if a fiber calls then(); else of the runtime on whose worker the result
  // is made. If both are plain threads, f runs on the one that makes the result, or right here if the result is there: f
  // then holds that thread up. The runtime that is to run f is not kept going by f: when it ends before the result is
  // there, f is destroyed without a call, and the returned future throws std::future_error (broken_promise). Dropping the
  // returned future stops nothing; an exception of f's that nobody takes surfaces in run() as for go(), but is lost if f ran
  // on a plain thread. Throws std::future_error (no_state) on an empty future, and std::system_error (not_enough_memory) or
  // std::bad_alloc. Costs what go() costs; from a plain thread one allocation more.
  template <class F>
  auto then(F&& f) -> future<detail::then_result<F, R>>;
  // The same for an exception: f(std::exception_ptr) returns an R, or a future<R>. A value passes through, without a fiber.
  template <class F>
  future<R> or_else(F&& f);
  // Calls f() once, when the result is there: on the thread that makes it, or right here if it is there already. The
  // future stays as it is; f is called also if it is dropped. f may not throw, nor wait: it holds up who makes the
  // result. One allocation.
  template <class F>
  void on_ready(F&& f) const;

  // The result for many takers. This future is empty afterwards.
  shared_future<R> share();

  // Parks until the result is there. Throws `cancelled`; the form with a code says so there, and returns false. After true,
  // get() does not wait.
  void wait() const { wait_deadline(detail::never); }
  bool wait(std::error_code& error) const { return wait_deadline(detail::never, error); }
  // The same with a limit: false also when that passed first.
  template <class Rep, class Period>
  bool wait_for(std::chrono::duration<Rep, Period> d) const {
    return wait_deadline(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  bool wait_until(const std::chrono::time_point<Clock, Duration>& tp) const {
    return wait_deadline(detail::deadline_at(tp));
  }
  template <class Rep, class Period>
  bool wait_for(std::chrono::duration<Rep, Period> d, std::error_code& error) const {
    return wait_deadline(detail::deadline_after(d), error);
  }
  template <class Clock, class Duration>
  bool wait_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) const {
    return wait_deadline(detail::deadline_at(tp), error);
  }

 private:
  friend struct detail::future_access;
  struct releaser {
    void operator()(detail::result_state<R>* state) const noexcept { state->release(state); }
  };

  template <class... Code>
  bool wait_deadline(detail::nanoseconds_t deadline_ns, Code&... code) const {
    if (state_ == nullptr) detail::fail_no_state();
    return state_->wait(deadline_ns, code...) == detail::outcome::granted;
  }

  // Without waiting; the result is there.
  R take();

  detail::result_state<R>* state_ = nullptr;
};

template <class R>
R future<R>::get() {
  wait();
  return take();
}

template <class R>
R future<R>::take() {
  std::unique_ptr<detail::result_state<R>, releaser> state(std::exchange(state_, nullptr));
  if (CONCUR_UNLIKELY(state->has_failed())) detail::rethrow(std::exchange(state->error, nullptr));
  if constexpr (std::is_reference<R>::value) {
    return static_cast<R>(*state->get());
  } else if constexpr (!std::is_void<R>::value) {
    return std::move(state->get());
  }
}

namespace detail {

// For the parts that build futures of other futures.
struct future_access {
  template <class R>
  static result_state<R>* state(const future<R>& of) noexcept {
    return of.state_;
  }
  template <class R>
  static result_state<R>* must_have_state(const future<R>& of) {
    if (of.state_ == nullptr) fail_no_state();
    return of.state_;
  }
  template <class R>
  static R take(future<R>& from) {
    return from.take();
  }
};

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
