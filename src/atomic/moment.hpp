// atomic/moment.hpp - a moment that one thread writes and others read, on machines with and without 64-bit atomics.
//
// Where a pointer has 32 bits, a 64-bit atomic needs a library that small systems do not carry; there a lock of a few
// instructions stands around a plain number. Progress: wait-free on 64-bit machines, blocking on others. Neither
// orders anything else: whoever needs that puts a fence beside it.
#ifndef CONCUR_ATOMIC_MOMENT_HPP
#define CONCUR_ATOMIC_MOMENT_HPP

#include "atomic/spin_lock.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/time.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

class shared_moment {
 public:
  explicit shared_moment(nanoseconds_t ns) noexcept : ns_(ns) {}

#if defined(__LP64__)
  nanoseconds_t read() const noexcept { return ns_.load(std::memory_order_relaxed); }  // relaxed: see above
  void write(nanoseconds_t ns) noexcept { ns_.store(ns, std::memory_order_relaxed); }  // relaxed: see above

 private:
  atomic<nanoseconds_t> ns_;
#else
  nanoseconds_t read() const noexcept {
    lock_scope<spin_lock> held(lock_);
    return ns_;
  }
  void write(nanoseconds_t ns) noexcept {
    lock_scope<spin_lock> held(lock_);
    ns_ = ns;
  }

 private:
  mutable spin_lock lock_;
  nanoseconds_t ns_;
#endif
};

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
