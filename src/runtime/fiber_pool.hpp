// runtime/fiber_pool.hpp - blocks for fibers: taken and given back without a lock, walked by whoever wants to see all
// fibers.
//
// Spawning must cost no system call and no shared counter, and a dump or a cancellation must be able to find every
// fiber there is. A list of all fibers would make each spawn touch a shared word. So the memory itself is the list:
// blocks live in chunks that stay mapped as long as the pool, and walking the chunks finds every fiber, wherever it is.
//
// Each worker keeps a short stack of free blocks of its own; the pool is the reserve behind them, behind a lock.
//
//   B1  A block's `fiber` is constructed once, when its chunk is, and reset on each use: its wait word counts on for
//       ever (F2).
//   B2  A future may outlive its runtime. The pool therefore lives until the runtime has let go of it and every block
//       is home.
#ifndef CONCUR_RUNTIME_FIBER_POOL_HPP
#define CONCUR_RUNTIME_FIBER_POOL_HPP

#include "atomic/spin_lock.hpp"
#include "base/config.hpp"
#include "runtime/fiber.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct fiber_chunk;

struct fiber_pool {
 public:
  explicit fiber_pool(scheduler* owner) noexcept : owner_(owner) {}
  fiber_pool(const fiber_pool&) = delete;
  fiber_pool& operator=(const fiber_pool&) = delete;

  // Up to `count` blocks, linked through `next`; fewer only when memory is exhausted.
  fiber* take(std::size_t count) noexcept;
  // A list linked through `next`. May delete the pool, when it was abandoned and these were the last (B2).
  void give_back(fiber* list) noexcept;
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

  spin_lock lock_;
  fiber_chunk* chunks_ = nullptr;
  fiber* free_ = nullptr;
  std::size_t taken_count_ = 0;
  scheduler* owner_;  // null: abandoned
  bool is_open_ = true;
};

// A worker's own free blocks. Owned by one thread.
class fiber_cache {
 public:
  fiber* take(fiber_pool& pool) noexcept {
    fiber* f = free_;
    if (CONCUR_UNLIKELY(f == nullptr)) {
      f = pool.take(batch_blocks);
      if (f == nullptr) return nullptr;
      count_ = batch_blocks;
    }
    free_ = f->next;
    --count_;
    return f;
  }

  void give_back(fiber_pool& pool, fiber* f) noexcept {
    f->next = free_;
    free_ = f;
    if (CONCUR_UNLIKELY(++count_ >= 2 * batch_blocks)) shrink(pool);
  }

  void clear(fiber_pool& pool) noexcept;

 private:
#if defined(CONCUR_EXPLORE)
  static constexpr int batch_blocks = 4;
#else
  static constexpr int batch_blocks = 64;
#endif
  void shrink(fiber_pool& pool) noexcept;

  fiber* free_ = nullptr;
  int count_ = 0;  // at most one too many after a short take; only used to decide when to shrink
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <cstdlib>
#  include <new>

CONCUR_NAMESPACE_BEGIN
namespace detail {

// The header takes the room of one block, so that all blocks lie on their own cache lines.
struct fiber_chunk {
#if defined(CONCUR_EXPLORE)
  static constexpr std::size_t bytes = 4 * 1024;
#else
  static constexpr std::size_t bytes = 64 * 1024;
#endif
  static constexpr std::size_t blocks = bytes / fiber_block_bytes - 1;

  fiber_chunk* next;
  fiber* block(std::size_t i) noexcept {
    return reinterpret_cast<fiber*>(reinterpret_cast<char*>(this) + (i + 1) * fiber_block_bytes);
  }
};

CONCUR_INLINE bool fiber_pool::grow() noexcept {
  void* memory = std::aligned_alloc(cache_line_bytes, fiber_chunk::bytes);
  if (memory == nullptr) return false;
  fiber_chunk* chunk = ::new (memory) fiber_chunk{chunks_};
  for (std::size_t i = fiber_chunk::blocks; i-- > 0;) {
    fiber* f = ::new (static_cast<void*>(chunk->block(i))) fiber();
    f->pool = this;
    f->next = free_;
    free_ = f;
  }
  chunks_ = chunk;
  return true;
}

CONCUR_INLINE fiber* fiber_pool::take(std::size_t count) noexcept {
  lock_scope<spin_lock> held(lock_);
  fiber* list = nullptr;
  for (std::size_t i = 0; i < count; ++i) {
    if (free_ == nullptr && !grow()) break;
    fiber* f = free_;
    free_ = f->next;
    f->next = list;
    list = f;
    ++taken_count_;
  }
  return list;
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
    std::free(chunk);
  }
}

CONCUR_INLINE void fiber_cache::shrink(fiber_pool& pool) noexcept {
  fiber* keep = free_;
  for (int i = 1; i < batch_blocks && keep->next != nullptr; ++i) keep = keep->next;
  fiber* surplus = keep->next;
  keep->next = nullptr;
  count_ = batch_blocks;
  if (surplus != nullptr) pool.give_back(surplus);
}

CONCUR_INLINE void fiber_cache::clear(fiber_pool& pool) noexcept {
  if (free_ != nullptr) pool.give_back(free_);
  free_ = nullptr;
  count_ = 0;
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES
#endif
