/* SPDX-License-Identifier: MIT
 *
 * The sequential file writer: small puts are gathered, large ones go straight to the file in steps between which the stop
 * flag is read. The first failure sticks: later calls do nothing and return it. And the locks that keep two processes from
 * writing one file or folder at once.
 */
#include "base/fs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER = 1 << 18, STEP = 1 << 23 }; /* 256 KB gathered; 8 MB per write call */

struct ay_writer {
    ay_ctx *cx;
    int fd;
    char *path;
    alloy_status failed;
    uint64_t pos; /* as the caller sees it: what is in the file plus what is in the buffer */
    size_t held;
    unsigned char buffer[BUFFER];
};

static alloy_status open_with(ay_ctx *cx, const char *path, int flags, bool append, ay_writer **out) {
    *out = NULL;
    ay_writer *w = malloc(sizeof *w);
    char *copy = malloc(strlen(path) + 1);
    if (!w || !copy) {
        free(w);
        free(copy);
        return ay_nomem(cx);
    }
    strcpy(copy, path);
    w->cx = cx;
    w->path = copy;
    w->failed = ALLOY_OK;
    w->pos = 0;
    w->held = 0;
    struct stat st;
    /* Never O_APPEND: with it, Linux makes pwrite() append too. */
    w->fd = open(path, O_CREAT | O_CLOEXEC | O_NONBLOCK | flags, 0666);
    if (w->fd < 0) w->failed = ay_fail_errno(cx, errno, "create", path, 0);
    else if (fstat(w->fd, &st) != 0) w->failed = ay_fail_errno(cx, errno, "create", path, 0);
    else if (!S_ISREG(st.st_mode)) w->failed = ay_fail(cx, ALLOY_E_IO, "%s: cannot be written: it is no regular file", path);
    else if (append) w->pos = (uint64_t)st.st_size;
    if (w->failed != ALLOY_OK) {
        alloy_status s = w->failed;
        ay_writer_abandon(&w);
        return s;
    }
    *out = w;
    return ALLOY_OK;
}

alloy_status ay_writer_open(ay_ctx *cx, const char *path, bool append, ay_writer **out) {
    return open_with(cx, path, O_WRONLY | (append ? 0 : O_TRUNC), append, out);
}

alloy_status ay_writer_reopen(ay_ctx *cx, const char *path, uint64_t size, ay_writer **out) {
    AY_TRY(open_with(cx, path, O_RDWR | O_NOFOLLOW, true, out));
    ay_writer *w = *out;
    if (size > w->pos) w->failed = ay_fail(cx, ALLOY_E_IO, "%s: has become shorter than the %llu bytes it had", path, (unsigned long long)size);
    else if (ftruncate(w->fd, (off_t)size) != 0) w->failed = ay_fail_errno(cx, errno, "cut", path, 0);
    w->pos = size;
    if (w->failed == ALLOY_OK) return ALLOY_OK;
    alloy_status s = w->failed;
    ay_writer_abandon(out);
    return s;
}

/* 1: `path` names the file behind `fd`, and the lock on it is ours. 0: somebody else has the lock. -1: it names another file by
 * now, or none. Where locks are not to be had (some network file systems) there is one writer only, as far as we can tell. */
static int lock_named(int fd, const char *path) {
    struct stat mine, named;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return 0;
    if (fstat(fd, &mine) != 0 || lstat(path, &named) != 0) return -1;
    return mine.st_dev == named.st_dev && mine.st_ino == named.st_ino ? 1 : -1;
}

static alloy_status in_use(ay_ctx *cx, const char *path) {
    return ay_fail(cx, ALLOY_E_IO, "%s: another alloy is writing it at this moment; wait for it or choose another name", path);
}

/* A file is only removed or renamed by who holds the lock on it and has then seen that the name is still that file's. */
static int clear_leftover(const char *path) {
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT || unlink(path) == 0 ? 1 : -1; /* a link, or not ours to read */
    int mine = lock_named(fd, path);
    if (mine > 0) unlink(path);
    close(fd);
    return mine;
}

alloy_status ay_writer_create(ay_ctx *cx, const char *path, ay_writer **out) {
    for (int tries = 0; tries < 20; tries++) {
        if (clear_leftover(path) == 0) return in_use(cx, path);
        alloy_status st = open_with(cx, path, O_WRONLY | O_EXCL, false, out);
        struct stat there;
        if (st != ALLOY_OK && tries < 19 && lstat(path, &there) == 0) continue;
        if (st != ALLOY_OK) return st;
        if (lock_named((*out)->fd, path) == 1) return ALLOY_OK;
        ay_writer_abandon(out); /* somebody took it for a leftover before it was locked */
    }
    return in_use(cx, path);
}

