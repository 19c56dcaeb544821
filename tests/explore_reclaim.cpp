// explore_reclaim.cpp - reclamation, stack and deque under every schedule of two or three threads with at most so many
// interruptions, on a memory that shows old values where the orders permit it.
//
// Each program is small: two or three operations a thread. That is enough for what goes wrong in such structures, and few
// enough to see all. Where a rule is taken out, the search must find it: in structures that are written here without it, and
// by the mutants of src/.
#if !defined(CONCUR_EXPLORE)
#  define CONCUR_EXPLORE
#endif
#include "support/test.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <utility>

namespace {

using concur::explore_expect;
using concur::explored_thread;
using concur::detail::note_read;
using concur::detail::note_write;

template <class F>
concur::explore_report search(F f, unsigned interruptions) {
  concur::explore_options wanted;
  wanted.workers = 0;
  wanted.weak_memory = true;
  wanted.strategy = concur::exhaustive(interruptions);
  wanted.schedules = 3000000;
  wanted.shrink = 0;
  return concur::try_explore(f, wanted);
}

// Every schedule was seen, and nothing was wrong in any. Under a sanitizer one interruption less, for the sake of time.
template <class F>
void holds(F f, unsigned interruptions = 4) {
  const concur::explore_report report = search(f, interruptions - (CONCUR_ASAN || CONCUR_TSAN ? 1 : 0));
  CAPTURE(report.what);
  CAPTURE(report.seed);
  CHECK(report.ok);
  CHECK(report.is_complete);
  MESSAGE(report.schedules, " schedules, ", report.steps, " steps");
}

template <class F>
void fails(F f, unsigned interruptions = 4) {
  const concur::explore_report report = search(f, interruptions);
  CHECK_FALSE(report.ok);
  MESSAGE("found after ", report.schedules, " schedules: ", report.what);
}

// What went in and what came out. One thread plays all, so plain numbers do.
class account {
 public:
  void out(int value) {
    explore_expect(value > 0 && value < most, "a value that was never put in");
    explore_expect(++times_[static_cast<std::size_t>(value)] == 1, "a value came out twice");
    ++count_;
  }
  void expect_all(int values) const { explore_expect(count_ == values, "a value was lost"); }

 private:
  static constexpr int most = 10;
  std::array<int, most> times_{};
  int count_ = 0;
};

// --- the stack ---

using stack = concur::treiber_stack<int>;
constexpr std::uintptr_t last_tag = ~std::uintptr_t{0};

void pop_into(stack& s, account& seen) {
  if (const auto got = s.try_pop()) seen.out(*got);
}
void drain_into(stack& s, account& seen, int values) {
  s.take_all([&](int&& value) { seen.out(value); });
  seen.expect_all(values);
}

}  // namespace

TEST_CASE("stack: two push, two pop") {
  const nothing_left_over guard;
  holds([] {
    stack s(2, last_tag);
    account seen;
    explored_thread pushing([&] {
      explore_expect(s.try_push(1), "no room where there was some");
      explore_expect(s.try_push(2), "no room where there was some");
    });
    explored_thread popping([&] {
      pop_into(s, seen);
      pop_into(s, seen);
    });
    pushing.join();
    popping.join();
    drain_into(s, seen, 2);
  });
}

TEST_CASE("stack: a node that was popped and pushed again is not taken for the one that was there") {
  const nothing_left_over guard;
  holds(
      [] {
        stack s(2, last_tag);
        account seen;
        s.try_push(1);
        s.try_push(2);
        explored_thread slow([&] { pop_into(s, seen); });
        explored_thread again([&] {
          if (const auto got = s.try_pop()) {
            if (!s.try_push(*got)) seen.out(*got);
          }
        });
        explored_thread other([&] { pop_into(s, seen); });
        slow.join();
        again.join();
        other.join();
        drain_into(s, seen, 2);
      },
      2);
}

TEST_CASE("stack: it is emptied while others push and pop") {
  const nothing_left_over guard;
  holds(
      [] {
        stack s(3, last_tag);
        account seen;
        s.try_push(1);
        explored_thread pushing([&] { s.try_push(2); });
        explored_thread taking([&] { s.take_all([&](int&& value) { seen.out(value); }); });
        explored_thread popping([&] { pop_into(s, seen); });
        pushing.join();
        taking.join();
        popping.join();
        drain_into(s, seen, 2);
      },
      3);
}

