// structure/future_case.hpp - a result that is there, as a case of a select.
//
// The lock of a future's state is retired when the result is made (future_state.hpp); a select that finds it retired
// knows that the case can go, and one that waits has its note taken off with all the others'.
#ifndef CONCUR_STRUCTURE_FUTURE_CASE_HPP
#define CONCUR_STRUCTURE_FUTURE_CASE_HPP

#include <type_traits>
#include <utility>

#include "base/config.hpp"
#include "channel/select_case.hpp"
#include "structure/future.hpp"
#include "structure/shared_future.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

template <class F>
class future_case final : public select_case {
 public:
  static constexpr case_traits traits{};

  future_case(future_state& source, F&& handler) : handler_(std::move(handler)) {
    set_site_lock(&source.lock_of_waiting());
    queue = &source.waiting();
  }

  bool is_ready(nanoseconds_t) noexcept override { return is_retired; }
  attempt take(served_party&) override { return attempt::done; }
  void run() override { handler_(); }
  bool is_spent() const noexcept override { return true; }

 private:
  F handler_;
};

}  // namespace detail

// Goes when the result, or an exception, is there: get() in f() then does not wait. The future must stay as long as the
// case. Throws std::future_error (no_state) for an empty one.
template <class R, class F>
auto ready(const future<R>& source, F&& f) {
  return detail::future_case<std::decay_t<F>>(*detail::future_access::must_have_state(source),
                                              std::decay_t<F>(std::forward<F>(f)));
}
template <class R, class F>
auto ready(const shared_future<R>& source, F&& f) {
  if (!source.valid()) detail::fail_no_state();
  return detail::future_case<std::decay_t<F>>(detail::step_source<shared_future<R>>::state(source),
                                              std::decay_t<F>(std::forward<F>(f)));
}

CONCUR_NAMESPACE_END

#endif
