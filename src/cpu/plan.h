/* SPDX-License-Identifier: MIT
 *
 * Inside the CPU engine. Compiling walks the graph once: fuse.c decides which nodes become one step, place.c which values
 * are made where a concat or permute wants them, the row of each op (rows.c) adds its steps, memory.c gives every buffer
 * its place in one slab. A program is what is left: buffers and a table of steps.
 */
#ifndef AY_CPU_PLAN_H
#define AY_CPU_PLAN_H

#include "cpu/cpu.h"
#include "cpu/kernel/i8.h"
#include "cpu/kernel/kernel.h"
#include "cpu/view.h"
#include "pass/pass.h"

/* ---- the program ------------------------------------------------------------------------------------------------- */

typedef enum ay_home {
    AY_HOME_SLAB,  /* at `offset` of the slab while steps [first, last] run */
    AY_HOME_FIXED, /* at `base` for good: mapped weights, consts, small tables dequantised at compile */
    AY_HOME_INPUT  /* the caller's memory, or, where numbers must be converted, the slab as above */
} ay_home;

typedef struct ay_buffer {
    ay_home home;
    size_t bytes;
    int first, last; /* steps; first -1: never touched */
    size_t offset;
    void *base;   /* where it is; of inputs set by each run */
    int merged;   /* -1, or the buffer whose place it takes over (an update in place) */
    size_t merged_at; /* ... from this byte of it on */
    int until;    /* memory plan: the last step of all that lie in its place */
} ay_buffer;

/** A place inside a buffer, in bytes. buf -1: no operand. */
typedef struct ay_ref { int buf; int64_t off; } ay_ref;
#define AY_NO_REF ((ay_ref){-1, 0})

typedef struct ay_run ay_run;
typedef struct ay_step ay_step;
typedef alloy_status (*ay_step_fn)(ay_run *r, const ay_step *s);

typedef struct ay_step_io {
    int buf;
    bool write;
    bool inplace; /* read: element i is read no later than element i of the result is written, same layout, whole buffer */
    size_t part;  /* write: what it may take over is the operand from this byte on */
    bool parted;  /* write: it is one of several that fill the operand together */
} ay_step_io;
#define AY_STEP_IO 10
#define AY_STEP_WEIGHTS 2

struct ay_step {
    ay_step_fn run;
    const void *args;
    ay_ref scratch;
    size_t scratch_bytes;
    int n_io;
    ay_step_io io[AY_STEP_IO];
    const ay_weight *weights[AY_STEP_WEIGHTS]; /* that it reads where they lie in the file; in its args */
    int n_weights;
    bool drops; /* memory is short: they are given back after each run of the step */
    const char *what, *scope;
    double flops, int8_ops, int4_ops, bytes; /* as in ay_step_profile */
};

typedef struct ay_port {
    const char *name;
    ay_type type;
    ay_kind kind;
    int buf; /* inputs: -1 when nothing reads it */
} ay_port;

struct ay_program {
    ay_graph *g; /* the engine's own copy: owns names and weight descriptions */
    ay_arena *arena;
    ay_step *steps;
    int n_steps, cap_steps;
    ay_buffer *bufs;
    int n_bufs, cap_bufs;
    ay_port *inputs, *outputs;
    int n_inputs, n_outputs;
    unsigned char *slab;
    size_t slab_bytes, fixed_bytes; /* fixed: copies made at compile (small tables) */
    int threads, isa;
    bool rounds_inputs; /* emulation: inputs typed float16 are rounded, so never read where the caller has them */
    const ay_tensor **run_in; /* by port, of the run in progress */
    ay_tensor **run_out;
    bool profiling, warm_up;
    ay_step_profile *profile; /* one a step */
    double wall;              /* seconds of all profiled runs, from call to return */
    int64_t overflows;
    const unsigned char *map; /* the mapped file the weights lie in, NULL: elsewhere */
    size_t map_bytes, streamed; /* streamed: bytes of weights that are given back and read again in each run */
    int64_t runs;
    int ahead; /* step up to which weights were asked for, in the run in progress */
};

/** One run: what the steps see. */
struct ay_run {
    ay_ctx *cx;
    ay_program *p;
    ay_exec ex;
};

static inline void *ay_at(const ay_run *r, ay_ref ref) {
    return ref.buf < 0 ? NULL : (unsigned char *)r->p->bufs[ref.buf].base + ref.off;
}

/* ---- fusion (fuse.c) --------------------------------------------------------------------------------------------- */

/** One step to be: the node whose row builds it, the nodes it takes along, the value it makes. Values not there are
 *  AY_NO_VALUE. What a row can take is in its `fuses`. */
