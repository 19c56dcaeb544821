// structure/nursery.hpp - a block that does not end before the last fiber that was started in it.
//
// go() alone is fire and forget: nobody knows when the fiber ends, who hears of its failure, or who calls it off. A nursery
// answers all three by its place in the program:
//
//     concur::with_nursery([&](concur::nursery& n) {
//       n.go(fetch, "users");
//       n.go(fetch, "orders");
//     });                              // here both have ended; what one threw comes out here
//
//   - A child ends before the block, and may use whatever outlives the block.
//   - A child that fails cancels its siblings and the block's own waits; the failure comes out of the block, as the type it
//     was thrown with. on_failure::keep_going lets the others finish.
//   - Cancelling what surrounds the block cancels the children. The block waits for them all the same.
//
// For all failures and not only the first, make the nursery by hand: `nursery n; try { n.run(...); } ... n.failures()`.
#ifndef CONCUR_STRUCTURE_NURSERY_HPP
#define CONCUR_STRUCTURE_NURSERY_HPP

#include <exception>
#include <memory>
#include <optional>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/config.hpp"
#include "structure/child.hpp"
#include "structure/nursery_core.hpp"
#include "structure/started.hpp"

CONCUR_NAMESPACE_BEGIN

namespace detail {
struct nursery_access;
}

// Made by a fiber, its host, as a variable of a block; nested like scopes. Everything but run, join and the destructor may be
// called from the host, from children, and from any thread while the nursery has not ended. Throws std::logic_error outside
// a fiber.
//
// A child that returns std::error_code fails by returning one that is not zero; it comes out as std::system_error.
class nursery {
 public:
  explicit nursery(on_failure policy = on_failure::cancel_siblings) : nursery(policy, "concur::nursery") {}
  // Not joined: cancels the children, waits for them, and hands a failure to run(), which rethrows it.
  ~nursery() = default;
  nursery(const nursery&) = delete;
  nursery& operator=(const nursery&) = delete;

  // Starts f(args...) as a child. Arguments are copied or moved, as by std::thread; what comes before go() happens before f;
  // f's end happens before the end of the nursery. In a nursery that is cancelled the child still begins, and is cancelled at
  // its first checkpoint. With a limit this is a parking operation, and throws `cancelled`; it has started nothing then, nor
  // where exceptions are off, and it returns. Throws std::logic_error when the nursery has ended, std::system_error
  // (not_enough_memory). Costs what concur::go costs, and two locks more.
  template <class F, class... Args>
  void go(F&& f, Args&&... args) {
    detail::must_have_started(
        detail::start_child<detail::child>(core_, detail::bind_call(std::forward<F>(f), std::forward<Args>(args)...)));
  }

  // The same with a result. What f throws fails the nursery as well as coming out of the future, which may be dropped.
  template <class F, class... Args>
  auto async(F&& f, Args&&... args) -> future<std::invoke_result_t<std::decay_t<F>, std::decay_t<Args>...>> {
    using R = std::invoke_result_t<std::decay_t<F>, std::decay_t<Args>...>;
    auto* const child = detail::start_child<detail::child_with_result>(
        core_, detail::bind_call(std::forward<F>(f), std::forward<Args>(args)...));
    detail::must_have_started(child);
    return future<R>(child);
  }

  // Starts f(up) as a child, where f takes a started<T>&, and waits until it says that it is up, by up.set_value(v) or up(v);
  // returns v. The child goes on. What f throws before comes out here, and does not fail the nursery; a f that returns
  // without a word: std::logic_error. If the caller is cancelled meanwhile, so is the child; this throws `cancelled` when the
  // child has ended. For a generic lambda name T: n.start<int>([](auto& up) { ... }).
  template <class T = detail::deduced, class F>
  auto start(F&& f) -> typename detail::started_type<T, std::decay_t<F>>::type {
    using V = typename detail::started_type<T, std::decay_t<F>>::type;
    if constexpr (std::is_void<V>::value)
      detail::start_and_wait<V>(core_, std::forward<F>(f), nullptr);
    else
      return std::move(*detail::start_and_wait<V>(core_, std::forward<F>(f), nullptr));
  }
  // The same with codes, as an optional (a bool for void): the one that f returned before it was up, or operation_canceled.
  template <class T = detail::deduced, class F>
  auto start(F&& f, std::error_code& ec) ->
      typename detail::unless_cancelled<typename detail::started_type<T, std::decay_t<F>>::type>::type {
    return detail::start_and_wait<typename detail::started_type<T, std::decay_t<F>>::type>(core_, std::forward<F>(f),
                                                                                           &ec);
  }

  // Cancels the children and the block. From any thread; does not wait.
  void cancel() noexcept { core_.scope.cancel(); }
  // Whether it is cancelled, by whomever: cancel(), a failure, a deadline, or from outside.
  bool cancelled() const noexcept { return core_.scope.cancelled(); }
  // Children that have not ended.
  std::size_t size() const noexcept { return core_.size(); }
  // From now on at most n children at once; go, async and start park until there is room, first come, first served. Children
  // that wait for room which only they could make wait for ever. Throws std::invalid_argument for 0.
  void limit(std::size_t n) { core_.limit(n); }
  // The scope that the children are in: for a deadline or a shield.
  cancel_scope& scope() noexcept { return core_.scope; }

  // Waits until every child has ended, and ends the nursery; rethrows the first failure, as the type it was thrown with. A
  // cancellation from outside reaches the children, and is thrown from here when they have ended, unless there is a failure.
  // Afterwards the host is out of the nursery's scope. Throws std::logic_error if it has ended, or the caller is not its host.
  void join();
  // The same with codes: the one that the first failing child returned, operation_canceled for a cancellation from outside,
  // else none. What a child has thrown is rethrown all the same.
  void join(std::error_code& ec);

