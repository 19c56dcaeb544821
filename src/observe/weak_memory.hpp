// observe/weak_memory.hpp - which stores a load may see, by the rules of C++20.
//
// On one thread that plays all threads a load sees the last store. On a real machine it may see an older one, as far as
// the memory orders permit, and that is where protocols break. So the simulation keeps the last few stores of each
// word, and clocks (observe/vector_clock.hpp) that say what happened before what; a load asks which of them it still
// may see, and lets its caller pick.
//
//   K1  Coherence: a thread sees nothing older than what happened before it, be that a store, or a read of a store.
//   K2  A store hands its message to whoever acquires it: the past of the thread, if it releases; the past as of the
//       last release fence, if it does not. A read-modify-write passes on the message of the store that it read as
//       well; a plain store passes on nothing, also not in the thread that released (C++20's release sequences).
//   K3  Who reads without acquiring keeps the message for its next acquire fence.
//   K4  The order S of the seq_cst operations and fences is the order in which they are carried out. [atomics.order]
//       then demands: let A see something older than B. If A and B are both seq_cst, B must not come first. A
//       seq_cst fence that happens before A stands for A, one that B happens before stands for B. Here B is `shown` to S,
//       by its own order, by a seq_cst read of it, or by a fence that it is in the past of; A may see nothing older than
//       what was shown when its own place in S came.
//   K5  A read-modify-write sees the last store, always.
//
// What this permits the standard permits too. The reverse does not hold. Never shown are:
//
//   - what needs a store to be overtaken by a later one in the modification order, which is the order of execution here:
//     2+2W, and S; and what needs a load to see a store that has not been executed: LB. (R, SB, MP, IRIW, WRC, ISA2, RWC
//     are.)
//   - an S that disagrees with the order of execution, which is possible where seq_cst and weaker operations on one
//     word are mixed (the example Z6.U of "Repairing Sequential Consistency in C/C++11", PLDI 2017);
//   - stores older than the newest history_max of a word, and more than stale_reads_max stale reads of one word by one
//     thread in a row: then it sees the newest, so a loop that waits for a store ends;
//   - a failing compare-exchange that sees an old value;
//   - threads that pass the fences of fence_all one after another: they all do in one moment.
//
// A number that is given to a second thread counts as the first one going on.
#ifndef CONCUR_OBSERVE_WEAK_MEMORY_HPP
#define CONCUR_OBSERVE_WEAK_MEMORY_HPP

#include <atomic>
#include <cstring>
#include <vector>

#include "base/config.hpp"
#include "observe/address_table.hpp"
#include "observe/plain_memory.hpp"
#include "observe/vector_clock.hpp"

#if defined(CONCUR_EXPLORE)

CONCUR_NAMESPACE_BEGIN
namespace detail {

class weak_memory {
 public:
  static constexpr unsigned threads_max = explored_threads_max;
  static constexpr unsigned history_max = 8;
  static constexpr unsigned stale_reads_max = 4;

  explicit weak_memory(unsigned first_thread = 0) { reset(first_thread); }

  // Forgets everything. first_thread is the one that there is without start_thread.
  CONCUR_INLINE void reset(unsigned first_thread = 0) noexcept;

  // What the parent did happens before the child.
  CONCUR_INLINE void start_thread(unsigned parent, unsigned child) noexcept;
  // What the child did happens before what the parent does next.
  CONCUR_INLINE void join_thread(unsigned parent, unsigned child) noexcept;
  // A new object begins at this address: what was known of the address is void.
  CONCUR_INLINE void birth(unsigned thread, const void* address) noexcept;

  // In all of these `latest` and `before` are what the word really holds. A word that was not seen before has held it from
  // the beginning, for all threads; so has one that holds something else than was last stored here.

