/* SPDX-License-Identifier: MIT
 *
 * What every other folder stands on: the context with its error sentence, arenas, growing byte strings, element types.
 * Needs nothing but the C library and include/alloy.h.
 */
#ifndef AY_BASE_H
#define AY_BASE_H

#include "alloy.h"

#include <stdarg.h>
#include <stdatomic.h>

#if defined(__GNUC__)
#define AY_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define AY_PRINTF(f, a)
#endif

typedef struct alloy_ctx ay_ctx;
typedef struct ay_pool ay_pool;

/* ---- errors ------------------------------------------------------------------------------------------------------ */

/** Records a failure on the context and returns `code`, so that `return ay_fail(...)` reads well. The sentence names
 *  the file, the tensor, what was found, what was expected and what to do. A later failure replaces an earlier one. */
alloy_status ay_fail(ay_ctx *cx, alloy_status code, const char *fmt, ...) AY_PRINTF(3, 4);
/** The same for out-of-memory, which must not allocate. */
alloy_status ay_nomem(ay_ctx *cx);
/** Puts a prefix ("path: ") before the sentence already recorded. */
void ay_fail_prefix(ay_ctx *cx, const char *fmt, ...) AY_PRINTF(2, 3);
const char *ay_error_text(const ay_ctx *cx);

#define AY_TRY(expr)                                                                                                   \
    do {                                                                                                               \
        alloy_status ay_try_ = (expr);                                                                                 \
        if (ay_try_ != ALLOY_OK) return ay_try_;                                                                       \
    } while (0)

/* ---- context ----------------------------------------------------------------------------------------------------- */

#define AY_LOG_ERROR ALLOY_LOG_ERROR
#define AY_LOG_WARN ALLOY_LOG_WARN
#define AY_LOG_INFO ALLOY_LOG_INFO
#define AY_LOG_DEBUG ALLOY_LOG_DEBUG
typedef alloy_log_level ay_log_level;
typedef alloy_log_fn ay_log_fn;
typedef alloy_progress_fn ay_progress_fn;

struct alloy_ctx {
    alloy_status code;
    char *message;       /* heap, or NULL */
    ay_pool *pool;       /* never NULL in an open context */
    int isa;             /* highest ay_isa that kernels may use */
    char notice[256];    /* what of the caller's wishes was not followed, for whoever has a log; may be empty */
    atomic_int stop;     /* set by alloy_stop(); every work tile reads it */
    ay_log_fn log;
    ay_progress_fn progress;
    void *user;          /* for log and progress */
};

/** Opens a context. `threads` <= 0: one per core. ALLOY_ISA, ALLOY_THREADS are read here and nowhere else. */
alloy_status ay_ctx_open(int threads, ay_ctx **out);
void ay_ctx_close(ay_ctx **cx);

static inline bool ay_stopped(ay_ctx *cx) { return atomic_load_explicit(&cx->stop, memory_order_relaxed) != 0; }
/** ALLOY_E_CANCELLED with its sentence if the stop flag is set, else ALLOY_OK. */
alloy_status ay_check_stop(ay_ctx *cx);
void ay_log(ay_ctx *cx, ay_log_level level, const char *fmt, ...) AY_PRINTF(3, 4);
void ay_progress(ay_ctx *cx, const char *stage, double done, double total);

/* ---- arena ------------------------------------------------------------------------------------------------------- */

/** A bump allocator: many small things with one owner and one end. Not thread-safe. */
typedef struct ay_arena ay_arena;
ay_arena *ay_arena_new(void);
void ay_arena_free(ay_arena *a); /* NULL is fine */
/** Zeroed, aligned to 16 bytes; NULL when memory is out (and then `ay_arena_failed` stays true). */
void *ay_alloc(ay_arena *a, size_t bytes);
char *ay_strdup(ay_arena *a, const char *s);
char *ay_strndup(ay_arena *a, const char *s, size_t n);
char *ay_sprintf(ay_arena *a, const char *fmt, ...) AY_PRINTF(2, 3);
bool ay_arena_failed(const ay_arena *a);
/** Whether `p` points into memory of this arena, and so ends with it. */
bool ay_arena_owns(const ay_arena *a, const void *p);

