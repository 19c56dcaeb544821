// tests/compile/every_template.cpp - uses every template and every function of the header once, for the compiler's opinion.
//
// It is compiled, not run: warnings inside a template show only where it is instantiated. Types are chosen to be difficult:
// move-only, without default constructor, references, void.
#include "concur.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using std::chrono::milliseconds;
using clock_type = std::chrono::steady_clock;

struct no_default {
  explicit no_default(int value_in) : value(value_in) {}
  int value;
};

template <class T>
void use_channel(T first, T second, T third) {
  concur::channel<T> numbers(3);
  concur::channel<T> same = numbers;
  numbers.send(std::move(first));
  bool good = numbers.try_send(second);
  good = numbers.send_for(third, milliseconds(1)) == concur::status::ok && good;
  good = numbers.send_until(third, clock_type::now()) == concur::status::timeout && good;
  good = numbers.recv().has_value() && good;
  good = numbers.try_recv().has_value() && good;
  good = numbers.recv_for(second, milliseconds(1)) == concur::status::ok && good;
  good = numbers.recv_until(second, clock_type::now() + milliseconds(1)) == concur::status::closed && good;
  good = same == numbers && !(same != numbers) && numbers.size() <= numbers.capacity() && good;
  same.close();
  good = !same.try_close() && numbers.closed() && good;
  for (T value : numbers) static_cast<void>(value);
  numbers = concur::nil;
  static_cast<void>(good);
}

void use_signals() {
  concur::channel<void> signal_channel(1);
  signal_channel.send();
  bool good = signal_channel.try_send();
  good = signal_channel.send_for(milliseconds(1)) == concur::status::ok && good;
  good = signal_channel.recv() && signal_channel.try_recv() && good;
  good = signal_channel.recv_for(milliseconds(1)) == concur::status::ok && good;
  signal_channel.close();
  static_cast<void>(good);
}

int free_function(int a, const std::string& b) { return a + static_cast<int>(b.size()); }

void use_futures() {
  concur::future<int> number = concur::go(free_function, 1, "text");
  concur::future<void> nothing = concur::go([] {});
  concur::future<std::unique_ptr<int>> pointer =
      concur::go([p = std::make_unique<int>(1)]() mutable { return std::move(p); });
  static int target = 0;
  concur::future<int&> reference = concur::go([]() -> int& { return target; });
  concur::future<no_default> value = concur::go([](no_default v) { return v; }, no_default(3));
  bool good = number.valid() && !number.ready();
  good = number.wait_for(milliseconds(1)) && number.wait_until(clock_type::now()) && good;
  number.wait();
  target = number.get() + *pointer.get() + value.get().value;
  reference.get() += 1;
  nothing.get();
  concur::future<int> empty;
  empty = std::move(number);
  static_cast<void>(good);
}

void use_sync() {
  concur::mutex lock;
  lock.lock();
  bool good = !lock.try_lock();
  lock.unlock();
  concur::wait_group group;
  group.add(2);
  group.done();
  good = !group.wait_for(milliseconds(1)) && !group.wait_until(clock_type::now()) && !group.try_wait() && good;
  group.add(-1);
  group.wait();
  static_cast<void>(good);
}

void use_gates() {
  concur::latch door(2);
  bool good = !door.try_wait() && !door.wait_for(milliseconds(1)) && !door.wait_until(clock_type::now());
  door.count_down();
  door.arrive_and_wait();
  concur::latch shut((concur::latch::max)());
  shut.count_down(2);
  concur::event happened;
  concur::event from_the_start(true);
  happened.set();
  happened.wait();
  good = happened.is_set() && happened.try_wait() && happened.wait_for(milliseconds(1)) && good;
  good = happened.wait_until(clock_type::now()) && from_the_start.is_set() && good;
  happened.reset();
  int phases = 0;
  concur::barrier meet(1, [&phases, kept = std::make_unique<int>(1)]() noexcept { phases += *kept; });
  concur::barrier<> plain(2);
  const concur::barrier<>::arrival_token token = plain.arrive();
  good = !plain.try_wait(token) && !plain.wait_for(token, milliseconds(1)) && good;
  good = !plain.wait_until(token, clock_type::now()) && phases == 0 && (concur::barrier<>::max)() > 0 && good;
  plain.wait(plain.arrive());
  plain.arrive_and_drop();
  meet.arrive_and_wait();
  concur::once_flag flag;
  concur::call_once(
      flag, [](std::unique_ptr<int> p, int& n) { return n += *p; }, std::make_unique<int>(1), phases);
  static_cast<void>(good);
}

