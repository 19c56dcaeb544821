// tests/happens_before/future_edges.hpp - the edges of go, of futures and of the end of a runtime. All must be silent.
#ifndef CONCUR_TESTS_HAPPENS_BEFORE_FUTURE_EDGES_HPP
#define CONCUR_TESTS_HAPPENS_BEFORE_FUTURE_EDGES_HPP

#include "stage.hpp"

namespace edges {

// A promise and its future, and what most cases do with them.
struct result {
  concur::promise<int> made;
  concur::future<int> wanted = made.get_future();
};

const edge_case go_edges[] = {
    {"go/to_the_fiber", fibers,
     [](stage& s) {
       concur::run(with_workers(s.workers()), [&] {
         s.touch();
         concur::go([&] { s.touch(), s.arrive(1); });
         s.await(1);
       });
     }},
    {"go/end_get", fibers,
     [](stage& s) {
       concur::run(with_workers(s.workers()), [&] {
         auto end = concur::go([&] { s.touch(), s.arrive(1); });
         s.await(1), end.get(), s.touch();
       });
     }},
    {"go/end_wait", fibers,
     [](stage& s) {
       concur::run(with_workers(s.workers()), [&] {
         auto end = concur::go([&] { s.touch(); });
         end.wait(), s.touch();
       });
     }},
    {"go/end_ready", fibers,
     [](stage& s) {
       concur::run(with_workers(s.workers()), [&] {
         auto end = concur::go([&] { s.touch(); });
         while (!end.ready()) concur::this_fiber::yield();
         s.touch();
       });
     }},
    {"go/arguments_and_result", fibers,
     [](stage& s) {
       concur::run(with_workers(s.workers()), [&] {
         auto end = concur::go([](std::vector<int> list) { return list.push_back(2), list; }, std::vector<int>{1});
         MUST(end.get().back() == 2);
       });
     }},
    {"go/from_a_thread", fibers,
     [](stage& s) {
       concur::runtime rt(with_workers(s.workers()));
       s.touch();
       auto end = rt.go([&] { s.touch(), s.arrive(1); });
       s.await(1), end.get(), s.touch();
     }},
    {"go/from_a_thread_ready", fibers,
     [](stage& s) {
       concur::runtime rt(with_workers(s.workers()));
       auto end = rt.go([&] { s.touch(); });
       while (!end.ready()) sched_yield();
       s.touch();
     }},
    {"go/into_another_runtime", fibers,
     [](stage& s) {
       concur::runtime other(with_workers(1));
       concur::run(with_workers(s.workers()), [&] {
         s.touch();
         other.go([&] { s.touch(); }).get();
         s.touch();
       });
     }},
    {"runtime/block_on", fibers,
     [](stage& s) {
       concur::runtime rt(with_workers(s.workers()));
       s.touch(), rt.block_on([&] { s.touch(); }), s.touch();
     }},
    {"runtime/run_returns", fibers,
     [](stage& s) {
       concur::run(with_workers(s.workers()), [&] {
         for (std::size_t i = 0; i < 4; ++i) concur::go([&s, i] { concur::this_fiber::yield(), s.touch(i); });
       });
       for (std::size_t i = 0; i < 4; ++i) s.touch(i);
     }},
    {"runtime/destroyed", fibers,
     [](stage& s) {
       {
         concur::runtime rt(with_workers(s.workers()));
         for (std::size_t i = 0; i < 4; ++i) rt.go([&s, i] { s.touch(i); });
       }
       for (std::size_t i = 0; i < 4; ++i) s.touch(i);
     }},
    {"runtime/cancelled_fiber_ends", fibers,
     [](stage& s) {
       {
         concur::runtime rt(with_workers(s.workers()));
         rt.go([&] {
           s.arrive(1);
           try {
             concur::this_fiber::sleep_for(1h);
           } catch (const concur::cancelled&) {
             s.touch();
             throw;
           }
         });
         s.await(1);
       }
       s.touch();
     }},
};

const edge_case promise_edges[] = {
    {"promise/get_waits", everywhere,
     [](stage& s) {
       result r;
       s.play([&] { s.await_parked(1), s.touch(), r.made.set_value(1); }, [&] { r.wanted.get(), s.touch(); });
     }},
    {"promise/get_finds", everywhere,
     [](stage& s) {
       result r;
       s.play([&] { s.touch(), r.made.set_value(1), s.arrive(1); }, [&] { s.await(1), r.wanted.get(), s.touch(); });
     }},
    {"promise/wait", everywhere,
     [](stage& s) {
       result r;
       s.play([&] { s.touch(), r.made.set_value(1), s.arrive(1); }, [&] { s.await(1), r.wanted.wait(), s.touch(); });
     }},
    {"promise/wait_for", everywhere,
     [](stage& s) {
       result r;
       s.play([&] { s.await_parked(1), s.touch(), MUST(r.made.try_set_value(1)); },
              [&] { MUST(r.wanted.wait_for(10s)), s.touch(); });
     }},
    {"promise/ready", everywhere,
     [](stage& s) {
       result r;
       s.play([&] { s.touch(), r.made.set_value(1), s.arrive(1); },
              [&] { s.await(1), MUST(r.wanted.ready()), s.touch(); });
     }},
    {"promise/exception", everywhere,
     [](stage& s) {
       result r;
       s.play([&] { s.await_parked(1), s.touch(), r.made.set_exception(std::make_exception_ptr(1)); },
              [&] {
                try {
                  r.wanted.get();
                } catch (int) {
                  s.touch();
                }
              });
     }},
    {"promise/broken", everywhere,
     [](stage& s) {
       result r;
       s.play(
           [&] {
             s.await_parked(1), s.touch();
             concur::promise<int> gone(std::move(r.made));
           },
           [&] { r.wanted.wait(), s.touch(); });
     }},
    {"promise/then_before", everywhere,
     [](stage& s) {
       result r;
       s.play([&] { s.await(1), s.touch(0), r.made.set_value(1); },
              [&] {
                s.touch(1);
                auto end = r.wanted.then([&](int) { s.touch(0), s.touch(1), s.touch(2); });
                s.arrive(1), end.get(), s.touch(0), s.touch(2);
              });
     }},
    {"promise/then_after", everywhere,
     [](stage& s) {
       result r;
       s.play([&] { s.touch(), r.made.set_value(1), s.arrive(1); },
              [&] { s.await(1), r.wanted.then([&](int) { s.touch(); }).get(); });
     }},
    {"promise/or_else", everywhere,
     [](stage& s) {
       result r;
       s.play([&] { s.await(1), s.touch(), r.made.set_exception(std::make_exception_ptr(1)); },
              [&] {
                auto end = r.wanted.or_else([&](std::exception_ptr) { return s.touch(), 2; });
                s.arrive(1), MUST(end.get() == 2), s.touch();
              });
     }},
    {"promise/on_ready_before", everywhere,
     [](stage& s) {
       result r;
       s.play([&] { s.await(1), r.made.set_value(1); },
              [&] { s.touch(), r.wanted.on_ready([&] { s.touch(); }), s.arrive(1); });
     }},
    {"promise/on_ready_after", everywhere,
     [](stage& s) {
       result r;
       s.play([&] { s.touch(), r.made.set_value(1), s.arrive(1); },
              [&] { s.await(1), r.wanted.on_ready([&] { s.touch(); }); });
     }},
};

const edge_case many_edges[] = {
    {"shared_future/get_waits", everywhere,
     [](stage& s) {
       result r;
       const concur::shared_future<int> all = r.wanted.share();
       s.play([&] { s.await_parked(1), s.touch(), r.made.set_value(1); }, [&] { all.get(), s.look(); },
              [&, mine = all] { mine.get(), s.look(); });
     }},
    {"shared_future/get_finds", everywhere,
     [](stage& s) {
       result r;
       const concur::shared_future<int> all = r.wanted.share();
       s.play([&] { s.touch(), r.made.set_value(1), s.arrive(1); }, [&] { s.await(1), all.get(), s.look(); },
              [&, mine = all] { s.await(1), mine.get(), s.look(); });
     }},
    {"shared_future/then", everywhere,
     [](stage& s) {
       result r;
       const concur::shared_future<int> all = r.wanted.share();
       s.play([&] { s.await(1), s.touch(), r.made.set_value(1); },
              [&] {
                auto end = all.then([&](int) { s.touch(); });
                s.arrive(1), end.get(), s.touch();
              });
     }},
    {"when_all/each_result", everywhere,
     [](stage& s) {
       result a;
       result b;
       s.play([&] { s.touch(0), a.made.set_value(1), s.arrive(1); },
              [&] { concur::when_all(std::move(a.wanted), std::move(b.wanted)).get(), s.touch(0), s.touch(1); },
              [&] { s.await(1), s.await_parked(1), s.touch(1), b.made.set_value(1); });
     }},
    {"when_all/all_there", everywhere,
     [](stage& s) {
       result a;
       result b;
       s.play([&] { s.touch(0), a.made.set_value(1), s.arrive(1); },
              [&] {
                s.await(2);
                concur::when_all(std::move(a.wanted), std::move(b.wanted)).get();
                s.touch(0), s.touch(1);
              },
              [&] { s.await(1), s.touch(1), b.made.set_value(1), s.arrive(2); });
     }},
    {"when_any/the_first_result", everywhere,
     [](stage& s) {
       result a;
       result b;
       s.play([&] { s.await_parked(1), s.touch(), a.made.set_value(1); },
              [&] {
                MUST(concur::when_any(std::move(a.wanted), std::move(b.wanted)).get().index == 0);
                s.touch();
              });
     }},
    {"when_any/one_is_there", everywhere,
     [](stage& s) {
       result a;
       result b;
       s.play([&] { s.touch(), b.made.set_value(1), s.arrive(1); },
              [&] {
                s.await(1);
                MUST(concur::when_any(std::move(a.wanted), std::move(b.wanted)).get().index == 1);
                s.touch();
              });
     }},
};

}  // namespace edges

#endif
