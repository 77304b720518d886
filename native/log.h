// The log of llama.cpp, ggml and `common`. Its lines go to JavaScript and into the messages of errors.
#pragma once

#include "to-js.h"

#include <string>

// Once per process, before any code that logs.
void installLogHook();

// `setLogger(fn | null, maxLevel)`: calls fn(level, text) for each line.
void defineLog(Napi::Env env, Napi::Object exports);
void forgetLogger(Napi::Env env);

// Collects the errors and warnings that this thread logs while the object exists. llama.cpp logs the reason of an error
// and returns null.
class LogCapture {
  public:
    LogCapture();
    ~LogCapture();

    // "; llama.cpp said: ..." or an empty string.
    std::string reason() const;

    std::string lines;
};
