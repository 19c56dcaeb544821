// test_channel.cpp - every cell of the channel's table, from fibers and from plain threads, with one, two and four
// workers.
//
//     nil, open and able to go, open and not able to go, closed   x   send, recv, close and their try_, _for and
//     _until forms
//
// and what holds in all of them: order, whose the value is, how often it is destroyed. Storms are in
// stress_channel.cpp.
#include "support/companion.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

using concur::channel;
using concur::channel_closed;
using concur::status;
using namespace std::chrono_literals;

namespace {

constexpr auto much_too_long = 20s;
using steady = std::chrono::steady_clock;

// Counts how many of it live.
struct counted {
  static std::atomic<int> live;
  int number = 0;

  explicit counted(int n) : number(n) { ++live; }
  counted(counted&& other) noexcept : number(std::exchange(other.number, -1)) { ++live; }
  counted& operator=(counted&& other) noexcept {
    number = std::exchange(other.number, -1);
    return *this;
  }
  ~counted() { --live; }
};
std::atomic<int> counted::live{0};

// The same, and cannot be moved while its number is the bad one.
struct fragile {
  static std::atomic<int> live;
  static std::atomic<int> bad;
  int number = 0;

  explicit fragile(int n) : number(n) { ++live; }
  fragile(fragile&& other) noexcept(false) {
    if (other.number == bad) throw std::runtime_error("this move fails");
    number = std::exchange(other.number, -1);
    ++live;
  }
  fragile& operator=(fragile&&) = delete;
  ~fragile() { --live; }
};
std::atomic<int> fragile::live{0};
std::atomic<int> fragile::bad{0};

struct alignas(64) wide {
  char bytes[200] = {};
};

bool is_aligned(const wide& value) { return reinterpret_cast<std::uintptr_t>(&value) % alignof(wide) == 0; }

}  // namespace

static_assert(std::is_nothrow_copy_constructible<channel<int>>::value, "a handle is copied like a pointer");
static_assert(std::is_nothrow_move_constructible<channel<std::unique_ptr<int>>>::value, "also one of a move-only type");

// --- nil ---

TEST_CASE("nil: the forms that do not park say no, the timed ones end in time") {
  const nothing_left_over guard;
  everywhere([](kind) {
    channel<int> ch = concur::nil;
    int value = 7;
    CHECK_FALSE(ch.try_send(value));
    CHECK_FALSE(ch.try_recv());
    for (const auto limit : {-1ms, 0ms, 3ms}) {
      const auto begin = steady::now();
      CHECK(ch.send_for(value, limit) == status::timeout);
      CHECK(ch.recv_for(value, limit) == status::timeout);
      CHECK(ch.send_until(value, steady::now() + limit) == status::timeout);
      CHECK(ch.recv_until(value, steady::now() + limit) == status::timeout);
      if (limit > 0ms) CHECK(steady::now() - begin >= 4 * limit);
    }
    CHECK(value == 7);
    CHECK_THROWS_AS(ch.close(), std::logic_error);
    bool is_closed_error = false;
    try {
      ch.close();
    } catch (const channel_closed&) {
      is_closed_error = true;
    } catch (const std::logic_error&) {
    }
    CHECK_FALSE(is_closed_error);
    CHECK_FALSE(ch.try_close());
    CHECK_FALSE(ch.closed());
    CHECK(ch.size() == 0);
    CHECK(ch.capacity() == 0);
    CHECK(ch == channel<int>(concur::nil));
    CHECK(ch != channel<int>());
  });
}

TEST_CASE("nil: send and recv park until they are cancelled") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::future<void> sender, receiver;
    {
      concur::runtime rt(with_workers(workers));
      sender = rt.go([] { channel<int>(concur::nil).send(1); });
      receiver = rt.go([] { channel<int>(concur::nil).recv(); });
      CHECK_FALSE(sender.wait_for(5ms));
      CHECK_FALSE(receiver.wait_for(5ms));
    }
    CHECK_THROWS_AS(sender.get(), concur::cancelled);
    CHECK_THROWS_AS(receiver.get(), concur::cancelled);
  }
}

// --- open ---

