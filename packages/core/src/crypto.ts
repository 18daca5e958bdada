/** What core needs of `node:crypto`. Loading that takes longer than loading core, so the first write does it. */
type Crypto = typeof import("node:crypto");

let loaded: Crypto | undefined;

function crypto(): Crypto {
  loaded ??= process.getBuiltinModule("node:crypto");
  return loaded;
}

export function randomUUID(): string {
  return crypto().randomUUID();
}

/** @returns The SHA-256 of a text, in base64url. */
export function sha256(text: string): string {
  return crypto().hash("sha256", text, "base64url");
}
