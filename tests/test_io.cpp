// test_io.cpp - the POSIX-shaped calls: pipes, sockets and files as descriptors, and what happens to their numbers.
//
// A descriptor is a small number that the kernel gives out again as soon as it is free. So the cases that matter are
// those in which a number changes its owner while fibers wait, events are on their way, or calls are in progress.
#include "support/crew.hpp"
#include "support/deny_call.hpp"
#include "support/tally.hpp"
#include "support/test.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace io = concur::io;
using concur::detail::descriptor_slot;
using concur::detail::direction;
using concur::detail::slot_of;

namespace {

__attribute__((noinline)) int errno_now() {
  asm volatile("" : : : "memory");
  return errno;
}

struct pipe_ends {
  pipe_ends() {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    in = ends[0];
    out = ends[1];
  }
  ~pipe_ends() {
    close_in();
    close_out();
  }
  pipe_ends(const pipe_ends&) = delete;
  pipe_ends& operator=(const pipe_ends&) = delete;
  void close_in() {
    if (in >= 0) io::close(std::exchange(in, -1));
  }
  void close_out() {
    if (out >= 0) io::close(std::exchange(out, -1));
  }
  int in = -1;
  int out = -1;
};

struct socket_pair {
  socket_pair() { REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0); }
  ~socket_pair() {
    for (const int fd : ends) {
      if (fd >= 0) io::close(fd);
    }
  }
  socket_pair(const socket_pair&) = delete;
  socket_pair& operator=(const socket_pair&) = delete;
  int ends[2] = {-1, -1};
};

bool is_busy(int fd, direction d) {
  concur::detail::descriptor_slot* slot = concur::detail::slot_of(fd);
  if (slot == nullptr) return false;
  const concur::detail::lock_scope<concur::spin_lock> held(slot->lock);
  return !slot->side(d).waiting.is_empty() && !slot->side(d).has_turn;
}
void await_reader(int fd) {
  while (!is_busy(fd, direction::reading)) concur::this_fiber::yield();
}
void await_writer(int fd) {
  while (!is_busy(fd, direction::writing)) concur::this_fiber::yield();
}

template <class Body>
void on_one_two_and_four(Body body) {
  for (const unsigned workers : {1u, 2u, 4u}) concur::run(with_workers(workers), body);
}

}  // namespace

// --- pipes, sockets, files ---

TEST_CASE("a pipe carries bytes from fiber to fiber, and its end") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    pipe_ends ends;
    concur::future<std::string> reader = concur::go([&] {
      std::string all;
      char some[1000];
      for (long count; (count = io::read(ends.in, some, sizeof some)) > 0;)
        all.append(some, static_cast<std::size_t>(count));
      return all;
    });
    std::string sent;
    for (int i = 0; i < 300; ++i) {
      const std::string piece(static_cast<std::size_t>(i) * 3 + 1, static_cast<char>('a' + i % 26));
      std::size_t done = 0;
      while (done < piece.size()) {
        const long count = io::write(ends.out, piece.data() + done, piece.size() - done);
        REQUIRE(count > 0);
        done += static_cast<std::size_t>(count);
      }
      sent += piece;
    }
    ends.close_out();
    CHECK(reader.get() == sent);
  });
}

TEST_CASE("a full pipe parks its writer, a reader lets it go on") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    pipe_ends ends;
    const std::string much(1 << 20, 'x');
    concur::future<std::size_t> writer = concur::go([&] {
      std::size_t done = 0;
      while (done < much.size())
        done += static_cast<std::size_t>(io::write(ends.out, much.data() + done, much.size() - done));
      return done;
    });
    await_writer(ends.out);
    std::size_t got = 0;
    char some[5000];
    while (got < much.size()) {
      const long count = io::read(ends.in, some, sizeof some);
      REQUIRE(count > 0);
      got += static_cast<std::size_t>(count);
    }
    CHECK(writer.get() == much.size());
  });
}

