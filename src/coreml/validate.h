/* SPDX-License-Identifier: MIT
 *
 * The validator's inside: one run over a package, findings counted and handed out line by line. It is strict where Apple's
 * published loader is blind and the closed compiler on a Mac is not; what may be right but is known to trouble a device is
 * a warning.
 */
#ifndef AY_COREML_VALIDATE_H
#define AY_COREML_VALIDATE_H

#include "coreml/names.h"
#include "coreml/package.h"

enum { AY_CHECK_MOST = 200 }; /* findings told; more are only counted */

/** A value of the function at hand. */
typedef struct ay_seen {
    const AyMil__ValueType *type;
    bool constant, compressed, input;
    const AyMil__Value *literal; /* of a const operation */
} ay_seen;

typedef struct ay_check {
    ay_ctx *cx;
    ay_arena *arena;
    ay_package *p;
    void (*line)(void *user, bool warning, const char *text);
    void *user;
    int errors, warnings;
    ay_names blobs; /* metadata offset -> referenced */
    uint64_t *blob_at;
    size_t n_blobs, cap_blobs;

    const char *function; /* at hand, or NULL */
    const char *op_name, *op_type;
    int opset; /* 5 .. 9 */
    ay_names values; /* name -> ay_seen */
    int n_wide; /* values past the Neural Engine's extents in this function; the first one's sentence */
    const char *wide;
    bool out_of_memory;
} ay_check;

/** A finding, with function and operation put before it. */
void ay_check_error(ay_check *c, const char *fmt, ...) AY_PRINTF(2, 3);
void ay_check_warn(ay_check *c, const char *fmt, ...) AY_PRINTF(2, 3);

/** The whole program: functions against the description, then each function's operations (validate_program.c). */
void ay_check_program(ay_check *c);
/** One operation's parameters against the table of MIL operations (validate_ops.c). */
void ay_check_operation(ay_check *c, const AyMil__Operation *op);
/** A literal: member, number of elements, place in the weight file (validate_values.c). `what` names it. */
void ay_check_value(ay_check *c, const char *what, const AyMil__Value *v);
/** Blobs that were referenced against each other and against the file's own chain. */
void ay_check_blobs(ay_check *c);
/** A type's form: rank, dimensions, known dtype; at most `most` dims. `what` names it. Returns false after a finding. */
bool ay_check_type(ay_check *c, const char *what, const AyMil__ValueType *t, int most);
/** Whether both are the same tensor type. */
bool ay_check_same_type(const AyMil__ValueType *a, const AyMil__ValueType *b);

/** "float16[1, 77, 768]" or "string" or "no tensor" of a declared type, in the arena. */
const char *ay_check_type_text(ay_check *c, const AyMil__ValueType *t);

#endif
