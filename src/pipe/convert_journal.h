/* SPDX-License-Identifier: MIT
 *
 * What of a conversion is whole, kept beside its work in progress, so that one that was killed goes on where it was.
 *
 * NAME.partial/journal is text. Its first line says what the work belongs to: a digest of everything that the bytes depend
 * on. Every other line is one tensor: package, end of the tensor in its weight file, digest of all bytes before that, the
 * tensor's squared error and norm, name; and a check over the line. Nothing is believed: going on, the weight files are read
 * and compared with the digests, and the last tensor up to which all agrees counts. So neither a kill nor a power failure
 * can leave a lie, and no file needs to be synced in between.
 */
#ifndef AY_CONVERT_JOURNAL_H
#define AY_CONVERT_JOURNAL_H

#include "coreml/coreml.h"
#include "coreml/weightfile.h"

typedef struct ay_journal ay_journal;

/** Opens the journal in the work folder `dir`, which is locked and may hold anything: what goes on stays in it, all else is
 *  removed. `key`: the digest of what the bytes depend on; `total`: tensors there are, for the sentence that is logged. */
alloy_status ay_journal_open(ay_ctx *cx, const char *dir, const uint8_t key[32], int total, ay_journal **out);
/** How far the weight file of NAME.mlpackage has come; NULL: it is begun anew. */
const ay_weight_mark *ay_journal_mark(const ay_journal *j, const char *package);
/** What was noted of the next tensor of the package that is in its file already. */
alloy_status ay_journal_next(ay_journal *j, const char *package, const char *tensor, double *error2, double *norm2);
/** Notes that one more tensor is whole. */
alloy_status ay_journal_add(ay_journal *j, const char *package, const char *tensor, const ay_weight_mark *mark, double error2,
                            double norm2);
int ay_journal_count(const ay_journal *j);      /* tensors that are whole */
uint64_t ay_journal_bytes(const ay_journal *j); /* of weight files that an earlier run left */
/** Closes; `remove`: and takes the file away. */
void ay_journal_close(ay_journal **j, bool remove);


#endif
