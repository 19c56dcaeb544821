// test_tcp.cpp - TCP streams and listeners, against themselves and against plain sockets that misbehave.
//
// What is tested is what a program sees: bytes in order and complete, ends and resets told apart, deadlines that hold,
// closing that wakes. The peers are fibers of the same runtime, plain threads, and raw sockets.
#include "support/cancel.hpp"
#include "support/tally.hpp"
#include "support/test.hpp"

#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

using concur::tcp_listener;
using concur::tcp_stream;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

struct connection {
  tcp_stream near_end;
  tcp_stream far_end;
};

connection make_connection() {
  tcp_listener listener = tcp_listener::bind("127.0.0.1:0");
  connection both;
  both.near_end = tcp_stream::connect(listener.local_endpoint());
  both.far_end = listener.accept();
  return both;
}

// Both ends send a reset instead of an end when they are closed.
void reset_on_close(const tcp_stream& stream) {
  const linger at_once{1, 0};
  ::setsockopt(stream.fd(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

template <class Body>
void on_one_two_and_four(Body body) {
  for (const unsigned workers : {1u, 2u, 4u}) concur::run(with_workers(workers), body);
}

// Lets others run until somebody waits to read from the descriptor.
void await_reader(int fd) {
  concur::detail::descriptor_slot* slot = concur::detail::slot_of(fd);
  while (!slot->side(concur::detail::direction::reading).is_busy.load()) concur::this_fiber::yield();
}

// A stream of bytes that shows every loss, doubling and exchange.
unsigned char byte_at(std::uint64_t position) {
  position *= 0x9E3779B97F4A7C15u;
  return static_cast<unsigned char>(position >> 56);
}

}  // namespace

// --- bytes ---

TEST_CASE("what is written is read, in order, on many connections at once") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    tcp_listener listener = tcp_listener::bind("127.0.0.1:0");
    const concur::endpoint at = listener.local_endpoint();
    constexpr int clients = 50;
    concur::future<void> server = concur::go([&] {
      for (int i = 0; i < clients; ++i) {
        concur::go([stream = listener.accept()]() mutable {
          std::array<char, 512> buffer;
          while (const std::size_t count = stream.read_some(buffer)) stream.write_all(buffer.data(), count);
        });
      }
    });
    std::vector<concur::future<int>> all;
    for (int i = 0; i < clients; ++i) {
      all.push_back(concur::go([at, i] {
        tcp_stream stream = tcp_stream::connect(at);
        stream.no_delay(true);
        int good = 0;
        for (int round = 0; round < 20; ++round) {
          const std::string sent = "client " + std::to_string(i) + " says " + std::to_string(round);
          stream.write_all(sent);
          std::string got(sent.size(), ' ');
          stream.read_exactly(got);
          if (got == sent) ++good;
        }
        return good;
      }));
    }
    for (concur::future<int>& one : all) CHECK(one.get() == 20);
    server.get();
  });
}

TEST_CASE("sixty-four megabytes come through a slow reader whole") {
  const nothing_left_over guard;
  constexpr std::uint64_t total = (CONCUR_ASAN != 0 || CONCUR_TSAN != 0 ? 4u : 64u) << 20;
  concur::run(with_workers(2), [&] {
    connection both = make_connection();
    concur::future<void> writer = concur::go([&] {
      std::vector<unsigned char> block(1 << 20);
      for (std::uint64_t done = 0; done < total; done += block.size()) {
        for (std::size_t i = 0; i < block.size(); ++i) block[i] = byte_at(done + i);
        REQUIRE(both.near_end.write_all(block) == block.size());
      }
      both.near_end.shutdown_write();
    });
    std::vector<unsigned char> buffer(100000);
    std::uint64_t position = 0;
    std::uint64_t wrong = 0;
    for (unsigned round = 0;; ++round) {
      // By turns some bytes, many bytes, and a rest.
      const std::size_t wanted = round % 3 == 0 ? 777 : buffer.size();
      const std::size_t count = both.far_end.read_some(buffer.data(), wanted);
      if (count == 0) break;
      for (std::size_t i = 0; i < count; ++i) {
        if (buffer[i] != byte_at(position + i)) ++wrong;
      }
      position += count;
      if (round % 200 == 0) concur::this_fiber::sleep_for(milliseconds(1));
    }
    writer.get();
    CHECK(position == total);
    CHECK(wrong == 0);
  });
}

