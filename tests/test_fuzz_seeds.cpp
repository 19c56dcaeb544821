// test_fuzz_seeds.cpp - the committed inputs of the fuzz targets that need no schedules, played again (fuzz/run.sh).
#include "support/test.hpp"

#include "fuzz/http_parser.hpp"
#include "fuzz/seeds.hpp"
#include "fuzz/timers.hpp"

TEST_CASE("the parser does with each seed what it must, however the bytes are split") {
  const nothing_left_over guard;
  const auto seeds = fuzz::seeds_of(__FILE__, "http_parser");
  CHECK(seeds.size() >= 20);
  for (const auto& seed : seeds) {
    const std::string& name = seed.first;
    const auto& input = seed.second;
    CAPTURE(name);
    CHECK(fuzz::try_http_parser(input) == "");
  }
}

TEST_CASE("the timers do with each seed what a sorted list does") {
  const nothing_left_over guard;
  const auto seeds = fuzz::seeds_of(__FILE__, "timers");
  CHECK(seeds.size() >= 10);
  for (const auto& seed : seeds) {
    const std::string& name = seed.first;
    const auto& input = seed.second;
    CAPTURE(name);
    CHECK(fuzz::try_timers(input) == "");
  }
}
