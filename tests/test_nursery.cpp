// test_nursery.cpp - nurseries: lives that nest, failures that surface as what they were, limits, start, async, and misuse.
#include "support/companion.hpp"
#include "support/nursery.hpp"
#include "support/tally.hpp"
#include "support/test.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace {

using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::milliseconds;

// No standard exception, and not to be copied away: what is caught must be what was thrown.
struct own_error {
  int number;
};

template <class Deed>
int number_of(Deed deed) {
  try {
    deed();
  } catch (const own_error& error) {
    return error.number;
  }
  return -1;
}

template <class Deed>
bool is_cancelled_by(Deed deed) {
  try {
    deed();
  } catch (const concur::cancelled&) {
    return true;
  }
  return false;
}

}  // namespace

TEST_CASE("a nursery's block ends behind its last child, which may use what the block may use") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    std::vector<int> results(100);
    const int answer = concur::with_nursery([&](concur::nursery& n) {
      for (int i = 0; i < 100; ++i) {
        n.go(
            [&results](int at, std::unique_ptr<int> value) {
              concur::this_fiber::sleep_for(microseconds(at));
              results[static_cast<std::size_t>(at)] = *value;
            },
            i, std::make_unique<int>(i * i));
      }
      CONCUR_EXPECT(held, n.size() <= 100);
      return 42;
    });
    CONCUR_EXPECT(held, answer == 42);
    for (int i = 0; i < 100; ++i) CONCUR_EXPECT(held, results[static_cast<std::size_t>(i)] == i * i);
    int target = 0;
    int& same = concur::with_nursery([&](concur::nursery&) -> int& { return target; });
    CONCUR_EXPECT(held, &same == &target);
  });
}

TEST_CASE("a failing child cancels siblings and body, and comes out as the type it was thrown with") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    std::atomic<int> cancelled{0};
    const int number = number_of([&] {
      concur::with_nursery([&](concur::nursery& n) {
        for (int i = 0; i < 5; ++i) n.go([&] { cancelled += is_cancelled_by(sleep_long) ? 1 : 0; });
        n.go([] { throw own_error{7}; });
        cancelled += is_cancelled_by(sleep_long) ? 1 : 0;
      });
    });
    CONCUR_EXPECT(held, number == 7);
    CONCUR_EXPECT(held, cancelled == 6);
    // The body counts as a child.
    cancelled = 0;
    CONCUR_EXPECT(held, number_of([&] {
                          concur::with_nursery([&](concur::nursery& n) {
                            n.go([&] { cancelled += is_cancelled_by(sleep_long) ? 1 : 0; });
                            throw own_error{8};
                          });
                        }) == 8);
    CONCUR_EXPECT(held, cancelled == 1);
  });
}

TEST_CASE("all failures can be had, in order, and what was cancelled is none") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    concur::nursery n(concur::on_failure::keep_going);
    concur::channel<int> turns;
    for (int i = 0; i < 4; ++i) {
      n.go([&, i] {
        while (*turns.recv() != i) concur::this_fiber::yield();
        throw own_error{i};
      });
    }
    int finished = 0;
    n.go([&] {
      for (int i = 3; i >= 0; --i) {
        for (const std::size_t before = n.failures().size(); n.failures().size() == before;) {
          int turn = i;
          turns.send_for(turn, milliseconds(1));
        }
      }
      ++finished;
    });
    CONCUR_EXPECT(held, number_of([&] { n.join(); }) == 3);
    CONCUR_EXPECT(held, finished == 1);
    std::vector<int> numbers;
    for (const std::exception_ptr& one : n.failures())
      numbers.push_back(number_of([&] { std::rethrow_exception(one); }));
    CONCUR_EXPECT(held, numbers == std::vector<int>{3, 2, 1, 0});
    concur::this_fiber::checkpoint();  // the host is out of the nursery

    concur::nursery quiet;
    quiet.go(sleep_long);
    quiet.cancel();
    quiet.join();
    CONCUR_EXPECT(held, quiet.failures().empty() && quiet.size() == 0);
  });
}

