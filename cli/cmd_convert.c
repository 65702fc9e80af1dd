/* SPDX-License-Identifier: MIT
 *
 * alloy convert SOURCE: a checkpoint to a model folder.
 */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "512x768" */
static bool parse_size(const char *text, alloy_size *s) {
    char *end;
    if (text[strspn(text, "0123456789x")]) return false; /* strtol would skip spaces and take signs */
    long w = strtol(text, &end, 10);
    if (end == text || *end != 'x') return false;
    const char *rest = end + 1;
    long h = strtol(rest, &end, 10);
    if (end == rest || *end || w < 1 || h < 1 || w > 1 << 20 || h > 1 << 20) return false;
    *s = (alloy_size){(int)w, (int)h};
    return true;
}

/* The number behind the last colon of text[0..n), which is then cut off; false: there is none. */
static bool strength_behind(const char *text, size_t *n, double *value) {
    size_t at = *n;
    while (at > 0 && text[at - 1] != ':') at--;
    char number[64], *end;
    if (at < 2 || *n - at < 1 || *n - at >= sizeof number) return false;
    memcpy(number, text + at, *n - at);
    number[*n - at] = 0;
    if (number[strspn(number, "+-0123456789.eE")]) return false; /* strtod would take more: spaces, words, hexadecimal */
    *value = strtod(number, &end);
    if (end == number || *end) return false;
    *n = at - 1;
    return true;
}

/* FILE, FILE:STRENGTH or FILE:STRENGTH:TEXT_STRENGTH; `path` takes the file's name. A name may have colons of its own, where what
 * is behind them is no number. */
static bool parse_lora(const char *text, alloy_lora *l) {
    size_t n = strlen(text);
    double last, first;
    *l = (alloy_lora){.strength = 1, .text_strength = 1};
    if (access(text, F_OK) != 0 && strength_behind(text, &n, &last)) {
        l->strength = l->text_strength = last;
        if (strength_behind(text, &n, &first)) l->strength = first;
    }
    char *path = n ? malloc(n + 1) : NULL;
    if (path) memcpy(path, text, n), path[n] = 0;
    l->path = path;
    return path != NULL;
}

static bool parse_loras(const option_list *list, alloy_lora *loras) {
    for (int i = 0; i < list->n; i++) {
        if (parse_lora(list->texts[i], &loras[i])) continue;
        cli_say("alloy convert: --lora wants FILE[:STRENGTH[:TEXT_STRENGTH]], not \"%s\"", list->texts[i]);
        return false;
    }
    return true;
}

