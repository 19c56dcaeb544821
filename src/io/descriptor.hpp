// io/descriptor.hpp - one system call on a descriptor, as a fiber makes it: try, wait until it may work, try again.
//
// Everything else in this layer is a few lines around run_io. The system calls return what the kernel returned, with
// a failure as minus its errno: a value, read where the call was made. `errno` itself is a thread's, and a fiber that
// parked may be on another one; only the POSIX-shaped layer writes it, last.
//
//   J1  The call is tried first: most reads and writes need no waiting. A deadline that has passed fails before the
//       call.
//   J2  EINTR is tried again with the same deadline, which is absolute: signals do not stretch a time limit.
//   J3  A fiber that had to wait has the turn until its call is through, and passes it on whatever the end is
//       (reactor.hpp, G3).
//   J4  On a plain thread the same function blocks that thread, in poll.
#ifndef CONCUR_IO_DESCRIPTOR_HPP
#define CONCUR_IO_DESCRIPTOR_HPP

#include <cerrno>
#include <type_traits>

#include "base/config.hpp"
#include "base/error.hpp"
#include "base/time.hpp"
#include "machine/direct_call.hpp"
#include "runtime/reactor.hpp"
#include "runtime/suspend.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// What read and write return; the same type as ssize_t.
using io_result = std::make_signed_t<std::size_t>;
// What run_io returns to a caller that was cancelled: no errno, and so not taken for that of a descriptor that was closed.
inline constexpr int io_cancelled = -0x10000;

// The system calls, by name; minus errno for a failure. MSG_DONTWAIT or O_NONBLOCK is the caller's affair, SIGPIPE is
// not raised.
namespace sys {
io_result read(int fd, void* data, std::size_t size) noexcept;
io_result write(int fd, const void* data, std::size_t size) noexcept;
io_result recv(int fd, void* data, std::size_t size) noexcept;        // without blocking
io_result send(int fd, const void* data, std::size_t size) noexcept;  // without blocking, without SIGPIPE
int accept(int fd, void* address, unsigned* size) noexcept;           // close-on-exec, non-blocking
int connect(int fd, const void* address, unsigned size) noexcept;
int socket_error(int fd) noexcept;  // SO_ERROR, as minus errno
int close(int fd) noexcept;
int set_nonblocking(int fd) noexcept;
int poll_one(int fd, direction d, nanoseconds_t deadline_ns) noexcept;  // 0, or minus errno; ETIMEDOUT
descriptor_kind classify(int fd) noexcept;                              // sets O_NONBLOCK on streams
void set_errno(int error) noexcept;
}  // namespace sys

// What a plain thread does, and what a fiber does after "not now".
template <class Op>
io_result run_io_blocking(int fd, direction d, nanoseconds_t deadline_ns, Op& op) {
  for (;;) {
    const io_result result = op();
    if (result == -EINTR) continue;
    if (result != -EAGAIN) return result;
    const int waited = sys::poll_one(fd, d, deadline_ns);
    if (waited != 0) return waited;
  }
}

// Ends a turn however the scope is left (J3).
struct turn_scope {
  turn_scope(descriptor_slot& slot_in, direction side_in) noexcept
      : slot(slot_in), side(side_in), use{slot.generation_of_use()} {}
  ~turn_scope() {
    if (CONCUR_UNLIKELY(use.has_turn || use.is_calling)) leave_turn(slot, side, use);
  }
  turn_scope(const turn_scope&) = delete;
  turn_scope& operator=(const turn_scope&) = delete;

  descriptor_slot& slot;
  direction side;
  side_use use;
};

// What an ended wait means for the call: 0 to try again, else minus errno, or io_cancelled.
inline io_result after_wait(outcome result, int error) noexcept {
  if (error != 0) return -error;
  if (CONCUR_LIKELY(result == outcome::granted)) return 0;
  if (result == outcome::cancelled) return io_cancelled;
  return result == outcome::timed_out ? -ETIMEDOUT : -ECANCELED;
}

