// tests/explore_channel.cpp - channels under every kind of schedule (support/scenario.hpp).
//
// What must hold: each value that was sent is received once or left over, values of one sender come in its order, who
// gives up loses nothing, and a close is heard by everybody. And what happens before what: the memory that a value stands
// for is written before the send, and read after the receive, without more ado.
#include "support/scenario.hpp"

#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <utility>

using namespace concur_test;
using namespace std::chrono_literals;
using concur::explore_expect;
using concur::status;

namespace {

// Waits until somebody is in the channel's queue of senders (receivers).
template <class T>
void await_sender(const concur::channel<T>& ch) {
  auto* const core = concur::detail::channel_access::core_of(ch);
  const auto has_any = [core] {
    const concur::detail::channel_lock_scope held(core->state().lock, concur::detail::this_worker());
    return !core->state().senders.is_empty();
  };
  while (!has_any()) concur::this_fiber::yield();
}
template <class T>
bool has_waiting(const concur::channel<T>& ch) {
  auto* const core = concur::detail::channel_access::core_of(ch);
  const concur::detail::channel_lock_scope held(core->state().lock, concur::detail::this_worker());
  return !core->state().senders.is_empty() || !core->state().receivers.is_empty();
}

// Memory that two parties use one after the other.
struct place {
  int value = 0;
  void write(int v) {
    concur::detail::note_write(this, "a place");
    value = v;
  }
  int read() const {
    concur::detail::note_read(this, "a place");
    return value;
  }
};

// A value that says when its memory is made, used and given up.
struct tracked {
  explicit tracked(int v) : value(v) { begin(); }
  tracked(tracked&& other) noexcept : value(std::exchange(other.value, 0)) {
    concur::detail::note_write(&other, "a value");
    begin();
  }
  tracked& operator=(tracked&&) = delete;
  ~tracked() { concur::detail::note_write(this, "a value"); }
  void begin() {
    concur::detail::note_birth(this);
    concur::detail::note_write(this, "a value");
  }
  int value;
};

// Whose move throws while `failures` says so.
struct picky {
  picky(int v, int* failures_in) : value(v), failures(failures_in) {}
  picky(picky&& other) : value(other.value), failures(other.failures) {
    if (*failures > 0) {
      --*failures;
      throw std::runtime_error("this move does not succeed");
    }
    other.value = 0;
  }
  picky& operator=(picky&&) = delete;
  int value;
  int* failures;
};

}  // namespace

// --- values, in order, once each ---

TEST_CASE("values of two senders come each in order, and none is lost") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> ch;
    int last[2] = {0, 0};
    concur::with_nursery([&](concur::nursery& n) {
      for (int who = 0; who < 2; ++who) {
        n.go([&ch, who] {
          for (int i = 1; i <= 2; ++i) ch.send(10 * who + i);
        });
      }
      n.go([&] {
        for (int k = 0; k < 4; ++k) {
          const int value = ch.recv().value();
          const int who = value / 10;
          explore_expect(value % 10 == last[who] + 1, "a sender's values change places, or one is lost");
          last[who] = value % 10;
        }
      });
    });
    explore_expect(last[0] == 2 && last[1] == 2, "a value is missing");
  });
}

TEST_CASE("two senders and two receivers over one place of room: each value once") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> ch(1);
    int seen[4] = {};
    concur::with_nursery([&](concur::nursery& n) {
      for (int who = 0; who < 2; ++who) {
        n.go([&ch, who] {
          ch.send(2 * who);
          ch.send(2 * who + 1);
        });
        n.go([&] {
          for (int k = 0; k < 2; ++k) ++seen[ch.recv().value()];
        });
      }
    });
    for (const int count : seen) explore_expect(count == 1, "a value was received twice, or never");
  });
}

