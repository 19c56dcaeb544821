// model_channel.cpp - the hand-over of one value (channel/channel_core.hpp), in every interleaving with a close and with a wait
// on either side that is cancelled or runs out of time: the value is received, or still its sender's, and nobody waits for who
// is there (H1, H2, H4). It is red when a step is left out. Channels with room are model_ring.cpp's.
#include <doctest/doctest.h>

#include "support/model.hpp"

using model::checker;
using model::program;
using model::world;

namespace {

// --- a rendezvous: one sender, one receiver, one who strikes either's wait, one who closes ---

enum word {
  site_lock,
  is_closed,
  recv_note,  // the receiver's note is in its queue
  send_note,  // the sender's
  recv_word,  // wait words: 1 waits, 2 ended
  send_word,
  recv_result,  // what ended the wait: 1 granted, 2 struck, 3 closed
  send_result,
  recv_resumed,
  send_resumed,
  has_value,  // the sender's hands
  got_value,  // the receiver's
  recv_gone,  // the receiver's frame
  send_gone,
};
constexpr int granted = 1;
constexpr int struck = 2;  // cancelled, or out of time: the same for the site
constexpr int closed = 3;

struct variant {
  bool moves_after_claim = true;         // H2
  bool claim_in_one_step = true;         // waiter.hpp, W1
  bool looks_and_queues_at_once = true;  // H1: the lock is kept between the look and the note
  bool leaves_when_struck = true;        // who gave up takes its note away
  bool close_ends_waits = true;          // H4
};

bool is_zero(world& w, int me) { return w.reg(me, 1) == 0; }

// Leaves in register 1 whether the wait behind `claimed` was ended here.
void add_claim(program& p, const variant& v, int claimed, const std::string& name) {
  if (v.claim_in_one_step) {
    p.atomically("claims", [claimed](world& w, int me) {
      w.reg(me, 1) = w.memory[claimed] == 1 ? 1 : 0;
      if (w.reg(me, 1) != 0) w.memory[claimed] = 2;
    });
    return;
  }
  p.load(1, claimed);
  p.note("only one waits", [](world& w, int me) { w.reg(me, 1) = w.reg(me, 1) == 1 ? 1 : 0; });
  p.jump_if(is_zero, name);
  p.release(claimed, 2);
  p.label(name);
}

void move_value(program& p) {
  p.atomically("moves the value", [](world& w, int) {
    if (w.memory[recv_gone] != 0 || w.memory[send_gone] != 0) w.fault = 1;
    --w.memory[has_value];
    ++w.memory[got_value];
  });
}

void add_sender(program& p, const variant& v) {
  p.lock(site_lock).load(0, is_closed);
  p.jump_if([](world& w, int me) { return w.reg(me, 0) != 0; }, "leaves");
  p.load(0, recv_note);
  p.jump_if([](world& w, int me) { return w.reg(me, 0) == 0; }, "nobody");
  p.note("the note is there", [](world& w, int) {
    if (w.memory[recv_gone] != 0) w.fault = 1;
  });
  p.store(recv_note, 0);
  if (!v.moves_after_claim) move_value(p);
  add_claim(p, v, recv_word, "claimed");
  p.jump_if(is_zero, "nobody");
  if (v.moves_after_claim) move_value(p);
  p.store(recv_result, granted).unlock(site_lock).release(recv_resumed, 1);
  p.jump("end");
  p.label("nobody");
  if (!v.looks_and_queues_at_once) p.unlock(site_lock).lock(site_lock);
  p.store(send_note, 1).release(send_word, 1).unlock(site_lock);
  p.wait("to be resumed", [](world& w, int) { return w.memory[send_resumed] != 0; });
  p.load(0, send_result);
  p.jump_if([](world& w, int me) { return w.reg(me, 0) != struck; }, "end");
  p.note("has its value still", [](world& w, int) {
    if (w.memory[has_value] != 1) w.fault = 1;
  });
  if (v.leaves_when_struck) p.lock(site_lock).store(send_note, 0).unlock(site_lock);
  p.jump("end");
  p.label("leaves").unlock(site_lock);
  p.label("end").atomically("returns", [](world& w, int) { w.memory[send_gone] = 1; });
}

void add_receiver(program& p, const variant& v) {
  p.lock(site_lock).load(0, send_note);
  p.jump_if([](world& w, int me) { return w.reg(me, 0) == 0; }, "nobody");
  p.note("the note is there", [](world& w, int) {
    if (w.memory[send_gone] != 0) w.fault = 1;
  });
  p.store(send_note, 0);
  if (!v.moves_after_claim) move_value(p);
  add_claim(p, v, send_word, "claimed");
  p.jump_if(is_zero, "nobody");
  if (v.moves_after_claim) move_value(p);
  p.store(send_result, granted).unlock(site_lock).release(send_resumed, 1);
  p.jump("end");
  p.label("nobody").load(0, is_closed);
  p.jump_if([](world& w, int me) { return w.reg(me, 0) != 0; }, "drained");
  if (!v.looks_and_queues_at_once) p.unlock(site_lock).lock(site_lock);
  p.store(recv_note, 1).release(recv_word, 1).unlock(site_lock);
  p.wait("to be resumed", [](world& w, int) { return w.memory[recv_resumed] != 0; });
  p.load(0, recv_result);
  p.jump_if([](world& w, int me) { return w.reg(me, 0) != struck; }, "end");
  if (v.leaves_when_struck) p.lock(site_lock).store(recv_note, 0).unlock(site_lock);
  p.jump("end");
  p.label("drained").unlock(site_lock);
  p.label("end").atomically("returns", [](world& w, int) { w.memory[recv_gone] = 1; });
}

void add_strike(program& p, const variant& v, bool strikes_sender) {
  add_claim(p, v, strikes_sender ? send_word : recv_word, "claimed");
  p.jump_if(is_zero, "end");
  p.store(strikes_sender ? send_result : recv_result, struck);
  p.release(strikes_sender ? send_resumed : recv_resumed, 1);
  p.label("end");
}

void add_closer(program& p, const variant& v) {
  p.lock(site_lock).store(is_closed, 1);
  const auto end_wait = [&](int note, int claimed, int result, int resumed, const std::string& name) {
    p.load(0, note);
    p.jump_if([](world& w, int me) { return w.reg(me, 0) == 0; }, name);
    p.store(note, 0);
    add_claim(p, v, claimed, name + " claimed");
    p.jump_if(is_zero, name);
    p.store(result, closed).release(resumed, 1);
    p.label(name);
  };
  if (v.close_ends_waits) {
    end_wait(recv_note, recv_word, recv_result, recv_resumed, "receiver");
    end_wait(send_note, send_word, send_result, send_resumed, "sender");
  }
  p.unlock(site_lock);
}

model::answer outcome_of(const variant& v, bool strikes_sender) {
  program sender;
  program receiver;
  program striker;
  program closer;
  add_sender(sender, v);
  add_receiver(receiver, v);
  add_strike(striker, v, strikes_sender);
  add_closer(closer, v);
  checker all({&sender, &receiver, &striker, &closer});
  all.at_end = [&all](const world& w) {
    const bool is_conserved = w.memory[has_value] + w.memory[got_value] == 1 && w.memory[has_value] >= 0;
    const bool is_told =
        w.memory[got_value] == 0 || w.memory[recv_result] == granted || w.memory[send_result] == granted;
    // It is closed in the end: nobody may wait any more.
    return all.are_all_finished(w) && is_conserved && is_told && w.memory[recv_note] == 0 && w.memory[send_note] == 0;
  };
  world begin;
  begin.memory[has_value] = 1;
  return all.explore(begin);
}

// --- H1 without a close: of two who belong together not both may wait ---

model::answer outcome_of_meeting(const variant& v) {
  program sender;
  program receiver;
  add_sender(sender, v);
  add_receiver(receiver, v);
  checker all({&sender, &receiver});
  all.at_end = [&all](const world& w) { return all.are_all_finished(w) && w.memory[got_value] == 1; };
  world begin;
  begin.memory[has_value] = 1;
  return all.explore(begin);
}

}  // namespace

TEST_CASE("a value is received or still its sender's, whatever cancellation, deadline and close do") {
  for (const bool strikes_sender : {false, true}) {
    const model::answer found = outcome_of(variant(), strikes_sender);
    INFO(found.bad_path);
    CHECK(found.is_sound);
    CHECK(found.ends > 0);
    MESSAGE(found.states, " states");
  }
}

TEST_CASE("sender and receiver meet") {
  const model::answer found = outcome_of_meeting(variant());
  INFO(found.bad_path);
  CHECK(found.is_sound);
}

TEST_CASE("the model of the hand-over is red when a step is left out") {
  for (const bool strikes_sender : {false, true}) {
    CAPTURE(strikes_sender);
    const auto without = [&](bool variant::*step) {
      variant v;
      v.*step = false;
      return outcome_of(v, strikes_sender).is_sound;
    };
    CHECK_FALSE(without(&variant::moves_after_claim));
    CHECK_FALSE(without(&variant::claim_in_one_step));
    CHECK_FALSE(without(&variant::leaves_when_struck));
    CHECK_FALSE(without(&variant::close_ends_waits));
  }
  variant v;
  v.looks_and_queues_at_once = false;
  CHECK_FALSE(outcome_of_meeting(v).is_sound);
}
