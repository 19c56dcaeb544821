// machine/poller/poll.hpp - the poller for any POSIX system: poll() over everything that somebody waits for.
//
// poll() reports states and forgets its arguments. So the registrations are kept here, in a table indexed by slot, and
// each wait() copies out those which want something. A state reported once must not be reported for ever: an event ends
// the want it answers, and the reactor's arm() begins the next. All of it is linear in the number of registrations;
// this backend is for systems with nothing better, and for tests.
//
//   L1  The table is read and changed under its mutex, and poll() is called without it, on a copy.
//   L2  While is_blocking is set, a thread in wait() is between making its copy and coming back. Whoever changes what
//       the copy should have been wakes it: a new want would not be seen, and a descriptor that is removed would be
//       held open by poll(), its peer waiting for the end.
//   L3  A result counts only if its slot still has the generation that was copied. Otherwise the registration is gone,
//       and the descriptor polled may have been anybody's.
//   L4  The copy begins after the slot that was reported last when the caller's array was full, so that busy
//       descriptors with low numbers do not starve the rest.
#ifndef CONCUR_MACHINE_POLLER_POLL_HPP
#define CONCUR_MACHINE_POLLER_POLL_HPP

#include "machine/poller/portable.hpp"

#if CONCUR_BODIES && defined(CONCUR_POLLER_POLL)

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>
#include <new>

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct poll_registration {
  int fd;  // -1: the slot is free
  std::uint32_t generation;
  short wanted;
};

// What wait() copied, beside the pollfd of the same index.
struct poll_copy {
  std::uint32_t slot;
  std::uint32_t generation;
};

struct poll_table {
  pthread_mutex_t mutex;
  poll_registration* entries = nullptr;
  std::uint32_t slot_count = 0;
  std::uint32_t first_slot = 0;  // where the next copy begins (L4)
  bool is_blocking = false;      // L2
  pollfd* polled = nullptr;      // these three belong to the thread in wait()
  poll_copy* copies = nullptr;
  std::uint32_t room = 0;
};

class poll_table_lock {
 public:
  explicit poll_table_lock(poll_table& table) noexcept : table_(table) { pthread_mutex_lock(&table_.mutex); }
  ~poll_table_lock() { pthread_mutex_unlock(&table_.mutex); }
  poll_table_lock(const poll_table_lock&) = delete;
  poll_table_lock& operator=(const poll_table_lock&) = delete;

 private:
  poll_table& table_;
};

inline poll_table& table_in(void* table) noexcept { return *static_cast<poll_table*>(table); }

CONCUR_INLINE int poller::open() noexcept {
  void* const room = std::malloc(sizeof(poll_table));
  if (room == nullptr) return ENOMEM;
  poll_table* const table = new (room) poll_table;
  table_ = table;
  pthread_mutex_init(&table->mutex, nullptr);  // default attributes: allocates nothing, cannot fail
  const int error = open_wake_pipe(wake_read_fd_, wake_write_fd_);
  if (error != 0) close();
  return error;
}

CONCUR_INLINE void poller::close() noexcept {
  close_if_open(wake_read_fd_);
  close_if_open(wake_write_fd_);
  if (table_ != nullptr) {
    poll_table& table = table_in(table_);
    std::free(table.entries);
    std::free(table.polled);
    std::free(table.copies);
    pthread_mutex_destroy(&table.mutex);
    std::free(table_);
    table_ = nullptr;
  }
  // relaxed: nobody else uses a closed poller
  wake_pending_.store(0, std::memory_order_relaxed);
}

// Makes an array of malloc's longer. False: there is no memory, and the array is as it was.
template <class T>
bool grow_array(T*& array, std::uint32_t count) noexcept {
  void* const longer = std::realloc(static_cast<void*>(array), count * sizeof(T));
  if (longer == nullptr) return false;
  array = static_cast<T*>(longer);
  return true;
}

inline constexpr short poll_readable = POLLIN | POLLPRI;

CONCUR_INLINE int poller::add(int fd, std::uint32_t slot, std::uint32_t generation) noexcept {
  const int error = error_of_waiting_for(fd);
  if (error != 0) return error;
  poll_table& table = table_in(table_);
  bool must_tell = false;
  {
    poll_table_lock hold(table);
    if (slot >= table.slot_count) {
      const std::uint32_t count = slot + slot / 2 + 16;
      if (count < slot || !grow_array(table.entries, count)) return ENOMEM;
      for (std::uint32_t i = table.slot_count; i < count; ++i) table.entries[i] = poll_registration{-1, 0, 0};
      table.slot_count = count;
    }
    if (table.entries[slot].fd >= 0) return EEXIST;
    table.entries[slot] = poll_registration{fd, generation, static_cast<short>(poll_readable | POLLOUT)};
    must_tell = table.is_blocking;
  }
  if (must_tell) wake();
  return 0;
}

CONCUR_INLINE void poller::arm(int fd, std::uint32_t slot, bool for_read, bool for_write) noexcept {
  poll_table& table = table_in(table_);
  bool must_tell = false;
  {
    poll_table_lock hold(table);
    if (slot >= table.slot_count || table.entries[slot].fd != fd) return;
    const int wanted = (for_read ? poll_readable : 0) | (for_write ? POLLOUT : 0);
    const bool is_new = (wanted & ~table.entries[slot].wanted) != 0;
    table.entries[slot].wanted = static_cast<short>(table.entries[slot].wanted | wanted);
    must_tell = is_new && table.is_blocking;
  }
#if CONCUR_MUTANT_IS(24)
  static_cast<void>(must_tell);  // planted bug: the poll() in progress goes on with its old copy
#else
  if (must_tell) wake();
#endif
}

