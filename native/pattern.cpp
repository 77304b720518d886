#include "pattern.h"

#include "guards.h"

#include <algorithm>
#include <bitset>
#include <cctype>
#include <regex>

namespace {

constexpr size_t MAX_BYTES = 4096;
// Each level adds to the stack that std::regex needs for a character of the text.
constexpr size_t MAX_NESTING = 4;
// Of characters, where every repetition is written out.
constexpr double MAX_UNFOLDED = 20 * 1000;
// Of what takes no character (groups, alternatives, borders) in one pass of a repetition. Each costs some 300 bytes of stack a
// pass; the thread has 16 KiB of it for each byte of the text that a trigger may have to match (sampler.cpp).
constexpr double MAX_SILENT = 16;
// Of repetitions that may take characters from one before them. Each multiplies the time by the length of the text.
constexpr int MAX_CONTESTS = 3;

Failure refusal(const std::string & expected) { return Failure("GRAMMAR_INVALID", "Expected a trigger " + expected); }

// Of bytes, as std::regex takes the text. What is not known for sure is in the set.
using Chars = std::bitset<256>;

Chars charsWhere(int (*belongs)(int)) {
    Chars chars;
    for (int c = 0; c < 256; c++) {
        chars[(size_t) c] = c >= 128 || belongs(c);
    }
    return chars;
}

// Bytes of characters beyond ASCII: whether they count as letters depends on the locale.
const Chars HIGH = charsWhere([](int) { return 0; });

Chars one(unsigned char c) { return Chars().set(c); }

// \d, \w, \s and their opposites; else the character itself.
Chars escaped(char c) {
    switch (c) {
        case 'd': return charsWhere(std::isdigit);
        case 's': return charsWhere(std::isspace);
        case 'w': return charsWhere(std::isalnum) | one('_');
        case 'D': return ~charsWhere(std::isdigit) | HIGH;
        case 'S': return ~charsWhere(std::isspace) | HIGH;
        case 'W': return ~(charsWhere(std::isalnum) | one('_')) | HIGH;
        case 't': return one('\t');
        case 'n': return one('\n');
        case 'r': return one('\r');
        case 'v': return one('\v');
        case 'f': return one('\f');
        default: return std::isalnum((unsigned char) c) ? ~Chars() : one((unsigned char) c);
    }
}

// What a piece of a pattern matches.
struct Part {
    double size = 0;    // in characters, with every repetition written out
    double silent = 0;  // what takes no character, likewise
    Chars first, all;   // that it may begin with, or hold
    bool empty = true;  // it may match nothing
    bool ambiguous =
        false;  // there may be two ways to match one text: a repetition inside, or alternatives that begin alike
    bool forked = false;  // the latter
};

struct Times {
    double min = 1, max = 1;
};

// Two things that std::regex does not judge. What the C++ libraries take differently: ranges that run backwards, repetitions
// that unfold without end. And what lets it try without end, as it tries every way to match, and nothing can stop it: a
// repetition of what is ambiguous, such as (a+)+ or (a|a)*, doubles the time with every character. What else is wrong with a
// pattern all libraries refuse.
class Scan {
  public:
    explicit Scan(const std::string & pattern) : text_(pattern) {
        while (at_ < text_.size()) {
            alternatives();
            at_++;  // a ")" too many
        }
    }

  private:
    // What the repetitions so far may have taken characters from.
    struct Taken {
        Chars chars;
        int contests = 0;

        void add(const Taken & other) {
            chars |= other.chars;
            contests = std::max(contests, other.contests);
        }
    };

    char next(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }

    // Up to the group's end.
    Part alternatives() {
        const Taken before = taken_;
        Taken after;
        Part all = sequence();
        after.add(taken_);
        while (next() == '|') {
            at_++;
            taken_ = before;
            const Part part = sequence();
            all.forked = all.forked || part.forked || all.empty || part.empty || (all.first & part.first).any();
            all.ambiguous = all.ambiguous || part.ambiguous || all.forked;
            all.size += part.size;
            all.silent += part.silent + 1;
            all.first |= part.first;
            all.all |= part.all;
            all.empty = all.empty || part.empty;
            after.add(taken_);
        }
        taken_ = after;
        requireSize(all.size);
        return all;
    }

    Part sequence() {
        Part whole;
        while (at_ < text_.size() && next() != ')' && next() != '|') {
            const Part part = repeated();
            whole.size += part.size;
            whole.silent += part.silent;
            whole.first |= whole.empty ? part.first : Chars();
            whole.all |= part.all;
            whole.empty = whole.empty && part.empty;
            whole.ambiguous = whole.ambiguous || part.ambiguous;
            whole.forked = whole.forked || part.forked;
            requireSize(whole.size);
        }
        return whole;
    }

    void requireSize(double size) {
        if (size > MAX_UNFOLDED) {
            throw refusal(
                "whose repetitions unfold to no more than " + std::to_string((int) MAX_UNFOLDED) + " characters"
            );
        }
    }

