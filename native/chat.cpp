#include "chat.h"

#include "log.h"
#include "reply.h"
#include "schema.h"
#include "trap.h"

#include <chat.h>  // of llama.cpp's common

#include <algorithm>

namespace {

constexpr size_t MAX_PARSED_TEMPLATES = 16;

std::shared_ptr<common_chat_templates> templatesFor(ModelState & state, const std::string & chatTemplate) {
    auto parsedTemplate = state.templates.find(chatTemplate);
    if (parsedTemplate != state.templates.end()) {
        return parsedTemplate->second;
    }
    if (chatTemplate.empty() && llama_model_chat_template(state.model, nullptr) == nullptr) {
        throw Failure(
            "NO_CHAT_TEMPLATE", "This model has no chat template: pass one as `chatTemplate`, or use token arrays"
        );
    }
    LogCapture log;
    try {
        common_chat_templates_ptr parsed = common_chat_templates_init(state.model, chatTemplate);
        if (state.templates.size() >= MAX_PARSED_TEMPLATES) {
            state.templates.clear();
        }
        return state.templates[chatTemplate] = std::shared_ptr<common_chat_templates>(std::move(parsed));
    } catch (const std::exception & error) {
        throw Failure(
            "CHAT_TEMPLATE_INVALID",
            std::string("Expected a chat template that can be parsed: ") + error.what() + log.reason()
        );
    }
}

// The arguments of a tool call are a string with JSON text. `common` parses this text for some chat templates, so its
// nesting must be limited too.
void requireShallowArguments(const common_json & messages) {
    for (const auto & message : messages) {
        const common_json * calls =
            message.is_object() && message.contains("tool_calls") ? &message.at("tool_calls") : nullptr;
        if (calls == nullptr || !calls->is_array()) {
            continue;
        }
        for (const auto & call : *calls) {
            const common_json * function =
                call.is_object() && call.contains("function") ? &call.at("function") : nullptr;
            if (function != nullptr && function->is_object() && function->contains("arguments") &&
                function->at("arguments").is_string()) {
                guard::requireShallowJson(function->at("arguments").get<std::string>(), "arguments");
            }
        }
    }
}

void requireChoice(const char * name, const std::string & value, const std::vector<std::string> & choices) {
    if (std::find(choices.begin(), choices.end(), value) != choices.end()) {
        return;
    }
    std::string listed;
    for (const auto & choice : choices) {
        listed += (listed.empty() ? "" : ", ") + choice;
    }
    throw Failure(
        "INVALID_ARGUMENT", std::string("Expected `") + name + "` to be one of " + listed + ", got \"" + value + "\""
    );
}

common_chat_templates_inputs inputsFrom(const RenderRequest & request) {
    common_chat_templates_inputs inputs;
    try {
        const common_json messages = common_json::parse(request.messagesJson);
        requireShallowArguments(messages);
        inputs.messages = common_chat_msgs_parse_oaicompat(messages);
        const common_json tools = common_json::parse(request.toolsJson);
        if (request.toolChoice != "none") {  // with "none", no grammar is made from the schemas
            requireToolSchemas(tools);
        }
        inputs.tools = common_chat_tools_parse_oaicompat(tools);
        if (!request.shownToolsJson.empty()) {
            // The chat template writes these tools into the prompt. The grammar and the parser still come from `tools`.
            const auto shown = common_chat_tools_parse_oaicompat(common_json::parse(request.shownToolsJson));
            inputs.chat_template_kwargs["tools"] = common_chat_tools_to_json_oaicompat(shown).dump_safe();
        }
        if (!request.schemaJson.empty()) {
            requireSchema(common_json::parse(request.schemaJson));
        }
    } catch (const Failure &) {
        throw;
    } catch (const std::exception & error) {
        throw Failure(
            "INVALID_ARGUMENT", std::string("Expected messages and tools in the OpenAI chat format: ") + error.what()
        );
    }
    inputs.add_generation_prompt = request.addGenerationPrompt;
    inputs.enable_thinking = request.reasoning;
    inputs.tool_choice = common_chat_tool_choice_parse_oaicompat(request.toolChoice);
    inputs.parallel_tool_calls = request.parallelToolCalls;
    inputs.json_schema = request.schemaJson;
    inputs.reasoning_format =
        request.reasoningFormat == "none" ? COMMON_REASONING_FORMAT_NONE : COMMON_REASONING_FORMAT_AUTO;
    inputs.force_pure_content = request.textOnly;
    return inputs;
}

}  // namespace

RenderRequest renderRequestFrom(Napi::Object request) {
    RenderRequest result;
    result.messagesJson = guard::string(request.Get("messages"), "messages");
    result.toolsJson = guard::optionalString(request, "tools", "[]");
    result.shownToolsJson = guard::optionalString(request, "shownTools", "");
    result.chatTemplate = guard::optionalString(request, "chatTemplate", "");
    result.addGenerationPrompt = guard::optionalBoolean(request, "addGenerationPrompt", true);
    result.reasoning = guard::optionalBoolean(request, "reasoning", true);
    result.toolChoice = guard::optionalString(request, "toolChoice", "auto");
    result.parallelToolCalls = guard::optionalBoolean(request, "parallelToolCalls", false);
    result.schemaJson = guard::optionalString(request, "jsonSchema", "");
    result.reasoningFormat = guard::optionalString(request, "reasoningFormat", "auto");
    result.textOnly = guard::optionalBoolean(request, "textOnly", false);
    requireChoice("toolChoice", result.toolChoice, {"auto", "required", "none"});
    requireChoice("reasoningFormat", result.reasoningFormat, {"auto", "none"});
    guard::requireShallowJson(result.schemaJson, "jsonSchema");
    guard::requireShallowJson(result.messagesJson, "messages");
    guard::requireShallowJson(result.toolsJson, "tools");
    guard::requireShallowJson(result.shownToolsJson, "shownTools");
    return result;
}

Rendered renderConversation(ModelState & state, const RenderRequest & request) {
    AssertTrap trap;
    auto templates = templatesFor(state, request.chatTemplate);
    const common_chat_templates_inputs inputs = inputsFrom(request);
    LogCapture log;
    try {
        common_chat_params applied = common_chat_templates_apply(templates.get(), inputs);
        const auto caps = common_chat_templates_get_caps(templates.get());
        const auto tools = caps.find("supports_tools");
        Rendered result;
        result.prompt = std::move(applied.prompt);
        result.format = common_chat_format_name(applied.format);
        result.supportsTools = tools != caps.end() && tools->second;
        result.params = std::make_shared<common_chat_params>(std::move(applied));
        result.thread = state.thread;
        return result;
    } catch (const std::exception & error) {
        throw Failure(
            "CHAT_TEMPLATE_FAILED",
            std::string("The chat template refused this conversation: ") + error.what() + log.reason()
        );
    }
}

Napi::Value renderedToObject(Napi::Env env, Rendered & rendered) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("prompt", rendered.prompt);
    object.Set("format", rendered.format);
    object.Set("supportsTools", Napi::Boolean::New(env, rendered.supportsTools));
    setReplyFields(object, *rendered.params, rendered.thread);
    return object;
}
