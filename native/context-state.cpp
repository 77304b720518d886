#include "context-state.h"

#include "llama-string.h"
#include "log.h"
#include "trap.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <thread>

#ifndef _WIN32
#include <unistd.h>
#endif

namespace {

ggml_type cacheType(Napi::Object options, const char * name) {
    static const std::map<std::string, ggml_type> types = {{"f32", GGML_TYPE_F32},      {"f16", GGML_TYPE_F16},
                                                           {"bf16", GGML_TYPE_BF16},    {"q8_0", GGML_TYPE_Q8_0},
                                                           {"q5_1", GGML_TYPE_Q5_1},    {"q5_0", GGML_TYPE_Q5_0},
                                                           {"q4_1", GGML_TYPE_Q4_1},    {"q4_0", GGML_TYPE_Q4_0},
                                                           {"iq4_nl", GGML_TYPE_IQ4_NL}};
    const std::string typeName = guard::optionalString(options, name, "f16");
    const auto type = types.find(typeName);
    if (type == types.end()) {
        throw Failure(
            "INVALID_ARGUMENT", std::string("Expected `") + name +
                                    "` to be one of f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl, got \"" +
                                    typeName + "\""
        );
    }
    return type->second;
}

constexpr std::pair<const char *, llama_rope_scaling_type> ROPE_SCALINGS[] = {
    {"model", LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED},
    {"none", LLAMA_ROPE_SCALING_TYPE_NONE},
    {"linear", LLAMA_ROPE_SCALING_TYPE_LINEAR},
    {"yarn", LLAMA_ROPE_SCALING_TYPE_YARN}
};

llama_rope_scaling_type ropeScaling(Napi::Object options) {
    const std::string value = guard::optionalString(options, "ropeScaling", "model");
    for (const auto & [name, scaling] : ROPE_SCALINGS) {
        if (value == name) {
            return scaling;
        }
    }
    throw Failure(
        "INVALID_ARGUMENT", "Expected `ropeScaling` to be one of model, none, linear, yarn, got \"" + value + "\""
    );
}

bool isUnified(Napi::Object options) {
    const std::string layout = guard::optionalString(options, "kvLayout", "unified");
    if (layout != "unified" && layout != "split") {
        throw Failure("INVALID_ARGUMENT", "Expected `kvLayout` to be one of unified, split, got \"" + layout + "\"");
    }
    return layout == "unified";
}

// Limits the number of threads to the number of cores. The threads of a graph wait for each other in a busy loop, so
// with more threads than cores, one token would take seconds.
int32_t threadCount(Napi::Object options, const char * name, int32_t fallback) {
    const int32_t cores = std::max(1, (int32_t) std::thread::hardware_concurrency());
    return std::min(cores, (int32_t) guard::optionalInteger(options, name, fallback, 1, GGML_MAX_N_THREADS));
}

// Describes everything that a sequence state depends on. A state can be restored only into a context with the same
// description.
std::string compatibilityOf(const ContextState & state) {
    const llama_model * model = state.model->model;
    char description[128];
    llama_model_desc(model, description, sizeof(description));
    const auto & p = state.params;
    return std::string(llama_version()) + "|" + description + "|" + std::to_string(llama_model_n_params(model)) + "|" +
           std::to_string(llama_model_n_embd(model)) + "x" + std::to_string(llama_model_n_layer(model)) + "x" +
           std::to_string(llama_model_n_head_kv(model)) + "|" + ggml_type_name(p.type_k) + "," +
           ggml_type_name(p.type_v) + "|streams=" + std::to_string(p.kv_unified ? 1 : p.n_seq_max) +
           "|rope=" + std::to_string(p.rope_freq_base) + "," + std::to_string(p.rope_freq_scale) + "," +
           std::to_string(p.rope_scaling_type) +
           "|fa=" + std::to_string(p.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_ENABLED) +
           "|swaFull=" + std::to_string(p.swa_full);
}

// Whether a part of the context's memory cannot be trimmed: a recurrent state, or a sliding window that drops old
// cells. A partial state contains only this part. Without such a part, a partial state is as large as a whole state.
//
// Two kinds of memory are exceptions to this comparison of sizes. A recurrent model has only memory that cannot be
// trimmed, so its partial and whole states have the same size. A sliding window that keeps all its cells (`swa_full`)
// can be trimmed, although llama.cpp puts it into partial states.
bool hasUntrimmablePart(const ContextState & state) {
    const llama_model * model = state.model->model;
    if (llama_model_is_recurrent(model) || llama_model_is_hybrid(model)) {
        return true;
    }
    if (state.params.swa_full && llama_model_n_swa(model) > 0) {
        return false;
    }
    AssertTrap trap;
    return llama_state_seq_get_size_ext(state.ctx, 0, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY) <
           llama_state_seq_get_size(state.ctx, 0);
}

// Looks up a function of the CPU backend in ggml's registry of backends. The addon cannot link to the function, because
// the backend may be loaded at run time.
template <class Function> Function cpuFunction(const char * name) {
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    void * address = cpu ? ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu), name) : nullptr;
    if (address == nullptr) {
        throw Failure("INTERNAL", std::string("The CPU backend has no function ") + name);
    }
    return reinterpret_cast<Function>(address);
}

