// atomic/work_stealing_deque.hpp - one owner's work, newest first for the owner, the oldest free to be stolen.
//
// A ring and two indices. The owner pushes and pops at `bottom`, thieves take at `top`. Far apart, the two ends have
// nothing to do with each other, and the owner needs no read-modify-write. They meet at the last element: there both
// must win it by a compare-exchange on `top`.
//
//     owner's pop                             thief
//     bottom = b                              t = top
//     fence                                   fence
//     t = top                                 b = bottom
//     t < b: slot b is mine                   t < b: read slot t, then top: t -> t + 1, or somebody else was quicker
//     t = b: mine if top: t -> t + 1
//
//   V1  The two fences: the owner sees that the thief has taken t, or the thief sees that the owner has taken b. So an
//       element that the owner takes without a compare-exchange is out of every thief's reach.
//   V2  Indices have the size of a pointer, only their difference counts, and the ring's size divides what they can count.
//       The difference is a signed number: compared without a sign, as printed, a pop from a new deque, whose `bottom`
//       goes from 0 to the largest number, finds an element that is not there. On a 32-bit machine a thief that is held
//       up for exactly 2^32 elements is misled.
//   V3  The ring never grows. A thief can thus not be left with one that the owner has moved out of, which is the hard
//       part of the printed algorithm: as printed it publishes a larger ring without a release, so that a thief reads
//       slots of it that are not written yet (found by Norris and Demsky, "CDSChecker", OOPSLA 2013); and
//       crossbeam-deque let a thief that had read the old ring win an element that was in the new one (CVE-2021-32810).
//       A full deque says so, and its owner does the work at once, or puts it where all look.
//   V4  Slots are atomic: a thief may read one while the owner writes the next round into it, but then its
//       compare-exchange fails, and what it read is dropped. Hence elements are words: a pointer or what is no larger,
//       trivially copyable. Who has something larger pushes its address; the deque does not allocate.
//
// Progress: push and pop are wait-free. A steal is one attempt, wait-free too; it may be lost to another thief or to the
// owner, who then has the element: repeated until it is not lost, it is lock-free.
// Happens-before: what comes before a push comes before the pop or steal that returns the element. One thread at a time
// is the owner; it may hand that over, by whatever orders the two.
// Cost: push two loads and two stores (2 ns on x86-64), pop a full fence (12 ns), and for the last element and for each
// steal a compare-exchange more.
//
// Why the runtime's queue is another one (runtime/run_queue.hpp): fibers are to run in the order in which they became
// ready, so its owner takes at the other end, where thieves do; a thief takes half of it at once, which a single exchange
// on `top` cannot do while the owner pops without one; it has a slot for the fiber that was woken last; and its owner
// pays no full fence, since the thief makes all threads pass one, with a system call that this layer does not know.
//
// Sources: Chase and Lev, "Dynamic Circular Work-Stealing Deque", SPAA 2005; the memory orders are those of Le, Pop, Cohen
// and Zappa Nardelli, "Correct and Efficient Work-Stealing for Weak Memory Models", PPoPP 2013, figure 1, but that release
// fence and relaxed store are a release store, in pop as well.
#ifndef CONCUR_ATOMIC_WORK_STEALING_DEQUE_HPP
#define CONCUR_ATOMIC_WORK_STEALING_DEQUE_HPP

#include <cstring>
#include <optional>
#include <string>
#include <type_traits>

#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/error.hpp"

CONCUR_NAMESPACE_BEGIN

enum class steal_status : unsigned char {
  stolen,
  empty,  // there was nothing
  lost,   // there was something, but another thief or the owner got it: try again, here or elsewhere
};

template <class T>
struct steal_result {
  steal_status status = steal_status::empty;
  T value{};  // T() unless stolen

  explicit operator bool() const noexcept { return status == steal_status::stolen; }
};

template <class T>
class work_stealing_deque {
  static_assert(std::is_trivially_copyable<T>::value && std::is_default_constructible<T>::value &&
                    sizeof(T) <= sizeof(std::uintptr_t),
                "an element is one word: let it be a pointer to what is larger");

 public:
  // Room for `capacity` elements at least: the next power of two. std::invalid_argument for 0, and for what cannot be
  // rounded. Tests begin near the wrap (V2).
  explicit work_stealing_deque(std::size_t capacity, std::size_t first_index = 0)
      : mask_(round_up(capacity) - 1), slots_(new word[mask_ + 1]), top_(first_index), bottom_(first_index) {}
  work_stealing_deque(const work_stealing_deque&) = delete;
  work_stealing_deque& operator=(const work_stealing_deque&) = delete;
  // What is left is forgotten: elements are words. Nobody else is using the deque.
  ~work_stealing_deque() { delete[] slots_; }

  // --- the owner ---

  // False: it is full, and `element` is not in it.
  bool try_push(T element) noexcept {
    const std::size_t bottom = bottom_.load(std::memory_order_relaxed);  // relaxed: our own
    // acquire: pairs with the exchange of the thief that freed the slot, so that its read of the slot is over before our
    // write. Without it the thief could read what we write now, and win with it: a load that sees a store of its own
    // future, which machines do and no exploration that runs operations in turn can show.
    const std::size_t top = top_.load(std::memory_order_acquire);
    if (bottom - top > mask_) return false;
    slot(bottom).store(to_bits(element), std::memory_order_relaxed);  // relaxed: published by the next store
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(344) ? std::memory_order_relaxed : std::memory_order_release;
    bottom_.store(bottom + 1, order);  // release: publishes the slot, and what the element stands for
    return true;
  }

