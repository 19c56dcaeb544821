// tests/test_context.cpp - the switch: nothing alive is lost, the stack is right, and every chain of frames ends.
//
// tests/cross/ builds this file for each processor, at each optimisation level, in both forms and under the sanitizers.
#include "concur.hpp"
#include "support/bare_context.hpp"

#include <doctest/doctest.h>

#include <cfenv>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>
#include <unwind.h>

namespace {

namespace detail = concur::detail;

void* to_payload(std::uintptr_t value) { return reinterpret_cast<void*>(value); }
std::uintptr_t from_payload(void* payload) { return reinterpret_cast<std::uintptr_t>(payload); }

// The compiler believes that the value may be anything.
template <class T>
T opaque(T value) {
  asm volatile("" : "+m"(value) : : "memory");
  return value;
}

// Puts rubbish into the registers, as another fiber's code would.
// clang-format off
#if defined(__x86_64__)
#  define TRASH_VECTOR(n) "{pcmpeqd %%xmm" #n ", %%xmm" #n "|pcmpeqd xmm" #n ", xmm" #n "}\n\t"
#  define TRASH_REGISTERS()                                                                                        \
    asm volatile(                                                                                                  \
        "{movl $-1, %%ebx|mov ebx, -1}\n\t{movl $-2, %%r12d|mov r12d, -2}\n\t{movl $-3, %%r13d|mov r13d, -3}\n\t"  \
        "{movl $-4, %%r14d|mov r14d, -4}\n\t{movl $-5, %%r15d|mov r15d, -5}\n\tfninit\n\t" TRASH_VECTOR(0)         \
            TRASH_VECTOR(1) TRASH_VECTOR(2) TRASH_VECTOR(3) TRASH_VECTOR(4) TRASH_VECTOR(5) TRASH_VECTOR(6)        \
                TRASH_VECTOR(7) TRASH_VECTOR(8) TRASH_VECTOR(9) TRASH_VECTOR(10) TRASH_VECTOR(11) TRASH_VECTOR(12) \
                    TRASH_VECTOR(13) TRASH_VECTOR(14) TRASH_VECTOR(15)                                             \
        :                                                                                                          \
        :                                                                                                          \
        : "rbx", "r12", "r13", "r14", "r15", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", \
          "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "st", "st(1)", "st(2)", "st(3)",   \
          "st(4)", "st(5)", "st(6)", "st(7)")
#elif defined(__i386__)
#  define TRASH_REGISTERS()                                                                 \
    asm volatile("{movl $-2, %%esi|mov esi, -2}\n\t{movl $-3, %%edi|mov edi, -3}\n\tfninit" \
                 :                                                                          \
                 :                                                                          \
                 : "esi", "edi", "cc", "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)")
#elif defined(__aarch64__)
#  define TRASH_VECTOR(n) "movi v" #n ".16b, #255\n\t"
#  define TRASH_REGISTERS()                                                                                           \
    asm volatile(                                                                                                     \
        "mov x19, #-1\n\tmov x20, #-2\n\tmov x21, #-3\n\tmov x22, #-4\n\tmov x23, #-5\n\tmov x24, #-6\n\t"            \
        "mov x25, #-7\n\tmov x26, #-8\n\tmov x27, #-9\n\tmov x28, #-10\n\t" TRASH_VECTOR(0) TRASH_VECTOR(1)           \
            TRASH_VECTOR(2) TRASH_VECTOR(3) TRASH_VECTOR(4) TRASH_VECTOR(5) TRASH_VECTOR(6) TRASH_VECTOR(7)           \
                TRASH_VECTOR(8) TRASH_VECTOR(9) TRASH_VECTOR(10) TRASH_VECTOR(11) TRASH_VECTOR(12) TRASH_VECTOR(13)   \
                    TRASH_VECTOR(14) TRASH_VECTOR(15) TRASH_VECTOR(16) TRASH_VECTOR(17) TRASH_VECTOR(18)              \
                        TRASH_VECTOR(19) TRASH_VECTOR(20) TRASH_VECTOR(21) TRASH_VECTOR(22) TRASH_VECTOR(23)          \
                            TRASH_VECTOR(24) TRASH_VECTOR(25) TRASH_VECTOR(26) TRASH_VECTOR(27) TRASH_VECTOR(28)      \
                                TRASH_VECTOR(29) TRASH_VECTOR(30) TRASH_VECTOR(31)                                    \
        :                                                                                                             \
        :                                                                                                             \
        : "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "v0", "v1", "v2", "v3", "v4", "v5",   \
          "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", \
          "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31")
#elif defined(__arm__)
#  if defined(__ARM_FP)
#    define TRASH_VECTOR(n) "vmov d" #n ", r4, r5\n\t"
#    define TRASH_VECTORS()                                                                                            \
      asm volatile("mvn r4, #0\n\tmvn r5, #1\n\t" TRASH_VECTOR(0) TRASH_VECTOR(1) TRASH_VECTOR(2) TRASH_VECTOR(3)      \
                       TRASH_VECTOR(4) TRASH_VECTOR(5) TRASH_VECTOR(6) TRASH_VECTOR(7) TRASH_VECTOR(8) TRASH_VECTOR(9) \
                           TRASH_VECTOR(10) TRASH_VECTOR(11) TRASH_VECTOR(12) TRASH_VECTOR(13) TRASH_VECTOR(14)        \
                               TRASH_VECTOR(15)                                                                        \
                   :                                                                                                   \
                   :                                                                                                   \
                   : "r4", "r5", "d0", "d1", "d2", "d3", "d4", "d5", "d6", "d7", "d8", "d9", "d10", "d11", "d12",      \
                     "d13", "d14", "d15")
#  else
#    define TRASH_VECTORS() static_cast<void>(0)
#  endif
#  define TRASH_REGISTERS()                                                                            \
    do {                                                                                               \
      TRASH_VECTORS();                                                                                 \
      asm volatile("mvn r4, #0\n\tmvn r5, #1\n\tmvn r6, #2\n\tmvn r8, #3\n\tmvn r9, #4\n\tmvn r10, #5" \
                   :                                                                                   \
                   :                                                                                   \
                   : "r4", "r5", "r6", "r8", "r9", "r10");                                             \
    } while (false)
#else
#  define TRASH_VECTOR(n) "fcvt.d.w f" #n ", s1\n\t"
#  define TRASH_REGISTERS()                                                                                           \
    asm volatile(                                                                                                     \
        "li s1, -1\n\tli s2, -2\n\tli s3, -3\n\tli s4, -4\n\tli s5, -5\n\tli s6, -6\n\tli s7, -7\n\tli s8, -8\n\t"    \
        "li s9, -9\n\tli s10, -10\n\tli s11, -11\n\t" TRASH_VECTOR(0) TRASH_VECTOR(1) TRASH_VECTOR(2) TRASH_VECTOR(3) \
            TRASH_VECTOR(4) TRASH_VECTOR(5) TRASH_VECTOR(6) TRASH_VECTOR(7) TRASH_VECTOR(8) TRASH_VECTOR(9)           \
                TRASH_VECTOR(10) TRASH_VECTOR(11) TRASH_VECTOR(12) TRASH_VECTOR(13) TRASH_VECTOR(14) TRASH_VECTOR(15) \
                    TRASH_VECTOR(16) TRASH_VECTOR(17) TRASH_VECTOR(18) TRASH_VECTOR(19) TRASH_VECTOR(20)              \
                        TRASH_VECTOR(21) TRASH_VECTOR(22) TRASH_VECTOR(23) TRASH_VECTOR(24) TRASH_VECTOR(25)          \
                            TRASH_VECTOR(26) TRASH_VECTOR(27) TRASH_VECTOR(28) TRASH_VECTOR(29) TRASH_VECTOR(30)      \
                                TRASH_VECTOR(31)                                                                      \
        :                                                                                                             \
        :                                                                                                             \
        : "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "f0", "f1", "f2", "f3", "f4", "f5",     \
          "f6", "f7", "f8", "f9", "f10", "f11", "f12", "f13", "f14", "f15", "f16", "f17", "f18", "f19", "f20", "f21", \
          "f22", "f23", "f24", "f25", "f26", "f27", "f28", "f29", "f30", "f31")
#endif

#if defined(__AVX512F__) && defined(__x86_64__)
#  define TRASH_HIGH(n) \
    "{vpternlogd $255, %%zmm" #n ", %%zmm" #n ", %%zmm" #n "|vpternlogd zmm" #n ", zmm" #n ", zmm" #n ", 255}\n\t"
#  define TRASH_HIGH_REGISTERS()                                                                                      \
    asm volatile(TRASH_HIGH(16) TRASH_HIGH(17) TRASH_HIGH(18) TRASH_HIGH(19) TRASH_HIGH(20) TRASH_HIGH(21)            \
                     TRASH_HIGH(22) TRASH_HIGH(23) TRASH_HIGH(24) TRASH_HIGH(25) TRASH_HIGH(26) TRASH_HIGH(27)        \
                         TRASH_HIGH(28) TRASH_HIGH(29) TRASH_HIGH(30) TRASH_HIGH(31)                                  \
                 :                                                                                                    \
                 :                                                                                                    \
                 : "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", \
                   "xmm27", "xmm28", "xmm29", "xmm30", "xmm31")
#else
#  define TRASH_HIGH_REGISTERS() static_cast<void>(0)
#endif

// clang-format on

struct two_contexts {
  detail::context here{};
  detail::context there{};
};

}  // namespace

// The other side of the tests that switch without a runtime's help: overwrites every register and gives back one more
// than it got. Its first payload is the pair. tests/cross also compiles it apart, in the other form of the switch and,
// on arm, in the other instruction set.
void hostile_bounce(void* first);
#if !defined(TEST_PEER_ELSEWHERE)
void hostile_bounce(void* first) {
  two_contexts& pair = *static_cast<two_contexts*>(first);
  void* payload = nullptr;
  for (;;) {
    TRASH_HIGH_REGISTERS();
    TRASH_REGISTERS();
    payload = detail::switch_context(pair.there, pair.here, static_cast<char*>(payload) + 1);
  }
}
#endif

#if !defined(TEST_PEER_ONLY)

namespace {

// Says what the payloads mean, and overwrites registers, for the tests that go through notices.
void hostile_loop(bare_context& self, void* payload) {
  while (payload != nullptr) {
    const std::uintptr_t answer = from_payload(payload) + 1;
    TRASH_REGISTERS();
    payload = self.pause(to_payload(answer));
  }
}

TEST_CASE("payloads travel both ways, the first one into the entry function") {
  bare_context other(&hostile_loop);
  for (std::uintptr_t i = 1; i < 1000; ++i) CHECK(from_payload(other.resume(to_payload(i))) == i + 1);
  CHECK(!other.is_done());
  CHECK(other.resume(nullptr) == nullptr);
  CHECK(other.is_done());
}

// What follows inlines the bare switch into the function whose values it may destroy. Under these sanitizers that is
// not how it is used.
#  if !CONCUR_ASAN && !CONCUR_TSAN

// A hostile context on a stack of its own, with which the tests bounce.
struct hostile_peer : two_contexts {
  hostile_peer() : stack(1 << 16) {
    detail::prepare_context(there, stack.data(), stack.size(), &hostile_bounce);
    detail::switch_context(here, there, static_cast<two_contexts*>(this));
  }
  std::vector<char> stack;
};

// As many values as there are registers, and more, all alive over the switch.
template <class Number>
__attribute__((noinline)) Number sum_over_switches(two_contexts& pair, Number seed) {
  Number a = opaque(seed), b = opaque(a + 1), c = opaque(b + 1), d = opaque(c + 1), e = opaque(d + 1),
         f = opaque(e + 1);
  Number g = opaque(f + 1), h = opaque(g + 1), i = opaque(h + 1), j = opaque(i + 1), k = opaque(j + 1);
  Number l = opaque(k + 1), m = opaque(l + 1), n = opaque(m + 1), o = opaque(n + 1), p = opaque(o + 1);
  for (int round = 0; round < 50; ++round) {
    detail::switch_context(pair.here, pair.there, nullptr);
    a += b, b += c, c += d, d += e, e += f, f += g, g += h, h += i;
    detail::switch_context(pair.here, pair.there, nullptr);
    i += j, j += k, k += l, l += m, m += n, n += o, o += p, p += Number(1);
    a *= Number(0.5), b *= Number(0.5), i *= Number(0.5), j *= Number(0.5);
  }
  return a + b + c + d + e + f + g + h + i + j + k + l + m + n + o + p;
}

template <class Number>
__attribute__((noinline)) Number sum_without_switches(Number seed) {
  Number v[16];
  for (int i = 0; i < 16; ++i) v[i] = opaque(seed + Number(i));
  for (int round = 0; round < 50; ++round) {
    for (int i = 0; i < 15; ++i) v[i] += v[i + 1];
    v[15] += Number(1);
    v[0] *= Number(0.5), v[1] *= Number(0.5), v[8] *= Number(0.5), v[9] *= Number(0.5);
  }
  Number sum = v[0];
  for (int i = 1; i < 16; ++i) sum += v[i];
  return sum;
}

TEST_CASE("integers alive over a switch keep their values") {
  hostile_peer peer;
  CHECK(sum_over_switches<std::uint32_t>(peer, 7) == sum_without_switches<std::uint32_t>(7));
  CHECK(sum_over_switches<std::uint64_t>(peer, 7) == sum_without_switches<std::uint64_t>(7));
}

TEST_CASE("floating-point numbers alive over a switch keep their values") {
  hostile_peer peer;
  CHECK(sum_over_switches<float>(peer, 7) == doctest::Approx(sum_without_switches<float>(7)).epsilon(1e-5));
  CHECK(sum_over_switches<double>(peer, 7) == doctest::Approx(sum_without_switches<double>(7)));
  const long double here = sum_over_switches<long double>(peer, 7);
  CHECK(static_cast<double>(here) == doctest::Approx(static_cast<double>(sum_without_switches<long double>(7))));
}

// Alive in the registers of the vector unit, whatever it is: the highest numbers too when there are enough of them.
typedef std::uint32_t vector_value __attribute__((vector_size(32)));

__attribute__((noinline)) std::uint32_t sum_vectors(two_contexts& pair, const vector_value* in) {
  vector_value v[24];
  for (int i = 0; i < 24; ++i) v[i] = in[i];
  for (int round = 0; round < 20; ++round) {
    for (int i = 0; i < 24; ++i) v[i] += in[i] > v[i] ? in[23 - i] : in[i];
    detail::switch_context(pair.here, pair.there, nullptr);
  }
  vector_value sum = v[0];
  for (int i = 1; i < 24; ++i) sum += v[i];
  std::uint32_t total = 0;
  for (int i = 0; i < 8; ++i) total += sum[i];
  return total;
}

TEST_CASE("vectors alive over a switch keep their values") {
  vector_value in[24];
  std::uint32_t next = 1;
  for (auto& v : in) {
    for (int i = 0; i < 8; ++i) v[i] = next = next * 1664525u + 1013904223u;
  }
  hostile_peer peer;
  const std::uint32_t with = sum_vectors(peer, in);
  std::uint32_t total = 0;
  for (int lane = 0; lane < 8; ++lane) {
    for (int i = 0; i < 24; ++i) {
      std::uint32_t v = in[i][lane];
      for (int round = 0; round < 20; ++round) v += in[i][lane] > v ? in[23 - i][lane] : in[i][lane];
      total += v;
    }
  }
  CHECK(with == total);
}

// clang keeps a register of its own for such a function (context/common.hpp, CONCUR_SAVES_BASE).
__attribute__((noinline)) std::uintptr_t over_aligned_and_alloca(detail::context& here, detail::context& there,
                                                                 std::size_t size) {
  alignas(64) volatile unsigned char over[64];
  volatile std::uintptr_t local[8];
  for (std::uintptr_t i = 0; i < 8; ++i) local[i] = i * size;
  volatile unsigned char* variable = static_cast<volatile unsigned char*>(__builtin_alloca(size));
  variable[0] = 1;
  variable[size - 1] = 2;
  over[63] = 3;
  asm volatile("" : : "r"(over), "r"(local), "r"(variable) : "memory");
  std::uintptr_t sum = from_payload(detail::switch_context(here, there, to_payload(5)));
  for (const volatile std::uintptr_t& value : local) sum += value;
  sum += variable[0];
  sum += variable[size - 1];
  sum += over[63];
  CHECK(from_payload(const_cast<unsigned char*>(opaque(&over[0]))) % 64 == 0);
  return sum;
}

TEST_CASE("over-aligned locals beside alloca survive a switch that is inlined into their function") {
  hostile_peer peer;
  for (std::size_t size = 100; size < 1000; size += 100) {
    CHECK(over_aligned_and_alloca(peer.here, peer.there, size) == 28 * size + 6 + 6);
  }
}

// A function that calls nothing may keep its locals below the stack pointer.
__attribute__((noinline)) std::uintptr_t leaf(two_contexts& pair) {
  volatile std::uintptr_t local[8];
  for (std::uintptr_t i = 0; i < 8; ++i) local[i] = i;
  std::uintptr_t sum = from_payload(detail::switch_context(pair.here, pair.there, to_payload(1)));
  for (const volatile std::uintptr_t& value : local) sum += value;
  return sum;
}

TEST_CASE("locals in the red zone survive") {
  hostile_peer peer;
  for (int i = 0; i < 100; ++i) CHECK(leaf(peer) == 28 + 2);
}

// Only this file can see these, so that the compiler knows all who touch them.
int written_here = 0;
int read_here = 0;

void reads_and_writes(void* first) {
  two_contexts& pair = *static_cast<two_contexts*>(first);
  for (;;) {
    read_here = written_here + 1;
    detail::switch_context(pair.there, pair.here, nullptr);
  }
}

TEST_CASE("memory is written before a switch and read after it") {
  two_contexts pair;
  std::vector<char> stack(1 << 16);
  detail::prepare_context(pair.there, stack.data(), stack.size(), &reads_and_writes);
  int sum = 0;
  for (int i = 0; i < 10; ++i) {
    written_here = i;
    read_here = 0;
    detail::switch_context(pair.here, pair.there, &pair);
    sum += read_here;
    written_here = 1000;
  }
  CHECK(sum == 55);
}

#  endif

TEST_CASE("the stack is aligned to 16 bytes at entry, whatever the memory") {
  struct result {
    std::uintptr_t address = 1;
  };
  alignas(16) static char memory[1 << 16];
  for (std::size_t offset = 0; offset < 40; offset += 3) {
    for (std::size_t trim = 0; trim < 40; trim += 7) {
      detail::context made{};
      detail::prepare_context(made, memory + offset, sizeof memory - offset - trim, &hostile_bounce);
      CHECK(from_payload(made.sp) % 16 == 0);
      CHECK(from_payload(made.sp) + sizeof(void*) <= from_payload(memory + sizeof memory - trim));
      CHECK(made.fp == nullptr);
    }
  }
  result seen;
  bare_context other(
      [](bare_context& self, void*) {
        alignas(16) char local[16];
        static_cast<result*>(self.user)->address = from_payload(opaque(&local[0]));
      },
      &seen);
  other.resume(nullptr);
  CHECK(other.is_done());
  CHECK(seen.address % 16 == 0);
}

TEST_CASE("locals lie on the context's own stack") {
  static const char* seen;
  bare_context other([](bare_context&, void*) { seen = static_cast<const char*>(__builtin_frame_address(0)); });
  other.resume(nullptr);
  CHECK(seen >= other.low());
  CHECK(seen < other.high());
}

__attribute__((noinline)) std::uintptr_t descend(bare_context& self, std::uintptr_t depth) {
  volatile std::uintptr_t mine = depth;
  if (depth == 0) return from_payload(self.pause(to_payload(1)));
  const std::uintptr_t below = descend(self, depth - 1);
  self.pause(to_payload(depth + 1));
  return below + mine;
}

TEST_CASE("a deep stack is left and re-entered at each depth") {
  const std::uintptr_t depth = 2000;
  static std::uintptr_t sum;
  bare_context other([](bare_context& self, void* first) { sum = descend(self, from_payload(first)); }, nullptr,
                     4 << 20);
  for (std::uintptr_t i = 0; i <= depth; ++i)
    CHECK(from_payload(other.resume(to_payload(i == 0 ? depth : 9))) == i + 1);
  CHECK(other.resume(to_payload(9)) == nullptr);
  CHECK(sum == depth * (depth + 1) / 2 + 9);
}

TEST_CASE("contexts resume contexts") {
  struct chain {
    static void body(bare_context&, void* first) {
      const std::uintptr_t depth = from_payload(first);
      if (depth == 1) return;
      bare_context inner(&body);
      bare_context other(&hostile_loop);
      for (std::uintptr_t i = 1; i < 10; ++i) CHECK(from_payload(other.resume(to_payload(i))) == i + 1);
      inner.resume(to_payload(depth - 1));
      CHECK(inner.is_done());
      for (std::uintptr_t i = 1; i < 10; ++i) CHECK(from_payload(other.resume(to_payload(i))) == i + 1);
      other.resume(nullptr);
    }
  };
  bare_context outer(&chain::body);
  outer.resume(to_payload(6));
  CHECK(outer.is_done());
}

__attribute__((noinline)) void throw_at_depth(int depth) {
  std::string with_destructor(static_cast<std::size_t>(depth) + 1, 'x');
  if (depth == 0) throw std::runtime_error("from the depth");
  throw_at_depth(depth - 1);
  opaque(depth);
}

TEST_CASE("an exception is thrown and caught on a context") {
  static std::string caught;
  bare_context other([](bare_context& self, void*) {
    for (int i = 0; i < 3; ++i) {
      try {
        throw_at_depth(20);
      } catch (const std::exception& e) {
        caught += e.what();
      }
      self.pause(to_payload(1));
    }
  });
  for (int i = 0; i < 3; ++i) other.resume(nullptr);
  CHECK(caught == "from the depthfrom the depthfrom the depth");
  other.resume(nullptr);
  CHECK(other.is_done());
}

struct frame_count {
  int frames = 0;
  std::uintptr_t lowest_cfa = 0;
};

_Unwind_Reason_Code count_frame(_Unwind_Context* frame, void* argument) {
  frame_count* count = static_cast<frame_count*>(argument);
  count->lowest_cfa = _Unwind_GetIP(frame);
  return ++count->frames > 100 ? _URC_END_OF_STACK : _URC_NO_REASON;
}

__attribute__((noinline)) void count_frames(int depth, frame_count& count) {
  if (depth == 0) {
    _Unwind_Backtrace(&count_frame, &count);
  } else {
    count_frames(depth - 1, count);
  }
  opaque(depth);
}

TEST_CASE("a backtrace from within a context ends at its entry") {
  static frame_count count;
  count = {};
  bare_context other([](bare_context&, void*) { count_frames(5, count); });
  other.resume(nullptr);
  CHECK(count.frames >= 1);
  CHECK(count.frames < 20);
}

// Runs `body` in a child that has a time limit; returns how the child ended.
int status_of_child(void (*body)()) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(20);
    body();
    ::_exit(99);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
  }
  return status;
}

TEST_CASE("an exception that no one catches terminates; the unwinder does not leave the context or hang") {
  const int status = status_of_child([] {
    std::set_terminate([] { ::_exit(42); });
    bare_context other([](bare_context&, void*) { throw_at_depth(3); });
    try {
      other.resume(nullptr);
    } catch (...) {
      ::_exit(43);  // unwound through the thunk into the frames of the one that resumed
    }
  });
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 42);
}

