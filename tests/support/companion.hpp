// tests/support/companion.hpp - somebody on the other side: a fiber or a plain thread that runs beside the test.
//
// Most cells of a primitive's table need a second party that waits, or comes while the first one waits. A companion is
// that party, as a fiber of the caller's runtime or as a thread. wait_until_parked() replaces the sleep that such
// tests are usually built on: it returns when the companion is really in its wait.
//
//   everywhere(body)   runs body(kind) as a fiber with 1, 2 and 4 workers and on a plain thread, with companions of
//   both kinds.
#ifndef CONCUR_TESTS_SUPPORT_COMPANION_HPP
#define CONCUR_TESTS_SUPPORT_COMPANION_HPP

#include <atomic>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#if defined(__linux__)
#  include <sys/syscall.h>
#  include <unistd.h>
#endif

#include "support/test.hpp"

namespace concur_test {

enum class kind { fiber, thread };

inline bool is_on_fiber() { return static_cast<bool>(concur::this_fiber::get_id()); }

inline long thread_number() {
#if defined(__linux__)
  return static_cast<long>(::syscall(SYS_gettid));
#else
  return 1;
#endif
}

// Whether the kernel has that thread of ours asleep.
inline bool is_thread_asleep([[maybe_unused]] long number) {
#if defined(__linux__)
  char state = 'R';
  const std::string path = "/proc/self/task/" + std::to_string(number) + "/stat";
  if (std::FILE* file = std::fopen(path.c_str(), "re")) {
    if (std::fscanf(file, "%*d (%*[^)]) %c", &state) != 1) state = 'R';
    std::fclose(file);
  }
  return state == 'S';
#else
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  return true;
#endif
}

class companion {
 public:
  template <class F>
  companion(kind which, F body)
      : companion(erased{}, which, [kept = std::make_shared<F>(std::move(body))] { (*kept)(); }) {}
  companion(companion&&) = default;
  companion& operator=(companion&&) = delete;
  ~companion() { wait_for_end(); }

  bool has_ended() const { return shared_->has_ended.load(); }

  // False: it ended instead.
  bool wait_until_parked() const {
    for (;;) {
      if (shared_->number.load() != 0) {
        if (concur::detail::fiber* f = shared_->block.load()) {
          if (has_ended()) return false;
          if (f->state.load() == concur::detail::fiber_state::parked) return true;
        } else {
          if (has_ended()) return false;
          if (is_thread_asleep(shared_->number.load())) return !has_ended();
        }
      }
      concur::this_fiber::yield();
    }
  }

  // Returns when it has ended, and rethrows what it threw.
  void join() {
    wait_for_end();
    if (std::exception_ptr error = std::exchange(shared_->error, nullptr)) std::rethrow_exception(error);
  }

 private:
  struct erased {};
  struct state {
    std::atomic<concur::detail::fiber*> block{nullptr};
    std::atomic<long> number{0};
    std::atomic<bool> has_ended{false};
    std::exception_ptr error;
    concur::channel<void> end;
  };

  // One instantiation for all bodies: fibers and threads of every closure of a test would take long to compile.
  companion(erased, kind which, std::function<void()> body) : shared_(std::make_shared<state>()) {
    auto work = [shared = shared_, body = std::move(body)]() mutable {
      concur::detail::worker* w = concur::detail::this_worker();
      shared->block.store(w != nullptr ? w->current : nullptr);
      shared->number.store(thread_number());
      try {
        body();
      } catch (...) {
        shared->error = std::current_exception();
      }
      body = nullptr;
      shared->has_ended.store(true);
      shared->end.close();
    };
    if (which == kind::fiber && is_on_fiber())
      concur::go(std::move(work));
    else
      thread_ = std::thread(std::move(work));
  }

  void wait_for_end() {
    if (shared_ == nullptr) return;
    try {
      shared_->end.recv();
    } catch (const concur::cancelled&) {
    }
    if (thread_.joinable()) thread_.join();
  }

  std::shared_ptr<state> shared_;
  std::thread thread_;
};

inline void everywhere(const std::function<void(kind)>& body) {
  for (const kind which : {kind::fiber, kind::thread}) {
    for (const unsigned workers : {1U, 2U, 4U}) {
      CAPTURE(workers);
      concur::run(with_workers(workers), [&] { body(which); });
    }
  }
  body(kind::thread);
}

}  // namespace concur_test

using concur_test::companion;
using concur_test::everywhere;
using concur_test::kind;

#endif
