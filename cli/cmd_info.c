/* SPDX-License-Identifier: MIT
 *
 * alloy info PATH and alloy list-models: the library's JSON, or the same as text.
 */
#include "cli.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const char *text_of(const json_t *j, const char *key) {
    const char *s = json_string_value(json_object_get(j, key));
    return s ? s : "";
}

static void print_shape(const json_t *tensor) {
    const json_t *shape = json_object_get(tensor, "shape"), *d;
    size_t i;
    printf("%s[", text_of(tensor, "dtype"));
    json_array_foreach(shape, i, d) printf(i ? ", %lld" : "%lld", (long long)json_integer_value(d));
    printf("]");
}

static void print_bytes(const char *indent, const json_t *by_dtype) {
    const char *dtype;
    json_t *v;
    char b[32];
    printf("%sbytes:", indent);
    json_object_foreach((json_t *)by_dtype, dtype, v) printf(" %s %s;", dtype, cli_bytes((double)json_integer_value(v), b));
    printf("\n");
}

static void print_package(const json_t *j, const char *indent) {
    size_t i, k;
    json_t *f, *t;
    printf("%s%s%s%s, specification %lld, %s, %.3g M parameters, %lld ops\n", indent, text_of(j, "name"), *text_of(j, "name") ? ": " : "",
           *text_of(j, "class") ? text_of(j, "class") : text_of(j, "path"), (long long)json_integer_value(json_object_get(j, "specification_version")),
           text_of(j, "opset"), (double)json_integer_value(json_object_get(j, "parameters")) / 1e6,
           (long long)json_integer_value(json_object_get(j, "ops")));
    json_array_foreach(json_object_get(j, "functions"), i, f) {
        if (json_array_size(json_object_get(j, "functions")) > 1) printf("%s  function %s\n", indent, text_of(f, "name"));
        json_array_foreach(json_object_get(f, "inputs"), k, t) {
            printf("%s  in   %-24s ", indent, text_of(t, "name"));
            print_shape(t);
            printf("\n");
        }
        json_array_foreach(json_object_get(f, "outputs"), k, t) {
            printf("%s  out  %-24s ", indent, text_of(t, "name"));
            print_shape(t);
            printf("\n");
        }
    }
    char spaces[32];
    snprintf(spaces, sizeof spaces, "%s  ", indent);
    print_bytes(spaces, json_object_get(j, "bytes_by_dtype"));
}

static void print_model_line(const json_t *j) {
    char b[32];
    printf("%s (%s, %s, %s), %lldx%lld, %.3g M parameters, %s\n", text_of(j, "path"), text_of(j, "type"), text_of(j, "quantization"),
           text_of(j, "target"), (long long)json_integer_value(json_object_get(j, "width")), (long long)json_integer_value(json_object_get(j, "height")),
           (double)json_integer_value(json_object_get(j, "parameters")) / 1e6, cli_bytes((double)json_integer_value(json_object_get(j, "bytes")), b));
}

static void print_model(const json_t *j) {
    size_t i;
    json_t *c;
    print_model_line(j);
    json_array_foreach(json_object_get(j, "components"), i, c) print_package(c, "  ");
}

static void print_components(const json_t *components) {
    size_t i;
    json_t *c;
    char b[32];
    json_array_foreach(components, i, c) {
        printf("  %-16s %-28s %10.3f M parameters  %-10s %s\n", text_of(c, "folder"), text_of(c, "class"),
               (double)json_integer_value(json_object_get(c, "parameters")) / 1e6, cli_bytes((double)json_integer_value(json_object_get(c, "bytes")), b),
               text_of(c, "naming"));
    }
}

static void print_checkpoint(const json_t *j) {
    printf("%s: checkpoint, %s (%s)\n", text_of(j, "path"), text_of(j, "pipeline"), text_of(j, "type"));
    print_components(json_object_get(j, "components"));
}

