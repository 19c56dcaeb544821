// tests/compile/alone/work_stealing_deque.cpp - atomic/work_stealing_deque.hpp without the rest.
#include "atomic/work_stealing_deque.hpp"

int main() {
  concur::work_stealing_deque<int> deque(4);
  const bool are_in = deque.try_push(1) && deque.try_push(2);
  return are_in && deque.try_steal().value == 1 && deque.try_pop() == 2 ? 0 : 1;
}
