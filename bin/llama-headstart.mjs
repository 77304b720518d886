#!/usr/bin/env node
// Starts the command line. The commands are in lib/cli. If they cannot be loaded, this program prints what to do.

import { existsSync } from 'node:fs';

const MINIMUM_NODE = [20, 19];

/** @param {string} text */
function fail(text) {
  process.stderr.write(`✗ ${text}\n`);
  process.exit(1);
}

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
const [minimumMajor = 0, minimumMinor = 0] = MINIMUM_NODE;
if (major < minimumMajor || (major === minimumMajor && minor < minimumMinor)) {
  fail(`Expected Node.js ${MINIMUM_NODE.join('.')} or newer, got ${process.versions.node}. Install a newer version.`);
}
const entry = new URL('../dist/cli/main.js', import.meta.url);
if (!existsSync(entry)) {
  fail(
    'The compiled files of llama-headstart are missing. In a checkout, run `npm run build`. Otherwise install the package again.',
  );
}
// An old Node.js must be able to parse this file, so it has no `await` at its top.
import(entry.href)
  .then(({ main }) => main(process.argv.slice(2)))
  .then((code) => {
    process.exitCode = code;
  });
