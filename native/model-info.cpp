#include "model-info.h"

#include "llama-string.h"

namespace {

const char * vocabularyTypeName(enum llama_vocab_type type) {
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

Napi::Object vocabularyObject(Napi::Env env, const llama_vocab * vocab) {
    Napi::Object object = Napi::Object::New(env);
    const auto setToken = [&](const char * name, llama_token id) {
        object.Set(name, id == LLAMA_TOKEN_NULL ? env.Null() : Napi::Value(Napi::Number::New(env, id)));
    };
    object.Set("type", vocabularyTypeName(llama_vocab_type(vocab)));
    object.Set("size", llama_vocab_n_tokens(vocab));
    setToken("bos", llama_vocab_bos(vocab));
    setToken("eos", llama_vocab_eos(vocab));
    setToken("eot", llama_vocab_eot(vocab));
    setToken("newline", llama_vocab_nl(vocab));
    setToken("pad", llama_vocab_pad(vocab));
    setToken("separator", llama_vocab_sep(vocab));
    setToken("mask", llama_vocab_mask(vocab));
    object.Set("addsBos", Napi::Boolean::New(env, llama_vocab_get_add_bos(vocab)));
    object.Set("addsEos", Napi::Boolean::New(env, llama_vocab_get_add_eos(vocab)));
    return object;
}

}  // namespace

Napi::Object modelInfoObject(Napi::Env env, const ModelState & state) {
    const llama_model * model = state.model;
    Napi::Object object = Napi::Object::New(env);
    const auto setFlag = [&](const char * name, bool value) { object.Set(name, Napi::Boolean::New(env, value)); };
    object.Set("description", readLlamaString([&](char * to, size_t size) {
                   return llama_model_desc(model, to, size);
               }));
    object.Set("architecture", readLlamaString([&](char * to, size_t size) {
                   return llama_model_meta_val_str(model, "general.architecture", to, size);
               }));
    object.Set("fileType", llama_ftype_name(llama_model_ftype(model)));
    object.Set("parameters", Napi::Number::New(env, (double) llama_model_n_params(model)));
    object.Set("sizeBytes", Napi::Number::New(env, (double) llama_model_size(model)));
    object.Set("trainContextSize", llama_model_n_ctx_train(model));
    object.Set("embeddingSize", llama_model_n_embd(model));
    object.Set("layers", llama_model_n_layer(model));
    // A model loaded with `vocabularyOnly` has no layers. The functions that return numbers of heads would abort.
    const bool hasLayers = llama_model_n_layer(model) > 0;
    object.Set("heads", hasLayers ? llama_model_n_head(model) : 0);
    object.Set("kvHeads", hasLayers ? llama_model_n_head_kv(model) : 0);
    object.Set("slidingWindow", llama_model_n_swa(model));
    object.Set("ropeType", (int) llama_model_rope_type(model));
    setFlag("recurrent", llama_model_is_recurrent(model));
    setFlag("hybrid", llama_model_is_hybrid(model));
    setFlag("diffusion", llama_model_is_diffusion(model));
    setFlag("encoder", llama_model_has_encoder(model));
    setFlag("decoder", llama_model_has_decoder(model));
    const char * chatTemplate = llama_model_chat_template(model, nullptr);
    object.Set("chatTemplate", chatTemplate ? Napi::Value(Napi::String::New(env, chatTemplate)) : env.Null());
    object.Set("vocabulary", vocabularyObject(env, state.vocab));
    return object;
}

Napi::Object metadataObject(Napi::Env env, const ModelState & state) {
    const llama_model * model = state.model;
    Napi::Object object = Napi::Object::New(env);
    for (int32_t i = 0; i < llama_model_meta_count(model); i++) {
        object.Set(
            readLlamaString([&](char * to, size_t size) { return llama_model_meta_key_by_index(model, i, to, size); }),
            readLlamaString([&](char * to, size_t size) {
                return llama_model_meta_val_str_by_index(model, i, to, size);
            })
        );
    }
    return object;
}
