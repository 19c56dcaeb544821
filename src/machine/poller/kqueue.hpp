// machine/poller/kqueue.hpp - the poller of macOS and the BSDs: two filters for each descriptor, cleared when reported.
//
// EV_CLEAR makes a filter report changes, like an edge in epoll. Both filters are added when the descriptor is, and
// never touched again, so that waiting costs no system call. They have to be deleted before the descriptor is closed:
// the kernel drops them at the last close of the file, and a copy of the descriptor in a child would keep them, under a
// number that is already somebody else's.
//
// udata is as wide as a pointer and carries slot and generation, which is why this backend wants 64 bits.
//
//     event                           means
//     EVFILT_READ                     readable; with EV_EOF the peer has shut down its side, a read will tell
//     EVFILT_WRITE                    writable; with EV_EOF nobody will ever read: failed
//     EV_EOF with an error in fflags  failed
//
// The amount of data in an event is not used: it may be 0 for a writable socket. Where EVFILT_USER is missing (old
// NetBSD and OpenBSD), a pipe wakes.
#ifndef CONCUR_MACHINE_POLLER_KQUEUE_HPP
#define CONCUR_MACHINE_POLLER_KQUEUE_HPP

#include "machine/poller/portable.hpp"

#if CONCUR_BODIES && defined(CONCUR_POLLER_KQUEUE)

#include <errno.h>
#include <fcntl.h>
#include <sys/types.h>
#include <sys/event.h>
#include <time.h>
#include <unistd.h>

