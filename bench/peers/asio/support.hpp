// bench/peers/asio/support.hpp - what the programs on Asio share: its coroutines, and loops to run them.
//
// Stand-alone Asio, the same library as Boost.Asio and, as Debian has them, the newer one: it has channels. Coroutines are
// those of C++20. A loop is an io_context with a thread of its own, and told that no other thread runs it: the fastest of
// the ways it can be used.
#ifndef CONCUR_BENCH_ASIO_SUPPORT_HPP
#define CONCUR_BENCH_ASIO_SUPPORT_HPP

#include <asio.hpp>
#include <asio/experimental/as_tuple.hpp>

#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "../../measure.hpp"

namespace bench {

// An error is a value here, as exceptions at the end of a connection would be timed too.
using quiet_token = asio::experimental::as_tuple_t<asio::use_awaitable_t<>>;
using tcp_socket = quiet_token::as_default_on_t<asio::ip::tcp::socket>;
using tcp_acceptor = quiet_token::as_default_on_t<asio::ip::tcp::acceptor>;
using steady_timer = quiet_token::as_default_on_t<asio::steady_timer>;

template <class Body>
void start(asio::any_io_executor where, Body&& body) {
  asio::co_spawn(where, std::forward<Body>(body), asio::detached);
}

// One thread, until nothing is left to do. It may be run again.
class single_loop {
 public:
  asio::io_context& context() { return context_; }
  template <class Body>
  void go(Body&& body) {
    start(context_.get_executor(), std::forward<Body>(body));
  }
  void run() {
    context_.run();
    context_.restart();
  }

 private:
  asio::io_context context_{1};
};

inline void refuse_more_workers(const arguments& given, long most) {
  if (given.number("--workers", 1) <= most) return;
  std::fprintf(stderr, "runs on %ld worker at most\n", most);
  std::exit(2);
}

}  // namespace bench

#endif