alloy_status ay_work_begin(ay_ctx *cx, const char *path, int *lock) {
    *lock = -1;
    for (int tries = 0; tries < 20; tries++) {
        if (mkdir(path, 0777) != 0 && errno != EEXIST) return ay_fail_errno(cx, errno, "create", path, 0);
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT) continue;
        if (fd < 0 && (errno == ENOTDIR || errno == ELOOP)) {
            return ay_fail(cx, ALLOY_E_IO, "%s: is in the way: work in progress goes into a folder of that name; remove it", path);
        }
        if (fd < 0) return ay_fail_errno(cx, errno, "open", path, 0);
        int mine = lock_named(fd, path);
        if (mine == 1) return *lock = fd, ALLOY_OK;
        close(fd);
        if (mine == 0) break;
    }
    return in_use(cx, path);
}

void ay_work_end(int *lock) {
    if (*lock >= 0) close(*lock);
    *lock = -1;
}

static alloy_status write_all(ay_writer *w, uint64_t at, const void *bytes, size_t n) {
    const unsigned char *p = bytes;
    while (n > 0) {
        if (ay_stopped(w->cx)) return w->failed = ay_check_stop(w->cx);
        ssize_t done = pwrite(w->fd, p, n < STEP ? n : STEP, (off_t)at);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return w->failed = ay_fail_errno(w->cx, done < 0 ? errno : ENOSPC, "write", w->path, n);
        p += done;
        at += (uint64_t)done;
        n -= (size_t)done;
    }
    return ALLOY_OK;
}

static alloy_status flush(ay_writer *w) {
    if (w->failed != ALLOY_OK) return w->failed;
    size_t n = w->held;
    w->held = 0;
    return write_all(w, w->pos - n, w->buffer, n);
}

alloy_status ay_writer_put(ay_writer *w, const void *bytes, size_t n) {
    if (w->failed != ALLOY_OK) return w->failed;
    if (n > (uint64_t)INT64_MAX - w->pos) return w->failed = ay_fail_errno(w->cx, EFBIG, "write", w->path, 0);
    if (n > BUFFER - w->held) AY_TRY(flush(w));
    if (n >= BUFFER) AY_TRY(write_all(w, w->pos, bytes, n));
    else if (n > 0) {
        memcpy(w->buffer + w->held, bytes, n);
        w->held += n;
    }
    w->pos += n;
    return ALLOY_OK;
}

alloy_status ay_writer_put_at(ay_writer *w, uint64_t offset, const void *bytes, size_t n) {
    AY_TRY(flush(w));
    if (offset > w->pos || n > w->pos - offset)
        return w->failed =
                   ay_fail(w->cx, ALLOY_E_INTERNAL, "%s: %zu bytes at %llu cannot be overwritten: only %llu were written",
                           w->path, n, (unsigned long long)offset, (unsigned long long)w->pos);
    return write_all(w, offset, bytes, n);
}

alloy_status ay_writer_flush(ay_writer *w) { return flush(w); }

alloy_status ay_writer_read_at(ay_writer *w, uint64_t offset, void *bytes, size_t n) {
    AY_TRY(flush(w));
    for (char *p = bytes; n > 0;) {
        ssize_t got = pread(w->fd, p, n, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return w->failed = ay_fail_errno(w->cx, got < 0 ? errno : EIO, "read", w->path, 0);
        p += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return ALLOY_OK;
}

uint64_t ay_writer_pos(const ay_writer *w) { return w->pos; }

void ay_writer_abandon(ay_writer **w) {
    if (!w || !*w) return;
    if ((*w)->fd >= 0) close((*w)->fd);
    free((*w)->path);
    free(*w);
    *w = NULL;
}

alloy_status ay_writer_close(ay_writer **wp, bool sync) {
    if (!wp || !*wp) return ALLOY_OK;
    ay_writer *w = *wp;
    alloy_status s = flush(w);
    if (s == ALLOY_OK && sync && fsync(w->fd) != 0 && errno != EINVAL && errno != EROFS)
        s = ay_fail_errno(w->cx, errno, "write", w->path, 0);
    int fd = w->fd;
    w->fd = -1;
    if (close(fd) != 0 && errno != EINTR && s == ALLOY_OK) s = ay_fail_errno(w->cx, errno, "write", w->path, 0);
    ay_writer_abandon(wp);
    return s;
}
