// tests/explore_io.cpp - pipes and sockets between fibers, under every kind of schedule (support/scenario.hpp).
//
// The kernel is used as it is: bytes that one fiber has written are there for another at once, so a schedule comes out the
// same each time. What is explored is when readiness is noticed, in which order it is given out, and who runs meanwhile;
// and writes that fall short, and calls that are interrupted. Only UNIX sockets: a loopback one would leave a port behind for
// each schedule.
#include "support/scenario.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>

using namespace concur_test;
using namespace std::chrono_literals;
using concur::explore_expect;
namespace io = concur::io;
namespace detail = concur::detail;

namespace {

__attribute__((noinline)) int errno_now() {
  asm volatile("" : : : "memory");
  return errno;
}

struct pipe_ends {
  pipe_ends() { open(); }
  ~pipe_ends() {
    close_in();
    close_out();
  }
  pipe_ends(const pipe_ends&) = delete;
  pipe_ends& operator=(const pipe_ends&) = delete;
  void open() {
    int ends[2] = {-1, -1};
    explore_expect(::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0, "no pipe to be had");
    in = ends[0];
    out = ends[1];
  }
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
  explicit socket_pair(int send_buffer = 0) {
    explore_expect(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "no sockets to be had");
    if (send_buffer == 0) return;
    for (const int fd : ends) ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof send_buffer);
  }
  ~socket_pair() {
    for (int& fd : ends) close(fd);
  }
  socket_pair(const socket_pair&) = delete;
  socket_pair& operator=(const socket_pair&) = delete;
  static void close(int& fd) {
    if (fd >= 0) io::close(std::exchange(fd, -1));
  }
  int ends[2] = {-1, -1};
};

// A schedule takes a dozen system calls.
scenario_options fewer(std::size_t by = 4) {
  scenario_options wanted;
  wanted.schedules /= by;
  return wanted;
}
scenario_options with_faults() {
  scenario_options wanted = fewer();
  wanted.inject_faults = true;
  return wanted;
}

void write_all(int fd, const char* data, std::size_t size) {
  for (std::size_t done = 0; done < size;) {
    const long count = io::write(fd, data + done, size - done);
    explore_expect(count > 0, "a write failed");
    done += static_cast<std::size_t>(count);
  }
}
std::string read_to_end(int fd, std::size_t at_once) {
  std::string all;
  char some[64];
  for (long count; (count = io::read(fd, some, at_once)) != 0;) {
    explore_expect(count > 0, "a read failed");
    all.append(some, static_cast<std::size_t>(count));
  }
  return all;
}

// Whether somebody waits to read from there.
bool has_reader(int fd) {
  detail::descriptor_slot* const slot = detail::slot_of(fd);
  const detail::lock_scope held(slot->lock);
  return !slot->side(detail::direction::reading).waiting.is_empty();
}

}  // namespace

// --- bytes ---

TEST_CASE("the bytes of a pipe come in order, and its end") {
  const nothing_left_over guard;
  hold(
      [] {
        pipe_ends ends;
        concur::with_nursery([&](concur::nursery& n) {
          n.go([&] { explore_expect(read_to_end(ends.in, 3) == "abcdefgh", "bytes are lost or change places"); });
          n.go([&] {
            write_all(ends.out, "abc", 3);
            write_all(ends.out, "defgh", 5);
            ends.close_out();
          });
        });
      },
      with_faults());
}

TEST_CASE("byte by byte: what comes between a read that found nothing and its wait is seen") {
  const nothing_left_over guard;
  scenario_options wanted;
  wanted.workers = 3;  // one reads, one writes, one looks for news
  hold(
      [] {
        socket_pair pair;
        concur::channel<void> got(3);
        concur::with_nursery([&](concur::nursery& n) {
          n.go([&] {
            char byte = 0;
            for (const char expected : {'a', 'b', 'c'}) {
              explore_expect(io::read(pair.ends[0], &byte, 1) == 1 && byte == expected, "another byte");
              got.send();
            }
          });
          n.go([&] {
            for (const char byte : {'a', 'b', 'c'}) {
              write_all(pair.ends[1], &byte, 1);
              static_cast<void>(got.recv());
            }
          });
        });
      },
      wanted);
}

