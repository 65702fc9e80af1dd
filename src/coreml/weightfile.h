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

/* ---- how far a file has come: for going on after a process was killed ------------------------------------------------ */

/** A fingerprint of what was written, only to tell contents apart. */
typedef struct ay_weight_print {
    uint64_t lane[4];
    uint8_t rest[32];
    uint32_t n_rest;
} ay_weight_print;

typedef struct ay_weight_mark {
    uint64_t pos; /* the end of a blob */
    ay_weight_print print;
} ay_weight_mark;

/** What identifies the bytes before the mark. */
void ay_weight_mark_digest(const ay_weight_mark *m, uint8_t digest[32]);
/** Compares the file with what was known of it at `n` ascending positions: *good are the first so many that hold, *mark is
 *  the last of these. No file, or none that can be taken: *good = 0. */
alloy_status ay_weight_mark_find(ay_ctx *cx, const char *path, const uint64_t *pos, const uint8_t (*digest)[32], int n, int *good,
                                 ay_weight_mark *mark);

/** The digest that ay_weight_writer_close gives, of a whole file. */
alloy_status ay_weight_file_digest(ay_ctx *cx, const ay_map *map, uint8_t digest[32]);

/* ---- writing: one blob after another, bytes streamed ---------------------------------------------------------------- */

typedef struct ay_weight_writer ay_weight_writer;
/** `from` (NULL: nothing) says how much of a file that an ended process left is whole (ay_weight_mark_find): what is written
 *  up to there is taken as written, and the rest goes behind it. */
alloy_status ay_weight_writer_open(ay_ctx *cx, const char *path, const ay_weight_mark *from, ay_weight_writer **out);
/** Begins a blob of `count` elements; *meta receives its metadata offset. */
alloy_status ay_weight_writer_begin(ay_weight_writer *w, ay_dtype dtype, int64_t count, uint64_t *meta);
/** Whether the blob just begun is among what is whole already; then ay_weight_writer_skip stands for its puts, and gives its
 *  bytes back where `bytes` is not NULL. */
bool ay_weight_writer_kept(const ay_weight_writer *w);
alloy_status ay_weight_writer_skip(ay_weight_writer *w, void *bytes);
/** Hands all that was put to the system and tells how far the file has come. Between blobs. */
alloy_status ay_weight_writer_mark(ay_weight_writer *w, ay_weight_mark *mark);
alloy_status ay_weight_writer_put(ay_weight_writer *w, const void *bytes, size_t n);
/** Fails when fewer bytes came than the blob holds (more fail in put); `name` is for the sentence. */
alloy_status ay_weight_writer_end(ay_weight_writer *w, const char *name);
uint32_t ay_weight_writer_count(const ay_weight_writer *w);
/** Closes; writes the count into the header, syncs, and gives a fingerprint of all that was written. */
alloy_status ay_weight_writer_close(ay_weight_writer **w, uint8_t digest[32]);
/** Closes without finishing (after a failure). */
void ay_weight_writer_abandon(ay_weight_writer **w);

#endif
