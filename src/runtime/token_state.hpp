// runtime/token_state.hpp - one word "it was cancelled", shared by handles, and those who want to hear of it.
//
// A scope ends with its block; a token handed to other code may be asked later, from any thread. So what a token asks lives
// by itself, as long as anybody holds it.
//
//   K1  It is cancelled once, and stays so. Who cancels it first calls the listeners, one by one, without the lock; they may
//       take locks of their own, but not wait.
//   K2  A listener is called at most once. When forget() returns, it is not being called, and will not be.
#ifndef CONCUR_RUNTIME_TOKEN_STATE_HPP
#define CONCUR_RUNTIME_TOKEN_STATE_HPP

#include "atomic/cas.hpp"
#include "atomic/spin_lock.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/intrusive.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct token_listener {
  explicit token_listener(void (*hear_in)(token_listener*) noexcept) noexcept : hear(hear_in) {}
  token_listener(const token_listener&) = delete;
  token_listener& operator=(const token_listener&) = delete;

  token_listener* next = nullptr;
  token_listener* prev = nullptr;
  void (*hear)(token_listener*) noexcept;
  atomic<bool> is_called{false};  // it was taken off the list, and the call is not over; written by who cancels
};

struct token_bridge {
  void (*free)(token_bridge*) noexcept;
};

class token_state {
 public:
  token_state() noexcept = default;
  token_state(const token_state&) = delete;
  token_state& operator=(const token_state&) = delete;

  void hold() noexcept { holders_.fetch_add(1, std::memory_order_relaxed); }  // relaxed: the caller holds it already
  void release() noexcept {
    // acq_rel: publishes what was done with it to who frees it, and sees what the others did.
    if (holders_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  bool is_cancelled() const noexcept {
    return is_cancelled_.load(std::memory_order_acquire);  // acquire: sees what was done before the cancellation
  }
  void cancel() noexcept;
  // False, and nothing is kept: it is cancelled already.
  bool listen(token_listener& who) noexcept;
  void forget(token_listener& who) noexcept;  // K2

  token_state* next_told = nullptr;   // of one cancellation's list (cancel.hpp)
  atomic<bool> is_told{false};  // it is, or was, in such a list
  // What ties it to a std::stop_token; made at most once (cancel_token.hpp).
  atomic<token_bridge*> bridge{nullptr};

 private:
  void call_listeners() noexcept;
  ~token_state() {
    // relaxed: the last holder is alone.
    if (token_bridge* const made = bridge.load(std::memory_order_relaxed)) made->free(made);
  }

  atomic<std::uint32_t> holders_{1};
  atomic<bool> is_cancelled_{false};
  spin_lock lock_;
  intrusive_list<token_listener> listeners_;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void token_state::cancel() noexcept {
  const auto one_more = [](std::uint32_t n) { return n != 0 ? std::optional<std::uint32_t>(n + 1) : std::nullopt; };
  // relaxed: who frees it pairs with the release below. Refused: it is being freed, and waits for us (cancel_token.hpp).
  if (!cas_update(holders_, one_more, std::memory_order_relaxed)) return;
  call_listeners();
  release();
}

CONCUR_INLINE void token_state::call_listeners() noexcept {
  for (;;) {
    token_listener* who = nullptr;
    {
      lock_scope<spin_lock> held(lock_);
      is_cancelled_.store(true, std::memory_order_release);  // release: pairs with is_cancelled
      who = listeners_.pop_front();
      if (who != nullptr) who->is_called.store(true, std::memory_order_relaxed);  // relaxed: under the lock
    }
    if (who == nullptr) return;
    if (CONCUR_MUTANT_IS(204)) {
      for (unsigned round = 0; round < 12;) spin_wait(round);
    }
    who->hear(who);
    who->is_called.store(false, std::memory_order_release);  // release: the last touch; pairs with forget
  }
}

CONCUR_INLINE bool token_state::listen(token_listener& who) noexcept {
  lock_scope<spin_lock> held(lock_);
  if (is_cancelled() && !CONCUR_MUTANT_IS(295)) return false;
  listeners_.push_back(&who);
  return true;
}

CONCUR_INLINE void token_state::forget(token_listener& who) noexcept {
  {
    lock_scope<spin_lock> held(lock_);
    if (intrusive_list<token_listener>::is_linked(&who)) listeners_.erase(&who);
  }
  // acquire: pairs with the end of the call.
  for (unsigned round = 0; who.is_called.load(std::memory_order_acquire) && !CONCUR_MUTANT_IS(204);) spin_wait(round);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
