// tests/install/user.cpp - a program that was told where the header is, and nothing else.
#include <concur.hpp>

int main() {
  int sum = 0;
  concur::run([&] {
    concur::channel<int> numbers(2);
    concur::go([numbers]() mutable {
      for (int i = 1; i <= 4; ++i) numbers.send(i);
      numbers.close();
    });
    for (int number : numbers) sum += number;
  });
  return sum == 10 ? 0 : 1;
}
