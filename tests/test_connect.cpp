// tests/test_connect.cpp - connections that do not come about at once: in progress, refused, abandoned by the listener.
//
// On the loopback interface a connect is mostly done when the call returns. To see one in progress, the listener's queue
// is filled first: the kernel then drops the first packet, and the connection is made when that is sent again, after
// about a second, if there is room by then.
#include "support/test.hpp"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

namespace {

// Connections from plain non-blocking sockets, until one does not complete at once: the queue is full then.
std::vector<int> fill_queue(const concur::endpoint& at) {
  std::vector<int> sockets;
  for (;;) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    REQUIRE(fd >= 0);
    sockets.push_back(fd);
    sockaddr_in address{};
    std::memcpy(&address, at.data(), sizeof address);
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) continue;
    REQUIRE(errno == EINPROGRESS);
    // Loopback: half a connection in progress is done a moment later if there was room.
    const int still_waiting = errno;
    sockaddr_in peer{};
    socklen_t size = sizeof peer;
    if (::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) == 0) continue;
    REQUIRE(still_waiting == EINPROGRESS);
    return sockets;
  }
}

}  // namespace

TEST_CASE("a connect in progress parks until the listener has room") {
  for (const unsigned workers : {1u, 2u}) {
    const nothing_left_over guard;
    concur::run(with_workers(workers), [] {
      auto listener = concur::tcp_listener::bind("127.0.0.1:0", 1);
      const concur::endpoint at = listener.local_endpoint();
      const std::vector<int> queue = fill_queue(at);

      bool has_connected = false;
      auto client = concur::go([&] {
        auto stream = concur::tcp_stream::connect(at);
        has_connected = true;
        stream.write_all("late");
      });
      concur::this_fiber::sleep_for(std::chrono::milliseconds(50));
      CHECK_FALSE(has_connected);  // parked, and this fiber ran meanwhile

      for (const int fd : queue) ::close(fd);
      std::string received;
      while (received != "late") {
        auto stream = listener.accept();
        char bytes[8];
        std::error_code error;
        received.assign(bytes, stream.read_some(bytes, sizeof bytes, error));
      }
      client.get();
      CHECK(has_connected);
    });
  }
}

TEST_CASE("a connect in progress is ended by cancelling its fiber") {
  const nothing_left_over guard;
  auto listener = concur::tcp_listener::bind("127.0.0.1:0", 1);
  const std::vector<int> queue = fill_queue(listener.local_endpoint());
  bool was_cancelled = false;
  {
    concur::runtime rt(with_workers(2));
    concur::channel<void> is_up(1);
    rt.go([&, is_up]() mutable {
      try {
        is_up.send();
        concur::tcp_stream::connect(listener.local_endpoint());
      } catch (const concur::cancelled&) {
        was_cancelled = true;
        throw;
      }
    });
    is_up.recv();
  }
  CHECK(was_cancelled);
  for (const int fd : queue) ::close(fd);
}

TEST_CASE("a refused connect says where to, and the runtime goes on") {
  const nothing_left_over guard;
  concur::run(with_workers(1), [] {
    concur::endpoint nobody;
    {
      auto listener = concur::tcp_listener::bind("127.0.0.1:0");
      nobody = listener.local_endpoint();
    }
    std::string text;
    try {
      concur::tcp_stream::connect(nobody);
    } catch (const std::system_error& error) {
      text = error.what();
      CHECK(error.code() == std::errc::connection_refused);
    }
    CHECK(text.find(nobody.to_string()) != std::string::npos);

    std::error_code error;
    CHECK_FALSE(concur::tcp_stream::connect(nobody, error).is_open());
    CHECK(error == std::errc::connection_refused);
    CHECK(concur::go([] { return 7; }).get() == 7);
  });
}