TEST_CASE("stack: a full one has room again for who saw a pop") {
  const nothing_left_over guard;
  holds([] {
    stack s(1);
    account seen;
    s.try_push(1);
    explored_thread popping([&] { pop_into(s, seen); });
    int pushed = 1;
    explored_thread pushing([&] {
      if (s.try_push(2)) ++pushed;
    });
    popping.join();
    pushing.join();
    drain_into(s, seen, pushed);
  });
}

// --- the deque ---

namespace {

using deque = concur::work_stealing_deque<int>;
constexpr std::size_t last_index = ~std::size_t{0};

void own_pop(deque& d, account& seen) {
  if (const auto got = d.try_pop()) seen.out(*got);
}
void steal_into(deque& d, account& seen) {
  const auto got = d.try_steal();
  if (got) seen.out(got.value);
}
void drain_into(deque& d, account& seen, int values) {
  while (const auto got = d.try_pop()) seen.out(*got);
  seen.expect_all(values);
}

}  // namespace

TEST_CASE("deque: owner and thief at the last element") {
  const nothing_left_over guard;
  holds(
      [] {
        deque d(2, last_index);
        account seen;
        explored_thread thief([&] {
          steal_into(d, seen);
          steal_into(d, seen);
        });
        d.try_push(1);
        own_pop(d, seen);
        d.try_push(2);
        own_pop(d, seen);
        thief.join();
        drain_into(d, seen, 2);
      },
      5);
}

TEST_CASE("deque: owner and thief at the last two elements") {
  const nothing_left_over guard;
  holds(
      [] {
        deque d(2, last_index);
        account seen;
        explored_thread thief([&] {
          steal_into(d, seen);
          steal_into(d, seen);
        });
        d.try_push(1);
        d.try_push(2);
        own_pop(d, seen);
        own_pop(d, seen);
        thief.join();
        drain_into(d, seen, 2);
      },
      5);
}

TEST_CASE("deque: two thieves and the owner") {
  const nothing_left_over guard;
  holds([] {
    deque d(2, last_index);
    account seen;
    d.try_push(1);
    d.try_push(2);
    explored_thread first([&] { steal_into(d, seen); });
    explored_thread second([&] { steal_into(d, seen); });
    own_pop(d, seen);
    first.join();
    second.join();
    drain_into(d, seen, 2);
  });
}

TEST_CASE("deque: a slot is used again while a thief reads it") {
  const nothing_left_over guard;
  holds([] {
    deque d(1, last_index);
    account seen;
    int pushed = 0;
    explored_thread first([&] { steal_into(d, seen); });
    explored_thread second([&] { steal_into(d, seen); });
    for (int value = 1; value <= 3; ++value) {
      if (d.try_push(value)) ++pushed;
    }
    first.join();
    second.join();
    drain_into(d, seen, pushed);
    explore_expect(pushed >= 1, "no room in an empty deque");
  });
}

TEST_CASE("deque: a steal is lost only to somebody who got it") {
  const nothing_left_over guard;
  holds([] {
    deque d(4);
    d.try_push(1);
    int got = 0;
    explored_thread thief([&] {
      if (d.try_steal()) ++got;
    });
    if (d.try_pop()) ++got;
    thief.join();
    explore_expect(got == 1, "one element, not taken by one");
  });
}

TEST_CASE("deque: who gets an element sees what was written before it went in, also after a pop above it") {
  const nothing_left_over guard;
  struct job {
    int value = 0;
  };
  holds([] {
    job first;
    job second;
    concur::work_stealing_deque<job*> d(2, last_index);
    account seen;
    const auto fill = [](job& one, int value) {
      note_write(&one, "a job");
      one.value = value;
    };
    const auto use = [&](job& one) {
      note_read(&one, "a job");
      seen.out(one.value);
    };
    explored_thread thief([&] {
      if (const auto got = d.try_steal()) use(*got.value);
    });
    fill(first, 1);
    d.try_push(&first);
    fill(second, 2);
    d.try_push(&second);
    if (const auto got = d.try_pop()) use(**got);
    thief.join();
    while (const auto got = d.try_pop()) use(**got);
    seen.expect_all(2);
  });
}

// --- the deque as it was printed ---

namespace {

// Chase-Lev with a ring that grows, after the figure in the paper of 2013: the larger ring is published by a relaxed store.
// With is_published it is a release store, which is the correction.
template <bool is_published>
class growing_deque {
 public:
  growing_deque() : ring_(&small_) {}

