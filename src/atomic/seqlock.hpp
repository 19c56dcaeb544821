// atomic/seqlock.hpp - a value that is read far more often than it is written, by readers that write nothing.
//
// A lock makes every reader write the lock's word, and so readers wait for each other's cache line. Here a reader copies the
// value, and a number before and after tells it whether a writer was at work meanwhile; then it copies again. For small
// things that change now and then: a position, a configuration, the last known time.
//
//   Q1  sequence_ is even while the value rests and odd while it is being written. Only the holder of writers_ writes it, and it
//       grows by 2 with each write.
//   Q2  The value lies in words_, each of them atomic: a reader may read what a writer writes, and with plain memory that
//       would be a race, whatever the reader does with it afterwards. A torn copy is thrown away before anybody sees it.
//   Q3  A reader reads sequence_, the words, and sequence_ again. If it was even and is the same, the copy is whole.
//   Q4  update() computes under writers_, but before sequence_ becomes odd: readers are held up by the copying only, never by
//       the function.
//
// Why Q3 holds:
//
//     writer                                    reader
//     W1  sequence_ = odd                       R1  first = sequence_ (acquire)
//     WF  fence(release)                        R2  copy words_
//     W2  words_                                RF  fence(acquire)
//     W3  sequence_ = even (release)            R3  sequence_ == first ?
//
// R1 that reads W3 sees all of W2, and nothing older. A word of R2 that comes from W2 of a later write makes WF happen before RF,
// so R3 reads that write's W1 or something later, which is not `first`. Without WF or RF that does not follow: R2 may see the
// new word, and R3 still the old number.
//
// Progress: try_read is wait-free; it fails while a write is under way. read repeats it until it succeeds: blocking, since a
// writer that the kernel takes off its core in the middle of a copy holds the readers up. Writers exclude each other with a
// spin_lock: blocking. As under any spin lock a fiber must not park in the function given to update.
//
// Happens-before: a write or update before each read that returns its value. Cost: a reader, the copy and two loads of
// sequence_, and no store; a writer, a spin_lock and the copy. On a 32-bit machine sequence_ has 32 bits, and a reader
// that stands still for exactly 2^31 writes would take a torn copy for whole; elsewhere it has 64.
//
// Source: H.-J. Boehm, "Can seqlocks get along with programming language memory models?", MSPC 2012: the data as relaxed
// atomics between fences. The lock itself is C. Lameter's, "Effective synchronization on Linux/NUMA systems" (2005).
#ifndef CONCUR_ATOMIC_SEQLOCK_HPP
#define CONCUR_ATOMIC_SEQLOCK_HPP

#include <cstring>
#include <new>
#include <optional>
#include <type_traits>

#include "atomic/backoff.hpp"
#include "atomic/spin_lock.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"

CONCUR_NAMESPACE_BEGIN

template <class T>
class seqlock {
  static_assert(std::is_trivially_copyable<T>::value, "seqlock<T> copies T as bytes: it must be trivially copyable");

 public:
  using value_type = T;

  seqlock() noexcept(std::is_nothrow_default_constructible<T>::value) : seqlock(T()) {}
  explicit seqlock(const T& value) noexcept { copy_in(value); }
  seqlock(const seqlock&) = delete;
  seqlock& operator=(const seqlock&) = delete;

  // A copy of the value as some write left it. Waits while one is under way.
  T read() const noexcept {
    if (const std::optional<T> value = try_read(); CONCUR_LIKELY(value.has_value())) return *value;
    return read_slow();
  }

  // The same, but does not wait: empty if a write was under way.
  std::optional<T> try_read() const noexcept {
    CONCUR_PLANTED auto first_order = CONCUR_MUTANT_IS(303) ? std::memory_order_relaxed : std::memory_order_acquire;
    CONCUR_PLANTED auto fence_order = CONCUR_MUTANT_IS(304) ? std::memory_order_relaxed : std::memory_order_acquire;
    const word first = sequence_.load(first_order);  // acquire: pairs with W3
    if ((first & 1) != 0 && !CONCUR_MUTANT_IS(364)) return std::nullopt;
    image copy;
    copy_out(copy);
    detail::thread_fence(fence_order);  // acquire: RF, pairs with WF
    // relaxed: the fence before it orders it.
    if (sequence_.load(std::memory_order_relaxed) != first) return std::nullopt;
    return copy.value();
  }

  // Waits for other writers.
  void write(const T& value) noexcept {
    const detail::lock_scope<spin_lock> held(writers_);
    publish(value);
  }

  // Changes the value by f, and lets no other write between; returns what it was. f takes a T& and changes it, or takes a T and
  // returns the new one. If it throws, nothing has changed.
  template <class F>
  T update(F&& f) {
    const detail::lock_scope<spin_lock> held(writers_);
    image copy;
    copy_out(copy);  // nobody else writes, and what the last writer wrote came with the lock
    T next = copy.value();
    if constexpr (std::is_void<decltype(f(next))>::value) {
      f(next);
      publish(next);
    } else {
      publish(f(next));
    }
    return copy.value();
  }

 private:
  using word = std::uintptr_t;
  static constexpr std::size_t word_count = (sizeof(T) + sizeof(word) - 1) / sizeof(word);

  // The bytes of a T, in words.
  struct image {
    alignas(T) alignas(word) unsigned char bytes[word_count * sizeof(word)];
    const T& value() const noexcept { return *std::launder(reinterpret_cast<const T*>(bytes)); }
  };

  void copy_out(image& to) const noexcept {
    for (std::size_t i = 0; i < word_count; ++i) {
      const word piece = words_[i].load(std::memory_order_relaxed);  // relaxed: R1 and RF, or the lock, order it
      std::memcpy(to.bytes + i * sizeof(word), &piece, sizeof piece);
    }
  }
  void copy_in(const T& value) noexcept {
    const unsigned char* const from = reinterpret_cast<const unsigned char*>(&value);
    for (std::size_t i = 0; i < word_count; ++i) {
      const std::size_t begin = i * sizeof(word);
      word piece = 0;
      std::memcpy(&piece, from + begin, sizeof(T) - begin < sizeof(word) ? sizeof(T) - begin : sizeof(word));
      words_[i].store(piece, std::memory_order_relaxed);  // relaxed: WF and W3 order it
    }
  }
  // Under the lock.
  void publish(const T& value) noexcept {
    CONCUR_PLANTED auto fence_order = CONCUR_MUTANT_IS(305) ? std::memory_order_relaxed : std::memory_order_release;
    CONCUR_PLANTED auto last_order = CONCUR_MUTANT_IS(306) ? std::memory_order_relaxed : std::memory_order_release;
    const word before = sequence_.load(std::memory_order_relaxed);  // relaxed: under the lock (Q1)
    sequence_.store(before + 1, std::memory_order_relaxed);         // relaxed: W1, WF orders it
    detail::thread_fence(fence_order);                              // release: WF, pairs with RF
    copy_in(value);
    sequence_.store(before + 2, last_order);  // release: W3, publishes the words to R1
  }
  CONCUR_NOINLINE T read_slow() const noexcept {
    for (backoff wait;; wait.pause()) {
      if (const std::optional<T> value = try_read()) return *value;
    }
  }

  detail::atomic<word> sequence_{0};
  spin_lock writers_;
  detail::atomic<word> words_[word_count];
};

// seqlock place(point{1, 2}) is a seqlock<point>.
template <class T>
seqlock(T) -> seqlock<T>;

CONCUR_NAMESPACE_END

#endif