// Calls op() until it gives anything but "not now", waiting in between. op returns a count, or minus errno; so does
// run_io, with ETIMEDOUT for a deadline that passed and ECANCELED for a descriptor that was closed meanwhile. io_cancelled
// when the caller was cancelled, which the layers above throw, or tell.
// stream_bytes: for reads of a stream, how many bytes op asks for; see G5 of reactor.hpp. 0 for all else.
template <class Op>
io_result run_io(int fd, direction d, nanoseconds_t deadline_ns, Op op, std::size_t stream_bytes = 0) {
  worker* w = nullptr;
  if (CONCUR_UNLIKELY(!checkpoint_quietly(w))) return io_cancelled;
  if (CONCUR_UNLIKELY(deadline_ns != never) && deadline_ns <= now_ns()) return -ETIMEDOUT;
  if (CONCUR_UNLIKELY(w == nullptr)) return run_io_blocking(fd, d, deadline_ns, op);
  descriptor_slot* slot = slot_of(fd);
  if (CONCUR_UNLIKELY(slot == nullptr)) {  // most likely no descriptor at all: the call says so
    const io_result result = op();
    return result == -EAGAIN ? -ENOMEM : result;
  }
  turn_scope turn(*slot, d);
  // relaxed: who is missed here came at the same moment, and order between the two is nobody's promise.
  if (CONCUR_UNLIKELY(slot->side(d).is_busy.load(std::memory_order_relaxed))) {
    const io_result waited = after_wait(wait_turn(*slot, d, deadline_ns, turn.use), 0);
    if (waited != 0) return waited;
  }
  for (bool is_first = true;; is_first = false) {
    turn.use.news = slot->side(d).present_news();
    // relaxed: an old value is not this one; a value missed costs a system call.
    const bool is_drained = is_first && stream_bytes != 0 &&
                            slot->drained_at.load(std::memory_order_relaxed) == turn.use.news;  // relaxed: see above
    const io_result result = is_drained ? -EAGAIN : op();
    if (CONCUR_LIKELY(result >= 0)) {
      const bool is_short = result != 0 && static_cast<std::size_t>(result) < stream_bytes;
      // relaxed, both: the acquire above saw an end that came with the news; one that came later is news itself.
      if (is_short && !slot->has_ended.load(std::memory_order_relaxed))
        slot->drained_at.store(turn.use.news, std::memory_order_relaxed);  // relaxed: as above
      return result;
    }
    if (result == -EINTR) continue;
    // Closed between the news that woke this fiber and its next try: for the caller it was closed while it waited.
    if (result == -EBADF && !is_first) return -ECANCELED;
    if (result != -EAGAIN) return result;
    int error = 0;
    const outcome ended = wait_ready(*slot, fd, d, deadline_ns, turn.use, error);
    const io_result waited = after_wait(ended, error);
    if (waited != 0) return waited;
  }
}

// The kind of a descriptor, asked of the kernel once per use of the number.
inline descriptor_kind kind_of(int fd) noexcept {
  descriptor_slot* slot = slot_of(fd);
  if (slot == nullptr) return descriptor_kind::unknown;
  descriptor_kind kind = slot->kind.load(std::memory_order_relaxed);  // relaxed: a cache of what the kernel knows
  if (CONCUR_LIKELY(kind != descriptor_kind::unknown)) return kind;
  kind = sys::classify(fd);
  slot->kind.store(kind, std::memory_order_relaxed);  // relaxed: as above
  return kind;
}

// Wakes who waits for it, takes it out of the poller, closes it. 0, or minus errno.
inline int close_descriptor(int fd) noexcept {
  const std::uint32_t generation = begin_close(fd);
  const int result = sys::close(fd);
  end_close(fd, generation);
  return result;
}

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <algorithm>
#  include <csignal>
#  include <fcntl.h>
#  include <poll.h>
#  include <pthread.h>
#  include <sys/socket.h>
#  include <sys/stat.h>
#  include <unistd.h>