  void push(int element) {
    const std::size_t bottom = bottom_.load(std::memory_order_relaxed);
    const std::size_t top = top_.load(std::memory_order_acquire);
    ring* in = ring_.load(std::memory_order_relaxed);
    if (bottom - top > in->mask) {
      large_.emplace(3U);
      for (std::size_t i = top; i != bottom; ++i)
        large_->at(i).store(in->at(i).load(std::memory_order_relaxed), std::memory_order_relaxed);
      in = &*large_;
      ring_.store(in, is_published ? std::memory_order_release : std::memory_order_relaxed);
    }
    in->at(bottom).store(element, std::memory_order_relaxed);
    concur::detail::thread_fence(std::memory_order_release);
    bottom_.store(bottom + 1, std::memory_order_relaxed);
  }
  std::optional<int> steal() {
    std::size_t top = top_.load(std::memory_order_acquire);
    concur::detail::thread_fence(std::memory_order_seq_cst);
    const std::size_t bottom = bottom_.load(std::memory_order_acquire);
    if (static_cast<std::ptrdiff_t>(bottom - top) <= 0) return std::nullopt;
    ring* const in = ring_.load(std::memory_order_acquire);
    const int element = in->at(top).load(std::memory_order_relaxed);
    if (!top_.compare_exchange_strong(top, top + 1, std::memory_order_seq_cst, std::memory_order_relaxed))
      return std::nullopt;
    return element;
  }

 private:
  struct ring {
    explicit ring(std::size_t mask_in) : mask(mask_in) {}
    concur::detail::atomic<int>& at(std::size_t index) { return slots[index & mask]; }

    std::size_t mask;
    std::array<concur::detail::atomic<int>, 4> slots;
  };

  ring small_{0U};
  std::optional<ring> large_;
  concur::detail::atomic<ring*> ring_;
  concur::detail::atomic<std::size_t> top_{0};
  concur::detail::atomic<std::size_t> bottom_{0};
};

template <bool is_published>
void grow_under_a_thief() {
  growing_deque<is_published> d;
  account seen;
  explored_thread thief([&] {
    if (const auto got = d.steal()) seen.out(*got);
  });
  d.push(1);
  d.push(2);
  thief.join();
  while (const auto got = d.steal()) seen.out(*got);
  seen.expect_all(2);
}

}  // namespace

TEST_CASE("the printed deque, which publishes a larger ring without a release, gives out what was never put in") {
  const nothing_left_over guard;
  fails(grow_under_a_thief<false>);
  holds(grow_under_a_thief<true>);
}

// --- reclamation ---

namespace {

// Freed is what its deleter has marked: the memory stays, so that whoever comes too late can be told.
struct object : concur::hazard_object {
  int value = 0;
  bool is_freed = false;
  bool is_counted = false;
};

void fill(object& one, int value) {
  note_write(static_cast<concur::hazard_object*>(&one), "an object");
  one.value = value;
}
void use(const object* one) {
  if (one == nullptr) return;
  note_read(static_cast<const concur::hazard_object*>(one), "an object");
  explore_expect(!one->is_freed, "an object is used after it was freed");
  explore_expect(one->value != 0, "an object is used before it was written");
}
void retire(concur::hazard_domain& domain, object* one) {
  if (one == nullptr) return;
  domain.retire(one, [](object* what) {
    explore_expect(!what->is_freed, "an object is freed twice");
    what->is_freed = true;
  });
}

using cell = concur::detail::atomic<object*>;

}  // namespace

TEST_CASE("hazards: one reads what another takes away and frees") {
  const nothing_left_over guard;
  holds(
      [] {
        object first;
        fill(first, 1);
        cell source(&first);
        concur::hazard_domain domain;
        concur::hazard_pointer mine(domain);
        explored_thread reading([&] {
          use(mine.protect(source));
          mine.reset();
        });
        retire(domain, source.exchange(nullptr, std::memory_order_acq_rel));
        domain.reclaim();
        reading.join();
        domain.reclaim();
        explore_expect(first.is_freed, "an object that nobody protects is not freed");
      },
      5);
}

TEST_CASE("hazards: one reads what another puts there") {
  const nothing_left_over guard;
  holds([] {
    object first;
    object second;
    fill(first, 1);
    cell source(&first);
    concur::hazard_domain domain;
    concur::hazard_pointer mine(domain);
    explored_thread reading([&] {
      use(mine.protect(source));
      use(mine.protect(source));
    });
    fill(second, 2);
    retire(domain, source.exchange(&second, std::memory_order_acq_rel));
    domain.reclaim();
    reading.join();
  });
}

