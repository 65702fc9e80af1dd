/* SPDX-License-Identifier: MIT
 *
 * A machine for Python's pickles (CPython, Lib/pickletools.py describes every instruction) that calls nothing: objects are
 * numbers, texts and containers, and what the caller makes of the few globals it knows. Any other global is refused by its
 * name. Each instruction makes at most one value and nothing is ever copied deeply, so a file cannot ask for more memory than
 * in proportion to its length; nothing here recurses.
 */
#include "io/io_internal.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_VALUES = 1 << 20 }; /* on the stack, in the memo, in all containers */

typedef struct machine {
    ay_ctx *cx;
    const char *what;
    const uint8_t *at, *end;
    ay_arena *arena;
    const ay_pickle_world *world;
    ay_pickle_list stack, memo;
    int64_t *marks; /* heights of the stack */
    int64_t n_marks, cap_marks;
    int64_t held; /* values in containers */
    bool done;
} machine;

/* ---- failures ---------------------------------------------------------------------------------------------------------- */

static alloy_status damaged(machine *m, const char *why) {
    return ay_fail(m->cx, ALLOY_E_FORMAT, "%s: its pickle is broken (%s); the file is damaged, fetch it again", m->what, why);
}

static alloy_status too_many(machine *m) {
    return ay_fail(m->cx, ALLOY_E_UNSUPPORTED, "%s: its pickle makes more than %d values, which no checkpoint does", m->what, MAX_VALUES);
}

static alloy_status refused(machine *m, const char *module, const char *name) {
    char show[160], show2[160];
    return ay_fail(m->cx, ALLOY_E_UNSUPPORTED,
                   "%s: its pickle calls for %s.%s, which is no tensor, number or text, so nothing of the file is taken; such files can run code "
                   "where they are loaded, ask for a .safetensors of it",
                   m->what, ay_show(module, show, sizeof show), ay_show(name, show2, sizeof show2));
}

/* ---- lists --------------------------------------------------------------------------------------------------------------- */

static alloy_status grow(machine *m, ay_pickle_list *l, int64_t n) {
    if (n <= l->cap) return ALLOY_OK;
    if (n > MAX_VALUES) return too_many(m);
    int64_t cap = ay_max_i64(n, l->cap ? 2 * l->cap : 8);
    ay_pickle *items = ay_alloc(m->arena, (size_t)cap * sizeof *items);
    if (!items) return ay_nomem(m->cx);
    if (l->n) memcpy(items, l->items, (size_t)l->n * sizeof *items);
    l->items = items;
    l->cap = cap;
    return ALLOY_OK;
}

static alloy_status push(machine *m, ay_pickle v) {
    AY_TRY(grow(m, &m->stack, m->stack.n + 1));
    m->stack.items[m->stack.n++] = v;
    return ALLOY_OK;
}

/* How many values lie above the last mark, or on the whole stack. */
static int64_t above(const machine *m) { return m->stack.n - (m->n_marks ? m->marks[m->n_marks - 1] : 0); }

static alloy_status pop(machine *m, ay_pickle *out) {
    if (above(m) < 1) return damaged(m, "it takes from an empty stack");
    *out = m->stack.items[--m->stack.n];
    return ALLOY_OK;
}

static alloy_status append(machine *m, ay_pickle_list *l, const ay_pickle *v, int64_t n) {
    m->held += n + 1;
    if (m->held > MAX_VALUES) return too_many(m);
    AY_TRY(grow(m, l, l->n + n));
    if (n) memcpy(l->items + l->n, v, (size_t)n * sizeof *v);
    l->n += n;
    return ALLOY_OK;
}

static alloy_status new_list(machine *m, ay_pickle_kind kind, const ay_pickle *v, int64_t n, ay_pickle *out) {
    *out = (ay_pickle){.kind = kind};
    out->u.list = ay_alloc(m->arena, sizeof *out->u.list);
    if (!out->u.list) return ay_nomem(m->cx);
    return append(m, out->u.list, v, n);
}

