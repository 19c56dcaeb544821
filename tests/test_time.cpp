// test_time.cpp - arithmetic with moments that stops at the ends, rounds up, and takes any clock.
#include "support/test.hpp"

#include <chrono>
#include <limits>
#include <ratio>

using namespace concur::detail;
using namespace std::chrono_literals;

static_assert(to_ns(1s) == 1000000000, "");

namespace {

// A clock of the user's, that stands still and runs from somewhere else.
struct odd_clock {
  using rep = int;
  using period = std::ratio<1, 3>;
  using duration = std::chrono::duration<int, period>;
  using time_point = std::chrono::time_point<odd_clock>;
  static constexpr bool is_steady = false;
  static time_point now() { return time_point(duration(-30)); }
};

// The argument is there before the clock is read.
bool has_passed(nanoseconds_t moment) { return moment <= now_ns(); }

template <class D>
void ends_are_held() {
  CHECK(to_ns((D::max)()) >= to_ns(D(1)));
  CHECK(deadline_after((D::max)()) > now_ns());
  CHECK(has_passed(deadline_after((D::min)())));
  CHECK(has_passed(deadline_after(D(0))));
}

}  // namespace

TEST_CASE("sums stop at the ends") {
  CHECK(saturating_add(never, 1) == never);
  CHECK(saturating_add(never, never) == never);
  CHECK(saturating_add(long_ago, -1) == long_ago);
  CHECK(saturating_add(long_ago, long_ago) == long_ago);
  CHECK(saturating_add(never, long_ago) == -1);
  CHECK(saturating_add(never - 5, 5) == never);
  CHECK(saturating_add(1, 2) == 3);
}

TEST_CASE("a part of a nanosecond is rounded up: a wait never ends early") {
  using picoseconds = std::chrono::duration<std::int64_t, std::pico>;
  CHECK(to_ns(picoseconds(1)) == 1);
  CHECK(to_ns(picoseconds(999)) == 1);
  CHECK(to_ns(picoseconds(1000)) == 1);
  CHECK(to_ns(picoseconds(1001)) == 2);
  CHECK(to_ns(picoseconds(-1)) == 0);
  CHECK(to_ns(picoseconds(-1000)) == -1);
}

TEST_CASE("durations of every unit, and their ends") {
  CHECK(to_ns((std::chrono::hours::max)()) == never);
  CHECK(to_ns((std::chrono::seconds::max)()) == never);
  CHECK(to_ns((std::chrono::hours::min)()) == long_ago);
  CHECK(to_ns((std::chrono::nanoseconds::max)()) == never);
  CHECK(to_ns((std::chrono::nanoseconds::min)()) == long_ago);
  CHECK(to_ns(std::chrono::duration<double>(1e300)) == never);
  CHECK(to_ns(std::chrono::duration<double>(-1e300)) == long_ago);
  CHECK(to_ns(std::chrono::duration<double>(std::numeric_limits<double>::infinity())) == never);
  CHECK(to_ns(std::chrono::duration<double>(std::numeric_limits<double>::quiet_NaN())) == never);
  CHECK(to_ns(std::chrono::duration<double>(1e-12)) == 1);
  CHECK(to_ns(std::chrono::duration<float>(0.5F)) == 500000000);
  CHECK(to_ns(std::chrono::duration<std::uint64_t, std::nano>(std::numeric_limits<std::uint64_t>::max())) == never);
  CHECK(to_ns(std::chrono::duration<unsigned char>(200)) == 200000000000);
  ends_are_held<std::chrono::nanoseconds>();
  ends_are_held<std::chrono::microseconds>();
  ends_are_held<std::chrono::seconds>();
  ends_are_held<std::chrono::hours>();
  ends_are_held<std::chrono::duration<double>>();
  ends_are_held<std::chrono::duration<long double, std::pico>>();
  ends_are_held<std::chrono::duration<std::int64_t, std::pico>>();
}

TEST_CASE("moments on any clock") {
  using steady = std::chrono::steady_clock;
  using wall = std::chrono::system_clock;
  const nanoseconds_t before = now_ns();
  CHECK(deadline_at(steady::now()) >= before);
  CHECK(has_passed(deadline_at(steady::now())));
  CHECK(deadline_at((steady::time_point::max)()) == never);
  CHECK(deadline_at((steady::time_point::min)()) == long_ago);
  CHECK(deadline_at(std::chrono::time_point<steady, std::chrono::hours>((std::chrono::hours::max)())) == never);
  CHECK(deadline_at((wall::time_point::max)()) == never);
  CHECK(has_passed(deadline_at((wall::time_point::min)())));
  CHECK(deadline_at(std::chrono::time_point<wall, std::chrono::hours>((std::chrono::hours::max)())) == never);
  CHECK(deadline_at(wall::now() + 1h) > now_ns() + to_ns(59min));
  CHECK(deadline_at(wall::now() + 1h) < now_ns() + to_ns(61min));
  CHECK(has_passed(deadline_at(wall::now() - 1h)));
  CHECK(has_passed(deadline_at(odd_clock::now())));
  CHECK(deadline_at(odd_clock::now() + odd_clock::duration(3)) >= before + to_ns(1s));
}
