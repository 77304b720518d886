// Reports of the public declarations, one per entry point. A change to the public API is visible as a change of a report.

import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { makeDirectory } from '../../bin/lib/make-directory.mjs';
import { mustRun, root } from '../../bin/lib/run.mjs';

/** Entry points, by the name of their report in test/api. */
const ENTRIES = { index: 'index', native: 'native/index' };
const TYPES = join(root, '.build', 'types');

/**
 * Compares the reports in test/api with the current declarations.
 * @param {{ write: boolean }} options write: also update the reports
 * @returns {Promise<string[]>} the paths of the reports that were out of date
 */
export async function compareReports({ write }) {
  await rm(TYPES, { recursive: true, force: true });
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  await mustRun(process.execPath, [
    ...[tsc, '-p', 'tsconfig.build.json', '--emitDeclarationOnly', '--declarationMap', 'false'],
    ...['--outDir', TYPES],
  ]);
  const { Extractor, ExtractorConfig } = await import('@microsoft/api-extractor');
  const reportFolder = join(root, 'test', 'api');
  const reportTempFolder = join(root, '.build', 'api-reports');
  await makeDirectory(reportFolder);
  const stale = [];
  for (const [name, file] of Object.entries(ENTRIES)) {
    const config = ExtractorConfig.prepare({
      configObject: {
        projectFolder: root,
        mainEntryPointFilePath: join(TYPES, `${file}.d.ts`),
        compiler: {
          overrideTsconfig: {
            compilerOptions: {
              module: 'nodenext',
              target: 'es2023',
              types: ['node'],
              skipLibCheck: true,
              strict: true,
            },
            files: [join(TYPES, `${file}.d.ts`)],
          },
        },
        apiReport: { enabled: true, reportFileName: `${name}.api.md`, reportFolder, reportTempFolder },
        docModel: { enabled: false },
        dtsRollup: { enabled: false },
        tsdocMetadata: { enabled: false },
        messages: {
          compilerMessageReporting: { default: { logLevel: /** @type {any} */ ('none') } },
          extractorMessageReporting: { default: { logLevel: /** @type {any} */ ('none') } },
          tsdocMessageReporting: { default: { logLevel: /** @type {any} */ ('none') } },
        },
      },
      configObjectFullPath: undefined,
      packageJsonFullPath: join(root, 'package.json'),
    });
    const { apiReportChanged } = Extractor.invoke(config, {
      localBuild: write,
      messageCallback: (message) => {
        message.handled = true;
      },
    });
    if (apiReportChanged) stale.push(`test/api/${name}.api.md`);
  }
  return stale;
}
