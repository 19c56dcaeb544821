// test_bad_input.cpp - what cannot be meant or cannot be had is refused in words, and everything goes on.
//
// A refusal is worth what it says: so the texts are looked at, for the name of the argument and its value. And a refusal
// costs nothing: after each one the runtime works, and what the caller handed in is still the caller's.
#include "support/tally.hpp"
#include "support/test.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace {

bool has_all(const std::string& text, std::initializer_list<const char*> words) {
  for (const char* word : words) {
    if (text.find(word) == std::string::npos) {
      MESSAGE("\"", text, "\" does not say \"", word, "\"");
      return false;
    }
  }
  return true;
}

// Runs in a child process, because it changes the process's limits. The child says on its own what was wrong.
template <class Deed>
void in_a_child(Deed deed) {
  const pid_t child = ::fork();
  if (child == 0) {
    const std::string trouble = deed();
    if (!trouble.empty()) {
      const std::string line = "in the child: " + trouble + "\n";
      static_cast<void>(!::write(STDERR_FILENO, line.data(), line.size()));
    }
    ::_exit(trouble.empty() ? 0 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

void limit_to(int resource, rlim_t soft) {
  rlimit limit{};
  ::getrlimit(resource, &limit);
  limit.rlim_cur = soft;
  ::setrlimit(resource, &limit);
}

}  // namespace

// --- options ---

TEST_CASE("options that cannot be meant are refused by name and value") {
  const nothing_left_over guard;
  concur::options wanted;
  const auto refusal = [&] { return text_of<std::invalid_argument>([&] { concur::runtime rt(wanted); }); };

  wanted.workers = 1025;
  CHECK(has_all(refusal(), {"options.workers", "1025", "1024"}));
  wanted = concur::options();
  wanted.stack_size = 100;
  CHECK(has_all(refusal(), {"options.stack_size", "100 bytes", "at least"}));
  wanted.stack_size = ~std::size_t{0};
  CHECK(has_all(refusal(), {"options.stack_size", std::to_string(~std::size_t{0}).c_str(), "at most"}));
  wanted = concur::options();
  wanted.blocking_threads = 0;
  CHECK(has_all(refusal(), {"options.blocking_threads", "is 0"}));
  wanted = concur::options();
  wanted.blocking_queue = 0;
  CHECK(has_all(refusal(), {"options.blocking_queue", "is 0"}));
  wanted = concur::options();
  wanted.stall_after = std::chrono::nanoseconds(-5);
  CHECK(has_all(refusal(), {"options.stall_after", "-5 ns"}));
  // And run() says the same.
  wanted = concur::options();
  wanted.stack_size = 1;
  CHECK(
      has_all(text_of<std::invalid_argument>([&] { concur::run(wanted, [] {}); }), {"options.stack_size", "1 bytes"}));
}

TEST_CASE("the smallest stack and the most workers that are allowed do work") {
  const nothing_left_over guard;
  concur::options wanted = with_workers(1);
  wanted.stack_size = concur::detail::minimum_stack_bytes;
  if (CONCUR_ASAN == 0 && CONCUR_TSAN == 0)
    CHECK(concur::run(wanted, [] { return concur::go([] { return 3; }).get(); }) == 3);
  CHECK(concur::run(with_workers(64), [] { return concur::go([] { return 4; }).get(); }) == 4);
}

// --- calls in the wrong place ---

TEST_CASE("what needs a fiber says so on a plain thread") {
  const nothing_left_over guard;
  CHECK(has_all(text_of<std::logic_error>([] { concur::go([] {}); }), {"concur::go", "concur::run"}));
  CHECK(!concur::this_fiber::get_id());
  CHECK(concur::this_fiber::name().empty());
  CHECK(!concur::this_fiber::cancelled());
  concur::this_fiber::name("nobody");
  concur::this_fiber::checkpoint();
  concur::this_fiber::yield();
  concur::this_fiber::sleep_for(std::chrono::nanoseconds(-1));
}

TEST_CASE("channels refuse what breaks them, and the value stays with the caller") {
  const nothing_left_over guard;
  concur::channel<std::string> ch(1);
  ch.close();
  std::string value = "a value that is worth keeping, and longer than the small buffer";
  const std::string copy = value;
  CHECK(has_all(text_of<concur::channel_closed>([&] { ch.send(std::move(value)); }), {"channel::send", "closed"}));
  CHECK(value == copy);  // NOLINT: that it was not moved from is the promise
  CHECK(has_all(text_of<concur::channel_closed>([&] { ch.close(); }), {"channel::close", "closed already"}));
  concur::channel<int> none(concur::nil);
  CHECK(has_all(text_of<std::logic_error>([&] { none.close(); }), {"channel::close", "nil"}));
  CHECK(has_all(text_of<std::invalid_argument>([] { concur::channel<std::string> much(~std::size_t{0} / 2); }),
                {"capacity", "memory"}));
}

TEST_CASE("a future without a result, and a mutex that is not held, are reported") {
  const nothing_left_over guard;
  concur::run(with_workers(2), [] {
    concur::future<int> empty;
    CHECK(has_all(text_of<std::logic_error>([&] { empty.get(); }), {"future", "state"}));
    concur::future<int> once = concur::go([] { return 1; });
    CHECK(once.get() == 1);
    CHECK(has_all(text_of<std::logic_error>([&] { once.get(); }), {"future"}));
    concur::mutex m;
    CHECK(has_all(text_of<std::logic_error>([&] { m.unlock(); }), {"mutex", "unlock"}));
    m.lock();
    CHECK(has_all(text_of<std::logic_error>([&] { m.lock(); }), {"mutex", "lock"}));
    m.unlock();
    concur::wait_group group;
    CHECK(has_all(text_of<std::logic_error>([&] { group.done(); }), {"wait_group", "below zero"}));
  });
}

// --- endpoints ---

TEST_CASE("texts that are no endpoint are refused with what is wrong about them") {
  const nothing_left_over guard;
  struct row {
    const char* text;
    std::initializer_list<const char*> says;
  };
  const row rows[] = {
      {"", {"address", "\"\"", "port is missing"}},
      {"127.0.0.1", {"address", "\"127.0.0.1\"", "port is missing"}},
      {"127.0.0.1:", {"port", "0 to 65535"}},
      {"127.0.0.1:65536", {"port", "65536", "0 to 65535"}},
      {"127.0.0.1:-1", {"port", "-1"}},
      {"127.0.0.1:80x", {"port", "80x"}},
      {"127.0.0.1: 80", {"port", " 80"}},
      {"127.0.0.1:99999999999999999999", {"port", "99999999999999999999"}},
      {"256.0.0.1:80", {"address", "256.0.0.1", "no valid IP address"}},
      {"1.2.3:80", {"address", "1.2.3"}},
      {"::1:80", {"address", "::1:80", "brackets"}},
      {"[::1:80", {"bracket"}},
      {"[127.0.0.1]:80", {"IPv6", "127.0.0.1"}},
      {"[::g]:80", {"::g", "no valid IP address"}},
      {":65536", {"port", "65536"}},
  };
  for (const row& one : rows) {
    CAPTURE(one.text);
    CHECK(has_all(text_of<std::invalid_argument>([&] { concur::endpoint e(one.text); }), one.says));
    std::error_code error;
    CHECK(concur::endpoint::parse(one.text, error).is_empty());
    CHECK(error == std::errc::invalid_argument);
  }
  CHECK(has_all(text_of<std::invalid_argument>([] { concur::endpoint e("127.0.0.1", 65536); }), {"port", "65536"}));
  CHECK(has_all(text_of<std::invalid_argument>([] { concur::endpoint e("300.1.1.1", 1); }), {"address", "300.1.1.1"}));
  const std::string long_host(300, 'a');
  CHECK(has_all(text_of<std::invalid_argument>([&] { concur::endpoint e(long_host + ":1"); }), {"255 bytes"}));
}

TEST_CASE("texts that are an endpoint come back as they were") {
  const nothing_left_over guard;
  for (const char* text : {"127.0.0.1:0", "127.0.0.1:65535", "[::1]:80", "1.2.3.4:5", "[2001:db8::7]:443"}) {
    CHECK(concur::endpoint(text).to_string() == text);
  }
  CHECK(concur::endpoint(":80").to_string() == "0.0.0.0:80");
  CHECK(concur::endpoint("::1", 80).to_string() == "[::1]:80");
  CHECK(concur::endpoint("1.2.3.4:5") == concur::endpoint("1.2.3.4", 5));
  CHECK(concur::endpoint().to_string() == "(no endpoint)");
}

// --- descriptors ---

namespace {

// Each POSIX-shaped call with a descriptor that is none: -1 and EBADF, on fibers and on plain threads.
void call_all_with(int fd, tally& held) {
  namespace io = concur::io;
  char byte = 0;
  sockaddr_in nowhere{};
  nowhere.sin_family = AF_INET;
  nowhere.sin_port = htons(1);
  nowhere.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const auto expect_bad = [&held](long result) { CONCUR_EXPECT(held, result == -1 && errno == EBADF); };
  expect_bad(io::read(fd, &byte, 1));
  expect_bad(io::write(fd, &byte, 1));
  expect_bad(io::accept(fd, nullptr, nullptr));
  expect_bad(io::connect(fd, reinterpret_cast<sockaddr*>(&nowhere), sizeof nowhere));
  expect_bad(io::close(fd));
}

// A number that was a descriptor once, and is too high to be given out again meanwhile.
int free_number() {
  const int fd = ::fcntl(STDERR_FILENO, F_DUPFD, 500);
  ::close(fd);
  return fd;
}

}  // namespace

TEST_CASE("descriptors that are none give EBADF") {
  const nothing_left_over guard;
  tally held;
  const int closed = free_number();
  for (const int fd : {-1, -2147483647 - 1, closed, 1000000, 2147483647}) {
    call_all_with(fd, held);
    concur::run(with_workers(2), [&] { call_all_with(fd, held); });
  }
  CHECK(held.report() == "");
}

TEST_CASE("streams and listeners that are not open fail with what they are") {
  const nothing_left_over guard;
  concur::run(with_workers(2), [] {
    concur::tcp_stream stream;
    concur::tcp_listener listener;
    char byte = 0;
    std::error_code error;
    CHECK(stream.read_some(&byte, 1, error) == 0);
    CHECK(error == std::errc::bad_file_descriptor);
    CHECK(stream.write_all("x", error) == 0);
    CHECK(error == std::errc::bad_file_descriptor);
    CHECK(!listener.accept(error).is_open());
    CHECK(error == std::errc::bad_file_descriptor);
    CHECK(has_all(text_of<std::system_error>([&] { stream.read_some(&byte, 1); }), {"tcp_stream::read_some"}));
    CHECK(has_all(text_of<std::system_error>([&] { listener.accept(); }), {"tcp_listener::accept"}));
    CHECK(!stream.is_open());
    CHECK(stream.local_endpoint().is_empty());
  });
}

TEST_CASE("a connection that is refused says to whom") {
  const nothing_left_over guard;
  concur::run(with_workers(2), [] {
    concur::endpoint nobody;
    {
      concur::tcp_listener listener = concur::tcp_listener::bind("127.0.0.1:0");
      nobody = listener.local_endpoint();
    }
    std::error_code error;
    CHECK(!concur::tcp_stream::connect(nobody, error).is_open());
    CHECK(error == std::errc::connection_refused);
    const std::string to = nobody.to_string();
    CHECK(has_all(text_of<std::system_error>([&] { concur::tcp_stream::connect(nobody); }),
                  {"connect to", to.c_str(), "refused"}));
    concur::tcp_stream::connect(concur::endpoint(), error);
    CHECK(error == std::errc::invalid_argument);
  });
}

TEST_CASE("an address that is taken, or is not ours, cannot be bound, and the text names it") {
  const nothing_left_over guard;
  concur::run(with_workers(1), [] {
    concur::tcp_listener first = concur::tcp_listener::bind("127.0.0.1:0");
    const std::string taken = first.local_endpoint().to_string();
    CHECK(has_all(text_of<std::system_error>([&] { concur::tcp_listener::bind(taken); }),
                  {"bind to", taken.c_str(), "in use"}));
    CHECK(has_all(text_of<std::system_error>([] { concur::tcp_listener::bind("192.0.2.1:80"); }),
                  {"bind to", "192.0.2.1:80"}));
    CHECK(has_all(text_of<std::invalid_argument>([] { concur::tcp_listener::bind("127.0.0.1:0", 0); }),
                  {"backlog", "is 0"}));
    std::error_code error;
    concur::tcp_listener::bind("127.0.0.1:0", -1, error);
    CHECK(error == std::errc::invalid_argument);
  });
}

// --- no more descriptors ---

TEST_CASE("without a descriptor left accept fails, the client waits, and is taken when there is one again") {
  const nothing_left_over guard;
  in_a_child([]() -> std::string {
    return concur::run(with_workers(2), []() -> std::string {
      concur::tcp_listener listener = concur::tcp_listener::bind("127.0.0.1:0");
      concur::tcp_stream client = concur::tcp_stream::connect(listener.local_endpoint());
      std::vector<int> fillers;
      limit_to(RLIMIT_NOFILE, 64);
      for (int fd; (fd = ::dup(STDERR_FILENO)) >= 0;) fillers.push_back(fd);
      for (int i = 0; i < 3; ++i) {
        std::error_code error;
        if (listener.accept(error).is_open() || error != std::errc::too_many_files_open)
          return "accept: " + error.message();
        if (::accept(-1, nullptr, nullptr) != -1) return "impossible";
      }
      const std::string at = listener.local_endpoint().to_string();
      if (!has_all(text_of<std::system_error>([&] { listener.accept(); }),
                   {"accept on", at.c_str(), "Too many open files"}))
        return "the text of accept";
      errno = 0;
      if (concur::io::accept(listener.fd(), nullptr, nullptr) != -1 || errno != EMFILE) return "io::accept";
      if (!has_all(text_of<std::system_error>([&] { concur::tcp_stream::connect(listener.local_endpoint()); }),
                   {"connect to", "Too many open files"}))
        return "connect";
      if (!has_all(text_of<std::system_error>([] { concur::runtime another(with_workers(1)); }),
                   {"concur::runtime", "poller", "Too many open files"}))
        return "a second runtime";
      for (const int fd : fillers) ::close(fd);
      concur::tcp_stream served = listener.accept();
      served.write_all("welcome");
      char answer[7];
      client.read_exactly(answer, sizeof answer);
      return std::string(answer, 7) == "welcome" ? "" : "the client was lost";
    });
  });
}

// --- no more memory ---

TEST_CASE("without memory for stacks some fibers do not run, their futures say why, and the others go on") {
  if (CONCUR_ASAN != 0 || CONCUR_TSAN != 0) return;  // they reserve address space by the terabyte
  const nothing_left_over guard;
  in_a_child([]() -> std::string {
    concur::options wanted = with_workers(2);
    wanted.stack_size = 1024 * 1024;
    return concur::run(wanted, []() -> std::string {
      // What is mapped already may stay; some hundred megabytes more are allowed.
      std::FILE* file = std::fopen("/proc/self/statm", "re");
      std::size_t pages = 0;
      if (file == nullptr || std::fscanf(file, "%zu", &pages) != 1) return "";
      std::fclose(file);
      limit_to(RLIMIT_AS, pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) + 200 * 1024 * 1024);
      concur::channel<int> gate;
      std::atomic<int> ran{0};
      std::atomic<int> destroyed{0};
      struct held {
        std::atomic<int>* count;
        explicit held(std::atomic<int>* count_in) : count(count_in) {}
        held(held&& other) noexcept : count(std::exchange(other.count, nullptr)) {}
        ~held() {
          if (count != nullptr) count->fetch_add(1);
        }
      };
      std::vector<concur::future<void>> all;
      constexpr int wanted_count = 2000;
      for (int i = 0; i < wanted_count; ++i) {
        all.push_back(concur::go([&ran, gate, kept = held(&destroyed)]() mutable {
          gate.recv();
          ran.fetch_add(1);
        }));
      }
      // Those for whom there is no stack are ready with an error; the others wait at the gate.
      concur::this_fiber::sleep_for(std::chrono::milliseconds(100));
      int refused = 0;
      for (concur::future<void>& one : all) {
        if (!one.ready()) continue;
        const std::string text = text_of<std::system_error>([&] { one.get(); });
        if (!has_all(text, {"no stack for fiber ", "1048576 bytes", "Cannot allocate memory"}))
          return "the text of the refusal: " + text;
        ++refused;
      }
      if (refused == 0 || refused == wanted_count) return std::to_string(refused) + " of 2000 were refused";
      gate.close();
      int came = 0;
      for (concur::future<void>& one : all) {
        if (!one.valid()) continue;
        one.get();
        ++came;
      }
      if (came + refused != wanted_count || ran.load() != came) return "fibers were lost";
      if (destroyed.load() != wanted_count) return "closures were lost";
      // There are stacks again, and the runtime works as before.
      for (int i = 0; i < 100; ++i) {
        if (concur::go([i] { return i; }).get() != i) return "a fiber after the shortage";
      }
      return "";
    });
  });
}

TEST_CASE("without memory for stacks parallel_invoke calls in its caller what it could not start elsewhere") {
  if (CONCUR_ASAN != 0 || CONCUR_TSAN != 0) return;  // as above
  const nothing_left_over guard;
  in_a_child([]() -> std::string {
    concur::options wanted = with_workers(1);
    wanted.stack_size = 1024 * 1024;
    return concur::run(wanted, []() -> std::string {
      std::FILE* file = std::fopen("/proc/self/statm", "re");
      std::size_t pages = 0;
      if (file == nullptr || std::fscanf(file, "%zu", &pages) != 1) return "";
      std::fclose(file);
      limit_to(RLIMIT_AS, pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) + 200 * 1024 * 1024);
      concur::channel<int> gate;
      int begun = 0;
      int called = 0;
      std::vector<concur::future<void>> all;
      for (int i = 0; i < 1000; ++i) {
        all.push_back(concur::go([&] {
          ++begun;
          concur::parallel_invoke([&] { gate.recv(); }, [&] { ++called; });
        }));
      }
      // The worker has nothing else to run then, and makes fibers of what they have offered, as far as there are stacks.
      concur::this_fiber::sleep_for(std::chrono::milliseconds(100));
      gate.close();
      for (concur::future<void>& one : all) {
        one.wait();
        text_of<std::system_error>([&] { one.get(); });
      }
      if (begun == 0 || begun == 1000) return std::to_string(begun) + " of 1000 had a stack";
      return called == begun ? "" : std::to_string(called) + " of " + std::to_string(begun) + " were called";
    });
  });
}

