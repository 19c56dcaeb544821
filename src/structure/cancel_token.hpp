// structure/cancel_token.hpp - "was it cancelled?" as a handle, for code that knows nothing of scopes.
//
// Scopes reach fibers by themselves. A token is for the rest: a loop on a plain thread, a callback, a library that takes a
// std::stop_token. It can be copied and kept for as long as one likes.
//
//     cancel_source            somebody's button; its tokens are cancelled when it is pressed
//     this_fiber::token()      cancelled when the scope that the fiber is in is
//     std::stop_token          converts both ways where the compiler has it (C++20)
//
// And cancel_scope(token) makes a scope that is cancelled with the token: so other code's button reaches fibers.
#ifndef CONCUR_STRUCTURE_CANCEL_TOKEN_HPP
#define CONCUR_STRUCTURE_CANCEL_TOKEN_HPP

#include <utility>

#include "base/config.hpp"
#include "base/error.hpp"
#include "runtime/cancel.hpp"

#if __cplusplus >= 202002L && defined(__has_include)
#  if __has_include(<stop_token>)
#    include <stop_token>
#  endif
#endif
#if defined(__cpp_lib_jthread)
#  define CONCUR_HAS_STOP_TOKEN 1
#else
#  define CONCUR_HAS_STOP_TOKEN 0
#endif

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Holds a token_state, or nothing.
class token_handle {
 public:
  token_handle() noexcept = default;
  explicit token_handle(token_state* held) noexcept : state_(held) {}
  token_handle(const token_handle& other) noexcept : state_(other.state_) {
    if (state_ != nullptr) state_->hold();
  }
  token_handle(token_handle&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  token_handle& operator=(token_handle other) noexcept {
    std::swap(state_, other.state_);
    return *this;
  }
  ~token_handle() {
    if (state_ != nullptr) state_->release();
  }
  token_state* get() const noexcept { return state_; }

 private:
  token_state* state_ = nullptr;
};

// Throws std::bad_alloc for null.
CONCUR_INLINE token_state* must_have_token(token_state* made);
CONCUR_INLINE token_state* new_token_state();

}  // namespace detail

// Tells whether something was cancelled. A default-constructed one never is. All members may be called from any thread, and
// do not wait.
class cancel_token {
 public:
  cancel_token() noexcept = default;
  explicit cancel_token(detail::token_handle held) noexcept : handle_(std::move(held)) {}

  // What was done before the cancellation is seen by who sees it.
  bool cancelled() const noexcept { return handle_.get() != nullptr && handle_.get()->is_cancelled(); }
  // Throws concur::cancelled if it is. No parking operation, and none of its own fiber's business.
  void checkpoint() const {
    if (cancelled()) detail::fail_cancelled();
  }
  friend bool operator==(const cancel_token& a, const cancel_token& b) noexcept {
    return a.handle_.get() == b.handle_.get();
  }
  friend bool operator!=(const cancel_token& a, const cancel_token& b) noexcept { return !(a == b); }

#if CONCUR_HAS_STOP_TOKEN
  // Cancelled when a stop is requested. Throws std::bad_alloc.
  cancel_token(std::stop_token source);
  // A stop is requested when this is cancelled. Throws std::bad_alloc.
  operator std::stop_token() const;
#endif

  const detail::token_handle& handle() const noexcept { return handle_; }

 private:
  detail::token_handle handle_;
};

// Cancels its tokens. Copies are the same source.
class cancel_source {
 public:
  // Throws std::bad_alloc.
  cancel_source() : handle_(detail::new_token_state()) {}

  cancel_token token() const noexcept { return cancel_token(handle_); }
  // Once and for all; further calls do nothing. Scopes that were made of its tokens are cancelled before this returns, and
  // callbacks of stop_tokens have run, here. From any thread.
  void cancel() noexcept {
    if (handle_.get() != nullptr) handle_.get()->cancel();
  }
  bool cancelled() const noexcept { return handle_.get() != nullptr && handle_.get()->is_cancelled(); }

 private:
  detail::token_handle handle_;
};

namespace this_fiber {

// Cancelled when the scope is that the calling fiber is in now; it stays so when a later shield keeps the fiber from feeling
// it. On a plain thread one that is never cancelled. Throws std::bad_alloc.
CONCUR_INLINE cancel_token token();

}  // namespace this_fiber

#if CONCUR_HAS_STOP_TOKEN
namespace detail {

// Freed with its state. If a stop is being requested on another thread, freeing the callback waits for that.
struct bridge_from_stop {
  struct press {
    token_state* state;
    void operator()() const noexcept { state->cancel(); }
  };
  bridge_from_stop(const std::stop_token& source_in, token_state* state)
      : source(source_in), callback(source_in, press{state}) {}

  std::stop_token source;
  std::stop_callback<press> callback;
};

struct bridge_to_stop : token_listener {
  bridge_to_stop() : token_listener(&bridge_to_stop::request) {}
  static void request(token_listener* self) noexcept { static_cast<bridge_to_stop*>(self)->source.request_stop(); }

  std::stop_source source;
};

// What is behind a state's bridge pointer.
struct stop_bridge : token_bridge {
  stop_bridge() noexcept : token_bridge{&stop_bridge::free_this} {}
  bridge_to_stop* to = nullptr;
  bridge_from_stop* from = nullptr;
  ~stop_bridge() {
    delete from;
    delete to;
  }
  static void free_this(token_bridge* self) noexcept { delete static_cast<stop_bridge*>(self); }
};

inline std::stop_token stop_token_of(token_state& state) {
  stop_bridge* made = static_cast<stop_bridge*>(state.bridge.load(std::memory_order_acquire));  // acquire: as below
  if (made == nullptr) {
    stop_bridge* const fresh = new stop_bridge();
    fresh->to = new bridge_to_stop();
    token_bridge* before = nullptr;
    // acq_rel: publishes the fresh one, or acquires the one another thread made first.
    if (state.bridge.compare_exchange_strong(before, fresh, std::memory_order_acq_rel, std::memory_order_acquire)) {
      made = fresh;
      if (!state.listen(*made->to)) made->to->source.request_stop();
    } else {
      delete fresh;
      made = static_cast<stop_bridge*>(before);
    }
  }
  return made->to != nullptr ? made->to->source.get_token() : made->from->source;
}

}  // namespace detail

inline cancel_token::cancel_token(std::stop_token source) : handle_(detail::new_token_state()) {
  detail::token_state& state = *handle_.get();
  detail::stop_bridge* const bridge = new detail::stop_bridge();
  state.bridge.store(bridge, std::memory_order_relaxed);  // relaxed: nobody else has the state yet
  bridge->from = new detail::bridge_from_stop(source, &state);
}

inline cancel_token::operator std::stop_token() const {
  return handle_.get() != nullptr ? detail::stop_token_of(*handle_.get()) : std::stop_token();
}
#endif

CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <new>

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE token_state* must_have_token(token_state* made) {
  if (made == nullptr) raise(std::bad_alloc(), "concur::cancel_token: no memory for a token");
  return made;
}

CONCUR_INLINE token_state* new_token_state() { return must_have_token(new (std::nothrow) token_state()); }

}  // namespace detail

namespace this_fiber {

CONCUR_INLINE cancel_token token() {
  detail::worker* const w = detail::this_worker();
  if (w == nullptr || w->current == nullptr) return cancel_token();
  return cancel_token(detail::token_handle(detail::must_have_token(detail::token_of(*w->current->innermost()))));
}

}  // namespace this_fiber
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