TEST_CASE("both directions run at full speed at once") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    connection both = make_connection();
    constexpr std::uint64_t total = 1 << 20;
    const auto send_all = [](tcp_stream& stream) {
      std::vector<unsigned char> block(9000);
      std::uint64_t done = 0;
      while (done < total) {
        for (std::size_t i = 0; i < block.size(); ++i) block[i] = byte_at(done + i);
        done += stream.write_all(block);
      }
      stream.shutdown_write();
    };
    const auto take_all = [](tcp_stream& stream) {
      std::vector<unsigned char> block(7000);
      std::uint64_t position = 0;
      while (const std::size_t count = stream.read_some(block)) {
        for (std::size_t i = 0; i < count; ++i) {
          if (block[i] != byte_at(position + i)) return std::uint64_t{0};
        }
        position += count;
      }
      return position;
    };
    concur::future<void> first = concur::go([&] { send_all(both.near_end); });
    concur::future<void> second = concur::go([&] { send_all(both.far_end); });
    concur::future<std::uint64_t> third = concur::go([&] { return take_all(both.near_end); });
    CHECK(take_all(both.far_end) >= total);
    CHECK(third.get() >= total);
    first.get();
    second.get();
  });
}

// --- ends ---

TEST_CASE("a half-closed connection goes on in the other direction") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    connection both = make_connection();
    both.near_end.write_all("the last words");
    both.near_end.shutdown_write();
    std::string words(14, ' ');
    CHECK(both.far_end.read_exactly(words) == 14);
    CHECK(words == "the last words");
    char byte = 0;
    CHECK(both.far_end.read_some(&byte, 1) == 0);
    CHECK(both.far_end.read_some(&byte, 1) == 0);  // and stays so
    // The end came while nobody was waiting; now one waits on the other side.
    concur::future<std::string> reader = concur::go([&] {
      std::string answer(6, ' ');
      both.near_end.read_exactly(answer);
      return answer;
    });
    await_reader(both.near_end.fd());
    both.far_end.write_all("answer");
    CHECK(reader.get() == "answer");
    std::error_code error;
    both.near_end.write_all("more", error);
    CHECK(error == std::errc::broken_pipe);
  });
}

TEST_CASE("an end that comes while a fiber waits wakes it") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    for (int round = 0; round < 50; ++round) {
      connection both = make_connection();
      concur::future<std::size_t> reader = concur::go([&] {
        char byte = 0;
        return both.near_end.read_some(&byte, 1);
      });
      if (round % 2 == 0) await_reader(both.near_end.fd());
      both.far_end.close();
      CHECK(reader.get() == 0);
    }
  });
}

// The end or the data may come before, with or after the read that finds the stream empty.
TEST_CASE("data and an end in quick succession are both seen") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    for (int round = 0; round < 200; ++round) {
      connection both = make_connection();
      concur::future<std::string> reader = concur::go([&] {
        std::string all;
        std::array<char, 64> some;
        while (const std::size_t count = both.near_end.read_some(some)) all.append(some.data(), count);
        return all;
      });
      both.far_end.write_all("first ");
      if (round % 4 == 1) await_reader(both.near_end.fd());
      if (round % 4 == 2) concur::this_fiber::yield();
      both.far_end.write_all("second");
      if (round % 4 == 3) concur::this_fiber::sleep_for(std::chrono::microseconds(50));
      both.far_end.shutdown_write();
      REQUIRE(reader.wait_for(std::chrono::seconds(10)));
      CHECK(reader.get() == "first second");
    }
  });
}

