#include "model.h"

#include "chat.h"
#include "context.h"
#include "file.h"
#include "log.h"
#include "trap.h"

#include <algorithm>
#include <chrono>
#include <climits>
#include <cstdio>
#include <cstring>
#include <numeric>

namespace {

// Pre-tokenisers without a splitter of their own match with a recursive std::regex: about 330 bytes of stack a character.
constexpr size_t MODEL_STACK_BYTES = (size_t) 256 << 20;
constexpr size_t MAX_RUN_BYTES = 400 * 1000;
constexpr size_t MAX_TEXT_BYTES = (size_t) 256 << 20;

struct LoadRequest {
    std::string path;
    llama_model_params params = llama_model_default_params();
    std::shared_ptr<std::atomic<bool>> abort;
    std::shared_ptr<Inbox> inbox;
    uint32_t onProgress = 0;
    std::chrono::steady_clock::time_point lastProgress;
};

struct Progress : Delivery {
    void arrive(Napi::Env env) override {
        auto & callbacks = Environment::of(env).callbacks;
        auto listener = callbacks.find(onProgress);
        if (listener != callbacks.end()) {
            listener->second.Call({Napi::Number::New(env, fraction)});
        }
    }

    uint32_t onProgress;
    float fraction;
};

bool reportProgress(float fraction, void * userData) {
    auto & request = *static_cast<LoadRequest *>(userData);
    if (request.abort->load() || Thread::parking()) {
        return false;
    }
    const auto now = std::chrono::steady_clock::now();
    if (request.onProgress && (fraction >= 1.0f || now - request.lastProgress > std::chrono::milliseconds(50))) {
        request.lastProgress = now;
        auto progress = std::make_shared<Progress>();
        progress->onProgress = request.onProgress;
        progress->fraction = fraction;
        request.inbox->deliver(progress);
    }
    return true;
}

llama_load_mode loadMode(bool useMmap, bool useMlock) {
    if (useMmap) {
        return useMlock ? LLAMA_LOAD_MODE_MMAP_MLOCK : LLAMA_LOAD_MODE_MMAP;
    }
    return useMlock ? LLAMA_LOAD_MODE_MLOCK : LLAMA_LOAD_MODE_NONE;
}

using Gguf = std::unique_ptr<gguf_context, void (*)(gguf_context *)>;

Gguf openGguf(const std::string & path) {
    gguf_init_params params = {/*no_alloc*/ true, /*ctx*/ nullptr};
    return Gguf(gguf_init_from_file(path.c_str(), params), gguf_free);
}

// llama_model_n_head_kv speaks of the first layer only, which in a hybrid may have none.
int64_t countKvHeads(const llama_model * model, const std::string & path) {
    if (llama_model_n_layer(model) == 0) {
        return 0;  // the vocabulary alone: llama.cpp aborts when asked for its heads
    }
    const int64_t ofFirst = (int64_t) llama_model_n_head_kv(model) * llama_model_n_layer(model);
    if (!llama_model_is_hybrid(model)) {
        return ofFirst;
    }
    char architecture[64] = "";
    llama_model_meta_val_str(model, "general.architecture", architecture, sizeof(architecture));
    const Gguf gguf = openGguf(path);
    const int64_t key =
        gguf ? gguf_find_key(gguf.get(), (std::string(architecture) + ".attention.head_count_kv").c_str()) : -1;
    if (key < 0 || gguf_get_kv_type(gguf.get(), key) != GGUF_TYPE_ARRAY) {
        return ofFirst;
    }
    const gguf_type type = gguf_get_arr_type(gguf.get(), key);
    if (type != GGUF_TYPE_INT32 && type != GGUF_TYPE_UINT32) {
        return ofFirst;
    }
    const auto * heads = static_cast<const int32_t *>(gguf_get_arr_data(gguf.get(), key));
    return std::accumulate(heads, heads + gguf_get_arr_n(gguf.get(), key), (int64_t) 0);
}

void requireModelFile(const std::string & path) {
    requireRegularFile(path, "a GGUF file", "MODEL_NOT_FOUND", "MODEL_INVALID");
}

void loadInto(ModelState & state, LoadRequest & request) {
    requireModelFile(request.path);
    LogCapture log;
    AssertTrap trap;
    request.params.progress_callback = reportProgress;
    request.params.progress_callback_user_data = &request;
    state.model = llama_model_load_from_file(request.path.c_str(), request.params);
    if (state.model == nullptr) {
        if (request.abort->load()) {
            throw Failure("ABORTED", "The load of \"" + request.path + "\" was aborted");
        }
        throw Failure(
            "MODEL_INVALID", "Expected a GGUF model that llama.cpp can load at \"" + request.path + "\"" + log.reason()
        );
    }
    state.vocab = llama_model_get_vocab(state.model);
    state.kvHeads = countKvHeads(state.model, request.path);
}

// Text whose longest stretch without a break could overflow even the large stack is refused before the regex sees it.
void requireTokenizable(const std::string & text) {
    if (text.size() > MAX_TEXT_BYTES) {
        throw Failure(
            "TEXT_TOO_LONG",
            "Expected at most " + std::to_string(MAX_TEXT_BYTES) + " bytes of text, got " + std::to_string(text.size())
        );
    }
    size_t run = 0;
    bool inSpace = false;
    for (char c : text) {
        const bool space = c == ' ' || c == '\n' || c == '\t' || c == '\r';
        run = space == inSpace ? run + 1 : 1;
        inSpace = space;
        if (run > MAX_RUN_BYTES) {
            throw Failure(
                "TEXT_UNBREAKABLE", "Expected text with a space or line break at least every " +
                                        std::to_string(MAX_RUN_BYTES) +
                                        " bytes: a longer unbroken run could overflow the tokeniser's stack"
            );
        }
    }
}

void requireTokenizer(const ModelState & state) {
    if (llama_vocab_type(state.vocab) == LLAMA_VOCAB_TYPE_NONE) {
        throw Failure("NO_TOKENIZER", "This model has no tokeniser: pass token ids");
    }
}

void requireTokens(const ModelState & state, const std::vector<int32_t> & tokens) {
    const int32_t size = llama_vocab_n_tokens(state.vocab);
    for (size_t i = 0; i < tokens.size(); i++) {
        if (tokens[i] < 0 || tokens[i] >= size) {
            throw Failure(
                "TOKEN_OUT_OF_RANGE", "Expected token ids from 0 to " + std::to_string(size - 1) + ", got " +
                                          std::to_string(tokens[i]) + " at index " + std::to_string(i)
            );
        }
    }
}

std::vector<int32_t> tokenizeText(
    const ModelState & state, const std::string & text, bool addSpecial, bool parseSpecial
) {
    requireTokenizer(state);
    requireTokenizable(text);
    AssertTrap trap;
    std::vector<int32_t> tokens(text.size() + 2);
    int32_t count = llama_tokenize(
        state.vocab, text.data(), (int32_t) text.size(), tokens.data(), (int32_t) tokens.size(), addSpecial,
        parseSpecial
    );
    if (count == INT_MIN) {
        throw Failure("TEXT_TOO_LONG", "Expected text of fewer tokens than fit an int32");
    }
    if (count < 0) {
        tokens.resize((size_t) -count);
        count = llama_tokenize(
            state.vocab, text.data(), (int32_t) text.size(), tokens.data(), (int32_t) tokens.size(), addSpecial,
            parseSpecial
        );
    }
    tokens.resize((size_t) std::max(0, count));
    return tokens;
}

std::string pieceOf(const ModelState & state, llama_token token, bool special) {
    std::string piece(64, '\0');
    int32_t length = llama_token_to_piece(state.vocab, token, piece.data(), (int32_t) piece.size(), 0, special);
    if (length < 0) {
        piece.resize((size_t) -length);
        length = llama_token_to_piece(state.vocab, token, piece.data(), (int32_t) piece.size(), 0, special);
    }
    piece.resize((size_t) std::max(0, length));
    return piece;
}

// llama.cpp's strings of unknown length: ask, grow, ask again.
template <class Read> std::string readString(Read read) {
    std::string text(256, '\0');
    int32_t length = read(text.data(), text.size());
    if (length >= (int32_t) text.size()) {
        text.resize((size_t) length + 1);
        length = read(text.data(), text.size());
    }
    text.resize((size_t) std::max(0, length));
    return text;
}

const char * vocabTypeName(enum llama_vocab_type type) {
    switch (type) {
        case LLAMA_VOCAB_TYPE_NONE: return "none";
        case LLAMA_VOCAB_TYPE_SPM: return "spm";
        case LLAMA_VOCAB_TYPE_BPE: return "bpe";
        case LLAMA_VOCAB_TYPE_WPM: return "wpm";
        case LLAMA_VOCAB_TYPE_UGM: return "ugm";
        case LLAMA_VOCAB_TYPE_RWKV: return "rwkv";
        case LLAMA_VOCAB_TYPE_PLAMO2: return "plamo2";
        default: return "test";
    }
}

Napi::Object describeVocabulary(Napi::Env env, const ModelState & state) {
    const llama_vocab * vocab = state.vocab;
    Napi::Object facts = Napi::Object::New(env);
    const auto token = [&](const char * name, llama_token id) {
        facts.Set(name, id == LLAMA_TOKEN_NULL ? env.Null() : Napi::Value(Napi::Number::New(env, id)));
    };
    facts.Set("type", vocabTypeName(llama_vocab_type(vocab)));
    facts.Set("size", llama_vocab_n_tokens(vocab));
    token("bos", llama_vocab_bos(vocab));
    token("eos", llama_vocab_eos(vocab));
    token("eot", llama_vocab_eot(vocab));
    token("newline", llama_vocab_nl(vocab));
    token("pad", llama_vocab_pad(vocab));
    token("separator", llama_vocab_sep(vocab));
    token("mask", llama_vocab_mask(vocab));
    facts.Set("addsBos", Napi::Boolean::New(env, llama_vocab_get_add_bos(vocab)));
    facts.Set("addsEos", Napi::Boolean::New(env, llama_vocab_get_add_eos(vocab)));
    return facts;
}

Napi::Object describe(Napi::Env env, const ModelState & state) {
    const llama_model * model = state.model;
    Napi::Object facts = Napi::Object::New(env);
    facts.Set("description", readString([&](char * to, size_t size) { return llama_model_desc(model, to, size); }));
    facts.Set("architecture", readString([&](char * to, size_t size) {
                  return llama_model_meta_val_str(model, "general.architecture", to, size);
              }));
    facts.Set("fileType", llama_ftype_name(llama_model_ftype(model)));
    facts.Set("parameters", Napi::Number::New(env, (double) llama_model_n_params(model)));
    facts.Set("sizeBytes", Napi::Number::New(env, (double) llama_model_size(model)));
    facts.Set("trainContextSize", llama_model_n_ctx_train(model));
    facts.Set("embeddingSize", llama_model_n_embd(model));
    facts.Set("layers", llama_model_n_layer(model));
    const bool layered = llama_model_n_layer(model) > 0;  // the vocabulary alone has none, and asking aborts
    facts.Set("heads", layered ? llama_model_n_head(model) : 0);
    facts.Set("kvHeads", layered ? llama_model_n_head_kv(model) : 0);
    facts.Set("slidingWindow", llama_model_n_swa(model));
    facts.Set("ropeType", (int) llama_model_rope_type(model));
    facts.Set("recurrent", Napi::Boolean::New(env, llama_model_is_recurrent(model)));
    facts.Set("hybrid", Napi::Boolean::New(env, llama_model_is_hybrid(model)));
    facts.Set("diffusion", Napi::Boolean::New(env, llama_model_is_diffusion(model)));
    facts.Set("encoder", Napi::Boolean::New(env, llama_model_has_encoder(model)));
    facts.Set("decoder", Napi::Boolean::New(env, llama_model_has_decoder(model)));
    const char * chatTemplate = llama_model_chat_template(model, nullptr);
    facts.Set("chatTemplate", chatTemplate ? Napi::Value(Napi::String::New(env, chatTemplate)) : env.Null());
    facts.Set("vocabulary", describeVocabulary(env, state));
    return facts;
}

}  // namespace

