// test_go_errgroup.cpp - what Go's tests and examples of golang.org/x/sync/errgroup check, written anew for nurseries whose
// children return a std::error_code.
//
// Which test of theirs is which of ours, and which is left out, is in conformance.md.
#include "support/crew.hpp"
#include "support/nursery.hpp"

#include <cstdint>
#include <map>
#include <numeric>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

using concur::cancelled;
using concur::channel;
using concur::nursery;
using concur::on_failure;
using concur::with_nursery;
using namespace std::chrono_literals;

namespace {

const std::error_code well;
const std::error_code first_doom = std::make_error_code(std::errc::io_error);
const std::error_code second_doom = std::make_error_code(std::errc::broken_pipe);

// The code of the std::system_error that f throws.
template <class F>
std::error_code code_of(F f) {
  try {
    f();
  } catch (const std::system_error& error) {
    return error.code();
  }
  return well;
}

// Starts a child for each code, which returns it when the one before is through.
void go_one_by_one(nursery& n, const std::vector<std::error_code>& codes) {
  for (const std::error_code& code : codes) {
    n.go([code] { return code; });
    while (n.size() != 0) concur::this_fiber::yield();
  }
}

const std::vector<std::pair<std::vector<std::error_code>, std::error_code>> lists = {
    {{}, well},
    {{well}, well},
    {{first_doom}, first_doom},
    {{first_doom, well}, first_doom},
    {{well, second_doom, first_doom}, second_doom},
    {{first_doom, well, second_doom}, first_doom},
};

// How many run now, and how many ran at most.
class census {
 public:
  void enter() {
    const int now = ++running_;
    int most = most_.load();
    while (most < now && !most_.compare_exchange_weak(most, now)) continue;
  }
  void leave() {
    --running_;
    ++ended_;
  }
  int running() const { return running_; }
  int most() const { return most_; }
  int ended() const { return ended_; }

 private:
  std::atomic<int> running_{0};
  std::atomic<int> most_{0};
  std::atomic<int> ended_{0};
};

}  // namespace

TEST_CASE("the first code that is not zero comes out of join, whatever came after it") {
  const nothing_left_over guard;
  for (const on_failure policy : {on_failure::cancel_siblings, on_failure::keep_going}) {
    with_each_count([policy](tally& held) {
      for (const auto& [codes, expected] : lists) {
        nursery thrown(policy);
        go_one_by_one(thrown, codes);
        CONCUR_EXPECT(held, code_of([&] { thrown.join(); }) == expected);
        nursery told(policy);
        go_one_by_one(told, codes);
        std::error_code ec = second_doom;
        told.join(ec);
        CONCUR_EXPECT(held, ec == expected);
        std::size_t failed = 0;
        for (const std::error_code& code : codes) failed += code ? 1U : 0U;
        CONCUR_EXPECT(held, thrown.failures().size() == failed && told.failures().size() == failed);
      }
    });
  }
}

TEST_CASE("the group is cancelled when one of it failed, and only then") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    for (const auto& [codes, expected] : lists) {
      nursery n;
      go_one_by_one(n, codes);
      CONCUR_EXPECT(held, n.cancelled() == (expected != well));
      CONCUR_EXPECT(held, concur::this_fiber::cancelled() == n.cancelled());
      std::error_code ec;
      n.join(ec);
      CONCUR_EXPECT(held, ec == expected && n.cancelled() == (expected != well));
      CONCUR_EXPECT(held, !concur::this_fiber::cancelled());
      std::error_code from_block;
      with_nursery([&, &list = codes](nursery& m) { go_one_by_one(m, list); }, from_block);
      CONCUR_EXPECT(held, from_block == expected);
    }
  });
}

