// test_migration.cpp - fibers that change threads keep what the compiler and the C++ runtime library take for the thread's.
//
// Three things of a thread that code does not see itself use: the stack of caught exceptions, the number of uncaught
// ones, and the address of errno. Each case parks in the middle of using one, with four workers, and a plain thread
// that wakes fibers so that they go on wherever there is room. It also counts how often a fiber came back on another
// thread than it left from: a run in which none did would prove nothing.
//
// Values are read through functions that are not inlined, as a program must do that wants the truth.
#include "support/tally.hpp"
#include "support/test.hpp"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <exception>
#include <stdexcept>
#include <thread>
#include <vector>

namespace {

constexpr int fiber_count = 64;
constexpr int rounds = (CONCUR_TSAN != 0 ? 2 : 12) * CONCUR_TEST_SCALE;

// --- what is asked afresh each time ---

__attribute__((noinline)) pthread_t this_thread() {
  asm volatile("" : : : "memory");
  return pthread_self();
}
__attribute__((noinline)) int errno_now() {
  asm volatile("" : : : "memory");
  return errno;
}
__attribute__((noinline)) int* errno_address() {
  int* address = &errno;
  asm volatile("" : "+r"(address) : : "memory");
  return address;
}
__attribute__((noinline)) int uncaught_now() {
  asm volatile("" : : : "memory");
  return std::uncaught_exceptions();
}
__attribute__((noinline)) std::exception_ptr current_now() {
  asm volatile("" : : : "memory");
  return std::current_exception();
}

// --- changing threads ---

// A plain thread that sends every fiber which asks for it a wake-up. The woken fiber goes to the shared queue, and from
// there to the first worker that looks.
class mover {
 public:
  mover()
      : thread_([this] {
          for (concur::channel<void> answer : asked_) answer.send();
        }) {}
  ~mover() {
    asked_.close();
    thread_.join();
  }

  // Parks by turns in a yield, a sleep, and a wait for the plain thread.
  void hop(int& turn) {
    const pthread_t before = this_thread();
    switch (++turn % 3) {
      case 0:
        concur::this_fiber::yield();
        break;
      case 1:
        concur::this_fiber::sleep_for(std::chrono::microseconds(20));
        break;
      default: {
        concur::channel<void> answer(1);
        asked_.send(answer);
        answer.recv();
      }
    }
    if (pthread_equal(before, this_thread()) == 0) moves.fetch_add(1);
  }

  std::atomic<std::size_t> moves{0};

 private:
  concur::channel<concur::channel<void>> asked_{fiber_count};
  std::thread thread_;
};

struct numbered_error : std::runtime_error {
  explicit numbered_error(int number_in) : std::runtime_error("numbered"), number(number_in) {}
  int number;
};
struct inner_error {
  int number;
};

// --- the stack of caught exceptions ---

void park_in_catch_blocks(mover& m, tally& held, int number, int& turn) {
  CONCUR_EXPECT(held, current_now() == nullptr);
  try {
    m.hop(turn);
    throw numbered_error(number);
  } catch (const numbered_error& outer) {
    const std::exception_ptr mine = current_now();
    m.hop(turn);
    CONCUR_EXPECT(held, outer.number == number);
    CONCUR_EXPECT(held, current_now() == mine);
    CONCUR_EXPECT(held, uncaught_now() == 0);
    try {
      throw inner_error{number + 1000};
    } catch (const inner_error& inner) {
      m.hop(turn);
      CONCUR_EXPECT(held, inner.number == number + 1000);
      try {
        m.hop(turn);
        throw;
      } catch (const inner_error& again) {
        m.hop(turn);
        CONCUR_EXPECT(held, &again == &inner);
      }
      m.hop(turn);
      CONCUR_EXPECT(held, current_now() != mine);
    }
    CONCUR_EXPECT(held, current_now() == mine);
    m.hop(turn);
    try {
      throw;
    } catch (const std::runtime_error& again) {
      m.hop(turn);
      CONCUR_EXPECT(held, static_cast<const void*>(&again) == static_cast<const void*>(&outer));
    }
  }
  CONCUR_EXPECT(held, current_now() == nullptr);
}

// --- the number of uncaught exceptions ---

struct parks_as_it_goes {
  parks_as_it_goes(mover& m_in, tally& held_in, int& turn_in, int uncaught_in)
      : m(m_in), held(held_in), turn(turn_in), uncaught(uncaught_in) {}
  parks_as_it_goes(const parks_as_it_goes&) = delete;
  parks_as_it_goes& operator=(const parks_as_it_goes&) = delete;
  ~parks_as_it_goes() {
    CONCUR_EXPECT(held, uncaught_now() == uncaught);
    m.hop(turn);
    CONCUR_EXPECT(held, uncaught_now() == uncaught);
    // An exception within the destructor, and one more destructor that parks on its way.
    if (uncaught < 3) {
      try {
        parks_as_it_goes deeper(m, held, turn, uncaught + 1);
        m.hop(turn);
        throw inner_error{uncaught};
      } catch (const inner_error& caught) {
        m.hop(turn);
        CONCUR_EXPECT(held, caught.number == uncaught);
        CONCUR_EXPECT(held, uncaught_now() == uncaught);
      }
    }
    m.hop(turn);
    CONCUR_EXPECT(held, uncaught_now() == uncaught);
  }

