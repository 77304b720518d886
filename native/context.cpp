#include "context.h"

#include "log.h"
#include "sampler.h"
#include "trap.h"

#include <algorithm>
#include <chrono>
#include <climits>
#include <cstring>
#include <map>
#include <thread>

#ifndef _WIN32
#    include <unistd.h>
#endif

namespace {

// Committed as used. A sampler's trigger patterns (see sampler.cpp) are what needs most of it.
constexpr size_t CONTEXT_STACK_BYTES = (size_t) 64 << 20;

class Stopwatch {
  public:
    explicit Stopwatch(std::atomic<uint64_t> & total) : total_(total) {}
    ~Stopwatch() { total_ += (uint64_t) std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start_).count(); }

  private:
    std::atomic<uint64_t> &               total_;
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// --- creation --------------------------------------------------------------------------------------------------------

ggml_type cacheType(Napi::Object options, const char * name) {
    static const std::map<std::string, ggml_type> types = {
        {"f32", GGML_TYPE_F32},   {"f16", GGML_TYPE_F16},   {"bf16", GGML_TYPE_BF16}, {"q8_0", GGML_TYPE_Q8_0},   {"q5_1", GGML_TYPE_Q5_1},
        {"q5_0", GGML_TYPE_Q5_0}, {"q4_1", GGML_TYPE_Q4_1}, {"q4_0", GGML_TYPE_Q4_0}, {"iq4_nl", GGML_TYPE_IQ4_NL}};
    const std::string asked = guard::optionalString(options, name, "f16");
    const auto        found = types.find(asked);
    if (found == types.end()) {
        throw Failure("INVALID_ARGUMENT", std::string("Expected `") + name + "` to be one of f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl, got \"" + asked + "\"");
    }
    return found->second;
}

// Threads of one graph wait for each other in a busy loop: with more of them than cores, one token takes seconds.
int32_t threadCount(Napi::Object options, const char * name, int32_t fallback) {
    const int32_t cores = std::max(1, (int32_t) std::thread::hardware_concurrency());
    return std::min(cores, (int32_t) guard::optionalInteger(options, name, fallback, 1, GGML_MAX_N_THREADS));
}

llama_context_params paramsFrom(Napi::Object options) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx           = (uint32_t) guard::optionalInteger(options, "kvCells", 4096, 1, 1 << 28);
    params.n_batch         = (uint32_t) guard::optionalInteger(options, "batchSize", 512, 1, 1 << 20);
    params.n_ubatch        = (uint32_t) guard::optionalInteger(options, "microBatchSize", std::min(512u, params.n_batch), 1, params.n_batch);
    params.n_seq_max       = (uint32_t) guard::optionalInteger(options, "maxSequences", 1, 1, (int64_t) llama_max_parallel_sequences());
    params.n_outputs_max   = (uint32_t) guard::optionalInteger(options, "maxOutputs", params.n_batch, 1, params.n_batch);
    params.n_threads       = threadCount(options, "threads", 1);
    params.n_threads_batch = threadCount(options, "batchThreads", params.n_threads);
    params.kv_unified      = guard::optionalBoolean(options, "unified", true);
    params.swa_full        = guard::optionalBoolean(options, "fullSlidingWindow", false);
    params.offload_kqv     = guard::optionalBoolean(options, "offloadKv", true);
    params.type_k          = cacheType(options, "keyType");
    params.type_v          = cacheType(options, "valueType");
    // On or off, never AUTO: nothing tells what AUTO chose, and the choice is part of what a state is compatible with.
    params.flash_attn_type = guard::optionalBoolean(options, "flashAttention", true) ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.rope_freq_base  = (float) guard::optionalNumber(options, "ropeFrequencyBase", 0);
    params.rope_freq_scale = (float) guard::optionalNumber(options, "ropeFrequencyScale", 0);
    params.no_perf         = true;
    for (const float rope : {params.rope_freq_base, params.rope_freq_scale}) {
        if (rope < 0 || !std::isfinite(rope)) {
            throw Failure("INVALID_ARGUMENT", "Expected `ropeFrequencyBase` and `ropeFrequencyScale` to be 0 (the model's own) or finite floats above");
        }
    }
    return params;
}

