// structure/future_state.hpp - where one result is kept between the two that share it, and who hears of it.
//
// A result is made in one place and wanted in another, and either may come first or never. The state both share is in
// one of three stages, which are the ends of its lock (retirable_lock.hpp, K3):
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
//   U4  A continuation is told exactly once, whatever becomes of the future: by who completes, after the result can be
//       had, on that thread; or it is not attached, because the result is there already.
//   U5  Continuations that complete further states hand on what comes due there instead of calling it: a chain of any
//       length is worked off in a loop, not in a recursion.
#ifndef CONCUR_STRUCTURE_FUTURE_STATE_HPP
#define CONCUR_STRUCTURE_FUTURE_STATE_HPP

#include <exception>
#include <memory>
#include <new>
#include <system_error>
#include <type_traits>
#include <utility>

#include "atomic/retirable_lock.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/intrusive.hpp"
#include "base/time.hpp"
#include "runtime/caller.hpp"
#include "runtime/forms.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

[[noreturn]] CONCUR_INLINE void fail_no_state();  // std::future_error, no_state
[[noreturn]] CONCUR_INLINE void rethrow(std::exception_ptr error);
CONCUR_INLINE std::exception_ptr broken_promise_error() noexcept;  // std::future_error, broken_promise

// What is to be done when a result is there. It owns itself: `run` frees it, or makes it part of something else.
struct continuation {
  using due_list = intrusive_queue<continuation>;
  using run_function = void (*)(continuation* self, due_list& more) noexcept;

  explicit continuation(run_function run_in) noexcept : run(run_in) {}

  continuation* next = nullptr;
  run_function run;  // what comes due by it goes to `more` (U5)
};
using due_list = continuation::due_list;

// Runs what is in there, and what comes due by that.
CONCUR_INLINE void run_due(due_list& due) noexcept;

// The part that does not depend on the result's type.
class future_state {
 public:
  future_state() noexcept = default;
  future_state(const future_state&) = delete;
  future_state& operator=(const future_state&) = delete;

  bool is_ready() const noexcept { return lock_.peek() == ready; }
  // Once ready: whether there is no value.
  bool has_failed() const noexcept {
#if CONCUR_EXCEPTIONS
    return error != nullptr;
#else
    return is_broken;
#endif
  }

  // Parks until there is a result or the deadline has passed: granted, timed_out or cancelled; without a code `cancelled` is
  // thrown. A deadline that has passed already only looks. The checkpoint is in here, so that get() is small enough to be
  // inlined: each frame between a switch and its caller costs a return that is predicted wrong. Waiting is apart, and jumped
  // to: who finds the result, as most do who spawn many, saves no registers and takes no lock.
  outcome wait(nanoseconds_t deadline_ns);
  outcome wait(nanoseconds_t deadline_ns, std::error_code& told);

  // The result, or error, is in place. What comes due by that is put behind what is in `due`. False: nobody will ask,
  // and the caller releases the memory (U1). w: the calling thread's worker, or null.
  bool complete(due_list& due, worker* w = nullptr) noexcept;
  // The future goes. False: the result is there, and the caller releases the memory (U1).
  bool drop() noexcept;

  // U4. False: the result is there already, and the caller runs it. By the future's side only.
  bool attach(continuation* wanted) noexcept;
  // Takes it off again. False: whoever completes has it, and runs it. By the future's side only.
  bool detach(continuation* unwanted) noexcept;

  // For a select, which keeps its own note (future_case.hpp).
  retirable_lock& lock_of_waiting() noexcept { return lock_; }
  intrusive_list<waiter>& waiting() noexcept { return waiting_; }

  // There will be no value.
  void set_error(std::exception_ptr error_in) noexcept {
    error = std::move(error_in);
    is_broken = true;
  }

  std::exception_ptr error;  // set before complete, instead of a value
  void (*release)(future_state*) noexcept =
      nullptr;  // destroys what is in place, hands an untaken error on, frees the memory

 private:
  static constexpr std::uint32_t ready = 2;
  static constexpr std::uint32_t dropped = 3;

  outcome wait_from(worker* w, nanoseconds_t deadline_ns) noexcept;
  outcome wait_pending(worker* w, nanoseconds_t deadline_ns);
  void complete_many(waiter* first, due_list& due) noexcept;
  void take_continuations(due_list& due) noexcept;

  intrusive_list<waiter> waiting_;
  continuation* newest_ = nullptr;  // under lock_, as waiting_
  retirable_lock lock_;                  // not retired: pending

 public:
  bool is_reported = true;  // whether an error that nobody takes is one (U3)
  bool is_broken = false;   // what set_error leaves behind where exceptions are off, and no error can be held
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
  bool has_value_ = false;  // first: it lies in the base's last word then
  alignas(stored) unsigned char room_[sizeof(stored)];
};
template <>
class result_state<void> : public future_state {
 public:
  void set() noexcept {}
  void destroy() noexcept {}
};

// Calls `make`, and keeps what it returns or throws.
template <class R, class F>
void keep_outcome(result_state<R>& out, F&& make) noexcept {
  const auto keep = [&] {
    if constexpr (std::is_void<R>::value) {
      make();
    } else if constexpr (std::is_reference<R>::value) {
      R&& result = make();
      out.set(std::addressof(result));
    } else {
      out.set(make());
    }
  };
#if CONCUR_EXCEPTIONS
  try {
    keep();
  } catch (const cancelled&) {
    out.set_error(std::current_exception());
    out.is_reported = false;
  } catch (...) {
    out.set_error(std::current_exception());
  }
#else
  keep();
#endif
}

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <future>

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void run_due(due_list& due) noexcept {
  while (continuation* one = due.pop()) one->run(one, due);
}

