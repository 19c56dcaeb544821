// structure/parallel_invoke.hpp - several functions that may run at the same time, for work that computes.
//
//     long sum(const long* first, const long* last) {
//       if (last - first < 1000) return std::accumulate(first, last, 0L);
//       const long* const middle = first + (last - first) / 2;
//       long left = 0, right = 0;
//       concur::parallel_invoke([&] { left = sum(first, middle); }, [&] { right = sum(middle, last); });
//       return left + right;
//     }
//
// all() starts a fiber for each function, which waiting calls need. Here the caller runs the first function itself and
// offers the others to workers that have nothing to do; what nobody has taken by then, it calls next. So a fork costs
// 5 ns and no memory when everybody is busy, and a recursion need not be cut off early by hand. How an offered function is
// taken, and taken back, is in runtime/job_deque.hpp and theft.hpp.
#ifndef CONCUR_STRUCTURE_PARALLEL_INVOKE_HPP
#define CONCUR_STRUCTURE_PARALLEL_INVOKE_HPP

#include <exception>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

#include "base/config.hpp"
#include "base/error.hpp"
#include "runtime/theft.hpp"
#include "structure/nursery_core.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// What comes out of two functions of which the first threw `first`, and the second `second`, or nothing.
[[noreturn]] CONCUR_INLINE void fail_first(const std::exception_ptr& first, const std::exception_ptr& second);

// Calls f and returns what it threw.
template <class F>
std::exception_ptr error_of(F&& f) noexcept {
#if CONCUR_EXCEPTIONS
  try {
    std::forward<F>(f)();
  } catch (...) {
    return std::current_exception();
  }
#else
  std::forward<F>(f)();
#endif
  return nullptr;
}

// The second function of a fork, as a job.
template <class F>
struct forked : job {
  explicit forked(F& function_in) noexcept : job(&run), function(std::addressof(function_in)) {}

  // In the fiber that took it.
  static worker* run(fiber* f, int refusal) noexcept {
    forked* const self = static_cast<forked*>(static_cast<job*>(f->payload));
    theft& t = *self->taker;
    t.is_refused = refusal != 0 && !CONCUR_MUTANT_IS(411);
    if (CONCUR_LIKELY(refusal == 0)) {
      enter_scope(t.bounds, *f, true);
      t.error = error_of(std::forward<F>(*self->function));
      leave_scope(t.bounds);
      end_locals(f);
    }
    f->set_state(fiber_state::finished);
    end_theft(t);
    return this_worker();
  }

  std::remove_reference_t<F>* function;
};

// Without a worker, or with a full deque.
template <class A, class B>
CONCUR_NOINLINE void call_in_order(A&& a, B&& b) {
#if CONCUR_EXCEPTIONS
  try {
    std::forward<A>(a)();
  } catch (...) {
    const std::exception_ptr first = std::current_exception();
    fail_first(first, error_of(std::forward<B>(b)));
  }
#else
  std::forward<A>(a)();
#endif
  std::forward<B>(b)();
}

// The slow half of the end of a fork: true: the caller is to run the second function.
CONCUR_NOINLINE inline bool is_still_mine(worker* w, std::uint32_t index, job& offered) {
  std::exception_ptr error;
  if (regain_job(w, index, offered, error) == job_end::still_mine) return true;
  if (CONCUR_UNLIKELY(error != nullptr)) rethrow(error);
  return false;
}

#if CONCUR_EXCEPTIONS
// The first function has thrown; the second is brought to its end all the same.
template <class B>
[[noreturn]] CONCUR_NOINLINE void end_failed_fork(worker* w, std::uint32_t index, job& offered, B&& b) {
  const std::exception_ptr first = std::current_exception();
  std::exception_ptr second;
  if (regain_job(w, index, offered, second) == job_end::still_mine && !CONCUR_MUTANT_IS(407))
    second = error_of(std::forward<B>(b));
  fail_first(first, second);
}
#endif

template <class A, class B>
CONCUR_FORCE_INLINE void fork(A&& a, B&& b) {
  worker* const w = this_worker();
  fiber* const self = CONCUR_LIKELY(w != nullptr) ? w->current.get() : nullptr;
  if (CONCUR_UNLIKELY(self == nullptr)) return call_in_order(std::forward<A>(a), std::forward<B>(b));
  forked<B> other(b);
  std::uint32_t index = 0;
  if (CONCUR_UNLIKELY(!w->jobs.push(other, index)))
    return call_in_order(std::forward<A>(a), std::forward<B>(b));
  w->sched->suggest_thief(w);
#if CONCUR_EXCEPTIONS
  try {
    std::forward<A>(a)();
  } catch (...) {
    end_failed_fork(w, index, other, std::forward<B>(b));
  }
#else
  std::forward<A>(a)();
#endif
  // Whether the fiber is still on w is asked of w: the way by the thread costs a call.
  const bool is_back = (w->current.seen_from_elsewhere() == self || CONCUR_MUTANT_IS(408)) && w->jobs.take_back(index);
  if (CONCUR_LIKELY(is_back) || is_still_mine(w, index, other)) std::forward<B>(b)();
}

// `count` functions of the tuple, from the one at `first` on: half of them are offered.
template <std::size_t first, std::size_t count, class Functions>
CONCUR_FORCE_INLINE void invoke_range(Functions& functions) {
  if constexpr (count == 1) {
    std::get<first>(std::move(functions))();
  } else if constexpr (count > 1) {
    fork([&functions] { invoke_range<first, count - count / 2>(functions); },
         [&functions] { invoke_range<first + (count - count / 2), count / 2>(functions); });
  }
}

}  // namespace detail

// Calls all functions, perhaps some of them at the same time on other workers, and returns when every one has ended. They may
// use what the caller has on its stack. What they return is dropped. What comes before happens before each of them, and the
// end of each before the return.
//
// A function that is taken by another worker runs as a fiber of its own there: its fiber_locals and its id are not the
// caller's, and it is not bound to the caller's thread. The others run in the caller, in their order. None of them may count on
// running at the same time as another; but they may wait for each other, since one that waits lets the next begin.
//
// Every function is called and comes to its end, also when another one throws. Then the first exception in the order of the
// arguments is rethrown, `cancelled` last. This is no checkpoint; a cancellation of the caller reaches a function elsewhere
// as soon as the caller waits for it. On a thread that runs no fibers all are called in their order.
//
// Costs 5 ns for each function but the first when nobody takes it, and no memory; a function that is taken costs what concur::go
// does, and the caller some microseconds. Each open fork takes a few words of the caller's stack; of the forks that a worker's
// fibers have open beyond 255, functions are not offered, and run in the caller.
template <class... Fs>
CONCUR_FORCE_INLINE void parallel_invoke(Fs&&... fs) {
  if constexpr (sizeof...(Fs) == 2) {
    detail::fork(std::forward<Fs>(fs)...);
  } else {
    std::tuple<Fs&&...> functions(std::forward<Fs>(fs)...);
    detail::invoke_range<0, sizeof...(Fs)>(functions);
  }
}

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void fail_first([[maybe_unused]] const std::exception_ptr& first,
                              [[maybe_unused]] const std::exception_ptr& second) {
#  if CONCUR_EXCEPTIONS
  if (second != nullptr) {
    try {
      rethrow(first);
    } catch (const cancelled&) {
      rethrow(second);
    } catch (...) {
    }
  }
#  endif
  rethrow(first);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
