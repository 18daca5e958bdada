import type { Key, Scope } from "./backend.js";
import { InvalidSessionKeyError } from "./errors.js";
import { show } from "./show.js";

declare const brand: unique symbol;

/** A canonical session key: made by {@link sessionKey} or {@link rawSessionKey}, a plain string at run time. */
export type SessionKey = string & { readonly [brand]: "SessionKey" };

/** Whose conversation it is. Two different parts never give one key. */
export interface SessionKeyParts {
  /** The customer, workspace or organisation. */
  readonly tenant?: string | undefined;
  /** A stable id of the signed-in person: from your database, never made per request. */
  readonly user: string;
  /** One of the user's conversations. Default: the user has a single one. */
  readonly conversation?: string | undefined;
}

/** Largest size of a canonical key, in bytes of UTF-8: every engine can index it. */
const maxKeyBytes = 512;

/**
 * The canonical key of a conversation: `t:acme/u:alice/c:support`, without the parts that are absent.
 * Injective: different parts give different keys, whatever characters they hold (`%`, `/`, `{` and `}` are
 * percent-encoded, all others stay readable). At most 512 bytes of UTF-8.
 *
 * @throws InvalidSessionKeyError for an empty part, control characters, ill-formed UTF-16, an overlong key, or a part of
 *   another name.
 * @example sessionKey({ tenant: "acme", user: user.id, conversation: "support" })
 */
export function sessionKey(parts: SessionKeyParts): SessionKey {
  const { tenant, user, conversation } = readParts(parts);
  let key = "";
  if (tenant !== undefined) key += `t:${encodePart("tenant", tenant)}/`;
  key += `u:${encodePart("user", user)}`;
  if (conversation !== undefined) key += `/c:${encodePart("conversation", conversation)}`;
  return checkLength(key);
}

const partNames: readonly string[] = ["tenant", "user", "conversation"];

function readParts(parts: unknown): SessionKeyParts {
  if (typeof parts !== "object" || parts === null) {
    throw new InvalidSessionKeyError("key", 'needs parts, as in sessionKey({ user: "alice" })');
  }
  let unknown: string | undefined;
  try {
    // Ignored, a misspelt part would make one session of all conversations.
    unknown = Object.keys(parts).find((name) => !partNames.includes(name));
    if (unknown === undefined) {
      const { tenant, user, conversation } = parts as SessionKeyParts;
      return { tenant, user, conversation };
    }
  } catch (cause) {
    throw new InvalidSessionKeyError("key", "has parts that cannot be read", { cause });
  }
  throw new InvalidSessionKeyError(
    "key",
    `has no part ${show(unknown)}; its parts are ${partNames.join(", ")}`,
  );
}

/**
 * Admit a key from elsewhere (another store, an existing database). It belongs to no user, so it is found by
 * `getKeys()` and never by `listSessions({ user })`. The result carries the prefix `raw:`.
 *
 * @throws InvalidSessionKeyError as {@link sessionKey} does.
 */
export function rawSessionKey(key: string): SessionKey {
  return checkLength(`raw:${encodePart("key", key)}`);
}

/** The parts that {@link sessionKey} was given, or `{ raw }` for what {@link rawSessionKey} was given. */
export type ParsedSessionKey =
  | { readonly tenant?: string; readonly user: string; readonly conversation?: string }
  | { readonly raw: string };

/**
 * The inverse of {@link sessionKey} and {@link rawSessionKey}.
 *
 * @throws InvalidSessionKeyError for a string that neither of them returned.
 */
export function parseSessionKey(key: string): ParsedSessionKey {
  const parsed = toKey(key);
  if (parsed.user === "") return { raw: decodePart(parsed.id.slice("raw:".length)) };
  return {
    ...(parsed.tenant !== "" && { tenant: parsed.tenant }),
    user: parsed.user,
    ...(parsed.conversation !== "" && { conversation: parsed.conversation }),
  };
}

/** What {@link encodePart} makes, and nothing else: a key has one spelling. */
const encoded = "((?:[^%/{}\\p{Cc}\\p{Cs}]|%(?:25|2F|7B|7D))+)";
const canonical = new RegExp(
  `^(?:raw:${encoded}|(?:t:${encoded}/)?u:${encoded}(?:/c:${encoded})?)$`,
  "u",
);

/**
 * A key as backends receive it.
 *
 * @throws InvalidSessionKeyError for a string that is no canonical key.
 */
export function toKey(key: unknown): Key {
  if (typeof key !== "string") {
    throw new InvalidSessionKeyError(
      "key",
      `is ${key === null ? "null" : typeof key}, not a string`,
    );
  }
  checkLength(key);
  const parts = canonical.exec(key);
  if (parts === null) throw new InvalidSessionKeyError("key", advice(key));
  const [, , tenant = "", user = "", conversation = ""] = parts;
  return {
    id: key,
    tenant: decodePart(tenant),
    user: decodePart(user),
    conversation: decodePart(conversation),
  };
}

/** The key of a session's user: without the conversation. A raw key has no user, and stays as it is. */
export function userKey({ id }: Key): string {
  const end = id.indexOf("/c:");
  return end < 0 ? id : id.slice(0, end);
}

/** A user as backends receive it. */
export function toScope(parts: { tenant?: string | undefined; user: string }): Scope {
  const { tenant, user } = toKey(sessionKey({ tenant: parts.tenant, user: parts.user }));
  return { tenant, user };
}

function advice(key: string): string {
  if (key === "chat_history") {
    return (
      '"chat_history" is LlamaIndex\'s default key, shared by all users: ' +
      "make one per conversation with sessionKey({ user, conversation })"
    );
  }
  const shown = key.length > 64 ? `${key.slice(0, 64)}…` : key;
  return (
    `${JSON.stringify(shown)} is not canonical: make it with sessionKey({ user, conversation }), ` +
    "or admit a foreign key with rawSessionKey()"
  );
}

/** Nearly all parts: there is nothing to refuse or to encode. */
const plain = /^[\w.:@-]+$/;
const reserved = /[%/{}]/g;
// biome-ignore lint/suspicious/noControlCharactersInRegex: this is the check that refuses them
const control = /[\u0000-\u001f\u007f-\u009f]/;

function encodePart(part: string, value: unknown): string {
  if (typeof value !== "string") {
    throw new InvalidSessionKeyError(
      part,
      `is ${value === null ? "null" : typeof value}, not a string`,
    );
  }
  if (value.length > maxKeyBytes) checkLength(value);
  if (plain.test(value)) return value;
  if (value === "") throw new InvalidSessionKeyError(part, "is empty");
  if (control.test(value)) throw new InvalidSessionKeyError(part, "holds a control character");
  if (!value.isWellFormed()) {
    throw new InvalidSessionKeyError(part, "holds a lone surrogate (ill-formed UTF-16)");
  }
  return value.replace(
    reserved,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function decodePart(part: string): string {
  if (!part.includes("%")) return part;
  return part.replace(/%([0-9A-F]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}

function checkLength(key: string): SessionKey {
  // No character takes more than three bytes for each of its code units.
  const bytes = key.length * 3 <= maxKeyBytes ? 0 : Buffer.byteLength(key);
  if (bytes > maxKeyBytes) {
    throw new InvalidSessionKeyError(
      "key",
      `is ${bytes} bytes long, at most ${maxKeyBytes} are allowed`,
    );
  }
  return key as SessionKey;
}
