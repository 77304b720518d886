// The prebuilt addon on every line of Node.js that the package promises: the tests of the low-level API, whole.
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ensureNode, NODE_VERSIONS } from '../../scripts/lib/node-versions.mjs';
import { prebuiltAddon } from '../../scripts/lib/prebuilt-addon.mjs';
import { platformName, report, root, runProgram } from '../helpers/package.js';

const addon = prebuiltAddon();

/** What vitest's JSON reporter writes. */
interface Results {
  numPassedTests: number;
  numFailedTests: number;
  numPendingTests: number;
  testResults: { assertionResults: { fullName: string; status: string }[] }[];
}

// npm carries Node.js for glibc alone: elsewhere the one that runs this has to do.
const hasVersions = !platformName.endsWith('-musl');
if (!hasVersions) {
  report(`Other versions of Node.js than ${process.versions.node}: SKIPPED, npm has none for musl`);
}

describe('the prebuilt addon', () => {
  it.each(hasVersions ? NODE_VERSIONS : [process.versions.node])(
    'passes the native tests on Node %s',
    async (version) => {
      const node = hasVersions ? await ensureNode(version) : process.execPath;
      const { LLAMA_HEADSTART_TEST_MODEL, LLAMA_HEADSTART_MICRO_MODELS } = process.env;
      const { code, stdout, stderr } = await runProgram(
        node,
        [join(root, 'node_modules/vitest/vitest.mjs'), 'run', 'test/native', '--reporter=json'],
        {
          cwd: root,
          env: {
            PATH: process.env.PATH,
            HOME: process.env.HOME,
            LLAMA_HEADSTART_TEST_MODEL,
            LLAMA_HEADSTART_MICRO_MODELS,
            LLAMA_HEADSTART_ADDON: addon,
          },
        },
      );
      const { numPassedTests, numFailedTests, numPendingTests, testResults } = JSON.parse(
        stdout.slice(stdout.indexOf('{"num')),
      ) as Results;
      const assertions = testResults.flatMap(({ assertionResults }) => assertionResults);
      const failed = assertions.filter(({ status }) => status === 'failed').map(({ fullName }) => fullName);
      report(
        `Node ${version}: ${numPassedTests} native tests passed, ${numFailedTests} failed, ${numPendingTests} skipped`,
      );
      expect(failed).toEqual([]);
      expect(code, stderr).toBe(0);
      expect(numPassedTests).toBeGreaterThan(100);
    },
  );
});
