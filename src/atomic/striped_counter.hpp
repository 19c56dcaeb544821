// atomic/striped_counter.hpp - a count that many threads add to and few read.
//
// One atomic that every core adds to costs each of them the way of its cache line from the core that had it before. Here the
// count is the sum of 16 stripes on lines of their own, and a thread adds to the one that its number falls on.
//
//   T1  A stripe is a plain number modulo 2^N, where N is the width of a pointer; the count is the sum of all, modulo 2^N.
//       A stripe alone means nothing: what one thread adds another may subtract elsewhere.
//   T2  sum() contains each add that happened before it, and each of those that run beside it or not: it is no picture of one
//       moment. Of two adds of another thread it may contain the second and not the first. Once nobody adds any more, and
//       that is known (a join, a wait_group), it is exact.
//   T3  Which stripe is a question of speed, never of right: any stripe will do, and two threads may share one.
//
// The stripe is picked by the address of errno, of which each thread has its own. This is no thread_local of ours, and may go
// stale in a register over a change of threads, as T3 allows. Not by the address of something on the stack: each fiber has a
// stack of its own, so two workers that run many fibers would meet in the stripes all the time. Not by the worker's index: this
// must work on threads that are no workers, and without a runtime.
//
// On a 32-bit machine N is 32: no 64-bit atomics are needed, and the count lies between -2^31 and 2^31 - 1.
//
// Progress: wait-free where fetch_add is (x86, ARMv8.1), else lock-free. No order: nothing is published by adding. Cost:
// an add is one relaxed fetch_add of a line that mostly stays; sum reads 16 lines; 2 KiB of memory (1 KiB where a line counts
// as 64 bytes).
//
// Source: D. Lea's LongAdder (java.util.concurrent.atomic, Java 8), without its growing; the hash is D. Knuth's
// multiplicative one, The Art of Computer Programming 3, section 6.4.
#ifndef CONCUR_ATOMIC_STRIPED_COUNTER_HPP
#define CONCUR_ATOMIC_STRIPED_COUNTER_HPP

#include <cerrno>

#include "atomic/cache_padded.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// A number below 2^bits for this address; addresses at equal distances, as threads' are, spread evenly.
constexpr std::uint32_t stripe_of(std::uint64_t address, unsigned bits) noexcept {
  return static_cast<std::uint32_t>((address * 0x9E3779B97F4A7C15u) >> (64 - bits));
}

}  // namespace detail

class striped_counter {
 public:
  striped_counter() noexcept = default;
  striped_counter(const striped_counter&) = delete;
  striped_counter& operator=(const striped_counter&) = delete;

  void add(std::ptrdiff_t n = 1) noexcept { change(static_cast<std::size_t>(n)); }
  void sub(std::ptrdiff_t n = 1) noexcept { change(std::size_t{0} - static_cast<std::size_t>(n)); }

  std::ptrdiff_t sum() const noexcept {
    std::size_t all = 0;
    for (const stripe& one : stripes_) all += one->load(std::memory_order_relaxed);  // relaxed: T2
    return static_cast<std::ptrdiff_t>(all);
  }

 private:
  using stripe = cache_padded<detail::atomic<std::size_t>>;
  static constexpr unsigned stripe_bits = 4;

  void change(std::size_t n) noexcept {
    stripe& mine = stripes_[detail::stripe_of(reinterpret_cast<std::uintptr_t>(&errno), stripe_bits)];
    if (CONCUR_MUTANT_IS(365)) {
      mine->store(mine->load(std::memory_order_relaxed) + n, std::memory_order_relaxed);  // relaxed: the planted bug
      return;
    }
    mine->fetch_add(n, std::memory_order_relaxed);  // relaxed: a count guards no other memory
  }

  stripe stripes_[std::size_t{1} << stripe_bits];
};

CONCUR_NAMESPACE_END

#endif
