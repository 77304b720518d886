#include "model.h"

#include "chat.h"
#include "context.h"
#include "model-info.h"
#include "model-load.h"
#include "tokenize.h"

ModelState::~ModelState() {
    templates.clear();
    if (model) {
        llama_model_free(model);
    }
    if (thread) {
        thread->stop();
    }
}

Model::Model(const Napi::CallbackInfo & info)
    : Napi::ObjectWrap<Model>(info),
      state_(nativeState<std::shared_ptr<ModelState>>(info, TAG, "Models are made by Model.load()")) {}

Model::~Model() {
    if (state_) {
        // The state is freed on the model's thread, because unmapping gigabytes takes long, and because the parsed chat
        // templates belong to that thread.
        std::shared_ptr<Thread> thread = state_->thread;
        thread->post([state = std::move(state_)]() mutable { state.reset(); });
    }
}

std::shared_ptr<ModelState> Model::state() const {
    if (closed_) {
        throw Failure("CLOSED", "Expected an open model, but it was closed");
    }
    return state_;
}

Napi::Value Model::load(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto request = loadRequestFrom(env, guard::object(info[0], "options"));
        auto state = std::make_shared<ModelState>();
        state->vocabOnly = request->params.vocab_only;
        state->thread = Thread::start(MODEL_STACK_BYTES, [abort = request->abort] { abort->store(true); });
        Environment::of(env).addThread(state->thread);
        Thread & thread = *state->thread;
        return runOn<std::shared_ptr<ModelState>>(
            env, thread,
            [state, request] {
                loadModel(*state, *request);
                return state;
            },
            [](Napi::Env env, std::shared_ptr<ModelState> & loaded) -> Napi::Value {
                return Environment::of(env).modelClass.New(
                    {Napi::External<std::shared_ptr<ModelState>>::New(env, &loaded)}
                );
            },
            request->onProgress
        );
    });
}

Napi::Value Model::close(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        if (closed_) {
            return closing_.Value();
        }
        closed_ = true;
        std::shared_ptr<Thread> thread = state_->thread;
        std::vector<std::shared_ptr<Thread>> contextThreads;
        for (auto & weak : state_->contexts) {
            if (auto context = weak.lock()) {
                context->shutDown();
                contextThreads.push_back(context->thread);
            }
        }
        std::vector<std::shared_ptr<ModelChild>> children;
        for (auto & weak : state_->children) {
            if (auto child = weak.lock()) {
                child->shutDown();
                children.push_back(std::move(child));
            }
        }
        Napi::Value done = runOn<bool>(
            env, *thread,
            [state = std::move(state_), contextThreads, children]() mutable {
                for (auto & contextThread : contextThreads) {
                    contextThread->waitUntilEnded();
                }
                for (auto & child : children) {
                    child->release();
                }
                state.reset();
                return true;
            },
            [](Napi::Env env, bool &) { return env.Undefined(); }
        );
        closing_ = Napi::Persistent(done.As<Napi::Promise>());
        return done;
    });
}

Napi::Value Model::info(const Napi::CallbackInfo & info) {
    return guard::call(info.Env(), [&]() -> Napi::Value { return modelInfoObject(info.Env(), *state()); });
}

Napi::Value Model::metadata(const Napi::CallbackInfo & info) {
    return guard::call(info.Env(), [&]() -> Napi::Value { return metadataObject(info.Env(), *state()); });
}

Napi::Value Model::tokenize(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto opened = state();
        const std::string text = guard::string(info[0], "text");
        Napi::Object options = info[1].IsUndefined() ? Napi::Object::New(env) : guard::object(info[1], "options");
        const bool addSpecial = guard::optionalBoolean(options, "addSpecial", false);
        const bool parseSpecial = guard::optionalBoolean(options, "parseSpecial", false);
        return runOn<std::vector<int32_t>>(
            env, *opened->thread,
            AbortFlag::unlessAborted(
                info[2], [opened, text, addSpecial,
                          parseSpecial] { return tokenizeText(*opened, text, addSpecial, parseSpecial); }
            ),
            toArray<std::vector<int32_t>>
        );
    });
}

Napi::Value Model::detokenize(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto opened = state();
        const std::vector<int32_t> tokens = guard::int32s(info[0], "tokens");
        Napi::Object options = info[1].IsUndefined() ? Napi::Object::New(env) : guard::object(info[1], "options");
        const bool special = guard::optionalBoolean(options, "special", false);
        requireTokenizer(*opened);
        requireTokenIds(*opened, tokens);
        return runOn<std::string>(
            env, *opened->thread,
            AbortFlag::unlessAborted(
                info[2],
                [opened, tokens, special] {
                    std::string bytes;
                    for (int32_t token : tokens) {
                        bytes += tokenText(*opened, token, special);
                    }
                    return bytes;
                }
            ),
            toArray<std::string>
        );
    });
}

Napi::Value Model::tokenToBytes(const Napi::CallbackInfo & info) {
    return guard::call(info.Env(), [&]() -> Napi::Value {
        auto opened = state();
        requireTokenizer(*opened);
        const auto token = (llama_token) guard::integer(info[0], "token", 0, llama_vocab_n_tokens(opened->vocab) - 1);
        const bool special = info[1].IsUndefined() ? false : guard::boolean(info[1], "special");
        return copyToJs(info.Env(), tokenText(*opened, token, special));
    });
}

Napi::Value Model::tokenFacts(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto opened = state();
        const auto token = (llama_token) guard::integer(info[0], "token", 0, llama_vocab_n_tokens(opened->vocab) - 1);
        const bool named = llama_vocab_type(opened->vocab) != LLAMA_VOCAB_TYPE_NONE;
        Napi::Object object = Napi::Object::New(env);
        object.Set("text", named ? llama_vocab_get_text(opened->vocab, token) : "");
        object.Set("control", Napi::Boolean::New(env, named && llama_vocab_is_control(opened->vocab, token)));
        object.Set("endOfGeneration", Napi::Boolean::New(env, named && llama_vocab_is_eog(opened->vocab, token)));
        return object;
    });
}

Napi::Value Model::controlTokens(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto opened = state();
        return copyToJs(env, ::controlTokens(*opened));
    });
}

Napi::Value Model::render(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto opened = state();
        const RenderRequest request = renderRequestFrom(guard::object(info[0], "request"));
        const auto render = [opened, request] { return renderConversation(*opened, request); };
        return runOn<Rendered>(env, *opened->thread, AbortFlag::unlessAborted(info[1], render), renderedToObject);
    });
}

void Model::define(Napi::Env env, Napi::Object exports) {
    Napi::Function type = DefineClass(
        env, "Model",
        {StaticMethod<&Model::load>("load"), InstanceMethod<&Model::close>("close"),
         InstanceMethod<&Model::info>("info"), InstanceMethod<&Model::metadata>("metadata"),
         InstanceMethod<&Model::tokenize>("tokenize"), InstanceMethod<&Model::detokenize>("detokenize"),
         InstanceMethod<&Model::tokenToBytes>("tokenToBytes"), InstanceMethod<&Model::tokenFacts>("tokenFacts"),
         InstanceMethod<&Model::controlTokens>("controlTokens"), InstanceMethod<&Model::render>("render")}
    );
    Environment::of(env).modelClass = Napi::Persistent(type);
    exports.Set("Model", type);
}
