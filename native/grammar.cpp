#include "grammar.h"

#include "guards.h"

// Internal to llama.cpp, and the only way to hear what is wrong with a grammar: the public calls print it to stderr.
#include "../vendor/llama.cpp/src/llama-grammar.h"

#include <algorithm>
#include <cstring>
#include <regex>

namespace {

constexpr size_t MAX_TEXT_BYTES    = 1 << 20;
constexpr size_t MAX_NESTING       = 512;
constexpr size_t MAX_TOKEN_BYTES   = 512;
constexpr size_t MAX_PATTERN_BYTES = 4096;
// Each level adds to the stack that std::regex needs for a character of the text.
constexpr size_t MAX_PATTERN_NESTING = 4;
constexpr size_t MAX_ELEMENTS      = 2 << 20;
constexpr size_t MAX_RULES         = 100 * 1000;
// llama.cpp compares each of the stacks at one place with each other one.
constexpr size_t MAX_STACKS = 20 * 1000;
// Its search for left recursion walks every path, rules that many share again and again.
constexpr size_t MAX_STEPS  = 20 * 1000 * 1000;

Failure refusal(const std::string & reason) { return Failure("GRAMMAR_INVALID", "Expected a GBNF grammar that llama.cpp can use: " + reason.substr(0, 300)); }

size_t capped(size_t a, size_t b) { return std::min(a + b, (size_t) 1 << 40); }

// Repetitions are unrolled, so a few bytes of text can ask for gigabytes. This reads the text as llama.cpp's parser does, and
// adds up what it would make of it, before it does.
class Measure {
  public:
    explicit Measure(const std::string & text) : text_(text) {}

    void require() {
        while (at_ < text_.size()) {
            step(text_[at_]);
            if (elements_ > MAX_ELEMENTS) {
                throw refusal("it unfolds into more than " + std::to_string(MAX_ELEMENTS) + " elements");
            }
        }
    }

