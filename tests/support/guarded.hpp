// tests/support/guarded.hpp - what scenarios of locks and gates share: memory that is to be guarded, and a party that is
// known to wait.
#ifndef CONCUR_TESTS_SUPPORT_GUARDED_HPP
#define CONCUR_TESTS_SUPPORT_GUARDED_HPP

#include "support/scenario.hpp"

namespace concur_test {

// The calling thread can be interrupted here.
inline void pause_here() noexcept {
  if (concur::detail::driver* d = concur::detail::driver_or_null()) d->step();
}

// A plain number. With weak memory, two who touch it without an edge between them fail the schedule; without, add()
// loses what another one adds meanwhile.
class guarded {
 public:
  explicit guarded(const char* name, int value = 0) noexcept : name_(name) {
    concur::detail::note_birth(&value_);
    write(value);
  }
  guarded(const guarded&) = delete;
  guarded& operator=(const guarded&) = delete;

  int read() const noexcept {
    concur::detail::note_read(&value_, name_);
    return value_;
  }
  void write(int value) noexcept {
    concur::detail::note_write(&value_, name_);
    value_ = value;
  }
  void add(int more) noexcept {
    const int was = read();
    pause_here();
    write(was + more);
  }

 private:
  const char* name_;
  int value_ = 0;
};

// Tells others when a fiber has begun to wait. The fiber calls begins() right before the call in which it will. Orders
// nothing.
class parked_sign {
 public:
  void begins() noexcept {
    concur::detail::fiber* const self = concur::detail::this_worker()->current;
    word_ = self->word.load(std::memory_order_relaxed);  // relaxed: its own
    fiber_ = self;
  }
  // Also when the wait is over.
  bool has_begun() const noexcept {
    return fiber_ != nullptr && fiber_->word.load(std::memory_order_relaxed) != word_;  // relaxed: orders nothing
  }
  void await() const noexcept {
    while (!has_begun()) {
      concur::this_fiber::yield();
      unsigned round = 0;
      concur::detail::spin_wait(round);
    }
  }

 private:
  concur::detail::fiber* fiber_ = nullptr;  // plain: one thread plays all, and no edge is to come of it
  std::uint32_t word_ = 0;
};

// Explores every schedule of plain threads that has at most two interruptions.
template <class F>
void exhaust(F f) {
  if (std::getenv("CONCUR_HUNT") != nullptr) return;
  for (const bool is_weak : {false, true}) {
    scenario_options wanted;
    wanted.workers = 0;
    wanted.schedules = 1'000'000;
    const concur::explore_report report = concur::try_explore(f, options_of(wanted, concur::exhaustive(2), is_weak));
    explored_so_far.schedules += report.schedules;
    explored_so_far.steps += report.steps;
    CAPTURE(is_weak);
    CAPTURE(report.what);
    CAPTURE(report.seed);
    CAPTURE(report.schedule);
    CHECK(report.ok);
    CHECK(report.is_complete);
    if (!report.ok) return;
  }
  ++explored_so_far.scenarios;
}

}  // namespace concur_test

#endif
