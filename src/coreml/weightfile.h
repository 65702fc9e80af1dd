/* SPDX-License-Identifier: MIT
 *
 * weight.bin: MILBlob storage, version 2. A 64-byte header, then for each blob a 64-byte metadata record and its bytes, all
 * starting at multiples of 64, little-endian. A program names a blob by the offset of its metadata record.
 */
#ifndef AY_COREML_WEIGHTFILE_H
#define AY_COREML_WEIGHTFILE_H

#include "base/fs.h"
#include "coreml/mil.h"

enum {
    AY_BLOB_ALIGN = 64,
    AY_BLOB_HEADER = 64, /* u32 count, u32 version, zeros */
    AY_BLOB_META = 64,   /* u32 sentinel, u32 dtype, u64 size, u64 data offset, u64 padding bits, zeros */
    AY_BLOB_VERSION = 2
};
#define AY_BLOB_SENTINEL 0xDEADBEEFu

/** One metadata record, decoded and checked. */
typedef struct ay_blob {
    uint64_t meta;   /* offset of the record */
    uint64_t offset; /* of the data in the file */
    uint64_t bytes;
    uint32_t padding_bits; /* unused bits of the last byte */
    uint32_t code;         /* dtype code as it stands in the file */
    ay_dtype dtype;        /* AY_NONE when the code is unknown */
} ay_blob;

/** Number of blobs the header claims; a sentence when the header is not one. `path` is for sentences only. */
alloy_status ay_blob_header(ay_ctx *cx, const char *path, const uint8_t *file, size_t size, uint32_t *count);
/** The record at `meta`: alignment, sentinel, known dtype, data inside the file, padding bits sensible. */
alloy_status ay_blob_read(ay_ctx *cx, const char *path, const uint8_t *file, size_t size, uint64_t meta, ay_blob *out);
/** Elements in a blob, from its bytes and padding. */
int64_t ay_blob_count(const ay_blob *b);
/** Where the next record stands if there is one. */
static inline uint64_t ay_blob_next(const ay_blob *b) {
    return (b->offset + b->bytes + AY_BLOB_ALIGN - 1) / AY_BLOB_ALIGN * AY_BLOB_ALIGN;
}

/* ---- writing: one blob after another, bytes streamed ---------------------------------------------------------------- */

typedef struct ay_weight_writer ay_weight_writer;
alloy_status ay_weight_writer_open(ay_ctx *cx, const char *path, ay_weight_writer **out);
/** Begins a blob of `count` elements; *meta receives its metadata offset. */
alloy_status ay_weight_writer_begin(ay_weight_writer *w, ay_dtype dtype, int64_t count, uint64_t *meta);
alloy_status ay_weight_writer_put(ay_weight_writer *w, const void *bytes, size_t n);
/** Fails when fewer bytes came than the blob holds (more fail in put); `name` is for the sentence. */
alloy_status ay_weight_writer_end(ay_weight_writer *w, const char *name);
uint32_t ay_weight_writer_count(const ay_weight_writer *w);
/** Closes; writes the count into the header, syncs, and gives a fingerprint of all that was written. */
alloy_status ay_weight_writer_close(ay_weight_writer **w, uint8_t digest[32]);
/** Closes without finishing (after a failure). */
void ay_weight_writer_abandon(ay_weight_writer **w);

#endif
