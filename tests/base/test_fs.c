/* SPDX-License-Identifier: MIT
 *
 * Files and folders: what is written is whole or absent, also on a full disk and in a folder without rights; every refusal
 * names its path.
 */
#include "../support/support.h"
#include "base/fs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#include <sys/mount.h>
#endif

static int count_of(ay_test *t, const char *dir) {
    char **names;
    int n;
    assert_ok(t->cx, ay_list_dir(t->cx, t->arena, dir, &names, &n));
    return n;
}

static void test_write_read_map(void **state) {
    ay_test *t = *state;
    const char *path = ay_test_path(t, "a.bin");
    char *big = ay_alloc(t->arena, 3000000);
    for (int i = 0; i < 3000000; i++) big[i] = (char)(i * 7);
    assert_ok(t->cx, ay_file_write(t->cx, path, "old", 3));
    assert_ok(t->cx, ay_file_write(t->cx, path, big, 3000000)); /* replaces */
    size_t n;
    char *back = ay_test_read(t, path, &n);
    assert_int_equal(n, 3000000);
    assert_memory_equal(back, big, n);
    ay_map m;
    assert_ok(t->cx, ay_map_open(t->cx, path, &m));
    assert_int_equal(m.size, 3000000);
    assert_memory_equal(m.data, big, n);
    ay_map_drop(&m, 100, 1000000);
    ay_map_drop(&m, 2999999, SIZE_MAX);
    ay_map_drop(&m, SIZE_MAX, 1);
    assert_memory_equal(m.data, big, n); /* dropped pages come back from the file */
    ay_map_close(&m);
    assert_null(m.data);
    assert_ok(t->cx, ay_file_copy(t->cx, path, ay_test_path(t, "b.bin")));
    assert_memory_equal(ay_test_read(t, ay_test_path(t, "b.bin"), NULL), big, n);
    assert_int_equal(count_of(t, t->dir), 2); /* no .tmp left */
}

static void test_empty_file(void **state) {
    ay_test *t = *state;
    const char *path = ay_test_path(t, "empty");
    size_t n = 9;
    ay_map m;
    ay_test_write(t, path, NULL, 0);
    assert_string_equal(ay_test_read(t, path, &n), "");
    assert_int_equal(n, 0);
    assert_ok(t->cx, ay_map_open(t->cx, path, &m));
    assert_true(m.data == NULL && m.size == 0);
    ay_map_drop(&m, 0, 10);
    ay_map_close(&m);
    assert_ok(t->cx, ay_file_copy(t->cx, path, ay_test_path(t, "copy")));
}

static void test_refusals(void **state) {
    ay_test *t = *state;
    ay_map m;
    ay_buf b = {0};
    const char *none = ay_test_path(t, "none/file"), *file = ay_test_path(t, "file"), *pipe = ay_test_path(t, "pipe");
    assert_fails(t->cx, ay_map_open(t->cx, none, &m), ALLOY_E_IO, "none/file");
    assert_fails(t->cx, ay_map_open(t->cx, t->dir, &m), ALLOY_E_IO, "folder");
    assert_fails(t->cx, ay_map_open(t->cx, "/dev/zero", &m), ALLOY_E_IO, "/dev/zero");
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_fails(t->cx, ay_map_open(t->cx, pipe, &m), ALLOY_E_IO, "pipe"); /* and does not hang */
    assert_fails(t->cx, ay_file_write(t->cx, none, "x", 1), ALLOY_E_IO, "none/file");
    ay_test_write(t, file, "12345678", 8);
    assert_fails(t->cx, ay_file_read(t->cx, file, 7, &b), ALLOY_E_FORMAT, "7 bytes");
    ay_buf_free(&b);
    assert_ok(t->cx, ay_file_read(t->cx, file, 8, &b));
    ay_buf_free(&b);
    assert_fails(t->cx, ay_map_open(t->cx, ay_test_path(t, "file/x"), &m), ALLOY_E_IO, "not a folder");
    assert_fails(t->cx, ay_file_write(t->cx, t->dir, "x", 1), ALLOY_E_IO, t->dir); /* a folder has that name */
    assert_int_equal(ay_path_kind_of(ay_sprintf(t->arena, "%s.tmp", t->dir)), AY_PATH_NONE);
    assert_int_equal(ay_path_kind_of(pipe), AY_PATH_OTHER);
}

static void test_tmp_is_no_trap(void **state) {
    ay_test *t = *state;
    const char *victim = ay_test_path(t, "victim");
    ay_test_write(t, victim, "precious", 8);
    assert_int_equal(symlink(victim, ay_test_path(t, "out.tmp")), 0); /* a link where the temporary file would be */
    ay_test_write(t, ay_test_path(t, "out"), "new", 3);
    assert_string_equal(ay_test_read(t, victim, NULL), "precious");
    assert_string_equal(ay_test_read(t, ay_test_path(t, "out"), NULL), "new");
}

