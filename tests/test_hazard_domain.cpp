// test_hazard_domain.cpp - what is protected stays, what is not goes, how much may wait, and a stack that is built on it.
#include "support/crew.hpp"
#include "support/tally.hpp"
#include "support/test.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

namespace {

// Counts what lives, and is written to in the end, so that AddressSanitizer and ThreadSanitizer have something to see.
struct object : concur::hazard_object {
  object() { alive.fetch_add(1, std::memory_order_relaxed); }
  explicit object(std::uint64_t value_in) : object() { value = again = value_in; }
  object(const object& other) : concur::hazard_object(other), value(other.value), again(other.again) {
    alive.fetch_add(1, std::memory_order_relaxed);
  }
  object& operator=(const object&) = default;
  ~object() {
    value = ~std::uint64_t{0};
    again = 0;
    alive.fetch_sub(1, std::memory_order_relaxed);
  }

  std::uint64_t value = 0;
  std::uint64_t again = 0;
  static std::atomic<long> alive;
};
std::atomic<long> object::alive{0};

constexpr std::size_t may_wait(std::size_t slots) { return 2 * slots + 32; }

}  // namespace

TEST_CASE("what nobody protects is freed; what somebody protects is kept until he lets go") {
  const nothing_left_over guard;
  concur::hazard_domain domain;
  concur::hazard_pointer mine(domain);
  domain.retire(new object);
  CHECK(object::alive == 1);
  CHECK(domain.retired_count() == 1);
  domain.reclaim();
  CHECK(object::alive == 0);
  CHECK(domain.retired_count() == 0);

  std::atomic<object*> source{new object(1)};
  object* const seen = mine.protect(source);
  CHECK(seen == source.load());
  source = nullptr;
  domain.retire(seen);
  domain.reclaim();
  CHECK(object::alive == 1);
  CHECK(domain.retired_count() == 1);
  CHECK(seen->value == 1);
  mine.reset();
  domain.reclaim();
  CHECK(object::alive == 0);
}

TEST_CASE("protecting something else lets go of what was protected before; null protects nothing") {
  const nothing_left_over guard;
  concur::hazard_domain domain;
  concur::hazard_pointer mine(domain);
  std::atomic<object*> first{new object(1)};
  std::atomic<const object*> second{new object(2)};
  mine.protect(first);
  CHECK(mine.protect(second)->value == 2);
  domain.retire(first.exchange(nullptr));
  domain.reclaim();
  CHECK(object::alive == 1);
  CHECK(mine.protect(first) == nullptr);
  domain.retire(const_cast<object*>(second.exchange(nullptr)));
  domain.reclaim();
  CHECK(object::alive == 0);
}

TEST_CASE("try_protect says what is there instead") {
  const nothing_left_over guard;
  concur::hazard_domain domain;
  concur::hazard_pointer mine(domain);
  object a(1);
  object b(2);
  std::atomic<object*> source{&b};
  object* seen = &a;
  CHECK_FALSE(mine.try_protect(seen, source));
  CHECK(seen == &b);
  CHECK(mine.try_protect(seen, source));
  CHECK(seen == &b);
}

TEST_CASE("the protection goes where the hazard_pointer goes, and ends with it") {
  const nothing_left_over guard;
  concur::hazard_domain domain;
  std::atomic<object*> source{new object(1)};
  {
    concur::hazard_pointer first(domain);
    first.protect(source);
    concur::hazard_pointer second(std::move(first));
    domain.retire(source.exchange(nullptr));
    domain.reclaim();
    CHECK(object::alive == 1);
    concur::hazard_pointer third(domain);
    third = std::move(second);
    domain.reclaim();
    CHECK(object::alive == 1);
    CHECK(domain.slot_count() == 2);
  }
  domain.reclaim();
  CHECK(object::alive == 0);
}

TEST_CASE("slots are used again; there are as many as were held at once") {
  const nothing_left_over guard;
  concur::hazard_domain domain;
  for (int i = 0; i < 1000; ++i) {
    concur::hazard_pointer one(domain);
    concur::hazard_pointer two(domain);
  }
  CHECK(domain.slot_count() == 2);
  std::vector<concur::hazard_pointer> many;
  for (int i = 0; i < 100; ++i) many.emplace_back(domain);
  CHECK(domain.slot_count() == 100);
  many.clear();
  for (int i = 0; i < 100; ++i) many.emplace_back(domain);
  CHECK(domain.slot_count() == 100);
}

