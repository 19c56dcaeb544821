// bench/peers/asio/echo.cpp - TCP echo of 64 bytes; ns a round trip. Both ends in one process, or with --serve the server's.
#include "support.hpp"

namespace {

constexpr std::size_t message_bytes = 64;

asio::awaitable<void> echo(bench::tcp_socket socket) {
  char buffer[4096];
  for (;;) {
    const auto [ended, got] = co_await socket.async_read_some(asio::buffer(buffer));
    if (ended) co_return;
    const auto [failed, sent] = co_await asio::async_write(socket, asio::buffer(buffer, got));
    if (failed) co_return;
  }
}

asio::awaitable<void> accept_until(bench::tcp_acceptor& acceptor, long connections) {
  for (long i = 0; i != connections; ++i) {
    auto [error, socket] = co_await acceptor.async_accept();
    if (error) std::exit(1);
    socket.set_option(asio::ip::tcp::no_delay(true));
    bench::start(acceptor.get_executor(), echo(std::move(socket)));
  }
}

asio::awaitable<void> send_and_wait(bench::tcp_socket& client, long each) {
  char message[message_bytes] = {};
  for (long i = 0; i < each; ++i) {
    const auto [failed, sent] = co_await asio::async_write(client, asio::buffer(message));
    const auto [ended, got] = co_await asio::async_read(client, asio::buffer(message));
    if (failed || ended) std::exit(1);
  }
}

// The loop has work for as long as a server waits, so the last client stops it.
asio::awaitable<void> client_rounds(bench::tcp_socket& client, long each, long& running, asio::io_context& loop) {
  co_await send_and_wait(client, each);
  if (--running == 0) loop.stop();
}

void rounds(bench::single_loop& loop, std::vector<bench::tcp_socket>& clients, long each) {
  auto running = static_cast<long>(clients.size());
  for (bench::tcp_socket& client : clients) loop.go(client_rounds(client, each, running, loop.context()));
  loop.run();
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--connections", "--count", "--serve", "--port"});
  bench::refuse_more_workers(arguments, 1);
  const long connections = arguments.number("--connections", 1);
  const long each = arguments.number("--count", 100000) / connections;
  const auto port = static_cast<asio::ip::port_type>(arguments.number("--port", 0));
  bench::single_loop loop;
  bench::tcp_acceptor acceptor(loop.context(), {asio::ip::address_v4::loopback(), port});
  loop.go(accept_until(acceptor, arguments.has("--serve") ? -1 : connections));
  if (arguments.has("--serve")) loop.run();
  std::vector<bench::tcp_socket> clients;
  for (long i = 0; i < connections; ++i) {
    clients.emplace_back(loop.context());
    clients.back().connect(acceptor.local_endpoint());
    clients.back().set_option(asio::ip::tcp::no_delay(true));
  }
  rounds(loop, clients, each / 10 + 1);
  const double ns = bench::elapsed_ns([&] { rounds(loop, clients, each); });
  bench::report("round_trip", ns / static_cast<double>(each * connections), "ns");
}
