#include "lora.h"

#include "context.h"
#include "file.h"
#include "llama-string.h"
#include "log.h"
#include "trap.h"

#include <gguf.h>

#include <algorithm>
#include <cstring>
#include <set>

// Returns all tensors of a model by name. llama.cpp exports this function for its own tools, but llama.h does not
// declare it.
const std::vector<std::pair<std::string, ggml_tensor *>> & llama_internal_get_tensor_map(const llama_model * model);

namespace {

constexpr double MAX_SCALE = 1e4;

Failure invalid(const std::string & path, const std::string & reason) {
    return Failure("LORA_INVALID", "Expected a LoRA adapter (GGUF) for this model at \"" + path + "\": " + reason);
}

// Whether all backends can multiply with matrices of this type.
bool isMatrixType(ggml_type type) {
    static const std::set<ggml_type> types = {GGML_TYPE_F32,  GGML_TYPE_F16,   GGML_TYPE_BF16, GGML_TYPE_Q4_0,
                                              GGML_TYPE_Q4_1, GGML_TYPE_Q5_0,  GGML_TYPE_Q5_1, GGML_TYPE_Q8_0,
                                              GGML_TYPE_Q2_K, GGML_TYPE_Q3_K,  GGML_TYPE_Q4_K, GGML_TYPE_Q5_K,
                                              GGML_TYPE_Q6_K, GGML_TYPE_IQ4_NL};
    return types.count(type) > 0;
}

bool endsWith(const std::string & text, const std::string & end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// Checks that an adapter fits a model. llama.cpp compares only two dimensions of each tensor. A difference in another
// dimension would end the process at the first decode.
class AdapterCheck {
  public:
    AdapterCheck(const std::string & path, const llama_model * model) : path_(path) {
        for (const auto & [name, tensor] : llama_internal_get_tensor_map(model)) {
            weights_[name] = tensor;
        }
    }

    void require() {
        ggml_context * tensors = nullptr;
        gguf_init_params params = {/*no_alloc*/ true, /*ctx*/ &tensors};
        const std::unique_ptr<gguf_context, void (*)(gguf_context *)> gguf(
            gguf_init_from_file(path_.c_str(), params), gguf_free
        );
        const std::unique_ptr<ggml_context, void (*)(ggml_context *)> owner(tensors, ggml_free);
        if (!gguf) {
            throw invalid(path_, "it is not a GGUF file");
        }
        requireKeys(gguf.get());
        for (ggml_tensor * b = ggml_get_first_tensor(tensors); b; b = ggml_get_next_tensor(tensors, b)) {
            const std::string name = b->name;
            if (endsWith(name, ".lora_b")) {
                const std::string weight = name.substr(0, name.size() - 7);
                requirePair(weight, ggml_get_tensor(tensors, (weight + ".lora_a").c_str()), b);
            }
        }
    }

  private:
    void requireKeys(const gguf_context * gguf) {
        const std::pair<const char *, gguf_type> keys[] = {
            {"general.type", GGUF_TYPE_STRING},
            {"general.architecture", GGUF_TYPE_STRING},
            {"adapter.type", GGUF_TYPE_STRING},
            {"adapter.lora.alpha", GGUF_TYPE_FLOAT32}
        };
        for (const auto & [name, type] : keys) {
            const int64_t key = gguf_find_key(gguf, name);
            if (key < 0 || gguf_get_kv_type(gguf, key) != type) {
                throw invalid(path_, std::string("its metadata has no `") + name + "` of type " + gguf_type_name(type));
            }
        }
        const float alpha = gguf_get_val_f32(gguf, gguf_find_key(gguf, "adapter.lora.alpha"));
        if (!(std::abs(alpha) <= 1e6f)) {
            throw invalid(path_, "its `adapter.lora.alpha` is not from -1,000,000 to 1,000,000");
        }
    }

    void requirePair(const std::string & name, const ggml_tensor * a, const ggml_tensor * b) {
        const auto entry = weights_.find(name);
        if (entry == weights_.end() || a == nullptr) {
            return;  // llama.cpp reports this error itself
        }
        const ggml_tensor * weight = entry->second;
        for (const ggml_tensor * tensor : {a, b}) {
            if (!isMatrixType(tensor->type)) {
                throw invalid(
                    path_, std::string("the type ") + ggml_type_name(tensor->type) + " of \"" + tensor->name +
                               "\" is not supported"
                );
            }
            if (tensor->ne[2] != weight->ne[2] || tensor->ne[3] != weight->ne[3]) {
                throw invalid(
                    path_, std::string("\"") + tensor->name + "\" does not have the shape of this model's weight"
                );
            }
        }
        if (a->ne[name == "token_embd.weight" ? 0 : 1] != b->ne[0]) {
            throw invalid(path_, "the two matrices of \"" + name + "\" have different ranks");
        }
        if (name == "token_embd.weight" && weights_.find("output.weight") == weights_.end()) {
            throw invalid(
                path_, "it changes \"token_embd.weight\", but this model also uses that weight for its output"
            );
        }
    }

    const std::string path_;
    std::map<std::string, const ggml_tensor *> weights_;
};

std::string metadataText(
    int32_t (*read)(const llama_adapter_lora *, int32_t, char *, size_t),
    const llama_adapter_lora * adapter,
    int32_t index
) {
    return readLlamaString([&](char * to, size_t size) { return read(adapter, index, to, size); });
}

Napi::Value toUndefined(Napi::Env env, bool &) { return env.Undefined(); }

}  // namespace

// --- LoraState -------------------------------------------------------------------------------------------------------

LoraState::~LoraState() {
    if (adapter == nullptr) {
        return;
    }
    // Frees the adapter on the model's thread. If that thread has ended, the model has already freed its adapters.
    thread->post([model = std::move(model), adapter = adapter] {
        std::lock_guard<std::mutex> lock(model->lorasMutex);
        llama_adapter_lora_free(adapter);
    });
}

void LoraState::load(const std::string & path) {
    requireRegularFile(path, "a LoRA adapter (GGUF)", "LORA_NOT_FOUND", "LORA_INVALID");
    LogCapture log;
    AssertTrap trap;
    try {
        AdapterCheck(path, model->model).require();
    } catch (const Failure & failure) {
        throw failure.code == "INTERNAL" ? invalid(path, failure.what()) : failure;
    }
    std::lock_guard<std::mutex> lock(model->lorasMutex);
    adapter = llama_adapter_lora_init(model->model, path.c_str());
    if (adapter == nullptr) {
        throw Failure(
            "LORA_INVALID", "Expected a LoRA adapter (GGUF) for this model at \"" + path + "\"" + log.reason()
        );
    }
    for (int32_t i = 0; i < llama_adapter_meta_count(adapter); i++) {
        metadata[metadataText(llama_adapter_meta_key_by_index, adapter, i)] =
            metadataText(llama_adapter_meta_val_str_by_index, adapter, i);
    }
    const llama_token * invocation = llama_adapter_get_alora_invocation_tokens(adapter);
    invocationTokens.assign(invocation, invocation + llama_adapter_get_alora_n_invocation_tokens(adapter));
}

void LoraState::release() {
    closed = true;
    if (adapter) {
        std::lock_guard<std::mutex> lock(model->lorasMutex);
        llama_adapter_lora_free(adapter);
        adapter = nullptr;
    }
    model.reset();
}

std::vector<AppliedLora> lorasFrom(Napi::Value value, const ModelState * model) {
    if (!value.IsArray() || value.As<Napi::Array>().Length() > 64) {
        throw guard::invalid("loras", "an array of at most 64 { adapter, scale }", value);
    }
    Napi::Array array = value.As<Napi::Array>();
    std::vector<AppliedLora> applied;
    for (uint32_t i = 0; i < array.Length(); i++) {
        const std::string at = "loras[" + std::to_string(i) + "]";
        Napi::Object entry = guard::object(array.Get(i), at);
        const auto & lora = unwrap<Lora>(entry.Get("adapter"), (at + ".adapter").c_str(), "a LoraAdapter").state();
        const double scale = guard::optionalNumber(entry, "scale", 1);
        if (lora->closed) {
            throw Failure("CLOSED", "Expected open LoRA adapters, but " + at + " was closed");
        }
        if (lora->owner != model) {
            throw Failure(
                "INVALID_ARGUMENT", "Expected LoRA adapters of this context's model, got one of another model at " + at
            );
        }
        if (std::abs(scale) > MAX_SCALE) {
            throw Failure("INVALID_ARGUMENT", "Expected `" + at + ".scale` to be a number from -10000 to 10000");
        }
        if (std::any_of(applied.begin(), applied.end(), [&](const AppliedLora & other) {
                return other.lora == lora;
            })) {
            throw Failure("INVALID_ARGUMENT", "Expected each LoRA adapter only once, but " + at + " repeats one");
        }
        applied.push_back({lora, (float) scale});
    }
    return applied;
}

// --- JavaScript ------------------------------------------------------------------------------------------------------

Lora::Lora(const Napi::CallbackInfo & info)
    : Napi::ObjectWrap<Lora>(info),
      state_(nativeState<std::shared_ptr<LoraState>>(info, TAG, "LoRA adapters are made by Lora.load()")) {}

Napi::Value Lora::load(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto state = std::make_shared<LoraState>();
        state->model = unwrap<Model>(info[0], "model", "a Model").state();
        state->owner = state->model.get();
        state->thread = state->model->thread;
        const std::string path = guard::path(info[1], "path");
        if (state->model->vocabOnly) {
            throw Failure(
                "UNSUPPORTED_MODEL", "This model was loaded with `vocabularyOnly`: it has no weights to adapt"
            );
        }
        addWeak<ModelChild>(state->model->children, state);
        Thread & thread = *state->thread;
        return runOn<std::shared_ptr<LoraState>>(
            env, thread,
            AbortFlag::unlessAborted(
                info[2],
                [state, path] {
                    state->load(path);
                    return state;
                }
            ),
            [](Napi::Env env, std::shared_ptr<LoraState> & loaded) -> Napi::Value {
                Napi::Object lora =
                    Environment::of(env).loraClass.New({Napi::External<std::shared_ptr<LoraState>>::New(env, &loaded)});
                Napi::Object metadata = Napi::Object::New(env);
                for (const auto & [key, value] : loaded->metadata) {
                    metadata.Set(key, value);
                }
                lora.Set("metadata", metadata);
                lora.Set("invocationTokens", copyToJs(env, loaded->invocationTokens));
                return lora;
            }
        );
    });
}