TEST_CASE("cancelling a nursery ends its children and its body, and is no error for what is around it") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    bool is_behind = false;
    concur::with_nursery([&](concur::nursery& n) {
      n.go(sleep_long);
      n.go([&] { n.cancel(); });
      sleep_long();
      is_behind = true;
    });
    CONCUR_EXPECT(held, !is_behind && !concur::this_fiber::cancelled());
    // A value that never came to be cannot be returned.
    CONCUR_EXPECT(held, is_cancelled_by([] {
                    concur::with_nursery([](concur::nursery& n) {
                      n.cancel();
                      sleep_long();
                      return 1;
                    });
                  }));
    // One that did, can.
    CONCUR_EXPECT(held, concur::with_nursery([](concur::nursery& n) {
                          n.go(sleep_long);
                          n.cancel();
                          return 2;
                        }) == 2);
  });
}

TEST_CASE("a cancellation from outside reaches the children, and the block waits for them all the same") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    int cleaned = 0;
    bool is_behind = false;
    const bool has_returned = concur::move_on_after(milliseconds(1), [&] {
      concur::with_nursery([&](concur::nursery& n) {
        n.go([&] {
          const bool was_cancelled = is_cancelled_by(sleep_long);
          // Cleaning up takes a while, and is not hurried.
          concur::shield([] { concur::this_fiber::sleep_for(milliseconds(3)); });
          cleaned += was_cancelled ? 1 : 0;
        });
      });
      is_behind = true;
    });
    CONCUR_EXPECT(held, !has_returned && cleaned == 1 && !is_behind);
    // A failure while it is being cancelled is an error all the same.
    CONCUR_EXPECT(held, number_of([] {
                          concur::move_on_after(milliseconds(1), [] {
                            concur::with_nursery([](concur::nursery& n) {
                              n.go([] {
                                if (is_cancelled_by(sleep_long)) throw own_error{3};
                              });
                            });
                          });
                        }) == 3);
  });
}

TEST_CASE("a child may start siblings, and a thread children, while the nursery has not ended") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    std::atomic<int> count{0};
    std::thread outsider;
    concur::event is_done;
    const auto spread = [&](auto& self, concur::nursery& n, int depth) -> void {
      count.fetch_add(1);
      if (depth == 0) return;
      for (int i = 0; i < 2; ++i) n.go([&self, &n, depth] { self(self, n, depth - 1); });
    };
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { spread(spread, n, 6); });
      outsider = std::thread([&] {
        n.go([&] { count.fetch_add(1000); });
        is_done.set();
      });
      is_done.wait();
    });
    outsider.join();
    CONCUR_EXPECT(held, count == 1127);
  });
}

TEST_CASE("a child that is started in a cancelled nursery begins, and is cancelled at its first checkpoint") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    bool has_begun = false;
    bool is_behind = false;
    concur::with_nursery([&](concur::nursery& n) {
      n.cancel();
      n.go([&] {
        has_begun = true;
        concur::this_fiber::checkpoint();
        is_behind = true;
      });
    });
    CONCUR_EXPECT(held, has_begun && !is_behind);
  });
}

TEST_CASE("a limit bounds what runs, first come, first served; who is cancelled while it waits takes no place") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    std::atomic<int> running{0};
    std::atomic<int> most{0};
    std::vector<int> order;
    concur::with_nursery([&](concur::nursery& n) {
      n.limit(3);
      for (int i = 0; i < 50; ++i) {
        n.go([&] {
          const int now = running.fetch_add(1) + 1;
          for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
          }
          concur::this_fiber::sleep_for(microseconds(50));
          running.fetch_sub(1);
        });
        CONCUR_EXPECT(held, n.size() <= 3);
      }
    });
    CONCUR_EXPECT(held, most <= 3);

    concur::event go_on;
    concur::with_nursery([&](concur::nursery& n) {
      n.limit(1);
      n.go([&] { go_on.wait(); });
      bool is_started = false;
      CONCUR_EXPECT(held, !concur::move_on_after(milliseconds(1), [&] { n.go([&] { is_started = true; }); }));
      companion waits(kind::fiber, [&] { n.go([&] { order.push_back(1); }); });
      CONCUR_EXPECT(held, waits.wait_until_parked());
      go_on.set();
      waits.join();
      n.go([&] { order.push_back(2); });
      CONCUR_EXPECT(held, !is_started);
    });
    CONCUR_EXPECT(held, order == std::vector<int>{1, 2});

    // Raising the limit lets in who waits.
    concur::event never;
    concur::with_nursery([&](concur::nursery& n) {
      n.limit(1);
      n.go([&] { never.wait(); });
      companion waits(kind::fiber, [&] { n.go([&] { never.set(); }); });
      CONCUR_EXPECT(held, waits.wait_until_parked());
      n.limit(2);
    });
  });
}

