#!/usr/bin/env bash
# kcheck of the NEON kernels on other machines: cross-compiled for arm64, run under qemu. Skipped (77) without either tool.
# Only base, quant and cpu/kernel are built, with the C library alone. BUILD=dir as for make; KCHECK_SEED replays. An
# emulator is slow: one case in KCHECK_EVERY is run (1: all of them).
set -eu
cd "$(dirname "$0")/../.."
cc=aarch64-linux-gnu-gcc
out=${BUILD:-build}/neon
command -v $cc >/dev/null 2>&1 || { echo "no $cc here"; exit 77; }
command -v qemu-aarch64 >/dev/null 2>&1 || { echo "no qemu-aarch64 here"; exit 77; }
mkdir -p "$out"
export KCHECK_EVERY=${KCHECK_EVERY:-12}
flags="-std=c17 -D_GNU_SOURCE -O1 -g -ffp-contract=off -fno-math-errno -pthread -Iinclude -Isrc"
flags="$flags -Wall -Wextra -Wno-unused-parameter -Werror"
newest=$(find src/base src/quant src/cpu/kernel -name '*.h' -newer "$out/built" 2>/dev/null | head -n 1 || true)
[ -e "$out/built" ] || newest=all
objects=""
# what the kernels stand on, and every kernel that is not for another processor
for f in src/base/{clock,ctx,dtype,half,isa,pool}.c src/quant/*.c src/cpu/kernel/*.c; do
    case "$f" in *_avx2.c | *_avxvnni.c | *_avx512.c | *_vnni.c | *_amx.c) continue ;; esac
    extra=""
    case "$f" in *_dotprod.c) extra="-march=armv8.2-a+dotprod" ;; *_i8mm.c) extra="-march=armv8.2-a+dotprod+i8mm" ;; esac
    o=$out/$(echo "${f%.c}" | tr / _).o
    objects="$objects $o"
    if [ -n "$newest" ] || [ ! -e "$o" ] || [ "$f" -nt "$o" ]; then $cc $flags $extra -c "$f" -o "$o"; fi
done
touch "$out/built"
for t in gemm i8 attn conv elt rows; do
    $cc $flags -Itests/cpu/small "tests/cpu/test_kcheck_$t.c" $objects -o "$out/kcheck_$t" -static -lm
    qemu-aarch64 "$out/kcheck_$t"
done
