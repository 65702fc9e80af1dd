/* SPDX-License-Identifier: MIT
 *
 * What is checked of every family of pipelines against its golden data: components' outputs, whole pictures.
 */
#include "flux_case.h"
#include "hashweights.h"
#include "pipe/pipe.h"

#include <math.h>
#include <string.h>

/* ---- components ------------------------------------------------------------------------------------------- */

static double relative(const float *got, const float *want, int64_t n) {
    double d = 0, w = 0;
    for (int64_t i = 0; i < n; i++) {
        d += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        w += (double)want[i] * want[i];
    }
    return isfinite(d) ? sqrt(d / w) : HUGE_VAL;
}

/* An input that is not stored: the hash of its name, at unit variance or so, as the reference scripts make it. */
static ay_tensor hashed_input(ay_test *t, const char *name, const ay_tensor *like) {
    ay_type type = like->type;
    type.dtype = AY_F32;
    int64_t n = ay_type_count(&type);
    const ay_gain gain = {"*", sqrt((double)type.dim[type.rank - 1])};
    float *values = ay_alloc(t->arena, (size_t)n * sizeof *values);
    assert_non_null(values);
    ay_hash_values(name, &type, &gain, 1, 0, n, values);
    return (ay_tensor){like->name, type, values};
}

/* Runs one component on the golden inputs; the largest relative L2 error of its outputs against `want` (or the golden
 * outputs when NULL), results in `got` (may be NULL). */
static double component_error(ay_test *t, ay_component *c, const ay_safetensors *io, const char *package, ay_tensor *got,
                              const ay_tensor *want) {
    int n_in, n_out;
    const ay_tensor *ins = ay_component_inputs(c, &n_in), *outs = ay_component_outputs(c, &n_out);
    ay_tensor in[8], out[4];
    double worst = 0;
    for (int i = 0; i < n_in; i++) {
        const char *name = ay_sprintf(t->arena, "%s.%s", package, ins[i].name);
        const ay_st_tensor *s = ay_st_find(io, name);
        in[i] = s ? (ay_tensor){ins[i].name, s->type, (void *)ay_st_data(io, s)} : hashed_input(t, name, &ins[i]);
    }
    for (int i = 0; i < n_out; i++) {
        out[i] = outs[i];
        out[i].type.dtype = AY_F32;
        out[i].data = ay_alloc(t->arena, ay_dtype_bytes(AY_F32, ay_type_count(&out[i].type)));
    }
    assert_ok(t->cx, ay_component_run(t->cx, c, in, n_in, out, n_out));
    for (int i = 0; i < n_out; i++) {
        const ay_st_tensor *s = ay_st_find(io, ay_sprintf(t->arena, "%s.%s", package, outs[i].name));
        assert_non_null(s);
        assert_int_equal(ay_type_count(&s->type), ay_type_count(&out[i].type));
        double e = relative(out[i].data, want ? want[i].data : ay_st_data(io, s), ay_type_count(&s->type));
        if (e > worst) worst = e;
        if (got) got[i] = out[i];
    }
    return worst;
}

static int steps_of(const ay_component *c) {
    json_t *rows = ay_component_profile(c);
    int n = (int)json_array_size(rows);
    json_decref(rows);
    return n;
}

void ay_check_components(ay_test *t, const ay_flux_case *c, const char *quantization, const char *target, bool emulate,
                         double bound) {
    const char *dir = ay_flux_convert(t, c, quantization, target);
    ay_safetensors *io;
    ay_model *m;
    ay_exec_options exec = {.emulate_f16 = emulate};
    assert_ok(t->cx, ay_st_open(t->cx, ay_flux_golden(t, c, "io.safetensors"), &io));
    assert_ok(t->cx, ay_model_open(t->cx, dir, &m));
    for (int i = 0; i < m->n_parts; i++) {
        ay_component *own, *anew;
        ay_tensor got[4];
        const ay_model_part *part = &m->parts[i];
        const char *package = part->row->package;
        assert_ok(t->cx, ay_component_open(t->cx, m, package, &part->sizes, &exec, &own));
        assert_ok(t->cx, ay_component_rebuild(t->cx, m, package, &part->sizes, &exec, &anew));
        double e = component_error(t, own, io, package, got, NULL), same = component_error(t, anew, io, package, NULL, got);
        print_message("%s %-8s %s%s %-12s error %.2e, program against graph %.2e\n", c->name, quantization, target,
                      emulate ? " emulated" : "", package, e, same);
        assert_true(e <= bound);
        /* raised, the package's own program is the same steps; on top only what makes token ids count from the end */
        int extra = steps_of(own) - steps_of(anew);
        if (!emulate && (extra < -8 || extra > 8)) fail_msg("%s: %d steps more from the package's own program", package, extra);
        if (!emulate) assert_true(same <= (strcmp(quantization, "float32") == 0 ? 1e-5 : 1e-3));
        ay_component_close(&own);
        ay_component_close(&anew);
    }
    ay_model_close(&m);
    ay_st_close(&io);
}

void ay_hash_louder(ay_test *t, const ay_flux_case *c, const char *checkpoint, const char *part, const char *const *patterns, double gain) {
    const char *from = ay_flux_golden(t, c, ay_sprintf(t->arena, "%s/manifest.txt", part)), *manifest = ay_test_path(t, "louder.txt");
    ay_buf text = {0}, old = {0};
    for (; *patterns; patterns++) ay_buf_printf(&text, "@gain %s %g\n", *patterns, gain);
    assert_ok(t->cx, ay_file_read(t->cx, from, 1 << 20, &old));
    ay_buf_printf(&text, "%.*s", (int)old.len, old.data);
    assert_ok(t->cx, ay_file_write(t->cx, manifest, text.data, text.len));
    assert_ok(t->cx, ay_hash_write(t->cx, manifest, ay_sprintf(t->arena, "%s/%s/diffusion_pytorch_model.safetensors", checkpoint, part)));
    ay_buf_free(&old);
    ay_buf_free(&text);
}

