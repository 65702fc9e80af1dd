/* SPDX-License-Identifier: MIT
 *
 * Between fs.c, writer.c and the file writers of src/io: the sentence for an errno, and "write beside, then rename".
 */
#ifndef AY_FS_INTERNAL_H
#define AY_FS_INTERNAL_H

#include "base/fs.h"

/** One sentence for what the operating system refused. `verb`: "open", "write" ... `needed`: bytes still to be written when
 *  the disk is full, 0 if not known. */
alloy_status ay_fail_errno(ay_ctx *cx, int err, const char *verb, const char *path, uint64_t needed);

/** Begins PATH.tmp; after it, ay_replace_end() in any case: syncs and renames if all went well, else removes PATH.tmp. The
 *  result is `so_far` if that is a failure, else how the closing went. */
alloy_status ay_replace_begin(ay_ctx *cx, const char *path, char **tmp, ay_writer **w);
alloy_status ay_replace_end(ay_ctx *cx, alloy_status so_far, const char *path, char **tmp, ay_writer **w);

/** A new file under `path`, locked until it is closed; what an ended process left there goes, what a running one is writing
 *  stays and is a failure. */
alloy_status ay_writer_create(ay_ctx *cx, const char *path, ay_writer **out);

/** Frees without flushing; keeps the recorded sentence. */
void ay_writer_abandon(ay_writer **w);

#endif
