// structure/continuation.hpp - what goes on when a result is there: then, or_else, on_ready.
//
// A function that may park needs a stack, so then() and or_else() run theirs as a fiber. Where that fiber comes from
// is decided by who asks:
//
//     who calls then()   who makes the result          the function runs
//     a fiber            anybody                       as a fiber of the caller's runtime
//     a plain thread     a fiber, or its worker        as a fiber of that one's runtime
//     a plain thread     a plain thread                on the one that makes the result; on the caller if it is there
//
// In the first case the fiber is prepared at once, in a block that holds the function, the future it waits for and its
// own result, and launched when the result comes (step.hpp).
//
//   N3  An error that passes on is taken from its source once somebody can still take it from the returned future, or
//       that one's runtime will report it.
#ifndef CONCUR_STRUCTURE_CONTINUATION_HPP
#define CONCUR_STRUCTURE_CONTINUATION_HPP

#include <exception>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "base/config.hpp"
#include "structure/future.hpp"
#include "structure/spawn.hpp"
#include "structure/step.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// A step without a fiber of its own.
template <class Step>
class step_node : public result_state<typename Step::result>, public continuation {
  using R = typename Step::result;

 public:
  explicit step_node(Step&& step) : continuation(&come_due), step_(std::move(step)) { this->release = &release_node; }

  // Calls the function, and returns the exception, if any, that nobody will ask for. The node may be gone then.
  std::exception_ptr execute(due_list& more) noexcept {
    if constexpr (returns_future<Step>) {
      call_for_inner();
      step_.reset();
      if (inner_.valid()) {
        this->run = &inner_come_due;
        if (!future_access::state(inner_)->attach(this)) inner_come_due(this, more);
        return nullptr;
      }
    } else {
      keep_outcome(*this, [this]() -> R { return step_->call(); });
      step_.reset();
    }
    return finish(more);
  }

  // The function will not be called.
  void abandon(due_list& more) noexcept {
    step_.reset();
    this->set_error(broken_promise_error());
    finish(more);
  }

 private:
  struct no_inner {};

  // The inner future, or the error why there is none.
  void call_for_inner() noexcept {
    result_state<void> call;
    keep_outcome(call, [this] {
      inner_ = step_->call();
      future_access::must_have_state(inner_);
    });
    if (!call.has_failed()) return;
    this->is_reported = call.is_reported;
    this->set_error(std::move(call.error));
  }

  static void come_due(continuation* due, due_list& more) noexcept;
  static void inner_come_due(continuation* due, due_list& more) noexcept {
    step_node* self = static_cast<step_node*>(due);
    future<R> inner = std::move(self->inner_);
    self->template pass_from<pass_whole>(inner, more);
  }

  struct pass_whole {
    static void pass(future<R>& from, result_state<R>& out) noexcept {
      if (future_access::state(from)->has_failed())
        pass_error(from, out);
      else
        keep_outcome(out, [&]() -> R { return future_access::take(from); });
    }
  };

  // N3.
  template <class Pass, class Source>
  void pass_from(Source& from, due_list& more) noexcept {
    Pass::pass(from, *this);
    const bool is_error = this->has_failed();
    const bool is_wanted = this->complete(more);
    if (is_error) step_source<Source>::settle(from, is_wanted ? nullptr : &this->error);
    if (!is_wanted) release_node(this);
  }

  std::exception_ptr finish(due_list& more) noexcept {
    if (this->complete(more)) return nullptr;
    std::exception_ptr left = this->is_reported ? std::move(this->error) : nullptr;
    release_node(this);
    return left;
  }

  static void release_node(future_state* state) noexcept {
    step_node* self = static_cast<step_node*>(state);
    self->destroy();
    delete self;
  }

  std::optional<Step> step_;  // until the function was called
  std::conditional_t<returns_future<Step>, future<R>, no_inner> inner_;
};

