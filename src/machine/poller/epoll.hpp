// machine/poller/epoll.hpp - the poller of Linux: one edge-triggered registration for both directions.
//
// Edge-triggered means that the kernel reports a change once. It fits the reactor's habit of trying first: whoever
// parks has seen EAGAIN after the last report, so the next change will be reported. EPOLLRDHUP tells a half-closed peer
// from one that is silent without a read.
//
// The event carries 64 bits of ours, enough for slot and generation together. So no table has to be consulted, and none
// can be out of date (E3).
//
// Rejected: EPOLLONESHOT, which needs a system call per wait to arm again. One registration per direction with a
// duplicated descriptor, which doubles the descriptors. A timerfd for precise deadlines, which costs a system call for
// every change of the nearest one; epoll_pwait2 takes nanoseconds, and kernels before 5.11 get milliseconds, rounded
// up.
#ifndef CONCUR_MACHINE_POLLER_EPOLL_HPP
#define CONCUR_MACHINE_POLLER_EPOLL_HPP

#if CONCUR_BODIES && defined(CONCUR_POLLER_EPOLL)

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

CONCUR_NAMESPACE_BEGIN
namespace detail {

inline constexpr std::uint64_t epoll_wake_mark = ~std::uint64_t{0};
inline constexpr std::uint32_t epoll_edge = 1U << 31;  // EPOLLET, which the header gives a sign

// Every function that reads errno stays a function: the address of errno must not be kept over a switch of fibers.
CONCUR_NOINLINE CONCUR_INLINE int epoll_control(int queue_fd, int operation, int fd, std::uint64_t mark) noexcept {
  epoll_event wanted{};
  wanted.events = static_cast<std::uint32_t>(EPOLLIN) | static_cast<std::uint32_t>(EPOLLOUT) |
                  static_cast<std::uint32_t>(EPOLLRDHUP) | epoll_edge;
  wanted.data.u64 = mark;
  return ::epoll_ctl(queue_fd, operation, fd, &wanted) == 0 ? 0 : errno;
}

CONCUR_NOINLINE CONCUR_INLINE int poller::open() noexcept {
  queue_fd_ = ::epoll_create1(EPOLL_CLOEXEC);
  int error = queue_fd_ < 0 ? errno : 0;
  if (error == 0) {
    wake_read_fd_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    error = wake_read_fd_ < 0 ? errno : 0;
  }
  if (error == 0) {
    epoll_event wanted{};
    wanted.events = static_cast<std::uint32_t>(EPOLLIN) | epoll_edge;
    wanted.data.u64 = epoll_wake_mark;
    if (::epoll_ctl(queue_fd_, EPOLL_CTL_ADD, wake_read_fd_, &wanted) != 0) error = errno;
  }
  if (error != 0) close();
  return error;
}

CONCUR_INLINE void poller::close() noexcept {
  if (wake_read_fd_ >= 0) ::close(wake_read_fd_);
  if (queue_fd_ >= 0) ::close(queue_fd_);
  wake_read_fd_ = queue_fd_ = -1;
  // relaxed: nobody else uses a closed poller
  wake_pending_.store(0, std::memory_order_relaxed);
}

CONCUR_INLINE int poller::add(int fd, std::uint32_t slot, std::uint32_t generation) noexcept {
  return epoll_control(queue_fd_, EPOLL_CTL_ADD, fd, (std::uint64_t{slot} << 32) | generation);
}

CONCUR_INLINE void poller::arm(int, std::uint32_t, bool, bool) noexcept {}

CONCUR_INLINE void poller::remove(int fd, std::uint32_t) noexcept {
#if CONCUR_MUTANT_IS(25)
  static_cast<void>(fd);  // planted bug: leaves it to close(), and a copy of the descriptor may still be open
#else
  epoll_control(queue_fd_, EPOLL_CTL_DEL, fd, 0);
#endif
}

inline unsigned ready_from_epoll(std::uint32_t events) noexcept {
  constexpr std::uint32_t failures = static_cast<std::uint32_t>(EPOLLERR) | static_cast<std::uint32_t>(EPOLLHUP);
  if ((events & failures) != 0) return everything_ready;
  unsigned ready = 0;
  if ((events & static_cast<std::uint32_t>(EPOLLIN)) != 0) ready |= bit(readiness::readable);
  if ((events & static_cast<std::uint32_t>(EPOLLRDHUP)) != 0) ready |= bit(readiness::readable) | bit(readiness::ended);
  if ((events & static_cast<std::uint32_t>(EPOLLOUT)) != 0) ready |= bit(readiness::writable);
  return ready;
}

// The kernel's timespec of epoll_pwait2: 64 bits each on every processor.
struct epoll_time {
  std::int64_t seconds;
  std::int64_t nanoseconds;
};

// The system call itself: count, or -errno. `is_coarse` becomes true when the precise call does not exist, or is
// forbidden by a sandbox that does not know it.
CONCUR_NOINLINE CONCUR_INLINE int epoll_block(int queue_fd, epoll_event* events, int capacity, std::int64_t timeout_ns,
                                              bool& is_coarse) noexcept {
#if !defined(SYS_epoll_pwait2)
  constexpr long precise_call = 441;
#else
  constexpr long precise_call = SYS_epoll_pwait2;
#endif
  if (timeout_ns > 0 && !is_coarse) {
    const epoll_time time{timeout_ns / 1000000000, timeout_ns % 1000000000};
    const long count = ::syscall(precise_call, queue_fd, events, capacity, &time, nullptr, std::size_t{0});
    if (count >= 0) return static_cast<int>(count);
    if (errno != ENOSYS && errno != EPERM) return -errno;
    is_coarse = true;
  }
  int timeout_ms = timeout_ns < 0 ? -1 : 0;
  if (timeout_ns > 0) {
    const std::int64_t rounded_up_ms = timeout_ns / 1000000 + (timeout_ns % 1000000 != 0 ? 1 : 0);
    timeout_ms = rounded_up_ms > 0x7fffffff ? 0x7fffffff : static_cast<int>(rounded_up_ms);
  }
  return direct_epoll_wait(queue_fd, events, capacity, timeout_ms);
}

CONCUR_INLINE int poller::wait(poll_event* out, int capacity, std::int64_t timeout_ns) noexcept {
  constexpr int most_at_once = 128;
  epoll_event events[most_at_once];
  const int count =
      epoll_block(queue_fd_, events, capacity < most_at_once ? capacity : most_at_once, timeout_ns, coarse_timeouts_);
  if (count < 0) return count == -EINTR ? 0 : count;

  int written = 0;
  for (int i = 0; i < count; ++i) {
    const std::uint64_t mark = events[i].data.u64;
    if (mark == epoll_wake_mark) {
      // The eventfd is not read: each write is an edge, and 64 bits of count do not fill up.
      wake_seen();
      continue;
    }
    const unsigned ready = ready_from_epoll(events[i].events);
    out[written++] = poll_event{static_cast<std::uint32_t>(mark >> 32), static_cast<std::uint32_t>(mark), ready};
  }
  return written;
}

CONCUR_INLINE void poller::wake() noexcept {
  if (!must_wake()) return;
  const std::uint64_t one = 1;
  // It cannot fail: the counter is far from full, and the descriptor is ours.
  const auto written = ::write(wake_read_fd_, &one, sizeof one);
  static_cast<void>(written);
}

CONCUR_INLINE int poller::descriptor_count() const noexcept {
  return (queue_fd_ >= 0 ? 1 : 0) + (wake_read_fd_ >= 0 ? 1 : 0);
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif

#endif
