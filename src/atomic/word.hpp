// atomic/word.hpp - the words that threads share, and the one place where an exploration gets between them.
//
// The library's protocols are written with detail::atomic and detail::thread_fence. In an ordinary build these are
// std::atomic and std::atomic_thread_fence, by name and in every other way. With CONCUR_EXPLORE each operation first
// lets the driver (base/driver.hpp) run other threads, and then lets it say what a load sees: not only the last store,
// but any that the memory order still permits. So a protocol is explored as it stands, not a copy of it written for a
// checker.
//
//   W1  The word itself always holds what was stored last. A load may be told something older; a read-modify-write
//       never is.
//   W2  Without a driver a CONCUR_EXPLORE build does what an ordinary one does, an untaken branch later.
//   W3  Memory that a protocol guards without being atomic (the slot of a queue) is announced with note_read and
//       note_write where the guard is to be checked, and with note_birth where its object begins; they are nothing in an
//       ordinary build.
#ifndef CONCUR_ATOMIC_WORD_HPP
#define CONCUR_ATOMIC_WORD_HPP

#include <atomic>
#include <cstring>
#include <type_traits>

#include "base/config.hpp"
#include "base/driver.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

#if !defined(CONCUR_EXPLORE)

template <class T>
using atomic = std::atomic<T>;

CONCUR_FORCE_INLINE void thread_fence(std::memory_order order) noexcept { std::atomic_thread_fence(order); }
CONCUR_FORCE_INLINE void note_read(const void*, const char* = "") noexcept {}
CONCUR_FORCE_INLINE void note_write(const void*, const char* = "") noexcept {}
CONCUR_FORCE_INLINE void note_birth(const void*) noexcept {}

#else

inline void thread_fence(std::memory_order order) noexcept {
  if (driver* d = driver_or_null()) d->fence(order);
  std::atomic_thread_fence(order);
}
inline void note_read(const void* address, const char* what = "") noexcept {
  if (driver* d = driver_or_null()) d->plain_access(address, false, what);
}
inline void note_write(const void* address, const char* what = "") noexcept {
  if (driver* d = driver_or_null()) d->plain_access(address, true, what);
}
inline void note_birth(const void* address) noexcept {
  if (driver* d = driver_or_null()) d->birth(address);
}

template <class T>
class atomic {
  static_assert(std::is_trivially_copyable<T>::value && sizeof(T) <= sizeof(std::uint64_t), "one word");

 public:
  using difference = std::conditional_t<std::is_pointer<T>::value, std::ptrdiff_t, T>;
  static constexpr bool is_always_lock_free = std::atomic<T>::is_always_lock_free;

  constexpr atomic() noexcept : atomic(T()) {}
  constexpr atomic(T value) noexcept : word_(value) {
    if (!__builtin_is_constant_evaluated()) note_birth(this);
  }
  atomic(const atomic&) = delete;
  atomic& operator=(const atomic&) = delete;

  T load(std::memory_order order = std::memory_order_seq_cst) const noexcept {
    driver* const d = driver_or_null();
    if (CONCUR_LIKELY(d == nullptr)) return word_.load(order);
    d->before_access(this);
    return of_bits(d->after_load(this, to_bits(latest()), order));
  }

  void store(T value, std::memory_order order = std::memory_order_seq_cst) noexcept {
    driver* const d = driver_or_null();
    if (CONCUR_LIKELY(d == nullptr)) return word_.store(value, order);
    d->before_access(this);
    const T before = latest();
    set(value);
    d->after_store(this, to_bits(before), to_bits(value), order);
  }

