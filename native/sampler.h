// A sampler chooses the next tokens of one sequence. It keeps the recent tokens of the sequence, the state of a grammar
// and a random number generator.
#pragma once

#include "model.h"

#include <common.h>  // of llama.cpp's common

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

struct common_sampler;
struct llama_context;

// The checked options of a sampler. SamplerState::build runs the checks that need the vocabulary.
struct SamplerRequest {
    common_params_sampling params;
    std::vector<std::string> preserved;  // texts of single tokens that may be triggers
    bool ignoreEos = false;
};

SamplerRequest samplerRequestFrom(Napi::Object options, int32_t vocabularySize);

struct SamplerState : ModelChild {
    ~SamplerState() override;

    // These three functions and release() run on the model's thread, because parsing a grammar takes time, and because
    // DRY reads the whole vocabulary.
    void build(SamplerRequest request);
    void rebuild();
    void accept(const std::vector<int32_t> & tokens);

    // Runs on a context's thread. Chooses a token from a row of logits and accepts it. Returns -1 if the choice failed.
    // `failure()` then returns the reason.
    int32_t pick(llama_context * ctx, int32_t row) noexcept;

    // Returns null if no choice has failed.
    std::unique_ptr<Failure> failure();

    void shutDown() override { closed = true; }
    void release() override;
    void requireUsable() const;

    const ModelState * owner = nullptr;  // the model, only for comparisons; `model` is null after release()
    int32_t vocabularySize = 0;
    std::shared_ptr<Thread> thread;
    std::atomic<bool> closed{false}, busy{false};

    std::shared_ptr<ModelState> model;

  private:
    void create();
    int32_t choose(llama_context * ctx, int32_t row);
    void requireMatchableLength(llama_token token);

    std::mutex mutex_;
    common_params_sampling params_;
    common_sampler * sampler_ = nullptr;
    std::mutex failureMutex_;  // separate from mutex_, so that JavaScript can read the failure while a token is chosen
    std::unique_ptr<Failure> failure_;
    size_t sampledBytes_ = 0;  // counted only with a lazy grammar
};

// Releases the sampler on the model's thread, after the queued jobs of that thread.
void releaseLater(std::shared_ptr<SamplerState> state);

// Gives one call the exclusive use of a sampler until the promise of the call settles. A second call at the same time
// is refused, because the order of the two calls would decide which tokens are chosen.
class SamplerLease {
  public:
    explicit SamplerLease(std::shared_ptr<SamplerState> state);
    ~SamplerLease() { release(); }
    SamplerLease(const SamplerLease &) = delete;

    SamplerState * operator->() const { return state_.get(); }

    void release();

  private:
    std::shared_ptr<SamplerState> state_;
    bool held_ = true;
};

using SamplerLeases = std::vector<std::shared_ptr<SamplerLease>>;

// Wraps `work`. If `work` throws, the wrapped function calls `release`. If `work` succeeds, the code that settles the
// promise must call `release`. A destructor would call it too late: the thread may keep the job for a moment after the
// promise has settled.
template <class Result>
std::function<Result()> releasing(const std::function<void()> & release, const std::function<Result()> & work) {
    return [release, work] {
        try {
            return work();
        } catch (...) {
            release();
            throw;
        }
    };
}

// Leases the samplers of a batch. `value` is an array with a sampler or null for each of the `rows` rows with output.
// The result is empty if `value` is undefined.
SamplerLeases samplersFrom(Napi::Value value, size_t rows, const ModelState * model);

// The `count` most likely tokens of a row of logits, with the natural logarithms of their probabilities.
struct LogProbabilities {
    std::vector<int32_t> tokens;
    std::vector<float> values;
};

LogProbabilities logProbabilitiesOf(const float * logits, int32_t vocabularySize, size_t count);
Napi::Value logProbabilitiesObject(Napi::Env env, LogProbabilities & top);

class Sampler : public Napi::ObjectWrap<Sampler> {
  public:
    static constexpr napi_type_tag TAG = {0x6865616473746172, 0x73616d706c657273};

    explicit Sampler(const Napi::CallbackInfo & info);
    ~Sampler() override;

    static void define(Napi::Env env, Napi::Object exports);

    const std::shared_ptr<SamplerState> & state() const { return state_; }

  private:
    static Napi::Value create(const Napi::CallbackInfo & info);

    Napi::Value accept(const Napi::CallbackInfo & info);
    Napi::Value reset(const Napi::CallbackInfo & info);
    Napi::Value close(const Napi::CallbackInfo & info);
    Napi::Value failure(const Napi::CallbackInfo & info);

    std::shared_ptr<SamplerState> state_;
};