TEST_CASE("open, room in the ring: values are passed on in their order") {
  const nothing_left_over guard;
  everywhere([](kind) {
    for (const std::size_t capacity : {std::size_t{1}, std::size_t{2}, std::size_t{7}}) {
      channel<int> ch(capacity);
      CHECK(ch.capacity() == capacity);
      int sent = 0;
      int received = 0;
      // Round and round, so that the ring wraps in each position.
      for (std::size_t round = 0; round < 3 * capacity; ++round) {
        for (std::size_t i = 0; i <= round % capacity; ++i) ch.send(sent++);
        CHECK(ch.size() == round % capacity + 1);
        while (ch.size() != 0) CHECK(ch.recv() == received++);
      }
      CHECK(sent == received);
    }
  });
}

TEST_CASE("open, a receiver waits: the value goes to it directly") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    for (const std::size_t capacity : {std::size_t{0}, std::size_t{2}}) {
      channel<int> ch(capacity);
      for (int form = 0; form < 4; ++form) {
        std::optional<int> got;
        companion receiver(which, [&] { got = ch.recv(); });
        REQUIRE(receiver.wait_until_parked());
        int value = form;
        if (form == 0) ch.send(value);
        if (form == 1) CHECK(ch.try_send(value));
        if (form == 2) CHECK(ch.send_for(value, 0ms) == status::ok);
        if (form == 3) CHECK(ch.send_until(value, steady::now() + much_too_long) == status::ok);
        CHECK(ch.size() == 0);
        receiver.join();
        CHECK(got == form);
      }
    }
  });
}

TEST_CASE("open, a sender waits: the value is taken from it, or moves up into the ring") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    for (const std::size_t capacity : {std::size_t{0}, std::size_t{1}, std::size_t{2}}) {
      for (int form = 0; form < 4; ++form) {
        channel<int> ch(capacity);
        int next = 0;
        for (std::size_t i = 0; i < capacity; ++i) ch.send(next++);
        companion sender(which, [&, value = next] { ch.send(value); });
        REQUIRE(sender.wait_until_parked());
        CHECK(ch.size() == capacity);
        for (int expected = 0; expected <= next; ++expected) {
          int got = -1;
          if (form == 0) got = ch.recv().value_or(-1);
          if (form == 1) got = ch.try_recv().value_or(-1);
          if (form == 2) CHECK(ch.recv_for(got, 0ms) == status::ok);
          if (form == 3) CHECK(ch.recv_until(got, steady::now() + much_too_long) == status::ok);
          CHECK(got == expected);
        }
        sender.join();
        CHECK(ch.size() == 0);
      }
    }
  });
}

TEST_CASE("open, cannot go: the forms that do not park say no, the timed ones time out and leave the value") {
  const nothing_left_over guard;
  everywhere([](kind) {
    for (const std::size_t capacity : {std::size_t{0}, std::size_t{1}}) {
      channel<std::unique_ptr<int>> full(capacity);
      for (std::size_t i = 0; i < capacity; ++i) full.send(std::make_unique<int>(0));
      auto value = std::make_unique<int>(5);
      CHECK_FALSE(full.try_send(value));
      for (const auto limit : {std::chrono::nanoseconds::min(), std::chrono::nanoseconds(-1),
                               std::chrono::nanoseconds(0), std::chrono::nanoseconds(2000000)}) {
        const auto begin = steady::now();
        CHECK(full.send_for(value, limit) == status::timeout);
        CHECK(full.send_until(value, steady::now() + std::chrono::milliseconds(1)) == status::timeout);
        if (limit.count() > 0) CHECK(steady::now() - begin >= limit);
      }
      REQUIRE(value);
      CHECK(*value == 5);
      CHECK(full.size() == capacity);

      channel<int> empty(capacity);
      int slot = 9;
      CHECK_FALSE(empty.try_recv());
      CHECK(empty.recv_for(slot, -1ms) == status::timeout);
      CHECK(empty.recv_for(slot, 0ms) == status::timeout);
      const auto begin = steady::now();
      CHECK(empty.recv_for(slot, 3ms) == status::timeout);
      CHECK(steady::now() - begin >= 3ms);
      CHECK(empty.recv_until(slot, begin) == status::timeout);
      CHECK(slot == 9);
      // Who gave up has left the queue: nobody takes what comes now.
      CHECK_FALSE(empty.try_send(3) != (capacity == 1));
    }
  });
}

