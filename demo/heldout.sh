#!/usr/bin/env bash
# What the demo model shows after conversion: every held-out prompt drawn by alloy and judged.
#   demo/heldout.sh KIND [STEPS] [COUNT] [LEAST]    KIND as for convert --quantization; fails under LEAST per cent accepted
set -eu
kind=$1 steps=${2:-6} count=${3:-300} least=${4:-0}
b=${BUILD:-build}
out=$b/demo/heldout-$kind-$steps
mkdir -p "$out"
judge=$b/demo/judge
[ -x "$judge" ] || "${CC:-cc}" -std=c17 -O2 -o "$judge" demo/judge/main.c demo/judge/png.c demo/judge/prompt.c demo/judge/outline.c \
    demo/judge/see.c demo/judge/match.c $(pkg-config --cflags --libs libpng) -lm
"$b/alloy" convert demo/model --output-dir "$b/demo" --name "heldout-model-$kind" --quantization "$kind" --width 128 --height 128 --force --quiet
: >"$out/list.txt"
n=0
while IFS=$'\t' read -r seed prompt; do
    case "$seed" in '#'* | '') continue ;; esac
    [ "$n" -lt "$count" ] || break
    n=$((n + 1))
    "$b/alloy" run "$b/demo/heldout-model-$kind" --prompt "$prompt" --seed "$seed" --steps "$steps" --output "$out/$seed.png" --quiet >/dev/null
    printf '%s\t%s\n' "$out/$seed.png" "$prompt" >>"$out/list.txt"
done <demo/prompts/heldout.txt
"$judge" --list "$out/list.txt" >"$out/verdicts.txt" || true
accepted=$(grep -c '^accepted' "$out/verdicts.txt" || true)
echo "$kind, $steps steps: $accepted of $n accepted ($((accepted * 1000 / n / 10)).$((accepted * 1000 / n % 10)) %)"
[ $((accepted * 100)) -ge $((least * n)) ]
