/* SPDX-License-Identifier: MIT
 *
 * Inside src/token/. A tokenizer is data: added tokens are cut out of the text, what is left goes through normalizers,
 * pre-tokenizers (which cut it into pieces) and a model (pieces to ids), and a template puts special tokens around the ids.
 * The steps mean what they mean in Hugging Face's `tokenizers` library (0.23), whose JSON they are read from; a family of
 * tokenizers that comes without such JSON (family.c) is a row that says the same in text.
 */
#ifndef AY_TOK_H
#define AY_TOK_H

#include "io/io.h"
#include "token/token.h"

/* ---- scratch: growing memory that is reused, contents lost -------------------------------------------------------- */
typedef struct ay_scratch { void *p; size_t cap; } ay_scratch;
void *ay_scratch_get(ay_scratch *s, size_t bytes); /* NULL when out of memory */

/* ---- Unicode (unicode.c): UTF-8 here is always valid, the entrance checks it --------------------------------------- */
/** Position of the first invalid byte, or -1. Surrogates and overlong forms are invalid, NUL is not. */
ptrdiff_t ay_utf8_check(const char *s, size_t n);
int32_t ay_utf8_next(const char *s, size_t n, size_t *at); /* the code point at *at, which moves past it */
size_t ay_utf8_put(int32_t c, char *out);                  /* 1..4 bytes */
bool ay_is_space(int32_t c);                               /* White_Space */
bool ay_is_word(int32_t c);                                /* \w of the regex crate */
typedef enum ay_form { AY_NFC, AY_NFD, AY_NFKC, AY_NFKD } ay_form;
bool ay_normal_form(ay_form form, const char *s, size_t n, ay_buf *out); /* false: out of memory */
void ay_lowercase(const char *s, size_t n, ay_buf *out);
size_t ay_grapheme_end(const char *s, size_t n, size_t at); /* extended grapheme cluster that starts at `at` */
/** A copy of `s` of the same length in which characters that a regular expression library may not know yet stand as ones of
 *  their kind that it knows; `s` itself when there are none. NULL: out of memory. */
const char *ay_known_kinds(const char *s, size_t n, ay_scratch *copy);

/* ---- tables of strings --------------------------------------------------------------------------------------------- */
/** String to id, open addressing over an arena. The last id given to a string counts. */
typedef struct ay_vocab {
    ay_arena *arena;
    struct ay_vocab_slot { const char *s; uint32_t n, hash; int32_t id; } *slot;
    size_t cap, used;
    char *chunk;
    size_t chunk_left;
} ay_vocab;
bool ay_vocab_add(ay_vocab *v, const char *s, size_t n, int32_t id); /* copies s; v starts as {arena} */
int32_t ay_vocab_find(const ay_vocab *v, const char *s, size_t n);   /* -1: not there */

/** Bytes to values by prefix: edges in one hash table, (node, byte) to node. Node 0 is the root. */
typedef struct ay_trie {
    ay_arena *arena;
    struct ay_trie_edge { uint32_t key, to; } *edge;
    size_t cap, used;
    int32_t *value; /* [nodes]; -1: no string ends here */
    uint32_t nodes, cap_nodes;
    int shift;
} ay_trie;
bool ay_trie_add(ay_trie *t, const char *s, size_t n, int32_t value); /* the last value given to a string counts */
int32_t ay_trie_find(const ay_trie *t, const char *s, size_t n);      /* -1: not there */
static inline uint32_t ay_trie_step(const ay_trie *t, uint32_t node, uint8_t byte) { /* 0: no such edge */
    uint32_t key = node << 8 | byte;
    for (size_t i = (uint32_t)(key * 0x9e3779b1u) >> t->shift;; i = (i + 1) & (t->cap - 1)) {
        if (!t->edge[i].to || t->edge[i].key == key) return t->edge[i].to;
    }
}

/* ---- regular expressions and charsmaps ----------------------------------------------------------------------------- */
/** Where things come from while a tokenizer is opened. `what` names the file in sentences. */
typedef struct ay_load { ay_ctx *cx; const char *what; ay_arena *arena; } ay_load;

typedef struct ay_regex ay_regex;
alloy_status ay_regex_new(ay_load *ld, const char *pattern, ay_regex **out); /* lives in ld->arena */
/** Calls `part` with every stretch of s in order, matches and what lies between, until it returns false. */
typedef bool (*ay_part_fn)(void *user, size_t begin, size_t end, bool match);
alloy_status ay_regex_parts(ay_ctx *cx, const ay_regex *re, const char *s, size_t n, ay_part_fn part, void *user);

