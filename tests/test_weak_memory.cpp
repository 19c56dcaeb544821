// test_weak_memory.cpp - litmus tests: which outcomes weak_memory shows, and which it does not.
//
// Each shape is run in all orders with all picks, and the whole set of outcomes is compared. The shapes and what the
// C++ model allows of them are those of the literature and of its tools, herd7 and cppmem; where a set is smaller than
// what they allow the case says so, and weak_memory.hpp says why.
#define CONCUR_EXPLORE
#undef CONCUR_SEPARATE_COMPILATION  // bodies of such a build are nowhere else

#include "concur.hpp"

#include "support/litmus.hpp"
#include "support/test.hpp"

using concur::detail::weak_memory;
using concur_test::nothing_left_over;

namespace {

using namespace litmus;

bool has(const program& what, const std::string& outcome) { return runner(what).outcomes().count(outcome) != 0; }
bool has_race(const program& what) { return has(what, "race"); }

const char* const all_of_two = "00 01 10 11";

// --- SB: each thread stores, and loads what the other stored ---

program store_buffering(order of_stores, order of_loads, steps between_0 = {}, steps between_1 = {}) {
  return {steps{store(x, 1, of_stores)} + between_0 + steps{load(0, y, of_loads)},
          steps{store(y, 1, of_stores)} + between_1 + steps{load(1, x, of_loads)}};
}

// --- MP: data, then a flag ---

program message_passing(order of_store, order of_load, steps before_flag = {}, steps after_flag = {}) {
  return {steps{store(x, 1, rlx)} + before_flag + steps{store(y, 1, of_store)},
          steps{load(0, y, of_load)} + after_flag + steps{load(1, x, rlx)}};
}

// The same with data that is not atomic, read only when the flag was seen.
program guarded(order of_store, order of_load, steps before_flag = {}, steps after_flag = {}) {
  return {steps{write(x)} + before_flag + steps{store(y, 1, of_store)},
          steps{load(0, y, of_load), only_if(0, 1)} + after_flag + steps{read(x)}};
}

program independent_reads(order of_stores, order of_loads, steps between = {}) {
  return {{store(x, 1, of_stores)},
          {store(y, 1, of_stores)},
          steps{load(0, x, of_loads)} + between + steps{load(1, y, of_loads)},
          steps{load(2, y, of_loads)} + between + steps{load(3, x, of_loads)}};
}

}  // namespace

TEST_CASE("SB: both may miss both, unless all are seq_cst") {
  const nothing_left_over guard;
  CHECK(outcomes(store_buffering(rlx, rlx)) == all_of_two);
  CHECK(outcomes(store_buffering(rel, acq)) == all_of_two);
  CHECK(outcomes(store_buffering(sc, acq)) == all_of_two);
  CHECK(outcomes(store_buffering(rel, sc)) == all_of_two);
  CHECK(outcomes(store_buffering(sc, sc)) == "01 10 11");
}

TEST_CASE("SB with fences: two seq_cst ones forbid it; one, or weaker ones, do not") {
  const nothing_left_over guard;
  CHECK(outcomes(store_buffering(rlx, rlx, {fence(sc)}, {fence(sc)})) == "01 10 11");
  CHECK(outcomes(store_buffering(rlx, rlx, {fence(sc)}, {})) == all_of_two);
  CHECK(outcomes(store_buffering(rlx, rlx, {}, {fence(sc)})) == all_of_two);
  CHECK(outcomes(store_buffering(rlx, rlx, {fence(acq_rel)}, {fence(acq_rel)})) == all_of_two);
  CHECK(outcomes(store_buffering(rlx, rlx, {fence(sc)}, {fence(acq_rel)})) == all_of_two);
}

TEST_CASE("SB with a fence on one side and seq_cst operations on the other") {
  const nothing_left_over guard;
  const steps fenced = {store(x, 1, rlx), fence(sc), load(0, y, rlx)};
  CHECK(outcomes({fenced, {store(y, 1, sc), load(1, x, sc)}}) == "01 10 11");
  CHECK(outcomes({fenced, {store(y, 1, rlx), load(1, x, sc)}}) == all_of_two);
  CHECK(outcomes({fenced, {store(y, 1, sc), load(1, x, rlx)}}) == all_of_two);
}