TEST_CASE("without threads to be had a runtime is refused, and leaves nothing behind") {
  const nothing_left_over guard;
  if (::geteuid() == 0 && CONCUR_ASAN + CONCUR_TSAN != 0) return;
  in_a_child([]() -> std::string {
    // As root the number of processes is not limited; the stacks of threads are, by address space.
    if (CONCUR_ASAN == 0 && CONCUR_TSAN == 0) {
      std::FILE* file = std::fopen("/proc/self/statm", "re");
      std::size_t pages = 0;
      if (file == nullptr || std::fscanf(file, "%zu", &pages) != 1) return "";
      std::fclose(file);
      limit_to(RLIMIT_AS, pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) + 100 * 1024 * 1024);
    }
    const std::size_t descriptors = concur_test::open_descriptors();
    const std::string text = text_of<std::system_error>([] { concur::runtime rt(with_workers(1024)); });
    if (!has_all(text, {"concur::runtime", "thread", "fewer workers"})) return "the text: " + text;
    if (concur_test::open_descriptors() != descriptors) return "descriptors were left";
    if (concur::process_leftovers().runtimes != 0) return "a runtime was left";
    return concur::run(with_workers(2), [] { return concur::go([] { return 1; }).get(); }) == 1 ? ""
                                                                                                : "a small runtime";
  });
}

TEST_CASE("a constructor that throws while a fiber is made costs nothing") {
  const nothing_left_over guard;
  struct throws_when_moved {
    throws_when_moved() = default;
    throws_when_moved(const throws_when_moved&) { throw std::runtime_error("no copy"); }
    void operator()() const {}
  };
  concur::run(with_workers(2), [] {
    const throws_when_moved callable;
    for (int i = 0; i < 100; ++i) CHECK(text_of<std::runtime_error>([&] { concur::go(callable); }) == "no copy");
    CHECK(concur::go([] { return 2; }).get() == 2);
  });
}
