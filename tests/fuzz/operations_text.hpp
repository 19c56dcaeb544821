// tests/fuzz/operations_text.hpp - programs of fibers, channels and locks, as text.
//
// The first line says how the program is run: `w2` with two workers, `#17` under the schedule with this seed, `p3` by
// priorities with three changes (random otherwise), `k` with a nursery that keeps going when a child fails, `x` cancelled
// as a whole once nothing moves any more, `m` on a memory that shows old values. Each further line is a fiber, which does:
//
//     sa ra ta ua       send to channel a, receive, try either. a has no room, b room for one value, c for two, d for five
//     Sa3 Ra3           send and receive with a limit of three units of time
//     ca                close
//     bab               select: receive from a, or send to b
//     qsarbz3g1.        select of many cases: send to a, receive from b, three units of time, result 1. Q: the first that can
//     y  z3  X          yield, sleep, checkpoint
//     l0(...)  T0(...)  with mutex 0 locked; the same if it is free
//     a2 A3  v          acquire two permits, two of them with a limit of three units, release one
//     e0 E03 i0 j0      wait for event 0, the same with a limit, set it, reset it
//     g0 G03 p0         wait for result 0, the same with a limit, give it
//     n2(..|..|..)      a nursery with room for two: its body, then its children, which start no more. n: with room for all
//     N2(..|..)         one that keeps going
//     o(...) f(...) F   a further child of the innermost nursery; the same with a result; take the oldest such result
//     d(...)            a fiber that belongs to nobody
//     m3(...) h(...)    with a limit of three units; shielded
//     k(...)            if it is cancelled inside, look whether it still is
//     x  !              cancel the innermost nursery; fail
//     *3(...)           three times
#ifndef CONCUR_TESTS_FUZZ_OPERATIONS_TEXT_HPP
#define CONCUR_TESTS_FUZZ_OPERATIONS_TEXT_HPP

#include <string_view>
#include <vector>

#include "fuzz/words.hpp"

namespace fuzz {

struct operation {
  char what = ' ';
  unsigned which = 0;   // the channel, event, result
  unsigned number = 0;  // units of time, times
  std::vector<operation> cases;
  std::vector<std::vector<operation>> parts;
};
using operations = std::vector<operation>;

struct operations_program {
  unsigned workers = 1;
  std::uint64_t seed = 1;
  unsigned priorities = 0;
  bool keeps_going = false;
  bool is_cancelled = false;
  bool has_weak_memory = false;
  std::vector<operations> fibers;
};

class operations_parser {
 public:
  explicit operations_parser(std::string_view text) : words_(text) {}

  operations_program parse() {
    operations_program program;
    while (!words_.is_over() && words_.peek() != '\n') {
      switch (words_.take()) {
        case 'w':
          program.workers = 1 + (words_.small_number(1, 5) + 3) % 4;
          break;
        case '#':
          program.seed = static_cast<std::uint64_t>(words_.number(1));
          break;
        case 'p':
          program.priorities = words_.small_number(3, 8);
          break;
        case 'k':
          program.keeps_going = true;
          break;
        case 'x':
          program.is_cancelled = true;
          break;
        case 'm':
          program.has_weak_memory = true;
          break;
        default:
          break;
      }
    }
    while (words_.take_if('\n') && program.fibers.size() < 8) program.fibers.push_back(sequence(0));
    return program;
  }

 private:
  static constexpr unsigned depth_max = 5;

  bool is_at_end() const {
    const char next = words_.peek();
    return words_.is_over() || next == '\n' || next == ')' || next == '|';
  }

  operations sequence(unsigned depth) {
    operations list;
    while (!is_at_end()) {
      operation one;
      one.what = words_.take();
      if (arguments(one, depth) && list.size() < 24) list.push_back(std::move(one));
    }
    // At the top a stray bracket or bar ends nothing.
    while (depth == 0 && (words_.take_if(')') || words_.take_if('|'))) {
    }
    if (depth == 0 && !is_at_end()) {
      operations rest = sequence(0);
      for (operation& one : rest) list.push_back(std::move(one));
    }
    return list;
  }

  // False: the letter means nothing.
  bool arguments(operation& one, unsigned depth) {
    constexpr std::string_view on_channels = "srtucSR";
    constexpr std::string_view numbered = "zaAeijgp";
    constexpr std::string_view simple = "yXvFx!";
    constexpr std::string_view nested = "lTnNofdmhk*";
    const auto is_in = [&](std::string_view set) { return set.find(one.what) != std::string_view::npos; };
    if (is_in(on_channels)) {
      one.which = channel();
      one.number = words_.small_number(1, 20);
    } else if (one.what == 'b') {
      one.which = channel();
      one.number = channel();
    } else if (one.what == 'q' || one.what == 'Q') {
      select_cases(one);
    } else if (one.what == 'E' || one.what == 'G') {
      one.which = one_digit();
      one.number = words_.small_number(1, 20);
    } else if (is_in(numbered)) {
      one.which = one.number = words_.small_number(1, 20);
    } else if (is_in(nested)) {
      one.which = one.number = words_.small_number(0, 20);
      return parts(one, depth + 1);
    } else {
      return is_in(simple);
    }
    return true;
  }

  unsigned channel() {
    const char next = words_.peek();
    if (next < 'a' || next > 'd') return 0;
    return static_cast<unsigned>(words_.take() - 'a');
  }
  unsigned one_digit() {
    const char next = words_.peek();
    if (next < '0' || next > '9') return 0;
    return static_cast<unsigned>(words_.take() - '0');
  }

  void select_cases(operation& one) {
    while (!is_at_end()) {
      operation each;
      each.what = words_.take();
      if (each.what == '.') return;
      if (each.what == 's' || each.what == 'r') {
        each.which = channel();
      } else if (each.what == 'z' || each.what == 'g') {
        each.which = each.number = words_.small_number(1, 20);
      } else {
        continue;
      }
      if (one.cases.size() < 6) one.cases.push_back(each);
    }
  }

  bool parts(operation& one, unsigned depth) {
    if (depth > depth_max || !words_.take_if('(')) return false;
    do one.parts.push_back(sequence(depth));
    while (words_.take_if('|'));
    words_.take_if(')');
    return true;
  }

  words words_;
};

}  // namespace fuzz

#endif
