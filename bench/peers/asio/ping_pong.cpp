// bench/peers/asio/ping_pong.cpp - two coroutines, two unbuffered channels; ns for there and back.
#include <asio/experimental/channel.hpp>

#include "support.hpp"

namespace {

using channel =
    bench::quiet_token::as_default_on_t<asio::experimental::channel<void(asio::error_code, long)>>;

asio::awaitable<void> answer(channel& there, channel& back) {
  for (;;) {
    const auto [error, value] = co_await there.async_receive();
    if (error) co_return;
    co_await back.async_send(asio::error_code(), value + 1);
  }
}

asio::awaitable<void> ask(channel& there, channel& back, long count) {
  for (long i = 0; i < count; ++i) {
    co_await there.async_send(asio::error_code(), i);
    co_await back.async_receive();
  }
  there.close();
}

void round_trips(bench::single_loop& loop, long count) {
  channel there(loop.context(), 0), back(loop.context(), 0);
  loop.go(answer(there, back));
  loop.go(ask(there, back, count));
  loop.run();
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count"});
  bench::refuse_more_workers(arguments, 1);
  const long count = arguments.number("--count", 1000000);
  bench::single_loop loop;
  round_trips(loop, count / 10 + 1);
  bench::report("ping_pong", bench::elapsed_ns([&] { round_trips(loop, count); }) / static_cast<double>(count), "ns");
}
