// io/tcp_stream.hpp - a TCP connection as an object: it owns its descriptor, parks the fiber that uses it, closes
// itself.
//
// Every function has two forms. One throws std::system_error, whose text says what was done and with whom; the other
// takes a std::error_code as its last argument and does not throw. The first throws `cancelled`, the second says
// std::errc::operation_canceled for that.
//
// One fiber may read while another writes. Deadlines are moments, not lengths of time: set once, they hold for every
// call until changed, and a call after the deadline fails with std::errc::timed_out before it does anything. A
// default-constructed moment means that there is none. Closing a stream that another fiber waits on wakes that fiber
// with std::errc::operation_canceled, too; this_fiber::cancelled() tells the two apart.
#ifndef CONCUR_IO_TCP_STREAM_HPP
#define CONCUR_IO_TCP_STREAM_HPP

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>

#include "base/config.hpp"
#include "io/posix.hpp"
#include "io/socket.hpp"

CONCUR_NAMESPACE_BEGIN

class tcp_stream {
 public:
  tcp_stream() noexcept = default;
  // Takes over a connected socket.
  explicit tcp_stream(int fd) noexcept : descriptor_(fd) {}
  tcp_stream(tcp_stream&&) noexcept = default;
  tcp_stream& operator=(tcp_stream&&) noexcept = default;

  // Parks until connected. A string is parsed as by endpoint.
  static tcp_stream connect(const endpoint& to);
  static tcp_stream connect(const endpoint& to, std::error_code& error);

  // Parks until at least one byte is there, and returns how many were read; 0 at the end of the stream.
  std::size_t read_some(void* data, std::size_t size);
  std::size_t read_some(void* data, std::size_t size, std::error_code& error);
  // Reads `size` bytes. When the stream ends before, the first form throws std::system_error (connection_aborted);
  // the second returns how many there were, and no error.
  std::size_t read_exactly(void* data, std::size_t size);
  std::size_t read_exactly(void* data, std::size_t size, std::error_code& error);
  // Reads up to and including `delimiter`. Throws std::system_error (message_size) when that does not come within
  // `limit` bytes, which then stay unread. What is behind the delimiter stays for the next read. Less than asked for,
  // without the delimiter: the end came.
  std::string read_until(std::string_view delimiter, std::size_t limit);
  std::string read_until(std::string_view delimiter, std::size_t limit, std::error_code& error);

  // Writes everything; returns the size. The second form returns how much was written before an error.
  std::size_t write_all(const void* data, std::size_t size);
  std::size_t write_all(const void* data, std::size_t size, std::error_code& error);

  template <class C, class = std::enable_if_t<detail::is_byte_container<C>::value>>
  std::size_t read_some(C&& into) {
    return read_some(static_cast<void*>(into.data()), into.size());
  }
  template <class C, class = std::enable_if_t<detail::is_byte_container<C>::value>>
  std::size_t read_some(C&& into, std::error_code& error) {
    return read_some(static_cast<void*>(into.data()), into.size(), error);
  }
  template <class C, class = std::enable_if_t<detail::is_byte_container<C>::value>>
  std::size_t read_exactly(C&& into) {
    return read_exactly(static_cast<void*>(into.data()), into.size());
  }
  template <class C, class = std::enable_if_t<detail::is_byte_container<C>::value>>
  std::size_t read_exactly(C&& into, std::error_code& error) {
    return read_exactly(static_cast<void*>(into.data()), into.size(), error);
  }
  std::size_t write_all(std::string_view text) { return write_all(text.data(), text.size()); }
  std::size_t write_all(std::string_view text, std::error_code& error) {
    return write_all(text.data(), text.size(), error);
  }
  template <class C, class = std::enable_if_t<detail::is_byte_container<const C>::value &&
                                              !std::is_convertible<const C&, std::string_view>::value>>
  std::size_t write_all(const C& bytes) {
    return write_all(static_cast<const void*>(bytes.data()), bytes.size());
  }
  template <class C, class = std::enable_if_t<detail::is_byte_container<const C>::value &&
                                              !std::is_convertible<const C&, std::string_view>::value>>
  std::size_t write_all(const C& bytes, std::error_code& error) {
    return write_all(static_cast<const void*>(bytes.data()), bytes.size(), error);
  }

  // Tells the peer that nothing more comes; reading goes on.
  void shutdown_write();
  void shutdown_write(std::error_code& error);

  void read_deadline(std::chrono::steady_clock::time_point tp) noexcept { read_deadline_ns_ = to_deadline(tp); }
  void write_deadline(std::chrono::steady_clock::time_point tp) noexcept { write_deadline_ns_ = to_deadline(tp); }
  void no_delay(bool is_on);
  void no_delay(bool is_on, std::error_code& error);

