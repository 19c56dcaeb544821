// stress_cancel_io.cpp - sockets in a storm in which waits end by readiness, by limits, by closes, and by real cancellations, at
// the same time, on 1, 2 and 4 workers.
//
// No byte may be lost or doubled: what a cancelled call had not done, the next one does. No connection may be lost, and no
// descriptor: the guard of each case counts them.
#include "support/cancel_storm.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>
#include <vector>

namespace io = concur::io;
using namespace std::chrono_literals;

namespace {

constexpr unsigned fibers = 8;
constexpr long share = static_cast<long>(scaled(8000)) * CONCUR_TEST_SCALE;

__attribute__((noinline)) int errno_now() {
  asm volatile("" : : : "memory");
  return errno;
}

template <class Storm>
void on_all_worker_counts(Storm storm) {
  for (const unsigned workers : {1U, 2U, 4U}) {
    CAPTURE(workers);
    tally held;
    storm_figures figures;
    storm(workers, held, figures);
    CHECK(held.report() == "");
    CHECK(figures.cut_short > 0);
    CHECK(figures.strikes > 0);
    MESSAGE(workers, " workers: ", figures.operations.load(), " operations, ", figures.cut_short.load(),
            " of them cut short; ", figures.strikes.load(), " strikes");
  }
}

struct socket_pair {
  socket_pair() {
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
  }
  ~socket_pair() {
    close(0);
    close(1);
  }
  socket_pair(const socket_pair&) = delete;
  socket_pair& operator=(const socket_pair&) = delete;
  void close(unsigned end) {
    if (ends[end] >= 0) io::close(std::exchange(ends[end], -1));
  }
  int ends[2] = {-1, -1};
};

// A stream of bytes that shows every loss, doubling and exchange.
unsigned char byte_at(std::uint64_t position) {
  position *= 0x9E3779B97F4A7C15U;
  return static_cast<unsigned char>(position >> 56);
}

// What two fibers send to each other through one socket: one writes, one reads.
struct stream_of_bytes {
  socket_pair both;
  std::uint64_t written = 0;
  std::uint64_t read = 0;
};

void write_all(party& me, stream_of_bytes& s, tally& held) {
  std::vector<unsigned char> bytes;
  for (long n = 0; n < share; ++n) {
    bytes.resize(1 + me.draw(me.one_in(8) ? 100000 : 2000));
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = byte_at(s.written + i);
    me.attempt([&] {
      const io::ssize_type count = io::write(s.both.ends[0], bytes.data(), bytes.size());
      CONCUR_EXPECT(held, count > 0);
      if (count > 0) s.written += static_cast<std::uint64_t>(count);
    });
  }
  ::shutdown(s.both.ends[0], SHUT_WR);
}

// By turns as a POSIX call and as a stream, which remembers whether there is more.
void read_all(party& me, stream_of_bytes& s, tally& held) {
  unsigned char bytes[3000];
  concur::tcp_stream stream(s.both.ends[1]);
  for (bool has_ended = false; !has_ended;) {
    me.attempt([&] {
      const std::size_t size = 1 + me.draw(sizeof bytes);
      const io::ssize_type count = me.one_in(2) ? io::read(s.both.ends[1], bytes, size)
                                                : static_cast<io::ssize_type>(stream.read_some(bytes, size));
      CONCUR_EXPECT(held, count >= 0);
      for (io::ssize_type i = 0; i < count; ++i)
        CONCUR_EXPECT(held, bytes[i] == byte_at(s.read + static_cast<std::uint64_t>(i)));
      if (count > 0) s.read += static_cast<std::uint64_t>(count);
      has_ended = count <= 0;
    });
  }
  stream.release();
}

}  // namespace

TEST_CASE("read and write: no byte is lost or doubled") {
  const nothing_left_over guard;
  on_all_worker_counts([](unsigned workers, tally& held, storm_figures& figures) {
    std::array<stream_of_bytes, fibers / 2> streams;
    cancel_storm<fibers>(workers, figures, [&](party& me) {
      stream_of_bytes& s = streams[me.number / 2];
      if (me.number % 2 == 0)
        write_all(me, s, held);
      else
        read_all(me, s, held);
    });
    for (const stream_of_bytes& s : streams) CONCUR_EXPECT(held, s.written == s.read && s.read > 0);
  });
}

