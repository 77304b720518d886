import { dirname } from 'node:path';
import type { AddonFolder } from '../../native/places.js';
import { command } from '../command.js';
import type { DirectoryState, DoctorReport, LoadedReport, ModelReport } from '../doctor-report.js';
import { megabytes } from '../words.js';

export const doctor = command({
  name: 'doctor',
  summary: 'reports which addon a program would load and why, CPU features, GPUs, versions, caches and models',
  details: [
    'With a model, `doctor` also reports the training length of the model. If no addon can be loaded, the exit code is 1.',
  ],
  arguments: { model: { about: 'a GGUF file', optional: true, completion: 'file' } },
  options: {},
  examples: [
    { line: 'doctor', about: 'Check the installation.' },
    { line: 'doctor model.gguf', about: 'Also print the longest context that the model was trained with.' },
  ],
  json: {
    loaded: 'the addon that a program loads, or null',
    problem: 'why no addon can be loaded, or null',
    candidates: 'the addons in the order in which the loader tries them',
    tools: 'the versions of the tools for `build`',
    userCache: 'the state of the cache directory of the user; `builds` and `templates` are further directories',
    cacheDirectory: 'the state of the directory in which commands keep templates',
    modelsDirectory: 'the state of the directory of downloaded models',
    models: 'the downloaded models: `name`, `bytes`',
    ports: 'the default port of `serve`: `port`, `free`',
    slow: 'what makes this machine slow: `what`, `fix`',
    model: 'the training length of the model, or null',
  },
  async run(call) {
    const { examine } = await import('../doctor-report.js');
    const report = await examine(call.args.model);
    call.output.result(report, () => linesOf(report));
    call.exitCode = report.loaded === null ? 1 : 0;
  },
});

function linesOf(report: DoctorReport): string[] {
  const { loaded, candidates, variables, tools } = report;
  return [
    `llama-headstart ${report.version} in ${report.package}`,
    `${report.platform}, Node ${report.node}${loaded ? `, llama.cpp ${loaded.llama}` : ''}`,
    ...Object.entries(variables).map(([name, value]) => `${name}=${value}`),
    '',
    ...(loaded ? loadedLines(loaded) : [`✗ ${report.problem}`]),
    '',
    'The loader tries these addons in this order (if `gpu` or LLAMA_HEADSTART_VARIANT names a GPU, only those with that GPU):',
    ...(candidates.length === 0
      ? ['  no addon found']
      : candidates.map((folder) => `  ${candidateLine(folder, loaded?.path)}`)),
    ...report.gpuPackages.map(({ name, version, problem }) => `  ${name} ${version ?? '?'}: ${problem ?? 'usable'}`),
    '',
    ...(report.nvidia.length > 0 ? report.nvidia.map((gpu) => `NVIDIA: ${gpu}`) : ['NVIDIA: no driver']),
    'To build:',
    ...Object.entries(tools).map(([tool, version]) => `  ${tool}: ${version ?? 'not installed'}`),
    ...(report.toolProblems.length > 0
      ? [`  \`npx llama-headstart build\` lacks: ${report.toolProblems.join(', ')}`]
      : ['  These tools are enough for `npx llama-headstart build`.']),
    '',
    `Cache: ${stateLine(report.userCache)}`,
    `Builds: ${stateLine(report.builds)}`,
    ...report.unfinished.map(
      (tree) => `  not finished: ${tree} (\`build\` with the same options continues it, \`clean\` removes it)`,
    ),
    `Templates (default directory): ${stateLine(report.templates)}`,
    `Templates of commands: ${stateLine(report.cacheDirectory)}`,
    `Models: ${stateLine(report.modelsDirectory)}`,
    ...report.models.map(({ name, bytes }) => `  ${name}, ${megabytes(bytes)}`),
    ...report.ports.map(({ port, free }) => `Port ${port}: ${free ? 'free' : 'used by another program'}`),
    '',
    ...(report.slow.length === 0
      ? ['Nothing was found that slows this machine down.']
      : ['What is slow:', ...report.slow.map(({ what, fix }) => `  ${what} ${fix}`)]),
    ...(report.model ? ['', ...modelLines(report.model)] : []),
  ];
}

function loadedLines({ path, source, gpu, cpu, tried, devices, systemInfo, skipped }: LoadedReport): string[] {
  const scores = tried.map(({ name, score, problem }) => (problem ? `${name} (${problem})` : `${name} ${score}`));
  return [
    `✓ ${path} (${source}${gpu ? `, ${gpu}` : ''})`,
    ...skipped.map((each) => `  not ${each.path}: ${each.reason}`),
    cpu
      ? `  CPU module: ${cpu}, ${process.env.LLAMA_HEADSTART_CPU ? 'which LLAMA_HEADSTART_CPU selects from' : 'which has the highest score of'} ${scores.join(', ')}`
      : '  compiled for one CPU, without CPU modules',
    `  features: ${systemInfo.trim()}`,
    ...devices.map((device) => `  device: ${device.name} (${device.description}), ${megabytes(device.totalBytes)}`),
  ];
}

/** @param loaded the path of the loaded addon */
function candidateLine({ source, path, builtIn, modules }: AddonFolder, loaded: string | undefined): string {
  const gpus = [
    ...(builtIn ? [`${builtIn} linked in`] : []),
    ...modules.map(({ gpu, package: name }) => name ?? `${gpu} module`),
  ];
  return `${path === loaded ? '✓' : '·'} ${source}: ${dirname(path)}${gpus.length > 0 ? ` with ${gpus.join(', ')}` : ''}`;
}

function modelLines(model: ModelReport): string[] {
  if (model.problem !== null) {
    return [`Model: ✗ ${model.problem}`];
  }
  const { path, architecture, trainContextSize, ropeScaling, advice } = model;
  const scaling = ropeScaling ? `, its RoPE scaling is ${ropeScaling}` : '';
  const longer = advice ? `set { ${advice} }` : 'not possible, because the positions of this model cannot be scaled';
  return [
    `Model: ${path}`,
    `  ${architecture}, trained with ${trainContextSize} tokens${scaling}`,
    `  for a longer \`contextSize\`: ${longer}`,
  ];
}

function stateLine({ path, exists, writable, problem, files, bytes = 0, freeBytes = 0 }: DirectoryState): string {
  if (problem !== null) {
    return `${path ?? 'none'}, NOT USABLE: ${problem}`;
  }
  const state = exists
    ? `${files} files, ${megabytes(bytes)}, ${megabytes(freeBytes)} free`
    : `does not exist yet${writable ? '' : ', and cannot be created'}`;
  return `${path}, ${state}${writable ? '' : ', NOT WRITABLE'}`;
}
