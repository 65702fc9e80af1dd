/* SPDX-License-Identifier: MIT
 *
 * Shared by src/source/lora*.c only.
 */
#ifndef AY_LORA_INTERNAL_H
#define AY_LORA_INTERNAL_H

#include "source/lora.h"
#include "source/product.h"

/** What one tensor is to its layer. */
typedef enum lora_role {
    ROLE_UP, ROLE_DOWN, ROLE_MID,                         /* up mid down */
    ROLE_W1A, ROLE_W1B, ROLE_T1, ROLE_W2A, ROLE_W2B, ROLE_T2, /* (w1a w1b) .* (w2a w2b) */
    ROLE_K1, ROLE_K1A, ROLE_K1B, ROLE_K2, ROLE_K2A, ROLE_K2B, ROLE_KT2, /* kron(k1, k2), each whole or a product */
    ROLE_DIFF,                                            /* the difference itself */
    ROLE_ALPHA,                                           /* scale times rank */
    ROLE_MAGNITUDE,                                       /* DoRA: norms of rows */
    ROLE_DORA_SCALE,                                      /* DoRA: norms of rows or of columns, by its shape */
    ROLE_DIFF_B, ROLE_UP_BIAS,                            /* of the bias: as it is; times scale */
    ROLES
} lora_role;

/** How the difference of a weight is made. */
typedef enum lora_form { FORM_NONE, FORM_LOW_RANK, FORM_HADAMARD, FORM_KRONECKER, FORM_DIFF } lora_form;
typedef enum lora_norm { NORM_NONE, NORM_ROWS, NORM_COLUMNS } lora_norm;

typedef struct lora_file lora_file;

typedef struct lora_module {
    const char *name; /* as the file has it, without ending */
    const char *key;  /* the same with _ for every dot, and without what wrappers put in front */
    const lora_file *file;
    const ay_st_tensor *role[ROLES];
    lora_form form;
    int64_t rows, cols; /* of the difference; a convolution's kernel counts among the columns */
    int64_t bias;       /* elements of the bias' difference */
    double scale;       /* alpha over rank */
    lora_norm norm;
    int index;                     /* in the file's list */
    int weight_uses, bias_uses;    /* parameters they go to */
    bool twin;                     /* the file has the same layer under a name that comes first */
    bool other_input;              /* for a variant whose sample has another number of channels */
    bool left_out;                 /* for a component that is not converted */
    ay_lora_param **params;        /* where the weight's difference goes */
    float *column_norms;           /* NORM_COLUMNS: factors of the columns, once known */
} lora_module;

struct lora_file {
    const char *path;
    int order; /* among the files given */
    double strength, text_strength;
    ay_safetensors *st;
    char hash[65];
    lora_module *modules; /* sorted by key */
    int n;
    const char **strange; /* tensors with no known ending */
    int n_strange;
    json_t *config; /* what PEFT says of its adapter, or NULL */
    bool config_prefixed;
};

struct ay_loras {
    ay_arena *arena;
    lora_file *files;
    int n;
    ay_lora_part **parts;
    int n_parts;
};

/** One adapter on one parameter. */
typedef struct lora_patch {
    lora_module *module;
    bool bias;
    bool swapped;   /* the module has the second half of the rows first */
    int64_t offset; /* first of the module's rows, for fused layers */
    double strength;
} lora_patch;

typedef struct lora_matrix {
    float *x;
    int64_t rows, cols;
} lora_matrix;

/** A patch made ready: differences are scale * (p[0] .* p[1]), p[i] = a[i] b[i]; or scale * kron(a[0], a[1]). */
typedef struct lora_term {
    const lora_patch *patch;
    lora_form form; /* of the weight, or FORM_DIFF for a bias */
    float scale;
    float blend; /* how much of the result counts, the rest is what was there */
    lora_matrix a[2], b[2];
    const ay_st_tensor *diff;
    float *by_row, *by_column; /* DoRA's factors; the columns' are the module's */
} lora_term;

struct ay_lora_param {
    const char *name;
    ay_type type;
    ay_lora_part *part;
    lora_patch *patches; /* in the order of the files */
    int n;
    lora_term *terms; /* n of them, while prepared */
    int ready;        /* terms that take part in numbers */
    int users;
};

struct ay_lora_part {
    const ay_source *source;
    const ay_arch *arch;
    ay_lora_param *params; /* sorted by name */
    int n;
    char stamp[65];
};

/** Kind, shapes, rank and scale of a module from its tensors; what cannot be is a failure. */
alloy_status ay_lora_describe(ay_ctx *cx, lora_module *m);
/** Reads one term's factors. */
alloy_status ay_lora_read_term(ay_ctx *cx, const lora_patch *p, lora_term *t);
void ay_lora_free_term(lora_term *t);
/** Rows [row, row + rows) and columns [col, col + cols) of the parameter with its ready terms, to `out`. */
void ay_lora_block(const ay_lora_param *p, const ay_origin *o, int64_t row, int64_t rows, int64_t col, int64_t cols, float *out);
alloy_status ay_lora_norms(ay_ctx *cx, ay_lora_param *p, lora_term *t);

static inline int64_t ay_lora_rows(const ay_type *t) { return t->rank ? t->dim[0] : 1; }

#endif
