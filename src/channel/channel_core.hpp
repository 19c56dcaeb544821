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
//
// The shape (direct hand-off, one lock, two queues) is that of Go's chan.go, and goes back to Hoare's rendezvous.
#ifndef CONCUR_CHANNEL_CHANNEL_CORE_HPP
#define CONCUR_CHANNEL_CHANNEL_CORE_HPP

#include <atomic>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>

#include "atomic/spin_lock.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/intrusive.hpp"
#include "base/time.hpp"
#include "runtime/suspend.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// As a deadline: do not park, and be no checkpoint.
inline constexpr nanoseconds_t without_parking = long_ago;

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
    // acq_rel: what any handle did happens before the end.
    if (handles_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  // Moves from `value` exactly when it returns granted. closed, timed_out or cancelled otherwise.
  outcome send(T& value, nanoseconds_t deadline_ns) {
    for (;;) {
      caller me(deadline_ns == without_parking ? this_worker() : checkpoint());
      lock_.lock();
      if (CONCUR_UNLIKELY(is_closed_)) {
        lock_.unlock();
        return outcome::closed;
      }
      if (waiter* receiver = pop_claimed(receivers_)) {
        party* who = receiver->who;
        if constexpr (moves_quietly) {
          static_cast<std::optional<T>*>(receiver->value)->emplace(std::move(value));
          who->result = outcome::granted;
          lock_.unlock();
        } else {
          hand_over_or_give_back(*receiver, value);
        }
        resume(who);
        return outcome::granted;
      }
      if (count_ < capacity_) {
        put(value);
        return outcome::granted;
      }
      if (has_no_time(deadline_ns)) return outcome::timed_out;
      waiter note(me.who(), &value);
      senders_.push_back(&note);
      const outcome result = me.park(&lock_, deadline_ns, wait_reason::channel_send);
      if (CONCUR_LIKELY(result == outcome::granted)) return result;
      if (result != outcome::retry) return withdraw(senders_, note, result);
    }
  }

  // Fills the slot exactly when it returns granted. closed (and drained), timed_out or cancelled otherwise.
  outcome receive(std::optional<T>& slot, nanoseconds_t deadline_ns) {
    for (;;) {
      caller me(deadline_ns == without_parking ? this_worker() : checkpoint());
      lock_.lock();
      if (count_ != 0) {
        take(slot);
        return outcome::granted;
      }
      if (waiter* sender = pop_claimed(senders_)) {
        if (take_from(*sender, slot)) return outcome::granted;
        continue;
      }
      if (CONCUR_UNLIKELY(is_closed_)) {
        lock_.unlock();
        return outcome::closed;
      }
      if (has_no_time(deadline_ns)) return outcome::timed_out;
      waiter note(me.who(), &slot);
      receivers_.push_back(&note);
      const outcome result = me.park(&lock_, deadline_ns, wait_reason::channel_recv);
      if (CONCUR_LIKELY(result == outcome::granted)) return result;
      if (result != outcome::retry) return withdraw(receivers_, note, result);
    }
  }

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
    return count_;
  }
  std::size_t capacity() const noexcept { return capacity_; }

 private:
  static constexpr bool moves_quietly = std::is_nothrow_move_constructible<T>::value;

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

  // With the lock held; drops it when the answer is yes.
  bool has_no_time(nanoseconds_t deadline_ns) noexcept {
    if (CONCUR_LIKELY(deadline_ns == never)) return false;
    if (deadline_ns != without_parking && deadline_ns > seam_now()) return false;
    lock_.unlock();
    return true;
  }

  // A wait that somebody else ended (closed: the note is off already).
  outcome withdraw(intrusive_list<waiter>& queue, waiter& note, outcome result) noexcept {
    if (result == outcome::closed) return result;
    lock_scope<spin_lock> held(lock_);
    if (intrusive_list<waiter>::is_linked(&note) && !CONCUR_MUTANT_IS(62)) queue.erase(&note);
    return result;
  }

  // Into the ring, which has room. Drops the lock, also by an exception.
  void put(T& value) noexcept(moves_quietly) {
    lock_drop held(lock_);
    ::new (static_cast<void*>(&ring_[after(first_, count_)])) T(std::move(value));
    ++count_;
  }

  // The oldest out of the ring, and the longest waiting sender's value in (H3). Drops the lock.
  void take(std::optional<T>& slot) noexcept(moves_quietly) {
    party* served = nullptr;
    {
      lock_drop held(lock_);
      slot.emplace(std::move(ring_[first_]));
      ring_[first_].~T();
      first_ = after(first_, 1);
      --count_;
      if (CONCUR_MUTANT_IS(61)) {
        if (waiter* sender = pop_claimed(senders_)) (served = sender->who)->result = outcome::retry;
      } else if (waiter* sender = pop_claimed(senders_)) {
        served = sender->who;
        served->result = move_quietly(&ring_[after(first_, count_)], *static_cast<T*>(sender->value)) ? outcome::granted
                                                                                                      : outcome::retry;
        if (served->result == outcome::granted) ++count_;
      }
    }
    if (served != nullptr) resume(served);
  }

  // From the frame of a claimed sender. False: the move threw, and the sender will find out by itself (H5). Drops the
  // lock.
  bool take_from(waiter& sender, std::optional<T>& slot) noexcept {
    party* who = sender.who;
    bool is_moved = true;
    T& value = *static_cast<T*>(sender.value);
    if constexpr (moves_quietly) {
      slot.emplace(std::move(value));
    } else {
      is_moved = emplace_quietly(slot, value);
    }
    who->result = is_moved ? outcome::granted : outcome::retry;
    lock_.unlock();
    resume(who);
    return is_moved;
  }

  // To a claimed receiver, of a type whose move may throw: then the receiver goes back to wait, and the exception to
  // the sender.
  void hand_over_or_give_back(waiter& receiver, T& value) {
    party* who = receiver.who;
#if CONCUR_EXCEPTIONS
    try {
      static_cast<std::optional<T>*>(receiver.value)->emplace(std::move(value));
    } catch (...) {
      who->result = outcome::retry;
      lock_.unlock();
      resume(who);
      throw;
    }
#else
    static_cast<std::optional<T>*>(receiver.value)->emplace(std::move(value));
#endif
    who->result = outcome::granted;
    lock_.unlock();
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

  // Drops a lock that is held already.
  struct lock_drop {
    explicit lock_drop(spin_lock& lock) noexcept : lock_(lock) {}
    ~lock_drop() { lock_.unlock(); }
    lock_drop(const lock_drop&) = delete;
    lock_drop& operator=(const lock_drop&) = delete;
    spin_lock& lock_;
  };

  spin_lock lock_;
  bool is_closed_ = false;
  std::atomic<std::uint32_t> handles_{1};
  T* ring_;
  std::size_t capacity_;
  std::size_t first_ = 0;
  std::size_t count_ = 0;
  intrusive_list<waiter> receivers_;
  intrusive_list<waiter> senders_;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
