// io/tcp_listener.hpp - waiting for TCP clients: bind, accept, close.
//
// Functions come in two forms, as those of tcp_stream. Several fibers may accept on one listener; clients go to them in
// the order in which they came to wait.
#ifndef CONCUR_IO_TCP_LISTENER_HPP
#define CONCUR_IO_TCP_LISTENER_HPP

#include "base/config.hpp"
#include "io/tcp_stream.hpp"

CONCUR_NAMESPACE_BEGIN

class tcp_listener {
 public:
  tcp_listener() noexcept = default;
  explicit tcp_listener(int fd) noexcept : descriptor_(fd) {}
  tcp_listener(tcp_listener&&) noexcept = default;
  tcp_listener& operator=(tcp_listener&&) noexcept = default;

  // Listens. Port 0 takes a free one (see local_endpoint). The address may be one of a listener that has just ended.
  // `backlog`: how many connections the kernel completes ahead of accept.
  static tcp_listener bind(const endpoint& at, int backlog = 4096);
  static tcp_listener bind(const endpoint& at, std::error_code& error);
  static tcp_listener bind(const endpoint& at, int backlog, std::error_code& error);

  // Parks until a client has come. With too many open files (EMFILE, ENFILE) the client stays in the queue: accept
  // again when some have been closed.
  tcp_stream accept();
  tcp_stream accept(std::error_code& error);

  endpoint local_endpoint() const noexcept { return detail::local_endpoint_of(fd()); }
  bool is_open() const noexcept { return fd() >= 0; }
  int fd() const noexcept { return descriptor_.get(); }
  int release() noexcept { return descriptor_.release(); }
  void close() noexcept { descriptor_.close(); }

 private:
  detail::unique_descriptor descriptor_;
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

CONCUR_INLINE tcp_listener tcp_listener::bind(const endpoint& at, int backlog, std::error_code& error) {
  error.clear();
  if (at.is_empty() || backlog < 1) {
    error = std::make_error_code(std::errc::invalid_argument);
    return tcp_listener();
  }
  const int fd = detail::open_socket(at);
  tcp_listener listener(fd < 0 ? -1 : fd);
  const int result = fd < 0 ? fd : detail::start_listening(fd, at, backlog);
  if (result >= 0) return listener;
  error = detail::to_code(result);
  return tcp_listener();
}
CONCUR_INLINE tcp_listener tcp_listener::bind(const endpoint& at, std::error_code& error) {
  return bind(at, 4096, error);
}
CONCUR_INLINE tcp_listener tcp_listener::bind(const endpoint& at, int backlog) {
  if (backlog < 1)
    detail::fail_argument("concur::tcp_listener::bind", "backlog", std::to_string(backlog),
                          "at least one connection must be able to wait");
  std::error_code error;
  tcp_listener listener = bind(at, backlog, error);
  if (error) detail::fail_code(error, "concur::tcp_listener::bind to " + at.to_string());
  return listener;
}

CONCUR_INLINE tcp_stream tcp_listener::accept(std::error_code& error) {
  const int fd = descriptor_.get();
  const detail::io_result accepted =
      detail::run_io(fd, detail::direction::reading, detail::never, [=]() noexcept -> detail::io_result {
        const int result = detail::sys::accept(fd, nullptr, nullptr);
        return result == -ECONNABORTED ? -EINTR : result;  // that client has gone; the next one may be there
      });
  error = detail::to_code(accepted);
  if (accepted < 0) return tcp_stream();
  detail::adopt_descriptor(static_cast<int>(accepted), detail::descriptor_kind::socket);
  return tcp_stream(static_cast<int>(accepted));
}
CONCUR_INLINE tcp_stream tcp_listener::accept() {
  std::error_code error;
  tcp_stream stream = accept(error);
  if (error) {
    const endpoint at = local_endpoint();
    detail::fail_io(error, "concur::tcp_listener::accept" + (at.is_empty() ? std::string() : " on " + at.to_string()));
  }
  return stream;
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
