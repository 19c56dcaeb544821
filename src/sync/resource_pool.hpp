// sync/resource_pool.hpp - a few things that many want in turn: connections, handles, large buffers.
//
// A database takes so many connections and no more; opening one takes long; a broken one must not come back. The pool
// hands out what it has, makes what it may, and lets the others wait in line. What a caller holds is a lease, which gives
// the thing back when it goes.
//
// `alive` counts places: things that are idle, on lease, or being made. What a waiter is given is a thing, or a place in
// which it makes one itself, without the lock.
//
//     given back                     goes to                     if nobody waits
//     a thing                        the first waiter            the idle ones, newest first out
//     a place (discarded, or the     the first waiter, which     alive is one less
//     factory threw)                 makes a fresh one
//     anything, to a closed pool     nobody: it is destroyed
//
//   C1  Whenever somebody waits, nothing is idle and no thing may be made: what comes free goes to the first in line, never
//       past it. So the order is strictly first in, first out.
//   C2  What is given goes to a waiter that was claimed, under the lock (W4): one that timed out or was cancelled has been
//       given nothing, and nothing is lost with it.
//   C3  Pool and leases share the state, and the last of them frees it: a lease may outlive its pool.
//   C4  The factory and the destructors of things run without the lock.
#ifndef CONCUR_SYNC_RESOURCE_POOL_HPP
#define CONCUR_SYNC_RESOURCE_POOL_HPP

#include <memory>
#include <type_traits>
#include <utility>

#include "atomic/spin_lock.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/maker.hpp"
#include "base/time.hpp"
#include "runtime/wait_queue.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct pool_item {
  pool_item* next = nullptr;  // of the idle ones
};

// The part that does not depend on the things' type.
class pool_core {
 public:
  pool_core(std::size_t capacity, bool can_make);

  // Parks until there is something. granted: an item, or null for a place. Else closed, timed_out or cancelled. From the
  // caller's checkpoint on.
  outcome take(worker* w, pool_item*& item, nanoseconds_t deadline_ns) noexcept;
  // The same without parking; false when there is nothing.
  bool try_take(pool_item*& item) noexcept;
  // False: the pool is closed, the place is gone, and the caller destroys the item.
  bool give(pool_item* item) noexcept;
  void give_place() noexcept;
  // A place for a thing that the caller brings. Throws std::logic_error when there is none, or the pool is closed.
  void take_place();
  // Lets everybody go, and returns the idle ones for the caller to destroy.
  pool_item* close() noexcept;

  std::size_t capacity() const noexcept { return capacity_; }
  std::size_t size() noexcept;
  std::size_t idle() noexcept;
  bool is_closed() noexcept;

 private:
  bool take_free(pool_item*& item) noexcept;
  bool hand_over(pool_item* item, party*& next) noexcept;

  wait_queue waiting_;
  pool_item* idle_ = nullptr;
  std::size_t idle_count_ = 0;
  std::size_t alive_ = 0;
  const std::size_t capacity_;
  const bool can_make_;
  bool is_closed_ = false;
};

[[noreturn]] CONCUR_INLINE void fail_pool_closed();

}  // namespace detail

// What is done to a thing before it is given back happens before its next lease. The pool may be destroyed while leases
// are out, and while others wait: it closes then.
template <class T>
class resource_pool {
  struct item : detail::pool_item {
    explicit item(T&& from) : value(std::move(from)) {}
    explicit item(detail::maker<T>& from) : value(from.make()) {}
    T value;
  };
  struct state {
    state(std::size_t capacity, std::unique_ptr<detail::maker<T>> factory_in)
        : core(capacity, factory_in != nullptr), factory(std::move(factory_in)) {}
    detail::pool_core core;
    std::unique_ptr<detail::maker<T>> factory;
  };

 public:
  // One thing of the pool, or none. Gives it back when destroyed; use it in one fiber or thread at a time.
  class lease {
   public:
    lease() noexcept = default;
    lease(lease&& other) noexcept : state_(std::move(other.state_)), item_(std::exchange(other.item_, nullptr)) {}
    lease& operator=(lease&& other) noexcept {
      lease taken(std::move(other));
      std::swap(state_, taken.state_);
      std::swap(item_, taken.item_);
      return *this;
    }
    ~lease() { give_back(); }

    explicit operator bool() const noexcept { return item_ != nullptr; }
    T& operator*() const noexcept { return item_->value; }
    T* operator->() const noexcept { return std::addressof(item_->value); }
    T* get() const noexcept { return item_ != nullptr ? std::addressof(item_->value) : nullptr; }

