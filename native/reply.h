// The format of a model's replies, which depends on the chat template. This file sets the reply fields of a render()
// result and parses replies.
#pragma once

#include "thread.h"

#include <chat.h>  // of llama.cpp's common

#include <memory>
#include <mutex>
#include <string>
#include <vector>

// Which text a parser receives, and which part of it the parser reads.
enum class ReplyMode {
    WHOLE,      // the text is a complete reply, and the parser reads all of it
    PARTIAL,    // the text is a reply that is not complete yet, and the parser reads all of it
    BEGINNING,  // the text is any reply, and the parser reads only the beginning that follows the format
};

struct ReadReply {
    common_chat_msg message;
    // In UTF-16 code units: the length of the beginning that follows the format. With PARTIAL, the length of the text.
    size_t length = 0;
};

// Parses replies on the model's thread. Each render() creates a parser.
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

// Sets the fields of the type ReplyFormat (lib/native/reply.ts) on `object`.
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
