/* SPDX-License-Identifier: MIT
 *
 * Which instruction-set level this machine offers. GCC's and clang's __builtin_cpu_supports also ask the operating
 * system (XGETBV) whether it saves the registers.
 */
#include "base/isa.h"

#include <stdbool.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

static const char *const names[AY_ISA_COUNT] = {"c", "avx2", "avxvnni", "avx512", "vnni", "amx", "neon", "dotprod", "i8mm"};

#if defined(__x86_64__)
/* Not by name: clang 14 does not know it there. The registers are those of AVX2. */
static bool has_avxvnni(void) {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
#endif

ay_isa ay_isa_best(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    if (!avx2) return AY_ISA_C;
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (!avx512) return has_avxvnni() ? AY_ISA_AVXVNNI : AY_ISA_AVX2;
    return __builtin_cpu_supports("avx512vnni") ? AY_ISA_VNNI : AY_ISA_AVX512;
#elif defined(__aarch64__) && defined(__linux__)
    unsigned long caps = getauxval(AT_HWCAP), caps2 = getauxval(AT_HWCAP2);
    if (!(caps & (1UL << 20))) return AY_ISA_NEON;             /* HWCAP_ASIMDDP */
    return caps2 & (1UL << 13) ? AY_ISA_I8MM : AY_ISA_DOTPROD; /* HWCAP2_I8MM */
#elif defined(__aarch64__)
    return AY_ISA_DOTPROD; /* every Apple chip since the A13 */
#else
    return AY_ISA_C;
#endif
}

int ay_isa_runs(ay_isa level) {
#if defined(__x86_64__)
    if (level == AY_ISA_AVXVNNI) return ay_isa_best() >= AY_ISA_AVX2 && has_avxvnni();
#endif
    return ay_isa_allows(ay_isa_best(), level);
}

const char *ay_isa_name(ay_isa isa) { return (unsigned)isa < AY_ISA_COUNT ? names[isa] : "unknown"; }

int ay_isa_from_name(const char *name) {
    for (int i = 0; i < AY_ISA_COUNT; i++) {
        if (strcmp(names[i], name) == 0) return i;
    }
    return -1;
}

int ay_isa_allows(ay_isa cap, ay_isa need) {
    if (need == AY_ISA_C) return 1;
    if (need == AY_ISA_AVXVNNI) return cap == need; /* servers with AVX-512 came without it for years */
    int arm_cap = cap >= AY_ISA_NEON, arm_need = need >= AY_ISA_NEON;
    return cap != AY_ISA_C && arm_cap == arm_need && need <= cap;
}
