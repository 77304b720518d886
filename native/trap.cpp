#include "trap.h"

#include "guards.h"

#include <ggml.h>

#include <cstdio>
#include <string>

namespace {

thread_local int traps = 0;

// Removes the build path from a message such as "/path/of/the/build/vendor/llama.cpp/src/llama-vocab.cpp:2539:
// GGML_ASSERT(...) failed". The result begins with "src".
std::string withoutBuildPath(const std::string & message) {
    static const std::string root = "vendor/llama.cpp/";
    const size_t at = message.find(root);
    return at == std::string::npos ? message : message.substr(at + root.size());
}

void onAssert(const char * message) {
    if (traps > 0) {
        throw Failure("INTERNAL", "llama.cpp reported a fatal error: " + withoutBuildPath(message));
    }
    std::fprintf(stderr, "llama-headstart: %s\n", message);  // ggml ends the process next
}

}  // namespace

AssertTrap::AssertTrap() { traps++; }
AssertTrap::~AssertTrap() { traps--; }

void installAssertTrap() { ggml_set_abort_callback(onAssert); }
