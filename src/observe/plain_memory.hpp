// observe/plain_memory.hpp - data races on memory that is not atomic.
//
// Two accesses to the same address, of which one writes, must be ordered by happens-before; if they are not, the program
// has no meaning. Kept are the last write and, for each thread, its last read since (Flanagan and Freund, "FastTrack",
// PLDI 2009): if none of these races with an access, then no earlier one does, unless that was reported before.
#ifndef CONCUR_OBSERVE_PLAIN_MEMORY_HPP
#define CONCUR_OBSERVE_PLAIN_MEMORY_HPP

#include "base/config.hpp"
#include "observe/address_table.hpp"
#include "observe/vector_clock.hpp"

#if defined(CONCUR_EXPLORE)

CONCUR_NAMESPACE_BEGIN
namespace detail {

class plain_memory {
 public:
  void forget() noexcept { places_.forget(); }
  CONCUR_INLINE void birth(const void* address) noexcept;
  std::size_t size() const noexcept { return places_.size(); }

  // past: what happened before this access of the thread, and the access itself. False: a race.
  CONCUR_INLINE bool read(unsigned thread, const vector_clock& past, const void* address);
  CONCUR_INLINE bool write(unsigned thread, const vector_clock& past, const void* address);

 private:
  struct place {
    std::uint32_t write_time;  // 0: not written
    std::uint16_t writer;
    std::uint16_t readers;  // since the last write, one bit for each thread
    std::uint32_t read_at[explored_threads_max];

    void clear() noexcept {
      write_time = 0;
      writer = readers = 0;
    }
  };

  address_table<place> places_;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#  if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void plain_memory::birth(const void* address) noexcept {
  if (place* const p = places_.find(address)) p->clear();
}

CONCUR_INLINE bool plain_memory::read(unsigned thread, const vector_clock& past, const void* address) {
  place& p = places_.get(address);
  p.readers = static_cast<std::uint16_t>(p.readers | 1U << thread);
  p.read_at[thread] = past.at[thread];
  return past.knows(p.writer, p.write_time);
}

CONCUR_INLINE bool plain_memory::write(unsigned thread, const vector_clock& past, const void* address) {
  place& p = places_.get(address);
  bool is_ordered = past.knows(p.writer, p.write_time);
  for (unsigned rest = CONCUR_MUTANT_IS(378) ? 0 : p.readers; rest != 0; rest &= rest - 1) {
    const unsigned reader = static_cast<unsigned>(__builtin_ctz(rest));
    is_ordered = is_ordered && past.knows(reader, p.read_at[reader]);
  }
  p.write_time = past.at[thread];
  p.writer = static_cast<std::uint16_t>(thread);
  p.readers = 0;
  return is_ordered;
}

}  // namespace detail
CONCUR_NAMESPACE_END

#  endif  // CONCUR_BODIES

#endif

#endif
