// atomic/cas.hpp - changing an atomic by a function of its value: read it, compute, and write if nobody came between.
//
// fetch_add and its kin exist for a few operations; for every other there is the loop around compare_exchange_weak, with its
// failure order, its reload and its narrowing. It stands here once:
//
//     concur::cas_update(level, [](int l) { return l * 2; });          // returns what it was before
//     concur::fetch_max(peak, now);                                    // peak is now at least `now`
//     auto was = concur::cas_update(permits, [](int n) { return n > 0 ? std::optional<int>(n - 1) : std::nullopt; });
//
//   C1  The function is called again whenever another thread came between, so it must do nothing but compute: what it changes
//       elsewhere it changes several times. If it throws, the atomic is as it was.
//   C2  A function that returns std::optional may refuse. Refused: nothing is written, and cas_update returns an empty
//       optional; else what it was before, in an optional. (The value that was refused is the argument of the last call.)
//   C3  `order` is that of the change. What is only read, by the function or where nothing is written, is read with the part
//       of it that a load can have: acquire, seq_cst, or nothing for release and relaxed.
//   C4  fetch_max and fetch_min write only if that changes the value. So the usual case, a maximum that is none, is a load,
//       and the line stays in every core's cache. But a release that writes nothing publishes nothing: who reads the value
//       later has an edge from the thread that wrote it, none from one that found it large enough. If each call shall
//       publish, use cas_update, which writes the same value too.
//   C5  A value that went away and came back is taken for one that stayed. That is right where the value is all there is to
//       it; for a pointer to a node that was freed and made again it is not: see treiber_stack.
//
// The atomic may be a std::atomic<T>, or anything with its load and compare_exchange_weak.
//
// Progress: lock-free where the atomic is: an attempt fails because another's succeeded, or for no reason on machines with
// load-linked and store-conditional. No single thread is sure to get through. Cost: a load and an exchange; with many
// writers at once an exchange more for each that came between. There is no backoff in it: who came between has got through.
//
// Sources: M. Herlihy, "Wait-free synchronization", ACM TOPLAS 13 (1991), section 4: compare-and-swap can do every such
// update. What a maximum that writes nothing should order is discussed in WG21 P0493, "Atomic maximum/minimum".
#ifndef CONCUR_ATOMIC_CAS_HPP
#define CONCUR_ATOMIC_CAS_HPP

#include <atomic>
#include <optional>
#include <type_traits>
#include <utility>

#include "base/config.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

template <class Atomic>
using value_in = std::decay_t<decltype(std::declval<const Atomic&>().load(std::memory_order()))>;  // plain: a type

// The part of an order that a load can have (C3).
constexpr std::memory_order load_part(std::memory_order order) noexcept {
  switch (order) {
    case std::memory_order_release:
    case std::memory_order_relaxed:
      return std::memory_order_relaxed;
    case std::memory_order_acq_rel:
      return std::memory_order_acquire;
    case std::memory_order_acquire:
    case std::memory_order_consume:
    case std::memory_order_seq_cst:
      break;
  }
  return order;
}

template <class T>
constexpr bool is_optional = false;
template <class T>
constexpr bool is_optional<std::optional<T>> = true;

// Narrows as the compound operators of the built-in types do: char + 1 is an int, and goes back into a char.
template <class T, class U>
constexpr T narrowed(U&& value) noexcept(std::is_nothrow_constructible<T, U>::value) {
  if constexpr (std::is_same<std::decay_t<U>, T>::value)
    return std::forward<U>(value);
  else
    return static_cast<T>(std::forward<U>(value));
}

// `wins(candidate, present)`: the candidate takes its place.
template <class Atomic, class T, class Wins>
T replace_if(Atomic& word, T candidate, std::memory_order order, Wins wins) noexcept {
  const auto change_order = CONCUR_MUTANT_IS(309) ? std::memory_order_relaxed : order;
  const auto read_order = CONCUR_MUTANT_IS(360) ? std::memory_order_relaxed : load_part(order);
  // acquire, seq_cst or relaxed: the load's part of the caller's order (C3).
  T present = word.load(read_order);
  while (wins(candidate, present) || CONCUR_MUTANT_IS(367)) {
    const T next = wins(candidate, present) ? candidate : present;
    // acquire, release or any: the caller's order; a failure is a load again (C3).
    if (word.compare_exchange_weak(present, next, change_order, read_order)) break;
  }
  return present;
}

}  // namespace detail

// Replaces the value v by f(v); returns v. If f returns std::optional, it may refuse (C2), and v comes in an optional.
template <class Atomic, class F>
auto cas_update(Atomic& word, F&& f, std::memory_order order = std::memory_order_seq_cst) {
  using value = detail::value_in<Atomic>;
  using answer = std::decay_t<decltype(f(std::declval<const value&>()))>;
  const auto change_order = CONCUR_MUTANT_IS(307) ? std::memory_order_relaxed : order;
  const auto read_order = CONCUR_MUTANT_IS(308) ? std::memory_order_relaxed : detail::load_part(order);
  // acquire, seq_cst or relaxed: f may follow the value, so it is read with the load's part of the caller's order (C3).
  value present = word.load(read_order);
  for (;;) {
    if constexpr (detail::is_optional<answer> && !std::is_same<answer, value>::value) {
      answer wanted = f(std::as_const(present));
      if (!wanted) return std::optional<value>();
      // acquire, release or any: the caller's order; a failure is a load again (C3).
      if (word.compare_exchange_weak(present, detail::narrowed<value>(*std::move(wanted)), change_order, read_order))
        return std::optional<value>(present);
    } else {
      const value wanted = detail::narrowed<value>(f(std::as_const(present)));
      // acquire, release or any: the caller's order; a failure is a load again (C3).
      if (word.compare_exchange_weak(present, wanted, change_order, read_order)) return present;
    }
  }
}

// Makes the value the larger of what it is and `candidate`; returns what it was. Compares with <. Writes only if it must (C4).
template <class Atomic>
detail::value_in<Atomic> fetch_max(Atomic& word, detail::value_in<Atomic> candidate,
                                   std::memory_order order = std::memory_order_seq_cst) noexcept {
  return detail::replace_if(word, candidate, order, [](const auto& a, const auto& b) { return b < a; });
}

// The same with the smaller.
template <class Atomic>
detail::value_in<Atomic> fetch_min(Atomic& word, detail::value_in<Atomic> candidate,
                                   std::memory_order order = std::memory_order_seq_cst) noexcept {
  return detail::replace_if(word, candidate, order, [](const auto& a, const auto& b) { return a < b; });
}

CONCUR_NAMESPACE_END

#endif
