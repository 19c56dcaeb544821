// bench/peers/asio/channel.cpp - n producers, n consumers, one channel; ns an item.
#include <asio/experimental/channel.hpp>

#include "support.hpp"

namespace {

using channel =
    bench::quiet_token::as_default_on_t<asio::experimental::channel<void(asio::error_code, long)>>;

asio::awaitable<void> consume(channel& items) {
  for (;;) {
    const auto [error, value] = co_await items.async_receive();
    if (error) co_return;
  }
}

// The last to end closes the channel; what it holds is received all the same.
asio::awaitable<void> produce(channel& items, long each, long& running) {
  for (long k = 0; k < each; ++k) co_await items.async_send(asio::error_code(), k);
  if (--running == 0) items.close();
}

void pass_on(bench::single_loop& loop, long capacity, long pairs, long each) {
  channel items(loop.context(), static_cast<std::size_t>(capacity));
  long running = pairs;
  for (long i = 0; i < pairs; ++i) {
    loop.go(consume(items));
    loop.go(produce(items, each, running));
  }
  loop.run();
}

asio::awaitable<void> send_and_receive(channel& items, long count) {
  for (long i = 0; i < count; ++i) {
    co_await items.async_send(asio::error_code(), i);
    co_await items.async_receive();
  }
}

void never_wait(bench::single_loop& loop, long count) {
  channel items(loop.context(), 128);
  loop.go(send_and_receive(items, count));
  loop.run();
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--pairs", "--capacity", "--never-wait"});
  bench::refuse_more_workers(arguments, 1);
  const long count = arguments.number("--count", 4000000);
  const long pairs = arguments.number("--pairs", 1);
  const long capacity = arguments.number("--capacity", 128);
  const long each = count / pairs;
  bench::single_loop loop;
  if (arguments.has("--never-wait")) {
    never_wait(loop, count / 10 + 1);
    const double ns = bench::elapsed_ns([&] { never_wait(loop, count); });
    bench::report("never_wait", ns / static_cast<double>(count), "ns");
    return 0;
  }
  pass_on(loop, capacity, pairs, each / 10 + 1);
  const double ns = bench::elapsed_ns([&] { pass_on(loop, capacity, pairs, each); });
  bench::report("item", ns / static_cast<double>(each * pairs), "ns");
}