TEST_CASE("try_send and try_recv say what they did") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> ch(1);
    int sent = 0;
    int received = 0;
    concur::with_nursery([&](concur::nursery& n) {
      for (const int first : {1, 10}) {
        n.go([&, first] {
          for (int value : {first, 2 * first}) {
            const int before = value;
            if (ch.try_send(value)) sent += before;
          }
        });
      }
      n.go([&] {
        for (int k = 0; k < 3; ++k) received += ch.try_recv().value_or(0);
      });
    });
    received += ch.try_recv().value_or(0);
    explore_expect(sent == received, "sent and received do not agree");
    explore_expect(sent != 0, "an empty channel took nothing");
  });
}

TEST_CASE("the value of a sender that waits moves up into the ring at once") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> ch(1);
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        ch.send(1);
        ch.send(2);
      });
      n.go([&] {
        await_sender(ch);
        explore_expect(ch.recv() == 1, "not the oldest");
        explore_expect(ch.try_recv() == 2, "a sender waited, and its value is not to be had");
      });
    });
  });
}

TEST_CASE("a sender that waited first is received from first") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> ch(1);
    ch.send(1);
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { ch.send(2); });
      await_sender(ch);
      n.go([&] { ch.send(3); });
      n.go([&] {
        for (int k = 1; k <= 3; ++k) explore_expect(ch.recv() == k, "who came later was served before");
      });
    });
  });
}

TEST_CASE("the two ends may be the last to go, in any order, with a value between them") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<tracked> ch(2);
    concur::sender<tracked> in = ch;
    concur::receiver<tracked> out = ch;
    ch = concur::nil;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([in = std::move(in)]() mutable {
        in.send(tracked(1));
        in.send(tracked(2));
      });
      n.go([out = std::move(out)]() mutable { explore_expect(out.recv()->value == 1, "not the first"); });
    });
  });
}

TEST_CASE("values of a type that cannot be copied, handed over with their memory") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<std::unique_ptr<place>> ch;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        for (int i = 1; i <= 2; ++i) {
          auto mine = std::make_unique<place>();
          concur::detail::note_birth(mine.get());
          mine->write(i);
          ch.send(std::move(mine));
        }
      });
      n.go([&] {
        for (int i = 1; i <= 2; ++i) explore_expect((*ch.recv())->read() == i, "another value than was sent");
      });
    });
  });
}

// --- what happens before what ---

TEST_CASE("a rendezvous orders both ways") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<void> ch;
    place there;
    place back;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        there.write(1);
        ch.send();
        explore_expect(back.read() == 2, "the send ended before its receive began");
      });
      n.go([&] {
        back.write(2);
        static_cast<void>(ch.recv());
        explore_expect(there.read() == 1, "the receive ended before its send began");
      });
    });
  });
}

TEST_CASE("a channel with one place of room is a lock") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<void> ch(1);
    place guarded;
    concur::with_nursery([&](concur::nursery& n) {
      for (int i = 0; i < 3; ++i) {
        n.go([&] {
          ch.send();
          guarded.write(guarded.read() + 1);
          static_cast<void>(ch.recv());
        });
      }
    });
    explore_expect(guarded.value == 3, "an update was lost");
  });
}

TEST_CASE("a close happens before the receive that hears of it") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> ch;
    place before;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        before.write(1);
        ch.close();
      });
      for (int i = 0; i < 2; ++i) {
        n.go([&] {
          explore_expect(!ch.recv(), "a value from nowhere");
          explore_expect(before.read() == 1, "the close came before what was done before it");
        });
      }
    });
  });
}

// --- closing ---

TEST_CASE("a close ends every receiver, and what was buffered is still received") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> ch(1);
    int received = 0;
    int ended = 0;
    concur::with_nursery([&](concur::nursery& n) {
      for (int i = 0; i < 2; ++i) {
        n.go([&] {
          while (ch.recv()) ++received;
          ++ended;
        });
      }
      n.go([&] {
        ch.send(1);
        ch.send(2);
        ch.close();
      });
    });
    explore_expect(received == 2, "a value that was sent before the close is lost");
    explore_expect(ended == 2, "a receiver did not hear of the close");
  });
}