void use_pools() {
  concur::resource_pool<std::unique_ptr<int>> given(2);
  given.add(std::make_unique<int>(1));
  concur::resource_pool<std::unique_ptr<int>>::lease one = given.acquire();
  concur::resource_pool<std::unique_ptr<int>>::lease other;
  other = std::move(one);
  int sum = **other + *other->get() + **other.get();
  other.discard();
  concur::resource_pool<no_default> made(1, [kept = std::make_unique<int>(1)] { return no_default(*kept); });
  auto lease = made.acquire_for(milliseconds(1));
  bool good = !made.try_acquire() && !made.acquire_until(clock_type::now()) && lease;
  lease.give_back();
  made.close();
  good = made.closed() && made.size() + made.idle() + made.capacity() == 1 && good;
  concur::resource_pool<int> from_container(std::vector<int>{1, 2});
  sum += *from_container.acquire();
  static_cast<void>(good);
  static_cast<void>(sum);
}

struct copied_alone {
  copied_alone() = default;
  copied_alone(const copied_alone&) noexcept(false) {}
  copied_alone& operator=(const copied_alone&) noexcept(false) { return *this; }
  ~copied_alone() {}
};

template <class Queue>
void use_queue(Queue&& queue) {
  using value = typename std::decay_t<Queue>::value_type;
  value one{};
  bool good = queue.try_push(std::move(one)) && queue.try_emplace();
  if constexpr (std::is_copy_constructible<value>::value) good = queue.try_push(one) && good;
  good = queue.try_pop(one) && queue.try_pop().has_value() && queue.size_approx() <= queue.capacity() && good;
  static_cast<void>(good);
}

template <class T>
void use_queues() {
  concur::spsc_queue<T> one_to_one(4);
  T some[2] = {};
  const std::size_t moved = one_to_one.try_push_some(&some[0], 2) + one_to_one.try_pop_some(&some[0], 2);
  static_cast<void>(moved);
  use_queue(one_to_one);
  use_queue(concur::mpsc_queue<T>(4));
  use_queue(concur::mpmc_queue<T>(4));
}

void use_fiber_locals() {
  concur::fiber_local<int> zero;
  concur::fiber_local<std::string> text(std::string("first"));
  concur::fiber_local<std::unique_ptr<int>> pointer([] { return std::make_unique<int>(1); });
  concur::fiber_local<no_default> value([]() noexcept { return no_default(2); });
  const bool good = !text.has_value() && text->size() == 5 && (*text).size() + text.get().size() == 10;
  *zero = **pointer + value->value;
  static_cast<void>(good);
}

void use_this_fiber() {
  concur::this_fiber::yield();
  concur::this_fiber::sleep_for(milliseconds(1));
  concur::this_fiber::sleep_for(std::chrono::duration<double>(0.001));
  concur::this_fiber::sleep_until(clock_type::now());
  concur::this_fiber::sleep_until(std::chrono::system_clock::now());
  concur::this_fiber::name("a name");
  concur::this_fiber::checkpoint();
  const concur::fiber_id mine = concur::this_fiber::get_id();
  const bool good = !concur::this_fiber::name().empty() && !concur::this_fiber::cancelled() && mine == mine;
  static_cast<void>(good);
}

void use_streams(concur::tcp_stream& stream) {
  std::error_code error;
  std::string text(10, ' ');
  std::vector<unsigned char> bytes(10);
  stream.read_deadline(clock_type::now() + milliseconds(1));
  stream.write_deadline({});
  std::size_t count = stream.read_some(text.data(), text.size());
  count += stream.read_some(text) + stream.read_some(bytes) + stream.read_some(bytes, error);
  count += stream.read_exactly(bytes) + stream.read_exactly(text, error) + stream.read_exactly(text.data(), 1, error);
  count += stream.write_all("literal") + stream.write_all(text) + stream.write_all(bytes);
  count += stream.write_all(bytes, error);
  count += stream.write_all(std::string_view(text), error) + stream.write_all(text.data(), 1, error);
  count += stream.read_until("\r\n", 100).size() + stream.read_until("\n", 100, error).size();
  stream.no_delay(true);
  stream.no_delay(false, error);
  stream.shutdown_write();
  stream.shutdown_write(error);
  const bool good = stream.is_open() && stream.fd() >= 0 && stream.local_endpoint() != stream.peer_endpoint();
  stream.close();
  static_cast<void>(count);
  static_cast<void>(good);
}

