// test_go_channel.cpp - what Go's own tests check of channels: test/chan, test/ken/chan1.go, test/closedchan.go and
// runtime/chan_test.go, written anew for fibers and plain threads.
//
// Where the originals sleep to be sure that somebody waits, these look at the waiter. Which test of theirs is which of
// ours, and which is left out, is in conformance.md.
#include "support/crew.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

using concur::channel;
using concur::channel_closed;
using concur::otherwise;
using concur::receiver;
using concur::recv;
using concur::select;
using concur::send;
using concur::sender;
using concur::status;
using namespace std::chrono_literals;

namespace {

// What an end can do.
template <class End, class = void>
struct can_send : std::false_type {};
template <class End>
struct can_send<End, std::void_t<decltype(std::declval<End&>().send(1))>> : std::true_type {};
template <class End, class = void>
struct can_receive : std::false_type {};
template <class End>
struct can_receive<End, std::void_t<decltype(std::declval<End&>().recv())>> : std::true_type {};
template <class End, class = void>
struct can_range : std::false_type {};
template <class End>
struct can_range<End, std::void_t<decltype(std::declval<End&>().begin())>> : std::true_type {};
template <class End, class = void>
struct can_close : std::false_type {};
template <class End>
struct can_close<End, std::void_t<decltype(std::declval<End&>().close())>> : std::true_type {};
template <class End, class = void>
struct can_be_sent_to_in_a_select : std::false_type {};
template <class End>
struct can_be_sent_to_in_a_select<End, std::void_t<decltype(send(std::declval<End&>(), 1, std::declval<void (*)()>()))>>
    : std::true_type {};

struct nothing {};

// --- the parts of TestChan ---

void a_receive_from_an_empty_channel_waits(tally& held, kind which, std::size_t capacity) {
  channel<int> ch(capacity);
  crew receivers(which);
  for (int i = 0; i < 2; ++i)
    CONCUR_EXPECT(held, receivers.go([&] { CONCUR_EXPECT(held, ch.recv() == 0); }).wait_until_parked());
  bool has_received = false;
  select(recv(ch, [&] { has_received = true; }), otherwise([] {}));
  CONCUR_EXPECT(held, !has_received);
  CONCUR_EXPECT(held, !ch.try_recv());
  ch.send(0);
  ch.send(0);
  receivers.join();
}

void a_send_to_a_full_channel_waits(tally& held, kind which, std::size_t capacity) {
  channel<int> ch(capacity);
  for (std::size_t i = 0; i < capacity; ++i) ch.send(1);
  crew senders(which);
  companion& waiting = senders.go([&] { ch.send(0); });
  CONCUR_EXPECT(held, waiting.wait_until_parked());
  bool has_sent = false;
  select(send(ch, 0, [&] { has_sent = true; }), otherwise([] {}));
  CONCUR_EXPECT(held, !has_sent && !waiting.has_ended());
  CONCUR_EXPECT(held, ch.recv() == (capacity == 0 ? 0 : 1));
  senders.join();
  CONCUR_EXPECT(held, ch.size() == capacity);
}

void a_closed_channel_gives_what_is_in_it_and_then_nothing(tally& held, std::size_t capacity) {
  channel<int> ch(capacity);
  for (std::size_t i = 0; i < capacity; ++i) ch.send(static_cast<int>(i));
  ch.close();
  for (std::size_t i = 0; i < capacity; ++i) CONCUR_EXPECT(held, ch.recv() == static_cast<int>(i));
  for (int i = 0; i < 3; ++i) CONCUR_EXPECT(held, !ch.recv() && !ch.try_recv());
}

void closing_ends_a_receive(tally& held, kind which, std::size_t capacity) {
  channel<int> ch(capacity);
  crew receivers(which);
  CONCUR_EXPECT(held, receivers.go([&] { CONCUR_EXPECT(held, !ch.recv()); }).wait_until_parked());
  ch.close();
  receivers.join();
}

void values_come_whole_and_in_order(tally& held, kind which, std::size_t capacity) {
  channel<int> ch(capacity);
  crew senders(which);
  for (int round = 0; round < 2; ++round) {
    senders.go([&] {
      for (int i = 0; i < 100; ++i) ch.send(i);
    });
    for (int i = 0; i < 100; ++i) {
      int got = -1;
      if (round == 0)
        got = ch.recv().value_or(-1);
      else
        CONCUR_EXPECT(held, ch.recv_for(got, 20s) == status::ok);
      CONCUR_EXPECT(held, got == i);
    }
    senders.join();
  }
}

void four_to_four_lose_none_and_double_none(tally& held, kind which, std::size_t capacity) {
  constexpr int parties = 4;
  const int each = scaled(250);
  channel<int> ch(capacity);
  std::vector<std::atomic<int>> seen(static_cast<std::size_t>(each));
  crew all(which);
  for (int p = 0; p < parties; ++p) {
    all.go([&] {
      for (int i = 0; i < each; ++i) ch.send(i);
    });
    all.go([&] {
      for (int i = 0; i < each; ++i) ++seen[static_cast<std::size_t>(ch.recv().value())];
    });
  }
  all.join();
  for (const std::atomic<int>& count : seen) CONCUR_EXPECT(held, count == parties);
}

void size_and_capacity_are_told(tally& held, std::size_t capacity) {
  channel<int> ch(capacity);
  for (std::size_t i = 0; i < capacity; ++i) {
    CONCUR_EXPECT(held, ch.size() == i && ch.capacity() == capacity);
    ch.send(0);
  }
  CONCUR_EXPECT(held, ch.size() == capacity && ch.capacity() == capacity);
}

// --- nonblock.go, for one type of value ---

template <class T>
void tries_that_meet_a_waiter(tally& held, kind which, std::size_t capacity, T there, T back) {
  channel<T> ch(capacity);
  CONCUR_EXPECT(held, !ch.try_recv());
  crew others(which);
  CONCUR_EXPECT(held, others.go([&] { CONCUR_EXPECT(held, ch.recv() == there); }).wait_until_parked());
  bool has_sent = false;
  select(send(ch, T(there), [&] { has_sent = true; }), otherwise([] {}));
  CONCUR_EXPECT(held, has_sent);
  others.join();

  companion& other = others.go([&] { ch.send(back); });
  if (capacity == 0)
    CONCUR_EXPECT(held, other.wait_until_parked());
  else
    others.join();
  std::optional<T> got;
  select(recv(ch, [&](std::optional<T> value) { got = std::move(value); }), otherwise([] {}));
  CONCUR_EXPECT(held, got == back);
  others.join();
}

}  // namespace

