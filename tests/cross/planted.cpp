// tests/cross/planted.cpp - bugs inside a context that the sanitizers must report, in spite of the strange stack.
//
//     planted overflow|return|race|none
//
// With `none` it does the same without the bug and must be silent.
#include "concur.hpp"
#include "support/bare_context.hpp"

#include <cstdio>
#include <cstring>
#include <thread>

namespace {

const char* planted = "none";
int shared = 0;
volatile int past_the_end = 8;
int* volatile kept = nullptr;

bool plants(const char* what) { return std::strcmp(planted, what) == 0; }

__attribute__((noinline)) int reads_past_the_end(bare_context& self) {
  int local[8] = {};
  self.pause(nullptr);
  return local[plants("overflow") ? past_the_end : 7];
}

__attribute__((noinline)) void keeps_address_of_local() {
  int local = 5;
  kept = &local;
}

void body(bare_context& self, void*) {
  past_the_end = past_the_end + reads_past_the_end(self);
  self.pause(nullptr);
  keeps_address_of_local();
  self.pause(nullptr);
  if (plants("return")) past_the_end = *kept;
  self.pause(nullptr);
}

// Two threads, each in a context, without any order between them.
void increments(bare_context& self, void*) {
  for (int i = 0; i < 1000; ++i) {
    if (plants("race")) ++shared;
    if (i % 100 == 0) self.pause(nullptr);
  }
}

void run_to_end(void (*what)(bare_context&, void*)) {
  bare_context context(what);
  while (!context.is_done()) context.resume(nullptr);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) planted = argv[1];
  run_to_end(&body);
  std::thread other([] { run_to_end(&increments); });
  run_to_end(&increments);
  other.join();
  std::printf("%s: went unnoticed\n", planted);
  return 0;
}