// The forms with a code.
template <class T>
void tell_channel(T first, T second, std::error_code& error) {
  const auto limit = milliseconds(1);
  concur::channel<T> ch(3);
  concur::sender<T> in = ch;
  concur::receiver<T> out = ch;
  bool good = ch.send(std::move(first), error) && in.send_for(second, limit, error) == concur::status::ok;
  good = in.send_until(second, clock_type::now(), error) == concur::status::cancelled && good;
  good = ch.recv(error).has_value() && out.recv_for(second, limit, error) == concur::status::ok && good;
  good = out.recv_until(second, clock_type::now(), error) == concur::status::timeout && good;
  concur::channel<void> signal_channel(1);
  good = signal_channel.send(error) && signal_channel.recv(error) && good;
  good = signal_channel.send_for(limit, error) == signal_channel.send_until(clock_type::now(), error) && good;
  good = signal_channel.recv_for(limit, error) == signal_channel.recv_until(clock_type::now(), error) && good;
  int index = concur::select(error, concur::recv(ch, [] {}), concur::send(in, T(), [] {}), concur::otherwise([] {}));
  index += concur::select_ordered(error, concur::recv(signal_channel, [] {}), concur::after(limit, [] {}));
  concur::selector all{concur::recv(ch, [] {}), concur::after(limit, [] {})};
  index += all.wait(error) + all.wait_ordered(error) + all.wait_for(limit, error);
  index += all.wait_until(clock_type::now(), error);
  static_cast<void>(good);
  static_cast<void>(index);
}

template <class Mutex>
void tell_lock(Mutex& m, std::error_code& error) {
  if (m.lock(error)) m.unlock();
  if (m.try_lock_for(milliseconds(1), error)) m.unlock();
  if (m.try_lock_until(clock_type::now(), error)) m.unlock();
}

template <class Waitable>
bool tell_wait(Waitable& at, std::error_code& error) {
  return at.wait(error) && at.wait_for(milliseconds(1), error) && at.wait_until(clock_type::now(), error);
}

void tell_sync(std::error_code& error) {
  const auto limit = milliseconds(1);
  concur::mutex plain;
  concur::timed_mutex timed;
  concur::recursive_mutex recursive;
  concur::shared_mutex shared;
  tell_lock(timed, error);
  tell_lock(recursive, error);
  tell_lock(shared, error);
  bool good = shared.lock_shared(error) && shared.try_lock_shared_for(limit, error);
  good = shared.try_lock_shared_until(clock_type::now(), error) && plain.lock(error) && good;
  concur::condition_variable changed;
  const auto condition = [] { return true; };
  good = changed.wait(plain, error) && changed.wait(plain, condition, error) && good;
  good = changed.wait_for(plain, limit, error) == concur::cv_status::timeout && good;
  good = changed.wait_until(plain, clock_type::now(), error) == concur::cv_status::timeout && good;
  good = changed.wait_for(plain, limit, condition, error) && good;
  good = changed.wait_until(plain, clock_type::now(), condition, error) && good;
  concur::counting_semaphore<> permits(9);
  good = permits.acquire(error) && permits.acquire(2, error) && permits.try_acquire_for(limit, error) && good;
  good = permits.try_acquire_for(limit, 2, error) && permits.try_acquire_until(clock_type::now(), error) && good;
  good = permits.try_acquire_until(clock_type::now(), 2, error) && good;
  concur::latch door(3);
  good = door.arrive_and_wait(error) && door.arrive_and_wait(2, error) && tell_wait(door, error) && good;
  concur::event happened(true);
  concur::wait_group group;
  good = tell_wait(happened, error) && tell_wait(group, error) && good;
  concur::barrier<> meet(1);
  const concur::barrier<>::arrival_token token = meet.arrive();
  good = meet.wait(token, error) && meet.wait_for(token, limit, error) && good;
  good = meet.wait_until(token, clock_type::now(), error) && meet.arrive_and_wait(error) && good;
  concur::once_flag flag;
  good = concur::call_once(
             flag, error, [](std::unique_ptr<int> p) { return *p; }, std::make_unique<int>(1)) &&
         good;
  concur::resource_pool<int> pool(std::vector<int>{1});
  good = pool.acquire(error) && pool.acquire_for(limit, error) && pool.acquire_until(clock_type::now(), error) && good;
  const concur::future<int> number = concur::go([] { return 1; });
  const concur::shared_future<void> many = concur::go([] {}).share();
  good = tell_wait(number, error) && tell_wait(many, error) && good;
  good = concur::this_fiber::sleep_for(limit, error) && concur::this_fiber::checkpoint(error) && good;
  good = concur::this_fiber::sleep_until(std::chrono::system_clock::now(), error) && good;
  static_cast<void>(good);
}

