// bench/http_reply.hpp - the least an HTTP server can do, so that what is measured is the runtime under it.
//
// A request ends with an empty line; every request gets the same 13-byte body. This is no HTTP parser (see
// examples/http_server.cpp for one): ours and the bare epoll loop both use it, so neither wins by parsing less.
#ifndef CONCUR_BENCH_HTTP_REPLY_HPP
#define CONCUR_BENCH_HTTP_REPLY_HPP

#include <cstddef>
#include <cstring>

namespace bench {

inline constexpr char http_reply[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!";
inline constexpr std::size_t http_reply_bytes = sizeof http_reply - 1;

// Replies written at once when a client pipelines; more requests than this in one read are answered in several writes.
inline constexpr std::size_t http_batch = 16;

// Room for a batch of replies, filled once; a write takes the first n of them.
struct http_reply_batch {
  char bytes[http_reply_bytes * http_batch];
  http_reply_batch() {
    for (std::size_t i = 0; i < http_batch; ++i) {
      std::memcpy(bytes + i * http_reply_bytes, http_reply, http_reply_bytes);
    }
  }
};

// Counts ends of requests, remembering a "\r\n\r" that was cut by the end of a read.
class request_counter {
 public:
  std::size_t feed(const char* bytes, std::size_t size) {
    std::size_t requests = 0;
    for (std::size_t i = 0; i < size; ++i) {
      const char expected = (matched_ & 1U) == 0 ? '\r' : '\n';
      if (bytes[i] == expected) {
        if (++matched_ == 4) {
          ++requests;
          matched_ = 0;
        }
      } else {
        matched_ = bytes[i] == '\r' ? 1 : 0;
      }
    }
    return requests;
  }

 private:
  unsigned matched_ = 0;
};

}  // namespace bench

#endif
