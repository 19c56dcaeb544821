// test_error.cpp - which type each kind of error has, what it says, and what stands in for it where nothing can be
// thrown.
#include "support/test.hpp"

#include <cerrno>
#include <csetjmp>
#include <cstring>
#include <stdexcept>
#include <string>
#include <system_error>
#include <type_traits>

static_assert(!std::is_base_of<std::exception, concur::cancelled>::value,
              "no handler for errors takes a cancellation for one");
static_assert(std::is_base_of<std::logic_error, concur::channel_closed>::value, "");
static_assert(std::is_base_of<std::runtime_error, concur::timed_out>::value, "");
static_assert(std::is_base_of<std::runtime_error, concur::deadlock>::value, "");
static_assert(!std::is_base_of<concur::timed_out, concur::cancelled>::value &&
                  !std::is_base_of<concur::cancelled, concur::timed_out>::value,
              "neither is taken for the other");

namespace {

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::jmp_buf way_out;
std::string heard;

[[noreturn]] void remember_and_leave(const char* message) {
  heard = message;
  std::longjmp(way_out, 1);
}

}  // namespace

TEST_CASE("an error names what was done, to what, and what to try") {
  const std::string argument =
      text_of<std::invalid_argument>([] { concur::detail::fail_argument("thing", "size", "3", "use more"); });
  CHECK(argument == "thing: size is 3: use more");
  const std::string system = text_of<std::system_error>([] { concur::detail::fail_system(ENOENT, "open of x"); });
  CHECK(contains(system, "open of x"));
  CHECK(contains(system, std::strerror(ENOENT)));
  try {
    concur::detail::fail_system(EMFILE, "accept");
  } catch (const std::system_error& error) {
    CHECK(error.code().value() == EMFILE);
    const bool is_comparable = error.code() == std::errc::too_many_files_open;
    CHECK(is_comparable);
  }
  CHECK(text_of<concur::channel_closed>([] { concur::detail::fail_closed("closed"); }) == "closed");
  CHECK(text_of<std::logic_error>([] { concur::detail::fail_logic("order"); }) == "order");
  CHECK(text_of<concur::timed_out>([] { concur::detail::fail_timed_out("late"); }) == "late");
  CHECK(text_of<concur::cancelled>([] { concur::detail::fail_cancelled(); }) == "the fiber was cancelled");
}

TEST_CASE("options that cannot be meant are refused with field and value, and nothing is left behind") {
  const nothing_left_over guard;
  const auto refusal = [](concur::options wanted) {
    return text_of<std::invalid_argument>([&] { concur::runtime rt(wanted); });
  };
  concur::options wanted;
  wanted.stack_size = 100;
  CHECK(contains(refusal(wanted), "options.stack_size is 100"));
  wanted = concur::options();
  wanted.stack_size = static_cast<std::size_t>(-1);
  CHECK(contains(refusal(wanted), "options.stack_size"));
  wanted = concur::options();
  wanted.workers = 100000;
  CHECK(contains(refusal(wanted), "options.workers is 100000"));
  wanted = concur::options();
  wanted.blocking_threads = 0;
  CHECK(contains(refusal(wanted), "options.blocking_threads is 0"));
  wanted = concur::options();
  wanted.blocking_queue = 0;
  CHECK(contains(refusal(wanted), "options.blocking_queue is 0"));
  wanted = concur::options();
  wanted.stall_after = std::chrono::nanoseconds(-5);
  CHECK(contains(refusal(wanted), "options.stall_after is -5"));
}

TEST_CASE("the fatal handler is replaced, called, and put back") {
  const bool had_none = concur::set_on_fatal(&remember_and_leave) == nullptr;
  CHECK(had_none);
  if (setjmp(way_out) == 0) concur::on_fatal("no way out");
  CHECK(heard == "no way out");
  const bool had_ours = concur::set_on_fatal(nullptr) == &remember_and_leave;
  CHECK(had_ours);
  const bool has_none = concur::set_on_fatal(nullptr) == nullptr;
  CHECK(has_none);
}
