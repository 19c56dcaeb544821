// tests/fuzz/seeds.hpp - the committed inputs of a target, for the tests that play them again without a fuzzer.
#ifndef CONCUR_TESTS_FUZZ_SEEDS_HPP
#define CONCUR_TESTS_FUZZ_SEEDS_HPP

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

namespace fuzz {

// Names and contents. `source` is the file of the test, which lies beside fuzz/.
inline std::vector<std::pair<std::string, std::string>> seeds_of(const char* source, const std::string& target) {
  std::vector<std::pair<std::string, std::string>> all;
  const std::filesystem::path folder = std::filesystem::path(source).parent_path() / "fuzz" / "seeds" / target;
  std::error_code error;  // a folder that is not there has no seeds
  for (const auto& each : std::filesystem::directory_iterator(folder, error)) {
    std::ifstream file(each.path(), std::ios::binary);
    all.emplace_back(each.path().filename().string(),
                     std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()));
  }
  std::sort(all.begin(), all.end());
  return all;
}

}  // namespace fuzz

#endif
