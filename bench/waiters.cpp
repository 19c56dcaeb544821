// bench/waiters.cpp - n fibers wait in one queue, and are served one after another; ns a time.
//
// --side receivers: they wait in recv() of an unbuffered channel, and one fiber sends. senders: they wait in send(), and one
// fiber receives. After each item that one yields, so that whoever was served is back at the end of the queue before the next
// item: on one worker there are always n. mutex, semaphore: n + 1 take it, yield while they hold it, and let go, so that n wait
// meanwhile.
#include <atomic>
#include <string>
#include <vector>

#include "workers.hpp"

namespace {

template <class F>
void by_each(long fibers, F body) {
  std::vector<concur::future<void>> running;
  for (long i = 0; i < fibers; ++i) running.push_back(concur::go(body));
  for (auto& one : running) one.get();
}

void to_receivers(long waiters, long each) {
  concur::channel<long> items;
  long sent = 0;
  std::atomic<long> received{0};
  auto sender = concur::go([&] {
    for (; sent < waiters * each; ++sent) {
      items.send(sent);
      concur::this_fiber::yield();
    }
    items.close();
  });
  by_each(waiters, [&] {
    long mine = 0;
    while (items.recv()) ++mine;
    received += mine;
  });
  sender.get();
  bench::expect_sum("receivers", received.load(), sent);
}

void from_senders(long waiters, long each) {
  concur::channel<long> items;
  long sum = 0;
  auto receiver = concur::go([&] {
    for (long i = 0; i < waiters * each; ++i) {
      sum += *items.recv();
      concur::this_fiber::yield();
    }
  });
  by_each(waiters, [&items, each] {
    for (long k = 0; k < each; ++k) items.send(1);
  });
  receiver.get();
  bench::expect_sum("senders", sum, waiters * each);
}

template <class Enter, class Leave>
void one_by_one(const char* what, long waiters, long each, Enter enter, Leave leave) {
  long total = 0;
  by_each(waiters + 1, [&total, each, enter, leave] {
    for (long k = 0; k < each; ++k) {
      enter();
      ++total;
      concur::this_fiber::yield();
      leave();
    }
  });
  bench::expect_sum(what, total, (waiters + 1) * each);
}

void through_mutex(long waiters, long each) {
  concur::mutex lock;
  one_by_one("mutex", waiters, each, [&lock] { lock.lock(); }, [&lock] { lock.unlock(); });
}

void through_semaphore(long waiters, long each) {
  concur::binary_semaphore permits(1);
  one_by_one("semaphore", waiters, each, [&permits] { permits.acquire(); }, [&permits] { permits.release(); });
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--waiters", "--side"});
  const std::string side = arguments.text("--side", "receivers");
  const long waiters = arguments.number("--waiters", 100);
  const long fibers = side == "mutex" || side == "semaphore" ? waiters + 1 : waiters;
  const long each = arguments.number("--count", 1000000) / fibers;
  void (*const work)(long, long) = side == "receivers" ? &to_receivers
                                   : side == "senders" ? &from_senders
                                   : side == "mutex"   ? &through_mutex
                                                       : &through_semaphore;
  bench::with_workers(arguments.number("--workers", 1), [&] {
    work(waiters, each / 10 + 1);
    const double ns = bench::elapsed_ns([&] { work(waiters, each); });
    bench::report(side.c_str(), ns / static_cast<double>(fibers * each), "ns");
  });
}
