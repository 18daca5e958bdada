/**
 * URLs of engines, taken apart and checked. A URL that is refused is never shown, not even in part: where its password
 * begins cannot be told, and the very mistake that makes it unreadable (a `/`, `?`, `#` or `@` that is not
 * percent-encoded) moves the password to where a host, a database or a parameter is expected.
 */
import { fileURLToPath } from "node:url";
import { InvalidOptionsError } from "./errors.js";

/** What a URL of a server may hold. */
export interface ServerUrlRules {
  /** Without colon, lower-case: `["redis", "rediss"]`. */
  readonly schemes: readonly string[];
  /** A complete URL without a real password, shown to whoever gave a wrong one. */
  readonly example: string;
  /** `many`: separated by commas. `optional`: a parameter may name it (a socket). Default: `one`. */
  readonly hosts?: "one" | "many" | "optional" | undefined;
  /** Names of the query's parameters, compared without case. Absent: any, for who checks them otherwise. */
  readonly parameters?: readonly string[] | undefined;
  /** What the URL is called in the error. Default: `The url`. */
  readonly name?: string | undefined;
}

/** The parts of a server's URL, percent-decoded; absent and empty parts are `undefined`. */
export interface ServerUrl {
  readonly scheme: string;
  readonly user: string | undefined;
  readonly password: string | undefined;
  /** IPv6 addresses without brackets. Empty only where the rules make hosts optional. */
  readonly hosts: readonly { readonly host: string; readonly port: number | undefined }[];
  /** What follows the slash after the hosts: one segment. */
  readonly database: string | undefined;
  readonly parameters: URLSearchParams;
}

/**
 * Take a server's URL apart: `scheme://[user[:password]@]host[:port][/database][?name=value]`.
 *
 * @throws InvalidOptionsError that says which part is wrong, how to write it, and nothing of what the URL holds.
 * @example parseServerUrl(url, { schemes: ["redis", "rediss"], example: "redis://user:password@localhost:6379/0" })
 */
