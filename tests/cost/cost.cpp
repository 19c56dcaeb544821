// tests/cost/cost.cpp - one operation of the library, so many times, for run.py to count what each of them takes.
//
// usage: cost --operation NAME --count N      does it, and prints `allocations N` and `clock N`
//        cost --list                          the names, and in words what is counted once
//
// run.py runs it under callgrind with two counts; what differs, divided by the difference, is the cost of one. So that two
// runs differ in nothing else, there is one worker, whom nobody robs, and the clock is not the machine's: each look at it
// finds it half a microsecond further on, which is about what a busy worker sees. Instructions spent in reading the real one
// are therefore not in the figures; the looks are, by their number.
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

#include "concur.hpp"

// --- what is counted in here: allocations, and looks at the clock ---

namespace {
std::atomic<long> allocations{0}, looks{0};

// Not a read-modify-write, which run.py would count: there is one thread at work at a time.
void count_in(std::atomic<long>& what) noexcept {
  what.store(what.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}
}  // namespace

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t size) noexcept {
  count_in(allocations);
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) noexcept {
  count_in(allocations);
  return __libc_calloc(count, size);
}
void* realloc(void* old, std::size_t size) noexcept {
  count_in(allocations);
  return __libc_realloc(old, size);
}
void* memalign(std::size_t alignment, std::size_t size) noexcept {
  count_in(allocations);
  return __libc_memalign(alignment, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept { return memalign(alignment, size); }
int posix_memalign(void** result, std::size_t alignment, std::size_t size) noexcept {
  *result = memalign(alignment, size);
  return *result != nullptr ? 0 : ENOMEM;
}

int clock_gettime(clockid_t, timespec* now) noexcept {
  constexpr long step_ns = 500;
  count_in(looks);
  const long ns = looks.load(std::memory_order_relaxed) * step_ns;
  now->tv_sec = 1000 + ns / 1'000'000'000;
  now->tv_nsec = ns % 1'000'000'000;
  return 0;
}
}

namespace {

constexpr std::chrono::hours an_hour(1);

// --- a ruler, whose length is known ---

std::atomic<long> word{0};

void allocate() {
  void* volatile kept = std::malloc(24);  // volatile: a pair that nobody looks at may be left out
  std::free(kept);
}
void known(long count) {
  for (long i = 0; i < count; ++i) {
    word.fetch_add(2, std::memory_order_relaxed);
    word.store(1, std::memory_order_seq_cst);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    allocate();
    close(-1);
  }
}
void known_grown(long count) {
  for (long i = 0; i < count; ++i) {
    known(1);
    word.fetch_add(1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    allocate();
    close(-1);
    std::chrono::steady_clock::now();
  }
}

// --- fibers ---

void go_and_join(long count) {
  for (long i = 0; i < count; ++i) concur::go([] {}).get();
}

void go_crowd(long count) {
  constexpr long together = 100;
  std::vector<concur::future<void>> crowd;
  crowd.reserve(together);
  for (long done = 0; done < count; done += together) {
    for (long i = 0; i < together; ++i) crowd.push_back(concur::go([] {}));
    for (auto& one : crowd) one.get();
    crowd.clear();
  }
}

void nursery_child(long count) {
  constexpr long together = 100;
  for (long done = 0; done < count; done += together) {
    concur::with_nursery([&](concur::nursery& n) {
      for (long i = 0; i < together; ++i) n.go([] {});
    });
  }
}

void yields_of(long fibers, long count) {
  std::vector<concur::future<void>> running;
  for (long i = 0; i < fibers; ++i) {
    running.push_back(concur::go([each = count / fibers] {
      for (long k = 0; k < each; ++k) concur::this_fiber::yield();
    }));
  }
  for (auto& one : running) one.get();
}
void yield_2(long count) { yields_of(2, count); }
void yield_1000(long count) { yields_of(1000, count); }
void yield_100000(long count) { yields_of(100000, count); }

// Crowds, again and again; the first one makes blocks and stacks, which the difference of two counts leaves out.
void spawn_of(long crowd, long count) {
  std::vector<concur::future<void>> running;
  running.reserve(static_cast<std::size_t>(crowd));
  for (long done = 0; done < count; done += crowd) {
    for (long i = 0; i < crowd; ++i) running.push_back(concur::go([] {}));
    for (auto& one : running) one.get();
    running.clear();
  }
}
void spawn_1000(long count) { spawn_of(1000, count); }
void spawn_100000(long count) { spawn_of(100000, count); }

void park_of(long crowd, long count) {
  for (long done = 0; done < count; done += crowd) {
    concur::channel<long> gate;
    long arrived = 0, gone = 0;
    for (long i = 0; i < crowd; ++i) {
      concur::go([&] {
        ++arrived;
        gate.recv();
        ++gone;
      });
    }
    while (arrived != crowd) concur::this_fiber::yield();
    gate.close();
    while (gone != crowd) concur::this_fiber::yield();
  }
}
void park_1000(long count) { park_of(1000, count); }
void park_100000(long count) { park_of(100000, count); }

// Two fibers that give each other one permit in turn.
template <class Take>
void hand_over(long count, Take take) {
  concur::binary_semaphore first(1), second(0);
  auto other = concur::go([&] {
    for (long i = 0; i < count / 2; ++i) {
      take(second);
      first.release();
    }
  });
  for (long i = 0; i < count / 2; ++i) {
    take(first);
    second.release();
  }
  other.get();
}
void park_and_wake(long count) {
  hand_over(count, [](concur::binary_semaphore& permit) { permit.acquire(); });
}
void park_with_limit(long count) {
  hand_over(count, [](concur::binary_semaphore& permit) { permit.try_acquire_for(an_hour); });
}

void time_limit(long count) {
  for (long i = 0; i < count; ++i) concur::fail_after(an_hour, [] {});
}

// --- channels ---

void send_and_recv(long count) {
  concur::channel<long> items(128);
  for (long i = 0; i < count; ++i) {
    items.send(i);
    items.recv();
  }
}

void pass_on(long count) {
  concur::channel<long> items(128);
  auto producer = concur::go([&] {
    for (long i = 0; i < count; ++i) items.send(i);
  });
  for (long i = 0; i < count; ++i) items.recv();
  producer.get();
}

void ping_pong(long count) {
  concur::channel<long> there, back;
  auto other = concur::go([&] {
    while (auto value = there.recv()) back.send(*value + 1);
  });
  for (long i = 0; i < count; ++i) {
    there.send(i);
    back.recv();
  }
  there.close();
  other.get();
}

void select_ready(long count) {
  concur::channel<long> one(1), other(1);
  const auto nothing = [](std::optional<long>) {};
  for (long i = 0; i < count; ++i) {
    (i % 2 == 0 ? one : other).send(i);
    concur::select(concur::recv(one, nothing), concur::recv(other, nothing));
  }
}

// Whether the sends park or the selects is settled by who comes first, and stays so.
void select_round_trips(long count, bool selects_park) {
  concur::channel<long> there[2], back[2];
  auto other = concur::go([&] {
    for (long i = 0; i < count; ++i) {
      concur::select(concur::recv(there[0], [&](std::optional<long> value) { back[0].send(*value + 1); }),
                     concur::recv(there[1], [&](std::optional<long> value) { back[1].send(*value + 1); }));
    }
  });
  if (selects_park) concur::this_fiber::yield();
  const auto nothing = [](std::optional<long>) {};
  for (long i = 0; i < count; ++i) {
    there[i % 2].send(i);
    concur::select(concur::recv(back[0], nothing), concur::recv(back[1], nothing));
  }
  other.get();
}
void select_ping_pong(long count) { select_round_trips(count, false); }
void select_parks(long count) { select_round_trips(count, true); }

// --- locks ---

void mutex_uncontended(long count) {
  concur::mutex lock;
  for (long i = 0; i < count; ++i) {
    lock.lock();
    lock.unlock();
  }
}

// --- descriptors ---

constexpr std::size_t message_bytes = 64;

void posix_write_and_read(long count) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
  char message[message_bytes] = {};
  for (long i = 0; i < count; ++i) {
    concur::io::write(ends[0], message, sizeof message);
    concur::io::read(ends[1], message, sizeof message);
  }
  for (int end : ends) concur::io::close(end);
}

// Both ends of a connection over the loopback interface.
struct connection {
  connection() {
    auto listener = concur::tcp_listener::bind("127.0.0.1:0");
    auto accepted = concur::go([&] { return listener.accept(); });
    near_end = concur::tcp_stream::connect(listener.local_endpoint());
    far_end = accepted.get();
    near_end.no_delay(true);
    far_end.no_delay(true);
  }
  concur::tcp_stream near_end, far_end;
};

void tcp_write_and_read(long count) {
  connection ends;
  char message[message_bytes] = {};
  for (long i = 0; i < count; ++i) {
    ends.near_end.write_all(message, sizeof message);
    ends.far_end.read_exactly(message, sizeof message);
  }
}

void tcp_echo(long count) {
  connection ends;
  auto server = concur::go([&far_end = ends.far_end] {
    char bytes[4096];
    while (const std::size_t got = far_end.read_some(bytes, sizeof bytes)) far_end.write_all(bytes, got);
  });
  char message[message_bytes] = {};
  for (long i = 0; i < count; ++i) {
    ends.near_end.write_all(message, sizeof message);
    ends.near_end.read_exactly(message, sizeof message);
  }
  ends.near_end.shutdown_write();
  server.get();
}

// An operation whose name ends in a number is done in crowds of so many.
struct operation {
  const char* name;
  void (*run)(long count);
  const char* what;
};
constexpr operation operations[] = {
    {"known", &known, "two atomics, a fence, an allocation, a system call: what the counting is tested with"},
    {"known_grown", &known_grown, "one more of each, and a look at the clock"},
    {"go_and_join", &go_and_join, "a fiber that does nothing is started, and its end waited for"},
    {"go_crowd", &go_crowd, "the same, a hundred at a time"},
    {"nursery_child", &nursery_child, "a child of a nursery that has a hundred, start to end"},
    {"yield_2", &yield_2, "a yield, where one other fiber is ready"},
    {"yield_1000", &yield_1000, "a yield, where 999 others are ready"},
    {"yield_100000", &yield_100000, "the same, where 99,999 others are ready"},
    {"spawn_1000", &spawn_1000, "a fiber that does nothing, of a thousand that are started and then waited for"},
    {"spawn_100000", &spawn_100000, "the same, of a hundred thousand"},
    {"park_1000", &park_1000, "a fiber is made, parks, is woken and ends, in a crowd of a thousand"},
    {"park_100000", &park_100000, "the same, of a hundred thousand"},
    {"park_and_wake", &park_and_wake, "a semaphore is released and wakes a fiber, and the other one parks there"},
    {"park_with_limit", &park_with_limit, "the same, where waiting has a limit of an hour"},
    {"time_limit", &time_limit, "fail_after around nothing"},
    {"send_and_recv", &send_and_recv, "a send and a receive, buffered, that need not wait"},
    {"pass_on", &pass_on, "one value through a channel of 128 from a fiber to another"},
    {"ping_pong", &ping_pong, "there and back over two unbuffered channels: two sends that park, and two receives"},
    {"select_ready", &select_ready, "a send, and a select over two channels of which one is ready"},
    {"select_ping_pong", &select_ping_pong, "there and back: two sends that park, and two selects over two channels"},
    {"select_parks", &select_parks, "the same, where the selects park"},
    {"mutex", &mutex_uncontended, "lock and unlock, nobody else wants it"},
    {"posix_write_and_read", &posix_write_and_read, "io::write and io::read of 64 bytes on a pair of sockets"},
    {"tcp_write_and_read", &tcp_write_and_read, "write_all and read_exactly of 64 bytes; nothing waits"},
    {"tcp_echo", &tcp_echo, "64 bytes there and back between two fibers, each of which parks in its read"},
};

const char* word_after(int argc, char** argv, const char* name) {
  for (int i = 1; i + 1 < argc; ++i) {
    if (std::strcmp(argv[i], name) == 0) return argv[i + 1];
  }
  return "";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
    for (const operation& one : operations) std::printf("%s\t%s\n", one.name, one.what);
    return 0;
  }
  const char* const wanted = word_after(argc, argv, "--operation");
  const long count = std::strtol(word_after(argc, argv, "--count"), nullptr, 10);
  for (const operation& one : operations) {
    if (std::strcmp(one.name, wanted) != 0 || count <= 0) continue;
    concur::options options;
    options.workers = 1;
    concur::run(options, [&] { one.run(count); });
    std::printf("allocations %ld\nclock %ld\n", allocations.load(), looks.load());
    return 0;
  }
  std::fprintf(stderr, "usage: cost --operation NAME --count N | --list\n");
  return 2;
}
