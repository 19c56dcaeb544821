// io/descriptor_case.hpp - a descriptor that becomes readable or writable, as a case of a select.
//
// Whether a descriptor is ready the kernel says, at once and for certain; that it has become ready the reactor says, once,
// and perhaps too late to be true still. So the case asks the kernel first. Only then, under the slot's lock, it believes
// the slot that there was no news since, and waits there like a read or a write; if there was news it asks again, under
// the lock. What it was woken for it looks at too, since another reader may have been faster.
//
// The case reads nothing. It has the turn (reactor.hpp, G3) no longer than it takes to look.
#ifndef CONCUR_IO_DESCRIPTOR_CASE_HPP
#define CONCUR_IO_DESCRIPTOR_CASE_HPP

#include <type_traits>
#include <utility>

#include "base/config.hpp"
#include "channel/select_case.hpp"
#include "io/descriptor.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// All but the user's function.
class descriptor_case_base : public select_case {
 public:
  static constexpr case_traits traits{false, true, false, true};

  // Inline where they are declared: else every translation unit would get them, as the class's key functions.
  CONCUR_INLINE descriptor_case_base(int fd, direction d);
  CONCUR_INLINE void prepare() override;
  CONCUR_INLINE bool is_ready(nanoseconds_t) noexcept override;
  attempt take(served_party&) override { return attempt::done; }
  CONCUR_INLINE void enter() noexcept override;
  CONCUR_INLINE void leave() noexcept override;
  CONCUR_INLINE bool end(outcome result) override;

 private:
  void watch();
  bool ask() noexcept { return sys::poll_one(fd_, direction_, long_ago) == 0; }

  int fd_;
  direction direction_;
  descriptor_slot* slot_ = nullptr;
  side_use use_{0};
  bool is_found_ready_ = false;
};

template <class F>
class descriptor_case final : public descriptor_case_base {
 public:
  descriptor_case(int fd, direction d, F&& handler) : descriptor_case_base(fd, d), handler_(std::move(handler)) {}
  void run() override { handler_(); }

 private:
  F handler_;
};

}  // namespace detail

// Goes when a read of the descriptor would not block: there are bytes, the end, or an error. f() makes the read. Throws
// std::invalid_argument for a negative number, std::system_error from the select for one that is not open, and with
// ECANCELED when the descriptor is closed while the select waits.
template <class F>
auto readable(int fd, F&& f) {
  return detail::descriptor_case<std::decay_t<F>>(fd, detail::direction::reading, std::decay_t<F>(std::forward<F>(f)));
}
// The same for a write.
template <class F>
auto writable(int fd, F&& f) {
  return detail::descriptor_case<std::decay_t<F>>(fd, detail::direction::writing, std::decay_t<F>(std::forward<F>(f)));
}

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE descriptor_case_base::descriptor_case_base(int fd, direction d)
    : select_case(traits), fd_(fd), direction_(d) {
  if (fd < 0)
    fail_argument("concur::select", "fd", std::to_string(fd), "a descriptor is a number from 0 on; was it opened?");
}

CONCUR_INLINE void descriptor_case_base::prepare() {
  slot_ = slot_of(fd_);
  if (slot_ == nullptr) fail_system(EBADF, "concur::select: waiting for descriptor " + std::to_string(fd_));
  use_.generation = slot_->generation_of_use();
  use_.news = slot_->side(direction_).present_news();
  is_found_ready_ = ask();
  const worker* w = this_worker();
  const bool is_on_fiber = w != nullptr && w->current != nullptr;
  set_site_lock(is_on_fiber ? &slot_->lock : nullptr);
  descriptor = is_on_fiber ? -1 : fd_;
  is_for_writing = direction_ == direction::writing;
  if (is_on_fiber && !is_found_ready_) watch();
}

CONCUR_INLINE void descriptor_case_base::watch() {
  int error = 0;
  {
    lock_scope<spin_lock> held(slot_->lock);
    error = watch_descriptor(*slot_, fd_, *this_worker()->sched);
    if (error == 0)
      slot_->watched_by->watcher.arm(fd_, static_cast<std::uint32_t>(fd_), !is_for_writing, is_for_writing);
  }
  if (error == EPERM)
    is_found_ready_ = true;  // a file: always ready
  else if (error != 0)
    fail_system(error, "concur::select: waiting for descriptor " + std::to_string(fd_));
}

CONCUR_INLINE bool descriptor_case_base::is_ready(nanoseconds_t) noexcept {
  if (is_found_ready_ || place == nullptr) return is_found_ready_;
  if (slot_->is_outdated(use_)) return is_found_ready_ = true;  // nothing would wake it: end() and the call say so
  const std::uint32_t news = slot_->side(direction_).present_news();
  if (news == use_.news) return false;
  use_.news = news;
  is_found_ready_ = ask();
  return is_found_ready_;
}

CONCUR_INLINE void descriptor_case_base::enter() noexcept {
  descriptor_side& side = slot_->side(direction_);
  side.waiting.push_back(&note);
  note_busy(side);
}

CONCUR_INLINE void descriptor_case_base::leave() noexcept {
  descriptor_side& side = slot_->side(direction_);
  if (intrusive_list<waiter>::is_linked(&note)) side.waiting.erase(&note);
  note_busy(side);
}

CONCUR_INLINE bool descriptor_case_base::end(outcome result) {
  if (result == outcome::closed || slot_->is_outdated(use_))
    fail_system(ECANCELED, "concur::select: descriptor " + std::to_string(fd_) + " was closed while it was waited for");
  const bool is_ready_now = ask();
  use_.has_turn = true;  // it was woken
  leave_turn(*slot_, direction_, use_);
  return is_ready_now;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
