// tests/support/threads.hpp - several plain threads that do the same, for what has nothing to do with fibers.
#ifndef CONCUR_TESTS_SUPPORT_THREADS_HPP
#define CONCUR_TESTS_SUPPORT_THREADS_HPP

#include <atomic>
#include <thread>
#include <vector>

namespace concur_test {

// Runs body(0) to body(count - 1), a thread each, and returns when all have ended. They begin together: a thread may take
// longer to start than its body to run.
template <class F>
void in_threads(int count, F body) {
  std::atomic<int> missing{count};
  std::vector<std::thread> all;
  for (int i = 0; i < count; ++i) {
    all.emplace_back([&, i] {
      missing.fetch_sub(1);
      while (missing.load() > 0) std::this_thread::yield();
      body(i);
    });
  }
  for (std::thread& one : all) one.join();
}

}  // namespace concur_test

using concur_test::in_threads;

#endif