/* The top `n` values as one container in their place. */
static alloy_status gather(machine *m, ay_pickle_kind kind, int64_t n) {
    ay_pickle v = {.kind = AY_PICKLE_NONE};
    if (above(m) < n) return damaged(m, "it takes from an empty stack");
    if (kind == AY_PICKLE_DICT && n % 2) return damaged(m, "a key without a value");
    AY_TRY(new_list(m, kind, n ? m->stack.items + m->stack.n - n : NULL, n, &v));
    m->stack.n -= n;
    return push(m, v);
}

static alloy_status mark(machine *m) {
    if (m->n_marks == m->cap_marks) {
        int64_t cap = m->cap_marks ? 2 * m->cap_marks : 16;
        if (cap > MAX_VALUES) return too_many(m);
        int64_t *marks = ay_alloc(m->arena, (size_t)cap * sizeof *marks);
        if (!marks) return ay_nomem(m->cx);
        if (m->n_marks) memcpy(marks, m->marks, (size_t)m->n_marks * sizeof *marks);
        m->marks = marks;
        m->cap_marks = cap;
    }
    m->marks[m->n_marks++] = m->stack.n;
    return ALLOY_OK;
}

/* Takes the last mark away; *n is how many values were above it. */
static alloy_status unmark(machine *m, int64_t *n) {
    if (!m->n_marks) return damaged(m, "it ends a group that it did not begin");
    *n = m->stack.n - m->marks[--m->n_marks];
    return ALLOY_OK;
}

/* ---- operands -------------------------------------------------------------------------------------------------------------- */

static alloy_status take(machine *m, uint64_t n, const uint8_t **p) {
    if (n > (uint64_t)(m->end - m->at)) return damaged(m, "it ends in the middle");
    *p = m->at;
    m->at += n;
    return ALLOY_OK;
}

/* An unsigned number of `n` bytes. */
static alloy_status number(machine *m, int n, uint64_t *out) {
    const uint8_t *p = NULL;
    AY_TRY(take(m, (uint64_t)n, &p));
    *out = 0;
    for (int i = n - 1; i >= 0; i--) *out = *out << 8 | p[i];
    return ALLOY_OK;
}

/* Text up to the end of the line, without it. */
static alloy_status line(machine *m, const char **text, size_t *n) {
    const uint8_t *p = memchr(m->at, '\n', (size_t)(m->end - m->at));
    if (!p) return damaged(m, "it ends in the middle");
    *text = (const char *)m->at;
    *n = (size_t)(p - m->at);
    m->at = p + 1;
    return ALLOY_OK;
}

static ay_pickle text_value(const char *text, size_t n) { return (ay_pickle){.kind = AY_PICKLE_TEXT, .u.s = {text, n}}; }
static ay_pickle int_value(int64_t i) { return (ay_pickle){.kind = AY_PICKLE_INT, .u.i = i}; }

static alloy_status push_text(machine *m, int length_bytes) {
    uint64_t n = 0;
    const uint8_t *p = NULL;
    AY_TRY(number(m, length_bytes, &n));
    AY_TRY(take(m, n, &p));
    return push(m, text_value((const char *)p, (size_t)n));
}

static alloy_status push_line_text(machine *m) {
    const char *s = NULL;
    size_t n = 0;
    AY_TRY(line(m, &s, &n));
    if (n >= 2 && (*s == '\'' || *s == '"') && s[n - 1] == *s) s++, n -= 2;
    return push(m, text_value(s, n));
}

/* A decimal number in a line: "12", "12L", "1e-3"; and True and False as protocol 0 writes them, "01" and "00". */
static alloy_status push_line_number(machine *m, bool whole) {
    const char *s = NULL;
    size_t n = 0;
    char text[64], *end;
    AY_TRY(line(m, &s, &n));
    if (!n || n >= sizeof text) return damaged(m, "a number of strange length");
    memcpy(text, s, n);
    text[n] = 0;
    if (whole && n == 2 && text[0] == '0') return push(m, (ay_pickle){.kind = AY_PICKLE_BOOL, .u.i = text[1] == '1'});
    ay_pickle v = {.kind = whole ? AY_PICKLE_INT : AY_PICKLE_FLOAT};
    if (whole) v.u.i = strtoll(text, &end, 10);
    else v.u.f = strtod(text, &end);
    if (end == text || (*end && strcmp(end, "L") != 0)) return damaged(m, "a number that is none");
    return push(m, v);
}

