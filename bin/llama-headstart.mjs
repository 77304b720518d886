#!/usr/bin/env node
// The command line: `npx llama-headstart build | doctor | clean`.

import { readFile } from 'node:fs/promises';
import { build } from './build.mjs';
import { clean } from './clean.mjs';
import { doctor } from './doctor.mjs';

const HELP = `Usage: llama-headstart <command> [options]

  build     compile the native addon from the sources in this package, without network access
    --cuda, --metal, --vulkan   compute on a GPU
    --no-gpu-here               build for other machines: this machine needs no GPU
    --native                    build one file for this CPU: it compiles faster but runs only on this machine
    --debug                     compile without optimization and with symbols
    --jobs N                    compile N files at a time (default: one per core)
    --clean                     compile everything again
    --define NAME=VALUE         pass a setting to CMake, such as CMAKE_CUDA_ARCHITECTURES=89 (repeatable)
  doctor [MODEL.gguf]   report the addon that a program would load and the reason, CPU features, GPUs, versions, caches,
                        and the training length of a model
    --json                      print one JSON object
  clean     remove the builds of all versions

  --help, --version

\`build\` stores the addon in your cache directory. The loader tries the newest build first and the prebuilt addon last.
If \`gpu\` in your program or LLAMA_HEADSTART_VARIANT names a GPU, the loader tries only builds for that GPU.
Exit code 3 of \`build\`: the build succeeded, but it cannot use a GPU of this machine.
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