TEST_CASE("MP: only release with acquire shows the data behind the flag") {
  const nothing_left_over guard;
  CHECK(outcomes(message_passing(rlx, rlx)) == all_of_two);
  CHECK(outcomes(message_passing(rel, rlx)) == all_of_two);
  CHECK(outcomes(message_passing(rlx, acq)) == all_of_two);
  CHECK(outcomes(message_passing(rel, acq)) == "00 01 11");
  CHECK(outcomes(message_passing(sc, sc)) == "00 01 11");
}

TEST_CASE("MP with fences: a release fence before the flag, an acquire fence after it") {
  const nothing_left_over guard;
  CHECK(outcomes(message_passing(rlx, rlx, {fence(rel)}, {fence(acq)})) == "00 01 11");
  CHECK(outcomes(message_passing(rel, rlx, {}, {fence(acq)})) == "00 01 11");
  CHECK(outcomes(message_passing(rlx, acq, {fence(rel)}, {})) == "00 01 11");
  CHECK(outcomes(message_passing(rlx, rlx, {fence(sc)}, {fence(sc)})) == "00 01 11");
  CHECK(outcomes(message_passing(rlx, rlx, {fence(acq_rel)}, {fence(acq_rel)})) == "00 01 11");
  CHECK(outcomes(message_passing(rlx, rlx, {fence(rel)}, {})) == all_of_two);
  CHECK(outcomes(message_passing(rlx, rlx, {}, {fence(acq)})) == all_of_two);
  CHECK(outcomes(message_passing(rlx, rlx, {fence(acq)}, {fence(acq)})) == all_of_two);
  CHECK(outcomes(message_passing(rlx, rlx, {fence(rel)}, {fence(rel)})) == all_of_two);
}

TEST_CASE("a release fence speaks of what came before it, not of what comes between it and the flag") {
  const nothing_left_over guard;
  CHECK(outcomes({{fence(rel), store(x, 1, rlx), store(y, 1, rlx)}, {load(0, y, acq), load(1, x, rlx)}}) == all_of_two);
  CHECK(outcomes({{store(x, 1, rlx), store(y, 1, rel)}, {fence(acq), load(0, y, rlx), load(1, x, rlx)}}) == all_of_two);
}

// RC11 forbids LB with all orders; C++20 allows it with relaxed ones.
TEST_CASE("LB: no load sees a store from the future") {
  const nothing_left_over guard;
  CHECK(outcomes({{load(0, x, rlx), store(y, 1, rlx)}, {load(1, y, rlx), store(x, 1, rlx)}}) == "00 01 10");
}

TEST_CASE("IRIW: two readers may disagree about the order of two stores, unless S says it") {
  const nothing_left_over guard;
  CHECK(has(independent_reads(rlx, rlx), "1010"));
  CHECK(has(independent_reads(rel, acq), "1010"));
  CHECK(has(independent_reads(sc, acq), "1010"));
  CHECK_FALSE(has(independent_reads(sc, sc), "1010"));
  // A seq_cst read of a store puts it before each later one in S, whatever the store is.
  CHECK_FALSE(has(independent_reads(rlx, sc), "1010"));
  CHECK_FALSE(has(independent_reads(rlx, rlx, {fence(sc)}), "1010"));
  CHECK(has(independent_reads(rlx, rlx, {fence(acq_rel)}), "1010"));
  CHECK(runner(independent_reads(rlx, rlx)).outcomes().size() == 16);
  CHECK(runner(independent_reads(sc, sc)).outcomes().size() == 15);
}

// The model allows both ends 1 with relaxed and release stores; they need a store that is overtaken.
TEST_CASE("2+2W: the modification order is the order of execution") {
  const nothing_left_over guard;
  const program shape = {{store(x, 1, rlx), store(y, 2, rlx)}, {store(y, 1, rlx), store(x, 2, rlx)}};
  CHECK(outcomes(shape, true) == ":1200 :2100 :2200");
}

TEST_CASE("WRC: what a thread has read is passed on by release and acquire, and by nothing less") {
  const nothing_left_over guard;
  const auto shape = [](order of_store, order of_load) {
    return program{
        {store(x, 1, rlx)}, {load(0, x, rlx), store(y, 1, of_store)}, {load(1, y, of_load), load(2, x, rlx)}};
  };
  CHECK_FALSE(has(shape(rel, acq), "110"));
  CHECK(runner(shape(rel, acq)).outcomes().size() == 7);
  CHECK(has(shape(rlx, acq), "110"));
  CHECK(has(shape(rel, rlx), "110"));
}

