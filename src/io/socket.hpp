// io/socket.hpp - what all kinds of sockets share: a number that closes itself, and the calls that make one.
#ifndef CONCUR_IO_SOCKET_HPP
#define CONCUR_IO_SOCKET_HPP

#include <system_error>
#include <type_traits>
#include <utility>

#include "atomic/word.hpp"
#include "base/config.hpp"
#include "io/address.hpp"
#include "io/descriptor.hpp"
#include "runtime/forms.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Owns a descriptor number.
class unique_descriptor {
 public:
  unique_descriptor() noexcept = default;
  explicit unique_descriptor(int fd) noexcept : fd_(fd) {}
  unique_descriptor(unique_descriptor&& other) noexcept : fd_(other.release()) {}
  unique_descriptor& operator=(unique_descriptor&& other) noexcept {
    unique_descriptor taken(std::move(other));
    const int before = fd_.exchange(taken.release(), std::memory_order_relaxed);  // relaxed: see below
    taken.fd_.store(before, std::memory_order_relaxed);                           // relaxed: see below
    return *this;
  }
  ~unique_descriptor() { close(); }

  // Closing is what one fiber may do while another uses the object; hence the atomic. relaxed, all: the reactor orders the
  // close against calls that wait.
  int get() const noexcept { return fd_.load(std::memory_order_relaxed); }
  int release() noexcept { return fd_.exchange(-1, std::memory_order_relaxed); }  // relaxed: as above
  int close() noexcept {
    const int fd = release();
    return fd < 0 ? 0 : close_descriptor(fd);
  }

 private:
  atomic<int> fd_{-1};
};

// A contiguous container of bytes: has data() and size(), and its elements are one byte wide.
template <class C, class = void>
struct is_byte_container : std::false_type {};
template <class C>
struct is_byte_container<C, std::void_t<decltype(std::declval<C&>().data()), decltype(std::declval<C&>().size())>>
    : std::bool_constant<sizeof(*std::declval<C&>().data()) == 1> {};

CONCUR_INLINE endpoint local_endpoint_of(int fd) noexcept;
CONCUR_INLINE endpoint peer_endpoint_of(int fd) noexcept;

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <netinet/in.h>
#  include <netinet/tcp.h>
#  include <sys/socket.h>

#  include "io/posix.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

template <class Ask>
endpoint ask_endpoint(int fd, Ask ask) noexcept {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (fd < 0 || ask(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return endpoint();
  return endpoint::from_sockaddr(&storage, size);
}
CONCUR_INLINE endpoint local_endpoint_of(int fd) noexcept { return ask_endpoint(fd, &::getsockname); }
CONCUR_INLINE endpoint peer_endpoint_of(int fd) noexcept { return ask_endpoint(fd, &::getpeername); }

// A cancelled caller has the portable code, a descriptor that was closed under it the system's.
inline std::error_code to_code(io_result result) noexcept {
  if (CONCUR_UNLIKELY(result == io_cancelled)) return std::make_error_code(std::errc::operation_canceled);
  return result < 0 ? std::error_code(static_cast<int>(-result), std::system_category()) : std::error_code();
}
// For what needs no system call, and is a checkpoint all the same.
inline bool has_passed_checkpoint(std::error_code& error) noexcept {
  worker* w = nullptr;
  return or_tell(checkpoint_quietly(w) ? outcome::granted : outcome::cancelled, error) == outcome::granted;
}
// Throws what the form with a code has told.
[[noreturn]] inline void fail_io(std::error_code code, const std::string& what) {
  if (code == to_code(io_cancelled)) fail_cancelled();
  fail_code(code, what);
}

// A new TCP socket for the endpoint's family; minus errno on failure.
CONCUR_NOINLINE inline int open_socket(const endpoint& e) noexcept {
#  if defined(__linux__)
  const int fd = ::socket(e.is_v6() ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
#  else
  const int fd = ::socket(e.is_v6() ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
#  endif
  if (fd < 0) return -errno;
  sys::prepare_socket(fd);
  adopt_descriptor(fd, descriptor_kind::socket);
  return fd;
}

CONCUR_NOINLINE inline int start_listening(int fd, const endpoint& at, int backlog) noexcept {
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd, static_cast<const sockaddr*>(at.data()), at.size()) != 0) return -errno;
  return ::listen(fd, backlog) == 0 ? 0 : -errno;
}

CONCUR_NOINLINE inline int set_tcp_flag(int fd, int option, bool is_on) noexcept {
  const int value = is_on ? 1 : 0;
  return ::setsockopt(fd, IPPROTO_TCP, option, &value, sizeof value) == 0 ? 0 : -errno;
}
CONCUR_NOINLINE inline int shut_writing(int fd) noexcept { return ::shutdown(fd, SHUT_WR) == 0 ? 0 : -errno; }

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
