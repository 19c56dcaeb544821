// stress_select.cpp - conservation under selects: a fixed set of tokens goes round, and none is ever lost or doubled.
//
// Fibers, and plain threads, each hold a bag of tokens and pass them on by selects of every shape over a few channels:
// several cases of one channel, both sides of one, with deadlines, with otherwise, ordered or not, while others send and
// receive plainly, channels are closed, and waits are cancelled from outside. At the end each token is in exactly one
// bag or channel. Timing decides; the seed of the choices is printed when a check fails.
#include "support/cancel.hpp"
#include "support/test.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <random>
#include <thread>
#include <vector>

using concur::channel;
using concur::otherwise;
using concur::recv;
using concur::select;
using concur::send;

namespace {

constexpr int operations = CONCUR_TEST_SCALE * (CONCUR_TSAN || CONCUR_ASAN ? 300'000 : 10'000'000);
constexpr int parties = 8;
constexpr int tokens_each = 4;
constexpr int tokens = (parties + 2) * tokens_each;

// Move-only; the destructors are counted, so that a value destroyed on the way is noticed.
class token {
 public:
  explicit token(int number) noexcept : number_(number) {}
  token(token&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  token& operator=(token&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~token() {
    if (number_ >= 0) destroyed.fetch_add(1, std::memory_order_relaxed);
  }
  int take_number() noexcept { return std::exchange(number_, -1); }
  bool is_there() const noexcept { return number_ >= 0; }

  static std::atomic<int> destroyed;

 private:
  int number_;
};
std::atomic<int> token::destroyed{0};

struct storm {
  std::vector<channel<token>> channels;
  std::vector<std::vector<token>> bags;
  std::unique_ptr<cancel_target[]> targets;
  std::atomic<int> left{0};
  std::atomic<int> torn{0};  // values that a lost case had touched

  storm() : bags(parties + 2), targets(new cancel_target[parties]) {
    for (const std::size_t capacity : {0u, 0u, 1u, 8u}) channels.emplace_back(capacity);
    int number = 0;
    for (auto& bag : bags) {
      bag.reserve(tokens);
      for (int i = 0; i < tokens_each; ++i) bag.emplace_back(number++);
    }
  }
};

// One operation, of a random shape. Throws what it throws; the bag holds then what it should.
void step(storm& s, std::vector<token>& bag, std::mt19937& random) {
  channel<token>& a = s.channels[random() % s.channels.size()];
  channel<token>& b = s.channels[random() % s.channels.size()];
  channel<token>& c = s.channels[random() % s.channels.size()];
  const auto keep = [&](std::optional<token> got) {
    if (got) bag.push_back(std::move(*got));
  };
  const auto patience = std::chrono::microseconds(random() % 4 == 0 ? 0 : random() % 50);
  if (bag.empty()) {
    switch (random() % 3) {
      case 0:
        select(recv(a, keep), recv(b, keep), recv(c, keep), concur::after(patience, [] {}));
        return;
      case 1:
        select(recv(a, keep), recv(b, keep), otherwise([] { concur::this_fiber::yield(); }));
        return;
      default:
        keep(a.try_recv());
        concur::this_fiber::yield();
        return;
    }
  }
  token mine = std::move(bag.back());
  bag.pop_back();
  struct giver_back {
    ~giver_back() {
      if (mine.is_there()) bag.push_back(std::move(mine));
    }
    std::vector<token>& bag;
    token& mine;
  } back{bag, mine};
  const auto sent = [&] {
    if (mine.is_there()) s.torn.fetch_add(1);
  };
  switch (random() % 6) {
    case 0:
      select(send(a, std::move(mine), sent), recv(b, keep), recv(c, keep), concur::after(patience, [] {}));
      return;
    case 1:
      select(send(a, std::move(mine), sent), recv(a, keep), otherwise([] { concur::this_fiber::yield(); }));
      return;
    case 2:
      concur::select_ordered(recv(b, keep), send(a, std::move(mine), sent), send(c, std::move(mine), sent),
                             concur::after(patience, [] {}));
      return;
    case 3:
      a.try_send(mine);
      return;
    case 4:
      a.send_for(mine, patience);
      return;
    default:
      select(send(a, std::move(mine), sent), recv(b, keep), recv(b, keep), send(b, std::move(mine), sent),
             concur::after(patience, [] {}));
      return;
  }
}

// Until the operations of all are used up.
void take_part(storm& s, std::size_t who, unsigned seed) {
  std::mt19937 random(seed);
  while (s.left.fetch_sub(16, std::memory_order_relaxed) > 0) {
    for (int i = 0; i < 16; ++i) {
      try {
        step(s, s.bags[who], random);
      } catch (const concur::cancelled&) {
      } catch (const concur::channel_closed&) {
      }
    }
  }
}

void run_storm(unsigned workers, bool closes, unsigned seed) {
  CAPTURE(workers);
  CAPTURE(seed);
  storm s;
  s.left = operations / 6;
  token::destroyed = 0;
  std::vector<std::thread> threads;
  {
    concur::runtime rt(with_workers(workers));
    concur::runtime other(with_workers(1));
    std::vector<concur::future<void>> all;
    for (std::size_t i = 0; i < parties; ++i) {
      all.push_back((i % 4 == 3 ? other : rt).go([&s, i, seed] {
        s.targets[i].enter();
        take_part(s, i, seed + static_cast<unsigned>(i));
        s.targets[i].leave();
      }));
    }
    for (std::size_t i = parties; i < parties + 2; ++i)
      threads.emplace_back([&s, i, seed] { take_part(s, i, seed + static_cast<unsigned>(i)); });
    std::mt19937 random(seed + 99);
    while (s.left.load() > 0) {
      s.targets[random() % parties].strike();
      if (closes && s.left.load() < operations / 12) s.channels[random() % s.channels.size()].try_close();
      std::this_thread::yield();
    }
    for (auto& one : all) one.get();
  }
  for (std::thread& one : threads) one.join();
  CHECK(s.torn.load() == 0);
  CHECK(token::destroyed.load() == 0);
  std::vector<int> places(tokens);
  for (auto& bag : s.bags) {
    for (token& one : bag) ++places[static_cast<std::size_t>(one.take_number())];
  }
  for (channel<token>& ch : s.channels) {
    while (auto one = ch.try_recv()) ++places[static_cast<std::size_t>(one->take_number())];
  }
  for (const int count : places) CHECK(count == 1);
}

}  // namespace

TEST_CASE("tokens that go round by selects are neither lost nor doubled") {
  const nothing_left_over guard;
  unsigned seed = 1;
  for (const unsigned workers : {1u, 2u, 4u}) {
    for (const bool closes : {false, true}) run_storm(workers, closes, seed += 1000);
  }
}
