#include "log.h"

#include "thread.h"

#include <json.h>  // defines common_json, which common's log.h only declares
#include <llama.h>
#include <log.h>  // of llama.cpp's common; "log.h" in quotes would be the file in this folder

#include <cstdarg>
#include <cstdio>
#include <map>

namespace {

// Returns the number that lib/native/log.ts gives to a level: 1 error, 2 warn, 3 info, 4 debug.
int severity(ggml_log_level level) {
    switch (level) {
        case GGML_LOG_LEVEL_ERROR: return 1;
        case GGML_LOG_LEVEL_WARN: return 2;
        case GGML_LOG_LEVEL_INFO: return 3;
        default: return 4;
    }
}

struct Sink {
    std::shared_ptr<Inbox> inbox;
    std::shared_ptr<Napi::FunctionReference> logger;
    int maxSeverity;
};

// The instance is never freed, because llama.cpp also logs in destructors of static objects.
struct Log {
    std::mutex mutex;
    std::map<napi_env, Sink> sinks;
    std::atomic<int> maxSeverity{0};
};

Log & theLog() {
    static Log * log = new Log;
    return *log;
}

thread_local LogCapture * capture = nullptr;
thread_local std::string partial;
thread_local int partialSeverity = 4;

struct LogLine : Message {
    void receive(Napi::Env env) override {
        std::shared_ptr<Napi::FunctionReference> logger;
        {
            std::lock_guard<std::mutex> lock(theLog().mutex);
            auto sink = theLog().sinks.find(env);
            if (sink == theLog().sinks.end() || level > sink->second.maxSeverity) {
                return;
            }
            logger = sink->second.logger;
        }
        logger->Call({Napi::Number::New(env, level), Napi::String::New(env, text)});
    }

    int level;
    std::string text;
};

void emit(int level, const std::string & text) {
    if (capture && level <= 2 && capture->lines.size() < 2000) {
        capture->lines += (capture->lines.empty() ? "" : "; ") + text;
    }
    if (level > theLog().maxSeverity) {
        return;
    }
    auto line = std::make_shared<LogLine>();
    line->level = level;
    line->text = text;
    std::lock_guard<std::mutex> lock(theLog().mutex);
    for (auto & [env, sink] : theLog().sinks) {
        if (level <= sink.maxSeverity) {
            sink.inbox->deliver(line);
        }
    }
}

// The text of a call may have several lines, or only a part of a line. GGML_LOG_LEVEL_CONT continues the line of the
// previous call.
void onLog(ggml_log_level level, const char * text, void *) {
    if (Thread::parking()) {
        return;
    }
    if (level != GGML_LOG_LEVEL_CONT) {
        partialSeverity = severity(level);
    }
    partial += text;
    size_t end;
    while ((end = partial.find('\n')) != std::string::npos) {
        if (end > 0) {
            emit(partialSeverity, partial.substr(0, end));
        }
        partial.erase(0, end + 1);
    }
}

std::string formatted(const char * format, va_list arguments) {
    va_list again;
    va_copy(again, arguments);
    std::string text((size_t) std::max(0, vsnprintf(nullptr, 0, format, arguments)), '\0');
    vsnprintf(text.data(), text.size() + 1, format, again);
    va_end(again);
    return text;
}

// Must be called after a logger was added or removed.
void updateMaxSeverity() {
    int highest = 0;
    for (auto & [env, sink] : theLog().sinks) {
        highest = std::max(highest, sink.maxSeverity);
    }
    theLog().maxSeverity = highest;
}

Napi::Value setLogger(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        if (info[0].IsNull()) {
            forgetLogger(env);
            return env.Undefined();
        }
        if (!info[0].IsFunction()) {
            throw guard::invalid("logger", "a function or null", info[0]);
        }
        const int level = (int) guard::integer(info[1], "maxLevel", 0, 4);
        auto logger = std::make_shared<Napi::FunctionReference>(Napi::Persistent(info[0].As<Napi::Function>()));
        std::lock_guard<std::mutex> lock(theLog().mutex);
        theLog().sinks[env] = Sink{Environment::of(env).inbox, logger, level};
        updateMaxSeverity();
        return env.Undefined();
    });
}

}  // namespace

LogCapture::LogCapture() { capture = this; }
LogCapture::~LogCapture() { capture = nullptr; }

std::string LogCapture::reason() const { return lines.empty() ? "" : "; llama.cpp said: " + lines; }

void installLogHook() { llama_log_set(onLog, nullptr); }

void defineLog(Napi::Env env, Napi::Object exports) {
    exports.Set("setLogger", Napi::Function::New(env, setLogger, "setLogger"));
}

void forgetLogger(Napi::Env env) {
    std::shared_ptr<Napi::FunctionReference> dropped;
    std::lock_guard<std::mutex> lock(theLog().mutex);
    auto sink = theLog().sinks.find(env);
    if (sink != theLog().sinks.end()) {
        dropped = sink->second.logger;
        theLog().sinks.erase(sink);
        updateMaxSeverity();
    }
}

// --- common's log ----------------------------------------------------------------------------------------------------
// `common` does not use llama_log_set: it prints on its own thread. This file defines all functions of the log.h of
// `common`. The linker prefers these definitions to the archive of `common`, so the lines of `common` go to onLog()
// too.

int printToLog(FILE * stream, const char * format, ...);

struct common_log {};

struct common_log * common_log_main() {
    static common_log log;
    return &log;
}

void common_log_add(struct common_log *, enum ggml_log_level level, const char * format, ...) {
    va_list arguments;
    va_start(arguments, format);
    onLog(level, formatted(format, arguments).c_str(), nullptr);
    va_end(arguments);
}

// Replaces fprintf in sources that include stderr-to-log.h.
int printToLog(FILE *, const char * format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const std::string text = formatted(format, arguments);
    va_end(arguments);
    onLog(GGML_LOG_LEVEL_WARN, text.c_str(), nullptr);
    return (int) text.size();
}

// `common` does not format lines above this verbosity. Warnings are always formatted, because LogCapture needs them.
int common_log_get_verbosity_thold() {
    const int maxSeverity = theLog().maxSeverity;
    return maxSeverity >= 4 ? LOG_LEVEL_DEBUG : maxSeverity == 3 ? LOG_LEVEL_INFO : LOG_LEVEL_WARN;
}

void common_log_set_verbosity_thold(int) {}
bool common_log_get_jsonl() { return false; }
void common_log_set_jsonl(bool) {}
int common_log_get_verbosity(enum ggml_log_level) { return LOG_LEVEL_INFO; }
void common_log_default_callback(enum ggml_log_level level, const char * text, void *) { onLog(level, text, nullptr); }
struct common_log * common_log_init() { return common_log_main(); }
void common_log_pause(struct common_log *) {}
void common_log_resume(struct common_log *) {}
void common_log_free(struct common_log *) {}
void common_log_set_file(struct common_log *, const char *) {}
void common_log_set_colors(struct common_log *, log_colors) {}
void common_log_set_prefix(struct common_log *, bool) {}
void common_log_set_timestamps(struct common_log *, bool) {}
void common_log_flush(struct common_log *) {}
void common_log_add_json(struct common_log *, const char *, const common_json &) {}
