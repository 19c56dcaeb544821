// bench/http_minimal.cpp - the least HTTP server, one fiber a connection, against the bare epoll loops of peers/floor/http.cpp.
//
// What it leaves out (parsing, limits, deadlines) is in examples/http_server.cpp, which is measured beside it.
#include <string>
#include <system_error>

#include "http_reply.hpp"
#include "workers.hpp"

namespace {

const bench::http_reply_batch replies;

void serve(concur::tcp_stream stream) {
  char buffer[4096];
  bench::request_counter counter;
  std::error_code error;
  for (;;) {
    const std::size_t got = stream.read_some(buffer, sizeof buffer, error);
    if (got == 0) return;
    std::size_t owed = counter.feed(buffer, got);
    while (owed > 0) {
      const std::size_t batch = owed < bench::http_batch ? owed : bench::http_batch;
      stream.write_all(replies.bytes, batch * bench::http_reply_bytes, error);
      if (error) return;
      owed -= batch;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--port"});
  const std::string address = "127.0.0.1:" + std::to_string(arguments.number("--port", 8080));
  bench::with_workers(arguments.number("--workers", 1), [&] {
    auto listener = concur::tcp_listener::bind(address);
    for (;;) {
      auto stream = listener.accept();
      stream.no_delay(true);
      concur::go(serve, std::move(stream));
    }
  });
}
