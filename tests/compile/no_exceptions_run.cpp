// tests/compile/no_exceptions_run.cpp - cancellation in a program that has no exceptions, by the forms with a code.
//
// It is built with -fno-exceptions -fno-rtti, and runs: 0 when everything held, else 1 and the reasons on stderr. Each row is
// an operation that waits until it is cancelled; it goes through three scenes, in the last two as a fiber of a runtime that
// is cancelled. Nothing may reach on_fatal, except in the child that shows what the forms without a code do.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <memory>
#include <mutex>
#include <optional>
#include <system_error>
#include <utility>

#include "concur.hpp"

namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using code = std::error_code;
using pointer = std::unique_ptr<int>;

std::atomic<int> failures{0};

void expect(bool holds, const char* what, const char* scene) {
  if (holds) return;
  failures.fetch_add(1);
  std::fprintf(stderr, "no_exceptions_run: %s, %s: not so\n", what, scene);
}

// What the operations wait for; made by a plain thread, which holds the locks.
struct world {
  world() {
    full.send(std::make_unique<int>(1));
    m.lock();
    timed.lock();
    recursive.lock();
    shared.lock();
    group.add();
    things.add(1);
    lease = things.acquire();
    wanted = made.get_future();
  }
  void open() {
    full.try_recv();
    empty.send(std::make_unique<int>(2));
    signal.send();
    m.unlock();
    timed.unlock();
    recursive.unlock();
    shared.unlock();
    permits.release(2);
    door.count_down();
    group.done();
    happened.set();
    lease.give_back();
    made.set_value(5);
    {
      const std::lock_guard<concur::mutex> held(condition_lock);
      holds = true;
    }
    changed.notify_all();
    static_cast<void>(meet.arrive());
    naptime.store(std::chrono::nanoseconds(1));
  }

  concur::channel<pointer> full{1};
  concur::channel<pointer> empty{1};
  concur::channel<void> signal{1};
  concur::mutex m;
  concur::timed_mutex timed;
  concur::recursive_mutex recursive;
  concur::shared_mutex shared;
  concur::counting_semaphore<> permits{0};
  concur::latch door{1};
  concur::wait_group group;
  concur::event happened;
  concur::barrier<> meet{2};
  concur::barrier<>::arrival_token token = meet.arrive();
  concur::resource_pool<int> things{1};
  concur::resource_pool<int>::lease lease;
  concur::promise<int> made;
  concur::future<int> wanted;
  concur::mutex condition_lock;
  concur::condition_variable changed;
  bool holds = false;
  std::atomic<std::chrono::nanoseconds> naptime{hours(1)};
};

bool send_value(world& w, code& error) {
  pointer value = std::make_unique<int>(3);
  const bool is_sent = w.full.send(std::move(value), error);
  expect(is_sent == (value == nullptr), "send", "the value is there, or was sent");
  return is_sent;
}

bool send_in_time(world& w, code& error) {
  pointer value = std::make_unique<int>(3);
  const concur::status result = w.full.send_for(value, hours(1), error);
  expect((result == concur::status::cancelled) == static_cast<bool>(error), "send_for", "status and code agree");
  expect((result == concur::status::ok) == (value == nullptr), "send_for", "the value is there, or was sent");
  return result == concur::status::ok;
}

template <class Mutex>
bool lock_and_unlock(Mutex& m, code& error) {
  if (!m.lock(error)) return false;
  m.unlock();
  return true;
}

bool wait_for_condition(world& w, code& error) {
  const std::lock_guard<concur::mutex> held(
      w.condition_lock);  // free, or soon so: it is unlocked at the end, held again
  return w.changed.wait(
      w.condition_lock, [&w] { return w.holds; }, error);
}

bool lock_shared(world& w, code& error) {
  if (!w.shared.lock_shared(error)) return false;
  w.shared.unlock_shared();
  return true;
}

bool acquire_permits(world& w, code& error) {
  if (!w.permits.acquire(2, error)) return false;
  w.permits.release(2);
  return true;
}

bool select_one(world& w, code& error) {
  bool has_run = false;
  const int index = concur::select(error, concur::recv(w.signal, [&has_run](bool came) { has_run = came; }));
  return index == 0 && has_run;
}

bool wait_for_any(world& w, code& error) {
  concur::selector cases;
  cases.add(concur::recv(w.signal, [] {}));
  return cases.wait(error) == 0;
}

bool take_result(world& w, code& error) {
  if (!w.wanted.wait(error)) return false;
  return w.wanted.get() == 5;
}

struct row {
  const char* name;
  bool (*op)(world&, code&);
};

