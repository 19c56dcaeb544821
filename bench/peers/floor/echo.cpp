// bench/peers/floor/echo.cpp - TCP echo without any runtime: what the machine charges for a round trip.
//
// Without --serve one thread and one epoll hold both ends of every connection: the client's ends send 64 bytes and wait for
// them, the server's ends send back what they read. With --serve only the server's half, for echo_client to drive.
#include <vector>

#include "../../measure.hpp"
#include "epoll_support.hpp"

namespace {

constexpr std::size_t message_bytes = 64;
constexpr std::uint64_t client_bit = std::uint64_t{1} << 32;

struct echo_loop {
  int poller = bench::must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
  int listener = -1;
  std::vector<int> clients;
  long rounds_done = 0;

  void accept_one() {
    const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    bench::no_delay(fd);
    bench::watch(poller, fd, static_cast<std::uint64_t>(fd));
  }

  static void echo(int fd) {
    char buffer[4096];
    const ssize_t got = read(fd, buffer, sizeof buffer);
    if (got > 0) {
      if (write(fd, buffer, static_cast<std::size_t>(got)) != got) std::exit(1);
    } else if (got == 0 || errno != EAGAIN) {
      close(fd);
    }
  }

  static void send_message(int fd) {
    const char message[message_bytes] = {};
    if (write(fd, message, sizeof message) != static_cast<ssize_t>(sizeof message)) std::exit(1);
  }

  // One pass over what is ready. `rounds` bounds how many messages the clients send in all.
  void step(long& to_send) {
    epoll_event events[256];
    const int ready = epoll_wait(poller, events, 256, -1);
    for (int i = 0; i < ready; ++i) {
      const std::uint64_t data = events[i].data.u64;
      const int fd = static_cast<int>(data & 0xffffffffU);
      if (fd == listener) {
        accept_one();
      } else if ((data & client_bit) != 0) {
        char buffer[message_bytes];
        if (read(fd, buffer, sizeof buffer) != static_cast<ssize_t>(sizeof buffer)) std::exit(1);
        ++rounds_done;
        if (to_send > 0) {
          --to_send;
          send_message(fd);
        }
      } else {
        echo(fd);
      }
    }
  }

  void rounds(long count) {
    rounds_done = 0;
    long to_send = count;
    for (int fd : clients) {
      if (to_send == 0) break;
      --to_send;
      send_message(fd);
    }
    while (rounds_done < count) step(to_send);
  }
};

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--connections", "--count", "--serve", "--port"});
  const long connections = arguments.number("--connections", 1);
  const long count = arguments.number("--count", 100000);
  echo_loop loop;
  long port = arguments.number("--port", 0);
  loop.listener = bench::listen_on(port);
  bench::watch(loop.poller, loop.listener, static_cast<std::uint64_t>(loop.listener));
  if (arguments.has("--serve")) {
    long none = 0;
    for (;;) loop.step(none);
  }
  for (long i = 0; i < connections; ++i) {
    const int fd = bench::connect_to(port);
    loop.clients.push_back(fd);
    loop.accept_one();
    bench::watch(loop.poller, fd, client_bit | static_cast<std::uint64_t>(fd));
  }
  loop.rounds(count / 10 + connections);
  bench::report("round_trip", bench::elapsed_ns([&] { loop.rounds(count); }) / static_cast<double>(count), "ns");
}
