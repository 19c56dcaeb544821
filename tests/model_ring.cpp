// model_ring.cpp - a channel with room for one value (channel/channel_core.hpp), in every interleaving in which senders and
// receivers are cancelled, run out of time, or meet a close: every value is with its sender, in the ring, or received; nobody
// waits for what is there (H1, H3, H4); and who is told that it went has nothing left, and nobody else has.
#include <doctest/doctest.h>

#include "support/model_wait.hpp"

#include <vector>

using model::checker;
using model::program;
using model::site;
using model::value;
using model::world;

namespace {

enum word { lock_word, in_ring, is_closed, senders, receivers = 5, wait_word = 7, result = 10, hands = 13 };
constexpr int parties = 3;

struct variant {
  bool claims = true;
  bool leaver_unlinks = true;
  bool moves_after_claim = true;         // H2
  bool looks_and_queues_at_once = true;  // H1
  bool serves_who_waits = true;          // H1: a value goes to a receiver that waits, not into the ring
  bool moves_up = true;                  // H3
  bool close_ends_waits = true;          // H4
};

site site_of(int queue, const variant& v) {
  site s{lock_word, queue, 2, wait_word, result};
  s.claims = v.claims;
  s.leaver_unlinks = v.leaver_unlinks;
  return s;
}

// Takes the first claimable one off and moves a value from hand to hand. The thread plus one; 0: nobody.
value pop_and_move(world& w, int queue, const variant& v, int& from, int& to) {
  const bool is_sender = queue == senders;
  for (;;) {
    const int first = w.memory[queue] - 1;
    if (!v.moves_after_claim && first >= 0) {
      --w.memory[is_sender ? hands + first : from];
      ++w.memory[is_sender ? to : hands + first];
    }
    const value chosen = model::pop_claimed(w, site_of(queue, v));
    if (chosen == 0) return 0;
    if (!v.moves_after_claim) return chosen;
    (is_sender ? from : to) = hands + chosen - 1;
    --w.memory[from];
    ++w.memory[to];
    return chosen;
  }
}

// One step under the lock. Register 1: it is done; 2: it is closed; 3: whom to resume.
void send_step(world& w, int me, const variant& v) {
  w.reg(me, 1) = 1;
  w.reg(me, 2) = w.memory[is_closed];
  w.reg(me, 3) = 0;
  if (w.reg(me, 2) != 0) return;
  int from = hands + me;
  int to = 0;
  if (v.serves_who_waits && w.memory[receivers] != 0) w.reg(me, 3) = pop_and_move(w, receivers, v, from, to);
  if (w.reg(me, 3) != 0) return;
  w.reg(me, 1) = w.memory[in_ring] == 0 ? 1 : 0;
  if (w.reg(me, 1) == 0) return;
  --w.memory[hands + me];
  ++w.memory[in_ring];
}
void receive_step(world& w, int me, const variant& v) {
  w.reg(me, 1) = 1;
  w.reg(me, 2) = w.reg(me, 3) = 0;
  if (w.memory[in_ring] != 0) {
    --w.memory[in_ring];
    ++w.memory[hands + me];
    int from = 0;
    int to = in_ring;
    if (v.moves_up && w.memory[senders] != 0) w.reg(me, 3) = pop_and_move(w, senders, v, from, to);
    return;
  }
  w.reg(me, 2) = w.memory[is_closed];
  w.reg(me, 1) = w.reg(me, 2);
}

void add_party(program& p, bool sends, const variant& v) {
  const site s = site_of(sends ? senders : receivers, v);
  p.lock(lock_word).atomically("tries", [sends, v](world& w, int me) {
    if (sends)
      send_step(w, me, v);
    else
      receive_step(w, me, v);
  });
  p.jump_if([](world& w, int me) { return w.reg(me, 1) == 0; }, "waits").unlock(lock_word);
  p.atomically("resumes", [s](world& w, int me) {
    if (w.reg(me, 3) != 0) model::resume(w, s, w.reg(me, 3) - 1, model::granted);
  });
  p.note("as if waited", [](world& w, int me) { w.reg(me, 0) = w.reg(me, 2) != 0 ? model::closed : model::granted; });
  p.jump("end");
  p.label("waits");
  if (!v.looks_and_queues_at_once) p.unlock(lock_word).lock(lock_word);
  model::add_wait(p, s, "has waited");
  p.label("end").note("was told the truth", [sends](world& w, int me) {
    if ((w.memory[hands + me] == 0) != (sends == (w.reg(me, 0) == model::granted))) w.fault = 1;
  });
}

void add_closer(program& p, const variant& v) {
  p.lock(lock_word).atomically("closes", [v](world& w, int me) {
    w.memory[is_closed] = 1;
    w.reg(me, 1) = 0;
    if (!v.close_ends_waits) return;
    w.reg(me, 1) = model::pop_all(w, site_of(receivers, v));
    w.reg(me, 1) = static_cast<value>(w.reg(me, 1) | model::pop_all(w, site_of(senders, v)));
  });
  p.unlock(lock_word).atomically(
      "resumes", [v](world& w, int me) { model::resume_all(w, site_of(senders, v), w.reg(me, 1), model::closed); });
}

enum class role { sends, receives, closes };
struct cast {
  std::vector<role> parties;
  bool begins_full;
  int struck;  // which party may be
};
const cast casts[] = {{{role::sends, role::sends, role::receives}, true, 0},
                      {{role::receives, role::receives, role::sends}, false, 0},
                      {{role::sends, role::receives, role::receives}, false, 1},
                      {{role::sends, role::receives, role::closes}, true, 0},
                      {{role::sends, role::receives, role::closes}, false, 1}};

model::answer outcome_of(const variant& v, const cast& who) {
  program all_parties[parties];
  program striker;
  for (int t = 0; t < parties; ++t) {
    if (who.parties[static_cast<std::size_t>(t)] == role::closes)
      add_closer(all_parties[t], v);
    else
      add_party(all_parties[t], who.parties[static_cast<std::size_t>(t)] == role::sends, v);
  }
  model::add_strike(striker, site_of(senders, v), who.struck);
  checker all({&all_parties[0], &all_parties[1], &all_parties[2], &striker});
  world begin;
  begin.memory[in_ring] = who.begins_full ? 1 : 0;
  int values = begin.memory[in_ring];
  for (int t = 0; t < parties; ++t) {
    if (who.parties[static_cast<std::size_t>(t)] == role::sends) begin.memory[hands + t] = 1;
    values += begin.memory[hands + t];
  }
  all.always = [](const world& w) { return w.memory[in_ring] >= 0 && w.memory[in_ring] <= 1; };
  all.at_end = [&all, values](const world& w) {
    int found = w.memory[in_ring];
    for (int t = 0; t < parties; ++t) found += w.memory[hands + t];
    if (found != values) return false;
    if (all.are_all_finished(w)) return w.memory[senders] == 0 && w.memory[receivers] == 0;
    // Somebody waits, and that is right only so (H1).
    if (w.memory[is_closed] != 0 || !all.is_finished(w, parties)) return false;
    if (w.memory[senders] != 0) return w.memory[in_ring] == 1 && w.memory[receivers] == 0;
    return w.memory[receivers] != 0 && w.memory[in_ring] == 0;
  };
  return all.explore(begin);
}

}  // namespace

TEST_CASE("no value is lost or doubled, and nobody waits for what is there") {
  for (const cast& who : casts) {
    const model::answer all = outcome_of(variant(), who);
    INFO(all.bad_path);
    CHECK(all.is_sound);
    CHECK(all.ends > 1);
    MESSAGE(all.states, " states");
  }
}

TEST_CASE("each step is needed") {
  const auto without = [](bool variant::*step) {
    variant v;
    v.*step = false;
    for (const cast& who : casts) {
      if (!outcome_of(v, who).is_sound) return false;
    }
    return true;
  };
  CHECK_FALSE(without(&variant::claims));
  CHECK_FALSE(without(&variant::leaver_unlinks));
  CHECK_FALSE(without(&variant::moves_after_claim));
  CHECK_FALSE(without(&variant::looks_and_queues_at_once));
  CHECK_FALSE(without(&variant::serves_who_waits));
  CHECK_FALSE(without(&variant::moves_up));
  CHECK_FALSE(without(&variant::close_ends_waits));
}
