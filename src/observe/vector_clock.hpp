// observe/vector_clock.hpp - how much of each thread's past somebody knows.
//
// Each thread of an exploration numbers what it does: 1, 2, 3. A clock holds one such number for each thread, and
// stands for everything up to there. What happened before an event is a clock; so is what a store hands to whoever
// acquires it. One event happened before another if the other's clock holds at least its number.
#ifndef CONCUR_OBSERVE_VECTOR_CLOCK_HPP
#define CONCUR_OBSERVE_VECTOR_CLOCK_HPP

#include "base/config.hpp"
#include "base/driver.hpp"

#if defined(CONCUR_EXPLORE)

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct vector_clock {
  std::uint32_t at[explored_threads_max] = {};
  // The last seq_cst fence that is in this past; they are numbered from 1 in the order in which they were passed.
  std::uint32_t fence = 0;

  // threads: how many there are; the rest is zero on both sides.
  void join(const vector_clock& other, unsigned threads) noexcept {
    for (unsigned i = 0; i < threads; ++i) {
      if (at[i] < other.at[i]) at[i] = other.at[i];
    }
    if (fence < other.fence && !CONCUR_MUTANT_IS(377)) fence = other.fence;
  }
  bool knows(unsigned thread, std::uint32_t time) const noexcept { return at[thread] >= time; }
};

}  // namespace detail
CONCUR_NAMESPACE_END

#endif

#endif
