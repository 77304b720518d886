// llama.cpp's log, ggml's and `common`'s, led to JavaScript line by line, and into the messages of our own errors.
#pragma once

#include "to-js.h"

#include <string>

// Once a process, before anything that logs.
void installLogHook();

// `setLogger(fn | null, maxLevel)`: fn(level, text) for each line of this environment's logger.
void defineLog(Napi::Env env, Napi::Object exports);
void forgetLogger(Napi::Env env);

// Collects the error and warning lines that this thread logs while it lives: llama.cpp returns null and logs the reason.
class LogCapture {
  public:
    LogCapture();
    ~LogCapture();

    // "; llama.cpp said: ..." or an empty string.
    std::string reason() const;

    std::string lines;
};
