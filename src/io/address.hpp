// io/address.hpp - where a socket is, or is to be: an IP address and a port.
//
// Written as in a URL: "127.0.0.1:80", "[::1]:80", ":80" for every address of this machine. A name instead of an
// address is looked up by the system's resolver, which may block the worker for as long as that takes; resolve once
// and keep the endpoint.
#ifndef CONCUR_IO_ADDRESS_HPP
#define CONCUR_IO_ADDRESS_HPP

#include <string>
#include <string_view>
#include <system_error>

#include "base/config.hpp"
#include "base/error.hpp"

CONCUR_NAMESPACE_BEGIN

class endpoint {
 public:
  endpoint() noexcept = default;
  // Throws std::invalid_argument, naming what is wrong with the text; std::system_error when a name cannot be resolved.
  endpoint(std::string_view text);
  endpoint(const char* text) : endpoint(std::string_view(text)) {}
  endpoint(const std::string& text) : endpoint(std::string_view(text)) {}
  endpoint(std::string_view address, unsigned port);
  // The same without throwing; an empty endpoint then.
  static endpoint parse(std::string_view text, std::error_code& error) noexcept;

  bool is_empty() const noexcept { return size_ == 0; }
  bool is_v6() const noexcept { return size_ == v6_bytes; }
  unsigned port() const noexcept;
  std::string address() const;    // without port and brackets
  std::string to_string() const;  // as it is parsed
  friend bool operator==(const endpoint& a, const endpoint& b) noexcept;
  friend bool operator!=(const endpoint& a, const endpoint& b) noexcept { return !(a == b); }

  // For system calls: a struct sockaddr and its size.
  const void* data() const noexcept { return bytes_; }
  unsigned size() const noexcept { return size_; }
  static endpoint from_sockaddr(const void* data, unsigned size) noexcept;

 private:
  static constexpr unsigned v4_bytes = 16;
  static constexpr unsigned v6_bytes = 28;

  // Why a text is no endpoint; null: it is one.
  const char* take(std::string_view text, std::string& part, int& resolver_error) noexcept;
  const char* take_host(std::string_view host, unsigned port, int& resolver_error) noexcept;

  alignas(8) unsigned char bytes_[v6_bytes] = {};
  unsigned size_ = 0;
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <arpa/inet.h>
#  include <cstring>
#  include <netdb.h>
#  include <netinet/in.h>
#  include <sys/socket.h>

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Digits only, up to 65535.
inline bool parse_port(std::string_view text, unsigned& port) noexcept {
  if (text.empty() || text.size() > 5) return false;
  port = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return false;
    port = port * 10 + static_cast<unsigned>(c - '0');
  }
  return port <= 65535;
}

}  // namespace detail

CONCUR_INLINE const char* endpoint::take_host(std::string_view host, unsigned port, int& resolver_error) noexcept {
  static_assert(sizeof(sockaddr_in) == v4_bytes && sizeof(sockaddr_in6) == v6_bytes, "an endpoint has room for both");
  char name[256];
  if (host.size() >= sizeof name) return "the host is longer than 255 bytes";
  std::memcpy(name, host.data(), host.size());
  name[host.size()] = '\0';
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  v4.sin_family = AF_INET;
  v6.sin6_family = AF_INET6;
  v4.sin_port = htons(static_cast<std::uint16_t>(port));
  v6.sin6_port = v4.sin_port;
  if (host.empty() || inet_pton(AF_INET, name, &v4.sin_addr) == 1) {
    *this = from_sockaddr(&v4, sizeof v4);
    return nullptr;
  }
  if (inet_pton(AF_INET6, name, &v6.sin6_addr) == 1) {
    *this = from_sockaddr(&v6, sizeof v6);
    return nullptr;
  }
  // Four numbers with dots that are no address are a slip, not a name.
  if (host.find_first_not_of("0123456789.") == std::string_view::npos || host.find(':') != std::string_view::npos)
    return "the host is no valid IP address";
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  resolver_error = getaddrinfo(name, nullptr, &hints, &found);
  if (resolver_error != 0) return "the host name is not known";
  if (found->ai_family == AF_INET) {
    std::memcpy(&v4.sin_addr, reinterpret_cast<const char*>(found->ai_addr) + offsetof(sockaddr_in, sin_addr),
                sizeof v4.sin_addr);
    *this = from_sockaddr(&v4, sizeof v4);
  } else {
    std::memcpy(&v6.sin6_addr, reinterpret_cast<const char*>(found->ai_addr) + offsetof(sockaddr_in6, sin6_addr),
                sizeof v6.sin6_addr);
    *this = from_sockaddr(&v6, sizeof v6);
  }
  freeaddrinfo(found);
  return nullptr;
}

