// atomic/spsc_queue.hpp - a bounded queue from one thread to one other.
//
// The cheapest way there is to hand values from a thread to another: no read-modify-write, no lock, no allocation after
// the constructor. One thread pushes, one pops; which ones may change, if the change itself is ordered (by a join,
// a lock, or another queue). Both only try: what to do with a full or an empty queue is the caller's.
//
// Where the cost lies: a word that one core writes and another reads travels between them, for some fifty times the price of
// an instruction. A ring with two indices makes each travel for each value. So each side keeps a copy of the other's
// index and looks at the original only when the copy says full, or empty; while there are values and room, what
// travels is the values.
//
//     word          who writes it     what it says
//     tail_         the producer      how many were pushed, ever
//     head_         the consumer      how many were popped, ever
//     known_head_   the producer      some earlier head_; only it reads it
//     known_tail_   the consumer      some earlier tail_; only it reads it
//
//   S1  Cells head_ up to tail_ hold values and are the consumer's; the others hold nothing and are the producer's. A cell
//       changes hands by the release store of the index that passes it, and only after the work on it is done.
//   S2  A copy is never ahead of its original, so what it grants is granted; what it denies is asked of the original.
//   S3  Indices run freely and wrap; only differences count. The number of cells is a power of two, so that it divides
//       the wrap. The capacity is what was asked for nevertheless: capacity 5 has 8 cells and holds 5 values.
//   S4  A constructor or move that throws leaves the queue as it was: the index moves afterwards. A value whose move out
//       of the queue threw is still the oldest, in the state in which its move left it.
//
// Progress: wait-free, a handful of steps. Happens-before: what comes before a push happens before what follows the
// pop of its value; and a pop happens before what follows the push that uses its room. Only in ordinary code, not
// in signal handlers that interrupt the same side.
//
// Sources: Lamport, "Proving the Correctness of Multiprocess Programs" (1977), for the ring; Lee, Bu and Chandranmenon,
// "A Lock-Free, Cache-Efficient Shared Ring Buffer for Multi-Core Architectures" (MCRingBuffer, 2009), for the copies.
#ifndef CONCUR_ATOMIC_SPSC_QUEUE_HPP
#define CONCUR_ATOMIC_SPSC_QUEUE_HPP

#include <optional>

#include "atomic/queue_room.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"

CONCUR_NAMESPACE_BEGIN

template <class T>
class spsc_queue {
 public:
  using value_type = T;

  // Throws std::invalid_argument when capacity is 0 or beyond all memory, std::bad_alloc when there is not so much.
  explicit spsc_queue(std::size_t capacity) : spsc_queue(capacity, 0) {}
  // Destroys what is left. Both threads must be through.
  ~spsc_queue() {
    const std::size_t tail = tail_.load(std::memory_order_relaxed);  // relaxed: nobody else is there
    for (std::size_t i = head_.load(std::memory_order_relaxed); i != tail; ++i)
      cells_[i & mask_].drop();  // relaxed: as above
  }
  spsc_queue(const spsc_queue&) = delete;
  spsc_queue& operator=(const spsc_queue&) = delete;

  // --- the producer ---

  // False: it is full, and the value is untouched.
  bool try_push(const T& value) { return try_emplace(value); }
  bool try_push(T&& value) { return try_emplace(std::move(value)); }

  // False: it is full, and nothing was made of the arguments.
  template <class... Args>
  bool try_emplace(Args&&... args) {
    const std::size_t tail = tail_.load(std::memory_order_relaxed);  // relaxed: our own
    if (CONCUR_UNLIKELY(room_behind(tail, 1) == 0)) return false;
    cells_[tail & mask_].fill(std::forward<Args>(args)...);
    tail_.store(tail + 1, publish_order());  // release: gives the consumer the cell and the value in it (S1)
    return true;
  }

  // Moves in what `first` and its successors point to, as far as there is room, `count` values at most, and returns how
  // many. The consumer sees them all at once. If one throws, those before it are in.
  template <class Iterator>
  std::size_t try_push_some(Iterator first, std::size_t count) {
    const std::size_t tail = tail_.load(std::memory_order_relaxed);  // relaxed: our own
    const std::size_t room = room_behind(tail, count);
    stored_at_last pushed{tail_, tail, publish_order()};
    for (const std::size_t end = tail + (count < room ? count : room); pushed.index != end; ++pushed.index, ++first)
      cells_[pushed.index & mask_].fill(std::move(*first));
    return pushed.index - tail;
  }

  // --- the consumer ---