// Each of these would reach an assert, or an endless allocation, inside llama.cpp.
void requireFits(const ModelState & model, const llama_context_params & params) {
    if (params.n_seq_max > std::min(params.n_ctx, params.n_batch)) {
        throw Failure("INVALID_ARGUMENT", "Expected `maxSequences` (" + std::to_string(params.n_seq_max) + ") to be at most `kvCells` (" +
                                              std::to_string(params.n_ctx) + ") and `batchSize` (" + std::to_string(params.n_batch) + ")");
    }
    if (ggml_is_quantized(params.type_v) && params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_DISABLED) {
        throw Failure("INVALID_ARGUMENT", "Expected `flashAttention` to be on for the quantised `valueType` " + std::string(ggml_type_name(params.type_v)));
    }
    if (model.vocabOnly) {
        throw Failure("UNSUPPORTED_MODEL", "This model was loaded with `vocabularyOnly`: it has no weights to decode with");
    }
    if (llama_model_has_encoder(model.model) || !llama_model_has_decoder(model.model) || llama_model_is_diffusion(model.model)) {
        throw Failure("UNSUPPORTED_MODEL", "Expected a causal language model (decoder only), got one that encodes or diffuses");
    }
    char causal[8] = "";
    char key[128];
    char architecture[64] = "";
    llama_model_meta_val_str(model.model, "general.architecture", architecture, sizeof(architecture));
    snprintf(key, sizeof(key), "%s.attention.causal", architecture);
    if (llama_model_meta_val_str(model.model, key, causal, sizeof(causal)) > 0 && std::string(causal) == "false") {
        throw Failure("UNSUPPORTED_MODEL", "Expected a causal language model, got one with bidirectional attention");
    }
#ifdef _SC_PHYS_PAGES
    // The cache is written at once, so an oversized one does not fail: it drives the machine out of memory.
    const double memory   = (double) sysconf(_SC_PHYS_PAGES) * (double) sysconf(_SC_PAGESIZE);
    const double headSize = (double) llama_model_n_embd(model.model) / std::max(1, llama_model_n_head(model.model));
    const double bytes    = (double) params.n_ctx * (double) model.kvHeads * headSize *
                         ((double) ggml_type_size(params.type_k) / ggml_blck_size(params.type_k) + (double) ggml_type_size(params.type_v) / ggml_blck_size(params.type_v));
    if (bytes > 2 * memory) {
        throw Failure("OUT_OF_MEMORY", "A KV cache of " + std::to_string(params.n_ctx) + " cells needs about " + std::to_string((int64_t) (bytes / 1e9)) +
                                           " GB, more than this machine has: lower `kvCells`");
    }
#endif
}

std::string compatibilityOf(const ContextState & state) {
    const llama_model * model = state.model->model;
    char                description[128];
    llama_model_desc(model, description, sizeof(description));
    const auto & p = state.params;
    return std::string(llama_version()) + "|" + description + "|" + std::to_string(llama_model_n_params(model)) + "|" + std::to_string(llama_model_n_embd(model)) +
           "x" + std::to_string(llama_model_n_layer(model)) + "x" + std::to_string(llama_model_n_head_kv(model)) + "|" + ggml_type_name(p.type_k) + "," +
           ggml_type_name(p.type_v) + "|streams=" + std::to_string(p.kv_unified ? 1 : p.n_seq_max) +
           "|fa=" + std::to_string(p.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_ENABLED) + "|swaFull=" + std::to_string(p.swa_full);
}

// Through the registry, as a CPU backend that was loaded at run time has no symbols to link to.
template <class Function> Function cpuFunction(const char * name) {
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    void * address = cpu ? ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu), name) : nullptr;
    if (address == nullptr) {
        throw Failure("INTERNAL", std::string("The CPU backend does not offer ") + name);
    }
    return reinterpret_cast<Function>(address);
}

