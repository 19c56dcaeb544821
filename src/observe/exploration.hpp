// observe/exploration.hpp - the driver that runs one schedule of a program: its threads, its clock, its memory.
//
// The library asks its driver (base/driver.hpp) at every place where something could go one way or another; this one
// answers from a list of decisions, and so a program runs the same way each time it gets the same list.
//
//   X1  One thread runs at a time, and another goes on only within a call of the driver.
//   X2  Time stands still but for a little with each look at the clock and each spin, and now and then a leap. When no
//       thread can run, it moves to the next moment that one waits for; so waiting takes no time.
//   X3  When no thread can run and none waits for a moment, the schedule has failed: a deadlock. First whoever has
//       descriptors looks whether the kernel has news.
//   X4  A failure is final: the thread that found it goes to the conductor and never comes back.
//   X5  While the exploration looks at the program itself (to see what is wrong, to tell) it answers nothing and counts
//       nothing.
#ifndef CONCUR_OBSERVE_EXPLORATION_HPP
#define CONCUR_OBSERVE_EXPLORATION_HPP

#include <cstdint>
#include <string>
#include <vector>

#include "base/config.hpp"
#include "base/driver.hpp"
#include "observe/decisions.hpp"
#include "observe/look.hpp"
#include "observe/virtual_threads.hpp"

#if defined(CONCUR_EXPLORE)
#  include "observe/weak_memory.hpp"
#endif

CONCUR_NAMESPACE_BEGIN
namespace detail {

// What a schedule is run with.
struct schedule_settings {
  bool has_weak_memory = false;
  bool has_faults = false;
  bool is_telling = false;
  std::uint64_t steps_max = 0;
};

class exploration final : public driver {
 public:
  exploration() noexcept : driver(calls()) {}

  // Runs one schedule of a program that begins with body(argument) on a thread. `given` has begun it.
  void run(const schedule_settings& settings, void (*body)(void*), void* argument);

  decisions given;

  // --- how it ended ---
  bool has_failed() const { return has_failed_; }
  bool was_abandoned() const { return was_abandoned_; }  // V2
  const std::string& what() const { return what_; }
  std::uint64_t steps() const { return steps_; }
  std::vector<std::string>& told() { return told_; }
  // For the program itself: it has failed, and ends by itself.
  void note_failure(const std::string& what);

  // --- driver ---
  std::uint32_t choose(choice what, std::uint32_t count) noexcept;
  std::uint32_t choose_fiber(const std::uint64_t* ids, std::uint32_t count) noexcept;
  bool interrupts_fiber() noexcept;
  std::int64_t now() noexcept;
  void* start_thread(void (*body)(void*), void* argument, const char* name) noexcept;
  void join_thread(void* handle) noexcept;
  const void* this_thread() const noexcept { return threads_.address_of_current(); }
  void step() noexcept { before_access(nullptr); }
  void spin() noexcept;
  block_end block(const void* word, std::uint32_t expected, std::int64_t until_ns, const void* outside) noexcept;
  void wake(const void* word) noexcept;
  void stir_outside() noexcept;
  void before_access(const void* word) noexcept;
  std::uint64_t after_load(const void* word, std::uint64_t latest, std::memory_order order) noexcept;
  void after_store(const void* word, std::uint64_t before, std::uint64_t after, std::memory_order order) noexcept;
  void after_update(const void* word, std::uint64_t before, std::uint64_t after, std::memory_order order) noexcept;
  void after_failed_exchange(const void* word, std::uint64_t latest, std::memory_order order) noexcept;
  void fence(std::memory_order order) noexcept;
  void fence_all() noexcept;
  void birth(const void* address) noexcept;
  std::uint64_t rank(const void* address) noexcept;
  void plain_access(const void* address, bool is_write, const char* what) noexcept;
  void expect(bool holds, const char* what) noexcept;
  void watch(const void* s) noexcept { watched_.push_back(static_cast<const scheduler*>(s)); }
  void unwatch(const void* s) noexcept;
  bool is_telling() const noexcept { return settings_.is_telling; }
  void tell(const void* w, const void* f, const char* what) noexcept;

  // Ends the calling thread; it has returned from its body.
  [[noreturn]] void thread_ended() noexcept;

 private:
  static const driver_calls& calls() noexcept;

  using thread_state = virtual_thread::state;
  static constexpr std::int64_t begin_ns = driven_clock_begin_ns;

  bool is_asked() const { return !is_looking_ && threads_.current() != virtual_threads::conductor; }
  void count_step();
  void set_ready(virtual_thread& thread, block_end end);
  // The threads that can run, the calling one's successors first; it itself not. Returns how many.
  unsigned list_others(unsigned char* ids) const;
  void expire();
  bool advance();
  bool look_outside(block_end how);
  unsigned pick_other(choice what);
  void switch_to(unsigned next, const char* why);
  void fail(const std::string& what);
  void note(const std::string& text);

