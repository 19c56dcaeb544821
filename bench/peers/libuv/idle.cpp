// bench/peers/libuv/idle.cpp - handles that wait for a message, and a socket nobody connects to; watched from outside.
//
// libuv has nothing that is parked: an open handle is what waits there. One loop, on one thread.
#include "support.hpp"

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count"});
  std::vector<uv_async_t> waiting(static_cast<std::size_t>(arguments.number("--count", 10000)));
  uv_loop_t* loop = uv_default_loop();
  for (uv_async_t& one : waiting) bench::must_uv(uv_async_init(loop, &one, [](uv_async_t*) {}), "uv_async_init");
  uv_tcp_t listener{};
  const sockaddr_in address = bench::loopback(0);
  bench::must_uv(uv_tcp_init(loop, &listener), "uv_tcp_init");
  bench::must_uv(uv_tcp_bind(&listener, reinterpret_cast<const sockaddr*>(&address), 0), "uv_tcp_bind");
  bench::must_uv(uv_listen(bench::stream(listener), 4096, [](uv_stream_t*, int) {}), "uv_listen");
  std::puts("ready");
  std::fflush(stdout);
  uv_run(loop, UV_RUN_DEFAULT);
}