static int64_t overflows(ay_test *t, ay_component *c) {
    ay_tensor in[8], out[4];
    int n_in, n_out;
    const ay_tensor *ins = ay_component_inputs(c, &n_in), *outs = ay_component_outputs(c, &n_out);
    for (int i = 0; i < n_in; i++) in[i] = hashed_input(t, ins[i].name, &ins[i]);
    for (int i = 0; i < n_out; i++) {
        out[i] = outs[i];
        out[i].type.dtype = AY_F32;
        out[i].data = ay_alloc(t->arena, ay_dtype_bytes(AY_F32, ay_type_count(&out[i].type)));
    }
    assert_ok(t->cx, ay_component_run(t->cx, c, in, n_in, out, n_out));
    return ay_component_overflows(c);
}

void ay_check_overflows(ay_test *t, const char *checkpoint, const char *package, const ay_keep_rule *rules) {
    alloy_convert_options o;
    ay_exec_options exec = {.emulate_f16 = true};
    ay_component *own, *other;
    ay_model *m;
    alloy_convert_options_init(&o);
    o.output_dir = ay_test_path(t, "loud");
    o.name = "model";
    o.image_size = (alloy_size){32, 32};
    o.components = package;
    assert_ok(t->cx, alloy_convert(t->cx, checkpoint, &o));
    assert_ok(t->cx, ay_model_open(t->cx, ay_test_join(t, o.output_dir, o.name), &m));
    ay_model_part *part = (ay_model_part *)ay_model_find(m, package);
    ay_arch arch = *part->arch;
    arch.keep = rules;
    assert_ok(t->cx, ay_component_open(t->cx, m, package, &part->sizes, &exec, &own));
    part->arch = &arch;
    part->upcast = false;
    assert_ok(t->cx, ay_component_rebuild(t->cx, m, package, &part->sizes, &exec, &other));
    int64_t by_rules = overflows(t, own), without = overflows(t, other);
    print_message("%s: %lld values left half's range, %lld without its rules\n", package, (long long)by_rules, (long long)without);
    assert_int_equal(by_rules, 0);
    assert_true(without > 0);
    ay_component_close(&own);
    ay_component_close(&other);
    ay_model_close(&m);
}

/* ---- pictures ------------------------------------------------------------------------------------------------ */

double ay_image_psnr(const ay_image *a, const ay_image *b) {
    double sum = 0;
    size_t n = (size_t)a->width * (size_t)a->height * 3;
    assert_int_equal(a->width, b->width);
    assert_int_equal(a->height, b->height);
    assert_int_equal(a->channels, 3);
    assert_int_equal(b->channels, 3);
    for (size_t i = 0; i < n; i++) {
        double d = (double)a->pixels[i] - b->pixels[i];
        sum += d * d;
    }
    return sum > 0 ? 10 * log10(255.0 * 255.0 / (sum / (double)n)) : 200;
}

void ay_check_read_rgb(ay_test *t, const char *path, ay_image *im) {
    assert_ok(t->cx, ay_image_read(t->cx, path, 1 << 24, im));
    if (im->channels == 3) return;
    assert_int_equal(im->channels, 4);
    for (int64_t i = 0; i < (int64_t)im->width * im->height; i++) memmove(im->pixels + 3 * i, im->pixels + 4 * i, 3);
    im->channels = 3;
}

void ay_check_run_options(const json_t *p, const char *output, alloy_run_options *o) {
    alloy_run_options_init(o);
    o->prompt = json_string_value(json_object_get(p, "prompt"));
    o->negative_prompt = json_string_value(json_object_get(p, "negative_prompt"));
    o->seed = (uint64_t)ay_flux_number(p, "seed");
    o->steps = ay_flux_number(p, "steps");
    o->guidance_scale = json_number_value(json_object_get(p, "guidance_scale"));
    o->image_size = (alloy_size){ay_flux_number(p, "width"), ay_flux_number(p, "height")};
    o->output = output;
}

/* The picture that `o` asks for against `want`. */
double ay_check_psnr(ay_test *t, const char *model, const alloy_run_options *o, const ay_image *want) {
    ay_image im;
    assert_ok(t->cx, alloy_run(t->cx, model, o));
    ay_check_read_rgb(t, o->output, &im);
    double v = ay_image_psnr(&im, want);
    ay_image_free(&im);
    return v;
}

void ay_check_pictures(ay_test *t, const ay_flux_case *c, const char *quantization, const char *emulate, double bound) {
    const char *dir = ay_flux_convert(t, c, quantization, "macos14"), *out = ay_test_path(t, "picture.png");
    json_t *j = ay_flux_pictures(t, c), *p;
    size_t i;
    json_array_foreach(json_object_get(j, "pictures"), i, p) {
        alloy_run_options o;
        ay_image want;
        ay_check_run_options(p, out, &o);
        o.emulate = emulate;
        ay_check_read_rgb(t, ay_flux_golden(t, c, json_string_value(json_object_get(p, "file"))), &want);
        double v = ay_check_psnr(t, dir, &o, &want);
        print_message("%s %s%s %dx%d: PSNR %.1f dB\n", c->name, quantization, emulate ? " emulated" : "", o.image_size.width,
                      o.image_size.height, v);
        assert_true(v >= bound);
        ay_image_free(&want);
    }
    json_decref(j);
}