void requireSizes(const llama_context_params & params) {
    if (params.n_seq_max > std::min(params.n_ctx, params.n_batch)) {
        throw Failure(
            "INVALID_ARGUMENT", "Expected `maxSequences` (" + std::to_string(params.n_seq_max) +
                                    ") to be at most `kvCells` (" + std::to_string(params.n_ctx) +
                                    ") and `batchSize` (" + std::to_string(params.n_batch) + ")"
        );
    }
    if (params.n_outputs_max < params.n_seq_max) {
        // llama.cpp reserves a row of logits for each sequence. It aborts the process if `n_outputs_max` is lower.
        throw Failure(
            "INVALID_ARGUMENT", "Expected `maxOutputs` (" + std::to_string(params.n_outputs_max) +
                                    ") to be at least `maxSequences` (" + std::to_string(params.n_seq_max) + ")"
        );
    }
    if (ggml_is_quantized(params.type_v) && params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_DISABLED) {
        throw Failure(
            "INVALID_ARGUMENT", "Expected `flashAttention` to be on for the quantized `valueType` " +
                                    std::string(ggml_type_name(params.type_v))
        );
    }
}

void requireCausalModel(const ModelState & model) {
    if (model.vocabOnly) {
        throw Failure(
            "UNSUPPORTED_MODEL", "This model was loaded with `vocabularyOnly`: it has no weights to decode with"
        );
    }
    if (llama_model_has_encoder(model.model) || !llama_model_has_decoder(model.model) ||
        llama_model_is_diffusion(model.model)) {
        throw Failure(
            "UNSUPPORTED_MODEL", "Expected a causal language model (decoder only), got an encoder or a diffusion model"
        );
    }
    const auto metadata = [&](const std::string & key) {
        return readLlamaString([&](char * to, size_t size) {
            return llama_model_meta_val_str(model.model, key.c_str(), to, size);
        });
    };
    if (metadata(metadata("general.architecture") + ".attention.causal") == "false") {
        throw Failure(
            "UNSUPPORTED_MODEL", "Expected a causal language model, got a model with bidirectional attention"
        );
    }
}

// Refuses a KV cache that needs more than twice the machine's memory. Its allocation would succeed. But llama.cpp then
// writes to the whole cache, and the machine would run out of memory.
void requireMemory([[maybe_unused]] const ModelState & model, [[maybe_unused]] const llama_context_params & params) {
#ifdef _SC_PHYS_PAGES
    const double memory = (double) sysconf(_SC_PHYS_PAGES) * (double) sysconf(_SC_PAGESIZE);
    const double headSize = (double) llama_model_n_embd(model.model) / std::max(1, llama_model_n_head(model.model));
    const double bytes = (double) params.n_ctx * (double) model.kvHeads * headSize *
                         ((double) ggml_type_size(params.type_k) / ggml_blck_size(params.type_k) +
                          (double) ggml_type_size(params.type_v) / ggml_blck_size(params.type_v));
    if (bytes > 2 * memory) {
        throw Failure(
            "OUT_OF_MEMORY", "A KV cache of " + std::to_string(params.n_ctx) + " cells needs about " +
                                 std::to_string((int64_t) (bytes / 1e9)) +
                                 " GB, more than this machine has: lower `kvCells`"
        );
    }
#endif
}

}  // namespace

std::string ropeScalingName(llama_rope_scaling_type type) {
    for (const auto & [name, scaling] : ROPE_SCALINGS) {
        if (scaling == type) {
            return name;
        }
    }
    return "model";
}

