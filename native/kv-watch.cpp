#include "kv-watch.h"

#ifdef HEADSTART_ASSERTIONS

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

namespace {

struct Watched {
    std::mutex mutex;
    std::map<uintptr_t, uintptr_t> ends;  // the key is the first address of a range, the value its end
};

// The instance is never freed, because threads may still free buffers while the process exits.
Watched & watched() {
    static Watched * instance = new Watched;
    return *instance;
}

}  // namespace

void kv::watch(const void * memory, size_t size) {
    std::lock_guard<std::mutex> lock(watched().mutex);
    watched().ends[(uintptr_t) memory] = (uintptr_t) memory + size;
}

void kv::forget(const void * memory) {
    std::lock_guard<std::mutex> lock(watched().mutex);
    watched().ends.erase((uintptr_t) memory);
}

void kv::assertNone(const void * from, size_t size) {
    const auto begin = (uintptr_t) from;
    std::lock_guard<std::mutex> lock(watched().mutex);
    auto next = watched().ends.lower_bound(begin + size);  // the first range that begins after these bytes
    if (size == 0 || next == watched().ends.begin() || std::prev(next)->second <= begin) {
        return;
    }
    std::fprintf(
        stderr, "llama-headstart: %zu bytes of a sequence state were about to enter the JavaScript heap\n", size
    );
    std::abort();
}

#endif