  endpoint local_endpoint() const noexcept { return detail::local_endpoint_of(fd()); }
  endpoint peer_endpoint() const noexcept { return detail::peer_endpoint_of(fd()); }

  bool is_open() const noexcept { return fd() >= 0; }
  int fd() const noexcept { return descriptor_.get(); }
  // Gives the descriptor away, unclosed.
  int release() noexcept { return descriptor_.release(); }
  void close() noexcept;

 private:
  class rest_scope;
  static detail::nanoseconds_t to_deadline(std::chrono::steady_clock::time_point tp) noexcept {
    return tp == std::chrono::steady_clock::time_point() ? detail::never : detail::deadline_at(tp);
  }
  detail::io_result receive(void* data, std::size_t size);
  std::size_t take_rest(void* data, std::size_t size) noexcept;
  [[noreturn]] void fail(const char* what, std::error_code error) const;

  detail::unique_descriptor descriptor_;
  detail::nanoseconds_t read_deadline_ns_ = detail::never;
  detail::nanoseconds_t write_deadline_ns_ = detail::never;
  std::unique_ptr<std::string> rest_;  // read but not asked for yet; only read_until leaves any
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <netinet/tcp.h>

CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE void tcp_stream::fail(const char* what, std::error_code error) const {
  const endpoint peer = peer_endpoint();
  detail::fail_io(error, std::string("concur::tcp_stream::") + what +
                             (peer.is_empty() ? std::string() : " with " + peer.to_string()));
}

CONCUR_INLINE tcp_stream tcp_stream::connect(const endpoint& to, std::error_code& error) {
  error.clear();
  if (to.is_empty()) {
    error = std::make_error_code(std::errc::invalid_argument);
    return tcp_stream();
  }
  if (!detail::has_passed_checkpoint(error)) return tcp_stream();
  const int fd = detail::open_socket(to);
  tcp_stream stream(fd < 0 ? -1 : fd);
  const int result = fd < 0 ? fd : detail::connect_descriptor(fd, to.data(), to.size(), detail::never);
  if (result >= 0) return stream;
  error = detail::to_code(result);
  return tcp_stream();
}

CONCUR_INLINE tcp_stream tcp_stream::connect(const endpoint& to) {
  std::error_code error;
  tcp_stream stream = connect(to, error);
  if (error) detail::fail_io(error, "concur::tcp_stream::connect to " + to.to_string());
  return stream;
}

// While read_until works on the rest: whatever its end is, a cancellation too, what lies there then is what came and was not
// given out. And nothing is no rest, which would be taken for the end of the stream.
class tcp_stream::rest_scope {
 public:
  explicit rest_scope(std::unique_ptr<std::string>& rest) : rest_(rest) {
    if (rest_ == nullptr) rest_ = std::make_unique<std::string>();
    size_ = rest_->size();
  }
  ~rest_scope() {
    if (CONCUR_MUTANT_IS(240)) return;
    rest_->resize(size_);
    if (size_ == 0) rest_.reset();
  }
  rest_scope(const rest_scope&) = delete;
  rest_scope& operator=(const rest_scope&) = delete;

  char* grow(std::size_t count) {
    rest_->resize(size_ + count);
    return &(*rest_)[size_];
  }
  void keep(detail::io_result count) {
    if (count > 0) size_ += static_cast<std::size_t>(count);
    rest_->resize(size_);
  }
  std::string take(std::size_t count) {
    std::string taken = rest_->substr(0, count);
    rest_->erase(0, count);
    size_ -= count;
    return taken;
  }

