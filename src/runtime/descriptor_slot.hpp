// runtime/descriptor_slot.hpp - what is known of each descriptor number: who waits there, and how often there was news.
//
// What the words mean and who changes them, reactor.hpp says. Here is where they are: a table by number that grows and never
// moves, so that a number leads to its slot by two loads, without a lock.
#ifndef CONCUR_RUNTIME_DESCRIPTOR_SLOT_HPP
#define CONCUR_RUNTIME_DESCRIPTOR_SLOT_HPP

#include "atomic/backoff.hpp"
#include "atomic/retirable_lock.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/intrusive.hpp"
#include "runtime/scheduler.hpp"
#include "runtime/waiter.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

enum class direction : unsigned char { reading, writing };

// What a descriptor is, as far as the way of calling it goes.
enum class descriptor_kind : unsigned char {
  unknown,
  socket,  // asked not to block by a flag of each call
  stream,  // pipe, terminal and the like: O_NONBLOCK was set on it
  file,    // always ready; calls block
};

struct descriptor_side {
  intrusive_list<waiter> waiting;
  atomic<bool> is_busy{false};  // somebody waits or has the turn; written under the slot's lock
  bool has_turn = false;             // somebody was woken and is not through (G3)
  unsigned calls = 0;                // that are made now by who waited, or found news (G2); under the slot's lock
  // How often there was news, twice, plus one: never 0. Written under the lock.
  atomic<std::uint32_t> news{1};

  // acquire: pairs with note_news. What a call finds out comes after the look.
  std::uint32_t present_news() const noexcept { return news.load(std::memory_order_acquire); }
};

// One call's use of one side of a descriptor.
struct side_use {
  std::uint32_t generation;  // G2
  std::uint32_t news = 0;    // what the side had before the system call
  bool has_turn = false;     // G3
  bool is_calling = false;   // G2
};

struct descriptor_slot {
  retirable_lock lock;  // never retired: a select asks all its sites alike
  // G2. Even while the kernel closes the number. Written under the lock.
  atomic<std::uint32_t> generation{1};
  scheduler* watched_by = nullptr;  // whose poller it is registered with
  atomic<descriptor_kind> kind{descriptor_kind::unknown};
  // The reading side's news before a read of a stream which gave less than it was asked for. While there is no more, the next
  // read need not try (G5). Written by readers, who may be late: then it is old, and means nothing.
  atomic<std::uint32_t> drained_at{0};
  atomic<bool> has_ended{false};  // the end of the stream was announced; written under the lock
  descriptor_side sides[2];

  descriptor_side& side(direction d) noexcept { return sides[static_cast<unsigned>(d)]; }
  // acquire: what a call does with the number comes after the look.
  std::uint32_t present_generation() const noexcept { return generation.load(std::memory_order_acquire); }
  // The same for a call that begins. Waits while the number is being closed.
  std::uint32_t generation_of_use() const noexcept {
    std::uint32_t now = present_generation();
    for (unsigned round = 0; CONCUR_UNLIKELY((now & 1) == 0) && !CONCUR_MUTANT_IS(243); now = present_generation())
      spin_wait(round);
    return now;
  }
  bool is_outdated(const side_use& use) const noexcept { return present_generation() != use.generation; }
};

// The slot of a number; null when it is no open descriptor and never was one, or memory is exhausted. Two loads when it exists.
CONCUR_INLINE descriptor_slot* slot_of(int fd) noexcept;

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <fcntl.h>
#  include <new>

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Block k holds the slots of 64 << k numbers: no number moves when the table grows, and none is out of reach.
inline constexpr unsigned slot_blocks = 25;
inline atomic<descriptor_slot*> slot_table[slot_blocks] = {};

CONCUR_NOINLINE inline descriptor_slot* grow_slots(unsigned block) noexcept {
  descriptor_slot* fresh = new (std::nothrow) descriptor_slot[std::size_t{64} << block];
  if (fresh == nullptr) return nullptr;
  descriptor_slot* present = nullptr;
  // acq_rel: publishes the fresh block, or acquires the one another thread made first.
  if (slot_table[block].compare_exchange_strong(present, fresh, std::memory_order_acq_rel, std::memory_order_acquire))
    return fresh;
  delete[] fresh;
  return present;
}

// A number that is no descriptor must not cost the memory of all the slots below it.
CONCUR_NOINLINE inline bool is_open(int fd) noexcept { return ::fcntl(fd, F_GETFD) >= 0; }

CONCUR_INLINE descriptor_slot* slot_of(int fd) noexcept {
  if (fd < 0) return nullptr;
  const std::uint32_t from_64 = static_cast<std::uint32_t>(fd) + 64;
  const unsigned block = 31 - static_cast<unsigned>(__builtin_clz(from_64)) - 6;
  descriptor_slot* first = slot_table[block].load(std::memory_order_acquire);  // acquire: pairs with grow_slots
  if (CONCUR_UNLIKELY(first == nullptr) && is_open(fd)) first = grow_slots(block);
  if (CONCUR_UNLIKELY(first == nullptr)) return nullptr;
  return &first[from_64 - (64u << block)];
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
