// tests/compile/alone/cache_padded.cpp - atomic/cache_padded.hpp without the rest.
#include "atomic/cache_padded.hpp"

int main() {
  concur::cache_padded<int> counts[2];
  *counts[1] += 3;
  return *counts[0] + *counts[1] == 3 ? 0 : 1;
}
