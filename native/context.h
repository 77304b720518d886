// An inference context: the KV cache and the one thread that decodes into it, with a ggml threadpool attached.
#pragma once

#include "lora.h"
#include "model.h"
#include "state.h"

#include <atomic>
#include <memory>
#include <string>
#include <vector>

// Since the context was made. Microseconds are the context thread's own.
struct Counters {
    std::atomic<uint64_t> decodes{0}, decodedTokens{0}, decodeMicros{0};
    std::atomic<uint64_t> captures{0}, capturedBytes{0}, captureMicros{0};
    std::atomic<uint64_t> restores{0}, restoredBytes{0}, restoreMicros{0};
    std::atomic<uint64_t> copies{0};
};

struct ContextState : std::enable_shared_from_this<ContextState> {
    ~ContextState();

    // Refuses new work, ends a decode that runs, frees the context behind the work already queued. Idempotent.
    void shutDown();
    // The same, but the work already queued is finished: its promises may outlive the JavaScript object.
    void retire();
    void release();
    void requireOpen() const;

    std::shared_ptr<ModelState> model;  // until release(), on `thread` only from then on
    std::shared_ptr<Thread>     thread;
    llama_context *             ctx     = nullptr;
    ggml_threadpool *           pool    = nullptr;
    std::shared_ptr<std::atomic<bool>> closing = std::make_shared<std::atomic<bool>>(false);

    llama_context_params params{};
    uint32_t             cells = 0, cellsPerSequence = 0, batchSize = 0, microBatchSize = 0, maxOutputs = 0;
    int32_t              vocabularySize = 0;
    std::string          compatibility;
    Counters             counters;
    std::vector<int8_t>  lastOutputs;  // of the newest decode; on `thread` only
    const ModelState *   owner = nullptr;  // for comparison only: `model` goes with release()
    // On `thread` only.
    std::vector<AppliedLora> loras;
    bool                     lorasChanged = false;
};

class Context : public Napi::ObjectWrap<Context> {
  public:
    static constexpr napi_type_tag TAG = {0x6865616473746172, 0x636f6e7465787463};

    explicit Context(const Napi::CallbackInfo & info);
    ~Context() override;

    static void define(Napi::Env env, Napi::Object exports);

  private:
    static Napi::Value create(const Napi::CallbackInfo & info);

    Napi::Value close(const Napi::CallbackInfo & info);
    Napi::Value info(const Napi::CallbackInfo & info);
    Napi::Value counters(const Napi::CallbackInfo & info);
    Napi::Value decode(const Napi::CallbackInfo & info);
    Napi::Value logits(const Napi::CallbackInfo & info);
    Napi::Value logProbabilities(const Napi::CallbackInfo & info);
    Napi::Value setLoras(const Napi::CallbackInfo & info);
    Napi::Value removeSequence(const Napi::CallbackInfo & info);
    Napi::Value copySequence(const Napi::CallbackInfo & info);
    Napi::Value keepSequence(const Napi::CallbackInfo & info);
    Napi::Value positionRange(const Napi::CallbackInfo & info);
    Napi::Value clear(const Napi::CallbackInfo & info);
    Napi::Value captureSequence(const Napi::CallbackInfo & info);
    Napi::Value restoreSequence(const Napi::CallbackInfo & info);
    Napi::Value loadFile(const Napi::CallbackInfo & info);

    std::shared_ptr<ContextState> open() const;
    llama_seq_id                  sequence(Napi::Value value, const char * what) const;

    std::shared_ptr<ContextState> state_;
    Napi::Reference<Napi::Promise> closing_;
};
