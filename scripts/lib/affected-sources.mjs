// Finds the C++ sources that a change of some files affects.

/** @param {string} text the text of a C++ file @returns {string[]} the headers that it includes with quotes */
export function includedHeaders(text) {
  return [...text.matchAll(/^#include "([^"]+)"$/gm)].map(([, name]) => /** @type {string} */ (name));
}

/**
 * Returns the changed sources, and the sources that include a changed header directly or through other headers.
 * @param {readonly string[]} changed
 * @param {ReadonlyMap<string, readonly string[]>} includes the headers that each file includes
 * @returns {string[]}
 */
export function affectedSources(changed, includes) {
  const affected = new Set(changed);
  for (let size = -1; size !== affected.size; ) {
    size = affected.size;
    for (const [file, headers] of includes) {
      if (headers.some((header) => affected.has(header))) affected.add(file);
    }
  }
  return [...affected].filter((file) => file.endsWith('.cpp')).sort();
}
