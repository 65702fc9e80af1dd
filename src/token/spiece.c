/* SPDX-License-Identifier: MIT
 *
 * A sentencepiece model file: a protobuf message, of which the pieces, the model's type and the charsmap matter here. The
 * walk is flat (messages of two known levels, no recursion) and never leaves the bytes it was given.
 * Field numbers: sentencepiece/src/sentencepiece_model.proto.
 */
#include "token/tok.h"

#include <string.h>

typedef struct wire { const uint8_t *p, *end; } wire;
/* type: 0 a varint, 1 eight bytes, 2 counted bytes, 5 four bytes */
typedef struct field { uint32_t number; int type; uint64_t value; wire bytes; } field;

enum { MODEL_PIECES = 1, MODEL_TRAINER = 2, MODEL_NORMALIZER = 3 };
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3 };
enum { TRAINER_MODEL_TYPE = 3, NORMALIZER_CHARSMAP = 2 };

static bool varint(wire *w, uint64_t *out) {
    *out = 0;
    for (int shift = 0; shift < 64 && w->p < w->end; shift += 7) {
        uint8_t b = *w->p++;
        *out |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80) return true;
    }
    return false;
}

static uint64_t little(const uint8_t *p, int bytes) {
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++) v |= (uint64_t)p[i] << 8 * i;
    return v;
}

/* The next field of a message; false when there is none or the bytes make no sense (then *bad). */
static bool next_field(wire *w, field *f, bool *bad) {
    uint64_t key, n;
    if (*bad || w->p == w->end) return false;
    *bad = true;
    if (!varint(w, &key) || key >> 3 == 0 || key >> 3 > 0x1fffffff) return false;
    *f = (field){.number = (uint32_t)(key >> 3), .type = (int)(key & 7)};
    size_t left = (size_t)(w->end - w->p);
    int fixed = f->type == 1 ? 8 : f->type == 5 ? 4 : 0;
    if (fixed) {
        if (left < (size_t)fixed) return false;
        f->value = little(w->p, fixed);
        w->p += fixed;
    } else if (f->type == 0) {
        if (!varint(w, &f->value)) return false;
    } else {
        if (f->type != 2 || !varint(w, &n) || n > (uint64_t)(w->end - w->p)) return false;
        f->bytes = (wire){w->p, w->p + n};
        w->p += n;
    }
    *bad = false;
    return true;
}

static alloy_status read_piece(const ay_spiece_hooks *hooks, wire w, bool *bad) {
    wire text = {0};
    float score = 0;
    int type = AY_SPIECE_NORMAL;
    for (field f; next_field(&w, &f, bad);) {
        if (f.number == PIECE_TEXT && f.type == 2) text = f.bytes;
        else if (f.number == PIECE_TYPE && f.type == 0) type = f.value > 100 ? 100 : (int)f.value;
        else if (f.number == PIECE_SCORE && f.type == 5) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&score, &bits, 4);
        }
    }
    if (*bad) return ALLOY_OK;
    return hooks->piece(hooks->user, text.p ? (const char *)text.p : "", (size_t)(text.end - text.p), score, type);
}

alloy_status ay_spiece_read(ay_load *ld, const void *bytes, size_t n, const ay_spiece_hooks *hooks, ay_spiece_info *out) {
    *out = (ay_spiece_info){.model_type = 1};
    wire w = {bytes, n ? (const uint8_t *)bytes + n : bytes};
    bool bad = n == 0;
    for (field f; next_field(&w, &f, &bad);) {
        if (f.type != 2) continue;
        if (f.number == MODEL_PIECES) AY_TRY(read_piece(hooks, f.bytes, &bad));
        wire in = f.bytes;
        if (f.number == MODEL_TRAINER)
            for (field g; next_field(&in, &g, &bad);)
                if (g.number == TRAINER_MODEL_TYPE && g.type == 0) out->model_type = g.value > 100 ? 100 : (int)g.value;
        if (f.number == MODEL_NORMALIZER)
            for (field g; next_field(&in, &g, &bad);)
                if (g.number == NORMALIZER_CHARSMAP && g.type == 2) {
                    out->charsmap = g.bytes.p;
                    out->charsmap_bytes = (size_t)(g.bytes.end - g.bytes.p);
                }
    }
    if (bad)
        return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: not a sentencepiece model: its protobuf ends or breaks at byte %td of "
                                               "%zu",
                       ld->what, n ? w.p - (const uint8_t *)bytes : 0, n);
    return ALLOY_OK;
}
