// test_go_programs.cpp - the programs among Go's tests of channels: test/ken/chan.go, test/chan/sieve1.go, sieve2.go,
// powser1.go and powser2.go, written anew for fibers and, where threads bear it, for plain threads.
//
// A sieve and a power series never end by themselves. Here they end by their channels being closed: who is refused a
// send or gets nothing from a receive ends, and closes what it has.
#include "support/crew.hpp"

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <queue>
#include <tuple>
#include <vector>

using concur::channel;
using concur::channel_closed;
using concur::recv;
using concur::select;
using concur::send;

namespace {

// --- test/ken/chan.go: lines of numbers between parties of every kind ---

constexpr int numbers_of_a_line = 76;

struct sending {
  channel<int> ch = concur::nil;
  int next = 0;
};
struct receiving {
  channel<int> ch = concur::nil;
  int next = 0;
};
using four_sent = std::array<sending, 4>;
using four_received = std::array<receiving, 4>;

struct traffic {
  explicit traffic(kind which) : parties(which) {}

  // Both ends of a new line, with numbers of its own.
  std::pair<sending, receiving> make_line(std::size_t capacity) {
    base += 100;
    const channel<int> ch(capacity);
    return {{ch, base}, {ch, base}};
  }
  void has_sent(sending& line) {
    ++sent;
    if (++line.next % 100 == numbers_of_a_line) line.ch = concur::nil;
  }
  void has_received(receiving& line, std::optional<int> value) {
    ++received;
    CONCUR_EXPECT(held, value == line.next);
    if (++line.next % 100 == numbers_of_a_line) line.ch = concur::nil;
  }
  void send_alone(sending line) {
    parties.go([this, line]() mutable {
      while (line.ch != channel<int>(concur::nil)) {
        line.ch.send(line.next);
        has_sent(line);
      }
    });
  }
  void receive_alone(receiving line) {
    parties.go([this, line]() mutable {
      while (line.ch != channel<int>(concur::nil)) has_received(line, line.ch.recv());
    });
  }
  // One party, that selects over all of them until each has had its numbers.
  void select_over(four_received r, four_sent s) {
    parties.go([this, r, s]() mutable {
      int rest = 0;
      const channel<int> none(concur::nil);
      for (const receiving& line : r) rest += line.ch != none ? numbers_of_a_line : 0;
      for (const sending& line : s) rest += line.ch != none ? numbers_of_a_line : 0;
      const auto got = [&](std::size_t i) {
        return recv(r[i].ch, [this, &r, i](std::optional<int> v) { has_received(r[i], v); });
      };
      const auto put = [&](std::size_t i) { return send(s[i].ch, s[i].next, [this, &s, i] { has_sent(s[i]); }); };
      for (; rest != 0; --rest) select(got(0), got(1), got(2), got(3), put(0), put(1), put(2), put(3));
    });
  }

