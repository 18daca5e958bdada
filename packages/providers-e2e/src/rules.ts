/** Something that an API refuses a request for. */
export interface Rule<Body> {
  /** Where it is known from: the API's documentation, its own source, or somebody who ran into it. */
  readonly known: string;
  /** What the API answers a request that breaks the rule; nothing for others. */
  readonly broken: (body: Body) => Iterable<string>;
}

/** What an API answers to the first rule that a request breaks; `undefined` when it accepts the request. */
export function refusal<Body>(rules: readonly Rule<Body>[], body: Body): string | undefined {
  for (const { broken } of rules) for (const message of broken(body)) return message;
  return undefined;
}

/** Whether a text has nothing but white space. */
export function isBlank(text: string): boolean {
  return text.trim() === "";
}

export function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
