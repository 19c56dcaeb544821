// test_cancel_token.cpp - tokens and sources: cancellation that goes out to code without scopes, and comes in from it.
#include "support/tally.hpp"
#include "support/test.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

namespace {

using std::chrono::hours;
using std::chrono::milliseconds;

void sleep_long() { concur::this_fiber::sleep_for(hours(1)); }

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

TEST_CASE("a source cancels its tokens, once, and they outlive it") {
  const nothing_left_over guard;
  CHECK(!concur::cancel_token().cancelled());
  std::optional<concur::cancel_source> source(std::in_place);
  const concur::cancel_token token = source->token();
  const concur::cancel_source same = *source;
  CHECK(token == same.token());
  CHECK(token != concur::cancel_token());
  token.checkpoint();
  CHECK(!source->cancelled());
  source->cancel();
  source->cancel();
  source.reset();
  CHECK(token.cancelled());
  CHECK(same.cancelled());
  CHECK(is_cancelled_by([&] { token.checkpoint(); }));
}

TEST_CASE("a scope made of a token is cancelled with it, from any thread, before or after") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U}) {
    CAPTURE(workers);
    concur::cancel_source source;
    concur::event is_in;
    std::thread presses([&] {
      is_in.wait();
      source.cancel();
    });
    bool has_returned = true;
    bool had_returned = true;
    concur::run(with_workers(workers), [&] {
      concur::cancel_scope scope(source.token());
      has_returned = scope.run([&] {
        is_in.set();
        sleep_long();
      });
      concur::cancel_scope late(source.token());
      had_returned = late.run([] { concur::this_fiber::checkpoint(); });
    });
    presses.join();
    CHECK(!has_returned);
    CHECK(!had_returned);
  }
}

TEST_CASE("a token tells a plain thread of a scope's cancellation, also when the scope is gone") {
  const nothing_left_over guard;
  concur::run(with_workers(2), [] {
    std::atomic<bool> is_through{false};
    concur::cancel_token kept;
    std::thread computes;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        computes = std::thread([&, token = concur::this_fiber::token()] {
          while (!token.cancelled()) std::this_thread::yield();
          is_through = true;
        });
        sleep_long();
      });
      kept = n.scope().token();
      CHECK(!kept.cancelled());
      concur::move_on_after(milliseconds(1), sleep_long);
      n.cancel();
    });
    computes.join();
    CHECK(is_through);
    CHECK(kept.cancelled());
    // One that is asked for when it is too late, and one of a scope that is never entered.
    concur::cancel_scope scope(concur::deferred);
    const concur::cancel_token before = scope.token();
    scope.cancel();
    CHECK(before.cancelled());
    CHECK(scope.token().cancelled());
  });
  CHECK(!concur::this_fiber::token().cancelled());
}

TEST_CASE("a token of a scope that is entered where all is cancelled is cancelled then") {
  const nothing_left_over guard;
  concur::run(with_workers(2), [] {
    concur::cancel_scope outer;
    concur::cancel_scope inner(concur::deferred);
    const concur::cancel_token token = inner.token();
    outer.cancel();
    CHECK_FALSE(token.cancelled());
    bool was_told = false;
    CHECK_THROWS_AS(inner.run([&] {
      was_told = token.cancelled();
      concur::this_fiber::checkpoint();
    }),
                    concur::cancelled);
    CHECK(was_told);
  });
}

TEST_CASE("the token of a fiber of the root is cancelled with the runtime") {
  const nothing_left_over guard;
  concur::cancel_token token;
  {
    concur::runtime rt(with_workers(1));
    token = rt.block_on([] { return concur::this_fiber::token(); });
    CHECK(!token.cancelled());
  }
  CHECK(token.cancelled());
}

TEST_CASE("a scope that ends while its token is being cancelled is not touched afterwards") {
  const nothing_left_over guard;
  const int rounds = CONCUR_TSAN || CONCUR_ASAN ? 2000 : 20000;
  std::vector<concur::cancel_source> sources(static_cast<std::size_t>(rounds));
  std::atomic<int> next{0};
  std::thread presses([&] {
    for (int i = 0; i < rounds; ++i) {
      while (next.load() <= i) concur::detail::cpu_relax();
      sources[static_cast<std::size_t>(i)].cancel();
    }
  });
  concur::run(with_workers(1), [&] {
    for (int i = 0; i < rounds; ++i) {
      // On the heap, so that a late touch is seen.
      const auto scopes = std::make_unique<std::optional<concur::cancel_scope>[]>(3);
      for (std::size_t k = 0; k < 3; ++k) scopes[k].emplace(sources[static_cast<std::size_t>(i)].token());
      next.store(i + 1);
      for (int pauses = i % 97; pauses > 0; --pauses) concur::detail::cpu_relax();
      for (std::size_t k = 3; k-- > 0;) scopes[k].reset();
    }
  });
  presses.join();
}

#if CONCUR_HAS_STOP_TOKEN
TEST_CASE("a token and std::stop_token convert into each other") {
  const nothing_left_over guard;
  std::stop_source stop;
  const concur::cancel_token from = stop.get_token();
  const std::stop_token back = from;
  CHECK(back == stop.get_token());
  CHECK(!from.cancelled());
  stop.request_stop();
  CHECK(from.cancelled());
  CHECK(concur::cancel_token(stop.get_token()).cancelled());

  concur::cancel_source source;
  const std::stop_token to = source.token();
  bool was_called = false;
  const std::stop_callback call(to, [&] { was_called = true; });
  CHECK(!to.stop_requested());
  source.cancel();
  CHECK(to.stop_requested());
  CHECK(was_called);
  const std::stop_token late = source.token();
  CHECK(late.stop_requested());
  CHECK(!std::stop_token(concur::cancel_token()).stop_possible());
  concur::cancel_source only;
  const std::stop_token after = only.token();
  only.cancel();
  CHECK(after.stop_requested());
}

TEST_CASE("std::jthread's stop reaches a fiber, and a scope's cancellation a jthread") {
  const nothing_left_over guard;
  concur::event is_in;
  bool has_returned = true;
  {
    std::jthread thread([&](std::stop_token token) {
      concur::run(with_workers(1), [&] {
        concur::cancel_scope scope{concur::cancel_token(token)};
        has_returned = scope.run([&] {
          is_in.set();
          sleep_long();
        });
      });
    });
    is_in.wait();
  }
  CHECK(!has_returned);
}
#endif
