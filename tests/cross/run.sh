#!/bin/sh
# The switch and the exception state on every processor there is code for.
#
#     tests/cross/run.sh               all targets
#     tests/cross/run.sh aarch64 ...   some
#
# Builds with the cross compilers, runs i386 natively and the others under qemu-user, and demands a stack that is not
# executable. Installs with apt-get what is missing, where it may. Prints a line for each target and ends with the count;
# a target whose compiler cannot be had counts as failed.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/common.sh"

install() {
  for package in "$@"; do
    dpkg -s "$package" >/dev/null 2>&1 && continue
    get="apt-get install -y --no-install-recommends $package"
    { $get || { apt-get update && $get; }; } >"$build/apt.log" 2>&1 || echo "cannot install $package: $build/apt.log" >&2
  done
}

# program <name> <source> <options...>: builds one test program of the target that `one` has set up, and runs it.
program() {
  name=$1 source=$2
  shift 2
  all=$((all + 1))
  # shellcheck disable=SC2086
  compile "$dir/$name.log" $compiler $common "$@" "$tests/$source.cpp" "$dir/doctest.o" -o "$dir/$name" &&
    attempt "$target: $name" "$dir/$name.log" $runner "$dir/$name" &&
    has_plain_stack "$dir/$name" && good=$((good + 1))
}

# mixed <options> <options of the peer>: two units built differently in one program, each resuming contexts of the other.
mixed() {
  # shellcheck disable=SC2086
  compile "$dir/peer.log" $compiler $common -O2 $2 -DTEST_PEER_ONLY -c "$tests/test_context.cpp" -o "$dir/peer.o"
  # shellcheck disable=SC2086
  program "mixed$all" test_context -O2 $1 -DTEST_PEER_ELSEWHERE "$dir/peer.o"
}

# one <name> <compiler> <runner> <flags> [<flags of the peer>]: everything for one target.
one() {
  target=$1 compiler=$2 runner=$3 flags=$4 peer=${5:-}
  good=0 all=0
  dir=$build/$target
  mkdir -p "$dir"
  common="-std=c++17 -static -pthread $flags $include"
  # shellcheck disable=SC2086
  compile "$dir/doctest.log" $compiler $common -O1 -c "$tests/support/doctest_main.cpp" -o "$dir/doctest.o" ||
    { count "$target" 0 1; return; }
  program context_O0 test_context -O0
  program context_O2 test_context -O2
  program context_frame test_context -O2 -fno-omit-frame-pointer -fstack-protector-strong
  program context_pic test_context -Os -fPIC
  program context_portable test_context -O2 -DCONCUR_PORTABLE_SWITCH
  program exceptions_O0 test_exception_state -O0
  program exceptions_O2 test_exception_state -O2
  program exceptions_form test_exception_state -O3 -DCONCUR_PORTABLE_SWITCH
  mixed "-DCONCUR_PORTABLE_SWITCH" "$peer"
  mixed "" "$peer -DCONCUR_PORTABLE_SWITCH"
  mixed "" "$peer"
  # Planted: the exceptions stay with the thread. The test has to see it.
  all=$((all + 1))
  # shellcheck disable=SC2086
  compile "$dir/mutant.log" $compiler $common -O2 -DCONCUR_MUTANT=1 "$tests/test_exception_state.cpp" "$dir/doctest.o" \
    -o "$dir/mutant" && is_red "$target: exceptions left behind" "$dir/mutant.log" $runner "$dir/mutant" &&
    good=$((good + 1))
  count "$target" "$good" "$all"
}

# Pages that demand a landing mark after each indirect jump; qemu enforces it. The inline form without its mark must die.
one_bti() {
  good=0
  dir=$build/bti
  mkdir -p "$dir"
  build_bti="aarch64-linux-gnu-g++ -std=c++17 -O2 -nostdlib -static -ffreestanding -fno-exceptions -fno-stack-protector
    -mbranch-protection=standard -I$root/src $tests/cross/bti.cpp -o $dir/program"
  for form in "" -DCONCUR_PORTABLE_SWITCH; do
    # shellcheck disable=SC2086
    compile "$dir/log" $build_bti $form && attempt "bti" "$dir/log" qemu-aarch64 -cpu max "$dir/program" &&
      good=$((good + 1))
  done
  # shellcheck disable=SC2086
  compile "$dir/log" $build_bti -U__ARM_FEATURE_BTI_DEFAULT &&
    is_red "bti: a missing mark" "$dir/log" qemu-aarch64 -cpu max "$dir/program" && good=$((good + 1))
  count "aarch64-bti" "$good" 3
}

find_doctest
for wanted in ${*:-i386 aarch64 aarch64-bti arm thumb arm-soft riscv64}; do
  case $wanted in
    i386)
      install g++-i686-linux-gnu
      one i386 i686-linux-gnu-g++ "" ""
      ;;
    aarch64)
      install g++-aarch64-linux-gnu qemu-user
      one aarch64 aarch64-linux-gnu-g++ qemu-aarch64 ""
      ;;
    aarch64-bti)
      install g++-aarch64-linux-gnu qemu-user
      one_bti
      ;;
    arm)
      install g++-arm-linux-gnueabihf qemu-user
      one arm arm-linux-gnueabihf-g++ qemu-arm -marm -mthumb
      ;;
    thumb)
      install g++-arm-linux-gnueabihf qemu-user
      one thumb arm-linux-gnueabihf-g++ qemu-arm -mthumb -marm
      ;;
    arm-soft)
      install g++-arm-linux-gnueabi qemu-user
      # ARMv7, since the header wants atomics without the kernel's help.
      one arm-soft arm-linux-gnueabi-g++ qemu-arm "-march=armv7-a -marm" -mthumb
      ;;
    riscv64)
      install g++-riscv64-linux-gnu qemu-user
      one riscv64 riscv64-linux-gnu-g++ qemu-riscv64 ""
      ;;
    *)
      echo "no such target: $wanted" >&2
      count "$wanted" 0 1
      ;;
  esac
done
conclude
