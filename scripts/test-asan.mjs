// `npm run test:asan [-- vitest arguments]`: runs the tests of the low-level API, including child processes and
// workers, on an addon that was built together with llama.cpp with address and undefined-behavior checks. The first
// build takes long. A failed check ends its process and prints a stack to stderr. Needs Linux and GCC.

import { isMain, mustRun, root, runMain } from '../bin/lib/run.mjs';
import { testAssertingAddon } from './lib/asserting-addon.mjs';

/**
 * Node.js is built without sanitizers, so the sanitizer runtime and the C++ library that throws exceptions are
 * preloaded.
 */
const PRELOADED = ['libasan.so', 'libstdc++.so'];

// detect_leaks=0: Node.js does not free all memory at its end, and neither does this package if threads may still use it.
// allocator_may_return_null=1: an allocation that no machine can satisfy returns null, as with other allocators.
// allow_user_segv_handler=0: Node.js's handler must not replace the handler that prints the stack.
const ASAN_OPTIONS = 'detect_leaks=0:abort_on_error=1:allocator_may_return_null=1:allow_user_segv_handler=0';
const UBSAN_OPTIONS = 'halt_on_error=1:abort_on_error=1:print_stacktrace=1';

/** The factor for the time limits of tests, compared with a release build. */
const PATIENCE = 12;

/** @param {string} library */
async function pathOf(library) {
  const { stdout } = await mustRun(process.env.CC ?? 'gcc', [`-print-file-name=${library}`]);
  const path = stdout.trim();
  // GCC prints only the name of a library that it does not have.
  if (!path.includes('/'))
    throw new Error(`Expected GCC to have ${library}, but it is missing. Install GCC's sanitizer libraries (libasan).`);
  return path;
}

if (isMain(import.meta)) {
  await runMain(async () => {
    if (process.platform !== 'linux')
      throw new Error(`Expected Linux, got ${process.platform}. Run this test on Linux.`);
    const preloaded = await Promise.all(PRELOADED.map(pathOf));
    await testAssertingAddon('native addon with sanitizers', { sanitize: true }, PATIENCE, {
      LD_PRELOAD: preloaded.join(' '),
      ASAN_OPTIONS,
      // An absolute path, because child processes have other working directories.
      UBSAN_OPTIONS: `${UBSAN_OPTIONS}:suppressions='${root}/scripts/ubsan-suppressions.txt'`,
    });
  });
}
