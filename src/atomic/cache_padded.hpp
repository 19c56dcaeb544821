// atomic/cache_padded.hpp - a value with its cache lines to itself.
//
// Two counters that two cores write in turn, each its own, are as slow as one that both write, if they lie in one cache
// line: the line travels, not the word ("false sharing"). cache_padded<T> is a T that begins on a line and fills it, so
// that neighbours in an array, or members that stand one after the other, are on lines of their own:
//
//     concur::cache_padded<std::atomic<int>> counts[workers];
//     *counts[i] += 1;  counts[i]->load();
//
//   P1  Alignment and size are multiples of detail::cache_line_bytes (128 on x86-64 and aarch64, where lines are fetched
//       in pairs or are that long; 64 elsewhere), and of T's own alignment if that is larger.
//   P2  It is a T with an address. It copies, moves, compares to nothing and converts to nothing; * and -> reach the T.
//
// std::hardware_destructive_interference_size is not used: it follows -mtune, so two objects of one program may disagree on
// the layout of a type, and g++ warns of that.
//
// Progress: it does nothing of its own; what is wait-free in T is wait-free in it. Cost: memory, a line at least for each.
#ifndef CONCUR_ATOMIC_CACHE_PADDED_HPP
#define CONCUR_ATOMIC_CACHE_PADDED_HPP

#include <type_traits>
#include <utility>

#include "base/config.hpp"

CONCUR_NAMESPACE_BEGIN

template <class T>
class alignas(T) alignas(detail::cache_line_bytes) cache_padded {
  static_assert(std::is_object<T>::value && !std::is_array<T>::value, "cache_padded<T>: T is an object type, no array");

 public:
  using value_type = T;

  // A T made from nothing: zero where T is a number or an atomic.
  constexpr cache_padded() noexcept(std::is_nothrow_default_constructible<T>::value) : value_() {}

  // A T made in place from these; T need be neither copyable nor movable.
  template <class First, class... Rest,
            class = std::enable_if_t<std::is_constructible<T, First, Rest...>::value &&
                                     !std::is_same<std::decay_t<First>, cache_padded>::value>>
  constexpr explicit cache_padded(First&& first, Rest&&... rest) noexcept(
      std::is_nothrow_constructible<T, First, Rest...>::value)
      : value_(std::forward<First>(first), std::forward<Rest>(rest)...) {}

  constexpr T& operator*() noexcept { return value_; }
  constexpr const T& operator*() const noexcept { return value_; }
  constexpr T* operator->() noexcept { return &value_; }
  constexpr const T* operator->() const noexcept { return &value_; }

 private:
  T value_;
};

// cache_padded sums(0L) is a cache_padded<long>.
template <class T>
cache_padded(T) -> cache_padded<T>;

CONCUR_NAMESPACE_END

#endif
