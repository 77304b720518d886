// Renders conversations by a chat template, with llama.cpp's `common`.
#pragma once

#include "model.h"

#include <string>

struct common_chat_params;

struct RenderRequest {
    std::string messagesJson;    // an array in the OpenAI chat format
    std::string toolsJson;       // an array in the OpenAI chat format, or "[]"
    std::string shownToolsJson;  // what the chat template writes instead of the tools, or ""
    std::string chatTemplate;    // "" for the model's own
    bool addGenerationPrompt = true;
    bool reasoning = true;
    std::string toolChoice = "auto";
    bool parallelToolCalls = false;
    std::string schemaJson;  // the JSON Schema of the reply's text, or ""
    std::string reasoningFormat = "auto";
};

struct Rendered {
    std::string prompt;
    std::string format;
    bool supportsTools = false;
    std::shared_ptr<common_chat_params> params;  // the format of the reply
    std::shared_ptr<Thread> thread;              // the model's thread, which parses replies
};

RenderRequest renderRequestFrom(Napi::Object request);
Rendered renderConversation(ModelState & state, const RenderRequest & request);
Napi::Value renderedToObject(Napi::Env env, Rendered & rendered);