void createIn(ContextState & state) {
    LogCapture log;
    AssertTrap trap;
    state.params.abort_callback      = [](void * closing) { return static_cast<std::atomic<bool> *>(closing)->load(); };
    state.params.abort_callback_data = state.closing.get();
    {
        std::lock_guard<std::mutex> planning(state.model->lorasMutex);
        state.ctx = llama_init_from_model(state.model->model, state.params);
    }
    if (state.ctx == nullptr) {
        throw Failure("CONTEXT_FAILED", "llama.cpp could not create the context" + log.reason());
    }
    state.cells            = llama_n_ctx(state.ctx);
    state.cellsPerSequence = llama_n_ctx_seq(state.ctx);
    state.batchSize        = llama_n_batch(state.ctx);
    state.microBatchSize   = llama_n_ubatch(state.ctx);
    state.vocabularySize   = llama_vocab_n_tokens(state.model->vocab);
    state.maxOutputs       = std::min(state.params.n_outputs_max, state.batchSize);

    ggml_threadpool_params pool = ggml_threadpool_params_default(std::max(state.params.n_threads, state.params.n_threads_batch));
    pool.poll  = 0;  // idle threads sleep
    state.pool = cpuFunction<decltype(&ggml_threadpool_new)>("ggml_threadpool_new")(&pool);
    if (state.pool == nullptr) {
        throw Failure("OUT_OF_MEMORY", "The system refused to start the context's threads");
    }
    llama_attach_threadpool(state.ctx, state.pool, state.pool);
    state.compatibility = compatibilityOf(state);
}

// --- decode ----------------------------------------------------------------------------------------------------------

struct Batch {
    std::vector<int32_t> tokens, positions, sequences;
    std::vector<int8_t>  outputs;
    SamplerLeases        samplers;  // empty, or one a row
};

Batch batchFrom(const ContextState & state, Napi::Object object) {
    Batch batch;
    batch.tokens    = guard::int32s(object.Get("tokens"), "tokens");
    batch.positions = guard::int32s(object.Get("positions"), "positions");
    batch.sequences = guard::int32s(object.Get("sequences"), "sequences");
    const std::vector<uint8_t> outputs = guard::bytes(object.Get("outputs"), "outputs");
    batch.outputs.assign(outputs.begin(), outputs.end());

    const size_t count = batch.tokens.size();
    if (batch.positions.size() != count || batch.sequences.size() != count || batch.outputs.size() != count) {
        throw Failure("INVALID_ARGUMENT", "Expected `tokens`, `positions`, `sequences` and `outputs` of one length, got " + std::to_string(count) + ", " +
                                              std::to_string(batch.positions.size()) + ", " + std::to_string(batch.sequences.size()) + " and " +
                                              std::to_string(batch.outputs.size()));
    }
    if (count == 0 || count > state.batchSize) {
        throw Failure("BATCH_SIZE", "Expected a batch of 1 to " + std::to_string(state.batchSize) + " tokens, got " + std::to_string(count));
    }
    const size_t rows = (size_t) std::count_if(outputs.begin(), outputs.end(), [](uint8_t flag) { return flag != 0; });
    if (rows > state.maxOutputs) {
        throw Failure("BATCH_SIZE", "Expected at most " + std::to_string(state.maxOutputs) + " output rows (`maxOutputs`), got " + std::to_string(rows));
    }
    std::map<int32_t, int32_t> next;
    for (size_t i = 0; i < count; i++) {
        const auto at = " at index " + std::to_string(i);
        if (batch.tokens[i] < 0 || batch.tokens[i] >= state.vocabularySize) {
            throw Failure("TOKEN_OUT_OF_RANGE", "Expected token ids from 0 to " + std::to_string(state.vocabularySize - 1) + ", got " + std::to_string(batch.tokens[i]) + at);
        }
        if (batch.sequences[i] < 0 || batch.sequences[i] >= (int32_t) state.params.n_seq_max) {
            throw Failure("SEQUENCE_OUT_OF_RANGE", "Expected sequence ids from 0 to " + std::to_string(state.params.n_seq_max - 1) + ", got " +
                                                       std::to_string(batch.sequences[i]) + at);
        }
        const auto known = next.find(batch.sequences[i]);
        if (batch.positions[i] < 0 || batch.positions[i] == INT32_MAX || (known != next.end() && batch.positions[i] != known->second)) {
            throw Failure("POSITION_INVALID", "Expected the positions of sequence " + std::to_string(batch.sequences[i]) + " to go up one by one from 0 or more, got " +
                                                  std::to_string(batch.positions[i]) + at);
        }
        next[batch.sequences[i]] = batch.positions[i] + 1;
    }
    batch.samplers = samplersFrom(object.Get("samplers"), rows, state.owner);
    return batch;
}

