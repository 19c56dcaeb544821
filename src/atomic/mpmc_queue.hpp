// atomic/mpmc_queue.hpp - a bounded queue from many threads to many.
//
// Pushers compete for places at the tail, poppers for values at the head, and the two crowds should not meet: a pusher that
// had to read the head would fetch a line that the poppers fight for. So whether a cell is free, or filled, is said by
// the cell itself. Each has a stamp, and who comes with an index knows from the stamp alone whose turn it is:
//
//     stamp of cell i           says                                         next written by
//     lap n, i                  free for the push that takes index (n, i)    that pusher, when its value is in
//     lap n, i, plus 1          holds the value of index (n, i)              the popper that takes (n, i), when it is out
//     lap n + 1, i              free for the push one lap later              ...
//
// An index is a lap and a place: the place in the low bits, the lap above. After the last place comes the first of the
// next lap. So there are as many cells as values wanted, not a power of two of them, and the laps, which wrap, lose
// nothing when they do.
//
//   M1  tail_ and head_ are only moved by compare-exchange, from one index to the next. Who moves tail_ from x owns the
//       cell of x until it writes the stamp x + 1; who moves head_ from x owns it until it writes x + one lap.
//   M2  tail_ is moved from x only after the stamp x was seen in x's cell, head_ only after x + 1. Before the word comes
//       to x again, laps later, the stamp is another; so a move that succeeds was right. (A thread that sleeps
//       between the two while the others use up all laps could be wrong: 2^64 operations, 2^32 on 32-bit machines.)
//   M3  A stamp older than the one wanted is an answer: full, or empty. A newer one says only that our index is old.
//   M4  Who owns a cell must write its stamp, come what may. So what may throw is done before: the value is made first, and
//       moved in. If moves may throw too, a push that does leaves a hole (half a lap above the stamp of a value), which
//       takes up room until a popper comes to it and steps over. A value whose move out throws is destroyed.
//
// Progress: neither operation waits, and none can keep others from competing; but it is not lock-free. A pusher that the
// kernel stops between its move of tail_ and its stamp has its value unread, and those behind it: poppers are told
// "empty" when they come to that cell, pushers "full" a lap later. A popper that is stopped likewise makes it full. So
// false means: full (or empty), or the thread whose turn it is at that cell is not through. And like any answer about
// others, it may be out of date when it is given, unless what they did happened before.
//
// Order: first in, first out, by the moves of tail_ and head_. Happens-before: what comes before a push happens before
// what follows the pop of its value; a pop happens before what follows the push that uses its cell.
//
// Cost: one compare-exchange an operation. Source: Vyukov, "Bounded MPMC queue" (1024cores.net); the lap beside the place
// is as in crossbeam's ArrayQueue.
//
// Rejected: SCQ (Nikolaev, 2019), which is lock-free: two queues of indices beside the values make an operation twice as
// dear where nobody is stopped. Tickets by fetch_add are quicker in a crowd, but who has one cannot be told "full".
#ifndef CONCUR_ATOMIC_MPMC_QUEUE_HPP
#define CONCUR_ATOMIC_MPMC_QUEUE_HPP

#include <optional>
#include <type_traits>

#include "atomic/queue_room.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"

CONCUR_NAMESPACE_BEGIN

template <class T>
class mpmc_queue {
 public:
  using value_type = T;

  // Throws std::invalid_argument when capacity is 0 or beyond all memory, std::bad_alloc when there is not so much.
  explicit mpmc_queue(std::size_t capacity) : mpmc_queue(capacity, 0) {}
  // Destroys what is left. All threads must be through.
  ~mpmc_queue() {
    const std::size_t tail = tail_.load(std::memory_order_relaxed);  // relaxed: nobody else is there
    for (std::size_t i = head_.load(std::memory_order_relaxed); i != tail; i = after(i)) {  // relaxed: as above
      if (cell_at(i).stamp.load(std::memory_order_relaxed) == i + 1) cell_at(i).drop();     // relaxed: as above
    }
  }
  mpmc_queue(const mpmc_queue&) = delete;
  mpmc_queue& operator=(const mpmc_queue&) = delete;