static void test_writer(void **state) {
    ay_test *t = *state;
    const char *path = ay_test_path(t, "w");
    ay_writer *w;
    assert_ok(t->cx, ay_writer_open(t->cx, path, false, &w));
    enum { N = 700000 };
    char *want = ay_alloc(t->arena, N + 10), *chunk = ay_alloc(t->arena, N);
    size_t at = 0;
    uint64_t seed = 5;
    while (at < N) { /* small and large puts in turn */
        size_t n = (size_t)(ay_test_random(&seed) % (at % 3 ? 300 : 400000));
        if (n > N - at) n = N - at;
        for (size_t i = 0; i < n; i++) chunk[i] = want[at + i] = (char)ay_test_random(&seed);
        assert_ok(t->cx, ay_writer_put(w, chunk, n));
        at += n;
        assert_int_equal(ay_writer_pos(w), at);
        size_t back = (size_t)(ay_test_random(&seed) % (at + 1)), len = at - back < 8 ? at - back : 8;
        memset(want + back, 'x', len);
        assert_ok(t->cx, ay_writer_put_at(w, back, "xxxxxxxx", len));
        assert_int_equal(ay_writer_pos(w), at);
    }
    assert_ok(t->cx, ay_writer_close(&w, true));
    assert_null(w);
    size_t n;
    assert_memory_equal(ay_test_read(t, path, &n), want, N);
    assert_int_equal(n, N);
    assert_ok(t->cx, ay_writer_open(t->cx, path, true, &w)); /* goes on at the end */
    assert_int_equal(ay_writer_pos(w), N);
    assert_ok(t->cx, ay_writer_put(w, "tail", 4));
    assert_ok(t->cx, ay_writer_put_at(w, 0, "HEAD", 4));
    assert_ok(t->cx, ay_writer_close(&w, false));
    memcpy(want, "HEAD", 4);
    memcpy(want + N, "tail", 4);
    assert_memory_equal(ay_test_read(t, path, &n), want, N + 4);
    assert_int_equal(n, N + 4);
}

static void test_writer_failures(void **state) {
    ay_test *t = *state;
    ay_writer *w;
    assert_fails(t->cx, ay_writer_open(t->cx, t->dir, false, &w), ALLOY_E_IO, t->dir);
    assert_fails(t->cx, ay_writer_open(t->cx, "/dev/null", false, &w), ALLOY_E_IO, "regular");
    assert_ok(t->cx, ay_writer_open(t->cx, ay_test_path(t, "w"), false, &w));
    assert_fails(t->cx, ay_writer_put_at(w, 1, "x", 1), ALLOY_E_INTERNAL, "overwritten");
    assert_fails(t->cx, ay_writer_put(w, "x", 1), ALLOY_E_INTERNAL, "overwritten"); /* the first failure sticks */
    assert_fails(t->cx, ay_writer_close(&w, false), ALLOY_E_INTERNAL, "overwritten");
    assert_null(w);
    assert_ok(t->cx, ay_writer_close(&w, false));
}

static void test_stop(void **state) {
    ay_test *t = *state;
    const char *path = ay_test_path(t, "f");
    char *big = ay_alloc(t->arena, 1000000);
    ay_test_write(t, path, "before", 6);
    atomic_store(&t->cx->stop, 1);
    assert_fails(t->cx, ay_file_write(t->cx, path, big, 1000000), ALLOY_E_CANCELLED, "stop");
    atomic_store(&t->cx->stop, 0);
    assert_string_equal(ay_test_read(t, path, NULL), "before");
    assert_int_equal(count_of(t, t->dir), 1);
}

/* A limit on the size of files stands for a disk that refuses in the middle; it works without any rights. */
static void test_write_fails_midway(void **state) {
    ay_test *t = *state;
    const char *path = ay_test_path(t, "f");
    char *big = ay_alloc(t->arena, 4000000);
    ay_test_write(t, path, "before", 6);
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 1000000;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    alloy_status s = ay_file_write(t->cx, path, big, 4000000);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, handler);
    assert_fails(t->cx, s, ALLOY_E_IO, "f.tmp");
    assert_string_equal(ay_test_read(t, path, NULL), "before");
    assert_int_equal(count_of(t, t->dir), 1);
}

