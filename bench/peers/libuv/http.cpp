// bench/peers/libuv/http.cpp - the least HTTP server: a loop for each worker.
//
// libuv binds a connection to the loop that accepts it. So the first loop only watches the listening socket, accepts by the
// system call, and deals the descriptors out in turn, with a message to the other loops.
#include <sys/socket.h>

#include <mutex>

#include "../../http_reply.hpp"
#include "support.hpp"

namespace {

const bench::http_reply_batch replies;

struct connection {
  uv_tcp_t handle{};
  bench::request_counter counter;
  char buffer[4096];
};

void give_buffer(uv_handle_t* of, std::size_t, uv_buf_t* buffer) {
  auto* one = static_cast<connection*>(of->data);
  *buffer = uv_buf_init(one->buffer, sizeof one->buffer);
}

void serve(uv_stream_t* from, ssize_t got, const uv_buf_t*) {
  auto* one = static_cast<connection*>(from->data);
  if (got < 0) {
    uv_close(reinterpret_cast<uv_handle_t*>(from), [](uv_handle_t* of) { delete static_cast<connection*>(of->data); });
    return;
  }
  std::size_t owed = one->counter.feed(one->buffer, static_cast<std::size_t>(got));
  while (owed > 0) {
    const std::size_t batch = owed < bench::http_batch ? owed : bench::http_batch;
    bench::write_all(from, replies.bytes, batch * bench::http_reply_bytes);
    owed -= batch;
  }
}

class server_loop {
 public:
  server_loop() {
    uv_loop_init(&loop_);
    news_.data = this;
    uv_async_init(&loop_, &news_, [](uv_async_t* of) { static_cast<server_loop*>(of->data)->adopt_all(); });
  }
  uv_loop_t* loop() { return &loop_; }
  void run() { uv_run(&loop_, UV_RUN_DEFAULT); }
  void adopt(int fd) {
    auto* made = new connection;
    made->handle.data = made;
    bench::must_uv(uv_tcp_init(&loop_, &made->handle), "uv_tcp_init");
    bench::must_uv(uv_tcp_open(&made->handle, fd), "uv_tcp_open");
    uv_read_start(bench::stream(made->handle), give_buffer, serve);
  }
  // From another thread.
  void send(int fd) {
    {
      const std::lock_guard<std::mutex> held(lock_);
      arrived_.push_back(fd);
    }
    uv_async_send(&news_);
  }

 private:
  void adopt_all() {
    std::vector<int> taken;
    {
      const std::lock_guard<std::mutex> held(lock_);
      taken.swap(arrived_);
    }
    for (int fd : taken) adopt(fd);
  }

  uv_loop_t loop_{};
  uv_async_t news_{};
  std::mutex lock_;
  std::vector<int> arrived_;
};

struct server {
  int listener = -1;
  std::vector<std::unique_ptr<server_loop>> loops;
  std::size_t next = 0;

  void accept_all() {
    for (;;) {
      const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) return;
      bench::no_delay(fd);
      const std::size_t chosen = next++ % loops.size();
      if (chosen == 0)
        loops[0]->adopt(fd);
      else
        loops[chosen]->send(fd);
    }
  }
};

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--port"});
  long port = arguments.number("--port", 8080);
  server all;
  all.listener = bench::listen_on(port);
  for (long i = 0; i < arguments.number("--workers", 1); ++i) all.loops.push_back(std::make_unique<server_loop>());
  uv_poll_t poll{};
  poll.data = &all;
  bench::must_uv(uv_poll_init(all.loops[0]->loop(), &poll, all.listener), "uv_poll_init");
  uv_poll_start(&poll, UV_READABLE, [](uv_poll_t* of, int, int) { static_cast<server*>(of->data)->accept_all(); });
  std::vector<std::thread> threads;
  for (std::size_t i = 1; i < all.loops.size(); ++i) threads.emplace_back([&all, i] { all.loops[i]->run(); });
  all.loops[0]->run();
}