export function parseServerUrl(url: unknown, rules: ServerUrlRules): ServerUrl {
  const { schemes, example, hosts: number = "one", name = "The url" } = rules;
  const refuse = (reason: string): never => refuseUrl(name, reason, example);
  const text = checkText(url, refuse);
  if (/\s/.test(text)) return refuse("holds white space, which must be percent-encoded (%20)");
  const [, scheme = "", authority = "", path = "", query = ""] = serverUrl.exec(text) ?? [];
  if (!schemes.includes(scheme.toLowerCase())) {
    return refuse(`does not begin with ${schemes.map((one) => `${one}://`).join(" or ")}`);
  }
  if (text.includes("#")) {
    return refuse('holds a "#", which must be percent-encoded (%23)');
  }
  const at = authority.indexOf("@");
  if (at !== authority.lastIndexOf("@") || path.includes("@")) {
    return refuse('holds a second "@", or one behind the host: percent-encode it (%40)');
  }
  const decode = (part: string) => decodePart(part, refuse);
  const [, user = "", password = ""] =
    /^([^:]*)(?::(.*))?$/s.exec(authority.slice(0, Math.max(at, 0))) ?? [];
  const place = authority.slice(at + 1);
  const hosts =
    place === "" && number === "optional"
      ? []
      : (number === "many" ? place.split(",") : [place]).map((one) => toHost(one, decode, refuse));
  if (path.includes("/", 1)) {
    return refuse('has more than one "/" behind the host: percent-encode it (%2F)');
  }
  const parameters = toParameters(query.slice(1), rules.parameters, decode, refuse);
  return {
    scheme: scheme.toLowerCase(),
    user: decode(user) || undefined,
    password: decode(password) || undefined,
    hosts,
    database: decode(path.slice(1)) || undefined,
    parameters,
  };
}

/**
 * The path that a URL of a file or folder names: `scheme:./relative`, relative to the working directory, or
 * `scheme:///absolute`; percent-decoded, and not made absolute.
 *
 * @param example Two or three complete URLs, as text.
 * @throws InvalidOptionsError that shows nothing of the URL. `scheme:///./x`, which others read as relative and which would
 *   be `/x`, is refused too.
 * @example parsePathUrl(url, "sqlite", "sqlite:./chat.db (relative) or sqlite:///var/lib/chat.db (absolute)")
 */
export function parsePathUrl(url: unknown, scheme: string, example: string): string {
  const refuse = (reason: string): never => refuseUrl("The url", reason, example);
  const text = checkText(url, refuse);
  const [, found = "", rest = ""] = /^([a-z][a-z0-9+.-]*):(.*)$/is.exec(text) ?? [];
  if (found.toLowerCase() !== scheme) return refuse(`does not begin with ${scheme}:`);
  if (/[?#]/.test(rest)) {
    return refuse('takes no query: a "?" or "#" of the path must be percent-encoded (%3F, %23)');
  }
  if (rest !== rest.trim()) {
    return refuse("begins or ends with white space, which must be percent-encoded (%20)");
  }
  if (/^(\/\/)?\/(\.|%2e){1,2}(\/|$)/i.test(rest)) {
    return refuse(`is absolute, and goes on as a relative one would: write ${scheme}:./ for that`);
  }
  if (/^\/\/(?!\/[^/])/.test(rest)) return refuse("names a host, or no path");
  if (/%2f/i.test(rest)) return refuse("holds an encoded slash (%2F), which no name can hold");
  const path = decodePart(rest, refuse);
  if (path === "" || path.includes("\0")) return refuse("names no path");
  if (!rest.startsWith("/")) return path;
  try {
    return fileURLToPath(`file://${rest.replace(/^\/\/(?=\/)/, "")}`);
  } catch {
    return refuse("names no path of this system");
  }
}

/**
 * Refuse a URL in the one way that shows nothing of it. Without a `cause`: what Node.js throws for a URL has it as `input`.
 *
 * @param reason Goes on after the name, in the program's words only: `is no Redis URL`.
 * @throws InvalidOptionsError always.
 */
export function refuseUrl(name: string, reason: string, example: string): never {
  throw new InvalidOptionsError(
    `${name} ${reason}. Write ${example}, and percent-encode special characters within a part (encodeURIComponent). ` +
      "It is not shown here, because it may hold a password",
  );
}

/**
 * The scheme of a URL, lower-case; `undefined` for what cannot be one. `localhost:6379`, `user:password@host` and `C:\\x` have
 * none: a scheme has two letters or more, and is followed by a path (`//host`, `/x`, `./x`), or is one of `bare`.
 */
export function schemeOf(url: string, bare: readonly string[] = []): string | undefined {
  const [, scheme = "", path] = /^([a-z][a-z0-9+.-]{1,63}):(\.{0,2}\/)?/i.exec(url) ?? [];
  const found = scheme.toLowerCase();
  return found !== "" && (path !== undefined || bare.includes(found)) ? found : undefined;
}

type Refuse = (reason: string) => never;

const serverUrl = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)(\/[^?#]*)?(\?[^#]*)?/is;

function checkText(url: unknown, refuse: Refuse): string {
  if (typeof url !== "string") {
    return refuse(`is ${url === null ? "null" : `of type ${typeof url}`}, not a string`);
  }
  if (/\p{Cc}/u.test(url)) return refuse("holds a line break or another control character");
  return url;
}

function decodePart(part: string, refuse: Refuse): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return refuse('holds a "%" that begins no percent-encoded character: write it as %25');
  }
}

function toHost(place: string, decode: (part: string) => string, refuse: Refuse) {
  const [, literal, name = "", digits] =
    /^(?:\[([0-9a-f:.]+(?:%25[\w.-]+)?)\]|([^:[\]\\"<>^`{|},]*))(?::(\d*))?$/i.exec(place) ?? [];
  const host = decode(literal ?? name);
  if (host === "") {
    return refuse(
      'has no host, or a ":" or "/" in user, password or host that is not percent-encoded',
    );
  }
  if (digits === undefined) return { host, port: undefined };
  const port = Number(digits);
  if (digits === "" || port < 1 || port > 65_535) {
    return refuse("has a port that is no number from 1 to 65535");
  }
  return { host, port };
}

function toParameters(
  query: string,
  known: readonly string[] | undefined,
  decode: (part: string) => string,
  refuse: Refuse,
): URLSearchParams {
  for (const part of query.split(/[&=]/)) decode(part);
  const parameters = new URLSearchParams(query);
  const names = new Set(known?.map((name) => name.toLowerCase()));
  for (const name of parameters.keys()) {
    if (known !== undefined && !names.has(name.toLowerCase())) {
      return refuse(
        known.length === 0
          ? 'takes no parameters: a "?" must be percent-encoded (%3F)'
          : `has a parameter that is not known here; known: ${known.join(", ")}`,
      );
    }
  }
  return parameters;
}
