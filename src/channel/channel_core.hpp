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

#include "atomic/spin_lock.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/intrusive.hpp"
#include "base/time.hpp"
#include "channel/channel_lock.hpp"
#include "channel/tick_source.hpp"
#include "runtime/caller.hpp"
#include "runtime/forms.hpp"
#include "runtime/serve.hpp"

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

// What a channel is whatever it carries. A select looks at it without knowing the type.
struct channel_state {
  explicit channel_state(std::size_t capacity_in) noexcept : capacity(capacity_in) {}

  // Whether a step would come to something else than `blocked`; ticks apart. Under the lock.
  CONCUR_FORCE_INLINE bool can_send() noexcept { return is_closed || count < capacity || has_claimable(receivers); }
  CONCUR_FORCE_INLINE bool can_receive() noexcept { return count != 0 || is_closed || has_claimable(senders); }

  channel_lock lock;
  bool is_closed = false;
  atomic<std::uint32_t> handles{1};
  const std::size_t capacity;
  std::size_t count = 0;
  intrusive_list<waiter> receivers;
  intrusive_list<waiter> senders;
};

template <class T>
class channel_core : private channel_state {
 public:
  // Null when memory is exhausted.
  static channel_core* make(std::size_t bound) noexcept {
    if (bound > static_cast<std::size_t>(-1) / sizeof(T) / 2) return nullptr;
    T* ring = nullptr;
    if (bound != 0) {
      ring = static_cast<T*>(::operator new(bound * sizeof(T), std::align_val_t(alignof(T)), std::nothrow));
      if (ring == nullptr) return nullptr;
    }
    channel_core* made = new (std::nothrow) channel_core(ring, bound);
    if (made == nullptr) ::operator delete(static_cast<void*>(ring), std::align_val_t(alignof(T)));
    return made;
  }

  void hold() noexcept {
    handles.fetch_add(1, std::memory_order_relaxed);  // relaxed: the holder of a handle makes another
  }
  void release() noexcept {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(262) ? std::memory_order_relaxed : std::memory_order_acq_rel;
    if (handles.fetch_sub(1, order) == 1) end();  // acq_rel: what any handle did happens before the end
  }

  // Moves from `value` exactly when it returns granted. closed, timed_out or cancelled otherwise; without a code, throws
  // when it is cancelled.
  template <class... Code>
  outcome send(T& value, nanoseconds_t deadline_ns, Code&... code) {
    worker* w = nullptr;
    if (!begin_form(w, code...)) return end_form(outcome::cancelled, code...);
    spin_lock* held = nullptr;
    outcome result = outcome::granted;
    if (CONCUR_LIKELY(send_once(w, value, deadline_ns, held, result))) return end_form(result, code...);
    return wait_to_send(w, held, value, deadline_ns, code...);
  }
  // Without parking.
  outcome try_send(T& value) {
    spin_lock* held = nullptr;
    outcome result = outcome::granted;
    send_once(this_worker(), value, without_parking, held, result);
    return result;
  }

  // Fills the slot exactly when it returns granted. closed (and drained), timed_out or cancelled otherwise, as send.
  template <class... Code>
  outcome receive(std::optional<T>& slot, nanoseconds_t deadline_ns, Code&... code) {
    worker* w = nullptr;
    if (!begin_form(w, code...)) return end_form(outcome::cancelled, code...);
    spin_lock* held = nullptr;
    outcome result = outcome::granted;
    if (CONCUR_LIKELY(receive_once(w, slot, deadline_ns, held, result))) return end_form(result, code...);
    return wait_to_receive(w, held, slot, deadline_ns, code...);
  }
  outcome try_receive(std::optional<T>& slot) {
    spin_lock* held = nullptr;
    outcome result = outcome::granted;
    receive_once(this_worker(), slot, without_parking, held, result);
    return result;
  }

  // False: it was closed before.
  bool close() noexcept {
    ended_waits woken;
    {
      const channel_lock_scope held(lock, this_worker());
      if (is_closed) return false;
      is_closed = true;
      for (intrusive_list<waiter>* queue : {&receivers, &senders}) {
        if (CONCUR_MUTANT_IS(60) && queue == &senders) break;
        woken.take_all(*queue, outcome::closed);
      }
    }
    woken.resume_all();
    return true;
  }

  bool is_closed_now() noexcept {
    const channel_lock_scope held(lock, this_worker());
    return is_closed;
  }
  std::size_t size() noexcept {
    const channel_lock_scope held(lock, this_worker());
    take_tick();
    return count;
  }
  std::size_t bound() const noexcept { return capacity; }

  // Only for a channel of time points with room for one.
  void set_ticks(nanoseconds_t first_ns, nanoseconds_t period_ns) noexcept {
    {
      const channel_lock_scope held(lock, this_worker());
      ticks_.set(first_ns, period_ns);
    }
    wake_receivers();
  }

