#!/usr/bin/env bash
# The header in several units and several objects of one program, and builds that must refuse to become one program.
#
# What holds, and is shown here: one copy of everything in a program and the shared objects it is linked with, hidden
# visibility or not; the same with dlopen where the program exports its symbols (-rdynamic); units whose options change the
# layout of a type do not link. Ends with `abi: N passed, N failed`.
#
# usage: run.sh [--all]      with CXX (g++ by default), or with all of g++ and clang++ that there are
set -euo pipefail
cd "$(dirname "$0")/../.."

compilers=${CXX:-g++}
if [ "${1:-}" = --all ]; then
  compilers=
  for compiler in g++ clang++; do
    command -v "$compiler" >/dev/null && compilers+=" $compiler"
  done
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
failed=0

report() { # name, whether it is as wanted
  if [ "$2" = yes ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED $1"
    head -30 "$work/log"
  fi
}

# A script of commands that must succeed.
holds() { # name, commands
  local status=0
  # A program of its own, because `set -e` does nothing inside a condition.
  bash -ec "$2" >"$work/log" 2>&1 || status=$?
  echo "status $status" >>"$work/log"
  if [ $status = 0 ]; then report "$1" yes; else report "$1" no; fi
}

# Two units that must compile, and must not link, because of names in namespace concur.
must_not_link() { # name, compiler, flags of the program, flags of the other unit
  local name=$1 cxx="$2 -std=c++17 -O1 -pthread -I." log=$work/log
  # shellcheck disable=SC2086
  if ! { $cxx $3 -c tests/abi/mixed_user.cpp -o "$work/user.o" && $cxx $4 -c tests/abi/mixed_owner.cpp -o "$work/owner.o"; } \
    >"$log" 2>&1; then
    report "$name: the units compile" no
  elif $cxx "$work/user.o" "$work/owner.o" -o "$work/mixed" ${5:-} >"$log" 2>&1; then
    echo "it links" >"$log"
    report "$name" no
  elif grep -q 'undefined.*concur::v1' "$log"; then
    report "$name" yes
  else
    report "$name: for this reason" no
  fi
}

for cxx in $compilers; do
  build="$cxx -std=c++17 -O1 -pthread -I. -Wl,-z,defs"
  limit="timeout 60"
  holds "$cxx: two units" "$build tests/abi/program.cpp tests/abi/other.cpp -o $work/two && $limit $work/two"
  holds "$cxx: two units, separate bodies" "
    for unit in tests/abi/program.cpp tests/abi/other.cpp; do
      $cxx -std=c++17 -O1 -I. -DCONCUR_SEPARATE_COMPILATION -c \$unit -o $work/\$(basename \$unit).o
    done
    $cxx -std=c++17 -O1 -I. -c tools/concur.cpp -o $work/bodies.o
    $build $work/program.cpp.o $work/other.cpp.o $work/bodies.o -o $work/separate && $limit $work/separate"
  holds "$cxx: declarations alone do not link" "! $build $work/program.cpp.o $work/other.cpp.o -o $work/lacking"
  for visibility in default hidden; do
    flags="-fPIC -fvisibility=$visibility"
    [ $visibility = default ] || flags+=" -fvisibility-inlines-hidden"
    holds "$cxx: shared object, $visibility" "
      $build $flags -shared tests/abi/other.cpp -o $work/libother.so
      $build -fvisibility=$visibility tests/abi/program.cpp -L$work -lother -Wl,-rpath,$work -o $work/linked
      $limit $work/linked"
    holds "$cxx: dlopen, $visibility" "
      $build $flags -shared tests/abi/plugin.cpp -o $work/plugin.so
      $build -fvisibility=$visibility -rdynamic -DABI_DLOPEN tests/abi/program.cpp -ldl -o $work/loader
      $limit $work/loader $work/plugin.so"
  done
  holds "$cxx: C++17 and C++20 together" "
    $cxx -std=c++17 -O1 -I. -c tests/abi/program.cpp -o $work/p17.o
    $cxx -std=c++20 -O1 -I. -c tests/abi/other.cpp -o $work/o20.o
    $build $work/p17.o $work/o20.o -o $work/standards && $limit $work/standards"
  holds "$cxx: units of other optimisation" "
    $cxx -std=c++17 -O0 -I. -c tests/abi/program.cpp -o $work/p0.o
    $cxx -std=c++17 -O3 -fomit-frame-pointer -I. -c tests/abi/other.cpp -o $work/o3.o
    $build $work/p0.o $work/o3.o -o $work/levels && $limit $work/levels"
  must_not_link "$cxx: without exceptions and with" "$cxx" "" "-fno-exceptions"
  must_not_link "$cxx: checked and not" "$cxx" "" "-DCONCUR_CHECKED"
  must_not_link "$cxx: poll and epoll" "$cxx" "" "-DCONCUR_POLLER_POLL"
  must_not_link "$cxx: asan and not" "$cxx" "" "-fsanitize=address" "-fsanitize=address"
done

# Two compilers, one program.
if [[ $compilers == *g++* && $compilers == *clang++* ]]; then
  holds "g++ and clang++ together" "
    g++ -std=c++17 -O1 -I. -c tests/abi/program.cpp -o $work/pg.o
    clang++ -std=c++17 -O1 -I. -c tests/abi/other.cpp -o $work/oc.o
    g++ -pthread $work/pg.o $work/oc.o -o $work/both && timeout 60 $work/both"
fi

echo "abi: $passed passed, $failed failed"
[ "$failed" = 0 ]
