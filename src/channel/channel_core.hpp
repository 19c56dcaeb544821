// channel/channel_core.hpp - what the handles of one channel share: the ring, the two queues, and the operations on
// them.
//
// A channel is a lock, a ring of at most `capacity` values, and two queues: receivers that found it empty, and
// senders that found it full. Whoever comes when the other side waits serves it directly: the value goes from frame
// to frame and never through the ring, and the one served runs next on this worker.
//
//   H1  Receivers wait only while the ring is empty and no sender waits; senders only while the ring is full and no
//       receiver waits.
//   H2  A value is moved under the lock, after the claim of the waiter it goes to or comes from (waiter.hpp, W4). So
//       a receive that was cancelled or timed out has lost nothing, and a send that was has its value still.
//   H3  When a receiver makes room in a full ring, the longest waiting sender's value moves into it in the same step:
//       the order is that of the sends.
//   H4  Closing takes all waiters off at once: receivers find the ring empty (H1), senders keep their values.
//   H5  A move that throws in the middle of a hand-off gives the claimed waiter back with `retry`; it then tries by
//       itself, and the exception goes to whose value it was.
//   H6  The ticks of a timed channel (tick_source.hpp) come into being when somebody looks: a receiver that waits sets
//       its deadline to the next one, and looks again then.
//
// The shape (direct hand-off, one lock, two queues) is that of Go's chan.go, and goes back to Hoare's rendezvous.
#ifndef CONCUR_CHANNEL_CHANNEL_CORE_HPP
#define CONCUR_CHANNEL_CHANNEL_CORE_HPP

#include <new>
#include <optional>
#include <type_traits>
#include <utility>

#include "atomic/retirable_lock.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/intrusive.hpp"
#include "base/time.hpp"
#include "channel/tick_source.hpp"
#include "runtime/caller.hpp"
#include "runtime/forms.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// As a deadline: do not park.
inline constexpr nanoseconds_t without_parking = long_ago;

// What one step of an operation came to.
enum class attempt : unsigned char {
  done,
  closed,
  blocked,  // it would have to wait
  again,    // a value went back to its sender, and nothing was done
};

template <class T>
class channel_core {
 public:
  // Null when memory is exhausted.
  static channel_core* make(std::size_t capacity) noexcept {
    if (capacity > static_cast<std::size_t>(-1) / sizeof(T) / 2) return nullptr;
    T* ring = nullptr;
    if (capacity != 0) {
      ring = static_cast<T*>(::operator new(capacity * sizeof(T), std::align_val_t(alignof(T)), std::nothrow));
      if (ring == nullptr) return nullptr;
    }
    channel_core* made = new (std::nothrow) channel_core(ring, capacity);
    if (made == nullptr) ::operator delete(static_cast<void*>(ring), std::align_val_t(alignof(T)));
    return made;
  }

  void hold() noexcept {
    handles_.fetch_add(1, std::memory_order_relaxed);  // relaxed: the holder of a handle makes another
  }
  void release() noexcept {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(262) ? std::memory_order_relaxed : std::memory_order_acq_rel;
    if (handles_.fetch_sub(1, order) == 1) delete this;  // acq_rel: what any handle did happens before the end
  }

  // Moves from `value` exactly when it returns granted. closed, timed_out or cancelled otherwise; without a code, throws
  // when it is cancelled.
  template <class... Code>
  outcome send(T& value, nanoseconds_t deadline_ns, Code&... code) {
    return perform([&](worker* w) CONCUR_ALWAYS_INLINED { return send_from(w, value, deadline_ns); }, code...);
  }
  // Without parking.
  outcome try_send(T& value) { return send_from(this_worker(), value, without_parking); }

  // Fills the slot exactly when it returns granted. closed (and drained), timed_out or cancelled otherwise, as send.
  template <class... Code>
  outcome receive(std::optional<T>& slot, nanoseconds_t deadline_ns, Code&... code) {
    return perform([&](worker* w) CONCUR_ALWAYS_INLINED { return receive_from(w, slot, deadline_ns); }, code...);
  }
  outcome try_receive(std::optional<T>& slot) { return receive_from(this_worker(), slot, without_parking); }

  // False: it was closed before.
  bool close() noexcept {
    ended_waits woken;
    {
      lock_scope<spin_lock> held(lock_);
      if (is_closed_) return false;
      is_closed_ = true;
      for (intrusive_list<waiter>* queue : {&receivers_, &senders_}) {
        if (CONCUR_MUTANT_IS(60) && queue == &senders_) break;
        woken.take_all(*queue, outcome::closed);
      }
    }
    woken.resume_all();
    return true;
  }

  bool is_closed() noexcept {
    lock_scope<spin_lock> held(lock_);
    return is_closed_;
  }
  std::size_t size() noexcept {
    lock_scope<spin_lock> held(lock_);
    take_tick();
    return count_;
  }
  std::size_t capacity() const noexcept { return capacity_; }