TEST_CASE("runtime/chan_test.go TestChan") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    for (const std::size_t capacity : {0U, 1U, 2U, 3U, 4U, 7U, 20U}) {
      a_receive_from_an_empty_channel_waits(held, which, capacity);
      a_send_to_a_full_channel_waits(held, which, capacity);
      a_closed_channel_gives_what_is_in_it_and_then_nothing(held, capacity);
      closing_ends_a_receive(held, which, capacity);
      values_come_whole_and_in_order(held, which, capacity);
      four_to_four_lose_none_and_double_none(held, which, capacity);
      size_and_capacity_are_told(held, capacity);
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("runtime/chan_test.go TestNonblockRecvRace: a value before a close is ready at every moment") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    channel<channel<int>> next;
    crew others(which);
    others.go([&] {
      for (const channel<int>& ch : next)
        select(recv(ch, [] {}), otherwise([&] { CONCUR_EXPECT(held, false && "there was neither value nor close"); }));
    });
    for (int i = 0; i < scaled(2000); ++i) {
      channel<int> ch(1);
      ch.send(1);
      next.send(ch);
      ch.close();
      ch.recv();
    }
    next.close();
    others.join();
    CHECK(held.report() == "");
  });
}

TEST_CASE("runtime/chan_test.go TestChanSendInterface: values behind a base class, in selects that may send") {
  const nothing_left_over guard;
  everywhere([](kind) {
    struct base {
      virtual ~base() = default;
      virtual int number() const { return 1; }
    };
    struct derived final : base {
      int number() const override { return 2; }
    };
    tally held;
    channel<std::unique_ptr<base>> ch(1);
    ch.send(std::make_unique<derived>());
    int sent = 0;
    select(send(ch, std::make_unique<derived>(), [&] { ++sent; }), otherwise([] {}));
    select(send(ch, std::make_unique<derived>(), [&] { ++sent; }), send(ch, std::make_unique<base>(), [&] { ++sent; }),
           otherwise([] {}));
    CONCUR_EXPECT(held, sent == 0 && (*ch.recv())->number() == 2);
    select(send(ch, std::make_unique<base>(), [&] { ++sent; }), otherwise([] {}));
    CONCUR_EXPECT(held, sent == 1 && (*ch.recv())->number() == 1);
    CHECK(held.report() == "");
  });
}

