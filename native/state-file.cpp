#include "state-file.h"
#include "file.h"

#include <json.h>  // of llama.cpp's common
#include <llama.h>

#define XXH_INLINE_ALL
#include <hash/xxhash/xxhash.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace {

constexpr size_t READ_CHUNK = 256 << 10;  // small enough to stay in the L2 cache until the checksum includes it
constexpr size_t WRITE_CHUNK = 1 << 20;
constexpr size_t HEADER_BYTES = 12;
constexpr char CLOSING_MAGIC[] = "HDSTART1";
constexpr size_t MAGIC_BYTES = 8;
constexpr size_t CHECKSUM_BYTES = 16;
constexpr size_t METADATA_LENGTH_BYTES = 4;
constexpr size_t TRAILER_BYTES = METADATA_LENGTH_BYTES + CHECKSUM_BYTES + MAGIC_BYTES;
constexpr size_t MAX_METADATA_BYTES = 1 << 20;

Failure corrupt(const std::string & path, const std::string & why) {
    return Failure("ENTRY_CORRUPT", "Expected an intact sequence-state file at \"" + path + "\": " + why);
}

uint32_t readU32(const uint8_t * from) {
    uint32_t value;
    std::memcpy(&value, from, sizeof(value));
    return value;
}

// Opens a file, but refuses a link, because a link could lead to any file.
File openEntry(const std::string & path) { return File::openToRead(path, File::Links::refused); }

void readWhole(const File & file, const std::string & path, uint8_t * to, size_t count) {
    if (file.read(to, count) != count) {
        throw corrupt(path, "it is truncated");
    }
}

struct Footer {
    std::string metadata;
    size_t coveredBytes = 0;  // the length of the part that the checksum covers
    uint8_t checksum[CHECKSUM_BYTES];
};

Footer readFooter(const File & file, const std::string & path, size_t fileSize) {
    if (fileSize < HEADER_BYTES + TRAILER_BYTES) {
        throw corrupt(path, "it is too short");
    }
    uint8_t trailer[TRAILER_BYTES];
    file.seek(fileSize - TRAILER_BYTES);
    readWhole(file, path, trailer, TRAILER_BYTES);
    if (std::memcmp(trailer + METADATA_LENGTH_BYTES + CHECKSUM_BYTES, CLOSING_MAGIC, MAGIC_BYTES) != 0) {
        throw corrupt(path, "it does not end with this format's footer");
    }
    const size_t length = readU32(trailer);
    if (length > MAX_METADATA_BYTES || length > fileSize - HEADER_BYTES - TRAILER_BYTES) {
        throw corrupt(path, "its footer is damaged");
    }
    Footer footer;
    footer.metadata.resize(length);
    footer.coveredBytes = fileSize - TRAILER_BYTES + METADATA_LENGTH_BYTES;
    std::memcpy(footer.checksum, trailer + METADATA_LENGTH_BYTES, CHECKSUM_BYTES);
    file.seek(fileSize - TRAILER_BYTES - length);
    readWhole(file, path, (uint8_t *) footer.metadata.data(), length);
    return footer;
}

// Returns the field `compatibility` of the metadata. Refuses a file whose sizes differ from the sizes in its metadata,
// before memory is reserved for the state.
std::string compatibilityOf(const Footer & footer, const std::string & path, size_t tokenCount, size_t stateSize) {
    const common_json metadata = common_json::parse_no_throw(footer.metadata);
    if (metadata.is_discarded() || !metadata.is_object() || !metadata.contains("compatibility") ||
        !metadata.at("compatibility").is_string() || !metadata.contains("tokenCount") ||
        !metadata.contains("stateBytes") || !metadata.at("tokenCount").is_number() ||
        !metadata.at("stateBytes").is_number()) {
        throw corrupt(path, "its metadata is damaged");
    }
    if (metadata.at("tokenCount").get<double>() != (double) tokenCount ||
        metadata.at("stateBytes").get<double>() != (double) stateSize) {
        throw corrupt(path, "its length differs from the length in its metadata");
    }
    return metadata.at("compatibility");
}