TEST_CASE("open, a timed wait that is served in time") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    channel<int> ch;
    int slot = 0;
    companion receiver(which, [&] { CHECK(ch.recv_for(slot, much_too_long) == status::ok); });
    REQUIRE(receiver.wait_until_parked());
    ch.send(4);
    receiver.join();
    CHECK(slot == 4);
    companion sender(which, [&] {
      int value = 6;
      CHECK(ch.send_for(value, much_too_long) == status::ok);
    });
    REQUIRE(sender.wait_until_parked());
    CHECK(ch.recv() == 6);
  });
}

// --- closed ---

TEST_CASE("closed: sends throw and leave the value, receives drain and then give nothing, a second close throws") {
  const nothing_left_over guard;
  everywhere([](kind) {
    for (const std::size_t capacity : {std::size_t{0}, std::size_t{3}}) {
      channel<std::unique_ptr<int>> ch(capacity);
      for (std::size_t i = 0; i + 1 < capacity; ++i) ch.send(std::make_unique<int>(static_cast<int>(i)));
      CHECK_FALSE(ch.closed());
      ch.close();
      CHECK(ch.closed());
      CHECK_THROWS_AS(ch.close(), channel_closed);
      CHECK_FALSE(ch.try_close());

      auto value = std::make_unique<int>(5);
      CHECK_THROWS_AS(ch.send(std::move(value)), channel_closed);
      REQUIRE(value);
      CHECK_FALSE(ch.try_send(value));
      CHECK(ch.send_for(value, 1ms) == status::closed);
      CHECK(ch.send_for(value, -1ms) == status::closed);
      CHECK(ch.send_until(value, steady::now() + much_too_long) == status::closed);
      REQUIRE(value);
      CHECK(*value == 5);

      for (std::size_t i = 0; i + 1 < capacity; ++i) {
        std::unique_ptr<int> got;
        if (i == 0)
          got = ch.recv().value();
        else
          CHECK(ch.recv_for(got, 0ms) == status::ok);
        REQUIRE(got);
        CHECK(*got == static_cast<int>(i));
      }
      std::unique_ptr<int> untouched = std::make_unique<int>(1);
      CHECK_FALSE(ch.recv());
      CHECK_FALSE(ch.try_recv());
      CHECK(ch.recv_for(untouched, much_too_long) == status::closed);
      CHECK(ch.recv_for(untouched, -1ms) == status::closed);
      CHECK(ch.recv_until(untouched, steady::now() + much_too_long) == status::closed);
      CHECK(untouched);
    }
  });
}

TEST_CASE("close wakes every receiver with nothing") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    channel<int> ch;
    std::atomic<int> empty{0};
    std::vector<companion> receivers;
    for (int i = 0; i < 5; ++i) {
      receivers.emplace_back(which, [&, i] {
        int slot = 0;
        if (i % 2 == 0)
          empty += ch.recv() ? 0 : 1;
        else
          empty += ch.recv_for(slot, much_too_long) == status::closed ? 1 : 0;
      });
      REQUIRE(receivers.back().wait_until_parked());
    }
    ch.close();
    for (companion& one : receivers) one.join();
    CHECK(empty == 5);
  });
}

TEST_CASE("close wakes every sender with channel_closed, and the values are the senders'") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    for (const std::size_t capacity : {std::size_t{0}, std::size_t{1}}) {
      channel<std::unique_ptr<int>> ch(capacity);
      if (capacity == 1) ch.send(std::make_unique<int>(-1));
      std::atomic<int> kept{0};
      std::vector<companion> senders;
      for (int i = 0; i < 5; ++i) {
        senders.emplace_back(which, [&, i] {
          auto value = std::make_unique<int>(i);
          if (i % 2 == 0)
            CHECK_THROWS_AS(ch.send(std::move(value)), channel_closed);
          else
            CHECK(ch.send_for(value, much_too_long) == status::closed);
          kept += value != nullptr && *value == i ? 1 : 0;
        });
        REQUIRE(senders.back().wait_until_parked());
      }
      ch.close();
      for (companion& one : senders) one.join();
      CHECK(kept == 5);
      // What was in the ring before is still to be had, and nothing else.
      CHECK(ch.size() == capacity);
      if (capacity == 1) CHECK(**ch.recv() == -1);
      CHECK_FALSE(ch.recv());
    }
  });
}

// --- order ---

