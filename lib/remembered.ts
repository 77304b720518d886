/** A map or an LRU cache of promises. */
interface Memory<Key, Value> {
  get(key: Key): Promise<Value> | undefined;
  set(key: Key, value: Promise<Value>): unknown;
  delete(key: Key): unknown;
}

/** Returns the value of a key, and finds it first if it is not in memory. A failure is not remembered. */
export function remembered<Key, Value>(
  memory: Memory<Key, Value>,
  key: Key,
  find: () => Promise<Value>,
): Promise<Value> {
  let value = memory.get(key);
  if (value === undefined) {
    value = find();
    value.catch(() => memory.delete(key));
    memory.set(key, value);
  }
  return value;
}