  virtual_threads threads_;
#if defined(CONCUR_EXPLORE)
  weak_memory memory_;
#endif
  schedule_settings settings_;
  std::int64_t now_ns_ = begin_ns;
  std::uint64_t steps_ = 0;
  unsigned ready_count_ = 0;
  unsigned outside_looks_ = 0;  // since something else happened than a look outside
  unsigned lonely_spins_ = 0;   // since a thread could run while another spun
  bool is_looking_ = false;     // X5
  bool has_failed_ = false;
  bool was_abandoned_ = false;
  std::string what_;
  std::vector<const scheduler*> watched_;
  std::vector<std::string> told_;
  std::vector<const void*> ranks_;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <cstring>

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void virtual_thread_ended(virtual_threads&) noexcept {
  static_cast<exploration*>(driver_or_null())->thread_ended();
}

// The function of driver_calls that calls Method.
template <auto Method>
struct through;
template <class R, class... A, R (exploration::*Method)(A...) noexcept>
struct through<Method> {
  static R call(driver& d, A... arguments) noexcept { return (static_cast<exploration&>(d).*Method)(arguments...); }
};
template <class R, class... A, R (exploration::*Method)(A...) const noexcept>
struct through<Method> {
  static R call(const driver& d, A... arguments) noexcept {
    return (static_cast<const exploration&>(d).*Method)(arguments...);
  }
};

CONCUR_INLINE const driver_calls& exploration::calls() noexcept {
  static constexpr driver_calls all = {&through<&exploration::choose>::call,
                                       &through<&exploration::choose_fiber>::call,
                                       &through<&exploration::interrupts_fiber>::call,
                                       &through<&exploration::now>::call,
                                       &through<&exploration::start_thread>::call,
                                       &through<&exploration::join_thread>::call,
                                       &through<&exploration::this_thread>::call,
                                       &through<&exploration::step>::call,
                                       &through<&exploration::spin>::call,
                                       &through<&exploration::block>::call,
                                       &through<&exploration::wake>::call,
                                       &through<&exploration::stir_outside>::call,
                                       &through<&exploration::before_access>::call,
                                       &through<&exploration::after_load>::call,
                                       &through<&exploration::after_store>::call,
                                       &through<&exploration::after_update>::call,
                                       &through<&exploration::after_failed_exchange>::call,
                                       &through<&exploration::fence>::call,
                                       &through<&exploration::fence_all>::call,
                                       &through<&exploration::birth>::call,
                                       &through<&exploration::rank>::call,
                                       &through<&exploration::plain_access>::call,
                                       &through<&exploration::expect>::call,
                                       &through<&exploration::watch>::call,
                                       &through<&exploration::unwatch>::call,
                                       &through<&exploration::is_telling>::call,
                                       &through<&exploration::tell>::call};
  return all;
}

CONCUR_INLINE void exploration::run(const schedule_settings& settings, void (*body)(void*), void* argument) {
  settings_ = settings;
  threads_.reset();
  now_ns_ = begin_ns;
  steps_ = 0;
  ready_count_ = 0;
  outside_looks_ = 0;
  lonely_spins_ = 0;
  is_looking_ = false;
  has_failed_ = false;
  was_abandoned_ = false;
  what_.clear();
  watched_.clear();
  told_.clear();
  ranks_.clear();
#  if defined(CONCUR_EXPLORE)
  if (settings_.has_weak_memory) memory_.reset();
#  endif
  sanitizer::lose_memory(true);
  current_driver.store(this, std::memory_order_relaxed);  // relaxed: D1
  const int first = threads_.start(body, argument, "main");
  if (first < 0) {
    fail("no memory for a thread");
  } else {
    ready_count_ = 1;
    threads_.go_to(static_cast<unsigned>(first));
  }
  current_driver.store(nullptr, std::memory_order_relaxed);  // relaxed: D1
  sanitizer::lose_memory(false);
  given.mix(steps_);
}

// --- threads ---

CONCUR_INLINE void exploration::count_step() {
  if (++steps_ <= settings_.steps_max) return;
  fail("no end after " + std::to_string(settings_.steps_max) + " steps: a livelock, or a limit that is too low");
}

CONCUR_INLINE void exploration::set_ready(virtual_thread& thread, block_end end) {
  thread.now = thread_state::ready;
  thread.end = end;
  ++ready_count_;
  if (end != block_end::look && end != block_end::look_long) outside_looks_ = 0;
}

CONCUR_INLINE unsigned exploration::list_others(unsigned char* ids) const {
  const unsigned count = threads_.count();
  unsigned found = 0;
  auto& all = const_cast<virtual_threads&>(threads_);
  for (unsigned k = 1; k <= count; ++k) {
    const unsigned i = (threads_.current() + k) % count;
    if (i != threads_.current() && all[i].now == thread_state::ready) ids[found++] = static_cast<unsigned char>(i);
  }
  return found;
}

CONCUR_INLINE void exploration::switch_to(unsigned next, const char* why) {
  given.mix(next + 1);
  if (settings_.is_telling) {
    std::string text = threads_[next].name;
    if (text == "worker" || text == "thread") text += " " + std::to_string(next);
    note(text + " goes on (" + why + ")");
  }
  threads_.go_to(next);
}

CONCUR_INLINE void exploration::before_access(const void*) noexcept {
  if (!is_asked()) return;
  count_step();
  if (ready_count_ <= 1 || given.passes(ready_count_)) return;
  unsigned char ids[explored_threads_max + 1];
  ids[0] = static_cast<unsigned char>(threads_.current());
  const unsigned count = list_others(ids + 1) + 1;
  const unsigned next = given.answer_thread(choice::preemption, ids, count);
  if (next != 0) switch_to(ids[next], "interrupts");
}

CONCUR_INLINE unsigned exploration::pick_other(choice what) {
  unsigned char ids[explored_threads_max];
  unsigned count = list_others(ids);
  while (count == 0) {
    if (!advance()) fail("deadlock: all wait, and nothing is left that could wake them");
    if (threads_[threads_.current()].now == thread_state::ready) return threads_.current();
    count = list_others(ids);
  }
  return ids[given.answer_thread(what, ids, count)];
}

CONCUR_INLINE void exploration::spin() noexcept {
  if (!is_asked()) return;
  count_step();
  given.demote(threads_.current());
  constexpr std::int64_t spin_ns = 5'000;  // who computes until something is over must come to that moment
  now_ns_ += spin_ns;
  expire();
  if (ready_count_ > 1) {
    lonely_spins_ = 0;
    switch_to(pick_other(choice::spin_to), "spin");
    return;
  }
  // Nobody else can run. It may be that what the thread waits for has happened, or that it waits for a moment.
  constexpr unsigned spins_to_advance = 8;
  constexpr unsigned spins_max = 2000;
  if (++lonely_spins_ % spins_to_advance != 0 || advance()) return;
  if (lonely_spins_ > spins_max) fail("a thread spins for ever, and nobody else can run");
}

CONCUR_INLINE block_end exploration::block(const void* word, std::uint32_t expected, std::int64_t until_ns,
                                           const void* outside) noexcept {
  if (!is_asked()) return block_end::timed_out;
  count_step();
  std::uint32_t seen = 0;
  std::memcpy(&seen, word, sizeof seen);
  if (seen != expected) return block_end::woken;
  if (until_ns <= now_ns_) return block_end::timed_out;
  virtual_thread& self = threads_[threads_.current()];
  self.now = thread_state::blocked;
  self.word = word;
  self.until_ns = until_ns;
  self.outside = outside;
  --ready_count_;
  switch_to(pick_other(choice::next_thread), "blocked");
  return self.end;
}

CONCUR_INLINE void exploration::wake(const void* word) noexcept {
  if (!is_asked()) return;
  for (unsigned i = 0; i < threads_.count(); ++i) {
    if (threads_[i].now == thread_state::blocked && threads_[i].word == word) set_ready(threads_[i], block_end::woken);
  }
}

CONCUR_INLINE void* exploration::start_thread(void (*body)(void*), void* argument, const char* name) noexcept {
  is_looking_ = true;  // a stack's first use takes locks; they are no part of the schedule, or it would go only once so
  const int child = threads_.start(body, argument, name);
  is_looking_ = false;
  if (child < 0) return nullptr;
  ++ready_count_;
#  if defined(CONCUR_EXPLORE)
  if (settings_.has_weak_memory) memory_.start_thread(threads_.current(), static_cast<unsigned>(child));
#  endif
  return &threads_[static_cast<unsigned>(child)];
}

CONCUR_INLINE void exploration::join_thread(void* handle) noexcept {
  virtual_thread& child = *static_cast<virtual_thread*>(handle);
  const unsigned number = static_cast<unsigned>(&child - &threads_[0]);
  count_step();
  virtual_thread& self = threads_[threads_.current()];
  if (child.now != thread_state::ended) {
    self.now = thread_state::joining;
    self.joins = number;
    --ready_count_;
    switch_to(pick_other(choice::next_thread), "waits for a thread's end");
  }
  child.own_notice.release();
  child.now = thread_state::unused;
#  if defined(CONCUR_EXPLORE)
  if (settings_.has_weak_memory) memory_.join_thread(threads_.current(), number);
#  endif
}

CONCUR_INLINE void exploration::thread_ended() noexcept {
  const unsigned self = threads_.current();
  threads_[self].now = thread_state::ended;
  --ready_count_;
  bool are_all_ended = true;
  for (unsigned i = 0; i < threads_.count(); ++i) {
    virtual_thread& thread = threads_[i];
    if (thread.now == thread_state::joining && thread.joins == self) set_ready(thread, block_end::woken);
    if (thread.now != thread_state::ended && thread.now != thread_state::unused) are_all_ended = false;
  }
  if (are_all_ended) threads_.end_and_go_to(virtual_threads::conductor);
  const unsigned next = pick_other(choice::next_thread);
  given.mix(next + 1);
  threads_.end_and_go_to(next);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