TEST_CASE("a writer whose reader goes gets EPIPE, and no signal kills the process") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    pipe_ends ends;
    const std::string much(1 << 20, 'x');
    concur::future<int> writer = concur::go([&] {
      while (io::write(ends.out, much.data(), much.size()) > 0) {
      }
      return errno_now();
    });
    await_writer(ends.out);
    ends.close_in();
    CHECK(writer.get() == EPIPE);
    socket_pair both;
    io::close(std::exchange(both.ends[1], -1));
    CHECK(io::write(both.ends[0], "x", 1) == -1);
    CHECK(errno_now() == EPIPE);
  });
}

TEST_CASE("regular files are read and written") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    char name[] = "/tmp/concur_test_XXXXXX";
    const int fd = ::mkstemp(name);
    REQUIRE(fd >= 0);
    ::unlink(name);
    const std::string text = "a few words, and a few more";
    CHECK(io::write(fd, text.data(), text.size()) == static_cast<long>(text.size()));
    ::lseek(fd, 0, SEEK_SET);
    char back[100];
    CHECK(io::read(fd, back, sizeof back) == static_cast<long>(text.size()));
    CHECK(std::string(back, text.size()) == text);
    CHECK(io::read(fd, back, sizeof back) == 0);
    CHECK(io::close(fd) == 0);
  });
}

TEST_CASE("no bytes asked for are no bytes read, without waiting") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    pipe_ends ends;
    CHECK(io::write(ends.out, "x", 0) == 0);
    CHECK(io::write(ends.out, "x", 1) == 1);
    char byte = 0;
    CHECK(io::read(ends.in, &byte, 0) == 0);
    CHECK(io::read(ends.in, &byte, 1) == 1);
  });
}

// --- order ---

TEST_CASE("several readers of one descriptor take turns in the order they came") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    socket_pair both;
    constexpr int readers = 16;
    std::vector<concur::future<int>> all;
    for (int i = 0; i < readers; ++i) {
      all.push_back(concur::go([&] {
        unsigned char byte = 0;
        return io::read(both.ends[0], &byte, 1) == 1 ? int{byte} : -1;
      }));
      // One after the other, or who came first would be a matter of luck.
      descriptor_slot* slot = slot_of(both.ends[0]);
      for (;;) {
        concur::this_fiber::yield();
        concur::detail::lock_scope<concur::spin_lock> held(slot->lock);
        const concur::detail::waiter* const first = slot->side(direction::reading).waiting.front();
        int waiting = first != nullptr ? 1 : 0;
        // The list is a ring.
        for (const concur::detail::waiter* note = first; note != nullptr && note->next != first; note = note->next)
          ++waiting;
        if (waiting == i + 1) break;
      }
    }
    unsigned char bytes[readers];
    for (int i = 0; i < readers; ++i) bytes[i] = static_cast<unsigned char>(i);
    // Half of them at once, the others one by one.
    REQUIRE(io::write(both.ends[1], bytes, readers / 2) == readers / 2);
    for (int i = readers / 2; i < readers; ++i) {
      concur::this_fiber::yield();
      REQUIRE(io::write(both.ends[1], bytes + i, 1) == 1);
    }
    for (int i = 0; i < readers; ++i) CHECK(all[static_cast<std::size_t>(i)].get() == i);
  });
}

// Two readers, one of which asks for less than there is: what it leaves is there for the other.
TEST_CASE("bytes that one reader leaves are not forgotten") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    socket_pair both;
    std::atomic<long> total{0};
    std::vector<concur::future<void>> readers;
    for (std::size_t i = 0; i < 4; ++i) {
      readers.push_back(concur::go([&, i] {
        concur::tcp_stream stream(both.ends[0]);  // any stream socket will do
        char some[64];
        std::error_code error;
        while (const std::size_t count = stream.read_some(some, i * 20 + 1, error))
          total.fetch_add(static_cast<long>(count));
        static_cast<void>(stream.release());
      }));
    }
    long sent = 0;
    for (int i = 0; i < 3000; ++i) {
      const std::size_t size = static_cast<std::size_t>(i) % 50 + 1;
      const std::string piece(size, 'x');
      sent += io::write(both.ends[1], piece.data(), size);
      if (i % 3 == 0) concur::this_fiber::yield();
      if (i % 100 == 0) concur::this_fiber::sleep_for(std::chrono::microseconds(30));
    }
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (total.load() != sent && std::chrono::steady_clock::now() < limit) concur::this_fiber::yield();
    CHECK(total.load() == sent);
    ::shutdown(both.ends[1], SHUT_WR);
    for (concur::future<void>& one : readers) CHECK(one.wait_for(std::chrono::seconds(10)));
  });
}

