// worker_pool.cpp - many jobs, a few workers, fewer connections, and an error that is not lost.
//
//     g++ -std=c++17 -O2 -pthread -I. examples/worker_pool.cpp -o worker_pool
//
// The bounded channel holds back whoever makes jobs faster than they are done. The pool lends out two connections, first
// come, first served; a lease gives its connection back, or discards it when it is broken. What a job throws goes to
// its promise, and comes out of the future of the one who asked.
//
// Output:
//     page 1: 10 bytes
//     page 2: 20 bytes
//     page 3: cannot fetch page 3
//     page 4: 40 bytes
//     page 5: 50 bytes
//     page 6: 60 bytes
//     never more than 2 connections at once
//     every worker has left, and every connection is back
#include "concur.hpp"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

struct job {
  int page;
  concur::promise<int> bytes;
};

// Something that is dear to open, and of which the other side allows only a few.
struct connection {
  int fetch(int page) {
    concur::this_fiber::yield();  // where a real one waits for its peer, and the others go on
    if (page == 3) throw std::runtime_error("cannot fetch page " + std::to_string(page));
    return page * 10;
  }
};

struct most_at_once {
  void enter() {
    std::lock_guard<concur::mutex> hold(mutex);
    most = (std::max)(most, ++now);
  }
  void leave() {
    std::lock_guard<concur::mutex> hold(mutex);
    --now;
  }
  concur::mutex mutex;
  int now = 0;
  int most = 0;
};

void work(concur::receiver<job> jobs, concur::resource_pool<connection>& pool, most_at_once& seen) {
  for (job next : jobs) {
    auto held = pool.acquire();
    seen.enter();
    try {
      const int bytes = held->fetch(next.page);
      seen.leave();
      next.bytes.set_value(bytes);
    } catch (const std::exception&) {
      seen.leave();
      held.discard();  // who knows what state it is in; the next lease opens a fresh one
      next.bytes.set_exception(std::current_exception());
    }
  }
}

int main() {
  concur::run([] {
    constexpr int pages = 6;
    concur::channel<job> jobs(2);
    concur::resource_pool<connection> pool(2, [] { return connection(); });
    most_at_once seen;

    concur::wait_group workers;
    for (int i = 0; i < 4; ++i) {
      workers.add();
      concur::go([&, jobs] {
        work(jobs, pool, seen);
        workers.done();
      });
    }
    std::vector<concur::future<int>> sizes;
    for (int page = 1; page <= pages; ++page) {
      job next{page, {}};
      sizes.push_back(next.bytes.get_future());
      jobs.send(std::move(next));
    }
    jobs.close();  // the workers finish what is in it, then leave

    for (int page = 1; page <= pages; ++page) {
      try {
        std::printf("page %d: %d bytes\n", page, sizes[static_cast<std::size_t>(page - 1)].get());
      } catch (const std::runtime_error& error) {
        std::printf("page %d: %s\n", page, error.what());
      }
    }
    workers.wait();
    if (seen.most <= 2) std::puts("never more than 2 connections at once");
    if (pool.idle() == pool.size()) std::puts("every worker has left, and every connection is back");
  });
}
