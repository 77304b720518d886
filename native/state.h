// The KV state of a sequence, outside the JavaScript heap: its token ids and the bytes of llama_state_seq_get_data.
#pragma once

#include "buffer.h"
#include "thread.h"

#include <memory>
#include <string>
#include <vector>

struct StateBytes {
    std::vector<int32_t> tokens;
    Buffer buffer;
    size_t offset = 0;  // the index in `buffer` of the blob for llama_state_seq_set_data
    size_t size = 0;
    // Describes the model and context of the captured sequence. A state can be restored only into a context with the
    // same description. Empty if unknown: the caller must then know that the state fits.
    std::string compatibility;
    std::string metadata;  // JSON, from the file of the state
    // Whether the blob contains only the memory that cannot be trimmed: recurrent state and the cells of sliding
    // windows (LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY).
    bool partial = false;

    const uint8_t * blob() const { return buffer.data() + offset; }
};

// The blob starts with the header `u32 magic, i32 sequence id` (io_magic in llama-context.cpp). A file of llama.cpp
// contains only the bytes after this header.
constexpr size_t BLOB_HEADER_BYTES = 8;
constexpr uint32_t BLOB_MAGIC = 0xaf143cd8;

class SequenceState : public Napi::ObjectWrap<SequenceState> {
  public:
    static constexpr napi_type_tag TAG = {0x6865616473746172, 0x7365717374617465};

    explicit SequenceState(const Napi::CallbackInfo & info);
    ~SequenceState() override;

    static void define(Napi::Env env, Napi::Object exports);
    static Napi::Value wrap(Napi::Env env, std::shared_ptr<const StateBytes> bytes);

    // Returns the state that an argument wraps. Throws INVALID_ARGUMENT, CLOSED.
    static std::shared_ptr<const StateBytes> from(Napi::Value value);

  private:
    static Napi::Value readFile(const Napi::CallbackInfo & info);
    static Napi::Value reserve(const Napi::CallbackInfo & info);

    Napi::Value writeFile(const Napi::CallbackInfo & info);
    Napi::Value share(const Napi::CallbackInfo & info);
    Napi::Value close(const Napi::CallbackInfo & info);
    Napi::Value tokens(const Napi::CallbackInfo & info);
    Napi::Value byteLength(const Napi::CallbackInfo & info);
    Napi::Value isPartial(const Napi::CallbackInfo & info);
    Napi::Value metadata(const Napi::CallbackInfo & info);

    std::shared_ptr<const StateBytes> open() const;

    std::shared_ptr<const StateBytes> bytes_;
};
