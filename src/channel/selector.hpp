// channel/selector.hpp - a select whose cases are only known when the program runs.
//
// Serving as many channels as there are clients needs a list of cases. A selector is that list: it owns its cases, which
// hold on to their channels, and it may wait again and again. A case that can happen only once (send, after, at, ready)
// happens once, and is then out of the running; the others stay.
#ifndef CONCUR_CHANNEL_SELECTOR_HPP
#define CONCUR_CHANNEL_SELECTOR_HPP

#include <chrono>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/config.hpp"
#include "channel/select.hpp"

CONCUR_NAMESPACE_BEGIN

// For one fiber or thread at a time. Each wait allocates nothing; it costs a little more for each case than select.
class selector {
 public:
  selector() noexcept = default;
  // The operands are evaluated from left to right: selector{recv(a, f), send(b, value(), g)}.
  template <class First, class... Cases,
            class = std::enable_if_t<std::is_base_of<detail::select_case, std::decay_t<First>>::value>>
  explicit selector(First&& first, Cases&&... cases) {
    add(std::forward<First>(first));
    (add(std::forward<Cases>(cases)), ...);
  }
  selector(selector&&) noexcept = default;
  selector& operator=(selector&&) noexcept = default;

  // Takes the case, with the value that a send has to send, and returns its index, which it keeps.
  template <class Case>
  int add(Case&& one) {
    static_assert(!std::is_lvalue_reference<Case>::value, "a selector owns its cases: pass them as they are made");
    return keep(std::make_unique<std::decay_t<Case>>(std::move(one)));
  }
  // Takes the case out; its own function may do so too. Throws std::invalid_argument if the index was never given.
  void remove(int index);
  void clear() noexcept { cases_.clear(); }
  // How many cases can still happen.
  std::size_t size() const noexcept;

  // As select: the index of the case that went, after its function. Without a case it parks until it is cancelled. The
  // forms with a code, here and below, say there that they were cancelled, and return -1; it is set before the function.
  int wait() { return wait_deadline(detail::never); }
  int wait(std::error_code& error) { return wait_deadline(detail::never, &error); }
  // Of several that can go the one with the lowest index.
  int wait_ordered() { return wait_in_order(detail::select_order::first, detail::never, true); }
  int wait_ordered(std::error_code& error) {
    return wait_in_order(detail::select_order::first, detail::never, true, &error);
  }
  // -1: the time passed first.
  template <class Rep, class Period>
  int wait_for(std::chrono::duration<Rep, Period> d) {
    return wait_deadline(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  int wait_until(const std::chrono::time_point<Clock, Duration>& tp) {
    return wait_deadline(detail::deadline_at(tp));
  }
  template <class Rep, class Period>
  int wait_for(std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return wait_deadline(detail::deadline_after(d), &error);
  }
  template <class Clock, class Duration>
  int wait_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return wait_deadline(detail::deadline_at(tp), &error);
  }
  // -1: none could go. Never parks.
  int try_wait() { return wait_in_order(detail::select_order::random, detail::never, false); }

 private:
  int keep(std::unique_ptr<detail::select_case> one);
  int wait_deadline(detail::nanoseconds_t deadline_ns, std::error_code* error = nullptr) {
    return wait_in_order(detail::select_order::random, deadline_ns, true, error);
  }
  int wait_in_order(detail::select_order order, detail::nanoseconds_t deadline_ns, bool may_park,
                    std::error_code* error = nullptr);

  std::vector<std::shared_ptr<detail::select_case>> cases_;  // null: removed, or spent; shared with a wait that runs it
  std::vector<detail::select_case*> room_;                   // for the lists of a wait
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE int selector::keep(std::unique_ptr<detail::select_case> one) {
  room_.resize(2 * (cases_.size() + 1));
  cases_.push_back(std::move(one));
  cases_.back()->own();
  return static_cast<int>(cases_.size()) - 1;
}

CONCUR_INLINE void selector::remove(int index) {
  if (index < 0 || static_cast<std::size_t>(index) >= cases_.size())
    detail::fail_argument("concur::selector::remove", "index", std::to_string(index),
                          "no case has it; add() returns the indices");
  cases_[static_cast<std::size_t>(index)].reset();
}

CONCUR_INLINE std::size_t selector::size() const noexcept {
  std::size_t count = 0;
  for (const auto& one : cases_) count += std::size_t{one != nullptr};
  return count;
}

CONCUR_INLINE int selector::wait_in_order(detail::select_order order, detail::nanoseconds_t deadline_ns, bool may_park,
                                          std::error_code* error) {
  unsigned count = 0;
  for (const auto& one : cases_) {
    if (one != nullptr) room_[count++] = one.get();
  }
  detail::select_case** const room = room_.data();
  detail::select_list list{room, room + cases_.size(), count, {}, -1, order, deadline_ns, may_park, error};
  detail::note_kinds(list);
  int chosen = -1;
  if (!detail::perform_select(list, chosen)) return -1;
  std::size_t index = 0;
  while (cases_[index].get() != room[chosen]) ++index;
  const std::shared_ptr<detail::select_case> running = cases_[index];  // its function may remove it
  if (running->is_spent()) cases_[index].reset();
  running->run();
  return static_cast<int>(index);
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