// --- closing, and numbers that come again ---

namespace {

// Returns when the poller has given out all that it had to tell: news of a pair of its own comes behind it.
void deliver_news() {
  socket_pair own;
  concur::future<bool> reader = concur::go([fd = own.ends[0]] {
    char byte = 0;
    return io::read(fd, &byte, 1) == 1;
  });
  await_reader(own.ends[0]);
  CHECK(::write(own.ends[1], "x", 1) == 1);
  CHECK(reader.get());
}

}  // namespace

// Both were told "not now" before the news came, and wait after it; the first takes one byte of two.
TEST_CASE("news is for everybody who tried before it") {
  const nothing_left_over guard;
  concur::run(with_workers(1), [] {
    socket_pair both;
    const int fd = both.ends[0];
    descriptor_slot* slot = slot_of(fd);
    slot->lock.lock();
    CHECK(concur::detail::watch_descriptor(*slot, fd, *concur::detail::this_worker()->sched) == 0);
    slot->lock.unlock();
    const concur::detail::side_use before{slot->present_generation(), slot->side(direction::reading).present_news()};
    REQUIRE(::write(both.ends[1], "ab", 2) == 2);
    while (slot->side(direction::reading).present_news() == before.news) deliver_news();
    for (int i = 0; i < 2; ++i) {
      concur::detail::side_use use = before;
      int error = 0;
      const concur::detail::nanoseconds_t soon = concur::detail::deadline_after(std::chrono::milliseconds(10));
      CHECK(concur::detail::wait_ready(*slot, fd, direction::reading, soon, use, error) ==
            concur::detail::outcome::granted);
      char byte = 0;
      CHECK(::recv(fd, &byte, 1, MSG_DONTWAIT) == 1);
      concur::detail::leave_turn(*slot, direction::reading, use);
    }
  });
}

TEST_CASE("closing wakes readers and writers with ECANCELED") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    for (int round = 0; round < 20; ++round) {
      socket_pair both;
      const int fd = both.ends[0];
      concur::future<int> reader = concur::go([fd] {
        char byte = 0;
        return io::read(fd, &byte, 1) == -1 ? errno_now() : 0;
      });
      concur::future<int> writer = concur::go([fd] {
        const std::string much(1 << 20, 'x');
        while (io::write(fd, much.data(), much.size()) > 0) {
        }
        return errno_now();
      });
      await_reader(fd);
      await_writer(fd);
      deliver_news();  // the first registration's: it wakes the writer once more for nothing
      await_reader(fd);
      await_writer(fd);
      CHECK(io::close(std::exchange(both.ends[0], -1)) == 0);
      CHECK(reader.get() == ECANCELED);
      CHECK(writer.get() == ECANCELED);
    }
  });
}

// The number is closed by one fiber and given out again to the same or another, thousands of times, while others wait on
// it. Each waiter gets ECANCELED or its own connection's bytes, never those of the next owner.
TEST_CASE("a number that is used again is not confused with the one before") {
  const nothing_left_over guard;
  tally held;
  on_one_two_and_four([&held] {
    constexpr int fibers = 8;
    std::vector<concur::future<void>> all;
    for (int f = 0; f < fibers; ++f) {
      all.push_back(concur::go([&held, f] {
        for (int round = 0; round < 150; ++round) {
          socket_pair both;
          const char own = static_cast<char>(f * 16 + round % 16);
          const int fd = both.ends[0];
          concur::future<int> reader = concur::go([fd] {
            char byte = 0;
            const long count = io::read(fd, &byte, 1);
            return count == 1 ? int{byte} : -errno_now();
          });
          // Only once the reader waits may the number go; the reader itself must not come too late for it.
          await_reader(fd);
          if (round % 3 == 0) {
            io::close(std::exchange(both.ends[0], -1));
            CONCUR_EXPECT(held, reader.get() == -ECANCELED);
          } else {
            io::write(both.ends[1], &own, 1);
            CONCUR_EXPECT(held, reader.get() == int{own});
            // Closed with an event under way that nobody will read.
            if (round % 3 == 1) io::write(both.ends[1], &own, 1);
          }
        }
      }));
    }
    for (concur::future<void>& one : all) one.get();
  });
  CHECK(held.report() == "");
}