  // What the thread's load sees. pick(count) says which, when there is a choice: 0 is the newest, count - 1 the oldest.
  // It may not touch this memory.
  template <class Pick>
  std::uint64_t load(unsigned thread, const void* address, std::uint64_t latest, std::memory_order order, Pick&& pick) {
    word& w = word_at(address, latest);
    const unsigned count = visible(thread, w, order);
    const unsigned back = count == 1 ? 0 : static_cast<unsigned>(pick(count));
    return read(thread, w, back, order);
  }
  // A failed compare-exchange, with its order for failure.
  CONCUR_INLINE void load_newest(unsigned thread, const void* address, std::uint64_t latest, std::memory_order order);
  CONCUR_INLINE void store(unsigned thread, const void* address, std::uint64_t before, std::uint64_t after,
                           std::memory_order order);
  // A read-modify-write, also one that leaves the value as it was.
  CONCUR_INLINE void update(unsigned thread, const void* address, std::uint64_t before, std::uint64_t after,
                            std::memory_order order);

  CONCUR_INLINE void fence(unsigned thread, std::memory_order order);
  // Each thread passes a seq_cst fence (membarrier).
  CONCUR_INLINE void fence_all(unsigned thread);

  // False: this access races with an earlier one.
  bool plain_read(unsigned thread, const void* address) {
    tick(thread);
    return plain_.read(thread, players_[thread].past, address);
  }
  bool plain_write(unsigned thread, const void* address) {
    tick(thread);
    return plain_.write(thread, players_[thread].past, address);
  }

  // How many words and plain addresses are known.
  std::size_t size() const noexcept { return words_.size() + plain_.size(); }

 private:
  struct stored {
    std::uint64_t value;
    std::uint32_t time;   // of the thread that stored it; 0: it was there from the beginning
    std::uint32_t shown;  // the first fence after a seq_cst operation stored it or saw it; 0: none did (K4)
    std::uint16_t thread;
    std::uint16_t readers;  // one bit for each thread
    bool has_message;
    std::uint32_t read_at[threads_max];  // when each reader first did
    vector_clock message;
  };

  // A ring of indices into stores_. Those of a word stay with it for the run.
  struct word {
    std::uint32_t ring[history_max];
    std::uint8_t owned;
    std::uint8_t first;
    std::uint8_t count;               // 0: not known
    std::uint8_t stale[threads_max];  // how many reads in a row were not of the newest

    void clear() noexcept { owned = first = count = 0; }
  };

  struct player {
    vector_clock past;
    vector_clock released;  // the past as of the last release fence
    vector_clock pending;   // messages of what was read without acquiring
    bool has_released = false;
    bool has_pending = false;
  };

  static bool acquires(std::memory_order order) noexcept {
    return order != std::memory_order_relaxed && order != std::memory_order_release;
  }
  static bool releases(std::memory_order order) noexcept {
    return order == std::memory_order_release || order == std::memory_order_acq_rel ||
           order == std::memory_order_seq_cst;
  }
  static std::uint16_t bit_of(unsigned thread) noexcept { return static_cast<std::uint16_t>(1U << thread); }

  // Each event has a time of its own, so what comes after a release is not in it.
  std::uint32_t tick(unsigned thread) noexcept { return ++players_[thread].past.at[thread]; }

  CONCUR_INLINE word& word_at(const void* address, std::uint64_t latest);
  // back: 0 is the newest.
  stored& store_at(const word& w, unsigned back) noexcept {
    return stores_[w.ring[(w.first + w.count - 1U - back) % history_max]];
  }
  // Makes room for a newest store. Other references to stores are void then.
  CONCUR_INLINE stored& append(word& w);
  CONCUR_INLINE void begin(word& w, std::uint64_t value);
  CONCUR_INLINE unsigned visible(unsigned thread, const word& w, std::memory_order order) noexcept;
  CONCUR_INLINE std::uint64_t read(unsigned thread, word& w, unsigned back, std::memory_order order) noexcept;
  CONCUR_INLINE void write(unsigned thread, word& w, std::uint64_t value, std::memory_order order);
  CONCUR_INLINE void pass_on(const word& w) noexcept;
  CONCUR_INLINE static bool is_in(const vector_clock& past, const stored& s) noexcept;
  CONCUR_INLINE void acquire_pending(player& self) noexcept;
  CONCUR_INLINE void pass_fences(unsigned first, unsigned last);

