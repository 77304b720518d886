import { claude } from './claude.js';
import { cline } from './cline.js';
import { codex } from './codex.js';
import type { CodingAgent } from './coding-agent.js';
import { opencode } from './opencode.js';
import { pi } from './pi.js';
import { qwen } from './qwen.js';

/** The coding agents that `launch` can start, by their names on the command line. */
export const CODING_AGENTS: Readonly<Record<string, CodingAgent>> = { opencode, codex, claude, cline, pi, qwen };