/** SentencePiece's precompiled_charsmap: a double-array trie of UTF-8 sequences and the strings that replace them. */
typedef struct ay_charsmap ay_charsmap;
alloy_status ay_charsmap_new(ay_load *ld, const void *bytes, size_t n, ay_charsmap **out); /* copies */
alloy_status ay_charsmap_base64(ay_load *ld, const char *text, size_t n, ay_charsmap **out);
alloy_status ay_charsmap_run(ay_ctx *cx, const ay_charsmap *map, const char *s, size_t n, ay_buf *out);

/* ---- steps --------------------------------------------------------------------------------------------------------- */
enum { AY_MAX_STEPS = 32, AY_MAX_TEMPLATE = 16, AY_MAX_TOKEN_BYTES = 4096 };

typedef struct ay_norm {
    const struct ay_norm_type *type;
    bool left, right;       /* Strip */
    const char *pattern;    /* Replace: a literal, when regex is NULL */
    const char *text;       /* Replace, Prepend */
    ay_regex *regex;
    ay_charsmap *map;
} ay_norm;
typedef struct ay_norms { ay_norm step[AY_MAX_STEPS]; int n; } ay_norms;
alloy_status ay_norms_parse(ay_load *ld, const json_t *v, ay_norms *out); /* null: no steps */
/** One step of type Precompiled. */
alloy_status ay_norms_charsmap(ay_load *ld, ay_charsmap *map, ay_norms *out);
/** Result in *out; `spare` is working memory. Both start as {0} or hold what may be lost. */
alloy_status ay_norms_run(ay_ctx *cx, const ay_norms *norms, const char *s, size_t n, ay_buf *out, ay_buf *spare);

/** A stretch of text on its way to the model, or a token that was recognised already (id >= 0). */
typedef struct ay_piece { size_t at, n; int32_t id; bool first; } ay_piece; /* first: begins where the text begins */
typedef struct ay_pieces { ay_buf text; ay_piece *p; size_t n, cap; bool failed; } ay_pieces;
void ay_pieces_clear(ay_pieces *p);
void ay_pieces_free(ay_pieces *p);
/** Copies the bytes; empty ones are dropped, as there. */
void ay_pieces_add(ay_pieces *p, const char *s, size_t n, int32_t id, bool first);

typedef enum ay_behavior { AY_REMOVED, AY_ISOLATED, AY_MERGED_PREVIOUS, AY_MERGED_NEXT } ay_behavior;
typedef struct ay_pretok {
    const struct ay_pretok_type *type;
    ay_regex *regex;       /* Split, ByteLevel */
    const char *pattern;   /* Split: a literal, when regex is NULL */
    ay_behavior behavior;
    bool invert;
    bool prefix_space;     /* ByteLevel */
    bool split;            /* Metaspace */
    bool individual;       /* Digits */
    int prepend;           /* Metaspace: 0 never, 1 first, 2 always */
    char mark[5];          /* Metaspace's replacement, UTF-8 */
} ay_pretok;
typedef struct ay_pretoks { ay_pretok step[AY_MAX_STEPS]; int n; } ay_pretoks;
alloy_status ay_pretoks_parse(ay_load *ld, const json_t *v, ay_pretoks *out);
/** Rewrites *pieces; `spare` is working memory. */
alloy_status ay_pretoks_run(ay_ctx *cx, const ay_pretoks *steps, ay_pieces *pieces, ay_pieces *spare);

/* ---- models -------------------------------------------------------------------------------------------------------- */
typedef struct ay_ids { int32_t *v; size_t n, cap; bool failed; } ay_ids;
void ay_ids_add(ay_ids *ids, int32_t id);

typedef struct ay_model {
    const char *type;
    int size;    /* strings in it */
    int32_t top; /* highest id */
    int32_t (*find)(const struct ay_model *m, const char *s, size_t n); /* -1: not there */
    alloy_status (*encode)(ay_ctx *cx, const struct ay_model *m, const char *s, size_t n, ay_scratch *scratch, ay_ids *out);
} ay_model;

typedef struct ay_bpe_options {
    const char *unk;    /* NULL: unknown characters vanish */
    const char *suffix; /* of a word's last character; "" */
    bool fuse_unk, ignore_merges;
} ay_bpe_options;
/** vocab: {"token": id}. merges: text of merges.txt, or (text NULL) a list of "a b" or ["a", "b"]. */
alloy_status ay_bpe_new(ay_load *ld, const json_t *vocab, const char *merges_what, const char *text, size_t n,
                        const json_t *list, const ay_bpe_options *o, ay_model **out);

/** Pieces are added in the order of their ids, then it is closed. unk_id < 0: none. */
typedef struct ay_unigram ay_unigram;
ay_unigram *ay_unigram_begin(ay_load *ld);
alloy_status ay_unigram_piece(ay_load *ld, ay_unigram *u, const char *s, size_t n, double score);
alloy_status ay_unigram_end(ay_load *ld, ay_unigram *u, int64_t unk_id, bool byte_fallback, ay_model **out);
alloy_status ay_unigram_json(ay_load *ld, ay_unigram *u, const json_t *vocab); /* [["piece", score], ...] */

