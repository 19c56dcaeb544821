// sync/shared_mutex.hpp - many readers or one writer, and neither kind starves the other.
//
// For what is read often and for long, and written now and then. Where reading is short, a plain mutex is faster.
//
//     word           meaning
//     writer    1    a writer holds
//     waiting   2    somebody waits: whoever comes new goes to the queue's lock, and so does who lets go last
//     4 * n          n readers hold
//
//     step                        what it lets in
//     a writer unlocks            all readers that wait, together; if there are none, the first writer
//     the last reader unlocks     the first writer; if there is none, all readers that wait
//     a waiter gives up           who may come in now that it is gone: all readers, if it was the only writer (R4)
//
//   R1  `waiting` is set and cleared under the queue's lock, and set whenever one of the two queues is not empty.
//   R2  A waiting writer keeps new readers out, so the readers inside become fewer; and a writer lets in the readers
//       that came while it held. So the two kinds take turns as long as both wait.
//   R3  The lock is handed over: who is let in holds it before it runs. While `waiting` is set nobody takes it in
//       passing.
//   R4  A waiter that times out or is cancelled was given nothing, and before it goes it serves those it held up.
//   R5  `owner_` names the writer that holds; only that writer writes it.
//
// A reader that locks again while a writer waits, waits for itself: recursive reading is not supported, as in Go.
#ifndef CONCUR_SYNC_SHARED_MUTEX_HPP
#define CONCUR_SYNC_SHARED_MUTEX_HPP

#include "atomic/cas.hpp"
#include "atomic/spin_lock.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/intrusive.hpp"
#include "base/time.hpp"
#include "runtime/caller.hpp"
#include "sync/mutex_core.hpp"

CONCUR_NAMESPACE_BEGIN

// Works with std::unique_lock, std::shared_lock and the others. An unlock happens before each later lock and
// lock_shared; an unlock_shared happens before each later lock. A lock that is free costs one compare-exchange.
class shared_mutex {
 public:
  constexpr shared_mutex() noexcept = default;
  ~shared_mutex() { queue_lock_.lock(); }  // until the last unlock is outside
  shared_mutex(const shared_mutex&) = delete;
  shared_mutex& operator=(const shared_mutex&) = delete;