class Checksum {
  public:
    Checksum() : state_(XXH3_createState()) { XXH3_128bits_reset(state_); }
    ~Checksum() { XXH3_freeState(state_); }
    Checksum(const Checksum &) = delete;

    void add(const uint8_t * data, size_t count) { XXH3_128bits_update(state_, data, count); }
    void finish(uint8_t * to) {
        XXH128_canonical_t canonical;
        XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state_));
        std::memcpy(to, canonical.digest, CHECKSUM_BYTES);
    }

  private:
    XXH3_state_t * state_;
};

void throwIfAborted(const std::atomic<bool> & abort, const std::string & path) {
    if (abort || Thread::parking()) {
        throw Failure("ABORTED", "The read or write of \"" + path + "\" was aborted");
    }
}

size_t readTokenCount(const File & file, const std::string & path, size_t fileSize) {
    uint8_t header[HEADER_BYTES];
    if (fileSize < HEADER_BYTES) {
        throw corrupt(path, "it is too short");
    }
    readWhole(file, path, header, HEADER_BYTES);
    if (readU32(header) != LLAMA_STATE_SEQ_MAGIC) {
        throw corrupt(path, "it is not a sequence-state file");
    }
    if (readU32(header + 4) != LLAMA_STATE_SEQ_VERSION) {
        throw Failure(
            "ENTRY_FOREIGN", "Expected version " + std::to_string(LLAMA_STATE_SEQ_VERSION) +
                                 " of llama.cpp's sequence-state file at \"" + path + "\", got version " +
                                 std::to_string(readU32(header + 4))
        );
    }
    return readU32(header + 8);
}

// Fills the buffer with the beginning of the file. If `expectedChecksum` is not null, the bytes must match it.
void readCoveredBytes(
    const File & file,
    const std::string & path,
    Buffer & buffer,
    const uint8_t * expectedChecksum,
    const std::atomic<bool> & abort
) {
    Checksum checksum;
    file.seek(0);
    for (size_t done = 0; done < buffer.size();) {
        throwIfAborted(abort, path);
        const size_t chunk = std::min(READ_CHUNK, buffer.size() - done);
        readWhole(file, path, buffer.data() + done, chunk);
        if (expectedChecksum) {
            checksum.add(buffer.data() + done, chunk);
        }
        done += chunk;
    }
    if (expectedChecksum) {
        uint8_t actual[CHECKSUM_BYTES];
        checksum.finish(actual);
        if (std::memcmp(actual, expectedChecksum, CHECKSUM_BYTES) != 0) {
            throw corrupt(path, "its checksum does not match");
        }
    }
}

}  // namespace

std::shared_ptr<const StateBytes> readStateFile(
    const std::string & path, bool unverified, const std::atomic<bool> & abort
) {
    throwIfAborted(abort, path);
    const File file = openEntry(path);
    const size_t fileSize = file.size();
    const size_t tokenCount = readTokenCount(file, path, fileSize);
    Footer footer;
    if (unverified) {
        footer.coveredBytes = fileSize;
    } else {
        footer = readFooter(file, path, fileSize);
    }
    const size_t stateEnd = footer.coveredBytes - footer.metadata.size() - (unverified ? 0 : METADATA_LENGTH_BYTES);
    const size_t stateStart = HEADER_BYTES + tokenCount * sizeof(int32_t);
    if (stateStart >= stateEnd) {
        throw corrupt(path, "it has no state");
    }

    auto bytes = std::make_shared<StateBytes>();
    bytes->metadata = footer.metadata;
    bytes->compatibility = unverified ? "" : compatibilityOf(footer, path, tokenCount, stateEnd - stateStart);
    bytes->buffer = Buffer(footer.coveredBytes);
    readCoveredBytes(file, path, bytes->buffer, unverified ? nullptr : footer.checksum, abort);
    const auto * tokens = reinterpret_cast<const int32_t *>(bytes->buffer.data() + HEADER_BYTES);
    bytes->tokens.assign(tokens, tokens + tokenCount);

    // llama_state_seq_set_data needs the blob's header directly in front of the state. The header overwrites the last
    // token ids in the buffer, which were copied above, so the state does not have to be moved.
    bytes->offset = stateStart - BLOB_HEADER_BYTES;
    bytes->size = stateEnd - bytes->offset;
    const int32_t sequenceId = 0;
    std::memcpy(bytes->buffer.data() + bytes->offset, &BLOB_MAGIC, 4);
    std::memcpy(bytes->buffer.data() + bytes->offset + 4, &sequenceId, 4);
    return bytes;
}

