#!/usr/bin/env bash
# The direction of dependencies: which folders each folder of src/ may include from. Run in the repository's root.
set -u
allowed() {
    case "$1" in
        base)   echo "base" ;;
        io)     echo "base io" ;;
        quant)  echo "base quant" ;;
        ir)     echo "base quant ir" ;;
        pass)   echo "base quant ir pass" ;;
        cpu)    echo "base quant ir pass cpu" ;;
        coreml) echo "base io quant ir pass coreml" ;;
        token)  echo "base io token" ;;
        model)  echo "base io ir model" ;;
        source) echo "base io quant ir model source" ;;
        hub)    echo "base io hub" ;;
        pipe)   echo "base io quant ir pass cpu coreml token model source hub pipe" ;;
        api)    echo "base pipe hub" ;;
        cli)    echo "" ;;
    esac
}
bad=0
for f in $(git ls-files 'src/*.c' 'src/*.h' 'src/*.m' 'cli/*.c' 'cli/*.h'); do
    case "$f" in
        src/api.c) from=api ;;
        cli/*) from=cli ;;
        *) from=${f#src/}; from=${from%%/*} ;;
    esac
    for inc in $(sed -n 's/^ *# *include *"\([a-z0-9]*\)\/.*/\1/p' "$f" | sort -u); do
        case " $(allowed "$from") " in
            *" $inc "*) ;;
            *) echo "$f: includes from $inc/, which $from/ may not"; bad=1 ;;
        esac
    done
done
# A model's name stands only in src/model/, in its pipeline's own file and row, and in the tokenizers named after it.
names='clip_[lgh]|t5xxl|flux|wan2?|ltx|ltxv|hunyuan|sdxl|sd15|sd2|sd3|sd35|mmdit|refiner|turbo|stable_diffusion|stable_diffusion_3|clip_text|bigg|t5|qwen'
for f in $(git ls-files 'src/*.c' 'src/*.h' 'cli/*.c' 'cli/*.h' include); do
    case "$f" in src/model/* | src/token/* | src/pipe/pipe_* | src/pipe/pipes.c) continue ;; esac
    hits=$(gcc -fpreprocessed -dD -E -P -x c "$f" 2>/dev/null | grep -inE "(^|[^a-z0-9])($names)([^a-z0-9]|\$)" | head -3)
    [ -z "$hits" ] || { echo "$f: names a model:"; echo "$hits"; bad=1; }
done
exit $bad