TEST_CASE("both ways at once over two sockets") {
  const nothing_left_over guard;
  hold(
      [] {
        socket_pair pair;
        concur::with_nursery([&](concur::nursery& n) {
          for (const int side : {0, 1}) {
            n.go([&, side] {
              write_all(pair.ends[side], "hello", 5);
              ::shutdown(pair.ends[side], SHUT_WR);
            });
            n.go([&, side] {
              explore_expect(read_to_end(pair.ends[side], 2) == "hello", "bytes are lost or change places");
            });
          }
        });
      },
      with_faults());
}

TEST_CASE("a full socket parks its writer, a reader lets it go on") {
  const nothing_left_over guard;
  hold(
      [] {
        socket_pair pair(1);
        constexpr std::size_t size = 20'000;
        std::size_t got = 0;
        concur::with_nursery([&](concur::nursery& n) {
          n.go([&] {
            const std::string much(size, 'x');
            write_all(pair.ends[0], much.data(), much.size());
            socket_pair::close(pair.ends[0]);
          });
          n.go([&] {
            char some[4000];
            for (long count; (count = io::read(pair.ends[1], some, sizeof some)) > 0;)
              got += static_cast<std::size_t>(count);
          });
        });
        explore_expect(got == size, "bytes are lost");
      },
      with_faults());
}

// --- several at one descriptor ---

TEST_CASE("two readers of one pipe: each byte goes to one of them") {
  const nothing_left_over guard;
  hold(
      [] {
        pipe_ends ends;
        int seen[2] = {};
        concur::with_nursery([&](concur::nursery& n) {
          for (int i = 0; i < 2; ++i) {
            n.go([&] {
              char byte = 0;
              const detail::worker* const here = detail::this_worker();
              explore_expect(io::read(ends.in, &byte, 1) == 1, "a read failed");
              explore_expect(detail::this_worker() == here, "errno is another thread's now");
              ++seen[byte - 'a'];
            });
          }
          n.go([&] {
            write_all(ends.out, "a", 1);
            write_all(ends.out, "b", 1);
          });
        });
        explore_expect(seen[0] == 1 && seen[1] == 1, "a byte was read twice, or never");
      },
      fewer());
}

TEST_CASE("a reader that is cancelled as it is woken leaves the byte, or the turn, to the other") {
  const nothing_left_over guard;
  hold(
      [] {
        pipe_ends ends;
        concur::cancel_scope first(concur::deferred);
        int got = 0;
        concur::with_nursery([&](concur::nursery& n) {
          n.go([&] {
            char byte = 0;
            first.run([&] { got += io::read(ends.in, &byte, 1) == 1 ? 1 : 0; });
          });
          n.go([&] {
            char byte = 0;
            got += io::read(ends.in, &byte, 1) == 1 ? 1 : 0;
          });
          n.go([&] {
            write_all(ends.out, "a", 1);
            write_all(ends.out, "b", 1);
          });
          n.go([&] { first.cancel(); });
        });
        char rest[4];
        const long left = ::read(ends.in, rest, sizeof rest);
        explore_expect(got + (left > 0 ? left : 0) == 2, "a byte is lost");
      },
      fewer());
}

// --- limits of time ---

// What a read that gives up after 1 ms got, beside bytes that come after 1 ms, and how many are there afterwards.
struct late_bytes {
  long got;
  long left;
};
template <class Read>
late_bytes read_beside_late_bytes(Read read) {
  socket_pair pair;
  long got = 0;
  concur::with_nursery([&](concur::nursery& n) {
    n.go([&] {
      char some[4];
      got = read(pair.ends[0], some, sizeof some);
    });
    n.go([&] {
      concur::this_fiber::sleep_for(1ms);
      write_all(pair.ends[1], "ab", 2);
    });
  });
  char rest[4];
  return {got, static_cast<long>(::recv(pair.ends[0], rest, sizeof rest, MSG_DONTWAIT))};
}

