// structure/promise.hpp - the maker's end of one result, for results that no single function returns.
//
// What go() does for a function, a promise does for everything else: a callback, a thread, a reply that comes in on
// another connection. It needs no runtime, and works between plain threads.
//
//     stage       meaning                                         next
//     open        nobody has set anything                         satisfied (set_value, set_exception, or the end)
//     satisfied   a result is in place, or about to be            -
//
//   P1  Who changes the stage from open to satisfied, in one step, sets the result and completes; everybody else is too
//       late, and touches neither the state nor the value he brought.
//   P2  Behind that the state belongs to the future's side. The promise keeps that side until get_future() gives it away,
//       and never looks into the state again.
#ifndef CONCUR_STRUCTURE_PROMISE_HPP
#define CONCUR_STRUCTURE_PROMISE_HPP

#include <exception>
#include <memory>
#include <type_traits>
#include <utility>

#include "atomic/word.hpp"
#include "base/config.hpp"
#include "structure/future.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

[[noreturn]] CONCUR_INLINE void fail_promise_empty();          // std::future_error, no_state
[[noreturn]] CONCUR_INLINE void fail_promise_satisfied();      // std::future_error, promise_already_satisfied
[[noreturn]] CONCUR_INLINE void fail_future_retrieved();       // std::future_error, future_already_retrieved
CONCUR_INLINE void must_be_exception(std::exception_ptr& error);  // std::invalid_argument for null

// A result that no fiber makes. An error that nobody takes is dropped: there is no runtime to hand it to.
template <class R>
class promised : public result_state<R> {
 public:
  promised() noexcept { this->release = &release_promised; }

 private:
  static void release_promised(future_state* state) noexcept {
    promised* self = static_cast<promised*>(state);
    self->destroy();
    delete self;
  }
};

// What promises of all types have in common.
template <class R>
class promise_base {
 public:
  promise_base() : state_(new promised<R>()), future_(state_) {}
  promise_base(promise_base&& other) noexcept
      : state_(std::exchange(other.state_, nullptr)),
        future_(std::move(other.future_)),
        has_given_future_(std::exchange(other.has_given_future_, false)),
        is_satisfied_(other.is_satisfied_.exchange(false, std::memory_order_relaxed)) {}  // relaxed: moving is for one
  promise_base& operator=(promise_base&& other) noexcept {
    promise_base taken(std::move(other));
    swap(taken);
    return *this;
  }
  // Breaks the promise if nothing was set: get() throws std::future_error (broken_promise).
  ~promise_base() {
    if (state_ != nullptr && claim() && !CONCUR_MUTANT_IS(145)) fail_with(broken_promise_error());
  }

  void swap(promise_base& other) noexcept {
    std::swap(state_, other.state_);
    std::swap(future_, other.future_);
    std::swap(has_given_future_, other.has_given_future_);
    // relaxed, both: swapping is for one thread.
    const bool theirs = other.is_satisfied_.load(std::memory_order_relaxed);
    other.is_satisfied_.store(is_satisfied_.load(std::memory_order_relaxed), std::memory_order_relaxed);
    is_satisfied_.store(theirs, std::memory_order_relaxed);  // relaxed: as above
  }

  // Where the result will be: once. Throws std::future_error: future_already_retrieved, or no_state if the promise was
  // moved from. May run beside set_value in another thread.
  future<R> get_future() {
    if (state_ == nullptr) fail_promise_empty();
    if (std::exchange(has_given_future_, true)) fail_future_retrieved();
    return std::move(future_);
  }

  // Makes get() throw `error`. If the future was dropped, so is the error. Throws std::invalid_argument for a null
  // pointer, else as set_value. Of no use in a program built without exceptions: get() calls on_fatal there.
  void set_exception(std::exception_ptr error) {
    must_be_exception(error);
    must_claim();
    fail_with(std::move(error));
  }
  // False, and nothing happens, when the promise has a result already.
  bool try_set_exception(std::exception_ptr error) {
    must_be_exception(error);
    if (!try_claim()) return false;
    fail_with(std::move(error));
    return true;
  }

