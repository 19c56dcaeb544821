// runtime/fiber_pool.hpp - blocks for fibers: taken and given back without a lock, walked by whoever wants to see all
// fibers.
//
// Spawning must cost no system call and no shared counter, and a dump or a cancellation must be able to find every
// fiber there is. A list of all fibers would make each spawn touch a shared word. So the memory itself is the list:
// blocks live in chunks that stay mapped as long as the pool, and walking the chunks finds every fiber, wherever it is.
//
// Each worker keeps two short stacks of free blocks of its own; the pool is the reserve behind them, behind a lock. What
// moves between them are whole batches, so that the lock is held for a few instructions, and a block's memory is not touched
// for being moved.
//
//   B1  A block's `fiber` is constructed once, when its chunk is, and reset on each use: its wait word counts on for
//       ever (F2).
//   B2  A future may outlive its runtime. The pool therefore lives until the runtime has let go of it and every block
//       is home.
//   B3  A chunk is aligned to its size, so that a block's address tells its chunk, and that its pool.
//   B4  A batch is batch_blocks blocks, linked through `next`; the first one's `payload` is the next batch.
#ifndef CONCUR_RUNTIME_FIBER_POOL_HPP
#define CONCUR_RUNTIME_FIBER_POOL_HPP

#include "atomic/spin_lock.hpp"
#include "base/config.hpp"
#include "machine/block_memory.hpp"
#include "runtime/fiber.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct fiber_pool;

// The header takes the room of one block, so that all blocks lie on their own cache lines.
struct fiber_chunk {
#if defined(CONCUR_EXPLORE)
  static constexpr std::size_t bytes = 4 * 1024;
#else
  static constexpr std::size_t bytes = 64 * 1024;
#endif
  static constexpr std::size_t blocks = bytes / sizeof(fiber) - 1;

  fiber_chunk* next;
  fiber_pool* pool;
  bool begins_memory;  // what was allocated begins with it
  fiber* block(std::size_t i) noexcept {
    return reinterpret_cast<fiber*>(reinterpret_cast<char*>(this) + (i + 1) * sizeof(fiber));
  }
};
static_assert(sizeof(fiber_chunk) <= sizeof(fiber), "the header takes the room of one block");

// B3.
inline fiber_pool* pool_of(const fiber* f) noexcept {
  return reinterpret_cast<const fiber_chunk*>(reinterpret_cast<std::uintptr_t>(f) & ~(fiber_chunk::bytes - 1))->pool;
}

struct fiber_pool {
 public:
#if defined(CONCUR_EXPLORE)
  static constexpr std::size_t batch_blocks = 4;
#else
  static constexpr std::size_t batch_blocks = 64;
#endif

  explicit fiber_pool(scheduler* owner) noexcept : owner_(owner) {}
  fiber_pool(const fiber_pool&) = delete;
  fiber_pool& operator=(const fiber_pool&) = delete;

  // Up to `count` blocks, at most a batch, linked through `next`; fewer only when memory is exhausted. `count` says then how
  // many.
  fiber* take(std::size_t& count) noexcept;
  // A list linked through `next`. May delete the pool, when it was abandoned and these were the last (B2).
  void give_back(fiber* list) noexcept;
  // A whole batch, while the runtime is there.
  void give_back_batch(fiber* batch) noexcept;
  // The runtime is gone. Deletes the pool now, or leaves that to the last give_back.
  void abandon() noexcept;
  // Calls use(owner, argument) if the runtime is still there, and keeps it there meanwhile.
  void with_owner(void (*use)(scheduler*, void*), void* argument) noexcept;
  // The same for what gives the runtime more to do; false, and no call, once it is about to end.
  bool with_open_owner(void (*use)(scheduler*, void*), void* argument) noexcept;
  // The runtime is about to end: what it has, it finishes, and nobody gives it more from outside.
  void close() noexcept;