static void test_full_disk(void **state) {
#if defined(__linux__)
    ay_test *t = *state;
    const char *disk = ay_test_path(t, "disk");
    assert_ok(t->cx, ay_mkdirs(t->cx, disk));
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", disk, "tmpfs", 0, "size=256k") != 0)
        ay_test_skip("a small disk cannot be mounted without rights");
    const char *path = ay_path_join(t->arena, disk, "f");
    char *big = ay_alloc(t->arena, 1000000);
    int64_t room = ay_disk_free(disk);
    ay_test_write(t, path, "before", 6);
    alloy_status s = ay_file_write(t->cx, path, big, 1000000);
    char *text = ay_strdup(t->arena, ay_error_text(t->cx)), *kept = ay_test_read(t, path, NULL);
    int left = count_of(t, disk);
    umount(disk);
    assert_int_equal(s, ALLOY_E_IO);
    assert_contains(text, "disk is full");
    assert_contains(text, "disk/f.tmp");
    assert_string_equal(kept, "before");
    assert_int_equal(left, 1);
    assert_true(room > 0 && room <= 256 * 1024);
#else
    ay_test_skip("needs Linux");
#endif
}

static void test_folder_without_rights(void **state) {
    ay_test *t = *state;
    const char *dir = ay_test_path(t, "ro"), *file = ay_test_path(t, "ro/f"), *secret = ay_test_path(t, "secret");
    bool root = geteuid() == 0;
    assert_ok(t->cx, ay_mkdirs(t->cx, dir));
    ay_test_write(t, file, "before", 6);
    ay_test_write(t, secret, "x", 1);
    assert_int_equal(chmod(t->dir, 0755) | chmod(dir, 0555) | chmod(secret, 0), 0);
    if (root) assert_int_equal(seteuid(65534), 0); /* root may do all */
    ay_map m;
    alloy_status write = ay_file_write(t->cx, file, "after", 5);
    char *text1 = ay_strdup(t->arena, ay_error_text(t->cx));
    alloy_status read = ay_map_open(t->cx, secret, &m);
    char *text2 = ay_strdup(t->arena, ay_error_text(t->cx));
    alloy_status make = ay_mkdirs(t->cx, ay_test_path(t, "ro/sub/dir"));
    char *text3 = ay_strdup(t->arena, ay_error_text(t->cx));
    alloy_status gone = ay_remove_tree(t->cx, dir);
    char *text4 = ay_strdup(t->arena, ay_error_text(t->cx));
    if (root) assert_int_equal(seteuid(0), 0);
    chmod(dir, 0755);
    assert_true(write == ALLOY_E_IO && read == ALLOY_E_IO && make == ALLOY_E_IO && gone == ALLOY_E_IO);
    assert_contains(text1, "permission");
    assert_contains(text1, "ro/f");
    assert_contains(text2, "secret");
    assert_contains(text3, "ro/sub");
    assert_contains(text4, "permission");
    assert_string_equal(ay_test_read(t, file, NULL), "before");
    assert_int_equal(count_of(t, dir), 1);
}

static void test_folders(void **state) {
    ay_test *t = *state;
    const char *deep = ay_test_path(t, "x/y//z/"), *x = ay_test_path(t, "x");
    assert_ok(t->cx, ay_mkdirs(t->cx, deep));
    assert_ok(t->cx, ay_mkdirs(t->cx, deep)); /* again is fine */
    assert_int_equal(ay_path_kind_of(deep), AY_PATH_DIR);
    ay_test_write(t, ay_test_path(t, "x/b"), "1", 1);
    ay_test_write(t, ay_test_path(t, "x/B"), "1", 1);
    ay_test_write(t, ay_test_path(t, "x/.a"), "1", 1);
    ay_test_write(t, ay_test_path(t, "outside"), "kept", 4);
    assert_int_equal(symlink(t->dir, ay_test_path(t, "x/link")), 0);
    char **names;
    int n;
    assert_ok(t->cx, ay_list_dir(t->cx, t->arena, x, &names, &n));
    assert_int_equal(n, 5);
    const char *const want[] = {".a", "B", "b", "link", "y"};
    for (int i = 0; i < 5; i++) assert_string_equal(names[i], want[i]);
    assert_fails(t->cx, ay_mkdirs(t->cx, ay_test_path(t, "x/b/c")), ALLOY_E_IO, "x/b");
    assert_fails(t->cx, ay_list_dir(t->cx, t->arena, ay_test_path(t, "nowhere"), &names, &n), ALLOY_E_IO, "nowhere");
    assert_fails(t->cx, ay_rename(t->cx, ay_test_path(t, "outside"), x), ALLOY_E_IO, "outside");
    assert_ok(t->cx, ay_remove_tree(t->cx, x));
    assert_int_equal(ay_path_kind_of(x), AY_PATH_NONE);
    assert_string_equal(ay_test_read(t, ay_test_path(t, "outside"), NULL), "kept"); /* the link was not followed */
    assert_ok(t->cx, ay_remove_tree(t->cx, x));                                     /* what is not there is removed */
    assert_int_equal(symlink(t->dir, x), 0);
    assert_ok(t->cx, ay_remove_tree(t->cx, x)); /* only the link */
    assert_string_equal(ay_test_read(t, ay_test_path(t, "outside"), NULL), "kept");
}

