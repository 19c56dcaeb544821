// atomic/hazard_domain.hpp - when may memory be freed that other threads may still be reading?
//
// Who unlinks a node from a lock-free structure cannot free it: another thread may have read the pointer a moment ago.
// So a reader announces the pointer in a slot that all can see, looks whether the structure still says the same, and
// only then follows it. What was unlinked is retired, and freed when no slot names it.
//
//     reader                              whoever removes
//     slot = p                            unlink p
//     fence                               push p on the retired list; sometimes take that list, and then
//     source still p ? use it : again     fence
//                                         some slot == p ? keep it : free it
//
//   Z1  The two fences: the reader sees that p was unlinked, or the remover sees the slot. Both may; never neither.
//   Z2  An object is retired once, after the last pointer to it that a reader could find is gone.
//   Z3  A slot belongs to a hazard_pointer, not to a thread: a fiber may hold one over a switch and go on elsewhere.
//       Slots are kept until the domain goes; `next` of a slot never changes once others can see it.
//   Z4  The retired list is only pushed on, and taken whole: neither can mistake a pointer for an earlier one. Who took
//       it owns the objects in it.
//   Z5  Garbage is bounded. With H slots, a scan begins when R = 2H + 32 objects wait, and R later for each scan that is
//       under way, so that a deleter that retires does not scan inside a scan again and again. One that retires alone
//       therefore leaves R objects at most, and P at the same time 2(P + 1)^2 R, wherever any of them is stopped: a
//       scan keeps H at most, and has as many in its hands as the list can hold. H is the number of hazard_pointers
//       there were at once.
//
// Rejected: epochs. They cost a reader less, but a reader that is stopped, or a fiber that parks, inside an epoch holds
// up everything that is retired after it, without bound; and they want to know the threads, which here come and go.
// Rejected: a fence on the reader's side that costs nothing because the remover's is a system call. It would double the
// speed of protect on x86, but needs an operating system, and this file runs wherever there are atomics.
//
// Progress: try_protect, reset and giving a slot back are wait-free. protect repeats only when another thread has
// changed the source, retire only when another has pushed: lock-free. A scan takes steps in the number of objects and
// slots. Making a hazard_pointer walks the slots, and allocates when all are taken; nothing else does.
//
// Cost: protect is a store, a full fence and two loads (12 ns on x86-64); retire one compare-exchange, one fetch_add, and
// its share of a scan, which looks at each slot once and each object twice (50 ns in all).
//
// Source: Michael, "Hazard Pointers: Safe Memory Reclamation for Lock-Free Objects", IEEE TPDS 15(6), 2004, section 3.
// There the retired list is a thread's; here it is shared, since nothing is a thread's. The names are near those of
// <hazard_pointer> in C++26.
#ifndef CONCUR_ATOMIC_HAZARD_DOMAIN_HPP
#define CONCUR_ATOMIC_HAZARD_DOMAIN_HPP

#include <new>
#include <type_traits>
#include <utility>

#include "atomic/word.hpp"
#include "base/config.hpp"

CONCUR_NAMESPACE_BEGIN

// The base of what can be retired: room for the list, and for what is to be done in the end. Three words; a copy of an
// object is another object and copies none of it.
class hazard_object {
 public:
  hazard_object() noexcept {
    detail::note_birth(this);
    detail::note_birth(&reclaim_);
  }
  hazard_object(const hazard_object&) noexcept : hazard_object() {}
  hazard_object& operator=(const hazard_object&) noexcept { return *this; }

 protected:
  ~hazard_object() = default;

 private:
  friend class hazard_domain;
  // For what is written while readers may still be in the object, but no two that retire; its beginning stands for the
  // rest of it.
  void note_list() noexcept { detail::note_write(&reclaim_, "the list of retired objects"); }

  hazard_object* next_retired_ = nullptr;
  void (*reclaim_)(hazard_object*) = nullptr;
  alignas(void*) unsigned char deleter_[sizeof(void*)] = {};
};

// What is read, and retired, through one domain. A structure may have its own, or several may share one.
class hazard_domain {
 public:
  hazard_domain() noexcept = default;
  hazard_domain(const hazard_domain&) = delete;
  hazard_domain& operator=(const hazard_domain&) = delete;
  // Frees what is retired. No hazard_pointer of this domain is left, and nobody retires.
  ~hazard_domain();

