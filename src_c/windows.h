/* Memory of mapped files that is wanted soon, or no longer. Only for shared mappings: what is written
 * to a private one would be lost. */
#ifndef FASTGD_WINDOWS_H
#define FASTGD_WINDOWS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>

/* The pages that hold n bytes from p on. */
static inline char *fastgd_pages(const char *p, ptrdiff_t n, size_t *length) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = (uintptr_t)p / page * page;
    *length = ((uintptr_t)p + (uintptr_t)n - begin + page - 1) / page * page;
    return (char *)begin;
}

static inline void fastgd_expect(const char *p, ptrdiff_t n) {
    size_t length;
    char *begin = fastgd_pages(p, n, &length);
    madvise(begin, length, MADV_WILLNEED);
}

static inline void fastgd_leave(const char *p, ptrdiff_t n, int written) {
    size_t length;
    char *begin = fastgd_pages(p, n, &length);
    if (written)
        msync(begin, length, MS_SYNC); /* or dirty pages would pile up until the disk stops everything */
    madvise(begin, length, MADV_DONTNEED);
}
#else
static inline void fastgd_expect(const char *p, ptrdiff_t n) {}
static inline void fastgd_leave(const char *p, ptrdiff_t n, int written) {}
#endif

#endif