static std::string footerMetadata(const StateBytes & bytes, const std::string & metadata) {
    common_json fields = common_json::parse_no_throw(metadata);
    if (fields.is_discarded() || !fields.is_object()) {
        throw Failure("INVALID_ARGUMENT", "Expected `metadata` to be the JSON text of an object");
    }
    fields["tokenCount"] = bytes.tokens.size();
    fields["stateBytes"] = bytes.size - BLOB_HEADER_BYTES;
    fields["compatibility"] = bytes.compatibility;
    std::string text = fields.dump_safe();
    if (text.size() > MAX_METADATA_BYTES) {
        throw Failure(
            "INVALID_ARGUMENT", "Expected `metadata` to have at most " + std::to_string(MAX_METADATA_BYTES) + " bytes"
        );
    }
    return text;
}

size_t writeStateFile(
    const std::string & path, const StateBytes & bytes, const std::string & metadata, const std::atomic<bool> & abort
) {
    throwIfAborted(abort, path);
    const std::string footer = footerMetadata(bytes, metadata);
    File file = File::create(path);
    size_t written = 0;
    Checksum checksum;
    const auto put = [&](const void * from, size_t count) {
        const auto * next = static_cast<const uint8_t *>(from);
        for (size_t left = count; left > 0;) {
            throwIfAborted(abort, path);
            const size_t chunk = std::min(WRITE_CHUNK, left);
            checksum.add(next, chunk);
            file.write(next, chunk);
            next += chunk;
            left -= chunk;
            written += chunk;
        }
    };
    try {
        const uint32_t header[3] = {LLAMA_STATE_SEQ_MAGIC, LLAMA_STATE_SEQ_VERSION, (uint32_t) bytes.tokens.size()};
        put(header, sizeof(header));
        put(bytes.tokens.data(), bytes.tokens.size() * sizeof(int32_t));
        put(bytes.blob() + BLOB_HEADER_BYTES, bytes.size - BLOB_HEADER_BYTES);
        put(footer.data(), footer.size());
        const uint32_t length = (uint32_t) footer.size();
        put(&length, sizeof(length));
        uint8_t tail[CHECKSUM_BYTES + MAGIC_BYTES];
        checksum.finish(tail);
        std::memcpy(tail + CHECKSUM_BYTES, CLOSING_MAGIC, MAGIC_BYTES);
        file.write(tail, sizeof(tail));
        file.syncAndClose();
        return written + sizeof(tail);
    } catch (...) {
        file.close();  // Windows cannot remove an open file
        std::remove(path.c_str());
        throw;
    }
}

namespace {

std::string readMetadata(const std::string & path) {
    const File file = openEntry(path);
    const std::string metadata = readFooter(file, path, file.size()).metadata;
    if (!common_json::parse_no_throw(metadata).is_object()) {
        throw corrupt(path, "its metadata is damaged");
    }
    return metadata;
}

Napi::Value readFooterOf(const Napi::CallbackInfo & info) {
    return guard::call(info.Env(), [&]() -> Napi::Value {
        const std::string path = guard::path(info[0], "path");
        return runOn<std::string>(
            info.Env(), fileReader(), [path] { return readMetadata(path); },
            [](Napi::Env env, std::string & metadata) -> Napi::Value { return Napi::String::New(env, metadata); }
        );
    });
}

}  // namespace

void defineStateFile(Napi::Env env, Napi::Object exports) {
    exports.Set("readFooter", Napi::Function::New(env, readFooterOf, "readFooter"));
}
