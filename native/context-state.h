// What a context's thread works with: llama.cpp's context, its threadpool, and what they were made for.
#pragma once

#include "lora.h"
#include "model.h"

#include <atomic>
#include <chrono>
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
    std::shared_ptr<Thread> thread;
    llama_context * ctx = nullptr;
    ggml_threadpool * pool = nullptr;
    std::shared_ptr<std::atomic<bool>> closing = std::make_shared<std::atomic<bool>>(false);
    // The abort flag of a decode that holds one sequence alone: set while it runs, and read inside it.
    std::atomic<const std::atomic<bool> *> loneAbort{nullptr};

    llama_context_params params{};
    uint32_t cells = 0, cellsPerSequence = 0, batchSize = 0, microBatchSize = 0, maxOutputs = 0;
    int32_t vocabularySize = 0;
    std::string compatibility;
    Counters counters;
    std::vector<int8_t> lastOutputs;     // of the newest decode; on `thread` only
    const ModelState * owner = nullptr;  // for comparison only: `model` goes with release()
    // On `thread` only.
    std::vector<AppliedLora> loras;
    bool lorasChanged = false;
};

// Adds the microseconds that it lived to a counter.
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

// Throws what would reach an assert, or an endless allocation, inside llama.cpp.
llama_context_params contextParamsFrom(Napi::Object options);
std::string ropeScalingName(llama_rope_scaling_type type);
void requireFits(const ModelState & model, const llama_context_params & params);

// On the context's thread.
void createContext(ContextState & state);
