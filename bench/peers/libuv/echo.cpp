// bench/peers/libuv/echo.cpp - TCP echo of 64 bytes; ns a round trip. Both ends on one loop, or with --serve the server's.
#include "support.hpp"

namespace {

constexpr std::size_t message_bytes = 64;

struct server {
  uv_tcp_t handle{};
  char buffer[4096];
};

struct client {
  uv_tcp_t handle{};
  uv_connect_t connecting{};
  std::size_t received = 0;
  long to_send = 0;
  char buffer[message_bytes];
};

long running = 0;  // clients that have not had their last answer

void give_buffer(uv_handle_t* of, std::size_t, uv_buf_t* buffer) {
  auto* one = static_cast<server*>(of->data);
  *buffer = uv_buf_init(one->buffer, sizeof one->buffer);
}

void echo(uv_stream_t* from, ssize_t got, const uv_buf_t* buffer) {
  if (got > 0) return bench::write_all(from, buffer->base, static_cast<std::size_t>(got));
  if (got == 0) return;
  uv_close(reinterpret_cast<uv_handle_t*>(from), [](uv_handle_t* of) { delete static_cast<server*>(of->data); });
}

void accept_one(uv_stream_t* listener, int status) {
  bench::must_uv(status, "listen");
  auto* made = new server;
  made->handle.data = made;
  bench::must_uv(uv_tcp_init(listener->loop, &made->handle), "uv_tcp_init");
  bench::must_uv(uv_accept(listener, bench::stream(made->handle)), "uv_accept");
  uv_tcp_nodelay(&made->handle, 1);
  uv_read_start(bench::stream(made->handle), give_buffer, echo);
}

void send_message(client& to) {
  const char message[message_bytes] = {};
  --to.to_send;
  bench::write_all(bench::stream(to.handle), message, sizeof message);
}

// Asked again after each whole message, as it may be followed by more.
void give_message(uv_handle_t* of, std::size_t, uv_buf_t* buffer) {
  auto* one = static_cast<client*>(of->data);
  *buffer = uv_buf_init(one->buffer, static_cast<unsigned>(message_bytes - one->received));
}

void receive(uv_stream_t* from, ssize_t got, const uv_buf_t*) {
  if (got < 0) std::exit(1);
  auto* one = static_cast<client*>(from->data);
  one->received += static_cast<std::size_t>(got);
  if (one->received < message_bytes) return;
  one->received = 0;
  if (one->to_send > 0) return send_message(*one);
  if (--running == 0) uv_stop(from->loop);
}

void rounds(uv_loop_t* loop, std::vector<std::unique_ptr<client>>& clients, long each) {
  running = static_cast<long>(clients.size());
  for (auto& one : clients) {
    one->to_send = each;
    send_message(*one);
  }
  uv_run(loop, UV_RUN_DEFAULT);
}

void connect_all(uv_loop_t* loop, uv_tcp_t& listener, std::vector<std::unique_ptr<client>>& clients) {
  const sockaddr_in address = bench::local_address(listener);
  running = static_cast<long>(clients.size());
  for (auto& one : clients) {
    one = std::make_unique<client>();
    one->handle.data = one.get();
    bench::must_uv(uv_tcp_init(loop, &one->handle), "uv_tcp_init");
    const auto connected = [](uv_connect_t* of, int status) {
      bench::must_uv(status, "connect");
      uv_read_start(of->handle, give_message, receive);
      if (--running == 0) uv_stop(of->handle->loop);
    };
    const auto* to = reinterpret_cast<const sockaddr*>(&address);
    bench::must_uv(uv_tcp_connect(&one->connecting, &one->handle, to, connected), "uv_tcp_connect");
    uv_tcp_nodelay(&one->handle, 1);
  }
  uv_run(loop, UV_RUN_DEFAULT);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--connections", "--count", "--serve", "--port"});
  const long connections = arguments.number("--connections", 1);
  const long each = arguments.number("--count", 100000) / connections;
  uv_loop_t* loop = uv_default_loop();
  uv_tcp_t listener{};
  const sockaddr_in address = bench::loopback(arguments.number("--port", 0));
  bench::must_uv(uv_tcp_init(loop, &listener), "uv_tcp_init");
  bench::must_uv(uv_tcp_bind(&listener, reinterpret_cast<const sockaddr*>(&address), 0), "uv_tcp_bind");
  bench::must_uv(uv_listen(bench::stream(listener), 4096, accept_one), "uv_listen");
  if (arguments.has("--serve")) return uv_run(loop, UV_RUN_DEFAULT);
  std::vector<std::unique_ptr<client>> clients(static_cast<std::size_t>(connections));
  connect_all(loop, listener, clients);
  rounds(loop, clients, each / 10 + 1);
  const double ns = bench::elapsed_ns([&] { rounds(loop, clients, each); });
  bench::report("round_trip", ns / static_cast<double>(each * connections), "ns");
}
