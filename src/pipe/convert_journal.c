/* SPDX-License-Identifier: MIT
 *
 * The journal of a conversion, see convert_journal.h.
 */
#include "pipe/convert_journal.h"

#include "base/sha256.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char magic[] = "alloy-journal 1";
enum { MAX_JOURNAL = 1 << 28, PACKAGE = 100, TENSOR = 600 };

typedef struct record {
    const char *package, *tensor;
    uint64_t pos;
    uint8_t digest[32];
    double error2, norm2;
} record;

typedef struct progress {
    const char *package;
    ay_weight_mark mark;
    int first, n, next; /* its records: those that hold, the next to be asked for */
} progress;

struct ay_journal {
    ay_ctx *cx;
    ay_arena *arena;
    char *path;
    ay_writer *file;
    record *records;
    int n_records;
    progress *packages;
    int n_packages;
    int count;
    bool mute; /* a name came that a line cannot hold */
};

/* ---- lines ----------------------------------------------------------------------------------------------------------- */

static void to_hex(const uint8_t *bytes, int n, char *out) {
    for (int i = 0; i < n; i++) snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

static bool from_hex(const char *hex, int n, uint8_t *out) {
    for (int i = 0; i < n; i++) {
        unsigned v;
        if (strspn(hex + 2 * i, "0123456789abcdef") < 2 || sscanf(hex + 2 * i, "%2x", &v) != 1) return false;
        out[i] = (uint8_t)v;
    }
    return true;
}

static void check_of(const char *line, size_t n, char hex[17]) {
    ay_sha256 sha;
    uint8_t digest[32];
    ay_sha256_init(&sha);
    ay_sha256_add(&sha, line, n);
    ay_sha256_end(&sha, digest);
    to_hex(digest, 8, hex);
}

static void put_line(ay_buf *out, const char *text) {
    char check[17];
    check_of(text, strlen(text), check);
    ay_buf_printf(out, "%s %s\n", check, text);
}

static void put_record(ay_buf *out, const record *r) {
    char digest[65], line[PACKAGE + TENSOR + 200];
    to_hex(r->digest, 32, digest);
    snprintf(line, sizeof line, "%s %llu %s %a %a %s", r->package, (unsigned long long)r->pos, digest, r->error2, r->norm2, r->tensor);
    put_line(out, line);
}

/* The text of one whole line without its check, cut out of `at` in place; NULL where the rest is torn or damaged. */
static char *take_line(char **at) {
    char *line = *at, *end = strchr(line, '\n'), check[17];
    if (!end || end - line < 17 || line[16] != ' ') return NULL;
    *end = 0;
    *at = end + 1;
    check_of(line + 17, strlen(line + 17), check);
    return memcmp(check, line, 16) == 0 ? line + 17 : NULL;
}

static bool parse_record(ay_arena *a, const char *line, record *r) {
    char package[PACKAGE], digest[65], tensor[TENSOR];
    unsigned long long pos;
    *r = (record){0};
    if (sscanf(line, "%99s %llu %64s %la %la %599[^\n]", package, &pos, digest, &r->error2, &r->norm2, tensor) != 6) return false;
    r->pos = pos;
    r->package = ay_strdup(a, package);
    r->tensor = ay_strdup(a, tensor);
    return strlen(digest) == 64 && from_hex(digest, 32, r->digest) && !strchr(package, '/') && r->package && r->tensor;
}

/* ---- what holds -------------------------------------------------------------------------------------------------------- */

static void header_line(const uint8_t key[32], char text[100]) {
    char hex[65];
    to_hex(key, 32, hex);
    snprintf(text, 100, "%s %s", magic, hex);
}

/* Records of this key, in the file's order; other: there is a journal, but of other work. */
static alloy_status read_records(ay_journal *j, const uint8_t key[32], bool *other) {
    ay_buf text = {0};
    char want[100], *line;
    *other = false;
    if (ay_path_kind_of(j->path) != AY_PATH_FILE || ay_path_is_link(j->path)) return ALLOY_OK;
    alloy_status st = ay_file_read(j->cx, j->path, MAX_JOURNAL, &text);
    if (st != ALLOY_OK) {
        ay_buf_free(&text);
        return st == ALLOY_E_FORMAT || st == ALLOY_E_IO ? ALLOY_OK : st;
    }
    char *at = text.data;
    int cap = 1;
    for (const char *p = at; (p = strchr(p, '\n')); p++) cap++;
    j->records = ay_alloc(j->arena, (size_t)cap * sizeof *j->records);
    j->packages = ay_alloc(j->arena, (size_t)cap * sizeof *j->packages);
    header_line(key, want);
    line = take_line(&at);
    *other = line && strcmp(line, want) != 0;
    if (line && !*other && j->records && j->packages) {
        while ((line = take_line(&at)) && parse_record(j->arena, line, &j->records[j->n_records])) j->n_records++;
    }
    ay_buf_free(&text);
    return ay_arena_failed(j->arena) ? ay_nomem(j->cx) : ALLOY_OK;
}

/* DIR/PACKAGE.mlpackage/Data/com.apple.CoreML/weights/weight.bin; NULL where one of these is a link, which none of ours is. */
static const char *weight_path(ay_arena *a, const char *dir, const char *package) {
    static const char *const below[] = {"Data", "com.apple.CoreML", "weights", "weight.bin"};
    char *path = ay_sprintf(a, "%s/%s.mlpackage", dir, package);
    for (int i = 0; i < 4 && path; i++) {
        if (ay_path_is_link(path)) return NULL;
        path = ay_path_join(a, path, below[i]);
    }
    return path;
}

/* One package's records, which follow one another: how many of them its weight file bears out. */
static alloy_status hold(ay_journal *j, const char *dir, int first, int n) {
    progress *p = &j->packages[j->n_packages];
    uint64_t *pos = ay_alloc(j->arena, (size_t)n * sizeof *pos);
    uint8_t(*digest)[32] = ay_alloc(j->arena, (size_t)n * sizeof *digest);
    const char *path = weight_path(j->arena, dir, j->records[first].package);
    if (!pos || !digest) return ay_nomem(j->cx);
    for (int i = 0; i < n; i++) {
        pos[i] = j->records[first + i].pos;
        memcpy(digest[i], j->records[first + i].digest, 32);
    }
    *p = (progress){.package = j->records[first].package, .first = first, .next = first};
    if (path) AY_TRY(ay_weight_mark_find(j->cx, path, pos, (const uint8_t(*)[32])digest, n, &p->n, &p->mark));
    if (!p->n) return ALLOY_OK;
    j->n_packages++;
    j->count += p->n;
    return ALLOY_OK;
}

/* Packages are written one after another: what follows one that does not hold whole is not looked at. */
static alloy_status hold_all(ay_journal *j, const char *dir) {
    for (int i = 0, n; i < j->n_records; i += n) {
        int before = j->count;
        for (n = 1; i + n < j->n_records && strcmp(j->records[i].package, j->records[i + n].package) == 0; n++) {}
        AY_TRY(hold(j, dir, i, n));
        if (j->count != before + n) break;
    }
    return ALLOY_OK;
}

static bool goes_on(const ay_journal *j, const char *name) {
    size_t n = strlen(name);
    if (n < 10 || strcmp(name + n - 10, ".mlpackage") != 0) return false;
    for (int i = 0; i < j->n_packages; i++) {
        if (strlen(j->packages[i].package) == n - 10 && strncmp(j->packages[i].package, name, n - 10) == 0) return true;
    }
    return false;
}

static alloy_status clear(ay_journal *j, const char *dir, int *found) {
    char **names;
    AY_TRY(ay_list_dir(j->cx, j->arena, dir, &names, found));
    for (int i = 0; i < *found; i++) {
        char *path = ay_path_join(j->arena, dir, names[i]);
        if (!path) return ay_nomem(j->cx);
        if (!goes_on(j, names[i])) AY_TRY(ay_remove_tree(j->cx, path));
    }
    return ALLOY_OK;
}

/* The journal anew, with what holds. */
static alloy_status write_held(ay_journal *j, const uint8_t key[32]) {
    ay_buf text = {0};
    char header[100];
    header_line(key, header);
    put_line(&text, header);
    for (int i = 0; i < j->n_packages; i++) {
        for (int k = 0; k < j->packages[i].n; k++) put_record(&text, &j->records[j->packages[i].first + k]);
    }
    alloy_status st = text.failed ? ay_nomem(j->cx) : ay_file_write(j->cx, j->path, text.data, text.len);
    if (st == ALLOY_OK) st = ay_writer_reopen(j->cx, j->path, text.len, &j->file);
    ay_buf_free(&text);
    return st;
}

static alloy_status open_in(ay_journal *j, const char *dir, const uint8_t key[32], int total) {
    bool other;
    int found;
    j->arena = ay_arena_new();
    j->path = j->arena ? ay_path_join(j->arena, dir, "journal") : NULL;
    if (!j->path) return ay_nomem(j->cx);
    AY_TRY(read_records(j, key, &other));
    if (!other) AY_TRY(hold_all(j, dir));
    AY_TRY(clear(j, dir, &found));
    if (j->count) ay_log(j->cx, AY_LOG_INFO, "%s: resuming after %d of %d tensors", dir, j->count, total);
    else if (found) {
        ay_log(j->cx, AY_LOG_INFO, "%s: left by an interrupted conversion%s; starting over", dir,
               other ? " of other settings, another source or another version" : "");
    }
    return write_held(j, key);
}

alloy_status ay_journal_open(ay_ctx *cx, const char *dir, const uint8_t key[32], int total, ay_journal **out) {
    *out = NULL;
    ay_journal *j = calloc(1, sizeof *j);
    if (!j) return ay_nomem(cx);
    j->cx = cx;
    alloy_status st = open_in(j, dir, key, total);
    if (st == ALLOY_OK) *out = j;
    else ay_journal_close(&j, false);
    return st;
}

/* ---- while writing ------------------------------------------------------------------------------------------------------- */

static progress *find(const ay_journal *j, const char *package) {
    for (int i = 0; i < j->n_packages; i++) {
        if (strcmp(j->packages[i].package, package) == 0) return &j->packages[i];
    }
    return NULL;
}

const ay_weight_mark *ay_journal_mark(const ay_journal *j, const char *package) {
    const progress *p = find(j, package);
    return p ? &p->mark : NULL;
}

alloy_status ay_journal_next(ay_journal *j, const char *package, const char *tensor, double *error2, double *norm2) {
    progress *p = find(j, package);
    const record *r = p && p->next < p->first + p->n ? &j->records[p->next++] : NULL;
    if (!r || strcmp(r->tensor, tensor) != 0) {
        return ay_fail(j->cx, ALLOY_E_INTERNAL, "%s: \"%s\" is not the tensor that comes next; remove the folder and convert again", j->path,
                       tensor);
    }
    *error2 = r->error2;
    *norm2 = r->norm2;
    return ALLOY_OK;
}

alloy_status ay_journal_add(ay_journal *j, const char *package, const char *tensor, const ay_weight_mark *mark, double error2,
                            double norm2) {
    record r = {package, tensor, mark->pos, {0}, error2, norm2};
    ay_buf text = {0};
    j->count++;
    j->mute |= strlen(package) >= PACKAGE || strlen(tensor) >= TENSOR || strchr(tensor, '\n') || (unsigned char)tensor[0] <= ' ';
    if (j->mute) return ALLOY_OK; /* from here on it is redone */
    ay_weight_mark_digest(mark, r.digest);
    put_record(&text, &r);
    alloy_status st = text.failed ? ay_nomem(j->cx) : ay_writer_put(j->file, text.data, text.len);
    if (st == ALLOY_OK) st = ay_writer_flush(j->file);
    ay_buf_free(&text);
    return st;
}

int ay_journal_count(const ay_journal *j) { return j->count; }

uint64_t ay_journal_bytes(const ay_journal *j) {
    uint64_t sum = 0;
    for (int i = 0; i < j->n_packages; i++) sum += j->packages[i].mark.pos;
    return sum;
}

void ay_journal_close(ay_journal **jp, bool remove_file) {
    ay_journal *j = *jp;
    *jp = NULL;
    if (!j) return;
    if (j->file) (void)ay_writer_close(&j->file, false);
    if (remove_file && j->path) (void)remove(j->path);
    ay_arena_free(j->arena);
    free(j);
}
