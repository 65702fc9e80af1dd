/* SPDX-License-Identifier: MIT
 *
 * Files over POSIX calls: read-only maps, whole small files, folders. Every refusal of the operating system becomes one
 * sentence that says which path, what was tried and what to do; whatever is created under its final name is complete.
 * The sequential writer is in writer.c.
 */
#include "base/fs_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { MAX_TREE_DEPTH = 100 }; /* of folders that ay_remove_tree enters: each holds one descriptor */

/* ---- failures ------------------------------------------------------------------------------------------------------ */

/* strerror_r comes in two kinds (POSIX: int, GNU: char *); both are taken through one name. */
static const char *text_of_int(int rc, const char *buf) { return rc == 0 ? buf : "unknown error"; }
static const char *text_of_ptr(const char *text, const char *buf) { return text ? text : buf; }
#define ERRNO_TEXT(err, buf)                                                                                                \
    _Generic(strerror_r(err, buf, sizeof buf), int : text_of_int, char * : text_of_ptr)(strerror_r(err, buf, sizeof buf),  \
                                                                                        buf)

alloy_status ay_fail_errno(ay_ctx *cx, int err, const char *verb, const char *path, uint64_t needed) {
    char buf[128] = "";
    switch (err) {
    case ENOENT: return ay_fail(cx, ALLOY_E_IO, "%s: cannot %s it: there is no such file or folder", path, verb);
    case EACCES:
    case EPERM:
        return ay_fail(cx, ALLOY_E_IO, "%s: cannot %s it: permission denied; check the rights of the file and its folder",
                       path, verb);
    case EROFS:
        return ay_fail(cx, ALLOY_E_IO, "%s: cannot %s it: the file system is read-only; choose another place", path, verb);
    case ENOTDIR: return ay_fail(cx, ALLOY_E_IO, "%s: cannot %s it: a part of the path is a file, not a folder", path, verb);
    case ENOMEM: return ay_nomem(cx);
    case ENOSPC:
#ifdef EDQUOT
    case EDQUOT:
#endif
    {
        int64_t left = ay_disk_free(path);
        if (needed > 0 && left >= 0)
            return ay_fail(
                cx, ALLOY_E_IO,
                "%s: the disk is full: %llu bytes more were to be written, %lld are free; make room and try again", path,
                (unsigned long long)needed, (long long)left);
        return ay_fail(cx, ALLOY_E_IO, "%s: cannot %s it: the disk is full; make room and try again", path, verb);
    }
    default: return ay_fail(cx, ALLOY_E_IO, "%s: cannot %s it: %s", path, verb, ERRNO_TEXT(err, buf));
    }
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

/* Opens a regular file for reading. O_NONBLOCK: a pipe without a writer must not hang before it is refused. */
static alloy_status open_regular(ay_ctx *cx, const char *path, int *fd, size_t *size) {
    struct stat st;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) return ay_fail_errno(cx, errno, "open", path, 0);
    alloy_status s = ALLOY_OK;
    if (fstat(*fd, &st) != 0) s = ay_fail_errno(cx, errno, "read", path, 0);
    else if (S_ISDIR(st.st_mode)) s = ay_fail(cx, ALLOY_E_IO, "%s: is a folder where a file was expected", path);
    else if (!S_ISREG(st.st_mode)) s = ay_fail(cx, ALLOY_E_IO, "%s: is a device, pipe or socket, no regular file", path);
    else if ((uint64_t)st.st_size > SIZE_MAX / 2) s = ay_fail(cx, ALLOY_E_IO, "%s: is too large for this machine", path);
    if (s != ALLOY_OK) {
        close(*fd);
        return s;
    }
    *size = (size_t)st.st_size;
    return ALLOY_OK;
}

alloy_status ay_map_open(ay_ctx *cx, const char *path, ay_map *out) {
    int fd;
    size_t size;
    *out = (ay_map){0};
    AY_TRY(open_regular(cx, path, &fd, &size));
    void *p = NULL;
    if (size > 0) p = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    int err = errno;
    close(fd); /* the map keeps the file */
    if (p == MAP_FAILED) return ay_fail_errno(cx, err, "map", path, 0);
    *out = (ay_map){p, size};
    return ALLOY_OK;
}

void ay_map_close(ay_map *m) {
    if (m->data) munmap((void *)(uintptr_t)m->data, m->size);
    *m = (ay_map){0};
}

