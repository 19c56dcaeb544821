// tests/abi/other.cpp - the second unit of the program, or the shared object.
#include "shared.hpp"

void other_fill(concur::channel<int> numbers, int count) {
  for (int i = 1; i <= count; ++i) {
    numbers.send(i);
    if (i % 3 == 0) concur::this_fiber::yield();
  }
  numbers.close();
}

int other_sum(concur::channel<int> numbers) {
  int sum = 0;
  for (int number : numbers) sum += number;
  return sum;
}

int other_run() {
  return concur::run([] {
    concur::channel<int> numbers(1);
    concur::go([numbers] { other_fill(numbers, 10); });
    return other_sum(numbers);
  });
}

bool other_sees_fiber(concur::fiber_id mine) { return concur::this_fiber::get_id() == mine; }

void other_throws_closed(concur::channel<int> closed) { closed.send(1); }

void other_goes(concur::channel<int> numbers, int count) {
  concur::go([numbers, count] { other_fill(numbers, count); });
}