static void test_paths(void **state) {
    ay_test *t = *state;
    assert_string_equal(ay_path_join(t->arena, "a", "b"), "a/b");
    assert_string_equal(ay_path_join(t->arena, "a/", "b"), "a/b");
    assert_string_equal(ay_path_join(t->arena, "", "b"), "b");
    assert_string_equal(ay_path_base("a/b/c.txt"), "c.txt");
    assert_string_equal(ay_path_base("c.txt"), "c.txt");
    assert_true(ay_disk_free(t->dir) > 0);
    assert_true(ay_disk_free(ay_test_path(t, "not/yet/there")) > 0); /* of the nearest folder that is */
    assert_true(ay_disk_free("") > 0 && ay_disk_free("no-such-name-here") > 0);
}

/* One at a time: a second writer of the same file or folder is refused and harms nothing; the dead are taken over. */
static void test_one_writer(void **state) {
    ay_test *t = *state;
    const char *path = ay_test_path(t, "one"), *folder = ay_test_path(t, "work");
    char *tmp, *again;
    ay_writer *w, *second;
    assert_ok(t->cx, ay_replace_begin(t->cx, path, &tmp, &w));
    assert_fails(t->cx, ay_replace_begin(t->cx, path, &again, &second), ALLOY_E_IO, "another alloy is writing it");
    assert_ok(t->cx, ay_writer_put(w, "first", 5));
    assert_ok(t->cx, ay_replace_end(t->cx, ALLOY_OK, path, &tmp, &w));
    ay_test_write(t, ay_test_path(t, "one.tmp"), "left by a killed run", 20);
    assert_ok(t->cx, ay_file_write(t->cx, path, "second", 6));
    size_t n;
    assert_memory_equal(ay_test_read(t, path, &n), "second", 6);
    assert_int_equal(ay_path_kind_of(ay_test_path(t, "one.tmp")), AY_PATH_NONE);
    int lock, other;
    assert_ok(t->cx, ay_work_begin(t->cx, folder, &lock));
    assert_fails(t->cx, ay_work_begin(t->cx, folder, &other), ALLOY_E_IO, "another alloy is writing it");
    ay_work_end(&lock);
    assert_ok(t->cx, ay_work_begin(t->cx, folder, &lock));
    ay_work_end(&lock);
    assert_fails(t->cx, ay_work_begin(t->cx, path, &lock), ALLOY_E_IO, "in the way");
}

/* A file that is going to be written is judged beforehand, and never takes the place of what is no file. */
static void test_outputs(void **state) {
    ay_test *t = *state;
    const char *pipe = ay_test_path(t, "pipe"), *folder = ay_test_path(t, "folder");
    assert_ok(t->cx, ay_path_check_output(t->cx, ay_test_path(t, "new")));
    assert_fails(t->cx, ay_path_check_output(t->cx, ay_test_path(t, "nowhere/new")), ALLOY_E_IO, "no such file or folder");
    assert_fails(t->cx, ay_path_check_output(t->cx, ""), ALLOY_E_IO, "no name");
    assert_ok(t->cx, ay_mkdirs(t->cx, folder));
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_fails(t->cx, ay_path_check_output(t->cx, folder), ALLOY_E_IO, "is a folder");
    assert_fails(t->cx, ay_path_check_output(t->cx, pipe), ALLOY_E_IO, "device, pipe or socket");
    assert_fails(t->cx, ay_file_write(t->cx, folder, "x", 1), ALLOY_E_IO, "is a folder");
    assert_fails(t->cx, ay_file_write(t->cx, pipe, "x", 1), ALLOY_E_IO, "device, pipe or socket");
    assert_int_equal(ay_path_kind_of(pipe), AY_PATH_OTHER);
    const char *loop = ay_test_path(t, "loop");
    assert_int_equal(symlink("loop", loop), 0);
    assert_true(ay_path_is_link(loop));
    assert_fails(t->cx, ay_path_fail(t->cx, loop), ALLOY_E_IO, "cannot open it");
    assert_fails(t->cx, ay_path_fail(t->cx, ay_test_path(t, "absent")), ALLOY_E_IO, "no such file or folder");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        AY_TEST(test_write_read_map), AY_TEST(test_empty_file),
        AY_TEST(test_refusals),       AY_TEST(test_tmp_is_no_trap),
        AY_TEST(test_writer),         AY_TEST(test_writer_failures),
        AY_TEST(test_stop),           AY_TEST(test_write_fails_midway),
        AY_TEST(test_full_disk),      AY_TEST(test_folder_without_rights),
        AY_TEST(test_folders),        AY_TEST(test_paths),
        AY_TEST(test_one_writer),     AY_TEST(test_outputs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
