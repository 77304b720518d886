import { HeadstartError } from '../../errors.js';
import { nearestName } from '../../options.js';
import { command } from '../command.js';
import { COMPLETION_SCRIPTS } from '../completion-scripts.js';

const SHELLS = Object.keys(COMPLETION_SCRIPTS) as (keyof typeof COMPLETION_SCRIPTS)[];

export const completion = command({
  name: 'completion',
  summary: 'prints a script that completes commands and options in a shell',
  details: ['The script needs `llama-headstart` on the PATH, as after `npm install --global llama-headstart`.'],
  arguments: { shell: { about: `the shell: ${SHELLS.join(', ')}`, completion: SHELLS } },
  options: {},
  examples: [
    { line: 'completion bash', about: 'For ~/.bashrc: eval "$(llama-headstart completion bash)"' },
    { line: 'completion zsh', about: 'For ~/.zshrc: source <(llama-headstart completion zsh)' },
    { line: 'completion fish', about: 'For config.fish: llama-headstart completion fish | source' },
    {
      line: 'completion powershell',
      about: 'For $PROFILE: llama-headstart completion powershell | Out-String | Invoke-Expression',
    },
  ],
  async run({ args, output }) {
    const shell = SHELLS.find((name) => name === args.shell.toLowerCase());
    if (shell === undefined) {
      const nearest = nearestName(args.shell, SHELLS);
      const hint = nearest === undefined ? '' : ` Did you mean ${nearest}?`;
      throw new HeadstartError('INVALID_ARGUMENT', `Expected one of ${SHELLS.join(', ')}, got "${args.shell}".${hint}`);
    }
    output.write(COMPLETION_SCRIPTS[shell]);
  },
});
