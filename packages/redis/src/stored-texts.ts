/** The stored texts, of which `scripts.ts` gives the form, and what they mean. */
import {
  CorruptSessionError,
  type MessageRecord,
  type SessionRecord,
  UnsupportedFormatError,
} from "@chatstore/core";

/**
 * @param outside Details that the header has no room for.
 * @returns `isWhole`: whether the details are known. Lists do without.
 */
export function toSession(id: string, header: string, outside = "") {
  const fields = parseHeader(id, header);
  const { version, count, created, updated, expires, edited, title } = fields;
  const details = fields.details === "@" ? outside : fields.details;
  const isWhole = details !== "";
  const session: SessionRecord = {
    key: id,
    version,
    messageCount: Number(count),
    createdAt: Number(created),
    updatedAt: Number(updated),
    expiresAt: expires === "-" ? null : Number(expires),
    title: title === "-" ? null : title.slice(1),
    state: details === "" || details === "-" ? {} : parseState(id, details),
  };
  return { session, edited, isWhole };
}

function parseState(id: string, details: string): SessionRecord["state"] {
  try {
    return JSON.parse(details).state;
  } catch {
    // Its error would cite what somebody said.
    throw new CorruptSessionError(`The state of session ${id} is not JSON`);
  }
}

const headerForm =
  /^session 1 (?<version>\S+) (?<count>\d+) (?<created>\S+) (?<updated>\S+) (?<expires>\S+) (?<edited>\S+) (?<details>[^\n]*)\n(?<title>.*)$/s;
type Header = Record<
  "version" | "count" | "created" | "updated" | "expires" | "edited" | "details" | "title",
  string
>;

export function parseHeader(id: string, header: string): Header {
  const fields = headerForm.exec(header)?.groups;
  if (fields === undefined) throw formatError(id, /^session (\S+)/.exec(header)?.[1] ?? "");
  return fields as Header;
}

export function formatError(where: string, format: string): Error {
  return /^\d+$/.test(format) && format !== "1"
    ? new UnsupportedFormatError(
        `The session at ${where} has format version ${format}, this Chatstore reads 1: upgrade it`,
      )
    : new CorruptSessionError(`The session at ${where} has no valid header`);
}

export function damage(where: string, what: string): Error {
  return new CorruptSessionError(
    `The session at ${where} is damaged: ${what}. Redis evicts keys when its memory is full and maxmemory-policy is not ` +
      "noeviction; otherwise somebody changed them. Restore a backup, or erase the session with deleteMessages()",
  );
}

export function recordArguments({ id, digest, data, createdAt }: MessageRecord): [string, string] {
  return [id, `${digest} ${createdAt} ${data}\n${id}`];
}

export function toRecord(message: string): MessageRecord {
  const time = message.indexOf(" ") + 1;
  const data = message.indexOf(" ", time) + 1;
  const end = message.indexOf("\n", data);
  if (time === 0 || data === 0 || end < 0) {
    throw new CorruptSessionError("A stored message has not the form of a message");
  }
  return {
    // Copied by this: a slice alone would keep all of the message in memory for as long as its id is there.
    id: ` ${message.slice(end + 1)}`.slice(1),
    digest: message.slice(0, time - 1),
    data: message.slice(data, end),
    createdAt: numberAt(message, time, data - 1),
  };
}

/** A part of a text as a number: without a copy where it is all digits, since whole histories are made of these. */
function numberAt(text: string, begin: number, end: number): number {
  let number = 0;
  for (let place = begin; place < end; place++) {
    const digit = text.charCodeAt(place) - 0x30;
    if (digit < 0 || digit > 9) return Number(text.slice(begin, end));
    number = number * 10 + digit;
  }
  return number;
}
