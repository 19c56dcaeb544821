// atomic/treiber_stack.hpp - last in, first out, for any number of threads, without a lock.
//
// A linked list whose head is swung by compare-exchange. What is hard about it is the pop: between reading the head A
// and its successor B and swinging the head from A to B, others may pop A, pop B and push A again. The exchange then
// succeeds, for A is the head, and makes B, which is gone, the head: the ABA problem. The cure is a tag beside the
// pointer that says which time around this is. Two pointers' worth of compare-exchange is not to be had everywhere, so
// the nodes stand in an array that is allocated once, and a number of as few bits as the capacity needs takes the
// pointer's place; the tag has the rest of the word.
//
//   X1  The word of a list is tag * 2^b + index, with b bits for the index: 0 for none, i for node i - 1. Capacities have
//       half the word's bits at most.
//   X2  Taking adds one to the tag, putting leaves it: a head that has been taken never comes back with its old tag. It
//       does after 2^(w - b) times, w being the bits of the word: a pop is misled when it is held up for just so many
//       others, or a multiple. A thousand nodes: 2^54 on 64-bit machines, which is years; 2^22 on 32-bit ones, about a
//       tenth of a second. Whoever cannot rule out a thread that stands still so long, and for so exact a number, should
//       take another structure there.
//   X3  Each node is in one of two such lists, free or filled, or belongs to the one thread that took it. `next` is read
//       by those who are about to find out that they have lost the node, therefore it is atomic; the value is not.
//   X4  A list's word is changed by read-modify-writes alone. So every one who reads a head with acquire sees what was
//       done by all who put the nodes below it there, not only the last: they form one release sequence.
//   X5  Memory stays until the stack goes: a `next` that is read too late is a wrong number, never a freed page.
//
// Rejected: hazard pointers (hazard_domain.hpp). They would give an unbounded stack, for a full fence in each pop and an
// allocation in each push. Whoever wants that builds it in twenty lines; a test of theirs does.
//
// Bounded. Progress: lock-free, each operation; a compare-exchange that fails means that another has succeeded. A push
// may find the stack full while a pop that has its value is about to return its node.
// Happens-before: what comes before a push comes before the pop, or take_all, that returns its value.
// Cost: two compare-exchanges for each push and each pop (35 ns on x86-64, alone); all contend for two words.
//
// Sources: Treiber, "Systems Programming: Coping with Parallelism", IBM RJ 5118 (1986); the tag is that of the IBM
// System/370 Principles of Operation, appendix A, "Free-Pool Manipulation".
#ifndef CONCUR_ATOMIC_TREIBER_STACK_HPP
#define CONCUR_ATOMIC_TREIBER_STACK_HPP

#include <new>
#include <optional>
#include <string>
#include <utility>

#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/error.hpp"

CONCUR_NAMESPACE_BEGIN

template <class T>
class treiber_stack {
 public:
  // Room for `capacity` values, allocated here and nowhere else. std::invalid_argument for 0, and for more than half the
  // bits of a pointer can count. Tests begin near the wrap of the tag (X2).
  explicit treiber_stack(std::size_t capacity, std::uintptr_t first_tag = 0)
      : capacity_(fit(capacity)), index_bits_(bits_for(capacity)), nodes_(new node[capacity]) {
    for (std::size_t i = 0; i + 1 < capacity; ++i) link(nodes_[i], static_cast<index>(i + 2));
    const std::uintptr_t tag = first_tag << index_bits_;
    filled_.store(tag, std::memory_order_relaxed);    // relaxed: whoever is given the stack sees it with that
    free_.store(tag | 1, std::memory_order_relaxed);  // relaxed: as above
  }
  treiber_stack(const treiber_stack&) = delete;
  treiber_stack& operator=(const treiber_stack&) = delete;
  // Destroys what is left. Nobody else is using the stack.
  ~treiber_stack() {
    take_all([](T&&) {});
    delete[] nodes_;
  }

  // False: the stack is full and the value untouched. What T's constructor throws passes, and nothing has happened.
  bool try_push(T&& value) { return try_emplace(std::move(value)); }
  bool try_push(const T& value) { return try_emplace(value); }
  template <class... A>
  bool try_emplace(A&&... arguments) {
    route mine(*this, take(free_, false), free_);
    if (mine.first == 0) return false;
    node& own = at(mine.first);
    detail::note_write(own.bytes, "a node of a treiber_stack");
    ::new (static_cast<void*>(own.bytes)) T(std::forward<A>(arguments)...);
    mine.to = &filled_;
    return true;
  }

  // The value that was pushed last; nothing when the stack is empty. When T's move constructor throws, that passes, and
  // the value, as the constructor left it, is on top again.
  std::optional<T> try_pop() {
    std::optional<T> result;
    route mine(*this, take(filled_, false), filled_);
    if (mine.first != 0) {
      node& own = at(mine.first);
      detail::note_write(own.bytes, "a node of a treiber_stack");
      result.emplace(std::move(*own.value()));
      own.value()->~T();
      mine.to = &free_;
    }
    return result;
  }

