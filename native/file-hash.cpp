#include "file-hash.h"

#include "file.h"

extern "C" {
#include <hash/sha256/sha256.h>
}

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

namespace {

constexpr size_t CHUNK_BYTES = 256 << 10;  // small enough to stay in the L2 cache until it is hashed

struct Range {
    uint64_t offset, length;
};

// Used only on the thread that reads files, which runs calls in order.
struct Hashing {
    Hashing() { sha256_init(&state); }

    void add(const File & file, Range range, const std::atomic<bool> & abort) {
        file.seek(range.offset);
        for (uint64_t left = range.length; left > 0;) {
            AbortFlag::throwIfSet(abort);
            if (Thread::parking()) {
                throw Failure("ABORTED", "The process is exiting");
            }
            const size_t count = (size_t) std::min<uint64_t>(left, CHUNK_BYTES);
            const size_t readBytes = file.read(buffer.data(), count);
            sha256_update(&state, buffer.data(), readBytes);
            if (readBytes < count) {
                return;  // the end of the file
            }
            left -= readBytes;
        }
    }

    sha256_t state;
    std::vector<uint8_t> buffer = std::vector<uint8_t>(CHUNK_BYTES);
};

std::string hexDigest(sha256_t state) {
    static const char * const digits = "0123456789abcdef";
    unsigned char digest[SHA256_DIGEST_SIZE];
    sha256_final(&state, digest);
    std::string hex;
    for (const unsigned char byte : digest) {
        hex += digits[byte >> 4];
        hex += digits[byte & 15];
    }
    return hex;
}

std::vector<Range> rangesFrom(Napi::Value value) {
    const auto numbers = guard::elements<double>(value, napi_float64_array, "ranges", "a Float64Array");
    std::vector<Range> ranges;
    for (size_t i = 0; i + 1 < numbers.size(); i += 2) {
        for (const double number : {numbers[i], numbers[i + 1]}) {
            if (!(number >= 0 && number <= 9007199254740991.0) || number != std::floor(number)) {
                throw Failure(
                    "INVALID_ARGUMENT",
                    "Expected `ranges` to be pairs of an offset and a length in bytes, each a whole number of 0 or more"
                );
            }
        }
        ranges.push_back({(uint64_t) numbers[i], (uint64_t) numbers[i + 1]});
    }
    return ranges;
}

class FileHash : public Napi::ObjectWrap<FileHash> {
  public:
    static constexpr napi_type_tag TAG = {0x6865616473746172, 0x66696c6568617368};

    explicit FileHash(const Napi::CallbackInfo & info) : Napi::ObjectWrap<FileHash>(info) {
        info.This().As<Napi::Object>().TypeTag(&TAG);
    }

    static void define(Napi::Env env, Napi::Object exports) {
        exports.Set(
            "FileHash",
            DefineClass(
                env, "FileHash", {InstanceMethod<&FileHash::add>("add"), InstanceMethod<&FileHash::digest>("digest")}
            )
        );
    }

  private:
    // add(path, ranges, abort): adds the bytes of each range to the hash. A range may go beyond the end of the file.
    // Then only the existing bytes are added.
    Napi::Value add(const Napi::CallbackInfo & info) {
        return guard::call(info.Env(), [&]() -> Napi::Value {
            const std::string path = guard::path(info[0], "path");
            const auto ranges = rangesFrom(info[1]);
            auto abort = AbortFlag::of(info[2]);
            const auto work = [hashing = hashing_, path, ranges, abort] {
                AbortFlag::throwIfSet(*abort);
                const File file = File::openToRead(path, File::Links::followed);
                for (const Range & range : ranges) {
                    hashing->add(file, range, *abort);
                }
                return true;
            };
            return runOn<bool>(info.Env(), fileReader(), work, [](Napi::Env env, bool &) { return env.Undefined(); });
        });
    }

    Napi::Value digest(const Napi::CallbackInfo & info) {
        return guard::call(info.Env(), [&]() -> Napi::Value {
            const auto toHex = [](Napi::Env env, std::string & hex) -> Napi::Value {
                return Napi::String::New(env, hex);
            };
            return runOn<std::string>(
                info.Env(), fileReader(), [hashing = hashing_] { return hexDigest(hashing->state); }, toHex
            );
        });
    }

    std::shared_ptr<Hashing> hashing_ = std::make_shared<Hashing>();
};

}  // namespace

void defineFileHash(Napi::Env env, Napi::Object exports) { FileHash::define(env, exports); }