    // An atom with all the quantifiers behind it.
    Part repeated() {
        const Taken before = taken_;
        Part part = atom();
        bool fixed = true;
        while (isQuantifier()) {
            const Times times = quantifier();
            if (times.max > 1 && part.ambiguous) {
                throw refusal(
                    "that repeats nothing twice over, as (a+)+ does, and no alternatives that begin alike, as in "
                    "(a|ab)*: std::regex could try for ever. "
                    "Take the inner repetition out, or make the alternatives' first characters differ"
                );
            }
            if (times.max > 1 && part.silent > MAX_SILENT) {
                throw refusal(
                    "whose repetitions hold at most " + std::to_string((int) MAX_SILENT) +
                    " groups, alternatives and borders: std::regex needs stack for each, every time"
                );
            }
            const double written = std::max({1.0, times.min, times.max == INFINITY ? 1.0 : times.max});
            part.size *= written;
            part.silent = (part.silent + 1) * written;
            part.empty = part.empty || times.min == 0;
            if (times.min != times.max) {
                part.ambiguous = true;
                fixed = false;
            }
        }
        take(part, before, fixed && !part.forked);
        return part;
    }

    void take(const Part & part, const Taken & before, bool fixed) {
        if (!fixed) {
            taken_.add(before);
            if ((before.chars & part.all).any() && ++taken_.contests > MAX_CONTESTS) {
                throw refusal(
                    "with at most " + std::to_string(MAX_CONTESTS + 1) +
                    " repetitions that may match the same characters in a row, as in .*.*: each multiplies the time"
                );
            }
            taken_.chars |= part.all;
        } else if (!part.empty && !(taken_.chars & part.all).any()) {
            taken_.chars.reset();  // none of them can reach beyond this
        }
    }

    Part atom() {
        Part part;
        const char first = next();
        if (first == '(') {
            return group();
        }
        if (first == '^' || first == '$') {
            at_++;
            part.silent = 1;
            return part;
        }
        part.size = 1;
        part.empty = false;
        if (first == '[') {
            part.all = characterClass();
        } else if (first == '\\') {
            part.empty = std::tolower(next(1)) == 'b' ||
                         std::isdigit((unsigned char) next(1));  // a border, or what a group matched
            part.ambiguous = std::isdigit((unsigned char) next(1)) && next(1) != '0';
            part.all = escape();
            part.silent = part.empty;
        } else {
            at_++;
            part.all = first == '.' ? ~Chars() : one((unsigned char) first);
        }
        part.first = part.all;
        return part;
    }

    // Behind the backslash, with what belongs to it.
    Chars escape() {
        const char kind = next(1);
        at_ += 2;
        for (size_t digits = kind == 'x'   ? 2
                             : kind == 'u' ? 4
                                           : 0;
             digits > 0 && std::isxdigit((unsigned char) next()); digits--) {
            at_++;
        }
        at_ += kind == 'c';
        return escaped(kind);
    }

    Part group() {
        if (++nesting_ > MAX_NESTING) {
            throw refusal("whose groups nest at most " + std::to_string(MAX_NESTING) + " levels deep");
        }
        at_++;
        const bool looks = next() == '?' && (next(1) == '=' || next(1) == '!');
        at_ += looks || (next() == '?' && next(1) == ':') ? 2 : 0;
        const Taken before = taken_;
        Part part = alternatives();
        if (looks) {  // ahead, and takes nothing
            taken_ = before;
            part.empty = true;
            part.first.reset();
            part.all.reset();
        }
        at_++;
        nesting_--;
        part.size += 1;
        part.silent += 2;
        return part;
    }

    Chars characterClass() {
        at_++;
        const bool inverted = next() == '^';
        bool certain = true;
        Chars chars;
        at_ += inverted;
        while (at_ < text_.size() && next() != ']') {
            const unsigned char from = member(chars, certain);
            if (next() == '-' && next(1) != ']') {
                at_++;
                const unsigned char to = member(chars, certain);
                if (from != '\0' && to != '\0' && from > to) {
                    throw refusal("without ranges that run backwards");
                }
                for (int c = from; c <= to && from != '\0'; c++) {
                    chars.set((size_t) c);
                }
                certain = certain && from != '\0' && to != '\0';
            }
        }
        at_++;
        return !certain ? ~Chars() : inverted ? ~chars | HIGH : chars;
    }

    // One character of a class; NUL for what stands for several, or is written as a number.
    unsigned char member(Chars & chars, bool & certain) {
        const char first = next();
        if (first == '[' && (next(1) == ':' || next(1) == '.' || next(1) == '=')) {
            const size_t end = text_.find(std::string{next(1), ']'}, at_ + 2);
            at_ = end == std::string::npos ? text_.size() : end + 2;
            certain = false;
            return '\0';
        }
        if (first == '\\') {
            const auto kind = (unsigned char) next(1);
            const Chars known = escape();
            chars |= known;
            certain = certain && known.count() < 256 && !std::isupper(kind);
            return std::ispunct(kind) ? kind : '\0';
        }
        at_++;
        chars.set((unsigned char) first);
        certain = certain && (unsigned char) first < 128;
        return (unsigned char) first;
    }

    bool isQuantifier() const { return next() == '*' || next() == '+' || next() == '?' || next() == '{'; }

    Times quantifier() {
        Times times;
        const char kind = next();
        at_++;
        if (kind == '{') {
            times.min = times.max = number();
            if (next() == ',') {
                at_++;
                times.max = std::isdigit((unsigned char) next()) ? number() : INFINITY;
            }
            at_ += next() == '}';
        } else {
            times.min = kind == '+';
            times.max = kind == '?' ? 1 : INFINITY;
        }
        at_ += next() == '?';  // as few as possible
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
    size_t at_ = 0;
    size_t nesting_ = 0;
    Taken taken_;
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
