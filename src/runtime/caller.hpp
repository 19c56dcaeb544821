// runtime/caller.hpp - who makes a blocking call: a fiber, or a plain thread.
//
// Every primitive is for both, and none asks which. A caller is made at the beginning of the call, gives the party that
// the notes are about, and parks it: a fiber leaves its worker to others (suspend.hpp), a thread sleeps on its parker.
#ifndef CONCUR_RUNTIME_CALLER_HPP
#define CONCUR_RUNTIME_CALLER_HPP

#include <new>

#include "base/config.hpp"
#include "runtime/suspend.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// A thread inside a blocking call. On that thread's stack.
struct thread_party : party {
  thread_party() noexcept : party(party_kind::thread) {}
  parker thread;
  int wake_end = -1;  // of a pipe, while the thread sleeps in poll() instead (select_poll.hpp)
};

CONCUR_INLINE outcome park_thread(thread_party& self, lock_chain* locks, nanoseconds_t deadline_ns) noexcept;

// Who makes a blocking call: the fiber of this worker, or this thread.
class caller {
 public:
  // w: the calling thread's worker, as this_worker() or checkpoint() gave it.
  explicit caller(worker* w) noexcept : worker_(w) {
    if (CONCUR_UNLIKELY(worker_ == nullptr || worker_->current == nullptr)) {
      worker_ = nullptr;
      ::new (static_cast<void*>(room_)) thread_party();
    }
  }
  ~caller() {
    if (CONCUR_UNLIKELY(worker_ == nullptr)) as_thread()->~thread_party();
  }
  caller(const caller&) = delete;
  caller& operator=(const caller&) = delete;

  party* who() noexcept { return worker_ != nullptr ? static_cast<party*>(worker_->current) : as_thread(); }

  thread_party& thread() noexcept { return *as_thread(); }
  // The worker that the fiber is on now; null: a plain thread.
  worker* at() const noexcept { return worker_; }

  CONCUR_FORCE_INLINE outcome park(spin_lock* lock, nanoseconds_t deadline_ns, wait_reason reason) noexcept {
    if (CONCUR_LIKELY(worker_ != nullptr)) return park_fiber(worker_, lock, deadline_ns, reason);
    lock_chain one{lock, nullptr};
    return park_thread(*as_thread(), lock != nullptr ? &one : nullptr, deadline_ns);
  }
  CONCUR_FORCE_INLINE outcome park_at_all(lock_chain* locks, nanoseconds_t deadline_ns) noexcept {
    if (CONCUR_LIKELY(worker_ != nullptr)) return park_selected(worker_, locks, deadline_ns);
    return park_thread(*as_thread(), locks, deadline_ns);
  }

 private:
  thread_party* as_thread() noexcept { return std::launder(reinterpret_cast<thread_party*>(room_)); }

  worker* worker_;
  alignas(thread_party) unsigned char room_[sizeof(thread_party)];
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <unistd.h>

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE outcome park_thread(thread_party& self, lock_chain* locks, nanoseconds_t deadline_ns) noexcept {
  const std::uint32_t ticket = self.next_ticket();
  self.word.store(ticket, std::memory_order_release);  // release: publishes the note's fields to whoever claims
  unlock_chain(locks);
  if (deadline_ns == never) {
    self.thread.park();
    return self.result;
  }
  if (self.thread.park_until(deadline_ns)) return self.result;
  if (claim(self, ticket)) return outcome::timed_out;
  self.thread.park();  // somebody claimed in the same moment, and its wake-up is on the way
  return self.result;
}

CONCUR_INLINE void resume_thread(party* who) noexcept {
  thread_party* const t = static_cast<thread_party*>(who);
  const int wake_end = t->wake_end;
  if (CONCUR_LIKELY(wake_end < 0)) {
    t->thread.unpark();
    return;
  }
  const char byte = 1;
  static_cast<void>(!::write(wake_end, &byte, 1));
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
