// sync/mutex_core.hpp - what mutex, timed_mutex and recursive_mutex have in common: one word, and a queue.
//
// One word says whether the mutex is held and whether somebody waits. The queue of waiters has a small lock of its own and is
// touched only when there is contention.
//
//     bit         meaning                    set by, under                      cleared by
//     held        somebody has the mutex     lock, by compare-exchange          unlock; kept at a hand-over (M3)
//     waiting     the queue is not empty     who queues, the queue's lock       who takes the last off, the same lock
//     woken       one competes (M7)          the unlock that woke it            itself
//     the rest    how many unlocks are to    who queues                         one less with each unlock
//                 be careful (M8)
//
//   M1  `waiting` is set and cleared under the queue's lock, and set whenever the queue is not empty.
//   M2  A woken waiter competes with whoever runs: the lock may be taken before it gets there (barging). That keeps
//       the mutex from being held by a fiber that is not running yet.
//   M3  A waiter that has been passed over for 1 ms is handed the mutex directly at the next unlock: nobody starves.
//       (The rule, and the millisecond, are those of Go's sync.Mutex.)
//   M4  `owner_` names the holder; only the holder writes it. Unlocking by anybody else is reported. Null while a lock or an
//       unlock is under way (M8); the mutex's own address in an unlock that is careful.
//   M5  The step that makes the word free is the last that an unlock does to the mutex: who takes it next may destroy
//       it. An unlock that wakes nobody therefore looks for waiters again when that step fails.
//   M6  A waiter that was woken, and whose deadline has passed, leaves only when somebody holds the mutex; that holder's
//       unlock wakes the next one.
//   M7  Until a woken waiter has taken the mutex, queued again or left, unlocks wake nobody else. Else a holder that comes
//       again and again wakes one waiter after the other, of whom all but one wait in vain: from 30 to 100 ns a lock.
//   M8  An unlock that sees the word `held` and no more frees it by a plain store, on a worker: a read-modify-write less,
//       half of what an uncontended lock and unlock cost. A waiter that announced itself between that look and that store
//       would be forgotten. So who queues first makes the next unlocks careful; and if they were not so already, it makes
//       every thread pass a fence (fence.hpp) and waits until no unlock is under way, which `owner_` says:
//
//           unlock                            who queues
//           owner_ = null                     word: held -> held, waiting, careful
//           light_fence                       heavy_fence
//           word is `held`, and no more ?     wait while owner_ is null and the word has `waiting`
//             yes: word = 0                   the word has `waiting` still ? else look again
//
#ifndef CONCUR_SYNC_MUTEX_CORE_HPP
#define CONCUR_SYNC_MUTEX_CORE_HPP

