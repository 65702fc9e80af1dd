/* SPDX-License-Identifier: MIT
 *
 * alloy convert SOURCE: a checkpoint to a model folder.
 */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

int cmd_convert(int argc, char **argv) {
    app a = {0};
    alloy_convert_options o;
    alloy_convert_options_init(&o);
    bool help = false;
    const char *size = NULL, *limit = NULL;
    const option options[] = {
        {"--help", "-h", OPTION_FLAG, &help, NULL, "this text", 0},
        {"--output-dir", "-o", OPTION_TEXT, &o.output_dir, "DIR", "where the model folder goes (default: converted)", 0},
        {"--name", NULL, OPTION_TEXT, &o.name, "NAME", "name of the model folder (default: the source's)", 0},
        {"--quantization", NULL, OPTION_TEXT, &o.quantization, "KIND", "float16 (default), float32, int8 or int4", 0},
        {"--palette", NULL, OPTION_INT, &o.palette, "BITS", "instead: palettes of 4, 6 or 8 bits", 4},
        {"--size-limit", NULL, OPTION_TEXT, &limit, "SIZE", "such as 7GB: more bits where they help most, up to that size", 0},
        {"--base", NULL, OPTION_TEXT, &o.base, "FOLDER", "for a checkpoint of one file: the diffusers folder that has what it lacks", 0},
        {"--type", NULL, OPTION_TEXT, &o.type, "T", "insist on this model type; it is detected otherwise", 0},
        {"--target", NULL, OPTION_TEXT, &o.target, "T", "macos14 or macos15 (default: macos15 for int4, else macos14)", 0},
        {"--width", NULL, OPTION_INT, &o.image_size.width, "W", "pixels (default: the model's own); run can make other sizes", 1},
        {"--height", NULL, OPTION_INT, &o.image_size.height, "H", "pixels", 1},
        {"--size", NULL, OPTION_TEXT, &size, "WxH", "both at once", 0},
        {"--text-length", NULL, OPTION_INT, &o.text_length, "N", "tokens of the long text encoder (default: the model's own)", 1},
        {"--components", NULL, OPTION_TEXT, &o.components, "LIST", "only these packages, by name, with commas between", 0},
        {"--force", "-f", OPTION_FLAG, &o.force, NULL, "replace a model folder that exists", 0},
        {"--skip-validation", NULL, OPTION_FLAG, &o.skip_validation, NULL, "do not check the packages after writing them", 0},
        COMMON_OPTIONS(a),
    };
    const char *source[1];
    int n, bad = cli_parse("convert", argc, argv, options, source, 1, &n);
    if (bad) return bad;
    if (help) {
        cli_help("convert", "SOURCE [OPTIONS]", "Converts a checkpoint, a diffusers folder or one file, to Core ML packages in DIR/NAME/.", options);
        return 0;
    }
    if (n != 1) {
        cli_say("alloy convert: say which checkpoint: alloy convert FOLDER, or alloy convert FILE --base FOLDER");
        return 2;
    }
    if (size && (o.image_size.width || o.image_size.height)) {
        cli_say("alloy convert: --size says width and height already; leave --width and --height out");
        return 2;
    }
    if (size && !parse_size(size, &o.image_size)) {
        cli_say("alloy convert: --size wants WIDTHxHEIGHT, such as 512x768, not \"%s\"", size);
        return 2;
    }
    if (limit && !cli_parse_bytes(limit, &o.size_limit)) {
        fprintf(stderr, "alloy convert: --size-limit wants a size, such as 7GB or 900MB, not \"%s\"\n", limit);
        return 2;
    }
    if (cli_open(&a)) return 1;
    char *report = NULL;
    if (a.json) o.report = &report;
    alloy_status st = alloy_convert(a.ctx, source[0], &o);
    cli_clear();
    if (report) printf("%s\n", report);
    alloy_free(report);
    return cli_end(&a, st);
}
