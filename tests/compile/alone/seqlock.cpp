// tests/compile/alone/seqlock.cpp - atomic/seqlock.hpp without the rest.
#include "atomic/seqlock.hpp"

int main() {
  concur::seqlock<long> value(1);
  value.write(2);
  value.update([](long& v) { ++v; });
  return value.read() == 3 && value.try_read() == 3 ? 0 : 1;
}
