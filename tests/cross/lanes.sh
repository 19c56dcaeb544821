#!/bin/sh
# The switch and the exception state on this machine, compiled in every way that has broken a switch somewhere.
#
#     tests/cross/lanes.sh                       g++ and clang++
#     tests/cross/lanes.sh g++-12 clang++-16     these
#
# Prints what failed, a count for each compiler, and the count of all.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/common.sh"

# AddressSanitizer knew which stack it was on; it says so when it did not.
is_told() {
  if grep "ASan is ignoring" "$dir/log"; then return 1; fi
}

# lane <options...>: both tests, compiled so.
lane() {
  for source in test_context test_exception_state; do
    all=$((all + 1))
    # shellcheck disable=SC2086
    compile "$dir/log" $compiler -std=c++17 -pthread $include "$@" "$tests/$source.cpp" "$main" -o "$dir/$source" &&
      attempt "$compiler $*: $source" "$dir/log" "$dir/$source" && has_plain_stack "$dir/$source" && is_told &&
      good=$((good + 1))
  done
}

# mixed <options> <options of the peer>: two units built differently in one program, each resuming contexts of the other.
mixed() {
  all=$((all + 1))
  build_mixed="$compiler -std=c++17 -pthread $include"
  # shellcheck disable=SC2086
  compile "$dir/log" $build_mixed $2 -DTEST_PEER_ONLY -c "$tests/test_context.cpp" -o "$dir/peer.o" &&
    compile "$dir/log" $build_mixed $1 -DTEST_PEER_ELSEWHERE "$tests/test_context.cpp" "$dir/peer.o" "$main" \
      -o "$dir/mixed" && attempt "$compiler $1 with $2" "$dir/log" "$dir/mixed" && good=$((good + 1))
}

# An object that promises landing marks after indirect jumps (IBT) keeps the promise: what each jump of ours is followed by,
# and what the assembly functions begin with, is a mark.
landing_marks() {
  all=$((all + 1))
  # shellcheck disable=SC2086
  compile "$dir/log" $compiler -std=c++17 $include -O2 -fcf-protection=full "$@" -c "$tests/test_context.cpp" -o "$dir/ibt.o" &&
    readelf -nW "$dir/ibt.o" | grep -q IBT &&
    objdump -dr --no-show-raw-insn "$dir/ibt.o" | awk '
      /^[0-9a-f]+ <.*>:$/ { at_start = /_context_(entry|switch)>/; next }
      after_jump || at_start { marks += /endbr/; expected += 1; after_jump = 0; at_start = 0 }
      /jmp +\*0x10\(%rsi\)/ { after_jump = 1 }
      END { if (expected < 2 || marks != expected) { print marks, "marks where", expected, "belong"; exit 1 } }' &&
    good=$((good + 1))
}

# planted <bug> <report> <options...>: the sanitizer reports the bug, by the words `report`, and nothing where there is none.
planted() {
  bug=$1 report=$2
  shift 2
  all=$((all + 1))
  export ASAN_OPTIONS=detect_stack_use_after_return=1
  # shellcheck disable=SC2086
  compile "$dir/log" $compiler -std=c++17 -pthread -g $include "$@" "$tests/cross/planted.cpp" -o "$dir/planted" &&
    attempt "no bug planted" "$dir/log" "$dir/planted" none &&
    is_red "$compiler $*: $bug" "$dir/log" "$dir/planted" "$bug" && grep -q "$report" "$dir/log" && good=$((good + 1))
  unset ASAN_OPTIONS
}

everything() {
  compiler=$1
  good=0 all=0
  dir=$build/lanes
  mkdir -p "$dir"
  main=$dir/doctest.o
  # shellcheck disable=SC2086
  compile "$dir/log" $compiler -std=c++17 $include -O1 -fPIC -c "$tests/support/doctest_main.cpp" -o "$main" ||
    { count "$compiler" 0 1; return; }
  is_clang=$($compiler --version | grep -c clang)
  for level in -O0 -O1 -O2 -O3 -Os; do lane $level; done
  for form in -UCONCUR_PORTABLE_SWITCH -DCONCUR_PORTABLE_SWITCH; do
    lane -O2 -flto $form
    lane -O3 -fPIC -fno-omit-frame-pointer $form
    lane -O2 -fcf-protection=full $form
    lane -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined $form
  done
  lane -O2 -fno-pic -no-pie
  lane -O2 -static
  lane -O2 -std=c++20 -fomit-frame-pointer
  lane -O2 -fstack-protector-all -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
  lane -O2 -fstack-clash-protection -ffunction-sections -Wl,--gc-sections
  lane -O3 -march=native
  lane -O2 -DCONCUR_SAVE_FPU
  if [ "$(uname -m)" = x86_64 ]; then
    # doctest has AT&T assembly of its own in each check.
    no_break='-DDOCTEST_BREAK_INTO_DEBUGGER()=static_cast<void>(0)'
    lane -O2 -masm=intel "$no_break"
    lane -O2 -masm=intel -DCONCUR_PORTABLE_SWITCH "$no_break"
    landing_marks
    landing_marks -DCONCUR_PORTABLE_SWITCH
  fi
  mixed "-O2" "-O2 -DCONCUR_PORTABLE_SWITCH"
  mixed "-O2 -DCONCUR_PORTABLE_SWITCH" "-O1"
  mixed "-O2 -flto" "-O2 -flto"
  mixed "-O2 -flto -DCONCUR_PORTABLE_SWITCH" "-O2 -flto -DCONCUR_PORTABLE_SWITCH"
  planted overflow stack-buffer-overflow -O1 -fsanitize=address
  planted return stack-use-after-return -O1 -fsanitize=address
  if [ "$is_clang" != 0 ]; then
    planted race "data race" -O1 -fsanitize=thread
    main=$tests/support/doctest_main.cpp
    lane -O1 -g -fsanitize=thread
    lane -O2 -g -fsanitize=thread -DCONCUR_PORTABLE_SWITCH
  fi
  count "$compiler" "$good" "$all"
}

find_doctest
for wanted in "${@:-g++}"; do everything "$wanted"; done
if [ $# = 0 ] && command -v clang++ >/dev/null; then everything clang++; fi
conclude