    // Ends the lease now. Nothing happens to an empty one.
    void give_back() noexcept {
      if (item_ == nullptr) return;
      item* mine = std::exchange(item_, nullptr);
      if (!state_->core.give(mine)) delete mine;
      state_.reset();
    }
    // Destroys the thing, which is broken: a pool with a factory makes a fresh one when one is wanted, another has one less
    // until add() brings one. Nothing happens to an empty one.
    void discard() noexcept {
      if (item_ == nullptr) return;
      delete std::exchange(item_, nullptr);
      state_->core.give_place();
      state_.reset();
    }

   private:
    friend class resource_pool;
    lease(std::shared_ptr<state> whose, item* what) noexcept : state_(std::move(whose)), item_(what) {}

    std::shared_ptr<state> state_;
    item* item_ = nullptr;
  };

  // At most `capacity` things, which add() brings. Throws std::invalid_argument if that is zero.
  explicit resource_pool(std::size_t capacity) : state_(std::make_shared<state>(capacity, nullptr)) {}
  // At most `capacity` things, made by factory() when one is wanted and none is idle; by the one that wants it, several at
  // once if several do. What the factory throws passes through acquire, and its place goes to the next in line.
  template <class F>
  resource_pool(std::size_t capacity, F&& factory)
      : state_(std::make_shared<state>(capacity, detail::new_maker<T>(std::forward<F>(factory)))) {}
  // The elements of a container, moved out of it; its size is the capacity.
  template <class Items, class = decltype(std::declval<Items&>().begin())>
  explicit resource_pool(Items items) : resource_pool(items.size()) {
    for (T& one : items) add(std::move(one));
  }
  resource_pool(const resource_pool&) = delete;
  resource_pool& operator=(const resource_pool&) = delete;
  ~resource_pool() { close(); }

  // Brings a thing: for the first in line, or to lie idle. Throws std::logic_error, and takes nothing, when the pool is
  // full or closed.
  void add(const T& thing) { add(T(thing)); }
  void add(T&& thing) {
    state_->core.take_place();
    place mine(*state_);
    item* fresh = new item(std::move(thing));
    mine.keep();
    if (!state_->core.give(fresh)) delete fresh;
  }

