// observe/explored_memory.hpp - shared words and plain memory of a program's own, for its explorations.
//
// The library's own atomics are explored as they stand. A program's std::atomic is not: nobody can get between two operations
// of it. A lock-free structure that is to be tested declares its words as explored_atomic, and says where it touches plain
// memory that they guard. In an ordinary build that is std::atomic and nothing at all; with CONCUR_EXPLORE threads are
// interrupted at each operation, loads see what the memory orders permit (weak_memory), and two accesses that nothing orders
// fail the schedule as a data race.
//
//     concur::explored_atomic<bool> is_there{false};
//     int message = 0;
//     concur::explored_thread writer([&] {
//       concur::explore_write(&message, "the message");
//       message = 1;
//       is_there.store(true, std::memory_order_relaxed);  // should release
//     });
//     if (is_there.load(std::memory_order_acquire)) concur::explore_read(&message, "the message");
#ifndef CONCUR_OBSERVE_EXPLORED_MEMORY_HPP
#define CONCUR_OBSERVE_EXPLORED_MEMORY_HPP

#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/driver.hpp"

CONCUR_NAMESPACE_BEGIN

// std::atomic<T> by another name in an ordinary build; T fits into 64 bits.
template <class T>
using explored_atomic = detail::atomic<T>;

// std::atomic_thread_fence, which an exploration hears of.
CONCUR_FORCE_INLINE void explored_fence(std::memory_order order) noexcept {
  detail::thread_fence(order);  // plain: the caller's order
}

// Plain memory at this address is about to be read, or written; `name` stands in the report of a race.
CONCUR_FORCE_INLINE void explore_read(const void* address, const char* name) noexcept {
  detail::note_read(address, name);
}
CONCUR_FORCE_INLINE void explore_write(const void* address, const char* name) noexcept {
  detail::note_write(address, name);
}

// A line of one's own in a replay, among its steps. Nothing otherwise; make the text only where that costs nothing.
inline void explore_note(const char* text) noexcept {
  if (detail::driver* d = detail::driver_or_null()) d->tell(nullptr, nullptr, text);
}

CONCUR_NAMESPACE_END

#endif