TEST_CASE("a close ends every sender, and leaves each its value") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<std::unique_ptr<int>> ch;
    int sent = 0;
    int kept = 0;
    int received = 0;
    concur::with_nursery([&](concur::nursery& n) {
      for (int i = 0; i < 2; ++i) {
        n.go([&] {
          auto mine = std::make_unique<int>(1);
          try {
            ch.send(std::move(mine));
            ++sent;
          } catch (const concur::channel_closed&) {
            explore_expect(mine != nullptr, "a send on a closed channel took the value");
            ++kept;
          }
        });
      }
      n.go([&] { received += ch.recv() ? 1 : 0; });
      n.go([&] { ch.close(); });
    });
    explore_expect(sent + kept == 2 && sent == received, "a value is lost");
  });
}

TEST_CASE("of two who close, one does") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> ch(1);
    int closed = 0;
    std::error_code error;
    bool was_sent = false;
    concur::with_nursery([&](concur::nursery& n) {
      for (int i = 0; i < 2; ++i) n.go([&] { closed += ch.try_close() ? 1 : 0; });
      n.go([&] { was_sent = ch.send(7, error); });
    });
    explore_expect(closed == 1, "both closed, or none");
    explore_expect(ch.recv().has_value() == was_sent, "sent and received do not agree");
  });
}

// --- giving up ---

TEST_CASE("a receiver whose time is up has lost nothing") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> ch;
    int received = 0;
    bool was_sent = false;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        int value = 1;
        was_sent = ch.send_for(value, 2ms) == status::ok;
      });
      n.go([&] {
        int value = 0;
        if (ch.recv_for(value, 2ms) == status::ok) received += value;
      });
    });
    explore_expect(received == (was_sent ? 1 : 0), "sent and received do not agree");
  });
}

TEST_CASE("who gave up is not in the queue any more") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> ch;
    int value = 0;
    int sent = 0;
    int received = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        for (int k = 0; k < 2; ++k) received += ch.recv_for(value, 1ms) == status::ok ? 1 : 0;
      });
      n.go([&] {
        int mine = 1;
        concur::this_fiber::sleep_for(1ms);
        sent += ch.try_send(mine) ? 1 : 0;
      });
    });
    explore_expect(sent == received, "somebody took a value who was gone");
    explore_expect(!has_waiting(ch), "the queue holds the note of a fiber that has gone");
  });
}

TEST_CASE("cancelled senders and receivers: what was sent was received, or lies there") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> ch(1);
    int sent = 0;
    int received = 0;
    concur::with_nursery([&](concur::nursery& n) {
      for (int i = 0; i < 2; ++i) {
        n.go([&] {
          for (;;) {
            ch.send(1);
            ++sent;
          }
        });
      }
      n.go([&] {
        for (int k = 0; k < 2; ++k) {
          static_cast<void>(ch.recv());
          ++received;
        }
        n.cancel();
        static_cast<void>(ch.recv());
        ++received;
      });
    });
    const int left = ch.try_recv() ? 1 : 0;
    explore_expect(sent == received + left, "sent and received do not agree");
    explore_expect(!ch.try_recv() && !has_waiting(ch), "somebody is still in the queue");
  });
}

TEST_CASE("a cancellation against a rendezvous: both ends went, or neither") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> ch;
    bool was_sent = false;
    bool was_received = false;
    concur::cancel_scope sending(concur::deferred);
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        sending.run([&] {
          ch.send(1);
          was_sent = true;
        });
        ch.try_close();
      });
      n.go([&] { was_received = ch.recv().has_value(); });
      n.go([&] { sending.cancel(); });
    });
    explore_expect(was_sent == was_received, "sent and received do not agree");
  });
}

TEST_CASE("a limit of time, a cancellation and a value at once: one of them ends the wait") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> ch;
    int received = 0;
    int sent = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        concur::this_fiber::sleep_for(1ms);
        int value = 1;
        sent += ch.try_send(value) ? 1 : 0;
      });
      n.go([&] {
        concur::this_fiber::sleep_for(1ms);
        n.cancel();
      });
      int value = 0;
      std::error_code error;
      received += ch.recv_for(value, 1ms, error) == status::ok ? 1 : 0;
    });
    explore_expect(sent == received, "sent and received do not agree");
  });
}

// --- moves that throw ---