  // False: it is full, and the value is untouched.
  bool try_push(const T& value) { return try_emplace(value); }
  bool try_push(T&& value) { return try_emplace(std::move(value)); }

  // False: it is full. What the value's constructor throws passes, and nothing was pushed.
  template <class... Args>
  bool try_emplace(Args&&... args) {
    if constexpr (!std::is_nothrow_constructible_v<T, Args...> && std::is_nothrow_move_constructible_v<T>) {
      return has_room() && try_emplace(T(std::forward<Args>(args)...));  // M4
    } else {
      std::size_t index;
      cell* const free = claim_free(index);
      if (CONCUR_UNLIKELY(free == nullptr)) return false;
      if constexpr (std::is_nothrow_constructible_v<T, Args...>) {
        free->fill(std::forward<Args>(args)...);
        free->stamp.store(index + 1, publish_order());  // release: gives the value to the popper that takes this index
      } else {
        stamped_at_last filled{*free, index + 1 + hole_};
        free->fill(std::forward<Args>(args)...);
        filled.stamp = index + 1;
      }
      return true;
    }
  }

  // The oldest value, or nothing when it is empty.
  std::optional<T> try_pop() {
    std::optional<T> taken;
    std::size_t index;
    if (cell* const oldest = claim_filled(index)) {
      const dropped_at_last end{*oldest, index + lap_};
      taken.emplace(std::move(oldest->value()));
    }
    return taken;
  }
  // False: it is empty, and `value` is untouched.
  bool try_pop(T& value) {
    std::size_t index;
    cell* const oldest = claim_filled(index);
    if (CONCUR_UNLIKELY(oldest == nullptr)) return false;
    const dropped_at_last end{*oldest, index + lap_};
    value = std::move(oldest->value());
    return true;
  }

  std::size_t capacity() const noexcept { return capacity_; }
  // How many values it held a moment ago, those on their way in and out included; exact when nobody is at work.
  std::size_t size_approx() const noexcept {
    const std::size_t head = head_.load(std::memory_order_relaxed);  // relaxed: a number to look at, not to act on
    const std::size_t tail = tail_.load(std::memory_order_relaxed);  // relaxed: as above
    const std::size_t laps = (tail - place_of(tail) - (head - place_of(head))) / lap_;
    return detail::plausible_size(place_of(head), laps * capacity_ + place_of(tail), capacity_);
  }

 protected:
  // Tests begin near the wrap, with the lap that this index is in.
  mpmc_queue(std::size_t capacity, std::size_t first_index)
      : capacity_(detail::checked_capacity("mpmc_queue", capacity, sizeof(cell))),
        hole_(detail::power_of_two_for(capacity + 1)),
        lap_(2 * hole_),
        cells_(capacity),
        tail_(first_index - first_index % lap_),
        head_(first_index - first_index % lap_) {
    std::size_t index = tail_.load(std::memory_order_relaxed);  // relaxed: whoever hands out the queue publishes it
    for (std::size_t i = 0; i < capacity; ++i)
      cells_[i].stamp.store(index++, std::memory_order_relaxed);  // relaxed: as above
  }

 private:
  static std::memory_order publish_order() noexcept {
    return CONCUR_MUTANT_IS(323) ? std::memory_order_relaxed : std::memory_order_release;
  }
  static std::memory_order vacate_order() noexcept {
    return CONCUR_MUTANT_IS(325) ? std::memory_order_relaxed : std::memory_order_release;
  }

  struct cell : detail::value_cell<T> {
    detail::atomic<std::size_t> stamp{0};
  };
  // Writes the stamp when it goes, also if an exception is why (M4).
  struct stamped_at_last {
    cell& owned;
    std::size_t stamp;
    // release: gives the value, or the hole, to the popper that takes this index
    ~stamped_at_last() { owned.stamp.store(stamp, publish_order()); }
  };
  struct dropped_at_last {
    cell& owned;
    std::size_t stamp;
    ~dropped_at_last() {
      owned.drop();
      owned.stamp.store(stamp, vacate_order());  // release: gives the cell, in which nobody reads any more, to a pusher
    }
  };