TEST_CASE("a reset is an error, for the one who waits and for the one who comes later") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    for (int round = 0; round < 50; ++round) {
      connection both = make_connection();
      concur::future<std::error_code> reader = concur::go([&] {
        char byte = 0;
        std::error_code error;
        both.near_end.read_some(&byte, 1, error);
        return error;
      });
      if (round % 2 == 0) await_reader(both.near_end.fd());
      if (round % 3 == 0) {
        // Some bytes first, which the reader takes short of what it asked for.
        both.far_end.write_all("x");
        reader.get();
        reader = concur::go([&] {
          std::array<char, 100> many;
          std::error_code error;
          both.near_end.read_some(many, error);
          return error;
        });
        if (round % 2 == 0) await_reader(both.near_end.fd());
      }
      reset_on_close(both.far_end);
      both.far_end.close();
      REQUIRE(reader.wait_for(std::chrono::seconds(10)));
      CHECK(reader.get() == std::errc::connection_reset);
      std::error_code error;
      both.near_end.write_all("late", error);
      CHECK(error == std::errc::broken_pipe);  // and no SIGPIPE: the test is alive
    }
  });
}

TEST_CASE("a writer that is blocked hears of the reset, and how much it had written") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    connection both = make_connection();
    concur::future<std::pair<std::size_t, std::error_code>> writer = concur::go([&] {
      const std::string much(64 << 20, 'x');
      std::error_code error;
      const std::size_t count = both.near_end.write_all(much, error);
      return std::make_pair(count, error);
    });
    concur::detail::descriptor_slot* slot = concur::detail::slot_of(both.near_end.fd());
    while (!slot->side(concur::detail::direction::writing).is_busy.load()) concur::this_fiber::yield();
    reset_on_close(both.far_end);
    both.far_end.close();
    const std::pair<std::size_t, std::error_code> end = writer.get();
    CHECK((end.second == std::errc::connection_reset || end.second == std::errc::broken_pipe));
    CHECK(end.first > 0);
    CHECK(end.first < (64u << 20));
  });
}

// --- deadlines ---

TEST_CASE("a read deadline is a moment: it holds for every read, until it is changed") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    connection both = make_connection();
    char byte = 0;
    std::error_code error;
    const auto begin = steady_clock::now();
    both.near_end.read_deadline(begin + milliseconds(30));
    CHECK(both.near_end.read_some(&byte, 1, error) == 0);
    CHECK(error == std::errc::timed_out);
    CHECK(steady_clock::now() >= begin + milliseconds(30));
    // It has passed: the next read fails at once, though there is a byte.
    both.far_end.write_all("b");
    CHECK(both.near_end.read_some(&byte, 1, error) == 0);
    CHECK(error == std::errc::timed_out);
    // A new one, and none.
    both.near_end.read_deadline(steady_clock::now() + std::chrono::hours(1));
    CHECK(both.near_end.read_some(&byte, 1, error) == 1);
    CHECK(!error);
    both.near_end.read_deadline(steady_clock::now() - milliseconds(1));
    CHECK_THROWS_AS(both.near_end.read_some(&byte, 1), std::system_error);
    both.near_end.read_deadline(steady_clock::time_point());
    both.far_end.write_all("c");
    CHECK(both.near_end.read_some(&byte, 1) == 1);
    CHECK(byte == 'c');
  });
}

TEST_CASE("a deadline takes nothing: what comes after it is there for the next read") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    connection both = make_connection();
    concur::future<void> writer = concur::go([&] {
      for (int i = 0; i < 200; ++i) {
        both.far_end.write_all(std::string(1, static_cast<char>(i)));
        concur::this_fiber::sleep_for(std::chrono::microseconds(i % 7 * 40));
      }
      both.far_end.shutdown_write();
    });
    std::string all;
    for (int timeouts = 0; timeouts < 100000;) {
      both.near_end.read_deadline(steady_clock::now() + std::chrono::microseconds(100));
      char some[3];
      std::error_code error;
      const std::size_t count = both.near_end.read_some(some, sizeof some, error);
      if (error == std::errc::timed_out)
        ++timeouts;
      else if (count == 0)
        break;
      all.append(some, count);
    }
    writer.get();
    REQUIRE(all.size() == 200);
    for (int i = 0; i < 200; ++i) CHECK(all[static_cast<std::size_t>(i)] == static_cast<char>(i));
  });
}

