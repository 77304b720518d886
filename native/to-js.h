// Copies native memory into JavaScript. Only this file copies arrays (test/unit/native-memory.test.ts checks that), and
// one watched function creates all strings. A build with assertions can therefore detect KV bytes that are about to
// enter the JavaScript heap.
#pragma once

#include "kv-watch.h"

#include <node_api.h>

#include <cstring>

#ifdef HEADSTART_ASSERTIONS
// Must be defined before napi.h is included, because napi.h creates all strings with napi_create_string_utf8.
inline napi_status createWatchedString(napi_env env, const char * text, size_t length, napi_value * result) {
    kv::assertNone(text, length == NAPI_AUTO_LENGTH ? std::strlen(text) : length);
    return napi_create_string_utf8(env, text, length, result);
}
#define napi_create_string_utf8 createWatchedString
#endif

#include <napi.h>

#include <algorithm>
#include <string>
#include <vector>

// Returns a new typed array: an Int32Array for int32_t, a Float32Array for float, and so on.
template <class Element> Napi::TypedArrayOf<Element> copyToJs(Napi::Env env, const Element * from, size_t count) {
    kv::assertNone(from, count * sizeof(Element));
    auto array = Napi::TypedArrayOf<Element>::New(env, count);
    std::copy(from, from + count, array.Data());
    return array;
}

template <class Element> Napi::TypedArrayOf<Element> copyToJs(Napi::Env env, const std::vector<Element> & values) {
    return copyToJs(env, values.data(), values.size());
}

inline Napi::Uint8Array copyToJs(Napi::Env env, const std::string & bytes) {
    return copyToJs(env, reinterpret_cast<const uint8_t *>(bytes.data()), bytes.size());
}

// The argument `convert` of runOn (thread.h) for results that become typed arrays.
template <class Elements> Napi::Value toArray(Napi::Env env, Elements & values) { return copyToJs(env, values); }