TEST_CASE("no more than the bound waits, however many are retired and protected") {
  const nothing_left_over guard;
  for (const std::size_t held : {0U, 1U, 10U, 100U, 1000U}) {
    CAPTURE(held);
    concur::hazard_domain domain;
    std::vector<concur::hazard_pointer> readers;
    std::vector<std::atomic<object*>> sources(held);
    for (std::size_t i = 0; i < held; ++i) {
      readers.emplace_back(domain);
      sources[i] = new object(i);
      readers[i].protect(sources[i]);
    }
    for (auto& source : sources) domain.retire(source.exchange(nullptr));
    long worst = 0;
    for (int i = 0; i < scaled(100000); ++i) {
      domain.retire(new object);
      worst = object::alive > worst ? object::alive.load() : worst;
    }
    CHECK(worst <= static_cast<long>(may_wait(held)));
    CHECK(worst >= static_cast<long>(held));
    for (std::size_t i = 0; i < held; ++i) readers[i].reset();
    domain.reclaim();
    CHECK(object::alive == 0);
  }
}

TEST_CASE("a deleter carries a pointer; a domain frees what is left when it goes, also what that retires") {
  const nothing_left_over guard;
  struct pool {
    int returned = 0;
  } home;
  struct chained : object {
    concur::hazard_domain* domain = nullptr;
    chained* child = nullptr;
    ~chained() {
      if (child != nullptr) domain->retire(child);
    }
  };
  const auto chain_of = [](concur::hazard_domain& domain, int count) {
    chained* first = nullptr;
    for (int i = 0; i < count; ++i) {
      auto* const one = new chained;
      one->domain = &domain;
      one->child = std::exchange(first, one);
    }
    return first;
  };
  {
    concur::hazard_domain domain;
    for (int i = 0; i < 10; ++i) {
      domain.retire(new object, [&home](object* what) {
        ++home.returned;
        delete what;
      });
    }
    domain.reclaim();
    CHECK(home.returned == 10);
    CHECK(object::alive == 0);
    domain.retire(new object, [&home](object* what) {
      ++home.returned;
      delete what;
    });
    // A thousand chains at once: each object that goes retires one more, and no scan is inside of another for that.
    for (int i = 0; i < 1000; ++i) domain.retire(chain_of(domain, scaled(1000)));
    domain.retire(chain_of(domain, scaled(1000000)));
  }
  CHECK(home.returned == 11);
  CHECK(object::alive == 0);
}

TEST_CASE("a reader that stands still keeps its object, and nothing else") {
  const nothing_left_over guard;
  concur::hazard_domain domain;
  std::atomic<object*> source{new object(1)};
  concur::hazard_pointer stopped(domain);
  object* const kept = stopped.protect(source);
  std::thread other([&] {
    for (std::uint64_t i = 2; i < 100000; ++i) domain.retire(source.exchange(new object(i)));
  });
  other.join();
  CHECK(kept->value == 1);
  CHECK(object::alive <= static_cast<long>(may_wait(1)) + 1);
  domain.retire(source.exchange(nullptr));
  domain.reclaim();
  CHECK(object::alive == 1);
}

TEST_CASE("a copy of an object that was retired is an object of its own") {
  const nothing_left_over guard;
  concur::hazard_domain domain;
  auto* const first = new object(7);
  domain.retire(first);
  auto* const copy = new object(*first);
  *copy = *first;
  domain.retire(copy);
  domain.reclaim();
  CHECK(object::alive == 0);
}

// The two numbers of an object are equal while it lives. Readers follow the pointer while writers replace it.
TEST_CASE("several threads read what others replace") {
  const nothing_left_over guard;
  constexpr int readers = 3;
  constexpr int writers = 2;
  object::alive = 0;
  {
    concur::hazard_domain domain;
    std::atomic<object*> source{new object(0)};
    std::atomic<bool> is_over{false};
    std::atomic<std::uint64_t> reads{0};
    std::atomic<long> worst{0};
    tally held;
    std::vector<std::thread> team;
    for (int i = 0; i < readers; ++i) {
      team.emplace_back([&, i] {
        std::uint64_t count = 0;
        while (!is_over.load(std::memory_order_relaxed)) {
          concur::hazard_pointer mine(domain);
          for (int n = 0; n < 100; ++n, ++count) {
            const object* const seen = mine.protect(source);
            CONCUR_EXPECT(held, seen->value == seen->again);
            if ((n + i) % 7 == 0) mine.reset();
          }
        }
        reads += count;
      });
    }
    std::vector<std::thread> replacing;
    for (int i = 0; i < writers; ++i) {
      replacing.emplace_back([&] {
        for (int n = 0; n < scaled(1000000); ++n) {
          domain.retire(source.exchange(new object(static_cast<std::uint64_t>(n)), std::memory_order_acq_rel));
          const long now = object::alive.load(std::memory_order_relaxed);
          if (now > worst.load(std::memory_order_relaxed)) worst = now;
        }
      });
    }
    for (std::thread& one : replacing) one.join();
    is_over = true;
    for (std::thread& one : team) one.join();
    CHECK(held.report() == "");
    CHECK(reads > 0);
    CHECK(domain.slot_count() <= readers);
    const std::size_t bound = 2 * (writers + 1) * (writers + 1) * may_wait(domain.slot_count());
    CHECK(worst <= static_cast<long>(bound));
    MESSAGE(worst.load(), " objects at worst, of ", bound, " that may be");
    domain.retire(source.exchange(nullptr));
  }
  CHECK(object::alive == 0);
}