/* A two's complement number of any length; what 64 bits do not hold becomes a float, which nothing here is sized by. */
static alloy_status push_long(machine *m, int length_bytes) {
    uint64_t n = 0;
    const uint8_t *p = NULL;
    AY_TRY(number(m, length_bytes, &n));
    AY_TRY(take(m, n, &p));
    if (n > 8) return push(m, (ay_pickle){.kind = AY_PICKLE_FLOAT, .u.f = p[n - 1] & 0x80 ? -1e300 : 1e300});
    uint64_t v = n && p[n - 1] & 0x80 ? UINT64_MAX : 0;
    for (size_t i = (size_t)n; i-- > 0;) v = v << 8 | p[i];
    return push(m, int_value((int64_t)v));
}

static alloy_status push_double(machine *m) {
    const uint8_t *p = NULL;
    ay_pickle v = {.kind = AY_PICKLE_FLOAT};
    uint64_t bits = 0;
    AY_TRY(take(m, 8, &p));
    for (int i = 0; i < 8; i++) bits = bits << 8 | p[i];
    memcpy(&v.u.f, &bits, 8);
    return push(m, v);
}

/* ---- globals, calls, memo ---------------------------------------------------------------------------------------------------- */

static alloy_status push_global(machine *m, const char *module, size_t module_n, const char *name, size_t name_n) {
    char a[256], b[256];
    if (module_n >= sizeof a || name_n >= sizeof b) return damaged(m, "a global of strange length");
    memcpy(a, module, module_n);
    memcpy(b, name, name_n);
    a[module_n] = b[name_n] = 0;
    int id = m->world->global(m->world->user, a, b);
    if (id < 0) return refused(m, a, b);
    return push(m, (ay_pickle){.kind = AY_PICKLE_GLOBAL, .u.i = id});
}

static alloy_status global_of_lines(machine *m) {
    const char *module = NULL, *name = NULL;
    size_t module_n = 0, name_n = 0;
    AY_TRY(line(m, &module, &module_n));
    AY_TRY(line(m, &name, &name_n));
    return push_global(m, module, module_n, name, name_n);
}

/* "i": a class by its name, called with what is above the mark. No checkpoint has it; its name is told. */
static alloy_status instance(machine *m) {
    const char *module = NULL, *name = NULL;
    size_t module_n = 0, name_n = 0;
    char a[256], b[256];
    AY_TRY(line(m, &module, &module_n));
    AY_TRY(line(m, &name, &name_n));
    if (module_n >= sizeof a || name_n >= sizeof b) return damaged(m, "a global of strange length");
    snprintf(a, sizeof a, "%.*s", (int)module_n, module);
    snprintf(b, sizeof b, "%.*s", (int)name_n, name);
    return refused(m, a, b);
}

static alloy_status global_of_stack(machine *m) {
    ay_pickle name = {.kind = AY_PICKLE_NONE}, module = name;
    AY_TRY(pop(m, &name));
    AY_TRY(pop(m, &module));
    if (name.kind != AY_PICKLE_TEXT || module.kind != AY_PICKLE_TEXT) return damaged(m, "a global whose name is no text");
    return push_global(m, module.u.s.text, module.u.s.n, name.u.s.text, name.u.s.n);
}

static alloy_status call(machine *m) {
    ay_pickle out = {.kind = AY_PICKLE_NONE}, args = out, callee = out;
    AY_TRY(pop(m, &args));
    AY_TRY(pop(m, &callee));
    if (callee.kind != AY_PICKLE_GLOBAL || args.kind != AY_PICKLE_TUPLE) return damaged(m, "it calls what is no global");
    AY_TRY(m->world->call(m->world->user, (int)callee.u.i, args.u.list, &out));
    if (out.kind == AY_PICKLE_DICT && !out.u.list) AY_TRY(new_list(m, AY_PICKLE_DICT, NULL, 0, &out));
    return push(m, out);
}

