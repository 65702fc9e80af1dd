/* SPDX-License-Identifier: MIT
 *
 * Files: read-only maps, whole small files, and folders that appear only when they are whole.
 */
#ifndef AY_FS_H
#define AY_FS_H

#include "base/base.h"

/** A file mapped read-only. An empty file maps to data = NULL, size = 0. */
typedef struct ay_map {
    const uint8_t *data;
    size_t size;
} ay_map;
alloy_status ay_map_open(ay_ctx *cx, const char *path, ay_map *out); /* refuses folders, devices, pipes */
void ay_map_close(ay_map *m);
/** Tells the system that this part will not be read again soon, so that mapped pages do not pile up. */
void ay_map_drop(const ay_map *m, size_t offset, size_t bytes);

/** Gives whole pages of allocated memory back to the system; what was in them is lost, the memory stays allocated. */
void ay_memory_rest(void *p, size_t bytes);

/** Reads a whole file of at most `limit` bytes into `out` (NUL-terminated past its length). */
alloy_status ay_file_read(ay_ctx *cx, const char *path, size_t limit, ay_buf *out);
/** Writes path.tmp, syncs, renames: the file is there whole or not at all. */
alloy_status ay_file_write(ay_ctx *cx, const char *path, const void *bytes, size_t n);
alloy_status ay_file_copy(ay_ctx *cx, const char *from, const char *to);

typedef enum ay_path_kind { AY_PATH_NONE, AY_PATH_FILE, AY_PATH_DIR, AY_PATH_OTHER } ay_path_kind;
ay_path_kind ay_path_kind_of(const char *path);
bool ay_path_is_link(const char *path);
int64_t ay_file_size(const char *path); /* bytes of a regular file; 0 for what is none */
/** Appends size and time of the last change of the file: what tells that it is still the one it was. */
void ay_path_stamp(const char *path, ay_buf *out);
/** Why there is no `path`, as the system tells it: not there, not permitted, a loop of links, a name too long. */
alloy_status ay_path_fail(ay_ctx *cx, const char *path);
/** Whether a file `path` can be made or replaced, asked before the work whose result it takes: its folder is there and may be
 *  written, and what has the name now is a file. */
alloy_status ay_path_check_output(ay_ctx *cx, const char *path);
alloy_status ay_mkdirs(ay_ctx *cx, const char *path);
/** Makes the folder `path`, or takes over what an ended process left there, and locks it until ay_work_end(): two processes
 *  never work in one. A folder that another process has locked is a failure. */
alloy_status ay_work_begin(ay_ctx *cx, const char *path, int *lock);
void ay_work_end(int *lock);
alloy_status ay_remove_tree(ay_ctx *cx, const char *path); /* never follows a link */
alloy_status ay_rename(ay_ctx *cx, const char *from, const char *to);
/** Names (not paths) in a folder, sorted bytewise, without "." and ".."; strings live in `a`. */
alloy_status ay_list_dir(ay_ctx *cx, ay_arena *a, const char *path, char ***names, int *count);
char *ay_path_join(ay_arena *a, const char *dir, const char *name);
const char *ay_path_base(const char *path); /* the part after the last slash */
/** Free bytes on the file system that holds `path`; -1 if it cannot be told. */
int64_t ay_disk_free(const char *path);

/** Sequential writer with a checked close: reports a full disk with the path and what was needed. */
typedef struct ay_writer ay_writer;
alloy_status ay_writer_open(ay_ctx *cx, const char *path, bool append, ay_writer **out);
/** Keeps the first `size` bytes of a file that is there, and goes on behind them. */
alloy_status ay_writer_reopen(ay_ctx *cx, const char *path, uint64_t size, ay_writer **out);
alloy_status ay_writer_put(ay_writer *w, const void *bytes, size_t n);
alloy_status ay_writer_flush(ay_writer *w); /* to the system: what was put outlives this process */
alloy_status ay_writer_read_at(ay_writer *w, uint64_t offset, void *bytes, size_t n); /* only after ay_writer_reopen */
alloy_status ay_writer_put_at(ay_writer *w, uint64_t offset, const void *bytes, size_t n); /* overwrite, position kept */
uint64_t ay_writer_pos(const ay_writer *w);
alloy_status ay_writer_close(ay_writer **w, bool sync); /* flushes; frees in any case */

#endif
