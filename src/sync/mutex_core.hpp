// sync/mutex_core.hpp - what mutex, timed_mutex and recursive_mutex have in common: one word, and a queue.
//
// One word says whether the mutex is held and whether somebody waits, so that an uncontended lock or unlock is one
// compare-exchange. The queue of waiters has a small lock of its own and is touched only when there is contention.
//
//     word    meaning                         next, by
//     0       free, nobody waits              1 lock
//     1       held, nobody waits              0 unlock · 3 a waiter queues
//     3       held, somebody waits            1 unlock took the last waiter off · 2 unlock, which woke the first
//                                             3, 1 unlock, which hands over (M3)
//     2       free, and one was just woken    3 lock, by the woken one or by who came first
//
//   M1  `waiting` is set and cleared under the queue's lock, and set whenever the queue is not empty.
//   M2  A woken waiter competes with whoever runs: the lock may be taken before it gets there (barging). That keeps
//       the mutex from being held by a fiber that is not running yet.
//   M3  A waiter that has been passed over for 1 ms is handed the mutex directly at the next unlock: nobody starves.
//       (The rule, and the millisecond, are those of Go's sync.Mutex.)
//   M4  `owner_` names the holder; only the holder writes it. Unlocking by anybody else is reported.
//   M5  The step that makes the word free is the last that an unlock does to the mutex: who takes it next may destroy
//       it. An unlock that wakes nobody therefore looks for waiters again when that step fails.
//   M6  A waiter that was woken, and whose deadline has passed, leaves only when somebody holds the mutex; that holder's
//       unlock wakes the next one.
#ifndef CONCUR_SYNC_MUTEX_CORE_HPP
#define CONCUR_SYNC_MUTEX_CORE_HPP

#include "atomic/cas.hpp"
#include "atomic/spin_lock.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/intrusive.hpp"
#include "base/time.hpp"
#include "runtime/caller.hpp"
#include "runtime/forms.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Who makes the call: the fiber, or the thread, by the address of something that is its own.
inline const void* identity_of(worker* w) noexcept {
  if (CONCUR_LIKELY(w != nullptr && w->current != nullptr)) return w->current;
  return thread_identity();
}

// `name`, in what follows, is the public type's, for messages.
class mutex_core {
 public:
  constexpr mutex_core() noexcept = default;
  mutex_core(const mutex_core&) = delete;
  mutex_core& operator=(const mutex_core&) = delete;

  // Takes the mutex if it is free and nobody waits; with one compare-exchange.
  CONCUR_FORCE_INLINE bool take(const void* self) noexcept {
    std::uint32_t expected = 0;
    // acquire: pairs with unlock. relaxed on failure: the slow path looks again.
    if (CONCUR_UNLIKELY(
            !word_.compare_exchange_strong(expected, held, std::memory_order_acquire, std::memory_order_relaxed)))
      return false;
    set_owner(self);
    return true;
  }

  // Takes the mutex if it is free.
  bool try_take(const void* self) noexcept {
    const auto unless_held = [](std::uint32_t word) {
      return (word & held) == 0 ? std::optional<std::uint32_t>(word | held) : std::nullopt;
    };
    if (!cas_update(word_, unless_held, std::memory_order_acquire)) return false;  // acquire: pairs with unlock
    set_owner(self);
    return true;
  }

  bool is_held_by(const void* self) const noexcept {
    return owner_.load(std::memory_order_relaxed) == self;  // relaxed: a holder sees its own write (M4)
  }

  // Takes the mutex, or waits for it. False: the deadline passed, or the caller was cancelled. Throws as mutex::lock does.
  template <class... Code>
  CONCUR_FORCE_INLINE bool lock(nanoseconds_t deadline_ns, const char* name, Code&... code) {
    const auto lock_from = [&](worker* w) {
      return CONCUR_LIKELY(take(identity_of(w))) ? outcome::granted : lock_slow(deadline_ns, name);
    };
    return perform(lock_from, code...) == outcome::granted;
  }
  // The same, after the checkpoint. granted, timed_out or cancelled.
  outcome lock_slow(nanoseconds_t deadline_ns, const char* name);

  CONCUR_FORCE_INLINE void unlock(const char* name) {
    if (CONCUR_UNLIKELY(!is_held_by(identity_of(this_worker()))) && !CONCUR_MUTANT_IS(68)) fail_stranger(name);
    set_owner(nullptr);
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(112) ? std::memory_order_relaxed : std::memory_order_release;
    std::uint32_t expected = held;
    // release: publishes what was done under the mutex. relaxed on failure: somebody waits, and the slow path takes a
    // lock.
    if (CONCUR_LIKELY(word_.compare_exchange_strong(expected, 0, order, std::memory_order_relaxed))) return;
    unlock_slow();
  }