  // Empties the stack in one step, and calls use(T&&) for each value, the one pushed last first. Returns how many. Their
  // room is free when it returns. When `use` throws, its value is destroyed and those it has not seen are on the stack
  // again, in their order, above what has been pushed since.
  template <class F>
  std::size_t take_all(F&& use) {
    route rest(*this, take(filled_, true), filled_);
    route used(*this, 0, free_);
    std::size_t count = 0;
    rest.last = 0;
    for (; rest.first != 0; ++count) {
      const index own = rest.first;
      rest.first = next_of(at(own));
      link(at(own), used.first);
      used.first = own;
      if (used.last == 0) used.last = own;
      detail::note_write(at(own).bytes, "a node of a treiber_stack");
      const end_of_value at_last{*at(own).value()};
      use(std::move(at_last.value));
    }
    return count;
  }

  // Of the past when it is read.
  bool empty() const noexcept {
    return index_in(filled_.load(std::memory_order_relaxed)) == 0;  // relaxed: a hint
  }
  std::size_t capacity() const noexcept { return capacity_; }

 private:
  using index = std::uint32_t;
  using head = detail::atomic<std::uintptr_t>;

  struct node {
    detail::atomic<index> next{0};  // who has the node writes it; anybody may read it (X3)
    alignas(T) unsigned char bytes[sizeof(T)];

    T* value() noexcept { return std::launder(reinterpret_cast<T*>(bytes)); }
  };

  // Nodes of the calling thread's, which go to a list at the end of the block, also when an exception ends it.
  struct route {
    route(treiber_stack& whose, index one, head& where) noexcept : stack(whose), first(one), last(one), to(&where) {}
    route(const route&) = delete;
    route& operator=(const route&) = delete;
    ~route() {
      if (first != 0) stack.put(*to, first, last);
    }

    treiber_stack& stack;
    index first;  // 0: none
    index last;   // 0: to be found
    head* to;
  };
  struct end_of_value {
    T& value;
    ~end_of_value() { value.~T(); }
  };

  static constexpr unsigned word_bits = sizeof(std::uintptr_t) * 8;
  static unsigned bits_for(std::size_t capacity) noexcept {
    unsigned bits = 1;
    while (bits < word_bits && (capacity >> bits) != 0) ++bits;
    return bits;
  }
  static std::size_t fit(std::size_t capacity) {
    if (capacity == 0 || bits_for(capacity) > word_bits / 2) {
      detail::fail_argument("concur::treiber_stack", "capacity", std::to_string(capacity),
                            "at least 1, and no more than half the bits of a pointer can count");
    }
    return capacity;
  }

  node& at(index i) noexcept { return nodes_[i - 1]; }
  index index_in(std::uintptr_t word) const noexcept {
    return static_cast<index>(word & ((std::uintptr_t{1} << index_bits_) - 1));
  }
  // relaxed, both: published by put, and seen by who acquires the head in take; who has lost the node drops what it read.
  static index next_of(const node& one) noexcept { return one.next.load(std::memory_order_relaxed); }
  static void link(node& one, index to) noexcept { one.next.store(to, std::memory_order_relaxed); }

  // The first node, or all, linked; 0: there is none.
  index take(head& list, bool all) noexcept {
    CONCUR_PLANTED auto load_order = CONCUR_MUTANT_IS(341) ? std::memory_order_relaxed : std::memory_order_acquire;
    CONCUR_PLANTED auto failure_order = CONCUR_MUTANT_IS(342) ? std::memory_order_relaxed : std::memory_order_acquire;
    CONCUR_PLANTED std::uintptr_t step = CONCUR_MUTANT_IS(343) ? 0 : 1;
    std::uintptr_t word =
        list.load(load_order);  // acquire: pairs with put, for `next` of the node and for what it holds
    for (;;) {
      const index first = index_in(word);
      if (first == 0) return 0;
      const index rest = all ? 0 : next_of(at(first));
      const std::uintptr_t wanted = (((word >> index_bits_) + step) << index_bits_) | rest;
      // acquire on failure: as above, the new head is read next. On success the load has given all that is needed, for by
      // X2 it is the same put that is seen; acquire nevertheless, since libraries refuse a weaker one than that of failure.
      if (list.compare_exchange_strong(word, wanted, std::memory_order_acquire, failure_order)) return first;
    }
  }

  // Puts a chain of nodes before all others; last is 0 when the caller has not followed it, and then its end links to 0.
  void put(head& list, index first, index last) noexcept {
    for (index one = first; last == 0; one = next_of(at(one))) {
      if (next_of(at(one)) == 0) last = one;
    }
    std::uintptr_t word = list.load(std::memory_order_relaxed);  // relaxed: its node is not read
    CONCUR_PLANTED auto order = CONCUR_MUTANT_IS(340) ? std::memory_order_relaxed : std::memory_order_release;
    for (;;) {
      link(at(last), index_in(word));
      const std::uintptr_t wanted = ((word >> index_bits_) << index_bits_) | first;
      // release: publishes the links, and the value or its end. relaxed on failure: as the load above.
      if (list.compare_exchange_strong(word, wanted, order, std::memory_order_relaxed)) return;
    }
  }

  const std::size_t capacity_;
  const unsigned index_bits_;
  node* const nodes_;
  alignas(detail::cache_line_bytes) head filled_{0};
  alignas(detail::cache_line_bytes) head free_{0};
};

CONCUR_NAMESPACE_END

#endif