CONCUR_INLINE void poller::remove(int fd, std::uint32_t slot) noexcept {
  poll_table& table = table_in(table_);
  bool must_tell = false;
  {
    poll_table_lock hold(table);
    if (slot >= table.slot_count || table.entries[slot].fd != fd) return;
    must_tell = table.is_blocking && table.entries[slot].wanted != 0;
    table.entries[slot].fd = -1;
  }
  if (must_tell) wake();
}

// Copies what wants something, behind the pipe's read end. Returns how many entries there are, or 0 for no memory.
CONCUR_INLINE std::uint32_t copy_wanted(poll_table& table, int wake_fd, bool is_blocking) noexcept {
  poll_table_lock hold(table);
  if (table.room < table.slot_count + 1) {
    if (!grow_array(table.polled, table.slot_count + 1) || !grow_array(table.copies, table.slot_count + 1)) return 0;
    table.room = table.slot_count + 1;
  }
  table.polled[0] = pollfd{wake_fd, POLLIN, 0};
  std::uint32_t count = 1;
  for (std::uint32_t i = 0; i < table.slot_count; ++i) {
    const std::uint32_t slot = (table.first_slot + i) % table.slot_count;
    const poll_registration& one = table.entries[slot];
    if (one.fd < 0 || one.wanted == 0) continue;
    table.polled[count] = pollfd{one.fd, one.wanted, 0};
    table.copies[count++] = poll_copy{slot, one.generation};
  }
  table.is_blocking = is_blocking;
  return count;
}

// Count of ready entries, or -errno. Milliseconds are rounded up where nothing finer is to be had.
CONCUR_NOINLINE CONCUR_INLINE int poll_block(pollfd* polled, std::uint32_t count, std::int64_t timeout_ns) noexcept {
#if defined(__linux__) || defined(__FreeBSD__) || defined(__OpenBSD__) || defined(__DragonFly__)
  timespec time{};
  const std::int64_t whole_seconds = timeout_ns / 1000000000;
  constexpr std::int64_t most_seconds = 24 * 3600;
  time.tv_sec = static_cast<time_t>(whole_seconds < most_seconds ? whole_seconds : most_seconds);
  time.tv_nsec = static_cast<int>(timeout_ns % 1000000000);
  const int ready = ::ppoll(polled, count, timeout_ns < 0 ? nullptr : &time, nullptr);
#else
  const std::int64_t rounded_up_ms = timeout_ns / 1000000 + (timeout_ns % 1000000 != 0 ? 1 : 0);
  const int timeout_ms = rounded_up_ms > 0x7fffffff ? 0x7fffffff : static_cast<int>(rounded_up_ms);
  const int ready = ::poll(polled, count, timeout_ns < 0 ? -1 : timeout_ms);
#endif
  return ready >= 0 ? ready : -errno;
}

inline unsigned ready_from_poll(int events) noexcept {
  if ((events & (POLLERR | POLLHUP | POLLNVAL)) != 0) return everything_ready;
  return ((events & poll_readable) != 0 ? bit(readiness::readable) : 0) |
         ((events & POLLOUT) != 0 ? bit(readiness::writable) : 0);
}

CONCUR_INLINE int poller::wait(poll_event* out, int capacity, std::int64_t timeout_ns) noexcept {
  poll_table& table = table_in(table_);
  const std::uint32_t count = copy_wanted(table, wake_read_fd_, timeout_ns != 0);
  if (count == 0) return -ENOMEM;
  int remaining = poll_block(table.polled, count, timeout_ns);

  poll_table_lock hold(table);
  table.is_blocking = false;
  if (remaining < 0) return remaining == -EINTR ? 0 : remaining;
  if (table.polled[0].revents != 0) {
#if CONCUR_MUTANT_IS(26)
    wake_seen();  // planted bug: a waker in between writes a byte that is taken below, and nobody writes another
    take_wake_bytes(wake_read_fd_);
#else
    take_wake_bytes(wake_read_fd_);
    wake_seen();
#endif
    --remaining;
  }
  int written = 0;
  for (std::uint32_t i = 1; i < count && remaining > 0; ++i) {
    const int events = table.polled[i].revents;
    if (events == 0) continue;
    --remaining;
    const poll_copy& copied = table.copies[i];
    poll_registration& one = table.entries[copied.slot];
    if (one.fd < 0 || one.generation != copied.generation) continue;  // L3
    if (written == capacity) {
      table.first_slot = copied.slot;  // L4
      break;
    }
    const unsigned ready = ready_from_poll(events);
    one.wanted = static_cast<short>(ready == everything_ready ? 0 : one.wanted & ~events);
    out[written++] = poll_event{copied.slot, copied.generation, ready};
  }
  return written;
}

CONCUR_INLINE void poller::wake() noexcept {
  if (must_wake()) write_wake_byte(wake_write_fd_);
}

CONCUR_INLINE int poller::descriptor_count() const noexcept { return wake_read_fd_ >= 0 ? 2 : 0; }

}  // namespace detail
CONCUR_NAMESPACE_END

#endif

#endif
