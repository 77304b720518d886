// `node --import one-core.mjs PROGRAM`: runs a program as on a machine with one core. A model on several threads becomes
// many times slower while other tests use the cores.

import { syncBuiltinESMExports } from 'node:module';
import os from 'node:os';

os.availableParallelism = () => 1;
syncBuiltinESMExports();
