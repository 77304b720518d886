// Loads a model file on the model's thread. The load reports its progress and can be aborted.
#pragma once

#include "model.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <string>

// The model's thread needs a large stack. Some pre-tokenizers recurse for each byte of a text (see tokenize.cpp). Chat
// templates and reply parsers recurse over nested values.
constexpr size_t MODEL_STACK_BYTES = (size_t) 256 << 20;

struct LoadRequest {
    std::string path;
    llama_model_params params = llama_model_default_params();
    std::shared_ptr<std::atomic<bool>> abort;
    std::shared_ptr<Inbox> inbox;
    uint32_t onProgress = 0;  // the callback's number in the environment; 0 means no callback
    std::chrono::steady_clock::time_point lastProgress;
};

// Throws INVALID_ARGUMENT.
std::shared_ptr<LoadRequest> loadRequestFrom(Napi::Env env, Napi::Object options);

// Throws MODEL_NOT_FOUND, MODEL_INVALID, ABORTED.
void loadModel(ModelState & state, LoadRequest & request);