  // The element that was pushed last; nothing when the deque is empty.
  std::optional<T> try_pop() noexcept {
    const std::size_t bottom = bottom_.load(std::memory_order_relaxed) - 1;  // relaxed: our own
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(345) ? std::memory_order_relaxed : std::memory_order_release;
    bottom_.store(bottom, order);  // release: who sees this store instead of a push's needs what the push published
    CONCUR_PLANTED auto fence_order = CONCUR_MUTANT_IS(346) ? std::memory_order_acq_rel : std::memory_order_seq_cst;
    detail::thread_fence(fence_order);                       // seq_cst: V1, the owner's side
    std::size_t top = top_.load(std::memory_order_relaxed);  // relaxed: behind the fence, and what we take we wrote
    const std::ptrdiff_t left = distance(top, bottom);
    std::optional<T> result;
    if (left >= 0)
      result = of_bits(slot(bottom).load(std::memory_order_relaxed));  // relaxed: our own, or dropped below
    if (left > 0) return result;
    // seq_cst: as in try_steal. relaxed on failure: nothing is read after it.
    if (left == 0 && !CONCUR_MUTANT_IS(349) &&
        !top_.compare_exchange_strong(top, top + 1, std::memory_order_seq_cst, std::memory_order_relaxed))
      result.reset();
    // relaxed: the deque is empty, and no thief takes anything because it sees this store.
    bottom_.store(bottom + 1, std::memory_order_relaxed);
    return result;
  }

  // --- anybody ---

  // One attempt at the oldest element.
  steal_result<T> try_steal() noexcept {
    // acquire: pairs with the exchange below, of others, and with the owner's. By C++20 the fence alone would do; up to
    // C++17 this is what keeps `bottom` from being older than the `top` that is seen.
    std::size_t top = top_.load(std::memory_order_acquire);
    CONCUR_PLANTED auto fence_order = CONCUR_MUTANT_IS(347) ? std::memory_order_acq_rel : std::memory_order_seq_cst;
    detail::thread_fence(fence_order);  // seq_cst: V1, the thief's side
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(348) ? std::memory_order_relaxed : std::memory_order_acquire;
    const std::size_t bottom = bottom_.load(order);  // acquire: pairs with the owner's stores, for slot and element
    if (distance(top, bottom) <= 0) return {};
    const std::uintptr_t bits =
        slot(top).load(std::memory_order_relaxed);  // relaxed: published by `bottom`, or dropped (V4)
    // seq_cst: in one order with the fences, for which C++17 has no other words; the release in it is what the acquire in
    // try_push needs. Who wins is decided by the exchange being one, whatever its order, so a weaker one shows nowhere but
    // on machines that let the load above pass it. relaxed on failure: what was read is dropped.
    if (!top_.compare_exchange_strong(top, top + 1, std::memory_order_seq_cst, std::memory_order_relaxed))
      return {steal_status::lost, T()};
    return {steal_status::stolen, of_bits(bits)};
  }

  // Of the past when they are read; exact for the owner while nobody steals.
  std::size_t size() const noexcept {
    // relaxed: hints. An owner that has just found the last element gone is below top for a moment.
    const std::ptrdiff_t count =
        distance(top_.load(std::memory_order_relaxed), bottom_.load(std::memory_order_relaxed));  // relaxed: as above
    return count > 0 ? static_cast<std::size_t>(count) : 0;
  }
  bool empty() const noexcept { return size() == 0; }
  std::size_t capacity() const noexcept { return mask_ + 1; }

 private:
  // Not atomic<T>: some compilers call a library for a word that consists of smaller ones.
  using word = detail::atomic<std::uintptr_t>;

  static std::uintptr_t to_bits(const T& element) noexcept {
    std::uintptr_t bits = 0;
    std::memcpy(&bits, &element, sizeof element);
    return bits;
  }
  static T of_bits(std::uintptr_t bits) noexcept {
    T element{};
    std::memcpy(static_cast<void*>(&element), &bits, sizeof element);
    return element;
  }
  static std::size_t round_up(std::size_t capacity) {
    constexpr std::size_t capacity_max = ~(~std::size_t{0} >> 1) >> 1;  // so that a difference of indices has a sign
    if (capacity == 0 || capacity > capacity_max) {
      detail::fail_argument("concur::work_stealing_deque", "capacity", std::to_string(capacity),
                            "at least 1, and no more than a quarter of what a pointer can count");
    }
    std::size_t rounded = 1;
    while (rounded < capacity) rounded *= 2;
    return rounded;
  }
  static std::ptrdiff_t distance(std::size_t from, std::size_t to) noexcept {
    return static_cast<std::ptrdiff_t>(to - from);
  }
  word& slot(std::size_t index) noexcept { return slots_[index & mask_]; }

  const std::size_t mask_;
  word* const slots_;
  // Where thieves take. It only grows.
  alignas(detail::cache_line_bytes) detail::atomic<std::size_t> top_;
  // Where the owner pushes; only the owner writes it.
  alignas(detail::cache_line_bytes) detail::atomic<std::size_t> bottom_;
};

CONCUR_NAMESPACE_END

#endif
