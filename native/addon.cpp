// Registration: the log hook, what each environment owns, and how it all ends.
#include "backends.h"
#include "context.h"
#include "file-hash.h"
#include "file-lock.h"
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

// A worker that ends, or the main thread that ends normally: its models and contexts go, before the heap they answer to.
void endEnvironment(Environment * environment) {
    environment->inbox->close();
    if (Thread::parking()) {
        return;  // the process is exiting, and no thread works any more
    }
    for (auto & known : environment->threads) {
        if (auto thread = known.lock()) {
            thread->interrupt();
            thread->stop();
        }
    }
    for (auto & known : environment->threads) {
        if (auto thread = known.lock()) {
            thread->waitUntilEnded();
        }
    }
}

// process.exit() runs no cleanup hooks, only JavaScript's "exit" event, where lib/native/addon.ts calls park(), and then, mixed with
// the destructors of statics that threads may be using, the atexit handlers: the one here is for those who bypass the event.
void startProcess() {
    static std::once_flag once;
    std::call_once(once, [] {
        installLogHook();
        installAssertTrap();
        std::atexit([] { Thread::parkAll(5000); });
    });
}

Napi::Value park(const Napi::CallbackInfo & info) { return Napi::Boolean::New(info.Env(), Thread::parkAll(5000)); }

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
    // Behind the inbox: hooks run last in, first out, and threads must be gone before its thread-safe function is.
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
    defineGguf(env, exports);
    defineStateFile(env, exports);
    exports.Set("setErrorFactory", Napi::Function::New(env, setErrorFactory, "setErrorFactory"));
    exports.Set("park", Napi::Function::New(env, park, "park"));
    exports.Set("llamaVersion", Napi::String::New(env, llama_version()));
    exports.Set("maxSequences", Napi::Number::New(env, (double) llama_max_parallel_sequences()));
    return exports;
}

}  // namespace

NODE_API_MODULE(llama_headstart, init)
