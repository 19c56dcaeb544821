// bench/peers/floor/echo_client.cpp - the one load that drives every echo server when the server is a process of its own.
//
// An epoll loop over --connections sockets: each sends 64 bytes, waits until all of them came back, and sends again. It polls
// without sleeping, so that the time to wake this side's core is not charged to the server.
#include <vector>

#include "../../measure.hpp"
#include "epoll_support.hpp"

namespace {

constexpr std::size_t message_bytes = 64;

struct client {
  int fd;
  std::size_t received;
};

class load {
 public:
  load(long port, long connections) : poller_(bench::must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1")) {
    for (long i = 0; i < connections; ++i) {
      clients_.push_back(client{bench::connect_to(port), 0});
      bench::watch(poller_, clients_.back().fd, static_cast<std::uint64_t>(i));
    }
  }

  void rounds(long count) {
    long to_send = count;
    long done = 0;
    for (client& one : clients_) {
      if (to_send == 0) break;
      --to_send;
      send_message(one);
    }
    epoll_event events[256];
    while (done < count) {
      const int ready = epoll_wait(poller_, events, 256, 0);
      for (int i = 0; i < ready; ++i) {
        client& one = clients_[events[i].data.u64];
        if (!receive(one)) continue;
        ++done;
        if (to_send > 0) {
          --to_send;
          send_message(one);
        }
      }
    }
  }

 private:
  static void send_message(client& to) {
    const char message[message_bytes] = {};
    to.received = 0;
    if (write(to.fd, message, sizeof message) != static_cast<ssize_t>(sizeof message)) fail("write");
  }

  // True when the whole message is back.
  static bool receive(client& from) {
    char buffer[message_bytes];
    const ssize_t got = read(from.fd, buffer, message_bytes - from.received);
    if (got < 0 && errno == EAGAIN) return false;
    if (got <= 0) fail("read");
    from.received += static_cast<std::size_t>(got);
    return from.received == message_bytes;
  }

  [[noreturn]] static void fail(const char* what) {
    std::fprintf(stderr, "echo_client: %s: the server closed or refused a connection\n", what);
    std::exit(1);
  }

  int poller_;
  std::vector<client> clients_;
};

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--connections", "--count", "--port"});
  const long connections = arguments.number("--connections", 1);
  const long count = arguments.number("--count", 100000);
  load driver(arguments.number("--port", 0), connections);
  driver.rounds(count / 10 + connections);
  bench::report("round_trip", bench::elapsed_ns([&] { driver.rounds(count); }) / static_cast<double>(count), "ns");
}