// Between any two steps of a call that begins to wait, the descriptor is closed by another fiber. ThreadSanitizer takes any
// call beside a close for a race.
#if !CONCUR_TSAN
TEST_CASE("a call that meets the close of its descriptor ends, wherever it is") {
  const nothing_left_over guard;
  tally held;
  for (const unsigned workers : {2U, 4U}) {
    concur::run(with_workers(workers), [&held] {
      for (int round = 0; round < scaled(20000); ++round) {
        socket_pair both;
        const int fd = both.ends[0];
        std::atomic<bool> has_begun{false};
        concur::future<int> reader = concur::go([&, fd] {
          has_begun = true;
          char byte = 0;
          return io::read(fd, &byte, 1) < 0 ? errno_now() : 0;
        });
        while (!has_begun) concur::this_fiber::yield();
        for (int i = round % 256; i > 0; --i) concur::detail::cpu_relax();
        CONCUR_EXPECT(held, io::close(std::exchange(both.ends[0], -1)) == 0);
        const int error = reader.get();
        CONCUR_EXPECT(held, error == ECANCELED || error == EBADF);
      }
    });
  }
  CHECK(held.report() == "");
}

// The kernel may take its time, and until it is through the number still works.
TEST_CASE("nobody begins to wait for a descriptor while it is being closed") {
  const nothing_left_over guard;
  concur::runtime rt(with_workers(1));
  socket_pair both;
  const int fd = std::exchange(both.ends[0], -1);
  rt.block_on([fd] { slot_of(fd); });
  const std::uint32_t generation = concur::detail::begin_close(fd);
  std::atomic<bool> has_begun{false};
  concur::future<int> reader = rt.go([&, fd] {
    has_begun = true;
    char byte = 0;
    return io::read(fd, &byte, 1) < 0 ? errno_now() : 0;
  });
  while (!has_begun) std::this_thread::yield();
  bool has_waited = false;
  for (int i = 0; i < 10000; ++i) {
    has_waited = has_waited || is_busy(fd, direction::reading);
    std::this_thread::yield();
  }
  CHECK_FALSE(has_waited);
  ::close(fd);
  concur::detail::end_close(fd, generation);
  if (has_waited) concur::detail::forget_descriptor(fd);
  CHECK(reader.get() == (has_waited ? ECANCELED : EBADF));
}
#endif

// As a fiber that was woken, and is at its system call now.
TEST_CASE("a descriptor is not closed under a call that waited for it") {
  const nothing_left_over guard;
  socket_pair both;
  const int fd = std::exchange(both.ends[0], -1);
  descriptor_slot* slot = slot_of(fd);
  concur::detail::side_use use{slot->generation_of_use()};
  slot->lock.lock();
  concur::detail::begin_call(slot->side(direction::reading), use);
  slot->lock.unlock();
  std::atomic<bool> is_closed{false};
  std::thread closer([&] {
    io::close(fd);
    is_closed = true;
  });
  while (!slot->is_outdated(use)) std::this_thread::yield();
  for (int i = 0; i < 10000 && !is_closed; ++i) std::this_thread::yield();
  CHECK_FALSE(is_closed);
  concur::detail::leave_turn(*slot, direction::reading, use);
  closer.join();
  CHECK(slot->side(direction::reading).calls == 0);
}

TEST_CASE("who saw a number's former use does not wait for its present one") {
  const nothing_left_over guard;
  concur::run(with_workers(1), [] {
    socket_pair both;
    socket_pair next;
    const int fd = both.ends[0];
    descriptor_slot* slot = slot_of(fd);
    concur::detail::side_use use{slot->present_generation()};
    io::close(std::exchange(both.ends[0], -1));
    both.ends[0] = ::dup(next.ends[0]);
    REQUIRE(both.ends[0] == fd);
    const concur::detail::nanoseconds_t soon = concur::detail::deadline_after(std::chrono::milliseconds(10));
    int error = 0;
    CHECK(concur::detail::wait_ready(*slot, fd, direction::reading, soon, use, error) ==
          concur::detail::outcome::closed);
    CHECK(concur::detail::wait_turn(*slot, direction::reading, soon, use) == concur::detail::outcome::closed);
    CHECK_FALSE(use.has_turn);
  });
}