  // Parks until there is a thing, or a place to make one. Throws `cancelled`, std::logic_error when the pool is closed, and
  // what the factory throws. The forms with a code, here and below, give an empty lease when they are cancelled, which the
  // code says, and also when the pool is closed, with the code clear.
  [[nodiscard]] lease acquire() { return acquire_deadline(detail::never); }
  [[nodiscard]] lease acquire(std::error_code& error) { return acquire_deadline(detail::never, error); }
  // The same with a limit to the wait, not to the factory: an empty lease when that passed first.
  template <class Rep, class Period>
  [[nodiscard]] lease acquire_for(std::chrono::duration<Rep, Period> d) {
    return acquire_deadline(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  [[nodiscard]] lease acquire_until(const std::chrono::time_point<Clock, Duration>& tp) {
    return acquire_deadline(detail::deadline_at(tp));
  }
  template <class Rep, class Period>
  [[nodiscard]] lease acquire_for(std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return acquire_deadline(detail::deadline_after(d), error);
  }
  template <class Clock, class Duration>
  [[nodiscard]] lease acquire_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return acquire_deadline(detail::deadline_at(tp), error);
  }
  // An empty lease when there is nothing now, or the pool is closed. Does not wait, but may call the factory.
  [[nodiscard]] lease try_acquire() {
    detail::pool_item* got = nullptr;
    std::shared_ptr<state> s = state_;
    if (!s->core.try_take(got)) return lease();
    return lease_of(std::move(s), got);
  }

  // Destroys what is idle, and what comes back later; who waits, or comes later, is told so. Again: nothing.
  void close() noexcept {
    detail::pool_item* left = state_->core.close();
    while (left != nullptr) delete static_cast<item*>(std::exchange(left, left->next));
  }
  bool closed() const noexcept { return state_->core.is_closed(); }
  std::size_t capacity() const noexcept { return state_->core.capacity(); }
  // How many there are: idle, on lease, or being made.
  std::size_t size() const noexcept { return state_->core.size(); }
  std::size_t idle() const noexcept { return state_->core.idle(); }

 private:
  // Holds a place until there is a thing in it; gives it back when making one fails.
  class place {
   public:
    explicit place(state& whose) noexcept : whose_(&whose) {}
    ~place() {
      if (whose_ != nullptr) whose_->core.give_place();
    }
    place(const place&) = delete;
    place& operator=(const place&) = delete;
    void keep() noexcept { whose_ = nullptr; }

   private:
    state* whose_;
  };

  static lease lease_of(std::shared_ptr<state> s, detail::pool_item* got) {
    if (got != nullptr) return lease(std::move(s), static_cast<item*>(got));
    place mine(*s);
    item* fresh = new item(*s->factory);
    mine.keep();
    return lease(std::move(s), fresh);
  }

  template <class... Code>
  lease acquire_deadline(detail::nanoseconds_t deadline_ns, Code&... code) {
    std::shared_ptr<state> s = state_;  // the pool may go while we wait (C3)
    detail::pool_item* got = nullptr;
    const auto take_from = [&](detail::worker* w) { return s->core.take(w, got, deadline_ns); };
    const detail::outcome result = detail::perform(take_from, code...);
    if (sizeof...(code) == 0 && result == detail::outcome::closed) detail::fail_pool_closed();
    if (result != detail::outcome::granted) return lease();
    return lease_of(std::move(s), got);
  }

  std::shared_ptr<state> state_;
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void fail_pool_closed() {
  fail_logic("concur::resource_pool: the pool is closed; nothing is to be had from it any more");
}

CONCUR_INLINE pool_core::pool_core(std::size_t capacity, bool can_make) : capacity_(capacity), can_make_(can_make) {
  if (capacity == 0) fail_argument("concur::resource_pool", "capacity", "0", "a pool holds at least one thing");
}

CONCUR_INLINE bool pool_core::take_free(pool_item*& item) noexcept {
  if (idle_ != nullptr) {
    item = idle_;
    idle_ = idle_->next;
    --idle_count_;
    return true;
  }
  if (!can_make_ || alive_ == capacity_) return false;
  ++alive_;
  item = nullptr;
  return true;
}

CONCUR_INLINE outcome pool_core::take(worker* w, pool_item*& item, nanoseconds_t deadline_ns) noexcept {
  caller me(w);
  waiting_.lock.lock();
  if (is_closed_ || take_free(item)) {
    const outcome result = is_closed_ ? outcome::closed : outcome::granted;
    waiting_.lock.unlock();
    return result;
  }
  return waiting_.wait(me, &item, deadline_ns, wait_reason::pool_acquire);
}

CONCUR_INLINE bool pool_core::try_take(pool_item*& item) noexcept {
  lock_scope<spin_lock> held(waiting_.lock);
  return !is_closed_ && take_free(item);
}

// To the first in line, if there is one (C2). Under the lock; the caller resumes `next` after it.
CONCUR_INLINE bool pool_core::hand_over(pool_item* item, party*& next) noexcept {
  waiter* note = CONCUR_MUTANT_IS(129) ? waiting_.parties.pop_front() : pop_claimed(waiting_.parties);
  if (note == nullptr) return false;
  *static_cast<pool_item**>(note->value) = item;
  if (CONCUR_MUTANT_IS(129) && !note->claim()) return true;
  next = note->who;
  next->result = outcome::granted;
  return true;
}

CONCUR_INLINE bool pool_core::give(pool_item* item) noexcept {
  party* next = nullptr;
  {
    lock_scope<spin_lock> held(waiting_.lock);
    if (is_closed_ && !CONCUR_MUTANT_IS(131)) {
      --alive_;
      return false;
    }
    if (!hand_over(item, next)) {
      item->next = idle_;
      idle_ = item;
      ++idle_count_;
    }
  }
  if (next != nullptr) resume(next);
  return true;
}

CONCUR_INLINE void pool_core::give_place() noexcept {
  party* next = nullptr;
  {
    lock_scope<spin_lock> held(waiting_.lock);
    if (!can_make_ || CONCUR_MUTANT_IS(130) || !hand_over(nullptr, next)) --alive_;
  }
  if (next != nullptr) resume(next);
}

CONCUR_INLINE void pool_core::take_place() {
  bool is_full = false;
  {
    lock_scope<spin_lock> held(waiting_.lock);
    is_full = alive_ == capacity_;
    if (!is_closed_ && !is_full) {
      ++alive_;
      return;
    }
  }
  if (!is_full) fail_pool_closed();
  fail_logic("concur::resource_pool::add: the pool is full; construct it with a larger capacity");
}

CONCUR_INLINE pool_item* pool_core::close() noexcept {
  ended_waits woken;
  pool_item* left = nullptr;
  {
    lock_scope<spin_lock> held(waiting_.lock);
    is_closed_ = true;
    left = std::exchange(idle_, nullptr);
    alive_ -= std::exchange(idle_count_, 0);
    woken.take_all(waiting_.parties, outcome::closed);
  }
  woken.resume_all();
  return left;
}

CONCUR_INLINE std::size_t pool_core::size() noexcept {
  lock_scope<spin_lock> held(waiting_.lock);
  return alive_;
}

CONCUR_INLINE std::size_t pool_core::idle() noexcept {
  lock_scope<spin_lock> held(waiting_.lock);
  return idle_count_;
}

CONCUR_INLINE bool pool_core::is_closed() noexcept {
  lock_scope<spin_lock> held(waiting_.lock);
  return is_closed_;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
