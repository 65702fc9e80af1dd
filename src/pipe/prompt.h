/* SPDX-License-Identifier: MIT
 *
 * Prompts for text encoders of a fixed length: weights in brackets, long texts in chunks.
 */
#ifndef AY_PROMPT_H
#define AY_PROMPT_H

#include "pipe/pipe.h"

/** A prompt as a text encoder reads it: chunks of `length` tokens, each with its beginning, end and padding. */
typedef struct ay_prompt {
    int chunks;
    bool weighted;  /* a weight is not 1 */
    int32_t *ids;   /* [chunks, length] */
    float *weights; /* [chunks, length] */
} ay_prompt;

/** A piece of a prompt that has one weight. */
typedef struct ay_phrase {
    char *text;
    double weight;
} ay_phrase;

/** `(word)` times 1.1, `[word]` divided by 1.1, `(word:1.2)` times 1.2, nested as they stand; a backslash before a bracket or
 *  backslash makes it text. In `arena`. */
alloy_status ay_prompt_phrases(ay_ctx *cx, const char *text, ay_arena *arena, ay_phrase **out, int *n);
/** Reads `text` with the tokenizer in the model's `folder`, in `arena`; filled up with empty chunks to at least `chunks`. */
alloy_status ay_prompt_read(ay_ctx *cx, const ay_model *m, const char *folder, const char *text, int length, int chunks, ay_arena *arena,
                            ay_prompt *out);
/** The same in one chunk, for any tokenizer: what does not fit is cut off, and without weights the ids are ay_tokenize's.
 *  `numbers`: brackets are text unless a weight is written as a number somewhere in the prompt. */
alloy_status ay_prompt_read_cut(ay_ctx *cx, const ay_model *m, const char *folder, const char *text, int length, bool numbers,
                                ay_arena *arena, ay_prompt *out);
/** hidden [length, dim] of one chunk times its tokens' weights, the mean of the whole kept. */
void ay_prompt_weigh(const float *weights, int64_t length, int64_t dim, float *hidden);

#endif