TEST_CASE("news about a number's former owner is not given to the present one") {
  const nothing_left_over guard;
  concur::run(with_workers(1), [] {
    socket_pair both;
    const int fd = both.ends[0];
    descriptor_slot* slot = slot_of(fd);
    io::close(std::exchange(both.ends[0], -1));  // ends a generation, whatever there was
    const std::uint32_t former = slot->generation;
    const int again = ::dup(both.ends[1]);
    REQUIRE(again == fd);
    io::close(again);
    CHECK(slot->generation != former);
    const std::uint32_t news[2] = {slot->sides[0].news, slot->sides[1].news};
    // As a poller delivers it that fetched it before the close.
    concur::detail::dispatch_event({static_cast<std::uint32_t>(fd), former, concur::detail::everything_ready});
    CHECK(slot->sides[0].news == news[0]);
    CHECK(slot->sides[1].news == news[1]);
    CHECK(!slot->has_ended.load());
    concur::detail::dispatch_event(
        {static_cast<std::uint32_t>(fd), slot->generation, concur::detail::everything_ready});
    CHECK(slot->sides[0].news != news[0]);
    CHECK(slot->sides[1].news != news[1]);
    concur::detail::forget_descriptor(fd);
  });
}

// The reader was woken, and has yet to run: by then the number is another's, and so are the bytes there.
TEST_CASE("who was woken for a number that has changed hands since takes nothing of its new owner") {
  const nothing_left_over guard;
  concur::run(with_workers(1), [] {
    for (const bool has_bytes : {true, false}) {
      CAPTURE(has_bytes);
      socket_pair both;
      socket_pair next;
      const int fd = both.ends[0];
      concur::future<long> reader = concur::go([fd] {
        char byte = 0;
        const long count = io::read(fd, &byte, 1);
        return count < 0 ? -long{errno_now()} : count;
      });
      await_reader(fd);
      concur::detail::dispatch_event(
          {static_cast<std::uint32_t>(fd), slot_of(fd)->generation, concur::detail::everything_ready});
      io::close(std::exchange(both.ends[0], -1));
      const int again = ::dup(next.ends[0]);
      REQUIRE(again == fd);
      if (has_bytes) REQUIRE(::write(next.ends[1], "x", 1) == 1);
      CHECK(reader.get() == -ECANCELED);
      char byte = 0;
      if (has_bytes) CHECK(::recv(again, &byte, 1, MSG_DONTWAIT) == 1);
      CHECK_FALSE(slot_of(fd)->side(direction::reading).has_turn);
      io::close(again);
    }
  });
}

// A descriptor watched by one runtime is used by another afterwards, and by two at once.
TEST_CASE("a descriptor outlives the runtime that watched it") {
  const nothing_left_over guard;
  socket_pair both;
  for (int round = 0; round < 20; ++round) {
    const char sent = static_cast<char>(round);
    char got = -1;
    concur::run(with_workers(1), [&] {
      concur::future<void> reader = concur::go([&] { CHECK(io::read(both.ends[0], &got, 1) == 1); });
      await_reader(both.ends[0]);
      CHECK(io::write(both.ends[1], &sent, 1) == 1);
    });
    CHECK(got == sent);
  }
  for (int round = 0; round < 20; ++round) {
    concur::runtime second(with_workers(1));
    concur::future<long> reader;
    {
      concur::runtime first(with_workers(1));
      first.block_on([&] {
        char byte = 0;
        io::write(both.ends[1], "a", 1);
        io::read(both.ends[0], &byte, 1);
        // Now it is registered here: this read parks.
        static_cast<void>(concur::go([&both] {
          char never = 0;
          io::read(both.ends[0], &never, 1);
        }));
        await_reader(both.ends[0]);
      });
      reader = second.go([&] {
        char byte = 0;
        return static_cast<long>(io::read(both.ends[0], &byte, 1));
      });
    }
    CHECK(::write(both.ends[1], "b", 1) == 1);
    REQUIRE(reader.wait_for(std::chrono::seconds(10)));
    CHECK(reader.get() == 1);
  }
}