// Several readers of one descriptor, which take turns: who is cancelled with the turn passes it on.
TEST_CASE("many readers of one socket: each byte goes to one of them") {
  const nothing_left_over guard;
  on_all_worker_counts([](unsigned workers, tally& held, storm_figures& figures) {
    socket_pair both;
    std::atomic<long> sum_written{0};
    std::atomic<long> sum_read{0};
    cancel_storm<fibers>(workers, figures, [&](party& me) {
      if (me.number == 0) {
        for (long n = 0; n < share * 4; ++n) {
          const unsigned char some[2] = {static_cast<unsigned char>(me.draw(255) + 1), 1};
          const std::size_t size = 1 + me.draw(2);
          me.attempt([&] {
            const io::ssize_type count = io::write(both.ends[0], some, size);
            for (io::ssize_type i = 0; i < count; ++i) sum_written += some[i];
          });
          if (me.one_in(8)) concur::this_fiber::yield();
        }
        ::shutdown(both.ends[0], SHUT_WR);
        return;
      }
      for (bool has_ended = false; !has_ended;) {
        me.attempt([&] {
          unsigned char byte = 0;
          const io::ssize_type count = io::read(both.ends[1], &byte, 1);
          CONCUR_EXPECT(held, count >= 0);
          sum_read += byte;
          has_ended = count <= 0;
        });
      }
    });
    CONCUR_EXPECT(held, sum_written == sum_read && sum_read > 0);
  });
}

// A client that was connected says who it is; the server resets the connection, which leaves no port behind in the kernel.
TEST_CASE("accept and connect: every connection that was made is served once") {
  const nothing_left_over guard;
  on_all_worker_counts([](unsigned workers, tally& held, storm_figures& figures) {
    concur::tcp_listener listener = concur::tcp_listener::bind("127.0.0.1:0");
    const concur::endpoint at = listener.local_endpoint();
    std::atomic<long> connected{0};
    std::atomic<long> served{0};
    std::atomic<unsigned> clients{fibers / 2};
    const auto serve = [&](concur::tcp_stream peer) {
      const linger at_once{1, 0};
      ::setsockopt(peer.fd(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
      std::uint32_t number = 0;
      std::error_code error;
      if (peer.read_exactly(&number, sizeof number, error) == sizeof number) served += number;
    };
    cancel_storm<fibers>(workers, figures, [&](party& me) {
      if (me.number % 2 == 0) {
        for (long n = 0; n < share / 8; ++n) {
          concur::tcp_stream peer;
          std::error_code error;
          me.attempt([&] { peer = concur::tcp_stream::connect(at); });
          if (!peer.is_open()) continue;
          const std::uint32_t number = 1 + me.draw(1000);
          if (peer.write_all(&number, sizeof number, error) == sizeof number) connected += number;
          char end = 0;
          peer.read_some(&end, 1, error);
        }
        if (--clients == 0) listener.close();
        return;
      }
      for (;;) {
        concur::tcp_stream peer;
        try {
          me.attempt([&] { peer = listener.accept(); });
        } catch (const std::system_error&) {  // closed
          CONCUR_EXPECT(held, clients == 0);
          return;
        }
        if (peer.is_open()) serve(std::move(peer));
      }
    });
    CONCUR_EXPECT(held, connected == served && served > 0);
  });
}

// As long as a call has not begun to wait, a close is the program's own race with it.
bool waits(int fd) {
  concur::detail::descriptor_slot* const slot = concur::detail::slot_of(fd);
  return slot->side(concur::detail::direction::reading).is_busy.load();
}

// A byte, a close, a cancellation and a limit meet at one reader.
TEST_CASE(
    "close against everything else: the call ends once, and the byte is read, there, or gone with its descriptor") {
  const nothing_left_over guard;
  on_all_worker_counts([](unsigned workers, tally& held, storm_figures& figures) {
    cancel_storm<fibers>(workers, figures, [&](party& me) {
      for (long n = 0; n < share; ++n) {
        socket_pair both;
        const int fd = both.ends[0];
        const bool writes = me.one_in(2);
        const bool closes = me.one_in(2);
        std::atomic<bool> has_ended{false};
        bool is_read = false;
        concur::with_nursery([&](concur::nursery& n_below) {
          n_below.go([&] {
            struct end_mark {
              std::atomic<bool>& what;
              ~end_mark() { what = true; }
            } const at_end{has_ended};
            const auto read = [&] {
              char byte = 0;
              const io::ssize_type count = io::read(fd, &byte, 1);
              const int error = count < 0 ? errno_now() : 0;
              is_read = count == 1 && byte == 'x';
              CONCUR_EXPECT(held, is_read || error == ECANCELED || error == EBADF);
              CONCUR_EXPECT(held, is_read ? writes : closes);
            };
            const bool has_returned = writes || closes ? me.attempt(read) : me.attempt_in_vain(read);
            CONCUR_EXPECT(held, has_returned || !is_read);
          });
          while (!has_ended && !waits(fd)) concur::this_fiber::yield();
          if (writes) CONCUR_EXPECT(held, ::send(both.ends[1], "x", 1, MSG_NOSIGNAL) == 1);
          if (closes) both.close(0);
          if (!writes && !closes) n_below.cancel();
        });
        CONCUR_EXPECT(held, has_ended);
        char byte = 0;
        if (writes && !closes && !is_read) CONCUR_EXPECT(held, ::recv(fd, &byte, 1, MSG_DONTWAIT) == 1);
      }
    });
  });
}