  // Waits until nobody holds. Throws `cancelled` without taking it, std::logic_error when the caller holds it as writer.
  // The forms with a code, here and below, say there that the caller was cancelled, and return false.
  void lock() { lock_deadline(detail::never); }
  bool lock(std::error_code& error) { return lock_deadline(detail::never, error); }
  bool try_lock() noexcept { return take(detail::identity_of(detail::this_worker())); }
  template <class Rep, class Period>
  bool try_lock_for(std::chrono::duration<Rep, Period> d) {
    return lock_deadline(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  bool try_lock_until(const std::chrono::time_point<Clock, Duration>& tp) {
    return lock_deadline(detail::deadline_at(tp));
  }
  template <class Rep, class Period>
  bool try_lock_for(std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return lock_deadline(detail::deadline_after(d), error);
  }
  template <class Clock, class Duration>
  bool try_lock_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return lock_deadline(detail::deadline_at(tp), error);
  }
  // Throws std::logic_error when the caller does not hold it as writer.
  void unlock();

  // Waits until no writer holds or waits. Throws as lock.
  void lock_shared() { lock_shared_deadline(detail::never); }
  bool lock_shared(std::error_code& error) { return lock_shared_deadline(detail::never, error); }
  bool try_lock_shared() noexcept;
  template <class Rep, class Period>
  bool try_lock_shared_for(std::chrono::duration<Rep, Period> d) {
    return lock_shared_deadline(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  bool try_lock_shared_until(const std::chrono::time_point<Clock, Duration>& tp) {
    return lock_shared_deadline(detail::deadline_at(tp));
  }
  template <class Rep, class Period>
  bool try_lock_shared_for(std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return lock_shared_deadline(detail::deadline_after(d), error);
  }
  template <class Clock, class Duration>
  bool try_lock_shared_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return lock_shared_deadline(detail::deadline_at(tp), error);
  }
  // Throws std::logic_error when no reader holds it. Which readers do is not known.
  void unlock_shared();

 private:
  static constexpr std::uint32_t writer = 1;
  static constexpr std::uint32_t waiting = 2;
  static constexpr std::uint32_t reader = 4;

  // Takes it as writer if it is free and nobody waits.
  bool take(const void* self) noexcept {
    std::uint32_t expected = 0;
    // acquire: pairs with unlock and unlock_shared. relaxed on failure: the slow path looks again.
    if (!word_.compare_exchange_strong(expected, writer, std::memory_order_acquire, std::memory_order_relaxed))
      return false;
    set_owner(self);
    return true;
  }
  void set_owner(const void* who) noexcept {
    owner_.store(who, std::memory_order_relaxed);  // relaxed: compared by the holder with itself only (R5)
  }
  bool is_held_by(const void* self) const noexcept {
    return owner_.load(std::memory_order_relaxed) == self;  // relaxed: as above
  }
  template <class... Code>
  bool lock_deadline(detail::nanoseconds_t deadline_ns, Code&... code) {
    const auto lock_from = [&](detail::worker* w) {
      const void* const self = detail::identity_of(w);
      return CONCUR_LIKELY(take(self)) ? detail::outcome::granted : lock_slow(self, deadline_ns);
    };
    return detail::perform(lock_from, code...) == detail::outcome::granted;
  }
  template <class... Code>
  bool lock_shared_deadline(detail::nanoseconds_t deadline_ns, Code&... code) {
    const auto lock_from = [&](detail::worker*) {
      return CONCUR_LIKELY(try_lock_shared()) ? detail::outcome::granted : lock_shared_slow(deadline_ns);
    };
    return detail::perform(lock_from, code...) == detail::outcome::granted;
  }
  // granted, timed_out or cancelled.
  detail::outcome lock_slow(const void* self, detail::nanoseconds_t deadline_ns);
  detail::outcome lock_shared_slow(detail::nanoseconds_t deadline_ns);
  detail::outcome wait(detail::caller& me, detail::intrusive_list<detail::waiter>& queue,
                       detail::nanoseconds_t deadline_ns, detail::wait_reason reason) noexcept;
  void unlock_slow(std::uint32_t share) noexcept;
  void serve(bool readers_first, detail::ended_waits& woken) noexcept;
  static void refuse_relock(bool is_holder);

  detail::atomic<std::uint32_t> word_{0};
  spin_lock queue_lock_;
  detail::atomic<const void*> owner_{nullptr};
  detail::intrusive_list<detail::waiter> writers_;
  detail::intrusive_list<detail::waiter> readers_;
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE void shared_mutex::refuse_relock(bool is_holder) {
  if (is_holder) {
    detail::fail_logic(
        "concur::shared_mutex: the caller holds it as writer already, and would wait for itself; unlock it first");
  }
}

CONCUR_INLINE bool shared_mutex::try_lock_shared() noexcept {
  const auto one_more = [](std::uint32_t word) {
    const bool is_open = (word & (writer | (CONCUR_MUTANT_IS(109) ? 0 : waiting))) == 0;
    return is_open ? std::optional<std::uint32_t>(word + reader) : std::nullopt;
  };
  return cas_update(word_, one_more, std::memory_order_acquire).has_value();  // acquire: pairs with unlock
}

CONCUR_INLINE detail::outcome shared_mutex::lock_slow(const void* self, detail::nanoseconds_t deadline_ns) {
  refuse_relock(is_held_by(self));
  if (deadline_ns != detail::never && deadline_ns <= detail::now_ns()) return detail::outcome::timed_out;
  detail::caller me(detail::this_worker());
  queue_lock_.lock();
  const auto take_or_mark = [](std::uint32_t word) { return word == 0 ? writer : word | waiting; };
  // acquire: as in take.
  if (cas_update(word_, take_or_mark, std::memory_order_acquire) == 0) {
    queue_lock_.unlock();
    set_owner(self);
    return detail::outcome::granted;
  }
  const detail::outcome result = wait(me, writers_, deadline_ns, detail::wait_reason::mutex_lock);
  if (result == detail::outcome::granted) set_owner(self);
  return result;
}

CONCUR_INLINE detail::outcome shared_mutex::lock_shared_slow(detail::nanoseconds_t deadline_ns) {
  refuse_relock(is_held_by(detail::identity_of(detail::this_worker())));
  if (deadline_ns != detail::never && deadline_ns <= detail::now_ns()) return detail::outcome::timed_out;
  detail::caller me(detail::this_worker());
  queue_lock_.lock();
  const auto enter_or_mark = [](std::uint32_t word) {
    return (word & (writer | waiting)) == 0 ? word + reader : word | waiting;
  };
  // acquire: as in try_lock_shared.
  if ((cas_update(word_, enter_or_mark, std::memory_order_acquire) & (writer | waiting)) == 0) {
    queue_lock_.unlock();
    return detail::outcome::granted;
  }
  return wait(me, readers_, deadline_ns, detail::wait_reason::shared_lock);
}

// Under the queue's lock, which it drops, and with `waiting` set. granted: let in (R3).
CONCUR_INLINE detail::outcome shared_mutex::wait(detail::caller& me, detail::intrusive_list<detail::waiter>& queue,
                                                 detail::nanoseconds_t deadline_ns,
                                                 detail::wait_reason reason) noexcept {
  detail::waiter note(me.who(), nullptr);
  queue.push_back(&note);
  const detail::outcome result = me.park(&queue_lock_, deadline_ns, reason);
  if (result == detail::outcome::granted) return result;
  detail::ended_waits woken;
  {
    detail::lock_scope<spin_lock> held(queue_lock_);
    if (detail::intrusive_list<detail::waiter>::is_linked(&note)) queue.erase(&note);
    if (!CONCUR_MUTANT_IS(110)) serve(false, woken);  // R4
  }
  woken.resume_all();
  return result;
}

// Under the queue's lock: lets in whom the table says. `readers_first`: a writer has just let go.
CONCUR_INLINE void shared_mutex::serve(bool readers_first, detail::ended_waits& woken) noexcept {
  const bool has_writers = detail::has_claimable(writers_);
  const bool has_readers = detail::has_claimable(readers_);
  // acquire: pairs with unlock_shared, for who is let in. Readers may still leave, but not the last one of them.
  CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(286) ? std::memory_order_relaxed : std::memory_order_acquire;
  const std::uint32_t word = word_.load(order);  // acquire: see above
  if ((word & writer) == 0) {
    bool is_taken = false;
    if (word < reader && has_writers && !(readers_first && has_readers && !CONCUR_MUTANT_IS(111))) {
      if (detail::waiter* note = detail::pop_claimed(writers_)) {
        woken.add(note, detail::outcome::granted);
        // relaxed: the resume orders it; here and below nobody else changes these bits.
        word_.fetch_or(writer, std::memory_order_relaxed);
        is_taken = true;
      }
    }
    if (!is_taken && (readers_first || !detail::has_claimable(writers_))) {
      const auto count = static_cast<std::uint32_t>(woken.take_all(readers_, detail::outcome::granted));
      word_.fetch_add(count * reader, std::memory_order_relaxed);  // relaxed: as above
    }
  }
  if (writers_.is_empty() && readers_.is_empty())
    word_.fetch_and(~waiting, std::memory_order_release);  // release: publishes to who comes in without the queue's lock
}

CONCUR_INLINE void shared_mutex::unlock() {
  if (CONCUR_UNLIKELY(!is_held_by(detail::identity_of(detail::this_worker())))) {
    detail::fail_logic(
        "concur::shared_mutex::unlock: the caller does not hold it as writer; unlock it where it was locked, or use "
        "unlock_shared");
  }
  set_owner(nullptr);
  CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(173) ? std::memory_order_relaxed : std::memory_order_release;
  std::uint32_t expected = writer;
  // release: publishes what the writer did. relaxed on failure: somebody waits.
  if (CONCUR_LIKELY(word_.compare_exchange_strong(expected, 0, order, std::memory_order_relaxed))) return;
  unlock_slow(writer);
}

CONCUR_INLINE void shared_mutex::unlock_shared() {
  std::uint32_t word = word_.load(std::memory_order_relaxed);  // relaxed: the exchange decides
  for (;;) {
    if (CONCUR_UNLIKELY(word < reader)) {
      detail::fail_logic(
          "concur::shared_mutex::unlock_shared: no reader holds it; unlock as often as was locked, and a writer's lock "
          "with unlock");
    }
    if (word < 2 * reader && (word & waiting) != 0) return unlock_slow(reader);
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(114) ? std::memory_order_relaxed : std::memory_order_release;
    // release: the reads were before what a later writer does. relaxed on failure: the loop looks again.
    if (word_.compare_exchange_weak(word, word - reader, order, std::memory_order_relaxed)) return;
  }
}

// Gives back the writer's bit, or one reader's share, while somebody waits.
CONCUR_INLINE void shared_mutex::unlock_slow(std::uint32_t share) noexcept {
  detail::ended_waits woken;
  {
    detail::lock_scope<spin_lock> held(queue_lock_);
    // acq_rel: publishes what the holder did, and sees what the readers did that left before, for who is let in.
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(286) ? std::memory_order_release : std::memory_order_acq_rel;
    const std::uint32_t rest = word_.fetch_sub(share, order) - share;  // acq_rel: see above
    if (rest < reader && (rest & waiting) != 0) serve(share == writer, woken);
  }
  woken.resume_all();
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