TEST_CASE("a move that throws costs its own side only, and no value") {
  const nothing_left_over guard;
  for (const std::size_t capacity : {std::size_t{0}, std::size_t{1}}) {
    hold([capacity] {
      concur::channel<picky> ch(capacity);
      int failures = 0;
      int received = 0;
      concur::with_nursery([&](concur::nursery& n) {
        n.go([&] {
          for (int i = 1; i <= 2; ++i) {
            for (bool is_sent = false; !is_sent;) {
              try {
                picky value(i, &failures);
                ch.send(std::move(value));
                is_sent = true;
              } catch (const std::runtime_error&) {
              }
            }
          }
        });
        n.go([&] {
          while (received < 2) {
            try {
              const std::optional<picky> value = ch.recv();
              explore_expect(value->value == received + 1, "a value is lost, or came twice");
              ++received;
            } catch (const std::runtime_error&) {
            }
          }
        });
        n.go([&] { failures = 1; });
      });
    });
  }
}

// --- threads outside ---

TEST_CASE("a thread outside sends, a fiber receives") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<place*> ch;
    place values[2];
    concur::explored_thread outside([&] {
      for (place& one : values) {
        one.write(1);
        ch.send(&one);
      }
    });
    for (place& one : values) {
      const place* const got = ch.recv().value();
      explore_expect(got == &one && got->read() == 1, "another value than was sent");
    }
  });
}

TEST_CASE("a thread outside receives, fibers send and close") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> ch(1);
    int received = 0;
    concur::explored_thread outside([&] {
      while (const std::optional<int> value = ch.recv()) received += *value;
    });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { ch.send(1); });
      n.go([&] { ch.send(2); });
    });
    ch.close();
    outside.join();
    explore_expect(received == 3, "a value is lost");
  });
}

TEST_CASE("threads only: two send with a limit of time, one receives") {
  const nothing_left_over guard;
  hold(
      [] {
        concur::channel<int> ch;
        int sent[2] = {};
        int received = 0;
        {
          concur::explored_thread first([&] {
            int value = 1;
            sent[0] += ch.send_for(value, 1ms) == status::ok ? 1 : 0;
          });
          concur::explored_thread second([&] {
            int value = 2;
            sent[1] += ch.send_for(value, 1ms) == status::ok ? 2 : 0;
          });
          for (int k = 0; k < 2; ++k) {
            int value = 0;
            if (ch.recv_for(value, 1ms) == status::ok) received += value;
          }
        }
        explore_expect(sent[0] + sent[1] == received, "sent and received do not agree");
      },
      {0});
}

// --- what saves the exchanges ---

TEST_CASE("a channel of one worker becomes another's as well: one at a time, whoever is the favourite") {
  const nothing_left_over guard;
  hold([] {
    concur::detail::channel_lock lock;
    place counted;
    concur::with_nursery([&](concur::nursery& n) {
      for (int who = 0; who < 2; ++who) {
        n.go([&] {
          for (int i = 0; i < 5; ++i) {
            const concur::detail::channel_lock_scope held(lock, concur::detail::this_worker());
            const int before = counted.read();
            if (concur::detail::driver* d = concur::detail::driver_or_null()) d->step();
            counted.write(before + 1);
          }
        });
      }
    });
    const concur::detail::channel_lock_scope held(lock, concur::detail::this_worker());
    explore_expect(counted.read() == 10, "two were inside at once");
  });
}

TEST_CASE("who is served and cancelled in the same moment went, or did not") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> ch;
    concur::cancel_scope receiving(concur::deferred);
    int received = 0;
    int sent = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        std::error_code error;
        receiving.run([&] { received += ch.recv(error).value_or(0); });
      });
      n.go([&] { receiving.cancel(); });
      n.go([&] {
        for (int tries = 0; tries < 4 && sent == 0; ++tries) {
          int value = 7;
          if (ch.try_send(value)) sent = 7;
          concur::this_fiber::yield();
        }
      });
    });
    explore_expect(received == sent, "sent and received do not agree");
    explore_expect(!has_waiting(ch), "the queue holds the note of a fiber that has gone");
  });
}