 private:
  static constexpr std::uint32_t held = 1;
  static constexpr std::uint32_t waiting = 2;

  void set_owner(const void* who) noexcept {
    owner_.store(who, std::memory_order_relaxed);  // relaxed: compared by the holder with itself only (M4)
  }
  bool announce_waiting() noexcept;
  void leave_queue(waiter& note) noexcept;
  void unlock_slow() noexcept;
  [[noreturn]] static void fail_stranger(const char* name);

  atomic<std::uint32_t> word_{0};
  spin_lock queue_lock_;
  atomic<const void*> owner_{nullptr};
  intrusive_list<waiter> queue_;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void mutex_core::fail_stranger(const char* name) {
  fail_logic(std::string("concur::") + name +
             "::unlock: the caller does not hold this mutex; unlock it where it was locked, on the same fiber");
}

// Under the queue's lock: from here on an unlock comes to the queue (M1). False: the mutex is free, look again.
CONCUR_INLINE bool mutex_core::announce_waiting() noexcept {
  // relaxed, here and below: the exchange in try_take, or the queue's lock, orders it.
  if ((word_.fetch_or(waiting, std::memory_order_relaxed) & held) != 0 || CONCUR_MUTANT_IS(101)) return true;
  if (queue_.is_empty()) word_.fetch_and(~waiting, std::memory_order_relaxed);  // relaxed: see above
  return false;
}

CONCUR_INLINE void mutex_core::leave_queue(waiter& note) noexcept {
  lock_scope<spin_lock> in(queue_lock_);
  if (intrusive_list<waiter>::is_linked(&note)) queue_.erase(&note);
  if (queue_.is_empty()) word_.fetch_and(~waiting, std::memory_order_relaxed);  // relaxed: under the queue's lock (M1)
}

CONCUR_INLINE outcome mutex_core::lock_slow(nanoseconds_t deadline_ns, const char* name) {
  constexpr nanoseconds_t patience_ns = 1'000'000;
  caller me(this_worker());
  const void* const self = identity_of(this_worker());
  if (is_held_by(self)) {
    fail_logic(std::string("concur::") + name +
               "::lock: the caller holds this mutex already, and would wait for itself; unlock it first");
  }
  nanoseconds_t since = 0;
  bool wants_handover = false;
  for (;;) {
    const bool gives_up = CONCUR_MUTANT_IS(282) && since != 0 && deadline_ns <= now_ns();
    if (!gives_up && try_take(self)) return outcome::granted;
    if (deadline_ns != never && deadline_ns <= now_ns()) return outcome::timed_out;  // M6
    queue_lock_.lock();
    if (!announce_waiting()) {
      queue_lock_.unlock();
      continue;
    }
    waiter note(me.who(), &wants_handover);
    if (since == 0)
      queue_.push_back(&note);
    else
      queue_.push_front(&note);
    const outcome result = me.park(&queue_lock_, deadline_ns, wait_reason::mutex_lock);
    if (result == outcome::granted) {  // handed over: it is ours already (M3)
      set_owner(self);
      return result;
    }
    if (result != outcome::retry) {
      leave_queue(note);
      return result;
    }
    const nanoseconds_t now = now_ns();
    if (since == 0)
      since = now;
    else if (now - since >= patience_ns)
      wants_handover = !CONCUR_MUTANT_IS(67);
  }
}

CONCUR_INLINE void mutex_core::unlock_slow() noexcept {
  for (;;) {
    party* next = nullptr;
    bool is_handover = false;
    {
      lock_scope<spin_lock> in(queue_lock_);
      if (waiter* note = pop_claimed(queue_)) {
        next = note->who;
        is_handover = *static_cast<bool*>(note->value);
        next->result = is_handover ? outcome::granted : outcome::retry;
      }
      if (queue_.is_empty()) word_.fetch_and(~waiting, std::memory_order_relaxed);  // relaxed: as in leave_queue
    }
    if (is_handover) return resume(next);  // the resume publishes what was done under the mutex
    if (next != nullptr) {
      word_.fetch_and(~held, std::memory_order_release);  // release: as in unlock; M5
      return resume(next);
    }
    if (CONCUR_MUTANT_IS(281)) {
      word_.fetch_and(~held, std::memory_order_release);  // release: mutant
      return;
    }
    std::uint32_t expected = held;
    // release: as in unlock. relaxed on failure: somebody has queued since (M5).
    if (word_.compare_exchange_strong(expected, 0, std::memory_order_release, std::memory_order_relaxed)) return;
  }
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