ModelState::~ModelState() {
    templates.clear();
    if (model) {
        llama_model_free(model);
    }
    if (thread) {
        thread->stop();
    }
}

void ModelState::adopt(const std::shared_ptr<ModelChild> & child) {
    children.erase(
        std::remove_if(children.begin(), children.end(), [](auto & known) { return known.expired(); }), children.end()
    );
    children.push_back(child);
}

Model::Model(const Napi::CallbackInfo & info) : Napi::ObjectWrap<Model>(info) {
    Napi::Env env = info.Env();
    if (!info[0].IsExternal()) {
        throw Napi::Error(env, errorFrom(env, Failure("INVALID_ARGUMENT", "Models are made by Model.load()")));
    }
    info.This().As<Napi::Object>().TypeTag(&TAG);
    state_ = *info[0].As<Napi::External<std::shared_ptr<ModelState>>>().Data();
}

Model::~Model() {
    if (state_) {
        // Freed on its own thread: unmapping gigabytes takes long, and the templates live there.
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
        Napi::Object options = guard::object(info[0], "options");
        auto request = std::make_shared<LoadRequest>();
        request->path = guard::path(options.Get("path"), "path");
        request->params.n_gpu_layers = (int32_t) guard::optionalInteger(options, "nGpuLayers", -1, -1, INT32_MAX);
        request->params.load_mode = loadMode(
            guard::optionalBoolean(options, "useMmap", true), guard::optionalBoolean(options, "useMlock", false)
        );
        request->params.check_tensors = guard::optionalBoolean(options, "checkTensors", false);
        request->params.use_extra_bufts = guard::optionalBoolean(options, "repackWeights", true);
        request->params.vocab_only = guard::optionalBoolean(options, "vocabularyOnly", false);
        request->abort = AbortFlag::from(options);
        request->inbox = Environment::of(env).inbox;
        Napi::Value onProgress = options.Get("onProgress");
        if (!onProgress.IsUndefined()) {
            if (!onProgress.IsFunction()) {
                throw guard::invalid("onProgress", "a function", onProgress);
            }
            request->onProgress = Environment::of(env).keep(onProgress.As<Napi::Function>());
        }

        auto state = std::make_shared<ModelState>();
        state->vocabOnly = request->params.vocab_only;
        state->thread = Thread::start(MODEL_STACK_BYTES, [abort = request->abort] { abort->store(true); });
        Environment::of(env).adopt(state->thread);
        Thread & thread = *state->thread;
        return runOn<std::shared_ptr<ModelState>>(
            env, thread,
            [state, request]() {
                loadInto(*state, *request);
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
        std::vector<std::shared_ptr<Thread>> children;
        for (auto & child : state_->contexts) {
            if (auto context = child.lock()) {
                context->shutDown();
                children.push_back(context->thread);
            }
        }
        std::vector<std::shared_ptr<ModelChild>> dependents;
        for (auto & known : state_->children) {
            if (auto child = known.lock()) {
                child->shutDown();
                dependents.push_back(std::move(child));
            }
        }
        Napi::Value done = runOn<bool>(
            env, *thread,
            [state = std::move(state_), children, dependents]() mutable {
                for (auto & child : children) {
                    child->waitUntilEnded();
                }
                for (auto & child : dependents) {
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
    return guard::call(info.Env(), [&]() -> Napi::Value { return describe(info.Env(), *state()); });
}

Napi::Value Model::metadata(const Napi::CallbackInfo & info) {
    return guard::call(info.Env(), [&]() -> Napi::Value {
        auto held = state();
        const llama_model * model = held->model;
        Napi::Object all = Napi::Object::New(info.Env());
        for (int32_t i = 0; i < llama_model_meta_count(model); i++) {
            all.Set(
                readString([&](char * to, size_t size) { return llama_model_meta_key_by_index(model, i, to, size); }),
                readString([&](char * to, size_t size) {
                    return llama_model_meta_val_str_by_index(model, i, to, size);
                })
            );
        }
        return all;
    });
}

Napi::Value Model::tokenize(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto held = state();
        const std::string text = guard::string(info[0], "text");
        Napi::Object options = info[1].IsUndefined() ? Napi::Object::New(env) : guard::object(info[1], "options");
        const bool addSpecial = guard::optionalBoolean(options, "addSpecial", false);
        const bool parseSpecial = guard::optionalBoolean(options, "parseSpecial", false);
        return runOn<std::vector<int32_t>>(
            env, *held->thread,
            AbortFlag::heeded(
                info[2],
                [held, text, addSpecial, parseSpecial] { return tokenizeText(*held, text, addSpecial, parseSpecial); }
            ),
            toArray<std::vector<int32_t>>
        );
    });
}

Napi::Value Model::detokenize(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto held = state();
        const std::vector<int32_t> tokens = guard::int32s(info[0], "tokens");
        Napi::Object options = info[1].IsUndefined() ? Napi::Object::New(env) : guard::object(info[1], "options");
        const bool special = guard::optionalBoolean(options, "special", false);
        requireTokenizer(*held);
        requireTokens(*held, tokens);
        return runOn<std::string>(
            env, *held->thread,
            AbortFlag::heeded(
                info[2],
                [held, tokens, special] {
                    std::string bytes;
                    for (int32_t token : tokens) {
                        bytes += pieceOf(*held, token, special);
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
        auto held = state();
        requireTokenizer(*held);
        const auto token = (llama_token) guard::integer(info[0], "token", 0, llama_vocab_n_tokens(held->vocab) - 1);
        const bool special = info[1].IsUndefined() ? false : guard::boolean(info[1], "special");
        return copyToJs(info.Env(), pieceOf(*held, token, special));
    });
}

Napi::Value Model::tokenFacts(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto held = state();
        const auto token = (llama_token) guard::integer(info[0], "token", 0, llama_vocab_n_tokens(held->vocab) - 1);
        const bool named = llama_vocab_type(held->vocab) != LLAMA_VOCAB_TYPE_NONE;
        Napi::Object facts = Napi::Object::New(env);
        facts.Set("text", named ? llama_vocab_get_text(held->vocab, token) : "");
        facts.Set("control", Napi::Boolean::New(env, named && llama_vocab_is_control(held->vocab, token)));
        facts.Set("endOfGeneration", Napi::Boolean::New(env, named && llama_vocab_is_eog(held->vocab, token)));
        return facts;
    });
}

Napi::Value Model::controlTokens(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto held = state();
        std::vector<int32_t> control;
        if (llama_vocab_type(held->vocab) != LLAMA_VOCAB_TYPE_NONE) {
            for (llama_token token = 0; token < llama_vocab_n_tokens(held->vocab); token++) {
                // User-defined tokens are matched whole like control tokens, so no merge crosses them either.
                if (llama_vocab_get_attr(held->vocab, token) &
                    (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_USER_DEFINED)) {
                    control.push_back(token);
                }
            }
        }
        return copyToJs(env, control);
    });
}

Napi::Value Model::render(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto held = state();
        const RenderRequest request = renderRequestFrom(guard::object(info[0], "request"));
        const auto render = [held, request] { return renderConversation(*held, request); };
        return runOn<Rendered>(env, *held->thread, AbortFlag::heeded(info[1], render), renderedToObject);
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

// --- GGUF layout -----------------------------------------------------------------------------------------------------

namespace {

struct Layout {
    double dataOffset;
    std::vector<double> offsets, sizes;
};

Layout readLayout(const std::string & path) {
    requireModelFile(path);
    LogCapture log;
    AssertTrap trap;
    const Gguf gguf = openGguf(path);
    if (!gguf) {
        throw Failure("MODEL_INVALID", "Expected a GGUF file at \"" + path + "\"" + log.reason());
    }
    Layout layout{(double) gguf_get_data_offset(gguf.get()), {}, {}};
    for (int64_t i = 0; i < gguf_get_n_tensors(gguf.get()); i++) {
        layout.offsets.push_back((double) gguf_get_tensor_offset(gguf.get(), i));
        layout.sizes.push_back((double) gguf_get_tensor_size(gguf.get(), i));
    }
    return layout;
}

Napi::Value ggufLayout(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        const std::string path = guard::path(info[0], "path");
        return runOn<Layout>(
            env, fileReader(), [path] { return readLayout(path); },
            [](Napi::Env env, Layout & layout) -> Napi::Value {
                Napi::Object result = Napi::Object::New(env);
                result.Set("dataOffset", layout.dataOffset);
                result.Set("offsets", copyToJs(env, layout.offsets));
                result.Set("sizes", copyToJs(env, layout.sizes));
                return result;
            }
        );
    });
}

}  // namespace

void defineGguf(Napi::Env env, Napi::Object exports) {
    exports.Set("ggufLayout", Napi::Function::New(env, ggufLayout, "ggufLayout"));
}
