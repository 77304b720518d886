// llama.cpp uses asserts to check some input, for example model files. A failed assert would end the user's process.
// AssertTrap turns the failed assert into an error.
#pragma once

// Must be called once per process.
void installAssertTrap();

// While this object exists, an assert that fails on this thread throws a Failure. Exception handlers in llama.cpp may
// turn the Failure into an error result. Do not use a trap around code that computes a graph: the other threads of the
// graph would wait forever for this thread.
class AssertTrap {
  public:
    AssertTrap();
    ~AssertTrap();
    AssertTrap(const AssertTrap &) = delete;
};