// A batch must go on where its sequences end: on the context's thread, where that cannot change meanwhile.
void requireContiguous(const ContextState & state, const Batch & batch) {
    std::map<int32_t, bool> seen;
    for (size_t i = 0; i < batch.tokens.size(); i++) {
        const int32_t sequence = batch.sequences[i];
        if (!seen.emplace(sequence, true).second) {
            continue;
        }
        const llama_pos expected = llama_memory_seq_pos_max(llama_get_memory(state.ctx), sequence) + 1;
        if (batch.positions[i] != expected) {
            throw Failure("POSITION_INVALID", "Expected sequence " + std::to_string(sequence) + " to go on at position " + std::to_string(expected) + ", got " +
                                                  std::to_string(batch.positions[i]));
        }
    }
}

llama_token argmax(const float * logits, int32_t size) { return (llama_token) (std::max_element(logits, logits + size) - logits); }

std::vector<int32_t> decodeBatch(ContextState & state, Batch & batch, const std::atomic<bool> & abort) {
    state.requireOpen();
    if (abort) {
        throw Failure("ABORTED", "The decode was aborted before it began");
    }
    requireContiguous(state, batch);
    LogCapture                   log;
    const size_t                 count = batch.tokens.size();
    std::vector<int32_t>         one(count, 1);
    std::vector<llama_seq_id *>  sequences(count);
    for (size_t i = 0; i < count; i++) {
        sequences[i] = &batch.sequences[i];
    }
    llama_batch native{(int32_t) count, batch.tokens.data(), nullptr, batch.positions.data(), one.data(), sequences.data(), batch.outputs.data()};

    int32_t status;
    state.lastOutputs.clear();
    {
        std::unique_lock<std::mutex> planning(state.model->lorasMutex, std::defer_lock);
        if (state.lorasChanged) {
            planning.lock();
            state.lorasChanged = false;
        }
        Stopwatch watch(state.counters.decodeMicros);
        status = llama_decode(state.ctx, native);
        llama_synchronize(state.ctx);
    }
    if (status == 1) {
        throw Failure("NO_KV_SLOT", "The KV cache has no room for a batch of " + std::to_string(count) + " tokens");
    }
    if (status == 2) {
        throw Failure("CLOSED", "The decode was ended because its context was closed");
    }
    if (status != 0) {
        throw Failure("DECODE_FAILED", "llama.cpp could not decode the batch (status " + std::to_string(status) + ")" + log.reason());
    }
    state.counters.decodes++;
    state.counters.decodedTokens += count;

    std::vector<int32_t> picks;
    for (size_t i = 0; i < count; i++) {
        if (batch.outputs[i]) {
            const SamplerLease * sampler = batch.samplers.empty() ? nullptr : batch.samplers[picks.size()].get();
            picks.push_back(sampler ? (*sampler)->pick(state.ctx, (int32_t) i) : argmax(llama_get_logits_ith(state.ctx, (int32_t) i), state.vocabularySize));
        }
    }
    state.lastOutputs = std::move(batch.outputs);
    return picks;
}

// --- sequences -------------------------------------------------------------------------------------------------------

bool isEmpty(const ContextState & state, llama_seq_id sequence) { return llama_memory_seq_pos_max(llama_get_memory(state.ctx), sequence) < 0; }

void requireEmpty(const ContextState & state, llama_seq_id sequence) {
    if (!isEmpty(state, sequence)) {
        throw Failure("SEQUENCE_NOT_EMPTY", "Expected sequence " + std::to_string(sequence) + " to be empty: remove it first");
    }
}

