// tests/fuzz/fuzz.cpp - what libFuzzer calls: one of the targets, named by -DFUZZ_TARGET=http_parser, timers, operations.
//
// A target takes an input and returns what it found, in words; empty: nothing. test_fuzz_seeds.cpp calls the same functions
// with the committed inputs.
#define FUZZ_http_parser 1
#define FUZZ_timers 2
#define FUZZ_operations 3
#define FUZZ_JOINED(a, b) a##b
#define FUZZ_JOIN(a, b) FUZZ_JOINED(a, b)
#define FUZZ_CHOSEN FUZZ_JOIN(FUZZ_, FUZZ_TARGET)

#if FUZZ_CHOSEN == FUZZ_http_parser
#  include "fuzz/http_parser.hpp"
#elif FUZZ_CHOSEN == FUZZ_timers
#  include "fuzz/timers.hpp"
#elif FUZZ_CHOSEN == FUZZ_operations
#  include "fuzz/operations.hpp"
#else
#  error "-DFUZZ_TARGET= names one of the targets"
#endif

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string finding =
      fuzz::FUZZ_JOIN(try_, FUZZ_TARGET)(std::string_view(reinterpret_cast<const char*>(data), size));
  if (finding.empty()) return 0;
  std::fprintf(stderr, "FINDING %s\n", finding.c_str());
  std::abort();
}
