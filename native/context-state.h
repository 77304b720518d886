// The native part of a context: llama.cpp's context, its threadpool, and the parameters of both.
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
    // Does the same, but lets a running decode finish: the promise of a decode may outlive the JavaScript object.
    void retire();
    // Frees the context. Runs on `thread`.
    void release();
    void requireOpen() const;
    // The number of threads in the threadpool, including the context's own thread.
    int32_t maxThreads() const;

    std::shared_ptr<ModelState> model;  // null after release()
    std::shared_ptr<Thread> thread;
    llama_context * ctx = nullptr;
    ggml_threadpool * pool = nullptr;
    void (*freePool)(ggml_threadpool *) = nullptr;
    std::shared_ptr<std::atomic<bool>> closing = std::make_shared<std::atomic<bool>>(false);
    // The abort flag of the running decode, if its batch has a single sequence. Otherwise null: a batch of several
    // sequences runs to its end.
    std::atomic<const std::atomic<bool> *> soloAbort{nullptr};

    llama_context_params params{};
    uint32_t cells = 0, cellsPerSequence = 0, batchSize = 0, microBatchSize = 0, maxOutputs = 0;
    int32_t vocabularySize = 0;
    std::string compatibility;
    bool hasPartialStates =
        false;  // whether a part of the memory cannot be trimmed; only this part is in partial states
    Counters counters;
    const ModelState * owner = nullptr;  // the model, only for comparisons; `model` is null after release()
    // Used only on `thread`.
    std::vector<int8_t> lastOutputs;  // for each row of the newest decode: whether it has output
    std::vector<AppliedLora> loras;
    bool lorasChanged = false;
};

// Adds the lifetime of this object to a counter, in microseconds.
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

// These two functions throw INVALID_ARGUMENT, UNSUPPORTED_MODEL or OUT_OF_MEMORY for values that would make llama.cpp
// fail an assert or use all memory.
llama_context_params contextParamsFrom(Napi::Object options);
void requireFits(const ModelState & model, const llama_context_params & params);

std::string ropeScalingName(llama_rope_scaling_type type);

// Runs on the context's thread. Throws CONTEXT_FAILED, OUT_OF_MEMORY.
void createContext(ContextState & state);