TEST_CASE("an exception of a child's stays what it is; a code comes as std::system_error") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    const auto number = number_from([] {
      with_nursery([](nursery& n) {
        n.go([]() -> std::error_code { throw special_error(4); });
      });
    });
    CONCUR_EXPECT(held, number == 4);
    const auto of = [&](auto function) { return code_of([&] { with_nursery(function); }); };
    CONCUR_EXPECT(held, of([](nursery& n) { n.go([] { return first_doom; }); }) == first_doom);
    CONCUR_EXPECT(held, of([](nursery& n) { n.async([] { return second_doom; }); }) == second_doom);
    CONCUR_EXPECT(held, code_of([] { concur::all([] { return well; }, [] { return first_doom; }); }) == first_doom);
    // Who asks for codes gets the exceptions as before.
    const auto throws = [](nursery& n) { n.go([] { throw special_error(5); }); };
    std::error_code ec;
    CONCUR_EXPECT(held, number_from([&] { with_nursery(throws, ec); }) == 5);
  });
}

TEST_CASE("a failure ends the waits of the others, however many") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    std::vector<sight> waiting(50);
    std::atomic<int> cut{0};
    nursery n;
    for (sight& one : waiting) {
      n.go([&] {
        const bool is_cut = is_thrown<cancelled>([&] { one.park(); });
        cut += is_cut ? 1 : 0;
        return is_cut ? std::make_error_code(std::errc::operation_canceled) : well;
      });
    }
    for (const sight& one : waiting) one.wait_until_parked();
    n.go([] { return first_doom; });
    std::error_code ec;
    n.join(ec);
    CONCUR_EXPECT(held, ec == first_doom && cut == 50);
  });
}

TEST_CASE("a limit of ten: never more than ten run, and never fewer if there is work") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    census count;
    const int started = scaled(1025);
    with_nursery([&](nursery& n) {
      n.limit(10);
      for (int i = 0; i < started; ++i) {
        n.go([&] {
          count.enter();
          CONCUR_EXPECT(held, n.size() <= 10);
          concur::this_fiber::sleep_for(1us);
          count.leave();
        });
      }
    });
    CONCUR_EXPECT(held, count.most() <= 10 && count.ended() == started);
    // Ten that wait for each other come together.
    concur::barrier meeting(10);
    with_nursery([&](nursery& n) {
      n.limit(10);
      for (int i = 0; i < 30; ++i) n.go([&] { meeting.arrive_and_wait(); });
    });
  });
}

TEST_CASE("a limit holds when many start children at once, by every way of starting") {
  const nothing_left_over guard;
  for (const kind which : {kind::fiber, kind::thread}) {
    with_each_count([which](tally& held) {
      census count;
      const int each = scaled(200);
      nursery n;
      n.limit(3);
      const auto work = [&] {
        count.enter();
        concur::this_fiber::yield();
        count.leave();
      };
      crew starters(which);
      for (int i = 0; i < 8; ++i) {
        starters.go([&, i] {
          for (int k = 0; k < each; ++k) {
            if ((i + k) % 2 == 0)
              n.go(work);
            else
              n.async(work);
          }
        });
      }
      for (int k = 0; k < each; ++k) {
        n.start([&](concur::started<void>& up) {
          count.enter();
          up();
          count.leave();
        });
      }
      starters.join();
      n.join();
      CONCUR_EXPECT(held, count.most() <= 3 && count.ended() == 9 * each && count.running() == 0);
    });
  }
}

TEST_CASE("at its limit the host parks in go, until a child ends, the limit is raised, or it is cancelled") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    concur::event gate;
    sight host;
    std::atomic<int> ran{0};
    concur::binary_semaphore one_ends(0);
    const auto held_back = [&] { return host.is_parked() && ran == 0; };
    nursery n;
    n.limit(2);
    n.go([&] { one_ends.acquire(); });
    n.go([&] { gate.wait(); });
    companion releases(kind::fiber, [&] {
      host.wait_until_parked();
      CONCUR_EXPECT(held, held_back() && n.size() == 2);
      one_ends.release();
    });
    host.enter();
    n.go([&] {
      ++ran;
      gate.wait();
    });
    releases.join();
    while (ran != 1) concur::this_fiber::yield();
    companion raises(kind::fiber, [&] {
      host.wait_until_parked();
      CONCUR_EXPECT(held, ran == 1 && n.size() == 2);
      n.limit(3);
    });
    n.go([&] {
      ++ran;
      gate.wait();
    });
    raises.join();
    while (ran != 2) concur::this_fiber::yield();
    // Cancelled there, it has started nobody.
    concur::cancel_scope impatient(concur::deferred);
    companion cancels(kind::fiber, [&] {
      host.wait_until_parked();
      impatient.cancel();
    });
    CONCUR_EXPECT(held, !impatient.run([&] { n.go([&] { ++ran; }); }));
    cancels.join();
    CONCUR_EXPECT(held, n.size() == 3);
    gate.set();
    n.join();
    CONCUR_EXPECT(held, ran == 2);
  });
}

