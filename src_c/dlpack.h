/* The part of DLPack 1 that lends a tensor for the time of a call: how other libraries describe an array in C,
 * as https://dmlc.github.io/dlpack/latest/c_api.html lays it out. */
#ifndef FASTGD_DLPACK_H
#define FASTGD_DLPACK_H

#include <stdint.h>

#define FASTGD_DL_NAME "dlpack_exchange_api"
enum { FASTGD_DL_MAJOR = 1, FASTGD_DL_CPU = 1, FASTGD_DL_FLOAT = 2 };

typedef struct {
    void *data;
    int32_t device_type, device_id;
    int32_t ndim;
    uint8_t code, bits; /* of the dtype */
    uint16_t lanes;
    int64_t *shape, *strides; /* strides in elements */
    uint64_t byte_offset;
} fastgd_dl_tensor;

/* Functions that are not used here are pointers. */
typedef struct {
    uint32_t major, minor;
    void *older;
    void *allocate, *own, *give;
    int (*lend)(void *object, fastgd_dl_tensor *out); /* 0, or -1 with a Python exception */
    void *stream;
} fastgd_dl_exchange;

#endif
