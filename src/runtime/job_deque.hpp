// runtime/job_deque.hpp - calls that fibers have offered to idle workers, and take back themselves when nobody came.
//
// parallel_invoke(a, b) need not make b a fiber: it writes down that b is to be had, runs a, and mostly finds b where it
// was and calls it. What is written down is one word here and two on the caller's stack, so that a fork which nobody
// helps with costs little more than the two calls. Each worker has one such deque for the fibers that fork on it: they
// push and take back at the tail, others take the oldest at the head.
//
// Taking back happens a hundred million times a second, taking away a thousand times. So the first pays neither a
// read-modify-write nor a fence, and the second a lock and a fence on all cores (fence.hpp):
//
//     taking back, index i                thief, under the lock
//     tail = i                            head = h + 1
//     light_fence                         heavy_fence
//     head <= i ? it is mine              tail > h ? slot h is mine
//     tail = i + 1, and ask, locked       head = h
//
//   J1  tail_ is written by the deque's own worker only, head_ under the lock only; head_ never goes back but from a
//       step that a thief has taken for a trial (above), and never comes to an index twice. So an index whose job was
//       taken stays below head_, and no other job gets that index.
//   J2  Whoever takes a job that lies at the head writes its taker into it under the lock (theft.hpp). Whoever finds
//       head_ above the index, locked, finds the taker.
//   J3  A fiber that parks between push and taking back may be overtaken: by another fiber that pushes on the same
//       worker, then its job is not at the tail; or it goes on on another worker. Then it asks under the lock, and leaves
//       an empty slot behind. Only the fiber that pushed an index takes it back, so that needs no fence: neither the worker
//       nor a thief touches this index otherwise without the lock. Empty slots are passed over at the head, and
//       dropped at the tail when the worker has the lock for another reason.
//   J4  One slot is kept free: a thief reads slot h after head_ has passed it, and until then it must not be used anew.
//   J5  Every job in here belongs to a fiber that lives, and that does not end before it has the job back or the
//       taker has ended. Nobody need take it: its fiber comes back for it. But that fiber may be waiting for something
//       that the job is to do; so a worker whose fibers all wait turns its jobs into fibers, before it sleeps, and one
//       that is busy with others does so with one job for each upkeep (loop.hpp). With this no job waits for its own end.
//   J6  Indices are 32 bits wide and only their difference counts, with a sign: a thief's trial may lead past the tail.
//
// The lock is held over the heavy fence, some microseconds. Who waits for it then is the fiber whose job is being taken
// in this moment, and who would otherwise wait for the thief.
//
// Sources: the two indices and the trial are the THE protocol of Frigo, Leiserson and Randall, "The Implementation of the
// Cilk-5 Multithreaded Language", PLDI 1998, section 5; jobs on the caller's stack are Rayon's (rayon-core, join/mod.rs).
#ifndef CONCUR_RUNTIME_JOB_DEQUE_HPP
#define CONCUR_RUNTIME_JOB_DEQUE_HPP

#include "atomic/spin_lock.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"
#include "machine/fence.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct fiber;
struct theft;
struct worker;

// A call that is to be had. On the stack of the fiber that offers it.
struct job {
  explicit job(worker* (*entry_in)(fiber*, int) noexcept) noexcept : entry(entry_in) {}
  job(const job&) = delete;
  job& operator=(const job&) = delete;

  // What the fiber that is made of it runs, with the job as its payload (fiber.hpp).
  worker* (*entry)(fiber*, int refusal) noexcept;
  theft* taker;  // J2; not written before
};

// The one job that a worker which looks for work watches (theft.hpp).
struct lone_job {
  const worker* victim = nullptr;  // whose it is, at which mark, and since when
  std::uint32_t mark = 0;
  int since = 0;
};

class job_deque {
 public:
#if defined(CONCUR_EXPLORE)
  static constexpr std::uint32_t capacity = 4;  // small, so that what happens to a full one happens
#else
  static constexpr std::uint32_t capacity = 256;  // a power of two
#endif

  // Tests begin near the wrap (J6).
  explicit job_deque(std::uint32_t first_index = 0) noexcept : tail_(first_index), head_(first_index) {}
  job_deque(const job_deque&) = delete;
  job_deque& operator=(const job_deque&) = delete;

  // --- the worker, for the fiber that it runs ---

  // False: it is full. `index` is what is asked for later.
  CONCUR_FORCE_INLINE bool push(job& offered, std::uint32_t& index) noexcept {
    const std::uint32_t tail = tail_.load(std::memory_order_relaxed);  // relaxed: our own
    // acquire: pairs with the thief that passed the slot, so that it has read it before it is written anew (J4).
    const std::uint32_t head = head_.load(std::memory_order_acquire);
    if (CONCUR_UNLIKELY(distance(head, tail) >= room())) return false;
    slot(tail).store(&offered, std::memory_order_relaxed);  // relaxed: published by the next store
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(400) ? std::memory_order_relaxed : std::memory_order_release;
    tail_.store(tail + 1, order);  // release: publishes the slot and the job
    index = tail;
    return true;
  }

  // True: nobody has it, and nobody will. False: it is not here, or not at the tail, or somebody takes it just now.
  CONCUR_FORCE_INLINE bool take_back(std::uint32_t index) noexcept {
    if (CONCUR_UNLIKELY(tail_.load(std::memory_order_relaxed) != index + 1)) return false;  // relaxed: our own
    // release: who sees this store instead of a push's needs what the push published. Under the tool seq_cst, both: it
    // sees no fence; with these two accesses and the thief's the pattern holds without one.
    tail_.store(index, CONCUR_TSAN ? std::memory_order_seq_cst : std::memory_order_release);
    light_fence();
    // relaxed: behind the fence, and what we find we wrote. seq_cst: as above.
    const std::uint32_t head = head_.load(CONCUR_TSAN ? std::memory_order_seq_cst : std::memory_order_relaxed);
    if (CONCUR_LIKELY(distance(head, index) >= 0)) return true;
    tail_.store(index + 1, std::memory_order_release);  // release: as above
    return false;
  }

