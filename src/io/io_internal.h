/* SPDX-License-Identifier: MIT
 *
 * Shared by the files of src/io only.
 */
#ifndef AY_IO_INTERNAL_H
#define AY_IO_INTERNAL_H

#include "io/io.h"

#include <stdio.h>

/** Text out of a file, made fit for a sentence: control characters become "?", what is too long ends in "...". */
const char *ay_show(const char *s, char *out, size_t size);

/* ---- tensors.c: what the formats share ------------------------------------------------------------------------------- */

/** A new file of tensors over `map`, which it takes over unless `borrowed`; then parse(), and all is closed if that fails. */
alloy_status ay_tensors_over(ay_ctx *cx, const char *path, const char *format, ay_map map, bool borrowed,
                             alloy_status (*parse)(ay_ctx *cx, ay_safetensors *st), ay_safetensors **out);
/** Sorts by name and refuses two of one name. */
alloy_status ay_tensors_sort(ay_ctx *cx, ay_safetensors *st);

/* ---- zip.c: archives whose members are stored, not compressed ---------------------------------------------------------- */

typedef struct ay_zip_member {
    const char *name;
    uint64_t offset; /* of its bytes in the file */
    uint64_t bytes;
    int method; /* 0: stored */
} ay_zip_member;
typedef struct ay_zip {
    ay_zip_member *members; /* in the order of the archive's list */
    int n;
    uint64_t list_at; /* where that list begins; it goes on to the file's end */
} ay_zip;
/** Reads the list of an archive and checks every member's place; strings live in `a`. */
alloy_status ay_zip_read(ay_ctx *cx, const char *what, const uint8_t *bytes, size_t n, ay_arena *a, ay_zip *out);
/** The first member of this name, or NULL. */
const ay_zip_member *ay_zip_find(const ay_zip *z, const char *name);

/* ---- pickle.c: a machine for Python's pickles that calls nothing --------------------------------------------------------- */

typedef enum ay_pickle_kind {
    AY_PICKLE_NONE, AY_PICKLE_BOOL, AY_PICKLE_INT, AY_PICKLE_FLOAT, AY_PICKLE_TEXT, /* text: str or bytes */
    AY_PICKLE_TUPLE, AY_PICKLE_LIST, AY_PICKLE_DICT,                                /* dict: key, value, key, value ... */
    AY_PICKLE_GLOBAL,                                                               /* i: what global() gave */
    AY_PICKLE_OBJECT                                                                /* the caller's: tag, and i or p */
} ay_pickle_kind;
typedef struct ay_pickle_list ay_pickle_list;
typedef struct ay_pickle {
    ay_pickle_kind kind;
    int tag;
    union {
        int64_t i; /* bool, int, global */
        double f;
        struct {
            const char *text; /* not NUL-terminated */
            size_t n;
        } s;
        ay_pickle_list *list;
        void *p;
    } u;
} ay_pickle;
struct ay_pickle_list {
    ay_pickle *items;
    int64_t n, cap;
};

/** What a pickle may refer to. */
typedef struct ay_pickle_world {
    /** The number of a known global, or -1. */
    int (*global)(void *user, const char *module, const char *name);
    /** What calling it with these arguments is. */
    alloy_status (*call)(void *user, int global, const ay_pickle_list *args, ay_pickle *out);
    /** What a persistent id stands for. */
    alloy_status (*persistent)(void *user, const ay_pickle *id, ay_pickle *out);
    void *user;
} ay_pickle_world;

/** Runs one pickle at *at in [bytes, bytes + n), and moves *at behind it. Values live in `a`; texts are borrowed from the bytes. */
alloy_status ay_pickle_read(ay_ctx *cx, const char *what, const uint8_t *bytes, size_t n, size_t *at, ay_arena *a, const ay_pickle_world *world,
                            ay_pickle *out);
bool ay_pickle_is(const ay_pickle *v, const char *text);

#endif