void copyWithin(ContextState & state, llama_seq_id source, llama_seq_id target) {
    state.requireOpen();
    if (!state.params.kv_unified) {
        throw Failure("NOT_UNIFIED", "Sequences share cells only in a unified KV cache: capture and restore in split streams");
    }
    requireEmpty(state, target);
    if (isEmpty(state, source)) {
        throw Failure("SEQUENCE_EMPTY", "Expected sequence " + std::to_string(source) + " to hold tokens");
    }
    llama_memory_seq_cp(llama_get_memory(state.ctx), source, target, -1, -1);
    state.counters.copies++;
}

std::shared_ptr<const StateBytes> capture(ContextState & state, llama_seq_id sequence, std::vector<int32_t> tokens) {
    state.requireOpen();
    const llama_pos last = llama_memory_seq_pos_max(llama_get_memory(state.ctx), sequence);
    if (last + 1 != (llama_pos) tokens.size() || tokens.empty()) {
        throw Failure("TOKENS_MISMATCH", "Expected the " + std::to_string(last + 1) + " tokens of sequence " + std::to_string(sequence) + " (at least one), got " +
                                             std::to_string(tokens.size()));
    }
    LogCapture log;
    AssertTrap trap;
    Stopwatch  watch(state.counters.captureMicros);
    auto       bytes  = std::make_shared<StateBytes>();
    bytes->size          = llama_state_seq_get_size(state.ctx, sequence);
    bytes->buffer        = Buffer(bytes->size);
    bytes->tokens        = std::move(tokens);
    bytes->compatibility = state.compatibility;
    if (bytes->size <= BLOB_HEADER_BYTES || llama_state_seq_get_data(state.ctx, bytes->buffer.data(), bytes->size, sequence) == 0) {
        throw Failure("CAPTURE_FAILED", "llama.cpp could not give the state of sequence " + std::to_string(sequence) + log.reason());
    }
    state.counters.captures++;
    state.counters.capturedBytes += bytes->size;
    return bytes;
}

void restore(ContextState & state, llama_seq_id sequence, const StateBytes & bytes) {
    state.requireOpen();
    if (!bytes.compatibility.empty() && bytes.compatibility != state.compatibility) {
        throw Failure("STATE_INCOMPATIBLE", "Expected a state of \"" + state.compatibility + "\", got one of \"" + bytes.compatibility + "\"");
    }
    if (bytes.tokens.size() > state.cellsPerSequence) {
        throw Failure("NO_KV_SLOT", "A state of " + std::to_string(bytes.tokens.size()) + " tokens does not fit " + std::to_string(state.cellsPerSequence) + " cells");
    }
    requireEmpty(state, sequence);
    LogCapture     log;
    AssertTrap     trap;
    Stopwatch      watch(state.counters.restoreMicros);
    llama_memory_t memory = llama_get_memory(state.ctx);
    const size_t   read   = llama_state_seq_set_data(state.ctx, bytes.blob(), bytes.size, sequence);
    if (read == 0 || llama_memory_seq_pos_max(memory, sequence) + 1 != (llama_pos) bytes.tokens.size()) {
        // Tensor writes are queued and flushed even when a restore fails: nothing of this sequence can be trusted.
        llama_memory_seq_rm(memory, sequence, -1, -1);
        // It says why in words only: "failed to find 40 available cells in kv cache", "not enough cells in kv cache".
        if (log.lines.find("cells in kv cache") != std::string::npos) {
            throw Failure("NO_KV_SLOT", "The KV cache has no room for a state of " + std::to_string(bytes.tokens.size()) + " tokens");
        }
        throw Failure("RESTORE_FAILED", "llama.cpp could not restore the state into sequence " + std::to_string(sequence) + log.reason());
    }
    state.counters.restores++;
    state.counters.restoredBytes += bytes.size;
}

// llama.cpp's own reader: for its files, and to show that ours are files of its.
std::vector<int32_t> loadWithLlama(ContextState & state, llama_seq_id sequence, const std::string & path) {
    state.requireOpen();
    requireEmpty(state, sequence);
    LogCapture           log;
    AssertTrap           trap;
    std::vector<int32_t> tokens(state.cellsPerSequence);
    size_t               count = 0;
    if (llama_state_seq_load_file(state.ctx, path.c_str(), sequence, tokens.data(), tokens.size(), &count) == 0) {
        llama_memory_seq_rm(llama_get_memory(state.ctx), sequence, -1, -1);
        throw Failure("RESTORE_FAILED", "llama.cpp could not load \"" + path + "\"" + log.reason());
    }
    tokens.resize(count);
    return tokens;
}