  private:
    static bool isWord(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-'; }
    static bool isDigit(char c) { return c >= '0' && c <= '9'; }

    void step(char c) {
        if (c == '#') {
            while (at_ < text_.size() && text_[at_] != '\n' && text_[at_] != '\r') {
                at_++;
            }
        } else if (c == '"' || c == '[') {
            item_ = until(c == '"' ? '"' : ']');
        } else if (c == '<') {
            const size_t start = at_;
            until('>');
            if (at_ - start > MAX_TOKEN_BYTES) {
                throw refusal("a token between < and > is longer than " + std::to_string(MAX_TOKEN_BYTES) + " bytes");
            }
            item_ = 1;
        } else if (isWord(c)) {
            const size_t start = at_;
            while (at_ < text_.size() && isWord(text_[at_])) {
                at_++;
            }
            longestName_ = std::max(longestName_, at_ - start);
            item_        = 1;
            elements_++;
        } else if (c == '(') {
            if (++nesting_ > MAX_NESTING) {
                throw refusal("its groups nest deeper than " + std::to_string(MAX_NESTING));
            }
            elements_ += rule();
            at_++;
        } else if (c == ')') {
            nesting_ -= nesting_ > 0;
            item_ = 1;
            at_++;
        } else if (c == '*' || c == '+' || c == '?') {
            repeat(c == '+' ? 1 : 0, c == '?' ? 1 : SIZE_MAX);
            at_++;
        } else if (c == '{') {
            braces();
        } else {
            item_ = c == '.' ? 1 : item_;
            at_++;
        }
    }

    size_t until(char end) {
        const size_t start = at_++;
        while (at_ < text_.size() && text_[at_] != end) {
            at_ += text_[at_] == '\\' ? 2 : 1;
        }
        at_ = std::min(at_ + 1, text_.size());
        elements_ += at_ - start;
        return at_ - start;
    }

    // A rule that the parser makes up: its name is the rule's with a number.
    size_t rule() const { return 16 + longestName_ / 4; }

    void braces() {
        at_++;
        const size_t min = number();
        size_t       max = min;
        if (skip(',')) {
            max = isDigit(peek()) ? number() : SIZE_MAX;
        }
        skip('}');
        if (max < min) {
            throw refusal("a repetition {m,n} has m above n");
        }
        repeat(min, max);
    }

    char peek() {
        while (at_ < text_.size() && std::strchr(" \t\r\n", text_[at_])) {
            at_++;
        }
        return at_ < text_.size() ? text_[at_] : '\0';
    }

    bool skip(char c) {
        if (peek() != c) {
            return false;
        }
        at_++;
        return true;
    }

    size_t number() {
        size_t value = 0;
        peek();
        for (; at_ < text_.size() && isDigit(text_[at_]); at_++) {
            value = std::min((size_t) 1 << 32, value * 10 + (size_t) (text_[at_] - '0'));
        }
        return value;
    }

    void repeat(size_t min, size_t max) {
        const bool   open     = max == SIZE_MAX || max > 2000;  // llama.cpp takes more than 2,000 for any number
        const size_t copies   = std::max<size_t>(min, 1);
        const size_t optional = open ? 1 : max - min;
        elements_ = capped(elements_, std::min(copies, (size_t) 1 << 20) * std::min(item_, (size_t) 1 << 20) + optional * (item_ + rule()));
        item_     = capped(min == 0 ? 0 : item_ * std::min(copies, (size_t) 1 << 20), 1);
    }

    const std::string & text_;
    size_t              at_ = 0, item_ = 0, elements_ = 0, nesting_ = 0, longestName_ = 4;
};

bool isEnd(const llama_grammar_element & element) { return element.type == LLAMA_GRETYPE_END || element.type == LLAMA_GRETYPE_ALT; }
bool isReference(const llama_grammar_element & element) { return element.type == LLAMA_GRETYPE_RULE_REF; }

const char * skipSpace(const char * at) {
    while (*at == ' ' || *at == '\t' || *at == '\r' || *at == '\n' || *at == '#') {
        if (*at == '#') {
            at += std::strcspn(at, "\r\n");
        } else {
            at++;
        }
    }
    return at;
}

// As llama_grammar_parser::parse, which prints to stderr.
void parse(llama_grammar_parser & parser, const std::string & text) {
    try {
        const char * at = skipSpace(text.c_str());
        while (*at) {
            at = parser.parse_rule(at);
        }
    } catch (const std::exception & error) {
        throw refusal(error.what());
    }
    for (const auto & [name, id] : parser.symbol_ids) {
        if (id >= parser.rules.size() || parser.rules[id].empty()) {
            throw refusal("the rule \"" + name + "\" is not defined");
        }
    }
    if (parser.symbol_ids.find("root") == parser.symbol_ids.end()) {
        throw refusal("it has no rule \"root\"");
    }
    if (parser.rules.size() > MAX_RULES) {
        throw refusal("it unfolds into more than " + std::to_string(MAX_RULES) + " rules");
    }
}

// The rules that have an alternative made of such rules alone; with `terminals`, of such rules and characters or tokens.
std::vector<bool> closure(const llama_grammar_rules & rules, bool terminals) {
    struct Alternative {
        uint32_t rule, open;
    };
    std::vector<Alternative>           alternatives;
    std::vector<std::vector<uint32_t>> users(rules.size());
    std::vector<uint32_t>              found;
    std::vector<bool>                  member(rules.size());
    const auto join = [&](uint32_t rule) {
        if (!member[rule]) {
            member[rule] = true;
            found.push_back(rule);
        }
    };
    for (uint32_t id = 0; id < rules.size(); id++) {
        Alternative current{id, 0};
        bool        blocked = false;
        for (const auto & element : rules[id]) {
            if (isReference(element)) {
                users[element.value].push_back((uint32_t) alternatives.size());
                current.open++;
            } else if (!isEnd(element)) {
                blocked = blocked || !terminals;
            } else {
                if (blocked) {
                    current.open++;  // never all satisfied
                } else if (current.open == 0) {
                    join(id);
                }
                alternatives.push_back(current);
                current = {id, 0};
                blocked = false;
            }
        }
    }
    while (!found.empty()) {
        const uint32_t rule = found.back();
        found.pop_back();
        for (const uint32_t user : users[rule]) {
            if (--alternatives[user].open == 0) {
                join(alternatives[user].rule);
            }
        }
    }
    return member;
}

// Calls `each(element, last)` for what can stand first in a rule, given which rules may be empty; `last`: nothing follows it.
template <class Each> void forEachFirst(const llama_grammar_rule & rule, const std::vector<bool> & empty, Each each) {
    bool first = true;
    for (size_t i = 0; i < rule.size(); i++) {
        if (isEnd(rule[i])) {
            first = true;
        } else if (first) {
            each(rule[i], isEnd(rule[i + 1]));
            first = isReference(rule[i]) && empty[rule[i].value];
        }
    }
}

// llama.cpp's own search for left recursion, at its cost: it walks rules that many share again for each. It takes a rule for
// empty only if one of its alternatives has nothing in it.
class Search {
  public:
    explicit Search(const llama_grammar_rules & rules) : rules_(rules), empty_(rules.size()), state_(rules.size()), steps_(rules.size()) {
        for (size_t id = 0; id < rules.size(); id++) {
            bool start = true;
            for (const auto & element : rules[id]) {
                empty_[id] = empty_[id] || (start && isEnd(element));
                start      = isEnd(element);
            }
        }
    }