  crew parties;
  tally held;
  std::atomic<int> sent{0};
  std::atomic<int> received{0};
  int base = 0;
};

void all_kinds_of_traffic(traffic& all, std::size_t capacity) {
  const auto four_lines = [&](four_sent& s, four_received& r) {
    for (std::size_t i = 0; i < 4; ++i) std::tie(s[i], r[i]) = all.make_line(capacity);
  };
  four_sent s, s2, s3;
  four_received r, r2, r3;
  four_lines(s, r);  // alone to alone
  for (const sending& line : s) all.send_alone(line);
  for (const receiving& line : r) all.receive_alone(line);
  all.parties.join();
  four_lines(s, r);  // alone to select
  for (const sending& line : s) all.send_alone(line);
  all.select_over(r, {});
  all.parties.join();
  four_lines(s, r);  // select to alone
  for (const receiving& line : r) all.receive_alone(line);
  all.select_over({}, s);
  all.parties.join();
  four_lines(s, r);  // select to select
  all.select_over({}, s);
  all.select_over(r, {});
  all.parties.join();
  four_lines(s, r);  // the same in both directions
  four_lines(s2, r2);
  all.select_over(r2, s);
  all.select_over(r, s2);
  all.parties.join();
  four_lines(s, r);  // and with both kinds at the ends
  four_lines(s2, r2);
  four_lines(s3, r3);
  for (const sending& line : s2) all.send_alone(line);
  for (const receiving& line : r3) all.receive_alone(line);
  all.select_over(r2, s);
  all.select_over(r, s3);
  all.parties.join();
}

// --- sieves ---

constexpr std::array<int, 25> first_primes = {2,  3,  5,  7,  11, 13, 17, 19, 23, 29, 31, 37, 41,
                                              43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97};

// Runs `body`, which ends by a closed channel, and then closes what it received from and what it sent to.
template <class F>
auto until_closed(channel<int> from, channel<int> to, F body) {
  return [from, to, body]() mutable {
    try {
      body();
    } catch (const channel_closed&) {
    }
    from.try_close();
    to.try_close();
  };
}

// Takes the numbers through one filter for each prime; ends when `primes` is closed.
void all_primes(channel<int> numbers, channel<int> primes) {
  crew filters(concur_test::is_on_fiber() ? kind::fiber : kind::thread);
  filters.go(until_closed(concur::nil, numbers, [ch = numbers]() mutable {
    for (int i = 2;; ++i) ch.send(i);
  }));
  channel<int> in = numbers;
  until_closed(concur::nil, primes, [&] {
    while (const std::optional<int> prime = in.recv()) {
      primes.send(*prime);
      const channel<int> out;
      filters.go(until_closed(in, out, [from = in, to = out, by = *prime]() mutable {
        for (const int i : from) {
          if (i % by != 0) to.send(i);
        }
      }));
      in = out;
    }
  })();
  in.try_close();
  filters.join();
}

// The composites come from a heap of channels, each with the odd multiples of one prime.
class merging_sieve {
 public:
  explicit merging_sieve(kind which) : parties_(which), fed_back_(10) {
    primes.send(2);
    primes.send(3);
    proxied_.send(3);
    parties_.go(until_closed(proxied_, fed_back_, [this] { hand_on(); }));
    parties_.go(until_closed(fed_back_, composites_, [this] { merge(); }));
    parties_.go(until_closed(composites_, primes, [this] { take_out_composites(); }));
  }
  void end() {
    for (channel<int>* ch : {&primes, &proxied_, &fed_back_, &composites_}) ch->try_close();
    parties_.join();
  }

  channel<int> primes{10};

 private:
  struct multiples {
    int next;
    int step;
  };
  struct is_later {
    bool operator()(const multiples& a, const multiples& b) const { return a.next > b.next; }
  };

  // A queue without a bound between two channels with one: takes whatever comes, and offers what it has.
  void hand_on() {
    std::queue<int> waiting;
    for (bool is_open = true; is_open;) {
      channel<int> out = waiting.empty() ? channel<int>(concur::nil) : fed_back_;
      const int first = waiting.empty() ? 0 : waiting.front();
      select(recv(proxied_,
                  [&](std::optional<int> value) {
                    is_open = value.has_value();
                    if (is_open) waiting.push(*value);
                  }),
             send(out, first, [&] { waiting.pop(); }));
    }
  }
  void merge() {
    std::priority_queue<multiples, std::vector<multiples>, is_later> all;
    const auto next_prime = [&] {
      const std::optional<int> p = fed_back_.recv();
      if (!p) throw_closed();
      return multiples{*p * *p, 2 * *p};
    };
    for (int last = 0;;) {
      multiples coming = next_prime();
      while (!all.empty() && all.top().next < coming.next) {
        multiples least = all.top();
        all.pop();
        if (least.next != last) composites_.send(least.next);
        last = least.next;
        least.next += least.step;
        all.push(least);
      }
      composites_.send(coming.next);
      coming.next += coming.step;
      all.push(coming);
    }
  }
  void take_out_composites() {
    int candidate = 5;
    for (const int composite : composites_) {
      for (; candidate < composite; candidate += 2) {
        proxied_.send(candidate);
        primes.send(candidate);
      }
      if (candidate == composite) candidate += 2;
    }
  }
  // As a send on a closed channel would.
  static void throw_closed() {
    channel<int> closed;
    closed.close();
    closed.send(0);
  }

