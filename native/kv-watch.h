// Builds with assertions (`npm run build:native -- --debug`, `npm run test:asan`) know where the KV bytes of sequence states
// are, and end the process when one of them is about to enter the JavaScript heap. In others this is nothing at all.
#pragma once

#include <cstddef>

namespace kv {

#ifdef HEADSTART_ASSERTIONS
void watch(const void * memory, size_t size);
void forget(const void * memory);

// No byte of `from` lies in memory that is watched.
void assertNone(const void * from, size_t size);
#else
inline void watch(const void *, size_t) {}
inline void forget(const void *) {}
inline void assertNone(const void *, size_t) {}
#endif

}  // namespace kv
