// Included in front of ggml's AMX kernels. GCC before 11.5, 12.4 and 13.3 declares that the instruction reads only 8 of the
// 64 bytes of the tile configuration, and drops the stores to all others (GCC bug 114098). The first matrix multiplication of
// a quantized model then ends the process with an illegal instruction.
#pragma once

#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>

static inline void loadTileConfig(const void * config) {
    struct Bytes {
        char bytes[64];
    };
    __asm__ volatile("ldtilecfg\t%0" ::"m"(*static_cast<const Bytes *>(config)));
}

#undef _tile_loadconfig
#define _tile_loadconfig loadTileConfig
#endif