  // Only for a channel of time points with room for one.
  void set_ticks(nanoseconds_t first_ns, nanoseconds_t period_ns) noexcept {
    {
      lock_scope<spin_lock> held(lock_);
      ticks_.set(first_ns, period_ns);
    }
    wake_receivers();
  }

  // --- the same step by step, for who holds the locks of several channels ---

  retirable_lock& lock() noexcept { return lock_; }
  intrusive_list<waiter>& receivers() noexcept { return receivers_; }
  intrusive_list<waiter>& senders() noexcept { return senders_; }
  nanoseconds_t next_tick_ns() const noexcept { return ticks_.next_ns(); }

  // Whether a step would come to something else than `blocked`.
  bool can_send() noexcept { return is_closed_ || count_ < capacity_ || has_claimable(receivers_); }
  bool can_receive() noexcept {
    take_tick();
    return count_ != 0 || is_closed_ || has_claimable(senders_);
  }

  // `served`, if it is set, is to be resumed when the lock is dropped, also when an exception comes out.
  CONCUR_FORCE_INLINE attempt send_step(T& value, party*& served) noexcept(moves_quietly) {
    if (CONCUR_UNLIKELY(is_closed_)) return attempt::closed;
    if (waiter* receiver = pop_claimed(receivers_)) {
      served = receiver->who;
      served->result = outcome::retry;  // if the move throws (H5)
      static_cast<std::optional<T>*>(receiver->value)->emplace(std::move(value));
      served->result = outcome::granted;
      return attempt::done;
    }
    if (count_ == capacity_) return attempt::blocked;
    ::new (static_cast<void*>(&ring_[after(first_, count_)])) T(std::move(value));
    ++count_;
    return attempt::done;
  }

  CONCUR_FORCE_INLINE attempt receive_step(std::optional<T>& slot, party*& served) noexcept(moves_quietly) {
    take_tick();
    if (count_ != 0) {
      take(slot, served);
      return attempt::done;
    }
    if (waiter* sender = pop_claimed(senders_)) {
      served = sender->who;
      const bool is_moved = emplace_quietly(slot, *static_cast<T*>(sender->value));
      served->result = is_moved ? outcome::granted : outcome::retry;  // (H5)
      return is_moved ? attempt::done : attempt::again;
    }
    return CONCUR_UNLIKELY(is_closed_) ? attempt::closed : attempt::blocked;
  }

 private:
  static constexpr bool moves_quietly = std::is_nothrow_move_constructible<T>::value;

  // From the caller's checkpoint on.
  CONCUR_FORCE_INLINE outcome send_from(worker* w, T& value, nanoseconds_t deadline_ns) {
    for (;; w = this_worker()) {
      {
        moment now(lock_, w);
        const attempt result = send_step(value, now.served);
        if (CONCUR_LIKELY(result == attempt::done)) return outcome::granted;
        if (result == attempt::closed) return outcome::closed;
        if (has_no_time(deadline_ns)) return outcome::timed_out;
        now.keep_lock();
      }
      const outcome result = wait<wait_reason::channel_send>(w, &value, deadline_ns);
      if (CONCUR_LIKELY(result != outcome::retry)) return result;
    }
  }

  CONCUR_FORCE_INLINE outcome receive_from(worker* w, std::optional<T>& slot, nanoseconds_t deadline_ns) {
    for (;; w = this_worker()) {
      {
        moment now(lock_, w);
        const attempt result = receive_step(slot, now.served);
        if (CONCUR_LIKELY(result == attempt::done)) return outcome::granted;
        if (result == attempt::again) continue;
        if (result == attempt::closed) return outcome::closed;
        if (has_no_time(deadline_ns)) return outcome::timed_out;
        now.keep_lock();
      }
      const nanoseconds_t soonest_ns = earlier(deadline_ns, ticks_.next_ns());
      const outcome result = wait<wait_reason::channel_recv>(w, &slot, soonest_ns);
      if (CONCUR_LIKELY(result == outcome::granted)) return result;
      if (result == outcome::retry || (tick_source<T>::is_possible && result == outcome::timed_out)) continue;
      return result;
    }
  }

  // The lock for one moment of an operation. Who was served goes on when it is dropped.
  struct moment {
    moment(spin_lock& l, worker* w_in) noexcept : lock(&l), w(w_in) { lock->lock(); }
    CONCUR_FORCE_INLINE ~moment() {
      if (CONCUR_UNLIKELY(lock == nullptr)) return;
      lock->unlock();
      if (served != nullptr) resume_near(w, served);
    }
    moment(const moment&) = delete;
    moment& operator=(const moment&) = delete;
    void keep_lock() noexcept { lock = nullptr; }

    spin_lock* lock;
    worker* w;
    party* served = nullptr;
  };