    void require() {
        size_t total = 0;
        for (size_t id = 0; id < rules_.size(); id++) {
            total = capped(total, visit(id));
        }
        if (total > MAX_STEPS) {
            throw refusal("too many of its rules can begin in too many ways");
        }
    }

  private:
    enum State : uint8_t { NEW, OPEN, DONE };

    size_t visit(size_t id) {
        if (state_[id] == OPEN) {
            throw refusal("a rule begins with itself (left recursion)");
        }
        if (state_[id] == NEW) {
            state_[id]   = OPEN;
            size_t steps = rules_[id].size();
            forEachFirst(rules_[id], empty_, [&](const llama_grammar_element & element, bool) { steps = capped(steps, isReference(element) ? visit(element.value) : 0); });
            state_[id] = DONE;
            steps_[id] = steps;
        }
        return steps_[id];
    }

    const llama_grammar_rules & rules_;
    std::vector<bool>           empty_;
    std::vector<State>          state_;
    std::vector<size_t>         steps_;
};

// The left recursion that this search misses: by way of rules that are empty by way of others. Where something follows the
// recursion, llama.cpp's stacks grow for ever; where nothing does, as in (x?)+, they do not, and `common` writes such rules.
// Tarjan's strongly connected components over what can stand first, with the number of stacks that each begins with.
class Components {
  public:
    explicit Components(const llama_grammar_rules & rules)
        : rules_(rules), empty_(closure(rules, false)), order_(rules.size()), low_(rules.size()), component_(rules.size()), stacks_(1) {}

    void require() {
        for (size_t id = 0; id < rules_.size(); id++) {
            if (order_[id] == 0) {
                visit((uint32_t) id);
            }
        }
    }

  private:
    void visit(uint32_t id) {
        order_[id] = low_[id] = ++visited_;
        open_.push_back(id);
        forEachFirst(rules_[id], empty_, [&](const llama_grammar_element & element, bool) {
            if (!isReference(element)) {
                return;
            }
            if (order_[element.value] == 0) {
                visit(element.value);
            }
            if (component_[element.value] == 0) {
                low_[id] = std::min(low_[id], low_[element.value]);
            }
        });
        if (low_[id] == order_[id]) {
            close(id);
        }
    }