  T exchange(T value, std::memory_order order = std::memory_order_seq_cst) noexcept {
    return update(
        order, [&](T) { return value; }, [&] { return word_.exchange(value, order); });
  }
  T fetch_add(difference more, std::memory_order order = std::memory_order_seq_cst) noexcept {
    return update(
        order, [&](T was) { return static_cast<T>(was + more); }, [&] { return word_.fetch_add(more, order); });
  }
  T fetch_sub(difference less, std::memory_order order = std::memory_order_seq_cst) noexcept {
    return update(
        order, [&](T was) { return static_cast<T>(was - less); }, [&] { return word_.fetch_sub(less, order); });
  }
  T fetch_or(T bits, std::memory_order order = std::memory_order_seq_cst) noexcept {
    return update(
        order, [&](T was) { return static_cast<T>(was | bits); }, [&] { return word_.fetch_or(bits, order); });
  }
  T fetch_and(T bits, std::memory_order order = std::memory_order_seq_cst) noexcept {
    return update(
        order, [&](T was) { return static_cast<T>(was & bits); }, [&] { return word_.fetch_and(bits, order); });
  }

  bool compare_exchange_strong(T& expected, T wanted, std::memory_order success, std::memory_order failure) noexcept {
    driver* const d = driver_or_null();
    if (CONCUR_LIKELY(d == nullptr)) return word_.compare_exchange_strong(expected, wanted, success, failure);
    d->before_access(this);
    return compare(*d, expected, wanted, success, failure);
  }
  bool compare_exchange_strong(T& expected, T wanted, std::memory_order order = std::memory_order_seq_cst) noexcept {
    return compare_exchange_strong(expected, wanted, order, without_release(order));
  }
  bool compare_exchange_weak(T& expected, T wanted, std::memory_order success, std::memory_order failure) noexcept {
    driver* const d = driver_or_null();
    if (CONCUR_LIKELY(d == nullptr)) return word_.compare_exchange_weak(expected, wanted, success, failure);
    d->before_access(this);
    // It may fail for nothing, as on machines with load-linked and store-conditional.
    if (to_bits(latest()) == to_bits(expected) && d->choose(choice::spurious, 8) == 7) {
      d->after_failed_exchange(this, to_bits(expected), failure);
      return false;
    }
    return compare(*d, expected, wanted, success, failure);
  }
  bool compare_exchange_weak(T& expected, T wanted, std::memory_order order = std::memory_order_seq_cst) noexcept {
    return compare_exchange_weak(expected, wanted, order, without_release(order));
  }

  T operator=(T value) noexcept {
    store(value);
    return value;
  }
  operator T() const noexcept { return load(); }

 private:
  static std::uint64_t to_bits(T value) noexcept {
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    return bits;
  }
  static T of_bits(std::uint64_t bits) noexcept {
    T value;
    std::memcpy(static_cast<void*>(&value), &bits, sizeof value);
    return value;
  }
  static constexpr std::memory_order without_release(std::memory_order order) noexcept {
    return order == std::memory_order_acq_rel
               ? std::memory_order_acquire
               : (order == std::memory_order_release ? std::memory_order_relaxed : order);
  }
  T latest() const noexcept { return word_.load(std::memory_order_relaxed); }    // relaxed: D1
  void set(T value) noexcept { word_.store(value, std::memory_order_relaxed); }  // relaxed: D1

  bool compare(driver& d, T& expected, T wanted, std::memory_order success, std::memory_order failure) noexcept {
    const T was = latest();
    if (to_bits(was) == to_bits(expected)) {
      set(wanted);
      d.after_update(this, to_bits(was), to_bits(wanted), success);
      return true;
    }
    // What fails is a load, of the last store (W1): an older one that equals `expected` would have to succeed.
    d.after_failed_exchange(this, to_bits(was), failure);
    expected = was;
    return false;
  }

  template <class F, class Plain>
  T update(std::memory_order order, F f, Plain plain) noexcept {
    driver* const d = driver_or_null();
    if (CONCUR_LIKELY(d == nullptr)) return plain();
    d->before_access(this);
    const T was = latest();
    const T now = f(was);
    set(now);
    d->after_update(this, to_bits(was), to_bits(now), order);
    return was;
  }

  std::atomic<T> word_;
};

#endif

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