  mover& m;
  tally& held;
  int& turn;
  int uncaught;
};

void park_while_unwinding(mover& m, tally& held, int number, int& turn) {
  try {
    parks_as_it_goes first(m, held, turn, 1);
    parks_as_it_goes second(m, held, turn, 1);
    throw numbered_error(number);
  } catch (const numbered_error& caught) {
    CONCUR_EXPECT(held, uncaught_now() == 0);
    m.hop(turn);
    CONCUR_EXPECT(held, caught.number == number);
  }
  CONCUR_EXPECT(held, uncaught_now() == 0);
}

// --- errno ---

// Through a function of its own, as every use of errno around a call that parks should be: the compiler keeps the address
// over calls, and that would be another thread's after a hop.
CONCUR_NOINLINE void clear_errno() {
  errno = 0;
  asm volatile("" ::: "memory");
}

// A call that must fail with `expected`, on the thread that it was made on. errno is looked at afresh, and at the address
// that it had before, which is where a compiler looks that kept it.
template <class Call>
void fails_with(tally& held, int expected, Call call) {
  const pthread_t before = this_thread();
  int* const kept = errno_address();
  clear_errno();
  const long result = static_cast<long>(call());
  const int fresh = errno_now();
  const int at_kept = *kept;
  CONCUR_EXPECT(held, result == -1);
  CONCUR_EXPECT(held, fresh == expected);
  CONCUR_EXPECT(held, at_kept == expected);
  CONCUR_EXPECT(held, pthread_equal(before, this_thread()) != 0);
}

int loopback_listener(sockaddr_in& address) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  address = sockaddr_in{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || ::listen(fd, 16) != 0) return -1;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  return fd;
}

// Both ends of a connection; closing the second with unread data in it, or lingering 0, resets the first.
void connected_pair(int (&ends)[2]) {
  sockaddr_in address{};
  const int listener = loopback_listener(address);
  ends[0] = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int connected = ::connect(ends[0], reinterpret_cast<sockaddr*>(&address), sizeof address);
  ends[1] = ::accept(listener, nullptr, nullptr);
  ::close(listener);
  REQUIRE_FALSE(connected != 0);
}