llama_context_params contextParamsFrom(Napi::Object options) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = (uint32_t) guard::optionalInteger(options, "kvCells", 4096, 1, 1 << 28);
    params.n_batch = (uint32_t) guard::optionalInteger(options, "batchSize", 512, 1, 1 << 20);
    params.n_ubatch =
        (uint32_t) guard::optionalInteger(options, "microBatchSize", std::min(512u, params.n_batch), 1, params.n_batch);
    params.n_seq_max =
        (uint32_t) guard::optionalInteger(options, "maxSequences", 1, 1, (int64_t) llama_max_parallel_sequences());
    params.n_outputs_max = (uint32_t) guard::optionalInteger(options, "maxOutputs", params.n_batch, 1, params.n_batch);
    params.n_threads = threadCount(options, "nThreads", 1);
    params.n_threads_batch = threadCount(options, "nThreadsBatch", params.n_threads);
    params.kv_unified = isUnified(options);
    params.swa_full = guard::optionalBoolean(options, "fullSlidingWindow", false);
    params.offload_kqv = guard::optionalBoolean(options, "offloadKv", true);
    params.type_k = cacheType(options, "keyType");
    params.type_v = cacheType(options, "valueType");
    // Not AUTO: llama.cpp does not report what AUTO chose, and states are compatible only with the same choice.
    params.flash_attn_type = guard::optionalBoolean(options, "flashAttention", true) ? LLAMA_FLASH_ATTN_TYPE_ENABLED
                                                                                     : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.rope_scaling_type = ropeScaling(options);
    params.rope_freq_base = (float) guard::optionalNumber(options, "ropeFrequencyBase", 0);
    params.rope_freq_scale = (float) guard::optionalNumber(options, "ropeFrequencyScale", 0);
    params.no_perf = true;
    for (const float rope : {params.rope_freq_base, params.rope_freq_scale}) {
        if (rope < 0 || !std::isfinite(rope)) {
            throw Failure(
                "INVALID_ARGUMENT", "Expected `ropeFrequencyBase` and `ropeFrequencyScale` to be finite numbers above "
                                    "0, or 0 for the value in the model file"
            );
        }
    }
    return params;
}

void requireFits(const ModelState & model, const llama_context_params & params) {
    requireSizes(params);
    requireCausalModel(model);
    requireMemory(model, params);
}

void createContext(ContextState & state) {
    LogCapture log;
    AssertTrap trap;
    state.params.abort_callback = [](void * userData) {
        auto & context = *static_cast<ContextState *>(userData);
        const auto * abort = context.soloAbort.load();
        return context.closing->load() || (abort && abort->load());
    };
    state.params.abort_callback_data = &state;
    {
        std::lock_guard<std::mutex> planning(state.model->lorasMutex);
        state.ctx = llama_init_from_model(state.model->model, state.params);
    }
    if (state.ctx == nullptr) {
        throw Failure("CONTEXT_FAILED", "llama.cpp could not create the context" + log.reason());
    }
    state.cells = llama_n_ctx(state.ctx);
    state.cellsPerSequence = llama_n_ctx_seq(state.ctx);
    state.batchSize = llama_n_batch(state.ctx);
    state.microBatchSize = llama_n_ubatch(state.ctx);
    state.vocabularySize = llama_vocab_n_tokens(state.model->vocab);
    state.maxOutputs = std::min(state.params.n_outputs_max, state.batchSize);

    ggml_threadpool_params pool = ggml_threadpool_params_default(state.maxThreads());
    pool.poll = 0;  // idle threads sleep instead of polling
    state.freePool = cpuFunction<decltype(&ggml_threadpool_free)>("ggml_threadpool_free");
    state.pool = cpuFunction<decltype(&ggml_threadpool_new)>("ggml_threadpool_new")(&pool);
    if (state.pool == nullptr) {
        throw Failure("OUT_OF_MEMORY", "The system refused to start the context's threads");
    }
    llama_attach_threadpool(state.ctx, state.pool, state.pool);
    state.compatibility = compatibilityOf(state);
    state.hasPartialStates = hasUntrimmablePart(state);
}

ContextState::~ContextState() {
    release();
    if (thread) {
        thread->stop();
    }
}

void ContextState::release() {
    if (ctx) {
        llama_free(ctx);
        ctx = nullptr;
    }
    if (pool) {
        freePool(pool);
        pool = nullptr;
    }
    loras.clear();
    model.reset();
}

void ContextState::shutDown() {
    if (!closing->exchange(true)) {
        retire();
    }
}

void ContextState::retire() {
    thread->post([self = shared_from_this()] { self->release(); });
    thread->stop();
}

void ContextState::requireOpen() const {
    if (*closing || ctx == nullptr) {
        throw Failure("CLOSED", "Expected an open context, but it was closed");
    }
}

int32_t ContextState::maxThreads() const { return std::max(params.n_threads, params.n_threads_batch); }
