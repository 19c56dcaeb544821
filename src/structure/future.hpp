// structure/future.hpp - one result, made once, taken once; and where it is kept.
//
// A result is made in one place and wanted in another, and either may come first or never. The state both share is in
// one of three stages, which are the ends of its lock (spin_lock.hpp, K3):
//
//     stage       meaning                        next
//     pending     no result yet                  ready (complete) · dropped (the future went first)
//     ready       value or exception is there    gone with the future
//     dropped     nobody will ask                gone with the completion
//
//   U1  The last of the two sides to let go releases the memory: the future if the result is there, else the
//       completion.
//   U2  A waiter is a note in `waiting`; completing takes all of them off. What was written before completing happens
//       before get().
//   U3  An exception that no get() took is not lost: it goes to the runtime, and run() rethrows the first such.
#ifndef CONCUR_STRUCTURE_FUTURE_HPP
#define CONCUR_STRUCTURE_FUTURE_HPP

#include <exception>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "atomic/spin_lock.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/intrusive.hpp"
#include "base/time.hpp"
#include "runtime/caller.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

[[noreturn]] CONCUR_INLINE void fail_no_state();  // std::future_error, no_state
[[noreturn]] CONCUR_INLINE void rethrow(std::exception_ptr error);

// The part that does not depend on the result's type.
class future_state {
 public:
  future_state() noexcept = default;
  future_state(const future_state&) = delete;
  future_state& operator=(const future_state&) = delete;

  bool is_ready() const noexcept { return lock_.peek() == ready; }

  // Parks until there is a result or the deadline has passed. granted, timed_out or cancelled.
  outcome wait(nanoseconds_t deadline_ns);

  // The result, or error, is in place. False: nobody will ask, and the caller releases the memory (U1).
  bool complete() noexcept;
  // The future goes. False: the result is there, and the caller releases the memory (U1).
  bool drop() noexcept;

  std::exception_ptr error;  // set before complete, instead of a value
  bool is_reported = true;   // whether an error that nobody takes is one (U3)
  void (*release)(future_state*) noexcept =
      nullptr;  // destroys what is in place, hands an untaken error on, frees the memory

 private:
  static constexpr std::uint32_t ready = 2;
  static constexpr std::uint32_t dropped = 3;

  spin_lock lock_;  // not retired: pending
  intrusive_list<waiter> waiting_;
};

// With room for the result. A reference is kept as a pointer.
template <class R>
class result_state : public future_state {
 public:
  using stored = std::conditional_t<std::is_reference<R>::value, std::remove_reference_t<R>*, R>;

  template <class... Args>
  void set(Args&&... args) {
    ::new (static_cast<void*>(room_)) stored(std::forward<Args>(args)...);
    has_value_ = true;
  }
  stored& get() noexcept { return *std::launder(reinterpret_cast<stored*>(room_)); }
  void destroy() noexcept {
    if (has_value_) get().~stored();
    has_value_ = false;
  }

 private:
  alignas(stored) unsigned char room_[sizeof(stored)];
  bool has_value_ = false;
};
template <>
class result_state<void> : public future_state {
 public:
  void set() noexcept {}
  void destroy() noexcept {}
};

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

  // Parks until the result is there. Throws `cancelled`.
  void wait() const { wait_deadline(detail::never); }
  // The same with a limit: false when that passed first.
  template <class Rep, class Period>
  bool wait_for(std::chrono::duration<Rep, Period> d) const {
    return wait_deadline(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  bool wait_until(const std::chrono::time_point<Clock, Duration>& tp) const {
    return wait_deadline(detail::deadline_at(tp));
  }

 private:
  struct releaser {
    void operator()(detail::result_state<R>* state) const noexcept { state->release(state); }
  };

  bool wait_deadline(detail::nanoseconds_t deadline_ns) const {
    if (state_ == nullptr) detail::fail_no_state();
    const detail::outcome result = state_->wait(deadline_ns);
    if (result == detail::outcome::cancelled) detail::fail_cancelled();
    return result == detail::outcome::granted;
  }

  detail::result_state<R>* state_ = nullptr;
};

template <class R>
R future<R>::get() {
  wait();
  std::unique_ptr<detail::result_state<R>, releaser> state(std::exchange(state_, nullptr));
  if (CONCUR_UNLIKELY(state->error != nullptr)) detail::rethrow(std::exchange(state->error, nullptr));
  if constexpr (std::is_reference<R>::value) {
    return static_cast<R>(*state->get());
  } else if constexpr (!std::is_void<R>::value) {
    return std::move(state->get());
  }
}

CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <future>

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE outcome future_state::wait(nanoseconds_t deadline_ns) {
  caller me(checkpoint());
  if (lock_.lock_unless_retired() == ready) return outcome::granted;
  waiter note(me.who(), nullptr);
  waiting_.push_back(&note);
  const outcome result = me.park(&lock_, deadline_ns, wait_reason::future_get);
  if (result != outcome::granted && lock_.lock_unless_retired() == 0) {
    if (intrusive_list<waiter>::is_linked(&note)) waiting_.erase(&note);
    lock_.unlock();
  }
  return result;
}

CONCUR_INLINE bool future_state::complete() noexcept {
  if (lock_.lock_unless_retired() == dropped) return false;
  ended_waits woken;
  if (CONCUR_MUTANT_IS(65)) {
    lock_.retire(ready);
    for (unsigned round = 0; round < 12;) spin_wait(round);
  }
  woken.take_all(waiting_, outcome::granted);
  if (!CONCUR_MUTANT_IS(65)) lock_.retire(ready);  // the last touch: who finds the result may release it now
  woken.resume_all();
  return true;
}

CONCUR_INLINE bool future_state::drop() noexcept {
  if (lock_.lock_unless_retired() == ready) return false;
  lock_.retire(dropped);
  return true;
}

[[noreturn]] CONCUR_INLINE void fail_no_state() {
  raise(std::future_error(std::future_errc::no_state),
        "concur::future: there is no result to wait for: it was taken, or never promised");
}

[[noreturn]] CONCUR_INLINE void rethrow([[maybe_unused]] std::exception_ptr error) {
#  if CONCUR_EXCEPTIONS
  std::rethrow_exception(std::move(error));
#  else
  on_fatal("an exception was to be rethrown, and exceptions are off");
#  endif
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