void reset(int fd) {
  const linger at_once{1, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  concur::io::close(fd);
}

// Lets others run until somebody waits to read from `fd`.
void await_reader(mover& m, int fd, int turn) {
  concur::detail::descriptor_slot* slot = concur::detail::slot_of(fd);
  while (!slot->side(concur::detail::direction::reading).is_busy.load()) m.hop(turn);
}

// Calls that fail at once, and calls that park first and are then made to fail by another fiber.
void park_across_errno(mover& m, tally& held, int& turn) {
  namespace io = concur::io;
  char byte = 0;
  fails_with(held, EBADF, [&] { return io::read(-1, &byte, 1); });
  m.hop(turn);
  fails_with(held, EBADF, [&] { return io::accept(-1, nullptr, nullptr); });
  m.hop(turn);
  int ends[2];
  connected_pair(ends);
  fails_with(held, EINVAL, [&] { return io::accept(ends[0], nullptr, nullptr); });  // it does not listen
  {
    concur::future<void> resetter = concur::go([&] {
      await_reader(m, ends[0], turn);
      reset(ends[1]);
    });
    fails_with(held, ECONNRESET, [&] { return io::read(ends[0], &byte, 1); });
    resetter.get();
  }
  m.hop(turn);
  fails_with(held, EPIPE, [&] { return io::write(ends[0], &byte, 1); });
  io::close(ends[0]);
  sockaddr_in address{};
  const int listener = loopback_listener(address);
  {
    concur::future<void> closer = concur::go([&] {
      await_reader(m, listener, turn);
      io::close(listener);
    });
    fails_with(held, ECANCELED, [&] { return io::accept(listener, nullptr, nullptr); });
    closer.get();
  }
  m.hop(turn);
  fails_with(held, EBADF, [&] { return io::close(-1); });
}

// What the library takes for its worker, asked before and after a hop in one function, where a compiler that sees through
// the question keeps the answer's address.
void ask_for_the_worker(mover& m, tally& held, int& turn) {
  const concur::detail::fiber* const self = concur::detail::this_worker()->current;
  for (int i = 0; i < 8; ++i) {
    m.hop(turn);
    CONCUR_EXPECT(held, concur::detail::this_worker()->current == self);
  }
}

template <class Body>
void with_sixty_four_fibers(mover& m, tally& held, Body body) {
  // On a busy machine one worker may do everything before the others get there; then once more.
  for (int attempt = 0; attempt < 100 && m.moves.load() < fiber_count; ++attempt)
    concur::run(with_workers(4), [&] {
      std::vector<concur::future<void>> all;
      for (int number = 0; number < fiber_count; ++number) {
        all.push_back(concur::go([&, number] {
          int turn = number;
          for (int round = 0; round < rounds; ++round) body(m, held, number, turn);
        }));
      }
      for (concur::future<void>& one : all) one.get();
    });
  CHECK(held.report() == "");
  MESSAGE("changed threads ", m.moves.load(), " times");
  CHECK(m.moves.load() >= fiber_count);
}

}  // namespace

TEST_CASE("a fiber that parks in nested catch blocks finds its own exceptions") {
  const nothing_left_over guard;
  mover m;
  tally held;
  with_sixty_four_fibers(m, held, park_in_catch_blocks);
}

TEST_CASE("a destructor that parks while the stack unwinds sees the right number of uncaught exceptions") {
  const nothing_left_over guard;
  mover m;
  tally held;
  with_sixty_four_fibers(m, held, park_while_unwinding);
}

TEST_CASE("catching and unwinding fibers together do not mix") {
  const nothing_left_over guard;
  mover m;
  tally held;
  with_sixty_four_fibers(m, held, [](mover& where, tally& tallied, int number, int& turn) {
    if (number % 2 == 0)
      park_in_catch_blocks(where, tallied, number, turn);
    else
      park_while_unwinding(where, tallied, number, turn);
  });
}

TEST_CASE("errno of a call that parked is where the caller looks for it") {
  const nothing_left_over guard;
  mover m;
  tally held;
  with_sixty_four_fibers(m, held,
                         [](mover& where, tally& tallied, int, int& turn) { park_across_errno(where, tallied, turn); });
}

TEST_CASE("a fiber that has moved finds the worker it is on") {
  const nothing_left_over guard;
  mover m;
  tally held;
  with_sixty_four_fibers(
      m, held, [](mover& where, tally& tallied, int, int& turn) { ask_for_the_worker(where, tallied, turn); });
}

TEST_CASE("an exception crosses from fiber to fiber and thread to thread as the type it was thrown with") {
  const nothing_left_over guard;
  mover m;
  tally held;
  with_sixty_four_fibers(m, held, [](mover& where, tally& tallied, int number, int& turn) {
    concur::future<int> child = concur::go([&where, number, turn]() -> int {
      int own_turn = turn;
      where.hop(own_turn);
      throw numbered_error(number);
    });
    where.hop(turn);
    try {
      child.get();
      CONCUR_EXPECT(tallied, false);
    } catch (const numbered_error& caught) {
      where.hop(turn);
      CONCUR_EXPECT(tallied, caught.number == number);
    }
  });
}
