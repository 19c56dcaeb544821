// tests/support/kqueue/sys/event.h - enough of kqueue, on top of epoll, to run the kqueue poller on Linux.
//
// No BSD and no macOS can be started where these tests run. This layer lets the backend be compiled and executed all
// the same:
//
//     g++ -DCONCUR_POLLER_KQUEUE -Itests/support/kqueue ...
//
// It knows EVFILT_READ, EVFILT_WRITE and EVFILT_USER with EV_ADD, EV_DELETE and EV_CLEAR, and nothing else. What it
// shares with the real thing: each filter has its own udata; deleted filters never report; adding a ready descriptor
// reports at once; deleting or adding what is not there is an error; a queue is one descriptor and a plain close() ends
// it.
//
// Where it is kinder: one epoll registration serves both filters of a descriptor, so news for one may be repeated for
// the other. A backend that lived from such extra reports would fail on a real kqueue and pass here; tests that count
// on a report should therefore produce it. fflags says only that there is an error (EIO), as asking for it would clear
// it.
#ifndef CONCUR_TESTS_SUPPORT_KQUEUE_SYS_EVENT_H
#define CONCUR_TESTS_SUPPORT_KQUEUE_SYS_EVENT_H

#include <errno.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <deque>
#include <map>
#include <mutex>

#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#if !defined(KQUEUE_LAYER_WITHOUT_USER)  // as on older NetBSD and OpenBSD
#define EVFILT_USER (-10)
#endif

#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_CLEAR 0x0020
#define EV_ERROR 0x4000
#define EV_EOF 0x8000

#define NOTE_TRIGGER 0x01000000

struct kevent {
  uintptr_t ident;
  int16_t filter;
  uint16_t flags;
  uint32_t fflags;
  intptr_t data;
  void* udata;
};

