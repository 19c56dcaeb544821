// observe/explored_thread.hpp - a plain thread that an exploration can play.
//
// Much of what a concurrent program does wrong it does between plain threads: a lock-free queue, a callback from a
// library's own thread. std::thread starts a real one, which no exploration sees. This one is an ordinary thread in an
// ordinary run, and one that the exploration plays within explore(). So code that is written with it is tested by the one
// and shipped with the other.
#ifndef CONCUR_OBSERVE_EXPLORED_THREAD_HPP
#define CONCUR_OBSERVE_EXPLORED_THREAD_HPP

#include <memory>
#include <type_traits>
#include <utility>

#include "base/config.hpp"
#include "base/driver.hpp"
#include "base/error.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Starts a thread: the driver's or the system's. Throws when there is none to be had.
CONCUR_INLINE void* start_plain_thread(void (*body)(void*), void* argument);
CONCUR_INLINE void join_plain_thread(void* handle) noexcept;
// Calls f(argument). Within explore() an exception fails the schedule; otherwise it passes.
CONCUR_INLINE void call_reported(void (*f)(void*), void* argument);

}  // namespace detail

class explored_thread {
 public:
  explored_thread() noexcept = default;
  // Runs f() on a new thread. An exception that leaves f ends the program, as with std::thread; within explore() it fails
  // the schedule. Throws std::system_error when there is no thread to be had.
  template <class F, class = std::enable_if_t<!std::is_same<std::decay_t<F>, explored_thread>::value>>
  explicit explored_thread(F&& f) {
    using closure = std::decay_t<F>;
    auto owned = std::make_unique<closure>(std::forward<F>(f));
    handle_ = detail::start_plain_thread(
        [](void* raw) {
          const std::unique_ptr<closure> mine(static_cast<closure*>(raw));
          detail::call_reported([](void* f_raw) { (*static_cast<closure*>(f_raw))(); }, raw);
        },
        owned.get());
    static_cast<void>(owned.release());
  }
  explored_thread(explored_thread&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  explored_thread& operator=(explored_thread&& other) noexcept {
    join();
    handle_ = std::exchange(other.handle_, nullptr);
    return *this;
  }
  ~explored_thread() { join(); }

  // Returns when f has; what f did happens before that. Does nothing the second time.
  void join() noexcept {
    if (handle_ != nullptr) detail::join_plain_thread(std::exchange(handle_, nullptr));
  }

 private:
  void* handle_ = nullptr;
};

// Fails the schedule that is being explored, with this text, unless it holds; outside of explore() ends the program
// (set_on_fatal). From any fiber or thread.
CONCUR_INLINE void explore_expect(bool holds, const char* what);

CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <cerrno>
#  include <exception>
#  include <new>
#  include <pthread.h>

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct plain_thread {
  void* driven = nullptr;
  pthread_t real{};
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
};

CONCUR_INLINE void* start_plain_thread(void (*body)(void*), void* argument) {
  auto thread = std::make_unique<plain_thread>();
  int error = 0;
  if (driver* d = driver_or_null()) {
    thread->driven = d->start_thread(body, argument, "thread");
    if (thread->driven == nullptr) error = EAGAIN;
  } else {
    thread->body = body;
    thread->argument = argument;
    using entry = void* (*)(void*);
    const entry run = [](void* raw) -> void* {
      const plain_thread* self = static_cast<plain_thread*>(raw);
      self->body(self->argument);
      return nullptr;
    };
    error = pthread_create(&thread->real, nullptr, run, thread.get());
  }
  if (error != 0) fail_system(error, "concur::explored_thread: could not start a thread");
  return thread.release();
}

CONCUR_INLINE void join_plain_thread(void* handle) noexcept {
  const std::unique_ptr<plain_thread> thread(static_cast<plain_thread*>(handle));
  if (thread->driven != nullptr) {
    if (driver* d = driver_or_null()) d->join_thread(thread->driven);
  } else {
    pthread_join(thread->real, nullptr);
  }
}

CONCUR_INLINE void call_reported(void (*f)(void*), void* argument) {
#  if CONCUR_EXCEPTIONS
  driver* const d = driver_or_null();
  if (d == nullptr) return f(argument);
  try {
    f(argument);
  } catch (const std::exception& error) {
    d->expect(false, error.what());
  } catch (...) {
    d->expect(false, "a thread ended by an exception that is no std::exception");
  }
#  else
  f(argument);
#  endif
}

}  // namespace detail

CONCUR_INLINE void explore_expect(bool holds, const char* what) {
  if (holds) return;
  if (detail::driver* d = detail::driver_or_null())
    d->expect(false, what);
  else
    on_fatal(what);
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