TEST_CASE("a limit of time against bytes that come: they were read, or are there") {
  const nothing_left_over guard;
  hold(
      [] {
        const late_bytes found = read_beside_late_bytes([](int fd, char* some, std::size_t size) {
          long got = 0;
          concur::move_on_after(1ms, [&] { got = io::read(fd, some, size); });
          return got;
        });
        explore_expect(found.got + (found.left > 0 ? found.left : 0) == 2, "bytes are lost");
      },
      fewer());
}

TEST_CASE("a deadline of one call against bytes that come: the wait has one end") {
  const nothing_left_over guard;
  hold(
      [] {
        const late_bytes found = read_beside_late_bytes([](int fd, char* some, std::size_t size) {
          return detail::run_io(fd, detail::direction::reading, detail::deadline_after(1ms),
                                [&]() noexcept { return detail::sys::recv(fd, some, size); });
        });
        explore_expect((found.got == 2 && found.left < 0) || (found.got == -ETIMEDOUT && found.left == 2),
                       "bytes are lost");
      },
      fewer());
}

TEST_CASE("a select over a descriptor, a channel and a limit of time") {
  const nothing_left_over guard;
  hold(
      [] {
        pipe_ends ends;
        concur::channel<int> ch(1);
        int went = 0;
        concur::with_nursery([&](concur::nursery& n) {
          n.go([&] {
            concur::select(concur::readable(ends.in, [&] { ++went; }),
                           concur::recv(ch, [&](std::optional<int>) { ++went; }), concur::after(1ms, [&] { ++went; }));
          });
          n.go([&] { write_all(ends.out, "a", 1); });
          n.go([&] { ch.send(1); });
        });
        explore_expect(went == 1, "no case went, or several");
      },
      fewer());
}

// --- closing, and numbers that change hands ---

TEST_CASE("a close under a reader that waits, or is about to") {
  const nothing_left_over guard;
  hold(
      [] {
        pipe_ends ends;
        concur::with_nursery([&](concur::nursery& n) {
          n.go([&, fd = ends.in] {
            char byte = 0;
            const long count = io::read(fd, &byte, 1);
            const int error = errno_now();
            explore_expect(count == 1 || (count == -1 && (error == ECANCELED || error == EBADF)),
                           "neither a byte nor the news of the close");
          });
          n.go([&] { ends.close_in(); });
          n.go([&, fd = ends.out] {
            if (const long count = io::write(fd, "a", 1); count != 1)
              explore_expect(count == -1 && errno_now() == EPIPE, "a write failed");
          });
        });
      },
      fewer(2));
}

