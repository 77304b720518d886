// A LoRA adapter contains low-rank changes to a model's weights. A context applies it with a scale.
#pragma once

#include "model.h"

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

struct LoraState : ModelChild {
    ~LoraState() override;

    // Runs on the model's thread.
    void load(const std::string & path);
    void shutDown() override { closed = true; }
    void release() override;

    std::shared_ptr<ModelState> model;
    const ModelState * owner = nullptr;  // the model, only for comparisons; `model` is null after release()
    std::shared_ptr<Thread> thread;
    std::atomic<bool> closed{false};

    llama_adapter_lora * adapter = nullptr;
    std::map<std::string, std::string> metadata;
    std::vector<int32_t> invocationTokens;
};

// An adapter that a context applies. The context keeps the adapter in memory until other adapters replace it, even if
// JavaScript closes the adapter earlier.
struct AppliedLora {
    std::shared_ptr<LoraState> lora;
    float scale;
};

std::vector<AppliedLora> lorasFrom(Napi::Value value, const ModelState * model);

class Lora : public Napi::ObjectWrap<Lora> {
  public:
    static constexpr napi_type_tag TAG = {0x6865616473746172, 0x6c6f72616c6f7261};

    explicit Lora(const Napi::CallbackInfo & info);
    ~Lora() override = default;

    static void define(Napi::Env env, Napi::Object exports);

    const std::shared_ptr<LoraState> & state() const { return state_; }

  private:
    static Napi::Value load(const Napi::CallbackInfo & info);

    Napi::Value close(const Napi::CallbackInfo & info);

    std::shared_ptr<LoraState> state_;
};
