#include "state.h"

#include "state-file.h"

namespace {

constexpr int64_t MAX_RESERVED_BYTES = (int64_t) 256 << 20;
constexpr size_t PAGE_BYTES = 4096;

}  // namespace

SequenceState::SequenceState(const Napi::CallbackInfo & info)
    : Napi::ObjectWrap<SequenceState>(info),
      bytes_(
          nativeState<std::shared_ptr<const StateBytes>>(
              info, TAG, "Sequence states are made by captureSequence() and readFile()"
          )
      ) {
    // The garbage collector sees only a small object, so the addon reports the size of the native memory.
    Napi::MemoryManagement::AdjustExternalMemory(info.Env(), (int64_t) bytes_->size);
}

SequenceState::~SequenceState() {
    if (bytes_) {
        Napi::MemoryManagement::AdjustExternalMemory(Env(), -(int64_t) bytes_->size);
    }
}

Napi::Value SequenceState::wrap(Napi::Env env, std::shared_ptr<const StateBytes> bytes) {
    return Environment::of(env).stateClass.New({Napi::External<std::shared_ptr<const StateBytes>>::New(env, &bytes)});
}

std::shared_ptr<const StateBytes> SequenceState::from(Napi::Value value) {
    return unwrap<SequenceState>(value, "state", "a SequenceState").open();
}

std::shared_ptr<const StateBytes> SequenceState::open() const {
    if (!bytes_) {
        throw Failure("CLOSED", "Expected an open sequence state, but it was closed");
    }
    return bytes_;
}

Napi::Value SequenceState::readFile(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        const std::string path = guard::path(info[0], "path");
        Napi::Object options = info[1].IsUndefined() ? Napi::Object::New(env) : guard::object(info[1], "options");
        const bool unverified = guard::optionalBoolean(options, "unverified", false);
        auto abort = AbortFlag::from(options);
        return runOn<std::shared_ptr<const StateBytes>>(
            env, fileReader(), [path, unverified, abort] { return readStateFile(path, unverified, *abort); },
            [](Napi::Env env, std::shared_ptr<const StateBytes> & bytes) { return wrap(env, bytes); }
        );
    });
}

// Allocates a buffer, writes to all its pages and frees it. The next state of about this size reuses the buffer (see
// buffer.h). The system provides a page of memory only when the page is first written to. For all pages of a state,
// that can take longer than reading the file into them.
Napi::Value SequenceState::reserve(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        const auto size = (size_t) guard::integer(info[0], "bytes", 1, MAX_RESERVED_BYTES);
        return runOn<bool>(
            env, fileReader(),
            [size] {
                Buffer buffer(size);
                for (size_t at = 0; at < size; at += PAGE_BYTES) {
                    buffer.data()[at] = 0;
                }
                return true;
            },
            [](Napi::Env env, bool &) { return env.Undefined(); }
        );
    });
}

Napi::Value SequenceState::writeFile(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto bytes = open();
        if (bytes->partial) {
            throw Failure(
                "INVALID_ARGUMENT",
                "Expected a whole state for a file, got a partial state: capture it without `partial`"
            );
        }
        const std::string path = guard::path(info[0], "path");
        const std::string metadata = guard::string(info[1], "metadata");
        guard::requireShallowJson(metadata, "metadata");
        Napi::Object options = info[2].IsUndefined() ? Napi::Object::New(env) : guard::object(info[2], "options");
        auto abort = AbortFlag::from(options);
        return runOn<double>(
            env, fileWriter(),
            [bytes, path, metadata, abort] { return (double) writeStateFile(path, *bytes, metadata, *abort); },
            [](Napi::Env env, double & written) -> Napi::Value { return Napi::Number::New(env, written); }
        );
    });
}

Napi::Value SequenceState::share(const Napi::CallbackInfo & info) {
    return guard::call(info.Env(), [&]() -> Napi::Value { return wrap(info.Env(), open()); });
}

Napi::Value SequenceState::close(const Napi::CallbackInfo & info) {
    if (bytes_) {
        Napi::MemoryManagement::AdjustExternalMemory(info.Env(), -(int64_t) bytes_->size);
        bytes_.reset();
    }
    return info.Env().Undefined();
}

Napi::Value SequenceState::tokens(const Napi::CallbackInfo & info) {
    return guard::call(info.Env(), [&]() -> Napi::Value { return copyToJs(info.Env(), open()->tokens); });
}

Napi::Value SequenceState::byteLength(const Napi::CallbackInfo & info) {
    return guard::call(info.Env(), [&]() -> Napi::Value {
        return Napi::Number::New(info.Env(), (double) open()->size);
    });
}

Napi::Value SequenceState::isPartial(const Napi::CallbackInfo & info) {
    return guard::call(info.Env(), [&]() -> Napi::Value { return Napi::Boolean::New(info.Env(), open()->partial); });
}

Napi::Value SequenceState::metadata(const Napi::CallbackInfo & info) {
    return guard::call(info.Env(), [&]() -> Napi::Value { return Napi::String::New(info.Env(), open()->metadata); });
}

void SequenceState::define(Napi::Env env, Napi::Object exports) {
    Napi::Function type = DefineClass(
        env, "SequenceState",
        {StaticMethod<&SequenceState::readFile>("readFile"), StaticMethod<&SequenceState::reserve>("reserve"),
         InstanceMethod<&SequenceState::writeFile>("writeFile"), InstanceMethod<&SequenceState::share>("share"),
         InstanceMethod<&SequenceState::close>("close"), InstanceMethod<&SequenceState::tokens>("tokens"),
         InstanceMethod<&SequenceState::byteLength>("byteLength"),
         InstanceMethod<&SequenceState::isPartial>("isPartial"), InstanceMethod<&SequenceState::metadata>("metadata")}
    );
    Environment::of(env).stateClass = Napi::Persistent(type);
    exports.Set("SequenceState", type);
#ifdef HEADSTART_ASSERTIONS
    // Only for the test of kv-watch.h: copies a KV byte into the JavaScript heap, which kv-watch.h must detect.
    exports.Set("leakState", Napi::Function::New(env, [](const Napi::CallbackInfo & info) -> Napi::Value {
                    return guard::call(info.Env(), [&]() -> Napi::Value {
                        auto bytes = from(info[0]);
                        const auto * last = bytes->blob() + bytes->size - 1;
                        if (guard::string(info[1], "as") == "array") {
                            return copyToJs(info.Env(), last, 1);
                        }
                        return Napi::String::New(info.Env(), (const char *) last, 1);
                    });
                }));
#endif
}