// Every case, with lvalues and rvalues, in every kind of select.
template <class T>
void use_selects(T first, T second) {
  concur::channel<T> ch(2);
  concur::sender<T> in = ch;
  concur::receiver<T> out = ch;
  concur::channel<void> signal(1);
  concur::sender<void> signal_in = signal;
  concur::receiver<void> signal_out = signal;
  concur::future<int> result = concur::go([] { return 1; });
  const concur::shared_future<void> shared = concur::go([] {}).share();
  int index = concur::select(concur::send(ch, std::move(first), [] {}), concur::recv(out, [](std::optional<T>) {}),
                             concur::after(milliseconds(1), [] {}), concur::ready(result, [] {}),
                             concur::ready(shared, [] {}), concur::readable(0, [] {}), concur::writable(1, [] {}),
                             concur::at(std::chrono::system_clock::now(), [] {}), concur::otherwise([] {}));
  index += concur::select_ordered(concur::send(in, std::move(second), [] {}), concur::send(signal_in, [] {}),
                                  concur::send(signal, [] {}), concur::recv(signal, [](bool) {}),
                                  concur::recv(signal_out, [] {}), concur::recv(ch, [] {}));
  concur::selector all{concur::recv(ch, [] {}), concur::send(ch, T(), [] {})};
  index += all.add(concur::after(milliseconds(1), [] {})) + all.add(concur::recv(signal_out, [](bool) {}));
  all.remove(0);
  index += all.wait() + all.wait_ordered() + all.wait_for(milliseconds(1)) + all.try_wait();
  index += all.wait_until(std::chrono::steady_clock::now()) + static_cast<int>(all.size());
  all.clear();
  for (const T& one : out) static_cast<void>(one);
  concur::ticker ticks = concur::tick(milliseconds(1));
  ticks.reset(milliseconds(2));
  const std::optional<concur::time_point> tick = ticks.recv();
  index += concur::select(concur::recv(ticks, [](std::optional<concur::time_point>) {}),
                          concur::recv(concur::after(milliseconds(1)), [] {}));
  ticks.stop();
  in.close();
  const bool good = in == concur::sender<T>(ch) && out != concur::receiver<T>(concur::nil) && tick && index > 0;
  static_cast<void>(good);
}

int says_up(concur::started<int>& up) {
  up.set_value(1);
  return 0;
}

void use_nurseries() {
  int target = 0;
  std::error_code error;
  const auto body = [&](concur::nursery& n) -> int& {
    n.limit(8);
    n.go([] {});
    n.go(free_function, 1, "text");
    n.go([p = std::make_unique<int>(1)](std::unique_ptr<int> q) { return *p + *q; }, std::make_unique<int>(2));
    n.go([] { return std::error_code(); });
    target = n.async([] { return no_default(1); }).get().value;
    target += *n.async([] { return std::make_unique<int>(2); }).get();
    n.async([] {}).wait();
    n.async([&]() -> int& { return target; }).get() += n.start(says_up) + n.start(&says_up);
    n.start([](concur::started<void>& up) noexcept { up(); });
    n.start([](concur::started<no_default>& up) mutable { up(no_default(2)); }, error);
    n.start<std::unique_ptr<int>>([](auto& up) { up(nullptr); });
    n.scope().deadline(clock_type::now() + milliseconds(1));
    if (n.size() > 8) n.cancel();
    return target;
  };
  target = concur::with_nursery(body) + concur::with_nursery(concur::on_failure::keep_going, body);
  int* const told = concur::with_nursery(body, error);
  bool good = told != nullptr && concur::with_nursery([](concur::nursery&) {}, error);
  concur::with_nursery([](concur::nursery& n) { n.go([] {}); });
  concur::nursery bare(concur::on_failure::keep_going);
  good = !bare.cancelled() && bare.failures().empty() && good;
  bare.join();
  concur::nursery coded;
  coded.join(error);
  static_cast<void>(good);
}