TEST_CASE("a close under a writer that waits") {
  const nothing_left_over guard;
  hold(
      [] {
        socket_pair pair(1);
        concur::with_nursery([&](concur::nursery& n) {
          n.go([&, fd = pair.ends[0]] {
            const std::string much(20'000, 'x');
            long count = 0;
            while ((count = io::write(fd, much.data(), much.size())) > 0) {
            }
            const int error = errno_now();
            explore_expect(error == ECANCELED || error == EBADF, "not the news of the close");
          });
          n.go([&] { socket_pair::close(pair.ends[0]); });
        });
      },
      fewer());
}

TEST_CASE("who waits for a number that changes hands gets nothing of its next use") {
  const nothing_left_over guard;
  hold(
      [] {
        pipe_ends first;
        pipe_ends second;
        second.close_in();
        second.close_out();
        const int number = first.in;
        long count = 0;
        char byte = 0;
        concur::with_nursery([&](concur::nursery& n) {
          n.go([&] { count = io::read(number, &byte, 1); });
          n.go([&] {
            while (!has_reader(number)) concur::this_fiber::yield();
            write_all(first.out, "a", 1);
            while (has_reader(number)) concur::this_fiber::yield();
            first.close_in();
            second.open();
            write_all(second.out, "b", 1);
            char own = 0;
            explore_expect(second.in == number, "the kernel gave out another number");
            explore_expect(io::read(second.in, &own, 1) == 1 && own == 'b', "somebody else read it");
          });
        });
        explore_expect(count == -1 || byte == 'a', "a byte of the number's next use");
      },
      fewer(2));
}

TEST_CASE("who found nothing does not wait for the number's next use") {
  const nothing_left_over guard;
  hold(
      [] {
        pipe_ends first;
        pipe_ends second;
        second.close_in();
        second.close_out();
        const int number = first.in;
        bool has_tried = false;
        concur::with_nursery([&](concur::nursery& n) {
          concur::future<long> reader = n.async([&] {
            char byte = 0;
            return detail::run_io(number, detail::direction::reading, detail::never, [&]() noexcept {
              const detail::io_result result = detail::sys::read(number, &byte, 1);
              has_tried = true;
              return result;
            });
          });
          while (!has_tried) concur::this_fiber::yield();
          first.close_in();
          second.open();
          const long result = reader.get();
          explore_expect(result == -ECANCELED, "not the news of the close");
        });
      },
      fewer(2));
}

TEST_CASE("news of a number's former use is not for its next") {
  const nothing_left_over guard;
  hold(
      [] {
        pipe_ends first;
        pipe_ends second;
        second.close_in();
        second.close_out();
        const int number = first.in;
        concur::with_nursery([&](concur::nursery& n) {
          n.go([&] {
            char byte = 0;
            static_cast<void>(!io::read(number, &byte, 1));
          });
          while (!has_reader(number)) concur::this_fiber::yield();
          write_all(first.out, "a", 1);
          first.close_in();
          second.open();
          const std::uint32_t before = detail::slot_of(number)->side(detail::direction::reading).present_news();
          n.go([&] {
            char byte = 0;
            explore_expect(io::read(second.in, &byte, 1) == 1 && byte == 'b', "another byte");
          });
          concur::this_fiber::sleep_for(1ms);
          // Nothing was written yet, and the new one is registered when its reader waits.
          const std::uint32_t now = detail::slot_of(number)->side(detail::direction::reading).present_news();
          explore_expect(now == before, "news from nowhere");
          write_all(second.out, "b", 1);
        });
      },
      fewer());
}

// --- accepting ---

TEST_CASE("two that accept and two that connect") {
  const nothing_left_over guard;
  hold(
      [] {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        // A name without a file: its first byte is zero.
        constexpr std::size_t room = sizeof address.sun_path - 1;
        const int length = std::snprintf(address.sun_path + 1, room, "concur explored %d", ::getpid());
        const std::size_t used = offsetof(sockaddr_un, sun_path) + 1 + static_cast<std::size_t>(length);
        const auto size = static_cast<socklen_t>(used);
        auto* const name = reinterpret_cast<sockaddr*>(&address);
        int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        explore_expect(::bind(listener, name, size) == 0 && ::listen(listener, 4) == 0, "no listener to be had");
        concur::with_nursery([&](concur::nursery& n) {
          for (int i = 0; i < 2; ++i) {
            n.go([&] {
              int fd = io::accept(listener, nullptr, nullptr);
              explore_expect(fd >= 0, "accept failed");
              char byte = 0;
              explore_expect(io::read(fd, &byte, 1) == 1 && byte == 'x', "another byte");
              socket_pair::close(fd);
            });
            n.go([&] {
              int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
              explore_expect(io::connect(fd, name, size) == 0, "connect failed");
              write_all(fd, "x", 1);
              socket_pair::close(fd);
            });
          }
        });
        socket_pair::close(listener);
      },
      fewer());
}