  // --- the same step by step, for who holds the locks of several channels ---

  channel_state& state() noexcept { return *this; }
  nanoseconds_t next_tick_ns() const noexcept { return ticks_.next_ns(); }

  bool can_receive_tick() noexcept {
    take_tick();
    return can_receive();
  }

  // `served`, if it is set, is to be resumed when the lock is dropped, also when an exception comes out.
  CONCUR_FORCE_INLINE attempt send_step(T& value, served_party& served) noexcept(moves_quietly) {
    if (CONCUR_UNLIKELY(is_closed)) return attempt::closed;
    if (waiter* receiver = serve_first(receivers, served)) {
      served.who->result = outcome::retry;  // if the move throws (H5)
      static_cast<std::optional<T>*>(receiver->value)->emplace(std::move(value));
      served.who->result = outcome::granted;
      return attempt::done;
    }
    if (count == capacity) return attempt::blocked;
    ::new (static_cast<void*>(&ring_[after(first_, count)])) T(std::move(value));
    ++count;
    return attempt::done;
  }

  CONCUR_FORCE_INLINE attempt receive_step(std::optional<T>& slot, served_party& served) noexcept(moves_quietly) {
    take_tick();
    if (count != 0) {
      take(slot, served);
      return attempt::done;
    }
    if (waiter* sender = serve_first(senders, served)) {
      const bool is_moved = emplace_quietly(slot, *static_cast<T*>(sender->value));
      served.who->result = is_moved ? outcome::granted : outcome::retry;  // (H5)
      return is_moved ? attempt::done : attempt::again;
    }
    return CONCUR_UNLIKELY(is_closed) ? attempt::closed : attempt::blocked;
  }

 private:
  static constexpr bool moves_quietly = std::is_nothrow_move_constructible<T>::value;

  // From the caller's checkpoint on: the operation as far as it goes without a wait. False: it has to wait, and the lock is
  // held, as `held`.
  CONCUR_FORCE_INLINE bool send_once(worker* w, T& value, nanoseconds_t deadline_ns, spin_lock*& held,
                                     outcome& result) {
    moment now(lock, w);
    const attempt step = send_step(value, now.served);
    if (CONCUR_LIKELY(step == attempt::done)) return true;
    result = step == attempt::closed ? outcome::closed : outcome::timed_out;
    if (step == attempt::closed || has_no_time(deadline_ns)) return true;
    held = now.keep_lock();
    return false;
  }
  CONCUR_FORCE_INLINE bool receive_once(worker* w, std::optional<T>& slot, nanoseconds_t deadline_ns, spin_lock*& held,
                                        outcome& result) {
    for (;;) {
      moment now(lock, w);
      const attempt step = receive_step(slot, now.served);
      if (CONCUR_LIKELY(step == attempt::done)) return true;
      if (CONCUR_UNLIKELY(step == attempt::again)) continue;
      result = step == attempt::closed ? outcome::closed : outcome::timed_out;
      if (step == attempt::closed || has_no_time(deadline_ns)) return true;
      held = now.keep_lock();
      return false;
    }
  }

  // The operation from its wait on, with the lock taken as `held`. Not inlined, so that who need not wait saves no registers
  // for a switch; and the last thing that its caller does, so that the way there is a jump: a frame between the switch and
  // the operation costs a return that is not predicted, 8 ns, wherever senders and receivers both wait.
  template <class... Code>
  CONCUR_NOINLINE outcome wait_to_send(worker* w, spin_lock* held, T& value, nanoseconds_t deadline_ns, Code&... code) {
    outcome result = wait<wait_reason::channel_send>(w, held, &value, deadline_ns);
    if (CONCUR_LIKELY(result != outcome::retry)) return end_form(result, code...);
    result = outcome::granted;
    w = worker_of_fiber();
    if (send_once(w, value, deadline_ns, held, result)) return end_form(result, code...);
    return wait_to_send(w, held, value, deadline_ns, code...);
  }
  template <class... Code>
  CONCUR_NOINLINE outcome wait_to_receive(worker* w, spin_lock* held, std::optional<T>& slot, nanoseconds_t deadline_ns,
                                          Code&... code) {
    const nanoseconds_t soonest_ns = earlier(deadline_ns, ticks_.next_ns());
    outcome result = wait<wait_reason::channel_recv>(w, held, &slot, soonest_ns);
    if (CONCUR_LIKELY(result == outcome::granted)) return end_form(result, code...);
    if (result != outcome::retry && (!tick_source<T>::is_possible || result != outcome::timed_out))
      return end_form(result, code...);
    result = outcome::granted;
    w = worker_of_fiber();
    if (receive_once(w, slot, deadline_ns, held, result)) return end_form(result, code...);
    return wait_to_receive(w, held, slot, deadline_ns, code...);
  }

