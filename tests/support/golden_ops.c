/* SPDX-License-Identifier: MIT
 *
 * See golden_ops.h. Attributes are given as key=value words; one table says where each key goes.
 */
#include "golden_ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void confused(const golden *c, const char *word) {
    fprintf(stderr, "%s, case %d: cannot read \"%s\"\n", GOLDEN_OPS, c->number, word);
    exit(1);
}

static int numbers(const char *s, int64_t *out, int most) {
    int n = 0;
    while (*s && *s != ']' && n < most) {
        char *end;
        out[n++] = strtoll(s, &end, 10);
        if (end == s) return -1;
        s = *end == ',' ? end + 1 : end;
    }
    return n;
}

static void ints(const char *s, int *out, int *count) {
    int64_t v[AY_MAX_RANK];
    int n = numbers(s, v, AY_MAX_RANK);
    for (int i = 0; i < n; i++) out[i] = (int)v[i];
    if (count) *count = n;
}

static int one_of(const golden *c, const char *value, const char *const *names) {
    for (int i = 0; names[i]; i++) {
        if (strcmp(names[i], value) == 0) return i;
    }
    confused(c, value);
    return 0;
}

/* Where the key goes depends on the op, since ay_attr is a union. */
static void attribute(golden *c, const char *key, const char *value) {
    static const char *const pads[] = {"constant", "reflect", "replicate", NULL}, *const gelus[] = {"exact", "tanh",
                                                                                                    "sigmoid", NULL};
    ay_attr *a = &c->attr;
    int64_t *before = NULL, *after = NULL, *stride = NULL;
    bool flag = atoi(value) != 0, norm = c->op == AY_OP_LAYER_NORM || c->op == AY_OP_RMS_NORM || c->op == AY_OP_GROUP_NORM;
    if (c->op == AY_OP_POOL) before = a->pool.before, after = a->pool.after, stride = a->pool.stride;
    else if (c->op == AY_OP_PAD) before = a->pad.before, after = a->pad.after;
    else if (c->op == AY_OP_SLICE) stride = a->slice.stride;
    else before = a->conv.before, after = a->conv.after, stride = a->conv.stride;
#define KEY(k) else if (strcmp(key, k) == 0)
    if (0) return;
    KEY("want") c->want.rank = numbers(value, c->want.dim, AY_MAX_RANK);
    KEY("to") c->want = (ay_type){.dtype = *value == 'i' ? AY_I32 : *value == 'b' ? AY_BOOL : AY_F32};
    KEY("axes") norm ? ints(value, a->norm.axes, &a->norm.n) : ints(value, a->reduce.axes, &a->reduce.n);
    KEY("keep") a->reduce.keep = flag;
    KEY("largest") *(c->op == AY_OP_TOPK ? &a->topk.largest : &a->reduce.largest) = flag;
    KEY("indices") a->topk.indices = flag;
    KEY("k") a->topk.k = atoi(value);
    KEY("exclusive") a->scan.exclusive = flag;
    KEY("reverse") a->scan.reverse = flag;
    KEY("perm") ints(value, a->permute.perm, NULL);
    KEY("begin") numbers(value, a->slice.begin, AY_MAX_RANK);
    KEY("stride") numbers(value, stride, AY_MAX_RANK);
    KEY("before") numbers(value, before, AY_MAX_RANK);
    KEY("after") numbers(value, after, AY_MAX_RANK);
    KEY("dilation") numbers(value, a->conv.dilation, 3);
    KEY("kernel") numbers(value, a->pool.kernel, 3);
    KEY("groups") *(norm ? &a->norm.groups : &a->conv.groups) = atoi(value);
    KEY("average") a->pool.average = flag;
    KEY("count_padding") a->pool.count_padding = flag;
    KEY("mode") a->pad.mode = (ay_pad_mode)one_of(c, value, pads);
    KEY("value") a->pad.value = atof(value);
    KEY("ta") a->matmul.ta = flag;
    KEY("tb") a->matmul.tb = flag;
    KEY("batch_dims") a->gather.batch_dims = atoi(value);
    KEY("eps") a->norm.eps = atof(value);
    KEY("gelu") a->gelu.mode = (ay_gelu_mode)one_of(c, value, gelus);
    KEY("interleaved") a->rope.interleaved = flag;
    KEY("scale") a->sdpa.scale = atof(value);
    KEY("fh") a->upsample.fh = atoi(value);
    KEY("fw") a->upsample.fw = atoi(value);
    KEY("bilinear") a->upsample.bilinear = flag;
    KEY("align_corners") a->upsample.align_corners = flag;
    KEY("half_pixel") a->upsample.half_pixel = flag;
    KEY("axis") *(c->op == AY_OP_CUMSUM ? &a->scan.axis : c->op == AY_OP_TOPK ? &a->topk.axis
                  : c->op == AY_OP_GATHER || c->op == AY_OP_GATHER_ALONG ? &a->gather.axis : &a->axis) = atoi(value);
    else confused(c, key);
#undef KEY
}

