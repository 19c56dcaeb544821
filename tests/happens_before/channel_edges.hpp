// tests/happens_before/channel_edges.hpp - the edges of channels and of select. All must be silent.
#ifndef CONCUR_TESTS_HAPPENS_BEFORE_CHANNEL_EDGES_HPP
#define CONCUR_TESTS_HAPPENS_BEFORE_CHANNEL_EDGES_HPP

#include "stage.hpp"

namespace edges {

// A send happens before the receive of its value.
const edge_case send_edges[] = {
    {"send_recv/rendezvous_sender_waits", everywhere,
     [](stage& s) {
       concur::channel<int> ch;
       s.play([&] { s.touch(), ch.send(1); }, [&] { s.await_parked(0), MUST(ch.recv().has_value()), s.touch(); });
     }},
    {"send_recv/rendezvous_receiver_waits", everywhere,
     [](stage& s) {
       concur::channel<int> ch;
       s.play([&] { s.await_parked(1), s.touch(), ch.send(1); }, [&] { MUST(ch.recv().has_value()), s.touch(); });
     }},
    {"send_recv/through_the_ring", everywhere,
     [](stage& s) {
       concur::channel<int> ch(2);
       s.play([&] { s.touch(), ch.send(1), s.arrive(1); },
              [&] { s.await(1), MUST(ch.recv().has_value()), s.touch(); });
     }},
    {"send_recv/buffered_receiver_waits", everywhere,
     [](stage& s) {
       concur::channel<int> ch(2);
       s.play([&] { s.await_parked(1), s.touch(), ch.send(1); }, [&] { MUST(ch.recv().has_value()), s.touch(); });
     }},
    {"send_recv/moves_up_into_the_ring", everywhere,
     [](stage& s) {
       concur::channel<int> ch(1);
       s.play([&] { ch.send(0), s.touch(), ch.send(1); },
              [&] { s.await_parked(0), MUST(ch.recv() == 0), s.arrive(1); },
              [&] { s.await(1), MUST(ch.recv() == 1), s.touch(); });
     }},
    {"send_recv/try_send_try_recv", everywhere,
     [](stage& s) {
       concur::channel<int> ch(1);
       s.play([&] { s.touch(), MUST(ch.try_send(1)), s.arrive(1); },
              [&] { s.await(1), MUST(ch.try_recv().has_value()), s.touch(); });
     }},
    {"send_recv/with_limits", everywhere,
     [](stage& s) {
       concur::channel<int> ch;
       s.play(
           [&] {
             int value = 1;
             s.touch();
             MUST(ch.send_for(value, 10s) == concur::status::ok);
           },
           [&] {
             int value = 0;
             s.await_parked(0);
             MUST(ch.recv_for(value, 10s) == concur::status::ok);
             s.touch();
           });
     }},
    {"send_recv/iterator", everywhere,
     [](stage& s) {
       concur::channel<int> ch(1);
       s.play([&] { s.touch(), ch.send(1), ch.close(); },
              [&] {
                for (int value : ch) MUST(value == 1), s.touch();
              });
     }},
    {"send_recv/the_value_itself", everywhere,
     [](stage& s) {
       concur::channel<std::vector<int>> ch(1);
       s.play([&] { ch.send(std::vector<int>{1, 2, 3}), s.arrive(1); },
              [&] { s.await(1), MUST(ch.recv()->at(2) == 3); });
     }},
    {"send_recv/void_sender_waits", everywhere,
     [](stage& s) {
       concur::channel<void> ch;
       s.play([&] { s.touch(), ch.send(); }, [&] { s.await_parked(0), MUST(ch.recv()), s.touch(); });
     }},
    {"send_recv/void_receiver_waits", everywhere,
     [](stage& s) {
       concur::channel<void> ch;
       s.play([&] { s.await_parked(1), s.touch(), ch.send(); }, [&] { MUST(ch.recv()), s.touch(); });
     }},
};

// The k-th receive happens before the (k+C)-th send completes.
const edge_case room_edges[] = {
    {"recv_send/capacity_0_sender_waits", everywhere,
     [](stage& s) {
       concur::channel<int> ch;
       s.play([&] { s.await_parked(1), s.touch(), MUST(ch.recv() == 1); }, [&] { ch.send(1), s.touch(); });
     }},
    {"recv_send/capacity_0_receiver_waits", everywhere,
     [](stage& s) {
       concur::channel<int> ch;
       s.play([&] { s.touch(), MUST(ch.recv() == 1); }, [&] { s.await_parked(0), ch.send(1), s.touch(); });
     }},
    {"recv_send/capacity_1_sender_waits", everywhere,
     [](stage& s) {
       concur::channel<int> ch(1);
       s.play([&] { s.await_parked(1), s.touch(), MUST(ch.recv() == 1); },
              [&] { ch.send(1), ch.send(2), s.touch(); });
     }},
    {"recv_send/capacity_1_room_is_there", everywhere,
     [](stage& s) {
       concur::channel<int> ch(1);
       s.play([&] { s.await(1), s.touch(), MUST(ch.recv() == 1), s.arrive(2); },
              [&] { ch.send(1), s.arrive(1), s.await(2), ch.send(2), s.touch(); });
     }},
    {"recv_send/capacity_3_sender_waits", everywhere,
     [](stage& s) {
       concur::channel<int> ch(3);
       s.play([&] { s.await_parked(1), s.touch(), MUST(ch.recv() == 1); },
              [&] {
                for (int i = 1; i <= 4; ++i) ch.send(i);
                s.touch();
              });
     }},
    {"recv_send/capacity_3_second_receive", everywhere,
     [](stage& s) {
       concur::channel<int> ch(3);
       s.play([&] { s.await(1), MUST(ch.recv() == 1), s.touch(), MUST(ch.recv() == 2), s.arrive(2); },
              [&] {
                for (int i = 1; i <= 3; ++i) ch.send(i);
                s.arrive(1), s.await(2);
                ch.send(4), ch.send(5), s.touch();
              });
     }},
};

// A close happens before the receive that sees it.
const edge_case close_edges[] = {
    {"close_recv/receiver_waits", everywhere,
     [](stage& s) {
       concur::channel<int> ch;
       s.play([&] { s.await_parked(1), s.touch(), ch.close(); }, [&] { MUST(!ch.recv()), s.touch(); });
     }},
    {"close_recv/closed_before", everywhere,
     [](stage& s) {
       concur::channel<int> ch;
       s.play([&] { s.touch(), ch.close(), s.arrive(1); }, [&] { s.await(1), MUST(!ch.recv()), s.touch(); });
     }},
    {"close_recv/drained_first", everywhere,
     [](stage& s) {
       concur::channel<int> ch(2);
       s.play([&] { ch.send(1), s.touch(), MUST(ch.try_close()), s.arrive(1); },
              [&] { s.await(1), MUST(ch.recv() == 1), MUST(!ch.recv()), s.touch(); });
     }},
    {"close_recv/with_limit", everywhere,
     [](stage& s) {
       concur::channel<int> ch;
       s.play([&] { s.await_parked(1), s.touch(), ch.close(); },
              [&] {
                int value = 0;
                MUST(ch.recv_for(value, 10s) == concur::status::closed);
                s.touch();
              });
     }},
    {"close_recv/void", everywhere,
     [](stage& s) {
       concur::channel<void> ch;
       s.play([&] { s.await_parked(1), s.touch(), ch.close(); }, [&] { MUST(!ch.recv()), s.touch(); });
     }},
};

const edge_case select_edges[] = {
    {"select/send_case_waits", everywhere,
     [](stage& s) {
       concur::channel<int> ch;
       concur::channel<int> other;
       s.play([&] { s.touch(), concur::select(concur::send(ch, 1, [] {}), concur::recv(other, [](auto) {})); },
              [&] { s.await_parked(0), MUST(ch.recv() == 1), s.touch(); });
     }},
    {"select/send_case_finds_receiver", everywhere,
     [](stage& s) {
       concur::channel<int> ch;
       s.play([&] { s.await_parked(1), s.touch(), concur::select(concur::send(ch, 1, [] {})); },
              [&] { MUST(ch.recv() == 1), s.touch(); });
     }},
    {"select/send_case_into_the_ring", everywhere,
     [](stage& s) {
       concur::channel<int> ch(1);
       s.play([&] { s.touch(), concur::select(concur::send(ch, 1, [] {})), s.arrive(1); },
              [&] { s.await(1), MUST(ch.recv() == 1), s.touch(); });
     }},
    {"select/recv_case_waits", everywhere,
     [](stage& s) {
       concur::channel<int> ch;
       concur::channel<int> other;
       s.play([&] { s.await_parked(1), s.touch(), ch.send(1); },
              [&] { concur::select(concur::recv(other, [](auto) {}), concur::recv(ch, [&](auto) { s.touch(); })); });
     }},
    {"select/recv_case_finds_sender", everywhere,
     [](stage& s) {
       concur::channel<int> ch;
       s.play([&] { s.touch(), ch.send(1); },
              [&] { s.await_parked(0), concur::select(concur::recv(ch, [&](auto) { s.touch(); })); });
     }},
    {"select/recv_case_from_the_ring", everywhere,
     [](stage& s) {
       concur::channel<int> ch(1);
       s.play([&] { s.touch(), ch.send(1), s.arrive(1); },
              [&] { s.await(1), concur::select(concur::recv(ch, [&](auto) { s.touch(); })); });
     }},
    {"select/select_meets_select", everywhere,
     [](stage& s) {
       concur::channel<int> ch;
       concur::channel<int> other;
       s.play([&] { s.await_parked(1), s.touch(), concur::select(concur::send(ch, 1, [] {})); },
              [&] { concur::select(concur::recv(other, [](auto) {}), concur::recv(ch, [&](auto) { s.touch(); })); });
     }},
    {"select/recv_before_send_case_completes", everywhere,
     [](stage& s) {
       concur::channel<int> ch;
       s.play([&] { s.await_parked(1), s.touch(), MUST(ch.recv() == 1); },
              [&] { concur::select(concur::send(ch, 1, [&] { s.touch(); })); });
     }},
    {"select/recv_case_before_send_completes", everywhere,
     [](stage& s) {
       concur::channel<int> ch;
       s.play([&] { s.await_parked(1), s.touch(), concur::select(concur::recv(ch, [](auto) {})); },
              [&] { ch.send(1), s.touch(); });
     }},
    {"select/waiting_recv_case_before_send_completes", everywhere,
     [](stage& s) {
       concur::channel<int> ch;
       s.play([&] { s.touch(), concur::select(concur::recv(ch, [](auto) {})); },
              [&] { s.await_parked(0), ch.send(1), s.touch(); });
     }},
    {"select/close_while_it_waits", everywhere,
     [](stage& s) {
       concur::channel<int> ch;
       concur::channel<int> other;
       s.play([&] { s.await_parked(1), s.touch(), ch.close(); },
              [&] { concur::select(concur::recv(other, [](auto) {}), concur::recv(ch, [&](auto) { s.touch(); })); });
     }},
    {"select/closed_before", everywhere,
     [](stage& s) {
       concur::channel<int> ch;
       s.play([&] { s.touch(), ch.close(), s.arrive(1); },
              [&] { s.await(1), concur::select(concur::recv(ch, [&](auto) { s.touch(); })); });
     }},
    {"select/future_while_it_waits", everywhere,
     [](stage& s) {
       concur::promise<int> made;
       concur::future<int> wanted = made.get_future();
       concur::channel<int> other;
       s.play([&] { s.await_parked(1), s.touch(), made.set_value(1); },
              [&] {
                concur::select(concur::recv(other, [](auto) {}), concur::ready(wanted, [&] { s.touch(); }));
              });
     }},
    {"select/future_ready_before", everywhere,
     [](stage& s) {
       concur::promise<int> made;
       concur::future<int> wanted = made.get_future();
       s.play([&] { s.touch(), made.set_value(1), s.arrive(1); },
              [&] { s.await(1), concur::select(concur::ready(wanted, [&] { s.touch(); })); });
     }},
    {"select/selector_waits", everywhere,
     [](stage& s) {
       concur::channel<int> ch;
       concur::channel<int> other;
       s.play([&] { s.await_parked(1), s.touch(), ch.send(1); },
              [&] {
                concur::selector many;
                many.add(concur::recv(other, [](auto) {}));
                many.add(concur::recv(ch, [&](auto) { s.touch(); }));
                MUST(many.wait() == 1);
              });
     }},
    {"select/timer_does_not_spoil_the_edge", everywhere,
     [](stage& s) {
       concur::channel<int> ch;
       s.play([&] { s.await_parked(1), s.touch(), ch.send(1); },
              [&] { concur::select(concur::after(10s, [] {}), concur::recv(ch, [&](auto) { s.touch(); })); });
     }},
};

}  // namespace edges

#endif
