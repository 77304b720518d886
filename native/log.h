// Receives the log lines of llama.cpp, ggml and `common`. The lines go to JavaScript and into error messages.
#pragma once

#include "to-js.h"

#include <string>

// Must be called once per process, before any code that logs.
void installLogHook();

// Defines `setLogger(fn | null, maxLevel)`. The log calls `fn(level, text)` for each line whose level is at most
// `maxLevel`.
void defineLog(Napi::Env env, Napi::Object exports);
void forgetLogger(Napi::Env env);

// Collects the errors and warnings that this thread logs while the object exists. If a function of llama.cpp fails, it
// returns null and only logs the reason.
class LogCapture {
  public:
    LogCapture();
    ~LogCapture();

    // Returns "; llama.cpp said: " followed by the lines. Returns an empty string if there are no lines.
    std::string reason() const;

    std::string lines;
};