  // Calls look(f, argument) for each block, free ones included, while no chunk can come or go.
  void walk(void (*look)(fiber*, void*), void* argument) noexcept;
  // The same without the lock, while nobody can run.
  void walk_stopped(void (*look)(fiber*, void*), void* argument) const noexcept;

 private:
  ~fiber_pool();
  bool grow() noexcept;
  void* next_chunk_memory(bool& begins) noexcept;

  spin_lock lock_;
  fiber_chunk* chunks_ = nullptr;
  std::size_t chunk_count_ = 0;
  char* uncarved_ = nullptr;  // what is left of the last allocation, up to uncarved_end_
  char* uncarved_end_ = nullptr;
  fiber* batches_ = nullptr;  // B4
  fiber* free_ = nullptr;     // not in batches
  std::size_t taken_count_ = 0;
  scheduler* owner_;  // null: abandoned
  bool is_open_ = true;
};

// A worker's own free blocks, up to two batches: one that is taken from and given back to, and a full one or none, so that
// a program whose spawning goes up and down across a border does not go to the pool each time. Owned by one thread.
class fiber_cache {
 public:
  // Null: there are none here.
  fiber* front() const noexcept { return free_; }
  // If there is one.
  fiber* take_front() noexcept {
    fiber* const f = free_;
    free_ = f->next;
    --count_;
    fetch_along(f, free_, 0, 2);
    return f;
  }
  fiber* take(fiber_pool& pool) noexcept {
    if (CONCUR_UNLIKELY(free_ == nullptr)) refill(pool);
    return free_ != nullptr ? take_front() : nullptr;
  }

  void give_back(fiber_pool& pool, fiber* f) noexcept {
    if (CONCUR_UNLIKELY(count_ == fiber_pool::batch_blocks)) put_aside(pool);
    f->next = free_;
    free_ = f;
    ++count_;
  }

  void clear(fiber_pool& pool) noexcept;

 private:
  void refill(fiber_pool& pool) noexcept;
  void put_aside(fiber_pool& pool) noexcept;

