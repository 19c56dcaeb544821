// test_intrusive.cpp - the lists whose links the caller owns, against std::deque.
#include "support/test.hpp"

#include <algorithm>
#include <deque>
#include <random>

using concur::detail::intrusive_list;
using concur::detail::intrusive_queue;

namespace {

struct item {
  item* next = nullptr;
  item* prev = nullptr;
};

}  // namespace

TEST_CASE("queue: a chain goes in front, of nothing and of something") {
  item all[4];
  intrusive_queue<item> queue;
  for (int round = 0; round < 2; ++round) {
    all[1].next = &all[2];
    queue.push_front(&all[1], &all[2]);
    queue.push(&all[3]);
    queue.push_front(&all[0], &all[0]);
    for (item& one : all) CHECK(queue.pop() == &one);
    CHECK(queue.is_empty());
  }
}

TEST_CASE("queue: in order, appended, emptied, reused") {
  item all[6];
  intrusive_queue<item> a;
  intrusive_queue<item> b;
  CHECK(a.is_empty());
  CHECK(a.pop() == nullptr);
  a.append(b);
  CHECK(a.is_empty());
  for (int round = 0; round < 3; ++round) {
    for (int i = 3; i < 6; ++i) b.push(&all[i]);
    if (round != 1) {
      for (int i = 0; i < 3; ++i) a.push(&all[i]);
    }
    a.append(b);
    CHECK(b.is_empty());
    for (int i = round == 1 ? 3 : 0; i < 6; ++i) {
      CHECK(a.front() == &all[i]);
      CHECK(a.pop() == &all[i]);
    }
    CHECK(a.is_empty());
  }
}

TEST_CASE("list: what a deque does, with leaving from anywhere") {
  std::mt19937 random(3);
  item all[12];
  intrusive_list<item> list;
  std::deque<item*> reference;
  for (int step = 0; step < 20000; ++step) {
    item* one = &all[random() % 12];
    const auto at = std::find(reference.begin(), reference.end(), one);
    REQUIRE(intrusive_list<item>::is_linked(one) == (at != reference.end()));
    if (at != reference.end()) {
      list.erase(one);
      reference.erase(at);
    } else if (random() % 4 == 0) {
      list.push_front(one);
      reference.push_front(one);
    } else {
      list.push_back(one);
      reference.push_back(one);
    }
    if (random() % 3 == 0) {
      item* first = reference.empty() ? nullptr : reference.front();
      REQUIRE(list.pop_front() == first);
      if (first != nullptr) reference.pop_front();
    }
    REQUIRE(list.is_empty() == reference.empty());
    REQUIRE(list.front() == (reference.empty() ? nullptr : reference.front()));
  }
}
