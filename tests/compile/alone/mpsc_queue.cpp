// tests/compile/alone/mpsc_queue.cpp - atomic/mpsc_queue.hpp without the rest.
#include "atomic/mpsc_queue.hpp"

int main() {
  concur::mpsc_queue<int> queue(2);
  const bool is_in = queue.try_push(3);
  return is_in && queue.try_pop() == 3 && !queue.try_pop() ? 0 : 1;
}