TEST_CASE("a write that a deadline cuts short tells how much it wrote, and that much arrives") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    connection both = make_connection();
    std::vector<unsigned char> much(32 << 20);
    for (std::size_t i = 0; i < much.size(); ++i) much[i] = byte_at(i);
    both.near_end.write_deadline(steady_clock::now() + milliseconds(50));
    std::error_code error;
    const std::size_t written = both.near_end.write_all(much, error);
    CHECK(error == std::errc::timed_out);
    CHECK(written > 0);
    CHECK(written < much.size());
    both.near_end.shutdown_write();
    std::vector<unsigned char> got(much.size());
    const std::size_t count = both.far_end.read_exactly(got, error);
    CHECK(!error);
    CHECK(count == written);
    CHECK(std::memcmp(got.data(), much.data(), count) == 0);
  });
}

// --- closing ---

TEST_CASE("closing a stream wakes those who wait on it") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    for (int round = 0; round < 30; ++round) {
      connection both = make_connection();
      const auto wait_for_a_byte = [&] {
        char byte = 0;
        std::error_code error;
        both.near_end.read_some(&byte, 1, error);
        return error;
      };
      concur::future<std::error_code> first = concur::go(wait_for_a_byte);
      await_reader(both.near_end.fd());
      concur::future<std::error_code> second = concur::go(wait_for_a_byte);
      concur::this_fiber::yield();
      both.near_end.close();
      CHECK(first.get() == std::errc::operation_canceled);
      const std::error_code late = second.get();  // it may have come when it was closed already
      CHECK((late == std::errc::operation_canceled || late == std::errc::bad_file_descriptor));
    }
    tcp_listener listener = tcp_listener::bind("127.0.0.1:0");
    concur::future<std::error_code> acceptor = concur::go([&] {
      std::error_code error;
      listener.accept(error);
      return error;
    });
    await_reader(listener.fd());
    listener.close();
    CHECK(acceptor.get() == std::errc::operation_canceled);
  });
}

TEST_CASE("a stream that is moved or released keeps its connection") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    connection both = make_connection();
    tcp_stream moved(std::move(both.near_end));
    CHECK(!both.near_end.is_open());  // NOLINT: moved-from streams are closed ones
    moved.write_all("one");
    const int fd = moved.release();
    CHECK(!moved.is_open());
    tcp_stream again(fd);
    again.write_all("two");
    char six[6];
    both.far_end.read_exactly(six, sizeof six);
    CHECK(std::string(six, 6) == "onetwo");
    again = tcp_stream();
    CHECK(both.far_end.read_some(six, sizeof six) == 0);
  });
}

// --- delimiters ---

TEST_CASE("read_until takes what ends with the delimiter, and leaves the rest for the next read") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    connection both = make_connection();
    concur::future<void> writer = concur::go([&] {
      // Split everywhere, in the middle of delimiters too.
      const std::string all = "GET / HTTP/1.1\r\n\r\nbody and more\r\n\r\rtail";
      for (const char c : all) {
        both.far_end.write_all(std::string(1, c));
        concur::this_fiber::yield();
      }
      both.far_end.shutdown_write();
    });
    tcp_stream& in = both.near_end;
    CHECK(in.read_until("\r\n\r\n", 100) == "GET / HTTP/1.1\r\n\r\n");
    char four[4];
    in.read_exactly(four, sizeof four);
    CHECK(std::string(four, 4) == "body");
    CHECK(in.read_until("more", 100) == " and more");
    CHECK(in.read_until("\r\r", 100) == "\r\n\r\r");
    CHECK(in.read_until("never", 100) == "tail");  // the end came first
    CHECK(in.read_until("never", 100).empty());
    writer.get();
  });
}

