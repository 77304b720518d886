// The format of a model's replies, which follows from its chat template: the reply fields of a render, and the parser
// of replies.
#pragma once

#include "thread.h"

#include <chat.h>  // of llama.cpp's common

#include <memory>
#include <mutex>
#include <string>
#include <vector>

// How a reply is read.
enum class ReplyMode {
    WHOLE,
    PARTIAL,    // the reply is not complete yet
    BEGINNING,  // the part of the reply that follows the format
};

struct ReadReply {
    common_chat_msg message;
    size_t length = 0;  // of the part that was read, in UTF-16 units
};

// Parses replies. A render creates it; it is used on the model's thread.
struct ReplyParser {
    ReadReply read(const std::string & text, ReplyMode mode);

    std::shared_ptr<Thread> thread;
    common_chat_format format = COMMON_CHAT_FORMAT_CONTENT_ONLY;
    std::string generationPrompt, definition;
    std::vector<std::string> thinkingEndTags;

  private:
    const common_chat_parser_params & loaded();
    common_chat_msg messageOf(const std::string & text, bool partial);

    std::mutex mutex_;
    std::unique_ptr<common_chat_parser_params> loaded_;
};

// Sets the fields of ReplyFormat (lib/native/reply.ts).
void setReplyFields(Napi::Object object, const common_chat_params & params, const std::shared_ptr<Thread> & thread);

class ReplyFormat : public Napi::ObjectWrap<ReplyFormat> {
  public:
    static constexpr napi_type_tag TAG = {0x6865616473746172, 0x7265706c79666f72};

    explicit ReplyFormat(const Napi::CallbackInfo & info);

    static void define(Napi::Env env, Napi::Object exports);

  private:
    static Napi::Value parseReply(const Napi::CallbackInfo & info);
    static Napi::Value nameReply(const Napi::CallbackInfo & info);

    std::shared_ptr<ReplyParser> parser_;
};