Napi::Value toInt32Array(Napi::Env env, std::vector<int32_t> & values) {
    Napi::Int32Array array = Napi::Int32Array::New(env, values.size());
    std::copy(values.begin(), values.end(), array.Data());
    return array;
}

Napi::Value toUndefined(Napi::Env env, bool &) { return env.Undefined(); }

}  // namespace

// --- ContextState ----------------------------------------------------------------------------------------------------

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
        cpuFunction<decltype(&ggml_threadpool_free)>("ggml_threadpool_free")(pool);
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

// --- Context ---------------------------------------------------------------------------------------------------------

Context::Context(const Napi::CallbackInfo & info) : Napi::ObjectWrap<Context>(info) {
    Napi::Env env = info.Env();
    if (!info[0].IsExternal()) {
        throw Napi::Error(env, errorFrom(env, "INVALID_ARGUMENT", "Contexts are made by Context.create()"));
    }
    info.This().As<Napi::Object>().TypeTag(&TAG);
    state_ = *info[0].As<Napi::External<std::shared_ptr<ContextState>>>().Data();
}

Context::~Context() {
    if (state_) {
        state_->retire();
    }
}

std::shared_ptr<ContextState> Context::open() const {
    if (*state_->closing) {
        throw Failure("CLOSED", "Expected an open context, but it was closed");
    }
    return state_;
}

llama_seq_id Context::sequence(Napi::Value value, const char * what) const {
    const int64_t last = (int64_t) state_->params.n_seq_max - 1;
    const double  got  = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1;
    if (!(got >= 0 && got <= (double) last) || got != std::floor(got)) {
        Failure failure = guard::invalid(what, "a sequence id from 0 to " + std::to_string(last), value);
        throw Failure(value.IsNumber() ? "SEQUENCE_OUT_OF_RANGE" : "INVALID_ARGUMENT", failure.what());
    }
    return (llama_seq_id) got;
}

Napi::Value Context::create(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto state    = std::make_shared<ContextState>();
        state->params = paramsFrom(guard::object(info[1], "options"));  // first: a getter in it may close the model
        state->model  = unwrap<Model>(info[0], "model", "a Model").state();
        state->owner  = state->model.get();
        requireFits(*state->model, state->params);
        state->thread = Thread::start(CONTEXT_STACK_BYTES, [closing = state->closing] { closing->store(true); });
        Environment::of(env).adopt(state->thread);
        auto & siblings = state->model->contexts;
        siblings.erase(std::remove_if(siblings.begin(), siblings.end(), [](auto & known) { return known.expired(); }), siblings.end());
        siblings.push_back(state);
        Thread & thread = *state->thread;
        return runOn<std::shared_ptr<ContextState>>(
            env, thread,
            [state] {
                createIn(*state);
                return state;
            },
            [](Napi::Env env, std::shared_ptr<ContextState> & created) -> Napi::Value {
                return Environment::of(env).contextClass.New({Napi::External<std::shared_ptr<ContextState>>::New(env, &created)});
            });
    });
}

Napi::Value Context::close(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        if (closing_.IsEmpty()) {
            state_->shutDown();
            // Not on the context's thread: its end is what is waited for.
            Napi::Value done = runOn<bool>(
                env, fileReader(),
                [thread = state_->thread] {
                    thread->waitUntilEnded();
                    return true;
                },
                toUndefined);
            closing_ = Napi::Persistent(done.As<Napi::Promise>());
        }
        return closing_.Value();
    });
}

