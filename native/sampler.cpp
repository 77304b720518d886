#include "sampler.h"

#include "grammar.h"
#include "log.h"
#include "trap.h"

#include <sampling.h>  // of llama.cpp's common

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <unordered_set>
#include <utility>

namespace {

// The limit for a reply that std::regex matches with a trigger pattern. std::regex recurses one or more times for each
// character of the whole reply so far, so a longer reply could overflow the stack of the context's thread. The limit
// always applies, because llama.cpp does not report whether it already found the trigger.
constexpr size_t MAX_MATCHED_BYTES = 16 * 1024;

bool hasTokenizer(const llama_vocab * vocab) { return llama_vocab_type(vocab) != LLAMA_VOCAB_TYPE_NONE; }

void requireTokenizer(const llama_vocab * vocab, const char * option) {
    if (!hasTokenizer(vocab)) {
        throw Failure(
            "NO_TOKENIZER",
            std::string("Expected a model with a tokenizer for the option `") + option + "`, got a model without one"
        );
    }
}

llama_token onlyToken(const llama_vocab * vocab, const std::string & text) {
    const auto tokens = common_tokenize(vocab, text, false, true);
    return tokens.size() == 1 ? tokens[0] : LLAMA_TOKEN_NULL;
}

// Turns each trigger word that is a preserved token into a trigger with the token's id, because control tokens may have
// no text.
void resolveTriggers(const llama_vocab * vocab, SamplerRequest & request) {
    std::set<llama_token> preserved;
    for (const auto & text : request.preserved) {
        preserved.insert(onlyToken(vocab, text));
    }
    for (auto & trigger : request.params.grammar_triggers) {
        if (trigger.type != COMMON_GRAMMAR_TRIGGER_TYPE_WORD) {
            continue;
        }
        const llama_token token = onlyToken(vocab, trigger.value);
        if (token != LLAMA_TOKEN_NULL && preserved.count(token)) {
            trigger.type = COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN;
            trigger.token = token;
        }
    }
    preserved.erase(LLAMA_TOKEN_NULL);
    request.params.preserved_tokens = std::move(preserved);
}

void prepareGrammar(const llama_vocab * vocab, SamplerRequest & request) {
    if (request.params.grammar.empty()) {
        request.params.generation_prompt.clear();
        request.params.grammar_triggers.clear();
        return;
    }
    requireTokenizer(vocab, "grammar");
    requireGrammar(vocab, request.params.grammar.grammar);
    resolveTriggers(vocab, request);
    for (const llama_token token : common_tokenize(vocab, request.params.generation_prompt, false, true)) {
        if (llama_vocab_is_eog(vocab, token)) {
            throw Failure(
                "INVALID_ARGUMENT", "Expected a `generationPrompt` without tokens that end generation: no grammar can "
                                    "begin with such a token"
            );
        }
    }
}

void forbidEndOfGeneration(const llama_vocab * vocab, common_params_sampling & params) {
    requireTokenizer(vocab, "ignoreEos");
    for (llama_token token = 0; token < llama_vocab_n_tokens(vocab); token++) {
        if (llama_vocab_is_eog(vocab, token)) {
            params.logit_bias.push_back({token, -INFINITY});
        }
    }
}

void requireCandidates(const llama_vocab * vocab, const common_params_sampling & params) {
    std::unordered_set<llama_token> forbidden;
    for (const auto & entry : params.logit_bias) {
        if (entry.bias == -INFINITY) {
            forbidden.insert(entry.token);
        }
    }
    if (forbidden.size() >= (size_t) llama_vocab_n_tokens(vocab)) {
        throw Failure(
            "NO_CANDIDATES",
            "Expected `logitBias` to allow at least one token, but it forbids all " + std::to_string(forbidden.size())
        );
    }
}

// Refuses NaN and +Infinity. Sorting is undefined with NaN, and the sampler's arithmetic turns +Infinity into NaN.
void requireUsableLogits(const float * logits, int32_t size) {
    for (int32_t i = 0; i < size; i++) {
        if (!(logits[i] < INFINITY)) {
            throw Failure(
                "LOGITS_INVALID", "The model computed a logit that is not a finite number (token " + std::to_string(i) +
                                      "): its weights may be damaged"
            );
        }
    }
}

}  // namespace

// --- SamplerState ----------------------------------------------------------------------------------------------------

SamplerState::~SamplerState() { common_sampler_free(sampler_); }