// --- plain threads ---

#if defined(__linux__)
// The first that waits has the turn when the runtime that watched goes; it cannot register the descriptor again.
TEST_CASE("who has the turn and cannot go on passes it on") {
  if (is_emulated()) return;
  const nothing_left_over guard;
  socket_pair both;
  const int fd = both.ends[0];
  concur::runtime second(with_workers(1));
  std::vector<concur::future<int>> readers;
  bool is_denied = false;
  {
    concur::runtime first(with_workers(1));
    first.block_on([&] {
      char byte = 0;
      io::write(both.ends[1], "a", 1);
      io::read(fd, &byte, 1);
      descriptor_slot* slot = slot_of(fd);
      const concur::detail::lock_scope<concur::spin_lock> held(slot->lock);
      CHECK(concur::detail::watch_descriptor(*slot, fd, *concur::detail::this_worker()->sched) == 0);
    });
    second.block_on([&] {
      for (int i = 0; i < 3; ++i) {
        readers.push_back(concur::go([fd] {
          char byte = 0;
          return io::read(fd, &byte, 1) < 0 ? errno_now() : 0;
        }));
        concur::this_fiber::yield();
      }
      await_reader(fd);
      is_denied = deny_call(SYS_epoll_ctl, ENOMEM);
    });
  }
  if (!is_denied) ::shutdown(both.ends[1], SHUT_WR);
  for (concur::future<int>& one : readers) {
    REQUIRE(one.wait_for(std::chrono::seconds(10)));
    CHECK(one.get() == (is_denied ? ENOMEM : 0));
  }
}
#endif

TEST_CASE("on a plain thread the calls block the thread") {
  const nothing_left_over guard;
  pipe_ends ends;
  std::thread writer([&] {
    for (int i = 0; i < 100; ++i) CHECK(io::write(ends.out, "ab", 2) == 2);
    ends.close_out();
  });
  std::string all;
  char some[7];
  for (long count; (count = io::read(ends.in, some, sizeof some)) > 0;)
    all.append(some, static_cast<std::size_t>(count));
  writer.join();
  CHECK(all.size() == 200);
  const auto begin = std::chrono::steady_clock::now();
  CHECK(io::sleep(0) == 0);
  concur::run(with_workers(1), [] { CHECK(io::sleep(1) == 0); });
  CHECK(std::chrono::steady_clock::now() - begin >= std::chrono::seconds(1));
}

TEST_CASE("the signals of the program do not reach the workers") {
  const nothing_left_over guard;
  static std::atomic<int> on_worker{0};
  static std::atomic<int> on_others{0};
  struct sigaction note_where {};
  struct sigaction before {};
  note_where.sa_handler = [](int) { (concur::this_fiber::get_id() ? on_worker : on_others).fetch_add(1); };
  ::sigaction(SIGUSR1, &note_where, &before);
  {
    concur::runtime rt(with_workers(2));
    std::atomic<bool> is_over{false};
    concur::future<void> busy = rt.go([&] {
      while (!is_over.load()) concur::this_fiber::yield();
    });
    for (int i = 0; i < 100; ++i) ::kill(::getpid(), SIGUSR1);
    is_over.store(true);
    busy.get();
  }
  ::sigaction(SIGUSR1, &before, nullptr);
  CHECK(on_worker.load() == 0);
  CHECK(on_others.load() > 0);
}

TEST_CASE("a plain thread that writes to a pipe nobody reads gets EPIPE and no signal") {
  const nothing_left_over guard;
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  ::close(ends[0]);
  CHECK(concur::io::write(ends[1], "x", 1) == -1);  // SIGPIPE would end the program here
  CHECK(errno == EPIPE);
  sigset_t pending;
  sigpending(&pending);
  CHECK(sigismember(&pending, SIGPIPE) == 0);
  concur::io::close(ends[1]);
}