#include "atomic/backoff.hpp"
#include "atomic/cas.hpp"
#include "atomic/spin_lock.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/intrusive.hpp"
#include "base/time.hpp"
#include "machine/fence.hpp"
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

  // Takes the mutex if it is free, with one compare-exchange; false also when somebody came between.
  CONCUR_FORCE_INLINE bool take(const void* self) noexcept {
    std::uint32_t seen = word_.load(std::memory_order_relaxed);  // relaxed: the exchange decides
    // acquire: pairs with unlock. relaxed on failure: the slow path looks again.
    if (CONCUR_UNLIKELY((seen & held) != 0) ||
        CONCUR_UNLIKELY(
            !word_.compare_exchange_strong(seen, seen | held, std::memory_order_acquire, std::memory_order_relaxed)))
      return false;
    set_owner(self);
    return true;
  }

  // Takes the mutex if it is free. A woken waiter then no longer competes (M7).
  bool try_take(const void* self, bool is_woken = false) noexcept {
    const std::uint32_t over = is_woken ? woken : 0;
    const auto unless_held = [over](std::uint32_t word) {
      return (word & held) == 0 ? std::optional<std::uint32_t>((word | held) & ~over) : std::nullopt;
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
    worker* const w = this_worker();
    if (CONCUR_UNLIKELY(!is_held_by(identity_of(w))) && !CONCUR_MUTANT_IS(68)) fail_stranger(name);
    owner_.store(nullptr, std::memory_order_relaxed);  // relaxed: the fence orders it
    light_fence();
    // relaxed: behind the fence.
    if (CONCUR_LIKELY(w != nullptr && word_.load(std::memory_order_relaxed) == held)) {
      CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(112) ? std::memory_order_relaxed : std::memory_order_release;
      word_.store(0, order);  // release: publishes what was done under the mutex
      return;
    }
    unlock_carefully();
  }

 private:
  static constexpr std::uint32_t held = 1;
  static constexpr std::uint32_t waiting = 2;
  static constexpr std::uint32_t woken = 4;
  static constexpr std::uint32_t careful_once = 8;
#if defined(CONCUR_EXPLORE)
  static constexpr std::uint32_t careful = careful_once;  // few, so that they end
#else
  static constexpr std::uint32_t careful = 1024 * careful_once;  // their exchanges cost about as much as the heavy fence
#endif

  void set_owner(const void* who) noexcept {
    // release: who queues and reads it must see the word as it was then, or a later one (M8).
    owner_.store(who, std::memory_order_release);
  }
  bool announce_waiting(bool is_woken) noexcept;
  bool retire_woken() noexcept;
  void leave_queue(waiter& note) noexcept;
  void unlock_carefully() noexcept;
  bool wake_first() noexcept;
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

// Under the queue's lock: from here on an unlock comes to the queue (M1, M8). False: the mutex is free, look again.
CONCUR_INLINE bool mutex_core::announce_waiting(bool is_woken) noexcept {
  const std::uint32_t over = is_woken && !CONCUR_MUTANT_IS(427) ? woken : 0;
  const auto if_held = [over](std::uint32_t word) {
    const std::uint32_t wanted = (word & (held | waiting | woken) & ~over) | waiting | careful;
    return (word & held) != 0 || CONCUR_MUTANT_IS(101) ? std::optional<std::uint32_t>(wanted) : std::nullopt;
  };
  for (;;) {
    const std::optional<std::uint32_t> was = cas_update(word_, if_held, std::memory_order_relaxed);  // relaxed: see below
    if (!was) return false;
    if (*was >= careful_once) return true;  // who made them so has seen that no other unlock is under way
    thread_fence(std::memory_order_seq_cst);  // seq_cst: in a thread that has not heard yet how its process fences
    if (!CONCUR_MUTANT_IS(425)) heavy_fence();
    // acquire: pairs with set_owner. relaxed: behind the fence, or behind that.
    for (unsigned round = 0; !CONCUR_MUTANT_IS(426) && owner_.load(std::memory_order_acquire) == nullptr &&
                             (word_.load(std::memory_order_relaxed) & waiting) != 0;)  // relaxed: as above
      spin_wait(round);
    if ((word_.load(std::memory_order_relaxed) & waiting) != 0 || CONCUR_MUTANT_IS(426)) return true;  // relaxed: as above
  }
}

// M6. False: the mutex is free, look again.
CONCUR_INLINE bool mutex_core::retire_woken() noexcept {
  const auto if_held = [](std::uint32_t word) {
    return (word & held) != 0 ? std::optional<std::uint32_t>(word & ~woken) : std::nullopt;
  };
  return cas_update(word_, if_held, std::memory_order_relaxed).has_value();  // relaxed: nothing was done
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
    const bool is_woken = since != 0;
    if (!gives_up && try_take(self, is_woken)) return outcome::granted;
    if (deadline_ns != never && deadline_ns <= now_ns()) {
      if (gives_up || !is_woken || retire_woken()) return outcome::timed_out;
      continue;
    }
    queue_lock_.lock();
    if (!announce_waiting(is_woken)) {
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

CONCUR_NOINLINE CONCUR_INLINE void mutex_core::unlock_carefully() noexcept {
  owner_.store(this, std::memory_order_relaxed);  // relaxed: nobody waits for this unlock before it comes to the queue
  CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(112) ? std::memory_order_relaxed : std::memory_order_release;
  std::uint32_t seen = word_.load(std::memory_order_relaxed);  // relaxed: the exchange decides
  for (;;) {
    if ((seen & waiting) != 0 && (seen & woken) == 0) {
      if (wake_first()) return;
      if (CONCUR_MUTANT_IS(281)) {
        word_.fetch_and(~held, std::memory_order_release);  // release: mutant
        return;
      }
      seen = word_.load(std::memory_order_relaxed);  // relaxed: as above
    }
    const std::uint32_t less = seen >= careful_once ? careful_once : 0;
    if ((seen & waiting) != 0 && (seen & woken) == 0) continue;
    // release: publishes what was done under the mutex. relaxed on failure: somebody has queued since (M5).
    if (word_.compare_exchange_strong(seen, seen - held - less, order, std::memory_order_relaxed)) return;
  }
}

// Wakes the first of the queue, or hands over to it; either frees the mutex for the caller. False: nobody is there.
CONCUR_INLINE bool mutex_core::wake_first() noexcept {
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
  if (next == nullptr) return false;
  // One step: no longer held, and one is woken. release: as in unlock; M5. A hand-over publishes by its resume.
  if (!is_handover) word_.fetch_add(woken - held, std::memory_order_release);
  resume(next);
  return true;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
