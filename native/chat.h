// A conversation rendered by the model's chat template, through llama.cpp's `common`.
#pragma once

#include "model.h"

#include <map>
#include <string>

struct RenderRequest {
    std::string messagesJson;                        // an array in the OpenAI chat format
    std::string toolsJson;                           // likewise, or "[]"
    std::string chatTemplate;                        // "" for the model's own
    std::map<std::string, std::string> variables;    // JSON texts by name, for the template
    bool        addGenerationPrompt = true;
    bool        enableThinking      = true;
};

struct Rendered {
    std::string prompt;
    std::string format;
    bool        supportsTools  = false;
};

RenderRequest renderRequestFrom(Napi::Object request);
Rendered      renderConversation(ModelState & state, const RenderRequest & request);
Napi::Value   renderedToObject(Napi::Env env, Rendered & rendered);
