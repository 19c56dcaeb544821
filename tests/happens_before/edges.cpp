// edges.cpp - happens-before, edge by edge, for ThreadSanitizer to judge. run.sh plays all of it.
//
// usage: edges list             each case: `edge` or `none`, its name, and the places it is played at; `#` what is left out
//        edges <case> <place>   plays it once
//
// An `edge` must be silent, and ends with 0. A `none` must be reported, and ends with the tool's exit code. 3: the case
// did not come about as it was meant.
#include <cstring>

#include "channel_edges.hpp"
#include "future_edges.hpp"
#include "gate_edges.hpp"
#include "lock_edges.hpp"
#include "no_edges.hpp"
#include "nursery_edges.hpp"
#include "parallel_edges.hpp"
#include "stage.hpp"

namespace {

const edges::stage* current = nullptr;

struct named_place {
  const char* name;
  edges::place where;
};
constexpr named_place places[] = {
    {"threads", edges::threads}, {"fibers1", edges::fibers1},   {"fibers2", edges::fibers2},
    {"mixed", edges::mixed},     {"runtimes", edges::runtimes},
};

// Calls visit(expected, case) for each; the first that returns true ends it.
template <class Visit>
bool visit_all(Visit visit) {
  const auto group = [&](const char* expected, const auto& list) {
    for (const edges::edge_case& one : list) {
      if (visit(expected, one)) return true;
    }
    return false;
  };
  const auto groups = [&](const char* expected, const auto&... lists) { return (group(expected, lists) || ...); };
  using namespace edges;
  return groups("edge", send_edges, room_edges, close_edges, select_edges, mutex_edges, shared_edges, condition_edges,
                semaphore_edges, latch_edges, barrier_edges, event_edges, group_edges, once_edges, pool_edges, go_edges,
                promise_edges, many_edges, nursery_edges, parallel_edges) ||
         groups("none", no_channel_edges, no_lock_edges, no_gate_edges, no_future_edges, no_parallel_edges);
}

void print_list() {
  visit_all([](const char* expected, const edges::edge_case& one) {
    std::printf("%s %s", expected, one.name);
    for (const named_place& p : places) {
      if ((one.places & p.where) != 0) std::printf(" %s", p.name);
    }
    std::printf("\n");
    return false;
  });
  for (const char* reason : edges::left_out) std::printf("# %s\n", reason);
}

}  // namespace

// The tool calls it with each report. One about other memory is not what a case without an edge is after.
extern "C" {
int __tsan_get_report_mop(void* report, unsigned long index, int* thread, void** address, int* size, int* is_write,
                          int* is_atomic, void** trace, unsigned long trace_size);
void __tsan_on_report(void* report);
void __tsan_on_report(void* report) {
  int unused[4] = {};
  void* address = nullptr;
  void* trace = nullptr;
  const int has_access =
      __tsan_get_report_mop(report, 0, &unused[0], &address, &unused[1], &unused[2], &unused[3], &trace, 1);
  if (has_access == 0 || current == nullptr || !current->has(address)) std::fputs("a report of other memory\n", stderr);
}
}

int main(int count, char** arguments) {
  if (count == 2 && std::strcmp(arguments[1], "list") == 0) return print_list(), 0;
  for (const named_place& p : places) {
    if (count != 3 || std::strcmp(arguments[2], p.name) != 0) continue;
    const auto play = [&](const char*, const edges::edge_case& one) {
      if (std::strcmp(arguments[1], one.name) != 0 || (one.places & p.where) == 0) return false;
      edges::stage s(p.where);
      current = &s;
      one.run(s);
      return true;
    };
    if (visit_all(play)) return 0;
  }
  std::fprintf(stderr, "usage: edges list | edges <case> <place>\n");
  return 2;
}
