// Builds with assertions (`npm run build:native -- --debug`, `npm run test:asan`) record the addresses of the memory
// that holds sequence states. If a byte of that memory is about to enter the JavaScript heap, these builds end the
// process. In other builds, these functions do nothing.
#pragma once

#include <cstddef>

namespace kv {

#ifdef HEADSTART_ASSERTIONS
void watch(const void * memory, size_t size);
void forget(const void * memory);

// Ends the process if one of the bytes is in watched memory.
void assertNone(const void * from, size_t size);
#else
inline void watch(const void *, size_t) {}
inline void forget(const void *) {}
inline void assertNone(const void *, size_t) {}
#endif

}  // namespace kv
