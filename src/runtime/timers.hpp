// runtime/timers.hpp - deadlines of parked fibers: cheap to set, cheaper to call off.
//
// Most deadlines never pass: a read with a time limit usually reads. So setting and calling off must cost next to
// nothing, and passing may cost a little more. A hierarchical wheel does that: seven rings of 64 slots, each slot of
// a ring as wide as the whole ring below. A timer goes into the ring where its tick first differs from the present
// one; as time reaches its slot it moves down a ring, and from the lowest it fires. Setting and calling off touch one
// slot.
//
//     ring    0          1          2         ...   6
//     slot    65.5 us    4.2 ms     268 ms          52 days
//
//   D1  A timer never fires early: its deadline is rounded up to a tick, and a slot is opened only when its tick has
//       passed.
//   D2  Firing claims the party under the wheel's lock; calling off takes the same lock. After either, the entry may
//       go.
//   D3  next_ns() is never later than the earliest deadline. It may be earlier: then a look finds nothing, and costs
//       no more.
//   D4  An alarm is an entry that calls a function instead of ending a wait. It is called without the wheel's lock, by the
//       thread that found it due, and is touched last when the call is over; calling it off waits for that.
//
// Source: Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (1987), scheme 7.
#ifndef CONCUR_RUNTIME_TIMERS_HPP
#define CONCUR_RUNTIME_TIMERS_HPP

#include "atomic/moment.hpp"
#include "atomic/spin_lock.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/intrusive.hpp"
#include "base/time.hpp"
#include "runtime/waiter.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

class timer_wheel;

// Lives in the frame of the fiber that waits.
struct timer_entry {
  timer_entry* next = nullptr;
  timer_entry* prev = nullptr;
  nanoseconds_t deadline_ns = never;
  party* who = nullptr;
  std::uint32_t ticket = 0;
  unsigned char ring = 0;
  unsigned char slot = 0;
  timer_wheel* wheel = nullptr;  // where it was set; null: never set
};

// D4. `who` stays null.
struct alarm : timer_entry {
  explicit alarm(void (*call_in)(alarm*) noexcept) noexcept : call(call_in) {}
  void (*call)(alarm*) noexcept;        // may not wait
  atomic<bool> is_ringing{false};  // set under the wheel's lock
};

class timer_wheel {
 public:
  timer_wheel() noexcept : next_ns_(never) {}
  timer_wheel(const timer_wheel&) = delete;
  timer_wheel& operator=(const timer_wheel&) = delete;

  // Time zero of the wheel. Once, before the first set.
  void start(nanoseconds_t now) noexcept { elapsed_ = to_tick(now); }

  void set(timer_entry& entry) noexcept;
  // From any thread. Afterwards the entry is in no ring, and nobody looks at it any more.
  void call_off(timer_entry& entry) noexcept;
  // The same for an alarm (D4). Not from its own call.
  static void call_off_alarm(alarm& entry) noexcept;
  // Ends the wait of every party whose deadline has passed, and calls the alarms. Returns how many. From any thread.
  std::size_t fire(nanoseconds_t now) noexcept;

  // D3. never: no timer is set.
  nanoseconds_t next_ns() const noexcept { return next_ns_.read(); }
  std::size_t size() const noexcept { return count_.load(std::memory_order_relaxed); }  // relaxed: a figure to show

 private:
  using tick_t = std::uint64_t;
  static constexpr unsigned ring_count = 7;
  static constexpr unsigned slot_bits = 6;
  static constexpr unsigned slot_count = 1u << slot_bits;
  static constexpr unsigned tick_shift =
      16;  // a tick is 2^16 ns: a late wake-up of 33 us on average, invisible beside a switch of core
  static constexpr tick_t span = tick_t{1} << (slot_bits * ring_count);

  static tick_t to_tick(nanoseconds_t ns) noexcept { return ns <= 0 ? 0 : static_cast<tick_t>(ns) >> tick_shift; }
  static tick_t to_tick_up(nanoseconds_t ns) noexcept {
    return ns <= 0 ? 0 : (static_cast<tick_t>(ns) + ((tick_t{1} << tick_shift) - 1)) >> tick_shift;
  }
  static nanoseconds_t to_ns_of(tick_t tick) noexcept {
    return tick > (static_cast<tick_t>(never) >> tick_shift) ? never : static_cast<nanoseconds_t>(tick << tick_shift);
  }

