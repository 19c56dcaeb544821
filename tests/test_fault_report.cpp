// test_fault_report.cpp - a fiber that recurses too deep dies by name.
//
// Each overflow happens in a child process, whose standard error is read here. The child ends as it would have without
// the report: killed by the signal, or in the handler that was installed before.
#include "support/test.hpp"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string>

namespace {

// Deeper by one frame of about a kilobyte for each call. The sum keeps the compiler from making a loop of it.
__attribute__((noinline)) unsigned recurse(unsigned depth) {
  volatile char frame[1024];
  for (unsigned i = 0; i < sizeof frame; i += 64) frame[i] = static_cast<char>(depth);
  if (depth == 0) return 1;
  const unsigned below = recurse(depth - 1);
  return below + static_cast<unsigned char>(frame[depth % sizeof frame]);
}

struct ending {
  int status = 0;
  std::string said;
  bool was_killed_by(int number) const { return WIFSIGNALED(status) && WTERMSIG(status) == number; }
  bool said_all_of(std::initializer_list<const char*> words) const {
    for (const char* word : words) {
      if (said.find(word) == std::string::npos) return false;
    }
    return true;
  }
};

// Runs `deed` in a child with the default handlers for faults, and tells how that ended.
template <class Deed>
ending in_a_child(Deed deed) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], STDERR_FILENO);
    ::close(ends[0]);
    ::close(ends[1]);
    for (const int number : {SIGSEGV, SIGBUS, SIGABRT}) ::signal(number, SIG_DFL);
    stack_t none{};
    none.ss_flags = SS_DISABLE;
    ::sigaltstack(&none, nullptr);
    deed();
    ::_exit(0);
  }
  ::close(ends[1]);
  ending result;
  char bytes[512];
  for (ssize_t count; (count = ::read(ends[0], bytes, sizeof bytes)) > 0;)
    result.said.append(bytes, static_cast<std::size_t>(count));
  ::close(ends[0]);
  REQUIRE(::waitpid(child, &result.status, 0) == child);
  return result;
}

// Address sanitizer reports overflows itself, and thread sanitizer keeps the signal from us.
constexpr bool has_own_report = CONCUR_ASAN != 0 || CONCUR_TSAN != 0;

concur::options small_stacks(unsigned workers) {
  concur::options wanted = with_workers(workers);
  wanted.stack_size = 64 * 1024;
  return wanted;
}

}  // namespace

TEST_CASE("a recursion a thousand deep is reported with the fiber's number, its name and its stack") {
  if (has_own_report) return;
  const nothing_left_over guard;
  for (const unsigned workers : {1u, 4u}) {
    const ending end = in_a_child([workers] {
      concur::report_stack_overflows();
      concur::run(small_stacks(workers), [] {
        concur::channel<void> never;
        for (int i = 0; i < 20; ++i) concur::go([never]() mutable { never.recv(); });
        concur::go([] {
          concur::this_fiber::name("parser");
          concur::this_fiber::yield();
          const std::string number = "number " + std::to_string(concur::this_fiber::get_id().value()) + " recurses\n";
          static_cast<void>(!::write(STDERR_FILENO, number.data(), number.size()));
          recurse(1000);
        }).get();
      });
    });
    CAPTURE(end.said);
    CHECK(end.was_killed_by(SIGSEGV));
    CHECK(end.said_all_of({"concur: stack overflow in fiber ", "\"parser\"", " 65536 bytes", "options.stack_size"}));
    const std::size_t at = end.said.find("number ");
    REQUIRE(at != std::string::npos);
    const std::string number = end.said.substr(at + 7, end.said.find(' ', at + 7) - at - 7);
    const std::string named = "in fiber " + number + " ";
    CHECK(end.said.find(named) != std::string::npos);
  }
}

TEST_CASE("a fiber without a name is reported by its number") {
  if (has_own_report) return;
  const nothing_left_over guard;
  const ending end = in_a_child([] {
    concur::report_stack_overflows();
    concur::run(small_stacks(2), [] { recurse(1000); });
  });
  CAPTURE(end.said);
  CHECK(end.was_killed_by(SIGSEGV));
  CHECK(end.said_all_of({"stack overflow in fiber 1: its 65536 bytes"}));
}

TEST_CASE("a recursion that fits is no fault, a thousand deep with the stack for it") {
  const nothing_left_over guard;
  concur::options wanted = with_workers(2);
  wanted.stack_size = (CONCUR_ASAN != 0 ? 8 : 2) * 1024 * 1024;
  const unsigned sum = concur::run(wanted, [] { return recurse(1000); });
  CHECK(sum > 0);
}

TEST_CASE("without being asked nobody reports, and the process dies as before") {
  if (has_own_report) return;
  const nothing_left_over guard;
  const ending end = in_a_child([] { concur::run(small_stacks(2), [] { recurse(1000); }); });
  CHECK(end.was_killed_by(SIGSEGV));
  CHECK(end.said == "");
}

TEST_CASE("the handler that was there before has the last word") {
  if (has_own_report) return;
  const nothing_left_over guard;
  const ending end = in_a_child([] {
    struct sigaction before {};
    before.sa_handler = [](int) { ::_exit(77); };
    before.sa_flags = SA_ONSTACK;
    ::sigaction(SIGSEGV, &before, nullptr);
    concur::report_stack_overflows();
    concur::run(small_stacks(2), [] { recurse(1000); });
  });
  CAPTURE(end.said);
  CHECK(WIFEXITED(end.status));
  CHECK(WEXITSTATUS(end.status) == 77);
  CHECK(end.said_all_of({"stack overflow in fiber 1:"}));
}

TEST_CASE("a fault that is no overflow passes without a word about stacks") {
  if (has_own_report) return;
  const nothing_left_over guard;
  const ending end = in_a_child([] {
    concur::report_stack_overflows();
    concur::run(small_stacks(2), [] {
      volatile int* volatile nowhere = nullptr;
      *nowhere = 1;
    });
  });
  CHECK(end.was_killed_by(SIGSEGV));
  CHECK(end.said == "");
}
