// atomic/hazard_pointer.hpp - the reader's side of hazard_domain: one pointer that is safe to follow.
//
//     concur::hazard_pointer mine(domain);
//     if (node* first = mine.protect(head)) use(first->value);   // nobody frees it before mine lets go
//
// Rules and source are those of hazard_domain.hpp (Z1 to Z5).
#ifndef CONCUR_ATOMIC_HAZARD_POINTER_HPP
#define CONCUR_ATOMIC_HAZARD_POINTER_HPP

#include <utility>

#include "atomic/hazard_domain.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"

CONCUR_NAMESPACE_BEGIN

// One slot of a domain: keeps one object at a time from being freed. Movable. Used by one thread at a time.
class hazard_pointer {
 public:
  // std::bad_alloc when all slots are taken and there is no memory for another. Making one costs more than protecting
  // with it: keep it for a loop.
  explicit hazard_pointer(hazard_domain& domain) : slot_(domain.take_slot()) {}
  hazard_pointer(hazard_pointer&& other) noexcept : slot_(std::exchange(other.slot_, nullptr)) {}
  hazard_pointer& operator=(hazard_pointer&& other) noexcept {
    std::swap(slot_, other.slot_);
    return *this;
  }
  ~hazard_pointer() {
    if (slot_ == nullptr) return;
    reset();
    // release: the next owner's first store comes after our last one. No model finds it: a word's stores take place in
    // the order in which they are made, there. The language promises that only along happens-before.
    slot_->is_taken.store(0, std::memory_order_release);
  }

  // Returns what `source`, a std::atomic<T*>, points to, null or an object that is not freed before this protects
  // something else, is reset or is gone. The stores before the one that put the pointer into `source`, if that was a
  // release store, happen before the return.
  template <template <class...> class Atomic, class T>
  T* protect(const Atomic<T*>& source) noexcept {
    T* seen = source.load(std::memory_order_relaxed);  // relaxed: a guess, which try_protect looks at again
    while (!try_protect(seen, source)) {
    }
    return seen;
  }
  // One attempt to protect `seen`. False: `source` points to something else, which is in `seen` now, and nothing is
  // protected that could be used.
  template <template <class...> class Atomic, class T>
  bool try_protect(T*& seen, const Atomic<T*>& source) noexcept {
    T* const announced = seen;
    announce(announced);
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(332) ? std::memory_order_relaxed : std::memory_order_acquire;
    // acquire: pairs with whoever published the object. Where `seen` was read before, the fence has done so already; but the
    // same address may have been freed, used again and published again since.
    seen = source.load(order);
    return seen == announced;
  }
  // Protects `object`, if it can still be found after this call where it was found before: the caller looks again, as
  // try_protect does. For pointers that are kept in words with something beside them.
  template <class T>
  void announce(const T* object) noexcept {
    // release: the use of what was protected before ends before a scan finds it gone.
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(330) ? std::memory_order_relaxed : std::memory_order_release;
    slot_->named.store(object, order);
    CONCUR_PLANTED auto fence_order = CONCUR_MUTANT_IS(331) ? std::memory_order_acq_rel : std::memory_order_seq_cst;
    // seq_cst: Z1, the reader's side. Anything weaker lets the look at the source pass the store.
    detail::thread_fence(fence_order);
  }
  void reset() noexcept {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(333) ? std::memory_order_relaxed : std::memory_order_release;
    slot_->named.store(nullptr, order);  // release: as in announce
  }

 private:
  hazard_domain::slot* slot_;  // null: moved from, and good for nothing but being assigned to
};

CONCUR_NAMESPACE_END

#endif
