// explore_fuzz_seeds.cpp - the committed programs of the fuzz target `operations`, each under schedules beside its own.
#include "support/scenario.hpp"

#include "fuzz/operations.hpp"
#include "fuzz/seeds.hpp"

TEST_CASE("every program of the fuzz target holds what it must") {
  const nothing_left_over guard;
  constexpr std::uint64_t schedules = CONCUR_ASAN != 0 || CONCUR_TSAN != 0 ? 10 : 200;
  const auto seeds = fuzz::seeds_of(__FILE__, "operations");
  CHECK(seeds.size() >= 15);
  for (const auto& seed : seeds) {
    const std::string& name = seed.first;
    const auto& input = seed.second;
    CAPTURE(name);
    CHECK(fuzz::try_operations(input) == "");
    fuzz::operations_program program = fuzz::operations_parser(input).parse();
    for (std::uint64_t i = 0; i < schedules; ++i) {
      program.priorities = static_cast<unsigned>(i % 4);
      program.seed = 1000 + i;
      const std::string finding = fuzz::run_operations(program);
      CAPTURE(i);
      CHECK(finding == "");
      if (!finding.empty()) return;  // what is left of a failed schedule would disturb the next
    }
  }
}
