// channel/channel.hpp - the handle: values handed from one fiber or thread to another, in order, with a bound.
//
// A channel is copied like a pointer, and copies are the same channel, as in Go. A bound of 0 makes it a rendezvous;
// any other is how far the sender may run ahead. There is no unbounded one: a queue without a bound only hides that
// somebody is too slow.
//
//     operation      nil            open, can go               open, cannot go    closed
//     send           parks          passes the value on        parks              channel_closed, the value stays with the caller
//     recv           parks          takes the oldest           parks              what is buffered, then nothing
//     close          logic_error    wakes all who wait                            channel_closed
#ifndef CONCUR_CHANNEL_CHANNEL_HPP
#define CONCUR_CHANNEL_CHANNEL_HPP

#include <iterator>
#include <system_error>

#include "base/config.hpp"
#include "channel/channel_core.hpp"
#include "runtime/forms.hpp"

CONCUR_NAMESPACE_BEGIN

// What a timed operation came to. `cancelled` is said only by the forms that have a std::error_code for it.
enum class status : unsigned char { ok, closed, timeout, cancelled };

template <class T>
class channel;
template <class T>
class sender;
template <class T>
class receiver;

struct nil_t {
  explicit constexpr nil_t() = default;
};
// The channel on which nothing ever happens: sends and receives park until they are cancelled.
inline constexpr nil_t nil{};

namespace detail {

// What channel<T> and channel<void> share. Item is what is carried.
template <class Item>
class channel_handle {
 public:
  // Closes for good: parked receivers get nothing more, parked senders channel_closed. Throws channel_closed when it
  // is closed already, std::logic_error for a nil channel.
  void close() {
    if (core_ == nullptr)
      fail_logic("concur::channel::close: the channel is nil, so there is nothing to close; give it a channel first");
    if (!core_->close())
      fail_closed("concur::channel::close: the channel is closed already; where several may close it, use try_close()");
  }
  // The same without throwing: false when it was closed already, or is nil.
  bool try_close() noexcept { return core_ != nullptr && core_->close(); }

  bool closed() const noexcept { return core_ != nullptr && core_->is_closed_now(); }
  std::size_t size() const noexcept { return core_ != nullptr ? core_->size() : 0; }
  std::size_t capacity() const noexcept { return core_ != nullptr ? core_->bound() : 0; }
  // Whether two handles are the same channel.
  friend bool operator==(const channel_handle& a, const channel_handle& b) noexcept { return a.core_ == b.core_; }
  friend bool operator!=(const channel_handle& a, const channel_handle& b) noexcept { return a.core_ != b.core_; }

 protected:
  explicit channel_handle(std::size_t capacity) : core_(channel_core<Item>::make(capacity)) {
    if (core_ == nullptr)
      fail_argument("concur::channel", "capacity", std::to_string(capacity), "there is no memory for so many values");
  }
  explicit channel_handle(nil_t) noexcept {}
  channel_handle(const channel_handle& other) noexcept : core_(other.core_) {
    if (core_ != nullptr) core_->hold();
  }
  channel_handle(channel_handle&& other) noexcept : core_(std::exchange(other.core_, nullptr)) {}
  channel_handle& operator=(const channel_handle& other) noexcept {
    channel_core<Item>* before = core_;
    core_ = other.core_;
    if (core_ != nullptr) core_->hold();
    if (before != nullptr) before->release();
    return *this;
  }
  channel_handle& operator=(channel_handle&& other) noexcept {
    channel_handle taken(std::move(other));
    std::swap(core_, taken.core_);
    return *this;
  }
  ~channel_handle() {
    if (core_ != nullptr) core_->release();
  }

  template <class... Code>
  outcome send_item(Item& item, nanoseconds_t deadline_ns, Code&... code) const {
    if (CONCUR_UNLIKELY(core_ == nullptr)) return wait_on_nil(deadline_ns, code...);
    return core_->send(item, deadline_ns, code...);
  }
  template <class... Code>
  outcome receive_item(std::optional<Item>& slot, nanoseconds_t deadline_ns, Code&... code) const {
    if (CONCUR_UNLIKELY(core_ == nullptr)) return wait_on_nil(deadline_ns, code...);
    return core_->receive(slot, deadline_ns, code...);
  }
  void must_send(Item& item) const {
    if (CONCUR_LIKELY(send_item(item, never) == outcome::granted)) return;
    fail_closed("concur::channel::send: the channel is closed");
  }
  bool try_send_item(Item& item) const { return core_ != nullptr && core_->try_send(item) == outcome::granted; }
  bool try_receive_item(std::optional<Item>& slot) const {
    return core_ != nullptr && core_->try_receive(slot) == outcome::granted;
  }
  static status to_status(outcome result) noexcept {
    if (result == outcome::cancelled) return status::cancelled;
    if (result == outcome::closed) return status::closed;
    return result == outcome::granted ? status::ok : status::timeout;
  }

