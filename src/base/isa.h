/* SPDX-License-Identifier: MIT
 *
 * Instruction-set levels, ordered: each stands for a whole bundle plus the operating system's consent.
 */
#ifndef AY_ISA_H
#define AY_ISA_H

typedef enum ay_isa {
    AY_ISA_C = 0,
    /* x86-64 */
    AY_ISA_AVX2,    /* avx2 + fma + f16c + bmi2 */
    AY_ISA_AVXVNNI, /* avx2 + avx-vnni, not part of what follows: desktop processors without AVX-512 */
    AY_ISA_AVX512,  /* f, bw, cd, dq, vl */
    AY_ISA_VNNI,    /* avx512 + vnni */
    AY_ISA_AMX,
    /* arm64 */
    AY_ISA_NEON,
    AY_ISA_DOTPROD,
    AY_ISA_I8MM,
    AY_ISA_COUNT
} ay_isa;

ay_isa ay_isa_best(void);               /* the best this machine can run */
int ay_isa_runs(ay_isa level);          /* whether it can run that level */
const char *ay_isa_name(ay_isa isa);    /* "c", "avx2", "avx512", "vnni", ... */
int ay_isa_from_name(const char *name); /* -1 if there is no such level */
/** Whether a kernel of level `need` may run where `cap` is the highest allowed (levels of the other family: never; of
 *  avxvnni: only there). */
int ay_isa_allows(ay_isa cap, ay_isa need);

#endif
