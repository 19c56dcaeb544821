// tests/abi/mixed_owner.cpp - has the function that mixed_user.cpp asks for.
#include "concur.hpp"

int owner_size(concur::channel<int> numbers) { return static_cast<int>(numbers.size()); }
