// explore_queues.cpp - the stand-alone queues under every schedule of a few threads, and on every memory that C++ permits.
//
// Each program is a few threads with two or three operations each, run with all schedules of up to so many interruptions.
// Looked at is, each time:
//
//   - that the payload, which is not atomic, is handed over without a race (the queues announce their cells);
//   - that nothing is lost or doubled, and that each pusher's values come in their order;
//   - that there is an order of all operations in which a plain bounded queue would have answered the same. It keeps the order
//     within each thread; and with strong memory also that of operations of which one ended before the other began.
//
// "Full" and "empty" are no such answers with weak memory, where they may be out of date, and with some queues not while
// somebody is half-way through an operation. Where that is so, and only there, they need no place in the order.
#if !defined(CONCUR_EXPLORE)
#  define CONCUR_EXPLORE
#endif

#include "support/test.hpp"

#include <algorithm>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace {

// The queue with its indices where the test wants them.
template <class Queue>
class starting_at : public Queue {
 public:
  starting_at(std::size_t capacity, std::size_t first_index) : Queue(capacity, first_index) {}
};

struct operation {
  std::size_t thread;
  bool is_push;
  bool went = false;
  int value = 0;
  int began = 0;
  int ended = 0;
};

// Which answers may be wrong, and when.
struct allowances {
  bool empty_beside_push = false;      // "empty", while a push is half-way
  bool full_beside_any = false;        // "full", while a push or a pop is
  bool full_after_overtaking = false;  // "full", once a push was half-way while another one was
};

class history {
 public:
  history(std::size_t capacity, bool by_time, allowances allowed)
      : capacity_(capacity), by_time_(by_time), allowed_(allowed) {}

  std::size_t begin(std::size_t thread, bool is_push, int value = 0) {
    operations_.push_back({thread, is_push, false, value, ++now_, 0});
    return operations_.size() - 1;
  }
  void end(std::size_t which, bool went, int value) {
    operations_[which].went = went;
    operations_[which].value = value;
    operations_[which].ended = ++now_;
  }

  bool is_conserved() const {
    std::vector<int> in;
    std::vector<int> out;
    for (const operation& one : operations_) {
      if (one.went) (one.is_push ? in : out).push_back(one.value);
    }
    std::sort(in.begin(), in.end());
    std::sort(out.begin(), out.end());
    return in == out;
  }

  // One thread's pops see each thread's pushes in their order.
  bool keeps_order() const {
    for (std::size_t a = 0; a < operations_.size(); ++a) {
      for (std::size_t b = a + 1; b < operations_.size(); ++b) {
        const operation& first = operations_[a];
        const operation& second = operations_[b];
        if (first.is_push || second.is_push || !first.went || !second.went || first.thread != second.thread) continue;
        if (first.value / 10 == second.value / 10 && first.value > second.value) return false;
      }
    }
    return true;
  }

  bool has_an_order() const {
    std::vector<bool> is_placed(operations_.size());
    std::deque<int> queue;
    return place_rest(is_placed, queue);
  }

  std::string text() const {
    std::string all;
    for (const operation& one : operations_) {
      all += " thread " + std::to_string(one.thread) + (one.is_push ? " push " : " pop ") + std::to_string(one.value) +
             (one.went ? "" : " not") + " [" + std::to_string(one.began) + "," + std::to_string(one.ended) + "]";
    }
    return all;
  }

 private:
  bool comes_before(const operation& a, const operation& b) const {
    return (by_time_ || a.thread == b.thread || b.thread == 0) && a.ended < b.began;
  }
  bool may_be_wrong(const operation& one) const {
    if (!by_time_) return true;
    for (const operation& a : operations_) {
      if (a.thread == one.thread || !overlap(a, one)) continue;
      if (one.is_push ? allowed_.full_beside_any : allowed_.empty_beside_push && a.is_push) return true;
    }
    for (const operation& a : operations_) {
      for (const operation& b : operations_) {
        const bool are_pushes = a.is_push && b.is_push && a.thread != b.thread && overlap(a, b);
        if (allowed_.full_after_overtaking && one.is_push && are_pushes && a.began < one.ended) return true;
      }
    }
    return false;
  }
  static bool overlap(const operation& a, const operation& b) { return a.began < b.ended && b.began < a.ended; }

  bool place_rest(std::vector<bool>& is_placed, std::deque<int>& queue) const {
    bool are_all_placed = true;
    for (std::size_t i = 0; i < operations_.size(); ++i) {
      if (is_placed[i]) continue;
      are_all_placed = false;
      bool is_next = true;
      for (std::size_t j = 0; j < operations_.size() && is_next; ++j)
        is_next = is_placed[j] || !comes_before(operations_[j], operations_[i]);
      if (!is_next) continue;
      const operation& one = operations_[i];
      is_placed[i] = true;
      if (!one.went) {
        if ((one.is_push ? queue.size() == capacity_ : queue.empty()) || may_be_wrong(one)) {
          if (place_rest(is_placed, queue)) return true;
        }
      } else if (one.is_push && queue.size() < capacity_) {
        queue.push_back(one.value);
        if (place_rest(is_placed, queue)) return true;
        queue.pop_back();
      } else if (!one.is_push && !queue.empty() && queue.front() == one.value) {
        queue.pop_front();
        if (place_rest(is_placed, queue)) return true;
        queue.push_front(one.value);
      }
      is_placed[i] = false;
    }
    return are_all_placed;
  }