TEST_CASE("ISA2: happens-before goes through a third thread") {
  const nothing_left_over guard;
  const auto shape = [](order first, order second) {
    return program{{store(x, 1, rlx), store(y, 1, first)},
                   {load(0, y, acq), store(z, 1, second)},
                   {load(1, z, acq), load(2, x, rlx)}};
  };
  CHECK_FALSE(has(shape(rel, rel), "110"));
  CHECK(has(shape(rlx, rel), "110"));
  CHECK(has(shape(rel, rlx), "110"));
}

TEST_CASE("R: a store may be followed, in the end, by one of a thread that did not see what came before it") {
  const nothing_left_over guard;
  const auto shape = [](order with, steps between) {
    return program{steps{store(x, 1, with)} + between + steps{store(y, 1, with)},
                   steps{store(y, 2, with)} + between + steps{load(0, x, with == rel ? acq : with)}};
  };
  const auto weak = [&](order with, steps between) {
    return runner(shape(with, between), true).outcomes().count("0:1200") != 0;
  };
  CHECK(weak(rlx, {}));
  CHECK(weak(rel, {}));
  CHECK_FALSE(weak(sc, {}));
  CHECK_FALSE(weak(rlx, {fence(sc)}));
}

// The model allows 1 with 2 as the end of x where the flag is relaxed.
TEST_CASE("S: a store that follows a read is not overtaken") {
  const nothing_left_over guard;
  const program shape = {{store(x, 2, rlx), store(y, 1, rel)}, {load(0, y, acq), store(x, 1, rlx)}};
  CHECK(outcomes(shape, true) == "0:1100 0:2100 1:1100");
}

TEST_CASE("coherence: a thread's reads of a word never go back, nor behind its own stores") {
  const nothing_left_over guard;
  CHECK(outcomes({{store(x, 1, rlx)}, {load(0, x, rlx), load(1, x, rlx)}}) == "00 01 11");
  CHECK(outcomes({{store(x, 1, rlx), store(x, 2, rlx)}, {load(0, x, rlx), load(1, x, rlx)}}) == "00 01 02 11 12 22");
  // CoWR
  CHECK(outcomes({{store(x, 1, rlx), load(0, x, rlx)}, {store(x, 2, rlx)}}, true) == "1:1000 1:2000 2:2000");
  // CoRW
  CHECK(outcomes({{load(0, x, rlx), store(x, 1, rlx)}, {store(x, 2, rlx)}}, true) == "0:1000 0:2000 2:1000");
  // CoRR of two readers
  CHECK_FALSE(has(
      {{store(x, 1, rlx)}, {store(x, 2, rlx)}, {load(0, x, rlx), load(1, x, rlx)}, {load(2, x, rlx), load(3, x, rlx)}},
      "1221"));
}

TEST_CASE("coherence goes along happens-before: a read in the past of a read is not undone") {
  const nothing_left_over guard;
  const auto shape = [](order of_store, order of_load) {
    return program{
        {store(x, 1, rlx)}, {load(0, x, rlx), store(y, 1, of_store)}, {load(1, y, of_load), load(2, x, rlx)}};
  };
  CHECK(runner(shape(rel, acq)).outcomes().count("110") == 0);
  CHECK(runner(shape(rel, rlx)).outcomes().count("110") == 1);
  // What counts is the first time that a thread saw a store.
  CHECK_FALSE(has(
      {{store(x, 1, rlx)}, {load(0, x, rlx), store(y, 1, rel), load(1, x, rlx)}, {load(2, y, acq), load(3, x, rlx)}},
      "1110"));
}

