// Runs all tests of the low-level API with the prebuilt addon on every supported major version of Node.js.
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ensureNode, NODE_VERSIONS } from '../../scripts/lib/node-versions.mjs';
import { prebuiltAddon } from '../../scripts/lib/prebuilt-addon.mjs';
import { platformName, report, root, runProgram } from '../helpers/package.js';

const addon = prebuiltAddon();

/** The output of vitest's JSON reporter. */
interface Results {
  numPassedTests: number;
  numFailedTests: number;
  numPendingTests: number;
  testResults: { assertionResults: { fullName: string; status: string }[] }[];
}

// npm has packages of Node.js only for glibc. On musl, only the Node.js that runs this test is tested.
const hasVersions = !platformName.endsWith('-musl');
if (!hasVersions) {
  report(`Other versions of Node.js than ${process.versions.node}: SKIPPED, npm has no packages of Node.js for musl`);
}

describe('the prebuilt addon', () => {
  it.each(hasVersions ? NODE_VERSIONS : [process.versions.node])(
    'passes the tests of the low-level API on Node.js %s',
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