TEST_CASE("read_until with a limit fails when the delimiter does not fit, and loses nothing") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    connection both = make_connection();
    both.far_end.write_all("12345678\nabc\n");
    tcp_stream& in = both.near_end;
    std::error_code error;
    CHECK(in.read_until("\n", 8, error).empty());  // nine with its delimiter
    CHECK(error == std::errc::message_size);
    CHECK_THROWS_AS(in.read_until("\n", 1), std::system_error);
    CHECK(in.read_until("\n", 9) == "12345678\n");
    CHECK(in.read_until("\n", 4) == "abc\n");
    // A deadline in the middle leaves what came.
    both.far_end.write_all("half");
    in.read_deadline(steady_clock::now() + milliseconds(20));
    CHECK(in.read_until("\n", 100, error).empty());
    CHECK(error == std::errc::timed_out);
    in.read_deadline(steady_clock::time_point());
    both.far_end.write_all(" and half\n");
    CHECK(in.read_until("\n", 100) == "half and half\n");
  });
}

TEST_CASE("a cancelled read_until loses nothing and invents nothing") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    connection both = make_connection();
    tcp_stream& in = both.near_end;
    for (const bool has_some : {false, true}) {
      if (has_some) both.far_end.write_all("half");
      cancel_target target;
      concur::future<bool> reader = concur::go([&] {
        target.enter();
        try {
          in.read_until("\n", 100);
        } catch (const concur::cancelled&) {
          return true;
        }
        return false;
      });
      while (!reader.ready() && !target.strike()) concur::this_fiber::yield();
      CHECK(reader.get());
    }
    both.far_end.write_all(" and half\nrest");
    CHECK(in.read_until("\n", 100) == "half and half\n");
    char rest[4];
    in.read_exactly(rest, sizeof rest);
    CHECK(std::string(rest, 4) == "rest");
  });
}

TEST_CASE("a read_until for which nothing is allowed is not taken for the end") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    connection both = make_connection();
    both.far_end.write_all("x");
    std::error_code error;
    CHECK(both.near_end.read_until("\n", 0, error).empty());
    CHECK(error == std::errc::message_size);
    char byte = 0;
    CHECK(both.near_end.read_some(&byte, 1) == 1);
  });
}

// --- listeners ---

TEST_CASE("many acceptors of one listener take one client each, in the order they came") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    tcp_listener listener = tcp_listener::bind("127.0.0.1:0");
    constexpr int count = 20;
    std::vector<concur::future<char>> acceptors;
    for (int i = 0; i < count; ++i) {
      acceptors.push_back(concur::go([&] {
        tcp_stream stream = listener.accept();
        char name = 0;
        stream.read_exactly(&name, 1);
        return name;
      }));
    }
    await_reader(listener.fd());
    std::vector<tcp_stream> clients;
    for (int i = 0; i < count; ++i) {
      clients.push_back(tcp_stream::connect(listener.local_endpoint()));
      clients.back().write_all(std::string(1, static_cast<char>('a' + i)));
    }
    std::string names;
    for (concur::future<char>& one : acceptors) names += one.get();
    for (int i = 0; i < count; ++i) CHECK(names.find(static_cast<char>('a' + i)) != std::string::npos);
  });
}

TEST_CASE("a client that went away before it was accepted is no error") {
  const nothing_left_over guard;
  on_one_two_and_four([] {
    tcp_listener listener = tcp_listener::bind("127.0.0.1:0");
    for (int i = 0; i < 5; ++i) {
      tcp_stream gone = tcp_stream::connect(listener.local_endpoint());
      reset_on_close(gone);
    }
    tcp_stream client = tcp_stream::connect(listener.local_endpoint());
    client.write_all("here");
    for (;;) {
      tcp_stream stream = listener.accept();
      char four[4];
      std::error_code error;
      if (stream.read_exactly(four, sizeof four, error) != 4) continue;  // one of those that went
      CHECK(std::string(four, 4) == "here");
      break;
    }
  });
}

