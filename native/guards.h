// Checks the arguments of native functions, so that no invalid argument reaches an assert in llama.cpp. A failed check
// throws a Failure whose message says what was expected. JavaScript receives a HeadstartError with the same code.
#pragma once

#include "to-js.h"

#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

struct Failure : std::runtime_error {
    Failure(std::string code, const std::string & message, std::vector<int32_t> sequences = {})
        : std::runtime_error(message), code(std::move(code)), sequences(std::move(sequences)) {}

    std::string code;
    std::vector<int32_t> sequences;  // the sequences whose content the failed call has changed
};

// Creates the JavaScript error for a failure with the factory that lib/native/addon.ts registered. If no factory is
// registered, the result is a plain Error with `code`.
Napi::Value errorFrom(Napi::Env env, const Failure & failure);

namespace guard {

inline Failure invalid(const std::string & what, const std::string & expected, Napi::Value value) {
    std::string shown = "nothing";
    if (!value.IsEmpty()) {
        if (value.IsNumber() || value.IsBoolean() || value.IsNull() || value.IsUndefined()) {
            shown = value.ToString().Utf8Value();
        } else {
            const napi_valuetype type = value.Type();
            shown = type == napi_string     ? "a string"
                    : type == napi_function ? "a function"
                    : type == napi_object   ? "an object"
                                            : "another type";
        }
    }
    return Failure("INVALID_ARGUMENT", "Expected `" + what + "` to be " + expected + ", got " + shown);
}

inline Napi::Object object(Napi::Value value, const std::string & what) {
    if (!value.IsObject() || value.IsFunction()) {
        throw invalid(what, "an object", value);
    }
    return value.As<Napi::Object>();
}

inline std::string string(Napi::Value value, const std::string & what) {
    if (!value.IsString()) {
        throw invalid(what, "a string", value);
    }
    return value.As<Napi::String>().Utf8Value();
}

// C functions read a path only up to the first NUL, so a path that contains a NUL would open a different file.
inline std::string path(Napi::Value value, const std::string & what) {
    std::string text = string(value, what);
    if (text.empty() || text.find('\0') != std::string::npos) {
        throw Failure("INVALID_ARGUMENT", "Expected `" + what + "` to be a non-empty path without NUL characters");
    }
    return text;
}

inline bool boolean(Napi::Value value, const std::string & what) {
    if (!value.IsBoolean()) {
        throw invalid(what, "a boolean", value);
    }
    return value.As<Napi::Boolean>().Value();
}

inline double number(Napi::Value value, const std::string & what) {
    if (!value.IsNumber() || !std::isfinite(value.As<Napi::Number>().DoubleValue())) {
        throw invalid(what, "a finite number", value);
    }
    return value.As<Napi::Number>().DoubleValue();
}

inline int64_t integer(Napi::Value value, const std::string & what, int64_t min, int64_t max) {
    const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : NAN;
    if (!(number >= (double) min && number <= (double) max) || number != std::floor(number)) {
        throw invalid(what, "an integer from " + std::to_string(min) + " to " + std::to_string(max), value);
    }
    return (int64_t) number;
}

// JavaScript's Number.MAX_SAFE_INTEGER.
constexpr int64_t MAX_SAFE_INTEGER = ((int64_t) 1 << 53) - 1;

// The following functions read optional arguments. They return `fallback` for an undefined argument.
inline bool booleanOr(Napi::Value value, const std::string & what, bool fallback) {
    return value.IsUndefined() ? fallback : boolean(value, what);
}

inline int64_t integerOr(Napi::Value value, const std::string & what, int64_t fallback, int64_t min, int64_t max) {
    return value.IsUndefined() ? fallback : integer(value, what, min, max);
}

// The following functions read fields of an options object. If the field is undefined, the functions named
// `optional...` return `fallback`.
inline Napi::Value field(Napi::Object options, const char * name) { return options.Get(name); }

inline bool optionalBoolean(Napi::Object options, const char * name, bool fallback) {
    return booleanOr(field(options, name), name, fallback);
}

inline int64_t optionalInteger(Napi::Object options, const char * name, int64_t fallback, int64_t min, int64_t max) {
    return integerOr(field(options, name), name, fallback, min, max);
}

inline double optionalNumber(Napi::Object options, const char * name, double fallback) {
    Napi::Value value = field(options, name);
    return value.IsUndefined() ? fallback : number(value, name);
}

inline std::string optionalString(Napi::Object options, const char * name, const std::string & fallback) {
    Napi::Value value = field(options, name);
    return value.IsUndefined() ? fallback : string(value, name);
}

// Copies the elements of a typed array, because JavaScript may change or detach the array while a thread reads it.
template <class Element> std::vector<Element> elements(
    Napi::Value value, napi_typedarray_type elementType, const std::string & what, const char * expected
) {
    napi_typedarray_type type = napi_int8_array;
    size_t length = 0;
    void * data = nullptr;
    if (napi_get_typedarray_info(value.Env(), value, &type, &length, &data, nullptr, nullptr) != napi_ok ||
        type != elementType) {
        throw invalid(what, expected, value);
    }
    const auto * from = static_cast<const Element *>(data);
    return std::vector<Element>(from, from + length);
}

inline std::vector<int32_t> int32s(Napi::Value value, const std::string & what) {
    return elements<int32_t>(value, napi_int32_array, what, "an Int32Array");
}
inline std::vector<uint8_t> bytes(Napi::Value value, const std::string & what) {
    return elements<uint8_t>(value, napi_uint8_array, what, "a Uint8Array");
}

// llama.cpp's `common` and its template engine recurse over nested values, so the depth is limited before a parser
// reads the text.
constexpr int MAX_JSON_DEPTH = 64;

inline void requireShallowJson(const std::string & json, const std::string & what) {
    int depth = 0;
    bool inString = false;
    for (size_t i = 0; i < json.size(); i++) {
        const char c = json[i];
        if (inString) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                inString = false;
            }
        } else if (c == '"') {
            inString = true;
        } else if (c == '{' || c == '[') {
            if (++depth > MAX_JSON_DEPTH) {
                throw Failure(
                    "JSON_TOO_DEEP",
                    "Expected `" + what + "` to be nested at most " + std::to_string(MAX_JSON_DEPTH) + " levels deep"
                );
            }
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
}

// Runs the body of a function that JavaScript calls, and turns C++ exceptions into HeadstartErrors. A Failure keeps its
// code, std::bad_alloc becomes `OUT_OF_MEMORY`, and any other exception becomes `INTERNAL`.
template <class Body> Napi::Value call(Napi::Env env, Body && body) {
    try {
        return body();
    } catch (const Failure & failure) {
        throw Napi::Error(env, errorFrom(env, failure));
    } catch (const Napi::Error &) {
        throw;
    } catch (const std::bad_alloc &) {
        throw Napi::Error(env, errorFrom(env, Failure("OUT_OF_MEMORY", "The process ran out of memory")));
    } catch (const std::exception & error) {
        throw Napi::Error(env, errorFrom(env, Failure("INTERNAL", error.what())));
    }
}

}  // namespace guard
