// Converts a model's description and metadata into JavaScript objects.
#pragma once

#include "model.h"

// Returns a ModelInfo (lib/native/model.ts).
Napi::Object modelInfoObject(Napi::Env env, const ModelState & state);

// Returns all scalar GGUF metadata: text values by key.
Napi::Object metadataObject(Napi::Env env, const ModelState & state);