int cmd_convert(int argc, char **argv) {
    app a = {0};
    alloy_convert_options o;
    alloy_convert_options_init(&o);
    bool help = false;
    const char *limit = NULL, *most = NULL;
    option_list size = {.n = 0};
    alloy_size sizes[sizeof size.texts / sizeof size.texts[0]];
    option_list lora = {.n = 0};
    alloy_lora loras[sizeof lora.texts / sizeof lora.texts[0]] = {{0}};
    const option options[] = {
        {"--help", "-h", OPTION_FLAG, &help, NULL, "this text", 0},
        {"--output-dir", "-o", OPTION_TEXT, &o.output_dir, "DIR", "where the model folder goes (default: converted)", 0},
        {"--name", NULL, OPTION_TEXT, &o.name, "NAME", "name of the model folder (default: the source's)", 0},
        {"--quantization", NULL, OPTION_TEXT, &o.quantization, "KIND", "float16 (default), float32, int8 or int4", 0},
        {"--palette", NULL, OPTION_INT, &o.palette, "BITS", "instead: palettes of 4, 6 or 8 bits", 1},
        {"--size-limit", NULL, OPTION_TEXT, &limit, "SIZE", "such as 7GB: more bits where they help most, up to that size", 0},
        {"--max-package-size", NULL, OPTION_TEXT, &most, "SIZE", "such as 1GB: components that are larger become chains of packages", 0},
        {"--base", NULL, OPTION_TEXT, &o.base, "FOLDER", "for a checkpoint of one file: the diffusers folder that has what it lacks", 0},
        {"--type", NULL, OPTION_TEXT, &o.type, "T", "insist on this model type, or choose it where a file holds two; it is detected otherwise", 0},
        {"--prediction-type", NULL, OPTION_TEXT, &o.prediction_type, "T", "epsilon, v_prediction or sample, where the scheduler's settings say another", 0},
        {"--target", NULL, OPTION_TEXT, &o.target, "T", "macos14 or macos15 (default: macos15 for int4 and for several sizes, else macos14)", 0},
        {"--width", NULL, OPTION_INT, &o.image_size.width, "W", "pixels (default: the model's own); run can make other sizes", 1},
        {"--height", NULL, OPTION_INT, &o.image_size.height, "H", "pixels", 1},
        {"--size", NULL, OPTION_LIST, &size, "WxH", "both at once; repeated: one package for all these sizes (macOS 15), the first is the default", 0},
        {"--text-length", NULL, OPTION_INT, &o.text_length, "N", "tokens of the long text encoder (default: the model's own)", 1},
        {"--lora", NULL, OPTION_LIST, &lora, "FILE[:X[:Y]]", "bake a LoRA in, at strength X (text encoders: Y); may be repeated", 0},
        {"--attention", NULL, OPTION_TEXT, &o.attention, "KIND", "plain (default) or split-einsum: a UNet in the Neural Engine's layout", 0},
        {"--controlnet", NULL, OPTION_FLAG, &o.controlnet, NULL, "the denoiser's package takes a ControlNet's results (run needs this nowhere)", 0},
        {"--components", NULL, OPTION_TEXT, &o.components, "LIST", "only these packages, by name, with commas between", 0},
        {"--force", "-f", OPTION_FLAG, &o.force, NULL, "replace a model folder that exists", 0},
        {"--skip-validation", NULL, OPTION_FLAG, &o.skip_validation, NULL, "do not check the packages after writing them", 0},
        COMMON_OPTIONS(a),
    };
    const char *source[1];
    int n, bad = cli_parse("convert", argc, argv, options, source, 1, &n);
    if (bad) return bad;
    if (help) {
        cli_help("convert", "SOURCE [OPTIONS]", "Converts a checkpoint, a diffusers folder or one file, to Core ML packages in DIR/NAME/. Work in progress is in\n"
                 "DIR/NAME.partial/; after Ctrl-C or a kill the same command goes on after the last whole tensor.", options);
        return 0;
    }
    if (n != 1) {
        cli_say("alloy convert: say which checkpoint: alloy convert FOLDER, or alloy convert FILE --base FOLDER");
        return 2;
    }
    if (size.n && (o.image_size.width || o.image_size.height)) {
        cli_say("alloy convert: --size says width and height already; leave --width and --height out");
        return 2;
    }
    for (int i = 0; i < size.n; i++) {
        if (parse_size(size.texts[i], &sizes[i])) continue;
        cli_say("alloy convert: --size wants WIDTHxHEIGHT, such as 512x768, not \"%s\"", size.texts[i]);
        return 2;
    }
    o.sizes = sizes;
    o.num_sizes = size.n;
    if (limit && !cli_parse_bytes(limit, &o.size_limit)) {
        fprintf(stderr, "alloy convert: --size-limit wants a size, such as 7GB or 900MB, not \"%s\"\n", limit);
        return 2;
    }
    if (most && !cli_parse_bytes(most, &o.max_package_size)) {
        cli_say("alloy convert: --max-package-size wants a size, such as 1GB or 900MB, not \"%s\"", most);
        return 2;
    }
    if (!parse_loras(&lora, loras)) return 2;
    o.loras = loras;
    o.num_loras = lora.n;
    if (cli_open(&a)) return 1;
    char *report = NULL;
    if (a.json) o.report = &report;
    alloy_status st = alloy_convert(a.ctx, source[0], &o);
    cli_clear();
    if (report) printf("%s\n", report);
    alloy_free(report);
    for (int i = 0; i < lora.n; i++) free((char *)(uintptr_t)loras[i].path);
    return cli_end(&a, st);
}
