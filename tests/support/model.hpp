// tests/support/model.hpp - every interleaving of a protocol of a few steps, on a memory that keeps stores back.
//
// A stress test finds a lost wake-up when the machine happens to reorder the two accesses it hangs on; the fault may
// need a week, or another processor. A model is the protocol itself, written down as a few steps per thread, and tried
// in every order. If no order ends badly, none does; and a variant of the model with one fence, one order or one look
// taken out must end badly, or the model says nothing about it.
//
//   O1  A thread is a list of steps. A step either touches only registers, or makes one access to memory.
//   O2  A store goes to the thread's own buffer; some later step of nobody's, the flush, brings it to memory. A thread
//       reads its own buffered stores. So store buffering exists, which is what most protocols here are about.
//   O3  Stores to different words may reach memory in any order, except that a release store waits for all before it.
//       So publishing before writing shows up as well. Loads are not reordered among themselves: what hangs on that is
//       not seen.
//   O4  A fence, and each read-modify-write, needs the thread's own buffer empty.
//   O5  A heavy fence makes each other thread pass a fence at some moment between its begin and its end, as membarrier
//       does.
//   O6  A waiting step is not enabled until its condition holds in memory. A state in which no step is enabled is an
//       end; it is judged, and a thread that waits there waits for ever.
//
// States are remembered, so loops that change nothing end. The search is depth first; the first bad path is kept as
// text.
#ifndef CONCUR_TESTS_SUPPORT_MODEL_HPP
#define CONCUR_TESTS_SUPPORT_MODEL_HPP

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

namespace model {

using value = std::int8_t;
constexpr int word_count = 16;
constexpr int thread_count = 4;
constexpr int register_count = 4;
constexpr int buffer_size = 4;

struct buffered_store {
  value where = 0;
  value what = 0;
  value is_release = 0;
};

struct thread_state {
  value at = 0;  // the next step
  value buffered = 0;
  value registers[register_count] = {};
  buffered_store buffer[buffer_size];
};

// All there is. Bytes only, so that states can be compared as bytes.
struct world {
  value memory[word_count] = {};
  value owed_fences = 0;  // one bit for each thread that is to pass a fence (O5)
  value fault = 0;        // set by a step that saw something impossible
  thread_state threads[thread_count];

  value& reg(int thread, int which) { return threads[thread].registers[which]; }
  bool is_drained(int thread) const { return threads[thread].buffered == 0; }
  // What the thread itself would read.
  value read(int thread, int where) const {
    const thread_state& t = threads[thread];
    for (int i = t.buffered; i-- > 0;) {
      if (t.buffer[i].where == where) return t.buffer[i].what;
    }
    return memory[where];
  }
  bool may_flush(int thread, int i) const {
    const thread_state& t = threads[thread];
    if (t.buffer[i].is_release != 0 && i != 0) return false;
    for (int k = 0; k < i; ++k) {
      if (t.buffer[k].where == t.buffer[i].where) return false;
    }
    return true;
  }
  void flush(int thread, int i) {
    thread_state& t = threads[thread];
    memory[t.buffer[i].where] = t.buffer[i].what;
    for (int k = i; k + 1 < t.buffered; ++k) t.buffer[k] = t.buffer[k + 1];
    t.buffer[--t.buffered] = buffered_store();
  }
};

static_assert(sizeof(world) == word_count + 2 + thread_count * (2 + register_count + 3 * buffer_size), "no padding");

using condition = std::function<bool(world&, int me)>;
using action = std::function<void(world&, int me)>;
using number = std::function<value(world&, int me)>;

struct step {
  std::string name;
  condition is_enabled;
  action run;
};

class program {
 public:
  program& label(const std::string& name) {
    labels_[name] = static_cast<value>(steps_.size());
    return *this;
  }
  value at(const std::string& name) const {
    const auto found = labels_.find(name);
    if (found == labels_.end()) std::abort();
    return found->second;
  }
  // Between two labels: the thread's next step lies there.
  bool is_between(const world& w, int me, const std::string& from, const std::string& to) const {
    return w.threads[me].at >= at(from) && w.threads[me].at < at(to);
  }

  program& store(int where, number what, bool is_release = false) {
    return add(
        "store " + std::to_string(where), [](world& w, int me) { return w.threads[me].buffered < buffer_size; },
        [where, what, is_release](world& w, int me) {
          thread_state& t = w.threads[me];
          t.buffer[static_cast<int>(t.buffered)] = {static_cast<value>(where), what(w, me),
                                                    static_cast<value>(is_release)};
          ++t.buffered;
        });
  }
  program& store(int where, int what, bool is_release = false) {
    return store(
        where, [what](world&, int) { return static_cast<value>(what); }, is_release);
  }
  program& release(int where, int what) { return store(where, what, true); }
  program& load(int into, int where) {
    return add("load " + std::to_string(where), always(),
               [into, where](world& w, int me) { w.reg(me, into) = w.read(me, where); });
  }
  program& fence(bool is_there = true) {
    if (!is_there) return *this;
    return add(
        "fence", [](world& w, int me) { return w.is_drained(me); }, [](world&, int) {});
  }
  program& heavy_fence(bool is_there = true) {
    if (!is_there) return *this;
    add(
        "heavy fence begins", [](world& w, int me) { return w.is_drained(me) && w.owed_fences == 0; },
        [](world& w, int me) { w.owed_fences = static_cast<value>(((1 << thread_count) - 1) & ~(1 << me)); });
    return add(
        "heavy fence ends", [](world& w, int) { return w.owed_fences == 0; }, [](world&, int) {});
  }
  // One read-modify-write, or a few things that hardware does at once.
  program& atomically(const std::string& name, action run) {
    return add(
        name, [](world& w, int me) { return w.is_drained(me); }, std::move(run));
  }
  program& lock(int where) {
    return add(
        "lock " + std::to_string(where), [where](world& w, int me) { return w.is_drained(me) && w.memory[where] == 0; },
        [where](world& w, int) { w.memory[where] = 1; });
  }
  program& unlock(int where) { return release(where, 0); }
  // Parks until the condition holds, and does `run` in the same moment.
  program& wait(
      const std::string& name, condition until, action run = [](world&, int) {}) {
    return add(
        "wait " + name, [until](world& w, int me) { return w.is_drained(me) && until(w, me); }, std::move(run));
  }
  program& jump_if(condition when, const std::string& to) {
    return add("if: " + to, always(), [this, when, to](world& w, int me) {
      if (when(w, me)) w.threads[me].at = at(to);
    });
  }
  program& jump(const std::string& to) {
    return add("to " + to, always(), [this, to](world& w, int me) { w.threads[me].at = at(to); });
  }
  // Touches only registers and marks of the model (O1).
  program& note(const std::string& name, action run) { return add(name, always(), std::move(run)); }

