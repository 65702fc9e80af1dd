/* SPDX-License-Identifier: MIT
 *
 * Checking a package: the manifest, the message itself, versions and description here; program, operations and values in the
 * other validate_*.c; and last, every function is read into a graph, whose inference checks each declared type.
 */
#include "coreml/validate.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* ---- findings ---------------------------------------------------------------------------------------------------- */

static void tell(ay_check *c, bool warning, const char *text) {
    int *count = warning ? &c->warnings : &c->errors;
    char line[900];
    ++*count;
    if (*count > AY_CHECK_MOST + 1) return;
    if (*count == AY_CHECK_MOST + 1) {
        c->line(c->user, warning, "there are more, which are counted but not told");
        return;
    }
    if (c->function && c->op_name)
        snprintf(line, sizeof line, "function %.60s, operation %.100s (%.60s): %s", c->function, c->op_name, c->op_type,
                 text);
    else if (c->function)
        snprintf(line, sizeof line, "function %.60s: %s", c->function, text);
    else
        snprintf(line, sizeof line, "%s", text);
    c->line(c->user, warning, line);
}

void ay_check_error(ay_check *c, const char *fmt, ...) {
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    tell(c, false, text);
}

void ay_check_warn(ay_check *c, const char *fmt, ...) {
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    tell(c, true, text);
}

/* ---- manifest ---------------------------------------------------------------------------------------------------- */

static const char *member(json_t *item, const char *key) {
    const char *s = json_string_value(json_object_get(item, key));
    return s ? s : "";
}

/* What ay_package_open let pass: author and name, which coremltools and the path rule depend on. */
static void check_manifest(ay_check *c, const char *path) {
    ay_buf text = {0};
    const char *file = ay_path_join(c->arena, path, "Manifest.json");
    json_error_t err;
    json_t *root = NULL, *item;
    const char *id;
    bool weights = false;
    if (file && ay_file_read(c->cx, file, 1 << 20, &text) == ALLOY_OK) root = json_loadb(text.data, text.len, 0, &err);
    const char *root_id = root ? member(root, "rootModelIdentifier") : "";
    json_object_foreach(json_object_get(root, "itemInfoEntries"), id, item) {
        const char *want = ay_sprintf(c->arena, "%s/%s", member(item, "author"), member(item, "name"));
        if (want && strcmp(want, member(item, "path")) != 0)
            ay_check_error(c, "Manifest.json: item %.60s has the path %.200s, expected author/name, %.200s", id,
                           member(item, "path"), want);
        if (strcmp(id, root_id) == 0 || strcmp(member(item, "name"), "weights") != 0) continue;
        weights = true;
        if (strcmp(member(item, "author"), "com.apple.CoreML") != 0)
            ay_check_warn(c,
                          "Manifest.json: the weights' author is %.100s; coremltools finds weights of com.apple.CoreML only",
                          member(item, "author"));
    }
    if (c->p->weights && !weights)
        ay_check_error(c,
                       "Manifest.json: no item called weights, but there is a weight file; a copied package would lose it");
    json_decref(root);
    ay_buf_free(&text);
}

/* ---- the message ------------------------------------------------------------------------------------------------- */

static bool utf8(const char *s) {
    for (const uint8_t *p = (const uint8_t *)s; *p;) {
        int n = *p < 0x80                          ? 0
                : (*p & 0xe0) == 0xc0 && *p > 0xc1 ? 1
                : (*p & 0xf0) == 0xe0              ? 2
                : (*p & 0xf8) == 0xf0 && *p < 0xf5 ? 3
                                                   : -1;
        uint8_t lead = *p++;
        if (n < 0) return false;
        if (n && ((lead == 0xe0 && *p < 0xa0) || (lead == 0xed && *p > 0x9f) || (lead == 0xf0 && *p < 0x90) ||
                  (lead == 0xf4 && *p > 0x8f)))
            return false;
        for (; n > 0; n--, p++)
            if ((*p & 0xc0) != 0x80) return false;
    }
    return true;
}

static void check_string(ay_check *c, const ProtobufCMessage *m, const char *field, const char *s) {
    if (s && !utf8(s))
        ay_check_error(c, "the model file has a text that is not UTF-8, in %s.%s; Core ML refuses the file",
                       m->descriptor->short_name, field);
}

static void check_message(ay_check *c, const ProtobufCMessage *m);

static void check_field(ay_check *c, const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f) {
    const char *at = (const char *)m + f->offset;
    bool text = f->type == PROTOBUF_C_TYPE_STRING, message = f->type == PROTOBUF_C_TYPE_MESSAGE;
    if (!text && !message) return;
    if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        uint32_t which;
        memcpy(&which, (const char *)m + f->quantifier_offset, sizeof which);
        if (which != f->id) return;
    }
    size_t n = 1;
    if (f->label == PROTOBUF_C_LABEL_REPEATED) {
        memcpy(&n, (const char *)m + f->quantifier_offset, sizeof n);
        const void *list;
        memcpy(&list, at, sizeof list);
        at = list;
    }
    for (size_t i = 0; i < n; i++) {
        const void *p;
        memcpy(&p, at + i * sizeof p, sizeof p);
        if (p && text)
            check_string(c, m, f->name, p);
        else if (p)
            check_message(c, p);
    }
}

/* Every message in turn; the schema has no cycle, so the depth is bounded. */
static void check_message(ay_check *c, const ProtobufCMessage *m) {
    if (m->n_unknown_fields)
        ay_check_warn(c, "%s has a field %u that is not known here; it was not checked", m->descriptor->short_name,
                      m->unknown_fields[0].tag);
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) check_field(c, m, &m->descriptor->fields[i]);
}

/* ---- versions ---------------------------------------------------------------------------------------------------- */