#  if !defined(__arm__) || defined(__ARM_FP)
TEST_CASE("fpu_control reads and writes the rounding mode, and only control bits") {
  const detail::fpu_control before = detail::fpu_control::current();
  CHECK(before == detail::fpu_control{});
  if (std::fesetround(FE_UPWARD) == 0) {
    const detail::fpu_control upward = detail::fpu_control::current();
    CHECK(!(upward == before));
    before.apply();
    CHECK(std::fegetround() == FE_TONEAREST);
    upward.apply();
    CHECK(std::fegetround() == FE_UPWARD);
    before.apply();
  }
  std::feclearexcept(FE_ALL_EXCEPT);
  volatile double third = opaque(1.0) / opaque(3.0);
  CHECK(third > 0);
  CHECK(detail::fpu_control::current() == before);
  detail::fpu_control{}.apply();
  CHECK(std::fetestexcept(FE_INEXACT) != 0);
}

TEST_CASE("the rounding mode belongs to the thread, or with CONCUR_SAVE_FPU to the context") {
  bare_context other([](bare_context& self, void*) {
    std::fesetround(FE_UPWARD);
    self.pause(nullptr);
    self.pause(to_payload(std::fegetround() == FE_UPWARD));
  });
  other.resume(nullptr);
#    if defined(CONCUR_SAVE_FPU)
  CHECK(std::fegetround() == FE_TONEAREST);
  CHECK(other.resume(nullptr) != nullptr);
  CHECK(std::fegetround() == FE_TONEAREST);
#    else
  CHECK(std::fegetround() == FE_UPWARD);
  std::fesetround(FE_TONEAREST);
  CHECK(other.resume(nullptr) == nullptr);
  CHECK(std::fegetround() == FE_TONEAREST);
#    endif
  other.resume(nullptr);
}
#  endif

TEST_CASE("asking for a shadow stack is harmless where there is none") { CHECK(!detail::shadow_stack_is_live()); }

TEST_CASE("a context is four words, sp, fp and pc first") {
  CHECK(sizeof(detail::context) == 4 * sizeof(void*));
  CHECK(offsetof(detail::context, pc) == 2 * sizeof(void*));
}

}  // namespace

#endif
