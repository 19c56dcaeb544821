// io/posix.hpp - the calls of POSIX, with the same arguments, results and errno, that park the fiber instead of
// blocking its thread.
//
// For code that exists: replace `read` by `io::read`. `errno` is a thread's; so these calls bring the fiber back to
// the thread it called from, and write errno there as the last thing. Read it at once, as always; a compiler may keep
// its address over several calls within one function of yours, which is harmless as long as the fiber stays on its
// thread, and it does, in these calls.
//
// Descriptors: sockets are used as they are. Pipes, terminals and listening or connecting sockets are set to
// O_NONBLOCK, since there is no flag per call for them; whoever shares them sees that. Regular files are read and
// written directly. Close with io::close: it wakes fibers that wait on the descriptor with ECANCELED, and tells the
// library that the number is free.
#ifndef CONCUR_IO_POSIX_HPP
#define CONCUR_IO_POSIX_HPP

#include "base/config.hpp"
#include "io/descriptor.hpp"

struct sockaddr;

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Keeps the calling fiber on its worker.
class pin_scope {
 public:
  pin_scope() noexcept {
    worker* w = this_worker();
    fiber_ = w != nullptr && !CONCUR_MUTANT_IS(50) ? w->current : nullptr;
    if (fiber_ == nullptr || fiber_->pin_depth++ != 0) return;
    was_home_ = fiber_->home != nullptr;
    fiber_->home = w;
  }
  ~pin_scope() {
    if (fiber_ == nullptr || --fiber_->pin_depth != 0) return;
    if (!was_home_) fiber_->home = nullptr;
  }
  pin_scope(const pin_scope&) = delete;
  pin_scope& operator=(const pin_scope&) = delete;

 private:
  fiber* fiber_;
  bool was_home_ = false;
};

}  // namespace detail

// Each throws `cancelled` besides what POSIX says. Built without exceptions they fail with ECANCELED instead.
namespace io {

using ssize_type = detail::io_result;  // ssize_t
using socklen_type = unsigned int;     // socklen_t

CONCUR_INLINE ssize_type read(int fd, void* data, std::size_t size);
CONCUR_INLINE ssize_type write(int fd, const void* data, std::size_t size);  // never raises SIGPIPE on a socket
CONCUR_INLINE int accept(int fd, ::sockaddr* address, socklen_type* size);   // the new descriptor is close-on-exec
CONCUR_INLINE int connect(int fd, const ::sockaddr* address, socklen_type size);
CONCUR_INLINE int close(int fd);
CONCUR_INLINE unsigned sleep(unsigned seconds);  // 0: it always sleeps to the end

}  // namespace io
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include "structure/this_fiber.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// The result as POSIX gives it: minus one and errno. Throws `cancelled`; without exceptions that is ECANCELED.
template <class Result>
Result posix_result(Result result) {
  if (result >= 0) return result;
  if (CONCUR_UNLIKELY(result == io_cancelled)) {
#  if CONCUR_EXCEPTIONS
    fail_cancelled();
#  endif
    result = -ECANCELED;
  }
  sys::set_errno(static_cast<int>(-result));
  return -1;
}

// Waits until a connection under way is made or has failed. 0, or minus errno.
inline int finish_connect(int fd, nanoseconds_t deadline_ns) {
  bool has_waited = false;
  const io_result waited = run_io(fd, direction::writing, deadline_ns, [&]() noexcept -> io_result {
    if (has_waited) {
      // Readiness is a hint: the registration itself reports a socket that is not connected yet as hung up.
      const int ready = sys::poll_one(fd, direction::writing, long_ago);
      if (ready == 0) return 0;
    }
    has_waited = true;
    return -EAGAIN;
  });
  return waited < 0 ? static_cast<int>(waited) : sys::socket_error(fd);
}

inline int connect_descriptor(int fd, const void* address, unsigned size, nanoseconds_t deadline_ns) {
  int result = sys::connect(fd, address, size);
  if (result == -EINTR || result == -EINPROGRESS) result = finish_connect(fd, deadline_ns);
  return result;
}

}  // namespace detail

namespace io {

CONCUR_INLINE ssize_type read(int fd, void* data, std::size_t size) {
  detail::pin_scope pin;
  const detail::descriptor_kind kind = detail::kind_of(fd);
  return detail::posix_result(detail::run_io(fd, detail::direction::reading, detail::never, [=]() noexcept {
    return kind == detail::descriptor_kind::socket ? detail::sys::recv(fd, data, size)
                                                   : detail::sys::read(fd, data, size);
  }));
}

CONCUR_INLINE ssize_type write(int fd, const void* data, std::size_t size) {
  detail::pin_scope pin;
  const detail::descriptor_kind kind = detail::kind_of(fd);
  return detail::posix_result(detail::run_io(fd, detail::direction::writing, detail::never, [=]() noexcept {
    return kind == detail::descriptor_kind::socket ? detail::sys::send(fd, data, size)
                                                   : detail::sys::write(fd, data, size);
  }));
}

CONCUR_INLINE int accept(int fd, ::sockaddr* address, socklen_type* size) {
  detail::pin_scope pin;
  const int prepared = detail::sys::set_nonblocking(fd);
  if (prepared < 0) return detail::posix_result(prepared);
  const detail::io_result accepted =
      detail::run_io(fd, detail::direction::reading, detail::never,
                     [=]() noexcept -> detail::io_result { return detail::sys::accept(fd, address, size); });
  if (accepted >= 0) detail::adopt_descriptor(static_cast<int>(accepted), detail::descriptor_kind::socket);
  return static_cast<int>(detail::posix_result(accepted));
}

CONCUR_INLINE int connect(int fd, const ::sockaddr* address, socklen_type size) {
  detail::pin_scope pin;
  const int prepared = detail::sys::set_nonblocking(fd);
  if (prepared < 0) return detail::posix_result(prepared);
  return detail::posix_result(detail::connect_descriptor(fd, address, size, detail::never));
}

CONCUR_INLINE int close(int fd) { return detail::posix_result(detail::close_descriptor(fd)); }

CONCUR_INLINE unsigned sleep(unsigned seconds) {
  detail::pin_scope pin;
  this_fiber::sleep_for(std::chrono::seconds(seconds));
  return 0;
}

}  // namespace io
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