  player players_[threads_max];
  unsigned threads_ = 1;  // all numbers below this may be in use
  address_table<word> words_;
  plain_memory plain_;
  std::vector<stored> stores_;
  std::size_t stores_used_ = 0;
  // What the seq_cst fence n, and those before it, have in their past: entry n - 1.
  std::vector<vector_clock> fences_;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#  if CONCUR_BODIES

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void weak_memory::reset(unsigned first_thread) noexcept {
  for (unsigned i = 0; i < threads_; ++i) players_[i] = player();
  threads_ = first_thread + 1;
  words_.forget();
  plain_.forget();
  stores_used_ = 0;
  fences_.clear();
}

CONCUR_INLINE void weak_memory::start_thread(unsigned parent, unsigned child) noexcept {
  if (child >= threads_) threads_ = child + 1;
  player& self = players_[child];
  self.past.join(players_[parent].past, threads_);
  self.has_released = self.has_pending = false;
}

CONCUR_INLINE void weak_memory::join_thread(unsigned parent, unsigned child) noexcept {
  players_[parent].past.join(players_[child].past, threads_);
}

CONCUR_INLINE void weak_memory::birth(unsigned, const void* address) noexcept {
  if (word* const w = words_.find(address)) w->first = w->count = 0;
  plain_.birth(address);
}

CONCUR_INLINE weak_memory::word& weak_memory::word_at(const void* address, std::uint64_t latest) {
  word& w = words_.get(address);
  if (CONCUR_UNLIKELY(w.count == 0 || store_at(w, 0).value != latest)) begin(w, latest);
  return w;
}

CONCUR_INLINE void weak_memory::begin(word& w, std::uint64_t value) {
  w.first = w.count = 0;
  std::memset(w.stale, 0, sizeof w.stale);
  stored& s = append(w);
  s.value = value;
  s.time = s.shown = 0;
  s.thread = s.readers = 0;
  s.has_message = false;
}

CONCUR_INLINE weak_memory::stored& weak_memory::append(word& w) {
  if (w.count == history_max) {
    w.first = static_cast<std::uint8_t>((w.first + 1U) % history_max);
  } else {
    ++w.count;
  }
  const unsigned at = (w.first + w.count - 1U) % history_max;
  if (at == w.owned) {
    if (stores_used_ == stores_.size()) stores_.emplace_back();
    w.ring[at] = static_cast<std::uint32_t>(stores_used_++);
    ++w.owned;
  }
  return stores_[w.ring[at]];
}

// Whether the store, or a read of it, is in this past (K1).
CONCUR_INLINE bool weak_memory::is_in(const vector_clock& past, const stored& s) noexcept {
  if (past.knows(s.thread, s.time)) return true;
  for (unsigned rest = CONCUR_MUTANT_IS(373) ? 0 : s.readers; rest != 0; rest &= rest - 1) {
    const unsigned reader = static_cast<unsigned>(__builtin_ctz(rest));
    if (past.knows(reader, s.read_at[reader])) return true;
  }
  return false;
}

// How many of the newest stores the load may see: up to the first that it may not overlook.
CONCUR_INLINE unsigned weak_memory::visible(unsigned thread, const word& w, std::memory_order order) noexcept {
  if (w.count == 1 || (w.stale[thread] >= stale_reads_max && !CONCUR_MUTANT_IS(379))) return 1;
  const vector_clock& past = players_[thread].past;
  // The load's place in S: now, or its last fence (K4).
  const bool is_in_order = order == std::memory_order_seq_cst;
  const std::uint32_t passed = is_in_order ? static_cast<std::uint32_t>(fences_.size()) : past.fence;
  const std::uint32_t shown = is_in_order ? passed + 1 : passed;
  for (unsigned back = 0; back < w.count; ++back) {
    const stored& s = store_at(w, back);
    const bool is_shown = s.shown != 0 && s.shown <= shown;
    if (is_shown || is_in(past, s) || (passed != 0 && is_in(fences_[passed - 1], s))) return back + 1;
  }
  return w.count;
}

CONCUR_INLINE std::uint64_t weak_memory::read(unsigned thread, word& w, unsigned back,
                                              std::memory_order order) noexcept {
  player& self = players_[thread];
  stored& s = store_at(w, back);
  const std::uint32_t now = tick(thread);
  if ((s.readers & bit_of(thread)) == 0) {
    s.readers = static_cast<std::uint16_t>(s.readers | bit_of(thread));
    s.read_at[thread] = now;
  }
  if (order == std::memory_order_seq_cst && s.shown == 0 && !CONCUR_MUTANT_IS(375))
    s.shown = static_cast<std::uint32_t>(fences_.size()) + 1;
  w.stale[thread] = back == 0 ? std::uint8_t{0} : static_cast<std::uint8_t>(w.stale[thread] + 1);
  if (s.has_message && acquires(order) && !CONCUR_MUTANT_IS(370)) {
    self.past.join(s.message, threads_);
  } else if (s.has_message) {
    if (!self.has_pending) self.pending = vector_clock();
    self.pending.join(s.message, threads_);
    self.has_pending = true;
  }
  return s.value;
}

CONCUR_INLINE void weak_memory::write(unsigned thread, word& w, std::uint64_t value, std::memory_order order) {
  const player& self = players_[thread];
  stored& s = append(w);
  s.value = value;
  s.time = tick(thread);
  s.shown = order == std::memory_order_seq_cst ? static_cast<std::uint32_t>(fences_.size()) + 1 : 0;
  s.thread = static_cast<std::uint16_t>(thread);
  s.readers = 0;
  s.has_message = releases(order) || self.has_released;
  if (s.has_message) s.message = releases(order) ? self.past : self.released;
}

CONCUR_INLINE void weak_memory::load_newest(unsigned thread, const void* address, std::uint64_t latest,
                                            std::memory_order order) {
  read(thread, word_at(address, latest), 0, order);
}

CONCUR_INLINE void weak_memory::store(unsigned thread, const void* address, std::uint64_t before, std::uint64_t after,
                                      std::memory_order order) {
  word& w = word_at(address, before);
  write(thread, w, after, order);
  if (CONCUR_MUTANT_IS(372) && store_at(w, 1).thread == thread) pass_on(w);
}

CONCUR_INLINE void weak_memory::update(unsigned thread, const void* address, std::uint64_t before, std::uint64_t after,
                                       std::memory_order order) {
  word& w = word_at(address, before);
  read(thread, w, 0, order);
  write(thread, w, after, order);
  if (!CONCUR_MUTANT_IS(371)) pass_on(w);
}

// The newest store has the message of the one before it as well (K2).
CONCUR_INLINE void weak_memory::pass_on(const word& w) noexcept {
  stored& s = store_at(w, 0);
  const stored& old = store_at(w, 1);
  if (!old.has_message) return;
  if (s.has_message) {
    s.message.join(old.message, threads_);
  } else {
    s.message = old.message;
    s.has_message = true;
  }
}

CONCUR_INLINE void weak_memory::acquire_pending(player& self) noexcept {
  if (self.has_pending) self.past.join(self.pending, threads_);
  self.has_pending = false;
}

CONCUR_INLINE void weak_memory::fence(unsigned thread, std::memory_order order) {
  player& self = players_[thread];
  if (order == std::memory_order_seq_cst) return pass_fences(thread, thread);
  tick(thread);
  if (acquires(order)) acquire_pending(self);
  if (!releases(order)) return;
  self.released = self.past;
  self.has_released = !CONCUR_MUTANT_IS(376);
}

CONCUR_INLINE void weak_memory::fence_all(unsigned) { pass_fences(0, threads_ - 1); }

// The threads from first to last pass a seq_cst fence together.
CONCUR_INLINE void weak_memory::pass_fences(unsigned first, unsigned last) {
  fences_.push_back(CONCUR_MUTANT_IS(374) || fences_.empty() ? vector_clock() : fences_.back());
  for (unsigned i = first; i <= last; ++i) {
    tick(i);
    acquire_pending(players_[i]);
    fences_.back().join(players_[i].past, threads_);
  }
  for (unsigned i = first; i <= last; ++i) {
    player& self = players_[i];
    self.past.fence = static_cast<std::uint32_t>(fences_.size());
    self.released = self.past;
    self.has_released = true;
  }
}

}  // namespace detail
CONCUR_NAMESPACE_END

#  endif  // CONCUR_BODIES

#endif

#endif