TEST_CASE("runtime/chan_test.go TestMultiConsumer") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    constexpr std::size_t workers = 23;
    constexpr std::array<int, 10> primes = {2, 3, 7, 11, 13, 17, 19, 23, 27, 31};
    const int count = scaled(4000);
    channel<int> questions(3 * workers);
    channel<int> answers(3 * workers);
    concur::wait_group working;
    crew all(which);
    for (std::size_t w = 0; w < workers; ++w) {
      working.add();
      all.go([&, w] {
        for (const int value : questions) {
          if (value == primes[w % primes.size()]) concur::this_fiber::yield();
          answers.send(value);
        }
        working.done();
      });
    }
    long expected = 0;
    all.go([&] {
      for (int i = 0; i < count; ++i) {
        const int value = primes[static_cast<std::size_t>(i) % primes.size()];
        expected += value;
        questions.send(value);
      }
      questions.close();
      working.wait();
      answers.close();
    });
    long sum = 0;
    int received = 0;
    for (const int value : answers) {
      sum += value;
      ++received;
    }
    CONCUR_EXPECT(held, received == count && sum == expected);  // what the feeder counted happens before its close
    all.join();
    CHECK(held.report() == "");
  });
}

TEST_CASE("test/chan/fifo.go: AsynchFifo and SynchFifo") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    constexpr int count = 10;
    channel<int> ring(count);
    for (int i = 0; i < count; ++i) ring.send(i);
    for (int i = 0; i < count; ++i) CONCUR_EXPECT(held, ring.recv() == i);

    // Everybody receives when the one before has, and finds the value that is next.
    channel<int> ch;
    channel<void> first;
    channel<void> last = first;
    crew chain(which);
    for (int i = 0; i < count; ++i) {
      channel<void> next;
      chain.go([&held, ch, in = last, out = next, i]() mutable {
        in.recv();
        CONCUR_EXPECT(held, ch.recv() == i);
        out.send();
      });
      last = next;
    }
    first.send();
    for (int i = 0; i < count; ++i) ch.send(i);
    last.recv();
    chain.join();
    CHECK(held.report() == "");
  });
}

TEST_CASE("test/chan/goroutines.go: a value goes through a long chain") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    const bool is_light = which == kind::fiber;
    const int length = is_light ? scaled(10'000) : 50;
    channel<int> leftmost;
    channel<int> left = leftmost;
    channel<int> right = leftmost;
    crew threads(which);
    std::vector<concur::future<void>> fibers;
    for (int i = 0; i < length; ++i) {
      right = channel<int>();
      auto pass_on = [left, right]() mutable { left.send(*right.recv() + 1); };
      if (is_light)
        fibers.push_back(concur::go(pass_on));
      else
        threads.go(pass_on);
      left = right;
    }
    right.send(0);
    CONCUR_EXPECT(held, leftmost.recv() == length);
    for (concur::future<void>& one : fibers) one.get();
    threads.join();
    CHECK(held.report() == "");
  });
}