  // Frees the object, now or later, on this thread or on another that retires, once nobody has it protected. What the
  // caller did to the object before happens before it is freed, and so does what each reader did until it let go of it.
  // T derives from hazard_object, not virtually. Allocates nothing.
  template <class T>
  void retire(T* object) noexcept {
    retire(object, [](T* what) { delete what; });
  }
  // The same, with deleter(object) instead of delete. A deleter is trivially copyable and no larger than a pointer: a
  // lambda that captures one. It may not throw, and may retire other objects of this domain, which are not freed inside it.
  template <class T, class Deleter>
  void retire(T* object, Deleter deleter) noexcept {
    static_assert(std::is_base_of<hazard_object, T>::value, "what is retired derives from concur::hazard_object");
    static_assert(std::is_trivially_copyable<Deleter>::value && sizeof(Deleter) <= sizeof(void*) &&
                      alignof(Deleter) <= alignof(void*),
                  "a deleter is kept in one word of the object: let it capture one pointer at most");
    hazard_object* const retired = object;
    retired->note_list();
    ::new (static_cast<void*>(retired->deleter_)) Deleter(deleter);
    retired->reclaim_ = [](hazard_object* what) {
      Deleter kept(*std::launder(reinterpret_cast<Deleter*>(what->deleter_)));
      kept(static_cast<T*>(what));
    };
    add(retired);
  }

  // Frees at once what nobody has protected. There is no need to call it, but before a measurement, or in a quiet time.
  void reclaim() noexcept;

  // H of Z5, and how many objects wait in the list; both are of the past when they are read.
  std::size_t slot_count() const noexcept {
    return slot_count_.load(std::memory_order_relaxed);  // relaxed: a hint
  }
  std::size_t retired_count() const noexcept {
    return retired_count_.load(std::memory_order_relaxed);  // relaxed: a hint
  }

 private:
  friend class hazard_pointer;

  struct alignas(detail::cache_line_bytes) slot {
    detail::atomic<const hazard_object*> named{nullptr};  // what may not be freed; written by who has the slot
    detail::atomic<std::uint32_t> is_taken{1};            // 0, 1; 0 -> 1 by who takes it
    slot* next = nullptr;
  };
  class buckets;

  slot* first_slot() const noexcept {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(339) ? std::memory_order_relaxed : std::memory_order_acquire;
    return slots_.load(order);  // acquire: pairs with the push in take_slot
  }
  static slot* next_slot(const slot* one) noexcept {
    detail::note_read(&one->next, "a hazard slot");
    return one->next;
  }
  slot* take_slot();
  void add(hazard_object* object) noexcept;
  void push(hazard_object* first, hazard_object* last) noexcept;
  bool is_scan_due() const noexcept;

  alignas(detail::cache_line_bytes) detail::atomic<slot*> slots_{nullptr};  // all, the newest first
  detail::atomic<std::size_t> slot_count_{0};
  alignas(detail::cache_line_bytes) detail::atomic<hazard_object*> retired_{nullptr};  // the list of Z4
  detail::atomic<std::size_t> retired_count_{0};  // no less than the list is long: added to before, taken from after
  detail::atomic<std::size_t> scans_{0};          // under way
};

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN

// Retired objects by address, so that those that a slot names are found without looking at all.
class hazard_domain::buckets {
 public:
  void add(hazard_object* object) noexcept {
    hazard_object*& first = lists_[place(object)];
    object->next_retired_ = first;
    first = object;
  }
  // The object, if it was here; now it is not.
  hazard_object* remove(const hazard_object* wanted) noexcept {
    for (hazard_object** at = &lists_[place(wanted)]; *at != nullptr; at = &(*at)->next_retired_) {
      if (*at == wanted) return std::exchange(*at, (*at)->next_retired_);
    }
    return nullptr;
  }
  void reclaim_all() noexcept {
    for (hazard_object*& list : lists_) {
      while (list != nullptr) {
        hazard_object* const object = std::exchange(list, list->next_retired_);
        detail::note_write(object, "an object that is freed");
        object->reclaim_(object);
      }
    }
  }

 private:
  static constexpr std::size_t count = 64;
  static std::size_t place(const hazard_object* object) noexcept {
    const std::uintptr_t bits = reinterpret_cast<std::uintptr_t>(object) / alignof(std::max_align_t);
    return (bits ^ (bits / count)) % count;
  }

  hazard_object* lists_[count] = {};
};

