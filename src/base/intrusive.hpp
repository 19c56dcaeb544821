// base/intrusive.hpp - lists whose links the caller owns.
//
// What waits, waits on somebody's stack; what is ready, has its own block. Neither may need memory to be put in a
// queue, for a queue that can fail to take a fiber would lose it. So the links live in the things, and a list is two
// pointers.
//
//   L1  A thing is in one list at a time, and a list never owns what it links.
//   L2  No list locks: whoever owns the list owns the moment.
#ifndef CONCUR_BASE_INTRUSIVE_HPP
#define CONCUR_BASE_INTRUSIVE_HPP

#include "base/config.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// First in, first out, through T::next. Push and pop take the same few instructions whatever the length.
template <class T>
class intrusive_queue {
 public:
  bool is_empty() const noexcept { return head_ == nullptr; }
  T* front() const noexcept { return head_; }

  void push(T* item) noexcept {
    item->next = nullptr;
    if (head_ == nullptr)
      head_ = item;
    else
      tail_->next = item;
    tail_ = item;
  }

  T* pop() noexcept {
    T* item = head_;
    if (item != nullptr) head_ = item->next;
    return item;
  }

  // Those before `rest`, which is in here, are gone; null: all. Saves whoever walks along a store for each.
  void drop_until(T* rest) noexcept { head_ = rest; }

  // The chain from `first` to `last`, linked already, before what is here.
  void push_front(T* first, T* last) noexcept {
    if (head_ == nullptr) tail_ = last;
    last->next = head_;
    head_ = first;
  }

  // Everything of `other`, behind what is here. `other` is empty afterwards.
  void append(intrusive_queue& other) noexcept {
    if (other.head_ == nullptr) return;
    if (head_ == nullptr)
      head_ = other.head_;
    else
      tail_->next = other.head_;
    tail_ = other.tail_;
    other.head_ = nullptr;
  }

 private:
  T* head_ = nullptr;
  T* tail_ = nullptr;  // means nothing while head_ is null
};

// A ring of links: leaving from the middle costs what leaving from the front does. T has `T* next`, `T* prev`, and is
// linked exactly while next is not null.
template <class T>
class intrusive_list {
 public:
  bool is_empty() const noexcept { return head_ == nullptr; }
  T* front() const noexcept { return head_; }
  static bool is_linked(const T* item) noexcept { return item->next != nullptr; }

  void push_back(T* item) noexcept {
    if (head_ == nullptr) {
      item->next = item->prev = item;
      head_ = item;
      return;
    }
    item->next = head_;
    item->prev = head_->prev;
    head_->prev->next = item;
    head_->prev = item;
  }

  void push_front(T* item) noexcept {
    push_back(item);
    head_ = item;
  }

  void erase(T* item) noexcept {
    if (item->next == item) {
      head_ = nullptr;
    } else {
      item->prev->next = item->next;
      item->next->prev = item->prev;
      if (head_ == item) head_ = item->next;
    }
    item->next = item->prev = nullptr;
  }

  T* pop_front() noexcept {
    T* item = head_;
    if (item != nullptr) erase(item);
    return item;
  }

 private:
  T* head_ = nullptr;  // the ring's first; its prev is the last
};

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
