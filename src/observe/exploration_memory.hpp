// observe/exploration_memory.hpp - the other half of exploration.hpp: what is decided, what is found wrong, and what loads
// see.
#ifndef CONCUR_OBSERVE_EXPLORATION_MEMORY_HPP
#define CONCUR_OBSERVE_EXPLORATION_MEMORY_HPP

#include "base/config.hpp"
#include "observe/exploration.hpp"

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

// --- what is decided, and what is found ---

CONCUR_INLINE std::uint32_t exploration::choose(choice what, std::uint32_t count) noexcept {
  if (!is_asked()) return 0;
  if ((what == choice::io_size || what == choice::io_error) && !settings_.has_faults) return 0;
  return given.answer(what, count);
}

CONCUR_INLINE std::uint32_t exploration::choose_fiber(const std::uint64_t* ids, std::uint32_t count) noexcept {
  return is_asked() ? given.answer_fiber(ids, count) : 0;
}

CONCUR_INLINE bool exploration::interrupts_fiber() noexcept {
  before_access(nullptr);
  return given.answer_interruption();
}

CONCUR_INLINE void exploration::unwatch(const void* object) noexcept {
  for (std::size_t i = 0; i < watched_.size(); ++i) {
    if (watched_[i].object == object) watched_.erase(watched_.begin() + static_cast<std::ptrdiff_t>(i--));
  }
}

CONCUR_INLINE void exploration::tell(const char* text) noexcept {
  if (!settings_.is_telling) return;
  constexpr std::size_t lines_max = 5000;
  if (told_.size() < lines_max) told_.push_back("step " + std::to_string(steps_) + ": " + text);
}

CONCUR_INLINE void exploration::note_failure(const std::string& what) {
  if (has_failed_) return;
  has_failed_ = true;
  what_ = what;
}

CONCUR_INLINE void exploration::describe() {
  is_looking_ = true;
  for (const watched_object& one : watched_) {
    one.describe(
        one.object,
        [](void* sink, const char* text) {
          *static_cast<std::string*>(sink) += "\n  ";
          *static_cast<std::string*>(sink) += text;
        },
        &what_);
  }
  is_looking_ = false;
}

CONCUR_INLINE void exploration::fail(const std::string& what) {
  note_failure(what);
  was_abandoned_ = true;
  describe();
  if (settings_.is_telling) told_.push_back("step " + std::to_string(steps_) + ": " + what_);
  if (threads_.current() == virtual_threads::conductor) return;
  threads_.go_to(virtual_threads::conductor);  // and never back (X4)
}

CONCUR_INLINE void exploration::expect(bool holds, const char* what) noexcept {
  if (!holds && is_asked()) fail(what);
}

// --- memory ---

#  if defined(CONCUR_EXPLORE)

CONCUR_INLINE std::uint64_t exploration::after_load(const void* word, std::uint64_t latest,
                                                    std::memory_order order) noexcept {
  if (!settings_.has_weak_memory || !is_asked()) return latest;
  // plain: the simulation answers, with the order that the program gave.
  return memory_.load(threads_.current(), word, latest, order,
                      [this](unsigned count) { return given.answer(choice::stale_read, count); });
}
CONCUR_INLINE void exploration::after_store(const void* word, std::uint64_t before, std::uint64_t after,
                                            std::memory_order order) noexcept {
  // plain: as above.
  if (settings_.has_weak_memory && is_asked()) memory_.store(threads_.current(), word, before, after, order);
}
CONCUR_INLINE void exploration::after_update(const void* word, std::uint64_t before, std::uint64_t after,
                                             std::memory_order order) noexcept {
  if (settings_.has_weak_memory && is_asked()) memory_.update(threads_.current(), word, before, after, order);
}
CONCUR_INLINE void exploration::after_failed_exchange(const void* word, std::uint64_t latest,
                                                      std::memory_order order) noexcept {
  if (settings_.has_weak_memory && is_asked()) memory_.load_newest(threads_.current(), word, latest, order);
}
CONCUR_INLINE void exploration::fence(std::memory_order order) noexcept {
  if (!is_asked()) return;
  before_access(nullptr);
  if (settings_.has_weak_memory) memory_.fence(threads_.current(), order);
}
CONCUR_INLINE void exploration::fence_all() noexcept {
  if (!is_asked()) return;
  before_access(nullptr);
  if (settings_.has_weak_memory) memory_.fence_all(threads_.current());
}
CONCUR_INLINE void exploration::birth(const void* address) noexcept {
  if (!is_asked()) return;
  if (!ranks_.empty()) ranks_.erase(address);
  if (settings_.has_weak_memory) memory_.birth(threads_.current(), address);
}
CONCUR_INLINE void exploration::plain_access(const void* address, bool is_write, const char* what) noexcept {
  if (!settings_.has_weak_memory || !is_asked()) return;
  const unsigned self = threads_.current();
  if (is_write ? memory_.plain_write(self, address) : memory_.plain_read(self, address)) return;
  fail(std::string("data race: two threads touch ") + (*what != '\0' ? what : "memory") +
       ", one of them writes, and nothing orders them");
}

#  else

CONCUR_INLINE std::uint64_t exploration::after_load(const void*, std::uint64_t latest, std::memory_order) noexcept {
  return latest;
}
CONCUR_INLINE void exploration::after_store(const void*, std::uint64_t, std::uint64_t, std::memory_order) noexcept {}
CONCUR_INLINE void exploration::after_update(const void*, std::uint64_t, std::uint64_t, std::memory_order) noexcept {}
CONCUR_INLINE void exploration::after_failed_exchange(const void*, std::uint64_t, std::memory_order) noexcept {}
CONCUR_INLINE void exploration::fence(std::memory_order) noexcept {}
CONCUR_INLINE void exploration::fence_all() noexcept {}
CONCUR_INLINE void exploration::birth(const void*) noexcept {}
CONCUR_INLINE void exploration::plain_access(const void*, bool, const char*) noexcept {}

#  endif

CONCUR_INLINE std::uint64_t exploration::rank(const void* address) noexcept {
  const auto found = ranks_.find(address);
  if (found != ranks_.end()) return found->second;
  return ranks_[address] = next_rank_++;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