Napi::Value Context::info(const Napi::CallbackInfo & info) {
    return guard::call(info.Env(), [&]() -> Napi::Value {
        auto         state = open();
        Napi::Object facts = Napi::Object::New(info.Env());
        facts.Set("kvCells", state->cells);
        facts.Set("kvCellsPerSequence", state->cellsPerSequence);
        facts.Set("batchSize", state->batchSize);
        facts.Set("microBatchSize", state->microBatchSize);
        facts.Set("maxSequences", state->params.n_seq_max);
        facts.Set("maxOutputs", state->maxOutputs);
        facts.Set("threads", state->params.n_threads);
        facts.Set("batchThreads", state->params.n_threads_batch);
        facts.Set("unified", Napi::Boolean::New(info.Env(), state->params.kv_unified));
        facts.Set("flashAttention", Napi::Boolean::New(info.Env(), state->params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_ENABLED));
        facts.Set("fullSlidingWindow", Napi::Boolean::New(info.Env(), state->params.swa_full));
        facts.Set("keyType", ggml_type_name(state->params.type_k));
        facts.Set("valueType", ggml_type_name(state->params.type_v));
        facts.Set("ropeFrequencyBase", state->params.rope_freq_base);
        facts.Set("ropeFrequencyScale", state->params.rope_freq_scale);
        facts.Set("compatibility", state->compatibility);
        return facts;
    });
}

Napi::Value Context::loadFile(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto              state = open();
        const auto        id    = sequence(info[0], "sequence");
        const std::string path  = guard::path(info[1], "path");
        return runOn<std::vector<int32_t>>(
            env, *state->thread, [state, id, path] { return loadWithLlama(*state, id, path); }, toInt32Array);
    });
}

Napi::Value Context::counters(const Napi::CallbackInfo & info) {
    Napi::Object     result = Napi::Object::New(info.Env());
    const Counters & c      = state_->counters;
    const auto number = [&](const char * name, uint64_t value, double scale = 1) { result.Set(name, Napi::Number::New(info.Env(), (double) value / scale)); };
    number("decodes", c.decodes);
    number("decodedTokens", c.decodedTokens);
    number("decodeMs", c.decodeMicros, 1000);
    number("captures", c.captures);
    number("capturedBytes", c.capturedBytes);
    number("captureMs", c.captureMicros, 1000);
    number("restores", c.restores);
    number("restoredBytes", c.restoredBytes);
    number("restoreMs", c.restoreMicros, 1000);
    number("copies", c.copies);
    return result;
}

Napi::Value Context::decode(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto         state  = open();
        Napi::Object object = guard::object(info[0], "batch");
        auto         batch  = std::make_shared<Batch>(batchFrom(*state, object));
        auto         abort  = AbortFlag::from(object);
        return runOn<std::vector<int32_t>>(
            env, *state->thread, releasing<std::vector<int32_t>>([batch] { batch->samplers.clear(); }, [state, batch, abort] { return decodeBatch(*state, *batch, *abort); }),
            [batch](Napi::Env env, std::vector<int32_t> & picks) {
                batch->samplers.clear();
                return toInt32Array(env, picks);
            });
    });
}

Napi::Value Context::logits(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto       state = open();
        const auto row   = (int32_t) guard::integer(info[0], "row", 0, state->batchSize - 1);
        return runOn<std::vector<float>>(
            env, *state->thread,
            [state, row] {
                state->requireOpen();
                if ((size_t) row >= state->lastOutputs.size() || !state->lastOutputs[(size_t) row]) {
                    throw Failure("ROW_HAS_NO_OUTPUT", "Expected a row of the newest batch that asked for output, got " + std::to_string(row));
                }
                const float * logits = llama_get_logits_ith(state->ctx, row);
                return std::vector<float>(logits, logits + state->vocabularySize);
            },
            [](Napi::Env env, std::vector<float> & logits) -> Napi::Value {
                Napi::Float32Array array = Napi::Float32Array::New(env, logits.size());
                std::copy(logits.begin(), logits.end(), array.Data());
                return array;
            });
    });
}

Napi::Value Context::removeSequence(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto       state = open();
        const auto id    = sequence(info[0], "sequence");
        const auto from  = (llama_pos) (info[1].IsUndefined() ? 0 : guard::integer(info[1], "from", 0, INT32_MAX));
        const auto to    = (llama_pos) (info[2].IsUndefined() ? -1 : guard::integer(info[2], "to", 0, INT32_MAX));
        return runOn<bool>(
            env, *state->thread,
            [state, id, from, to] {
                state->requireOpen();
                return llama_memory_seq_rm(llama_get_memory(state->ctx), id, from == 0 ? -1 : from, to);
            },
            [](Napi::Env env, bool & removed) -> Napi::Value { return Napi::Boolean::New(env, removed); });
    });
}

