/* SPDX-License-Identifier: MIT
 *
 * The strings that tokenizers are tested on: made from tests/data/tokenizers/atoms.txt by a small generator that is the same
 * in tests/reference/tokens.py, so that the golden files hold nothing but hashes.
 */
#ifndef TOKEN_STRINGS_H
#define TOKEN_STRINGS_H

#include "base/base.h"

typedef struct token_strings token_strings;
enum { TOKEN_STRINGS = 10240 + 32 };
token_strings *token_strings_open(const char *atoms); /* NULL: not there or not readable */
void token_strings_close(token_strings *ts);
/** String number i, valid until the next call. */
const char *token_string(token_strings *ts, int i, size_t *len);
uint64_t token_hash(uint64_t h, const void *bytes, size_t n); /* FNV-1a; begin with TOKEN_HASH */
#define TOKEN_HASH 0xcbf29ce484222325u

#endif