  // --- the fiber that pushed it, wherever it runs now ---

  // J3. True: it is the caller's. False: it has a taker. is_here: the caller is on this deque's worker.
  bool take_back_locked(std::uint32_t index, bool is_here) noexcept;

  // --- others ---

  // The oldest job; null: there is none, or not for us. `appoint(job&)` makes the taker known (J2).
  template <class Appoint>
  job* steal(Appoint&& appoint) noexcept {
    if (!lock_.try_lock()) return nullptr;
    job* const found = take_oldest(true, appoint);
    lock_.unlock();
    return found;
  }
  // The same for the deque's own worker: nobody takes back meanwhile without the lock.
  template <class Appoint>
  job* take_here(Appoint&& appoint) noexcept {
    lock_scope<spin_lock> held(lock_);
    drop_empty_at_tail();
    return take_oldest(false, appoint);
  }

  // How many there may be.
  std::int32_t count() const noexcept {
    // relaxed: a hint.
    return distance(head_.load(std::memory_order_relaxed), tail_.load(std::memory_order_relaxed));
  }
  // Changes when the oldest is taken: by this a thief sees whether one has been there for a while.
  std::uint32_t mark() const noexcept { return head_.load(std::memory_order_relaxed); }  // relaxed: a hint

  // Whether now is the time to wake somebody who may take what was pushed. A thief that finds nothing has cost its
  // wake-up, thousands of forks' worth: when nobody took anything since the last time, ask half as often.
  bool is_worth_a_wake() noexcept {
    if (quiet_pushes_ != 0) {
      --quiet_pushes_;
      return false;
    }
    constexpr std::uint32_t most = 1023;
    const std::uint32_t now = mark();
    next_quiet_ = now != mark_at_wake_ ? 0 : (2 * next_quiet_ + 1) & most;
    mark_at_wake_ = now;
    quiet_pushes_ = next_quiet_;
    return true;
  }

 private:
  static std::int32_t distance(std::uint32_t from, std::uint32_t to) noexcept {
    return static_cast<std::int32_t>(to - from);
  }
  static std::int32_t room() noexcept {
    constexpr std::int32_t all = capacity;
    return CONCUR_MUTANT_IS(401) ? all : all - 1;  // J4: the trial of a thief counts for one
  }
  atomic<job*>& slot(std::uint32_t index) noexcept { return slots_[index % capacity]; }

  // Under the lock, by the deque's worker.
  void drop_empty_at_tail() noexcept;

  template <class Appoint>
  job* take_oldest(bool with_fence, Appoint& appoint) noexcept {
    std::uint32_t head = head_.load(std::memory_order_relaxed);  // relaxed: under the lock
    // acquire: pairs with push, for the slots.
    const std::uint32_t seen = tail_.load(std::memory_order_acquire);
    // relaxed: under the lock. Nobody takes an empty slot back, so the tail cannot come below them.
    while (distance(head, seen) > 0 && slot(head).load(std::memory_order_relaxed) == nullptr) ++head;
    if (distance(head, seen) <= 0) {
      head_.store(head, std::memory_order_release);  // release: as below
      return nullptr;
    }
    // release: the slots that were passed have been read (J4). seq_cst under the tool, as in take_back.
    head_.store(head + 1, CONCUR_TSAN ? std::memory_order_seq_cst : std::memory_order_release);
    if (with_fence && !CONCUR_MUTANT_IS(402)) heavy_fence();
    // acquire: as above; seq_cst under the tool.
    const std::uint32_t tail = tail_.load(CONCUR_TSAN ? std::memory_order_seq_cst : std::memory_order_acquire);
    if (distance(head, tail) <= 0 && !CONCUR_MUTANT_IS(403)) {
      head_.store(head, std::memory_order_release);  // release: as above
      return nullptr;
    }
    job* const found = slot(head).load(std::memory_order_relaxed);  // relaxed: published by the tail
    appoint(*found);
    return found;
  }

  // The worker's. Others read tail_ when they look for work.
  alignas(cache_line_bytes) atomic<std::uint32_t> tail_;
  std::uint32_t mark_at_wake_ = ~std::uint32_t{0};
  std::uint32_t next_quiet_ = 0;
  std::uint32_t quiet_pushes_ = 0;
  atomic<job*> slots_[capacity] = {};
  alignas(cache_line_bytes) atomic<std::uint32_t> head_;
  spin_lock lock_;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void job_deque::drop_empty_at_tail() noexcept {
  const std::uint32_t head = head_.load(std::memory_order_relaxed);  // relaxed: under the lock
  std::uint32_t tail = tail_.load(std::memory_order_relaxed);        // relaxed: our own
  // relaxed: under the lock.
  while (distance(head, tail) > 0 && slot(tail - 1).load(std::memory_order_relaxed) == nullptr) --tail;
  tail_.store(tail, std::memory_order_release);  // release: as in take_back
}

CONCUR_NOINLINE CONCUR_INLINE bool job_deque::take_back_locked(std::uint32_t index, bool is_here) noexcept {
  lock_scope<spin_lock> held(lock_);
  if (distance(head_.load(std::memory_order_relaxed), index) < 0) return false;          // relaxed: under the lock
  if (!CONCUR_MUTANT_IS(404)) slot(index).store(nullptr, std::memory_order_relaxed);  // relaxed: under the lock
  if (is_here) drop_empty_at_tail();
  return true;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