TEST_CASE("a fiber that migrates takes its protection along") {
  const nothing_left_over guard;
  object::alive = 0;
  {
    concur::hazard_domain domain;
    std::atomic<object*> source{new object(1)};
    tally held;
    concur::run(with_workers(4), [&] {
      concur::with_nursery([&](concur::nursery& n) {
        for (int i = 0; i < 40; ++i) {
          n.go([&, i] {
            concur::hazard_pointer mine(domain);
            for (int round = 0; round < 50; ++round) {
              if (i % 4 == 0) domain.retire(source.exchange(new object(static_cast<std::uint64_t>(round))));
              const object* const seen = mine.protect(source);
              const std::uint64_t before = seen->value;
              concur::this_fiber::yield();
              CONCUR_EXPECT(held, seen->value == before && seen->again == before);
            }
          });
        }
      });
    });
    CHECK(held.report() == "");
    domain.retire(source.exchange(nullptr));
  }
  CHECK(object::alive == 0);
}

namespace {

// The unbounded stack that treiber_stack.hpp speaks of: nodes are allocated, and freed while others may look at them.
class stack_on_hazards {
 public:
  explicit stack_on_hazards(concur::hazard_domain& domain) : domain_(domain) {}

  void push(std::uint64_t value) {
    auto* const one = new node(value);
    one->below = head_.load(std::memory_order_relaxed);
    while (!head_.compare_exchange_weak(one->below, one, std::memory_order_release, std::memory_order_relaxed)) {
    }
  }
  bool pop(concur::hazard_pointer& mine, std::uint64_t& value) {
    for (;;) {
      node* one = mine.protect(head_);
      if (one == nullptr) return false;
      node* const below = one->below;
      if (!head_.compare_exchange_strong(one, below, std::memory_order_relaxed, std::memory_order_relaxed)) continue;
      value = one->value;
      mine.reset();
      domain_.retire(one);
      return true;
    }
  }

 private:
  struct node : object {
    using object::object;
    node* below = nullptr;
  };

  concur::hazard_domain& domain_;
  std::atomic<node*> head_{nullptr};
};

}  // namespace

TEST_CASE("a stack of nodes that are freed: memory that comes back at once confuses no pop") {
  const nothing_left_over guard;
  constexpr int threads = 4;
  object::alive = 0;
  {
    concur::hazard_domain domain;
    stack_on_hazards stack(domain);
    const int rounds = scaled(400000);
    std::vector<std::atomic<unsigned char>> times(static_cast<std::size_t>(threads * rounds));
    tally held;
    std::vector<std::thread> team;
    for (int t = 0; t < threads; ++t) {
      team.emplace_back([&, t] {
        concur::hazard_pointer mine(domain);
        std::minstd_rand random(static_cast<unsigned>(t + 1));
        const auto take = [&] {
          std::uint64_t value = 0;
          if (!stack.pop(mine, value)) return false;
          CONCUR_EXPECT(held, times[value].fetch_add(1) == 0);
          return true;
        };
        for (int i = 0; i < rounds; ++i) {
          stack.push(static_cast<std::uint64_t>(t * rounds + i));
          if (random() % 4 != 0) take();
          if (random() % 4 != 0) take();
        }
        while (take()) {
        }
      });
    }
    for (std::thread& one : team) one.join();
    CHECK(held.report() == "");
    std::size_t missing = 0;
    for (const auto& one : times) missing += one == 1 ? 0 : 1;
    CHECK(missing == 0);
  }
  CHECK(object::alive == 0);
}
