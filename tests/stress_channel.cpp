// stress_channel.cpp - conservation: whatever times out, is closed or cancelled, no value is lost and none is doubled.
//
// Every value carries a number of its own. At the end each is in exactly one place: received by somebody, still in the
// channel, or back with its sender. Each storm runs from a seed that is printed when it fails; timing decides the rest.
#include "support/test.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <random>
#include <thread>
#include <vector>

using concur::channel;
using concur::channel_closed;
using concur::status;

namespace {

using owned = std::unique_ptr<std::size_t>;

// Counts in how many places each number ended.
class account {
 public:
  explicit account(std::size_t size) : places_(size) {}
  void enter(owned value) {
    if (value == nullptr)
      ++nothings_;
    else
      ++places_[*value];
  }
  std::size_t take_numbers(std::size_t count) { return next_.fetch_add(count); }
  void settle() const {
    const std::size_t used = next_.load();
    std::size_t lost = 0;
    std::size_t doubled = 0;
    for (std::size_t i = 0; i < used; ++i) {
      lost += places_[i] == 0 ? 1 : 0;
      doubled += places_[i] > 1 ? 1 : 0;
    }
    CHECK(used <= places_.size());
    CHECK(lost == 0);
    CHECK(doubled == 0);
    CHECK(nothings_ == 0);
  }

 private:
  std::vector<std::atomic<unsigned char>> places_;
  std::atomic<std::size_t> next_{0};
  std::atomic<std::size_t> nothings_{0};
};

// With this, five million values and so ten million operations in a plain build.
constexpr std::size_t each = CONCUR_TSAN || CONCUR_ASAN ? 300 : 4'500;

// Sends `each` numbered values in every way there is; what does not go is accounted for here.
void send_some(channel<owned> ch, account& book, unsigned seed) {
  std::mt19937 random(seed);
  const std::size_t first = book.take_numbers(each);
  std::size_t i = 0;
  owned value;
  try {
    for (; i < each; ++i) {
      value = std::make_unique<std::size_t>(first + i);
      const std::chrono::nanoseconds limit(random() % 3 == 0 ? 0 : random() % 200000);
      switch (random() % 4) {
        case 0:
          ch.send(std::move(value));
          break;
        case 1:
          ch.try_send(value);
          break;
        case 2:
          ch.send_for(value, limit);
          break;
        default:
          ch.send_until(value, std::chrono::steady_clock::now() + limit);
          break;
      }
      if (value != nullptr) book.enter(std::move(value));
    }
  } catch (const channel_closed&) {
    if (value != nullptr) book.enter(std::move(value));
    ++i;
  } catch (const concur::cancelled&) {
    if (value != nullptr) book.enter(std::move(value));
    ++i;
  }
  for (; i < each; ++i) book.enter(std::make_unique<std::size_t>(first + i));
}

// Receives in every way there is, until the channel says that no more will come.
void receive_some(channel<owned> ch, account& book, unsigned seed) {
  std::mt19937 random(seed);
  try {
    for (;;) {
      owned slot;
      const std::chrono::nanoseconds limit(random() % 3 == 0 ? 0 : random() % 200000);
      switch (random() % 3) {
        case 0: {
          std::optional<owned> got = ch.recv();
          if (!got) return;
          book.enter(std::move(*got));
          break;
        }
        case 1: {
          std::optional<owned> got = ch.try_recv();
          if (got) book.enter(std::move(*got));
          break;
        }
        default: {
          const status how = ch.recv_for(slot, limit);
          if (how == status::closed) return;
          if (how == status::ok) book.enter(std::move(slot));
          break;
        }
      }
    }
  } catch (const concur::cancelled&) {
  }
}

enum class ending { close_early, close_late, destroy_runtime };

void storm(unsigned workers, std::size_t capacity, ending how, unsigned seed) {
  CAPTURE(workers);
  CAPTURE(capacity);
  CAPTURE(seed);
  constexpr unsigned senders = 6;
  constexpr unsigned receivers = 4;
  account book((senders + 2) * each);
  channel<owned> ch(capacity);
  std::vector<std::thread> threads;
  {
    concur::runtime rt(with_workers(workers));
    concur::runtime other(with_workers(1));
    std::vector<concur::future<void>> sending;
    for (unsigned i = 0; i < senders; ++i) {
      concur::runtime& where = i % 3 == 0 ? other : rt;
      sending.push_back(where.go(send_some, ch, std::ref(book), seed + i));
    }
    for (unsigned i = 0; i < receivers; ++i) {
      concur::runtime& where = i % 3 == 0 ? other : rt;
      where.go(receive_some, ch, std::ref(book), seed + 100 + i);
    }
    // Threads are not cancelled; they get on because the channel is closed in the end.
    for (unsigned i = 0; i < 2; ++i) threads.emplace_back(send_some, ch, std::ref(book), seed + 200 + i);
    threads.emplace_back(receive_some, ch, std::ref(book), seed + 300);
    if (how == ending::close_late) {
      for (concur::future<void>& one : sending) one.get();
    } else {
      std::mt19937 random(seed);
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 2000));
    }
    if (how != ending::destroy_runtime) ch.close();
  }
  ch.try_close();
  for (std::thread& one : threads) one.join();
  while (std::optional<owned> left = ch.try_recv()) book.enter(std::move(*left));
  book.settle();
}

}  // namespace

