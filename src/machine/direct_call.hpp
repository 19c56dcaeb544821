// machine/direct_call.hpp - system calls that need not say that the thread may be cancelled in them.
//
// glibc's recv, send and epoll_wait are points where pthread_cancel may end the thread, and in a process with threads each
// tells so before the call and takes it back after: two atomics and some 30 instructions. No thread is to be cancelled in
// these: two never block, and the third is for workers, which nobody else holds. glibc's syscall() makes the same calls
// without that, and sets errno alike.
//
// The C library's own functions are called where the arguments of the system call are another matter (other processors and
// C libraries), under sanitizers, which learn from these functions what was written and which thread comes after which,
// and with CONCUR_CALLS_BY_LIBC, for programs in which something preloaded stands before them.
#ifndef CONCUR_MACHINE_DIRECT_CALL_HPP
#define CONCUR_MACHINE_DIRECT_CALL_HPP

#include <cstddef>
#include <type_traits>

#include "base/config.hpp"

#if CONCUR_BODIES

#include <sys/socket.h>

#if defined(__linux__)
#  include <sys/epoll.h>
#  include <sys/syscall.h>
#  include <unistd.h>
#endif

#if defined(__linux__) && defined(__GLIBC__) && (defined(CONCUR_ARCH_X86_64) || defined(CONCUR_ARCH_AARCH64)) && \
    defined(__LP64__) && !CONCUR_ASAN && !CONCUR_TSAN && !CONCUR_MSAN && !defined(CONCUR_CALLS_BY_LIBC)
#  define CONCUR_DIRECT_CALLS 1
#else
#  define CONCUR_DIRECT_CALLS 0
#endif

CONCUR_NAMESPACE_BEGIN
namespace detail {

// As recv and send, with MSG_DONTWAIT in the flags.
inline std::make_signed_t<std::size_t> direct_recv(int fd, void* data, std::size_t size, int flags) noexcept {
#if CONCUR_DIRECT_CALLS
  return ::syscall(SYS_recvfrom, fd, data, size, flags, nullptr, nullptr);
#else
  return ::recv(fd, data, size, flags);
#endif
}
inline std::make_signed_t<std::size_t> direct_send(int fd, const void* data, std::size_t size, int flags) noexcept {
#if CONCUR_DIRECT_CALLS
  return ::syscall(SYS_sendto, fd, data, size, flags, nullptr, std::size_t{0});
#else
  return ::send(fd, data, size, flags);
#endif
}

#if defined(__linux__)
inline int direct_epoll_wait(int queue_fd, epoll_event* events, int capacity, int timeout_ms) noexcept {
#  if CONCUR_DIRECT_CALLS && defined(SYS_epoll_wait)
  return static_cast<int>(::syscall(SYS_epoll_wait, queue_fd, events, capacity, timeout_ms));
#  elif CONCUR_DIRECT_CALLS
  constexpr std::size_t mask_bytes = 8;  // of the kernel's signal masks
  return static_cast<int>(::syscall(SYS_epoll_pwait, queue_fd, events, capacity, timeout_ms, nullptr, mask_bytes));
#  else
  return ::epoll_wait(queue_fd, events, capacity, timeout_ms);
#  endif
}
#endif

}  // namespace detail
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES
#endif