  const std::size_t capacity_;
  const bool by_time_;
  const allowances allowed_;
  int now_ = 0;
  std::vector<operation> operations_;
};

struct program {
  std::string name;
  std::size_t capacity;
  std::size_t first_index;
  std::vector<std::string> threads;  // of each: + pushes, - pops
  std::string before = "";           // what happens before they start
  unsigned weak_bound = 2;           // interruptions, with weak memory
};

// Both ways to pop take turns.
template <class Queue>
void perform(Queue& queue, history& book, std::size_t thread, const std::string& steps) {
  int number = 0;
  for (const char step : steps) {
    if (step == '+') {
      const int value = static_cast<int>(thread) * 10 + number++;
      const std::size_t which = book.begin(thread, true, value);
      book.end(which, queue.try_push(value), value);
      continue;
    }
    const std::size_t which = book.begin(thread, false);
    if (which % 2 == 0) {
      const std::optional<int> got = queue.try_pop();
      book.end(which, got.has_value(), got.value_or(0));
    } else {
      int got = 0;
      const bool went = queue.try_pop(got);
      book.end(which, went, got);
    }
  }
}

template <class Queue>
void run_program(const program& what, bool has_weak_memory, allowances allowed) {
  starting_at<Queue> queue(what.capacity, what.first_index);
  history book(what.capacity, !has_weak_memory, allowed);
  perform(queue, book, 0, what.before);
  {
    std::vector<concur::explored_thread> threads;
    for (std::size_t i = 0; i < what.threads.size(); ++i)
      threads.emplace_back([&, i] { perform(queue, book, i + 1, what.threads[i]); });
  }
  perform(queue, book, 0, std::string(what.capacity + 1, '-'));
  concur::explore_expect(queue.size_approx() == 0, "something is left");
  if (!book.is_conserved()) concur::explore_expect(false, ("lost or doubled:" + book.text()).c_str());
  if (!book.keeps_order()) concur::explore_expect(false, ("out of order:" + book.text()).c_str());
  if (!book.has_an_order()) concur::explore_expect(false, ("no order explains:" + book.text()).c_str());
}

template <class Queue>
void explore_all(const std::vector<program>& programs, allowances allowed) {
  for (const program& one : programs) {
    for (const bool has_weak_memory : {false, true}) {
      CAPTURE(one.name);
      CAPTURE(has_weak_memory);
      concur::explore_options wanted;
      wanted.workers = 0;
      wanted.weak_memory = has_weak_memory;
      const unsigned less =
          CONCUR_ASAN != 0 ? 1 : 0;  // a sanitizer looks at memory, not at orders, and takes ten times as long
      wanted.strategy = concur::exhaustive((has_weak_memory ? one.weak_bound : 3) - less);
      wanted.schedules = 3'000'000;
      wanted.shrink = 0;
      const concur::explore_report report =
          concur::try_explore([&] { run_program<Queue>(one, has_weak_memory, allowed); }, wanted);
      CAPTURE(report.what);
      CHECK(report.ok);
      CHECK(report.is_complete);
      const std::string memory = has_weak_memory ? ", weak: " : ", strong: ";
      MESSAGE(one.name << memory << report.schedules << " schedules");
    }
  }
}

constexpr std::size_t at_wrap = SIZE_MAX - 1;

}  // namespace

TEST_CASE("from one thread to one other") {
  const nothing_left_over guard;
  explore_all<concur::spsc_queue<int>>(
      {
          {"room for one", 1, at_wrap, {"+++", "---"}},
          {"room for two, one in it", 2, at_wrap, {"+++", "---"}, "+"},
          {"room for three, full", 3, 0, {"++", "---"}, "+++"},
      },
      {false, false, false});
}

TEST_CASE("from many threads to one") {
  const nothing_left_over guard;
  explore_all<concur::mpsc_queue<int>>(
      {
          {"room for one", 1, at_wrap, {"+", "+", "--"}},
          {"room for two", 2, at_wrap, {"++", "+", "--"}},
          {"room for two, full", 2, at_wrap, {"+", "+", "--"}, "++"},
          {"room for four", 4, 0, {"++", "+", "--"}},
          {"two pushers one after another", 4, 0, {"+", "++", "-"}},
          {"overtaken twice", 5, at_wrap - 1, {"+", "+++", "---"}, "", 1},
      },
      {false, true, true});
}

TEST_CASE("from many threads to many") {
  const nothing_left_over guard;
  explore_all<concur::mpmc_queue<int>>(
      {
          {"room for one", 1, at_wrap, {"+-", "+-"}},
          {"room for one, three threads", 1, at_wrap, {"+", "-", "+-"}},
          {"room for two", 2, at_wrap, {"++", "--", "+"}},
          {"room for two, full", 2, at_wrap, {"-", "-+", "+"}, "++"},
          {"room for three", 3, 0, {"+-", "+-", "-"}},
      },
      {true, true, false});
}