CONCUR_FORCE_INLINE outcome future_state::wait_from(worker* w, nanoseconds_t deadline_ns) noexcept {
  caller me(w);
  if (lock_.lock_unless_retired() == ready) return outcome::granted;
  if (deadline_ns != never && deadline_ns <= now_ns() && !CONCUR_MUTANT_IS(149)) {
    lock_.unlock();
    return outcome::timed_out;
  }
  waiter note(me.who(), nullptr);
  waiting_.push_back(&note);
  const outcome result = me.park(&lock_, deadline_ns, wait_reason::future_get);
  if (result != outcome::granted && !CONCUR_MUTANT_IS(296) && lock_.lock_unless_retired() == 0) {
    if (intrusive_list<waiter>::is_linked(&note)) waiting_.erase(&note);
    lock_.unlock();
  }
  return result;
}

CONCUR_NOINLINE CONCUR_INLINE outcome future_state::wait_pending(worker* w, nanoseconds_t deadline_ns) {
  return or_throw(wait_from(w, deadline_ns));
}
CONCUR_INLINE outcome future_state::wait(nanoseconds_t deadline_ns) {
  worker* const w = checkpoint();
  return is_ready() ? outcome::granted : wait_pending(w, deadline_ns);
}
CONCUR_INLINE outcome future_state::wait(nanoseconds_t deadline_ns, std::error_code& told) {
  return perform([&](worker* w) CONCUR_ALWAYS_INLINED { return wait_from(w, deadline_ns); }, told);
}

// Mostly one waits, or nobody.
CONCUR_INLINE bool future_state::complete(due_list& due, worker* w) noexcept {
  if (CONCUR_UNLIKELY(lock_.lock_unless_retired() == dropped)) {
    if (CONCUR_UNLIKELY(newest_ != nullptr) && !CONCUR_MUTANT_IS(141)) take_continuations(due);
    return false;
  }
  if (CONCUR_MUTANT_IS(65)) {
    lock_.retire(ready);
    for (unsigned round = 0; round < 12;) spin_wait(round);
  }
  waiter* const note = pop_claimed(waiting_);
  if (CONCUR_UNLIKELY(!waiting_.is_empty() || newest_ != nullptr)) {
    complete_many(note, due);
    return true;
  }
  party* const who = note != nullptr ? note->who : nullptr;
  if (who != nullptr) who->result = outcome::granted;
  if (!CONCUR_MUTANT_IS(65)) lock_.retire(ready);  // the last touch: who finds the result may release it now
  if (who != nullptr) resume_near(w, who);
  return true;
}

// Under the lock.
CONCUR_NOINLINE CONCUR_INLINE void future_state::complete_many(waiter* first, due_list& due) noexcept {
  ended_waits woken;
  if (first != nullptr) woken.add(first, outcome::granted);
  woken.take_all(waiting_, outcome::granted);
  if (newest_ != nullptr) take_continuations(due);
  if (!CONCUR_MUTANT_IS(65)) lock_.retire(ready);  // as above
  woken.resume_all();
}

// In the order in which they were attached. Under the lock, or when the future is gone.
CONCUR_NOINLINE CONCUR_INLINE void future_state::take_continuations(due_list& due) noexcept {
  continuation* oldest_first = nullptr;
  while (newest_ != nullptr) {
    continuation* one = std::exchange(newest_, newest_->next);
    one->next = std::exchange(oldest_first, one);
  }
  while (oldest_first != nullptr) {
    continuation* one = std::exchange(oldest_first, oldest_first->next);
    due.push(one);
  }
}

CONCUR_INLINE bool future_state::drop() noexcept {
  if (lock_.lock_unless_retired() == ready) return false;
  lock_.retire(dropped);
  return true;
}

CONCUR_INLINE bool future_state::attach(continuation* wanted) noexcept {
  if (lock_.lock_unless_retired() == ready) return CONCUR_MUTANT_IS(142);
  wanted->next = std::exchange(newest_, wanted);
  lock_.unlock();
  return true;
}

CONCUR_INLINE bool future_state::detach(continuation* unwanted) noexcept {
  if (lock_.lock_unless_retired() == ready) return false;
  continuation** link = &newest_;
  while (*link != nullptr && *link != unwanted) link = &(*link)->next;
  const bool is_found = *link != nullptr;
  if (is_found) *link = unwanted->next;
  lock_.unlock();
  return is_found;
}

[[noreturn]] CONCUR_INLINE void fail_no_state() {
  raise(std::future_error(std::future_errc::no_state),
        "concur::future: there is no result to wait for: it was taken, or never promised");
}

CONCUR_INLINE std::exception_ptr broken_promise_error() noexcept {
  return std::make_exception_ptr(std::future_error(std::future_errc::broken_promise));
}

[[noreturn]] CONCUR_INLINE void rethrow([[maybe_unused]] std::exception_ptr error) {
#  if CONCUR_EXCEPTIONS
  std::rethrow_exception(std::move(error));
#  else
  on_fatal("an exception was to be rethrown, or a promise was broken, and exceptions are off");
#  endif
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
