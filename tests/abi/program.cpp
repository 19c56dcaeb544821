// tests/abi/program.cpp - the first unit: uses the other one, linked in, linked as a shared object, or loaded by dlopen.
//
// One step a line, so that what fails says where. The steps are numbered in the exit status.
#include "shared.hpp"

#include <cstdio>

#if defined(ABI_DLOPEN)
#  include <dlfcn.h>

namespace {

// The functions of the other side, found by their mangled names, as a plug-in's would be.
template <class Function>
Function* find(void* object, const char* name) {
  void* found = dlsym(object, name);
  if (found == nullptr) std::printf("dlsym: %s\n", dlerror());
  return reinterpret_cast<Function*>(found);
}

}  // namespace
#endif

namespace {

int step = 0;

bool expect(bool holds, const char* what) {
  ++step;
  std::fprintf(stderr, "step %d: %s: %s\n", step, what, holds ? "yes" : "NO");
  return holds;
}

template <class Fill, class Sum, class Sees, class Throws, class Goes>
bool inside(Fill fill, Sum sum, Sees sees, Throws throws_closed, Goes goes) {
  bool good = true;
  concur::channel<int> first;
  concur::go([first, fill] { fill(first, 10); });
  good &= expect(sum(first) == 55, "filled there, summed there, channel from here");

  concur::channel<int> second(2);
  concur::go([second, fill] { fill(second, 100); });
  int total = 0;
  for (int number : second) total += number;
  good &= expect(total == 5050, "filled there, summed here");

  good &= expect(sees(concur::this_fiber::get_id()), "both sides agree on which fiber this is");

  bool caught = false;
  try {
    throws_closed(second);
  } catch (const concur::channel_closed&) {
    caught = true;
  }
  good &= expect(caught, "channel_closed thrown there is caught here");

  concur::channel<int> third;
  goes(third, 20);
  total = 0;
  for (int number : third) total += number;
  good &= expect(total == 210, "a fiber started there fills a channel from here");
  return good;
}

}  // namespace

int main(int count, char** words) {
  bool good = true;
#if defined(ABI_DLOPEN)
  void* object = dlopen(count > 1 ? words[1] : "", RTLD_NOW | RTLD_LOCAL);
  if (object == nullptr) {
    std::printf("dlopen: %s\n", dlerror());
    return 1;
  }
  auto* run_there = find<int()>(object, "plugin_run");
  auto* fill = find<void(concur::channel<int>, int)>(object, "plugin_fill");
  auto* sum = find<int(concur::channel<int>)>(object, "plugin_sum");
  auto* sees = find<bool(concur::fiber_id)>(object, "plugin_sees_fiber");
  auto* throws_closed = find<void(concur::channel<int>)>(object, "plugin_throws_closed");
  auto* goes = find<void(concur::channel<int>, int)>(object, "plugin_goes");
  if (run_there == nullptr || fill == nullptr || sum == nullptr || sees == nullptr || throws_closed == nullptr ||
      goes == nullptr) {
    return 1;
  }
#else
  (void)count, (void)words;
  auto* run_there = other_run;
  auto* fill = other_fill;
  auto* sum = other_sum;
  auto* sees = other_sees_fiber;
  auto* throws_closed = other_throws_closed;
  auto* goes = other_goes;
#endif
  good &= expect(run_there() == 55, "a runtime started there");
  concur::options two;
  two.workers = 2;
  good &= concur::run(two, [&] { return inside(fill, sum, sees, throws_closed, goes); });
  good &= expect(run_there() == 55, "a runtime started there, again");
  std::printf("%d steps, %s\n", step, good ? "all good" : "FAILED");
  return good && step == 7 ? 0 : 1;
}