  // Under the lock: a tick that is due becomes a value, unless one lies there already.
  void take_tick() noexcept {
    if constexpr (tick_source<T>::is_possible) {
      if (CONCUR_LIKELY(ticks_.next_ns() == never) || is_closed_) return;
      const nanoseconds_t now = now_ns();
      if (ticks_.next_ns() > now) return;
      const T tick = ticks_.take(now);
      if (count_ == capacity_) return;
      ::new (static_cast<void*>(&ring_[after(first_, count_)])) T(tick);
      ++count_;
    }
  }
  // They look again, at the new times.
  void wake_receivers() noexcept {
    ended_waits woken;
    {
      lock_scope<spin_lock> held(lock_);
      woken.take_all(receivers_, outcome::retry);
    }
    woken.resume_all();
  }

  channel_core(T* ring, std::size_t capacity) noexcept : ring_(ring), capacity_(capacity) {}
  ~channel_core() {
    for (; count_ != 0; --count_) {
      ring_[first_].~T();
      first_ = after(first_, 1);
    }
    ::operator delete(static_cast<void*>(ring_), std::align_val_t(alignof(T)));
  }

  std::size_t after(std::size_t index, std::size_t n) const noexcept {
    const std::size_t sum = index + n;
    return sum < capacity_ ? sum : sum - capacity_;
  }

  static bool has_no_time(nanoseconds_t deadline_ns) noexcept {
    if (CONCUR_LIKELY(deadline_ns == never)) return false;
    return deadline_ns == without_parking || deadline_ns <= now_ns();
  }

  static constexpr nanoseconds_t earlier(nanoseconds_t a, nanoseconds_t b) noexcept { return a < b ? a : b; }

  // Waits in one of the queues, with the lock held, which it drops. Not inlined: who need not wait saves no registers for
  // a switch. Fibers and threads apart, so that nothing of a fiber's wait is in memory that need not be.
  template <wait_reason reason>
  CONCUR_NOINLINE outcome wait(worker* w, void* value, nanoseconds_t deadline_ns) noexcept {
    intrusive_list<waiter>& queue = reason == wait_reason::channel_send ? senders_ : receivers_;
    if (CONCUR_UNLIKELY(w == nullptr || w->current == nullptr)) return wait_on_thread(queue, value, deadline_ns);
    waiter note(w->current, value);
    queue.push_back(&note);
    return withdraw(queue, note, park_fiber(w, &lock_, deadline_ns, reason));
  }
  CONCUR_NOINLINE outcome wait_on_thread(intrusive_list<waiter>& queue, void* value,
                                         nanoseconds_t deadline_ns) noexcept {
    caller me(nullptr);
    waiter note(me.who(), value);
    queue.push_back(&note);
    return withdraw(queue, note, me.park(&lock_, deadline_ns, wait_reason::none));
  }
  CONCUR_FORCE_INLINE outcome withdraw(intrusive_list<waiter>& queue, waiter& note, outcome result) noexcept {
    if (CONCUR_LIKELY(result != outcome::timed_out && result != outcome::cancelled)) return result;
    lock_scope<spin_lock> held(lock_);
    if (intrusive_list<waiter>::is_linked(&note) && !CONCUR_MUTANT_IS(62)) queue.erase(&note);
    return result;
  }

  // The oldest out of the ring, and the longest waiting sender's value in (H3).
  void take(std::optional<T>& slot, party*& served) noexcept(moves_quietly) {
    slot.emplace(std::move(ring_[first_]));
    ring_[first_].~T();
    first_ = after(first_, 1);
    --count_;
    if (waiter* sender = pop_claimed(senders_)) {
      served = sender->who;
      served->result = outcome::retry;
      if (CONCUR_MUTANT_IS(61)) return;
      if (move_quietly(&ring_[after(first_, count_)], *static_cast<T*>(sender->value))) {
        served->result = outcome::granted;
        ++count_;
      }
    }
  }

  static bool move_quietly(T* to, T& from) noexcept {
#if CONCUR_EXCEPTIONS
    if constexpr (!moves_quietly) {
      try {
        ::new (static_cast<void*>(to)) T(std::move(from));
        return true;
      } catch (...) {
        return false;
      }
    }
#endif
    ::new (static_cast<void*>(to)) T(std::move(from));
    return true;
  }
  static bool emplace_quietly(std::optional<T>& to, T& from) noexcept {
#if CONCUR_EXCEPTIONS
    try {
      to.emplace(std::move(from));
      return true;
    } catch (...) {
      return false;
    }
#else
    to.emplace(std::move(from));
    return true;
#endif
  }

  retirable_lock lock_;  // never retired: a select asks all its sites alike
  bool is_closed_ = false;
  atomic<std::uint32_t> handles_{1};
  T* ring_;
  std::size_t capacity_;
  std::size_t first_ = 0;
  std::size_t count_ = 0;
  intrusive_list<waiter> receivers_;
  intrusive_list<waiter> senders_;
  tick_source<T> ticks_;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
