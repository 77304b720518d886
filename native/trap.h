// llama.cpp asserts where others would return an error: on a damaged model, for one. An assert ends the process, and with it
// everything else that the user runs there.
#pragma once

// Once a process.
void installAssertTrap();

// While it lives, an assert that fails on this thread throws a Failure, which llama.cpp's own handlers turn into the error
// that they return. Not for code that computes: other threads of the graph would wait for this one for ever.
class AssertTrap {
  public:
    AssertTrap();
    ~AssertTrap();
    AssertTrap(const AssertTrap &) = delete;
};