CONCUR_NAMESPACE_BEGIN
namespace detail {

static_assert(sizeof(void*) >= 8, "concur: kqueue needs 64 bits for its events; compile with -DCONCUR_POLLER_POLL");

inline constexpr std::uint64_t kqueue_wake_mark = ~std::uint64_t{0};

// udata is a pointer, or a number on older NetBSD.
inline void set_mark(void*& udata, std::uint64_t mark) noexcept {
  const std::uintptr_t bits = mark;
  udata = reinterpret_cast<void*>(bits);
}
inline void set_mark(std::intptr_t& udata, std::uint64_t mark) noexcept { udata = static_cast<std::intptr_t>(mark); }
inline std::uint64_t mark_of(void* udata) noexcept { return reinterpret_cast<std::uintptr_t>(udata); }
inline std::uint64_t mark_of(std::intptr_t udata) noexcept { return static_cast<std::uint64_t>(udata); }

// Makes one change to one filter; 0 or an errno. The address of errno does not leave this function.
CONCUR_NOINLINE CONCUR_INLINE int kqueue_change(int queue_fd, int ident, int filter, int flags, unsigned note,
                                                std::uint64_t mark) noexcept {
  struct kevent change {};
  change.ident = static_cast<decltype(change.ident)>(ident);
  change.filter = static_cast<decltype(change.filter)>(filter);
  change.flags = static_cast<decltype(change.flags)>(flags);
  change.fflags = note;
  set_mark(change.udata, mark);
  int result = 0;
  do {
    result = ::kevent(queue_fd, &change, 1, nullptr, 0, nullptr);
  } while (result != 0 && errno == EINTR);
  return result == 0 ? 0 : errno;
}

CONCUR_NOINLINE CONCUR_INLINE int open_kqueue(int& queue_fd) noexcept {
  queue_fd = ::kqueue();
  if (queue_fd < 0) return errno;
  ::fcntl(queue_fd, F_SETFD, FD_CLOEXEC);  // a fork does not inherit a kqueue anyway
  return 0;
}

CONCUR_INLINE int poller::open() noexcept {
  int error = open_kqueue(queue_fd_);
#if defined(EVFILT_USER)
  if (error == 0) error = kqueue_change(queue_fd_, 0, EVFILT_USER, EV_ADD | EV_CLEAR, 0, kqueue_wake_mark);
#else
  if (error == 0) error = open_wake_pipe(wake_read_fd_, wake_write_fd_);
  if (error == 0) error = kqueue_change(queue_fd_, wake_read_fd_, EVFILT_READ, EV_ADD | EV_CLEAR, 0, kqueue_wake_mark);
#endif
  if (error != 0) close();
  return error;
}

CONCUR_INLINE void poller::close() noexcept {
  close_if_open(wake_read_fd_);
  close_if_open(wake_write_fd_);
  close_if_open(queue_fd_);
  // relaxed: nobody else uses a closed poller
  wake_pending_.store(0, std::memory_order_relaxed);
}

// Some descriptors can do one direction only, and some systems say so: the end of a pipe has no other. One filter is
// enough.
CONCUR_INLINE int poller::add(int fd, std::uint32_t slot, std::uint32_t generation) noexcept {
  int error = error_of_waiting_for(fd);
  if (error != 0) return error;
  const std::uint64_t mark = (std::uint64_t{slot} << 32) | generation;
  error = kqueue_change(queue_fd_, fd, EVFILT_READ, EV_ADD | EV_CLEAR, 0, mark);
  const int other_error = kqueue_change(queue_fd_, fd, EVFILT_WRITE, EV_ADD | EV_CLEAR, 0, mark);
  return other_error == 0 ? 0 : error;
}

CONCUR_INLINE void poller::arm(int, std::uint32_t, bool, bool) noexcept {}

CONCUR_INLINE void poller::remove(int fd, std::uint32_t) noexcept {
  kqueue_change(queue_fd_, fd, EVFILT_READ, EV_DELETE, 0, 0);
  kqueue_change(queue_fd_, fd, EVFILT_WRITE, EV_DELETE, 0, 0);
}

inline unsigned ready_from_kqueue(const struct kevent& event) noexcept {
  const auto flags = static_cast<unsigned>(event.flags);
  const bool is_read = event.filter == EVFILT_READ;
  const bool is_over = (flags & static_cast<unsigned>(EV_EOF)) != 0;
  if ((flags & static_cast<unsigned>(EV_ERROR)) != 0) return everything_ready;
  if (is_over && (!is_read || event.fflags != 0)) return everything_ready;
  if (is_over) return bit(readiness::readable) | bit(readiness::ended);
  return bit(is_read ? readiness::readable : readiness::writable);
}

CONCUR_NOINLINE CONCUR_INLINE int kqueue_block(int queue_fd, struct kevent* events, int capacity,
                                               std::int64_t timeout_ns) noexcept {
  timespec time{};
  const std::int64_t whole_seconds = timeout_ns / 1000000000;
  constexpr std::int64_t most_seconds = 24 * 3600;  // some systems refuse what they think is too long
  time.tv_sec = static_cast<time_t>(whole_seconds < most_seconds ? whole_seconds : most_seconds);
  time.tv_nsec = static_cast<int>(timeout_ns % 1000000000);
  const int count = ::kevent(queue_fd, nullptr, 0, events, capacity, timeout_ns < 0 ? nullptr : &time);
  return count >= 0 ? count : -errno;
}

CONCUR_INLINE int poller::wait(poll_event* out, int capacity, std::int64_t timeout_ns) noexcept {
  constexpr int most_at_once = 64;  // the events are large, and the stack may be a fiber's
  struct kevent events[most_at_once];
  const int count = kqueue_block(queue_fd_, events, capacity < most_at_once ? capacity : most_at_once, timeout_ns);
  if (count < 0) return count == -EINTR ? 0 : count;

  int written = 0;
  for (int i = 0; i < count; ++i) {
    const std::uint64_t mark = mark_of(events[i].udata);
    if (mark == kqueue_wake_mark) {
#if !defined(EVFILT_USER)
      take_wake_bytes(wake_read_fd_);
#endif
      wake_seen();
      continue;
    }
    const unsigned ready = ready_from_kqueue(events[i]);
    out[written++] = poll_event{static_cast<std::uint32_t>(mark >> 32), static_cast<std::uint32_t>(mark), ready};
  }
  return written;
}

CONCUR_INLINE void poller::wake() noexcept {
  if (!must_wake()) return;
#if defined(EVFILT_USER)
  kqueue_change(queue_fd_, 0, EVFILT_USER, 0, NOTE_TRIGGER, kqueue_wake_mark);
#else
  write_wake_byte(wake_write_fd_);
#endif
}

CONCUR_INLINE int poller::descriptor_count() const noexcept {
  return (queue_fd_ >= 0 ? 1 : 0) + (wake_read_fd_ >= 0 ? 2 : 0);
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif

#endif