static uint64_t word_at(int number, int which, int64_t i) {
    uint64_t z = ((uint64_t)i + (uint64_t)number * 1000003 + (uint64_t)which * 8191 + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* "f32[2,3]", "pos[4]", "i32:-2:5[7]", "bool[2,2]" */
static void input(golden *c, const char *spec) {
    static const char *const names[] = {"0", "1", "2", "3", "4"};
    const char *shape = strchr(spec, '[');
    if (!shape || c->n_in == 5) confused(c, spec);
    ay_tensor *t = &c->in[c->n_in];
    t->name = names[c->n_in];
    t->type = (ay_type){.dtype = *spec == 'i' ? AY_I32 : *spec == 'b' ? AY_BOOL : AY_F32};
    t->type.rank = numbers(shape + 1, t->type.dim, AY_MAX_RANK);
    int64_t count = ay_type_count(&t->type), range[2] = {0, 0};
    if (*spec == 'i') {
        char *end;
        range[0] = strtoll(spec + 4, &end, 10);
        range[1] = strtoll(end + 1, NULL, 10);
    }
    t->data = malloc((size_t)count * 4);
    for (int64_t i = 0; i < count; i++) {
        uint64_t w = word_at(c->number, c->n_in, i);
        if (*spec == 'i')
            ((int32_t *)t->data)[i] = (int32_t)(range[0] + (int64_t)((w >> 32) % (uint64_t)(range[1] - range[0] + 1)));
        else if (*spec == 'b') ((uint8_t *)t->data)[i] = (uint8_t)(w >> 63);
        else if (*spec == 'p') ((float *)t->data)[i] = ((float)(w >> 56) + 1) / 64;
        else ((float *)t->data)[i] = (float)(w >> 56) / 64 - 2;
    }
    c->n_in++;
}

static void output(golden *c, const char *spec, const char *words) {
    const char *shape = strchr(spec, '[');
    if (!shape) confused(c, spec);
    c->out.name = "y";
    c->out.type = (ay_type){.dtype = *spec == 'i' ? AY_I32 : *spec == 'b' ? AY_BOOL : AY_F32};
    c->out.type.rank = numbers(shape + 1, c->out.type.dim, AY_MAX_RANK);
    int64_t count = ay_type_count(&c->out.type);
    c->out.data = malloc((size_t)count * 4);
    while (*words == ' ') words++;
    for (int64_t i = 0; i < count; i++) {
        if (*spec == 'b') {
            ((uint8_t *)c->out.data)[i] = words[2 * i + 1] == '1';
        } else {
            char *end;
            ((uint32_t *)c->out.data)[i] = (uint32_t)strtoul(words, &end, 16);
            if (end == words) confused(c, "too few numbers");
            words = end;
        }
    }
}

bool golden_next(FILE *f, golden *c) {
    static char line[65536];
    int number = c->number + (c->out.data != NULL);
    if (!fgets(line, sizeof line, f)) return false;
    memset(c, 0, sizeof *c);
    c->number = number;
    c->want.rank = -1;
    char *words = strstr(line, " : ");
    if (!words) confused(c, "a line without numbers");
    *words = 0;
    char *save, *word = strtok_r(line, " ", &save);
    while (c->op < AY_OP_COUNT && strcmp(ay_op_get(c->op)->name, word) != 0) c->op++;
    if (c->op == AY_OP_COUNT) confused(c, word);
    while ((word = strtok_r(NULL, " ", &save))) {
        char *value = strchr(word, '=');
        if (!value) confused(c, word);
        *value++ = 0;
        if (strcmp(word, "in") == 0) input(c, value);
        else if (strcmp(word, "out") == 0) output(c, value, words + 3);
        else attribute(c, word, value);
    }
    return true;
}

void golden_free(golden *c) {
    for (int i = 0; i < c->n_in; i++) free(c->in[i].data);
    free(c->out.data);
    c->n_in = 0; /* out.data stays non-null as the sign that a case was read */
}

ay_graph *golden_graph(ay_ctx *cx, const golden *c) { return golden_graph_stored(cx, c, c->n_in); }

ay_graph *golden_graph_stored(ay_ctx *cx, const golden *c, int stored) {
    ay_graph *g = ay_graph_new(cx);
    ay_val in[5];
    for (int i = 0; i < c->n_in; i++) {
        in[i] = i < stored ? ay_input(g, c->in[i].name, c->in[i].type) : ay_const_data(g, c->in[i].type, c->in[i].data);
    }
    bool sized = c->want.rank >= 0 || c->want.dtype != AY_NONE;
    ay_set_output(g, "y", ay_node_add(g, c->op, in, c->n_in, &c->attr, sized ? &c->want : NULL));
    return g;
}

alloy_status golden_eval(const ay_graph *g, golden *c, void **got) {
    ay_tensor out = c->out;
    out.data = *got = malloc((size_t)ay_type_count(&c->out.type) * 4);
    int n_in = 0; /* those that the graph still has as inputs come first */
    for (int i = 0; i < g->n_nodes; i++) n_in += g->nodes[i].op == AY_OP_INPUT;
    return ay_eval(g, c->in, n_in, &out, 1, false, NULL);
}

bool golden_equal(const golden *c, const void *got, double tol) {
    int64_t count = ay_type_count(&c->out.type);
    for (int64_t i = 0; i < count; i++) {
        double a, b;
        if (c->out.type.dtype == AY_F32) a = ((const float *)got)[i], b = ((float *)c->out.data)[i];
        else if (c->out.type.dtype == AY_I32) a = ((const int32_t *)got)[i], b = ((int32_t *)c->out.data)[i];
        else a = ((const uint8_t *)got)[i], b = ((uint8_t *)c->out.data)[i];
        if (a == b || (isnan(a) && isnan(b))) continue;
        if (c->out.type.dtype == AY_F32 && fabs(a - b) <= tol * fmax(1, fabs(b))) continue;
        fprintf(stderr, "case %d, %s, element %lld: %.9g instead of %.9g\n", c->number, ay_op_get(c->op)->name, (long long)i,
                a, b);
        return false;
    }
    return true;
}