  // The oldest value, or nothing when it is empty.
  std::optional<T> try_pop() {
    std::optional<T> taken;
    const std::size_t head = head_.load(std::memory_order_relaxed);  // relaxed: our own
    if (CONCUR_UNLIKELY(values_from(head, 1) == 0)) return taken;
    detail::value_cell<T>& oldest = cells_[head & mask_];
    taken.emplace(std::move(oldest.value()));
    oldest.drop();
    head_.store(head + 1, vacate_order());  // release: gives the producer the cell, of which nobody reads any more (S1)
    return taken;
  }
  // False: it is empty, and `value` is untouched.
  bool try_pop(T& value) {
    const std::size_t head = head_.load(std::memory_order_relaxed);  // relaxed: our own
    if (CONCUR_UNLIKELY(values_from(head, 1) == 0)) return false;
    detail::value_cell<T>& oldest = cells_[head & mask_];
    value = std::move(oldest.value());
    oldest.drop();
    head_.store(head + 1, vacate_order());  // release: as above
    return true;
  }

  // Assigns the oldest values to what `to` and its successors point to, `count` at most, and returns how many there were.
  // The producer sees their room all at once. If one throws, those before it are out.
  template <class Iterator>
  std::size_t try_pop_some(Iterator to, std::size_t count) {
    const std::size_t head = head_.load(std::memory_order_relaxed);  // relaxed: our own
    const std::size_t there = values_from(head, count);
    stored_at_last popped{head_, head, vacate_order()};
    for (const std::size_t end = head + (count < there ? count : there); popped.index != end; ++popped.index, ++to) {
      detail::value_cell<T>& oldest = cells_[popped.index & mask_];
      *to = std::move(oldest.value());
      oldest.drop();
    }
    return popped.index - head;
  }

  // --- anybody ---

  std::size_t capacity() const noexcept { return capacity_; }
  // How many values it held a moment ago; exact when neither side is at work.
  std::size_t size_approx() const noexcept {
    const std::size_t head = head_.load(std::memory_order_relaxed);  // relaxed: a number to look at, not to act on
    return detail::plausible_size(head, tail_.load(std::memory_order_relaxed), capacity_);  // relaxed: as above
  }

 protected:
  // Tests begin near the wrap (S3).
  spsc_queue(std::size_t capacity, std::size_t first_index)
      : capacity_(detail::checked_capacity("spsc_queue", capacity, sizeof(detail::value_cell<T>))),
        mask_(detail::power_of_two_for(capacity) - 1),
        cells_(mask_ + 1),
        tail_(first_index),
        known_head_(first_index),
        head_(first_index),
        known_tail_(first_index) {}

 private:
  static std::memory_order publish_order() noexcept {
    return CONCUR_MUTANT_IS(311) ? std::memory_order_relaxed : std::memory_order_release;
  }
  static std::memory_order vacate_order() noexcept {
    return CONCUR_MUTANT_IS(313) ? std::memory_order_relaxed : std::memory_order_release;
  }

  // Of a batch, what was done is said once, also when an exception ends it.
  struct stored_at_last {
    detail::atomic<std::size_t>& word;
    std::size_t index;
    const std::memory_order order;
    ~stored_at_last() { word.store(index, order); }  // release: as in try_emplace and try_pop
  };

  // How many more values fit, as far as it is known; asks the consumer's index only if it is known for less than `wanted`.
  CONCUR_FORCE_INLINE std::size_t room_behind(std::size_t tail, std::size_t wanted) noexcept {
    if (CONCUR_UNLIKELY(capacity_ - (tail - known_head_) < wanted)) {
      CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(310) ? std::memory_order_relaxed : std::memory_order_acquire;
      known_head_ =
          head_.load(order);  // acquire: pairs with the store in try_pop; the cells are ours when they are empty
    }
    return capacity_ - (tail - known_head_);
  }
  CONCUR_FORCE_INLINE std::size_t values_from(std::size_t head, std::size_t wanted) noexcept {
    if (CONCUR_UNLIKELY(known_tail_ - head < wanted)) {
      CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(312) ? std::memory_order_relaxed : std::memory_order_acquire;
      known_tail_ = tail_.load(order);  // acquire: pairs with the store in try_emplace; the values are there to be read
    }
    return known_tail_ - head;
  }

  // Read by both sides, written by none.
  alignas(detail::cache_line_bytes) const std::size_t capacity_;
  const std::size_t mask_;
  detail::cell_array<detail::value_cell<T>> cells_;
  // The producer's, and the consumer's.
  alignas(detail::cache_line_bytes) detail::atomic<std::size_t> tail_;
  std::size_t known_head_;
  alignas(detail::cache_line_bytes) detail::atomic<std::size_t> head_;
  std::size_t known_tail_;
};

CONCUR_NAMESPACE_END

#endif
