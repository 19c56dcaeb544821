// atomic/mpsc_queue.hpp - a bounded queue from many threads to one, which none of the many can hold up.
//
// The usual ones share a weakness. Where pushers link nodes (Vyukov's queue of nodes), or fill cells in turn (mpmc_queue),
// a pusher that the kernel stops half-way leaves a gap, and all that others have pushed behind it is out of reach until it
// runs again: milliseconds, on a loaded machine. Here the consumer looks past such gaps.
//
//     word          who writes it              what it says
//     tail_         pushers, by exchange       the index that the next push takes
//     mark of p     the pusher of index p      p + 1: the cell holds the value of index p
//                   it, or the consumer        p: nothing is to be had here any more; anything else: not yet
//     head_         the consumer               no index before it is of interest
//     known_head_   pushers                    some earlier head_
//
//   P1  Who moves tail_ from p owns the cell of p until it writes the mark. It may do so only if p is less than head_ +
//       capacity: the value that was in the cell before is then gone.
//   P2  The consumer takes the value at head_ if it is there. If not, it reads tail_, and takes the first value that is
//       there from head_ up to that tail, head_ once more included. Nothing from behind that tail: while the consumer
//       searches, a push that it has passed over may end, and another one may begin after that and end too.
//   P3  So a value overtakes another only where their pushes overlapped, and nobody can tell, within one thread or
//       between several. "Empty" is said only if all that had been pushed when tail_ was read has been popped.
//   P4  A value taken before its turn leaves its index as mark. head_ passes such cells when it comes to them; until then
//       their room is not free, so after an overtaking "full" may be said a few values early. How many there are next to
//       head_ is counted: with one pusher stopped, each search is a step or two, not one over all that was taken.
//   P5  A push whose value throws leaves the same mark; it takes up room until head_ has passed. What may throw is done
//       before the index is taken, unless moves throw too. A value whose move out of the queue throws stays the oldest.
//   P6  Indices run freely and wrap; only differences count. The number of cells is a power of two, at least 2, so that it
//       divides the wrap and P4's mark is none of the cell's others; the capacity is what was asked for.
//   P7  known_head_ may be behind head_ and may go back; what it grants is granted (P1), what it denies is asked of head_.
//
// Progress: try_pop is wait-free, in as many steps as there are indices between head_ and tail_; try_push is lock-free, one
// compare-exchange when no other gets in between. A pusher that is stopped for good costs its place at once, and all
// room in the end: "full" is said when the index that comes next is a capacity ahead of the oldest that is not done.
//
// Cost: one compare-exchange a push, none a pop. A pop that finds nothing searches, and reads tail_ for it, which the pushers
// are writing. Between two threads on a busy machine, with a consumer that asks again and again, an item took about twice the
// time that it takes without the search: the price of an "empty" that can be relied on (P3).
//
// Happens-before: what comes before a push happens before what follows the pop of its value; a pop happens before what
// follows the push that uses its room. A push that happened before a pop is not missed by it.
//
// Sources: the queue of Herlihy and Wing, "Linearizability" (1990), section 4.1, whose dequeue searches from the front up
// to a bound read first; Adas and Friedman, "Jiffy" (2020), has one consumer search past pushers likewise. known_head_ is
// MCRingBuffer's (spsc_queue.hpp), shared here.
//
// Rejected: nodes. They are unbounded or need a list of free ones, which is a second exchange for each push. The runtime
// does link nodes where it sends fibers home to their worker (scheduler.hpp): a fiber brings its node with it, must never be
// refused, and its worker takes all that there is at once; that stack is as unstoppable as this and dearer only to reverse.
#ifndef CONCUR_ATOMIC_MPSC_QUEUE_HPP
#define CONCUR_ATOMIC_MPSC_QUEUE_HPP

#include <optional>
#include <type_traits>

#include "atomic/queue_room.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"

CONCUR_NAMESPACE_BEGIN

template <class T>
class mpsc_queue {
 public:
  using value_type = T;

  // Throws std::invalid_argument when capacity is 0 or beyond all memory, std::bad_alloc when there is not so much.
  explicit mpsc_queue(std::size_t capacity) : mpsc_queue(capacity, 0) {}
  // Destroys what is left. All threads must be through.
  ~mpsc_queue() {
    const std::size_t tail = tail_.load(std::memory_order_relaxed);                     // relaxed: nobody else is there
    for (std::size_t i = head_.load(std::memory_order_relaxed); i != tail; ++i) {       // relaxed: as above
      if (cell_at(i).mark.load(std::memory_order_relaxed) == i + 1) cell_at(i).drop();  // relaxed: as above
    }
  }
  mpsc_queue(const mpsc_queue&) = delete;
  mpsc_queue& operator=(const mpsc_queue&) = delete;

