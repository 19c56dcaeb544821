// observe/exploration_memory.hpp - the other half of exploration.hpp: time, what is decided, what is found wrong, and what
// loads see.
#ifndef CONCUR_OBSERVE_EXPLORATION_MEMORY_HPP
#define CONCUR_OBSERVE_EXPLORATION_MEMORY_HPP

#include "base/config.hpp"
#include "observe/exploration.hpp"

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

// --- time ---

CONCUR_INLINE std::int64_t exploration::now() noexcept {
  if (!is_asked()) return now_ns_;
  count_step();
  constexpr std::int64_t leaps_ns[] = {100, 2'000, 60'000, 1'100'000, 11'000'000, 200'000'000};
  const std::int64_t leap_ns = leaps_ns[given.answer(choice::clock, 6)];
  now_ns_ += leap_ns;
  if (settings_.is_telling && leap_ns >= 1'000'000)
    note("the clock leaps by " + std::to_string(leap_ns / 1'000'000) + " ms");
  expire();
  return now_ns_;
}

CONCUR_INLINE void exploration::expire() {
  for (unsigned i = 0; i < threads_.count(); ++i) {
    if (threads_[i].now == thread_state::blocked && threads_[i].until_ns <= now_ns_)
      set_ready(threads_[i], block_end::timed_out);
  }
}

// Whoever has descriptors looks at them; false: nobody has.
CONCUR_INLINE bool exploration::look_outside(block_end how) {
  bool has_any = false;
  for (unsigned i = 0; i < threads_.count(); ++i) {
    if (threads_[i].now != thread_state::blocked || threads_[i].outside == nullptr) continue;
    std::uint32_t count = 0;
    std::memcpy(&count, threads_[i].outside, sizeof count);
    if (count == 0) continue;
    set_ready(threads_[i], how);
    has_any = true;
  }
  return has_any;
}
// The looks come while others run on: that is when news and calls meet.
CONCUR_INLINE void exploration::stir_outside() noexcept {
  if (!is_asked()) return;
  outside_looks_ = 0;
  look_outside(block_end::look);
}

// No thread can run: lets one (X2, X3). False: there is none.
CONCUR_INLINE bool exploration::advance() {
  is_looking_ = true;
  for (const scheduler* one : watched_) {
    if (const char* wrong = what_is_wrong(*one)) {
      is_looking_ = false;
      fail(wrong);
    }
  }
  is_looking_ = false;
  if (outside_looks_ == 0 && look_outside(block_end::look)) {
    outside_looks_ = 1;
    return true;
  }
  std::int64_t next_ns = INT64_MAX;
  for (unsigned i = 0; i < threads_.count(); ++i) {
    if (threads_[i].now == thread_state::blocked && threads_[i].until_ns < next_ns) next_ns = threads_[i].until_ns;
  }
  if (next_ns != INT64_MAX) {
    now_ns_ = next_ns;
    expire();
    return true;
  }
  if (outside_looks_ == 1 && look_outside(block_end::look_long)) {
    outside_looks_ = 2;
    return true;
  }
  return false;
}

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

CONCUR_INLINE void exploration::unwatch(const void* gone) noexcept {
  for (std::size_t i = watched_.size(); i-- > 0;) {
    if (watched_[i] == gone) watched_.erase(watched_.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

CONCUR_INLINE void exploration::note(const std::string& text) {
  constexpr std::size_t lines_max = 5000;
  if (told_.size() < lines_max) told_.push_back("step " + std::to_string(steps_) + ": " + text);
}

CONCUR_INLINE void exploration::tell(const void* w, const void* f, const char* what) noexcept {
  if (!settings_.is_telling) return;
  note(w == nullptr ? what : told_of(*static_cast<const worker*>(w), *static_cast<const fiber*>(f), what));
}

CONCUR_INLINE void exploration::note_failure(const std::string& what) {
  if (has_failed_) return;
  has_failed_ = true;
  what_ = what;
}

CONCUR_INLINE void exploration::fail(const std::string& what) {
  note_failure(what);
  was_abandoned_ = true;
  is_looking_ = true;
  for (const scheduler* one : watched_) describe(*one, now_ns_, what_);
  is_looking_ = false;
  if (settings_.is_telling) note(what_);
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
  for (const void*& ranked : ranks_) {
    if (ranked == address) ranked = nullptr;  // its place stays taken
  }
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

// In the order in which they are first asked for: few are.
CONCUR_INLINE std::uint64_t exploration::rank(const void* address) noexcept {
  std::size_t i = 0;
  while (i < ranks_.size() && ranks_[i] != address) ++i;
  if (i == ranks_.size()) ranks_.push_back(address);
  return i;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