  fiber* free_ = nullptr;
  std::size_t count_ = 0;  // in free_
  fiber* full_ = nullptr;  // a batch
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <new>
#  include <utility>

CONCUR_NAMESPACE_BEGIN
namespace detail {

// One chunk while there are few; then as many at once as make a large page.
CONCUR_INLINE void* fiber_pool::next_chunk_memory(bool& begins) noexcept {
  begins = uncarved_ == uncarved_end_;
  if (begins) {
    const bool are_many = chunk_count_ * fiber_chunk::bytes >= large_page_bytes;
    std::size_t bytes = are_many ? large_page_bytes : fiber_chunk::bytes;
    void* memory = allocate_blocks(bytes);
    if (memory == nullptr && are_many) {
      bytes = fiber_chunk::bytes;
      memory = allocate_blocks(bytes);
    }
    if (memory == nullptr) return nullptr;
    uncarved_ = static_cast<char*>(memory);
    uncarved_end_ = uncarved_ + bytes;
  }
  void* const taken = uncarved_;
  uncarved_ += fiber_chunk::bytes;
  return taken;
}

CONCUR_INLINE bool fiber_pool::grow() noexcept {
  bool begins = false;
  void* const memory = next_chunk_memory(begins);
  if (memory == nullptr) return false;
  fiber_chunk* chunk = ::new (memory) fiber_chunk{chunks_, this, begins};
  for (std::size_t i = fiber_chunk::blocks; i-- > 0;) {
    fiber* f = ::new (static_cast<void*>(chunk->block(i))) fiber();
    f->next = free_;
    free_ = f;
  }
  chunks_ = chunk;
  ++chunk_count_;
  return true;
}

CONCUR_INLINE fiber* fiber_pool::take(std::size_t& count) noexcept {
  lock_scope<spin_lock> held(lock_);
  if (count == batch_blocks && batches_ != nullptr) {
    fiber* const batch = batches_;
    batches_ = static_cast<fiber*>(batch->payload);
    taken_count_ += batch_blocks;
    return batch;
  }
  fiber* list = nullptr;
  std::size_t got = 0;
  for (; got < count; ++got) {
    if (free_ == nullptr && batches_ != nullptr) {
      free_ = batches_;
      batches_ = static_cast<fiber*>(free_->payload);
    }
    if (free_ == nullptr && !grow()) break;
    fiber* f = free_;
    free_ = f->next;
    f->next = list;
    list = f;
  }
  taken_count_ += got;
  count = got;
  return list;
}

CONCUR_INLINE void fiber_pool::give_back_batch(fiber* batch) noexcept {
  lock_scope<spin_lock> held(lock_);
  batch->payload = batches_;
  batches_ = batch;
  taken_count_ -= batch_blocks;
}

CONCUR_INLINE void fiber_pool::give_back(fiber* list) noexcept {
  bool is_last = false;
  {
    lock_scope<spin_lock> held(lock_);
    while (list != nullptr) {
      fiber* f = list;
      list = f->next;
      f->next = free_;
      free_ = f;
      --taken_count_;
    }
    is_last = owner_ == nullptr && taken_count_ == 0;
  }
  if (is_last) delete this;
}

CONCUR_INLINE void fiber_pool::abandon() noexcept {
  bool is_last = false;
  {
    lock_scope<spin_lock> held(lock_);
    owner_ = nullptr;
    is_last = taken_count_ == 0;
  }
  if (is_last) delete this;
}

CONCUR_INLINE void fiber_pool::with_owner(void (*use)(scheduler*, void*), void* argument) noexcept {
  lock_scope<spin_lock> held(lock_);
  if (owner_ != nullptr) use(owner_, argument);
}

CONCUR_INLINE bool fiber_pool::with_open_owner(void (*use)(scheduler*, void*), void* argument) noexcept {
  lock_scope<spin_lock> held(lock_);
  if (owner_ == nullptr || (!is_open_ && !CONCUR_MUTANT_IS(144))) return false;
  use(owner_, argument);
  return true;
}

CONCUR_INLINE void fiber_pool::close() noexcept {
  lock_scope<spin_lock> held(lock_);
  is_open_ = false;
}

CONCUR_INLINE void fiber_pool::walk(void (*look)(fiber*, void*), void* argument) noexcept {
  lock_scope<spin_lock> held(lock_);
  walk_stopped(look, argument);
}

CONCUR_INLINE void fiber_pool::walk_stopped(void (*look)(fiber*, void*), void* argument) const noexcept {
  for (fiber_chunk* chunk = chunks_; chunk != nullptr; chunk = chunk->next) {
    for (std::size_t i = 0; i < fiber_chunk::blocks; ++i) look(chunk->block(i), argument);
  }
}

CONCUR_INLINE fiber_pool::~fiber_pool() {
  while (chunks_ != nullptr) {
    fiber_chunk* chunk = chunks_;
    chunks_ = chunk->next;
    for (std::size_t i = 0; i < fiber_chunk::blocks; ++i) chunk->block(i)->~fiber();
    if (chunk->begins_memory) free_blocks(chunk);  // what was carved from it later came earlier in this list
  }
}

CONCUR_NOINLINE CONCUR_INLINE void fiber_cache::refill(fiber_pool& pool) noexcept {
  count_ = fiber_pool::batch_blocks;
  free_ = full_ != nullptr ? std::exchange(full_, nullptr) : pool.take(count_);
}

CONCUR_NOINLINE CONCUR_INLINE void fiber_cache::put_aside(fiber_pool& pool) noexcept {
  if (full_ != nullptr) pool.give_back_batch(full_);
  full_ = std::exchange(free_, nullptr);
  count_ = 0;
}

CONCUR_INLINE void fiber_cache::clear(fiber_pool& pool) noexcept {
  if (free_ != nullptr) pool.give_back(std::exchange(free_, nullptr));
  if (full_ != nullptr) pool.give_back(std::exchange(full_, nullptr));
  count_ = 0;
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES
#endif
