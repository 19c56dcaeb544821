// bench/peers/boost_fiber/workers.hpp - Boost.Fiber on n threads, as its own examples set it up.
//
// One thread: round_robin, the default and the fastest there. More: work_stealing on each. All threads must have registered
// before any looks for a victim, hence the barrier; the others then sleep in a fiber condition variable, and steal meanwhile.
#ifndef CONCUR_BENCH_BOOST_FIBER_WORKERS_HPP
#define CONCUR_BENCH_BOOST_FIBER_WORKERS_HPP

#include <atomic>
#include <boost/fiber/all.hpp>
#include <mutex>
#include <thread>
#include <vector>

namespace bench {

template <class F>
void with_workers(unsigned workers, F&& body) {
  if (workers <= 1) {
    boost::fibers::use_scheduling_algorithm<boost::fibers::algo::round_robin>();
    body();
    return;
  }
  std::atomic<unsigned> registered{0};
  const auto enroll = [&] {
    boost::fibers::use_scheduling_algorithm<boost::fibers::algo::work_stealing>(workers);
    ++registered;
    while (registered.load() != workers) std::this_thread::yield();
  };
  boost::fibers::mutex lock;
  boost::fibers::condition_variable ended;
  bool is_over = false;
  std::vector<std::thread> others;
  for (unsigned i = 1; i < workers; ++i) {
    others.emplace_back([&] {
      enroll();
      std::unique_lock<boost::fibers::mutex> held(lock);
      ended.wait(held, [&] { return is_over; });
    });
  }
  enroll();
  body();
  {
    std::unique_lock<boost::fibers::mutex> held(lock);
    is_over = true;
  }
  ended.notify_all();
  for (std::thread& other : others) other.join();
}

}  // namespace bench

#endif