void use_combinations() {
  int target = 0;
  auto every = concur::all([] { return 1; }, [] {}, [&]() -> int& { return target; }, [] { return no_default(1); });
  target = std::get<0>(every) + std::get<3>(every).value;
  target = concur::any([] { return 1; }, [] { return short{2}; }) + concur::race([] { return 1; });
  concur::any([] {});
  concur::race([] {}, [] {});
  concur::parallel_invoke();
  concur::parallel_invoke([&] { ++target; });
  concur::parallel_invoke([&] { return ++target; }, [] { return no_default(1); });
  const auto nothing = [] {};
  concur::parallel_invoke(nothing, [] {}, nothing, [] {}, [] {});
  concur::any([&]() -> int& { return target; }) += 1;
}

void use_scopes() {
  int target = 0;
  bool good = concur::move_on_after(milliseconds(1), [] {});
  good = concur::move_on_at(clock_type::now(), [] { return no_default(1); }).has_value() && good;
  good = concur::move_on_after(milliseconds(1), [&]() -> int& { return target; }) != nullptr && good;
  concur::fail_after(milliseconds(1), [] {});
  concur::fail_at(clock_type::now() + milliseconds(1), [&]() -> int& { return target; }) += 1;
  target = concur::shield([] { return std::make_unique<int>(1); }) != nullptr;
  concur::shield([] {});
  concur::cancel_source source;
  concur::cancel_scope scope(source.token());
  concur::cancel_scope later(concur::deferred);
  later.deadline(clock_type::now());
  good = later.deadline() < clock_type::now() && !later.shielded() && !later.cancelled_caught() && good;
  later.shield();
  later.shield(false);
  good = !later.run([] { return 1; }).has_value() && later.cancelled() && good;
  const concur::cancel_token token = scope.token();
  good = token != concur::this_fiber::token() && !token.cancelled() && !source.cancelled() && good;
  token.checkpoint();
  scope.cancel();
  source.cancel();
  static_cast<void>(good);
}

void use_listeners() {
  std::error_code error;
  concur::tcp_listener listener = concur::tcp_listener::bind("127.0.0.1:0");
  concur::tcp_listener second = concur::tcp_listener::bind(concur::endpoint("::1", 0u), 10, error);
  second = concur::tcp_listener::bind(std::string("localhost:0"), error);
  concur::tcp_stream stream = concur::tcp_stream::connect(listener.local_endpoint());
  stream = concur::tcp_stream::connect("127.0.0.1:9", error);
  concur::tcp_stream accepted = listener.accept();
  accepted = listener.accept(error);
  use_streams(accepted);
  const concur::endpoint parsed = concur::endpoint::parse("[::1]:80", error);
  const std::string text = parsed.to_string() + parsed.address();
  const bool good = parsed.is_v6() && !parsed.is_empty() && parsed.port() == 80 && !text.empty() && !error;
  static_cast<void>(good);
}

void use_posix() {
  char byte = 0;
  concur::io::ssize_type count = concur::io::read(0, &byte, 1);
  count += concur::io::write(1, &byte, 1);
  const int accepted = concur::io::accept(0, nullptr, nullptr);
  const int connected = concur::io::connect(0, nullptr, 0);
  const unsigned left = concur::io::sleep(0);
  const int closed = concur::io::close(accepted);
  static_cast<void>(count + accepted + connected + static_cast<int>(left) + closed);
}

struct retired_value : concur::hazard_object {
  int value = 0;
};

int use_reclamation() {
  concur::hazard_domain domain;
  concur::hazard_pointer first(domain);
  concur::hazard_pointer mine(std::move(first));
  std::atomic<retired_value*> source{new retired_value};
  retired_value* seen = mine.protect(source);
  const int value = mine.try_protect(seen, source) ? seen->value : 0;
  domain.retire(source.exchange(nullptr));
  mine.announce(seen);
  mine.reset();
  domain.retire(new retired_value(), [&domain](retired_value* what) {
    static_cast<void>(domain.retired_count());
    delete what;
  });
  domain.reclaim();
  return value + static_cast<int>(domain.slot_count());
}