  // --- any thread ---

  // False: it is full, and the value is untouched.
  bool try_push(const T& value) { return try_emplace(value); }
  bool try_push(T&& value) { return try_emplace(std::move(value)); }

  // False: it is full. What the value's constructor throws passes, and nothing was pushed.
  template <class... Args>
  bool try_emplace(Args&&... args) {
    if constexpr (!std::is_nothrow_constructible_v<T, Args...> && std::is_nothrow_move_constructible_v<T>) {
      return may_have_room() && try_emplace(T(std::forward<Args>(args)...));  // P5
    } else {
      std::size_t index;
      if (CONCUR_UNLIKELY(!claim(index))) return false;
      cell& owned = cell_at(index);
      if constexpr (std::is_nothrow_constructible_v<T, Args...>) {
        owned.fill(std::forward<Args>(args)...);
        owned.mark.store(index + 1, publish_order());  // release: gives the value to the consumer
      } else {
        marked_at_last filled{owned, index};
        owned.fill(std::forward<Args>(args)...);
        filled.mark = index + 1;
      }
      return true;
    }
  }

  // --- the consumer ---

  // The oldest value, or nothing when it is empty.
  std::optional<T> try_pop() {
    std::optional<T> taken;
    std::size_t index;
    if (cell* const oldest = find(index)) {
      taken.emplace(std::move(oldest->value()));
      leave(*oldest, index);
    }
    return taken;
  }
  // False: it is empty, and `value` is untouched.
  bool try_pop(T& value) {
    std::size_t index;
    cell* const oldest = find(index);
    if (CONCUR_UNLIKELY(oldest == nullptr)) return false;
    value = std::move(oldest->value());
    leave(*oldest, index);
    return true;
  }

  // --- anybody ---

  std::size_t capacity() const noexcept { return capacity_; }
  // How many places were in use a moment ago: values, and what still takes up room before them (P4, P5). Exact when nobody
  // is at work.
  std::size_t size_approx() const noexcept {
    const std::size_t head = head_.load(std::memory_order_relaxed);  // relaxed: a number to look at, not to act on
    return detail::plausible_size(head, tail_.load(std::memory_order_relaxed), capacity_);  // relaxed: as above
  }

 protected:
  // Tests begin near the wrap (P6).
  mpsc_queue(std::size_t capacity, std::size_t first_index)
      : capacity_(detail::checked_capacity("mpsc_queue", capacity, sizeof(cell))),
        mask_(detail::power_of_two_for(capacity > 1 ? capacity : 2) - 1),
        cells_(mask_ + 1),
        tail_(first_index),
        known_head_(first_index),
        head_(first_index) {
    for (std::size_t i = 0; i <= mask_; ++i) {
      // As if it had been filled a lap before. relaxed: whoever hands out the queue publishes it.
      cell_at(first_index + i).mark.store(first_index + i - mask_, std::memory_order_relaxed);
    }
  }

 private:
  static std::memory_order publish_order() noexcept {
    return CONCUR_MUTANT_IS(314) ? std::memory_order_relaxed : std::memory_order_release;
  }
  static std::memory_order value_order() noexcept {
    return CONCUR_MUTANT_IS(315) ? std::memory_order_relaxed : std::memory_order_acquire;
  }
  static std::memory_order vacate_order() noexcept {
    return CONCUR_MUTANT_IS(318) ? std::memory_order_relaxed : std::memory_order_release;
  }

  struct cell : detail::value_cell<T> {
    detail::atomic<std::size_t> mark{0};
  };
  // Writes the mark when it goes, also if an exception is why (P5).
  struct marked_at_last {
    cell& owned;
    std::size_t mark;
    ~marked_at_last() { owned.mark.store(mark, publish_order()); }  // release: gives the value to the consumer
  };

  CONCUR_FORCE_INLINE cell& cell_at(std::size_t index) noexcept { return cells_[index & mask_]; }