TEST_CASE("async gives the result or the error to its taker, and the error to the nursery as well") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    std::optional<concur::future<std::string>> late;
    concur::with_nursery([&](concur::nursery& n) {
      auto value = n.async([](int a, int b) { return a + b; }, 2, 3);
      auto pointer = n.async([] { return std::make_unique<int>(4); });
      auto nothing = n.async([] {});
      late = n.async([] { return std::string("long enough to be on the heap, for the sanitizer"); });
      n.async([] { return std::string("dropped at once, and just as long as the other one"); });
      CONCUR_EXPECT(held, value.get() == 5 && *pointer.get() == 4);
      nothing.get();
    });
    CONCUR_EXPECT(held, late->ready() && late->get().size() > 20);  // ready before the nursery ends

    concur::nursery n(concur::on_failure::keep_going);
    auto fails = n.async([]() -> int { throw own_error{5}; });
    CONCUR_EXPECT(held, number_of([&] { fails.get(); }) == 5);
    auto dropped = std::optional(n.async([]() -> int { throw own_error{6}; }));
    dropped.reset();
    CONCUR_EXPECT(held, number_of([&] { n.join(); }) == 5);
    CONCUR_EXPECT(held, n.failures().size() == 2);
  });
}

TEST_CASE("start returns what the child says when it is up, and takes its errors before that") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    concur::event stop;
    std::string twice;
    concur::with_nursery([&](concur::nursery& n) {
      const std::string port = n.start([&](concur::started<std::string>& up) {
        up.set_value("7001");
        stop.wait();
      });
      CONCUR_EXPECT(held, port == "7001" && n.size() == 1);
      n.start([&](concur::started<void>& up) { up(); });
      CONCUR_EXPECT(held, *n.start<std::unique_ptr<int>>([](auto& up) { up(std::make_unique<int>(6)); }) == 6);
      stop.set();
      CONCUR_EXPECT(held, number_of([&] { n.start([](concur::started<int>&) { throw own_error{9}; }); }) == 9);
      CONCUR_EXPECT(held, text_of<std::logic_error>([&] {
                            n.start([](concur::started<int>&) {});
                          }).find("without saying that it is up") != std::string::npos);
      CONCUR_EXPECT(held, !n.cancelled() && n.failures().empty());
      n.start([&](concur::started<int>& up) {
        up.set_value(1);
        twice = text_of<std::logic_error>([&] { up.set_value(2); });
      });
      while (n.size() != 0) concur::this_fiber::yield();
      CONCUR_EXPECT(held, twice.find("concur::started::set_value") == 0);
    });
    // After that its failure is the nursery's.
    CONCUR_EXPECT(held, number_of([&] {
                          concur::with_nursery([](concur::nursery& n) {
                            n.start([](concur::started<int>& up) {
                              up.set_value(1);
                              throw own_error{10};
                            });
                          });
                        }) == 10);
  });
}

TEST_CASE("who is cancelled while it waits in start takes the child with it, and nobody else") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    bool was_cancelled = false;
    bool is_sibling_through = false;
    concur::event go_on;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        go_on.wait();
        is_sibling_through = true;
      });
      CONCUR_EXPECT(held, !concur::move_on_after(milliseconds(1), [&] {
                      n.start([&](concur::started<int>& up) {
                        was_cancelled = is_cancelled_by(sleep_long);
                        up.set_value(1);  // too late, and nobody is misled
                      });
                    }));
      CONCUR_EXPECT(held, was_cancelled && n.size() == 1 && !n.cancelled());
      go_on.set();
    });
    CONCUR_EXPECT(held, is_sibling_through);
  });
}

