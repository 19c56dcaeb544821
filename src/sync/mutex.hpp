// sync/mutex.hpp - mutual exclusion for fibers and threads alike; waiting parks the fiber and leaves the worker to
// others.
//
// One word says whether the mutex is held and whether somebody waits, so that an uncontended lock or unlock is one
// compare-exchange. The queue of waiters has a small lock of its own and is touched only when there is contention.
//
//     word    meaning                         next, by
//     0       free, nobody waits              1 lock
//     1       held, nobody waits              0 unlock · 3 a waiter queues
//     3       held, somebody waits            2 unlock, which wakes the first · 3 unlock, which hands over (M3)
//     2       free, and one was just woken    3 lock, by the woken one or by who came first
//
//   M1  `waiting` is set and cleared under the queue's lock, and set whenever the queue is not empty.
//   M2  A woken waiter competes with whoever runs: the lock may be taken before it gets there (barging). That keeps
//       the mutex from being held by a fiber that is not running yet.
//   M3  A waiter that has been passed over for 1 ms is handed the mutex directly at the next unlock: nobody starves.
//       (The rule, and the millisecond, are those of Go's sync.Mutex.)
//   M4  `owner_` names the holder; only the holder writes it. Unlocking by anybody else is reported.
#ifndef CONCUR_SYNC_MUTEX_HPP
#define CONCUR_SYNC_MUTEX_HPP

#include <atomic>

#include "atomic/spin_lock.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/intrusive.hpp"
#include "runtime/caller.hpp"

CONCUR_NAMESPACE_BEGIN

// Not recursive. Works with std::lock_guard, std::unique_lock and std::scoped_lock. An unlock happens before the next
// lock.
class mutex {
 public:
  constexpr mutex() noexcept = default;
  mutex(const mutex&) = delete;
  mutex& operator=(const mutex&) = delete;

  // Waits until the mutex is free, and takes it. Throws `cancelled` without taking it, std::logic_error when the
  // caller holds it.
  void lock() {
    detail::worker* w = detail::checkpoint();
    std::uint32_t expected = 0;
    // acquire: pairs with unlock. relaxed on failure: the slow path looks again.
    if (CONCUR_LIKELY(
            word_.compare_exchange_strong(expected, held, std::memory_order_acquire, std::memory_order_relaxed))) {
      set_owner(identity(w));
      return;
    }
    lock_slow();
  }

  // Takes the mutex if that needs no waiting.
  bool try_lock() noexcept {
    std::uint32_t word = word_.load(std::memory_order_relaxed);  // relaxed: the exchange decides
    while ((word & held) == 0) {
      // acquire: pairs with unlock.
      if (word_.compare_exchange_weak(word, word | held, std::memory_order_acquire, std::memory_order_relaxed)) {
        set_owner(identity(detail::this_worker()));
        return true;
      }
    }
    return false;
  }

  // Throws std::logic_error when the caller does not hold the mutex, and changes nothing then.
  void unlock() {
    // relaxed: only the holder finds itself here, and it wrote the value.
    if (CONCUR_UNLIKELY(owner_.load(std::memory_order_relaxed) != identity(detail::this_worker())) &&
        !CONCUR_MUTANT_IS(68))
      fail_stranger();
    set_owner(nullptr);
    std::uint32_t expected = held;
    // release: publishes what was done under the mutex. relaxed on failure: somebody waits, and the slow path takes a
    // lock.
    if (CONCUR_LIKELY(word_.compare_exchange_strong(expected, 0, std::memory_order_release, std::memory_order_relaxed)))
      return;
    unlock_slow();
  }

 private:
  static constexpr std::uint32_t held = 1;
  static constexpr std::uint32_t waiting = 2;

  // Who holds: the fiber, or the thread, by the address of something that is its own.
  static const void* identity(detail::worker* w) noexcept {
    if (CONCUR_LIKELY(w != nullptr && w->current != nullptr)) return w->current;
    return detail::this_worker_cell();
  }
  void set_owner(const void* who) noexcept {
    owner_.store(who, std::memory_order_relaxed);  // relaxed: compared by the holder with itself only (M4)
  }
  void lock_slow();
  void unlock_slow() noexcept;
  [[noreturn]] static void fail_stranger();

  std::atomic<std::uint32_t> word_{0};
  detail::spin_lock queue_lock_;
  std::atomic<const void*> owner_{nullptr};
  detail::intrusive_list<detail::waiter> queue_;
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE void mutex::fail_stranger() {
  detail::fail_logic(
      "concur::mutex::unlock: the caller does not hold this mutex; unlock it where it was locked, on the same fiber");
}

CONCUR_INLINE void mutex::lock_slow() {
  constexpr detail::nanoseconds_t patience_ns = 1'000'000;
  detail::caller me(detail::this_worker());
  const void* const self = identity(detail::this_worker());
  // relaxed: a holder sees its own write, and nobody else's value is equal to it.
  if (owner_.load(std::memory_order_relaxed) == self)
    detail::fail_logic("concur::mutex::lock: the caller holds this mutex already, and would wait for itself for ever");
  detail::nanoseconds_t since = 0;
  bool wants_handover = false;
  for (;;) {
    if (try_lock()) return;
    queue_lock_.lock();
    // M1: from here on an unlock comes to the queue. relaxed: the exchange in try_lock, or the queue's lock, orders it.
    if ((word_.fetch_or(waiting, std::memory_order_relaxed) & held) == 0) {
      if (queue_.is_empty()) word_.fetch_and(~waiting, std::memory_order_relaxed);  // relaxed: as above
      queue_lock_.unlock();
      continue;
    }
    detail::waiter note(me.who(), &wants_handover);
    if (since == 0)
      queue_.push_back(&note);
    else
      queue_.push_front(&note);
    const detail::outcome result = me.park(&queue_lock_, detail::never, detail::wait_reason::mutex_lock);
    if (result == detail::outcome::granted) {  // handed over: it is ours already (M3)
      set_owner(identity(detail::this_worker()));
      return;
    }
    if (result == detail::outcome::cancelled) {
      {
        detail::lock_scope<detail::spin_lock> in(queue_lock_);
        if (detail::intrusive_list<detail::waiter>::is_linked(&note)) queue_.erase(&note);
        if (queue_.is_empty())
          word_.fetch_and(~waiting, std::memory_order_relaxed);  // relaxed: under the queue's lock (M1)
      }
      detail::fail_cancelled();
    }
    const detail::nanoseconds_t now = detail::seam_now();
    if (since == 0)
      since = now;
    else if (now - since >= patience_ns)
      wants_handover = !CONCUR_MUTANT_IS(67);
  }
}

CONCUR_INLINE void mutex::unlock_slow() noexcept {
  detail::party* next = nullptr;
  {
    detail::lock_scope<detail::spin_lock> in(queue_lock_);
    bool is_handover = false;
    if (detail::waiter* note = detail::pop_claimed(queue_)) {
      next = note->who;
      is_handover = *static_cast<bool*>(note->value);
      next->result = is_handover ? detail::outcome::granted : detail::outcome::retry;
    }
    const std::uint32_t rest = queue_.is_empty() ? 0 : waiting;
    // release: publishes what was done under the mutex, to the heir or to whoever comes first.
    word_.store(is_handover ? held | rest : rest, std::memory_order_release);
  }
  if (next != nullptr) detail::resume(next);
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