TEST_CASE("a limit that is lowered lets those go on that run; one of zero is refused") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    concur::event gate;
    census count;
    nursery n;
    CONCUR_EXPECT(held, is_thrown<std::invalid_argument>([&] { n.limit(0); }));
    for (int i = 0; i < 3; ++i) n.go([&] { gate.wait(); });
    n.limit(1);
    CONCUR_EXPECT(held, n.size() == 3);
    std::atomic<int> before{0};
    sight host;
    companion opener(kind::fiber, [&] {
      host.wait_until_parked();
      before = count.ended();
      gate.set();
    });
    host.enter();
    for (int i = 0; i < 5; ++i) {
      n.go([&] {
        count.enter();
        CONCUR_EXPECT(held, n.size() == 1);
        count.leave();
      });
    }
    n.join();
    opener.join();
    CONCUR_EXPECT(held, before == 0 && count.most() == 1 && count.ended() == 5);
  });
}

TEST_CASE("as in their first example: several errands, and whether all went well") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    const auto fetch = [](const std::string& name) {
      concur::this_fiber::sleep_for(1us);
      return name == "nowhere" ? std::make_error_code(std::errc::host_unreachable) : well;
    };
    const auto fetch_all = [&](const std::vector<std::string>& names) {
      std::error_code ec;
      with_nursery(
          [&](nursery& n) {
            for (const std::string& name : names) n.go([&] { return fetch(name); });
          },
          ec);
      return ec;
    };
    CONCUR_EXPECT(held, !fetch_all({"here", "there"}));
    CONCUR_EXPECT(held, fetch_all({"here", "nowhere", "there"}) == std::errc::host_unreachable);
  });
}

TEST_CASE("as in their second example: each child fills its place, and the group is read when all are through") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    const std::vector<std::string> kinds = {"web", "image", "video"};
    std::vector<std::string> results(kinds.size());
    with_nursery([&](nursery& n) {
      for (std::size_t i = 0; i < kinds.size(); ++i) {
        n.go([&, i] {
          concur::this_fiber::yield();
          results[i] = kinds[i] + " result";
          return well;
        });
      }
    });
    CONCUR_EXPECT(held, results == std::vector<std::string>{"web result", "image result", "video result"});
  });
}

namespace {

// Numbers go from one fiber over several workers to the caller. Worker number `bad` of the input, if there is one, fails.
std::map<std::uint64_t, std::uint64_t> squares(std::uint64_t count, std::uint64_t bad) {
  channel<std::uint64_t> input;
  channel<std::pair<std::uint64_t, std::uint64_t>> output;
  std::map<std::uint64_t, std::uint64_t> all;
  with_nursery([&](nursery& n) {
    n.go([&, count] {
      const finally last([&] { input.close(); });
      for (std::uint64_t i = 0; i < count; ++i) input.send(i);
    });
    n.go([&, bad] {
      const finally last([&] { output.close(); });
      with_nursery([&](nursery& workers) {
        for (int i = 0; i < 20; ++i) {
          workers.go([&] {
            for (const std::uint64_t number : input) {
              if (number == bad) return first_doom;
              output.send({number, number * number});
            }
            return well;
          });
        }
      });
    });
    for (const auto& [number, square] : output) all[number] = square;
  });
  return all;
}

}  // namespace

TEST_CASE("as in their pipeline: stages over channels, all done or all stopped by the first error") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    const auto all = squares(500, 500);
    CONCUR_EXPECT(held, all.size() == 500 && all.at(21) == 441);
    CONCUR_EXPECT(held, squares(0, 0).empty());
    for (const std::uint64_t bad : {std::uint64_t(0), std::uint64_t(250), std::uint64_t(499)})
      CONCUR_EXPECT(held, code_of([bad] { squares(500, bad); }) == first_doom);
  });
}