const row rows[] = {
    {"send", &send_value},
    {"send_for", &send_in_time},
    {"recv", [](world& w, code& e) { return w.empty.recv(e).has_value(); }},
    {"recv of a signal", [](world& w, code& e) { return w.signal.recv(e); }},
    {"mutex", [](world& w, code& e) { return lock_and_unlock(w.m, e); }},
    {"timed_mutex", [](world& w, code& e) { return lock_and_unlock(w.timed, e); }},
    {"recursive_mutex", [](world& w, code& e) { return lock_and_unlock(w.recursive, e); }},
    {"shared_mutex", [](world& w, code& e) { return lock_and_unlock(w.shared, e); }},
    {"lock_shared", &lock_shared},
    {"condition_variable", &wait_for_condition},
    {"semaphore", &acquire_permits},
    {"latch", [](world& w, code& e) { return w.door.wait(e); }},
    {"barrier", [](world& w, code& e) { return w.meet.wait(w.token, e); }},
    {"event", [](world& w, code& e) { return w.happened.wait(e); }},
    {"wait_group", [](world& w, code& e) { return w.group.wait(e); }},
    {"resource_pool", [](world& w, code& e) { return static_cast<bool>(w.things.acquire(e)); }},
    {"future", &take_result},
    {"select", &select_one},
    {"selector", &wait_for_any},
    {"sleep_for", [](world& w, code& e) { return concur::this_fiber::sleep_for(w.naptime.load(), e); }},
};

concur::options two_workers() {
  concur::options wanted;
  wanted.workers = 2;
  return wanted;
}

void try_open(const row& r) {
  world w;
  w.open();
  concur::runtime rt(two_workers());
  code error = std::make_error_code(std::errc::io_error);
  const bool has_happened = rt.block_on([&] { return r.op(w, error); });
  expect(has_happened && !error, r.name, "nothing to wait for");
}

void try_before(const row& r) {
  world w;
  w.open();
  {
    concur::runtime rt(two_workers());
    rt.cancel_all();
    code error;
    const bool has_happened = rt.block_on([&] { return r.op(w, error); });
    expect(!has_happened && error == std::errc::operation_canceled, r.name, "cancelled before");
  }
  code error;
  expect(r.op(w, error) && !error, r.name, "whole after it was cancelled before");
}

void try_parked(const row& r) {
  world w;
  {
    concur::runtime rt(two_workers());
    code error;
    std::atomic<concur::detail::fiber*> block{nullptr};
    concur::future<bool> end = rt.go([&] {
      block.store(concur::detail::this_worker()->current);
      return r.op(w, error);
    });
    const auto is_parked = [&] {
      const concur::detail::fiber* f = block.load();
      return f != nullptr && f->state.load() == concur::detail::fiber_state::parked;
    };
    while (!is_parked() && !end.ready()) concur::this_fiber::yield();
    rt.cancel_all();
    expect(!end.get() && error == std::errc::operation_canceled, r.name, "cancelled while parked");
  }
  w.open();
  code error;
  expect(r.op(w, error) && !error, r.name, "whole after it was cancelled while parked");
}

void try_io() {
  int ends[2];
  if (::pipe(ends) != 0) return expect(false, "pipe", "cannot be made");
  concur::tcp_listener listener = concur::tcp_listener::bind("127.0.0.1:0");
  concur::runtime rt(two_workers());
  rt.cancel_all();
  rt.block_on([&] {
    code error;
    expect(!listener.accept(error).is_open() && error == std::errc::operation_canceled, "accept", "cancelled before");
    char byte = 0;
    const bool has_failed = concur::io::read(ends[0], &byte, 1) == -1;
    expect(has_failed && errno == ECANCELED, "io::read", "cancelled before");
    expect(!concur::this_fiber::checkpoint(error) && error, "checkpoint", "cancelled before");
  });
  concur::io::close(ends[0]);
  concur::io::close(ends[1]);
}

// The end of a channel is none of a program.
void try_closed() {
  concur::channel<pointer> ch(1);
  ch.close();
  code error = std::make_error_code(std::errc::io_error);
  expect(!ch.send(std::make_unique<int>(1), error) && !error, "send", "closed");
  expect(!ch.recv(error).has_value() && !error, "recv", "closed");
}

// Each function hears of the cancellation, here or elsewhere.
void try_forks() {
  concur::runtime rt(two_workers());
  rt.block_on([] {
    concur::event never;
    code here;
    code elsewhere;
    const std::optional<int> result = concur::move_on_after(milliseconds(1), [&] {
      concur::parallel_invoke([&] { never.wait(here); }, [&] { never.wait(elsewhere); });
      return 1;
    });
    expect(!result && here == std::errc::operation_canceled, "parallel_invoke", "cancelled here");
    expect(elsewhere == std::errc::operation_canceled, "parallel_invoke", "cancelled elsewhere");
  });
}

