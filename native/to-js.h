// Copies native memory into JavaScript. Arrays are copied only here (test/unit/native-memory.test.ts checks that), and
// all strings are made by one watched function. So a build with assertions detects KV bytes that are about to enter the
// JavaScript heap.
#pragma once

#include "kv-watch.h"

#include <node_api.h>

#include <cstring>

#ifdef HEADSTART_ASSERTIONS
// Before napi.h is included: it makes all strings with this function.
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

// A new Int32Array for int32_t, Float32Array for float, and so on.
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

// The `convert` of runOn for arrays.
template <class Elements> Napi::Value toArray(Napi::Env env, Elements & values) { return copyToJs(env, values); }
