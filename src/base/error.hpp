// base/error.hpp - the only place that throws, and the words it throws with.
//
// Inside, errors are values: an errno, a status, a bool. Here they become exceptions, or, in a program built without
// exceptions, a call of `on_fatal`, which the program may replace. Every message says what was being done, to what,
// and what to try. Three kinds leave this file:
//
//     what went wrong                 type                     example
//     the caller's argument           std::invalid_argument    options.stack_size is 100: ...
//     the caller's order of calls     std::logic_error         unlock of a mutex that this fiber does not hold
//     the outside world               std::system_error        accept on 127.0.0.1:80: Too many open files
//
// `cancelled` is no error: it is how a fiber that is no longer wanted comes home through its destructors. It does not
// derive from std::exception, so that a handler for errors does not take it for one.
#ifndef CONCUR_BASE_ERROR_HPP
#define CONCUR_BASE_ERROR_HPP

#include <exception>
#include <stdexcept>
#include <string>
#include <system_error>

#include "base/config.hpp"

CONCUR_NAMESPACE_BEGIN

// Thrown by every parking operation, and by this_fiber::checkpoint, inside a scope that was cancelled. It is thrown
// again and again until the scope is left: swallowing it gains nothing. Let it pass.
class cancelled {
 public:
  const char* what() const noexcept { return "the fiber was cancelled"; }
};

// A send on a closed channel, or a second close.
class channel_closed : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// A deadline of the caller's own passed.
class timed_out : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Every fiber is parked and nothing outside can wake one.
class deadlock : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// What is called, with a full sentence, where an error has no other way out: built without exceptions, or inside a
// function that may not throw. The default writes the sentence to stderr and aborts. A replacement may log first, and
// must not return.
using fatal_handler = void (*)(const char* message);

// Sets the handler, and returns the one that was set before. nullptr sets the default again. Safe from any thread.
CONCUR_INLINE fatal_handler set_on_fatal(fatal_handler handler) noexcept;
[[noreturn]] CONCUR_INLINE void on_fatal(const char* message) noexcept;

namespace detail {

[[noreturn]] CONCUR_INLINE void fail_logic(const std::string& what);
[[noreturn]] CONCUR_INLINE void fail_closed(const char* what);
// Inlined: of what a cancelled fiber costs, most is the unwinding, and that goes by frames, each twice.
[[noreturn]] CONCUR_FORCE_INLINE void fail_cancelled() {
#if CONCUR_EXCEPTIONS
  throw cancelled();
#else
  on_fatal("a cancelled fiber parked, and exceptions are off");
#endif
}
[[noreturn]] CONCUR_INLINE void fail_timed_out(const char* what);

// "what: argument is value: advice", for a value that cannot be meant.
[[noreturn]] CONCUR_INLINE void fail_argument(const char* what, const char* argument, const std::string& value,
                                              const char* advice);

// "what: the system's text for `error`".
[[noreturn]] CONCUR_INLINE void fail_system(int error, const std::string& what);
[[noreturn]] CONCUR_INLINE void fail_code(std::error_code code, const std::string& what);

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <atomic>
#  include <cstdio>
#  include <cstdlib>

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void default_on_fatal(const char* message) {
  std::fputs("concur: ", stderr);
  std::fputs(message, stderr);
  std::fputs("\n", stderr);
}

// std::atomic: set once by the program; also in a class so early that the driver is not known.
CONCUR_INLINE std::atomic<fatal_handler>& fatal_handler_cell() noexcept {
  static std::atomic<fatal_handler> cell{nullptr};  // std::atomic: as above; constant-initialised: no guard, no destructor
  return cell;
}

}  // namespace detail

CONCUR_INLINE fatal_handler set_on_fatal(fatal_handler handler) noexcept {
  // acq_rel: publishes what the handler needs, and sees what the one before it was set up with.
  return detail::fatal_handler_cell().exchange(handler, std::memory_order_acq_rel);
}

CONCUR_INLINE void on_fatal(const char* message) noexcept {
  // acquire: pairs with the exchange in set_on_fatal.
  const fatal_handler handler = detail::fatal_handler_cell().load(std::memory_order_acquire);
  if (handler != nullptr)
    handler(message);
  else
    detail::default_on_fatal(message);
  std::abort();
}

namespace detail {

#  if CONCUR_EXCEPTIONS
template <class Error>
[[noreturn]] void raise(const Error& error, const char*) {
  throw error;
}
#  else
template <class Error>
[[noreturn]] void raise(const Error&, const char* message) {
  on_fatal(message);
}
#  endif

CONCUR_INLINE void fail_logic(const std::string& what) { raise(std::logic_error(what), what.c_str()); }
CONCUR_INLINE void fail_closed(const char* what) { raise(channel_closed(what), what); }
CONCUR_INLINE void fail_timed_out(const char* what) { raise(timed_out(what), what); }

CONCUR_INLINE void fail_argument(const char* what, const char* argument, const std::string& value, const char* advice) {
  const std::string text = std::string(what) + ": " + argument + " is " + value + ": " + advice;
  raise(std::invalid_argument(text), text.c_str());
}

CONCUR_INLINE void fail_code(std::error_code code, const std::string& what) {
  const std::string text = what + ": " + code.message();
  raise(std::system_error(code, what), text.c_str());
}

CONCUR_INLINE void fail_system(int error, const std::string& what) {
  fail_code(std::error_code(error, std::system_category()), what);
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES
#endif
