#include "schema.h"

#include "grammar.h"
#include "guards.h"
#include "log.h"
#include "thread.h"
#include "trap.h"

#include <json-schema-to-grammar.h>  // of llama.cpp's common

#include <algorithm>
#include <set>

namespace {

constexpr size_t STACK_BYTES = (size_t) 256 << 20;
constexpr size_t MAX_SCHEMA_BYTES = 256 * 1024;
constexpr size_t MAX_PROPERTIES = 512;  // of one object; the grammar's size grows with the square of this number
constexpr size_t MAX_NAME_BYTES = 256;
constexpr size_t MAX_EXPANSION = 20 * 1000;
constexpr double MAX_BOUND = 1e18;  // the converter uses 64-bit integers

Failure refusal(const std::string & reason) {
    return Failure(
        "SCHEMA_INVALID", "Expected a JSON Schema that can be converted into a grammar: " + reason.substr(0, 300)
    );
}

// The thread that converts schemas. A conversion has no model, so it cannot use a model's thread. Deep schemas and long
// patterns need a large stack.
Thread & textThread() {
    static std::shared_ptr<Thread> * thread = new std::shared_ptr<Thread>(Thread::start(STACK_BYTES));
    return **thread;
}

class SchemaCheck {
  public:
    explicit SchemaCheck(const common_json & root) : root_(root) {}

    void require() {
        if (!root_.is_object()) {
            throw refusal("it is not an object");
        }
        if (root_.dump_safe().size() > MAX_SCHEMA_BYTES) {
            throw refusal("it is longer than " + std::to_string(MAX_SCHEMA_BYTES) + " bytes");
        }
        if (visit(root_) > MAX_EXPANSION) {
            throw refusal(
                "its nested lists of types multiply to more than " + std::to_string(MAX_EXPANSION) + " combinations"
            );
        }
    }

  private:
    // Returns how many nodes the converter makes from this node. If a node has a list of types, the converter repeats
    // all nodes below it for each type.
    size_t visit(const common_json & node) {
        size_t below = 0;
        if (node.is_object()) {
            requireNode(node);
            for (const auto & [name, value] : node.items()) {
                below = std::min(below + visit(value), MAX_EXPANSION + 1);
            }
            const size_t types = node.contains("type") && node.at("type").is_array() ? node.at("type").size() : 1;
            return std::min(1 + below * std::max<size_t>(types, 1), MAX_EXPANSION + 1);
        }
        if (node.is_array()) {
            for (const auto & value : node) {
                below = std::min(below + visit(value), MAX_EXPANSION + 1);
            }
        }
        return below;
    }

    void requireNode(const common_json & node) {
        if (node.contains("$ref") && node.at("$ref").is_string()) {
            requireEnd(node);
        }
        if (node.contains("properties") && node.at("properties").is_object()) {
            if (node.at("properties").size() > MAX_PROPERTIES) {
                throw refusal("an object has more than " + std::to_string(MAX_PROPERTIES) + " properties");
            }
            for (const auto & [name, value] : node.at("properties").items()) {
                if (name.size() > MAX_NAME_BYTES) {
                    throw refusal("a property's name is longer than " + std::to_string(MAX_NAME_BYTES) + " bytes");
                }
            }
        }
        for (const char * bound :
             {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems", "minLength",
              "maxLength"}) {
            if (node.contains(bound) && node.at(bound).is_number() &&
                !(std::abs(node.at(bound).get<double>()) <= MAX_BOUND)) {
                throw refusal(std::string("`") + bound + "` is not from -10^18 to 10^18");
            }
        }
        requireOrder(node, "minimum", "maximum");
        requireOrder(node, "minItems", "maxItems");
        requireOrder(node, "minLength", "maxLength");
    }

    void requireOrder(const common_json & node, const char * min, const char * max) {
        if (node.contains(min) && node.contains(max) && node.at(min).is_number() && node.at(max).is_number() &&
            node.at(min).get<double>() > node.at(max).get<double>()) {
            throw refusal(std::string("`") + min + "` is greater than `" + max + "`");
        }
    }

    // Follows a chain of references to its end. The converter would follow a circle of references forever.
    void requireEnd(const common_json & start) {
        std::set<std::string> seen;
        const common_json * at = &start;
        while (at && at->is_object() && at->contains("$ref") && at->at("$ref").is_string()) {
            const std::string ref = at->at("$ref").get<std::string>();
            if (ref.compare(0, 2, "#/") != 0) {
                throw refusal(
                    "the reference \"" + ref +
                    "\" does not begin with #/: only references into the same schema are supported"
                );
            }
            if (!seen.insert(ref).second) {
                throw refusal("the reference \"" + ref + "\" leads back to itself");
            }
            at = target(ref);
        }
    }

    const common_json * target(const std::string & ref) {
        const common_json * at = &root_;
        size_t start = 2;
        while (start <= ref.size()) {
            const size_t end = std::min(ref.find('/', start), ref.size());
            const std::string name = ref.substr(start, end - start);
            start = end + 1;
            if (at->is_object() && at->contains(name)) {
                at = &at->at(name);
            } else if (
                at->is_array() && !name.empty() && name.size() < 9 &&
                name.find_first_not_of("0123456789") == std::string::npos && (size_t) std::stoul(name) < at->size()
            ) {
                at = &at->at((size_t) std::stoul(name));
            } else {
                throw refusal("the reference \"" + ref + "\" points to nothing in the schema");
            }
        }
        return at;
    }

    const common_json & root_;
};

std::string convert(const std::string & json) {
    AssertTrap trap;
    LogCapture log;
    std::string grammar;
    try {
        const common_json schema = common_json::parse(json);
        requireSchema(schema);
        grammar = json_schema_to_grammar(schema, /* force_gbnf */ true);
    } catch (const Failure &) {
        throw;
    } catch (const std::exception & error) {
        throw refusal(error.what() + log.reason());
    }
    try {
        requireGrammar(nullptr, grammar);
    } catch (const Failure & failure) {
        throw refusal(failure.what());
    }
    return grammar;
}

Napi::Value jsonSchemaToGrammar(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        const std::string json = guard::string(info[0], "schema");
        guard::requireShallowJson(json, "schema");
        if (json.size() > 4 * MAX_SCHEMA_BYTES) {
            throw refusal("it is longer than " + std::to_string(MAX_SCHEMA_BYTES) + " bytes");
        }
        return runOn<std::string>(
            env, textThread(), AbortFlag::unlessAborted(info[1], [json] { return convert(json); }),
            [](Napi::Env env, std::string & grammar) -> Napi::Value { return Napi::String::New(env, grammar); }
        );
    });
}

}  // namespace

void requireSchema(const common_json & schema) { SchemaCheck(schema).require(); }

void requireToolSchemas(const common_json & tools) {
    if (!tools.is_array()) {
        return;
    }
    for (const auto & tool : tools) {
        if (tool.is_object() && tool.contains("function") && tool.at("function").is_object() &&
            tool.at("function").contains("parameters") && tool.at("function").at("parameters").is_object()) {
            requireSchema(tool.at("function").at("parameters"));
        }
    }
}

void defineSchema(Napi::Env env, Napi::Object exports) {
    exports.Set("jsonSchemaToGrammar", Napi::Function::New(env, jsonSchemaToGrammar, "jsonSchemaToGrammar"));
}