  const std::vector<step>& steps() const { return steps_; }

 private:
  static condition always() {
    return [](world&, int) { return true; };
  }
  program& add(std::string name, condition is_enabled, action run) {
    steps_.push_back({std::move(name), std::move(is_enabled), std::move(run)});
    return *this;
  }

  std::vector<step> steps_;
  std::map<std::string, value> labels_;
};

struct answer {
  std::size_t states = 0;
  std::size_t ends = 0;
  bool is_sound = true;
  std::string bad_path;  // empty when sound
};

class checker {
 public:
  // A condition that must hold in every state, and one that must hold at each end.
  std::function<bool(const world&)> always = [](const world&) { return true; };
  std::function<bool(const world&)> at_end = [](const world&) { return true; };

  // The programs must outlive the checker.
  explicit checker(std::vector<const program*> programs) : programs_(std::move(programs)) {
    if (programs_.size() > thread_count) std::abort();
  }

  bool is_finished(const world& w, int thread) const {
    return static_cast<std::size_t>(w.threads[thread].at) >=
           programs_[static_cast<std::size_t>(thread)]->steps().size();
  }
  bool are_all_finished(const world& w) const {
    for (int t = 0; t < static_cast<int>(programs_.size()); ++t) {
      if (!is_finished(w, t)) return false;
    }
    return true;
  }

  answer explore(const world& begin) {
    result_ = answer();
    seen_.clear();
    path_.clear();
    visit(begin);
    result_.states = seen_.size();
    return result_;
  }

 private:
  // By 64 bits of hash (FNV-1a, then mixed). With a million states the chance that two of them share one is 1 in 30
  // million.
  bool remember(const world& w) {
    unsigned char bytes[sizeof(world)];
    std::memcpy(bytes, &w, sizeof(world));
    std::uint64_t hash = 0xCBF29CE484222325U;
    for (const unsigned char one : bytes) hash = (hash ^ one) * 0x100000001B3U;
    hash ^= hash >> 32;
    hash *= 0xD6E8FEB86659FD93U;
    hash ^= hash >> 32;
    return seen_.insert(hash).second;
  }

  void report(const char* what) {
    result_.is_sound = false;
    result_.bad_path = what;
    for (const std::string& one : path_) result_.bad_path += "\n  " + one;
  }

  void follow(const world& next, std::string name) {
    path_.push_back(std::move(name));
    visit(next);
    path_.pop_back();
  }

  void visit(const world& w) {
    if (!result_.is_sound || !remember(w)) return;
    if (w.fault != 0 || !always(w)) {
      report("in this state, after");
      return;
    }
    bool is_end = true;
    for (int t = 0; t < static_cast<int>(programs_.size()) && result_.is_sound; ++t) {
      const std::string who = "thread " + std::to_string(t) + ": ";
      for (int i = 0; i < w.threads[t].buffered; ++i) {
        if (!w.may_flush(t, i)) continue;
        is_end = false;
        world next = w;
        next.flush(t, i);
        follow(next, who + "its store to " + std::to_string(w.threads[t].buffer[i].where) + " arrives");
      }
      if (((w.owed_fences >> t) & 1) != 0 && w.is_drained(t)) {
        is_end = false;
        world next = w;
        next.owed_fences = static_cast<value>(next.owed_fences & ~(1 << t));
        follow(next, who + "passes the fence it owes");
      }
      if (is_finished(w, t)) continue;
      const step& one = programs_[static_cast<std::size_t>(t)]->steps()[static_cast<std::size_t>(w.threads[t].at)];
      world next = w;
      if (!one.is_enabled(next, t)) continue;
      is_end = false;
      ++next.threads[t].at;
      one.run(next, t);
      follow(next, who + one.name);
    }
    // Threads that do not exist owe no fences.
    for (int t = static_cast<int>(programs_.size()); t < thread_count; ++t) {
      if (((w.owed_fences >> t) & 1) == 0) continue;
      is_end = false;
      world next = w;
      next.owed_fences = static_cast<value>(next.owed_fences & ~(1 << t));
      follow(next, "nobody");
    }
    if (!is_end || !result_.is_sound) return;
    ++result_.ends;
    if (!at_end(w)) report("at this end, after");
  }

  std::vector<const program*> programs_;
  std::unordered_set<std::uint64_t> seen_;
  std::vector<std::string> path_;
  answer result_;
};

}  // namespace model

#endif