// Scopes end with what their operations were told: a limit, and a sibling that failed.
void try_scopes() {
  concur::runtime rt(two_workers());
  rt.block_on([] {
    concur::event never;
    code told;
    const std::optional<int> parked = concur::move_on_after(milliseconds(1), [&] {
      never.wait(told);
      return 1;
    });
    expect(!parked && told == std::errc::operation_canceled, "move_on_after", "passed in a wait");
    const std::optional<int> looked = concur::move_on_after(milliseconds(0), [&] {
      concur::this_fiber::checkpoint(told);
      return 1;
    });
    expect(!looked && told == std::errc::operation_canceled, "move_on_after", "passed at a checkpoint");
    const std::optional<int> in_time = concur::move_on_after(hours(1), [&] {
      concur::this_fiber::sleep_for(milliseconds(1), told);
      return 1;
    });
    expect(in_time == 1 && !told, "move_on_after", "in time");
    code result;
    code sibling;
    const auto body = [&](concur::nursery& n) {
      n.go([&] { never.wait(sibling); });
      n.go([] { return std::make_error_code(std::errc::io_error); });
    };
    concur::with_nursery(body, result);
    expect(result == std::errc::io_error, "with_nursery", "the failing child's code");
    expect(sibling == std::errc::operation_canceled, "with_nursery", "the sibling was told");
    concur::nursery n(concur::on_failure::keep_going);
    const std::optional<int> port = n.start([](concur::started<int>& up) { up(7001); }, result);
    expect(port == 7001 && !result, "start", "up");
    const auto cannot = [](concur::started<int>&) { return std::make_error_code(std::errc::address_in_use); };
    expect(!n.start(cannot, result) && result == std::errc::address_in_use, "start", "the child's code");
    const std::optional<bool> waited = concur::move_on_after(milliseconds(1), [&] {
      return n.start([&](concur::started<void>&) { never.wait(sibling); }, result);
    });
    expect(!waited && result == std::errc::operation_canceled, "start", "given up");
    n.join(result);
    expect(!result, "join", "errors before a child is up are its caller's");
    const auto codes = concur::all([] { return std::make_error_code(std::errc::io_error); },
                                   [&] { return never.wait(sibling) ? code() : sibling; });
    expect(std::get<0>(codes) == std::errc::io_error && std::get<1>(codes) == std::errc::operation_canceled, "all",
           "the first failing code cancels the others");
    expect(!concur::any([] { return std::make_error_code(std::errc::io_error); }, [] { return code(); }), "any",
           "one succeeds");
    expect(concur::any([] { return std::make_error_code(std::errc::io_error); }) == std::errc::io_error, "any",
           "none succeeds");
  });
}

// In a child: what a cancelled fiber does that has no code to write to. What need not wait goes on.
void try_without_code() {
  const pid_t child = ::fork();
  if (child == 0) {
    concur::set_on_fatal([](const char*) { ::_exit(7); });
    concur::runtime rt(two_workers());
    rt.cancel_all();
    rt.block_on([] {
      concur::mutex m;
      const std::lock_guard<concur::mutex> held(m);
      concur::event never;
      never.wait();
    });
    ::_exit(8);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  expect(WIFEXITED(status) && WEXITSTATUS(status) == 7, "wait without a code", "on_fatal");
}

// Exploring needs no exceptions: expectations and deadlocks fail a schedule without them.
void try_explored() {
  const concur::explore_report sound = concur::try_explore([] {
    concur::channel<int> ch;
    int received = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { ch.send(1); });
      received = ch.recv().value_or(0);
    });
    concur::explore_expect(received == 1, "a value is missing");
  });
  expect(sound.ok && sound.schedules == 1000, "try_explore", sound.what.c_str());
  const concur::explore_report stuck = concur::try_explore([] { concur::channel<int>().recv(); });
  expect(!stuck.ok && stuck.what.compare(0, 8, "deadlock") == 0, "try_explore", "a deadlock is found");
}

}  // namespace

int main() {
  try_without_code();  // first: there is no other thread yet
  concur::set_on_fatal([](const char* message) {
    std::fprintf(stderr, "no_exceptions_run: on_fatal: %s\n", message);
    ::_exit(2);
  });
  for (const row& r : rows) {
    try_open(r);
    try_before(r);
    try_parked(r);
  }
  try_io();
  try_closed();
  try_forks();
  try_scopes();
  try_explored();
  return failures.load() == 0 ? 0 : 1;
}