  // An index and its cell are now ours (P1). False: full.
  CONCUR_FORCE_INLINE bool claim(std::size_t& index) noexcept {
    CONCUR_PLANTED auto tail_order = CONCUR_MUTANT_IS(316) ? std::memory_order_relaxed : std::memory_order_release;
    CONCUR_PLANTED auto room_order = CONCUR_MUTANT_IS(321) ? std::memory_order_relaxed : std::memory_order_acquire;
    index = tail_.load(std::memory_order_relaxed);  // relaxed: an old index fails at the exchange
    for (;;) {
      // acquire: pairs with the store in has_room; so the consumer's work on the cell is over for us too.
      if (CONCUR_UNLIKELY(index - known_head_.load(room_order) >= capacity_) && !has_room(index)) return false;
      // release: who reads this tail, or a later one, sees all pushes that had ended before ours began (P2). relaxed on
      // failure: the index is looked at again.
      if (CONCUR_LIKELY(tail_.compare_exchange_weak(index, index + 1, tail_order, std::memory_order_relaxed)))
        return true;
    }
  }
  // Asks head_ whether the index can be had, and passes the answer on to other pushers. Brings the index up to date.
  bool has_room(std::size_t& index) noexcept {
    CONCUR_PLANTED auto room_order = CONCUR_MUTANT_IS(319) ? std::memory_order_relaxed : std::memory_order_acquire;
    CONCUR_PLANTED auto head_order = CONCUR_MUTANT_IS(320) ? std::memory_order_relaxed : std::memory_order_release;
    for (;;) {
      const std::size_t head = head_.load(room_order);  // acquire: pairs with move_head; the cells before it are empty
      if (index - head < capacity_) {
        known_head_.store(head, head_order);  // release: what we acquired from the consumer, others acquire from us
        return true;
      }
      if (CONCUR_MUTANT_IS(328) ? index >= head : index - head <= SIZE_MAX / 2) return false;
      index = tail_.load(std::memory_order_relaxed);  // relaxed: ours was so old that it is behind head_
    }
  }

  // A look before a value is made for nothing.
  bool may_have_room() const noexcept {
    const std::size_t tail = tail_.load(std::memory_order_relaxed);          // relaxed: only a look
    const std::size_t ahead = tail - head_.load(std::memory_order_relaxed);  // relaxed: as above
    return ahead < capacity_ || ahead > SIZE_MAX / 2;
  }

  // The cell of the value to be taken next, and its index; null: empty (P2).
  CONCUR_FORCE_INLINE cell* find(std::size_t& index) noexcept {
    index = head_.load(std::memory_order_relaxed);  // relaxed: our own
    cell& first = cell_at(index);
    if (CONCUR_LIKELY(first.mark.load(value_order()) == index + 1))
      return &first;  // acquire: pairs with the pusher's mark
    return search(index);
  }
  CONCUR_NOINLINE cell* search(std::size_t& index) noexcept {
    CONCUR_PLANTED auto tail_order = CONCUR_MUTANT_IS(317) ? std::memory_order_relaxed : std::memory_order_acquire;
    // acquire: pairs with claim, so that what ended before any push up to here began is seen below.
    const std::size_t tail = tail_.load(tail_order);
    for (;; move_head(++index)) {
      if (index == tail) return nullptr;
      cell& first = cell_at(index);
      const std::size_t mark = first.mark.load(value_order());  // acquire: as in find
      if (mark == index + 1 && !CONCUR_MUTANT_IS(326)) return &first;
      if (mark != index) break;
    }
    for (index += 1 + early_count_; index != tail; ++index) {
      cell& next = cell_at(index);
      if (next.mark.load(value_order()) == index + 1) return &next;  // acquire: as in find
    }
    return nullptr;
  }
  // The value was moved out.
  CONCUR_FORCE_INLINE void leave(cell& taken, std::size_t index) noexcept {
    taken.drop();
    const std::size_t head = head_.load(std::memory_order_relaxed);  // relaxed: our own
    if (CONCUR_LIKELY(index == head)) return move_head(index + 1);
    taken.mark.store(index, std::memory_order_relaxed);  // relaxed: for us alone, until a pusher owns the cell
    if (index == head + 1 + early_count_) ++early_count_;
  }
  CONCUR_FORCE_INLINE void move_head(std::size_t head) noexcept {
    head_.store(head, vacate_order());  // release: gives the cells before it, in which nobody reads any more, to pushers
    early_count_ = 0;
  }

  // Read by all, written by none.
  alignas(detail::cache_line_bytes) const std::size_t capacity_;
  const std::size_t mask_;
  detail::cell_array<cell> cells_;
  // The pushers', and the consumer's.
  alignas(detail::cache_line_bytes) detail::atomic<std::size_t> tail_;
  detail::atomic<std::size_t> known_head_;
  alignas(detail::cache_line_bytes) detail::atomic<std::size_t> head_;
  std::size_t early_count_ = 0;  // so many cells behind head_, at least, were taken before their turn (P4)
};

CONCUR_NAMESPACE_END

#endif
