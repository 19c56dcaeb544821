// channel/channel_case.hpp - sending and receiving as cases of a select.
//
// A case does what channel<T>::send and recv do, in the two halves a select needs: a step under the lock, and a note that
// a peer may claim. What it sends stays with the caller until the case has won; what it received is handed to the user's
// function when all locks are gone.
#ifndef CONCUR_CHANNEL_CHANNEL_CASE_HPP
#define CONCUR_CHANNEL_CHANNEL_CASE_HPP

#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "base/config.hpp"
#include "channel/channel_ends.hpp"
#include "channel/select.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// A case of one channel; its core is borrowed from the handle, until the case owns.
template <class Item>
class channel_case : public select_case {
 protected:
  channel_case(channel_core<Item>* core, const case_traits& kind_in, bool sends) noexcept
      : select_case(kind_in), core_(core) {
    if (core_ == nullptr) return;
    channel_state& of_core = core_->state();
    set_site_lock(of_core.lock);
    queue = sends ? &of_core.senders : &of_core.receivers;
    is_sending = sends;
    if (sends || !tick_source<Item>::is_possible) state = &of_core;
  }
  channel_case(channel_case&& other) noexcept : select_case(other), core_(other.core_) {
    is_owner_ = std::exchange(other.is_owner_, false);
  }
  ~channel_case() override {
    if (is_owner_) core_->release();
  }

  void own() override {
    if (core_ == nullptr) return;
    core_->hold();
    is_owner_ = true;
  }

  channel_core<Item>* core_;

 private:
  bool is_owner_ = false;
};

template <class Item, class F>
class recv_case final : public channel_case<Item> {
  // The one type that F is asked about: a function with an auto parameter is compiled for whatever is asked.
  using received = std::conditional_t<std::is_same<Item, signal_item>::value, bool, std::optional<Item>>;
  static_assert(std::disjunction<std::is_invocable<F&, received>, std::is_invocable<F&>>::value,
                "select: the function of recv takes a std::optional<T>, for channel<void> a bool, or nothing");

 public:
  static constexpr case_traits traits{false, false, tick_source<Item>::is_possible, false};

  recv_case(channel_core<Item>* core, F&& handler)
      : channel_case<Item>(core, traits, false), handler_(std::move(handler)) {
    this->note.value = &slot_;
  }
  recv_case(recv_case&& other) : channel_case<Item>(std::move(other)), handler_(std::move(other.handler_)) {
    this->note.value = &slot_;
  }

  bool is_ready(nanoseconds_t) noexcept override { return this->core_ != nullptr && this->core_->can_receive_tick(); }
  attempt take(served_party& served) override {
    const attempt result = this->core_->receive_step(slot_, served);
    return result == attempt::closed ? attempt::done : result;
  }
  nanoseconds_t deadline_ns() const noexcept override {
    return this->core_ != nullptr ? this->core_->next_tick_ns() : never;
  }

  void run() override {
    std::optional<Item> item(std::move(slot_));
    slot_.reset();
    if constexpr (!std::is_invocable<F&, received>::value)
      handler_();
    else if constexpr (std::is_same<received, bool>::value)
      handler_(item.has_value());
    else
      handler_(std::move(item));
  }

 private:
  std::optional<Item> slot_;
  F handler_;
};

// The value is lent by the caller, who moved it into the call, or kept here.
template <class Item, class F>
class send_case final : public channel_case<Item> {
  static_assert(std::is_invocable<F&>::value, "select: the function of send takes nothing");

 public:
  static constexpr case_traits traits{false, false, false, true};

  send_case(channel_core<Item>* core, Item* lent, F&& handler)
      : channel_case<Item>(core, traits, true), value_(lent), handler_(std::move(handler)) {
    this->note.value = value_;
  }
  template <class V>
  send_case(channel_core<Item>* core, std::in_place_t, V&& value, F&& handler)
      : channel_case<Item>(core, traits, true),
        kept_(std::in_place, std::forward<V>(value)),
        handler_(std::move(handler)) {
    this->note.value = value_ = &*kept_;
  }
  send_case(send_case&& other)
      : channel_case<Item>(std::move(other)),
        kept_(std::move(other.kept_)),
        value_(kept_ ? &*kept_ : other.value_),
        handler_(std::move(other.handler_)) {
    this->note.value = value_;
  }

  bool is_ready(nanoseconds_t) noexcept override { return false; }
  attempt take(served_party& served) override {
    const attempt result = this->core_->send_step(*value_, served);
    is_closed_ = result == attempt::closed;
    return is_closed_ ? attempt::done : result;
  }
  bool end(outcome result) override {
    is_closed_ = result == outcome::closed;
    return true;
  }

  void run() override {
    if (CONCUR_UNLIKELY(is_closed_)) fail_closed("concur::select: the case that sends: the channel is closed");
    handler_();
  }
  bool is_spent() const noexcept override { return !is_closed_; }
  void own() override {
    channel_case<Item>::own();
    if (kept_) return;
    kept_.emplace(std::move(*value_));
    this->note.value = value_ = &*kept_;
  }

 private:
  std::optional<Item> kept_;
  Item* value_ = nullptr;
  F handler_;
  bool is_closed_ = false;
};

}  // namespace detail

// Receives. f(std::optional<T>), which is empty once the channel is closed and drained; or f(). For signals f(bool), false
// once it is closed.
template <class T, class F>
auto recv(const channel<T>& ch, F&& f) {
  using item = std::conditional_t<std::is_void<T>::value, detail::signal_item, T>;
  return detail::recv_case<item, std::decay_t<F>>(detail::channel_access::core_of(ch),
                                                  std::decay_t<F>(std::forward<F>(f)));
}
template <class T, class F>
auto recv(const receiver<T>& end, F&& f) {
  return recv(detail::channel_access::channel_of(end), std::forward<F>(f));
}

// Sends. What is moved into the call, and is a T, is moved from only if the case wins: it must be there until then, as must
// the channel. Anything else, and a few plain bytes, is first copied, or converted, to a T. f().
template <class T, class V, class F>
auto send(const channel<T>& ch, V&& value, F&& f) {
  static_assert(std::is_constructible<T, V&&>::value, "select: the value cannot be made what the channel carries");
  using made = detail::send_case<T, std::decay_t<F>>;
  constexpr bool is_cheap = std::is_trivially_copyable<T>::value && sizeof(T) <= 2 * sizeof(void*);
  if constexpr (std::is_same<V, T>::value && !is_cheap)
    return made(detail::channel_access::core_of(ch), std::addressof(value), std::decay_t<F>(std::forward<F>(f)));
  else
    return made(detail::channel_access::core_of(ch), std::in_place, std::forward<V>(value),
                std::decay_t<F>(std::forward<F>(f)));
}
template <class T, class V, class F>
auto send(const sender<T>& end, V&& value, F&& f) {
  return send(detail::channel_access::channel_of(end), std::forward<V>(value), std::forward<F>(f));
}
template <class F>
auto send(const channel<void>& ch, F&& f) {
  using made = detail::send_case<detail::signal_item, std::decay_t<F>>;
  return made(detail::channel_access::core_of(ch), std::in_place, detail::signal_item(),
              std::decay_t<F>(std::forward<F>(f)));
}
template <class F>
auto send(const sender<void>& end, F&& f) {
  return send(detail::channel_access::channel_of(end), std::forward<F>(f));
}

CONCUR_NAMESPACE_END

#endif
