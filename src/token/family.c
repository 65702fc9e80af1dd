/* SPDX-License-Identifier: MIT
 *
 * The families: tokenizers whose pipeline is fixed by their class, whatever else their files say. transformers 5 builds
 * these classes from the vocabulary alone (models/{clip,t5,qwen2}/tokenization_*.py), also where a tokenizer.json with
 * another pipeline lies beside it: T5's own file, for one, has a Metaspace that marks only the beginning of a text, but
 * the class marks every word. A further tokenizer is a row here, or none at all when its tokenizer.json says everything.
 */
#include "token/tok.h"

#include <string.h>

#define T5_PRE_TOKENIZER \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"}," \
    "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"always\",\"split\":true}]}"

static const ay_family families[] = {
    {
        .name = "CLIPTokenizer",
        .model = "BPE",
        .probe = "<|startoftext|>",
        .bos = "<|startoftext|>",
        .eos = "<|endoftext|>",
        .unk = "<|endoftext|>",
        .pad = "<|endoftext|>",
        .suffix = "</w>",
        .unk_in_model = true,
        .normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Replace\",\"pattern\":"
                      "{\"Regex\":\"\\\\s+\"},\"content\":\" \"},{\"type\":\"Lowercase\"}]}",
        .pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
                         "\"<\\\\|startoftext\\\\|>|<\\\\|endoftext\\\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\\\p{L}]+|[\\\\p{N}]|"
                         "[^\\\\s\\\\p{L}\\\\p{N}]+\"},\"behavior\":\"Removed\",\"invert\":true},"
                         "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}]}",
        .sequence = "bos $A eos",
    },
    {
        .name = "Qwen2Tokenizer",
        .model = "BPE",
        .probe = "\xc4\xa0the", /* a space before "the" in the byte alphabet */
        .eos = "<|endoftext|>",
        .unk = "<|endoftext|>",
        .pad = "<|endoftext|>",
        .suffix = "",
        .special_again = true,
        .normalizer = "{\"type\":\"NFC\"}",
        .pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
                         "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}|"
                         " ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},"
                         "\"behavior\":\"Isolated\",\"invert\":false},"
                         "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}",
    },
    {
        .name = "T5Tokenizer",
        .model = "Unigram",
        .eos = "</s>",
        .unk = "<unk>",
        .pad = "<pad>",
        .unk_id = 2,
        .extra_ids = 100,
        .charsmap = true,
        .pre_tokenizer = T5_PRE_TOKENIZER,
        .sequence = "$A eos",
    },
};

enum { COUNT = sizeof families / sizeof *families };

const ay_family *ay_family_of_class(const char *tokenizer_class) {
    for (int i = 0; tokenizer_class && i < COUNT; i++) {
        size_t n = strlen(families[i].name);
        const char *rest = tokenizer_class + n;
        if (strncmp(tokenizer_class, families[i].name, n) == 0 && (!*rest || strcmp(rest, "Fast") == 0)) return &families[i];
    }
    return NULL;
}

const ay_family *ay_family_by_probe(const char *model, const json_t *vocab) {
    for (int i = 0; i < COUNT; i++) {
        const ay_family *f = &families[i];
        if (strcmp(f->model, model) == 0 && (!f->probe || json_object_get(vocab, f->probe))) return f;
    }
    return NULL;
}

void ay_family_names(ay_buf *out) {
    for (int i = 0; i < COUNT; i++) ay_buf_printf(out, "%s%s", i ? ", " : "", families[i].name);
}
