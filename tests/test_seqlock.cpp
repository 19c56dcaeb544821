// test_seqlock.cpp - seqlock<T>: a read returns what one write left, whole; writers come one after the other.
#include "support/tally.hpp"
#include "support/test.hpp"
#include "support/threads.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>
#include <type_traits>
#include <vector>

using concur::seqlock;

namespace {

constexpr int rounds = (CONCUR_TSAN || CONCUR_ASAN ? 1'000 : 30'000) * CONCUR_TEST_SCALE;

struct point {
  int x, y;
};
struct odd_size {
  char bytes[3];
};
struct padded {
  char first;
  std::uint64_t second;
  char third;
};
struct no_default {
  explicit no_default(short value_in) : value(value_in) {}
  short value;
};
struct alignas(64) aligned {
  double value;
};

// Every part follows from the first, so that a torn one shows. Larger than what is copied between two ticks of the clock.
struct chain {
  std::array<std::uint32_t, 500> parts;
  static chain of(std::uint32_t seed) {
    chain made;
    for (std::uint32_t& part : made.parts) part = seed++;
    return made;
  }
  bool is_whole() const {
    for (std::size_t i = 1; i < parts.size(); ++i) {
      if (parts[i] != parts[i - 1] + 1) return false;
    }
    return true;
  }
};

}  // namespace

TEST_CASE("what was written is read, for values of every size") {
  const nothing_left_over guard;
  static_assert(std::is_same<decltype(seqlock(1.5)), seqlock<double>>::value, "T is deduced");
  seqlock<point> place;
  CHECK(place.read().x == 0);
  CHECK(place.read().y == 0);
  place.write({1, 2});
  CHECK(place.read().y == 2);
  CHECK(place.try_read().value().x == 1);
  seqlock<char> one('a');
  one.write('b');
  CHECK(one.read() == 'b');
  seqlock<odd_size> three;
  three.write({{'x', 'y', 'z'}});
  CHECK(three.read().bytes[2] == 'z');
  const seqlock<padded> several(padded{'a', 1, 'b'});
  CHECK(several.read().second == 1);
  CHECK(several.read().third == 'b');
  seqlock<no_default> without(no_default(-3));
  CHECK(without.try_read()->value == -3);
  seqlock<aligned> wide(aligned{2.5});
  CHECK(wide.read().value == 2.5);
  seqlock<chain> large(chain::of(7));
  large.write(chain::of(8));
  CHECK(large.read().parts.back() == 8 + 499);
}

TEST_CASE("update changes in place, or returns the new value; it returns the old one") {
  const nothing_left_over guard;
  seqlock<point> place(point{1, 2});
  const point old = place.update([](point& p) { p.y = 5; });
  CHECK(old.y == 2);
  CHECK(place.read().x == 1);
  CHECK(place.read().y == 5);
  CHECK(place.update([](point p) { return point{p.y, p.x}; }).x == 1);
  CHECK(place.read().x == 5);
  seqlock<short> number(short{3});
  CHECK(number.update([](short v) { return static_cast<short>(v + 1); }) == 3);
  CHECK(number.read() == 4);
}

TEST_CASE("readers go on while update computes; one that throws has changed nothing, and locks nobody out") {
  const nothing_left_over guard;
  seqlock<int> number(1);
  const auto fail = [&](int& v) {
    v = 2;
    CHECK(number.try_read() == 1);
    throw std::runtime_error("no");
  };
  CHECK(text_of<std::runtime_error>([&] { number.update(fail); }) == "no");
  CHECK(number.read() == 1);
  number.write(3);
  CHECK(number.read() == 3);
}

TEST_CASE("no read is torn, and none goes back") {
  const nothing_left_over guard;
  const auto shared = std::make_unique<seqlock<chain>>(chain::of(0));
  std::atomic<bool> is_over{false};
  tally held;
  std::thread reader([&] {
    std::uint32_t last = 0;
    while (!is_over.load()) {
      const chain seen = shared->read();
      CONCUR_EXPECT(held, seen.is_whole());
      CONCUR_EXPECT(held, seen.parts[0] >= last);
      last = seen.parts[0];
      if (const std::optional<chain> tried = shared->try_read()) CONCUR_EXPECT(held, tried->is_whole());
    }
  });
  const std::uint32_t last = 10u * static_cast<std::uint32_t>(rounds);
  for (std::uint32_t i = 1; i <= last; ++i) shared->write(chain::of(i));
  is_over.store(true);
  reader.join();
  CHECK(held.report() == "");
  CHECK(shared->read().parts[0] == last);
}

TEST_CASE("writers come one after the other, and update loses nothing") {
  const nothing_left_over guard;
  seqlock<point> sums;
  in_threads(3, [&](int) {
    for (int i = 0; i < rounds; ++i) {
      sums.update([](point& p) {
        ++p.x;
        --p.y;
      });
    }
  });
  CHECK(sums.read().x == 3 * rounds);
  CHECK(sums.read().y == -3 * rounds);
}

// ThreadSanitizer looks whether the plain memory is ordered.
TEST_CASE("a write happens before the read that returns its value") {
  const nothing_left_over guard;
  for (int round = 0; round < 50; ++round) {
    int plain = 0;
    seqlock<int> stage(0);
    std::thread other([&] {
      plain = 1;
      stage.write(1);
    });
    while (stage.read() != 1) std::this_thread::yield();
    CHECK(plain == 1);
    plain = 2;
    other.join();
  }
}
