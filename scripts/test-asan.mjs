// `npm run test:asan [-- vitest arguments]`: runs the tests of the low-level API on an addon with address and
// undefined-behavior checks. llama.cpp is compiled with the same checks. Child processes and workers of the tests also
// use this addon. The first build takes long. A failed check prints a stack to stderr and ends its process. This script
// needs Linux and GCC.

import { isMain, mustRun, root, runMain } from '../bin/lib/run.mjs';
import { testAssertingAddon } from './lib/asserting-addon.mjs';

/**
 * Node.js is built without sanitizers. Therefore two libraries must be preloaded: the sanitizer runtime, and the C++
 * library that throws exceptions.
 */
const PRELOADED = ['libasan.so', 'libstdc++.so'];

// detect_leaks=0: Node.js does not free all memory when it ends. This package keeps memory that threads may still use.
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
  // If GCC does not have the library, GCC prints only the library's name.
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
