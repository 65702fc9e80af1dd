/* SPDX-License-Identifier: MIT
 *
 * The reader's inside: how a MIL program becomes a graph. read.c walks the operations; each operation is looked up in the
 * tables at the end of the read_*.c files (one row per MIL op) and handed to its row's function, which asks for
 * its arguments by name and gives back values of the graph.
 *
 * A MIL value is kept in the cheapest form it came in: constants stay numbers (ay_raw) or compressed weights (ay_weight)
 * until an operation wants them as a value of the graph, so that shapes, axes and flags never become nodes.
 */
#ifndef AY_COREML_READ_H
#define AY_COREML_READ_H

#include "coreml/package.h"

enum { AY_RAW_RANK = AY_MAX_RANK + 2 }; /* a palette has two dims more than what it is for */

/** Numbers known when the package is read, packed as the weight file packs them. */
typedef struct ay_raw {
    ay_dtype dtype;
    int rank;
    int64_t dim[AY_RAW_RANK];
    int64_t count;
    const void *data;
    bool mapped; /* lies in weight.bin: worth a PARAM */
} ay_raw;

typedef enum ay_mkind { AY_M_NONE, AY_M_NODE, AY_M_RAW, AY_M_WEIGHT, AY_M_STRING } ay_mkind;

/** A value of the program. */
typedef struct ay_mvalue {
    const char *name;
    ay_mkind kind;
    ay_val node; /* NODE; for RAW and WEIGHT made on first use, AY_NO_VALUE until then */
    ay_raw raw;
    ay_weight *weight;
    const char *string;
} ay_mvalue;

typedef struct ay_reader {
    ay_ctx *cx;
    ay_package *p;
    ay_graph *g;
    int opset; /* 5 .. 9: CoreML5 .. CoreML9 */
    alloy_status status; /* sticky; sentence on cx */
    ay_mvalue *values;
    size_t n_values, cap_values;
    uint32_t *slots; /* hash table over names: index + 1 */
    size_t n_slots;
    uint64_t made, made_limit; /* bytes of constants computed while reading, so that a small file cannot ask for much */
    const ay_tensor *known;    /* inputs whose numbers are given */
    int n_known;
} ay_reader;

typedef struct ay_mrow ay_mrow;

/** One operation being read. */
typedef struct ay_mop {
    ay_reader *r;
    const AyMil__Operation *op;
    const ay_mrow *row;
    const char *name;
    int n_out;
    ay_mvalue *out; /* results; a row's function fills what its return value does not */
} ay_mop;

struct ay_mrow {
    const char *type;
    ay_val (*read)(ay_mop *o); /* gives output 0, or AY_NO_VALUE after filling o->out itself */
    int op;                    /* an ay_op, for functions that serve several rows */
    int arg;                   /* theirs */
};

typedef struct ay_mtable { const ay_mrow *rows; int n; } ay_mtable;
extern const ay_mtable ay_read_elementwise, ay_read_reduce, ay_read_matrix, ay_read_shape, ay_read_gather, ay_read_image,
    ay_read_constexpr;

/** A value of the program by name; NULL when nothing has made it yet. */
ay_mvalue *ay_mfind(const ay_reader *r, const char *name);

/* ---- failing ----------------------------------------------------------------------------------------------------- */

/** Records the operation's first failure; the caller prefixes package and operation. Returns AY_NO_VALUE. */
ay_val ay_mfail(ay_mop *o, alloy_status code, const char *fmt, ...) AY_PRINTF(3, 4);
#define ay_mfalse(...) (ay_mfail(__VA_ARGS__), false)
#define ay_mnull(...) (ay_mfail(__VA_ARGS__), NULL)
/** True after a failure in this operation, or when the graph refused something. */
bool ay_mbad(const ay_mop *o);

/* ---- arguments (read_args.c). A missing argument without a default is a failure. --------------------------------- */

