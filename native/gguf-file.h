// GGUF files: their metadata and the layout of their tensors.
#pragma once

#include "to-js.h"

#include <gguf.h>

#include <memory>
#include <string>

using Gguf = std::unique_ptr<gguf_context, void (*)(gguf_context *)>;

// Metadata and tensor descriptions, without tensor data. Null if the file is not a GGUF file.
Gguf openGguf(const std::string & path);

// Throws MODEL_NOT_FOUND, or MODEL_INVALID if `path` is not a regular file.
void requireModelFile(const std::string & path);

// `ggufLayout(path)`: where the tensors are in a file, for the fingerprint of a model.
void defineGgufLayout(Napi::Env env, Napi::Object exports);
