// The native part of a context: llama.cpp's context, its threadpool, and the parameters that both were made with.
#pragma once

#include "lora.h"
#include "model.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

// Totals since the context was created.
struct Counters {
    std::atomic<uint64_t> decodes{0}, decodedTokens{0}, decodeMicros{0};
    std::atomic<uint64_t> captures{0}, capturedBytes{0}, captureMicros{0};
    std::atomic<uint64_t> restores{0}, restoredBytes{0}, restoreMicros{0};
    std::atomic<uint64_t> copies{0};
};

struct ContextState : std::enable_shared_from_this<ContextState> {
    ~ContextState();

    // Refuses new work, ends a running decode, and frees the context after the queued jobs. Idempotent.
    void shutDown();
    // The same without ending a running decode: promises may outlive the JavaScript object.
    void retire();
    void release();
    void requireOpen() const;

    std::shared_ptr<ModelState> model;  // null after release()
    std::shared_ptr<Thread> thread;
    llama_context * ctx = nullptr;
    ggml_threadpool * pool = nullptr;
    void (*freePool)(ggml_threadpool *) = nullptr;
    std::shared_ptr<std::atomic<bool>> closing = std::make_shared<std::atomic<bool>>(false);
    // While a batch of a single sequence is decoded, its abort flag. Batches of several sequences run to their end.
    std::atomic<const std::atomic<bool> *> soloAbort{nullptr};

    llama_context_params params{};
    uint32_t cells = 0, cellsPerSequence = 0, batchSize = 0, microBatchSize = 0, maxOutputs = 0;
    int32_t vocabularySize = 0;
    std::string compatibility;
    Counters counters;
    const ModelState * owner = nullptr;  // only for comparisons: `model` is null after release()
    // Used only on `thread`.
    std::vector<int8_t> lastOutputs;  // which rows of the newest decode have output
    std::vector<AppliedLora> loras;
    bool lorasChanged = false;
};

// Adds the microseconds of its own lifetime to a counter.
class Stopwatch {
  public:
    explicit Stopwatch(std::atomic<uint64_t> & total) : total_(total) {}
    ~Stopwatch() {
        total_ +=
            (uint64_t) std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start_)
                .count();
    }

  private:
    std::atomic<uint64_t> & total_;
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Both throw INVALID_ARGUMENT, UNSUPPORTED_MODEL or OUT_OF_MEMORY for values that llama.cpp would answer with an assert
// or an endless allocation.
llama_context_params contextParamsFrom(Napi::Object options);
void requireFits(const ModelState & model, const llama_context_params & params);

std::string ropeScalingName(llama_rope_scaling_type type);

// On the context's thread. Throws CONTEXT_FAILED, OUT_OF_MEMORY.
void createContext(ContextState & state);
