// test_poller.cpp - that each backend tells the reactor all it must know: the same cases for epoll, kqueue and poll.
//
// The backend is chosen when this is compiled: -DCONCUR_POLLER_POLL, or -DCONCUR_POLLER_KQUEUE -Itests/support/kqueue
// on Linux. An event too many is allowed, one too few is not; so the cases collect what comes until it suffices, with a
// limit of ten seconds, and look for what may not come only where nothing is in flight.
#if defined(CONCUR_MUTANT) && (CONCUR_MUTANT == 24 || CONCUR_MUTANT == 26)
#  define CONCUR_POLLER_POLL 1  // that is where these two are planted
#endif
#include "concur.hpp"

#include "support/deny_call.hpp"

#include <doctest/doctest.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using concur::detail::bit;
using concur::detail::now_ns;
using concur::detail::poll_event;
using concur::detail::poller;
using concur::detail::readiness;

namespace {

constexpr unsigned readable = bit(readiness::readable);
constexpr unsigned writable = bit(readiness::writable);
constexpr unsigned failed = bit(readiness::failed);
constexpr std::int64_t ms = 1000000;
constexpr std::int64_t much_too_long = 10000 * ms;

class file {
 public:
  file() = default;
  explicit file(int fd) : fd_(fd) {}
  file(file&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  file& operator=(file&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~file() { close(); }
  int fd() const { return fd_; }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_ = -1;
};

struct pair_of_files {
  file ours;
  file theirs;
};

void make_nonblocking(int fd) { REQUIRE(::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK) == 0); }

pair_of_files connected_pair() {
  int fds[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
  for (const int fd : fds) make_nonblocking(fd);
  return {file(fds[0]), file(fds[1])};
}

// ours is the end that reads.
pair_of_files pipe_pair() {
  int fds[2];
  REQUIRE(::pipe(fds) == 0);
  for (const int fd : fds) make_nonblocking(fd);
  return {file(fds[0]), file(fds[1])};
}

pair_of_files tcp_pair() {
  const file listener(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in here{};
  here.sin_family = AF_INET;
  here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof here;
  auto* const address = reinterpret_cast<sockaddr*>(&here);
  REQUIRE(::bind(listener.fd(), address, length) == 0);
  REQUIRE(::listen(listener.fd(), 1) == 0);
  REQUIRE(::getsockname(listener.fd(), address, &length) == 0);
  file theirs(::socket(AF_INET, SOCK_STREAM, 0));
  REQUIRE(::connect(theirs.fd(), address, length) == 0);
  file ours(::accept(listener.fd(), nullptr, nullptr));
  REQUIRE(ours.fd() >= 0);
  make_nonblocking(ours.fd());
  return {std::move(ours), std::move(theirs)};
}

void put(const file& to) { REQUIRE(::write(to.fd(), "x", 1) == 1); }

void fill(const file& to) {
  const std::vector<char> much(65536, 'x');
  while (::write(to.fd(), much.data(), much.size()) > 0) {
  }
  REQUIRE((errno == EAGAIN || errno == EWOULDBLOCK));
}

void drain(const file& from) {
  std::vector<char> much(65536);
  while (::read(from.fd(), much.data(), much.size()) > 0) {
  }
}

struct open_poller : poller {
  open_poller() { REQUIRE(open() == 0); }

  // Waits until this slot has reported all these bits, and returns what it reported. Fewer bits mean that time ran out.
  unsigned report_of(std::uint32_t slot, std::uint32_t generation, unsigned wanted) {
    unsigned seen = 0;
    const std::int64_t deadline = now_ns() + much_too_long;
    while ((seen & wanted) != wanted && now_ns() < deadline) {
      poll_event events[8];
      const int count = wait(events, 8, deadline - now_ns());
      REQUIRE(count >= 0);
      for (int i = 0; i < count; ++i)
        if (events[i].slot == slot && events[i].generation == generation) seen |= events[i].ready;
    }
    return seen;
  }

  // Takes what is there, such as the reports that a registration begins with. Returns their bits.
  unsigned take_all() {
    unsigned seen = 0;
    for (;;) {
      poll_event events[8];
      const int count = wait(events, 8, 0);
      REQUIRE(count >= 0);
      if (count == 0) return seen;
      for (int i = 0; i < count; ++i) seen |= events[i].ready;
    }
  }
};

std::set<int> open_descriptors() {
  std::set<int> numbers;
  for (int fd = 0; fd < 1024; ++fd)
    if (::fcntl(fd, F_GETFD) >= 0) numbers.insert(fd);
  return numbers;
}

// True once the thread sleeps in the kernel. Looking is not synchronising: the case only has to meet a thread that
// blocks.
bool comes_to_block(std::atomic<int>& thread_id) {
#if defined(__linux__)
  const std::int64_t deadline = now_ns() + much_too_long;
  while (now_ns() < deadline) {
    const int id = thread_id.load(std::memory_order_acquire);
    if (id != 0) {
      const std::string path = "/proc/self/task/" + std::to_string(id) + "/stat";
      if (std::FILE* const stat = std::fopen(path.c_str(), "r")) {
        char state = '?';
        const int read = std::fscanf(stat, "%*d (%*[^)]) %c", &state);
        std::fclose(stat);
        if (read == 1 && state == 'S') return true;
      }
    }
    std::this_thread::yield();
  }
  return false;
#else
  while (thread_id.load(std::memory_order_acquire) == 0) std::this_thread::yield();
  return true;
#endif
}

int this_thread_id() {
#if defined(__linux__)
  return ::gettid();
#else
  return 1;
#endif
}

}  // namespace

TEST_CASE("data make a descriptor readable, under the numbers it was added with") {
  open_poller watch;
  const pair_of_files two = connected_pair();
  REQUIRE(watch.add(two.ours.fd(), 7, 0xfffffffeU) == 0);
  CHECK(watch.report_of(7, 0xfffffffeU, writable) == writable);
  watch.arm(two.ours.fd(), 7, true, false);
  CHECK(watch.take_all() == 0);
  put(two.theirs);
  CHECK((watch.report_of(7, 0xfffffffeU, readable) & (readable | failed)) == readable);

  drain(two.ours);
  watch.arm(two.ours.fd(), 7, true, false);
  watch.take_all();
  put(two.theirs);
  CHECK((watch.report_of(7, 0xfffffffeU, readable) & readable) != 0);
}

TEST_CASE("room makes a descriptor writable") {
  open_poller watch;
  const pair_of_files two = connected_pair();
  fill(two.ours);
  REQUIRE(watch.add(two.ours.fd(), 3, 1) == 0);
  watch.arm(two.ours.fd(), 3, false, true);
  CHECK((watch.take_all() & writable) == 0);
  drain(two.theirs);
  CHECK((watch.report_of(3, 1, writable) & (writable | failed)) == writable);
}

TEST_CASE("what is ready already when it is added is reported") {
  open_poller watch;
  const pair_of_files two = connected_pair();
  put(two.theirs);
  REQUIRE(watch.add(two.ours.fd(), 1, 1) == 0);
  watch.arm(two.ours.fd(), 1, true, true);
  CHECK(watch.report_of(1, 1, readable | writable) == (readable | writable));
}

TEST_CASE("a reader and a writer both hear that the peer is gone") {
  open_poller watch;
  pair_of_files two = connected_pair();
  fill(two.ours);
  REQUIRE(watch.add(two.ours.fd(), 2, 1) == 0);
  watch.take_all();
  watch.arm(two.ours.fd(), 2, true, true);
  two.theirs.close();
  CHECK(watch.report_of(2, 1, readable | writable | failed) == concur::detail::everything_ready);
}

TEST_CASE("the end of a pipe's readers reaches the writer, that of its writers the reader") {
  open_poller watch;
  pair_of_files two = pipe_pair();
  fill(two.theirs);
  REQUIRE(watch.add(two.theirs.fd(), 2, 1) == 0);
  watch.take_all();
  watch.arm(two.theirs.fd(), 2, false, true);
  two.ours.close();
  CHECK((watch.report_of(2, 1, writable) & writable) != 0);

  pair_of_files others = pipe_pair();
  REQUIRE(watch.add(others.ours.fd(), 3, 1) == 0);
  watch.take_all();
  watch.arm(others.ours.fd(), 3, true, false);
  others.theirs.close();
  CHECK((watch.report_of(3, 1, readable) & readable) != 0);
}

TEST_CASE("a reset connection fails in both directions") {
  open_poller watch;
  pair_of_files two = tcp_pair();
  fill(two.ours);
  REQUIRE(watch.add(two.ours.fd(), 4, 9) == 0);
  watch.take_all();
  watch.arm(two.ours.fd(), 4, true, true);
  const linger hard{1, 0};
  REQUIRE(::setsockopt(two.theirs.fd(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard) == 0);
  two.theirs.close();
  CHECK(watch.report_of(4, 9, readable | writable | failed) == concur::detail::everything_ready);
}

TEST_CASE("a peer that only stops writing makes us readable, and nothing has failed") {
  for (const bool is_tcp : {false, true}) {
    open_poller watch;
    const pair_of_files two = is_tcp ? tcp_pair() : connected_pair();
    REQUIRE(watch.add(two.ours.fd(), 5, 1) == 0);
    watch.take_all();
    watch.arm(two.ours.fd(), 5, true, false);
    REQUIRE(::shutdown(two.theirs.fd(), SHUT_WR) == 0);
    CHECK((watch.report_of(5, 1, readable) & (readable | failed)) == readable);
  }
}

TEST_CASE("a connection that is refused wakes the one who waits for it") {
  open_poller watch;
  const file nobody(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in there{};
  there.sin_family = AF_INET;
  there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof there;
  auto* const address = reinterpret_cast<sockaddr*>(&there);
  REQUIRE(::bind(nobody.fd(), address, length) == 0);  // a port that is ours, and that nobody listens at
  REQUIRE(::getsockname(nobody.fd(), address, &length) == 0);
  const file ours(::socket(AF_INET, SOCK_STREAM, 0));
  make_nonblocking(ours.fd());
  REQUIRE(watch.add(ours.fd(), 6, 1) == 0);
  watch.take_all();
  const int result = ::connect(ours.fd(), address, length);
  REQUIRE(result != 0);
  watch.arm(ours.fd(), 6, false, true);
  CHECK((watch.report_of(6, 1, writable) & writable) != 0);
}

// Mutant 25: leaving it to close() to end a registration.
TEST_CASE("a number that is used again has the new generation, and a removed registration is silent") {
  open_poller watch;
  pair_of_files first = connected_pair();
  const int number = first.ours.fd();
  REQUIRE(watch.add(number, 8, 1) == 0);
  watch.take_all();
  watch.arm(number, 8, true, true);
  const file still_open(::dup(number));  // keeps the first file alive, as a child process would
  const pair_of_files second = connected_pair();
  watch.remove(number, 8);
  first.ours.close();

  const file successor(::dup2(second.ours.fd(), number));
  REQUIRE(successor.fd() == number);
  put(first.theirs);
  CHECK(watch.take_all() == 0);
  REQUIRE(watch.add(number, 8, 2) == 0);
  watch.arm(number, 8, true, true);
  poll_event events[8];
  const int count = watch.wait(events, 8, much_too_long);
  REQUIRE(count > 0);
  for (int i = 0; i < count; ++i) CHECK(events[i].generation == 2);
}

TEST_CASE("registering again after a removal works on the same descriptor") {
  open_poller watch;
  const pair_of_files two = connected_pair();
  for (std::uint32_t generation = 1; generation < 50; ++generation) {
    REQUIRE(watch.add(two.ours.fd(), 1, generation) == 0);
    watch.arm(two.ours.fd(), 1, true, true);
    CHECK(watch.report_of(1, generation, writable) == writable);
    watch.remove(two.ours.fd(), 1);
  }
}

TEST_CASE("wakes before a wait end it once, however many they are") {
  open_poller watch;
  poll_event events[4];
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 1000; ++i) watch.wake();
    CHECK(watch.wait(events, 4, -1) == 0);
    const std::int64_t begin = now_ns();
    CHECK(watch.wait(events, 4, 5 * ms) == 0);
    CHECK(now_ns() - begin >= 5 * ms);
  }
}

// Mutant 26: setting the wake word back before the byte is taken from the pipe. A waker in between is lost, and all
// after it.
TEST_CASE("a storm of wakes leaves none that is announced and never made") {
  open_poller watch;
  poll_event events[4];
  bool is_in_time = true;
  for (int storm = 0; storm < 50 && is_in_time; ++storm) {
    std::atomic<bool> is_over{false};
    std::thread waker([&] {
      while (!is_over.load(std::memory_order_relaxed)) watch.wake();
    });
    bool is_quiet = true;
    for (int i = 0; i < 10000; ++i) is_quiet = watch.wait(events, 4, 0) == 0 && is_quiet;
    CHECK(is_quiet);
    is_over.store(true, std::memory_order_relaxed);
    waker.join();
    CHECK(watch.take_all() == 0);
    watch.wake();
    const std::int64_t begin = now_ns();
    CHECK(watch.wait(events, 4, 1000 * ms) == 0);
    is_in_time = now_ns() - begin < 1000 * ms;
  }
  CHECK(is_in_time);
}

TEST_CASE("no wake is lost between looking and waiting") {
  constexpr int rounds = 100000;
  open_poller watch;
  std::atomic<int> announced{0};
  std::atomic<int> seen{0};
  std::thread waker([&] {
    std::minstd_rand random(1);
    for (int i = 1; i <= rounds; ++i) {
      announced.store(i, std::memory_order_relaxed);
      watch.wake();
      if (i % 64 == 0) {
        while (seen.load(std::memory_order_acquire) < i) std::this_thread::yield();
      }
      const std::int64_t pause_until = now_ns() + static_cast<std::int64_t>(random() % 4000);
      while (now_ns() < pause_until) {
      }
    }
  });
  bool is_in_time = true;
  for (;;) {
    const int now = is_in_time ? announced.load(std::memory_order_relaxed) : rounds;
    seen.store(now, std::memory_order_release);
    if (now == rounds) break;
    poll_event events[4];
    const std::int64_t begin = now_ns();
    CHECK(watch.wait(events, 4, much_too_long) == 0);
    if (now_ns() - begin >= much_too_long) is_in_time = false;
  }
  waker.join();
  CHECK(is_in_time);
}

TEST_CASE("what was written before a wake is visible after the wait") {
  open_poller watch;
  int plain = 0;
  std::thread waker([&] {
    plain = 7;
    watch.wake();
  });
  poll_event events[4];
  while (watch.wait(events, 4, -1) != 0) {
  }
  CHECK(plain == 7);
  waker.join();
}

TEST_CASE("a wake and an event come together") {
  open_poller watch;
  const pair_of_files two = connected_pair();
  REQUIRE(watch.add(two.ours.fd(), 1, 1) == 0);
  watch.take_all();
  watch.arm(two.ours.fd(), 1, true, false);
  watch.wake();
  put(two.theirs);
  CHECK((watch.report_of(1, 1, readable) & readable) != 0);
  poll_event events[4];
  CHECK(watch.wait(events, 4, 0) == 0);
}

TEST_CASE("a time limit is never early, and not late by more than it need be") {
  open_poller watch;
  poll_event events[4];
  for (const std::int64_t length : {std::int64_t{1}, std::int64_t{100000}, ms, 5 * ms}) {
    std::int64_t shortest = INT64_MAX;
    for (int i = 0; i < 30; ++i) {
      const std::int64_t begin = now_ns();
      REQUIRE(watch.wait(events, 4, length) == 0);
      shortest = (std::min)(shortest, now_ns() - begin);
    }
    CHECK(shortest >= length);
    CHECK(shortest < length + 2 * ms);
  }
}

#if defined(__linux__)
TEST_CASE("where nanoseconds are not to be had, milliseconds are rounded up") {
  for (const int error : {ENOSYS, EPERM}) {
    std::thread on_old_kernel([error] {
      constexpr long precise_call = 441;  // epoll_pwait2
      if (!deny_call(precise_call, error)) return;
      open_poller watch;
      poll_event events[4];
      for (const std::int64_t length : {std::int64_t{1}, ms + 1, 3 * ms}) {
        const std::int64_t begin = now_ns();
        CHECK(watch.wait(events, 4, length) == 0);
        CHECK(now_ns() - begin >= length);
      }
      watch.wake();
      CHECK(watch.wait(events, 4, INT64_MAX) == 0);
    });
    on_old_kernel.join();
  }
}
#endif

TEST_CASE("the longest time limit is no limit") {
  open_poller watch;
  poll_event events[4];
  for (const std::int64_t length : {INT64_MAX, INT64_MAX - 1, std::int64_t{-1}, INT64_MIN}) {
    std::atomic<int> id{0};
    std::atomic<bool> is_back{false};
    std::thread waiter([&] {
      id.store(this_thread_id(), std::memory_order_release);
      CHECK(watch.wait(events, 4, length) == 0);
      is_back.store(true, std::memory_order_release);
    });
    CHECK(comes_to_block(id));
    CHECK_FALSE(is_back.load(std::memory_order_acquire));
    watch.wake();
    waiter.join();
  }
}

// Mutant 24: without the wake in arm(), a poll() in progress does not know what is wanted since.
TEST_CASE("what is armed or added during a wait is seen by it") {
  for (const bool is_added_late : {false, true}) {
    open_poller watch;
    const pair_of_files two = connected_pair();
    if (!is_added_late) {
      REQUIRE(watch.add(two.ours.fd(), 1, 1) == 0);
      put(two.theirs);  // so that the first report of each direction is over
      watch.take_all();
      drain(two.ours);
    }
    std::atomic<int> id{0};
    unsigned seen = 0;
    std::thread waiter([&] {
      id.store(this_thread_id(), std::memory_order_release);
      seen = watch.report_of(1, 1, readable);
    });
    CHECK(comes_to_block(id));
    const std::int64_t begin = now_ns();
    if (is_added_late) REQUIRE(watch.add(two.ours.fd(), 1, 1) == 0);
    watch.arm(two.ours.fd(), 1, true, false);
    put(two.theirs);
    waiter.join();
    CHECK((seen & readable) != 0);
    CHECK(now_ns() - begin < much_too_long / 2);
  }
}

TEST_CASE("a descriptor removed and closed during a wait is closed at once") {
  open_poller watch;
  pair_of_files two = connected_pair();
  REQUIRE(watch.add(two.ours.fd(), 1, 1) == 0);
  watch.take_all();
  watch.arm(two.ours.fd(), 1, true, false);
  std::atomic<int> id{0};
  std::atomic<bool> is_over{false};
  std::thread waiter([&] {
    id.store(this_thread_id(), std::memory_order_release);
    poll_event events[4];
    while (!is_over.load(std::memory_order_acquire)) watch.wait(events, 4, much_too_long);
  });
  CHECK(comes_to_block(id));
  watch.remove(two.ours.fd(), 1);
  two.ours.close();
  open_poller other;  // tells when the peer sees the end
  REQUIRE(other.add(two.theirs.fd(), 1, 1) == 0);
  other.arm(two.theirs.fd(), 1, true, false);
  CHECK((other.report_of(1, 1, readable) & readable) != 0);
  is_over.store(true, std::memory_order_release);
  watch.wake();
  waiter.join();
}

TEST_CASE("many descriptors are all reported through a small array") {
  constexpr std::uint32_t count = 200;
  open_poller watch;
  std::vector<pair_of_files> pairs;
  for (std::uint32_t i = 0; i < count; ++i) {
    pairs.push_back(pipe_pair());
    REQUIRE(watch.add(pairs.back().ours.fd(), i, i + 1000) == 0);
  }
  watch.take_all();
  for (std::uint32_t i = 0; i < count; ++i) {
    watch.arm(pairs[i].ours.fd(), i, true, false);
    put(pairs[i].theirs);
  }
  std::set<std::uint32_t> seen;
  const std::int64_t deadline = now_ns() + much_too_long;
  while (seen.size() < count && now_ns() < deadline) {
    poll_event events[3];
    const int got = watch.wait(events, 3, deadline - now_ns());
    REQUIRE(got >= 0);
    for (int i = 0; i < got; ++i) {
      CHECK(events[i].generation == events[i].slot + 1000);
      seen.insert(events[i].slot);
      watch.arm(pairs[events[i].slot].ours.fd(), events[i].slot, true, false);  // the low ones stay busy
    }
  }
  CHECK(seen.size() == count);
}

TEST_CASE("files and directories are refused: they are always ready") {
  open_poller watch;
  const file regular(::open("/proc/self/exe", O_RDONLY));
  const file directory(::open("/", O_RDONLY));
  if (regular.fd() >= 0) CHECK(watch.add(regular.fd(), 1, 1) == EPERM);
  CHECK(watch.add(directory.fd(), 1, 1) == EPERM);
  CHECK(watch.add(1 << 20, 1, 1) == EBADF);
}

TEST_CASE("its own descriptors are counted, closed at exec, and given back") {
  const std::set<int> before = open_descriptors();
  {
    open_poller watch;
    std::vector<int> own;
    for (const int fd : open_descriptors())
      if (before.count(fd) == 0) own.push_back(fd);
    CHECK(static_cast<int>(own.size()) == watch.descriptor_count());
    for (const int fd : own) CHECK((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    watch.close();
    CHECK(open_descriptors() == before);
    REQUIRE(watch.open() == 0);  // as after a fork
    watch.wake();
    poll_event events[4];
    CHECK(watch.wait(events, 4, -1) == 0);
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("opening fails cleanly when there are no descriptors left") {
  rlimit old_limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &old_limit) == 0);
  const std::set<int> before = open_descriptors();
  for (unsigned left = 0; left < 4; ++left) {
    std::vector<file> fillers;
    int lowest_free = 0;
    while (before.count(lowest_free) != 0) ++lowest_free;
    rlimit tight = old_limit;
    tight.rlim_cur = static_cast<rlim_t>(lowest_free) + left;
    poller watch;
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &tight) == 0);
    const int error = watch.open();
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &old_limit) == 0);
    if (error != 0) {
      CHECK(error == EMFILE);
      CHECK(watch.descriptor_count() == 0);
      CHECK(open_descriptors() == before);
    } else {
      CHECK(left >= static_cast<unsigned>(watch.descriptor_count()));
    }
  }
}

TEST_CASE("a signal ends a wait without an error") {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  struct sigaction old_action {};
  REQUIRE(::sigaction(SIGUSR1, &action, &old_action) == 0);
  open_poller watch;
  const pthread_t self = ::pthread_self();
  std::atomic<bool> is_over{false};
  std::thread sender([&] {
    while (!is_over.load(std::memory_order_acquire)) {
      ::pthread_kill(self, SIGUSR1);
      std::this_thread::yield();
    }
  });
  poll_event events[4];
  for (int i = 0; i < 100; ++i) CHECK(watch.wait(events, 4, 2 * ms) == 0);
  is_over.store(true, std::memory_order_release);
  sender.join();
  ::sigaction(SIGUSR1, &old_action, nullptr);
}
