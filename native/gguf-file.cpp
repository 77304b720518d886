#include "gguf-file.h"

#include "file.h"
#include "log.h"
#include "thread.h"
#include "trap.h"

namespace {

// Offsets and sizes are in bytes. The offsets of tensors count from `dataOffset`.
struct Layout {
    double dataOffset;
    std::vector<double> offsets, sizes;
};

Layout readLayout(const std::string & path) {
    requireModelFile(path);
    LogCapture log;
    AssertTrap trap;
    const Gguf gguf = openGguf(path);
    if (!gguf) {
        throw Failure("MODEL_INVALID", "Expected a GGUF file at \"" + path + "\"" + log.reason());
    }
    Layout layout{(double) gguf_get_data_offset(gguf.get()), {}, {}};
    for (int64_t i = 0; i < gguf_get_n_tensors(gguf.get()); i++) {
        layout.offsets.push_back((double) gguf_get_tensor_offset(gguf.get(), i));
        layout.sizes.push_back((double) gguf_get_tensor_size(gguf.get(), i));
    }
    return layout;
}

Napi::Value layoutObject(Napi::Env env, Layout & layout) {
    Napi::Object result = Napi::Object::New(env);
    result.Set("dataOffset", layout.dataOffset);
    result.Set("offsets", copyToJs(env, layout.offsets));
    result.Set("sizes", copyToJs(env, layout.sizes));
    return result;
}

Napi::Value ggufLayout(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        const std::string path = guard::path(info[0], "path");
        return runOn<Layout>(env, fileReader(), [path] { return readLayout(path); }, layoutObject);
    });
}

}  // namespace

Gguf openGguf(const std::string & path) {
    gguf_init_params params = {/*no_alloc*/ true, /*ctx*/ nullptr};
    return {gguf_init_from_file(path.c_str(), params), gguf_free};
}

void requireModelFile(const std::string & path) {
    requireRegularFile(path, "a GGUF file", "MODEL_NOT_FOUND", "MODEL_INVALID");
}

void defineGgufLayout(Napi::Env env, Napi::Object exports) {
    exports.Set("ggufLayout", Napi::Function::New(env, ggufLayout, "ggufLayout"));
}
