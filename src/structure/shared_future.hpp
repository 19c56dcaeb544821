// structure/shared_future.hpp - one result, looked at by many.
//
// Copies of a shared_future share one future behind a count. get() gives access to the result where it lies, and takes
// nothing: everybody may ask, again and again, from fibers and from plain threads.
//
//   H1  The last copy to go drops the future, and with it the result.
//   H2  An exception counts as taken when one get() has thrown it, or a then() has passed it on.
#ifndef CONCUR_STRUCTURE_SHARED_FUTURE_HPP
#define CONCUR_STRUCTURE_SHARED_FUTURE_HPP

#include <exception>
#include <memory>
#include <type_traits>
#include <utility>

#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/time.hpp"
#include "structure/continuation.hpp"
#include "structure/future.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// What the copies share.
template <class R>
struct shared_end {
  explicit shared_end(future<R>&& end_in) noexcept : end(std::move(end_in)) {}
  shared_end(const shared_end&) = delete;
  shared_end& operator=(const shared_end&) = delete;
  ~shared_end() {
    // relaxed: the count of the copies orders it.
    if (is_taken.load(std::memory_order_relaxed)) future_access::state(end)->is_reported = false;
  }
  void note_taken() noexcept { is_taken.store(true, std::memory_order_relaxed); }  // relaxed: as above

  future<R> end;
  atomic<bool> is_taken{false};  // H2; an error that is there
};

}  // namespace detail

// Copyable; a copy is cheap. Different copies may be used at the same time, and one copy by several for everything that is
// const. What is done before the result is made happens before each get().
template <class R>
class shared_future {
  using viewed = std::conditional_t<std::is_void<R>::value || std::is_reference<R>::value, R,
                                    std::add_lvalue_reference_t<std::add_const_t<R>>>;

 public:
  shared_future() noexcept = default;
  // From a future, which is empty afterwards. Allocates once.
  shared_future(future<R>&& from)
      : shared_(from.valid() ? std::make_shared<detail::shared_end<R>>(std::move(from)) : nullptr) {}

  // False for an empty one. get() does not change it.
  bool valid() const noexcept { return shared_ != nullptr; }
  bool ready() const noexcept { return shared_ != nullptr && shared_->end.ready(); }

  // Parks until the result is there. A const R& that is good as long as some copy is kept; R& for references, nothing for
  // void; or rethrows. Throws `cancelled`, and std::future_error (no_state) on an empty one.
  viewed get() const {
    wait();
    return view();
  }
  // As those of future, and so are the forms with a code.
  void wait() const { must_be_valid().end.wait(); }
  bool wait(std::error_code& error) const { return must_be_valid().end.wait(error); }
  template <class Rep, class Period>
  bool wait_for(std::chrono::duration<Rep, Period> d) const {
    return must_be_valid().end.wait_for(d);
  }
  template <class Clock, class Duration>
  bool wait_until(const std::chrono::time_point<Clock, Duration>& tp) const {
    return must_be_valid().end.wait_until(tp);
  }
  template <class Rep, class Period>
  bool wait_for(std::chrono::duration<Rep, Period> d, std::error_code& error) const {
    return must_be_valid().end.wait_for(d, error);
  }
  template <class Clock, class Duration>
  bool wait_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) const {
    return must_be_valid().end.wait_until(tp, error);
  }

  // As future::then, with f(const R&), f(R&) or f(). This shared_future stays as it is, and so may many go on with one
  // result.
  template <class F>
  auto then(F&& f) const -> future<detail::then_result<F, viewed>> {
    using step = detail::then_step<shared_future, viewed, std::decay_t<F>>;
    detail::future_state& source = *detail::future_access::state(must_be_valid().end);
    return detail::attach_step(source, [&] { return step{std::forward<F>(f), *this}; });
  }
  // As future::on_ready.
  template <class F>
  void on_ready(F&& f) const {
    must_be_valid().end.on_ready(std::forward<F>(f));
  }

 private:
  friend struct detail::step_source<shared_future>;

  detail::shared_end<R>& must_be_valid() const {
    if (shared_ == nullptr) detail::fail_no_state();
    return *shared_;
  }

  // The result is there.
  viewed view() const {
    detail::result_state<R>* state = detail::future_access::state(shared_->end);
    if (CONCUR_UNLIKELY(state->has_failed())) {
      shared_->note_taken();
      detail::rethrow(state->error);
    }
    if constexpr (std::is_reference<R>::value) {
      return static_cast<R>(*state->get());
    } else if constexpr (!std::is_void<R>::value) {
      return state->get();
    }
  }

  std::shared_ptr<detail::shared_end<R>> shared_;
};

template <class R>
shared_future<R> future<R>::share() {
  return shared_future<R>(std::move(*this));
}

namespace detail {

template <class R>
struct step_source<shared_future<R>> {
  static future_state& state(const shared_future<R>& source) noexcept {
    return *future_access::state(source.shared_->end);
  }
  static decltype(auto) take(shared_future<R>& source) { return source.view(); }
  static std::exception_ptr lend_error(shared_future<R>& source) noexcept { return state(source).error; }
  static void settle(shared_future<R>& source, std::exception_ptr* back) noexcept {
    if (back == nullptr) source.shared_->note_taken();
  }
};

}  // namespace detail
CONCUR_NAMESPACE_END
#endif