TEST_CASE("a child that returns an error code fails by one that is not zero") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    const auto refused = std::make_error_code(std::errc::connection_refused);
    std::error_code caught;
    try {
      concur::with_nursery([&](concur::nursery& n) {
        n.go([] { return std::error_code(); });
        n.go([&] { return refused; });
        n.go(sleep_long);
      });
    } catch (const std::system_error& error) {
      caught = error.code();
    }
    CONCUR_EXPECT(held, caught == refused);
    std::error_code ec;
    CONCUR_EXPECT(held, concur::with_nursery([](concur::nursery&) { return 1; }, ec) == 1);
    CONCUR_EXPECT(held, !ec);
    const bool has_returned = concur::with_nursery(
        [&](concur::nursery& n) {
          n.go([&] { return refused; });
          sleep_long();
        },
        ec);
    CONCUR_EXPECT(held, !has_returned && ec == refused);
    concur::move_on_after(milliseconds(1), [&] {
      concur::nursery n;
      n.go(sleep_long);
      n.join(ec);
    });
    CONCUR_EXPECT(held, ec == std::errc::operation_canceled);
    // start as well: before the child is up the code is the caller's, behind that the nursery's.
    concur::with_nursery([&](concur::nursery& n) {
      CONCUR_EXPECT(held, n.start(
                              [&](concur::started<int>& up) {
                                up(1);
                                return std::error_code();
                              },
                              ec) == 1 &&
                              !ec);
      CONCUR_EXPECT(held, !n.start([&](concur::started<int>&) { return refused; }, ec) && ec == refused);
      CONCUR_EXPECT(held, n.start([](concur::started<void>& up) { up(); }, ec) && !ec);
      concur::cancel_scope scope;
      scope.cancel();
      CONCUR_EXPECT(held, !n.start([](concur::started<int>&) { sleep_long(); }, ec));
      CONCUR_EXPECT(held, ec == std::errc::operation_canceled);
      n.limit(8);
      ec.clear();
      CONCUR_EXPECT(held, !n.start([](concur::started<int>&) { sleep_long(); }, ec));
      CONCUR_EXPECT(held, ec == std::errc::operation_canceled);
    });
  });
}

TEST_CASE("a nursery that is not joined cancels, waits, and hands a failure to run") {
  const nothing_left_over guard;
  bool was_cancelled = false;
  const int number = number_of([&] {
    concur::run([&] {
      {
        concur::nursery n;
        n.go([&] { was_cancelled = is_cancelled_by(sleep_long); });
        concur::this_fiber::yield();
      }
      CHECK(was_cancelled);
      concur::nursery n(concur::on_failure::keep_going);
      n.go([] { throw own_error{11}; });
      while (n.size() != 0) concur::this_fiber::yield();
    });
  });
  CHECK(number == 11);
}

TEST_CASE("a runtime that is cancelled when nurseries have come and gone touches none of them") {
  const nothing_left_over guard;
  concur::runtime rt(with_workers(2));
  rt.block_on([] {
    const auto n = std::make_unique<concur::nursery>();
    for (int i = 0; i < 20; ++i) n->go([] { concur::this_fiber::yield(); });
    n->join();
  });
}

TEST_CASE("a nursery's scope has a deadline and a shield like any other") {
  const nothing_left_over guard;
  with_each_count([](tally& held) {
    std::atomic<int> ended{0};
    concur::with_nursery([&](concur::nursery& n) {
      n.scope().deadline(std::chrono::steady_clock::now() + milliseconds(1));
      for (int i = 0; i < 3; ++i) n.go([&] { ended += is_cancelled_by(sleep_long) ? 1 : 0; });
      ended += is_cancelled_by(sleep_long) ? 1 : 0;
    });
    CONCUR_EXPECT(held, ended == 4);
  });
}

TEST_CASE("misuse of a nursery is reported by what was done") {
  const nothing_left_over guard;
  CHECK(text_of<std::logic_error>([] { concur::nursery n; }).find("concur::nursery: this thread runs no fibers") == 0);
  concur::run([] {
    CHECK(text_of<std::invalid_argument>([] { concur::nursery().limit(0); }).find("concur::nursery::limit: n is 0") ==
          0);
    concur::nursery n;
    n.join();
    CHECK(text_of<std::logic_error>([&] { n.go([] {}); }).find("the nursery has ended") != std::string::npos);
    CHECK(text_of<std::logic_error>([&] { n.async([] {}); }).find("the nursery has ended") != std::string::npos);
    CHECK(text_of<std::logic_error>([&] { n.start([](concur::started<int>&) {}); }).find("has ended") !=
          std::string::npos);
    CHECK(text_of<std::logic_error>([&] { n.join(); }).find("it ends once") != std::string::npos);
    concur::nursery outer;
    {
      const concur::cancel_scope inner;
      CHECK(text_of<std::logic_error>([&] { outer.join(); }).find("end that first") != std::string::npos);
    }
    std::string text;
    outer.go([&] { text = text_of<std::logic_error>([&] { outer.join(); }); });
    outer.join();
    CHECK(text.find("only the fiber that made the nursery") != std::string::npos);
  });
}
