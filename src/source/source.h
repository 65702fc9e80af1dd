/* SPDX-License-Identifier: MIT
 *
 * From a checkpoint to named tensors: the files of one component folder, or one part of a single file, matched against the
 * parameters a graph asks for, and streamed out in the dtype a package stores. Mechanism only: the names are the models'.
 *
 *   source.c   which files, which of their tensors; the check of a whole graph against them
 *   origin.c   where the numbers of one parameter come from, and those numbers
 *   scaled.c   weights with factors beside them
 *   lora*.c    adapters that change them (lora.h)
 */
#ifndef AY_SOURCE_H
#define AY_SOURCE_H

#include "io/io.h"
#include "model/model.h"

typedef struct ay_source ay_source;

/** Opens all checkpoint files of a component folder: an index with its shards, or one file. A variant ("fp16") is taken only
 *  when there is nothing else. Every header is checked here; the tensors stay in the maps. */
alloy_status ay_source_open(ay_ctx *cx, const char *dir, ay_source **out);
/** Opens one checkpoint file. */
alloy_status ay_source_open_file(ay_ctx *cx, const char *path, ay_source **out);
void ay_source_close(ay_source **s);

/** Looks at one part of the source from now on: tensors whose names begin with `prefix`, written as `naming` says (may be
 *  NULL: the architecture's own names). `flat`: names without dots, as EMA copies have them. Strings are borrowed; `cfg` is
 *  the architecture's, for the naming's rename(). */
void ay_source_focus(ay_source *s, const char *prefix, bool flat, const ay_naming *naming, const void *cfg);
/** Names that begin with one of these (NULL ends; borrowed) belong to other parts, although the prefix looked at is shorter. */
void ay_source_leave(ay_source *s, const char *const *prefixes);
/** The same for a whole component folder: the first of the architecture's namings whose keys are there; if none, its own. */
void ay_source_choose(ay_source *s, const ay_arch *arch, const void *cfg);
/** The names of what is looked at, without the prefix. */
ay_names ay_source_names(const ay_source *s);

/* Of all tensors that are looked at: how many, their bytes and elements. */
int64_t ay_source_count(const ay_source *s);
uint64_t ay_source_bytes(const ay_source *s);
int64_t ay_source_params(const ay_source *s);
/** SHA-256 over every file's name, size and header, as hex (64 characters and NUL). It names the checkpoint without reading
 *  its tensors. */
void ay_source_hash(const ay_source *s, char hex[65]);
/** Appends name, size and time of the last change of every file: whether what was begun can be gone on with. */
void ay_source_stamp(const ay_source *s, ay_buf *out);

/** Matches every PARAM of `g` with a tensor, through the naming or the architecture's aliases. All that is missing, misshapen,
 *  of a dtype that cannot be a weight, or unused and not ignored, comes in one message. */
alloy_status ay_source_check(ay_ctx *cx, const ay_source *s, const ay_graph *g, const ay_arch *arch);

/* ---- the numbers of one parameter (origin.c) ------------------------------------------------------------------------- */

/** Elements of a tensor of a file, as an array of their own: element (i, j, ..) is first + i * stride[0] + j * stride[1] .. */
typedef struct ay_view {
    int64_t first;
    int rank;
    int64_t dim[AY_MAX_RANK], stride[AY_MAX_RANK]; /* in elements */
    bool dense;                                    /* the elements lie one after another in row-major order */
} ay_view;

enum { AY_MAX_VIEWS = 2 };

/** Where a parameter's numbers come from: views of one tensor, one after the other along the first dimension. */
typedef struct ay_origin {
    const ay_safetensors *file;
    const ay_st_tensor *tensor;
    ay_type found;    /* the tensor as the file has it */
    ay_type type;     /* the parameter: the file's dtype, the graph's shape */
    bool fits;        /* false: there is such a tensor, but the parameter cannot be made of it; there are no views then */
    int n;
    ay_view view[AY_MAX_VIEWS];
    const ay_st_tensor *scales; /* float32 factors of the tensor's rows */
    int64_t n_scales;           /* 0: none; 1: one for all */
    bool identity;              /* the identity matrix, which the checkpoint leaves out; there are no views */
    struct ay_lora_param *lora; /* adapters that change the numbers, or NULL */
} ay_origin;

/** The origin of a PARAM of this name and shape; false if there is no tensor for it. After ay_source_check() each fits. */
bool ay_source_find(const ay_source *s, const ay_arch *arch, const char *name, const ay_type *type, ay_origin *out);
/** Makes what is read ready, where adapters change it; once before and once after all reading. ay_origin_stream() does it. */
alloy_status ay_origin_begin(ay_ctx *cx, const ay_origin *o);
void ay_origin_end(const ay_origin *o);
/** Elements [begin, begin + count) as float32. Any thread. */
void ay_origin_read(const ay_origin *o, int64_t begin, int64_t count, float *out);
/** Bytes of elements [begin, end) in the file (as near as blocks allow), and telling the system that they are done with. */
uint64_t ay_origin_bytes(const ay_origin *o, int64_t begin, int64_t end);
void ay_origin_drop(const ay_origin *o, int64_t begin, int64_t end);

typedef alloy_status (*ay_put_fn)(void *user, const void *bytes, size_t n);
/** All numbers of an origin in `dtype` (float32 or float16, round to nearest even), in order, in pieces. Finite values beyond
 *  half's range are an error that names the tensor and the value. `done` (may be NULL) counts source bytes. */
alloy_status ay_origin_stream(ay_ctx *cx, const ay_origin *o, ay_dtype dtype, ay_put_fn put, void *user, uint64_t *done);
/** The same for a PARAM by name and shape. */
alloy_status ay_source_stream(ay_ctx *cx, const ay_source *s, const ay_arch *arch, const char *name, const ay_type *type, ay_dtype dtype,
                              ay_put_fn put, void *user, uint64_t *done);

#endif