CONCUR_INLINE const char* endpoint::take(std::string_view text, std::string& part, int& resolver_error) noexcept {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return "a port is missing; write \"address:port\"";
  std::string_view host = text.substr(0, colon);
  const std::string_view port_text = text.substr(colon + 1);
  unsigned port = 0;
  if (!detail::parse_port(port_text, port)) {
    part = port_text;
    return "a port is a number from 0 to 65535";
  }
  if (!host.empty() && host.front() == '[') {
    if (host.back() != ']') return "the bracket of an IPv6 address is not closed";
    host = host.substr(1, host.size() - 2);
    if (host.find(':') == std::string_view::npos) return "only an IPv6 address stands in brackets";
  } else if (host.find(':') != std::string_view::npos) {
    return "an IPv6 address with a port is written in brackets, as \"[::1]:80\"";
  }
  return take_host(host, port, resolver_error);
}

CONCUR_INLINE endpoint::endpoint(std::string_view text) {
  std::string part;
  int resolver_error = 0;
  const char* why = take(text, part, resolver_error);
  if (why == nullptr) return;
  const std::string shown = "\"" + std::string(text) + "\"";
  if (resolver_error != 0)
    detail::fail_system(ENXIO, "concur::endpoint: " + shown + ": " + gai_strerror(resolver_error));
  if (!part.empty()) detail::fail_argument("concur::endpoint", "port", part + " in " + shown, why);
  detail::fail_argument("concur::endpoint", "address", shown, why);
}

CONCUR_INLINE endpoint::endpoint(std::string_view address, unsigned port) {
  if (port > 65535)
    detail::fail_argument("concur::endpoint", "port", std::to_string(port), "a port is a number from 0 to 65535");
  int resolver_error = 0;
  const char* why = take_host(address, port, resolver_error);
  if (why != nullptr) detail::fail_argument("concur::endpoint", "address", "\"" + std::string(address) + "\"", why);
}

CONCUR_INLINE endpoint endpoint::parse(std::string_view text, std::error_code& error) noexcept {
  endpoint result;
  std::string part;
  int resolver_error = 0;
  error.clear();
  if (result.take(text, part, resolver_error) != nullptr) {
    error =
        std::make_error_code(resolver_error != 0 ? std::errc::no_such_device_or_address : std::errc::invalid_argument);
    return endpoint();
  }
  return result;
}

CONCUR_INLINE endpoint endpoint::from_sockaddr(const void* data, unsigned size) noexcept {
  endpoint result;
  sockaddr head{};
  if (size < offsetof(sockaddr, sa_data)) return result;
  std::memcpy(&head, data, size < sizeof head ? size : sizeof head);
  const unsigned wanted = head.sa_family == AF_INET ? v4_bytes : head.sa_family == AF_INET6 ? v6_bytes : 0;
  if (wanted == 0 || size < wanted) return result;
  std::memcpy(result.bytes_, data, wanted);
  result.size_ = wanted;
  return result;
}

CONCUR_INLINE unsigned endpoint::port() const noexcept {
  std::uint16_t port = 0;
  if (size_ != 0)
    std::memcpy(&port, bytes_ + (is_v6() ? offsetof(sockaddr_in6, sin6_port) : offsetof(sockaddr_in, sin_port)),
                sizeof port);
  return ntohs(port);
}

CONCUR_INLINE std::string endpoint::address() const {
  char text[INET6_ADDRSTRLEN] = "";
  if (size_ != 0)
    inet_ntop(is_v6() ? AF_INET6 : AF_INET,
              bytes_ + (is_v6() ? offsetof(sockaddr_in6, sin6_addr) : offsetof(sockaddr_in, sin_addr)), text,
              sizeof text);
  return text;
}

CONCUR_INLINE std::string endpoint::to_string() const {
  if (size_ == 0) return "(no endpoint)";
  return (is_v6() ? "[" + address() + "]" : address()) + ":" + std::to_string(port());
}

CONCUR_INLINE bool operator==(const endpoint& a, const endpoint& b) noexcept {
  return a.size_ == b.size_ && a.port() == b.port() && a.address() == b.address();
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