typedef struct ay_fused {
    ay_val anchor, result;
    ay_val bias;            /* [N], of a product that has none of its own */
    ay_act act;
    ay_val gate;            /* products: [.., 1, N]; activations: the factor, same shape */
    ay_val residual;        /* same shape as the result */
    ay_val scale, shift;    /* norms: rows of numbers, see mod_lead */
    bool scale_plus_one;
    int mod_lead;           /* scale and shift vary over the first mod_lead dims of x and the last */
    double alpha;           /* products: scalar factor */
    ay_val before;          /* convolutions in bands: the group norm or upsampling of the input, done band by band */
    ay_act before_act;      /* after that group norm */
    ay_val pair;            /* ... and a 1 x 1 convolution of the same, unnormalised input, done in the same walk */
} ay_fused;

static inline ay_fused ay_fused_alone(ay_val v) {
    return (ay_fused){.anchor = v, .result = v, .bias = AY_NO_VALUE, .gate = AY_NO_VALUE, .residual = AY_NO_VALUE,
                      .scale = AY_NO_VALUE, .shift = AY_NO_VALUE, .alpha = 1, .before = AY_NO_VALUE, .pair = AY_NO_VALUE};
}

enum { AY_FUSE_ACT = 1, AY_FUSE_GATE = 2, AY_FUSE_RESIDUAL = 4, AY_FUSE_BIAS = 8, AY_FUSE_MOD = 16, AY_FUSE_GATED = 32 };

/* ---- planning ---------------------------------------------------------------------------------------------------- */

/** How a value is quantised to eight bits: `loop` times m rows of k numbers, or m pictures of k channels. */
typedef struct ay_a8_form {
    int64_t m, k, lda, plane;
    double tolerance;
    int n_loops, picture;
    int64_t loop[AY_MAX_RANK], stride[AY_MAX_RANK];
    int64_t off;
    int64_t buf; /* of the value: set by ay_plan_a8, as off is */
} ay_a8_form;
typedef struct ay_a8_made {
    ay_a8_form form;
    ay_view view;
} ay_a8_made;

typedef struct ay_value_plan {
    bool ready;       /* `view` is valid: the value has been made (or is seen) */
    bool placed;      /* `place` is where it has to be made */
    bool has_dense;   /* `dense` is a row-major copy already planned */
    bool has_mask;    /* `mask` is it as attention reads it, already planned */
    ay_view view, place, dense, mask;
    int uses;         /* by nodes and outputs */
    ay_val user;      /* the last of the users */
    bool is_output;
    ay_fused *fused;  /* of the node that ends a fusion: what it stands for; of an inner node: NULL and `absorbed` */
    bool absorbed;
    const ay_a8_made *a8; /* its eight-bit form, once a step makes it */
} ay_value_plan;

typedef struct ay_plan {
    ay_ctx *cx;
    ay_graph *g;
    ay_program *p;
    ay_arena *arena;         /* = p->arena */
    ay_value_plan *val;
    bool emulate, plain; /* plain: no fusion, no placing */
    size_t band_from;    /* bytes of a picture from which convolutions take their input in bands */
    bool int8;           /* activations may be quantised */
    size_t keep_limit;   /* bytes that ay_plan_keep may reach for weights */
    ay_val at;           /* the node being built: scope of its steps */
} ay_plan;

/** One row an op (rows.c). */
typedef struct ay_row {
    alloy_status (*build)(ay_plan *pl, const ay_fused *f);
    /** Whether the result may be written through these strides; NULL: its place is its own affair. */
    bool (*writes)(const ay_plan *pl, const ay_fused *f, const ay_view *target);
    bool is_view; /* makes no numbers of its own; build is NULL */
    bool keeps_layout; /* the result lies in memory as the first operand does */
    unsigned fuses;
} ay_row;
const ay_row *ay_row_get(ay_op op);

alloy_status ay_plan_fuse(ay_plan *pl);
alloy_status ay_plan_fuse_bands(ay_plan *pl); /* fuse_band.c, after ay_plan_fuse */
alloy_status ay_plan_place(ay_plan *pl);
alloy_status ay_plan_memory(ay_ctx *cx, ay_program *p);
/** Which steps give their weights back, so that with them no more than `limit` bytes of the process are in memory; 0: no
 *  limit (stream.c). */
alloy_status ay_plan_stream(ay_ctx *cx, ay_program *p, size_t limit, size_t *least);
void ay_stream_before(ay_program *p, int step); /* reads ahead */
void ay_stream_after(const ay_program *p, const ay_step *s);
/** After ay_plan_memory: brute force; false when two values alive at once overlap (tests). */
bool ay_plan_memory_ok(const ay_program *p);

