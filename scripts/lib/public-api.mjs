// Writes reports of the public declarations, so that every change of the public API also changes a report. There is one
// report per entry point. A report also contains the declarations that exported declarations refer to, such as the
// schemas of options. `llama-headstart/internal` has no report, because it promises no compatibility.

import { copyFile, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { makeDirectory } from '../../bin/lib/make-directory.mjs';
import { mustRun, root } from '../../bin/lib/run.mjs';

const AI_SDK = 'packages/ai-sdk';

/** One entry point per line: its report in test/api, the title of the report, and the compiled declarations. */
const ENTRIES = [
  { report: 'index.api.md', title: '`llama-headstart`', declarations: 'lib/index.d.ts' },
  { report: 'native.api.md', title: '`llama-headstart/native`', declarations: 'lib/native/index.d.ts' },
  { report: 'server.api.md', title: '`llama-headstart/server`', declarations: 'lib/server/index.d.ts' },
  { report: 'ai-sdk.api.md', title: '`@llama-headstart/ai-sdk`', declarations: `${AI_SDK}/lib/index.d.ts` },
  { report: 'ai-sdk-v3.api.md', title: '`@llama-headstart/ai-sdk/v3`', declarations: `${AI_SDK}/lib/v3.d.ts` },
];
const REPORTS = join(root, 'test', 'api');
const TYPES = join(root, '.build', 'types');
const TEMPORARY = join(root, '.build', 'api-reports');

/**
 * Compares the reports in test/api with the current declarations.
 * @param {{ write: boolean }} options write: also update the reports
 * @returns {Promise<string[]>} the paths of the reports that were out of date
 */
export async function compareReports({ write }) {
  await compileDeclarations();
  await makeDirectory(TEMPORARY);
  const stale = [];
  for (const entry of ENTRIES) {
    const path = join(REPORTS, entry.report);
    const report = await writeReport(entry);
    if (report === (await readFile(path, 'utf8').catch(() => ''))) continue;
    if (write) await writeFile(path, report);
    stale.push(`test/api/${entry.report}`);
  }
  return stale;
}

async function compileDeclarations() {
  await rm(TYPES, { recursive: true, force: true });
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  await mustRun(process.execPath, [tsc, '-p', 'tsconfig.types.json', '--outDir', TYPES]);
  // With a package.json of its own, the package imports the core as another package. Otherwise its reports would also
  // contain the declarations of the core.
  await copyFile(join(root, AI_SDK, 'package.json'), join(TYPES, AI_SDK, 'package.json'));
}

/**
 * @param {(typeof ENTRIES)[number]} entry
 * @returns {Promise<string>} the report
 */
async function writeReport({ report, title, declarations }) {
  const { Extractor, ExtractorConfig } = await import('@microsoft/api-extractor');
  const file = join(TYPES, declarations);
  const silent = { default: { logLevel: /** @type {any} */ ('none') } };
  const config = ExtractorConfig.prepare({
    configObject: {
      projectFolder: root,
      mainEntryPointFilePath: file,
      compiler: {
        overrideTsconfig: {
          compilerOptions: { module: 'nodenext', target: 'es2023', types: ['node'], skipLibCheck: true, strict: true },
          files: [file],
        },
      },
      apiReport: {
        enabled: true,
        includeForgottenExports: true,
        reportFileName: report,
        reportFolder: TEMPORARY,
        reportTempFolder: TEMPORARY,
      },
      docModel: { enabled: false },
      dtsRollup: { enabled: false },
      tsdocMetadata: { enabled: false },
      messages: {
        compilerMessageReporting: silent,
        extractorMessageReporting: silent,
        tsdocMessageReporting: silent,
      },
    },
    configObjectFullPath: undefined,
    packageJsonFullPath: join(root, 'package.json'),
  });
  Extractor.invoke(config, {
    localBuild: true,
    messageCallback: (message) => {
      message.handled = true;
    },
  });
  const text = (await readFile(join(TEMPORARY, report), 'utf8')).replaceAll('\r\n', '\n');
  const body = text.replaceAll(/^ *\/\*\*.*?\*\/\n/gms, ''); // a changed comment does not change the API
  return `# Public declarations: ${title}\n\n${body}`;
}
