// tests/compile/alone/striped_counter.cpp - atomic/striped_counter.hpp without the rest.
#include "atomic/striped_counter.hpp"

int main() {
  concur::striped_counter count;
  count.add(3);
  count.sub();
  return count.sum() == 2 ? 0 : 1;
}
