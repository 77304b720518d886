// Converts a JSON Schema into a grammar with llama.cpp's converter, after checks that the converter lacks.
#pragma once

#include "to-js.h"

#include <string>

class common_json;

// Throws SCHEMA_INVALID if `common`'s converter would recurse forever or run for hours. The caller must already have
// checked that the schema is nested at most guard::MAX_JSON_DEPTH levels deep.
void requireSchema(const common_json & schema);

// Does the same for each schema of a `tools` array in the OpenAI chat format.
void requireToolSchemas(const common_json & tools);

// Defines `jsonSchemaToGrammar(schemaJson)`. It returns a promise of a GBNF grammar.
void defineSchema(Napi::Env env, Napi::Object exports);
