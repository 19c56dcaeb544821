// observe/address_table.hpp - a record for each address, forgotten all at once.
//
// An exploration runs a program a million times, and each run touches a few hundred addresses. So forgetting must cost
// nothing: a slot belongs to the present run only if it carries the run's number. Records lie densely, in the order
// in which their addresses came up, so each run uses the same few pages again.
//
//   H1  Open addressing, at most half full, so a search ends soon. Nothing is taken out singly.
//   H2  Memory grows to what the largest run needed and stays; then nothing is allocated any more.
//   H3  A reference to a record is good until the next call of get.
#ifndef CONCUR_OBSERVE_ADDRESS_TABLE_HPP
#define CONCUR_OBSERVE_ADDRESS_TABLE_HPP

#include <vector>

#include "base/config.hpp"

#if defined(CONCUR_EXPLORE)

CONCUR_NAMESPACE_BEGIN
namespace detail {

// A Record has clear(), which makes it new.
template <class Record>
class address_table {
 public:
  void forget() noexcept {
    used_ = 0;
    if (++run_ != 0) return;
    for (slot& one : slots_) one.run = 0;
    run_ = 1;
  }

  // Null when this run has not seen the address.
  Record* find(const void* address) noexcept {
    if (used_ == 0) return nullptr;
    const slot& there = slots_[place_of(address)];
    return there.run == run_ ? &records_[there.record] : nullptr;
  }

  // The address's record; a new one for an address that this run has not seen.
  Record& get(const void* address) {
    if (2 * (used_ + 1) > slots_.size()) grow();
    slot& there = slots_[place_of(address)];
    if (CONCUR_LIKELY(there.run == run_)) return records_[there.record];
    there.address = address;
    there.run = run_;
    there.record = static_cast<std::uint32_t>(used_);
    if (used_ == records_.size()) records_.emplace_back();
    Record& fresh = records_[used_++];
    fresh.clear();
    return fresh;
  }

  std::size_t size() const noexcept { return used_; }

 private:
  static constexpr std::uintptr_t golden = UINTPTR_MAX / 1000 * 618 | 1;

  struct slot {
    const void* address = nullptr;
    std::uint32_t run = 0;  // of another run: empty
    std::uint32_t record = 0;
  };

  // Where the address is, or where it would be put.
  std::size_t place_of(const void* address) const noexcept {
    // Multiplication by the golden ratio's part of a word (Knuth, The Art of Computer Programming 6.4); the upper bits of
    // the product depend on all bits of the address.
    std::size_t place = (reinterpret_cast<std::uintptr_t>(address) * golden) >> shift_;
    while (slots_[place].run == run_ && slots_[place].address != address) place = (place + 1) & (slots_.size() - 1);
    return place;
  }

  void grow() {
    std::vector<slot> old(slots_.empty() ? 256 : 2 * slots_.size());
    old.swap(slots_);
    shift_ = 8 * sizeof(std::uintptr_t);
    for (std::size_t size = slots_.size(); size > 1; size /= 2) --shift_;
    for (const slot& one : old) {
      if (one.run == run_) slots_[place_of(one.address)] = one;
    }
  }

  std::vector<slot> slots_;  // a power of two, or none
  std::vector<Record> records_;
  std::size_t used_ = 0;
  std::uint32_t run_ = 1;
  unsigned shift_ = 0;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#endif

#endif
