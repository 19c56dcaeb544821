// test_fault.cpp - that a stack overflow is told apart from other faults, named, and then takes its course.
//
// Each case lets a child process do the deed, and looks at how it died and at what it wrote to standard error. The
// runtime's part, which knows the fiber's name, is played here by a function of our own. The overflow is a real one: a
// thread that recurses without end on a stack of the pool.
#include "concur.hpp"

#include "support/deny_call.hpp"

#include <doctest/doctest.h>

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <string>

using concur::report_stack_overflows;
using concur::detail::signal_safe_text;
using concur::detail::stack;
using concur::detail::stack_pool;
using concur::detail::thread_signal_stack;

namespace {

struct outcome {
  int status;
  std::string said;
  bool died_of(int number) const { return WIFSIGNALED(status) && WTERMSIG(status) == number; }
  bool exited_with(int code) const { return WIFEXITED(status) && WEXITSTATUS(status) == code; }
  // A sanitizer has handlers of its own, which report and exit.
  bool crashed() const {
    return died_of(SIGSEGV) || died_of(SIGBUS) || (WIFEXITED(status) && WEXITSTATUS(status) != 0);
  }
  bool names_fiber() const {
    const char* const words = "concur: stack overflow in fiber 17 \"parser\": its 262144 bytes are used up";
    return said.find(words) != std::string::npos;
  }
};

template <class Deed>
outcome in_child(Deed deed) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  std::cout.flush();  // or the child says it too
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const rlimit no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    ::alarm(60);
    ::dup2(ends[1], STDERR_FILENO);
    ::close(ends[0]);
    ::close(ends[1]);
    // doctest has handlers, and so have sanitizers; a program that has none is what is meant.
    for (const int number : {SIGSEGV, SIGBUS, SIGABRT, SIGTERM}) ::signal(number, SIG_DFL);
    stack_t off{};
    off.ss_flags = SS_DISABLE;
    ::sigaltstack(&off, nullptr);
    deed();
    ::_exit(0);
  }
  ::close(ends[1]);
  outcome result{-1, {}};
  char bytes[512];
  for (ssize_t count; (count = ::read(ends[0], bytes, sizeof bytes)) > 0;)
    result.said.append(bytes, static_cast<std::size_t>(count));
  ::close(ends[0]);
  REQUIRE(::waitpid(child, &result.status, 0) == child);
  const std::size_t emulator_speaks = result.said.find("qemu: uncaught");
  if (emulator_speaks != std::string::npos) result.said.resize(emulator_speaks);
  return result;
}

stack_pool* the_pool = nullptr;

bool name_fiber(const void* address, char* text, std::size_t bytes) {
  const stack* which = nullptr;
  if (!the_pool->guard_holds(address, &which)) return false;
  signal_safe_text out(text, bytes);
  out.add("stack overflow in fiber ").add_number(17).add(" \"parser\": its ").add_number(the_pool->usable_bytes());
  out.add(" bytes are used up; set options.stack_size higher or recurse less");
  return true;
}

std::atomic<int> depth{0};

CONCUR_NOINLINE int recurse_without_end(int n) {
  volatile char frame[256];
  frame[0] = static_cast<char>(n);
  depth.fetch_add(1, std::memory_order_relaxed);
  const int below = depth.load(std::memory_order_relaxed) > 0 ? recurse_without_end(n + 1) : 0;
  return below + frame[0];
}

void* overflow(void*) {
  const thread_signal_stack for_signals;
  recurse_without_end(0);
  return nullptr;
}

// Runs a function on a stack of a new pool, in a thread.
void run_on_pool_stack(void* (*function)(void*)) {
  stack_pool* const pool = new stack_pool(262144);
  the_pool = pool;
  concur::detail::set_fault_lookup(name_fiber);
  int error = 0;
  stack* const one = pool->acquire(error);
  pthread_attr_t attributes;
  pthread_t thread{};
  ::pthread_attr_init(&attributes);
  const std::size_t size = one->size / 4096 * 4096;
  if (::pthread_attr_setstack(&attributes, one->low, size) != 0) ::_exit(90);
  if (::pthread_create(&thread, &attributes, function, nullptr) != 0) ::_exit(91);
  ::pthread_join(thread, nullptr);
}