static void print_tensors(const json_t *j) {
    size_t i;
    json_t *t;
    printf("%s: %s, %zu tensors, %.3f M parameters\n", text_of(j, "path"), text_of(j, "kind"), json_array_size(json_object_get(j, "tensors")),
           (double)json_integer_value(json_object_get(j, "parameters")) / 1e6);
    print_bytes("  ", json_object_get(j, "bytes_by_dtype"));
    if (*text_of(j, "pipeline")) printf("  checkpoint of one file, %s (%s)\n", text_of(j, "pipeline"), text_of(j, "type"));
    print_components(json_object_get(j, "components"));
    json_array_foreach(json_object_get(j, "tensors"), i, t) {
        printf("  %s ", text_of(t, "name"));
        print_shape(t);
        printf("\n");
    }
}

static void print_picture(const json_t *j) {
    const char *key;
    json_t *v;
    printf("%s: picture, %lldx%lld\n", text_of(j, "path"), (long long)json_integer_value(json_object_get(j, "width")),
           (long long)json_integer_value(json_object_get(j, "height")));
    json_object_foreach(json_object_get(j, "text"), key, v) printf("%s:\n%s\n", key, json_string_value(v));
}

typedef struct kind_row {
    const char *kind;
    void (*print)(const json_t *j);
} kind_row;

static void print_one_package(const json_t *j) { print_package(j, ""); }

static const kind_row kinds[] = {
    {"model", print_model}, {"package", print_one_package}, {"checkpoint", print_checkpoint}, {"safetensors", print_tensors}, {"pytorch", print_tensors}, {"gguf", print_tensors}, {"picture", print_picture},
};

int cmd_info(int argc, char **argv) {
    app a = {0};
    bool help = false;
    const option options[] = {
        {"--help", "-h", OPTION_FLAG, &help, NULL, "this text", 0},
        COMMON_OPTIONS(a),
    };
    const char *path[1];
    int n, bad = cli_parse("info", argc, argv, options, path, 1, &n);
    if (bad) return bad;
    if (help) {
        cli_help("info", "PATH [OPTIONS]", "Says what a checkpoint (folder or file), package, model folder or picture is.", options);
        return 0;
    }
    if (n != 1) {
        cli_say("alloy info: say of what: alloy info PATH");
        return 2;
    }
    if (cli_open(&a)) return 1;
    char *text = NULL;
    alloy_status st = alloy_info(a.ctx, path[0], &text);
    cli_clear();
    if (text && a.json) printf("%s\n", text);
    json_t *j = text && !a.json ? json_loads(text, 0, NULL) : NULL;
    for (size_t i = 0; j && i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(kinds[i].kind, text_of(j, "kind")) == 0) kinds[i].print(j);
    }
    json_decref(j);
    alloy_free(text);
    return cli_end(&a, st);
}

int cmd_list_models(int argc, char **argv) {
    app a = {0};
    bool help = false;
    const char *dir = ".";
    const option options[] = {
        {"--help", "-h", OPTION_FLAG, &help, NULL, "this text", 0},
        {"--dir", NULL, OPTION_TEXT, &dir, "DIR", "where to look, three folders deep (default: here)", 0},
        COMMON_OPTIONS(a),
    };
    int n, bad = cli_parse("list-models", argc, argv, options, NULL, 0, &n);
    if (bad) return bad;
    if (help) {
        cli_help("list-models", "[OPTIONS]", "Lists the models that \"alloy convert\" wrote.", options);
        return 0;
    }
    if (cli_open(&a)) return 1;
    char *text = NULL;
    alloy_status st = alloy_list_models(a.ctx, dir, &text);
    cli_clear();
    if (text && a.json) printf("%s\n", text);
    json_t *list = text && !a.json ? json_loads(text, 0, NULL) : NULL, *j;
    size_t i;
    json_array_foreach(list, i, j) print_model_line(j);
    if (list && !json_array_size(list) && !a.quiet) fprintf(stderr, "no models below %s\n", dir);
    json_decref(list);
    alloy_free(text);
    return cli_end(&a, st);
}
