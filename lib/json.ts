// The types of parsed JSON.

export type Json = unknown;
export type JsonObject = Readonly<Record<string, Json>>;

/** Whether a value is an object but not an array. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
