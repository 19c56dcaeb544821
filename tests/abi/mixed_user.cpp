// tests/abi/mixed_user.cpp - asks for a function that takes one of our types; compiled with other options than its owner.
#include "concur.hpp"

int owner_size(concur::channel<int> numbers);

int main() { return owner_size(concur::channel<int>(1)); }
