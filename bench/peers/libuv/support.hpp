// bench/peers/libuv/support.hpp - what the programs on libuv share.
#ifndef CONCUR_BENCH_LIBUV_SUPPORT_HPP
#define CONCUR_BENCH_LIBUV_SUPPORT_HPP

#include <uv.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "../../measure.hpp"
#include "../floor/epoll_support.hpp"

namespace bench {

inline void must_uv(int result, const char* what) {
  if (result >= 0) return;
  std::fprintf(stderr, "%s: %s\n", what, uv_strerror(result));
  std::exit(1);
}

inline sockaddr_in local_address(const uv_tcp_t& of) {
  sockaddr_in address{};
  int size = sizeof address;
  must_uv(uv_tcp_getsockname(&of, reinterpret_cast<sockaddr*>(&address), &size), "uv_tcp_getsockname");
  return address;
}

inline uv_stream_t* stream(uv_tcp_t& of) { return reinterpret_cast<uv_stream_t*>(&of); }

// What a connection writes mostly leaves at once, as its users have it: a request is made only for what does not.
inline void write_all(uv_stream_t* to, const char* bytes, std::size_t size) {
  uv_buf_t whole = uv_buf_init(const_cast<char*>(bytes), static_cast<unsigned>(size));
  const int sent = uv_try_write(to, &whole, 1);
  if (sent == static_cast<int>(size)) return;
  const std::size_t done = sent > 0 ? static_cast<std::size_t>(sent) : 0;
  struct pending {
    uv_write_t request;
    std::vector<char> rest;
  };
  auto* left = new pending{{}, std::vector<char>(bytes + done, bytes + size)};
  left->request.data = left;
  uv_buf_t rest = uv_buf_init(left->rest.data(), static_cast<unsigned>(left->rest.size()));
  const int queued =
      uv_write(&left->request, to, &rest, 1, [](uv_write_t* of, int) { delete static_cast<pending*>(of->data); });
  if (queued < 0) delete left;
}

}  // namespace bench

#endif
