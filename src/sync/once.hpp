// sync/once.hpp - a function that is to run once, whoever comes first.
//
// The first caller runs its function, the others wait for it; afterwards a call is one load. If the function throws, or
// the fiber that runs it is cancelled, nothing has been done: the next in line runs its own. The state is the queue's lock
// and who runs (retirable_lock.hpp, K3):
//
//     lock       runner    meaning                             next
//     0, 1       null      nothing done, nobody runs           runs, by the first call
//     0, 1       set       it runs; others queue               done · the first in the queue runs · null, nobody queues
//     is_done    -         it was done, for ever
//
//   N1  The runner is handed on under the lock, to a waiter that was claimed: there is never a moment in which somebody
//       queues and nobody runs.
//   N2  Retiring the lock is the last touch of the call that ran the function: a flag may go when any call has returned
//       and no other is under way.
#ifndef CONCUR_SYNC_ONCE_HPP
#define CONCUR_SYNC_ONCE_HPP

#include <tuple>
#include <utility>

#include "atomic/spin_lock.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "runtime/wait_queue.hpp"

CONCUR_NAMESPACE_BEGIN

class once_flag {
 public:
  constexpr once_flag() noexcept = default;
  once_flag(const once_flag&) = delete;
  once_flag& operator=(const once_flag&) = delete;

 private:
  template <class F, class... Args>
  friend void call_once(once_flag& flag, F&& f, Args&&... args);
  template <class F, class... Args>
  friend bool call_once(once_flag& flag, std::error_code& error, F&& f, Args&&... args);

  static constexpr std::uint32_t is_done_now = 2;

  // A call in which the caller's function is to run: unless it was done, the next one's turn comes (N1).
  class turn {
   public:
    explicit turn(once_flag& flag) noexcept : flag_(flag) {}
    ~turn() {
      if (!is_done_) flag_.pass_on();
    }
    turn(const turn&) = delete;
    turn& operator=(const turn&) = delete;
    void end() noexcept {
      is_done_ = true;
      flag_.finish();
    }

   private:
    once_flag& flag_;
    bool is_done_ = false;
  };

  bool is_done() const noexcept { return waiting_.lock.peek() == is_done_now; }
  // granted: it was done. retry: the caller runs its function. Or cancelled. From the caller's checkpoint on.
  detail::outcome begin(detail::worker* w);
  template <class F, class... Args>
  void run(F&& f, Args&&... args) {
    turn mine(*this);
    std::apply(std::forward<F>(f), std::forward_as_tuple(std::forward<Args>(args)...));
    mine.end();
  }
  void finish() noexcept;
  void pass_on() noexcept;

  const void* runner_ = nullptr;  // the fiber's block, or something that is the thread's own; under the lock
  detail::wait_queue waiting_;
};

// Runs f(args...) unless a call with this flag has already returned from its function; waits for one that is under way.
// What the function throws passes through, and leaves the flag unset. Throws `cancelled`, if it is not done yet, and
// std::logic_error when the caller's own function, on this fiber or thread, is what it would wait for. The end of the
// function that was done happens before the return of every call. A call that finds it done is one load, and no checkpoint.
template <class F, class... Args>
void call_once(once_flag& flag, F&& f, Args&&... args) {
  if (CONCUR_LIKELY(flag.is_done())) return;
  const detail::outcome result = detail::perform([&](detail::worker* w) { return flag.begin(w); });
  if (result == detail::outcome::retry) flag.run(std::forward<F>(f), std::forward<Args>(args)...);
}
// The same, but a cancellation is said in the code. False then: nothing was called, and it is not known to be done. The
// code stands before the function, whose arguments come last, and is set before that is called.
template <class F, class... Args>
bool call_once(once_flag& flag, std::error_code& error, F&& f, Args&&... args) {
  error.clear();
  if (CONCUR_LIKELY(flag.is_done())) return true;
  const detail::outcome result = detail::perform([&](detail::worker* w) { return flag.begin(w); }, error);
  if (result == detail::outcome::retry) flag.run(std::forward<F>(f), std::forward<Args>(args)...);
  return result != detail::outcome::cancelled;
}

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE detail::outcome once_flag::begin(detail::worker* w) {
  detail::caller me(w);
  const void* self = w != nullptr ? static_cast<const void*>(w->current) : detail::thread_identity();
  if (waiting_.lock.lock_unless_retired() != 0) return detail::outcome::granted;
  if (runner_ == nullptr) {
    runner_ = self;
    waiting_.lock.unlock();
    return detail::outcome::retry;
  }
  if (runner_ == self && !CONCUR_MUTANT_IS(128)) {
    waiting_.lock.unlock();
    detail::fail_logic("concur::call_once: the function calls call_once with its own flag, and would wait for itself");
  }
  return waiting_.wait(me, const_cast<void*>(self), detail::never, detail::wait_reason::once_wait);
}

CONCUR_INLINE void once_flag::finish() noexcept {
  detail::ended_waits woken;
  waiting_.lock.lock();
  woken.take_all(waiting_.parties, detail::outcome::granted);
  waiting_.lock.retire(is_done_now);  // N2
  woken.resume_all();
}

CONCUR_INLINE void once_flag::pass_on() noexcept {
  detail::party* heir = nullptr;
  {
    detail::lock_scope<spin_lock> held(waiting_.lock);
    runner_ = nullptr;
    detail::waiter* note = CONCUR_MUTANT_IS(127) ? nullptr : detail::pop_claimed(waiting_.parties);
    if (note != nullptr) {
      heir = note->who;
      heir->result = detail::outcome::retry;
      runner_ = CONCUR_MUTANT_IS(138) ? nullptr : note->value;
    }
  }
  if (heir != nullptr) detail::resume(heir);
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