  // Not to open before the tick `first`.
  void place(timer_entry& entry, tick_t first) noexcept;
  void unlink(timer_entry& entry) noexcept;
  // The earliest occupied slot: its ring, its number, the tick at which it opens. False: the wheel is empty.
  bool find_next(unsigned& ring, unsigned& slot, tick_t& opens) const noexcept;
  timer_entry* open_slot(unsigned ring, unsigned slot, nanoseconds_t now, timer_entry* fired) noexcept;
  static bool is_to_fire(timer_entry& entry) noexcept;

  spin_lock lock_;
  tick_t elapsed_ = 0;
  atomic<std::uint32_t> count_{0};
  shared_moment next_ns_;  // written under the lock
  std::uint64_t occupied_[ring_count] = {};
  intrusive_list<timer_entry> rings_[ring_count][slot_count];
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

// Puts the entry where its tick first differs from the present one, counted in groups of slot_bits from the top.
CONCUR_INLINE void timer_wheel::place(timer_entry& entry, tick_t first) noexcept {
  tick_t when = to_tick_up(entry.deadline_ns);
  if (when < first) when = first;
  if (when - elapsed_ >= span) when = elapsed_ + span - 1;  // beyond the wheel: looked at again when that slot opens
  const tick_t differs = (when ^ elapsed_) | (slot_count - 1);
  unsigned ring = static_cast<unsigned>(63 - __builtin_clzll(differs)) / slot_bits;
  if (ring >= ring_count && !CONCUR_MUTANT_IS(351)) ring = ring_count - 1;
  const unsigned slot = static_cast<unsigned>(when >> (ring * slot_bits)) % slot_count;
  entry.ring = static_cast<unsigned char>(ring);
  entry.slot = static_cast<unsigned char>(slot);
  rings_[ring][slot].push_back(&entry);
  occupied_[ring] |= std::uint64_t{1} << slot;
}

CONCUR_INLINE void timer_wheel::unlink(timer_entry& entry) noexcept {
  rings_[entry.ring][entry.slot].erase(&entry);
  if (rings_[entry.ring][entry.slot].is_empty()) occupied_[entry.ring] &= ~(std::uint64_t{1} << entry.slot);
}

CONCUR_INLINE void timer_wheel::set(timer_entry& entry) noexcept {
  lock_scope<spin_lock> held(lock_);
  entry.wheel = this;
  place(entry, elapsed_ + 1);
  // relaxed: a figure, and the lock is held.
  count_.store(count_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  if (entry.deadline_ns < next_ns_.read() && !CONCUR_MUTANT_IS(350)) next_ns_.write(entry.deadline_ns);
}

CONCUR_INLINE void timer_wheel::call_off(timer_entry& entry) noexcept {
  lock_scope<spin_lock> held(lock_);
  if (!intrusive_list<timer_entry>::is_linked(&entry)) return;
  unlink(entry);
  // relaxed: a figure, and the lock is held.
  const std::uint32_t left = count_.load(std::memory_order_relaxed) - 1;
  count_.store(left, std::memory_order_relaxed);  // relaxed: as above
  if (left == 0 && !CONCUR_MUTANT_IS(54)) next_ns_.write(never);
}

CONCUR_INLINE bool timer_wheel::find_next(unsigned& ring, unsigned& slot, tick_t& opens) const noexcept {
  for (ring = 0; ring < ring_count; ++ring) {
    if (occupied_[ring] == 0) continue;
    const unsigned shift = ring * slot_bits;
    const unsigned here = static_cast<unsigned>(elapsed_ >> shift) % slot_count;
    // From the slot behind the present one, all the way round: in the present slot of the top ring lies what is a whole
    // turn away.
    const unsigned first = (here + (CONCUR_MUTANT_IS(69) ? 0 : 1)) % slot_count;
    const std::uint64_t ahead =
        first == 0 ? occupied_[ring] : (occupied_[ring] >> first) | (occupied_[ring] << (slot_count - first));
    slot = (first + static_cast<unsigned>(__builtin_ctzll(ahead))) % slot_count;
    const tick_t ring_start = elapsed_ & ~((tick_t{1} << (shift + slot_bits)) - 1);
    opens = ring_start + (static_cast<tick_t>(slot) << shift);
    if (slot <= here) opens += tick_t{1} << (shift + slot_bits);  // only the top ring wraps
    return true;
  }
  return false;
}

// Empties one slot: what is due is claimed and chained before `fired`, the rest goes down the rings.
CONCUR_INLINE timer_entry* timer_wheel::open_slot(unsigned ring, unsigned slot, nanoseconds_t now,
                                                  timer_entry* fired) noexcept {
  intrusive_list<timer_entry> list = rings_[ring][slot];
  rings_[ring][slot] = intrusive_list<timer_entry>();
  occupied_[ring] &= ~(std::uint64_t{1} << slot);
  while (timer_entry* entry = list.pop_front()) {
    // acquire: pairs with the publishing of the wait. Even: the fiber is still leaving; the tick after this look finds it
    // gone (suspend.hpp, S2).
    const bool is_leaving =
        entry->who != nullptr && entry->who->word.load(std::memory_order_acquire) == entry->ticket - 1;
    const bool is_due = CONCUR_MUTANT_IS(352) ? to_tick(entry->deadline_ns) <= to_tick(now) : entry->deadline_ns <= now;
    if (!is_due || (is_leaving && !CONCUR_MUTANT_IS(70))) {
      // A look that comes late finds a leaving fiber once, not once for each tick that has passed.
      place(*entry, (is_leaving && !CONCUR_MUTANT_IS(353) ? to_tick(now) : elapsed_) + 1);
      continue;
    }
    // relaxed: a figure, and the lock is held.
    count_.store(count_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
    if (!is_to_fire(*entry)) continue;  // somebody else ended the wait; its party waits for our lock (D2)
    entry->prev = fired;                // claimed: the party cannot leave, so its frame carries the chain
    fired = entry;
  }
  return fired;
}

// Under the lock: ends the wait, or says that the alarm rings. Neither goes away before what follows without the lock.
CONCUR_INLINE bool timer_wheel::is_to_fire(timer_entry& entry) noexcept {
  if (entry.who == nullptr) {
    static_cast<alarm&>(entry).is_ringing.store(true, std::memory_order_relaxed);  // relaxed: under the lock
    return true;
  }
  if (CONCUR_MUTANT_IS(289)) return true;
  if (!claim(*entry.who, entry.ticket)) return false;
  entry.who->result = outcome::timed_out;
  return true;
}

CONCUR_INLINE void timer_wheel::call_off_alarm(alarm& entry) noexcept {
  if (entry.wheel == nullptr) return;
  entry.wheel->call_off(entry);
  // acquire: pairs with the end of the call.
  for (unsigned round = 0; entry.is_ringing.load(std::memory_order_acquire) && !CONCUR_MUTANT_IS(205);)
    spin_wait(round);
  entry.wheel = nullptr;
}

CONCUR_INLINE std::size_t timer_wheel::fire(nanoseconds_t now) noexcept {
  if (now < next_ns_.read()) return 0;
  timer_entry* fired = nullptr;
  {
    lock_scope<spin_lock> held(lock_);
    const tick_t now_tick = to_tick(now);
    unsigned ring = 0;
    unsigned slot = 0;
    tick_t opens = 0;
    nanoseconds_t next = never;
    while (find_next(ring, slot, opens)) {
      if (opens > now_tick) {
        next = to_ns_of(opens);
        break;
      }
      if (opens > elapsed_) elapsed_ = opens;
      fired = open_slot(ring, slot, now, fired);
    }
    if (now_tick > elapsed_ && next == never) elapsed_ = now_tick;
    next_ns_.write(next);
  }
  // Latest first in the chain: turned round, so that they become ready in the order in which their slots opened.
  timer_entry* in_order = nullptr;
  while (fired != nullptr) {
    timer_entry* before = fired->prev;
    fired->prev = in_order;
    in_order = fired;
    fired = before;
  }
  std::size_t count = 0;
  while (in_order != nullptr) {
    timer_entry* const entry = in_order;
    in_order = in_order->prev;  // read before the resume: the entry goes with its party (W2)
    ++count;
    if (CONCUR_MUTANT_IS(289) && entry->who != nullptr) {
      end_wait(*entry->who, entry->ticket, outcome::timed_out);
      continue;
    }
    if (CONCUR_LIKELY(entry->who != nullptr)) {
      resume(entry->who);
      continue;
    }
    alarm* const rings = static_cast<alarm*>(entry);
    rings->call(rings);
    rings->is_ringing.store(false, std::memory_order_release);  // release: the last touch (D4)
  }
  return count;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
