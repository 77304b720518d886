// A model's description and metadata as JavaScript objects.
#pragma once

#include "model.h"

// ModelInfo of lib/native/model.ts.
Napi::Object modelInfoObject(Napi::Env env, const ModelState & state);

// All scalar GGUF metadata as text, by key.
Napi::Object metadataObject(Napi::Env env, const ModelState & state);