void fault_at_nothing() {
  volatile std::uintptr_t nowhere = 16;  // not null plus 16, which UndefinedBehaviorSanitizer would stop first
  *reinterpret_cast<volatile char*>(nowhere) = 1;
}

[[maybe_unused]] void say(const char* words) {
  const auto written = ::write(STDERR_FILENO, words, std::strlen(words));
  static_cast<void>(written);
}

void exit_42_if_in_guard(int, siginfo_t* info, void*) {
  ::_exit(the_pool->guard_holds(info->si_addr, nullptr) ? 42 : 43);
}

sigjmp_buf way_out;

}  // namespace

// Mutant 28: a worker without a signal stack of its own.
TEST_CASE("an overflow names the fiber, and the process dies of it") {
  const outcome result = in_child([] {
    if (!report_stack_overflows()) ::_exit(80);
    run_on_pool_stack(overflow);
  });
  CHECK(result.names_fiber());
  CHECK(result.crashed());
#if !CONCUR_ASAN && !CONCUR_TSAN
  CHECK((result.died_of(SIGSEGV) || result.died_of(SIGBUS)));
  CHECK(result.said == "concur: stack overflow in fiber 17 \"parser\": its 262144 bytes are used up; "
                       "set options.stack_size higher or recurse less\n");
#endif
}

TEST_CASE("a fiber of a runtime is named, with the stack size that was asked for") {
  const outcome result = in_child([] {
    if (!report_stack_overflows()) ::_exit(80);
    concur::options small;
    small.workers = 2;
    small.stack_size = 65536;
    concur::run(small, [] {
      concur::go([] {
        concur::this_fiber::name("deep one");
        concur::this_fiber::yield();
        recurse_without_end(0);
      }).get();
    });
  });
  CHECK(result.crashed());
  CHECK(result.said.find("concur: stack overflow in fiber ") == 0);
  CHECK(result.said.find(" \"deep one\": its 65536 bytes are used up") != std::string::npos);
}

TEST_CASE("asking twice reports once") {
  const outcome result = in_child([] {
    if (!report_stack_overflows() || !report_stack_overflows()) ::_exit(80);
    run_on_pool_stack(overflow);
  });
  CHECK(result.names_fiber());
  CHECK(result.crashed());
  CHECK(result.said.find("concur:", 8) == std::string::npos);
}

TEST_CASE("nothing is installed and nothing is said unless asked") {
  const outcome result = in_child([] {
    run_on_pool_stack([](void*) -> void* {
      const thread_signal_stack for_signals;
#if !CONCUR_ASAN && !CONCUR_TSAN
      for (const int number : {SIGSEGV, SIGBUS}) {
        struct sigaction now {};
        ::sigaction(number, nullptr, &now);
        if (now.sa_handler != SIG_DFL) ::_exit(81);
      }
      stack_t current{};
      ::sigaltstack(nullptr, &current);
      if ((current.ss_flags & SS_DISABLE) == 0) ::_exit(82);
#endif
      return nullptr;
    });
  });
  CHECK(result.exited_with(0));
  CHECK(result.said.empty());
}

TEST_CASE("a handler that was there before gets the fault, in either form") {
  const outcome with_information = in_child([] {
    struct sigaction before {};
    before.sa_sigaction = exit_42_if_in_guard;
    before.sa_flags = SA_SIGINFO | SA_ONSTACK;
    ::sigaction(SIGSEGV, &before, nullptr);
    ::sigaction(SIGBUS, &before, nullptr);
    report_stack_overflows();
    run_on_pool_stack(overflow);
  });
  CHECK(with_information.names_fiber());
  CHECK(with_information.exited_with(42));

  const outcome plain = in_child([] {
    struct sigaction before {};
    before.sa_handler = [](int number) { ::_exit(number == SIGSEGV || number == SIGBUS ? 44 : 45); };
    ::sigaction(SIGSEGV, &before, nullptr);
    ::sigaction(SIGBUS, &before, nullptr);
    report_stack_overflows();
    run_on_pool_stack(overflow);
  });
  CHECK(plain.names_fiber());
  CHECK(plain.exited_with(44));
}

