// channel/select_poll.hpp - a plain thread that selects over descriptors and channels at once.
//
// A fiber leaves the descriptors to the reactor. A plain thread has no reactor: it sleeps in poll(), with a pipe among the
// descriptors. Who ends its wait at a channel writes a byte into that pipe instead of unparking it (caller.hpp,
// resume_thread). Pipe and list are made before any lock is taken, for both can fail.
#ifndef CONCUR_CHANNEL_SELECT_POLL_HPP
#define CONCUR_CHANNEL_SELECT_POLL_HPP

#include "base/config.hpp"
#include "channel/select_case.hpp"

#if CONCUR_BODIES

#  include <cerrno>
#  include <fcntl.h>
#  include <poll.h>
#  include <unistd.h>

#  include <vector>

CONCUR_NAMESPACE_BEGIN
namespace detail {

class poll_room {
 public:
  // Throws std::system_error when there is no descriptor left for the pipe.
  poll_room(select_case* const* cases, unsigned count);
  ~poll_room() {
    ::close(wake_end_);
    ::close(all_[0].fd);
  }
  poll_room(const poll_room&) = delete;
  poll_room& operator=(const poll_room&) = delete;

  // As park_thread; timed_out as soon as a descriptor may be ready: everybody looks again.
  outcome park(thread_party& self, lock_chain* locks, nanoseconds_t deadline_ns) noexcept;

 private:
  // False: the deadline passed and nothing happened.
  bool wait(nanoseconds_t deadline_ns, std::size_t count) noexcept;

  std::vector<pollfd> all_;  // the pipe first
  int wake_end_ = -1;
};

CONCUR_INLINE poll_room::poll_room(select_case* const* cases, unsigned count) : all_(1) {
  for (unsigned i = 0; i < count; ++i) {
    const select_case& c = *cases[i];
    if (c.descriptor < 0) continue;
    all_.push_back({c.descriptor, static_cast<short>(c.is_for_writing ? POLLOUT : POLLIN), 0});
  }
  int ends[2];
  if (::pipe(ends) != 0) fail_system(errno, "concur::select: a pipe to wake a thread that waits for descriptors");
  for (const int end : ends) ::fcntl(end, F_SETFD, FD_CLOEXEC);
  all_[0] = {ends[0], POLLIN, 0};
  wake_end_ = ends[1];
}

CONCUR_INLINE bool poll_room::wait(nanoseconds_t deadline_ns, std::size_t count) noexcept {
  for (;;) {
    int timeout_ms = -1;
    if (deadline_ns != never) {
      constexpr nanoseconds_t longest_ns = 1'000'000'000'000;
      const nanoseconds_t now = now_ns();
      const nanoseconds_t rest_ns = deadline_ns <= now ? 0 : deadline_ns - now;
      timeout_ms = static_cast<int>(((rest_ns < longest_ns ? rest_ns : longest_ns) + 999'999) / 1'000'000);
    }
    if (::poll(all_.data(), nfds_t{count}, timeout_ms) > 0) return true;
    if (timeout_ms == 0) return false;
  }
}

CONCUR_INLINE outcome poll_room::park(thread_party& self, lock_chain* locks, nanoseconds_t deadline_ns) noexcept {
  const std::uint32_t ticket = self.next_ticket();
  self.wake_end = wake_end_;
  self.word.store(ticket, std::memory_order_release);  // release: publishes the notes and the pipe to whoever claims
  unlock_chain(locks);
  const bool is_woken = wait(deadline_ns, all_.size()) && all_[0].revents != 0;
  if (!is_woken && claim(self, ticket)) {
    self.wake_end = -1;
    return outcome::timed_out;
  }
  if (!is_woken) wait(never, 1);  // somebody claimed in the same moment, and its byte is on the way
  char byte = 0;
  static_cast<void>(!::read(all_[0].fd, &byte, 1));
  self.wake_end = -1;
  return self.result;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