/* Attributes of an object: of a dictionary they are notes of torch's, which nothing needs. */
static alloy_status build(machine *m) {
    ay_pickle state = {.kind = AY_PICKLE_NONE}, object = state;
    AY_TRY(pop(m, &state));
    AY_TRY(pop(m, &object));
    if (object.kind != AY_PICKLE_DICT) return damaged(m, "it sets attributes of what has none");
    return push(m, object);
}

static alloy_status persistent(machine *m) {
    ay_pickle out = {.kind = AY_PICKLE_NONE}, id = out;
    AY_TRY(pop(m, &id));
    AY_TRY(m->world->persistent(m->world->user, &id, &out));
    return push(m, out);
}

static alloy_status put(machine *m, uint64_t index) {
    if (above(m) < 1) return damaged(m, "it remembers from an empty stack");
    if (index >= MAX_VALUES) return damaged(m, "it remembers under a number that is too large");
    AY_TRY(grow(m, &m->memo, (int64_t)index + 1));
    m->memo.n = ay_max_i64(m->memo.n, (int64_t)index + 1);
    m->memo.items[index] = m->stack.items[m->stack.n - 1];
    return ALLOY_OK;
}

static alloy_status get(machine *m, uint64_t index) {
    if (index >= (uint64_t)m->memo.n) return damaged(m, "it recalls what it did not remember");
    return push(m, m->memo.items[index]);
}

static alloy_status line_index(machine *m, uint64_t *index) {
    const char *s = NULL;
    size_t n = 0;
    AY_TRY(line(m, &s, &n));
    *index = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9' || i > 9) return damaged(m, "a number that is none");
        *index = *index * 10 + (uint64_t)(s[i] - '0');
    }
    return ALLOY_OK;
}

/* ---- containers -------------------------------------------------------------------------------------------------------------- */

/* The top `n` values go into the container below them. */
static alloy_status fill(machine *m, ay_pickle_kind kind, int64_t n) {
    if (above(m) < n + 1) return damaged(m, "it fills a container that is not there");
    ay_pickle *c = &m->stack.items[m->stack.n - n - 1];
    if (c->kind != kind || (kind == AY_PICKLE_DICT && n % 2)) return damaged(m, "it fills what is no such container");
    AY_TRY(append(m, c->u.list, m->stack.items + m->stack.n - n, n));
    m->stack.n -= n;
    return ALLOY_OK;
}

static alloy_status fill_marked(machine *m, ay_pickle_kind kind) {
    int64_t n = 0;
    AY_TRY(unmark(m, &n));
    return fill(m, kind, n);
}

static alloy_status gather_marked(machine *m, ay_pickle_kind kind) {
    int64_t n = 0;
    AY_TRY(unmark(m, &n));
    return gather(m, kind, n);
}

/* ---- instructions -------------------------------------------------------------------------------------------------------------- */

static alloy_status step_text(machine *m, int op) {
    switch (op) {
    case 'X': case 'T': case 'B': return push_text(m, 4);
    case 0x8c: case 'U': case 'C': return push_text(m, 1);
    case 0x8d: case 0x8e: return push_text(m, 8);
    case 'V': case 'S': return push_line_text(m);
    default: return ay_fail(m->cx, ALLOY_E_UNSUPPORTED, "%s: its pickle has the instruction 0x%02x, which checkpoints have no use for", m->what, op);
    }
}

