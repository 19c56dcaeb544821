// channel/channel_ends.hpp - the two ends of a channel, for who should have only one.
//
// A function that takes a sender<T> says that it only sends, and the compiler holds it to that. Ends are made from a
// channel by themselves, are copied as cheaply, and are the same channel. The sending end closes; the receiving one
// cannot.
#ifndef CONCUR_CHANNEL_CHANNEL_ENDS_HPP
#define CONCUR_CHANNEL_CHANNEL_ENDS_HPP

#include "base/config.hpp"
#include "channel/channel.hpp"

CONCUR_NAMESPACE_BEGIN

// Members: see channel.
template <class T>
class sender : private channel<T> {
 public:
  using typename channel<T>::value_type;

  sender(const channel<T>& ch) noexcept : channel<T>(ch) {}
  sender(channel<T>&& ch) noexcept : channel<T>(std::move(ch)) {}
  sender(nil_t n) noexcept : channel<T>(n) {}

  using channel<T>::send;
  using channel<T>::try_send;
  using channel<T>::send_for;
  using channel<T>::send_until;
  using channel<T>::close;
  using channel<T>::try_close;
  using channel<T>::closed;
  using channel<T>::size;
  using channel<T>::capacity;

  friend bool operator==(const sender& a, const sender& b) noexcept { return a.as_channel() == b.as_channel(); }
  friend bool operator!=(const sender& a, const sender& b) noexcept { return a.as_channel() != b.as_channel(); }

 private:
  friend struct detail::channel_access;
  const channel<T>& as_channel() const noexcept { return *this; }
};

template <class T>
class receiver : private channel<T> {
 public:
  using typename channel<T>::value_type;

  receiver(const channel<T>& ch) noexcept : channel<T>(ch) {}
  receiver(channel<T>&& ch) noexcept : channel<T>(std::move(ch)) {}
  receiver(nil_t n) noexcept : channel<T>(n) {}

  using channel<T>::recv;
  using channel<T>::try_recv;
  using channel<T>::recv_for;
  using channel<T>::recv_until;
  using channel<T>::closed;
  using channel<T>::size;
  using channel<T>::capacity;
  // for (T v : end), except for signals.
  auto begin() { return as_channel().begin(); }
  auto end() noexcept { return as_channel().end(); }

  friend bool operator==(const receiver& a, const receiver& b) noexcept { return a.as_channel() == b.as_channel(); }
  friend bool operator!=(const receiver& a, const receiver& b) noexcept { return a.as_channel() != b.as_channel(); }

 private:
  friend struct detail::channel_access;
  channel<T>& as_channel() noexcept { return *this; }
  const channel<T>& as_channel() const noexcept { return *this; }
};

template <class T>
sender(channel<T>) -> sender<T>;
template <class T>
receiver(channel<T>) -> receiver<T>;

CONCUR_NAMESPACE_END

#endif
