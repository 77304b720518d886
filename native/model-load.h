// Loading a model file on the model's thread, with progress and abort.
#pragma once

#include "model.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <string>

// Some pre-tokenizers recurse for each character (see tokenize.cpp), and so do chat templates and reply parsers.
constexpr size_t MODEL_STACK_BYTES = (size_t) 256 << 20;

struct LoadRequest {
    std::string path;
    llama_model_params params = llama_model_default_params();
    std::shared_ptr<std::atomic<bool>> abort;
    std::shared_ptr<Inbox> inbox;
    uint32_t onProgress = 0;  // the number of the callback in the environment, 0 for none
    std::chrono::steady_clock::time_point lastProgress;
};

// Throws INVALID_ARGUMENT.
std::shared_ptr<LoadRequest> loadRequestFrom(Napi::Env env, Napi::Object options);

// Throws MODEL_NOT_FOUND, MODEL_INVALID, ABORTED.
void loadModel(ModelState & state, LoadRequest & request);
