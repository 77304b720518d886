// JSON Schema: the checks that llama.cpp's converter does not make, and the converter.
#pragma once

#include "to-js.h"

#include <string>

class common_json;

// Throws SCHEMA_INVALID for a schema on which `common`'s converter would recurse for ever or work for hours. Its text is at most
// guard::MAX_JSON_DEPTH deep.
void requireSchema(const common_json & schema);

// The schemas of a `tools` array in the OpenAI chat format.
void requireToolSchemas(const common_json & tools);

// `jsonSchemaToGrammar(schemaJson)`: a promise of GBNF.
void defineSchema(Napi::Env env, Napi::Object exports);
