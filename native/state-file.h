// The file of a sequence state. llama.cpp's own layout, which llama_state_seq_load_file reads as it is, and a footer that
// it ignores (integers little-endian):
//
//   u32 magic 'ggsq'   u32 version 3   u32 n   n x i32 token ids   state
//   metadata (JSON)    u32 its length  xxh3-128 over all before (canonical, 16 bytes)   "HDSTART1"
#pragma once

#include "state.h"

#include <atomic>
#include <memory>
#include <string>

// Throws ENTRY_MISSING, ENTRY_CORRUPT (truncated, altered, not a file of ours), READ_FAILED, ABORTED.
// `unverified`: take a file without a footer, as llama.cpp writes it; the caller vouches for its bytes.
std::shared_ptr<const StateBytes> readStateFile(
    const std::string & path, bool unverified, const std::atomic<bool> & abort
);

// Writes a new file and syncs it; returns its size in bytes. Throws DISK_FULL, WRITE_FAILED, ABORTED, and leaves no file then.
size_t writeStateFile(
    const std::string & path, const StateBytes & bytes, const std::string & metadata, const std::atomic<bool> & abort
);

// The metadata and sizes at a file's end, without its state or checksum: `readFooter(path)`.
void defineStateFile(Napi::Env env, Napi::Object exports);