CONCUR_NAMESPACE_BEGIN
namespace detail {
namespace sys {

#  if defined(MSG_NOSIGNAL)
inline constexpr int send_flags = MSG_DONTWAIT | MSG_NOSIGNAL;
#  else
inline constexpr int send_flags = MSG_DONTWAIT;  // there SO_NOSIGPIPE was set on the socket
#  endif

inline io_result tell_outside(io_result result) noexcept {
  if (driver* d = driver_or_null()) {
    if (result >= 0) d->stir_outside();
  }
  return result;
}
// Each call that sets `errno` is made in a function that is not inlined, so that it is looked up on the thread of the call.
inline io_result or_errno(io_result result) noexcept {
  return tell_outside(result >= 0 ? result : -static_cast<io_result>(errno));
}

CONCUR_NOINLINE CONCUR_INLINE io_result read(int fd, void* data, std::size_t size) noexcept {
  return or_errno(::read(fd, data, size));
}
// A pipe has no flag against SIGPIPE. Workers block it; on other threads it is blocked for the call, and a new one
// taken away.
inline io_result write_without_signal(int fd, const void* data, std::size_t size) noexcept {
  sigset_t pipe_only, before, pending;
  sigemptyset(&pipe_only);
  sigaddset(&pipe_only, SIGPIPE);
  sigpending(&pending);
  const bool was_pending = sigismember(&pending, SIGPIPE) == 1;
  pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
  const io_result result = or_errno(::write(fd, data, size));
  sigpending(&pending);
  int taken = 0;
  if (result == -EPIPE && !was_pending && sigismember(&pending, SIGPIPE) == 1) sigwait(&pipe_only, &taken);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return result;
}
// A driver may have fewer bytes written than asked for, or the call interrupted. Reads are short by what was written: one
// that is short for no reason is nothing that a kernel does, and G5 of reactor.hpp rests on that.
inline bool is_interrupted() noexcept {
  driver* const d = driver_or_null();
  return CONCUR_UNLIKELY(d != nullptr) && d->choose(choice::io_error, 2) != 0;
}
inline std::size_t bytes_to_write(std::size_t size) noexcept {
  driver* const d = driver_or_null();
  if (CONCUR_LIKELY(d == nullptr) || size < 2) return size;
  const std::size_t sizes[] = {size, 1, (size + 1) / 2};
  return sizes[d->choose(choice::io_size, 3)];
}

CONCUR_NOINLINE CONCUR_INLINE io_result write(int fd, const void* data, std::size_t size) noexcept {
  if (is_interrupted()) return -EINTR;
  size = bytes_to_write(size);
  // A driver's workers are no threads of ours.
  if (this_worker() == nullptr || driver_or_null() != nullptr) return write_without_signal(fd, data, size);
  return or_errno(::write(fd, data, size));
}
CONCUR_INLINE io_result recv(int fd, void* data, std::size_t size) noexcept {
  if (is_interrupted()) return -EINTR;
  return tell_outside(direct_recv(fd, data, size, MSG_DONTWAIT));
}
CONCUR_INLINE io_result send(int fd, const void* data, std::size_t size) noexcept {
  if (is_interrupted()) return -EINTR;
  size = bytes_to_write(size);
  return tell_outside(direct_send(fd, data, size, send_flags));
}

// What every socket of ours is: close-on-exec, non-blocking, silent.
inline void prepare_socket([[maybe_unused]] int fd) noexcept {
#  if !defined(__linux__)
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
#  endif
#  if defined(SO_NOSIGPIPE)
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#  endif
}

CONCUR_NOINLINE CONCUR_INLINE int accept(int fd, void* address, unsigned* size) noexcept {
  socklen_t length = size != nullptr ? *size : 0;
#  if defined(__linux__)
  const int accepted =
      ::accept4(fd, static_cast<sockaddr*>(address), size != nullptr ? &length : nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
#  else
  const int accepted = ::accept(fd, static_cast<sockaddr*>(address), size != nullptr ? &length : nullptr);
#  endif
  if (accepted < 0) return -errno;
  prepare_socket(accepted);
  if (size != nullptr) *size = length;
  return accepted;
}

CONCUR_NOINLINE CONCUR_INLINE int connect(int fd, const void* address, unsigned size) noexcept {
  return static_cast<int>(or_errno(::connect(fd, static_cast<const sockaddr*>(address), size)));
}
CONCUR_NOINLINE CONCUR_INLINE int socket_error(int fd) noexcept {
  int error = 0;
  socklen_t size = sizeof error;
  return ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? -error : -errno;
}
CONCUR_NOINLINE CONCUR_INLINE int close(int fd) noexcept { return static_cast<int>(or_errno(::close(fd))); }

CONCUR_NOINLINE CONCUR_INLINE int set_nonblocking(int fd) noexcept {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0) return -errno;
  if ((flags & O_NONBLOCK) != 0) return 0;
  return ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 ? 0 : -errno;
}

// Asks at least once, also for a deadline that has passed.
CONCUR_NOINLINE CONCUR_INLINE int poll_one(int fd, direction d, nanoseconds_t deadline_ns) noexcept {
  for (;;) {
    const nanoseconds_t now = deadline_ns == never ? 0 : now_ns();
    int timeout_ms = -1;
    if (deadline_ns <= now)
      timeout_ms = 0;
    else if (deadline_ns != never)
      timeout_ms = static_cast<int>((std::min)(deadline_ns - now, nanoseconds_t{1'000'000'000}) / 1'000'000) + 1;
    pollfd one{fd, static_cast<short>(d == direction::reading ? POLLIN : POLLOUT), 0};
    const int count = ::poll(&one, 1, timeout_ms);
    if (count > 0) return 0;
    if (count < 0 && errno != EINTR) return -errno;
    if (timeout_ms == 0) return -ETIMEDOUT;
  }
}

CONCUR_NOINLINE CONCUR_INLINE descriptor_kind classify(int fd) noexcept {
  struct stat about;
  if (::fstat(fd, &about) != 0) return descriptor_kind::unknown;
  if (S_ISSOCK(about.st_mode)) return descriptor_kind::socket;
  if (S_ISREG(about.st_mode) || S_ISDIR(about.st_mode) || S_ISBLK(about.st_mode)) return descriptor_kind::file;
  set_nonblocking(fd);
  return descriptor_kind::stream;
}

CONCUR_NOINLINE CONCUR_INLINE void set_errno(int error) noexcept { errno = error; }

}  // namespace sys
}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
