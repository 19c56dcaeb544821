// runtime/seam.hpp - every choice the runtime leaves open, in one place.
//
// A scheduler is full of choices that no promise decides: whom to rob, which ready case of a select runs, how many bytes a
// read gives. In production they are made as cheaply as possible. An exploration wants to make them itself, all of them,
// from one seed: then a failure seen once can be seen again. So the runtime never decides by itself; it asks here.
//
//   C1  Whoever adds a choice whose outcome a user could observe adds it to `choice` (base/driver.hpp), and asks through
//       these functions.
//   C2  Without a driver a question costs what the bare decision costs, and one untaken branch.
//   C3  A driver answers on the thread that asks, does not park, and answers choose(n) with a number below n.
#ifndef CONCUR_RUNTIME_SEAM_HPP
#define CONCUR_RUNTIME_SEAM_HPP

#include "base/config.hpp"
#include "base/driver.hpp"
#include "base/time.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016, section 3):
// two dozen bits of good randomness in a few cycles. Not for secrets.
class random_source {
 public:
  explicit random_source(std::uint64_t seed) noexcept : state_(seed | 1) {}
  std::uint32_t next() noexcept {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return static_cast<std::uint32_t>((state_ * 0x2545F4914F6CDD1Du) >> 32);
  }

 private:
  std::uint64_t state_;
};

// A seed for a thread that has no source of its own: the time and an address of its stack, well mixed (splitmix64, Steele
// and others, "Fast splittable pseudorandom number generators", 2014, section 4).
inline std::uint64_t thread_seed(const void* stack_address) noexcept {
  std::uint64_t z = static_cast<std::uint64_t>(now_ns()) + reinterpret_cast<std::uintptr_t>(stack_address);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// A number below count, which is at least 1.
inline std::uint32_t seam_choose(random_source& random, choice what, std::uint32_t count) noexcept {
  if (driver* d = driver_or_null(); CONCUR_UNLIKELY(d != nullptr)) return d->choose(what, count);
  return static_cast<std::uint32_t>((std::uint64_t{random.next()} * count) >> 32);
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
