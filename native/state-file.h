// The file of a sequence state: llama.cpp's own file, which llama_state_seq_load_file reads as it is, followed by a
// footer that llama.cpp ignores. Integers are little-endian.
//
//   u32 magic 'ggsq'   u32 version 3   u32 n   n x i32 token ids   state
//   metadata (JSON)    u32 length of the metadata   xxh3-128 of everything before it (canonical, 16 bytes)   "HDSTART1"
#pragma once

#include "state.h"

#include <atomic>
#include <memory>
#include <string>

// Throws ENTRY_MISSING, ENTRY_CORRUPT (truncated, altered, or of another format), ENTRY_FOREIGN, READ_FAILED, ABORTED.
// `unverified`: reads a file without a footer, as llama.cpp writes it. The caller must know that its bytes are intact.
std::shared_ptr<const StateBytes> readStateFile(
    const std::string & path, bool unverified, const std::atomic<bool> & abort
);

// Writes a new file, syncs it and returns its size in bytes. Throws DISK_FULL, WRITE_FAILED, ABORTED; then no file is
// left.
size_t writeStateFile(
    const std::string & path, const StateBytes & bytes, const std::string & metadata, const std::atomic<bool> & abort
);

// `readFooter(path)`: the metadata in the footer of a file. The checksum is not compared.
void defineStateFile(Napi::Env env, Napi::Object exports);
