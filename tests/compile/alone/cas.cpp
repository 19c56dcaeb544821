// tests/compile/alone/cas.cpp - atomic/cas.hpp without the rest.
#include "atomic/cas.hpp"

int main() {
  std::atomic<int> number{1};
  concur::cas_update(number, [](int v) { return v + 1; });
  concur::cas_update(number, [](int v) { return v > 5 ? std::optional<int>(0) : std::nullopt; });
  concur::fetch_max(number, 7);
  concur::fetch_min(number, 6, std::memory_order_relaxed);
  return number.load() == 6 ? 0 : 1;
}
