#include "model-load.h"

#include "gguf-file.h"
#include "llama-string.h"
#include "log.h"
#include "trap.h"

#include <climits>
#include <numeric>

namespace {

constexpr std::chrono::milliseconds PROGRESS_INTERVAL(50);

struct ProgressMessage : Message {
    void receive(Napi::Env env) override {
        auto & callbacks = Environment::of(env).callbacks;
        auto listener = callbacks.find(onProgress);
        if (listener != callbacks.end()) {
            listener->second.Call({Napi::Number::New(env, fraction)});
        }
    }

    uint32_t onProgress;
    float fraction;
};

// llama.cpp calls this function while it loads a model. Returns false to end the load.
bool reportProgress(float fraction, void * userData) {
    auto & request = *static_cast<LoadRequest *>(userData);
    if (request.abort->load() || Thread::parking()) {
        return false;
    }
    const auto now = std::chrono::steady_clock::now();
    if (request.onProgress && (fraction >= 1.0f || now - request.lastProgress > PROGRESS_INTERVAL)) {
        request.lastProgress = now;
        auto progress = std::make_shared<ProgressMessage>();
        progress->onProgress = request.onProgress;
        progress->fraction = fraction;
        request.inbox->deliver(progress);
    }
    return true;
}

llama_load_mode loadMode(bool useMmap, bool useMlock) {
    if (useMmap) {
        return useMlock ? LLAMA_LOAD_MODE_MMAP_MLOCK : LLAMA_LOAD_MODE_MMAP;
    }
    return useMlock ? LLAMA_LOAD_MODE_MLOCK : LLAMA_LOAD_MODE_NONE;
}

// Returns the sum of the KV heads of all layers of a hybrid model, from the list in its metadata. Returns -1 if the
// metadata has no such list.
int64_t listedKvHeads(const llama_model * model, const std::string & path) {
    const std::string architecture = readLlamaString([&](char * to, size_t size) {
        return llama_model_meta_val_str(model, "general.architecture", to, size);
    });
    const Gguf gguf = openGguf(path);
    const int64_t key = gguf ? gguf_find_key(gguf.get(), (architecture + ".attention.head_count_kv").c_str()) : -1;
    if (key < 0 || gguf_get_kv_type(gguf.get(), key) != GGUF_TYPE_ARRAY) {
        return -1;
    }
    const gguf_type type = gguf_get_arr_type(gguf.get(), key);
    if (type != GGUF_TYPE_INT32 && type != GGUF_TYPE_UINT32) {
        return -1;
    }
    const auto * heads = static_cast<const int32_t *>(gguf_get_arr_data(gguf.get(), key));
    return std::accumulate(heads, heads + gguf_get_arr_n(gguf.get(), key), (int64_t) 0);
}

// Returns the sum of the KV heads of all layers. llama_model_n_head_kv returns the number for the first layer only. In
// a hybrid model, that layer may have no attention.
int64_t countKvHeads(const llama_model * model, const std::string & path) {
    if (llama_model_n_layer(model) == 0) {
        return 0;  // loaded with `vocabularyOnly`: llama_model_n_head_kv would abort
    }
    const int64_t listed = llama_model_is_hybrid(model) ? listedKvHeads(model, path) : -1;
    return listed >= 0 ? listed : (int64_t) llama_model_n_head_kv(model) * llama_model_n_layer(model);
}

}  // namespace

std::shared_ptr<LoadRequest> loadRequestFrom(Napi::Env env, Napi::Object options) {
    auto request = std::make_shared<LoadRequest>();
    request->path = guard::path(options.Get("path"), "path");
    request->params.n_gpu_layers = (int32_t) guard::optionalInteger(options, "nGpuLayers", -1, -1, INT32_MAX);
    request->params.load_mode =
        loadMode(guard::optionalBoolean(options, "useMmap", true), guard::optionalBoolean(options, "useMlock", false));
    request->params.check_tensors = guard::optionalBoolean(options, "checkTensors", false);
    request->params.use_extra_bufts = guard::optionalBoolean(options, "repackWeights", true);
    request->params.vocab_only = guard::optionalBoolean(options, "vocabularyOnly", false);
    request->abort = AbortFlag::from(options);
    request->inbox = Environment::of(env).inbox;
    Napi::Value onProgress = options.Get("onProgress");
    if (!onProgress.IsUndefined()) {
        if (!onProgress.IsFunction()) {
            throw guard::invalid("onProgress", "a function", onProgress);
        }
        request->onProgress = Environment::of(env).addCallback(onProgress.As<Napi::Function>());
    }
    return request;
}

void loadModel(ModelState & state, LoadRequest & request) {
    requireModelFile(request.path);
    LogCapture log;
    AssertTrap trap;
    request.params.progress_callback = reportProgress;
    request.params.progress_callback_user_data = &request;
    state.model = llama_model_load_from_file(request.path.c_str(), request.params);
    if (state.model == nullptr) {
        if (request.abort->load()) {
            throw Failure("ABORTED", "The load of \"" + request.path + "\" was aborted");
        }
        throw Failure(
            "MODEL_INVALID", "Expected a GGUF model that llama.cpp can load at \"" + request.path + "\"" + log.reason()
        );
    }
    state.vocab = llama_model_get_vocab(state.model);
    state.kvHeads = countKvHeads(state.model, request.path);
}