void SamplerState::build(SamplerRequest request) {
    const llama_vocab * vocab = model->vocab;
    AssertTrap trap;
    prepareGrammar(vocab, request);
    if (request.params.dry_multiplier > 0 && !request.params.dry_sequence_breakers.empty()) {
        requireTokenizer(vocab, "dry.sequenceBreakers");
    }
    if (request.ignoreEos) {
        forbidEndOfGeneration(vocab, request.params);
    }
    requireCandidates(vocab, request.params);
    params_ = std::move(request.params);
    create();
}

void SamplerState::create() {
    AssertTrap trap;
    LogCapture log;
    common_sampler * made = nullptr;
    try {
        common_params_sampling params = params_;
        made = common_sampler_init(model->model, params);
    } catch (const std::exception & error) {
        throw Failure(
            params_.grammar.empty() ? "INVALID_ARGUMENT" : "GRAMMAR_INVALID",
            std::string("llama.cpp could not create this sampler: ") + error.what() + log.reason()
        );
    }
    std::lock_guard<std::mutex> lock(mutex_);
    std::swap(sampler_, made);
    common_sampler_free(made);
    sampledBytes_ = 0;
    std::lock_guard<std::mutex> failureLock(failureMutex_);
    failure_.reset();
}

void SamplerState::rebuild() {
    requireUsable();
    // common_sampler_reset would not reset the grammar, so a new sampler is created.
    create();
}

void SamplerState::accept(const std::vector<int32_t> & tokens) {
    std::lock_guard<std::mutex> lock(mutex_);
    requireUsable();
    if (failure_) {
        throw Failure("SAMPLER_DEAD", std::string("This sampler failed in an earlier call: ") + failure_->what());
    }
    for (const int32_t token : tokens) {
        common_sampler_accept(sampler_, token, /* is_generated */ false);
    }
}

int32_t SamplerState::pick(llama_context * ctx, int32_t row) noexcept {
    std::lock_guard<std::mutex> lock(mutex_);
    if (failure_) {
        return LLAMA_TOKEN_NULL;
    }
    const auto fail = [this](const char * code, const std::string & message) {
        std::lock_guard<std::mutex> failureLock(failureMutex_);
        failure_ = std::make_unique<Failure>(
            code, message + ". This sampler chooses no more tokens: reset it, or create another sampler"
        );
        return LLAMA_TOKEN_NULL;
    };
    try {
        AssertTrap trap;
        requireUsable();
        return choose(ctx, row);
    } catch (const Failure & failure) {
        return fail(failure.code.c_str(), failure.what());
    } catch (const std::exception & error) {
        return fail(
            params_.grammar.empty() ? "SAMPLER_FAILED" : "GRAMMAR_DEAD_END",
            std::string("llama.cpp could not choose a token with this sampler: ") + error.what()
        );
    }
}

int32_t SamplerState::choose(llama_context * ctx, int32_t row) {
    requireUsableLogits(llama_get_logits_ith(ctx, row), vocabularySize);
    const llama_token token = common_sampler_sample(sampler_, ctx, row);
    const llama_token_data_array * candidates = common_sampler_get_candidates(sampler_, /* do_sort */ false);
    // If no token is allowed, llama.cpp still chooses a token. Accepting that token would end the process.
    if (candidates->selected < 0 || candidates->selected >= (int64_t) candidates->size ||
        !std::isfinite(candidates->data[candidates->selected].logit)) {
        if (params_.grammar.empty()) {
            throw Failure("NO_CANDIDATES", "`logitBias` or the model forbids every token");
        }
        throw Failure(
            "GRAMMAR_DEAD_END",
            "No token of the vocabulary can continue the grammar here, or `logitBias` forbids the tokens that can"
        );
    }
    requireMatchableLength(token);
    common_sampler_accept(sampler_, token, /* is_generated */ true);
    return token;
}

void SamplerState::requireMatchableLength(llama_token token) {
    if (!params_.grammar_lazy) {
        return;
    }
    sampledBytes_ += common_token_to_piece(model->vocab, token, true).size();
    const bool hasPatterns = std::any_of(
        params_.grammar_triggers.begin(), params_.grammar_triggers.end(), [](const common_grammar_trigger & trigger) {
            return trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN ||
                   trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN_FULL;
        }
    );
    if (hasPatterns && sampledBytes_ > MAX_MATCHED_BYTES) {
        throw Failure(
            "SAMPLER_FAILED", "The reply has grown beyond " + std::to_string(MAX_MATCHED_BYTES) +
                                  " bytes, the limit for a reply that is matched with trigger patterns"
        );
    }
}

