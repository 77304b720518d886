// Reads the metadata and the tensor layout of GGUF files.
#pragma once

#include "to-js.h"

#include <gguf.h>

#include <memory>
#include <string>

using Gguf = std::unique_ptr<gguf_context, void (*)(gguf_context *)>;

// Reads metadata and tensor descriptions, without tensor data. Returns null if the file is not a GGUF file.
Gguf openGguf(const std::string & path);

// Throws MODEL_NOT_FOUND, or MODEL_INVALID if `path` is not a regular file.
void requireModelFile(const std::string & path);

// Defines `ggufLayout(path)`, which returns the offset and size of each tensor in a file. The fingerprint of a model
// uses them.
void defineGgufLayout(Napi::Env env, Napi::Object exports);