bool ay_mhas(const ay_mop *o, const char *key);
ay_mvalue *ay_marg(ay_mop *o, const char *key);     /* failure when absent; NULL then */
ay_mvalue *ay_marg_opt(ay_mop *o, const char *key); /* NULL when absent */
/** All bindings of a variadic parameter, as values of the graph; the array is the graph's. */
int ay_mnodes(ay_mop *o, const char *key, ay_val **out);
ay_val ay_mnode(ay_mop *o, const char *key);     /* as a value of the graph */
ay_val ay_mnode_opt(ay_mop *o, const char *key); /* AY_NO_VALUE when absent */
int64_t ay_mint(ay_mop *o, const char *key);
int64_t ay_mint_or(ay_mop *o, const char *key, int64_t fallback);
double ay_mfloat_or(ay_mop *o, const char *key, double fallback);
bool ay_mbool_or(ay_mop *o, const char *key, bool fallback);
const char *ay_mstring_or(ay_mop *o, const char *key, const char *fallback);
/** A vector (or scalar) of at most `max` integers; -1 when absent, also after a failure. */
int ay_mints(ay_mop *o, const char *key, int64_t *out, int max);
/** The same where it must be there and have `n` numbers (n < 0: any). */
bool ay_mints_need(ay_mop *o, const char *key, int64_t *out, int n, int max);
/** An axis in [0, rank), from one in [-rank, rank). */
int ay_maxis(ay_mop *o, const char *key, int64_t axis, int rank);
/** `n` axes made non-negative in place, each used once. */
bool ay_maxes(ay_mop *o, const char *key, int64_t *axes, int n, int rank);

/* ---- values (read_value.c) --------------------------------------------------------------------------------------- */

/** Decodes a literal into `out` (numbers or a string); the sentence names the operation's parameter `key`. */
bool ay_mdecode(ay_mop *o, const char *key, const AyMil__Value *v, ay_mvalue *out);
/** As a value of the graph, made now if it was not. */
ay_val ay_mvalue_node(ay_mop *o, ay_mvalue *v);
/** As plain numbers; a compressed weight is decoded into memory. NULL after a failure. */
const ay_raw *ay_mvalue_raw(ay_mop *o, ay_mvalue *v);
/** Whether `v` depends on nothing but constants and known inputs; if so its numbers, as float32, in the graph's arena. */
bool ay_mvalue_known(ay_mop *o, ay_mvalue *v, const float **numbers, int64_t *count);
/** Zeroed memory of the graph for a constant, counted against the reader's limit; NULL after a failure. */
void *ay_mmake(ay_mop *o, int64_t count, ay_dtype dtype);
void ay_mset_raw(ay_mvalue *v, const ay_raw *raw);
/** The declared type of output i (dims unknown: -1). False when it is not a tensor. */
bool ay_mdeclared(const ay_mop *o, int i, ay_type *out);

/* ---- small builders ---------------------------------------------------------------------------------------------- */

static inline const ay_type *ay_mtype(const ay_mop *o, ay_val v) { return ay_type_of(o->r->g, v); }
ay_val ay_mscalar(ay_mop *o, ay_dtype t, double value);
/** A constant of `count` float32 numbers given as dtype t. */
ay_val ay_mconst(ay_mop *o, ay_dtype t, int rank, const int64_t *dim, const float *numbers);
/** x reshaped so that a vector along `axis` broadcasts against rank `rank`. */
ay_val ay_malong(ay_mop *o, ay_val x, int axis, int rank);
ay_val ay_mslice(ay_mop *o, ay_val x, const int64_t *begin, const int64_t *stride, const int64_t *count);
/** An int32 constant start, start + 1, ... of `count` numbers, as a vector. */
ay_val ay_marange(ay_mop *o, int32_t start, int64_t count);
ay_val ay_mcast(ay_mop *o, ay_val x, ay_dtype t); /* to bool: x != 0 */

#endif
