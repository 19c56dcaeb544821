// structure/fiber_local.hpp - a variable of which every fiber has its own.
//
// thread_local is wrong in a fiber: it goes on, on another thread, with another's value. A fiber_local is kept by the fiber:
// its first use makes the value, its end destroys it. Code that also runs on plain threads finds a value of the thread's
// own, made and destroyed in the same way.
//
// Each fiber_local has an index, which is used again after it, and an id, which is not. Each fiber that uses any has a
// table: by index for finding a value, and as a list in the order of first use for destroying them.
//
//     table.nodes[index]        meaning
//     null                      not used by this fiber
//     node with our id          our value
//     node with another id      a value of a fiber_local that is gone; destroyed when the slot is wanted, or at the end
//
//   X1  A table is touched by its own fiber or thread only. No lock, no atomic operation.
//   X2  Values are destroyed one by one, the youngest first, and those not destroyed yet can still be used meanwhile. At
//       the end of a fiber this comes after its function and its closure, before its result can be seen; destructors may
//       park, and are not cancelled.
//   X3  A destructor may use a fiber_local whose value is gone, and gets a new one, which is destroyed next. That may go on
//       four deep (as with POSIX's thread-specific data); then it is taken for endless, and reported by on_fatal.
//   X4  A node knows how to destroy itself: its fiber_local may be gone.
#ifndef CONCUR_STRUCTURE_FIBER_LOCAL_HPP
#define CONCUR_STRUCTURE_FIBER_LOCAL_HPP

#include <memory>
#include <type_traits>
#include <utility>

#include "atomic/spin_lock.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/maker.hpp"
#include "runtime/worker.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct local_node {
  std::uint64_t id = 0;  // of its fiber_local
  local_node* older = nullptr;
  void (*destroy)(local_node*) noexcept = nullptr;
  std::uint32_t index = 0;
  std::uint32_t depth = 0;  // 0: made by the fiber itself; else by the destructor of one of depth - 1 (X3)
};

struct local_table {
  local_node** nodes = nullptr;
  std::uint32_t node_room = 0;
  std::uint32_t depth = 0;  // of nodes made now
  local_node* newest = nullptr;
};

struct local_key {
  std::uint64_t id;
  std::uint32_t index;
};

CONCUR_INLINE local_key new_local_key();
CONCUR_INLINE void free_local_key(local_key key) noexcept;

// Where the calling thread's table is, which is no fiber's.
CONCUR_INLINE local_table* thread_locals() noexcept;
// The caller's table, with a slot for that index. Throws std::bad_alloc.
CONCUR_INLINE local_table* make_room_for_local(std::uint32_t index);
// Puts the node into the caller's table, for which there is room.
CONCUR_INLINE void attach_local(local_node* node) noexcept;
// Destroys the caller's value, if it has one.
CONCUR_INLINE void drop_local(local_key key) noexcept;
// At the end of a fiber, while it may still park (X2).
CONCUR_INLINE void destroy_locals(fiber* f) noexcept;

inline local_table* current_locals() noexcept {
  worker* w = this_worker();
  if (CONCUR_LIKELY(w != nullptr && w->current != nullptr)) return w->current->locals;
  return thread_locals();
}

inline local_node* find_local(local_key key) noexcept {
  local_table* table = current_locals();
  if (CONCUR_UNLIKELY(table == nullptr || key.index >= table->node_room)) return nullptr;
  local_node* node = table->nodes[key.index];
  return CONCUR_LIKELY(node != nullptr && (node->id == key.id || CONCUR_MUTANT_IS(132))) ? node : nullptr;
}

}  // namespace detail

// On a plain thread the value is the thread's own, and destroyed at its end. (The main thread has no end in this sense,
// unless it is pthread_exit.) A fiber_local may be destroyed before the fibers that used it end: the value of the fiber or
// thread that destroys it goes at once, those of others at their ends, or before. A few nanoseconds a use, after the first.
template <class T>
class fiber_local {
 public:
  // Each value begins as T().
  fiber_local() : key_(detail::new_local_key()) {}
  // Each value begins as what first_value() returns, called by the fiber that uses it first. May park and throw.
  template <class F, class = std::enable_if_t<std::is_invocable_r<T, std::decay_t<F>&>::value>>
  explicit fiber_local(F&& first_value)
      : maker_(detail::new_maker<T>(std::forward<F>(first_value))), key_(detail::new_local_key()) {}
  // Each value begins as a copy of that.
  explicit fiber_local(T first_value) : fiber_local([copied = std::move(first_value)] { return T(copied); }) {}
  fiber_local(const fiber_local&) = delete;
  fiber_local& operator=(const fiber_local&) = delete;
  ~fiber_local() {
    detail::drop_local(key_);
    detail::free_local_key(key_);
  }

  // The calling fiber's value, made now if this is its first use. Valid until the fiber ends. Throws what making it throws;
  // then there is none.
  T& get() {
    detail::local_node* node = detail::find_local(key_);
    if (CONCUR_LIKELY(node != nullptr)) return static_cast<holder*>(node)->value;
    return make();
  }
  T& operator*() { return get(); }
  T* operator->() { return std::addressof(get()); }
  // Whether the calling fiber has a value already. Makes none.
  bool has_value() const noexcept { return detail::find_local(key_) != nullptr; }

 private:
  struct holder : detail::local_node {
    holder() : value() {}
    explicit holder(detail::maker<T>& from) : value(from.make()) {}
    T value;
  };

