// stress_reclaim.cpp - storms on stack, deque and safe reclamation together: tokens that wander through all of them, and are
// freed and made anew on the way.
//
// Each token has a number, and at any time one token of each number is somewhere: in a stack, in a thread's deque, in a cell
// that all read, or in a thread's hands. Who has it writes to it without a lock; who only reads it in a cell looks at what
// never changes. In the end each number is there once, and as many objects were freed as made. Tags and indices begin near
// their wrap. What a thread does next comes from a seed.
#include "support/crew.hpp"
#include "support/tally.hpp"
#include "support/test.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

namespace {

constexpr int steps = scaled(400000) * CONCUR_TEST_SCALE;
constexpr std::size_t numbers = 24;

struct token : concur::hazard_object {
  explicit token(std::size_t number_in) : number(number_in), again(~number_in) {
    made.fetch_add(1, std::memory_order_relaxed);
  }
  token(const token&) = delete;
  token& operator=(const token&) = delete;
  ~token() {
    number = 0;
    again = 0;
    freed.fetch_add(1, std::memory_order_relaxed);
  }
  bool is_whole() const { return again == ~number; }

  std::size_t number;
  std::size_t again;
  std::uint64_t uses = 0;  // written by who has the token

  static std::atomic<std::uint64_t> made;
  static std::atomic<std::uint64_t> freed;
};
std::atomic<std::uint64_t> token::made{0};
std::atomic<std::uint64_t> token::freed{0};

struct free_token {
  void operator()(token* what) const { delete what; }
};
using owned = std::unique_ptr<token, free_token>;

class storm {
 public:
  storm(unsigned seed, unsigned threads) : seed_(seed), threads_(threads) {
    // Small ones, so that each is full and empty often.
    for (unsigned i = 0; i < 2; ++i)
      stacks_.push_back(std::make_unique<stack>(4 + i * 12, ~std::uintptr_t{0} - seed % 1000));
    for (unsigned i = 0; i < threads; ++i)
      deques_.push_back(std::make_unique<deque>(4, ~std::size_t{0} - seed % 1000 - i));
  }

  void run() {
    std::vector<std::thread> team;
    for (unsigned i = 0; i < threads_; ++i) team.emplace_back([this, i] { work(i); });
    for (std::thread& one : team) one.join();
  }

  tally held;
  std::atomic<std::uint64_t> uses{0};
  std::uint64_t uses_left = 0;

  // The numbers that are somewhere, in order; and adds up how often each was used.
  std::vector<std::size_t> collect() {
    std::vector<std::size_t> found;
    const auto add = [&](token* one) {
      found.push_back(one->number);
      uses_left += one->uses;
      domain_.retire(one);
    };
    for (auto& one : stacks_) one->take_all([&](owned&& what) { add(what.release()); });
    for (auto& one : deques_) {
      while (const auto got = one->try_pop()) add(*got);
    }
    for (auto& one : cells_) {
      if (token* const got = one.exchange(nullptr)) add(got);
    }
    std::sort(found.begin(), found.end());
    return found;
  }

 private:
  using stack = concur::treiber_stack<owned>;
  using deque = concur::work_stealing_deque<token*>;

  void work(unsigned own) {
    std::minstd_rand random(seed_ * 7919 + own + 1);
    concur::hazard_pointer mine(domain_);
    std::vector<owned> hands;
    for (std::size_t n = own; n < numbers; n += threads_) hands.emplace_back(new token(n));
    for (int i = 0; i < steps; ++i) {
      if (hands.empty() || random() % 8 < 3)
        take(own, random, hands);
      else
        put(own, random, hands);
      read(mine, random);
      if (random() % 16 == 0 && !hands.empty()) renew(hands.back());
    }
    // Full is possible: then the cells, the stacks and our deque have no room, and others will make some.
    while (!hands.empty()) {
      put(own, random, hands);
      if (random() % 64 == 0) std::this_thread::yield();
    }
  }

  void use(owned& one) {
    CONCUR_EXPECT(held, one->is_whole());
    ++one->uses;
    uses.fetch_add(1, std::memory_order_relaxed);
  }

  // Another token of the same number; the old one may still be being read.
  void renew(owned& one) {
    owned next(new token(one->number));
    next->uses = one->uses;
    domain_.retire(one.release(), free_token());
    one = std::move(next);
  }

  void take(unsigned own, std::minstd_rand& random, std::vector<owned>& hands) {
    const std::size_t before = hands.size();
    switch (random() % 6) {
      case 0:
        if (auto got = stacks_[random() % 2]->try_pop()) hands.push_back(std::move(*got));
        break;
      case 1:
        stacks_[random() % 2]->take_all([&](owned&& got) { hands.push_back(std::move(got)); });
        break;
      case 2:
        if (const auto got = deques_[own]->try_pop()) hands.emplace_back(*got);
        break;
      case 3:
      case 4:
        if (const auto got = deques_[random() % threads_]->try_steal()) hands.emplace_back(got.value);
        break;
      default:
        if (token* const got = cells_[random() % cells_.size()].exchange(nullptr, std::memory_order_acq_rel))
          hands.emplace_back(got);
    }
    for (std::size_t i = before; i < hands.size(); ++i) use(hands[i]);
  }

  void put(unsigned own, std::minstd_rand& random, std::vector<owned>& hands) {
    owned one = std::move(hands.back());
    hands.pop_back();
    switch (random() % 3) {
      case 0:
        stacks_[random() % 2]->try_push(std::move(one));
        break;
      case 1:
        if (deques_[own]->try_push(one.get())) static_cast<void>(one.release());
        break;
      default:
        one.reset(cells_[random() % cells_.size()].exchange(one.release(), std::memory_order_acq_rel));
        if (one != nullptr) use(one);
    }
    if (one != nullptr) hands.push_back(std::move(one));
  }

  void read(concur::hazard_pointer& mine, std::minstd_rand& random) {
    const token* const seen = mine.protect(cells_[random() % cells_.size()]);
    CONCUR_EXPECT(held, seen == nullptr || seen->is_whole());
    if (random() % 2 == 0) mine.reset();
  }

  const unsigned seed_;
  const unsigned threads_;
  concur::hazard_domain domain_;
  std::vector<std::unique_ptr<stack>> stacks_;
  std::vector<std::unique_ptr<deque>> deques_;
  std::array<std::atomic<token*>, 6> cells_{};
};

}  // namespace

TEST_CASE("tokens wander through stacks, deques and cells, and none is lost, doubled or freed under a reader") {
  const nothing_left_over guard;
  for (const unsigned threads : {2U, 3U, 6U}) {
    for (unsigned seed = 17000; seed < 17003; ++seed) {
      CAPTURE(threads);
      CAPTURE(seed);
      token::made = 0;
      token::freed = 0;
      {
        storm one(seed, threads);
        one.run();
        CHECK(one.held.report() == "");
        const std::vector<std::size_t> found = one.collect();
        CHECK(found.size() == numbers);
        CHECK(one.uses_left == one.uses);
        for (std::size_t i = 0; i < found.size(); ++i) CHECK(found[i] == i);
      }
      CHECK(token::made == token::freed);
      CHECK(token::made > numbers);
    }
  }
}
