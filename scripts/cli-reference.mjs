// Generates docs/guide/cli.md from the descriptions of the commands, which `--help` also shows.

const HEAD = `# The command line

The program \`llama-headstart\` starts models and agents warm without any code. \`npx llama-headstart\` runs it in a project
that has the package, and \`npm install --global llama-headstart\` puts it on your PATH.

![llama-headstart runs a prompt, lists the cached templates and describes a model](cli.svg)

This page is generated from the descriptions of the commands in \`lib/cli\`. \`llama-headstart COMMAND --help\` prints the
same.
`;

const TAIL = `## Output

Results go to standard output. Progress, notes, warnings and errors go to standard error. Steps of more than a second show
their progress. Colors are on if the output is a terminal, unless \`NO_COLOR\` is set. On a narrow terminal, a table becomes
one block per row.

With \`--json\`, standard output gets one JSON object. Its fields, which the tables on this page describe, are stable: later
versions may add fields. A failed command prints \`{ "error": { "code", "message" } }\`. The codes are those of
[errors](errors.md), or of the system, for example \`EADDRINUSE\`.
`;

const CONFIGURATION = `## Configuration file

The file \`llama-headstart.config.json\` in the working directory sets options. \`--config FILE\` or the environment variable
\`LLAMA_HEADSTART_CONFIG\` names another file. The names of the options are those of the flags, in the form \`contextSize\`
for \`--context-size\`. Options at the top apply to all commands, and options in a group to one command:

\`\`\`json
{
  "model": "hf:Qwen/Qwen3-8B-GGUF",
  "contextSize": 32768,
  "cache prune": { "maxBytes": "20GB", "maxAge": "30d" }
}
\`\`\`

A flag overrides the environment, and the environment overrides the file. A relative path in the file is relative to the
file. Unknown names are refused. The file cannot set options that run programs or that answer a question, such as
\`--yes\`, because a folder from somebody else may contain such a file.
`;

/**
 * @param {readonly { title: string, commands: readonly object[] }[]} groups
 * @param {Readonly<Record<string, object>>} globals the options of every command
 * @param {Readonly<Record<number, string>>} exitCodes
 * @param {(name: string) => string} flagOf
 * @param {(option: object) => string} aboutOf
 * @returns {string} the page
 */
export function cliReference(groups, globals, exitCodes, { flagOf, aboutOf }) {
  const optionRows = (options) =>
    Object.entries(options).map(([name, option]) =>
      row([
        `\`${flagOf(name)}${option.placeholder === undefined ? '' : ` <${option.placeholder}>`}\``,
        aboutOf(option),
      ]),
    );
  const overview = groups.flatMap(({ title, commands }) => [
    `### ${title}`,
    '',
    ...table(
      ['command', 'effect'],
      commands.map(({ name, summary }) => row([`[\`${name}\`](#${anchor(name)})`, summary])),
    ),
    '',
  ]);
  const sections = groups.flatMap(({ commands }) => commands.map((command) => section(command, optionRows)));
  return [
    HEAD,
    '## Commands\n',
    ...overview,
    'Every command has these options:\n',
    ...table(
      ['option', 'meaning'],
      [
        ...optionRows(globals),
        row(['`--config <file>`', 'read this configuration file']),
        row(['`--help`', 'print the help of the command']),
      ],
    ),
    '',
    ...sections,
    TAIL,
    '## Exit codes\n',
    ...table(
      ['code', 'meaning'],
      Object.entries(exitCodes).map(([code, meaning]) => row([code, meaning])),
    ),
    '',
    CONFIGURATION,
  ]
    .join('\n')
    .replace(/\n{3,}/g, '\n\n');
}

const anchor = (name) => name.replaceAll(' ', '-');
const row = (cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
const table = (headings, rows) => [row(headings), row(headings.map(() => '---')), ...rows];

function section({ name, summary, details = [], arguments: args, options, examples, json, exitCodes }, optionRows) {
  const usage = Object.entries(args).map(([key, { optional, variadic }]) => {
    const shown = `${key}${variadic ? '...' : ''}`;
    return optional ? ` [${shown}]` : ` <${shown}>`;
  });
  const argumentRows = Object.entries(args).map(([key, { about }]) => row([`\`${key}\``, about]));
  const flags = optionRows(options);
  const lines = [
    `## ${name}`,
    '',
    `\`llama-headstart ${name}${usage.join('')}${flags.length > 0 ? ' [options]' : ''}\` ${summary}.`,
    ...details.flatMap((paragraph) => ['', paragraph]),
    ...(argumentRows.length > 0 ? ['', ...table(['argument', 'meaning'], argumentRows)] : []),
    ...(flags.length > 0 ? ['', ...table(['option', 'meaning'], flags)] : []),
    '',
    '```sh',
    ...examples.map(({ line, about }) => `# ${about}\nllama-headstart ${line}`),
    '```',
    ...(json === undefined
      ? []
      : [
          '',
          ...table(
            ['field with `--json`', 'meaning'],
            Object.entries(json).map(([field, about]) => row([`\`${field}\``, about])),
          ),
        ]),
    ...(exitCodes === undefined
      ? []
      : [
          '',
          ...table(
            ['exit code', 'meaning'],
            Object.entries(exitCodes).map(([code, about]) => row([code, about])),
          ),
        ]),
    '',
  ];
  return lines.join('\n');
}