    void close(uint32_t root) {
        const auto            start = std::find(open_.rbegin(), open_.rend(), root).base() - 1;
        std::vector<uint32_t> members(start, open_.end());
        open_.erase(start, open_.end());
        const auto number = (uint32_t) stacks_.size();
        for (const uint32_t id : members) {
            component_[id] = number;
        }
        size_t stacks = 1;
        for (const uint32_t id : members) {
            forEachFirst(rules_[id], empty_, [&](const llama_grammar_element & element, bool last) {
                if (!isReference(element)) {
                    stacks = capped(stacks, 1);
                } else if (component_[element.value] != number) {
                    stacks = capped(stacks, stacks_[component_[element.value]]);
                } else if (!last) {
                    throw refusal("a rule begins with itself (left recursion) behind what may be empty");
                }
            });
        }
        if (stacks > MAX_STACKS) {
            throw refusal("one of its rules can begin in more than " + std::to_string(MAX_STACKS) + " ways");
        }
        stacks_.push_back(stacks);
    }

    const llama_grammar_rules & rules_;
    const std::vector<bool>     empty_;
    std::vector<uint32_t>       order_, low_, component_, open_;
    std::vector<size_t>         stacks_;
    uint32_t                    visited_ = 0;
};

void requireTokens(const llama_vocab * vocab, const llama_grammar_rules & rules) {
    const auto size = (uint32_t) llama_vocab_n_tokens(vocab);
    for (const auto & rule : rules) {
        for (const auto & element : rule) {
            if ((element.type == LLAMA_GRETYPE_TOKEN || element.type == LLAMA_GRETYPE_TOKEN_NOT) && element.value >= size) {
                throw refusal("it names the token " + std::to_string(element.value) + ", and ids go to " + std::to_string(size - 1));
            }
        }
    }
}

}  // namespace

void requireGrammar(const llama_vocab * vocab, const std::string & text) {
    if (text.size() > MAX_TEXT_BYTES) {
        throw refusal("it has " + std::to_string(text.size()) + " bytes, and may have " + std::to_string(MAX_TEXT_BYTES));
    }
    if (text.find('\0') != std::string::npos) {
        throw refusal("it holds a NUL character");
    }
    // llama.cpp ends the process where it was built without that library.
    if (std::strncmp(skipSpace(text.c_str()), "%llguidance", 11) == 0) {
        throw refusal("grammars in the llguidance language are not supported");
    }
    Measure(text).require();
    llama_grammar_parser parser(vocab);
    parse(parser, text);
    if (vocab) {
        requireTokens(vocab, parser.rules);
    }
    Components(parser.rules).require();
    Search(parser.rules).require();
    if (!closure(parser.rules, true)[parser.symbol_ids.at("root")]) {
        throw refusal("\"root\" can never end: each of its alternatives needs a rule that needs itself");
    }
}

void requirePattern(const std::string & pattern) {
    if (pattern.empty() || pattern.size() > MAX_PATTERN_BYTES || pattern.find('\0') != std::string::npos) {
        throw Failure("GRAMMAR_INVALID", "Expected a trigger of 1 to " + std::to_string(MAX_PATTERN_BYTES) + " bytes without NUL characters");
    }
    size_t nesting = 0;
    for (size_t i = 0; i < pattern.size(); i++) {
        if (pattern[i] == '\\') {
            i++;
        } else if (pattern[i] == '(' && ++nesting > MAX_PATTERN_NESTING) {
            throw Failure("GRAMMAR_INVALID", "Expected a trigger whose groups nest at most " + std::to_string(MAX_PATTERN_NESTING) + " levels deep");
        } else if (pattern[i] == ')' && nesting > 0) {
            nesting--;
        }
    }
    try {
        std::regex check(pattern);
    } catch (const std::exception & error) {
        throw Failure("GRAMMAR_INVALID", "Expected a trigger that is a regular expression (ECMAScript): " + std::string(error.what()));
    }
}