/** What a sentencepiece model file says that matters here. The strings point into the bytes. */
typedef struct ay_spiece_hooks {
    alloy_status (*piece)(void *user, const char *s, size_t n, double score, int type);
    void *user;
} ay_spiece_hooks;
enum { AY_SPIECE_NORMAL = 1, AY_SPIECE_UNKNOWN, AY_SPIECE_CONTROL, AY_SPIECE_USER, AY_SPIECE_UNUSED, AY_SPIECE_BYTE };
typedef struct ay_spiece_info {
    int model_type; /* 1 unigram, 2 BPE, 3 word, 4 char */
    const uint8_t *charsmap;
    size_t charsmap_bytes;
} ay_spiece_info;
alloy_status ay_spiece_read(ay_load *ld, const void *bytes, size_t n, const ay_spiece_hooks *hooks, ay_spiece_info *out);

/* ---- added tokens (added.c) ---------------------------------------------------------------------------------------- */
typedef struct ay_added {
    const char *text;
    size_t n;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
} ay_added;
typedef struct ay_added_set {
    ay_vocab index; /* text to place in `token` */
    ay_added *token;
    int n, cap;
    int32_t next_id, top;
    ay_trie raw, normal; /* value: place in `token` */
    bool split_special;  /* special tokens in a text are text */
} ay_added_set;
/** Later additions of the same text replace its properties; the id is the model's or the next free one. */
alloy_status ay_added_add(ay_load *ld, ay_added_set *set, const ay_model *m, const ay_added *token);
alloy_status ay_added_finish(ay_load *ld, ay_added_set *set, const ay_norms *norms); /* builds the tries */
int32_t ay_added_find(const ay_added_set *set, const ay_model *m, const char *text);
/** Cuts s at the tokens of one trie; what is between is added with id -1. `base`: s begins where the whole text begins. */
void ay_added_split(const ay_added_set *set, const ay_trie *trie, const char *s, size_t n, bool base, ay_pieces *out);

/* ---- the whole ----------------------------------------------------------------------------------------------------- */
struct ay_tokenizer {
    ay_arena *arena;
    ay_norms norms;
    ay_pretoks pretoks;
    ay_model *model;
    ay_added_set added;
    int32_t before[AY_MAX_TEMPLATE], after[AY_MAX_TEMPLATE]; /* special ids around the text's */
    int n_before, n_after;
    int32_t pad_id; /* -1: none */
    int max_length; /* 0: not said */
    bool pad_left, truncate_left;
};

/** A tokenizer folder's files in memory; data NULL: not there. Names are used in sentences. */
typedef struct ay_token_file { const char *name, *data; size_t size; } ay_token_file;
typedef enum ay_token_kind {
    AY_TF_CONFIG, AY_TF_SPECIAL, AY_TF_ADDED, AY_TF_TOKENIZER, AY_TF_SPIECE, AY_TF_VOCAB, AY_TF_MERGES, AY_TF_COUNT
} ay_token_kind;
alloy_status ay_tokenizer_open_files(ay_ctx *cx, const char *dir, const ay_token_file file[AY_TF_COUNT], ay_tokenizer **out);
alloy_status ay_template_parse(ay_load *ld, const json_t *v, ay_tokenizer *t); /* post_processor; null: nothing */

/** How a family of tokenizers is put together when its own class does it (and not tokenizer.json): one row each. */
typedef struct ay_family {
    const char *name;          /* tokenizer_class without "Fast" */
    const char *model;         /* "BPE", "Unigram" */
    const char *probe;         /* where no class is named: a token that tells it; NULL: the model alone does */
    const char *bos, *eos, *unk, *pad; /* defaults; NULL: none */
    const char *suffix;        /* BPE: of a word's end */
    bool unk_in_model;         /* BPE: unknown characters become unk */
    int unk_id;                /* Unigram */
    int extra_ids;             /* <extra_id_0> .. : special, and after sentencepiece's own pieces */
    bool charsmap;             /* the normalizer is the vocabulary file's charsmap, where it has one */
    bool special_again;        /* special tokens are added once more with plain properties */
    const char *normalizer;    /* JSON as in tokenizer.json; NULL: none */
    const char *pre_tokenizer;
    const char *sequence;      /* words of: bos, eos, $A; NULL: as tokenizer.json or add_bos_token and add_eos_token say */
} ay_family;
const ay_family *ay_family_of_class(const char *tokenizer_class); /* NULL: not one of the rows */
const ay_family *ay_family_by_probe(const char *model, const json_t *vocab); /* vocab: {token: id}, or NULL */
void ay_family_names(ay_buf *out); /* "CLIPTokenizer, ..." for sentences */

#endif
