// Lists of objects that others own.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

// Adds an object, and removes those that are gone.
template <class Object>
void addWeak(std::vector<std::weak_ptr<Object>> & list, const std::shared_ptr<Object> & object) {
    list.erase(
        std::remove_if(list.begin(), list.end(), [](const auto & other) { return other.expired(); }), list.end()
    );
    list.push_back(object);
}