std::unique_ptr<Failure> SamplerState::failure() {
    std::lock_guard<std::mutex> lock(failureMutex_);
    return failure_ ? std::make_unique<Failure>(*failure_) : nullptr;
}

void SamplerState::release() {
    std::lock_guard<std::mutex> lock(mutex_);
    closed = true;
    common_sampler_free(sampler_);
    sampler_ = nullptr;
    model.reset();
}

void releaseLater(std::shared_ptr<SamplerState> state) {
    const std::shared_ptr<Thread> thread = state->thread;
    thread->post([state = std::move(state)] { state->release(); });
}

// The caller must hold a lease. A sampler that is closed during a call is released only after that call.
void SamplerState::requireUsable() const {
    if (sampler_ == nullptr) {
        throw Failure("CLOSED", "Expected an open sampler, but it or its model was closed");
    }
}

// --- leases ----------------------------------------------------------------------------------------------------------

SamplerLease::SamplerLease(std::shared_ptr<SamplerState> state) : state_(std::move(state)) {
    if (state_->closed) {
        throw Failure("CLOSED", "Expected an open sampler, but it was closed");
    }
    if (state_->busy.exchange(true)) {
        throw Failure(
            "SAMPLER_BUSY", "Expected a sampler that no other call is using. A sampler belongs to one sequence: "
                            "await each call before you make the next one"
        );
    }
}

void SamplerLease::release() {
    if (std::exchange(held_, false)) {
        state_->busy = false;
        if (state_->closed && !state_->busy.exchange(true)) {
            releaseLater(state_);
        }
    }
}

SamplerLeases samplersFrom(Napi::Value value, size_t rows, const ModelState * model) {
    SamplerLeases leases;
    if (value.IsUndefined()) {
        return leases;
    }
    if (!value.IsArray() || value.As<Napi::Array>().Length() != rows) {
        throw guard::invalid(
            "samplers", "an array with a sampler or null for each of the " + std::to_string(rows) + " rows with output",
            value
        );
    }
    Napi::Array array = value.As<Napi::Array>();
    for (uint32_t i = 0; i < rows; i++) {
        Napi::Value element = array.Get(i);
        if (element.IsNull() || element.IsUndefined()) {
            leases.push_back(nullptr);
            continue;
        }
        const auto & state = unwrap<Sampler>(element, "samplers", "an array of Samplers and nulls").state();
        if (state->owner != model) {
            throw Failure(
                "INVALID_ARGUMENT",
                "Expected samplers of this context's model, got one of another model at index " + std::to_string(i)
            );
        }
        if (auto failure = state->busy ? nullptr : state->failure()) {
            throw Failure(
                "SAMPLER_DEAD", std::string("The sampler at index ") + std::to_string(i) +
                                    " failed in an earlier call: " + failure->what()
            );
        }
        leases.push_back(std::make_shared<SamplerLease>(state));
    }
    return leases;
}

// --- log-probabilities -----------------------------------------------------------------------------------------------

LogProbabilities logProbabilitiesOf(const float * logits, int32_t vocabularySize, size_t count) {
    const float highest = *std::max_element(logits, logits + vocabularySize);
    double sum = 0;
    for (int32_t i = 0; i < vocabularySize; i++) {
        sum += std::exp((double) logits[i] - highest);
    }
    LogProbabilities top;
    top.tokens.resize((size_t) vocabularySize);
    std::iota(top.tokens.begin(), top.tokens.end(), 0);
    // Equal logits are sorted by token id, so that the order is the same on every machine. NaN counts as -Infinity,
    // because std::partial_sort needs a total order.
    const auto rank = [&](int32_t id) { return std::isnan(logits[id]) ? -INFINITY : logits[id]; };
    const auto isBefore = [&](int32_t a, int32_t b) { return rank(a) != rank(b) ? rank(a) > rank(b) : a < b; };
    std::partial_sort(top.tokens.begin(), top.tokens.begin() + (long) count, top.tokens.end(), isBefore);
    top.tokens.resize(count);
    for (const int32_t id : top.tokens) {
        top.values.push_back((float) ((double) logits[id] - highest - std::log(sum)));
    }
    return top;
}

Napi::Value logProbabilitiesObject(Napi::Env env, LogProbabilities & top) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("tokens", copyToJs(env, top.tokens));
    object.Set("values", copyToJs(env, top.values));
    return object;
}
