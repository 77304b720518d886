import type { ModelProgress } from '../model/model-progress.js';
import type { Step } from './package-scripts.js';
import { megabytes } from './words.js';

const PHASES: Readonly<Record<ModelProgress['phase'], string>> = {
  resolve: 'looking for its files',
  wait: 'waiting for another process that downloads it',
  verify: 'verifying',
  download: 'downloading',
  load: 'loading',
};

/** Shows the progress of a download, and of loading a model, in a step. */
export function show(step: Step, { phase, fraction, bytes, total, file }: ModelProgress): void {
  const counts =
    bytes === undefined ? '' : ` ${megabytes(bytes)}${total === undefined ? '' : ` of ${megabytes(total)}`}`;
  const detail = `${PHASES[phase]}${file === undefined ? '' : ` ${file}`}${counts}`;
  step.update({ ...(phase !== 'resolve' && phase !== 'wait' && { fraction }), detail });
}