  // f(*this), then join(): what with_nursery does. f counts as a child: its failure is one of the nursery's. If f leaves by an
  // exception, what is left is cancelled, whatever the policy. Returns what f returned. When only this nursery was cancelled
  // and f did not come to its end for that: returns, for a void f, else throws `cancelled`.
  template <class F>
  auto run(F&& f) -> std::invoke_result_t<F, nursery&>;
  // With codes, as join(ec). A f with a result gives it as an optional, which is empty when f was cut short; a void f says
  // whether it returned.
  template <class F>
  auto run(F&& f, std::error_code& ec) -> typename detail::unless_cancelled<std::invoke_result_t<F, nursery&>>::type;

  // Every failure so far, in the order in which they happened; what was cancelled did not fail. Also after the end.
  std::vector<std::exception_ptr> failures() const { return core_.failures(); }

 private:
  friend struct detail::nursery_access;
  nursery(on_failure policy, const char* what) : core_(policy, what) {}

  // What is left to do when the body has come to its end, or has not.
  void end_body(bool has_returned, detail::failure&& what);
  // Throws what run and join throw; with ec, puts there what can be said so.
  void end(const char* what, std::error_code* ec);
  template <class Result, class F>
  void run_into(Result& result, F&& f, bool& is_own_end);

  detail::nursery_core core_;
};

namespace detail {

// For the functions that have a nursery of their own: reports name them.
struct nursery_access {
  static nursery make(on_failure policy, const char* what) { return nursery(policy, what); }
};

}  // namespace detail

// Runs a nursery as a function: f(nursery&). Returns what f returned, when every child has ended. Errors as nursery::run. The
// children outlive the variables of f itself: let them use what is declared outside, or copies.
template <class F>
auto with_nursery(F&& f) -> std::invoke_result_t<F, nursery&> {
  nursery n = detail::nursery_access::make(on_failure::cancel_siblings, "concur::with_nursery");
  return n.run(std::forward<F>(f));
}
template <class F>
auto with_nursery(on_failure policy, F&& f) -> std::invoke_result_t<F, nursery&> {
  nursery n = detail::nursery_access::make(policy, "concur::with_nursery");
  return n.run(std::forward<F>(f));
}
template <class F>
auto with_nursery(F&& f, std::error_code& ec) ->
    typename detail::unless_cancelled<std::invoke_result_t<F, nursery&>>::type {
  nursery n = detail::nursery_access::make(on_failure::cancel_siblings, "concur::with_nursery");
  return n.run(std::forward<F>(f), ec);
}

// --- templates ---

template <class Result, class F>
void nursery::run_into(Result& result, F&& f, bool& is_own_end) {
  using R = std::invoke_result_t<F, nursery&>;
  core_.must_be_host("concur::nursery::run");
  detail::failure what;
  const auto body = [&] {
    if constexpr (std::is_void<R>::value) {
      std::forward<F>(f)(*this);
      result = true;
    } else if constexpr (std::is_reference<R>::value) {
      result = std::addressof(std::forward<F>(f)(*this));
    } else {
      result.emplace(std::forward<F>(f)(*this));
      if constexpr (std::is_same<R, std::error_code>::value) what.set_code(*result);
    }
  };
#if CONCUR_EXCEPTIONS
  try {
    body();
  } catch (const concur::cancelled&) {
    is_own_end = cancelled();
  } catch (...) {
    what.error = std::current_exception();
  }
#else
  body();
  is_own_end = true;
#endif
  end_body(static_cast<bool>(result), std::move(what));
}

template <class F>
auto nursery::run(F&& f) -> std::invoke_result_t<F, nursery&> {
  using R = std::invoke_result_t<F, nursery&>;
  typename detail::unless_cancelled<R>::type result{};
  bool is_own_end = false;
  run_into(result, std::forward<F>(f), is_own_end);
  end("concur::nursery::run", nullptr);
  if constexpr (std::is_void<R>::value) {
    if (!result && !is_own_end) detail::fail_cancelled();
  } else {
    if (!result) detail::fail_cancelled();
    if constexpr (std::is_reference<R>::value)
      return static_cast<R>(*result);
    else
      return std::move(*result);
  }
}

template <class F>
auto nursery::run(F&& f, std::error_code& ec) ->
    typename detail::unless_cancelled<std::invoke_result_t<F, nursery&>>::type {
  typename detail::unless_cancelled<std::invoke_result_t<F, nursery&>>::type result{};
  bool is_own_end = false;
  run_into(result, std::forward<F>(f), is_own_end);
  end("concur::nursery::run", &ec);
  if (!result && !is_own_end && !ec) ec = std::make_error_code(std::errc::operation_canceled);
  return result;
}

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE void nursery::end_body(bool has_returned, detail::failure&& what) {
  if (what) core_.fail(std::move(what));
  if (!has_returned) core_.scope.cancel();
}

CONCUR_INLINE void nursery::end(const char* what, std::error_code* ec) {
  core_.must_be_host(what);
  const bool is_outside_cancelled = core_.finish();
  if (ec != nullptr) ec->clear();
  core_.tell(ec);
  if (ec == nullptr) {
    detail::checkpoint();
  } else if (is_outside_cancelled && !*ec) {
    *ec = std::make_error_code(std::errc::operation_canceled);
  }
}

CONCUR_INLINE void nursery::join() { end("concur::nursery::join", nullptr); }
CONCUR_INLINE void nursery::join(std::error_code& ec) { end("concur::nursery::join", &ec); }

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
