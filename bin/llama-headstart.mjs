#!/usr/bin/env node
// The command line: `npx llama-headstart build | doctor | clean`.

import { readFile } from 'node:fs/promises';
import { build } from './build.mjs';
import { clean } from './clean.mjs';
import { doctor } from './doctor.mjs';

const HELP = `Usage: llama-headstart <command> [options]

  build     compile the native addon from the sources in this package, without network
    --cuda, --metal, --vulkan   compute on a GPU
    --no-gpu-here               build for other machines: this machine needs no GPU
    --native                    one file for exactly this CPU: compiles faster, runs only on this machine
    --debug                     without optimization, with symbols
    --jobs N                    compile N files at a time (default: one per core)
    --clean                     compile everything again
    --define NAME=VALUE         a CMake setting, such as CMAKE_CUDA_ARCHITECTURES=89; may be repeated
  doctor [MODEL.gguf]   report the addon that would be loaded and why, CPU features, GPUs, versions and caches, and the context
                        length of a model
    --json                      as one JSON object
  clean     remove the builds of all versions

  --help, --version

The result of \`build\` is stored in your cache directory. The newest build is loaded first, and the prebuilt addon last. \`gpu\` in your
program and LLAMA_HEADSTART_VARIANT select only builds with that GPU. Exit code 3: built, but it cannot use a GPU of this machine.
`;

const COMMANDS = { build, doctor, clean };

const [command = '--help', ...args] = process.argv.slice(2);
if (command === '--help' || command === '-h' || command === 'help') {
  process.stdout.write(HELP);
} else if (command === '--version' || command === '-v') {
  const manifest = await readFile(new URL('../package.json', import.meta.url), 'utf8');
  process.stdout.write(`${JSON.parse(manifest).version}\n`);
} else if (command in COMMANDS) {
  try {
    await COMMANDS[/** @type {keyof typeof COMMANDS} */ (command)](args);
  } catch (error) {
    const { message, stack } = /** @type {Error} */ (error);
    process.stderr.write(`\n✗ ${process.env.DEBUG ? stack : message}\n`);
    process.exitCode ||= 1;
  }
} else {
  process.stderr.write(`✗ Expected a command (${Object.keys(COMMANDS).join(', ')}), got "${command}".\n\n${HELP}`);
  process.exitCode = 2;
}
