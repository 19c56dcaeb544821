// bench/echo.cpp - TCP echo of 64 bytes; ns a round trip.
//
// Both ends of every connection are fibers of this process, two for each, so that the figure is the runtime's path from write
// to read and not the time the kernel takes to wake a sleeping core. With --serve only the server's half runs, for
// peers/floor/echo_client.cpp to drive from outside.
#include <string>
#include <vector>

#include "workers.hpp"

namespace {

constexpr std::size_t message_bytes = 64;

void echo(concur::tcp_stream stream) {
  char buffer[4096];
  while (const std::size_t got = stream.read_some(buffer, sizeof buffer)) stream.write_all(buffer, got);
}

void accept_until(concur::tcp_listener& listener, long connections) {
  for (long i = 0; i != connections; ++i) {
    auto stream = listener.accept();
    stream.no_delay(true);
    concur::go(echo, std::move(stream));
  }
}

void rounds(std::vector<concur::tcp_stream>& clients, long each) {
  std::vector<concur::future<void>> running;
  for (auto& client : clients) {
    running.push_back(concur::go([&client, each] {
      char message[message_bytes] = {};
      for (long i = 0; i < each; ++i) {
        client.write_all(message, sizeof message);
        client.read_exactly(message, sizeof message);
      }
    }));
  }
  for (auto& one : running) one.get();
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--connections", "--count", "--serve", "--port"});
  const long connections = arguments.number("--connections", 1);
  const long each = arguments.number("--count", 100000) / connections;
  const std::string address = "127.0.0.1:" + std::to_string(arguments.number("--port", 0));
  bench::with_workers(arguments.number("--workers", 1), [&] {
    auto listener = concur::tcp_listener::bind(address);
    if (arguments.has("--serve")) accept_until(listener, -1);
    auto accepted = concur::go([&] { accept_until(listener, connections); });
    std::vector<concur::tcp_stream> clients;
    for (long i = 0; i < connections; ++i) {
      clients.push_back(concur::tcp_stream::connect(listener.local_endpoint()));
      clients.back().no_delay(true);
    }
    accepted.get();
    rounds(clients, each / 10 + 1);
    const double ns = bench::elapsed_ns([&] { rounds(clients, each); });
    bench::report("round_trip", ns / static_cast<double>(each * connections), "ns");
  });
}