void ay_map_drop(const ay_map *m, size_t offset, size_t bytes) {
    if (!m->data || offset >= m->size) return;
    if (bytes > m->size - offset) bytes = m->size - offset;
    /* Begin and end are both rounded down: consecutive calls leave no page out, and the last page may still be in use. */
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t begin = offset & ~(page - 1), end = offset + bytes == m->size ? m->size : (offset + bytes) & ~(page - 1);
    if (end > begin) madvise((void *)(uintptr_t)(m->data + begin), end - begin, MADV_DONTNEED);
    /* Who reads a file from end to end waits less when the system reads ahead of him while he computes. */
    const size_t ahead = (size_t)16 << 20;
    if (m->size > ahead && end < m->size - ahead && end > begin) {
        size_t at = end > begin + ahead ? end : begin + ahead;
        madvise((void *)(uintptr_t)(m->data + at), end + ahead - at, MADV_WILLNEED);
    }
}

void ay_memory_rest(void *p, size_t bytes) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = ((uintptr_t)p + page - 1) & ~(page - 1), end = ((uintptr_t)p + bytes) & ~(page - 1);
#if defined(__APPLE__)
    int advice = MADV_FREE;
#else
    int advice = MADV_DONTNEED;
#endif
    if (p && end > begin) madvise((void *)begin, end - begin, advice);
}

alloy_status ay_file_read(ay_ctx *cx, const char *path, size_t limit, ay_buf *out) {
    int fd;
    size_t size;
    AY_TRY(open_regular(cx, path, &fd, &size));
    alloy_status s = ALLOY_OK;
    char *chunk = malloc((size_t)1 << 16);
    if (!chunk) s = ay_nomem(cx);
    for (size_t total = 0; s == ALLOY_OK;) { /* to the real end: the size may be 0 for what the kernel makes up */
        ssize_t n = read(fd, chunk, (size_t)1 << 16);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) s = ay_fail_errno(cx, errno, "read", path, 0);
        if (n <= 0) break;
        total += (size_t)n;
        if (total > limit) {
            s = ay_fail(cx, ALLOY_E_FORMAT, "%s: is larger than the %zu bytes that such a file may have", path, limit);
            break;
        }
        ay_buf_add(out, chunk, (size_t)n);
    }
    if (s == ALLOY_OK) {
        ay_buf_add(out, "", 0); /* so that an empty file gives "" */
        if (out->failed) s = ay_nomem(cx);
    }
    free(chunk);
    close(fd);
    return s;
}

/* ---- whole files --------------------------------------------------------------------------------------------------- */