TEST_CASE("receivers are served in the order in which they came") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    channel<int> ch(2);
    std::array<std::atomic<int>, 6> got{};
    std::vector<companion> receivers;
    for (std::size_t i = 0; i < got.size(); ++i) {
      receivers.emplace_back(which, [&, i] { got[i] = *ch.recv(); });
      REQUIRE(receivers.back().wait_until_parked());
    }
    for (int i = 0; i < 6; ++i) ch.send(100 + i);
    for (companion& one : receivers) one.join();
    for (std::size_t i = 0; i < got.size(); ++i) CHECK(got[i] == 100 + static_cast<int>(i));
  });
}

TEST_CASE("senders are served in the order in which they came, through a ring as well") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    for (const std::size_t capacity : {std::size_t{0}, std::size_t{1}, std::size_t{3}}) {
      channel<int> ch(capacity);
      const int in_ring = static_cast<int>(capacity);
      for (int i = 0; i < in_ring; ++i) ch.send(i);
      std::vector<companion> senders;
      for (int i = 0; i < 6; ++i) {
        senders.emplace_back(which, [&ch, value = in_ring + i] { ch.send(value); });
        REQUIRE(senders.back().wait_until_parked());
      }
      for (int i = 0; i < in_ring + 6; ++i) {
        CHECK(ch.recv() == i);
        // H3: with senders waiting the ring is full again at once, and a late sender finds no room to overtake through.
        if (i < 6) CHECK(ch.size() == capacity);
        int late = 1000;
        if (i < 5) CHECK_FALSE(ch.try_send(late));
      }
    }
  });
}

TEST_CASE("who gave up leaves the queue at once, from every place in it") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    for (int quitter = 0; quitter < 3; ++quitter) {
      channel<int> ch;
      std::array<std::atomic<int>, 3> got{};
      std::vector<companion> receivers;
      for (int i = 0; i < 3; ++i) {
        receivers.emplace_back(which, [&, i] {
          int slot = -1;
          const auto limit = i == quitter ? std::chrono::milliseconds(1) : std::chrono::milliseconds(much_too_long);
          CHECK(ch.recv_for(slot, limit) == (i == quitter ? status::timeout : status::ok));
          got[static_cast<std::size_t>(i)] = slot;
        });
        receivers.back().wait_until_parked();
      }
      receivers[static_cast<std::size_t>(quitter)].join();
      ch.send(0);
      ch.send(1);
      for (companion& one : receivers) one.join();
      int expected = 0;
      for (int i = 0; i < 3; ++i) CHECK(got[static_cast<std::size_t>(i)] == (i == quitter ? -1 : expected++));
    }
  });
}

// --- kinds of values ---

TEST_CASE("signals: a channel of void") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    channel<void> ch(2);
    CHECK(ch.try_send());
    ch.send();
    CHECK_FALSE(ch.try_send());
    CHECK(ch.send_for(1ms) == status::timeout);
    CHECK(ch.size() == 2);
    CHECK(ch.recv());
    CHECK(ch.recv_for(1ms) == status::ok);
    CHECK_FALSE(ch.try_recv());
    CHECK(ch.recv_for(1ms) == status::timeout);
    bool got = true;
    companion receiver(which, [&] { got = ch.recv(); });
    REQUIRE(receiver.wait_until_parked());
    ch.close();
    receiver.join();
    CHECK_FALSE(got);
    CHECK_THROWS_AS(ch.send(), channel_closed);
    CHECK(ch.send_for(1ms) == status::closed);
    CHECK(ch.recv_for(1ms) == status::closed);
    channel<void> never_ready = concur::nil;
    CHECK_FALSE(never_ready.try_send());
    CHECK_FALSE(never_ready.try_recv());
  });
}

TEST_CASE("large and aligned values, and copies of a sent lvalue") {
  const nothing_left_over guard;
  everywhere([](kind) {
    channel<wide> ch(3);
    wide value;
    value.bytes[199] = 'x';
    ch.send(value);
    ch.send(std::move(value));
    const std::optional<wide> got = ch.recv();
    CHECK(is_aligned(*got));
    CHECK(got->bytes[199] == 'x');

    channel<std::string> words(1);
    const std::string kept = "a word that is too long for the small string";
    words.send(kept);
    CHECK(words.recv() == kept);
    CHECK(kept.size() == 44);
  });
}

