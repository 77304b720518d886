// A loaded GGUF model: weights, vocabulary and chat template. The model owns one thread, which loads the model, renders
// conversations and tokenizes text.
#pragma once

#include "thread.h"

#include <llama.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>

struct common_chat_templates;
struct ContextState;

// An object that depends on a model and is not a context: a sampler or a LoRA adapter. The model closes such objects
// after its contexts.
struct ModelChild {
    virtual ~ModelChild() = default;
    virtual void shutDown() = 0;  // runs on the JavaScript thread
    virtual void release() = 0;   // runs on the model's thread
};

// The native part of a model. Contexts share it, so the weights stay in memory until the last context is gone.
struct ModelState {
    ~ModelState();

    llama_model * model = nullptr;
    const llama_vocab * vocab = nullptr;
    std::shared_ptr<Thread> thread;
    // Parsed chat templates by their text. "" is the key of the model's chat template. Used only on `thread`.
    std::map<std::string, std::shared_ptr<common_chat_templates>> templates;
    bool vocabOnly = false;
    int64_t kvHeads = 0;  // the sum over all layers
    // Protects llama.cpp's list of a model's adapters. Contexts read the list when they plan their graphs.
    std::mutex lorasMutex;
    // Used only on the JavaScript thread.
    std::vector<std::weak_ptr<ContextState>> contexts;
    std::vector<std::weak_ptr<ModelChild>> children;
};

class Model : public Napi::ObjectWrap<Model> {
  public:
    static constexpr napi_type_tag TAG = {0x6865616473746172, 0x6d6f64656c6d6f64};

    explicit Model(const Napi::CallbackInfo & info);
    ~Model() override;

    static void define(Napi::Env env, Napi::Object exports);

    // Throws CLOSED.
    std::shared_ptr<ModelState> state() const;

  private:
    static Napi::Value load(const Napi::CallbackInfo & info);

    Napi::Value close(const Napi::CallbackInfo & info);
    Napi::Value info(const Napi::CallbackInfo & info);
    Napi::Value metadata(const Napi::CallbackInfo & info);
    Napi::Value tokenize(const Napi::CallbackInfo & info);
    Napi::Value detokenize(const Napi::CallbackInfo & info);
    Napi::Value tokenToBytes(const Napi::CallbackInfo & info);
    Napi::Value tokenFacts(const Napi::CallbackInfo & info);
    Napi::Value controlTokens(const Napi::CallbackInfo & info);
    Napi::Value render(const Napi::CallbackInfo & info);

    std::shared_ptr<ModelState> state_;
    bool closed_ = false;
    Napi::Reference<Napi::Promise> closing_;
};