static void sync_parent(const char *path) { /* so that the rename itself is on the disk; best effort */
    const char *base = ay_path_base(path);
    size_t n = (size_t)(base - path);
    char *dir = malloc(n + 2);
    if (!dir) return;
    memcpy(dir, path, n);
    strcpy(dir + n, n ? "" : ".");
    int fd = open(dir, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(dir);
}

/* A rename over a device would take its place: only a file is ever replaced. */
static alloy_status check_replaceable(ay_ctx *cx, const char *path) {
    switch (ay_path_kind_of(path)) {
    case AY_PATH_DIR: return ay_fail(cx, ALLOY_E_IO, "%s: cannot be written: it is a folder; give the name of a file", path);
    case AY_PATH_OTHER: return ay_fail(cx, ALLOY_E_IO, "%s: cannot be written: it is a device, pipe or socket", path);
    default: return ALLOY_OK;
    }
}

alloy_status ay_path_check_output(ay_ctx *cx, const char *path) {
    const char *base = ay_path_base(path);
    size_t n = (size_t)(base - path);
    if (!*base) return ay_fail(cx, ALLOY_E_IO, "%s: cannot be written: it is no name of a file", *path ? path : "\"\"");
    AY_TRY(check_replaceable(cx, path));
    char *dir = malloc(n + 2);
    if (!dir) return ay_nomem(cx);
    memcpy(dir, path, n);
    strcpy(dir + n, n ? "" : ".");
    struct stat st;
    alloy_status s = ALLOY_OK;
    if (stat(dir, &st) != 0 || access(dir, W_OK | X_OK) != 0) s = ay_fail_errno(cx, errno, "write into", dir, 0);
    free(dir);
    return s;
}

alloy_status ay_replace_begin(ay_ctx *cx, const char *path, char **tmp, ay_writer **w) {
    *w = NULL;
    *tmp = NULL;
    AY_TRY(check_replaceable(cx, path));
    *tmp = malloc(strlen(path) + 5);
    if (!*tmp) return ay_nomem(cx);
    strcpy(*tmp, path);
    strcat(*tmp, ".tmp");
    alloy_status s = ay_writer_create(cx, *tmp, w);
    if (s != ALLOY_OK) {
        free(*tmp);
        *tmp = NULL;
    }
    return s;
}

alloy_status ay_replace_end(ay_ctx *cx, alloy_status so_far, const char *path, char **tmp, ay_writer **w) {
    if (!*tmp) return so_far;
    bool keep_first = so_far != ALLOY_OK;
    alloy_status s = keep_first ? (ay_writer_abandon(w), so_far) : ay_writer_close(w, true);
    if (s == ALLOY_OK) s = ay_rename(cx, *tmp, path);
    if (s == ALLOY_OK) sync_parent(path);
    else unlink(*tmp);
    free(*tmp);
    *tmp = NULL;
    return s;
}

alloy_status ay_file_write(ay_ctx *cx, const char *path, const void *bytes, size_t n) {
    char *tmp;
    ay_writer *w;
    AY_TRY(ay_replace_begin(cx, path, &tmp, &w));
    return ay_replace_end(cx, ay_writer_put(w, bytes, n), path, &tmp, &w);
}

alloy_status ay_file_copy(ay_ctx *cx, const char *from, const char *to) {
    ay_map m;
    AY_TRY(ay_map_open(cx, from, &m));
    char *tmp;
    ay_writer *w;
    alloy_status s = ay_replace_begin(cx, to, &tmp, &w);
    const size_t step = (size_t)8 << 20;
    for (size_t at = 0; s == ALLOY_OK && at < m.size; at += step) {
        s = ay_writer_put(w, m.data + at, m.size - at < step ? m.size - at : step);
        ay_map_drop(&m, at, step);
    }
    s = ay_replace_end(cx, s, to, &tmp, &w);
    ay_map_close(&m);
    return s;
}

/* ---- folders ------------------------------------------------------------------------------------------------------- */

ay_path_kind ay_path_kind_of(const char *path) {
    struct stat st;
    if (stat(path, &st) != 0) return AY_PATH_NONE;
    return S_ISREG(st.st_mode) ? AY_PATH_FILE : S_ISDIR(st.st_mode) ? AY_PATH_DIR : AY_PATH_OTHER;
}

bool ay_path_is_link(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
}

int64_t ay_file_size(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) ? (int64_t)st.st_size : 0;
}

void ay_path_stamp(const char *path, ay_buf *out) {
    struct stat st;
    if (stat(path, &st) != 0) ay_buf_printf(out, "none");
#if defined(__APPLE__)
    else ay_buf_printf(out, "%lld %lld.%09ld", (long long)st.st_size, (long long)st.st_mtimespec.tv_sec, st.st_mtimespec.tv_nsec);
#else
    else ay_buf_printf(out, "%lld %lld.%09ld", (long long)st.st_size, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
#endif
}

alloy_status ay_path_fail(ay_ctx *cx, const char *path) {
    struct stat st;
    if (stat(path, &st) == 0) return ay_fail(cx, ALLOY_E_IO, "%s: is neither a file nor a folder", path);
    if (errno == ENOENT) return ay_fail(cx, ALLOY_E_IO, "%s: no such file or folder", path);
    return ay_fail_errno(cx, errno, "open", path, 0);
}

alloy_status ay_mkdirs(ay_ctx *cx, const char *path) {
    size_t n = strlen(path);
    char *p = malloc(n + 1);
    if (!p) return ay_nomem(cx);
    memcpy(p, path, n + 1);
    alloy_status s = ALLOY_OK;
    for (size_t i = 1; i <= n && s == ALLOY_OK; i++) {
        if (p[i] != '/' && p[i] != 0) continue;
        char keep = p[i];
        p[i] = 0;
        if (mkdir(p, 0777) != 0) {
            int err = errno;
            ay_path_kind kind = ay_path_kind_of(p);
            if (kind != AY_PATH_DIR && kind != AY_PATH_NONE)
                s = ay_fail(cx, ALLOY_E_IO, "%s: cannot be created as a folder: a file has that name", p);
            else if (kind != AY_PATH_DIR) s = ay_fail_errno(cx, err, "create", p, 0);
        }
        p[i] = keep;
    }
    free(p);
    return s;
}

/* Removes `name` in the folder `dirfd`; `path` (the root of the tree) is only for the sentence. */
static alloy_status remove_at(ay_ctx *cx, int dirfd, const char *name, const char *path, int depth) {
    if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT) return ALLOY_OK;
    int err = errno; /* a folder: EISDIR on Linux, EPERM by POSIX */
    int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return ay_fail_errno(cx, errno == ENOTDIR || errno == ELOOP ? err : errno, "remove", path, 0);
    if (depth >= MAX_TREE_DEPTH) {
        close(fd);
        return ay_fail(cx, ALLOY_E_IO, "%s: cannot be removed: its folders are nested more than %d deep", path,
                       MAX_TREE_DEPTH);
    }
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return ay_nomem(cx);
    }
    alloy_status s = ALLOY_OK;
    for (int pass = 0; pass < 8; pass++) { /* some systems leave out entries when others vanish during the walk */
        struct dirent *e;
        rewinddir(dir);
        while (s == ALLOY_OK && (e = readdir(dir))) {
            if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
            s = remove_at(cx, fd, e->d_name, path, depth + 1);
        }
        if (s != ALLOY_OK || unlinkat(dirfd, name, AT_REMOVEDIR) == 0) break;
        if ((errno != ENOTEMPTY && errno != EEXIST) || pass == 7) s = ay_fail_errno(cx, errno, "remove", path, 0);
        if (s != ALLOY_OK) break;
    }
    closedir(dir);
    return s;
}