TEST_CASE("test/chan/nonblock.go: for several sizes and types of values") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    for (const std::size_t capacity : {0U, 1U}) {
      tries_that_meet_a_waiter<std::int32_t>(held, which, capacity, 123, 234);
      tries_that_meet_a_waiter<std::int64_t>(held, which, capacity, 123456, 234567);
      tries_that_meet_a_waiter<bool>(held, which, capacity, true, true);
      tries_that_meet_a_waiter<std::string>(held, which, capacity, "hello", "hello again");
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("test/chan/perm.go: an end does what it is for and nothing else") {
  const nothing_left_over guard;
  CHECK((can_send<channel<int>>::value && can_receive<channel<int>>::value && can_close<channel<int>>::value));
  CHECK((can_send<sender<int>>::value && can_close<sender<int>>::value));
  CHECK(can_be_sent_to_in_a_select<sender<int>>::value);
  CHECK_FALSE(can_receive<sender<int>>::value);
  CHECK_FALSE(can_range<sender<int>>::value);
  CHECK((can_receive<receiver<int>>::value && can_range<receiver<int>>::value));
  CHECK_FALSE(can_send<receiver<int>>::value);
  CHECK_FALSE(can_close<receiver<int>>::value);
  // Ends are made from channels, and nothing is made back from an end.
  CHECK((std::is_convertible<channel<int>, sender<int>>::value));
  CHECK((std::is_convertible<channel<int>, receiver<int>>::value));
  CHECK_FALSE((std::is_constructible<channel<int>, sender<int>>::value));
  CHECK_FALSE((std::is_constructible<channel<int>, receiver<int>>::value));
  CHECK_FALSE((std::is_constructible<sender<int>, receiver<int>>::value));
  CHECK_FALSE((std::is_constructible<receiver<int>, sender<int>>::value));
  CHECK_FALSE((std::is_constructible<sender<long>, channel<int>>::value));
}

TEST_CASE("test/chan/sendstmt.go: chanchan") {
  const nothing_left_over guard;
  everywhere([](kind) {
    tally held;
    channel<channel<int>> channels(1);
    channel<int> ch(1);
    channels.send(ch);
    bool has_sent = false;
    select(send(*channels.recv(), 2, [&] { has_sent = true; }), otherwise([] {}));
    CONCUR_EXPECT(held, has_sent && ch.recv() == 2);
    CHECK(held.report() == "");
  });
}

TEST_CASE("test/chan/zerosize.go") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    for (const std::size_t capacity : {0U, 1U, 3U}) {
      channel<nothing> of_structs(capacity);
      channel<std::array<char, 0>> of_arrays(capacity);
      channel<void> of_signals(capacity);
      crew others(which);
      others.go([&] {
        of_structs.send(nothing());
        of_arrays.send({});
        of_signals.send();
      });
      CONCUR_EXPECT(held, of_structs.recv().has_value());
      CONCUR_EXPECT(held, of_arrays.recv().has_value());
      CONCUR_EXPECT(held, of_signals.recv());
      others.join();
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("test/closedchan.go: every way to receive, send and close") {
  const nothing_left_over guard;
  everywhere([](kind) {
    tally held;
    constexpr int ways = 5;
    const auto receive = [&](channel<int>& ch, int way) {
      std::optional<int> got;
      const auto take = [&](std::optional<int> value) { got = value; };
      int slot = 0;
      if (way == 0) got = ch.recv();
      if (way == 1) got = ch.try_recv();
      if (way == 2) select(recv(ch, take));
      if (way == 3) select(recv(ch, take), otherwise([&] { CONCUR_EXPECT(held, false && "it was ready"); }));
      if (way == 4 && ch.recv_for(slot, 0ms) == status::ok) got = slot;
      return got;
    };
    for (int way = 0; way < ways; ++way) {
      channel<int> met;
      met.close();
      channel<int> held_one(2);
      held_one.send(1);
      held_one.close();
      CONCUR_EXPECT(held, receive(held_one, way) == 1);
      for (channel<int>* ch : {&met, &held_one}) {
        for (int i = 0; i < 3 * ways; ++i) CONCUR_EXPECT(held, !receive(*ch, i % ways));
        for (int sending = 0; sending < 3; ++sending) {
          int thrown = 0;
          try {
            if (sending == 0) ch->send(2);
            if (sending == 1) select(send(*ch, 2, [] {}));
            if (sending == 2) select(send(*ch, 2, [] {}), otherwise([] {}));
          } catch (const channel_closed&) {
            ++thrown;
          }
          try {
            ch->close();
          } catch (const channel_closed&) {
            ++thrown;
          }
          CONCUR_EXPECT(held, thrown == 2);
        }
      }
    }
    CHECK(held.report() == "");
  });
}

TEST_CASE("test/ken/chan1.go: many receivers get each value of one sender once") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    const std::size_t count = static_cast<std::size_t>(scaled(1000));
    std::vector<std::atomic<int>> state(count);
    channel<std::size_t> ch(2);
    crew receivers(which);
    for (int i = 0; i < 10; ++i) {
      receivers.go([&] {
        for (bool is_open = true; is_open;) {
          select(recv(ch, [&](std::optional<std::size_t> value) {
            is_open = value.has_value();
            if (is_open) CONCUR_EXPECT(held, state[*value].exchange(2) == 1);
          }));
        }
      });
    }
    for (std::size_t i = 0; i < count; ++i) {
      CONCUR_EXPECT(held, state[i].exchange(1) == 0);
      ch.send(i);
    }
    ch.close();
    receivers.join();
    for (const std::atomic<int>& one : state) CONCUR_EXPECT(held, one == 2);
    CHECK(held.report() == "");
  });
}