 protected:
  // P1.
  bool claim() noexcept {
    if (CONCUR_MUTANT_IS(146)) {  // looking and taking are two steps
      if (is_satisfied_.load(std::memory_order_relaxed)) return false;  // relaxed: mutant
      is_satisfied_.store(true, std::memory_order_relaxed);             // relaxed: mutant
      return true;
    }
    // relaxed: only who wins; the result itself is published by completing.
    return !is_satisfied_.exchange(true, std::memory_order_relaxed);
  }
  bool try_claim() {
    if (state_ == nullptr) fail_promise_empty();
    return claim();
  }
  void must_claim() {
    if (!try_claim()) fail_promise_satisfied();
  }

  // Behind a claim. What the value's constructor throws leaves the promise open again.
  template <class... Args>
  void set_claimed(Args&&... args) {
#if CONCUR_EXCEPTIONS
    try {
      state_->set(std::forward<Args>(args)...);
    } catch (...) {
      is_satisfied_.store(false, std::memory_order_relaxed);  // relaxed: nothing was written
      throw;
    }
#else
    state_->set(std::forward<Args>(args)...);
#endif
    complete();
  }

 private:
  void fail_with(std::exception_ptr error) noexcept {
    state_->set_error(std::move(error));
    complete();
  }
  void complete() noexcept {
    due_list due;
    if (!state_->complete(due)) state_->release(state_);
    run_due(due);
  }

  promised<R>* state_;
  future<R> future_;  // until get_future() gives it away
  bool has_given_future_ = false;
  atomic<bool> is_satisfied_{false};
};

}  // namespace detail

// One result to be set, by any thread or fiber, with or without a runtime. Move-only. Constructing one allocates once.
// Several may call the set functions at once: one wins, the others get the error. Setting resumes who waits, and runs the
// callbacks of on_ready on the calling thread; it does not park.
//
// set_value throws std::future_error: promise_already_satisfied when there is a result, no_state when the promise was
// moved from; and what the value's own constructor throws, with the promise open as before. try_set_value returns false
// in the first case, and leaves the value it was offered alone. If the future was dropped, the value is destroyed.
template <class R>
class promise : public detail::promise_base<R> {
 public:
  void set_value(const R& value) {
    this->must_claim();
    this->set_claimed(value);
  }
  void set_value(R&& value) {
    this->must_claim();
    this->set_claimed(std::move(value));
  }
  bool try_set_value(const R& value) {
    if (!this->try_claim()) return false;
    this->set_claimed(value);
    return true;
  }
  bool try_set_value(R&& value) {
    if (!this->try_claim()) return false;
    this->set_claimed(std::move(value));
    return true;
  }
};

template <class R>
class promise<R&> : public detail::promise_base<R&> {
 public:
  void set_value(R& target) {
    this->must_claim();
    this->set_claimed(std::addressof(target));
  }
  bool try_set_value(R& target) {
    if (!this->try_claim()) return false;
    this->set_claimed(std::addressof(target));
    return true;
  }
};

template <>
class promise<void> : public detail::promise_base<void> {
 public:
  void set_value() {
    this->must_claim();
    this->set_claimed();
  }
  bool try_set_value() {
    if (!this->try_claim()) return false;
    this->set_claimed();
    return true;
  }
};

template <class R>
void swap(promise<R>& a, promise<R>& b) noexcept {
  a.swap(b);
}

CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <future>

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void fail_promise_empty() {
  raise(std::future_error(std::future_errc::no_state), "concur::promise: it was moved from; use the one it moved to");
}

CONCUR_INLINE void fail_promise_satisfied() {
  raise(std::future_error(std::future_errc::promise_already_satisfied),
        "concur::promise: there is a result already; try_set_value tells without failing");
}

CONCUR_INLINE void fail_future_retrieved() {
  raise(std::future_error(std::future_errc::future_already_retrieved),
        "concur::promise::get_future: there is one future, and it was given out; share() it for several takers");
}

CONCUR_INLINE void must_be_exception([[maybe_unused]] std::exception_ptr& error) {
#  if CONCUR_EXCEPTIONS
  if (error == nullptr)
    fail_argument("concur::promise::set_exception", "error", "null",
                  "pass std::make_exception_ptr(...), or std::current_exception() inside a handler");
#  endif
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