alloy_status ay_remove_tree(ay_ctx *cx, const char *path) { return remove_at(cx, AT_FDCWD, path, path, 0); }

alloy_status ay_rename(ay_ctx *cx, const char *from, const char *to) {
    if (rename(from, to) == 0) return ALLOY_OK;
    int err = errno;
    if (err == ENOTEMPTY || err == EEXIST || err == EISDIR || err == ENOTDIR)
        return ay_fail(cx, ALLOY_E_IO, "%s: cannot be renamed to %s: something else has that name already", from, to);
    alloy_status s = ay_fail_errno(cx, err, "rename", from, 0);
    ay_fail_prefix(cx, "%s: ", to);
    return s;
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

alloy_status ay_list_dir(ay_ctx *cx, ay_arena *a, const char *path, char ***names, int *count) {
    *names = NULL;
    *count = 0;
    DIR *dir = opendir(path);
    if (!dir) return ay_fail_errno(cx, errno, "list", path, 0);
    int n = 0, cap = 0;
    char **list = NULL;
    bool oom = false;
    struct dirent *e;
    while (!oom && (e = readdir(dir))) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if (n == cap) { /* the outgrown lists stay in the arena: at most as much again */
            int more = cap ? cap * 2 : 32;
            char **grown = more > 0 && more < (1 << 28) ? ay_alloc(a, (size_t)more * sizeof *grown) : NULL;
            if (grown && n) memcpy(grown, list, (size_t)n * sizeof *list);
            if (!grown) {
                oom = true;
                break;
            }
            list = grown;
            cap = more;
        }
        list[n] = ay_strdup(a, e->d_name);
        oom = !list[n++];
    }
    closedir(dir);
    if (oom) return ay_nomem(cx);
    if (n) qsort(list, (size_t)n, sizeof *list, by_bytes);
    *names = list;
    *count = n;
    return ALLOY_OK;
}

/* ---- paths --------------------------------------------------------------------------------------------------------- */

char *ay_path_join(ay_arena *a, const char *dir, const char *name) {
    size_t n = strlen(dir);
    return ay_sprintf(a, n == 0 || dir[n - 1] == '/' ? "%s%s" : "%s/%s", dir, name);
}

const char *ay_path_base(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

int64_t ay_disk_free(const char *path) {
    struct statvfs v;
    char *p = malloc(strlen(path) + 2);
    if (!p) return -1;
    strcpy(p, *path ? path : ".");
    int rc;
    while ((rc = statvfs(p, &v)) != 0 && errno == ENOENT) { /* what does not exist yet: its nearest folder that does */
        char *slash = strrchr(p, '/');
        if (slash == p && p[1]) p[1] = 0;
        else if (slash && slash != p) *slash = 0;
        else if (strcmp(p, ".") != 0 && !slash) strcpy(p, ".");
        else break;
    }
    free(p);
    if (rc != 0) return -1;
    uint64_t bytes;
    if (__builtin_mul_overflow((uint64_t)v.f_bavail, (uint64_t)v.f_frsize, &bytes) || bytes > INT64_MAX) return INT64_MAX;
    return (int64_t)bytes;
}
