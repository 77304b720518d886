// JSON Schema to grammar: llama.cpp's converter, and the checks that it does not make.
#pragma once

#include "to-js.h"

#include <string>

class common_json;

// Throws SCHEMA_INVALID if `common`'s converter would recurse forever or work for hours. The text of the schema must
// nest at most guard::MAX_JSON_DEPTH levels deep.
void requireSchema(const common_json & schema);

// The same for the schemas of a `tools` array in the OpenAI chat format.
void requireToolSchemas(const common_json & tools);

// `jsonSchemaToGrammar(schemaJson)`: resolves with GBNF.
void defineSchema(Napi::Env env, Napi::Object exports);
