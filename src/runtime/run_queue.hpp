// runtime/run_queue.hpp - one worker's ready fibers: its own in order, the last one woken first, half of it free to
// be stolen.
//
// The owner pushes and pops at every switch, a thief comes when it has nothing to do. A compare-exchange for each pop
// would cost the owner more than the switch itself, so the owner takes part in a lock that is free for it: it marks
// itself inside with a plain store and looks whether a thief is there; a thief marks itself, makes every thread pass
// a fence (fence.hpp), and looks whether the owner is inside. At least one sees the other, and whoever comes second
// steps back.
//
//     owner                             thief
//     owner_inside_ = 1                 thief bit of gate_: 0 -> 1 by compare-exchange (one thief at a time)
//     light_fence                       heavy_fence
//     thief bit of gate_ ? step back    owner_inside_ != 0 ? wait a little, then give up
//
// Where no asymmetric fence is to be had, a second bit of gate_ is set for good, and the owner's way in is the slow one
// with a full fence; so the usual way asks one question, not two (three instructions of each visit).
//
//   Q1  The ring, its indices, `recent_` and the pinned list are touched only inside.
//   Q2  Inside lasts a few instructions and never runs foreign code: a thief that waits, waits for those, or gives up. The
//       longest visit is that of a fiber that yields: it takes the next one, and is put back by that one behind a switch.
//   Q3  Indices are 32 bits wide and only their difference counts; the ring's size divides 2^32.
//   Q4  A fiber that was just woken goes to `recent_` and runs next: its data is in this core's cache. Three in a row
//       at most, then the ring gets a turn, or two fibers that wake each other would keep the rest out for ever.
//   Q5  Pinned fibers are in a list of their own that thieves do not look at, and take turns with the ring.
//
// Sources: the steal-half ring is the one of Go's scheduler (proc.go, runqgrab); the lock is Dekker's, made
// asymmetric as in Dice, Huang and Yang, "Asymmetric Dekker Synchronization" (2001).
#ifndef CONCUR_RUNTIME_RUN_QUEUE_HPP
#define CONCUR_RUNTIME_RUN_QUEUE_HPP

#include <cstring>

#include "atomic/spin_lock.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/intrusive.hpp"
#include "machine/fence.hpp"
#include "runtime/fiber.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

class run_queue {
 public:
  // Fibers; the rest goes to the shared queue. A ring that is too small for a program's ready fibers moves them all
  // through that queue's lock, again and again; this one costs 8 KiB a worker.
#if defined(CONCUR_EXPLORE)
  static constexpr std::uint32_t capacity = 16;  // small, so that what happens to a full ring happens
  static constexpr std::uint32_t batch = 4;
#else
  static constexpr std::uint32_t capacity = sizeof(void*) == 8 ? 1024 : 256;
  static constexpr std::uint32_t batch = 128;             // how many move at once, to a thief or to the shared queue
#endif

  // Tests begin near the wrap (Q3).
  explicit run_queue(std::uint32_t first_index = 0) noexcept
      : gate_(process_fence_mode.load(std::memory_order_relaxed) == fence_mode::asymmetric  // relaxed: see fence.hpp
                  ? 0
                  : gate_fenced),
        head_(first_index),
        tail_(first_index) {}

  // --- the owner ---

  // Behind all others. False: the ring is full, and `f` is not in it.
  CONCUR_FORCE_INLINE bool push(fiber* f) noexcept {
    enter();
    const bool done = push_inside(f);
    leave();
    return done;
  }

  // The same for n of them in one visit, for which there must be room.
  void push_many(fiber** list, std::uint32_t n) noexcept {
    enter();
    const std::uint32_t tail = tail_.load(std::memory_order_relaxed);  // relaxed: inside (Q1)
    for_each_run(tail, n, [&list](fiber** run, std::uint32_t count) {
      std::memcpy(run, list, count * sizeof *list);
      list += count;
    });
    tail_.store(tail + n, std::memory_order_relaxed);  // relaxed: inside; leave() publishes
    leave();
  }

  // Before all others (Q4). The one that was there goes behind the ring; false: the ring is full and `displaced` is
  // left over.
  CONCUR_FORCE_INLINE bool push_recent(fiber* f, fiber*& displaced) noexcept {
    enter();
    displaced = recent_.load(std::memory_order_relaxed);  // relaxed: inside (Q1)
    recent_.store(f, std::memory_order_relaxed);          // relaxed: inside
    const bool done = displaced == nullptr || push_inside(displaced);
    leave();
    return done;
  }

