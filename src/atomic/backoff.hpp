// atomic/backoff.hpp - waiting for another thread's few instructions: a little, then longer, then politely.
//
// Who finds a lock held, or loses an exchange, tries again. When many try again at once and at once again, the cache line
// goes round among those who wait, and the one they wait for cannot have it. So each waits, twice as long each time
// (exponential), and not exactly so long, lest two that met meet again (jittered):
//
//     for (concur::backoff wait; !flag.load(std::memory_order_acquire);) wait.pause();
//
//   B1  A step spins in the first 8 rounds, 1, 2, 4 ... 128 pauses of the processor at most and half of that at least:
//       about 2 us in all. A thread that runs is waited for without a system call.
//   B2  Then a step gives the core away. The one that is waited for may have been taken off its core, and without a core of
//       its own on this machine it comes back only when somebody leaves one. is_spent() says that this has begun: who can
//       park should do that now.
//   B3  From round 64 on a step sleeps for 50 us. With real-time priorities giving the core away may give it to nobody else.
//   B4  There is no clock in it: reading one costs more than the first rounds. The random numbers come from a state of 4
//       bytes in the object, begun from its address, which differs from thread to thread; they guard nothing.
//   B5  Where a driver (base/driver.hpp) plays all threads, a step lets another one run, and takes no time.
//
// Progress: a step ends after bounded time; the loop around it is blocking if it waits for somebody in particular. A step
// orders no memory: the loads of the loop do. Not for a fiber that waits for another fiber: it keeps its worker; park
// with a mutex, an event or a channel instead. Cost: 8 bytes, two stores to begin.
//
// Sources: T. Anderson, "The performance of spin lock alternatives for shared-memory multiprocessors", IEEE Transactions on
// Parallel and Distributed Systems 1 (1990), for waiting exponentially at a lock; G. Marsaglia, "Xorshift RNGs", Journal of
// Statistical Software 8 (2003), section 3, for the random numbers.
#ifndef CONCUR_ATOMIC_BACKOFF_HPP
#define CONCUR_ATOMIC_BACKOFF_HPP

#include "base/config.hpp"
#include "base/driver.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Tells the core that this is a loop that waits, for the sake of its sibling and of its power.
inline void cpu_relax() noexcept {
#if defined(CONCUR_ARCH_X86_64) || defined(CONCUR_ARCH_I386)
  __builtin_ia32_pause();
#elif defined(CONCUR_ARCH_AARCH64)
  asm volatile("isb" ::: "memory");
#else
  asm volatile("" ::: "memory");
#endif
}

// Spins for that many pauses. Every wait of the library that does not park comes through here, or lies in a step below.
inline void spin_briefly(std::uint32_t pauses) noexcept {
  if (driver* d = driver_or_null()) {  // B5
    d->spin();
    return;
  }
  for (std::uint32_t i = 0; i < pauses; ++i) cpu_relax();
}

constexpr unsigned spinning_rounds = 8;
constexpr unsigned yielding_rounds = 64;

// One step of waiting, the `round`-th, which it counts: `pauses` of spinning, or what comes after spinning.
CONCUR_INLINE void wait_step(unsigned& round, std::uint32_t pauses) noexcept;

// A step without jitter, for the one thread that waits for one other.
CONCUR_INLINE void spin_wait(unsigned& round) noexcept;

// The pauses of a step with jitter: between half of 1 << round and all of it.
inline std::uint32_t jittered_pauses(unsigned round, std::uint32_t random) noexcept {
  const std::uint32_t most = std::uint32_t{1} << (round < spinning_rounds ? round : spinning_rounds);
  return CONCUR_MUTANT_IS(366) ? most : most - random % (most / 2 + 1);
}

}  // namespace detail

class backoff {
 public:
  backoff() noexcept : backoff(seed_at(this)) {}
  explicit constexpr backoff(std::uint32_t seed) noexcept : random_(seed != 0 ? seed : 1) {}

  // Waits for one step.
  void pause() noexcept {
    random_ ^= random_ << 13;
    random_ ^= random_ >> 17;
    random_ ^= random_ << 5;
    detail::wait_step(round_, detail::jittered_pauses(round_, random_));
  }

  // Whether the steps no longer spin (B2).
  constexpr bool is_spent() const noexcept { return round_ >= detail::spinning_rounds; }

  // Begins anew: what was waited for has moved.
  constexpr void reset() noexcept { round_ = 0; }

 private:
  // A stack's addresses differ little in their low bits from those of another, so all bits go into the upper ones.
  static std::uint32_t seed_at(const void* address) noexcept {
    const std::uint64_t bits = reinterpret_cast<std::uintptr_t>(address);
    return static_cast<std::uint32_t>((bits * 0x9E3779B97F4A7C15u) >> 32);
  }

  unsigned round_ = 0;
  std::uint32_t random_;  // never 0
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <sched.h>
#  include <time.h>

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void wait_step(unsigned& round, std::uint32_t pauses) noexcept {
  const unsigned now = round;
  if (now < yielding_rounds) round = now + 1;
  if (now < spinning_rounds || driver_or_null() != nullptr) {
    spin_briefly(pauses);
  } else if (now < yielding_rounds) {
    sched_yield();
  } else {
    timespec pause{0, 50'000};
    nanosleep(&pause, nullptr);
  }
}

CONCUR_INLINE void spin_wait(unsigned& round) noexcept {
  wait_step(round, std::uint32_t{1} << (round < spinning_rounds ? round : spinning_rounds));
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES
#endif
