// tests/compile/alone/treiber_stack.cpp - atomic/treiber_stack.hpp without the rest.
#include "atomic/treiber_stack.hpp"

int main() {
  concur::treiber_stack<int> stack(2);
  const bool is_in = stack.try_push(3);
  return is_in && stack.try_pop() == 3 && !stack.try_pop() ? 0 : 1;
}
