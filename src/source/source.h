/* SPDX-License-Identifier: MIT
 *
 * From a checkpoint to named tensors: the safetensors of one component folder, whole or in shards, matched against the
 * parameters a graph asks for, and streamed out in the dtype a package stores. Mechanism only: the names are the models'.
 */
#ifndef AY_SOURCE_H
#define AY_SOURCE_H

#include "io/io.h"
#include "model/model.h"

typedef struct ay_source ay_source;

/** Opens all safetensors of a component folder: an index with its shards, or one file. A variant ("fp16") is taken only
 *  when there is nothing else. Every header is checked here; the tensors stay in the maps. */
alloy_status ay_source_open(ay_ctx *cx, const char *dir, ay_source **out);
void ay_source_close(ay_source **s);
uint64_t ay_source_bytes(const ay_source *s);  /* of all tensors */
int64_t ay_source_params(const ay_source *s);  /* elements of all tensors */
/** SHA-256 over every file's name, size and header, as hex (64 characters and NUL). It names the checkpoint without reading
 *  its tensors. */
void ay_source_hash(const ay_source *s, char hex[65]);

/** Matches every PARAM of `g` with a tensor, through the architecture's aliases. All that is missing, misshapen, of a dtype
 *  that cannot be a weight, or unused and not ignored, comes in one message. */
alloy_status ay_source_check(ay_ctx *cx, const ay_source *s, const ay_graph *g, const ay_arch *arch);

/** The tensor behind one PARAM name, or NULL. */
const ay_st_tensor *ay_source_find(const ay_source *s, const ay_arch *arch, const char *name, const ay_safetensors **file);

typedef alloy_status (*ay_put_fn)(void *user, const void *bytes, size_t n);
/** The numbers of one PARAM in `dtype` (float32 or float16, round to nearest even), in order, in pieces. Finite values
 *  beyond half's range are an error that names the tensor and the value. `done` (may be NULL) counts source bytes. */
alloy_status ay_source_stream(ay_ctx *cx, const ay_source *s, const ay_arch *arch, const char *name, ay_dtype dtype, ay_put_fn put,
                              void *user, uint64_t *done);

#endif
