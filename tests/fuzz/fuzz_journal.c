/* SPDX-License-Identifier: MIT
 *
 * The journal of an interrupted conversion: any lines, beside any weight file, give an open journal or one sentence. The
 * first byte says whether the lines get the checks that make them be read.
 */
#include "base/sha256.h"
#include "pipe/convert_journal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void add_line(ay_buf *out, const char *line, size_t n) {
    ay_sha256 sha;
    uint8_t d[32];
    ay_sha256_init(&sha);
    ay_sha256_add(&sha, line, n);
    ay_sha256_end(&sha, d);
    for (int i = 0; i < 8; i++) ay_buf_printf(out, "%02x", d[i]);
    ay_buf_printf(out, " %.*s\n", (int)n, line);
}

static void try_in(ay_ctx *cx, ay_arena *a, const char *dir, const ay_buf *text) {
    static const uint8_t key[32], blob[256] = {1};
    ay_journal *j = NULL;
    double e, w;
    char *weights = ay_path_join(a, dir, "T.mlpackage/Data/com.apple.CoreML/weights");
    if (ay_mkdirs(cx, weights) != ALLOY_OK || ay_file_write(cx, ay_path_join(a, weights, "weight.bin"), blob, sizeof blob) != ALLOY_OK) return;
    if (ay_file_write(cx, ay_path_join(a, dir, "journal"), text->data ? text->data : "", text->len) != ALLOY_OK) return;
    if (ay_journal_open(cx, dir, key, 10, &j) == ALLOY_OK) {
        const ay_weight_mark *m = ay_journal_mark(j, "T");
        if (m && m->pos > sizeof blob) __builtin_trap();
        (void)ay_journal_next(j, "T", "x", &e, &w);
        ay_weight_mark mark = {.pos = 64};
        if (ay_journal_add(j, "T", "y", &mark, 1, 2) != ALLOY_OK) __builtin_trap();
    }
    ay_journal_close(&j, true);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char dir[] = "/tmp/fuzz_journal_XXXXXX", header[100] = "alloy-journal 1 ";
    ay_buf text = {0};
    ay_ctx *cx;
    if (size == 0 || !mkdtemp(dir) || ay_ctx_open(1, &cx) != ALLOY_OK) return 0;
    ay_arena *a = ay_arena_new();
    if (data[0] & 1) {
        memset(header + strlen(header), '0', 64);
        add_line(&text, header, strlen(header));
        for (size_t at = 1; at < size;) {
            const uint8_t *end = memchr(data + at, '\n', size - at);
            size_t n = end ? (size_t)(end - data) - at : size - at;
            add_line(&text, (const char *)data + at, n);
            at += n + 1;
        }
    } else {
        ay_buf_add(&text, data + 1, size - 1);
    }
    if (a) try_in(cx, a, dir, &text);
    ay_remove_tree(cx, dir);
    ay_buf_free(&text);
    ay_arena_free(a);
    ay_ctx_close(&cx);
    return 0;
}