// The closure of the fiber that calls a node's function; a fiber that never runs breaks the promise.
template <class Node>
class node_runner {
 public:
  explicit node_runner(Node* node) noexcept : node_(node) {}
  node_runner(node_runner&& other) noexcept : node_(std::exchange(other.node_, nullptr)) {}
  node_runner& operator=(node_runner&&) = delete;
  ~node_runner() {
    if (node_ == nullptr) return;
    due_list due;
    node_->abandon(due);
    run_due(due);
  }

  void operator()() && {
    due_list due;
    std::exception_ptr left = std::exchange(node_, nullptr)->execute(due);
    run_due(due);
    if (left != nullptr) rethrow(std::move(left));
  }

 private:
  Node* node_;
};

template <class Step>
void step_node<Step>::come_due(continuation* due, due_list& more) noexcept {
  step_node* self = static_cast<step_node*>(due);
  if (!Step::is_for(step_source<typename Step::source_type>::state(self->step_->source))) {
    auto from = std::move(self->step_->source);
    self->step_.reset();
    self->template pass_from<Step>(from, more);
    return;
  }
  worker* w = this_worker();
  if (w == nullptr) {
    self->execute(more);
    return;
  }
#if CONCUR_EXCEPTIONS
  try {
    spawn(*w->sched, w, node_runner<step_node>(self));
  } catch (...) {
    // No memory for a fiber: the runner that was not kept has broken the promise.
    return;
  }
#else
  spawn(*w->sched, w, node_runner<step_node>(self));
#endif
}

struct unused_block {
  fiber* block;
  ~unused_block() {
    if (block != nullptr) free_fiber(block);
  }
};

// Makes the step, and ties it to its source, which it then holds.
template <class MakeStep>
auto attach_step(future_state& source, MakeStep make_step) {
  using made = decltype(make_step());
  continuation* attached = nullptr;
  result_state<typename made::result>* out = nullptr;
  unused_block host{block_for_continuation()};
  if (host.block != nullptr) {
    fiber_step<made> closure(make_step());
    fiber* f = std::exchange(host.block, nullptr);
    auto* whole = prepare_fiber(f, std::move(closure));
    whole->function().host = f;
    attached = &whole->function();
    out = whole;
  } else {
    auto* node = new step_node<made>(make_step());
    attached = node;
    out = node;
  }
  future<typename made::result> result(out);
  if (!source.attach(attached)) {
    due_list due;
    due.push(attached);
    run_due(due);
  }
  return result;
}

template <class F>
struct callback : continuation {
  explicit callback(F&& function_in) : continuation(&call), function(std::move(function_in)) {}
  explicit callback(const F& function_in) : continuation(&call), function(function_in) {}
  static void call(continuation* due, due_list&) noexcept {
    std::unique_ptr<callback> self(static_cast<callback*>(due));
    std::move(self->function)();
  }
  F function;
};

template <class F>
void attach_callback(future_state& source, F&& f) {
  auto one = std::make_unique<callback<std::decay_t<F>>>(std::forward<F>(f));
  continuation* attached = one.release();
  due_list due;
  if (!source.attach(attached)) due.push(attached);
  run_due(due);
}

}  // namespace detail

template <class R>
template <class F>
auto future<R>::then(F&& f) -> future<detail::then_result<F, R>> {
  using function = std::decay_t<F>;
  using step = std::conditional_t<detail::takes_value<function, R>::value, detail::then_step<future<R>, R, function>,
                                  detail::settled_step<R, function>>;
  detail::future_state* source = detail::future_access::must_have_state(*this);
  return detail::attach_step(*source, [&] { return step{std::forward<F>(f), std::move(*this)}; });
}

template <class R>
template <class F>
future<R> future<R>::or_else(F&& f) {
  using step = detail::or_else_step<R, std::decay_t<F>>;
  detail::future_state* source = detail::future_access::must_have_state(*this);
  return detail::attach_step(*source, [&] { return step{std::forward<F>(f), std::move(*this)}; });
}

template <class R>
template <class F>
void future<R>::on_ready(F&& f) const {
  detail::attach_callback(*detail::future_access::must_have_state(*this), std::forward<F>(f));
}

CONCUR_NAMESPACE_END
#endif