  void push_pinned(fiber* f) noexcept {
    enter();
    pinned_.push(f);
    // relaxed: a hint for whoever decides whether to look.
    pinned_count_.store(pinned_count_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    leave();
  }

  CONCUR_FORCE_INLINE fiber* pop() noexcept {
    enter();
    fiber* f = pop_inside();
    leave();
    return f;
  }

  // The same, where a driver decides which one (driven.hpp).
  fiber* pop_driven(driver& d) noexcept;

  // Taking one and putting another behind, in one visit: yield's. Both ways end inside, and push_and_leave or leave must
  // follow. Saves a way in and out, a tenth of a yield.
  CONCUR_FORCE_INLINE fiber* pop_and_stay() noexcept {
    enter();
    return pop_inside();
  }
  fiber* pop_and_stay_driven(driver& d) noexcept;
  CONCUR_FORCE_INLINE bool push_and_leave(fiber* f) noexcept {
    const bool done = push_inside(f);
    leave();
    return done;
  }
  CONCUR_FORCE_INLINE void leave() noexcept {
    owner_inside_.store(0, std::memory_order_release);  // release: publishes the ring to the next thief
  }

  // Takes the oldest out of a full ring, to be given to the shared queue in one go: linked, from `first` on, with `behind` at
  // the end. How many were taken; with a thief about, it may be none.
  std::uint32_t pop_batch(fiber*& first, fiber* behind) noexcept {
    enter();
    const std::uint32_t head = head_.load(std::memory_order_relaxed);  // relaxed: inside (Q1)
    std::uint32_t n = tail_.load(std::memory_order_relaxed) - head;    // relaxed: inside
    if (n > batch) n = batch;
    fiber** link = &first;
    for_each_run(head, n, [&link](fiber** run, std::uint32_t count) {
      for (fiber** one = run; one != run + count; ++one) {
        *link = *one;
        link = &(*one)->next;
      }
    });
    *link = behind;
    head_.store(head + n, std::memory_order_relaxed);  // relaxed: inside
    leave();
    return n;
  }

  // For the owner: who is k places behind the next one in the ring, unless somebody takes it meanwhile; null: nobody.
  fiber* peek(std::uint32_t k) const noexcept {
    if (k >= stealable_count()) return nullptr;
    return ring_[(head_.load(std::memory_order_relaxed) + k) % capacity];  // relaxed: a hint
  }

  // --- anybody ---

  // How many fibers a thief may find; exact only for the owner.
  std::uint32_t stealable_count() const noexcept {
    // relaxed: a hint. The fences of the sleep protocol (idle.hpp) make it exact where that counts.
    return tail_.load(std::memory_order_relaxed) - head_.load(std::memory_order_relaxed);
  }
  // Changes whenever the owner takes from the ring: a thief's way to see whether what is there is only passing through.
  std::uint32_t progress_mark() const noexcept { return head_.load(std::memory_order_relaxed); }  // relaxed: a hint
  bool has_any() const noexcept {
    // relaxed: as above.
    return stealable_count() != 0 || recent_.load(std::memory_order_relaxed) != nullptr ||
           pinned_count_.load(std::memory_order_relaxed) != 0;  // relaxed: as above
  }
  bool has_recent() const noexcept { return recent_.load(std::memory_order_relaxed) != nullptr; }  // relaxed: a hint

  // Half of the ring, rounded up, but `batch` at most, into `out`; with an empty ring and take_recent, the
  // recent one. 0: there is nothing, or the owner is inside, or another thief is.
  std::uint32_t steal(fiber** out, bool take_recent) noexcept;

 private:
  CONCUR_FORCE_INLINE void enter() noexcept {
#if CONCUR_TSAN
    for (;;) {
      // seq_cst, both: the tool sees no fence; with these two accesses and the thief's the pattern holds without one.
      owner_inside_.store(1, std::memory_order_seq_cst);
      if (CONCUR_LIKELY((gate_.load(std::memory_order_seq_cst) & gate_thief) == 0)) return;  // seq_cst: as above
      step_back();
    }
#else
    owner_inside_.store(1, std::memory_order_relaxed);    // relaxed: the next line orders it
    std::atomic_signal_fence(std::memory_order_seq_cst);  // seq_cst: a light_fence, where gate_ says that it is one
    // acquire: pairs with the release with which the last thief left.
    if (CONCUR_UNLIKELY(gate_.load(std::memory_order_acquire) != 0)) enter_slowly();
#endif
  }
  void enter_slowly() noexcept;
  void step_back() noexcept;

  CONCUR_FORCE_INLINE bool push_inside(fiber* f) noexcept {
    const std::uint32_t tail = tail_.load(std::memory_order_relaxed);  // relaxed: inside (Q1)
    if (CONCUR_UNLIKELY(tail - head_.load(std::memory_order_relaxed) == capacity)) return false;  // relaxed: inside
    ring_[tail % capacity] = f;
    tail_.store(tail + 1, std::memory_order_relaxed);  // relaxed: inside; leave() publishes
    return true;
  }
  CONCUR_FORCE_INLINE fiber* pop_inside() noexcept {
    fiber* f = recent_.load(std::memory_order_relaxed);  // relaxed: inside (Q1)
    if (f != nullptr && recent_in_a_row_ < recent_in_a_row_limit()) {
      ++recent_in_a_row_;
      recent_.store(nullptr, std::memory_order_relaxed);  // relaxed: inside
      return f;
    }
    recent_in_a_row_ = 0;
    const std::uint32_t head = head_.load(std::memory_order_relaxed);          // relaxed: inside
    const bool is_ring_empty = head == tail_.load(std::memory_order_relaxed);  // relaxed: inside
    if (CONCUR_UNLIKELY(!pinned_.is_empty()) && (is_ring_empty || (turn_ ^= 1) != 0)) return pop_pinned();
    if (!is_ring_empty) {
      head_.store(head + 1, std::memory_order_relaxed);  // relaxed: inside
      return ring_[head % capacity];
    }
    recent_.store(nullptr, std::memory_order_relaxed);  // relaxed: inside
    return f;
  }
  fiber* pop_pinned() noexcept {
    // relaxed: a hint, see has_any.
    pinned_count_.store(pinned_count_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
    return pinned_.pop();
  }
  // n places of the ring from `index` on lie in one piece, or in two: visit(its first place, how many) for each.
  template <class Visit>
  CONCUR_FORCE_INLINE void for_each_run(std::uint32_t index, std::uint32_t n, Visit visit) noexcept {
    const std::uint32_t to_the_end = capacity - index % capacity;
    const std::uint32_t here = n < to_the_end ? n : to_the_end;
    visit(ring_ + index % capacity, here);
    visit(ring_, n - here);
  }
  std::uint32_t take_from_ring(fiber** out, std::uint32_t wanted) noexcept {
    const std::uint32_t head = head_.load(std::memory_order_relaxed);          // relaxed: inside
    const std::uint32_t count = tail_.load(std::memory_order_relaxed) - head;  // relaxed: inside
    const std::uint32_t n = wanted < count ? wanted : count;
    for (std::uint32_t i = 0; i < n; ++i) out[i] = ring_[(head + i) % capacity];
    head_.store(head + n, std::memory_order_relaxed);  // relaxed: inside
    return n;
  }

  static unsigned recent_in_a_row_limit() noexcept { return CONCUR_MUTANT_IS(14) ? ~0u : 3; }

  static constexpr std::uint32_t gate_thief = 1;   // a thief is inside, or about to be; written by the one that won it
  static constexpr std::uint32_t gate_fenced = 2;  // the owner needs a full fence; never changes

  atomic<std::uint32_t> owner_inside_{0};  // 0, 1; written by the owner
  atomic<std::uint32_t> gate_;
  atomic<std::uint32_t> head_;
  atomic<std::uint32_t> tail_;
  atomic<fiber*> recent_{nullptr};
  atomic<std::uint32_t> pinned_count_{0};
  unsigned recent_in_a_row_ = 0;
  unsigned turn_ = 0;
  intrusive_queue<fiber> pinned_;
  fiber* ring_[capacity];
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_NOINLINE CONCUR_INLINE void run_queue::step_back() noexcept {
  owner_inside_.store(0, std::memory_order_release);  // release: lets the thief in, with the ring as it is
  unsigned round = 0;
  // acquire: pairs with the thief's leaving.
  while ((gate_.load(std::memory_order_acquire) & gate_thief) != 0) spin_wait(round);
}

CONCUR_NOINLINE CONCUR_INLINE void run_queue::enter_slowly() noexcept {
  for (;;) {
    light_fence();
    // acquire: pairs with the release with which the last thief left.
    if ((gate_.load(std::memory_order_acquire) & gate_thief) == 0) return;
    step_back();
    owner_inside_.store(1, std::memory_order_relaxed);  // relaxed: light_fence orders it
  }
}

CONCUR_INLINE std::uint32_t run_queue::steal(fiber** out, bool take_recent) noexcept {
  if (stealable_count() == 0 && !(take_recent && has_recent())) return 0;
  const std::uint32_t fenced = gate_.load(std::memory_order_relaxed) & gate_fenced;  // relaxed: never changes
  std::uint32_t expected = fenced;
  // seq_cst: the rare side of the pattern at the top. relaxed on failure: another thief is there, and we leave.
  if (!gate_.compare_exchange_strong(expected, fenced | gate_thief, std::memory_order_seq_cst,
                                     std::memory_order_relaxed))
    return 0;
  heavy_fence();
  // The owner is inside for some ten instructions; if it stays, it was pre-empted there, and somebody else may be
  // robbed.
  constexpr int patience = 200;
  // seq_cst: the load of the pattern; also acquires what the owner published as it left.
  bool is_free = CONCUR_MUTANT_IS(12) || owner_inside_.load(std::memory_order_seq_cst) == 0;
  for (int i = 0; !is_free && i < patience; ++i) {
    spin_briefly(1);
    is_free = owner_inside_.load(std::memory_order_seq_cst) == 0;  // seq_cst: as above
  }
  std::uint32_t n = 0;
  if (is_free) {
    const std::uint32_t half = (stealable_count() + 1) / 2;
    n = take_from_ring(out, half < batch ? half : batch);
    if (n == 0 && take_recent) {
      fiber* f = recent_.load(std::memory_order_relaxed);  // relaxed: inside (Q1)
      if (f != nullptr) {
        recent_.store(nullptr, std::memory_order_relaxed);  // relaxed: inside
        out[n++] = f;
      }
    }
  }
  gate_.store(fenced, std::memory_order_release);  // release: publishes the ring to the owner
  return n;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
