#!/usr/bin/env bash
# The direction of dependencies, the exported symbols, and the public header compiled alone as C and C++.
set -eu
bash tools/deps.sh
bash tools/symbols.sh "${BUILD:-build}"
for cc in gcc clang; do
    command -v $cc >/dev/null || continue
    for std in c99 c11 c17; do $cc -std=$std -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c include/alloy.h; done
    if $cc -x c++ -fsyntax-only - </dev/null 2>/dev/null; then $cc -std=c++11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c++ include/alloy.h; fi
done