TEST_CASE("a release sequence goes on through read-modify-writes of any order") {
  const nothing_left_over guard;
  const auto shape = [](step middle) {
    return program{{store(x, 1, rlx), store(y, 1, rel)}, {middle}, {load(1, y, acq), load(2, x, rlx)}};
  };
  CHECK_FALSE(has(shape(add(0, y, 1, rlx)), "120"));
  CHECK(has(shape(add(0, y, 1, rlx)), "121"));
  CHECK_FALSE(has(shape(exchange(0, y, 2, rlx)), "120"));
  CHECK_FALSE(has(shape(compare(0, y, 1, 2, rlx, rlx)), "120"));
  CHECK_FALSE(has(shape(add(0, y, 1, rel)), "120"));
  CHECK(has(shape(store(y, 2, rlx)), "-20"));
  // Two in a row, and one that leaves the value.
  CHECK_FALSE(has({{store(x, 1, rlx), store(y, 1, rel)},
                   {add(0, y, 0, rlx), add(1, y, 1, rlx)},
                   {load(2, y, acq), load(3, x, rlx)}},
                  "1120"));
  // The acquirer of a releasing one has the pasts of both threads.
  CHECK_FALSE(has_race({{write(x), store(y, 1, rel)},
                        {write(z), add(0, y, 1, rel)},
                        {load(1, y, acq), only_if(1, 2), only_if(0, 1), read(x), read(z)}}));
}

TEST_CASE("a plain store of the same thread ends a release sequence too, as C++20 has it") {
  const nothing_left_over guard;
  const program shape = {{store(x, 1, rlx), store(y, 1, rel), store(y, 2, rlx)}, {load(0, y, acq), load(1, x, rlx)}};
  CHECK(outcomes(shape) == "00 01 11 20 21");
}

TEST_CASE("a failed compare-exchange stores nothing, and has its order for failure") {
  const nothing_left_over guard;
  const auto shape = [](order failure) {
    return program{{store(x, 1, rlx), store(y, 1, rel)}, {compare(0, y, 2, 3, acq_rel, failure), load(1, x, rlx)}};
  };
  CHECK(outcomes(shape(acq)) == "00 01 11");
  CHECK(outcomes(shape(rlx)) == "00 01 10 11");
  weak_memory memory;
  int word = 0;
  memory.start_thread(0, 1);
  memory.store(0, &word, 0, 1, rlx);
  memory.load_newest(0, &word, 1, sc);
  unsigned choices = 0;
  CHECK(memory.load(1, &word, 1, rlx, [&](unsigned count) {
    choices = count;
    return count - 1;
  }) == 0);
  CHECK(choices == 2);
}

TEST_CASE("RWC: a read in the past of a fence is shown by it") {
  const nothing_left_over guard;
  const auto shape = [](steps first, steps second) {
    return program{{store(x, 1, rlx)},
                   steps{load(0, x, rlx)} + first + steps{load(1, y, rlx)},
                   steps{store(y, 1, rlx)} + second + steps{load(2, x, rlx)}};
  };
  CHECK_FALSE(has(shape({fence(sc)}, {fence(sc)}), "100"));
  CHECK(runner(shape({fence(sc)}, {fence(sc)})).outcomes().size() == 7);
  CHECK(has(shape({fence(acq_rel)}, {fence(sc)}), "100"));
  CHECK(has(shape({fence(sc)}, {fence(acq_rel)}), "100"));
}

TEST_CASE("a seq_cst fence speaks for what it happens before, in other threads too") {
  const nothing_left_over guard;
  const auto shape = [](order of_store, order of_load) {
    return program{{store(x, 1, rlx), fence(sc), load(0, y, rlx)},
                   {store(y, 1, rlx), fence(sc), store(z, 1, of_store)},
                   {load(1, z, of_load), load(2, x, rlx)}};
  };
  CHECK_FALSE(has(shape(rel, acq), "010"));
  CHECK(has(shape(rel, rlx), "010"));
  // Any store after the fence carries it: a seq_cst fence is a release fence as well.
  CHECK_FALSE(has(shape(rlx, acq), "010"));
}

TEST_CASE("a seq_cst fence knows nothing of later ones") {
  const nothing_left_over guard;
  CHECK(has({{fence(sc), load(0, y, rlx), load(1, x, rlx)}, {store(x, 1, rlx), fence(sc), store(y, 1, rlx)}}, "10"));
  CHECK(has({{fence(sc), load(0, y, rlx), load(1, x, rlx)}, {store(x, 1, sc), store(y, 1, rlx)}}, "10"));
}

