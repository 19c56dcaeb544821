// model_channel.cpp - the hand-over of one value (channel/channel_core.hpp), in every interleaving with a deadline and a
// close: it is received, or still its sender's, and nobody waits for who is there (H1, H2, H4). Then a full ring with a
// sender behind it: a receive lets its value move up (H3). Each is red when a step is left out.
#include <doctest/doctest.h>

#include "support/model.hpp"

using model::checker;
using model::program;
using model::world;

namespace {

// --- a rendezvous: one sender, one receiver with a deadline, one who closes ---

enum word {
  site_lock,
  is_closed,
  recv_note,  // the receiver's note is in its queue
  send_note,  // the sender's
  recv_word,  // wait words: 1 waits, 2 ended
  send_word,
  recv_result,  // what ended the wait: 1 granted, 2 timed out, 3 closed
  send_result,
  recv_resumed,
  send_resumed,
  has_value,  // the sender's hands
  got_value,  // the receiver's
  recv_gone,  // the receiver's frame
};
constexpr int granted = 1;
constexpr int timed_out = 2;
constexpr int closed = 3;

struct variant {
  bool moves_after_claim = true;         // H2
  bool claim_in_one_step = true;         // waiter.hpp, W1
  bool looks_and_queues_at_once = true;  // H1: the lock is kept between the look and the note
  bool leaves_after_timeout = true;      // who gave up takes its note away
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
    if (w.memory[recv_gone] != 0) w.fault = 1;
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
  p.jump("end");
  p.label("leaves").unlock(site_lock);
  p.label("end");
}

void add_receiver(program& p, const variant& v) {
  p.lock(site_lock).load(0, send_note);
  p.jump_if([](world& w, int me) { return w.reg(me, 0) == 0; }, "nobody");
  p.store(send_note, 0);
  add_claim(p, v, send_word, "claimed");
  p.jump_if(is_zero, "nobody");
  move_value(p);
  p.store(send_result, granted).unlock(site_lock).release(send_resumed, 1);
  p.jump("end");
  p.label("nobody").load(0, is_closed);
  p.jump_if([](world& w, int me) { return w.reg(me, 0) != 0; }, "drained");
  if (!v.looks_and_queues_at_once) p.unlock(site_lock).lock(site_lock);
  p.store(recv_note, 1).release(recv_word, 1).unlock(site_lock);
  p.wait("to be resumed", [](world& w, int) { return w.memory[recv_resumed] != 0; });
  p.load(0, recv_result);
  p.jump_if([](world& w, int me) { return w.reg(me, 0) != timed_out; }, "end");
  if (v.leaves_after_timeout) p.lock(site_lock).store(recv_note, 0).unlock(site_lock);
  p.jump("end");
  p.label("drained").unlock(site_lock);
  p.label("end").atomically("returns", [](world& w, int) { w.memory[recv_gone] = 1; });
}

void add_deadline(program& p, const variant& v) {
  add_claim(p, v, recv_word, "claimed");
  p.jump_if(is_zero, "end");
  p.store(recv_result, timed_out).release(recv_resumed, 1);
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

model::answer outcome_of(const variant& v) {
  program sender;
  program receiver;
  program deadline;
  program closer;
  add_sender(sender, v);
  add_receiver(receiver, v);
  add_deadline(deadline, v);
  add_closer(closer, v);
  checker all({&sender, &receiver, &deadline, &closer});
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

// --- H3: a ring of one, full, and a sender that waits behind it ---

enum ring_word { ring_lock, in_ring, waiting_value, was_resumed, first_got, second_got };

model::answer outcome_of_full_ring(bool moves_up) {
  program one;
  program other;
  program sender;
  const auto add_receive = [&](program& p, int into) {
    p.label("again").lock(ring_lock).load(0, in_ring);
    p.jump_if([](world& w, int me) { return w.reg(me, 0) == 0; }, "empty");
    p.note("takes", [into](world& w, int me) { w.memory[into] = w.reg(me, 0); });
    p.load(1, waiting_value);
    p.jump_if(is_zero, "nobody");
    if (moves_up) {
      p.store(
          in_ring, [](world& w, int me) { return w.reg(me, 1); });
      p.store(waiting_value, 0).unlock(ring_lock).release(was_resumed, 1);
      p.jump("end");
    }
    p.label("nobody").store(in_ring, 0).unlock(ring_lock).jump("end");
    p.label("empty").unlock(ring_lock);
    p.wait("for a value", [](world& w, int) { return w.memory[in_ring] != 0; });
    p.jump("again");
    p.label("end");
  };
  add_receive(one, first_got);
  add_receive(other, second_got);
  sender.wait("to be resumed", [](world& w, int) { return w.memory[was_resumed] != 0; });
  checker all({&one, &other, &sender});
  all.at_end = [&all](const world& w) {
    return all.are_all_finished(w) && w.memory[first_got] + w.memory[second_got] == 3 && w.memory[in_ring] == 0;
  };
  world begin;
  begin.memory[in_ring] = 1;        // the value 1 was sent first
  begin.memory[waiting_value] = 2;  // the value 2 waits
  return all.explore(begin);
}

}  // namespace

TEST_CASE("a value is received or still its sender's, whatever deadline and close do") {
  const model::answer found = outcome_of(variant());
  INFO(found.bad_path);
  CHECK(found.is_sound);
  CHECK(found.ends > 0);
  MESSAGE(found.states, " states");
}

TEST_CASE("sender and receiver meet") {
  const model::answer found = outcome_of_meeting(variant());
  INFO(found.bad_path);
  CHECK(found.is_sound);
}

TEST_CASE("the model of the hand-over is red when a step is left out") {
  variant v;
  v.moves_after_claim = false;
  CHECK_FALSE(outcome_of(v).is_sound);
  v = variant();
  v.claim_in_one_step = false;
  CHECK_FALSE(outcome_of(v).is_sound);
  v = variant();
  v.looks_and_queues_at_once = false;
  CHECK_FALSE(outcome_of_meeting(v).is_sound);
  v = variant();
  v.leaves_after_timeout = false;
  CHECK_FALSE(outcome_of(v).is_sound);
  v = variant();
  v.close_ends_waits = false;
  CHECK_FALSE(outcome_of(v).is_sound);
}

TEST_CASE("a receive from a full ring lets the value behind it move up") {
  const model::answer found = outcome_of_full_ring(true);
  INFO(found.bad_path);
  CHECK(found.is_sound);
  CHECK_FALSE(outcome_of_full_ring(false).is_sound);
}
