/* SPDX-License-Identifier: MIT
 *
 * A tokenizer folder in one input: parts between bytes 0xf5 (which no UTF-8 has) are tokenizer_config.json, the vocabulary,
 * a second file and the text. The first byte says what the vocabulary is: tokenizer.json, spiece.model, or vocab.json with
 * the second file as merges.txt; else the second file is special_tokens_map.json or added_tokens.json.
 */
#include "token/tok.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CONFIG, VOCABULARY, SECOND, TEXT, PARTS };

static void cut(const char *s, size_t n, ay_token_file part[PARTS]) {
    for (int i = 0; i < PARTS; i++) {
        const char *end = i + 1 < PARTS && n ? memchr(s, 0xf5, n) : NULL;
        size_t k = end ? (size_t)(end - s) : n;
        part[i] = (ay_token_file){"part", n ? s : "", k};
        size_t used = end ? k + 1 : n;
        s += used;
        n -= used;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    static ay_ctx *cx;
    if (!cx && ay_ctx_open(1, &cx) != ALLOY_OK) return 0;
    ay_token_file part[PARTS], file[AY_TF_COUNT] = {0};
    cut((const char *)data + 1, size - 1, part);
    for (int i = 0; i < AY_TF_COUNT; i++) file[i].name = "file";
    static const ay_token_kind first[4] = {AY_TF_TOKENIZER, AY_TF_SPIECE, AY_TF_VOCAB, AY_TF_TOKENIZER};
    static const ay_token_kind second[4] = {AY_TF_SPECIAL, AY_TF_SPECIAL, AY_TF_MERGES, AY_TF_ADDED};
    if (part[CONFIG].size) file[AY_TF_CONFIG] = part[CONFIG];
    file[first[data[0] & 3]] = part[VOCABULARY];
    if (part[SECOND].size || (data[0] & 3) == 2) file[second[data[0] & 3]] = part[SECOND];
    ay_tokenizer *t;
    if (ay_tokenizer_open_files(cx, "folder", file, &t) != ALLOY_OK) {
        if (!ay_error_text(cx)[0]) abort(); /* a failure without its sentence */
        return 0;
    }
    ay_encode_options o = {.special = data[0] & 4, .max_length = data[0] & 8 ? 20 : 0, .pad = data[0] & 16};
    int32_t *ids = NULL, *mask = NULL;
    int count;
    if (ay_tokenizer_encode(cx, t, part[TEXT].data, part[TEXT].size, &o, &ids, &mask, &count) == ALLOY_OK)
        for (int i = 0; i < count; i++)
            if (ids[i] < -1 || ids[i] >= ay_tokenizer_vocab(t) + (1 << 24)) abort();
    free(ids);
    free(mask);
    ay_tokenizer_close(&t);
    return 0;
}