TEST_CASE("seq_cst fences order, but do not synchronise") {
  const nothing_left_over guard;
  CHECK(has_race({{write(x), fence(sc)}, {fence(sc), read(x)}}));
  CHECK(has_race({{write(x), fence(sc), load(0, y, rlx)}, {store(y, 1, rlx), fence(sc), write(x)}}));
  CHECK_FALSE(
      has_race({{write(x), fence(sc), store(y, 1, rlx)}, {load(0, y, rlx), only_if(0, 1), fence(sc), read(x)}}));
}

TEST_CASE("Dekker: both enter with release and acquire, one with seq_cst or fences") {
  const nothing_left_over guard;
  const auto shape = [](order of_store, order of_load, steps between) {
    return program{steps{store(x, 1, of_store)} + between + steps{load(0, y, of_load), only_if(0, 0), write(z)},
                   steps{store(y, 1, of_store)} + between + steps{load(1, x, of_load), only_if(1, 0), write(z)}};
  };
  CHECK_FALSE(has_race(shape(sc, sc, {})));
  CHECK_FALSE(has_race(shape(rlx, rlx, {fence(sc)})));
  CHECK(has_race(shape(rel, acq, {})));
  CHECK(has_race(shape(sc, acq, {})));
}

TEST_CASE("Peterson: needs seq_cst, or an exchange for the turn") {
  const nothing_left_over guard;
  // One attempt: says that it wants to, gives the turn to the other, and enters if the other does not want to, or (it is a
  // program of its own here) if the other gave the turn back.
  const auto side = [](int me, bool by_turn, order of_store, order of_load, bool has_exchange) {
    const int other = 1 - me;
    const steps in_by_flag = {load(me, other, of_load), only_if(me, 0), write(w)};
    const steps in_by_turn = {load(me, z, of_load), only_if(me, 2 - other), write(w)};
    return steps{store(me, 1, of_store), has_exchange ? exchange(-1, z, 2 - me, acq_rel) : store(z, 2 - me, of_store)} +
           (by_turn ? in_by_turn : in_by_flag);
  };
  const auto can_meet = [&](order of_store, order of_load, bool has_exchange) {
    bool result = false;
    for (const bool first_by_turn : {false, true}) {
      for (const bool second_by_turn : {false, true}) {
        result = result || has_race({side(0, first_by_turn, of_store, of_load, has_exchange),
                                     side(1, second_by_turn, of_store, of_load, has_exchange)});
      }
    }
    return result;
  };
  CHECK_FALSE(can_meet(sc, sc, false));
  CHECK_FALSE(can_meet(rel, acq, true));
  CHECK(can_meet(rel, acq, false));
  CHECK(can_meet(rlx, rlx, false));
}

// H.-J. Boehm, "Can seqlocks get along with programming language memory models?", MSPC 2012.
TEST_CASE("seqlock: the reader needs the fence before its second look, the writer the one after the first") {
  const nothing_left_over guard;
  const auto shape = [](steps of_writer, steps of_reader, order last) {
    return program{steps{store(z, 1, rlx)} + of_writer + steps{store(x, 1, rlx), store(y, 1, rlx), store(z, 2, last)},
                   steps{load(0, z, acq), load(1, x, rlx), load(2, y, rlx)} + of_reader + steps{load(3, z, rlx)}};
  };
  const auto is_torn = [&](const program& what) {
    for (const std::string& one : runner(what).outcomes()) {
      const bool is_accepted = one[0] == one[3] && one[0] != '1';
      const char value = one[0] == '0' ? '0' : '1';
      if (is_accepted && (one[1] != value || one[2] != value)) return true;
    }
    return false;
  };
  CHECK_FALSE(is_torn(shape({fence(rel)}, {fence(acq)}, rel)));
  CHECK(has(shape({fence(rel)}, {fence(acq)}, rel), "2112"));
  CHECK(is_torn(shape({}, {fence(acq)}, rel)));
  CHECK(is_torn(shape({fence(rel)}, {}, rel)));
  // The fence does not speak of the data, which comes after it.
  CHECK(is_torn(shape({fence(rel)}, {fence(acq)}, rlx)));
}

