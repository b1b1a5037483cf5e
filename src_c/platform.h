/* What the engine asks of the machine: instruction set, OpenMP run time, and whether it was forked. */
#ifndef FASTGD_PLATFORM_H
#define FASTGD_PLATFORM_H

#include <stddef.h>

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* The x86-64 psABI level of this CPU as far as compiler-generated code needs it: 0 where it is not
 * x86-64, else 1 to 4. __builtin_cpu_supports also checks that the operating system saves the
 * registers. F16C and LZCNT are read from CPUID, since older compilers do not know their names. */
static int fastgd_x86_64_level(void) {
#if defined(__x86_64__)
    unsigned a, b, c, d;
    __builtin_cpu_init();
    if (!(__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("ssse3") &&
          __builtin_cpu_supports("popcnt")))
        return 1;
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
          __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2")))
        return 2;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 29)) || !(c & (1u << 22))) /* F16C, MOVBE */
        return 2;
    if (!__get_cpuid(0x80000001u, &a, &b, &c, &d) || !(c & (1u << 5))) /* LZCNT */
        return 2;
    if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
          __builtin_cpu_supports("avx512vl")))
        return 3;
    return 4;
#else
    return 0;
#endif
}

/* The value of _OPENMP (a date, yyyymm), or 0 in a serial build. */
static int fastgd_openmp_version(void) {
#ifdef _OPENMP
    return _OPENMP;
#else
    return 0;
#endif
}

static int fastgd_openmp_max_threads(void) {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

/* 1 in a build for sanitizers: any step is a team's, so that small tests see the threads too. */
#ifndef FASTGD_EAGER_TEAMS
#define FASTGD_EAGER_TEAMS 0
#endif

/* libgomp's worker threads do not survive fork(), and a parallel region in the child waits for them
 * for ever. Any library may have started them, so a forked child never opens a region. Counts the
 * forks between the process that loaded the engine and this one. */
static volatile int fastgd_forked = 0;

#if defined(__unix__) || defined(__APPLE__)
static void fastgd_count_fork(void) { fastgd_forked += 1; }

static int fastgd_watch_forks(void) { return pthread_atfork(NULL, NULL, fastgd_count_fork); }
#else
static int fastgd_watch_forks(void) { return 0; }
#endif

#endif