  crew parties_;
  channel<int> proxied_{10};
  channel<int> fed_back_;
  channel<int> composites_{50};
};

// --- test/chan/powser1.go and powser2.go: power series as processes that answer demands (McIlroy, Squinting at Power
// Series) ---

struct rational {
  long num = 0;
  long den = 1;
};
bool operator==(const rational& a, const rational& b) { return a.num == b.num && a.den == b.den; }
rational fraction(long num, long den) {
  const long common = std::gcd(num, den);
  return den < 0 ? rational{-num / common, -den / common} : rational{num / common, den / common};
}
rational operator+(const rational& a, const rational& b) {
  return fraction(a.num * b.den + b.num * a.den, a.den * b.den);
}
rational operator*(const rational& a, const rational& b) {
  const rational left = fraction(a.num, b.den);
  const rational right = fraction(b.num, a.den);
  return fraction(left.num * right.num, left.den * right.den);
}
rational operator-(const rational& a) { return {-a.num, a.den}; }

// A coefficient, or the end of the series.
using term = std::optional<rational>;

// Who wants a term says so on one channel and gets it on the other.
struct series {
  channel<void> demand;
  channel<term> terms;
};

// Thrown in a process when the world ends.
struct world_end {};

// All processes, and all channels, so that they can be ended.
class world {
 public:
  ~world() { end(); }

  series make() {
    series s;
    const std::lock_guard<std::mutex> held(mutex_);
    all_.push_back(s);
    if (is_over_) close(s);
    return s;
  }
  channel<void> make_signal() { return make().demand; }

  template <class F>
  void go(F body) {
    running_.add();
    concur::go([this, body]() mutable {
      try {
        body();
      } catch (const world_end&) {
      } catch (const channel_closed&) {
      }
      running_.done();
    });
  }
  void end() {
    {
      const std::lock_guard<std::mutex> held(mutex_);
      is_over_ = true;
      for (series& s : all_) close(s);
    }
    running_.wait();
  }

 private:
  static void close(series& s) {
    s.demand.try_close();
    s.terms.try_close();
  }