namespace kqueue_layer {

struct filters {
  bool has_read = false;
  bool has_write = false;
  void* read_udata = nullptr;
  void* write_udata = nullptr;
  uint32_t serial = 0;  // tells one registration of a number from the next
};

struct queue {
  std::map<int, filters> registered;
  std::deque<struct kevent> left_over;  // did not fit into the caller's array
  void* user_udata = nullptr;
  bool has_user = false;
  uint32_t next_serial = 1;
};

// One lock for all; this is for tests. Never destroyed, since threads may outlive main.
struct world {
  std::mutex lock;
  std::map<int, queue> queues;
};
inline world& the_world() {
  static world* const only = new world;
  return *only;
}

// A descriptor that is always ready, and opened before main, so that tests which count descriptors do not see it come.
// To trigger the user filter is to arm it once; to clear it is what EPOLLONESHOT does by itself.
inline const int always_ready_fd = ::eventfd(1, EFD_CLOEXEC);
constexpr int16_t user_filter = -10;
constexpr uint64_t user_mark = ~uint64_t{0};

inline int fail(int error) {
  errno = error;
  return -1;
}

inline int change_user(int queue_fd, queue& one, const struct kevent& change) {
  epoll_event wanted{};
  wanted.data.u64 = user_mark;
  if ((change.flags & EV_ADD) != 0) {
    one.user_udata = change.udata;
    if (!one.has_user && ::epoll_ctl(queue_fd, EPOLL_CTL_ADD, always_ready_fd, &wanted) != 0) return -1;
    if (!one.has_user) {  // an added descriptor with no events still reports none, but must be disarmed for errors too
      wanted.events = EPOLLONESHOT;
      ::epoll_ctl(queue_fd, EPOLL_CTL_MOD, always_ready_fd, &wanted);
    }
    one.has_user = true;
  }
  if (!one.has_user) return fail(ENOENT);
  if ((change.fflags & NOTE_TRIGGER) != 0) {
    wanted.events = EPOLLIN | EPOLLONESHOT;
    return ::epoll_ctl(queue_fd, EPOLL_CTL_MOD, always_ready_fd, &wanted);
  }
  return 0;
}

inline int change_descriptor(int queue_fd, queue& one, const struct kevent& change) {
  const int fd = static_cast<int>(change.ident);
  const bool is_read = change.filter == EVFILT_READ;
  auto found = one.registered.find(fd);
  if ((change.flags & EV_DELETE) != 0) {
    if (found == one.registered.end()) return fail(ENOENT);
    bool& has = is_read ? found->second.has_read : found->second.has_write;
    if (!has) return fail(ENOENT);
    has = false;
  } else {
    if (found == one.registered.end()) {
      found = one.registered.emplace(fd, filters{}).first;
      found->second.serial = one.next_serial++;
    }
    (is_read ? found->second.has_read : found->second.has_write) = true;
    (is_read ? found->second.read_udata : found->second.write_udata) = change.udata;
  }

  epoll_event wanted{};
  wanted.data.u64 = (uint64_t{found->second.serial} << 32) | static_cast<uint32_t>(fd);
  wanted.events = EPOLLET;
  if (found->second.has_read) wanted.events |= EPOLLIN | EPOLLRDHUP;
  if (found->second.has_write) wanted.events |= EPOLLOUT;
  if (!found->second.has_read && !found->second.has_write) {
    one.registered.erase(found);
    return ::epoll_ctl(queue_fd, EPOLL_CTL_DEL, fd, nullptr);
  }
  if (::epoll_ctl(queue_fd, EPOLL_CTL_MOD, fd, &wanted) == 0) return 0;
  if (errno != ENOENT || (change.flags & EV_ADD) == 0) return -1;
  if (::epoll_ctl(queue_fd, EPOLL_CTL_ADD, fd, &wanted) == 0) return 0;
  const int error = errno;
  one.registered.erase(found);
  return fail(error);
}

// Turns one epoll event into at most two of ours.
inline void translate(queue& one, const epoll_event& event) {
  struct kevent out {};
  if (event.data.u64 == user_mark) {
    out.filter = user_filter;
    out.udata = one.user_udata;
    one.left_over.push_back(out);
    return;
  }
  const int fd = static_cast<int>(static_cast<uint32_t>(event.data.u64));
  const auto found = one.registered.find(fd);
  if (found == one.registered.end() || found->second.serial != static_cast<uint32_t>(event.data.u64 >> 32)) return;
  const bool is_error = (event.events & EPOLLERR) != 0;
  const bool is_hung_up = (event.events & EPOLLHUP) != 0;
  out.ident = static_cast<uintptr_t>(fd);
  out.fflags = is_error ? EIO : 0;
  if (found->second.has_read && (event.events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
    out.filter = EVFILT_READ;
    out.flags = (event.events & EPOLLRDHUP) != 0 || is_hung_up || is_error ? EV_EOF : 0;
    out.udata = found->second.read_udata;
    one.left_over.push_back(out);
  }
  if (found->second.has_write && (event.events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0) {
    out.filter = EVFILT_WRITE;
    out.flags = is_hung_up || is_error ? EV_EOF : 0;
    out.udata = found->second.write_udata;
    one.left_over.push_back(out);
  }
}

inline int block(int queue_fd, epoll_event* events, int capacity, const timespec* timeout) {
#if defined(SYS_epoll_pwait2)
  if (timeout != nullptr) {
    const int64_t time[2] = {timeout->tv_sec, timeout->tv_nsec};
    const long count = ::syscall(SYS_epoll_pwait2, queue_fd, events, capacity, time, nullptr, sizeof(uint64_t));
    if (count >= 0 || (errno != ENOSYS && errno != EPERM)) return static_cast<int>(count);
  }
#endif
  const int64_t ms = timeout == nullptr ? -1 : int64_t{timeout->tv_sec} * 1000 + (timeout->tv_nsec + 999999) / 1000000;
  return ::epoll_wait(queue_fd, events, capacity, ms > 0x7fffffff ? 0x7fffffff : static_cast<int>(ms));
}

}  // namespace kqueue_layer

inline int kqueue() {
  const int fd = ::epoll_create1(0);
  if (fd < 0) return -1;
  kqueue_layer::world& all = kqueue_layer::the_world();
  std::lock_guard<std::mutex> hold(all.lock);
  all.queues[fd] = kqueue_layer::queue{};  // whoever had this number before has closed it
  return fd;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"  // one name for the structure and the call is how the interface is
inline int kevent(int queue_fd, const struct kevent* changes, int change_count, struct kevent* out, int capacity,
                  const timespec* timeout) {
  kqueue_layer::world& all = kqueue_layer::the_world();
  std::unique_lock<std::mutex> hold(all.lock);
  const auto found = all.queues.find(queue_fd);
  if (found == all.queues.end()) return kqueue_layer::fail(EBADF);
  kqueue_layer::queue& one = found->second;
  for (int i = 0; i < change_count; ++i) {
    const bool is_user = changes[i].filter == kqueue_layer::user_filter;
    const int result = is_user ? kqueue_layer::change_user(queue_fd, one, changes[i])
                               : kqueue_layer::change_descriptor(queue_fd, one, changes[i]);
    if (result != 0) return -1;
  }
  if (capacity == 0) return 0;

  if (one.left_over.empty()) {
    hold.unlock();
    epoll_event events[64];
    const int count = kqueue_layer::block(queue_fd, events, capacity < 64 ? capacity : 64, timeout);
    if (count < 0) return -1;
    hold.lock();
    for (int i = 0; i < count; ++i) kqueue_layer::translate(one, events[i]);
  }
  int written = 0;
  while (written < capacity && !one.left_over.empty()) {
    out[written++] = one.left_over.front();
    one.left_over.pop_front();
  }
  return written;
}
#pragma GCC diagnostic pop

#endif
