// tcp_echo.cpp - a TCP server that sends back what it gets, and clients that hold it to that.
//
//     g++ -std=c++17 -O2 -pthread -I. examples/tcp_echo.cpp -o tcp_echo
//
// Every connection, on both sides, is a fiber with a plain loop in it. read_some and write_all look as if they blocked,
// and for the fiber they do; the worker below them runs whoever has something to do.
//
// Output:
//     client 1: 200 messages came back unchanged
//     client 2: 200 messages came back unchanged
//     client 3: 200 messages came back unchanged
//     server: 3 connections, 60000 bytes echoed
#include "concur.hpp"

#include <cstdio>
#include <string>
#include <vector>

constexpr int clients = 3;
constexpr int messages = 200;

// Returns the bytes echoed, once the peer has closed its side.
std::size_t echo(concur::tcp_stream stream) {
  char buffer[4096];
  std::size_t total = 0;
  for (;;) {
    const std::size_t count = stream.read_some(buffer, sizeof buffer);
    if (count == 0) return total;  // the end of the stream
    stream.write_all(buffer, count);
    total += count;
  }
}

std::size_t serve(concur::tcp_listener& listener) {
  std::vector<concur::future<std::size_t>> connections;
  for (int i = 0; i < clients; ++i) {
    connections.push_back(concur::go(echo, listener.accept()));
  }
  std::size_t total = 0;
  for (auto& connection : connections) total += connection.get();
  return total;
}

// Returns how many messages came back as they were sent.
int talk(const concur::endpoint& server) {
  concur::tcp_stream stream = concur::tcp_stream::connect(server);
  int unchanged = 0;
  for (int i = 0; i < messages; ++i) {
    const std::string sent(100, static_cast<char>('a' + i % 26));
    std::string received(sent.size(), ' ');
    stream.write_all(sent.data(), sent.size());
    stream.read_exactly(&received[0], received.size());
    if (received == sent) ++unchanged;
  }
  return unchanged;
}

int main() {
  concur::run([] {
    concur::tcp_listener listener = concur::tcp_listener::bind("127.0.0.1:0");  // port 0: any that is free
    const concur::endpoint address = listener.local_endpoint();
    concur::future<std::size_t> server = concur::go([&] { return serve(listener); });

    std::vector<concur::future<int>> talks;
    for (int i = 0; i < clients; ++i) talks.push_back(concur::go(talk, address));
    for (int i = 0; i < clients; ++i) {
      const int unchanged = talks[static_cast<std::size_t>(i)].get();
      std::printf("client %d: %d messages came back unchanged\n", i + 1, unchanged);
    }
    std::printf("server: %d connections, %zu bytes echoed\n", clients, server.get());
  });
}
