#!/usr/bin/env bash
# Runs the test programs and scripts given; each prints its own findings. Closes with "N passed, N failed, N skipped".
# A script or program that exits with 77 was skipped (and said why). ONLY=pattern runs the matching ones.
set -u
pass=0 fail=0 skip=0
for t in "$@"; do
    case "$t" in *${ONLY:-}*) ;; *) continue ;; esac
    start=$(date +%s%N)
    if [ "${t%.sh}" != "$t" ]; then bash "$t" >"$BUILD/test.log" 2>&1; else "$t" >"$BUILD/test.log" 2>&1; fi
    rc=$?
    ms=$((($(date +%s%N) - start) / 1000000))
    if [ $rc = 0 ]; then
        pass=$((pass + 1)); echo "  ok    ${t#"$BUILD"/} (${ms} ms)"
    elif [ $rc = 77 ]; then
        skip=$((skip + 1)); echo "  skip  ${t#"$BUILD"/}: $(tail -n 1 "$BUILD/test.log")"
    else
        fail=$((fail + 1)); echo "  FAIL  ${t#"$BUILD"/} (status $rc)"; tail -n 40 "$BUILD/test.log"
    fi
done
echo "$pass passed, $fail failed, $skip skipped"
[ $fail = 0 ] && [ $pass -gt 0 ]
