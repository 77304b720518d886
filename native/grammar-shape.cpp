#include "grammar-checks.h"

#include <algorithm>
#include <vector>

namespace {

// llama.cpp keeps one stack for each way in which the text can continue. It compares all of these stacks with each
// other, so many stacks take a long time.
constexpr size_t MAX_STACKS = 20 * 1000;
constexpr size_t MAX_STEPS = 20 * 1000 * 1000;

size_t capped(size_t a, size_t b) { return std::min(a + b, (size_t) 1 << 40); }

bool isEnd(const llama_grammar_element & element) {
    return element.type == LLAMA_GRETYPE_END || element.type == LLAMA_GRETYPE_ALT;
}
bool isReference(const llama_grammar_element & element) { return element.type == LLAMA_GRETYPE_RULE_REF; }

// Returns the rules that can produce the empty text or, with `terminals`, any finite text. A rule belongs to the result
// if one of its alternatives has only elements of the result. With `terminals`, characters and tokens count as elements
// of the result too.
std::vector<bool> productiveRules(const llama_grammar_rules & rules, bool terminals) {
    struct Alternative {
        uint32_t rule, open;  // open: the number of referenced rules that are not yet in the result
    };
    std::vector<Alternative> alternatives;
    std::vector<std::vector<uint32_t>> users(rules.size());
    std::vector<uint32_t> unvisited;
    std::vector<bool> member(rules.size());
    const auto add = [&](uint32_t rule) {
        if (!member[rule]) {
            member[rule] = true;
            unvisited.push_back(rule);
        }
    };
    for (uint32_t id = 0; id < rules.size(); id++) {
        Alternative current{id, 0};
        bool blocked = false;
        for (const auto & element : rules[id]) {
            if (isReference(element)) {
                users[element.value].push_back((uint32_t) alternatives.size());
                current.open++;
            } else if (!isEnd(element)) {
                blocked = blocked || !terminals;
            } else {
                if (blocked) {
                    current.open++;  // so that `open` never becomes 0
                } else if (current.open == 0) {
                    add(id);
                }
                alternatives.push_back(current);
                current = {id, 0};
                blocked = false;
            }
        }
    }
    while (!unvisited.empty()) {
        const uint32_t rule = unvisited.back();
        unvisited.pop_back();
        for (const uint32_t user : users[rule]) {
            if (--alternatives[user].open == 0) {
                add(alternatives[user].rule);
            }
        }
    }
    return member;
}

// Calls `use(element, last)` for each element that can be the first of a rule. `empty` says which rules can be empty.
// `last` is true if no element follows in the same alternative.
template <class Use> void forEachFirst(const llama_grammar_rule & rule, const std::vector<bool> & empty, Use use) {
    bool first = true;
    for (size_t i = 0; i < rule.size(); i++) {
        if (isEnd(rule[i])) {
            first = true;
        } else if (first) {
            use(rule[i], isEnd(rule[i + 1]));
            first = isReference(rule[i]) && empty[rule[i].value];
        }
    }
}

// Counts the steps of llama.cpp's own search for left recursion. llama.cpp visits a rule again for each rule that uses
// it, so the search may take very long. Like llama.cpp, this class treats a rule as empty only if one of its
// alternatives has no elements.
class LlamaSearch {
  public:
    explicit LlamaSearch(const llama_grammar_rules & rules)
        : rules_(rules), empty_(rules.size()), state_(rules.size()), steps_(rules.size()) {
        for (size_t id = 0; id < rules.size(); id++) {
            bool start = true;
            for (const auto & element : rules[id]) {
                empty_[id] = empty_[id] || (start && isEnd(element));
                start = isEnd(element);
            }
        }
    }

    void require() {
        size_t total = 0;
        for (size_t id = 0; id < rules_.size(); id++) {
            total = capped(total, visit(id));
        }
        if (total > MAX_STEPS) {
            throw grammarRefusal("its rules can begin in too many ways");
        }
    }

  private:
    enum State : uint8_t { NEW, OPEN, DONE };

    size_t visit(size_t id) {
        if (state_[id] == OPEN) {
            throw grammarRefusal("a rule begins with itself (left recursion)");
        }
        if (state_[id] == NEW) {
            state_[id] = OPEN;
            size_t steps = rules_[id].size();
            forEachFirst(rules_[id], empty_, [&](const llama_grammar_element & element, bool) {
                steps = capped(steps, isReference(element) ? visit(element.value) : 0);
            });
            state_[id] = DONE;
            steps_[id] = steps;
        }
        return steps_[id];
    }

    const llama_grammar_rules & rules_;
    std::vector<bool> empty_;
    std::vector<State> state_;
    std::vector<size_t> steps_;
};

// Finds left recursion that llama.cpp's search misses: recursion after a rule that is empty because all its elements
// can be empty. If an element follows the recursion, llama.cpp's stacks grow forever, so the grammar is refused. If no
// element follows, as in (x?)+, the stacks do not grow. Such rules are allowed, because `common` writes them.
//
// The class runs Tarjan's algorithm for strongly connected components over the elements that can be first. It also
// counts the stacks with which each component begins.
class LeftRecursion {
  public:
    explicit LeftRecursion(const llama_grammar_rules & rules)
        : rules_(rules), empty_(productiveRules(rules, false)), order_(rules.size()), low_(rules.size()),
          component_(rules.size()), stacks_(1) {}

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
        const auto start = std::find(open_.rbegin(), open_.rend(), root).base() - 1;
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
                    throw grammarRefusal(
                        "a rule begins with itself (left recursion) after an element that may be empty"
                    );
                }
            });
        }
        if (stacks > MAX_STACKS) {
            throw grammarRefusal("one of its rules can begin in more than " + std::to_string(MAX_STACKS) + " ways");
        }
        stacks_.push_back(stacks);
    }

    const llama_grammar_rules & rules_;
    const std::vector<bool> empty_;
    std::vector<uint32_t> order_, low_, component_, open_;
    std::vector<size_t> stacks_;
    uint32_t visited_ = 0;
};

}  // namespace

void requireShape(const llama_grammar_rules & rules, size_t root) {
    LeftRecursion(rules).require();
    LlamaSearch(rules).require();
    if (!productiveRules(rules, true)[root]) {
        throw grammarRefusal(
            "\"root\" can never end: each of its alternatives uses a rule that always contains itself"
        );
    }
}
