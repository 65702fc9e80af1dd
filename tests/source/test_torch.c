/* SPDX-License-Identifier: MIT
 *
 * PyTorch's checkpoints: the tensors that torch wrote (tests/reference/torch_files.py), and pickles and archives that nobody
 * should have written.
 */
#include "../support/torch_write.h"
#include "source/source.h"

#include <string.h>

static const ay_arch plain = {.class_name = "", .graph_kind = ""};

/* Every tensor of one file by the other, as float32. */
static void same_tensors(ay_test *t, const char *path, const char *want_path) {
    ay_safetensors *want;
    ay_source *s;
    assert_ok(t->cx, ay_st_open(t->cx, want_path, &want));
    assert_ok(t->cx, ay_source_open_file(t->cx, path, &s));
    assert_int_equal(ay_source_count(s), want->n);
    for (int i = 0; i < want->n; i++) {
        const ay_st_tensor *w = &want->tensors[i];
        int64_t n = ay_type_count(&w->type);
        float *a = ay_alloc(t->arena, (size_t)(n + 1) * 4), *b = ay_alloc(t->arena, (size_t)(n + 1) * 4);
        ay_origin o;
        if (!ay_source_find(s, &plain, w->name, &w->type, &o)) fail_msg("%s: no %s", path, w->name);
        assert_true(o.fits);
        assert_int_equal(o.found.dtype, w->type.dtype);
        assert_true(ay_type_equal(&o.found, &w->type));
        ay_origin all = {.file = want, .tensor = w, .found = w->type, .type = w->type, .fits = true, .n = 1, .view = {{.rank = 1, .dim = {n}, .stride = {1}, .dense = true}}};
        for (int64_t at = 0; at < n; at += 5) ay_origin_read(&o, at, ay_min_i64(5, n - at), a + at);
        ay_origin_read(&all, 0, n, b);
        assert_memory_equal(a, b, (size_t)n * 4);
        ay_origin_drop(&o, 0, n);
    }
    ay_source_close(&s);
    ay_st_close(&want);
}

static void test_what_torch_wrote(void **state) {
    ay_test *t = *state;
    static const char *const files[] = {"zip.pt", "before.pt", "protocol4.pt", "training.ckpt"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        same_tensors(t, ay_test_golden(t, ay_sprintf(t->arena, "torch/%s", files[i])), ay_test_golden(t, "torch/tensors.safetensors"));
    }
    same_tensors(t, ay_test_golden(t, "torch/module.pt"), ay_test_golden(t, "torch/module.safetensors"));
}

/* ---- what nobody should have written ------------------------------------------------------------------------------------ */