TEST_CASE("a fence of all threads stands for the fence that the light side leaves out") {
  const nothing_left_over guard;
  CHECK(outcomes(store_buffering(rlx, rlx, {fence_all()}, {})) == "01 10 11");
  CHECK(outcomes(store_buffering(rlx, rlx, {fence(sc)}, {})) == all_of_two);
  // Two light sides, one heavy.
  const program three = {{store(x, 1, rlx), load(0, z, rlx)},
                         {store(y, 1, rlx), load(1, z, rlx)},
                         {store(z, 1, rlx), fence_all(), load(2, x, rlx), load(3, y, rlx)}};
  for (const std::string& one : runner(three).outcomes()) {
    CHECK_MESSAGE(!(one[0] == '0' && one[2] == '0'), one);
    CHECK_MESSAGE(!(one[1] == '0' && one[3] == '0'), one);
  }
  CHECK(has(three, "0011"));
}

// runtime/idle.hpp, R1 and R2: the submitter's queue is x, the count of sleepers y.
TEST_CASE("the sleep protocol: either the submitter sees the sleeper or the sleeper sees the work") {
  const nothing_left_over guard;
  const auto shape = [](steps of_submitter, steps of_sleeper) {
    return program{steps{store(x, 1, rel)} + of_submitter + steps{load(0, y, rlx)},
                   steps{add(-1, y, 1, rlx)} + of_sleeper + steps{load(1, x, acq)}};
  };
  CHECK(outcomes(shape({fence(sc)}, {fence(sc)})) == "01 10 11");
  CHECK(has(shape({}, {fence(sc)}), "00"));
  CHECK(has(shape({fence(sc)}, {}), "00"));
  CHECK(outcomes(shape({}, {fence_all()})) == "01 10 11");
}

TEST_CASE("plain memory: a race is found where no order is, and only there") {
  const nothing_left_over guard;
  CHECK_FALSE(has_race(guarded(rel, acq)));
  CHECK(has_race(guarded(rlx, acq)));
  CHECK(has_race(guarded(rel, rlx)));
  CHECK_FALSE(has_race(guarded(rlx, rlx, {fence(rel)}, {fence(acq)})));
  CHECK(has_race(guarded(rlx, rlx, {fence(rel)}, {})));
  CHECK_FALSE(has_race({{read(x)}, {read(x)}}));
  CHECK(has_race({{read(x)}, {write(x)}}));
  CHECK(has_race({{write(x)}, {write(x)}}));
  CHECK_FALSE(has_race({{write(x)}, {write(y)}}));
  // What is read by one must be through before another writes, though a third has read since.
  CHECK(has_race({{read(x), store(y, 1, rlx)}, {read(x), load(0, y, acq), only_if(0, 1), write(x)}}));
  CHECK_FALSE(has_race({{read(x), store(y, 1, rel)}, {read(x), load(0, y, acq), only_if(0, 1), write(x)}}));
  // A release does not speak of what comes after it.
  CHECK(has_race({{store(y, 1, rel), write(x)}, {load(0, y, acq), only_if(0, 1), read(x)}}));
}

TEST_CASE("a spin lock of an exchange and a release store keeps the plain memory behind it") {
  const nothing_left_over guard;
  const auto shape = [](order of_lock, order of_unlock) {
    const auto side = [&](int reg) {
      return steps{exchange(reg, y, 1, of_lock), only_if(reg, 0), read(x), write(x), store(y, 0, of_unlock)};
    };
    return program{side(0), side(1)};
  };
  CHECK_FALSE(has_race(shape(acq, rel)));
  CHECK(has_race(shape(acq, rlx)));
  CHECK(has_race(shape(rlx, rel)));
}

TEST_CASE("threads: what came before the start is seen by the child, what it did by who joins it") {
  const nothing_left_over guard;
  weak_memory memory;
  int word = 0;
  char place = 0;
  const auto oldest = [](unsigned count) { return count - 1; };
  memory.store(0, &word, 0, 1, rlx);
  CHECK(memory.plain_write(0, &place));
  memory.start_thread(0, 1);
  CHECK(memory.load(1, &word, 1, rlx, oldest) == 1);
  CHECK(memory.plain_write(1, &place));
  memory.store(1, &word, 1, 2, rlx);
  CHECK(memory.load(0, &word, 2, rlx, oldest) == 1);
  memory.join_thread(0, 1);
  CHECK(memory.load(0, &word, 2, rlx, oldest) == 2);
  CHECK(memory.plain_read(0, &place));
  // What the parent does after the start is not in the child's past.
  memory.start_thread(0, 2);
  memory.store(0, &word, 2, 3, rlx);
  CHECK(memory.load(2, &word, 3, rlx, oldest) == 2);
  CHECK(memory.plain_write(0, &place));
  CHECK_FALSE(memory.plain_read(2, &place));
}

