// structure/runtime.hpp - starting workers, running a program on them, and ending with nothing left over.
//
// run() is for programs that are concurrent as a whole: it starts the workers, runs its argument as the first fiber,
// and comes back when every fiber has ended. A runtime object is for programs that have a life of their own and hand
// work in.
//
//   V1  Leaving run, or the end of a runtime object, leaves no fiber, thread, descriptor or stack behind.
//   V2  An error surfaces: the root's own from run and block_on, any other's through its future, or, when nobody took
//       it, from run.
#ifndef CONCUR_STRUCTURE_RUNTIME_HPP
#define CONCUR_STRUCTURE_RUNTIME_HPP

#include <cstdio>
#include <memory>
#include <type_traits>
#include <utility>

#include "base/config.hpp"
#include "runtime/scheduler.hpp"
#include "runtime/snapshot.hpp"
#include "structure/future.hpp"
#include "structure/spawn.hpp"

CONCUR_NAMESPACE_BEGIN

// Workers and their fibers. Several may live at once. Constructing one throws std::invalid_argument for options that
// cannot be meant, and std::system_error when threads, descriptors or memory cannot be had; nothing is left behind
// then.
class runtime {
 public:
  explicit runtime(options wanted = {}) : scheduler_(new detail::scheduler(wanted)) {}
  runtime(const runtime&) = delete;
  runtime& operator=(const runtime&) = delete;

  // Cancels the fibers that are left, waits for them, joins every thread and frees every stack. Not from a fiber of
  // this runtime.
  ~runtime() {
    scheduler_->blocks->close();
    scheduler_->cancel_all();
    scheduler_->quiesce();
  }

  // Runs f as a fiber and waits for it; returns what it returned, rethrows what it threw. From any thread, or a fiber.
  template <class F>
  auto block_on(F&& f) -> std::invoke_result_t<std::decay_t<F>> {
    return go(std::forward<F>(f)).get();
  }

  // Runs f(args...) as a fiber, from any thread. Errors as for concur::go.
  template <class F, class... Args>
  auto go(F&& f, Args&&... args) -> future<std::invoke_result_t<std::decay_t<F>, std::decay_t<Args>...>> {
    detail::worker* w = detail::this_worker();
    if (w != nullptr && (w->sched != scheduler_.get() || w->current == nullptr)) w = nullptr;
    return detail::spawn(*scheduler_, w, detail::bind_call(std::forward<F>(f), std::forward<Args>(args)...));
  }

  // Figures, without stopping anybody.
  stats snapshot() const noexcept { return detail::take_snapshot(*scheduler_); }
  // Every fiber, a line each: id, state, what it waits for.
  void dump(std::FILE* out = stderr) const noexcept { detail::dump_fibers(*scheduler_, out); }

  // For run(): waits until every fiber has ended, then rethrows the first exception that nobody took.
  void wait_for_all() {
    scheduler_->quiesce();
    if (std::exception_ptr error = scheduler_->take_exception()) detail::rethrow(std::move(error));
  }
  // Ends every wait of every fiber with `cancelled`, present and future ones.
  void cancel_all() noexcept { scheduler_->cancel_all(); }

 private:
  std::unique_ptr<detail::scheduler> scheduler_;
};

// Starts workers, runs f as the first fiber, waits for every fiber, stops the workers, and returns what f returned.
// When f throws, the other fibers are cancelled and waited for, and run rethrows. When f succeeds, run rethrows the
// first exception of another fiber that nobody took.
template <class F>
auto run(options wanted, F&& f) -> std::invoke_result_t<std::decay_t<F>> {
  using R = std::invoke_result_t<std::decay_t<F>>;
  runtime rt(wanted);
  future<R> root = rt.go(std::forward<F>(f));
  if constexpr (std::is_void<R>::value) {
    root.get();
    rt.wait_for_all();
  } else {
    R result = root.get();
    rt.wait_for_all();
    return static_cast<R&&>(result);
  }
}
template <class F>
auto run(F&& f) -> std::invoke_result_t<std::decay_t<F>> {
  return concur::run(options{}, std::forward<F>(f));
}

CONCUR_NAMESPACE_END

#endif
