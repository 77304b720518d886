// The format of a model's replies, as its chat template implies it: what a render learns, and the parser that comes with it.
#pragma once

#include "thread.h"

#include <chat.h>  // of llama.cpp's common

#include <memory>
#include <mutex>
#include <string>

// A parser: made by a render, used on the model's thread.
struct ReplyParser {
    common_chat_msg parse(const std::string & text, bool partial);

    std::shared_ptr<Thread> thread;
    common_chat_format      format = COMMON_CHAT_FORMAT_CONTENT_ONLY;
    std::string             generationPrompt, definition;

  private:
    std::mutex                                 mutex_;
    std::unique_ptr<common_chat_parser_params> loaded_;
};

// The fields of a rendered prompt that are about the reply.
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