TEST_CASE("threads: one that gets a number again has passed no fence yet") {
  const nothing_left_over guard;
  weak_memory memory;
  int word = 0;
  char place = 0;
  memory.start_thread(0, 1);
  memory.start_thread(0, 2);
  CHECK(memory.plain_write(1, &place));
  memory.fence(1, rel);
  memory.start_thread(0, 1);
  memory.store(1, &word, 0, 1, rlx);
  CHECK(memory.load(2, &word, 1, acq, [](unsigned) { return 0U; }) == 1);
  CHECK_FALSE(memory.plain_read(2, &place));
}

TEST_CASE("a loop that waits for a store ends, however unlucky it is") {
  const nothing_left_over guard;
  weak_memory memory;
  int word = 0;
  memory.start_thread(0, 1);
  for (std::uint64_t value = 1; value < 4; ++value) {
    memory.store(0, &word, value - 1, value, rlx);
    unsigned reads = 0;
    std::uint64_t seen = 0;
    do {
      seen = memory.load(1, &word, value, rlx, [](unsigned count) { return count - 1; });
      ++reads;
      CHECK((seen == value || seen == value - 1));
    } while (seen != value && reads < 100);
    CHECK(reads == weak_memory::stale_reads_max + 1);
    CHECK(memory.load(1, &word, value, rlx, [](unsigned count) { return count - 1; }) == value);
  }
}

TEST_CASE("no more than the newest stores of a word are kept, and all of those may be seen") {
  const nothing_left_over guard;
  weak_memory memory;
  int word = 0;
  memory.start_thread(0, 1);
  const std::uint64_t last = 100;
  for (std::uint64_t i = 1; i <= last; ++i) memory.store(0, &word, i - 1, i, rlx);
  unsigned choices = 0;
  const std::uint64_t oldest = memory.load(1, &word, last, rlx, [&](unsigned count) {
    choices = count;
    return count - 1;
  });
  CHECK(choices == weak_memory::history_max);
  CHECK(oldest == last - weak_memory::history_max + 1);
  CHECK(memory.load(1, &word, last, rlx, [](unsigned) { return 3U; }) == last - 3);
  CHECK(memory.load(0, &word, last, rlx, [](unsigned count) { return count - 1; }) == last);
}

TEST_CASE("a new object at an old address knows nothing of the old one") {
  const nothing_left_over guard;
  weak_memory memory;
  int word = 0;
  const auto oldest = [](unsigned count) { return count - 1; };
  memory.start_thread(0, 1);
  memory.store(0, &word, 5, 6, rlx);
  CHECK(memory.load(1, &word, 6, rlx, oldest) == 5);
  CHECK(memory.plain_write(0, &word));
  memory.birth(0, &word);
  CHECK(memory.load(1, &word, 6, rlx, oldest) == 6);
  CHECK(memory.load(1, &word, 7, rlx, oldest) == 7);
  CHECK(memory.plain_read(1, &word));
  // A value that did not come through here begins anew as well.
  memory.store(0, &word, 7, 8, rlx);
  CHECK(memory.load(1, &word, 9, rlx, oldest) == 9);
}

TEST_CASE("forgetting leaves nothing, and what is forgotten comes back the same") {
  const nothing_left_over guard;
  weak_memory memory(3);
  std::vector<int> words(3000);
  for (int run = 0; run < 3; ++run) {
    memory.start_thread(3, 1);
    for (int& word : words) {
      CHECK(memory.load(1, &word, 0, rlx, [](unsigned) { return 1U; }) == 0);
      memory.store(3, &word, 0, 1, rel);
      CHECK(memory.plain_write(run == 1 ? 1 : 3, &word));
    }
    CHECK(memory.size() == 2 * words.size());
    for (int& word : words) CHECK(memory.load(1, &word, 1, rlx, [](unsigned count) { return count - 1; }) == 0);
    memory.reset(3);
    CHECK(memory.size() == 0);
  }
}