Napi::Value Context::copySequence(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto       state  = open();
        const auto source = sequence(info[0], "source");
        const auto target = sequence(info[1], "target");
        return runOn<bool>(
            env, *state->thread,
            [state, source, target] {
                copyWithin(*state, source, target);
                return true;
            },
            toUndefined);
    });
}

Napi::Value Context::keepSequence(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto       state = open();
        const auto id    = sequence(info[0], "sequence");
        return runOn<bool>(
            env, *state->thread,
            [state, id] {
                state->requireOpen();
                // Not llama_memory_seq_keep: in split streams it clears one stream only.
                for (llama_seq_id other = 0; other < (llama_seq_id) state->params.n_seq_max; other++) {
                    if (other != id) {
                        llama_memory_seq_rm(llama_get_memory(state->ctx), other, -1, -1);
                    }
                }
                return true;
            },
            toUndefined);
    });
}

Napi::Value Context::positionRange(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto       state = open();
        const auto id    = sequence(info[0], "sequence");
        return runOn<std::pair<llama_pos, llama_pos>>(
            env, *state->thread,
            [state, id] {
                state->requireOpen();
                llama_memory_t memory = llama_get_memory(state->ctx);
                return std::make_pair(llama_memory_seq_pos_min(memory, id), llama_memory_seq_pos_max(memory, id));
            },
            [](Napi::Env env, std::pair<llama_pos, llama_pos> & range) -> Napi::Value {
                Napi::Object result = Napi::Object::New(env);
                result.Set("first", range.first);
                result.Set("last", range.second);
                return result;
            });
    });
}

Napi::Value Context::clear(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto state = open();
        return runOn<bool>(
            env, *state->thread,
            [state] {
                state->requireOpen();
                llama_memory_clear(llama_get_memory(state->ctx), true);
                return true;
            },
            toUndefined);
    });
}

Napi::Value Context::captureSequence(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto       state  = open();
        const auto id     = sequence(info[0], "sequence");
        auto       tokens = guard::int32s(info[1], "tokens");
        return runOn<std::shared_ptr<const StateBytes>>(
            env, *state->thread, [state, id, tokens] { return capture(*state, id, tokens); },
            [](Napi::Env env, std::shared_ptr<const StateBytes> & bytes) { return SequenceState::wrap(env, bytes); });
    });
}

Napi::Value Context::restoreSequence(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto       state = open();
        const auto id    = sequence(info[0], "sequence");
        auto       bytes = SequenceState::from(info[1]);
        return runOn<bool>(
            env, *state->thread,
            [state, id, bytes] {
                restore(*state, id, *bytes);
                return true;
            },
            toUndefined);
    });
}

void Context::define(Napi::Env env, Napi::Object exports) {
    Napi::Function type = DefineClass(
        env, "Context",
        {StaticMethod<&Context::create>("create"), InstanceMethod<&Context::close>("close"), InstanceMethod<&Context::info>("info"),
         InstanceMethod<&Context::counters>("counters"), InstanceMethod<&Context::decode>("decode"), InstanceMethod<&Context::logits>("logits"),
         InstanceMethod<&Context::logProbabilities>("logProbabilities"), InstanceMethod<&Context::setLoras>("setLoras"),
         InstanceMethod<&Context::removeSequence>("removeSequence"), InstanceMethod<&Context::copySequence>("copySequence"),
         InstanceMethod<&Context::keepSequence>("keepSequence"), InstanceMethod<&Context::positionRange>("positionRange"),
         InstanceMethod<&Context::clear>("clear"), InstanceMethod<&Context::captureSequence>("captureSequence"),
         InstanceMethod<&Context::restoreSequence>("restoreSequence"), InstanceMethod<&Context::loadFile>("loadFile")});
    Environment::of(env).contextClass = Napi::Persistent(type);
    exports.Set("Context", type);
}