 private:
  friend struct channel_access;

  template <class... Code>
  static outcome wait_on_nil(nanoseconds_t deadline_ns, Code&... code) {
    return perform([=](worker* w) { return caller(w).park(nullptr, deadline_ns, wait_reason::channel_recv); }, code...);
  }

  channel_core<Item>* core_ = nullptr;
};

struct signal_item {};

// For the parts that see the core of a handle: select and tickers.
struct channel_access {
  template <class Item>
  static channel_core<Item>* core_of(const channel_handle<Item>& handle) noexcept {
    return handle.core_;
  }
  // What an end is an end of.
  template <class T>
  static const channel<T>& channel_of(const sender<T>& end) noexcept {
    return end;
  }
  template <class T>
  static const channel<T>& channel_of(const receiver<T>& end) noexcept {
    return end;
  }
};

}  // namespace detail

// All members may be called from any fiber and any thread at once (the handle itself, like any variable, is not to be
// assigned while another uses it). A send happens before the receive that gets its value; the k-th receive on a
// channel of capacity C happens before the (k+C)-th send completes; a close happens before the receive that sees it.
// T is moved under a lock: its move constructor must not park. The forms with a std::error_code say there that the caller
// was cancelled, and do not throw for it, nor for a closed channel.
template <class T>
class channel : public detail::channel_handle<T> {
  using base = detail::channel_handle<T>;

 public:
  using value_type = T;

  // capacity 0: a rendezvous, in which a send ends when a receive has taken the value.
  explicit channel(std::size_t capacity = 0) : base(capacity) {}
  channel(nil_t n) noexcept : base(n) {}

  // Parks while the channel is full. Throws channel_closed or `cancelled`, and then has not moved from the value.
  void send(T&& value) { this->must_send(value); }
  void send(const T& value) {
    T copy(value);
    this->must_send(copy);
  }
  // False: cancelled, which the code says, or closed. The value has not been moved from then.
  bool send(T&& value, std::error_code& error) {
    return this->send_item(value, detail::never, error) == detail::outcome::granted;
  }
  bool send(const T& value, std::error_code& error) {
    T copy(value);
    return send(std::move(copy), error);
  }
  // Never parks. False: full, closed or nil, and the value is untouched.
  bool try_send(T& value) { return this->try_send_item(value); }
  bool try_send(T&& value) { return try_send(value); }
  // Parks until the deadline at most; the value is untouched unless it says ok. Throws `cancelled`.
  template <class Rep, class Period>
  status send_for(T& value, std::chrono::duration<Rep, Period> d) {
    return base::to_status(this->send_item(value, detail::deadline_after(d)));
  }
  template <class Clock, class Duration>
  status send_until(T& value, const std::chrono::time_point<Clock, Duration>& tp) {
    return base::to_status(this->send_item(value, detail::deadline_at(tp)));
  }
  template <class Rep, class Period>
  status send_for(T& value, std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return base::to_status(this->send_item(value, detail::deadline_after(d), error));
  }
  template <class Clock, class Duration>
  status send_until(T& value, const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return base::to_status(this->send_item(value, detail::deadline_at(tp), error));
  }

