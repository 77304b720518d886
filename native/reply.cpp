#include "reply.h"

#include "log.h"
#include "readable-length.h"
#include "reply-names.h"
#include "trap.h"

#include <chat-peg-parser.h>

#include <algorithm>
#include <cstring>

namespace {

constexpr size_t MAX_TEXT_BYTES = 16 << 20;
// The parser recurses over nested values. Each level needs a few kilobytes of the stack.
constexpr size_t MAX_NESTING = 4096;

// Counts how deep brackets nest outside of quotes. The addon does not know which quotes the format uses, or whether the
// text begins inside quotes. requireParsable therefore runs one counter for each possibility. One of the counters is
// right.
class Nesting {
  public:
    Nesting(const char * quotes, char open) : quotes_(quotes), open_(open) {}

    void read(char c) {
        if (escaped_) {
            escaped_ = false;
        } else if (c == '\\') {
            escaped_ = *quotes_ != '\0';
        } else if (c == '"' || c == '\'') {
            if (std::strchr(quotes_, c) != nullptr && (open_ == '\0' || open_ == c)) {
                open_ = open_ == '\0' ? c : '\0';
            }
        } else if (open_ != '\0') {
            return;
        } else if (c == '{' || c == '[' || c == '(') {
            if (++depth_ > MAX_NESTING) {
                throw Failure(
                    "JSON_TOO_DEEP",
                    "Expected a reply with brackets nested at most " + std::to_string(MAX_NESTING) + " levels deep"
                );
            }
        } else if ((c == '}' || c == ']' || c == ')') && depth_ > 0) {
            depth_--;
        }
    }

  private:
    const char * quotes_;
    char open_;
    bool escaped_ = false;
    size_t depth_ = 0;
};

void requireParsable(const std::string & text) {
    if (text.size() > MAX_TEXT_BYTES) {
        throw Failure(
            "TEXT_TOO_LONG", "Expected a reply of at most " + std::to_string(MAX_TEXT_BYTES) + " bytes, got " +
                                 std::to_string(text.size())
        );
    }
    Nesting counters[] = {
        {"", '\0'},                                  // a format without quotes
        {"\"", '\0'},  {"\"", '"'},                  // JSON
        {"\"'", '\0'}, {"\"'", '"'}, {"\"'", '\''},  // Python literals
    };
    for (const char c : text) {
        for (Nesting & counter : counters) {
            counter.read(c);
        }
    }
}

Napi::Array strings(Napi::Env env, const std::vector<std::string> & values) {
    Napi::Array array = Napi::Array::New(env, values.size());
    for (size_t i = 0; i < values.size(); i++) {
        array.Set((uint32_t) i, values[i]);
    }
    return array;
}

Napi::Array triggers(Napi::Env env, const std::vector<common_grammar_trigger> & values) {
    Napi::Array array = Napi::Array::New(env, values.size());
    for (size_t i = 0; i < values.size(); i++) {
        Napi::Object trigger = Napi::Object::New(env);
        switch (values[i].type) {
            case COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN: trigger.Set("type", "token"); break;
            case COMMON_GRAMMAR_TRIGGER_TYPE_WORD: trigger.Set("type", "word"); break;
            case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN: trigger.Set("type", "pattern"); break;
            case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN_FULL: trigger.Set("type", "patternFull"); break;
        }
        if (values[i].type == COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN) {
            trigger.Set("token", values[i].token);
        } else {
            trigger.Set("value", values[i].value);
        }
        array.Set((uint32_t) i, trigger);
    }
    return array;
}

// Returns the length of a UTF-8 text in UTF-16 code units, the unit of JavaScript's `length`.
size_t utf16Length(const std::string & text) {
    size_t units = 0;
    for (const char c : text) {
        const auto byte = (unsigned char) c;
        units += (byte & 0xC0) == 0x80 ? 0 : byte >= 0xF0 ? 2 : 1;
    }
    return units;
}

Napi::Value toObject(Napi::Env env, ReadReply & read) {
    common_chat_msg & message = read.message;
    Napi::Object reply = Napi::Object::New(env);
    Napi::Array calls = Napi::Array::New(env, message.tool_calls.size());
    for (size_t i = 0; i < message.tool_calls.size(); i++) {
        Napi::Object call = Napi::Object::New(env);
        call.Set("id", message.tool_calls[i].id);
        call.Set("name", message.tool_calls[i].name);
        call.Set("arguments", message.tool_calls[i].arguments);
        calls.Set((uint32_t) i, call);
    }
    reply.Set("content", message.content.empty() ? message.render_content("") : message.content);
    reply.Set("reasoning", message.reasoning_content);
    reply.Set("toolCalls", calls);
    reply.Set("length", (double) read.length);
    return reply;
}

std::vector<std::string> stringsFrom(Napi::Value value, const std::string & what) {
    if (!value.IsArray()) {
        throw guard::invalid(what, "an array of strings", value);
    }
    const Napi::Array array = value.As<Napi::Array>();
    std::vector<std::string> result;
    result.reserve(array.Length());
    for (uint32_t i = 0; i < array.Length(); i++) {
        result.push_back(guard::string(array.Get(i), what));
    }
    return result;
}

Napi::Value parserToObject(Napi::Env env, std::shared_ptr<ReplyParser> & parser) {
    return Environment::of(env).replyFormatClass.New({Napi::External<std::shared_ptr<ReplyParser>>::New(env, &parser)});
}

}  // namespace

