// structure/combine.hpp - several functions at once: all of them, any that succeeds, or the first to end.
//
//     all     every result                       the first failure cancels the others, and is thrown
//     any     the first success                  cancels the others; if none succeeds, all failures are thrown together
//     race    the first end, good or bad         cancels the others
//
// Each function runs as a fiber in a nursery of the call's own, so when the call returns all of them have ended, and they may
// use what the caller has on its stack. A result that comes too late is destroyed; the failure of a loser of any and race is
// dropped, since one success, or the first end, is all that was asked for.
#ifndef CONCUR_STRUCTURE_COMBINE_HPP
#define CONCUR_STRUCTURE_COMBINE_HPP

#include <exception>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "atomic/word.hpp"
#include "base/config.hpp"
#include "structure/nursery.hpp"

CONCUR_NAMESPACE_BEGIN

// What any() throws when no function succeeds: how each of them failed, in the order of the arguments.
class failures : public std::runtime_error {
 public:
  failures(const std::string& what_in, std::vector<std::exception_ptr> errors)
      : std::runtime_error(what_in), errors_(std::move(errors)) {}
  const std::vector<std::exception_ptr>& errors() const noexcept { return errors_; }

 private:
  std::vector<std::exception_ptr> errors_;
};

namespace detail {

[[noreturn]] CONCUR_INLINE void fail_all_failed(std::vector<std::exception_ptr> errors);

// Where a function's result is kept: a reference as a pointer, nothing as std::monostate.
template <class R>
class result_room {
 public:
  template <class F>
  void take_from(F&& f) {
    if constexpr (std::is_void<R>::value) {
      std::forward<F>(f)();
      value_.emplace();
    } else if constexpr (std::is_reference<R>::value) {
      R&& result = std::forward<F>(f)();
      value_.emplace(std::addressof(result));
    } else {
      value_.emplace(std::forward<F>(f)());
    }
  }
  bool has_value() const noexcept { return value_.has_value(); }
  decltype(auto) give() {
    if constexpr (std::is_reference<R>::value)
      return static_cast<R>(**value_);
    else
      return std::move(*value_);
  }
  // The code of a function that returned one that is not zero.
  std::error_code code() const noexcept {
    if constexpr (std::is_same<R, std::error_code>::value)
      return value_.has_value() ? *value_ : std::error_code();
    else
      return std::error_code();
  }

 private:
  using stored = std::conditional_t<std::is_void<R>::value, std::monostate,
                                    std::conditional_t<std::is_reference<R>::value, std::remove_reference_t<R>*, R>>;
  std::optional<stored> value_;
};

template <class R>
using result_in_tuple = std::conditional_t<std::is_void<R>::value, std::monostate, R>;
// What any and race return: the type that all functions return, references included, else what those have in common.
template <class R, class... Rs>
struct common_result_of {
  using type = typename std::conditional_t<(std::is_same<R, Rs>::value && ...), std::enable_if<true, R>,
                                           std::common_type<R, Rs...>>::type;
};
template <class... Fs>
using common_result = typename common_result_of<std::invoke_result_t<Fs>...>::type;

// Which of several functions has decided the matter.
class decision {
 public:
  // True for the first, who then writes the result.
  bool take() noexcept {
    // relaxed: only who is first; the nursery's end publishes the rest.
    return !is_taken_.exchange(true, std::memory_order_relaxed);
  }
  bool is_taken() const noexcept { return is_taken_.load(std::memory_order_relaxed); }  // relaxed: behind the end

