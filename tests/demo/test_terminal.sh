#!/usr/bin/env bash
# A picture shown in a terminal arrives whole: kitty's and iTerm2's escape sequences hold the PNG's own bytes, sixel has all rows.
set -u
picture=docs/contact-sheet.png
[ -f "$picture" ] || { echo "no contact sheet here"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
# shellcheck disable=SC2046
"${CC:-cc}" -std=c17 -O1 -Wall -Wextra -o "$dir/sheet" demo/sheet.c $(pkg-config --cflags --libs libpng) || exit 1
show() { env -u KITTY_WINDOW_ID -u TERM_PROGRAM "$@" "$dir/sheet" --show "$picture"; }
bad=0
show TERM=xterm-kitty | tr -d '\n' | sed 's/\x1b\\/\n/g' | sed 's/^[^;]*;//' | tr -d '\n' | base64 -d | cmp - "$picture" || bad=1
show TERM=xterm TERM_PROGRAM=iTerm.app | head -c -2 | sed 's/^[^:]*://' | base64 -d | cmp - "$picture" || bad=1
rows=$(show TERM=foot | tr -cd -- '-' | wc -c)
height=$(od -An -tu1 -j20 -N4 "$picture" | { read -r a b c d; echo $(((a << 24) + (b << 16) + (c << 8) + d)); })
[ "$rows" = $(((height + 5) / 6)) ] || { echo "sixel: $rows bands for $height rows"; bad=1; }
[ -z "$(show TERM=dumb)" ] || { echo "something is shown where nothing can be"; bad=1; }
exit "$bad"