CONCUR_INLINE hazard_domain::~hazard_domain() {
  // Deleters may retire more.
  while (retired_.load(std::memory_order_relaxed) != nullptr) reclaim();  // relaxed: nobody else is here
  slot* next = slots_.load(std::memory_order_relaxed);                    // relaxed: as above
  while (next != nullptr) delete std::exchange(next, next->next);
}

CONCUR_INLINE hazard_domain::slot* hazard_domain::take_slot() {
  for (slot* one = first_slot(); one != nullptr; one = next_slot(one)) {
    // relaxed: only a look. acquire: pairs with giving it back, and see there.
    if (one->is_taken.load(std::memory_order_relaxed) == 0 && one->is_taken.exchange(1, std::memory_order_acquire) == 0)
      return one;
  }
  slot* const made = new slot;
  detail::note_birth(&made->next);
  slot_count_.fetch_add(1, std::memory_order_relaxed);  // relaxed: only how many objects may wait depends on it
  slot* head = slots_.load(std::memory_order_relaxed);  // relaxed: not followed
  CONCUR_PLANTED auto push_order = CONCUR_MUTANT_IS(338) ? std::memory_order_relaxed : std::memory_order_release;
  do {
    made->next = head;
    detail::note_write(&made->next, "a hazard slot");
    // release: publishes the slot. relaxed on failure: the head is not followed.
  } while (!slots_.compare_exchange_strong(head, made, push_order, std::memory_order_relaxed));
  return made;
}

CONCUR_INLINE bool hazard_domain::is_scan_due() const noexcept {
  const std::size_t batch = 2 * slot_count() + 32;
  // relaxed: one scan too many or too late is harmless; who adds sees its own addition.
  return retired_count() >= batch * (1 + scans_.load(std::memory_order_relaxed));
}

CONCUR_INLINE void hazard_domain::add(hazard_object* object) noexcept {
  retired_count_.fetch_add(1, std::memory_order_relaxed);  // relaxed: orders nothing
  push(object, object);
  if (is_scan_due()) reclaim();
}

CONCUR_INLINE void hazard_domain::push(hazard_object* first, hazard_object* last) noexcept {
  hazard_object* head = retired_.load(std::memory_order_relaxed);  // relaxed: not followed
  CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(334) ? std::memory_order_relaxed : std::memory_order_release;
  do {
    last->next_retired_ = head;
    // release: publishes the links, and all that was done to the objects. relaxed on failure: the head is not followed.
  } while (!retired_.compare_exchange_strong(head, first, order, std::memory_order_relaxed));
}

CONCUR_INLINE void hazard_domain::reclaim() noexcept {
  scans_.fetch_add(1, std::memory_order_relaxed);  // relaxed: orders nothing
  // acquire: pairs with push. The fence below would do, but ThreadSanitizer does not see fences.
  CONCUR_PLANTED auto take_order = CONCUR_MUTANT_IS(335) ? std::memory_order_relaxed : std::memory_order_acquire;
  hazard_object* list = retired_.exchange(nullptr, take_order);
  CONCUR_PLANTED auto fence_order = CONCUR_MUTANT_IS(336) ? std::memory_order_acq_rel : std::memory_order_seq_cst;
  // seq_cst: Z1, the remover's side. What is in the list was unlinked before it was pushed, by whatever thread.
  detail::thread_fence(fence_order);
  buckets taken;
  std::size_t count = 0;
  for (; list != nullptr; ++count) {
    list->note_list();
    taken.add(std::exchange(list, list->next_retired_));
  }
  hazard_object* kept = nullptr;
  hazard_object* last_kept = nullptr;
  // A slot that is not in the list yet has its fence behind ours (Z1).
  for (slot* one = first_slot(); one != nullptr; one = next_slot(one)) {
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(337) ? std::memory_order_relaxed : std::memory_order_acquire;
    const hazard_object* const wanted = one->named.load(order);  // acquire: pairs with announce and reset
    hazard_object* const found = wanted == nullptr ? nullptr : taken.remove(wanted);
    if (found == nullptr) continue;
    found->next_retired_ = kept;
    kept = found;
    if (last_kept == nullptr) last_kept = found;
    --count;
  }
  retired_count_.fetch_sub(count, std::memory_order_relaxed);  // relaxed: orders nothing
  if (kept != nullptr) push(kept, last_kept);
  taken.reclaim_all();
  scans_.fetch_sub(1, std::memory_order_relaxed);  // relaxed: orders nothing
}

CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
