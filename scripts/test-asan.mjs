// `npm run test:asan [-- vitest arguments]`: the tests of the low-level API, children and workers too, on an addon that was
// built whole, llama.cpp with it, with address and undefined-behaviour checks. The first build takes long. What the checks
// find ends the process that it happens in, with a stack on stderr. Linux with GCC.

import { isMain, mustRun, root, runMain } from '../bin/lib/run.mjs';
import { testAssertingAddon } from './lib/asserting-addon.mjs';

/** Node itself is built without: the runtime must be in the process before it, and the C++ library that throws with it. */
const PRELOADED = ['libasan.so', 'libstdc++.so'];

// Leaks are not looked for: Node gives little of its memory back at its end, and nor do we what threads may still use.
// The allocator returns null, as others do, for what no machine has. Node's handler of faults must not replace the one that
// prints the stack.
const ASAN_OPTIONS = 'detect_leaks=0:abort_on_error=1:allocator_may_return_null=1:allow_user_segv_handler=0';
const UBSAN_OPTIONS = 'halt_on_error=1:abort_on_error=1:print_stacktrace=1';

/** How much longer than without checks a test may take. */
const PATIENCE = 12;

/** @param {string} library */
async function pathOf(library) {
  const { stdout } = await mustRun(process.env.CC ?? 'gcc', [`-print-file-name=${library}`]);
  const path = stdout.trim();
  // GCC answers with the bare name for a library that it does not have.
  if (!path.includes('/'))
    throw new Error(`Expected GCC to have ${library}: install its sanitizer libraries (libasan).`);
  return path;
}

if (isMain(import.meta)) {
  await runMain(async () => {
    if (process.platform !== 'linux') throw new Error(`Expected Linux, got ${process.platform}.`);
    const preloaded = await Promise.all(PRELOADED.map(pathOf));
    await testAssertingAddon('native addon with sanitizers', { sanitize: true }, PATIENCE, {
      LD_PRELOAD: preloaded.join(' '),
      ASAN_OPTIONS,
      // A path relative to each process's directory would not do: children have their own.
      UBSAN_OPTIONS: `${UBSAN_OPTIONS}:suppressions='${root}/scripts/ubsan-suppressions.txt'`,
    });
  });
}