static void refuse(ay_test *t, const void *pickle, size_t n, const char *words) {
    ay_safetensors *st;
    ay_member m[] = {{"a/data.pkl", pickle, n}, {"a/data/0", "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16}};
    size_t bytes;
    const void *zip = ay_torch_zip(t, m, 2, false, &bytes);
    alloy_status st_ = ay_torch_open_bytes(t->cx, "bad.pt", zip, bytes, &st);
    print_message("%s\n", ay_error_text(t->cx));
    assert_int_not_equal(st_, ALLOY_OK);
    assert_null(st);
    assert_contains(ay_error_text(t->cx), words);
    assert_contains(ay_error_text(t->cx), "bad.pt: ");
    assert_null(strchr(ay_error_text(t->cx), '\n'));
}
#define REFUSE(t, pickle, words) refuse(t, pickle, sizeof pickle - 1, words)
#define STORAGE "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" "0X\3\0\0\0cpuK\4tQ"

static void test_code_is_refused(void **state) {
    ay_test *t = *state;
    REFUSE(t, "\x80\x02" "cos\nsystem\nX\4\0\0\0echo\x85R.", "os.system");
    REFUSE(t, "\x80\x04\x8c\5posix\x8c\6system\x93\x8c\2id\x85R.", "posix.system");
    REFUSE(t, "cbuiltins\neval\n(S'1'\ntR.", "builtins.eval");
    REFUSE(t, "\x80\x02" "cpickle\nloads\nC\3N..\x85R.", "pickle.loads");
    REFUSE(t, "\x80\x02" "c_codecs\nencode\nX\1\0\0\0aX\6\0\0\0latin1\x86R.", "_codecs.encode");
    REFUSE(t, "\x80\x02" "ctorch.serialization\nload\nX\1\0\0\0a\x85R.", "torch.serialization.load");
    REFUSE(t, "\x80\x02" "cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n.", "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint");
    REFUSE(t, "\x80\x02" "ctorch\nFloatStorage.from_file\n)R.", "torch.FloatStorage.from_file");
    REFUSE(t, "(ios\nsystem\n.", "calls for os.system");
    REFUSE(t, "(S'a'\no.", "instruction 0x6f");                                 /* OBJ */
    REFUSE(t, "\x80\x02" "ccollections\nOrderedDict\n)\x81.", "instruction 0x81"); /* NEWOBJ */
    REFUSE(t, "\x80\x02\x82\1.", "instruction 0x82");                            /* EXT1 */
    REFUSE(t, "\x80\x02" "ctorch\nFloatStorage\n)R.", "it calls a type");
    REFUSE(t, "\x80\x02" "X\1\0\0\0a)R.", "calls what is no global");
    REFUSE(t, "\x80\x02" "K\1}b.", "sets attributes of what has none");
}

static void test_broken_pickles(void **state) {
    ay_test *t = *state;
    REFUSE(t, "", "ends in the middle");
    REFUSE(t, "\x80\x02" "X\xff\xff\xff\x7f" "a", "ends in the middle");
    REFUSE(t, "\x80\x09.", "protocol");
    REFUSE(t, "t.", "ends a group");
    REFUSE(t, "0.", "empty stack");
    REFUSE(t, "(0.", "empty stack");
    REFUSE(t, "h\7.", "did not remember");
    REFUSE(t, "Nr\xff\xff\xff\xff.", "too large");
    REFUSE(t, "}K\1a.", "no such container");
    REFUSE(t, "}(K\1u.", "no such container");
    REFUSE(t, "NN.", "more than its value");
    REFUSE(t, "(N.", "more than its value");
    REFUSE(t, "I9x\n.", "a number that is none");
    REFUSE(t, "N.", "no dictionary of tensors");
    REFUSE(t, "}.", "no dictionary of tensors");
    REFUSE(t, "X\1\0\0\0aQ.", "no storage");
}

static void test_broken_tensors(void **state) {
    ay_test *t = *state;
    REFUSE(t, "}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(" STORAGE "K\0K\5\x85K\1\x85\x89NtRs.", "reaches beyond its storage");
    REFUSE(t, "}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(" STORAGE "K\3K\2\x85K\1\x85\x89NtRs.", "reaches beyond its storage");
    REFUSE(t, "}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(" STORAGE "K\0K\2\x85K\4\x85\x89NtRs.", "reaches beyond its storage");
    REFUSE(t, "}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(" STORAGE "K\0K\2K\2\x86K\1\x85\x89NtRs.", "more sizes than strides");
    REFUSE(t, "}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(" STORAGE "K\0(K\1K\1K\1K\1K\1K\1K\1t(K\1K\1K\1K\1K\1K\1K\1t\x89NtRs.", "7 dimensions");
    REFUSE(t, "}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(" STORAGE "K\0K\2J\xff\xff\xff\xff\x86K\1K\1\x86\x89NtRs.", "no list of numbers");
    REFUSE(t, "}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(" STORAGE "K\0\x8a\x08\0\0\0\0\0\0\0\x7f\x8a\x08\0\0\0\0\0\0\0\x7f\x86K\1K\1\x86\x89NtRs.", "63 bits");
    REFUSE(t, "}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(" STORAGE "K\0K\4\x85\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85\x89NtRs.", "strides lead out");
    REFUSE(t, "}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(NK\0)K\1\x85\x89NtRs.", "not made of a storage");
    REFUSE(t, "}X\1\0\0\0actorch._utils\n_rebuild_parameter\n(N\x89NtRs.", "a parameter that is no tensor");
    REFUSE(t, "}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" "7X\3\0\0\0cpuK\4tQK\0K\4\x85K\1\x85\x89NtRs.", "storage is not whole");
    REFUSE(t, "}(X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(" STORAGE "K\0K\4\x85K\1\x85\x89NtRX\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(" STORAGE "K\0K\4\x85K\1\x85\x89NtRu.",
           "two tensors of the name");
    REFUSE(t, "}X\1\0\0\0actorch._utils\n_rebuild_tensor_v3\n((X\7\0\0\0storagectorch.storage\nUntypedStorage\nX\1\0\0\0" "0X\3\0\0\0cpuK\x10tQK\0K\4\x85K\1\x85\x89NNtRs.", "dtype is none");
}

/* Lists of lists of lists, a million remembered values, a stack that only grows: refused, or read in proportion to the file. */
static void test_bombs(void **state) {
    ay_test *t = *state;
    size_t n = 5000000;
    char *p = ay_alloc(t->arena, n);
    memset(p, 'N', n);
    refuse(t, p, n, "more than 1048576 values");
    memset(p, '(', n);
    refuse(t, p, n, "more than 1048576 values");
    memset(p, ']', n);
    refuse(t, p, n, "more than 1048576 values");
    memset(p, '2', n), p[0] = 'N';
    refuse(t, p, n, "more than 1048576 values");
    for (size_t i = 0; i < n; i += 2) p[i] = ')', p[i + 1] = '0';
    refuse(t, p, n, "more than 1048576 values");
    /* "billion laughs": each list holds the one before ten times over; nothing walks it */
    ay_buf b = {0};
    ay_buf_printf(&b, "(]");
    for (int i = 0; i < 60; i++) ay_buf_printf(&b, "q%c0](hxhxhxhxhxhxhxhxhxhxe", 120);
    ay_buf_printf(&b, "1N.");
    refuse(t, b.data, b.len, "no dictionary of tensors");
    ay_buf_free(&b);
    /* deep: a hundred thousand tuples in each other */
    memset(p, 0x85, 200000), p[0] = 'N', p[200000] = '.';
    refuse(t, p, 200001, "no dictionary of tensors");
}

/* ---- archives ------------------------------------------------------------------------------------------------------------- */

static void refuse_file(ay_test *t, const void *bytes, size_t n, const char *words) {
    ay_safetensors *st;
    assert_int_not_equal(ay_torch_open_bytes(t->cx, "bad.pt", bytes, n, &st), ALLOY_OK);
    print_message("%s\n", ay_error_text(t->cx));
    assert_contains(ay_error_text(t->cx), words);
}

static void test_archives(void **state) {
    ay_test *t = *state;
    size_t n;
    ay_member other[] = {{"word/document.xml", "<a/>", 4}}, script[] = {{"a/data.pkl", "N.", 2}, {"a/constants.pkl", ").", 2}, {"a/code/a.py", "", 0}},
              big[] = {{"a/data.pkl", "N.", 2}, {"a/byteorder", "big", 3}};
    const void *z = ay_torch_zip(t, other, 1, false, &n);
    refuse_file(t, z, n, "no data.pkl");
    z = ay_torch_zip(t, script, 3, false, &n);
    refuse_file(t, z, n, "TorchScript");
    z = ay_torch_zip(t, big, 2, false, &n);
    refuse_file(t, z, n, "big-endian");
    refuse_file(t, "\x80\x02N.", 4, "no checkpoint that torch.save wrote");
    refuse_file(t, "PK\3\4", 4, "too short");
}

static void test_zip64(void **state) {
    ay_test *t = *state;
    static const char pickle[] = "}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(" STORAGE "K\1K\2\x85K\2\x85\x89NtRs.";
    static const float data[] = {1, 2, 3, 4};
    ay_member m[] = {{"a/data.pkl", pickle, sizeof pickle - 1}, {"a/data/0", data, 16}};
    size_t n;
    ay_safetensors *st;
    const void *z = ay_torch_zip(t, m, 2, true, &n);
    assert_ok(t->cx, ay_torch_open_bytes(t->cx, "wide.pt", z, n, &st));
    assert_int_equal(st->n, 1);
    assert_int_equal(st->tensors[0].bytes, 12);
    assert_memory_equal(ay_st_data(st, &st->tensors[0]), data + 1, 12);
    ay_st_close(&st);
}

/* Cut anywhere, or with any byte changed: a sentence, or tensors inside the file. */
static void test_damage(void **state) {
    ay_test *t = *state;
    static const char *const files[] = {"torch/zip.pt", "torch/before.pt"};
    uint64_t seed = 7;
    for (size_t f = 0; f < 2; f++) {
        size_t n;
        char *good = ay_test_read(t, ay_test_golden(t, files[f]), &n);
        for (size_t cut = 0; cut < n; cut += 7) {
            ay_safetensors *st;
            char *copy = ay_alloc(t->arena, cut + 1);
            memcpy(copy, good, cut);
            assert_int_not_equal(ay_torch_open_bytes(t->cx, "cut.pt", copy, cut, &st), ALLOY_OK);
            assert_contains(ay_error_text(t->cx), "cut.pt: ");
        }
        for (int k = 0; k < 2000; k++) {
            ay_safetensors *st;
            size_t at = ay_test_random(&seed) % n;
            char was = good[at];
            good[at] = (char)ay_test_random(&seed);
            if (ay_torch_open_bytes(t->cx, "changed.pt", good, n, &st) == ALLOY_OK) {
                for (int i = 0; i < st->n; i++) assert_true(st->tensors[i].offset + st->tensors[i].bytes <= n);
                ay_st_close(&st);
            }
            good[at] = was;
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        AY_TEST(test_what_torch_wrote), AY_TEST(test_code_is_refused), AY_TEST(test_broken_pickles), AY_TEST(test_broken_tensors),
        AY_TEST(test_bombs),            AY_TEST(test_archives),        AY_TEST(test_zip64),          AY_TEST(test_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