  // --- indices and stamps: the place in the bits below hole_, the lap from lap_ on ---

  CONCUR_FORCE_INLINE std::size_t place_of(std::size_t index) const noexcept { return index & (hole_ - 1); }
  CONCUR_FORCE_INLINE cell& cell_at(std::size_t index) noexcept { return cells_[place_of(index)]; }
  CONCUR_FORCE_INLINE std::size_t after(std::size_t index) const noexcept {
    const std::size_t place = place_of(index);
    return CONCUR_LIKELY(place + 1 < capacity_) ? index + 1 : index - place + lap_;
  }
  // Also where a lap number has wrapped in between.
  static bool is_older(std::size_t stamp, std::size_t than) noexcept {
    return CONCUR_MUTANT_IS(327) ? stamp < than : stamp - than > SIZE_MAX / 2;
  }

  // --- turns ---

  // A cell that is now ours to fill, and its index; null: full (M3).
  CONCUR_FORCE_INLINE cell* claim_free(std::size_t& index) noexcept {
    CONCUR_PLANTED auto room_order = CONCUR_MUTANT_IS(322) ? std::memory_order_relaxed : std::memory_order_acquire;
    index = tail_.load(std::memory_order_relaxed);  // relaxed: an old index fails at its cell or at the exchange (M3)
    for (;;) {
      cell& turn = cell_at(index);
      const std::size_t stamp = turn.stamp.load(room_order);  // acquire: pairs with the popper's; the cell is empty
      if (CONCUR_LIKELY(stamp == index)) {
        // relaxed, both: who owns which cell is all it says (M1); values are passed on by the stamps.
        if (CONCUR_LIKELY(tail_.compare_exchange_weak(index, after(index), std::memory_order_relaxed))) return &turn;
      } else if (is_older(stamp, index)) {
        return nullptr;
      } else {
        index = tail_.load(std::memory_order_relaxed);  // relaxed: as above
      }
    }
  }

  // A cell whose value is now ours to take, and its index; null: empty (M3).
  CONCUR_FORCE_INLINE cell* claim_filled(std::size_t& index) noexcept {
    CONCUR_PLANTED auto value_order = CONCUR_MUTANT_IS(324) ? std::memory_order_relaxed : std::memory_order_acquire;
    index = head_.load(std::memory_order_relaxed);  // relaxed: an old index fails at its cell or at the exchange (M3)
    for (;;) {
      cell& turn = cell_at(index);
      const std::size_t stamp = turn.stamp.load(value_order);  // acquire: pairs with the pusher's; the value is there
      const bool is_hole = has_holes && stamp == index + 1 + hole_;
      if (CONCUR_LIKELY(stamp == index + 1) || is_hole) {
        // relaxed, both: as in claim_free.
        if (CONCUR_UNLIKELY(!head_.compare_exchange_weak(index, after(index), std::memory_order_relaxed))) continue;
        if (!is_hole) return &turn;
        turn.stamp.store(index + lap_, vacate_order());  // release: as for a value
      } else if (is_older(stamp, index + 1)) {
        return nullptr;
      }
      index = head_.load(std::memory_order_relaxed);  // relaxed: as above
    }
  }

  bool has_room() noexcept {
    const std::size_t index = tail_.load(std::memory_order_relaxed);                // relaxed: a first look, no more
    return !is_older(cell_at(index).stamp.load(std::memory_order_relaxed), index);  // relaxed: as above
  }

  static constexpr bool has_holes = !std::is_nothrow_move_constructible_v<T>;

  // Read by all, written by none.
  alignas(detail::cache_line_bytes) const std::size_t capacity_;
  const std::size_t hole_;  // what a stamp has more when a hole stands for the value; above all places, a power of two
  const std::size_t lap_;   // from an index to the same place a lap later
  detail::cell_array<cell> cells_;
  // The pushers', and the poppers'.
  alignas(detail::cache_line_bytes) detail::atomic<std::size_t> tail_;
  alignas(detail::cache_line_bytes) detail::atomic<std::size_t> head_;
};

CONCUR_NAMESPACE_END

#endif