TEST_CASE("closing, timing out and cancelling lose no value and double none") {
  const nothing_left_over guard;
  unsigned seed = 1;
  for (const unsigned workers : {1U, 2U, 4U}) {
    for (const std::size_t capacity : {std::size_t{0}, std::size_t{1}, std::size_t{8}}) {
      for (const ending how : {ending::close_early, ending::close_late, ending::destroy_runtime}) {
        for (int round = 0; round < 4; ++round) storm(workers, capacity, how, seed += 1000);
      }
    }
  }
}

TEST_CASE("each pair keeps its own order, whoever else is on the channel") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    for (const std::size_t capacity : {std::size_t{0}, std::size_t{4}}) {
      channel<std::pair<unsigned, unsigned>> ch(capacity);
      constexpr unsigned senders = 5;
      constexpr unsigned count = 2000;
      std::vector<unsigned> next(senders);
      unsigned out_of_order = 0;
      unsigned received = 0;
      {
        concur::runtime rt(with_workers(workers));
        concur::future<void> receiver = rt.go([&] {
          for (const auto& one : ch) {
            out_of_order += next[one.first]++ != one.second ? 1 : 0;
            ++received;
          }
        });
        std::vector<concur::future<void>> sending;
        for (unsigned i = 0; i < senders; ++i) {
          sending.push_back(rt.go([&ch, i] {
            for (unsigned n = 0; n < count; ++n) ch.send({i, n});
          }));
        }
        for (auto& one : sending) one.get();
        ch.close();
        receiver.get();
      }
      CHECK(out_of_order == 0);
      CHECK(received == senders * count);
    }
  }
}

TEST_CASE("channels that come and go while others are on them") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    std::atomic<int> answered{0};
    constexpr int rounds = 2000;
    concur::run(with_workers(workers), [&] {
      for (int i = 0; i < rounds; ++i) {
        channel<int> question;  // the last handle may go on either side
        channel<int> answer(1);
        concur::go([question, answer]() mutable { answer.send(*question.recv() + 1); });
        question.send(i);
        question = concur::nil;
        if (answer.recv() == i + 1) ++answered;
      }
    });
    CHECK(answered == rounds);
  }
}

TEST_CASE("a waker that comes in the moment of parking finds the fiber, and finds it gone from its stack") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U}) {
    constexpr int rounds = 30000;
    channel<int> to_fiber;
    channel<int> from_fiber;
    long sum = 0;
    {
      concur::runtime rt(with_workers(workers));
      concur::future<void> party = rt.go([&] {
        for (int i = 0; i < rounds; ++i) {
          sum += *to_fiber.recv();
          from_fiber.send(i);
        }
      });
      // A plain thread that does not wait but tries, so that it is there as soon as the note is.
      for (int i = 0; i < rounds; ++i) {
        int value = i;
        while (!to_fiber.try_send(value)) {
        }
        while (!from_fiber.try_recv()) {
        }
      }
      party.get();
    }
    CHECK(sum == static_cast<long>(rounds) * (rounds - 1) / 2);
  }
}
