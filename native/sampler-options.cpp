// Reads the sampling options. Each number must be within bounds that keep the arithmetic of llama.cpp finite. An option
// that is not set has no effect, unlike in `common`.
#include "sampler.h"

#include <cfloat>
#include <limits>
#include <random>

namespace {

constexpr double MAX_BIAS = 1e6;
constexpr int64_t MAX_HISTORY = 1 << 20;
constexpr size_t MAX_TRIGGERS = 256;
constexpr size_t MAX_WORD_BYTES = 4096;
constexpr size_t MAX_BREAKERS = 64;
constexpr size_t MAX_BREAKER_BYTES = 40;  // llama.cpp truncates longer breakers, even in the middle of a character
constexpr size_t MAX_PROMPT_BYTES = 64 * 1024;
// Logits divided by a lower temperature overflow a float. A lower temperature therefore counts as 0.
constexpr float MIN_TEMPERATURE = 1e-3f;

std::string shown(double value) {
    std::string text = std::to_string(value);
    text.erase(text.find_last_not_of('0') + 1);
    return text.back() == '.' ? text.substr(0, text.size() - 1) : text;
}

float within(Napi::Object options, const char * name, double fallback, double min, double max) {
    Napi::Value value = options.Get(name);
    const double number = value.IsUndefined() ? fallback
                          : value.IsNumber()  ? value.As<Napi::Number>().DoubleValue()
                                              : NAN;
    if (!(number >= min && number <= max)) {
        throw guard::invalid(name, "a number from " + shown(min) + " to " + shown(max), value);
    }
    return (float) number;
}

Napi::Object group(Napi::Object options, const char * name) {
    Napi::Value value = options.Get(name);
    return value.IsUndefined() ? Napi::Object::New(options.Env()) : guard::object(value, name);
}

template <class Use> void forEach(Napi::Object options, const char * name, size_t max, Use use) {
    Napi::Value value = options.Get(name);
    if (value.IsUndefined()) {
        return;
    }
    if (!value.IsArray() || value.As<Napi::Array>().Length() > max) {
        throw guard::invalid(name, "an array of at most " + std::to_string(max) + " elements", value);
    }
    Napi::Array array = value.As<Napi::Array>();
    for (uint32_t i = 0; i < array.Length(); i++) {
        use(array.Get(i), std::string(name) + "[" + std::to_string(i) + "]");
    }
}

void readTemperature(Napi::Object options, common_params_sampling & params) {
    params.temp = within(options, "temperature", 0, 0, 100);
    params.dynatemp_range = within(options, "dynamicTemperatureRange", 0, 0, 100);
    params.dynatemp_exponent = within(options, "dynamicTemperatureExponent", 1, 0.01, 100);
    if (params.temp < MIN_TEMPERATURE) {
        params.temp = 0;
    }
    if (params.dynatemp_range > 0 && params.temp - params.dynatemp_range < MIN_TEMPERATURE) {
        throw Failure(
            "INVALID_ARGUMENT", "Expected `dynamicTemperatureRange` to be less than `temperature`: the sampler uses "
                                "temperatures from `temperature` minus this range"
        );
    }
}

void readPenalties(Napi::Object options, common_params_sampling & params) {
    params.penalty_last_n = (int32_t) guard::optionalInteger(options, "penaltyLastTokens", 64, 0, MAX_HISTORY);
    params.penalty_repeat = within(options, "repeatPenalty", 1, 0.01, 100);
    params.penalty_freq = within(options, "frequencyPenalty", 0, -100, 100);
    params.penalty_present = within(options, "presencePenalty", 0, -100, 100);

    Napi::Object dry = group(options, "dry");
    params.dry_multiplier = within(dry, "multiplier", 0, 0, 1e6);
    params.dry_base = within(dry, "base", 1.75, 1, 1e6);
    params.dry_allowed_length = (int32_t) guard::optionalInteger(dry, "allowedLength", 2, 1, MAX_HISTORY);
    params.dry_penalty_last_n = (int32_t) guard::optionalInteger(dry, "penaltyLastTokens", 64, 0, MAX_HISTORY);
    if (!dry.Get("sequenceBreakers").IsUndefined()) {
        params.dry_sequence_breakers.clear();
        forEach(dry, "sequenceBreakers", MAX_BREAKERS, [&](Napi::Value value, const std::string & what) {
            const std::string text = guard::string(value, what);
            if (text.empty() || text.size() > MAX_BREAKER_BYTES || text.find('\0') != std::string::npos) {
                throw Failure(
                    "INVALID_ARGUMENT", "Expected `" + what + "` to have 1 to " + std::to_string(MAX_BREAKER_BYTES) +
                                            " bytes and no NUL characters"
                );
            }
            params.dry_sequence_breakers.push_back(text);
        });
    }
}

void readTruncation(Napi::Object options, common_params_sampling & params) {
    params.top_k = (int32_t) guard::optionalInteger(options, "topK", 0, 0, INT32_MAX);
    params.top_p = within(options, "topP", 1, 0, 1);
    params.min_p = within(options, "minP", 0, 0, 1);
    params.typ_p = within(options, "typicalP", 1, 0, 1);
    params.min_keep = (int32_t) guard::optionalInteger(options, "minKeep", 0, 0, MAX_HISTORY);
    params.top_n_sigma = within(options, "topNSigma", 0, 0, 100);

    Napi::Object xtc = group(options, "xtc");
    params.xtc_probability = within(xtc, "probability", 0, 0, 1);
    params.xtc_threshold = within(xtc, "threshold", 0.1, 0, 1);

    if (!options.Get("mirostat").IsUndefined()) {
        Napi::Object mirostat = group(options, "mirostat");
        params.mirostat = (int32_t) guard::integer(mirostat.Get("version"), "mirostat.version", 0, 2);
        params.mirostat_tau = within(mirostat, "tau", 5, 0, 100);
        params.mirostat_eta = within(mirostat, "eta", 0.1, 0, 1);
        if (params.mirostat > 0 && params.temp <= 0) {
            throw Failure(
                "INVALID_ARGUMENT", "Expected `temperature` to be above 0 with `mirostat`, because mirostat has no "
                                    "effect on greedy sampling"
            );
        }
    }
}

void readBias(Napi::Object options, common_params_sampling & params, int32_t vocabularySize) {
    Napi::Value tokens = options.Get("biasTokens");
    if (tokens.IsUndefined()) {
        return;
    }
    const std::vector<int32_t> ids = guard::int32s(tokens, "biasTokens");
    Napi::Value values = options.Get("biasValues");
    if (!values.IsTypedArray() || values.As<Napi::TypedArray>().TypedArrayType() != napi_float64_array ||
        values.As<Napi::Float64Array>().ElementLength() != ids.size()) {
        throw guard::invalid("biasValues", "a Float64Array as long as `biasTokens`", values);
    }
    for (size_t i = 0; i < ids.size(); i++) {
        const double bias = values.As<Napi::Float64Array>()[i];
        if (ids[i] < 0 || ids[i] >= vocabularySize) {
            throw Failure(
                "TOKEN_OUT_OF_RANGE", "Expected `logitBias` for token ids from 0 to " +
                                          std::to_string(vocabularySize - 1) + ", got " + std::to_string(ids[i])
            );
        }
        if (!(bias >= -MAX_BIAS && bias <= MAX_BIAS) && bias != -INFINITY) {
            throw Failure(
                "INVALID_ARGUMENT",
                "Expected `logitBias` of " + std::to_string(ids[i]) + " to be -Infinity or a number from -1e6 to 1e6"
            );
        }
        params.logit_bias.push_back({ids[i], (float) bias});
    }
}

// llama.cpp compiles a trigger word as a regular expression. The compiler recurses once for each character.
void requireWord(const std::string & word, const std::string & what) {
    if (word.empty() || word.size() > MAX_WORD_BYTES || word.find('\0') != std::string::npos) {
        throw Failure(
            "GRAMMAR_INVALID", "Expected `" + what + ".value` to have 1 to " + std::to_string(MAX_WORD_BYTES) +
                                   " bytes and no NUL characters"
        );
    }
}

common_grammar_trigger triggerFrom(Napi::Value value, const std::string & what, int32_t vocabularySize) {
    Napi::Object object = guard::object(value, what);
    const std::string type = guard::string(object.Get("type"), what + ".type");
    common_grammar_trigger trigger;
    if (type == "token") {
        trigger.type = COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN;
        trigger.token = (llama_token) guard::integer(object.Get("token"), what + ".token", 0, vocabularySize - 1);
        return trigger;
    }
    if (type != "word" && type != "pattern" && type != "patternFull") {
        throw Failure("INVALID_ARGUMENT", "Expected `" + what + ".type` to be word, token, pattern or patternFull");
    }
    // lib/native/grammar-trigger.ts checks that a pattern comes from a render() result.
    trigger.type = type == "word"      ? COMMON_GRAMMAR_TRIGGER_TYPE_WORD
                   : type == "pattern" ? COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN
                                       : COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN_FULL;
    trigger.value = guard::string(object.Get("value"), what + ".value");
    if (type == "word") {
        requireWord(trigger.value, what);
    }
    return trigger;
}

void readGrammar(Napi::Object options, SamplerRequest & request, int32_t vocabularySize) {
    common_params_sampling & params = request.params;
    const std::string grammar = guard::optionalString(options, "grammar", "");
    params.grammar_lazy = guard::optionalBoolean(options, "grammarLazy", false);
    params.generation_prompt = guard::optionalString(options, "generationPrompt", "");
    if (params.generation_prompt.size() > MAX_PROMPT_BYTES) {
        throw Failure(
            "TEXT_TOO_LONG",
            "Expected `generationPrompt` to have at most " + std::to_string(MAX_PROMPT_BYTES) + " bytes"
        );
    }
    forEach(options, "grammarTriggers", MAX_TRIGGERS, [&](Napi::Value value, const std::string & what) {
        params.grammar_triggers.push_back(triggerFrom(value, what, vocabularySize));
    });
    forEach(options, "preservedTokens", MAX_TRIGGERS, [&](Napi::Value value, const std::string & what) {
        request.preserved.push_back(guard::string(value, what).substr(0, MAX_PROMPT_BYTES));
    });
    if (params.grammar_lazy && (grammar.empty() || params.grammar_triggers.empty())) {
        throw Failure(
            "INVALID_ARGUMENT",
            "Expected a `grammar` and `grammarTriggers` with `grammarLazy`: without them, the grammar would never start"
        );
    }
    if (!grammar.empty()) {
        // The grammar of a chat template also matches the text that the template puts in front of the reply. A user's
        // grammar matches only the reply.
        params.grammar = {
            params.generation_prompt.empty() ? COMMON_GRAMMAR_TYPE_USER : COMMON_GRAMMAR_TYPE_TOOL_CALLS, grammar
        };
    }
}

}  // namespace

SamplerRequest samplerRequestFrom(Napi::Object options, int32_t vocabularySize) {
    SamplerRequest request;
    readTemperature(options, request.params);
    readPenalties(options, request.params);
    readTruncation(options, request.params);
    readBias(options, request.params, vocabularySize);
    readGrammar(options, request, vocabularySize);
    request.ignoreEos = guard::optionalBoolean(options, "ignoreEos", false);
    // Not LLAMA_DEFAULT_SEED: llama.cpp would replace it with a random seed and not report that seed.
    request.params.seed = (uint32_t) guard::optionalInteger(
        options, "seed", (int64_t) (std::random_device()() % LLAMA_DEFAULT_SEED), 0, (int64_t) LLAMA_DEFAULT_SEED - 1
    );
    request.params.no_perf = true;
    return request;
}