static void check_versions(ay_check *c) {
    const AyMil__Model *m = c->p->model;
    const AyMil__Program *prog = m->ml_program;
    if (m->is_updatable) ay_check_error(c, "the model says that it is updatable, which ML Programs are not");
    if (prog->doc_string[0]) ay_check_error(c, "the program has a docString, which loaders refuse");
    for (size_t i = 0; i < prog->n_attributes; i++)
        if (strcmp(prog->attributes[i]->key, "buildInfo") != 0)
            ay_check_error(c, "the program has an attribute %.60s; only buildInfo is known", prog->attributes[i]->key);
    if (prog->n_functions == 0) ay_check_error(c, "the program has no functions");
    for (size_t i = 0; i < prog->n_functions; i++) {
        const AyMil__Function *f = prog->functions[i]->value;
        int opset = f && strncmp(f->opset, "CoreML", 6) == 0 ? f->opset[6] - '0' : 0;
        if (!f || opset < 5 || opset > 9 || f->opset[7]) continue; /* told with the function */
        if (m->specification_version < opset + 1)
            ay_check_error(c, "function %.60s has opset %s, which needs specification version %d, found %d",
                           prog->functions[i]->key, f->opset, opset + 1, m->specification_version);
        else if (m->specification_version > opset + 1)
            ay_check_error(c, "function %.60s has opset %s, which goes with specification version %d, found %d",
                           prog->functions[i]->key, f->opset, opset + 1, m->specification_version);
        if (strcmp(f->opset, prog->functions[0]->value ? prog->functions[0]->value->opset : "") != 0)
            ay_check_error(c, "functions have different opsets; all must have the same");
    }
    if (c->p->weights_size > (size_t)INT32_MAX)
        ay_check_warn(
            c, "the weight file has %zu bytes; the Neural Engine takes at most 2 GiB per file, so this runs on GPU and CPU",
            c->p->weights_size);
}

/* ---- inference --------------------------------------------------------------------------------------------------- */

/* In a program whose inputs are fixed and that could be read, every shape is known: declaring it unknown is a mistake. */
static void check_unknown_dims(ay_check *c, const AyMil__Block *b) {
    for (size_t i = 0; i < b->n_operations; i++)
        for (size_t k = 0; k < b->operations[i]->n_outputs; k++) {
            const AyMil__NamedValueType *o = b->operations[i]->outputs[k];
            if (!o->type || o->type->type_case != AY_MIL__VALUE_TYPE__TYPE_TENSOR_TYPE) continue;
            const AyMil__TensorType *t = o->type->tensor_type;
            for (size_t d = 0; t && d < t->n_dimensions; d++)
                if (t->dimensions[d]->dimension_case == AY_MIL__DIMENSION__DIMENSION_UNKNOWN) {
                    ay_check_error(c, "value %.100s is declared with an unknown dimension %zu, which its inputs make known",
                                   o->name, d);
                    break;
                }
        }
}

static bool has_flexible_input(const AyMil__Function *f) {
    for (size_t i = 0; i < f->n_inputs; i++) {
        ay_type t;
        const AyMil__ValueType *v = f->inputs[i]->type;
        if (!v || v->type_case != AY_MIL__VALUE_TYPE__TYPE_TENSOR_TYPE || !ay_mil_type_get(v->tensor_type, &t)) return true;
    }
    return false;
}

static void check_inference(ay_check *c) {
    const AyMil__Program *prog = c->p->model->ml_program;
    for (size_t i = 0; i < prog->n_functions && !c->out_of_memory; i++) {
        const AyMil__Function *f;
        const AyMil__Block *b;
        const char *found;
        ay_graph *g = NULL;
        if (ay_package_function_find(c->p, prog->functions[i]->key, &f, &b, &found) != ALLOY_OK) continue; /* told before */
        c->function = found;
        alloy_status s = ay_package_graph(c->p, found, &g);
        if (s == ALLOY_E_NOMEM || s == ALLOY_E_CANCELLED)
            c->out_of_memory = true;
        else if (s == ALLOY_E_UNSUPPORTED)
            ay_check_warn(c, "types could not be inferred: %s", ay_error_text(c->cx));
        else if (s != ALLOY_OK)
            ay_check_error(c, "%s", ay_error_text(c->cx));
        else if (!has_flexible_input(f))
            check_unknown_dims(c, b);
        ay_graph_free(g);
    }
    c->function = NULL;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static alloy_status run(ay_check *c, const char *path) {
    alloy_status s = ay_package_open(c->cx, path, &c->p);
    if (s != ALLOY_OK) {
        if (s == ALLOY_E_NOMEM || (s == ALLOY_E_IO && ay_path_kind_of(path) == AY_PATH_NONE)) return s;
        ay_check_error(c, "%s", ay_error_text(c->cx));
        return ALLOY_OK;
    }
    check_manifest(c, path);
    check_message(c, &c->p->model->base);
    check_versions(c);
    ay_check_program(c);
    ay_check_blobs(c);
    check_inference(c);
    AY_TRY(ay_check_stop(c->cx)); /* what was stopped is no lack of memory */
    if (c->out_of_memory || ay_arena_failed(c->arena)) return ay_nomem(c->cx);
    return ALLOY_OK;
}

alloy_status ay_package_validate(ay_ctx *cx, const char *path, void (*line)(void *user, bool warning, const char *text),
                                 void *user, int *findings, int *warnings) {
    ay_check c = {.cx = cx, .line = line, .user = user, .arena = ay_arena_new()};
    if (!c.arena) return ay_nomem(cx);
    ay_names_init(&c.blobs, c.arena);
    alloy_status s = run(&c, path);
    *findings = c.errors;
    *warnings = c.warnings;
    if (c.p) ay_package_close(&c.p);
    ay_arena_free(c.arena);
    return s;
}