  std::mutex mutex_;  // held over nothing that parks
  std::vector<series> all_;
  bool is_over_ = false;
  concur::wait_group running_;
};

void must_be_open(bool is_open) {
  if (!is_open) throw world_end();
}
void await_demand(series& s) { must_be_open(s.demand.recv()); }
term await_term(series& s) {
  std::optional<term> got = s.terms.recv();
  if (!got) throw world_end();
  return *got;
}
term get(series& s) {
  s.demand.send();
  return await_term(s);
}
void put(const term& value, series& s) {
  await_demand(s);
  s.terms.send(value);
}
void copy(series& from, series& to) {
  for (;;) {
    await_demand(to);
    to.terms.send(get(from));
  }
}

// The next terms of two, asked for at once, so that neither waits for the other.
std::pair<term, term> get_both(series& a, series& b) {
  std::array<series*, 2> from = {&a, &b};
  std::array<channel<void>, 2> demand = {a.demand, b.demand};
  std::array<channel<term>, 2> terms = {concur::nil, concur::nil};
  std::array<term, 2> got;
  const auto ask = [&](std::size_t i) {
    return send(demand[i], [&, i] {
      terms[i] = from[i]->terms;
      demand[i] = concur::nil;
    });
  };
  const auto take = [&](std::size_t i) {
    return recv(terms[i], [&, i](std::optional<term> value) {
      if (!value) throw world_end();
      got[i] = *value;
      terms[i] = concur::nil;
    });
  };
  for (int rest = 4; rest != 0; --rest) select(ask(0), ask(1), take(0), take(1));
  return {got[0], got[1]};
}

// Serves the two outputs with the same terms, whichever asks first. Each generation serves one term, and starts the
// next generation before; `wait` tells it that the one before has served both.
void split_on(world& w, series in, series first, series second, channel<void> wait) {
  bool may_serve_both = false;
  const auto serve_both = [&](bool is_open) {
    must_be_open(is_open);
    may_serve_both = true;
  };
  const auto serve_the_other_first = [&](bool is_open) {
    must_be_open(is_open);
    std::swap(first, second);
  };
  select(recv(first.demand, must_be_open), recv(wait, serve_both));
  if (may_serve_both) {
    select(recv(first.demand, must_be_open), recv(second.demand, serve_the_other_first));
  }
  channel<void> release = w.make_signal();
  in.demand.send();
  w.go([&w, in, first, second, release] { split_on(w, in, first, second, release); });
  const term value = await_term(in);
  first.terms.send(value);
  if (!may_serve_both) must_be_open(wait.recv());
  await_demand(second);
  second.terms.send(value);
  release.send();
}
void split(world& w, const series& in, const series& first, const series& second) {
  w.go([&w, in, first, second] {
    channel<void> release = w.make_signal();
    w.go([&w, in, first, second, release] { split_on(w, in, first, second, release); });
    release.send();
  });
}

series repeat(world& w, rational c) {
  series z = w.make();
  w.go([z, c]() mutable {
    for (;;) put(c, z);
  });
  return z;
}
series add(world& w, series u, series v) {
  series z = w.make();
  w.go([z, u, v]() mutable {
    for (;;) {
      await_demand(z);
      const auto [a, b] = get_both(u, v);
      z.terms.send(a && b ? term(*a + *b) : a ? a : b);
      if (!a) copy(v, z);
      if (!b) copy(u, z);
    }
  });
  return z;
}
series times(world& w, rational c, series u) {
  series z = w.make();
  w.go([z, c, u]() mutable {
    for (;;) {
      await_demand(z);
      const term a = get(u);
      z.terms.send(a ? term(c * *a) : a);
    }
  });
  return z;
}
// (u + x U)(v + x V) = uv + x (uV + vU) + x x U V
series multiply(world& w, series u, series v) {
  series z = w.make();
  w.go([&w, z, u, v]() mutable {
    await_demand(z);
    const auto [a, b] = get_both(u, v);
    if (!a || !b) {
      z.terms.send(term());
      return;
    }
    z.terms.send(*a * *b);
    series u1 = w.make(), u2 = w.make(), v1 = w.make(), v2 = w.make();
    split(w, u, u1, u2);
    split(w, v, v1, v2);
    series mixed = add(w, times(w, *a, v1), times(w, *b, u1));
    await_demand(z);
    z.terms.send(get(mixed));
    series rest = add(w, mixed, multiply(w, u2, v2));
    copy(rest, z);
  });
  return z;
}
series differentiate(world& w, series u) {
  series z = w.make();
  w.go([z, u]() mutable {
    await_demand(z);
    get(u);
    for (long i = 1;; ++i) {
      const term a = get(u);
      z.terms.send(a ? term(rational{i, 1} * *a) : a);
      await_demand(z);
    }
  });
  return z;
}
series integrate(world& w, rational constant, series u) {
  series z = w.make();
  w.go([z, constant, u]() mutable {
    put(constant, z);
    for (long i = 1;; ++i) {
      await_demand(z);
      const term a = get(u);
      z.terms.send(a ? term(fraction(1, i) * *a) : a);
    }
  });
  return z;
}
// Z = exp(U): Z' = Z U', and the integral of that feeds itself.
series exponential(world& w, series u) {
  series first = w.make(), second = w.make();
  split(w, integrate(w, {1, 1}, multiply(w, first, differentiate(w, u))), first, second);
  return second;
}
// U(c x^n)
series substitute_monomial(world& w, series u, rational c, int n) {
  series z = w.make();
  w.go([z, u, c, n]() mutable {
    for (rational power{1, 1};; power = power * c) {
      await_demand(z);
      const term a = get(u);
      z.terms.send(a ? term(*a * power) : a);
      for (int i = 1; i < n; ++i) put(rational{0, 1}, z);
    }
  });
  return z;
}
series polynomial(world& w, std::vector<rational> coefficients) {
  series z = w.make();
  w.go([z, coefficients]() mutable {
    for (const rational& one : coefficients) put(one, z);
    for (;;) put(term(), z);
  });
  return z;
}

void expect_terms(tally& held, series s, const std::vector<rational>& expected) {
  for (const rational& one : expected) {
    const term got = get(s);
    CONCUR_EXPECT(held, got.has_value() && *got == one);
  }
}

}  // namespace

