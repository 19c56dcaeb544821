// bench/peers/floor/http.cpp - an HTTP server of bare epoll loops: the ceiling for everything above it.
//
// --workers threads, each with an epoll of its own. The first accepts and deals the connections out in turn, so that no loop
// idles while another is crowded. Per request: one read, one write, and a share of one epoll_wait.
#include <thread>
#include <vector>

#include "../../http_reply.hpp"
#include "../../measure.hpp"
#include "epoll_support.hpp"

namespace {

struct connection {
  int fd;
  bench::request_counter counter;
};

const bench::http_reply_batch replies;

void serve(connection* from) {
  char buffer[4096];
  const ssize_t got = read(from->fd, buffer, sizeof buffer);
  bool is_alive = got > 0 || (got < 0 && errno == EAGAIN);
  std::size_t owed = got > 0 ? from->counter.feed(buffer, static_cast<std::size_t>(got)) : 0;
  while (is_alive && owed > 0) {
    const std::size_t batch = owed < bench::http_batch ? owed : bench::http_batch;
    const std::size_t bytes = batch * bench::http_reply_bytes;
    // A client that does not read its replies is dropped: this is a floor, not a server.
    is_alive = send(from->fd, replies.bytes, bytes, MSG_NOSIGNAL) == static_cast<ssize_t>(bytes);
    owed -= batch;
  }
  if (!is_alive) {
    close(from->fd);
    delete from;
  }
}

void accept_all(int listener, const std::vector<int>& pollers, std::size_t& next) {
  for (;;) {
    const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    bench::no_delay(fd);
    auto* made = new connection{fd, {}};
    bench::watch(pollers[next++ % pollers.size()], fd, reinterpret_cast<std::uintptr_t>(made));
  }
}

void loop(int poller, int listener, const std::vector<int>& pollers) {
  std::size_t next = 0;
  epoll_event events[512];
  for (;;) {
    const int ready = epoll_wait(poller, events, 512, -1);
    for (int i = 0; i < ready; ++i) {
      if (events[i].data.u64 == 0) {
        accept_all(listener, pollers, next);
      } else {
        serve(reinterpret_cast<connection*>(static_cast<std::uintptr_t>(events[i].data.u64)));
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--port"});
  long port = arguments.number("--port", 8080);
  const long workers = arguments.number("--workers", 1);
  const int listener = bench::listen_on(port);
  std::vector<int> pollers;
  for (long i = 0; i < workers; ++i) pollers.push_back(bench::must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1"));
  bench::watch(pollers[0], listener, 0);
  std::vector<std::thread> threads;
  for (std::size_t i = 1; i < pollers.size(); ++i) {
    threads.emplace_back([&pollers, i, listener] { loop(pollers[i], listener, pollers); });
  }
  loop(pollers[0], listener, pollers);
}
