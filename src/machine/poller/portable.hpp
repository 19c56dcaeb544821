// machine/poller/portable.hpp - what epoll does for us and other systems leave to their user.
//
// Two things: refusing descriptors for which waiting has no meaning, and being woken, for which any system has a pipe.
// One byte in the pipe stands for one change of the poller's wake word from 0 to 1. The reader takes the byte out first
// and sets the word back afterwards: in the other order a waker in between would set the word, have its byte taken, and
// no later waker would write another.
#ifndef CONCUR_MACHINE_POLLER_PORTABLE_HPP
#define CONCUR_MACHINE_POLLER_PORTABLE_HPP

#if CONCUR_BODIES && !defined(CONCUR_POLLER_EPOLL)

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

CONCUR_NAMESPACE_BEGIN
namespace detail {

// EPERM for files and directories, which are always ready, as epoll says; 0 for what can be waited for; EBADF.
CONCUR_NOINLINE CONCUR_INLINE int error_of_waiting_for(int fd) noexcept {
  struct stat about;
  if (::fstat(fd, &about) != 0) return errno;
  return S_ISREG(about.st_mode) || S_ISDIR(about.st_mode) ? EPERM : 0;
}

// Some systems have no pipe2. A child forked between the two calls keeps the pipe over its exec; there is no better
// way.
CONCUR_NOINLINE CONCUR_INLINE int open_wake_pipe(int& read_end, int& write_end) noexcept {
  int ends[2];
#  if defined(__APPLE__)
  if (::pipe(ends) != 0) return errno;
  for (const int end : ends) {
    ::fcntl(end, F_SETFD, FD_CLOEXEC);
    ::fcntl(end, F_SETFL, O_NONBLOCK);
  }
#  else
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return errno;
#  endif
  read_end = ends[0];
  write_end = ends[1];
  return 0;
}

CONCUR_INLINE void close_if_open(int& fd) noexcept {
  if (fd >= 0) ::close(fd);
  fd = -1;
}

inline void write_wake_byte(int write_end) noexcept {
  const char byte = 1;
  const auto written = ::write(write_end, &byte, 1);  // there is room: one byte at a time is in the pipe
  static_cast<void>(written);
}

inline void take_wake_bytes(int read_end) noexcept {
  char bytes[16];
  while (::read(read_end, bytes, sizeof bytes) == static_cast<ssize_t>(sizeof bytes)) {
  }
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif

#endif
