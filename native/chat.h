// Renders conversations with a chat template, through llama.cpp's `common` library.
#pragma once

#include "model.h"

#include <string>

struct common_chat_params;

struct RenderRequest {
    std::string messagesJson;    // an array in the OpenAI chat format
    std::string toolsJson;       // an array in the OpenAI chat format, or "[]"
    std::string shownToolsJson;  // the tools that the chat template writes instead of `toolsJson`, or ""
    std::string chatTemplate;    // "" for the chat template of the model
    bool addGenerationPrompt = true;
    bool reasoning = true;
    std::string toolChoice = "auto";
    bool parallelToolCalls = false;
    std::string schemaJson;  // the JSON Schema of the reply's text, or ""
    std::string reasoningFormat = "auto";
    bool textOnly = false;
};

struct Rendered {
    std::string prompt;
    std::string format;
    bool supportsTools = false;
    std::shared_ptr<common_chat_params> params;  // describe the format of the reply
    std::shared_ptr<Thread> thread;              // the model's thread, which parses replies
};

RenderRequest renderRequestFrom(Napi::Object request);
Rendered renderConversation(ModelState & state, const RenderRequest & request);
Napi::Value renderedToObject(Napi::Env env, Rendered & rendered);
