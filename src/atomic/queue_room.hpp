// atomic/queue_room.hpp - the memory of a bounded queue: so many cells, each of which holds a value or nothing.
//
// What a queue asks for is had once, in its constructor; from then on it neither allocates nor frees. Cells are not
// padded to a line each: values that follow one another are mostly pushed by one thread and popped by another, and a line
// that carries several of them is fetched once for all. The first and the last cell share no line with what is
// not the queue's.
//
//   N1  A cell does not know whether it holds a value. Whoever owns it at the moment knows, by the rules of the queue.
//   N2  Each touch of a value is announced (word.hpp, W3): an exploration sees when two threads own a cell at once.
#ifndef CONCUR_ATOMIC_QUEUE_ROOM_HPP
#define CONCUR_ATOMIC_QUEUE_ROOM_HPP

#include <new>
#include <utility>

#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/error.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Room for one value.
template <class T>
class value_cell {
 public:
  value_cell() noexcept { note_birth(this); }
  value_cell(const value_cell&) = delete;
  value_cell& operator=(const value_cell&) = delete;

  template <class... Args>
  CONCUR_FORCE_INLINE void fill(Args&&... args) {
    note_write(this, "the cell of a queue");
    ::new (static_cast<void*>(room_)) T(std::forward<Args>(args)...);
  }
  // To be moved from; drop() follows.
  CONCUR_FORCE_INLINE T& value() noexcept {
    note_write(this, "the cell of a queue");
    return *std::launder(reinterpret_cast<T*>(room_));
  }
  CONCUR_FORCE_INLINE void drop() noexcept { value().~T(); }

 private:
  alignas(T) unsigned char room_[sizeof(T)];
};

// A number of cells that is fixed.
template <class Cell>
class cell_array {
 public:
  explicit cell_array(std::size_t count)
      : cells_(static_cast<Cell*>(::operator new(bytes_for(count), std::align_val_t(alignment)))), count_(count) {
    for (std::size_t i = 0; i < count; ++i) ::new (static_cast<void*>(&cells_[i])) Cell();
  }
  cell_array(const cell_array&) = delete;
  cell_array& operator=(const cell_array&) = delete;
  ~cell_array() {
    for (std::size_t i = 0; i < count_; ++i) cells_[i].~Cell();
    ::operator delete(static_cast<void*>(cells_), std::align_val_t(alignment));
  }

  CONCUR_FORCE_INLINE Cell& operator[](std::size_t index) noexcept { return cells_[index]; }

 private:
  static constexpr std::size_t alignment = alignof(Cell) > cache_line_bytes ? alignof(Cell) : cache_line_bytes;
  static constexpr std::size_t bytes_for(std::size_t count) noexcept {
    return (count * sizeof(Cell) + alignment - 1) / alignment * alignment;
  }

  Cell* const cells_;
  const std::size_t count_;
};

// The smallest power of two that is not less than `count`, which checked_capacity has let pass.
constexpr std::size_t power_of_two_for(std::size_t count) noexcept {
  std::size_t power = 1;
  while (power < count) power *= 2;
  return power;
}

// `capacity`, if a queue of that name can have it; throws std::invalid_argument otherwise.
CONCUR_INLINE std::size_t checked_capacity(const char* queue, std::size_t capacity, std::size_t cell_bytes);

// Between two counts that a third thread has read at different moments: no less than nothing and no more than all.
constexpr std::size_t plausible_size(std::size_t head, std::size_t tail, std::size_t capacity) noexcept {
  const std::size_t size = tail - head;
  return size <= capacity ? size : (size > SIZE_MAX / 2 ? 0 : capacity);
}

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

// The limit leaves the rounding up to a power of two, and the difference of two indices, without overflow.
CONCUR_INLINE std::size_t checked_capacity(const char* queue, std::size_t capacity, std::size_t cell_bytes) {
  const std::size_t most = SIZE_MAX / 8 / cell_bytes;
  if (capacity == 0) fail_argument(queue, "capacity", "0", "a queue needs room for one value at least");
  if (capacity > most) {
    const std::string advice = "it can be " + std::to_string(most) + " at most";
    fail_argument(queue, "capacity", std::to_string(capacity), advice.c_str());
  }
  return capacity;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