  // The lock for one moment of an operation. Who was served goes on when it is dropped.
  struct moment {
    CONCUR_FORCE_INLINE moment(channel_lock& l, worker* w_in) noexcept : lock(&l.lock(w_in)), served(w_in) {}
    CONCUR_FORCE_INLINE ~moment() {
      if (CONCUR_UNLIKELY(lock == nullptr)) return;
      lock->unlock();
      served.resume_it();
    }
    moment(const moment&) = delete;
    moment& operator=(const moment&) = delete;
    spin_lock* keep_lock() noexcept { return std::exchange(lock, nullptr); }

    spin_lock* lock;
    served_party served;
  };

  // Under the lock: a tick that is due becomes a value, unless one lies there already.
  void take_tick() noexcept {
    if constexpr (tick_source<T>::is_possible) {
      if (CONCUR_LIKELY(ticks_.next_ns() == never) || is_closed) return;
      const nanoseconds_t now = now_ns();
      if (ticks_.next_ns() > now) return;
      const T tick = ticks_.take(now);
      if (count == capacity) return;
      ::new (static_cast<void*>(&ring_[after(first_, count)])) T(tick);
      ++count;
    }
  }
  // They look again, at the new times.
  void wake_receivers() noexcept {
    ended_waits woken;
    {
      const channel_lock_scope held(lock, this_worker());
      woken.take_all(receivers, outcome::retry);
    }
    woken.resume_all();
  }

  channel_core(T* ring, std::size_t bound) noexcept : channel_state(bound), ring_(ring) {}
  ~channel_core() {
    for (; count != 0; --count) {
      ring_[first_].~T();
      first_ = after(first_, 1);
    }
    ::operator delete(static_cast<void*>(ring_), std::align_val_t(alignof(T)));
  }

  std::size_t after(std::size_t index, std::size_t n) const noexcept {
    const std::size_t sum = index + n;
    return sum < capacity ? sum : sum - capacity;
  }

  // Apart: a compiler that sees the end in the midst of a loop over handles warns of a use behind it, which there is none.
  CONCUR_NOINLINE void end() noexcept { delete this; }

  static bool has_no_time(nanoseconds_t deadline_ns) noexcept {
    if (CONCUR_LIKELY(deadline_ns == never)) return false;
    return deadline_ns == without_parking || deadline_ns <= now_ns();
  }

  static constexpr nanoseconds_t earlier(nanoseconds_t a, nanoseconds_t b) noexcept { return a < b ? a : b; }

  // Waits in one of the queues, with the lock taken as `held`, which it drops. Fibers and threads apart, so that nothing of a
  // fiber's wait is in memory that need not be.
  template <wait_reason reason>
  CONCUR_FORCE_INLINE outcome wait(worker* w, spin_lock* held, void* value, nanoseconds_t deadline_ns) noexcept {
    intrusive_list<waiter>& queue = reason == wait_reason::channel_send ? senders : receivers;
    if (CONCUR_UNLIKELY(w == nullptr)) return wait_on_thread(queue, held, value, deadline_ns);
    waiter note(w->current, value, deadline_ns == never);
    queue.push_back(&note);
    return withdraw(queue, note, park_fiber(w, held, deadline_ns, reason));
  }
  CONCUR_NOINLINE outcome wait_on_thread(intrusive_list<waiter>& queue, spin_lock* held, void* value,
                                         nanoseconds_t deadline_ns) noexcept {
    caller me(nullptr);
    waiter note(me.who(), value);
    queue.push_back(&note);
    return withdraw(queue, note, me.park(held, deadline_ns, wait_reason::none));
  }
  CONCUR_FORCE_INLINE outcome withdraw(intrusive_list<waiter>& queue, waiter& note, outcome result) noexcept {
    if (CONCUR_LIKELY(result != outcome::timed_out && result != outcome::cancelled)) return result;
    const channel_lock_scope held(lock, this_worker());
    if (intrusive_list<waiter>::is_linked(&note) && !CONCUR_MUTANT_IS(62)) queue.erase(&note);
    return result;
  }

  // The oldest out of the ring, and the longest waiting sender's value in (H3).
  void take(std::optional<T>& slot, served_party& served) noexcept(moves_quietly) {
    slot.emplace(std::move(ring_[first_]));
    ring_[first_].~T();
    first_ = after(first_, 1);
    --count;
    if (waiter* sender = serve_first(senders, served)) {
      served.who->result = outcome::retry;
      if (CONCUR_MUTANT_IS(61)) return;
      if (move_quietly(&ring_[after(first_, count)], *static_cast<T*>(sender->value))) {
        served.who->result = outcome::granted;
        ++count;
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

  T* const ring_;
  std::size_t first_ = 0;
  tick_source<T> ticks_;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
