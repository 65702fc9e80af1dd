/* SPDX-License-Identifier: MIT
 *
 * What writer, reader and validator share about MIL: the generated messages, and one table of element types that says for
 * each its number in the program, its code in the weight file, its name in `cast`, and where immediate values of it lie.
 */
#ifndef AY_COREML_MIL_H
#define AY_COREML_MIL_H

#include "base/base.h"
#include "coreml/mil.pb-c.h"

/** Which member of TensorValue holds immediate values of a type. */
typedef enum ay_mil_slot {
    AY_SLOT_NONE, AY_SLOT_FLOATS, AY_SLOT_INTS, AY_SLOT_BOOLS, AY_SLOT_STRINGS, AY_SLOT_LONGS, AY_SLOT_DOUBLES, AY_SLOT_BYTES
} ay_mil_slot;

typedef struct ay_mil_dtype {
    ay_dtype dtype;   /* AY_NONE: string */
    int mil;          /* AyMil__DataType */
    int blob;         /* code in the weight file; 0: cannot lie there */
    ay_mil_slot slot;
    const char *name; /* in dtype parameters: "fp16", "int32" ...; "" where `cast` does not know it */
} ay_mil_dtype;

/** Rows by number in the program, by alloy's type, by code in the weight file, by name; NULL when there is none. */
const ay_mil_dtype *ay_mil_by_number(int mil);
const ay_mil_dtype *ay_mil_by_dtype(ay_dtype t);
const ay_mil_dtype *ay_mil_by_blob(int code);
const ay_mil_dtype *ay_mil_by_name(const char *name);

/** Element count of a tensor type with only constant dimensions and rank <= AY_MAX_RANK + 2; -1 for any other. */
int64_t ay_mil_type_count(const AyMil__TensorType *t);
/** The tensor type as alloy's (static, rank <= AY_MAX_RANK, a known dtype that is no string); false for any other. */
bool ay_mil_type_get(const AyMil__TensorType *t, ay_type *out);
/** The value of an attribute or parameter entry by key; NULL when absent. */
const AyMil__Value *ay_mil_attribute(const AyMil__Operation *op, const char *key);
const AyMil__Argument *ay_mil_argument(const AyMil__Operation *op, const char *key);
/** A rank-0 immediate string ("" is a string too); NULL when the value is anything else. */
const char *ay_mil_string(const AyMil__Value *v);

#endif
