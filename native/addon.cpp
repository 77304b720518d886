// The entry point of the addon. It registers the addon's classes and functions. It ends the addon's threads when the
// environment or the process ends.
#include "backends.h"
#include "context.h"
#include "file-hash.h"
#include "file-lock.h"
#include "gguf-file.h"
#include "log.h"
#include "lora.h"
#include "model.h"
#include "reply.h"
#include "sampler.h"
#include "schema.h"
#include "state-file.h"
#include "state.h"
#include "trap.h"

#include <llama.h>

#include <cstdlib>
#include <mutex>

namespace {

constexpr int PARK_LIMIT_MS = 5000;

// Ends the threads of this environment before its JavaScript heap is gone. Node.js calls this hook when a worker ends,
// or when the main thread ends normally.
void endEnvironment(Environment * environment) {
    environment->inbox->close();
    if (Thread::parking()) {
        return;  // the process is exiting, and its threads are parked
    }
    for (auto & weak : environment->threads) {
        if (auto thread = weak.lock()) {
            thread->interrupt();
            thread->stop();
        }
    }
    for (auto & weak : environment->threads) {
        if (auto thread = weak.lock()) {
            thread->waitUntilEnded();
        }
    }
}

// process.exit() runs no cleanup hooks. It emits the event "exit", and lib/native/addon.ts then calls park(). After the
// event, the process runs its atexit handlers and destroys static objects that threads may still use. The atexit
// handler below parks the threads if an exit skips the event.
void startProcess() {
    static std::once_flag once;
    std::call_once(once, [] {
        installLogHook();
        installAssertTrap();
        std::atexit([] { Thread::parkAll(PARK_LIMIT_MS); });
    });
}

Napi::Value park(const Napi::CallbackInfo & info) {
    return Napi::Boolean::New(info.Env(), Thread::parkAll(PARK_LIMIT_MS));
}

void setErrorFactory(const Napi::CallbackInfo & info) {
    if (!info[0].IsFunction()) {
        throw Napi::TypeError::New(info.Env(), "Expected a function (code, message) => Error");
    }
    Environment::of(info.Env()).errorFactory = Napi::Persistent(info[0].As<Napi::Function>());
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
    startProcess();
    auto * environment = new Environment;
    env.SetInstanceData(environment);
    environment->inbox = std::make_shared<Inbox>(env);
    // This hook must be added after the inbox was made. Hooks run in reverse order, and the threads must end before the
    // inbox loses its thread-safe function.
    env.AddCleanupHook([env, environment] {
        forgetLogger(env);
        endEnvironment(environment);
    });

    AbortFlag::define(env, exports);
    Model::define(env, exports);
    SequenceState::define(env, exports);
    Context::define(env, exports);
    Sampler::define(env, exports);
    Lora::define(env, exports);
    FileLock::define(env, exports);
    defineFileHash(env, exports);
    ReplyFormat::define(env, exports);
    defineBackends(env, exports);
    defineSchema(env, exports);
    defineLog(env, exports);
    defineGgufLayout(env, exports);
    defineStateFile(env, exports);
    exports.Set("setErrorFactory", Napi::Function::New(env, setErrorFactory, "setErrorFactory"));
    exports.Set("park", Napi::Function::New(env, park, "park"));
    exports.Set("llamaVersion", Napi::String::New(env, llama_version()));
    exports.Set("maxSequences", Napi::Number::New(env, (double) llama_max_parallel_sequences()));
    return exports;
}

}  // namespace

NODE_API_MODULE(llama_headstart, init)
