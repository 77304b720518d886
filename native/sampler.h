// A sampler: what chooses the next token of one sequence, with its history, its grammar and its random numbers.
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

// Options as JavaScript gave them, checked; what needs the vocabulary is still to do.
struct SamplerRequest {
    common_params_sampling params;
    std::vector<std::string> preserved;  // texts of tokens that may be triggers
    bool ignoreEos = false;
};

SamplerRequest samplerRequestFrom(Napi::Object options, int32_t vocabularySize);

struct SamplerState : ModelChild {
    ~SamplerState() override;

    // These three on the model's thread, as release(): grammars take time to parse, and DRY reads the whole vocabulary.
    void build(SamplerRequest request);
    void rebuild();
    void accept(const std::vector<int32_t> & tokens);

    // On a context's thread: chooses from a row of logits and accepts the choice. -1 where that failed; `failure()` says why.
    int32_t pick(llama_context * ctx, int32_t row) noexcept;

    // Null while the sampler works.
    std::unique_ptr<Failure> failure();

    void shutDown() override { closed = true; }
    void release() override;
    void requireUsable() const;

    const ModelState * owner = nullptr;  // for comparison only: `model` goes with release()
    int32_t vocabularySize = 0;
    std::shared_ptr<Thread> thread;
    std::atomic<bool> closed{false}, busy{false};

    std::shared_ptr<ModelState> model;

  private:
    void create();
    int32_t choose(llama_context * ctx, int32_t row);
    void requireBounded(llama_token token);

    std::mutex mutex_;
    common_params_sampling params_;
    common_sampler * sampler_ = nullptr;
    std::mutex failureMutex_;  // JavaScript asks for it while a choice is made. Written under both
    std::unique_ptr<Failure> failure_;
    size_t awaited_ = 0;
};

// Releases it on the model's thread, behind all that was asked of it.
void releaseLater(std::shared_ptr<SamplerState> state);

// A call's hold on a sampler until its promise settles: a second one at the same time is refused, as their order would decide
// what is sampled.
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

// Work that ends with `release` when it fails; when it succeeds, what settles the promise does that. Not left to destructors: a
// job's own thread may hold it for a moment longer than JavaScript waits.
template <class Result> std::function<Result()> releasing(std::function<void()> release, std::function<Result()> work) {
    return [release, work] {
        try {
            return work();
        } catch (...) {
            release();
            throw;
        }
    };
}

// A batch's `samplers` field: one, or null, for each of `rows` output rows. Empty where the field is absent.
SamplerLeases samplersFrom(Napi::Value value, size_t rows, const ModelState * model);

// The `count` likeliest tokens of a row of logits, with the logarithms of their probabilities.
struct LogProbabilities {
    std::vector<int32_t> tokens;
    std::vector<float> values;
};

LogProbabilities logProbabilitiesOf(const float * logits, int32_t vocabularySize, size_t count);
Napi::Value toObject(Napi::Env env, LogProbabilities & top);

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