/* ---- growing bytes ----------------------------------------------------------------------------------------------- */

/** A growing byte string, always NUL-terminated past `len` once anything was added. Start with {0}. `failed` is sticky. */
typedef struct ay_buf {
    char *data;
    size_t len, cap;
    bool failed;
} ay_buf;
void ay_buf_add(ay_buf *b, const void *bytes, size_t n);
void ay_buf_printf(ay_buf *b, const char *fmt, ...) AY_PRINTF(2, 3);
void ay_buf_free(ay_buf *b);

/* ---- element types ----------------------------------------------------------------------------------------------- */

/** Row of the table in dtype.c: name, bits. Sub-byte types are packed least significant bit first. */
typedef enum ay_dtype {
    AY_NONE = 0,
    AY_F64, AY_F32, AY_F16, AY_BF16, AY_F8E4M3, AY_F8E5M2,
    AY_I64, AY_I32, AY_I16, AY_I8, AY_I4,
    AY_U64, AY_U32, AY_U16, AY_U8, AY_U6, AY_U4, AY_U3, AY_U2, AY_U1,
    AY_BOOL, /* one byte, 0 or 1 */
    AY_DTYPE_COUNT
} ay_dtype;
const char *ay_dtype_name(ay_dtype t); /* "float32", "float16", "bfloat16", "float8_e4m3fn", "int8", "uint4", "bool" ... */
int ay_dtype_bits(ay_dtype t);
bool ay_dtype_is_float(ay_dtype t);
/** Bytes of `count` elements, the last byte padded; SIZE_MAX if that does not fit. */
size_t ay_dtype_bytes(ay_dtype t, int64_t count);

/** GGUF's blocks: so many numbers packed with what they are scaled by. Row of the table in dtype.c. */
typedef enum ay_block {
    AY_BLOCK_NONE = 0,
    AY_BLOCK_Q4_0, AY_BLOCK_Q4_1, AY_BLOCK_Q5_0, AY_BLOCK_Q5_1, AY_BLOCK_Q8_0,
    AY_BLOCK_Q2_K, AY_BLOCK_Q3_K, AY_BLOCK_Q4_K, AY_BLOCK_Q5_K, AY_BLOCK_Q6_K,
    AY_BLOCK_COUNT
} ay_block;
const char *ay_block_name(ay_block b); /* "Q4_K" */
int ay_block_elements(ay_block b);
int ay_block_bytes(ay_block b);

#define AY_MAX_RANK 6

/** Element type and shape, row-major, PyTorch order. rank 0 is a scalar. */
typedef struct ay_type {
    ay_dtype dtype;
    int rank;
    int64_t dim[AY_MAX_RANK];
} ay_type;
int64_t ay_type_count(const ay_type *t); /* number of elements; -1 on overflow or a negative dimension */
/** "float16[1, 77, 768]" into a caller's buffer of at least 160 bytes; returns it. */
char *ay_type_text(const ay_type *t, char *text);
bool ay_type_equal(const ay_type *a, const ay_type *b);

/** A named dense array somebody else owns. */
typedef struct ay_tensor {
    const char *name;
    ay_type type;
    void *data;
} ay_tensor;

/** For functions that must become part of their callers: those of vectors, which stay in registers, and those that do nothing but
 *  fetch ahead, whose calls GCC 12 leaves out as calls without an effect. */
#define AY_INLINE static inline __attribute__((always_inline, unused))

double ay_now(void); /* seconds, monotonic (clock.c) */

static inline int64_t ay_min_i64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t ay_max_i64(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t ay_div_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

#endif
