#include "pattern.h"

#include "guards.h"

#include <algorithm>
#include <cctype>
#include <regex>

namespace {

constexpr size_t MAX_BYTES = 4096;
// Each level adds to the stack that std::regex needs for a character of the text.
constexpr size_t MAX_NESTING = 4;
// Of characters, where every repetition is written out.
constexpr double MAX_UNFOLDED = 20 * 1000;

Failure refusal(const std::string & expected) { return Failure("GRAMMAR_INVALID", "Expected a trigger " + expected); }

// What the C++ libraries do not judge alike: one of them takes ranges that run backwards, another unfolds repetitions without
// end. What else is wrong with a pattern all of them refuse.
class Scan {
  public:
    explicit Scan(const std::string & pattern) : text_(pattern) {
        while (at_ < text_.size()) {
            alternatives();
            at_++;  // a ")" too many
        }
    }

  private:
    char next(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }

    // Up to the group's end: how many characters it unfolds to.
    double alternatives() {
        double size = 0;
        while (at_ < text_.size() && next() != ')') {
            const double each = atom();
            size += each * repetitions();
            if (size > MAX_UNFOLDED) {
                throw refusal("whose repetitions unfold to no more than " + std::to_string((int) MAX_UNFOLDED) + " characters");
            }
        }
        return size;
    }

    double atom() {
        const char first = next();
        if (first == '(') {
            return group();
        }
        if (first == '[') {
            characterClass();
        } else {
            at_ += first == '\\' ? 2 : 1;
        }
        return 1;
    }

    double group() {
        if (++nesting_ > MAX_NESTING) {
            throw refusal("whose groups nest at most " + std::to_string(MAX_NESTING) + " levels deep");
        }
        at_++;
        const double size = alternatives();
        at_++;
        nesting_--;
        return size + 1;
    }

    void characterClass() {
        at_++;
        while (at_ < text_.size() && next() != ']') {
            const unsigned char from = member();
            if (next() == '-' && next(1) != ']') {
                at_++;
                const unsigned char to = member();
                if (from != '\0' && to != '\0' && from > to) {
                    throw refusal("without ranges that run backwards");
                }
            }
        }
        at_++;
    }

    // One character of a class; NUL for what stands for several, or is written as a number.
    unsigned char member() {
        const char first = next();
        if (first == '[' && (next(1) == ':' || next(1) == '.' || next(1) == '=')) {
            const size_t end = text_.find(std::string{next(1), ']'}, at_ + 2);
            at_ = end == std::string::npos ? text_.size() : end + 2;
            return '\0';
        }
        if (first == '\\') {
            const auto escaped = (unsigned char) next(1);
            at_ += 2;
            return std::ispunct(escaped) ? escaped : '\0';
        }
        at_++;
        return (unsigned char) first;
    }

    // Of the atom before: as often as it is written out, by all the quantifiers behind it.
    double repetitions() {
        double times = 1;
        while (next() == '{') {
            at_++;
            const double least = number();
            at_ += next() == ',';
            times *= std::max({1.0, least, number()});
            at_ += next() == '}';
        }
        return times;
    }

    double number() {
        double value = 0;
        for (; std::isdigit((unsigned char) next()); at_++) {
            value = std::min(value * 10 + (next() - '0'), 1e9);
        }
        return value;
    }

    const std::string & text_;
    size_t              at_      = 0;
    size_t              nesting_ = 0;
};

}  // namespace

void requirePattern(const std::string & pattern) {
    if (pattern.empty() || pattern.size() > MAX_BYTES || pattern.find('\0') != std::string::npos) {
        throw refusal("of 1 to " + std::to_string(MAX_BYTES) + " bytes without NUL characters");
    }
    Scan check(pattern);
    try {
        std::regex compiled(pattern);
    } catch (const std::exception & error) {
        throw refusal("that is a regular expression (ECMAScript): " + std::string(error.what()));
    }
}
