#!/usr/bin/env bash
# meson: as a project of its own with the bodies in a library (then the whole suite runs against declarations only), as a
# subproject of another, and installed. Ends with `meson: N passed, N failed`.
set -euo pipefail
cd "$(dirname "$0")/../.."
repository=$PWD

if ! command -v meson >/dev/null || ! command -v ninja >/dev/null; then
  echo "meson: there is no meson here"
  echo "meson: 0 passed, 0 failed"
  exit 0
fi
export CXX=${CXX:-g++}
unset CXXFLAGS MAKEFLAGS
work=${BUILD:-build}/meson
rm -rf "$work"
mkdir -p "$work"
work=$(cd "$work" && pwd)
passed=0
failed=0
try() { # name, command...
  local name=$1
  shift
  if "$@" >"$work/log" 2>&1; then
    echo "$name: ok"
    passed=$((passed + 1))
  else
    echo "$name: FAILED: $*"
    tail -40 "$work/log"
    failed=$((failed + 1))
  fi
}

# The library both ways; the tests against the shared one.
try "configure" meson setup "$work/library" -Dcompile=true -Dtests=enabled -Dexamples=true --wrap-mode=nodownload
try "build" ninja -C "$work/library"
try "tests against the library" meson test -C "$work/library" --print-errorlogs
try "install" env DESTDIR="$work/stage" meson install -C "$work/library" --no-rebuild
try "static library" meson setup "$work/static" -Dcompile=true -Dtests=disabled --default-library=static --prefix=/opt/concur
try "static library, build" ninja -C "$work/static"

# Another project, with this one below subprojects/.
for compiled in false true; do
  user=$work/user_$compiled
  mkdir -p "$user/subprojects"
  ln -s "$repository" "$user/subprojects/concur"
  cp "$repository/tests/install/user.cpp" "$user/"
  cat >"$user/meson.build" <<'EOF'
project('user', 'cpp', default_options: ['cpp_std=c++17'])
concur = dependency('concur', fallback: 'concur')
test('user', executable('user', 'user.cpp', dependencies: concur))
EOF
  try "subproject, compile=$compiled" meson setup "$user/build" "$user" -Dconcur:compile="$compiled" --wrap-mode=nodownload
  try "subproject, compile=$compiled, test" meson test -C "$user/build"
done

echo "meson: $passed passed, $failed failed"
[ "$failed" = 0 ]
