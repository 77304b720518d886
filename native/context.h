// The JavaScript class of an inference context. Each method checks its arguments and posts one step to the context's
// thread.
#pragma once

#include "context-state.h"

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
    Napi::Value setThreads(const Napi::CallbackInfo & info);
    Napi::Value removeSequence(const Napi::CallbackInfo & info);
    Napi::Value copySequence(const Napi::CallbackInfo & info);
    Napi::Value keepSequence(const Napi::CallbackInfo & info);
    Napi::Value positionRange(const Napi::CallbackInfo & info);
    Napi::Value clear(const Napi::CallbackInfo & info);
    Napi::Value stateBytes(const Napi::CallbackInfo & info);
    Napi::Value captureSequence(const Napi::CallbackInfo & info);
    Napi::Value restoreSequence(const Napi::CallbackInfo & info);
    Napi::Value loadFile(const Napi::CallbackInfo & info);

    // Throws CLOSED.
    std::shared_ptr<ContextState> open() const;
    // Throws INVALID_ARGUMENT, SEQUENCE_OUT_OF_RANGE.
    llama_seq_id sequence(Napi::Value value, const char * what) const;

    std::shared_ptr<ContextState> state_;
    Napi::Reference<Napi::Promise> closing_;
};