TEST_CASE("a handler that was there before runs with its mask, and may jump out") {
  const outcome result = in_child([] {
    struct sigaction before {};
    before.sa_handler = [](int) {
      sigset_t now;
      ::sigprocmask(SIG_BLOCK, nullptr, &now);
      if (sigismember(&now, SIGUSR2) != 1) ::_exit(83);
      siglongjmp(way_out, 1);
    };
    static_cast<void>(sigaddset(&before.sa_mask, SIGUSR2));  // a macro on macOS
    ::sigaction(SIGSEGV, &before, nullptr);
    report_stack_overflows();
    for (volatile int i = 0; i < 3; i = i + 1)
      if (sigsetjmp(way_out, 1) == 0) fault_at_nothing();
    sigset_t now;
    ::sigprocmask(SIG_BLOCK, nullptr, &now);
    ::_exit(sigismember(&now, SIGUSR2) == 0 && sigismember(&now, SIGSEGV) == 0 ? 46 : 84);
  });
  CHECK(result.exited_with(46));
  CHECK(result.said.empty());
}

TEST_CASE("other faults pass without a word") {
  const outcome result = in_child([] {
    report_stack_overflows();
    run_on_pool_stack([](void*) -> void* {
      const thread_signal_stack for_signals;
      fault_at_nothing();
      return nullptr;
    });
  });
  CHECK(result.crashed());
  CHECK(result.said.find("concur:") == std::string::npos);
#if !CONCUR_ASAN && !CONCUR_TSAN
  CHECK(result.died_of(SIGSEGV));
  CHECK(result.said.empty());
#endif
}

#if !CONCUR_ASAN && !CONCUR_TSAN
TEST_CASE("a signal that was sent kills, or is ignored, as it would have been") {
  const outcome killed = in_child([] {
    report_stack_overflows();
    ::kill(::getpid(), SIGSEGV);
    say("alive");
  });
  CHECK(killed.died_of(SIGSEGV));
  CHECK(killed.said.empty());

  if (is_emulated()) return;  // the emulator needs SIGSEGV itself
  const outcome ignored = in_child([] {
    ::signal(SIGSEGV, SIG_IGN);
    report_stack_overflows();
    ::kill(::getpid(), SIGSEGV);
    say("alive");
  });
  CHECK(ignored.exited_with(0));
  CHECK(ignored.said == "alive");

  const outcome fault_while_ignored = in_child([] {
    ::signal(SIGSEGV, SIG_IGN);
    report_stack_overflows();
    run_on_pool_stack(overflow);
  });
  CHECK(fault_while_ignored.died_of(SIGSEGV));
  CHECK(fault_while_ignored.names_fiber());
}

TEST_CASE("a signal stack is there as long as its object, and one of the user's stays") {
  const outcome result = in_child([] {
    report_stack_overflows();
    stack_t current{};
    {
      const thread_signal_stack for_signals;
      ::sigaltstack(nullptr, &current);
      if ((current.ss_flags & SS_DISABLE) != 0 || current.ss_size < 16384) ::_exit(85);
      const thread_signal_stack second;
      stack_t same{};
      ::sigaltstack(nullptr, &same);
      if (same.ss_sp != current.ss_sp) ::_exit(86);
    }
    ::sigaltstack(nullptr, &current);
    if ((current.ss_flags & SS_DISABLE) == 0) ::_exit(87);

    static char of_user[65536];
    stack_t users{};
    users.ss_sp = of_user;
    users.ss_size = sizeof of_user;
    ::sigaltstack(&users, nullptr);
    { const thread_signal_stack for_signals; }
    ::sigaltstack(nullptr, &current);
    if (current.ss_sp != of_user || (current.ss_flags & SS_DISABLE) != 0) ::_exit(88);
  });
  CHECK(result.exited_with(0));
}
#endif

TEST_CASE("text for signal handlers is cut off where its room ends") {
  char room[8];
  signal_safe_text(room, sizeof room).add("ab").add_number(0).add_number(18446744073709551615U);
  CHECK(std::string(room) == "ab01844");
  signal_safe_text(room, 1).add("x");
  CHECK(std::string(room).empty());
  room[0] = 'q';
  signal_safe_text(room, 0).add("x").add_number(1);
  CHECK(room[0] == 'q');
}