TEST_CASE("every value is destroyed once, wherever it ends") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    REQUIRE(counted::live == 0);
    {
      channel<counted> ch(4);
      for (int i = 0; i < 3; ++i) ch.send(counted(i));
      CHECK(counted::live == 3);
      ch.recv();
      CHECK(counted::live == 2);
      counted lent(7);
      CHECK(ch.send_for(lent, 1ms) == status::ok);
      CHECK(lent.number == -1);
      companion waiting(which, [&] {
        ch.send(counted(8));
        ch.send(counted(9));
      });
      REQUIRE(waiting.wait_until_parked());
      for (const int number : {1, 2, 7, 8, 9}) CHECK(ch.recv()->number == number);
      waiting.join();
      ch.send(counted(1));
    }
    CHECK(counted::live == 0);
    {
      // A copy of the handle keeps the channel, and what is in it.
      channel<counted> copy = concur::nil;
      {
        channel<counted> ch(2);
        ch.send(counted(1));
        copy = ch;
        CHECK(copy == ch);
      }
      CHECK(counted::live == 1);
      CHECK(copy.recv()->number == 1);
      copy.send(counted(2));
      copy.close();
    }
    CHECK(counted::live == 0);
  });
}

TEST_CASE("a move that throws loses no value and no waiter") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    REQUIRE(fragile::live == 0);
    {
      channel<fragile> ring(2);
      fragile first(1);
      fragile::bad = 1;
      CHECK_THROWS_AS(ring.try_send(first), std::runtime_error);
      CHECK(first.number == 1);
      CHECK(ring.size() == 0);
      fragile::bad = 0;
      CHECK(ring.try_send(first));
      fragile::bad = 1;
      CHECK_THROWS_AS(ring.recv(), std::runtime_error);
      CHECK(ring.size() == 1);
      fragile::bad = 0;
      CHECK(ring.recv()->number == 1);
    }
    {
      // To a waiting receiver: the sender gets the exception, the receiver waits on.
      channel<fragile> ch;
      int got = 0;
      companion receiver(which, [&] { got = ch.recv()->number; });
      REQUIRE(receiver.wait_until_parked());
      fragile::bad = 2;
      CHECK_THROWS_AS(ch.send(fragile(2)), std::runtime_error);
      ch.send(fragile(3));
      receiver.join();
      CHECK(got == 3);
    }
    {
      // From a waiting sender: it finds out by itself, and the receiver waits for the next.
      channel<fragile> ch;
      bool has_thrown = false;
      fragile::bad = 4;
      companion sender(which, [&] {
        try {
          ch.send(fragile(4));
        } catch (const std::runtime_error&) {
          has_thrown = true;
        }
        ch.send(fragile(5));
      });
      REQUIRE(sender.wait_until_parked());
      CHECK(ch.recv()->number == 5);
      sender.join();
      CHECK(has_thrown);
    }
    {
      // From a waiting sender into the ring, while the receive itself succeeds: that receive is not to suffer.
      channel<fragile> ch(1);
      ch.send(fragile(6));
      bool has_thrown = false;
      fragile::bad = 7;
      companion sender(which, [&] {
        try {
          ch.send(fragile(7));
        } catch (const std::runtime_error&) {
          has_thrown = true;
        }
      });
      REQUIRE(sender.wait_until_parked());
      CHECK(ch.recv()->number == 6);
      sender.join();
      CHECK(has_thrown);
      CHECK(ch.size() == 0);
      fragile::bad = 0;
    }
    CHECK(fragile::live == 0);
  });
}

TEST_CASE("a range-for ends when the channel is closed and drained") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    for (const std::size_t capacity : {std::size_t{0}, std::size_t{3}}) {
      channel<std::unique_ptr<int>> ch(capacity);
      companion sender(which, [&] {
        for (int i = 0; i < 50; ++i) ch.send(std::make_unique<int>(i));
        ch.close();
      });
      int expected = 0;
      for (std::unique_ptr<int> value : ch) CHECK(*value == expected++);
      CHECK(expected == 50);
      for (std::unique_ptr<int> value : ch) CHECK(*value == -1);
    }
  });
}

TEST_CASE("a capacity beyond memory is refused with its value") {
  const nothing_left_over guard;
  for (const std::size_t capacity : {static_cast<std::size_t>(-1), static_cast<std::size_t>(-1) / sizeof(long)}) {
    bool is_refused = false;
    try {
      channel<long> ch(capacity);
    } catch (const std::invalid_argument& error) {
      is_refused = std::string(error.what()).find(std::to_string(capacity)) != std::string::npos;
    }
    CHECK(is_refused);
  }
}

// --- cancellation ---

