// The file of a sequence state. It begins with the content of llama.cpp's own file, so llama_state_seq_load_file can
// read it. A footer follows, which llama.cpp ignores. Integers are little-endian.
//
//   u32 magic 'ggsq'   u32 version 3   u32 n   n x i32 token ids   state
//   metadata (JSON)    u32 length of the metadata   xxh3-128 of all preceding bytes (canonical, 16 bytes)   "HDSTART1"
#pragma once

#include "state.h"

#include <atomic>
#include <memory>
#include <string>

// Throws ENTRY_MISSING, ENTRY_CORRUPT (truncated, altered, or of another format), ENTRY_FOREIGN, READ_FAILED, ABORTED.
// With `unverified`, reads a file without a footer, as llama.cpp writes it. The caller must then know that the bytes of
// the file are intact.
std::shared_ptr<const StateBytes> readStateFile(
    const std::string & path, bool unverified, const std::atomic<bool> & abort
);

// Writes a new file, syncs it and returns its size in bytes. Throws DISK_FULL, WRITE_FAILED, ABORTED. After an error,
// no file is left.
size_t writeStateFile(
    const std::string & path, const StateBytes & bytes, const std::string & metadata, const std::atomic<bool> & abort
);

// Defines `readFooter(path)`, which resolves with the metadata in the footer of a file. It does not verify the
// checksum.
void defineStateFile(Napi::Env env, Napi::Object exports);