TEST_CASE("hazards: the memory of a freed object is another object, at the same address") {
  const nothing_left_over guard;
  holds([] {
    object first;
    fill(first, 1);
    cell source(&first);
    concur::hazard_domain domain;
    concur::hazard_pointer mine(domain);
    explored_thread reading([&] { use(mine.protect(source)); });
    retire(domain, source.exchange(nullptr, std::memory_order_acq_rel));
    domain.reclaim();
    if (std::exchange(first.is_freed, false)) {
      fill(first, 2);
      source.store(&first, std::memory_order_release);
    }
    reading.join();
  });
}

TEST_CASE("hazards: who goes on to another object is done with the first") {
  const nothing_left_over guard;
  holds([] {
    object first;
    object second;
    fill(first, 1);
    fill(second, 2);
    cell source(&first);
    cell other(&second);
    concur::hazard_domain domain;
    concur::hazard_pointer mine(domain);
    explored_thread reading([&] {
      use(mine.protect(source));
      use(mine.protect(other));
    });
    retire(domain, source.exchange(nullptr, std::memory_order_acq_rel));
    domain.reclaim();
    reading.join();
  });
}

TEST_CASE("hazards: one retires, another frees") {
  const nothing_left_over guard;
  holds([] {
    object first;
    fill(first, 1);
    cell source(&first);
    concur::hazard_domain domain;
    concur::hazard_pointer mine(domain);
    bool is_seen = false;
    explored_thread reading([&] {
      const object* const seen = mine.protect(source);
      use(seen);
      is_seen = seen != nullptr;
    });
    explored_thread freeing([&] { domain.reclaim(); });
    retire(domain, source.exchange(nullptr, std::memory_order_acq_rel));
    reading.join();
    freeing.join();
    domain.reclaim();
    explore_expect(first.is_freed != is_seen, "an object is freed that is protected, or kept though it is not");
    mine.reset();
    domain.reclaim();
    explore_expect(first.is_freed, "an object that nobody protects is not freed");
  });
}

TEST_CASE("hazards: slots are made and taken side by side") {
  const nothing_left_over guard;
  holds(
      [] {
        object first;
        fill(first, 1);
        cell source(&first);
        concur::hazard_domain domain;
        const auto read = [&] {
          concur::hazard_pointer mine(domain);
          use(mine.protect(source));
        };
        explored_thread reading(read);
        explored_thread also_reading(read);
        retire(domain, source.exchange(nullptr, std::memory_order_acq_rel));
        domain.reclaim();
        reading.join();
        also_reading.join();
        domain.reclaim();
        explore_expect(first.is_freed, "an object that nobody protects is not freed");
      },
      2);
}

namespace {

// A stack of nodes that are freed, with and without hazards.
template <bool has_hazards>
struct bare_stack {
  struct node : object {
    node* below = nullptr;
  };

  void push(node& one) {
    one.below = head.load(std::memory_order_relaxed);
    while (!head.compare_exchange_strong(one.below, &one, std::memory_order_release, std::memory_order_relaxed)) {
    }
  }
  node* pop(concur::hazard_pointer& mine) {
    for (;;) {
      node* one = has_hazards ? mine.protect(head) : head.load(std::memory_order_acquire);
      if (one == nullptr) return nullptr;
      use(one);
      node* const below = one->below;
      if (!head.compare_exchange_strong(one, below, std::memory_order_relaxed, std::memory_order_relaxed)) continue;
      mine.reset();
      return one;
    }
  }

  concur::detail::atomic<node*> head{nullptr};
};

template <bool has_hazards>
void pop_side_by_side() {
  bare_stack<has_hazards> s;
  typename bare_stack<has_hazards>::node nodes[2];
  concur::hazard_domain domain;
  for (auto& one : nodes) {
    fill(one, 1);
    s.push(one);
  }
  int popped = 0;
  const auto pop = [&](concur::hazard_pointer& mine) {
    object* const got = s.pop(mine);
    if (got == nullptr) return;
    ++popped;
    explore_expect(!std::exchange(got->is_counted, true), "a node is popped twice");
    retire(domain, got);
  };
  concur::hazard_pointer first(domain);
  concur::hazard_pointer second(domain);
  explored_thread popping([&] { pop(first); });
  pop(second);
  domain.reclaim();
  popping.join();
  explore_expect(popped == 2, "a node is lost");
}

}  // namespace

TEST_CASE("a stack of nodes that are freed needs the hazards, and they are enough") {
  const nothing_left_over guard;
  holds(pop_side_by_side<true>, 3);
  fails(pop_side_by_side<false>);
}
