#!/usr/bin/env bash
# Where output goes: closed and full standard streams, devices, file size limits, other processes writing the same thing,
# names of every kind. Nothing is corrupted, nothing is left behind, and what failed says so.
set -u
alloy=$(cd "$(dirname "${BUILD:-build}/alloy")" && pwd)/alloy
[ -f demo/model/model_index.json ] || { echo "no demo model here"; exit 77; }
source=$PWD/demo/model
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
bad=0
wrong() { echo "$*"; bad=1; }
make() { "$alloy" convert "$source" --output-dir . --size 64x64 --text-length 16 "$@"; }
same() { diff -r --exclude alloy.json "$1" m >/dev/null || wrong "$1 has other bytes: $2"; }

make --name m -q || wrong "convert failed"

# closed streams must not become the files that are written
make --name closed <&- >&- 2>&-
same closed "standard streams closed"
rm -rf closed
for args in "info m" "info m --json" "list-models" "--help" "run --help"; do
    # shellcheck disable=SC2086
    "$alloy" $args >&- 2>/dev/null && wrong "status 0 though standard output is closed: $args"
    # shellcheck disable=SC2086
    [ ! -c /dev/full ] || ! "$alloy" $args >/dev/full 2>/dev/null || wrong "status 0 though standard output is full: $args"
done

# a file that may not grow is a failed write, not a signal
(ulimit -f 40 && make --name limited -q) 2>limited.err
[ $? = 1 ] || wrong "status $? under a file size limit"
[ "$(wc -l <limited.err)" = 1 ] || wrong "file size limit: $(cat limited.err)"
[ -e limited ] || [ -e limited.partial ] && wrong "limited is left"

# the terminal goes away in the middle: as after Ctrl-C, what is whole is kept, and the same command goes on from there
for round in 1 2 3; do
    "$alloy" convert "$source" --output-dir hup --name h --size 64x64 --text-length 16 -q 2>/dev/null &
    pid=$!
    for _ in $(seq 200); do [ -e hup/h.partial ] && break; sleep 0.005; done
    kill -HUP $pid 2>/dev/null
    wait $pid
    rc=$?
    [ $rc = 130 ] && [ -e hup/h ] && wrong "a model is there after SIGHUP"
    [ $rc = 130 ] || [ $rc = 0 ] || wrong "status $rc after SIGHUP"
    [ $rc = 0 ] || "$alloy" convert "$source" --output-dir hup --name h --size 64x64 --text-length 16 -q || wrong "not gone on with after SIGHUP"
    [ -e hup/h.partial ] && wrong "h.partial is left"
    rm -rf hup
done

# three at once: one makes it, the others say that it is being made, or that it is there
for round in 1 2 3; do
    rm -rf both
    for i in 1 2 3; do
        (make --name both -q 2>"err$i"; echo $? >"rc$i") &
    done
    wait
    [ "$(cat rc1 rc2 rc3 | grep -c '^0$')" = 1 ] || wrong "round $round: not one of three made it: $(cat rc? err?)"
    same both "three at once"
    [ -e both.partial ] && wrong "both.partial is left"
done

# a work folder is taken over from the dead, never from the living
mkdir -p both.partial/rubbish && make --name both --force -q || wrong "a leftover is in the way"
same both "after a leftover"
ln -s "$source" taken.partial && make --name taken -q 2>/dev/null && wrong "wrote through a link"
[ -f "$source/model_index.json" ] || wrong "the source was removed"
mkdir precious && : >precious/letter
make --name precious --force -q 2>/dev/null && wrong "--force took the place of a folder that is no model"
[ -f precious/letter ] || wrong "the letter is gone"

# names of every kind
for name in "a b'c\"d" $'new\nline' "-dash" "ümlaut-日本" $'not\xffutf8'; do
    mkdir names && cp -r "$source" "names/$name"
    (cd names && make -q -- "$name" && "$alloy" run --prompt p --steps 1 --output "./$name.png" -q -- "$name") >/dev/null 2>&1 &&
        wrong "the source itself was replaced: $name"
    "$alloy" convert --output-dir names/out --size 64x64 --text-length 16 -q -- "names/$name" || wrong "convert: $name"
    "$alloy" run --prompt p --steps 1 --output "names/$name.png" -q -- "names/out/$name" >/dev/null || wrong "run: $name"
    "$alloy" validate -q -- "names/out/$name" || wrong "validate: $name"
    "$alloy" info --json -- "names/out/$name" | grep -q '"source"' || wrong "no source in info: $name"
    rm -rf names
done

# links that lead in circles, folders that are closed, half-made models
mkdir -p tree/deep && ln -s .. tree/deep/up && ln -s ../m tree/link && mkdir tree/x.partial && cp -r m tree/x.partial/m
[ "$("$alloy" list-models --dir tree | wc -l)" = 1 ] || wrong "list-models: $("$alloy" list-models --dir tree)"
exit $bad
