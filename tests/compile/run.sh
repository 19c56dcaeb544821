#!/usr/bin/env bash
# Compiles the header in every way it promises to compile in, each with warnings as errors.
#
# usage: run.sh [--all]      without --all the lanes that find most, for every check; with it all of them
#
# COMPILERS names the compilers ("g++ clang++"); by default those of g++ and clang++ that there are. Ends with one line
# `compile: N passed, N failed`. What a failing lane printed is shown, with its command.
set -euo pipefail
cd "$(dirname "$0")/../.."

all=false
[ "${1:-}" = --all ] && all=true
compilers=${COMPILERS:-}
if [ -z "$compilers" ]; then
  for compiler in g++ clang++ $($all && echo clang++-16); do
    command -v "$compiler" >/dev/null && compilers+=" $compiler"
  done
fi
jobs=${JOBS:-$(nproc 2>/dev/null || echo 2)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

strict="-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wold-style-cast -Wcast-qual -Wundef
  -Wnull-dereference -Wdouble-promotion -Wformat=2 -Wnon-virtual-dtor -Woverloaded-virtual
  -Wzero-as-null-pointer-constant -Werror"
gcc_only="-Wuseless-cast -Wduplicated-cond -Wlogical-op"
# All that clang knows, without what only says that this is C++17, that a struct has padding, or that a class is in a header.
everything="-Weverything -Wno-c++98-compat -Wno-c++98-compat-pedantic -Wno-c++20-compat -Wno-padded -Wno-weak-vtables
  -Wno-unknown-warning-option -Wno-unsafe-buffer-usage -Wno-switch-enum -Wno-covered-switch-default -Wno-switch-default
  -Wno-unused-member-function -Wno-unused-template -Wno-disabled-macro-expansion -Wno-ctad-maybe-unsupported
  -Wno-pre-c++20-compat-pedantic -Wno-c++17-extensions -Wno-reserved-identifier -Wno-reserved-macro-identifier
  -Wno-thread-safety-negative -Wno-gnu-zero-variadic-macro-arguments -Werror"

# What the header includes, before anybody's macros.
sed -n 's/^ *# *include *\(<[^>]*>\).*/\1/p' concur.hpp | sort -u | grep -v '^<sanitizer/' | while read -r header; do
  printf '#if __has_include(%s)\n#include %s\n#endif\n' "$header" "$header"
done >"$work/system_headers.hpp"

lanes=$work/lanes
lane() {  # name, then the command
  local name=$1
  shift
  printf '%s\t%s\n' "$name" "$(echo "$*" | tr -s ' \n' ' ')" >>"$lanes"
}

# Each part of src/atomic is complete by itself; and those that users may take alone also link and run so, in a program that
# knows no other part.
alone_lanes() {  # compiler and warnings
  local part name
  for part in src/atomic/*.hpp; do
    name=$(basename "$part" .hpp)
    echo "#include \"atomic/$name.hpp\"" >"$work/only_$name.cpp"
    lane "$1 only $name" "$1 -Isrc $2 -std=c++17 -O1 -fsyntax-only $work/only_$name.cpp"
  done
  for part in tests/compile/alone/*.cpp; do
    name=$(basename "$part" .cpp)
    lane "$1 $name alone" "$1 -Isrc $2 -std=c++17 -O1 -fno-exceptions -fno-rtti $part -o $work/${1//+/x}_$name &&" \
      "$work/${1//+/x}_$name"
  done
}

compile_lanes() {  # compiler
  local cxx=$1 warn=$strict base
  case $cxx in *clang*) ;; *) warn="$strict $gcc_only" ;; esac
  base="$cxx -I. -pthread $warn -c -o /dev/null"
  local uses=tests/compile/every_template.cpp
  for std in c++17 c++20; do
    lane "$cxx $std" "$base -std=$std -O2 $uses"
  done
  lane "$cxx alone" "$base -std=c++17 -O2 tests/compile/header_alone.cpp"
  lane "$cxx hostile macros" "$cxx -I. -I$work -std=c++17 -Werror -c -o /dev/null tests/compile/hostile_macros.cpp"
  lane "$cxx no exceptions, no rtti" "$base -std=c++17 -O2 -fno-exceptions -fno-rtti $uses"
  lane "$cxx runs without exceptions" "$cxx -I. -pthread $warn -std=c++17 -O2 -fno-exceptions -fno-rtti" \
    "tests/compile/no_exceptions_run.cpp -o $work/runs_${cxx//+/x} && timeout 60 $work/runs_${cxx//+/x}"
  lane "$cxx checked" "$base -std=c++17 -O2 -DCONCUR_CHECKED $uses"
  lane "$cxx separate, users" "$base -std=c++17 -O2 -DCONCUR_SEPARATE_COMPILATION $uses"
  lane "$cxx separate, bodies" "$base -std=c++17 -O2 -DCONCUR_SEPARATE_COMPILATION -DCONCUR_IMPLEMENTATION $uses"
  alone_lanes "$cxx" "$warn"
  case $cxx in *clang*) $all || return 0 ;; esac
  lane "$cxx poll" "$base -std=c++17 -O2 -DCONCUR_POLLER_POLL $uses"
  lane "$cxx kqueue layer" "$base -std=c++17 -O2 -DCONCUR_POLLER_KQUEUE -Itests/support/kqueue $uses"
  lane "$cxx portable switch" "$base -std=c++17 -O2 -DCONCUR_PORTABLE_SWITCH $uses"
  lane "$cxx fpu" "$base -std=c++17 -O2 -DCONCUR_SAVE_FPU $uses"
  $all || return 0
  for std in c++17 c++20 gnu++17 gnu++20 c++2b; do
    for level in -O0 -O1 -O3 -Os; do
      lane "$cxx $std $level" "$base -std=$std $level $uses"
    done
  done
  lane "$cxx c++20 no exceptions, no rtti" "$base -std=c++20 -O3 -fno-exceptions -fno-rtti $uses"
  lane "$cxx asan, ubsan" "$base -std=c++17 -O1 -fsanitize=address,undefined -Wno-null-dereference $uses"
  lane "$cxx tsan" "$base -std=c++17 -O1 -fsanitize=thread -Wno-null-dereference -Wno-tsan $uses"
  lane "$cxx pthread parker" "$base -std=c++17 -O2 -DCONCUR_PARKER_PTHREAD $uses"
  lane "$cxx explore" "$base -std=c++17 -O2 -DCONCUR_EXPLORE $uses"
  lane "$cxx protections" "$base -std=c++17 -O2 -fstack-protector-strong -fstack-clash-protection -D_FORTIFY_SOURCE=2 $uses"
  lane "$cxx pic, no frame pointer" "$base -std=c++17 -O2 -fPIC -fomit-frame-pointer $uses"
  lane "$cxx frame pointer" "$base -std=c++17 -O2 -fno-omit-frame-pointer $uses"
  [ "$(uname -m)" = x86_64 ] || return 0
  lane "$cxx native" "$base -std=c++17 -O3 -march=x86-64-v4 $uses"
  lane "$cxx branch protection" "$base -std=c++17 -O2 -fcf-protection=full $uses"
}

for compiler in $compilers; do
  compile_lanes "$compiler"
  case $compiler in
    *clang*)
      command="$compiler -I. -pthread -std=c++17 -O2 -c -o /dev/null tests/compile/every_template.cpp"
      lane "$compiler -Weverything" "$command $everything"
      if $all && echo '#include <version>' | $compiler -stdlib=libc++ -std=c++20 -E -x c++ - >"$work/version" 2>&1; then
        lane "$compiler libc++" "$command -stdlib=libc++ $strict"
      fi
      ;;
  esac
done

# Names of macros defined by the header itself, as the compiler saw them: between the line marks of concur.hpp.
foreign_macros() {  # compiler and flags
  set -o pipefail
  # shellcheck disable=SC2086
  $1 -I. -std=c++17 -E -dD tests/compile/header_alone.cpp | awk '
    /^# [0-9]+ "/ { ours = $3 ~ /concur\.hpp"$/ }
    ours && /^#(define|undef) / && $2 !~ /^CONCUR_/ { print "concur.hpp defines " $2; bad = 1 }
    END { exit bad }'
}
export -f foreign_macros

# A unit that includes the header and uses nothing of it must get no code and no data: all of it would be there once for
# each unit.
emits_nothing() {  # compiler and flags
  # shellcheck disable=SC2086
  $1 -I. -std=c++17 -O0 -c tests/compile/header_alone.cpp -o "$WORK/alone_$2.o"
  nm -C "$WORK/alone_$2.o" | awk '$2 ~ /^[TtWVuDdBb]$/ && /concur::/ { print "emits " $0; bad = 1 } END { exit bad }'
}
export -f emits_nothing
for compiler in $compilers; do
  lane "$compiler leaks no macro" "foreign_macros $compiler"
  lane "$compiler emits nothing" "emits_nothing $compiler ${compiler//+/x}"
  lane "$compiler leaks no macro, separate" "foreign_macros '$compiler -DCONCUR_SEPARATE_COMPILATION'"
done

run_lane() {  # number, name, command
  if eval "$3" >"$WORK/$1.out" 2>&1; then
    echo passed >"$WORK/$1.result"
  else
    echo failed >"$WORK/$1.result"
    printf 'FAILED %s\n  %s\n' "$2" "$3"
    head -40 "$WORK/$1.out"
  fi
}
export -f run_lane
export WORK=$work
number=0
while IFS=$'\t' read -r name command; do
  number=$((number + 1))
  printf '%s\0%s\0%s\0' "$number" "$name" "$command"
done <"$lanes" >"$work/arguments"
xargs -0 -n 3 -P "$jobs" bash -c 'run_lane "$@"' lane <"$work/arguments"

passed=$(cat "$work"/*.result | grep -c passed || true)
failed=$((number - passed))
echo "compile: $passed passed, $failed failed"
[ "$failed" = 0 ]