/** Whether the node is only another view of its operand. Views are made when first asked for: one of a weight that is only
 *  read in place costs nothing. */
bool ay_plan_is_view(const ay_plan *pl, const ay_node *n);
/** Whether a cast moves no numbers: both dtypes held alike, and no rounding asked for. */
bool ay_plan_cast_is_free(const ay_plan *pl, const ay_node *n);
/** v as a weight to be read in place: PARAM or CONST, seen through free casts and reshapes; false otherwise. */
bool ay_plan_weight(const ay_plan *pl, ay_val v, ay_weight *out);

/* operands (operand.c): each may add steps (materialising weights, copying to row-major) */
alloy_status ay_plan_view(ay_plan *pl, ay_val v, ay_view *out);  /* as it lies */
alloy_status ay_plan_dense(ay_plan *pl, ay_val v, ay_view *out); /* row-major */
alloy_status ay_plan_copy(ay_plan *pl, const ay_view *from, ay_view *out); /* a new row-major copy */
/** A new buffer, row-major. */
alloy_status ay_plan_new(ay_plan *pl, ay_kind kind, int rank, const int64_t *dim, ay_view *out);
/** The view the result is to be written to: where it is placed, else a new row-major one. Registers it. */
alloy_status ay_plan_out(ay_plan *pl, const ay_fused *f, ay_view *out);
/** The same, but laid out in memory like `like` (same dims, gapless) where nothing else is asked for. */
alloy_status ay_plan_out_like(ay_plan *pl, const ay_fused *f, const ay_view *like, ay_view *out);
/** Says that v is seen through this view (no step). */
void ay_plan_set_view(ay_plan *pl, ay_val v, const ay_view *view);
int ay_plan_buffer(ay_plan *pl, ay_home home, size_t bytes, void *base); /* -1: out of memory */
/** Value v, seen as x, in eight bits: a step that makes it, or what an earlier one made. */
alloy_status ay_plan_a8(ay_plan *pl, ay_val v, const ay_view *x, const ay_a8_form *form, ay_view *out); /* step_a8.c */
/** Bytes that stay with the program; NULL when out of memory. 64-byte aligned. */
void *ay_plan_keep(ay_plan *pl, size_t bytes);

/* steps */
/** Copies args; NULL when out of memory. */
ay_step *ay_step_add(ay_plan *pl, ay_step_fn run, const void *args, size_t args_bytes);
ay_ref ay_step_read(ay_step *s, const ay_view *v);
ay_ref ay_step_read_inplace(ay_step *s, const ay_view *v);
ay_ref ay_step_write(ay_step *s, const ay_view *v);
/** A result that may lie in the operand's place from byte `at` on, other results of the step in the rest of it. */
ay_ref ay_step_write_part(ay_step *s, const ay_view *v, size_t at);
/** Says that the step reads this weight, which lies in its args. */
void ay_step_weight(ay_step *s, const ay_weight *w);
alloy_status ay_step_scratch(ay_plan *pl, ay_step *s, size_t bytes);
/** Where operations are counted: of a product in integers with weight w, or in floats (NULL). */
static inline double *ay_step_ops(ay_step *s, const ay_weight *w) {
    return !w ? &s->flops : w->store == AY_STORE_BLOCK && w->data_dtype == AY_I4 ? &s->int4_ops : &s->int8_ops;
}
void ay_step_what(ay_plan *pl, ay_step *s, const char *fmt, ...) AY_PRINTF(3, 4);
static inline const ay_node *ay_plan_node(const ay_plan *pl, ay_val v) { return &pl->g->nodes[v]; }
static inline int ay_plan_threads(const ay_plan *pl) { return ay_pool_threads(pl->cx->pool); }
/** The part [at, at + n) of a concat's result. */
static inline ay_view ay_concat_part(const ay_view *whole, int axis, int64_t at, int64_t n) {
    ay_view part = *whole;
    part.off += at * whole->stride[axis];
    part.dim[axis] = n;
    return part;
}
alloy_status ay_plan_fail(const ay_plan *pl, const char *fmt, ...) AY_PRINTF(2, 3);

/** Rows of a reduction-like op: the axes of `v` in `axes` moved last, row-major (copied if need be): [rows, d]. */
alloy_status ay_plan_axes_last(ay_plan *pl, ay_val v, int n, const int *axes, ay_view *out, int64_t *rows, int64_t *d,
                               int perm[AY_MAX_RANK]);

bool ay_writes_dense(const ay_plan *pl, const ay_fused *f, const ay_view *target); /* rows.c */
bool ay_writes_any(const ay_plan *pl, const ay_fused *f, const ay_view *target);
bool ay_writes_gapless(const ay_plan *pl, const ay_fused *f, const ay_view *target);
bool ay_writes_rows(const ay_plan *pl, const ay_fused *f, const ay_view *target);