  CONCUR_NOINLINE T& make() {
    detail::make_room_for_local(key_.index);
    holder* fresh = new_holder();
    fresh->id = key_.id;
    fresh->index = key_.index;
    fresh->destroy = [](detail::local_node* node) noexcept { delete static_cast<holder*>(node); };
    detail::attach_local(fresh);
    return fresh->value;
  }
  holder* new_holder() {
    if constexpr (std::is_default_constructible<T>::value) {
      if (maker_ == nullptr) return new holder();
    }
    return new holder(*maker_);
  }

  std::unique_ptr<detail::maker<T>> maker_;
  detail::local_key key_;
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <pthread.h>

#  include <vector>

CONCUR_NAMESPACE_BEGIN
namespace detail {

// --- which index is whose ---

struct local_registry {
  spin_lock lock;
  std::uint64_t last_id = 0;
  std::uint32_t index_count = 0;
  std::vector<std::uint32_t> free_indexes;
};

CONCUR_INLINE local_registry& local_keys() {
  static local_registry* keys = new local_registry();  // never destroyed: variables of static life come here last of all
  return *keys;
}

CONCUR_INLINE local_key new_local_key() {
  local_registry& keys = local_keys();
  lock_scope<spin_lock> held(keys.lock);
  if (keys.free_indexes.empty()) {
    // What free_local_key pushes fits without an allocation.
    keys.free_indexes.reserve(keys.index_count + std::size_t{1});
    return {++keys.last_id, keys.index_count++};
  }
  const std::uint32_t index = keys.free_indexes.back();
  keys.free_indexes.pop_back();
  return {++keys.last_id, index};
}

CONCUR_INLINE void free_local_key(local_key key) noexcept {
  local_registry& keys = local_keys();
  lock_scope<spin_lock> held(keys.lock);
  keys.free_indexes.push_back(key.index);
}

// --- whose table ---

CONCUR_INLINE void destroy_table(local_table* table) noexcept {
  while (local_node* node = table->newest) {
    table->newest = node->older;
    table->nodes[node->index] = nullptr;
    table->depth = node->depth + 1;
    node->destroy(node);
  }
  delete[] table->nodes;
  delete table;
}

// One key of the system's for all fiber_locals: it tells us when a thread ends.
struct thread_table_key {
  thread_table_key() noexcept {
    if (pthread_key_create(&key, &end_of_thread) != 0)
      on_fatal("concur::fiber_local: the system has no key left for thread-specific data");
  }
  static void end_of_thread(void* raw) noexcept;
  pthread_key_t key{};
};

CONCUR_INLINE thread_table_key& thread_tables() noexcept {
  static thread_table_key tables;
  return tables;
}

// The system has cleared the thread's pointer; destructors that use a fiber_local are to find the table.
CONCUR_INLINE void thread_table_key::end_of_thread(void* raw) noexcept {
  pthread_setspecific(thread_tables().key, raw);
  destroy_table(static_cast<local_table*>(raw));
  pthread_setspecific(thread_tables().key, nullptr);
}

CONCUR_INLINE local_table* thread_locals() noexcept {
  return static_cast<local_table*>(pthread_getspecific(thread_tables().key));
}

CONCUR_INLINE local_table* new_current_table() {
  local_table* table = new local_table();
  worker* w = this_worker();
  if (w != nullptr && w->current != nullptr) {
    w->current->locals = table;
    w->current->has_belongings = true;
  } else if (const int error = pthread_setspecific(thread_tables().key, table)) {
    delete table;
    fail_system(error, "concur::fiber_local: no memory for this thread's values");
  }
  return table;
}

CONCUR_INLINE local_table* make_room_for_local(std::uint32_t index) {
  local_table* table = current_locals();
  if (table == nullptr) table = new_current_table();
  if (index >= table->node_room) {
    const std::uint32_t wanted = index + 1 > 2 * table->node_room ? index + 1 : 2 * table->node_room;
    local_node** nodes = new local_node*[wanted]();
    for (std::uint32_t i = 0; i < table->node_room; ++i) nodes[i] = table->nodes[i];
    delete[] table->nodes;
    table->nodes = nodes;
    table->node_room = wanted;
  }
  return table;
}

CONCUR_INLINE void detach_local(local_table* table, local_node* node) noexcept {
  local_node** link = &table->newest;
  while (*link != node) link = &(*link)->older;
  *link = node->older;
  table->nodes[node->index] = nullptr;
}

CONCUR_INLINE void attach_local(local_node* node) noexcept {
  constexpr std::uint32_t depth_max = 4;
  local_table* table = current_locals();
  local_node* stale = table->nodes[node->index];
  if (stale != nullptr) detach_local(table, stale);
  node->depth = table->depth;
  if (node->depth > depth_max)
    on_fatal("concur::fiber_local: destructors of values go on making new ones; at the end of a fiber that must stop");
  node->older = table->newest;
  table->newest = node;
  table->nodes[node->index] = node;
  if (stale == nullptr) return;
  // Not the business of the variable that is used now, nor of what cancels its fiber (X2).
  worker* const w = this_worker();
  fiber* const f = w != nullptr ? w->current : nullptr;
  if (f != nullptr && !CONCUR_MUTANT_IS(133)) ++f->shield_depth;
  stale->destroy(stale);
  if (f != nullptr && !CONCUR_MUTANT_IS(133)) --f->shield_depth;
}

CONCUR_INLINE void drop_local(local_key key) noexcept {
  local_node* node = find_local(key);
  if (node == nullptr) return;
  detach_local(current_locals(), node);
  node->destroy(node);
}

CONCUR_INLINE void destroy_locals(fiber* f) noexcept {
  if (f->locals == nullptr) return;
  if (!CONCUR_MUTANT_IS(133)) ++f->shield_depth;
  destroy_table(f->locals);
  f->locals = nullptr;
  if (!CONCUR_MUTANT_IS(133)) --f->shield_depth;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
