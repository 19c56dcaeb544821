// bench/peers/asio/idle.cpp - parked coroutines, and one at a socket nobody connects to; watched from outside.
//
// They wait on one channel, on a loop of one thread: Asio has no use for a second while nothing happens.
#include <asio/experimental/channel.hpp>

#include "support.hpp"

namespace {

using channel = bench::quiet_token::as_default_on_t<asio::experimental::channel<void(asio::error_code, long)>>;

asio::awaitable<void> wait_for_gate(channel& gate, long& waiting, long all) {
  if (++waiting == all) {
    std::puts("ready");
    std::fflush(stdout);
  }
  co_await gate.async_receive();
}

asio::awaitable<void> wait_for_connection(bench::tcp_acceptor& acceptor) { co_await acceptor.async_accept(); }

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count"});
  const long count = arguments.number("--count", 10000);
  bench::single_loop loop;
  bench::tcp_acceptor acceptor(loop.context(), {asio::ip::address_v4::loopback(), 0});
  channel gate(loop.context(), 0);
  long waiting = 0;
  loop.go(wait_for_connection(acceptor));
  for (long i = 0; i < count; ++i) loop.go(wait_for_gate(gate, waiting, count));
  loop.run();
}