TEST_CASE("test/ken/chan.go: direct and selecting, sending and receiving, in order and without loss") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    traffic all(which);
    for (const std::size_t capacity : {0U, 1U, 10U, 100U}) all_kinds_of_traffic(all, capacity);
    constexpr int expected = 4 * (4 * 4 + 8 + 12) * numbers_of_a_line;
    CONCUR_EXPECT(all.held, all.sent == expected && all.received == expected);
    CHECK(all.held.report() == "");
  });
}

TEST_CASE("test/chan/sieve1.go: primes through a chain of filters that grows") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    crew all(which);
    channel<int> primes;
    all.go([&] { all_primes(channel<int>(), primes); });
    for (const int expected : first_primes) CONCUR_EXPECT(held, primes.recv() == expected);
    primes.close();
    all.join();
    CHECK(held.report() == "");
  });
}

TEST_CASE("test/chan/sieve2.go: primes by merging the multiples of those before") {
  const nothing_left_over guard;
  everywhere([](kind which) {
    tally held;
    merging_sieve sieve(which);
    for (const int expected : first_primes) CONCUR_EXPECT(held, sieve.primes.recv() == expected);
    sieve.end();
    CHECK(held.report() == "");
  });
}

TEST_CASE("test/chan/powser1.go and powser2.go: power series") {
  const nothing_left_over guard;
  for (const unsigned workers : {1U, 2U, 4U}) {
    concur::run(with_workers(workers), [] {
      tally held;
      world w;
      const rational one{1, 1};
      const auto ones = [&] { return repeat(w, one); };
      const auto twos = [&] { return repeat(w, {2, 1}); };
      const std::vector<rational> counting = {{1, 1}, {2, 1}, {3, 1}, {4, 1}, {5, 1}, {6, 1}, {7, 1}, {8, 1}, {9, 1}};
      expect_terms(held, ones(), std::vector<rational>(5, one));
      expect_terms(held, add(w, ones(), ones()), std::vector<rational>(5, {2, 1}));
      expect_terms(held, add(w, ones(), twos()), std::vector<rational>(5, {3, 1}));
      expect_terms(held, add(w, polynomial(w, {{1, 2}, {1, 3}}), ones()), {{3, 2}, {4, 3}, {1, 1}, {1, 1}});
      expect_terms(held, differentiate(w, ones()), counting);
      expect_terms(held, integrate(w, {0, 1}, ones()), {{0, 1}, {1, 1}, {1, 2}, {1, 3}, {1, 4}, {1, 5}});
      expect_terms(held, times(w, -one, twos()), std::vector<rational>(10, {-2, 1}));
      expect_terms(held, add(w, ones(), times(w, -one, twos())), std::vector<rational>(5, {-1, 1}));
      expect_terms(held, multiply(w, ones(), ones()), counting);
      expect_terms(held, multiply(w, polynomial(w, {one, -one}), ones()), {{1, 1}, {0, 1}, {0, 1}, {0, 1}});
      const std::vector<rational> of_exp = {{1, 1},    {1, 1},     {3, 2},       {13, 6},      {73, 24},
                                            {167, 40}, {4051, 720}, {37633, 5040}, {43817, 4480}};
      expect_terms(held, exponential(w, ones()), std::vector<rational>(of_exp.begin(), of_exp.begin() + scaled(9)));
      expect_terms(held, integrate(w, {0, 1}, substitute_monomial(w, ones(), -one, 2)),
                   {{0, 1}, {1, 1}, {0, 1}, {-1, 3}, {0, 1}, {1, 5}, {0, 1}, {-1, 7}, {0, 1}, {1, 9}});
      w.end();
      CHECK(held.report() == "");
    });
  }
}
