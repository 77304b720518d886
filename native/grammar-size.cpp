#include "grammar-checks.h"

#include <algorithm>
#include <cstring>

namespace {

constexpr size_t MAX_NESTING = 512;
constexpr size_t MAX_TOKEN_BYTES = 512;
constexpr size_t MAX_ELEMENTS = 2 << 20;

size_t capped(size_t a, size_t b) { return std::min(a + b, (size_t) 1 << 40); }

// llama.cpp's parser unrolls repetitions, so a few bytes of text can need gigabytes. This class reads the text as the
// parser does and counts the elements that the parser would make.
class ExpandedSize {
  public:
    explicit ExpandedSize(const std::string & text) : text_(text) {}

    void requireBounded() {
        while (at_ < text_.size()) {
            step(text_[at_]);
            if (elements_ > MAX_ELEMENTS) {
                throw grammarRefusal("it expands to more than " + std::to_string(MAX_ELEMENTS) + " elements");
            }
        }
    }

  private:
    static bool isWord(char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
    }
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
                throw grammarRefusal(
                    "a token between < and > is longer than " + std::to_string(MAX_TOKEN_BYTES) + " bytes"
                );
            }
            item_ = 1;
        } else if (isWord(c)) {
            const size_t start = at_;
            while (at_ < text_.size() && isWord(text_[at_])) {
                at_++;
            }
            longestName_ = std::max(longestName_, at_ - start);
            item_ = 1;
            elements_++;
        } else if (c == '(') {
            if (++nesting_ > MAX_NESTING) {
                throw grammarRefusal("its groups nest deeper than " + std::to_string(MAX_NESTING));
            }
            elements_ += addedRuleSize();
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

    // The size of a rule that the parser adds. The parser gives it the name of another rule and a number.
    size_t addedRuleSize() const { return 16 + longestName_ / 4; }

    void braces() {
        at_++;
        const size_t min = number();
        size_t max = min;
        if (skip(',')) {
            max = isDigit(peek()) ? number() : SIZE_MAX;
        }
        skip('}');
        if (max < min) {
            throw grammarRefusal("in a repetition {m,n}, m is greater than n");
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
        const bool open = max == SIZE_MAX || max > 2000;  // llama.cpp treats more than 2,000 as no limit
        const size_t copies = std::max<size_t>(min, 1);
        const size_t optional = open ? 1 : max - min;
        elements_ = capped(
            elements_, std::min(copies, (size_t) 1 << 20) * std::min(item_, (size_t) 1 << 20) +
                           optional * (item_ + addedRuleSize())
        );
        item_ = capped(min == 0 ? 0 : item_ * std::min(copies, (size_t) 1 << 20), 1);
    }

    const std::string & text_;
    size_t at_ = 0, item_ = 0, elements_ = 0, nesting_ = 0, longestName_ = 4;
};

}  // namespace

void requireBoundedSize(const std::string & text) { ExpandedSize(text).requireBounded(); }
