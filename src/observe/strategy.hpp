// observe/strategy.hpp - how an exploration picks its way through the schedules of a program.
//
// A program of a few threads has more schedules than there are atoms; bugs hide in few of them, and mostly in simple
// ones. Three ways to look for them:
//
//     random              each choice by lot. How often threads are interrupted differs from schedule to schedule, from every
//                         other step to hardly ever: some bugs need much of it, some little.
//     pct(depth)          threads and fibers have priorities, drawn by lot, and the highest that can run does; at depth - 1
//                         places, drawn as well, the one that runs falls behind all others. A bug that needs `depth`
//                         things in a certain order is found with probability 1 / (n * k^(depth-1)) a schedule at least,
//                         for n threads and k steps (Burckhardt, Kothari, Musuvathi, Nagarakatte, "A randomized scheduler
//                         with probabilistic guarantees of finding bugs", ASPLOS 2010, section 2).
//     exhaustive(bound)   every schedule with at most `bound` interruptions of a thread that could go on, one after another.
//                         Most bugs need one or two (Musuvathi, Qadeer, "Iterative context bounding for systematic
//                         testing of multithreaded programs", PLDI 2007). For small programs of threads; a whole runtime has
//                         too many.
#ifndef CONCUR_OBSERVE_STRATEGY_HPP
#define CONCUR_OBSERVE_STRATEGY_HPP

#include "base/config.hpp"

CONCUR_NAMESPACE_BEGIN

class strategy {
 public:
  enum class kind : unsigned char { random, pct, exhaustive };

  constexpr strategy() noexcept = default;

  static const strategy random;
  // depth: 1 to 63; 0 is taken for 1.
  static constexpr strategy pct(unsigned depth) noexcept { return strategy(kind::pct, depth != 0 ? depth : 1); }
  // bound: 0 to 63.
  static constexpr strategy exhaustive(unsigned bound) noexcept { return strategy(kind::exhaustive, bound); }

  constexpr kind what() const noexcept { return what_; }
  constexpr unsigned parameter() const noexcept { return parameter_; }

 private:
  constexpr strategy(kind what, unsigned parameter) noexcept
      : what_(what), parameter_(static_cast<unsigned char>(parameter < 63 ? parameter : 63)) {}

  kind what_ = kind::random;
  unsigned char parameter_ = 0;
};

inline constexpr strategy strategy::random{};

// The same by shorter names.
inline constexpr strategy random{};
constexpr strategy pct(unsigned depth) noexcept { return strategy::pct(depth); }
constexpr strategy exhaustive(unsigned bound) noexcept { return strategy::exhaustive(bound); }

CONCUR_NAMESPACE_END

#endif