TEST_CASE("cancelled waiters leave the queues, and lose nothing") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    channel<std::unique_ptr<int>> ch(1);
    channel<int> empty;
    ch.send(std::make_unique<int>(0));
    std::atomic<int> kept{0};
    std::atomic<int> cancelled{0};
    {
      concur::runtime rt(with_workers(workers));
      std::atomic<int> begun{0};
      for (int i = 1; i <= 20; ++i) {
        rt.go([&, i] {
          auto value = std::make_unique<int>(i);
          ++begun;
          try {
            if (i % 2 == 0)
              ch.send(std::move(value));
            else
              empty.recv();
          } catch (const concur::cancelled&) {
            ++cancelled;
            kept += value != nullptr && *value == i ? 1 : 0;
            throw;
          }
        });
      }
      while (begun != 20) std::this_thread::yield();
    }
    CHECK(cancelled == 20);
    CHECK(kept == 20);
    // Nobody waits there any more: the one value is the one in the ring, and no receiver is left to be served.
    CHECK(**ch.try_recv() == 0);
    CHECK_FALSE(ch.try_recv());
    int value = 1;
    CHECK_FALSE(empty.try_send(value));
  }
}

TEST_CASE("a cancelled fiber's next operation is cancelled too, the forms that do not park are not") {
  const nothing_left_over guard;
  channel<int> ch(1);
  int cancelled = 0;
  bool could_try = false;
  {
    concur::runtime rt(with_workers(1));
    std::atomic<bool> has_begun{false};
    rt.go([&] {
      has_begun = true;
      for (int i = 0; i < 3; ++i) {
        try {
          if (i == 0)
            channel<int>(concur::nil).recv();
          else
            ch.send(i);  // there is room, and it is a checkpoint all the same
        } catch (const concur::cancelled&) {
          ++cancelled;
        }
      }
      int value = 5;
      could_try = ch.try_send(value) && ch.try_recv() == 5;
    });
    while (!has_begun) std::this_thread::yield();
  }
  CHECK(cancelled == 3);
  CHECK(could_try);
}

// --- ordering between parties ---

TEST_CASE("what happens before a send is seen after its receive, and the room made is seen by the sender") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    // Plain memory, ordered by the channel alone; ThreadSanitizer sees when it is not.
    std::vector<int> cells(300);
    channel<std::size_t> ch(2);
    companion sender(which, [&] {
      for (std::size_t i = 0; i < cells.size(); ++i) {
        cells[i] = static_cast<int>(i);
        ch.send(i);
      }
      cells[0] = -1;
      ch.close();
    });
    std::size_t seen = 0;
    for (const std::size_t i : ch) {
      CHECK(i == seen++);
      if (i != 0) CHECK(cells[i] == static_cast<int>(i));
    }
    CHECK(cells[0] == -1);  // the close, too, happens before the receive that sees it
    CHECK(seen == cells.size());
    // The k-th receive happens before the (k+C)-th send completes.
    long done[64] = {};
    channel<int> bounded(1);
    companion receiver(which, [&] {
      for (long& one : done) {
        one = 1;
        bounded.recv();
      }
    });
    for (std::size_t i = 0; i < 64; ++i) {
      bounded.send(0);
      if (i >= 1) CHECK(done[i - 1] == 1);
    }
  });
}

TEST_CASE("several runtimes and plain threads on one channel") {
  const nothing_left_over guard;
  channel<int> ch(3);
  constexpr int per_party = 400;
  std::atomic<long> sum{0};
  std::atomic<int> received{0};
  {
    concur::runtime first(with_workers(2));
    concur::runtime second(with_workers(1));
    std::vector<concur::future<void>> senders;
    const auto send_all = [&] {
      for (int i = 0; i < per_party; ++i) ch.send(i);
    };
    const auto receive_all = [&] {
      for (int value : ch) {
        sum += value;
        ++received;
      }
    };
    senders.push_back(first.go(send_all));
    senders.push_back(second.go(send_all));
    std::thread sending(send_all);
    concur::future<void> receiver = second.go(receive_all);
    concur::future<void> other = first.go(receive_all);
    std::thread receiving(receive_all);
    for (concur::future<void>& one : senders) one.get();
    sending.join();
    ch.close();
    receiver.get();
    other.get();
    receiving.join();
  }
  CHECK(received == 3 * per_party);
  CHECK(sum == 3L * per_party * (per_party - 1) / 2);
}
