#!/usr/bin/env bash
# make demo: the trained demo checkpoint to Core ML packages, four prompts to pictures, one contact sheet.
set -eu
b=${BUILD:-build}
out=$b/demo
alloy=$b/alloy
kinds=${KINDS:-float16 int4}
steps=${STEPS:-6}
mkdir -p "$out"
rm -rf "$out"/*.png "$out"/demo-*
"${CC:-cc}" -std=c17 -O2 -o "$out/sheet" demo/sheet.c $(pkg-config --cflags --libs libpng)
"${CC:-cc}" -std=c17 -O2 -o "$out/judge" demo/judge/main.c demo/judge/png.c demo/judge/prompt.c demo/judge/outline.c demo/judge/see.c \
    demo/judge/match.c $(pkg-config --cflags --libs libpng) -lm

pictures=()
for kind in $kinds; do
    start=$(date +%s%N)
    "$alloy" convert demo/model --output-dir "$out" --name "demo-$kind" --quantization "$kind" --width 128 --height 128 --quiet
    bytes=$(du -sk "$out/demo-$kind" | cut -f1)
    printf 'converted demo/model to %s: %d kB, %d ms\n' "$kind" "$bytes" $((($(date +%s%N) - start) / 1000000))
    i=0
    while IFS=$'\t' read -r seed prompt; do
        case "$seed" in '#'* | '') continue ;; esac
        i=$((i + 1))
        start=$(date +%s%N)
        "$alloy" run "$out/demo-$kind" --prompt "$prompt" --seed "$seed" --steps "$steps" \
            --output "$out/$kind-$i.png" --quiet >/dev/null
        ms=$((($(date +%s%N) - start) / 1000000))
        verdict=$("$out/judge" "$out/$kind-$i.png" "$prompt" | head -n 1 | cut -f1) || true
        printf '  %-14s %4d ms  %-9s %s\n' "$kind-$i.png" "$ms" "$verdict" "\"$prompt\""
        pictures+=("$out/$kind-$i.png")
    done <demo/prompts/demo.txt
done
"$out/sheet" "$out/contact-sheet.png" 4 "${pictures[@]}"
[ -t 1 ] && "$out/sheet" --show "$out/contact-sheet.png" || true
set -- $kinds
cat <<TEXT

The pictures are in $out; $out/contact-sheet.png has them all, a row for each of: $kinds.
Try next:
  $alloy run $out/demo-$1 --prompt "two small green stars on a white background" --seed 3 --output star.png
  $alloy run $out/demo-$1 --prompt "a big red ring on black" --width 192 --height 128 --output wide.png
  $alloy info $out/demo-$1
  $alloy convert path/to/FLUX.1-schnell --output-dir out
TEXT