Napi::Value Lora::close(const Napi::CallbackInfo & info) {
    return guard::call(info.Env(), [&]() -> Napi::Value {
        state_->closed = true;
        // Contexts that apply the adapter still keep it in memory. The last of these contexts frees it.
        auto closed = std::make_shared<LoraState>();
        closed->closed = true;
        state_ = std::move(closed);
        return info.Env().Undefined();
    });
}

void Lora::define(Napi::Env env, Napi::Object exports) {
    Napi::Function type =
        DefineClass(env, "Lora", {StaticMethod<&Lora::load>("load"), InstanceMethod<&Lora::close>("close")});
    Environment::of(env).loraClass = Napi::Persistent(type);
    exports.Set("Lora", type);
}

Napi::Value Context::setLoras(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto state = open();
        auto applied = lorasFrom(info[0], state->owner);
        return runOn<bool>(
            env, *state->thread,
            [state, applied] {
                state->requireOpen();
                std::vector<llama_adapter_lora *> adapters;
                std::vector<float> scales;
                for (const auto & entry : applied) {
                    adapters.push_back(entry.lora->adapter);
                    scales.push_back(entry.scale);
                }
                llama_set_adapters_lora(state->ctx, adapters.data(), adapters.size(), scales.data());
                state->loras = applied;  // after the call, because the assignment may free the previous adapters
                state->lorasChanged = true;
                return true;
            },
            toUndefined
        );
    });
}
