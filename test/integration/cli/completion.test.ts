// Tests what shells offer when the user presses Tab.
import { execFileSync, spawnSync } from 'node:child_process';
import { beforeAll, describe, expect, it } from 'vitest';
import { requireFreshDist } from '../../helpers/children.js';
import { program, runCli } from '../../helpers/cli.js';

/** The words that the last word may become. */
const offered = async (...words: string[]) => {
  const { stdout } = await runCli(['__complete', ...words]);
  return stdout.split('\n').filter((line) => line !== '');
};
const wordsOf = (lines: string[]) => lines.map((line) => line.split('\t')[0]);

beforeAll(requireFreshDist);

describe('completions', () => {
  it('offer commands with their descriptions, and the commands below a word', async () => {
    expect(await offered('exp')).toEqual([expect.stringMatching(/^explain\tshows what /)]);
    expect(wordsOf(await offered(''))).toEqual(expect.arrayContaining(['warm', 'cache', 'models', 'doctor', 'help']));
    expect(wordsOf(await offered('cache', 'pr'))).toEqual(['prune']);
    expect(wordsOf(await offered('--json', 'models', ''))).toEqual(expect.arrayContaining(['list', 'pull', 'rm']));
  });

  it('offer the flags of a command, of every command, and the values of flags', async () => {
    expect(wordsOf(await offered('cache', 'prune', '--max'))).toEqual(['--max-bytes', '--max-entries', '--max-age']);
    expect(wordsOf(await offered('clean', '--'))).toEqual(expect.arrayContaining(['--json', '--config', '--help']));
    expect(wordsOf(await offered('warm', '--gpu', ''))).toEqual(['auto', 'cuda', 'metal', 'vulkan', 'none']);
    expect(await offered('warm', '--cache-dir', '')).toEqual([':directory']);
    expect(await offered('warm', '--context-size', '')).toEqual([]);
  });

  it('offer files for arguments that are files, however many there are', async () => {
    expect(await offered('warm', 'a.json', 'b.json', 'c')).toEqual([':file']);
    expect(await offered('warm', '--gpu', 'none', '')).toEqual([':file']);
    expect(await offered('explain', 'a.json', 'b.json', '')).toEqual([]);
    expect(wordsOf(await offered('completion', ''))).toEqual(['bash', 'zsh', 'fish', 'powershell']);
  });

  it('offer nothing for unknown commands', async () => {
    expect(await offered('unknown', '')).toEqual([]);
    expect(await offered('cache', 'unknown', '')).toEqual([]);
  });

  it.skipIf(spawnSync('bash', ['--version']).status !== 0)('work in bash', async () => {
    const { stdout: script } = await runCli(['completion', 'bash']);
    const ask = `${script}
      llama-headstart() { ${JSON.stringify(process.execPath)} ${JSON.stringify(program)} "$@"; }
      COMP_WORDS=(llama-headstart cache p); COMP_CWORD=2; _llama_headstart; echo "\${COMPREPLY[@]}"`;
    expect(execFileSync('bash', ['-c', ask], { encoding: 'utf8' }).trim()).toBe('prune pin');
  });

  it.each(['zsh', 'fish'])('have a script without syntax errors for %s, if it is installed', async (shell) => {
    const { stdout: script, code } = await runCli(['completion', shell]);
    expect(code).toBe(0);
    expect(script).toContain('__complete');
    const { status, stderr, error } = spawnSync(shell, ['-n'], { input: script, encoding: 'utf8' });
    if (error === undefined) expect([status, stderr]).toEqual([0, '']);
  });
});