 private:
  std::unique_ptr<std::string>& rest_;
  std::size_t size_ = 0;
};

CONCUR_INLINE std::size_t tcp_stream::take_rest(void* data, std::size_t size) noexcept {
  const std::size_t count = rest_->copy(static_cast<char*>(data), size);
  rest_->erase(0, count);
  if (rest_->empty()) rest_.reset();
  return count;
}

CONCUR_INLINE detail::io_result tcp_stream::receive(void* data, std::size_t size) {
  const int fd = descriptor_.get();
  return detail::run_io(
      fd, detail::direction::reading, read_deadline_ns_, [=]() noexcept { return detail::sys::recv(fd, data, size); },
      size);
}

CONCUR_INLINE std::size_t tcp_stream::read_some(void* data, std::size_t size, std::error_code& error) {
  if (CONCUR_UNLIKELY(size == 0 || rest_ != nullptr)) {
    if (!detail::has_passed_checkpoint(error)) return 0;
    return rest_ != nullptr ? take_rest(data, size) : 0;
  }
  error.clear();
  const detail::io_result count = receive(data, size);
  if (CONCUR_LIKELY(count >= 0)) return static_cast<std::size_t>(count);
  error = detail::to_code(count);
  return 0;
}
CONCUR_INLINE std::size_t tcp_stream::read_some(void* data, std::size_t size) {
  std::error_code error;
  const std::size_t count = read_some(data, size, error);
  if (CONCUR_UNLIKELY(static_cast<bool>(error))) fail("read_some", error);
  return count;
}

CONCUR_INLINE std::size_t tcp_stream::read_exactly(void* data, std::size_t size, std::error_code& error) {
  std::size_t done = 0;
  error.clear();
  while (done < size) {
    const std::size_t count = read_some(static_cast<char*>(data) + done, size - done, error);
    if (count == 0) break;
    done += count;
  }
  return done;
}
CONCUR_INLINE std::size_t tcp_stream::read_exactly(void* data, std::size_t size) {
  std::error_code error;
  const std::size_t count = read_exactly(data, size, error);
  if (!error && count < size) error = std::make_error_code(std::errc::connection_aborted);
  if (error) {
    const std::string what = "read_exactly (" + std::to_string(count) + " of " + std::to_string(size) + " bytes came)";
    fail(what.c_str(), error);
  }
  return count;
}

CONCUR_INLINE std::string tcp_stream::read_until(std::string_view delimiter, std::size_t limit,
                                                 std::error_code& error) {
  constexpr std::size_t chunk = 4096;
  if (!detail::has_passed_checkpoint(error) || delimiter.empty()) return std::string();
  rest_scope rest(rest_);
  std::size_t searched = 0;
  for (;;) {
    const std::size_t at = rest_->find(delimiter, searched);
    const std::size_t end = at == std::string::npos ? rest_->size() : at + delimiter.size();
    if (end > limit || (at == std::string::npos && end == limit)) {
      error = std::make_error_code(std::errc::message_size);
      return std::string();
    }
    std::size_t take = end;
    if (at == std::string::npos) {
      searched = rest_->size() < delimiter.size() ? 0 : rest_->size() - delimiter.size() + 1;
      const detail::io_result count = receive(rest.grow(chunk), chunk);
      rest.keep(count);
      if (count > 0) continue;
      error = detail::to_code(count);
      take = count == 0 ? rest_->size() : 0;
    }
    return rest.take(take);
  }
}
CONCUR_INLINE std::string tcp_stream::read_until(std::string_view delimiter, std::size_t limit) {
  std::error_code error;
  std::string result = read_until(delimiter, limit, error);
  if (error) fail("read_until", error);
  return result;
}

CONCUR_INLINE std::size_t tcp_stream::write_all(const void* data, std::size_t size, std::error_code& error) {
  const int fd = descriptor_.get();
  const char* bytes = static_cast<const char*>(data);
  std::size_t done = 0;
  error.clear();
  while (done < size) {
    const detail::io_result count = detail::run_io(fd, detail::direction::writing, write_deadline_ns_, [=]() noexcept {
      return detail::sys::send(fd, bytes + done, size - done);
    });
    if (CONCUR_UNLIKELY(count < 0)) {
      error = detail::to_code(count);
      break;
    }
    done += static_cast<std::size_t>(count);
  }
  return done;
}
CONCUR_INLINE std::size_t tcp_stream::write_all(const void* data, std::size_t size) {
  std::error_code error;
  const std::size_t count = write_all(data, size, error);
  if (CONCUR_UNLIKELY(static_cast<bool>(error))) {
    const std::string what = "write_all (" + std::to_string(count) + " of " + std::to_string(size) + " bytes written)";
    fail(what.c_str(), error);
  }
  return count;
}

CONCUR_INLINE void tcp_stream::shutdown_write(std::error_code& error) {
  error = detail::to_code(detail::shut_writing(fd()));
}
CONCUR_INLINE void tcp_stream::shutdown_write() {
  std::error_code error;
  shutdown_write(error);
  if (error) fail("shutdown_write", error);
}

CONCUR_INLINE void tcp_stream::no_delay(bool is_on, std::error_code& error) {
  error = detail::to_code(detail::set_tcp_flag(fd(), TCP_NODELAY, is_on));
}
CONCUR_INLINE void tcp_stream::no_delay(bool is_on) {
  std::error_code error;
  no_delay(is_on, error);
  if (error) fail("no_delay", error);
}

CONCUR_INLINE void tcp_stream::close() noexcept {
  descriptor_.close();
  rest_.reset();
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
