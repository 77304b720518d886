// llama.cpp has asserts for conditions that are errors of the input, such as a damaged model file. An assert would end
// the process of the user.
#pragma once

// Once per process.
void installAssertTrap();

// While it exists, an assert that fails on this thread throws a Failure. llama.cpp's own exception handlers turn it
// into an error. Not for code that computes a graph: the other threads of the graph would wait forever for this thread.
class AssertTrap {
  public:
    AssertTrap();
    ~AssertTrap();
    AssertTrap(const AssertTrap &) = delete;
};
