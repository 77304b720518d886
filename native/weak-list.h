// Lists of objects that other code owns.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

// Adds an object to the list, and removes the objects that no longer exist.
template <class Object>
void addWeak(std::vector<std::weak_ptr<Object>> & list, const std::shared_ptr<Object> & object) {
    list.erase(
        std::remove_if(list.begin(), list.end(), [](const auto & other) { return other.expired(); }), list.end()
    );
    list.push_back(object);
}