  // Parks while the channel is empty. Nothing, once it is closed and drained. Throws `cancelled`, and then has taken
  // no value.
  std::optional<T> recv() {
    std::optional<T> slot;
    this->receive_item(slot, detail::never);
    return slot;
  }
  std::optional<T> recv(std::error_code& error) {
    std::optional<T> slot;
    this->receive_item(slot, detail::never, error);
    return slot;
  }
  // Never parks. Nothing: it is empty, closed or not.
  std::optional<T> try_recv() {
    std::optional<T> slot;
    this->try_receive_item(slot);
    return slot;
  }
  // Parks until the deadline at most, and assigns to `value` when it says ok. Throws `cancelled`.
  template <class Rep, class Period>
  status recv_for(T& value, std::chrono::duration<Rep, Period> d) {
    return recv_deadline(value, detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  status recv_until(T& value, const std::chrono::time_point<Clock, Duration>& tp) {
    return recv_deadline(value, detail::deadline_at(tp));
  }
  template <class Rep, class Period>
  status recv_for(T& value, std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return recv_deadline(value, detail::deadline_after(d), error);
  }
  template <class Clock, class Duration>
  status recv_until(T& value, const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return recv_deadline(value, detail::deadline_at(tp), error);
  }

  // For `for (T v : ch)`: receives until the channel is closed and drained. Dereferencing moves the value out.
  class iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = T;
    using difference_type = std::ptrdiff_t;
    using pointer = T*;
    using reference = T&&;

    iterator() noexcept = default;
    explicit iterator(channel* source) : source_(source) { ++*this; }
    T&& operator*() { return std::move(*slot_); }
    T* operator->() { return &*slot_; }
    iterator& operator++() {
      slot_.reset();
      if (source_->receive_item(slot_, detail::never) != detail::outcome::granted) source_ = nullptr;
      return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const iterator& a, const iterator& b) noexcept { return a.source_ == b.source_; }
    friend bool operator!=(const iterator& a, const iterator& b) noexcept { return a.source_ != b.source_; }

   private:
    channel* source_ = nullptr;
    std::optional<T> slot_;
  };
  iterator begin() { return iterator(this); }
  iterator end() noexcept { return iterator(); }

 private:
  template <class... Code>
  status recv_deadline(T& value, detail::nanoseconds_t deadline_ns, Code&... code) {
    std::optional<T> slot;
    const status result = base::to_status(this->receive_item(slot, deadline_ns, code...));
    if (slot) value = std::move(*slot);
    return result;
  }
};

// Signals: something happened, and nothing is carried.
template <>
class channel<void> : public detail::channel_handle<detail::signal_item> {
  using base = detail::channel_handle<detail::signal_item>;

 public:
  using value_type = void;

  explicit channel(std::size_t capacity = 0) : base(capacity) {}
  channel(nil_t n) noexcept : base(n) {}

  // As for values.
  void send() {
    detail::signal_item item;
    this->must_send(item);
  }
  bool send(std::error_code& error) { return send_deadline(detail::never, error) == status::ok; }
  bool try_send() {
    detail::signal_item item;
    return this->try_send_item(item);
  }
  template <class Rep, class Period>
  status send_for(std::chrono::duration<Rep, Period> d) {
    return send_deadline(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  status send_until(const std::chrono::time_point<Clock, Duration>& tp) {
    return send_deadline(detail::deadline_at(tp));
  }
  template <class Rep, class Period>
  status send_for(std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return send_deadline(detail::deadline_after(d), error);
  }
  template <class Clock, class Duration>
  status send_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return send_deadline(detail::deadline_at(tp), error);
  }
  // True: a signal came. False: closed and drained, or cancelled, which the code says.
  bool recv() { return recv_deadline(detail::never) == status::ok; }
  bool recv(std::error_code& error) { return recv_deadline(detail::never, error) == status::ok; }
  bool try_recv() {
    std::optional<detail::signal_item> slot;
    return this->try_receive_item(slot);
  }
  template <class Rep, class Period>
  status recv_for(std::chrono::duration<Rep, Period> d) {
    return recv_deadline(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  status recv_until(const std::chrono::time_point<Clock, Duration>& tp) {
    return recv_deadline(detail::deadline_at(tp));
  }
  template <class Rep, class Period>
  status recv_for(std::chrono::duration<Rep, Period> d, std::error_code& error) {
    return recv_deadline(detail::deadline_after(d), error);
  }
  template <class Clock, class Duration>
  status recv_until(const std::chrono::time_point<Clock, Duration>& tp, std::error_code& error) {
    return recv_deadline(detail::deadline_at(tp), error);
  }

 private:
  template <class... Code>
  status send_deadline(detail::nanoseconds_t deadline_ns, Code&... code) {
    detail::signal_item item;
    return base::to_status(this->send_item(item, deadline_ns, code...));
  }
  template <class... Code>
  status recv_deadline(detail::nanoseconds_t deadline_ns, Code&... code) {
    std::optional<detail::signal_item> slot;
    return base::to_status(this->receive_item(slot, deadline_ns, code...));
  }
};

CONCUR_NAMESPACE_END

#endif