const common_chat_parser_params & ReplyParser::loaded() {
    if (!loaded_) {
        auto params = std::make_unique<common_chat_parser_params>();
        params->format = format;
        params->generation_prompt = generationPrompt;
        if (!definition.empty()) {
            params->parser.load(definition);
        }
        loaded_ = std::move(params);
    }
    return *loaded_;
}

common_chat_msg ReplyParser::messageOf(const std::string & text, bool partial) {
    common_chat_msg message = common_chat_parse(text, partial, loaded());
    completeToolNames(message, text, loaded());
    return message;
}

ReadReply ReplyParser::read(const std::string & text, ReplyMode mode) {
    std::lock_guard<std::mutex> lock(mutex_);
    AssertTrap trap;
    LogCapture log;
    try {
        if (mode == ReplyMode::PARTIAL) {
            return {messageOf(text, true), utf16Length(text)};
        }
        ReadReply reply;
        if (mode == ReplyMode::WHOLE) {
            reply.message = messageOf(text, false);
        }
        const std::string readable =
            text.substr(0, readableLength({loaded().parser, generationPrompt, thinkingEndTags}, text));
        if (mode == ReplyMode::BEGINNING && !readable.empty()) {
            reply.message = messageOf(readable, false);
        }
        reply.length = utf16Length(readable);
        return reply;
    } catch (const Failure &) {
        throw;
    } catch (const std::exception & error) {
        throw Failure(
            "REPLY_INVALID", std::string("Expected a reply in the format of the chat template: ") + error.what()
        );
    }
}

void setReplyFields(Napi::Object object, const common_chat_params & params, const std::shared_ptr<Thread> & thread) {
    Napi::Env env = object.Env();
    auto parser = std::make_shared<ReplyParser>();
    parser->thread = thread;
    parser->format = params.format;
    parser->generationPrompt = params.generation_prompt;
    parser->definition = params.parser;
    parser->thinkingEndTags = params.thinking_end_tags;
    object.Set("grammar", params.grammar);
    object.Set("grammarLazy", Napi::Boolean::New(env, params.grammar_lazy));
    object.Set("grammarTriggers", triggers(env, params.grammar_triggers));
    object.Set("preservedTokens", strings(env, params.preserved_tokens));
    object.Set("additionalStops", strings(env, params.additional_stops));
    object.Set("generationPrompt", params.generation_prompt);
    object.Set("supportsThinking", Napi::Boolean::New(env, params.supports_thinking));
    object.Set("thinkingStartTag", params.thinking_start_tag);
    object.Set("thinkingEndTags", strings(env, params.thinking_end_tags));
    const std::string idTag = std::string("\"") + common_chat_peg_builder::TOOL_ID + "\"";
    object.Set("hasCallIds", Napi::Boolean::New(env, params.parser.find(idTag) != std::string::npos));
    object.Set("parser", parserToObject(env, parser));
}

ReplyFormat::ReplyFormat(const Napi::CallbackInfo & info)
    : Napi::ObjectWrap<ReplyFormat>(info),
      parser_(nativeState<std::shared_ptr<ReplyParser>>(info, TAG, "Reply formats are made by Model.render()")) {}

Napi::Value ReplyFormat::parseReply(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto parser = unwrap<ReplyFormat>(info[0], "rendered.parser", "the `parser` of a render() result").parser_;
        const std::string text = guard::string(info[1], "text");
        const bool partial = guard::boolean(info[2], "partial");
        const bool beginning = guard::boolean(info[3], "beginning");
        const ReplyMode mode = beginning ? ReplyMode::BEGINNING : partial ? ReplyMode::PARTIAL : ReplyMode::WHOLE;
        const auto read = [parser, text, mode] {
            requireParsable(text);
            return parser->read(text, mode);
        };
        return runOn<ReadReply>(env, *parser->thread, AbortFlag::unlessAborted(info[4], read), toObject);
    });
}

// Returns a parser for replies with the real names of tools. The argument is a parser that was made with stand-ins for
// these names.
Napi::Value ReplyFormat::nameReply(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto parser = unwrap<ReplyFormat>(info[0], "rendered.parser", "the `parser` of a render() result").parser_;
        const StandIns standIns = {guard::string(info[1], "mark"), stringsFrom(info[2], "names")};
        if (standIns.mark.empty()) {
            throw guard::invalid("mark", "a non-empty string", info[1]);
        }
        const auto name = [parser, standIns] {
            auto named = std::make_shared<ReplyParser>();
            named->thread = parser->thread;
            named->format = parser->format;
            named->generationPrompt = parser->generationPrompt;
            named->thinkingEndTags = parser->thinkingEndTags;
            named->definition = parser->definition.empty() ? "" : withRealNames(parser->definition, standIns);
            return named;
        };
        return runOn<std::shared_ptr<ReplyParser>>(env, *parser->thread, name, parserToObject);
    });
}

void ReplyFormat::define(Napi::Env env, Napi::Object exports) {
    Napi::Function type =
        DefineClass(env, "ReplyFormat", std::initializer_list<Napi::ClassPropertyDescriptor<ReplyFormat>>{});
    Environment::of(env).replyFormatClass = Napi::Persistent(type);
    exports.Set("parseReply", Napi::Function::New(env, parseReply, "parseReply"));
    exports.Set("nameReply", Napi::Function::New(env, nameReply, "nameReply"));
}
