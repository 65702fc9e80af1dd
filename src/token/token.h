/* SPDX-License-Identifier: MIT
 *
 * Tokenizers over the model's own files: CLIP's and Qwen's byte-level BPE (vocab.json + merges.txt, or tokenizer.json) and
 * T5's unigram (tokenizer.json, or spiece.model). Ids equal Hugging Face's.
 */
#ifndef AY_TOKEN_H
#define AY_TOKEN_H

#include "base/base.h"

typedef struct ay_tokenizer ay_tokenizer;
/** `dir` is a diffusers tokenizer folder (tokenizer_config.json optional); which kind it is follows from the files: the
 *  class that tokenizer_config.json names decides as in transformers 5, else tokenizer.json is taken at its word. */
alloy_status ay_tokenizer_open(ay_ctx *cx, const char *dir, ay_tokenizer **out);
void ay_tokenizer_close(ay_tokenizer **t);

typedef struct ay_encode_options {
    bool special;      /* add bos/eos as the tokenizer's own post-processing does */
    int max_length;    /* 0: the model's own; truncation keeps the closing token, as Hugging Face does */
    bool pad;          /* to max_length with the tokenizer's padding id */
} ay_encode_options;
/** ids in `out` (malloc'd, caller frees), attention mask (1 token, 0 padding) in `mask` if not NULL. Text is UTF-8; invalid
 *  bytes are ALLOY_E_USAGE with the position. Threads may share a tokenizer, each with a context of its own. */
alloy_status ay_tokenizer_encode(ay_ctx *cx, const ay_tokenizer *t, const char *text, size_t len, const ay_encode_options *o,
                                 int32_t **out, int32_t **mask, int *count);
int ay_tokenizer_vocab(const ay_tokenizer *t);  /* highest id + 1: an embedding needs at least as many rows */
int ay_tokenizer_pad_id(const ay_tokenizer *t); /* -1: it has no padding token */
int ay_tokenizer_max_length(const ay_tokenizer *t); /* model_max_length; 0 when not said or absurd */
#endif