 private:
  atomic<bool> is_taken_{false};
};

// One of any's functions.
template <class R, class F>
void try_for(nursery& n, decision& winner, result_room<R>& result, failure& own, F& f) {
  result_room<R> mine;
  bool has_returned = false;
  own = failure_of([&] {
    mine.take_from(std::forward<F>(f));
    has_returned = true;
    return mine.code();
  });
  if (!has_returned || mine.code() || !winner.take()) return;
  if (!CONCUR_MUTANT_IS(215)) n.cancel();
  result = std::move(mine);
}

// One of race's.
template <class R, class F>
void race_for(nursery& n, decision& winner, result_room<R>& result, [[maybe_unused]] std::exception_ptr& error, F& f) {
  result_room<R> mine;
#if CONCUR_EXCEPTIONS
  try {
    mine.take_from(std::forward<F>(f));
  } catch (const cancelled&) {
    throw;
  } catch (...) {
    if (!winner.take()) return;
    n.cancel();
    error = std::current_exception();
    return;
  }
#else
  mine.take_from(std::forward<F>(f));
#endif
  if (!winner.take()) return;
  n.cancel();
  result = std::move(mine);
}

template <class... Fs, std::size_t... I>
auto run_all(std::index_sequence<I...>, Fs&&... fs) -> std::tuple<result_in_tuple<std::invoke_result_t<Fs>>...> {
  std::tuple<result_room<std::invoke_result_t<Fs>>...> results;
  nursery n = nursery_access::make(on_failure::cancel_siblings, "concur::all");
  (n.go([&room = std::get<I>(results), &f = fs] {
    room.take_from(std::forward<Fs>(f));
    return room.code();
  }),
   ...);
#if CONCUR_EXCEPTIONS
  n.join();
#else
  std::error_code told_by_results;
  n.join(told_by_results);
#endif
  return std::tuple<result_in_tuple<std::invoke_result_t<Fs>>...>(std::get<I>(results).give()...);
}

template <class... Fs, std::size_t... I>
auto run_any(std::index_sequence<I...>, Fs&&... fs) -> common_result<Fs...> {
  using R = common_result<Fs...>;
  result_room<R> result;
  decision winner;
  failure own[sizeof...(Fs)];
  {
    nursery n = nursery_access::make(on_failure::keep_going, "concur::any");
    (n.go([&, &f = fs] { try_for<R, Fs>(n, winner, result, own[I], f); }), ...);
    n.join();
  }
  if (!winner.is_taken()) {
    if constexpr (std::is_same<R, std::error_code>::value && !CONCUR_EXCEPTIONS) {
      for (const failure& one : own) {
        if (one) return one.code;
      }
      return std::make_error_code(std::errc::operation_canceled);
    } else {
      std::vector<std::exception_ptr> errors;
      for (failure& one : own) {
        if (one) errors.push_back(std::move(one.error));
      }
      fail_all_failed(std::move(errors));
    }
  }
  if constexpr (!std::is_void<R>::value) return result.give();
}

template <class... Fs>
auto run_race(Fs&&... fs) -> common_result<Fs...> {
  using R = common_result<Fs...>;
  result_room<R> result;
  decision winner;
  std::exception_ptr error;
  {
    nursery n = nursery_access::make(on_failure::keep_going, "concur::race");
    (n.go([&, &f = fs] { race_for<R, Fs>(n, winner, result, error, f); }), ...);
    n.join();
  }
  if (error != nullptr) rethrow(error);
  if (!result.has_value()) fail_cancelled();
  if constexpr (!std::is_void<R>::value) return result.give();
}

}  // namespace detail

// Runs all of them at once; returns their results as a tuple, in the order of the arguments, std::monostate for void. The
// first failure cancels the others and is rethrown, as its type, when they have ended. Throws `cancelled`, and what
// nursery::go throws.
template <class... Fs>
auto all(Fs&&... fs) -> std::tuple<detail::result_in_tuple<std::invoke_result_t<Fs>>...> {
  return detail::run_all(std::index_sequence_for<Fs...>(), std::forward<Fs>(fs)...);
}

// Runs all of them at once; returns the first result, as the type that all have in common, when the others, which it has
// cancelled, have ended. Throws `failures` when every one has failed, `cancelled`, and what nursery::go throws.
template <class... Fs>
auto any(Fs&&... fs) -> detail::common_result<Fs...> {
  static_assert(sizeof...(Fs) != 0, "concur::any: there must be a function to succeed");
  return detail::run_any(std::index_sequence_for<Fs...>(), std::forward<Fs>(fs)...);
}

// The same, but the first to end decides: its result is returned, or its exception thrown.
template <class... Fs>
auto race(Fs&&... fs) -> detail::common_result<Fs...> {
  static_assert(sizeof...(Fs) != 0, "concur::race: there must be a function to end");
  return detail::run_race(std::forward<Fs>(fs)...);
}

CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <string>

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void fail_all_failed(std::vector<std::exception_ptr> errors) {
  std::string text = "concur::any: none of the functions succeeded";
#  if CONCUR_EXCEPTIONS
  for (const std::exception_ptr& error : errors) {
    try {
      std::rethrow_exception(error);
    } catch (const std::exception& known) {
      text.append("; ").append(known.what());
    } catch (...) {
      text.append("; an exception of another kind");
    }
  }
#  endif
  raise(failures(text, std::move(errors)), text.c_str());
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