template <class T>
bool use_stack(T first, T second) {
  concur::treiber_stack<T> stack(8);
  bool good = stack.try_push(std::move(first)) && stack.try_emplace(std::move(second));
  good = stack.try_pop().has_value() && good;
  good = stack.take_all([](T&&) {}) == 1 && good;
  return stack.empty() && stack.capacity() == 8 && good;
}

bool use_deque() {
  concur::work_stealing_deque<const char*> deque(8);
  bool good = deque.try_push("a") && deque.try_push("b");
  const concur::steal_result<const char*> stolen = deque.try_steal();
  good = stolen && stolen.status == concur::steal_status::stolen && *stolen.value == 'a' && good;
  good = deque.try_pop().has_value() && good;
  return deque.empty() && deque.size() == 0 && deque.capacity() == 8 && good;
}

template <class Lock>
void use_lock() {
  Lock lock;
  lock.lock();
  lock.unlock();
  if (lock.try_lock()) lock.unlock();
}

void use_atomics() {
  std::atomic<int> number{1};
  std::atomic<unsigned char> byte{1};
  std::atomic<no_default*> pointer{nullptr};
  int sum = concur::cas_update(number, [](int v) { return v + 1; });
  sum += concur::cas_update(byte, [](unsigned char v) { return v + 1; }, std::memory_order_relaxed);
  const auto one_less = [](int v) { return v > 0 ? std::optional<int>(v - 1) : std::nullopt; };
  sum += concur::cas_update(number, one_less, std::memory_order_acq_rel).value_or(0);
  sum += concur::fetch_max(number, 3) + concur::fetch_min(byte, 3, std::memory_order_release);
  bool good = concur::cas_update(pointer, [](no_default* p) { return p; }) == nullptr;
  concur::cache_padded<std::atomic<int>> apart(1);
  concur::cache_padded<std::unique_ptr<int>> owner;
  const concur::cache_padded same(*apart + apart->load());
  good = *owner == nullptr && *same == 2 && good;
  concur::backoff wait;
  wait.pause();
  wait.reset();
  good = !wait.is_spent() && good;
  use_lock<concur::spin_lock>();
  use_lock<concur::ticket_lock>();
  concur::seqlock<no_default> value(no_default(1));
  value.write(no_default(2));
  value.update([](no_default& v) { v.value = 3; });
  value.update([](no_default v) { return no_default(v.value + 1); });
  good = value.read().value == 4 && value.try_read().has_value() && good;
  concur::striped_counter count;
  count.add(2);
  count.sub();
  sum += static_cast<int>(count.sum());
  static_cast<void>(good);
  static_cast<void>(sum);
}

}  // namespace

int main() {
  concur::options chosen;
  chosen.workers = 2;
  concur::run(chosen, [] {
    use_channel<int>(1, 2, 3);
    use_channel<std::string>("a", "b", "c");
    use_channel<std::unique_ptr<int>>(nullptr, nullptr, nullptr);
    concur::channel<no_default> numbers;
    concur::go([numbers]() mutable { numbers.send(no_default(1)); });
    const int got = numbers.recv()->value;
    use_signals();
    use_atomics();
    use_selects<int>(1, 2);
    use_selects<std::string>("a", "b");
    use_selects<std::unique_ptr<int>>(nullptr, nullptr);
    use_futures();
    use_sync();
    use_gates();
    use_pools();
    use_queues<int>();
    use_queues<std::string>();
    use_queues<std::unique_ptr<int>>();
    use_queues<copied_alone>();
    use_fiber_locals();
    use_this_fiber();
    use_nurseries();
    use_combinations();
    use_scopes();
    std::error_code error;
    tell_channel<std::string>("a", "b", error);
    tell_channel<std::unique_ptr<int>>(nullptr, nullptr, error);
    tell_sync(error);
    use_listeners();
    use_posix();
    const bool good = use_stack<int>(1, 2) && use_stack<std::unique_ptr<int>>(nullptr, nullptr) && use_deque();
    return got + use_reclamation() + (good ? 0 : 1);
  });
  concur::run(use_sync);
  concur::runtime embedded(chosen);
  embedded.go([](int) {}, 1).get();
  const int answer = embedded.block_on([] { return 0; });
  const concur::stats figures = embedded.snapshot();
  embedded.dump(stderr);
  concur::set_on_fatal(concur::set_on_fatal(nullptr));
  return answer + static_cast<int>(figures.fibers_live);
}
