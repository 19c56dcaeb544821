// tests/test_status_forms.cpp - the form with a std::error_code of everything that parks.
//
// Each row of support/parking_sites.hpp, in each of its forms, goes through the same scenes:
//
//     open        it need not wait: it happens, and the code is cleared
//     let go      it waits, and the site is opened: the same
//     too late    it waits, and its limit passes: it did not happen, and the code is cleared
//     before      its fiber was cancelled, and it need not wait: it did not happen, and the code says so
//     parked      its wait is cancelled: the same
//
// After the last two the site is opened, and the operation must happen for somebody else: nothing was lost.
#include <atomic>
#include <chrono>
#include <memory>
#include <system_error>
#include <utility>

#include "support/cancel.hpp"
#include "support/companion.hpp"
#include "support/parking_sites.hpp"
#include "support/tally.hpp"
#include "support/test.hpp"

namespace {

using namespace concur_test::parking;

constexpr auto canceled = std::errc::operation_canceled;

code something() { return std::make_error_code(std::errc::io_error); }

// The operation by another party, which is told apart from the site's maker.
bool happens(kind which, site& s, code& error) {
  bool has_happened = false;
  companion(which, [&] { has_happened = s.op(error); }).join();
  return has_happened;
}

void expect_whole(const row& r, site& s, kind which, tally& held, int line) {
  code error = something();
  const bool is_whole = s.is_whole ? s.is_whole() : happens(which, s, error) && !error;
  held.expect(is_whole, r.name, line);
}

void try_open(const row& r, how h, kind which) {
  if (!r.has(lasts)) return;
  site s = r.make(h);
  s.open();
  code error = something();
  h.held->expect(happens(which, s, error) && !error, r.name, __LINE__);
}

void try_let_go(const row& r, how h, kind which) {
  if (!r.has(wakes)) return;
  site s = r.make(h);
  code error = something();
  bool has_happened = false;
  companion waits(which, [&] { has_happened = s.op(error); });
  h.held->expect(waits.wait_until_parked(), r.name, __LINE__);
  s.open();
  waits.join();
  h.held->expect(has_happened && !error, r.name, __LINE__);
}

void try_too_late(const row& r, how h, kind which) {
  if (!r.has(timed) || h.which == form::plain) return;
  h.limit = milliseconds(1);
  site s = r.make(h);
  code error = something();
  h.held->expect(!happens(which, s, error) && !error, r.name, __LINE__);
  s.open();
}

void try_parked(const row& r, how h) {
  if (!r.has(parks) || !concur_test::is_on_fiber()) return;
  site s = r.make(h);
  code error = something();
  bool has_happened = true;
  cancel_target target;
  companion waits(kind::fiber, [&] {
    target.enter();
    has_happened = s.op(error);
    target.leave();
  });
  h.held->expect(waits.wait_until_parked(), r.name, __LINE__);
  while (!waits.has_ended() && !target.strike()) concur::this_fiber::yield();
  waits.join();
  h.held->expect(!has_happened && error == canceled, r.name, __LINE__);
  s.open();
  expect_whole(r, s, kind::fiber, *h.held, __LINE__);
}

// On a plain thread, with a runtime that is cancelled from the beginning.
void try_before(const row& r, how h) {
  if (!r.has(looks)) return;
  site s = r.make(h);
  s.open();
  {
    concur::runtime rt(with_workers(1));
    rt.cancel_all();
    rt.block_on([&] {
      code error = something();
      h.held->expect(!s.op(error) && error == canceled, r.name, __LINE__);
    });
  }
  expect_whole(r, s, kind::thread, *h.held, __LINE__);
}

template <class Scene>
void for_each_form(tally& held, Scene scene) {
  for (const row& r : rows) {
    for (const form which : {form::plain, form::with_duration, form::with_time_point}) {
      if (which == form::plain || r.has(timed)) scene(r, how{which, milliseconds(hours(1)), &held});
    }
  }
}

TEST_CASE("what happens clears the code, and so does a limit that passes") {
  const nothing_left_over guard;
  tally held;
  everywhere([&](kind which) {
    for_each_form(held, [&](const row& r, how h) {
      try_open(r, h, which);
      try_let_go(r, h, which);
      try_too_late(r, h, which);
    });
  });
  CHECK(held.report() == "");
}

TEST_CASE("a cancelled wait says so in the code, and nothing is lost") {
  const nothing_left_over guard;
  tally held;
  everywhere([&](kind) { for_each_form(held, [](const row& r, how h) { try_parked(r, h); }); });
  CHECK(held.report() == "");
}

TEST_CASE("who was cancelled before does not go on, though there was nothing to wait for") {
  const nothing_left_over guard;
  tally held;
  for_each_form(held, [](const row& r, how h) { try_before(r, h); });
  CHECK(held.report() == "");
}

// Runs f as a fiber that was cancelled before.
template <class F>
void run_cancelled(F f) {
  concur::runtime rt(with_workers(1));
  rt.cancel_all();
  rt.block_on(std::move(f));
}

TEST_CASE("a timed operation of a channel says that it was cancelled in its status too") {
  const nothing_left_over guard;
  tally held;
  run_cancelled([&] {
    concur::channel<int> ch(1);
    code error;
    int value = 1;
    CONCUR_EXPECT(held, ch.send_for(value, hours(1), error) == concur::status::cancelled && error == canceled);
    CONCUR_EXPECT(held, ch.recv_until(value, steady_clock::now(), error) == concur::status::cancelled);
    CONCUR_EXPECT(held, ch.size() == 0);
  });
  CHECK(held.report() == "");
}

TEST_CASE("a closed channel, and a closed pool, leave the code clear") {
  const nothing_left_over guard;
  concur::channel<pointer> ch(1);
  concur::channel<void> signal;
  ch.close();
  signal.close();
  pointer value = std::make_unique<int>(1);
  code error = something();
  CHECK(!ch.send(std::move(value), error));
  CHECK((value != nullptr && !error));
  error = something();
  CHECK((!ch.recv(error) && !error));
  CHECK(ch.send_for(value, hours(1), error) == concur::status::closed);
  CHECK(ch.recv_for(value, hours(1), error) == concur::status::closed);
  CHECK((!signal.send(error) && !signal.recv(error) && !error));
  concur::resource_pool<int> pool(1);
  pool.close();
  error = something();
  CHECK((!pool.acquire(error) && !error));
}

TEST_CASE("misuse is reported as without a code") {
  const nothing_left_over guard;
  code error;
  concur::mutex m;
  m.lock();
  CHECK_THROWS_AS(m.lock(error), std::logic_error);
  m.unlock();
  concur::counting_semaphore<3> permits(1);
  CHECK_THROWS_AS(permits.acquire(4, error), std::invalid_argument);
  concur::barrier<> one(1);
  concur::barrier<> other(1);
  CHECK_THROWS_AS(one.wait(other.arrive(), error), std::logic_error);
  concur::future<int> empty;
  CHECK_THROWS(empty.wait(error));
  concur::once_flag flag;
  CHECK_THROWS_AS(concur::call_once(flag, error, [&] { concur::call_once(flag, error, [] {}); }), std::logic_error);
}

TEST_CASE("call_once: a cancelled call runs nothing, and leaves the flag to others; what is done is done") {
  const nothing_left_over guard;
  tally held;
  concur::once_flag flag;
  int runs = 0;
  run_cancelled([&] {
    code error;
    CONCUR_EXPECT(held, !concur::call_once(flag, error, [&] { ++runs; }) && error == canceled && runs == 0);
  });
  code error = something();
  CHECK((concur::call_once(
             flag, error, [&](int n) { runs += n; }, 1) &&
         !error && runs == 1));
  run_cancelled([&] {
    code mine = something();
    CONCUR_EXPECT(held, concur::call_once(flag, mine, [&] { ++runs; }) && !mine && runs == 1);
  });
  CHECK(held.report() == "");
}

TEST_CASE("select with a code and an otherwise is no checkpoint, and the function may write the code") {
  const nothing_left_over guard;
  tally held;
  run_cancelled([&] {
    concur::channel<int> ch(1);
    code error = something();
    bool has_run = false;
    CONCUR_EXPECT(held,
                  concur::select(error, concur::recv(ch, [] {}), concur::otherwise([&] { has_run = true; })) == 1);
    CONCUR_EXPECT(held, has_run && !error);
    CONCUR_EXPECT(held, concur::selector{}.wait(error) == -1 && error == canceled);
  });
  concur::channel<int> ch(1);
  ch.send(1);
  code error;
  CHECK(concur::select(error, concur::recv(ch, [&] { error = something(); })) == 0);
  CHECK(error == something());
  CHECK(held.report() == "");
}

TEST_CASE("a destructor that runs for unwinding is not cancelled") {
  const nothing_left_over guard;
  tally held;
  concur::channel<int> ch(1);
  ch.send(1);
  struct cleaner {
    concur::channel<int>& ch;
    tally& held;
    ~cleaner() {
      code error = something();
      CONCUR_EXPECT(held, ch.recv(error) == 1 && !error);
      CONCUR_EXPECT(held, concur::this_fiber::sleep_for(milliseconds(1), error) && !error);
    }
  };
  CHECK_THROWS_AS(run_cancelled([&] {
                    const cleaner last{ch, held};
                    concur::this_fiber::checkpoint();
                  }),
                  concur::cancelled);
  CHECK(held.report() == "");
}

// The budget of a slice is spent here as by the throwing form: one that never waits lets others run.
TEST_CASE("an operation with a code that never waits yields now and then") {
  const nothing_left_over guard;
  concur::run(with_workers(1), [] {
    std::atomic<bool> has_run{false};
    concur::go([&] { has_run.store(true); });
    concur::channel<int> ch(1);
    code error;
    while (!has_run.load()) {
      ch.send(1, error);
      ch.recv(error);
    }
  });
}

TEST_CASE("the throwing forms of I/O throw cancelled, and tell a descriptor that was closed from that") {
  const nothing_left_over guard;
  tally held;
  {
    connection c;
    c.theirs.write_all("x\n");
    char byte = 0;
    run_cancelled([&] {
      int thrown = 0;
      const auto expect_cancelled = [&](auto deed) {
        try {
          deed();
        } catch (const concur::cancelled&) {
          ++thrown;
        }
      };
      expect_cancelled([&] { c.ours.read_some(&byte, 1); });
      expect_cancelled([&] { c.ours.read_until("\n", 10); });
      expect_cancelled([&] { c.ours.write_all("x"); });
      expect_cancelled([&] { concur::tcp_stream::connect("127.0.0.1:9"); });
      expect_cancelled([&] { concur::io::read(c.ours.fd(), &byte, 1); });
      CONCUR_EXPECT(held, thrown == 5);
    });
    c.theirs.write_all("y");
    CHECK(c.ours.read_until("\n", 10) == "x\n");
    CHECK(c.ours.read_until("y", 10) == "y");
    // What was read but not asked for is no way around the checkpoint either.
    c.theirs.write_all("1\n2\n");
    CHECK(c.ours.read_until("\n", 10) == "1\n");
    run_cancelled([&] {
      code error;
      CONCUR_EXPECT(held, c.ours.read_some(&byte, 1, error) == 0 && error == canceled);
      CONCUR_EXPECT(held, c.ours.read_until("\n", 10, error).empty() && error == canceled);
    });
    CHECK(c.ours.read_until("\n", 10) == "2\n");
  }
  concur::run(with_workers(2), [&] {
    connection c;
    code error;
    companion reads(kind::fiber, [&] {
      char byte = 0;
      CONCUR_EXPECT(held, c.ours.read_some(&byte, 1, error) == 0);
    });
    CONCUR_EXPECT(held, reads.wait_until_parked());
    c.ours.close();
    reads.join();
    CONCUR_EXPECT(held, error == canceled && !concur::this_fiber::cancelled());
    CONCUR_EXPECT(held, error != std::make_error_code(canceled));
  });
  CHECK(held.report() == "");
}

}  // namespace