/* step builders, by family */
alloy_status ay_build_unary(ay_plan *pl, const ay_fused *f);      /* step_elt.c */
alloy_status ay_build_binary(ay_plan *pl, const ay_fused *f);
alloy_status ay_build_generic(ay_plan *pl, const ay_fused *f);    /* step_generic.c: int, bool, casts, where, compare */
alloy_status ay_build_cast(ay_plan *pl, const ay_fused *f);
alloy_status ay_build_dequant(ay_plan *pl, const ay_fused *f);
alloy_status ay_build_matmul(ay_plan *pl, const ay_fused *f);     /* step_product.c */
alloy_status ay_build_linear(ay_plan *pl, const ay_fused *f);
alloy_status ay_build_int_matmul(ay_plan *pl, const ay_fused *f); /* step_generic.c */
bool ay_writes_product(const ay_plan *pl, const ay_fused *f, const ay_view *target);
alloy_status ay_build_sdpa(ay_plan *pl, const ay_fused *f);       /* step_attn.c */
bool ay_writes_sdpa(const ay_plan *pl, const ay_fused *f, const ay_view *target);
alloy_status ay_build_rope(ay_plan *pl, const ay_fused *f);
alloy_status ay_build_conv(ay_plan *pl, const ay_fused *f);       /* step_conv.c */
/** Operands of a convolution: x (only seen, not copied, where `pre`), weight, bias, residual, result. */
alloy_status ay_build_band(ay_plan *pl, const ay_fused *f);       /* step_band.c */
/** Whether conv node n, of one group and two spatial dims, multiplies in integers; w: its stored weight. */
bool ay_plan_conv_int8(const ay_plan *pl, const ay_node *n, const ay_weight *w);
alloy_status ay_build_conv_transpose(ay_plan *pl, const ay_fused *f);
alloy_status ay_build_pool(ay_plan *pl, const ay_fused *f);
alloy_status ay_build_norm(ay_plan *pl, const ay_fused *f);       /* step_norm.c */
alloy_status ay_build_group_norm(ay_plan *pl, const ay_fused *f);
alloy_status ay_build_softmax(ay_plan *pl, const ay_fused *f);
alloy_status ay_build_reduce(ay_plan *pl, const ay_fused *f);     /* step_reduce.c */
alloy_status ay_build_argmax(ay_plan *pl, const ay_fused *f);
alloy_status ay_build_cumsum(ay_plan *pl, const ay_fused *f);
alloy_status ay_build_topk(ay_plan *pl, const ay_fused *f);
alloy_status ay_view_of_node(ay_plan *pl, ay_val v, ay_view *out); /* step_view.c */
bool ay_view_through(const ay_node *n, const ay_view *x, ay_view *out); /* view node n of an operand that lies like x */
alloy_status ay_build_concat(ay_plan *pl, const ay_fused *f);
alloy_status ay_build_pad(ay_plan *pl, const ay_fused *f);        /* step_map.c */
alloy_status ay_build_upsample(ay_plan *pl, const ay_fused *f);
alloy_status ay_build_gather(ay_plan *pl, const ay_fused *f);     /* step_move.c */
alloy_status ay_build_gather_along(ay_plan *pl, const ay_fused *f);

alloy_status ay_build_gated(ay_plan *pl, const ay_fused *f);      /* step_elt.c */

/* steps shared by several builders */
/** `x` as numbers of another kind (a step), or itself. */
alloy_status ay_plan_as_kind(ay_plan *pl, const ay_view *x, ay_kind kind, ay_view *out); /* step_generic.c */
/** An attention mask: floats as they are, truth values as 0 and -infinity. */
alloy_status ay_plan_mask(ay_plan *pl, const ay_view *x, ay_view *out);
alloy_status ay_add_input_step(ay_plan *pl, int port, const ay_view *v); /* run.c */
alloy_status ay_add_output_step(ay_plan *pl, int port, const ay_view *v);
alloy_status ay_add_copy_step(ay_plan *pl, const ay_view *from, const ay_view *to);      /* step_view.c */
alloy_status ay_add_weight_step(ay_plan *pl, const ay_weight *w, const ay_view *to);     /* operand.c */
/** A view that is a small part of a large table of weights (positions around the middle): a step that reads no more than the
 *  span of it. *done is false where it is none. */
alloy_status ay_plan_part(ay_plan *pl, ay_val v, ay_view *out, bool *done);
alloy_status ay_add_round_step(ay_plan *pl, const ay_view *v);                           /* step_elt.c */

#endif
