/**
 * One object in the whole process, whatever the number of copies of core in it: a bridge may have been installed with
 * another one than the backend, and a development server evaluates modules again but keeps `globalThis`.
 *
 * @param name Changes when another version of core could not make use of the object.
 */
export function processWide<T>(name: string, create: () => T): T {
  const holder = globalThis as { [key: symbol]: T | undefined };
  const key = Symbol.for(`@chatstore/core/${name}`);
  holder[key] ??= create();
  return holder[key];
}