static alloy_status step_number(machine *m, int op) {
    uint64_t n = 0;
    switch (op) {
    case 'K': AY_TRY(number(m, 1, &n)); return push(m, int_value((int64_t)n));
    case 'M': AY_TRY(number(m, 2, &n)); return push(m, int_value((int64_t)n));
    case 'J': AY_TRY(number(m, 4, &n)); return push(m, int_value((int32_t)(uint32_t)n));
    case 0x8a: return push_long(m, 1);
    case 0x8b: return push_long(m, 4);
    case 'I': case 'L': return push_line_number(m, true);
    case 'F': return push_line_number(m, false);
    case 'G': return push_double(m);
    case 'N': return push(m, (ay_pickle){.kind = AY_PICKLE_NONE});
    case 0x88: case 0x89: return push(m, (ay_pickle){.kind = AY_PICKLE_BOOL, .u.i = op == 0x88});
    default: return step_text(m, op);
    }
}

static alloy_status step_container(machine *m, int op) {
    int64_t n = 0;
    switch (op) {
    case ')': return gather(m, AY_PICKLE_TUPLE, 0);
    case 0x85: case 0x86: case 0x87: return gather(m, AY_PICKLE_TUPLE, op - 0x84);
    case 't': return gather_marked(m, AY_PICKLE_TUPLE);
    case ']': return gather(m, AY_PICKLE_LIST, 0);
    case 'l': return gather_marked(m, AY_PICKLE_LIST);
    case '}': return gather(m, AY_PICKLE_DICT, 0);
    case 'd': return gather_marked(m, AY_PICKLE_DICT);
    case 'a': return fill(m, AY_PICKLE_LIST, 1);
    case 'e': return fill_marked(m, AY_PICKLE_LIST);
    case 's': return fill(m, AY_PICKLE_DICT, 2);
    case 'u': return fill_marked(m, AY_PICKLE_DICT);
    case '1':
        AY_TRY(unmark(m, &n));
        m->stack.n -= n;
        return ALLOY_OK;
    default: return step_number(m, op);
    }
}

static alloy_status step(machine *m) {
    const uint8_t *p = NULL;
    uint64_t n = 0;
    ay_pickle v = {.kind = AY_PICKLE_NONE};
    AY_TRY(take(m, 1, &p));
    switch (*p) {
    case 0x80:
        AY_TRY(number(m, 1, &n));
        return n <= 5 ? ALLOY_OK : damaged(m, "a protocol that does not exist");
    case 0x95: return number(m, 8, &n); /* a frame's length: for readers that buffer */
    case '.': m->done = true; return ALLOY_OK;
    case '(': return mark(m);
    case '0': return pop(m, &v);
    case '2': return above(m) < 1 ? damaged(m, "it doubles what is not there") : push(m, m->stack.items[m->stack.n - 1]);
    case 'c': return global_of_lines(m);
    case 'i': return instance(m);
    case 0x93: return global_of_stack(m);
    case 'R': return call(m);
    case 'b': return build(m);
    case 'Q': return persistent(m);
    case 'p': AY_TRY(line_index(m, &n)); return put(m, n);
    case 'q': AY_TRY(number(m, 1, &n)); return put(m, n);
    case 'r': AY_TRY(number(m, 4, &n)); return put(m, n);
    case 0x94: return put(m, (uint64_t)m->memo.n);
    case 'g': AY_TRY(line_index(m, &n)); return get(m, n);
    case 'h': AY_TRY(number(m, 1, &n)); return get(m, n);
    case 'j': AY_TRY(number(m, 4, &n)); return get(m, n);
    default: return step_container(m, *p);
    }
}

alloy_status ay_pickle_read(ay_ctx *cx, const char *what, const uint8_t *bytes, size_t n, size_t *at, ay_arena *a, const ay_pickle_world *world,
                            ay_pickle *out) {
    machine m = {.cx = cx, .what = what, .at = bytes + *at, .end = bytes + n, .arena = a, .world = world};
    while (!m.done) AY_TRY(step(&m));
    if (m.stack.n != 1 || m.n_marks) return damaged(&m, "it ends with more than its value");
    *out = m.stack.items[0];
    *at = (size_t)(m.at - bytes);
    return ALLOY_OK;
}

bool ay_pickle_is(const ay_pickle *v, const char *text) {
    return v->kind == AY_PICKLE_TEXT && v->u.s.n == strlen(text) && memcmp(v->u.s.text, text, v->u.s.n) == 0;
}
