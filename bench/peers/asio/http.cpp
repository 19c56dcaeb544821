// bench/peers/asio/http.cpp - the least HTTP server, one coroutine a connection. A loop for each worker; the first accepts and
// deals the connections out in turn.
#include "../../http_reply.hpp"
#include "support.hpp"

namespace {

const bench::http_reply_batch replies;

asio::awaitable<void> serve(bench::tcp_socket socket) {
  char buffer[4096];
  bench::request_counter counter;
  for (;;) {
    const auto [ended, got] = co_await socket.async_read_some(asio::buffer(buffer));
    if (ended) co_return;
    std::size_t owed = counter.feed(buffer, got);
    while (owed > 0) {
      const std::size_t batch = owed < bench::http_batch ? owed : bench::http_batch;
      const auto answer = asio::buffer(replies.bytes, batch * bench::http_reply_bytes);
      const auto [failed, sent] = co_await asio::async_write(socket, answer);
      if (failed) co_return;
      owed -= batch;
    }
  }
}

asio::awaitable<void> accept_all(bench::tcp_acceptor& acceptor, std::vector<std::unique_ptr<asio::io_context>>& loops) {
  for (std::size_t next = 0;; next = (next + 1) % loops.size()) {
    asio::io_context& loop = *loops[next];
    auto [error, socket] = co_await acceptor.async_accept(loop);
    if (error) continue;
    socket.set_option(asio::ip::tcp::no_delay(true));
    bench::start(loop.get_executor(), serve(std::move(socket)));
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--port"});
  const auto port = static_cast<asio::ip::port_type>(arguments.number("--port", 8080));
  std::vector<std::unique_ptr<asio::io_context>> loops;
  for (long i = 0; i < arguments.number("--workers", 1); ++i) loops.push_back(std::make_unique<asio::io_context>(1));
  bench::tcp_acceptor acceptor(*loops[0], {asio::ip::address_v4::loopback(), port});
  bench::start(loops[0]->get_executor(), accept_all(acceptor, loops));
  std::vector<std::thread> threads;
  for (std::size_t i = 1; i < loops.size(); ++i) {
    threads.emplace_back([&context = *loops[i]] {
      const auto kept = asio::make_work_guard(context);
      context.run();
    });
  }
  loops[0]->run();
}
