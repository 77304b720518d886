// A loaded GGUF model: weights, vocabulary, chat template. Owns one thread (large stack) for load, render and tokenise.
#pragma once

#include "thread.h"

#include <llama.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>

struct common_chat_templates;
struct ContextState;

// What depends on a model, other than contexts: it is closed with the model, behind the contexts.
struct ModelChild {
    virtual ~ModelChild() = default;
    virtual void shutDown() = 0;  // JavaScript thread
    virtual void release() = 0;   // the model's thread
};

// What the threads work with. Contexts hold it too, so the weights stay until the last of them is gone.
struct ModelState {
    ~ModelState();

    llama_model * model = nullptr;
    const llama_vocab * vocab = nullptr;
    std::shared_ptr<Thread> thread;
    // Parsed chat templates by their override text ("" is the model's own); touched on `thread` only.
    std::map<std::string, std::shared_ptr<common_chat_templates>> templates;
    bool vocabOnly = false;
    int64_t kvHeads = 0;  // of all layers together
    // llama.cpp's list of a model's adapters has none of its own, and contexts read it when they plan their graphs.
    std::mutex lorasMutex;
    // Touched on the JavaScript thread only.
    std::vector<std::weak_ptr<ContextState>> contexts;
    std::vector<std::weak_ptr<ModelChild>> children;

    void adopt(const std::shared_ptr<ModelChild> & child);
};

class Model : public Napi::ObjectWrap<Model> {
  public:
    static constexpr napi_type_tag TAG = {0x6865616473746172, 0x6d6f64656c6d6f64};

    explicit Model(const Napi::CallbackInfo & info);
    ~Model() override;

    static void define(Napi::Env env, Napi::Object exports);

    // The state of an open model, or a CLOSED failure.
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

// The layout of a GGUF file, for fingerprints: `ggufLayout(path)`.
void defineGguf(Napi::Env env, Napi::Object exports);