TEST_CASE("IPv6 works where there is one") {
  const nothing_left_over guard;
  std::error_code error;
  tcp_listener listener = tcp_listener::bind(concur::endpoint("[::1]:0"), error);
  if (error) return;
  concur::run(with_workers(2), [&] {
    tcp_stream client = tcp_stream::connect(listener.local_endpoint());
    tcp_stream served = listener.accept();
    CHECK(served.peer_endpoint() == client.local_endpoint());
    CHECK(client.peer_endpoint() == listener.local_endpoint());
    client.write_all("six");
    char three[3];
    served.read_exactly(three, sizeof three);
    CHECK(std::string(three, 3) == "six");
  });
}

// --- plain threads ---

TEST_CASE("plain threads use streams too, and block") {
  const nothing_left_over guard;
  tcp_listener listener = tcp_listener::bind("127.0.0.1:0");
  std::thread server([&] {
    tcp_stream stream = listener.accept();
    const std::string line = stream.read_until("\n", 100);
    stream.write_all("got " + line);
  });
  tcp_stream client = tcp_stream::connect(listener.local_endpoint());
  std::this_thread::sleep_for(milliseconds(5));
  client.write_all("a line\n");
  CHECK(client.read_until("\n", 100) == "got a line\n");
  server.join();
  char byte = 0;
  CHECK(client.read_some(&byte, 1) == 0);
  std::error_code error;
  connection both = make_connection();
  both.near_end.read_deadline(steady_clock::now() + milliseconds(20));
  both.near_end.read_some(&byte, 1, error);
  CHECK(error == std::errc::timed_out);
}

// Signals interrupt every call of the thread, all the time.
TEST_CASE("a storm of signals neither breaks a transfer nor stretches a deadline") {
  const nothing_left_over guard;
  struct sigaction count_them {};
  static std::atomic<int> storms{0};
  count_them.sa_handler = [](int) { storms.fetch_add(1); };
  struct sigaction before {};
  ::sigaction(SIGALRM, &count_them, &before);  // without SA_RESTART
  itimerval often{};
  often.it_interval.tv_usec = 500;
  often.it_value.tv_usec = 500;
  ::setitimer(ITIMER_REAL, &often, nullptr);
  {
    // The runtime's threads block it; this thread and the other plain one get it.
    concur::runtime rt(with_workers(2));
    connection both = make_connection();
    concur::future<std::uint64_t> echo = rt.go([&] {
      std::array<char, 1000> some;
      std::uint64_t total = 0;
      while (const std::size_t count = both.far_end.read_some(some)) {
        both.far_end.write_all(some.data(), count);
        total += count;
      }
      return total;
    });
    for (int i = 0; i < 300; ++i) {
      const std::string sent(static_cast<std::size_t>(i) + 1, 'x');
      both.near_end.write_all(sent);
      std::string got(sent.size(), ' ');
      REQUIRE(both.near_end.read_exactly(got) == sent.size());
    }
    const auto begin = steady_clock::now();
    both.near_end.read_deadline(begin + milliseconds(100));
    char byte = 0;
    std::error_code error;
    both.near_end.read_some(&byte, 1, error);
    CHECK(error == std::errc::timed_out);
    CHECK(steady_clock::now() - begin >= milliseconds(100));
    CHECK(steady_clock::now() - begin < std::chrono::seconds(5));
    both.near_end.shutdown_write();
    CHECK(echo.get() == 300 * 301 / 2);
  }
  const itimerval never{};
  ::setitimer(ITIMER_REAL, &never, nullptr);
  ::sigaction(SIGALRM, &before, nullptr);
  CHECK(storms.load() > 10);
}
